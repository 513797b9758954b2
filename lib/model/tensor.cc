#include "lib/model/tensor.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "lib/base/error.h"

namespace wtool {
namespace {

// A row that does not fill whole blocks (f4 [3, 5, 2] is fine, f4 [2, 3] is not) has no byte
// address, so such a tensor counts as one long row.
Box whole_of(DType dtype, const Shape& shape) {
  const auto n = element_count(shape);
  if (!n || !byte_size(dtype, *n))
    throw Error(Fault::BadFile,
                fmt::format("{} {} has no size in bytes", name_of(dtype), to_text(shape)));
  const std::uint64_t cols = shape.empty() ? 1 : shape.back();
  if (*n == 0) return {};
  if (cols % info(dtype).block_elems != 0) return {0, 1, 0, *n};
  return {0, *n / cols, 0, cols};
}

class Stored final : public Tensor {
 public:
  Stored(const Catalog& catalog, const TensorEntry& entry)
      : Tensor(entry.dtype, Shape(entry.shape.begin(), entry.shape.end())),
        data_(catalog.extent(entry)),
        swap_(entry.big_endian && info(entry.dtype).block_bytes > 1) {}

  void read(const Box& box, MutableBytes out, Scratch&) const override {
    if (box.cols == whole().cols || box.rows == 1) {
      data_.source->read(offset_of(box.row, box.col), out);
    } else {
      const std::uint64_t piece = checked_size(dtype(), box.cols);
      for (std::uint64_t r = 0; r < box.rows; ++r)
        data_.source->read(offset_of(box.row + r, box.col), out.subspan(r * piece, piece));
    }
    if (swap_) swap_endian(dtype(), out);
  }
  std::optional<Extent> raw(const Box& box) const override {
    if (swap_ || (box.cols != whole().cols && box.rows != 1)) return std::nullopt;
    return Extent{data_.source, offset_of(box.row, box.col), checked_size(dtype(), box.elements())};
  }

 private:
  std::uint64_t offset_of(std::uint64_t row, std::uint64_t col) const {
    return data_.offset + checked_size(dtype(), row * whole().cols + col);
  }
  Extent data_;
  bool swap_;
};

// NPY's Fortran order: the first dimension is contiguous, the last one is the outermost. Types of
// one element a block only, at least two dimensions.
class ColumnMajor final : public Tensor {
 public:
  ColumnMajor(const Catalog& catalog, const TensorEntry& entry)
      : Tensor(entry.dtype, Shape(entry.shape.begin(), entry.shape.end())),
        data_(catalog.extent(entry)),
        swap_(entry.big_endian),
        size_(info(entry.dtype).block_bytes) {
    std::uint64_t stride = 1;
    for (const std::uint64_t d : shape()) {
      strides_.push_back(stride);
      stride *= d;
    }
    for (std::size_t d = 1; d + 1 < shape().size(); ++d) inner_ *= shape()[d];
  }

  void read(const Box& box, MutableBytes out, Scratch& scratch) const override {
    // What lies together in the file are the elements that differ in the first index, or nearly
    // together those that differ in the last but one: take whichever the box has more of.
    constexpr std::uint64_t kFew = 8;
    const std::uint64_t planes = (box.row + box.rows - 1) / inner_ - box.row / inner_ + 1;
    if (inner_ == 1 || planes >= kFew)
      read_down(box, out, scratch);
    else
      read_across(box, out, scratch);
    if (swap_) swap_endian(dtype(), out);
  }

 private:
  // Stretches along the first dimension: rows that are inner_ apart.
  void read_down(const Box& box, MutableBytes out, Scratch& scratch) const {
    Scratch::Frame frame(scratch);
    const auto stretch = frame.take<std::byte>((box.rows / inner_ + 1) * size_);
    const std::uint64_t end = box.row + box.rows;
    for (std::uint64_t c = 0; c < box.cols; ++c)
      for (std::uint64_t q = 0; q < inner_; ++q) {
        const std::uint64_t from = box.row > q ? ceil_div(box.row - q, inner_) : 0;
        const std::uint64_t to = end > q ? ceil_div(end - q, inner_) : 0;
        if (from >= to) continue;
        data_.source->read(place(from * inner_ + q, box.col + c),
                           stretch.first((to - from) * size_));
        for (std::uint64_t i = from; i < to; ++i)
          put(out, (i * inner_ + q - box.row) * box.cols + c, stretch, i - from);
      }
  }
  // Stretches along the last but one dimension, whose elements lie a stride apart.
  void read_across(const Box& box, MutableBytes out, Scratch& scratch) const {
    constexpr std::uint64_t kPage = 4096, kStretch = std::uint64_t{1} << 16;
    const std::uint64_t dim = shape()[shape().size() - 2], stride = strides_[shape().size() - 2];
    const std::uint64_t most = stride * size_ > kPage ? 1 : kStretch / (stride * size_);
    Scratch::Frame frame(scratch);
    const auto stretch = frame.take<std::byte>(((most - 1) * stride + 1) * size_);
    for (std::uint64_t r = 0, run = 0; r < box.rows; r += run) {
      const std::uint64_t row = box.row + r;
      run = std::min({dim - row % dim, box.rows - r, most});
      for (std::uint64_t c = 0; c < box.cols; ++c) {
        data_.source->read(place(row, box.col + c),
                           stretch.first(((run - 1) * stride + 1) * size_));
        for (std::uint64_t i = 0; i < run; ++i)
          put(out, (r + i) * box.cols + c, stretch, i * stride);
      }
    }
  }

  std::uint64_t place(std::uint64_t row, std::uint64_t col) const {
    std::uint64_t at = col * strides_.back();
    for (std::size_t d = shape().size() - 1; d-- > 0;) {
      at += row % shape()[d] * strides_[d];
      row /= shape()[d];
    }
    return data_.offset + at * size_;
  }
  void put(MutableBytes out, std::uint64_t to, Bytes from, std::uint64_t i) const {
    std::ranges::copy(from.subspan(i * size_, size_), out.subspan(to * size_, size_).begin());
  }

  Extent data_;
  bool swap_;
  std::uint64_t size_;                  // of an element
  std::uint64_t inner_ = 1;             // the product of all but the first and last dimension
  std::vector<std::uint64_t> strides_;  // in elements
};

class Reinterpreted final : public Tensor {
 public:
  Reinterpreted(TensorPtr of, DType as) : Tensor(as, of->shape()), of_(std::move(of)) {}
  void read(const Box& box, MutableBytes out, Scratch& scratch) const override {
    of_->read(box, out, scratch);
  }
  std::optional<Extent> raw(const Box& box) const override { return of_->raw(box); }

 private:
  TensorPtr of_;
};

Shape sliced_shape(const std::vector<Range>& ranges) {
  Shape out;
  for (const Range& r : ranges)
    if (!r.single) out.push_back(r.end - r.begin);
  return out;
}

// Reads row by row: each row of the slice is a stretch of one row of the original.
class Slice final : public Tensor {
 public:
  Slice(TensorPtr of, std::vector<Range> ranges)
      : Tensor(of->dtype(), sliced_shape(ranges)), of_(std::move(of)), ranges_(std::move(ranges)) {}

  void read(const Box& box, MutableBytes out, Scratch& scratch) const override {
    if (ranges_.empty()) return of_->read(box, out, scratch);
    // With a single index in the last dimension, the slice's own columns are an outer dimension:
    // go through the elements of the slice in C order, one stretch of the inner range at a time.
    const Range& inner = ranges_.back();
    const std::uint64_t width = inner.end - inner.begin;
    std::uint64_t done = 0;
    const std::uint64_t first = box.row * whole().cols + box.col;
    for (std::uint64_t r = 0; r < box.rows; ++r)
      for (std::uint64_t c = 0; c < box.cols;) {
        const std::uint64_t element = first + r * whole().cols + c;
        const std::uint64_t in = element % width, n = std::min(width - in, box.cols - c);
        const std::uint64_t piece = checked_size(dtype(), n);
        of_->read({row_of(element / width), 1, inner.begin + in, n}, out.subspan(done, piece),
                  scratch);
        done += piece;
        c += n;
      }
  }

 private:
  // The row of the original that the n-th inner stretch lies in.
  std::uint64_t row_of(std::uint64_t n) const {
    std::uint64_t row = 0, stride = 1;
    for (std::size_t d = ranges_.size() - 1; d-- > 0;) {
      const std::uint64_t extent = ranges_[d].end - ranges_[d].begin;
      row += (ranges_[d].begin + n % extent) * stride;
      n /= extent;
      stride *= of_->shape()[d];
    }
    return row;
  }
  TensorPtr of_;
  std::vector<Range> ranges_;
};

}  // namespace

Tensor::Tensor(DType dtype, Shape shape)
    : dtype_(dtype), shape_(std::move(shape)), whole_(whole_of(dtype_, shape_)) {}

TensorPtr stored(const Catalog& catalog, const TensorEntry& entry) {
  // For vectors and for one column or row the two orders are the same bytes.
  const auto long_dims = std::ranges::count_if(entry.shape, [](std::uint64_t d) { return d > 1; });
  if (entry.column_major && info(entry.dtype).block_elems != 1)
    throw Error(Fault::Unsupported, fmt::format("{} in column order", name_of(entry.dtype)));
  if (entry.column_major && long_dims > 1) return std::make_shared<ColumnMajor>(catalog, entry);
  return std::make_shared<Stored>(catalog, entry);
}

TensorPtr reinterpreted(TensorPtr of, DType as) {
  if (info(of->dtype()).block_bytes != info(as).block_bytes ||
      info(of->dtype()).block_elems != info(as).block_elems)
    throw Error(Fault::Usage, fmt::format("{} elements cannot be taken for {}: {} and {} bytes",
                                          name_of(of->dtype()), name_of(as),
                                          info(of->dtype()).block_bytes, info(as).block_bytes));
  return std::make_shared<Reinterpreted>(std::move(of), as);
}

TensorPtr slice(TensorPtr of, const std::vector<Range>& ranges) {
  if (ranges.size() != of->shape().size())
    throw Error(Fault::Internal, "a slice needs one range for each dimension");
  const std::uint64_t block = info(of->dtype()).block_elems;
  if (of->elements() > 0 && !ranges.empty() && of->whole().cols != of->shape().back())
    throw Error(Fault::Unsupported,
                fmt::format("rows of {} {} do not begin on whole bytes, so it cannot be sliced",
                            name_of(of->dtype()), to_text(of->shape())));
  for (std::size_t d = 0; d < ranges.size(); ++d) {
    const Range& r = ranges[d];
    if (r.begin > r.end || r.end > of->shape()[d])
      throw Error(Fault::Usage, fmt::format("slice {}:{} is outside dimension {} of {}", r.begin,
                                            r.end, d, to_text(of->shape())));
    if (d + 1 == ranges.size() && block > 1 && (r.begin % block != 0 || r.end % block != 0))
      throw Error(Fault::Usage,
                  fmt::format("slice {}:{} of the last dimension cuts {} blocks of {}", r.begin,
                              r.end, name_of(of->dtype()), block));
  }
  return std::make_shared<Slice>(std::move(of), ranges);
}

Tiling::Tiling(Box whole, std::uint64_t unit_rows, std::uint64_t unit_cols)
    : whole_(whole),
      unit_rows_(std::max<std::uint64_t>(1, unit_rows)),
      unit_cols_(std::max<std::uint64_t>(1, unit_cols)),
      down_(ceil_div(whole.rows, unit_rows_)),
      across_(ceil_div(whole.cols, unit_cols_)) {}

Tiling Tiling::of(const Tensor& tensor, std::uint64_t block, std::uint64_t elements) {
  const Box whole = tensor.whole();
  const std::uint64_t step =
      std::lcm(std::max<std::uint64_t>(block, 1), std::uint64_t{info(tensor.dtype()).block_elems});
  const std::uint64_t most = std::max(step, elements / step * step);
  const std::uint64_t cols = std::clamp<std::uint64_t>(whole.cols, 1, most);
  return {whole, std::max<std::uint64_t>(1, elements / cols), cols};
}

Box Tiling::box(std::uint64_t unit) const noexcept {
  const std::uint64_t row = unit / across_ * unit_rows_, col = unit % across_ * unit_cols_;
  return {row, std::min(unit_rows_, whole_.rows - row), col,
          std::min(unit_cols_, whole_.cols - col)};
}

}  // namespace wtool
