#include "cli/json.h"

#include <limits>

#include "tests/catch.h"

using namespace wtool;

namespace {

template <class F>
std::string json(F&& write) {
  std::string text;
  {
    JsonWriter w([&text](std::string_view s) { text += s; });
    write(w);
  }
  return text;
}
std::string of(std::string_view s) {
  return json([s](JsonWriter& w) { w.value(s); });
}

}  // namespace

TEST_CASE("JSON text escapes quotes and control characters", "[json]") {
  CHECK(of("a\"b\\c") == "\"a\\\"b\\\\c\"\n");
  CHECK(of("\n\t\r") == "\"\\n\\t\\r\"\n");
  CHECK(of(std::string_view("\0\x1b\x7f", 3)) == "\"\\u0000\\u001b\\u007f\"\n");
  CHECK(of("\xC2\x9B") == "\"\\u009b\"\n");  // a control character of terminals beyond ASCII
  CHECK(of("é漢😀") == "\"é漢😀\"\n");
}

TEST_CASE("bytes that are not UTF-8 become U+FFFD, as Python's 'replace' does", "[json]") {
  CHECK(of("a\xFFz") == "\"a\xEF\xBF\xBDz\"\n");
  CHECK(of("\xE6\xBC") == "\"\xEF\xBF\xBD\"\n");              // cut off: one sign
  CHECK(of("\xC0\x80") == "\"\xEF\xBF\xBD\xEF\xBF\xBD\"\n");  // overlong: one a byte
  CHECK(of("\xED\xA0\x80") == "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"\n");  // a surrogate
}

TEST_CASE("a name that is not UTF-8 has its bytes beside it", "[json]") {
  CHECK(json([](JsonWriter& w) {
          w.begin_object();
          w.name_member("name", "a\xFF");
          w.end_object();
        }) == "{\"name\": \"a\xEF\xBF\xBD\", \"name_hex\": \"61ff\"}\n");
}

TEST_CASE("JSON numbers read back exactly, and what is no number is null", "[json]") {
  const auto number = [](double v) { return json([v](JsonWriter& w) { w.value(v); }); };
  CHECK(number(16) == "16.0\n");
  CHECK(number(0.1) == "0.1\n");
  CHECK(number(1e300) == "1e+300\n");
  CHECK(number(std::numeric_limits<double>::quiet_NaN()) == "null\n");
  CHECK(number(-std::numeric_limits<double>::infinity()) == "null\n");
  CHECK(json([](JsonWriter& w) { w.value(~std::uint64_t{0}); }) == "18446744073709551615\n");
}

TEST_CASE("metadata keeps its types; 64 bits are text", "[json]") {
  const auto typed = [](const MetaValue& v) {
    return json([&](JsonWriter& w) { w.value(v, true); });
  };
  CHECK(typed(std::uint64_t{1} << 63) ==
        "{\"type\": \"u64\", \"value\": \"9223372036854775808\"}\n");
  CHECK(typed(std::uint8_t{7}) == "{\"type\": \"u8\", \"value\": 7}\n");
  CHECK(typed(true) == "{\"type\": \"bool\", \"value\": true}\n");
  CHECK(typed(0.1f) == "{\"type\": \"f32\", \"value\": 0.1}\n");
  CHECK(typed(std::numeric_limits<float>::quiet_NaN()) ==
        "{\"type\": \"f32\", \"value\": \"NaN\"}\n");
  CHECK(typed(std::string("a\xFF")) == "{\"type\": \"str\", \"value\": {\"hex\": \"61ff\"}}\n");
  const std::vector<MetaValue> three{std::int32_t{1}, std::int32_t{-2}, std::int32_t{3}};
  CHECK(typed(array_of(MetaType::I32, three)) ==
        "{\"type\": \"arr\", \"of\": \"i32\", \"value\": [1, -2, 3]}\n");
  CHECK(json([](JsonWriter& w) { w.value(MetaValue(std::string("pt")), false); }) == "\"pt\"\n");
}

TEST_CASE("objects in an outer array stand on lines of their own", "[json]") {
  CHECK(json([](JsonWriter& w) {
          w.begin_object();
          w.member("n", 2);
          w.key("tensors");
          w.begin_array();
          for (int i = 0; i < 2; ++i) {
            w.begin_object();
            w.member("i", i);
            w.end_object();
          }
          w.end_array();
          w.end_object();
        }) == "{\"n\": 2, \"tensors\": [\n  {\"i\": 0},\n  {\"i\": 1}]}\n");
}
