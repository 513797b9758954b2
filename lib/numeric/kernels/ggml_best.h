#pragma once
#include <cstddef>
#include <cstdint>

// What the searches for better blocks (ggml_best_scale.cc, ggml_best_k.cc) try their scales with:
// many at once, one in each lane. Only additions, products, quotients and roundings of one lane, in
// the order of the elements: every instruction set gives the same numbers.
namespace wtool::best {

// The values of a group: x, and how much each one's error counts.
struct Values {
  const float* x;
  const float* weight;  // null: all alike
  std::size_t count;
};

// What a code can mean before it is scaled: the integers lo to hi, or one of two tables.
struct Levels {
  enum class Kind : std::uint8_t { Integers, Iq4, E2m1 } kind;
  float lo, hi;
};

// The values of the types IQ4 and (halves of E2M1, doubled) MXFP4 and NVFP4.
inline constexpr float kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr float kE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Half to even, for |v| below 2^22; and limits as the vector instructions Max and Min have them.
inline float rounded(float v) noexcept {
  return (v + 0x1.8p23f) - 0x1.8p23f;
}
inline float within(float v, float lo, float hi) noexcept {
  v = v > lo ? v : lo;
  return v < hi ? v : hi;
}

// 0 for scales so small that the inverse would be infinite.
inline constexpr float kLeastScale = 0x1p-126f;
inline float inverse_of(float scale) noexcept {
  return scale >= kLeastScale || scale <= -kLeastScale ? 1 / scale : 0;
}

// Halfway between neighbours of a table.
constexpr float middle(const float* table, int i) {
  return (table[i] + table[i + 1]) / 2;
}

// The level nearest to the value; in the tables, of two as near the one further from the first.
template <Levels::Kind kKind>
float nearest_of(float lo, float hi, float value) noexcept {
  if constexpr (kKind == Levels::Kind::Integers) return rounded(within(value, lo, hi));
  const float* table = kKind == Levels::Kind::Iq4 ? kIq4 : kE2m1;
  const float v = kKind == Levels::Kind::E2m1 && value < 0 ? -value : value;
  int at = 0;
  for (int half = kKind == Levels::Kind::Iq4 ? 8 : 4; half > 0; half /= 2)
    at += v >= middle(table, at + half - 1) ? half : 0;
  return kKind == Levels::Kind::E2m1 && value < 0 ? -table[at] : table[at];
}
template <class Type>
float nearest(float value) noexcept {
  return nearest_of<Type::kLevels.kind>(Type::kLevels.lo, Type::kLevels.hi, value);
}

// Trials come in runs of this many: the arrays below are that long at least.
inline constexpr std::size_t kTrials = 32;
constexpr std::size_t whole_trials(std::size_t count) {
  return (count + kTrials - 1) / kTrials * kTrials;
}

// Levels by x * inverse[t]. gain[t]: by how much the sum of squares falls if those levels get the
// scale that suits them best; 0 if all are 0.
void fit_scales(const Levels&, const Values&, const float* inverse, std::size_t trials,
                float* gain) noexcept;
// error[t] = sum of weight * (x - level * scale[t])^2, levels by x * inverse_of(scale[t]).
void scale_errors(const Levels&, const Values&, const float* scale, std::size_t trials,
                  float* error) noexcept;
// error[t] = sum of weight * (x + offset[t] - q * scale[t])^2, q the nearest of 0 to `top`.
void offset_errors(float top, const Values&, const float* scale, const float* offset,
                   std::size_t trials, float* error) noexcept;

// Codes by (x + offset[t]) * inverse[t], then the scale and offset that suit those codes best. An
// offset of the wrong sign becomes 0 (sign 0: none is wrong), and the scale the best with that.
struct Fits {
  float *gain, *scale, *offset;  // gain: as in fit_scales()
};
void fit_offsets(float top, int sign, const Values&, const float* inverse, const float* offset,
                 std::size_t trials, const Fits& out) noexcept;

// The first of the least values, and of the greatest among those below the limit (-1: none is).
std::size_t first_least(const float* values, std::size_t trials) noexcept;
struct Pick {
  float value;
  int at;
};
Pick first_greatest(const float* values, std::size_t trials, float below) noexcept;

}  // namespace wtool::best
