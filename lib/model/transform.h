#pragma once
#include <vector>

#include "lib/model/tensor.h"

namespace wtool {

// Tensors whose elements are those of others at other places. They move bytes, so any type stays
// exactly what it is, and read nothing before they are read themselves, box by box. All throw Usage
// with both numbers where the shape does not allow it, Unsupported where blocks would be cut.

// The same elements in the same order.
TensorPtr reshaped(TensorPtr of, Shape shape);
// Of a vector or a matrix: the rows of each of `heads` equal parts are its first half and its
// second half; they become pairs of one of each. Turns the order in which Hugging Face keeps what a
// rotary embedding turns (halves) into that of GGUF's llama (pairs).
TensorPtr permuted(TensorPtr of, std::uint64_t heads);
TensorPtr unpermuted(TensorPtr of, std::uint64_t heads);  // the reverse: pairs become halves
TensorPtr transposed(TensorPtr of);  // a matrix
// Elements [begin, end) of the first dimension.
TensorPtr rows_of(TensorPtr of, std::uint64_t begin, std::uint64_t end);
// Tensors of one type and one shape, one after another in a new first dimension.
TensorPtr stacked(std::vector<TensorPtr> of);

}  // namespace wtool
