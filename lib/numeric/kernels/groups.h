#pragma once
#include <cstdint>
#include <span>

#include "lib/base/bytes.h"
#include "lib/base/dtype.h"
#include "lib/numeric/drift.h"

namespace wtool {

// Symmetric integers with one scale for each `group` columns of a row: how compressed-tensors
// rounds to nearest. scale = amax / ((2^bits - 1) / 2), rounded to the type it is stored in before
// any code is chosen; code = the even-rounded w / scale, clamped to the two's complement range.
struct IntGroups {
  unsigned bits = 8;         // 8 or 4
  std::uint64_t group = 0;   // columns that share a scale
  DType scale = DType::F32;  // F32, BF16 or F16
  bool packed = true;        // offset binary in 32-bit words, each row on its own; else plain i8
};
// Bytes that the codes of one row (or of one row's piece) take.
std::uint64_t code_bytes(const IntGroups& how, std::uint64_t cols) noexcept;

// A box of rows × cols finite values, row by row. `cols` is a multiple of the group; where a row
// comes in several pieces, all but the last fill whole words. Fills `codes` (rows × code_bytes())
// and `scales` (one for each group, little-endian) and adds to `drift` what a reader loses.
void quantize_groups(const IntGroups& how, std::uint64_t rows, std::uint64_t cols,
                     std::span<const float> in, MutableBytes codes, MutableBytes scales,
                     Drift& drift);
// The same in plain C++: what every instruction set must give, bytes and sums.
void quantize_groups_scalar(const IntGroups& how, std::uint64_t rows, std::uint64_t cols,
                            std::span<const float> in, MutableBytes codes, MutableBytes scales,
                            Drift& drift);

// Field `index` of a little-endian stream of 32-bit words with `bits` (1 … 8) each.
unsigned packed_field(Bytes words, unsigned bits, std::uint64_t index) noexcept;
// Fields [first, first + out.size()) as signed codes (offset binary). The words must hold them.
void unpack_codes(Bytes words, unsigned bits, std::uint64_t first,
                  std::span<std::int8_t> out) noexcept;

}  // namespace wtool
