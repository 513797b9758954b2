#include "lib/numeric/codec.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/quantizer.h"
#include "lib/trust/digest.h"
#include "tests/catch.h"
#include "tests/simd_levels.h"
#include "tests/unit/golden.h"
#include "tests/unit/step_run.h"

namespace wtool {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> decoded(DType type, const Buffer& bytes, std::size_t n) {
  std::vector<float> out(n);
  codec(type).decode(bytes.data(), out.data(), n);
  return out;
}
Buffer encoded(DType type, const std::vector<float>& values) {
  Buffer out(checked_size(type, values.size()));
  if (const Quantizer* quantizer = find_quantizer(type))
    quantizer->plain({values.data(), 1, values.size()}, out.data());
  else
    codec(type).encode(values.data(), out.data(), values.size());
  return out;
}
Buffer buffer_of(std::initializer_list<int> values) {
  Buffer out;
  for (const int v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}
Bytes raw(const std::vector<float>& v) {
  return std::as_bytes(std::span(v));
}

// Any bits at all, with a good share of what is special.
std::vector<float> wild_floats(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  const std::vector<float> special{0.0f,        -0.0f,    kInf,        -kInf,   kNaN,
                                   65504,       65520,    -65519.996f, 1e-45f,  -1e-40f,
                                   0x1p-24f,    0x1p-25f, 0x1.8p-25f,  3.4e38f, 0x1.fep127f,
                                   0x1.ffp127f, 0.5f,     -2.5f,       1e-7f,   6e-8f};
  std::vector<float> out(n);
  for (float& x : out)
    x = random() % 4 == 0 ? special[random() % special.size()]
                          : std::bit_cast<float>(static_cast<std::uint32_t>(random()));
  return out;
}
std::vector<float> tame_floats(std::size_t n, unsigned seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> out(n);
  for (float& x : out) x = normal(random);
  return out;
}

// By the definition of the format, in f64.
double value_of_f16(unsigned bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31)
    return fraction != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  return exponent == 0 ? sign * std::ldexp(fraction, -24)
                       : sign * std::ldexp(1024 + fraction, exponent - 25);
}

}  // namespace

TEST_CASE("codec: q8_0 and q4_0 are written as the reference writes them", "[codec]") {
  const std::vector<float> input = golden_floats("input.f32");
  for (const Simd level : levels()) {
    const AtLevel at(level);
    INFO(name_of(level));
    CHECK(encoded(DType::Q8_0, input) == golden("q8_0.bin"));
    CHECK(encoded(DType::Q4_0, input) == golden("q4_0.bin"));
  }
}

TEST_CASE("codec: blocks decode to the reference's floats, bit for bit", "[codec]") {
  struct Case {
    DType type;
    const char *name, *sha256;  // of the floats that the reference gives
  };
  const std::vector<Case> cases{
      {DType::Q8_0, "q8_0", "fade80c57a7c419b48e50af7d94846e914ec9b80f215f626f203e5e40de6f199"},
      {DType::Q4_0, "q4_0", "691b25553c899af18b6d8e306d3b00d2992c6e3b6df31489f802a1e7d628de3e"},
      {DType::Q4_1, "q4_1", "9446a4526df338e50519c8522ee51af9aeeec7c6beac31eb5feb723438512f0a"},
      {DType::Q5_0, "q5_0", "eddaabd942f357a5809fa25cc09eba448140733fad854fb23975ec7479aa2867"},
      {DType::Q5_1, "q5_1", "bc6c3af713fe90b44f602e71a1687ffe6c46e004e79a260c3d99166ae11ab1ed"}};
  for (const Case& c : cases)
    for (const Simd level : levels()) {
      const AtLevel at(level);
      INFO(c.name << " " << name_of(level));
      const std::vector<float> values =
          decoded(c.type, golden(std::string(c.name) + ".bin"), 64 * 512);
      CHECK(sha256(raw(values)).hex() == c.sha256);
    }
}

TEST_CASE("codec: f16 and bf16 of the golden rows are the reference's", "[codec]") {
  const std::string folder = WTOOL_SOURCE_DIR "/../shared/golden/ggml/";
  if (!std::filesystem::exists(folder)) return;
  const std::vector<float> input = golden_floats("input.f32");
  for (const Simd level : levels()) {
    const AtLevel at(level);
    INFO(name_of(level));
    CHECK(encoded(DType::F16, input) == bytes_of(folder + "f16.bin"));
    CHECK(encoded(DType::BF16, input) == bytes_of(folder + "bf16.bin"));
    const Buffer f16 = bytes_of(folder + "f16.bin");
    CHECK(decoded(DType::F16, f16, input.size()) == floats_of(bytes_of(folder + "f16.f32")));
  }
}

TEST_CASE("codec: every f16 decodes to its value and comes back", "[codec]") {
  Buffer all(65536 * 2);
  for (unsigned i = 0; i < 65536; ++i) store<std::uint16_t>(all, static_cast<std::uint16_t>(i), i);
  for (const Simd level : levels()) {
    const AtLevel at(level);
    INFO(name_of(level));
    const std::vector<float> values = decoded(DType::F16, all, 65536);
    const Buffer back = encoded(DType::F16, values);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 65536; ++i) {
      const double expected = value_of_f16(i);
      const std::uint16_t bits = load<std::uint16_t>(back, i);
      if (std::isnan(expected))
        wrong += !std::isnan(values[i]) || bits != (i | 0x200);  // quiet, sign and payload kept
      else
        wrong += double{values[i]} != expected || bits != i ||
                 std::signbit(values[i]) != ((i & 0x8000) != 0);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("codec: f32 to f16 rounds to nearest even at every boundary", "[codec]") {
  // Between each pair of neighbours: just below the middle, the middle, just above.
  std::vector<float> values;
  std::vector<std::uint16_t> expected;
  for (unsigned low = 0; low < 0x7C00; ++low) {
    const double next = low + 1 == 0x7C00 ? 65536.0 : value_of_f16(low + 1);
    const float middle = static_cast<float>((value_of_f16(low) + next) / 2);
    for (const float sign : {1.0f, -1.0f}) {
      const unsigned s = sign < 0 ? 0x8000 : 0;
      values.push_back(sign * std::nextafter(middle, 0.0f));
      expected.push_back(static_cast<std::uint16_t>(low | s));
      values.push_back(sign * middle);
      expected.push_back(static_cast<std::uint16_t>((low + (low & 1)) | s));
      values.push_back(sign * std::nextafter(middle, kInf));
      expected.push_back(static_cast<std::uint16_t>((low + 1) | s));
    }
  }
  for (const Simd level : levels()) {
    const AtLevel at(level);
    INFO(name_of(level));
    const Buffer got = encoded(DType::F16, values);
    CHECK(std::memcmp(got.data(), expected.data(), got.size()) == 0);
  }
}

TEST_CASE("codec: f32 to bf16 rounds to nearest even at every boundary", "[codec]") {
  std::vector<float> values;
  std::vector<std::uint16_t> expected;
  for (std::uint32_t low = 0; low < 0x7F80; ++low)
    for (const std::uint32_t sign : {0u, 0x8000u}) {
      const std::uint32_t top = (low | sign) << 16;
      for (const auto& [rest, up] : std::map<std::uint32_t, std::uint32_t>{
               {0, 0}, {0x7FFF, 0}, {0x8000, low & 1}, {0x8001, 1}, {0xFFFF, 1}}) {
        values.push_back(std::bit_cast<float>(top | rest));
        expected.push_back(static_cast<std::uint16_t>((low | sign) + up));
      }
    }
  for (const Simd level : levels()) {
    const AtLevel at(level);
    INFO(name_of(level));
    const Buffer got = encoded(DType::BF16, values);
    CHECK(std::memcmp(got.data(), expected.data(), got.size()) == 0);
    CHECK(std::isnan(decoded(DType::BF16, encoded(DType::BF16, {kNaN}), 1)[0]));
    // A NaN whose payload lies in the lower half must not become infinity.
    const float low_nan = std::bit_cast<float>(0xFF800001u);
    CHECK(encoded(DType::BF16, {low_nan}) == buffer_of({0xC0, 0xFF}));
    CHECK(encoded(DType::F16, {low_nan}) == buffer_of({0x00, 0xFE}));
  }
}

TEST_CASE("codec: every instruction set gives the scalar bytes", "[codec]") {
  for (const std::size_t n : {1, 3, 15, 16, 17, 31, 33, 100, 1000}) {
    const std::vector<float> x = wild_floats(n, static_cast<unsigned>(n));
    std::map<Simd, Buffer> f16, bf16;
    for (const Simd level : levels()) {
      const AtLevel at(level);
      for (auto [to, type] : {std::pair{&f16, DType::F16}, std::pair{&bf16, DType::BF16}}) {
        Buffer odd(1 + 2 * n + 1, std::byte{0xAA});  // begins on an odd byte, one byte to spare
        codec(type).encode(x.data(), odd.data() + 1, n);
        CHECK(odd.back() == std::byte{0xAA});
        std::vector<float> back(n);
        codec(type).decode(odd.data() + 1, back.data(), n);
        append(odd, raw(back));
        (*to)[level] = odd;
      }
      INFO(name_of(level) << " " << n);
      CHECK(f16[level] == f16[Simd::Scalar]);
      CHECK(bf16[level] == bf16[Simd::Scalar]);
      bool below = true;
      for (const float v : x) below = below && std::abs(v) < 65520;
      CHECK(all_below(x.data(), n, 65520) == below);
      CHECK(all_finite(tame_floats(n, 1, 1).data(), n));
    }
  }
}

TEST_CASE("codec: every instruction set gives the scalar blocks and steps", "[codec]") {
  std::vector<std::vector<float>> inputs{wild_floats(32 * 37, 5)};
  for (const float scale : {1e-42f, 1e-38f, 1e-30f, 1e-7f, 0.02f, 30.0f, 1e5f, 1e30f})
    inputs.push_back(tame_floats(32 * 37, 7, scale));
  for (std::size_t i = 0; i < 64; ++i) inputs[3][64 + i] = 0;  // among others, blocks of zeros
  for (std::size_t i = 0; i < 32; ++i) inputs[4][i] = i % 2 == 0 ? -0.25f : 0.25f;
  for (const auto encode : {f32_to_q8_0, f32_to_q4_0})
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      const std::vector<float>& x = inputs[k];
      const std::size_t bytes = x.size() / 32 * (encode == f32_to_q8_0 ? 34 : 18);
      Buffer expected(bytes + x.size() / 32 * 4);
      for (const Simd level : levels()) {
        const AtLevel at(level);
        Buffer got(bytes);
        std::vector<float> steps(x.size() / 32);
        encode(x.data(), got.data(), x.size(), steps.data());
        append(got, raw(steps));
        if (level == Simd::Scalar) expected = got;
        INFO(name_of(level) << " input " << k);
        CHECK(got == expected);
      }
    }
}

TEST_CASE("codec: every instruction set decodes any block to the scalar floats", "[codec]") {
  std::mt19937 random(3);
  for (const DType type : {DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1}) {
    Buffer blocks(checked_size(type, 32 * 999));
    for (std::byte& b : blocks) b = static_cast<std::byte>(random());
    std::vector<float> expected;
    for (const Simd level : levels()) {
      const AtLevel at(level);
      const std::vector<float> got = decoded(type, blocks, 32 * 999);
      if (level == Simd::Scalar) expected = got;
      INFO(name_of(type) << " " << name_of(level));
      CHECK(std::memcmp(got.data(), expected.data(), got.size() * 4) == 0);
    }
  }
}

TEST_CASE("codec: q8_0 rounds halves away from zero and nothing else", "[codec]") {
  // With 127 in the block the scale is 1, so the values are the codes before rounding.
  for (const Simd level : levels()) {
    const AtLevel at(level);
    for (int k = 0; k < 127; ++k) {
      const float half = static_cast<float>(k) + 0.5f;
      std::vector<float> x(32 * 16);
      for (std::size_t b = 0; b < x.size(); b += 32) {
        x[b] = 127;
        x[b + 1] = half;
        x[b + 2] = -half;
        x[b + 3] = std::nextafter(half, 0.0f);
        x[b + 4] = -std::nextafter(half, 0.0f);
        x[b + 5] = std::nextafter(half, kInf);
      }
      const Buffer got = encoded(DType::Q8_0, x);
      CHECK(Buffer(got.begin(), got.begin() + 8) ==
            buffer_of({0x00, 0x3C, 127, k + 1, -(k + 1), k, -k, k + 1}));
    }
  }
}

TEST_CASE("codec: steps mark what cannot be stored", "[codec]") {
  std::vector<float> x(32 * 48, 1.0f);
  x[40] = kNaN;
  x[70] = -kInf;
  x[96] = 1e7f;                                          // 1e7 / 127 is beyond f16
  x[128] = 1e-7f;                                        // the other values of this block are 1
  for (std::size_t i = 160; i < 192; ++i) x[i] = 1e-7f;  // scale 7.9e-10: zero in f16
  for (const Simd level : levels()) {
    const AtLevel at(level);
    std::vector<float> steps(48);
    Buffer out(34 * 48);
    f32_to_q8_0(x.data(), out.data(), x.size(), steps.data());
    CHECK(std::isnan(steps[1]));
    CHECK(std::isnan(steps[2]));
    CHECK(steps[3] == kInf);
    CHECK(steps[0] == Approx(1.0 / 127).epsilon(0.001));
    CHECK(steps[4] == steps[0]);
    CHECK(steps[5] == 1e-7f / 127);
    CHECK(Buffer(out.begin() + 34, out.begin() + 68) == Buffer(34));
  }
}

TEST_CASE("codec: the 8-bit floats have their published values", "[codec]") {
  struct Case {
    DType type;
    int code;
    float value;
  };
  // OCP 8-bit floating point specification, table 2; FNUZ: the same with one more of bias.
  for (const Case& c : std::vector<Case>{{DType::F8_E4M3, 0x01, 0x1p-9f},
                                         {DType::F8_E4M3, 0x07, 0x1.cp-7f},
                                         {DType::F8_E4M3, 0x08, 0x1p-6f},
                                         {DType::F8_E4M3, 0x38, 1},
                                         {DType::F8_E4M3, 0x7E, 448},
                                         {DType::F8_E4M3, 0x7F, kNaN},
                                         {DType::F8_E4M3, 0xFF, kNaN},
                                         {DType::F8_E4M3, 0xFE, -448},
                                         {DType::F8_E5M2, 0x01, 0x1p-16f},
                                         {DType::F8_E5M2, 0x04, 0x1p-14f},
                                         {DType::F8_E5M2, 0x3C, 1},
                                         {DType::F8_E5M2, 0x7B, 57344},
                                         {DType::F8_E5M2, 0x7C, kInf},
                                         {DType::F8_E5M2, 0xFC, -kInf},
                                         {DType::F8_E5M2, 0x7D, kNaN},
                                         {DType::F8_E4M3FNUZ, 0x7F, 240},
                                         {DType::F8_E4M3FNUZ, 0x80, kNaN},
                                         {DType::F8_E4M3FNUZ, 0x01, 0x1p-10f},
                                         {DType::F8_E5M2FNUZ, 0x7F, 57344},
                                         {DType::F8_E5M2FNUZ, 0x80, kNaN},
                                         {DType::F8_E5M2FNUZ, 0x01, 0x1p-17f},
                                         {DType::F8_E8M0, 0, 0x1p-127f},
                                         {DType::F8_E8M0, 1, 0x1p-126f},
                                         {DType::F8_E8M0, 127, 1},
                                         {DType::F8_E8M0, 254, 0x1p127f},
                                         {DType::F8_E8M0, 255, kNaN}}) {
    INFO(name_of(c.type) << " " << c.code);
    const float got = decoded(c.type, buffer_of({c.code}), 1)[0];
    CHECK((std::isnan(c.value) ? std::isnan(got) : got == c.value));
  }
}

TEST_CASE("codec: 8-bit floats round to nearest even between all neighbours", "[codec]") {
  for (const auto& [type, largest, beyond] :
       {std::tuple{DType::F8_E4M3, 0x7Eu, 0x7Fu}, std::tuple{DType::F8_E5M2, 0x7Bu, 0x7Cu},
        std::tuple{DType::F8_E4M3FNUZ, 0x7Fu, 0x80u},
        std::tuple{DType::F8_E5M2FNUZ, 0x7Fu, 0x80u}}) {
    for (unsigned low = 0; low <= largest; ++low) {
      const Buffer codes = buffer_of({static_cast<int>(low), static_cast<int>(low + 1)});
      const std::vector<float> v = decoded(type, codes, 2);
      CHECK(encoded(type, {v[0]})[0] == codes[0]);
      if (low > 0) CHECK(encoded(type, {-v[0]})[0] == (codes[0] | std::byte{0x80}));
      if (low == largest) break;
      const float middle = (v[0] + v[1]) / 2;
      CHECK(encoded(type, {std::nextafter(middle, 0.0f)})[0] == codes[0]);
      CHECK(encoded(type, {middle})[0] == codes[low & 1]);
      CHECK(encoded(type, {std::nextafter(middle, kInf)})[0] == codes[1]);
    }
    for (const float x : {1e6f, kInf})
      CHECK(encoded(type, {x})[0] == static_cast<std::byte>(beyond));
    CHECK(std::isnan(decoded(type, encoded(type, {kNaN}), 1)[0]));
    CHECK(encoded(type, {1e-30f, 1e-45f}) == Buffer(2));
    // too_large is the first float that is encoded beyond the largest.
    const Codec& c = codec(type);
    CHECK(encoded(type, {c.too_large})[0] == static_cast<std::byte>(beyond));
    CHECK(encoded(type, {std::nextafter(c.too_large, 0.0f)})[0] == static_cast<std::byte>(largest));
    CHECK(encoded(type, {c.largest})[0] == static_cast<std::byte>(largest));
  }
  CHECK(codec(DType::F8_E4M3).too_large == std::nextafter(464.0f, kInf));  // 464 is a tie: to 448
  CHECK(codec(DType::F8_E5M2).too_large == 61440);
  CHECK(encoded(DType::F8_E4M3FNUZ, {-0.0f}) == Buffer(1));  // has no -0
}

TEST_CASE("codec: f8_e4m3 agrees with a second implementation on all midpoints", "[codec]") {
  const std::string folder = WTOOL_SOURCE_DIR "/../shared/golden/compressed_tensors/e4m3fn_cast/";
  if (!std::filesystem::exists(folder)) return;
  const auto npy = [&](const char* name) {  // the header takes 128 bytes
    const Buffer b = bytes_of(folder + name);
    return Buffer(b.begin() + 128, b.end());
  };
  std::vector<float> x = floats_of(npy("x_f32.npy"));
  for (float& v : x) v = std::clamp(v, -448.0f, 448.0f);
  CHECK(encoded(DType::F8_E4M3, x) == npy("clamped_e4m3_bytes.npy"));
}

TEST_CASE("codec: the 6- and 4-bit floats have their values and their packing", "[codec]") {
  // OCP microscaling specification, 5.3: magnitudes in order of the codes.
  const std::vector<float> e2m1{0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  Buffer f4;
  for (int i = 0; i < 8; ++i) f4.push_back(static_cast<std::byte>(i << 4 | 8 | (7 - i)));
  const std::vector<float> v = decoded(DType::F4, f4, 16);  // low nibble first
  for (std::size_t i = 0; i < 8; ++i) {
    CHECK(v[2 * i] == -e2m1[7 - i]);
    CHECK(v[2 * i + 1] == e2m1[i]);
  }
  CHECK(encoded(DType::F4, {0.25f, 0.75f, 1.75f, 2.5f, 5, 5.1f, 6.9f, 100}) ==
        buffer_of({0x20, 0x44, 0x76, 0x77}));

  // Codes 1, 2, 3, 63 as a little-endian stream of 6 bits each: 0xFC3081.
  const Buffer f6 = buffer_of({0x81, 0x30, 0xFC});
  CHECK(decoded(DType::F6_E2M3, f6, 4) == std::vector<float>{0.125f, 0.25f, 0.375f, -7.5f});
  CHECK(decoded(DType::F6_E3M2, f6, 4) == std::vector<float>{0.0625f, 0.125f, 0.1875f, -28});
  CHECK(encoded(DType::F6_E2M3, {0.125f, 0.25f, 0.375f, -7.5f}) == f6);
  CHECK(encoded(DType::F6_E3M2, {0.0625f, 0.125f, 0.1875f, -1000}) == f6);
}

namespace {}  // namespace

TEST_CASE("codec: integers and bools read as the nearest float, f64 exactly", "[codec]") {
  Scratch scratch;
  const auto f32 = [&](const Tensor& t) {
    std::vector<float> out(t.elements());
    read_f32(t, t.whole(), out, scratch);
    return out;
  };
  const auto f64 = [&](const Tensor& t) {
    std::vector<double> out(t.elements());
    read_f64(t, t.whole(), out, scratch);
    return out;
  };
  const Memory i64(DType::I64, {3},
                   packed<std::int64_t>({-1, (std::int64_t{1} << 53) - 1, 16777217}));
  CHECK(f32(i64) == std::vector<float>{-1, 0x1p53f, 16777216});
  CHECK(f64(i64) == std::vector<double>{-1, 9007199254740991.0, 16777217});
  const Memory u64(DType::U64, {1}, packed<std::uint64_t>({~std::uint64_t{0}}));
  CHECK(f32(u64) == std::vector<float>{0x1p64f});
  CHECK(f64(u64) == std::vector<double>{0x1p64});
  const Memory i8(DType::I8, {2}, buffer_of({0x80, 0x7F}));
  CHECK(f32(i8) == std::vector<float>{-128, 127});
  CHECK(f64(i8) == std::vector<double>{-128, 127});
  CHECK(f32(Memory(DType::U16, {1}, buffer_of({0xFF, 0xFF}))) == std::vector<float>{65535});
  CHECK(f32(Memory(DType::Bool, {3}, buffer_of({0, 1, 2}))) == std::vector<float>{0, 1, 1});
  const Memory doubles(DType::F64, {3}, packed<double>({0.1, 1e300, -1e-300}));
  CHECK(f32(doubles) == std::vector<float>{0.1f, kInf, -0.0f});
  CHECK(f64(doubles) == std::vector<double>{0.1, 1e300, -1e-300});
}

TEST_CASE("codec: a type without decoder is named in the refusal", "[codec]") {
  CHECK(find_codec(DType::V1) == nullptr);
  CHECK(find_codec(DType::C64) == nullptr);
  CHECK_THROWS_AS(codec(DType::V1), Error);
}

}  // namespace wtool
