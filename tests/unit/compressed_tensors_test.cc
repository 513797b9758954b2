#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include <fmt/format.h>

#include "formats/registry.h"
#include "lib/engine/execute.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/groups.h"
#include "lib/numeric/policy.h"
#include "tests/catch.h"
#include "tests/simd_levels.h"
#include "tests/unit/scheme_models.h"

namespace wtool {
namespace {

TensorPtr tensor_of(const Shape& shape, const std::vector<float>& values) {
  const auto model = Builder().add("x.weight", DType::F32, shape, values).build();
  return stored(model->catalog, model->catalog.entries()[0]);
}

// What a step writes, as execute() would put it down.
struct Ran {
  std::vector<OutTensor> outputs;
  std::vector<Buffer> bytes;
  Row row;
  const Buffer& operator[](std::string_view name) const {
    for (std::size_t i = 0; i < outputs.size(); ++i)
      if (outputs[i].name == name) return bytes[i];
    FAIL("no output " << name);
    throw std::logic_error("unreachable");
  }
};

Ran run(Step& step) {
  Ran ran;
  for (const OutTensor& t : step.outputs()) {
    ran.outputs.push_back(t);
    ran.bytes.emplace_back(t.bytes(), std::byte{0xEE});
  }
  Scratch scratch;
  for (std::uint64_t u = 0; u < step.units(); ++u) {
    std::vector<Span> spans;
    step.spans(u, spans);
    std::vector<Buffer> memory;
    for (const Span& s : spans) memory.emplace_back(s.bytes * s.count);
    const std::vector<MutableBytes> out(memory.begin(), memory.end());
    Buffer found;
    step.run({u, out, found, scratch});
    step.fold(u, found);
    for (std::size_t i = 0; i < spans.size(); ++i)
      for (std::uint64_t k = 0; k < spans[i].count; ++k)
        std::memcpy(MutableBytes(ran.bytes[spans[i].output])
                        .subspan(spans[i].offset + k * spans[i].stride, spans[i].bytes)
                        .data(),
                    memory[i].data() + k * spans[i].bytes, spans[i].bytes);
  }
  Report report;
  step.report(report);
  REQUIRE(report.rows.size() == 1);
  ran.row = report.rows[0];
  return ran;
}

Ran quantized(const TensorPtr& values, const SchemeOptions& options) {
  const Target target{"m.weight", values};
  Plan plan;
  kCompressedTensors.encode({&target, 1}, options, plan);
  REQUIRE(plan.steps.size() == 1);
  Scratch scratch;
  for (const auto& m : plan.measures)
    for (std::uint64_t u = 0; u < m->units(); ++u) {
      Buffer found;
      m->run({u, {}, found, scratch});
      m->fold(u, found);
    }
  return run(*plan.steps[0]);
}

SchemeOptions weight_only(unsigned bits, std::uint64_t group) {
  return {.bits = bits, .group = group, .method = ScaleMethod::Rtn};
}
const SchemeOptions kW8A8{.bits = 8, .group = 128, .activations = true, .method = ScaleMethod::Rtn};

std::vector<float> random_values(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::student_t_distribution<float> tails(3);
  std::vector<float> out(n);
  for (float& x : out) x = 0.02f * tails(random);
  return out;
}

// ---- writing

TEST_CASE("compressed-tensors: int8 per channel has the reference's bytes",
          "[compressed_tensors]") {
  for (const fs::path& dir : cases("ct_int8_channel_f32_")) {
    INFO(dir.string());
    const Array weight = load_npy(dir / "weight_f32.npy");
    const Ran ran = quantized(tensor_of(weight.shape, weight.as<float>()), kW8A8);
    CHECK(ran.outputs.size() == 2);
    CHECK(ran["m.weight"] == load_npy(dir / "weight.npy").bytes);
    CHECK(ran["m.weight_scale"] == load_npy(dir / "weight_scale.npy").bytes);
    CHECK(ran.outputs[1].shape == load_npy(dir / "weight_scale.npy").shape);
  }
}

TEST_CASE("compressed-tensors: packed groups have the reference's bytes", "[compressed_tensors]") {
  for (const auto& [prefix, bits] :
       {std::pair{"ct_int8_packed_g128_f32_", 8u}, {"ct_int4_g128_sym_f32_", 4u}})
    for (const fs::path& dir : cases(prefix)) {
      INFO(dir.string());
      const Array weight = load_npy(dir / "weight_f32.npy");
      const Ran ran =
          quantized(tensor_of(weight.shape, weight.as<float>()), weight_only(bits, 128));
      for (const char* part : {"weight_packed", "weight_scale", "weight_shape"}) {
        const Array expected = load_npy(dir / (std::string(part) + ".npy"));
        INFO(part);
        CHECK(ran[std::string("m.") + part] == expected.bytes);
        CHECK(std::ranges::any_of(ran.outputs, [&](const OutTensor& t) {
          return t.name == std::string("m.") + part && t.shape == expected.shape;
        }));
      }
    }
}

TEST_CASE("compressed-tensors: zero points have the reference's bytes", "[compressed_tensors]") {
  for (const fs::path& dir : cases("ct_int4_g128_asym_f32_")) {
    INFO(dir.string());
    const Array weight = load_npy(dir / "weight_f32.npy");
    SchemeOptions options = weight_only(4, 128);
    options.asymmetric = true;
    const Ran ran = quantized(tensor_of(weight.shape, weight.as<float>()), options);
    for (const char* part :
         {"weight_packed", "weight_scale", "weight_shape", "weight_zero_point"}) {
      INFO(part);
      CHECK(ran[std::string("m.") + part] == load_npy(dir / (std::string(part) + ".npy")).bytes);
    }
  }
}

TEST_CASE("compressed-tensors: bf16 arithmetic gives the reference's bytes of bf16 models",
          "[compressed_tensors]") {
  const auto bf16 = [](const Array& bits) {
    const auto model =
        Builder().add("m.weight", DType::BF16, bits.shape, Buffer(bits.bytes)).build();
    return stored(model->catalog, model->catalog.entries()[0]);
  };
  for (const auto& [prefix, int8] :
       {std::pair{"ct_int8_channel_bf16_", true}, {"ct_int4_g128_sym_bf16_", false}})
    for (const fs::path& dir : cases(prefix)) {
      INFO(dir.string());
      SchemeOptions options = int8 ? kW8A8 : weight_only(4, 128);
      options.source_arithmetic = true;
      const Ran ran = quantized(bf16(load_npy(dir / "weight_bf16bits.npy")), options);
      CHECK(ran[int8 ? "m.weight" : "m.weight_packed"] ==
            load_npy(dir / (int8 ? "weight.npy" : "weight_packed.npy")).bytes);
      CHECK(ran["m.weight_scale"] == load_npy(dir / "weight_scale_bf16bits.npy").bytes);
    }
}

TEST_CASE("compressed-tensors: small floats have the reference's bytes", "[compressed_tensors]") {
  struct Case {
    const char *prefix, *codes_file, *codes, *scale_file;
    SchemeOptions options;
  };
  const Case all[] = {{"ct_fp8_channel_f32_",
                       "weight_e4m3_bytes",
                       "m.weight",
                       "weight_scale",
                       {.levels = Levels::Fp8, .method = ScaleMethod::Rtn}},
                      {"ct_fp8_block128_f32_",
                       "weight_e4m3_bytes",
                       "m.weight",
                       "weight_scale",
                       {.levels = Levels::Fp8, .block = true, .method = ScaleMethod::Rtn}},
                      {"ct_nvfp4_f32_",
                       "weight_packed",
                       "m.weight_packed",
                       "weight_scale_e4m3_bytes",
                       {.levels = Levels::Nvfp4, .method = ScaleMethod::Rtn}}};
  for (const Case& c : all)
    for (const fs::path& dir : cases(c.prefix)) {
      INFO(dir.string());
      const Array weight = load_npy(dir / "weight_f32.npy");
      const Ran ran = quantized(tensor_of(weight.shape, weight.as<float>()), c.options);
      CHECK(ran[c.codes] == load_npy(dir / (std::string(c.codes_file) + ".npy")).bytes);
      const Array scale = load_npy(dir / (std::string(c.scale_file) + ".npy"));
      CHECK(ran["m.weight_scale"] == scale.bytes);
      CHECK(ran.outputs[1].shape == scale.shape);
      if (c.options.levels == Levels::Nvfp4)
        CHECK(ran["m.weight_global_scale"] == load_npy(dir / "weight_global_scale.npy").bytes);
    }
}

TEST_CASE("compressed-tensors: codes of every width are packed as the reference packs them",
          "[compressed_tensors]") {
  for (unsigned bits = 1; bits <= 8; ++bits) {
    const fs::path dir = cases(fmt::format("ct_pack_bits{}", bits)).front();
    const Array codes = load_npy(dir / "codes.npy"), packed = load_npy(dir / "packed_dim1.npy");
    const std::uint64_t rows = codes.shape[0], cols = codes.shape[1], words = packed.shape[1];
    for (std::uint64_t r = 0; r < rows; ++r) {
      std::vector<std::uint8_t> row(cols);
      for (std::uint64_t c = 0; c < cols; ++c)
        row[c] =
            static_cast<std::uint8_t>(codes.as<std::int8_t>()[r * cols + c] + (1 << (bits - 1)));
      Buffer out(words * 4, std::byte{0xEE});
      pack_codes(row, bits, out.data());
      INFO("bits " << bits << " row " << r);
      CHECK(std::equal(out.begin(), out.end(), packed.bytes.begin() + r * words * 4));
    }
  }
}

TEST_CASE("compressed-tensors: packed rows that end within a word have the reference's bytes",
          "[compressed_tensors]") {
  for (const auto& [prefix, bits] :
       {std::pair{"ct_int8_packed_channel_f32_", 8u}, {"ct_int4_packed_channel_f32_", 4u}})
    for (const fs::path& dir : cases(prefix)) {
      INFO(dir.string());
      const Array weight = load_npy(dir / "weight_f32.npy");
      const Array packed = load_npy(dir / "weight_packed.npy");
      const Array scale = load_npy(dir / "weight_scale.npy");
      Buffer codes(packed.bytes.size(), std::byte{0xEE}), scales(scale.bytes.size());
      Drift drift;
      quantize_groups({.bits = bits}, weight.shape[0], weight.shape[1], weight.as<float>(),
                      {codes, scales}, drift);
      CHECK(codes == packed.bytes);
      CHECK(scales == scale.bytes);
    }
}

TEST_CASE("compressed-tensors: codes and errors of a row worked by hand", "[compressed_tensors]") {
  // The largest is 7.5, so the step is 1.
  const std::vector<float> row{7.5f, -7.5f, 2.5f, 3.5f, 0.25f, -1.0f, 0.0f, -2.75f};
  Buffer codes(4), scale(4);
  Drift drift;
  quantize_groups({.bits = 4, .group = 8}, 1, 8, row, {codes, scale}, drift);
  CHECK(load<float>(scale) == 1.0f);
  // 7, -8, 2, 4, 0, -1, 0, -3; each plus 8, the first in the lowest four bits
  CHECK(load<std::uint32_t>(codes) == 0x587'8CA'0Fu);
  CHECK(drift.error2 == 4 * 0.25 + 2 * 0.0625);
  CHECK(drift.value2 == 2 * 56.25 + 6.25 + 12.25 + 0.0625 + 1 + 7.5625);
  CHECK(drift.cross ==
        7.5 * -0.5 + -7.5 * -0.5 + 2.5 * -0.5 + 3.5 * 0.5 + 0.25 * -0.25 + -2.75 * -0.25);
  CHECK(drift.worst == 0.5);
  CHECK(drift.worst_steps == 0.5);
  CHECK(drift.elements == 8);
  CHECK(drift.clipped == 0);
  CHECK(drift.histogram == std::array<std::uint64_t, 8>{2, 0, 0, 0, 2, 0, 0, 4});
}

TEST_CASE("compressed-tensors: the scale is rounded to its stored type before codes are chosen",
          "[compressed_tensors]") {
  // 1 / 7.5 is 0.13333; as bf16 0.13379, as f16 0.13330. 0.06689 is on either side of half of it.
  const std::vector<float> row{1.0f, 0.06689f, 0, 0, 0, 0, 0, 0};
  const auto second_code = [&](DType type, std::uint16_t scale_bits) {
    Buffer codes(4), scale(2);
    Drift drift;
    quantize_groups({.bits = 4, .group = 8, .scale = type}, 1, 8, row, {codes, scale}, drift);
    CHECK(load<std::uint16_t>(scale) == scale_bits);
    return static_cast<int>(load<std::uint32_t>(codes) >> 4 & 15) - 8;
  };
  CHECK(second_code(DType::BF16, 0x3E09) == 0);
  CHECK(second_code(DType::F16, 0x3044) == 1);
}

TEST_CASE("compressed-tensors: a group of zeros has the epsilon of its scale's type",
          "[compressed_tensors]") {
  const std::vector<float> row(8);
  const auto scale_of = [&](DType type) {
    Buffer codes(4), scale(4);
    Drift drift;
    quantize_groups({.bits = 4, .group = 8, .scale = type}, 1, 8, row, {codes, scale}, drift);
    CHECK(load<std::uint32_t>(codes) == 0x88888888u);
    CHECK(drift.error2 == 0);
    return load<std::uint32_t>(scale);
  };
  CHECK(scale_of(DType::F32) == 0x34000000);
  CHECK(scale_of(DType::BF16) == 0x3C00);
  CHECK(scale_of(DType::F16) == 0x1400);
}

TEST_CASE("compressed-tensors: values beyond the grid by more than half a step are counted",
          "[compressed_tensors]") {
  // 1.0039 / 127.5 in bf16 is rounded down, so that the largest is more than 127.5 steps.
  std::vector<float> row(128, 0.5f);
  row[5] = 1.0f;
  float scale = 0;
  Buffer codes(128), scales(2);
  for (float most = 1.0f; most < 2.0f; most += 1 / 512.0f) {
    row[5] = most;
    Drift drift;
    quantize_groups({.bits = 8, .group = 128, .scale = DType::BF16}, 1, 128, row, {codes, scales},
                    drift);
    const std::uint32_t bits = std::uint32_t{load<std::uint16_t>(scales)} << 16;
    std::memcpy(&scale, &bits, sizeof scale);
    CHECK(drift.clipped == (most / scale - 127 > 0.5f ? 1 : 0));
  }
}

TEST_CASE("compressed-tensors: every instruction set gives the same bytes and the same errors",
          "[compressed_tensors][simd]") {
  struct Case {
    IntGroups how;
    std::uint64_t rows, cols;
  };
  const Case all[] = {
      {{8, 128, DType::BF16, true}, 5, 384},      {{4, 128, DType::F16, true}, 3, 256},
      {{4, 32, DType::F32, true}, 7, 96},         {{8, 0, DType::F32, false}, 9, 13},
      {{4, 0, DType::F32, true}, 6, 101},         {{4, 0, DType::BF16, true}, 2, 2500},
      {{8, 0, DType::F32, true}, 3, 1},           {{8, 8, DType::F32, true}, 4, 40},
      {{3, 32, DType::BF16, true}, 5, 160},       {{5, 0, DType::F32, true}, 3, 45},
      {{4, 32, DType::BF16, true, true}, 5, 160}, {{6, 0, DType::F16, true, true}, 3, 77},
      {{2, 16, DType::F32, false, true}, 4, 48}};
  for (const Case& c : all) {
    const auto in = random_values(c.rows * c.cols, 7);
    const std::uint64_t groups = c.rows * (c.how.group == 0 ? 1 : c.cols / c.how.group);
    const auto run_at = [&](auto quantize, Drift& drift) {
      Buffer out(c.rows * code_bytes(c.how, c.cols)),
          scales(groups * info(c.how.scale).block_bytes);
      std::vector<std::int8_t> zeros(c.how.zero_points ? groups : 0);
      quantize(c.how, c.rows, c.cols, std::span<const float>(in), GroupOutputs{out, scales, zeros},
               drift, nullptr);
      append(out, Bytes(scales));
      append(out, std::as_bytes(std::span(zeros)));
      return out;
    };
    Drift expected;
    const Buffer bytes = run_at(quantize_groups_scalar, expected);
    for (const Simd level : levels()) {
      const AtLevel at(level);
      INFO(name_of(level) << " bits " << c.how.bits << " group " << c.how.group << " cols "
                          << c.cols);
      Drift drift;
      CHECK(run_at(quantize_groups, drift) == bytes);
      CHECK(std::memcmp(&drift, &expected, sizeof drift) == 0);
    }
  }
}

TEST_CASE("compressed-tensors: the error in the report is that of what a reader decodes",
          "[compressed_tensors]") {
  const Shape shape{6, 512};
  const auto in = random_values(6 * 512, 11);
  for (const SchemeOptions& options : {weight_only(4, 128), weight_only(8, 64), kW8A8}) {
    const Ran ran = quantized(tensor_of(shape, in), options);
    Builder builder;
    for (std::size_t i = 0; i < ran.outputs.size(); ++i)
      builder.add(ran.outputs[i].name, ran.outputs[i].dtype, ran.outputs[i].shape, ran.bytes[i]);
    const auto model = builder.build();
    const TensorPtr back = open_only(kCompressedTensors, *model);
    REQUIRE(back->shape() == shape);
    const auto out = values_of(*back, back->whole());
    double error2 = 0, value2 = 0;
    for (std::size_t i = 0; i < in.size(); ++i) {
      error2 += (double{out[i]} - in[i]) * (double{out[i]} - in[i]);
      value2 += double{in[i]} * in[i];
    }
    CHECK(std::get<double>(*ran.row.find("rel_rmse")) ==
          Approx(std::sqrt(error2 / value2)).epsilon(1e-9));
  }
}

TEST_CASE("compressed-tensors: rows longer than a unit are cut between groups",
          "[compressed_tensors]") {
  const std::uint64_t cols = Tiling::kUnitElements + 3 * 128;
  const auto in = random_values(2 * cols, 3);
  const Ran ran = quantized(tensor_of({2, cols}, in), weight_only(4, 128));
  Buffer codes(2 * cols / 2), scales(2 * cols / 128 * 4);
  Drift drift;
  quantize_groups_scalar({.bits = 4, .group = 128}, 2, cols, in, {codes, scales}, drift);
  CHECK(ran["m.weight_packed"] == codes);
  CHECK(ran["m.weight_scale"] == scales);
  CHECK(load<std::uint64_t>(ran["m.weight_shape"], 0) == 2);
  CHECK(load<std::uint64_t>(ran["m.weight_shape"], 1) == cols);

  const std::uint64_t wide = Tiling::kUnitElements;
  const Ran channel =
      quantized(tensor_of({2, wide}, std::vector<float>(in.begin(), in.begin() + 2 * wide)),
                weight_only(8, 0));
  CHECK(channel["m.weight_scale"].size() == 2 * 4);
}

TEST_CASE("compressed-tensors: scales have the model's type, f32 with integer activations",
          "[compressed_tensors]") {
  const auto model = Builder()
                         .add("b.weight", DType::BF16, {2, 128}, Buffer(512))
                         .add("h.weight", DType::F16, {2, 128}, Buffer(512))
                         .add("d.weight", DType::F64, {2, 128}, Buffer(2048))
                         .build();
  const auto type = [&](std::size_t i, const SchemeOptions& options) {
    return quantized(stored(model->catalog, model->catalog.entries()[i]), options).outputs[1].dtype;
  };
  CHECK(type(0, weight_only(8, 128)) == DType::BF16);
  CHECK(type(1, weight_only(8, 128)) == DType::F16);
  CHECK(type(2, weight_only(8, 128)) == DType::F32);
  CHECK(type(0, kW8A8) == DType::F32);
}

TEST_CASE("compressed-tensors: what cannot be written is refused with the numbers",
          "[compressed_tensors]") {
  const auto why = [](DType dtype, const Shape& shape, const SchemeOptions& options) {
    const std::uint64_t bytes = *byte_size(dtype, *element_count(shape));
    const auto model = Builder().add("m.weight", dtype, shape, Buffer(bytes)).build();
    return kCompressedTensors.refuses(*stored(model->catalog, model->catalog.entries()[0]), options)
        .value_or("");
  };
  CHECK(why(DType::BF16, {4, 256}, weight_only(4, 128)).empty());
  CHECK(why(DType::BF16, {4, 100}, weight_only(8, 128)) ==
        "100 columns do not divide into groups of 128");
  CHECK(why(DType::BF16, {4, 13}, weight_only(4, 0)).empty());
  CHECK(why(DType::BF16, {4, 1 << 19}, weight_only(4, 0)) ==
        "a row of 524288 columns with one scale is longer than 262144");
  CHECK(why(DType::BF16, {4, 13}, kW8A8).empty());
  CHECK(why(DType::BF16, {4, 24}, weight_only(4, 12)).empty());
  CHECK(why(DType::BF16, {2, 4, 128}, weight_only(8, 128)) ==
        "[2, 4, 128] has 3 dimensions, not 2");
  CHECK(why(DType::I32, {4, 128}, weight_only(8, 128)) == "i32 is not f16, bf16, f32 or f64");
  CHECK(why(DType::F32, {0, 128}, weight_only(8, 128)) == "[0, 128] is empty");
  CHECK(why(DType::F32, {4, 128}, weight_only(3, 128)).empty());
  CHECK(why(DType::F32, {4, 128}, weight_only(9, 128)) == "9 bits: integers of 2 to 8 are written");
  CHECK(why(DType::F32, {4, 128}, {.bits = 8, .group = 128, .asymmetric = true}) ==
        "engines load 8 bits with zero points, and their kernels fail on them");
  CHECK(why(DType::F32, {4, 40}, {.levels = Levels::Nvfp4}) ==
        "40 columns do not divide into groups of 16");
  CHECK(why(DType::F32, {4, 48}, {.levels = Levels::Mxfp4}) ==
        "48 columns do not divide into groups of 32");
  CHECK(why(DType::F32, {5, 300}, {.levels = Levels::Fp8, .block = true}).empty());
  CHECK(!why(DType::F32, {4, 128}, {.bits = 4, .group = 128, .activations = true}).empty());

  const Target nameless{"experts.gate_up_proj", tensor_of({1, 128}, std::vector<float>(128))};
  Plan plan;
  CHECK_THROWS_AS(kCompressedTensors.encode({&nameless, 1}, weight_only(8, 128), plan), Error);
}

TEST_CASE("compressed-tensors: the config is what loaders accept", "[compressed_tensors]") {
  const std::vector<std::string> kept{"lm_head", "model.layers.0.mlp.gate"};
  const ConfigGroup int4{weight_only(4, 128), {"a", "b"}}, narrow{weight_only(4, 32), {"c"}};
  CHECK(
      kCompressedTensors.config({&int4, 1}, kept) ==
      R"({"quant_method":"compressed-tensors","format":"pack-quantized","quantization_status":"compressed",)"
      R"("global_compression_ratio":null,"kv_cache_scheme":null,"ignore":["lm_head","model.layers.0.mlp.gate"],)"
      R"("config_groups":{"group_0":{"targets":["Linear"],"weights":{"num_bits":4,"type":"int","symmetric":true,)"
      R"("strategy":"group","group_size":128,"dynamic":false,"actorder":null,"block_structure":null,)"
      R"("observer":"minmax","observer_kwargs":{}},"input_activations":null,"output_activations":null}}})");

  const std::vector<ConfigGroup> both{int4, narrow};
  const std::string two = kCompressedTensors.config(both, kept);
  CHECK(two.find(R"("group_0":{"targets":["a","b"])") != std::string::npos);
  CHECK(two.find(R"("group_1":{"targets":["c"],"weights":{"num_bits":4,"type":"int",)"
                 R"("symmetric":true,"strategy":"group","group_size":32)") != std::string::npos);

  const ConfigGroup w8a8{kW8A8, {"a"}};
  const std::string activations = kCompressedTensors.config({&w8a8, 1}, {});
  CHECK(activations.find(R"("format":"int-quantized")") != std::string::npos);
  CHECK(activations.find(R"("strategy":"channel","group_size":null)") != std::string::npos);
  CHECK(activations.find(R"("input_activations":{"num_bits":8,"type":"int","symmetric":true,)"
                         R"("strategy":"token","dynamic":true,"group_size":null})") !=
        std::string::npos);
  const std::vector<ConfigGroup> mixed{int4, w8a8};
  const std::string several = kCompressedTensors.config(mixed, {});
  CHECK(several.find(R"("format":"mixed-precision")") != std::string::npos);
  CHECK(several.find(R"("format":"pack-quantized"},"group_1")") != std::string::npos);
  CHECK(several.find(R"("output_activations":null,"format":"int-quantized"}}})") !=
        std::string::npos);

  const auto of = [&](const SchemeOptions& options) {
    const ConfigGroup group{options, {"a"}};
    return kCompressedTensors.config({&group, 1}, {});
  };
  const std::string block = of({.levels = Levels::Fp8, .block = true, .activations = true});
  CHECK(block.find(R"("format":"float-quantized")") != std::string::npos);
  CHECK(block.find(R"("strategy":"block","group_size":null,"dynamic":false,"actorder":null,)"
                   R"("block_structure":[128,128])") != std::string::npos);
  CHECK(block.find(R"("strategy":"group","dynamic":true,"group_size":128)") != std::string::npos);
  const std::string nvfp4 = of({.levels = Levels::Nvfp4});
  CHECK(nvfp4.find(R"("num_bits":4,"type":"float","symmetric":true,"strategy":"tensor_group",)"
                   R"("group_size":16)") != std::string::npos);
  CHECK(nvfp4.find("scale_dtype") == std::string::npos);
  const std::string mxfp8 = of({.levels = Levels::Mxfp8});
  CHECK(mxfp8.find(R"("num_bits":8,"type":"float","symmetric":true,"strategy":"group",)"
                   R"("group_size":32)") != std::string::npos);
  CHECK(mxfp8.find(R"("scale_dtype":"torch.uint8","zp_dtype":"torch.uint8")") != std::string::npos);
  CHECK(of({.bits = 4, .group = 64, .asymmetric = true}).find(R"("symmetric":false)") !=
        std::string::npos);
}

// ---- reading

Builder model_of(const fs::path& dir) {
  Builder out;
  const auto add = [&](const char* file, DType dtype) {
    if (!fs::exists(dir / (std::string(file) + ".npy"))) return;
    const Array a = load_npy(dir / (std::string(file) + ".npy"));
    out.add(std::string("m.") + file, dtype, a.shape, a.bytes);
  };
  add("weight", DType::I8);
  add("weight_packed", DType::I32);
  add("weight_scale", DType::F32);
  add("weight_shape", DType::I64);
  add("weight_zero_point", DType::I32);
  return out;
}

std::string config_json(unsigned bits, std::string_view strategy, std::string_view group,
                        bool symmetric = true) {
  return fmt::format(
      R"({{"quantization_config":{{"quant_method":"compressed-tensors","config_groups":{{"group_0":)"
      R"({{"targets":["Linear"],"weights":{{"num_bits":{},"type":"int","strategy":"{}",)"
      R"("group_size":{},"symmetric":{}}}}}}}}}}})",
      bits, strategy, group, symmetric);
}

TEST_CASE("compressed-tensors: decoded values are the reference's", "[compressed_tensors]") {
  struct Kind {
    std::string_view prefix;
    std::string config;
  };
  const Kind kinds[] = {
      {"ct_int8_channel_f32_", config_json(8, "channel", "null")},
      {"ct_int8_packed_channel_f32_", config_json(8, "channel", "null")},
      {"ct_int4_packed_channel_f32_", config_json(4, "channel", "null")},
      {"ct_int8_packed_g128_f32_", config_json(8, "group", "128")},
      {"ct_int4_g128_sym_f32_", config_json(4, "group", "128")},
      {"ct_int4_g128_asym_f32_", config_json(4, "group", "128", false)},
  };
  for (const Kind& kind : kinds)
    for (const fs::path& dir : cases(kind.prefix)) {
      INFO(dir.string());
      const auto model = model_of(dir).config(kind.config).build();
      const TensorPtr tensor = open_only(kCompressedTensors, *model);
      const Array expected = load_npy(dir / "dequantized.npy");
      REQUIRE(tensor->shape() == expected.shape);
      CHECK(tensor->dtype() == DType::F32);
      const auto all = expected.as<float>();
      CHECK(values_of(*tensor, tensor->whole()) == all);
      // Any box is the same part of the whole.
      const Box box{1, expected.shape[0] - 2, 3, expected.shape[1] - 7};
      const auto part = values_of(*tensor, box);
      bool same = true;
      for (std::uint64_t r = 0; r < box.rows; ++r)
        for (std::uint64_t c = 0; c < box.cols; ++c)
          same &= part[r * box.cols + c] == all[(box.row + r) * expected.shape[1] + box.col + c];
      CHECK(same);
    }
}

TEST_CASE("compressed-tensors: codes of 1 to 8 bits are unpacked along either dimension",
          "[compressed_tensors]") {
  for (unsigned bits = 1; bits <= 8; ++bits)
    for (const fs::path& dir : cases(fmt::format("ct_pack_bits{}", bits))) {
      INFO(dir.string());
      const Array codes = load_npy(dir / "codes.npy");
      const Array across = load_npy(dir / "packed_dim1.npy"),
                  down = load_npy(dir / "packed_dim0.npy");
      std::vector<float> signed_codes;
      for (const std::int8_t c : codes.as<std::int8_t>()) signed_codes.push_back(c);
      const std::vector<std::int64_t> shape(codes.shape.begin(), codes.shape.end());

      const auto weight =
          Builder()
              .add("m.weight_packed", DType::I32, across.shape, across.bytes)
              .add("m.weight_shape", DType::I64, {2}, shape)
              .add("m.weight_scale", DType::F32, {5, 1}, std::vector<float>(5, 1.0f))
              .build();
      const TensorPtr by_row = open_only(kCompressedTensors, *weight);
      CHECK(values_of(*by_row, by_row->whole()) == signed_codes);
      const auto tail = values_of(*by_row, {4, 1, 33, 12});
      CHECK(std::equal(tail.begin(), tail.end(), signed_codes.begin() + 4 * 45 + 33));

      // The same codes as zero points of groups of one column, under codes that are all lowest.
      const auto zeros =
          Builder()
              .add("m.weight_packed", DType::I32, across.shape, Buffer(across.bytes.size()))
              .add("m.weight_shape", DType::I64, {2}, shape)
              .add("m.weight_scale", DType::F32, {5, 45}, std::vector<float>(5 * 45, 1.0f))
              .add("m.weight_zero_point", DType::I32, down.shape, down.bytes)
              .build();
      const TensorPtr by_column = open_only(kCompressedTensors, *zeros);
      auto lowest_minus = signed_codes;
      for (float& x : lowest_minus) x = -static_cast<float>(1u << (bits - 1)) - x;
      CHECK(values_of(*by_column, by_column->whole()) == lowest_minus);
      const auto part = values_of(*by_column, {3, 1, 40, 5});
      CHECK(std::equal(part.begin(), part.end(), lowest_minus.begin() + 3 * 45 + 40));
    }
}

TEST_CASE("compressed-tensors: a lone file says itself how it is to be read",
          "[compressed_tensors][safetensors]") {
  const Shape shape{6, 256};
  const auto in = random_values(6 * 256, 5);
  const Target target{"model.layers.0.mlp.up_proj.weight", tensor_of(shape, in)};
  const ConfigGroup group{weight_only(4, 64), {"model.layers.0.mlp.up_proj"}};
  const std::string path =
      (fs::temp_directory_path() / "wtool_compressed_test.safetensors").string();
  Plan plan;
  kCompressedTensors.encode({&target, 1}, group.options, plan);
  Metadata meta;
  meta.set("quantization_config", kCompressedTensors.config({&group, 1}, {}));
  plan.files.push_back({"m", &kSafetensors, meta, outputs_of(plan).size()});
  {
    OutputSet outputs(path, OutputSet::Kind::File, OutputSet::Existing::Replace);
    execute(plan, {.threads = 2}, &outputs);
    outputs.commit();
  }
  Diagnostics faults;
  const auto model = open_model(path, all_formats(), {}, faults);
  fs::remove(path);
  CHECK(faults.notes().empty());
  REQUIRE(model->tensors.size() == 1);
  CHECK(model->tensors[0].name == target.name);
  CHECK(model->tensors[0].scheme == &kCompressedTensors);
  const TensorPtr back = model->open(model->tensors[0]);
  const auto out = values_of(*back, back->whole());
  for (std::size_t i = 0; i < in.size(); i += 64) {
    float largest = 0;
    for (std::size_t k = i; k < i + 64; ++k) largest = std::max(largest, std::abs(in[k]));
    for (std::size_t k = i; k < i + 64; ++k)  // half a step, and the rounding of the arithmetic
      CHECK(std::abs(out[k] - in[k]) <= largest / 7.5f * 0.50001f);
  }
}

// A packed weight [2, 64] of 4 bits, groups of 32; every part can be spoilt.
struct Packed {
  Shape words{2, 8}, scales{2, 2};
  std::vector<std::int64_t> shape{2, 64};
  DType scale_type = DType::F32;
  std::vector<std::int32_t> g_idx = {};
  bool with_scale = true, with_shape = true, with_plain = false;
  std::string config = config_json(4, "group", "32");

  std::shared_ptr<Model> build() const {
    Builder b;
    std::vector<std::int32_t> codes(*element_count(words), 0x32101234);
    b.add("m.weight_packed", DType::I32, words, codes);
    if (with_scale)
      b.add("m.weight_scale", scale_type, scales,
            Buffer(*byte_size(scale_type, *element_count(scales)), std::byte{0x3F}));
    if (with_shape) b.add("m.weight_shape", DType::I64, {shape.size()}, shape);
    if (with_plain) b.add("m.weight", DType::F32, {1}, Buffer(4));
    if (!g_idx.empty()) b.add("m.weight_g_idx", DType::I32, {g_idx.size()}, g_idx);
    if (!config.empty()) b.config(config);
    return b.build();
  }
  std::string fault() const {
    const auto model = build();
    Diagnostics faults(Diagnostics::Mode::Collect);
    const auto found = kCompressedTensors.recognise(*model, faults);
    CHECK(found.size() + faults.findings().size() == 1);
    if (!faults.findings().empty())
      CHECK(faults.findings()[0].where.text() == "m.safetensors: tensor 'm.weight_packed'");
    return faults.findings().empty() ? "" : faults.findings()[0].text;
  }
};

TEST_CASE("compressed-tensors: parts that contradict each other are reported",
          "[compressed_tensors]") {
  constexpr std::int64_t kHuge = (std::int64_t{1} << 61) + 32;  // × 8 wraps round to 256 bits
  CHECK(Packed{}.fault().empty());
  CHECK(Packed{.with_scale = false}.fault() == "'m.weight_scale' is missing");
  CHECK(Packed{.with_shape = false}.fault() == "'m.weight_shape' is missing");
  CHECK(Packed{.shape = {3, 64}}.fault() ==
        "weight_shape says [3, 64] but there are 2 rows of codes");
  CHECK(Packed{.shape = {2, -64}}.fault() ==
        "weight_shape says [2, -64] but there are 2 rows of codes");
  CHECK(Packed{.shape = {2, kHuge}}.fault() ==
        "2305843009213693984 columns (by weight_shape) do not take 8 words at any 1 to 8 bits");
  CHECK(Packed{.shape = {2, 16}}.fault() ==
        "16 columns (by weight_shape) do not take 8 words at any 1 to 8 bits");
  CHECK(Packed{.shape = {2, 64, 1}}.fault() == "the shape is i64 [3], not i64 [2]");
  CHECK(Packed{.scales = {2, 3}}.fault() == "scales [2, 3] do not divide codes of shape [2, 64]");
  CHECK(Packed{.scales = {64}}.fault() == "scales [64] do not divide codes of shape [2, 64]");
  CHECK(Packed{.scales = {2, 4}}.fault() ==
        "codes [2, 8], scales [2, 4] do not fit the 4 bits, group 32 of m/config.json");
  CHECK(Packed{.scale_type = DType::I32}.fault() == "the scale is i32, not f32, bf16 or f16");
  CHECK(Packed{.config = config_json(8, "group", "32")}.fault() ==
        "codes [2, 8], scales [2, 2] do not fit the 8 bits, group 32 of m/config.json");
  CHECK(!Packed{.config = config_json(4, "group", "32", false)}.fault().empty());
  CHECK(!Packed{.with_plain = true}.fault().empty());
}

TEST_CASE("compressed-tensors: without a config the shapes decide, where they can",
          "[compressed_tensors]") {
  CHECK(Packed{.config = ""}.fault().empty());
  {
    // 4 columns take one word at any of 1 to 8 bits.
    const auto model =
        Packed{.words = {2, 1}, .scales = {2, 1}, .shape = {2, 4}, .config = ""}.build();
    Diagnostics faults;
    CHECK(kCompressedTensors.recognise(*model, faults).empty());
    REQUIRE(faults.notes().size() == 1);
    CHECK(faults.notes()[0].text ==
          "tensor 'm.weight_packed' is shown as stored: nothing says how many bits a code has");
  }
  {
    const auto model = Packed{.words = {2, 1},
                              .scales = {2, 1},
                              .shape = {2, 4},
                              .config = config_json(8, "channel", "null")}
                           .build();
    const TensorPtr tensor = open_only(kCompressedTensors, *model);
    CHECK(tensor->shape() == Shape{2, 4});
    const float scale = values_of(*tensor, tensor->whole())[0] / (0x34 - 128);
    CHECK(scale == Approx(0.7470588));  // 0x3F3F3F3F
  }
  {  // 10 codes of 3 bits to a word, as older releases packed them: no fault, but not read.
    const auto model = Packed{.words = {2, 7}, .scales = {2, 1}}.build();
    Diagnostics faults;
    CHECK(kCompressedTensors.recognise(*model, faults).empty());
    CHECK(faults.notes().size() == 1);
  }
  {  // One shard alone: the scale is in another.
    const auto model = Packed{.with_scale = false, .config = ""}.build();
    Diagnostics faults;
    CHECK(kCompressedTensors.recognise(*model, faults).empty());
    CHECK(faults.notes().size() == 1);
  }
}

TEST_CASE("compressed-tensors: a config of another method claims nothing", "[compressed_tensors]") {
  const auto model = Packed{.config = R"({"quantization_config":{"quant_method":"gptq"}})"}.build();
  Diagnostics faults;
  CHECK(kCompressedTensors.recognise(*model, faults).empty());
  REQUIRE(faults.notes().size() == 1);
  CHECK(faults.notes()[0].text.find("m/config.json says 'gptq'") != std::string::npos);
}

TEST_CASE("compressed-tensors: hostile configs are notes or faults, never more",
          "[compressed_tensors]") {
  const auto with = [](std::string config) {
    Diagnostics faults(Diagnostics::Mode::Collect);
    kCompressedTensors.recognise(*Packed{.config = std::move(config)}.build(), faults);
    return faults.findings().size() + faults.notes().size();
  };
  CHECK(with("{") == 1);
  CHECK(with(std::string(1 << 20, '[')) == 1);
  CHECK(with(std::string((8 << 20) + 1, ' ')) == 1);
  CHECK(with("[]") == 0);
  CHECK(with(R"({"quantization_config":7})") == 0);
  CHECK(with(R"({"quantization_config":{"config_groups":{"a":[]}}})") == 0);
  CHECK(with(R"({"quantization_config":{"config_groups":{"b":{"weights":7}}}})") == 1);
  CHECK(with(R"({"quantization_config":{"config_groups":{"a":{"weights":{"num_bits":9}}}}})") == 1);
  CHECK(with(R"({"quantization_config":{"config_groups":{"a":{"weights":{"num_bits":-4}}}}})") ==
        1);
}

TEST_CASE("compressed-tensors: the group index says which scale a column has",
          "[compressed_tensors]") {
  Builder b;
  b.add("m.weight_packed", DType::I32, {1, 8}, std::vector<std::int32_t>(8, -1))  // all codes 7
      .add("m.weight_shape", DType::I64, {2}, std::vector<std::int64_t>{1, 64})
      .add("m.weight_scale", DType::F32, {1, 2}, std::vector<float>{1.0f, 10.0f});
  std::vector<std::int32_t> index(64);
  for (std::size_t c = 0; c < 64; ++c) index[c] = c % 2 == 0;
  {
    const auto model = Builder(b).add("m.weight_g_idx", DType::I32, {64}, index).build();
    const auto values = values_of(*open_only(kCompressedTensors, *model), {0, 1, 5, 3});
    CHECK(values == std::vector<float>{7, 70, 7});
  }
  {
    const auto model =
        Builder(b)
            .add("m.weight_g_idx", DType::I32, {64}, std::vector<std::int32_t>(64, -1))
            .build();
    CHECK(values_of(*open_only(kCompressedTensors, *model), {0, 1, 31, 2}) ==
          std::vector<float>{7, 70});
  }
  for (const std::int32_t bad : {2, -2, -1}) {
    index[9] = bad;
    const auto model = Builder(b).add("m.weight_g_idx", DType::I32, {64}, index).build();
    CHECK_THROWS_WITH(open_only(kCompressedTensors, *model),
                      Catch::Contains("of column 9 is not below the 2 groups"));
  }
}

TEST_CASE("compressed-tensors: int8 of one scale, of rows and of groups, with zero points",
          "[compressed_tensors]") {
  const std::vector<std::int8_t> codes{-128, -1, 0, 127, 5, 6, 7, 8};
  const auto open_with = [&](const Shape& scales, const std::vector<float>& values,
                             const std::vector<std::int8_t>& zeros) {
    Builder b;
    b.add("m.weight", DType::I8, {2, 4}, codes).add("m.weight_scale", DType::F32, scales, values);
    if (!zeros.empty()) b.add("m.weight_zero_point", DType::I8, scales, zeros);
    const auto model = b.build();
    const TensorPtr t = open_only(kCompressedTensors, *model);
    return values_of(*t, t->whole());
  };
  CHECK(open_with({1}, {0.5f}, {}) == std::vector<float>{-64, -0.5f, 0, 63.5f, 2.5f, 3, 3.5f, 4});
  CHECK(open_with({2, 1}, {1, 2}, {-128, 5}) == std::vector<float>{0, 127, 128, 255, 0, 2, 4, 6});
  CHECK(open_with({2, 2}, {1, 2, 3, 4}, {}) ==
        std::vector<float>{-128, -1, 0, 254, 15, 18, 28, 32});

  const auto alone = Builder().add("m.weight", DType::I8, {2, 4}, codes).build();
  Diagnostics faults;
  CHECK(kCompressedTensors.recognise(*alone, faults).empty());
}

// ---- which tensors

TEST_CASE("policy: linear weights are quantised, everything else is kept with its reason",
          "[policy]") {
  struct Line {
    const char* name;
    Shape shape;
    const char* reason;  // null: quantised
    DType dtype = DType::BF16;
  };
  const Line lines[] = {
      // Llama
      {"model.embed_tokens.weight", {32000, 4096}, "embedding"},
      {"model.layers.0.self_attn.q_proj.weight", {4096, 4096}, nullptr},
      {"model.layers.0.mlp.gate_proj.weight", {14336, 4096}, nullptr},
      {"model.layers.0.mlp.down_proj.weight", {4096, 14336}, nullptr},
      {"model.layers.0.input_layernorm.weight", {4096}, "norm"},
      {"model.norm.weight", {4096}, "norm"},
      {"lm_head.weight", {32000, 4096}, "head"},
      {"model.layers.0.self_attn.rotary_emb.inv_freq", {64}, "1-D"},
      {"output.weight", {32000, 4096}, "head"},
      {"tok_embeddings.weight", {32000, 4096}, "embedding"},
      {"layers.0.attention.wo.weight", {4096, 4096}, nullptr},
      // Qwen, Qwen MoE, hybrid Qwen, Mixtral, DeepSeek, gpt-oss
      {"model.layers.0.self_attn.q_proj.bias", {4096}, "bias"},
      {"model.layers.0.mlp.gate.weight", {128, 2048}, "router"},
      {"model.layers.0.mlp.shared_expert_gate.weight", {1, 2048}, "router"},
      {"model.layers.0.mlp.experts.127.gate_proj.weight", {768, 2048}, nullptr},
      {"model.layers.0.linear_attn.in_proj_ba.weight", {64, 2048}, "small and sensitive"},
      {"model.layers.0.linear_attn.in_proj_qkvz.weight", {12288, 2048}, nullptr},
      {"model.layers.0.linear_attn.A_log", {32}, "1-D"},
      {"model.layers.0.linear_attn.dt_bias", {32}, "bias"},
      {"model.layers.0.linear_attn.conv1d.weight", {8192, 1, 4}, "conv"},
      {"model.layers.0.block_sparse_moe.gate.weight", {8, 4096}, "router"},
      {"model.layers.0.block_sparse_moe.experts.0.w1.weight", {14336, 4096}, nullptr},
      {"model.layers.3.self_attn.kv_a_proj_with_mqa.weight", {576, 7168}, nullptr},
      {"model.layers.3.mlp.gate.e_score_correction_bias", {256}, "bias"},
      {"model.layers.61.eh_proj.weight", {7168, 14336}, "multi-token prediction"},
      {"model.layers.61.shared_head.head.weight", {129280, 7168}, "head"},
      {"mtp.layers.0.mlp.up_proj.weight", {4096, 2048}, "multi-token prediction"},
      {"model.layers.0.mlp.experts.gate_up_proj", {32, 2880, 5760}, "3-D"},
      {"model.layers.0.mlp.router.weight", {32, 2880}, "router"},
      // GPT-2, and models whose layers have its names but lie the other way
      {"h.0.attn.c_attn.weight", {768, 2304}, "Conv1D [in, out]"},
      {"h.0.mlp.c_fc.weight", {768, 3072}, "Conv1D [in, out]"},
      {"h.0.mlp.c_proj.weight", {3072, 768}, "Conv1D [in, out]"},
      {"h.0.attn.c_proj.weight", {768, 768}, "may be Conv1D [in, out]"},
      {"model.layers.0.mlp.c_fc.weight", {12288, 3072}, nullptr},
      {"model.layers.0.mlp.c_proj.weight", {3072, 12288}, nullptr},
      {"h.0.ln_1.weight", {768}, "norm"},
      {"wte.weight", {50257, 768}, "embedding"},
      {"wpe.weight", {1024, 768}, "embedding"},
      {"h.0.attn.bias", {1, 1, 1024, 1024}, "bias"},
      // Phi, Gemma, T5, GPT-NeoX
      {"model.layers.0.self_attn.dense.weight", {2560, 2560}, nullptr},
      {"model.layers.0.self_attn.qkv_proj.weight", {9216, 3072}, nullptr},
      {"model.layers.0.pre_feedforward_layernorm.weight", {2304}, "norm"},
      {"shared.weight", {32128, 512}, "embedding"},
      {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
       {32, 8},
       "embedding"},
      {"encoder.block.0.layer.0.SelfAttention.q.weight", {512, 512}, nullptr},
      {"gpt_neox.embed_in.weight", {50432, 6144}, "embedding"},
      {"embed_out.weight", {50432, 6144}, "head"},
      // Stable Diffusion's UNet, Whisper, ViT, models that see
      {"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight", {320, 320}, nullptr},
      {"down_blocks.0.resnets.0.conv1.weight", {320, 320, 3, 3}, "conv"},
      {"conv_in.weight", {320, 4, 3, 3}, "conv"},
      {"model.encoder.conv1.weight", {384, 80, 3}, "conv"},
      {"model.decoder.embed_positions.weight", {448, 384}, "embedding"},
      {"model.decoder.layers.0.fc1.weight", {1536, 384}, nullptr},
      {"proj_out.weight", {51865, 384}, "head"},
      {"vit.embeddings.cls_token", {1, 1, 768}, "3-D"},
      {"vit.embeddings.patch_embeddings.projection.weight", {768, 3, 16, 16}, "conv"},
      {"vit.encoder.layer.0.attention.attention.query.weight", {768, 768}, nullptr},
      {"classifier.weight", {1000, 768}, "head"},
      {"vision_tower.encoder.layers.0.mlp.fc1.weight", {4304, 1152}, "vision"},
      {"multi_modal_projector.linear_1.weight", {4096, 1152}, "vision"},
      {"visual.blocks.0.attn.qkv.weight", {3840, 1280}, "vision"},
      {"audio_tower.layers.0.fc1.weight", {5120, 1280}, "audio"},
      // Types
      {"model.layers.0.mlp.up_proj.weight", {64, 64}, "integer", DType::I8},
      {"model.layers.0.mlp.up_proj.weight", {64, 64}, "already quantized", DType::F8_E4M3},
      {"model.layers.0.mlp.up_proj.weight", {64, 64}, nullptr, DType::F32},
      {"some.matrix", {64, 64}, "not a weight"},
  };
  for (const Line& l : lines) {
    INFO(l.name);
    CHECK(keep_reason(l.name, l.dtype, l.shape, NameStyle::HuggingFace).value_or("quantised") ==
          std::string_view(l.reason ? l.reason : "quantised"));
  }
}

TEST_CASE("policy: GGUF names", "[policy]") {
  struct Line {
    const char* name;
    Shape shape;
    const char* reason;
  };
  const Line lines[] = {
      {"token_embd.weight", {32000, 4096}, "embedding"},
      {"per_layer_token_embd.weight", {262144, 8960}, "embedding"},
      {"output.weight", {32000, 4096}, "head"},
      {"output_norm.weight", {4096}, "norm"},
      {"rope_freqs.weight", {64}, "1-D"},
      {"blk.0.attn_q.weight", {4096, 4096}, nullptr},
      {"blk.0.attn_output.weight", {4096, 4096}, nullptr},
      {"blk.0.attn_norm.weight", {4096}, "norm"},
      {"blk.0.attn_q.bias", {4096}, "bias"},
      {"blk.0.ffn_down.weight", {4096, 14336}, nullptr},
      {"blk.0.ffn_gate.weight", {14336, 4096}, nullptr},
      {"blk.0.ffn_gate_inp.weight", {8, 4096}, "router"},
      {"blk.0.ffn_gate_inp_shexp.weight", {2048}, "router"},
      {"blk.0.ffn_up_exps.weight", {8, 14336, 4096}, nullptr},
      {"blk.0.exp_probs_b.bias", {256}, "bias"},
      {"blk.0.ssm_conv1d.weight", {8192, 4}, "conv"},
      {"blk.0.ssm_a", {48}, "1-D"},
      {"blk.0.ssm_in.weight", {8192, 2048}, nullptr},
      {"blk.0.time_mix_w1.weight", {64, 2048}, "small and sensitive"},
      {"blk.0.time_mix_key.weight", {2048, 2048}, nullptr},
      {"blk.0.nextn.eh_proj.weight", {7168, 14336}, "multi-token prediction"},
      {"v.blk.0.attn_q.weight", {1152, 1152}, "vision"},
      {"mm.0.weight", {4096, 1152}, "vision"},
      {"position_embd.weight", {1024, 768}, "embedding"},
      {"cls.weight", {768, 768}, "head"},
  };
  for (const Line& l : lines) {
    INFO(l.name);
    CHECK(keep_reason(l.name, DType::F16, l.shape, NameStyle::Ggml).value_or("quantised") ==
          std::string_view(l.reason ? l.reason : "quantised"));
  }
  CHECK(keep_reason("blk.0.attn_q.weight", DType::Q4_0, Shape{64, 64}, NameStyle::Ggml) ==
        "already quantized");
}

}  // namespace
}  // namespace wtool
