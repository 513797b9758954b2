#include <bit>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/ggml.h"
#include "lib/trust/digest.h"
#include "tests/catch.h"
#include "tests/simd_levels.h"
#include "tests/unit/golden.h"

namespace wtool {
namespace {

// From "q2_K.f32" to what sha256sum printed before it.
std::map<std::string, Sha256> golden_digests() {
  std::map<std::string, Sha256> out;
  std::ifstream in(WTOOL_SOURCE_DIR "/testdata/ggml/decoded.sha256");
  for (std::string hex, name; in >> hex >> name;)
    out[name.substr(0, name.find('.'))] = parse_sha256(hex).value();
  return out;
}
std::vector<DType> block_types() {
  std::vector<DType> out;
  for (const DTypeInfo& t : all_dtypes())
    if (t.kind == Kind::Block) out.push_back(t.id);
  return out;
}

// Bit for bit, in memory of exactly the right size.
std::vector<std::uint32_t> decoded(DType type, Bytes in, Simd level) {
  const AtLevel at(level);
  const DTypeInfo& t = info(type);
  const std::size_t n = in.size() / t.block_bytes * t.block_elems;
  const auto exact = std::make_unique<std::byte[]>(in.size());
  std::copy(in.begin(), in.end(), exact.get());
  std::vector<float> out(n, -1);
  codec(type).decode(exact.get(), out.data(), n);
  std::vector<std::uint32_t> bits(n);
  std::memcpy(bits.data(), out.data(), 4 * n);
  return bits;
}
std::vector<float> floats(DType type, Bytes in, Simd level) {
  const auto bits = decoded(type, in, level);
  std::vector<float> out(bits.size());
  std::memcpy(out.data(), bits.data(), 4 * bits.size());
  return out;
}

// Random bytes; in some blocks every second word is what f16 and f32 find special.
Buffer wild_blocks(DType type, std::size_t blocks, std::mt19937& random) {
  static constexpr std::uint16_t kSpecial[] = {0x7C00, 0xFC00, 0x7E01, 0xFE02, 0x7D03, 0xFD04,
                                               0,      0x8000, 1,      0x83FF, 0x7BFF, 0x7FFF};
  const std::size_t size = info(type).block_bytes;
  Buffer out(blocks * size);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  for (std::size_t b = 0; b < blocks; ++b)
    for (std::size_t at = 0; b % 3 == 0 && at + 2 <= size; at += 2)
      if (random() % 2 == 0) std::memcpy(&out[b * size + at], &kSpecial[random() % 12], 2);
  return out;
}

void put_f16(Buffer& block, std::size_t at, std::uint16_t bits) {
  std::memcpy(&block[at], &bits, 2);
}
Buffer zeros(DType type) {
  return Buffer(info(type).block_bytes);
}

}  // namespace

TEST_CASE("ggml decode: every type gives the library's floats at every level", "[ggml_decode]") {
  const auto digests = golden_digests();
  std::size_t seen = 0;
  for (const DType type : block_types()) {
    if (type == DType::Q8_1 || type == DType::Q8_K) continue;  // the library decodes neither
    const std::string name = golden_name(type);
    INFO(name);
    const Buffer blocks = golden(name + ".bin");
    REQUIRE(digests.contains(name));
    for (const Simd level : levels()) {
      INFO(name_of(level));
      const auto values = decoded(type, blocks, level);
      CHECK(values.size() == 64 * 512);
      CHECK(sha256(std::as_bytes(std::span(values))) == digests.at(name));
    }
    ++seen;
  }
  CHECK(seen == digests.size() - 2);  // f16 and bf16 have no blocks
}

TEST_CASE("ggml decode: any bytes give the reference's floats at every level", "[ggml_decode]") {
  std::mt19937 random(20);
  for (const DType type : block_types())
    for (const std::size_t blocks : {1, 2, 3, 5, 8, 17, 100}) {
      const Buffer in = wild_blocks(type, blocks, random);
      const auto expected = decoded(type, in, Simd::Scalar);
      for (const Simd level : levels()) {
        INFO(name_of(type) << " x " << blocks << " at " << name_of(level));
        CHECK(decoded(type, in, level) == expected);
      }
    }
}

TEST_CASE("ggml decode: nothing is written for no blocks, nor after the last", "[ggml_decode]") {
  std::mt19937 random(21);
  for (const DType type : block_types())
    for (const Simd level : levels()) {
      const AtLevel at(level);
      const Buffer in = wild_blocks(type, 3, random);
      const std::size_t n = 3 * info(type).block_elems;
      std::vector<float> out(n + 16, 7.0f);
      codec(type).decode(in.data(), out.data(), 0);
      CHECK(out == std::vector<float>(n + 16, 7.0f));
      codec(type).decode(in.data(), out.data(), n);
      INFO(name_of(type) << " at " << name_of(level));
      CHECK(std::vector<float>(out.end() - 16, out.end()) == std::vector<float>(16, 7.0f));
    }
}

TEST_CASE("ggml decode: the internal types of products are d times q", "[ggml_decode]") {
  for (const Simd level : levels()) {
    Buffer q8_1 = zeros(DType::Q8_1);
    put_f16(q8_1, 0, 0x3800);  // 0.5
    put_f16(q8_1, 2, 0x7C00);  // the sum is not looked at
    q8_1[4] = std::byte{0x80};
    q8_1[35] = std::byte{127};
    const auto a = floats(DType::Q8_1, q8_1, level);
    CHECK(a[0] == -64.0f);
    CHECK(a[1] == 0.0f);
    CHECK(a[31] == 63.5f);

    Buffer q8_k = zeros(DType::Q8_K);
    const float d = 0x1.8p-20f;
    std::memcpy(q8_k.data(), &d, 4);
    q8_k[4] = std::byte{2};
    q8_k[259] = std::byte{0xFF};
    const auto b = floats(DType::Q8_K, q8_k, level);
    CHECK(b[0] == 0x1.8p-19f);
    CHECK(b[255] == -0x1.8p-20f);
  }
}

TEST_CASE("ggml decode: scales at the ends of their range have the library's values",
          "[ggml_decode]") {
  struct Scale {
    int code;
    float value;  // of code 2, which is 1
  };
  for (const Simd level : levels()) {
    for (const Scale s : {Scale{0, 0x1p-127f}, Scale{1, 0x1p-126f}, Scale{2, 0x1p-125f},
                          Scale{127, 1.0f}, Scale{254, 0x1p127f}}) {
      Buffer block = zeros(DType::MXFP4);
      block[0] = static_cast<std::byte>(s.code);
      block[1] = std::byte{0x82};  // 1 and, 16 elements on, the code of -0
      const auto out = floats(DType::MXFP4, block, level);
      CHECK(out[0] == s.value);
      CHECK(std::bit_cast<std::uint32_t>(out[16]) == 0);
    }
    Buffer block = zeros(DType::MXFP4);
    block[0] = std::byte{255};
    block[1] = std::byte{0x11};
    CHECK(floats(DType::MXFP4, block, level)[0] == 0x1p127f);  // no NaN: half of 2^128

    for (const Scale s : {Scale{0, 0.0f}, Scale{1, 0x1p-9f}, Scale{7, 0x1.Cp-7f}, Scale{8, 0x1p-6f},
                          Scale{0x38, 1.0f}, Scale{0x7E, 448.0f}, Scale{0x7F, 0.0f},
                          Scale{0x80, 0.0f}, Scale{0xB8, 1.0f}, Scale{0xFF, 480.0f}}) {
      Buffer nv = zeros(DType::NVFP4);
      nv[3] = static_cast<std::byte>(s.code);
      nv[28] = std::byte{0x20};  // group 3, element 8
      CHECK(floats(DType::NVFP4, nv, level)[56] == s.value);
    }
  }
}

TEST_CASE("ggml decode: one bit is a sign", "[ggml_decode]") {
  Buffer block = zeros(DType::Q1_0);
  put_f16(block, 0, 0xC000);  // -2
  block[2] = std::byte{0x05};
  block[17] = std::byte{0x80};
  for (const Simd level : levels()) {
    const auto out = floats(DType::Q1_0, block, level);
    CHECK(out[0] == -2.0f);
    CHECK(out[1] == 2.0f);
    CHECK(out[2] == -2.0f);
    CHECK(out[126] == 2.0f);
    CHECK(out[127] == -2.0f);
  }
}

}  // namespace wtool
