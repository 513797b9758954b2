#include <CLI/Version.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/json.h"
#include "lib/numeric/kernels/simd.h"
#include "lib/pack/frame.h"
#include "lib/trust/digest.h"
#include "revision.h"  // written by the build: the commit, if there is one

namespace wtool {
namespace {

struct Library {
  std::string_view name;
  std::string version;
};

std::vector<Library> libraries() {
  const auto dotted = [](int packed) {
    return fmt::format("{}.{}.{}", packed / 10000, packed / 100 % 100, packed % 100);
  };
  return {{"fmt", dotted(FMT_VERSION)}, {"openssl", openssl_version()},
          {"re2", WTOOL_RE2_VERSION}, {"zstd", zstd_version()},   {"nlohmann_json", WTOOL_JSON_VERSION},
          {"cli11", CLI11_VERSION},     {"highway", WTOOL_HIGHWAY_VERSION}};
}

std::string compiler() {
#ifdef __clang__
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

}  // namespace

std::string_view revision() noexcept {
  return WTOOL_REVISION;
}

std::string_view version_number() noexcept {
  return WTOOL_VERSION;
}

std::string version_text() {
  std::string text = "wtool " WTOOL_VERSION;
  if (*WTOOL_REVISION) text += " (" WTOOL_REVISION ")";
  text += fmt::format("\ncompiler   {}\nsimd       {}\nlibraries ", compiler(), simd_name());
  for (const Library& l : libraries()) text += fmt::format(" {} {}", l.name, l.version);
  return text + "\n";
}

std::string version_json() {
  std::string text;
  {
    JsonWriter w([&text](std::string_view s) { text += s; });
    w.begin_object();
    w.member("schema", "wtool.version/1");
    w.member("ok", true);
    w.member("version", WTOOL_VERSION);
    w.member("revision", WTOOL_REVISION);
    w.member("compiler", compiler());
    w.member("simd", std::string_view(simd_name()));
    w.key("libraries");
    w.begin_object();
    for (const Library& l : libraries()) w.member(l.name, l.version);
    w.end_object();
    w.end_object();
  }
  return text;
}

}  // namespace wtool
