// The levels of ggml's block types are code * scale - minimum (ggml-common.h has the layouts).
#include "lib/numeric/ggml_cells.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "lib/base/bytes.h"
#include "lib/numeric/kernels/ggml_codebooks.h"
#include "lib/numeric/kernels/kernels.h"

namespace wtool {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float half_at(const std::uint8_t* p) noexcept {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return f16_value(bits);
}
constexpr float value(int code) noexcept {
  return static_cast<float>(code);
}

// What a scale's rounding can move a value by: none but that of the arithmetic, or half a unit in
// the last place of an f16 that was rounded after codes were chosen.
struct Slack {
  float relative, least;
  float of(float scale) const noexcept { return std::max(std::abs(scale) * relative, least); }
};
constexpr Slack kExact{0x1p-22f, 0}, kF16{0x1p-11f, 0x1p-25f};

class Cells {
 public:
  explicit Cells(const CellsOut& to) : to_(to) {}

  // Element i is q of the codes lo … hi.
  void uniform(unsigned i, int q, int lo, int hi, float scale, float minimum, Slack slack) {
    put(i, q <= lo ? -kInfinity : value(q) - 0.5f, q >= hi ? kInfinity : value(q) + 0.5f, scale,
        minimum, slack);
  }
  // Its cell's ends, in units of the scale.
  void put(unsigned i, float below, float above, float scale, float minimum, Slack slack) {
    if (scale == 0) {  // all levels are one
      to_.low[i] = -kInfinity;
      to_.high[i] = kInfinity;
      to_.slack[i] = 0;
      return;
    }
    if (scale < 0) std::swap(below, above);
    to_.low[i] = below * scale - minimum;
    to_.high[i] = above * scale - minimum;
    const auto finite = [](float x) { return std::isfinite(x) ? std::abs(x) : 0; };
    to_.slack[i] = std::max(finite(below), finite(above)) * slack.of(scale) +
                   (minimum == 0 ? 0 : slack.of(minimum));
  }

 private:
  CellsOut to_;
};

using Block = const std::uint8_t*;

// ---- blocks of 32: byte j of the nibbles holds elements j and j + 16

void q4(Block codes, float d, float m, int zero, Cells to) {
  for (unsigned j = 0; j < 16; ++j)
    for (unsigned h = 0; h < 2; ++h)
      to.uniform(j + 16 * h, (codes[j] >> 4 * h & 15) - zero, -zero, 15 - zero, d, m, kF16);
}
void q4_0(Block in, Cells to) {
  q4(in + 2, half_at(in), 0, 8, to);
}
void q4_1(Block in, Cells to) {
  q4(in + 4, half_at(in), -half_at(in + 2), 0, to);
}
void q5(Block fifth, Block codes, float d, float m, int zero, Cells to) {
  for (unsigned j = 0; j < 16; ++j)
    for (unsigned h = 0; h < 2; ++h) {
      const unsigned i = j + 16 * h;
      const int q = (codes[j] >> 4 * h & 15) | (fifth[i / 8] >> i % 8 & 1) << 4;
      to.uniform(i, q - zero, -zero, 31 - zero, d, m, kF16);
    }
}
void q5_0(Block in, Cells to) {
  q5(in + 2, in + 6, half_at(in), 0, 16, to);
}
void q5_1(Block in, Cells to) {
  q5(in + 4, in + 8, half_at(in), -half_at(in + 2), 0, to);
}
void q8_0(Block in, Cells to) {
  for (unsigned i = 0; i < 32; ++i)
    to.uniform(i, static_cast<std::int8_t>(in[2 + i]), -127, 127, half_at(in), 0, kF16);
}

// ---- K-quants choose codes by the scales as stored

void q2_k(Block in, Cells to) {
  const float d = half_at(in + 80), dmin = half_at(in + 82);
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned both = in[i / 16];
    const int q = in[16 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
    to.uniform(i, q, 0, 3, d * value(static_cast<int>(both & 15)),
               dmin * value(static_cast<int>(both >> 4)), kExact);
  }
}
void q3_k(Block in, Cells to) {
  const Block scales = in + 96;
  const float d = half_at(in + 108);
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned g = i / 16;
    const unsigned low = scales[g % 8] >> g / 8 * 4 & 15, high = scales[8 + g % 4] >> g / 4 * 2 & 3;
    const int q = (in[32 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) -
                  ((in[i % 32] >> i / 32 & 1) != 0 ? 0 : 4);
    to.uniform(i, q, -4, 3, d * value(static_cast<int>(low | high << 4) - 32), 0, kExact);
  }
}
// Eight scales and eight minima of 6 bits in 12 bytes.
struct Pair {
  float scale, minimum;
};
Pair k_scale(Block in, unsigned g) {
  const Block s = in + 4;
  const unsigned scale = g < 4 ? s[g] & 63u : (s[g + 4] & 15u) | (s[g - 4] >> 6) << 4;
  const unsigned minimum = g < 4 ? s[g + 4] & 63u : (s[g + 4] >> 4) | (s[g] >> 6) << 4;
  return {half_at(in) * value(static_cast<int>(scale)),
          half_at(in + 2) * value(static_cast<int>(minimum))};
}
void q4_k(Block in, Cells to) {
  for (unsigned g = 0; g < 8; ++g) {
    const Pair p = k_scale(in, g);
    for (unsigned l = 0; l < 32; ++l)
      to.uniform(32 * g + l, in[16 + g / 2 * 32 + l] >> g % 2 * 4 & 15, 0, 15, p.scale, p.minimum,
                 kExact);
  }
}
void q5_k(Block in, Cells to) {
  for (unsigned g = 0; g < 8; ++g) {
    const Pair p = k_scale(in, g);
    for (unsigned l = 0; l < 32; ++l) {
      const int q = (in[48 + g / 2 * 32 + l] >> g % 2 * 4 & 15) | (in[16 + l] >> g & 1) << 4;
      to.uniform(32 * g + l, q, 0, 31, p.scale, p.minimum, kExact);
    }
  }
}
// Two runs of 128: four of 32 codes share the high bits of 32 bytes.
void q6_k(Block in, Cells to) {
  const float d = half_at(in + 208);
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned h = i / 128, run = i % 128 / 32, l = i % 32;
    const int low = in[64 * h + 32 * (run % 2) + l] >> run / 2 * 4 & 15;
    const int high = in[128 + 32 * h + l] >> 2 * run & 3;
    const int scale = static_cast<std::int8_t>(in[192 + i / 16]);
    to.uniform(i, (low | high << 4) - 32, -32, 31, d * value(scale), 0, kExact);
  }
}

// ---- few levels

void q1_0(Block in, Cells to) {
  for (unsigned i = 0; i < 128; ++i) {
    const bool plus = (in[2 + i / 8] >> i % 8 & 1) != 0;
    to.put(i, plus ? 0 : -kInfinity, plus ? kInfinity : 0, half_at(in), 0, kExact);
  }
}
void q2_0(Block in, Cells to) {
  for (unsigned i = 0; i < 64; ++i)
    to.uniform(i, (in[2 + i / 4] >> 2 * (i % 4) & 3) - 1, -1, 2, half_at(in), 0, kF16);
}
void tq2_0(Block in, Cells to) {
  for (unsigned i = 0; i < 256; ++i)
    to.uniform(i, (in[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) - 1, -1, 1, half_at(in + 64),
               0, kF16);
}
// Five ternary digits a byte, as a fraction of 256.
void tq1_0(Block in, Cells to) {
  struct Run {
    unsigned at, bytes, digits;
  };
  unsigned i = 0;
  for (const Run run : {Run{0, 32, 5}, Run{32, 16, 5}, Run{48, 4, 4}})
    for (unsigned n = 0, power = 1; n < run.digits; ++n, power *= 3)
      for (unsigned b = 0; b < run.bytes; ++b, ++i) {
        const unsigned fraction = in[run.at + b] * power & 255;
        to.uniform(i, static_cast<int>(fraction * 3 >> 8) - 1, -1, 1, half_at(in + 52), 0, kF16);
      }
}

// ---- codes that stand for values

struct Ends {
  std::array<float, 16> below, above;
};
constexpr Ends ends_of(const std::array<std::int8_t, 16>& values) {
  Ends out{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    out.below[i] = -kInfinity;
    out.above[i] = kInfinity;
    for (const std::int8_t other : values) {
      const float middle = (value(values[i]) + value(other)) / 2;
      if (other < values[i]) out.below[i] = std::max(out.below[i], middle);
      if (other > values[i]) out.above[i] = std::min(out.above[i], middle);
    }
  }
  return out;
}
constexpr Ends kIq4Ends = ends_of(kIq4Values), kFp4Ends = ends_of(kFp4Values);

void nibbles(Block codes, const Ends& ends, float d, Slack slack, unsigned first, Cells& to) {
  for (unsigned j = 0; j < 16; ++j)
    for (unsigned h = 0; h < 2; ++h) {
      const unsigned code = codes[j] >> 4 * h & 15;
      to.put(first + j + 16 * h, ends.below[code], ends.above[code], d, 0, slack);
    }
}
void iq4_nl(Block in, Cells to) {
  nibbles(in + 2, kIq4Ends, half_at(in), kF16, 0, to);
}
void iq4_xs(Block in, Cells to) {
  const unsigned high = in[2] | static_cast<unsigned>(in[3]) << 8;
  for (unsigned g = 0; g < 8; ++g) {
    const unsigned code = (in[4 + g / 2] >> 4 * (g % 2) & 15u) | (high >> 2 * g & 3) << 4;
    const float l = value(static_cast<int>(code) - 32);
    nibbles(in + 8 + 16 * g, kIq4Ends, half_at(in) * l, {kF16.relative, kF16.least * std::abs(l)},
            32 * g, to);
  }
}
void mxfp4(Block in, Cells to) {
  // Half of 2^(e - 127), since values are doubled.
  nibbles(in + 1, kFp4Ends, std::ldexp(1.0f, in[0] - 128), kExact, 0, to);
}
void nvfp4(Block in, Cells to) {
  for (unsigned g = 0; g < 4; ++g) {
    const unsigned exponent = in[g] >> 3 & 15, fraction = in[g] & 7;
    const float scale = in[g] == 0x7F   ? 0
                        : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                        : std::ldexp(static_cast<float>(8 + fraction),
                                                     static_cast<int>(exponent) - 10);
    for (unsigned j = 0; j < 8; ++j)
      for (unsigned h = 0; h < 2; ++h) {
        const unsigned code = in[4 + 8 * g + j] >> 4 * h & 15;
        to.put(16 * g + j + 8 * h, kFp4Ends.below[code], kFp4Ends.above[code], scale / 2, 0,
               kExact);
      }
  }
}

template <void (*kBlock)(Block, Cells), std::size_t kElements, std::size_t kBytes>
void each(const std::byte* in, const CellsOut& to, std::size_t n) {
  for (std::size_t i = 0; i < n; i += kElements, in += kBytes)
    kBlock(reinterpret_cast<Block>(in), Cells({to.low + i, to.high + i, to.slack + i}));
}

}  // namespace

BlockCells ggml_cells(DType type) noexcept {
  switch (type) {
    case DType::Q4_0: return each<q4_0, 32, 18>;
    case DType::Q4_1: return each<q4_1, 32, 20>;
    case DType::Q5_0: return each<q5_0, 32, 22>;
    case DType::Q5_1: return each<q5_1, 32, 24>;
    case DType::Q8_0: return each<q8_0, 32, 34>;
    case DType::Q2_K: return each<q2_k, 256, 84>;
    case DType::Q3_K: return each<q3_k, 256, 110>;
    case DType::Q4_K: return each<q4_k, 256, 144>;
    case DType::Q5_K: return each<q5_k, 256, 176>;
    case DType::Q6_K: return each<q6_k, 256, 210>;
    case DType::Q1_0: return each<q1_0, 128, 18>;
    case DType::Q2_0: return each<q2_0, 64, 18>;
    case DType::TQ1_0: return each<tq1_0, 256, 54>;
    case DType::TQ2_0: return each<tq2_0, 256, 66>;
    case DType::IQ4_NL: return each<iq4_nl, 32, 18>;
    case DType::IQ4_XS: return each<iq4_xs, 256, 136>;
    case DType::MXFP4: return each<mxfp4, 32, 17>;
    case DType::NVFP4: return each<nvfp4, 64, 36>;
    default: return nullptr;
  }
}

}  // namespace wtool
