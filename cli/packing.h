#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "cli/common.h"
#include "cli/json.h"
#include "lib/model/model.h"
#include "lib/trust/digest.h"

// What 'compress' and 'decompress' share: where the result goes, and the base of differences.
namespace wtool {

enum class PackingVerb : std::uint8_t { Compress, Decompress };

// Of `input`: by -o, or beside it under its own name with or without suffix. Throws Usage if there
// is none, or if binary data would go to a terminal.
Destination packing_destination(PackingVerb verb, const std::string& input, bool folder,
                                const OutputOptions& options);
// Throws Usage if two files would get one name. `from`: what they are called now.
void check_names(std::span<const std::string> names, std::span<const std::string> from);

// The model that differences are to. Its model is null if there is none.
struct PackingBase {
  std::shared_ptr<const Model> model = {};
  std::vector<Extent> files = {};    // whole
  std::vector<Sha256> digests = {};  // of these; after read_digests()

  void check_unchanged() const;
};
PackingBase open_base(const std::string& path, const Context& context);
void read_digests(PackingBase& base, const Context& context);

// Before any work: no output and no report takes the place of the base, no report that of `inputs`.
void check_places(const std::string& to, const OutputOptions& options, const PackingBase& base,
                  std::vector<std::string> inputs);

// What came out, of all files together.
struct PackingSum {
  std::string to;
  std::uint64_t bytes = 0, stored = 0;  // of the originals, compressed
};
// Begins the document of a schema with what both commands say.
void begin_document(JsonWriter& w, std::string_view schema, const std::string& input,
                    const OutputOptions& options, const PackingSum& sum);

}  // namespace wtool
