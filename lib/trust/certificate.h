#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/trust/key.h"

struct x509_st;  // OpenSSL's X509

namespace wtool {

// Immutable, cheap to copy, callable from many threads.
class Certificate {
 public:
  static Certificate from_der(Bytes der, std::string_view where);  // throws BadFile
  // All certificates among the PEM blocks of a text; throws BadFile if there is none.
  static std::vector<Certificate> from_pem(std::string_view pem, std::string_view where);

  Buffer der() const;
  std::string fingerprint() const;  // SHA-256 of der(), in lower-case hexadecimal
  std::string subject() const;      // RFC 4514: "CN=Test Leaf,O=Example"
  std::string issuer() const;
  std::vector<std::string> names() const;             // common names, then alternative names
  std::string not_before() const, not_after() const;  // "2026-05-01T12:00:00Z"
  bool is_own_issuer() const;                         // by name and key identifiers
  bool issued(const Certificate& other) const;        // its key made the other's signature
  PublicKey key() const;                              // throws Unsupported as PublicKey does

 private:
  friend std::optional<std::string> chain_fault(const std::vector<Certificate>& chain,
                                                const std::vector<Certificate>& anchors,
                                                bool at_issue);
  std::shared_ptr<x509_st> x509_;
};

// Why the first of `chain` may not be taken for the signer of a model; nothing if it may. The
// others help to find a way from it to one of `anchors`, which alone are trusted; one of those may
// be the signer's certificate itself. All must be valid now, or with `at_issue` on the day the
// first was issued; and the first must be meant for signing: key usage digitalSignature or extended
// key usage codeSigning. Revocation is not looked at.
std::optional<std::string> chain_fault(const std::vector<Certificate>& chain,
                                       const std::vector<Certificate>& anchors, bool at_issue);

}  // namespace wtool
