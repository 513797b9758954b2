#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "lib/base/bytes.h"
#include "lib/base/error.h"
#include "lib/trust/secret.h"

struct evp_pkey_st;  // OpenSSL's EVP_PKEY

namespace wtool {

// The curves of the model signing standard; each has its own digest: SHA-256, SHA-384, SHA-512.
enum class Curve : std::uint8_t { P256, P384, P521 };
std::string_view name_of(Curve curve) noexcept;           // "P-256"
std::optional<Curve> parse_curve(std::string_view name);  // "P-256", "p256"

// Immutable, cheap to copy, callable from many threads.
class PublicKey {
 public:
  // The first public key among PEM blocks and other text. Throws BadFile, or Unsupported by name
  // for other algorithms, other curves and curves given by parameters.
  static PublicKey from_pem(std::string_view pem, std::string_view where);
  // Of one that OpenSSL has read, in a certificate.
  static PublicKey from_native(std::shared_ptr<evp_pkey_st> key, std::string_view where);

  Curve curve() const noexcept { return curve_; }
  std::string pem() const;  // SubjectPublicKeyInfo, its point not compressed: one text for each key
  std::string hint() const;  // the standard's key hint: SHA-256 of pem(), in lower-case hexadecimal
  bool has_hint(std::string_view hint) const;  // also that of its compressed form

  enum class Digest : std::uint8_t { OfCurve, Sha256 };  // the second: for signatures of v0.2
  // `signature` is an ECDSA-Sig-Value in DER. False for whatever is wrong with it.
  bool verifies(Bytes message, Bytes signature, Digest digest = Digest::OfCurve) const;

 private:
  friend class PrivateKey;
  PublicKey() = default;
  Buffer point() const;
  std::shared_ptr<evp_pkey_st> key_;
  Curve curve_ = Curve::P256;
};

class PrivateKey {
 public:
  // Called at most once, and only if the key is encrypted.
  using Ask = std::function<Secret()>;

  // SEC 1 or PKCS#8, also encrypted. Throws as PublicKey::from_pem does, and Usage for a wrong
  // passphrase.
  static PrivateKey from_pem(std::string_view pem, const Ask& ask, std::string_view where);
  static PrivateKey make(Curve curve);

  PublicKey public_key() const;
  Secret pem() const;                                       // PKCS#8
  Secret encrypted_pem(std::string_view passphrase) const;  // PKCS#8, AES-256, PBKDF2
  Buffer sign(Bytes message) const;                         // DER

 private:
  PublicKey pair_;  // holds both halves
};

// A private key's text. Throws Io, or Usage if others than its owner may read the file.
Secret read_private_file(const std::string& path);
// Both files of a new pair, or none of them: private with mode 0600, then public. Throws Usage if
// one exists, else Io.
void write_key_files(const std::string& private_path, const Secret& private_pem,
                     const std::string& public_path, const std::string& public_pem);

}  // namespace wtool
