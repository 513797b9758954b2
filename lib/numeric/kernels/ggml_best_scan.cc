// The trials of ggml_best.h: a trial in each lane, four vectors of trials side by side, the
// elements one after another.
#include <algorithm>

#include "lib/numeric/kernels/ggml_best.h"
#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/ggml_best_scan.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/vectors-inl.h"

#ifndef WTOOL_BEST_SCAN_ONCE
#define WTOOL_BEST_SCAN_ONCE
namespace wtool::best {
namespace {

struct Scans {
  void (*fit_scales)(const Levels&, const Values&, const float*, std::size_t, float*) noexcept;
  void (*scale_errors)(const Levels&, const Values&, const float*, std::size_t, float*) noexcept;
  void (*offset_errors)(float, const Values&, const float*, const float*, std::size_t,
                        float*) noexcept;
  void (*fit_offsets)(float, int, const Values&, const float*, const float*, std::size_t,
                      const Fits&) noexcept;
  std::size_t (*first_least)(const float*, std::size_t) noexcept;
  Pick (*first_greatest)(const float*, std::size_t, float) noexcept;
};

// Sums of weight and weight * x: the same for all trials.
struct Totals {
  float w = 0, x = 0;
  explicit Totals(const Values& v) {
    for (std::size_t i = 0; i < v.count; ++i) {
      const float weight = v.weight ? v.weight[i] : 1;
      w += weight;
      x += weight * v.x[i];
    }
  }
};

}  // namespace
}  // namespace wtool::best
#endif

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {
using best::Fits;
using best::Levels;
using best::Values;

constexpr std::size_t kSide = std::min<std::size_t>(4, best::kTrials / kLanes);
constexpr std::size_t kStep = kSide * kLanes;

struct Integers {
  VF lo, hi;
  explicit Integers(const Levels& levels)
      : lo(hn::Set(kF, levels.lo)), hi(hn::Set(kF, levels.hi)) {}
  HWY_INLINE VF operator()(VF v) const { return hn::Round(hn::Min(hn::Max(v, lo), hi)); }
};
struct Iq4 {
  explicit Iq4(const Levels&) {}
  HWY_INLINE VF operator()(VF v) const {
    VF level = hn::Set(kF, best::kIq4[0]);
#pragma GCC unroll 15
    for (int i = 0; i < 15; ++i) {
      const auto above = hn::Ge(v, hn::Set(kF, best::middle(best::kIq4, i)));
      level = hn::IfThenElse(above, hn::Set(kF, best::kIq4[i + 1]), level);
    }
    return level;
  }
};
struct E2m1 {
  explicit E2m1(const Levels&) {}
  HWY_INLINE VF operator()(VF v) const {
    const VF sign = hn::Set(kF, -0.0f), a = hn::Abs(v);
    VF level = hn::Zero(kF);
#pragma GCC unroll 7
    for (int i = 0; i < 7; ++i) {
      const auto above = hn::Ge(a, hn::Set(kF, best::middle(best::kE2m1, i)));
      level = hn::IfThenElse(above, hn::Set(kF, best::kE2m1[i + 1]), level);
    }
    return hn::Or(level, hn::And(v, sign));
  }
};

HWY_INLINE VF inverse_of(VF scale) {
  const auto enough = hn::Ge(hn::Abs(scale), hn::Set(kF, best::kLeastScale));
  return hn::IfThenElseZero(enough, hn::Div(hn::Set(kF, 1.0f), scale));
}

template <class Level, bool kWeighted>
void fit_scales(const Levels& levels, const Values& v, const float* inverse, std::size_t trials,
                float* gain) noexcept {
  const Level level(levels);
  for (std::size_t t = 0; t < trials; t += kStep) {
    VF inv[kSide], a[kSide], b[kSide];
#pragma GCC unroll 4
    for (std::size_t s = 0; s < kSide; ++s) {
      inv[s] = hn::LoadU(kF, inverse + t + s * kLanes);
      a[s] = b[s] = hn::Zero(kF);
    }
    for (std::size_t i = 0; i < v.count; ++i) {
      const VF x = hn::Set(kF, v.x[i]);
      [[maybe_unused]] const VF w = hn::Set(kF, kWeighted ? v.weight[i] : 1);
#pragma GCC unroll 4
      for (std::size_t s = 0; s < kSide; ++s) {
        const VF q = level(hn::Mul(x, inv[s]));
        VF wq = q;
        if constexpr (kWeighted) wq = hn::Mul(w, q);
        a[s] = hn::Add(a[s], hn::Mul(wq, x));
        b[s] = hn::Add(b[s], hn::Mul(wq, q));
      }
    }
#pragma GCC unroll 4
    for (std::size_t s = 0; s < kSide; ++s) {
      const VF won = hn::Div(hn::Mul(a[s], a[s]), b[s]);
      hn::StoreU(hn::IfThenElseZero(hn::Gt(b[s], hn::Zero(kF)), won), kF, gain + t + s * kLanes);
    }
  }
}

template <class Level, bool kWeighted>
void scale_errors(const Levels& levels, const Values& v, const float* scale, std::size_t trials,
                  float* error) noexcept {
  const Level level(levels);
  for (std::size_t t = 0; t < trials; t += kStep) {
    VF d[kSide], inv[kSide], e[kSide];
#pragma GCC unroll 4
    for (std::size_t s = 0; s < kSide; ++s) {
      d[s] = hn::LoadU(kF, scale + t + s * kLanes);
      inv[s] = inverse_of(d[s]);
      e[s] = hn::Zero(kF);
    }
    for (std::size_t i = 0; i < v.count; ++i) {
      const VF x = hn::Set(kF, v.x[i]);
      [[maybe_unused]] const VF w = hn::Set(kF, kWeighted ? v.weight[i] : 1);
#pragma GCC unroll 4
      for (std::size_t s = 0; s < kSide; ++s) {
        const VF off = hn::Sub(x, hn::Mul(level(hn::Mul(x, inv[s])), d[s]));
        VF weighed = off;
        if constexpr (kWeighted) weighed = hn::Mul(w, off);
        e[s] = hn::Add(e[s], hn::Mul(weighed, off));
      }
    }
#pragma GCC unroll 4
    for (std::size_t s = 0; s < kSide; ++s) hn::StoreU(e[s], kF, error + t + s * kLanes);
  }
}

template <bool kWeighted>
void offset_errors(float top, const Values& v, const float* scale, const float* offset,
                   std::size_t trials, float* error) noexcept {
  const VF hi = hn::Set(kF, top), lo = hn::Zero(kF);
  for (std::size_t t = 0; t < trials; t += kStep) {
    VF d[kSide], m[kSide], inv[kSide], e[kSide];
#pragma GCC unroll 4
    for (std::size_t s = 0; s < kSide; ++s) {
      d[s] = hn::LoadU(kF, scale + t + s * kLanes);
      m[s] = hn::LoadU(kF, offset + t + s * kLanes);
      inv[s] = inverse_of(d[s]);
      e[s] = hn::Zero(kF);
    }
    for (std::size_t i = 0; i < v.count; ++i) {
      const VF x = hn::Set(kF, v.x[i]);
      [[maybe_unused]] const VF w = hn::Set(kF, kWeighted ? v.weight[i] : 1);
#pragma GCC unroll 4
      for (std::size_t s = 0; s < kSide; ++s) {
        const VF y = hn::Add(x, m[s]);
        const VF q = hn::Round(hn::Min(hn::Max(hn::Mul(y, inv[s]), lo), hi));
        const VF off = hn::Sub(y, hn::Mul(q, d[s]));
        VF weighed = off;
        if constexpr (kWeighted) weighed = hn::Mul(w, off);
        e[s] = hn::Add(e[s], hn::Mul(weighed, off));
      }
    }
#pragma GCC unroll 4
    for (std::size_t s = 0; s < kSide; ++s) hn::StoreU(e[s], kF, error + t + s * kLanes);
  }
}

// The end of fit_offsets(): the least squares of each trial from its sums.
HWY_INLINE void solve(const best::Totals& all, int sign, VF l, VF ll, VF xl, std::size_t t,
                      const Fits& out) {
  const VF zero = hn::Zero(kF), w = hn::Set(kF, all.w), x = hn::Set(kF, all.x);
  const VF det = hn::Sub(hn::Mul(w, ll), hn::Mul(l, l));
  VF scale = hn::Div(hn::Sub(hn::Mul(w, xl), hn::Mul(x, l)), det);
  VF offset = hn::Div(hn::Sub(hn::Mul(l, xl), hn::Mul(ll, x)), det);
  const auto alone = hn::Gt(ll, zero);
  const auto wrong = hn::Or(hn::Not(hn::Gt(det, zero)),
                            hn::Lt(hn::Mul(offset, hn::Set(kF, static_cast<float>(sign))), zero));
  scale = hn::IfThenElse(wrong, hn::IfThenElseZero(alone, hn::Div(xl, ll)), scale);
  offset = hn::IfThenZeroElse(wrong, offset);
  // Where both are free the derivatives vanish: the gain is the product with the right-hand side,
  // with one of them 0 as well.
  const VF gain = hn::Sub(hn::Mul(scale, xl), hn::Mul(offset, x));
  hn::StoreU(gain, kF, out.gain + t);
  hn::StoreU(scale, kF, out.scale + t);
  hn::StoreU(offset, kF, out.offset + t);
}

template <bool kWeighted>
void fit_offsets(float top, int sign, const Values& v, const float* inverse, const float* offset,
                 std::size_t trials, const Fits& out) noexcept {
  const best::Totals all(v);
  const VF hi = hn::Set(kF, top), lo = hn::Zero(kF);
  for (std::size_t t = 0; t < trials; t += kStep) {
    VF m[kSide], inv[kSide], l[kSide], ll[kSide], xl[kSide];
#pragma GCC unroll 4
    for (std::size_t s = 0; s < kSide; ++s) {
      inv[s] = hn::LoadU(kF, inverse + t + s * kLanes);
      m[s] = hn::LoadU(kF, offset + t + s * kLanes);
      l[s] = ll[s] = xl[s] = hn::Zero(kF);
    }
    for (std::size_t i = 0; i < v.count; ++i) {
      const VF x = hn::Set(kF, v.x[i]);
      [[maybe_unused]] const VF w = hn::Set(kF, kWeighted ? v.weight[i] : 1);
#pragma GCC unroll 4
      for (std::size_t s = 0; s < kSide; ++s) {
        const VF at = hn::Mul(hn::Add(x, m[s]), inv[s]);
        const VF q = hn::Round(hn::Min(hn::Max(at, lo), hi));
        VF wq = q;
        if constexpr (kWeighted) wq = hn::Mul(w, q);
        l[s] = hn::Add(l[s], wq);
        ll[s] = hn::Add(ll[s], hn::Mul(wq, q));
        xl[s] = hn::Add(xl[s], hn::Mul(wq, x));
      }
    }
#pragma GCC unroll 4
    for (std::size_t s = 0; s < kSide; ++s)
      solve(all, sign, l[s], ll[s], xl[s], t + s * kLanes, out);
  }
}

int index_of(const float* values, std::size_t trials, VF wanted) {
  for (std::size_t t = 0; t < trials; t += kLanes) {
    const auto at = hn::FindFirstTrue(kF, hn::Eq(hn::LoadU(kF, values + t), wanted));
    if (at >= 0) return static_cast<int>(t) + static_cast<int>(at);
  }
  return -1;
}
std::size_t first_least(const float* values, std::size_t trials) noexcept {
  VF least = hn::LoadU(kF, values);
  for (std::size_t t = kLanes; t < trials; t += kLanes)
    least = hn::Min(least, hn::LoadU(kF, values + t));
  return static_cast<std::size_t>(std::max(0, index_of(values, trials, hn::MinOfLanes(kF, least))));
}
best::Pick first_greatest(const float* values, std::size_t trials, float below) noexcept {
  const VF limit = hn::Set(kF, below), none = hn::Set(kF, -1.0f);
  VF most = none;
  for (std::size_t t = 0; t < trials; t += kLanes) {
    const VF v = hn::LoadU(kF, values + t);
    most = hn::Max(most, hn::IfThenElse(hn::Lt(v, limit), v, none));
  }
  most = hn::MaxOfLanes(kF, most);
  return {hn::GetLane(most), index_of(values, trials, most)};
}

// Which of the instances above.
void any_fit_scales(const Levels& levels, const Values& v, const float* inverse, std::size_t trials,
                    float* gain) noexcept {
  const auto run = [&]<class Level>() {
    (v.weight ? &fit_scales<Level, true> : &fit_scales<Level, false>)(levels, v, inverse, trials,
                                                                      gain);
  };
  if (levels.kind == Levels::Kind::Iq4) return run.template operator()<Iq4>();
  if (levels.kind == Levels::Kind::E2m1) return run.template operator()<E2m1>();
  run.template operator()<Integers>();
}
void any_scale_errors(const Levels& levels, const Values& v, const float* scale, std::size_t trials,
                      float* error) noexcept {
  const auto run = [&]<class Level>() {
    (v.weight ? &scale_errors<Level, true> : &scale_errors<Level, false>)(levels, v, scale, trials,
                                                                          error);
  };
  if (levels.kind == Levels::Kind::Iq4) return run.template operator()<Iq4>();
  if (levels.kind == Levels::Kind::E2m1) return run.template operator()<E2m1>();
  run.template operator()<Integers>();
}
void any_offset_errors(float top, const Values& v, const float* scale, const float* offset,
                       std::size_t trials, float* error) noexcept {
  (v.weight ? &offset_errors<true> : &offset_errors<false>)(top, v, scale, offset, trials, error);
}
void any_fit_offsets(float top, int sign, const Values& v, const float* inverse,
                     const float* offset, std::size_t trials, const Fits& out) noexcept {
  (v.weight ? &fit_offsets<true> : &fit_offsets<false>)(top, sign, v, inverse, offset, trials, out);
}

}  // namespace

constexpr best::Scans kScans{&any_fit_scales,  &any_scale_errors, &any_offset_errors,
                             &any_fit_offsets, &first_least,      &first_greatest};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool::best {
namespace {

float nearest(const Levels& levels, float v) {
  switch (levels.kind) {
    case Levels::Kind::Integers: return nearest_of<Levels::Kind::Integers>(levels.lo, levels.hi, v);
    case Levels::Kind::Iq4: return nearest_of<Levels::Kind::Iq4>(0, 0, v);
    case Levels::Kind::E2m1: break;
  }
  return nearest_of<Levels::Kind::E2m1>(0, 0, v);
}
float weight_at(const Values& v, std::size_t i) {
  return v.weight ? v.weight[i] : 1;
}

void plain_fit_scales(const Levels& levels, const Values& v, const float* inverse,
                      std::size_t trials, float* gain) noexcept {
  for (std::size_t t = 0; t < trials; ++t) {
    float a = 0, b = 0;
    for (std::size_t i = 0; i < v.count; ++i) {
      const float q = nearest(levels, v.x[i] * inverse[t]), wq = weight_at(v, i) * q;
      a += wq * v.x[i];
      b += wq * q;
    }
    gain[t] = b > 0 ? a * a / b : 0;
  }
}

void plain_scale_errors(const Levels& levels, const Values& v, const float* scale,
                        std::size_t trials, float* error) noexcept {
  for (std::size_t t = 0; t < trials; ++t) {
    const float inverse = inverse_of(scale[t]);
    float e = 0;
    for (std::size_t i = 0; i < v.count; ++i) {
      const float off = v.x[i] - nearest(levels, v.x[i] * inverse) * scale[t];
      e += weight_at(v, i) * off * off;
    }
    error[t] = e;
  }
}

void plain_offset_errors(float top, const Values& v, const float* scale, const float* offset,
                         std::size_t trials, float* error) noexcept {
  for (std::size_t t = 0; t < trials; ++t) {
    const float inverse = inverse_of(scale[t]);
    float e = 0;
    for (std::size_t i = 0; i < v.count; ++i) {
      const float y = v.x[i] + offset[t];
      const float off = y - rounded(within(y * inverse, 0, top)) * scale[t];
      e += weight_at(v, i) * off * off;
    }
    error[t] = e;
  }
}

void plain_fit_offsets(float top, int sign, const Values& v, const float* inverse,
                       const float* offset, std::size_t trials, const Fits& out) noexcept {
  const Totals all(v);
  for (std::size_t t = 0; t < trials; ++t) {
    float l = 0, ll = 0, xl = 0;
    for (std::size_t i = 0; i < v.count; ++i) {
      const float q = rounded(within((v.x[i] + offset[t]) * inverse[t], 0, top));
      const float wq = weight_at(v, i) * q;
      l += wq;
      ll += wq * q;
      xl += wq * v.x[i];
    }
    const float det = all.w * ll - l * l;
    float s = (all.w * xl - all.x * l) / det, m = (l * xl - ll * all.x) / det;
    if (!(det > 0) || m * static_cast<float>(sign) < 0) {
      s = ll > 0 ? xl / ll : 0;
      m = 0;
    }
    out.gain[t] = s * xl - m * all.x;
    out.scale[t] = s;
    out.offset[t] = m;
  }
}

std::size_t plain_first_least(const float* values, std::size_t trials) noexcept {
  return static_cast<std::size_t>(std::min_element(values, values + trials) - values);
}
Pick plain_first_greatest(const float* values, std::size_t trials, float below) noexcept {
  Pick best{-1, -1};
  for (std::size_t t = 0; t < trials; ++t)
    if (values[t] < below && values[t] > best.value) best = {values[t], static_cast<int>(t)};
  return best;
}

constexpr Scans kPlain{&plain_fit_scales,  &plain_scale_errors, &plain_offset_errors,
                       &plain_fit_offsets, &plain_first_least,  &plain_first_greatest};

const Scans& scans() noexcept {
  return WTOOL_CHOOSE(kPlain, kScans);
}

}  // namespace

void fit_scales(const Levels& levels, const Values& v, const float* inverse, std::size_t trials,
                float* gain) noexcept {
  scans().fit_scales(levels, v, inverse, whole_trials(trials), gain);
}
void scale_errors(const Levels& levels, const Values& v, const float* scale, std::size_t trials,
                  float* error) noexcept {
  scans().scale_errors(levels, v, scale, whole_trials(trials), error);
}
void offset_errors(float top, const Values& v, const float* scale, const float* offset,
                   std::size_t trials, float* error) noexcept {
  scans().offset_errors(top, v, scale, offset, whole_trials(trials), error);
}
void fit_offsets(float top, int sign, const Values& v, const float* inverse, const float* offset,
                 std::size_t trials, const Fits& out) noexcept {
  scans().fit_offsets(top, sign, v, inverse, offset, whole_trials(trials), out);
}

std::size_t first_least(const float* values, std::size_t trials) noexcept {
  return scans().first_least(values, whole_trials(trials));
}
Pick first_greatest(const float* values, std::size_t trials, float below) noexcept {
  return scans().first_greatest(values, whole_trials(trials), below);
}

}  // namespace wtool::best
#endif
