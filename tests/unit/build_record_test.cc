#include "lib/trust/build_record.h"

#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "lib/trust/digest.h"
#include "lib/trust/json_text.h"
#include "tests/catch.h"

namespace wtool {
namespace {

using Json = nlohmann::json;

// testdata/documents was written from the standards, with digests of these words.
std::string expected(const std::string& name) {
  std::ifstream in(WTOOL_SOURCE_DIR "/testdata/documents/" + name, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}
BuildRecord::File file(std::string name, std::string_view content) {
  return {std::move(name), content.size(), sha256(as_bytes(content)).hex()};
}
// The digest over the digests of two contents.
std::string root_of(std::string_view a, std::string_view b) {
  Sha256Stream stream;
  stream.update(sha256(as_bytes(a)).bytes);
  stream.update(sha256(as_bytes(b)).bytes);
  return stream.finish().hex();
}

BuildRecord quantized_file() {
  BuildRecord r;
  r.operation = "quantize";
  r.version = "0.2.0";
  r.commit = "66e0d91";
  r.openssl = "3.0.19";
  r.recipe = R"({"scheme":"compressed-tensors","group":128})";
  r.sources = {file("m.safetensors", "source")};
  r.source_format = "safetensors";
  r.output = "m.int8.safetensors";
  r.files = {file("m.int8.safetensors", "output")};
  r.manifest = file("m.int8.safetensors.manifest.json", "manifest");
  r.signature = file("m.int8.safetensors.sig", "signature");
  r.format = "safetensors";
  r.architecture = "llama";
  r.license = "apache-2.0";
  r.model_name = "Small";
  r.parameters = 1000;
  r.tensors = 5;
  r.bytes = 1016;
  r.dtypes = {{"bf16", 2}, {"i8", 3}};
  r.scheme = "compressed-tensors";
  return r;
}

BuildRecord converted_folder() {
  BuildRecord r;
  r.operation = "convert";
  r.version = "0.2.0";
  r.sources = {{"arrays", 14, root_of("config", "part one"), 2},
               file("part \"two\" \xC3\xA9.gguf", "part two")};
  r.output = "m";
  r.folder = true;
  r.files = {file("m", "output"), file("sub/tokenizer.json", "tokenizer")};
  r.oms_root = root_of("output", "tokenizer");
  r.format = "npy";
  return r;
}

}  // namespace

TEST_CASE("build record: the provenance of a file is the in-toto statement of the standard",
          "[build_record]") {
  CHECK(write_provenance(quantized_file()) == expected("file.provenance.json"));
}

TEST_CASE("build record: the provenance of a folder has the folder and its files as subjects",
          "[build_record]") {
  CHECK(write_provenance(converted_folder()) == expected("folder.provenance.json"));
}

TEST_CASE("build record: the bill of a file is the CycloneDX document of the standard",
          "[build_record]") {
  CHECK(write_bom(quantized_file()) == expected("file.bom.json"));
}

TEST_CASE("build record: the bill of a folder has its files as components", "[build_record]") {
  CHECK(write_bom(converted_folder()) == expected("folder.bom.json"));
}

TEST_CASE("build record: what is not known is not in the documents", "[build_record]") {
  BuildRecord r;
  r.operation = "convert";
  r.output = "m.gguf";
  r.files = {file("m.gguf", "output")};
  const Json provenance = Json::parse(write_provenance(r));
  const Json& definition = provenance["predicate"]["buildDefinition"];
  CHECK(definition["externalParameters"] == Json::object());  // SLSA: required, even if empty
  CHECK_FALSE(definition.contains("internalParameters"));
  CHECK_FALSE(provenance["predicate"]["runDetails"].contains("byproducts"));
  const Json model = Json::parse(write_bom(r))["metadata"]["component"];
  for (const char* key : {"licenses", "pedigree", "externalReferences", "components", "version"})
    CHECK_FALSE(model.contains(key));
  CHECK_FALSE(model["modelCard"].contains("modelParameters"));
}

TEST_CASE("build record: a name that is not UTF-8 stands beside it in hexadecimal",
          "[build_record]") {
  BuildRecord r = quantized_file();
  r.sources[0].name = "a\xFF.gguf";
  const Json source =
      Json::parse(write_provenance(r))["predicate"]["buildDefinition"]["resolvedDependencies"][0];
  CHECK(source["name"] == "a\xEF\xBF\xBD.gguf");
  CHECK(source["annotations"]["wtool_nameHex"] == "61ff2e67677566");
  CHECK(Json::parse(write_bom(r)).is_object());
}

TEST_CASE("build record: a bill's references are relative, whatever a file is called",
          "[build_record]") {
  BuildRecord r = quantized_file();
  r.signature->name = "http://x?y #\xC3\xA9%.sig";
  const Json references = Json::parse(write_bom(r))["metadata"]["component"]["externalReferences"];
  CHECK(references[1]["url"] == "http%3A//x%3Fy%20%23%C3%A9%25.sig");
}

TEST_CASE("build record: another run has another serial number", "[build_record]") {
  const auto serial = [](const BuildRecord& r) {
    return Json::parse(write_bom(r))["serialNumber"].get<std::string>();
  };
  BuildRecord other = quantized_file();
  other.files[0] = file("m.int8.safetensors", "another output");
  CHECK(serial(quantized_file()) == serial(quantized_file()));
  CHECK(serial(quantized_file()) != serial(other));
}

TEST_CASE("build record: JSON texts are what their parts say", "[build_record]") {
  JsonText out(JsonText::Form::Compact);
  out.object([&] {
    out.member("a", std::uint64_t{18446744073709551615u});
    out.array("b", [&] {
      out.value("x\n\"\x01");
      out.object([] {});
      out.json("[1]");
    });
    out.object("c", [&] { out.known("left out", ""); });
  });
  CHECK(out.take() == R"({"a":18446744073709551615,"b":["x\n\"\u0001",{},[1]],"c":{}})");
}

}  // namespace wtool
