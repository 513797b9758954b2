#include "lib/numeric/drift.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/steps.h"
#include "tests/catch.h"
#include "tests/simd_levels.h"
#include "tests/unit/step_run.h"

namespace wtool {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNaN = std::numeric_limits<float>::quiet_NaN();

TensorPtr row_of(const std::vector<float>& values) {
  return tensor(DType::F32, {values.size()}, values);
}

Done cast(TensorPtr from, DType to, CastOptions options = {}) {
  return run(*cast_step("t", std::move(from), to, options));
}
Drift drift_of(std::vector<float> source, std::vector<float> stored) {
  DriftLanes lanes;
  add_drift(source.data(), stored.data(), source.size(), nullptr, lanes);
  return lanes.fold();
}

}  // namespace

TEST_CASE("drift: the figures follow their definitions", "[drift]") {
  const Drift d = drift_of({3, 4, 0}, {3, 4.5f, -1});
  CHECK(d.error2 == 1.25);
  CHECK(d.value2 == 25);
  CHECK(d.worst == 1);
  CHECK(d.elements == 3);
  CHECK(d.rel_rmse() == Approx(std::sqrt(1.25 / 25)));
  CHECK(d.sqnr_db() == Approx(10 * std::log10(25 / 1.25)));
  CHECK(d.cosine() == Approx((9 + 18) / (5 * std::sqrt(9 + 20.25 + 1))));
}

TEST_CASE("drift: zero tensors and lost tensors have figures too", "[drift]") {
  const Drift zero = drift_of({0, 0}, {0, 0});
  CHECK(zero.rel_rmse() == 0);
  CHECK(zero.cosine() == 1);
  CHECK(zero.sqnr_db() == std::numeric_limits<double>::infinity());
  const Drift lost = drift_of({1, 2}, {0, 0});
  CHECK(lost.rel_rmse() == 1);
  CHECK(lost.sqnr_db() == 0);
  CHECK(lost.cosine() == 0);
  CHECK(drift_of({0}, {1}).rel_rmse() == std::numeric_limits<double>::infinity());
}

TEST_CASE("drift: columns come in a fixed order, the first bad index only when there is one",
          "[drift]") {
  const auto names = [](const Drift& d) {
    std::string out;
    for (const auto& [column, cell] : d.row("t").cells) out += std::string(column->name) + " ";
    return out;
  };
  Drift d = drift_of({1}, {1});
  CHECK(names(d) == "rel_rmse sqnr_db cos max_error overflows non_finite ");
  d.histogram[0] = 1;
  d.add_bad(7);
  d.add_bad(9);
  CHECK(names(d) ==
        "rel_rmse sqnr_db max_steps cos error_histogram max_error clipped overflows non_finite "
        "first_bad_index ");
  CHECK(std::get<std::uint64_t>(*d.row("t").find("first_bad_index")) == 7);
  CHECK(names(Drift{}) == "overflows non_finite ");
}

TEST_CASE("drift: errors are counted in steps of their group", "[drift]") {
  // Steps 2 and -4; errors of 0, 1/16 + a bit, 7/16, 1/2, 3/4 steps.
  const std::vector<float> stored{2, 4, 6, 8, 14, 12, 12, 28};
  const std::vector<float> source{2, 4.25f, 6.875f, 9, 15.5f, 12, 14, 31};
  const std::vector<float> steps{2, -4};
  const Steps how{steps.data(), 5, -7, 7};
  DriftLanes lanes;
  add_drift(source.data(), stored.data(), 8, &how, lanes);
  const Drift d = lanes.fold();
  CHECK(d.worst_steps == 0.75);
  CHECK(d.worst == 3);
  CHECK(d.histogram == std::array<std::uint64_t, 8>{2, 0, 1, 0, 0, 0, 0, 5});
  CHECK(d.clipped == 2);  // 14 is 7 steps of 2, 28 is -7 steps of -4; 12 is inside
  CHECK(d.elements == 8);
}

TEST_CASE("drift: every instruction set gives the same sums to the last bit", "[drift]") {
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> source(5000), stored(5000), steps(500);
  for (std::size_t i = 0; i < source.size(); ++i) {
    source[i] = normal(random) * std::pow(10.0f, static_cast<float>(i % 7) - 3);
    stored[i] = source[i] * (1 + 0.01f * normal(random));
  }
  for (float& s : steps) s = 0.05f * normal(random);
  steps[3] = 0;
  steps[4] = 1e-45f;
  for (std::size_t i = 0; i < 5000; i += 11) stored[i] = 7 * steps[i / 100];
  for (const std::size_t n : {0, 1, 15, 16, 17, 100, 4999, 5000})
    for (const std::size_t group : {0, 10, 16, 32, 100, 128}) {
      Drift expected;
      for (const Simd level : levels()) {
        const AtLevel at(level);
        DriftLanes lanes;
        const Steps how{steps.data(), group, -8, 7};
        for (int twice = 0; twice < 2; ++twice)
          add_drift(source.data(), stored.data(), n, group == 0 ? nullptr : &how, lanes);
        const Drift got = lanes.fold();
        if (level == Simd::Scalar) expected = got;
        INFO(name_of(level) << " n " << n << " group " << group);
        CHECK(std::memcmp(&got, &expected, sizeof got) == 0);
      }
    }
}

TEST_CASE("steps: a cast to bf16 rounds, keeps NaN and infinities and counts no overflow",
          "[drift]") {
  const Done done = cast(row_of({1, 1.00390625f, -kInf, kNaN, 3e-39f}), DType::BF16);
  const auto bits = as<std::uint16_t>(done.outputs[0]);
  CHECK(bits[0] == 0x3F80);
  CHECK(bits[1] == 0x3F80);  // a tie: to even
  CHECK(bits[2] == 0xFF80);
  CHECK((bits[3] & 0x7FC0) == 0x7FC0);
  CHECK(done.count("overflows") == 0);
  CHECK(done.count("non_finite") == 0);
  CHECK(done.row.find("rel_rmse") == nullptr);
}

TEST_CASE("steps: overflows are counted, and saturated on request", "[drift]") {
  const TensorPtr t = row_of({1, 65519, -65520, kInf, 1e6f});
  const Done done = cast(t, DType::F16);
  CHECK(done.count("overflows") == 2);
  CHECK(done.count("first_bad_index") == 2);
  CHECK(as<std::uint16_t>(done.outputs[0]) ==
        std::vector<std::uint16_t>{0x3C00, 0x7BFF, 0xFC00, 0x7C00, 0x7C00});
  const Done held = cast(t, DType::F16, {.saturate = true, .measure = true});
  CHECK(held.count("overflows") == 2);
  CHECK(as<std::uint16_t>(held.outputs[0]) ==
        std::vector<std::uint16_t>{0x3C00, 0x7BFF, 0xFBFF, 0x7C00, 0x7BFF});
  CHECK(held.cell<double>("max_error") == 1e6f - 65504);
}

TEST_CASE("steps: what a small float cannot express is counted", "[drift]") {
  const TensorPtr t = row_of({464, 465, kInf, kNaN, -500, 1, 2, 3});
  const Done e4m3 = cast(t, DType::F8_E4M3);
  CHECK(e4m3.count("overflows") == 2);   // 465, -500
  CHECK(e4m3.count("non_finite") == 1);  // it has no infinity, but NaN
  CHECK(e4m3.count("first_bad_index") == 1);
  const Done e5m2 = cast(t, DType::F8_E5M2);
  CHECK(e5m2.count("overflows") == 0);
  CHECK(e5m2.count("non_finite") == 0);
  const Done f4 = cast(t, DType::F4, {.saturate = true, .measure = false});
  CHECK(f4.count("non_finite") == 2);
  CHECK(f4.count("overflows") == 3);
  CHECK(f4.outputs[0][0] == std::byte{0x77});
}

TEST_CASE("steps: f64 is rounded once, and its overflow seen", "[drift]") {
  // Through f32 first, 1 + 2^-11 + 2^-40 would become a tie and round down to 1.
  const TensorPtr t = tensor<double>(DType::F64, {3}, {1 + 0x1p-11 + 0x1p-40, 1e300, -1e-300});
  const Done f16 = cast(t, DType::F16);
  CHECK(as<std::uint16_t>(f16.outputs[0]) == std::vector<std::uint16_t>{0x3C01, 0x7C00, 0x8000});
  CHECK(f16.count("overflows") == 1);
  const Done f32 = cast(t, DType::F32);
  CHECK(f32.count("overflows") == 1);
  CHECK(f32.count("first_bad_index") == 1);
  CHECK(as<float>(cast(t, DType::F32, {.saturate = true, .measure = false}).outputs[0])[1] ==
        std::numeric_limits<float>::max());
  CHECK(as<double>(cast(row_of({0.1f, 2, 3}), DType::F64).outputs[0])[0] == double{0.1f});
}

TEST_CASE("steps: integers become what holds them exactly, else they are counted", "[drift]") {
  const TensorPtr t = tensor<std::int32_t>(DType::I32, {4}, {2048, 2049, -70000, 16777217});
  const Done f16 = cast(t, DType::F16);
  CHECK(f16.count("overflows") == 3);
  CHECK(f16.count("first_bad_index") == 1);
  CHECK(cast(t, DType::F32).count("overflows") == 1);
  CHECK(cast(t, DType::F64).count("overflows") == 0);
  const Done i16 = cast(t, DType::I16, {.saturate = true, .measure = false});
  CHECK(as<std::int16_t>(i16.outputs[0]) == std::vector<std::int16_t>{2048, 2049, -32768, 32767});
  CHECK(i16.count("overflows") == 2);
  CHECK(as<std::int64_t>(cast(t, DType::I64).outputs[0])[3] == 16777217);
  const TensorPtr big = tensor<std::uint64_t>(DType::U64, {2}, {~std::uint64_t{0}, 1});
  CHECK(cast(big, DType::F64).count("overflows") == 1);
  CHECK(cast(big, DType::I64).count("overflows") == 1);
  const TensorPtr bools = tensor<std::uint8_t>(DType::Bool, {2}, {1, 0});
  CHECK(as<float>(cast(bools, DType::F32).outputs[0]) == std::vector<float>{1, 0});
}

TEST_CASE("steps: casts that make no sense are refused from types and shape", "[drift]") {
  const auto refused = [](DType from, Shape shape, DType to) {
    const Memory t(from, std::move(shape), {});
    return cast_refuses(t, to).value_or("");
  };
  CHECK(refused(DType::F32, {4, 32}, DType::Q8_0).empty());
  CHECK(refused(DType::F32, {4, 33}, DType::Q8_0).find("33") != std::string::npos);
  CHECK(refused(DType::F32, {32, 1}, DType::Q4_0).find("32") != std::string::npos);
  CHECK(refused(DType::F32, {2, 3}, DType::F4).find("rows of 3") != std::string::npos);
  CHECK_FALSE(refused(DType::F32, {4}, DType::I8).empty());
  CHECK_FALSE(refused(DType::I8, {32}, DType::Q8_0).empty());
  CHECK_FALSE(refused(DType::F32, {4}, DType::Bool).empty());
  CHECK_FALSE(refused(DType::F32, {256}, DType::IQ2_XXS).empty());
  CHECK_FALSE(refused(DType::F32, {256}, DType::Q8_K).empty());
  CHECK_FALSE(refused(DType::F32, {4}, DType::F8_E8M0).empty());
  CHECK_FALSE(refused(DType::C64, {4}, DType::F32).empty());
  CHECK(refused(DType::Q5_1, {32}, DType::F16).empty());
  CHECK(refused(DType::I8, {4}, DType::BF16).empty());
  CHECK_THROWS_AS(
      cast_step("t", std::make_shared<Memory>(DType::C64, Shape{1}, Buffer(8)), DType::F32, {}),
      Error);
}

TEST_CASE("steps: quantising finds values that are not finite", "[drift]") {
  std::vector<float> x(64 * 96, 0.5f);
  x[5 * 64 + 3] = kNaN;
  x[5 * 64 + 4] = kInf;
  x[90 * 64 + 63] = -kInf;
  for (const DType to : {DType::Q8_0, DType::Q4_0})
    for (const bool measure : {false, true}) {
      const Done done = cast(tensor(DType::F32, {96, 64}, x), to, {.measure = measure});
      CHECK(done.count("non_finite") == 3);
      CHECK(done.count("first_bad_index") == 5 * 64 + 3);
      CHECK(done.count("overflows") == 0);
    }
}

TEST_CASE("steps: a scale beyond f16 is an overflow of its block", "[drift]") {
  std::vector<float> x(64, 1.0f);
  x[40] = 1e8f;
  const Done done = cast(row_of(x), DType::Q8_0, {.measure = true});
  CHECK(done.count("overflows") == 32);
  CHECK(done.count("first_bad_index") == 32);
  CHECK(done.cell<double>("rel_rmse") < 0.01);
}

TEST_CASE("steps: the drift of q8_0 is that of its decoded values", "[drift]") {
  std::mt19937 random(4);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> x(96 * 4096);
  for (float& v : x) v = normal(random);
  const TensorPtr t = tensor(DType::F32, {96, 4096}, x);
  for (const DType to : {DType::Q8_0, DType::Q4_0, DType::BF16, DType::F16, DType::F8_E4M3}) {
    const Done done = cast(t, to, {.measure = true});
    std::vector<float> y(x.size());
    codec(to).decode(done.outputs[0].data(), y.data(), y.size());
    double error2 = 0, value2 = 0, dot = 0, stored2 = 0, worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double a = x[i], b = y[i];
      error2 += (b - a) * (b - a), value2 += a * a, stored2 += b * b, dot += a * b;
      worst = std::max(worst, std::abs(b - a));
    }
    INFO(name_of(to));
    CHECK(done.cell<double>("rel_rmse") == Approx(std::sqrt(error2 / value2)).epsilon(1e-9));
    CHECK(done.cell<double>("cos") == Approx(dot / std::sqrt(value2 * stored2)).epsilon(1e-9));
    CHECK(done.cell<double>("max_error") == Approx(worst).epsilon(1e-6));
    if (to == DType::Q8_0) {
      // A half from rounding, and 127 steps that f16 has made up to 2^-11 too long or short.
      CHECK(done.cell<double>("max_steps") < 0.5 + 127 * 0x1p-11);
      CHECK(done.count("clipped") == 0);
    }
    if (to == DType::Q4_0) CHECK(done.count("clipped") > 0);
    if (info(to).kind == Kind::Block) {
      std::uint64_t sum = 0;
      for (const std::uint64_t n : done.cell<Histogram>("error_histogram")) sum += n;
      CHECK(sum == x.size());
    } else {
      CHECK(done.row.find("max_steps") == nullptr);
    }
  }
}

TEST_CASE("steps: bytes and report depend on neither order nor instruction set", "[drift]") {
  std::mt19937 random(6);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> x(300 * 2048);
  for (float& v : x) v = normal(random);
  const TensorPtr t = tensor(DType::F32, {300, 2048}, x);
  for (const DType to : {DType::Q8_0, DType::Q4_0, DType::BF16}) {
    const CastOptions measured{.saturate = false, .measure = true};
    const Done first = run(*cast_step("t", t, to, measured));
    for (const Simd level : levels()) {
      const AtLevel at(level);
      const Done again = run(*cast_step("t", t, to, measured), true);
      CHECK(again.outputs == first.outputs);
      CHECK(again.cell<double>("rel_rmse") == first.cell<double>("rel_rmse"));
      CHECK(again.cell<double>("cos") == first.cell<double>("cos"));
    }
  }
}

TEST_CASE("steps: a cast to the same type keeps every bit", "[drift]") {
  const TensorPtr t = tensor<std::uint16_t>(DType::F16, {3}, {0x7C01, 0x0001, 0x8000});
  const Done done = cast(t, DType::F16, {.saturate = false, .measure = true});
  CHECK(as<std::uint16_t>(done.outputs[0]) == std::vector<std::uint16_t>{0x7C01, 0x0001, 0x8000});
  CHECK(done.cell<double>("rel_rmse") == 0);
}

TEST_CASE("steps: blocks decode through a cast", "[drift]") {
  std::vector<float> x(1 << 19);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(static_cast<int>(i % 255) - 127);
  const Buffer q8 = cast(tensor(DType::F32, {2, 1 << 18}, x), DType::Q8_0).outputs[0];
  const Done back = cast(std::make_shared<Memory>(DType::Q8_0, Shape{2, 1 << 18}, q8), DType::F32);
  std::vector<float> expected(x.size());
  codec(DType::Q8_0).decode(q8.data(), expected.data(), expected.size());
  CHECK(as<float>(back.outputs[0]) == expected);
}

TEST_CASE("steps: copies are exact and large only where the kernel copies", "[drift]") {
  std::vector<std::uint16_t> values(1 << 20);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint16_t>(i * 7);
  Catalog catalog;
  const SourcePtr source = from_memory("m", packed(values));
  catalog.add_source(source);
  const std::vector<std::uint64_t> shape{1 << 10, 1 << 10};
  const TensorEntry entry{
      .name = "t", .shape = shape, .offset = 0, .bytes = 2 << 20, .source = 0, .dtype = DType::F16};
  const auto step = copy_step("t", stored(catalog, entry));
  CHECK(step->units() == 1);
  const std::optional<Extent> raw = step->raw(0);
  REQUIRE(raw.has_value());
  CHECK(raw->offset == 0);
  CHECK(raw->bytes == 2 << 20);
  CHECK(run(*step).outputs[0] == packed(values));
  step->set_big_endian();  // now through our memory: small units
  CHECK(step->units() == 4);
  CHECK(run(*step).outputs[0] == packed(values));
  CHECK(copy_step("e", row_of({}))->units() == 0);
}

TEST_CASE("steps: an encoder never sees a value that is not finite", "[drift]") {
  std::vector<float> x(8 * 16, 1.0f);
  x[3 * 16 + 5] = kNaN;
  x[7 * 16] = kInf;
  const TensorPtr t = tensor(DType::F32, {8, 16}, x);
  Encoder how{{{"t", DType::F32, {8, 16}}},
              Tiling(t->whole(), 2, 16),
              [](const Box& box, std::vector<Span>& to) {
                to.push_back({.output = 0, .offset = box.row * 64, .bytes = box.rows * 64});
              },
              [](const Box&, std::span<const float> source, std::span<const MutableBytes> out,
                 Drift& drift, Scratch&) {
                CHECK(all_finite(source.data(), source.size()));
                std::memcpy(out[0].data(), source.data(), out[0].size());
                drift.elements += source.size();
              }};
  const auto step = encode_step("t", t, std::move(how));
  const Done done = run(*step);
  CHECK(done.count("non_finite") == 2);
  CHECK(done.count("first_bad_index") == 3 * 16 + 5);
  CHECK(as<float>(done.outputs[0])[0] == 1);
  CHECK(as<float>(done.outputs[0])[3 * 16] == 0);  // nothing of what was in memory gets out
}

}  // namespace wtool
