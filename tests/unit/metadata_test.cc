#include "lib/model/metadata.h"

#include <cmath>
#include <limits>

#include "lib/base/error.h"
#include "tests/catch.h"

using namespace wtool;

namespace {

MetaArray in_file(MetaType of, std::uint64_t count, Buffer bytes, bool big = false,
                  std::uint8_t length_bytes = 8) {
  const std::uint64_t size = bytes.size();
  return {of, count, {from_memory("m", std::move(bytes)), 0, size}, big, length_bytes};
}

}  // namespace

TEST_CASE("metadata keeps its order, replaces in place and forgets", "[metadata]") {
  Metadata m;
  m.append("b", std::string("1"));
  m.append("a", std::uint32_t{2});
  m.set("b", true);
  m.set("c", -1.5);
  std::string keys;
  for (const MetaEntry& e : m) keys += e.key + "=" + to_text(e.value) + " ";
  CHECK(keys == "b=true a=2 c=-1.5 ");
  CHECK(m.erase("a"));
  CHECK_FALSE(m.erase("a"));
  CHECK(m.find("a") == nullptr);
  CHECK(m.size() == 2);
}

TEST_CASE("count() takes any integer that is not negative, and nothing else", "[metadata]") {
  Metadata m;
  m.append("u64", std::numeric_limits<std::uint64_t>::max());
  m.append("i8", std::int8_t{5});
  m.append("minus", std::int32_t{-1});
  m.append("bool", true);
  m.append("text", std::string("7"));
  m.append("f", 7.0f);
  CHECK(m.count("u64") == std::numeric_limits<std::uint64_t>::max());
  CHECK(m.count("i8") == 5);
  for (const char* key : {"minus", "bool", "text", "f", "absent"}) CHECK_FALSE(m.count(key));
  CHECK(m.text("text") == "7");
  CHECK(m.text("f").empty());
}

TEST_CASE("type names are the corpus's, both ways", "[metadata]") {
  const std::vector<std::string_view> names{"u8",   "i8",  "u16", "i16", "u32", "i32", "f32",
                                            "bool", "str", "arr", "u64", "i64", "f64"};
  for (std::uint8_t i = 0; i < kMetaTypes; ++i) {
    CHECK(name_of(static_cast<MetaType>(i)) == names[i]);
    CHECK(parse_meta_type(names[i]) == static_cast<MetaType>(i));
  }
  CHECK_FALSE(parse_meta_type("f16"));
}

TEST_CASE("an array is decoded in both byte orders and both string lengths", "[metadata]") {
  const auto bytes = [](std::initializer_list<int> values) {
    Buffer b;
    for (const int v : values) b.push_back(static_cast<std::byte>(v));
    return b;
  };
  CHECK(to_text(in_file(MetaType::U16, 2, bytes({1, 0, 0, 2}))) == "[1, 512]");
  CHECK(to_text(in_file(MetaType::U16, 2, bytes({1, 0, 0, 2}), true)) == "[256, 2]");
  CHECK(to_text(in_file(MetaType::String, 2, bytes({2, 0, 0, 0, 'h', 'i', 0, 0, 0, 0}), false,
                        4)) == "[hi, ]");
  CHECK(to_text(in_file(MetaType::String, 1, bytes({0, 0, 0, 0, 0, 0, 0, 1, 'x'}), true)) == "[x]");
  CHECK(to_text(in_file(MetaType::Bool, 2, bytes({0, 1}))) == "[false, true]");
  CHECK(to_text(in_file(MetaType::I8, 1, bytes({255}))) == "[-1]");
  CHECK(to_text(in_file(MetaType::F32, 1, bytes({0x3F, 0xC0, 0, 0}), true)) == "[1.5]");
}

TEST_CASE("an array made in memory reads back, whatever its size", "[metadata]") {
  std::vector<MetaValue> words;
  for (int i = 0; i < 70'000; ++i)
    words.push_back(std::string(static_cast<std::size_t>(i % 11), 'x'));
  const MetaArray a = array_of(MetaType::String, words);
  CHECK(a.count == words.size());
  std::size_t i = 0;
  for_each(a, [&](const MetaValue& v) {
    if (std::get<std::string>(v) != std::get<std::string>(words[i])) return false;
    ++i;
    return true;
  });
  CHECK(i == words.size());
  CHECK_THROWS_AS(array_of(MetaType::U8, words), Error);
}

TEST_CASE("text shows as many elements as asked and floats that read back", "[metadata]") {
  std::vector<MetaValue> numbers;
  for (std::uint32_t i = 0; i < 10; ++i) numbers.push_back(i);
  CHECK(to_text(array_of(MetaType::U32, numbers), 3) == "[0, 1, 2, …]");
  CHECK(to_text(array_of(MetaType::U32, {}), 3) == "[]");
  CHECK(to_text(MetaValue(0.1f)) == "0.1");
  CHECK(to_text(MetaValue(1e-5)) == "1e-05");
  CHECK(to_text(MetaValue(std::uint8_t{65})) == "65");
  CHECK(to_text(MetaValue(std::nan(""))) == "nan");
}
