// compressed-tensors: the steps that write a weight. The layout is described in
// compressed_tensors.h and compressed_tensors_float.cc.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "formats/schemes/compressed_tensors.h"
#include "lib/base/error.h"
#include "lib/numeric/float_codes.h"
#include "lib/numeric/group_codes.h"
#include "lib/numeric/kernels/groups.h"
#include "lib/numeric/steps.h"

namespace wtool::compressed_tensors {
namespace {

std::string module_of(const Target& t) {
  return std::string(without(t.name, kWeight));
}
bool is_narrow(DType type) {
  return type == DType::BF16 || type == DType::F16;
}

// Rows of `row_bytes` each in an output, of which a box takes [first, first + bytes) of each.
Span rows_span(std::uint32_t output, std::uint64_t row, std::uint64_t rows, std::uint64_t row_bytes,
               std::uint64_t first, std::uint64_t bytes) {
  if (bytes == row_bytes) return {output, row * row_bytes, rows * row_bytes};
  return {output, row * row_bytes + first, bytes, rows, row_bytes};
}

// The importance of a box's columns, or nothing.
std::span<const float> importance_of(const Target& t, const Box& box, Scratch::Frame& frame) {
  if (!t.importance) return {};
  const auto out = frame.take<float>(box.cols);
  t.importance(box.col, out);
  return out;
}

// Units of whole groups; of blocks of `high` rows.
Tiling tiling_for(const Box& whole, std::uint64_t wide, std::uint64_t high) {
  const std::uint64_t most = Tiling::kUnitElements / high;  // columns, at that height
  const std::uint64_t cols = whole.cols <= std::max(most, wide)
                                 ? whole.cols
                                 : std::max(most / wide, std::uint64_t{1}) * wide;
  const std::uint64_t rows = std::max(Tiling::kUnitElements / cols / high, std::uint64_t{1}) * high;
  return Tiling(whole, cols < whole.cols ? high : rows, cols);
}

// ---- integers

enum Output : std::uint32_t { kCodesOut, kScaleOut, kShapeOut, kZeroOut };

// One weight of integers: where its parts lie and how boxes of it become them.
struct Integers {
  Target target;
  IntegerCoding how;
  Box whole;

  std::uint64_t group() const { return how.group == 0 ? whole.cols : how.group; }
  std::uint64_t groups() const { return whole.cols / group(); }
  std::uint64_t code_row(std::uint64_t cols) const {
    return code_bytes({.bits = how.bits, .packed = how.packed}, cols);
  }
  // 32 zero points, down the rows, fill `bits` words.
  std::uint64_t zero_words(std::uint64_t rows) const {
    return ceil_div(rows * how.bits, kWordBits);
  }

  std::vector<OutTensor> outputs() const {
    const std::string module = module_of(target);
    const OutTensor scale{module + std::string(kScale), how.scale, {whole.rows, groups()}};
    if (!how.packed) return {{target.name, DType::I8, {whole.rows, whole.cols}}, scale};
    std::vector<OutTensor> out{
        {module + std::string(kPacked), DType::I32, {whole.rows, code_row(whole.cols) / 4}},
        scale,
        {module + std::string(kShape), DType::I64, {2}}};
    if (how.zero_points)
      out.push_back({module + std::string(kZero), DType::I32, {zero_words(whole.rows), groups()}});
    return out;
  }

  Tiling tiling() const {
    const std::uint64_t wide = how.packed ? std::lcm(group(), kWordBits) : group();
    return tiling_for(whole, std::min(wide, whole.cols), how.zero_points ? kWordBits : 1);
  }

  void spans(const Box& box, std::vector<Span>& add_to) const {
    const std::uint64_t scale = info(how.scale).block_bytes;
    add_to.push_back(rows_span(kCodesOut, box.row, box.rows, code_row(whole.cols),
                               code_row(box.col), code_row(box.cols)));
    add_to.push_back(rows_span(kScaleOut, box.row, box.rows, groups() * scale,
                               box.col / group() * scale, box.cols / group() * scale));
    if (how.zero_points)
      add_to.push_back(rows_span(kZeroOut, box.row / kWordBits * how.bits, zero_words(box.rows),
                                 groups() * 4, box.col / group() * 4, box.cols / group() * 4));
    if (how.packed && box.row == 0 && box.col == 0) add_to.push_back({kShapeOut, 0, 16});
  }

  void encode(const Box& box, std::span<const float> source, std::span<const MutableBytes> out,
              Drift& drift, Scratch& scratch) const {
    Scratch::Frame frame(scratch);
    const std::uint64_t across = box.cols / group();
    const auto zeros = frame.take<std::int8_t>(how.zero_points ? box.rows * across : 0);
    code_integers(how, box.rows, box.cols, source, importance_of(target, box, frame),
                  {out[0], out[1], zeros}, drift, scratch);
    if (how.zero_points) pack_zeros(box.rows, across, zeros, out[2], frame);
    if (how.packed && box.row == 0 && box.col == 0) {
      store(out.back(), whole.rows, 0);
      store(out.back(), whole.cols, 1);
    }
  }

  // Each column of zero points is a stream of its own, down the rows.
  void pack_zeros(std::uint64_t rows, std::uint64_t across, std::span<const std::int8_t> zeros,
                  MutableBytes out, Scratch::Frame& frame) const {
    const int half = 1 << (how.bits - 1);
    const auto column = frame.take<std::uint8_t>(rows);
    const auto words = frame.take<std::byte>(zero_words(rows) * 4);
    for (std::uint64_t g = 0; g < across; ++g) {
      for (std::uint64_t r = 0; r < rows; ++r)
        column[r] = static_cast<std::uint8_t>(zeros[r * across + g] + half);
      pack_codes(column, how.bits, words.data());
      for (std::uint64_t w = 0; w < words.size() / 4; ++w)
        std::memcpy(out.data() + (w * across + g) * 4, words.data() + w * 4, 4);
    }
  }
};

// Packed scales have the model's type, the others are f32: what the engines' parameters are.
DType integer_scale(const SchemeOptions& options, DType source) {
  return is_narrow(source) && (packs(options) || options.source_arithmetic) ? source : DType::F32;
}

// ---- floats

struct Floats {
  Target target;
  SchemeOptions options;
  FloatCoding how;
  Box whole;

  Floats(Target t, const SchemeOptions& o)
      : target(std::move(t)), options(o), whole(target.values->whole()) {
    const bool four = o.levels == Levels::Nvfp4 || o.levels == Levels::Mxfp4;
    const DType source = target.values->dtype();
    how = {.type = four ? SmallFloat::E2m1 : SmallFloat::E4m3,
           .group = group_of(o),
           .group_rows = o.block ? kFp8Block : 1,
           .scale = o.levels == Levels::Nvfp4 ? DType::F8_E4M3
                    : o.levels == Levels::Fp8 ? (is_narrow(source) ? DType::BF16 : DType::F32)
                                              : DType::F8_E8M0,
           .method = o.method};
    // f16 would lack the range that 448 levels in each direction leave to small weights.
    if (o.levels == Levels::Fp8 && source == DType::F16) how.scale = DType::F32;
  }

  bool four_bits() const { return how.type == SmallFloat::E2m1; }
  std::uint64_t group() const { return how.group == 0 ? whole.cols : how.group; }
  std::uint64_t groups() const { return ceil_div(whole.cols, group()); }
  std::uint64_t code_row(std::uint64_t cols) const { return four_bits() ? cols / 2 : cols; }
  // As the scales are stored: powers of two as bytes.
  DType stored_scale_type() const { return how.scale == DType::F8_E8M0 ? DType::U8 : how.scale; }

  std::vector<OutTensor> outputs() const {
    const std::string module = module_of(target);
    const OutTensor scale{module + std::string(kScale),
                          stored_scale_type(),
                          {ceil_div(whole.rows, how.group_rows), groups()}};
    if (!four_bits()) return {{target.name, DType::F8_E4M3, {whole.rows, whole.cols}}, scale};
    std::vector<OutTensor> out{
        {module + std::string(kPacked), DType::U8, {whole.rows, whole.cols / 2}}, scale};
    if (options.levels == Levels::Nvfp4)
      out.push_back({module + std::string(kGlobalScale), DType::F32, {1}});
    return out;
  }

  Tiling tiling() const { return tiling_for(whole, group(), how.group_rows); }

  void spans(const Box& box, std::vector<Span>& add_to) const {
    const std::uint64_t scale = info(how.scale).block_bytes;
    add_to.push_back(rows_span(kCodesOut, box.row, box.rows, code_row(whole.cols),
                               code_row(box.col), code_row(box.cols)));
    add_to.push_back(rows_span(kScaleOut, box.row / how.group_rows,
                               ceil_div(box.rows, how.group_rows), groups() * scale,
                               box.col / group() * scale, ceil_div(box.cols, group()) * scale));
    if (options.levels == Levels::Nvfp4 && box.row == 0 && box.col == 0)
      add_to.push_back({2, 0, 4});
  }

  // The largest value gets the largest scale's largest level. Tensors of zeros: 1.
  float global() const {
    if (options.levels != Levels::Nvfp4) return 1;
    const float largest = dynamic_cast<const LargestStep&>(*target.shared).result();
    const float global = 2688 * (1 / largest);
    return largest == 0 || !std::isfinite(global) ? 1 : global;
  }

  void encode(const Box& box, std::span<const float> source, std::span<const MutableBytes> out,
              Drift& drift, Scratch& scratch) const {
    Scratch::Frame frame(scratch);
    FloatCoding now = how;
    now.global = global();
    code_floats(now, box.rows, box.cols, source, importance_of(target, box, frame), out[0], out[1],
                drift, scratch);
    if (out.size() > 2) store(out[2], now.global, 0);
  }
};

template <class Weight>
std::unique_ptr<Step> step_of(Weight weight) {
  const auto w = std::make_shared<const Weight>(std::move(weight));
  return encode_step(
      w->target.name, w->target.values,
      {w->outputs(), w->tiling(),
       [w](const Box& box, std::vector<Span>& add_to) { w->spans(box, add_to); },
       [w](const Box& box, std::span<const float> source, std::span<const MutableBytes> out,
           Drift& drift, Scratch& scratch) { w->encode(box, source, out, drift, scratch); }});
}

}  // namespace

std::unique_ptr<Step> integer_step(const Target& target, const SchemeOptions& options) {
  const DType source = target.values->dtype();
  SchemeOptions own = options;
  own.group = group_of(options);
  IntegerCoding how = integer_coding(own, integer_scale(options, source), source);
  how.packed = packs(options);
  return step_of(Integers{target, how, target.values->whole()});
}

std::unique_ptr<Step> float_step(const Target& target, const SchemeOptions& options) {
  return step_of(Floats(target, options));
}

}  // namespace wtool::compressed_tensors
