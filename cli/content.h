#pragma once
#include <optional>
#include <string>

#include "cli/common.h"
#include "lib/trust/manifest.h"

namespace wtool {

// A whole model's digests that do not depend on how it is packed.
struct ModelContent {
  std::string path;  // as given
  std::uint64_t tensors = 0;
  Sha256 content = {}, metadata = {};
  std::optional<Error> fault = {};  // why there are none
};
// Opens the model (a folder or any shard: all of it) and reads every stored tensor once.
ModelContent content_of(const InputOptions& input, const Context& context);

// A stored tensor as the content digest takes it; opaque elements are what the user says they are.
struct ContentData {
  DType dtype;
  Extent data;
};
ContentData content_data(const Catalog& catalog, const TensorEntry& entry,
                         std::optional<DType> void_as = {});

void write_manifest(const Manifest& manifest, const std::function<void(std::string_view)>& sink);

}  // namespace wtool
