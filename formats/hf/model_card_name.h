#pragma once
// What a model's name says by convention: "org/Base-7B-Instruct-v0.2".
#include <cstdint>
#include <string>
#include <string_view>

namespace wtool {

struct NameParts {  // empty: the name does not say
  std::string name, organization, basename, finetune, version, size_label;
};

// Of a repository's id or a folder's name. A part like "32K" is the size label only if the model's
// number of elements (0: not known) comes near it; else it is probably a context length.
NameParts parts_of_name(std::string_view id, std::uint64_t parameters);

// "llama3-tiny" → "Llama3 Tiny"; words with capitals and versions ("v0.2", "7b") stay. ASCII only.
std::string title_of(std::string_view name);

}  // namespace wtool
