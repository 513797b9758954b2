// wtool-metadata.json: the metadata that NPY files have no place for, beside them in their folder.
// An object of strings, exactly like the "__metadata__" of a safetensors header, typed values
// included.
#include <unordered_set>

#include <fmt/format.h>

#include "cli/rewrite.h"
#include "formats/metadata_json.h"
#include "lib/base/error.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"

namespace wtool {
SideFile metadata_file(const Metadata& meta) {
  std::string text = "{";
  const auto member = [&](std::string_view key, std::string_view value) {
    text += text.size() > 1 ? ",\n  " : "\n  ";
    append_json(text, key);
    text += ": ";
    append_json(text, value);
  };
  bool typed = false;
  for (const MetaEntry& e : meta) {
    typed |= !is_plain_string(e);
    if (is_plain_string(e)) member(e.key, std::get<std::string>(e.value));
  }
  if (typed) member(kTypedMetadataKey, typed_metadata_text(meta));
  const std::string name(kMetadataFile);
  return {name, from_memory(name, to_buffer(text + "\n}\n"))};
}

Metadata read_metadata_file(const SideFile& file) {
  const auto bad = [&](const std::string& why) {
    return Error(Fault::BadFile, why)
        .in(file.content->name())
        .hint("--drop-metadata goes on without it");
  };
  constexpr std::uint64_t kMost = std::uint64_t{100} << 20;  // a safetensors header's limit
  if (file.content->size() > kMost)
    throw bad(fmt::format("{} bytes are too many", file.content->size()));
  std::string text(as_text(read_all({file.content, 0, file.content->size()})));
  std::vector<MetaEntry> entries;
  std::unordered_set<std::string> seen;
  std::string typed;
  try {
    JsonReader reader(text);
    reader.begin_object();
    for (std::string_view key; reader.next_member(key);) {
      if (!seen.emplace(key).second) throw bad(fmt::format("key {} appears twice", quoted(key)));
      std::string name(key);
      const std::string_view value = reader.string();
      if (name == kTypedMetadataKey)
        typed = value;
      else
        entries.push_back({std::move(name), std::string(value)});
    }
    reader.finish();
    if (!typed.empty()) restore_typed_metadata(typed, entries);
  } catch (const JsonFault& e) {
    throw bad(fmt::format("is no JSON object of strings: {}", e.text()));
  }
  Metadata meta;
  for (MetaEntry& e : entries) meta.append(std::move(e.key), std::move(e.value));
  return meta;
}

}  // namespace wtool
