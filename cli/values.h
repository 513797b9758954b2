#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/tensor.h"

namespace wtool {

// Elements as text: integers exactly, floats in the fewest digits that read back as the same value
// of their own type, or, for programs that will read them as doubles, with all their digits.
// Immutable once made; any thread may use it.
class ElementText {
 public:
  // With `many`, the texts of 8- and 16-bit floats are made beforehand. Throws Unsupported, with a
  // hint, if elements of this type have no value of their own (blocks, opaque bytes).
  explicit ElementText(DType dtype, bool many = false, bool all_digits = false);
  void append(std::string& to, Bytes elements, std::size_t i) const;

 private:
  std::string narrow(std::uint32_t bits) const;
  DType dtype_;
  bool all_digits_;
  std::vector<std::string> ready_;
};

// Any numeric tensor as f32 or f64. Blocks are decoded, so that columns may be cut anywhere.
TensorPtr decoded(TensorPtr of, DType as);

// 'name[0:4,:8]': an exact name wins over a slice.
struct Wanted {
  std::string_view name, slice;  // slice: what stands in the brackets
  bool sliced = false;
};
Wanted split_slice(std::string_view text) noexcept;
// Python's rules: negative numbers count from the end, ranges are cut to the shape, an index must
// lie in it, '...' stands for all dimensions not named. Throws Usage.
std::vector<Range> parse_slice(std::string_view slice, ShapeView shape);

}  // namespace wtool
