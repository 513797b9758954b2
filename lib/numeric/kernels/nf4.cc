#include "lib/numeric/kernels/nf4.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/nf4.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef WTOOL_NF4_TABLE
#define WTOOL_NF4_TABLE
namespace wtool {
namespace {

constexpr std::size_t kStripes = 16;

// Between neighbouring levels, rounded to f32 twice as the reference's comparison does.
constexpr std::array<float, 15> kMiddles = [] {
  std::array<float, 15> out{};
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = (kNf4Levels[i] + kNf4Levels[i + 1]) * 0.5f;
  return out;
}();

// All for one block whose values are multiplied by `factor` first.
struct Nf4Kernels {
  float (*largest)(const float* in, std::size_t n) noexcept;
  void (*codes)(const float* in, std::size_t n, float factor, std::uint8_t* out) noexcept;
  // Element i goes to stripe i mod 16 of both sums, which are folded in halves: one order for every
  // vector width.
  Nf4Fit (*fit)(const float* in, const float* weights, std::size_t n, float factor) noexcept;
};

unsigned code_of(float x) noexcept {
  unsigned code = 0;
  for (const float m : kMiddles) code += m < x;
  return code;
}

Nf4Fit fit_scalar(const float* in, const float* weights, std::size_t n, float factor) noexcept {
  float cross[kStripes] = {}, square[kStripes] = {};
  for (std::size_t i = 0; i < n; ++i) {
    const float level = kNf4Levels[code_of(in[i] * factor)], weighted = weights[i] * level;
    cross[i % kStripes] += in[i] * weighted;
    square[i % kStripes] += level * weighted;
  }
  for (std::size_t half = kStripes / 2; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) {
      cross[i] += cross[i + half];
      square[i] += square[i + half];
    }
  return {cross[0], square[0]};
}

}  // namespace
}  // namespace wtool
#endif  // WTOOL_NF4_TABLE

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::CappedTag<float, kStripes> kF32;
constexpr hn::Rebind<std::int32_t, decltype(kF32)> kI32;
constexpr hn::Rebind<std::uint8_t, decltype(kF32)> kU8;
using F32 = hn::Vec<decltype(kF32)>;
using I32 = hn::Vec<decltype(kI32)>;
inline constexpr std::size_t kLanes = hn::MaxLanes(kF32), kVectors = kStripes / kLanes;

static float largest(const float* in, std::size_t n) noexcept {
  F32 most = hn::Zero(kF32);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) most = hn::Max(most, hn::Abs(hn::LoadU(kF32, in + i)));
  float out = hn::GetLane(hn::MaxOfLanes(kF32, most));
  for (; i < n; ++i) out = std::max(out, std::abs(in[i]));
  return out;
}

// How many middles are below x. Sixteen lanes hold all of them: a search tree with its root at 1
// and the children of i at 2 i and 2 i + 1.
HWY_INLINE static I32 codes_of(F32 x) {
  if constexpr (kLanes == kStripes) {
    static constexpr float kTree[kStripes] = {
        0,           kMiddles[7],  kMiddles[3],  kMiddles[11], kMiddles[1], kMiddles[5],
        kMiddles[9], kMiddles[13], kMiddles[0],  kMiddles[2],  kMiddles[4], kMiddles[6],
        kMiddles[8], kMiddles[10], kMiddles[12], kMiddles[14]};
    const F32 tree = hn::LoadU(kF32, kTree);
    I32 at = hn::Set(kI32, 1);
    for (int level = 0; level < 4; ++level) {
      const F32 middle = hn::TableLookupLanes(tree, hn::IndicesFromVec(kF32, at));
      const I32 right = hn::BitCast(kI32, hn::VecFromMask(kF32, hn::Lt(middle, x)));
      at = hn::Sub(hn::Add(at, at), right);  // a true comparison is -1
    }
    return hn::Sub(at, hn::Set(kI32, 16));
  } else {
    I32 code = hn::Zero(kI32);
    for (const float m : kMiddles)
      code = hn::Sub(code, hn::BitCast(kI32, hn::VecFromMask(kF32, hn::Lt(hn::Set(kF32, m), x))));
    return code;
  }
}
HWY_INLINE static F32 levels_of(F32 x) {
  if constexpr (kLanes == kStripes) {
    return hn::TableLookupLanes(hn::LoadU(kF32, kNf4Levels.data()),
                                hn::IndicesFromVec(kF32, codes_of(x)));
  } else {
    F32 level = hn::Set(kF32, kNf4Levels[0]);
    for (std::size_t m = 0; m < kMiddles.size(); ++m)
      level = hn::IfThenElse(hn::Lt(hn::Set(kF32, kMiddles[m]), x),
                             hn::Set(kF32, kNf4Levels[m + 1]), level);
    return level;
  }
}

static void codes(const float* in, std::size_t n, float factor, std::uint8_t* out) noexcept {
  const F32 by = hn::Set(kF32, factor);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    hn::StoreU(hn::DemoteTo(kU8, codes_of(hn::Mul(hn::LoadU(kF32, in + i), by))), kU8, out + i);
  for (; i < n; ++i) out[i] = static_cast<std::uint8_t>(code_of(in[i] * factor));
}

// The sum of 16 stripes, kept in as many vectors as that takes.
HWY_INLINE static float folded(F32* stripes) {
  for (std::size_t half = kVectors / 2; half > 0; half /= 2)
    for (std::size_t v = 0; v < half; ++v) stripes[v] = hn::Add(stripes[v], stripes[v + half]);
  alignas(64) float lanes[kLanes];
  hn::Store(stripes[0], kF32, lanes);
  if constexpr (kLanes == 16) {
    constexpr hn::Half<decltype(kF32)> kHalf;
    hn::Store(hn::Add(hn::LowerHalf(kHalf, stripes[0]), hn::UpperHalf(kHalf, stripes[0])), kHalf,
              lanes);
  }
  if constexpr (kLanes >= 8) {
    constexpr hn::CappedTag<float, 4> kFour;
    hn::Store(hn::Add(hn::Load(kFour, lanes), hn::Load(kFour, lanes + 4)), kFour, lanes);
  }
  return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

static Nf4Fit fit(const float* in, const float* weights, std::size_t n, float factor) noexcept {
  if (n % kStripes != 0) return fit_scalar(in, weights, n, factor);
  const F32 by = hn::Set(kF32, factor);
  F32 cross[kVectors], square[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) cross[v] = square[v] = hn::Zero(kF32);
  for (std::size_t i = 0; i < n; i += kStripes)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const std::size_t at = i + v * kLanes;
      const F32 value = hn::LoadU(kF32, in + at), level = levels_of(hn::Mul(value, by));
      const F32 weighted = hn::Mul(hn::LoadU(kF32, weights + at), level);
      cross[v] = hn::Add(cross[v], hn::Mul(value, weighted));
      square[v] = hn::Add(square[v], hn::Mul(level, weighted));
    }
  return {folded(cross), folded(square)};
}

constexpr Nf4Kernels kNf4{&largest, &codes, &fit};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {

float largest_scalar(const float* in, std::size_t n) noexcept {
  float most = 0;
  for (std::size_t i = 0; i < n; ++i) most = std::max(most, std::abs(in[i]));
  return most;
}
void codes_scalar(const float* in, std::size_t n, float factor, std::uint8_t* out) noexcept {
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::uint8_t>(code_of(in[i] * factor));
}
constexpr Nf4Kernels kScalar{&largest_scalar, &codes_scalar, &fit_scalar};

// Calls f with the block's values and the factor 1 / scale. Where that overflows, the values and
// the scale are both made larger first.
template <class Call>
void with_factor(const float* in, std::size_t n, float scale, Call call) noexcept {
  const float factor = 1 / scale;
  if (std::isfinite(factor)) return call(in, factor);
  constexpr float kLarger = 0x1p24f;
  float larger[kNf4Block];
  for (std::size_t i = 0; i < n; ++i) larger[i] = in[i] * kLarger;
  call(larger, 1 / (scale * kLarger));
}

}  // namespace

void nf4_absmax(const float* in, std::size_t n, float* scales) noexcept {
  const Nf4Kernels& kernels = WTOOL_CHOOSE(kScalar, kNf4);
  for (std::size_t i = 0; i < n; i += kNf4Block)
    *scales++ = kernels.largest(in + i, std::min(kNf4Block, n - i));
}

void nf4_codes(const float* in, std::size_t n, const float* scales, std::uint8_t* out) noexcept {
  const Nf4Kernels& kernels = WTOOL_CHOOSE(kScalar, kNf4);
  for (std::size_t i = 0; i < n; i += kNf4Block) {
    const float scale = *scales++;
    const std::size_t len = std::min(kNf4Block, n - i);
    if (scale == 0)
      std::fill_n(out + i, len, std::uint8_t{kNf4Zero});
    else
      with_factor(in + i, len, scale,
                  [&](const float* x, float by) { kernels.codes(x, len, by, out + i); });
  }
}

Nf4Fit nf4_fit(const float* in, std::size_t n, float scale, const float* weights) noexcept {
  static constexpr std::array<float, kNf4Block> kAlike = [] {
    std::array<float, kNf4Block> out{};
    for (float& w : out) w = 1;
    return out;
  }();
  if (scale == 0) return {0, 0};
  if (!weights) weights = kAlike.data();
  const Nf4Kernels& kernels = WTOOL_CHOOSE(kScalar, kNf4);
  // The codes decide; sums are of the values as they are unless they are far below any weight.
  float grown = 1;
  Nf4Fit out{0, 0};
  with_factor(in, n, scale, [&](const float* x, float by) {
    if (x != in) grown = 0x1p24f;
    out = kernels.fit(x, weights, n, by);
  });
  out.cross /= grown;
  return out;
}

}  // namespace wtool
#endif  // HWY_ONCE
