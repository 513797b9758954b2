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
    out.where = faults.findings()[0].where;
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

}  // namespace
}  // namespace wtool
