#pragma once
#include <cstdint>
#include <span>

#include "lib/base/dtype.h"

// Scales, and zero points, that lose less than those of rounding to nearest.
//
// The measure is the sum over a group of importance × (decoded - x)². decoded = scale × q, and q
// is the nearest level to x / scale: an integer from -z to 2^bits - 1 - z (z = 2^(bits-1) without
// zero points), or an E4M3 or E2M1 number. Of two levels as near, the even one, which changes the
// measure by nothing. Scales are measured as they are stored.
namespace wtool {

struct GroupSearch {
  enum class Levels : std::uint8_t { Integers, E4m3, E2m1 } levels = Levels::Integers;
  unsigned bits = 4;  // 2 … 8, for integers
  bool zero_points = false;
  bool either_sign = false;   // integers without zero points: the scale may be negative
  std::uint64_t group = 0;    // columns that share a scale; 0: the whole row
  DType scale = DType::BF16;  // F32, BF16, F16; for E2m1 also F8_E4M3, F8_E8M0
  float global = 1;           // what readers divide a stored scale by (NVFP4)
  // False: a few trials, a least-squares fit and the storable scales around it. True: the least
  // measure of all storable positive scales (and their negatives, and all zero points), in double;
  // for floats as levels in float, and there is no such promise for an F32 scale (Unsupported).
  bool optimal = false;
};

// For a box of rows × cols finite values, row by row, cols a multiple of the group: a scale for
// each group as a reader will see it (before `global`), and a zero point z - 2^(bits-1), if there
// are any. importance: empty, or one for each column, finite and not negative; where a whole group
// has none, its values count alike.
//
// Never worse than rounding to nearest, amax / ((2^bits - 1) / 2) and the like, whose scale is kept
// unless another one wins by more than the rounding of the sums (one in 4096). A group of zeros
// gets the machine epsilon of the scale's type, as in compressed-tensors, and z = 2^(bits-1).
// Where values are so small that the type has only zero for that scale, the search starts from the
// least scale there is. Scales beyond the type become its largest.
void choose_scales(const GroupSearch& how, std::uint64_t rows, std::uint64_t cols,
                   std::span<const float> in, std::span<const float> importance,
                   std::span<float> scales, std::span<std::int8_t> zeros = {});
// The same in plain C++: what every instruction set must give.
void choose_scales_scalar(const GroupSearch& how, std::uint64_t rows, std::uint64_t cols,
                          std::span<const float> in, std::span<const float> importance,
                          std::span<float> scales, std::span<std::int8_t> zeros = {});

// Integer codes by given scales: clamp(x / scale, -z, 2^bits - 1 - z), rounded half to even, plus
// the zero point. Without zero points pass none.
void code_groups(const GroupSearch& how, std::uint64_t rows, std::uint64_t cols,
                 std::span<const float> in, std::span<const float> scales,
                 std::span<const std::int8_t> zeros, std::span<std::int8_t> codes);

}  // namespace wtool
