#include "formats/schemes/decoded.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/numeric/codec.h"

namespace wtool {

Place place_of(const Catalog& catalog, const TensorEntry& entry) {
  return {catalog.sources()[entry.source]->name(), "tensor", entry.name};
}

bool has_shape(const TensorEntry& t, std::initializer_list<std::uint64_t> shape) {
  return std::ranges::equal(t.shape, shape);
}

bool is_float_scale(const TensorEntry& t) {
  return t.dtype == DType::F32 || t.dtype == DType::BF16 || t.dtype == DType::F16;
}

std::string_view without(std::string_view name, std::string_view suffix) {
  return name.substr(0, name.size() - suffix.size());
}

void Notes::add(std::string_view reason, const TensorEntry& entry) {
  const auto [at, fresh] = by_reason_.emplace(std::string(reason), lines_.size());
  if (fresh)
    lines_.push_back({std::string(reason), std::string(entry.name), 1});
  else
    ++lines_[at->second].count;
}

void Notes::tell(const std::string& where, Diagnostics& faults) const {
  for (const Line& l : lines_)
    faults.note(where, l.count == 1 ? fmt::format("tensor {} is shown as stored: {}",
                                                  quoted(l.first), l.reason)
                                    : fmt::format("{} tensors ({}, …) are shown as stored: {}",
                                                  l.count, quoted(l.first), l.reason));
}

void Decoded::read(const Box& box, MutableBytes out, Scratch& scratch) const {
  decode_all(box, Edge::Level, out, scratch);
}

bool Decoded::cells(const Box& box, std::span<float> low, std::span<float> high,
                    Scratch& scratch) const {
  decode_all(box, Edge::Below, std::as_writable_bytes(low), scratch);
  decode_all(box, Edge::Above, std::as_writable_bytes(high), scratch);
  for (std::size_t i = 0; i < low.size(); ++i) {
    if (low[i] > high[i]) std::swap(low[i], high[i]);
    // Infinity times a scale of zero: all levels are one.
    if (std::isnan(low[i])) low[i] = -std::numeric_limits<float>::infinity();
    if (std::isnan(high[i])) high[i] = std::numeric_limits<float>::infinity();
  }
  return true;
}

void Decoded::decode_all(const Box& box, Edge edge, MutableBytes out, Scratch& scratch) const {
  if (box.elements() == 0) return;
  const std::uint64_t cols = std::min(box.cols, Tiling::kUnitElements);
  for (std::uint64_t c = 0; c < box.cols; c += cols) {
    Box piece{box.row, 0, box.col + c, std::min(cols, box.cols - c)};
    const std::uint64_t rows =
        std::max<std::uint64_t>(1, Tiling::kUnitElements / std::max(piece.cols, beside(piece)));
    for (; piece.row < box.row + box.rows; piece.row += rows) {
      piece.rows = std::min(rows, box.row + box.rows - piece.row);
      Scratch::Frame frame(scratch);
      const auto values = frame.take<float>(piece.elements());
      decode(piece, edge, values, scratch);
      for (std::uint64_t r = 0; r < piece.rows; ++r) {
        const std::uint64_t to = (piece.row - box.row + r) * box.cols + c;
        std::memcpy(out.subspan(to * sizeof(float), piece.cols * sizeof(float)).data(),
                    values.data() + r * piece.cols, piece.cols * sizeof(float));
      }
    }
  }
}

Error Decoded::bad(std::string text) const {
  return std::move(Error(Fault::BadFile, std::move(text)).in(where_));
}

void Decoded::read_finite(const Tensor& part, std::string_view what, const Box& box,
                          std::span<float> out, Scratch& scratch) const {
  read_f32(part, box, out, scratch);
  const auto at = std::ranges::find_if_not(out, [](float x) { return std::isfinite(x); });
  if (at == out.end()) return;
  const auto i = static_cast<std::uint64_t>(at - out.begin());
  throw bad(fmt::format("{} [{}, {}] is {}", what, box.row + i / box.cols, box.col + i % box.cols,
                        std::isnan(*at) ? "nan"
                        : *at > 0       ? "inf"
                                        : "-inf"));
}

GroupIndex::Groups GroupIndex::of(const Box& box) const {
  if (of_column.empty()) {
    const std::uint64_t first = box.col / group;
    return {first, (box.col + box.cols - 1) / group + 1 - first};
  }
  const auto [least, most] = std::ranges::minmax(std::span(of_column).subspan(box.col, box.cols));
  return {least, most - least + std::uint64_t{1}};
}

GroupIndex GroupIndex::from(const Tensor& index, std::uint64_t cols, std::uint64_t groups,
                            std::uint64_t group) {
  GroupIndex out{{}, group};
  std::vector<std::int32_t> of(cols);
  Scratch scratch;
  if (!of.empty()) index.read(index.whole(), std::as_writable_bytes(std::span(of)), scratch);
  if (std::ranges::all_of(of, [](std::int32_t g) { return g == -1; })) return out;
  bool in_order = group != 0;
  for (std::uint64_t c = 0; c < cols; ++c) {
    if (of[c] < 0 || static_cast<std::uint64_t>(of[c]) >= groups)
      throw Error(Fault::BadFile, fmt::format("group index {} of column {} is not below the {} "
                                              "groups there are",
                                              of[c], c, groups));
    in_order = in_order && static_cast<std::uint64_t>(of[c]) == c / group;
  }
  if (!in_order) out.of_column.assign(of.begin(), of.end());
  return out;
}

}  // namespace wtool
