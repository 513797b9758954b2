#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lib/base/scratch.h"
#include "lib/model/tensor.h"

namespace wtool {

// Of a weight [rows, cols] stored as integers.
struct IntegerShape {
  std::uint64_t rows = 0, cols = 0;
  std::uint64_t groups = 1;  // scales in a row
  unsigned bits = 4;         // of a code, 1 … 8
  DType scale = DType::F16;  // as stored
  bool zero_points = false;  // else they are all 2^(bits-1)

  std::uint64_t group() const { return cols / groups; }  // columns, where groups are in order
};

// What a weight of integers is made of, however that is packed: an element is
// (code - zero point) × scale, the latter two those of its row and its column's group. Codes and
// zero points count from 0. Immutable; may be read from many threads at once.
class IntegerWeight {
 public:
  virtual ~IntegerWeight() = default;
  const IntegerShape& integers() const noexcept { return shape_; }
  // The group of each column; empty if they are in order.
  virtual std::span<const std::uint32_t> group_index() const noexcept { return {}; }

  // Boxes of elements, and of rows × groups. All of them row by row; zero points and scales as well
  // where they are stored the other way round.
  virtual void codes(const Box& box, std::span<std::uint8_t> out, Scratch& scratch) const = 0;
  virtual void zero_points(const Box& box, std::span<std::uint8_t> out, Scratch& scratch) const = 0;
  virtual void scales(const Box& box, MutableBytes out, Scratch& scratch) const = 0;

 protected:
  explicit IntegerWeight(const IntegerShape& shape) : shape_(shape) {}

 private:
  IntegerShape shape_;
};

}  // namespace wtool
