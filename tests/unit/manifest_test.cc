#include "lib/trust/manifest.h"

#include "cli/content.h"
#include "tests/catch.h"

namespace wtool {
namespace {

Sha256 digest(std::string_view of) {
  return sha256(as_bytes(of));
}

// Two models, of two files and of one, in no order.
Manifest sample() {
  Manifest m;
  m.files = {{"b.gguf", 7, digest("b")},
             {"m/2.safetensors", 4, digest("2")},
             {"m/1.safetensors", 24, digest("1")},
             {"m/config.json", 2, digest("{}")}};
  m.tensors = {{"y", "u8", {4}, 4, 1, digest("y"), {}},
               {"x", "f32", {2, 3}, 24, 2, digest("x"), {}},
               {"x", "i8", {7}, 7, 0, digest("X"), digest("content of X")}};
  m.models = {{"m", {1, 2}, 0, {}, digest("meta")}, {"b.gguf", {0}, 0, {}, digest("no meta")}};
  return m;
}

std::string text_of(const Manifest& m) {
  std::string out;
  write_manifest(m, [&](std::string_view piece) { out += piece; });
  return out;
}
std::string sealed() {
  Manifest m = sample();
  seal(m);
  return text_of(m);
}
std::string replaced(std::string text, std::string_view what, std::string_view by) {
  const auto at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), by);
}
// The fault and its text; Internal if there is none.
std::pair<Fault, std::string> fault_of(const std::string& text) {
  try {
    parse_manifest(text);
  } catch (const Error& e) {
    return {e.fault(), e.text()};
  }
  return {Fault::Internal, "taken"};
}

// As wtool wrote them before there were models.
const std::string kOld =
    R"({"schema": "wtool.manifest/1", "ok": true, "files": [{"file": "a", "bytes": 1, "sha256": ")" +
    std::string(64, '1') + R"("}, {"file": "b", "bytes": 1, "sha256": ")" + std::string(64, '2') +
    R"("}], "tensors": [{"name": "t", "dtype": "u8", "shape": [1], "bytes": 1, "file": "a", "sha256": ")" +
    std::string(64, '3') + R"("}]})";

}  // namespace

TEST_CASE("manifest: files, models and tensors are sorted, and keep what belongs together",
          "[manifest]") {
  Manifest m = sample();
  seal(m);
  CHECK(m.files[0].name == "b.gguf");
  CHECK(m.files[1].name == "m/1.safetensors");
  CHECK(m.files[1].digest == digest("1"));
  CHECK(m.models[0].name == "b.gguf");
  CHECK(m.models[0].files == std::vector<std::uint32_t>{0});
  CHECK(m.models[1].files == std::vector<std::uint32_t>{1, 2});
  CHECK(m.models[1].tensors == 2);
  REQUIRE(m.tensors.size() == 3);
  CHECK((m.tensors[0].name == "x" && m.tensors[0].dtype == "i8" && m.tensors[0].file == 0));
  CHECK((m.tensors[1].name == "x" && m.tensors[1].file == 1));
  CHECK((m.tensors[2].name == "y" && m.tensors[2].file == 2));
  const Shape seven{7};
  const std::vector<ContentTensor> one{{"x", "i8", seven, digest("content of X")}};
  CHECK(m.models[0].content == content_root(one));
}

TEST_CASE("manifest: what is written is read back", "[manifest]") {
  const std::string text = sealed();
  const Manifest m = parse_manifest(text);
  CHECK(text_of(m) == text);
  CHECK(m.tensors[0].content == digest("content of X"));
  CHECK(m.tensors[1].content == digest("x"));  // not written twice
  CHECK(m.models[1].metadata == digest("meta"));
}

TEST_CASE("manifest: a name that is not UTF-8 comes back byte for byte", "[manifest]") {
  Manifest m;
  m.files = {{"\xff", 1, digest("f")}};
  m.tensors = {{"t\xfe", "u8", {1}, 1, 0, digest("t"), {}}};
  m.models = {{"\xff", {0}, 0, {}, {}}};
  seal(m);
  const Manifest back = parse_manifest(text_of(m));
  CHECK(back.files[0].name == "\xff");
  CHECK(back.tensors[0].name == "t\xfe");
  CHECK(back.models[0].name == "\xff");
}

TEST_CASE("manifest: one from before there were models is read", "[manifest]") {
  const Manifest m = parse_manifest(kOld);
  CHECK(m.files.size() == 2);
  CHECK(m.models.empty());
  REQUIRE(m.tensors.size() == 1);
  CHECK(m.tensors[0].stored.hex() == std::string(64, '3'));
  CHECK(!m.tensors[0].content);
  CHECK(parse_manifest(R"({"schema": "wtool.manifest/1", "new": {"a": []}, "files": []})")
            .files.empty());
}

TEST_CASE("manifest: a tensor that is not the one of the content digest is refused", "[manifest]") {
  const std::string good = sealed();
  CHECK(fault_of(good).second == "taken");
  for (const auto& [what, by] : std::vector<std::pair<std::string, std::string>>{
           {R"("name": "y")", R"("name": "z")"},
           {R"("dtype": "u8")", R"("dtype": "i8")"},
           {R"("shape": [2, 3])", R"("shape": [3, 2])"},
           {R"("shape": [2, 3])", R"("shape": [6])"},
           {digest("x").hex(), digest("other").hex()},
           {digest("content of X").hex(), digest("other").hex()},
           {R"("file": "m/2.safetensors", "sha256": ")" + digest("y").hex(),
            R"("file": "b.gguf", "sha256": ")" + digest("y").hex()},
           {R"("tensors": 2)", R"("tensors": 3)"}}) {
    CAPTURE(what);
    const auto [fault, text] = fault_of(replaced(good, what, by));
    CHECK(fault == Fault::BadFile);
    CHECK(text.find("model") != std::string::npos);
  }
}

TEST_CASE("manifest: what breaks the rules is refused and named", "[manifest]") {
  const std::string good = sealed();
  for (const auto& [what, by, says] : std::vector<std::array<std::string, 3>>{
           {R"("file": "b.gguf", "bytes")", R"("file": "../b.gguf", "bytes")", "leads out"},
           {R"("file": "b.gguf", "bytes")", R"("file": "m/1.safetensors", "bytes")",
            "listed twice"},
           {R"("model": "m")", R"("model": "../m")", "leads out"},
           {R"("name": "y")", R"("name": "x")", "lists tensor 'x' twice"},
           {R"("bytes": 24, "file")", R"("bytes": 25, "file")", "needs 24 bytes but 25"},
           {R"("shape": [2, 3])", R"("shape": [4294967296, 4294967296, 2])", "no size in bytes"},
           {R"("shape": [2, 3])", R"("shape": [2, 3.0])", "no whole number"},
           {R"("shape": [2, 3])", R"("shape": [2, -3])", "no whole number"},
           {R"("dtype": "u8")", R"("dtype": 8)", "'dtype' is a number"},
           {R"("dtype": "u8")", R"("dtype": "u8", "dtype": "u8")", "'dtype' twice"},
           {R"("dtype": "u8", )", "", "lacks 'dtype'"},
           {"content/1:", "content/2:", "no content digest"},
           {R"("sha256": ")", R"("sha256": "x)", "64 hexadecimal"},
           {R"([{"file": "b.gguf"}])", R"([{"file": "b"}])", "'b' is not listed"},
           {R"([{"file": "b.gguf"}])", R"([{"file": "m/1.safetensors"}])", "two models"},
           {R"([{"file": "b.gguf"}])", "[]", "in no model"},
           {R"("tensors": [)", R"("tensors": [[], )", "a tensor is an array"},
           {"}]}", "}]", ""}}) {
    CAPTURE(what, by);
    const auto [fault, text] = fault_of(replaced(good, what, by));
    CHECK(fault == Fault::BadFile);
    CHECK_THAT(text, Catch::Contains(says));
  }
  CHECK(fault_of(replaced(good, "manifest/1", "manifest/2")).first == Fault::Unsupported);
  CHECK(fault_of("").first == Fault::BadFile);
}

TEST_CASE("manifest: a file that is given twice is no manifest", "[manifest]") {
  Manifest m = sample();
  m.files[0].name = m.files[1].name;
  CHECK_THROWS_AS(seal(m), Error);
}

}  // namespace wtool
