#include <algorithm>

#include <fmt/format.h>

#include "cli/rewrite.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/steps.h"

namespace wtool {
namespace {

struct Options : RewriteOptions {
  std::string dtype;
  std::vector<std::string> types;  // -T PATTERN=TYPE
};

DType dtype_named(const std::string& name) {
  if (const auto type = parse_dtype(name)) return *type;
  std::vector<std::string_view> names;
  for (const DTypeInfo& t : all_dtypes()) names.push_back(t.name);
  const auto near = nearest(name, names);
  throw Error(Fault::Usage, fmt::format("unknown dtype {}", quoted(name)))
      .hint(near.empty() ? "such as f32, f16, bf16"
                         : fmt::format("did you mean {}?", quoted(near)));
}

// What each tensor becomes: nullopt is as stored.
std::vector<std::optional<DType>> wanted(const Options& o, const Model& model) {
  std::vector<std::optional<DType>> out(model.tensors.size());
  if (!o.dtype.empty()) {
    const DType to = dtype_named(o.dtype);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const Kind kind = info(model.tensors[i].dtype).kind;
      if (kind == Kind::Float || kind == Kind::Block) out[i] = to;
    }
  }
  std::vector<TypeRule> rules;
  for (const std::string& r : o.types) rules.push_back(parse_type_rule(r));
  const auto winner = last_matching(model.tensors, rules, o.select.allow_unmatched);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (winner[i] == std::string::npos) continue;
    const std::string& type = rules[winner[i]].type;
    if (type == "keep")
      out[i].reset();
    else
      out[i] = dtype_named(type);
  }
  return out;
}

// All that cannot be done, in one error, before any work.
void refuse_all(const std::vector<std::string>& refused) {
  if (refused.empty()) return;
  constexpr std::size_t kShown = 20;
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, refused.size()); ++i)
    text += (i ? "; " : "") + refused[i];
  if (refused.size() > kShown) text += fmt::format("; and {} more", refused.size() - kShown);
  throw Error(Fault::Usage, text).hint("-T 'NAME=keep' leaves a tensor as it is");
}

// A model none of whose tensors is quantised any more must not say that it is.
void drop_quantization_config(Job& job, std::size_t decoded) {
  if (decoded == 0) return;
  const Model& model = *job.model;
  for (std::size_t i = 0; i < model.tensors.size(); ++i)
    if (job.chosen[i] && model.tensors[i].count > 1 &&
        !std::ranges::any_of(job.fates, [&](const Fate& f) {
          return f.encoded && f.name == (*job.rename)(model.tensors[i].name);
        })) {
      job.remarks.push_back("quantization_config kept: some tensors are still quantized");
      return;
    }
  bool dropped = job.meta.erase("quantization_config");
  dropped |= set_in_config(job, "quantization_config", "");
  if (dropped)
    job.remarks.push_back("quantization_config removed: no tensor is quantized any more");
}

void add_tensors(Job& job, const Options& o) {
  const Model& model = *job.model;
  const auto types = wanted(o, model);
  std::vector<std::string> refused;
  std::size_t decoded = 0;
  bool all_cast = !o.dtype.empty();
  for (const TensorEntry& entry : model.catalog.entries()) {
    const std::uint32_t i = job.owner[model.catalog.index_of(entry)];
    const LogicalTensor& t = model.tensors[i];
    if (!job.chosen[i]) continue;
    const bool is_first = &model.part(t, 0) == &entry;
    if (!types[i] || (t.count == 1 && t.dtype == *types[i])) {
      all_cast &= !o.dtype.empty() &&
                  (t.dtype == parse_dtype(o.dtype) || info(t.dtype).kind != Kind::Float);
      add_copy(job, entry,
               !o.dtype.empty() && info(t.dtype).kind != Kind::Float && !types[i]
                   ? "not a floating-point tensor"
                   : "");
      continue;
    }
    if (!is_first) continue;
    all_cast &= *types[i] == parse_dtype(o.dtype);
    const TensorPtr values = model.open(t);
    if (const auto why = cast_refuses(*values, *types[i])) {
      refused.push_back(fmt::format("tensor {}: {}", quoted(t.name), *why));
      continue;
    }
    const std::size_t before = job.plan.steps.size();
    job.plan.steps.push_back(cast_step((*job.rename)(t.name), values, *types[i],
                                       {.saturate = o.saturate, .measure = false}));
    add_encoded(job, t, before, std::string(name_of(*types[i])));
    decoded += t.count > 1;
  }
  refuse_all(refused);
  drop_quantization_config(job, decoded);
  if (all_cast) follow_dtype(job, dtype_named(o.dtype));
}

ExitCode run(const Options& o, const Context& context) {
  const std::string label = o.dtype.empty() ? "" : std::string(name_of(dtype_named(o.dtype)));
  Job job = prepare(o, context, label);
  add_tensors(job, o);
  return finish(job, o, context, {.verb = "convert", .gates = {}, .quantization = {}});
}

Action bind(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_rewrite_options(app, *o);
  app.add_option("--dtype", o->dtype, "cast floating-point tensors: f32, f16, bf16, …")
      ->option_text("TYPE");
  app.add_option("-T,--tensor-type", o->types,
                 "type of the matching tensors, or 'keep'; the last matching rule wins")
      ->option_text("PATTERN=TYPE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--saturate", o->saturate, "values that do not fit become the largest that does");
  app.footer("example:\n  wtool convert model/ -o model-bf16/ --dtype bf16 --shard-size 5GB");
  return [o](const Context& context) { return run(*o, context); };
}

}  // namespace

extern const Command kConvert;
const Command kConvert{"convert", "change format, dtype, names, metadata or shards in one pass",
                       bind};

}  // namespace wtool
