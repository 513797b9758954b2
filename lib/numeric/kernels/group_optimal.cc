// The least measure among all storable scales, and zero points, of a group of integers.
//
// At a scale s > 0 a value x gets the code round(|x| / s), up to the last code of its side: it
// passes from k to k + 1 where s falls below |x| / (k + 1/2). With A = sum of w |x| q and
// B = sum of w q² the measure is the sum of w x² less the gain 2 s A - s² B. So from the largest
// scale down, every such event adds w |x| to A and w (2k + 1) to B, and the gain of each storable
// scale takes three products. Where s is the end of an interval both codes are as near, so that it
// does not matter on which side rounding puts an event: the measure changes by a few ulps of one
// square.
//
// How far a side's codes go depends on the zero point and the sign. Events are kept apart by k as
// far as those caps differ. A negative scale with codes -h … h-1 is a positive one with codes
// -(h-1) … h, negated.
//
// Which scales need no look. Above twice the largest |x| all codes are 0, a gain of 0, and no
// choice of nearest codes gains less. Below, clipping: no code goes beyond `cap`, so that the
// measure is at least the sum of w max(0, |x| - cap s)²; with zero points, where the codes cover a
// window of the width top s, and the least and the greatest value (weights v, w) are further apart
// by d, at least min over y of v y² + w (d - y)² = d² v w / (v + w), or, if the one end is only the
// 0 that every window holds, the other value's w d². Both bounds grow as s falls. Scales for which
// they exceed what rounding to nearest achieves can't be best.
#include <algorithm>
#include <cmath>
#include <vector>

#include "lib/numeric/kernels/group_scales.h"

namespace wtool::groups {
namespace {

double square(double x) noexcept {
  return x * x;
}

class Sweep {
 public:
  Sweep(const GroupSearch& how, const Ladder& ladder, const Group& group, const Choice& rtn)
      : how_(how), ladder_(ladder), group_(group), top_(top_of(how)), best_(rtn) {
    if (how.zero_points)
      first_z_ = 0, last_z_ = top_;
    else
      last_z_ = half_of(how), first_z_ = last_z_ - how.either_sign;
    class_of_.assign(static_cast<std::size_t>(top_) + 1, 0);
    // The caps of the two sides are the z's and the top - z's: each begins a class of its own.
    least_cap_ = std::min(first_z_, top_ - last_z_);
    most_cap_ = std::max(last_z_, top_ - first_z_);
    for (int k = 0; k < most_cap_; ++k)
      class_of_[static_cast<std::size_t>(k)] = k < least_cap_ ? 0 : k - least_cap_ + 1;
    classes_ = static_cast<std::size_t>(most_cap_ - least_cap_) + 1;
    running_.assign(2 * classes_, {});
    capped_ = running_;
    for (std::size_t i = 0; i < group.n; ++i) largest_ = std::max(largest_, std::abs(group.x[i]));
    best_gain_ = gain_of(rtn);
    find_floor();
  }

  Choice run() {
    if (how_.scale == DType::BF16)
      by_rungs();
    else
      by_sorting();
    return best_;
  }

 private:
  struct Sums {
    double a = 0, b = 0;
  };
  struct Event {
    float at;
    std::uint32_t slot;
    Sums add;
  };

  double weight(std::size_t i) const noexcept {
    return group_.weight ? static_cast<double>(group_.weight[i]) : 1;
  }

  // What the choice takes off the sum of squares; in the same sums as the sweep's.
  double gain_of(const Choice& c) noexcept {
    const double s = ladder_.value(c.rung);
    Sums sums;
    for (std::size_t i = 0; i < group_.n; ++i) {
      const double x = group_.x[i];
      const double q = std::nearbyint(
          std::clamp(x / s, static_cast<double>(-c.z), static_cast<double>(top_ - c.z)));
      sums.a += weight(i) * x * q;
      sums.b += weight(i) * q * q;
      rtn_error_ += weight(i) * square(x - q * s);
    }
    return s * (2 * sums.a - s * sums.b);
  }

  double clipped(double s) const noexcept {
    double sum = 0;
    for (std::size_t i = 0; i < group_.n; ++i)
      sum += weight(i) * square(std::max(0.0, std::abs(group_.x[i]) - most_cap_ * s));
    return sum;
  }
  double out_of_window(double s) const noexcept {
    std::size_t low = 0, high = 0;
    for (std::size_t i = 1; i < group_.n; ++i) {
      if (group_.x[i] < group_.x[low]) low = i;
      if (group_.x[i] > group_.x[high]) high = i;
    }
    const double from = std::min(0.0f, group_.x[low]), to = std::max(0.0f, group_.x[high]);
    const double v = weight(low), w = weight(high);
    const double beyond = std::max(0.0, to - from - top_ * s);
    if (from == 0) return w * square(beyond);
    if (to == 0) return v * square(beyond);
    return v + w > 0 ? square(beyond) * v * w / (v + w) : 0;
  }
  // The lowest rung whose bound does not exclude it: the bound rises as the scale falls.
  void find_floor() {
    const double enough = rtn_error_ * (1 + 0x1p-20);
    std::int32_t no = ladder_.lowest() - 1, yes = best_.rung;
    while (yes - no > 1) {
      const std::int32_t middle = no + (yes - no) / 2;
      const double s = ladder_.value(middle);
      const bool excluded = (how_.zero_points ? out_of_window(s) : clipped(s)) > enough;
      (excluded ? no : yes) = middle;
    }
    floor_ = yes;
  }

  // Calls event(threshold, slot of `running_`, sums to add) for all above the least scale.
  template <class Fn>
  void for_events(Fn event) const {
    const float least = ladder_.value(floor_);
    for (std::size_t i = 0; i < group_.n; ++i) {
      const float x = group_.x[i], size = std::abs(x);
      const int cap = x < 0 ? last_z_ : top_ - first_z_;
      const double w = weight(i), wx = w * static_cast<double>(size);
      for (int k = 0; k < cap; ++k) {
        const float at = size / (static_cast<float>(k) + 0.5f);
        if (!(at >= least)) break;
        const std::size_t slot = static_cast<std::size_t>(class_of_[static_cast<std::size_t>(k)]) +
                                 (x < 0 ? classes_ : 0);
        event(at, slot, Sums{wx, w * (2 * k + 1)});
      }
    }
  }

  // Sums up to each class, for consider_all().
  void add_up() {
    for (std::size_t side : {std::size_t{0}, classes_}) {
      Sums sums;
      for (std::size_t c = side; c < side + classes_; ++c) {
        sums.a += running_[c].a;
        sums.b += running_[c].b;
        capped_[c] = sums;
      }
    }
  }
  Sums capped(bool below, int cap) const noexcept {
    return capped_[static_cast<std::size_t>(cap - least_cap_) + (below ? classes_ : 0)];
  }
  void consider(std::int32_t rung, const Sums& above, const Sums& below, int z, bool negative) {
    const double s = ladder_.value(rung);
    const double gain = s * (2 * (above.a + below.a) - s * (above.b + below.b));
    if (gain > best_gain_) {
      best_gain_ = gain;
      best_ = {rung, negative ? half_of(how_) : z, negative};
    }
  }
  void consider_all(std::int32_t rung) {
    add_up();
    for (int z = last_z_; z >= first_z_; --z)
      consider(rung, capped(false, top_ - z), capped(true, z), z, mirrored(z));
  }
  bool mirrored(int z) const noexcept { return !how_.zero_points && z != half_of(how_); }

  void by_rungs() {
    const std::int32_t highest =
        std::max(floor_, std::min(ladder_.highest(), ladder_.floor(2 * largest_) + 1));
    const std::size_t slots = 2 * classes_;
    std::vector<Sums> at_rung(static_cast<std::size_t>(highest - floor_ + 1) * slots);
    for_events([&](float at, std::size_t slot, const Sums& add) {
      const std::int32_t rung = std::min(ladder_.floor(at), highest);
      Sums& sums = at_rung[static_cast<std::size_t>(rung - floor_) * slots + slot];
      sums.a += add.a;
      sums.b += add.b;
    });
    for (std::int32_t rung = highest; rung >= floor_; --rung) {
      const Sums* const add = at_rung.data() + static_cast<std::size_t>(rung - floor_) * slots;
      for (std::size_t c = 0; c < slots; ++c) {
        running_[c].a += add[c].a;
        running_[c].b += add[c].b;
      }
      consider_all(rung);
    }
  }

  // Where there are too many scales to look at each: between two events the gain is a parabola,
  // best at A / B or at the end nearest to it. The best storable scale there, if there is one, is
  // next to that point. (One beyond the events gains more than is reckoned here, with its own
  // codes, and is found where it lies.)
  void by_sorting() {
    std::vector<Event> events;
    for_events([&](float at, std::size_t slot, const Sums& add) {
      events.push_back({at, static_cast<std::uint32_t>(slot), add});
    });
    std::stable_sort(events.begin(), events.end(),
                     [](const Event& a, const Event& b) { return a.at > b.at; });
    const float least = ladder_.value(floor_), most = ladder_.value(ladder_.highest());
    for (std::size_t e = 0; e < events.size(); ++e) {
      running_[events[e].slot].a += events[e].add.a;
      running_[events[e].slot].b += events[e].add.b;
      const float next = e + 1 < events.size() ? events[e + 1].at : least;
      if (next == events[e].at) continue;
      add_up();
      for (int z = last_z_; z >= first_z_; --z) {
        const Sums above = capped(false, top_ - z), below = capped(true, z);
        const double a = above.a + below.a, b = above.b + below.b;
        const double high = std::min(events[e].at, most);
        const double s =
            b > 0 ? std::clamp<double>(a / b, std::min<double>(next, high), high) : high;
        const std::int32_t rung = ladder_.floor(static_cast<float>(s));
        consider(rung, above, below, z, mirrored(z));
        consider(ladder_.clamp(rung + 1), above, below, z, mirrored(z));
      }
    }
  }

  const GroupSearch& how_;
  const Ladder& ladder_;
  const Group& group_;
  int top_, first_z_ = 0, last_z_ = 0, least_cap_ = 0, most_cap_ = 0;
  std::vector<int> class_of_;
  std::size_t classes_ = 1;
  // By class, first of the values above 0, then of those below.
  std::vector<Sums> running_, capped_;
  float largest_ = 0;
  double rtn_error_ = 0, best_gain_ = 0;
  std::int32_t floor_ = 1;
  Choice best_;
};

}  // namespace

Choice optimal_integers(const GroupSearch& how, const Ladder& ladder, const Group& group,
                        const Choice& rtn) {
  return Sweep(how, ladder, group, rtn).run();
}

}  // namespace wtool::groups
