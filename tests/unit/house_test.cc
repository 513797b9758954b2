// The house rules that a machine can check: who includes whom, and what lib/ never does.
#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "tests/catch.h"

namespace fs = std::filesystem;

namespace {

struct File {
  std::string path;  // from the root: "lib/model/catalog.h"
  std::string text;
};
using Breaches = std::vector<std::string>;

constexpr std::array<std::string_view, 3> kRooms{"lib", "formats", "cli"};
constexpr std::array<std::string_view, 6> kFloors{"base",   "model", "numeric",
                                                  "engine", "pack",  "trust"};

// The position in a table of path part number `part`, or -1.
template <std::size_t N>
int rank(const std::array<std::string_view, N>& table, std::string_view path, int part) {
  for (; part > 0; --part) path.remove_prefix(std::min(path.find('/') + 1, path.size()));
  const auto at = std::ranges::find(table, path.substr(0, path.find('/')));
  return at == table.end() ? -1 : static_cast<int>(at - table.begin());
}

std::vector<std::string> includes_of(const std::string& text) {
  static const std::regex kInclude(R"((?:^|\n)[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"])");
  std::vector<std::string> all;
  for (std::sregex_iterator i(text.begin(), text.end(), kInclude), end; i != end; ++i)
    all.push_back((*i)[1]);
  return all;
}

// Where the comment, string or character literal that begins at `at` ends; `at` if none does.
std::size_t end_of_noise(std::string_view s, std::size_t at) {
  const auto after = [&](std::string_view mark, std::size_t from) {
    const std::size_t found = s.find(mark, from);
    return found == s.npos ? s.size() : found + mark.size();
  };
  const std::string_view rest = s.substr(at);
  if (rest.starts_with("//")) return std::min(s.find('\n', at), s.size());
  if (rest.starts_with("/*")) return after("*/", at + 2);
  if (rest.starts_with("R\"")) {
    const std::string delimiter(rest.substr(2, rest.find('(') - 2));
    return after(")" + delimiter + "\"", at + 2);
  }
  const char quote = rest.front();
  const bool in_number = at > 0 && std::isalnum(static_cast<unsigned char>(s[at - 1]));
  if (quote != '"' && (quote != '\'' || in_number)) return at;
  for (++at; at < s.size() && s[at] != quote && s[at] != '\n'; ++at)
    if (s[at] == '\\') ++at;
  return std::min(at + 1, s.size());
}

// Text without comments and literals, so that words in them do not count.
std::string code_of(std::string_view text) {
  std::string code;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = end_of_noise(text, at);
    code += end > at ? ' ' : text[at];
    at = std::max(end, at + 1);
  }
  return code;
}

bool starts(std::string_view s, std::string_view with) {
  return s.substr(0, with.size()) == with;
}

void check_direction(const File& file, const std::string& include, Breaches& found) {
  const int from = rank(kRooms, file.path, 0), to = rank(kRooms, include, 0);
  if (to > from) found.push_back(file.path + " looks up at " + include);
  if (from != 0 || to != 0) return;
  const int floor = rank(kFloors, file.path, 1), below = rank(kFloors, include, 1);
  if (below < 0) found.push_back(file.path + " uses an unknown floor: " + include);
  if (below > floor) found.push_back(file.path + " uses a floor above it: " + include);
}

void check_library(const File& file, const std::string& include, Breaches& found) {
  struct Home {
    std::string_view header, folder;
  };
  static constexpr std::array kHomes{Home{"openssl/", "lib/trust/"},
                                     Home{"zstd", "lib/pack/"},
                                     Home{"hwy/", "lib/numeric/kernels/"},
                                     Home{"CLI/", "cli/"},
                                     Home{"immintrin.h", "lib/numeric/kernels/"},
                                     Home{"arm_neon.h", "lib/numeric/kernels/"}};
  for (const Home& home : kHomes)
    if (starts(include, home.header) && !starts(file.path, home.folder))
      found.push_back(file.path + ": " + include + " belongs into " + std::string(home.folder));

  // A "-inl.h" is a part of kernel files, no header for others.
  if (!starts(file.path, "lib/") || !file.path.ends_with(".h") || file.path.ends_with("-inl.h"))
    return;
  for (std::string_view heavy :
       {"CLI/", "nlohmann/", "openssl/", "hwy/", "zstd", "re2/", "simdjson"})
    if (starts(include, heavy)) found.push_back(file.path + ": a lib header includes " + include);
}

// lib and formats throw; only cli speaks, and only main() ends the process.
void check_silence(const File& file, Breaches& found) {
  if (starts(file.path, "cli/")) return;
  static const std::regex kSpeaks(
      R"(\b(?:std::)?(?:cout|cerr|clog|printf|fprintf|vfprintf|puts|fputs|putchar|perror)\b)"
      R"(|\bfmt::v?print\b|\b(?:quick_exit|_exit|_Exit|exit|abort|terminate)\s*\()");
  const std::string code = code_of(file.text);
  for (std::sregex_iterator i(code.begin(), code.end(), kSpeaks), end; i != end; ++i)
    found.push_back(file.path + " says or ends: " + i->str());
}

Breaches breaches_of(const File& file) {
  Breaches found;
  for (const std::string& include : includes_of(file.text)) {
    check_direction(file, include, found);
    check_library(file, include, found);
  }
  check_silence(file, found);
  return found;
}

std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<File> sources_in(std::string_view room) {
  const fs::path root(WTOOL_SOURCE_DIR);
  std::vector<File> all;
  for (const auto& e : fs::recursive_directory_iterator(root / room)) {
    const auto type = e.path().extension();
    if (type == ".h" || type == ".cc")
      all.push_back({e.path().lexically_relative(root).generic_string(), slurp(e.path())});
  }
  std::ranges::sort(all, {}, &File::path);
  return all;
}

}  // namespace

TEST_CASE("house: the rules notice each kind of breach", "[house]") {
  const auto count = [](const char* path, const char* text) {
    return breaches_of({path, text}).size();
  };
  CHECK(count("lib/model/a.cc", "#include \"formats/registry.h\"\n") == 1);
  CHECK(count("lib/model/a.cc", "int a;\n  #  include \"cli/json.h\"\n") == 1);
  CHECK(count("formats/a.cc", "#include \"cli/json.h\"\n") == 1);
  CHECK(count("lib/model/a.h", "#include \"lib/engine/execute.h\"\n") == 1);
  CHECK(count("lib/base/a.h", "#include \"lib/model/plan.h\"\n") == 1);
  CHECK(count("lib/model/a.h", "#include \"lib/cellar/a.h\"\n") == 1);
  CHECK(count("lib/engine/a.cc", "#include <openssl/evp.h>\n") == 1);
  CHECK(count("lib/trust/a.h", "#include <openssl/evp.h>\n") == 1);
  CHECK(count("formats/a.cc", "#include <hwy/highway.h>\n") == 1);
  CHECK(count("lib/trust/a.cc", "#include <zstd.h>\n") == 1);
  CHECK(count("lib/model/a.h", "#include <re2/re2.h>\n") == 1);
  CHECK(count("lib/base/a.cc", "void f() { std::exit(1); }") == 1);
  CHECK(count("formats/a.cc", "void f() { std::printf(\"a\"); fmt::print(\"b\"); }") == 2);
  CHECK(count("lib/base/a.cc", "auto s = R\"(\")\"; void f() { abort(); }") == 1);
}

TEST_CASE("house: the rules let pass what is right", "[house]") {
  const auto fine = [](const char* path, const char* text) {
    return breaches_of({path, text}).empty();
  };
  CHECK(fine("cli/a.cc", "#include <CLI/CLI.hpp>\n#include \"formats/registry.h\"\n"));
  CHECK(fine("formats/a.cc", "#include <nlohmann/json.hpp>\n#include \"lib/numeric/steps.h\"\n"));
  CHECK(fine("lib/trust/a.cc", "#include <openssl/evp.h>\n#include \"lib/engine/in_order.h\"\n"));
  CHECK(fine("lib/base/a.cc", "// exit(1) and printf\nint n = snprintf(b, 4, \"abort()\");"));
}

TEST_CASE("house: includes point down, libraries stay in their rooms, lib is silent", "[house]") {
  for (std::string_view room : kRooms) {
    const auto files = sources_in(room);
    REQUIRE(files.size() > 3);
    for (const File& file : files) {
      INFO(file.path);
      for (const std::string& breach : breaches_of(file)) FAIL_CHECK(breach);
    }
  }
}

TEST_CASE("house: every floor of lib is one of the known ones", "[house]") {
  for (const auto& e : fs::directory_iterator(fs::path(WTOOL_SOURCE_DIR) / "lib")) {
    INFO(e.path().string());
    CHECK(e.is_directory());
    CHECK(std::ranges::find(kFloors, e.path().filename().string()) != kFloors.end());
  }
}

TEST_CASE("house: each source file is named in CMakeLists.txt", "[house]") {
  const std::string list = slurp(fs::path(WTOOL_SOURCE_DIR) / "CMakeLists.txt");
  for (std::string_view room : kRooms)
    for (const File& file : sources_in(room)) {
      if (!file.path.ends_with(".cc")) continue;
      INFO(file.path);
      CHECK(list.find(file.path) != std::string::npos);
    }
}

TEST_CASE("house: headers start with #pragma once", "[house]") {
  for (std::string_view room : kRooms)
    for (const File& file : sources_in(room)) {
      if (!file.path.ends_with(".h")) continue;
      // Read again for every instruction set, on purpose.
      if (file.path == "lib/numeric/kernels/targets.h" || file.path.ends_with("-inl.h")) continue;
      INFO(file.path);
      CHECK(starts(file.text, "#pragma once\n"));
    }
}
