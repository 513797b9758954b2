// wtool-metadata.json: the metadata that NPY files have no place for, beside them in their folder.
// An object of strings, exactly like the "__metadata__" of a safetensors header, typed values
// included.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/rewrite.h"
#include "formats/json_reader.h"
#include "formats/metadata_json.h"
#include "lib/base/error.h"

namespace wtool {
namespace {
using Json = nlohmann::ordered_json;
}

SideFile metadata_file(const Metadata& meta) {
  Json json = Json::object();
  bool typed = false;
  for (const MetaEntry& e : meta) {
    if (is_plain_string(e))
      json[e.key] = std::get<std::string>(e.value);
    else
      typed = true;
  }
  if (typed) json[std::string(kTypedMetadataKey)] = typed_metadata_text(meta);
  const std::string name(kMetadataFile);
  return {name, from_memory(name, to_buffer(json.dump(2) + "\n"))};
}

Metadata read_metadata_file(const SideFile& file) {
  const auto bad = [&](const std::string& why) {
    return Error(Fault::BadFile, why)
        .in(file.content->name())
        .hint("--drop-metadata goes on without it");
  };
  constexpr std::uint64_t kMost = std::uint64_t{256} << 20;
  if (file.content->size() > kMost)
    throw bad(fmt::format("{} bytes are too many", file.content->size()));
  const Buffer bytes = read_all({file.content, 0, file.content->size()});
  const Json json = Json::parse(as_text(bytes), nullptr, false);
  if (!json.is_object()) throw bad("is not a JSON object of strings");
  std::vector<MetaEntry> entries;
  std::string typed;
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) throw bad(fmt::format("the value of '{}' is not a string", key));
    if (key == kTypedMetadataKey)
      typed = value.get<std::string>();
    else
      entries.push_back({key, value.get<std::string>()});
  }
  try {
    if (!typed.empty()) restore_typed_metadata(typed, entries);
  } catch (const JsonFault& e) {
    throw bad(fmt::format("'{}' is not well-formed: {}", kTypedMetadataKey, e.text()));
  }
  Metadata meta;
  for (MetaEntry& e : entries) meta.append(std::move(e.key), std::move(e.value));
  return meta;
}

}  // namespace wtool
