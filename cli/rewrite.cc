#include "cli/rewrite.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/json.h"
#include "cli/json_edit.h"
#include "cli/records.h"
#include "cli/terminal.h"
#include "formats/hf/gguf_view.h"
#include "formats/hf/hf_view.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/drift.h"
#include "lib/numeric/steps.h"

namespace wtool {
namespace {

using Json = nlohmann::ordered_json;

// --- Judging -----------------------------------------------------------------------------------

std::uint64_t count_in(const Row& row, std::string_view column) {
  const Cell* cell = row.find(column);
  const auto* n = cell ? std::get_if<std::uint64_t>(cell) : nullptr;
  return n ? *n : 0;
}

const Fate* fate_of(const Job& job, std::string_view name) {
  const auto it = std::ranges::find(job.fates, name, &Fate::name);
  return it == job.fates.end() ? nullptr : &*it;
}

// "[3, 17]": where a flat index lies.
std::string index_text(std::uint64_t flat, const Shape& shape) {
  std::vector<std::uint64_t> at(shape.size());
  for (std::size_t d = shape.size(); d-- > 0;) {
    at[d] = shape[d] ? flat % shape[d] : 0;
    flat = shape[d] ? flat / shape[d] : 0;
  }
  return to_text(at);
}

// What only values show. Throws BadFile: nothing is committed.
void judge_values(const Job& job, const Report& report, bool saturate) {
  std::string first;
  std::size_t tensors = 0;
  bool non_finite = false;
  for (const Row& row : report.rows) {
    const std::uint64_t bad = count_in(row, kNonFinite.name);
    std::uint64_t over = count_in(row, kOverflows.name);
    if (bad + over == 0) continue;
    const Fate* fate = fate_of(job, row.tensor);
    // A block whose scale is beyond f16 has no largest value to become.
    const auto to = fate ? parse_dtype(fate->to) : std::nullopt;
    if (saturate && !(to && info(*to).kind == Kind::Block)) over = 0;
    if (bad + over == 0) continue;
    ++tensors;
    if (tensors > 20) continue;
    non_finite |= bad > 0;
    const std::uint64_t at = count_in(row, kFirstBad.name);
    const std::string what =
        bad > 0 ? fmt::format("{} NaN or infinite values", bad)
                : fmt::format("{} of {} values do not fit {}", over, fate ? fate->elements : 0,
                              fate ? fate->to : "the type");
    first += fmt::format("{}tensor {}: {}, the first at {} (element {})", first.empty() ? "" : "; ",
                         quoted(row.tensor), what, fate ? index_text(at, fate->shape) : "?", at);
  }
  if (tensors == 0) return;
  if (tensors > 20) first += fmt::format("; and {} tensors more", tensors - 20);
  throw Error(Fault::BadFile, first + "; nothing was written")
      .in(job.model->path)
      .hint(non_finite ? "-T 'NAME=keep' leaves a tensor as it is"
                       : "--saturate writes the largest value instead");
}

// What --saturate did is said, tensor by tensor.
void list_saturated(Job& job, const Report& report) {
  for (const Row& row : report.rows)
    if (const std::uint64_t n = count_in(row, kOverflows.name); n > 0)
      job.remarks.push_back(fmt::format("saturated: {} values of '{}'", n, row.tensor));
}

// Rows of the table may be cut off: these tensors are named all the same.
void list_fallback_blocks(Job& job, const Report& report) {
  std::string text;
  for (const Row& row : report.rows)
    if (const std::uint64_t n = count_in(row, kFallbackBlocks.name); n > 0)
      text += fmt::format("{}{} in '{}'", text.empty() ? "" : ", ", n, row.tensor);
  if (!text.empty())
    job.remarks.push_back("blocks quantized unweighted, since their weighted fit was not finite: " +
                          text);
}

constexpr std::string_view kMetrics[] = {
    "rel_rmse", "sqnr_db", "max_error",         "max_steps",
    "cos",      "clipped", "weighted_rel_rmse", "fallback_blocks"};

// The tensors that the report will have rows of, under their names there, with the type and shape
// that they have in the input.
std::vector<LogicalTensor> gate_rows(const Job& job) {
  std::unordered_map<std::string_view, std::string_view> names;
  for (const Fate& f : job.fates)
    if (f.encoded) names.emplace(f.source, f.name);
  std::vector<LogicalTensor> rows;
  for (const LogicalTensor& t : job.model->tensors)
    if (const auto it = names.find(t.name); it != names.end()) {
      rows.push_back(t);
      rows.back().name = it->second;
    }
  return rows;
}

// What is known before any work: only an importance matrix makes weighted errors.
void check_gates(const Job& job, const Finish& how, std::span<const LogicalTensor> rows) {
  const bool weighted =
      std::ranges::any_of(job.fates, [](const Fate& f) { return f.importance == kImportanceUsed; });
  for (const Gate& g : how.gates) {
    check_gate(g, rows);
    for (const std::string_view column : {kWeightedRmse.name, kFallbackBlocks.name})
      if (!weighted && reads(g, column))
        throw Error(Fault::Usage, fmt::format("no tensor here has a {}", column))
            .in(g.origin)
            .hint("tensors weighted by an --imatrix have it");
  }
}

void check_findings(const Finish& how, bool dry_run) {
  if (!how.findings.any()) return;
  if (how.gates.empty())
    throw Error(Fault::Usage, "--junit and --sarif tell of gates, and there is no --gate");
  if (dry_run)
    throw Error(Fault::Usage, "--junit and --sarif tell how gates were judged, not in a dry run");
}

// Before any work.
void check_reports(const Job& job, const RewriteOptions& o, const Finish& how,
                   const std::vector<std::string>& beside) {
  std::vector<ReportFile> files = how.findings.files();
  files.push_back({"--report", o.output.report});
  std::vector<std::string> taken = files_of(job.input());
  if (job.to.kind != OutputSet::Kind::Stdout) taken.push_back(job.to.path);
  taken.insert(taken.end(), beside.begin(), beside.end());
  check_report_files(files, o.output.force, taken);
}

bool write_json_report(const Outcome& outcome, const RewriteOptions& o, const Context& context) {
  return give_json(o.output.report, context.common->json,
                   [&](const JsonSink& sink) { write_outcome_json(outcome, sink); });
}

}  // namespace

void add_rewrite_options(CLI::App& app, RewriteOptions& o) {
  add_input_options(app, o.input);
  add_output_options(app, o.output);
  add_select_options(app, o.select);
  app.add_option("--to", o.to, "format to write: safetensors, gguf, npy")->option_text("FORMAT");
  app.add_option("--shard-size", o.shard_size, "cut into files of at most SIZE (5GB, 5GiB)")
      ->option_text("SIZE");
  app.add_flag("--single", o.single, "one file, however many the input has");
  app.add_option("--rename", o.rename, "rename: regular expression A to B, with \\1")
      ->option_text("A=B")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--set", o.set, "set a metadata key; KEY:u32=5 gives the type")
      ->option_text("KEY[:TYPE]=VALUE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--set-file", o.set_file, "set a metadata string from a file")
      ->option_text("KEY=FILE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--unset", o.unset, "remove a metadata key")
      ->option_text("KEY")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--drop-metadata", o.drop_metadata, "start without the input's metadata");
  app.add_option("--endian", o.endian, "byte order of GGUF and NPY: little, big")
      ->option_text("ORDER");
  app.add_flag("--as-is", o.as_is, "folder to GGUF: keep names, make no model that runs");
  app.add_option("--arch", o.arch, "folder to GGUF: the class to take config.json for")
      ->option_text("CLASS");
  app.add_option("--pre", o.pre, "folder to GGUF: the pre-tokenizer's name")->option_text("NAME");
  app.add_flag("--no-vocab", o.no_vocab, "folder to GGUF: leave the tokenizer out");
  add_record_options(app, o.records);
}

namespace {

// A model's folder becomes one file, beside it if no name is given.
void settle_view(Job& job, const RewriteOptions& o, std::string_view label) {
  job.view = std::make_shared<const ModelView>(
      gguf_view(job.model, {.arch = o.arch, .pre = o.pre, .no_vocab = o.no_vocab}));
  job.model = job.view->model;
  job.remarks = job.view->notes;
  if (!o.output.output.empty() || job.to.kind != OutputSet::Kind::Folder) return;
  job.to.kind = OutputSet::Kind::File;
  if (label.empty() && job.to.path.ends_with("-gguf"))
    job.to.path.resize(job.to.path.size() - std::string_view("-gguf").size());
  job.to.path += ".gguf";
}

constexpr std::string_view kHf = "hf";  // of --to: safetensors, as a folder that transformers loads

void settle_hf(Job& job, const RewriteOptions& o, const Context& context) {
  const Model& model = *job.model;
  if (model.catalog.format != "gguf")
    throw Error(Fault::Usage,
                fmt::format("makes a Hugging Face folder of GGUF, not of {}", model.catalog.format))
        .in("--to hf")
        .hint("--to safetensors");
  OutputOptions output = o.output;
  if (output.output == "-")
    throw Error(Fault::Usage, "a folder cannot go to standard output").in("--to hf");
  constexpr std::string_view kSafetensors = "safetensors", kTail = ".hf.safetensors";
  if (!output.output.empty()) output.output += '/';
  job.to = destination(output, std::string(kSafetensors), model, context.registry, kHf);
  if (job.to.kind != OutputSet::Kind::Folder) {
    job.to.kind = OutputSet::Kind::Folder;
    job.to.path.replace(job.to.path.size() - kTail.size(), kTail.size(), "-hf");
  }
  job.view = std::make_shared<const ModelView>(hf_view(job.model, job.side));
  job.model = job.view->model;
  job.remarks = job.view->notes;
}

void settle_destination(Job& job, const RewriteOptions& o, const Context& context,
                        std::string_view label, const Format* prefer) {
  if (o.to == kHf) return settle_hf(job, o, context);
  const Model& model = *job.model;
  const bool unwanted = context.registry.format(model.catalog.format).one_tensor;
  job.to = destination(o.output, o.to, model, context.registry, label, unwanted ? prefer : nullptr);
  if (!job.to.format->layout)
    throw Error(Fault::Usage, "can be read but not written").in(std::string(job.to.format->name));
  const bool view = job.to.format->name == "gguf" && !o.as_is && is_hf_folder(model);
  if (view) return settle_view(job, o, label);
  for (const auto& [given, name] :
       {std::pair(!o.arch.empty(), "--arch"), std::pair(!o.pre.empty(), "--pre"),
        std::pair(o.no_vocab, "--no-vocab")})
    if (given)
      throw Error(Fault::Usage, "is for a Hugging Face folder (with config.json) that becomes GGUF")
          .in(name);
}

}  // namespace

Job prepare(const RewriteOptions& o, const Context& context, std::string_view label,
            const Format* prefer) {
  return prepare(open_input(o.input, context), o, context, label, prefer);
}

Job prepare(std::shared_ptr<const Model> opened, const RewriteOptions& o, const Context& context,
            std::string_view label, const Format* prefer) {
  Job job;
  job.model = std::move(opened);
  settle_destination(job, o, context, label, prefer);
  const Model& model = *job.model;
  job.chosen.assign(model.tensors.size(), false);
  const auto picked = selected(model, o.select);
  if (picked.empty() && !model.tensors.empty())
    throw Error(Fault::Usage, "-t and -x leave no tensor").in(model.path);
  for (const std::uint32_t i : picked) job.chosen[i] = true;
  job.owner.assign(model.catalog.entries().size(), 0);
  for (std::uint32_t i = 0; i < model.tensors.size(); ++i)
    for (const std::uint32_t p : model.parts_of(model.tensors[i])) job.owner[p] = i;
  job.rename = std::make_shared<Renamer>(o.rename);
  const SideFile* kept_meta =
      model.catalog.format == "npy" ? model.side_file(kMetadataFile) : nullptr;
  if (!o.drop_metadata) {
    job.meta = model.catalog.meta;
    if (kept_meta) job.meta = read_metadata_file(*kept_meta);
  }
  edit_metadata(job.meta, o, job.to.format->name != "safetensors");
  if (job.to.kind == OutputSet::Kind::Folder && model.is_folder) {
    for (const SideFile& s : model.side)
      if (&s != kept_meta) job.side.push_back(s);
    for (const std::string& line : model.left_out) job.remarks.push_back("not copied: " + line);
  } else if (!model.side.empty()) {
    std::string names;
    for (const SideFile& s : model.side) names += (names.empty() ? "" : ", ") + s.name;
    job.remarks.push_back("not copied, since the output is one file: " + names);
  }
  return job;
}

namespace {

void take_origin(Fate& fate) {
  if (!fate.origin) return;
  fate.from = fate.origin->dtype;
  fate.bytes_in = fate.origin->bytes;
}

}  // namespace

void add_copy(Job& job, const TensorEntry& entry, std::string why, bool kept) {
  const Model& model = *job.model;
  const LogicalTensor& logical = model.tensors[job.owner[model.catalog.index_of(entry)]];
  const TensorPtr values = logical.count == 1 ? model.open(logical) : stored(model.catalog, entry);
  const TensorPtr from =
      logical.count == 1 && values->bytes() == entry.bytes ? values : stored(model.catalog, entry);
  // The parts of a quantised tensor count as its parameters once.
  const bool counts = logical.count == 1 || &model.part(logical, 0) == &entry;
  Fate fate{.name = (*job.rename)(entry.name),
            .source = entry.name,
            .shape = from->shape(),
            .from = std::string(name_of(from->dtype())),
            .to = std::string(name_of(from->dtype())),
            .why = std::move(why),
            .kept = kept,
            .elements = counts ? element_count(logical.shape).value_or(0) : 0,
            .bytes_in = entry.bytes,
            .bytes_out = entry.bytes,
            .input_file = entry.source,
            .outputs = 1,
            .origin = job.origin_of(job.owner[model.catalog.index_of(entry)])};
  take_origin(fate);
  job.plan.steps.push_back(copy_step(fate.name, from));
  job.fates.push_back(std::move(fate));
}

void add_encoded(Job& job, const LogicalTensor& tensor, std::size_t steps_before, std::string to,
                 std::string why) {
  const Model& model = *job.model;
  Fate fate{.name = (*job.rename)(tensor.name),
            .source = tensor.name,
            .shape = Shape(tensor.shape.begin(), tensor.shape.end()),
            .from = tensor.count == 1 ? std::string(name_of(model.part(tensor, 0).dtype))
                                      : std::string("quantized"),
            .to = std::move(to),
            .why = std::move(why),
            .encoded = true,
            .elements = element_count(tensor.shape).value_or(0),
            .bytes_in = model.stored_bytes(tensor),
            .input_file = model.part(tensor, 0).source,
            .origin = job.origin_of(job.owner[model.parts_of(tensor)[0]])};
  take_origin(fate);
  for (std::size_t s = steps_before; s < job.plan.steps.size(); ++s)
    for (const OutTensor& t : job.plan.steps[s]->outputs()) {
      fate.bytes_out += t.bytes();
      ++fate.outputs;
    }
  job.fates.push_back(std::move(fate));
}

std::span<const std::string_view> rewrite_columns() noexcept {
  return kMetrics;
}

namespace {

Buffer config_bytes(const SideFile& file) {
  constexpr std::uint64_t kMost = std::uint64_t{64} << 20;
  if (file.content->size() > kMost)
    throw Error(Fault::BadFile,
                fmt::format("{} bytes are too many for a config", file.content->size()))
        .in(file.content->name());
  return read_all({file.content, 0, file.content->size()});
}

Json parsed_config(const SideFile& file, const Buffer& bytes) {
  Json config = Json::parse(as_text(bytes), nullptr, false);
  if (!config.is_object())
    throw Error(Fault::BadFile, "is not a JSON object").in(file.content->name());
  return config;
}

}  // namespace

Json read_config(const SideFile& file) {
  return parsed_config(file, config_bytes(file));
}

namespace {

SideFile* config_of(Job& job) {
  const auto it = std::ranges::find(job.side, "config.json", &SideFile::name);
  return it == job.side.end() ? nullptr : &*it;
}

}  // namespace

bool set_in_config(Job& job, const std::string& key, const std::string& json_text) {
  SideFile* file = config_of(job);
  if (!file) return false;
  const Buffer bytes = config_bytes(*file);
  if (!parsed_config(*file, bytes).contains(key) && json_text.empty()) return false;
  const std::string text = json_text.empty() ? without_member(as_text(bytes), key)
                                             : with_member(as_text(bytes), key, json_text);
  file->content = from_memory(file->content->name(), to_buffer(text));
  return true;
}

std::string quantization_config_of(const Model& model) {
  const SideFile* file = model.side_file("config.json");
  if (!file) return {};
  const Json config = read_config(*file);
  return config.contains("quantization_config") ? config["quantization_config"].dump() : "";
}

void follow_dtype(Job& job, DType to) {
  const std::string_view name = to == DType::F16    ? "float16"
                                : to == DType::BF16 ? "bfloat16"
                                : to == DType::F32  ? "float32"
                                : to == DType::F64  ? "float64"
                                                    : "";
  if (name.empty()) return;
  const SideFile* file = config_of(job);
  if (!file) return;
  const Json config = read_config(*file);
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (!config.contains(key) || !config[key].is_string() || config[key] == name) continue;
    job.remarks.push_back(
        fmt::format("config.json: {} {} -> {}", key, config[key].get<std::string>(), name));
    set_in_config(job, key, fmt::format("\"{}\"", name));
  }
}

ExitCode finish(Job& job, const RewriteOptions& o, const Context& context, const Finish& how) {
  const bool to_stdout = job.to.kind == OutputSet::Kind::Stdout;
  std::optional<OutputSet> outputs;  // first: the records' threads read from it
  Records records(o.records, job, how, context);
  const Placement placement = lay_out(job, o);
  check_reports(job, o, how, records.beside());
  const std::vector<LogicalTensor> rows = gate_rows(job);
  check_gates(job, how, rows);
  check_findings(how, o.output.dry_run);
  if (o.output.dry_run) {
    const Outcome plan{job, placement, {}, how, true, {}, {}, records.paths()};
    if (!write_json_report(plan, o, context)) print_outcome(plan, context.common->verbose);
    return ExitCode::Ok;
  }
  if (to_stdout) set_out_to_stderr();
  outputs.emplace(job.to.path, job.to.kind, existing(o.output));
  records.begin(*outputs, existing(o.output));
  RunOptions run = context.run;
  Progress progress(*context.common, std::string(how.verb), "units");
  run.progress = progress.callback();
  const Report report = execute(job.plan, run, &*outputs, records.follower());
  progress.done();
  judge_values(job, report, o.saturate);
  list_saturated(job, report);
  list_fallback_blocks(job, report);
  Outcome outcome{job, placement, report, how, false, judge_gates(how.gates, report, rows), rows};
  if (outcome.written()) {
    records.write(*outputs);
    for (const SourcePtr& s : job.model->catalog.sources()) s->check_unchanged();
    for (const SideFile& s : job.plan.side) s.content->check_unchanged();
    if (job.view)
      for (const SideFile& s : job.view->from->side) s.content->check_unchanged();
    outputs->commit();
    records.commit();
    outcome.records = records.paths();
  }
  const bool told = write_json_report(outcome, o, context);
  write_findings(how.findings, how.verb, verdicts_of(outcome.gates, job.model->path));
  if (!told) print_outcome(outcome, context.common->verbose);
  return all_passed(outcome.gates) ? ExitCode::Ok : ExitCode::No;
}

}  // namespace wtool
