// Our quantisers and decoders against ggml's, of llama.cpp's prebuilt library, on random rows:
// every type, every instruction set, with and without importance, ordinary values and the corners
// of f32.
//
//   ggml_quantize [SEED]
//
// Exit status: 0 the same bytes, 1 not, 77 no library.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/quantizer.h"
#include "tests/ggml_rows.h"
#include "tests/interop/ggml_library.h"
#include "tests/simd_levels.h"

namespace {
using namespace wtool;

// A type, and its number there.
struct Type {
  DType dtype;
  int ggml;
};

int failures = 0;

void fail(const std::string& what) {
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

// One type, one set of rows.
struct Case {
  const GgmlLibrary& library;
  const Type& type;
  const Quantizer& quantizer;
  std::string about;
  std::vector<float> values;
  std::size_t rows, columns;
  std::vector<float> importance;  // empty: none

  const DTypeInfo& blocked() const { return info(type.dtype); }
  std::size_t blocks() const { return values.size() / blocked().block_elems; }
  const float* block(std::size_t b) const { return values.data() + b * blocked().block_elems; }

  std::vector<std::byte> theirs() const {
    std::vector<std::byte> out(blocks() * blocked().block_bytes);
    library.quantize(type.ggml, values.data(), out.data(), 0, static_cast<std::int64_t>(rows),
                     static_cast<std::int64_t>(columns),
                     importance.empty() ? nullptr : importance.data());
    return out;
  }
  std::vector<std::byte> ours() const {
    std::vector<std::byte> out(blocks() * blocked().block_bytes);
    std::vector<float> mean(rows);
    mean_squares(values.data(), rows, columns, mean.data());
    BlockRows in{values.data(), rows, columns};
    QuantizeRows quantize = quantizer.plain;
    if (!importance.empty() && quantizer.weighted != nullptr) {
      in.importance = importance.data();
      in.mean_square = mean.data();
      quantize = quantizer.weighted;
    }
    quantize(in, out.data());
    return out;
  }
};

// The one difference we mean: below 2^-125 the library's exponent wraps round to a huge scale or to
// NaN; ours stays at 0.
bool may_differ(const Case& c, std::size_t block) {
  if (c.type.dtype != DType::MXFP4) return false;
  float most = 0;
  for (std::size_t i = 0; i < 32; ++i) most = std::max(most, std::abs(c.block(block)[i]));
  return most > 0 && most < 0x1p-125f;
}

void compare_bytes(const Case& c, const std::vector<std::byte>& want) {
  const std::size_t bytes = c.blocked().block_bytes;
  for (const Simd level : levels()) {
    const AtLevel at(level);
    const auto found = c.ours();
    std::size_t different = 0, first = 0;
    for (std::size_t b = c.blocks(); b-- > 0;) {
      const bool same = std::memcmp(&found[b * bytes], &want[b * bytes], bytes) == 0;
      if (may_differ(c, b) ? found[b * bytes] == std::byte{0} : same) continue;
      first = b;
      ++different;
    }
    if (different > 0)
      fail(c.about + ", " + std::string(name_of(level)) + ": " + std::to_string(different) +
           " of " + std::to_string(c.blocks()) + " blocks differ, the first is block " +
           std::to_string(first));
  }
}

void compare_decoders(const GgmlLibrary& library, const Type& type, const std::string& about,
                      const std::vector<std::byte>& blocks) {
  const std::size_t n = blocks.size() / info(type.dtype).block_bytes * info(type.dtype).block_elems;
  std::vector<float> want(n), found(n);
  library.traits(type.ggml)->to_float(blocks.data(), want.data(), static_cast<std::int64_t>(n));
  for (const Simd level : levels()) {
    const AtLevel at(level);
    codec(type.dtype).decode(blocks.data(), found.data(), n);
    for (std::size_t i = 0; i < n; ++i) {
      const bool same = std::memcmp(&found[i], &want[i], 4) == 0;
      if (same || (std::isnan(found[i]) && std::isnan(want[i]))) continue;
      fail(about + ", decoded with " + std::string(name_of(level)) + ": element " +
           std::to_string(i) + " is " + std::to_string(found[i]) + ", theirs " +
           std::to_string(want[i]));
      break;
    }
  }
}

// 0: none; 1: log-normal, every seventh column without weight; 2: nothing has weight.
std::vector<float> make_importance(int kind, std::size_t columns, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::lognormal_distribution<float> weight(0, 2);
  std::vector<float> out(kind == 0 ? 0 : columns);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = kind == 2 || i % 7 == 3 ? 0 : weight(random);
  return out;
}

struct Shape {
  std::size_t rows, columns;
};
constexpr Shape kShapes[] = {{9, 256}, {3, 768}, {2, 2048}};

void run_type(const GgmlLibrary& library, const Quantizer& quantizer, std::uint32_t seed) {
  const Type type{quantizer.dtype, library.number_of(quantizer.dtype)};
  const std::string name(info(type.dtype).name);
  if (type.ggml < 0) return fail(name + ": no such type there");
  const GgmlTraits& traits = *library.traits(type.ggml);
  if (static_cast<std::size_t>(traits.block_elements) != info(type.dtype).block_elems ||
      traits.block_bytes != info(type.dtype).block_bytes)
    return fail(name + ": another size of blocks");
  for (const RowKind& kind : row_kinds())
    for (const Shape& shape : kShapes)
      for (int weights = 0; weights < 3; ++weights) {
        const Case c{library,
                     type,
                     quantizer,
                     name + ", " + kind.name + ", " + std::to_string(shape.rows) + " x " +
                         std::to_string(shape.columns) + ", importance " + std::to_string(weights),
                     make_rows(kind, shape.rows * shape.columns, seed),
                     shape.rows,
                     shape.columns,
                     make_importance(weights, shape.columns, seed)};
        const auto want = c.theirs();
        compare_bytes(c, want);
        compare_decoders(library, type, c.about, want);
      }
  std::mt19937 random(seed);
  std::vector<std::byte> noise(64 * info(type.dtype).block_bytes);
  for (std::byte& b : noise) b = static_cast<std::byte>(random());
  compare_decoders(library, type, name + ", random bytes", noise);
}

}  // namespace

int main(int argc, char** argv) {
  GgmlLibrary library;
  if (!library.open()) {
    std::printf("skipped: no llama.cpp library (scripts/peers installs it)\n");
    return 77;
  }
  const auto seed = static_cast<std::uint32_t>(argc > 1 ? std::atoi(argv[1]) : 1);
  for (const Quantizer& quantizer : all_quantizers()) run_type(library, quantizer, seed);
  std::printf("%d failures (seed %u)\n", failures, seed);
  return failures == 0 ? 0 : 1;
}
