#pragma once
#include <cstddef>
#include <cstdint>

#include "lib/base/dtype.h"

// The loops under health.h: bit patterns only, no arithmetic. Every instruction set gives the
// scalar reference's numbers.
namespace wtool {

// How the elements of a type are looked at.
struct Patterns {
  std::uint8_t bytes = 1;       // of an element: 1, 2, 4 or 8
  std::uint64_t magnitude = 0;  // the bits without the sign
  std::uint64_t normal = 1;  // magnitudes below are zero or subnormal; 1: there are no subnormals
  bool nan_for_minus_zero = false;          // of 8 bits: 0x80 is NaN, its magnitude 0xFF
};
// What one stretch of elements is like; stretches add up.
struct PatternCounts {
  std::uint64_t zeros = 0;         // magnitude 0
  std::uint64_t below_normal = 0;  // and these
  std::uint64_t largest = 0;       // magnitude
  std::uint64_t differing = 0;     // all patterns against `first`, xor-ed and or-ed
};
void count_patterns(const std::byte* in, std::size_t n, const Patterns& how, std::uint64_t first,
                    PatternCounts& counts) noexcept;

// ---- ggml's blocks: their scales alone

// What of a block type is looked at: where its scales lie, and the greatest magnitudes of what they
// are multiplied with.
struct BlockScales {
  enum class Form : std::uint8_t {
    Half,    // f16 d: values are d * code
    Offset,  // f16 d, m: d * code + m
    Minima,  // f16 d, dmin: d * scale * code - dmin * minimum, none of the codes negative
    Sum,     // f16 d, s: d * code; s is the sum of the values
    Single,  // f32 d
    Spread,  // an f16 in the top nibbles of four u16
    E8m0,    // one byte
    Ue4m3,   // four bytes
  };
  DType dtype;
  Form form;
  std::uint8_t first = 0, second = 0;  // byte positions in the block
  float most = 0, most_minimum = 0;    // of code, or scale * code; of minimum
};
const BlockScales* find_block_scales(DType type) noexcept;  // null: not a block type

struct ScaleCounts {
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  struct First {
    std::uint64_t block = kNone;  // counted from the first of the call
    std::uint32_t bits = 0;       // of the field
    std::uint16_t at = 0;         // its first byte in the block
    std::uint16_t bytes = 0;      // so many of `bits`
  };
  std::uint64_t not_finite = 0, too_large = 0;  // blocks; one is the one or the other
  std::uint64_t zeros = 0;                      // blocks whose scales make all values zero
  First first_bad, first_large;
};
// `in` holds n whole blocks, little-endian. Too large: some code could decode to more than 65504,
// the largest f16, which is what engines compute in.
void count_scales(const std::byte* in, std::size_t n, const BlockScales& how,
                  ScaleCounts& counts) noexcept;

}  // namespace wtool
