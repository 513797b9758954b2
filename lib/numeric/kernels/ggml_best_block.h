#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/kernels/ggml_best.h"
#include "lib/numeric/kernels/kernels.h"

// What the searches for better blocks share: a block taken apart, its error, the values of a block
// brought to a common size, and the walk over the rows.
namespace wtool::best {

inline constexpr std::size_t kMost = 256;  // elements of a block
inline constexpr double kNever = std::numeric_limits<double>::infinity();

// A block of any type taken apart. An element is scale_of(group) * level(code) - m * min, the last
// part only for types with offsets; what scale_of() makes of d and scale is the type's affair.
struct Block {
  std::uint16_t d = 0, m = 0;  // as stored, mostly f16
  std::int16_t scale[16] = {}, min[16] = {};
  std::uint8_t code[kMost] = {};
};

inline std::uint16_t u16_at(const std::byte* p) noexcept {
  std::uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}
inline void put_u16(std::byte* p, std::uint16_t v) noexcept {
  std::memcpy(p, &v, 2);
}

inline double weight_of(const Values& v, std::size_t i) noexcept {
  return v.weight ? static_cast<double>(v.weight[i]) : 1.0;
}

template <class Type>
float level_of(unsigned code) noexcept {
  if constexpr (Type::kLevels.kind == Levels::Kind::Iq4) return kIq4[code];
  if constexpr (Type::kLevels.kind == Levels::Kind::E2m1) return kE2m1[code];
  return static_cast<float>(static_cast<int>(code) - Type::kZero);
}

// As a reader decodes it, with the errors added up in order. Infinite if an element is not finite.
template <class Type>
double error_of(const Block& block, const Values& v) noexcept {
  const float m = Type::kOffsets ? f16_value(block.m) : 0;
  double error = 0;
  for (std::size_t g = 0; g < Type::kElements / Type::kGroup; ++g) {
    const float scale = Type::scale_of(block, g), offset = m * static_cast<float>(block.min[g]);
    for (std::size_t i = g * Type::kGroup; i < (g + 1) * Type::kGroup; ++i) {
      float value = scale * level_of<Type>(block.code[i]);
      if constexpr (Type::kOffsets) value -= offset;
      const double off = static_cast<double>(value) - static_cast<double>(v.x[i]);
      error += weight_of(v, i) * (off * off);
    }
  }
  return error < kNever ? error : kNever;
}

inline double power_of_two(int exponent) noexcept {
  return std::bit_cast<double>(static_cast<std::uint64_t>(1023 + exponent) << 52);
}

// Values of no importance get a little in the search, so that they too are stored as what they are
// where that costs next to nothing.
inline constexpr float kLittle = 0x1p-22f;

struct Range {
  float lo, hi;
};
// Of the values that count more than a little, or of all if none does.
inline Range range_of(const Values& v) noexcept {
  constexpr float kFar = std::numeric_limits<float>::infinity();
  Range all{kFar, -kFar}, counted = all;
  for (std::size_t i = 0; i < v.count; ++i) {
    all = {std::min(all.lo, v.x[i]), std::max(all.hi, v.x[i])};
    if (v.weight && v.weight[i] > kLittle)
      counted = {std::min(counted.lo, v.x[i]), std::max(counted.hi, v.x[i])};
  }
  return counted.lo <= counted.hi ? counted : all;
}

// The values of a block times a power of two that brings the greatest to [1, 2), and the weights
// likewise: no square of theirs overflows, whatever the block.
struct Scaled {
  alignas(64) float x[kMost], weight[kMost];
  double up = 1, down = 1;
  float most = 0;     // the greatest |x| that counts at all
  Values values{};    // the arrays above
  bool blank = true;  // nothing but zeros
};

// A brought size and back.
inline int exponent_of(float v) noexcept {
  int e;
  std::frexp(v, &e);
  return e - 1;
}

inline void scale_to(Scaled& out, const Values& v) noexcept {
  float most = 0, heaviest = 0;
  for (std::size_t i = 0; i < v.count; ++i) {
    if (v.weight) heaviest = std::max(heaviest, v.weight[i]);
    if (!v.weight || v.weight[i] > 0) most = std::max(most, std::abs(v.x[i]));
  }
  out.blank = most == 0;
  if (out.blank) return;
  const int e = exponent_of(most);
  out.up = power_of_two(-e);
  out.down = power_of_two(e);
  const double lighter = heaviest > 0 ? power_of_two(-exponent_of(heaviest)) : 1;
  for (std::size_t i = 0; i < v.count; ++i) {
    // What does not count may be as great as it likes.
    const double x = static_cast<double>(v.x[i]) * out.up;
    out.x[i] = static_cast<float>(std::clamp(x, -4.0, 4.0));
    if (v.weight)
      out.weight[i] =
          std::max(kLittle, static_cast<float>(static_cast<double>(v.weight[i]) * lighter));
  }
  out.most = static_cast<float>(static_cast<double>(most) * out.up);
  out.values = {out.x, v.weight ? out.weight : nullptr, v.count};
}

// A scale as f16 stores it, and its value in the size of the block's values.
struct Half {
  std::uint16_t bits;
  float value;
  Half(std::uint16_t stored, const Scaled& s)
      : bits(stored), value(static_cast<float>(static_cast<double>(f16_value(stored)) * s.up)) {}
};
// The nearest; what is too great becomes the greatest.
inline Half half_of(double value, const Scaled& s) noexcept {
  const float real = static_cast<float>(std::clamp(value * s.down, -65504.0, 65504.0));
  return {real == real ? f16_bits(real) : std::uint16_t{0}, s};
}

template <class Type>
std::uint8_t code_of(float level) noexcept {
  if constexpr (Type::kLevels.kind == Levels::Kind::Iq4)
    return static_cast<std::uint8_t>(std::find(kIq4, kIq4 + 15, level) - kIq4);
  if constexpr (Type::kLevels.kind == Levels::Kind::E2m1)
    return static_cast<std::uint8_t>(std::find(kE2m1, kE2m1 + 15, level) - kE2m1);
  return static_cast<std::uint8_t>(static_cast<int>(level) + Type::kZero);
}

// Weighted sums over elements that least squares are solved from: of 1, x, q, q q and x q.
struct Sums {
  double w = 0, x = 0, q = 0, qq = 0, xq = 0;
  void add(double weight, float value, float level) noexcept {
    const double of_x = weight * static_cast<double>(value), code = static_cast<double>(level);
    w += weight;
    x += of_x;
    q += weight * code;
    qq += weight * code * code;
    xq += of_x * code;
  }
};

// Leaves in `out`, which holds the reference's block, the best of it, `also` (or null) and what
// search(scaled, block) makes of the better one.
template <class Type, class Search>
void best_block(Values v, std::byte* out, const std::byte* also, Search& search) noexcept {
  // Where nothing counts, everything does.
  if (v.weight && std::all_of(v.weight, v.weight + v.count, [](float w) { return !(w > 0); }))
    v.weight = nullptr;
  Block best;
  Type::unpack(out, best);
  double error = error_of<Type>(best, v);
  const auto offer = [&](const Block& block) {
    const double e = error_of<Type>(block, v);
    if (!(e < error)) return;
    error = e;
    best = block;
    Type::pack(block, out);
  };
  Block trial;
  if (also) {
    Type::unpack(also, trial);
    offer(trial);
  }
  Scaled scaled;
  scale_to(scaled, v);
  if (error == 0) return;
  trial = scaled.blank ? Block{} : best;
  if (!scaled.blank) search(scaled, trial);
  offer(trial);
}

// Every block of the rows. Without importance, or where the type's reference takes none of it,
// `weighted` is null; errors are weighted all the same.
template <class Type, class Search>
void best_rows(const BlockRows& rows, std::byte* out, QuantizeRows plain, QuantizeRows weighted,
               Search search) noexcept {
  constexpr std::size_t kRun = 16;  // how many blocks the plain quantiser is given at a time
  const bool weighs = rows.importance && weighted;
  (weighs ? weighted : plain)(rows, out);
  const std::size_t blocks = rows.columns / Type::kElements;
  for (std::size_t row = 0; row < rows.rows; ++row) {
    const float* x = rows.values + row * rows.columns;
    for (std::size_t at = 0; at < blocks; at += kRun) {
      const std::size_t run = std::min(kRun, blocks - at);
      std::byte also[kRun * Type::kBytes];
      if (weighs) plain({x, 1, run * Type::kElements}, also);
      for (std::size_t b = 0; b < run; ++b, x += Type::kElements, out += Type::kBytes) {
        const std::size_t column = (at + b) * Type::kElements;
        const Values v{x, rows.importance ? rows.importance + column : nullptr, Type::kElements};
        best_block<Type>(v, out, weighs ? also + b * Type::kBytes : nullptr, search);
      }
    }
  }
}

}  // namespace wtool::best
