// ggml's types without a search, one block after another (ggml-quants.c gives the arithmetic).
#include "lib/numeric/kernels/ggml_scalar.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "lib/numeric/kernels/ggml_scalar_math.h"

namespace wtool::scalar {
namespace {

using Block32 = std::span<const float, 32>;

template <std::size_t kElements, std::size_t kBytes>
void each_block(const BlockRows& in, std::byte* out,
                void (*encode)(std::span<const float, kElements>, std::byte*) noexcept) noexcept {
  const std::size_t blocks = in.elements() / kElements;
  for (std::size_t b = 0; b < blocks; ++b)
    encode(std::span<const float, kElements>(in.values + b * kElements, kElements),
           out + b * kBytes);
}

// The value of the largest magnitude; of several the first.
float first_largest(std::span<const float> x) noexcept {
  float most = 0;
  for (const float v : x)
    if (std::abs(v) > std::abs(most)) most = v;
  return most;
}
float largest_magnitude(std::span<const float> x) noexcept {
  return std::abs(first_largest(x));
}

int low_byte_signed(int v) noexcept {
  return static_cast<std::int8_t>(v);
}
// Half away from zero.
int round_away(float v) noexcept {
  return to_int(std::round(v));
}

// Codes of 32 elements: j in the low nibble of byte j, j + 16 in the high one.
void put_nibbles(const unsigned (&code)[32], std::byte* out) noexcept {
  for (std::size_t j = 0; j < 16; ++j)
    out[j] = static_cast<std::byte>((code[j] & 15) | (code[16 + j] & 15) << 4);
}
void put_fifth_bits(const unsigned (&code)[32], std::byte* out) noexcept {
  std::uint32_t bits = 0;
  for (unsigned i = 0; i < 32; ++i) bits |= (code[i] >> 4 & 1) << i;
  std::memcpy(out, &bits, 4);
}

void q8_0(Block32 x, std::byte* out) noexcept {
  const float d = largest_magnitude(x) / 127, inverse = inverse_or_zero(d);
  put_f16(d, out);
  for (std::size_t i = 0; i < 32; ++i)
    out[2 + i] = static_cast<std::byte>(round_away(x[i] * inverse));
}

// Symmetric: the value of largest magnitude gets the lowest code.
float symmetric(Block32 x, int zero, unsigned (&code)[32]) noexcept {
  const float d = first_largest(x) / static_cast<float>(-zero), inverse = inverse_or_zero(d);
  for (std::size_t i = 0; i < 32; ++i) {
    const int q = low_byte_signed(to_int(x[i] * inverse + (static_cast<float>(zero) + 0.5f)));
    code[i] = static_cast<unsigned>(std::min(2 * zero - 1, q));
  }
  return d;
}

void q4_0(Block32 x, std::byte* out) noexcept {
  unsigned code[32];
  put_f16(symmetric(x, 8, code), out);
  put_nibbles(code, out + 2);
}
void q5_0(Block32 x, std::byte* out) noexcept {
  unsigned code[32];
  put_f16(symmetric(x, 16, code), out);
  put_fifth_bits(code, out + 2);
  put_nibbles(code, out + 6);
}

// From the least value in equal steps; puts scale and minimum.
template <int kMost>
void affine(Block32 x, unsigned (&code)[32], std::byte* out) noexcept {
  float lo = x[0], hi = x[0];
  for (const float v : x) {
    if (v < lo) lo = v;
    if (v > hi) hi = v;
  }
  const float d = (hi - lo) / kMost, inverse = inverse_or_zero(d);
  put_f16(d, out);
  put_f16(lo, out + 2);
  for (std::size_t i = 0; i < 32; ++i) {
    const int q = low_byte_signed(to_int((x[i] - lo) * inverse + 0.5f));
    code[i] = static_cast<unsigned>(std::min(kMost, q));
  }
}

void q4_1(Block32 x, std::byte* out) noexcept {
  unsigned code[32];
  affine<15>(x, code, out);
  put_nibbles(code, out + 4);
}
void q5_1(Block32 x, std::byte* out) noexcept {
  unsigned code[32];
  affine<31>(x, code, out);
  put_fifth_bits(code, out + 4);
  put_nibbles(code, out + 8);
}

void q1_0(std::span<const float, 128> x, std::byte* out) noexcept {
  float sum = 0;
  for (const float v : x) sum += std::abs(v);
  put_f16(sum / 128, out);
  std::memset(out + 2, 0, 16);
  for (std::size_t i = 0; i < 128; ++i)
    if (x[i] >= 0) out[2 + i / 8] |= std::byte{1} << (i % 8);
}

void q2_0(std::span<const float, 64> x, std::byte* out) noexcept {
  const float d = largest_magnitude(x), inverse = inverse_or_zero(d);
  put_f16(d, out);
  std::memset(out + 2, 0, 16);
  for (std::size_t i = 0; i < 64; ++i) {
    const int q = std::clamp(round_away(x[i] * inverse) + 1, 0, 3);
    out[2 + i / 4] |= static_cast<std::byte>(q << 2 * (i % 4));
  }
}

// ---- Ternary: -1, 0, 1 times the largest magnitude

float trits(std::span<const float, 256> x, unsigned (&trit)[256]) noexcept {
  const float d = largest_magnitude(x), inverse = inverse_or_zero(d);
  for (std::size_t i = 0; i < 256; ++i) {
    // The reference rounds to 64 bits, whose least integer is 0 in its low 32.
    const float v = std::round(x[i] * inverse);
    trit[i] = std::abs(v) <= 1 ? static_cast<unsigned>(static_cast<int>(v) + 1) : 1;
  }
  return d;
}

void tq2_0(std::span<const float, 256> x, std::byte* out) noexcept {
  unsigned trit[256];
  put_f16(trits(x, trit), out + 64);
  for (std::size_t b = 0; b < 64; ++b) {
    const unsigned* t = trit + b / 32 * 128 + b % 32;
    out[b] = static_cast<std::byte>(t[0] | t[32] << 2 | t[64] << 4 | t[96] << 6);
  }
}

// Five trits as a fraction of 256: multiplying by 3 brings up one after another.
std::byte five_trits(unsigned q) noexcept {
  return static_cast<std::byte>((q * 256 + 242) / 243);
}

void tq1_0(std::span<const float, 256> x, std::byte* out) noexcept {
  unsigned trit[256];
  put_f16(trits(x, trit), out + 52);
  const auto join = [](const unsigned* t, std::size_t stride, std::size_t count) {
    unsigned q = 0;
    for (std::size_t n = 0; n < count; ++n) q = q * 3 + t[n * stride];
    return q;
  };
  for (std::size_t m = 0; m < 32; ++m) out[m] = five_trits(join(trit + m, 32, 5));
  for (std::size_t m = 0; m < 16; ++m) out[32 + m] = five_trits(join(trit + 160 + m, 16, 5));
  for (std::size_t m = 0; m < 4; ++m) out[48 + m] = five_trits(join(trit + 240 + m, 4, 4) * 3);
}

// ---- Four-bit floats (e2m1), stored doubled

constexpr float kDoubledFp4[8] = {0, 1, 2, 3, 4, 6, 8, 12};

// The nearest, of several the first: never -0, and the smaller magnitude of two.
unsigned fp4_code(float x, float scale) noexcept {
  unsigned best = 0;
  float least = std::abs(kDoubledFp4[0] * scale - x);
  for (unsigned i = 1; i < 16; ++i) {
    const float value = i < 8 ? kDoubledFp4[i] : -kDoubledFp4[i - 8];
    const float error = std::abs(value * scale - x);
    if (error < least) {
      least = error;
      best = i;
    }
  }
  return best;
}

void mxfp4(Block32 x, std::byte* out) noexcept {
  const float most = largest_magnitude(x);
  // Below 2^-125 the reference's byte wraps round to huge scales and NaN.
  const int e = most < 0x1p-125f ? 0 : floor_log2f(most) + 125;
  const auto bits = static_cast<std::uint32_t>(e < 2 ? 0x200000 << e : (e - 1) << 23);
  const auto scale = std::bit_cast<float>(bits);
  unsigned code[32];
  for (std::size_t i = 0; i < 32; ++i) code[i] = fp4_code(x[i], scale);
  out[0] = static_cast<std::byte>(e);
  put_nibbles(code, out + 1);
}

void nvfp4(std::span<const float, 64> x, std::byte* out) noexcept {
  for (std::size_t g = 0; g < 4; ++g) {
    const auto group = x.subspan(16 * g, 16);
    const unsigned bits = ue4m3_bits(largest_magnitude(group) / 6);
    const float scale = ue4m3_value(bits) * 0.5f;
    out[g] = static_cast<std::byte>(bits);
    for (std::size_t j = 0; j < 8; ++j)
      out[4 + 8 * g + j] =
          static_cast<std::byte>(fp4_code(group[j], scale) | fp4_code(group[8 + j], scale) << 4);
  }
}

}  // namespace

void mean_squares(const float* values, std::size_t rows, std::size_t columns, float* out) noexcept {
  for (std::size_t r = 0; r < rows; ++r) {
    float sum = 0;
    for (std::size_t c = 0; c < columns; ++c) {
      const float x = values[r * columns + c];
      sum += x * x;
    }
    out[r] = sum / static_cast<float>(columns);
  }
}

void quantize_q4_0(const BlockRows& in, std::byte* out) noexcept {
  each_block<32, 18>(in, out, &q4_0);
}
void quantize_q4_1(const BlockRows& in, std::byte* out) noexcept {
  each_block<32, 20>(in, out, &q4_1);
}
void quantize_q5_0(const BlockRows& in, std::byte* out) noexcept {
  each_block<32, 22>(in, out, &q5_0);
}
void quantize_q5_1(const BlockRows& in, std::byte* out) noexcept {
  each_block<32, 24>(in, out, &q5_1);
}
void quantize_q8_0(const BlockRows& in, std::byte* out) noexcept {
  each_block<32, 34>(in, out, &q8_0);
}
void quantize_q1_0(const BlockRows& in, std::byte* out) noexcept {
  each_block<128, 18>(in, out, &q1_0);
}
void quantize_q2_0(const BlockRows& in, std::byte* out) noexcept {
  each_block<64, 18>(in, out, &q2_0);
}
void quantize_tq1_0(const BlockRows& in, std::byte* out) noexcept {
  each_block<256, 54>(in, out, &tq1_0);
}
void quantize_tq2_0(const BlockRows& in, std::byte* out) noexcept {
  each_block<256, 66>(in, out, &tq2_0);
}
void quantize_mxfp4(const BlockRows& in, std::byte* out) noexcept {
  each_block<32, 17>(in, out, &mxfp4);
}
void quantize_nvfp4(const BlockRows& in, std::byte* out) noexcept {
  each_block<64, 36>(in, out, &nvfp4);
}

}  // namespace wtool::scalar
