#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/convert_scheme.h"
#include "cli/quantize_job.h"
#include "formats/hf/gguf_view.h"
#include "formats/imatrix.h"
#include "lib/base/error.h"
#include "lib/base/listing.h"
#include "lib/base/text.h"
#include "lib/numeric/steps.h"

namespace wtool {
namespace {

struct Options : RewriteOptions {
  std::string dtype;
  std::string scheme;              // "plain", or the one to repack integers to
  std::vector<std::string> types;  // -T PATTERN=TYPE
  // Of a Hugging Face folder that becomes GGUF.
  std::string outtype;
  // What makes it quantize in the same pass.
  std::string type, imatrix;
  bool fallback = false;
};

constexpr std::string_view kPlainScheme = "plain";

DType dtype_named(const std::string& name, std::string_view option = "--dtype") {
  if (const auto type = parse_dtype(name)) return *type;
  std::vector<std::string_view> names;
  for (const DTypeInfo& t : all_dtypes()) names.push_back(t.name);
  const auto near = nearest(name, names);
  throw Error(Fault::Usage, fmt::format("unknown dtype {}", quoted(name)))
      .in(option)
      .hint(near.empty() ? "such as f32, f16, bf16"
                         : fmt::format("did you mean {}?", quoted(near)));
}

// What a cast of the whole model leaves alone, and why; "": nothing does.
std::string_view left_alone(const Job& job, const LogicalTensor& t) {
  const Kind kind = info(t.dtype).kind;
  if (kind != Kind::Float && kind != Kind::Block) return "not a floating-point tensor";
  if (job.view && job.to.format->name == "gguf" && is_f32_only(t.name, t.shape.size()))
    return "llama.cpp wants f32";
  if (job.view && t.dtype == DType::MXFP4) return "blocks already";
  return {};
}

// What each tensor becomes: nullopt is as stored.
std::vector<std::optional<DType>> wanted(const Options& o, const Job& job) {
  const Model& model = *job.model;
  std::vector<std::optional<DType>> out(model.tensors.size());
  if (!o.dtype.empty()) {
    const DType to = dtype_named(o.dtype);
    for (std::size_t i = 0; i < out.size(); ++i)
      if (left_alone(job, model.tensors[i]).empty()) out[i] = to;
  }
  if (o.scheme == kPlainScheme && o.dtype.empty()) {
    const DType to = plain_dtype(model);
    for (std::size_t i = 0; i < out.size(); ++i)
      if (model.tensors[i].count > 1) out[i] = to;
  }
  // An importance matrix of the older form counts in i32; everywhere else its counts are f32.
  if (model.catalog.format == "imatrix")
    for (std::size_t i = 0; i < out.size(); ++i)
      if (model.tensors[i].name.ends_with(kCountsSuffix)) out[i] = DType::F32;
  std::vector<TypeRule> rules;
  rules.reserve(o.types.size());
  for (const std::string& r : o.types) rules.push_back(parse_type_rule(r));
  const auto winner = last_matching(model.tensors, rules, o.select.allow_unmatched);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (winner[i] == std::string::npos) continue;
    const std::string& type = rules[winner[i]].type;
    if (type == "keep")
      out[i].reset();
    else
      out[i] = dtype_named(type, "-T " + rules[winner[i]].pattern + '=' + type);
  }
  return out;
}

// All that cannot be done, in one error, before any work.
void refuse_all(const std::vector<std::string>& refused) {
  if (refused.empty()) return;
  constexpr std::size_t kShown = 20;
  throw Error(Fault::Usage, first_few(refused, kShown, "; "))
      .hint("-T 'NAME=keep' leaves a tensor as it is");
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
  drop_stale_configs(job);
  job.meta.erase(kRecipeKey);
  bool dropped = job.meta.erase("quantization_config");
  dropped |= set_in_config(job, "quantization_config", "");
  if (dropped)
    job.remarks.push_back("quantization_config removed: no tensor is quantized any more");
}

// Parts of quantised tensors that are copied as they are must stay what their config describes.
void settle_quantized(Job& job) {
  const Model& model = *job.model;
  std::size_t copied = 0;
  std::string_view scheme;
  bool renamed = false;
  for (const Fate& f : job.fates) {
    const TensorEntry* part = f.encoded ? nullptr : model.catalog.find(f.source);
    if (!part) continue;
    const LogicalTensor& t = model.tensors[job.owner[model.catalog.index_of(*part)]];
    if (t.count == 1) continue;
    ++copied;
    scheme = t.scheme->name;
    renamed |= f.name != f.source;
  }
  if (copied == 0) return;
  if (job.to.format->name == "gguf")
    throw Error(Fault::Usage, fmt::format("{} tensors are parts of {}, which GGUF has no form for",
                                          copied, scheme))
        .in(model.path)
        .hint("--dtype f16 decodes them first");
  const std::string config = quantization_config_of(model);
  if (renamed && (!config.empty() || job.meta.find("quantization_config")))
    throw Error(Fault::Usage,
                "quantization_config names the modules of quantized tensors: renaming them would "
                "leave it behind")
        .in("--rename")
        .hint("rename before quantizing, or decode with --dtype");
  if (job.to.kind != OutputSet::Kind::Folder && !config.empty() &&
      !job.meta.find("quantization_config")) {
    job.meta.set("quantization_config", config);
    job.remarks.push_back("quantization_config of config.json is in the file's metadata");
  }
}

// llama_ftype: a number that would be wrong after a cast is worse than none.
void settle_file_type(Job& job, std::optional<DType> all) {
  constexpr std::string_view kKey = "general.file_type";
  if (job.to.format->name != "gguf" || !job.meta.find(kKey) ||
      std::ranges::none_of(job.fates, &Fate::encoded))
    return;
  const auto number = all == DType::F32    ? std::optional(0u)
                      : all == DType::F16  ? std::optional(1u)
                      : all == DType::BF16 ? std::optional(32u)
                                           : std::nullopt;
  if (number)
    job.meta.set(kKey, *number);
  else
    job.meta.erase(kKey);
  job.remarks.push_back(number ? fmt::format("{} is now {}", kKey, *number)
                               : fmt::format("{} removed: the types are mixed now", kKey));
}

void add_tensors(Job& job, const Options& o) {
  const Model& model = *job.model;
  const auto types = wanted(o, job);
  std::vector<std::string> refused;
  std::size_t decoded = 0;
  bool all_cast = !o.dtype.empty();
  for (const TensorEntry& entry : model.catalog.entries()) {
    const std::uint32_t i = job.owner[model.catalog.index_of(entry)];
    const LogicalTensor& t = model.tensors[i];
    if (!job.chosen[i]) continue;
    const bool is_first = &model.part(t, 0) == &entry;
    if (!types[i] || (t.count == 1 && t.dtype == *types[i])) {
      const std::string_view why = left_alone(job, t);
      all_cast &= !o.dtype.empty() && (t.dtype == parse_dtype(o.dtype) || !why.empty());
      add_copy(job, entry, !o.dtype.empty() && !types[i] ? std::string(why) : "");
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
  settle_quantized(job);
  settle_file_type(job, all_cast ? parse_dtype(o.dtype) : std::nullopt);
  if (all_cast) follow_dtype(job, dtype_named(o.dtype));
}

// What the older form of an importance matrix does not keep.
void remark_importance(Job& job, const Importance& matrix) {
  if (const auto size = matrix.chunk_size().value_or(1); size > 1)
    job.remarks.push_back(
        fmt::format("counts are chunks of {} now, rounded up; that size is not kept", size));
  if (const auto names = matrix.datasets(); names.size() > 1)
    job.remarks.push_back(
        fmt::format("{}: of {} names the last is kept", kImatrixDatasets, names.size()));
  const auto uneven = std::ranges::count_if(matrix.entries(), [](const Importance::Entry& e) {
    return std::ranges::any_of(e.counts, [&](float c) { return c != e.counts[0]; });
  });
  if (uneven > 0)
    job.remarks.push_back(fmt::format(
        "{} entries have experts with different counts: one count is kept for each entry", uneven));
}

// Both tensors of each entry in the form that imatrix.dat gives them. What belongs to no entry is
// left to the format, which refuses it by name.
void add_importance(Job& job, const Options& o) {
  const Model& model = *job.model;
  if (!o.dtype.empty() || !o.types.empty())
    throw Error(Fault::Usage, "an importance matrix in .dat form is f32 and i32, nothing else")
        .in(o.dtype.empty() ? "-T" : "--dtype");
  const auto matrix = std::make_shared<const Importance>(Importance::read(job.model));
  const auto chosen = [&](std::uint32_t entry) -> bool { return job.chosen[job.owner[entry]]; };
  const auto add = [&](std::uint32_t entry, std::unique_ptr<Step> step) {
    const std::size_t before = job.plan.steps.size();
    const std::string type(name_of(step->outputs()[0].dtype));
    job.plan.steps.push_back(std::move(step));
    add_encoded(job, model.tensors[job.owner[entry]], before, type);
  };
  std::vector<bool> done(model.catalog.entries().size());
  for (const Importance::Entry& e : matrix->entries()) {
    done[e.sums] = done[e.counted] = true;
    if (chosen(e.sums) != chosen(e.counted))
      throw Error(Fault::Usage,
                  fmt::format("importance of {}: sums and counts go together", quoted(e.name)))
          .in(model.path);
    if (!chosen(e.sums)) continue;
    const std::int32_t calls = imatrix_calls(e, matrix->chunk_size().value_or(1));
    const auto renamed = [&](std::uint32_t i) {
      return (*job.rename)(model.catalog.entries()[i].name);
    };
    add(e.sums, imatrix_sums_step(renamed(e.sums), matrix, e, calls));
    add(e.counted, imatrix_counts_step(renamed(e.counted), calls));
  }
  for (const TensorEntry& t : model.catalog.entries())
    if (const auto i = model.catalog.index_of(t); !done[i] && chosen(i)) add_copy(job, t);
  remark_importance(job, *matrix);
}

void check_scheme(const Options& o, const Job& job) {
  if (o.scheme.empty()) return;
  if (o.scheme != kPlainScheme && (!o.dtype.empty() || !o.types.empty()))
    throw Error(Fault::Usage, "repacking changes no value, so there is no type to choose")
        .in(o.dtype.empty() ? "-T" : "--dtype")
        .hint("--scheme plain decodes");
  const auto& tensors = job.model->tensors;
  if (o.scheme == kPlainScheme && o.dtype.empty() &&
      std::ranges::none_of(tensors, [](const LogicalTensor& t) { return t.count > 1; }))
    throw Error(Fault::Usage, "nothing to decode: no tensor is stored by a quantization scheme")
        .in(job.model->path)
        .hint("--dtype casts");
}

// A mix or a type of blocks: what 'quantize' does.
ExitCode run_type(const Options& o, const Context& context) {
  if (!o.dtype.empty() || !o.scheme.empty())
    throw Error(Fault::Usage,
                fmt::format("contradicts {}", o.dtype.empty() ? "--scheme" : "--dtype"))
        .in("--type");
  QuantizeCommand q;
  static_cast<RewriteOptions&>(q) = o;
  q.types.type = o.type;
  q.types.types = o.types;
  q.imatrix = o.imatrix;
  q.fallback = o.fallback;
  return quantize(q, context, "convert");
}

ExitCode run(const Options& o, const Context& context);

// As llama.cpp's converter spells it. Its 'auto' is the type of the first matrix, or f16 where all
// is f32.
ExitCode run_outtype(const Options& o, const Context& context) {
  if (!o.dtype.empty() || !o.type.empty() || !o.scheme.empty())
    throw Error(Fault::Usage, "contradicts --dtype, --type and --scheme").in("--outtype");
  Options as = o;
  as.outtype.clear();
  if (as.to.empty() && as.output.output.empty()) as.to = "gguf";
  if (o.outtype == "auto") {
    const auto model = open_input(o.input, context);
    DType first = DType::F16;
    for (const LogicalTensor& t : model->tensors)
      if (t.shape.size() > 1 && (t.dtype == DType::BF16 || t.dtype == DType::F16)) {
        first = t.dtype;
        break;
      }
    as.dtype = name_of(first);
    return run(as, context);
  }
  const auto type = parse_dtype(o.outtype);
  if (type == DType::F32 || type == DType::F16 || type == DType::BF16)
    as.dtype = o.outtype;
  else
    as.type = o.outtype;
  return run(as, context);
}

ExitCode run(const Options& o, const Context& context) {
  if (!o.outtype.empty()) return run_outtype(o, context);
  if (!o.type.empty()) return run_type(o, context);
  for (const auto& [given, name] :
       {std::pair(o.fallback, "--fallback"), std::pair(!o.imatrix.empty(), "--imatrix")})
    if (given) throw Error(Fault::Usage, "is for --type").in(name);
  const std::string label = o.dtype.empty() ? o.scheme : std::string(name_of(dtype_named(o.dtype)));
  const Scheme* scheme = o.scheme.empty() ? nullptr : &context.registry.scheme(o.scheme);
  Options options = o;
  options.as_is |= scheme && scheme->name != kPlainScheme;  // of safetensors: nothing to map
  Job job = prepare(options, context, label);
  check_scheme(o, job);
  std::string quantization;
  if (scheme && scheme->name != kPlainScheme)
    quantization = add_repacked(job, *scheme);
  else if (job.to.format->name == "imatrix")
    add_importance(job, o);
  else
    add_tensors(job, o);
  return finish(job, o, context, {.verb = "convert", .gates = {}, .quantization = quantization});
}

Action bind(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_rewrite_options(app, *o);
  app.get_option("--to")->description(
      "format to write: safetensors, gguf, npy, imatrix; hf: a folder");
  app.add_option("--dtype", o->dtype, "cast floating-point tensors: f32, f16, bf16, …")
      ->option_text("TYPE");
  app.add_option("--type", o->type, "quantize to a mix or type of GGUF: q4_k_m, q8_0, …")
      ->option_text("TYPE");
  app.add_option("--outtype", o->outtype, "as llama.cpp's converter: auto, f32, f16, bf16, q8_0")
      ->option_text("TYPE");
  app.add_option("--imatrix", o->imatrix, "with --type: importance matrix")->option_text("FILE");
  app.add_flag("--fallback", o->fallback, "with --type: take what fits where a shape does not");
  app.add_option("--scheme", o->scheme,
                 "repack quantized integers: compressed-tensors, gptq, awq; plain decodes")
      ->option_text("NAME");
  app.add_option("-T,--tensor-type", o->types,
                 "type of the matching tensors, or 'keep'; the last matching rule wins")
      ->option_text("PATTERN=TYPE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--saturate", o->saturate, "values that do not fit become the largest that does");
  for (const char* name : {"--as", "--allow-unmatched", "--drop-metadata", "--endian",
                           "--no-lineage", "--passphrase-fd", "--passphrase-env", "--provenance",
                           "--bom", "--imatrix", "--fallback", "--saturate"})
    app.get_option(name)->group("more, in the page");
  app.footer("example:\n  wtool convert model/ -o model-bf16/ --dtype bf16 --shard-size 5GB");
  return [o](const Context& context) { return run(*o, context); };
}

}  // namespace

extern const Command kConvert;
const Command kConvert{"convert", "change format, dtype, names, metadata or shards in one pass",
                       bind};

}  // namespace wtool
