#include "formats/schemes/integer_layout.h"

#include <cstring>
#include <numeric>

#include <fmt/format.h>

#include "formats/schemes/written.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/kernels/groups.h"
#include "lib/numeric/steps.h"

namespace wtool {
namespace {

// Strips of a unit in either direction are long enough for the kernel's calls to be few.
constexpr std::uint64_t kUnitElements = std::uint64_t{1} << 19, kUnitCols = 1024;

// Signed codes as codes that count from 0, in place; eight at a time.
std::span<std::uint8_t> from_0(std::span<std::int8_t> codes, unsigned bits) {
  constexpr std::uint64_t kEach = 0x0101010101010101;
  const std::uint64_t half = 1u << (bits - 1), mask = 2 * half - 1;
  std::size_t i = 0;
  for (; i + 8 <= codes.size(); i += 8) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, &codes[i], 8);
    eight = (eight ^ half * kEach) & mask * kEach;
    std::memcpy(&codes[i], &eight, 8);
  }
  for (; i < codes.size(); ++i)
    codes[i] = static_cast<std::int8_t>((static_cast<unsigned>(codes[i]) ^ half) & mask);
  return {reinterpret_cast<std::uint8_t*>(codes.data()), codes.size()};
}

// One weight on its way from floats to a layout.
class Quantized {
 public:
  Quantized(Target target, const IntegerCoding& how, IntegerLayoutPtr layout)
      : target_(std::move(target)), how_(how), layout_(std::move(layout)) {
    how_.packed = layout_->takes_words();
  }

  void spans(const Box& box, std::vector<Span>& add_to) const {
    add_to.push_back(layout_->code_span(box));
    layout_->group_spans(groups_of(box), add_to);
    if (box.row == 0 && box.col == 0) layout_->rest_spans(add_to);
  }

  void encode(const Box& box, std::span<const float> source, std::span<const MutableBytes> out,
              Drift& drift, Scratch& scratch) const {
    Scratch::Frame frame(scratch);
    const Box groups = groups_of(box);
    const unsigned bits = how_.bits;
    const auto codes = frame.take<std::int8_t>(
        how_.packed ? box.rows * packed_words(box.cols, bits) * 4 : box.elements());
    const auto zeros = frame.take<std::int8_t>(groups.elements());
    const auto scales = frame.take<std::byte>(groups.elements() * info(how_.scale).block_bytes);
    const auto weights = frame.take<float>(target_.importance ? box.cols : 0);
    if (target_.importance) target_.importance(box.col, weights);
    code_integers(
        how_, box.rows, box.cols, source, weights,
        {std::as_writable_bytes(codes), scales, zeros.first(how_.zero_points ? zeros.size() : 0)},
        drift, scratch);
    if (how_.packed)
      layout_->place_words(box, std::as_bytes(codes), out[0]);
    else
      layout_->pack_codes(box, from_0(codes, bits), out[0], scratch);
    if (!how_.zero_points) std::ranges::fill(zeros, std::int8_t{0});
    layout_->pack_groups(groups, from_0(zeros, bits), scales, out.subspan(1), scratch);
    if (box.row != 0 || box.col != 0) return;
    std::vector<Span> rest;
    layout_->rest_spans(rest);
    layout_->pack_rest({}, out.last(rest.size()));
  }

 private:
  Box groups_of(const Box& box) const {
    const std::uint64_t group = layout_->shape().group();
    return {box.row, box.rows, box.col / group, box.cols / group};
  }

  Target target_;
  IntegerCoding how_;
  IntegerLayoutPtr layout_;
};

}  // namespace

Tiling box_tiling(const Box& whole, std::uint64_t wide) {
  constexpr std::uint64_t kGrain = IntegerLayout::kGrain;
  const std::uint64_t cols = whole.cols <= std::max(kUnitCols, wide)
                                 ? whole.cols
                                 : std::max(kUnitCols / wide, std::uint64_t{1}) * wide;
  const std::uint64_t rows = std::max<std::uint64_t>(kUnitElements / cols / kGrain, 1) * kGrain;
  return Tiling(whole, rows, cols);
}

Tiling integer_tiling(const IntegerShape& shape) {
  return box_tiling(
      {0, shape.rows, 0, shape.cols},
      shape.groups == 1 ? shape.cols : std::lcm(shape.group(), IntegerLayout::kGrain));
}

std::unique_ptr<Step> integer_step(const Target& target, const IntegerCoding& how,
                                   IntegerLayoutPtr layout) {
  const std::string module = module_of(target.name);
  const auto outputs = layout->outputs(module);
  const Tiling tiling = integer_tiling(layout->shape());
  const auto q = std::make_shared<const Quantized>(target, how, std::move(layout));
  return encode_step(
      target.name, target.values,
      {outputs, tiling, [q](const Box& box, std::vector<Span>& add_to) { q->spans(box, add_to); },
       [q](const Box& box, std::span<const float> source, std::span<const MutableBytes> out,
           Drift& drift, Scratch& scratch) { q->encode(box, source, out, drift, scratch); }});
}

void encode_as_integers(std::span<const Target> targets, const SchemeOptions& options,
                        std::optional<std::string> (*refuses)(const Tensor&, const SchemeOptions&),
                        IntegerLayoutPtr (*layout)(const IntegerShape&), Plan& plan) {
  for (const Target& t : targets) {
    if (const auto why = refuses(*t.values, options))
      throw Error(Fault::Usage, *why).in(fmt::format("tensor {}", quoted(t.name)));
    plan.steps.push_back(integer_step(t, integer_coding(options, DType::F16, t.values->dtype()),
                                      layout(integer_shape(*t.values, options, DType::F16))));
  }
}

std::optional<std::string> refuses_as_integers(const Tensor& tensor, const SchemeOptions& options) {
  if (options.levels != Levels::Integers) return "only integers are written so";
  if (options.activations) return "engines take it for weights alone, with 16-bit activations";
  if (auto why = refuses_source(tensor)) return why;
  const std::uint64_t cols = tensor.shape()[1], group = options.group == 0 ? cols : options.group;
  if (cols % group != 0)
    return fmt::format("{} columns do not divide into groups of {}", cols, group);
  if (group > kMostTogether)
    return options.group == 0
               ? fmt::format("a row of {} columns with one scale is longer than {}", cols,
                             kMostTogether)
               : fmt::format("groups of {} are longer than {}", group, kMostTogether);
  return std::nullopt;
}

IntegerShape integer_shape(const Tensor& tensor, const SchemeOptions& options, DType scale) {
  const std::uint64_t rows = tensor.shape()[0], cols = tensor.shape()[1];
  return {.rows = rows,
          .cols = cols,
          .groups = options.group == 0 ? 1 : cols / options.group,
          .bits = options.bits,
          .scale = scale,
          .zero_points = options.asymmetric};
}

namespace {

// In squares that both fit the nearest cache, so that lines are read and written whole.
template <class T>
void transpose_as(Bytes in, std::uint64_t rows, std::uint64_t cols, MutableBytes out) {
  constexpr std::uint64_t kSquare = 16;
  for (std::uint64_t r0 = 0; r0 < rows; r0 += kSquare)
    for (std::uint64_t c0 = 0; c0 < cols; c0 += kSquare)
      for (std::uint64_t c = c0; c < std::min(c0 + kSquare, cols); ++c)
        for (std::uint64_t r = r0; r < std::min(r0 + kSquare, rows); ++r)
          std::memcpy(out.data() + (c * rows + r) * sizeof(T),
                      in.data() + (r * cols + c) * sizeof(T), sizeof(T));
}

}  // namespace

void transpose(Bytes in, std::uint64_t rows, std::uint64_t cols, std::size_t size,
               MutableBytes out) {
  if (size == 4) return transpose_as<std::uint32_t>(in, rows, cols, out);
  if (size == 2) return transpose_as<std::uint16_t>(in, rows, cols, out);
  throw Error(Fault::Internal, fmt::format("items of {} bytes are not transposed", size));
}

void pack_down(std::span<const std::uint8_t> codes, std::uint64_t rows, std::uint64_t cols,
               unsigned bits, unsigned less, MutableBytes out, Scratch& scratch) {
  Scratch::Frame frame(scratch);
  const auto column = frame.take<std::uint8_t>(rows);
  const std::uint64_t bytes = packed_words(rows, bits) * 4;
  for (std::uint64_t c = 0; c < cols; ++c) {
    for (std::uint64_t r = 0; r < rows; ++r)
      column[r] = static_cast<std::uint8_t>(codes[r * cols + c] - less);
    pack_codes(column, bits, out.data() + c * bytes);
  }
}

}  // namespace wtool
