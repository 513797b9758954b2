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
constexpr std::uint32_t kMagnitude = 0x7FFFFFFF, kInfinity = 0x7F800000;

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

inline void write_empty(std::byte* out, std::size_t bytes, float* step) {
  std::memset(out, 0, bytes);
  *step = std::numeric_limits<float>::quiet_NaN();
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

// The largest magnitude of a block, as bits.
HWY_INLINE std::uint32_t largest(const float* in) {
  VI most = hn::Zero(kI);
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kBlock; i += kLanes)
    most = hn::Max(most, hn::And(hn::BitCast(kI, hn::LoadU(kF, in + i)),
                                 hn::Set(kI, static_cast<int>(kMagnitude))));
  return static_cast<std::uint32_t>(hn::GetLane(hn::MaxOfLanes(kI, most)));
}

void f32_to_q8_0(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  const VF sign = hn::Set(kF, -0.0f);
  // Just below 1/2, so that adding it and truncating rounds half away from zero, and only halves.
  const VF half = hn::Set(kF, 0x1.fffffep-2f);
  for (std::size_t b = 0; b < n / kBlock; ++b, in += kBlock, out += 34) {
    const std::uint32_t most = largest(in);
    if (HWY_UNLIKELY(most >= kInfinity)) {
      write_empty(out, 34, steps + b);
      continue;
    }
    const Scale scale(std::bit_cast<float>(most) / 127);
    steps[b] = scale.step;
    std::memcpy(out, &scale.stored, 2);
    const VF inverse = hn::Set(kF, scale.degenerate() ? 0 : scale.inverse);
    auto* codes = reinterpret_cast<std::int8_t*>(out + 2);
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kBlock; i += kLanes) {
      const VF v = hn::Mul(hn::LoadU(kF, in + i), inverse);
      const VF away = hn::Add(v, hn::Or(hn::And(v, sign), half));
      hn::StoreU(hn::DemoteTo(kI8, hn::ConvertTo(kI, away)), kI8, codes + i);
    }
  }
}

// The value of the first element of that magnitude.
HWY_INLINE float first_of_magnitude(const float* in, std::uint32_t magnitude) {
  if (magnitude == 0) return 0;
  const VI wanted = hn::Set(kI, static_cast<int>(magnitude));
  for (std::size_t i = 0; i < kBlock; i += kLanes) {
    const VI a =
        hn::And(hn::BitCast(kI, hn::LoadU(kF, in + i)), hn::Set(kI, static_cast<int>(kMagnitude)));
    const std::intptr_t at = hn::FindFirstTrue(kI, hn::Eq(a, wanted));
    if (at >= 0) return in[i + static_cast<std::size_t>(at)];
  }
  return 0;
}

void f32_to_q4_0(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  const VI most_code = hn::Set(kI, 15);
  for (std::size_t b = 0; b < n / kBlock; ++b, in += kBlock, out += 18) {
    const std::uint32_t most = largest(in);
    if (HWY_UNLIKELY(most >= kInfinity)) {
      write_empty(out, 18, steps + b);
      continue;
    }
    const Scale scale(first_of_magnitude(in, most) / -8);
    steps[b] = scale.step;
    std::memcpy(out, &scale.stored, 2);
    const VF inverse = hn::Set(kF, scale.degenerate() ? 0 : scale.inverse);
    const VF zero = hn::Set(kF, scale.degenerate() ? 0 : 8.5f);
    auto* codes = reinterpret_cast<std::uint8_t*>(out + 2);
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 16; i += kLanes) {
      const VF x = hn::Add(hn::Mul(hn::LoadU(kF, in + i), inverse), zero);
      const VF y = hn::Add(hn::Mul(hn::LoadU(kF, in + 16 + i), inverse), zero);
      const VI low = hn::Min(hn::ConvertTo(kI, x), most_code);
      const VI high = hn::Min(hn::ConvertTo(kI, y), most_code);
      hn::StoreU(hn::DemoteTo(kU8, hn::Or(low, hn::ShiftLeft<4>(high))), kU8, codes + i);
    }
  }
}

}  // namespace

constexpr BlockKernels kBlocks{&q8_0_to_f32,
                               &nibbles_to_f32<false, false>,
                               &nibbles_to_f32<false, true>,
                               &nibbles_to_f32<true, false>,
                               &nibbles_to_f32<true, true>,
                               &f32_to_q8_0,
                               &f32_to_q4_0};

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

std::uint32_t magnitude(float x) noexcept {
  return std::bit_cast<std::uint32_t>(x) & kMagnitude;
}
// The first of the largest magnitude (a NaN, if there is one); +0 for a block of zeros.
float largest(const float* in) noexcept {
  float most = 0;
  for (std::size_t i = 0; i < kBlock; ++i)
    if (magnitude(in[i]) > magnitude(most)) most = in[i];
  return most;
}

void f32_to_q8_0(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  for (std::size_t b = 0; b < n / kBlock; ++b, in += kBlock, out += 34) {
    const float most = largest(in);
    if (!std::isfinite(most)) {
      write_empty(out, 34, steps + b);
      continue;
    }
    const Scale scale(std::abs(most) / 127);
    steps[b] = scale.step;
    std::memcpy(out, &scale.stored, 2);
    for (std::size_t i = 0; i < kBlock; ++i) {
      const float code = scale.degenerate() ? 0 : std::round(in[i] * scale.inverse);
      out[2 + i] = static_cast<std::byte>(static_cast<int>(code));
    }
  }
}

void f32_to_q4_0(const float* in, std::byte* out, std::size_t n, float* steps) noexcept {
  for (std::size_t b = 0; b < n / kBlock; ++b, in += kBlock, out += 18) {
    const float most = largest(in);
    if (!std::isfinite(most)) {
      write_empty(out, 18, steps + b);
      continue;
    }
    const Scale scale(most / -8);
    steps[b] = scale.step;
    std::memcpy(out, &scale.stored, 2);
    const auto code = [&](float x) {
      if (scale.degenerate()) return 0u;
      return std::min(15u, static_cast<unsigned>(x * scale.inverse + 8.5f));
    };
    for (std::size_t i = 0; i < 16; ++i)
      out[2 + i] = static_cast<std::byte>(code(in[i]) | code(in[16 + i]) << 4);
  }
}

constexpr BlockKernels kBlocks{&q8_0_to_f32,
                               &nibbles_to_f32<false, false>,
                               &nibbles_to_f32<false, true>,
                               &nibbles_to_f32<true, false>,
                               &nibbles_to_f32<true, true>,
                               &f32_to_q8_0,
                               &f32_to_q4_0};

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
