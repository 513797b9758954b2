#include "cli/signer.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/signature.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/trust/certificate.h"

namespace wtool {
namespace {

constexpr std::uint64_t kLargestCertificate = std::uint64_t{16} << 20;

PrivateKey load_key(const SignerOptions& options) {
  const Secret text = read_private_file(options.key == "-" ? "/dev/stdin" : options.key);
  return PrivateKey::from_pem(
      text.view(),
      [&] { return passphrase(options.passphrase, "passphrase of " + options.key, false); },
      options.key);
}

// The signer's certificate and those between it and a root. A root itself is left out: who verifies
// must have it from elsewhere.
std::vector<Buffer> load_chain(const SignerOptions& options, const PublicKey& key) {
  std::vector<Certificate> all = Certificate::from_pem(
      read_small_file(options.certificate, kLargestCertificate, "certificates"),
      options.certificate);
  for (const std::string& file : options.chain)
    std::ranges::move(
        Certificate::from_pem(read_small_file(file, kLargestCertificate, "certificates"), file),
        std::back_inserter(all));
  if (all[0].key().pem() != key.pem())
    throw Error(Fault::Usage, fmt::format("its key is not the one of {}", quoted(options.key)))
        .in(options.certificate);
  std::vector<Buffer> out{all[0].der()};
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (!all[i].issued(all[i - 1]))
      throw Error(Fault::Usage, fmt::format("certificate {} ({}) did not issue the one before it",
                                            i + 1, printable(all[i].subject())))
          .in(options.chain.empty() ? options.certificate : options.chain[0])
          .hint("first the signer's, then each one's issuer");
    if (all[i].is_own_issuer()) {
      note(fmt::format("root {} is left out: who verifies must have it from elsewhere",
                       printable(all[i].subject())));
      break;
    }
    out.push_back(all[i].der());
  }
  return out;
}

}  // namespace

Signer::Signer(const SignerOptions& options) : key_(load_key(options)) {
  if (options.certificate.empty()) {
    bundle_.hint = key_.public_key().hint();
  } else {
    bundle_.kind = Bundle::Kind::Certificate;
    bundle_.certificates = load_chain(options, key_.public_key());
  }
}

std::string Signer::sign(const Statement& statement) const {
  return sign_payload(write_statement(statement));
}

std::string Signer::sign_payload(std::string payload) const {
  Bundle bundle = bundle_;
  bundle.payload_type = kPayloadType;
  bundle.payload = std::move(payload);
  bundle.signature = key_.sign(as_bytes(signed_text(bundle.payload_type, bundle.payload)));
  return write_bundle(bundle);
}

}  // namespace wtool
