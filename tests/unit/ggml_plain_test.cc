// The vector forms of ggml's quantisers without a search.
#include <algorithm>
#include <cstring>
#include <vector>

#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/kernels/ggml_scalar.h"
#include "tests/catch.h"
#include "tests/ggml_rows.h"
#include "tests/simd_levels.h"
#include "tests/unit/golden.h"

namespace wtool {
namespace {

struct Type {
  const char* name;
  std::size_t elements, bytes;
  QuantizeRows ours, reference;
};
const Type kTypes[] = {
    {"q4_0", 32, 18, &quantize_q4_0, &scalar::quantize_q4_0},
    {"q4_1", 32, 20, &quantize_q4_1, &scalar::quantize_q4_1},
    {"q5_0", 32, 22, &quantize_q5_0, &scalar::quantize_q5_0},
    {"q5_1", 32, 24, &quantize_q5_1, &scalar::quantize_q5_1},
    {"q8_0", 32, 34, &quantize_q8_0, &scalar::quantize_q8_0},
    {"q1_0", 128, 18, &quantize_q1_0, &scalar::quantize_q1_0},
    {"q2_0", 64, 18, &quantize_q2_0, &scalar::quantize_q2_0},
    {"tq1_0", 256, 54, &quantize_tq1_0, &scalar::quantize_tq1_0},
    {"tq2_0", 256, 66, &quantize_tq2_0, &scalar::quantize_tq2_0},
    {"mxfp4", 32, 17, &quantize_mxfp4, &scalar::quantize_mxfp4},
    {"nvfp4", 64, 36, &quantize_nvfp4, &scalar::quantize_nvfp4},
};

constexpr auto kUntouched = static_cast<std::byte>(0xA5);

Buffer quantized(const Type& type, QuantizeRows quantize, const BlockRows& in) {
  Buffer out(in.elements() / type.elements * type.bytes + 64);
  std::fill(out.begin(), out.end(), kUntouched);
  quantize(in, out.data());
  return out;
}
// The first block that differs, or the number of all.
std::size_t first_difference(const Type& type, const Buffer& a, const Buffer& b) {
  const auto at = std::mismatch(a.begin(), a.end(), b.begin()).first;
  return static_cast<std::size_t>(at - a.begin()) / type.bytes;
}

}  // namespace

TEST_CASE("ggml: every instruction set gives the library's bytes", "[ggml_plain]") {
  const std::vector<float> values = golden_floats("input.f32");
  for (const Simd level : levels()) {
    const AtLevel at(level);
    for (const Type& type : kTypes) {
      INFO(type.name << " with " << name_of(level));
      Buffer want = golden(std::string(type.name) + ".bin");
      Buffer found = quantized(type, type.ours, {values.data(), 64, 512});
      found.resize(found.size() - 64);
      // Rows 48 and 49 of mxfp4: ggml_scalar_test.cc.
      const bool wraps = type.name == std::string("mxfp4");
      const std::size_t row = want.size() / 64, end = wraps ? 48 * row : want.size();
      CHECK(
          std::equal(want.begin(), want.begin() + static_cast<std::ptrdiff_t>(end), found.begin()));
      if (wraps)
        CHECK(std::equal(want.begin() + static_cast<std::ptrdiff_t>(50 * row), want.end(),
                         found.begin() + static_cast<std::ptrdiff_t>(50 * row)));
    }
  }
}

TEST_CASE("ggml: every instruction set gives the scalar bytes of any values", "[ggml_plain]") {
  constexpr std::size_t kBlocks = 40;
  for (const Type& type : kTypes)
    for (const RowKind& kind : row_kinds())
      for (std::uint32_t seed = 1; seed <= 3; ++seed) {
        const auto values = make_rows(kind, kBlocks * type.elements, seed);
        const BlockRows rows{values.data(), kBlocks / 4, 4 * type.elements};
        const Buffer want = quantized(type, type.reference, rows);
        for (const Simd level : levels()) {
          const AtLevel at(level);
          const Buffer found = quantized(type, type.ours, rows);
          if (found == want) continue;
          INFO(type.name << ", " << kind.name << ", seed " << seed << ", " << name_of(level));
          CHECK(first_difference(type, found, want) == kBlocks);
        }
      }
}

TEST_CASE("ggml: any number of blocks is quantised, and nothing behind them touched",
          "[ggml_plain]") {
  const RowKind& kind = row_kinds()[0];
  for (const Type& type : kTypes) {
    const auto values = make_rows(kind, 40 * type.elements, 7);
    const Buffer all = quantized(type, type.reference, {values.data(), 1, 40 * type.elements});
    for (const Simd level : levels())
      for (std::size_t blocks = 0; blocks <= 40; ++blocks) {
        const AtLevel at(level);
        INFO(type.name << ", " << name_of(level) << ", " << blocks << " blocks");
        // A copy of its own size: reading beyond it shows under the address sanitizer.
        const std::vector<float> some(
            values.begin(), values.begin() + static_cast<std::ptrdiff_t>(blocks * type.elements));
        const Buffer found =
            quantized(type, type.ours, {some.data(), blocks == 0 ? 0u : 1u, some.size()});
        const auto end = static_cast<std::ptrdiff_t>(blocks * type.bytes);
        REQUIRE(std::equal(found.begin(), found.begin() + end, all.begin()));
        REQUIRE(std::all_of(found.begin() + end, found.end(),
                            [](std::byte b) { return b == kUntouched; }));
      }
  }
}

TEST_CASE("ggml: mean squares are sums in the order of the elements", "[ggml_plain]") {
  for (const RowKind& kind : row_kinds())
    for (const std::size_t columns : {1u, 4u, 30u, 32u, 96u, 512u})
      for (const std::size_t rows : {0u, 1u, 3u, 4u, 7u, 8u, 15u, 16u, 17u, 40u}) {
        const auto values = make_rows(kind, rows * columns, 5);
        std::vector<float> want(rows + 1, -1);
        for (std::size_t r = 0; r < rows; ++r) {
          want[r] = 0;
          for (std::size_t c = 0; c < columns; ++c)
            want[r] += values[r * columns + c] * values[r * columns + c];
          want[r] /= static_cast<float>(columns);
        }
        for (const Simd level : levels()) {
          const AtLevel at(level);
          INFO(kind.name << ", " << rows << " x " << columns << ", " << name_of(level));
          std::vector<float> found(rows + 1, -1);
          mean_squares(values.data(), rows, columns, found.data());
          REQUIRE(std::memcmp(found.data(), want.data(), want.size() * 4) == 0);
        }
      }
}

// Scales of 1, so that values are rounded as they are.
TEST_CASE("ggml: halves are rounded away from zero, what is just below them is not",
          "[ggml_plain]") {
  const float below = 0x1.fffffep-2f;
  std::vector<float> bytes(32 * 16), trits(256);
  for (std::size_t b = 0; b < 16; ++b) {  // as many as the widest vector takes at a time
    const float block[] = {127, 0.5f, -0.5f, below, -below, 2.5f, -3.5f};
    std::copy(std::begin(block), std::end(block),
              bytes.begin() + static_cast<std::ptrdiff_t>(32 * b));
  }
  for (std::size_t i = 0; i < 256; ++i) trits[i] = i % 2 == 0 ? below : -below;
  trits[0] = 1;
  for (const Simd level : levels()) {
    const AtLevel at(level);
    INFO(name_of(level));
    Buffer q8(34 * 16), tq1(54), tq2(66);
    quantize_q8_0({bytes.data(), 16, 32}, q8.data());
    const int want[] = {127, 1, -1, 0, 0, 3, -4};
    for (std::size_t i = 0; i < 34 * 16; ++i)
      if (i % 34 >= 2 && i % 34 < 9)
        REQUIRE(static_cast<int>(static_cast<std::int8_t>(q8[i])) == want[i % 34 - 2]);
    quantize_tq1_0({trits.data(), 1, 256}, tq1.data());
    quantize_tq2_0({trits.data(), 1, 256}, tq2.data());
    std::vector<float> from_tq1(256), from_tq2(256), ones(256);
    ones[0] = 1;
    tq1_0_to_f32(tq1.data(), from_tq1.data(), 256);
    tq2_0_to_f32(tq2.data(), from_tq2.data(), 256);
    CHECK(from_tq1 == ones);
    CHECK(from_tq2 == ones);
  }
}

}  // namespace wtool
