#include <algorithm>
#include <filesystem>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/packing.h"
#include "cli/report_file.h"
#include "cli/source_digests.h"
#include "cli/terminal.h"
#include "formats/compressed_write.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

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

struct Outcome : PackingSum {
  std::vector<Packed> files;
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

// As the index names them; without digests in a dry run.
std::vector<BaseFile> names_of(const PackingBase& base) {
  std::vector<BaseFile> out;
  for (std::size_t i = 0; i < base.files.size(); ++i)
    out.push_back({file_name_of(base.files[i].source->name()), base.files[i].bytes,
                   base.digests.empty() ? Sha256{} : base.digests[i]});
  return out;
}

Packed pack_file(const SourcePtr& file, const PackingBase& base, const Options& o,
                 const Context& context, OutputSet* outputs, const std::string& name) {
  Diagnostics faults;
  const Catalog catalog = read_catalog(file, context.registry, faults);
  Packed out;
  out.from = file->name();
  out.to = name;
  out.bytes = file->size();
  Packing packing(file, catalog, base.model ? &base.model->catalog : nullptr, names_of(base));
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
void check_base(const PackingBase& base, const Input& input, const Options& o,
                const Context& context) {
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

// What becomes of each file, in the output.
std::vector<std::string> names_in(const Input& input, const Options& o, const std::string& to) {
  std::vector<std::string> names, from;
  for (const SourcePtr& file : input.files) {
    names.push_back(input.folder ? name_within(o.path, file->name()).append(kCompressedSuffix)
                                 : to);
    from.push_back(file->name());
  }
  std::vector<std::string> all = names;
  for (const SideFile& s : input.side) {
    all.push_back(s.name);
    from.push_back(s.content->name());
  }
  check_names(all, from);
  return names;
}

std::vector<std::string> paths_of(const Input& input, const Options& o) {
  std::vector<std::string> out{o.path};
  for (const SourcePtr& file : input.files) out.push_back(file->name());
  for (const SideFile& s : input.side) out.push_back(s.content->name());
  return out;
}

void copy_side_files(const Input& input, const Context& context, OutputSet& outputs) {
  if (input.side.empty()) return;
  Plan plan;
  plan.side = input.side;
  execute(plan, context.run, &outputs);
  for (const SideFile& s : input.side) s.content->check_unchanged();
}

Outcome pack(const Options& o, const Context& context) {
  const Input input = open_input_files(o, context);
  const Destination to = packing_destination(PackingVerb::Compress, o.path, input.folder, o.output);
  PackingBase base = open_base(o.base, context);
  check_base(base, input, o, context);
  check_places(to.path, o.output, base, paths_of(input, o));
  const std::vector<std::string> names = names_in(input, o, to.path);
  std::optional<OutputSet> outputs;
  if (!o.output.dry_run) {
    outputs.emplace(to.path, to.kind, existing(o.output));
    std::vector<std::string> all = names;
    for (const SideFile& s : input.side) all.push_back(s.name);
    outputs->expect(std::move(all));
    if (base.model) read_digests(base, context);
  }
  Outcome out;
  out.to = to.path;
  for (std::size_t i = 0; i < names.size(); ++i) {
    out.files.push_back(
        pack_file(input.files[i], base, o, context, outputs ? &*outputs : nullptr, names[i]));
    out.bytes += out.files.back().bytes;
    out.stored += out.files.back().stored;
  }
  if (!outputs) return out;
  copy_side_files(input, context, *outputs);
  base.check_unchanged();
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
  if (sums.empty()) return;
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

// "planes", or "planes (3 files) and plain (1)".
std::string forms_of(const std::vector<Packed>& files) {
  const auto planes =
      static_cast<std::size_t>(std::ranges::count(files, PackForm::Planes, &Packed::form));
  if (planes == 0 || planes == files.size()) return std::string(name_of(files[0].form));
  return fmt::format("planes ({} file{}) and plain ({})", planes, planes == 1 ? "" : "s",
                     files.size() - planes);
}

void print(const Outcome& outcome, const Options& o, bool verbose) {
  PackEstimate estimate;
  for (const Packed& p : outcome.files) {
    estimate.plain += p.estimate.plain;
    estimate.planes += p.estimate.planes;
  }
  const std::string to =
      o.output.dry_run ? "about " + human_bytes(outcome.stored) : printable(outcome.to);
  out(fit_charset(fmt::format("{} → {}\n", printable(o.path), to)));
  out(fit_charset(fmt::format(
      "{} → {}: {}   as {} (estimates: planes {}, plain {})\n", human_bytes(outcome.bytes),
      human_bytes(outcome.stored), percent(outcome.stored, outcome.bytes), forms_of(outcome.files),
      percent(estimate.planes, outcome.bytes), percent(estimate.plain, outcome.bytes))));
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
  begin_document(w, "wtool.compress/1", o.path, o.output, outcome);
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
  if (!give_json(o.output.report, context.common->json,
                 [&](const JsonSink& sink) { write_json(outcome, o, sink); }))
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
