#include "cli/quantize_job.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "cli/quantize_plan.h"
#include "cli/terminal.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

// Whose names these are; any container may hold either.
NameStyle style_of(const Model& model) {
  const bool ggml = std::ranges::any_of(model.tensors, [](const LogicalTensor& t) {
    return t.name.starts_with("blk.") || t.name == "token_embd.weight";
  });
  return ggml ? NameStyle::Ggml : NameStyle::HuggingFace;
}

// What llama-quantize records (llama_ftype): for a type that most tensors have.
void set_gguf_keys(Job& job, const QuantizeRequest& request, const QuantizeCommand& o,
                   bool any_blocks) {
  Metadata known;
  const Choice& all = request.all.choice;
  const Mix* mix = request.all.mix;
  if (!mix && all.what == Choice::What::Cast) mix = find_mix(name_of(all.dtype));
  if (mix) known.set("general.file_type", mix->file_type);
  if (any_blocks) known.set("general.quantization_version", std::uint32_t{2});
  if (request.importance) request.importance->record(known);
  for (const MetaEntry& e : known)
    if (!edits_key(o, e.key)) job.meta.set(e.key, e.value);
}

constexpr std::string_view kPlainFirst = "'wtool convert --dtype bf16' first gives plain weights";

// Records the scheme where engines look for it: config.json, or the lone file's metadata.
std::string record_config(Job& job, const QuantizePlanner& planner, const QuantizeRequest& request,
                          const Scheme& scheme) {
  if (planner.scheme().groups().empty()) return {};
  if (planner.already() > 0)
    throw Error(Fault::Usage, fmt::format("{} tensors are quantized already; one model has one "
                                          "quantization_config",
                                          planner.already()))
        .in(job.model->path)
        .hint(std::string(kPlainFirst));
  std::string recipe = fmt::format("wtool {}: {}", version_number(), planner.scheme().recipe());
  if (request.importance) recipe += ", importance matrix sha256:" + request.importance->sha256();
  job.meta.set(std::string(kRecipeKey), recipe);
  const auto ignored = planner.ignored();
  std::string config = scheme.config(planner.scheme().groups(), ignored);
  if (set_in_config(job, "quantization_config", config)) {
    job.remarks.push_back(
        fmt::format("config.json: quantization_config added ({} module{} ignored)", ignored.size(),
                    ignored.size() == 1 ? "" : "s"));
    return config;
  }
  job.meta.set("quantization_config", config);
  if (job.to.kind == OutputSet::Kind::Folder)
    job.remarks.push_back(
        "there is no config.json, where engines look for quantization_config: it is in the files' "
        "metadata");
  return config;
}

// --type means GGUF, unless the output's name or --to says something else.
void imply_gguf(QuantizeCommand& o) {
  const std::string& path = o.output.output;
  std::error_code ignored;
  const bool open = path.empty() || path == "-" || std::filesystem::is_directory(path, ignored) ||
                    std::filesystem::path(path).extension().empty();
  if (!o.types.type.empty() && o.to.empty() && open) o.to = "gguf";
}

void check_options(const QuantizeCommand& o, bool gguf) {
  check_scheme_options(o.types, gguf);
  if (o.require_imatrix && o.imatrix.empty())
    throw Error(Fault::Usage, "--require-imatrix is for --imatrix FILE");
  if (gguf || o.imatrix.empty()) return;
  if (!o.types.compat.empty() || o.types.method == "rtn")
    throw Error(Fault::Usage, "rounding to nearest makes no use of --imatrix")
        .hint("--method search or optimal");
}

QuantizeRequest request_of(const QuantizeCommand& o, const Job& job, const Context& context,
                           NameStyle style) {
  const bool gguf = job.to.format->name == "gguf";
  check_options(o, gguf);
  QuantizeRequest r;
  r.all = asked_for(o.types, gguf);
  r.rules = rules_of(o.types, *job.model, style, gguf, o.select.allow_unmatched);
  r.method = o.types.method == "best" ? Method::Best : Method::Exact;
  r.pure = o.types.pure;
  r.fallback = o.fallback;
  r.requantize = o.requantize;
  r.saturate = o.saturate;
  r.require_importance = o.require_imatrix;
  if (!o.imatrix.empty()) r.importance = std::make_shared<ImportanceFile>(o.imatrix, context);
  if (r.all.mix && r.all.mix->needs_importance && !r.importance)
    throw Error(Fault::Usage, fmt::format("{} needs an importance matrix", r.all.mix->name))
        .hint(fmt::format("--imatrix FILE; or --type {} without", name_of(r.all.mix->base)));
  return r;
}

void check_something_to_do(const Job& job, bool quantized_already, bool listed) {
  if (std::ranges::any_of(job.fates, &Fate::encoded)) return;
  throw Error(Fault::Usage, fmt::format("nothing to quantize: all {} tensors stay as they are ({})",
                                        job.fates.size(), kept_reasons(job)))
      .in(job.model->path)
      .hint(fmt::format(
          "{}{}", listed ? "" : "-n lists them; ",
          quantized_already ? kPlainFirst : "-T 'PATTERN=TYPE' overrides what is kept"));
}

// Before the first byte is written, and again among the remarks.
void warn_of_engines(Job& job, const QuantizePlanner& planner, bool json) {
  if (planner.scheme().groups().empty()) return;
  std::vector<std::string> warnings = planner.scheme().warnings(planner.ignored());
  std::vector<std::string> stacks;
  for (const Fate& f : job.fates)
    if (f.kept && f.shape.size() == 3 && f.name.find("experts") != std::string::npos)
      stacks.push_back(folded(f.name));
  if (!stacks.empty()) {
    std::ranges::sort(stacks);
    stacks.erase(std::unique(stacks.begin(), stacks.end()), stacks.end());
    warnings.push_back(fmt::format(
        "experts stacked in one tensor stay as they are; vLLM and SGLang load quantized experts "
        "one by one (llm-compressor splits them): {}",
        fmt::join(stacks, ", ")));
  }
  for (const std::string& text : warnings) {
    if (!json) warn(printable(text));
    job.remarks.push_back(std::string(kWarning) + text);
  }
}

}  // namespace

ExitCode quantize(const QuantizeCommand& o, const Context& context, std::string_view verb) {
  const Format& safetensors = context.registry.format("safetensors");
  QuantizeCommand options = o;
  imply_gguf(options);
  // The label names the output and the output's format gives the label its meaning.
  const bool says_gguf = options.to == "gguf" ||
                         (options.to.empty() && o.output.output.ends_with(".gguf")) ||
                         !o.types.type.empty();
  std::vector<Gate> gates = read_gates(o.gates, rewrite_columns());
  if (o.keep && gates.empty()) throw Error(Fault::Usage, "--keep is for --gate");
  const Asked label = asked_for(o.types, says_gguf);
  Job job = prepare(options, context, label.label, &safetensors);
  const bool gguf = job.to.format->name == "gguf";
  if (job.to.format->one_tensor)
    throw Error(Fault::Usage, "NPY cannot hold quantized tensors")
        .in(job.to.path)
        .hint("--to safetensors");
  const NameStyle style = style_of(*job.model);
  const QuantizeRequest request = request_of(options, job, context, style);
  const Scheme& scheme = context.registry.scheme(scheme_for(o.types));
  if (!scheme.encode)
    throw Error(Fault::Usage, fmt::format("--scheme {} can be read but not written", scheme.name))
        .hint("compressed-tensors, gptq, awq, bitsandbytes (NF4)");
  QuantizePlanner planner(job, request, scheme, style);
  planner.plan();
  const bool already = planner.already() > 0;
  if (!o.output.dry_run) check_something_to_do(job, already, false);
  warn_of_engines(job, planner, context.common->json);
  const std::string config = record_config(job, planner, request, scheme);
  if (gguf) set_gguf_keys(job, request, o, planner.any_blocks());
  if ((o.types.fp16 || o.types.bf16) && !gguf) follow_dtype(job, request.all.choice.dtype);
  const ExitCode code = finish(job, options, context,
                               {.verb = verb,
                                .gates = std::move(gates),
                                .quantization = config,
                                .keep = o.keep,
                                .findings = o.findings});
  if (o.output.dry_run) check_something_to_do(job, already, true);  // a plan of nothing is refused
  return code;
}

}  // namespace wtool
