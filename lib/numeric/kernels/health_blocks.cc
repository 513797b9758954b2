// The scales of ggml's blocks. One or two fields of each block are looked at and its codes are
// not: this costs less than reading the bytes, so there is no vector form.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "lib/numeric/kernels/ggml_decode.h"
#include "lib/numeric/kernels/health.h"

namespace wtool {
namespace {

using Form = BlockScales::Form;

// Positions: ggml-common.h. The greatest factors follow from the formulas of ggml_decode_scalar.cc.
constexpr std::array kScales{
    BlockScales{DType::Q1_0, Form::Half, 0, 0, 1},               // ±d
    BlockScales{DType::Q2_0, Form::Half, 0, 0, 2},               // codes -1 … 2
    BlockScales{DType::Q4_0, Form::Half, 0, 0, 8},               // -8 … 7
    BlockScales{DType::Q4_1, Form::Offset, 0, 2, 15},            // 0 … 15
    BlockScales{DType::Q5_0, Form::Half, 0, 0, 16},              // -16 … 15
    BlockScales{DType::Q5_1, Form::Offset, 0, 2, 31},            // 0 … 31
    BlockScales{DType::Q8_0, Form::Half, 0, 0, 128},             // -128 … 127
    BlockScales{DType::Q8_1, Form::Sum, 0, 2, 128},              // likewise
    BlockScales{DType::Q8_K, Form::Single, 0, 0, 128},           // likewise
    BlockScales{DType::Q2_K, Form::Minima, 80, 82, 15 * 3, 15},  // 4 bits of scale, 2 of code
    BlockScales{DType::Q3_K, Form::Half, 108, 0, 32 * 4},       // scales -32 … 31, codes -4 … 3
    BlockScales{DType::Q4_K, Form::Minima, 0, 2, 63 * 15, 63},  // 6 bits of scale, 4 of code
    BlockScales{DType::Q5_K, Form::Minima, 0, 2, 63 * 31, 63},  // 6 and 5
    BlockScales{DType::Q6_K, Form::Half, 208, 0, 128 * 32},     // scales -128 …, codes -32 … 31
    BlockScales{DType::IQ1_S, Form::Half, 0, 0, 15 * 1.125f},   // scales 1, 3, … 15; ±1 ± 1/8
    BlockScales{DType::IQ1_M, Form::Spread, 48, 0, 15 * 1.125f},    // likewise
    BlockScales{DType::IQ2_XXS, Form::Half, 0, 0, 15.5f / 4 * 43},  // (scale + 1/2) / 4, up to 43
    BlockScales{DType::IQ2_XS, Form::Half, 0, 0, 15.5f / 4 * 43},
    BlockScales{DType::IQ2_S, Form::Half, 0, 0, 15.5f / 4 * 43},
    BlockScales{DType::IQ3_XXS, Form::Half, 0, 0, 15.5f / 2 * 62},  // (scale + 1/2) / 2, up to 62
    BlockScales{DType::IQ3_S, Form::Half, 0, 0, 31 * 15},           // scales 1, 3, … 31; up to 15
    BlockScales{DType::IQ4_NL, Form::Half, 0, 0, 127},              // the table's -127
    BlockScales{DType::IQ4_XS, Form::Half, 0, 0, 32 * 127},         // scales -32 … 31
    BlockScales{DType::TQ1_0, Form::Half, 52, 0, 1},                // -1, 0, 1
    BlockScales{DType::TQ2_0, Form::Half, 64, 0, 2},                // two bits: -1 … 2
    BlockScales{DType::MXFP4, Form::E8m0, 0, 0, 12},                // of half the scale
    BlockScales{DType::NVFP4, Form::Ue4m3, 0, 0, 12},               // likewise
};

constexpr float kLargest = 65504;  // f16
constexpr std::uint16_t kHalfInfinity = 0x7C00;

// Patterns up to this one are fine whatever else the block holds: half of what is allowed, because
// there may be two of them.
std::uint16_t harmless(float most) noexcept {
  std::uint16_t low = 0, high = kHalfInfinity;
  while (high - low > 1) {
    const auto middle = static_cast<std::uint16_t>(low + (high - low) / 2);
    (f16_inline(middle) * most <= kLargest / 2 ? low : high) = middle;
  }
  return low;
}

// The largest magnitude that some codes give.
float reach(const BlockScales& how, float one, float two) noexcept {
  const float a = std::abs(one * how.most), b = std::abs(two * how.most_minimum);
  if (how.form == Form::Offset) return std::max(std::abs(two), std::abs(one * how.most + two));
  if (how.form == Form::Minima)
    return std::signbit(one) == std::signbit(two) ? std::max(a, b) : a + b;
  return a;
}

void add(ScaleCounts& counts, std::uint64_t block, std::uint32_t bits, std::size_t at,
         std::size_t bytes, bool bad) noexcept {
  ++(bad ? counts.not_finite : counts.too_large);
  ScaleCounts::First& first = bad ? counts.first_bad : counts.first_large;
  if (first.block != ScaleCounts::kNone) return;
  first = {block, bits, static_cast<std::uint16_t>(at), static_cast<std::uint16_t>(bytes)};
}

// One field; where there are two, `second` is the other.
template <bool kTwo>
void halves(const std::uint8_t* in, std::size_t n, std::size_t stride, const BlockScales& how,
            ScaleCounts& counts) noexcept {
  const bool sum = how.form == Form::Sum, offset = how.form == Form::Offset;
  const std::uint16_t fine = harmless(how.most);
  const std::uint16_t fine_too = kTwo ? harmless(offset ? 1 : how.most_minimum) : 0;
  const std::uint8_t *one = in + how.first, *two = in + how.second;
  for (std::size_t i = 0; i < n; ++i, one += stride, two += stride) {
    const unsigned x = load<std::uint16_t>(one), a = x & 0x7FFF;
    const unsigned y = kTwo ? load<std::uint16_t>(two) : 0, b = y & 0x7FFF;
    counts.zeros += (sum ? a : a | b) == 0;
    if (a <= fine && (!kTwo || b <= fine_too)) continue;
    if (a >= kHalfInfinity)
      add(counts, i, x, how.first, 2, true);
    else if (kTwo && b >= kHalfInfinity)
      add(counts, i, y, how.second, 2, true);
    else if (const float d = f16_inline(static_cast<std::uint16_t>(x)),
             m = f16_inline(static_cast<std::uint16_t>(y));
             reach(how, d, m) > kLargest) {
      const bool first = std::abs(d * how.most) > kLargest || !kTwo;
      add(counts, i, first ? x : y, first ? how.first : how.second, 2, false);
    }
  }
}

void singles(const std::uint8_t* in, std::size_t n, std::size_t stride, const BlockScales& how,
             ScaleCounts& counts) noexcept {
  for (std::size_t i = 0; i < n; ++i, in += stride) {
    const auto d = load<float>(in + how.first);
    counts.zeros += d == 0;
    if (std::abs(d) * how.most <= kLargest) continue;
    add(counts, i, std::bit_cast<std::uint32_t>(d), how.first, 4, !std::isfinite(d));
  }
}

void spread(const std::uint8_t* in, std::size_t n, std::size_t stride, const BlockScales& how,
            ScaleCounts& counts) noexcept {
  for (std::size_t i = 0; i < n; ++i, in += stride) {
    const auto words = load<std::uint64_t>(in + how.first);
    const unsigned x =
        (words >> 12 & 0xF) | (words >> 24 & 0xF0) | (words >> 36 & 0xF00) | (words >> 48 & 0xF000);
    const unsigned a = x & 0x7FFF;
    counts.zeros += a == 0;
    if (a >= kHalfInfinity)
      add(counts, i, x, how.first, 2, true);
    else if (f16_inline(static_cast<std::uint16_t>(a)) * how.most > kLargest)
      add(counts, i, x, how.first, 2, false);
  }
}

// FP4 codes that are ±0 wherever the scale is not.
bool all_zero(const std::uint8_t* codes, std::size_t bytes) noexcept {
  std::uint64_t any = 0;
  for (std::size_t i = 0; i < bytes; i += 8) any |= load<std::uint64_t>(codes + i);
  return (any & 0x7777777777777777) == 0;
}

// 255 is NaN by the format's definition; ggml's loop decodes it to 2^128 and its check refuses it.
void powers_of_two(const std::uint8_t* in, std::size_t n, std::size_t stride,
                   const BlockScales& how, ScaleCounts& counts) noexcept {
  for (std::size_t i = 0; i < n; ++i, in += stride) {
    const std::uint8_t e = in[how.first];
    counts.zeros += all_zero(in + 1, 16);
    if (e == 0xFF)
      add(counts, i, e, how.first, 1, true);
    else if (half_e8m0(e) * how.most > kLargest)
      add(counts, i, e, how.first, 1, false);
  }
}

// 0x7F is NaN in E4M3, and 0 to ggml; the sign bit means nothing. None is too large: 448 * 6.
void four_scales(const std::uint8_t* in, std::size_t n, std::size_t stride, const BlockScales& how,
                 ScaleCounts& counts) noexcept {
  constexpr std::uint32_t kNan = 0x7F7F7F7F;
  for (std::size_t i = 0; i < n; ++i, in += stride) {
    const std::uint32_t all = load<std::uint32_t>(in + how.first) & kNan;
    counts.zeros += all == 0 || all_zero(in + 4, 32);
    if (((all + 0x01010101) & 0x80808080) == 0) continue;
    std::size_t at = 0;
    while ((in[how.first + at] & 0x7F) != 0x7F) ++at;
    add(counts, i, in[how.first + at], how.first + at, 1, true);
  }
}

}  // namespace

const BlockScales* find_block_scales(DType type) noexcept {
  const auto it = std::ranges::find(kScales, type, &BlockScales::dtype);
  return it != kScales.end() ? it : nullptr;
}

void count_scales(const std::byte* bytes, std::size_t n, const BlockScales& how,
                  ScaleCounts& counts) noexcept {
  const auto* in = reinterpret_cast<const std::uint8_t*>(bytes);
  const std::size_t stride = info(how.dtype).block_bytes;
  switch (how.form) {
    case Form::Half: return halves<false>(in, n, stride, how, counts);
    case Form::Offset:
    case Form::Minima:
    case Form::Sum: return halves<true>(in, n, stride, how, counts);
    case Form::Single: return singles(in, n, stride, how, counts);
    case Form::Spread: return spread(in, n, stride, how, counts);
    case Form::E8m0: return powers_of_two(in, n, stride, how, counts);
    case Form::Ue4m3: return four_scales(in, n, stride, how, counts);
  }
}

}  // namespace wtool
