#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/trust/statement.h"

namespace wtool {

// A file of a model that is to be signed, or has been.
struct ModelFile {
  enum class Kind : std::uint8_t {
    File,
    Link,        // to a file, or to nothing
    FolderLink,  // what lies behind one is not looked at
    Other,       // a device, a socket
  };
  std::string name;  // below the model, '/' between parts
  Kind kind = Kind::File;
  std::uint64_t bytes = 0;  // of a link to a file: the file's
};

// All that is no folder below `folder`, sorted by name as bytes; not what lies in an ignored path.
// Links are listed, never entered. Throws Io.
std::vector<ModelFile> files_of_model(const std::string& folder,
                                      const std::vector<std::string>& ignored);

// What no signature covers unless it says otherwise: git's own, in the model's folder itself.
const std::vector<std::string>& git_paths();

// The digests of files or of ranges of them.
struct ResourceJob {
  std::size_t count = 0;
  std::function<Extent(std::size_t)> extent;  // from any thread, just before it is read
  std::uint64_t total_bytes = 0;              // for options.progress
  // In order, one at a time: the digest in lower-case hexadecimal, or why there is none.
  std::function<void(std::size_t, const std::string*, const Error*)> take;
};
void hash_each(HashType type, const ResourceJob& job, const RunOptions& options);

// The ranges a file is signed in; none for an empty one.
std::vector<Resource> shards_of(const std::string& name, std::uint64_t bytes,
                                std::uint64_t shard_size);

}  // namespace wtool
