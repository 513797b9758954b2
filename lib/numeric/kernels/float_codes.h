#pragma once
#include <cstddef>
#include <cstdint>

namespace wtool {

// Floats of 8 or 4 bits as codes: E4M3 (no infinities) and E2M1.
enum class SmallFloat : std::uint8_t { E4m3, E2m1 };

// codes[i]: the level nearest to in[i] / scale, of two as near the even one, clamped to the last
// ones; one byte for each, E2M1 in its low half. The sign of what becomes 0 is kept. decoded[i] =
// level × scale. Finite values, a finite scale above 0.
void f32_to_codes(SmallFloat type, const float* in, std::size_t n, float scale, std::uint8_t* codes,
                  float* decoded) noexcept;
// The same in plain C++: what every instruction set must give.
void f32_to_codes_scalar(SmallFloat type, const float* in, std::size_t n, float scale,
                         std::uint8_t* codes, float* decoded) noexcept;

}  // namespace wtool
