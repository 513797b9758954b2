// compressed-tensors: the steps that write a weight. The layout is described in
// compressed_tensors.h and, of floats, compressed_tensors_float.cc.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "formats/schemes/compressed_tensors.h"
#include "formats/schemes/written.h"
#include "lib/base/error.h"
#include "lib/numeric/group_codes.h"
#include "lib/numeric/kernels/groups.h"

namespace wtool::compressed_tensors {
namespace {

bool is_narrow(DType type) {
  return type == DType::BF16 || type == DType::F16;
}

// ---- integers

// Outputs of a step.
constexpr std::uint32_t kCodesOut = 0, kScaleOut = 1, kShapeOut = 2, kZeroOut = 3;

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
    const std::string module = module_of(target.name);
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

}  // namespace

std::unique_ptr<Step> integer_step(const Target& target, const SchemeOptions& options) {
  const DType source = target.values->dtype();
  SchemeOptions own = options;
  own.group = group_of(options);
  IntegerCoding how = integer_coding(own, integer_scale(options, source), source);
  how.packed = packs(options);
  return step_of(Integers{target, how, target.values->whole()});
}

FloatNames float_names(const Target& target, const SchemeOptions& options) {
  const std::string module = module_of(target.name);
  const bool four = options.levels == Levels::Nvfp4 || options.levels == Levels::Mxfp4;
  return {four ? module + std::string(kPacked) : target.name, module + std::string(kScale),
          module + std::string(kGlobalScale)};
}

}  // namespace wtool::compressed_tensors
