#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cli/passphrase.h"
#include "lib/trust/bundle.h"
#include "lib/trust/key.h"
#include "lib/trust/statement.h"

namespace wtool {

// Who signs: a key, and for certificates the chain that goes with it.
struct SignerOptions {
  std::string key, certificate;
  std::vector<std::string> chain;
  PassphraseOptions passphrase;
};
class Signer {
 public:
  // Reads the files; asks for a passphrase if the key needs one.
  explicit Signer(const SignerOptions& options);

  const Bundle& bundle() const noexcept { return bundle_; }  // all but payload and signature
  PublicKey public_key() const { return key_.public_key(); }
  std::string sign(const Statement& statement) const;  // the bundle's text
  // Any in-toto statement.
  std::string sign_payload(std::string payload) const;

 private:
  PrivateKey key_;
  Bundle bundle_;
};

}  // namespace wtool
