// The types with a scale and a minimum, fitted by trial (make_qkx2_quants, make_qkx3_quants and
// make_qp_quants in ggml-quants.c): q2_k, q4_k, q5_k, and q4_1 and q5_1 with importance. One block
// in each lane: see ggml_lanes-inl.h.
#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/kernels/ggml_scalar.h"
#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/ggml_affine.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/ggml_lanes-inl.h"

#ifndef WTOOL_GGML_AFFINE_ONCE
#define WTOOL_GGML_AFFINE_ONCE
namespace wtool {
namespace {

struct AffineKernels {
  QuantizeRows q2_k, q4_k, q5_k;
  QuantizeRows weighted_q2_k, weighted_q4_k, weighted_q5_k, weighted_q4_1, weighted_q5_1;
};

// How a group is fitted: codes 0 .. kMost, trials of (r0 + dr * s + kMost) codes over the range for
// s = 0 .. steps, errors squared or absolute.
template <std::size_t kElements, int kMost, bool kAbsolute>
struct FitOf {
  static constexpr std::size_t elements = kElements;
  static constexpr int most = kMost;
  static constexpr bool absolute = kAbsolute;
  float r0, dr;
  int steps;
};

// The super-block of 256 of a type.
struct Q2K {
  using Fit = FitOf<16, 3, true>;
  using WeightedFit = FitOf<16, 3, false>;
  static constexpr Fit fit{-0.5f, 0.1f, 15};
  static constexpr WeightedFit weighted{-0.9f, 0.05f, 36};
  static constexpr float sigma_factor = 1;
  static constexpr int most_scale = 15;
  static constexpr std::size_t bytes = 84;
};
struct Q4K {
  using Fit = FitOf<32, 15, false>;
  using WeightedFit = Fit;
  static constexpr Fit fit{-1.0f, 0.1f, 20};
  static constexpr WeightedFit weighted{-0.9f, 0.05f, 36};
  static constexpr float sigma_factor = 2;
  static constexpr int most_scale = 63;
  static constexpr std::size_t bytes = 144;
};
struct Q5K {
  using Fit = FitOf<32, 31, false>;
  using WeightedFit = Fit;
  static constexpr Fit fit{-0.5f, 0.1f, 15};
  static constexpr WeightedFit weighted{-0.9f, 0.05f, 36};
  static constexpr float sigma_factor = 2;
  static constexpr int most_scale = 63;
  static constexpr std::size_t bytes = 176;
};

}  // namespace
}  // namespace wtool
#endif

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

// One group's fit. Its codes are nearest(inv * (x - lo)), clamped; all 0 where `empty`.
struct Fitted {
  VF scale, min;  // min: what is subtracted, >= 0 or -0
  VF inv, lo;
  MF empty;
};

// Two groups are fitted side by side: the sums of one have to wait for each addition, two fill the
// processor's time.
constexpr std::size_t kPair = 2;

// One trial's codes, kept in `l`, and their sums. Codes are nearest(inv * (x - lo)).
struct Sums {
  VF l, ll, xl;
};
template <class Fit, bool kIsTame>
HWY_INLINE void try_codes(const float* x, const float* w, const VF* inv, const VF* lo, float* l,
                          Sums* sums) {
  constexpr std::size_t n = Fit::elements;
  Sums sum[kPair];  // in registers: what is behind pointers is stored each time
#pragma GCC unroll 2
  for (std::size_t k = 0; k < kPair; ++k) sum[k] = {hn::Zero(kF), hn::Zero(kF), hn::Zero(kF)};
#pragma GCC unroll 2
  for (std::size_t e = 0; e < n; ++e)
#pragma GCC unroll 2
    for (std::size_t k = 0; k < kPair; ++k) {
      const VF v = at(x, k * n + e);
      put(code<kIsTame>(hn::Mul(inv[k], hn::Sub(v, lo[k])), 0, Fit::most), l, k * n + e);
    }
#pragma GCC unroll 2
  for (std::size_t e = 0; e < n; ++e)
#pragma GCC unroll 2
    for (std::size_t k = 0; k < kPair; ++k) {
      const VF v = at(x, k * n + e), c = at(l, k * n + e);
      const VF wl = hn::Mul(at(w, k * n + e), c);
      sum[k].l = hn::Add(sum[k].l, wl);
      sum[k].ll = hn::Add(sum[k].ll, hn::Mul(wl, c));
      sum[k].xl = hn::Add(sum[k].xl, hn::Mul(wl, v));
    }
#pragma GCC unroll 2
  for (std::size_t k = 0; k < kPair; ++k) sums[k] = sum[k];
}
template <class Fit>
HWY_INLINE void errors_of(const float* x, const float* w, const float* l, const VF* scale,
                          const VF* lo, VF* errors) {
  constexpr std::size_t n = Fit::elements;
  VF sum[kPair];
#pragma GCC unroll 2
  for (std::size_t k = 0; k < kPair; ++k) sum[k] = hn::Zero(kF);
#pragma GCC unroll 2
  for (std::size_t e = 0; e < n; ++e)
#pragma GCC unroll 2
    for (std::size_t k = 0; k < kPair; ++k) {
      const std::size_t i = k * n + e;
      const VF d = hn::Sub(hn::Add(hn::Mul(scale[k], at(l, i)), lo[k]), at(x, i));
      sum[k] = hn::Add(sum[k], hn::Mul(at(w, i), Fit::absolute ? hn::Abs(d) : hn::Mul(d, d)));
    }
#pragma GCC unroll 2
  for (std::size_t k = 0; k < kPair; ++k) errors[k] = sum[k];
}

// What does not change while a group is fitted.
struct Extent {
  VF least, hi, sum_w, sum_x;
  MF empty;
};
template <class Fit>
HWY_INLINE Extent extent_of(const float* x, const float* w, VF& lo) {
  Extent g{at(x, 0), at(x, 0), at(w, 0), hn::Mul(at(w, 0), at(x, 0)), {}};
  for (std::size_t e = 1; e < Fit::elements; ++e) {
    const VF v = at(x, e);
    g.least = hn::Min(v, g.least);
    g.hi = hn::Max(v, g.hi);
    g.sum_w = hn::Add(g.sum_w, at(w, e));
    g.sum_x = hn::Add(g.sum_x, hn::Mul(at(w, e), v));
  }
  lo = pick(hn::Gt(g.least, hn::Zero(kF)), hn::Zero(kF), g.least);
  g.empty = hn::Le(g.hi, lo);
  return g;
}
// Whether all codes of a trial stay in the range of the quick way to compute them.
HWY_INLINE bool is_tame(const Extent& g, VF inv, VF lo) {
  const VF top = hn::Abs(hn::Mul(inv, hn::Sub(g.hi, lo)));
  const VF bottom = hn::Abs(hn::Mul(inv, hn::Sub(g.least, lo)));
  const MF tame = hn::And(hn::Le(top, all(kTame)), hn::Le(bottom, all(kTame)));
  return hn::AllTrue(kF, hn::Or(tame, g.empty));
}
// The scale and minimum that suit a trial's codes best; false lanes have none.
HWY_INLINE MF solve(const Extent& g, const Sums& s, VF& scale, VF& lo) {
  const VF zero = hn::Zero(kF);
  const VF d = hn::Sub(hn::Mul(g.sum_w, s.ll), hn::Mul(s.l, s.l));
  scale = hn::Div(hn::Sub(hn::Mul(g.sum_w, s.xl), hn::Mul(g.sum_x, s.l)), d);
  lo = hn::Div(hn::Sub(hn::Mul(s.ll, g.sum_x), hn::Mul(s.l, s.xl)), d);
  const MF positive = hn::Gt(lo, zero);
  if (HWY_UNLIKELY(!hn::AllFalse(kF, positive))) {
    lo = pick(positive, zero, lo);
    scale = pick(positive, hn::Div(s.xl, s.ll), scale);
  }
  return hn::Gt(d, zero);
}

// x and w: kPair groups, one after the other.
template <class Fit>
HWY_INLINE void fit_pair(const Fit& fit, const float* x, const float* w, Fitted* found) {
  constexpr std::size_t n = Fit::elements;
  constexpr float kMost = static_cast<float>(Fit::most);
  alignas(64) float l[kPair * n * kLanes];
  Extent g[kPair];
  Sums sums[kPair];
  VF lo[kPair], first_lo[kPair], inv[kPair], scale[kPair], used_lo[kPair], best[kPair];

  const auto codes = [&](const VF* by) {
    bool tame = true;
    for (std::size_t k = 0; k < kPair; ++k) tame = tame && is_tame(g[k], by[k], lo[k]);
    if (HWY_LIKELY(tame))
      try_codes<Fit, true>(x, w, by, lo, l, sums);
    else
      try_codes<Fit, false>(x, w, by, lo, l, sums);
  };
  // The range that is divided grows or shrinks with the best minimum so far, as in the reference.
  const auto codes_over = [&](float levels, std::size_t k) {
    return hn::Div(all(levels), pick(g[k].empty, all(1.0f), hn::Sub(g[k].hi, lo[k])));
  };

  for (std::size_t k = 0; k < kPair; ++k) {
    g[k] = extent_of<Fit>(x + k * n * kLanes, w + k * n * kLanes, lo[k]);
    first_lo[k] = used_lo[k] = lo[k];
    inv[k] = codes_over(kMost, k);
    scale[k] = hn::Div(all(1.0f), inv[k]);
  }
  codes(inv);
  errors_of<Fit>(x, w, l, scale, lo, best);
  for (int s = 0; s <= fit.steps; ++s) {
    VF next[kPair], this_scale[kPair], this_lo[kPair], error[kPair];
    MF solved[kPair];
    for (std::size_t k = 0; k < kPair; ++k)
      next[k] = codes_over(fit.r0 + fit.dr * static_cast<float>(s) + kMost, k);
    codes(next);
    for (std::size_t k = 0; k < kPair; ++k)
      solved[k] = solve(g[k], sums[k], this_scale[k], this_lo[k]);
    errors_of<Fit>(x, w, l, this_scale, this_lo, error);
    for (std::size_t k = 0; k < kPair; ++k) {
      const MF better = hn::And(solved[k], hn::Lt(error[k], best[k]));
      best[k] = pick(better, error[k], best[k]);
      scale[k] = pick(better, this_scale[k], scale[k]);
      inv[k] = pick(better, next[k], inv[k]);
      used_lo[k] = pick(better, lo[k], used_lo[k]);
      lo[k] = pick(better, this_lo[k], lo[k]);
    }
  }
  for (std::size_t k = 0; k < kPair; ++k)
    found[k] = {hn::IfThenZeroElse(g[k].empty, scale[k]),
                hn::Neg(pick(g[k].empty, first_lo[k], lo[k])), inv[k], used_lo[k], g[k].empty};
}

// The codes that a fit found.
template <class Fit>
HWY_INLINE VI codes_of(const Fitted& f, VF x) {
  const VI q = nearest_in(hn::Mul(f.inv, hn::Sub(x, f.lo)), 0, Fit::most);
  return hn::IfThenZeroElse(hn::RebindMask(kI, f.empty), q);
}

// make_qp_quants: whole numbers 0 .. most for the n values, and their scale. Only the low byte of a
// code is kept, as there.
template <std::size_t n>
HWY_INLINE VF fit_positive(const VF* x, const VF* w, int most, VI* codes) {
  const VF zero = hn::Zero(kF), n_max = all(static_cast<float>(most));
  const auto low_byte = [](VI v) { return hn::And(v, all(255)); };
  const auto at_most = [&](VF v) { return hn::Min(nearest(v), all(most)); };
  const auto real = [](VI v) { return hn::ConvertTo(kF, v); };
  const auto error = [&](VF scale, auto&& code_at) {
    VF sum = zero;
    for (std::size_t i = 0; i < n; ++i) {
      const VF d = hn::Sub(x[i], hn::Mul(scale, real(code_at(x[i]))));
      sum = hn::Add(sum, hn::Mul(hn::Mul(w[i], d), d));
    }
    return sum;
  };

  VF top = zero;
  for (std::size_t i = 0; i < n; ++i) top = hn::Max(top, x[i]);
  const MF empty = hn::Lt(top, all(1e-15f));
  VF inv = hn::Div(n_max, top);
  VF best =
      error(hn::Div(all(1.0f), inv), [&](VF v) { return low_byte(nearest(hn::Mul(inv, v))); });
  for (int s = -4; s <= 4; ++s) {
    if (s == 0) continue;
    const VF next = hn::Div(all(0.1f * static_cast<float>(s) + static_cast<float>(most)), top);
    const VF e = error(hn::Div(all(1.0f), next), [&](VF v) { return at_most(hn::Mul(next, v)); });
    const MF better = hn::Lt(e, best);
    best = pick(better, e, best);
    inv = pick(better, next, inv);
  }
  VF sum_lx = zero, sum_ll = zero;
  for (std::size_t i = 0; i < n; ++i) {
    const VI l = at_most(hn::Mul(inv, x[i]));
    codes[i] = low_byte(l);
    sum_lx = hn::Add(sum_lx, hn::Mul(hn::Mul(w[i], x[i]), real(l)));
    sum_ll = hn::Add(sum_ll, hn::Mul(hn::Mul(w[i], real(l)), real(l)));
  }
  // Where a pass changes nothing, neither will the next: no lane needs to stop before the others.
  for (int pass = 0; pass < 5; ++pass) {
    MF changed = hn::Ne(zero, zero);
    for (std::size_t i = 0; i < n; ++i) {
      const VF l = real(codes[i]), wx = hn::Mul(w[i], x[i]);
      VF lx = hn::Sub(sum_lx, hn::Mul(wx, l)), ll = hn::Sub(sum_ll, hn::Mul(hn::Mul(w[i], l), l));
      const MF may = hn::And(hn::Gt(lx, zero), hn::Gt(ll, zero));
      const VI next = at_most(hn::Div(hn::Mul(x[i], ll), lx));
      const VF r = real(next);
      lx = hn::Add(lx, hn::Mul(wx, r));
      ll = hn::Add(ll, hn::Mul(hn::Mul(w[i], r), r));
      const MF better =
          hn::Gt(hn::Mul(hn::Mul(lx, lx), sum_ll), hn::Mul(hn::Mul(sum_lx, sum_lx), ll));
      const MF takes = hn::And(hn::And(may, better), hn::Ne(r, l));
      codes[i] = hn::IfThenElse(hn::RebindMask(kI, takes), low_byte(next), codes[i]);
      sum_lx = pick(takes, lx, sum_lx);
      sum_ll = pick(takes, ll, sum_ll);
      changed = hn::Or(changed, takes);
    }
    if (hn::AllFalse(kF, changed)) break;
  }
  for (std::size_t i = 0; i < n; ++i)
    codes[i] = hn::IfThenZeroElse(hn::RebindMask(kI, empty), codes[i]);
  const VF scale = pick(hn::Gt(sum_ll, zero), hn::Div(sum_lx, sum_ll), zero);
  return hn::IfThenZeroElse(empty, scale);
}

// Without importance: the codes of the scales are proportional to the largest.
template <std::size_t n>
HWY_INLINE VF round_positive(const VF* x, int most, VI* codes) {
  const VF zero = hn::Zero(kF), n_max = all(static_cast<float>(most));
  VF top = zero;
  for (std::size_t i = 0; i < n; ++i) top = pick(hn::Gt(x[i], top), x[i], top);
  const VF inv = pick(hn::Gt(top, zero), hn::Div(n_max, top), zero);
  for (std::size_t i = 0; i < n; ++i)
    codes[i] = hn::Min(hn::And(nearest(hn::Mul(inv, x[i])), all(255)), all(most));
  return hn::Div(top, n_max);
}

// ---- The super-blocks: batches of kLanes of them

template <class Type>
struct Groups {
  static constexpr std::size_t elements = Type::Fit::elements, count = 256 / elements;
  Fitted fit[count];
  VF weight[count];
  VI scale[count], min[count];
};

// How much each element's error counts.
HWY_INLINE void plain_weights(Q2K, const float* x, float* w) {
  for (std::size_t e = 0; e < 16; ++e) put(hn::Abs(at(x, e)), w, e);
}
template <class Type>
HWY_INLINE void plain_weights(Type, const float* x, float* w) {
  const VF mean = hn::Sqrt(hn::Div(sum_of_squares(x, 32), all(32.0f)));
  for (std::size_t e = 0; e < 32; ++e) put(hn::Add(mean, hn::Abs(at(x, e))), w, e);
}
// The codes with the scales as stored, where they are not 0.
template <class Type>
HWY_INLINE void requantize(const float* x, const Groups<Type>& groups, VF d, VF d_min, int* q) {
  using G = Groups<Type>;
  for (std::size_t j = 0; j < G::count; ++j) {
    const VF scale = hn::Mul(d, hn::ConvertTo(kF, groups.scale[j]));
    const VF min = hn::Mul(d_min, hn::ConvertTo(kF, groups.min[j]));
    const MF none = hn::Eq(scale, hn::Zero(kF));
    const bool any = !hn::AllFalse(kF, none);
#pragma GCC unroll 4
    for (std::size_t i = 0; i < G::elements; ++i) {
      const std::size_t e = j * G::elements + i;
      VI l = nearest_in(hn::Div(hn::Add(at(x, e), min), scale), 0, Type::Fit::most);
      if (HWY_UNLIKELY(any))
        l = hn::IfThenElse(hn::RebindMask(kI, none),
                           codes_of<typename Type::Fit>(groups.fit[j], at(x, e)), l);
      put(l, q, e);
    }
  }
}

HWY_INLINE void pack(Q2K, const Groups<Q2K>& g, const Half& d, const Half& m, const int* q,
                     const Batch& batch) {
  constexpr std::size_t kBytes = Q2K::bytes;
  const auto both = [&](std::size_t j) { return hn::Or(g.scale[j], hn::ShiftLeft<4>(g.min[j])); };
  for (std::size_t j = 0; j < 16; j += 4)
    put_word<kBytes>(word_of(both(j), both(j + 1), both(j + 2), both(j + 3)), batch, j);
  const auto byte = [&](std::size_t e) {
    return hn::Or(hn::Or(at(q, e), hn::ShiftLeft<2>(at(q, e + 32))),
                  hn::Or(hn::ShiftLeft<4>(at(q, e + 64)), hn::ShiftLeft<6>(at(q, e + 96))));
  };
  for (std::size_t half = 0; half < 2; ++half)
    for (std::size_t l = 0; l < 32; l += 4) {
      const std::size_t e = half * 128 + l;
      put_word<kBytes>(word_of(byte(e), byte(e + 1), byte(e + 2), byte(e + 3)), batch,
                       16 + half * 32 + l);
    }
  put_half<kBytes>(d, batch, 80);
  put_half<kBytes>(m, batch, 82);
}

// The 6-bit scales and minima of q4_k and q5_k in 12 bytes.
template <class Type>
HWY_INLINE void pack_scales(const Groups<Type>& g, const Batch& batch, std::size_t offset) {
  const auto first = [](const VI* v, std::size_t j) {
    return hn::Or(v[j], hn::ShiftLeft<6>(hn::ShiftRight<4>(v[j + 4])));
  };
  const auto last = [&](std::size_t j) {
    return hn::Or(hn::And(g.scale[j + 4], all(15)),
                  hn::ShiftLeft<4>(hn::And(g.min[j + 4], all(15))));
  };
  const auto word = [&](const VI* v) {
    return word_of(first(v, 0), first(v, 1), first(v, 2), first(v, 3));
  };
  put_word<Type::bytes>(word(g.scale), batch, offset);
  put_word<Type::bytes>(word(g.min), batch, offset + 4);
  put_word<Type::bytes>(word_of(last(0), last(1), last(2), last(3)), batch, offset + 8);
}
template <class Type>
HWY_INLINE void pack_nibbles(const int* q, const Batch& batch, std::size_t offset) {
  const auto byte = [&](std::size_t e) {
    return hn::Or(hn::And(at(q, e), all(15)), hn::ShiftLeft<4>(hn::And(at(q, e + 32), all(15))));
  };
  for (std::size_t c = 0; c < 4; ++c)
    for (std::size_t l = 0; l < 32; l += 4) {
      const std::size_t e = c * 64 + l;
      put_word<Type::bytes>(word_of(byte(e), byte(e + 1), byte(e + 2), byte(e + 3)), batch,
                            offset + c * 32 + l);
    }
}
HWY_INLINE void pack(Q4K, const Groups<Q4K>& g, const Half& d, const Half& m, const int* q,
                     const Batch& batch) {
  put_half<Q4K::bytes>(d, batch, 0);
  put_half<Q4K::bytes>(m, batch, 2);
  pack_scales(g, batch, 4);
  pack_nibbles<Q4K>(q, batch, 16);
}
HWY_INLINE void pack(Q5K, const Groups<Q5K>& g, const Half& d, const Half& m, const int* q,
                     const Batch& batch) {
  put_half<Q5K::bytes>(d, batch, 0);
  put_half<Q5K::bytes>(m, batch, 2);
  pack_scales(g, batch, 4);
  const auto fifth = [&](std::size_t l) {  // bit k is the fifth bit of element 32 k + l
    VI bits = hn::Zero(kI);
    for (std::size_t k = 8; k-- > 0;)
      bits = hn::Or(hn::Add(bits, bits), hn::ShiftRight<4>(at(q, k * 32 + l)));
    return bits;
  };
  for (std::size_t l = 0; l < 32; l += 4)
    put_word<Q5K::bytes>(word_of(fifth(l), fifth(l + 1), fifth(l + 2), fifth(l + 3)), batch,
                         16 + l);
  pack_nibbles<Q5K>(q, batch, 48);
}

template <class Type, bool kWeighted>
HWY_INLINE void super_blocks(const Batch& batch) {
  using G = Groups<Type>;
  alignas(64) float x[256 * kLanes];
  alignas(64) float q[kWeighted ? 256 * kLanes : 1];
  load_values<256>(batch, x);
  VF sigma2 = hn::Zero(kF);
  if constexpr (kWeighted) {
    load_importance<256>(batch, q);
    sigma2 = hn::Div(hn::Mul(all(Type::sigma_factor), sum_of_squares(x, 256)), all(256.0f));
  }

  G g;
  VF scales[G::count], mins[G::count];
  for (std::size_t j = 0; j < G::count; j += kPair) {
    alignas(64) float w[kPair * G::elements * kLanes];
    for (std::size_t k = j; k < j + kPair; ++k) {
      const std::size_t begin = k * G::elements * kLanes;
      float* to = w + (k - j) * G::elements * kLanes;
      if constexpr (kWeighted)
        g.weight[k] = importance_weights(x + begin, q + begin, sigma2, G::elements, to);
      else
        plain_weights(Type{}, x + begin, to);
    }
    prefetch_next<256>(batch, j / kPair, G::count / kPair);
    const float* pair = x + j * G::elements * kLanes;
    if constexpr (kWeighted)
      fit_pair(Type::weighted, pair, w, g.fit + j);
    else
      fit_pair(Type::fit, pair, w, g.fit + j);
    for (std::size_t k = j; k < j + kPair; ++k) {
      scales[k] = g.fit[k].scale;
      mins[k] = g.fit[k].min;
    }
  }
  Half d, d_min;
  if constexpr (kWeighted) {
    to_half(fit_positive<G::count>(scales, g.weight, Type::most_scale, g.scale), d);
    to_half(fit_positive<G::count>(mins, g.weight, Type::most_scale, g.min), d_min);
  } else {
    to_half(round_positive<G::count>(scales, Type::most_scale, g.scale), d);
    to_half(round_positive<G::count>(mins, Type::most_scale, g.min), d_min);
  }
  alignas(64) int codes[256 * kLanes];
  requantize<Type>(x, g, d.value, d_min.value, codes);
  pack(Type{}, g, d, d_min, codes, batch);
}

template <class Type, bool kWeighted>
void k_quant(const BlockRows& rows, std::byte* out) noexcept {
  for_batches<256, Type::bytes, 1>(
      rows, out, [](const Batch* batch) { super_blocks<Type, kWeighted>(*batch); });
}

// ---- q4_1 and q5_1 with importance

template <int kMost>
void weighted_1(const BlockRows& rows, std::byte* out) noexcept {
  constexpr bool kFifth = kMost == 31;
  constexpr std::size_t kBytes = kFifth ? 24 : 20, kSize = 32 * kLanes;
  using Fit = FitOf<32, kMost, false>;
  alignas(64) float x[kPair * kSize], w[kPair * kSize];
  alignas(64) int l[kSize];
  const auto finish = [&](const Batch& batch, const Fitted& f, const float* values) {
    Half d, m;
    to_half(f.scale, d);
    to_half(hn::Neg(f.min), m);
    put_half<kBytes>(d, batch, 0);
    put_half<kBytes>(m, batch, 2);
    for (std::size_t e = 0; e < 32; ++e) put(codes_of<Fit>(f, at(values, e)), l, e);
    pack_block_of_32<kFifth, kBytes>(l, batch, 4);
  };
  for_batches<32, kBytes, kPair>(rows, out, [&](const Batch* batches) {
    for (std::size_t k = 0; k < kPair; ++k) {
      load_values<32>(batches[k], x + k * kSize);
      load_importance<32>(batches[k], w + k * kSize);
      importance_weights(x + k * kSize, w + k * kSize, load_mean_square<32>(batches[k]), 32,
                         w + k * kSize);
    }
    Fitted found[kPair];
    fit_pair(Fit{-0.9f, 0.05f, 36}, x, w, found);
    for (std::size_t k = 0; k < kPair; ++k) finish(batches[k], found[k], x + k * kSize);
  });
}

}  // namespace

constexpr AffineKernels kAffine{&k_quant<Q2K, false>, &k_quant<Q4K, false>, &k_quant<Q5K, false>,
                                &k_quant<Q2K, true>,  &k_quant<Q4K, true>,  &k_quant<Q5K, true>,
                                &weighted_1<15>,      &weighted_1<31>};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {
constexpr AffineKernels kScalar{&scalar::quantize_q2_k,          &scalar::quantize_q4_k,
                                &scalar::quantize_q5_k,          &scalar::quantize_q2_k,
                                &scalar::quantize_q4_k,          &scalar::quantize_q5_k,
                                &scalar::quantize_weighted_q4_1, &scalar::quantize_weighted_q5_1};
const AffineKernels& kernels() noexcept {
  return WTOOL_CHOOSE(kScalar, kAffine);
}

// Without importance, whatever the rows say.
BlockRows plain(const BlockRows& rows) noexcept {
  return {rows.values, rows.rows, rows.columns};
}
}  // namespace

void quantize_q2_k(const BlockRows& rows, std::byte* out) noexcept {
  kernels().q2_k(plain(rows), out);
}
void quantize_q4_k(const BlockRows& rows, std::byte* out) noexcept {
  kernels().q4_k(plain(rows), out);
}
void quantize_q5_k(const BlockRows& rows, std::byte* out) noexcept {
  kernels().q5_k(plain(rows), out);
}
void quantize_weighted_q2_k(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_q2_k(rows, out);
}
void quantize_weighted_q4_k(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_q4_k(rows, out);
}
void quantize_weighted_q5_k(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_q5_k(rows, out);
}
void quantize_weighted_q4_1(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_q4_1(rows, out);
}
void quantize_weighted_q5_1(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_q5_1(rows, out);
}

}  // namespace wtool
#endif
