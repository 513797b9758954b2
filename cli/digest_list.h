#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cli/signature.h"
#include "lib/trust/manifest.h"

namespace wtool {

// A list of digests: sha256sum's, or a manifest. Read once, so that the bytes whose signature has
// been verified are those that are used.
struct DigestList {
  std::string path;
  std::optional<SignatureVerdict> verdict;  // none: no signature was asked for
  std::vector<Checksum> checksums;          // empty of a manifest
  std::optional<Manifest> manifest;

  // False: its signature does not hold, and nothing of it has been read.
  bool usable() const noexcept { return !verdict || verdict->code == ExitCode::Ok; }
  std::string place(const std::string& name) const;  // of a file it lists, to open it
};
DigestList read_digest_list(const std::string& path);
// If `signature` says so, its signature is verified first, the warnings printed and, but for
// --json, the verdict.
DigestList read_digest_list(const std::string& path, const SignatureOptions& signature,
                            const Context& context);
// "signature": {…}, if one was asked for.
void write_signature(JsonWriter& w, const DigestList& list);

// Files in the folders of a signed manifest's models that it does not list, as it would name them.
// Git's own, those of --ignore, the manifest, its signature and the model's do not count.
std::vector<std::string> unlisted_files(const DigestList& list, const SignatureOptions& signature);

// "nothing to compare with: …", which never is a yes.
Error nothing_to_compare(const std::string& path, std::string why);

// Links resolved as far as can be, to recognise a file by.
std::string real_path(const std::string& path);

}  // namespace wtool
