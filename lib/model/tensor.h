#pragma once
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/base/scratch.h"
#include "lib/model/catalog.h"

namespace wtool {

// A rectangle of a tensor whose leading dimensions are flattened into rows.
struct Box {
  std::uint64_t row = 0, rows = 0, col = 0, cols = 0;
  std::uint64_t elements() const noexcept { return rows * cols; }
};

// Anything whose elements can be read: stored, decoded by a scheme, or computed from other tensors.
// Immutable; read() may be called from many threads at once.
class Tensor {
 public:
  virtual ~Tensor() = default;
  DType dtype() const noexcept { return dtype_; }
  const Shape& shape() const noexcept { return shape_; }
  // All of it. cols is the last dimension, or, where rows do not fill whole blocks (f4 [2, 3]), the
  // tensor is one long row. Empty tensors have no rows.
  Box whole() const noexcept { return whole_; }
  std::uint64_t elements() const noexcept { return whole_.elements(); }
  std::uint64_t bytes() const { return checked_size(dtype_, elements()); }

  // The box's elements in dtype(), little-endian, row by row; `out` has exactly their size. Column
  // borders lie on block borders. What moves elements thus never decodes them; read_f32() in
  // lib/numeric does.
  virtual void read(const Box& box, MutableBytes out, Scratch& scratch) const = 0;

  // Where exactly these bytes lie in a source, if they do.
  virtual std::optional<Extent> raw(const Box&) const { return std::nullopt; }

  // Where values are levels that others were rounded to: of each element of the box the interval of
  // values that its level is the nearest to, infinite beyond the last one. False: they are not, or
  // it follows from dtype() (read_cells() in lib/numeric). An empty box asks whether they are.
  virtual bool cells(const Box&, std::span<float> /*low*/, std::span<float> /*high*/,
                     Scratch&) const {
    return false;
  }

 protected:
  Tensor(DType dtype, Shape shape);  // throws BadFile if the size overflows

 private:
  DType dtype_;
  Shape shape_;
  Box whole_;
};
using TensorPtr = std::shared_ptr<const Tensor>;

// A catalog's entry. Byte order and column order are resolved on reading.
TensorPtr stored(const Catalog& catalog, const TensorEntry& entry);
// The same bytes under another type of the same block size (an NPY void as bf16).
TensorPtr reinterpreted(TensorPtr of, DType as);

// One index, range or everything in each dimension: 'name[0:4,:8]'. Both ends within the shape.
struct Range {
  std::uint64_t begin = 0, end = 0;
  bool single = false;  // an index: the dimension disappears from the result's shape
};
TensorPtr slice(TensorPtr of, const std::vector<Range>& ranges);  // one range per dimension

// Cuts a tensor into units of work, row-major.
class Tiling {
 public:
  // 1 MiB of f32: stays in a core's cache from read to write; memory is threads × a few of these.
  static constexpr std::uint64_t kUnitElements = std::uint64_t{1} << 18;

  Tiling(Box whole, std::uint64_t unit_rows, std::uint64_t unit_cols);
  // About `elements` each; whole rows where they fit, else pieces of a multiple of `block` columns
  // (and of the tensor's own block).
  static Tiling of(const Tensor& tensor, std::uint64_t block = 1,
                   std::uint64_t elements = kUnitElements);

  std::uint64_t units() const noexcept { return down_ * across_; }
  Box box(std::uint64_t unit) const noexcept;

 private:
  Box whole_;
  std::uint64_t unit_rows_, unit_cols_, down_, across_;
};

}  // namespace wtool
