#include "lib/numeric/kernels/planes.h"

#include <memory>
#include <random>
#include <vector>

#include "lib/numeric/kernels/differences.h"
#include "tests/catch.h"
#include "tests/simd_levels.h"
#include "tests/unit/fenced.h"
#include "tests/unit/step_run.h"

namespace wtool {
namespace {

using U16s = std::vector<std::uint16_t>;
using U32s = std::vector<std::uint32_t>;

Buffer bytes(std::initializer_list<unsigned> values) {
  Buffer out;
  for (const unsigned v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}
Buffer random_bytes(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  Buffer out(n);
  for (std::byte& b : out) b = static_cast<std::byte>(random() & 0xFF);
  return out;
}
// Sizes about the widths of all vectors, and some that take many turns.
std::vector<std::size_t> sizes() {
  std::vector<std::size_t> out;
  for (std::size_t n = 0; n <= 36; ++n) out.push_back(n);
  for (const std::size_t n : {47, 63, 64, 65, 66, 127, 128, 129, 1001}) out.push_back(n);
  return out;
}

// ---- Floats apart, and together again.

struct Apart {
  Buffer pairs, sign_mantissa, middle, low, escapes;
  bool operator==(const Apart&) const = default;
};
// All memory ends where the kernel has to stop, or a byte before.
Apart split(std::size_t width, const Buffer& in, std::uint8_t top, std::size_t gap = 0) {
  const std::size_t n = in.size() / width;
  const Fenced from(in, gap), pairs((n + 1) / 2, gap), sm(n, gap), middle(n, gap), low(n, gap),
      escapes(n, gap);
  const std::size_t count =
      width == 2 ? split_bf16(from.data(), n, top, pairs.data(), sm.data(), escapes.data())
                 : split_f32(from.data(), n, top, pairs.data(), sm.data(), middle.data(),
                             low.data(), escapes.data());
  for (const Fenced* f : {&from, &pairs, &sm, &middle, &low, &escapes}) CHECK(f->intact());
  Apart out{pairs.copy(), sm.copy(), {}, {}, escapes.copy()};
  if (width == 4) {
    out.middle = middle.copy();
    out.low = low.copy();
  }
  REQUIRE(count <= n);
  out.escapes.resize(count);
  return out;
}
Buffer join(std::size_t width, const Apart& in, std::uint8_t top, std::size_t& used,
            std::size_t gap = 0) {
  const std::size_t n = in.sign_mantissa.size();
  const Fenced pairs(in.pairs, gap), sm(in.sign_mantissa, gap), middle(in.middle, gap),
      low(in.low, gap), escapes(in.escapes, gap), out(n * width, gap);
  used = width == 2 ? join_bf16(pairs.data(), sm.data(), escapes.data(), in.escapes.size(), n, top,
                                out.data())
                    : join_f32(pairs.data(), sm.data(), middle.data(), low.data(), escapes.data(),
                               in.escapes.size(), n, top, out.data());
  CHECK(out.intact());
  return out.copy();
}

// Exponents mostly within reach of `top`, as weights have them; some are not.
template <class T>
Buffer weights(std::size_t n, unsigned top, unsigned one_escape_in, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<T> out(n);
  constexpr unsigned kMantissa = sizeof(T) == 2 ? 7 : 23;
  for (T& v : out) {
    const bool any = one_escape_in != 0 && random() % one_escape_in == 0;
    const unsigned exponent = (any ? random() : top - random() % 12) & 0xFF;
    const T rest = static_cast<T>(random());
    v = static_cast<T>((rest & ~static_cast<T>(T{0xFF} << kMantissa)) |
                       static_cast<T>(static_cast<T>(exponent) << kMantissa));
  }
  return packed(out);
}

}  // namespace

TEST_CASE("planes: bf16 comes apart as its definition says", "[planes]") {
  // 1, -2, 0.5, 0, -0, a NaN with a payload, 1 + 2^-7
  const Buffer in = packed(U16s{0x3F80, 0xC000, 0x3F00, 0x0000, 0x8000, 0x7FC1, 0x3F81});
  for (const Simd level : levels()) {
    const AtLevel at(level);
    const Apart out = split(2, in, 128);
    CHECK(out.pairs == bytes({0x01, 0xC2, 0xCC, 0x01}));  // 128 - 127, 128 - 128; 2, escape; …
    CHECK(out.sign_mantissa == bytes({0x00, 0x80, 0x00, 0x00, 0x80, 0x41, 0x01}));
    CHECK(out.escapes == bytes({0, 0, 255}));
    std::size_t used = 0;
    CHECK(join(2, out, 128, used) == in);
    CHECK(used == 3);
  }
}

TEST_CASE("planes: f32 comes apart as its definition says", "[planes]") {
  // pi, -pi, a NaN with a payload, -0, 1, the smallest subnormal number, -infinity
  const Buffer in = packed(
      U32s{0x40490FDB, 0xC0490FDB, 0x7FC12345, 0x80000000, 0x3F800000, 0x00000001, 0xFF800000});
  for (const Simd level : levels()) {
    const AtLevel at(level);
    const Apart out = split(4, in, 128);
    CHECK(out.pairs == bytes({0x00, 0xCC, 0xC1, 0x0C}));
    CHECK(out.sign_mantissa == bytes({0x49, 0xC9, 0x41, 0x80, 0x00, 0x00, 0x80}));
    CHECK(out.middle == bytes({0x0F, 0x0F, 0x23, 0, 0, 0, 0}));
    CHECK(out.low == bytes({0xDB, 0xDB, 0x45, 0, 0, 1, 0}));
    CHECK(out.escapes == bytes({255, 0, 0, 255}));
    std::size_t used = 0;
    CHECK(join(4, out, 128, used) == in);
    CHECK(used == 4);
  }
}

TEST_CASE("planes: nibbles reach from the top exponent to the eleventh below it", "[planes]") {
  // Exponents 129, 128, 117 and 116.
  const Buffer in = packed(U16s{0x4080, 0x4000, 0x3A80, 0x3A00});
  // The largest top there is, and the smallest that a file may name: 255, 244, 243; 0.
  const Buffer most = packed(U16s{0x7F80, 0x7A00, 0x7980, 0x0000});
  const Buffer least = packed(U16s{0x0000, 0x0080, 0x7F80, 0x8000});
  for (const Simd level : levels()) {
    const AtLevel at(level);
    const Apart out = split(2, in, 128);
    CHECK(out.pairs == bytes({0x0C, 0xCB}));
    CHECK(out.escapes == bytes({129, 116}));
    CHECK(split(2, most, 255).pairs == bytes({0xB0, 0xCC}));
    CHECK(split(2, least, 0).pairs == bytes({0xC0, 0x0C}));
    CHECK(split(2, least, 0).escapes == bytes({1, 255}));
  }
}

TEMPLATE_TEST_CASE("planes: every instruction set takes floats apart as the scalar code does",
                   "[planes]", std::uint16_t, std::uint32_t) {
  constexpr std::size_t kWidth = sizeof(TestType);
  for (const unsigned top : {0u, 11u, 128u, 255u})
    for (const unsigned one_in : {0u, 2u, 50u})
      for (const std::size_t n : sizes()) {
        const Buffer in = weights<TestType>(n, top, one_in, static_cast<unsigned>(n) + top);
        const auto t = static_cast<std::uint8_t>(top);
        Apart reference;
        {
          const AtLevel scalar(Simd::Scalar);
          reference = split(kWidth, in, t);
        }
        for (const Simd level : levels())
          for (const std::size_t gap : {0, 1}) {
            const AtLevel at(level);
            INFO("level " << static_cast<int>(level) << ", " << n << " elements, top " << top);
            REQUIRE(split(kWidth, in, t, gap) == reference);
            std::size_t used = 0;
            REQUIRE(join(kWidth, reference, t, used, gap) == in);
            REQUIRE(used == reference.escapes.size());
          }
      }
}

TEMPLATE_TEST_CASE("planes: any bytes are joined in the same way at every level", "[planes]",
                   std::uint16_t, std::uint32_t) {
  // Nibbles above the escape, too, and as many escapes as come.
  constexpr std::size_t kWidth = sizeof(TestType);
  for (const std::size_t n : sizes()) {
    const auto seed = static_cast<unsigned>(n);
    const Apart in{random_bytes((n + 1) / 2, seed), random_bytes(n, seed + 1),
                   random_bytes(kWidth == 4 ? n : 0, seed + 2),
                   random_bytes(kWidth == 4 ? n : 0, seed + 3), random_bytes(n, seed + 4)};
    std::size_t wanted = 0, used = 0;
    Buffer reference;
    {
      const AtLevel scalar(Simd::Scalar);
      reference = join(kWidth, in, 100, wanted);
    }
    std::size_t escapes = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const auto pair = static_cast<unsigned>(in.pairs[i / 2]);
      escapes += (i % 2 == 0 ? pair & 15 : pair >> 4) == 12;
    }
    CHECK(wanted == escapes);
    for (const Simd level : levels()) {
      const AtLevel at(level);
      REQUIRE(join(kWidth, in, 100, used) == reference);
      REQUIRE(used == escapes);
    }
  }
}

TEST_CASE("planes: nibbles above the escape are exponents as any others", "[planes]") {
  const Apart in{bytes({0xED, 0x0F}), bytes({0, 0, 0, 0}), {}, {}, {}};
  for (const Simd level : levels()) {
    const AtLevel at(level);
    std::size_t used = 1;
    // 20 - 13, 20 - 14, 20 - 15, 20 - 0
    CHECK(join(2, in, 20, used) == packed(U16s{7 << 7, 6 << 7, 5 << 7, 20 << 7}));
    CHECK(used == 0);
    // Less than nothing wraps around: 3 - 13 is 246.
    CHECK(as<std::uint16_t>(join(2, in, 3, used))[0] == 246 << 7);
  }
}

TEMPLATE_TEST_CASE("planes: too few exponents are counted and never read beyond", "[planes]",
                   std::uint16_t, std::uint32_t) {
  constexpr std::size_t kWidth = sizeof(TestType);
  for (const std::size_t n : {1, 2, 7, 8, 16, 33, 64, 65, 200}) {
    Apart in = split(kWidth, weights<TestType>(n, 128, 1, 3), 60);  // nearly all are escapes
    const std::size_t wanted = in.escapes.size();
    REQUIRE(wanted > 0);
    for (const Simd level : levels()) {
      const AtLevel at(level);
      for (std::size_t given = 0; given < wanted + 3; ++given) {
        Apart some = in;
        some.escapes.resize(given);  // what is behind them is fenced off
        std::size_t used = 0;
        join(kWidth, some, 60, used);
        REQUIRE(used == wanted);
      }
    }
  }
}

TEST_CASE("planes: exponents are counted in steps", "[planes]") {
  const Buffer bf16 = packed(U16s{0x3F80, 0xBF80, 0x7FC1, 0x0000, 0x8001, 0x3F00});
  const Buffer f32 = packed(U32s{0x3F800000, 0xC0490FDB, 0x7FC12345, 0x80000000, 0xBF800000});
  std::uint32_t counters[256] = {};
  count_exponents(Fenced(bf16).data(), 6, 2, 1, counters);
  CHECK((counters[127] == 2 && counters[255] == 1 && counters[0] == 2 && counters[126] == 1));
  count_exponents(Fenced(bf16).data(), 6, 2, 4, counters);  // the first and the fifth
  CHECK((counters[127] == 3 && counters[255] == 1 && counters[0] == 3 && counters[126] == 1));
  std::uint32_t others[256] = {};
  count_exponents(Fenced(f32, 1).data(), 5, 4, 2, others);
  CHECK((others[127] == 2 && others[255] == 1 && others[0] == 0 && others[128] == 0));
  count_exponents(Fenced(0).data(), 0, 4, 1, others);
  CHECK(others[127] == 2);
}

// ---- Bytes of elements

namespace {

using Planes = std::vector<Buffer>;
Planes split_bytes(std::size_t width, const Buffer& in, std::size_t gap) {
  const std::size_t n = in.size() / width;
  const Fenced from(in, gap);
  std::vector<std::unique_ptr<Fenced>> out;
  std::vector<std::byte*> at;
  for (std::size_t i = 0; i < width; ++i)
    at.push_back(out.emplace_back(std::make_unique<Fenced>(n, gap))->data());
  width == 2 ? split_bytes2(from.data(), n, at.data()) : split_bytes4(from.data(), n, at.data());
  Planes planes;
  for (const auto& f : out) {
    CHECK(f->intact());
    planes.push_back(f->copy());
  }
  return planes;
}
Buffer join_bytes(std::size_t width, const Planes& in, std::size_t gap) {
  const std::size_t n = in[0].size();
  const Fenced out(n * width, gap);
  std::vector<std::unique_ptr<Fenced>> from;
  std::vector<const std::byte*> at;
  for (const Buffer& b : in)
    at.push_back(from.emplace_back(std::make_unique<Fenced>(b, gap))->data());
  width == 2 ? join_bytes2(at.data(), n, out.data()) : join_bytes4(at.data(), n, out.data());
  CHECK(out.intact());
  return out.copy();
}

}  // namespace

TEST_CASE("planes: the bytes of elements come apart lowest first", "[planes]") {
  for (const Simd level : levels())
    for (const std::size_t n : sizes())
      for (const std::size_t width : {2, 4})
        for (const std::size_t gap : {0, 1}) {
          const AtLevel at(level);
          const Buffer in = random_bytes(n * width, static_cast<unsigned>(n));
          Planes expected(width);
          for (std::size_t i = 0; i < in.size(); ++i) expected[i % width].push_back(in[i]);
          REQUIRE(split_bytes(width, in, gap) == expected);
          REQUIRE(join_bytes(width, expected, gap) == in);
        }
}

TEST_CASE("planes: columns of blocks are gathered and scattered", "[planes]") {
  // Two bytes at 1 of blocks of five, to every third place.
  const Buffer in = bytes({0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24});
  Buffer out(9, std::byte{0xEE});
  gather_column(Fenced(in).data(), 3, 5, 1, 2, out.data(), 3);
  CHECK(out == bytes({1, 2, 0xEE, 11, 12, 0xEE, 21, 22, 0xEE}));
  Buffer back(15, std::byte{0xEE});
  scatter_column(out.data(), 3, 3, 5, 1, 2, back.data());
  CHECK(back ==
        bytes({0xEE, 1, 2, 0xEE, 0xEE, 0xEE, 11, 12, 0xEE, 0xEE, 0xEE, 21, 22, 0xEE, 0xEE}));

  constexpr std::size_t kBlock = 200;
  for (const std::size_t length : {1, 2, 3, 4, 5, 8, 12, 16, 31, 32, 64, 100, 128, 136, 200})
    for (const std::size_t blocks : {0, 1, 2, 17})
      for (const std::size_t offset : {std::size_t{0}, (kBlock - length) / 2, kBlock - length}) {
        const Buffer many = random_bytes(blocks * kBlock, static_cast<unsigned>(length));
        Buffer column;
        Buffer alone(many.size(), std::byte{0xA5});
        for (std::size_t i = 0; i < blocks; ++i)
          for (std::size_t k = 0; k < length; ++k) {
            column.push_back(many[i * kBlock + offset + k]);
            alone[i * kBlock + offset + k] = column.back();
          }
        const Fenced from(many), packed_(blocks * length), to(many.size());
        gather_column(from.data(), blocks, kBlock, offset, length, packed_.data(), length);
        REQUIRE(packed_.copy() == column);
        scatter_column(packed_.data(), length, blocks, kBlock, offset, length, to.data());
        REQUIRE(to.copy() == alone);
        CHECK((packed_.intact() && to.intact()));
      }
}

// ---- Differences

namespace {

struct Difference {
  Buffer low, middle, small, far_low, far_high;
  bool operator==(const Difference&) const = default;
};
Difference subtract(std::size_t width, const Buffer& in, const Buffer& base, std::size_t gap = 0) {
  const std::size_t n = in.size() / width;
  const Fenced a(in, gap), b(base, gap), low(n, gap), middle(n, gap), small(n, gap),
      far_low(n, gap), far_high(n, gap);
  const std::size_t count =
      width == 2
          ? split_delta16(a.data(), b.data(), n, small.data(), far_low.data(), far_high.data())
          : split_delta32(a.data(), b.data(), n, low.data(), middle.data(), small.data(),
                          far_low.data(), far_high.data());
  for (const Fenced* f : {&low, &middle, &small, &far_low, &far_high}) CHECK(f->intact());
  Difference out{{}, {}, small.copy(), far_low.copy(), far_high.copy()};
  if (width == 4) {
    out.low = low.copy();
    out.middle = middle.copy();
  }
  REQUIRE(count <= n);
  out.far_low.resize(count);
  out.far_high.resize(count);
  return out;
}
Buffer add(std::size_t width, const Difference& in, const Buffer& base, std::size_t& used,
           std::size_t gap = 0) {
  const std::size_t n = in.small.size();
  const Fenced low(in.low, gap), middle(in.middle, gap), small(in.small, gap),
      far_low(in.far_low, gap), far_high(in.far_high, gap), b(base, gap), out(n * width, gap);
  used = width == 2 ? join_delta16(small.data(), far_low.data(), far_high.data(), in.far_low.size(),
                                   b.data(), n, out.data())
                    : join_delta32(low.data(), middle.data(), small.data(), far_low.data(),
                                   far_high.data(), in.far_low.size(), b.data(), n, out.data());
  CHECK(out.intact());
  return out.copy();
}
// A base, and what is mostly a few steps away from it.
template <class T>
std::pair<Buffer, Buffer> neighbours(std::size_t n, unsigned one_far_in, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<T> a(n), b(n);
  for (std::size_t i = 0; i < n; ++i) {
    b[i] = static_cast<T>(random());
    a[i] = static_cast<T>(b[i] + random() % 300 - 150);
    if (one_far_in != 0 && random() % one_far_in == 0) a[i] = static_cast<T>(random());
  }
  return {packed(a), packed(b)};
}

}  // namespace

TEST_CASE("planes: differences are small where floats are close", "[planes]") {
  // Steps of 0, 1, -1; 0 and -0 are neighbours; so are -1 and what is a little below it, and the
  // largest NaNs of both signs, all the way round; 127, -128 and 128 steps; from 1 to -1: among the
  // integers 0xBF80 and 0x407F, so the difference is -0x7F01, as z 0xFE01.
  const U16s in{0x3F80, 0x3F81, 0x3F7F, 0x0000, 0x8000, 0xBF81,
                0xFFFF, 0x3FFF, 0x3F00, 0x4000, 0xBF80};
  const U16s base{0x3F80, 0x3F80, 0x3F80, 0x8000, 0x0000, 0xBF80,
                  0x7FFF, 0x3F80, 0x3F80, 0x3F80, 0x3F80};
  const Difference known{{},
                         {},
                         bytes({0, 2, 1, 2, 1, 1, 2, 254, 255, 255, 255}),
                         bytes({255, 0, 0x01}),
                         bytes({0, 1, 0xFE})};
  // The same in four bytes: z is 2, 1, 2, 2; 0x00FF0000 after 0x7F8000 steps, of which the upper
  // half is 255; 0x00FE0000 after 0x7F0000; from 1 to -1 0xFE000001.
  const U32s in4{0x3F800001, 0x3F7FFFFF, 0x00000000, 0xFFFFFFFF,
                 0x407F8000, 0x407F0000, 0xBF800000};
  const U32s base4{0x3F800000, 0x3F800000, 0x80000000, 0x7FFFFFFF,
                   0x40000000, 0x40000000, 0x3F800000};
  const Difference known4{bytes({2, 1, 2, 2, 0, 0, 1}), bytes({0, 0, 0, 0, 0, 0, 0}),
                          bytes({0, 0, 0, 0, 255, 254, 255}), bytes({255, 0x00}), bytes({0, 0xFE})};
  for (const Simd level : levels()) {
    const AtLevel at(level);
    std::size_t used = 0;
    CHECK(subtract(2, packed(in), packed(base)) == known);
    CHECK(add(2, known, packed(base), used) == packed(in));
    CHECK(used == 3);
    CHECK(subtract(4, packed(in4), packed(base4)) == known4);
    CHECK(add(4, known4, packed(base4), used) == packed(in4));
    CHECK(used == 2);
  }
}

TEMPLATE_TEST_CASE(
    "planes: differences of any bits are the same at every level and undone by adding", "[planes]",
    std::uint16_t, std::uint32_t) {
  constexpr std::size_t kWidth = sizeof(TestType);
  for (const std::size_t n : sizes())
    for (const unsigned one_in : {0u, 1u, 20u}) {
      const auto [in, base] = neighbours<TestType>(n, one_in, static_cast<unsigned>(n));
      Difference reference;
      {
        const AtLevel scalar(Simd::Scalar);
        reference = subtract(kWidth, in, base);
      }
      for (const Simd level : levels())
        for (const std::size_t gap : {0, 1}) {
          const AtLevel at(level);
          REQUIRE(subtract(kWidth, in, base, gap) == reference);
          std::size_t used = 0;
          REQUIRE(add(kWidth, reference, base, used, gap) == in);
          REQUIRE(used == reference.far_low.size());
        }
    }
}

TEMPLATE_TEST_CASE("planes: too few far differences are counted and never read beyond", "[planes]",
                   std::uint16_t, std::uint32_t) {
  constexpr std::size_t kWidth = sizeof(TestType);
  for (const std::size_t n : {1, 2, 7, 8, 16, 33, 65, 200}) {
    const auto [in, base] = neighbours<TestType>(n, 1, 5);
    Difference whole = subtract(kWidth, in, base);
    // All are far away, whatever their difference was.
    std::ranges::fill(whole.small, std::byte{255});
    Buffer reference;
    for (const Simd level : levels()) {
      const AtLevel at(level);
      for (std::size_t given = 0; given < n + 3; given += 1 + given / 9) {
        Difference some = whole;
        some.far_low.resize(given);  // what is behind them is fenced off
        some.far_high.resize(given);
        std::size_t used = 0;
        const Buffer out = add(kWidth, some, base, used);
        REQUIRE(used == n);
        if (given != 0) continue;
        if (level == Simd::Scalar) reference = out;
        REQUIRE(out == reference);
      }
    }
  }
}

TEST_CASE("planes: bytes that are all equal are told from others", "[planes]") {
  for (const std::size_t n : {1, 2, 3, 31, 32, 33, 64, 100, 4096, 5000}) {
    for (const unsigned b : {0u, 7u, 255u})
      CHECK(all_equal(Fenced(Buffer(n, static_cast<std::byte>(b))).data(), n));
    for (std::size_t i = 0; n > 1 && i<n; i += n> 100 ? 97 : 1) {
      Buffer other(n, std::byte{7});
      other[i] = std::byte{8};
      REQUIRE_FALSE(all_equal(Fenced(other).data(), n));
    }
  }
}

}  // namespace wtool
