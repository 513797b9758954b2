#include "lib/model/folder.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/hex.h"
#include "lib/base/text.h"
#include "lib/model/model.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostEntries = Catalog::kMaxTensors;

Error folder_error(const std::string& folder, const std::error_code& code) {
  Error e(Fault::Io, "cannot list the folder: " + code.message());
  e.in(folder);
  return e;
}

FolderEntry::Kind kind_of(const fs::directory_entry& entry) {
  std::error_code code;
  if (entry.is_regular_file(code)) return FolderEntry::Kind::File;
  if (entry.is_directory(code)) return FolderEntry::Kind::Folder;
  return FolderEntry::Kind::Other;
}

void check_count(const std::string& folder, std::size_t n) {
  if (n > kMostEntries)
    throw Error(Fault::Usage, fmt::format("more than {} files, wtool's limit", kMostEntries))
        .in(folder);
}

std::string percent_decoded(std::string_view s) {
  std::string out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    const int high = s[i] == '%' && i + 2 < s.size() ? hex_digit(s[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(s[i + 2]) : -1;
    if (low >= 0) {
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += s[i];
    }
  }
  return out;
}

std::optional<std::string> unsafe_as_it_is(std::string_view path) {
  if (path.empty()) return "is empty";
  if (path.find('\0') != std::string_view::npos) return "holds a NUL byte";
  if (path.find('\\') != std::string_view::npos) return "holds a backslash";
  if (path[0] == '/') return "is an absolute path";
  if (path.size() > 1 && path[1] == ':') return "begins with a drive letter";
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    if (part == "..") return "leads out of the folder";
    if (part.empty() || part == ".") return "has an empty or '.' part";
    at = end + 1;
  }
  return std::nullopt;
}

}  // namespace

std::vector<FolderEntry> list_folder(const std::string& folder) {
  std::error_code code;
  fs::directory_iterator it(folder, code);
  if (code) throw folder_error(folder, code);
  std::vector<FolderEntry> out;
  for (; it != fs::directory_iterator(); it.increment(code)) {
    out.push_back({it->path().filename().string(), kind_of(*it)});
    check_count(folder, out.size());
  }
  if (code) throw folder_error(folder, code);
  std::ranges::sort(out, natural_less, &FolderEntry::name);
  return out;
}

std::vector<std::string> files_below(const std::string& folder,
                                     const std::vector<std::string_view>& suffixes,
                                     std::vector<std::string>& others) {
  std::error_code code;
  fs::recursive_directory_iterator it(folder, fs::directory_options::skip_permission_denied, code);
  if (code) throw folder_error(folder, code);
  std::vector<std::string> out;
  std::size_t seen = 0;
  for (; it != fs::recursive_directory_iterator(); it.increment(code)) {
    check_count(folder, ++seen);
    if (kind_of(*it) != FolderEntry::Kind::File) continue;
    std::string relative = it->path().lexically_relative(folder).generic_string();
    if (std::ranges::any_of(suffixes, [&](auto s) { return lower(relative).ends_with(s); }))
      out.push_back(std::move(relative));
    else if (it.depth() > 0)
      others.push_back(std::move(relative));
  }
  if (code) throw folder_error(folder, code);
  std::ranges::sort(out, natural_less);
  std::ranges::sort(others, natural_less);
  return out;
}

std::string joined(std::string_view folder, std::string_view name) {
  if (folder.empty()) return std::string(name);
  return fmt::format("{}{}{}", folder, folder.ends_with('/') ? "" : "/", name);
}
std::string folder_of(std::string_view path) {
  const auto slash = path.rfind('/');
  if (slash == std::string_view::npos) return {};
  return std::string(path.substr(0, std::max<std::size_t>(slash, 1)));
}
std::string file_name_of(std::string_view path) {
  return std::string(path.substr(path.rfind('/') + 1));  // npos + 1 is 0
}
bool exists(const std::string& path) {
  std::error_code code;
  return fs::exists(path, code);
}

std::string_view without_compressed_suffix(std::string_view name) noexcept {
  if (name.size() > kCompressedSuffix.size() && name.ends_with(kCompressedSuffix))
    name.remove_suffix(kCompressedSuffix.size());
  return name;
}
std::string present(std::string path) {
  if (exists(path)) return path;
  std::string compressed = path + std::string(kCompressedSuffix);
  return exists(compressed) ? compressed : path;
}

bool leads_out(const std::string& folder, const std::string& name) {
  std::error_code code;
  const fs::path home = fs::canonical(folder.empty() ? "." : folder, code);
  if (code) return false;  // not there: whoever opens it says so
  const fs::path file = fs::canonical(joined(folder, name), code);
  if (code) return false;
  const auto below = [&file](const fs::path& base) {
    return std::ranges::mismatch(base, file).in1 == base.end();
  };
  if (below(home)) return false;
  for (fs::path up = home; up.has_relative_path(); up = up.parent_path())
    if (up.filename() == "snapshots") return file.parent_path() != up.parent_path() / "blobs";
  return true;
}

std::vector<std::string> numbered_set(std::string_view file_name) {
  constexpr std::string_view kOf = "-of-";
  const auto dot = file_name.rfind('.');
  const auto of = file_name.rfind(kOf, dot);
  if (of == std::string_view::npos || dot == std::string_view::npos || of + kOf.size() > dot)
    return {};
  const std::string_view last = file_name.substr(of + kOf.size(), dot - of - kOf.size());
  const auto start = file_name.find_last_not_of("0123456789", of - 1) + 1;
  const std::string_view number = file_name.substr(start, of - start);
  if (of == 0 || start == 0 || (file_name[start - 1] != '-' && file_name[start - 1] != '_'))
    return {};
  const auto usual = [](std::string_view s) { return s.size() == 5 || s.size() == 6; };
  const auto i = parse_u64(number), count = parse_u64(last);
  // Nobody writes more shards (the hub's own limit); each name costs memory.
  constexpr std::uint64_t kMostShards = 10'000;
  if (!usual(number) || !usual(last) || !i || !count || *i == 0 || *i > *count ||
      *count > kMostShards)
    return {};
  std::vector<std::string> out;
  for (std::uint64_t n = 1; n <= *count; ++n)
    out.push_back(fmt::format("{}{:0{}}{}", file_name.substr(0, start), n, number.size(),
                              file_name.substr(of)));
  return out;
}

std::optional<std::string> unsafe_path(std::string_view relative) {
  if (auto why = unsafe_as_it_is(relative)) return why;
  const std::string decoded = percent_decoded(relative);
  if (decoded == relative) return std::nullopt;
  auto why = unsafe_as_it_is(decoded);
  if (why) *why += " once '%' codes are decoded";
  return why;
}

}  // namespace wtool
