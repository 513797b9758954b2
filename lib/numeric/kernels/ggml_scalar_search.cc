// ggml's types whose scales are found by trial, with and without importance, one block after
// another (ggml-quants.c gives the arithmetic). Sums run in the order of the elements, and what is
// compared decides bytes: the association of each product matters.
#include <algorithm>
#include <cmath>

#include "lib/numeric/kernels/ggml_scalar.h"
#include "lib/numeric/kernels/ggml_scalar_math.h"

namespace wtool::scalar {
namespace {

constexpr std::size_t kSuper = 256;
constexpr float kTiny = 1e-15f;  // a magnitude below it counts as zero

using Code = std::uint8_t;

float first_largest(std::size_t n, const float* x) noexcept {
  float most = 0;
  for (std::size_t i = 0; i < n; ++i)
    if (std::abs(x[i]) > std::abs(most)) most = x[i];
  return most;
}

float sum_of_squares(std::size_t n, const float* x) noexcept {
  float sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum;
}

void square_weights(std::size_t n, const float* x, float* w) noexcept {
  for (std::size_t i = 0; i < n; ++i) w[i] = x[i] * x[i];
}
void importance_weights(std::size_t n, const float* x, const float* importance, float mean_square,
                        float* w) noexcept {
  for (std::size_t i = 0; i < n; ++i) w[i] = importance[i] * std::sqrt(mean_square + x[i] * x[i]);
}

// ---- Searches

// x ~ scale * l, l in -most .. most - 1 and stored as l + most; weighted squares.
float fit_symmetric(std::size_t n, int most, const float* x, const float* w, Code* code) noexcept {
  const float largest = first_largest(n, x), top = static_cast<float>(most);
  std::fill_n(code, n, Code{0});
  if (std::abs(largest) < kTiny) return 0;
  const auto code_of = [&](float v) { return std::clamp(nearest_int(v), -most, most - 1); };
  float scale = 0, best = 0;
  for (int trial = 0; trial < 19; ++trial) {
    const int s = trial == 0 ? 0 : trial <= 9 ? trial - 10 : trial - 9;
    const float inverse = -(top + 0.1f * static_cast<float>(s)) / largest;
    float a = 0, b = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const auto l = static_cast<float>(code_of(inverse * x[i]));
      a += w[i] * x[i] * l;
      b += w[i] * l * l;
    }
    const bool better = b > 0 && a * a > best * b;
    if (trial == 0) {
      scale = b != 0 ? a / b : 0;
    } else if (better) {
      scale = a / b;
    } else {
      continue;
    }
    best = scale * a;
    for (std::size_t i = 0; i < n; ++i) code[i] = static_cast<Code>(code_of(inverse * x[i]) + most);
  }
  return scale;
}

// How the steps of an affine fit are tried: (start + step * s + most) / (hi - lo), s = 0 .. count.
struct Trials {
  float start, step;
  int count;
  bool absolute;  // errors count by magnitude instead of square
};
constexpr Trials kWeighted{-0.9f, 0.05f, 36, false};

struct Affine {
  float scale = 0, minimum = 0;  // x ~ scale * code - minimum
};

// Codes 0 .. most; the least value stands for at most zero.
Affine fit_affine(std::size_t n, int most, const float* x, const float* w, const Trials& trials,
                  Code* code) noexcept {
  float lo = x[0], hi = x[0], sum_w = w[0], sum_x = w[0] * x[0];
  for (std::size_t i = 1; i < n; ++i) {
    if (x[i] < lo) lo = x[i];
    if (x[i] > hi) hi = x[i];
    sum_w += w[i];
    sum_x += w[i] * x[i];
  }
  if (lo > 0) lo = 0;
  std::fill_n(code, n, Code{0});
  if (hi <= lo) return {0, -lo};

  const auto top = static_cast<float>(most);
  Code tried[32];
  const auto try_codes = [&](float inverse) {
    for (std::size_t i = 0; i < n; ++i)
      tried[i] = static_cast<Code>(std::clamp(nearest_int(inverse * (x[i] - lo)), 0, most));
  };
  const auto error_of = [&](float scale, float minimum) {
    float error = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const float e = scale * tried[i] + minimum - x[i];
      error += w[i] * (trials.absolute ? std::abs(e) : e * e);
    }
    return error;
  };

  const float first = top / (hi - lo);
  float scale = 1 / first;
  try_codes(first);
  std::copy_n(tried, n, code);
  float least = error_of(scale, lo);
  for (int s = 0; s <= trials.count; ++s) {
    // `lo` is that of the best fit so far, `hi` stays.
    try_codes((trials.start + trials.step * static_cast<float>(s) + top) / (hi - lo));
    float sum_l = 0, sum_l2 = 0, sum_xl = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const float l = tried[i];
      sum_l += w[i] * l;
      sum_l2 += w[i] * l * l;
      sum_xl += w[i] * l * x[i];
    }
    const float determinant = sum_w * sum_l2 - sum_l * sum_l;
    if (!(determinant > 0)) continue;
    float new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
    float new_lo = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    if (new_lo > 0) {
      new_lo = 0;
      new_scale = sum_xl / sum_l2;
    }
    const float error = error_of(new_scale, new_lo);
    if (error < least) {
      std::copy_n(tried, n, code);
      least = error;
      scale = new_scale;
      lo = new_lo;
    }
  }
  return {scale, -lo};
}

// One code after another is moved to where the rest would have it, while that helps: A = sum of
// (w x) l, B = sum of (w l) l, and A A / B grows. `low` is added to codes. Returns the scale.
template <class CodeOf>
float move_codes(std::size_t n, const float* x, const float* w, bool check_first, int low,
                 CodeOf code_of, Code* code) noexcept {
  float a = 0, b = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto l = static_cast<float>(code[i] + low);
    a += w[i] * x[i] * l;
    b += w[i] * l * l;
  }
  for (int pass = 0; pass < 5; ++pass) {
    bool changed = false;
    for (std::size_t i = 0; i < n; ++i) {
      const int old = code[i] + low;
      const auto l = static_cast<float>(old);
      float new_a = a - w[i] * x[i] * l, new_b = b - w[i] * l * l;
      if (!(new_a > 0) || (check_first && !(new_b > 0))) continue;
      const int moved = code_of(x[i] * new_b / new_a);
      if (moved == old) continue;
      const auto m = static_cast<float>(moved);
      new_a += w[i] * x[i] * m;
      new_b += w[i] * m * m;
      if (!(new_b > 0) || !(new_a * new_a * b > a * a * new_b)) continue;
      code[i] = static_cast<Code>(moved - low);
      a = new_a;
      b = new_b;
      changed = true;
    }
    if (!changed) break;
  }
  return b > 0 ? a / b : 0;
}

// Scales or minima of groups: x ~ scale * code, nothing negative.
float fit_positive(std::size_t n, int most, const float* x, const float* w, Code* code) noexcept {
  float largest = 0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, x[i]);
  std::fill_n(code, n, Code{0});
  if (largest < kTiny) return 0;
  const auto top = static_cast<float>(most);
  float best_inverse = top / largest, least = 0;
  for (int trial = 0; trial < 9; ++trial) {
    const int s = trial == 0 ? 0 : trial <= 4 ? trial - 5 : trial - 4;
    const float inverse =
        trial == 0 ? best_inverse : (0.1f * static_cast<float>(s) + top) / largest;
    const float scale = 1 / inverse;
    float error = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const int l = std::min(most, nearest_int(inverse * x[i]));
      const float e = x[i] - scale * static_cast<float>(l);
      error += w[i] * e * e;
    }
    if (trial != 0 && !(error < least)) continue;
    least = error;
    best_inverse = inverse;
  }
  for (std::size_t i = 0; i < n; ++i)
    code[i] = static_cast<Code>(std::min(most, nearest_int(best_inverse * x[i])));
  return move_codes(
      n, x, w, true, 0, [&](float v) { return std::min(most, nearest_int(v)); }, code);
}

// Sixteen values to -4 .. 3, stored from 0.
float fit_three_bits(const float* x, Code* code) noexcept {
  const float largest = first_largest(16, x);
  std::fill_n(code, 16, Code{0});
  if (std::abs(largest) < kTiny) return 0;
  const auto code_of = [](float v) { return std::clamp(nearest_int(v), -4, 3); };
  const float inverse = -4 / largest;
  float w[16];
  square_weights(16, x, w);
  for (std::size_t i = 0; i < 16; ++i) code[i] = static_cast<Code>(code_of(inverse * x[i]) + 4);
  return move_codes(16, x, w, false, -4, code_of, code);
}

// ---- Packing

// Two bits of each: byte m of a half holds elements m, m + 32, m + 64 and m + 96.
void put_two_bits(const Code* code, std::byte* out) noexcept {
  for (std::size_t m = 0; m < 64; ++m) {
    const Code* c = code + m / 32 * 128 + m % 32;
    out[m] =
        static_cast<std::byte>((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
  }
}
// Elements of two halves of a run of 2 * `half`.
void put_nibbles(std::size_t n, std::size_t half, const Code* code, std::byte* out) noexcept {
  for (std::size_t m = 0; m < n / 2; ++m) {
    const Code* c = code + m / half * 2 * half + m % half;
    out[m] = static_cast<std::byte>((c[0] & 15) | (c[half] & 15) << 4);
  }
}
void put_fifth_bits(const Code* code, std::byte* out) noexcept {
  std::uint32_t bits = 0;
  for (unsigned i = 0; i < 32; ++i) bits |= (code[i] >> 4 & 1u) << i;
  std::memcpy(out, &bits, 4);
}
// Six bits each of eight scales and eight minima in twelve bytes.
void put_scales_and_minima(const Code* scale, const Code* minimum, std::byte* out) noexcept {
  for (std::size_t j = 0; j < 4; ++j) {
    out[j] = static_cast<std::byte>(scale[j] | scale[j + 4] >> 4 << 6);
    out[j + 4] = static_cast<std::byte>(minimum[j] | minimum[j + 4] >> 4 << 6);
    out[j + 8] = static_cast<std::byte>((scale[j + 4] & 15) | (minimum[j + 4] & 15) << 4);
  }
}

// ---- A super-block

struct Block {
  const float* x;
  const float* importance;  // null: none
};

template <std::size_t kElements, std::size_t kBytes>
void each_block(const BlockRows& in, std::byte* out,
                void (*encode)(const Block&, std::byte*) noexcept) noexcept {
  for (std::size_t r = 0; r < in.rows; ++r)
    for (std::size_t c = 0; c < in.columns; c += kElements, out += kBytes)
      encode({in.values + r * in.columns + c, in.importance ? in.importance + c : nullptr}, out);
}

// What the types with a scale and a minimum for each group share.
template <int kMost, int kScaleMost, std::size_t kGroup>
struct AffineBlock {
  static constexpr std::size_t kGroups = kSuper / kGroup;
  Code code[kSuper], scale[kGroups], minimum[kGroups];
  float d = 0, dmin = 0;  // before they are rounded to f16

  void fit(const Block& block, const Trials& trials) noexcept {
    float scales[kGroups], minima[kGroups], weights[kGroups];
    const float mean = (kGroup == 32 ? 2 : 1) * sum_of_squares(kSuper, block.x) / kSuper;
    for (std::size_t j = 0; j < kGroups; ++j) {
      const float* x = block.x + j * kGroup;
      float w[kGroup];
      if (block.importance != nullptr) {
        importance_weights(kGroup, x, block.importance + j * kGroup, mean, w);
      } else {
        const float base = trials.absolute ? 0 : std::sqrt(sum_of_squares(kGroup, x) / kGroup);
        for (std::size_t i = 0; i < kGroup; ++i) w[i] = base + std::abs(x[i]);
      }
      weights[j] = 0;
      for (const float v : w) weights[j] += v;
      const Affine fitted =
          fit_affine(kGroup, kMost, x, w, block.importance ? kWeighted : trials, code + j * kGroup);
      scales[j] = fitted.scale;
      minima[j] = fitted.minimum;
    }
    if (block.importance != nullptr) {
      d = fit_positive(kGroups, kScaleMost, scales, weights, scale);
      dmin = fit_positive(kGroups, kScaleMost, minima, weights, minimum);
    } else {
      d = round_scales(scales, scale);
      dmin = round_scales(minima, minimum);
    }
    requantise(block.x);
  }

 private:
  static float round_scales(const float* values, Code* to) noexcept {
    float most = 0;
    for (std::size_t j = 0; j < kGroups; ++j) most = std::max(most, values[j]);
    const float inverse = most > 0 ? kScaleMost / most : 0;
    for (std::size_t j = 0; j < kGroups; ++j) {
      const auto l = static_cast<Code>(nearest_int(inverse * values[j]));
      to[j] = most > 0 ? std::min<Code>(l, kScaleMost) : Code{0};
    }
    return most > 0 ? most / kScaleMost : 0;
  }
  // With the scales as they are stored. Where that is zero the codes of the search stay.
  void requantise(const float* x) noexcept {
    const float stored_d = as_f16(d), stored_dmin = as_f16(dmin);
    for (std::size_t j = 0; j < kGroups; ++j) {
      const float step = stored_d * scale[j], low = stored_dmin * minimum[j];
      if (step == 0) continue;
      for (std::size_t i = j * kGroup; i < (j + 1) * kGroup; ++i)
        code[i] = static_cast<Code>(std::clamp(nearest_int((x[i] + low) / step), 0, kMost));
    }
  }
};

void q2_k(const Block& block, std::byte* out) noexcept {
  AffineBlock<3, 15, 16> q;
  q.fit(block, {-0.5f, 0.1f, 15, true});
  for (std::size_t j = 0; j < 16; ++j)
    out[j] = static_cast<std::byte>(q.scale[j] | q.minimum[j] << 4);
  put_two_bits(q.code, out + 16);
  put_f16(q.d, out + 80);
  put_f16(q.dmin, out + 82);
}

void q4_k(const Block& block, std::byte* out) noexcept {
  AffineBlock<15, 63, 32> q;
  q.fit(block, {-1, 0.1f, 20, false});
  put_f16(q.d, out);
  put_f16(q.dmin, out + 2);
  put_scales_and_minima(q.scale, q.minimum, out + 4);
  put_nibbles(kSuper, 32, q.code, out + 16);
}

void q5_k(const Block& block, std::byte* out) noexcept {
  AffineBlock<31, 63, 32> q;
  q.fit(block, {-0.5f, 0.1f, 15, false});
  put_f16(q.d, out);
  put_f16(q.dmin, out + 2);
  put_scales_and_minima(q.scale, q.minimum, out + 4);
  for (std::size_t m = 0; m < 32; ++m) {
    unsigned bits = 0;
    for (unsigned j = 0; j < 8; ++j) bits |= (q.code[32 * j + m] >> 4 & 1u) << j;
    out[16 + m] = static_cast<std::byte>(bits);
  }
  put_nibbles(kSuper, 32, q.code, out + 48);
}

float signed_largest_scale(const float (&scales)[16]) noexcept {
  return first_largest(16, scales);
}

// Codes of both signs, stored from 0, with the scale d * (its code).
void requantise_symmetric(const float* x, float step, int most, Code* code) noexcept {
  if (step == 0) return;
  for (std::size_t i = 0; i < 16; ++i)
    code[i] = static_cast<Code>(std::clamp(nearest_int(x[i] / step), -most, most - 1) + most);
}

// Six bits each of sixteen scales: the low four in eight bytes, the high two in four.
void put_q3_scales(const Code (&scale)[16], std::byte* out) noexcept {
  std::memset(out, 0, 12);
  for (std::size_t j = 0; j < 16; ++j) {
    out[j % 8] |= static_cast<std::byte>((scale[j] & 15) << (j < 8 ? 0 : 4));
    out[8 + j % 4] |= static_cast<std::byte>((scale[j] >> 4) << 2 * (j / 4));
  }
}

// The scales of Q3_K's groups and their codes (from 0); returns d.
float q3_scales(const Block& block, Code* code, Code (&scale)[16]) noexcept {
  float scales[16], weights[16];
  const float mean = 2 * sum_of_squares(kSuper, block.x) / kSuper;
  for (std::size_t j = 0; j < 16; ++j) {
    const float* x = block.x + 16 * j;
    if (block.importance == nullptr) {
      scales[j] = fit_three_bits(x, code + 16 * j);
      continue;
    }
    float w[16];
    importance_weights(16, x, block.importance + 16 * j, mean, w);
    weights[j] = 0;
    for (const float v : w) weights[j] += v;
    scales[j] = fit_symmetric(16, 4, x, w, code + 16 * j);
  }
  if (block.importance != nullptr) return fit_symmetric(16, 32, scales, weights, scale);

  const float most = signed_largest_scale(scales);
  std::fill_n(scale, 16, Code{0});
  if (most == 0) return 0;
  const float inverse = -32 / most;
  for (std::size_t j = 0; j < 16; ++j)
    scale[j] = static_cast<Code>(std::clamp(nearest_int(inverse * scales[j]), -32, 31) + 32);
  return 1 / inverse;
}

void q3_k(const Block& block, std::byte* out) noexcept {
  Code code[kSuper], scale[16];
  const float d = q3_scales(block, code, scale);
  for (std::size_t j = 0; j < 16; ++j)
    requantise_symmetric(block.x + 16 * j, as_f16(d) * static_cast<float>(scale[j] - 32), 4,
                         code + 16 * j);
  for (std::size_t m = 0; m < 32; ++m) {
    unsigned bits = 0;
    for (unsigned j = 0; j < 8; ++j) bits |= (code[32 * j + m] >> 2 & 1u) << j;
    out[m] = static_cast<std::byte>(bits);
  }
  put_two_bits(code, out + 32);
  put_q3_scales(scale, out + 96);
  put_f16(d, out + 108);
}

void q6_k(const Block& block, std::byte* out) noexcept {
  Code code[kSuper];
  float scales[16];
  for (std::size_t j = 0; j < 16; ++j) {
    const float* x = block.x + 16 * j;
    float w[16];
    if (block.importance != nullptr)
      std::copy_n(block.importance + 16 * j, 16, w);
    else
      square_weights(16, x, w);
    scales[j] = fit_symmetric(16, 32, x, w, code + 16 * j);
  }
  std::memset(out, 0, 210);
  const float most = signed_largest_scale(scales);
  if (std::abs(most) < kTiny) return;
  const float inverse = -128 / most, d = 1 / inverse;
  for (std::size_t j = 0; j < 16; ++j) {
    const auto l = static_cast<std::int8_t>(std::min(127, nearest_int(inverse * scales[j])));
    out[192 + j] = static_cast<std::byte>(l);
    requantise_symmetric(block.x + 16 * j, as_f16(d) * l, 32, code + 16 * j);
  }
  put_f16(d, out + 208);
  put_nibbles(128, 64, code, out);
  put_nibbles(128, 64, code + 128, out + 64);
  for (Code& c : code) c = static_cast<Code>(c >> 4);
  put_two_bits(code, out + 128);
}

// ---- Codes from a table

constexpr float kTable[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                              1,    13,   25,  38,  53,  69,  89,  113};

Code nearest_in_table(float v) noexcept {
  if (v <= kTable[0]) return 0;
  if (v >= kTable[15]) return 15;
  unsigned above = 1;
  while (above < 15 && !(v < kTable[above])) ++above;
  return static_cast<Code>(v - kTable[above - 1] < kTable[above] - v ? above - 1 : above);
}

// The scale of 32 values in steps of the table. mean_square: for the importance.
float fit_table(const float* x, const float* importance, float mean_square) noexcept {
  const float largest = first_largest(32, x);
  if (std::abs(largest) < kTiny) return 0;
  float w[32];
  if (importance != nullptr)
    importance_weights(32, x, importance, mean_square, w);
  else
    square_weights(32, x, w);
  float d = 0, score = 0;
  for (int trial = -8; trial <= 7; ++trial) {
    const bool first = trial == -8;
    const float inverse =
        first ? 1 / (-largest / kTable[0]) : (static_cast<float>(trial) + kTable[0]) / largest;
    float a = 0, b = 0;
    for (std::size_t i = 0; i < 32; ++i) {
      const float q = kTable[nearest_in_table(inverse * x[i])];
      a += w[i] * q * x[i];
      b += w[i] * q * q;
    }
    if (!first && !(b > 0 && a * a > score * b)) continue;
    d = b > 0 ? a / b : 0;
    score = d * a;
  }
  return d;
}

void table_codes(const float* x, float d, Code* code) noexcept {
  const float inverse = inverse_or_zero(d);
  for (std::size_t i = 0; i < 32; ++i) code[i] = nearest_in_table(inverse * x[i]);
}

void iq4_nl(const Block& block, std::byte* out) noexcept {
  const float mean = sum_of_squares(32, block.x) * (2.0f / 32);
  const float d = fit_table(block.x, block.importance, mean);
  Code code[32];
  table_codes(block.x, d, code);
  put_f16(d, out);
  put_nibbles(32, 16, code, out + 2);
}

void iq4_xs(const Block& block, std::byte* out) noexcept {
  const float mean = sum_of_squares(kSuper, block.x) * (2.0f / kSuper);
  float scales[8];
  for (std::size_t j = 0; j < 8; ++j)
    scales[j] =
        fit_table(block.x + 32 * j, block.importance ? block.importance + 32 * j : nullptr, mean);
  const float d = -first_largest(8, scales) / 32, inverse = inverse_or_zero(d);
  Code code[kSuper];
  std::memset(out, 0, 8);
  unsigned high = 0;
  for (unsigned j = 0; j < 8; ++j) {
    const int l = std::clamp(nearest_int(inverse * scales[j]), -32, 31);
    table_codes(block.x + 32 * j, d * static_cast<float>(l), code + 32 * j);
    const auto stored = static_cast<unsigned>(l + 32);
    out[4 + j / 2] |= static_cast<std::byte>((stored & 15) << 4 * (j % 2));
    high |= (stored >> 4) << 2 * j;
  }
  put_f16(d, out);
  const auto high16 = static_cast<std::uint16_t>(high);
  std::memcpy(out + 2, &high16, 2);
  put_nibbles(kSuper, 16, code, out + 8);
}

// ---- The plain types, weighted: the mean square is that of the whole row

template <std::size_t kBytes, class Encode>
void each_weighted(const BlockRows& in, std::byte* out, Encode encode) noexcept {
  for (std::size_t r = 0; r < in.rows; ++r)
    for (std::size_t c = 0; c < in.columns; c += 32, out += kBytes) {
      const float* x = in.values + r * in.columns + c;
      float w[32];
      importance_weights(32, x, in.importance + c, in.mean_square[r], w);
      encode(x, w, out);
    }
}

template <int kMost, std::size_t kBytes>
void weighted_symmetric(const BlockRows& in, std::byte* out) noexcept {
  each_weighted<kBytes>(in, out, [](const float* x, const float* w, std::byte* to) {
    Code code[32];
    put_f16(fit_symmetric(32, kMost, x, w, code), to);
    if constexpr (kMost == 16) put_fifth_bits(code, to + 2);
    put_nibbles(32, 16, code, to + kBytes - 16);
  });
}

template <int kMost, std::size_t kBytes>
void weighted_affine(const BlockRows& in, std::byte* out) noexcept {
  each_weighted<kBytes>(in, out, [](const float* x, const float* w, std::byte* to) {
    Code code[32];
    const Affine fitted = fit_affine(32, kMost, x, w, kWeighted, code);
    put_f16(fitted.scale, to);
    put_f16(-fitted.minimum, to + 2);
    if constexpr (kMost == 31) put_fifth_bits(code, to + 4);
    put_nibbles(32, 16, code, to + kBytes - 16);
  });
}

}  // namespace

void quantize_q2_k(const BlockRows& in, std::byte* out) noexcept {
  each_block<kSuper, 84>(in, out, &q2_k);
}
void quantize_q3_k(const BlockRows& in, std::byte* out) noexcept {
  each_block<kSuper, 110>(in, out, &q3_k);
}
void quantize_q4_k(const BlockRows& in, std::byte* out) noexcept {
  each_block<kSuper, 144>(in, out, &q4_k);
}
void quantize_q5_k(const BlockRows& in, std::byte* out) noexcept {
  each_block<kSuper, 176>(in, out, &q5_k);
}
void quantize_q6_k(const BlockRows& in, std::byte* out) noexcept {
  each_block<kSuper, 210>(in, out, &q6_k);
}
void quantize_iq4_nl(const BlockRows& in, std::byte* out) noexcept {
  each_block<32, 18>(in, out, &iq4_nl);
}
void quantize_iq4_xs(const BlockRows& in, std::byte* out) noexcept {
  each_block<kSuper, 136>(in, out, &iq4_xs);
}
void quantize_weighted_q4_0(const BlockRows& in, std::byte* out) noexcept {
  weighted_symmetric<8, 18>(in, out);
}
void quantize_weighted_q4_1(const BlockRows& in, std::byte* out) noexcept {
  weighted_affine<15, 20>(in, out);
}
void quantize_weighted_q5_0(const BlockRows& in, std::byte* out) noexcept {
  weighted_symmetric<16, 22>(in, out);
}
void quantize_weighted_q5_1(const BlockRows& in, std::byte* out) noexcept {
  weighted_affine<31, 24>(in, out);
}

}  // namespace wtool::scalar
