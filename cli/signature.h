#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/signature_verdict.h"

namespace wtool {

// What sign, sign show and verify share.

Bundle read_bundle(const std::string& path);  // throws with the path
// Throws BadFile, with both numbers, if there are more bytes: too many for `what`.
std::string read_small_file(const std::string& path, std::uint64_t most, std::string_view what);

// What a file or folder is called wherever it is seen from: "m" of "m/", "m/." and ".".
std::string own_name(const std::string& path);
inline constexpr std::string_view kSignatureInside = "model.sig";
// Where a model's signature lies if nothing else is said: MODEL/model.sig, FILE.sig.
std::string default_signature(const std::string& model);
// The name of `path` below `model`, links in its folder resolved; nothing if it lies elsewhere.
std::optional<std::string> name_below(const std::string& model, const std::string& path);
// A path as people type it, or a name below the model as we print them.
std::string name_in_model(const std::string& model, const std::string& typed);

// verify MODEL --signature, --key, --ca …
struct SignatureOptions {
  std::string signature, key, subject, fingerprint;
  std::vector<std::string> ca, ignore, only;
  bool ignore_unsigned = false, allow_keyless = false, allow_expired = false, keep_going = false;
};
void add_signature_options(CLI::App& app, SignatureOptions& options);
bool is_given(const SignatureOptions& options) noexcept;
ExitCode verify_signature(const SignatureOptions& options, const std::string& model,
                          const Context& context);
// The verdict on the signature of one file that has been read already: on these bytes, whatever
// the file holds by now. Prints nothing.
SignatureVerdict signature_of(const SignatureOptions& options, const std::string& path,
                              const SourcePtr& content, const Context& context);

ExitCode show_bundle(const std::string& path, const Context& context);

}  // namespace wtool
