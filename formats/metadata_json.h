#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/metadata.h"

namespace wtool {

// safetensors metadata is a map of UTF-8 strings. What else a file's metadata holds (numbers, bools
// and arrays of GGUF, strings that are not UTF-8) is kept under this one key, as JSON text:
//
//   [["general.name","str"],["llama.block_count","u32",32],["tokenizer.ggml.scores","arr","f32",[…]]]
//
// All keys in order; a string without a value is the one under its own key beside this one. 64-bit
// integers are strings of digits, floats that are not finite are strings of their bits
// ("0x7fc00000"), bytes that are not UTF-8 are {"hex": "…"}. What is restored equals what was
// stored, to the bit.
inline constexpr std::string_view kTypedMetadataKey = "wtool.gguf_metadata";

// True if the entry is stored under its own key, as a string.
bool is_plain_string(const MetaEntry& entry) noexcept;

// The text for `meta`; throws Unsupported if its arrays are larger than restoring allows.
std::string typed_metadata_text(const Metadata& meta);

// Puts back what `text` records: `plain` are the strings found beside it, and becomes all entries
// in order. A string that is gone since (another tool removed it) stays gone; one that was added
// follows at the end. Throws JsonFault with a position in `text`, and leaves `plain` as it was;
// `text` is unescaped in place.
void restore_typed_metadata(std::span<char> text, std::vector<MetaEntry>& plain);

}  // namespace wtool
