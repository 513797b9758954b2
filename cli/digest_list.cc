#include "cli/digest_list.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "cli/json.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/trust/model_files.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kLongestList = std::uint64_t{256} << 20;

std::string read_text(const std::string& path) {
  return read_small_file(path, kLongestList, "a list of digests");
}

void parse(std::string text, DigestList& list) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || text[first] != '{') {
    list.checksums = parse_checksums(text, list.path);
    return;
  }
  try {
    list.manifest = parse_manifest(std::move(text));
  } catch (Error& e) {
    throw e.in(list.path);
  }
}

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

// What need not be listed, as names below `folder`.
std::vector<std::string> left_out(const DigestList& list, const std::string& folder,
                                  const SignatureOptions& signature) {
  std::vector<std::string> out = git_paths();
  for (const std::string& own : {list.path, list.verdict->signature, default_signature(folder)})
    if (const auto name = name_below(folder, own)) out.push_back(*name);
  for (const std::string& typed : signature.ignore) {
    std::string name = name_in_model(folder, typed);
    for (const ManifestFile& f : list.manifest->files)
      if (const auto listed = name_below(folder, list.place(f.name));
          listed && lies_in(*listed, name))
        throw Error(Fault::Usage, fmt::format("--ignore {}: it is listed", quoted(typed)))
            .in(list.path);
    out.push_back(std::move(name));
  }
  return out;
}

}  // namespace

std::string DigestList::place(const std::string& name) const {
  return (fs::path(path).parent_path() / name).native();  // an absolute name stays itself
}

DigestList read_digest_list(const std::string& path) {
  DigestList list;
  list.path = path;
  parse(read_text(path), list);
  return list;
}

DigestList read_digest_list(const std::string& path, const SignatureOptions& signature,
                            const Context& context) {
  if (!is_given(signature)) return read_digest_list(path);
  if (!signature.only.empty() || signature.keep_going)
    throw Error(Fault::Usage, "--only and --keep-going are for a model's own signature")
        .hint("with -c, PATH and --tensors choose what is compared");
  DigestList list;
  list.path = path;
  std::string text = read_text(path);
  list.verdict = signature_of(signature, path, from_memory(path, to_buffer(text)), context);
  for (const std::string& w : list.verdict->warnings) warn(w);
  if (!context.common->json) list.verdict->print();
  if (list.usable()) parse(std::move(text), list);
  return list;
}

void write_signature(JsonWriter& w, const DigestList& list) {
  if (!list.verdict) return;
  w.key("signature");
  w.begin_object();
  w.member("ok", list.usable());
  w.name_member("path", list.verdict->signature);
  list.verdict->write_members(w);
  w.end_object();
}

std::vector<std::string> unlisted_files(const DigestList& list, const SignatureOptions& signature) {
  std::vector<std::string> out;
  if (!list.manifest || !list.verdict || signature.ignore_unsigned) return out;
  std::set<std::string_view> listed;
  for (const ManifestFile& f : list.manifest->files) listed.insert(f.name);
  for (const ManifestModel& m : list.manifest->models) {
    const std::string folder = m.name == "." ? list.place("") : list.place(m.name);
    const std::string path = folder.empty() ? "." : folder;
    if (!is_folder(path)) continue;
    for (const ModelFile& f : files_of_model(path, left_out(list, path, signature))) {
      std::string name = m.name == "." ? f.name : m.name + "/" + f.name;
      if (!listed.contains(name)) out.push_back(std::move(name));
    }
  }
  std::ranges::sort(out);
  const auto twice = std::ranges::unique(out);
  out.erase(twice.begin(), twice.end());
  return out;
}

Error nothing_to_compare(const std::string& path, std::string why) {
  return Error(Fault::Usage, "nothing to compare with: " + std::move(why)).in(path);
}

std::string real_path(const std::string& path) {
  std::error_code failed;
  const fs::path real = fs::weakly_canonical(path, failed);
  return failed ? path : real.native();
}

}  // namespace wtool
