// Writing NF4: the reference's bytes, and better scales.
#include <cmath>
#include <random>

#include "formats/registry.h"
#include "lib/numeric/kernels/nf4.h"
#include "tests/simd_levels.h"
#include "tests/unit/scheme_models.h"
#include "tests/unit/step_run.h"

namespace wtool {
namespace {

struct Written {
  std::vector<OutTensor> tensors;
  Done done;
  Plan plan;
  const Buffer& operator[](std::string_view suffix) const {
    for (std::size_t i = 0; i < tensors.size(); ++i)
      if (tensors[i].name == "m.weight" + std::string(suffix)) return done.outputs[i];
    FAIL("no part " << suffix);
    return done.outputs[0];
  }
};
Written written(const TensorPtr& values, const SchemeOptions& options, bool backwards = false) {
  Written out;
  kBitsAndBytes.encode(std::vector<Target>{{"m.weight", values}}, options, out.plan);
  for (const auto& m : out.plan.measures) run(*m, backwards);
  REQUIRE(out.plan.steps.size() == 1);
  out.done = run(*out.plan.steps[0], backwards);
  const auto outputs = out.plan.steps[0]->outputs();
  out.tensors.assign(outputs.begin(), outputs.end());
  return out;
}
SchemeOptions nf4(ScaleMethod method, bool nested = true) {
  return {.levels = Levels::Nf4, .method = method, .nested = nested};
}
// The written parts as a model, opened by the reader.
TensorPtr read_back(const Written& w, std::shared_ptr<Model>& model) {
  Builder b;
  for (std::size_t i = 0; i < w.tensors.size(); ++i)
    b.add(w.tensors[i].name, w.tensors[i].dtype, w.tensors[i].shape, w.done.outputs[i]);
  model = b.build();
  return open_only(kBitsAndBytes, *model);
}
std::vector<float> normal(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> out(n);
  for (float& x : out) {  // twelve uniforms: the same on every machine
    x = -6;
    for (int i = 0; i < 12; ++i) x += static_cast<float>(random() >> 8) * 0x1p-24f;
    x *= 0.02f;
  }
  return out;
}
double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i] - b[i]), 2);
  return sum;
}

TEST_CASE("nf4: round-to-nearest gives the reference's bytes", "[scheme_write]") {
  for (const fs::path& dir : cases("bnb_nf4_")) {
    INFO(dir.string());
    const auto load = [&](std::string_view f) { return load_npy(dir / (std::string(f) + ".npy")); };
    const Array weight = load("weight_f32");
    const TensorPtr values = tensor(DType::F32, weight.shape, weight.as<float>());
    const Written plain = written(values, nf4(ScaleMethod::Rtn, false));
    CHECK(plain[""] == load("weight_packed_u8").bytes);
    CHECK(plain[".absmax"] == load("absmax_f32").bytes);
    CHECK(plain[".quant_map"] == load("quant_map").bytes);

    const Written nested = written(values, nf4(ScaleMethod::Rtn));
    CHECK(nested[""] == load("weight_packed_u8").bytes);
    CHECK(nested[".absmax"] == load("nested_absmax_code_u8").bytes);
    CHECK(nested[".nested_quant_map"] == load("nested_quant_map").bytes);
    // The reference adds up in f32, in an order of its processor's: the mean itself is within its
    // last place.
    const float common = load("nested_absmax_f32").as<float>()[0],
                offset = load("nested_offset").as<float>()[0];
    CHECK(std::abs(as<float>(nested[".nested_absmax"])[0] - common) <= 0x1p-23f * offset);
    const std::string state(as_text(nested[".quant_state.bitsandbytes__nf4"]));
    const float ours = std::stof(state.substr(state.find("nested_offset") + 16));
    CHECK(std::abs(ours - offset) <= 0x1p-23f * offset);
    CHECK(state.starts_with(
        R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [)"));
  }
}

TEST_CASE("nf4: what is written is read as what was measured", "[scheme_write]") {
  for (const bool nested : {false, true})
    for (const ScaleMethod method : {ScaleMethod::Rtn, ScaleMethod::Search})
      for (const Shape& shape : {Shape{3, 5}, Shape{40, 77}, Shape{700, 1031}, Shape{1, 300007}}) {
        INFO(nested << ' ' << static_cast<int>(method) << ' ' << to_text(shape));
        const auto source = normal(shape[0] * shape[1], 5);
        const Written w = written(tensor(DType::F32, shape, source), nf4(method, nested));
        std::shared_ptr<Model> model;
        const auto values = values_of(*read_back(w, model), {0, shape[0], 0, shape[1]});
        const double rel = std::sqrt(squared_error(values, source) /
                                     squared_error(std::vector<float>(source.size()), source));
        CHECK(w.done.cell<double>("rel_rmse") == Approx(rel).epsilon(1e-9));
        CHECK(rel < 0.11);
        const Written again = written(tensor(DType::F32, shape, source), nf4(method, nested), true);
        CHECK(again.done.outputs == w.done.outputs);
      }
}

TEST_CASE("nf4: a value is never further than half the widest gap of its block", "[scheme_write]") {
  const auto source = normal(64 * 64, 9);
  const Written w = written(tensor(DType::F32, {64, 64}, source), nf4(ScaleMethod::Rtn, false));
  std::shared_ptr<Model> model;
  const auto values = values_of(*read_back(w, model), {0, 64, 0, 64});
  const auto scales = as<float>(w[".absmax"]);
  const float widest = kNf4Levels[1] - kNf4Levels[0];
  for (std::size_t i = 0; i < source.size(); ++i)
    CHECK(std::abs(values[i] - source[i]) <= 0.5001f * widest * scales[i / 64]);
}

TEST_CASE("nf4: a search loses less than the largest magnitude as the scale", "[scheme_write]") {
  for (const bool nested : {false, true}) {
    const auto values = tensor(DType::F32, {256, 1024}, normal(256 * 1024, 3));
    const double rtn = written(values, nf4(ScaleMethod::Rtn, nested)).done.cell<double>("rel_rmse"),
                 search = written(values, nf4(ScaleMethod::Search, nested))
                              .done.cell<double>("rel_rmse");
    INFO(rtn << ' ' << search);
    CHECK(search < 0.985 * rtn);
  }
}

TEST_CASE("nf4: columns that count more lose less", "[scheme_write]") {
  const Shape shape{96, 200};
  const auto source = normal(shape[0] * shape[1], 12);
  const TensorPtr values = tensor(DType::F32, shape, source);
  std::vector<float> counts(shape[1]);
  for (std::size_t c = 0; c < counts.size(); ++c) counts[c] = c % 5 == 0 ? 100.0f : 1.0f;
  const auto weighted_error = [&](const std::vector<float>& decoded) {
    double sum = 0, of = 0;
    for (std::size_t i = 0; i < source.size(); ++i) {
      const double weight = counts[i % shape[1]], value = source[i];
      sum += weight * std::pow(static_cast<double>(decoded[i]) - value, 2);
      of += weight * value * value;
    }
    return std::sqrt(sum / of);
  };
  const auto with = [&](ColumnImportance importance, bool nested) {
    Written out;
    kBitsAndBytes.encode(std::vector<Target>{{"m.weight", values, std::move(importance)}},
                         nf4(ScaleMethod::Search, nested), out.plan);
    for (const auto& m : out.plan.measures) run(*m);
    out.done = run(*out.plan.steps.at(0));
    const auto outputs = out.plan.steps[0]->outputs();
    out.tensors.assign(outputs.begin(), outputs.end());
    return out;
  };
  const ColumnImportance importance = [&](std::uint64_t first, std::span<float> out) {
    std::copy_n(counts.begin() + static_cast<std::ptrdiff_t>(first), out.size(), out.begin());
  };
  for (const bool nested : {false, true}) {
    std::shared_ptr<Model> model, other;
    const Written weighted = with(importance, nested), plain = with(nullptr, nested);
    const Box all{0, shape[0], 0, shape[1]};
    const double got = weighted_error(values_of(*read_back(weighted, model), all));
    CHECK(got < 0.97 * weighted_error(values_of(*read_back(plain, other), all)));
    CHECK(weighted.done.cell<double>("weighted_rel_rmse") == Approx(got).epsilon(1e-6));
  }
}

TEST_CASE("nf4: blocks of zeros stay zeros, tiny ones keep their signs", "[scheme_write]") {
  std::vector<float> source(128);
  for (std::size_t i = 64; i < 128; ++i) source[i] = i % 2 ? 0x1p-140f : -0x1p-140f;
  for (const ScaleMethod method : {ScaleMethod::Rtn, ScaleMethod::Search}) {
    const Written w = written(tensor(DType::F32, {2, 64}, source), nf4(method, false));
    std::shared_ptr<Model> model;
    CHECK(values_of(*read_back(w, model), {0, 2, 0, 64}) == source);
  }
  const Written zeros =
      written(tensor(DType::F32, {2, 64}, std::vector<float>(128)), nf4(ScaleMethod::Search, true));
  std::shared_ptr<Model> model;
  CHECK(values_of(*read_back(zeros, model), {0, 2, 0, 64}) == std::vector<float>(128));
}

TEST_CASE("nf4: NaN and infinities are counted where they lie", "[scheme_write]") {
  auto source = normal(300, 1);
  source[177] = INFINITY;
  source[203] = NAN;
  const Written w = written(tensor(DType::F32, {3, 100}, source), nf4(ScaleMethod::Search));
  CHECK(w.done.count("non_finite") == 2);
  CHECK(w.done.count("first_bad_index") == 177);
}

TEST_CASE("nf4: what cannot be written so is refused", "[scheme_write]") {
  const auto why = [](DType type, const Shape& shape, const SchemeOptions& o) {
    const auto bytes = byte_size(type, *element_count(shape));
    return kBitsAndBytes.refuses(*std::make_shared<Memory>(type, shape, Buffer(*bytes)), o)
        .value_or("");
  };
  const SchemeOptions o = nf4(ScaleMethod::Search);
  CHECK(why(DType::BF16, {4, 7}, o).empty());
  CHECK(why(DType::I32, {4, 7}, o) == "i32 is not f16, bf16, f32 or f64");
  CHECK(why(DType::BF16, {4, 7, 2}, o) == "[4, 7, 2] has 3 dimensions, not 2");
  CHECK(why(DType::BF16, {4, 0}, o) == "[4, 0] is empty");
  CHECK(why(DType::BF16, {4, 7}, {}) == "only NF4 is written as bitsandbytes");
  CHECK_FALSE(why(DType::BF16, {4, 7}, nf4(ScaleMethod::Optimal)).empty());
}

TEST_CASE("nf4: every instruction set gives the scalar kernels' bytes", "[scheme_write]") {
  auto source = normal(64 * 40 + 37, 8);
  source[70] = 0;
  source[100] = -0.0f;
  for (std::size_t i = 0; i < kNf4Levels.size(); ++i) source[128 + i] = kNf4Levels[i];
  for (std::size_t i = 0; i + 1 < kNf4Levels.size(); ++i)
    source[192 + i] = (kNf4Levels[i] + kNf4Levels[i + 1]) * 0.5f;
  source[191] = source[255] = 1;
  const std::size_t blocks = ceil_div(source.size(), kNf4Block);
  struct Result {
    std::vector<float> scales, sums;
    std::vector<std::uint8_t> codes;
    bool operator==(const Result&) const = default;
  };
  std::vector<Result> results;
  for (const Simd level : levels()) {
    const AtLevel at_level(level);
    Result r{std::vector<float>(blocks), {}, std::vector<std::uint8_t>(source.size())};
    nf4_absmax(source.data(), source.size(), r.scales.data());
    nf4_codes(source.data(), source.size(), r.scales.data(), r.codes.data());
    for (std::size_t b = 0; b < blocks; ++b) {
      const std::size_t at = b * kNf4Block;
      const Nf4Fit f =
          nf4_fit(source.data() + at, std::min(kNf4Block, source.size() - at), r.scales[b] * 0.9f);
      r.sums.insert(r.sums.end(), {f.cross, f.square});
      std::vector<float> weights(kNf4Block);
      for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = 0.1f * static_cast<float>(i);
      const Nf4Fit w = nf4_fit(source.data() + at, std::min(kNf4Block, source.size() - at),
                               r.scales[b] * 0.9f, weights.data());
      r.sums.insert(r.sums.end(), {w.cross, w.square});
    }
    results.push_back(r);
  }
  for (const Result& r : results) CHECK(r == results[0]);
  // A middle goes to the lower level.
  for (std::size_t i = 0; i + 1 < kNf4Levels.size(); ++i) {
    CHECK(results[0].codes[128 + i] == i);
    CHECK(results[0].codes[192 + i] == i);
  }
}

TEST_CASE("nf4: the config has what transformers and vLLM ask for", "[scheme_write]") {
  const std::vector<ConfigGroup> groups{{nf4(ScaleMethod::Search), {"a"}}};
  const std::vector<std::string> kept{"lm_head"};
  CHECK(kBitsAndBytes.config(groups, kept) ==
        R"({"quant_method":"bitsandbytes","load_in_8bit":false,"load_in_4bit":true,)"
        R"("llm_int8_threshold":6.0,"llm_int8_skip_modules":["lm_head"],)"
        R"("llm_int8_enable_fp32_cpu_offload":false,"llm_int8_has_fp16_weight":false,)"
        R"("bnb_4bit_quant_type":"nf4","bnb_4bit_use_double_quant":true,)"
        R"("bnb_4bit_compute_dtype":"bfloat16","bnb_4bit_quant_storage":"uint8"})");
}

}  // namespace
}  // namespace wtool
