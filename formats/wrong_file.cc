// What people hand to a weight tool that is no weight file, and how to tell.

#include <algorithm>

#include <fmt/format.h>

#include "formats/magic.h"
#include "formats/registry.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::size_t kHead = 4096;

std::string head_of(const Source& source) {
  Buffer bytes(std::min<std::uint64_t>(source.size(), kHead));
  source.read(0, bytes);
  return std::string(as_text(bytes));
}

std::string_view without_blanks(std::string_view s) {
  if (s.starts_with("\xEF\xBB\xBF")) s.remove_prefix(3);
  s.remove_prefix(std::min(s.find_first_not_of(" \t\r\n"), s.size()));
  return s;
}

// 'size 4976698672' in the three lines that Git LFS leaves in place of a file.
std::string lfs_pointer(std::string_view head) {
  constexpr std::string_view kKey = "\nsize ";
  std::string size;
  if (const auto at = head.find(kKey); at != std::string_view::npos) {
    const std::string_view rest = head.substr(at + kKey.size());
    if (const auto n = parse_u64(rest.substr(0, rest.find_first_not_of("0123456789"))))
      size = fmt::format("; the real file has {} bytes", *n);
  }
  return "a Git LFS pointer, not the file itself" + size + ": run 'git lfs pull' to get it";
}

std::string json_text(std::string_view head) {
  for (const std::string_view key : {"\"error\"", "\"message\"", "\"detail\""})
    if (head.find(key) != std::string_view::npos)
      return "a JSON error message, not weights: a download that was refused?";
  if (head.find("\"weight_map\"") != std::string_view::npos)
    return "JSON with a weight map: an index, which is read from the folder of its shards";
  return "JSON text, not weights";
}

// A zip's first member tells who wrote it: PyTorch keeps everything in 'NAME/data.pkl' and
// 'NAME/data/…', numpy's NPZ has members that end in .npy.
std::string zip_archive(std::string_view head) {
  constexpr std::size_t kNameLength = 26, kName = 30;
  if (head.size() < kName) return "a zip archive, cut short";
  const auto length = load<std::uint16_t>(as_bytes(head).subspan(kNameLength));
  const std::string_view first = head.substr(kName, length);
  if (first.ends_with(".npy")) return "an NPZ archive, which wtool does not read: unzip it";
  if (first.ends_with("/data.pkl") || first.find("/data/") != std::string_view::npos ||
      first.ends_with("/version") || first.ends_with("/byteorder"))
    return "a PyTorch checkpoint (zip with a pickle), which wtool does not read";
  return "a zip archive, not a weight file";
}

using namespace std::string_view_literals;

// The beginning of a magic number, with nothing after it.
std::string_view cut_magic(std::string_view head) {
  for (const auto& [magic, name] : {std::pair("GGUF"sv, "GGUF"sv), {"\x93NUMPY"sv, "NPY"sv}})
    if (head.size() < magic.size() && magic.starts_with(head)) return name;
  return {};
}

// A preallocated download: looks in three places, since it may have begun to arrive.
bool is_zeros(const Source& source) {
  const std::uint64_t n = std::min<std::uint64_t>(source.size(), kHead);
  Buffer bytes(n);
  for (const std::uint64_t at : {std::uint64_t{0}, (source.size() - n) / 2, source.size() - n}) {
    source.read(at, bytes);
    if (std::ranges::any_of(bytes, [](std::byte b) { return b != std::byte{0}; })) return false;
  }
  return true;
}

// Mostly letters, and nothing that text does not hold. The piece may end inside a character.
bool is_text(std::string_view head) {
  std::size_t bad = head.size();
  if (!is_utf8(head, &bad) && bad + 4 < head.size()) return false;
  return std::ranges::none_of(head, [](char c) {
    return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r' && c != '\t';
  });
}

}  // namespace

std::string diagnose(const Source& source) {
  if (source.size() == 0) return "is an empty file";
  const std::string head = head_of(source);
  const std::string_view text = without_blanks(head);
  const std::string page = lower(text.substr(0, 64));
  if (head.starts_with("version https://git-lfs")) return "is " + lfs_pointer(head);
  if (page.starts_with("<!doctype html") || page.starts_with("<html"))
    return "is an HTML page, not a weight file: a download link that leads to a web page?";
  if (page.starts_with("<?xml")) return "is an XML document: a download that was refused?";
  if (text.starts_with('{') || text.starts_with('[')) return "is " + json_text(text);
  if (head.starts_with("PK\x03\x04")) return "is " + zip_archive(head);
  if (head.starts_with("PK\x05\x06")) return "is an empty zip archive";
  if (const Magic* m = magic_of(head))
    return fmt::format("is {}{}{}", m->what, m->advice.empty() ? "" : ": ", m->advice);
  if (is_pickle(head))
    return "is a Python pickle (an old PyTorch checkpoint?), which can run code when opened; wtool "
           "does not read it";
  if (const auto name = cut_magic(head); !name.empty())
    return fmt::format("is cut short: {} bytes, the beginning of a {} file", source.size(), name);
  if (is_zeros(source))
    return fmt::format("holds only zeros ({} bytes): a download that has not arrived yet?",
                       source.size());
  if (is_text(head)) return "is a text file, not weights";
  return "is no safetensors, GGUF, NPY or imatrix file";
}

}  // namespace wtool
