#include <algorithm>
#include <filesystem>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/quantize_plan.h"
#include "cli/terminal.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

struct Options : RewriteOptions {
  TypeOptions types;
  GateOptions gates;
  FindingsOptions findings;
  bool keep = false;
  std::string imatrix;
  bool require_imatrix = false, fallback = false, requantize = false;
};

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
void imply_gguf(Options& o) {
  const std::string& path = o.output.output;
  std::error_code ignored;
  const bool open = path.empty() || path == "-" || std::filesystem::is_directory(path, ignored) ||
                    std::filesystem::path(path).extension().empty();
  if (!o.types.type.empty() && o.to.empty() && open) o.to = "gguf";
}

void check_options(const Options& o, bool gguf) {
  check_scheme_options(o.types, gguf);
  if (o.require_imatrix && o.imatrix.empty())
    throw Error(Fault::Usage, "--require-imatrix is for --imatrix FILE");
  if (gguf || o.imatrix.empty()) return;
  if (!o.types.compat.empty() || o.types.method == "rtn")
    throw Error(Fault::Usage, "rounding to nearest makes no use of --imatrix")
        .hint("--method search or optimal");
}

QuantizeRequest request_of(const Options& o, const Job& job, const Context& context,
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
                               {.verb = "quantize",
                                .gates = std::move(gates),
                                .quantization = config,
                                .keep = o.keep,
                                .findings = o.findings});
  if (o.output.dry_run) check_something_to_do(job, already, true);  // a plan of nothing is refused
  return code;
}

CLI::Option* repeatable(CLI::Option* option) {
  return option->expected(1)->allow_extra_args(false)->multi_option_policy(
      CLI::MultiOptionPolicy::TakeAll);
}

void add_type_options(CLI::App& app, TypeOptions& t) {
  app.add_flag("--int8", t.int8, "8 bits: groups of 128; in GGUF q8_0");
  app.add_flag("--int4", t.int4, "4 bits: groups of 128; in GGUF q4_0");
  app.add_option("--bits", t.bits, "integers of N bits, 2 to 8")->option_text("N");
  app.add_flag("--w8a8", t.w8a8, "int8 per channel, for int8 activations");
  app.add_flag("--fp8", t.fp8, "e4m3 per channel, for fp8 activations");
  app.add_flag("--nvfp4", t.nvfp4, "4-bit floats in groups of 16");
  app.add_flag("--mxfp4,--fp4", t.mxfp4, "4-bit floats in groups of 32");
  app.add_flag("--mxfp8", t.mxfp8, "8-bit floats in groups of 32");
  app.add_flag("--nf4", t.nf4, "NF4 of bitsandbytes");
  app.add_flag("--bf16", t.bf16, "cast to bf16");
  app.add_flag("--fp16", t.fp16, "cast to f16; values that overflow stop it");
  app.add_option("--group-size", t.group_size, "columns that share a scale; or 'channel'")
      ->option_text("N");
  app.add_flag("--asym", t.asymmetric, "integers with zero points");
  app.add_flag("--block", t.block, "fp8: a scale for each 128 x 128");
  app.add_option("--scheme", t.scheme, "how it lies in safetensors: compressed-tensors, gptq, awq")
      ->option_text("NAME");
  app.add_option("--method", t.method, "scales by rtn, search, optimal; GGUF: exact, best")
      ->option_text("METHOD");
  app.add_flag("--signed-scales", t.signed_scales, "scales may be negative: not for all kernels");
  app.add_option("--compat", t.compat, "the bytes of another tool: compressed-tensors")
      ->option_text("TOOL");
  app.add_option("--type", t.type, "for GGUF, a mix or type: q4_k_m, iq4_xs, …")
      ->option_text("TYPE");
  repeatable(
      app.add_option("-T,--tensor-type", t.types, "type of the matching; the last rule wins"))
      ->option_text("PATTERN=TYPE");
  app.add_option("--recipe", t.recipe, "rules from a file, one PATTERN=TYPE a line")
      ->option_text("FILE");
  app.add_flag("--pure", t.pure, "with --type: its own type for everything");
  app.add_flag("--leave-output-tensor", t.leave_output, "keep the output tensor as it is");
  app.add_option("--output-tensor-type", t.output_type, "type of the output tensor")
      ->option_text("TYPE");
  app.add_option("--token-embedding-type", t.embedding_type, "type of the token embedding")
      ->option_text("TYPE");
}

// Options that the help only names: a line for each would not fit a screen.
void fold_options(CLI::App& app) {
  for (const char* name : {"--alone",
                           "--as",
                           "--allow-unmatched",
                           "--shard-size",
                           "--single",
                           "--rename",
                           "--set",
                           "--set-file",
                           "--unset",
                           "--drop-metadata",
                           "--endian",
                           "--lineage",
                           "--no-lineage",
                           "--saturate",
                           "--sign",
                           "--passphrase-fd",
                           "--passphrase-env",
                           "--manifest",
                           "--provenance",
                           "--bom"})
    app.get_option(name)->group("as in convert");
  for (const char* name :
       {"--pure", "--leave-output-tensor", "--output-tensor-type", "--token-embedding-type",
        "--require-imatrix", "--requantize", "--signed-scales", "--compat", "--block"})
    app.get_option(name)->group("more, in the page");
}

Action bind(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_type_options(app, o->types);
  app.add_option("--imatrix", o->imatrix, "importance matrix: what errors count how much")
      ->option_text("FILE");
  app.add_flag("--require-imatrix", o->require_imatrix, "stop if it lacks an entry or one misfits");
  add_gate_option(app, o->gates, "only if 'max(rel_rmse) <= 0.01'; or @FILE");
  app.add_flag("--keep", o->keep, "write even if a gate failed; still exit 1");
  add_findings_options(app, o->findings);
  app.add_flag("--fallback", o->fallback, "take what fits where a shape does not");
  app.add_flag("--requantize,--allow-requantize", o->requantize, "quantize block types again");
  app.add_flag("--saturate", o->saturate, "what overflows becomes the largest that fits");
  add_rewrite_options(app, *o);
  fold_options(app);
  app.get_option("--tensors")->description("quantize only these, keep others; repeatable");
  app.get_option("--exclude")->description("keep these as they are; repeatable");
  app.footer("example:\n  wtool quantize --int8 model.safetensors");
  return [o](const Context& context) { return run(*o, context); };
}

}  // namespace

extern const Command kQuantize;
const Command kQuantize{"quantize", "fewer bits per weight, with the error measured", bind};

}  // namespace wtool
