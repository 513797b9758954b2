#pragma once
#include <cstdint>
#include <span>

#include "lib/base/bytes.h"
#include "lib/base/dtype.h"
#include "lib/numeric/drift.h"

namespace wtool {

// Integers with one scale for each `group` columns of a row: how compressed-tensors rounds to
// nearest. Symmetric: scale = amax / ((2^bits - 1) / 2). With zero points: the range of the group
// and 0, divided by 2^bits - 1, and zero = the code of the value 0. Scales are rounded to the type
// they are stored in before any code is chosen; code = the even-rounded w / scale + zero, clamped
// to the two's complement range before it is rounded.
struct IntGroups {
  unsigned bits = 8;         // 2 … 8
  std::uint64_t group = 0;   // columns that share a scale; 0: the whole row
  DType scale = DType::F32;  // F32, BF16 or F16
  bool packed = true;        // offset binary in 32-bit words, each row on its own; else plain i8
  bool zero_points = false;
  DType arithmetic = DType::F32;  // each operation is rounded to this: F32, BF16 or F16
};
// Bytes that the codes of one row (or of one row's piece) take.
std::uint64_t code_bytes(const IntGroups& how, std::uint64_t cols) noexcept;

// Scales that were chosen elsewhere, and zero points: as they will be read.
struct GroupChoices {
  std::span<const float> scales;
  std::span<const std::int8_t> zeros = {};
};
struct GroupOutputs {
  MutableBytes codes;                 // rows × code_bytes()
  MutableBytes scales;                // one for each group, little-endian
  std::span<std::int8_t> zeros = {};  // likewise, if there are zero points
};
// A box of rows × cols finite values, row by row. `cols` is a multiple of the group; where a row
// comes in several pieces, all but the last fill whole words. Adds to `drift` what a reader loses.
// Groups whose scale is beyond its type get the largest there is; their elements are counted in
// drift.overflows, the first one's index in the box in first_bad.
void quantize_groups(const IntGroups& how, std::uint64_t rows, std::uint64_t cols,
                     std::span<const float> in, const GroupOutputs& out, Drift& drift,
                     const GroupChoices* given = nullptr);
// The same in plain C++: what every instruction set must give, bytes and sums.
void quantize_groups_scalar(const IntGroups& how, std::uint64_t rows, std::uint64_t cols,
                            std::span<const float> in, const GroupOutputs& out, Drift& drift,
                            const GroupChoices* given = nullptr);

// Codes, one in each byte, to a little-endian stream of 32-bit words with `bits` (1 … 8) each; the
// last word is filled up with zeros.
void pack_codes(std::span<const std::uint8_t> codes, unsigned bits, std::byte* words) noexcept;
float largest_magnitude(std::span<const float> in) noexcept;  // 0 if there are none

// Field `index` of a little-endian stream of 32-bit words with `bits` (1 … 8) each.
unsigned packed_field(Bytes words, unsigned bits, std::uint64_t index) noexcept;
// Fields [first, first + out.size()) as signed codes (offset binary). The words must hold them.
void unpack_codes(Bytes words, unsigned bits, std::uint64_t first,
                  std::span<std::int8_t> out) noexcept;

}  // namespace wtool
