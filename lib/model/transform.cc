#include "lib/model/transform.h"

#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "lib/base/error.h"

namespace wtool {
namespace {

// A part of one of the sources, and where in the box that was asked for its elements go, in order.
struct Piece {
  const Tensor* from;
  Box box;
  std::uint64_t to;
};

// What consists of boxes of its sources.
class Moved : public Tensor {
 public:
  void read(const Box& box, MutableBytes out, Scratch& scratch) const final {
    pieces(box, [&](const Piece& p) {
      p.from->read(
          p.box, out.subspan(checked_size(dtype(), p.to), checked_size(dtype(), p.box.elements())),
          scratch);
    });
  }
  bool cells(const Box& box, std::span<float> low, std::span<float> high,
             Scratch& scratch) const final {
    if (box.elements() == 0)
      return std::ranges::all_of(sources_,
                                 [&](const TensorPtr& t) { return t->cells({}, {}, {}, scratch); });
    bool all = true;
    pieces(box, [&](const Piece& p) {
      const std::uint64_t n = p.box.elements();
      all = p.from->cells(p.box, low.subspan(p.to, n), high.subspan(p.to, n), scratch) && all;
    });
    return all;
  }

 protected:
  Moved(Shape shape, std::vector<TensorPtr> sources)
      : Tensor(sources.front()->dtype(), std::move(shape)), sources_(std::move(sources)) {}
  virtual void pieces(const Box& box, const std::function<void(const Piece&)>& visit) const = 0;
  const Tensor& source(std::size_t i = 0) const { return *sources_[i]; }

 private:
  std::vector<TensorPtr> sources_;
};

class Reshaped final : public Moved {
 public:
  Reshaped(TensorPtr of, Shape shape) : Moved(std::move(shape), {std::move(of)}) {}

 private:
  void pieces(const Box& box, const std::function<void(const Piece&)>& visit) const override {
    const bool together = box.cols == whole().cols;
    const std::uint64_t n = together ? box.elements() : box.cols;
    for (std::uint64_t to = 0, row = box.row; to < box.elements(); to += n, ++row)
      stretch(row * whole().cols + box.col, n, to, visit);
  }
  // Elements [first, first + n) as the end of a row, whole rows, and the beginning of one.
  void stretch(std::uint64_t first, std::uint64_t n, std::uint64_t to,
               const std::function<void(const Piece&)>& visit) const {
    const std::uint64_t cols = source().whole().cols;
    while (n > 0) {
      const std::uint64_t col = first % cols;
      Box part{first / cols, 1, col, std::min(n, cols - col)};
      if (col == 0 && n >= cols) part.rows = n / cols;
      visit({&source(), part, to});
      first += part.elements();
      to += part.elements();
      n -= part.elements();
    }
  }
};

// Rows of each head: halves become pairs, or the reverse.
class Permuted final : public Moved {
 public:
  Permuted(const TensorPtr& of, std::uint64_t heads, bool back)
      : Moved(of->shape(), {of}), rows_(of->whole().rows / heads), back_(back) {}

 private:
  void pieces(const Box& box, const std::function<void(const Piece&)>& visit) const override {
    for (std::uint64_t r = 0; r < box.rows; ++r) {
      const std::uint64_t row = box.row + r, in_head = row % rows_;
      const std::uint64_t half = rows_ / 2;
      const std::uint64_t from =
          back_ ? in_head % half * 2 + in_head / half : in_head % 2 * half + in_head / 2;
      visit({&source(), {row - in_head + from, 1, box.col, box.cols}, r * box.cols});
    }
  }
  std::uint64_t rows_;  // of a head
  bool back_;
};

// A part of the source that is contiguous.
class Part final : public Moved {
 public:
  Part(TensorPtr of, Shape shape, std::uint64_t row, std::uint64_t col)
      : Moved(std::move(shape), {std::move(of)}), row_(row), col_(col) {}

 private:
  void pieces(const Box& box, const std::function<void(const Piece&)>& visit) const override {
    visit({&source(), {row_ + box.row, box.rows, col_ + box.col, box.cols}, 0});
  }
  std::uint64_t row_, col_;
};

class Stacked final : public Moved {
 public:
  Stacked(std::vector<TensorPtr> of, Shape shape) : Moved(std::move(shape), std::move(of)) {}

 private:
  void pieces(const Box& box, const std::function<void(const Piece&)>& visit) const override {
    const std::uint64_t each = source().whole().rows, end = box.row + box.rows;
    for (std::uint64_t row = box.row; row < end;) {
      const std::uint64_t in = row % each, rows = std::min(each - in, end - row);
      visit({&source(row / each), {in, rows, box.col, box.cols}, (row - box.row) * box.cols});
      row += rows;
    }
  }
};

class Transposed final : public Tensor {
 public:
  explicit Transposed(TensorPtr of)
      : Tensor(of->dtype(), {of->shape()[1], of->shape()[0]}), of_(std::move(of)) {}

  void read(const Box& box, MutableBytes out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const std::size_t size = info(dtype()).block_bytes;
    const auto in = frame.take<std::byte>(box.elements() * size);
    of_->read(turned(box), in, scratch);
    for (std::uint64_t r = 0; r < box.rows; ++r)
      for (std::uint64_t c = 0; c < box.cols; ++c)
        std::memcpy(out.data() + (r * box.cols + c) * size, in.data() + (c * box.rows + r) * size,
                    size);
  }
  bool cells(const Box& box, std::span<float> low, std::span<float> high,
             Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const auto from_low = frame.take<float>(box.elements()),
               from_high = frame.take<float>(box.elements());
    if (!of_->cells(turned(box), from_low, from_high, scratch)) return false;
    for (std::uint64_t r = 0; r < box.rows; ++r)
      for (std::uint64_t c = 0; c < box.cols; ++c) {
        low[r * box.cols + c] = from_low[c * box.rows + r];
        high[r * box.cols + c] = from_high[c * box.rows + r];
      }
    return true;
  }

 private:
  static Box turned(const Box& box) { return {box.col, box.cols, box.row, box.rows}; }
  TensorPtr of_;
};

// Rows must be addressable: f4 [2, 3] is one long row.
void need_rows(const Tensor& of) {
  if (of.elements() > 0 && !of.shape().empty() && of.whole().cols != of.shape().back())
    throw Error(Fault::Unsupported, fmt::format("rows of {} {} do not begin on whole bytes",
                                                name_of(of.dtype()), to_text(of.shape())));
}
void need_elements(const Tensor& of) {
  if (info(of.dtype()).block_elems != 1)
    throw Error(
        Fault::Unsupported,
        fmt::format("elements of {} {} cannot be moved: they are stored "
                    "in blocks of {}",
                    name_of(of.dtype()), to_text(of.shape()), info(of.dtype()).block_elems));
}

}  // namespace

TensorPtr reshaped(TensorPtr of, Shape shape) {
  if (element_count(shape) != of->elements())
    throw Error(Fault::Usage, fmt::format("{} elements of {} do not make {}", of->elements(),
                                          to_text(of->shape()), to_text(shape)));
  return std::make_shared<Reshaped>(std::move(of), std::move(shape));
}

namespace {

TensorPtr permuted_rows(TensorPtr of, std::uint64_t heads, bool back) {
  const Shape shape = of->shape();
  if (shape.empty() || shape.size() > 2)
    throw Error(Fault::Usage,
                fmt::format("permute takes a vector or a matrix, not {}", to_text(shape)));
  if (heads == 0 || shape[0] % heads != 0 || shape[0] / heads % 2 != 0)
    throw Error(Fault::Usage, fmt::format("{} rows are not {} heads of pairs", shape[0], heads));
  need_rows(*of);
  if (of->elements() == 0) return of;
  if (shape.size() == 2) return std::make_shared<Permuted>(std::move(of), heads, back);
  need_elements(*of);
  return reshaped(permuted_rows(reshaped(std::move(of), {shape[0], 1}), heads, back), shape);
}

}  // namespace

TensorPtr permuted(TensorPtr of, std::uint64_t heads) {
  return permuted_rows(std::move(of), heads, false);
}

TensorPtr unpermuted(TensorPtr of, std::uint64_t heads) {
  return permuted_rows(std::move(of), heads, true);
}

TensorPtr transposed(TensorPtr of) {
  if (of->shape().size() != 2)
    throw Error(Fault::Usage,
                fmt::format("transpose takes a matrix, not {}", to_text(of->shape())));
  need_elements(*of);
  return std::make_shared<Transposed>(std::move(of));
}

TensorPtr rows_of(TensorPtr of, std::uint64_t begin, std::uint64_t end) {
  Shape shape = of->shape();
  if (shape.empty() || begin > end || end > shape[0])
    throw Error(Fault::Usage,
                fmt::format("rows {}:{} are not within {}", begin, end, to_text(shape)));
  need_rows(*of);
  shape[0] = end - begin;
  if (of->shape().size() > 1) {
    const std::uint64_t each = of->shape()[0] == 0 ? 0 : of->whole().rows / of->shape()[0];
    return std::make_shared<Part>(std::move(of), std::move(shape), begin * each, 0);
  }
  const std::uint64_t block = info(of->dtype()).block_elems;
  if (begin % block != 0 || end % block != 0)
    throw Error(Fault::Unsupported, fmt::format("rows {}:{} cut {} blocks of {}", begin, end,
                                                name_of(of->dtype()), block));
  return std::make_shared<Part>(std::move(of), std::move(shape), 0, begin);
}

TensorPtr stacked(std::vector<TensorPtr> of) {
  if (of.empty()) throw Error(Fault::Internal, "nothing to stack");
  const Tensor& first = *of.front();
  if (first.shape().empty()) throw Error(Fault::Usage, "scalars cannot be stacked");
  need_rows(first);
  for (const TensorPtr& t : of)
    if (t->dtype() != first.dtype() || t->shape() != first.shape())
      throw Error(Fault::Usage,
                  fmt::format("{} {} and {} {} cannot be stacked", name_of(first.dtype()),
                              to_text(first.shape()), name_of(t->dtype()), to_text(t->shape())));
  Shape shape = first.shape();
  shape.insert(shape.begin(), of.size());
  return std::make_shared<Stacked>(std::move(of), std::move(shape));
}

}  // namespace wtool
