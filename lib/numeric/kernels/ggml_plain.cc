// ggml's types whose scale follows from a block's extremes (ggml-quants.c gives the arithmetic).
// Blocks lie as they are in the vectors; where a scale costs divisions, those of kLanes blocks are
// found together. Blocks that are not tame (below) go to the scalar reference.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/kernels/ggml_scalar.h"
#include "lib/numeric/kernels/ggml_scalar_math.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/ggml_plain.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/vectors-inl.h"

#ifndef WTOOL_GGML_PLAIN_ONCE
#define WTOOL_GGML_PLAIN_ONCE
namespace wtool {
namespace {

using Encode = void (*)(const float*, std::byte*, std::size_t, float*) noexcept;
struct PlainKernels {
  QuantizeRows q4_0, q4_1, q5_0, q5_1, q8_0, q1_0, q2_0, tq1_0, tq2_0, mxfp4, nvfp4;
  void (*mean_squares)(const float*, std::size_t, std::size_t, float*) noexcept;
  Encode to_q8_0, to_q4_0;
};

constexpr std::uint32_t kMagnitude = 0x7FFFFFFF;
// A block is tame if its magnitudes are below kMost and those that decide its scale are zero or at
// least kLeast: nothing is near the ends of f32, and inverses are finite.
constexpr float kLeast = 0x1p-100f, kMost = 0x1p100f;

// The types. kDivisor makes a scale of what decides it.
struct Q8_0 {
  static constexpr std::size_t kElements = 32, kBytes = 34;
  static constexpr float kDivisor = 127;
  static constexpr bool kSigned = false;  // does the scale take the sign of the largest value?
  static constexpr QuantizeRows kScalar = &scalar::quantize_q8_0;
};
struct Q4_0 {
  static constexpr std::size_t kElements = 32, kBytes = 18;
  static constexpr float kDivisor = -8;
  static constexpr bool kSigned = true;
  static constexpr QuantizeRows kScalar = &scalar::quantize_q4_0;
};
struct Q5_0 {
  static constexpr std::size_t kElements = 32, kBytes = 22;
  static constexpr float kDivisor = -16;
  static constexpr bool kSigned = true;
  static constexpr QuantizeRows kScalar = &scalar::quantize_q5_0;
};
struct Q4_1 {
  static constexpr std::size_t kElements = 32, kBytes = 20;
  static constexpr float kDivisor = 15;
  static constexpr QuantizeRows kScalar = &scalar::quantize_q4_1;
};
struct Q5_1 {
  static constexpr std::size_t kElements = 32, kBytes = 24;
  static constexpr float kDivisor = 31;
  static constexpr QuantizeRows kScalar = &scalar::quantize_q5_1;
};
struct Q1_0 {
  static constexpr std::size_t kElements = 128, kBytes = 18;
  static constexpr QuantizeRows kScalar = &scalar::quantize_q1_0;
};
struct Q2_0 {
  static constexpr std::size_t kElements = 64, kBytes = 18;
  static constexpr QuantizeRows kScalar = &scalar::quantize_q2_0;
};
struct TQ1_0 {
  static constexpr std::size_t kElements = 256, kBytes = 54;
  static constexpr QuantizeRows kScalar = &scalar::quantize_tq1_0;
};
struct TQ2_0 {
  static constexpr std::size_t kElements = 256, kBytes = 66;
  static constexpr QuantizeRows kScalar = &scalar::quantize_tq2_0;
};
struct MXFP4 {
  static constexpr std::size_t kElements = 32, kBytes = 17;
  static constexpr QuantizeRows kScalar = &scalar::quantize_mxfp4;
};
struct NVFP4 {
  static constexpr std::size_t kElements = 64, kBytes = 36;
  static constexpr QuantizeRows kScalar = &scalar::quantize_nvfp4;
};

template <class Type>
void encode_plainly(const float* in, std::byte* out, std::size_t blocks) noexcept {
  Type::kScalar({in, 1, blocks * Type::kElements}, out);
}

inline std::uint32_t magnitude(float x) noexcept {
  return std::bit_cast<std::uint32_t>(x) & kMagnitude;
}

// One block of f32_to_q8_0 and f32_to_q4_0, any values (kernels.h).
template <class Type>
void encode_with_step(const float* in, std::byte* out, float* step) noexcept {
  float most = 0;  // a NaN, if there is one
  for (std::size_t i = 0; i < Type::kElements; ++i)
    if (magnitude(in[i]) > magnitude(most)) most = in[i];
  if (!std::isfinite(most)) {
    std::memset(out, 0, Type::kBytes);
    *step = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  encode_plainly<Type>(in, out, 1);
  std::uint16_t stored;
  std::memcpy(&stored, out, 2);
  const float value = f16_value(stored);
  const float d = (Type::kSigned ? most : std::abs(most)) / Type::kDivisor;
  *step =
      value != 0 ? std::abs(value) < 0x1p17f ? value : std::numeric_limits<float>::infinity() : d;
}
template <class Type>
void encode_each(const float* in, std::byte* out, std::size_t blocks, float* steps) noexcept {
  if (steps == nullptr) return encode_plainly<Type>(in, out, blocks);
  for (std::size_t b = 0; b < blocks; ++b)
    encode_with_step<Type>(in + b * Type::kElements, out + b * Type::kBytes, steps + b);
}

inline void put_bits(std::uint16_t bits, std::byte* out) noexcept {
  std::memcpy(out, &bits, 2);
}

// ceil(q * 256 / 243) of five trits, q < 243, without a division.
constexpr unsigned five_trits(unsigned q) noexcept {
  return q + ((q * 13 + 242) * 270 >> 16);
}
constexpr bool five_trits_is_right() noexcept {
  for (unsigned q = 0; q < 243; ++q)
    if (five_trits(q) != (q * 256 + 242) / 243) return false;
  return true;
}
static_assert(five_trits_is_right());

// Bit i to bit 2 * i.
inline std::uint64_t spread(std::uint32_t bits) noexcept {
  std::uint64_t b = bits;
  b = (b | b << 16) & 0x0000FFFF0000FFFF;
  b = (b | b << 8) & 0x00FF00FF00FF00FF;
  b = (b | b << 4) & 0x0F0F0F0F0F0F0F0F;
  b = (b | b << 2) & 0x3333333333333333;
  return (b | b << 1) & 0x5555555555555555;
}

}  // namespace
}  // namespace wtool
#endif

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

template <class D>
HWY_INLINE void put_low_bytes(hn::Vec<hn::RebindToSigned<D>> v, D, std::byte* out) {
  constexpr hn::Rebind<std::uint8_t, D> bytes;
  hn::StoreU(hn::DemoteTo(bytes, v), bytes, reinterpret_cast<std::uint8_t*>(out));
}

// The bits of 32 comparisons; of(i) gives that of the vector at element i.
template <class Of>
HWY_INLINE std::uint32_t bits_of_32(Of&& of) {
  std::uint32_t bits = 0;
#pragma GCC unroll 8
  for (std::size_t i = 0; i < 32; i += kLanes) {
    std::conditional_t<kLanes == 16, std::uint16_t, std::uint8_t> some;
    hn::StoreMaskBits(kF, of(i), reinterpret_cast<std::uint8_t*>(&some));
    bits |= std::uint32_t{some} << i;
  }
  return bits;
}

// ---- What decides a block's scale

template <std::size_t kElements>
HWY_INLINE float largest_magnitude(const float* in) {
  VI most = hn::Zero(kI);
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kElements; i += kLanes)
    most = hn::Max(most, hn::And(hn::BitCast(kI, hn::LoadU(kF, in + i)),
                                 hn::Set(kI, static_cast<int>(kMagnitude))));
  return std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(kI, most)));
}

// The value of largest magnitude among 32; of two of opposite sign, the first.
HWY_INLINE float first_largest(const float* in) {
  const float a = largest_magnitude<32>(in);
  const VF plus = all(a), minus = all(-a);
  auto up = hn::Eq(hn::LoadU(kF, in), plus), down = hn::Eq(hn::LoadU(kF, in), minus);
#pragma GCC unroll 8
  for (std::size_t i = kLanes; i < 32; i += kLanes) {
    up = hn::Or(up, hn::Eq(hn::LoadU(kF, in + i), plus));
    down = hn::Or(down, hn::Eq(hn::LoadU(kF, in + i), minus));
  }
  // The sign is anybody's guess: no branch on it.
  const bool is_up = !hn::AllFalse(kF, up), is_down = !hn::AllFalse(kF, down);
  if (HWY_UNLIKELY(is_up && is_down && a != 0))
    return *std::find_if(in, in + 32, [&](float x) { return std::abs(x) == a; });
  const std::uint32_t sign = std::uint32_t{is_down && !is_up} << 31;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(a) | sign);
}

// v folded to four lanes.
template <class D, class Fold>
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> fold_to_four(D d, hn::Vec<D> v, Fold fold) {
  if constexpr (hn::MaxLanes(d) <= 4) {
    return v;
  } else {
    constexpr hn::Half<D> half;
    return fold_to_four(half, fold(hn::LowerHalf(half, v), hn::UpperHalf(half, v)), fold);
  }
}
HWY_INLINE VF fold_fours(const float* fours, auto fold) {
  VF a, b, c, d;
  hn::LoadInterleaved4(kF, fours, a, b, c, d);
  return fold(fold(a, b), fold(c, d));
}

struct Ranges {  // of kLanes blocks
  VF lo, hi;
};
// Of several zeros that are the least or the most, the first one's sign counts.
HWY_INLINE Ranges ranges_of_32(const float* in) {
  constexpr hn::FixedTag<float, 4> four;
  const auto min = [](auto a, auto b) { return hn::Min(a, b); };
  const auto max = [](auto a, auto b) { return hn::Max(a, b); };
  alignas(64) float low[4 * kLanes], high[4 * kLanes];
  for (std::size_t b = 0; b < kLanes; ++b) {
    VF lo = hn::LoadU(kF, in + b * 32), hi = lo;
#pragma GCC unroll 8
    for (std::size_t i = kLanes; i < 32; i += kLanes) {
      lo = hn::Min(lo, hn::LoadU(kF, in + b * 32 + i));
      hi = hn::Max(hi, hn::LoadU(kF, in + b * 32 + i));
    }
    hn::Store(fold_to_four(kF, lo, min), four, low + 4 * b);
    hn::Store(fold_to_four(kF, hi, max), four, high + 4 * b);
  }
  Ranges out{fold_fours(low, min), fold_fours(high, max)};
  if (HWY_UNLIKELY(!hn::AllFalse(kF, hn::Eq(out.lo, hn::Zero(kF))))) {
    hn::Store(out.lo, kF, low);
    hn::Store(out.hi, kF, high);
    for (std::size_t b = 0; b < kLanes; ++b) {
      if (low[b] != 0) continue;
      low[b] = *std::find(in + b * 32, in + b * 32 + 32, 0.0f);
      if (high[b] == 0) high[b] = low[b];
    }
    out = {hn::Load(kF, low), hn::Load(kF, high)};
  }
  return out;
}

// Whether all of the values that decide scales are zero or far from the ends of f32.
HWY_INLINE bool tame(VF decides) {
  const VF a = hn::Abs(decides);
  const auto normal = hn::And(hn::Ge(a, all(kLeast)), hn::Lt(a, all(kMost)));
  return hn::AllTrue(kF, hn::Or(normal, hn::Eq(a, hn::Zero(kF))));
}
HWY_INLINE bool tame(float decides) {
  return (decides >= kLeast && decides < kMost) || decides == 0;
}
HWY_INLINE VF inverse_or_zero(VF d) {
  return hn::IfThenZeroElse(hn::Eq(d, hn::Zero(kF)), hn::Div(all(1.0f), d));
}

// f16 of each lane, to out + lane * kStride; gives what a reader finds there.
template <std::size_t kStride>
HWY_INLINE VF put_halves(VF v, std::byte* out) {
  alignas(64) std::uint16_t bits[kLanes];
  VF values = v;
  if constexpr (kF16C) {
    const hn::Rebind<hwy::float16_t, F> half;
    const auto h = hn::DemoteTo(half, v);
    hn::Store(h, half, reinterpret_cast<hwy::float16_t*>(bits));
    values = hn::PromoteTo(kF, h);
  } else {
    alignas(64) float lanes[kLanes];
    hn::Store(v, kF, lanes);
    for (std::size_t b = 0; b < kLanes; ++b) lanes[b] = f16_value(bits[b] = f16_bits(lanes[b]));
    values = hn::Load(kF, lanes);
  }
  for (std::size_t b = 0; b < kLanes; ++b) put_bits(bits[b], out + b * kStride);
  return values;
}

// ---- Codes of a block of 32

HWY_INLINE void codes(Q8_0, const float* in, float inverse, std::byte* out) {
  constexpr hn::Rebind<std::int8_t, F> bytes;
  const VF sign = all(-0.0f), scale = all(inverse);
  // Just below 1/2, so that adding it and truncating rounds half away from zero, and only halves.
  const VF half = all(0x1.fffffep-2f);
#pragma GCC unroll 8
  for (std::size_t i = 0; i < 32; i += kLanes) {
    const VF v = hn::Mul(hn::LoadU(kF, in + i), scale);
    const VF away = hn::Add(v, hn::Or(hn::And(v, sign), half));
    hn::StoreU(hn::DemoteTo(bytes, hn::ConvertTo(kI, away)), bytes,
               reinterpret_cast<std::int8_t*>(out + i));
  }
}

// value(i): the codes of elements i .., not truncated yet, at least 0. kMost is 15 or 31.
template <int kMost, class Value>
HWY_INLINE void put_codes(Value&& value, std::byte* out) {
  const VI most = hn::Set(kI, kMost), nibble = hn::Set(kI, 15);
  if constexpr (kMost == 31) {
    const std::uint32_t fifth =
        bits_of_32([&](std::size_t i) { return hn::Ge(value(i), all(16.0f)); });
    std::memcpy(out, &fifth, 4);
    out += 4;
  }
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 16; i += kLanes) {
    VI low = hn::Min(hn::ConvertTo(kI, value(i)), most);
    VI high = hn::Min(hn::ConvertTo(kI, value(16 + i)), most);
    if constexpr (kMost == 31) {
      low = hn::And(low, nibble);
      high = hn::And(high, nibble);
    }
    put_low_bytes(hn::Or(low, hn::ShiftLeft<4>(high)), kF, out + i);
  }
}
template <int kMost>
HWY_INLINE void symmetric_codes(const float* in, float inverse, std::byte* out) {
  constexpr int kMiddle = (kMost + 1) / 2;
  const VF scale = all(inverse), zero = all(static_cast<float>(kMiddle) + 0.5f);
  put_codes<kMost>(
      [&](std::size_t i) { return hn::Add(hn::Mul(hn::LoadU(kF, in + i), scale), zero); }, out);
}
HWY_INLINE void codes(Q4_0, const float* in, float inverse, std::byte* out) {
  symmetric_codes<15>(in, inverse, out);
}
HWY_INLINE void codes(Q5_0, const float* in, float inverse, std::byte* out) {
  symmetric_codes<31>(in, inverse, out);
}
template <int kMost>
HWY_INLINE void affine_codes(const float* in, float inverse, float lo, std::byte* out) {
  const VF scale = all(inverse), least = all(lo), half = all(0.5f);
  put_codes<kMost>(
      [&](std::size_t i) {
        return hn::Add(hn::Mul(hn::Sub(hn::LoadU(kF, in + i), least), scale), half);
      },
      out);
}

// ---- Batches of kLanes blocks: false if one of them is not tame

template <class Type>
HWY_INLINE bool batch(Type type, const float* in, std::byte* out, float* steps) {
  alignas(64) float most[kLanes];
  for (std::size_t b = 0; b < kLanes; ++b)
    most[b] = Type::kSigned ? first_largest(in + b * 32) : largest_magnitude<32>(in + b * 32);
  const VF m = hn::Load(kF, most);
  if (HWY_UNLIKELY(!tame(m))) return false;
  // What f16 cannot hold is infinite as a step.
  if (steps != nullptr && HWY_UNLIKELY(!hn::AllTrue(kF, hn::Lt(hn::Abs(m), all(0x1p18f)))))
    return false;
  const VF d = hn::Div(m, all(Type::kDivisor));
  alignas(64) float inverses[kLanes];
  hn::Store(inverse_or_zero(d), kF, inverses);
  const VF stored = put_halves<Type::kBytes>(d, out);
  if (steps != nullptr)
    hn::StoreU(hn::IfThenElse(hn::Eq(stored, hn::Zero(kF)), d, stored), kF, steps);
  for (std::size_t b = 0; b < kLanes; ++b)
    codes(type, in + b * 32, inverses[b], out + b * Type::kBytes + 2);
  return true;
}

template <class Type>
HWY_INLINE bool affine_batch(const float* in, std::byte* out) {
  alignas(64) float lo[kLanes], inverses[kLanes];
  const Ranges ranges = ranges_of_32(in);
  const VF least = ranges.lo, range = hn::Sub(ranges.hi, least);
  if (HWY_UNLIKELY(!tame(range))) return false;
  hn::Store(least, kF, lo);
  const VF d = hn::Div(range, all(Type::kDivisor));
  hn::Store(inverse_or_zero(d), kF, inverses);
  put_halves<Type::kBytes>(d, out);
  put_halves<Type::kBytes>(least, out + 2);
  for (std::size_t b = 0; b < kLanes; ++b)
    affine_codes<static_cast<int>(Type::kDivisor)>(in + b * 32, inverses[b], lo[b],
                                                   out + b * Type::kBytes + 4);
  return true;
}
HWY_INLINE bool batch(Q4_1, const float* in, std::byte* out, float*) {
  return affine_batch<Q4_1>(in, out);
}
HWY_INLINE bool batch(Q5_1, const float* in, std::byte* out, float*) {
  return affine_batch<Q5_1>(in, out);
}

// ---- Four-bit floats

// Codes of values by their magnitudes in units of the scale: the nearest of 0, 1, 2, 3, 4, 6, 8 and
// 12, ties to the smaller. All the middles between those but 1/2 are multiples of a quarter of the
// power of two below them, so that exponent and two bits of mantissa tell; of what lies just below,
// so that a middle itself counts as less.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToSigned<D>> fp4_codes(D d, hn::Vec<D> values, hn::Vec<D> units) {
  constexpr hn::RebindToSigned<D> di;
  constexpr hn::Repartition<std::uint8_t, D> bytes;
  alignas(16) static constexpr std::uint8_t kCodes[16] = {
      1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7};  // from 1, 2, 4 and 8
  constexpr int kOne = 127 << 2;
  const auto below = hn::Sub(hn::BitCast(di, units), hn::Set(di, 1));
  const auto quarter = hn::Sub(hn::ShiftRight<21>(below), hn::Set(di, kOne));
  const auto index = hn::Min(hn::Max(quarter, hn::Zero(di)), hn::Set(di, 15));
  const auto code = hn::BitCast(
      di, hn::TableLookupBytes(hn::LoadDup128(bytes, kCodes), hn::BitCast(bytes, index)));
  const auto sign = hn::ShiftRight<28>(hn::BitCast(di, values));  // 8, below more of it
  const auto signed_code = hn::Or(hn::And(code, hn::Set(di, 7)), hn::And(sign, hn::Set(di, 8)));
  return hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(units, hn::Set(d, 0.5f))), signed_code);
}
// Puts codes of 2 * kHalf elements, element j + kHalf above j.
template <std::size_t kHalf, class D, class Units>
HWY_INLINE void put_fp4(D d, const float* in, Units&& units, std::byte* out) {
  const auto code = [&](const float* x) {
    const auto v = hn::LoadU(d, x);
    return fp4_codes(d, v, units(hn::Abs(v)));
  };
#pragma GCC unroll 4
  for (std::size_t j = 0; j < kHalf; j += hn::MaxLanes(d))
    put_low_bytes(hn::Or(code(in + j), hn::ShiftLeft<4>(code(in + kHalf + j))), d, out + j);
}

HWY_INLINE bool batch(MXFP4, const float* in, std::byte* out, float*) {
  for (std::size_t b = 0; b < kLanes; ++b, in += 32, out += MXFP4::kBytes) {
    const float most = largest_magnitude<32>(in);
    if (HWY_UNLIKELY(!tame(most))) return false;
    const int e = most == 0 ? 0 : scalar::floor_log2f(most) + 125;
    // The scale is 2^(e - 128).
    const VF inverse = all(std::bit_cast<float>(static_cast<std::uint32_t>(255 - e) << 23));
    out[0] = static_cast<std::byte>(e);
    if (HWY_UNLIKELY(most == 0))
      std::memset(out + 1, 0, 16);
    else
      put_fp4<16>(
          kF, in, [&](VF a) { return hn::Mul(a, inverse); }, out + 1);
  }
  return true;
}

// Beyond 2^20 differences to the largest code round to the same: the first code wins.
HWY_INLINE bool batch(NVFP4, const float* in, std::byte* out, float*) {
  constexpr hn::CappedTag<float, 8> half;  // of a group of 16
  for (std::size_t g = 0; g < 4 * kLanes; ++g, in += 16) {
    const float most = largest_magnitude<16>(in);
    if (HWY_UNLIKELY(!(most < 0x1p20f))) return false;
    std::byte* to = out + g / 4 * NVFP4::kBytes;
    const unsigned bits = scalar::ue4m3_bits(most / 6);
    to[g % 4] = static_cast<std::byte>(bits);
    // A scale of 0 makes everything 0. Scale and middles have so few bits that no quotient is
    // rounded to a middle unless it is one.
    const auto scale = hn::Set(half, bits == 0 ? std::numeric_limits<float>::infinity()
                                               : scalar::ue4m3_value(bits) * 0.5f);
    put_fp4<8>(
        half, in, [&](auto a) { return hn::Div(a, scale); }, to + 4 + 8 * (g % 4));
  }
  return true;
}

// ---- Signs and trits

HWY_INLINE void put_half(float v, std::byte* out) {
  put_bits(f16_bits(v), out);
}

// The trits of a vector's elements, kStride apart, joined: the first counts most.
template <std::size_t kStride, std::size_t kCount, class D>
HWY_INLINE hn::Vec<hn::RebindToSigned<D>> join_trits(D d, const float* in, float inverse) {
  constexpr hn::RebindToSigned<D> di;
  auto joined = hn::Zero(di);
#pragma GCC unroll 5
  for (std::size_t n = 0; n < kCount; ++n) {
    const auto v = hn::Mul(hn::LoadU(d, in + n * kStride), hn::Set(d, inverse));
    const auto sign = hn::And(v, hn::Set(d, -0.0f));
    const auto away = hn::Add(v, hn::Or(sign, hn::Set(d, 0x1.fffffep-2f)));
    joined = hn::Add(hn::Add(joined, hn::ShiftLeft<1>(joined)), hn::ConvertTo(di, away));
  }
  constexpr int kOnes = kCount == 5 ? 121 : 40;  // of each trit, 1 more
  return hn::Add(joined, hn::Set(di, kOnes));
}
template <class D, class V>
HWY_INLINE void put_trits(D d, V q, std::byte* out) {
  constexpr hn::RebindToSigned<D> di;
  const auto over = hn::Add(hn::Mul(q, hn::Set(di, 13 * 270)), hn::Set(di, 242 * 270));
  put_low_bytes(hn::Add(q, hn::ShiftRight<16>(over)), d, out);
}

HWY_INLINE bool one(TQ1_0, const float* in, std::byte* out) {
  constexpr hn::CappedTag<float, 16> sixteen;
  constexpr hn::CappedTag<float, 4> four;
  const float d = largest_magnitude<256>(in);
  if (HWY_UNLIKELY(!tame(d))) return false;
  const float inverse = d != 0 ? 1 / d : 0;
  for (std::size_t m = 0; m < 32; m += kLanes)
    put_trits(kF, join_trits<32, 5>(kF, in + m, inverse), out + m);
  for (std::size_t m = 0; m < 16; m += hn::MaxLanes(sixteen))
    put_trits(sixteen, join_trits<16, 5>(sixteen, in + 160 + m, inverse), out + 32 + m);
  const auto last = join_trits<4, 4>(four, in + 240, inverse);
  put_trits(four, hn::Add(last, hn::ShiftLeft<1>(last)), out + 48);
  put_half(d, out + 52);
  return true;
}

HWY_INLINE bool one(TQ2_0, const float* in, std::byte* out) {
  const float d = largest_magnitude<256>(in);
  if (HWY_UNLIKELY(!tame(d))) return false;
  const VF inverse = all(d != 0 ? 1 / d : 0), half = all(0x1.fffffep-2f), sign = all(-0.0f);
  const auto trit = [&](const float* x) {
    const VF v = hn::Mul(hn::LoadU(kF, x), inverse);
    return hn::ConvertTo(kI, hn::Add(v, hn::Or(hn::And(v, sign), half)));
  };
  for (std::size_t m = 0; m < 64; m += kLanes) {
    const float* x = in + m / 32 * 128 + m % 32;
    const VI low = hn::Add(trit(x), hn::ShiftLeft<2>(trit(x + 32)));
    const VI high = hn::Add(trit(x + 64), hn::ShiftLeft<2>(trit(x + 96)));
    const VI ones = hn::Set(kI, 1 + 4 + 16 + 64);
    put_low_bytes(hn::Add(hn::Add(low, hn::ShiftLeft<4>(high)), ones), kF, out + m);
  }
  put_half(d, out + 64);
  return true;
}

HWY_INLINE bool one(Q2_0, const float* in, std::byte* out) {
  const float d = largest_magnitude<64>(in);
  if (HWY_UNLIKELY(!tame(d))) return false;
  const VF inverse = all(d != 0 ? 1 / d : 0), half = all(0.5f), minus = all(-0.5f);
  put_half(d, out);
  for (std::size_t h = 0; h < 2; ++h, in += 32) {
    const auto value = [&](std::size_t i) { return hn::Mul(hn::LoadU(kF, in + i), inverse); };
    const std::uint32_t two = bits_of_32([&](std::size_t i) { return hn::Ge(value(i), half); });
    const std::uint32_t zero = bits_of_32([&](std::size_t i) { return hn::Le(value(i), minus); });
    const std::uint64_t bits = spread(~(two | zero)) | spread(two) << 1;
    std::memcpy(out + 2 + 8 * h, &bits, 8);
  }
  return true;
}

// Sums in the order of the elements: those of several rows run side by side.
using Side = hn::CappedTag<float, 8>;  // wider ones are slower: what is turned comes in fours
constexpr Side kSide;
constexpr std::size_t kRows = hn::MaxLanes(kSide);

// Four elements of kRows rows, `stride` apart, turned to four vectors.
HWY_INLINE void turn(const float* in, std::size_t stride, float* turned) {
  constexpr hn::FixedTag<float, 4> four;
  constexpr hn::FixedTag<double, 2> two;
#pragma GCC unroll 4
  for (std::size_t row = 0; row < kRows; row += 4, in += 4 * stride, turned += 4) {
    const auto a = hn::LoadU(four, in), b = hn::LoadU(four, in + stride),
               c = hn::LoadU(four, in + 2 * stride), d = hn::LoadU(four, in + 3 * stride);
    const auto ab0 = hn::BitCast(two, hn::InterleaveLower(four, a, b)),
               ab1 = hn::BitCast(two, hn::InterleaveUpper(four, a, b)),
               cd0 = hn::BitCast(two, hn::InterleaveLower(four, c, d)),
               cd1 = hn::BitCast(two, hn::InterleaveUpper(four, c, d));
    const auto put = [&](auto v, std::size_t e) {
      hn::Store(hn::BitCast(four, v), four, turned + e * kRows);
    };
    put(hn::InterleaveLower(two, ab0, cd0), 0);
    put(hn::InterleaveUpper(two, ab0, cd0), 1);
    put(hn::InterleaveLower(two, ab1, cd1), 2);
    put(hn::InterleaveUpper(two, ab1, cd1), 3);
  }
}

// kRows sums of `n` terms (a multiple of 4) that start `stride` apart.
template <class Term>
HWY_INLINE hn::Vec<Side> sums_in_order(const float* in, std::size_t stride, std::size_t n,
                                       Term&& term) {
  // Enough at a time for what was stored in parts to have arrived when it is loaded whole.
  constexpr std::size_t kAtATime = 32;
  alignas(64) float turned[kAtATime * kRows];
  auto sum = hn::Zero(kSide);
  for (std::size_t begin = 0; begin < n; begin += kAtATime) {
    const std::size_t some = std::min(kAtATime, n - begin);
    for (std::size_t i = 0; i < some; i += 4) turn(in + begin + i, stride, turned + i * kRows);
    for (std::size_t i = 0; i < some; ++i)
      sum = hn::Add(sum, term(hn::Load(kSide, turned + i * kRows)));
  }
  return sum;
}

HWY_INLINE bool batch(Q1_0, const float* in, std::byte* out, float*) {
  alignas(64) float sums[kLanes];
  for (std::size_t b = 0; b < kLanes; b += kRows)
    hn::Store(sums_in_order(in + b * 128, 128, 128, [](auto v) { return hn::Abs(v); }), kSide,
              sums + b);
  put_halves<Q1_0::kBytes>(hn::Mul(hn::Load(kF, sums), all(1.0f / 128)), out);
  for (std::size_t b = 0; b < kLanes; ++b)
    for (std::size_t i = 0; i < 128; i += 32) {
      const std::uint32_t signs = bits_of_32(
          [&](std::size_t k) { return hn::Ge(hn::LoadU(kF, in + b * 128 + i + k), hn::Zero(kF)); });
      std::memcpy(out + b * Q1_0::kBytes + 2 + i / 8, &signs, 4);
    }
  return true;
}

// ---- All blocks

template <class Type>
void encode(const float* in, std::byte* out, std::size_t blocks, float* steps) noexcept {
  const auto some = [&](std::size_t b) {
    const float* x = in + b * Type::kElements;
    std::byte* to = out + b * Type::kBytes;
    float* its_steps = steps != nullptr ? steps + b : nullptr;
    if (!batch(Type{}, x, to, its_steps)) {
      if constexpr (requires { Type::kSigned; })
        encode_each<Type>(x, to, kLanes, its_steps);
      else
        encode_plainly<Type>(x, to, kLanes);
    }
  };
  std::size_t b = 0;
  for (; b + kLanes <= blocks; b += kLanes) some(b);
  if (b == blocks) return;
  // The rest: some blocks for the second time, if there are enough.
  if (blocks >= kLanes) return some(blocks - kLanes);
  if constexpr (requires { Type::kSigned; })
    encode_each<Type>(in, out, blocks, steps);
  else
    encode_plainly<Type>(in, out, blocks);
}
template <class Type>
void batches(const BlockRows& in, std::byte* out) noexcept {
  encode<Type>(in.values, out, in.elements() / Type::kElements, nullptr);
}
template <class Type>
void to_blocks(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  encode<Type>(in, out, n / Type::kElements, steps);
}
template <class Type>
void one_by_one(const BlockRows& in, std::byte* out) noexcept {
  const float* x = in.values;
  const float* const end = x + in.elements();
  for (; x != end; x += Type::kElements, out += Type::kBytes)
    if (!one(Type{}, x, out)) encode_plainly<Type>(x, out, 1);
}

void mean_squares(const float* in, std::size_t rows, std::size_t columns, float* out) noexcept {
  if (rows < kRows || columns % 4 != 0) return scalar::mean_squares(in, rows, columns, out);
  const auto square = [](auto v) { return hn::Mul(v, v); };
  const auto some = [&](std::size_t r) {
    const auto sums = sums_in_order(in + r * columns, columns, columns, square);
    hn::StoreU(hn::Div(sums, hn::Set(kSide, static_cast<float>(columns))), kSide, out + r);
  };
  std::size_t r = 0;
  for (; r + kRows <= rows; r += kRows) some(r);
  if (r != rows) some(rows - kRows);  // some for the second time
}

}  // namespace

constexpr PlainKernels kPlain{
    &batches<Q4_0>,  &batches<Q4_1>,    &batches<Q5_0>,     &batches<Q5_1>,     &batches<Q8_0>,
    &batches<Q1_0>,  &one_by_one<Q2_0>, &one_by_one<TQ1_0>, &one_by_one<TQ2_0>, &batches<MXFP4>,
    &batches<NVFP4>, &mean_squares,     &to_blocks<Q8_0>,   &to_blocks<Q4_0>};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace scalar {
namespace {

template <class Type>
void to_blocks(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  encode_each<Type>(in, out, n / Type::kElements, steps);
}

constexpr PlainKernels kPlain{&quantize_q4_0,   &quantize_q4_1,  &quantize_q5_0,  &quantize_q5_1,
                              &quantize_q8_0,   &quantize_q1_0,  &quantize_q2_0,  &quantize_tq1_0,
                              &quantize_tq2_0,  &quantize_mxfp4, &quantize_nvfp4, &mean_squares,
                              &to_blocks<Q8_0>, &to_blocks<Q4_0>};

}  // namespace
}  // namespace scalar

namespace {
const PlainKernels& kernels() noexcept {
  return WTOOL_CHOOSE(scalar::kPlain, kPlain);
}
}  // namespace

void mean_squares(const float* values, std::size_t rows, std::size_t columns, float* out) noexcept {
  kernels().mean_squares(values, rows, columns, out);
}
void quantize_q4_0(const BlockRows& in, std::byte* out) noexcept {
  kernels().q4_0(in, out);
}
void quantize_q4_1(const BlockRows& in, std::byte* out) noexcept {
  kernels().q4_1(in, out);
}
void quantize_q5_0(const BlockRows& in, std::byte* out) noexcept {
  kernels().q5_0(in, out);
}
void quantize_q5_1(const BlockRows& in, std::byte* out) noexcept {
  kernels().q5_1(in, out);
}
void quantize_q8_0(const BlockRows& in, std::byte* out) noexcept {
  kernels().q8_0(in, out);
}
void quantize_q1_0(const BlockRows& in, std::byte* out) noexcept {
  kernels().q1_0(in, out);
}
void quantize_q2_0(const BlockRows& in, std::byte* out) noexcept {
  kernels().q2_0(in, out);
}
void quantize_tq1_0(const BlockRows& in, std::byte* out) noexcept {
  kernels().tq1_0(in, out);
}
void quantize_tq2_0(const BlockRows& in, std::byte* out) noexcept {
  kernels().tq2_0(in, out);
}
void quantize_mxfp4(const BlockRows& in, std::byte* out) noexcept {
  kernels().mxfp4(in, out);
}
void quantize_nvfp4(const BlockRows& in, std::byte* out) noexcept {
  kernels().nvfp4(in, out);
}
void f32_to_q8_0(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  kernels().to_q8_0(in, out, n, steps);
}
void f32_to_q4_0(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  kernels().to_q4_0(in, out, n, steps);
}

}  // namespace wtool
#endif
