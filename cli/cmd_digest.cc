#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <unordered_map>

#include <fmt/format.h>

#include "cli/common.h"
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
  bool force = false, per_tensor = false, dry_run = false;
};

struct Item {
  std::string path, name;      // to open; to print
  std::optional<Error> fault;  // known before reading
  std::uint64_t bytes = 0;
  Sha256 digest = {};
};

// Links resolved as far as can be, to recognise a file by.
std::string real_path(const std::string& path) {
  std::error_code failed;
  const fs::path real = fs::weakly_canonical(path, failed);
  return failed ? path : real.native();
}

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
  w.begin_object();
  w.member("schema", "wtool.digest/1");
  w.member("ok", code == ExitCode::Ok);
  w.key("inputs");
  w.begin_array();
  for (const std::string& p : options.paths) w.value(p);
  w.end_array();
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

// A stored tensor and the file it is in.
struct Stored {
  std::shared_ptr<const Model> model;
  const TensorEntry* entry;
  std::string file;
};

// The paths that can be opened as models, with their stored tensors.
std::vector<Stored> stored_tensors(const Options& options, const std::vector<Item>& items,
                                   const Context& context) {
  std::unordered_map<std::string, std::string> names;
  for (const Item& i : items) names.emplace(real_path(i.path), i.name);
  std::vector<Stored> out;
  for (const std::string& path : options.paths) {
    std::error_code ignored;
    Diagnostics faults;
    const bool folder = fs::is_directory(path, ignored);
    const auto model =
        open_model(path, context.registry, {.alone = !folder, .void_as = {}}, faults);
    for (const TensorEntry& e : model->catalog.entries()) {
      const std::string& file = model->catalog.sources()[e.source]->name();
      const auto name = names.find(real_path(file));
      if (name == names.end())
        throw Error(Fault::Internal, fmt::format("{} is not among the files", quoted(file)))
            .in(path);
      out.push_back({model, &e, name->second});
    }
  }
  return out;
}

void write_tensor(JsonWriter& w, const Stored& t, const Sha256& digest) {
  w.begin_object();
  w.name_member("name", t.entry->name);
  w.member("dtype", name_of(t.entry->dtype));
  w.key("shape");
  w.begin_array();
  for (const std::uint64_t d : t.entry->shape) w.value(d);
  w.end_array();
  w.member("bytes", t.entry->bytes);
  w.name_member("file", t.file);
  w.member("sha256", digest.hex());
  w.end_object();
}

void write_manifest(const std::vector<Item>& items, const std::vector<Stored>& tensors,
                    const Context& context, const Destination& to) {
  std::vector<Extent> extents;
  for (const Stored& t : tensors) extents.push_back(t.model->catalog.extent(*t.entry));
  Progress progress(*context.common, "digest of tensors", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  const std::vector<Sha256> digests = sha256_of(extents, run);
  progress.done();

  JsonWriter w([&to](std::string_view text) { to.write(text); });
  w.begin_object();
  w.member("schema", "wtool.manifest/1");
  w.member("ok", true);
  w.key("files");
  w.begin_array();
  for (const Item& i : items) {
    w.begin_object();
    w.name_member("file", i.name);
    w.member("bytes", i.bytes);
    w.member("sha256", i.digest.hex());
    w.end_object();
  }
  w.end_array();
  w.key("tensors");
  w.begin_array();
  for (std::size_t i = 0; i < tensors.size(); ++i) write_tensor(w, tensors[i], digests[i]);
  w.end_array();
  w.end_object();
}

// A manifest's names must not lead out of its folder. One on standard output has no place yet: it
// belongs into this folder, or else into the one that holds all the files.
void name_for_manifest(const Options& options, std::vector<Item>& items) {
  const bool on_stdout = options.output.empty() || options.output == "-";
  const auto lead_out = [&] {
    return std::ranges::find_if(items, [](const Item& i) { return i.name.starts_with(".."); });
  };
  name_from(on_stdout ? fs::current_path() : folder_of(options.output), items);
  const auto first = lead_out();
  if (first == items.end()) return;
  if (!on_stdout)
    throw Error(Fault::Usage, "lies outside the manifest's folder")
        .in(first->path)
        .hint("write the manifest beside the files, or above them");
  fs::path common = folder_of(items[0].path);
  name_from(common, items);
  while (lead_out() != items.end()) name_from(common = common.parent_path(), items);
  note(fmt::format("names in the manifest are seen from {}", quoted(common.native())));
}

ExitCode manifest(const Options& options, const Context& context) {
  if (std::ranges::find(options.paths, "-") != options.paths.end())
    throw Error(Fault::Usage, "a manifest needs files with names").in("-");
  std::vector<Item> items = expand(options);
  name_for_manifest(options, items);
  const std::vector<Stored> tensors = stored_tensors(options, items, context);
  const Destination to(options);
  const ExitCode code = digest_all(items, context, [](const Item&) {});
  if (code != ExitCode::Ok) return code;  // half a manifest would pass for a whole one
  write_manifest(items, tensors, context, to);
  to.finish(true);
  return code;
}

ExitCode run(const Options& options, const Context& context) {
  if (options.dry_run) {
    for (const Item& item : expand(options)) out("would hash " + printable(item.path) + "\n");
    if (!options.output.empty()) out("would write " + printable(options.output) + "\n");
    return ExitCode::Ok;
  }
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
               "a manifest as JSON, with the digest of each tensor's stored bytes");
  app.add_option("-o,--output", options->output, "write to a file, with names as seen from there")
      ->option_text("OUTPUT");
  app.add_flag("-f,--force", options->force, "replace what is there");
  app.add_flag("-n,--dry-run", options->dry_run,
               "say what would be hashed and written, do neither");
  app.footer("example:\n  wtool digest model/ -o model/SHA256SUMS\n");
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace

extern const Command kDigest;
const Command kDigest{"digest", "SHA-256 of files and of tensors", bind};

}  // namespace wtool
