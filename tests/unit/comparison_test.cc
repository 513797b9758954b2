// Comparing tensors: transforms, cells, tolerances.
#include "lib/numeric/comparison.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <random>

#include <fmt/format.h>

#include "formats/registry.h"
#include "lib/base/error.h"
#include "lib/model/transform.h"
#include "tests/unit/refusal.h"
#include "tests/unit/scheme_models.h"
#include "tests/unit/step_run.h"

namespace wtool {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<std::int32_t> counting(std::size_t n) {
  std::vector<std::int32_t> out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::int32_t>(i);
  return out;
}
std::vector<std::int32_t> integers(const Tensor& t, const Box& box) {
  std::vector<std::int32_t> out(box.elements());
  Scratch scratch;
  t.read(box, std::as_writable_bytes(std::span(out)), scratch);
  return out;
}
// The whole is as expected, and so is every box of it.
void check(const TensorPtr& t, const Shape& shape, const std::vector<std::int32_t>& expected) {
  REQUIRE(t->shape() == shape);
  const Box whole = t->whole();
  REQUIRE(integers(*t, whole) == expected);
  std::mt19937 random(7);
  for (int i = 0; i < 40; ++i) {
    Box box;
    box.row = random() % whole.rows;
    box.rows = 1 + random() % (whole.rows - box.row);
    box.col = random() % whole.cols;
    box.cols = 1 + random() % (whole.cols - box.col);
    std::vector<std::int32_t> part;
    for (std::uint64_t r = 0; r < box.rows; ++r)
      for (std::uint64_t c = 0; c < box.cols; ++c)
        part.push_back(expected[(box.row + r) * whole.cols + box.col + c]);
    CHECK(integers(*t, box) == part);
  }
}

// ---- transforms

TEST_CASE("transform: the halves of each head become pairs", "[comparison]") {
  // Two heads of 6 rows: rows 0 3 1 4 2 5, then the same of the second.
  const std::vector<std::int32_t> order{0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11};
  check(permuted(tensor(DType::I32, {12}, counting(12)), 2), {12}, order);
  std::vector<std::int32_t> matrix;
  for (const std::int32_t row : order)
    for (std::int32_t c = 0; c < 5; ++c) matrix.push_back(row * 5 + c);
  check(permuted(tensor(DType::I32, {12, 5}, counting(60)), 2), {12, 5}, matrix);
}

TEST_CASE("transform: pairs become halves again", "[comparison]") {
  const std::vector<std::int32_t> order{0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11};
  check(unpermuted(tensor(DType::I32, {12}, counting(12)), 2), {12}, order);
  for (const std::uint64_t heads : {1, 2, 3, 6})
    for (const Shape& shape : {Shape{12}, {12, 5}}) {
      const auto n = static_cast<std::size_t>(shape.size() == 1 ? 12 : 60);
      const TensorPtr t = tensor(DType::I32, shape, counting(n));
      check(unpermuted(permuted(t, heads), heads), shape, counting(n));
      check(permuted(unpermuted(t, heads), heads), shape, counting(n));
    }
  CHECK(refusal([] { unpermuted(tensor(DType::I32, {6}, counting(6)), 4); }) ==
        "6 rows are not 4 heads of pairs");
}

TEST_CASE("transform: f16 and bf16 are widened exactly, and f32 stays what it is", "[comparison]") {
  // f16: 1, -2, the smallest, the largest, infinity; bf16: 1, -2, the largest, infinity.
  const std::vector<std::uint16_t> halves{0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00},
      brains{0x3f80, 0xc000, 0x7f7f, 0x7f80};
  const auto values = [](const TensorPtr& t) {
    REQUIRE(t->dtype() == DType::F32);
    std::vector<float> out(t->elements());
    Scratch scratch;
    t->read(t->whole(), std::as_writable_bytes(std::span(out)), scratch);
    return out;
  };
  CHECK(values(widened(tensor(DType::F16, {5}, halves))) ==
        std::vector<float>{1, -2, 0x1p-24f, 65504, kInf});
  CHECK(values(widened(tensor(DType::BF16, {2, 2}, brains))) ==
        std::vector<float>{1, -2, 0x1.fep127f, kInf});
  // -0 keeps its sign, for nothing is added to it.
  const auto zero = values(widened(tensor(DType::F16, {1}, std::vector<std::uint16_t>{0x8000})));
  CHECK((zero[0] == 0 && std::signbit(zero[0])));
  const TensorPtr same = tensor(DType::F32, {2}, std::vector<float>{1, kNan});
  CHECK(widened(same) == same);
}

TEST_CASE("transform: transposing, rows, stacks and other shapes move elements", "[comparison]") {
  const TensorPtr t = tensor(DType::I32, {7, 5}, counting(35));
  std::vector<std::int32_t> turned;
  for (std::int32_t c = 0; c < 5; ++c)
    for (std::int32_t r = 0; r < 7; ++r) turned.push_back(r * 5 + c);
  check(transposed(t), {5, 7}, turned);
  check(rows_of(t, 2, 4), {2, 5}, {10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
  check(rows_of(tensor(DType::I32, {7}, counting(7)), 3, 6), {3}, {3, 4, 5});
  const TensorPtr cube = tensor(DType::I32, {3, 2, 2}, counting(12));
  check(rows_of(cube, 1, 3), {2, 2, 2}, {4, 5, 6, 7, 8, 9, 10, 11});
  std::vector<std::int32_t> twice = counting(35), other = counting(35);
  twice.insert(twice.end(), other.begin(), other.end());
  check(stacked({t, t}), {2, 7, 5}, twice);
  for (const Shape& shape : {Shape{35}, {5, 7}, {1, 35}, {35, 1}, {5, 1, 7}})
    check(reshaped(t, shape), shape, counting(35));
  CHECK(rows_of(t, 3, 3)->elements() == 0);
}

TEST_CASE("transform: what a shape or a type does not allow is refused with the numbers",
          "[comparison]") {
  const TensorPtr t = tensor(DType::I32, {6, 4}, counting(24));
  CHECK(refusal([&] { permuted(t, 4); }) == "6 rows are not 4 heads of pairs");
  CHECK(refusal([&] { permuted(t, 2); }) == "6 rows are not 2 heads of pairs");
  CHECK(refusal([&] { permuted(t, 0); }) == "6 rows are not 0 heads of pairs");
  CHECK(refusal([&] { rows_of(t, 5, 7); }) == "rows 5:7 are not within [6, 4]");
  CHECK(refusal([&] { reshaped(t, {5, 5}); }) == "24 elements of [6, 4] do not make [5, 5]");
  CHECK(refusal([&] { transposed(reshaped(t, {24})); }) == "transpose takes a matrix, not [24]");
  CHECK(refusal([&] {
          stacked({t, rows_of(t, 0, 5)});
        }) == "i32 [6, 4] and i32 [5, 4] cannot be stacked");
  const TensorPtr blocks = std::make_shared<Memory>(DType::Q8_0, Shape{2, 32}, Buffer(68));
  CHECK(refusal([&] { transposed(blocks); }) ==
        "elements of q8_0 [2, 32] cannot be moved: they are stored in blocks of 32");
}

// ---- cells

void read_all_cells(const Tensor& t, std::vector<float>& low, std::vector<float>& high) {
  std::vector<float> slack(t.elements());
  Scratch scratch;
  read_cells(t, t.whole(), {low, high, slack}, scratch);
}

TEST_CASE("cells: those of narrow floats end half-way to their neighbours", "[comparison]") {
  for (const DType type : {DType::F8_E4M3, DType::F8_E5M2, DType::F8_E4M3FNUZ, DType::F8_E5M2FNUZ,
                           DType::F6_E2M3, DType::F6_E3M2, DType::F4}) {
    INFO(name_of(type));
    // All values there are, from 256 bytes of all codes.
    Buffer codes(3 * 256);
    for (std::size_t i = 0; i < codes.size(); ++i)
      codes[i] = static_cast<std::byte>(i * 37 + i / 7);
    const std::size_t n = codes.size() / info(type).block_bytes * info(type).block_elems;
    const Memory all(type, {n}, codes);
    const auto values = values_of(all, all.whole());
    std::vector<float> levels;
    for (const float v : values)
      if (std::isfinite(v)) levels.push_back(v);
    std::ranges::sort(levels);
    levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
    std::vector<float> low(n), high(n);
    read_all_cells(all, low, high);
    bool right = true;
    for (std::size_t i = 0; i < n; ++i) {
      if (!std::isfinite(values[i])) continue;
      const auto at = std::ranges::find(levels, values[i]);
      right &= low[i] == (at == levels.begin() ? -kInf : (at[-1] + at[0]) / 2);
      right &= high[i] == (at + 1 == levels.end() ? kInf : (at[0] + at[1]) / 2);
    }
    CHECK(right);
    CHECK(levels.size() >= 15);
  }
}

TEST_CASE("cells: those of f16 and bf16 end half-way to their neighbours", "[comparison]") {
  for (const DType type : {DType::F16, DType::BF16}) {
    std::vector<std::uint16_t> codes;  // every magnitude
    const std::uint16_t last = type == DType::F16 ? 0x7BFF : 0x7F7F;
    for (std::uint16_t c = 0; c <= last; ++c) codes.push_back(c);
    const TensorPtr all = tensor(type, {codes.size()}, codes);
    const auto values = values_of(*all, all->whole());
    std::vector<float> low(codes.size()), high(codes.size());
    read_all_cells(*all, low, high);
    bool right = low[0] == -high[0] && high.back() == kInf;
    for (std::size_t i = 0; i + 1 < codes.size(); ++i)
      right &= high[i] == low[i + 1] && high[i] == values[i] / 2 + values[i + 1] / 2;
    CHECK(right);
  }
}

// ---- what references quantised

Comparison compare(const TensorPtr& a, const TensorPtr& b, const Tolerance& how = {},
                   bool backwards = false) {
  ComparisonStep step("x", a, b, how);
  run(step, backwards);
  return step.result();
}
constexpr Tolerance kStep{.kind = Tolerance::Kind::Step};

Buffer file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(in)), {});
  REQUIRE(!all.empty());
  return to_buffer(all);
}

struct BlockType {
  DType type;
  const char* name;
  std::size_t first_code;  // the byte of a block whose lowest bit is one of its first code
};
constexpr BlockType kBlocks[] = {
    {DType::Q4_0, "q4_0", 2},   {DType::Q4_1, "q4_1", 4},     {DType::Q5_0, "q5_0", 6},
    {DType::Q5_1, "q5_1", 8},   {DType::Q8_0, "q8_0", 2},     {DType::Q2_K, "q2_K", 16},
    {DType::Q3_K, "q3_K", 32},  {DType::Q4_K, "q4_K", 16},    {DType::Q5_K, "q5_K", 48},
    {DType::Q6_K, "q6_K", 0},   {DType::IQ4_NL, "iq4_nl", 2}, {DType::IQ4_XS, "iq4_xs", 8},
    {DType::Q1_0, "q1_0", 2},   {DType::Q2_0, "q2_0", 2},     {DType::TQ2_0, "tq2_0", 0},
    {DType::MXFP4, "mxfp4", 1}, {DType::NVFP4, "nvfp4", 4},   {DType::TQ1_0, "tq1_0", 0}};

TEST_CASE("cells: what the reference quantised lies in the cell of its level", "[comparison]") {
  const fs::path root = std::string(WTOOL_SOURCE_DIR) + "/testdata/ggml";
  const TensorPtr source =
      std::make_shared<Memory>(DType::F32, Shape{64, 512}, file(root / "input.f32"));
  for (const BlockType& t : kBlocks) {
    INFO(t.name);
    Buffer bytes = file(root / (std::string(t.name) + ".bin"));
    const auto stored = std::make_shared<Memory>(t.type, Shape{64, 512}, bytes);
    const Comparison found = compare(source, stored, kStep);
    CHECK(found.beyond == 0);
    CHECK(found.non_finite == 0);
    CHECK(found.drift.worst_steps > 0.45);

    // One wrong code in one block is found, and named.
    if (t.type == DType::TQ1_0) continue;  // five digits share a byte
    const std::size_t size = info(t.type).block_bytes, each = info(t.type).block_elems;
    std::size_t noticed = 0, tried = 0;
    for (std::size_t block = 0; block * each < 8 * 512; ++block, ++tried) {
      Buffer wrong = bytes;
      wrong[block * size + t.first_code] ^= std::byte{1};
      const Comparison c =
          compare(source, std::make_shared<Memory>(t.type, Shape{64, 512}, wrong), kStep);
      noticed += c.beyond == 1 && c.first_beyond.index == block * each;
    }
    CHECK(noticed * 100 >= tried * 95);  // that rounding may hide a few
  }
}

TEST_CASE("cells: codebooks have none, and are refused but against themselves", "[comparison]") {
  const fs::path root = std::string(WTOOL_SOURCE_DIR) + "/testdata/ggml";
  const TensorPtr source =
      std::make_shared<Memory>(DType::F32, Shape{64, 512}, file(root / "input.f32"));
  const auto stored =
      std::make_shared<Memory>(DType::IQ3_S, Shape{64, 512}, file(root / "iq3_s.bin"));
  CHECK(refusal([&] { compare(source, stored, kStep); }) ==
        "the values of iq3_s are points of a codebook, which have no steps");
  CHECK(compare(stored, stored, kStep).beyond == 0);
  CHECK(compare(source, stored).beyond > 0);
}

TensorPtr golden_source(const fs::path& dir) {
  const Array weight = load_npy(dir / "weight_f32.npy");
  return std::make_shared<Memory>(DType::F32, weight.shape, weight.bytes);
}
std::shared_ptr<Model> integers_of(const fs::path& dir) {
  const bool packed = fs::exists(dir / "weight_packed.npy"),
             four = dir.string().find("int4") != std::string::npos;
  const bool zeros = fs::exists(dir / "weight_zero_point.npy"),
             group = dir.string().find("g128") != std::string::npos;
  const auto load = [&](std::string_view part) {
    return load_npy(dir / fmt::format("{}.npy", part));
  };
  const Array codes = load(packed ? "weight_packed" : "weight"), scale = load("weight_scale");
  Builder b;
  b.config(fmt::format(
      R"({{"quantization_config":{{"quant_method":"compressed-tensors","config_groups":{{"group_0":)"
      R"({{"targets":["Linear"],"weights":{{"num_bits":{},"type":"int","symmetric":{},"strategy":"{}",)"
      R"("group_size":{}}}}}}}}}}})",
      four ? 4 : 8, !zeros, group ? "group" : "channel", group ? "128" : "null"));
  b.add(packed ? "m.weight_packed" : "m.weight", packed ? DType::I32 : DType::I8, codes.shape,
        codes.bytes);
  b.add("m.weight_scale", DType::F32, scale.shape, scale.bytes);
  if (packed) b.add("m.weight_shape", DType::I64, {2}, load("weight_shape").bytes);
  if (zeros) {
    const Array zero = load("weight_zero_point");
    b.add("m.weight_zero_point", DType::I32, zero.shape, zero.bytes);
  }
  return b.build();
}

TEST_CASE("cells: integers of the reference lie in the cells of their codes", "[comparison]") {
  for (const char* prefix :
       {"ct_int4_g128_sym_f32", "ct_int4_g128_asym_f32", "ct_int8_packed_g128",
        "ct_int4_packed_channel_f32", "ct_int8_packed_channel_f32", "ct_int8_channel_f32"})
    for (const fs::path& dir : cases(prefix)) {
      INFO(dir.string());
      const auto model = integers_of(dir);
      const TensorPtr stored = open_only(kCompressedTensors, *model);
      const TensorPtr source = golden_source(dir);
      const Comparison found = compare(source, stored, kStep);
      CHECK(found.beyond == 0);
      CHECK(found.elements == source->elements());
      // What lies a whole step off does not.
      std::vector<float> low(stored->elements()), high(stored->elements());
      read_all_cells(*stored, low, high);
      auto values = values_of(*source, source->whole());
      std::size_t at = 0;
      while (!std::isfinite(low[at]) || !std::isfinite(high[at]) || high[at] == low[at]) ++at;
      values[at] = high[at] + (high[at] - low[at]) * 0.01f;
      const Comparison off = compare(tensor(DType::F32, source->shape(), values), stored, kStep);
      CHECK(off.beyond == 1);
      CHECK(off.first_beyond.index == at);
      CHECK(off.drift.worst_steps == Approx(0.51).epsilon(0.001));
    }
}

TEST_CASE("cells: GPTQ, NF4, FP4, int8 and fp8 of the references lie in theirs", "[comparison]") {
  for (const char* type : {"nf4", "fp4"})
    for (const fs::path& dir : cases(fmt::format("bnb_{}_", type))) {
      INFO(dir.string());
      const auto load = [&](const char* part) {
        return load_npy(dir / (std::string(part) + ".npy"));
      };
      const Array codes = load("weight_packed_u8"), absmax = load("absmax_f32"),
                  map = load("quant_map"), weight = load("weight_f32");
      const std::string state =
          fmt::format(R"({{"quant_type":"{}","blocksize":64,"dtype":"float32","shape":[{},{}]}})",
                      type, weight.shape[0], weight.shape[1]);
      const auto model = Builder()
                             .add("m.weight", DType::U8, codes.shape, codes.bytes)
                             .add("m.weight.absmax", DType::F32, absmax.shape, absmax.bytes)
                             .add("m.weight.quant_map", DType::F32, map.shape, map.bytes)
                             .add(std::string("m.weight.quant_state.bitsandbytes__") + type,
                                  DType::U8, {state.size()}, to_buffer(state))
                             .build();
      CHECK(compare(golden_source(dir), open_only(kBitsAndBytes, *model), kStep).beyond == 0);
    }
  for (const fs::path& dir : cases("bnb_int8_")) {
    const Array codes = load_npy(dir / "weight_i8.npy"), most = load_npy(dir / "SCB.npy");
    const auto model = Builder()
                           .add("m.weight", DType::I8, codes.shape, codes.bytes)
                           .add("m.SCB", DType::F32, most.shape, most.bytes)
                           .config(R"({"quantization_config":{"quant_method":"bitsandbytes",)"
                                   R"("load_in_8bit":true}})")
                           .build();
    const TensorPtr stored = open_only(kBitsAndBytes, *model);
    CHECK(compare(golden_source(dir), stored, kStep).beyond == 0);
    CHECK(compare(added(golden_source(dir), 1), added(stored, 1), kStep).beyond == 0);
    CHECK(compare(added(golden_source(dir), 1), stored, kStep).beyond > 0);
  }
  for (const char* prefix : {"ct_fp8_channel_", "ct_fp8_tensor_"})
    for (const fs::path& dir : cases(prefix)) {
      INFO(dir.string());
      const Array codes = load_npy(dir / "weight_e4m3_bytes.npy"),
                  scale = load_npy(dir / "weight_scale.npy");
      const auto model = Builder()
                             .add("m.weight", DType::F8_E4M3, codes.shape, codes.bytes)
                             .add("m.weight_scale", DType::F32, scale.shape, scale.bytes)
                             .build();
      CHECK(compare(golden_source(dir), open_only(kCompressedTensors, *model), kStep).beyond == 0);
    }
}

// One group of two rows and four inputs, scale 2, zero points 3 and 5, codes 0, 1, 8, 15.
TEST_CASE("cells: a scale of either sign, and zero points, move them", "[comparison]") {
  for (const float scale : {2.0f, -2.0f}) {
    std::vector<std::uint32_t> codes(8, 0xF810F810);  // inputs down the rows: 0 1 8 15 0 1 8 15
    Builder b;
    b.add("m.qweight", DType::I32, {1, 8}, codes)
        .add("m.qzeros", DType::I32, {1, 1}, std::vector<std::uint32_t>{0x33333333})
        .add("m.scales", DType::F32, {1, 8}, std::vector<float>(8, scale))
        .config(R"({"quantization_config":{"quant_method":"gptq","bits":4,"group_size":8,)"
                R"("checkpoint_format":"gptq_v2"}})");
    const auto model = b.build();
    const TensorPtr t = open_only(kGptq, *model);
    REQUIRE(t->shape() == Shape{8, 8});
    std::vector<float> low(64), high(64);
    read_all_cells(*t, low, high);
    const float s = scale > 0 ? 1.0f : -1.0f;
    const auto ends = [&](float x, float y) {
      return std::pair(std::min(s * x, s * y), std::max(s * x, s * y));
    };
    CHECK(std::pair(low[0], high[0]) == ends(-kInf, -5));
    CHECK(std::pair(low[1], high[1]) == ends(-5, -3));
    CHECK(std::pair(low[2], high[2]) == ends(9, 11));
    CHECK(std::pair(low[3], high[3]) == ends(23, kInf));
  }
}

// ---- tolerances

TensorPtr f32(const std::vector<float>& v) {
  return tensor(DType::F32, {v.size()}, v);
}

TEST_CASE("comparison: the figures are those of the values", "[comparison]") {
  const Comparison c = compare(f32({3, -4, 0, 12}), f32({3, -3, 0, 10}));
  CHECK(c.elements == 4);
  CHECK(c.changed == 2);
  CHECK(c.beyond == 2);
  CHECK(c.changed_share() == 0.5);
  CHECK(c.drift.rel_rmse() == Approx(std::sqrt(5.0 / 169)));
  CHECK(c.drift.cosine() == Approx((9 + 12 + 120) / (13 * std::sqrt(118.0))));
  CHECK(c.drift.worst == 2);
  CHECK(c.worst.index == 3);
  CHECK(c.worst.a == 12);
  CHECK(c.worst.b == 10);
  CHECK(c.first_beyond.index == 1);
}

TEST_CASE("comparison: NaN, infinities and signs of zero", "[comparison]") {
  const float other = std::bit_cast<float>(0x7FC00001u);
  const auto a = f32({kNan, kNan, kInf, kInf, 0.0f, 1, kNan, 2}),
             b = f32({kNan, other, kInf, -kInf, -0.0f, kNan, 1, 2});
  const Comparison exact = compare(a, b);
  CHECK(exact.beyond == 5);  // the other NaN, -Inf, -0, and the two pairs with one NaN
  CHECK(exact.changed == 5);
  CHECK(exact.non_finite == 3);
  CHECK(exact.first_beyond.index == 1);
  for (const Tolerance& how :
       {kStep, Tolerance{.kind = Tolerance::Kind::Bound, .absolute = 1e30}}) {
    const Comparison c = compare(a, b, how);
    CHECK(c.beyond == 3);
    CHECK(c.non_finite == 3);
    CHECK(c.drift.worst == 0);
    CHECK(std::isfinite(c.drift.rel_rmse()));
  }
}

TEST_CASE("comparison: bounds are absolute and relative to the first", "[comparison]") {
  const auto how = *parse_tolerance("0.5:0.25");
  CHECK(compare(f32({4, 4, -4, 0, 0}), f32({5.5f, 5.6f, -5.5f, 0.5f, -0.6f}), how).beyond == 2);
  CHECK(compare(f32({1}), f32({1}), *parse_tolerance("0")).beyond == 0);
  CHECK(compare(f32({1}), f32({1.0000001f}), *parse_tolerance("0")).beyond == 1);
  CHECK(compare(f32({0}), f32({-0.0f}), *parse_tolerance("0")).beyond == 0);
  for (const char* bad : {"", "-1", "1:", ":1", "nan", "inf", "1:2:3", "steps", "1 ", "0x1"})
    CHECK(!parse_tolerance(bad));
}

TEST_CASE("comparison: integers and f64 are compared as they are", "[comparison]") {
  constexpr std::int64_t kBig = std::int64_t{1} << 53;
  const auto big = [](std::vector<std::int64_t> v) { return tensor(DType::I64, {v.size()}, v); };
  CHECK(compare(big({kBig, 1}), big({kBig + 1, 1})).beyond == 1);
  const auto wide = [](std::vector<double> v) { return tensor(DType::F64, {v.size()}, v); };
  const Comparison c = compare(wide({1, 2}), wide({1, 2 + 1e-15}));
  CHECK(c.beyond == 1);
  CHECK(c.worst.index == 1);
  CHECK(compare(wide({1, 2}), wide({1, 2 + 1e-15}), *parse_tolerance("1e-14")).beyond == 0);
  CHECK(compare(f32({16777216, 2}), tensor(DType::I32, {2}, std::vector<std::int32_t>{16777217, 2}))
            .beyond == 1);
  CHECK(compare(f32({1, 0}), tensor(DType::Bool, {2}, std::vector<std::uint8_t>{1, 0})).beyond ==
        0);
}

TEST_CASE("comparison: of two plain types the narrower one has steps, of one type none",
          "[comparison]") {
  const auto bf16 = [](std::vector<std::uint16_t> v) { return tensor(DType::BF16, {v.size()}, v); };
  // 1, 1 + 2^-7; half a step is 2^-8.
  CHECK(compare(f32({1, 1 + 0x1p-8f}), bf16({0x3F80, 0x3F81}), kStep).beyond == 0);
  CHECK(compare(f32({1, 1 + 0x1.8p-8f, 1 - 0x1.4p-9f}), bf16({0x3F80, 0x3F80, 0x3F80}), kStep)
            .beyond == 2);
  CHECK(compare(bf16({0x3F80}), bf16({0x3F81}), kStep).beyond == 1);
  CHECK(compare(bf16({0x0000}), bf16({0x8000}), kStep).beyond == 0);
  CHECK(compare(bf16({0x0000}), bf16({0x8000})).beyond == 1);
  // A f16 next to it is the narrower one: three bits more.
  CHECK(compare(bf16({0x3F81}), tensor(DType::F16, {1}, std::vector<std::uint16_t>{0x3C08}), kStep)
            .beyond == 0);
}

TEST_CASE("comparison: beyond the last level is clipped, not beyond the tolerance",
          "[comparison]") {
  // q8_0, d = 1: codes 127, -127, 126, then zeros.
  Buffer block(34);
  block[1] = std::byte{0x3C};
  block[2] = std::byte{127};
  block[3] = std::byte{129};
  block[4] = std::byte{126};
  const auto stored = std::make_shared<Memory>(DType::Q8_0, Shape{32}, block);
  std::vector<float> values(32);
  values[0] = 200;
  values[1] = -128;
  values[2] = 126.4f;
  Comparison c = compare(f32(values), stored, kStep);
  CHECK(c.beyond == 0);
  CHECK(c.clipped == 2);
  CHECK(c.drift.worst_steps == Approx(0.4).epsilon(0.0001));
  CHECK(c.drift.worst == 73);
  values[0] = 126;  // to this side the last level has a neighbour
  c = compare(f32(values), stored, kStep);
  CHECK(c.beyond == 1);
  CHECK(c.clipped == 1);
  // Of two that were quantised, half of each step.
  const auto both = compare(stored, stored, kStep);
  CHECK(both.beyond == 0);
  block[4] = std::byte{125};
  const auto next = std::make_shared<Memory>(DType::Q8_0, Shape{32}, block);
  CHECK(compare(next, stored, kStep).beyond == 0);
  block[4] = std::byte{124};
  CHECK(compare(std::make_shared<Memory>(DType::Q8_0, Shape{32}, block), stored, kStep).beyond ==
        1);
}

TEST_CASE("comparison: the order of units changes nothing, and long tensors are found all over",
          "[comparison]") {
  std::mt19937 random(3);
  std::vector<float> a(700 * 1000), b;
  for (float& v : a) v = std::ldexp(static_cast<float>(random() % 4096), -12);
  b = a;
  b[699'999] += 0.5f;
  b[3] += 0.25f;
  b[400'000] += 0.5f;  // of two as large, the first is named
  const auto x = tensor(DType::F32, {700, 1000}, a), y = tensor(DType::F32, {700, 1000}, b);
  const Comparison c = compare(x, y), d = compare(x, y, {}, true);
  CHECK(c.changed == 3);
  CHECK(c.worst.index == 400'000);
  CHECK(c.first_beyond.index == 3);
  CHECK(std::memcmp(&c.drift, &d.drift, sizeof c.drift) == 0);
  IdentityStep same(x, x), other(x, y);
  run(same);
  run(other, true);
  CHECK(same.same());
  CHECK(!other.same());
}

TEST_CASE("comparison: rows that are no whole bytes, and empty tensors", "[comparison]") {
  // f4 [2, 3] is one long row: 0.5 1 1.5 2 3 4
  const auto four = std::make_shared<Memory>(
      DType::F4, Shape{2, 3}, Buffer{std::byte{0x21}, std::byte{0x43}, std::byte{0x65}});
  const auto plain = tensor(DType::F32, {2, 3}, std::vector<float>{0.5f, 1, 1.5f, 2, 3, 4});
  CHECK(compare(plain, four).beyond == 0);
  CHECK(compare(four, plain).elements == 6);
  const auto none = tensor(DType::F32, {0, 3}, std::vector<float>());
  const Comparison empty = compare(none, none, kStep);
  CHECK(empty.elements == 0);
  CHECK(empty.drift.rel_rmse() == 0);
}

}  // namespace
}  // namespace wtool
