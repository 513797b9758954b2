#include "lib/numeric/kernels/groups.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "lib/numeric/codec.h"
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

constexpr float kBinsPerStep = 16, kLastBin = Drift::kBins - 1;
// Added to a bin's number (with its fraction), it leaves the whole part in bits 10 to 12: quicker
// than a conversion, and within 1/30000 of a step of where the bins end.
constexpr float kBinPlace = 8192;
constexpr int kBinShift = 10;

struct GroupKernels {
  float (*largest)(const float* in, std::size_t n) noexcept;  // absolute value
  // Groups of `len` values with a scale each; one byte for each value. in[0] goes to stripe 0, so
  // where there are several groups, `len` is a multiple of 16.
  void (*codes)(const float* in, std::size_t groups, std::size_t len, const float* scales,
                const Grid& grid, std::uint8_t* out, Sums& sums) noexcept;
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

HWY_INLINE static void one_vector(const Constants& k, F32 scale, const float* in, std::uint8_t* out,
                                  std::size_t v, Lanes& lanes) {
  const F32 value = hn::LoadU(kF32, in);
  const F32 quotient = hn::Div(value, scale);
  const F32 placed = hn::Add(hn::Min(hn::Max(quotient, k.lowest), k.highest), k.place);
  const I32 code = hn::Sub(hn::BitCast(kI32, placed), hn::BitCast(kI32, k.place));
  hn::StoreU(hn::BitCast(kU8, hn::Add(hn::DemoteTo(kI8, code), k.offset)), kU8, out);
  const F32 rounded = hn::Sub(placed, k.place);
  const F32 error = hn::Sub(hn::Mul(rounded, scale), value);
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

static void codes(const float* in, std::size_t groups, std::size_t len, const float* scales,
                  const Grid& grid, std::uint8_t* out, Sums& sums) noexcept {
  constexpr std::size_t kWidenAfter = 15 / kVectors * kStripes;
  const Constants k{hn::Set(kF32, grid.lowest), hn::Set(kF32, grid.highest),
                    hn::Set(kF32, 0x1.8p23f), hn::Set(kI8, static_cast<std::int8_t>(grid.offset))};
  Lanes lanes;
  load_lanes(sums, lanes);
  const std::size_t whole = len / kStripes * kStripes;
  unsigned widened = 0;
  for (std::size_t g = 0; g < groups; ++g) {
    const F32 scale = hn::Set(kF32, scales[g]);
    const float* const from = in + g * len;
    std::uint8_t* const to = out + g * len;
    for (std::size_t i = 0; i < whole;) {
      for (const std::size_t end = std::min(whole, i + kWidenAfter); i < end; i += kStripes)
        for (std::size_t v = 0; v < kVectors; ++v)
          one_vector(k, scale, from + i + v * kLanes, to + i + v * kLanes, v, lanes);
      widen(lanes.bins);
      if (++widened % 17 == 0) add_bins(lanes.bins, sums);
    }
  }
  add_bins(lanes.bins, sums);
  if (whole < len) {  // zeros become code 0 without error: they only count in bin 0
    alignas(64) float rest[kStripes] = {};
    std::uint8_t bytes[kStripes];
    std::copy(in + whole, in + len, rest);
    for (std::size_t v = 0; v < kVectors; ++v)
      one_vector(k, hn::Set(kF32, scales[0]), rest + v * kLanes, bytes + v * kLanes, v, lanes);
    std::copy(bytes, bytes + (len - whole), out + whole);
    widen(lanes.bins);
    sums.histogram[0] -= kStripes - (len - whole);
  }
  store_lanes(lanes, sums);
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

constexpr GroupKernels kGroups{&largest, &codes, &pack_nibbles};

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

void code_scalar(float value, float scale, const Grid& grid, std::size_t stripe, std::uint8_t& out,
                 Sums& sums) noexcept {
  const float quotient = value / scale;
  const float rounded = std::nearbyint(std::clamp(quotient, grid.lowest, grid.highest));
  out = static_cast<std::uint8_t>(static_cast<int>(rounded) + grid.offset);

  const float error = rounded * scale - value, steps = std::abs(rounded - quotient);
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

void codes_scalar(const float* in, std::size_t groups, std::size_t len, const float* scales,
                  const Grid& grid, std::uint8_t* out, Sums& sums) noexcept {
  for (std::size_t g = 0, i = 0; g < groups; ++g)
    for (const std::size_t end = i + len; i < end; ++i)
      code_scalar(in[i], scales[g], grid, i % kStripes, out[i], sums);
}

void pack_scalar(const std::uint8_t* codes, std::size_t n, std::byte* out) noexcept {
  for (std::size_t i = 0; i < n; i += 2)
    out[i / 2] = static_cast<std::byte>(codes[i] | codes[i + 1] << 4);
}

constexpr GroupKernels kScalar{&largest_scalar, &codes_scalar, &pack_scalar};

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
  // type's machine epsilon stands in, as in compressed-tensors.
  void store(std::span<float> scales, std::byte* to) const noexcept {
    codec_.encode(scales.data(), to, scales.size());
    codec_.decode(to, scales.data(), scales.size());
    for (std::size_t i = 0; i < scales.size(); ++i)
      if (scales[i] == 0) {
        scales[i] = epsilon_;
        codec_.encode(&epsilon_, to + i * size_, 1);
      }
  }
  std::size_t size() const noexcept { return size_; }

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
  Quantizer(const GroupKernels& kernels, const IntGroups& how)
      : kernels_(kernels),
        how_(how),
        scale_type_(how.scale),
        divisor_(static_cast<float>((1u << how.bits) - 1) / 2) {
    const auto half = static_cast<float>(1u << (how.bits - 1));
    grid_ = {-half, half - 1, static_cast<std::uint8_t>(how.packed ? half : 0)};
  }

  void row(const float* in, std::uint64_t cols, std::byte* codes, std::byte* scales) {
    const std::uint64_t group = how_.group == 0 ? cols : how_.group;
    const std::uint64_t at_once =
        group % kStripes == 0 ? std::clamp<std::uint64_t>(kPiece / group, 1, kGroups) : 1;
    for (std::uint64_t c = 0; c < cols;) {
      const std::uint64_t groups = std::min(at_once, (cols - c) / group);
      const std::span<float> steps = std::span(steps_).first(groups);
      for (std::size_t g = 0; g < groups; ++g)
        steps[g] = kernels_.largest(in + c + g * group, group) / divisor_;
      scale_type_.store(steps, scales + c / group * scale_type_.size());
      if (groups > 1)
        emit(in + c, groups, group, codes + c * how_.bits / 8);
      else
        for (std::uint64_t i = 0; i < group; i += kPiece)
          emit(in + c + i, 1, std::min(kPiece, group - i), codes + (c + i) * how_.bits / 8);
      c += groups * group;
    }
  }
  const Sums& sums(std::uint64_t elements) {
    turn(sums_, kStripes - elements % kStripes);
    return sums_;
  }
  std::size_t scale_size() const noexcept { return scale_type_.size(); }

 private:
  static constexpr std::uint64_t kPiece = 4096, kGroups = 64;

  void emit(const float* in, std::size_t groups, std::size_t len, std::byte* out) {
    const std::size_t n = groups * len;
    if (how_.bits == 8) {
      kernels_.codes(in, groups, len, steps_.data(), grid_, reinterpret_cast<std::uint8_t*>(out),
                     sums_);
    } else {
      kernels_.codes(in, groups, len, steps_.data(), grid_, unpaired_.data(), sums_);
      if (n % 2 != 0) unpaired_[n] = 0;
      kernels_.pack_nibbles(unpaired_.data(), n + n % 2, out);
    }
    turn(sums_, n);
  }

  const GroupKernels& kernels_;
  const IntGroups& how_;
  ScaleType scale_type_;
  float divisor_;
  Grid grid_;
  Sums sums_;
  std::array<float, kGroups> steps_;
  std::array<std::uint8_t, kPiece> unpaired_;
};

void quantize_with(const GroupKernels& kernels, const IntGroups& how, std::uint64_t rows,
                   std::uint64_t cols, std::span<const float> in, MutableBytes codes,
                   MutableBytes scales, Drift& drift) {
  if (cols == 0) return;
  const std::uint64_t row_bytes = code_bytes(how, cols);
  const std::uint64_t groups = how.group == 0 ? 1 : cols / how.group;
  Quantizer quantizer(kernels, how);
  for (std::uint64_t r = 0; r < rows; ++r) {
    std::byte* const row = codes.data() + r * row_bytes;
    if (how.packed) std::memset(row + row_bytes - 4, 0, 4);  // the last word may not be full
    quantizer.row(in.data() + r * cols, cols, row,
                  scales.data() + r * groups * quantizer.scale_size());
  }
  add_to(drift, quantizer.sums(rows * cols), rows * cols);
}

}  // namespace

std::uint64_t code_bytes(const IntGroups& how, std::uint64_t cols) noexcept {
  return how.packed ? ceil_div(cols, 32 / how.bits) * 4 : cols;
}

void quantize_groups(const IntGroups& how, std::uint64_t rows, std::uint64_t cols,
                     std::span<const float> in, MutableBytes codes, MutableBytes scales,
                     Drift& drift) {
  quantize_with(WTOOL_CHOOSE(kScalar, kGroups), how, rows, cols, in, codes, scales, drift);
}
void quantize_groups_scalar(const IntGroups& how, std::uint64_t rows, std::uint64_t cols,
                            std::span<const float> in, MutableBytes codes, MutableBytes scales,
                            Drift& drift) {
  quantize_with(kScalar, how, rows, cols, in, codes, scales, drift);
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
