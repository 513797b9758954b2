// The searches for better blocks: against the reference's blocks, and against trying every scale.
// Errors are taken from what the decoders make of the bytes, in double.
#include "lib/numeric/kernels/ggml_best.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "lib/model/source.h"
#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/kernels/kernels.h"
#include "tests/catch.h"
#include "tests/ggml_rows.h"
#include "tests/simd_levels.h"
#include "tests/unit/golden.h"

namespace wtool {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

struct Type {
  const char* name;
  std::size_t elements, bytes;
  QuantizeRows plain, weighted, best;
  void (*decode)(const std::byte*, float*, std::size_t) noexcept;
};
#define WTOOL_TYPE(name, elements, bytes, weighted) \
  { #name, elements, bytes, &quantize_##name, weighted, &best_##name, &name##_to_f32 }
const Type kTypes[] = {
    WTOOL_TYPE(q4_0, 32, 18, &quantize_weighted_q4_0),
    WTOOL_TYPE(q4_1, 32, 20, &quantize_weighted_q4_1),
    WTOOL_TYPE(q5_0, 32, 22, &quantize_weighted_q5_0),
    WTOOL_TYPE(q5_1, 32, 24, &quantize_weighted_q5_1),
    WTOOL_TYPE(q8_0, 32, 34, nullptr),
    WTOOL_TYPE(q1_0, 128, 18, nullptr),
    WTOOL_TYPE(q2_0, 64, 18, nullptr),
    WTOOL_TYPE(q2_k, 256, 84, &quantize_weighted_q2_k),
    WTOOL_TYPE(q3_k, 256, 110, &quantize_weighted_q3_k),
    WTOOL_TYPE(q4_k, 256, 144, &quantize_weighted_q4_k),
    WTOOL_TYPE(q5_k, 256, 176, &quantize_weighted_q5_k),
    WTOOL_TYPE(q6_k, 256, 210, &quantize_weighted_q6_k),
    WTOOL_TYPE(iq4_nl, 32, 18, &quantize_weighted_iq4_nl),
    WTOOL_TYPE(iq4_xs, 256, 136, &quantize_weighted_iq4_xs),
    WTOOL_TYPE(tq1_0, 256, 54, nullptr),
    WTOOL_TYPE(tq2_0, 256, 66, nullptr),
    WTOOL_TYPE(mxfp4, 32, 17, nullptr),
    WTOOL_TYPE(nvfp4, 64, 36, nullptr),
};
#undef WTOOL_TYPE
const Type& type_named(const std::string& name) {
  return *std::find_if(std::begin(kTypes), std::end(kTypes),
                       [&](const Type& type) { return name == type.name; });
}

// Rows with or without importance, and what is needed to quantise them.
struct Rows {
  std::vector<float> values, importance, squares = {};
  std::size_t columns;

  Rows(std::vector<float> v, std::size_t n, std::vector<float> weights = {})
      : values(std::move(v)), importance(std::move(weights)), columns(n) {
    squares.resize(values.size() / columns);
    mean_squares(values.data(), squares.size(), columns, squares.data());
  }
  BlockRows rows() const {
    BlockRows out{values.data(), squares.size(), columns};
    if (!importance.empty()) {
      out.importance = importance.data();
      out.mean_square = squares.data();
    }
    return out;
  }
  Buffer made(const Type& type, QuantizeRows quantize) const {
    Buffer out(values.size() / type.elements * type.bytes);
    quantize(rows(), out.data());
    return out;
  }
  // Of each block, in the order of its elements. Where nothing counts, everything does.
  std::vector<double> errors(const Type& type, const Buffer& bytes) const {
    std::vector<float> decoded(values.size());
    type.decode(bytes.data(), decoded.data(), decoded.size());
    std::vector<double> out;
    for (std::size_t at = 0; at < values.size(); at += type.elements) {
      const float* weight = importance.empty() ? nullptr : &importance[at % columns];
      if (weight && std::all_of(weight, weight + type.elements, [](float w) { return w == 0; }))
        weight = nullptr;
      double sum = 0;
      for (std::size_t i = 0; i < type.elements; ++i) {
        const double off =
            static_cast<double>(decoded[at + i]) - static_cast<double>(values[at + i]);
        sum += (weight ? static_cast<double>(weight[i]) : 1.0) * (off * off);
      }
      out.push_back(sum < kInfinite ? sum : kInfinite);
    }
    return out;
  }
};

// A few values a row, from kind to kind: blocks of 32 of one kind, of 256 of several.
std::vector<float> mixed_rows(std::size_t kinds_in_a_row, std::uint32_t seed) {
  std::vector<float> out;
  for (std::size_t k = 0; k < row_kinds().size(); ++k) {
    const std::vector<float> values = make_rows(row_kinds()[k], 512 / kinds_in_a_row, seed);
    out.insert(out.end(), values.begin(), values.end());
  }
  out.resize((out.size() + 511) / 512 * 512);
  return out;
}

std::vector<float> random_importance(std::size_t n, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> out(n);
  for (float& w : out) w = std::lognormal_distribution<float>(0, 1.5f)(random);
  for (std::size_t i = 0; i < n; i += 37) out[i] = 0;
  std::fill_n(out.begin() + 64, 64, 0.0f);  // whole blocks of 32 that do not count
  return out;
}

void check_never_worse(const Rows& rows) {
  for (const Type& type : kTypes) {
    INFO(type.name << (rows.importance.empty() ? "" : ", weighted"));
    const std::vector<double> best = rows.errors(type, rows.made(type, type.best));
    std::vector<double> reference = rows.errors(type, rows.made(type, type.plain));
    if (!rows.importance.empty() && type.weighted) {
      const std::vector<double> other = rows.errors(type, rows.made(type, type.weighted));
      for (std::size_t b = 0; b < other.size(); ++b)
        reference[b] = std::min(reference[b], other[b]);
    }
    std::size_t worse = 0, better = 0;
    for (std::size_t b = 0; b < best.size(); ++b) {
      worse += best[b] > reference[b];
      better += best[b] < reference[b];
    }
    CHECK(worse == 0);
    // The mean magnitude is the best scale of one bit, and the reference's where nothing is
    // weighed.
    if (type.name != std::string("q1_0")) CHECK(better > 0);
  }
}

// The least error with any scale of f16, of either sign, and codes to the nearest.
double tried_everything(const best::Levels& levels, const float* x, std::size_t n) {
  double least = kInfinite;
  for (unsigned bits = 1; bits < 0x7C00; ++bits) {
    const float d = f16_value(static_cast<std::uint16_t>(bits));
    for (const float scale : {d, -d}) {
      double error = 0;
      for (std::size_t i = 0; i < n && error < least; ++i) {
        const double at = static_cast<double>(x[i]) / static_cast<double>(scale);
        double off = kInfinite;
        if (levels.kind == best::Levels::Kind::Integers) {
          const double code = std::clamp(std::nearbyint(at), static_cast<double>(levels.lo),
                                         static_cast<double>(levels.hi));
          off = code - at;
        } else {
          for (const float level : best::kIq4)
            if (std::abs(static_cast<double>(level) - at) < std::abs(off))
              off = static_cast<double>(level) - at;
        }
        off *= static_cast<double>(scale);
        error += off * off;
      }
      least = std::min(least, error);
    }
  }
  return least;
}

}  // namespace

TEST_CASE("ggml: no block searched further is worse than the reference's", "[ggml_best]") {
  check_never_worse({golden_floats("input.f32"), 512});
  check_never_worse({mixed_rows(1, 1), 512});
  check_never_worse({mixed_rows(4, 2), 512});
}

TEST_CASE("ggml: nor is it with importance, by which errors are weighted", "[ggml_best]") {
  check_never_worse({golden_floats("input.f32"), 512, golden_floats("imatrix.f32")});
  check_never_worse({mixed_rows(1, 3), 512, random_importance(512, 3)});
  check_never_worse({mixed_rows(4, 4), 512, random_importance(512, 4)});
}

TEST_CASE("ggml: a search leaves zeros zero, and reaches what can be reached", "[ggml_best]") {
  for (const Type& type : kTypes) {
    INFO(type.name);
    const Rows zeros({std::vector<float>(512, 0.0f), 512});
    CHECK(zeros.made(type, type.best) == zeros.made(type, type.plain));
    // A block of one value, which every type can store as code times scale.
    const Rows same({std::vector<float>(512, 0.5f), 512});
    for (const double error : same.errors(type, same.made(type, type.best))) CHECK(error == 0);
  }
}

TEST_CASE("ggml: a search finds the best of all scales that f16 has", "[ggml_best]") {
  using LevelKind = best::Levels::Kind;
  const struct {
    const char* name;
    best::Levels levels;
  } types[] = {{"q4_0", {LevelKind::Integers, -8, 7}},     {"q5_0", {LevelKind::Integers, -16, 15}},
               {"q8_0", {LevelKind::Integers, -127, 127}}, {"q2_0", {LevelKind::Integers, -1, 2}},
               {"tq2_0", {LevelKind::Integers, -1, 1}},    {"iq4_nl", {LevelKind::Iq4, -127, 113}}};
  for (const char* kind : {"normal, deviation 0.02", "heavy tails", "one spike in 32"}) {
    const auto& rows = row_kinds();
    const auto of = std::find_if(rows.begin(), rows.end(),
                                 [&](const RowKind& r) { return std::string(kind) == r.name; });
    REQUIRE(of != rows.end());
    const Rows values(make_rows(*of, 256, 7), 256);
    for (const auto& [name, range] : types) {
      INFO(name << ", " << kind);
      const Type& type = type_named(name);
      double found = 0, least = 0;
      for (const double error : values.errors(type, values.made(type, type.best))) found += error;
      for (std::size_t at = 0; at < 256; at += type.elements)
        least += tried_everything(range, &values.values[at], type.elements);
      CHECK(found <= least * 1.002);  // of squares: 0.1 % of the root
    }
  }
}

TEST_CASE("ggml: a search gives the same bytes at every level and in any parts", "[ggml_best]") {
  for (const bool weighted : {false, true}) {
    const Rows rows(mixed_rows(2, 5), 512,
                    weighted ? random_importance(512, 5) : std::vector<float>{});
    for (const Type& type : kTypes) {
      INFO(type.name << (weighted ? ", weighted" : ""));
      const Buffer want = rows.made(type, type.best);
      for (const Simd level : levels()) {
        INFO(name_of(level));
        const AtLevel at(level);
        CHECK(rows.made(type, type.best) == want);
      }
      // Row by row, and without importance half a row at a time.
      const std::size_t part = weighted ? 512 : 256;
      Buffer parts(want.size());
      for (std::size_t i = 0; i < rows.values.size(); i += part)
        type.best({&rows.values[i], 1, part, rows.rows().importance, &rows.squares[i / 512]},
                  parts.data() + i / type.elements * type.bytes);
      CHECK(parts == want);
    }
  }
}

TEST_CASE("ggml: trials of scales give the same numbers at every level", "[ggml_best]") {
  constexpr std::size_t kCount = 32, kMany = 96;
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> x(kCount), weight(kCount), scale(kMany), offset(kMany);
  for (float& v : x) v = normal(random);
  for (float& v : weight) v = std::abs(normal(random));
  for (float& v : scale) v = normal(random) * 0.2f;
  for (float& v : offset) v = normal(random);
  scale[3] = 0;
  scale[4] = 1e-40f;
  const auto all = [&](const float* weights) {
    using LevelKind = best::Levels::Kind;
    const best::Values v{x.data(), weights, kCount};
    std::vector<float> out;
    const auto keep = [&](const std::vector<float>& of) {
      out.insert(out.end(), of.begin(), of.end());
      const best::Pick most = best::first_greatest(of.data(), kMany, of[5]);
      out.insert(out.end(), {static_cast<float>(best::first_least(of.data(), kMany)),
                             static_cast<float>(most.at), most.value});
    };
    std::vector<float> a(kMany), b(kMany), c(kMany);
    for (const best::Levels& range :
         {best::Levels{LevelKind::Integers, -8, 7}, best::Levels{LevelKind::Iq4, -127, 113},
          best::Levels{LevelKind::E2m1, -12, 12}}) {
      best::fit_scales(range, v, offset.data(), kMany, a.data());
      keep(a);
      best::scale_errors(range, v, scale.data(), kMany, a.data());
      keep(a);
    }
    best::offset_errors(15, v, scale.data(), offset.data(), kMany, a.data());
    keep(a);
    for (const int sign : {-1, 0, 1}) {
      best::fit_offsets(15, sign, v, offset.data(), scale.data(), kMany,
                        {a.data(), b.data(), c.data()});
      for (const auto* of : {&a, &b, &c}) keep(*of);
    }
    return out;
  };
  for (const bool weighted : {false, true}) {
    const float* weights = weighted ? weight.data() : nullptr;
    const AtLevel scalar(Simd::Scalar);
    const std::vector<float> want = all(weights);
    for (const Simd level : levels()) {
      INFO(name_of(level) << (weighted ? ", weighted" : ""));
      const AtLevel at(level);
      const std::vector<float> found = all(weights);
      std::size_t different = 0;
      for (std::size_t i = 0; i < want.size(); ++i)
        different += std::memcmp(&found[i], &want[i], sizeof(float)) != 0;
      CHECK(different == 0);
    }
  }
}

TEST_CASE("ggml: where all values are far above 0, minima go below it", "[ggml_best]") {
  const auto& kinds = row_kinds();
  const auto of = std::find_if(kinds.begin(), kinds.end(), [](const RowKind& r) {
    return r.name == std::string("a large offset");
  });
  REQUIRE(of != kinds.end());
  const Rows rows(make_rows(*of, 1024, 12), 512);
  for (const char* name : {"q2_k", "q4_k", "q5_k"}) {
    INFO(name);
    const Type& type = type_named(name);
    double reference = 0, best = 0;
    for (const double error : rows.errors(type, rows.made(type, type.plain))) reference += error;
    for (const double error : rows.errors(type, rows.made(type, type.best))) best += error;
    // The reference can only start its codes at 0 or below: steps as wide as the offset.
    CHECK(best < reference / 10);
  }
}

TEST_CASE("ggml: searches reach the known optima and gain on every type", "[ggml_best]") {
  const std::string path = WTOOL_SOURCE_DIR "/../shared/golden/accuracy/weights_bf16.safetensors";
  if (!std::filesystem::exists(path)) return;
  const SourcePtr source = open_file(path);
  const Buffer file = read_all({source, 0, source->size()});
  std::uint64_t header;
  std::memcpy(&header, file.data(), 8);
  constexpr std::size_t kCount = 512 * 1024;
  REQUIRE(file.size() == 8 + header + 4 * 2 * kCount);
  // Relative Frobenius error in percent, of the four tensors in the order of the file; of types
  // without a known optimum, the least gain over the reference.
  const struct {
    const char* name;
    double optimum[4], gain;
  } types[] = {{"q4_0", {8.1100, 12.1815, 13.6903, 11.6014}, 0.02},
               {"q5_0", {4.0017, 6.2550, 7.0041, 5.8233}, 0.015},
               {"q8_0", {0.4887, 0.8012, 0.8679, 0.7163}, 0.05},
               {"mxfp4", {11.1507, 13.4776, 14.6736, 13.1426}, 0.015},
               {"q4_1", {}, 0.10},
               {"q5_1", {}, 0.10},
               {"q2_k", {}, 0.10},
               {"q3_k", {}, 0.02},
               {"q4_k", {}, 0.02},
               {"q5_k", {}, 0.04},
               {"q6_k", {}, 0.03},
               {"iq4_nl", {}, 0.02},
               {"iq4_xs", {}, 0.02}};
  for (std::size_t tensor = 0; tensor < 4; ++tensor) {
    // Part of each is enough where there is no optimum of the whole to compare with.
    std::vector<float> values(kCount);
    bf16_to_f32(file.data() + 8 + header + tensor * 2 * kCount, values.data(), kCount);
    double square = 0;
    for (const float x : values) square += static_cast<double>(x) * static_cast<double>(x);
    const Rows whole(values, 1024);
    values.resize(kCount / 16);
    const Rows part(std::move(values), 1024);
    for (const auto& [name, optimum, gain] : types) {
      INFO(name << ", tensor " << tensor);
      const Type& type = type_named(name);
      const Rows& rows = optimum[0] > 0 ? whole : part;
      double reference = 0, best = 0;
      for (const double error : rows.errors(type, rows.made(type, type.plain))) reference += error;
      for (const double error : rows.errors(type, rows.made(type, type.best))) best += error;
      CHECK(std::sqrt(best / reference) <= 1 - gain);
      if (optimum[0] > 0) CHECK(100 * std::sqrt(best / square) <= optimum[tensor] * 1.001);
    }
  }
}

}  // namespace wtool
