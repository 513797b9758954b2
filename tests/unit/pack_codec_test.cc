#include <array>
#include <random>

#include <fmt/format.h>
#include <zstd.h>

#include "lib/pack/codec.h"
#include "tests/catch.h"
#include "tests/simd_levels.h"
#include "tests/unit/fenced.h"
#include "tests/unit/step_run.h"

namespace wtool {
namespace {

using Check = FrameReader::Check;
using How = PackCodec::Kind;
using U16s = std::vector<std::uint16_t>;

Buffer bytes(std::initializer_list<unsigned> values) {
  Buffer out;
  for (const unsigned v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}

std::vector<DType> all_types() {
  std::vector<DType> out;
  for (const DTypeInfo& i : all_dtypes()) out.push_back(i.id);
  return out;
}
// Every codec there is: of a type, its difference to a base, plain bytes.
std::vector<PackCodec> all_codecs() {
  std::vector<PackCodec> out{PackCodec{}};
  for (const DType t : all_types()) {
    std::vector<PackCodec> of_type{codec_for(t)};
    if (auto delta = delta_for(t)) of_type.push_back(*delta);
    for (PackCodec& c : of_type)
      if (std::ranges::find(out, c) == out.end()) out.push_back(std::move(c));
  }
  return out;
}

enum class Fill { Noise, Weights, NaN, Equal, Zero };
constexpr std::array kFills{Fill::Noise, Fill::Weights, Fill::NaN, Fill::Equal, Fill::Zero};
Buffer chunk_of(Fill fill, std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02F);
  Buffer out(n);
  for (std::size_t i = 0; i < n; ++i) {
    unsigned v = static_cast<unsigned>(random()) & 0xFF;
    if (fill == Fill::Weights) {  // f32 of which the last bytes stay
      const auto bits = std::bit_cast<std::uint32_t>(normal(random));
      v = bits >> (8 * (3 - i % 2)) & 0xFF;
      if (i % 2 == 0) v = bits >> 16 & 0xFF;
    }
    if (fill == Fill::NaN) v |= i % 2 == 1 ? 0x7F : 0x80;  // exponents of all ones, any payload
    if (fill == Fill::Equal) v = 0x3F;
    if (fill == Fill::Zero) v = 0;
    out[i] = static_cast<std::byte>(v);
  }
  return out;
}

struct Packed {
  Buffer stored;
  std::vector<FrameSize> sizes;
  // Each plane, by the library alone.
  std::vector<Buffer> planes() const {
    std::vector<Buffer> out;
    std::size_t at = 0;
    for (const FrameSize& s : sizes) {
      Buffer& plane = out.emplace_back(s.content);
      REQUIRE(ZSTD_decompress(plane.data(), plane.size(), &stored[at], s.stored) == s.content);
      at += s.stored;
    }
    REQUIRE(at == stored.size());
    return out;
  }
};
Packed encoded(const PackCodec& codec, const Buffer& chunk, const Buffer& base, Coder coder) {
  Packed out;
  Packer().encode(codec, chunk, codec.needs_base() ? base : Buffer{},
                  std::vector(codec.planes(), coder), out.stored, out.sizes);
  return out;
}
// Frames as someone else might have written them.
Packed framed(const std::vector<Buffer>& planes) {
  Packed out;
  FrameWriter writer;
  for (const Buffer& p : planes) out.sizes.push_back(writer.append(Coder::Raw, p, out.stored));
  return out;
}
Unpacker::Fault decoded(const PackCodec& codec, const Packed& from, Bytes base, std::size_t n,
                        Buffer& out, Check check = Check::Checksum) {
  const Fenced stored(from.stored), room(n);
  const auto fault =
      Unpacker().decode(codec, stored.bytes(), from.sizes, base, check, room.bytes());
  CHECK(room.intact());
  out = room.copy();
  return fault;
}
// The planes are accepted, and are this chunk.
void check_planes(const PackCodec& codec, const Buffer& chunk, const std::vector<Buffer>& planes,
                  const Buffer& base = {}) {
  for (const Coder coder : {Coder::Raw, Coder::Strong})
    CHECK(encoded(codec, chunk, base, coder).planes() == planes);
  Buffer out;
  CHECK_FALSE(decoded(codec, framed(planes), base, chunk.size(), out));
  CHECK(out == chunk);
}
// The planes are refused because of plane number `plane`.
void check_refused(const PackCodec& codec, const std::vector<Buffer>& planes, std::size_t n,
                   std::size_t plane) {
  Buffer out;
  const Buffer base(n);
  const auto fault = decoded(codec, framed(planes), base, n, out);
  CHECK(fault);
  CHECK(fault.frame == plane);
}

}  // namespace

TEST_CASE("pack_codec: bf16 is signs with mantissas, pairs of exponents, and a rest",
          "[pack_codec]") {
  // 1, -2, 0, and a byte: exponents 127, 128 and 0, which is beyond the nibbles' reach.
  Buffer chunk = packed(U16s{0x3F80, 0xC000, 0x0000});
  chunk.push_back(std::byte{0xAB});
  check_planes({How::Bf16, 2}, chunk,
               {bytes({0x00, 0x80, 0x00}), bytes({0x01, 0x0C}), bytes({128, 0, 0xAB})});
}

TEST_CASE("pack_codec: nibbles stand for the twelve exponents in a row that most elements have",
          "[pack_codec]") {
  // Twelve of 50; ten of 100 and nine of 112, which are thirteen apart, both ends counted.
  U16s chunk(12, 50 << 7);
  chunk.insert(chunk.end(), 10, 100 << 7);
  chunk.insert(chunk.end(), 9, 112 << 7);
  Buffer pairs(6, std::byte{0}), rest(1, std::byte{50});
  pairs.insert(pairs.end(), 9, std::byte{0xCC});
  pairs.push_back(std::byte{0x0C});
  rest.insert(rest.end(), 10, std::byte{100});
  rest.insert(rest.end(), 9, std::byte{112});
  check_planes({How::Bf16, 2}, packed(chunk), {Buffer(31), pairs, rest});
}

TEST_CASE("pack_codec: f32 has its lower bytes in planes of their own", "[pack_codec]") {
  // pi, -pi/2 (one less in the exponent), and three bytes
  Buffer chunk = packed(std::vector<std::uint32_t>{0x40490FDB, 0xBFC80EDA});
  append(chunk, Bytes(bytes({1, 2, 3})));
  check_planes({How::F32, 4}, chunk,
               {bytes({0xDB, 0xDA}), bytes({0x0F, 0x0E}), bytes({0x49, 0xC8}), bytes({0x10}),
                bytes({128, 1, 2, 3})});
}

TEST_CASE("pack_codec: columns are taken block by block, what is no block comes last",
          "[pack_codec]") {
  const PackCodec codec{How::Columns, 5, {{{4, 1}, {0, 1}}, {{1, 3}}}};
  REQUIRE_FALSE(fault_in(codec));
  check_planes(codec, bytes({0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 20, 21}),
               {bytes({4, 0, 14, 10}), bytes({1, 2, 3, 11, 12, 13, 20, 21})});
}

TEST_CASE("pack_codec: differences are small ones, then those that are far away", "[pack_codec]") {
  // The next number, from 1 to -1 (z is 0xFE01), the one before; what is no element is as it is.
  Buffer chunk = packed(U16s{0x3F81, 0xBF80, 0x3F7F}), base = packed(U16s{0x3F80, 0x3F80, 0x3F80});
  chunk.push_back(std::byte{0xAB});
  base.push_back(std::byte{0xCD});
  check_planes({How::Delta16, 2}, chunk, {bytes({2, 255, 1}), bytes({0x01}), bytes({0xFE, 0xAB})},
               base);
  // 0x1234 steps up make z 0x2468; from 1 to -1 it is 0xFE000001.
  check_planes({How::Delta32, 4}, packed(std::vector<std::uint32_t>{0x3F801234, 0xBF800000}),
               {bytes({0x68, 0x01}), bytes({0x24, 0}), bytes({0, 255}), bytes({0}), bytes({0xFE})},
               packed(std::vector<std::uint32_t>{0x3F800000, 0x3F800000}));
}

TEST_CASE("pack_codec: every codec gives back every chunk", "[pack_codec]") {
  Packer packer;
  Unpacker unpacker;
  for (const PackCodec& codec : all_codecs()) {
    REQUIRE_FALSE(fault_in(codec));
    REQUIRE(codec.planes() >= 1);
    REQUIRE(codec.planes() <= kMostPlanes);
    std::vector<std::size_t> sizes;
    const std::size_t rests[] = {0, 1, codec.block / std::size_t{2}, codec.block - std::size_t{1}};
    for (std::size_t blocks = 0; blocks <= 3; ++blocks)
      for (const std::size_t rest : rests) sizes.push_back(blocks * codec.block + rest);
    sizes.push_back(100 * codec.block + 1);
    for (const std::size_t n : sizes)
      for (const Fill fill : kFills)
        for (const Coder coder : {Coder::Huffman, Coder::Fast}) {
          INFO(name_of(codec.kind) << " of " << codec.block << ", " << n << " bytes, fill "
                                   << static_cast<int>(fill) << ", " << name_of(coder));
          const Buffer chunk = chunk_of(fill, n, 1), base = chunk_of(Fill::Weights, n, 2);
          Packed p;
          packer.encode(codec, chunk, codec.needs_base() ? base : Buffer{},
                        std::vector(codec.planes(), coder), p.stored, p.sizes);
          REQUIRE(p.sizes.size() == codec.planes());
          Buffer out(n);
          const auto fault = unpacker.decode(codec, p.stored, p.sizes, base, Check::Checksum, out);
          REQUIRE(fault.text.empty());
          REQUIRE(out == chunk);
        }
  }
}

TEST_CASE("pack_codec: chunks beyond 128 KiB are the same at every level, trusted or not",
          "[pack_codec]") {
  // Frames of several blocks, of which the raw ones are read in place, piece by piece.
  for (const PackCodec& codec :
       {PackCodec{}, PackCodec{How::Bf16, 2}, PackCodec{How::F32, 4}, PackCodec{How::Delta16, 2},
        codec_for(DType::F16), codec_for(DType::Q4_0)})
    for (const std::size_t n : {std::size_t{262144}, std::size_t{530'001}, std::size_t{1} << 20})
      for (const Fill fill : {Fill::Noise, Fill::Weights}) {
        INFO(name_of(codec.kind) << ", " << n << " bytes, fill " << static_cast<int>(fill));
        const Buffer chunk = chunk_of(fill, n, 1), base = chunk_of(fill, n, 2);
        const Packed p = encoded(codec, chunk, base, Coder::Huffman);
        for (const Simd level : levels()) {
          const AtLevel at(level);
          CHECK(encoded(codec, chunk, base, Coder::Huffman).stored == p.stored);
          for (const Check check : {Check::Checksum, Check::Trust}) {
            Buffer out;
            const auto fault = decoded(codec, p, base, n, out, check);
            CHECK(fault.text.empty());
            REQUIRE(out == chunk);
          }
        }
      }
}

TEST_CASE("pack_codec: fields of ggml's blocks are where ggml-common.h has them", "[pack_codec]") {
  struct Fields {
    DType type;
    std::uint16_t bytes;
    std::vector<std::uint16_t> scales;  // ggml_half: d, dmin or m
    std::vector<ByteColumn> others;     // arrays, and which are of one kind
  };
  const std::vector<Fields> known{
      {DType::Q4_0, 18, {0}, {{2, 16}}},                            // d, qs
      {DType::Q4_1, 20, {0, 2}, {{4, 16}}},                         // d, m, qs
      {DType::Q5_0, 22, {0}, {{2, 4}, {6, 16}}},                    // d, qh, qs
      {DType::Q5_1, 24, {0, 2}, {{4, 4}, {8, 16}}},                 // d, m, qh, qs
      {DType::Q8_0, 34, {0}, {{2, 32}}},                            // d, qs
      {DType::Q8_1, 36, {0, 2}, {{4, 32}}},                         // d, s, qs
      {DType::Q2_K, 84, {80, 82}, {{0, 16}, {16, 64}}},             // scales, qs, d, dmin
      {DType::Q3_K, 110, {108}, {{0, 32}, {32, 64}, {96, 12}}},     // hmask, qs, scales, d
      {DType::Q4_K, 144, {0, 2}, {{4, 12}, {16, 128}}},             // d, dmin, scales, qs
      {DType::Q5_K, 176, {0, 2}, {{4, 12}, {16, 32}, {48, 128}}},   // d, dmin, scales, qh, qs
      {DType::Q6_K, 210, {208}, {{0, 128}, {128, 64}, {192, 16}}},  // ql, qh, scales, d
      {DType::IQ4_NL, 18, {0}, {{2, 16}}},                          // d, qs
      {DType::IQ4_XS, 136, {0}, {{2, 6}, {8, 128}}},                // d, scales_h, scales_l, qs
      {DType::IQ2_XXS, 66, {0}, {{2, 64}}},                         // d, qs
      {DType::IQ3_XXS, 98, {0}, {{2, 64}, {66, 32}}},               // d, qs: codes, then signs
      {DType::MXFP4, 17, {}, {{0, 1}, {1, 16}}},                    // e, qs
  };
  for (const Fields& f : known) {
    INFO(name_of(f.type));
    const PackCodec codec = codec_for(f.type);
    REQUIRE(codec.kind == How::Columns);
    CHECK(codec.block == f.bytes);
    // Of each byte, which plane it is in; scales are apart from all else, high bytes from low.
    const auto plane_of = [&](std::size_t byte) {
      for (std::size_t p = 0; p < codec.columns.size(); ++p)
        for (const ByteColumn& c : codec.columns[p])
          if (byte >= c.offset && byte < std::size_t{c.offset} + c.length) return p;
      return kMostPlanes;
    };
    const std::size_t first = f.scales.empty() ? 0 : 2;
    for (const std::uint16_t at : f.scales) {
      CHECK(plane_of(at) == 1);  // little-endian
      CHECK(plane_of(at + 1u) == 0);
    }
    CHECK(codec.planes() == first + f.others.size());
    std::vector<bool> taken(kMostPlanes);
    for (const ByteColumn& c : f.others) {
      const std::size_t plane = plane_of(c.offset);
      CHECK(plane >= first);
      CHECK_FALSE(taken[plane]);
      taken[plane] = true;
      for (std::size_t i = 0; i < c.length; ++i) CHECK(plane_of(c.offset + i) == plane);
    }
  }
}

TEST_CASE("pack_codec: numbers of several bytes are planes of them, others plain bytes",
          "[pack_codec]") {
  CHECK(codec_for(DType::BF16).kind == How::Bf16);
  CHECK(codec_for(DType::F32).kind == How::F32);
  CHECK(codec_for(DType::C64) == codec_for(DType::F32));  // two of them
  for (const auto& [type, width] : {std::pair{DType::F16, 2u},
                                    {DType::I16, 2u},
                                    {DType::U16, 2u},
                                    {DType::I32, 4u},
                                    {DType::U32, 4u},
                                    {DType::F64, 8u},
                                    {DType::I64, 8u},
                                    {DType::U64, 8u},
                                    {DType::C128, 8u}}) {
    const PackCodec codec = codec_for(type);
    CHECK(codec.kind == How::Columns);
    CHECK(codec.block == width);
    REQUIRE(codec.planes() == width);
    for (std::uint16_t i = 0; i < width; ++i)
      CHECK(codec.columns[i] == std::vector<ByteColumn>{{i, 1}});
  }
  for (const DType type : {DType::Bool, DType::U8, DType::I8, DType::F8_E4M3, DType::F8_E5M2,
                           DType::F8_E8M0, DType::F4, DType::V1})
    CHECK(codec_for(type) == PackCodec{});
  CHECK(delta_for(DType::BF16) == PackCodec{How::Delta16, 2});
  CHECK(delta_for(DType::F16) == PackCodec{How::Delta16, 2});
  CHECK(delta_for(DType::F32) == PackCodec{How::Delta32, 4});
  for (const DType type : {DType::F64, DType::I8, DType::Q4_0, DType::F8_E4M3})
    CHECK_FALSE(delta_for(type));
}

TEST_CASE("pack_codec: chunks are whole blocks, as many as a MiB has room for", "[pack_codec]") {
  CHECK(PackCodec{}.chunk_bytes() == 1048576);
  CHECK(codec_for(DType::BF16).chunk_bytes() == 1048576);
  CHECK(codec_for(DType::Q8_0).chunk_bytes() == 1048560);  // 30840 blocks of 34
  CHECK(codec_for(DType::Q2_K).chunk_bytes() == 1048572);  // 12483 of 84
}

TEST_CASE("pack_codec: names lead to kinds and back", "[pack_codec]") {
  for (const auto& [kind, name] : {std::pair{How::Plain, "bytes"},
                                   {How::Bf16, "bf16"},
                                   {How::F32, "f32"},
                                   {How::Columns, "columns"},
                                   {How::Delta16, "delta16"},
                                   {How::Delta32, "delta32"}}) {
    CHECK(name_of(kind) == name);
    CHECK(parse_codec_kind(name) == kind);
  }
  for (const char* name : {"", "BF16", "bf16 ", "plain", "xor"})
    CHECK_FALSE(parse_codec_kind(name));
}

TEST_CASE("pack_codec: columns that are no partition of the block are refused", "[pack_codec]") {
  using Columns = std::vector<std::vector<ByteColumn>>;
  const auto why = [](std::uint16_t block, const Columns& columns) {
    return fault_in({How::Columns, block, columns}).value_or("");
  };
  CHECK_THAT(why(0, {{{0, 1}}}), Catch::Contains("blocks of 0 bytes"));
  CHECK_THAT(why(1025, {{{0, 1025}}}), Catch::Contains("blocks of 1025 bytes"));
  CHECK_THAT(why(2, {}), Catch::Contains("0 planes"));
  CHECK_THAT(why(9, Columns{{{0, 1}},
                            {{1, 1}},
                            {{2, 1}},
                            {{3, 1}},
                            {{4, 1}},
                            {{5, 1}},
                            {{6, 1}},
                            {{7, 1}},
                            {{8, 1}}}),
             Catch::Contains("9 planes"));
  CHECK_THAT(why(2, Columns{{{0, 2}}, {}}), Catch::Contains("without columns"));
  CHECK_THAT(why(2, {{{0, 0}, {0, 2}}}), Catch::Contains("0 bytes at 0"));
  CHECK_THAT(why(2, {{{0, 3}}}), Catch::Contains("3 bytes at 0 in a block of 2"));
  CHECK_THAT(why(2, {{{1, 2}}}), Catch::Contains("2 bytes at 1"));
  CHECK_THAT(why(2, {{{65535, 65535}}}), Catch::Contains("65535 bytes at 65535"));
  CHECK_THAT(why(3, {{{0, 2}, {1, 2}}}), Catch::Contains("byte 1 of the block is in two"));
  CHECK_THAT(why(3, Columns{{{0, 3}}, {{2, 1}}}), Catch::Contains("byte 2 of the block is in two"));
  CHECK_THAT(why(3, Columns{{{0, 1}}, {{2, 1}}}), Catch::Contains("columns of 2 bytes"));
  CHECK(why(1024, {{{0, 1024}}}).empty());
  CHECK(why(3, Columns{{{2, 1}}, {{0, 2}}}).empty());
  CHECK_FALSE(fault_in({How::Bf16, 2}));
}

TEST_CASE("pack_codec: planes of another size, or with another number of exponents, are refused",
          "[pack_codec]") {
  const PackCodec bf16{How::Bf16, 2};
  const Buffer sm = bytes({0, 0x80, 0}), pairs = bytes({0x01, 0x0C}), rest = bytes({128, 0});
  Buffer out;
  REQUIRE_FALSE(decoded(bf16, framed({sm, pairs, rest}), {}, 6, out));
  check_refused(bf16, {bytes({1, 2}), pairs, rest}, 6, 0);
  check_refused(bf16, {bytes({1, 2, 3, 4}), pairs, rest}, 6, 0);
  check_refused(bf16, {sm, bytes({1}), rest}, 6, 1);
  check_refused(bf16, {sm, bytes({1, 2, 3}), rest}, 6, 1);
  check_refused(bf16, {sm, pairs, {}}, 6, 2);
  check_refused(bf16, {sm, pairs, bytes({128})}, 6, 2);              // an escape is missing
  check_refused(bf16, {sm, pairs, bytes({128, 0, 0})}, 6, 2);        // one too many
  check_refused(bf16, {sm, pairs, bytes({128, 0, 0, 0, 0})}, 6, 2);  // more than elements
  check_refused(bf16, {sm, pairs, bytes({128, 0})}, 7, 2);           // nothing for the odd byte
  check_refused({How::F32, 4}, {bytes({0}), bytes({0}), bytes({0, 0}), bytes({0}), bytes({1})}, 4,
                2);
  const PackCodec delta{How::Delta16, 2};
  REQUIRE_FALSE(
      decoded(delta, framed({bytes({255}), bytes({1}), bytes({1, 2})}), Buffer(3), 3, out));
  check_refused(delta, {bytes({255, 0}), bytes({1}), bytes({1, 2})}, 3, 0);
  check_refused(delta, {bytes({255}), bytes({1, 1}), bytes({1, 1, 2})}, 3,
                1);  // more than elements
  check_refused(delta, {bytes({255}), bytes({1}), bytes({1})}, 3, 2);
  check_refused(delta, {bytes({255}), bytes({1}), bytes({1, 2, 3})}, 3, 2);
  check_refused(delta, {bytes({255}), {}, bytes({2})}, 3, 2);             // one is missing
  check_refused(delta, {bytes({254}), bytes({1}), bytes({1, 2})}, 3, 2);  // one too many
  check_refused({}, {bytes({1, 2})}, 3, 0);
  check_refused({}, {bytes({1, 2, 3, 4})}, 3, 0);
  check_refused(codec_for(DType::MXFP4), {bytes({1, 2}), Buffer(17)}, 18, 0);
  check_refused(codec_for(DType::MXFP4), {bytes({1}), Buffer(16)}, 18, 1);
}

TEST_CASE("pack_codec: sizes that are not the frames' are refused", "[pack_codec]") {
  const PackCodec bf16{How::Bf16, 2};
  const Buffer chunk = chunk_of(Fill::Weights, 600, 1);
  const Packed sound = encoded(bf16, chunk, {}, Coder::Huffman);
  Buffer out;
  for (std::size_t frame = 0; frame < 3; ++frame) {
    // Lengths that give a byte to the neighbour, contents of one more or less.
    if (frame > 0) {
      Packed moved = sound;
      ++moved.sizes[frame - 1].stored;
      --moved.sizes[frame].stored;
      CHECK(decoded(bf16, moved, {}, 600, out).frame == frame - 1);
    }
    for (const std::uint32_t content :
         {0u, sound.sizes[frame].content - 1, sound.sizes[frame].content + 1, 0xFFFFFFFFu}) {
      Packed lies = sound;
      lies.sizes[frame].content = content;
      const auto fault = decoded(bf16, lies, {}, 600, out);
      CHECK(fault);
      CHECK(fault.frame == frame);
      // Before anybody makes room for it.
      if (content > 601) CHECK_THAT(fault.text, Catch::Contains("holds 4294967295 bytes, not "));
    }
    Packed damaged = sound;
    std::size_t last = 0;
    for (std::size_t i = 0; i <= frame; ++i) last += sound.sizes[i].stored;
    damaged.stored[last - 1] ^= std::byte{1};
    CHECK(decoded(bf16, damaged, {}, 600, out).frame == frame);
  }
  for (const PackCodec& codec : {PackCodec{}, codec_for(DType::Q8_0)}) {
    const Packed good = encoded(codec, chunk, {}, Coder::Huffman);
    for (std::size_t frame = 0; frame < good.sizes.size(); ++frame) {
      Packed lies = good;
      ++lies.sizes[frame].content;
      CHECK_THAT(decoded(codec, lies, {}, 600, out).text,
                 Catch::Contains(fmt::format("holds {} bytes, not {}", lies.sizes[frame].content,
                                             good.sizes[frame].content)));
    }
  }
}

}  // namespace wtool
