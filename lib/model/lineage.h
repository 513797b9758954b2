#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/error.h"
#include "lib/model/metadata.h"

namespace wtool {

// What a model was made from, as its own metadata says: the keys wtool.version, wtool.operation,
// wtool.recipe, wtool.source.count and, of each source i from 0 on, wtool.source.i.name, .size,
// .sha256 and, where it stands for a folder of many files, .files. They depend on nothing but the
// inputs and options: no clock, no path.
struct Lineage {
  struct Source {
    std::string name;         // the file's own; in a folder's model, relative to that folder
    std::uint64_t bytes = 0;  // of all files
    // Lower-case hexadecimal: the file's digest; of `files` files the SHA-256 over their digests
    // (32 bytes each), sorted by name, which is the root digest of a model signature.
    std::string sha256;
    std::uint64_t files = 0;  // 0: it is one file
  };
  std::string version, operation;
  std::string recipe;  // a JSON object: the options that decide bytes
  std::vector<Source> sources;
};

inline constexpr std::uint64_t kMostSources = 10'000;

bool is_lineage_key(std::string_view key) noexcept;
// Replaces what is there. In safetensors, whose metadata is text, numbers become text.
void set_lineage(Metadata& meta, const Lineage& lineage, bool typed);
// The sources' digests into keys that set_lineage() has written with others; the rest stays.
void fill_lineage(Metadata& meta, const Lineage& lineage);
// Whether there was any.
bool erase_lineage(Metadata& meta);
// None if there is no such key. Throws BadFile for keys that are there and make no sense: a digest
// that is none, a number of sources that is not there or beyond kMostSources.
std::optional<Lineage> lineage_of(const Metadata& meta);

}  // namespace wtool
