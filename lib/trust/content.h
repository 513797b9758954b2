#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lib/base/dtype.h"
#include "lib/model/metadata.h"
#include "lib/trust/digest.h"

namespace wtool {

// The content digest, version 1: what a model's tensors are, whatever the container, the shards,
// the order and the metadata. wtool-content(7) defines it for those who want to compute it
// themselves; tests/interop/content.py does.
inline constexpr std::string_view kContentPrefix = "content/1:";  // before its 64 digits

struct ContentTensor {
  std::string_view name, dtype;  // dtype as name_of() has it
  ShapeView shape;
  Sha256 data;  // of the elements, little-endian, row by row
};
// The leaf of one tensor.
Sha256 content_leaf(const ContentTensor& tensor);
// The root over all, in any order, however their digests came to be known (while writing, say).
// Names must be unique.
Sha256 content_root(std::span<const ContentTensor> tensors);

// The metadata's own digest: its keys in byte order, each with its type and value.
Sha256 metadata_digest(const Metadata& meta);

std::string content_text(const Sha256& root);  // "content/1:HEX"
// The same, or 64 digits.
std::optional<Sha256> parse_content(std::string_view text) noexcept;

}  // namespace wtool
