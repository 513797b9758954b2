#include <algorithm>
#include <filesystem>
#include <map>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/source_digests.h"
#include "cli/terminal.h"
#include "formats/compressed_write.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".zst";

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

std::string codec_name(const Piece& p) {
  if (p.same_as) return "same";
  if (p.same_as_base) return "as base";
  return std::string(name_of(p.codec.kind));
}

std::string percent(std::uint64_t part, std::uint64_t of) {
  return fmt::format("{:.1f} %",
                     of == 0 ? 100.0 : 100.0 * static_cast<double>(part) / static_cast<double>(of));
}

std::string target_of(const Options& o) {
  if (!o.output.output.empty()) return o.output.output;
  if (o.path == "-")
    throw Error(Fault::Usage, "the input is standard input, so the output needs a name")
        .in(o.path)
        .hint("say -o OUTPUT");
  return o.path + std::string(kSuffix);
}

void check_input(const SourcePtr& file) {
  if (open_compressed(file)) throw Error(Fault::Usage, "is compressed already").in(file->name());
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
  return out;
}

std::vector<Packed::Row> rows_of(const Packing& packing, bool dry_run) {
  std::vector<Packed::Row> out;
  const std::vector<PackEstimate> estimates = packing.estimates();
  for (std::size_t i = 0; i < packing.pieces().size(); ++i) {
    const Piece& p = packing.pieces()[i];
    const std::uint64_t guess = p.codec.kind == Codec::Kind::Plain && p.has_frames()
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

Packed pack(const Options& o, const Context& context) {
  const SourcePtr file = o.path == "-" ? from_stdin(context.run.stop_signal) : open_file(o.path);
  check_input(file);
  Diagnostics faults;
  const Catalog catalog = read_catalog(file, context.registry, faults);
  const Base base = open_base(o, context);
  Packed out;
  out.from = o.path;
  out.to = target_of(o);
  out.bytes = file->size();

  Packing packing(file, catalog, base.model ? &base.model->catalog : nullptr);
  {
    Progress progress(*context.common, "sampling", "tensors");
    RunOptions run = context.run;
    run.progress = progress.callback();
    packing.sample(run);
  }
  out.estimate = packing.estimate();
  out.form = form_of(o, packing);
  packing.choose(out.form);
  if (o.output.dry_run) {
    out.rows = rows_of(packing, true);
    out.stored = out.form == PackForm::Planes ? out.estimate.planes : out.estimate.plain;
    return out;
  }

  OutputSet outputs(out.to, out.to == "-" ? OutputSet::Kind::Stdout : OutputSet::Kind::File,
                    o.output.force ? OutputSet::Existing::Replace : OutputSet::Existing::Refuse);
  std::vector<Extent> hashed{{file, 0, file->size()}};
  for (Extent& e : packing.tensors()) hashed.push_back(std::move(e));
  if (base.model)
    for (const SourcePtr& s : base.model->catalog.sources()) hashed.push_back({s, 0, s->size()});
  const std::size_t tensors = packing.tensors().size();
  SourceDigests digests(std::move(hashed), context);  // beside the work

  Plan plan;
  packing.add_to(plan, out.to);
  RunOptions run = context.run;
  Progress progress(*context.common, "compress", "chunks");
  run.progress = progress.callback();
  execute(plan, run, &outputs);
  progress.done();
  const std::vector<Sha256> found = digests.get();
  out.digest = found[0];
  std::vector<BaseFile> base_files;
  if (base.model)
    for (std::size_t i = 0; i < base.model->catalog.sources().size(); ++i) {
      const SourcePtr& s = base.model->catalog.sources()[i];
      base_files.push_back({fs::path(s->name()).filename(), s->size(), found[1 + tensors + i]});
    }
  packing.finish(outputs, 0, found[0], std::span(found).subspan(1, tensors), std::move(base_files));
  file->check_unchanged();
  if (base.model)
    for (const SourcePtr& s : base.model->catalog.sources()) s->check_unchanged();
  out.stored = outputs.total_bytes();
  out.rows = rows_of(packing, false);
  outputs.commit();
  return out;
}

void print(const Packed& p, const Options& o, bool verbose) {
  out(fmt::format("{} {} {}\n", printable(p.from),
                  fit_charset(o.output.dry_run ? "would become about" : "→"),
                  o.output.dry_run ? human_bytes(p.stored) : printable(p.to)));
  out(fit_charset(
      fmt::format("{} → {}, {} of it   {} (estimates: planes {}, plain {})\n", human_bytes(p.bytes),
                  human_bytes(p.stored), percent(p.stored, p.bytes), name_of(p.form),
                  percent(p.estimate.planes, p.bytes), percent(p.estimate.plain, p.bytes))));
  if (verbose || o.output.dry_run) {
    Table table({{"tensor"},
                 {"dtype"},
                 {"codec", false, 1},
                 {"bytes", true},
                 {"packed", true},
                 {"", true}});
    for (const Packed::Row& r : p.rows)
      table.row({r.tensor.empty() ? "(no tensor)" : printable(r.tensor), r.dtype, r.codec,
                 human_bytes(r.bytes), human_bytes(r.stored), percent(r.stored, r.bytes)});
    return table.print(2);
  }
  // By type and codec, in the order in which they come.
  struct Sum {
    std::size_t order, tensors = 0;
    std::uint64_t bytes = 0, stored = 0;
  };
  std::map<std::pair<std::string, std::string>, Sum> sums;
  for (const Packed::Row& r : p.rows) {
    if (r.tensor.empty()) continue;
    Sum& s = sums.try_emplace({r.dtype, r.codec}, Sum{sums.size()}).first->second;
    ++s.tensors;
    s.bytes += r.bytes;
    s.stored += r.stored;
  }
  std::vector<decltype(sums)::const_iterator> order;
  for (auto it = sums.cbegin(); it != sums.cend(); ++it) order.push_back(it);
  std::ranges::sort(order, {}, [](auto it) { return it->second.order; });
  Table table(
      {{"dtype"}, {"codec"}, {"tensors", true}, {"bytes", true}, {"packed", true}, {"", true}});
  for (const auto& it : order)
    table.row({it->first.first, it->first.second, std::to_string(it->second.tensors),
               human_bytes(it->second.bytes), human_bytes(it->second.stored),
               percent(it->second.stored, it->second.bytes)});
  table.print(2);
}

void write_json(const Packed& p, const Options& o, JsonWriter::Sink sink) {
  JsonWriter w(std::move(sink));
  w.begin_object();
  w.member("schema", "wtool.compress/1");
  w.member("ok", true);
  w.key("inputs");
  w.begin_array();
  w.value(p.from);
  w.end_array();
  w.member("dry_run", o.output.dry_run);
  w.member("output", p.to);
  w.member("form", name_of(p.form));
  w.member("bytes", p.bytes);
  w.member("packed_bytes", p.stored);
  w.key("estimates");
  w.begin_object();
  w.member("plain", p.estimate.plain);
  w.member("planes", p.estimate.planes);
  w.end_object();
  if (!o.output.dry_run) w.member("sha256", p.digest.hex());
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

ExitCode run(const Options& o, const Context& context) {
  if (o.plain && o.planes) throw Error(Fault::Usage, "--plain and --planes exclude each other");
  if (o.plain && !o.base.empty())
    throw Error(Fault::Usage, "--plain and --base exclude each other")
        .hint("what 'zstd -d' makes of a difference is not the original");
  if (o.output.output == "-") set_out_to_stderr();
  const Packed packed = pack(o, context);
  if (!o.output.report.empty()) {
    std::string text;
    write_json(packed, o, [&](std::string_view s) { text += s; });
    OutputSet file(o.output.report, OutputSet::Kind::File,
                   o.output.force ? OutputSet::Existing::Replace : OutputSet::Existing::Refuse);
    file.append(file.create(o.output.report, std::nullopt), as_bytes(text));
    file.commit();
  }
  if (context.common->json)
    write_json(packed, o, out);
  else
    print(packed, o, context.common->verbose);
  return ExitCode::Ok;
}

Action bind(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("INPUT", o->path, "a weight file, or - for standard input")->required();
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
