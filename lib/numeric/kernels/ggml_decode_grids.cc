// ggml's types IQ1, IQ2 and IQ3 to f32: eight or four neighbouring elements are a point of a
// codebook (ggml_codebooks.h), with signs or a common offset. ggml_decode_scalar.cc says plainly
// what each block holds.
#include <cstddef>
#include <utility>

#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/ggml_decode_grids.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/ggml_codebooks.h"
#include "lib/numeric/kernels/ggml_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

// Two points of eight, or four of four.
HWY_INLINE VB16 points(std::uint64_t low, std::uint64_t high) {
  const hn::CappedTag<std::uint64_t, 1> one;
  const hn::Repartition<std::uint64_t, B16> two;
  return hn::BitCast(kB16, hn::Combine(two, hn::Set(one, high), hn::Set(one, low)));
}
// Sixteen bits: where they are 1, minus.
HWY_INLINE void signed_points(VB16 v, const std::uint8_t* signs, float scale, float* out) {
  std::uint8_t readable[8] = {};  // as LoadMaskBits asks
  std::memcpy(readable, signs, 2);
  const auto minus = hn::LoadMaskBits(kB16, readable);
  const hn::RebindToSigned<B16> i8;
  const VB16 negative = hn::BitCast(kB16, hn::Neg(hn::BitCast(i8, v)));
  scale_16(hn::IfThenElse(minus, negative, v), hn::Set(kF, scale), out);
}

// Sixteen indices of more than 8 bits: what is above them comes as bytes of its own.
HWY_INLINE void join(VB16 low, VB16 high, std::uint16_t* out) {
  const hn::Repartition<std::uint16_t, B16> u16;
  hn::StoreU(hn::BitCast(u16, hn::InterleaveLower(kB16, low, high)), u16, out);
  hn::StoreU(hn::BitCast(u16, hn::InterleaveUpper(kB16, low, high)), u16, out + 8);
}

// Bits 0 to 6 of each lane, with the bit that makes their number even.
template <class V>
HWY_INLINE V even(V seven) {
  auto parity = hn::Xor(seven, hn::ShiftRight<4>(seven));
  parity = hn::Xor(parity, hn::ShiftRight<2>(parity));
  parity = hn::Xor(parity, hn::ShiftRight<1>(parity));
  return hn::Or(seven, hn::ShiftLeft<7>(parity));  // the caller drops what is above
}

// Words of 4 x 7 signs and a scale of 4 bits: `signs` gets 4 x 8 and `scale` d * (2 s + 1).
// kWords counts what may lie between them, too.
template <std::size_t kWords>
HWY_INLINE void unpack_words(const std::uint8_t* in, float d, std::uint8_t* signs, float* scale) {
  const hn::CappedTag<std::uint32_t, kWords> u;
  const hn::RebindToSigned<decltype(u)> i;
  const hn::RebindToFloat<decltype(u)> f;
#pragma GCC unroll 4
  for (std::size_t k = 0; k < kWords; k += hn::MaxLanes(u)) {
    const auto word = hn::LoadU(u, reinterpret_cast<const std::uint32_t*>(in) + k);
    const auto odd = hn::Or(hn::ShiftLeft<1>(hn::ShiftRight<28>(word)), hn::Set(u, 1));
    hn::StoreU(hn::Mul(hn::Set(f, d), hn::ConvertTo(f, hn::BitCast(i, odd))), f, scale + k);
    auto seven = hn::And(word, hn::Set(u, 0x7F));
    seven = hn::Or(seven, hn::And(hn::ShiftLeft<1>(word), hn::Set(u, 0x7F00)));
    seven = hn::Or(seven, hn::And(hn::ShiftLeft<2>(word), hn::Set(u, 0x7F0000)));
    seven = hn::Or(seven, hn::And(hn::ShiftLeft<3>(word), hn::Set(u, 0x7F000000)));
    auto parity = hn::Xor(seven, hn::And(hn::ShiftRight<4>(seven), hn::Set(u, 0x07070707)));
    parity = hn::Xor(parity, hn::ShiftRight<2>(parity));
    parity = hn::Xor(parity, hn::ShiftRight<1>(parity));
    const auto eighth = hn::ShiftLeft<7>(hn::And(parity, hn::Set(u, 0x01010101)));
    hn::StoreU(hn::Or(seven, eighth), u, reinterpret_cast<std::uint32_t*>(signs) + k);
  }
}

// Nibbles s, low ones first, as d * (2 s + 1).
template <std::size_t kNibbles>
HWY_INLINE void odd_scales(const std::uint8_t* in, float d, float* scale) {
  std::uint8_t codes[16];
  if constexpr (kNibbles == 8) {
    const std::uint64_t word = load<std::uint32_t>(in);
    std::uint64_t spread = (word | word << 16) & 0x0000FFFF0000FFFF;
    spread = (spread | spread << 8) & 0x00FF00FF00FF00FF;
    spread = (spread | spread << 4) & 0x0F0F0F0F0F0F0F0F;
    spread = spread << 1 | 0x0101010101010101;
    std::memcpy(codes, &spread, 8);
  } else {
    const hn::CappedTag<std::uint8_t, 8> d8;
    const auto both = hn::LoadU(d8, in);
    const auto low = hn::And(both, hn::Set(d8, 15)), high = hn::ShiftRight<4>(both);
    const auto all =
        hn::Combine(kB16, hn::InterleaveUpper(d8, low, high), hn::InterleaveLower(low, high));
    hn::StoreU(hn::Or(hn::Add(all, all), hn::Set(kB16, 1)), kB16, codes);
  }
  scales<kNibbles>(d, codes, scale);
}

struct Iq2Xxs {
  static constexpr std::size_t kBytes = 66;
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) std::uint8_t signs[64];  // every second word is one
    alignas(64) float scale[16];
    unpack_words<16>(in + 2, half_at(in) * 0.125f, signs, scale);
#pragma GCC unroll 8
    for (std::size_t g = 0; g < 8; ++g) {
      const auto index = load<std::uint32_t>(in + 2 + 8 * g);
      signed_points(points(kIq2XxsGrid[index & 255], kIq2XxsGrid[index >> 8 & 255]),
                    signs + 8 * g + 4, scale[2 * g + 1], out + 32 * g);
      signed_points(points(kIq2XxsGrid[index >> 16 & 255], kIq2XxsGrid[index >> 24]),
                    signs + 8 * g + 6, scale[2 * g + 1], out + 32 * g + 16);
    }
  }
};
struct Iq2Xs {
  static constexpr std::size_t kBytes = 74;
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) std::uint8_t signs[32];
    alignas(64) float scale[16];
    odd_scales<16>(in + 66, half_at(in) * 0.125f, scale);
    const hn::CappedTag<std::uint16_t, 16> u16;
    const hn::Rebind<std::uint8_t, decltype(u16)> u8;
#pragma GCC unroll 4
    for (std::size_t k = 0; k < 32; k += hn::MaxLanes(u16)) {
      const auto word = hn::LoadU(u16, reinterpret_cast<const std::uint16_t*>(in + 2) + k);
      const auto eight = hn::And(even(hn::ShiftRight<9>(word)), hn::Set(u16, 255));
      hn::StoreU(hn::DemoteTo(u8, hn::BitCast(hn::RebindToSigned<decltype(u16)>{}, eight)), u8,
                 signs + k);
    }
#pragma GCC unroll 4
    for (std::size_t g = 0; g < 16; ++g) {
      const auto index = load<std::uint32_t>(in + 2 + 4 * g);
      signed_points(points(kIq2XsGrid[index & 511], kIq2XsGrid[index >> 16 & 511]), signs + 2 * g,
                    scale[g], out + 16 * g);
    }
  }
};
struct Iq2S {
  static constexpr std::size_t kBytes = 82;
  // A byte of qh has two more bits of four indices.
  static HWY_INLINE void indices(const std::uint8_t* in, std::uint16_t* out) {
    const hn::Repartition<std::uint16_t, B16> u16;
    const hn::CappedTag<std::uint8_t, 8> half;
    const VB16 high = hn::ZeroExtendVector(kB16, hn::LoadU(half, in + 64)), mask = hn::Set(kB16, 3);
    const auto even = hn::BitCast(u16, hn::InterleaveLower(kB16, hn::And(high, mask),
                                                           hn::And(hn::ShiftRight<2>(high), mask)));
    const auto odd = hn::BitCast(
        u16,
        hn::InterleaveLower(kB16, hn::And(hn::ShiftRight<4>(high), mask), hn::ShiftRight<6>(high)));
    join(hn::LoadU(kB16, in), hn::BitCast(kB16, hn::InterleaveLower(u16, even, odd)), out);
    join(hn::LoadU(kB16, in + 16), hn::BitCast(kB16, hn::InterleaveUpper(u16, even, odd)),
         out + 16);
  }
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) float scale[16];
    alignas(64) std::uint16_t index[32];
    odd_scales<16>(in + 74, half_at(in) * 0.125f, scale);
    indices(in + 2, index);
#pragma GCC unroll 4
    for (std::size_t g = 0; g < 16; ++g)
      signed_points(points(kIq2SGrid[index[2 * g]], kIq2SGrid[index[2 * g + 1]]), in + 34 + 2 * g,
                    scale[g], out + 16 * g);
  }
};

// Four points of four.
template <std::size_t kPoints>
HWY_INLINE VB16 points(const std::array<std::uint32_t, kPoints>& grid, unsigned a, unsigned b,
                       unsigned c, unsigned d) {
  return points(grid[a] | std::uint64_t{grid[b]} << 32, grid[c] | std::uint64_t{grid[d]} << 32);
}
struct Iq3Xxs {
  static constexpr std::size_t kBytes = 98;
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) std::uint8_t signs[32];
    alignas(64) float scale[8];
    unpack_words<8>(in + 66, half_at(in) * 0.25f, signs, scale);
#pragma GCC unroll 4
    for (std::size_t g = 0; g < 16; ++g) {
      const auto index = load<std::uint32_t>(in + 2 + 4 * g);
      signed_points(
          points(kIq3XxsGrid, index & 255, index >> 8 & 255, index >> 16 & 255, index >> 24),
          signs + 2 * g, scale[g / 2], out + 16 * g);
    }
  }
};
struct Iq3S {
  static constexpr std::size_t kBytes = 110;
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) float scale[8];
    alignas(64) std::uint16_t index[64];
    odd_scales<8>(in + 106, half_at(in), scale);
#pragma GCC unroll 4
    for (std::size_t k = 0; k < 64; k += 16) {
      const auto high = hn::LoadMaskBits(kB16, in + 66 + k / 8);
      join(hn::LoadU(kB16, in + 2 + k), hn::IfThenElseZero(high, hn::Set(kB16, 1)), index + k);
    }
#pragma GCC unroll 4
    for (std::size_t g = 0; g < 16; ++g) {
      const std::uint16_t* at = index + 4 * g;
      signed_points(points(kIq3SGrid, at[0], at[1], at[2], at[3]), in + 74 + 2 * g, scale[g / 2],
                    out + 16 * g);
    }
  }
};

// By what sixteen elements are off the grid, from a bit for each eight.
alignas(64) constexpr float kDeltas[4][16] = {
#define WTOOL_EIGHT(x) x, x, x, x, x, x, x, x
    {WTOOL_EIGHT(0.125f), WTOOL_EIGHT(0.125f)},
    {WTOOL_EIGHT(-0.125f), WTOOL_EIGHT(0.125f)},
    {WTOOL_EIGHT(0.125f), WTOOL_EIGHT(-0.125f)},
    {WTOOL_EIGHT(-0.125f), WTOOL_EIGHT(-0.125f)},
#undef WTOOL_EIGHT
};
template <class D>
HWY_INLINE void shift_codes(D d, hn::Vec<D> codes, const float* delta, VF scale, float* out) {
  if constexpr (hn::MaxLanes(d) == kLanes) {
    const VF value = hn::Add(hn::ConvertTo(kF, hn::PromoteTo(kI, codes)), hn::Load(kF, delta));
    hn::StoreU(hn::Mul(scale, value), kF, out);
  } else {
    const hn::Half<D> half;
    constexpr std::size_t kHalf = hn::MaxLanes(half);
    shift_codes(half, hn::LowerHalf(half, codes), delta, scale, out);
    shift_codes(half, hn::UpperHalf(half, codes), delta + kHalf, scale, out + kHalf);
  }
}
HWY_INLINE void shifted_points(unsigned a, unsigned b, unsigned off, float scale, float* out) {
  const hn::RebindToSigned<B16> d;
  shift_codes(d, hn::BitCast(d, points(kIq1SGrid[a], kIq1SGrid[b])), kDeltas[off],
              hn::Set(kF, scale), out);
}

struct Iq1S {
  static constexpr std::size_t kBytes = 50;
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    const float d = half_at(in);
#pragma GCC unroll 2
    for (std::size_t g = 0; g < 8; ++g) {
      const std::uint8_t* low = in + 2 + 4 * g;
      const unsigned word = load<std::uint16_t>(in + 34 + 2 * g), off = word >> 15 != 0 ? 3 : 0;
      const float scale = d * static_cast<float>(static_cast<int>((word >> 11 & 14) | 1));
      shifted_points(low[0] | (word & 7) << 8, low[1] | (word & 0x38) << 5, off, scale,
                     out + 32 * g);
      shifted_points(low[2] | (word & 0x1C0) << 2, low[3] | (word >> 1 & 0x700), off, scale,
                     out + 32 * g + 16);
    }
  }
};
struct Iq1M {
  static constexpr std::size_t kBytes = 56;
  // Four scales of three bits in each 16.
  static HWY_INLINE void unpack_scales(const std::uint8_t* in, float d, float* scale) {
    const hn::CappedTag<std::uint32_t, 4> u32;
    const hn::Rebind<std::uint16_t, decltype(u32)> u16;
    const auto word =
        hn::PromoteTo(u32, hn::LoadU(u16, reinterpret_cast<const std::uint16_t*>(in)));
    auto code = hn::And(hn::ShiftLeft<1>(word), hn::Set(u32, 0xE));
    code = hn::Or(code, hn::And(hn::ShiftLeft<6>(word), hn::Set(u32, 0xE00)));
    code = hn::Or(code, hn::And(hn::ShiftLeft<11>(word), hn::Set(u32, 0xE0000)));
    code = hn::Or(code, hn::And(hn::ShiftLeft<16>(word), hn::Set(u32, 0xE000000)));
    alignas(16) std::uint8_t codes[16];
    hn::StoreU(hn::Or(hn::BitCast(kB16, code), hn::Set(kB16, 1)), kB16, codes);
    scales<16>(d, codes, scale);
  }
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) float scale[16];
    alignas(64) std::uint16_t index[32];
    const auto words = load<std::uint64_t>(in + 48);
    unpack_scales(in + 48,
                  half(static_cast<std::uint16_t>((words >> 12 & 0xF) | (words >> 24 & 0xF0) |
                                                  (words >> 36 & 0xF00) | (words >> 48 & 0xF000))),
                  scale);
    const VB16 high = hn::LoadU(kB16, in + 32), mask = hn::Set(kB16, 7);
    const VB16 even = hn::And(high, mask), odd = hn::And(hn::ShiftRight<4>(high), mask);
    join(hn::LoadU(kB16, in), hn::InterleaveLower(kB16, even, odd), index);
    join(hn::LoadU(kB16, in + 16), hn::InterleaveUpper(kB16, even, odd), index + 16);
#pragma GCC unroll 4
    for (std::size_t g = 0; g < 16; ++g) {
      const unsigned nibbles = in[32 + g];
      shifted_points(index[2 * g], index[2 * g + 1], (nibbles >> 3 & 1) | (nibbles >> 6 & 2),
                     scale[g], out + 16 * g);
    }
  }
};

template <class Type>
void each(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; i += 256, in += Type::kBytes)
    Type::decode(reinterpret_cast<const std::uint8_t*>(in), out + i);
}

}  // namespace

constexpr GgmlGridDecoders kGgmlGridDecoders{each<Iq1S>, each<Iq1M>,   each<Iq2Xxs>, each<Iq2Xs>,
                                             each<Iq2S>, each<Iq3Xxs>, each<Iq3S>};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {
const GgmlGridDecoders& kernels() noexcept {
  return WTOOL_CHOOSE(scalar::kGgmlGridDecoders, kGgmlGridDecoders);
}
}  // namespace

void iq1_s_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().iq1_s(in, out, n);
}
void iq1_m_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().iq1_m(in, out, n);
}
void iq2_xxs_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().iq2_xxs(in, out, n);
}
void iq2_xs_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().iq2_xs(in, out, n);
}
void iq2_s_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().iq2_s(in, out, n);
}
void iq3_xxs_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().iq3_xxs(in, out, n);
}
void iq3_s_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().iq3_s(in, out, n);
}

}  // namespace wtool
#endif
