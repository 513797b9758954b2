// compressed-tensors' weights of floats:
//   float-quantized, naive-quantized, mxfp8-quantized
//     X.weight f8_e4m3 [out, in], X.weight_scale [1], [out, 1], [out, in / group] or one for each
//     block; u8 [out, in / 32] where scales are powers of two
//   nvfp4-pack-quantized
//     X.weight_packed u8 [out, in / 2], X.weight_scale f8_e4m3 [out, in / 16],
//     X.weight_global_scale f32 [1], which scales are divided by
//   mxfp4-pack-quantized
//     X.weight_packed u8 [out, in / 2], X.weight_scale u8 [out, in / 32], powers of two
#include <algorithm>

#include <fmt/format.h>

#include "formats/schemes/compressed_tensors.h"
#include "formats/schemes/scaled_floats.h"
#include "lib/base/text.h"

namespace wtool::compressed_tensors {
namespace {

constexpr std::string_view kGlobal = ".weight_global_scale";
constexpr std::uint64_t kMaxSide = std::uint64_t{1} << 48;

// Above what block_hint() takes: how scales lie where it is not in blocks of two powers of two.
constexpr std::uint8_t kBlocks = 0x40, kRows = 0x80, kOne = 0xC0, kKinds = 0xC0;

struct FloatParts {
  std::string module;
  const TensorEntry *codes, *scale, *global = nullptr;
  bool packed = false;
};
std::optional<FloatParts> parts_at(const Catalog& catalog, const TensorEntry& entry) {
  const bool packed = entry.dtype == DType::U8 && entry.name.ends_with(kPacked);
  if (!packed && (entry.dtype != DType::F8_E4M3 || !entry.name.ends_with(kWeight)))
    return std::nullopt;
  FloatParts out{.module = std::string(without(entry.name, packed ? kPacked : kWeight)),
                 .codes = &entry,
                 .scale = nullptr,
                 .packed = packed};
  out.scale = catalog.find(out.module + std::string(kScale));
  if (packed) out.global = catalog.find(out.module + std::string(kGlobal));
  return out;
}

struct FloatLayout {
  std::uint64_t rows = 0, cols = 0;
  unsigned bits = 8;
  // What shares a scale; one_scale: everything.
  std::uint64_t block_rows = 1, block_cols = 0;
  bool one_scale = false;
  bool blocks = false;
  std::uint8_t hint() const {
    if (blocks) return kBlocks | block_hint(block_rows, block_cols);
    return one_scale ? kOne : kRows;
  }
};

bool is_power_scale(const TensorEntry& t) {
  return t.dtype == DType::U8 || t.dtype == DType::F8_E8M0;
}

Complaint packed_layout(const FloatParts& p, FloatLayout& out) {
  out.bits = 4;
  if (p.codes->shape.size() != 2 || p.codes->shape[1] > kMaxSide)
    return fmt::format("{} has {} dimensions, not 2", to_text(p.codes->shape),
                       p.codes->shape.size());
  out.rows = p.codes->shape[0];
  out.cols = p.codes->shape[1] * 2;
  const bool power = is_power_scale(*p.scale);
  if (!power && p.scale->dtype != DType::F8_E4M3)
    return fmt::format("the scale of 4-bit floats is {}, not f8_e4m3 or u8",
                       name_of(p.scale->dtype));
  if (!power && !p.global)
    return fmt::format("{} is missing", quoted(p.module + std::string(kGlobal)));
  if (power && p.global)
    return fmt::format("{} is there, but scales are {}", quoted(p.global->name),
                       name_of(p.scale->dtype));
  if (p.global && (p.global->dtype != DType::F32 || element_count(p.global->shape) != 1))
    return fmt::format("the global scale is {} {}, not one f32", name_of(p.global->dtype),
                       to_text(p.global->shape));
  out.block_cols = power ? 32 : 16;
  if (out.cols % out.block_cols != 0 || !has_shape(*p.scale, {out.rows, out.cols / out.block_cols}))
    return fmt::format("scales {} are not one for each {} of {}", to_text(p.scale->shape),
                       out.block_cols, to_text(Shape{out.rows, out.cols}));
  return std::nullopt;
}

// The blocks that the config tells; none: 128 × 128, if that is what the scales are for.
bool in_blocks(const FloatParts& p, const Config& config, FloatLayout& out) {
  const auto fits = [&](std::uint64_t rows, std::uint64_t cols) {
    if (rows == 0 || cols == 0 || !is_block(rows, cols) ||
        !has_shape(*p.scale, {ceil_div(out.rows, rows), ceil_div(out.cols, cols)}))
      return false;
    out.blocks = true;
    out.block_rows = rows;
    out.block_cols = cols;
    return true;
  };
  bool told = false;
  for (const WeightArgs& a : config.floats) {
    told = told || a.block_rows != 0;
    if (a.block_rows != 0 && fits(a.block_rows, a.block_cols)) return true;
  }
  return !told && fits(128, 128);
}

Complaint eight_layout(const FloatParts& p, const Config& config, FloatLayout& out) {
  const ShapeView codes = p.codes->shape, scale = p.scale->shape;
  if (codes.size() != 2)
    return fmt::format("{} has {} dimensions, not 2", to_text(codes), codes.size());
  out.rows = codes[0];
  out.cols = codes[1];
  if (is_power_scale(*p.scale)) {
    out.block_cols = 32;
    if (out.cols % 32 == 0 && has_shape(*p.scale, {out.rows, out.cols / 32})) return std::nullopt;
    return fmt::format("scales {} are not one for each 32 of {}", to_text(scale), to_text(codes));
  }
  if (!is_float_scale(*p.scale))
    return fmt::format("the scale is {}, not f32, bf16 or f16", name_of(p.scale->dtype));
  if (scale.size() == 2 && scale[0] == out.rows && scale[1] == 1) {
    out.block_cols = std::max<std::uint64_t>(out.cols, 1);
    return std::nullopt;
  }
  if (element_count(scale) == 1 && scale.size() <= 2) {
    out.one_scale = true;
    return std::nullopt;
  }
  if (in_blocks(p, config, out)) return std::nullopt;
  if (scale.size() == 2 && scale[0] == out.rows && out.rows > 1 && scale[1] > 0 &&
      out.cols % scale[1] == 0) {
    out.block_cols = std::max<std::uint64_t>(out.cols / scale[1], 1);
    return std::nullopt;
  }
  return fmt::format("scales {} do not divide codes of shape {}", to_text(scale), to_text(codes));
}

Complaint layout_of(const FloatParts& p, const Config& config, FloatLayout& out) {
  return p.packed ? packed_layout(p, out) : eight_layout(p, config, out);
}

// One of the config's groups must be of this width, and of these groups if it tells any.
Complaint agree(const FloatParts& p, const Config& config, const FloatLayout& layout) {
  if (std::ranges::count(config.ignore, p.module) > 0)
    return fmt::format("{} lists {} in ignore, but it is stored quantized", config.where,
                       quoted(p.module));
  if (config.floats.empty() && config.groups.empty()) return std::nullopt;
  const bool grouped = !layout.blocks && !layout.one_scale && layout.block_cols < layout.cols;
  const auto fits = [&](const WeightArgs& a) {
    if (a.bits != layout.bits) return false;
    if (a.group != 0) return !layout.blocks && !layout.one_scale && layout.block_cols == a.group;
    return !grouped && (a.block_rows != 0 || !layout.blocks);
  };
  if (std::ranges::any_of(config.floats, fits)) return std::nullopt;
  return fmt::format("codes {} {}, scales {} do not fit any group of {}", name_of(p.codes->dtype),
                     to_text(p.codes->shape), to_text(p.scale->shape), config.where);
}

}  // namespace

void recognise_floats(const Model& model, const Config& config, bool sure, Notes& notes,
                      Diagnostics& faults, std::vector<Found>& found) {
  for (const TensorEntry& entry : model.catalog.entries()) {
    const auto p = parts_at(model.catalog, entry);
    // An f8 tensor without a scale is just one.
    if (!p || (!p->scale && !p->packed)) continue;
    const auto leave = [&](const Rule& rule, const std::string& why, bool fault) {
      if (fault)
        faults.report(rule, place_of(model.catalog, entry), entry.offset, why);
      else
        notes.add(why, entry);
    };
    FloatLayout layout;
    if (!p->scale) {
      leave(kParts, fmt::format("{} is missing", quoted(p->module + std::string(kScale))), sure);
    } else if (p->packed && model.catalog.find(p->module + std::string(kWeight))) {
      leave(kParts,
            fmt::format("{} is stored too, so which one is meant is not known",
                        quoted(p->module + std::string(kWeight))),
            true);
    } else if (const auto why = layout_of(*p, config, layout)) {
      leave(kShapes, *why, sure);
    } else if (const auto contradiction = agree(*p, config, layout)) {
      leave(kAgrees, *contradiction, true);
    } else {
      Found f{p->module + std::string(kWeight),
              {},
              DType::F32,
              {layout.rows, layout.cols},
              layout.hint()};
      for (const TensorEntry* t : {p->codes, p->scale, p->global})
        if (t) f.parts.push_back(model.catalog.index_of(*t));
      found.push_back(std::move(f));
    }
  }
}

bool is_float_weight(const TensorEntry& codes) {
  return codes.dtype == DType::U8 || codes.dtype == DType::F8_E4M3;
}

TensorPtr open_floats(const Model& model, const LogicalTensor& t) {
  const Catalog& catalog = model.catalog;
  const TensorEntry& codes = model.part(t, 0);
  const TensorEntry& scale = model.part(t, 1);
  ScaledFloats p{.where = fmt::format("{}: tensor {}", catalog.sources()[codes.source]->name(),
                                      quoted(t.name)),
                 .shape = Shape(t.shape.begin(), t.shape.end()),
                 .codes = stored(catalog, codes),
                 .scales = stored_scale(catalog, scale),
                 .block_rows = t.shape[0],
                 .block_cols = t.shape[1]};
  const unsigned kind = t.hint & kKinds;
  if (kind == kBlocks) {
    p.block_rows = hinted_rows(t.hint);
    p.block_cols = hinted_cols(t.hint);
  } else if (kind == kRows) {
    p.block_rows = 1;
    p.block_cols = scale.shape[1] == 0 ? 1 : t.shape[1] / scale.shape[1];
  }
  if (t.count > 2) {
    p.global = stored(catalog, model.part(t, 2));
    p.divide = true;
  }
  return scaled_floats(std::move(p));
}

}  // namespace wtool::compressed_tensors
