// Floats of 8 and 4 bits as their makers store them:
//   fp8       M.weight f8_e4m3 [out, in], M.weight_scale_inv f32 [⌈out / 128⌉, ⌈in / 128⌉], which
//             despite its name is what elements are multiplied with; or M.weight_scale, one or
//             [out, 1]
//   mxfp4     gpt-oss: M_blocks u8 [experts, out, in / 32, 16], low half byte first, and M_scales
//             u8 [experts, out, in / 32], powers of two; M.blocks and M.scales in its first form
//   modelopt  NVFP4: M.weight u8 [out, in / 2], M.weight_scale f8_e4m3 [out, in / 16],
//             M.weight_scale_2 f32, the scale of the scales
#include "formats/schemes/fp8_block.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "formats/registry.h"
#include "formats/schemes/quantization_config.h"
#include "formats/schemes/scaled_floats.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::string_view kWeight = ".weight", kScale = ".weight_scale",
                           kScaleInv = ".weight_scale_inv", kScale2 = ".weight_scale_2";
constexpr std::uint64_t kBlock = 128, kMxGroup = 32, kNvGroup = 16, kMxBytes = 16;
// Far above any file, and far below where products overflow.
constexpr std::uint64_t kMaxSide = std::uint64_t{1} << 48;

std::string file_place(const Model& model, const LogicalTensor& t) {
  return fmt::format("{}: tensor {}", model.catalog.sources()[model.part(t, 0).source]->name(),
                     quoted(t.name));
}

// What the three recognisers share: where complaints go.
class Finder {
 public:
  Finder(const Model& m, Diagnostics& f) : model(m), config(m), faults(f) {}

  const TensorEntry* part(std::string_view module, std::string_view suffix) const {
    return model.catalog.find(std::string(module) + std::string(suffix));
  }
  bool method_is(std::string_view a, std::string_view b = {}) {
    const QuantizationConfig* c = config.get();
    return c && (c->method == a || (!b.empty() && c->method == b));
  }
  // A config of another method: the tensors are left as they are.
  bool foreign(const TensorEntry& codes, std::string_view a, std::string_view b = {}) {
    if (!config.get() || method_is(a, b)) return false;
    leave(codes, fmt::format("{} says {}", config.get()->where, quoted(config.get()->method)));
    return true;
  }
  bool excluded(const Rule& rule, std::string_view module, const TensorEntry& codes) {
    const QuantizationConfig* c = config.get();
    const auto list = c ? c->excluded_by(module) : std::string_view();
    if (list.empty()) return false;
    fault(rule, codes,
          fmt::format("{} lists {} in {}, but it is stored quantized", c->where, quoted(module),
                      list));
    return true;
  }
  void fault(const Rule& rule, const TensorEntry& codes, std::string why) {
    faults.report(rule, place_of(model.catalog, codes), codes.offset, std::move(why));
  }
  void leave(const TensorEntry& codes, const std::string& why) { notes.add(why, codes); }
  void add(std::string name, const TensorEntry& codes, std::initializer_list<const TensorEntry*> p,
           Shape shape, std::uint8_t hint = 0) {
    Found out{std::move(name), {model.catalog.index_of(codes)}, DType::F32, std::move(shape), hint};
    for (const TensorEntry* t : p) out.parts.push_back(model.catalog.index_of(*t));
    found.push_back(std::move(out));
  }
  std::vector<Found> done() {
    notes.tell(model.path, faults);
    return std::move(found);
  }

  const Model& model;
  LazyConfig config;
  Diagnostics& faults;
  Notes notes;
  std::vector<Found> found;
};

Complaint bad_scale_type(const TensorEntry& scale) {
  if (is_float_scale(scale)) return std::nullopt;
  return fmt::format("the scales are {}, not f32, bf16 or f16", name_of(scale.dtype));
}

// ---- fp8

constexpr Rule kFp8Parts{"fp8.parts", "the parts of a quantized weight are all there"},
    kFp8Shapes{"fp8.shape", "the parts of a quantized weight fit each other"},
    kFp8Agrees{"fp8.config", "quantization_config agrees with what is stored"};
constexpr std::array<const Rule*, 3> kFp8Rules{&kFp8Parts, &kFp8Shapes, &kFp8Agrees};
constexpr std::uint8_t kBlocks = 0x40, kRows = 0x80, kOne = 0xC0;  // with the hint of a block

struct Sides {
  std::uint64_t rows = kBlock, cols = kBlock;
};
// nullopt: there is no such thing in the config, or nothing we could make sense of.
std::optional<Sides> sides_of(const QuantizationConfig* config) {
  const auto* size = config ? member(config->body, "weight_block_size") : nullptr;
  if (!size || !size->is_array() || size->size() != 2) return std::nullopt;
  const auto rows = count_of(&(*size)[0]), cols = count_of(&(*size)[1]);
  if (!rows || !cols) return std::nullopt;
  return Sides{*rows, *cols};
}

void fp8_weight(Finder& in, std::string_view module, const TensorEntry& codes) {
  const TensorEntry* inverse = in.part(module, kScaleInv);
  const bool ours = in.method_is("fp8", "modelopt");
  // Under a name that compressed-tensors has too, only the config makes it ours.
  const TensorEntry* scale = inverse || !ours ? inverse : in.part(module, kScale);
  const auto sides = sides_of(in.config.get());
  if (!scale) {
    if (in.method_is("fp8") && sides && codes.shape.size() == 2)
      in.fault(kFp8Parts, codes,
               fmt::format("{} is missing", quoted(fmt::format("{}{}", module, kScaleInv))));
    return;
  }
  if (in.foreign(codes, "fp8", "modelopt")) return;
  if (codes.shape.size() != 2)
    return in.leave(codes, fmt::format("fp8 of {} dimensions", codes.shape.size()));
  if (const auto why = bad_scale_type(*scale)) return in.fault(kFp8Parts, codes, *why);
  if (in.excluded(kFp8Agrees, module, codes)) return;
  const std::uint64_t rows = codes.shape[0], cols = codes.shape[1];
  const Sides block = sides.value_or(Sides{});
  std::uint8_t hint = 0;
  if (block.rows != 0 && block.cols != 0 &&
      has_shape(*scale, {ceil_div(rows, block.rows), ceil_div(cols, block.cols)})) {
    if (!is_block(block.rows, block.cols))
      return in.leave(codes, fmt::format("blocks of {} × {}", block.rows, block.cols));
    hint = kBlocks | block_hint(block.rows, block.cols);
  } else if (element_count(scale->shape) == 1 && !sides) {
    hint = kOne;
  } else if (has_shape(*scale, {rows, 1}) && !sides) {
    hint = kRows;
  } else {
    return in.fault(
        kFp8Shapes, codes,
        fmt::format("scales {} are not one for each block of {} × {} of {}", to_text(scale->shape),
                    block.rows, block.cols, to_text(codes.shape)));
  }
  in.add(std::string(codes.name), codes, {scale}, {rows, cols}, hint);
}

std::vector<Found> recognise_fp8(const Model& model, Diagnostics& faults) {
  Finder in(model, faults);
  for (const TensorEntry& t : model.catalog.entries())
    if (t.dtype == DType::F8_E4M3 && t.name.ends_with(kWeight))
      fp8_weight(in, without(t.name, kWeight), t);
  return in.done();
}

TensorPtr open_fp8(const Model& model, const LogicalTensor& t) {
  ScaledFloats p{.where = file_place(model, t),
                 .shape = Shape(t.shape.begin(), t.shape.end()),
                 .codes = stored(model.catalog, model.part(t, 0)),
                 .scales = stored(model.catalog, model.part(t, 1)),
                 .block_rows = t.shape[0],
                 .block_cols = t.shape[1]};
  const unsigned kind = t.hint & 0xC0u;
  if (kind == kRows) p.block_rows = 1;
  if (kind == kBlocks) {
    p.block_rows = hinted_rows(t.hint);
    p.block_cols = hinted_cols(t.hint);
  }
  return scaled_floats(std::move(p));
}

// ---- gpt-oss

constexpr Rule kMxParts{"mxfp4.parts", "the parts of a quantized weight are all there"},
    kMxShapes{"mxfp4.shape", "the parts of a quantized weight fit each other"},
    kMxAgrees{"mxfp4.config", "quantization_config agrees with what is stored"};
constexpr std::array<const Rule*, 3> kMxRules{&kMxParts, &kMxShapes, &kMxAgrees};

void mx_weight(Finder& in, const TensorEntry& codes, std::string_view module,
               std::string_view suffix) {
  const TensorEntry* scale = in.part(module, suffix);
  if (!scale && !in.method_is("mxfp4")) return;  // a name that anybody may use
  if (!scale)
    return in.fault(kMxParts, codes,
                    fmt::format("{} is missing", quoted(fmt::format("{}{}", module, suffix))));
  if (in.foreign(codes, "mxfp4")) return;
  const bool sure = in.method_is("mxfp4");
  const auto wrong = [&](std::string why) {
    if (sure)
      in.fault(kMxShapes, codes, std::move(why));
    else
      in.leave(codes, why);
  };
  if (scale->dtype != DType::U8 && scale->dtype != DType::F8_E8M0)
    return wrong(fmt::format("the scales are {}, not u8", name_of(scale->dtype)));
  const ShapeView shape = codes.shape;
  if (shape.size() < 3 || shape.back() != kMxBytes)
    return wrong(fmt::format("blocks {} are not of {} bytes", to_text(shape), kMxBytes));
  if (shape[shape.size() - 2] >= kMaxSide) return wrong("rows are too wide");
  if (!std::ranges::equal(scale->shape, shape.first(shape.size() - 1)))
    return wrong(fmt::format("scales {} are not one for each block of {}", to_text(scale->shape),
                             to_text(shape)));
  if (in.excluded(kMxAgrees, module, codes)) return;
  Shape values(shape.begin(), shape.end() - 1);
  values.back() *= kMxGroup;
  in.add(std::string(module), codes, {scale}, std::move(values));
}

std::vector<Found> recognise_mx(const Model& model, Diagnostics& faults) {
  Finder in(model, faults);
  for (const TensorEntry& t : model.catalog.entries())
    for (const auto& [blocks, scales] :
         {std::pair<std::string_view, std::string_view>{"_blocks", "_scales"},
          {".blocks", ".scales"}})
      if (t.dtype == DType::U8 && t.name.size() > blocks.size() && t.name.ends_with(blocks))
        mx_weight(in, t, without(t.name, blocks), scales);
  return in.done();
}

TensorPtr open_mx(const Model& model, const LogicalTensor& t) {
  return scaled_floats({.where = file_place(model, t),
                        .shape = Shape(t.shape.begin(), t.shape.end()),
                        .codes = stored(model.catalog, model.part(t, 0)),
                        .scales = stored_scale(model.catalog, model.part(t, 1)),
                        .block_rows = 1,
                        .block_cols = kMxGroup});
}

// ---- ModelOpt

constexpr Rule kOptParts{"modelopt.parts", "the parts of a quantized weight are all there"},
    kOptShapes{"modelopt.shape", "the parts of a quantized weight fit each other"},
    kOptAgrees{"modelopt.config", "quantization_config agrees with what is stored"};
constexpr std::array<const Rule*, 3> kOptRules{&kOptParts, &kOptShapes, &kOptAgrees};

void opt_weight(Finder& in, const TensorEntry& codes, std::string_view module) {
  const TensorEntry *scale = in.part(module, kScale), *global = in.part(module, kScale2);
  const bool ours = in.method_is("modelopt", "modelopt_fp4");
  if (!ours && (!scale || !global)) return;
  if (scale && scale->dtype != DType::F8_E4M3)  // of another of ModelOpt's algorithms
    return in.leave(codes, fmt::format("ModelOpt's weights with scales of {} are not decoded",
                                       name_of(scale->dtype)));
  if (!scale || !global)
    return in.fault(kOptParts, codes,
                    fmt::format("{} is missing",
                                quoted(fmt::format("{}{}", module, scale ? kScale2 : kScale))));
  if (in.foreign(codes, "modelopt", "modelopt_fp4")) return;
  if (global->dtype != DType::F32)
    return in.fault(kOptParts, codes,
                    fmt::format("the scale of the scales is {}, not f32", name_of(global->dtype)));
  if (codes.shape.size() != 2 || element_count(global->shape) != 1)
    return in.fault(kOptShapes, codes,
                    fmt::format("{} with scale {} of the scales is not a matrix with one",
                                to_text(codes.shape), to_text(global->shape)));
  const std::uint64_t rows = codes.shape[0], bytes = codes.shape[1];
  if (bytes % (kNvGroup / 2) != 0 || !has_shape(*scale, {rows, bytes / (kNvGroup / 2)}))
    return in.fault(kOptShapes, codes,
                    fmt::format("scales {} are not one for each {} of {} values in {} bytes",
                                to_text(scale->shape), kNvGroup, rows, to_text(codes.shape)));
  if (bytes >= kMaxSide) return in.leave(codes, "rows are too wide");
  if (in.excluded(kOptAgrees, module, codes)) return;
  in.add(std::string(codes.name), codes, {scale, global}, {rows, bytes * 2});
}

std::vector<Found> recognise_opt(const Model& model, Diagnostics& faults) {
  Finder in(model, faults);
  for (const TensorEntry& t : model.catalog.entries())
    if (t.dtype == DType::U8 && t.name.ends_with(kWeight))
      opt_weight(in, t, without(t.name, kWeight));
  return in.done();
}

TensorPtr open_opt(const Model& model, const LogicalTensor& t) {
  return scaled_floats({.where = file_place(model, t),
                        .shape = Shape(t.shape.begin(), t.shape.end()),
                        .codes = stored(model.catalog, model.part(t, 0)),
                        .scales = stored(model.catalog, model.part(t, 1)),
                        .block_rows = 1,
                        .block_cols = kNvGroup,
                        .global = stored(model.catalog, model.part(t, 2))});
}

}  // namespace

const Scheme kFp8{
    .name = "fp8",
    .summary = "8-bit floats with a scale for each block, as DeepSeek stores them",
    .rules = kFp8Rules,
    .recognise = recognise_fp8,
    .open = open_fp8,
    .refuses = fp8::refuses,
    .encode = fp8::encode,
    .config = fp8::config,
};
const Scheme kGptOss{
    .name = "mxfp4",
    .summary = "4-bit floats with a power of two for each 32, as gpt-oss stores them",
    .rules = kMxRules,
    .recognise = recognise_mx,
    .open = open_mx,
    .refuses = nullptr,
    .encode = nullptr,
    .config = nullptr,
};
const Scheme kModelOpt{
    .name = "modelopt",
    .summary = "NVFP4 as ModelOpt stores it",
    .rules = kOptRules,
    .recognise = recognise_opt,
    .open = open_opt,
    .refuses = nullptr,
    .encode = nullptr,
    .config = nullptr,
};

}  // namespace wtool
