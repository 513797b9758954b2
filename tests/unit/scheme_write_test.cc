// Writing GPTQ and AWQ, and the integers of one scheme in the packing of another.
#include <cmath>
#include <random>

#include <fmt/format.h>

#include "formats/registry.h"
#include "formats/schemes/repack.h"
#include "tests/unit/scheme_models.h"
#include "tests/unit/step_run.h"

namespace wtool {
namespace {

// Integers in memory.
class Given final : public IntegerWeight {
 public:
  Given(const IntegerShape& shape, std::vector<std::uint8_t> codes, std::vector<std::uint8_t> zeros,
        Buffer scales, std::vector<std::uint32_t> index = {})
      : IntegerWeight(shape),
        codes_(std::move(codes)),
        zeros_(std::move(zeros)),
        scales_(std::move(scales)),
        index_(std::move(index)) {}
  std::span<const std::uint32_t> group_index() const noexcept override { return index_; }
  void codes(const Box& box, std::span<std::uint8_t> out, Scratch&) const override {
    take(std::as_bytes(std::span(codes_)), integers().cols, 1, box, std::as_writable_bytes(out));
  }
  void zero_points(const Box& box, std::span<std::uint8_t> out, Scratch&) const override {
    take(std::as_bytes(std::span(zeros_)), integers().groups, 1, box, std::as_writable_bytes(out));
  }
  void scales(const Box& box, MutableBytes out, Scratch&) const override {
    take(scales_, integers().groups, info(integers().scale).block_bytes, box, out);
  }

 private:
  static void take(Bytes from, std::uint64_t cols, std::size_t size, const Box& box,
                   MutableBytes out) {
    for (std::uint64_t r = 0; r < box.rows; ++r)
      std::memcpy(out.data() + r * box.cols * size,
                  from.subspan(((box.row + r) * cols + box.col) * size, box.cols * size).data(),
                  box.cols * size);
  }
  std::vector<std::uint8_t> codes_, zeros_;
  Buffer scales_;
  std::vector<std::uint32_t> index_;
};

// The named parts of one weight, and the model they make.
struct Stored {
  std::vector<OutTensor> tensors;
  std::vector<Buffer> bytes;
  std::string config;

  const Buffer& operator[](std::string_view suffix) const {
    for (std::size_t i = 0; i < tensors.size(); ++i)
      if (tensors[i].name == "m" + std::string(suffix)) return bytes[i];
    FAIL("no part " << suffix);
    return bytes[0];
  }
  bool has(std::string_view suffix) const {
    return std::ranges::any_of(
        tensors, [&](const OutTensor& t) { return t.name == "m" + std::string(suffix); });
  }
  std::shared_ptr<Model> model() const {
    Builder b;
    for (std::size_t i = 0; i < tensors.size(); ++i)
      b.add(tensors[i].name, tensors[i].dtype, tensors[i].shape, bytes[i]);
    if (!config.empty()) b.config("{\"quantization_config\":" + config + "}");
    return b.build();
  }
  bool operator==(const Stored& other) const { return bytes == other.bytes; }
};
Stored stored_by(Step& step, bool backwards = false) {
  Stored out;
  out.tensors.assign(step.outputs().begin(), step.outputs().end());
  out.bytes = run(step, backwards).outputs;
  return out;
}

const Scheme& scheme_named(std::string_view name) {
  return all_formats().scheme(name);
}

Stored repacked(std::string_view scheme, const IntegerWeightPtr& weight, bool zero_points,
                bool backwards = false) {
  const auto step = repack_step(*repacking_to(scheme), "m.weight", weight, zero_points);
  Stored out = stored_by(*step, backwards);
  const IntegerShape& s = weight->integers();
  const SchemeOptions options{
      .bits = s.bits, .group = s.groups == 1 ? 0 : s.group(), .asymmetric = zero_points};
  out.config = scheme_named(scheme).config(std::vector<ConfigGroup>{{options, {"m"}}}, {});
  return out;
}

// The one weight of a model, read by its scheme: its values and its integers.
struct Read {
  std::shared_ptr<Model> model;
  TensorPtr values;
  IntegerWeightPtr integers;
  std::vector<float> all() const { return values_of(*values, values->whole()); }
};
Read read_by(std::string_view scheme, const Stored& parts) {
  Read out{parts.model(), open_only(scheme_named(scheme), *parts.model()), nullptr};
  out.values = open_only(scheme_named(scheme), *out.model);
  out.integers = std::dynamic_pointer_cast<const IntegerWeight>(out.values);
  REQUIRE(out.integers);
  return out;
}

// ---- the reference's words

struct Reference {
  std::shared_ptr<Given> weight;
  fs::path dir;
  bool symmetric;
  Array array(std::string_view file) const { return load_npy(dir / (std::string(file) + ".npy")); }
};

template <class T>
std::vector<std::uint8_t> bytes_from(const std::vector<T>& values) {
  return {values.begin(), values.end()};
}
// [groups, rows] to [rows, groups]
Buffer turned(const Buffer& in, std::uint64_t groups, std::uint64_t rows) {
  const auto from = as<std::uint16_t>(in);
  std::vector<std::uint16_t> out(from.size());
  for (std::uint64_t r = 0; r < rows; ++r)
    for (std::uint64_t g = 0; g < groups; ++g) out[r * groups + g] = from[g * rows + r];
  return packed(out);
}

// Codes taken bit by bit down each column.
Reference gptq_reference(const fs::path& dir, unsigned bits) {
  const auto load = [&](std::string_view f) { return load_npy(dir / (std::string(f) + ".npy")); };
  const Array words = load("qweight"), scales = load("scales_f16");
  const auto all = words.as<std::uint32_t>();
  const std::uint64_t rows = words.shape[1], cols = words.shape[0] * 32 / bits,
                      groups = scales.shape[0];
  std::vector<std::uint8_t> codes(rows * cols);
  for (std::uint64_t i = 0; i < codes.size(); ++i)
    for (std::uint64_t b = 0; b < bits; ++b) {
      const std::uint64_t at = i % cols * bits + b;
      codes[i] |= static_cast<std::uint8_t>((all[at / 32 * rows + i / cols] >> at % 32 & 1) << b);
    }
  const auto zeros = load("zero_unpacked").as<std::int32_t>();
  const bool symmetric =
      std::ranges::all_of(zeros, [&](std::int32_t z) { return z == 1 << (bits - 1); });
  return {std::make_shared<Given>(IntegerShape{rows, cols, groups, bits, DType::F16, !symmetric},
                                  codes, bytes_from(zeros), turned(scales.bytes, groups, rows)),
          dir, symmetric};
}
std::vector<Reference> gptq_references() {
  std::vector<Reference> out;
  for (const auto& [prefix, bits] :
       {std::pair{"gptq_3bit_", 3u}, {"gptq_4bit_", 4u}, {"gptq_8bit_", 8u}})
    for (const fs::path& dir : cases(prefix)) out.push_back(gptq_reference(dir, bits));
  return out;
}
std::vector<Reference> awq_references() {
  std::vector<Reference> out;
  for (const fs::path& dir : cases("awq_gemm_")) {
    const auto load = [&](std::string_view f) { return load_npy(dir / (std::string(f) + ".npy")); };
    const Array codes = load("codes_u8"), scales = load("scales_f16");
    const IntegerShape shape{codes.shape[0], codes.shape[1], scales.shape[0], 4, DType::F16, true};
    out.push_back({std::make_shared<Given>(shape, codes.as<std::uint8_t>(),
                                           bytes_from(load("zero_unpacked").as<std::int32_t>()),
                                           turned(scales.bytes, shape.groups, shape.rows)),
                   dir, false});
  }
  return out;
}

TEST_CASE("gptq: integers are packed into the reference's words", "[scheme_write]") {
  std::size_t symmetric = 0, asymmetric = 0;
  for (const Reference& r : gptq_references()) {
    INFO(r.dir.string());
    const Stored s = repacked("gptq", r.weight, !r.symmetric);
    CHECK(s[".qweight"] == r.array("qweight").bytes);
    CHECK(s[".scales"] == r.array("scales_f16").bytes);
    CHECK(s[".g_idx"] == r.array("g_idx").bytes);
    ++(r.symmetric ? symmetric : asymmetric);
    if (!r.symmetric) CHECK(s[".qzeros"] == r.array("qzeros_v2").bytes);
    if (r.symmetric && fs::exists(r.dir / "qzeros_v1.npy"))
      CHECK(s[".qzeros"] == r.array("qzeros_v1").bytes);
    // Version 2 of the same, zero points in the middle and all.
    CHECK(repacked("gptq", r.weight, true)[".qzeros"] == r.array("qzeros_v2").bytes);
  }
  CHECK(symmetric > 0);
  CHECK(asymmetric > 0);
}

TEST_CASE("awq: integers are packed into the reference's words", "[scheme_write]") {
  for (const Reference& r : awq_references()) {
    INFO(r.dir.string());
    const Stored s = repacked("awq", r.weight, true);
    CHECK(s[".qweight"] == r.array("qweight").bytes);
    CHECK(s[".qzeros"] == r.array("qzeros").bytes);
    CHECK(s[".scales"] == r.array("scales_f16").bytes);
  }
}

// ---- from scheme to scheme

constexpr std::array<std::string_view, 3> kSchemes{"gptq", "awq", "compressed-tensors"};

bool takes(std::string_view scheme, const IntegerWeight& weight, bool zero_points) {
  IntegerShape shape = weight.integers();
  shape.zero_points = zero_points;
  return !refuses_integers(*repacking_to(scheme), weight) && !repacking_to(scheme)->refuses(shape);
}

TEST_CASE("repacking: every scheme's values are every other's, and bytes come back",
          "[scheme_write]") {
  std::vector<Reference> all = gptq_references();
  for (Reference& r : awq_references()) all.push_back(std::move(r));
  std::size_t pairs = 0;
  for (const Reference& r : all)
    for (const std::string_view from : kSchemes) {
      if (!takes(from, *r.weight, !r.symmetric)) continue;
      const Stored first = repacked(from, r.weight, !r.symmetric);
      const Read source = read_by(from, first);
      const auto values = source.all();
      for (const std::string_view to : kSchemes) {
        if (!takes(to, *source.integers, !r.symmetric)) continue;
        INFO(r.dir.string() << ' ' << from << " to " << to);
        const Stored second = repacked(to, source.integers, !r.symmetric, true);
        const Read target = read_by(to, second);
        CHECK(target.all() == values);
        const bool asymmetric =
            !zero_points_of(*target.integers).all_are(1u << (r.weight->integers().bits - 1));
        CHECK(asymmetric == !r.symmetric);
        CHECK(repacked(from, target.integers, asymmetric) == first);
        ++pairs;
      }
    }
  CHECK(pairs > 20);
}

// A weight large enough for units in both directions, its last ones short.
std::shared_ptr<Given> large(unsigned bits, std::vector<std::uint32_t> index = {}) {
  const IntegerShape shape{1120, 1184, 37, bits, DType::F16, true};
  std::mt19937 random(4);
  std::vector<std::uint8_t> codes(shape.rows * shape.cols), zeros(shape.rows * shape.groups);
  for (auto* v : {&codes, &zeros})
    for (std::uint8_t& x : *v) x = static_cast<std::uint8_t>(random() >> 8 & ((1u << bits) - 1));
  std::vector<std::uint16_t> scales(zeros.size());
  for (std::uint16_t& x : scales) x = static_cast<std::uint16_t>(0x2000 + random() % 0x1000);
  return std::make_shared<Given>(shape, codes, zeros, packed(scales), std::move(index));
}

TEST_CASE("repacking: units of work in both directions make one weight", "[scheme_write]") {
  for (const unsigned bits : {2u, 3u, 4u}) {
    const auto weight = large(bits);
    std::vector<std::vector<float>> values;
    for (const std::string_view to : kSchemes) {
      if (!takes(to, *weight, true)) continue;
      const Stored s = repacked(to, weight, true);
      CHECK(s == repacked(to, weight, true, true));
      values.push_back(read_by(to, s).all());
      CHECK(values.back() == values[0]);
    }
    REQUIRE(values.size() >= 2);
    // Against the integers themselves, a few of them.
    Scratch scratch;
    std::vector<std::uint8_t> code(1), zero(1);
    Buffer scale(2);
    for (std::uint64_t i = 0; i < values[0].size(); i += 9973) {
      const std::uint64_t r = i / 1184, c = i % 1184;
      weight->codes({r, 1, c, 1}, code, scratch);
      weight->zero_points({r, 1, c / 32, 1}, zero, scratch);
      weight->scales({r, 1, c / 32, 1}, scale, scratch);
      float s = 0;
      codec(DType::F16).decode(scale.data(), &s, 1);
      CHECK(values[0][i] == static_cast<float>(code[0] - zero[0]) * s);
    }
  }
}

TEST_CASE("repacking: an order of groups goes along where there is a place", "[scheme_write]") {
  std::vector<std::uint32_t> index(1184);
  for (std::uint32_t c = 0; c < index.size(); ++c) index[c] = c % 37;
  const auto weight = large(4, index);
  const Stored gptq = repacked("gptq", weight, true);
  CHECK(as<std::uint32_t>(gptq[".g_idx"]) == index);
  const Read read = read_by("gptq", gptq);
  const Stored packed = repacked("compressed-tensors", read.integers, true);
  CHECK(as<std::uint32_t>(packed[".weight_g_idx"]) == index);
  const Read back = read_by("compressed-tensors", packed);
  CHECK(back.all() == read.all());
  CHECK(repacked("gptq", back.integers, true) == gptq);
  CHECK(refuses_integers(*repacking_to("awq"), *weight).value_or("").find("act-order") !=
        std::string::npos);
  index[0] = 1;
  CHECK(refuses_integers(*repacking_to("gptq"), *large(4, index)) ==
        "group 0 has 31 columns, not 32 as groups of one size would");
}

TEST_CASE("repacking: scales that f16 would change stop it", "[scheme_write]") {
  const auto with_scales = [](DType type, const std::vector<float>& scales) {
    Buffer bytes(*byte_size(type, scales.size()));
    codec(type).encode(scales.data(), bytes.data(), scales.size());
    return std::make_shared<Given>(IntegerShape{8, 16, 2, 4, type, false},
                                   std::vector<std::uint8_t>(128, 9),
                                   std::vector<std::uint8_t>(16, 8), bytes);
  };
  std::vector<float> scales(16, 0.5f);
  const auto exact = with_scales(DType::BF16, scales);
  CHECK(read_by("awq", repacked("awq", exact, true)).all() == std::vector<float>(128, 0.5f));
  CHECK(repacked("compressed-tensors", exact, false).tensors[1].dtype == DType::BF16);
  const auto error = [&](float scale, DType type) {
    scales[7] = scale;
    try {
      repacked("gptq", with_scales(type, scales), false);
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::BadFile);
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(error(1e5f, DType::BF16) ==
        "tensor 'm.weight': scale [3, 1] is 99840 in bf16, which f16 can only hold as inf");
  CHECK(error(0x1p-30f, DType::BF16) ==
        "tensor 'm.weight': scale [3, 1] is 9.313226e-10 in bf16, which f16 can only hold as 0");
  CHECK(error(1.0009766f + 0x1p-20f, DType::F32) ==
        "tensor 'm.weight': scale [3, 1] is 1.0009775 in f32, which f16 can only hold as "
        "1.0009766");
  CHECK(error(NAN, DType::F16) == "tensor 'm.weight': scale [3, 1] is nan");
}

TEST_CASE("repacking: what a scheme has no place for is refused", "[scheme_write]") {
  const auto why = [](std::string_view scheme, IntegerShape shape, bool zero_points = false) {
    shape.zero_points = zero_points;
    return repacking_to(scheme)->refuses(shape).value_or("");
  };
  CHECK(why("awq", {32, 64, 2, 8}) == "8 bits: AWQ has 4");
  CHECK(why("awq", {30, 64, 2, 4}) == "30 rows do not fill words of 8 codes");
  CHECK(why("gptq", {32, 64, 2, 5}) == "5 bits: GPTQ has 2, 3, 4 and 8");
  CHECK(why("gptq", {32, 60, 2, 4}) ==
        "60 columns do not fill words, which hold 8 codes of 4 bits");
  CHECK(why("gptq", {40, 64, 2, 3}) ==
        "40 rows do not fill words, which hold 32 codes of 3 bits in 3");
  CHECK(why("compressed-tensors", {33, 61, 1, 8}).empty());
  CHECK(why("compressed-tensors", {33, 61, 1, 8}, true) ==
        "engines load 8 bits with zero points, and their kernels fail on them");
  CHECK(repacking_to("bitsandbytes") == nullptr);
}

// ---- from floats

std::vector<float> normal(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> out(n);
  for (float& x : out) {
    x = -2;
    for (int i = 0; i < 4; ++i) x += static_cast<float>(random() >> 8) * 0x1p-24f;
    x *= 0.05f;
  }
  return out;
}
// In f16, so that packed scales are f16 everywhere.
TensorPtr halves(const Shape& shape, const std::vector<float>& values) {
  Buffer bytes(values.size() * 2);
  codec(DType::F16).encode(values.data(), bytes.data(), values.size());
  return std::make_shared<Memory>(DType::F16, shape, bytes);
}
Stored encoded(std::string_view scheme, const TensorPtr& values, const SchemeOptions& options,
               bool backwards = false) {
  Plan plan;
  scheme_named(scheme).encode(std::vector<Target>{{"m.weight", values}}, options, plan);
  Stored out = stored_by(*plan.steps.at(0), backwards);
  out.config = scheme_named(scheme).config(std::vector<ConfigGroup>{{options, {"m"}}}, {});
  return out;
}

TEST_CASE("gptq, awq: weights are quantised as compressed-tensors quantises them",
          "[scheme_write]") {
  const Shape shape{1056, 2080};
  const TensorPtr values = halves(shape, normal(shape[0] * shape[1], 2));
  for (const std::string_view scheme : {"gptq", "awq"})
    for (const unsigned bits : {2u, 3u, 4u, 8u})
      for (const std::uint64_t group : {std::uint64_t{32}, std::uint64_t{0}})
        for (const bool asymmetric : {false, true}) {
          if ((scheme == "awq" && bits != 4) || (asymmetric && bits == 8)) continue;
          INFO(scheme << ' ' << bits << ' ' << group << ' ' << asymmetric);
          const SchemeOptions options{
              .bits = bits, .group = group, .asymmetric = asymmetric, .method = ScaleMethod::Rtn};
          const Stored s = encoded(scheme, values, options);
          CHECK(s == encoded(scheme, values, options, true));
          const Stored plain = encoded("compressed-tensors", values, options);
          CHECK(read_by(scheme, s).all() == read_by("compressed-tensors", plain).all());
        }
}

TEST_CASE("gptq, awq: every value is within half a step of its source", "[scheme_write]") {
  const Shape shape{64, 512};
  const auto source = normal(shape[0] * shape[1], 7);
  const TensorPtr values = tensor(DType::F32, shape, source);
  for (const std::string_view scheme : {"gptq", "awq"})
    for (const unsigned bits : {2u, 3u, 4u, 8u})
      for (const bool asymmetric : {false, true}) {
        if (scheme == "awq" && bits != 4) continue;
        INFO(scheme << ' ' << bits << ' ' << asymmetric);
        const Stored s = encoded(
            scheme, values,
            {.bits = bits, .group = 128, .asymmetric = asymmetric, .method = ScaleMethod::Rtn});
        const auto all = read_by(scheme, s).all();
        std::vector<float> scales(shape[0] * 4);
        codec(DType::F16).decode(s[".scales"].data(), scales.data(), scales.size());
        double worst = 0;
        for (std::size_t i = 0; i < all.size(); ++i) {
          const float scale = scales[i % 512 / 128 * shape[0] + i / 512];
          worst = std::max(worst, static_cast<double>(std::abs(all[i] - source[i]) / scale));
        }
        // A scale rounded down to f16 moves the last code by that much; zero points by half a step.
        CHECK(worst <= 0.5 + (1 << bits) * 0x1p-11 + (asymmetric ? 0.5 : 0));
      }
}

TEST_CASE("gptq, awq: what cannot be written so is refused", "[scheme_write]") {
  const auto why = [](std::string_view scheme, const Shape& shape, SchemeOptions options,
                      DType type = DType::BF16) {
    const Memory values(type, shape, Buffer(*byte_size(type, *element_count(shape))));
    return scheme_named(scheme).refuses(values, options).value_or("");
  };
  CHECK(why("gptq", {64, 256}, {.bits = 4}).empty());
  CHECK(why("gptq", {64, 200}, {.bits = 4}) == "200 columns do not divide into groups of 128");
  CHECK(why("gptq", {64, 256}, {.bits = 5}) == "5 bits: GPTQ has 2, 3, 4 and 8");
  CHECK(why("gptq", {62, 256}, {.bits = 4}) ==
        "62 rows do not fill words, which hold 8 codes of 4 bits");
  CHECK(why("gptq", {64, 240}, {.bits = 4, .group = 12}) ==
        "groups of 12 do not fill words, which hold 8 codes of 4 bits");
  CHECK(why("gptq", {64, 65544}, {.bits = 4, .group = 0}) ==
        "a row of 65544 columns with one scale is longer than 65536");
  CHECK(why("gptq", {64, 256}, {.activations = true}) ==
        "engines take it for weights alone, with 16-bit activations");
  CHECK(why("gptq", {64, 256}, {.levels = Levels::Fp8}) == "only integers are written so");
  CHECK(why("awq", {64, 256}, {.bits = 8}) == "8 bits: AWQ has 4");
  CHECK(why("awq", {60, 256}, {.bits = 4}) == "60 rows do not fill words of 8 codes");
  CHECK(why("awq", {8, 8, 8}, {.bits = 4}) == "[8, 8, 8] has 3 dimensions, not 2");
  CHECK(why("awq", {64, 256}, {.bits = 4}, DType::I32) == "i32 is not f16, bf16, f32 or f64");
}

TEST_CASE("gptq: the config names what is kept, and modules with numbers of their own",
          "[scheme_write]") {
  const std::vector<ConfigGroup> groups{{{.bits = 4, .group = 128}, {"a.0.q", "a.0.k"}},
                                        {{.bits = 4, .group = 64}, {"a.0.v"}}};
  const std::vector<std::string> kept{"lm_head", "a.0.gate"};
  CHECK(kGptq.config(groups, kept) ==
        R"({"quant_method":"gptq","bits":4,"group_size":128,"desc_act":false,"sym":true,)"
        R"("lm_head":false,"checkpoint_format":"gptq","pack_dtype":"int32","damp_percent":0.05,)"
        R"("true_sequential":true,"dynamic":{"-:^lm_head$":{},"-:^a\\.0\\.gate$":{},)"
        R"("+:^a\\.0\\.v$":{"bits":4,"group_size":64}}})");
  const std::vector<ConfigGroup> asymmetric{{{.bits = 3, .group = 0, .asymmetric = true}, {"a"}}};
  const std::string text = kGptq.config(asymmetric, {});
  CHECK(text.find(R"("bits":3,"group_size":-1)") != text.npos);
  CHECK(text.find(R"("sym":false)") != text.npos);
  CHECK(text.find(R"("checkpoint_format":"gptq_v2")") != text.npos);
  std::vector<ConfigGroup> both = groups;
  both[1].options.asymmetric = true;
  CHECK_THROWS_AS(kGptq.config(both, kept), Error);
}

TEST_CASE("awq: the config lists what is kept, if that keeps nothing else", "[scheme_write]") {
  const std::vector<ConfigGroup> groups{{{.bits = 4, .group = 64}, {"a.0.gate_proj"}}};
  const std::vector<std::string> kept{"lm_head"}, part{"a.0.gate"};
  CHECK(kAwq.config(groups, kept) ==
        R"({"quant_method":"awq","bits":4,"group_size":64,"zero_point":true,"version":"gemm",)"
        R"("modules_to_not_convert":["lm_head"]})");
  CHECK_THROWS_WITH(kAwq.config(groups, part),
                    "module 'a.0.gate' is kept, and engines would then keep 'a.0.gate_proj' too: "
                    "AWQ's list is of parts of names");
  const std::vector<ConfigGroup> two{{{.bits = 4, .group = 64}, {"a"}},
                                     {{.bits = 4, .group = 32}, {"b"}}};
  CHECK_THROWS_WITH(kAwq.config(two, {}), "one AWQ model has groups of one size, not 64 and 32");
}

}  // namespace
}  // namespace wtool
