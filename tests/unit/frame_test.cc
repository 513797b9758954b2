#include "lib/pack/frame.h"

#include <array>
#include <random>

#include <zstd.h>

#include "lib/base/error.h"
#include "lib/pack/xxhash64.h"
#include "tests/catch.h"
#include "tests/unit/fenced.h"
#include "tests/unit/golden.h"

namespace wtool {
namespace {

using Check = FrameReader::Check;
constexpr std::array kCoders{Coder::Raw, Coder::Huffman, Coder::Fast, Coder::Strong};
constexpr std::size_t kPiece = std::size_t{128} << 10;

Buffer bytes(std::initializer_list<unsigned> values) {
  Buffer out;
  for (const unsigned v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}
// What has no order; exponents of weights (a few values, no repetitions); text-like; mostly zero.
Buffer content(std::string_view kind, std::size_t n) {
  std::mt19937 random(static_cast<unsigned>(n) + 1);
  Buffer out(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto r = static_cast<unsigned>(random());
    unsigned v = r & 0xFF;
    if (kind == "exponents") v = static_cast<unsigned>(std::countr_zero(r | 0x800));
    if (kind == "text") v = static_cast<unsigned>("weights, "[i % 9]);
    if (kind == "sparse") v = r % 64 == 0 ? r >> 24 : 0;
    out[i] = static_cast<std::byte>(v);
  }
  return out;
}
constexpr std::array<std::string_view, 4> kKinds{"noise", "exponents", "text", "sparse"};

Buffer frame_of(Coder coder, const Buffer& from) {
  Buffer out;
  FrameWriter().append(coder, from, out);
  return out;
}
// By the library alone.
Buffer zstd_decodes(Bytes frame) {
  const unsigned long long n = ZSTD_getFrameContentSize(frame.data(), frame.size());
  REQUIRE(n < (1u << 30));  // the errors are the largest numbers
  Buffer out(static_cast<std::size_t>(n));
  const std::size_t got = ZSTD_decompress(out.data(), out.size(), frame.data(), frame.size());
  INFO(ZSTD_getErrorName(got));
  REQUIRE(got == n);
  return out;
}

// What a frame gives, through both ways of reading, which must be of one mind; and neither writes
// beyond the room it has.
struct Decoded {
  std::string fault;
  Buffer content;
};
Decoded decoded(Bytes frame, std::size_t size, Check check = Check::Checksum) {
  FrameReader reader;
  const Fenced in(frame), out(size), room(size);
  Decoded d{reader.decode(in.bytes(), out.bytes(), check), out.copy()};
  FrameView view;
  const std::string fault = reader.decode(in.bytes(), room.bytes(), check, view);
  CHECK(fault.empty() == d.fault.empty());
  CHECK((out.intact() && room.intact()));
  if (!d.fault.empty() || !fault.empty()) return d;
  Buffer pieces;
  for (std::size_t at = 0; at < size; at += kPiece)
    append(pieces, Bytes(view.piece(at / kPiece), std::min(kPiece, size - at)));
  CHECK(pieces == d.content);
  return d;
}
bool refused(Bytes frame, std::size_t size, Check check = Check::Checksum) {
  return !decoded(frame, size, check).fault.empty();
}

}  // namespace

TEST_CASE("frame: without compression it is what RFC 8878 says, byte by byte", "[frame]") {
  // Magic number, one segment with a size of four bytes and a checksum, the size, a last raw block,
  // the checksum: XXH64 of nothing is 0xEF46DB3751D8E999, of "abc" 0x44BC2CF5AD770999.
  Buffer out = bytes({0xEE});
  const FrameSize none = FrameWriter().append(Coder::Raw, {}, out);
  CHECK(out ==
        bytes({0xEE, 0x28, 0xB5, 0x2F, 0xFD, 0xA4, 0, 0, 0, 0, 1, 0, 0, 0x99, 0xE9, 0xD8, 0x51}));
  CHECK((none.stored == 16 && none.content == 0 && none.checksum == 0x51D8E999));

  const Buffer abc = to_buffer("abc");
  const Buffer frame = frame_of(Coder::Raw, abc);
  CHECK(frame == bytes({0x28, 0xB5, 0x2F, 0xFD, 0xA4, 3, 0, 0, 0, 0x19, 0, 0, 'a', 'b', 'c', 0x99,
                        0x09, 0x77, 0xAD}));
  // What is this short is never worth coding.
  for (const Coder coder : kCoders) CHECK(frame_of(coder, abc) == frame);
  Buffer any;
  append_raw_frame(abc, any);
  CHECK(any == frame);
  const FrameSize said = raw_frame_size(frame);
  CHECK((said.stored == frame.size() && said.content == 3 && said.checksum == 0xAD770999));
}

TEST_CASE("frame: one of equal bytes is a few bytes long", "[frame]") {
  for (const std::size_t n : {33, 1000, 131072, 131073, 4 << 20})
    for (const Coder coder : kCoders) {
      const Buffer sevens(n, std::byte{7});
      const Buffer frame = frame_of(coder, sevens);
      CHECK(frame.size() == 9 + 4 * ((n + kPiece - 1) / kPiece) + 4);
      CHECK(zstd_decodes(frame) == sevens);
      CHECK(decoded(frame, n).content == sevens);
    }
  // Block heads: not the last, repeated, 0x20000 bytes; then the last, of one.
  const Buffer frame = frame_of(Coder::Raw, Buffer(131073, std::byte{7}));
  CHECK(Buffer(frame.begin() + 9, frame.begin() + 17) ==
        bytes({0x02, 0x00, 0x10, 7, 0x0B, 0x00, 0x00, 7}));
}

TEST_CASE("frame: every size and coder gives a frame that zstd itself decodes", "[frame]") {
  FrameWriter writer;
  for (const std::size_t n :
       {std::size_t{0}, std::size_t{1}, std::size_t{31}, std::size_t{32}, std::size_t{33},
        std::size_t{1000}, kPiece - 1, kPiece, kPiece + 1, 2 * kPiece + 17, kMostFrameBytes})
    for (const std::string_view kind : kKinds) {
      const Buffer in = content(kind, n);
      for (const Coder coder : kCoders) {
        INFO(kind << ", " << n << " bytes, " << name_of(coder));
        Buffer out = bytes({1, 2, 3});
        const FrameSize size = writer.append(coder, in, out);
        REQUIRE(Buffer(out.begin(), out.begin() + 3) == bytes({1, 2, 3}));
        const Buffer frame(out.begin() + 3, out.end());
        CHECK(size.stored == frame.size());
        CHECK(size.content == n);
        CHECK(size.checksum == load<std::uint32_t>(Bytes(frame).last(4)));
        CHECK(frame.size() <= 9 + 3 * std::max<std::size_t>(1, (n + kPiece - 1) / kPiece) + n + 4);
        REQUIRE(zstd_decodes(frame) == in);
        for (const Check check : {Check::Checksum, Check::Trust}) {
          const Decoded d = decoded(frame, n, check);
          CHECK(d.fault.empty());
          REQUIRE(d.content == in);
        }
        if (n <= kPiece + 1) CHECK(frame_of(coder, in) == frame);  // a writer remembers nothing
      }
    }
}

TEST_CASE("frame: each coder does what it is for", "[frame]") {
  const std::size_t n = 100'000;
  // Exponents: entropy a little under two bits. Searching makes it no better than counting.
  const Buffer exponents = content("exponents", n);
  CHECK(frame_of(Coder::Huffman, exponents).size() < n * 26 / 100);
  CHECK(frame_of(Coder::Raw, exponents).size() == n + 9 + 3 + 4);
  // Eight letters in a row that repeats: 26 bits for nine of them, or next to nothing.
  const Buffer text = content("text", n);
  CHECK(frame_of(Coder::Huffman, text).size() > n / 4);
  CHECK(frame_of(Coder::Fast, text).size() < n / 100);
  CHECK(frame_of(Coder::Strong, text).size() < n / 100);
  // Noise stays as it is.
  for (const Coder coder : kCoders)
    CHECK(frame_of(coder, content("noise", n)) == frame_of(Coder::Raw, content("noise", n)));
}

TEST_CASE("frame: those that the zstd program has written are read", "[frame]") {
  const auto file = [](const std::string& name) {
    return bytes_of(WTOOL_SOURCE_DIR "/testdata/zstd/" + name);
  };
  Buffer expected;
  for (unsigned i = 0; i < 3000; ++i)
    expected.push_back(static_cast<std::byte>((i * i >> 7) & 0x1F));
  for (const std::string name : {"level1.zst", "level19.zst", "streamed.zst"}) {
    INFO(name);
    const Decoded d = decoded(file(name), 3000);
    CHECK(d.fault.empty());
    CHECK(d.content == expected);
    CHECK(refused(file(name), 2999));
    CHECK(refused(file(name), 3001));
  }
  CHECK(decoded(file("repeated.zst"), 300'000).content == Buffer(300'000, std::byte{7}));
  CHECK(decoded(file("empty.zst"), 0).fault.empty());
  // What cannot be checked is only for those who check otherwise.
  CHECK(refused(file("unchecked.zst"), 3000));
  CHECK(decoded(file("unchecked.zst"), 3000, Check::Trust).content == expected);
}

TEST_CASE("frame: a byte changed anywhere is noticed, or changes nothing", "[frame]") {
  for (const std::string_view kind : kKinds)
    for (const Coder coder : kCoders)
      for (const std::size_t n : {0, 1, 700}) {
        const Buffer in = content(kind, n);
        Buffer frame = frame_of(coder, in);
        const bool raw = frame == frame_of(Coder::Raw, in);
        for (std::size_t i = 0; i < frame.size(); ++i)
          for (const std::byte flip : {std::byte{0xFF}, std::byte{0x10}, std::byte{0x01}}) {
            INFO(kind << ", " << name_of(coder) << ", " << n << " bytes, byte " << i);
            frame[i] ^= flip;
            const Decoded d = decoded(frame, n);
            frame[i] ^= flip;
            if (!d.fault.empty()) continue;
            // Of what is coded there are bits that nobody looks at, as bit 4 of the fifth byte.
            REQUIRE(((!raw || (i == 4 && flip == std::byte{0x10})) && d.content == in));
          }
      }
  Buffer frame = frame_of(Coder::Raw, content("noise", 3 * kPiece - 5));
  for (std::size_t i = 0; i<frame.size(); i += i> 30 ? 9973 : 1) {
    frame[i] ^= std::byte{0x81};
    REQUIRE(refused(frame, 3 * kPiece - 5));
    frame[i] ^= std::byte{0x81};
  }
}

TEST_CASE("frame: cut off anywhere, or with something behind it, it is refused", "[frame]") {
  for (const Coder coder : {Coder::Raw, Coder::Huffman, Coder::Strong}) {
    const Buffer frame = frame_of(coder, content("sparse", 3000));
    for (const Check check : {Check::Checksum, Check::Trust}) {
      for (std::size_t n = 0; n < frame.size(); ++n)
        REQUIRE(refused(Bytes(frame).first(n), 3000, check));
      Buffer more = frame;
      more.push_back(std::byte{0});
      CHECK(refused(more, 3000, check));
    }
  }
}

TEST_CASE("frame: two of them, or one to be passed over, are not one", "[frame]") {
  const Buffer one = frame_of(Coder::Strong, content("text", 500));
  const Buffer none = frame_of(Coder::Raw, {});
  Buffer skippable;
  append_skippable(7, as_bytes("index"), skippable);
  CHECK(skippable == bytes({0x57, 0x2A, 0x4D, 0x18, 5, 0, 0, 0, 'i', 'n', 'd', 'e', 'x'}));
  const auto both = [](Buffer a, const Buffer& b) {
    append(a, Bytes(b));
    return a;
  };
  for (const Check check : {Check::Checksum, Check::Trust}) {
    CHECK(refused(both(one, one), 500, check));
    CHECK(refused(both(one, one), 1000, check));
    CHECK(refused(both(one, none), 500, check));
    CHECK(refused(both(none, one), 500, check));
    CHECK(refused(skippable, 0, check));
    CHECK(refused(skippable, 5, check));
    CHECK(refused(both(skippable, one), 500, check));
    CHECK(refused(both(one, skippable), 500, check));
  }
}

TEST_CASE("frame: forms of before RFC 8878 are refused, though the library knows them", "[frame]") {
  // Version 0.7: its magic number, one segment of three bytes, a raw block, an end.
  const Buffer old =
      bytes({0x27, 0xB5, 0x2F, 0xFD, 0x20, 3, 0x40, 0, 3, 'a', 'b', 'c', 0xC0, 0, 0});
  CHECK(refused(old, 3));
  CHECK(refused(old, 3, Check::Trust));
}

TEST_CASE("frame: one that claims more than there is room for writes nothing beyond", "[frame]") {
  // Four bytes of size, all set, and one raw block of three bytes; a size of eight bytes; a
  // repeated block of 128 KiB in a frame of three bytes.
  const Buffer four = bytes({0x28, 0xB5, 0x2F, 0xFD, 0xA4, 0xFF, 0xFF, 0xFF, 0xFF, 0x19, 0, 0, 'a',
                             'b', 'c', 0x99, 0x09, 0x77, 0xAD});
  const Buffer eight =
      bytes({0x28, 0xB5, 0x2F, 0xFD, 0xE4, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
             0x7F, 0x19, 0,    0,    'a',  'b',  'c',  0x99, 0x09, 0x77, 0xAD});
  const Buffer lies = bytes(
      {0x28, 0xB5, 0x2F, 0xFD, 0xA4, 3, 0, 0, 0, 0x03, 0x00, 0x10, 'a', 0x99, 0x09, 0x77, 0xAD});
  // A window of 2^41 bytes: never asked for, since nothing is kept.
  const Buffer window = bytes(
      {0x28, 0xB5, 0x2F, 0xFD, 0x04, 0xF8, 0x19, 0, 0, 'a', 'b', 'c', 0x99, 0x09, 0x77, 0xAD});
  // A dictionary, which nobody has.
  const Buffer dictionary = bytes(
      {0x28, 0xB5, 0x2F, 0xFD, 0x25, 9, 3, 0x19, 0, 0, 'a', 'b', 'c', 0x99, 0x09, 0x77, 0xAD});
  for (const Check check : {Check::Checksum, Check::Trust})
    for (const Buffer& frame : {four, eight, lies, window, dictionary})
      for (const std::size_t room : {0, 1, 3, 4, 100'000}) CHECK(refused(frame, room, check));
  // Sound frames in rooms of another size.
  for (const Coder coder : kCoders)
    for (const std::string_view kind : kKinds) {
      const Buffer frame = frame_of(coder, content(kind, 5000));
      for (const std::size_t room : {0, 1, 100, 4999, 5001, 70'000}) {
        CHECK(refused(frame, room));
        CHECK(refused(frame, room, Check::Trust));
      }
    }
}

TEST_CASE("frame: what trusts reads on where a checksum alone is wrong", "[frame]") {
  for (const Coder coder : kCoders) {
    const Buffer in = content("exponents", 3000);
    Buffer frame = frame_of(coder, in);
    frame.back() ^= std::byte{1};
    CHECK(refused(frame, 3000));
    CHECK(decoded(frame, 3000, Check::Trust).content == in);
  }
}

TEST_CASE("frame: what is not coded is read in its place", "[frame]") {
  const Buffer in = content("noise", 2 * kPiece + 100);
  const Buffer frame = frame_of(Coder::Raw, in);
  Buffer room(in.size());
  FrameView view;
  FrameReader reader;
  REQUIRE(reader.decode(frame, room, Check::Checksum, view).empty());
  CHECK(view.gap == 3);
  CHECK(view.first == frame.data() + 12);
  CHECK(view.piece(2) == frame.data() + 9 + 2 * (3 + kPiece) + 3);
  const Buffer coded = frame_of(Coder::Huffman, content("exponents", in.size()));
  REQUIRE(reader.decode(coded, room, Check::Checksum, view).empty());
  CHECK(view.gap == 0);
  CHECK(view.first == room.data());
}

TEST_CASE("frame: more than the largest frame is refused, but not of raw ones", "[frame]") {
  Buffer out;
  CHECK_THROWS_AS(FrameWriter().append(Coder::Raw, Buffer(kMostFrameBytes + 1), out), Error);
  const Buffer large = content("noise", kMostFrameBytes + 1);
  append_raw_frame(large, out);
  CHECK(zstd_decodes(out) == large);
  const FrameSize size = raw_frame_size(out);
  CHECK((size.stored == out.size() && size.content == large.size()));
}

TEST_CASE("frame: one filled piece by piece is the same as one written at once", "[frame]") {
  // Of what makes no difference, of what is all equal, and of what is so but at its very end.
  for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{32}, std::size_t{33},
                              kPiece, kPiece + 1, 3 * kPiece, 3 * kPiece + 7})
    for (const std::string_view kind :
         {"noise", "zeros", "sevens", "but the last", "second piece"}) {
      Buffer in = kind == "noise" ? content("noise", n)
                                  : Buffer(n, kind == "zeros" ? std::byte{0} : std::byte{7});
      if (kind == "but the last" && n > 0) in.back() = std::byte{8};
      if (kind == "second piece")  // each piece is of one byte, but not the same
        std::fill(in.begin() + static_cast<std::ptrdiff_t>(std::min(n, kPiece)), in.end(),
                  std::byte{8});
      INFO(kind << ", " << n << " bytes");
      Buffer expected = bytes({1, 2, 3});
      const FrameSize size = FrameWriter().append(Coder::Raw, in, expected);
      append(expected, Bytes(bytes({4, 5, 6})));

      Buffer out = bytes({1, 2, 3});
      RawFrame frame(n, out);
      append(out, Bytes(bytes({4, 5, 6})));  // moves when the frame becomes shorter
      for (std::size_t i = 0; i * kPiece < n; ++i) {
        std::copy_n(in.begin() + static_cast<std::ptrdiff_t>(i * kPiece),
                    std::min(kPiece, n - i * kPiece), frame.piece(i));
        frame.filled(i);
      }
      const FrameSize filled = frame.finish();
      CHECK((filled.stored == size.stored && filled.content == n &&
             filled.checksum == size.checksum));
      REQUIRE(out == expected);
      CHECK(zstd_decodes(Bytes(out).subspan(3, filled.stored)) == in);
    }
}

TEST_CASE("frame: checksums are XXH64 as it is published, in pieces as at once", "[frame]") {
  const auto digest = [](std::string_view text) {
    XxHash64 c;
    c.update(as_bytes(text));
    return c.digest();
  };
  CHECK(digest("") == 0xEF46DB3751D8E999);
  CHECK(digest("a") == 0xD24EC4F1A98C6E5B);
  CHECK(digest("abc") == 0x44BC2CF5AD770999);
  CHECK(digest("The quick brown fox jumps over the lazy dog") == 0x0B242D361FDA71BC);
  // Of any length it is what the library puts behind its own frames.
  ZSTD_CCtx* const context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  const Buffer all = content("noise", 1000);
  for (std::size_t n = 0; n <= all.size(); n += n < 200 ? 1 : 37) {
    Buffer frame(ZSTD_compressBound(n));
    frame.resize(ZSTD_compress2(context, frame.data(), frame.size(), all.data(), n));
    const auto expected = load<std::uint32_t>(Bytes(frame).last(4));
    const Bytes part = Bytes(all).first(n);
    CHECK(checksum_of(part) == expected);
    for (const std::size_t step : {1, 7, 31, 32, 33, 100}) {
      XxHash64 c;
      for (std::size_t at = 0; at < n; at += step)
        c.update(part.subspan(at, std::min(step, n - at)));
      REQUIRE(c.low() == expected);
    }
  }
  ZSTD_freeCCtx(context);
}

}  // namespace wtool
