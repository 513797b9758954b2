#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "cli/quantize_plan.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

struct Options : RewriteOptions {
  TypeOptions types;
  GateOptions gates;
  FindingsOptions findings;
  bool keep = false;
  std::string imatrix, method = "exact";
  bool require_imatrix = false, fallback = false, requantize = false;
};

constexpr std::string_view kScheme = "compressed-tensors";

// Whose names these are; any container may hold either.
NameStyle style_of(const Model& model) {
  const bool ggml = std::ranges::any_of(model.tensors, [](const LogicalTensor& t) {
    return t.name.starts_with("blk.") || t.name == "token_embd.weight";
  });
  return ggml ? NameStyle::Ggml : NameStyle::HuggingFace;
}

// What llama-quantize records (llama_ftype): for a type that most tensors have.
void set_gguf_keys(Job& job, const QuantizeRequest& request, const Options& o, bool any_blocks) {
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

// Records the scheme where engines look for it: config.json, or the lone file's metadata.
std::string record_config(Job& job, const QuantizePlanner& planner, const Scheme& scheme) {
  if (planner.groups().empty()) return {};
  if (planner.already() > 0)
    throw Error(Fault::Usage, fmt::format("{} tensors are quantized already; one model has one "
                                          "quantization_config",
                                          planner.already()))
        .in(job.model->path)
        .hint("'wtool convert --dtype bf16' first gives plain weights");
  const auto ignored = planner.ignored();
  std::string config = scheme.config(planner.groups(), ignored);
  if (set_in_config(job, "quantization_config", config)) {
    job.remarks.push_back(
        fmt::format("config.json: quantization_config added ({} modules ignored)", ignored.size()));
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
void imply_gguf(Options& o) {
  const std::string& path = o.output.output;
  std::error_code ignored;
  const bool open = path.empty() || path == "-" || std::filesystem::is_directory(path, ignored) ||
                    std::filesystem::path(path).extension().empty();
  if (!o.types.type.empty() && o.to.empty() && open) o.to = "gguf";
}

void check_options(const Options& o, bool gguf) {
  if (o.method != "exact" && o.method != "best")
    throw Error(Fault::Usage, fmt::format("unknown method {}", quoted(o.method)))
        .hint("exact or best");
  if (o.require_imatrix && o.imatrix.empty())
    throw Error(Fault::Usage, "--require-imatrix is for --imatrix FILE");
  if (gguf) return;
  if (!o.imatrix.empty())
    throw Error(Fault::Usage, "--imatrix is for ggml's types, so for GGUF output")
        .hint("--to gguf");
  if (o.method == "best")
    throw Error(Fault::Usage, "--method best is for ggml's types, so for GGUF output")
        .hint("--to gguf");
}

QuantizeRequest request_of(const Options& o, const Job& job, const Context& context,
                           NameStyle style) {
  const bool gguf = job.to.format->name == "gguf";
  check_options(o, gguf);
  QuantizeRequest r;
  r.all = asked_for(o.types, gguf);
  r.rules = rules_of(o.types, *job.model, style, gguf, o.select.allow_unmatched);
  r.method = o.method == "best" ? Method::Best : Method::Exact;
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

void check_something_to_do(const Job& job) {
  if (std::ranges::any_of(job.fates, &Fate::encoded)) return;
  throw Error(Fault::Usage, fmt::format("nothing to quantize: all {} tensors stay as they are ({})",
                                        job.fates.size(), kept_reasons(job)))
      .in(job.model->path)
      .hint("-n lists them; -T 'PATTERN=TYPE' overrides what is kept");
}

ExitCode run(const Options& o, const Context& context) {
  const Format& safetensors = context.registry.format("safetensors");
  Options options = o;
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
  const Scheme& scheme = context.registry.scheme(kScheme);
  QuantizePlanner planner(job, request, scheme, style);
  planner.plan();
  if (!o.output.dry_run) check_something_to_do(job);
  const std::string config = record_config(job, planner, scheme);
  if (gguf) set_gguf_keys(job, request, o, planner.any_blocks());
  if ((o.types.fp16 || o.types.bf16) && !gguf) follow_dtype(job, request.all.choice.dtype);
  return finish(job, options, context,
                {.verb = "quantize",
                 .gates = std::move(gates),
                 .quantization = config,
                 .keep = o.keep,
                 .findings = o.findings});
}

CLI::Option* repeatable(CLI::Option* option) {
  return option->expected(1)->allow_extra_args(false)->multi_option_policy(
      CLI::MultiOptionPolicy::TakeAll);
}

void add_type_options(CLI::App& app, TypeOptions& t) {
  app.add_flag("--int8", t.int8, "8 bits: groups of 128; in GGUF q8_0");
  app.add_flag("--int4", t.int4, "4 bits: groups of 128; in GGUF q4_0");
  app.add_flag("--w8a8", t.w8a8, "int8 per channel, for int8 activations");
  app.add_flag("--bf16", t.bf16, "cast to bf16");
  app.add_flag("--fp16", t.fp16, "cast to f16; values that overflow stop it");
  app.add_option("--type", t.type, "for GGUF, a mix or type: q4_k_m, iq4_xs, …")
      ->option_text("TYPE");
  repeatable(
      app.add_option("-T,--tensor-type", t.types, "type of the matching; the last rule wins"))
      ->option_text("PATTERN=TYPE");
  app.add_option("--recipe", t.recipe, "rules from a file, one PATTERN=TYPE a line")
      ->option_text("FILE");
  app.add_flag("--pure", t.pure, "with --type: the mix's own type for everything");
  app.add_flag("--leave-output-tensor", t.leave_output, "keep the output tensor as it is");
  app.add_option("--output-tensor-type", t.output_type, "type of the output tensor")
      ->option_text("TYPE");
  app.add_option("--token-embedding-type", t.embedding_type, "type of the token embedding")
      ->option_text("TYPE");
}

Action bind(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_type_options(app, o->types);
  app.add_option("--imatrix", o->imatrix, "importance matrix: which columns' errors count")
      ->option_text("FILE");
  app.add_flag("--require-imatrix", o->require_imatrix, "stop if it lacks an entry or one misfits");
  app.add_option("--method", o->method, "exact: llama.cpp's bytes; best: search on")
      ->option_text("METHOD");
  add_gate_option(app, o->gates, "only if 'max(rel_rmse) <= 0.01', else exit 1; @FILE has several");
  app.add_flag("--keep", o->keep, "write even if a gate failed; still exit 1");
  add_findings_options(app, o->findings);
  app.add_flag("--fallback", o->fallback, "take what fits where a shape does not");
  app.add_flag("--requantize,--allow-requantize", o->requantize, "quantize block types again");
  app.add_flag("--saturate", o->saturate, "what overflows becomes the largest that fits");
  add_rewrite_options(app, *o);
  app.get_option("--tensors")->description("quantize only these, keep the others; repeatable");
  app.get_option("--exclude")->description("keep these as they are; repeatable");
  app.footer("example:\n  wtool quantize --int8 model.safetensors");
  return [o](const Context& context) { return run(*o, context); };
}

}  // namespace

extern const Command kQuantize;
const Command kQuantize{"quantize", "fewer bits per weight, with the error measured", bind};

}  // namespace wtool
