#include "lib/trust/key.h"

#include <array>
#include <exception>
#include <utility>

#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rand.h>
#include <openssl/x509.h>

#include "lib/base/text.h"
#include "lib/trust/digest.h"
#include "lib/trust/openssl.h"
#include "lib/trust/openssl_memory.h"
#include "lib/trust/spki.h"

namespace wtool {
namespace {

using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;
using MdContext = std::unique_ptr<EVP_MD_CTX, Free<EVP_MD_CTX_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Free<EVP_PKEY_CTX_free>>;
using Pkcs8 = std::unique_ptr<PKCS8_PRIV_KEY_INFO, Free<PKCS8_PRIV_KEY_INFO_free>>;
using SealedPkcs8 = std::unique_ptr<X509_SIG, Free<X509_SIG_free>>;

struct CurveRow {
  Curve curve;
  std::string_view name;
  const char *group, *digest;
};
constexpr std::array kCurves{CurveRow{Curve::P256, "P-256", "prime256v1", "SHA256"},
                             CurveRow{Curve::P384, "P-384", "secp384r1", "SHA384"},
                             CurveRow{Curve::P521, "P-521", "secp521r1", "SHA512"}};

const CurveRow& row_of(Curve curve) noexcept {
  return kCurves[static_cast<std::size_t>(curve)];
}

constexpr std::string_view kWanted =
    "model signatures use elliptic-curve keys: P-256, P-384, P-521";
constexpr std::size_t kLongestPem = std::size_t{1} << 20;

Bio reader(std::string_view text) {
  Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  if (!bio) throw cannot("read from memory");
  return bio;
}

void check_length(std::string_view pem, std::string_view where) {
  if (pem.size() > kLongestPem)
    throw Error(Fault::BadFile, fmt::format("{} bytes are too many for a key; wtool takes {}",
                                            pem.size(), kLongestPem))
        .in(where);
}

Curve curve_of(EVP_PKEY* key, std::string_view where) {
  if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC) {
    const char* type = EVP_PKEY_get0_type_name(key);
    throw Error(Fault::Unsupported, fmt::format("holds a key of type {}", type ? type : "unknown"))
        .in(where)
        .hint(std::string(kWanted));
  }
  int is_explicit = 0;
  if (EVP_PKEY_get_int_param(key, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, &is_explicit) !=
          1 ||
      is_explicit != 0)
    throw Error(Fault::Unsupported, "holds a key whose curve is given by parameters, not by name")
        .in(where)
        .hint(std::string(kWanted));
  std::array<char, 64> group = {};
  std::size_t length = 0;
  if (EVP_PKEY_get_group_name(key, group.data(), group.size(), &length) == 1)
    for (const CurveRow& row : kCurves)
      if (group.data() == std::string_view(row.group)) return row.curve;
  ERR_clear_error();
  throw Error(Fault::Unsupported, fmt::format("holds a key on the curve {}",
                                              length == 0 ? "without a name" : group.data()))
      .in(where)
      .hint(std::string(kWanted));
}

std::shared_ptr<EVP_PKEY> shared(EVP_PKEY* key) {
  return {key, [](EVP_PKEY* k) { EVP_PKEY_free(k); }};
}

std::shared_ptr<EVP_PKEY> from_point(const SpkiPoint& from) {
  const KeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  if (!context || EVP_PKEY_fromdata_init(context.get()) != 1) return nullptr;
  std::string group = row_of(from.curve).group;
  Buffer point = from.point;
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group.data(), 0),
      OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size()),
      OSSL_PARAM_construct_end()};
  EVP_PKEY* key = nullptr;
  if (EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, parameters) != 1) return nullptr;
  return shared(key);
}

std::shared_ptr<EVP_PKEY> read_public(std::string_view pem) {
  if (const auto point = point_of_pem(pem))
    if (auto key = from_point(*point)) return key;
  ERR_clear_error();
  const Bio bio = reader(pem);
  return shared(PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr));
}

// OpenSSL is C: what the asker throws waits here until OpenSSL has returned.
struct Asked {
  const PrivateKey::Ask& ask;
  bool happened = false;
  std::exception_ptr thrown = {};
};

int give_passphrase(char* buffer, int size, int, void* data) noexcept {
  auto& asked = *static_cast<Asked*>(data);
  if (asked.happened) return -1;
  asked.happened = true;
  try {
    const Secret passphrase = asked.ask();
    if (passphrase.view().size() > static_cast<std::size_t>(size))
      throw Error(Fault::Usage, fmt::format("the passphrase is longer than {} bytes", size));
    passphrase.view().copy(buffer, passphrase.view().size());
    return static_cast<int>(passphrase.view().size());
  } catch (...) {
    asked.thrown = std::current_exception();
    return -1;
  }
}

// A memory file's text, wiped in OpenSSL's own memory afterwards.
Secret take_secret(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  Secret out(std::string_view(data, static_cast<std::size_t>(size)));
  OPENSSL_cleanse(data, static_cast<std::size_t>(size));
  return out;
}

// Whether what OpenSSL has just failed at is an algorithm that it does not have.
bool lacks_algorithm() {
  bool lacks = false;
  while (const unsigned long code = ERR_get_error())
    lacks =
        lacks || ERR_GET_REASON(code) == ERR_R_UNSUPPORTED ||
        (ERR_GET_LIB(code) == ERR_LIB_EVP && ERR_GET_REASON(code) == EVP_R_UNSUPPORTED_ALGORITHM);
  return lacks;
}

}  // namespace

std::string_view name_of(Curve curve) noexcept {
  return row_of(curve).name;
}

std::optional<Curve> parse_curve(std::string_view name) {
  std::string plain = lower(name);
  std::erase(plain, '-');
  for (const CurveRow& row : kCurves) {
    std::string own = lower(row.name);
    std::erase(own, '-');
    if (plain == own) return row.curve;
  }
  return std::nullopt;
}

PublicKey PublicKey::from_native(std::shared_ptr<evp_pkey_st> key, std::string_view where) {
  PublicKey out;
  out.curve_ = curve_of(key.get(), where);
  out.key_ = std::move(key);
  return out;
}

PublicKey PublicKey::from_pem(std::string_view pem, std::string_view where) {
  start_openssl();
  check_length(pem, where);
  if (pem.find("-----BEGIN PUBLIC KEY-----") == std::string_view::npos) {
    Error error(Fault::BadFile, "holds no public key: there is no 'BEGIN PUBLIC KEY' in it");
    if (pem.find("PRIVATE KEY-----") != std::string_view::npos)
      error.hint("it is a private key: keep it, and give the public one");
    else if (pem.find("-----BEGIN CERTIFICATE-----") != std::string_view::npos)
      error.hint("it is a certificate: --ca takes those");
    throw error.in(where);
  }
  ERR_clear_error();
  const auto key = read_public(pem);
  if (!key)
    throw Error(Fault::BadFile, fmt::format("its public key cannot be read: {}", openssl_reason()))
        .in(where);
  PublicKey out = from_native(key, where);
  const KeyContext context(EVP_PKEY_CTX_new_from_pkey(nullptr, key.get(), nullptr));
  if (!context || EVP_PKEY_public_check(context.get()) != 1)
    throw Error(Fault::BadFile, fmt::format("its public key is no point of {}: {}",
                                            name_of(out.curve_), openssl_reason()))
        .in(where);
  return out;
}

// Not compressed, whatever form it was read in.
Buffer PublicKey::point() const {
  unsigned char* data = nullptr;
  const std::size_t size = EVP_PKEY_get1_encoded_public_key(key_.get(), &data);
  if (size == 0) throw cannot("write a public key");
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  Buffer out(bytes, bytes + size);
  OPENSSL_free(data);
  return out;
}

std::string PublicKey::pem() const {
  return pem_of_spki(spki_of(curve_, point()));
}

std::string PublicKey::hint() const {
  return sha256(as_bytes(pem())).hex();
}

bool PublicKey::has_hint(std::string_view hint) const {
  if (hint == this->hint()) return true;
  return hint == sha256(as_bytes(pem_of_spki(spki_of(curve_, compressed(point()))))).hex();
}

bool PublicKey::verifies(Bytes message, Bytes signature, Digest digest) const {
  const char* name = digest == Digest::Sha256 ? "SHA256" : row_of(curve_).digest;
  const MdContext context(EVP_MD_CTX_new());
  if (!context || EVP_DigestVerifyInit_ex(context.get(), nullptr, name, nullptr, nullptr,
                                          key_.get(), nullptr) != 1)
    throw cannot("begin to verify");
  const auto bytes = [](Bytes b) { return reinterpret_cast<const unsigned char*>(b.data()); };
  const int answer = EVP_DigestVerify(context.get(), bytes(signature), signature.size(),
                                      bytes(message), message.size());
  ERR_clear_error();  // a signature that is no DER leaves its reasons there
  check_openssl_memory();
  return answer == 1;
}

PrivateKey PrivateKey::from_pem(std::string_view pem, const Ask& ask, std::string_view where) {
  start_openssl();
  check_length(pem, where);
  if (pem.find("PRIVATE KEY-----") == std::string_view::npos) {
    Error error(Fault::BadFile, "holds no private key: there is no 'PRIVATE KEY' in it");
    if (pem.find("-----BEGIN PUBLIC KEY-----") != std::string_view::npos)
      error.hint("it is a public key: signing needs the private one");
    throw error.in(where);
  }
  ERR_clear_error();
  const Bio bio = reader(pem);
  Asked asked{ask};
  PrivateKey out;
  const auto key = shared(PEM_read_bio_PrivateKey(bio.get(), nullptr, give_passphrase, &asked));
  if (asked.thrown) std::rethrow_exception(asked.thrown);
  check_openssl_memory();
  if (!key && asked.happened) {
    if (lacks_algorithm())
      throw Error(Fault::Unsupported, "is encrypted with an algorithm that OpenSSL has given up")
          .in(where)
          .hint("'openssl pkcs8 -provider legacy -provider default' makes a plain key of it");
    throw Error(Fault::Usage, "its passphrase is another one, or the key is damaged").in(where);
  }
  if (!key) {
    const bool lacks = lacks_algorithm();  // what OpenSSL says of most damage, too
    check_openssl_memory();
    throw Error(Fault::BadFile,
                lacks ? "its private key is damaged, or of a kind OpenSSL does not know"
                      : "its private key is damaged")
        .in(where);
  }
  out.pair_ = PublicKey::from_native(key, where);
  const KeyContext context(EVP_PKEY_CTX_new_from_pkey(nullptr, key.get(), nullptr));
  if (!context || EVP_PKEY_pairwise_check(context.get()) != 1) {
    ERR_clear_error();
    check_openssl_memory();
    throw Error(Fault::BadFile, "its private and its public half do not belong together").in(where);
  }
  return out;
}

PrivateKey PrivateKey::make(Curve curve) {
  start_openssl();
  PrivateKey out;
  out.pair_.curve_ = curve;
  out.pair_.key_ = shared(EVP_EC_gen(row_of(curve).group));
  if (!out.pair_.key_) throw cannot("make a key");
  return out;
}

PublicKey PrivateKey::public_key() const {
  return PublicKey::from_pem(pair_.pem(), "the key's public half");  // without the private one
}

Secret PrivateKey::pem() const {
  const Bio bio(BIO_new(BIO_s_secmem()));
  if (!bio || PEM_write_bio_PKCS8PrivateKey(bio.get(), pair_.key_.get(), nullptr, nullptr, 0,
                                            nullptr, nullptr) != 1)
    throw cannot("write a private key");
  return take_secret(bio.get());
}

// By hand, because OpenSSL 3.0's own writer derives the key with 2048 rounds only.
Secret PrivateKey::encrypted_pem(std::string_view passphrase) const {
  constexpr int kRounds = 600'000;  // of PBKDF2 with HMAC-SHA-256: OWASP's advice of 2023
  std::array<unsigned char, 16> salt = {};
  const Pkcs8 plain(EVP_PKEY2PKCS8(pair_.key_.get()));
  if (!plain || RAND_bytes(salt.data(), static_cast<int>(salt.size())) != 1)
    throw cannot("encrypt a key");
  X509_ALGOR* how = PKCS5_pbe2_set_iv(EVP_aes_256_cbc(), kRounds, salt.data(),
                                      static_cast<int>(salt.size()), nullptr, NID_hmacWithSHA256);
  if (!how) throw cannot("encrypt a key");
  const SealedPkcs8 sealed(
      PKCS8_set0_pbe(passphrase.data(), static_cast<int>(passphrase.size()), plain.get(), how));
  if (!sealed) {
    X509_ALGOR_free(how);
    throw cannot("encrypt a key");
  }
  const Bio bio(BIO_new(BIO_s_mem()));
  if (!bio || PEM_write_bio_PKCS8(bio.get(), sealed.get()) != 1)
    throw cannot("write a private key");
  return take_secret(bio.get());
}

Buffer PrivateKey::sign(Bytes message) const {
  const MdContext context(EVP_MD_CTX_new());
  if (!context || EVP_DigestSignInit_ex(context.get(), nullptr, row_of(pair_.curve_).digest,
                                        nullptr, nullptr, pair_.key_.get(), nullptr) != 1)
    throw cannot("begin to sign");
  const auto* data = reinterpret_cast<const unsigned char*>(message.data());
  std::size_t size = 0;
  if (EVP_DigestSign(context.get(), nullptr, &size, data, message.size()) != 1)
    throw cannot("sign");
  Buffer out(size);
  if (EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(out.data()), &size, data,
                     message.size()) != 1)
    throw cannot("sign");
  check_openssl_memory();
  out.resize(size);  // a DER signature's length varies
  return out;
}

}  // namespace wtool
