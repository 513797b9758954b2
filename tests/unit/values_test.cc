#include "cli/values.h"

#include <bit>

#include "lib/base/error.h"
#include "tests/catch.h"

using namespace wtool;

namespace {

template <class T>
std::string text_of(DType type, T value) {
  std::string s;
  ElementText(type).append(s, std::as_bytes(std::span(&value, 1)), 0);
  return s;
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> sliced(std::string_view slice,
                                                            const Shape& shape) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ends;
  for (const Range& r : parse_slice(slice, shape)) ends.emplace_back(r.begin, r.end);
  return ends;
}
using Ends = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

}  // namespace

TEST_CASE("integers are exact to the last digit", "[values]") {
  CHECK(text_of(DType::U64, ~std::uint64_t{0}) == "18446744073709551615");
  CHECK(text_of(DType::I64, std::int64_t{1} << 63) == "-9223372036854775808");
  CHECK(text_of(DType::I8, std::int8_t{-128}) == "-128");
  CHECK(text_of(DType::Bool, std::uint8_t{1}) == "true");
}

TEST_CASE("floats print in the fewest digits of their own type", "[values]") {
  CHECK(text_of(DType::F32, 0.1f) == "0.1");
  CHECK(text_of(DType::F64, 0.1) == "0.1");
  CHECK(text_of(DType::BF16, std::uint16_t{0x3DCD}) == "0.1");   // 0.10009765625
  CHECK(text_of(DType::BF16, std::uint16_t{0x4049}) == "3.14");  // 3.140625
  CHECK(text_of(DType::F16, std::uint16_t{0x2E66}) == "0.1");    // 0.0999755859375
  CHECK(text_of(DType::F16, std::uint16_t{0x7BFF}) == "65504");
  CHECK(text_of(DType::F16, std::uint16_t{0xFC00}) == "-inf");
  CHECK(text_of(DType::BF16, std::uint16_t{0x7FC0}) == "nan");
}

TEST_CASE("prepared texts are the same as those made one by one", "[values]") {
  const ElementText ready(DType::F16, true), single(DType::F16);
  for (std::uint32_t bits = 0; bits < 0x10000; bits += 77) {
    const auto half = static_cast<std::uint16_t>(bits);
    std::string a, b;
    ready.append(a, std::as_bytes(std::span(&half, 1)), 0);
    single.append(b, std::as_bytes(std::span(&half, 1)), 0);
    REQUIRE(a == b);
  }
}

TEST_CASE("slices follow Python's rules", "[values]") {
  const Shape shape{10, 8};
  CHECK(sliced("0:4,:8", shape) == Ends{{0, 4}, {0, 8}});
  CHECK(sliced("-1", shape) == Ends{{9, 10}, {0, 8}});
  CHECK(sliced("...,2", shape) == Ends{{0, 10}, {2, 3}});
  CHECK(sliced("3:,-3:-1", shape) == Ends{{3, 10}, {5, 7}});
  CHECK(sliced(":100", shape) == Ends{{0, 10}, {0, 8}});
  CHECK(sliced("5:2", shape) == Ends{{5, 5}, {0, 8}});
  CHECK(sliced("", shape) == Ends{{0, 10}, {0, 8}});
  CHECK(parse_slice("-1", shape)[0].single);
  CHECK_FALSE(parse_slice("0:1", shape)[0].single);
}

TEST_CASE("slices that mean nothing are refused", "[values]") {
  const Shape shape{10, 8};
  for (const char* bad :
       {"10", "-11", "0,0,0", "a", "::2", "...,...", "1,", "99999999999999999999"})
    CHECK_THROWS_AS(parse_slice(bad, shape), Error);
}

TEST_CASE("only the last brackets are a slice", "[values]") {
  CHECK(split_slice("a[0][1:2]").name == "a[0]");
  CHECK(split_slice("a[0][1:2]").slice == "1:2");
  CHECK_FALSE(split_slice("plain.weight").sliced);
}
