// Metadata as JSON: the text that keeps types in a safetensors header, and the file of strings
// beside NPY. What is read can be written, and then says the same.
#include "cli/rewrite.h"
#include "formats/metadata_json.h"
#include "lib/base/json_reader.h"
#include "tests/fuzz/readers.h"

namespace wtool::fuzz {
namespace {

Metadata metadata_of(const std::vector<MetaEntry>& entries) {
  Metadata meta;
  for (const MetaEntry& e : entries) meta.append(e.key, e.value);
  return meta;
}

void expect_same(const Metadata& a, const Metadata& b) {
  expect(a.size() == b.size(), "another number of entries");
  for (const MetaEntry& e : a) {
    const MetaValue* same = b.find(e.key);
    expect(
        same && same->index() == e.value.index() && to_text(*same, 1000) == to_text(e.value, 1000),
        "another value");
  }
}

void typed(std::string text) {
  const std::vector<MetaEntry> plain{{"general.name", std::string("n")}, {"a", std::string("b")}};
  std::vector<MetaEntry> entries = plain;
  try {
    restore_typed_metadata(text, entries);
  } catch (const JsonFault& e) {
    expect(e.at <= text.size(), "a position behind the end");
    expect(entries.size() == plain.size(), "changed although it threw");
    return;
  }
  const Metadata meta = metadata_of(entries);
  std::string again = typed_metadata_text(meta);
  std::vector<MetaEntry> strings;
  for (const MetaEntry& e : meta)
    if (is_plain_string(e)) strings.push_back(e);
  restore_typed_metadata(again, strings);
  expect_same(meta, metadata_of(strings));
}

void file(Bytes input) {
  try {
    const SourcePtr content = from_memory("file", Buffer(input.begin(), input.end()));
    const Metadata meta = read_metadata_file({"file", content});
    expect_same(meta, read_metadata_file(metadata_file(meta)));
  } catch (const Error& e) {
    expect_honest(e);
  }
}

void run(Bytes input) {
  typed(std::string(as_text(input)));
  file(input);
}

}  // namespace

extern const Target kMetadata;
const Target kMetadata{"metadata", run, mutate_json};

}  // namespace wtool::fuzz
