#include "lib/trust/key.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include <sys/stat.h>
#include <unistd.h>

#include "lib/trust/digest.h"
#include "lib/trust/spki.h"
#include "tests/catch.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;
const fs::path kKeys = fs::path(WTOOL_SOURCE_DIR) / "testdata/oms/generated/keys";

std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}

Secret nobody() {
  FAIL("asked for a passphrase");
  return {};
}

PublicKey public_key(const std::string& name) {
  return PublicKey::from_pem(slurp(kKeys / name), name);
}
PrivateKey private_key(const std::string& name) {
  return PrivateKey::from_pem(slurp(kKeys / name), nobody, name);
}

// A folder of its own, removed at the end.
struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "wtool-key-XXXXXX").native();
    REQUIRE(::mkdtemp(name.data()));
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  fs::path path;
};

}  // namespace

TEST_CASE("key: hints are those of the Python reference", "[key]") {
  // From bundles it wrote: files-sha256-p256.sig, v1.1.0-elliptic-key/model.sig.
  CHECK(public_key("p256.pub.pem").hint() ==
        "4677ad6735950c2b5cd16c3a0997bae5351f743bb44eab7e93d5fda1b4f0d6b2");
  // Text stands before the key in this file.
  const std::string sample = slurp(kKeys / "../../model-transparency/keys/signing-key-pub.pem");
  const PublicKey key = PublicKey::from_pem(sample, "sample");
  CHECK(key.hint() == "e8450dec4eb99dae995da9af1bc2cc9f76ed669ee2e744f57abba763df3e3f8e");
  CHECK(key.curve() == Curve::P384);
}

TEST_CASE("key: a public key's text is OpenSSL's, and the same in either form", "[key]") {
  for (const char* name : {"p256", "p384", "p521"}) {
    INFO(name);
    const std::string text = slurp(kKeys / (name + std::string(".pub.pem")));
    const PublicKey key = PublicKey::from_pem(text, name);
    CHECK(key.pem() == text);
    const auto point = point_of_pem(text);  // so this one was read by ourselves
    REQUIRE(point);
    CHECK(point->curve == key.curve());
    const std::string small = pem_of_spki(spki_of(point->curve, compressed(point->point)));
    const PublicKey same = PublicKey::from_pem(small, name);
    CHECK(same.pem() == text);
    CHECK(same.hint() == key.hint());
    CHECK(key.has_hint(key.hint()));
    CHECK(key.has_hint(sha256(as_bytes(small)).hex()));
    CHECK(!key.has_hint(sha256(as_bytes("x")).hex()));
    // Other line ends are for OpenSSL.
    std::string lines;
    for (const char c : text) lines += c == '\n' ? "\r\n" : std::string(1, c);
    CHECK(!point_of_pem(lines));
    CHECK(PublicKey::from_pem(lines, name).pem() == text);
    // No point of the curve, in either form.
    Buffer wrong = point->point;
    wrong.back() ^= std::byte{1};
    CHECK_THROWS_AS(PublicKey::from_pem(pem_of_spki(spki_of(point->curve, wrong)), name), Error);
  }
  // From 'openssl ec -pubout -conv_form compressed' of p256.pem.
  const std::string theirs = R"(-----BEGIN PUBLIC KEY-----
MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgADeT1RpeUwVVEEztFsgcD3e7t6bflo
J4x7j1/0EijqwII=
-----END PUBLIC KEY-----
)";
  CHECK(PublicKey::from_pem(theirs, "compressed").hint() == public_key("p256.pub.pem").hint());
}

TEST_CASE("key: what is signed verifies, and nothing else does", "[key]") {
  for (const std::string name : {"p256", "p384", "p521", "p256-sec1"}) {
    INFO(name);
    const PrivateKey key = private_key(name + ".pem");
    const PublicKey half = public_key((name == "p256-sec1" ? "p256" : name) + ".pub.pem");
    CHECK(key.public_key().pem() == half.pem());
    Buffer signature = key.sign(as_bytes("message"));
    CHECK(half.verifies(as_bytes("message"), signature));
    CHECK(!half.verifies(as_bytes("messagf"), signature));
    CHECK(!half.verifies(as_bytes(""), signature));
    CHECK(!half.verifies(as_bytes("message"), {}));
    CHECK(!public_key("wrong-p256.pub.pem").verifies(as_bytes("message"), signature));
    for (std::size_t i = 0; i < signature.size(); ++i) {
      Buffer bad = signature;
      bad[i] ^= std::byte{1};
      CHECK(!half.verifies(as_bytes("message"), bad));
    }
    Buffer longer = signature;
    longer.push_back(std::byte{0});
    CHECK(!half.verifies(as_bytes("message"), longer));
  }
}

TEST_CASE("key: other algorithms and curves are refused by name", "[key]") {
  const auto refusal = [](const std::string& name) -> std::string {
    try {
      public_key(name);
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::Unsupported);
      return e.text();
    }
    return "taken";
  };
  CHECK(refusal("ed25519.pub.pem") == "holds a key of type ED25519");
  CHECK(refusal("rsa2048.pub.pem") == "holds a key of type RSA");
  CHECK(refusal("k1.pub.pem") == "holds a key on the curve secp256k1");
  CHECK_THROWS_AS(private_key("k1.pem"), Error);
  CHECK_THROWS_AS(private_key("ed25519.pem"), Error);
}

TEST_CASE("key: the wrong half, no key and half a key are told apart", "[key]") {
  const auto fault = [](const std::string& text, bool is_private) -> std::string {
    try {
      if (is_private)
        PrivateKey::from_pem(text, nobody, "k");
      else
        PublicKey::from_pem(text, "k");
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::BadFile);
      return e.text() + "|" + e.hint();
    }
    return "taken";
  };
  CHECK(fault(slurp(kKeys / "p256.pem"), false).find("it is a private key") != std::string::npos);
  CHECK(fault(slurp(kKeys / "p256.pub.pem"), true).find("it is a public key") != std::string::npos);
  CHECK(fault(slurp(kKeys / "root.crt.pem"), false).find("certificate") != std::string::npos);
  CHECK(fault("", false) != "taken");
  CHECK(fault("", true) != "taken");
  const std::string pem = slurp(kKeys / "p256.pub.pem");
  CHECK(fault(pem.substr(0, 90), false) != "taken");
  CHECK(fault(slurp(kKeys / "p256.pem").substr(0, 90), true) != "taken");
}

TEST_CASE("key: an encrypted key opens with its passphrase only", "[key]") {
  const std::string pem = slurp(kKeys / "p256-encrypted.pem");
  int asked = 0;
  const auto with = [&](std::string_view passphrase) {
    return PrivateKey::from_pem(
        pem,
        [&] {
          ++asked;
          return Secret(passphrase);
        },
        "k");
  };
  CHECK(with("test-password").public_key().pem() == public_key("p256.pub.pem").pem());
  CHECK(asked == 1);
  try {
    with("Test-password");
    FAIL("taken");
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::Usage);
    CHECK(e.text().find("assword") == std::string::npos);  // nothing of it is shown
  }
  // What the asker throws comes out unchanged.
  CHECK_THROWS_AS(PrivateKey::from_pem(
                      pem, []() -> Secret { throw Error(Fault::Cancelled, "interrupted"); }, "k"),
                  Error);
}

TEST_CASE("key: new keys come back from their own text, plain and encrypted", "[key]") {
  for (const Curve curve : {Curve::P256, Curve::P384, Curve::P521}) {
    const PrivateKey key = PrivateKey::make(curve);
    CHECK(key.public_key().curve() == curve);
    const Secret plain = key.pem();
    CHECK(plain.view().starts_with("-----BEGIN PRIVATE KEY-----"));
    CHECK(PrivateKey::from_pem(plain.view(), nobody, "k").public_key().pem() ==
          key.public_key().pem());
  }
  const PrivateKey key = PrivateKey::make(Curve::P256);
  CHECK(key.public_key().pem() != PrivateKey::make(Curve::P256).public_key().pem());
  const Secret sealed = key.encrypted_pem("open");
  CHECK(sealed.view().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
  const auto open = [] { return Secret("open"); };
  CHECK(PrivateKey::from_pem(sealed.view(), open, "k").public_key().pem() ==
        key.public_key().pem());
}

TEST_CASE("key: a private file that others may read is refused", "[key]") {
  const Folder folder;
  const fs::path file = folder.path / "k.pem";
  std::ofstream(file) << "content";
  for (const mode_t mode : {0644u, 0640u, 0604u, 0620u, 0601u}) {
    ::chmod(file.c_str(), mode);
    try {
      read_private_file(file);
      FAIL("read");
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::Usage);
      CHECK(e.hint().starts_with("chmod 600 "));
    }
  }
  ::chmod(file.c_str(), 0600);
  CHECK(read_private_file(file).view() == "content");
  ::chmod(file.c_str(), 0400);
  CHECK(read_private_file(file).view() == "content");
  CHECK_THROWS_AS(read_private_file(folder.path / "none"), Error);
  CHECK_THROWS_AS(read_private_file(folder.path), Error);
}

TEST_CASE("key: a new pair is written whole or not at all, the private half for us alone",
          "[key]") {
  const Folder folder;
  const auto at = [&](const char* name) { return (folder.path / name).native(); };
  write_key_files(at("a.pem"), Secret("private"), at("a.pub.pem"), "public");
  CHECK(slurp(at("a.pem")) == "private");
  CHECK(slurp(at("a.pub.pem")) == "public");
  struct stat status = {};
  REQUIRE(::stat(at("a.pem").c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
  CHECK_THROWS_AS(write_key_files(at("a.pem"), Secret("x"), at("b.pub.pem"), "y"), Error);
  CHECK_THROWS_AS(write_key_files(at("b.pem"), Secret("x"), at("a.pub.pem"), "y"), Error);
  CHECK(slurp(at("a.pem")) == "private");
  CHECK(slurp(at("a.pub.pem")) == "public");
  CHECK(!fs::exists(at("b.pem")));
  CHECK(!fs::exists(at("b.pub.pem")));
}

TEST_CASE("key: secrets leave nothing behind when they move", "[key]") {
  Secret a("short");
  Secret b = std::move(a);
  CHECK(b.view() == "short");
  CHECK(a.empty());
  a = Secret(std::string(1000, 'x'));
  a.append("y");
  CHECK(a.view().size() == 1001);
  a.pop_back();
  CHECK(a.view() == std::string(1000, 'x'));
}

}  // namespace wtool
