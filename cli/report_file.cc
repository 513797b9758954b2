#include "cli/report_file.h"

#include <filesystem>
#include <map>

#include <fmt/format.h>

#include "cli/terminal.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/engine/output_set.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

std::string resolved(const std::string& path) {
  std::error_code ignored;
  const auto whole = fs::weakly_canonical(fs::absolute(path), ignored);
  return ignored ? path : whole.native();
}

void check_place(const ReportFile& file, bool force) {
  const std::string place = fmt::format("{} {}", file.option, file.path);
  if (file.path == "-" || file.path.ends_with('/') || fs::is_directory(file.path))
    throw Error(Fault::Usage, "is no name for a file").in(place);
  if (const auto parent = fs::path(file.path).parent_path();
      !parent.empty() && !fs::is_directory(parent))
    throw Error(Fault::Io, "there is no such folder").in(place);
  if (!force && fs::exists(fs::symlink_status(file.path)))
    throw Error(Fault::Usage, "already exists").in(file.path).hint("use --force to replace it");
}

}  // namespace

void check_report_files(std::span<const ReportFile> files, bool force,
                        std::span<const std::string> taken) {
  std::map<std::string, std::string_view> places;  // and the option that writes there
  for (const ReportFile& file : files)
    if (!file.path.empty()) places.emplace(resolved(file.path), "");
  if (places.empty()) return;
  for (const std::string& t : taken)
    if (const auto it = places.find(resolved(t)); it != places.end())
      it->second = "an input or the output itself";
  for (const ReportFile& file : files) {
    if (file.path.empty()) continue;
    std::string_view& other = places[resolved(file.path)];
    if (!other.empty())
      throw Error(Fault::Usage, other.starts_with("--")
                                    ? fmt::format("{} goes to the same file", other)
                                    : fmt::format("is {}", other))
          .in(fmt::format("{} {}", file.option, file.path));
    other = file.option;
    check_place(file, force);
  }
}

void check_stays(const std::string& output, std::span<const std::string> needed,
                 std::string_view what) {
  std::error_code ignored;
  for (const std::string& file : needed)
    if (fs::equivalent(file, output, ignored))
      throw Error(Fault::Usage, fmt::format("is {}, which stays as it is", what)).in(output);
}

std::vector<std::string> files_of(const Model& model) {
  std::vector<std::string> files;
  for (const SourcePtr& s : model.catalog.sources()) files.push_back(s->name());
  for (const SideFile& s : model.side) files.push_back(s.content->name());
  return files;
}

void write_report_file(const std::string& path, std::string_view text) {
  OutputSet file(path, OutputSet::Kind::File, OutputSet::Existing::Replace);
  file.write_at(file.create("report", text.size()), 0, as_bytes(text));
  file.commit();
}

bool give_json(const std::string& report, bool json, const std::function<void(JsonSink)>& write) {
  if (!report.empty()) {
    std::string text;
    write([&text](std::string_view s) { text += s; });
    write_report_file(report, text);
  }
  if (json) write(out);
  return json;
}

}  // namespace wtool
