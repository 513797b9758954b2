#include "lib/numeric/comparison.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/model/transform.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/measuring_step.h"

namespace wtool {
namespace {

static_assert(std::is_trivially_copyable_v<Comparison>);

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A tile's values stay in a core's cache while they are looked at several times.
constexpr std::uint64_t kTile = std::uint64_t{1} << 15;

// What codes chosen in f32 may be off: of a step, and of the value (eight bits of code lie above
// its last place).
constexpr double kStepNoise = 0x1p-16, kValueNoise = 0x1p-22;

std::optional<double> parse_bound(std::string_view text) {
  double value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!std::isfinite(value) || value < 0) return std::nullopt;
  return value;
}

// Elements that f32 cannot hold.
bool is_wide(DType type) noexcept {
  return type == DType::F64 || type == DType::I32 || type == DType::U32 || type == DType::I64 ||
         type == DType::U64;
}

double bits_per_element(DType type) noexcept {
  return 8.0 * info(type).block_bytes / info(type).block_elems;
}

// A row that does not fill whole blocks makes a tensor one long row; then the other must be one.
void align_rows(TensorPtr& a, TensorPtr& b) {
  if (a->whole().cols == b->whole().cols && a->whole().rows == b->whole().rows) return;
  a = reshaped(a, {a->elements()});
  b = reshaped(b, {b->elements()});
}

template <std::size_t kSize>
std::uint64_t other_bits(const std::byte* a, const std::byte* b, std::size_t n) {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < n; ++i)
    count += std::memcmp(a + i * kSize, b + i * kSize, kSize) != 0;
  return count;
}

bool same_number(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

}  // namespace

std::optional<Tolerance> parse_tolerance(std::string_view text) {
  if (text == "exact") return Tolerance{};
  if (text == "step") return Tolerance{.kind = Tolerance::Kind::Step};
  if (text == "any") return Tolerance{Tolerance::Kind::Bound, kInfinity, 0};
  const std::size_t colon = text.find(':');
  const auto absolute = parse_bound(text.substr(0, colon));
  const auto relative =
      colon == text.npos ? std::optional(0.0) : parse_bound(text.substr(colon + 1));
  if (!absolute || !relative) return std::nullopt;
  return Tolerance{Tolerance::Kind::Bound, *absolute, *relative};
}

Comparison& Comparison::operator+=(const Comparison& next) {
  if (next.worst.index != kNone && (worst.index == kNone || next.drift.worst > drift.worst))
    worst = next.worst;
  if (first_beyond.index == kNone) first_beyond = next.first_beyond;
  drift += next.drift;
  elements += next.elements;
  changed += next.changed;
  beyond += next.beyond;
  clipped += next.clipped;
  non_finite += next.non_finite;
  return *this;
}

double Comparison::changed_share() const {
  return elements == 0 ? 0 : static_cast<double>(changed) / static_cast<double>(elements);
}

Comparison identical(std::uint64_t elements) {
  Comparison out;
  out.elements = out.drift.elements = elements;
  return out;
}

// ---- The same bytes?

IdentityStep::IdentityStep(TensorPtr a, TensorPtr b)
    : a_(std::move(a)), b_(std::move(b)), tiling_(Tiling::of(*a_, 1, 4 * kTile)) {
  if (a_->dtype() != b_->dtype() || a_->shape() != b_->shape())
    throw Error(Fault::Internal, "tensors of two types or shapes hold no same bytes");
}

std::uint64_t IdentityStep::units() const {
  return ceil_div(tiling_.units(), kTilesPerUnit);
}

void IdentityStep::run(const Unit& unit) const {
  const std::uint64_t first = unit.index * kTilesPerUnit;
  const std::uint64_t last = std::min(first + kTilesPerUnit, tiling_.units());
  for (std::uint64_t tile = first; tile < last && !differs_.load(std::memory_order_relaxed);
       ++tile) {
    const Box box = tiling_.box(tile);
    Scratch::Frame frame(unit.scratch);
    const std::uint64_t bytes = checked_size(a_->dtype(), box.elements());
    const auto a = frame.take<std::byte>(bytes), b = frame.take<std::byte>(bytes);
    a_->read(box, a, unit.scratch);
    b_->read(box, b, unit.scratch);
    if (std::memcmp(a.data(), b.data(), bytes) == 0) continue;
    differs_.store(true, std::memory_order_relaxed);
    append(unit.found, std::uint8_t{1});
  }
}

void IdentityStep::fold(std::uint64_t, Buffer& found) {
  same_ = same_ && found.empty();
  found.clear();
}

// ---- How far apart?

ComparisonStep::ComparisonStep(std::string name, TensorPtr a, TensorPtr b,
                               const Tolerance& tolerance)
    : name_(std::move(name)),
      a_(std::move(a)),
      b_(std::move(b)),
      tolerance_(tolerance),
      tiling_({}, 1, 1) {
  if (a_->shape() != b_->shape())
    throw Error(Fault::Internal, fmt::format("{}: shapes {} and {} are compared", name_,
                                             to_text(a_->shape()), to_text(b_->shape())));
  align_rows(a_, b_);
  static_cast<void>(codec(a_->dtype()));
  static_cast<void>(codec(b_->dtype()));
  const bool one_type = a_->dtype() == b_->dtype();
  by_bits_ = one_type && info(a_->dtype()).block_elems == 1;
  if (tolerance.kind == Tolerance::Kind::Step) {
    const StepsOf a_steps = steps_of(*a_), b_steps = steps_of(*b_);
    if ((a_steps == StepsOf::Unknown || b_steps == StepsOf::Unknown) && !one_type)
      throw Error(Fault::Unsupported,
                  fmt::format("the values of {} are points of a codebook, which have no steps",
                              name_of(a_steps == StepsOf::Unknown ? a_->dtype() : b_->dtype())))
          .hint("compare with --tolerance ABS:REL, or leave the tensor out with -x");
    // Where one side was quantised, the other is what it was made of; of two plain types the
    // narrower one is.
    const bool levels = a_steps == StepsOf::Levels || b_steps == StepsOf::Levels;
    const double a_bits = bits_per_element(a_->dtype()), b_bits = bits_per_element(b_->dtype());
    const bool floats = !levels && !one_type;
    cells_a_ = levels ? a_steps == StepsOf::Levels
                      : floats && a_steps == StepsOf::Floats && a_bits <= b_bits;
    cells_b_ = levels ? b_steps == StepsOf::Levels
                      : floats && b_steps == StepsOf::Floats && b_bits <= a_bits;
  }
  wide_ = !in_steps() && (is_wide(a_->dtype()) || is_wide(b_->dtype()));
  tiling_ = Tiling::of(*a_, info(b_->dtype()).block_elems, kTile);
}

std::uint64_t ComparisonStep::units() const {
  return ceil_div(tiling_.units(), Tiling::kUnitElements / kTile);
}

// One tile's values and what is found in them.
class ComparisonStep::Tile {
 public:
  Tile(const ComparisonStep& step, const Box& box, DriftLanes& lanes, Comparison& found,
       Scratch& scratch)
      : step_(step), box_(box), lanes_(lanes), found_(found), scratch_(scratch), frame_(scratch) {}

  void compare() {
    found_.elements += box_.elements();
    if (step_.by_bits_) compare_bits();
    if (step_.wide_)
      compare_doubles();
    else
      compare_floats();
  }

 private:
  // By bits, -0 and NaN count too.
  void compare_bits() {
    bits_a_ = bits_of(*step_.a_);
    bits_b_ = bits_of(*step_.b_);
    const std::byte *a = bits_a_.data(), *b = bits_b_.data();
    const std::size_t n = box_.elements(), size = bits_a_.size() / std::max<std::size_t>(n, 1);
    const std::uint64_t others = size == 1   ? other_bits<1>(a, b, n)
                                 : size == 2 ? other_bits<2>(a, b, n)
                                 : size == 4 ? other_bits<4>(a, b, n)
                                             : other_bits<8>(a, b, n);
    found_.changed += others;
    if (others == 0 || step_.tolerance_.kind != Tolerance::Kind::Exact) return;
    found_.beyond += others;
    find_first(bits_a_, bits_b_, size);
  }
  MutableBytes bits_of(const Tensor& t) {
    const auto out = frame_.take<std::byte>(checked_size(t.dtype(), box_.elements()));
    t.read(box_, out, scratch_);
    return out;
  }
  std::span<float> floats_of(const Tensor& t, MutableBytes bits) {
    const std::size_t n = box_.elements();
    if (!bits.empty() && t.dtype() == DType::F32) return {reinterpret_cast<float*>(bits.data()), n};
    const auto out = frame_.take<float>(n);
    if (bits.empty())
      read_f32(t, box_, out, scratch_);
    else
      codec(t.dtype()).decode(bits.data(), out.data(), n);
    return out;
  }
  void find_first(Bytes a, Bytes b, std::size_t size) {
    if (found_.first_beyond.index != Comparison::kNone) return;
    const auto at = std::ranges::mismatch(a, b).in1 - a.begin();
    if (static_cast<std::size_t>(at) < a.size()) first_ = static_cast<std::uint64_t>(at) / size;
  }

  void compare_doubles() {
    const std::size_t n = box_.elements();
    const auto a = frame_.take<double>(n), b = frame_.take<double>(n);
    read_f64(*step_.a_, box_, a, scratch_);
    read_f64(*step_.b_, box_, b, scratch_);
    Drift& d = found_.drift;
    for (std::size_t i = 0; i < n; ++i) {
      judge(i, a[i], b[i]);
      if (!std::isfinite(a[i]) || !std::isfinite(b[i])) continue;
      const double error = b[i] - a[i];
      d.error2 += error * error;
      d.value2 += a[i] * a[i];
      d.cross += a[i] * error;
      if (std::abs(error) > d.worst) {
        d.worst = std::abs(error);
        found_.worst = {at(i), a[i], b[i]};
      }
    }
    d.elements += n;
  }

  void compare_floats() {
    const std::size_t n = box_.elements();
    a_ = floats_of(*step_.a_, bits_a_);
    b_ = floats_of(*step_.b_, bits_b_);
    judge_all();
    if (!all_finite(a_.data(), n) || !all_finite(b_.data(), n))
      for (std::size_t i = 0; i < n; ++i)
        if (!std::isfinite(a_[i]) || !std::isfinite(b_[i])) a_[i] = b_[i] = 0;
    const double before = lanes_.rest.worst;
    add_drift(a_.data(), b_.data(), n, nullptr, lanes_);
    if (lanes_.rest.worst <= before) return;
    for (std::size_t i = 0; i < n; ++i)
      if (std::abs(b_[i] - a_[i]) == lanes_.rest.worst) {
        found_.worst = {at(i), a_[i], b_[i]};
        return;
      }
  }

  void judge_all() {
    const std::size_t n = a_.size();
    if (first_ < n) put_first(first_, a_[first_], b_[first_]);
    if (!step_.in_steps()) {
      const Tolerance& t = step_.tolerance_;
      const bool bound = t.kind == Tolerance::Kind::Bound;
      std::uint32_t changed = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const double x = a_[i], y = b_[i];
        // Infinite bounds take no infinite values.
        const bool within =
            bound && std::abs(y - x) <= std::min(t.absolute + t.relative * std::abs(x),
                                                 std::numeric_limits<double>::max());
        if (!within && x != y) [[unlikely]]
          judge(i, x, y);
        else
          changed += x != y;
      }
      if (!step_.by_bits_) found_.changed += changed;
      return;
    }
    Side a = side(*step_.a_, step_.cells_a_), b = side(*step_.b_, step_.cells_b_);
    const auto odd = frame_.take<std::uint8_t>(n);
    if (step_.cells_a_ && step_.cells_b_)
      std::ranges::fill(odd, std::uint8_t{1});
    else if (step_.cells_a_)
      settle(b_, a_, a.cells, odd);
    else
      settle(a_, b_, b.cells, odd);
    for (std::size_t i = 0; i < n; ++i)
      if (odd[i] != 0 && a_[i] != b_[i]) judge_steps(i, a, b);
  }
  // Most values lie in the cells of levels that are not the last ones: counted without branches.
  // The others are marked as odd.
  void settle(std::span<const float> values, std::span<const float> levels, const CellSpans& cells,
              std::span<std::uint8_t> odd) {
    float worst = 0;
    std::uint32_t changed = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float value = values[i], level = levels[i];
      // One of the two is not positive; towards infinity it is 0, which says nothing.
      const float up = (value - level) / (cells.high[i] - level);
      const float down = (level - value) / (level - cells.low[i]);
      const float part = std::max(up, down);
      const bool other = value != level;
      const auto settled = static_cast<std::uint8_t>((part <= 1) & ((part > 0) | !other));
      odd[i] = settled ^ 1;
      worst = std::max(worst, settled != 0 ? part : 0.0f);
      changed += settled & static_cast<std::uint8_t>(other);
    }
    found_.drift.worst_steps = std::max<double>(found_.drift.worst_steps, worst / 2);
    if (!step_.by_bits_) found_.changed += changed;
  }

  // Two values that are not equal, or NaN.
  void judge(std::size_t i, double a, double b) {
    if (i == first_) put_first(i, a, b);
    if (same_number(a, b)) return;
    const Tolerance& t = step_.tolerance_;
    found_.changed += !step_.by_bits_;
    if (!std::isfinite(a) || !std::isfinite(b)) {
      ++found_.non_finite;
      if (t.kind == Tolerance::Kind::Exact && step_.by_bits_) return;  // counted by bits
    } else if (t.kind == Tolerance::Kind::Exact) {
      if (step_.by_bits_) return;
    } else if (t.kind == Tolerance::Kind::Bound &&
               std::abs(b - a) <= t.absolute + t.relative * std::abs(a)) {
      return;
    }
    ++found_.beyond;
    put_first(i, a, b);
  }

  struct Side {
    CellSpans cells;  // empty: a value stands for itself
    // Half a step towards what lies above or below, and whether there is no further level.
    std::pair<double, bool> half(std::size_t i, double value, bool up) const {
      if (cells.low.empty()) return {0, false};
      const double above = cells.high[i] - value, below = value - cells.low[i];
      const double ahead = up ? above : below, behind = up ? below : above;
      if (ahead != kInfinity) return {std::max(ahead, 0.0), false};
      return {behind == kInfinity ? 0 : std::max(behind, 0.0), true};
    }
    double slack(std::size_t i) const { return cells.slack.empty() ? 0 : cells.slack[i]; }
  };
  Side side(const Tensor& tensor, bool wanted) {
    if (!wanted) return {};
    const std::size_t n = a_.size();
    const Side out{{frame_.take<float>(n), frame_.take<float>(n), frame_.take<float>(n)}};
    read_cells(tensor, box_, out.cells, scratch_);
    return out;
  }
  void judge_steps(std::size_t i, const Side& sa, const Side& sb) {
    const double a = a_[i], b = b_[i];
    if (!std::isfinite(a) || !std::isfinite(b)) return judge(i, a, b);
    found_.changed += !step_.by_bits_;
    const auto [half_a, last_a] = sa.half(i, a, b > a);
    const auto [half_b, last_b] = sb.half(i, b, a > b);
    const double half = half_a + half_b, distance = std::abs(b - a);
    const double noise = 2 * half * kStepNoise + std::max(std::abs(a), std::abs(b)) * kValueNoise +
                         sa.slack(i) + sb.slack(i);
    Drift& d = found_.drift;
    if (distance > half + noise) {
      if (last_a || last_b) {
        ++found_.clipped;
        return;
      }
      ++found_.beyond;
      put_first(i, a, b);
    }
    d.worst_steps = std::max(d.worst_steps, half > 0 ? distance / (2 * half) : 0);
  }

  void put_first(std::size_t i, double a, double b) {
    if (found_.first_beyond.index == Comparison::kNone) found_.first_beyond = {at(i), a, b};
  }
  std::uint64_t at(std::size_t i) const { return flat_index(*step_.a_, box_, i); }

  const ComparisonStep& step_;
  Box box_;
  DriftLanes& lanes_;
  Comparison& found_;
  Scratch& scratch_;
  Scratch::Frame frame_;
  MutableBytes bits_a_, bits_b_;
  std::span<float> a_, b_;
  std::size_t first_ = ~std::size_t{0};  // of other bits
};

void ComparisonStep::run(const Unit& unit) const {
  constexpr std::uint64_t kTiles = Tiling::kUnitElements / kTile;
  const std::uint64_t first = unit.index * kTiles;
  const std::uint64_t last = std::min(first + kTiles, tiling_.units());
  DriftLanes lanes;
  Comparison found;
  for (std::uint64_t tile = first; tile < last; ++tile)
    Tile(*this, tiling_.box(tile), lanes, found, unit.scratch).compare();
  found.drift += lanes.fold();
  append(unit.found, std::as_bytes(std::span(&found, 1)));
}

void ComparisonStep::fold(std::uint64_t, Buffer& found) {
  result_ += load<Comparison>(found);
  found.clear();
}

void ComparisonStep::report(Report& to) const {
  to.rows.push_back(comparison_row(name_, result_, in_steps()));
}

namespace {
constexpr Column kCount{"count", "values", "count"}, kChanged{"changed", "values", "changed"},
    kChangedShare{"changed_share", "", "changed"}, kBeyond{"beyond", "values", "beyond"},
    kWorstIndex{"max_error_index", "", "at"}, kMismatched{"non_finite", "values", "NaN/Inf"};
}  // namespace

std::vector<std::string_view> comparison_columns() {
  Comparison all;
  all.worst.index = 0;
  std::vector<std::string_view> out;
  for (const auto& [column, cell] : comparison_row({}, all, true).cells)
    out.push_back(column->name);
  return out;
}

Row comparison_row(std::string name, const Comparison& found, bool in_steps) {
  Row row{std::move(name), {}};
  const auto add = [&](const Column& column, auto v) { row.cells.emplace_back(&column, v); };
  add(kCount, found.elements);
  add(kChanged, found.changed);
  add(kChangedShare, found.changed_share());
  add(kBeyond, found.beyond);
  add(kRelRmse, found.drift.rel_rmse());
  add(kSqnr, found.drift.sqnr_db());
  add(kCosine, found.drift.cosine());
  add(kMaxError, found.drift.worst);
  if (found.worst.index != Comparison::kNone) add(kWorstIndex, found.worst.index);
  if (in_steps) {
    add(kMaxSteps, found.drift.worst_steps);
    add(kClipped, found.clipped);
  }
  add(kMismatched, found.non_finite);
  return row;
}

}  // namespace wtool
