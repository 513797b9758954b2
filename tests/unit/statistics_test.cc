#include "lib/numeric/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/numeric/codec.h"
#include "tests/catch.h"
#include "tests/simd_levels.h"
#include "tests/unit/step_run.h"

namespace wtool {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNaN = std::numeric_limits<float>::quiet_NaN();

Statistics stats(TensorPtr of, StatisticsOptions options = {}, bool backwards = false) {
  StatisticsStep step("t", {std::move(of)}, options);
  run(step, backwards);
  return step.result();
}
Statistics of_f32(const std::vector<float>& values, StatisticsOptions options = {}) {
  return stats(tensor(DType::F32, {values.size()}, values), options);
}
template <class T>
Statistics of(DType type, const std::vector<T>& values, StatisticsOptions options = {}) {
  return stats(tensor(type, {values.size()}, values), options);
}
double min_of(const Statistics& s) {
  return to_double(s.moments.min());
}
double max_of(const Statistics& s) {
  return to_double(s.moments.max());
}

// Bit for bit: nothing may depend on the way.
bool same(const Statistics& a, const Statistics& b) {
  return std::memcmp(&a.moments.mean, &b.moments.mean, sizeof(double)) == 0 &&
         std::memcmp(&a.moments.m2, &b.moments.m2, sizeof(double)) == 0 &&
         a.moments.lowest == b.moments.lowest && a.moments.highest == b.moments.highest &&
         a.moments.elements == b.moments.elements && a.moments.zeros == b.moments.zeros &&
         a.moments.subnormals == b.moments.subnormals && a.moments.nan == b.moments.nan &&
         a.moments.infinite == b.moments.infinite && a.moments.first_bad == b.moments.first_bad &&
         a.moments.first_bits == b.moments.first_bits &&
         a.moments.overflows == b.moments.overflows &&
         a.moments.underflows == b.moments.underflows && a.outliers == b.outliers &&
         a.percentiles == b.percentiles && a.histogram == b.histogram && a.exact == b.exact;
}

std::vector<float> weights(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.01f, 0.02f);
  std::vector<float> out(n);
  for (float& v : out) v = normal(random);
  return out;
}

// The definition: sorted, the smallest value that so many do not exceed.
double rank(std::vector<float> values, double share) {
  std::ranges::sort(values);
  const double n = std::ceil(share * static_cast<double>(values.size()) - 1e-9);
  return values[static_cast<std::size_t>(std::max(1.0, n)) - 1];
}

}  // namespace

TEST_CASE("statistics: the figures of a few values are those worked out by hand", "[statistics]") {
  const Statistics s = of_f32({1, 2, 3, 4, -2, 0, 0, 0});
  CHECK(s.moments.elements == 8);
  CHECK(min_of(s) == -2);
  CHECK(max_of(s) == 4);
  CHECK(s.moments.abs_max() == 4);
  CHECK(s.moments.mean == 1);                         // 8 / 8
  CHECK(s.moments.std() == Approx(std::sqrt(3.25)));  // (34 - 8) / 8
  CHECK(s.moments.zeros == 3);
  CHECK(s.moments.subnormals == 0);
  CHECK(s.exact);
  CHECK(s.percentiles == std::array<double, 5>{-2, -2, 0, 4, 4});
  CHECK(s.histogram.front() == 1);
  CHECK(s.histogram.back() == 1);
  CHECK(s.histogram[5] == 3);  // 0 is a third of the way from -2 to 4: 16 / 3
}

TEST_CASE("statistics: negative zero is a zero and below zero", "[statistics]") {
  const Statistics s = of_f32({-0.0f, 0.0f, -0.0f});
  CHECK(s.moments.zeros == 3);
  CHECK(std::signbit(min_of(s)));
  CHECK_FALSE(std::signbit(max_of(s)));
  CHECK(s.moments.std() == 0);
  CHECK(s.percentiles[2] == 0);
  CHECK(s.outliers == 0);
}

TEST_CASE("statistics: a constant has no deviation, however large it is", "[statistics]") {
  const Statistics s = of_f32(std::vector<float>(100'000, 1e30f));
  CHECK(s.moments.mean == double{1e30f});
  CHECK(s.moments.m2 == 0);
  CHECK(s.percentiles[0] == double{1e30f});
  CHECK(s.outliers == 0);
}

TEST_CASE("statistics: a large mean costs the deviation no digits", "[statistics]") {
  std::vector<std::int64_t> values;
  for (int i = 0; i < 3000; ++i) values.push_back((std::int64_t{1} << 60) + i % 3);
  const Statistics s = of(DType::I64, values);
  CHECK(s.moments.std() == Approx(std::sqrt(2.0 / 3)).epsilon(1e-12));
  CHECK(std::get<std::int64_t>(s.moments.max()) == (std::int64_t{1} << 60) + 2);
}

TEST_CASE("statistics: empty tensors have no figures and are no error", "[statistics]") {
  StatisticsStep step("t", {tensor<float>(DType::F32, {0, 4}, {})});
  CHECK(step.units() == 0);
  run(step);
  CHECK(step.result().moments.elements == 0);
  CHECK(step.result().moments.finite == 0);
}

TEST_CASE("statistics: NaN and infinities are counted and left out", "[statistics]") {
  const float odd_nan = std::bit_cast<float>(0x7FA12345u);
  const Statistics s = of_f32({5, 1, -kInf, odd_nan, 3, kInf, kNaN});
  CHECK(s.moments.nan == 2);
  CHECK(s.moments.infinite == 2);
  CHECK(s.moments.finite == 3);
  CHECK(s.moments.first_bad == 2);
  CHECK(s.moments.first_bits == 0xFF800000);
  CHECK(min_of(s) == 1);
  CHECK(max_of(s) == 5);
  CHECK(s.moments.mean == 3);
  CHECK(s.percentiles == std::array<double, 5>{1, 1, 3, 5, 5});
  CHECK(of_f32({1, odd_nan}).moments.first_bits == 0x7FA12345);
}

TEST_CASE("statistics: a tensor of nothing but NaN", "[statistics]") {
  const Statistics s = of_f32(std::vector<float>(70'000, kNaN));
  CHECK(s.moments.nan == 70'000);
  CHECK(s.moments.finite == 0);
  CHECK(s.moments.first_bad == 0);
  CHECK(s.histogram.empty());
}

TEST_CASE("statistics: zeros beside NaN are counted once", "[statistics]") {
  // Zero comes first, so zeros stand in for what is not finite.
  const Statistics s = of_f32({0, kNaN, 1, kNaN, 0, 1e-40f});
  CHECK(s.moments.zeros == 2);
  CHECK(s.moments.subnormals == 1);
  CHECK(s.moments.mean == Approx(0.25).epsilon(1e-12));
  // Half a tensor of NaN before the first number.
  std::vector<float> late(10'000, kNaN);
  late.push_back(7);
  CHECK(of_f32(late).moments.mean == 7);
  CHECK(of_f32(late).moments.nan == 10'000);
}

TEST_CASE("statistics: subnormals are those of the tensor's own type", "[statistics]") {
  // 0x03FF is f16's largest subnormal, 0x0400 its smallest normal; 0x0001 its smallest.
  const Statistics half = of<std::uint16_t>(DType::F16, {0x03FF, 0x0400, 0x8001, 0x0000, 0x8000});
  CHECK(half.moments.subnormals == 2);
  CHECK(half.moments.zeros == 2);
  CHECK(min_of(half) == -std::ldexp(1.0, -24));
  CHECK(max_of(half) == std::ldexp(1.0, -14));
  CHECK(of<std::uint16_t>(DType::BF16, {0x007F, 0x0080}).moments.subnormals == 1);
  CHECK(of<std::uint8_t>(DType::F8_E4M3, {0x07, 0x08, 0x87}).moments.subnormals == 2);
  CHECK(of<double>(DType::F64, {5e-324, 2.3e-308, 2.2e-308, 0}).moments.subnormals == 2);
  CHECK(of_f32({0x1p-126f, 0x1p-127f, -0x1p-149f}).moments.subnormals == 2);
}

TEST_CASE("statistics: the pattern of a NaN is as it is stored", "[statistics]") {
  CHECK(of<std::uint16_t>(DType::F16, {0x3C00, 0xFE01}).moments.first_bits == 0xFE01);
  CHECK(of<std::uint16_t>(DType::BF16, {0x3F80, 0x7F81}).moments.first_bits == 0x7F81);
  CHECK(of<std::uint8_t>(DType::F8_E4M3, {0x38, 0xFF}).moments.first_bits == 0xFF);
  const auto nan = std::bit_cast<double>(0x7FF0000000000123u);
  const Statistics s = of<double>(DType::F64, {1, nan});
  CHECK(s.moments.first_bits == 0x7FF0000000000123u);
  CHECK(s.moments.first_bad == 1);
}

TEST_CASE("statistics: integers keep their extremes exactly", "[statistics]") {
  using Signed = std::numeric_limits<std::int64_t>;
  const Statistics wide = of<std::int64_t>(DType::I64, {Signed::min(), 0, Signed::max()});
  CHECK(std::get<std::int64_t>(wide.moments.min()) == Signed::min());
  CHECK(std::get<std::int64_t>(wide.moments.max()) == Signed::max());
  CHECK_FALSE(wide.exact);
  const auto most = std::numeric_limits<std::uint64_t>::max();
  const Statistics natural = of<std::uint64_t>(DType::U64, {most, most - 1});
  CHECK(std::get<std::uint64_t>(natural.moments.max()) == most);
  CHECK(std::get<std::uint64_t>(natural.moments.min()) == most - 1);
  CHECK(natural.moments.std() == 0.5);
  const Statistics bytes = of<std::int8_t>(DType::I8, {-128, 127, 0, 5});
  CHECK(std::get<std::int64_t>(bytes.moments.min()) == -128);
  CHECK(std::get<std::int64_t>(bytes.moments.max()) == 127);
  CHECK(bytes.exact);
  const Statistics truth = of<std::uint8_t>(DType::Bool, {1, 0, 1, 1});
  CHECK(truth.moments.mean == 0.75);
  CHECK(truth.moments.zeros == 1);
  const Statistics small = of<std::int32_t>(DType::I32, {3, -4, 100});
  CHECK(small.exact);
  CHECK(small.percentiles[2] == 3);
}

TEST_CASE("statistics: percentiles of 16 bits and fewer are values of the tensor", "[statistics]") {
  std::vector<std::uint16_t> halves;
  std::vector<float> values;
  std::mt19937 random(3);
  for (int i = 0; i < 100'003; ++i) {
    const auto h = static_cast<std::uint16_t>(random() & 0xBFFF);  // finite, both signs
    float v = 0;
    codec(DType::F16).decode(reinterpret_cast<const std::byte*>(&h), &v, 1);
    halves.push_back(h);
    values.push_back(v);
  }
  const Statistics s = of(DType::F16, halves);
  CHECK(s.exact);
  for (std::size_t i = 0; i < 5; ++i)
    CHECK(s.percentiles[i] ==
          rank(values, static_cast<double>(Statistics::kThousandths[i]) / 1000));
  std::vector<std::int16_t> shorts;
  for (int i = -500; i < 500; ++i) shorts.push_back(static_cast<std::int16_t>(i * 65));
  const Statistics t = of(DType::I16, shorts);
  CHECK(t.exact);
  CHECK(t.percentiles == std::array<double, 5>{-32500, -31915, -65, 31785, 32370});
}

TEST_CASE("statistics: percentiles of f32 are within half a bf16 step, and say so",
          "[statistics]") {
  const std::vector<float> values = weights(300'000, 1);
  const Statistics s = of_f32(values);
  CHECK_FALSE(s.exact);
  for (std::size_t i = 0; i < 5; ++i) {
    const double v = rank(values, static_cast<double>(Statistics::kThousandths[i]) / 1000);
    CHECK(std::abs(s.percentiles[i] - v) <= std::abs(v) / 256);
  }
  // Values that bf16 holds lose nothing.
  CHECK(of_f32({1.5f, -3, 0.25f}).exact);
  CHECK_FALSE(of_f32({1.5f, -3, 0.1f}).exact);
}

TEST_CASE("statistics: mean and deviation follow their definitions", "[statistics]") {
  const std::vector<float> values = weights(5'000'011, 2);  // three units
  long double sum = 0, sum2 = 0;
  for (const float v : values) sum += v;
  const long double mean = sum / static_cast<long double>(values.size());
  for (const float v : values) sum2 += (v - mean) * (v - mean);
  const Statistics s = of_f32(values);
  CHECK(s.moments.mean == Approx(static_cast<double>(mean)).epsilon(1e-12));
  CHECK(s.moments.std() == Approx(std::sqrt(static_cast<double>(sum2) / 5'000'011)).epsilon(1e-12));
}

TEST_CASE("statistics: outliers are beyond six deviations from the mean", "[statistics]") {
  std::vector<std::uint16_t> values;  // 999 times ±1, once 100: the deviation is 3.3
  for (int i = 0; i < 999; ++i) values.push_back(i % 2 == 0 ? 0x3C00 : 0xBC00);
  values.push_back(0x5640);
  const Statistics s = of(DType::F16, values);
  CHECK(s.outliers == 1);
  // A norm's weights near 1 are none.
  CHECK(of_f32({1, 1.01f, 0.99f, 1.02f}).outliers == 0);
  // Nor are they where all of them share a bin or two that are wide beside the deviation.
  std::vector<float> near_one;
  for (int i = 0; i < 1000; ++i) near_one.push_back(1 + 1e-5f * static_cast<float>(i % 7 - 3));
  near_one.push_back(2.5f);
  CHECK(of_f32(near_one).outliers == 1);
  near_one.back() = 1;
  CHECK(of_f32(near_one).outliers == 0);
  CHECK(of_f32(near_one).percentiles[2] == Approx(1).epsilon(1e-4));
}

TEST_CASE("statistics: a cast's range is counted before the cast", "[statistics]") {
  StatisticsOptions to_half{.cast = DType::F16};
  // 65520 is the first to round to infinity; 2^-25 the last to round to zero.
  const Statistics s = of_f32(
      {65519.996f, 65520, -1e30f, 0x1p-25f, 0x1.000002p-25f, 1e-40f, 0, kInf, kNaN}, to_half);
  CHECK(s.moments.overflows == 2);
  CHECK(s.moments.underflows == 2);
  // As many as the encoder itself makes infinite, or zero: every type, from every exponent.
  std::vector<float> all;
  std::mt19937 random(5);
  for (int i = 0; i < 20'000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    if (std::isfinite(std::bit_cast<float>(bits))) all.push_back(std::bit_cast<float>(bits));
  }
  for (const DType to : {DType::F16, DType::BF16, DType::F8_E5M2, DType::F32}) {
    std::vector<float> back(all.size());
    Buffer stored(all.size() * 4);
    codec(to).encode(all.data(), stored.data(), all.size());
    codec(to).decode(stored.data(), back.data(), all.size());
    std::uint64_t infinite = 0, zero = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      infinite += std::isinf(back[i]);
      zero += back[i] == 0 && all[i] != 0;
    }
    const Statistics t = of_f32(all, {.cast = to});
    CHECK(t.moments.overflows == infinite);
    CHECK(t.moments.underflows == zero);
  }
  const Statistics wide =
      of<double>(DType::F64, {1e300, 3e38, 1e-300, 1, 65519.9999999999}, {.cast = DType::F32});
  CHECK(wide.moments.overflows == 1);
  CHECK(wide.moments.underflows == 1);
  CHECK(of<double>(DType::F64, {65519.9999999999, 65520}, to_half).moments.overflows == 1);
  CHECK(of<std::int32_t>(DType::I32, {65519, 65520, -70000}, to_half).moments.overflows == 2);
  CHECK_THROWS_AS(of_f32({1}, {.cast = DType::I8}), Error);
  CHECK_THROWS_AS(of_f32({1}, {.cast = DType::Q4_0}), Error);
}

TEST_CASE("statistics: every instruction set and order of units gives the same", "[statistics]") {
  std::vector<float> values = weights(4'300'007, 7);
  values[17] = -0.0f;
  values[4'200'000] = 1e-40f;
  values[2'500'000] = kNaN;
  values[2'500'001] = -kInf;
  const auto bytes = tensor(DType::F32, {4'300'007}, values);
  const StatisticsOptions options{.cast = DType::F16};
  const auto at = [&](Simd level, bool backwards) {
    const AtLevel use(level);
    return stats(bytes, options, backwards);
  };
  const Statistics reference = at(Simd::Scalar, false);
  CHECK(reference.moments.first_bad == 2'500'000);
  for (const Simd level : levels()) {
    CHECK(same(reference, at(level, false)));
    CHECK(same(reference, at(level, true)));
  }
}

TEST_CASE("statistics: short tensors of every length agree with the reference", "[statistics]") {
  for (std::size_t n = 1; n < 70; ++n) {
    std::vector<float> values = weights(n, static_cast<unsigned>(n));
    if (n % 5 == 0) values[n / 2] = kInf;
    if (n % 7 == 0) values[n - 1] = 0;
    const auto at = [&](Simd level) {
      const AtLevel use(level);
      return of_f32(values, {.cast = DType::F8_E4M3});
    };
    for (const Simd level : levels()) CHECK(same(at(Simd::Scalar), at(level)));
  }
}

TEST_CASE("statistics: every type that can be decoded has figures", "[statistics]") {
  std::mt19937 random(11);
  for (const DTypeInfo& t : all_dtypes()) {
    const std::uint64_t n = 512;  // whole blocks of each type
    const auto size = byte_size(t.id, n);
    REQUIRE(size);
    Buffer raw(*size);
    for (std::byte& b : raw) b = static_cast<std::byte>(random() & 0x3F);
    const auto values = std::make_shared<Memory>(t.id, Shape{n}, raw);
    INFO(t.name);
    if (find_codec(t.id) == nullptr) {
      CHECK(statistics_refuses(*values));
      CHECK_THROWS_AS(stats(values), Error);
      continue;
    }
    Scratch scratch;
    std::vector<double> decoded(n);
    read_f64(*values, values->whole(), decoded, scratch);
    std::vector<double> finite;
    std::ranges::copy_if(decoded, std::back_inserter(finite),
                         [](double v) { return std::isfinite(v); });
    const Statistics s = stats(values);
    CHECK(s.moments.elements == n);
    REQUIRE(s.moments.finite == finite.size());
    if (finite.empty()) continue;
    CHECK(min_of(s) == *std::ranges::min_element(finite));
    CHECK(max_of(s) == *std::ranges::max_element(finite));
    std::uint64_t counted = 0;
    for (const std::uint64_t c : s.histogram) counted += c;
    CHECK(counted == finite.size());
  }
}

TEST_CASE("statistics: several tensors together are as one", "[statistics]") {
  const std::vector<float> a = weights(70'000, 1), b = weights(3, 2);
  std::vector<float> both = a;
  both.insert(both.end(), b.begin(), b.end());
  StatisticsStep step("layer", {tensor(DType::F32, {70'000}, a), tensor(DType::F32, {3}, b)});
  run(step);
  const Statistics &s = step.result(), one = of_f32(both);
  CHECK(s.moments.elements == one.moments.elements);
  CHECK(s.moments.mean == Approx(one.moments.mean).epsilon(1e-12));
  CHECK(s.moments.std() == Approx(one.moments.std()).epsilon(1e-12));
  CHECK(s.percentiles == one.percentiles);
  CHECK(s.outliers == one.outliers);
  // Of different types: as doubles; the first that has NaN is named.
  StatisticsStep mixed("layer", {tensor<std::int8_t>(DType::I8, {2}, {-7, 3}),
                                 tensor<float>(DType::F32, {2}, {0.5f, kNaN}),
                                 tensor<float>(DType::F32, {1}, {kNaN})});
  run(mixed);
  CHECK(to_double(mixed.result().moments.min()) == -7);
  CHECK(to_double(mixed.result().moments.max()) == 3);
  CHECK(mixed.result().first_bad_tensor == 1);
  CHECK(mixed.result().moments.first_bad == 1);
  CHECK(mixed.result().moments.nan == 2);
}

TEST_CASE("statistics: without a distribution the moments are the same", "[statistics]") {
  const std::vector<float> values = weights(100'000, 4);
  const Statistics all = of_f32(values), few = of_f32(values, {.distribution = false});
  CHECK(all.moments.mean == few.moments.mean);
  CHECK(all.moments.m2 == few.moments.m2);
  CHECK(few.histogram.empty());
}

TEST_CASE("statistics: extremes of rows and columns", "[statistics]") {
  const auto t = tensor<float>(DType::F32, {2, 2, 3},
                               {1, -2, 3, 4, 5, kNaN,  //
                                kInf, 0, -9, 2, 2, 2});
  ExtremesStep rows(t, ExtremesStep::Along::Rows), columns(t, ExtremesStep::Along::Columns);
  run(rows);
  run(columns);
  REQUIRE(rows.result().size() == 4);
  CHECK(rows.result()[0].min == -2);
  CHECK(rows.result()[0].max == 3);
  CHECK(rows.result()[1].non_finite == 1);
  CHECK(rows.result()[1].max == 5);
  CHECK(rows.result()[2].min == -9);
  REQUIRE(columns.result().size() == 3);
  CHECK(columns.result()[0].max == 4);
  CHECK(columns.result()[0].non_finite == 1);
  CHECK(columns.result()[2].min == -9);
  CHECK(columns.result()[2].non_finite == 1);
  const auto long_one = tensor(DType::U8, {1 << 21}, std::vector<std::uint8_t>(1 << 21, 3));
  CHECK_THROWS_AS(ExtremesStep(long_one, ExtremesStep::Along::Columns), Error);
  ExtremesStep across(long_one, ExtremesStep::Along::Rows);  // one row, cut into several units
  run(across);
  CHECK(across.units() > 1);
  REQUIRE(across.result().size() == 1);
  CHECK(across.result()[0].max == 3);
}

}  // namespace wtool
