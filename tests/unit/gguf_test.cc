#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "formats/registry.h"
#include "lib/base/text.h"
#include "lib/trust/digest.h"
#include "tests/catch.h"

namespace wtool {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

const std::string kFolder = WTOOL_SOURCE_DIR "/testdata/gguf/";

Buffer bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream all;
  all << in.rdbuf();
  return to_buffer(all.str());
}

Catalog read(const SourcePtr& source, Diagnostics& faults) {
  Catalog c;
  c.add_source(source);
  kGguf.read(source, c, faults);
  return c;
}
Catalog read(const SourcePtr& source) {
  Diagnostics faults;
  return read(source, faults);
}
Catalog read(const std::string& bytes) {
  return read(from_memory("m.gguf", to_buffer(bytes)));
}
std::string error_of(const std::string& bytes) {
  try {
    read(bytes);
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::BadFile);
    return e.what();
  }
  return "";
}
std::vector<std::string> rules_of(const std::string& bytes) {
  Diagnostics faults(Diagnostics::Mode::Collect);
  read(from_memory("m.gguf", to_buffer(bytes)), faults);
  std::vector<std::string> out;
  for (const Finding& f : faults.findings()) out.emplace_back(f.rule->id);
  return out;
}

// A GGUF file put together by hand, little-endian, version 3.
struct File {
  std::string bytes;
  template <class T>
  File& put(T v) {
    bytes.append(reinterpret_cast<const char*>(&v), sizeof v);
    return *this;
  }
  File& text(std::string_view s) {
    put(std::uint64_t{s.size()});
    bytes += s;
    return *this;
  }
  File(std::uint64_t tensors, std::uint64_t keys) {
    bytes = "GGUF";
    put(std::uint32_t{3}).put(tensors).put(keys);
  }
  File& key(std::string_view name, MetaType type) {
    return text(name).put(static_cast<std::uint32_t>(type));
  }
  File& tensor(std::string_view name, const std::vector<std::uint64_t>& dims, std::uint32_t type,
               std::uint64_t offset) {
    text(name).put(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t d : dims) put(d);
    return put(type).put(offset);
  }
  File& pad() {
    bytes.resize(align_up(bytes.size(), 32), '\0');
    return *this;
  }
  File& zeros(std::size_t n) {
    bytes.append(n, '\0');
    return *this;
  }
};

// A source that counts what is read from it.
class Counted final : public Source {
 public:
  explicit Counted(SourcePtr of) : of_(std::move(of)) {}
  const std::string& name() const noexcept override { return of_->name(); }
  std::uint64_t size() const noexcept override { return of_->size(); }
  void read(std::uint64_t offset, MutableBytes out) const override {
    bytes += out.size();
    of_->read(offset, out);
  }
  mutable std::uint64_t bytes = 0;

 private:
  SourcePtr of_;
};

// ---- the manifest

Json manifest() {
  std::ifstream in(kFolder + "manifest.json");
  REQUIRE(in);
  return Json::parse(in).at("files");
}

// The manifest writes integers beyond 2^53 as decimal strings, and floats that JSON has not by
// name.
template <class T>
bool same_number(T have, const Json& want) {
  if constexpr (std::is_floating_point_v<T>) {
    if (want == "NaN") return std::isnan(have);
    if (want == "Infinity") return std::isinf(have) && have > 0;
    if (want == "-Infinity") return std::isinf(have) && have < 0;
    const auto expected = static_cast<T>(want.get<double>());
    return have == expected && std::signbit(have) == std::signbit(expected);
  } else {
    return fmt::format("{}", static_cast<std::int64_t>(have)) ==
               (want.is_string() ? want.get<std::string>() : want.dump()) ||
           fmt::format("{}", static_cast<std::uint64_t>(have)) ==
               (want.is_string() ? want.get<std::string>() : want.dump());
  }
}

bool same(const MetaValue& have, const Json& want) {
  return std::visit(
      [&](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, MetaArray>) {
          return false;
        } else if constexpr (std::is_same_v<T, std::string>) {
          if (!want.is_object()) return want == x;
          std::string hex;
          for (const char c : x) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
          return want.at("hex") == hex;
        } else if constexpr (std::is_same_v<T, bool>) {
          return want == x;
        } else {
          return same_number(x, want);
        }
      },
      have);
}

void check_value(const std::string& key, const MetaValue& have, const Json& want) {
  INFO("key " << key);
  REQUIRE(name_of(type_of(have)) == want.at("type").get<std::string>());
  if (type_of(have) != MetaType::Array) {
    CHECK(same(have, want.at("value")));
    return;
  }
  const auto& array = std::get<MetaArray>(have);
  CHECK(name_of(array.of) == want.at("of").get<std::string>());
  REQUIRE(array.count == want.at("value").size());
  std::size_t i = 0;
  for_each(array, [&](const MetaValue& v) {
    INFO("element " << i);
    CHECK(type_of(v) == array.of);
    CHECK(same(v, want.at("value").at(i++)));
    return true;
  });
  CHECK(i == array.count);
}

void check_metadata(const Metadata& have, const Json& want) {
  REQUIRE(have.size() == want.size());
  auto it = have.begin();
  for (const auto& [key, value] : want.items()) {
    CHECK(it->key == key);
    check_value(it->key, it->value, value);
    ++it;
  }
}

void check_tensors(const Catalog& have, const Json& want, bool with_data = true) {
  REQUIRE(have.entries().size() == want.size());
  std::uint64_t begin = 0;  // of the data: where the tensor at offset 0 lies
  if (!want.empty()) begin = have.entries()[0].offset;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const TensorEntry& t = have.entries()[i];
    const Json& w = want[i];
    INFO("tensor " << i);
    CHECK(t.name == w.at("name").get<std::string>());
    CHECK(lower(w.at("dtype").get<std::string>()) == name_of(t.dtype));
    CHECK(Shape(t.shape.begin(), t.shape.end()) == w.at("shape").get<Shape>());
    CHECK(t.bytes == w.at("nbytes").get<std::uint64_t>());
    CHECK(t.offset - begin == w.at("offset").get<std::uint64_t>());
    if (with_data)
      CHECK(sha256(read_all(have.extent(t))).hex() == w.at("sha256").get<std::string>());
  }
}

std::vector<OutTensor> outputs_of(const Catalog& c) {
  std::vector<OutTensor> out;
  for (const TensorEntry& t : c.entries())
    out.push_back({std::string(t.name), t.dtype, {t.shape.begin(), t.shape.end()}, t.big_endian});
  return out;
}

// What a plan of plain copies would leave on disk.
Buffer written(const Catalog& c, const Metadata& meta) {
  const std::vector<OutTensor> tensors = outputs_of(c);
  const Layout l = kGguf.layout(meta, tensors);
  Buffer out(l.total_bytes);
  std::ranges::copy(l.head, out.begin());
  for (std::size_t i = 0; i < tensors.size(); ++i)
    std::ranges::copy(read_all(c.extent(c.entries()[i])),
                      out.begin() + static_cast<std::ptrdiff_t>(l.offsets[i]));
  return out;
}

}  // namespace

TEST_CASE("gguf: every file of the corpus gets its verdict, and the sound ones their contents",
          "[gguf]") {
  const Json files = manifest();
  CHECK(files.size() > 300);
  for (const Json& f : files) {
    const auto name = f.at("file").get<std::string>();
    const auto verdict = f.at("verdict").get<std::string>();
    if (fs::is_directory(kFolder + name)) continue;
    INFO(name << ": " << f.at("rule").get<std::string>());
    const SourcePtr source = open_file(kFolder + name);
    std::optional<Catalog> c;
    std::string why;
    if (kGguf.detect(*source)) {
      try {
        c = read(source);
      } catch (const Error& e) {
        why = e.what();
        CHECK(e.fault() == Fault::BadFile);
        CHECK(why.starts_with(kFolder + name + ": "));
      }
    }
    INFO(why);
    if (verdict == "accept") REQUIRE(c);
    // Scales that are not finite only show when the data is looked at.
    if (f.at("class") == "values")
      CHECK(c);
    else if (verdict == "reject")
      CHECK(!c);
    if (!c || !f.contains("tensors")) continue;
    check_tensors(*c, f.at("tensors"));
    if (f.contains("metadata")) check_metadata(c->meta, f.at("metadata"));
    for (const TensorEntry& t : c->entries()) CHECK(read_all(c->extent(t)).size() == t.bytes);
  }
}

TEST_CASE("gguf: no file of the corpus makes a reader that collects faults throw", "[gguf]") {
  for (const Json& f : manifest()) {
    const auto name = f.at("file").get<std::string>();
    if (fs::is_directory(kFolder + name)) continue;
    INFO(name);
    const SourcePtr source = open_file(kFolder + name);
    Diagnostics faults(Diagnostics::Mode::Collect);
    const Catalog c = read(source, faults);
    if (f.at("verdict") == "accept") CHECK(faults.findings().empty());
    if (f.at("verdict") == "reject" && f.at("class") != "values") CHECK(!faults.findings().empty());
    for (const Finding& found : faults.findings()) {
      CHECK(found.where.text().starts_with(source->name()));
      CHECK(found.offset <= source->size());
    }
    for (const TensorEntry& t : c.entries()) CHECK(read_all(c.extent(t)).size() == t.bytes);
  }
}

TEST_CASE("gguf: a file cut anywhere is refused or, without its last padding, whole", "[gguf]") {
  const Buffer whole = bytes_of(kFolder + "ok_kv_every_type_v2.gguf");
  const Buffer model = bytes_of(kFolder + "ok_four_dims.gguf");
  for (const Buffer& b : {whole, model})
    for (std::size_t n = 0; n < b.size(); ++n) {
      const std::string part(as_text(Bytes(b).first(n)));
      if (error_of(part).empty()) CHECK(b.size() - n < 32);
    }
}

TEST_CASE("gguf: writing what was read gives the same bytes", "[gguf]") {
  std::size_t tried = 0;
  for (const Json& f : manifest()) {
    const auto name = f.at("file").get<std::string>();
    if (f.at("verdict") != "accept" || fs::is_directory(kFolder + name)) continue;
    INFO(name);
    const Buffer bytes = bytes_of(kFolder + name);
    const Catalog c = read(from_memory("m.gguf", bytes));
    const bool big = !c.entries().empty() && c.entries()[0].big_endian;
    const bool version_3 = load<std::uint32_t>(Bytes(bytes).subspan(4)) == (big ? 0x03000000u : 3u);
    if (!version_3) continue;
    for (const OutTensor& t : outputs_of(c)) CHECK_FALSE(kGguf.refuses(t));
    CHECK_FALSE(kGguf.refuses_meta(c.meta));
    Buffer again = written(c, c.meta);
    if (c.entries().empty()) {  // nobody minds whether a file without data ends padded
      CHECK(again.size() % 32 == 0);
      REQUIRE(bytes.size() <= again.size());
      again.resize(bytes.size());
    }
    CHECK(again == bytes);
    ++tried;
  }
  CHECK(tried > 80);
}

TEST_CASE("gguf: version 1 and big-endian files are written as version 3, little-endian",
          "[gguf]") {
  for (const std::string name :
       {"ok_v1.gguf", "ok_v2.gguf", "ok_be_v3.gguf", "ok_arr_every_type_be.gguf"}) {
    INFO(name);
    const Catalog c = read(open_file(kFolder + name));
    std::vector<OutTensor> tensors = outputs_of(c);
    for (OutTensor& t : tensors) t.big_endian = false;
    const Layout l = kGguf.layout(c.meta, tensors);
    Buffer file = l.head;
    file.resize(l.total_bytes);
    CHECK(load<std::uint32_t>(Bytes(file).subspan(4)) == 3);
    const Catalog again = read(from_memory("again", file));
    for (const Json& f : manifest()) {
      if (f.at("file") != name) continue;
      check_metadata(again.meta, f.at("metadata"));
      check_tensors(again, f.at("tensors"), false);
    }
  }
}

TEST_CASE("gguf: metadata arrays follow the byte order of the tensors", "[gguf]") {
  Metadata meta;
  meta.set("n", std::uint16_t{0x0102});
  meta.set("l", array_of(MetaType::U16, std::vector<MetaValue>{std::uint16_t{0x0304}}));
  meta.set("s", array_of(MetaType::String, std::vector<MetaValue>{std::string("ab")}));
  const std::vector<OutTensor> tensors{{"t", DType::F32, {2}, true}};
  const Layout l = kGguf.layout(meta, tensors);
  std::string want = "GGUF";
  const auto add = [&](std::initializer_list<int> list) {
    for (const int b : list) want += static_cast<char>(b);
  };
  add({0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3});
  add({0, 0, 0, 0, 0, 0, 0, 1, 'n', 0, 0, 0, 2, 1, 2});
  add({0, 0, 0, 0, 0, 0, 0, 1, 'l', 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 3, 4});
  add({0, 0, 0, 0, 0, 0, 0, 1, 's', 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1});
  add({0, 0, 0, 0, 0, 0, 0, 2, 'a', 'b'});
  add({0, 0, 0, 0, 0, 0, 0, 1, 't', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0});
  add({0, 0, 0, 0, 0, 0, 0, 0});
  want.resize(align_up(want.size(), 32), '\0');
  CHECK(as_text(l.head) == want);
  CHECK(l.offsets == std::vector<std::uint64_t>{want.size()});
  CHECK(l.total_bytes == want.size() + 32);
}

TEST_CASE("gguf: shapes keep their outer dimensions of one", "[gguf]") {
  for (const Shape& shape : {Shape{1, 4}, Shape{1, 1, 1, 4}, Shape{4, 1}, Shape{}, Shape{1}}) {
    const std::vector<OutTensor> tensors{{"t", DType::F32, shape}};
    const Layout l = kGguf.layout({}, tensors);
    Buffer file = l.head;
    file.resize(l.total_bytes);
    const Catalog c = read(from_memory("m.gguf", file));
    REQUIRE(c.entries().size() == 1);
    CHECK(Shape(c.entries()[0].shape.begin(), c.entries()[0].shape.end()) == shape);
  }
}

TEST_CASE("gguf: data is padded to general.alignment, the last tensor too", "[gguf]") {
  Metadata meta;
  meta.set("general.alignment", std::uint32_t{4096});
  const std::vector<OutTensor> tensors{{"a", DType::F32, {3}}, {"b", DType::Q8_0, {2, 64}}};
  const Layout l = kGguf.layout(meta, tensors);
  CHECK(l.head.size() == 4096);
  CHECK(l.offsets == std::vector<std::uint64_t>{4096, 8192});
  CHECK(l.total_bytes == 12288);
}

TEST_CASE("gguf: what it cannot hold is refused with the numbers", "[gguf]") {
  const auto why = [](std::string name, DType type, Shape shape) {
    return kGguf.refuses({std::move(name), type, std::move(shape)}).value_or("");
  };
  using Catch::Matchers::Contains;
  CHECK(why("t", DType::F32, {2, 3}).empty());
  CHECK(why(std::string(63, 'x'), DType::F32, {2}).empty());
  CHECK(why(std::string(64, 'x'), DType::F32, {2}) ==
        "GGUF names have at most 63 bytes, this one has 64");
  CHECK(why("", DType::F32, {2}) == "GGUF has no empty names");
  CHECK_THAT(why(std::string("a\0b", 3), DType::F32, {2}), Contains("zero byte"));
  CHECK_THAT(why("a\xff", DType::F32, {2}), Contains("UTF-8"));
  CHECK(why("t", DType::F32, {1, 1, 1, 1, 2}) ==
        "GGUF tensors have at most 4 dimensions, [1, 1, 1, 1, 2] has 5");
  CHECK_THAT(why("t", DType::F32, {0, 2}), Contains("dimension of 0"));
  CHECK(why("t", DType::Q8_0, {2, 33}) ==
        "a row of 33 elements is not a multiple of the block of 32 in q8_0");
  CHECK_THAT(why("t", DType::Q4_K, {}), Contains("row of 1 elements"));
  for (const DType none : {DType::Bool, DType::U8, DType::U16, DType::U32, DType::U64, DType::C64,
                           DType::F8_E4M3, DType::F8_E5M2, DType::F8_E8M0, DType::F4, DType::V2})
    CHECK_THAT(why("t", none, {256}), Contains("has no type for"));
}

TEST_CASE("gguf: metadata it cannot hold is refused with the reason", "[gguf]") {
  const auto why = [](std::string key, MetaValue v) {
    Metadata meta;
    meta.set(key, std::move(v));
    return kGguf.refuses_meta(meta).value_or("");
  };
  using Catch::Matchers::Contains;
  CHECK(why("a", std::string("b")).empty());
  CHECK(why(std::string(65535, 'k'), true).empty());
  CHECK_THAT(why(std::string(65536, 'k'), true), Contains("65535") && Contains("65536"));
  CHECK_THAT(why("", true), Contains("empty"));
  CHECK_THAT(why(std::string("a\0", 2), true), Contains("zero byte"));
  CHECK(why("general.alignment", std::uint32_t{64}).empty());
  CHECK(why("general.alignment", std::string("64")) ==
        "key 'general.alignment': is 64 of type str, not u32");
  CHECK_THAT(why("general.alignment", std::uint32_t{48}), Contains("power of two"));
}

TEST_CASE("gguf: removed types are named", "[gguf]") {
  const auto text = [](std::uint32_t type) {
    return error_of(File(1, 0).tensor("t", {256}, type, 0).pad().zeros(1024).bytes);
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(text(4), Contains("Q4_2"));
  CHECK_THAT(text(5), Contains("Q4_3"));
  CHECK(text(31) == "m.gguf: tensor 't': type 31 (Q4_0_4_4) was removed from ggml");
  CHECK_THAT(text(32), Contains("Q4_0_4_8"));
  CHECK_THAT(text(33), Contains("Q4_0_8_8"));
  CHECK_THAT(text(36), Contains("IQ4_NL_4_4"));
  CHECK_THAT(text(37), Contains("IQ4_NL_4_8"));
  CHECK_THAT(text(38), Contains("IQ4_NL_8_8"));
  CHECK(text(43) == "m.gguf: tensor 't': type 43 is unknown, the last known one is 42");
}

TEST_CASE("gguf: faults are named with both numbers", "[gguf]") {
  using Catch::Matchers::Contains;
  CHECK(error_of(File(1, 0).tensor("t", {8}, 0, 0).pad().zeros(20).bytes) ==
        "m.gguf: the tensors end at byte 96 but the file at 84: 12 bytes are missing");
  CHECK(
      error_of(File(2, 0).tensor("a", {8}, 0, 0).tensor("b", {8}, 0, 64).pad().zeros(128).bytes) ==
      "m.gguf: tensor 'b': its offset is 64, but the tensors before it end at 32 (padded to 32)");
  CHECK(error_of(
            File(0, 2).key("k", MetaType::U8).put('\1').key("k", MetaType::U8).put('\1').bytes) ==
        "m.gguf: key 'k': the key appears twice");
  CHECK(error_of(File(1, 0).tensor("t", {31}, 8, 0).pad().zeros(64).bytes) ==
        "m.gguf: tensor 't': q8_0 [31]: a row of 31 elements is not a multiple of the block of 32");
  CHECK_THAT(error_of(File(0, 1).text("key").put(std::uint16_t{4}).bytes),
             Contains("the file ends inside its type: 4 bytes wanted at 35, 2 left"));
  CHECK_THAT(error_of(File(1u << 30, 0).bytes),
             Contains("1073741824 tensors") && Contains("0 are left"));
}

TEST_CASE("gguf: a reader that collects faults goes on after them", "[gguf]") {
  const std::string bytes = File(4, 2)
                                .key("a", MetaType::Bool)
                                .put('\2')
                                .key("a", MetaType::U8)
                                .put('\1')
                                .tensor("ok", {8}, 0, 0)
                                .tensor("gone", {8}, 4, 32)
                                .tensor("after", {8}, 0, 64)
                                .tensor(std::string(64, 'n'), {8}, 0, 96)
                                .pad()
                                .zeros(128)
                                .bytes;
  CHECK(rules_of(bytes) ==
        std::vector<std::string>{"gguf.bool", "gguf.kv-duplicate", "gguf.type", "gguf.name"});
  Diagnostics faults(Diagnostics::Mode::Collect);
  const Catalog c = read(from_memory("m.gguf", to_buffer(bytes)), faults);
  REQUIRE(c.entries().size() == 2);
  CHECK(c.entries()[1].name == "after");
  CHECK(faults.findings()[0].offset == 37);
  CHECK(c.meta.size() == 1);
}

TEST_CASE("gguf: what llama.cpp accepts can be forgiven", "[gguf]") {
  Diagnostics lenient(Diagnostics::Mode::Lenient);
  const std::string bytes =
      File(1, 1).key("b", MetaType::Bool).put('\2').tensor("", {8}, 0, 0).pad().zeros(32).bytes +
      "tail";
  const Catalog c = read(from_memory("m.gguf", to_buffer(bytes)), lenient);
  CHECK(std::get<bool>(*c.meta.find("b")));
  CHECK(c.entries().size() == 1);
  REQUIRE(lenient.findings().size() == 3);
  CHECK(lenient.findings()[2].rule->id == "gguf.trailing");
  CHECK_THROWS_AS(
      read(from_memory("m.gguf", to_buffer(File(0, 1).key("", MetaType::U8).put('\1').bytes)),
           lenient),
      Error);
}

TEST_CASE("gguf: a key or a string array of hostile length asks for no memory", "[gguf]") {
  using Catch::Matchers::Contains;
  CHECK_THAT(error_of(File(0, 1).put(~std::uint64_t{0}).zeros(16).bytes),
             Contains("file ends after 16"));
  File array(0, 1);
  array.key("k", MetaType::Array).put(std::uint32_t{8}).put(std::uint64_t{1} << 29);
  CHECK_THAT(error_of(array.zeros(64).bytes), Contains("536870912 elements"));
}

TEST_CASE("gguf: keys of the longest length are read, longer ones refused", "[gguf]") {
  CHECK(read(File(0, 1).key(std::string(65535, 'k'), MetaType::U8).put('\1').bytes).meta.size() ==
        1);
  CHECK(rules_of(File(0, 1).key(std::string(65536, 'k'), MetaType::U8).put('\1').bytes) ==
        std::vector<std::string>{"gguf.key-text"});
}

TEST_CASE("gguf: a header of 100,000 keys and as many tensors is read whole", "[gguf]") {
  // Whatever looked at each pair of them would meet the test's time limit.
  constexpr std::uint64_t kMany = 100'000;
  File f(kMany, kMany);
  for (std::uint64_t i = 0; i < kMany; ++i) f.key(fmt::format("k{}", i), MetaType::U8).put('\1');
  for (std::uint64_t i = 0; i < kMany; ++i) f.tensor(fmt::format("t{}", i), {8}, 0, 32 * i);
  f.pad().zeros(32 * kMany);
  const Catalog c = read(f.bytes);
  CHECK(c.meta.size() == kMany);
  CHECK(c.entries().size() == kMany);
}

TEST_CASE("gguf: a vocabulary is walked once and data is not read", "[gguf]") {
  constexpr std::uint64_t kTokens = 256'000;
  File f(1, 2);
  f.key("tokens", MetaType::Array).put(std::uint32_t{8}).put(kTokens);
  for (std::uint64_t i = 0; i < kTokens; ++i) f.text(fmt::format("token{}", i));
  f.key("scores", MetaType::Array).put(std::uint32_t{6}).put(kTokens).zeros(4 * kTokens);
  f.tensor("t", {1024, 4096}, 0, 0).pad();
  const std::uint64_t header = f.bytes.size();
  f.zeros(4u << 22);
  const auto source = std::make_shared<const Counted>(from_memory("m.gguf", to_buffer(f.bytes)));
  Catalog c;
  c.add_source(source);
  Diagnostics faults;
  kGguf.read(source, c, faults);
  CHECK(source->bytes <= header + (1u << 20));
  const auto& tokens = std::get<MetaArray>(*c.meta.find("tokens"));
  CHECK(tokens.count == kTokens);
  std::string last;
  for_each(tokens, [&](const MetaValue& v) {
    last = std::get<std::string>(v);
    return true;
  });
  CHECK(last == "token255999");
}

TEST_CASE("gguf: each part of a set says where in it it is", "[gguf]") {
  const auto part = [](std::uint16_t no, std::uint16_t count) {
    Metadata m;
    m.set("split.no", no);
    m.set("split.count", count);
    return m;
  };
  const std::vector<std::string> three{"d/m-00001-of-00003.gguf", "d/m-00002-of-00003.gguf",
                                       "d/m-00003-of-00003.gguf"};
  for (std::uint16_t i = 0; i < 3; ++i) {
    CHECK(kGguf.place(part(i, 3), three[i]) == SetPlace{"d/m", i, 3});
    CHECK(kGguf.shard_name("d/m", i, 3) == three[i]);
  }
  CHECK_FALSE(kGguf.place({}, "d/m.gguf"));
  CHECK_FALSE(kGguf.place({}, "m-00001-of-00001.gguf"));
  CHECK(kGguf.place(part(0, 1), "m-00001-of-00001.gguf") == SetPlace{"m", 0, 1});
  CHECK(kGguf.place(part(0, 1), "m.gguf") == SetPlace{"", 0, 1});

  const auto error = [&](const Metadata& m, std::string_view path) -> std::string {
    try {
      kGguf.place(m, path);
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::BadFile);
      return e.what();
    }
    return "";
  };
  CHECK(error(part(0, 3), three[1]) ==
        "d/m-00002-of-00003.gguf: its name says part 2 of 3, its "
        "keys say part 1 of 3");
  CHECK(error(part(0, 4), three[0]) ==
        "d/m-00001-of-00003.gguf: its name says part 1 of 3, its "
        "keys say part 1 of 4");
  CHECK(error(part(1, 3), "m.gguf") ==
        "m.gguf: is part 2 of 3 by its keys, but its name does not "
        "end in '-00002-of-00003.gguf'");
  CHECK(error({}, three[1]) ==
        "d/m-00002-of-00003.gguf: its name says part 2 of 3, but it has no "
        "keys split.no and split.count");
}

TEST_CASE("gguf: the parts of a set become one catalog without part keys", "[gguf]") {
  for (const Json& f : manifest()) {
    const auto name = f.at("file").get<std::string>();
    if (!fs::is_directory(kFolder + name)) continue;
    INFO(name);
    const std::string first =
        kFolder + name +
        (name == "split_ok_three" ? "/m-00001-of-00003.gguf" : "/m-00001-of-00004.gguf");
    Diagnostics faults;
    Catalog whole;
    const auto place = kGguf.place(read(open_file(first)).meta, first);
    REQUIRE(place);
    for (std::size_t i = 0; i < place->count; ++i) {
      const std::string path = kGguf.shard_name(place->stem, i, place->count);
      Catalog c = read(open_file(path));
      CHECK(kGguf.place(c.meta, path) == SetPlace{place->stem, i, place->count});
      whole.absorb(std::move(c), faults);
    }
    std::string fault;
    const Metadata meta = kGguf.whole_meta(whole.meta, whole.entries().size(), fault);
    CHECK(fault.empty());
    CHECK_FALSE(meta.find("split.no"));
    CHECK_FALSE(meta.find("split.count"));
    CHECK_FALSE(meta.find("split.tensors.count"));
    CHECK(meta.size() + 3 == whole.meta.size());
    REQUIRE(whole.entries().size() == f.at("tensors").size());
    for (std::size_t i = 0; i < whole.entries().size(); ++i)
      CHECK(whole.entries()[i].name == f.at("tensors")[i].at("name").get<std::string>());
  }
}

TEST_CASE("gguf: a set whose parts hold another number of tensors is refused", "[gguf]") {
  Metadata first;
  first.set("split.tensors.count", std::int32_t{2});
  std::string fault;
  kGguf.whole_meta(first, 2, fault);
  CHECK(fault.empty());
  kGguf.whole_meta(first, 1, fault);
  CHECK(fault == "split.tensors.count is 2 but the parts hold 1 tensors");
}

TEST_CASE("gguf: the error about a set's number of tensors names its first file", "[gguf]") {
  const std::string path =
      (fs::temp_directory_path() / fmt::format("wtool-gguf-{}-00001-of-00001.gguf", ::getpid()))
          .string();
  File f(1, 3);
  f.key("split.no", MetaType::U16).put(std::uint16_t{0});
  f.key("split.count", MetaType::U16).put(std::uint16_t{1});
  f.key("split.tensors.count", MetaType::I32).put(2);
  f.tensor("t", {8}, 0, 0).pad().zeros(32);
  std::ofstream(path, std::ios::binary) << f.bytes;
  Diagnostics faults;
  CHECK_THROWS_WITH(open_model(path, all_formats(), {}, faults),
                    path + ": split.tensors.count is 2 but the parts hold 1 tensors");
  fs::remove(path);
}

TEST_CASE("gguf: parts carry the keys that llama.cpp asks for", "[gguf]") {
  Metadata meta;
  meta.set("general.name", std::string("x"));
  meta.set("general.alignment", std::uint32_t{64});
  CHECK(kGguf.shard_name("m", 1, 3) == "m-00002-of-00003.gguf");
  const Metadata first = kGguf.shard_meta(meta, 0, 3, 10),
                 second = kGguf.shard_meta(meta, 1, 3, 10);
  CHECK(first.size() == 5);
  CHECK(first.text("general.name") == "x");
  CHECK(std::get<std::uint16_t>(*first.find("split.no")) == 0);
  CHECK(second.size() == 4);
  CHECK(std::get<std::uint32_t>(*second.find("general.alignment")) == 64);
  CHECK(std::get<std::uint16_t>(*second.find("split.no")) == 1);
  CHECK(std::get<std::uint16_t>(*second.find("split.count")) == 3);
  CHECK(std::get<std::int32_t>(*second.find("split.tensors.count")) == 10);
  CHECK_THROWS_AS(kGguf.shard_meta(meta, 0, 65536, 65536), Error);
}

}  // namespace wtool
