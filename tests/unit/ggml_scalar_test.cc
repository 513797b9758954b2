// The plain reference of ggml's quantisers against what the library itself made (testdata/ggml).
#include "lib/numeric/kernels/ggml_scalar.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/numeric/kernels/ggml_scalar_math.h"
#include "lib/numeric/quantizer.h"
#include "tests/catch.h"
#include "tests/ggml_rows.h"
#include "tests/simd_levels.h"
#include "tests/unit/golden.h"

namespace wtool {
namespace {

constexpr std::size_t kRows = 64, kColumns = 512;

struct Type {
  const char* name;
  std::size_t elements, bytes;
  QuantizeRows plain, weighted;  // null: none of its own
};

// Sizes are those of ggml's block structures.
const Type kTypes[] = {
    {"q4_0", 32, 18, &scalar::quantize_q4_0, &scalar::quantize_weighted_q4_0},
    {"q4_1", 32, 20, &scalar::quantize_q4_1, &scalar::quantize_weighted_q4_1},
    {"q5_0", 32, 22, &scalar::quantize_q5_0, &scalar::quantize_weighted_q5_0},
    {"q5_1", 32, 24, &scalar::quantize_q5_1, &scalar::quantize_weighted_q5_1},
    {"q8_0", 32, 34, &scalar::quantize_q8_0, nullptr},
    {"q1_0", 128, 18, &scalar::quantize_q1_0, nullptr},
    {"q2_0", 64, 18, &scalar::quantize_q2_0, nullptr},
    {"tq1_0", 256, 54, &scalar::quantize_tq1_0, nullptr},
    {"tq2_0", 256, 66, &scalar::quantize_tq2_0, nullptr},
    {"mxfp4", 32, 17, &scalar::quantize_mxfp4, nullptr},
    {"nvfp4", 64, 36, &scalar::quantize_nvfp4, nullptr},
    {"q2_K", 256, 84, &scalar::quantize_q2_k, &scalar::quantize_q2_k},
    {"q3_K", 256, 110, &scalar::quantize_q3_k, &scalar::quantize_q3_k},
    {"q4_K", 256, 144, &scalar::quantize_q4_k, &scalar::quantize_q4_k},
    {"q5_K", 256, 176, &scalar::quantize_q5_k, &scalar::quantize_q5_k},
    {"q6_K", 256, 210, &scalar::quantize_q6_k, &scalar::quantize_q6_k},
    {"iq4_nl", 32, 18, &scalar::quantize_iq4_nl, &scalar::quantize_iq4_nl},
    {"iq4_xs", 256, 136, &scalar::quantize_iq4_xs, &scalar::quantize_iq4_xs},
};

// The rows in which two results differ.
std::set<std::size_t> different_rows(const Buffer& a, const Buffer& b) {
  REQUIRE(a.size() == b.size());
  std::set<std::size_t> rows;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i] != b[i]) rows.insert(i / (a.size() / kRows));
  return rows;
}
using Rows = std::set<std::size_t>;

// The largest magnitude of a block of 32.
float largest_of_block(const std::vector<float>& values, std::size_t block) {
  float most = 0;
  for (std::size_t i = 0; i < 32; ++i) most = std::max(most, std::abs(values[32 * block + i]));
  return most;
}

DType dtype_of(const Type& type) {  // the golden files have capitals: q2_K
  std::string name = type.name;
  if (name.back() == 'K') name.back() = 'k';
  return parse_dtype(name).value();
}

struct Matrix {
  std::size_t rows, columns;
};

// Log-normal, every seventh column without weight.
std::vector<float> make_importance(std::size_t columns) {
  std::mt19937 random(5);
  std::lognormal_distribution<float> weight(0, 2);
  std::vector<float> out(columns);
  for (std::size_t i = 0; i < columns; ++i) out[i] = i % 7 == 3 ? 0 : weight(random);
  return out;
}

constexpr auto kUntouched = static_cast<std::byte>(0xA5);
Buffer quantized(const Type& type, QuantizeRows quantize, const BlockRows& in) {
  Buffer out(in.elements() / type.elements * type.bytes + 64);
  std::fill(out.begin(), out.end(), kUntouched);
  quantize(in, out.data());
  return out;
}

}  // namespace

TEST_CASE("ggml: the scalar reference gives the library's bytes", "[ggml_scalar]") {
  const auto values = golden_floats("input.f32");
  REQUIRE(values.size() == kRows * kColumns);
  for (const Type& type : kTypes) {
    INFO(type.name);
    Buffer found(kRows * kColumns / type.elements * type.bytes);
    type.plain({values.data(), kRows, kColumns}, found.data());
    const Buffer want = golden(std::string(type.name) + ".bin");
    if (type.name == std::string("mxfp4")) {
      // Only where the reference's exponent wraps: the next case looks at these blocks.
      CHECK(different_rows(found, want) == Rows{48, 49});
    } else {
      CHECK(different_rows(found, want).empty());
    }
  }
}

TEST_CASE("ggml: with importance the scalar reference gives the library's bytes", "[ggml_scalar]") {
  const auto values = golden_floats("input.f32"), importance = golden_floats("imatrix.f32");
  REQUIRE(importance.size() == kColumns);
  std::vector<float> mean(kRows);
  scalar::mean_squares(values.data(), kRows, kColumns, mean.data());
  for (const Type& type : kTypes) {
    if (type.weighted == nullptr) continue;
    INFO(type.name);
    Buffer found(kRows * kColumns / type.elements * type.bytes);
    type.weighted({values.data(), kRows, kColumns, importance.data(), mean.data()}, found.data());
    CHECK(different_rows(found, golden(std::string(type.name) + ".imatrix.bin")).empty());
  }
}

TEST_CASE("ggml: where the exponent of mxfp4 would wrap round it stays at 0", "[ggml_scalar]") {
  const auto values = golden_floats("input.f32");
  const Buffer want = golden("mxfp4.bin");
  Buffer found(want.size());
  scalar::quantize_mxfp4({values.data(), kRows, kColumns}, found.data());
  std::size_t wrapped = 0;
  for (std::size_t b = 0; b < values.size() / 32; ++b) {
    INFO("block " << b);
    const float most = largest_of_block(values, b);
    const bool same = std::memcmp(&found[17 * b], &want[17 * b], 17) == 0;
    if (most == 0 || most >= 0x1p-125f) {
      CHECK(same);
      continue;
    }
    ++wrapped;
    CHECK(found[17 * b] == std::byte{0});
    CHECK(want[17 * b] >= std::byte{244});
    // Codes are of the right sign and magnitude: steps of 2^-128 up to 12.
    for (std::size_t i = 0; i < 32; ++i) {
      const auto both = static_cast<unsigned>(found[17 * b + 1 + i % 16]);
      const unsigned code = i < 16 ? both & 15 : both >> 4;
      const float table[] = {0, 1, 2, 3, 4, 6, 8, 12};
      const float value = (code < 8 ? 1.0f : -1.0f) * table[code % 8] * 0x1p-128f;
      const float x = values[32 * b + i];
      CHECK(std::abs(value - x) <= (std::abs(x) < 0x1p-125f ? 2 * 0x1p-128f : std::abs(x)));
    }
  }
  CHECK(wrapped > 0);
}

TEST_CASE("ggml: conversions that C leaves open have one answer", "[ggml_scalar]") {
  const float inf = std::numeric_limits<float>::infinity();
  const int least = std::numeric_limits<int>::min();
  CHECK(scalar::to_int(-1.9f) == -1);
  CHECK(scalar::to_int(0x1p31f) == least);
  CHECK(scalar::to_int(-0x1p31f) == least);
  CHECK(scalar::to_int(-inf) == least);
  CHECK(scalar::to_int(std::numeric_limits<float>::quiet_NaN()) == least);
  CHECK(scalar::nearest_int(0.5f) == 0);
  CHECK(scalar::nearest_int(1.5f) == 2);
  CHECK(scalar::nearest_int(-2.5f) == -2);
  CHECK(scalar::nearest_int(inf) == -4194304);
  CHECK(scalar::nearest_int(-inf) == -4194304);
  CHECK(scalar::nearest_int(std::numeric_limits<float>::quiet_NaN()) == 0);
}

TEST_CASE("ggml: the exponent of mxfp4 is that of a logarithm rounded to f32", "[ggml_scalar]") {
  for (std::uint32_t exponent = 2; exponent < 256; ++exponent)
    for (std::uint32_t below = 0; below < 70; ++below) {
      const auto a = std::bit_cast<float>((exponent << 23) - below);
      if (!std::isfinite(a)) continue;
      INFO("2^" << static_cast<int>(exponent) - 127 << ", " << below << " steps below");
      const auto logarithm = static_cast<float>(std::log2(static_cast<double>(a)));
      REQUIRE(scalar::floor_log2f(a) == static_cast<int>(std::floor(logarithm)));
    }
}

TEST_CASE("ggml: every instruction set gives the scalar bytes of searched types too",
          "[ggml_scalar]") {
  for (const Type& type : kTypes) {
    if (type.weighted == nullptr) continue;
    const Quantizer* quantizer = find_quantizer(dtype_of(type));
    REQUIRE(quantizer != nullptr);
    for (const RowKind& kind : row_kinds())
      for (const Matrix& shape : {Matrix{19, 256}, Matrix{3, 768}}) {
        const auto values = make_rows(kind, shape.rows * shape.columns, 11);
        const auto importance = make_importance(shape.columns);
        std::vector<float> mean(shape.rows);
        scalar::mean_squares(values.data(), shape.rows, shape.columns, mean.data());
        const BlockRows plain{values.data(), shape.rows, shape.columns};
        BlockRows weighted = plain;
        weighted.importance = importance.data();
        weighted.mean_square = mean.data();
        const Buffer want = quantized(type, type.plain, plain);
        const Buffer want_weighted = quantized(type, type.weighted, weighted);
        for (const Simd level : levels()) {
          const AtLevel at(level);
          INFO(type.name << ", " << kind.name << ", " << shape.columns << " columns, "
                         << name_of(level));
          CHECK(quantized(type, quantizer->plain, plain) == want);
          CHECK(quantized(type, quantizer->weighted, weighted) == want_weighted);
        }
      }
  }
}

TEST_CASE("ggml: the fifth pass over the codes is made", "[ggml_scalar]") {
  const auto values = golden_floats("passes.f32"), importance = golden_floats("passes.imatrix.f32");
  REQUIRE(values.size() == 6 * 256);
  for (const Simd level : levels()) {
    const AtLevel at(level);
    INFO(name_of(level));
    Buffer q3(6 * 110), q2(6 * 84);
    find_quantizer(DType::Q3_K)->plain({values.data(), 6, 256}, q3.data());
    CHECK(q3 == golden("passes.q3_K.bin"));
    find_quantizer(DType::Q2_K)->weighted({values.data(), 6, 256, importance.data()}, q2.data());
    CHECK(q2 == golden("passes.q2_K.imatrix.bin"));
  }
}

TEST_CASE("ggml: any number of blocks is quantised with importance, and no more touched",
          "[ggml_scalar]") {
  for (const Type& type : kTypes) {
    if (type.weighted == nullptr) continue;
    const Quantizer& quantizer = *find_quantizer(dtype_of(type));
    const auto values = make_rows(row_kinds()[0], 40 * type.elements, 3);
    const auto importance = make_importance(40 * type.elements);
    const float mean = 0.0004f;
    const BlockRows all{values.data(), 1, values.size(), importance.data(), &mean};
    const Buffer want = quantized(type, type.weighted, all);
    for (const Simd level : levels()) {
      const AtLevel at(level);
      for (std::size_t blocks = 0; blocks <= 40; ++blocks) {
        INFO(type.name << ", " << name_of(level) << ", " << blocks << " blocks");
        BlockRows some = all;
        some.rows = blocks == 0 ? 0 : 1;
        some.columns = blocks * type.elements;
        const Buffer found = quantized(type, quantizer.weighted, some);
        const auto end = static_cast<std::ptrdiff_t>(blocks * type.bytes);
        REQUIRE(std::equal(found.begin(), found.begin() + end, want.begin()));
        REQUIRE(std::all_of(found.begin() + end, found.end(),
                            [](std::byte b) { return b == kUntouched; }));
      }
    }
  }
}

}  // namespace wtool
