#include "lib/numeric/kernels/groups.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/groups.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef WTOOL_GROUPS_TABLE
#define WTOOL_GROUPS_TABLE
namespace wtool {
namespace {

constexpr std::size_t kStripes = 16;

// Sums over one box. Element i of the box, row by row, goes to stripe i mod 16, and the stripes are
// added one after another at the end: the same numbers for every vector width.
struct alignas(64) Sums {
  double error2[kStripes] = {}, value2[kStripes] = {}, cross[kStripes] = {};
  float worst = 0, worst_steps = 0;
  std::uint64_t clipped = 0;
  std::array<std::uint64_t, Drift::kBins> histogram = {};
};

// A code is stored as the byte code + offset.
struct Grid {
  float lowest, highest;
  std::uint8_t offset;
};

// The ends of a group's values, with 0 in between.
struct Ends {
  float least, most;
};

constexpr float kBinsPerStep = 16, kLastBin = Drift::kBins - 1;
// Added to a bin's number (with its fraction), it leaves the whole part in bits 10 to 12: quicker
// than a conversion, and within 1/30000 of a step of where the bins end.
constexpr float kBinPlace = 8192;
constexpr int kBinShift = 10;

struct GroupKernels {
  float (*largest)(const float* in, std::size_t n) noexcept;  // absolute value
  Ends (*range)(const float* in, std::size_t n) noexcept;
  // Groups of `len` values with a scale each, and a zero point unless `zeros` is null; one byte for
  // each value. in[0] goes to stripe 0, so where there are several groups, `len` is a multiple of
  // 16.
  void (*codes)(const float* in, std::size_t groups, std::size_t len, const float* scales,
                const float* zeros, const Grid& grid, std::uint8_t* out, Sums& sums) noexcept;
  // Pairs of 4-bit codes, one in each byte, to bytes: the first in the low half. n is a multiple
  // of 2.
  void (*pack_nibbles)(const std::uint8_t* codes, std::size_t n, std::byte* out) noexcept;
};

}  // namespace
}  // namespace wtool
#endif  // WTOOL_GROUPS_TABLE

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::CappedTag<float, kStripes> kF32;
constexpr hn::Rebind<std::int32_t, decltype(kF32)> kI32;
constexpr hn::Rebind<std::int8_t, decltype(kF32)> kI8;
constexpr hn::Rebind<std::uint8_t, decltype(kF32)> kU8;
constexpr hn::Half<decltype(kF32)> kHalfF32;
constexpr hn::Rebind<double, decltype(kHalfF32)> kF64;
using F32 = hn::Vec<decltype(kF32)>;
using F64 = hn::Vec<decltype(kF64)>;
using I32 = hn::Vec<decltype(kI32)>;
inline constexpr std::size_t kLanes = hn::MaxLanes(kF32), kVectors = kStripes / kLanes;

static float largest(const float* in, std::size_t n) noexcept {
  F32 most[kVectors];
  for (F32& m : most) m = hn::Zero(kF32);
  std::size_t i = 0;
  for (; i + kStripes <= n; i += kStripes)
    for (std::size_t v = 0; v < kVectors; ++v)
      most[v] = hn::Max(most[v], hn::Abs(hn::LoadU(kF32, in + i + v * kLanes)));
  for (std::size_t v = 1; v < kVectors; ++v) most[0] = hn::Max(most[0], most[v]);
  float out = hn::GetLane(hn::MaxOfLanes(kF32, most[0]));
  for (; i < n; ++i) out = std::max(out, std::abs(in[i]));
  return out;
}

static Ends range(const float* in, std::size_t n) noexcept {
  F32 least[kVectors], most[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) least[v] = most[v] = hn::Zero(kF32);
  std::size_t i = 0;
  for (; i + kStripes <= n; i += kStripes)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const F32 x = hn::LoadU(kF32, in + i + v * kLanes);
      least[v] = hn::Min(least[v], x);
      most[v] = hn::Max(most[v], x);
    }
  for (std::size_t v = 1; v < kVectors; ++v) {
    least[0] = hn::Min(least[0], least[v]);
    most[0] = hn::Max(most[0], most[v]);
  }
  Ends out{hn::GetLane(hn::MinOfLanes(kF32, least[0])), hn::GetLane(hn::MaxOfLanes(kF32, most[0]))};
  for (; i < n; ++i) {
    out.least = std::min(out.least, in[i]);
    out.most = std::max(out.most, in[i]);
  }
  return out;
}

// Counts of eight bins in each lane: four bits a bin at first, eight bits after widen(), and then
// to the sums. So widen() must come after at most 15 values a lane, add_bins() after 17 of those.
struct Bins {
  I32 nibbles, even, odd;
};
HWY_INLINE static void clear(Bins& bins) {
  bins.nibbles = bins.even = bins.odd = hn::Zero(kI32);
}
HWY_INLINE static void count(Bins& bins, F32 steps) {
  const F32 bin = hn::Min(hn::Mul(steps, hn::Set(kF32, kBinsPerStep)), hn::Set(kF32, kLastBin));
  const I32 bits = hn::BitCast(kI32, hn::Add(bin, hn::Set(kF32, kBinPlace)));
  const I32 four_times = hn::And(hn::ShiftRight<kBinShift - 2>(bits), hn::Set(kI32, 7 << 2));
  bins.nibbles = hn::Add(bins.nibbles, hn::Shl(hn::Set(kI32, 1), four_times));
}
HWY_INLINE static void widen(Bins& bins) {
  const I32 low = hn::Set(kI32, 0x0F0F0F0F);
  bins.even = hn::Add(bins.even, hn::And(bins.nibbles, low));
  bins.odd = hn::Add(bins.odd, hn::And(hn::ShiftRight<4>(bins.nibbles), low));
  bins.nibbles = hn::Zero(kI32);
}
HWY_INLINE static void add_bins(Bins& bins, Sums& sums) {
  alignas(64) std::int32_t lanes[2][kLanes];
  hn::Store(bins.even, kI32, lanes[0]);
  hn::Store(bins.odd, kI32, lanes[1]);
  for (std::size_t b = 0; b < Drift::kBins; ++b)
    for (std::size_t i = 0; i < kLanes; ++i)
      sums.histogram[b] += static_cast<std::uint32_t>(lanes[b % 2][i]) >> (b / 2 * 8) & 0xFF;
  clear(bins);
}

struct Lanes {
  F64 error2[2 * kVectors], value2[2 * kVectors], cross[2 * kVectors];
  F32 worst, worst_steps;
  I32 clipped;
  Bins bins;
};

// The two halves of a vector as doubles: lane l of vector v is stripe v × kLanes + l. A product of
// two floats is exact in a double, so that fusing it with the addition changes nothing.
HWY_INLINE static void add_sums(Lanes& sums, std::size_t v, F32 value, F32 error) {
  const F64 values[2] = {hn::PromoteTo(kF64, hn::LowerHalf(kHalfF32, value)),
                         hn::PromoteTo(kF64, hn::UpperHalf(kHalfF32, value))};
  const F64 errors[2] = {hn::PromoteTo(kF64, hn::LowerHalf(kHalfF32, error)),
                         hn::PromoteTo(kF64, hn::UpperHalf(kHalfF32, error))};
  for (std::size_t h = 0; h < 2; ++h) {
    const std::size_t at = 2 * v + h;
    sums.error2[at] = hn::MulAdd(errors[h], errors[h], sums.error2[at]);
    sums.value2[at] = hn::MulAdd(values[h], values[h], sums.value2[at]);
    sums.cross[at] = hn::MulAdd(values[h], errors[h], sums.cross[at]);
  }
}

struct Constants {
  F32 lowest, highest;
  // 1.5 × 2^23: a float near it has no fraction, so adding it rounds to the even nearest integer,
  // which then stands in the lowest bits.
  F32 place;
  hn::Vec<decltype(kI8)> offset;
};

template <bool kAffine>
HWY_INLINE static void one_vector(const Constants& k, F32 scale, F32 zero, const float* in,
                                  std::uint8_t* out, std::size_t v, Lanes& lanes) {
  const F32 value = hn::LoadU(kF32, in);
  F32 quotient = hn::Div(value, scale);
  if constexpr (kAffine) quotient = hn::Add(quotient, zero);
  const F32 placed = hn::Add(hn::Min(hn::Max(quotient, k.lowest), k.highest), k.place);
  const I32 code = hn::Sub(hn::BitCast(kI32, placed), hn::BitCast(kI32, k.place));
  hn::StoreU(hn::BitCast(kU8, hn::Add(hn::DemoteTo(kI8, code), k.offset)), kU8, out);
  const F32 rounded = hn::Sub(placed, k.place);
  const F32 from_zero = kAffine ? hn::Sub(rounded, zero) : rounded;
  const F32 error = hn::Sub(hn::Mul(from_zero, scale), value);
  const F32 steps = hn::Abs(hn::Sub(rounded, quotient));
  add_sums(lanes, v, value, error);
  lanes.worst = hn::Max(lanes.worst, hn::Abs(error));
  lanes.worst_steps = hn::Max(lanes.worst_steps, steps);
  const auto clipped = hn::Gt(steps, hn::Set(kF32, 0.5f));
  lanes.clipped = hn::Sub(lanes.clipped, hn::BitCast(kI32, hn::VecFromMask(kF32, clipped)));
  count(lanes.bins, steps);
}

HWY_INLINE static void load_lanes(const Sums& sums, Lanes& lanes) {
  for (std::size_t i = 0; i < 2 * kVectors; ++i) {
    lanes.error2[i] = hn::Load(kF64, sums.error2 + i * kLanes / 2);
    lanes.value2[i] = hn::Load(kF64, sums.value2 + i * kLanes / 2);
    lanes.cross[i] = hn::Load(kF64, sums.cross + i * kLanes / 2);
  }
  lanes.worst = hn::Set(kF32, sums.worst);
  lanes.worst_steps = hn::Set(kF32, sums.worst_steps);
  lanes.clipped = hn::Zero(kI32);
  clear(lanes.bins);
}

HWY_INLINE static void store_lanes(Lanes& lanes, Sums& sums) {
  for (std::size_t i = 0; i < 2 * kVectors; ++i) {
    hn::Store(lanes.error2[i], kF64, sums.error2 + i * kLanes / 2);
    hn::Store(lanes.value2[i], kF64, sums.value2 + i * kLanes / 2);
    hn::Store(lanes.cross[i], kF64, sums.cross + i * kLanes / 2);
  }
  sums.worst = hn::GetLane(hn::MaxOfLanes(kF32, lanes.worst));
  sums.worst_steps = hn::GetLane(hn::MaxOfLanes(kF32, lanes.worst_steps));
  sums.clipped += static_cast<std::uint32_t>(hn::GetLane(hn::SumOfLanes(kI32, lanes.clipped)));
  add_bins(lanes.bins, sums);
}

template <bool kAffine>
static void codes_of(const float* in, std::size_t groups, std::size_t len, const float* scales,
                     const float* zeros, const Grid& grid, std::uint8_t* out, Sums& sums) noexcept {
  constexpr std::size_t kWidenAfter = 15 / kVectors * kStripes;
  const Constants k{hn::Set(kF32, grid.lowest), hn::Set(kF32, grid.highest),
                    hn::Set(kF32, 0x1.8p23f), hn::Set(kI8, static_cast<std::int8_t>(grid.offset))};
  Lanes lanes;
  load_lanes(sums, lanes);
  const std::size_t whole = len / kStripes * kStripes;
  unsigned widened = 0;
  for (std::size_t g = 0; g < groups; ++g) {
    const F32 scale = hn::Set(kF32, scales[g]), zero = hn::Set(kF32, kAffine ? zeros[g] : 0);
    const float* const from = in + g * len;
    std::uint8_t* const to = out + g * len;
    for (std::size_t i = 0; i < whole;) {
      for (const std::size_t end = std::min(whole, i + kWidenAfter); i < end; i += kStripes)
        for (std::size_t v = 0; v < kVectors; ++v)
          one_vector<kAffine>(k, scale, zero, from + i + v * kLanes, to + i + v * kLanes, v, lanes);
      widen(lanes.bins);
      if (++widened % 17 == 0) add_bins(lanes.bins, sums);
    }
  }
  add_bins(lanes.bins, sums);
  if (whole < len) {  // zeros become the zero point without error: they only count in bin 0
    alignas(64) float rest[kStripes] = {};
    std::uint8_t bytes[kStripes];
    std::copy(in + whole, in + len, rest);
    for (std::size_t v = 0; v < kVectors; ++v)
      one_vector<kAffine>(k, hn::Set(kF32, scales[0]), hn::Set(kF32, kAffine ? zeros[0] : 0),
                          rest + v * kLanes, bytes + v * kLanes, v, lanes);
    std::copy(bytes, bytes + (len - whole), out + whole);
    widen(lanes.bins);
    sums.histogram[0] -= kStripes - (len - whole);
  }
  store_lanes(lanes, sums);
}
static void codes(const float* in, std::size_t groups, std::size_t len, const float* scales,
                  const float* zeros, const Grid& grid, std::uint8_t* out, Sums& sums) noexcept {
  (zeros ? &codes_of<true> : &codes_of<false>)(in, groups, len, scales, zeros, grid, out, sums);
}

static void pack_nibbles(const std::uint8_t* codes, std::size_t n, std::byte* out) noexcept {
  constexpr hn::ScalableTag<std::uint16_t> kPairs;
  constexpr hn::Repartition<std::uint8_t, decltype(kPairs)> kBytes;
  constexpr hn::Rebind<std::int16_t, decltype(kPairs)> kSigned;
  constexpr hn::Rebind<std::uint8_t, decltype(kPairs)> kHalf;
  std::size_t i = 0;
  for (; i + hn::MaxLanes(kBytes) <= n; i += hn::MaxLanes(kBytes)) {
    const auto pairs = hn::BitCast(kPairs, hn::LoadU(kBytes, codes + i));
    const auto packed =
        hn::And(hn::Or(pairs, hn::ShiftRight<4>(pairs)), hn::Set(kPairs, std::uint16_t{0xFF}));
    hn::StoreU(hn::DemoteTo(kHalf, hn::BitCast(kSigned, packed)), kHalf,
               reinterpret_cast<std::uint8_t*>(out) + i / 2);
  }
  for (; i < n; i += 2) out[i / 2] = static_cast<std::byte>(codes[i] | codes[i + 1] << 4);
}

constexpr GroupKernels kGroups{&largest, &range, &codes, &pack_nibbles};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {

float largest_scalar(const float* in, std::size_t n) noexcept {
  float most = 0;
  for (std::size_t i = 0; i < n; ++i) most = std::max(most, std::abs(in[i]));
  return most;
}

Ends range_scalar(const float* in, std::size_t n) noexcept {
  Ends out{0, 0};
  for (std::size_t i = 0; i < n; ++i) {
    out.least = std::min(out.least, in[i]);
    out.most = std::max(out.most, in[i]);
  }
  return out;
}

// What arithmetic in a narrow type leaves of a result.
float in_f32(float x) noexcept {
  return x;
}
float in_bf16(float x) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bf16_bits(x)) << 16);
}
float in_f16(float x) noexcept {
  return f16_value(f16_bits(x));
}
using Rounding = float (*)(float) noexcept;
Rounding rounding_to(DType type) noexcept {
  return type == DType::BF16 ? &in_bf16 : type == DType::F16 ? &in_f16 : &in_f32;
}

template <Rounding kRound>
void code_scalar(float value, float scale, float zero, const Grid& grid, std::size_t stripe,
                 std::uint8_t& out, Sums& sums) noexcept {
  const float quotient = kRound(kRound(value / scale) + zero);
  const float rounded = std::nearbyint(std::clamp(quotient, grid.lowest, grid.highest));
  out = static_cast<std::uint8_t>(static_cast<int>(rounded) + grid.offset);

  const float error = (rounded - zero) * scale - value, steps = std::abs(rounded - quotient);
  const double e = error, w = value;
  sums.error2[stripe] += e * e;
  sums.value2[stripe] += w * w;
  sums.cross[stripe] += w * e;
  sums.worst = std::max(sums.worst, std::abs(error));
  sums.worst_steps = std::max(sums.worst_steps, steps);
  sums.clipped += steps > 0.5f;  // rounding alone never loses more than half a step
  const float placed = std::min(steps * kBinsPerStep, kLastBin) + kBinPlace;
  ++sums.histogram[std::bit_cast<std::uint32_t>(placed) >> kBinShift & 7];
}

template <Rounding kRound>
void codes_scalar(const float* in, std::size_t groups, std::size_t len, const float* scales,
                  const float* zeros, const Grid& grid, std::uint8_t* out, Sums& sums) noexcept {
  for (std::size_t g = 0, i = 0; g < groups; ++g)
    for (const std::size_t end = i + len; i < end; ++i)
      code_scalar<kRound>(in[i], scales[g], zeros ? zeros[g] : 0, grid, i % kStripes, out[i], sums);
}

void pack_scalar(const std::uint8_t* codes, std::size_t n, std::byte* out) noexcept {
  for (std::size_t i = 0; i < n; i += 2)
    out[i / 2] = static_cast<std::byte>(codes[i] | codes[i + 1] << 4);
}

constexpr GroupKernels kScalar{&largest_scalar, &range_scalar, &codes_scalar<in_f32>, &pack_scalar};
// Only asked for to give other tools' bytes: no vectors.
GroupKernels in_arithmetic(const GroupKernels& kernels, DType type) noexcept {
  GroupKernels out = kernels;
  if (type == DType::BF16) out.codes = &codes_scalar<in_bf16>;
  if (type == DType::F16) out.codes = &codes_scalar<in_f16>;
  return out;
}

// Rounds scales to the type they are stored in.
class ScaleType {
 public:
  explicit ScaleType(DType type) : codec_(codec(type)), size_(info(type).block_bytes) {
    switch (type) {
      case DType::BF16: epsilon_ = 0x1p-7f; break;
      case DType::F16: epsilon_ = 0x1p-10f; break;
      default: epsilon_ = 0x1p-23f; break;
    }
  }
  // Stores the scales at `to` and leaves in them what a reader will see. Where that is zero, the
  // type's machine epsilon stands in, as in compressed-tensors. Where it is beyond the type, the
  // largest there is; then it tells.
  bool store(std::span<float> scales, std::byte* to) const noexcept {
    bool fits = true;
    for (float& s : scales)
      if (!(std::abs(s) < codec_.too_large)) {
        s = std::copysign(codec_.largest, s);
        fits = false;
      }
    codec_.encode(scales.data(), to, scales.size());
    codec_.decode(to, scales.data(), scales.size());
    for (std::size_t i = 0; i < scales.size(); ++i)
      if (scales[i] == 0) {
        scales[i] = epsilon_;
        codec_.encode(&epsilon_, to + i * size_, 1);
      }
    return fits;
  }
  bool is_largest(float stored) const noexcept { return std::abs(stored) >= codec_.largest; }
  std::size_t size() const noexcept { return size_; }
  float epsilon() const noexcept { return epsilon_; }

 private:
  const Codec& codec_;
  std::size_t size_;
  float epsilon_;
};

// Where the next value goes: stripes are turned so that it is stripe 0, and back by the caller.
void turn(Sums& sums, std::size_t by) noexcept {
  if (by % kStripes == 0) return;
  for (double* stripes : {sums.error2, sums.value2, sums.cross})
    std::rotate(stripes, stripes + by % kStripes, stripes + kStripes);
}

void add_to(Drift& drift, const Sums& sums, std::uint64_t elements) {
  Drift of_box;
  for (std::size_t i = 0; i < kStripes; ++i) {
    of_box.error2 += sums.error2[i];
    of_box.value2 += sums.value2[i];
    of_box.cross += sums.cross[i];
  }
  of_box.worst = sums.worst;
  of_box.worst_steps = sums.worst_steps;
  of_box.elements = elements;
  of_box.clipped = sums.clipped;
  of_box.histogram = sums.histogram;
  drift += of_box;
}

// One call's work, a stretch of groups at a time: short enough that the codes are chosen while the
// values that set the scale are still in the nearest cache.
class Quantizer {
 public:
  Quantizer(const GroupKernels& kernels, const IntGroups& how, std::uint64_t cols)
      : kernels_(in_arithmetic(kernels, how.arithmetic)),
        how_(how),
        cols_(cols),
        group_(how.group == 0 ? cols : how.group),
        scale_type_(how.scale),
        round_(rounding_to(how.arithmetic)),
        top_(static_cast<float>((1u << how.bits) - 1)) {
    const auto half = static_cast<float>(1u << (how.bits - 1));
    grid_ = {-half, half - 1, static_cast<std::uint8_t>(how.packed ? half : 0)};
    if (!direct()) row_.resize(cols + cols % 2);
  }

  // Row r of the box.
  void row(std::uint64_t r, const float* in, const GroupOutputs& out, const GroupChoices* given) {
    const std::uint64_t per_row = cols_ / group_, first = r * per_row,
                        bytes = code_bytes(how_, cols_);
    std::byte* const words = out.codes.data() + r * bytes;
    codes_ = direct() ? reinterpret_cast<std::uint8_t*>(words) : row_.data();
    const std::uint64_t at_once =
        group_ % kStripes == 0 ? std::clamp<std::uint64_t>(kPiece / group_, 1, kGroups) : 1;
    for (std::uint64_t g = 0; g < per_row; g += at_once) {
      const Stretch s{first + g, std::min(at_once, per_row - g), r * cols_ + g * group_};
      settle_scales(s, in + g * group_, out, given);
      emit(s, in + g * group_, codes_ + g * group_);
    }
    if (!how_.packed) return;
    if (direct())
      std::memset(words + cols_, 0, bytes - cols_);
    else if (how_.bits == 4)
      pack_nibbles(words, bytes);
    else
      pack_codes(std::span(row_).first(cols_), how_.bits, words);
  }
  void finish(std::uint64_t elements, Drift& drift) {
    turn(sums_, kStripes - elements % kStripes);
    add_to(drift, sums_, elements);
    drift.overflows += overflows_;
    drift.add_bad(first_bad_);
  }

 private:
  static constexpr std::uint64_t kPiece = 4096, kGroups = 64;
  struct Stretch {
    std::uint64_t first, groups;  // in the box
    std::uint64_t element;        // the first one's, in the box
  };

  bool direct() const noexcept { return how_.bits == 8 || !how_.packed; }

  void settle_scales(const Stretch& s, const float* in, const GroupOutputs& out,
                     const GroupChoices* given) {
    const std::span<float> steps = std::span(steps_).first(s.groups);
    std::array<Ends, kGroups> ranges;
    for (std::size_t g = 0; g < s.groups; ++g) {
      if (given)
        steps[g] = given->scales[s.first + g];
      else if (how_.zero_points)
        steps[g] = affine_step(ranges[g] = kernels_.range(in + g * group_, group_));
      else
        steps[g] = kernels_.largest(in + g * group_, group_) / (top_ / 2);
    }
    const bool fits = scale_type_.store(steps, out.scales.data() + s.first * scale_type_.size());
    if (!fits || given) count_largest(s, steps);
    if (!how_.zero_points) return;
    for (std::size_t g = 0; g < s.groups; ++g) {
      zeros_[g] = given ? given->zeros[s.first + g] : zero_of(ranges[g], steps[g]);
      out.zeros[s.first + g] = static_cast<std::int8_t>(zeros_[g]);
    }
  }
  float affine_step(const Ends& r) const noexcept {
    const float width = round_(r.most - r.least);
    return std::isinf(width) ? r.most / top_ - r.least / top_ : width / top_;
  }
  // The code of 0, which is 0 where nothing else is there.
  float zero_of(const Ends& r, float step) const noexcept {
    if (r.least == 0 && r.most == 0) return 0;
    const float zero = round_(grid_.lowest - round_(r.least / step));
    return std::nearbyint(std::clamp(zero, grid_.lowest, grid_.highest));
  }
  // Scales that are the type's largest may stand for larger ones.
  void count_largest(const Stretch& s, std::span<const float> steps) {
    for (std::size_t g = 0; g < s.groups; ++g) {
      if (!scale_type_.is_largest(steps[g])) continue;
      overflows_ += group_;
      first_bad_ = std::min(first_bad_, s.element + g * group_);
    }
  }

  void emit(const Stretch& s, const float* in, std::uint8_t* to) {
    const float* const zeros = how_.zero_points ? zeros_.data() : nullptr;
    if (s.groups > 1) {
      kernels_.codes(in, s.groups, group_, steps_.data(), zeros, grid_, to, sums_);
      return turn(sums_, s.groups * group_);
    }
    for (std::uint64_t i = 0; i < group_; i += kPiece) {
      const std::uint64_t n = std::min(kPiece, group_ - i);
      kernels_.codes(in + i, 1, n, steps_.data(), zeros, grid_, to + i, sums_);
      turn(sums_, n);
    }
  }
  void pack_nibbles(std::byte* words, std::uint64_t bytes) {
    std::memset(words + bytes - 4, 0, 4);  // the last word may not be full
    if (cols_ % 2 != 0) row_[cols_] = 0;
    kernels_.pack_nibbles(row_.data(), row_.size(), words);
  }

  const GroupKernels kernels_;
  const IntGroups& how_;
  std::uint64_t cols_, group_;
  ScaleType scale_type_;
  Rounding round_;
  float top_;
  Grid grid_;
  Sums sums_;
  std::uint64_t overflows_ = 0, first_bad_ = ~std::uint64_t{0};
  std::array<float, kGroups> steps_, zeros_;
  std::vector<std::uint8_t> row_;
  std::uint8_t* codes_ = nullptr;
};

void quantize_with(const GroupKernels& kernels, const IntGroups& how, std::uint64_t rows,
                   std::uint64_t cols, std::span<const float> in, const GroupOutputs& out,
                   Drift& drift, const GroupChoices* given) {
  if (cols == 0) return;
  Quantizer quantizer(kernels, how, cols);
  for (std::uint64_t r = 0; r < rows; ++r) quantizer.row(r, in.data() + r * cols, out, given);
  quantizer.finish(rows * cols, drift);
}

}  // namespace

std::uint64_t code_bytes(const IntGroups& how, std::uint64_t cols) noexcept {
  return how.packed ? ceil_div(cols * how.bits, 32) * 4 : cols;
}

void quantize_groups(const IntGroups& how, std::uint64_t rows, std::uint64_t cols,
                     std::span<const float> in, const GroupOutputs& out, Drift& drift,
                     const GroupChoices* given) {
  quantize_with(WTOOL_CHOOSE(kScalar, kGroups), how, rows, cols, in, out, drift, given);
}
void quantize_groups_scalar(const IntGroups& how, std::uint64_t rows, std::uint64_t cols,
                            std::span<const float> in, const GroupOutputs& out, Drift& drift,
                            const GroupChoices* given) {
  quantize_with(kScalar, how, rows, cols, in, out, drift, given);
}

float largest_magnitude(std::span<const float> in) noexcept {
  return WTOOL_CHOOSE(kScalar, kGroups).largest(in.data(), in.size());
}

void pack_codes(std::span<const std::uint8_t> codes, unsigned bits, std::byte* words) noexcept {
  std::uint64_t pending = 0;
  unsigned filled = 0;
  const auto flush = [&] {
    const auto word = static_cast<std::uint32_t>(pending);
    std::memcpy(words, &word, 4);
    words += 4;
    pending >>= 32;
  };
  for (const std::uint8_t code : codes) {
    pending |= static_cast<std::uint64_t>(code) << filled;
    filled += bits;
    if (filled < 32) continue;
    flush();
    filled -= 32;
  }
  if (filled > 0) flush();
}

unsigned packed_field(Bytes words, unsigned bits, std::uint64_t index) noexcept {
  const std::uint64_t bit = index * bits, byte = bit / 8;
  unsigned both = static_cast<unsigned>(words[byte]);
  if (bit % 8 + bits > 8) both |= static_cast<unsigned>(words[byte + 1]) << 8;
  return both >> (bit % 8) & ((1u << bits) - 1);
}

void unpack_codes(Bytes words, unsigned bits, std::uint64_t first,
                  std::span<std::int8_t> out) noexcept {
  const int half = 1 << (bits - 1);
  if (bits == 8) {
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<std::int8_t>(static_cast<int>(words[first + i]) - half);
    return;
  }
  if (bits == 4) {
    for (std::uint64_t i = 0; i < out.size(); ++i) {
      const auto pair = static_cast<unsigned>(words[(first + i) / 2]);
      out[i] =
          static_cast<std::int8_t>(static_cast<int>(pair >> ((first + i) % 2 * 4) & 15) - half);
    }
    return;
  }
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] =
        static_cast<std::int8_t>(static_cast<int>(packed_field(words, bits, first + i)) - half);
}

}  // namespace wtool
#endif  // HWY_ONCE
