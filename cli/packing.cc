#include "cli/packing.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <map>

#include <fmt/format.h>

#include "cli/report_file.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

Error needs_name(const std::string& input, std::string_view why) {
  return Error(Fault::Usage, fmt::format("{}, so the output needs a name", why))
      .in(input)
      .hint("say -o OUTPUT");
}

// What cannot be renamed stays as it is.
std::string renamed(PackingVerb verb, std::string name, std::string_view suffix) {
  if (verb == PackingVerb::Compress) return name.append(suffix);
  if (name.size() > suffix.size() && name.ends_with(suffix))
    name.resize(name.size() - suffix.size());
  return name;
}

std::string beside(PackingVerb verb, const std::string& input, bool folder) {
  if (input == "-") throw needs_name(input, "the input is standard input");
  fs::path from(input);
  if (folder) from = (from / "").lexically_normal().parent_path();  // "m", "m/", "m/." are one
  const std::string name = from.filename();
  if (name.empty() || name == "." || name == "..")
    throw needs_name(input, "the input is a folder without a name");
  if (in_cache(from)) throw needs_name(input, "the input lies in a cache folder");
  const std::string_view suffix = folder ? std::string_view("-zst") : kCompressedSuffix;
  const std::string to = renamed(verb, name, suffix);
  if (to == name) throw needs_name(input, fmt::format("its name does not end in {}", suffix));
  return joined(folder_of(from.native()), to);
}

}  // namespace

Destination packing_destination(PackingVerb verb, const std::string& input, bool folder,
                                const OutputOptions& options) {
  const std::string& path = options.output;
  Destination to{.path = path, .kind = OutputSet::Kind::File, .format = nullptr};
  if (folder) to.kind = OutputSet::Kind::Folder;
  if (path.empty()) {
    to.path = beside(verb, input, folder);
  } else if (path == "-") {
    if (folder) throw Error(Fault::Usage, "a folder does not go to standard output").in(input);
    to.kind = OutputSet::Kind::Stdout;
    refuse_terminal(options);
  } else if (folder) {
    to.path = without_dots(path);
  } else if (is_folder_name(path)) {
    if (input == "-")
      throw Error(Fault::Usage, "is a folder, and standard input has no name for a file in it")
          .in(path)
          .hint(fmt::format("say -o {}", joined(path, "NAME")));
    to.path = joined(path, renamed(verb, file_name_of(input), kCompressedSuffix));
  }
  return to;
}

void check_names(std::span<const std::string> names, std::span<const std::string> from) {
  std::map<std::string_view, std::string_view> taken;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto [it, fresh] = taken.emplace(names[i], from[i]);
    if (!fresh)
      throw Error(Fault::Usage, fmt::format("would be written as {}, and so would {}",
                                            quoted(names[i]), quoted(it->second)))
          .in(from[i])
          .hint("move one of them out of the folder");
  }
}

void PackingBase::check_unchanged() const {
  for (const Extent& e : files) e.source->check_unchanged();
}

PackingBase open_base(const std::string& path, const Context& context) {
  PackingBase out;
  if (path.empty()) return out;
  out.model = open_input({.path = path, .alone = false, .void_as = {}}, context);
  for (const SourcePtr& s : out.model->catalog.sources()) out.files.push_back({s, 0, s->size()});
  return out;
}

void read_digests(PackingBase& base, const Context& context) {
  Progress progress(*context.common, "digest of the base", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  base.digests = sha256_of(base.files, run);
  progress.done();
  base.check_unchanged();  // else they are of no file that ever was
}

void check_places(const std::string& to, const OutputOptions& options, const PackingBase& base,
                  std::vector<std::string> inputs) {
  std::vector<std::string> needed;
  if (base.model) needed = files_of(*base.model);
  check_stays(to, needed, "the base");
  inputs.push_back(to);
  std::ranges::move(needed, std::back_inserter(inputs));
  check_report_files(std::vector<ReportFile>{{"--report", options.report}}, options.force, inputs);
}

void begin_document(JsonWriter& w, std::string_view schema, const std::string& input,
                    const OutputOptions& options, const PackingSum& sum) {
  w.begin_document(schema, true, std::vector<std::string>{input});
  w.member("dry_run", options.dry_run);
  w.name_member("output", sum.to);
  w.member("bytes", sum.bytes);
  w.member("packed_bytes", sum.stored);
}

}  // namespace wtool
