// The values of a compressed-tensors weight.
#include <algorithm>

#include <fmt/format.h>

#include "formats/schemes/compressed_tensors.h"
#include "lib/model/integers.h"
#include "lib/numeric/kernels/groups.h"

namespace wtool::compressed_tensors {
namespace {

// code × scale, or (code - zero point) × scale, in f32.
class Values final : public Decoded, public IntegerWeight {
 public:
  Values(const std::string& where, const Parts& p, const Layout& layout, const Catalog& catalog)
      : Decoded(where, {layout.rows, layout.cols}),
        IntegerWeight({.rows = layout.rows,
                       .cols = layout.cols,
                       .groups = layout.groups,
                       .bits = layout.bits.front(),
                       .scale = p.scale->dtype,
                       .zero_points = p.zero != nullptr}),
        layout_(layout),
        bits_(layout.bits.front()),
        codes_(stored(catalog, *p.codes)),
        scale_(stored(catalog, *p.scale)),
        zero_(p.zero ? stored(catalog, *p.zero) : nullptr) {
    if (p.g_idx) read_group_index(*stored(catalog, *p.g_idx));
  }

  std::span<const std::uint32_t> group_index() const noexcept override { return group_of_column_; }
  void codes(const Box& box, std::span<std::uint8_t> out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const auto codes = frame.take<std::int8_t>(out.size());
    read_codes(box, codes, scratch);
    count_from_0(codes, out);
  }
  void zero_points(const Box& box, std::span<std::uint8_t> out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const auto zeros = frame.take<std::int8_t>(out.size());
    if (zero_)
      read_zeros({box.row, box.rows, 0, 0}, {box.col, box.cols}, zeros, scratch);
    else
      std::ranges::fill(zeros, std::int8_t{0});
    count_from_0(zeros, out);
  }
  void scales(const Box& box, MutableBytes out, Scratch& scratch) const override {
    if (!layout_.one_scale) return scale_->read(box, out, scratch);
    const std::size_t size = info(scale_->dtype()).block_bytes;
    scale_->read({0, 1, 0, 1}, out.first(size), scratch);
    for (std::size_t at = size; at < out.size(); at += size)
      std::memcpy(out.data() + at, out.data(), size);
  }

 private:
  void count_from_0(std::span<const std::int8_t> in, std::span<std::uint8_t> out) const {
    const int half = 1 << (bits_ - 1);
    for (std::size_t i = 0; i < in.size(); ++i) out[i] = static_cast<std::uint8_t>(in[i] + half);
  }

  struct Columns {
    std::uint64_t first, count;
  };
  Columns groups_of(const Box& box) const {
    if (layout_.groups == 1 || !group_of_column_.empty()) return {0, layout_.groups};
    const std::uint64_t first = box.col / layout_.group();
    return {first, (box.col + box.cols - 1) / layout_.group() + 1 - first};
  }
  std::uint64_t beside(const Box& box) const override { return 2 * groups_of(box).count; }

  void decode(const Box& box, Edge edge, std::span<float> out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const Columns groups = groups_of(box);
    const auto codes = frame.take<std::int8_t>(box.elements());
    const auto scales = frame.take<float>(box.rows * groups.count);
    const auto zeros = frame.take<std::int8_t>(zero_ ? scales.size() : 0);
    read_codes(box, codes, scratch);
    read_scales(box, groups, scales, scratch);
    if (zero_) read_zeros(box, groups, zeros, scratch);
    for (std::uint64_t r = 0; r < box.rows; ++r) {
      const auto of_row = [&](auto all, std::uint64_t n) {
        return all.subspan(all.empty() ? 0 : r * n, all.empty() ? 0 : n);
      };
      decode_row(box, edge, groups, of_row(codes, box.cols), of_row(scales, groups.count),
                 of_row(zeros, groups.count), out.subspan(r * box.cols, box.cols));
    }
  }

  void read_codes(const Box& box, std::span<std::int8_t> out, Scratch& scratch) const {
    if (!layout_.packed) return codes_->read(box, std::as_writable_bytes(out), scratch);
    // 32 codes fill exactly `bits` words, so a stretch begins on a word at each 32nd column.
    const std::uint64_t first = box.col / kWordBits * bits_;
    const std::uint64_t words = ceil_div((box.col + box.cols) * bits_, kWordBits) - first;
    Scratch::Frame frame(scratch);
    const auto raw = frame.take<std::byte>(box.rows * words * 4);
    codes_->read({box.row, box.rows, first, words}, raw, scratch);
    for (std::uint64_t r = 0; r < box.rows; ++r)
      unpack_codes(raw.subspan(r * words * 4, words * 4), bits_, box.col % kWordBits,
                   out.subspan(r * box.cols, box.cols));
  }

  void read_scales(const Box& box, Columns groups, std::span<float> out, Scratch& scratch) const {
    if (!layout_.one_scale)
      return read_finite(*scale_, "scale", {box.row, box.rows, groups.first, groups.count}, out,
                         scratch);
    read_finite(*scale_, "scale", {0, 1, 0, 1}, out.first(1), scratch);
    std::ranges::fill(out, out[0]);
  }

  void read_zeros(const Box& box, Columns groups, std::span<std::int8_t> out,
                  Scratch& scratch) const {
    if (layout_.zero_packed) return read_packed_zeros(box, groups, out, scratch);
    if (!layout_.one_scale)
      return zero_->read({box.row, box.rows, groups.first, groups.count},
                         std::as_writable_bytes(out), scratch);
    zero_->read({0, 1, 0, 1}, std::as_writable_bytes(out.first(1)), scratch);
    std::ranges::fill(out, out[0]);
  }
  // Each column is a stream of its own, down the rows.
  void read_packed_zeros(const Box& box, Columns groups, std::span<std::int8_t> out,
                         Scratch& scratch) const {
    const std::uint64_t first = box.row / kWordBits * bits_;
    const std::uint64_t words = ceil_div((box.row + box.rows) * bits_, kWordBits) - first;
    Scratch::Frame frame(scratch);
    const auto raw = frame.take<std::byte>(words * groups.count * 4);
    const auto stream = frame.take<std::byte>(words * 4);
    const auto column = frame.take<std::int8_t>(box.rows);
    zero_->read({first, words, groups.first, groups.count}, raw, scratch);
    for (std::uint64_t g = 0; g < groups.count; ++g) {
      for (std::uint64_t w = 0; w < words; ++w)
        std::memcpy(stream.data() + w * 4, raw.data() + (w * groups.count + g) * 4, 4);
      unpack_codes(stream, bits_, box.row % kWordBits, column);
      for (std::uint64_t r = 0; r < box.rows; ++r) out[r * groups.count + g] = column[r];
    }
  }

  void decode_row(const Box& box, Edge edge, Columns groups, std::span<const std::int8_t> codes,
                  std::span<const float> scales, std::span<const std::int8_t> zeros,
                  std::span<float> out) const {
    const int half = 1 << (bits_ - 1);
    const auto decode = [&](std::uint64_t from, std::uint64_t to, std::uint64_t g) {
      const float scale = scales[g];
      const int zero = zeros.empty() ? 0 : zeros[g];
      if (edge == Edge::Level)
        for (std::uint64_t c = from; c < to; ++c)
          out[c] = static_cast<float>(codes[c] - zero) * scale;
      else
        for (std::uint64_t c = from; c < to; ++c)
          out[c] = (edge_of(edge, codes[c], -half, half - 1) - static_cast<float>(zero)) * scale;
    };
    if (!group_of_column_.empty()) {
      for (std::uint64_t c = 0; c < box.cols; ++c) decode(c, c + 1, group_of_column_[box.col + c]);
      return;
    }
    for (std::uint64_t c = 0; c < box.cols;) {
      const std::uint64_t g = (box.col + c) / layout_.group();
      const std::uint64_t end = std::min((g + 1) * layout_.group() - box.col, box.cols);
      decode(c, end, g - groups.first);
      c = end;
    }
  }

  // -1 everywhere is what loaders take for "in order".
  void read_group_index(const Tensor& g_idx) {
    std::vector<std::int32_t> index(layout_.cols);
    Scratch scratch;
    if (!index.empty())
      g_idx.read(g_idx.whole(), std::as_writable_bytes(std::span(index)), scratch);
    if (std::ranges::all_of(index, [](std::int32_t g) { return g == -1; })) return;
    for (std::size_t c = 0; c < index.size(); ++c)
      if (index[c] < 0 || static_cast<std::uint64_t>(index[c]) >= layout_.groups)
        throw Error(Fault::BadFile, fmt::format("group index {} of column {} is not below the {} "
                                                "groups there are",
                                                index[c], c, layout_.groups));
    group_of_column_.assign(index.begin(), index.end());
  }

  Layout layout_;
  unsigned bits_;
  TensorPtr codes_, scale_, zero_;
  std::vector<std::uint32_t> group_of_column_;  // empty: in order
};

}  // namespace

TensorPtr decoded(const std::string& where, const Parts& parts, const Layout& layout,
                  const Catalog& catalog) {
  return std::make_shared<Values>(where, parts, layout, catalog);
}

}  // namespace wtool::compressed_tensors
