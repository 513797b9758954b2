#pragma once
#include "lib/model/source.h"
#include "lib/model/tensor.h"

namespace wtool {

// A tensor's elements as bytes, little-endian and row by row, whatever the order they are stored
// in: what digests and exports read. Where that is how they lie in a file, it is that stretch.
Extent canonical_bytes(const TensorPtr& tensor, const std::string& name);

}  // namespace wtool
