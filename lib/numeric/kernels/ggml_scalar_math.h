#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>

#include "lib/numeric/kernels/kernels.h"

// Small arithmetic of ggml's quantisers, in the reference's words of one value at a time.
namespace wtool::scalar {

// Truncated, as x86-64 converts: what does not fit (NaN too) becomes the least integer. The
// reference leaves it to C, which leaves it undefined; only scales with an infinite inverse get
// here.
inline int to_int(float v) noexcept {
  return v >= -0x1p31f && v < 0x1p31f ? static_cast<int>(v) : std::numeric_limits<int>::min();
}

// Half to even, if |v| < 2^22. Infinities give the least result, NaN 0.
inline int nearest_int(float v) noexcept {
  return static_cast<int>(std::bit_cast<std::uint32_t>(v + 0x1.8p23f) & 0x7FFFFF) - 0x400000;
}

inline float inverse_or_zero(float d) noexcept {
  return d != 0 ? 1 / d : 0;
}
inline float as_f16(float v) noexcept {
  return f16_value(f16_bits(v));
}
inline void put_f16(float v, std::byte* out) noexcept {
  const std::uint16_t h = f16_bits(v);
  std::memcpy(out, &h, 2);
}

// floor(log2f(a)) of a normal a: like the reference's, one too high for the few values below a
// power of two whose logarithm rounds up to it. 44 is ln 2 times 2^6.
inline int floor_log2f(float a) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(a);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  const auto beyond = static_cast<unsigned>(exponent < 0 ? ~exponent : exponent);
  const std::uint32_t to_next = 0x800000 - (bits & 0x7FFFFF);
  return exponent + (to_next <= 44u >> (7 - std::bit_width(beyond | 1)) ? 1 : 0);
}

// An unsigned float of four exponent bits (bias 7) and three of mantissa, at most 448. Rounding
// looks only at the next bit; what is below the normal numbers never rounds up to them.
inline unsigned ue4m3_bits(float v) noexcept {
  if (!(v > 0)) return 0;
  if (v >= 256) return 0x7E;
  if (v < 0x1p-6f) {
    const float above = v * 512 + 0.5f;
    return static_cast<unsigned>(std::min(7, static_cast<int>(above)));
  }
  const std::uint32_t bits = ((std::bit_cast<std::uint32_t>(v) + 0x80000) >> 20) - (120u << 3);
  return bits < 0x78 ? bits : 0x7E;
}
inline float ue4m3_value(unsigned bits) noexcept {
  if (bits < 8) return static_cast<float>(bits) * 0x1p-9f;
  return std::bit_cast<float>((bits << 20) + (120u << 23));
}

}  // namespace wtool::scalar
