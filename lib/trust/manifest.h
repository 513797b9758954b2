#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/trust/content.h"

namespace wtool {

// wtool.manifest/1: what the files of models are and what the tensors in them, bound by each
// model's content digest. wtool-content(7) defines it. Names of files are seen from the manifest's
// folder.
struct ManifestFile {
  std::string name;
  std::uint64_t bytes = 0;
  Sha256 digest;
};
struct ManifestTensor {
  std::string name, dtype;
  Shape shape;
  std::uint64_t bytes = 0;
  std::uint32_t file = 0;              // index into the manifest's
  Sha256 stored;                       // of its bytes as they lie in the file
  std::optional<Sha256> content = {};  // of its elements; none: written before there were models
};
struct ManifestModel {
  std::string name;                  // of its file or folder; "." is the manifest's own
  std::vector<std::uint32_t> files;  // those with tensors
  std::uint64_t tensors = 0;
  Sha256 content, metadata;
};
struct Manifest {
  std::vector<ManifestFile> files;
  std::vector<ManifestTensor> tensors;
  std::vector<ManifestModel> models;
};

// Sorts all by name, as bytes, and fills in what follows: the models' counts and content digests.
// Throws Usage for a file that is listed twice.
void seal(Manifest& manifest);

// Throws BadFile for what breaks the rules: names that lead out of the folder or appear twice, a
// content digest that is not that of the tensors. Throws Unsupported for other schemas.
Manifest parse_manifest(std::string text);

}  // namespace wtool
