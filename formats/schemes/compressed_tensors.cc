// compressed-tensors: writing, and what the other parts add up to. The layout is described in
// compressed_tensors.h.
#include "formats/schemes/compressed_tensors.h"

#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/registry.h"
#include "lib/numeric/kernels/groups.h"
#include "lib/numeric/steps.h"

namespace wtool {
namespace compressed_tensors {
namespace {

// With one scale for a whole row, a unit of work is at least a row. Far above any model's width.
constexpr std::uint64_t kMaxChannel = std::uint64_t{1} << 21;

// Weight-only integers must be packed: engines take int-quantized for a promise that activations
// are integers too. Those kernels want one scale for each row.
bool packs(const SchemeOptions& options) {
  return !options.activations;
}
std::uint64_t group_of(const SchemeOptions& options) {
  return packs(options) ? options.group : 0;
}

bool is_source_type(DType type) {
  return type == DType::F16 || type == DType::BF16 || type == DType::F32 || type == DType::F64;
}
// Packed scales have the model's type, the others are f32: what the engines' parameters are.
DType scale_type(DType source, const SchemeOptions& options) {
  const bool narrow = source == DType::BF16 || source == DType::F16;
  return packs(options) && narrow ? source : DType::F32;
}

std::optional<std::string> refuses_width(std::uint64_t cols, const SchemeOptions& options) {
  const std::uint64_t group = group_of(options), per_word = kWordBits / options.bits;
  if (group == 0 && cols > kMaxChannel)
    return fmt::format("a row of {} columns with one scale is longer than {}", cols, kMaxChannel);
  if (group != 0 && cols % group != 0)
    return fmt::format("{} columns do not divide into groups of {}", cols, group);
  if (packs(options) && cols % per_word != 0)
    return fmt::format("{} columns do not fill words of {} codes", cols, per_word);
  if (packs(options) && group % per_word != 0)
    return fmt::format("groups of {} do not fill words of {} codes", group, per_word);
  return std::nullopt;
}

std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options) {
  if (options.bits != 8 && (options.bits != 4 || !packs(options)))
    return fmt::format("{} bits{}: only 4 and 8 are written{}", options.bits,
                       packs(options) ? "" : " with integer activations",
                       packs(options) ? "" : ", and 8 with them");
  if (!is_source_type(tensor.dtype()))
    return fmt::format("{} is not f16, bf16, f32 or f64", name_of(tensor.dtype()));
  if (tensor.shape().size() != 2)
    return fmt::format("{} has {} dimensions, not 2", to_text(tensor.shape()),
                       tensor.shape().size());
  if (tensor.elements() == 0) return fmt::format("{} is empty", to_text(tensor.shape()));
  return refuses_width(tensor.shape()[1], options);
}

std::string module_of(const Target& t) {
  if (!t.name.ends_with(kWeight))
    throw Error(Fault::Usage, fmt::format("tensor '{}': only names that end in '{}' can be stored "
                                          "as compressed-tensors",
                                          t.name, kWeight));
  return t.name.substr(0, t.name.size() - kWeight.size());
}

std::vector<OutTensor> outputs_for(const Target& t, const SchemeOptions& options,
                                   const IntGroups& how) {
  const std::string module = module_of(t);
  const std::uint64_t rows = t.values->shape()[0], cols = t.values->shape()[1];
  const std::uint64_t groups = how.group == 0 ? 1 : cols / how.group;
  const OutTensor scale{module + std::string(kScale), how.scale, {rows, groups}};
  if (!packs(options)) return {{t.name, DType::I8, {rows, cols}}, scale};
  return {{module + std::string(kPacked), DType::I32, {rows, code_bytes(how, cols) / 4}},
          scale,
          {module + std::string(kShape), DType::I64, {2}}};
}

std::unique_ptr<Step> step_for(const Target& t, const SchemeOptions& options) {
  const Box whole = t.values->whole();
  const IntGroups how{.bits = options.bits,
                      .group = group_of(options),
                      .scale = scale_type(t.values->dtype(), options),
                      .packed = packs(options)};
  const std::uint64_t scale_bytes = info(how.scale).block_bytes;
  const std::uint64_t group = how.group == 0 ? whole.cols : how.group;

  const auto spans = [=](const Box& box, std::vector<Span>& add_to) {
    // A box of whole rows is one range of each output, a piece of rows one range for each row.
    const auto rows_of = [&](std::uint32_t output, std::uint64_t row_bytes, std::uint64_t first,
                             std::uint64_t bytes) {
      if (bytes == row_bytes)
        add_to.push_back({output, box.row * row_bytes, box.rows * row_bytes});
      else
        add_to.push_back({output, box.row * row_bytes + first, bytes, box.rows, row_bytes});
    };
    rows_of(0, code_bytes(how, whole.cols), code_bytes(how, box.col), code_bytes(how, box.cols));
    rows_of(1, whole.cols / group * scale_bytes, box.col / group * scale_bytes,
            box.cols / group * scale_bytes);
    if (how.packed && box.row == 0 && box.col == 0) add_to.push_back({2, 0, 16});
  };
  const auto encode = [=](const Box& box, std::span<const float> source,
                          std::span<const MutableBytes> out, Drift& drift, Scratch&) {
    quantize_groups(how, box.rows, box.cols, source, out[0], out[1], drift);
    if (out.size() < 3) return;
    store(out[2], whole.rows, 0);
    store(out[2], whole.cols, 1);
  };
  const Tiling tiling =
      how.group == 0 ? Tiling(whole, Tiling::kUnitElements / std::max<std::uint64_t>(1, whole.cols),
                              whole.cols)
                     : Tiling::of(*t.values, how.group);
  return encode_step(t.name, t.values, {outputs_for(t, options, how), tiling, spans, encode});
}

void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan) {
  for (const Target& t : targets) {
    if (const auto why = refuses(*t.values, options))
      throw Error(Fault::Usage, *why).in(fmt::format("tensor '{}'", t.name));
    plan.steps.push_back(step_for(t, options));
  }
}

// ---- quantization_config. Loaders refuse keys they do not know in 'weights' and
// 'input_activations', so these are exactly the ones that every release knows.

using Json = nlohmann::ordered_json;

Json weights_json(const SchemeOptions& options) {
  const std::uint64_t group = group_of(options);
  Json out;
  out["num_bits"] = options.bits;
  out["type"] = "int";
  out["symmetric"] = true;
  out["strategy"] = group == 0 ? "channel" : "group";
  out["group_size"] = group == 0 ? Json() : Json(group);
  out["dynamic"] = false;
  out["actorder"] = nullptr;
  out["block_structure"] = nullptr;
  out["observer"] = "minmax";
  out["observer_kwargs"] = Json::object();
  return out;
}

Json activations_json(const SchemeOptions& options) {
  if (packs(options)) return nullptr;
  Json out;
  out["num_bits"] = 8;
  out["type"] = "int";
  out["symmetric"] = true;
  out["strategy"] = "token";
  out["dynamic"] = true;
  out["group_size"] = nullptr;
  return out;
}

// One group holds for every Linear that is not ignored; several must name theirs.
Json groups_json(std::span<const ConfigGroup> groups) {
  Json out = Json::object();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    Json& group = out[fmt::format("group_{}", i)];
    group["targets"] = groups.size() == 1 ? Json::array({"Linear"}) : Json(groups[i].modules);
    group["weights"] = weights_json(groups[i].options);
    group["input_activations"] = activations_json(groups[i].options);
    group["output_activations"] = nullptr;
  }
  return out;
}

std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept) {
  if (groups.empty()) throw Error(Fault::Internal, "a quantization_config without groups");
  for (const ConfigGroup& g : groups)
    if (packs(g.options) != packs(groups.front().options))
      throw Error(Fault::Usage,
                  "one quantization_config cannot hold weight-only modules and modules with "
                  "integer activations");
  Json out;
  out["quant_method"] = "compressed-tensors";
  out["format"] = packs(groups.front().options) ? "pack-quantized" : "int-quantized";
  out["quantization_status"] = "compressed";
  out["global_compression_ratio"] = nullptr;
  out["kv_cache_scheme"] = nullptr;
  out["ignore"] = std::vector<std::string>(kept.begin(), kept.end());
  out["config_groups"] = groups_json(groups);
  try {
    return out.dump();
  } catch (const Json::exception&) {
    throw Error(Fault::BadFile, "a module name that is not UTF-8 cannot be written to JSON");
  }
}

}  // namespace
}  // namespace compressed_tensors

const Scheme kCompressedTensors{
    .name = "compressed-tensors",
    .summary = "packed integers and their scales, as vLLM, SGLang and transformers load them",
    .recognise = compressed_tensors::recognise,
    .open = compressed_tensors::open,
    .refuses = compressed_tensors::refuses,
    .encode = compressed_tensors::encode,
    .config = compressed_tensors::config,
};

}  // namespace wtool
