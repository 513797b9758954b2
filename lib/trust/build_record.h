#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wtool {

// What a run made, and of what: all that the documents about it say. Nothing in it depends on the
// clock, the machine or a path.
struct BuildRecord {
  struct File {
    std::string name;  // of a folder's files: relative to the folder
    std::uint64_t bytes = 0;
    std::string sha256;  // lower-case hexadecimal
    // Not 0: it stands for a folder of so many files, and `sha256` is that over their digests, in
    // the order of their names (the root digest of a model signature).
    std::uint64_t files = 0;
  };
  std::string operation;        // "convert", "quantize"
  std::string version, commit;  // of wtool
  std::string openssl;          // version
  std::string recipe;           // JSON object: the options that decide bytes
  std::vector<File> sources;    // sorted by name
  std::string source_format;    // "safetensors"
  std::string output;           // the file's or folder's own name
  bool folder = false;          // then `files` are in it
  std::vector<File> files;      // sorted by name; of a file, itself
  std::string oms_root;         // of a folder: SHA-256 of its files' digests; else ""
  std::optional<File> manifest, signature;
  std::string format;                                         // of the output
  std::string architecture, license, model_name;              // as the metadata says, or ""
  std::uint64_t parameters = 0, tensors = 0, bytes = 0;       // bytes: of tensors
  std::vector<std::pair<std::string, std::uint64_t>> dtypes;  // tensors of each type, sorted
  std::string scheme;                                         // of quantization, or ""

  std::uint64_t file_bytes() const noexcept;  // of all `files`
};

// An in-toto Statement v1 with the SLSA v1 provenance predicate (slsa.dev/provenance/v1), compact:
// the payload that a signature covers. man/wtool-lineage.7 defines its build types.
std::string write_provenance(const BuildRecord& record);

// A CycloneDX 1.6 bill of materials with one machine-learning-model component, indented. Its serial
// number is made from the rest of it: equal runs give equal bytes.
std::string write_bom(const BuildRecord& record);

}  // namespace wtool
