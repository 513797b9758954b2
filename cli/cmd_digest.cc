#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/content.h"
#include "cli/digest_list.h"
#include "cli/json.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/trust/digest.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> paths;
  std::string output;
  bool force = false, per_tensor = false, content = false, dry_run = false;
  InputOptions open;  // --alone, --as; the path is each of `paths`
};

struct Item {
  std::string path, name;      // to open; to print
  std::optional<Error> fault;  // known before reading
  std::uint64_t bytes = 0;
  Sha256 digest = {};
};

std::string without_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

bool same_place(const fs::path& a, const std::string& b) {
  std::error_code ignored;
  return !b.empty() && b != "-" && fs::equivalent(a, b, ignored);
}

// The files in a folder, sorted; the list that is being written is not one of them.
void add_folder(const std::string& folder, const std::string& output, std::vector<Item>& items) {
  std::vector<std::string> found;
  try {
    for (const fs::directory_entry& e : fs::recursive_directory_iterator(folder))
      if (!(e.is_directory() && !e.is_symlink()) && !same_place(e.path(), output))
        found.push_back(e.path().native());
  } catch (const fs::filesystem_error& e) {
    items.push_back(
        {folder, folder,
         Error(Fault::Io, "cannot look into the folder: " + e.code().message()).in(folder)});
    return;
  }
  std::ranges::sort(found);
  std::error_code ignored;
  for (const std::string& path : found)
    if (!fs::is_directory(path, ignored))  // a link to a folder
      items.push_back({path, path, std::nullopt,
                       fs::is_regular_file(path, ignored) ? fs::file_size(path, ignored) : 0});
  if (found.empty())
    items.push_back({folder, folder, Error(Fault::Usage, "holds no files").in(folder)});
}

std::vector<Item> expand(const Options& options) {
  std::vector<Item> items;
  for (const std::string& path : options.paths) {
    std::error_code ignored;
    if (path != "-" && fs::is_directory(path, ignored))
      add_folder(without_slashes(path), options.output, items);
    else
      items.push_back({path, path, std::nullopt,
                       fs::is_regular_file(path, ignored) ? fs::file_size(path, ignored) : 0});
  }
  return items;
}

// Names in a list that is written to a file are seen from that file's folder, where they will be
// looked up.
void name_from(const fs::path& folder, std::vector<Item>& items) {
  for (Item& i : items)
    if (i.path != "-")
      i.name = fs::absolute(i.path).lexically_normal().lexically_relative(folder).native();
}
fs::path folder_of(const std::string& file) {
  return fs::absolute(file).lexically_normal().parent_path();
}

// Where the result goes: standard output, or a file that appears when all went well.
class Destination {
 public:
  explicit Destination(const Options& options) {
    if (options.output.empty() || options.output == "-") return;
    file_ = std::make_unique<OutputSet>(
        options.output, OutputSet::Kind::File,
        options.force ? OutputSet::Existing::Replace : OutputSet::Existing::Refuse);
    file_->create(options.output, std::nullopt);
  }
  void write(std::string_view text) const {
    if (file_)
      file_->append(0, as_bytes(text));
    else
      out(text);
  }
  void finish(bool good) const {
    if (file_ && good) file_->commit();
  }

 private:
  std::unique_ptr<OutputSet> file_;
};

// Reads all files; tells each result in order. Faults are printed. The worst of them comes back.
ExitCode digest_all(std::vector<Item>& items, const Context& context,
                    const std::function<void(const Item&)>& tell) {
  ExitCode code = ExitCode::Ok;
  std::vector<SourcePtr> open(items.size());
  DigestJob job;
  job.count = items.size();
  for (const Item& i : items) job.total_bytes += i.bytes;
  job.extent = [&](std::size_t i) -> Extent {
    if (items[i].fault) throw Error(*items[i].fault);
    open[i] = items[i].path == "-" ? from_stdin(&stop_signal()) : open_file(items[i].path);
    return {open[i], 0, items[i].bytes = open[i]->size()};
  };
  job.take = [&](std::size_t i, const Sha256* digest, const Error* error) {
    Item& item = items[i];
    if (error) item.fault = *error;
    if (digest) item.digest = *digest;
    try {
      if (digest) open[i]->check_unchanged();
    } catch (const Error&) {
      item.fault = Error(Fault::Io, "changed while reading").in(item.path);
    }
    open[i].reset();
    if (item.fault) {
      print_error(*item.fault, context.common->json);
      code = worst(code, exit_code_of(item.fault->fault()));
    }
    tell(item);
  };
  Progress progress(*context.common, "digest", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  sha256_each(job, run);
  return code;
}

void write_json(const Options& options, const std::vector<Item>& items, ExitCode code,
                const Destination& to) {
  JsonWriter w([&to](std::string_view text) { to.write(text); });
  w.begin_document("wtool.digest/1", code == ExitCode::Ok, options.paths);
  w.key("files");
  w.begin_array();
  for (const Item& i : items) {
    w.begin_object();
    w.name_member("file", i.name);
    if (i.fault) {
      w.member("error", i.fault->what());
    } else {
      w.member("bytes", i.bytes);
      w.member("sha256", i.digest.hex());
    }
    w.end_object();
  }
  w.end_array();
  w.end_object();
}

// Which of the files a model's source is.
class FileIndex {
 public:
  explicit FileIndex(const std::vector<Item>& items) {
    for (std::uint32_t i = 0; i < items.size(); ++i) {
      by_name_.emplace(fs::absolute(items[i].path).lexically_normal().native(), i);
      by_place_.emplace(real_path(items[i].path), i);
    }
  }
  std::uint32_t of(const std::string& path) const {
    if (const auto it = by_name_.find(fs::absolute(path).lexically_normal().native());
        it != by_name_.end())
      return it->second;
    if (const auto it = by_place_.find(real_path(path)); it != by_place_.end()) return it->second;
    throw Error(Fault::Internal, "is not among the files").in(path);
  }

 private:
  std::unordered_map<std::string, std::uint32_t> by_name_, by_place_;
};

using Models = std::vector<std::shared_ptr<const Model>>;

// The paths as models: a file by itself, a folder as a whole.
Models open_all(const Options& options, const Context& context) {
  Models out;
  for (const std::string& path : options.paths) {
    std::error_code ignored;
    Diagnostics faults;
    const bool folder = fs::is_directory(path, ignored);
    out.push_back(open_model(path, context.registry, {.alone = !folder, .void_as = {}}, faults));
  }
  return out;
}

bool same(const Extent& a, const Extent& b) {
  return a.source == b.source && a.offset == b.offset && a.bytes == b.bytes;
}

// All that headers tell. `extents` gets what is to be hashed: of each tensor its bytes and, where
// they are not its elements row by row in little-endian order, these.
Manifest from_headers(const std::vector<Item>& items, const Models& models,
                      std::vector<Extent>& extents, std::vector<Sha256*>& digests) {
  const FileIndex index(items);
  Manifest m;
  for (const auto& model : models) {
    const Catalog& catalog = model->catalog;
    ManifestModel& listed = m.models.emplace_back();
    for (const SourcePtr& s : catalog.sources()) listed.files.push_back(index.of(s->name()));
    listed.metadata = metadata_digest(catalog.meta);
    for (const TensorEntry& e : catalog.entries())
      m.tensors.push_back({std::string(e.name),
                           std::string(name_of(e.dtype)),
                           Shape(e.shape.begin(), e.shape.end()),
                           e.bytes,
                           listed.files[e.source],
                           {}});
  }
  auto t = m.tensors.begin();
  for (const auto& model : models)
    for (const TensorEntry& e : model->catalog.entries()) {
      const Extent as_stored = model->catalog.extent(e);
      extents.push_back(as_stored);
      digests.push_back(&t->stored);
      if (Extent data = content_data(model->catalog, e).data; !same(data, as_stored)) {
        extents.push_back(std::move(data));
        digests.push_back(&t->content.emplace());
      }
      ++t;
    }
  return m;
}

void hash_tensors(const std::vector<Extent>& extents, const std::vector<Sha256*>& digests,
                  const Context& context) {
  Progress progress(*context.common, "digest of tensors", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  const std::vector<Sha256> found = sha256_of(extents, run);
  for (std::size_t i = 0; i < found.size(); ++i) *digests[i] = found[i];
}

// A manifest's names must not lead out of its folder. One on standard output has no place yet: it
// belongs into this folder, or else into the one that holds all the files. `models` are named like
// the files.
void name_for_manifest(const Options& options, std::vector<Item>& items,
                       std::vector<Item>& models) {
  const bool on_stdout = options.output.empty() || options.output == "-";
  const auto name_all = [&](const fs::path& folder) {
    name_from(folder, items);
    name_from(folder, models);
  };
  const auto lead_out = [&]() -> const Item* {
    for (const auto* all : {&items, &models})
      for (const Item& i : *all)
        if (i.name == ".." || i.name.starts_with("../")) return &i;
    return nullptr;
  };
  name_all(on_stdout ? fs::current_path() : folder_of(options.output));
  const Item* first = lead_out();
  if (!first) return;
  if (!on_stdout)
    throw Error(Fault::Usage, "lies outside the manifest's folder")
        .in(first->path)
        .hint("write the manifest beside the files, or above them");
  fs::path common = folder_of(items[0].path);
  name_all(common);
  while (lead_out()) name_all(common = common.parent_path());
  note(fmt::format("names in the manifest are seen from {}", quoted(common.native())));
}

void refuse_twice(const std::vector<Item>& items) {
  std::unordered_set<std::string_view> names;
  for (const Item& i : items)
    if (!names.insert(i.name).second) throw Error(Fault::Usage, "is given twice").in(i.path);
}

ExitCode manifest(const Options& options, const Context& context) {
  if (std::ranges::find(options.paths, "-") != options.paths.end())
    throw Error(Fault::Usage, "a manifest needs files with names").in("-");
  std::vector<Item> items = expand(options), given;
  for (const std::string& path : options.paths)
    given.push_back({without_slashes(path), {}, std::nullopt});
  name_for_manifest(options, items, given);
  refuse_twice(items);
  const Models models = open_all(options, context);
  std::vector<Extent> extents;
  std::vector<Sha256*> digests;
  Manifest m = from_headers(items, models, extents, digests);
  for (std::size_t i = 0; i < given.size(); ++i) m.models[i].name = given[i].name;
  const Destination to(options);
  const ExitCode code = digest_all(items, context, [](const Item&) {});
  if (code != ExitCode::Ok) return code;  // half a manifest would pass for a whole one
  hash_tensors(extents, digests, context);
  for (const auto& model : models)
    for (const SourcePtr& s : model->catalog.sources()) s->check_unchanged();
  for (const Item& i : items) m.files.push_back({i.name, i.bytes, i.digest});
  seal(m);
  write_manifest(m, [&to](std::string_view text) { to.write(text); });
  to.finish(true);
  return code;
}

void write_contents(const Options& options, const std::vector<ModelContent>& all, ExitCode code,
                    const Destination& to) {
  JsonWriter w([&to](std::string_view text) { to.write(text); });
  w.begin_document("wtool.digest/1", code == ExitCode::Ok, options.paths);
  w.key("files");
  w.begin_array();
  w.end_array();
  w.key("models");
  w.begin_array();
  for (const ModelContent& m : all) {
    w.begin_object();
    w.name_member("path", m.path);
    if (m.fault) {
      w.member("error", m.fault->what());
    } else {
      w.member("tensors", m.tensors);
      w.member("content", content_text(m.content));
      w.member("metadata_sha256", m.metadata.hex());
    }
    w.end_object();
  }
  w.end_array();
  w.end_object();
}

// One line for each model, or one document.
ExitCode contents(const Options& options, const Context& context) {
  const Destination to(options);
  const bool json = context.common->json;
  ExitCode code = ExitCode::Ok;
  std::vector<ModelContent> all;
  for (const std::string& path : options.paths) {
    InputOptions input = options.open;
    input.path = path;
    try {
      all.push_back(content_of(input, context));
      if (!json)
        to.write(fmt::format("{}  {}\n", content_text(all.back().content), printable(path)));
    } catch (const Error& e) {
      if (e.fault() == Fault::Cancelled || e.fault() == Fault::Internal) throw;
      print_error(e, json);
      code = worst(code, exit_code_of(e.fault()));
      all.push_back({.path = path, .fault = e});
    }
  }
  if (json) write_contents(options, all, code, to);
  to.finish(code == ExitCode::Ok);
  return code;
}

ExitCode run(const Options& options, const Context& context) {
  if (!options.content && (options.open.alone || !options.open.void_as.empty()))
    throw Error(Fault::Usage, "--alone and --as go with --content");
  if (options.content && options.per_tensor)
    throw Error(Fault::Usage, "either --content or --per-tensor: a manifest has the content too");
  if (options.dry_run) {
    for (const Item& item : expand(options))
      out(fit_charset("would hash " + printable(item.path) + "\n"));
    if (!options.output.empty())
      out(fit_charset("would write " + printable(options.output) + "\n"));
    return ExitCode::Ok;
  }
  if (options.content) return contents(options, context);
  if (options.per_tensor) return manifest(options, context);
  std::vector<Item> items = expand(options);
  if (!options.output.empty() && options.output != "-") name_from(folder_of(options.output), items);
  const Destination to(options);
  const bool json = context.common->json;
  const ExitCode code = digest_all(items, context, [&](const Item& item) {
    if (!json && !item.fault) to.write(checksum_line(item.name, item.digest));
  });
  if (json) write_json(options, items, code, to);
  to.finish(code == ExitCode::Ok);
  return code;
}

Action bind(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  app.add_option("PATH", options->paths, "files; of a folder, all files in it; - is stdin")
      ->required();
  app.add_flag("--per-tensor", options->per_tensor,
               "a manifest as JSON, with the digest of each tensor and of the content");
  app.add_flag("--content", options->content,
               "of whole models: the same for the same tensors in any container and shards");
  add_open_options(app, options->open);
  app.add_option("-o,--output", options->output, "write to a file, with names as seen from there")
      ->option_text("OUTPUT");
  app.add_flag("-f,--force", options->force, "replace what is there");
  app.add_flag("-n,--dry-run", options->dry_run,
               "say what would be hashed and written, do neither");
  app.footer(
      "examples:\n  wtool digest model/ -o model/SHA256SUMS\n  wtool digest --content model/ "
      "model.gguf\n");
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace

extern const Command kDigest;
const Command kDigest{"digest", "SHA-256 of files and of tensors", bind};

}  // namespace wtool
