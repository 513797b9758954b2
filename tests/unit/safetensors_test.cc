#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/metadata_json.h"
#include "formats/registry.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"
#include "tests/catch.h"

using namespace wtool;

namespace {

using Json = nlohmann::ordered_json;
using Mode = Diagnostics::Mode;

SourcePtr memory(std::string_view bytes, std::string name = "t.safetensors") {
  return from_memory(std::move(name), to_buffer(bytes));
}

// The file that has `header` and so many bytes of data.
std::string file_of(std::string_view header, std::size_t data) {
  std::string out(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(header.size() >> 8 * i & 0xFF);
  return out.append(header).append(data, 'x');
}

Catalog read(const SourcePtr& source, Diagnostics& faults) {
  Catalog catalog;
  catalog.add_source(source);
  kSafetensors.read(source, catalog, faults);
  catalog.finish(faults);
  return catalog;
}
Catalog read(std::string_view file) {
  Diagnostics faults;
  return read(memory(file), faults);
}

struct Refusal {
  std::string what, hint;
};
// What a normal run says; empty if the file is taken.
Refusal refusal(std::string_view file) {
  try {
    read(file);
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::BadFile);
    return {e.what(), e.hint()};
  }
  return {};
}

// The ids and places of all faults that `check` would list.
using Breach = std::pair<std::string, std::uint64_t>;
std::vector<Breach> findings(std::string_view file, std::vector<std::string>* texts = nullptr) {
  Diagnostics faults(Mode::Collect);
  read(memory(file), faults);
  std::vector<Breach> out;
  for (const Finding& f : faults.findings()) {
    out.emplace_back(f.rule->id, f.offset);
    if (texts) texts->push_back(f.where.text() + ": " + f.text);
  }
  return out;
}

std::string bytes_of(const std::string& path) {
  return std::string(as_text(read_all({open_file(path), 0, open_file(path)->size()})));
}

std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                  std::uint64_t begin, std::uint64_t end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name, dtype,
                     shape, begin, end);
}

// A file written by layout(), with bytes that tell where they lie.
std::string written(const Metadata& meta, const std::vector<OutTensor>& tensors) {
  const Layout layout = kSafetensors.layout(meta, tensors);
  std::string out(as_text(layout.head));
  while (out.size() < layout.total_bytes) out += static_cast<char>(out.size() * 7);
  return out;
}

const std::string kFolder = WTOOL_SOURCE_DIR "/testdata/safetensors/";

Json corpus() {
  return Json::parse(bytes_of(kFolder + "manifest.json")).at("files");
}

// Where readers differ, ours refuses what is ambiguous and takes what is merely unusual.
const std::set<std::string> kTaken{
    "ok_bool_nonbinary", "ok_dims_many",          "ok_dim_huge_with_zero_first",
    "ok_name_empty",     "ok_name_control_chars", "ok_name_bidi",
    "json_leading_ws",   "json_trailing_tab_nl",  "ovf_zero_last"};
const std::set<std::string> kRefused{
    "json_deep_closed_500", "meta_null",        "meta_duplicate_inner",
    "entry_as_array",       "dtype_object",     "entry_unknown_member",
    "dup_name_same_entry",  "dup_name_escaped", "dup_name_same_range_other_dtype",
    "dup_name_bad_first"};

void check_catalog(const Json& expected, const Catalog& catalog, std::uint64_t data_at) {
  if (!expected.contains("tensors")) return;  // some that we take by our own choice
  const Json& tensors = expected["tensors"];
  REQUIRE(catalog.entries().size() == tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorEntry& t = catalog.entries()[i];
    CHECK(t.name == tensors[i]["name"].get<std::string>());
    CHECK(std::string(name_of(t.dtype)) == lower(tensors[i]["dtype"].get<std::string>()));
    CHECK(Shape(t.shape.begin(), t.shape.end()) == tensors[i]["shape"].get<Shape>());
    CHECK(t.bytes == tensors[i]["nbytes"].get<std::uint64_t>());
    CHECK(t.offset - data_at == tensors[i]["offset"].get<std::uint64_t>());
    CHECK(catalog.find(t.name) == &t);
  }
  if (!expected.contains("metadata")) return;
  CHECK(catalog.meta.size() == expected["metadata"].size());
  for (const auto& [key, value] : expected["metadata"].items())
    CHECK(catalog.meta.text(key) == value.get<std::string>());
}

}  // namespace

// --- the corpus ---

TEST_CASE("safetensors: every file of the corpus gets its verdict and its catalog",
          "[safetensors]") {
  std::size_t files = 0;
  for (const Json& expected : corpus()) {
    const std::string file = expected["file"];
    const std::string name = file.substr(0, file.rfind(".safetensors"));
    INFO(file << ": " << expected["rule"]);
    const std::string bytes = bytes_of(kFolder + file);
    REQUIRE(bytes.size() == expected["size"].get<std::size_t>());
    ++files;
    const std::string verdict = expected["verdict"];
    const bool taken = verdict == "accept" || kTaken.contains(name);
    CHECK((verdict != "either" || kTaken.contains(name) != kRefused.contains(name)));

    Diagnostics faults;
    if (taken) {
      const Catalog catalog = read(memory(bytes), faults);
      const std::uint64_t data_at = 8 + load<std::uint64_t>(as_bytes(bytes));
      check_catalog(expected, catalog, data_at);
      CHECK(catalog.format == "safetensors");
    } else {
      const Refusal r = refusal(bytes);
      CHECK_FALSE(r.what.empty());
      CHECK(r.what.find("t.safetensors") == 0);
    }
  }
  CHECK(files == 211);
}

TEST_CASE("safetensors: what the corpus refuses is also found when all faults are collected",
          "[safetensors]") {
  for (const Json& expected : corpus()) {
    const std::string file = expected["file"];
    const std::string name = file.substr(0, file.rfind(".safetensors"));
    INFO(file);
    const bool taken = expected["verdict"] == "accept" || kTaken.contains(name);
    CHECK(findings(bytes_of(kFolder + file)).empty() == taken);
  }
}

TEST_CASE("safetensors: damaged files are recognised as safetensors, other files are not",
          "[safetensors]") {
  for (const Json& expected : corpus()) {
    const std::string file = expected["file"];
    INFO(file);
    const bool other = file.starts_with("wrong_") || file == "len_empty_file.safetensors";
    CHECK(kSafetensors.detect(*memory(bytes_of(kFolder + file))) == !other);
  }
  CHECK_FALSE(kSafetensors.detect(*memory(std::string(4096, '\0'))));
  CHECK_FALSE(kSafetensors.detect(*memory(R"({"a": [{"b": 1}], "weight_map": {}})")));
  CHECK_FALSE(kSafetensors.detect(*memory("callback{\"a\": 1}")));
  CHECK_FALSE(kSafetensors.detect(*memory("abc")));
}

TEST_CASE("safetensors: a lenient reader takes what the reference takes", "[safetensors]") {
  const std::map<std::string, std::string> forgiven{
      {"meta_null", "safetensors.metadata-null"},
      {"meta_duplicate_inner", "safetensors.metadata-duplicate"},
      {"entry_unknown_member", "safetensors.unknown-member"},
      {"dup_name_same_entry", "tensor.duplicate-name"},
      {"dup_name_escaped", "tensor.duplicate-name"},
      {"dup_name_same_range_other_dtype", "tensor.duplicate-name"}};
  for (const auto& [name, rule] : forgiven) {
    INFO(name);
    Diagnostics faults(Mode::Lenient);
    const Catalog catalog = read(memory(bytes_of(kFolder + name + ".safetensors")), faults);
    CHECK(catalog.entries().size() == 1);
    REQUIRE(faults.findings().size() == 1);
    CHECK(faults.findings()[0].rule->id == rule);
  }
}

// --- what each rule says ---

TEST_CASE("safetensors: a file cut short says by how much", "[safetensors]") {
  const std::string whole = file_of(
      "{" + entry("a", "F32", "[4]", 0, 16) + "," + entry("b", "F32", "[4]", 16, 32) + "}", 32);
  const std::size_t data_at = whole.size() - 32;
  Refusal r = refusal(whole.substr(0, data_at + 20));
  CHECK(r.what ==
        "t.safetensors: is 12 bytes short: the header describes 32 bytes of data, the file has 20 "
        "(1 of 2 tensors reach past its end)");
  CHECK(r.hint == "a download cut short? fetch the file again");
  r = refusal(whole.substr(0, 30));
  CHECK(r.what ==
        fmt::format("t.safetensors: is at least {} bytes short: the header takes {} bytes "
                    "after the first 8, the file has 22",
                    data_at - 30, data_at - 8));
  CHECK(refusal(whole.substr(0, 7)).what ==
        "t.safetensors: has 7 bytes, but the header's length alone takes 8");
  CHECK(refusal("").what == "t.safetensors: has 0 bytes, but the header's length alone takes 8");
}

TEST_CASE("safetensors: a length that cannot be names the limit and the likely reason",
          "[safetensors]") {
  const auto with_length = [](std::uint64_t n) {
    std::string file = file_of("{}      ", 8);
    std::memcpy(file.data(), &n, 8);
    return refusal(file);
  };
  CHECK(with_length(100'000'001).what ==
        "t.safetensors: header length 100000001 is above the format's limit of 100000000 bytes");
  CHECK(with_length(8).what.find("8 bytes that belong to no tensor") != std::string::npos);
  CHECK(with_length(std::uint64_t{8} << 56).hint ==
        "read as big-endian it would be 8: the format is little-endian");
  CHECK(with_length(~std::uint64_t{0}).what.find("18446744073709551615") != std::string::npos);
  CHECK(with_length(0).what == "t.safetensors: header length 0 is below the 2 bytes of '{}'");
  CHECK(with_length(100'000'000).what.find("is at least 99999984 bytes short") !=
        std::string::npos);
}

TEST_CASE("safetensors: each rule has its id and the position of its breach", "[safetensors]") {
  struct Case {
    std::string header;
    std::size_t data;
    std::vector<Breach> expected;
  };
  const std::string a = entry("a", "F32", "[1]", 0, 4);
  const std::vector<Case> cases{
      {"{" + a + "}", 4, {}},
      {"{" + a, 4, {{"safetensors.json", 8 + 1 + a.size()}}},
      {"{\"\xff\"", 4, {{"safetensors.json", 10}}},
      {"[]", 0, {{"safetensors.json", 8}}},
      {"{" + a + "}x", 4, {{"safetensors.json", 8 + 2 + a.size()}}},
      {R"({"a":7})", 0, {{"safetensors.entry", 9}}},
      {R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, {{"safetensors.entry", 9}}},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4,
       {{"safetensors.entry", 9}}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":[{}]}})",
       4,
       {{"safetensors.unknown-member", 9}}},
      {"{" + entry("a", "float32", "[1]", 0, 4) + "}", 4, {{"safetensors.dtype", 9}}},
      {"{" + entry("a", "F32", "[-1]", 0, 4) + "}", 4, {{"safetensors.shape", 9}}},
      {"{" + entry("a", "F32", "[1]", 4, 0) + "}", 4, {{"safetensors.offsets", 9}}},
      {"{" + a + "," + entry("b", "F32", "[1]", 0, 4) + "}",
       4,
       {{"safetensors.overlap", 8 + 2 + a.size()}}},
      {"{" + a + "," + entry("b", "F32", "[1]", 8, 12) + "}",
       12,
       {{"safetensors.hole", 8 + 2 + a.size()}}},
      {"{" + a + "}", 6, {{"safetensors.trailing", 8 + 2 + a.size() + 4}}},
      {"{" + a + "}", 3, {{"safetensors.truncated", 8 + 2 + a.size() + 3}}},
      {"{" + entry("a", "F32", "[2]", 0, 4) + "}", 4, {{"tensor.size", 9}}},
      {"{" + entry("a", "F32", "[2]", 0, 4) + "}",
       2,
       {{"tensor.size", 9}, {"safetensors.truncated", 8 + 2 + a.size() + 2}}},
      {R"({"__metadata__":[]})", 0, {{"safetensors.metadata", 24}}},
      {R"({"__metadata__":{"k":1}})", 0, {{"safetensors.metadata", 25}}},
      {R"({"__metadata__":null})", 0, {{"safetensors.metadata-null", 24}}},
      {R"({"__metadata__":{"k":"1","\u006b":"2"}})", 0, {{"safetensors.metadata-duplicate", 33}}},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, {{"safetensors.metadata", 42}}},
      {R"({"__metadata__":{"wtool.gguf_metadata":"[[1]]"}})",
       0,
       {{"safetensors.gguf-metadata", 47}}},
  };
  for (const Case& c : cases) {
    INFO(c.header);
    std::vector<std::string> texts;
    const auto found = findings(file_of(c.header, c.data), &texts);
    CHECK(found == c.expected);
    // A normal run ends at the first of them and says the same.
    const std::string what = refusal(file_of(c.header, c.data)).what;
    CHECK(what == (texts.empty() ? "" : texts[0]));
  }
}

TEST_CASE("safetensors: collecting goes on past faulty entries and keeps the sound ones",
          "[safetensors]") {
  const std::string header =
      "{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("b", "F33", "[1]", 4, 8) + "," +
      entry("c", "F32", "[1.5]", 8, 12) + "," + entry("d", "F32", "[1]", 12, 16) + "}";
  Diagnostics faults(Mode::Collect);
  const Catalog catalog = read(memory(file_of(header, 16)), faults);
  CHECK(faults.findings().size() == 2);
  REQUIRE(catalog.entries().size() == 2);
  CHECK(catalog.entries()[1].name == "d");
}

TEST_CASE("safetensors: messages name the tensor, both numbers and the way out", "[safetensors]") {
  const auto of = [](std::string_view e, std::size_t data = 64) {
    return refusal(file_of("{" + std::string(e) + "}", data));
  };
  CHECK(of(entry("y", "BF16", "[4,8]", 0, 60), 60).what ==
        "t.safetensors: tensor 'y': bf16 [4, 8] needs 64 bytes but the header gives 60");
  CHECK(of(entry("y", "float32", "[16]", 0, 64)).what ==
        "t.safetensors: tensor 'y': unknown dtype 'float32'");
  CHECK(of(entry("y", "float32", "[16]", 0, 64)).hint == "did you mean 'F32'?");
  CHECK(of(entry("y", "F32", "[-1]", 0, 64)).what ==
        "t.safetensors: tensor 'y': shape holds '-1': a dimension is an unsigned 64-bit integer");
  CHECK(
      of(entry("y", "F32", "[18446744073709551616]", 0, 64)).what.find("'18446744073709551616'") !=
      std::string::npos);
  CHECK(of(entry("y", "F32", "{}", 0, 64)).what ==
        "t.safetensors: tensor 'y': shape must be an array of integers, not an object");
  CHECK(
      of(entry("y\\u001b", "F32", "[8]", 32, 64)).what ==
      "t.safetensors: tensor 'y\\x1b': data_offsets [32, 64] leave a hole: the 32 bytes from 0 on "
      "belong to no tensor");
  CHECK(of(entry("a", "F32", "[8]", 0, 32) + "," + entry("b", "F32", "[8]", 16, 48)).what ==
        "t.safetensors: tensor 'b': data_offsets [16, 48] begin inside 'a', which has [0, 32]");
  CHECK(of(entry("a", "F32", "[8]", 0, 32) + "," + entry("a", "F32", "[8]", 32, 64)).what ==
        "t.safetensors: tensor 'a': name appears twice");
  CHECK(of(entry("a", "F32", "[01]", 0, 4)).what ==
        "t.safetensors: header: JSON fault at byte 37: expected a number without leading zeros, "
        "found '0'");
}

TEST_CASE("safetensors: entries come in the order of their data, whatever the header's",
          "[safetensors]") {
  const std::string header = "{" + entry("c", "F32", "[1]", 8, 12) + "," +
                             entry("z", "F32", "[0]", 8, 8) + "," + entry("b", "F32", "[1]", 4, 8) +
                             "," + entry("a", "F32", "[1]", 0, 4) + "}";
  const Catalog catalog = read(file_of(header, 12));
  std::string names;
  for (const TensorEntry& t : catalog.entries()) names += t.name;
  CHECK(names == "abzc");
}

TEST_CASE("safetensors: a hostile header is stopped early and in little memory", "[safetensors]") {
  // A million names on one range end at the second entry, so what follows may be anything.
  const std::string same =
      "{" + entry("a", "U8", "[4]", 0, 4) + "," + entry("b", "U8", "[4]", 0, 4) + ",oops";
  CHECK(refusal(file_of(same, 4)).what ==
        "t.safetensors: tensor 'b': data_offsets [0, 4] begin inside 'a', which has [0, 4]");

  std::string dims = "[1";
  for (int i = 0; i < 256; ++i) dims += ",1";
  CHECK(refusal(file_of("{" + entry("a", "U8", dims + "]", 0, 1) + "}", 1)).what ==
        "t.safetensors: tensor 'a': shape has 257 dimensions, but wtool takes at most 256");

  std::string many = "{";
  for (int i = 0; i < 5000; ++i) many += fmt::format("\"{}\":7,", i);
  many.back() = '}';
  CHECK(findings(file_of(many, 0)).size() == Diagnostics::kMostOfARule);
}

// --- writing ---

TEST_CASE("safetensors: the header is byte for byte the reference writer's", "[safetensors]") {
  // Expected bytes: serialize() in the reference's own tests (tensor.rs).
  const std::vector<OutTensor> one{{"attn.0", DType::F32, {1, 2, 3}, false}};
  CHECK(as_text(kSafetensors.layout({}, one).head) ==
        std::string_view("\x40\0\0\0\0\0\0\0{\"attn.0\":{\"dtype\":\"F32\",\"shape\":[1,2,3],"
                         "\"data_offsets\":[0,24]}} ",
                         72));
  const std::vector<OutTensor> f4{{"attn.0", DType::F4, {1, 2}, false}};
  CHECK(as_text(kSafetensors.layout({}, f4).head) ==
        std::string_view("\x40\0\0\0\0\0\0\0{\"attn.0\":{\"dtype\":\"F4\",\"shape\":[1,2],"
                         "\"data_offsets\":[0,1]}}    ",
                         72));
  CHECK(as_text(kSafetensors.layout({}, {}).head) ==
        std::string_view("\x08\0\0\0\0\0\0\0{}      ", 16));
  Metadata meta;
  meta.append("format", std::string("pt"));
  CHECK(as_text(kSafetensors.layout(meta, {}).head) ==
        std::string_view("\x20\0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\"}}", 40));
}

TEST_CASE("safetensors: names and metadata are escaped no more than needed", "[safetensors]") {
  Metadata meta;
  meta.append("k\"", std::string("a\\\n\t\x01\x7f/\u00fc\U0001F600", 13));
  const Layout layout =
      kSafetensors.layout(meta, std::vector<OutTensor>{{"\b\f\r\x1f", DType::U8, {}, false}});
  const std::string_view head = as_text(layout.head).substr(8);
  CHECK(head.substr(0, head.find_last_of('}') + 1) ==
        "{\"__metadata__\":{\"k\\\"\":\"a\\\\\\n\\t\\u0001\x7f/\u00fc\U0001F600\"},"
        "\"\\b\\f\\r\\u001f\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}");
}

TEST_CASE("safetensors: what was written reads back, for every dtype", "[safetensors]") {
  std::vector<OutTensor> tensors{{"", DType::U8, {3}, false}};
  std::size_t stored = 0;
  for (const DTypeInfo& type : all_dtypes()) {
    const OutTensor t{std::string(type.name) + "\n\"\u00e9\"", type.id, {2, 4}, false};
    if (kSafetensors.refuses(t)) continue;
    ++stored;
    tensors.push_back(t);
    tensors.push_back({std::string(type.name) + ".empty", type.id, {4, 0, 7}, false});
  }
  CHECK(stored == 22);  // the reference's list
  Metadata meta;
  meta.append("zeta", std::string("first"));
  meta.append("", std::string());
  meta.append("alpha", std::string("nul\0inside", 10));

  const std::string file = written(meta, tensors);
  CHECK(kSafetensors.detect(*memory(file)));
  const Catalog catalog = read(file);
  const Layout layout = kSafetensors.layout(meta, tensors);
  REQUIRE(catalog.entries().size() == tensors.size());
  CHECK(layout.head.size() % 8 == 0);
  std::vector<OutTensor> again;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorEntry& t = catalog.entries()[i];
    INFO(tensors[i].name);
    CHECK(t.name == tensors[i].name);
    CHECK(t.dtype == tensors[i].dtype);
    CHECK(Shape(t.shape.begin(), t.shape.end()) == tensors[i].shape);
    CHECK(t.bytes == tensors[i].bytes());
    CHECK(t.offset == layout.offsets[i]);
    again.push_back({std::string(t.name), t.dtype, Shape(t.shape.begin(), t.shape.end()), false});
  }
  CHECK(written(catalog.meta, again) == file);
}

TEST_CASE("safetensors: what the format cannot hold is refused with the reason", "[safetensors]") {
  const auto why = [](std::string name, DType type, Shape shape, bool big = false) {
    return kSafetensors.refuses({std::move(name), type, std::move(shape), big}).value_or("");
  };
  CHECK(why("a", DType::F32, {2}).empty());
  CHECK(why("a", DType::Q8_0, {32}) == "safetensors has no dtype q8_0");
  CHECK(why("a", DType::C128, {1}) == "safetensors has no dtype c128");
  CHECK(why("a", DType::V2, {1}) == "safetensors has no dtype v2");
  CHECK(why("a", DType::F4, {3}) == "f4 [3]: 3 elements are no whole number of bytes");
  CHECK(why("a", DType::F6_E2M3, {2}) == "f6_e2m3 [2]: 2 elements are no whole number of bytes");
  CHECK(why("a", DType::F64, {1ull << 61}) ==
        "f64 [2305843009213693952] needs more than 2^64 bytes");
  CHECK(why("__metadata__", DType::F32, {1}) == "safetensors keeps this name for its metadata");
  CHECK(why("\xff", DType::F32, {1}) == "safetensors names are UTF-8");
  CHECK(why("a", DType::F32, {1}, true) == "safetensors is little-endian");
}

TEST_CASE("safetensors: a header over the limit is refused before anything is written",
          "[safetensors]") {
  Metadata meta;
  meta.append("k", std::string(100'000'000, 'x'));
  try {
    kSafetensors.layout(meta, {});
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::Usage);
    CHECK(std::string(e.what()) ==
          "the header would take 100000032 bytes, the format's limit is 100000000");
  }
}

// --- metadata that is more than strings ---

namespace {

MetaValue array(MetaType of, std::vector<MetaValue> values) {
  return array_of(of, values);
}

// Bit for bit: NaN equals itself only with the same payload.
bool same(const MetaValue& a, const MetaValue& b) {
  if (a.index() != b.index()) return false;
  if (const auto* x = std::get_if<MetaArray>(&a)) {
    const auto& y = std::get<MetaArray>(b);
    return x->of == y.of && x->count == y.count && read_all(x->data) == read_all(y.data);
  }
  if (const auto* x = std::get_if<float>(&a))
    return std::bit_cast<std::uint32_t>(*x) == std::bit_cast<std::uint32_t>(std::get<float>(b));
  if (const auto* x = std::get_if<double>(&a))
    return std::bit_cast<std::uint64_t>(*x) == std::bit_cast<std::uint64_t>(std::get<double>(b));
  return std::visit(
      [&](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, MetaArray>)
          return false;
        else
          return x == std::get<T>(b);
      },
      a);
}

template <class T>
std::vector<MetaValue> extremes() {
  using L = std::numeric_limits<T>;
  std::vector<MetaValue> out{L::min(), L::max(), L::lowest(), T(0), T(1)};
  if constexpr (std::is_floating_point_v<T>) {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    for (const T x : {T(-0.0), T(0.1), L::denorm_min(), L::infinity(), -L::infinity(),
                      L::quiet_NaN(), -L::quiet_NaN(), T(1) / T(3)})
      out.push_back(x);
    out.push_back(std::bit_cast<T>(static_cast<Bits>(std::bit_cast<Bits>(L::infinity()) + 77)));
  }
  return out;
}

Metadata every_type() {
  Metadata m;
  m.append("general.name", std::string("first"));
  std::size_t n = 0;
  const auto add = [&](const std::vector<MetaValue>& values) {
    for (const MetaValue& v : values) m.append(fmt::format("scalar.{}", n++), v);
    m.append(fmt::format("array.{}", n++), array(type_of(values[0]), values));
    m.append(fmt::format("array.{}", n++), array(type_of(values[0]), {}));
  };
  add(extremes<std::uint8_t>());
  add(extremes<std::int8_t>());
  add(extremes<std::uint16_t>());
  add(extremes<std::int16_t>());
  add(extremes<std::uint32_t>());
  add(extremes<std::int32_t>());
  add(extremes<std::uint64_t>());
  add(extremes<std::int64_t>());
  add(extremes<float>());
  add(extremes<double>());
  add({true, false});
  add({std::string("a\"\n\0", 4), std::string("\xff\x00\xc3", 3), std::string("\u00e9"),
       std::string()});
  m.append("plain.last", std::string("{\"json\": [1]}"));
  m.append("\xfe key", std::string("value"));
  m.append("wtool.gguf_metadata", std::string("a key of the user's"));
  return m;
}

}  // namespace

TEST_CASE("safetensors: metadata of every type comes back to the bit and in order",
          "[safetensors]") {
  const Metadata meta = every_type();
  const std::string file = written(meta, {{"t", DType::F32, {2}, false}});
  const Catalog catalog = read(file);
  REQUIRE(catalog.meta.size() == meta.size());
  auto got = catalog.meta.begin();
  for (const MetaEntry& e : meta) {
    INFO(e.key << " " << to_text(e.value));
    CHECK(got->key == e.key);
    CHECK(same(got->value, e.value));
    ++got;
  }
  CHECK(written(catalog.meta, {{"t", DType::F32, {2}, false}}) == file);
}

TEST_CASE("safetensors: strings stay plain keys beside the typed values", "[safetensors]") {
  Metadata meta;
  meta.append("general.name", std::string("tiny"));
  meta.append("llama.block_count", std::uint32_t{32});
  meta.append("big", std::uint64_t{1} << 63);
  meta.append("nan", std::bit_cast<float>(0x7fc00001u));
  meta.append("scores", array(MetaType::F32, {0.5f, -1e30f}));
  const Layout layout = kSafetensors.layout(meta, {});
  const Json header = Json::parse(as_text(layout.head).substr(8));
  const Json& stored = header.at("__metadata__");
  CHECK(stored.size() == 2);
  CHECK(stored.at("general.name") == "tiny");
  CHECK(stored.at("wtool.gguf_metadata") ==
        R"([["general.name","str"],["llama.block_count","u32",32],)"
        R"(["big","u64","9223372036854775808"],["nan","f32","0x7fc00001"],)"
        R"(["scores","arr","f32",[0.5,-1e+30]]])");
}

TEST_CASE("safetensors: typed metadata follows what other tools did to the strings",
          "[safetensors]") {
  const auto read_meta = [](std::string_view members) {
    Json header;
    header["__metadata__"] = Json::parse(members);
    std::string text;
    for (const MetaEntry& e : read(file_of(header.dump(), 0)).meta)
      text += e.key + "=" + to_text(e.value) + ";";
    return text;
  };
  const std::string typed =
      R"("wtool.gguf_metadata":"[[\"a\",\"str\"],[\"n\",\"u8\",7],[\"b\",\"str\"]]")";
  CHECK(read_meta(R"({"b":"2","a":"1",)" + typed + "}") == "a=1;n=7;b=2;");
  CHECK(read_meta(R"({"b":"2",)" + typed + "}") == "n=7;b=2;");
  CHECK(read_meta("{" + typed + R"(,"new":"3","a":"1","b":"2"})") == "a=1;n=7;b=2;new=3;");
}

TEST_CASE("safetensors: typed metadata that is not as we write it is refused", "[safetensors]") {
  for (const std::string typed : {R"({})",
                                  R"([["a"]])",
                                  R"([["a","u8"]])",
                                  R"([["a","u8",256]])",
                                  R"([["a","u8",-1]])",
                                  R"([["a","u8",1.0]])",
                                  R"([["a","u8","1"]])",
                                  R"([["a","u64",1]])",
                                  R"([["a","u64","18446744073709551616"]])",
                                  R"([["a","f32","0x7fc0000"]])",
                                  R"([["a","f32","0x3f800000"]])",
                                  R"([["a","f32",1e99]])",
                                  R"([["a","f32","nan"]])",
                                  R"([["a","bool",1]])",
                                  R"([["a","str",{"hex":"0"}]])",
                                  R"([["a","str",{"hex":"0g"}]])",
                                  R"([["a","str",{"hex":"00","x":1}]])",
                                  R"([["a","arr","u8"]])",
                                  R"([["a","arr","arr",[]]])",
                                  R"([["a","arr","u8",[1],2]])",
                                  R"([["a","u8",1,2]])",
                                  R"([["a","u8",1],["a","u8",1]])",
                                  R"([["plain","u8",1]])",
                                  R"([["a","q8",1]])",
                                  R"([]x)"}) {
    INFO(typed);
    Json header;
    header["__metadata__"] = {{"plain", "kept"}, {"wtool.gguf_metadata", typed}};
    const std::string file = file_of(header.dump(), 0);
    CHECK(refusal(file).what.starts_with(
        "t.safetensors: metadata 'wtool.gguf_metadata': is not as wtool writes it: "));
    Diagnostics faults(Mode::Lenient);
    const Catalog catalog = read(memory(file), faults);
    REQUIRE(catalog.meta.size() == 1);
    CHECK(catalog.meta.text("plain") == "kept");
  }
}

// --- sets ---

TEST_CASE("safetensors: shards have the usual names and an index as transformers writes it",
          "[safetensors]") {
  CHECK(kSafetensors.shard_name("model", 0, 3) == "model-00001-of-00003.safetensors");
  CHECK(kSafetensors.shard_name("model", 0, 1) == "model.safetensors");
  CHECK(kSafetensors.suffixes[0] == ".safetensors");
  std::vector<OutFile> files(2);
  files[0].name = "model-00001-of-00002.safetensors";
  files[0].tensors = 2;
  files[1].name = "model-00002-of-00002.safetensors";
  files[1].tensors = 1;
  const std::vector<OutTensor> tensors{
      {"b", DType::F32, {2}, false}, {"c\"", DType::F16, {3}, false}, {"a", DType::U8, {1}, false}};
  const auto index = kSafetensors.index("model", files, tensors);
  REQUIRE(index);
  CHECK(index->name == "model.safetensors.index.json");
  CHECK(as_text(read_all({index->content, 0, index->content->size()})) ==
        "{\n  \"metadata\": {\n    \"total_size\": 15\n  },\n  \"weight_map\": {\n"
        "    \"a\": \"model-00002-of-00002.safetensors\",\n"
        "    \"b\": \"model-00001-of-00002.safetensors\",\n"
        "    \"c\\\"\": \"model-00001-of-00002.safetensors\"\n  }\n}\n");
  CHECK(kSafetensors.detect_index(*index->content));
  Diagnostics faults;
  const ShardIndex read = kSafetensors.read_index(index->content, faults);
  CHECK(read.total_bytes == 15);
  REQUIRE(read.lines.size() == 3);
  CHECK(read.lines[2].tensor == "c\"");
  CHECK(read.lines[2].file == files[0].name);
}

TEST_CASE("safetensors: an index is refused for what would mislead", "[safetensors]") {
  const auto said = [](std::string_view text) -> std::string {
    Diagnostics faults;
    try {
      kSafetensors.read_index(memory(text, "i.json"), faults);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(said(R"({"weight_map": {"a": "x.safetensors"}})").empty());
  CHECK(said(R"({"metadata": {"total_size": 4, "x": null}, "weight_map": {}, "y": []})").empty());
  CHECK(said(R"({"metadata": null, "weight_map": {}})").empty());
  CHECK(said(R"({"weight_map": {"a": "x", "b": "x", "a": "y"}})") ==
        "i.json: tensor 'a': is mapped twice, to 'x' and 'y'");
  CHECK(said(R"({"weight_map": {"a": {"file": "x"}}})") ==
        "i.json: tensor 'a': must be mapped to a file name, not to an object");
  CHECK(said(R"({"weight_map": ["a"]})") ==
        "i.json: 'weight_map' must be a map from tensors to files, not an array");
  CHECK(said(R"({"metadata": {}})") == "i.json: has no 'weight_map'");
  CHECK(said(R"({"weight_map": {}, "weight_map": {}})") == "i.json: 'weight_map' appears twice");
  CHECK(said(R"({"weight_map": {"a": "x"})") ==
        "i.json: the JSON text ends at byte 25: expected ',' or '}'");
  CHECK(said(R"({"metadata": {"total_size": 1.5}, "weight_map": {}})") ==
        "i.json: total_size is no unsigned 64-bit integer");
  for (const std::string path : {"../x", "/x", "%2e%2e/x", "a/../../x", "C:\\\\x"})
    CHECK(said(R"({"weight_map": {"a": ")" + path + "\"}}")
              .starts_with("i.json: tensor 'a': is mapped to"));
}

TEST_CASE("safetensors: only an object with a weight map is an index", "[safetensors]") {
  const auto detect = [](std::string_view text) {
    return kSafetensors.detect_index(*memory(text));
  };
  CHECK(detect(" {\n \"weight_map\": {"));
  CHECK_FALSE(detect(""));
  CHECK_FALSE(detect("{}"));
  CHECK_FALSE(detect(R"({"model_type": "llama"})"));
  CHECK_FALSE(detect(R"(["weight_map"])"));
  CHECK_FALSE(detect(file_of(R"({"__metadata__":{"weight_map":"x"}})", 0)));
}

// --- the JSON reader ---

namespace {

// What the reader thinks of a text: "" or the fault.
std::string json_fault(std::string text) {
  try {
    JsonReader in(text);
    in.skip();
    in.finish();
  } catch (const JsonFault& f) {
    CHECK(f.at <= text.size());
    return f.text();
  }
  return "";
}

std::string json_string(std::string text) {
  JsonReader in(text);
  return std::string(in.string());
}

}  // namespace

TEST_CASE("json reader: takes exactly what RFC 8259 allows", "[safetensors]") {
  for (const char* good :
       {"{}", "[]", " [ ] ", "\t\r\n{ \"a\" : [ 1 , -0 , 0.5 , 1e9 , 1E-07 , -12.5e+3 ] } ", "null",
        "true", "false", "\"\"", R"(["a","A","b",{}])", R"({"":{"":[[],[{}]]}})", "0", "-0.0",
        "[1,2]"}) {
    INFO(good);
    CHECK(json_fault(good) == "");
  }
  for (const char* bad : {"",
                          " ",
                          "{",
                          "}",
                          "[",
                          "]",
                          "[1,]",
                          "[,1]",
                          "[1 2]",
                          "{,}",
                          "{1:2}",
                          "{\"a\"}",
                          "{\"a\":}",
                          "{\"a\":1,}",
                          "{\"a\" 1}",
                          "{\"a\":1 \"b\":2}",
                          "01",
                          "-",
                          "+1",
                          "1.",
                          ".5",
                          "1e",
                          "1e+",
                          "-01",
                          "0x1",
                          "NaN",
                          "Infinity",
                          "nul",
                          "truth",
                          "[1}",
                          "{\"a\":1]",
                          "'a'",
                          "\"",
                          "\"\\",
                          "\"\\x\"",
                          "\"\\u12\"",
                          "\"\\u12g4\"",
                          "\"\n\"",
                          "\"\x01\"",
                          "1 2",
                          "// a\n1",
                          "\xef\xbb\xbf{}",
                          "\"\xff\"",
                          "\"\xc0\x80\"",
                          "\"\xed\xa0\x80\"",
                          "\f1",
                          "00",
                          "1\v"}) {
    INFO(bad);
    CHECK(json_fault(bad) != "");
  }
  CHECK(json_fault(std::string("[1,\0]", 5)) != "");
  CHECK(json_fault("[1, }") == "JSON fault at byte 4: expected a value, found '}'");
  CHECK(json_fault("[\"a") ==
        "the JSON text ends at byte 3: expected the end of the string from "
        "byte 2");
}

TEST_CASE("json reader: depth is bounded without recursion", "[safetensors]") {
  const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  CHECK(json_fault(nested(128)) == "");
  CHECK(json_fault(nested(129)) == "JSON nested more than 128 levels deep at byte 128");
  CHECK(json_fault(std::string(1'000'000, '[')) ==
        "JSON nested more than 128 levels deep at byte 128");
}

TEST_CASE("json reader: escapes and surrogate pairs are resolved", "[safetensors]") {
  CHECK(json_string(R"("\"\\\/\b\f\n\r\t")") == "\"\\/\b\f\n\r\t");
  CHECK(json_string(R"("aé\u00e9\u20AC\ud83d\uDE00z")") == "a\u00e9\u00e9\u20ac\U0001F600z");
  CHECK(json_string(R"("\u0000x")") == std::string("\0x", 2));
  CHECK(json_string(R"("12345678\n12345678\t1")") == "12345678\n12345678\t1");
  CHECK(json_string("\"\\u007f\\u0080\\u07ff\\u0800\\uffff\\ud800\\udc00\\udbff\\udfff\"") ==
        "\x7f\u0080\u07ff\u0800\uffff\U00010000\U0010FFFF");
  for (const char* lone : {R"("\ud800")", R"("\udc00")", R"("\ud800\u0041")", R"("\ud800x")",
                           R"("\ud800\ud800")", R"("\ud800\n")"})
    CHECK(json_fault(lone) != "");
}

TEST_CASE("json reader: plain unsigned integers only", "[safetensors]") {
  const auto take = [](std::string text) -> std::optional<std::uint64_t> {
    JsonReader in(text);
    std::uint64_t value = 0;
    if (!in.unsigned_integer(value)) return std::nullopt;
    in.finish();
    return value;
  };
  CHECK(take("0") == 0);
  CHECK(take(" 18446744073709551615 ") == 18446744073709551615u);
  for (const char* other :
       {"18446744073709551616", "99999999999999999999999", "1.0", "1e0", "-0", "-1", "0.0", "0e1"})
    CHECK(take(other) == std::nullopt);
  for (const char* bad : {"01", "+1", "00", "x", ""}) CHECK_THROWS_AS(take(bad), JsonFault);
}
