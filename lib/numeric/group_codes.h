#pragma once
#include <cstdint>
#include <span>

#include "lib/base/scratch.h"
#include "lib/model/model.h"
#include "lib/numeric/drift.h"

// Integer codes of a weight with a scale, and perhaps a zero point, for each group of columns: what
// every convention of integers stores, before it is packed one way or the other.
namespace wtool {

struct IntegerCoding {
  unsigned bits = 4;          // 2 … 8
  std::uint64_t group = 0;    // columns that share a scale; 0: the whole row
  DType scale = DType::BF16;  // as stored: F32, BF16 or F16
  bool zero_points = false;
  bool either_sign = false;  // scales may be negative; not with zero points
  ScaleMethod method = ScaleMethod::Search;
  // Rtn alone: each operation is rounded to this type. F32, or the source's for the bytes of tools
  // that compute in it.
  DType arithmetic = DType::F32;
  bool packed = true;  // offset binary in 32-bit words, each row a stream of its own; else i8
};
IntegerCoding integer_coding(const SchemeOptions& options, DType scale, DType source);

struct IntegerCodes {
  MutableBytes codes;                 // rows × code_bytes(), or rows × cols signed bytes
  MutableBytes scales;                // one for each group, row by row, little-endian
  std::span<std::int8_t> zeros = {};  // likewise, minus 2^(bits-1), as codes are; with zero points
};

// A box of rows × cols finite values, row by row, `cols` a multiple of the group; `importance` is
// empty or has `cols` values. A value decodes to (code - zero) × scale; adds to `drift` what that
// loses. The code is the even-rounded x / scale + zero, clamped to the range first.
void code_integers(const IntegerCoding& how, std::uint64_t rows, std::uint64_t cols,
                   std::span<const float> in, std::span<const float> importance,
                   const IntegerCodes& out, Drift& drift, Scratch& scratch);

}  // namespace wtool
