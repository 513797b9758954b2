#include "formats/schemes/written.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/float_codes.h"

namespace wtool {

std::optional<std::string> refuses_source(const Tensor& tensor) {
  const DType type = tensor.dtype();
  if (type != DType::F16 && type != DType::BF16 && type != DType::F32 && type != DType::F64)
    return fmt::format("{} is not f16, bf16, f32 or f64", name_of(type));
  if (tensor.shape().size() != 2)
    return fmt::format("{} has {} dimensions, not 2", to_text(tensor.shape()),
                       tensor.shape().size());
  if (tensor.elements() == 0) return fmt::format("{} is empty", to_text(tensor.shape()));
  return std::nullopt;
}

std::string module_of(std::string_view weight) {
  constexpr std::string_view kWeight = ".weight";
  if (weight.ends_with(kWeight))
    return std::string(weight.substr(0, weight.size() - kWeight.size()));
  throw Error(Fault::Usage, fmt::format("only names that end in '{}' can be stored so", kWeight))
      .in(fmt::format("tensor {}", quoted(weight)));
}

std::string json_text(const nlohmann::ordered_json& config) {
  try {
    return config.dump();
  } catch (const nlohmann::ordered_json::exception&) {
    throw Error(Fault::BadFile, "a module name that is not UTF-8 cannot be written to JSON");
  }
}

std::span<const float> importance_of(const Target& t, const Box& box, Scratch::Frame& frame) {
  if (!t.importance) return {};
  const auto out = frame.take<float>(box.cols);
  t.importance(box.col, out);
  return out;
}

Tiling tiling_for(const Box& whole, std::uint64_t wide, std::uint64_t high) {
  const std::uint64_t most = Tiling::kUnitElements / high;  // columns, at that height
  const std::uint64_t cols = whole.cols <= std::max(most, wide)
                                 ? whole.cols
                                 : std::max(most / wide, std::uint64_t{1}) * wide;
  const std::uint64_t rows = std::max(Tiling::kUnitElements / cols / high, std::uint64_t{1}) * high;
  return Tiling(whole, cols < whole.cols ? high : rows, cols);
}

namespace {

bool is_narrow(DType type) {
  return type == DType::BF16 || type == DType::F16;
}
std::uint64_t group_of(Levels levels, bool block) {
  switch (levels) {
    case Levels::Nvfp4: return kNvfp4Group;
    case Levels::Mxfp4:
    case Levels::Mxfp8: return kMxGroup;
    default: return block ? kFp8Block : 0;
  }
}

struct Floats {
  Target target;
  SchemeOptions options;
  FloatNames names;
  FloatCoding how;
  Box whole;

  Floats(Target t, const SchemeOptions& o, FloatNames n)
      : target(std::move(t)), options(o), names(std::move(n)), whole(target.values->whole()) {
    const bool four = o.levels == Levels::Nvfp4 || o.levels == Levels::Mxfp4;
    const DType source = target.values->dtype();
    how = {.type = four ? SmallFloat::E2m1 : SmallFloat::E4m3,
           .group = group_of(o.levels, o.block),
           .group_rows = o.block ? kFp8Block : 1,
           .scale = o.levels == Levels::Nvfp4 ? DType::F8_E4M3
                    : o.levels == Levels::Fp8 ? (is_narrow(source) ? DType::BF16 : DType::F32)
                                              : DType::F8_E8M0,
           .method = o.method};
    // f16 would lack the range that 448 levels in each direction leave to small weights.
    if (o.levels == Levels::Fp8 && (source == DType::F16 || names.wide_scales))
      how.scale = DType::F32;
  }

  bool four_bits() const { return how.type == SmallFloat::E2m1; }
  std::uint64_t group() const { return how.group == 0 ? whole.cols : how.group; }
  std::uint64_t groups() const { return ceil_div(whole.cols, group()); }
  std::uint64_t code_row(std::uint64_t cols) const { return four_bits() ? cols / 2 : cols; }
  // As the scales are stored: powers of two as bytes.
  DType stored_scale_type() const { return how.scale == DType::F8_E8M0 ? DType::U8 : how.scale; }

  std::vector<OutTensor> outputs() const {
    const OutTensor scale{
        names.scale, stored_scale_type(), {ceil_div(whole.rows, how.group_rows), groups()}};
    if (!four_bits()) return {{names.codes, DType::F8_E4M3, {whole.rows, whole.cols}}, scale};
    std::vector<OutTensor> out{{names.codes, DType::U8, {whole.rows, whole.cols / 2}}, scale};
    if (options.levels == Levels::Nvfp4) out.push_back({names.global, DType::F32, {1}});
    return out;
  }

  Tiling tiling() const { return tiling_for(whole, group(), how.group_rows); }

  void spans(const Box& box, std::vector<Span>& add_to) const {
    const std::uint64_t scale = info(how.scale).block_bytes;
    add_to.push_back(rows_span(0, box.row, box.rows, code_row(whole.cols), code_row(box.col),
                               code_row(box.cols)));
    add_to.push_back(rows_span(1, box.row / how.group_rows, ceil_div(box.rows, how.group_rows),
                               groups() * scale, box.col / group() * scale,
                               ceil_div(box.cols, group()) * scale));
    if (options.levels == Levels::Nvfp4 && box.row == 0 && box.col == 0)
      add_to.push_back({2, 0, 4});
  }

  // The largest value gets the largest scale's largest level. Tensors of zeros: 1.
  float global() const {
    if (options.levels != Levels::Nvfp4) return 1;
    const float largest = dynamic_cast<const LargestStep&>(*target.shared).result();
    const float global = 2688 * (1 / largest);
    if (largest == 0) return 1;
    return std::isfinite(global) ? global : std::numeric_limits<float>::max();
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

}  // namespace

std::unique_ptr<Step> float_step(const Target& target, const SchemeOptions& options,
                                 FloatNames names) {
  return step_of(Floats(target, options, std::move(names)));
}

}  // namespace wtool
