#include "cli/recipe.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "lib/trust/digest.h"

namespace wtool {
namespace {

// Options without influence on the bytes of the output. One that is not named here counts as having
// some, which does no harm.
const std::set<std::string_view>& without_influence() {
  static const std::set<std::string_view> kNames{
      // where to, and what is said on the way
      "output", "force", "dry-run", "report", "json", "quiet", "verbose", "color", "progress",
      "threads", "max-memory", "help",
      // whether at all
      "gate", "keep", "junit", "sarif", "allow-unmatched", "require-imatrix",
      // what lies beside it
      "lineage", "no-lineage", "manifest", "sign", "passphrase-fd", "passphrase-env", "provenance",
      "bom"};
  return kNames;
}

// Options whose values name files.
enum class Names : std::uint8_t { Nothing, File, KeyAndFile };
Names what_it_names(std::string_view option) {
  if (option == "imatrix" || option == "recipe") return Names::File;
  return option == "set-file" ? Names::KeyAndFile : Names::Nothing;
}

nlohmann::json file_value(const std::string& path) {
  const SourcePtr file = open_file(path);
  return {{"name", std::filesystem::path(path).filename().native()},
          {"sha256", sha256_of({{file, 0, file->size()}}, {})[0].hex()}};
}

nlohmann::json value_of(const std::string& option, const std::string& text) {
  switch (what_it_names(option)) {
    case Names::Nothing: break;
    case Names::File: return file_value(text);
    case Names::KeyAndFile: {
      const auto at = std::min(text.find('='), text.size());
      nlohmann::json out = file_value(text.substr(std::min(at + 1, text.size())));
      out["key"] = text.substr(0, at);
      return out;
    }
  }
  return text;
}

}  // namespace

std::string recipe_of(const CLI::App& app, std::string_view format) {
  nlohmann::json all = nlohmann::json::object();  // sorted by key
  for (const CLI::Option* o : app.get_options()) {
    if (o->count() == 0 || o->get_lnames().empty()) continue;
    const std::string& name = o->get_lnames()[0];
    if (without_influence().contains(name)) continue;
    if (o->get_expected_min() == 0) {  // a flag
      all[name] = true;
      continue;
    }
    const std::vector<std::string>& values = o->results();
    nlohmann::json list = nlohmann::json::array();
    for (const std::string& text : values) list.push_back(value_of(name, text));
    all[name] = o->get_expected_max() > 1 || values.size() > 1 ||
                        o->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll
                    ? list
                    : list[0];
  }
  all["to"] = format;
  return all.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace wtool
