// ggml's types of 32 elements a block (ggml-quants.c gives the arithmetic): q8_0 is {f16 d, i8
// q[32]}; the others are {f16 d, [f16 m], [u32 fifth bits], u8 q[16]}, byte j holding element j in
// its low nibble and element j + 16 in its high one.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/numeric/kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/blocks.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/targets.h"

#ifndef WTOOL_BLOCKS_ONCE
#define WTOOL_BLOCKS_ONCE
namespace wtool {
namespace {

using Decode = void (*)(const std::byte*, float*, std::size_t) noexcept;
using Encode = void (*)(const float*, std::byte*, std::size_t, float*) noexcept;
struct BlockKernels {
  Decode q8_0, q4_0, q4_1, q5_0, q5_1;
  Encode to_q8_0, to_q4_0;
};

constexpr std::size_t kBlock = 32;
constexpr std::uint32_t kMagnitude = 0x7FFFFFFF;

// What the nibble types have in common.
template <bool kFifth, bool kMin>
struct Nibbles {
  static constexpr std::size_t kFifthAt = kMin ? 4 : 2, kCodesAt = kFifthAt + (kFifth ? 4 : 0),
                               kBytes = kCodesAt + 16;
  static constexpr int kZero = kMin ? 0 : kFifth ? 16 : 8;

  const std::byte* codes;
  float d, m = 0;
  std::uint32_t fifth = 0;

  explicit Nibbles(const std::byte* p) : codes(p + kCodesAt), d(f16_at(p)) {
    if constexpr (kMin) {
      m = f16_at(p + 2);
      // Of two NaN the processor may keep either: let it be this one.
      if (std::isnan(m)) d = 0;
    }
    if constexpr (kFifth) std::memcpy(&fifth, p + kFifthAt, 4);
  }
  static float f16_at(const std::byte* p) {
    std::uint16_t h;
    std::memcpy(&h, p, 2);
    return f16_value(h);
  }
};

// A block's scale: as the codes are computed with it (its inverse), as stored, and as the report
// counts in (kernels.h).
struct Scale {
  float inverse;
  std::uint16_t stored;
  float step;

  explicit Scale(float d) : inverse(d != 0 ? 1 / d : 0), stored(f16_bits(d)) {
    const float value = f16_value(stored);
    step =
        value != 0 ? std::abs(value) < 0x1p17f ? value : std::numeric_limits<float>::infinity() : d;
  }
  // The reciprocal of a subnormal may be infinite. The reference then converts infinities and NaN
  // to integers: on x86-64, its low byte is 0.
  bool degenerate() const { return std::isinf(inverse); }
};

inline std::uint32_t magnitude(float x) noexcept {
  return std::bit_cast<std::uint32_t>(x) & kMagnitude;
}

// The reference: one block, any values.
struct Q8_0 {
  static constexpr std::size_t kBytes = 34;
  static constexpr float kDivisor = 127;
  static constexpr bool kSigned = false;  // does the scale take the sign of the largest value?
  static std::byte code(float x, float inverse) {
    return static_cast<std::byte>(static_cast<int>(std::round(x * inverse)));
  }
  static void put(const float* in, float inverse, std::byte* out) {
    for (std::size_t i = 0; i < kBlock; ++i) out[i] = code(in[i], inverse);
  }
};
struct Q4_0 {
  static constexpr std::size_t kBytes = 18;
  static constexpr float kDivisor = -8;
  static constexpr bool kSigned = true;
  static unsigned code(float x, float inverse) {
    return std::min(15u, static_cast<unsigned>(x * inverse + 8.5f));
  }
  static void put(const float* in, float inverse, std::byte* out) {
    for (std::size_t i = 0; i < 16; ++i)
      out[i] = static_cast<std::byte>(code(in[i], inverse) | code(in[16 + i], inverse) << 4);
  }
};

template <class Type>
void encode_block(const float* in, std::byte* out, float* step) noexcept {
  float most = 0;  // the first of the largest magnitude (a NaN, if there is one)
  for (std::size_t i = 0; i < kBlock; ++i)
    if (magnitude(in[i]) > magnitude(most)) most = in[i];
  std::memset(out, 0, Type::kBytes);
  if (!std::isfinite(most)) {
    *step = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  const Scale scale((Type::kSigned ? most : std::abs(most)) / Type::kDivisor);
  *step = scale.step;
  std::memcpy(out, &scale.stored, 2);
  if (!scale.degenerate()) Type::put(in, scale.inverse, out + 2);
}

template <class Type>
void encode_blocks(const float* in, std::byte* out, std::size_t blocks, float* steps) noexcept {
  for (std::size_t b = 0; b < blocks; ++b)
    encode_block<Type>(in + b * kBlock, out + b * Type::kBytes, steps + b);
}

}  // namespace
}  // namespace wtool
#endif

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using U = hn::RebindToUnsigned<F>;
using I = hn::RebindToSigned<F>;
using I8 = hn::Rebind<std::int8_t, F>;
using U8 = hn::Rebind<std::uint8_t, F>;
constexpr F kF;
constexpr U kU;
constexpr I kI;
constexpr I8 kI8;
constexpr U8 kU8;
constexpr std::size_t kLanes = hn::MaxLanes(kF);
constexpr bool kF16C = HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3;
using VF = hn::Vec<F>;
using VU = hn::Vec<U>;
using VI = hn::Vec<I>;

void q8_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t b = 0; b < n / kBlock; ++b, in += 34, out += kBlock) {
    const VF d = hn::Set(kF, Nibbles<false, false>::f16_at(in));
    const auto* codes = reinterpret_cast<const std::int8_t*>(in + 2);
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kBlock; i += kLanes) {
      const VI q = hn::PromoteTo(kI, hn::LoadU(kI8, codes + i));
      hn::StoreU(hn::Mul(hn::ConvertTo(kF, q), d), kF, out + i);
    }
  }
}

template <bool kFifth, bool kMin>
void nibbles_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  using Block = Nibbles<kFifth, kMin>;
  const VU iota = hn::Iota(kU, 0), nibble = hn::Set(kU, 15u), bit = hn::Set(kU, 16u);
  const VI zero = hn::Set(kI, Block::kZero);
  for (std::size_t b = 0; b < n / kBlock; ++b, in += Block::kBytes, out += kBlock) {
    const Block block(in);
    const VF d = hn::Set(kF, block.d), m = hn::Set(kF, block.m);
    const auto* codes = reinterpret_cast<const std::uint8_t*>(block.codes);
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 16; i += kLanes) {
      const VU both = hn::PromoteTo(kU, hn::LoadU(kU8, codes + i));
      VU low = hn::And(both, nibble), high = hn::ShiftRight<4>(both);
      if constexpr (kFifth) {
        const VU at = hn::Add(iota, hn::Set(kU, static_cast<std::uint32_t>(i)));
        const VU bits = hn::Shr(hn::Set(kU, block.fifth), at);
        low = hn::Or(low, hn::And(hn::ShiftLeft<4>(bits), bit));
        high = hn::Or(high, hn::And(hn::ShiftRight<12>(bits), bit));
      }
      VF x = hn::Mul(hn::ConvertTo(kF, hn::Sub(hn::BitCast(kI, low), zero)), d);
      VF y = hn::Mul(hn::ConvertTo(kF, hn::Sub(hn::BitCast(kI, high), zero)), d);
      if constexpr (kMin) {
        x = hn::Add(x, m);
        y = hn::Add(y, m);
      }
      hn::StoreU(x, kF, out + i);
      hn::StoreU(y, kF, out + 16 + i);
    }
  }
}

// The value of largest magnitude in a block; of two of opposite sign, the first.
template <bool kSigned>
HWY_INLINE float largest(const float* in) {
  VI most = hn::Zero(kI);
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kBlock; i += kLanes)
    most = hn::Max(most, hn::And(hn::BitCast(kI, hn::LoadU(kF, in + i)),
                                 hn::Set(kI, static_cast<int>(kMagnitude))));
  const float a = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(kI, most)));
  if constexpr (!kSigned) return a;
  const VF plus = hn::Set(kF, a), minus = hn::Set(kF, -a);
  auto up = hn::Eq(hn::LoadU(kF, in), plus), down = hn::Eq(hn::LoadU(kF, in), minus);
#pragma GCC unroll 8
  for (std::size_t i = kLanes; i < kBlock; i += kLanes) {
    up = hn::Or(up, hn::Eq(hn::LoadU(kF, in + i), plus));
    down = hn::Or(down, hn::Eq(hn::LoadU(kF, in + i), minus));
  }
  // The sign is anybody's guess: no branch on it.
  const bool is_up = !hn::AllFalse(kF, up), is_down = !hn::AllFalse(kF, down);
  if (HWY_UNLIKELY(is_up && is_down && a != 0))
    return *std::find_if(in, in + kBlock, [&](float x) { return std::abs(x) == a; });
  const std::uint32_t sign = std::uint32_t{is_down && !is_up} << 31;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(a) | sign);
}

// The scales of kLanes blocks at once. Only where all of them are zero or far from the ends of f16
// and f32, else false.
template <class Type>
HWY_INLINE bool scales(const float* in, std::byte* out, float* inverses, float* steps) {
  constexpr float kLeast = 0x1p-100f, kMost = 0x1p18f;
  alignas(64) float most[kLanes];
  for (std::size_t b = 0; b < kLanes; ++b) most[b] = largest<Type::kSigned>(in + b * kBlock);
  const VF m = hn::Load(kF, most), a = hn::Abs(m), zero = hn::Zero(kF);
  const auto normal = hn::And(hn::Ge(a, hn::Set(kF, kLeast)), hn::Lt(a, hn::Set(kF, kMost)));
  if (HWY_UNLIKELY(!hn::AllTrue(kF, hn::Or(normal, hn::Eq(a, zero))))) return false;
  const VF d = hn::Div(m, hn::Set(kF, Type::kDivisor));
  hn::StoreU(hn::IfThenZeroElse(hn::Eq(d, zero), hn::Div(hn::Set(kF, 1.0f), d)), kF, inverses);
  alignas(64) std::uint16_t stored[kLanes];
  alignas(64) float values[kLanes];
  if constexpr (kF16C) {
    const hn::Rebind<hwy::float16_t, F> half;
    const auto h = hn::DemoteTo(half, d);
    hn::Store(h, half, reinterpret_cast<hwy::float16_t*>(stored));
    hn::Store(hn::PromoteTo(kF, h), kF, values);
  } else {
    hn::Store(d, kF, values);
    for (std::size_t b = 0; b < kLanes; ++b) values[b] = f16_value(stored[b] = f16_bits(values[b]));
  }
  const VF value = hn::Load(kF, values);
  hn::StoreU(hn::IfThenElse(hn::Eq(value, zero), d, value), kF, steps);
  for (std::size_t b = 0; b < kLanes; ++b) std::memcpy(out + b * Type::kBytes, &stored[b], 2);
  return true;
}

HWY_INLINE void codes(Q8_0, const float* in, std::byte* out, float inverse) {
  const VF sign = hn::Set(kF, -0.0f), scale = hn::Set(kF, inverse);
  // Just below 1/2, so that adding it and truncating rounds half away from zero, and only halves.
  const VF half = hn::Set(kF, 0x1.fffffep-2f);
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kBlock; i += kLanes) {
    const VF v = hn::Mul(hn::LoadU(kF, in + i), scale);
    const VF away = hn::Add(v, hn::Or(hn::And(v, sign), half));
    hn::StoreU(hn::DemoteTo(kI8, hn::ConvertTo(kI, away)), kI8,
               reinterpret_cast<std::int8_t*>(out + i));
  }
}
HWY_INLINE void codes(Q4_0, const float* in, std::byte* out, float inverse) {
  const VF scale = hn::Set(kF, inverse), zero = hn::Set(kF, 8.5f);
  const VI most = hn::Set(kI, 15);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 16; i += kLanes) {
    const VF x = hn::Add(hn::Mul(hn::LoadU(kF, in + i), scale), zero);
    const VF y = hn::Add(hn::Mul(hn::LoadU(kF, in + 16 + i), scale), zero);
    const VI low = hn::Min(hn::ConvertTo(kI, x), most), high = hn::Min(hn::ConvertTo(kI, y), most);
    hn::StoreU(hn::DemoteTo(kU8, hn::Or(low, hn::ShiftLeft<4>(high))), kU8,
               reinterpret_cast<std::uint8_t*>(out + i));
  }
}

template <class Type>
void encode(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  std::size_t blocks = n / kBlock;
  for (; blocks >= kLanes; blocks -= kLanes) {
    alignas(64) float inverses[kLanes];
    if (scales<Type>(in, out, inverses, steps)) {
      for (std::size_t b = 0; b < kLanes; ++b)
        codes(Type{}, in + b * kBlock, out + b * Type::kBytes + 2, inverses[b]);
    } else {
      encode_blocks<Type>(in, out, kLanes, steps);
    }
    in += kLanes * kBlock;
    out += kLanes * Type::kBytes;
    steps += kLanes;
  }
  encode_blocks<Type>(in, out, blocks, steps);
}

}  // namespace

constexpr BlockKernels kBlocks{&q8_0_to_f32,
                               &nibbles_to_f32<false, false>,
                               &nibbles_to_f32<false, true>,
                               &nibbles_to_f32<true, false>,
                               &nibbles_to_f32<true, true>,
                               &encode<Q8_0>,
                               &encode<Q4_0>};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace scalar {
namespace {

void q8_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t b = 0; b < n / kBlock; ++b, in += 34, out += kBlock) {
    const float d = Nibbles<false, false>::f16_at(in);
    for (std::size_t i = 0; i < kBlock; ++i)
      out[i] = static_cast<float>(static_cast<std::int8_t>(in[2 + i])) * d;
  }
}

template <bool kFifth, bool kMin>
void nibbles_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  using Block = Nibbles<kFifth, kMin>;
  for (std::size_t b = 0; b < n / kBlock; ++b, in += Block::kBytes, out += kBlock) {
    const Block block(in);
    for (unsigned i = 0; i < kBlock; ++i) {
      const unsigned both = static_cast<unsigned>(block.codes[i % 16]);
      const unsigned code = (i < 16 ? both & 15 : both >> 4) | (block.fifth >> i & 1) << 4;
      const float value = static_cast<float>(static_cast<int>(code) - Block::kZero) * block.d;
      out[i] = kMin ? value + block.m : value;
    }
  }
}

template <class Type>
void encode(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  encode_blocks<Type>(in, out, n / kBlock, steps);
}

constexpr BlockKernels kBlocks{&q8_0_to_f32,
                               &nibbles_to_f32<false, false>,
                               &nibbles_to_f32<false, true>,
                               &nibbles_to_f32<true, false>,
                               &nibbles_to_f32<true, true>,
                               &encode<Q8_0>,
                               &encode<Q4_0>};

}  // namespace
}  // namespace scalar

namespace {
const BlockKernels& kernels() noexcept {
  return WTOOL_CHOOSE(scalar::kBlocks, kBlocks);
}
}  // namespace

void q8_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q8_0(in, out, n);
}
void q4_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q4_0(in, out, n);
}
void q4_1_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q4_1(in, out, n);
}
void q5_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q5_0(in, out, n);
}
void q5_1_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q5_1(in, out, n);
}
void f32_to_q8_0(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  kernels().to_q8_0(in, out, n, steps);
}
void f32_to_q4_0(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  kernels().to_q4_0(in, out, n, steps);
}

}  // namespace wtool
#endif
