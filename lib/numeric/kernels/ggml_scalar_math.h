#pragma once
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

}  // namespace wtool::scalar
