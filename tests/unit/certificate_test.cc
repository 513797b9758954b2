#include "lib/trust/certificate.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/catch.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;
const fs::path kOms = fs::path(WTOOL_SOURCE_DIR) / "testdata/oms";

std::vector<Certificate> load(const fs::path& path) {
  std::ifstream in(kOms / path, std::ios::binary);
  REQUIRE(in);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return Certificate::from_pem(text, path.native());
}
Certificate one(const std::string& name) {
  const auto all = load("generated/keys/" + name + ".crt.pem");
  REQUIRE(all.size() == 1);
  return all[0];
}

std::string fault(const std::vector<Certificate>& chain, const std::vector<Certificate>& anchors,
                  bool at_issue = false) {
  return chain_fault(chain, anchors, at_issue).value_or("trusted");
}

}  // namespace

TEST_CASE("certificate: a chain to a root that is trusted holds", "[certificate]") {
  CHECK(fault({one("leaf"), one("int")}, {one("root")}) == "trusted");
  CHECK(fault({one("leaf-ekuonly"), one("int")}, {one("root")}) == "trusted");
  CHECK(fault({one("leaf"), one("int"), one("root")}, {one("root")}) == "trusted");
  CHECK(fault({one("self")}, {one("self")}) == "trusted");
  const auto anchor = load("model-transparency/keys/ca-cert.pem");
  std::vector<Certificate> chain = load("model-transparency/keys/signing-key-cert.pem");
  chain.push_back(load("model-transparency/keys/int-ca-cert.pem")[0]);
  CHECK(fault(chain, anchor) == "trusted");
}

TEST_CASE("certificate: a chain that does not end in a trusted root is refused", "[certificate]") {
  CHECK(fault({one("leaf")}, {one("root")}).find("unable to get local issuer") == 0);
  CHECK(fault({one("leaf"), one("int")}, {one("other-root")}) != "trusted");
  CHECK(fault({one("leaf"), one("int"), one("root")}, {one("other-root")}) != "trusted");
  CHECK(fault({one("leaf"), one("int")}, {}) != "trusted");
  CHECK(fault({one("self")}, {one("root")}) != "trusted");
  CHECK(fault({one("leaf"), one("other-root")}, {one("root")}) != "trusted");
}

TEST_CASE("certificate: an expired signer is refused, unless the day of issue counts",
          "[certificate]") {
  const std::string why = fault({one("leaf-expired"), one("int")}, {one("root")});
  CHECK(why.find("expired") != std::string::npos);
  CHECK(why.find("2020-") != std::string::npos);
  CHECK(fault({one("leaf"), one("int")}, {one("root")}, true) == "trusted");
}

TEST_CASE("certificate: a signer that is not meant for signing is refused", "[certificate]") {
  CHECK(fault({one("leaf-nousage"), one("int")}, {one("root")}).find("not meant for signing") !=
        std::string::npos);
}

TEST_CASE("certificate: a leaf can be its own anchor", "[certificate]") {
  CHECK(fault({one("leaf")}, {one("leaf")}) == "trusted");
  CHECK(fault({one("leaf-nousage")}, {one("leaf-nousage")}) != "trusted");
}

TEST_CASE("certificate: what it says of itself", "[certificate]") {
  const Certificate leaf = one("leaf"), root = one("root");
  CHECK(leaf.issuer() == "CN=Test Intermediate");
  CHECK(leaf.fingerprint().size() == 64);
  CHECK(leaf.not_before().size() == 20);
  CHECK(leaf.not_after() > leaf.not_before());
  CHECK(root.is_own_issuer());
  CHECK(!leaf.is_own_issuer());
  CHECK(one("int").issued(leaf));
  CHECK(!root.issued(leaf));
  CHECK(!one("other-root").issued(one("int")));
  CHECK(!leaf.names().empty());
  const Certificate again = Certificate::from_der(leaf.der(), "again");
  CHECK(again.fingerprint() == leaf.fingerprint());
  CHECK(leaf.key().curve() == Curve::P256);
}

TEST_CASE("certificate: bytes that are none, or more than one, are refused", "[certificate]") {
  CHECK_THROWS_AS(Certificate::from_der({}, "x"), Error);
  CHECK_THROWS_AS(Certificate::from_der(as_bytes("certificate"), "x"), Error);
  Buffer der = one("leaf").der();
  der.push_back(std::byte{0});
  CHECK_THROWS_AS(Certificate::from_der(der, "x"), Error);
  CHECK_THROWS_AS(Certificate::from_pem("no PEM", "x"), Error);
  CHECK_THROWS_AS(Certificate::from_pem("", "x"), Error);
  CHECK_THROWS_AS(Certificate::from_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END "
                                        "CERTIFICATE-----\n",
                                        "x"),
                  Error);
}

}  // namespace wtool
