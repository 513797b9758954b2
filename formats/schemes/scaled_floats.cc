#include "formats/schemes/scaled_floats.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include <fmt/format.h>

#include "lib/numeric/cells.h"
#include "lib/numeric/codec.h"

namespace wtool {
namespace {

class Values final : public Decoded {
 public:
  explicit Values(ScaledFloats p)
      : Decoded(std::move(p.where), std::move(p.shape)),
        codes_(std::move(p.codes)),
        scales_(std::move(p.scales)),
        global_(std::move(p.global)),
        block_rows_(std::max<std::uint64_t>(1, p.block_rows)),
        block_cols_(std::max<std::uint64_t>(1, p.block_cols)),
        divide_(p.divide) {}

 private:
  Box scales_of(const Box& box) const {
    const std::uint64_t row = box.row / block_rows_, col = box.col / block_cols_;
    return {row, (box.row + box.rows - 1) / block_rows_ + 1 - row, col,
            (box.col + box.cols - 1) / block_cols_ + 1 - col};
  }
  std::uint64_t beside(const Box& box) const override {
    return scales_of({box.row, 1, box.col, box.cols}).cols;
  }

  void decode(const Box& box, Edge edge, std::span<float> out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const Box grid = scales_of(box);
    const auto scales = frame.take<float>(grid.elements());
    read_finite(*scales_, "scale", grid, scales, scratch);
    if (global_) apply_global(scales, scratch);
    read_codes(box, out, scratch);
    if (edge != Edge::Level) to_edges(edge, out);
    for (std::uint64_t r = 0; r < box.rows; ++r) {
      const auto row = out.subspan(r * box.cols, box.cols);
      const auto mine =
          scales.subspan(((box.row + r) / block_rows_ - grid.row) * grid.cols, grid.cols);
      for (std::uint64_t c = 0; c < box.cols;) {
        const std::uint64_t block = (box.col + c) / block_cols_;
        const float scale = mine[block - grid.col];
        const std::uint64_t end = std::min((block + 1) * block_cols_ - box.col, box.cols);
        for (; c < end; ++c) row[c] *= scale;
      }
    }
  }

  void to_edges(Edge edge, std::span<float> levels) const {
    const FloatGrid grid = float_grid(codes_->dtype() == DType::U8 ? DType::F4 : codes_->dtype());
    for (float& v : levels)
      if (std::isfinite(v)) v = half_way(grid, v, edge == Edge::Above);
  }

  void apply_global(std::span<float> scales, Scratch& scratch) const {
    float global = 0;
    read_finite(*global_, "global scale", {0, 1, 0, 1}, {&global, 1}, scratch);
    if (divide_ && global == 0) throw bad("the global scale is 0, and scales are divided by it");
    for (float& s : scales) s = divide_ ? s / global : s * global;
  }

  void read_codes(const Box& box, std::span<float> out, Scratch& scratch) const {
    if (codes_->dtype() != DType::U8) return read_f32(*codes_, box, out, scratch);
    const std::uint64_t first = box.col / 2, bytes = ceil_div(box.col + box.cols, 2) - first;
    Scratch::Frame frame(scratch);
    // Where the last dimension is a block of the row, a row is several of the part's: whole ones.
    const std::uint64_t piece = codes_->whole().cols, from = first / piece,
                        pieces = (first + bytes - 1) / piece + 1 - from;
    const bool in_pieces = piece * 2 < whole().cols;
    const std::uint64_t row_bytes = in_pieces ? pieces * piece : bytes;
    const std::uint64_t skip = box.col - 2 * (in_pieces ? from * piece : first);
    const auto raw = frame.take<std::byte>(row_bytes * box.rows);
    if (!in_pieces) codes_->read({box.row, box.rows, first, bytes}, raw, scratch);
    for (std::uint64_t r = 0; r < box.rows; ++r) {
      const auto row = raw.subspan(r * row_bytes, row_bytes);
      if (in_pieces) {
        const std::uint64_t in_row = whole().cols / (2 * piece);
        codes_->read({(box.row + r) * in_row + from, pieces, 0, piece}, row, scratch);
      }
      for (std::uint64_t c = 0; c < box.cols; ++c) {
        const auto byte = std::to_integer<unsigned>(row[(skip + c) / 2]);
        out[r * box.cols + c] = kE2M1[(skip + c) % 2 == 0 ? byte & 15 : byte >> 4];
      }
    }
  }

  TensorPtr codes_, scales_, global_;
  std::uint64_t block_rows_, block_cols_;
  bool divide_;
};

constexpr std::uint64_t kMaxBlock = 128;
constexpr unsigned kSideBits = 3;

}  // namespace

TensorPtr scaled_floats(ScaledFloats parts) {
  return std::make_shared<Values>(std::move(parts));
}

TensorPtr stored_scale(const Catalog& catalog, const TensorEntry& entry) {
  TensorPtr out = stored(catalog, entry);
  return entry.dtype == DType::U8 ? reinterpreted(std::move(out), DType::F8_E8M0) : out;
}

bool is_block(std::uint64_t rows, std::uint64_t cols) {
  return std::has_single_bit(rows) && rows <= kMaxBlock && std::has_single_bit(cols) &&
         cols <= kMaxBlock;
}
std::uint8_t block_hint(std::uint64_t rows, std::uint64_t cols) {
  return static_cast<std::uint8_t>(std::countr_zero(rows) << kSideBits | std::countr_zero(cols));
}
std::uint64_t hinted_rows(std::uint8_t hint) {
  return std::uint64_t{1} << (hint >> kSideBits & 7);
}
std::uint64_t hinted_cols(std::uint8_t hint) {
  return std::uint64_t{1} << (hint & 7);
}

}  // namespace wtool
