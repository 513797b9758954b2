#include "lib/trust/bundle.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/trust/base64.h"
#include "lib/trust/json_object.h"

namespace wtool {
namespace {

constexpr std::size_t kMostCertificates = 32;
constexpr std::string_view kMediaType = "application/vnd.dev.sigstore.bundle";

class BundleReader {
 public:
  explicit BundleReader(std::string& text) : in_(text) {}

  Bundle read() {
    read_object(in_, "the bundle",
                {{"mediaType", true, [&] { media_type(); }},
                 {"verificationMaterial", true, [&] { material(); }},
                 {"dsseEnvelope", false, [&] { envelope(); }},
                 {"messageSignature", false, [&] { message_signature(); }}});
    in_.finish();
    if (!has_envelope_) throw bad("the bundle lacks 'dsseEnvelope'");
    return std::move(out_);
  }

 private:
  static Error bad(std::string text) { return Error(Fault::BadFile, std::move(text)); }

  Buffer bytes(std::string_view what) {
    auto decoded = from_base64(read_text(in_, what));
    if (!decoded) throw bad(fmt::format("{} is no base64", what));
    return std::move(*decoded);
  }

  // Other versions may mean other things.
  void media_type() {
    static constexpr std::array<std::string_view, 4> kKnown{
        kBundleType, "application/vnd.dev.sigstore.bundle+json;version=0.1",
        "application/vnd.dev.sigstore.bundle+json;version=0.2",
        "application/vnd.dev.sigstore.bundle+json;version=0.3"};
    out_.media_type = read_text(in_, "'mediaType'");
    if (std::ranges::find(kKnown, out_.media_type) != kKnown.end()) return;
    throw Error(out_.media_type.starts_with(kMediaType) ? Fault::Unsupported : Fault::BadFile,
                fmt::format("the bundle's media type is {}", quoted(out_.media_type)))
        .hint("wtool reads Sigstore bundles of version 0.1 to 0.3");
  }

  [[noreturn]] static void message_signature() {
    throw Error(Fault::Unsupported, "the bundle signs one file's digest, not a model's statement")
        .hint("'cosign verify-blob' verifies such a one");
  }

  void material() {
    int kinds = 0;
    bool logged = false;
    const auto is = [&](Bundle::Kind kind) {
      out_.kind = kind;
      ++kinds;
    };
    read_object(in_, "'verificationMaterial'",
                {{"publicKey", false,
                  [&] {
                    is(Bundle::Kind::Key);
                    public_key();
                  }},
                 {"x509CertificateChain", false,
                  [&] {
                    is(Bundle::Kind::Certificate);
                    chain();
                  }},
                 {"certificate", false,
                  [&] {
                    is(Bundle::Kind::Keyless);
                    certificate("'certificate'");
                  }},
                 {"tlogEntries", false,
                  [&] {
                    read_list(in_, "'tlogEntries'", [&] {
                      in_.skip();
                      ++out_.log_entries;
                    });
                    logged = true;
                  }},
                 {"timestampVerificationData", false, [&] { timestamps(); }}});
    if (kinds != 1)
      throw bad(
          fmt::format("'verificationMaterial' has {} of 'publicKey', 'x509CertificateChain' "
                      "and 'certificate', not one",
                      kinds));
    if (out_.kind == Bundle::Kind::Keyless && out_.log_entries == 0)
      throw bad(fmt::format("a keyless bundle {}",
                            logged ? "with no entry in 'tlogEntries'" : "lacks 'tlogEntries'"));
    // Sigstore's own bundles came with a chain once; then a log vouches for the time.
    if (out_.kind == Bundle::Kind::Certificate && out_.log_entries > 0)
      out_.kind = Bundle::Kind::Keyless;
  }

  // Before 1.1 there was the key itself and its kind. It is of no use: a key that comes with a
  // signature proves nothing.
  void public_key() {
    bool raw = false, hinted = false;
    read_object(in_, "'publicKey'",
                {{"hint", false,
                  [&] {
                    out_.hint = read_text(in_, "'hint'");
                    hinted = true;
                  }},
                 {"rawBytes", false,
                  [&] {
                    bytes("'publicKey.rawBytes'");
                    raw = true;
                  }},
                 {"keyDetails", false, [&] { read_text(in_, "'keyDetails'"); }}});
    if (!raw && !hinted) throw bad("'publicKey' lacks 'hint'");
    if (hinted && out_.hint.empty()) throw bad("the key's 'hint' is empty");
  }

  void certificate(std::string_view what) {
    read_object(in_, what, {{"rawBytes", true, [&] {
                               out_.certificates.push_back(bytes("a certificate's 'rawBytes'"));
                             }}});
    if (out_.certificates.size() > kMostCertificates)
      throw bad(fmt::format("more than {} certificates", kMostCertificates));
  }

  void chain() {
    read_object(in_, "'x509CertificateChain'", {{"certificates", true, [&] {
                                                   read_list(in_, "'certificates'",
                                                             [&] { certificate("a certificate"); });
                                                 }}});
    if (out_.certificates.empty()) throw bad("'certificates' is empty");
  }

  void timestamps() {
    if (in_.peek() == JsonReader::Kind::Null) return in_.skip();
    read_object(in_, "'timestampVerificationData'", {{"rfc3161Timestamps", false, [&] {
                                                        read_list(in_, "'rfc3161Timestamps'", [&] {
                                                          in_.skip();
                                                          ++out_.timestamps;
                                                        });
                                                      }}});
  }

  void envelope() {
    has_envelope_ = true;
    std::uint64_t signatures = 0;
    read_object(
        in_, "'dsseEnvelope'",
        {{"payload", true,
          [&] {
            const Buffer decoded = bytes("'payload'");
            out_.payload = as_text(decoded);
          }},
         {"payloadType", true, [&] { out_.payload_type = read_text(in_, "'payloadType'"); }},
         {"signatures", true, [&] {
            read_list(in_, "'signatures'", [&] {
              ++signatures;
              signature();
            });
          }}});
    if (signatures != 1)
      throw bad(fmt::format("the bundle has {} signatures, not one", signatures));
    if (out_.payload.empty()) throw bad("'payload' is empty");
    if (out_.payload_type != kPayloadType)
      throw Error(Fault::Unsupported, fmt::format("the payload's type is {}, not '{}'",
                                                  quoted(out_.payload_type), kPayloadType));
  }

  void signature() {
    read_object(in_, "a signature",
                {{"sig", true, [&] { out_.signature = bytes("'sig'"); }},
                 {"keyid", false, [&] {  // "", null or absent; of no use
                    if (in_.peek() == JsonReader::Kind::Null) return in_.skip();
                    read_text(in_, "'keyid'");
                  }}});
    if (out_.signature.empty()) throw bad("'sig' is empty");
  }

  JsonReader in_;
  Bundle out_;
  bool has_envelope_ = false;
};

}  // namespace

std::string_view name_of(Bundle::Kind kind) noexcept {
  switch (kind) {
    case Bundle::Kind::Key: return "key";
    case Bundle::Kind::Certificate: return "certificate";
    case Bundle::Kind::Keyless: break;
  }
  return "keyless";
}

Bundle parse_bundle(std::string text) {
  return BundleReader(text).read();
}

std::string write_bundle(const Bundle& bundle) {
  std::string out = R"({"mediaType":)";
  append_json(out, kBundleType);
  out += R"(,"verificationMaterial":{)";
  if (bundle.kind == Bundle::Kind::Key) {
    out += R"("publicKey":{"hint":)";
    append_json(out, bundle.hint);
    out += "}";
  } else {
    out += R"("x509CertificateChain":{"certificates":[)";
    for (std::size_t i = 0; i < bundle.certificates.size(); ++i) {
      out += i > 0 ? R"(,{"rawBytes":")" : R"({"rawBytes":")";
      out += to_base64(bundle.certificates[i]) + R"("})";
    }
    out += "]}";
  }
  // Python's protobuf reader wants the empty list, and the specification allows it.
  out += R"(,"tlogEntries":[]},"dsseEnvelope":{"payload":")";
  out += to_base64(as_bytes(bundle.payload)) + R"(","payloadType":)";
  append_json(out, bundle.payload_type);
  out += R"(,"signatures":[{"sig":")" + to_base64(bundle.signature) + R"(","keyid":""}]}})";
  return out;
}

std::string signed_text(std::string_view payload_type, std::string_view payload) {
  return fmt::format("DSSEv1 {} {} {} {}", payload_type.size(), payload_type, payload.size(),
                     payload);
}

std::string signed_text_v02(std::string_view payload_type, std::string_view payload) {
  const bool single = payload.find('\'') != payload.npos && payload.find('"') == payload.npos;
  const char quote = single ? '"' : '\'';
  std::string repr = fmt::format("b{}", quote);
  for (const char c : payload) {
    if (c == quote || c == '\\')
      repr += {'\\', c};
    else if (c == '\n')
      repr += "\\n";
    else if (c == '\r')
      repr += "\\r";
    else if (c == '\t')
      repr += "\\t";
    else if (c < 0x20 || c >= 0x7F)
      repr += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      repr += c;
  }
  repr += quote;
  return fmt::format("DSSEV1 {} {} {} {}", payload_type.size(), payload_type, payload.size(), repr);
}

}  // namespace wtool
