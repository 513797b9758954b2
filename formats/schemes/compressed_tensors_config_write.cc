// The quantization_config of what was written. Loaders refuse keys they do not know in 'weights'
// and 'input_activations', so these are exactly the ones that every release knows; scale_dtype and
// zp_dtype only where powers of two need them.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/schemes/compressed_tensors.h"
#include "formats/schemes/written.h"
#include "lib/base/error.h"

namespace wtool::compressed_tensors {
namespace {

using Json = nlohmann::ordered_json;

unsigned bits_of(const SchemeOptions& o) {
  switch (o.levels) {
    case Levels::Integers: return o.bits;
    case Levels::Nvfp4:
    case Levels::Mxfp4: return 4;
    default: return 8;
  }
}
std::string_view strategy_of(const SchemeOptions& o) {
  if (o.levels == Levels::Nvfp4) return "tensor_group";
  if (o.levels == Levels::Fp8 && o.block) return "block";
  return group_of(o) == 0 ? "channel" : "group";
}
std::string_view format_of(const SchemeOptions& o) {
  switch (o.levels) {
    case Levels::Fp8: return "float-quantized";
    case Levels::Nvfp4: return "nvfp4-pack-quantized";
    case Levels::Mxfp4: return "mxfp4-pack-quantized";
    case Levels::Mxfp8: return "mxfp8-quantized";
    default: return packs(o) ? "pack-quantized" : "int-quantized";
  }
}
bool is_mx(const SchemeOptions& o) {
  return o.levels == Levels::Mxfp4 || o.levels == Levels::Mxfp8;
}

Json weights_json(const SchemeOptions& o) {
  const std::uint64_t group = o.block ? 0 : group_of(o);
  Json out;
  out["num_bits"] = bits_of(o);
  out["type"] = o.levels == Levels::Integers ? "int" : "float";
  out["symmetric"] = !(o.levels == Levels::Integers && o.asymmetric);
  out["strategy"] = strategy_of(o);
  out["group_size"] = group == 0 ? Json() : Json(group);
  out["dynamic"] = false;
  out["actorder"] = nullptr;
  out["block_structure"] = o.block ? Json::array({kFp8Block, kFp8Block}) : Json();
  out["observer"] = "minmax";
  out["observer_kwargs"] = Json::object();
  if (is_mx(o)) {
    out["scale_dtype"] = "torch.uint8";
    out["zp_dtype"] = "torch.uint8";
  }
  return out;
}

Json activations_json(const SchemeOptions& o) {
  if (!o.activations) return nullptr;
  Json out;
  out["num_bits"] = 8;
  out["type"] = o.levels == Levels::Integers ? "int" : "float";
  out["symmetric"] = true;
  out["strategy"] = o.block ? "group" : "token";
  out["dynamic"] = true;
  out["group_size"] = o.block ? Json(kFp8Block) : Json();
  return out;
}

// One group holds for every Linear that is not ignored; several must name theirs.
Json groups_json(std::span<const ConfigGroup> groups, bool mixed) {
  Json out = Json::object();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const SchemeOptions& o = groups[i].options;
    Json& group = out[fmt::format("group_{}", i)];
    group["targets"] = groups.size() == 1 ? Json::array({"Linear"}) : Json(groups[i].modules);
    group["weights"] = weights_json(o);
    group["input_activations"] = activations_json(o);
    group["output_activations"] = nullptr;
    if (mixed) group["format"] = format_of(o);
  }
  return out;
}

}  // namespace

std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept) {
  if (groups.empty()) throw Error(Fault::Internal, "a quantization_config without groups");
  const std::string_view format = format_of(groups.front().options);
  const bool mixed = std::ranges::any_of(
      groups, [&](const ConfigGroup& g) { return format_of(g.options) != format; });
  Json out;
  out["quant_method"] = "compressed-tensors";
  out["format"] = mixed ? "mixed-precision" : format;
  out["quantization_status"] = "compressed";
  out["global_compression_ratio"] = nullptr;
  out["kv_cache_scheme"] = nullptr;
  out["ignore"] = std::vector<std::string>(kept.begin(), kept.end());
  out["config_groups"] = groups_json(groups, mixed);
  return json_text(out);
}

}  // namespace wtool::compressed_tensors
