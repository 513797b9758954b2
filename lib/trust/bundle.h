#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/base/error.h"

namespace wtool {

// What a model signature is made of (OpenSSF Model Signing): a Sigstore bundle, around a DSSE
// envelope, around an in-toto statement (statement.h). Nothing in here is to be believed before the
// signature has been verified with a key or certificate from elsewhere.
struct Bundle {
  enum class Kind : std::uint8_t {
    Key,          // made with a bare key
    Certificate,  // with the key of a certificate, whose chain is in the bundle
    Keyless,      // with a short-lived certificate of Sigstore, and entries in public logs
  };
  std::string media_type;
  Kind kind = Kind::Key;
  std::string hint;                  // Key: which one, see PublicKey::hint(); "" before 1.1
  std::vector<Buffer> certificates;  // DER, the signer's own first
  std::uint64_t log_entries = 0, timestamps = 0;

  std::string payload_type;
  std::string payload;  // the statement's own bytes
  Buffer signature;     // DER
};
std::string_view name_of(Bundle::Kind kind) noexcept;  // "key", "certificate", "keyless"

inline constexpr std::string_view kBundleType = "application/vnd.dev.sigstore.bundle.v0.3+json";
inline constexpr std::string_view kPayloadType = "application/vnd.in-toto+json";

// Throws BadFile, and Unsupported for what other versions may hold.
Bundle parse_bundle(std::string text);
// Compact, without an end of line: no byte of it can change without a consequence.
std::string write_bundle(const Bundle& bundle);

// What is signed: DSSE's pre-authentication encoding.
std::string signed_text(std::string_view payload_type, std::string_view payload);
// What version 0.2 of the reference signed instead, by a slip: Python's repr() of the payload.
std::string signed_text_v02(std::string_view payload_type, std::string_view payload);

}  // namespace wtool
