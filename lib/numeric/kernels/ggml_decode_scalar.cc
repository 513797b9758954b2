// The decoders of ggml's block types, written plainly (ggml-quants.c gives the arithmetic,
// ggml-common.h the layouts): each takes one block. What the vector forms are tested against.
#include "lib/numeric/kernels/ggml_codebooks.h"
#include "lib/numeric/kernels/ggml_decode.h"

namespace wtool::scalar {
namespace {

using Block = const std::uint8_t*;

float f16_at(Block p) noexcept {
  return f16_inline(load<std::uint16_t>(p));
}
float value(int code) noexcept {
  return static_cast<float>(code);
}

// ---- {f16 d, codes}

// A bit an element: d or -d (also of a NaN).
void q1_0(Block in, float* out) noexcept {
  const float d = f16_at(in);
  for (unsigned i = 0; i < 128; ++i) out[i] = (in[2 + i / 8] >> i % 8 & 1) != 0 ? d : -d;
}
void q2_0(Block in, float* out) noexcept {
  const float d = f16_at(in);
  for (unsigned i = 0; i < 64; ++i) out[i] = value((in[2 + i / 4] >> 2 * (i % 4) & 3) - 1) * d;
}
void q8_1(Block in, float* out) noexcept {
  const float d = f16_at(in);
  for (unsigned i = 0; i < 32; ++i) out[i] = value(static_cast<std::int8_t>(in[4 + i])) * d;
}
void q8_k(Block in, float* out) noexcept {
  const float d = load<float>(in);
  for (unsigned i = 0; i < 256; ++i) out[i] = value(static_cast<std::int8_t>(in[4 + i])) * d;
}

// Sixteen bytes, byte j holding elements j and j + 16.
template <const std::array<std::int8_t, 16>& kValues>
void nibbles(Block codes, float d, float* out) noexcept {
  for (unsigned j = 0; j < 16; ++j) {
    out[j] = d * value(kValues[codes[j] & 15]);
    out[j + 16] = d * value(kValues[codes[j] >> 4]);
  }
}
void iq4_nl(Block in, float* out) noexcept {
  nibbles<kIq4Values>(in + 2, f16_at(in), out);
}
void mxfp4(Block in, float* out) noexcept {
  nibbles<kFp4Values>(in + 1, half_e8m0(in[0]), out);
}
// Four groups of 16: byte 8 g + j holds elements j and j + 8 of group g.
void nvfp4(Block in, float* out) noexcept {
  for (unsigned g = 0; g < 4; ++g) {
    const float d = half_ue4m3(in[g]);
    for (unsigned j = 0; j < 8; ++j) {
      const unsigned both = in[4 + 8 * g + j];
      out[16 * g + j] = value(kFp4Values[both & 15]) * d;
      out[16 * g + j + 8] = value(kFp4Values[both >> 4]) * d;
    }
  }
}
void iq4_xs(Block in, float* out) noexcept {
  const unsigned high = load<std::uint16_t>(in + 2);
  for (unsigned g = 0; g < 8; ++g) {
    const unsigned low = in[4 + g / 2] >> 4 * (g % 2) & 15, top = high >> 2 * g & 3;
    const float d = f16_at(in) * value(static_cast<int>(low | top << 4) - 32);
    nibbles<kIq4Values>(in + 8 + 16 * g, d, out + 32 * g);
  }
}

// Five ternary digits a byte, as a fraction of 256: multiplied by a power of 3, the carry is the
// digit. Three runs: 32 bytes, 16 bytes, and 4 with four digits each.
void tq1_0(Block in, float* out) noexcept {
  const float d = f16_at(in + 52);
  struct Run {
    unsigned at, bytes, digits;
  };
  for (const Run run : {Run{0, 32, 5}, Run{32, 16, 5}, Run{48, 4, 4}})
    for (unsigned n = 0, power = 1; n < run.digits; ++n, power *= 3)
      for (unsigned m = 0; m < run.bytes; ++m) {
        const unsigned fraction = in[run.at + m] * power & 255;
        *out++ = value(static_cast<int>(fraction * 3 >> 8) - 1) * d;
      }
}
// Two runs of 128; byte m of one holds elements m, m + 32, m + 64 and m + 96.
void tq2_0(Block in, float* out) noexcept {
  const float d = f16_at(in + 64);
  for (unsigned i = 0; i < 256; ++i)
    out[i] = value((in[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) - 1) * d;
}

// ---- K-quants

// Codes as in tq2_0; sixteen groups, their scales in low nibbles, their minima in high ones.
void q2_k(Block in, float* out) noexcept {
  const float d = f16_at(in + 80), dmin = f16_at(in + 82);
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned scale = in[i / 16];
    const int code = in[16 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
    out[i] = d * value(scale & 15) * value(code) - dmin * value(static_cast<int>(scale >> 4));
  }
}
// Sixteen scales of 6 bits: the low four in the nibbles of eight bytes, the others in four more.
void q3_k(Block in, float* out) noexcept {
  const Block masks = in, codes = in + 32, scales = in + 96;
  const float d = f16_at(in + 108);
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned g = i / 16;
    const unsigned scale = (scales[g % 8] >> g / 8 * 4 & 15) | (scales[8 + g % 4] >> g / 4 * 2 & 3)
                                                                   << 4;
    const int low = codes[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
    const int code = low - ((masks[i % 32] >> i / 32 & 1) != 0 ? 0 : 4);
    out[i] = d * value(static_cast<int>(scale) - 32) * value(code);
  }
}

// Eight groups, each with a scale and a minimum of 6 bits, in 12 bytes.
unsigned scale_of(Block s, unsigned g) noexcept {
  return g < 4 ? s[g] & 63u : (s[g + 4] & 15u) | (s[g - 4] >> 6) << 4;
}
unsigned minimum_of(Block s, unsigned g) noexcept {
  return g < 4 ? s[g + 4] & 63u : (s[g + 4] >> 4) | (s[g] >> 6) << 4;
}
// Byte l of each 32 holds elements l and l + 32; q5_k has a fifth bit of each group in byte l of
// qh.
template <bool kFifth>
void q45_k(Block in, float* out) noexcept {
  const Block scales = in + 4, fifth = in + 16, codes = in + (kFifth ? 48 : 16);
  const float d = f16_at(in), dmin = f16_at(in + 2);
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned g = i / 32;
    unsigned code = codes[i / 64 * 32 + i % 32] >> g % 2 * 4 & 15;
    if constexpr (kFifth) code |= (fifth[i % 32] >> g & 1u) << 4;
    const float scale = d * value(static_cast<int>(scale_of(scales, g)));
    const float minimum = dmin * value(static_cast<int>(minimum_of(scales, g)));
    out[i] = scale * value(static_cast<int>(code)) - minimum;
  }
}
// In each half of 128: elements l and l + 64 share byte l of ql (64 bytes), four a byte of qh.
void q6_k(Block in, float* out) noexcept {
  const float d = f16_at(in + 208);
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned half = i / 128, quarter = i % 128 / 32;
    const int low = in[64 * half + i % 64] >> quarter / 2 * 4 & 15;
    const int high = in[128 + 32 * half + i % 32] >> 2 * quarter & 3;
    const int scale = static_cast<std::int8_t>(in[192 + i / 16]);
    out[i] = d * value(scale) * value((low | high << 4) - 32);
  }
}

// ---- Codebooks

// The sign is the code's: a NaN keeps that of the scale. (The library leaves it to its compiler.)
template <class Word>
void grid_signs(Word grid, unsigned signs, float d, float* out) noexcept {
  for (unsigned j = 0; j < sizeof(Word); ++j) {
    const int code = static_cast<int>(grid >> (8 * j) & 255);
    out[j] = d * value((signs >> j & 1) != 0 ? -code : code);
  }
}

// A group of 32: four indices, then four times seven signs and a scale in one word.
void iq2_xxs(Block in, float* out) noexcept {
  for (unsigned g = 0; g < 8; ++g) {
    const Block indices = in + 2 + 8 * g;
    const auto word = load<std::uint32_t>(indices + 4);
    const float d = f16_at(in) * (0.5f + value(static_cast<int>(word >> 28))) * 0.25f;
    for (unsigned k = 0; k < 4; ++k, out += 8)
      grid_signs(kIq2XxsGrid[indices[k]], even_signs(word >> 7 * k & 127), d, out);
  }
}
float iq2_scale(Block in, Block scales, unsigned g) noexcept {
  return f16_at(in) * (0.5f + value(scales[g / 2] >> g % 2 * 4 & 15)) * 0.25f;
}
// 16 bits for eight elements: nine of index, seven signs.
void iq2_xs(Block in, float* out) noexcept {
  for (unsigned k = 0; k < 32; ++k, out += 8) {
    const unsigned word = load<std::uint16_t>(in + 2 + 2 * k);
    grid_signs(kIq2XsGrid[word & 511], even_signs(word >> 9), iq2_scale(in, in + 66, k / 2), out);
  }
}
// All eight signs are stored; qh has two more bits of each index.
void iq2_s(Block in, float* out) noexcept {
  const Block low = in + 2, signs = in + 34, high = in + 66;
  for (unsigned k = 0; k < 32; ++k, out += 8) {
    const unsigned index = low[k] | (high[k / 4] >> 2 * (k % 4) & 3u) << 8;
    grid_signs(kIq2SGrid[index], signs[k], iq2_scale(in, in + 74, k / 2), out);
  }
}
// Eight indices for a group of 32; the words of signs and scale follow all of them.
void iq3_xxs(Block in, float* out) noexcept {
  for (unsigned g = 0; g < 8; ++g) {
    const Block indices = in + 2 + 8 * g;
    const auto word = load<std::uint32_t>(in + 66 + 4 * g);
    const float d = f16_at(in) * (0.5f + value(static_cast<int>(word >> 28))) * 0.5f;
    for (unsigned k = 0; k < 8; ++k, out += 4)
      grid_signs(kIq3XxsGrid[indices[k]], even_signs(word >> 7 * (k / 2) & 127u) >> k % 2 * 4, d,
                 out);
  }
}
void iq3_s(Block in, float* out) noexcept {
  const Block low = in + 2, high = in + 66, signs = in + 74, scales = in + 106;
  for (unsigned k = 0; k < 64; ++k, out += 4) {
    const unsigned g = k / 8, index = low[k] | (high[g] >> k % 8 & 1u) << 8;
    const float d = f16_at(in) * value(1 + 2 * (scales[g / 2] >> g % 2 * 4 & 15));
    grid_signs(kIq3SGrid[index], signs[k / 2] >> k % 2 * 4u, d, out);
  }
}

constexpr float kDelta = 0.125f;  // by which all values of a group are off the grid

void grid_delta(unsigned index, bool down, float d, float* out) noexcept {
  for (unsigned j = 0; j < 8; ++j) {
    const auto g = static_cast<std::int8_t>(kIq1SGrid[index] >> (8 * j) & 255);
    out[j] = d * (value(g) + (down ? -kDelta : kDelta));
  }
}
// A group of 32: three more bits of each of four indices, a scale of three, and which way it is
// off.
void iq1_s(Block in, float* out) noexcept {
  for (unsigned k = 0; k < 32; ++k, out += 8) {
    const unsigned word = load<std::uint16_t>(in + 34 + k / 4 * 2);
    const float d = f16_at(in) * value(2 * static_cast<int>(word >> 12 & 7) + 1);
    grid_delta(in[2 + k] | (word >> 3 * (k % 4) & 7) << 8, (word & 0x8000) != 0, d, out);
  }
}
// A nibble for eight elements: three bits of index, and which way they are off. The 16-bit words of
// scales have three bits for each 16 elements, and a quarter of d.
void iq1_m(Block in, float* out) noexcept {
  const Block low = in, high = in + 32, scales = in + 48;
  unsigned d = 0;
  for (unsigned k = 0; k < 4; ++k) d |= (scales[2 * k + 1] >> 4u) << 4 * k;
  for (unsigned k = 0; k < 32; ++k, out += 8) {
    const unsigned scale = load<std::uint16_t>(scales + k / 8 * 2) >> 3 * (k / 2 % 4) & 7;
    const unsigned nibble = high[k / 2] >> k % 2 * 4 & 15u;
    grid_delta(low[k] | (nibble & 7) << 8, nibble >= 8,
               f16_inline(static_cast<std::uint16_t>(d)) * value(2 * static_cast<int>(scale) + 1),
               out);
  }
}

template <void (*kDecode)(Block, float*) noexcept, std::size_t kElements, std::size_t kBytes>
void each(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; i += kElements, in += kBytes)
    kDecode(reinterpret_cast<Block>(in), out + i);
}

}  // namespace

constexpr GgmlDecoders kGgmlDecoders{
    each<q1_0, 128, 18>,  each<q2_0, 64, 18>,           each<q2_k, 256, 84>,
    each<q3_k, 256, 110>, each<q45_k<false>, 256, 144>, each<q45_k<true>, 256, 176>,
    each<q6_k, 256, 210>, each<q8_1, 32, 36>,           each<q8_k, 256, 292>,
    each<iq4_nl, 32, 18>, each<iq4_xs, 256, 136>,       each<mxfp4, 32, 17>,
    each<nvfp4, 64, 36>,  each<tq1_0, 256, 54>,         each<tq2_0, 256, 66>};
constexpr GgmlGridDecoders kGgmlGridDecoders{
    each<iq1_s, 256, 50>, each<iq1_m, 256, 56>,   each<iq2_xxs, 256, 66>, each<iq2_xs, 256, 74>,
    each<iq2_s, 256, 82>, each<iq3_xxs, 256, 98>, each<iq3_s, 256, 110>};

}  // namespace wtool::scalar
