#include "lib/numeric/engine_limits.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include <fmt/format.h>

#include "lib/base/listing.h"
#include "lib/base/text.h"
#include "lib/numeric/policy.h"

namespace wtool {
namespace {

struct Fused {
  std::string_view part, set;
};
// The last part of a module's name, and what it becomes in the set's. vLLM's
// packed_modules_mapping of Llama, Qwen, Mixtral, DeepSeek and their kin; SGLang's stacked
// parameters are the same.
constexpr Fused kFused[] = {
    {"q_proj", "{q,k,v}_proj"},
    {"k_proj", "{q,k,v}_proj"},
    {"v_proj", "{q,k,v}_proj"},
    {"gate_proj", "{gate,up}_proj"},
    {"up_proj", "{gate,up}_proj"},
    {"w1", "w{1,3}"},
    {"w3", "w{1,3}"},
    {"q_a_proj", "{q,kv}_a_proj"},
    {"kv_a_proj_with_mqa", "{q,kv}_a_proj"},
};

// Reasons, each with the modules it holds for: "model.layers.*.mlp.up_proj x28".
class Lines {
 public:
  void add(std::string reason, std::string_view module) {
    auto& names = modules_of(std::move(reason));
    const std::string pattern = folded(module);
    const auto it = std::ranges::find(names, pattern, &Names::pattern);
    if (it == names.end())
      names.push_back({pattern, std::string(module), 1});
    else
      ++it->count;
  }
  std::vector<std::string> text() const {
    constexpr std::size_t kShown = 6;
    std::vector<std::string> out;
    for (const auto& [reason, names] : lines_) {
      std::vector<std::string> list;
      for (const Names& n : names)
        list.push_back(n.count == 1 ? quoted(n.first)
                                    : fmt::format("{} x{}", quoted(n.pattern), n.count));
      out.push_back(fmt::format("{}: {}", reason, first_few(list, kShown)));
    }
    return out;
  }

 private:
  struct Names {
    std::string pattern, first;
    std::size_t count;
  };
  std::vector<Names>& modules_of(std::string reason) {
    const auto it = std::ranges::find(lines_, reason, [](const auto& l) { return l.first; });
    if (it != lines_.end()) return it->second;
    return lines_.emplace_back(std::move(reason), std::vector<Names>()).second;
  }
  std::vector<std::pair<std::string, std::vector<Names>>> lines_;
};

// GPTQ that is not Marlin's. vLLM's gptq_gemm computes in f16, with 2, 3, 4 and 8 bits; when its
// GPTQ classes became one in mid-2026, what Marlin does not take was refused.
bool gptq_gemm(const EngineModule& m, Lines& lines) {
  const SchemeOptions& o = m.options;
  const bool odd = o.bits != 4 && o.bits != 8;
  if (!odd && !o.asymmetric) return false;
  lines.add(fmt::format("vLLM runs GPTQ {} on gptq_gemm only: slower than Marlin, in f16, and not "
                        "in its versions since mid-2026",
                        odd ? fmt::format("of {} bits", o.bits) : "with zero points"),
            m.name);
  return true;
}

// Marlin: outputs a multiple of 64, inputs of 128 and of the group, groups of 32, 64, 128 or a row.
void marlin(std::string_view scheme, const EngineModule& m, Lines& lines) {
  const SchemeOptions& o = m.options;
  if (scheme == "gptq" && gptq_gemm(m, lines)) return;
  if (o.bits != 4 && o.bits != 8)
    return lines.add(fmt::format("vLLM and SGLang have kernels for 4 and 8 bits, not {}; "
                                 "transformers unpacks such weights",
                                 o.bits),
                     m.name);
  if (o.group != 0 && o.group != 32 && o.group != 64 && o.group != 128)
    lines.add(fmt::format("vLLM and SGLang (Marlin) take groups of 32, 64, 128 or a whole row, "
                          "not {}",
                          o.group),
              m.name);
  if (m.outputs % 64 != 0)
    lines.add(
        fmt::format("vLLM and SGLang (Marlin) want outputs in multiples of 64, not {}", m.outputs),
        m.name);
  if (m.inputs % 128 != 0)
    lines.add(
        fmt::format("vLLM and SGLang (Marlin) want inputs in multiples of 128, not {}", m.inputs),
        m.name);
}

void floats(const EngineModule& m, Lines& lines) {
  const SchemeOptions& o = m.options;
  if (o.levels == Levels::Fp8 && o.block && m.outputs % 128 != 0)
    lines.add(fmt::format("vLLM wants the outputs of fused or split fp8 blocks in multiples of "
                          "128, not {}",
                          m.outputs),
              m.name);
}

// Members that are quantised in different ways, or of which some are left.
void fused_sets(std::span<const EngineModule> modules, std::span<const std::string> kept,
                Lines& lines) {
  std::unordered_map<std::string, const EngineModule*> first;
  for (const EngineModule& m : modules) {
    const auto set = fused_set(m.name);
    if (!set) continue;
    const auto [it, fresh] = first.emplace(set->name, &m);
    if (!fresh && !alike(it->second->options, m.options))
      lines.add(
          "vLLM and SGLang load these as one matrix, but they are quantized in different ways",
          set->name);
  }
  for (const std::string& name : kept) {
    const auto set = fused_set(name);
    if (set && first.contains(set->name))
      lines.add("vLLM and SGLang load these as one matrix, but only some are quantized", set->name);
  }
}

}  // namespace

bool alike(const SchemeOptions& a, const SchemeOptions& b) {
  return a.levels == b.levels && a.bits == b.bits && a.group == b.group &&
         a.asymmetric == b.asymmetric && a.block == b.block && a.activations == b.activations;
}

std::optional<FusedSet> fused_set(std::string_view module) {
  const auto dot = module.rfind('.');
  const std::string_view last = dot == module.npos ? module : module.substr(dot + 1);
  const auto it = std::ranges::find(kFused, last, &Fused::part);
  if (it == std::end(kFused)) return std::nullopt;
  return FusedSet{std::string(module.substr(0, module.size() - last.size())) +
                  std::string(it->set)};
}

std::vector<std::string> engine_warnings(std::string_view scheme,
                                         std::span<const EngineModule> modules,
                                         std::span<const std::string> kept) {
  Lines lines;
  for (const EngineModule& m : modules) {
    const SchemeOptions& o = m.options;
    if (o.levels == Levels::Integers && !o.activations && scheme != "bitsandbytes")
      marlin(scheme, m, lines);
    if (o.signed_scales)
      lines.add(
          "vLLM run with int8 activations gives wrong results with negative scales and does "
          "not tell",
          m.name);
    floats(m, lines);
    const std::uint64_t shape[] = {m.outputs, m.inputs};
    const auto reason = keep_reason(m.name + ".weight", DType::F32, shape, NameStyle::HuggingFace);
    if (reason == "router" || reason == "head" || reason == "embedding")
      lines.add(fmt::format("vLLM and SGLang load {} {} unquantized",
                            *reason == "embedding" ? "an" : "a", *reason),
                m.name);
  }
  fused_sets(modules, kept, lines);
  return lines.text();
}

}  // namespace wtool
