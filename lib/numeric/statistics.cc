#include "lib/numeric/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/statistics.h"
#include "lib/numeric/measuring_step.h"

namespace wtool {
namespace {

static_assert(std::is_trivially_copyable_v<Moments>);

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// ---- 64-bit integers in the order of the values

constexpr std::uint64_t kTop = std::uint64_t{1} << 63;

std::uint64_t key_of(double v) noexcept {
  const auto bits = std::bit_cast<std::uint64_t>(v);
  return (bits & kTop) != 0 ? ~bits : bits | kTop;
}
std::uint64_t key_of(std::int64_t v) noexcept {
  return static_cast<std::uint64_t>(v) ^ kTop;
}
std::uint64_t key_of(std::uint64_t v) noexcept {
  return v;
}
template <class T>
std::uint64_t key_of_element(T v) noexcept {
  if constexpr (std::is_floating_point_v<T>)
    return key_of(static_cast<double>(v));
  else if constexpr (std::is_signed_v<T>)
    return key_of(static_cast<std::int64_t>(v));
  else
    return key_of(static_cast<std::uint64_t>(v));
}
Number number_of(std::uint64_t key, Moments::Kind kind) noexcept {
  if (kind == Moments::Kind::Unsigned) return key;
  if (kind == Moments::Kind::Signed) return static_cast<std::int64_t>(key ^ kTop);
  return std::bit_cast<double>((key & kTop) != 0 ? key ^ kTop : ~key);
}
// Of a float that has passed for an element of `kind`.
std::uint64_t key_as(Moments::Kind kind, float v) noexcept {
  if (kind == Moments::Kind::Unsigned) return key_of(static_cast<std::uint64_t>(v));
  if (kind == Moments::Kind::Signed) return key_of(static_cast<std::int64_t>(v));
  return key_of(double{v});
}

// ---- Facts about types

Moments::Kind kind_of(DType type) noexcept {
  switch (type) {
    case DType::Bool:
    case DType::U8:
    case DType::U16:
    case DType::U32:
    case DType::U64: return Moments::Kind::Unsigned;
    case DType::I8:
    case DType::I16:
    case DType::I32:
    case DType::I64: return Moments::Kind::Signed;
    default: return Moments::Kind::Float;
  }
}

// The bits, as f32, of the smallest normal value; 1 where there are no subnormals. Blocks are what
// they decode to: f32.
std::uint32_t smallest_normal(DType type) noexcept {
  switch (type) {
    case DType::F16:
    case DType::F8_E5M2: return std::bit_cast<std::uint32_t>(0x1p-14f);
    case DType::F8_E5M2FNUZ: return std::bit_cast<std::uint32_t>(0x1p-15f);
    case DType::F8_E4M3: return std::bit_cast<std::uint32_t>(0x1p-6f);
    case DType::F8_E4M3FNUZ: return std::bit_cast<std::uint32_t>(0x1p-7f);
    case DType::F6_E2M3:
    case DType::F4: return std::bit_cast<std::uint32_t>(1.0f);
    case DType::F6_E3M2: return std::bit_cast<std::uint32_t>(0x1p-2f);
    case DType::F8_E8M0: return 1;
    default:
      return kind_of(type) == Moments::Kind::Float ? std::bit_cast<std::uint32_t>(0x1p-126f) : 1;
  }
}

// Elements that f32 cannot hold.
bool is_wide(DType type) noexcept {
  return type == DType::F64 || type == DType::I32 || type == DType::U32 || type == DType::I64 ||
         type == DType::U64;
}

// What a counter counts.
enum class Pattern : std::uint8_t { F32Upper, F16, I16, U16 };
Pattern pattern_of(DType type) noexcept {
  switch (type) {
    case DType::F16: return Pattern::F16;
    case DType::I16: return Pattern::I16;
    case DType::U16: return Pattern::U16;
    default: return Pattern::F32Upper;  // of bf16: all of it
  }
}

// What becomes zero and what becomes too large, found with the type's own encoder.
Reach reach_of(DType to) {
  const Codec* codec = find_codec(to);
  if (info(to).kind != Kind::Float || codec == nullptr || codec->encode == nullptr)
    throw Error(Fault::Usage, fmt::format("{} is no type whose range can be told", name_of(to)))
        .hint("f16, bf16, f32 and the 8-, 6- and 4-bit floats are");
  const auto survives = [&](std::uint32_t bits) {
    float in[4] = {std::bit_cast<float>(bits)}, out[4] = {};
    std::byte stored[8] = {};
    const std::size_t n = info(to).block_elems;
    codec->encode(in, stored, n);
    codec->decode(stored, out, n);
    return out[0] != 0;
  };
  std::uint32_t zero = 0, not_zero = std::bit_cast<std::uint32_t>(1.0f);
  while (not_zero - zero > 1) {
    const std::uint32_t middle = zero + (not_zero - zero) / 2;
    (survives(middle) ? not_zero : zero) = middle;
  }
  return {not_zero, std::bit_cast<std::uint32_t>(codec->too_large)};
}

// ---- One unit

constexpr std::size_t kPiece = 4096;  // its float values stay in the nearest cache

// f64 to f32 with a sticky last bit: rounding again to a narrower type is as rounding once.
float to_odd(double value) noexcept {
  const float f = static_cast<float>(value);
  const double back = f;
  if (back == value) return f;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(f);
  if (std::abs(back) > std::abs(value)) --bits;
  return std::bit_cast<float>(bits | 1);
}

// The difference of two elements; of integers it is exact before it becomes a double.
template <class T>
double difference(T a, T b) noexcept {
  if constexpr (std::is_floating_point_v<T>)
    return a - b;
  else if (a >= b)
    return static_cast<double>(static_cast<std::uint64_t>(a) - static_cast<std::uint64_t>(b));
  else
    return -static_cast<double>(static_cast<std::uint64_t>(b) - static_cast<std::uint64_t>(a));
}

// One worker's view of a unit. Sums are of differences from a pivot, the unit's first finite value,
// so that a large mean costs no digits.
class Counter {
 public:
  Counter(const Tensor& tensor, const StatisticsOptions& options, Scratch& scratch)
      : tensor_(tensor),
        type_(tensor.dtype()),
        codec_(codec(type_)),
        normal_(smallest_normal(type_)),
        frame_(scratch),
        values_(frame_.take<float>(kPiece)),
        mended_(frame_.take<float>(kPiece)) {
    found_.kind = kind_of(type_);
    if (options.cast) {
      cast_ = options.cast;
      reach_ = reach_of(*cast_);
    }
    if (!options.distribution) return;
    counters_ = frame_.take<std::uint32_t>(kCounters);
    std::ranges::fill(counters_, 0u);
  }

  void add(const Box& box, Bytes in);
  Moments finish();
  std::span<const std::uint32_t> counters() const noexcept { return counters_; }

 private:
  void narrow(const Box& box, Bytes in, std::size_t at, std::size_t n);
  void mend(const Box& box, Bytes in, std::size_t at, const float* x, std::size_t n);
  template <class T>
  void wide(const Box& box, Bytes in);
  void count_wide(double v, bool exact);
  void bad(const Box& box, std::size_t i, bool is_nan, std::uint64_t bits);
  std::uint64_t stored_bits(Bytes in, std::size_t i, float decoded) const;

  const Tensor& tensor_;
  DType type_;
  const Codec& codec_;
  std::uint32_t normal_;
  Scratch::Frame frame_;
  std::span<float> values_, mended_;
  std::span<std::uint32_t> counters_;  // empty: not asked for
  std::optional<DType> cast_;
  Reach reach_{};
  MomentLanes lanes_;
  Moments found_;
  bool settled_ = false;  // there is a pivot
  double pivot_ = 0;
  std::uint64_t whole_pivot_ = 0;  // of integers, as bits
};

void Counter::add(const Box& box, Bytes in) {
  switch (type_) {
    case DType::F64: return wide<double>(box, in);
    case DType::I32: return wide<std::int32_t>(box, in);
    case DType::U32: return wide<std::uint32_t>(box, in);
    case DType::I64: return wide<std::int64_t>(box, in);
    case DType::U64: return wide<std::uint64_t>(box, in);
    default: break;
  }
  const std::size_t n = static_cast<std::size_t>(box.elements());
  for (std::size_t at = 0; at < n; at += kPiece) narrow(box, in, at, std::min(kPiece, n - at));
}

void Counter::narrow(const Box& box, Bytes in, std::size_t at, std::size_t n) {
  const std::byte* raw = in.data() + checked_size(type_, at);
  const float* x = reinterpret_cast<const float*>(raw);  // scratch is aligned, so are pieces
  if (type_ != DType::F32) {
    codec_.decode(raw, values_.data(), n);
    x = values_.data();
  }
  found_.elements += n;
  if (!settled_) {
    const float* first = std::find_if(x, x + n, [](float v) { return std::isfinite(v); });
    settled_ = first != x + n;
    if (settled_) pivot_ = *first;
  }
  if (!settled_ || !add_moments(x, n, pivot_, normal_, lanes_)) mend(box, in, at, x, n);
  if (cast_) add_reach(x, n, reach_);
  if (counters_.empty()) return;
  if (type_ == DType::BF16 || pattern_of(type_) != Pattern::F32Upper)
    count_halves(raw, n, counters_.data());
  else
    count_upper_halves(x, n, counters_.data());
}

// A piece with values that are not finite: the pivot in their place adds nothing to the sums.
void Counter::mend(const Box& box, Bytes in, std::size_t at, const float* x, std::size_t n) {
  std::uint64_t replaced = 0;
  for (std::size_t i = 0; i < n; ++i) {
    mended_[i] = x[i];
    if (std::isfinite(x[i])) continue;
    mended_[i] = static_cast<float>(pivot_);
    ++replaced;
    bad(box, at + i, std::isnan(x[i]), stored_bits(in, at + i, x[i]));
  }
  if (!settled_) return;  // nothing is finite so far
  add_moments(mended_.data(), n, pivot_, normal_, lanes_);
  const float p = std::abs(static_cast<float>(pivot_));
  if (p == 0) lanes_.zeros -= replaced;
  if (std::bit_cast<std::uint32_t>(p) < normal_) lanes_.below_normal -= replaced;
}

void Counter::bad(const Box& box, std::size_t i, bool is_nan, std::uint64_t bits) {
  ++(is_nan ? found_.nan : found_.infinite);
  const std::uint64_t index = flat_index(tensor_, box, i);
  if (index >= found_.first_bad) return;
  found_.first_bad = index;
  found_.first_bits = bits;
}

std::uint64_t Counter::stored_bits(Bytes in, std::size_t i, float decoded) const {
  const DTypeInfo& t = info(type_);
  if (t.block_elems != 1) return std::bit_cast<std::uint32_t>(decoded);
  std::uint64_t bits = 0;
  std::memcpy(&bits, in.subspan(i * t.block_bytes, t.block_bytes).data(), t.block_bytes);
  return bits;
}

template <class T>
void Counter::wide(const Box& box, Bytes in) {
  const std::size_t n = static_cast<std::size_t>(box.elements());
  found_.elements += n;
  T pivot{};
  if constexpr (std::is_floating_point_v<T>)
    pivot = pivot_;
  else
    pivot = static_cast<T>(whole_pivot_);
  for (std::size_t i = 0; i < n; ++i) {
    const T v = load<T>(in, i);
    const double d = static_cast<double>(v);
    if (!std::isfinite(d)) {
      bad(box, i, std::isnan(d), std::bit_cast<std::uint64_t>(d));
      continue;
    }
    if (!std::exchange(settled_, true)) {
      pivot = v;
      pivot_ = d;
      if constexpr (std::is_integral_v<T>) whole_pivot_ = static_cast<std::uint64_t>(v);
    }
    const double e = difference(v, pivot);
    lanes_.sum[i % MomentLanes::kStripes] += e;
    lanes_.sum2[i % MomentLanes::kStripes] += e * e;
    found_.lowest = std::min(found_.lowest, key_of_element(v));
    found_.highest = std::max(found_.highest, key_of_element(v));
    lanes_.zeros += v == 0;
    lanes_.below_normal +=
        v == 0 || (std::is_floating_point_v<T> && std::abs(d) < std::numeric_limits<double>::min());
    count_wide(d, std::is_floating_point_v<T> || std::abs(d) <= 0x1p53);
  }
}

// As f32: what is beyond its range counts as its largest.
void Counter::count_wide(double v, bool exact) {
  constexpr float kMost = std::numeric_limits<float>::max();
  const float nearest = static_cast<float>(v);
  if (cast_) {
    const float odd = *cast_ == DType::F32 ? nearest : to_odd(v);
    const std::uint32_t a = std::bit_cast<std::uint32_t>(std::abs(odd));
    reach_.below += a < reach_.small;
    reach_.beyond += std::isinf(nearest) || a >= reach_.large;
  }
  if (counters_.empty()) return;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(std::clamp(nearest, -kMost, kMost));
  lanes_.any_bits |= exact && double{nearest} == v ? bits : ~std::uint32_t{0};
  ++counters_[bits >> 16];
}

Moments Counter::finish() {
  Moments& m = found_;
  m.finite = m.elements - m.non_finite();
  if (m.finite == 0) return m;
  double sum = 0, sum2 = 0;
  for (std::size_t i = 0; i < MomentLanes::kStripes; ++i) {
    sum += lanes_.sum[i];
    sum2 += lanes_.sum2[i];
  }
  const double n = static_cast<double>(m.finite);
  m.mean = pivot_ + sum / n;
  m.m2 = std::max(0.0, sum2 - sum * (sum / n));
  if (!is_wide(type_)) {
    m.lowest = key_as(m.kind, std::bit_cast<float>(bits_of_order(lanes_.lowest)));
    m.highest = key_as(m.kind, std::bit_cast<float>(bits_of_order(lanes_.highest)));
  }
  m.zeros = lanes_.zeros;
  m.subnormals = lanes_.below_normal - lanes_.zeros;
  m.any_bits = lanes_.any_bits;
  if (cast_) {
    m.overflows = reach_.beyond;
    m.underflows = reach_.below - lanes_.zeros;
  }
  return m;
}

// ---- From units to the step: the moments, then the pages of counters that are not empty

constexpr std::size_t kPage = 256;

void give_pages(Buffer& to, std::span<const std::uint32_t> counters) {
  for (std::size_t at = 0; at < counters.size(); at += kPage) {
    const auto page = counters.subspan(at, kPage);
    std::uint32_t any = 0;
    for (const std::uint32_t n : page) any |= n;
    if (any == 0) continue;
    append(to, static_cast<std::uint64_t>(at));
    append(to, std::as_bytes(page));
  }
}

// Pages that never came stay empty: small tensors are many.
void take_pages(Bytes from, std::vector<std::vector<std::uint64_t>>& pages) {
  constexpr std::size_t kBytes = kPage * sizeof(std::uint32_t);
  pages.resize(kCounters / kPage);
  while (!from.empty()) {
    std::vector<std::uint64_t>& to = pages[load<std::uint64_t>(from) / kPage];
    from = from.subspan(sizeof(std::uint64_t));
    to.resize(kPage);
    for (std::size_t i = 0; i < kPage; ++i) to[i] += load<std::uint32_t>(from, i);
    from = from.subspan(kBytes);
  }
}

// ---- Distributions

// The values of a counter; nullopt for NaN and infinities.
std::optional<std::pair<double, double>> values_of(Pattern pattern, std::uint32_t code,
                                                   bool exact) {
  if (pattern == Pattern::U16) return std::pair<double, double>(code, code);
  if (pattern == Pattern::I16) {
    const double v = static_cast<std::int16_t>(code);
    return std::pair(v, v);
  }
  float from, to;
  if (pattern == Pattern::F16) {
    std::byte in[2];
    const auto half = static_cast<std::uint16_t>(code);
    std::memcpy(in, &half, sizeof half);
    codec(DType::F16).decode(in, &from, 1);
    to = from;
  } else {
    from = std::bit_cast<float>(code << 16);
    // The bin of zero holds zeros: what else could lie there is below f32's normal range.
    to = exact || (code & 0x7FFF) == 0 ? from : std::bit_cast<float>(code << 16 | 0xFFFF);
  }
  if (!std::isfinite(from)) return std::nullopt;
  return std::pair(double{std::min(from, to)} + 0.0, double{std::max(from, to)} + 0.0);  // no -0
}

// The i-th pattern in the order of the values, NaN at the ends. Runs of a page fill a page.
std::uint32_t pattern_at(Pattern pattern, std::uint32_t i) {
  if (pattern == Pattern::U16) return i;
  if (pattern == Pattern::I16) return i ^ 0x8000;
  return i < kCounters / 2 ? kCounters - 1 - i : i - kCounters / 2;
}

Distribution distribution_of(const std::vector<std::vector<std::uint64_t>>& pages, Pattern pattern,
                             bool exact) {
  Distribution out{{}, exact || pattern != Pattern::F32Upper};
  for (std::uint32_t i = 0; i < kCounters; ++i) {
    const std::uint32_t code = pattern_at(pattern, i);
    const auto& page = pages[code / kPage];
    if (page.empty()) {
      i += kPage - 1;
      continue;
    }
    const std::uint64_t count = page[code % kPage];
    const auto values = count > 0 ? values_of(pattern, code, exact) : std::nullopt;
    if (!values) continue;
    if (!out.bins.empty() && out.bins.back().from == values->first)  // the two zeros
      out.bins.back().count += count;
    else
      out.bins.push_back({values->first, values->second, count});
  }
  return out;
}

// The whole part of n × thousandths / 1000, rounded up; no product overflows.
std::uint64_t rank_of(std::uint64_t n, std::uint64_t thousandths) noexcept {
  return n / 1000 * thousandths + ceil_div(n % 1000 * thousandths, 1000);
}

}  // namespace

double to_double(const Number& n) noexcept {
  return std::visit([](auto v) { return static_cast<double>(v); }, n);
}

// Two parts' means and deviations make the whole's (Chan, Golub and LeVeque, 1979).
Moments& Moments::operator+=(const Moments& next) {
  if (finite == 0) {
    mean = next.mean;
    m2 = next.m2;
  } else if (next.finite > 0) {
    const double a = static_cast<double>(finite), b = static_cast<double>(next.finite);
    const double delta = next.mean - mean;
    mean += delta * (b / (a + b));
    m2 += next.m2 + delta * delta * (a / (a + b) * b);
  }
  if (elements == 0) kind = next.kind;
  if (elements > 0 && next.elements > 0 && kind != next.kind) {
    const auto both = [&](std::uint64_t a, std::uint64_t b, auto pick) {
      return pick(key_of(to_double(number_of(a, kind))),
                  key_of(to_double(number_of(b, next.kind))));
    };
    const auto less = [](std::uint64_t a, std::uint64_t b) { return std::min(a, b); };
    const auto more = [](std::uint64_t a, std::uint64_t b) { return std::max(a, b); };
    if (finite > 0 && next.finite > 0) {
      lowest = both(lowest, next.lowest, less);
      highest = both(highest, next.highest, more);
    } else if (finite > 0) {
      lowest = key_of(to_double(min()));
      highest = key_of(to_double(max()));
    } else if (next.finite > 0) {
      lowest = key_of(to_double(next.min()));
      highest = key_of(to_double(next.max()));
    }
    kind = Kind::Float;
  } else {
    lowest = std::min(lowest, next.lowest);
    highest = std::max(highest, next.highest);
  }
  elements += next.elements;
  finite += next.finite;
  zeros += next.zeros;
  subnormals += next.subnormals;
  nan += next.nan;
  infinite += next.infinite;
  if (next.first_bad < first_bad) {
    first_bad = next.first_bad;
    first_bits = next.first_bits;
  }
  overflows += next.overflows;
  underflows += next.underflows;
  any_bits |= next.any_bits;
  return *this;
}

Number Moments::min() const {
  return number_of(lowest, kind);
}
Number Moments::max() const {
  return number_of(highest, kind);
}
double Moments::abs_max() const {
  return std::max(std::abs(to_double(min())), std::abs(to_double(max())));
}
double Moments::std() const {
  return std::sqrt(m2 / static_cast<double>(finite));
}

void Distribution::merge(const Distribution& other) {
  exact = exact && other.exact;
  std::vector<Bin> sorted(bins.size() + other.bins.size());
  std::ranges::merge(bins, other.bins, sorted.begin(), {}, &Bin::from, &Bin::from);
  bins.clear();
  for (const Bin& b : sorted)
    if (!bins.empty() && bins.back().from == b.from && bins.back().to == b.to)
      bins.back().count += b.count;
    else
      bins.push_back(b);
}

void Distribution::clamp(double least, double most) {
  for (Bin& b : bins) {
    b.from = std::clamp(b.from, least, most);
    b.to = std::clamp(b.to, least, most);
  }
}

double Distribution::percentile(std::uint64_t thousandths) const {
  std::uint64_t all = 0, so_far = 0;
  for (const Bin& b : bins) all += b.count;
  const std::uint64_t rank = std::max<std::uint64_t>(1, rank_of(all, thousandths));
  for (const Bin& b : bins) {
    so_far += b.count;
    if (so_far >= rank) return b.middle();
  }
  return std::nan("");
}

std::vector<std::uint64_t> Distribution::histogram(double from, double to, std::size_t n) const {
  std::vector<std::uint64_t> out(n);
  const double width = to / 2 - from / 2;
  for (const Bin& b : bins) {
    const double share = width > 0 ? (b.middle() / 2 - from / 2) / width : 0;
    const double at = std::clamp(share * static_cast<double>(n), 0.0, static_cast<double>(n - 1));
    out[static_cast<std::size_t>(at)] += b.count;
  }
  return out;
}

// ---- The step

struct StatisticsStep::Part {
  TensorPtr tensor;
  Tiling tiling;
  std::uint64_t first_unit, units;
  std::size_t index;

  // A tile's bytes stay in a core's cache from read to use; a unit is many of them, so that the
  // counters cost little to clear and to fold.
  static constexpr std::uint64_t kTile = std::uint64_t{1} << 16, kTilesPerUnit = 32;
};

StatisticsStep::StatisticsStep(std::string name, std::vector<TensorPtr> tensors,
                               const StatisticsOptions& options)
    : options_(options) {
  if (options.cast) static_cast<void>(reach_of(*options.cast));
  result_.name = std::move(name);
  std::uint64_t units = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (const auto why = statistics_refuses(*tensors[i]))
      throw Error(Fault::Unsupported, *why).in(result_.name);
    const Tiling tiling = Tiling::of(*tensors[i], 1, Part::kTile);
    const std::uint64_t mine = ceil_div(tiling.units(), Part::kTilesPerUnit);
    if (mine > 0) parts_.push_back({std::move(tensors[i]), tiling, units, mine, i});
    units += mine;
  }
}
StatisticsStep::~StatisticsStep() = default;

std::uint64_t StatisticsStep::units() const {
  return parts_.empty() ? 0 : parts_.back().first_unit + parts_.back().units;
}

const StatisticsStep::Part& StatisticsStep::part_of(std::uint64_t unit) const {
  return *--std::ranges::upper_bound(parts_, unit, {}, &Part::first_unit);
}

void StatisticsStep::run(const Unit& unit) const {
  const Part& part = part_of(unit.index);
  const std::uint64_t first = (unit.index - part.first_unit) * Part::kTilesPerUnit;
  const std::uint64_t last = std::min(first + Part::kTilesPerUnit, part.tiling.units());
  Counter counter(*part.tensor, options_, unit.scratch);
  for (std::uint64_t tile = first; tile < last; ++tile) {
    const Box box = part.tiling.box(tile);
    Scratch::Frame frame(unit.scratch);
    const auto in = frame.take<std::byte>(checked_size(part.tensor->dtype(), box.elements()));
    part.tensor->read(box, in, unit.scratch);
    counter.add(box, in);
  }
  const Moments found = counter.finish();
  append(unit.found, std::as_bytes(std::span(&found, 1)));
  give_pages(unit.found, counter.counters());
}

void StatisticsStep::fold(std::uint64_t unit, Buffer& found) {
  const Part& part = part_of(unit);
  moments_ += load<Moments>(found);
  if (options_.distribution) take_pages(Bytes(found).subspan(sizeof(Moments)), pages_);
  found.clear();
  if (unit + 1 != part.first_unit + part.units) return;
  finish_part(part);
  if (unit + 1 == units()) finish();
}

void StatisticsStep::finish_part(const Part& part) {
  if (options_.distribution) {
    Distribution mine = distribution_of(pages_, pattern_of(part.tensor->dtype()),
                                        (moments_.any_bits & 0xFFFF) == 0);
    pages_ = {};
    mine.clamp(to_double(moments_.min()), to_double(moments_.max()));
    if (all_.bins.empty() && all_.exact)
      all_ = std::move(mine);
    else
      all_.merge(mine);
  }
  // An index is one within its tensor: the first tensor that has any keeps it.
  if (result_.moments.non_finite() > 0)
    moments_.first_bad = ~std::uint64_t{0};
  else
    result_.first_bad_tensor = part.index;
  result_.moments += moments_;
  moments_ = {};
}

void StatisticsStep::finish() {
  const Moments& m = result_.moments;
  if (!options_.distribution || m.finite == 0) return;
  const double min = to_double(m.min()), max = to_double(m.max()), std = m.std();
  result_.exact = all_.exact;
  for (std::size_t i = 0; i < Statistics::kThousandths.size(); ++i)
    result_.percentiles[i] = all_.percentile(Statistics::kThousandths[i]);
  for (const Distribution::Bin& b : all_.bins)
    if (std::max(b.from - m.mean, m.mean - b.to) > Statistics::kOutlier * std)
      result_.outliers += b.count;
  result_.histogram = all_.histogram(min, max, Statistics::kBars);
  if (options_.keep_distribution) result_.distribution = std::move(all_);
  all_ = {};
}

namespace {
constexpr Column kMin{"min", "", "min"}, kMax{"max", "", "max"}, kMean{"mean", "", "mean"},
    kStd{"std", "", "std"}, kAbsMax{"absmax", "", "absmax"}, kZeros{"zeros", "values", "zeros"},
    kSubnormals{"subnormals", "values", "subnormals"}, kNan{"nan", "values", "NaN"},
    kInf{"inf", "values", "Inf"}, kOutliers{"outliers", "values", "outliers"},
    kCastOverflows{"overflows", "values", "overflows"},
    kCastUnderflows{"underflows", "values", "underflows"}, kCount{"count", "values", "count"};
constexpr std::array<Column, 5> kPercentiles{{{"p0.1", "", "p0.1"},
                                              {"p1", "", "p1"},
                                              {"p50", "", "p50"},
                                              {"p99", "", "p99"},
                                              {"p99.9", "", "p99.9"}}};

// Where nothing is finite, what only finite values have is NaN: a gate that asks for it must not
// pass. An empty tensor has none of it.
void add_moments(Row& row, const Moments& m) {
  const bool any = m.finite > 0;
  const auto add = [&](const Column& column, double v) {
    row.cells.emplace_back(&column, any ? v : std::numeric_limits<double>::quiet_NaN());
  };
  add(kMin, any ? to_double(m.min()) : 0);
  add(kMax, any ? to_double(m.max()) : 0);
  add(kMean, m.mean);
  add(kStd, any ? m.std() : 0);
  add(kAbsMax, any ? m.abs_max() : 0);
}
}  // namespace

void StatisticsStep::report(Report& to) const {
  const Moments& m = result_.moments;
  Row row{result_.name, {}};
  const auto add = [&](const Column& column, auto v) { row.cells.emplace_back(&column, v); };
  add(kCount, m.elements);
  if (m.elements > 0) {
    add_moments(row, m);
    if (options_.distribution)
      for (std::size_t i = 0; i < kPercentiles.size(); ++i)
        add(kPercentiles[i],
            m.finite > 0 ? result_.percentiles[i] : std::numeric_limits<double>::quiet_NaN());
  }
  if (options_.distribution) add(kOutliers, result_.outliers);
  add(kZeros, m.zeros);
  add(kSubnormals, m.subnormals);
  add(kNan, m.nan);
  add(kInf, m.infinite);
  if (options_.cast) {
    add(kCastOverflows, m.overflows);
    add(kCastUnderflows, m.underflows);
  }
  to.rows.push_back(std::move(row));
}

std::vector<std::string_view> statistics_columns(const StatisticsOptions& options) {
  std::vector<std::string_view> names;
  for (const Column* c :
       {&kCount, &kMin, &kMax, &kMean, &kStd, &kAbsMax, &kZeros, &kSubnormals, &kNan, &kInf})
    names.push_back(c->name);
  if (options.distribution) {
    for (const Column& c : kPercentiles) names.push_back(c.name);
    names.push_back(kOutliers.name);
  }
  if (options.cast) names.insert(names.end(), {kCastOverflows.name, kCastUnderflows.name});
  return names;
}

std::optional<std::string> statistics_refuses(const Tensor& tensor) {
  if (find_codec(tensor.dtype()) != nullptr) return std::nullopt;
  return fmt::format("the values of {} are no numbers that this version can read",
                     name_of(tensor.dtype()));
}

// ---- Rows and columns

ExtremesStep::ExtremesStep(TensorPtr tensor, Along along)
    : tensor_(std::move(tensor)), along_(along), tiling_(Tiling::of(*tensor_)) {
  const Box all = tensor_->whole();
  const std::uint64_t n = all.elements() == 0 ? 0 : along == Along::Rows ? all.rows : all.cols;
  if (n > kMost)
    throw Error(Fault::Usage, fmt::format("{} {} are more than the {} there is room for", n,
                                          along == Along::Rows ? "rows" : "columns", kMost));
  static_cast<void>(codec(tensor_->dtype()));  // throws Unsupported
  result_.assign(static_cast<std::size_t>(n), {kInfinity, -kInfinity, 0});
}

void ExtremesStep::run(const Unit& unit) const {
  const Box box = tiling_.box(unit.index);
  Scratch::Frame frame(unit.scratch);
  const auto values = frame.take<double>(box.elements());
  read_f64(*tensor_, box, values, unit.scratch);
  const bool by_row = along_ == Along::Rows;
  const auto found = frame.take<Extremes>(by_row ? box.rows : box.cols);
  std::ranges::fill(found, Extremes{kInfinity, -kInfinity, 0});
  const double* v = values.data();
  for (std::size_t r = 0; r < box.rows; ++r)
    for (std::size_t c = 0; c < box.cols; ++c, ++v) {
      Extremes& e = found[by_row ? r : c];
      if (std::isfinite(*v)) {
        e.min = std::min(e.min, *v);
        e.max = std::max(e.max, *v);
      } else {
        ++e.non_finite;
      }
    }
  append(unit.found, std::as_bytes(found));
}

void ExtremesStep::fold(std::uint64_t unit, Buffer& found) {
  const std::uint64_t first = first_of(tiling_.box(unit));
  for (std::size_t i = 0; i < found.size() / sizeof(Extremes); ++i) {
    const auto part = load<Extremes>(found, i);
    Extremes& e = result_[first + i];
    e.min = std::min(e.min, part.min);
    e.max = std::max(e.max, part.max);
    e.non_finite += part.non_finite;
  }
  found.clear();
}

}  // namespace wtool
