#include "lib/trust/certificate.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include "lib/trust/digest.h"
#include "lib/trust/openssl.h"
#include "lib/trust/openssl_memory.h"

namespace wtool {
namespace {

void free_names(GENERAL_NAMES* names) noexcept {
  GENERAL_NAMES_free(names);
}
void free_stack(STACK_OF(X509) * stack) noexcept {
  sk_X509_free(stack);  // not the certificates in it
}
using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;
using Store = std::unique_ptr<X509_STORE, Free<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Free<X509_STORE_CTX_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Free<free_names>>;
using Stack = std::unique_ptr<STACK_OF(X509), Free<free_stack>>;

constexpr std::size_t kLongestPem = std::size_t{16} << 20;
constexpr int kDeepest = 8;
// 112 bits: RSA from 2048 bits on, digests from SHA-224 on.
constexpr int kSecurityLevel = 2;

std::shared_ptr<X509> shared(X509* certificate) {
  return {certificate, [](X509* c) { X509_free(c); }};
}

std::string text_of(const X509_NAME* name) {
  const Bio bio(BIO_new(BIO_s_mem()));
  // As UTF-8: what cannot be shown is for the printer to escape.
  if (!bio || X509_NAME_print_ex(bio.get(), name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) < 0)
    throw cannot("print a name");
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string text_of(const ASN1_TIME* time) {
  std::tm t = {};
  if (ASN1_TIME_to_tm(time, &t) != 1) {
    ERR_clear_error();
    return "an unreadable time";
  }
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", t.tm_year + 1900, t.tm_mon + 1,
                     t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec);
}

// As UTF-8. One with a NUL byte in it is left out: it would be read as less than it is.
void add_text(const ASN1_STRING* string, std::vector<std::string>& out) {
  unsigned char* utf8 = nullptr;
  const int size = ASN1_STRING_to_UTF8(&utf8, string);
  if (size < 0) {
    ERR_clear_error();
    return;
  }
  std::string text(reinterpret_cast<const char*>(utf8), static_cast<std::size_t>(size));
  OPENSSL_free(utf8);
  if (text.find('\0') == std::string::npos) out.push_back(std::move(text));
}

bool may_sign(X509* certificate) {
  const std::uint32_t flags = X509_get_extension_flags(certificate);
  if ((flags & EXFLAG_KUSAGE) && (X509_get_key_usage(certificate) & KU_DIGITAL_SIGNATURE))
    return true;
  return (flags & EXFLAG_XKUSAGE) && (X509_get_extended_key_usage(certificate) & XKU_CODE_SIGN);
}

}  // namespace

Certificate Certificate::from_der(Bytes der, std::string_view where) {
  start_openssl();
  ERR_clear_error();
  const auto* at = reinterpret_cast<const unsigned char*>(der.data());
  const auto* const end = at + der.size();
  Certificate out;
  out.x509_ = shared(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (!out.x509_ || at != end)
    throw Error(Fault::BadFile, fmt::format("is no certificate: {}",
                                            out.x509_ ? "bytes are left over" : openssl_reason()))
        .in(where);
  return out;
}

std::vector<Certificate> Certificate::from_pem(std::string_view pem, std::string_view where) {
  start_openssl();
  if (pem.size() > kLongestPem)
    throw Error(Fault::BadFile, fmt::format("{} bytes are too many for certificates; wtool takes "
                                            "{}",
                                            pem.size(), kLongestPem))
        .in(where);
  ERR_clear_error();
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  std::vector<Certificate> out;
  while (X509* one = bio ? PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr) : nullptr) {
    out.emplace_back();
    out.back().x509_ = shared(one);
  }
  // At the end there is no further block: any other reason is a fault.
  const auto reason = ERR_peek_last_error();
  const bool ended =
      ERR_GET_LIB(reason) == ERR_LIB_PEM && ERR_GET_REASON(reason) == PEM_R_NO_START_LINE;
  if (!ended)
    throw Error(Fault::BadFile,
                fmt::format("certificate {} cannot be read: {}", out.size() + 1, openssl_reason()))
        .in(where);
  ERR_clear_error();
  check_openssl_memory();
  if (out.empty())
    throw Error(Fault::BadFile, "holds no certificate: there is no 'BEGIN CERTIFICATE' in it")
        .in(where);
  return out;
}

Buffer Certificate::der() const {
  unsigned char* data = nullptr;
  const int size = i2d_X509(x509_.get(), &data);
  if (size < 0) throw cannot("write a certificate");
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  Buffer out(bytes, bytes + size);
  OPENSSL_free(data);
  return out;
}

std::string Certificate::fingerprint() const {
  return sha256(der()).hex();
}
std::string Certificate::subject() const {
  return text_of(X509_get_subject_name(x509_.get()));
}
std::string Certificate::issuer() const {
  return text_of(X509_get_issuer_name(x509_.get()));
}
std::string Certificate::not_before() const {
  return text_of(X509_get0_notBefore(x509_.get()));
}
std::string Certificate::not_after() const {
  return text_of(X509_get0_notAfter(x509_.get()));
}

std::vector<std::string> Certificate::names() const {
  std::vector<std::string> out;
  const X509_NAME* subject = X509_get_subject_name(x509_.get());
  for (int i = -1; (i = X509_NAME_get_index_by_NID(subject, NID_commonName, i)) >= 0;)
    add_text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i)), out);
  const Names names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(x509_.get(), NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    int type = 0;
    const void* value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &type);
    if (type == GEN_EMAIL || type == GEN_DNS || type == GEN_URI)
      add_text(static_cast<const ASN1_STRING*>(value), out);
  }
  ERR_clear_error();
  check_openssl_memory();
  return out;
}

bool Certificate::is_own_issuer() const {
  return X509_check_issued(x509_.get(), x509_.get()) == X509_V_OK;
}

bool Certificate::issued(const Certificate& other) const {
  EVP_PKEY* key = X509_get0_pubkey(x509_.get());
  const bool good = key && X509_check_issued(x509_.get(), other.x509_.get()) == X509_V_OK &&
                    X509_verify(other.x509_.get(), key) == 1;
  ERR_clear_error();
  check_openssl_memory();
  return good;
}

PublicKey Certificate::key() const {
  std::shared_ptr<EVP_PKEY> key(X509_get_pubkey(x509_.get()),
                                [](EVP_PKEY* k) { EVP_PKEY_free(k); });
  if (!key)
    throw Error(Fault::BadFile,
                fmt::format("the certificate's key cannot be read: {}", openssl_reason()));
  return PublicKey::from_native(std::move(key), "the certificate");
}

std::optional<std::string> chain_fault(const std::vector<Certificate>& chain,
                                       const std::vector<Certificate>& anchors, bool at_issue) {
  start_openssl();
  X509* const leaf = chain.at(0).x509_.get();
  const Store store(X509_STORE_new());
  const Stack others(sk_X509_new_null());
  const StoreContext context(X509_STORE_CTX_new());
  if (!store || !others || !context) throw cannot("begin to verify a chain");
  bool is_anchor = false;
  for (const Certificate& a : anchors) {
    if (X509_STORE_add_cert(store.get(), a.x509_.get()) != 1) throw cannot("trust a certificate");
    is_anchor = is_anchor || X509_cmp(a.x509_.get(), leaf) == 0;
  }
  for (std::size_t i = 1; i < chain.size(); ++i)
    if (sk_X509_push(others.get(), chain[i].x509_.get()) <= 0) throw cannot("build a chain");
  if (X509_STORE_CTX_init(context.get(), store.get(), leaf, others.get()) != 1)
    throw cannot("begin to verify a chain");

  X509_VERIFY_PARAM* how = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_purpose(how, X509_PURPOSE_ANY);
  X509_VERIFY_PARAM_set_depth(how, kDeepest);
  X509_VERIFY_PARAM_set_auth_level(how, kSecurityLevel);
  if (is_anchor) X509_VERIFY_PARAM_set_flags(how, X509_V_FLAG_PARTIAL_CHAIN);
  if (at_issue) {
    std::tm t = {};
    if (ASN1_TIME_to_tm(X509_get0_notBefore(leaf), &t) != 1) return "its dates cannot be read";
    X509_VERIFY_PARAM_set_time(how, ::timegm(&t));
  }
  ERR_clear_error();
  const bool good = X509_verify_cert(context.get()) == 1;
  check_openssl_memory();
  if (!good) {
    const int error = X509_STORE_CTX_get_error(context.get());
    const int depth = X509_STORE_CTX_get_error_depth(context.get());
    X509* at = X509_STORE_CTX_get_current_cert(context.get());
    ERR_clear_error();
    std::string why = X509_verify_cert_error_string(error);
    if (at)
      why += fmt::format(" (certificate {} of the chain, {})", depth + 1,
                         text_of(X509_get_subject_name(at)));
    if (error == X509_V_ERR_CERT_HAS_EXPIRED && at)
      why += fmt::format(", valid until {}", text_of(X509_get0_notAfter(at)));
    return why;
  }
  if (!may_sign(leaf))
    return "it is not meant for signing: neither key usage digitalSignature nor extended key usage "
           "codeSigning";
  return std::nullopt;
}

}  // namespace wtool
