#include <algorithm>
#include <cstdint>

#include "lib/base/arena.h"
#include "lib/base/dtype.h"
#include "lib/base/error.h"
#include "lib/base/hex.h"
#include "lib/base/listing.h"
#include "lib/base/scratch.h"
#include "lib/base/text.h"
#include "tests/catch.h"

using namespace wtool;

TEST_CASE("block sizes are those of ggml and of the safetensors reference", "[base]") {
  struct Case {
    const char* name;
    unsigned elems, bytes;
  };
  // ggml's type table (ggml.c) and safetensors' bit widths (tensor.rs).
  for (const Case& c :
       {Case{"f32", 1, 4},        Case{"f16", 1, 2},        Case{"bf16", 1, 2},
        Case{"f64", 1, 8},        Case{"i8", 1, 1},         Case{"i16", 1, 2},
        Case{"i32", 1, 4},        Case{"i64", 1, 8},        Case{"bool", 1, 1},
        Case{"c64", 1, 8},        Case{"c128", 1, 16},      Case{"f8_e4m3", 1, 1},
        Case{"f8_e8m0", 1, 1},    Case{"f6_e2m3", 4, 3},    Case{"f6_e3m2", 4, 3},
        Case{"f4", 2, 1},         Case{"q4_0", 32, 18},     Case{"q4_1", 32, 20},
        Case{"q5_0", 32, 22},     Case{"q5_1", 32, 24},     Case{"q8_0", 32, 34},
        Case{"q8_1", 32, 36},     Case{"q2_k", 256, 84},    Case{"q3_k", 256, 110},
        Case{"q4_k", 256, 144},   Case{"q5_k", 256, 176},   Case{"q6_k", 256, 210},
        Case{"q8_k", 256, 292},   Case{"iq2_xxs", 256, 66}, Case{"iq2_xs", 256, 74},
        Case{"iq3_xxs", 256, 98}, Case{"iq1_s", 256, 50},   Case{"iq4_nl", 32, 18},
        Case{"iq3_s", 256, 110},  Case{"iq2_s", 256, 82},   Case{"iq4_xs", 256, 136},
        Case{"iq1_m", 256, 56},   Case{"tq1_0", 256, 54},   Case{"tq2_0", 256, 66},
        Case{"mxfp4", 32, 17}}) {
    INFO(c.name);
    const auto type = parse_dtype(c.name);
    REQUIRE(type);
    CHECK(info(*type).block_elems == c.elems);
    CHECK(info(*type).block_bytes == c.bytes);
    CHECK(name_of(*type) == c.name);
  }
  for (const DTypeInfo& t : all_dtypes()) CHECK(&info(t.id) == &t);
}

TEST_CASE("types are found by the names that people know", "[base]") {
  for (const char* name : {"f16", "F16", "fp16", "float16", "half"})
    CHECK(parse_dtype(name) == DType::F16);
  CHECK(parse_dtype("bfloat16") == DType::BF16);
  CHECK(parse_dtype("float32") == DType::F32);
  CHECK(parse_dtype("Q4_K") == DType::Q4_K);
  for (const char* name : {"", "f", "f17", "q4"}) CHECK_FALSE(parse_dtype(name));
}

TEST_CASE("hexadecimal is lower case, whole bytes, and nothing else", "[base]") {
  const std::string bytes("\0\x7F\x80\xFFz", 5);
  CHECK(to_hex(bytes) == "007f80ff7a");
  CHECK(from_hex("007f80ff7a") == bytes);
  CHECK(to_hex("") == "");
  CHECK(from_hex("") == "");
  for (const char* bad : {"0", "007", "0g", "7F", " 7", "0x7f", "7f\n"}) {
    INFO(bad);
    CHECK_FALSE(from_hex(bad));
  }
  CHECK(is_hex("7f80", 2));
  CHECK_FALSE(is_hex("7f80", 1));
  CHECK_FALSE(is_hex("7F80", 2));
  CHECK(hex_digit('F') == 15);
  CHECK(hex_digit('f') == 15);
  CHECK(hex_digit('9') == 9);
  for (const char c : {'g', 'G', '/', ':', '@', '`', '\0'}) CHECK(hex_digit(c) == -1);
}

TEST_CASE("sizes that do not fit are none", "[base]") {
  constexpr std::uint64_t kMax = ~std::uint64_t{0};
  CHECK(checked_mul(kMax, 1) == kMax);
  CHECK_FALSE(checked_mul(kMax, 2));
  CHECK(checked_mul(0, kMax) == 0);
  CHECK_FALSE(checked_mul(std::uint64_t{1} << 32, std::uint64_t{1} << 32));
  CHECK(checked_add(kMax, 0) == kMax);
  CHECK_FALSE(checked_add(kMax, 1));
  CHECK(ceil_div(kMax, 2) == std::uint64_t{1} << 63);
  CHECK(element_count(Shape{kMax, 2, 0}) == 0);
  CHECK_FALSE(element_count(Shape{kMax, 2}));
  CHECK(element_count({}) == 1);
  CHECK_FALSE(byte_size(DType::F4, 3));
  CHECK(byte_size(DType::F6_E2M3, 8) == 6);
  CHECK_FALSE(byte_size(DType::F16, kMax));
  CHECK_THROWS_AS(checked_size(DType::Q8_0, 31), Error);
  CHECK(to_text(Shape{4, 8}) == "[4, 8]");
  CHECK(to_text(Shape{}) == "[]");
}

TEST_CASE("swapping byte order twice is nothing, and touches only fields", "[base]") {
  for (const DTypeInfo& t : all_dtypes()) {
    INFO(t.name);
    Buffer bytes(3u * t.block_bytes);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i + 1);
    Buffer twice = bytes;
    swap_endian(t.id, twice);
    if (t.block_elems == 1) CHECK((twice != bytes) == (t.block_bytes > 1));
    swap_endian(t.id, twice);
    CHECK(twice == bytes);
  }
  Buffer q(18);
  q[0] = std::byte{1};
  q[2] = std::byte{7};
  swap_endian(DType::Q4_0, q);
  CHECK(q[1] == std::byte{1});  // the scale
  CHECK(q[2] == std::byte{7});  // the codes stay
}

TEST_CASE("UTF-8 is judged by the standard's table", "[base]") {
  for (const std::string_view good : {"", "a", "\xC3\xBC", "\xE2\x82\xAC", "\xF0\x9F\x98\x80",
                                      "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF", "12345678\xC3\xBC"})
    CHECK(is_utf8(good));
  for (const std::string_view bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xC3", "\xE2\x82", "\xFF"})
    CHECK_FALSE(is_utf8(bad));
  std::size_t at = 0;
  CHECK_FALSE(is_utf8("1234567890\xFF", &at));
  CHECK(at == 10);
}

TEST_CASE("names cannot drive the terminal", "[base]") {
  CHECK(printable("a\x1b[2J\n\t\x7f") == "a\\x1b[2J\\n\\t\\x7f");
  CHECK(printable("\xE2\x80\xAE"
                  "abc") == "\\u202eabc");
  CHECK(printable("\xFF") == "\\xff");
  CHECK(printable("\xC2\x9B") == "\\x9b");  // C1 control: CSI in one byte
  CHECK(printable("Z\xC3\xBCrich") == "Z\xC3\xBCrich");
  CHECK(quoted("x") == "'x'");
  CHECK(quoted(std::string_view(std::string(1000, 'x'))).size() < 250);
}

TEST_CASE("of a long list the first few are shown, and how many more there are", "[base]") {
  const std::vector<std::string> three{"a", "b", "c"};
  CHECK(first_few({}, 2).empty());
  CHECK(first_few(three, 3) == "a, b, c");
  CHECK(first_few(three, 2) == "a, b and 1 more");
  CHECK(first_few(three, 1, "; ") == "a; and 2 more");
  CHECK(first_few_names(three, 2) == "'a', 'b' and 1 more");
  CHECK(first_few_names(three, 3) == "'a', 'b', 'c'");
}

TEST_CASE("sizes are read with their units, and written for people", "[base]") {
  CHECK(parse_size("512") == 512);
  CHECK(parse_size("5GB") == 5'000'000'000u);
  CHECK(parse_size("5GiB") == std::uint64_t{5} << 30);
  CHECK(parse_size("1.5 kib") == 1536);
  CHECK(parse_size("18446744073709551615") == ~std::uint64_t{0});
  for (const char* bad : {"", "GB", "-1", "1e3", "5XB", "1.2.3k", "18446744073709551616", ".",
                          "99999999TiB", "1.5"}) {
    INFO(bad);
    CHECK_FALSE(parse_size(bad));
  }
  CHECK(human_bytes(512) == "512 B");
  CHECK(human_bytes(1536) == "1.5 KiB");
  CHECK(human_bytes(14483464192u) == "13.49 GiB");
  CHECK(human_count(7241732096u) == "7.24 B");
  CHECK(human_count(512) == "512");
}

TEST_CASE("numbers in names sort by value, strictly", "[base]") {
  std::vector<std::string> names{"l.10.w", "l.2.w", "l.02.w", "l", "l.2", "l.2.a", "L", ""};
  std::ranges::sort(names, natural_less);
  CHECK(names ==
        std::vector<std::string>{"", "L", "l", "l.2", "l.2.a", "l.02.w", "l.2.w", "l.10.w"});
  for (const std::string& a : names)
    for (const std::string& b : names) {
      CHECK_FALSE((natural_less(a, b) && natural_less(b, a)));
      CHECK((natural_less(a, b) || natural_less(b, a)) == (a != b));
    }
}

TEST_CASE("a slip of the finger finds its word, nonsense does not", "[base]") {
  const std::vector<std::string_view> words{"gguf", "npy", "safetensors"};
  CHECK(nearest("ggfu", words) == "gguf");
  CHECK(nearest("safetensor", words) == "safetensors");
  CHECK(nearest("NYP", words) == "npy");
  CHECK(nearest("xyzzy", words).empty());
  CHECK(nearest("", words).empty());
}

TEST_CASE("what an arena hands out stays in place", "[base]") {
  Arena a;
  std::vector<std::string_view> texts;
  for (int i = 0; i < 5000; ++i) texts.push_back(a.text(std::to_string(i)));
  const auto numbers = a.take<std::uint64_t>(3);
  CHECK(reinterpret_cast<std::uintptr_t>(numbers.data()) % alignof(std::uint64_t) == 0);
  Arena b;
  b.absorb(std::move(a));
  a.text("after");
  for (int i = 0; i < 5000; ++i) CHECK(texts[static_cast<std::size_t>(i)] == std::to_string(i));
}

TEST_CASE("scratch frames nest and reuse their memory", "[base]") {
  Scratch s;
  const void* first = nullptr;
  for (int round = 0; round < 3; ++round) {
    Scratch::Frame outer(s);
    const auto a = outer.take<float>(100);
    a[99] = 1;
    {
      Scratch::Frame inner(s);
      const auto b = inner.take<float>(1000);
      b[999] = 2;
      CHECK(b.data() != a.data());
    }
    CHECK(a[99] == 1);
    CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % 64 == 0);
    if (round == 0) first = a.data();
    CHECK(a.data() == first);
  }
}

TEST_CASE("an error collects its places from the inside out", "[base]") {
  Error e(Fault::BadFile, "is wrong");
  e.in("tensor 'a'").in("m.gguf").hint("try this");
  CHECK(std::string(e.what()) == "m.gguf: tensor 'a': is wrong");
  CHECK(e.where() == "m.gguf: tensor 'a'");
  CHECK(e.hint() == "try this");
}
