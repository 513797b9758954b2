// The search of group_search.h: sixteen groups at a time, one in each lane, the elements one after
// another. So every instruction set adds the same numbers in the same order.
#include "lib/numeric/kernels/group_search.h"

#include <array>
#include <cmath>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/base/error.h"
#include "lib/numeric/kernels/ggml_best.h"
#include "lib/numeric/kernels/group_scales.h"
#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/group_search.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/vectors-inl.h"

#ifndef WTOOL_GROUP_SEARCH_ONCE
#define WTOOL_GROUP_SEARCH_ONCE

namespace wtool {
namespace {

constexpr std::size_t kGroups = 16, kTrials = 32, kSide = 4;
// Sums are closed after so many elements, and added up: long groups lose no digits.
constexpr std::size_t kRun = 128;

using Lane = float[kGroups];
using LevelKind = GroupSearch::Levels;

// Element i of group g is x[i × 16 + g]; so are the weights, where there are any.
struct Batch {
  const float *x, *weight;
  std::size_t n;
};
// Scales to try in each group, a multiple of four of them, and for integers the limits of codes.
struct alignas(64) Trials {
  Lane scale[kTrials] = {}, lo[kTrials] = {}, hi[kTrials] = {};
  std::size_t count = 0;
};
struct alignas(64) Results {
  Lane error[kTrials];
};
// Of the trials of each group the first whose codes, with the scale that suits them best
// (`fitted`), take most off the sum of squares; and its lower limit. All 0 if no trial has a code
// but 0.
struct alignas(64) Fits {
  Lane gain, fitted, lo;
};

struct SearchKernels {
  void (*errors)(LevelKind kind, const Batch&, const Trials&, Results&) noexcept;
  void (*fit)(const Batch&, const Trials&, Fits&) noexcept;  // integers
  // n values from each row, to x[i × 16 + g], and the ends of their range with 0 in it.
  void (*gather)(const float* const* rows, std::size_t n, float* out, Lane& least,
                 Lane& most) noexcept;
  void (*codes)(const float* in, std::size_t n, float scale, float lo, float hi, int zero,
                std::int8_t* out) noexcept;
};

}  // namespace
}  // namespace wtool
#endif  // WTOOL_GROUP_SEARCH_ONCE

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {
constexpr std::size_t kVectors = kGroups / kLanes;
static_assert(kVectors * kLanes == kGroups);

struct Integers {
  VF lo, hi;
  HWY_INLINE VF operator()(VF v) const { return hn::Round(hn::Min(hn::Max(v, lo), hi)); }
};
// A float of 2^e ≤ |v| < 2^(e+1) has steps of 2^(e-3) in E4M3, and of 2^-9 below 2^-6: adding
// 1.5 × 2^(e+20) makes them the last bit.
struct E4m3 {
  HWY_INLINE VF operator()(VF v) const {
    v = hn::Min(hn::Max(v, hn::Set(kF, -448.0f)), hn::Set(kF, 448.0f));
    const auto exponent =
        hn::Max(hn::And(hn::BitCast(kI, v), hn::Set(kI, 0x7F800000)), hn::Set(kI, 121 << 23));
    const VF place = hn::BitCast(kF, hn::Add(exponent, hn::Set(kI, (20 << 23) | 0x400000)));
    return hn::Sub(hn::Add(v, place), place);
  }
};
// The same with steps of 2^(e-1), and of 1/2 below 1.
struct E2m1 {
  HWY_INLINE VF operator()(VF v) const {
    v = hn::Min(hn::Max(v, hn::Set(kF, -6.0f)), hn::Set(kF, 6.0f));
    const auto exponent =
        hn::Max(hn::And(hn::BitCast(kI, v), hn::Set(kI, 0x7F800000)), hn::Set(kI, 127 << 23));
    const VF place = hn::BitCast(kF, hn::Add(exponent, hn::Set(kI, (22 << 23) | 0x400000)));
    return hn::Sub(hn::Add(v, place), place);
  }
};

template <class Level>
HWY_INLINE Level level_of(const Trials& trials, std::size_t t, std::size_t at) {
  if constexpr (std::is_same_v<Level, Integers>)
    return {hn::Load(kF, trials.lo[t] + at), hn::Load(kF, trials.hi[t] + at)};
  else
    return {};
}

// One vector of groups, four trials, one run of elements.
template <class Level, bool kWeighted>
HWY_INLINE void add_errors(const Batch& batch, const Trials& trials, std::size_t t, std::size_t at,
                           std::size_t begin, std::size_t end, Results& out) {
  VF d[kSide], inv[kSide], e[kSide];
  Level level[kSide];
#pragma GCC unroll 4
  for (std::size_t s = 0; s < kSide; ++s) {
    d[s] = hn::Load(kF, trials.scale[t + s] + at);
    inv[s] = hn::Div(hn::Set(kF, 1.0f), d[s]);
    level[s] = level_of<Level>(trials, t + s, at);
    e[s] = hn::Zero(kF);
  }
  for (std::size_t i = begin; i < end; ++i) {
    const VF x = hn::Load(kF, batch.x + i * kGroups + at);
    [[maybe_unused]] VF w;
    if constexpr (kWeighted) w = hn::Load(kF, batch.weight + i * kGroups + at);
#pragma GCC unroll 4
    for (std::size_t s = 0; s < kSide; ++s) {
      const VF off = hn::Sub(x, hn::Mul(level[s](hn::Mul(x, inv[s])), d[s]));
      VF square = hn::Mul(off, off);
      if constexpr (kWeighted) square = hn::Mul(w, square);
      e[s] = hn::Add(e[s], square);
    }
  }
#pragma GCC unroll 4
  for (std::size_t s = 0; s < kSide; ++s) {
    float* const sum = out.error[t + s] + at;
    hn::Store(begin == 0 ? e[s] : hn::Add(hn::Load(kF, sum), e[s]), kF, sum);
  }
}

template <class Level, bool kWeighted>
void all_errors(const Batch& batch, const Trials& trials, Results& out) noexcept {
  for (std::size_t begin = 0; begin < batch.n; begin += kRun)
    for (std::size_t at = 0; at < kGroups; at += kLanes)
      for (std::size_t t = 0; t < trials.count; t += kSide)
        add_errors<Level, kWeighted>(batch, trials, t, at, begin, std::min(begin + kRun, batch.n),
                                     out);
}

void errors(LevelKind kind, const Batch& batch, const Trials& trials, Results& out) noexcept {
  switch (kind) {
    case LevelKind::E4m3:
      return batch.weight ? all_errors<E4m3, true>(batch, trials, out)
                          : all_errors<E4m3, false>(batch, trials, out);
    case LevelKind::E2m1:
      return batch.weight ? all_errors<E2m1, true>(batch, trials, out)
                          : all_errors<E2m1, false>(batch, trials, out);
    default:
      return batch.weight ? all_errors<Integers, true>(batch, trials, out)
                          : all_errors<Integers, false>(batch, trials, out);
  }
}

// Sums of weight × q × x, and of weight × q².
struct alignas(64) Products {
  Lane a[kTrials], b[kTrials];
};
template <bool kWeighted>
HWY_INLINE void add_products(const Batch& batch, const Trials& trials, std::size_t t,
                             std::size_t at, std::size_t begin, std::size_t end, Products& out) {
  VF inv[kSide], a[kSide], b[kSide];
  Integers level[kSide];
#pragma GCC unroll 4
  for (std::size_t s = 0; s < kSide; ++s) {
    inv[s] = hn::Div(hn::Set(kF, 1.0f), hn::Load(kF, trials.scale[t + s] + at));
    level[s] = level_of<Integers>(trials, t + s, at);
    a[s] = b[s] = hn::Zero(kF);
  }
  for (std::size_t i = begin; i < end; ++i) {
    const VF x = hn::Load(kF, batch.x + i * kGroups + at);
    [[maybe_unused]] VF w;
    if constexpr (kWeighted) w = hn::Load(kF, batch.weight + i * kGroups + at);
#pragma GCC unroll 4
    for (std::size_t s = 0; s < kSide; ++s) {
      const VF q = level[s](hn::Mul(x, inv[s]));
      VF wq = q;
      if constexpr (kWeighted) wq = hn::Mul(w, q);
      a[s] = hn::Add(a[s], hn::Mul(wq, x));
      b[s] = hn::Add(b[s], hn::Mul(wq, q));
    }
  }
#pragma GCC unroll 4
  for (std::size_t s = 0; s < kSide; ++s) {
    float *const sum_a = out.a[t + s] + at, *const sum_b = out.b[t + s] + at;
    hn::Store(begin == 0 ? a[s] : hn::Add(hn::Load(kF, sum_a), a[s]), kF, sum_a);
    hn::Store(begin == 0 ? b[s] : hn::Add(hn::Load(kF, sum_b), b[s]), kF, sum_b);
  }
}

template <bool kWeighted>
void all_products(const Batch& batch, const Trials& trials, Products& out) noexcept {
  for (std::size_t begin = 0; begin < batch.n; begin += kRun)
    for (std::size_t at = 0; at < kGroups; at += kLanes)
      for (std::size_t t = 0; t < trials.count; t += kSide)
        add_products<kWeighted>(batch, trials, t, at, begin, std::min(begin + kRun, batch.n), out);
}

void fit(const Batch& batch, const Trials& trials, Fits& out) noexcept {
  Products sums;
  batch.weight ? all_products<true>(batch, trials, sums) : all_products<false>(batch, trials, sums);
  for (std::size_t at = 0; at < kGroups; at += kLanes) {
    VF gain = hn::Zero(kF), fitted = hn::Zero(kF), lo = hn::Zero(kF);
    for (std::size_t t = 0; t < trials.count; ++t) {
      const VF a = hn::Load(kF, sums.a[t] + at), b = hn::Load(kF, sums.b[t] + at);
      const VF scale = hn::IfThenElseZero(hn::Gt(b, hn::Zero(kF)), hn::Div(a, b));
      const VF this_gain = hn::Mul(a, scale);
      const auto more = hn::Gt(this_gain, gain);
      gain = hn::IfThenElse(more, this_gain, gain);
      fitted = hn::IfThenElse(more, scale, fitted);
      lo = hn::IfThenElse(more, hn::Load(kF, trials.lo[t] + at), lo);
    }
    hn::Store(gain, kF, out.gain + at);
    hn::Store(fitted, kF, out.fitted + at);
    hn::Store(lo, kF, out.lo + at);
  }
}

constexpr hn::FixedTag<float, 4> k4;
constexpr hn::FixedTag<double, 2> k2;
using V4 = hn::Vec<hn::FixedTag<float, 4>>;

// Turns four times four.
HWY_INLINE void turn(const float* const* rows, std::size_t i, float* out, V4& low, V4& high) {
  const V4 a = hn::LoadU(k4, rows[0] + i), b = hn::LoadU(k4, rows[1] + i),
           c = hn::LoadU(k4, rows[2] + i), d = hn::LoadU(k4, rows[3] + i);
  const auto ab0 = hn::BitCast(k2, hn::InterleaveLower(k4, a, b)),
             ab2 = hn::BitCast(k2, hn::InterleaveUpper(k4, a, b)),
             cd0 = hn::BitCast(k2, hn::InterleaveLower(k4, c, d)),
             cd2 = hn::BitCast(k2, hn::InterleaveUpper(k4, c, d));
  const V4 columns[4] = {hn::BitCast(k4, hn::InterleaveLower(k2, ab0, cd0)),
                         hn::BitCast(k4, hn::InterleaveUpper(k2, ab0, cd0)),
                         hn::BitCast(k4, hn::InterleaveLower(k2, ab2, cd2)),
                         hn::BitCast(k4, hn::InterleaveUpper(k2, ab2, cd2))};
#pragma GCC unroll 4
  for (std::size_t j = 0; j < 4; ++j) {
    low = hn::Min(low, columns[j]);
    high = hn::Max(high, columns[j]);
    hn::Store(columns[j], k4, out + j * kGroups);
  }
}

void gather(const float* const* rows, std::size_t n, float* out, Lane& least, Lane& most) noexcept {
  V4 low[4], high[4];
#pragma GCC unroll 4
  for (std::size_t v = 0; v < 4; ++v) low[v] = high[v] = hn::Zero(k4);
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) {
#pragma GCC unroll 4
    for (std::size_t v = 0; v < 4; ++v)
      turn(rows + 4 * v, i, out + i * kGroups + 4 * v, low[v], high[v]);
  }
#pragma GCC unroll 4
  for (std::size_t v = 0; v < 4; ++v) {
    hn::Store(low[v], k4, least + 4 * v);
    hn::Store(high[v], k4, most + 4 * v);
  }
  for (; i < n; ++i)
    for (std::size_t g = 0; g < kGroups; ++g) {
      const float x = out[i * kGroups + g] = rows[g][i];
      least[g] = std::min(least[g], x);
      most[g] = std::max(most[g], x);
    }
}

void codes(const float* in, std::size_t n, float scale, float lo, float hi, int zero,
           std::int8_t* out) noexcept {
  const Integers level{hn::Set(kF, lo), hn::Set(kF, hi)};
  const VF d = hn::Set(kF, scale);
  const auto shift = hn::Set(kI, zero);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto q = hn::ConvertTo(kI, level(hn::Div(hn::LoadU(kF, in + i), d)));
    hn::StoreU(hn::DemoteTo(kI8, hn::Add(q, shift)), kI8, out + i);
  }
  for (; i < n; ++i)
    out[i] = static_cast<std::int8_t>(
        static_cast<int>(best::rounded(best::within(in[i] / scale, lo, hi))) + zero);
}

constexpr SearchKernels kSearch{&errors, &fit, &gather, &codes};

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {

using best::rounded;
using best::within;
using groups::Choice;
using groups::half_of;
using groups::Ladder;
using groups::top_of;

float nearest_float(float v, float limit, int least, int place) noexcept {
  v = within(v, -limit, limit);
  const auto exponent =
      std::max(std::bit_cast<std::int32_t>(v) & 0x7F800000, static_cast<std::int32_t>(least) << 23);
  const auto placed = std::bit_cast<float>(exponent + ((place << 23) | 0x400000));
  return v + placed - placed;
}
float level_scalar(LevelKind kind, float v, float lo, float hi) noexcept {
  switch (kind) {
    case LevelKind::E4m3: return nearest_float(v, 448, 121, 20);
    case LevelKind::E2m1: return nearest_float(v, 6, 127, 22);
    default: return rounded(within(v, lo, hi));
  }
}

void errors_scalar(LevelKind kind, const Batch& batch, const Trials& trials,
                   Results& out) noexcept {
  for (std::size_t t = 0; t < trials.count; ++t)
    for (std::size_t g = 0; g < kGroups; ++g) {
      const float d = trials.scale[t][g], inv = 1 / d;
      float total = 0;
      for (std::size_t begin = 0; begin < batch.n; begin += kRun) {
        float e = 0;
        for (std::size_t i = begin; i < std::min(begin + kRun, batch.n); ++i) {
          const float x = batch.x[i * kGroups + g];
          const float off = x - level_scalar(kind, x * inv, trials.lo[t][g], trials.hi[t][g]) * d;
          e += batch.weight ? batch.weight[i * kGroups + g] * (off * off) : off * off;
        }
        total = begin == 0 ? e : total + e;
      }
      out.error[t][g] = total;
    }
}

void products_scalar(const Batch& batch, const Trials& trials, std::size_t t, std::size_t g,
                     float& a, float& b) noexcept {
  const float inv = 1 / trials.scale[t][g];
  for (std::size_t begin = 0; begin < batch.n; begin += kRun) {
    float run_a = 0, run_b = 0;
    for (std::size_t i = begin; i < std::min(begin + kRun, batch.n); ++i) {
      const float x = batch.x[i * kGroups + g];
      const float q = rounded(within(x * inv, trials.lo[t][g], trials.hi[t][g]));
      const float wq = batch.weight ? batch.weight[i * kGroups + g] * q : q;
      run_a += wq * x;
      run_b += wq * q;
    }
    a = begin == 0 ? run_a : a + run_a;
    b = begin == 0 ? run_b : b + run_b;
  }
}
void fit_scalar(const Batch& batch, const Trials& trials, Fits& out) noexcept {
  out = {};
  for (std::size_t t = 0; t < trials.count; ++t)
    for (std::size_t g = 0; g < kGroups; ++g) {
      float a = 0, b = 0;
      products_scalar(batch, trials, t, g, a, b);
      const float scale = b > 0 ? a / b : 0, gain = a * scale;
      if (!(gain > out.gain[g])) continue;
      out.gain[g] = gain;
      out.fitted[g] = scale;
      out.lo[g] = trials.lo[t][g];
    }
}

void gather_scalar(const float* const* rows, std::size_t n, float* out, Lane& least,
                   Lane& most) noexcept {
  for (std::size_t g = 0; g < kGroups; ++g) {
    least[g] = most[g] = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const float x = out[i * kGroups + g] = rows[g][i];
      least[g] = std::min(least[g], x);
      most[g] = std::max(most[g], x);
    }
  }
}

void codes_scalar(const float* in, std::size_t n, float scale, float lo, float hi, int zero,
                  std::int8_t* out) noexcept {
  for (std::size_t i = 0; i < n; ++i)
    out[i] =
        static_cast<std::int8_t>(static_cast<int>(rounded(within(in[i] / scale, lo, hi))) + zero);
}

constexpr SearchKernels kScalar{&errors_scalar, &fit_scalar, &gather_scalar, &codes_scalar};

// One call's work. Groups whose values are very large or small are measured after multiplication
// by a power of two, so that no square overflows or vanishes.
class Chooser {
 public:
  Chooser(const SearchKernels& kernels, const GroupSearch& how, std::size_t n)
      : kernels_(kernels),
        how_(how),
        ladder_(how.scale, how.global),
        integers_(how.levels == LevelKind::Integers),
        half_(integers_ ? half_of(how) : 0),
        top_(integers_ ? top_of(how) : 0),
        n_(n),
        x_(n * kGroups + kSlack),
        batch_{aligned(x_), nullptr, n} {
    for (std::size_t t = 0; t < kTrials; ++t)
      for (std::size_t g = 0; g < kGroups; ++g) set_limits(t, g, half_);
  }

  // `count` groups (1 … 16) of n values; weights may be null.
  void choose(const float* const* rows, const float* const* weights, std::size_t count,
              float* scales, std::int8_t* zeros) {
    for (std::size_t g = 0; g < kGroups; ++g) rows_[g] = rows[std::min(g, count - 1)];
    load(weights, count);
    for (std::size_t g = 0; g < kGroups; ++g) start(g);
    if (integers_ && how_.optimal)
      for (std::size_t g = 0; g < count; ++g) optimal(g, weights ? weights[g] : nullptr);
    else if (how_.optimal)
      exhaust();
    else if (integers_ && how_.bits <= kFitted)
      fit_then_refine();
    else
      sow_then_refine();
    for (std::size_t g = 0; g < count; ++g) {
      scales[g] = idle_[g] ? ladder_.epsilon() : stored(best_[g]);
      if (zeros) zeros[g] = static_cast<std::int8_t>(best_[g].z - half_);
    }
  }

 private:
  struct Option {
    std::int32_t rung;
    int z;
    bool negative;
  };
  static constexpr std::size_t kSlack = 64 / sizeof(float);
  static constexpr unsigned kFitted = 4;     // bits for which sums of products in float will do
  static constexpr float kClear = 0x1p-12f;  // a lesser win may be one of rounding only

  static float* aligned(std::vector<float>& v) noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(v.data());
    return v.data() + (64 - address % 64) % 64 / sizeof(float);
  }
  float stored(const Option& o) const noexcept {
    return o.negative ? -ladder_.stored(o.rung) : ladder_.stored(o.rung);
  }
  float scaled(float value, std::size_t g) const noexcept {
    return exponent_[g] == 0 ? value : std::ldexp(value, -exponent_[g]);
  }
  float unscaled(float value, std::size_t g) const noexcept {
    return exponent_[g] == 0 ? value : std::ldexp(value, exponent_[g]);
  }

  void load(const float* const* weights, std::size_t count) {
    kernels_.gather(rows_.data(), n_, aligned(x_), least_, most_);
    for (std::size_t g = 0; g < kGroups; ++g) {
      const float amax = std::max(-least_[g], most_[g]);
      idle_[g] = amax == 0;
      exponent_[g] = idle_[g] || (amax < 0x1p40f && amax >= 0x1p-40f) ? 0 : std::ilogb(amax);
      if (exponent_[g] == 0) continue;
      for (std::size_t i = 0; i < n_; ++i) {
        float& x = aligned(x_)[i * kGroups + g];
        x = std::ldexp(x, -exponent_[g]);
      }
    }
    batch_.weight = nullptr;
    if (weights) load_weights(weights, count);
  }
  void load_weights(const float* const* weights, std::size_t count) {
    std::array<const float*, kGroups> from;
    for (std::size_t g = 0; g < kGroups; ++g) from[g] = weights[std::min(g, count - 1)];
    w_.resize(n_ * kGroups + kSlack);
    float* const w = aligned(w_);
    alignas(64) Lane least, most;
    kernels_.gather(from.data(), n_, w, least, most);
    for (std::size_t g = 0; g < kGroups; ++g) {
      const int down = most[g] > 0 ? std::ilogb(most[g]) : 0;
      for (std::size_t i = 0; i < n_; ++i)
        w[i * kGroups + g] = most[g] > 0 ? std::ldexp(w[i * kGroups + g], -down) : 1;
    }
    batch_.weight = w;
  }

  // The choice of rounding to nearest.
  void start(std::size_t g) {
    const float amax = std::max(-least_[g], most_[g]);
    best_[g] = {ladder_.lowest(), half_, false};
    plain_[g] = true;
    base_[g] = 1;
    if (idle_[g]) return;
    float effect = amax / (static_cast<float>(top_) / 2);
    if (how_.levels == LevelKind::E4m3)
      effect = amax / 448;
    else if (how_.levels == LevelKind::E2m1)
      effect = amax / 6;
    else if (how_.zero_points)
      effect = most_[g] / static_cast<float>(top_) - least_[g] / static_cast<float>(top_);
    // Where that scale would be stored as 0, the least there is loses no more than zeros do.
    if (how_.scale != DType::F8_E8M0) effect = std::max(effect, ladder_.value(ladder_.lowest()));
    base_[g] = scaled(effect, g);
    if (how_.scale == DType::F8_E8M0) {  // as OCP's formats are written: 1.75 and more rounds up
      const int exponent = std::ilogb(amax);
      const bool up = std::ldexp(amax, -exponent) >= 1.75f;
      const int top = how_.levels == LevelKind::E4m3 ? 8 : 2;
      best_[g].rung = ladder_.clamp(exponent + up - top + 127);
      return;
    }
    best_[g].rung = ladder_.nearest(effect);
    if (how_.zero_points) best_[g].z = zero_near(-least_[g] / ladder_.value(best_[g].rung));
  }
  int zero_near(float z) const noexcept {
    return static_cast<int>(rounded(within(z, 0, static_cast<float>(top_))));
  }

  void set_limits(std::size_t t, std::size_t g, int z) noexcept {
    trials_.lo[t][g] = static_cast<float>(-z);
    trials_.hi[t][g] = static_cast<float>(top_ - z);
  }
  void put(std::size_t t, std::size_t g, const Option& o) noexcept {
    options_[t][g] = o;
    const float scale = scaled(ladder_.value(o.rung), g);
    trials_.scale[t][g] = o.negative ? -scale : scale;
    if (how_.zero_points) set_limits(t, g, o.z);
  }
  // The first of the best of all trials. Trial 0 is the choice so far; while that is rounding to
  // nearest it takes a clear win to leave it.
  void take_best() {
    kernels_.errors(how_.levels, batch_, trials_, results_);
    for (std::size_t g = 0; g < kGroups; ++g) {
      std::size_t at = 0;
      float least = results_.error[0][g] * (plain_[g] ? 1 - kClear : 1);
      for (std::size_t t = 1; t < trials_.count; ++t)
        if (results_.error[t][g] < least) least = results_.error[at = t][g];
      best_[g] = options_[at][g];
      plain_[g] = plain_[g] && at == 0;
    }
  }
  // Trial 0 is `so_far`; the others, the steps away from the option in the order given.
  void put_around(std::size_t g, const Option& so_far, const Option& option,
                  std::span<const int> steps) noexcept {
    put(0, g, so_far);
    for (std::size_t t = 1; t < trials_.count; ++t) {
      Option o = option;
      o.rung = ladder_.clamp(o.rung + steps[t - 1] * ladder_.stride());
      put(t, g, o);
    }
  }

  void sow_affine(float round);
  void sow_fits(float round);
  void fit_then_refine();
  void sow_then_refine();
  void sow_spread(std::size_t g, std::size_t round);
  void exhaust();
  void optimal(std::size_t g, const float* weight);

  const SearchKernels& kernels_;
  const GroupSearch& how_;
  Ladder ladder_;
  bool integers_;
  int half_, top_;
  std::size_t n_;
  std::vector<float> x_, w_;
  Batch batch_;
  std::array<const float*, kGroups> rows_ = {};
  std::array<bool, kGroups> idle_ = {}, plain_ = {};  // nothing to choose; still the first choice
  std::array<int, kGroups> exponent_ = {};
  std::array<Option, kGroups> best_ = {};
  alignas(64) Lane least_ = {}, most_ = {}, base_ = {};
  Trials trials_;
  Results results_;
  Fits fits_;
  Option options_[kTrials][kGroups];
};

// Trials for fit(), as parts of the scale of rounding to nearest. Found by experiment.
constexpr float kParts[] = {0.62f, 0.70f, 0.77f, 0.83f, 0.89f, 0.95f, 1.01f, 1.07f};
// With zero points, each with three of those. The second is for 2 and 3 bits.
constexpr float kAffineParts[] = {0.70f, 0.76f, 0.82f, 0.88f, 0.94f, 1.00f, 1, 1};
constexpr float kWideParts[] = {0.40f, 0.48f, 0.56f, 0.64f, 0.72f, 0.82f, 0.92f, 1.02f};

// Uneven weights make for a rougher landscape, and may leave the largest values alone: with them
// there are three rounds of trials.
constexpr float kRounds[] = {1, 0.965f, 0.56f};

void Chooser::sow_affine(float round) {
  const float* const parts = how_.bits < 4 ? kWideParts : kAffineParts;
  trials_.count = how_.bits < 4 ? 24 : 20;
  for (std::size_t t = 0; t < trials_.count; ++t)
    for (std::size_t g = 0; g < kGroups; ++g) {
      const float scale = base_[g] * (parts[t / 3] * round);  // a window in the middle of the range
      const float low = scaled(least_[g], g) + (base_[g] - scale) * static_cast<float>(top_) / 2;
      trials_.scale[t][g] = scale;
      set_limits(t, g, std::clamp(zero_near(-low / scale) + static_cast<int>(t % 3) - 1, 0, top_));
    }
}

void Chooser::sow_fits(float round) {
  if (how_.zero_points) return sow_affine(round);
  const std::size_t signs = how_.either_sign ? 2 : 1;
  trials_.count = std::size(kParts) * signs;
  for (std::size_t t = 0; t < trials_.count; ++t) {
    const float part = (t % signs == 0 ? kParts[t / signs] : -kParts[t / signs]) * round;
    for (std::size_t g = 0; g < kGroups; ++g) trials_.scale[t][g] = base_[g] * part;
  }
}

constexpr int kNext[] = {0, 1, -1};
constexpr int kFine[] = {0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7};

void Chooser::fit_then_refine() {
  Fits best;
  const std::size_t rounds = batch_.weight ? std::size(kRounds) : 1;
  for (std::size_t round = 0; round < rounds; ++round) {
    sow_fits(kRounds[round]);
    kernels_.fit(batch_, trials_, fits_);
    if (round == 0) best = fits_;
    for (std::size_t g = 0; g < kGroups; ++g)
      if (fits_.gain[g] > best.gain[g]) {
        best.gain[g] = fits_.gain[g];
        best.fitted[g] = fits_.fitted[g];
        best.lo[g] = fits_.lo[g];
      }
  }
  const std::span<const int> steps = batch_.weight ? std::span<const int>(kFine) : kNext;
  trials_.count = steps.size() + 1;
  for (std::size_t g = 0; g < kGroups; ++g) {
    Option option = best_[g];
    if (best.gain[g] > 0)
      option = {ladder_.nearest(std::abs(unscaled(best.fitted[g], g))),
                -static_cast<int>(best.lo[g]), best.fitted[g] < 0};
    put_around(g, best_[g], option, steps);
  }
  take_best();
}

// Storable scales first spread out, then side by side. On a coarse ladder the latter are all.
void Chooser::sow_then_refine() {
  static constexpr int kAround[] = {1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, 7, 8, 9, 10};
  if (how_.scale == DType::F8_E4M3 || how_.scale == DType::F8_E8M0) {
    trials_.count = std::size(kAround) + 1;
    for (std::size_t g = 0; g < kGroups; ++g) put_around(g, best_[g], best_[g], kAround);
    return take_best();
  }
  trials_.count = kTrials;
  const std::size_t weighted = integers_ ? 4 : 3, rounds = batch_.weight ? weighted
                                                           : integers_   ? 1
                                                                         : 2;
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t g = 0; g < kGroups; ++g) sow_spread(g, round);
    take_best();
  }
  trials_.count = std::size(kFine) + 1;
  for (std::size_t g = 0; g < kGroups; ++g) put_around(g, best_[g], best_[g], kFine);
  take_best();
}
void Chooser::sow_spread(std::size_t g, std::size_t round) {
  // Integers: down from the scale of rounding to nearest. Floats: the octave above 0.85 of it, as
  // twice a scale is no better; and for a third round what lies below.
  static constexpr float kFirst[] = {0.85f, 0.86875f, 0.25f};
  const bool fine = how_.bits >= 7, both = how_.either_sign;
  const float down = !fine ? 0.015f : both ? 0.0125f : batch_.weight ? 0.0045f : 0.007f;
  const float step = integers_ ? -down : round == 2 ? 0.02f : 0.0375f;
  const std::size_t before = integers_ ? round * (kTrials - 1) : 0;
  put(0, g, best_[g]);
  for (std::size_t t = 1; t < kTrials; ++t) {
    const auto steps = static_cast<float>(both ? (t + before) / 2 : t + before);
    const float part = (integers_ ? 1.02f : kFirst[round]) + steps * step;
    Option o = best_[g];
    o.rung = ladder_.nearest(unscaled(base_[g] * std::max(part, 0.05f), g));
    o.negative = both && t % 2 != 0;
    put(t, g, o);
  }
}

// All scales for float levels. Twice a scale that reaches the largest value is no better: its
// levels are among those of the half, as far as the values go. And scales so small that clipping
// alone costs the group's largest value more than all of rounding to nearest are worse than that.
void Chooser::exhaust() {
  const float last = how_.levels == LevelKind::E4m3 ? 448 : 6;
  std::array<std::int32_t, kGroups> from, to;
  trials_.count = kSide;
  for (std::size_t g = 0; g < kGroups; ++g)
    for (std::size_t t = 0; t < kSide; ++t) put(t, g, best_[g]);
  kernels_.errors(how_.levels, batch_, trials_, results_);
  std::int32_t longest = 0;
  for (std::size_t g = 0; g < kGroups; ++g) {
    const float amax = std::max(-least_[g], most_[g]);
    to[g] = idle_[g] ? best_[g].rung : ladder_.clamp(ladder_.floor(2 * (amax / last)) + 1);
    from[g] = best_[g].rung;
    while (!idle_[g] && from[g] > ladder_.lowest()) {
      const float scale = scaled(ladder_.value(from[g] - 1), g);
      float clipped = 0;
      for (std::size_t i = 0; i < n_; ++i) {
        const float off = std::abs(batch_.x[i * kGroups + g]) - last * scale;
        if (off > 0) clipped += (batch_.weight ? batch_.weight[i * kGroups + g] : 1) * off * off;
      }
      if (clipped > results_.error[0][g] * (1 + kClear)) break;
      --from[g];
    }
    longest = std::max(longest, to[g] - from[g] + 1);
  }
  trials_.count = kTrials;
  for (std::int32_t done = 0; done < longest; done += kTrials - 1) {
    for (std::size_t g = 0; g < kGroups; ++g) {
      put(0, g, best_[g]);
      for (std::int32_t t = 1; t < static_cast<std::int32_t>(kTrials); ++t) {
        Option o = best_[g];
        o.rung = std::min(from[g] + done + t - 1, to[g]);
        put(static_cast<std::size_t>(t), g, o);
      }
    }
    take_best();
  }
}

void Chooser::optimal(std::size_t g, const float* weight) {
  if (idle_[g]) return;
  const bool counts = weight && std::any_of(weight, weight + n_, [](float w) { return w > 0; });
  const groups::Choice choice = groups::optimal_integers(
      how_, ladder_, {rows_[g], counts ? weight : nullptr, n_}, {best_[g].rung, best_[g].z, false});
  best_[g] = {choice.rung, choice.z, choice.negative};
}

void choose_with(const SearchKernels& kernels, const GroupSearch& how, std::uint64_t rows,
                 std::uint64_t cols, std::span<const float> in, std::span<const float> importance,
                 std::span<float> scales, std::span<std::int8_t> zeros) {
  if (cols == 0 || rows == 0) return;
  if (how.optimal && how.levels != LevelKind::Integers && how.scale == DType::F32)
    throw Error(Fault::Unsupported, "float codes with F32 scales: there are too many to try all");
  const std::uint64_t group = how.group == 0 ? cols : how.group;
  const std::uint64_t per_row = cols / group, groups = rows * per_row;
  Chooser chooser(kernels, how, group);
  std::array<const float*, kGroups> from = {}, weights = {};
  for (std::uint64_t first = 0; first < groups; first += kGroups) {
    const std::size_t count = std::min<std::uint64_t>(kGroups, groups - first);
    for (std::size_t g = 0; g < count; ++g) {
      from[g] = in.data() + (first + g) * group;
      if (!importance.empty()) weights[g] = importance.data() + (first + g) % per_row * group;
    }
    chooser.choose(from.data(), importance.empty() ? nullptr : weights.data(), count,
                   scales.data() + first, zeros.empty() ? nullptr : zeros.data() + first);
  }
}

}  // namespace

void choose_scales(const GroupSearch& how, std::uint64_t rows, std::uint64_t cols,
                   std::span<const float> in, std::span<const float> importance,
                   std::span<float> scales, std::span<std::int8_t> zeros) {
  choose_with(WTOOL_CHOOSE(kScalar, kSearch), how, rows, cols, in, importance, scales, zeros);
}
void choose_scales_scalar(const GroupSearch& how, std::uint64_t rows, std::uint64_t cols,
                          std::span<const float> in, std::span<const float> importance,
                          std::span<float> scales, std::span<std::int8_t> zeros) {
  choose_with(kScalar, how, rows, cols, in, importance, scales, zeros);
}

void code_groups(const GroupSearch& how, std::uint64_t rows, std::uint64_t cols,
                 std::span<const float> in, std::span<const float> scales,
                 std::span<const std::int8_t> zeros, std::span<std::int8_t> codes) {
  if (cols == 0) return;
  const std::uint64_t group = how.group == 0 ? cols : how.group;
  const auto half = static_cast<float>(half_of(how));
  for (std::uint64_t g = 0; g < rows * (cols / group); ++g) {
    const int zero = zeros.empty() ? 0 : zeros[g];
    const float lo = -half - static_cast<float>(zero), hi = half - 1 - static_cast<float>(zero);
    WTOOL_CHOOSE(kScalar, kSearch)
        .codes(in.data() + g * group, group, scales[g], lo, hi, zero, codes.data() + g * group);
  }
}

}  // namespace wtool
#endif  // HWY_ONCE
