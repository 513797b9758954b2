#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/groups.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/targets.h"

#ifndef WTOOL_GROUPS_TABLE
#define WTOOL_GROUPS_TABLE

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/groups.h"

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

// What all values of a group have in common. A code is stored as the byte code + offset.
struct Grid {
  float scale, lowest, highest;
  std::uint8_t offset;
};

constexpr float kBinsPerStep = 16, kLastBin = Drift::kBins - 1;

struct GroupKernels {
  float (*largest)(const float* in, std::size_t n) noexcept;  // absolute value
  // One byte for each value; in[0] goes to stripe 0.
  void (*codes)(const float* in, std::size_t n, const Grid& grid, std::uint8_t* out,
                Sums& sums) noexcept;
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

// Counts of eight bins in each lane: four bits a bin, so good for 15 values before add_bins() must
// move them on.
HWY_INLINE static void count_bin(I32& nibbles, I32 bin) {
  nibbles = hn::Add(nibbles, hn::Shl(hn::Set(kI32, 1), hn::ShiftLeft<2>(bin)));
}
HWY_INLINE static void add_bins(I32& nibbles, Sums& sums) {
  alignas(64) std::int32_t lanes[kLanes];
  hn::Store(nibbles, kI32, lanes);
  nibbles = hn::Zero(kI32);
  std::uint32_t even = 0, odd = 0;  // nibbles become bytes: 15 values × 16 lanes still fit
  for (const std::int32_t lane : lanes) {
    even += static_cast<std::uint32_t>(lane) & 0x0F0F0F0F;
    odd += static_cast<std::uint32_t>(lane) >> 4 & 0x0F0F0F0F;
  }
  for (std::size_t b = 0; b < Drift::kBins; ++b)
    sums.histogram[b] += (b % 2 == 0 ? even : odd) >> (b / 2 * 8) & 0xFF;
}

struct Lanes {
  F64 error2[2 * kVectors], value2[2 * kVectors], cross[2 * kVectors];
  F32 worst, worst_steps;
  I32 clipped;
};

// The two halves of a vector as doubles: lane l of vector v is stripe v × kLanes + l.
HWY_INLINE static void add_sums(Lanes& sums, std::size_t v, F32 value, F32 error) {
  const F64 values[2] = {hn::PromoteTo(kF64, hn::LowerHalf(kHalfF32, value)),
                         hn::PromoteTo(kF64, hn::UpperHalf(kHalfF32, value))};
  const F64 errors[2] = {hn::PromoteTo(kF64, hn::LowerHalf(kHalfF32, error)),
                         hn::PromoteTo(kF64, hn::UpperHalf(kHalfF32, error))};
  for (std::size_t h = 0; h < 2; ++h) {
    const std::size_t at = 2 * v + h;
    sums.error2[at] = hn::Add(sums.error2[at], hn::Mul(errors[h], errors[h]));
    sums.value2[at] = hn::Add(sums.value2[at], hn::Mul(values[h], values[h]));
    sums.cross[at] = hn::Add(sums.cross[at], hn::Mul(values[h], errors[h]));
  }
}

struct Constants {
  F32 scale, lowest, highest;
  hn::Vec<decltype(kI8)> offset;
};

HWY_INLINE static void one_vector(const Constants& k, const float* in, std::uint8_t* out,
                                  std::size_t v, Lanes& sums, I32& bins) {
  const F32 value = hn::LoadU(kF32, in);
  const F32 quotient = hn::Div(value, k.scale);
  const I32 code = hn::NearestInt(hn::Min(hn::Max(quotient, k.lowest), k.highest));
  hn::StoreU(hn::BitCast(hn::Rebind<std::uint8_t, decltype(kF32)>(),
                         hn::Add(hn::DemoteTo(kI8, code), k.offset)),
             hn::Rebind<std::uint8_t, decltype(kF32)>(), out);
  const F32 rounded = hn::ConvertTo(kF32, code);
  const F32 error = hn::Sub(hn::Mul(rounded, k.scale), value);
  const F32 steps = hn::Abs(hn::Sub(rounded, quotient));
  add_sums(sums, v, value, error);
  sums.worst = hn::Max(sums.worst, hn::Abs(error));
  sums.worst_steps = hn::Max(sums.worst_steps, steps);
  sums.clipped = hn::Sub(
      sums.clipped, hn::BitCast(kI32, hn::VecFromMask(kF32, hn::Gt(steps, hn::Set(kF32, 0.5f)))));
  const F32 bin = hn::Min(hn::Mul(steps, hn::Set(kF32, kBinsPerStep)), hn::Set(kF32, kLastBin));
  count_bin(bins, hn::ConvertTo(kI32, bin));
}

static void codes(const float* in, std::size_t n, const Grid& grid, std::uint8_t* out,
                  Sums& sums) noexcept {
  const Constants k{hn::Set(kF32, grid.scale), hn::Set(kF32, grid.lowest),
                    hn::Set(kF32, grid.highest),
                    hn::Set(kI8, static_cast<std::int8_t>(grid.offset))};
  constexpr std::size_t kHalf = kLanes / 2;
  Lanes lanes;
  for (std::size_t i = 0; i < 2 * kVectors; ++i) {
    lanes.error2[i] = hn::Load(kF64, sums.error2 + i * kHalf);
    lanes.value2[i] = hn::Load(kF64, sums.value2 + i * kHalf);
    lanes.cross[i] = hn::Load(kF64, sums.cross + i * kHalf);
  }
  lanes.worst = hn::Set(kF32, sums.worst);
  lanes.worst_steps = hn::Set(kF32, sums.worst_steps);
  lanes.clipped = hn::Zero(kI32);
  I32 bins = hn::Zero(kI32);

  constexpr std::size_t kAddAfter = 15 / kVectors * kStripes;
  std::size_t i = 0;
  while (i + kStripes <= n) {
    const std::size_t until = std::min(n, i + kAddAfter) / kStripes * kStripes;
    for (const std::size_t end = std::max(until, i + kStripes); i < end; i += kStripes)
      for (std::size_t v = 0; v < kVectors; ++v)
        one_vector(k, in + i + v * kLanes, out + i + v * kLanes, v, lanes, bins);
    add_bins(bins, sums);
  }
  if (i < n) {  // zeros become code 0 without error: they only count in bin 0
    alignas(64) float rest[kStripes] = {};
    std::uint8_t bytes[kStripes];
    std::copy(in + i, in + n, rest);
    for (std::size_t v = 0; v < kVectors; ++v)
      one_vector(k, rest + v * kLanes, bytes + v * kLanes, v, lanes, bins);
    std::copy(bytes, bytes + (n - i), out + i);
    add_bins(bins, sums);
    sums.histogram[0] -= kStripes - (n - i);
  }

  for (std::size_t at = 0; at < 2 * kVectors; ++at) {
    hn::Store(lanes.error2[at], kF64, sums.error2 + at * kHalf);
    hn::Store(lanes.value2[at], kF64, sums.value2 + at * kHalf);
    hn::Store(lanes.cross[at], kF64, sums.cross + at * kHalf);
  }
  sums.worst = hn::GetLane(hn::MaxOfLanes(kF32, lanes.worst));
  sums.worst_steps = hn::GetLane(hn::MaxOfLanes(kF32, lanes.worst_steps));
  sums.clipped += static_cast<std::uint32_t>(hn::GetLane(hn::SumOfLanes(kI32, lanes.clipped)));
}

constexpr GroupKernels kGroups{&largest, &codes};

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

void codes_scalar(const float* in, std::size_t n, const Grid& grid, std::uint8_t* out,
                  Sums& sums) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const float quotient = in[i] / grid.scale;
    const float rounded = std::nearbyint(std::clamp(quotient, grid.lowest, grid.highest));
    out[i] = static_cast<std::uint8_t>(static_cast<int>(rounded) + grid.offset);

    const float error = rounded * grid.scale - in[i];
    const float steps = std::abs(rounded - quotient);
    const double e = error, w = in[i];
    sums.error2[i % kStripes] += e * e;
    sums.value2[i % kStripes] += w * w;
    sums.cross[i % kStripes] += w * e;
    sums.worst = std::max(sums.worst, std::abs(error));
    sums.worst_steps = std::max(sums.worst_steps, steps);
    sums.clipped += steps > 0.5f;  // rounding alone never loses more than half a step
    ++sums.histogram[static_cast<std::size_t>(std::min(steps * kBinsPerStep, kLastBin))];
  }
}

constexpr GroupKernels kScalar{&largest_scalar, &codes_scalar};

// Pairs of 4-bit codes, one in each byte, to bytes: the first in the low half. n is a multiple
// of 2.
void pack_nibbles(const std::uint8_t* codes, std::size_t n, std::byte* out) noexcept {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    std::uint64_t x;
    std::memcpy(&x, codes + i, sizeof x);
    x = (x | x >> 4) & 0x00FF00FF00FF00FF;
    x = (x | x >> 8) & 0x0000FFFF0000FFFF;
    const auto packed = static_cast<std::uint32_t>(x | x >> 16);
    std::memcpy(out + i / 2, &packed, sizeof packed);
  }
  for (; i < n; i += 2) out[i / 2] = static_cast<std::byte>(codes[i] | codes[i + 1] << 4);
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
  // Stores the scale for a group of this largest absolute value; what a reader will see of it.
  // Where that is zero, the type's machine epsilon stands in, as in compressed-tensors.
  float store(float largest, unsigned bits, std::byte* to) const noexcept {
    const float exact = largest / (static_cast<float>((1u << bits) - 1) / 2);
    float scale = 0;
    codec_.encode(&exact, to, 1);
    codec_.decode(to, &scale, 1);
    if (scale == 0) {
      scale = epsilon_;
      codec_.encode(&scale, to, 1);
    }
    return scale;
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

void quantize_with(const GroupKernels& kernels, const IntGroups& how, std::uint64_t rows,
                   std::uint64_t cols, std::span<const float> in, MutableBytes codes,
                   MutableBytes scales, Drift& drift) {
  constexpr std::size_t kPiece = 1024;  // 4-bit codes wait in this many bytes to be paired
  const ScaleType type(how.scale);
  const std::uint64_t group = how.group == 0 ? cols : how.group, row_bytes = code_bytes(how, cols);
  const auto half = static_cast<float>(1u << (how.bits - 1));
  Grid grid{0, -half, half - 1, static_cast<std::uint8_t>(how.packed ? half : 0)};
  Sums sums;
  if (cols == 0) return;
  std::byte* next_scale = scales.data();
  std::array<std::uint8_t, kPiece> piece;

  for (std::uint64_t r = 0; r < rows; ++r) {
    std::byte* const row = codes.data() + r * row_bytes;
    if (how.packed) std::memset(row + row_bytes - 4, 0, 4);  // the last word may not be full
    for (std::uint64_t c = 0; c < cols; c += group) {
      const float* const from = in.data() + r * cols + c;
      grid.scale = type.store(kernels.largest(from, group), how.bits, next_scale);
      next_scale += type.size();
      if (how.bits == 8) {
        kernels.codes(from, group, grid, reinterpret_cast<std::uint8_t*>(row + c), sums);
      } else {
        for (std::uint64_t i = 0; i < group; i += kPiece) {
          const std::size_t n = std::min<std::uint64_t>(kPiece, group - i);
          kernels.codes(from + i, n, grid, piece.data(), sums);
          if (n % 2 != 0) piece[n] = 0;
          pack_nibbles(piece.data(), n + n % 2, row + (c + i) / 2);
        }
      }
      turn(sums, group);
    }
  }
  turn(sums, kStripes - rows * cols % kStripes);
  add_to(drift, sums, rows * cols);
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
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] =
        static_cast<std::int8_t>(static_cast<int>(packed_field(words, bits, first + i)) - half);
}

}  // namespace wtool
#endif  // HWY_ONCE
