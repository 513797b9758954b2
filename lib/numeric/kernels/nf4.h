#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace wtool {

// NF4: sixteen quantiles of the normal distribution, and a scale for each block of 64 values.
inline constexpr std::size_t kNf4Block = 64;
inline constexpr unsigned kNf4Zero = 7;  // the code that means zero
inline constexpr std::array<float, 16> kNf4Levels{
    -1.0f,          -0.696192801f, -0.525073051f, -0.394917488f, -0.284441382f, -0.18477343f,
    -0.0910500363f, 0.0f,          0.0795802996f, 0.160930201f,  0.246112302f,  0.337915242f,
    0.440709829f,   0.562617004f,  0.722956836f,  1.0f};

// Of finite values; the last of the blocks may be short. scales[b] is that of block b.
// The largest magnitude of each block.
void nf4_absmax(const float* in, std::size_t n, float* scales) noexcept;
// The code of each value, a byte each: the level nearest to value × (1 / scale), by the middles
// between levels, a middle itself to the lower one. A scale of 0 makes all of its block zero.
void nf4_codes(const float* in, std::size_t n, const float* scales, std::uint8_t* out) noexcept;
// The sums of weight × value × level and weight × level² over one block of at most 64 values, with
// the levels that nf4_codes() gives: all that a fit of the scale needs. Null: all weights are 1.
struct Nf4Fit {
  float cross, square;
};
Nf4Fit nf4_fit(const float* in, std::size_t n, float scale,
               const float* weights = nullptr) noexcept;

}  // namespace wtool
