// Writing DeepSeek's fp8: the layout is described in fp8_block.cc.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/schemes/fp8_block.h"
#include "formats/schemes/written.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool::fp8 {
std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options) {
  if (options.levels != Levels::Fp8 || !options.block)
    return "the fp8 scheme has e4m3 in blocks of 128 x 128: --fp8 --block";
  return refuses_source(tensor);
}

void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan) {
  for (const Target& t : targets) {
    if (const auto why = refuses(*t.values, options))
      throw Error(Fault::Usage, *why).in(fmt::format("tensor {}", quoted(t.name)));
    plan.steps.push_back(float_step(
        t, options,
        {.codes = t.name, .scale = module_of(t.name) + ".weight_scale_inv", .wide_scales = true}));
  }
}

// Transformers read modules_to_not_convert, older releases of vLLM ignored_layers.
std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept) {
  if (groups.size() != 1) throw Error(Fault::Internal, "fp8 blocks of more than one kind");
  const std::vector<std::string> modules(kept.begin(), kept.end());
  nlohmann::ordered_json out;
  out["quant_method"] = "fp8";
  out["fmt"] = "e4m3";
  out["activation_scheme"] = "dynamic";
  out["weight_block_size"] = {kFp8Block, kFp8Block};
  out["modules_to_not_convert"] = modules;
  out["ignored_layers"] = modules;
  return json_text(out);
}

}  // namespace wtool::fp8
