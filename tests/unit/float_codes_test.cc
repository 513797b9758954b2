#include "lib/numeric/float_codes.h"

#include <cmath>
#include <random>

#include "lib/numeric/codec.h"
#include "tests/catch.h"
#include "tests/simd_levels.h"

namespace wtool {
namespace {

// Codes in order of their values, as OCP's tables give them: sign, exponent, mantissa.
float e2m1(unsigned code) {
  constexpr float kValues[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return code & 8 ? -kValues[code & 7] : kValues[code & 7];
}
float e4m3(unsigned code) {
  const int exponent = static_cast<int>(code >> 3 & 15), mantissa = static_cast<int>(code & 7);
  const float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                    : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return code & 0x80 ? -value : value;
}

struct Type {
  SmallFloat type;
  float (*value)(unsigned);
  unsigned codes;  // of one sign, but for NaN
};
const Type kTypes[] = {{SmallFloat::E4m3, e4m3, 127}, {SmallFloat::E2m1, e2m1, 8}};

std::pair<unsigned, float> code_of(SmallFloat type, float x, float scale = 1) {
  std::uint8_t code;
  float decoded;
  f32_to_codes(type, &x, 1, scale, &code, &decoded);
  return {code, decoded};
}

TEST_CASE("small floats: every level is its own code", "[float_codes]") {
  for (const Type& t : kTypes)
    for (unsigned code = 0; code < t.codes; ++code) {
      CHECK(code_of(t.type, t.value(code)) == std::pair{code, t.value(code)});
      const unsigned minus = code | (t.type == SmallFloat::E4m3 ? 0x80 : 8);
      CHECK(code_of(t.type, -t.value(code)).first == minus);
      CHECK(code_of(t.type, t.value(code) * 0.375f, 0.375f).first == code);
    }
}

TEST_CASE("small floats: half-way between two levels lies the even one", "[float_codes]") {
  for (const Type& t : kTypes)
    for (unsigned code = 0; code + 1 < t.codes; ++code) {
      const float low = t.value(code), high = t.value(code + 1), middle = (low + high) / 2;
      CHECK(code_of(t.type, middle).first == (code % 2 == 0 ? code : code + 1));
      CHECK(code_of(t.type, std::nextafter(middle, 0.0f)).first == code);
      CHECK(code_of(t.type, std::nextafter(middle, 1e9f)).first == code + 1);
    }
}

TEST_CASE("small floats: beyond the last level is the last level", "[float_codes]") {
  CHECK(code_of(SmallFloat::E4m3, 1e30f) == std::pair{0x7Eu, 448.0f});
  CHECK(code_of(SmallFloat::E4m3, -464.0f) == std::pair{0xFEu, -448.0f});
  CHECK(code_of(SmallFloat::E2m1, 7.0f) == std::pair{7u, 6.0f});
  CHECK(code_of(SmallFloat::E2m1, -1e30f) == std::pair{15u, -6.0f});
}

TEST_CASE("small floats: every instruction set gives the same codes", "[float_codes][simd]") {
  std::mt19937 random(5);
  std::student_t_distribution<float> tails(2);
  std::vector<float> in(1003);
  for (float& x : in) x = tails(random) * 30;
  in[7] = -0.0f, in[8] = 1e-30f, in[9] = -1e-30f, in[10] = 3e38f;
  for (const Type& t : kTypes)
    for (const float scale : {1.0f, 0.03f, 0x1p-120f, 0x1p100f}) {
      std::vector<std::uint8_t> expected(in.size()), codes(in.size());
      std::vector<float> wanted(in.size()), decoded(in.size());
      f32_to_codes_scalar(t.type, in.data(), in.size(), scale, expected.data(), wanted.data());
      for (const Simd level : levels()) {
        const AtLevel at(level);
        f32_to_codes(t.type, in.data(), in.size(), scale, codes.data(), decoded.data());
        INFO(name_of(level));
        CHECK(codes == expected);
        CHECK(std::memcmp(decoded.data(), wanted.data(), in.size() * sizeof(float)) == 0);
      }
    }
}

struct Coded {
  Buffer codes, scales;
  Drift drift;
};
Coded coded(const FloatCoding& how, std::uint64_t rows, std::uint64_t cols,
            const std::vector<float>& in, const std::vector<float>& importance = {}) {
  Coded out;
  const std::uint64_t group = how.group == 0 ? cols : how.group;
  const std::uint64_t groups = ceil_div(rows, how.group_rows) * ceil_div(cols, group);
  out.codes.resize(rows * cols / (how.type == SmallFloat::E2m1 ? 2 : 1));
  out.scales.resize(groups * info(how.scale).block_bytes);
  Scratch scratch;
  code_floats(how, rows, cols, in, importance, out.codes, out.scales, out.drift, scratch);
  return out;
}

TEST_CASE("small floats: powers of two as scales let the largest value in", "[float_codes]") {
  const auto exponent = [](float largest, SmallFloat type, ScaleMethod method) {
    std::vector<float> in(32);
    in[3] = largest;
    const Coded c =
        coded({.type = type, .group = 32, .scale = DType::F8_E8M0, .method = method}, 1, 32, in);
    return static_cast<int>(c.scales[0]) - 127;
  };
  // amax / 4 or less, but from 1.75 of a power of two up to the next.
  CHECK(exponent(6, SmallFloat::E2m1, ScaleMethod::Rtn) == 0);
  CHECK(exponent(6.9f, SmallFloat::E2m1, ScaleMethod::Rtn) == 0);
  CHECK(exponent(7, SmallFloat::E2m1, ScaleMethod::Rtn) == 1);
  CHECK(exponent(1, SmallFloat::E2m1, ScaleMethod::Rtn) == -2);
  CHECK(exponent(448, SmallFloat::E4m3, ScaleMethod::Rtn) == 1);
  CHECK(exponent(447, SmallFloat::E4m3, ScaleMethod::Rtn) == 0);
  CHECK(exponent(0, SmallFloat::E2m1, ScaleMethod::Rtn) == 0);
  CHECK(exponent(0, SmallFloat::E2m1, ScaleMethod::Search) == 0);
}

TEST_CASE("small floats: short blocks at the ends have a scale of their own", "[float_codes]") {
  const std::uint64_t rows = 130, cols = 200;
  std::vector<float> in(rows * cols, 1);
  in[0] = 448;                  // block (0, 0)
  in[199] = 896;                // (0, 1)
  in[129 * 200] = -224;         // (1, 0)
  in[129 * 200 + 199] = 44.8f;  // (1, 1)
  const Coded c =
      coded({.group = 128, .group_rows = 128, .method = ScaleMethod::Rtn}, rows, cols, in);
  CHECK(load<float>(c.scales, 0) == 1);
  CHECK(load<float>(c.scales, 1) == 2);
  CHECK(load<float>(c.scales, 2) == 0.5f);
  CHECK(load<float>(c.scales, 3) == 44.8f / 448);
  CHECK(c.codes[0] == std::byte{0x7E});
  CHECK(c.codes[129 * 200] == std::byte{0xFE});
  CHECK(c.drift.elements == rows * cols);
}

TEST_CASE("small floats: scales beyond their type are counted with the first of their values",
          "[float_codes]") {
  std::vector<float> in(64, 0.5f);
  in[40] = 3e38f;
  const Coded c = coded(
      {.type = SmallFloat::E2m1, .group = 16, .scale = DType::F8_E4M3, .method = ScaleMethod::Rtn},
      1, 64, in);
  CHECK(c.drift.overflows == 16);
  CHECK(c.drift.first_bad == 32);
}

TEST_CASE("small floats: a search loses no more than rounding to nearest, weighed or not",
          "[float_codes]") {
  std::mt19937 random(8);
  std::student_t_distribution<float> tails(3);
  const std::uint64_t rows = 128, cols = 256;
  std::vector<float> in(rows * cols), importance(cols);
  for (float& x : in) x = tails(random);
  for (float& w : importance) w = std::abs(tails(random));
  for (const FloatCoding& how :
       {FloatCoding{.group = 0}, FloatCoding{.group = 128, .group_rows = 128},
        FloatCoding{.type = SmallFloat::E2m1, .group = 16, .scale = DType::F8_E4M3, .global = 8},
        FloatCoding{.type = SmallFloat::E2m1, .group = 32, .scale = DType::F8_E8M0}}) {
    FloatCoding rtn = how;
    rtn.method = ScaleMethod::Rtn;
    CHECK(coded(how, rows, cols, in).drift.error2 < coded(rtn, rows, cols, in).drift.error2);
    CHECK(coded(how, rows, cols, in, importance).drift.weighted_error2 <
          coded(rtn, rows, cols, in, importance).drift.weighted_error2);
  }
}

}  // namespace
}  // namespace wtool
