#include "lib/numeric/health.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <tuple>

#include <nlohmann/json.hpp>

#include "formats/registry.h"
#include "lib/engine/execute.h"
#include "lib/numeric/codec.h"
#include "tests/catch.h"
#include "tests/simd_levels.h"
#include "tests/unit/step_run.h"

namespace wtool {
namespace {

// ---- models in memory

struct Stored {
  std::string name;
  DType dtype;
  Shape shape;
  Buffer bytes;
  bool big_endian = false, column_major = false;
};

// One file 'm'; the tensors lie one after another from byte 100 on.
std::shared_ptr<Model> model_of(const std::vector<Stored>& tensors) {
  auto model = std::make_shared<Model>();
  Buffer file(100);
  for (const Stored& t : tensors) append(file, t.bytes);
  Catalog& c = model->catalog;
  const std::uint32_t source = c.add_source(from_memory("m", std::move(file)));
  std::uint64_t at = 100;
  Diagnostics strict;
  for (const Stored& t : tensors) {
    TensorEntry e;
    e.name = c.arena().text(t.name);
    e.shape = c.arena().copy(std::span<const std::uint64_t>(t.shape));
    e.offset = at;
    e.bytes = t.bytes.size();
    e.source = source;
    e.dtype = t.dtype;
    e.big_endian = t.big_endian;
    e.column_major = t.column_major;
    c.add(e, 0, strict);
    at += e.bytes;
  }
  for (std::uint32_t i = 0; i < tensors.size(); ++i) {
    model->parts.push_back(i);
    const TensorEntry& e = c.entries()[i];
    model->tensors.push_back(
        {.name = e.name, .scheme = nullptr, .shape = e.shape, .first = i, .dtype = e.dtype});
  }
  return model;
}

struct Found {
  std::string rule, tensor, text, hint;
  Severity severity;
  std::uint64_t offset;
};
struct Result {
  std::vector<Found> found;
  HealthTotals totals;

  const Found* find(std::string_view rule) const {
    const auto it = std::ranges::find(found, rule, &Found::rule);
    return it == found.end() ? nullptr : &*it;
  }
  std::string rules() const {
    std::string out;
    for (const Found& f : found) out += (out.empty() ? "" : " ") + f.rule;
    return out;
  }
  std::string text() const {
    std::string out;
    for (const Found& f : found)
      out += f.rule + ' ' + f.tensor + ' ' + f.text + '@' + std::to_string(f.offset) + '\n';
    return out;
  }
};

Result check(const std::shared_ptr<const Model>& model, unsigned threads = 1, bool tied = false) {
  std::vector<std::uint32_t> all(model->catalog.entries().size());
  std::iota(all.begin(), all.end(), 0u);
  Diagnostics faults(Diagnostics::Mode::Collect);
  ValueCheck checked(model, all, faults, tied);
  for (Plan plan; checked.next(plan); plan = {}) execute(plan, {.threads = threads});
  Result out;
  out.totals = checked.totals();
  for (const Finding& f : faults.findings())
    out.found.push_back(
        {std::string(f.rule->id), f.where.name, f.text, f.hint, f.rule->severity, f.offset});
  return out;
}
Result check(std::vector<Stored> tensors, unsigned threads = 1) {
  return check(model_of(tensors), threads);
}
template <class T>
Result check(DType type, const std::vector<T>& values, std::string name = "x") {
  return check({{std::move(name), type, {values.size()}, packed(values)}});
}

// Bytes that are no special values of any type.
Buffer bytes_of(std::size_t n, unsigned seed, std::uint8_t least = 0x20, std::uint8_t most = 0x3F) {
  std::mt19937 random(seed);
  Buffer out(n);
  for (std::byte& b : out) b = static_cast<std::byte>(least + random() % (most - least + 1u));
  return out;
}
template <class T>
std::vector<T> many(std::size_t n, T value) {
  return std::vector<T>(n, value);
}

bool same(const Health& a, const Health& b) {
  const auto key = [](const Health& h) {
    return std::tuple(h.items, h.zeros, h.subnormals, h.nan.count, h.nan.first.item,
                      h.nan.first.bits, h.infinite.count, h.infinite.first.item,
                      h.near_overflow.count, h.near_overflow.first.item, h.not_bool.count,
                      h.largest, h.constant, h.pattern, h.sample);
  };
  const auto scales = [](const Health& h) {
    return std::tuple(h.scales.not_finite, h.scales.too_large, h.scales.zeros,
                      h.scales.first_bad.block, h.scales.first_bad.bits, h.scales.first_bad.at,
                      h.scales.first_large.block, h.scales.first_large.bits);
  };
  return key(a) == key(b) && scales(a) == scales(b);
}

// ---- plain types

// What IEEE 754, the OCP 8-bit formats and the FNUZ variants say each type's patterns are.
struct Known {
  DType type;
  unsigned bytes;
  std::uint64_t one, zero, minus_zero, subnormal, normal, largest, infinity, nan;  // 0: has none
};
const std::vector<Known> kKnown{
    {DType::F16, 2, 0x3C00, 0, 0x8000, 0x03FF, 0x0400, 0x7BFF, 0x7C00, 0xFE01},
    {DType::BF16, 2, 0x3F80, 0, 0x8000, 0x007F, 0x0080, 0x7F7F, 0xFF80, 0x7F81},
    {DType::F32, 4, 0x3F800000, 0, 0x80000000, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F800000,
     0x7FC00001},
    {DType::F64, 8, 0x3FF0000000000000, 0, 0x8000000000000000, 0x000FFFFFFFFFFFFF,
     0x0010000000000000, 0x7FEFFFFFFFFFFFFF, 0xFFF0000000000000, 0x7FF0000000000001},
    {DType::F8_E5M2, 1, 0x3C, 0, 0x80, 0x03, 0x04, 0x7B, 0x7C, 0xFD},
    {DType::F8_E4M3, 1, 0x38, 0, 0x80, 0x87, 0x08, 0x7E, 0, 0xFF},
    {DType::F8_E4M3FNUZ, 1, 0x40, 0, 0, 0x07, 0x08, 0x7F, 0, 0x80},
    {DType::F8_E5M2FNUZ, 1, 0x40, 0, 0, 0x83, 0x04, 0xFF, 0, 0x80},
};

void put(Buffer& to, std::size_t item, unsigned bytes, std::uint64_t pattern) {
  std::memcpy(to.data() + item * bytes, &pattern, bytes);
}

TEST_CASE("health: each float type's zeros, subnormals, NaN and infinities are told apart",
          "[health]") {
  for (const Simd level : levels())
    for (const Known& k : kKnown) {
      const AtLevel at(level);
      INFO(name_of(k.type) << " at " << name_of(level));
      constexpr std::size_t kItems = 100'003;
      Buffer bytes(kItems * k.bytes);
      for (std::size_t i = 0; i < kItems; ++i) put(bytes, i, k.bytes, k.one);
      put(bytes, 70'000, k.bytes, k.zero);
      put(bytes, 3, k.bytes, k.minus_zero);
      put(bytes, 77, k.bytes, k.subnormal);
      put(bytes, 99'999, k.bytes, k.subnormal);
      put(bytes, 78, k.bytes, k.normal);
      put(bytes, 50'000, k.bytes, k.largest);
      if (k.infinity != 0) put(bytes, 60'001, k.bytes, k.infinity);
      put(bytes, 60'000, k.bytes, k.nan);
      put(bytes, 100'002, k.bytes, k.nan);
      const Health h = health_of(k.type, bytes, 1000);
      const std::uint64_t sign = std::uint64_t{1} << (8 * k.bytes - 1);
      CHECK(h.items == kItems);
      CHECK(h.zeros == 2);
      CHECK(h.subnormals == 2);
      CHECK(h.nan.count == 2);
      CHECK(h.nan.first.item == 61'000);
      CHECK(h.nan.first.bits == k.nan);
      CHECK(h.infinite.count == (k.infinity != 0 ? 1u : 0u));
      if (k.infinity != 0) CHECK(h.infinite.first.item == 61'001);
      CHECK(h.largest == (k.largest & ~sign));
      CHECK_FALSE(h.constant);
    }
}

TEST_CASE("health: patterns are counted the same at every level and length", "[health]") {
  for (const DTypeInfo& t : all_dtypes())
    for (const std::size_t blocks : {1u, 2u, 7u, 31u, 64u, 129u, 300u, 5000u, 70'001u}) {
      if (blocks > 5000 && t.block_bytes > 2) continue;
      std::mt19937 random(static_cast<unsigned>(blocks));
      Buffer bytes(blocks * t.block_bytes);
      for (std::byte& b : bytes) b = static_cast<std::byte>(random() % 5 == 0 ? 0 : random());
      Health expected;
      {
        const AtLevel at(Simd::Scalar);
        expected = health_of(t.id, bytes, 5);
      }
      for (const Simd level : levels()) {
        const AtLevel at(level);
        INFO(t.name << ", " << blocks << " at " << name_of(level));
        CHECK(same(health_of(t.id, bytes, 5), expected));
      }
    }
}

TEST_CASE("health: counters of a lane's width do not overflow", "[health]") {
  constexpr std::size_t kItems = std::size_t{1} << 22;  // 131072 in each lane of 512 bits of u16
  const Buffer zeros(2 * kItems);
  for (const Simd level : levels())
    for (const std::uint8_t bytes : {std::uint8_t{1}, std::uint8_t{2}}) {
      const AtLevel at(level);
      INFO(unsigned{bytes} << " bytes at " << name_of(level));
      PatternCounts counts;
      count_patterns(zeros.data(), kItems, {bytes, 0x7F, 8}, 0, counts);
      CHECK(counts.zeros == kItems);
      CHECK(counts.below_normal == kItems);
    }
}

TEST_CASE("health: an exponent has no zero, and 255 is its NaN", "[health]") {
  Buffer bytes(10, std::byte{127});
  bytes[2] = std::byte{0};
  bytes[7] = std::byte{255};
  const Health h = health_of(DType::F8_E8M0, bytes);
  CHECK(h.zeros == 0);
  CHECK(h.subnormals == 0);
  CHECK(h.nan.count == 1);
  CHECK(h.nan.first.item == 7);
  CHECK(h.largest == 127);
}

TEST_CASE("health: integers have no bad values", "[health]") {
  for (const DType type : {DType::U8, DType::I8, DType::U16, DType::I16, DType::U32, DType::I32,
                           DType::U64, DType::I64}) {
    INFO(name_of(type));
    const Buffer ones(800, std::byte{0xFF});
    const Health h = health_of(type, ones);
    CHECK(h.nan.count + h.infinite.count + h.not_bool.count == 0);
    CHECK(h.constant);
    CHECK(h.zeros == 0);
    CHECK(check({{"x.weight", type, {800u / info(type).block_bytes}, ones}}).found.empty());
  }
}

TEST_CASE("health: small floats in one byte are zero if all of them are", "[health]") {
  CHECK(health_of(DType::F4, Buffer{std::byte{0x80}, std::byte{0x08}}).zeros == 2);
  CHECK(health_of(DType::F4, Buffer{std::byte{0x10}, std::byte{0x08}}).zeros == 1);
  // Four times six bits: -0 is 100000, so 20 08 82 is four of them.
  const Buffer zeros{std::byte{0x20}, std::byte{0x08}, std::byte{0x82}};
  for (const DType type : {DType::F6_E2M3, DType::F6_E3M2}) {
    CHECK(health_of(type, zeros).zeros == 1);
    for (unsigned bit = 0; bit < 24; ++bit) {
      Buffer one(3);
      one[bit / 8] = static_cast<std::byte>(1u << bit % 8);
      CHECK(health_of(type, one).zeros == (bit % 6 == 5 ? 1u : 0u));
    }
  }
}

// ---- findings

TEST_CASE("health: a NaN is placed by index, position and bits", "[health]") {
  std::vector<std::uint16_t> values(6, 0x3F80);
  values[4] = 0x7FC1;
  const std::vector<Stored> tensors{{"a", DType::F32, {3}, packed(std::vector<float>{1, 2, 3})},
                                    {"layer.weight", DType::BF16, {2, 3}, packed(values)}};
  const Result r = check(tensors);
  REQUIRE(r.rules() == "values.weight");
  CHECK(r.found[0].severity == Severity::Error);
  CHECK(r.found[0].tensor == "layer.weight");
  CHECK(r.found[0].offset == 100 + 12 + 4 * 2);
  CHECK(r.found[0].text == "1 of 6 values is NaN, the first at [1, 1] (element 4): bits 0x7fc1");
  CHECK(r.totals.nan == 1);
  CHECK(r.totals.tensors == 2);
}

TEST_CASE("health: in data that is no weight a NaN or an infinity is a warning", "[health]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const Result r = check(DType::F32, std::vector<float>{1, nan, -inf, 2});
  REQUIRE(r.rules() == "values.nan values.inf");
  CHECK(r.found[0].severity == Severity::Warning);
  CHECK(r.found[1].severity == Severity::Warning);
  CHECK(r.found[1].offset == 108);
  CHECK(check(DType::F32, std::vector<float>{1, inf}, "a.weight").rules() == "values.weight");
  CHECK(check(DType::F32, std::vector<float>{1, -inf}, "a.bias").rules() == "values.inf");
  CHECK(check(DType::F32, std::vector<float>{1, nan}, "a.bias").rules() == "values.weight");
}

TEST_CASE("health: big-endian and column-major tensors are read as what they are", "[health]") {
  Buffer bytes = packed(std::vector<std::uint32_t>{0x3F800000, 0x3F800001, 0x3F800002, 0x7F800001,
                                                   0x40000000, 0x40000001});
  for (std::size_t i = 0; i < bytes.size(); i += 4)
    std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(i),
                 bytes.begin() + static_cast<std::ptrdiff_t>(i + 4));
  const Result r = check({{"x", DType::F32, {2, 3}, bytes, true, true}});
  REQUIRE(r.rules() == "values.nan");
  CHECK(r.found[0].offset == 112);  // the fourth that is stored: column 1, row 1
  CHECK(r.found[0].text ==
        "1 of 6 values is NaN, the first at [1, 1] (element 4): bits 0x7f800001");
  // Also where it is read together with others.
  const Result two = check({{"x", DType::F32, {2, 3}, bytes, true, true},
                            {"y", DType::F32, {2}, packed(std::vector<float>{1, 2})}});
  REQUIRE(two.rules() == "values.nan");
  CHECK(two.found[0].text == r.found[0].text);
}

TEST_CASE("health: halves of complex numbers are told apart", "[health]") {
  std::vector<float> values(8, 1.5f);
  values[5] = std::numeric_limits<float>::quiet_NaN();
  values[0] = 1;
  const Result r = check({{"z", DType::C64, {4}, packed(values)}});
  REQUIRE(r.rules() == "values.nan");
  CHECK(r.found[0].offset == 120);
  CHECK(r.found[0].text.find("[2] (element 2, imaginary)") != std::string::npos);
}

TEST_CASE("health: f16 whose double is infinite is near overflow, from 2^15 on", "[health]") {
  auto values = many<std::uint16_t>(100, 0x3C00);
  values[9] = 0x77FF;  // 32752: its double is 65504, the largest there is
  CHECK(check(DType::F16, values).found.empty());
  values[50] = 0xF800;  // -32768
  values[70] = 0x7BFF;
  const Result r = check(DType::F16, values);
  REQUIRE(r.rules() == "values.near-overflow");
  CHECK(r.found[0].offset == 200);
  CHECK(r.found[0].text ==
        "2 of 100 values are beyond 32752, the first at [50] (element 50): bits 0xf800; the "
        "largest has bits 0x7bff");
  CHECK(check(DType::BF16, std::vector<std::uint16_t>{0x3F80, 0x7800}).found.empty());
}

TEST_CASE("health: bools other than 0 and 1 are told", "[health]") {
  auto values = many<std::uint8_t>(50, 1);
  values[3] = 0;
  CHECK(check(DType::Bool, values).found.empty());
  values[20] = 2;
  values[40] = 255;
  const Result r = check(DType::Bool, values);
  REQUIRE(r.rules() == "values.bool");
  CHECK(r.found[0].offset == 120);
  CHECK(r.found[0].text ==
        "2 of 50 values are neither 0 nor 1, the first at [20] (element 20): bits 0x02");
}

TEST_CASE("health: zero throughout is a finding where weights are multiplied", "[health]") {
  const auto zeros = [](std::string name, DType type, Shape shape) {
    const std::uint64_t bytes = checked_size(type, *element_count(shape));
    return check({{std::move(name), type, std::move(shape), Buffer(bytes)}}).rules();
  };
  CHECK(zeros("a.weight", DType::F32, {4, 4}) == "values.zero");
  CHECK(zeros("a.weight", DType::BF16, {2}) == "values.zero");
  CHECK(zeros("a.weight", DType::Q8_0, {64}) == "values.zero");
  CHECK(zeros("a.weight", DType::F4, {64}) == "values.zero");
  CHECK(zeros("a.weight", DType::C64, {64}) == "values.zero");
  CHECK(zeros("a.bias", DType::F32, {4}) == "");
  CHECK(zeros("a.lora_B.default.weight", DType::F32, {4, 4}) == "");
  CHECK(zeros("embeddings.token_type_embeddings.weight", DType::F32, {2, 4}) == "");
  CHECK(zeros("token_types.weight", DType::F32, {2, 4}) == "");
  CHECK(zeros("a.weight", DType::F32, {1}) == "");
  CHECK(zeros("position_ids", DType::I64, {4}) == "");
  CHECK(zeros("mask", DType::Bool, {4}) == "");
  CHECK(zeros("empty", DType::F32, {0, 4}) == "");
  // Minus zeros among them are zeros.
  CHECK(check(DType::BF16, std::vector<std::uint16_t>{0, 0x8000, 0}).rules() == "values.zero");
  CHECK(check(DType::BF16, std::vector<std::uint16_t>{0, 0x8000, 1}).rules() == "values.subnormal");
}

TEST_CASE("health: one value throughout is noted of matrices", "[health]") {
  const Buffer ones = packed(many<float>(64, 1));
  const Result r = check({{"a", DType::F32, {8, 8}, ones}});
  REQUIRE(r.rules() == "values.constant");
  CHECK(r.found[0].severity == Severity::Note);
  CHECK(r.found[0].text == "all 64 values have the bits 0x3f800000");
  CHECK(check({{"norm.weight", DType::F32, {64}, ones}}).found.empty());
  CHECK(check({{"norm.weight", DType::F32, {1, 64}, ones}}).found.empty());
  CHECK(check({{"a", DType::I32, {8, 8}, ones}}).found.empty());
  Buffer blocks = bytes_of(34, 1);
  append(blocks, Bytes(Buffer(blocks)));
  const Result b = check({{"a", DType::Q8_0, {2, 32}, blocks}});
  REQUIRE(b.rules() == "values.constant");
  CHECK(b.found[0].text == "all 2 blocks have the same 34 bytes");
  blocks[67] ^= std::byte{1};
  CHECK(check({{"a", DType::Q8_0, {2, 32}, blocks}}).found.empty());
}

TEST_CASE("health: a difference in the last element of a large tensor is one", "[health]") {
  std::vector<std::uint16_t> values(std::size_t{5} << 20, 0x3C00);
  CHECK(check({{"a", DType::F16, {5, 1 << 20}, packed(values)}}).rules() == "values.constant");
  values.back() = 0x3C01;
  CHECK(check({{"a", DType::F16, {5, 1 << 20}, packed(values)}}).found.empty());
}

TEST_CASE("health: pieces that are constant each make no constant tensor", "[health]") {
  // Tensors are read in pieces of 256 KiB and in units of sixteen of them.
  for (const std::size_t border : {std::size_t{1} << 17, std::size_t{1} << 21}) {
    std::vector<std::uint16_t> values(std::size_t{1} << 22, 0x3C00);
    std::fill(values.begin() + static_cast<std::ptrdiff_t>(border), values.end(), 0x3C01);
    CHECK(check({{"a", DType::F16, {4, 1 << 20}, packed(values)}}).found.empty());
  }
  Buffer blocks;
  for (std::size_t i = 0; i < 2 * 7710; ++i)  // of 34 bytes: 7710 are a piece
    append(blocks, Bytes(Buffer(34, static_cast<std::byte>(i < 7710 ? 0x11 : 0x12))));
  CHECK(check({{"a", DType::Q8_0, {2 * 7710, 32}, blocks}}).found.empty());
}

TEST_CASE("health: more than a tenth of subnormals is noted", "[health]") {
  auto values = many<std::uint16_t>(100, 0x3C00);
  std::fill_n(values.begin() + 20, 10, std::uint16_t{0x0001});
  CHECK(check(DType::F16, values).found.empty());
  values[99] = 0x83FF;
  const Result r = check(DType::F16, values);
  REQUIRE(r.rules() == "values.subnormal");
  CHECK(r.found[0].text == "11 of 100 values are subnormal in f16");
}

// ---- blocks

// A scale's bytes in a block, and what makes it not finite; by hand from ggml-common.h.
struct Field {
  DType type;
  unsigned elements, bytes;  // of a block
  unsigned at;
  std::vector<unsigned> bad;
};
const std::vector<Field> kFields{
    {DType::Q4_0, 32, 18, 0, {0x00, 0x7C}},
    {DType::Q4_1, 32, 20, 0, {0x01, 0x7C}},
    {DType::Q4_1, 32, 20, 2, {0x00, 0xFC}},
    {DType::Q5_0, 32, 22, 0, {0x00, 0x7E}},
    {DType::Q5_1, 32, 24, 0, {0x00, 0x7E}},
    {DType::Q5_1, 32, 24, 2, {0xFF, 0xFF}},
    {DType::Q8_0, 32, 34, 0, {0x00, 0xFE}},
    {DType::Q8_1, 32, 36, 0, {0x00, 0x7C}},
    {DType::Q8_1, 32, 36, 2, {0x00, 0x7C}},
    {DType::Q2_K, 256, 84, 80, {0x00, 0x7C}},
    {DType::Q2_K, 256, 84, 82, {0x00, 0x7C}},
    {DType::Q3_K, 256, 110, 108, {0x00, 0x7C}},
    {DType::Q4_K, 256, 144, 0, {0x00, 0x7C}},
    {DType::Q4_K, 256, 144, 2, {0x00, 0x7E}},
    {DType::Q5_K, 256, 176, 0, {0x00, 0x7C}},
    {DType::Q5_K, 256, 176, 2, {0x00, 0xFC}},
    {DType::Q6_K, 256, 210, 208, {0x00, 0x7C}},
    {DType::Q8_K, 256, 292, 0, {0x00, 0x00, 0x80, 0x7F}},
    {DType::IQ2_XXS, 256, 66, 0, {0x00, 0x7C}},
    {DType::IQ2_XS, 256, 74, 0, {0x00, 0x7C}},
    {DType::IQ3_XXS, 256, 98, 0, {0x00, 0x7C}},
    {DType::IQ1_S, 256, 50, 0, {0x00, 0x7C}},
    {DType::IQ4_NL, 32, 18, 0, {0x00, 0x7C}},
    {DType::IQ3_S, 256, 110, 0, {0x00, 0x7C}},
    {DType::IQ2_S, 256, 82, 0, {0x00, 0x7C}},
    {DType::IQ4_XS, 256, 136, 0, {0x00, 0x7C}},
    // 0x7C01, a nibble on top of each word: 1, 0, C, 7 from the first one on
    {DType::IQ1_M, 256, 56, 48, {0x00, 0x10, 0x00, 0x00, 0x00, 0xC0, 0x00, 0x70}},
    {DType::TQ1_0, 256, 54, 52, {0x00, 0x7C}},
    {DType::TQ2_0, 256, 66, 64, {0x00, 0x7C}},
    {DType::MXFP4, 32, 17, 0, {0xFF}},
    {DType::NVFP4, 64, 36, 0, {0x7F}},
    {DType::NVFP4, 64, 36, 3, {0xFF}},
    {DType::Q1_0, 128, 18, 0, {0x00, 0x7C}},
    {DType::Q2_0, 64, 18, 0, {0x00, 0x7C}},
};

// Scales of such blocks are about 2^-7 or less, whatever their form: bytes up to 0x1F, where the
// nibbles on top of IQ1_M's words are 0 or 1 and E8M0's exponent is 2^-96 or less.
Buffer blocks_of(unsigned bytes, std::size_t n, unsigned seed) {
  return bytes_of(bytes * n, seed, 0x10, 0x1F);
}

TEST_CASE("health: each block type has a bad scale found in any block", "[health]") {
  for (const DTypeInfo& t : all_dtypes())
    if (t.kind == Kind::Block)
      CHECK(std::ranges::any_of(kFields, [&](const Field& f) { return f.type == t.id; }));
  constexpr std::size_t kBlocks = 16'000;  // two pieces of the smallest type, 18 of the largest
  for (const Field& f : kFields) {
    const Buffer sound = blocks_of(f.bytes, kBlocks, 1);
    CHECK(check({{"w", f.type, {kBlocks, f.elements}, sound}}).found.empty());
    for (const std::size_t block : {std::size_t{0}, kBlocks / 2 + 1, kBlocks - 1}) {
      INFO(name_of(f.type) << " at " << f.at << " of block " << block);
      Buffer bytes = sound;
      for (std::size_t i = 0; i < f.bad.size(); ++i)
        bytes[block * f.bytes + f.at + i] = static_cast<std::byte>(f.bad[i]);
      const Result r = check({{"w", f.type, {kBlocks, f.elements}, bytes}});
      REQUIRE(r.rules() == "values.scale");
      CHECK(r.found[0].severity == Severity::Error);
      CHECK(r.found[0].offset == 100 + block * f.bytes + f.at);
      CHECK(r.found[0].text.find("1 of 16000 ") == 0);
      CHECK(r.found[0].text.find("first is block " + std::to_string(block) + ":") !=
            std::string::npos);
      CHECK(r.totals.bad_scales == 1);
    }
  }
}

TEST_CASE("health: bad scales of big-endian blocks are found", "[health]") {
  for (const Field& f : kFields) {
    INFO(name_of(f.type) << " at " << f.at);
    Buffer bytes = blocks_of(f.bytes, 9, 2);
    for (std::size_t i = 0; i < f.bad.size(); ++i)
      bytes[4 * f.bytes + f.at + i] = static_cast<std::byte>(f.bad[i]);
    const Result little = check({{"w", f.type, {9, f.elements}, bytes}});
    // As a big-endian machine has them: 16-bit halves (or the one float) with the high byte first.
    if (f.bad.size() == 2) {
      for (std::size_t b = 0; b < 9; ++b) {
        if (f.type == DType::Q8_K) continue;
        for (const Field& g : kFields)
          if (g.type == f.type) std::swap(bytes[b * f.bytes + g.at], bytes[b * f.bytes + g.at + 1]);
      }
    } else if (f.type == DType::IQ1_M) {
      for (std::size_t b = 0; b < 9; ++b)
        for (unsigned k = 0; k < 8; k += 2)
          std::swap(bytes[b * f.bytes + f.at + k], bytes[b * f.bytes + f.at + k + 1]);
    } else if (f.type == DType::Q8_K) {
      for (std::size_t b = 0; b < 9; ++b) {
        const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(b * f.bytes);
        std::reverse(at, at + 4);
      }
    }
    const Result big = check({{"w", f.type, {9, f.elements}, bytes, true}});
    CHECK(big.text() == little.text());
    CHECK(big.rules() == "values.scale");
  }
}

// By hand from the formulas: what the scale is multiplied with at most.
struct Most {
  DType type;
  unsigned at;  // of an f16 scale of 1.0, the other one zero
  double greatest;
};
const std::vector<Most> kMost{
    {DType::Q4_0, 0, 8},         {DType::Q4_1, 0, 15},       {DType::Q5_0, 0, 16},
    {DType::Q5_1, 0, 31},        {DType::Q8_0, 0, 128},      {DType::Q2_K, 80, 45},
    {DType::Q2_K, 82, 15},       {DType::Q3_K, 108, 128},    {DType::Q4_K, 0, 945},
    {DType::Q4_K, 2, 63},        {DType::Q5_K, 0, 1953},     {DType::Q5_K, 2, 63},
    {DType::Q6_K, 208, 4096},    {DType::IQ1_S, 0, 16.875},  {DType::IQ2_XXS, 0, 166.625},
    {DType::IQ2_XS, 0, 166.625}, {DType::IQ2_S, 0, 166.625}, {DType::IQ3_XXS, 0, 480.5},
    {DType::IQ3_S, 0, 465},      {DType::IQ4_NL, 0, 127},    {DType::IQ4_XS, 0, 4064},
    {DType::TQ1_0, 52, 1},       {DType::TQ2_0, 64, 2},      {DType::Q1_0, 0, 1},
    {DType::Q2_0, 0, 2},         {DType::Q4_1, 2, 1},        {DType::Q5_1, 2, 1},
};

std::uint16_t half_of(double v) {
  const float f = static_cast<float>(v);
  std::byte out[2];
  codec(DType::F16).encode(&f, out, 1);
  return load<std::uint16_t>(out);
}
float value_of(std::uint16_t h) {
  float f;
  codec(DType::F16).decode(std::as_bytes(std::span(&h, 1)).data(), &f, 1);
  return f;
}

TEST_CASE("health: a scale is too large from where a code can pass 65504", "[health]") {
  for (const Most& m : kMost) {
    INFO(name_of(m.type) << " at " << m.at);
    const DTypeInfo& t = info(m.type);
    const auto with = [&](std::uint16_t scale) {
      Buffer block(t.block_bytes);
      std::memcpy(block.data() + m.at, &scale, 2);
      return health_of(m.type, block).scales;
    };
    std::uint16_t last = half_of(65504 / m.greatest);  // the largest that is fine
    if (value_of(last) * m.greatest > 65504) --last;
    for (const unsigned sign : {0u, 0x8000u}) {
      CHECK(with(static_cast<std::uint16_t>(last | sign)).too_large == 0);
      if (m.greatest <= 1) continue;  // then the next is infinite
      const ScaleCounts next = with(static_cast<std::uint16_t>((last + 1) | sign));
      CHECK(next.too_large == 1);
      CHECK(next.first_large.at == m.at);
      CHECK(next.first_large.bits == ((last + 1u) | sign));
      CHECK(next.not_finite == 0);
    }
  }
}

TEST_CASE("health: no code decodes beyond the greatest that is reckoned with", "[health]") {
  std::mt19937 random(7);
  for (const Most& m : kMost) {
    INFO(name_of(m.type) << " at " << m.at);
    const DTypeInfo& t = info(m.type);
    std::vector<float> values(t.block_elems);
    double greatest = 0;
    for (unsigned turn = 0; turn < 3000; ++turn) {
      Buffer block(t.block_bytes);
      for (std::byte& b : block) b = static_cast<std::byte>(turn < 256 ? turn : random());
      for (const Most& other : kMost)  // no other scale
        if (other.type == m.type) std::memset(block.data() + other.at, 0, 2);
      const std::uint16_t one = 0x3C00;
      std::memcpy(block.data() + m.at, &one, 2);
      codec(m.type).decode(block.data(), values.data(), values.size());
      for (const float v : values) greatest = std::max(greatest, std::abs(double{v}));
    }
    CHECK(greatest <= m.greatest);
    CHECK(greatest >= m.greatest * 0.9);
  }
}

TEST_CASE("health: scales that are no f16 have limits too", "[health]") {
  const auto too_large = [](DType type, std::size_t at, Buffer field) {
    Buffer block(info(type).block_bytes);
    std::ranges::copy(field, block.begin() + static_cast<std::ptrdiff_t>(at));
    const Health h = health_of(type, block);
    CHECK(h.scales.not_finite == 0);
    return h.scales.too_large;
  };
  CHECK(too_large(DType::Q8_K, 0, packed(std::vector<float>{511.75f})) == 0);
  CHECK(too_large(DType::Q8_K, 0, packed(std::vector<float>{-511.751f})) == 1);
  // 2^(e - 127) * 6: 49152 with 140, 98304 with 141.
  CHECK(too_large(DType::MXFP4, 0, {std::byte{140}}) == 0);
  CHECK(too_large(DType::MXFP4, 0, {std::byte{141}}) == 1);
  CHECK(too_large(DType::MXFP4, 0, {std::byte{254}}) == 1);
  CHECK(too_large(DType::NVFP4, 0, {std::byte{0x7E}}) == 0);
  // f16 0x6C00 is 4096, times 16.875 is 69120; 0x6B00 is 3584, which gives 60480.
  const auto spread = [](unsigned h) {
    return packed(std::vector<std::uint16_t>{
        static_cast<std::uint16_t>(h << 12), static_cast<std::uint16_t>(h >> 4 << 12),
        static_cast<std::uint16_t>(h >> 8 << 12), static_cast<std::uint16_t>(h >> 12 << 12)});
  };
  CHECK(too_large(DType::IQ1_M, 48, spread(0x6C00)) == 1);
  CHECK(too_large(DType::IQ1_M, 48, spread(0xEC00)) == 1);
  CHECK(too_large(DType::IQ1_M, 48, spread(0x6B00)) == 0);
}

TEST_CASE("health: a minimum takes away what a scale gives", "[health]") {
  const auto two = [](DType type, unsigned first, unsigned second, double d, double m) {
    Buffer block(info(type).block_bytes);
    const std::uint16_t a = half_of(d), b = half_of(m);
    std::memcpy(block.data() + first, &a, 2);
    std::memcpy(block.data() + second, &b, 2);
    return health_of(type, block).scales.too_large;
  };
  // 69 * 945 = 65205 and 1000 * 63 = 63000: the values lie between -63000 and 65205.
  CHECK(two(DType::Q4_K, 0, 2, 69, 1000) == 0);
  CHECK(two(DType::Q4_K, 0, 2, -69, -1000) == 0);
  CHECK(two(DType::Q4_K, 0, 2, 69, -1000) == 1);     // up to 128205
  CHECK(two(DType::Q4_1, 0, 2, 4000, -60000) == 0);  // -60000 … 0
  CHECK(two(DType::Q4_1, 0, 2, 4000, 10000) == 1);   // … 70000
  CHECK(two(DType::Q4_1, 0, 2, 8728, -65504) == 0);  // … 65416
  CHECK(two(DType::Q4_1, 0, 2, 8736, -65504) == 1);  // … 65536
}

TEST_CASE("health: too large a scale is a warning, placed by block", "[health]") {
  Buffer bytes = blocks_of(34, 100, 3);
  bytes[50 * 34 + 1] = std::byte{0x7B};
  const Result r = check({{"w", DType::Q8_0, {100, 32}, bytes}});
  REQUIRE(r.rules() == "values.scale-range");
  CHECK(r.found[0].severity == Severity::Warning);
  CHECK(r.found[0].offset == 100 + 50 * 34);
  CHECK(r.found[0].text.find("1 of 100 q8_0 blocks can decode to more than 65504, the first is "
                             "block 50: bits 0x7b") == 0);
}

TEST_CASE("health: blocks are zero by their scales, or by fp4's codes", "[health]") {
  const auto zeros = [](DType type, const std::vector<std::pair<std::size_t, unsigned>>& set) {
    Buffer block(info(type).block_bytes, std::byte{0x11});
    for (const auto& [at, value] : set) block[at] = static_cast<std::byte>(value);
    return health_of(type, block).zeros;
  };
  CHECK(zeros(DType::Q4_0, {}) == 0);
  CHECK(zeros(DType::Q4_0, {{0, 0}, {1, 0x80}}) == 1);  // what the reference writes of zeros
  CHECK(zeros(DType::Q4_1, {{0, 0}, {1, 0}}) == 0);
  CHECK(zeros(DType::Q4_1, {{0, 0}, {1, 0}, {2, 0}, {3, 0}}) == 1);
  CHECK(zeros(DType::Q8_1, {{0, 0}, {1, 0}}) == 1);
  CHECK(zeros(DType::Q8_K, {{0, 0}, {1, 0}, {2, 0}, {3, 0x80}}) == 1);
  CHECK(zeros(DType::IQ1_M, {{49, 0}, {51, 0}, {53, 0}, {55, 0x80}}) == 1);
  CHECK(zeros(DType::NVFP4, {{0, 0}, {1, 0x80}, {2, 0}, {3, 0}}) == 1);
  Buffer fp4(17, std::byte{0x80});
  CHECK(health_of(DType::MXFP4, fp4).zeros == 1);
  fp4[16] = std::byte{0x90};
  CHECK(health_of(DType::MXFP4, fp4).zeros == 0);
}

TEST_CASE("health: the first of several bad ones is named, wherever they lie", "[health]") {
  std::vector<std::uint16_t> values(std::size_t{6} << 20, 0x3C00);  // three units
  for (const std::size_t at : {3'000'000u, 3'000'001u, 3'500'000u, 6'000'000u}) values[at] = 0x7C00;
  values[5] = 0x3C01;
  const Result r = check(DType::F16, values);
  REQUIRE(r.rules() == "values.inf");
  CHECK(r.found[0].offset == 100 + 6'000'000);
  CHECK(r.found[0].text.find("4 of 6291456 values are infinite, the first at [3000000] ") == 0);
  Buffer blocks = blocks_of(34, 300'000, 4);
  for (const std::size_t block : {150'000u, 150'001u, 290'000u})
    blocks[block * 34 + 1] = std::byte{0x7C};
  for (const std::size_t block : {100'000u, 200'000u}) blocks[block * 34 + 1] = std::byte{0x7B};
  const Result b = check({{"w", DType::Q8_0, {300'000, 32}, blocks}});
  REQUIRE(b.rules() == "values.scale values.scale-range");
  CHECK(b.found[0].offset == 100 + 150'000 * 34);
  CHECK(b.found[0].text.find("3 of 300000 ") == 0);
  CHECK(b.found[1].offset == 100 + 100'000 * 34);
  CHECK(b.found[1].text.find("2 of 300000 ") == 0);
}

// ---- roles

TEST_CASE("health: scales and zero points of a scheme are judged as such", "[health]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Stored> tensors{
      {"l.weight_packed", DType::I32, {4, 4}, Buffer(64)},
      {"l.weight_scale", DType::F32, {4, 1}, packed(std::vector<float>{1, nan, 1, 1})},
      {"l.weight_zero_point", DType::F16, {4, 4}, Buffer(32)}};
  const auto model = model_of(tensors);
  CHECK(check(model).rules() == "values.nan values.zero");  // the zero points
  model->tensors.resize(1);
  model->tensors[0].count = 3;
  const Result r = check(model);
  REQUIRE(r.rules() == "values.zero values.scale");
  CHECK(r.found[0].tensor == "l.weight_packed");
  CHECK(r.found[1].text ==
        "1 of 4 scales is NaN, the first at [1, 0] (element 1): bits 0x7fc00000");
}

// ---- the whole check

TEST_CASE("health: any number of threads finds the same, in the order of the file", "[health]") {
  std::vector<Stored> tensors;
  for (unsigned i = 0; i < 40; ++i) {
    auto values = std::vector<std::uint16_t>(i % 7 == 0 ? 3'000'000 + i : 1000 * i + 1, 0x3C00);
    std::mt19937 random(i);
    for (std::uint16_t& v : values) v = static_cast<std::uint16_t>(0x2C00 + random() % 0x800);
    values[values.size() / 3] = i % 3 == 0 ? 0x7C00 : 0x7E00;
    values[values.size() - 1] = 0xFE00;
    tensors.push_back({"t" + std::to_string(i) + ".weight",
                       DType::F16,
                       {values.size()},
                       packed(values),
                       i % 5 == 0});
    if (i % 5 == 0) swap_endian(DType::F16, tensors.back().bytes);
  }
  tensors.push_back(tensors[7]);
  tensors.back().name = "again";
  const auto model = model_of(tensors);
  const std::string one = check(model, 1).text();
  CHECK(one.find("t0.weight") < one.find("t39.weight"));
  CHECK(one.find("again") != std::string::npos);
  for (const unsigned threads : {2u, 3u, 8u}) CHECK(check(model, threads).text() == one);
}

TEST_CASE("health: many small tensors are read together and judged alone", "[health]") {
  std::vector<Stored> tensors;
  for (unsigned i = 0; i < 5000; ++i) {
    std::vector<float> values{1, static_cast<float>(i) + 2};
    if (i % 1000 == 999) values[1] = std::numeric_limits<float>::quiet_NaN();
    tensors.push_back({"t" + std::to_string(i), DType::F32, {2}, packed(values)});
  }
  const Result r = check(tensors, 2);
  REQUIRE(r.found.size() == 5);
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(r.found[i].tensor == "t" + std::to_string(1000 * i + 999));
    CHECK(r.found[i].offset == 100 + 8 * (1000 * i + 999) + 4);
  }
  CHECK(r.totals.tensors == 5000);
  CHECK(r.totals.bytes == 40'000);
}

TEST_CASE("health: a tensor that is stored twice is told once", "[health]") {
  const Buffer bytes = bytes_of(300'000, 5);
  Buffer other = bytes;
  other[200'000] ^= std::byte{1};  // where no sample is
  const std::vector<Stored> tensors{{"a.weight", DType::BF16, {1000, 150}, bytes},
                                    {"near", DType::BF16, {1000, 150}, other},
                                    {"turned", DType::BF16, {150, 1000}, bytes},
                                    {"embed.weight", DType::BF16, {1000, 150}, bytes},
                                    {"raw", DType::I16, {1000, 150}, bytes}};
  const Result r = check(tensors, 2);
  REQUIRE(r.rules() == "values.duplicate");
  CHECK(r.found[0].tensor == "embed.weight");
  CHECK(r.found[0].severity == Severity::Note);
  CHECK(r.found[0].text == "stores the 300000 bytes of tensor 'a.weight' again");
  CHECK(r.found[0].offset == 100 + 3 * 300'000);
  CHECK(r.totals.duplicates == 1);
  CHECK(r.totals.duplicate_bytes == 300'000);
}

TEST_CASE("health: of tied embeddings the head is the one too many", "[health]") {
  const Buffer bytes = bytes_of(8192, 5);
  const auto model = model_of({{"lm_head.weight", DType::BF16, {64, 64}, bytes},
                               {"model.embed_tokens.weight", DType::BF16, {64, 64}, bytes}});
  const auto hint = [&](bool tied) {
    const Result r = check(model, 1, tied);
    REQUIRE(r.rules() == "values.duplicate");
    CHECK(r.found[0].tensor == "lm_head.weight");
    CHECK(r.found[0].offset == 100);
    return r.found[0].hint;
  };
  CHECK(hint(false).find("config.json") == std::string::npos);
  CHECK(hint(true).find("config.json says tie_word_embeddings") == 0);
}

TEST_CASE("health: what is small, zero or constant is no duplicate", "[health]") {
  const Buffer small = bytes_of(4094, 6), zeros(8192), ones = packed(many<float>(2048, 1));
  std::vector<Stored> tensors;
  for (const std::string n : {"1", "2"}) {
    tensors.push_back({"small" + n, DType::BF16, {2047}, small});
    tensors.push_back({"bias" + n + ".bias", DType::F32, {2048}, zeros});
    tensors.push_back({"norm" + n, DType::F32, {2048}, ones});
  }
  CHECK(check(tensors).found.empty());
  const Buffer large = bytes_of(4096, 6);
  CHECK(check({{"a", DType::BF16, {2048}, large}, {"b", DType::BF16, {2048}, large}}).rules() ==
        "values.duplicate");
}

TEST_CASE("health: three alike are two duplicates, and pairs are kept apart", "[health]") {
  const Buffer a = bytes_of(5000, 8), b = bytes_of(5000, 9);
  const std::vector<Stored> tensors{{"a1", DType::U8, {5000}, a},
                                    {"b1", DType::U8, {5000}, b},
                                    {"a2", DType::U8, {5000}, a},
                                    {"a3", DType::U8, {5000}, a},
                                    {"b2", DType::U8, {5000}, b}};
  const Result r = check(tensors);
  REQUIRE(r.found.size() == 3);
  CHECK(r.found[0].tensor == "a2");
  CHECK(r.found[1].tensor == "a3");
  CHECK(r.found[2].tensor == "b2");
  CHECK(r.found[1].text.find("'a1'") != std::string::npos);
  CHECK(r.found[2].text.find("'b1'") != std::string::npos);
}

TEST_CASE("health: each rule is listed once, with its words", "[health]") {
  std::vector<std::string_view> ids;
  for (const Rule* rule : health_rules()) {
    ids.push_back(rule->id);
    CHECK(rule->id.starts_with("values."));
    CHECK_FALSE(rule->summary.empty());
    CHECK(rule->forgivable == (rule->severity != Severity::Error));
  }
  std::ranges::sort(ids);
  CHECK(std::ranges::adjacent_find(ids) == ids.end());
  CHECK(ids.size() == 11);
}

// ---- files of the corpus

Result check_file(const std::string& name) {
  Diagnostics faults;
  return check(open_model(WTOOL_SOURCE_DIR "/testdata/" + name, all_formats(), {}, faults), 2);
}

// Positions: the data section begins at byte 64 of these files, a block of 34 bytes after 34.
TEST_CASE("health: the corpus' bad scales are found where they are", "[health]") {
  const std::vector<std::pair<std::string, std::uint64_t>> files{
      {"q8_scale_nan", 64},         {"q8_scale_inf_second_block", 98},
      {"q4_0_scale_neg_inf", 82},   {"q4_1_min_nan", 66},
      {"q4_k_dmin_nan", 64 + 146},  {"q2_k_scale_at_end_inf", 64 + 80},
      {"q6_k_scale_nan", 64 + 208}, {"q8_k_scale_nan", 64},
      {"iq1_m_scale_nan", 64 + 48}, {"mxfp4_e_255", 64 + 17}};
  for (const auto& [name, offset] : files) {
    INFO(name);
    const Result r = check_file("gguf/" + name + ".gguf");
    const Found* f = r.find("values.scale");
    REQUIRE(f != nullptr);
    CHECK(f->offset == offset);
    CHECK(f->severity == Severity::Error);
  }
}

// What the reference implementations accept may be odd, but holds no error.
TEST_CASE("health: accepted files of the corpus have no errors", "[health]") {
  std::size_t files = 0;
  for (const std::string folder : {"gguf", "safetensors"}) {
    std::ifstream in(WTOOL_SOURCE_DIR "/testdata/" + folder + "/manifest.json");
    const auto manifest = nlohmann::json::parse(in);
    for (const auto& file : manifest.at("files")) {
      if (file.at("verdict") != "accept") continue;
      const auto name = file.at("file").get<std::string>();
      INFO(folder << '/' << name);
      for (const Found& f : check_file(folder + '/' + name).found)
        CHECK(f.severity != Severity::Error);
      ++files;
    }
  }
  CHECK(files > 100);
}

}  // namespace
}  // namespace wtool
