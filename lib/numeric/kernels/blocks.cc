// ggml's types of 32 elements a block (ggml-quants.c gives the arithmetic): q8_0 is {f16 d, i8
// q[32]}; the others are {f16 d, [f16 m], [u32 fifth bits], u8 q[16]}, byte j holding element j in
// its low nibble and element j + 16 in its high one.
#include <cmath>
#include <cstring>

#include "lib/numeric/kernels/ggml_decode.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/blocks.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/vectors-inl.h"

#ifndef WTOOL_BLOCKS_ONCE
#define WTOOL_BLOCKS_ONCE
namespace wtool {
namespace {

using Decode = void (*)(const std::byte*, float*, std::size_t) noexcept;
struct BlockKernels {
  Decode q8_0, q4_0, q4_1, q5_0, q5_1;
};

constexpr std::size_t kBlock = 32;

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
    return f16_inline(h);
  }
};

}  // namespace
}  // namespace wtool
#endif

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

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

}  // namespace

constexpr BlockKernels kBlocks{&q8_0_to_f32, &nibbles_to_f32<false, false>,
                               &nibbles_to_f32<false, true>, &nibbles_to_f32<true, false>,
                               &nibbles_to_f32<true, true>};

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

constexpr BlockKernels kBlocks{&q8_0_to_f32, &nibbles_to_f32<false, false>,
                               &nibbles_to_f32<false, true>, &nibbles_to_f32<true, false>,
                               &nibbles_to_f32<true, true>};

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

}  // namespace wtool
#endif
