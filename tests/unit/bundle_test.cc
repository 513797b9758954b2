#include "lib/trust/bundle.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "lib/trust/base64.h"
#include "lib/trust/key.h"
#include "lib/trust/statement.h"
#include "tests/catch.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;
const fs::path kOms = fs::path(WTOOL_SOURCE_DIR) / "testdata/oms";

std::string slurp(const fs::path& path) {
  std::ifstream in(kOms / path, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}
Bundle bundle(const std::string& name) {
  return parse_bundle(slurp("generated/bundles/" + name + ".sig"));
}
Statement statement(const std::string& name) {
  return parse_statement(bundle(name).payload);
}

// The kind of fault and its text; Internal if there is none.
std::pair<Fault, std::string> fault_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return {e.fault(), e.text()};
  }
  return {Fault::Internal, "taken"};
}
std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const auto at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), by);
}

// A statement with these resources and this serialization, and its right root.
std::string with(const std::string& resources, const std::string& serialization,
                 const std::string& root) {
  return R"({"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"m","digest":{"sha256":")" +
         root + R"("}}],"predicateType":"https://model_signing/signature/v1.0","predicate":{)" +
         R"("resources":[)" + resources + R"(],"serialization":)" + serialization + "}}";
}
std::string one(const std::string& name) {
  return R"({"name":")" + name + R"(","digest":")" + std::string(64, '0') +
         R"(","algorithm":"sha256"})";
}
std::string root_of_zeros(std::size_t resources) {
  return sha256(Buffer(32 * resources)).hex();
}
const std::string kFiles = R"({"method":"files","hash_type":"sha256","allow_symlinks":false})";
const std::string kShards =
    R"({"method":"shards","hash_type":"sha256","allow_symlinks":false,"shard_size":10})";

std::pair<Fault, std::string> fault_with(const std::vector<std::string>& names,
                                         const std::string& serialization) {
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ",") + one(name);
  return fault_of([&] { parse_statement(with(all, serialization, root_of_zeros(names.size()))); });
}

}  // namespace

TEST_CASE("bundle: base64 is RFC 4648's, and each content has one text", "[bundle]") {
  // The RFC's own examples, section 10.
  const std::pair<const char*, const char*> all[] = {{"", ""},
                                                     {"f", "Zg=="},
                                                     {"fo", "Zm8="},
                                                     {"foo", "Zm9v"},
                                                     {"foob", "Zm9vYg=="},
                                                     {"fooba", "Zm9vYmE="},
                                                     {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, encoded] : all) {
    CHECK(to_base64(as_bytes(plain)) == encoded);
    REQUIRE(from_base64(encoded));
    CHECK(as_text(*from_base64(encoded)) == plain);
  }
  for (const char* bad : {"Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "Zm9v\n", "Z g==", "Zg==Zg==", "=",
                          "====", "Zm9-", "Zm_v"})
    CHECK(!from_base64(bad));
}

TEST_CASE("bundle: every kind is read", "[bundle]") {
  CHECK(bundle("spec-order").kind == Bundle::Kind::Key);
  CHECK(bundle("spec-order").hint ==
        "4677ad6735950c2b5cd16c3a0997bae5351f743bb44eab7e93d5fda1b4f0d6b2");
  CHECK(bundle("legacy-rawbytes").hint.empty());
  CHECK(bundle("cert-leaf").kind == Bundle::Kind::Certificate);
  CHECK(bundle("cert-leaf").certificates.size() == 2);
  const Bundle keyless = parse_bundle(slurp("spec-vectors/valid/sigstore.bundle.json"));
  CHECK(keyless.kind == Bundle::Kind::Keyless);
  CHECK(keyless.log_entries == 1);
  CHECK(keyless.timestamps == 1);
}

TEST_CASE("bundle: what is written comes back", "[bundle]") {
  for (const char* name : {"spec-order", "cert-leaf"}) {
    const Bundle a = bundle(name);
    const Bundle b = parse_bundle(write_bundle(a));
    CHECK(b.kind == a.kind);
    CHECK(b.hint == a.hint);
    CHECK(b.certificates == a.certificates);
    CHECK(b.payload == a.payload);
    CHECK(b.payload_type == a.payload_type);
    CHECK(b.signature == a.signature);
  }
}

TEST_CASE("bundle: broken and unknown ones are refused", "[bundle]") {
  for (const char* name : {"no-envelope", "no-signatures", "no-verification-material", "not-base64",
                           "truncated", "trailing-garbage", "empty-bundle", "two-signatures"}) {
    INFO(name);
    CHECK(fault_of([&] { bundle(name); }).first == Fault::BadFile);
  }
  CHECK(fault_of([&] { bundle("bad-payload-type"); }).first == Fault::Unsupported);
  CHECK(fault_of([&] { bundle("bad-media-type"); }).first != Fault::Internal);
  for (const char* name :
       {"empty", "missing-envelope", "missing-tlog-entries", "missing-verification-material"}) {
    INFO(name);
    const std::string text = slurp("spec-vectors/invalid/" + std::string(name) + ".bundle.json");
    CHECK(fault_of([&] { parse_bundle(text); }).first == Fault::BadFile);
  }
  const std::string good = write_bundle(bundle("spec-order"));
  const std::pair<const char*, const char*> changes[] = {
      {R"("tlogEntries":[])", R"("tlogEntries":[],"tlogEntries":[])"},
      {R"("hint")", R"("Hint")"},
      {R"("payloadType")", R"("x":1,"payloadType")"},
      {R"("keyid":"")", R"("keyid":1)"},
      {R"("publicKey":{)", R"("certificate":{"rawBytes":"AAAA"},"publicKey":{)"},
      {R"({"mediaType")", R"([{"mediaType")"}};
  for (const auto& [what, by] : changes) {
    INFO(by);
    CHECK(fault_of([&] { parse_bundle(replaced(good, what, by)); }).first == Fault::BadFile);
  }
}

TEST_CASE("bundle: the text that is signed is DSSE's", "[bundle]") {
  // The protocol's own example.
  CHECK(signed_text("http://example.com/HelloWorld", "hello world") ==
        "DSSEv1 29 http://example.com/HelloWorld 11 hello world");
  CHECK(signed_text("", "") == "DSSEv1 0  0 ");
}

TEST_CASE("bundle: golden signatures hold over it, in each version", "[bundle]") {
  const auto key = PublicKey::from_pem(slurp("generated/keys/p256.pub.pem"), "key");
  const Bundle b = bundle("spec-order");
  CHECK(key.verifies(as_bytes(signed_text(b.payload_type, b.payload)), b.signature));
  const auto sample =
      PublicKey::from_pem(slurp("model-transparency/keys/signing-key-pub.pem"), "key");
  for (const char* name : {"v0.3.1-elliptic-key", "v1.0.0-elliptic-key", "v1.0.1-elliptic-key",
                           "v1.1.0-elliptic-key", "v0.3.1-certificate", "v1.1.0-certificate"}) {
    INFO(name);
    const Bundle s = parse_bundle(slurp("model-transparency/" + std::string(name) + "/model.sig"));
    CHECK(sample.verifies(as_bytes(signed_text(s.payload_type, s.payload)), s.signature));
  }
  const Bundle v02 = parse_bundle(slurp("model-transparency/v0.2.0-certificate/model.sig"));
  CHECK(!sample.verifies(as_bytes(signed_text(v02.payload_type, v02.payload)), v02.signature));
  CHECK(sample.verifies(as_bytes(signed_text_v02(v02.payload_type, v02.payload)), v02.signature,
                        PublicKey::Digest::Sha256));
}

TEST_CASE("bundle: not one byte of it can change unnoticed", "[bundle]") {
  const auto key = PublicKey::from_pem(slurp("generated/keys/p256.pub.pem"), "key");
  const std::string good = write_bundle(bundle("spec-single-basename"));
  const std::size_t payload = good.find(R"("payload":")") + 11, end = good.find('"', payload);
  const auto taken = [&](std::size_t i, int change) {
    std::string text = good;
    text[i] = static_cast<char>(text[i] ^ change);
    try {
      const Bundle b = parse_bundle(text);
      return b.kind == Bundle::Kind::Key && b.hint == key.hint() &&
             key.verifies(as_bytes(signed_text(b.payload_type, b.payload)), b.signature);
    } catch (const Error&) {
      return false;
    }
  };
  CHECK(taken(0, 0));
  for (std::size_t i = 0; i < good.size(); ++i) {
    // Of the payload, whose every bit is signed, each bit alone; elsewhere every other value.
    const bool in_payload = i >= payload && i < end;
    for (int change = 1; change < 256; in_payload ? change *= 2 : ++change)
      if (taken(i, change)) FAIL_CHECK("byte " << i << ", changed by " << change);
  }
}

TEST_CASE("statement: what we write is the golden text, byte for byte", "[bundle]") {
  for (const char* name : {"spec-order", "spec-shards-int", "spec-shards-default", "spec-blake2b",
                           "spec-single-basename"}) {
    INFO(name);
    const std::string golden = bundle(name).payload;
    CHECK(write_statement(parse_statement(golden)) == golden);
  }
}

TEST_CASE("statement: in the reference's dialect it is what the reference lists", "[bundle]") {
  for (const auto& [ours, theirs] : {std::pair{"spec-order", "files-sha256-p256"},
                                     std::pair{"spec-shards-int", "shards-1000-peer"}}) {
    INFO(theirs);
    const std::string text = write_statement(statement(ours), Dialect::Reference);
    const Statement a = parse_statement(text), b = statement(theirs);
    CHECK(a.root == b.root);
    CHECK(a.root != statement(ours).root);  // another order
    REQUIRE(a.resources.size() == b.resources.size());
    for (std::size_t i = 0; i < a.resources.size(); ++i) {
      CHECK(a.resources[i].path == b.resources[i].path);
      CHECK(a.resources[i].begin == b.resources[i].begin);
      CHECK(a.resources[i].end == b.resources[i].end);
      CHECK(a.resources[i].digest == b.resources[i].digest);
    }
    for (const std::string algorithm : {"sha256", "sha256-sharded-1000"})
      CHECK((text.find(R"("algorithm":")" + algorithm + '"') != text.npos) ==
            (bundle(theirs).payload.find(R"("algorithm": ")" + algorithm + '"') !=
             std::string::npos));
  }
}

TEST_CASE("statement: the reference's spellings are read", "[bundle]") {
  CHECK(statement("shards-1000-peer").shard_size == 1000);
  CHECK(statement("files-blake2").hash == HashType::Blake2b);
  CHECK(statement("shards-blake2").hash == HashType::Blake2b);
  CHECK(statement("single-dot").resources.at(0).path == ".");
  const Statement old = parse_statement(
      parse_bundle(slurp("model-transparency/v0.2.0-certificate/model.sig")).payload);
  CHECK(old.from_v02());
  CHECK(old.resources.size() == 2);
  CHECK(!statement("legacy-rawbytes").ignore_paths->empty());
}

TEST_CASE("statement: each golden fault is refused", "[bundle]") {
  for (const char* name :
       {"dup-resource", "path-traversal", "path-absolute", "root-mismatch", "no-subject",
        "two-subjects", "no-resources", "shard-gap", "shard-zero"}) {
    INFO(name);
    CHECK(fault_of([&] { statement(name); }).first == Fault::BadFile);
  }
  for (const char* name : {"bad-predicate-type", "bad-statement-type", "unknown-hash",
                           "unknown-method", "files-blake3"}) {
    INFO(name);
    CHECK(fault_of([&] { statement(name); }).first == Fault::Unsupported);
  }
  CHECK(fault_of([&] { statement("files-blake3"); }).second ==
        "unsupported hash algorithm 'blake3'");
}

TEST_CASE("statement: names that are not plain relative paths are refused", "[bundle]") {
  CHECK(fault_with({"a", "b/c", "a:1:2", "..a", "é"}, kFiles).second == "taken");
  for (const char* name :
       {"", "/a", "a/", "a//b", "./a", "a/.", "../a", "a/../b", "..", R"(a\\b)", R"(a\u0000b)"}) {
    INFO(name);
    CHECK(fault_with({name}, kFiles).first == Fault::BadFile);
  }
  CHECK(fault_with({"."}, kFiles).second == "taken");
  CHECK(fault_with({".", "a"}, kFiles).first == Fault::BadFile);
  CHECK(fault_with({"a", "b", "a"}, kFiles).second == "resource 'a' is listed twice");
}

TEST_CASE("statement: ranges must cover each file from its first byte on", "[bundle]") {
  CHECK(fault_with({"a:0:10", "a:10:20", "a:20:21", "b:0:1"}, kShards).second == "taken");
  CHECK(fault_with({"a:10:20", "a:0:10"}, kShards).second == "taken");  // in any order
  CHECK(fault_with({"x:y:0:10"}, kShards).second == "taken");           // colons in a name
  for (const auto& names : std::vector<std::vector<std::string>>{{"a:1:10"},
                                                                 {"a:0:10", "a:11:20"},
                                                                 {"a:0:10", "a:9:19"},
                                                                 {"a:0:10", "a:0:10"},
                                                                 {"a:0:9", "a:9:19"},
                                                                 {"a:0:11"},
                                                                 {"a:0:0"},
                                                                 {"a:5:3"},
                                                                 {"a"},
                                                                 {"a:0"},
                                                                 {":0:10"},
                                                                 {"a:00:10"},
                                                                 {"a:0:10 "},
                                                                 {"a:-1:9"},
                                                                 {"a:0:18446744073709551616"},
                                                                 {"../a:0:10"}}) {
    INFO(names[0]);
    CHECK(fault_with(names, kShards).first == Fault::BadFile);
  }
}

TEST_CASE("statement: what 'serialization' says must fit", "[bundle]") {
  const auto fault = [](const std::string& serialization) {
    return fault_with({"a"}, serialization).first;
  };
  CHECK(fault(kFiles) == Fault::Internal);
  CHECK(fault(replaced(kFiles, "}", R"(,"shard_size":10})")) == Fault::BadFile);
  CHECK(fault(replaced(kFiles, "}", R"(,"ignore_paths":["b"]})")) == Fault::Internal);
  CHECK(fault(replaced(kFiles, "}", R"(,"ignore_paths":["a"]})")) == Fault::BadFile);
  CHECK(fault(replaced(kFiles, "}", R"(,"ignore_paths":["."]})")) == Fault::BadFile);
  CHECK(fault(replaced(kFiles, "}", R"(,"ignore_paths":["../b"]})")) == Fault::BadFile);
  CHECK(fault(replaced(kFiles, R"(,"allow_symlinks":false)", "")) == Fault::BadFile);
  CHECK(fault(replaced(kFiles, "sha256", "sha512")) == Fault::Unsupported);
  CHECK(fault(replaced(kFiles, "sha256", "blake2b")) == Fault::BadFile);
  const auto shards = [](const std::string& size) {
    return fault_with({"a:0:10"}, replaced(kShards, ":10}", ":" + size + "}")).first;
  };
  CHECK(shards("10.0") == Fault::Internal);
  for (const char* size : {"0", "-10", "10.5", "1e1", "\"10\"", "null"}) {
    INFO(size);
    CHECK(shards(size) == Fault::BadFile);
  }
}

TEST_CASE("statement: fields of later versions are passed over, and named", "[bundle]") {
  CHECK(statement("unknown-resource-field").resources.size() > 1);
  const Statement s = statement("unknown-predicate-field");
  REQUIRE(s.ignored_fields.size() == 1);
  CHECK(s.ignored_fields[0].starts_with("predicate."));
}

}  // namespace wtool
