// quantize_step(): values to blocks of a ggml type, measured as they will be decoded.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/measuring_step.h"
#include "lib/numeric/quantizer.h"
#include "lib/numeric/steps.h"

namespace wtool {
namespace {

// Sums of squares in stripes, so that the order of additions is the same everywhere and vectors can
// do them.
struct Squares {
  static constexpr std::size_t kStripes = 8;
  double sums[kStripes] = {};

  Squares& operator+=(const Squares& next) {
    for (std::size_t i = 0; i < kStripes; ++i) sums[i] += next.sums[i];
    return *this;
  }
  double total() const {
    double sum = 0;
    for (const double s : sums) sum += s;
    return sum;
  }
};

// What the units of a step found.
struct Found {
  Drift drift;
  Squares exact;  // errors of the reference's bytes, with Method::Best
  // With importance: the same, each square times its column's importance.
  Squares weighted, weighted_exact, weighted_values;
  std::uint64_t fallback_blocks = 0;

  Found& operator+=(const Found& next) {
    drift += next.drift;
    exact += next.exact;
    weighted += next.weighted;
    weighted_exact += next.weighted_exact;
    weighted_values += next.weighted_values;
    fallback_blocks += next.fallback_blocks;
    return *this;
  }
};
static_assert(std::is_trivially_copyable_v<Found>);

double root_of_ratio(double errors, double values) {
  if (errors == 0) return 0;
  return values == 0 ? std::numeric_limits<double>::infinity() : std::sqrt(errors / values);
}

// Elements that are worked on together: what they become and decode to stays in the caches, and
// the quantisers' vectors are full. A multiple of every block.
constexpr std::size_t kPiece = std::size_t{1} << 14;

// Part of a unit: whole rows, or a piece of one. Without importance rows do not matter, and a piece
// is one row of anything.
struct Piece {
  std::size_t at;  // of its first element in the unit
  std::size_t rows, columns;
  std::uint64_t row = 0, col = 0;  // of its first element in the tensor
  std::size_t elements() const { return rows * columns; }
};

// One worker's view of a step, for one unit.
class Worker {
 public:
  Worker(const Tensor& from, DType to, const QuantizeOptions& options, Scratch& scratch);
  void run(const Box& box, MutableBytes out);
  Found found() const;

 private:
  void plain_unit(const Box& box);
  void weighted_unit(const Box& box);
  void run(const Piece& piece);
  void with_steps(const Piece& piece);
  QuantizeRows quantizer(Method method, bool weighted) const;
  BlockRows rows_of(const Piece& piece) const;
  void load_importance(const Piece& piece);
  void load_mean_squares(const Piece& piece);
  float mean_square_of_row(std::uint64_t row);
  std::uint64_t replace_blocks(const Piece& piece, Method method, std::byte* out);
  void count_bad(const Piece& piece, bool encoded);
  void measure(const Piece& piece);
  void measure_reference(const Piece& piece);
  void add_squares(const Piece& piece, Squares& plain, Squares& weighted);
  void add_weighted_values(const Piece& piece);
  float importance_of(std::size_t i, const Piece& piece) const {
    return importance_[i % piece.columns];
  }
  bool is_weighted() const { return options_.importance != nullptr; }
  std::byte* place(const Piece& piece) const { return out_ + checked_size(to_.id, piece.at); }

  const Tensor& from_;
  const DTypeInfo& to_;
  const QuantizeOptions& options_;
  const Quantizer& quantizer_;
  const Codec &source_, &target_;
  Scratch& scratch_;
  std::uint64_t columns_, rows_of_matrix_, matrices_;
  DriftLanes lanes_;
  Found found_;
  Bytes in_;
  std::byte* out_ = nullptr;
  std::span<float> x_, y_, importance_, mean_squares_, steps_;
  std::span<std::byte> reference_;
  struct {
    std::uint64_t row = ~std::uint64_t{0};
    float value = 0;
  } long_row_;  // the last whose mean square was asked for
};

Worker::Worker(const Tensor& from, DType to, const QuantizeOptions& options, Scratch& scratch)
    : from_(from),
      to_(info(to)),
      options_(options),
      quantizer_(*find_quantizer(to)),
      source_(codec(from.dtype())),
      target_(codec(to)),
      scratch_(scratch),
      columns_(from.whole().cols) {
  const Shape& shape = from.shape();
  const auto from_the_end = [&](std::size_t i) {
    return shape.size() < i ? 1 : std::max<std::uint64_t>(1, shape[shape.size() - i]);
  };
  rows_of_matrix_ = from_the_end(2);
  matrices_ = from_the_end(3);
}

void Worker::run(const Box& box, MutableBytes out) {
  Scratch::Frame frame(scratch_);
  out_ = out.data();
  const auto in = frame.take<std::byte>(checked_size(from_.dtype(), box.elements()));
  for (std::span<float>* s : {&x_, &y_}) *s = frame.take<float>(kPiece);
  if (is_weighted()) {
    importance_ = frame.take<float>(kPiece);
    mean_squares_ = frame.take<float>(kPiece / 32);
  }
  steps_ = frame.take<float>(kPiece / 32);
  if (options_.method == Method::Best)
    reference_ = frame.take<std::byte>(checked_size(to_.id, kPiece));
  from_.read(box, in, scratch_);
  in_ = in;
  is_weighted() ? weighted_unit(box) : plain_unit(box);
  found_.drift = lanes_.fold();
  if (found_.drift.first_bad != Drift{}.first_bad)
    found_.drift.first_bad = flat_index(from_, box, found_.drift.first_bad);
}
Found Worker::found() const {
  return found_;
}

void Worker::plain_unit(const Box& box) {
  for (std::size_t at = 0; at < box.elements(); at += kPiece)
    run(Piece{at, 1, std::min(kPiece, box.elements() - at)});
}

// Pieces that keep to the rows of one matrix.
void Worker::weighted_unit(const Box& box) {
  const std::size_t cols = std::min<std::size_t>(box.cols, kPiece);
  std::size_t at = 0;
  for (std::uint64_t row = 0; row < box.rows;) {
    const std::uint64_t left_in_matrix = rows_of_matrix_ - (box.row + row) % rows_of_matrix_;
    const std::size_t rows = std::min({kPiece / cols, box.rows - row, left_in_matrix});
    const std::size_t many = cols < box.cols ? 1 : rows;
    for (std::uint64_t col = 0; col < box.cols; col += cols) {
      const Piece piece{at, many, std::min<std::size_t>(cols, box.cols - col), box.row + row,
                        box.col + col};
      run(piece);
      at += piece.elements();
    }
    row += many;
  }
}

void Worker::run(const Piece& piece) {
  const std::size_t n = piece.elements();
  source_.decode(in_.data() + checked_size(from_.dtype(), piece.at), x_.data(), n);
  const bool in_steps = to_.id == DType::Q8_0 || to_.id == DType::Q4_0;
  if (in_steps && !is_weighted() && options_.method == Method::Exact) return with_steps(piece);

  std::byte* out = place(piece);
  if (!all_finite(x_.data(), n)) {
    std::memset(out, 0, checked_size(to_.id, n));
    return count_bad(piece, false);
  }
  if (is_weighted()) {
    load_importance(piece);
    if (to_.block_elems == 32) load_mean_squares(piece);
  }
  quantizer(options_.method, is_weighted())(rows_of(piece), out);
  target_.decode(out, y_.data(), n);
  if (is_weighted()) found_.fallback_blocks += replace_blocks(piece, options_.method, out);
  if (!all_finite(y_.data(), n)) return count_bad(piece, true);
  if (options_.measure) measure(piece);
}

QuantizeRows Worker::quantizer(Method method, bool weighted) const {
  if (method == Method::Best && quantizer_.best != nullptr) return quantizer_.best;
  return weighted && quantizer_.weighted != nullptr ? quantizer_.weighted : quantizer_.plain;
}
BlockRows Worker::rows_of(const Piece& piece) const {
  return {x_.data(), piece.rows, piece.columns, is_weighted() ? importance_.data() : nullptr,
          mean_squares_.data()};
}

// The types whose codes are all multiples of one step: errors are counted in steps too.
void Worker::with_steps(const Piece& piece) {
  const std::size_t n = piece.elements();
  std::byte* out = place(piece);
  const bool eight = to_.id == DType::Q8_0;
  (eight ? f32_to_q8_0 : f32_to_q4_0)(x_.data(), out, n, steps_.data());
  if (!all_finite(steps_.data(), n / 32)) {
    target_.decode(out, y_.data(), n);
    return count_bad(piece, true);
  }
  if (!options_.measure) return;
  target_.decode(out, y_.data(), n);
  const Steps steps{steps_.data(), 32, eight ? -127.0f : -8.0f, eight ? 127.0f : 7.0f};
  add_drift(x_.data(), y_.data(), n, &steps, lanes_);
}

void Worker::load_importance(const Piece& piece) {
  const std::uint64_t matrix = piece.row / rows_of_matrix_ % matrices_;
  options_.importance(matrix * columns_ + piece.col, importance_.first(piece.columns));
}

void Worker::load_mean_squares(const Piece& piece) {
  if (piece.columns == columns_)
    mean_squares(x_.data(), piece.rows, piece.columns, mean_squares_.data());
  else
    mean_squares_[0] = mean_square_of_row(piece.row);
}

// Of a row that is longer than a piece: read once more, in order.
float Worker::mean_square_of_row(std::uint64_t row) {
  if (row == long_row_.row) return long_row_.value;
  Scratch::Frame frame(scratch_);
  const auto part = frame.take<float>(kPiece);
  float sum = 0;
  for (std::uint64_t col = 0; col < columns_; col += kPiece) {
    const Box box{row, 1, col, std::min<std::uint64_t>(kPiece, columns_ - col)};
    const auto values = part.first(box.elements());
    read_f32(from_, box, values, scratch_);
    for (const float v : values) sum += v * v;
  }
  long_row_ = {row, sum / static_cast<float>(columns_)};
  return long_row_.value;
}

// Blocks whose weighted fit has no finite answer are quantised without importance. How many.
std::uint64_t Worker::replace_blocks(const Piece& piece, Method method, std::byte* out) {
  if (all_finite(y_.data(), piece.elements())) return 0;
  const std::size_t block = to_.block_elems;
  std::uint64_t replaced = 0;
  for (std::size_t i = 0; i < piece.elements(); i += block) {
    if (all_finite(&y_[i], block)) continue;
    std::byte* place = out + checked_size(to_.id, i);
    quantizer(method, false)(BlockRows{&x_[i], 1, block}, place);
    target_.decode(place, &y_[i], block);
    ++replaced;
  }
  return replaced;
}

// Values that are not finite in the source, and blocks that are not although their source is.
void Worker::count_bad(const Piece& piece, bool encoded) {
  Drift& drift = lanes_.rest;
  const std::size_t block = to_.block_elems;
  for (std::size_t b = 0; b < piece.elements(); b += block) {
    if (!all_finite(&x_[b], block)) {
      for (std::size_t i = b; i < b + block; ++i) {
        if (std::isfinite(x_[i])) continue;
        ++drift.non_finite;
        drift.add_bad(piece.at + i);
      }
    } else if (encoded && !all_finite(&y_[b], block)) {
      drift.overflows += block;
      drift.add_bad(piece.at + b);
    } else if (encoded && options_.measure) {
      add_drift(&x_[b], &y_[b], block, nullptr, lanes_);
    }
  }
}

void Worker::measure(const Piece& piece) {
  add_drift(x_.data(), y_.data(), piece.elements(), nullptr, lanes_);
  if (is_weighted()) {
    Squares unused;
    add_squares(piece, unused, found_.weighted);
    add_weighted_values(piece);
  }
  if (options_.method == Method::Best) measure_reference(piece);
}

// What Method::Exact would have stored.
void Worker::measure_reference(const Piece& piece) {
  const std::size_t n = piece.elements();
  quantizer(Method::Exact, is_weighted())(rows_of(piece), reference_.data());
  target_.decode(reference_.data(), y_.data(), n);
  if (is_weighted()) replace_blocks(piece, Method::Exact, reference_.data());
  if (all_finite(y_.data(), n)) add_squares(piece, found_.exact, found_.weighted_exact);
}

void Worker::add_squares(const Piece& piece, Squares& plain, Squares& weighted) {
  for (std::size_t i = 0; i < piece.elements(); ++i) {
    const double e = static_cast<double>(y_[i]) - static_cast<double>(x_[i]);
    plain.sums[i % Squares::kStripes] += e * e;
  }
  if (!is_weighted()) return;
  for (std::size_t i = 0; i < piece.elements(); ++i) {
    const double e = static_cast<double>(y_[i]) - static_cast<double>(x_[i]);
    weighted.sums[i % Squares::kStripes] += e * e * static_cast<double>(importance_of(i, piece));
  }
}
void Worker::add_weighted_values(const Piece& piece) {
  for (std::size_t i = 0; i < piece.elements(); ++i) {
    const double v = x_[i];
    found_.weighted_values.sums[i % Squares::kStripes] +=
        v * v * static_cast<double>(importance_of(i, piece));
  }
}

class QuantizeStep final : public TypeStep<Found> {
 public:
  QuantizeStep(const std::string& name, TensorPtr from, DType to, const QuantizeOptions& options)
      : TypeStep(name, std::move(from), to), options_(options) {}

  void run(const Unit& unit) const override {
    Worker worker(*from_, to_, options_, unit.scratch);
    worker.run(tiling_.box(unit.index), unit.out[0]);
    give(unit.found, worker.found());
  }
  void report(Report& to) const override {
    Row row = total_.drift.row(name_);
    const auto add = [&](const Column& column, auto value) {
      row.cells.emplace_back(&column, value);
    };
    const bool best = options_.method == Method::Best, measured = total_.drift.elements > 0;
    if (best && measured) add(kExactRmse, root_of_ratio(total_.exact.total(), total_.drift.value2));
    if (options_.importance) {
      const double values = total_.weighted_values.total();
      if (measured) {
        add(kWeightedRmse, root_of_ratio(total_.weighted.total(), values));
        if (best) add(kExactWeightedRmse, root_of_ratio(total_.weighted_exact.total(), values));
      }
      add(kFallbackBlocks, total_.fallback_blocks);
    }
    to.rows.push_back(std::move(row));
  }

 private:
  QuantizeOptions options_;
};

}  // namespace

std::unique_ptr<Step> quantize_step(const std::string& name, TensorPtr from, DType to,
                                    const QuantizeOptions& options) {
  if (const auto why = cast_refuses(*from, to)) throw Error(Fault::Usage, *why).in(name);
  if (from->dtype() == to) throw Error(Fault::Internal, "is of that type already").in(name);
  return std::make_unique<QuantizeStep>(name, std::move(from), to, options);
}

}  // namespace wtool
