#include <algorithm>
#include <filesystem>
#include <iterator>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/report_file.h"
#include "cli/source_digests.h"
#include "cli/terminal.h"
#include "formats/compressed_write.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = kCompressedSuffix;

struct Options {
  std::string path, base;
  OutputOptions output;
  bool plain = false, planes = false;
};

// One file's way: what goes in, what came out.
struct Packed {
  std::string from, to;
  std::uint64_t bytes = 0, stored = 0;
  PackEstimate estimate;
  PackForm form = PackForm::Plain;
  Sha256 digest;
  struct Row {
    std::string tensor, dtype, codec;
    std::uint64_t bytes, stored;
  };
  std::vector<Row> rows;
};

struct Outcome {
  std::string to;
  std::vector<Packed> files;
  std::uint64_t bytes = 0, stored = 0;
};

std::string codec_name(const Piece& p) {
  if (p.same_as) return "same";
  if (p.same_as_base) return "as base";
  return std::string(name_of(p.codec.kind));
}

std::string percent(std::uint64_t part, std::uint64_t of) {
  return fmt::format("{:.1f} %",
                     of == 0 ? 100.0 : 100.0 * static_cast<double>(part) / static_cast<double>(of));
}

std::string target_of(const Options& o, bool folder) {
  std::string path = o.output.output.empty() ? o.path : o.output.output;
  if (o.output.output.empty() && path == "-")
    throw Error(Fault::Usage, "the input is standard input, so the output needs a name")
        .in(o.path)
        .hint("say -o OUTPUT");
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  if (!o.output.output.empty()) {
    if (folder && path == "-")
      throw Error(Fault::Usage, "a folder does not go to standard output").in(o.path);
    std::error_code ignored;
    if (!folder && (o.output.output.ends_with('/') || fs::is_directory(path, ignored)))
      return joined(path, file_name_of(o.path)) + std::string(kSuffix);
    return path;
  }
  if (!folder) return path + std::string(kSuffix);
  const fs::path name = fs::path(path).filename();
  if (name == "." || name == ".." || name.empty())
    throw Error(Fault::Usage, "the input is a folder without a name, so the output needs one")
        .in(o.path)
        .hint("say -o OUTPUT");
  return path + "-zst";
}

// The whole base, and the digests of its files.
struct Base {
  std::shared_ptr<const Model> model;
  std::vector<BaseFile> files;
};
Base open_base(const Options& o, const Context& context) {
  Base out;
  if (o.base.empty()) return out;
  InputOptions base;
  base.path = o.base;
  out.model = open_input(base, context);
  if (o.output.dry_run) return out;
  const auto sources = out.model->catalog.sources();
  std::vector<Extent> whole;
  for (const SourcePtr& s : sources) whole.push_back({s, 0, s->size()});
  Progress progress(*context.common, "digest of the base", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  const std::vector<Sha256> digests = sha256_of(whole, run);
  for (std::size_t i = 0; i < sources.size(); ++i)
    out.files.push_back({fs::path(sources[i]->name()).filename(), whole[i].bytes, digests[i]});
  return out;
}

std::vector<Packed::Row> rows_of(const Packing& packing, bool dry_run) {
  std::vector<Packed::Row> out;
  const std::vector<PackEstimate> estimates = packing.estimates();
  for (std::size_t i = 0; i < packing.pieces().size(); ++i) {
    const Piece& p = packing.pieces()[i];
    const std::uint64_t guess = p.codec.kind == PackCodec::Kind::Plain && p.has_frames()
                                    ? estimates[i].plain
                                    : estimates[i].planes;
    out.push_back({p.tensor.value_or(""), p.tensor ? std::string(name_of(p.dtype)) : "",
                   codec_name(p), p.bytes, dry_run ? guess : packing.stored_bytes(p)});
  }
  return out;
}

PackForm form_of(const Options& o, const Packing& packing) {
  if (o.plain) return PackForm::Plain;
  return o.planes ? PackForm::Planes : packing.better();
}

// The files to be packed, and what lies beside them and is copied.
struct Input {
  std::vector<SourcePtr> files;
  std::vector<SideFile> side;
  bool folder = false;
};
Input open_input_files(const Options& o, const Context& context) {
  Input out;
  std::error_code ignored;
  if (o.path == "-") {
    out.files.push_back(from_stdin(context.run.stop_signal));
  } else if (!fs::is_directory(o.path, ignored)) {
    out.files.push_back(open_file(o.path));
  } else {
    InputOptions input;
    input.path = o.path;
    const auto model = open_input(input, context);
    out.folder = true;
    out.files.assign(model->catalog.sources().begin(), model->catalog.sources().end());
    out.side = model->side;
    if (!model->index_name.empty())
      out.side.push_back({model->index_name, open_file((fs::path(o.path) / model->index_name))});
    for (const std::string& line : model->left_out) note("not copied: " + printable(line));
  }
  for (const SourcePtr& file : out.files)
    if (dynamic_cast<const CompressedFile*>(file.get()) || open_compressed(file))
      throw Error(Fault::Usage, "is compressed already").in(file->name());
  return out;
}

// Name of a file of a folder, relative to it.
std::string name_within(const std::string& folder, const std::string& path) {
  return fs::path(path).lexically_relative(folder).native();
}

Packed pack_file(const SourcePtr& file, const Base& base, const Options& o, const Context& context,
                 OutputSet* outputs, const std::string& name) {
  Diagnostics faults;
  const Catalog catalog = read_catalog(file, context.registry, faults);
  Packed out;
  out.from = file->name();
  out.to = name;
  out.bytes = file->size();
  Packing packing(file, catalog, base.model ? &base.model->catalog : nullptr, base.files);
  {
    Progress progress(*context.common, "sampling " + name, "tensors");
    RunOptions run = context.run;
    run.progress = progress.callback();
    packing.sample(run);
  }
  out.estimate = packing.estimate();
  out.form = form_of(o, packing);
  packing.choose(out.form);
  if (!outputs) {
    out.rows = rows_of(packing, true);
    out.stored = out.form == PackForm::Planes ? out.estimate.planes : out.estimate.plain;
    return out;
  }

  std::vector<Extent> hashed{{file, 0, file->size()}};
  for (Extent& e : packing.tensors()) hashed.push_back(std::move(e));
  SourceDigests digests(std::move(hashed), context);  // beside the work
  Plan plan;
  packing.add_to(plan, name);
  const std::size_t number = outputs->files();
  RunOptions run = context.run;
  Progress progress(*context.common, "compress " + name, "chunks");
  run.progress = progress.callback();
  execute(plan, run, outputs);
  progress.done();
  const std::vector<Sha256> found = digests.get();
  out.digest = found[0];
  packing.finish(*outputs, number, found[0], std::span(found).subspan(1));
  file->check_unchanged();
  out.stored = outputs->written(number)->size();
  out.rows = rows_of(packing, false);
  return out;
}

// Before any work. A single tensor is enough: layers are added, vocabularies grow.
void check_base(const Base& base, const Input& input, const Options& o, const Context& context) {
  if (!base.model) return;
  for (const SourcePtr& file : input.files) {
    Diagnostics faults;
    const Catalog catalog = read_catalog(file, context.registry, faults);
    for (const TensorEntry& t : catalog.entries())
      if (counterpart(t, base.model->catalog)) return;
  }
  throw Error(Fault::Usage,
              fmt::format("no tensor of {} is in it with the same type and shape", quoted(o.path)))
      .in(o.base)
      .hint("'wtool diff' shows what two models have in common");
}

Outcome pack(const Options& o, const Context& context) {
  const Input input = open_input_files(o, context);
  const Base base = open_base(o, context);
  check_base(base, input, o, context);
  Outcome out;
  out.to = target_of(o, input.folder);
  if (base.model) check_stays(out.to, files_of(*base.model), "the base");
  std::vector<std::string> taken{o.path, out.to};
  for (const SourcePtr& file : input.files) taken.push_back(file->name());
  if (base.model) std::ranges::move(files_of(*base.model), std::back_inserter(taken));
  check_report_files(std::vector<ReportFile>{{"--report", o.output.report}}, o.output.force, taken);
  std::optional<OutputSet> outputs;
  if (!o.output.dry_run)
    outputs.emplace(out.to,
                    input.folder    ? OutputSet::Kind::Folder
                    : out.to == "-" ? OutputSet::Kind::Stdout
                                    : OutputSet::Kind::File,
                    o.output.force ? OutputSet::Existing::Replace : OutputSet::Existing::Refuse);
  std::vector<std::string> names;
  for (const SourcePtr& file : input.files)
    names.push_back(input.folder ? name_within(o.path, file->name()) + std::string(kSuffix)
                                 : out.to);
  if (outputs) {
    std::vector<std::string> all = names;
    for (const SideFile& s : input.side) all.push_back(s.name);
    outputs->expect(std::move(all));
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    const SourcePtr& file = input.files[i];
    const std::string& name = names[i];
    out.files.push_back(pack_file(file, base, o, context, outputs ? &*outputs : nullptr, name));
    out.bytes += out.files.back().bytes;
    out.stored += out.files.back().stored;
  }
  if (!outputs) return out;
  if (!input.side.empty()) {
    Plan plan;
    plan.side = input.side;
    execute(plan, context.run, &*outputs);
  }
  if (base.model)
    for (const SourcePtr& s : base.model->catalog.sources()) s->check_unchanged();
  for (const SideFile& s : input.side) s.content->check_unchanged();
  outputs->commit();
  return out;
}

// By type and codec, in the order in which they come.
void print_sums(const Outcome& outcome) {
  struct Sum {
    std::string dtype, codec;
    std::size_t tensors = 0;
    std::uint64_t bytes = 0, stored = 0;
  };
  std::vector<Sum> sums;
  for (const Packed& p : outcome.files)
    for (const Packed::Row& r : p.rows) {
      if (r.tensor.empty()) continue;
      auto it = std::ranges::find_if(
          sums, [&](const Sum& s) { return s.dtype == r.dtype && s.codec == r.codec; });
      if (it == sums.end()) it = sums.insert(it, {r.dtype, r.codec});
      ++it->tensors;
      it->bytes += r.bytes;
      it->stored += r.stored;
    }
  Table table(
      {{"dtype"}, {"codec"}, {"tensors", true}, {"bytes", true}, {"packed", true}, {"", true}});
  for (const Sum& s : sums)
    table.row({s.dtype, s.codec, std::to_string(s.tensors), human_bytes(s.bytes),
               human_bytes(s.stored), percent(s.stored, s.bytes)});
  table.print(2);
}

void print_pieces(const Outcome& outcome) {
  Table table(
      {{"tensor"}, {"dtype"}, {"codec", false, 1}, {"bytes", true}, {"packed", true}, {"", true}});
  for (const Packed& p : outcome.files)
    for (const Packed::Row& r : p.rows)
      table.row({r.tensor.empty() ? "(no tensor)" : printable(r.tensor), r.dtype, r.codec,
                 human_bytes(r.bytes), human_bytes(r.stored), percent(r.stored, r.bytes)});
  table.print(2);
}

void print(const Outcome& outcome, const Options& o, bool verbose) {
  std::uint64_t plain = 0, planes = 0;
  for (const Packed& p : outcome.files) {
    plain += p.estimate.plain;
    planes += p.estimate.planes;
  }
  const std::string to =
      o.output.dry_run ? "about " + human_bytes(outcome.stored) : printable(outcome.to);
  out(fit_charset(fmt::format("{} → {}\n", printable(o.path), to)));
  out(fit_charset(fmt::format("{} → {}: {}   as {} (estimates: planes {}, plain {})\n",
                              human_bytes(outcome.bytes), human_bytes(outcome.stored),
                              percent(outcome.stored, outcome.bytes),
                              name_of(outcome.files[0].form), percent(planes, outcome.bytes),
                              percent(plain, outcome.bytes))));
  if (verbose || o.output.dry_run)
    print_pieces(outcome);
  else
    print_sums(outcome);
}

void write_file(JsonWriter& w, const Packed& p, bool dry_run) {
  w.begin_object();
  w.name_member("file", p.from);
  w.name_member("output", p.to);
  w.member("form", name_of(p.form));
  w.member("bytes", p.bytes);
  w.member("packed_bytes", p.stored);
  w.key("estimates");
  w.begin_object();
  w.member("plain", p.estimate.plain);
  w.member("planes", p.estimate.planes);
  w.end_object();
  if (!dry_run) w.member("sha256", p.digest.hex());
  w.key("pieces");
  w.begin_array();
  for (const Packed::Row& r : p.rows) {
    w.begin_object();
    if (!r.tensor.empty()) {
      w.name_member("tensor", r.tensor);
      w.member("dtype", r.dtype);
    }
    w.member("codec", r.codec);
    w.member("bytes", r.bytes);
    w.member("packed_bytes", r.stored);
    w.end_object();
  }
  w.end_array();
  w.end_object();
}

void write_json(const Outcome& outcome, const Options& o, JsonWriter::Sink sink) {
  JsonWriter w(std::move(sink));
  w.begin_document("wtool.compress/1", true, std::vector<std::string>{o.path});
  w.member("dry_run", o.output.dry_run);
  w.name_member("output", outcome.to);
  w.member("bytes", outcome.bytes);
  w.member("packed_bytes", outcome.stored);
  w.key("files");
  w.begin_array();
  for (const Packed& p : outcome.files) write_file(w, p, o.output.dry_run);
  w.end_array();
  w.end_object();
}

ExitCode run(const Options& o, const Context& context) {
  if (o.plain && o.planes) throw Error(Fault::Usage, "--plain and --planes exclude each other");
  if (o.plain && !o.base.empty())
    throw Error(Fault::Usage, "--plain and --base exclude each other")
        .hint("what 'zstd -d' makes of a difference is not the original");
  if (o.output.output == "-") set_out_to_stderr();
  const Outcome outcome = pack(o, context);
  if (!o.output.report.empty()) {
    std::string text;
    write_json(outcome, o, [&](std::string_view s) { text += s; });
    write_report_file(o.output.report, text);
  }
  if (context.common->json)
    write_json(outcome, o, out);
  else
    print(outcome, o, context.common->verbose);
  return ExitCode::Ok;
}

Action bind(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("INPUT", o->path, "a weight file, a folder of a model, or -")->required();
  add_output_options(app, o->output);
  app.add_option("--base", o->base, "store the difference to this model")->option_text("BASE");
  app.add_flag("--plain", o->plain, "so that 'zstd -d' gives the original bytes");
  app.add_flag("--planes", o->planes, "so that 'zstd -d' gives a safetensors file of planes");
  app.footer("example: wtool compress model.safetensors");
  return [o](const Context& context) { return run(*o, context); };
}

}  // namespace

extern const Command kCompress{"compress", "smaller without loss, still readable tensor by tensor",
                               &bind};

}  // namespace wtool
