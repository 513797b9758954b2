#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "lib/trust/file_times.h"
#include "lib/trust/key.h"
#include "lib/trust/model_files.h"

namespace wtool {

// What is going to be signed.
struct SignJob {
  std::string model, output;
  bool folder = false;
  std::string inside;             // the output's name below the model; "" if it lies elsewhere
  std::vector<ModelFile> files;   // sorted
  std::vector<FileState> states;  // theirs, from before anything else was looked at
  Statement statement;            // with the digests that are known
  Dialect dialect = Dialect::Standard;

  std::string path_of(const std::string& name) const;  // of a file of the model
  const ModelFile& file(const std::string& name) const;
  std::uint64_t bytes() const noexcept;
};

struct SignScope {
  std::vector<std::string> ignore;  // as typed
  bool sign_git = false;
  std::string method, shard_size;  // "": not given
};
// Which files, by name and size; nothing is read. Throws Usage for what no signature can cover.
SignJob plan_signature(std::string model, std::string output, Dialect dialect,
                       const SignScope& scope);

// Digests that are known without reading.
struct KnownDigests {
  std::string source;                                       // the signature or list they are from
  std::vector<std::string> files;                           // whose they are; sorted
  std::vector<std::pair<std::string, std::string>> others;  // must be read, and why
};
// --reuse: those of files that have not changed since `signature` was made. It must be of this
// model, by this key, in the same form. Throws Usage, or BadFile if it does not hold.
KnownDigests reuse_digests(SignJob& job, const std::string& signature, const PublicKey& key);
// --digests: those of a list, which must name every file and no other. Throws Usage or BadFile.
KnownDigests take_digests(SignJob& job, const std::string& list);

// Reads the files whose digests are not known. Throws Io if one changes meanwhile, read or not.
void hash_files(SignJob& job, const Context& context);

}  // namespace wtool
