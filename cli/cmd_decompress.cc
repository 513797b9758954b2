#include <algorithm>
#include <filesystem>
#include <functional>
#include <set>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/packing.h"
#include "cli/report_file.h"
#include "cli/rewrite.h"
#include "cli/terminal.h"
#include "cli/values.h"
#include "formats/compressed.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"
#include "lib/numeric/steps.h"
#include "lib/trust/written_digest.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string path, base, tensor, dtype, salvage;
  OutputOptions output;
};

Error not_compressed(const Source& file, const Context& context) {
  for (const Format* f : context.registry.formats)
    if (f->detect(file))
      return Error(Fault::BadFile, fmt::format("is not compressed, but a {} file", f->name))
          .in(file.name());
  return Error(Fault::BadFile, context.registry.diagnose(file)).in(file.name());
}
std::shared_ptr<const CompressedFile> open(const Options& o, const Context& context) {
  const SourcePtr file = o.path == "-" ? from_stdin(context.run.stop_signal) : open_file(o.path);
  auto compressed = open_compressed(file);
  if (!compressed) throw not_compressed(*file, context);
  return compressed;
}

// By its digests, before any work: of a base that is another, nothing would be right.
void check_base(const CompressedFile& file, const PackingBase& base, const Options& o) {
  for (const BaseFile& wanted : file.index().base) {
    if (std::ranges::find(base.digests, wanted.digest) != base.digests.end()) continue;
    throw Error(
        Fault::BadFile,
        fmt::format("{} is another base: the difference is to {} with SHA-256 {}, this is "
                    "{} with {}",
                    quoted(o.base), quoted(wanted.name), wanted.digest.hex(),
                    quoted(file_name_of(base.files[0].source->name())), base.digests[0].hex()))
        .in(file.name());
  }
}

// Gives the files that are differences their base. Its model is null if none is.
PackingBase give_base(std::span<const std::shared_ptr<const CompressedFile>> files,
                      const Options& o, const Context& context) {
  PackingBase base;
  for (const auto& file : files) {
    if (!file->index().needs_base()) continue;
    const BaseFile& wanted = file->index().base[0];
    if (o.base.empty())
      throw Error(Fault::Usage, fmt::format("is the difference to {} (SHA-256 {})",
                                            quoted(wanted.name), wanted.digest.hex()))
          .in(file->name())
          .hint("say --base and where that file is");
    if (!base.model) {
      base = open_base(o.base, context);
      read_digests(base, context);
    }
    check_base(*file, base, o);
    file->set_base(base.model->catalog);
  }
  if (!o.base.empty() && !base.model)
    throw Error(Fault::Usage, "is no difference, so there is nothing for --base").in(o.path);
  return base;
}

// Where the first damage is, by the checksums of the frames: only looked for when a digest is
// wrong.
std::optional<Error> find_damage(const CompressedFile& file, const RunOptions& options) {
  for (const Piece& p : file.index().pieces)
    for (std::uint64_t chunk = 0; chunk < p.chunks(); ++chunk) {
      if (options.stop_signal && *options.stop_signal != 0)
        return Error(Fault::Cancelled, "interrupted");
      Buffer bytes(p.chunk_size(chunk));
      try {
        file.decode(p, chunk, FrameReader::Check::Checksum, bytes);
      } catch (const Error& e) {
        return e;
      }
    }
  return std::nullopt;
}

struct Restored : PackingSum {
  std::vector<Sha256> digests = {};
};

// What a run restores: one file, or all of a folder that are compressed; what else lies in the
// folder is copied.
struct Input {
  std::vector<std::shared_ptr<const CompressedFile>> files;
  std::vector<std::string> names;  // of what they become, in the output; of one file its path
  std::vector<SideFile> side;
  bool folder = false;
};
// Null for what is compressed, but no weights of ours: it is copied as any other file.
std::shared_ptr<const CompressedFile> open_there(const std::string& path, const Context& context) {
  const SourcePtr file = open_file(path);
  try {
    return open_compressed(file);
  } catch (const Error& e) {
    if (e.fault() != Fault::Unsupported ||
        context.registry.by_suffix(without_compressed_suffix(path)))
      throw;
    return nullptr;
  }
}

// Weights may lie in subfolders, of which nothing else is copied.
void take_folder(Input& out, const Options& o, const Context& context) {
  std::vector<std::string> below;
  std::set<std::string, std::less<>> holding;  // subfolders with weights, and the files restored
  for (const std::string& name : files_below(o.path, {kCompressedSuffix}, below)) {
    auto compressed =
        name.ends_with(kCompressedSuffix) ? open_there(joined(o.path, name), context) : nullptr;
    const auto slash = name.find('/');
    if (compressed) {
      out.files.push_back(std::move(compressed));
      out.names.emplace_back(without_compressed_suffix(name));
      holding.insert(name.substr(0, slash));
    } else if (slash != name.npos) {
      below.push_back(name);
    }
  }
  const auto leave = [](std::string_view name, std::string_view why) {
    note(fmt::format("not copied: {}: {}", printable(name), why));
  };
  for (const FolderEntry& e : list_folder(o.path)) {
    if (holding.contains(e.name)) continue;
    if (e.kind == FolderEntry::Kind::Folder)
      leave(e.name + "/", "a folder");
    else if (e.kind == FolderEntry::Kind::Other)
      leave(e.name, "not a regular file");
    else if (leads_out(o.path, e.name))
      leave(e.name, "a link that leads out of the folder");
    else
      out.side.push_back({e.name, open_file(joined(o.path, e.name))});
  }
  for (const std::string& name : below)
    if (holding.contains(std::string_view(name).substr(0, name.find('/'))))
      leave(name, "below a subfolder");
}

Input open_inputs(const Options& o, const Context& context) {
  Input out;
  std::error_code ignored;
  out.folder = o.path != "-" && fs::is_directory(o.path, ignored);
  if (!out.folder) {
    out.files.push_back(open(o, context));
    return out;
  }
  take_folder(out, o, context);
  if (out.files.empty())
    throw Error(Fault::BadFile,
                fmt::format("holds no compressed weight file (*{})", kCompressedSuffix))
        .in(o.path);
  std::vector<std::string> all = out.names, from;
  for (const auto& file : out.files) from.push_back(file->name());
  for (const SideFile& s : out.side) {
    all.push_back(s.name);
    from.push_back(s.content->name());
  }
  check_names(all, from);
  return out;
}

void check_digests(const Input& input, const WrittenDigests::Result& written,
                   const Context& context) {
  for (std::size_t i = 0; i < input.files.size(); ++i) {
    const CompressedFile& file = *input.files[i];
    const Sha256& found = written.files[i].digest;
    if (found == file.index().digest) continue;
    if (const auto damage = find_damage(file, context.run)) throw *damage;
    throw Error(Fault::BadFile,
                fmt::format("restores to SHA-256 {}, but the original had {}: nothing was written",
                            found.hex(), file.index().digest.hex()))
        .in(file.name());
  }
}

void check_unchanged(const Input& input, const PackingBase& base) {
  for (const auto& file : input.files) file->check_unchanged();
  for (const SideFile& side : input.side) side.content->check_unchanged();
  base.check_unchanged();
}

void write_originals(const Input& input, const PackingBase& base, const Context& context,
                     OutputSet& outputs) {
  Plan plan;
  for (std::size_t i = 0; i < input.files.size(); ++i)
    add_restore(plan, input.files[i], input.names[i]);
  plan.side = input.side;
  const std::vector<OutTensor> pieces = outputs_of(plan);
  RunOptions run = context.run;
  Progress progress(*context.common, "decompress", "chunks");
  run.progress = progress.callback();
  WrittenDigests digests(outputs, pieces, {.files = true, .tensors = false}, context.run);
  try {
    execute(plan, run, &outputs, &digests);
    check_digests(input, digests.finish(), context);
  } catch (const Error& e) {
    if (e.fault() == Fault::BadFile) check_unchanged(input, base);  // else it is no damage
    throw;
  }
  progress.done();
  check_unchanged(input, base);
}

Restored restore(const Options& o, const Context& context) {
  Input input = open_inputs(o, context);
  const Destination to =
      packing_destination(PackingVerb::Decompress, o.path, input.folder, o.output);
  if (!input.folder) input.names = {to.path};
  Restored out;
  out.to = to.path;
  std::vector<std::string> paths{o.path};
  for (const auto& file : input.files) {
    out.bytes += file->size();
    out.stored += file->file()->size();
    out.digests.push_back(file->index().digest);
    paths.push_back(file->name());
  }
  for (const SideFile& side : input.side) paths.push_back(side.content->name());
  const PackingBase base = give_base(input.files, o, context);
  check_places(to.path, o.output, base, std::move(paths));
  if (o.output.dry_run) return out;
  OutputSet outputs(to.path, to.kind, existing(o.output));
  write_originals(input, base, context, outputs);
  outputs.commit();
  return out;
}

void write_json(const Restored& r, const Options& o, JsonWriter::Sink sink) {
  JsonWriter w(std::move(sink));
  begin_document(w, "wtool.decompress/1", o.path, o.output, r);
  w.key("sha256");
  w.begin_array();
  for (const Sha256& d : r.digests) w.value(d.hex());
  w.end_array();
  w.end_object();
}

void report(const Restored& r, const Options& o, const Context& context) {
  if (give_json(o.output.report, context.common->json,
                [&](const JsonSink& sink) { write_json(r, o, sink); }))
    return;
  out(fit_charset(fmt::format("{} → {}\n{} → {}", printable(o.path), printable(r.to),
                              human_bytes(r.stored), human_bytes(r.bytes))));
  if (o.output.dry_run) return out("\n");
  if (r.digests.size() == 1)
    out(fmt::format(", SHA-256 as of the original: {}\n", r.digests[0].hex()));
  else
    out(fmt::format(" in {} files, each with its original's SHA-256\n", r.digests.size()));
}

// ---- Parts of it

// The file, and the model in it.
struct Opened {
  PackingBase base;
  std::shared_ptr<const Model> model;
  std::shared_ptr<const CompressedFile> file;
};
Opened open_as_model(const Options& o, const Context& context) {
  Opened out;
  std::error_code ignored;
  if (fs::is_directory(o.path, ignored))
    throw Error(Fault::Usage, "--tensor and --salvage want one file, but this is a folder")
        .in(o.path);
  InputOptions input;
  input.path = o.path;
  input.alone = true;
  out.model = open_input(input, context);
  out.file = std::dynamic_pointer_cast<const CompressedFile>(out.model->catalog.sources().front());
  if (!out.file) throw not_compressed(*out.model->catalog.sources().front(), context);
  out.base = give_base({&out.file, 1}, o, context);
  return out;
}

// NPY, say, has no bf16.
std::optional<DType> wanted_dtype(const Options& o) {
  if (o.dtype.empty()) return std::nullopt;
  const auto type = parse_dtype(o.dtype);
  if (type == DType::F32 || type == DType::F64) return type;
  throw Error(Fault::Usage, fmt::format("--dtype {}: values are given as f32 or f64", o.dtype))
      .hint("'wtool convert --dtype' writes other types");
}

// Tensors as they are stored, or as floats, into any format.
ExitCode write_tensors(const Opened& opened, const std::vector<bool>& wanted, const Options& o,
                       const std::string& to, const Context& context,
                       const std::vector<std::string>& lost = {}) {
  RewriteOptions how;
  how.input.path = o.path;
  how.output = o.output;
  how.output.output = to;
  how.records.no_lineage = true;
  how.drop_metadata = !o.tensor.empty();
  const std::optional<DType> dtype = wanted_dtype(o);
  Job job = prepare(opened.model, how, context, "tensors");
  const Model& model = *opened.model;
  for (std::size_t i = 0; i < model.tensors.size(); ++i) {
    job.chosen[i] = wanted[i];
    if (!wanted[i]) continue;
    if (dtype) {
      const std::size_t before = job.plan.steps.size();
      job.plan.steps.push_back(copy_step((*job.rename)(model.tensors[i].name),
                                         decoded(model.open(model.tensors[i]), *dtype)));
      add_encoded(job, model.tensors[i], before, std::string(name_of(*dtype)));
      continue;
    }
    for (const std::uint32_t part : model.parts_of(model.tensors[i]))
      add_copy(job, model.catalog.entries()[part]);
  }
  for (const std::string& line : lost) job.remarks.push_back(std::string(kWarning) + line);
  Finish as;
  as.verb = "convert";
  as.incomplete = !lost.empty();
  return finish(job, how, context, as);
}

const Piece* piece_of(const CompressedFile& file, std::string_view tensor) {
  for (const Piece& p : file.index().pieces)
    if (p.tensor == tensor) return &p;
  return nullptr;
}

// Its own digest, beyond the checksums of frames. Throws if it is another.
void check_tensor(const Opened& opened, const TensorEntry& entry, const RunOptions& run) {
  const Piece* const p = piece_of(*opened.file, entry.name);
  const Sha256 found = sha256_of({opened.model->catalog.extent(entry)}, run)[0];
  if (p && found != p->digest)
    throw Error(Fault::BadFile, fmt::format("restores to SHA-256 {}, but the original had {}",
                                            found.hex(), p->digest.hex()))
        .in(fmt::format("tensor {}", quoted(entry.name)))
        .in(opened.file->name());
}

ExitCode one_tensor(const Options& o, const Context& context) {
  if (o.output.output.empty())
    throw Error(Fault::Usage, "--tensor needs a name for its output")
        .in(o.path)
        .hint("say -o FILE.npy, or another suffix");
  const Opened opened = open_as_model(o, context);
  const LogicalTensor* t = find_tensor(*opened.model, o.tensor);
  if (!t) throw no_such_tensor(*opened.model, o.tensor);
  std::vector<bool> wanted(opened.model->tensors.size());
  wanted[static_cast<std::size_t>(t - opened.model->tensors.data())] = true;
  for (const std::uint32_t part : opened.model->parts_of(*t))
    check_tensor(opened, opened.model->catalog.entries()[part], context.run);
  return write_tensors(opened, wanted, o, o.output.output, context);
}

// What is whole of a damaged file. The answer is no if something was lost.
ExitCode rescue(const Options& o, const Context& context) {
  check_stays(o.salvage, {&o.path, 1}, "the input");
  const Opened opened = open_as_model(o, context);
  const Model& model = *opened.model;
  std::vector<bool> whole(model.tensors.size(), true);
  std::vector<std::string> lost;
  RunOptions run = context.run;
  Progress progress(*context.common, "looking for damage", "tensors");
  const auto tell = progress.callback();
  for (std::size_t i = 0; i < model.tensors.size(); ++i) {
    for (const std::uint32_t part : model.parts_of(model.tensors[i])) try {
        check_tensor(opened, model.catalog.entries()[part], run);
      } catch (const Error& e) {
        if (e.fault() != Fault::BadFile) throw;
        lost.push_back(fmt::format("lost: {}", e.what()));
        warn(printable(lost.back()));
        whole[i] = false;
      }
    if (tell) tell(i + 1, model.tensors.size());
  }
  progress.done();
  if (std::ranges::none_of(whole, std::identity{}))
    throw Error(Fault::BadFile, "holds no intact tensor: there is nothing to salvage").in(o.path);
  const ExitCode code = write_tensors(opened, whole, o, o.salvage, context, lost);
  return lost.empty() ? code : worst(code, ExitCode::No);
}

ExitCode run(const Options& o, const Context& context) {
  if (!o.salvage.empty() && (!o.output.output.empty() || !o.tensor.empty()))
    throw Error(Fault::Usage, "--salvage excludes -o and --tensor");
  if (!o.dtype.empty() && o.tensor.empty())
    throw Error(Fault::Usage, "--dtype is for one --tensor: a whole file comes back as it was");
  if (o.output.output == "-") set_out_to_stderr();
  if (!o.tensor.empty()) return one_tensor(o, context);
  if (!o.salvage.empty()) return rescue(o, context);
  report(restore(o, context), o, context);
  return ExitCode::Ok;
}

Action bind(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("INPUT", o->path, "a compressed weight file, a folder of them, or -")->required();
  add_output_options(app, o->output);
  app.add_option("--base", o->base, "the model that the file is the difference to")
      ->option_text("BASE");
  app.add_option("--tensor", o->tensor, "just this tensor; -o says in which format")
      ->option_text("NAME");
  app.add_option("--dtype", o->dtype, "of --tensor: its values as f32 or f64")->option_text("TYPE");
  app.add_option("--salvage", o->salvage, "of a damaged file, write the tensors that are whole")
      ->option_text("OUT");
  app.footer("example: wtool decompress model.safetensors.zst");
  return [o](const Context& context) { return run(*o, context); };
}

}  // namespace

extern const Command kDecompress{"decompress",
                                 "the original of a compressed file, or a tensor of it", &bind};

}  // namespace wtool
