#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

// What the files of ggml's decoders share. A block's elements come in groups, each with a scale;
// every value is scale * code, or scale * code - minimum, in float32.
namespace wtool {

using DecodeBlocks = void (*)(const std::byte* in, float* out, std::size_t n) noexcept;

struct GgmlDecoders {
  DecodeBlocks q1_0, q2_0, q2_k, q3_k, q4_k, q5_k, q6_k, q8_1, q8_k;
  DecodeBlocks iq4_nl, iq4_xs, mxfp4, nvfp4, tq1_0, tq2_0;
};
struct GgmlGridDecoders {
  DecodeBlocks iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s;
};

// ggml_decode_scalar.cc: the reference, element by element.
namespace scalar {
extern const GgmlDecoders kGgmlDecoders;
extern const GgmlGridDecoders kGgmlGridDecoders;
}  // namespace scalar

template <class T>
T load(const std::uint8_t* p) noexcept {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// f16_value() of kernels.h, for loops that do nothing else for long.
inline float f16_inline(std::uint16_t h) noexcept {
  const std::uint32_t a = h & 0x7FFFu;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(std::bit_cast<float>(a << 13) * 0x1p112f);
  if (a > 0x7BFF) bits |= 0x7F800000;
  if (a > 0x7C00) bits |= 0x00400000;
  return std::bit_cast<float>(bits | (h & 0x8000u) << 16);
}

// Half of an e8m0 scale, 2^(e - 128): the codes are twice their values. 255 is no NaN here.
inline float half_e8m0(std::uint8_t e) noexcept {
  const std::uint32_t small = 0x00200000u << e % 2, normal = (e - 1u) << 23;
  return std::bit_cast<float>(e < 2 ? small : normal);
}

// Half of a ue4m3 scale (bias 7). The sign bit is not looked at, but that 0xFF is no NaN.
inline float half_ue4m3(std::uint8_t code) noexcept {
  if (code == 0x7F) return 0;
  const unsigned exponent = code >> 3 & 15, fraction = code & 7u;
  if (exponent == 0) return static_cast<float>(fraction) * 0x1p-10f;
  return std::bit_cast<float>((exponent + 119) << 23 | fraction << 20);
}

// Of the 128 patterns of eight signs that IQ2 and IQ3 use, the eighth bit makes their number even.
inline std::uint8_t even_signs(unsigned seven) noexcept {
  return static_cast<std::uint8_t>(seven | (std::popcount(seven) & 1u) << 7);
}

}  // namespace wtool
