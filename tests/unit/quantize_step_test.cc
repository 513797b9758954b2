#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/steps.h"
#include "tests/catch.h"
#include "tests/simd_levels.h"
#include "tests/unit/golden.h"
#include "tests/unit/step_run.h"

namespace wtool {
namespace {

std::vector<float> normal(std::size_t n, float deviation, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw(0, deviation);
  std::vector<float> out(n);
  for (float& v : out) v = draw(random);
  return out;
}
std::vector<float> positive(std::size_t n, unsigned seed = 2) {
  std::vector<float> out = normal(n, 1, seed);
  for (float& v : out) v = std::exp(v);
  return out;
}
auto reader_of(std::vector<float> importance) {
  return [values = std::move(importance)](std::uint64_t first, std::span<float> out) {
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(first), out.size(), out.begin());
  };
}
QuantizeOptions weighted(std::vector<float> importance) {
  return {.method = Method::Exact, .measure = true, .importance = reader_of(std::move(importance))};
}

std::vector<std::size_t> differing(DType type, const Buffer& a, const Buffer& b) {
  REQUIRE(a.size() == b.size());
  const std::size_t size = info(type).block_bytes;
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i * size < a.size(); ++i)
    if (std::memcmp(&a[i * size], &b[i * size], size) != 0) out.push_back(i);
  return out;
}

// Blocks of the golden input below 2^-125, where the reference's exponent byte wraps.
bool has_wrapped_exponent(const Buffer& golden_bytes, std::size_t block) {
  return static_cast<unsigned>(golden_bytes[block * 17]) >= 240;
}

TensorPtr golden_input() {
  return tensor(DType::F32, {64, 512}, golden_floats("input.f32"));
}

TEST_CASE("quantize_step: every type gives the reference's bytes", "[quantize_step]") {
  for (const Quantizer& q : all_quantizers()) {
    CAPTURE(name_of(q.dtype));
    const Buffer want = golden(golden_name(q.dtype) + ".bin");
    const Done done = run(*quantize_step("t", golden_input(), q.dtype));
    for (const std::size_t block : differing(q.dtype, done.outputs[0], want)) {
      CAPTURE(block);
      CHECK((q.dtype == DType::MXFP4 && has_wrapped_exponent(want, block)));
    }
    CHECK(done.count("non_finite") == 0);
    CHECK(done.count("overflows") == 0);
  }
}

TEST_CASE(
    "quantize_step: with importance the reference's bytes, or the plain ones where those are "
    "infinite",
    "[quantize_step]") {
  for (const Quantizer& q : all_quantizers()) {
    if (q.weighted == nullptr) continue;
    CAPTURE(name_of(q.dtype));
    const Buffer want = golden(golden_name(q.dtype) + ".imatrix.bin");
    const Buffer plain = golden(golden_name(q.dtype) + ".bin");
    const auto options = weighted(golden_floats("imatrix.f32"));
    const Done done = run(*quantize_step("t", golden_input(), q.dtype, options));
    std::vector<float> values(64 * 512);
    codec(q.dtype).decode(want.data(), values.data(), values.size());
    const auto others = differing(q.dtype, done.outputs[0], want);
    const std::size_t size = info(q.dtype).block_bytes, elements = info(q.dtype).block_elems;
    for (const std::size_t block : others) {
      CAPTURE(block);
      CHECK_FALSE(std::isfinite(values[block * elements] + values[block * elements + 1]));
      CHECK(std::memcmp(&done.outputs[0][block * size], &plain[block * size], size) == 0);
    }
    CHECK(done.count("fallback_blocks") == others.size());
    const bool has_infinite = q.dtype == DType::Q4_1 || q.dtype == DType::Q5_1;
    CHECK((others.size() > 0) == has_infinite);
  }
}

// Rows that do not fit into a piece, or a unit, are weighed by their whole length all the same.
TEST_CASE("quantize_step: a long row is one row", "[quantize_step]") {
  for (const std::size_t columns : {std::size_t{40960}, (std::size_t{1} << 18) + 768}) {
    auto values = normal(2 * columns, 0.02f);
    for (std::size_t i = columns; i < 2 * columns; ++i) values[i] *= 3;
    const auto importance = positive(columns);
    for (const DType type : {DType::Q4_0, DType::Q5_1, DType::Q4_K}) {
      CAPTURE(columns, name_of(type));
      float mean[2];
      mean_squares(values.data(), 2, columns, mean);
      Buffer want(checked_size(type, values.size()));
      find_quantizer(type)->weighted({values.data(), 2, columns, importance.data(), mean},
                                     want.data());
      const auto from = tensor(DType::F32, {2, columns}, values);
      CHECK(run(*quantize_step("t", from, type, weighted(importance))).outputs[0] == want);
    }
  }
}

TEST_CASE("quantize_step: each expert has its own importance", "[quantize_step]") {
  constexpr std::size_t kExperts = 3, kRows = 5, kColumns = 512, kMatrix = kRows * kColumns;
  const auto values = normal(kExperts * kMatrix, 0.02f);
  const auto importance = positive(kExperts * kColumns);
  const auto stack = tensor(DType::F32, {kExperts, kRows, kColumns}, values);
  for (const DType type : {DType::Q4_0, DType::Q2_K, DType::IQ4_XS}) {
    CAPTURE(name_of(type));
    Buffer want;
    for (std::size_t e = 0; e < kExperts; ++e) {
      const auto part = [&](const std::vector<float>& of, std::size_t n) {
        return std::vector<float>(of.begin() + static_cast<std::ptrdiff_t>(e * n),
                                  of.begin() + static_cast<std::ptrdiff_t>((e + 1) * n));
      };
      const auto one = tensor(DType::F32, {kRows, kColumns}, part(values, kMatrix));
      const auto options = weighted(part(importance, kColumns));
      append(want, run(*quantize_step("t", one, type, options)).outputs[0]);
    }
    CHECK(run(*quantize_step("t", stack, type, weighted(importance))).outputs[0] == want);
  }
}

TEST_CASE("quantize_step: a fourth dimension shares the importance of the third",
          "[quantize_step]") {
  const auto values = normal(2 * 3 * 4 * 256, 1), importance = positive(3 * 256);
  QuantizeOptions options = weighted(importance);
  const auto made = [&](Shape shape, const std::vector<float>& of) {
    return run(*quantize_step("t", tensor(DType::F32, std::move(shape), of), DType::Q4_K, options))
        .outputs[0];
  };
  const auto half = values.begin() + 3 * 4 * 256;
  Buffer want = made({3, 4, 256}, {values.begin(), half});
  append(want, made({3, 4, 256}, {half, values.end()}));
  CHECK(made({2, 3, 4, 256}, values) == want);
}

TEST_CASE("quantize_step: the same bytes and report in any order and on any instruction set",
          "[quantize_step]") {
  const std::size_t columns = 1536, rows = 400;  // three units
  const auto from = tensor(DType::F32, {rows, columns}, normal(rows * columns, 0.02f));
  const auto importance = positive(columns);
  for (const DType type : {DType::Q4_0, DType::Q8_0, DType::Q3_K, DType::Q4_K, DType::IQ4_NL}) {
    for (const bool with : {false, true}) {
      CAPTURE(name_of(type), with);
      const auto options = with ? weighted(importance) : QuantizeOptions{};
      const auto make = [&] { return quantize_step("t", from, type, options); };
      REQUIRE(make()->units() > 1);
      const Done first = run(*make());
      for (const Simd level : levels()) {
        const AtLevel at(level);
        const Done again = run(*make(), true);
        CHECK(again.outputs == first.outputs);
        for (const char* column : {"rel_rmse", "cos", "max_error"})
          CHECK(again.cell<double>(column) == first.cell<double>(column));
      }
    }
  }
}

TEST_CASE("quantize_step: what is not finite is counted where it is", "[quantize_step]") {
  constexpr std::size_t kRows = 600;  // more than one unit
  auto values = normal(kRows * 512, 1);
  values[550 * 512 + 7] = std::numeric_limits<float>::quiet_NaN();
  values[570 * 512] = -std::numeric_limits<float>::infinity();
  for (const bool with : {false, true})
    for (const DType type : {DType::Q8_0, DType::Q4_K, DType::IQ4_NL}) {
      CAPTURE(name_of(type), with);
      const auto options = with ? weighted(positive(512)) : QuantizeOptions{};
      const Done done =
          run(*quantize_step("t", tensor(DType::F32, {kRows, 512}, values), type, options));
      CHECK(done.count("non_finite") == 2);
      CHECK(done.count("first_bad_index") == 550 * 512 + 7);
    }
}

TEST_CASE("quantize_step: a scale beyond f16 is an overflow of its block", "[quantize_step]") {
  auto values = normal(2 * 512, 1);
  values[512 + 300] = 3e9f;
  for (const bool with : {false, true})
    for (const DType type : {DType::Q8_0, DType::Q5_1, DType::Q6_K, DType::IQ4_XS}) {
      CAPTURE(name_of(type), with);
      const auto options = with ? weighted(positive(512)) : QuantizeOptions{};
      const Done done =
          run(*quantize_step("t", tensor(DType::F32, {2, 512}, values), type, options));
      const std::uint64_t block = info(type).block_elems;
      CHECK(done.count("overflows") == block);
      CHECK(done.count("first_bad_index") == (512 + 300) / block * block);
      CHECK(done.count("non_finite") == 0);
    }
}

TEST_CASE("quantize_step: the best method reports both errors, its own the smaller",
          "[quantize_step]") {
  const auto from = tensor(DType::F32, {8, 512}, normal(8 * 512, 0.02f));
  for (const DType type : {DType::Q4_0, DType::Q4_K, DType::Q6_K}) {
    CAPTURE(name_of(type));
    const Done exact = run(*quantize_step("t", from, type));
    QuantizeOptions options;
    options.method = Method::Best;
    const Done best = run(*quantize_step("t", from, type, options));
    CHECK(best.cell<double>("exact_rel_rmse") == Approx(exact.cell<double>("rel_rmse")));
    CHECK(best.cell<double>("rel_rmse") < exact.cell<double>("rel_rmse"));
    CHECK(best.outputs != exact.outputs);

    options.importance = reader_of(positive(512));
    const Done both = run(*quantize_step("t", from, type, options));
    CHECK(both.cell<double>("weighted_rel_rmse") < both.cell<double>("exact_weighted_rel_rmse"));
    CHECK(both.count("fallback_blocks") == 0);
  }
}

// Some blocks of q4_1 have no finite weighted fit there.
TEST_CASE("quantize_step: the reference's error is that of what the exact method stores",
          "[quantize_step]") {
  for (const DType type : {DType::Q4_1, DType::Q5_1, DType::Q6_K}) {
    CAPTURE(name_of(type));
    QuantizeOptions options = weighted(golden_floats("imatrix.f32"));
    const Done exact = run(*quantize_step("t", golden_input(), type, options));
    CHECK((exact.count("fallback_blocks") > 0) == (type != DType::Q6_K));
    options.method = Method::Best;
    const Done best = run(*quantize_step("t", golden_input(), type, options));
    CHECK(best.count("fallback_blocks") == 0);
    CHECK(best.cell<double>("exact_rel_rmse") == Approx(exact.cell<double>("rel_rmse")));
    CHECK(best.cell<double>("exact_weighted_rel_rmse") ==
          Approx(exact.cell<double>("weighted_rel_rmse")));
  }
}

TEST_CASE("quantize_step: what has no encoder or does not fit is refused", "[quantize_step]") {
  const auto from = tensor(DType::F32, {2, 480}, normal(960, 1));
  CHECK_THROWS_AS(quantize_step("t", from, DType::Q4_K), Error);  // 480 is no multiple of 256
  CHECK_THROWS_AS(quantize_step("t", from, DType::IQ2_XXS), Error);
  CHECK_NOTHROW(quantize_step("t", from, DType::Q4_0));
}

}  // namespace
}  // namespace wtool
