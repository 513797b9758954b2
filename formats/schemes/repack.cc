#include "formats/schemes/repack.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "formats/schemes/awq.h"
#include "formats/schemes/compressed_tensors.h"
#include "formats/schemes/gptq.h"
#include "formats/schemes/written.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/groups.h"

namespace wtool {
namespace {

// ---- pack-quantized, as compressed_tensors.h describes it

class PackQuantized final : public IntegerLayout {
 public:
  PackQuantized(const IntegerShape& shape, bool indexed)
      : IntegerLayout(shape), indexed_(indexed) {}

  std::vector<OutTensor> outputs(const std::string& module) const override {
    namespace ct = compressed_tensors;
    const IntegerShape& s = shape();
    const auto part = [&](std::string_view suffix) { return module + std::string(suffix); };
    std::vector<OutTensor> out{{part(ct::kPacked), DType::I32, {s.rows, words(s.cols)}},
                               {part(ct::kScale), s.scale, {s.rows, s.groups}},
                               {part(ct::kShape), DType::I64, {2}}};
    if (s.zero_points) out.push_back({part(ct::kZero), DType::I32, {words(s.rows), s.groups}});
    if (indexed_) out.push_back({part(ct::kGroupIndex), DType::I32, {s.cols}});
    return out;
  }

  Span code_span(const Box& box) const override {
    return rows_span(0, box.row, box.rows, words(shape().cols) * 4, words(box.col) * 4,
                     words(box.cols) * 4);
  }
  void pack_codes(const Box& box, std::span<const std::uint8_t> codes, MutableBytes out,
                  Scratch&) const override {
    const std::uint64_t bytes = words(box.cols) * 4;
    for (std::uint64_t r = 0; r < box.rows; ++r)
      wtool::pack_codes(codes.subspan(r * box.cols, box.cols), shape().bits,
                        out.data() + r * bytes);
  }

  void group_spans(const Box& box, std::vector<Span>& add_to) const override {
    const std::uint64_t size = scale_bytes(), groups = shape().groups;
    add_to.push_back(
        rows_span(1, box.row, box.rows, groups * size, box.col * size, box.cols * size));
    if (shape().zero_points)
      add_to.push_back(rows_span(kZeros, words(box.row), words(box.rows), groups * 4, box.col * 4,
                                 box.cols * 4));
  }
  void pack_groups(const Box& box, std::span<const std::uint8_t> zeros, Bytes scales,
                   std::span<const MutableBytes> out, Scratch& scratch) const override {
    std::ranges::copy(scales, out[0].begin());
    if (!shape().zero_points) return;
    Scratch::Frame frame(scratch);
    const auto down = frame.take<std::byte>(out[1].size());
    pack_down(zeros, box.rows, box.cols, shape().bits, 0, down, scratch);
    transpose(down, box.cols, words(box.rows), 4, out[1]);
  }

  void rest_spans(std::vector<Span>& add_to) const override {
    add_to.push_back({2, 0, 16});
    if (indexed_)
      add_to.push_back({shape().zero_points ? kZeros + 1 : kZeros, 0, shape().cols * 4});
  }
  void pack_rest(std::span<const std::uint32_t> index,
                 std::span<const MutableBytes> out) const override {
    store(out[0], shape().rows, 0);
    store(out[0], shape().cols, 1);
    if (indexed_) std::ranges::copy(std::as_bytes(index), out[1].begin());
  }

 private:
  static constexpr std::uint32_t kZeros = 3;
  std::uint64_t words(std::uint64_t codes) const { return packed_words(codes, shape().bits); }
  static Span rows_span(std::uint32_t output, std::uint64_t row, std::uint64_t rows,
                        std::uint64_t row_bytes, std::uint64_t first, std::uint64_t bytes) {
    if (bytes == row_bytes) return {output, row * row_bytes, rows * row_bytes};
    return {output, row * row_bytes + first, bytes, rows, row_bytes};
  }

  bool indexed_;
};

std::optional<std::string> pack_quantized_refuses(const IntegerShape& shape) {
  if (shape.bits == 8 && shape.zero_points)
    return "engines load 8 bits with zero points, and their kernels fail on them";
  return std::nullopt;
}

constexpr Repacking kPackQuantized{
    .scale = std::nullopt,
    .act_order = true,
    .refuses = pack_quantized_refuses,
    .layout = [](const IntegerShape& shape, bool indexed) -> IntegerLayoutPtr {
      return std::make_shared<PackQuantized>(shape, indexed);
    }};
constexpr Repacking kToGptq{
    .scale = DType::F16,
    .act_order = true,
    .refuses = gptq::refuses_shape,
    .layout = [](const IntegerShape& shape, bool) { return gptq::layout(shape); }};
constexpr Repacking kToAwq{
    .scale = DType::F16,
    .act_order = false,
    .refuses = awq::refuses_shape,
    .layout = [](const IntegerShape& shape, bool) { return awq::layout(shape); }};

// ---- the step

// Units of codes come first, then units of zero points and scales, a box of rows each.
class Repack final : public Step {
 public:
  Repack(std::string name, IntegerWeightPtr weight, IntegerLayoutPtr layout)
      : Step(layout->outputs(module_of(name))),
        name_(std::move(name)),
        weight_(std::move(weight)),
        layout_(std::move(layout)),
        codes_(box_tiling({0, shape().rows, 0, shape().cols}, IntegerLayout::kGrain)),
        groups_(box_tiling({0, shape().rows, 0, shape().groups}, shape().groups)) {}

  std::uint64_t units() const override { return codes_.units() + groups_.units(); }
  void spans(std::uint64_t unit, std::vector<Span>& add_to) const override {
    if (unit < codes_.units()) return add_to.push_back(layout_->code_span(codes_.box(unit)));
    layout_->group_spans(groups_.box(unit - codes_.units()), add_to);
    if (unit == codes_.units()) layout_->rest_spans(add_to);
  }
  void run(const Unit& unit) const override {
    Scratch::Frame frame(unit.scratch);
    if (unit.index >= codes_.units()) return run_groups(unit);
    const Box box = codes_.box(unit.index);
    const auto codes = frame.take<std::uint8_t>(box.elements());
    weight_->codes(box, codes, unit.scratch);
    layout_->pack_codes(box, codes, unit.out[0], unit.scratch);
  }

 private:
  const IntegerShape& shape() const { return layout_->shape(); }

  void run_groups(const Unit& unit) const {
    Scratch::Frame frame(unit.scratch);
    const std::uint64_t index = unit.index - codes_.units();
    const Box box = groups_.box(index);
    const auto zeros = frame.take<std::uint8_t>(box.elements());
    const auto scales = frame.take<std::byte>(checked_size(shape().scale, box.elements()));
    weight_->zero_points(box, zeros, unit.scratch);
    read_scales(box, scales, unit.scratch);
    std::span<const MutableBytes> out = unit.out;
    if (index == 0) {
      std::vector<Span> rest;
      layout_->rest_spans(rest);
      layout_->pack_rest(weight_->group_index(), out.last(rest.size()));
      out = out.first(out.size() - rest.size());
    }
    layout_->pack_groups(box, zeros, scales, out, unit.scratch);
  }

  // In the type they are to be stored in, every one exactly what it was.
  void read_scales(const Box& box, MutableBytes out, Scratch& scratch) const {
    Scratch::Frame frame(scratch);
    const DType from = weight_->integers().scale, to = shape().scale;
    const auto raw = frame.take<std::byte>(checked_size(from, box.elements()));
    const auto was = frame.take<float>(box.elements()), is = frame.take<float>(box.elements());
    weight_->scales(box, raw, scratch);
    codec(from).decode(raw.data(), was.data(), was.size());
    if (from == to)
      std::ranges::copy(raw, out.begin());
    else
      codec(to).encode(was.data(), out.data(), was.size());
    codec(to).decode(out.data(), is.data(), is.size());
    for (std::size_t i = 0; i < was.size(); ++i) {
      if (std::isfinite(was[i]) && was[i] == is[i]) continue;
      const std::string place =
          fmt::format("scale [{}, {}]", box.row + i / box.cols, box.col + i % box.cols);
      Error e(Fault::BadFile,
              std::isfinite(was[i])
                  ? fmt::format("{} is {} in {}, which {} can only hold as {}", place, was[i],
                                name_of(from), name_of(to), is[i])
                  : fmt::format("{} is {}", place, std::isnan(was[i]) ? "nan" : "infinite"));
      throw std::move(e.in(fmt::format("tensor {}", quoted(name_))));
    }
  }

  std::string name_;
  IntegerWeightPtr weight_;
  IntegerLayoutPtr layout_;
  Tiling codes_, groups_;
};

}  // namespace

const Repacking* repacking_to(std::string_view scheme) noexcept {
  if (scheme == "compressed-tensors") return &kPackQuantized;
  if (scheme == "gptq") return &kToGptq;
  return scheme == "awq" ? &kToAwq : nullptr;
}

std::optional<std::string> refuses_integers(const Repacking& to, const IntegerWeight& weight) {
  IntegerShape shape = weight.integers();
  shape.zero_points = false;  // what values show comes later
  if (shape.rows == 0 || shape.cols == 0)
    return fmt::format("{} is empty", to_text(Shape{shape.rows, shape.cols}));
  if (shape.cols % shape.groups != 0)
    return fmt::format("{} columns do not divide into {} groups", shape.cols, shape.groups);
  const auto index = weight.group_index();
  if (index.empty()) return to.refuses(shape);
  if (!to.act_order)
    return "its groups are not in the order of its columns (act-order), for which there is no "
           "place";
  std::vector<std::uint64_t> columns(shape.groups);
  for (const std::uint32_t g : index) ++columns[g];
  for (std::uint64_t g = 0; g < shape.groups; ++g)
    if (columns[g] != shape.group())
      return fmt::format("group {} has {} columns, not {} as groups of one size would", g,
                         columns[g], shape.group());
  return to.refuses(shape);
}

ZeroPoints zero_points_of(const IntegerWeight& weight) {
  const IntegerShape& s = weight.integers();
  ZeroPoints out;
  if (!s.zero_points) {
    out.least = out.most = 1u << (s.bits - 1);
    return out;
  }
  const Tiling tiling = box_tiling({0, s.rows, 0, s.groups}, s.groups);
  Scratch scratch;
  for (std::uint64_t i = 0; i < tiling.units(); ++i) {
    Scratch::Frame frame(scratch);
    const auto zeros = frame.take<std::uint8_t>(tiling.box(i).elements());
    weight.zero_points(tiling.box(i), zeros, scratch);
    const auto [least, most] = std::ranges::minmax(zeros);
    out.least = std::min<unsigned>(out.least, least);
    out.most = std::max<unsigned>(out.most, most);
  }
  return out;
}

std::unique_ptr<Step> repack_step(const Repacking& to, std::string name, IntegerWeightPtr weight,
                                  bool zero_points) {
  IntegerShape shape = weight->integers();
  shape.zero_points = zero_points;
  shape.scale = to.scale.value_or(shape.scale);
  IntegerLayoutPtr layout = to.layout(shape, !weight->group_index().empty());
  return std::make_unique<Repack>(std::move(name), std::move(weight), std::move(layout));
}

}  // namespace wtool
