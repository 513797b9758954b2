// Readers of the quantisation schemes other than compressed-tensors.
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include <fmt/format.h>

#include "formats/registry.h"
#include "tests/unit/scheme_models.h"

namespace wtool {
namespace {

// The faults and notes of recognising, and how many tensors were found.
struct Said {
  std::size_t found = 0;
  std::string where, fault, note;
};
Said said_by(const Scheme& scheme, const Model& model) {
  Diagnostics faults(Diagnostics::Mode::Collect);
  Said out;
  out.found = scheme.recognise(model, faults).size();
  if (!faults.findings().empty()) {
    out.where = faults.findings()[0].where.text();
    out.fault = faults.findings()[0].text;
  }
  if (!faults.notes().empty()) out.note = faults.notes()[0].text;
  return out;
}
std::string method_json(std::string_view method, std::string_view more = "") {
  return fmt::format(R"({{"quantization_config":{{"quant_method":"{}"{}}}}})", method, more);
}

// Every box that matters is the same part of the whole.
void check_boxes(const Tensor& tensor, const std::vector<float>& all) {
  const std::uint64_t rows = tensor.whole().rows, cols = tensor.whole().cols;
  REQUIRE(all.size() == rows * cols);
  std::mt19937 random(1);
  for (int i = 0; i < 40; ++i) {
    Box box;
    box.row = random() % rows;
    box.rows = 1 + random() % (rows - box.row);
    box.col = random() % cols;
    box.cols = 1 + random() % (cols - box.col);
    const auto part = values_of(tensor, box);
    bool same = true;
    for (std::uint64_t r = 0; r < box.rows; ++r)
      for (std::uint64_t c = 0; c < box.cols; ++c)
        same &= part[r * box.cols + c] == all[(box.row + r) * cols + box.col + c];
    CHECK(same);
  }
}

std::vector<float> decoded(const Array& a, DType type) {
  std::vector<float> out(*element_count(a.shape));
  codec(type).decode(a.bytes.data(), out.data(), out.size());
  return out;
}

// ---- GPTQ

Builder gptq_of(const fs::path& dir, std::string_view zeros, bool with_index = true) {
  const auto load = [&](std::string_view file) {
    return load_npy(dir / (std::string(file) + ".npy"));
  };
  const Array codes = load("qweight"), zero = load(zeros), scales = load("scales_f16"),
              index = load("g_idx");
  Builder b;
  b.add("m.qweight", DType::I32, codes.shape, codes.bytes)
      .add("m.qzeros", DType::I32, zero.shape, zero.bytes)
      .add("m.scales", DType::F16, scales.shape, scales.bytes);
  if (with_index) b.add("m.g_idx", DType::I32, index.shape, index.bytes);
  return b;
}

// From the zero points the reference counted, and codes taken bit by bit down each column.
std::vector<float> gptq_expected(const fs::path& dir, unsigned bits) {
  const Array codes = load_npy(dir / "qweight.npy");
  const auto words = codes.as<std::uint32_t>();
  const auto zeros = load_npy(dir / "zero_unpacked.npy").as<std::int32_t>();
  const auto scales = decoded(load_npy(dir / "scales_f16.npy"), DType::F16);
  const std::uint64_t out = codes.shape[1], in = codes.shape[0] * 32 / bits;
  std::vector<float> values;
  for (std::uint64_t r = 0; r < out; ++r)
    for (std::uint64_t c = 0; c < in; ++c) {
      int code = 0;
      for (std::uint64_t b = 0; b < bits; ++b) {
        const std::uint64_t at = c * bits + b;
        code |= static_cast<int>(words[at / 32 * out + r] >> at % 32 & 1) << b;
      }
      const std::uint64_t g = c / 128, groups = in / 128;
      values.push_back(static_cast<float>(code - zeros[r * groups + g]) * scales[g * out + r]);
    }
  return values;
}

TEST_CASE("gptq: versions 1 and 2 of the reference's tensors are the same values", "[schemes]") {
  for (const auto& [prefix, bits] :
       {std::pair{"gptq_3bit_", 3u}, {"gptq_4bit_", 4u}, {"gptq_8bit_", 8u}})
    for (const fs::path& dir : cases(prefix)) {
      INFO(dir.string());
      const auto expected = gptq_expected(dir, bits);
      const auto weight = load_npy(dir / "weight_f32.npy").as<float>();
      for (const bool v2 : {false, true}) {
        if (!v2 && !fs::exists(dir / "qzeros_v1.npy")) continue;
        for (const bool with_index : {false, true}) {
          const auto model =
              gptq_of(dir, v2 ? "qzeros_v2" : "qzeros_v1", with_index)
                  .config(method_json("gptq",
                                      fmt::format(R"(,"bits":{},"group_size":128,"desc_act":false,)"
                                                  R"("checkpoint_format":"{}")",
                                                  bits, v2 ? "gptq_v2" : "gptq")))
                  .build();
          const TensorPtr tensor = open_only(kGptq, *model);
          REQUIRE(tensor->elements() == expected.size());
          CHECK(values_of(*tensor, tensor->whole()) == expected);
          check_boxes(*tensor, expected);
        }
      }
      // What was quantised is at most half a step away, but for what lies beyond the last code.
      std::size_t near = 0;
      const auto scales = decoded(load_npy(dir / "scales_f16.npy"), DType::F16);
      const Shape shape = load_npy(dir / "weight_f32.npy").shape;
      const std::uint64_t out = shape[0], in = shape[1];
      for (std::size_t i = 0; i < expected.size(); ++i)
        near += std::abs(expected[i] - weight[i]) <=
                0.502f * std::abs(scales[i % in / 128 * out + i / in]);
      CHECK(near > expected.size() * 98 / 100);
    }
}

// A weight [64, 32] of 4 bits in 2 groups, all codes 9 and zero points 8; parts can be spoilt.
struct Gptq {
  Shape codes{4, 64}, zeros{2, 8}, scales{2, 64};
  std::vector<std::int32_t> index = {};
  std::string config = method_json("gptq", R"(,"bits":4,"group_size":16)");
  bool with_zeros = true, with_scales = true, with_plain = false;
  DType scale_type = DType::F32;
  std::uint32_t zero_word = 0x77777777;
  float scale = 0.5f;

  std::shared_ptr<Model> build() const {
    Builder b;
    const auto words = [](const Shape& shape, std::uint32_t word) {
      return std::vector<std::uint32_t>(*element_count(shape), word);
    };
    b.add("m.qweight", DType::I32, codes, words(codes, 0x99999999));
    if (with_zeros) b.add("m.qzeros", DType::I32, zeros, words(zeros, zero_word));
    if (with_scales && scale_type == DType::F32)
      b.add("m.scales", DType::F32, scales, std::vector<float>(*element_count(scales), scale));
    if (with_scales && scale_type != DType::F32)
      b.add("m.scales", scale_type, scales, Buffer(*byte_size(scale_type, *element_count(scales))));
    if (!index.empty()) b.add("m.g_idx", DType::I32, {index.size()}, index);
    return b.config(config).build();
  }
  std::string fault() const {
    const Said said = said_by(kGptq, *build());
    CHECK(said.found + (said.fault.empty() ? 0 : 1) == 1);
    if (!said.fault.empty()) CHECK(said.where == "m.safetensors: tensor 'm.qweight'");
    return said.fault;
  }
};

TEST_CASE("gptq: parts that contradict each other or the config are reported", "[schemes]") {
  CHECK(Gptq{}.fault().empty());
  CHECK(Gptq{.with_zeros = false}.fault() == "'m.qzeros' is missing");
  CHECK(Gptq{.with_scales = false}.fault() == "'m.scales' is missing");
  CHECK(Gptq{.scales = {2, 63}}.fault() ==
        "scales [2, 63] are not for the 64 outputs of codes [4, 64]");
  CHECK(Gptq{.zeros = {3, 8}}.fault() == "zero points [3, 8] do not match scales [2, 64]");
  CHECK(Gptq{.zeros = {2, 7}}.fault() ==
        "zero points [2, 7] for 64 outputs are not of 2, 3, 4 or 8 bits");
  CHECK(Gptq{.zeros = {2, 10}}.fault() ==
        "zero points [2, 10] for 64 outputs are not of 2, 3, 4 or 8 bits");
  CHECK(Gptq{.zeros = {2, 16}}.fault() ==
        "codes [4, 64] and zero points [2, 16] are of 8 bits, but m/config.json says 4");
  CHECK(Gptq{.codes = {4}}.fault() == "'m.qweight' has shape [4], not 2 dimensions");
  CHECK(Gptq{.zeros = {0, 8}, .scales = {0, 64}}.fault() ==
        "zero points [0, 8] do not match scales [0, 64]");
  CHECK(Gptq{.zeros = {33, 8}, .scales = {33, 64}}.fault() ==
        "33 groups are more than the 32 inputs");
  CHECK(Gptq{.index = {0, 1, 0}}.fault() ==
        "group index [3] does not match 32 inputs (codes [4, 64] of 4 bits)");
  CHECK(Gptq{.scale_type = DType::I32}.fault() == "the scales are i32, not f32, bf16 or f16");
  CHECK(Gptq{.config = method_json("gptq", R"(,"bits":4,"group_size":8)")}.fault() ==
        "scales [2, 64] are of 2 groups, but 32 inputs in groups of 8 (m/config.json) are 4");
  CHECK(Gptq{.config = method_json("gptq", R"(,"bits":4,"group_size":-1)")}.fault() ==
        "scales [2, 64] are of 2 groups, but 32 inputs in groups of 32 (m/config.json) are 1");
  CHECK(
      Gptq{.config = method_json("gptq", R"(,"bits":4,"group_size":16,"desc_act":true)")}.fault() ==
      "'m.g_idx' is missing, and m/config.json says desc_act");
  CHECK(Gptq{.config = method_json("gptq", R"(,"modules_to_not_convert":["m"])")}.fault() ==
        "m/config.json lists 'm' in modules_to_not_convert, but it is stored quantized");
  CHECK(Gptq{.config = method_json("gptq", R"(,"dynamic":{"-:^m$":{}})")}.fault() ==
        "m/config.json lists 'm' in dynamic, but it is stored quantized");
  // Exclusions of others do not make this one's numbers its own.
  CHECK(Gptq{.config = method_json("gptq", R"(,"bits":8,"dynamic":{"-:^n$":{}})")}.fault() ==
        "codes [4, 64] and zero points [2, 8] are of 4 bits, but m/config.json says 8");
  CHECK(Gptq{.config = method_json("gptq", R"(,"bits":8,"dynamic":{"+:^m$":{"bits":4}})")}
            .fault()
            .empty());
  CHECK(Gptq{.codes = {32, 8}, .zeros = {2, 8}}.fault() ==
        "codes [32, 8] and scales [2, 64] are laid out as AWQ's, but m/config.json says 'gptq'");
}

TEST_CASE("gptq: absurd widths in the config are faults of the config", "[schemes]") {
  const Said said =
      said_by(kGptq, *Gptq{.config = method_json("gptq", R"(,"bits":4000000000)")}.build());
  CHECK(said.where == "m/config.json");
  CHECK(said.fault == "bits is 4000000000, not 2, 3, 4 or 8");
}

TEST_CASE("gptq: other methods and unknown packings are left as they are, with a note",
          "[schemes]") {
  const auto note = [](std::string config) {
    const Said said = said_by(kGptq, *Gptq{.config = std::move(config)}.build());
    CHECK(said.found == 0);
    CHECK(said.fault.empty());
    return said.note;
  };
  const std::string as = "tensor 'm.qweight' is shown as stored: ";
  CHECK(note(method_json("hqq")) == as + "m/config.json says 'hqq'");
  CHECK(note(method_json("gptq", R"(,"checkpoint_format":"marlin")")) ==
        as + "m/config.json says checkpoint_format 'marlin', which is not decoded");
  CHECK(note(method_json("auto-round", R"(,"packing_format":"auto_round:llm_compressor")")) ==
        as + "m/config.json says packing_format 'auto_round:llm_compressor', which is not decoded");
  CHECK(note(method_json("gptq", R"(,"bits":5)")) ==
        as + "m/config.json says 5 bits, whose bit planes are not decoded");
  CHECK(note(method_json("awq")).empty());  // that scheme will complain
}

TEST_CASE("gptq: AutoRound's tensors are GPTQ's, with scales of either sign", "[schemes]") {
  const auto model = Gptq{.config = method_json(
                              "auto-round", R"(,"packing_format":"auto_round:auto_gptq","bits":4)"),
                          .scale = -0.5f}
                         .build();
  const TensorPtr tensor = open_only(kGptq, *model);
  CHECK(tensor->shape() == Shape{64, 32});
  CHECK(values_of(*tensor, {63, 1, 30, 2}) == std::vector<float>{-0.5f, -0.5f});
}

TEST_CASE("gptq: without a config, symmetric zero points tell the version", "[schemes]") {
  for (const std::uint32_t word : {0x77777777u, 0x88888888u}) {
    const auto model = Gptq{.config = "", .zero_word = word}.build();
    const TensorPtr tensor = open_only(kGptq, *model);
    CHECK(values_of(*tensor, {0, 1, 0, 1}) == std::vector<float>{0.5f});
  }
  const Said said = said_by(kGptq, *Gptq{.config = "", .zero_word = 0x12345678}.build());
  CHECK(said.found == 0);
  CHECK(said.note ==
        "tensor 'm.qweight' is shown as stored: no quantization_config says whether it is GPTQ "
        "version 1 or 2");
}

TEST_CASE("gptq: act-order takes each column's group from the index", "[schemes]") {
  Gptq g;
  for (int c = 0; c < 32; ++c) g.index.push_back(c % 3 == 0);
  const auto build = [&] {
    std::vector<float> scales(128, 0.5f);
    std::fill(scales.begin() + 64, scales.end(), 2.0f);
    return Builder()
        .add("m.qweight", DType::I32, {4, 64}, std::vector<std::uint32_t>(256, 0x99999999))
        .add("m.qzeros", DType::I32, {2, 8}, std::vector<std::uint32_t>(16, 0x77777777))
        .add("m.scales", DType::F32, {2, 64}, scales)
        .add("m.g_idx", DType::I32, {32}, g.index)
        .config(method_json("gptq", R"(,"bits":4,"group_size":16,"desc_act":true)"))
        .build();
  };
  const auto model = build();
  const TensorPtr tensor = open_only(kGptq, *model);
  CHECK(values_of(*tensor, {5, 1, 0, 4}) == std::vector<float>{2, 0.5f, 0.5f, 2});
  check_boxes(*tensor, values_of(*tensor, tensor->whole()));
  for (const std::int32_t bad : {2, -1, 1 << 30}) {
    g.index[9] = bad;
    const auto spoilt = build();
    CHECK_THROWS_WITH(open_only(kGptq, *spoilt),
                      fmt::format("m.safetensors: tensor 'm.weight': group index {} of column 9 is "
                                  "not below the 2 groups there are",
                                  bad));
  }
}

TEST_CASE("gptq: a version 1 zero point that borrowed from its neighbour is given it back",
          "[schemes]") {
  // Zeros 0, 5, 5, … minus one in each field of the word: -1 borrows, so 15 and 3.
  const std::uint32_t v2 = 0x55555550, v1 = v2 - 0x11111111;
  const auto model = Gptq{.zero_word = v1}.build();
  const TensorPtr tensor = open_only(kGptq, *model);
  CHECK(values_of(*tensor, {0, 3, 0, 1}) == std::vector<float>{4.5f, 2, 2});
}

TEST_CASE("gptq: a scale that is NaN or infinite stops the reading where it lies", "[schemes]") {
  for (const auto& [value, text] : {std::pair{std::numeric_limits<float>::quiet_NaN(), "nan"},
                                    {std::numeric_limits<float>::infinity(), "inf"},
                                    {-std::numeric_limits<float>::infinity(), "-inf"}}) {
    const auto model = Gptq{.scale = value}.build();
    const TensorPtr tensor = open_only(kGptq, *model);
    CHECK_THROWS_WITH(values_of(*tensor, {7, 2, 20, 3}),
                      fmt::format("m.safetensors: tensor 'm.weight': scale [1, 7] is {}", text));
  }
}

// ---- AWQ

Builder awq_of(const fs::path& dir) {
  const Array codes = load_npy(dir / "qweight.npy"), zeros = load_npy(dir / "qzeros.npy"),
              scales = load_npy(dir / "scales_f16.npy");
  return Builder()
      .add("m.qweight", DType::I32, codes.shape, codes.bytes)
      .add("m.qzeros", DType::I32, zeros.shape, zeros.bytes)
      .add("m.scales", DType::F16, scales.shape, scales.bytes);
}

TEST_CASE("awq: decoded values are the reference's", "[schemes]") {
  const std::string config =
      method_json("awq", R"(,"bits":4,"group_size":128,"zero_point":true,"version":"gemm")");
  for (const fs::path& dir : cases("awq_gemm_"))
    for (const std::string& with : {config, std::string()}) {
      INFO(dir.string());
      const auto model = awq_of(dir).config(with).build();
      const TensorPtr tensor = open_only(kAwq, *model);
      const Array expected = load_npy(dir / "dequantized.npy");
      const auto theirs = expected.as<float>();
      CHECK(tensor->shape() == expected.shape);
      const auto ours = values_of(*tensor, tensor->whole());
      REQUIRE(ours.size() == theirs.size());
      CHECK(ours == theirs);
      check_boxes(*tensor, ours);
      // And nothing is GPTQ's.
      CHECK(said_by(kGptq, *model).found == 0);
      CHECK(said_by(kGptq, *model).note.empty());
    }
}

TEST_CASE("awq: parts that contradict each other or the config are reported", "[schemes]") {
  const auto fault = [](const Shape& codes, const Shape& zeros, const Shape& scales,
                        std::string_view more = "", DType scale_type = DType::F16) {
    Builder b;
    b.add("m.qweight", DType::I32, codes, Buffer(*element_count(codes) * 4));
    if (!zeros.empty()) b.add("m.qzeros", DType::I32, zeros, Buffer(*element_count(zeros) * 4));
    if (!scales.empty())
      b.add("m.scales", scale_type, scales, Buffer(*byte_size(scale_type, *element_count(scales))));
    const Said said = said_by(kAwq, *b.config(method_json("awq", more)).build());
    CHECK(said.found + (said.fault.empty() ? 0 : 1) == 1);
    return said.fault;
  };
  CHECK(fault({64, 4}, {2, 4}, {2, 32}).empty());
  CHECK(fault({64, 4}, {}, {2, 32}) == "'m.qzeros' is missing");
  CHECK(fault({64, 4}, {2, 4}, {}) == "'m.scales' is missing");
  CHECK(fault({64, 4}, {2, 4}, {2, 31}) ==
        "codes [64, 4] have not an eighth of the columns of scales [2, 31]");
  CHECK(fault({8, 32}, {2, 4}, {2, 32}) ==
        "codes [8, 32] have not an eighth of the columns of scales [2, 32]");
  CHECK(fault({64, 4}, {2, 5}, {2, 32}) ==
        "zero points [2, 5] do not match codes [64, 4] and scales [2, 32]");
  CHECK(fault({64, 4}, {3, 4}, {3, 32}) ==
        "64 inputs do not divide into the 3 groups of scales [3, 32]");
  CHECK(fault({64, 4}, {0, 4}, {0, 32}) ==
        "64 inputs do not divide into the 0 groups of scales [0, 32]");
  CHECK(fault({64, 4}, {2, 4}, {2, 32}, R"(,"bits":8)") ==
        "codes [64, 4] and scales [2, 32] are of 4 bits, but m/config.json says 8");
  CHECK(fault({64, 4}, {2, 4}, {2, 32}, R"(,"q_group_size":128)") ==
        "scales [2, 32] are of groups of 32, but m/config.json says 128");
  CHECK(fault({64, 4}, {2, 4}, {2, 32}, R"(,"modules_to_not_convert":["x","m"])") ==
        "m/config.json lists 'm' in modules_to_not_convert, but it is stored quantized");
  CHECK(fault({64, 4}, {2, 4}, {2, 32}, "", DType::U16) ==
        "the scales are u16, not f32, bf16 or f16");
}

TEST_CASE("awq: other versions are left as they are, and a NaN scale is named", "[schemes]") {
  const auto build = [](std::string_view more) {
    return Builder()
        .add("m.qweight", DType::I32, {64, 4}, Buffer(1024))
        .add("m.qzeros", DType::I32, {2, 4}, Buffer(32))
        .add("m.scales", DType::F16, {2, 32}, Buffer(128, std::byte{0x7F}))
        .config(method_json("awq", more))
        .build();
  };
  const Said said = said_by(kAwq, *build(R"(,"version":"GEMV")"));
  CHECK(said.found == 0);
  CHECK(said.note ==
        "tensor 'm.qweight' is shown as stored: m/config.json says version 'gemv', which is not "
        "decoded");
  const auto model = build(R"(,"version":"GEMM")");
  const TensorPtr tensor = open_only(kAwq, *model);
  CHECK_THROWS_WITH(values_of(*tensor, tensor->whole()),
                    "m.safetensors: tensor 'm.weight': scale [0, 0] is nan");
}

// ---- floats of 8 and 4 bits

// Sign, four bits of exponent, three of mantissa; worked out here, not taken from a table.
float e4m3(std::byte b) {
  const int bits = std::to_integer<int>(b), exponent = bits >> 3 & 15, mantissa = bits & 7;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return bits & 0x80 ? -magnitude : magnitude;
}
float e2m1(unsigned nibble) {
  const float values[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return nibble & 8 ? -values[nibble & 7] : values[nibble & 7];
}
std::string ct_json(std::string_view weights, std::string_view targets = R"("Linear")",
                    std::string_view more = "") {
  return method_json(
      "compressed-tensors",
      fmt::format(R"(,"config_groups":{{"group_0":{{"targets":[{}],"weights":{{{}}}}}}}{})",
                  targets, weights, more));
}
constexpr const char* kFp8Group = R"("num_bits":8,"type":"float")";
constexpr const char* kNvGroup =
    R"("num_bits":4,"type":"float","strategy":"tensor_group","group_size":16)";

TEST_CASE("compressed-tensors: fp8 of rows and of whole tensors has the reference's values",
          "[schemes]") {
  for (const char* prefix : {"ct_fp8_channel_", "ct_fp8_tensor_"})
    for (const fs::path& dir : cases(prefix))
      for (const std::string& config : {ct_json(kFp8Group), std::string()}) {
        INFO(dir.string());
        const Array codes = load_npy(dir / "weight_e4m3_bytes.npy"),
                    scale = load_npy(dir / "weight_scale.npy");
        const auto model = Builder()
                               .add("m.weight", DType::F8_E4M3, codes.shape, codes.bytes)
                               .add("m.weight_scale", DType::F32, scale.shape, scale.bytes)
                               .config(config)
                               .build();
        const TensorPtr tensor = open_only(kCompressedTensors, *model);
        const auto expected = load_npy(dir / "dequantized.npy").as<float>();
        CHECK(tensor->shape() == codes.shape);
        CHECK(values_of(*tensor, tensor->whole()) == expected);
        check_boxes(*tensor, expected);
      }
}

TEST_CASE("compressed-tensors: bf16 scales give the reference's values, rounded to bf16",
          "[schemes]") {
  const fs::path root = std::string(WTOOL_SOURCE_DIR) + "/../shared/golden/compressed_tensors";
  if (!fs::exists(root)) return;
  for (const char* prefix : {"ct_int8_channel_bf16_", "ct_int4_g128_sym_bf16_"})
    for (const fs::path& dir : cases(prefix)) {
      INFO(dir.string());
      Builder b;
      for (const auto& [file, part, dtype] :
           {std::tuple{"weight", "m.weight", DType::I8},
            {"weight_packed", "m.weight_packed", DType::I32},
            {"weight_scale_bf16bits", "m.weight_scale", DType::BF16},
            {"weight_shape", "m.weight_shape", DType::I64}})
        if (fs::exists(dir / (std::string(file) + ".npy"))) {
          const Array a = load_npy(dir / (std::string(file) + ".npy"));
          b.add(part, dtype, a.shape, a.bytes);
        }
      const auto model = b.build();
      const TensorPtr tensor = open_only(kCompressedTensors, *model);
      const auto values = values_of(*tensor, tensor->whole());
      Buffer rounded(values.size() * 2);
      codec(DType::BF16).encode(values.data(), rounded.data(), values.size());
      CHECK(rounded == load_npy(dir / "dequantized_bf16bits.npy").bytes);
    }
}

TEST_CASE("fp8 in blocks: compressed-tensors' and DeepSeek's are the same values", "[schemes]") {
  for (const fs::path& dir : cases("ct_fp8_block128_")) {
    INFO(dir.string());
    const Array codes = load_npy(dir / "weight_e4m3_bytes.npy"),
                scale = load_npy(dir / "weight_scale.npy");
    const auto scales = scale.as<float>();
    std::vector<float> expected;
    for (std::uint64_t r = 0; r < codes.shape[0]; ++r)
      for (std::uint64_t c = 0; c < codes.shape[1]; ++c)
        expected.push_back(e4m3(codes.bytes[r * codes.shape[1] + c]) *
                           scales[r / 128 * scale.shape[1] + c / 128]);
    struct Way {
      const Scheme& scheme;
      const char* part;
      std::string config;
    };
    const Way ways[] = {
        {kCompressedTensors, "m.weight_scale",
         ct_json(R"("num_bits":8,"type":"float","strategy":"block","block_structure":[128,128])")},
        {kCompressedTensors, "m.weight_scale", ""},
        {kFp8, "m.weight_scale_inv", method_json("fp8", R"(,"weight_block_size":[128,128])")},
        {kFp8, "m.weight_scale_inv", ""}};
    for (const Way& way : ways) {
      const auto model = Builder()
                             .add("m.weight", DType::F8_E4M3, codes.shape, codes.bytes)
                             .add(way.part, DType::F32, scale.shape, scale.bytes)
                             .config(way.config)
                             .build();
      const TensorPtr tensor = open_only(way.scheme, *model);
      CHECK(values_of(*tensor, tensor->whole()) == expected);
      check_boxes(*tensor, expected);
      const Scheme& other = &way.scheme == &kFp8 ? kCompressedTensors : kFp8;
      CHECK(said_by(other, *model).found == 0);
      CHECK(said_by(other, *model).fault.empty());
    }
  }
}

TEST_CASE("nvfp4: the reference's codes decode to within half a step of what they were",
          "[schemes]") {
  for (const fs::path& dir : cases("ct_nvfp4_")) {
    INFO(dir.string());
    const Array codes = load_npy(dir / "weight_packed.npy"),
                scale = load_npy(dir / "weight_scale_e4m3_bytes.npy"),
                global = load_npy(dir / "weight_global_scale.npy"),
                weight = load_npy(dir / "weight_f32.npy");
    const auto source = weight.as<float>();
    const std::uint64_t cols = weight.shape[1];
    std::vector<float> expected;
    bool near = true;
    for (std::uint64_t i = 0; i < source.size(); ++i) {
      const auto byte = std::to_integer<unsigned>(codes.bytes[i / 2]);
      const float s = e4m3(scale.bytes[i / 16]) / global.as<float>()[0];
      expected.push_back(e2m1(i % 2 ? byte >> 4 : byte & 15) * s);
      near &= std::abs(expected.back() - source[i]) <= 1.1f * s;
    }
    CHECK(near);
    const auto model = Builder()
                           .add("m.weight_packed", DType::U8, codes.shape, codes.bytes)
                           .add("m.weight_scale", DType::F8_E4M3, scale.shape, scale.bytes)
                           .add("m.weight_global_scale", DType::F32, {1}, global.bytes)
                           .config(ct_json(kNvGroup))
                           .build();
    const TensorPtr tensor = open_only(kCompressedTensors, *model);
    CHECK(tensor->shape() == weight.shape);
    CHECK(values_of(*tensor, tensor->whole()) == expected);
    check_boxes(*tensor, expected);

    // ModelOpt multiplies with what compressed-tensors divides by; a power of two is exact.
    const auto opt = Builder()
                         .add("m.weight", DType::U8, codes.shape, codes.bytes)
                         .add("m.weight_scale", DType::F8_E4M3, scale.shape, scale.bytes)
                         .add("m.weight_scale_2", DType::F32, {}, std::vector<float>{0.25f})
                         .config(method_json("modelopt"))
                         .build();
    const TensorPtr theirs = open_only(kModelOpt, *opt);
    const auto values = values_of(*theirs, theirs->whole());
    bool same = true;
    for (std::uint64_t i = 0; i < values.size(); ++i) {
      const auto byte = std::to_integer<unsigned>(codes.bytes[i / 2]);
      same &= values[i] == e2m1(i % 2 ? byte >> 4 : byte & 15) * e4m3(scale.bytes[i / 16]) * 0.25f;
    }
    CHECK(same);
    CHECK(theirs->shape() == Shape{weight.shape[0], cols});
    CHECK(said_by(kCompressedTensors, *opt).found == 0);
  }
}

// Bytes 0, 1, 2, … as codes.
Buffer counting(std::size_t n) {
  Buffer out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(i * 37);
  return out;
}

TEST_CASE("mxfp4 and mxfp8: scales are powers of two", "[schemes]") {
  const Buffer codes = counting(3 * 32), exponents{std::byte{127}, std::byte{0},   std::byte{130},
                                                   std::byte{120}, std::byte{254}, std::byte{1}};
  std::vector<float> four;
  for (std::size_t i = 0; i < 192; ++i) {
    const auto byte = std::to_integer<unsigned>(codes[i / 2]);
    four.push_back(std::ldexp(e2m1(i % 2 ? byte >> 4 : byte & 15),
                              std::to_integer<int>(exponents[i / 32]) - 127));
  }
  const std::string config =
      ct_json(R"("num_bits":4,"type":"float","strategy":"group","group_size":32)");
  for (const DType type : {DType::U8, DType::F8_E8M0}) {
    const auto model = Builder()
                           .add("m.weight_packed", DType::U8, {3, 32}, codes)
                           .add("m.weight_scale", type, {3, 2}, exponents)
                           .config(config)
                           .build();
    const TensorPtr tensor = open_only(kCompressedTensors, *model);
    CHECK(values_of(*tensor, tensor->whole()) == four);
    check_boxes(*tensor, four);
  }
  // gpt-oss: one expert of [3, 64], and three of [1, 64].
  for (const auto& [experts, rows] : {std::pair{1u, 3u}, {3u, 1u}})
    for (const auto& [blocks, scales] :
         {std::pair{"e.gate_up_proj_blocks", "e.gate_up_proj_scales"},
          {"e.gate_up_proj.blocks", "e.gate_up_proj.scales"}}) {
      const auto model = Builder()
                             .add(blocks, DType::U8, {experts, rows, 2, 16}, codes)
                             .add(scales, DType::U8, {experts, rows, 2}, exponents)
                             .config(method_json("mxfp4"))
                             .build();
      const TensorPtr tensor = open_only(kGptOss, *model);
      CHECK(tensor->shape() == Shape{experts, rows, 64});
      CHECK(values_of(*tensor, tensor->whole()) == four);
      check_boxes(*tensor, four);
    }
  Buffer plain = counting(192);
  for (std::byte& b : plain)
    if ((b & std::byte{0x7F}) == std::byte{0x7F}) b = std::byte{0};  // NaN
  std::vector<float> eight;
  for (std::size_t i = 0; i < 192; ++i)
    eight.push_back(e4m3(plain[i]) *
                    std::ldexp(1.0f, std::to_integer<int>(exponents[i / 32]) - 127));
  const auto model = Builder()
                         .add("m.weight", DType::F8_E4M3, {3, 64}, plain)
                         .add("m.weight_scale", DType::U8, {3, 2}, exponents)
                         .build();
  const TensorPtr tensor = open_only(kCompressedTensors, *model);
  CHECK(values_of(*tensor, tensor->whole()) == eight);
}

TEST_CASE("floats: a scale of NaN is named, 255 of the powers of two is one", "[schemes]") {
  const auto model = Builder()
                         .add("m.weight_packed", DType::U8, {1, 32}, counting(32))
                         .add("m.weight_scale", DType::U8, {1, 2}, Buffer(2, std::byte{255}))
                         .build();
  const TensorPtr tensor = open_only(kCompressedTensors, *model);
  CHECK_THROWS_WITH(values_of(*tensor, {0, 1, 40, 8}),
                    "m.safetensors: tensor 'm.weight': scale [0, 1] is nan");
  const auto nv = Builder()
                      .add("m.weight_packed", DType::U8, {1, 8}, counting(8))
                      .add("m.weight_scale", DType::F8_E4M3, {1, 1}, Buffer(1, std::byte{0x38}))
                      .add("m.weight_global_scale", DType::F32, {1}, std::vector<float>{0})
                      .build();
  const TensorPtr zero = open_only(kCompressedTensors, *nv);
  CHECK_THROWS_WITH(values_of(*zero, zero->whole()),
                    "m.safetensors: tensor 'm.weight': the global scale is 0, and scales are "
                    "divided by it");
}

struct Part {
  std::string name;
  DType dtype;
  Shape shape;
};
std::string fault_of(const Scheme& scheme, const std::vector<Part>& parts,
                     std::string_view config) {
  Builder b;
  for (const Part& p : parts)
    b.add(p.name, p.dtype, p.shape, Buffer(*byte_size(p.dtype, *element_count(p.shape))));
  const Said said = said_by(scheme, *b.config(config).build());
  CHECK(said.found + (said.fault.empty() ? 0 : 1) == 1);
  return said.fault;
}

TEST_CASE("compressed-tensors: parts of floats that contradict each other are reported",
          "[schemes]") {
  const auto fault = [](const std::vector<Part>& parts, const std::string& config) {
    return fault_of(kCompressedTensors, parts, config);
  };
  const Part weight{"m.weight", DType::F8_E4M3, {6, 64}},
      scale{"m.weight_scale", DType::F32, {6, 1}}, packed{"m.weight_packed", DType::U8, {6, 32}},
      nv{"m.weight_scale", DType::F8_E4M3, {6, 4}},
      global{"m.weight_global_scale", DType::F32, {1}};
  const std::string fp8 = ct_json(kFp8Group), fp4 = ct_json(kNvGroup);
  CHECK(fault({weight, scale}, fp8).empty());
  CHECK(fault({packed, nv, global}, fp4).empty());
  CHECK(fault({weight, {"m.weight_scale", DType::F32, {6, 5}}}, fp8) ==
        "scales [6, 5] do not divide codes of shape [6, 64]");
  CHECK(fault({weight, {"m.weight_scale", DType::I32, {6, 1}}}, fp8) ==
        "the scale is i32, not f32, bf16 or f16");
  CHECK(fault({weight, {"m.weight_scale", DType::U8, {6, 3}}}, fp8) ==
        "scales [6, 3] are not one for each 32 of [6, 64]");
  CHECK(fault({packed, global}, fp4) == "'m.weight_scale' is missing");
  CHECK(fault({packed, nv}, fp4) == "'m.weight_global_scale' is missing");
  CHECK(fault({packed, {"m.weight_scale", DType::F8_E4M3, {6, 2}}, global}, fp4) ==
        "scales [6, 2] are not one for each 16 of [6, 64]");
  CHECK(fault({packed, nv, {"m.weight_global_scale", DType::F32, {2}}}, fp4) ==
        "the global scale is f32 [2], not one f32");
  CHECK(fault({weight, scale}, fp4) ==
        "codes f8_e4m3 [6, 64], scales [6, 1] do not fit any group of m/config.json");
  CHECK(fault({weight, scale}, ct_json(R"("num_bits":8,"type":"float","group_size":32)")) ==
        "codes f8_e4m3 [6, 64], scales [6, 1] do not fit any group of m/config.json");
  CHECK(fault({{"m.weight", DType::F8_E4M3, {200, 300}}, {"m.weight_scale", DType::F32, {2, 3}}},
              fp8) ==
        "codes f8_e4m3 [200, 300], scales [2, 3] do not fit any group of m/config.json");
  CHECK(fault({weight, scale}, ct_json(kFp8Group, R"("Linear")", R"(,"ignore":["m"])")) ==
        "m/config.json lists 'm' in ignore, but it is stored quantized");
  CHECK(fault({{"m.weight", DType::I8, {6, 64}}, scale}, fp8) ==
        "codes [6, 64] are integers, but the groups of m/config.json are of floats");
}

TEST_CASE("compressed-tensors: a config whose groups name only other modules is reported",
          "[schemes]") {
  const auto said = [](std::string_view targets) {
    return said_by(kCompressedTensors, *Builder()
                                            .add("a.m.weight", DType::F8_E4M3, {6, 64}, Buffer(384))
                                            .add("a.m.weight_scale", DType::F32, {6, 1}, Buffer(24))
                                            .config(ct_json(kFp8Group, targets))
                                            .build())
        .fault;
  };
  CHECK(said(R"("a.m","b.n")").empty());
  CHECK(said(R"("b.n","re:.*")").empty());
  CHECK(said(R"("b.n")") ==
        "its groups target 1 modules ('b.n', …), and none of the 1 weights stored quantized "
        "('a.m.weight', …) is one of them");
}

TEST_CASE("fp8, mxfp4, modelopt: parts that contradict each other are reported", "[schemes]") {
  const std::string blocks = method_json("fp8", R"(,"weight_block_size":[128,128])");
  const Part weight{"m.weight", DType::F8_E4M3, {200, 300}};
  CHECK(fault_of(kFp8, {weight, {"m.weight_scale_inv", DType::F32, {2, 3}}}, blocks).empty());
  CHECK(fault_of(kFp8, {weight}, blocks) == "'m.weight_scale_inv' is missing");
  CHECK(fault_of(kFp8, {weight, {"m.weight_scale_inv", DType::F32, {3, 2}}}, blocks) ==
        "scales [3, 2] are not one for each block of 128 × 128 of [200, 300]");
  CHECK(fault_of(kFp8, {weight, {"m.weight_scale_inv", DType::I64, {2, 3}}}, blocks) ==
        "the scales are i64, not f32, bf16 or f16");
  CHECK(fault_of(kFp8, {weight, {"m.weight_scale_inv", DType::F32, {2, 3}}},
                 method_json("fp8", R"(,"weight_block_size":[0,128])")) ==
        "scales [2, 3] are not one for each block of 0 × 128 of [200, 300]");
  CHECK(fault_of(kFp8, {weight, {"m.weight_scale_inv", DType::F32, {2, 3}}},
                 method_json("fp8", R"(,"ignored_layers":["m"])")) ==
        "m/config.json lists 'm' in ignored_layers, but it is stored quantized");
  CHECK(fault_of(kFp8, {weight, {"m.weight_scale", DType::F32, {}}}, method_json("fp8")).empty());

  const Part four{"m_blocks", DType::U8, {2, 3, 4, 16}};
  CHECK(
      fault_of(kGptOss, {four, {"m_scales", DType::U8, {2, 3, 4}}}, method_json("mxfp4")).empty());
  CHECK(fault_of(kGptOss, {four}, method_json("mxfp4")) == "'m_scales' is missing");
  CHECK(fault_of(kGptOss, {four, {"m_scales", DType::U8, {2, 3, 5}}}, method_json("mxfp4")) ==
        "scales [2, 3, 5] are not one for each block of [2, 3, 4, 16]");
  CHECK(fault_of(kGptOss,
                 {{"m_blocks", DType::U8, {2, 3, 4, 8}}, {"m_scales", DType::U8, {2, 3, 4}}},
                 method_json("mxfp4")) == "blocks [2, 3, 4, 8] are not of 16 bytes");
  CHECK(fault_of(kGptOss, {four, {"m_scales", DType::F32, {2, 3, 4}}}, method_json("mxfp4")) ==
        "the scales are f32, not u8");

  const Part bytes{"m.weight", DType::U8, {6, 32}}, scale{"m.weight_scale", DType::F8_E4M3, {6, 4}},
      second{"m.weight_scale_2", DType::F32, {}};
  const std::string opt = method_json("modelopt");
  CHECK(fault_of(kModelOpt, {bytes, scale, second}, opt).empty());
  CHECK(fault_of(kModelOpt, {bytes, second}, opt) == "'m.weight_scale' is missing");
  CHECK(fault_of(kModelOpt, {bytes, scale}, opt) == "'m.weight_scale_2' is missing");
  CHECK(fault_of(kModelOpt, {bytes, {"m.weight_scale", DType::F8_E4M3, {6, 2}}, second}, opt) ==
        "scales [6, 2] are not one for each 16 of 6 values in [6, 32] bytes");
}

// ---- bitsandbytes

struct FourBits {
  std::string type = "nf4", config = method_json("bitsandbytes", R"(,"load_in_4bit":true)");
  std::string state = {};
  Shape absmax{5}, map{16};
  bool nested = false, with_absmax = true, with_state = true;
  std::size_t bytes = 150;

  std::string state_text(std::string_view more = "") const {
    return state.empty() ? fmt::format(R"({{"quant_type":"{}","blocksize":64,"dtype":"float32",)"
                                       R"("shape":[6,50]{}}})",
                                       type, more)
                         : state;
  }
  std::shared_ptr<Model> build() const {
    Builder b;
    b.add("m.weight", DType::U8, {bytes, 1}, Buffer(bytes));
    if (with_absmax)
      b.add("m.weight.absmax", DType::F32, absmax, Buffer(*element_count(absmax) * 4));
    b.add("m.weight.quant_map", DType::F32, map, Buffer(*element_count(map) * 4));
    const std::string text = state_text();
    if (with_state)
      b.add("m.weight.quant_state.bitsandbytes__" + type, DType::U8, {text.size()},
            to_buffer(text));
    return b.config(config).build();
  }
  std::string fault() const {
    const Said said = said_by(kBitsAndBytes, *build());
    CHECK(said.found + (said.fault.empty() ? 0 : 1) == 1);
    if (!said.fault.empty()) CHECK(said.where == "m.safetensors: tensor 'm.weight'");
    return said.fault;
  }
};

TEST_CASE("bitsandbytes: NF4 and FP4 of the reference, nested and not", "[schemes]") {
  for (const char* type : {"nf4", "fp4"})
    for (const fs::path& dir : cases(fmt::format("bnb_{}_", type)))
      for (const bool nested : {false, true}) {
        INFO(dir.string() << " " << nested);
        const auto load = [&](const char* file) {
          return load_npy(dir / (std::string(file) + ".npy"));
        };
        const Array codes = load("weight_packed_u8"), weight = load("weight_f32"),
                    absmax = load(nested ? "nested_absmax_code_u8" : "absmax_f32"),
                    map = load("quant_map"), scales = load("nested_absmax_f32"),
                    scale_map = load("nested_quant_map");
        const float offset = load("nested_offset").as<float>()[0];
        const auto source = weight.as<float>(), table = map.as<float>();
        const auto true_absmax = load("absmax_f32").as<float>();
        std::vector<float> expected;
        bool near = true;
        for (std::size_t i = 0; i < source.size(); ++i) {
          const auto byte = std::to_integer<unsigned>(codes.bytes[i / 2]);
          float most = true_absmax[i / 64];
          if (nested) {
            const auto code = std::to_integer<unsigned>(absmax.bytes[i / 64]);
            const float product = scale_map.as<float>()[code] * scales.as<float>()[i / 64 / 256];
            most = product + offset;
            near &=
                std::abs(most - true_absmax[i / 64]) <= 0.01f * scales.as<float>()[i / 64 / 256];
          }
          expected.push_back(table[i % 2 == 0 ? byte >> 4 : byte & 15] * most);
          near &= nested || std::abs(expected.back() - source[i]) <= 0.18f * true_absmax[i / 64];
        }
        CHECK(near);
        const std::string state = fmt::format(
            R"({{"quant_type":"{}","blocksize":64,"dtype":"float32","shape":[{},{}]{}}})", type,
            weight.shape[0], weight.shape[1],
            nested ? fmt::format(R"(,"nested_blocksize":256,"nested_dtype":"float32",)"
                                 R"("nested_offset":{:.17g})",
                                 double{offset})
                   : "");
        Builder b;
        b.add("m.weight", DType::U8, codes.shape, codes.bytes)
            .add("m.weight.absmax", nested ? DType::U8 : DType::F32, absmax.shape, absmax.bytes)
            .add("m.weight.quant_map", DType::F32, map.shape, map.bytes)
            .add(std::string("m.weight.quant_state.bitsandbytes__") + type, DType::U8,
                 {state.size()}, to_buffer(state));
        if (nested)
          b.add("m.weight.nested_absmax", DType::F32, scales.shape, scales.bytes)
              .add("m.weight.nested_quant_map", DType::F32, scale_map.shape, scale_map.bytes);
        const auto model = b.build();
        const TensorPtr tensor = open_only(kBitsAndBytes, *model);
        CHECK(tensor->shape() == weight.shape);
        CHECK(values_of(*tensor, tensor->whole()) == expected);
        check_boxes(*tensor, expected);
      }
}

TEST_CASE("bitsandbytes: int8 is a part of each row's largest", "[schemes]") {
  for (const fs::path& dir : cases("bnb_int8_")) {
    INFO(dir.string());
    const Array codes = load_npy(dir / "weight_i8.npy"), most = load_npy(dir / "SCB.npy");
    const auto source = load_npy(dir / "weight_f32.npy").as<float>();
    const auto model = Builder()
                           .add("m.weight", DType::I8, codes.shape, codes.bytes)
                           .add("m.SCB", DType::F32, most.shape, most.bytes)
                           .add("m.weight_format", DType::U8, {}, Buffer(1))
                           .config(method_json("bitsandbytes", R"(,"load_in_8bit":true)"))
                           .build();
    const TensorPtr tensor = open_only(kBitsAndBytes, *model);
    const auto values = values_of(*tensor, tensor->whole());
    bool same = true, near = true;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float row = most.as<float>()[i / codes.shape[1]];
      same &= values[i] == static_cast<float>(codes.as<std::int8_t>()[i]) * row / 127;
      near &= std::abs(values[i] - source[i]) <= row / 127 * 0.5001f;
    }
    CHECK(same);
    CHECK(near);
    check_boxes(*tensor, values);
    CHECK(said_by(kCompressedTensors, *model).found == 0);
  }
  const Part weight{"m.weight", DType::I8, {6, 50}};
  const std::string config = method_json("bitsandbytes", R"(,"load_in_8bit":true)");
  CHECK(fault_of(kBitsAndBytes, {weight}, config) == "'m.SCB' is missing");
  CHECK(fault_of(kBitsAndBytes, {weight, {"m.SCB", DType::F32, {5}}}, config) ==
        "SCB is f32 [5], not one f32 for each row of [6, 50]");
  CHECK(fault_of(kBitsAndBytes, {weight, {"m.SCB", DType::F32, {6}}},
                 method_json("bitsandbytes", R"(,"load_in_4bit":true)")) ==
        "m/config.json says load_in_4bit, but the parts of 'm.weight' are those of load_in_8bit");
}

TEST_CASE("bitsandbytes: a quant_state and parts that do not fit it are reported", "[schemes]") {
  const auto with = [](std::string state) { return FourBits{.state = std::move(state)}.fault(); };
  CHECK(FourBits{}.fault().empty());
  CHECK(FourBits{.with_absmax = false}.fault() == "'m.weight.absmax' is missing");
  CHECK(FourBits{.with_state = false}.fault() ==
        "'m.weight.quant_state.bitsandbytes__nf4' is missing");
  CHECK(FourBits{.absmax = {4}}.fault() == "'m.weight.absmax' is f32 [4], not f32 of 5 elements");
  CHECK(FourBits{.map = {15}}.fault() ==
        "'m.weight.quant_map' is f32 [15], not f32 of 16 elements");
  CHECK(FourBits{.bytes = 149}.fault() ==
        "300 values of 4 bits are 150 bytes, but 'm.weight' has 149");
  CHECK(with("{") == "the quant_state is not JSON");
  CHECK(with(std::string(60000, '[')) == "the quant_state is not JSON");
  CHECK(with("[]") == "the quant_state has a blocksize of nothing, not 1 to 1048576");
  CHECK(with(R"({"quant_type":"nf4","blocksize":0,"shape":[6,50]})") ==
        "the quant_state has a blocksize of 0, not 1 to 1048576");
  CHECK(with(R"({"quant_type":"nf4","blocksize":64,"shape":[-6,50]})") ==
        "the quant_state's shape has a dimension that is no count");
  CHECK(with(R"({"quant_type":"nf4","blocksize":64,"shape":[4294967296,4294967296]})") ==
        "the quant_state's shape [4294967296, 4294967296] is too large");
  CHECK(with(R"({"quant_type":"nf4","blocksize":64,"shape":[60,50]})") ==
        "'m.weight.absmax' is f32 [5], not f32 of 47 elements");
  CHECK(with(R"({"quant_type":"fp4","blocksize":64,"shape":[6,50]})") ==
        "'m.weight.quant_state.bitsandbytes__nf4' says quant_type 'fp4'");
  CHECK(with(R"({"quant_type":"nf4","blocksize":64,"shape":[6,50],"nested_blocksize":256})") ==
        "the quant_state's nested_blocksize or nested_offset is no number it can be");
  CHECK(FourBits{.config = method_json("bitsandbytes", R"(,"llm_int8_skip_modules":["m"])")}
            .fault() ==
        "m/config.json lists 'm' in llm_int8_skip_modules, but it is stored quantized");
  CHECK(FourBits{.config = method_json("bitsandbytes", R"(,"load_in_8bit":true)")}.fault() ==
        "m/config.json says load_in_8bit, but the parts of 'm.weight' are those of load_in_4bit");
}

// ---- torchao

TEST_CASE("torchao: tensors are named, not decoded", "[schemes]") {
  const auto model = Builder().add("m._weight_qdata", DType::I8, {4, 4}, Buffer(16)).build();
  CHECK(said_by(kTorchao, *model).note.empty());
  model->catalog.meta.set("tensor_names", std::string(R"(["m.weight"])"));
  model->catalog.meta.set("m.weight", std::string(R"({"_type":"Int8Tensor","_data":{}})"));
  model->catalog.meta.set("deep", std::string(10000, '['));
  const Said said = said_by(kTorchao, *model);
  CHECK(said.found == 0);
  CHECK(said.note ==
        "tensor 'm._weight_qdata' is shown as stored: a part of torchao's 'Int8Tensor', which is "
        "not decoded");
}

}  // namespace
}  // namespace wtool
