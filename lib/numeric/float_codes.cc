#include "lib/numeric/float_codes.h"

#include <algorithm>
#include <cmath>

#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/group_search.h"
#include "lib/numeric/kernels/groups.h"
#include "lib/numeric/kernels/kernels.h"

namespace wtool {
namespace {

float last_of(SmallFloat type) {
  return type == SmallFloat::E4m3 ? 448 : 6;
}
float epsilon_of(DType scale) {
  switch (scale) {
    case DType::BF16: return 0x1p-7f;
    case DType::F16: return 0x1p-10f;
    case DType::F8_E4M3: return 0.125f;
    case DType::F8_E8M0: return 1;
    default: return 0x1p-23f;
  }
}

// Which power of two lets the largest value reach the type's last exponent.
float power_of_two(float amax, SmallFloat type) {
  if (amax == 0) return 1;
  const int exponent = std::ilogb(amax);
  const bool up = std::ldexp(amax, -exponent) >= 1.75f;
  return std::ldexp(1.0f,
                    std::clamp(exponent + up - (type == SmallFloat::E4m3 ? 8 : 2), -126, 127));
}

// Scales as they are stored, and as readers see them.
class Scales {
 public:
  explicit Scales(DType type) : type_(type), size_(info(type).block_bytes) {}

  // Leaves what will be read. False if it was beyond the type.
  bool store(float& scale, std::byte* to) const {
    if (type_ == DType::F8_E8M0) {
      *to = static_cast<std::byte>(std::ilogb(scale) + 127);
      return true;
    }
    const Codec& c = codec(type_);
    const bool fits = std::abs(scale) < c.too_large;
    if (!fits) scale = c.largest;
    c.encode(&scale, to, 1);
    c.decode(to, &scale, 1);
    if (scale != 0) return fits;
    scale = epsilon_of(type_);
    c.encode(&scale, to, 1);
    return true;
  }
  std::size_t size() const { return size_; }

 private:
  DType type_;
  std::size_t size_;
};

// One call's work.
class Coder {
 public:
  Coder(const FloatCoding& how, std::uint64_t cols, std::span<const float> importance,
        Scratch::Frame& frame, Drift& drift)
      : how_(how), scales_(how.scale), cols_(cols), importance_(importance), drift_(drift) {
    codes_ = frame.take<std::uint8_t>(kPiece);
    decoded_ = frame.take<float>(kPiece);
  }
  ~Coder() { drift_ += lanes_.fold(); }
  Coder(const Coder&) = delete;
  Coder& operator=(const Coder&) = delete;

  // Stores a scale; `elements` values are in its hands, the first of them `at` in the box.
  float settle(float scale, std::byte* to, std::uint64_t elements, std::uint64_t at) {
    if (!scales_.store(scale, to)) {
      drift_.overflows += elements;
      drift_.add_bad(at);
    }
    return how_.global == 1 ? scale : scale / how_.global;
  }
  float rtn(float amax) const {
    if (how_.scale == DType::F8_E8M0) return power_of_two(amax, how_.type);
    const float scale = amax / last_of(how_.type);
    return how_.global == 1 ? scale : how_.global * scale;
  }
  // Values [from, from + n) of row `row` of the box, all of one scale.
  void code(std::uint64_t row, std::uint64_t from, std::uint64_t n, std::span<const float> in,
            float effective, std::byte* out) {
    for (std::uint64_t i = 0; i < n; i += kPiece) {
      const std::uint64_t count = std::min(kPiece, n - i), at = row * cols_ + from + i;
      f32_to_codes(how_.type, in.data() + at, count, effective, codes_.data(), decoded_.data());
      if (how_.type == SmallFloat::E4m3)
        std::memcpy(out + at, codes_.data(), count);
      else
        pack(count, out + at / 2);
      add_drift(in.data() + at, decoded_.data(), count, nullptr, lanes_);
      if (!importance_.empty()) add_weighted(in.data() + at, from + i, count);
    }
  }
  std::size_t scale_size() const { return scales_.size(); }

 private:
  static constexpr std::uint64_t kPiece = 4096;

  void pack(std::uint64_t n, std::byte* out) {
    for (std::uint64_t i = 0; i < n; i += 2)
      out[i / 2] = static_cast<std::byte>(codes_[i] | codes_[i + 1] << 4);
  }
  void add_weighted(const float* in, std::uint64_t col, std::uint64_t n) {
    for (std::uint64_t i = 0; i < n; ++i) {
      const double value = in[i], error = static_cast<double>(decoded_[i]) - value,
                   weight = importance_[col + i];
      drift_.weighted_error2 += weight * error * error;
      drift_.weighted_value2 += weight * value * value;
    }
  }

  const FloatCoding& how_;
  Scales scales_;
  std::uint64_t cols_;
  std::span<const float> importance_;
  Drift& drift_;
  DriftLanes lanes_;
  std::span<std::uint8_t> codes_;
  std::span<float> decoded_;
};

GroupSearch search_of(const FloatCoding& how, std::uint64_t group) {
  return {.levels =
              how.type == SmallFloat::E4m3 ? GroupSearch::Levels::E4m3 : GroupSearch::Levels::E2m1,
          .group = group,
          // All f32 scales are too many to try: those that bf16 holds will do.
          .scale = how.scale == DType::F32 && how.method == ScaleMethod::Optimal ? DType::BF16
                                                                                 : how.scale,
          .global = how.global,
          .optimal = how.method == ScaleMethod::Optimal};
}

void by_rows(const FloatCoding& how, std::uint64_t rows, std::uint64_t cols,
             std::span<const float> in, std::span<const float> importance, MutableBytes codes,
             MutableBytes scales, Coder& coder, Scratch& scratch) {
  const std::uint64_t group = how.group == 0 ? cols : how.group, per_row = cols / group;
  Scratch::Frame frame(scratch);
  const auto chosen = frame.take<float>(rows * per_row);
  const bool search = how.method != ScaleMethod::Rtn;
  if (search) choose_scales(search_of(how, group), rows, cols, in, importance, chosen);
  for (std::uint64_t r = 0, g = 0; r < rows; ++r)
    for (std::uint64_t c = 0; c < cols; c += group, ++g) {
      const std::uint64_t at = r * cols + c;
      const float scale = search ? chosen[g] : coder.rtn(largest_magnitude(in.subspan(at, group)));
      const float effective =
          coder.settle(scale, scales.data() + g * coder.scale_size(), group, at);
      coder.code(r, c, group, in, effective, codes.data());
    }
}

// Blocks side by side, each gathered to one long row; short ones are filled up with zeros.
void by_blocks(const FloatCoding& how, std::uint64_t rows, std::uint64_t cols,
               std::span<const float> in, std::span<const float> importance, MutableBytes codes,
               MutableBytes scales, Coder& coder, Scratch& scratch) {
  const std::uint64_t across = ceil_div(cols, how.group), area = how.group * how.group_rows;
  Scratch::Frame frame(scratch);
  const auto values = frame.take<float>(across * area);
  const auto weights = frame.take<float>(importance.empty() ? 0 : across * area);
  const auto chosen = frame.take<float>(across);
  for (std::uint64_t top = 0; top < rows; top += how.group_rows) {
    const std::uint64_t high = std::min(how.group_rows, rows - top);
    std::ranges::fill(values, 0.0f);
    std::ranges::fill(weights, 0.0f);
    for (std::uint64_t b = 0; b < across; ++b)
      for (std::uint64_t r = 0; r < high; ++r) {
        const std::uint64_t from = b * how.group, n = std::min(how.group, cols - from);
        const std::uint64_t to = b * area + r * how.group;
        std::ranges::copy(in.subspan((top + r) * cols + from, n), values.begin() + to);
        if (!weights.empty()) std::ranges::copy(importance.subspan(from, n), weights.begin() + to);
      }
    if (how.method != ScaleMethod::Rtn) {
      // One block after another: each has an importance of its own layout.
      for (std::uint64_t b = 0; b < across && !weights.empty(); ++b)
        choose_scales(search_of(how, area), 1, area, values.subspan(b * area, area),
                      weights.subspan(b * area, area), chosen.subspan(b, 1));
      if (weights.empty()) choose_scales(search_of(how, area), across, area, values, {}, chosen);
    } else {
      for (std::uint64_t b = 0; b < across; ++b)
        chosen[b] = coder.rtn(largest_magnitude(values.subspan(b * area, area)));
    }
    for (std::uint64_t b = 0; b < across; ++b) {
      const std::uint64_t from = b * how.group, n = std::min(how.group, cols - from);
      const std::uint64_t g = top / how.group_rows * across + b;
      const float effective = coder.settle(chosen[b], scales.data() + g * coder.scale_size(),
                                           high * n, top * cols + from);
      for (std::uint64_t r = 0; r < high; ++r)
        coder.code(top + r, from, n, in, effective, codes.data());
    }
  }
}

}  // namespace

void code_floats(const FloatCoding& how, std::uint64_t rows, std::uint64_t cols,
                 std::span<const float> in, std::span<const float> importance, MutableBytes codes,
                 MutableBytes scales, Drift& drift, Scratch& scratch) {
  if (rows == 0 || cols == 0) return;
  Scratch::Frame frame(scratch);
  Coder coder(how, cols, importance, frame, drift);
  (how.group_rows > 1 ? by_blocks : by_rows)(how, rows, cols, in, importance, codes, scales, coder,
                                             scratch);
}

LargestStep::LargestStep(std::vector<TensorPtr> of) : MeasuringStep({}, ""), of_(std::move(of)) {
  for (const TensorPtr& t : of_) tilings_.push_back(Tiling::of(*t));
}

std::uint64_t LargestStep::units() const {
  std::uint64_t sum = 0;
  for (const Tiling& t : tilings_) sum += t.units();
  return sum;
}

void LargestStep::run(const Unit& unit) const {
  std::size_t t = 0;
  std::uint64_t at = unit.index;
  for (; at >= tilings_[t].units(); ++t) at -= tilings_[t].units();
  const Box box = tilings_[t].box(at);
  Scratch::Frame frame(unit.scratch);
  const auto values = frame.take<float>(box.elements());
  read_f32(*of_[t], box, values, unit.scratch);
  Drift found;  // what is not finite is reported where it is to be stored
  if (all_finite(values.data(), values.size())) found.worst = largest_magnitude(values);
  give(unit.found, found);
}

}  // namespace wtool
