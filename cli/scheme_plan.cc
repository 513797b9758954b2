#include "cli/scheme_plan.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "lib/numeric/engine_limits.h"
#include "lib/numeric/policy.h"

namespace wtool {
namespace {

constexpr std::array<std::uint64_t, 3> kGroups{128, 64, 32};
constexpr std::string_view kWeight = ".weight";

std::string module_of(std::string_view name) {
  if (name.ends_with(kWeight)) name.remove_suffix(kWeight.size());
  return std::string(name);
}

bool chooses_groups(const Choice& choice) {
  return choice.any_group && choice.scheme.levels == Levels::Integers && !choice.scheme.activations;
}

}  // namespace

std::string text_of(const SchemeOptions& o) {
  switch (o.levels) {
    case Levels::Fp8: return o.block ? "fp8 (128 x 128 blocks)" : "fp8 per channel";
    case Levels::Nvfp4: return "nvfp4";
    case Levels::Mxfp4: return "mxfp4";
    case Levels::Mxfp8: return "mxfp8";
    case Levels::Nf4: return "nf4";
    default: break;
  }
  if (o.activations) return "int8 per channel (w8a8)";
  const std::string_view zeros = o.asymmetric ? ", zero points" : "";
  return o.group == 0 ? fmt::format("int{} (per channel{})", o.bits, zeros)
                      : fmt::format("int{} (group {}{})", o.bits, o.group, zeros);
}

void SchemePlan::share(std::span<const std::uint32_t> tensors, const SchemeOptions& options) {
  if (!scheme_.measure) return;
  std::map<std::string, std::vector<std::uint32_t>> sets;
  for (const std::uint32_t i : tensors)
    if (const auto set = fused_set(module_of(job_.model->tensors[i].name)))
      sets[set->name].push_back(i);
  for (const auto& [name, members] : sets) {
    if (members.size() < 2) continue;
    std::vector<TensorPtr> values;
    for (const std::uint32_t i : members)
      values.push_back(job_.model->open(job_.model->tensors[i]));
    const auto step = scheme_.measure(values, options, job_.plan);
    if (!step) return;
    for (const std::uint32_t i : members) shared_[i] = step;
  }
}

std::optional<std::string> SchemePlan::add(const LogicalTensor& tensor, const Choice& choice,
                                           ColumnImportance importance) {
  const TensorPtr values = job_.model->open(tensor);
  SchemeOptions options = choice.scheme;
  std::optional<std::string> why = scheme_.refuses(*values, options), first_why = why;
  if (chooses_groups(choice))
    for (const std::uint64_t group : kGroups) {
      if (!why) break;
      options.group = group;
      why = scheme_.refuses(*values, options);
    }
  if (why) return why;  // of the smallest group that was tried

  const auto at = static_cast<std::uint32_t>(&tensor - job_.model->tensors.data());
  const auto shared = shared_.find(at);
  const Target target{(*job_.rename)(tensor.name), values, std::move(importance),
                      shared == shared_.end() ? nullptr : shared->second};
  const std::size_t before = job_.plan.steps.size();
  scheme_.encode(std::span(&target, 1), options, job_.plan);
  add_encoded(job_, tensor, before, text_of(options), first_why.value_or(""));
  planned_.push_back({&tensor, module_of(target.name), options});
  add_to_group(options, planned_.back().module);
  return std::nullopt;
}

void SchemePlan::add_to_group(const SchemeOptions& options, std::string module) {
  auto it = std::ranges::find_if(groups_,
                                 [&](const ConfigGroup& g) { return alike(g.options, options); });
  if (it == groups_.end()) it = groups_.insert(groups_.end(), {options, {}});
  it->modules.push_back(std::move(module));
}

std::string SchemePlan::recipe() const {
  std::string text;
  for (const ConfigGroup& g : groups_) {
    const SchemeOptions& o = g.options;
    const std::string_view method = o.method == ScaleMethod::Rtn      ? "rtn"
                                    : o.method == ScaleMethod::Search ? "search"
                                                                      : "optimal";
    text += fmt::format("{}{} by {}{}{}", text.empty() ? "" : ", ", text_of(o), method,
                        o.signed_scales ? ", signed scales" : "",
                        o.source_arithmetic ? " in the source's arithmetic" : "");
  }
  return text;
}

std::vector<std::string> SchemePlan::warnings(std::span<const std::string> kept) const {
  std::vector<EngineModule> modules;
  for (const Planned& p : planned_)
    modules.push_back({p.module, p.tensor->shape[0], p.tensor->shape[1], p.options});
  return engine_warnings(scheme_.name, modules, kept);
}

}  // namespace wtool
