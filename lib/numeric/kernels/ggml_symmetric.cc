// The types with a scale and no minimum, found by trial (make_qx_quants, make_q3_quants and
// quantize_row_iq4_nl_impl in ggml-quants.c): q3_k, q6_k, iq4_nl, iq4_xs, and q4_0 and q5_0 with
// importance. One block in each lane: see ggml_lanes-inl.h.
#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/kernels/ggml_scalar.h"
#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/ggml_symmetric.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/ggml_lanes-inl.h"

#ifndef WTOOL_GGML_SYMMETRIC_ONCE
#define WTOOL_GGML_SYMMETRIC_ONCE
namespace wtool {
namespace {

struct SymmetricKernels {
  QuantizeRows q3_k, q6_k, iq4_nl, iq4_xs;
  QuantizeRows weighted_q3_k, weighted_q6_k, weighted_iq4_nl, weighted_iq4_xs, weighted_q4_0,
      weighted_q5_0;
};

constexpr float kNothing = 1e-15f;  // GROUP_MAX_EPS: magnitudes below count as zero

// The values of iq4_nl's codes, and half-way between neighbours: a value there takes the upper one.
constexpr float kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1,    13,   25,  38,  53,  69,  89,  113};
constexpr auto kBorders = [] {
  struct {
    float at[15];
  } out{};
  for (int i = 0; i < 15; ++i) out.at[i] = (kValues[i] + kValues[i + 1]) / 2;
  return out;
}();

}  // namespace
}  // namespace wtool
#endif

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

// ---- Scales for codes -N .. N-1

struct Scaled {
  VF scale, inv;  // codes are nearest(inv * x), clamped; all -N, stored as 0, where `empty`
  MF empty;
};

// make_qx_quants. x and w: n elements.
template <std::size_t n, int N, bool kTame = true>
HWY_INLINE Scaled fit_symmetric(const float* x, const float* w) {
  const VF zero = hn::Zero(kF), top = first_largest(x, n);
  const MF empty = hn::Lt(hn::Abs(top), all(kNothing));
  const VF safe = pick(empty, all(1.0f), top);
  alignas(64) float wx[n * kLanes];
  for (std::size_t e = 0; e < n; ++e) put(hn::Mul(at(w, e), at(x, e)), wx, e);
  struct {
    VF lx, ll;
  } sum;
  // No code can be far out, as |x| <= |top|, and below -N only with more than N + 1/2 levels. But
  // where a group's scale is NaN (not tame), all is as the reference's integers have it.
  const auto try_codes = [&]<bool kLow>(VF inv, std::bool_constant<kLow>) {
    VF lx = zero, ll = zero;
#pragma GCC unroll 8
    for (std::size_t e = 0; e < n; ++e) {
      VF l = hn::Mul(inv, at(x, e));
      if constexpr (!kTame) {
        l = code<false>(l, -N, N - 1);
      } else {
        l = hn::Min(hn::Round(l), all(static_cast<float>(N - 1)));
        if constexpr (kLow) l = hn::Max(l, all(static_cast<float>(-N)));
      }
      lx = hn::Add(lx, hn::Mul(at(wx, e), l));
      ll = hn::Add(ll, hn::Mul(hn::Mul(at(w, e), l), l));
    }
    sum = {lx, ll};
  };
  VF inv = hn::Div(all(static_cast<float>(-N)), safe);
  try_codes(inv, std::false_type{});
  VF scale = hn::IfThenZeroElse(hn::Eq(sum.ll, zero), hn::Div(sum.lx, sum.ll));
  VF best = hn::Mul(scale, sum.lx);
  for (int s = -9; s <= 9; ++s) {
    if (s == 0) continue;
    const float levels = static_cast<float>(N) + 0.1f * static_cast<float>(s);
    const VF next = hn::Div(all(-levels), safe);
    s > 4 ? try_codes(next, std::true_type{}) : try_codes(next, std::false_type{});
    const MF better =
        hn::And(hn::Gt(sum.ll, zero), hn::Gt(hn::Mul(sum.lx, sum.lx), hn::Mul(best, sum.ll)));
    const VF this_scale = hn::Div(sum.lx, sum.ll);
    scale = pick(better, this_scale, scale);
    best = pick(better, hn::Mul(this_scale, sum.lx), best);
    inv = pick(better, next, inv);
  }
  return {hn::IfThenZeroElse(empty, scale), inv, empty};
}
// As they are stored: 0 .. 2N-1.
template <int N>
HWY_INLINE VI stored_code(const Scaled& f, VF x) {
  const VI l = hn::Add(nearest_in(hn::Mul(f.inv, x), -N, N - 1), all(N));
  return hn::IfThenZeroElse(hn::RebindMask(kI, f.empty), l);
}

// make_q3_quants with kPair groups of 16 side by side: codes -4 .. 3 go to `l`, plus 4 (0 where a
// group is empty); the scales are returned. Each step of a group waits for the one before it.
constexpr std::size_t kPair = 2;
HWY_INLINE void fit_q3(const float* x, float* l, VF* scales) {
  constexpr std::size_t n = 16;
  const VF zero = hn::Zero(kF);
  VF sum_lx[kPair], sum_ll[kPair];
  MF empty[kPair];
  // Of each element, w * x * code and w * code * code, where w is x * x.
  alignas(64) float wxc[kPair * n * kLanes], wcc[kPair * n * kLanes];
  for (std::size_t k = 0; k < kPair; ++k) {
    const VF top = first_largest(x + k * n * kLanes, n);
    empty[k] = hn::Lt(hn::Abs(top), all(kNothing));
    const VF inv = hn::Div(all(-4.0f), pick(empty[k], all(1.0f), top));
    VF lx = zero, ll = zero;
    for (std::size_t e = k * n; e < k * n + n; ++e) {
      const VF v = at(x, e), c = code<true>(hn::Mul(inv, v), -4, 3), w = hn::Mul(v, v);
      const VF x_part = hn::Mul(hn::Mul(w, v), c), c_part = hn::Mul(hn::Mul(w, c), c);
      put(c, l, e);
      put(x_part, wxc, e);
      put(c_part, wcc, e);
      lx = hn::Add(lx, x_part);
      ll = hn::Add(ll, c_part);
    }
    sum_lx[k] = lx;
    sum_ll[k] = ll;
  }
  // Where a pass changes nothing, neither will the next: no lane needs to stop before the others.
  for (int pass = 0; pass < 5; ++pass) {
    MF changed = hn::Ne(zero, zero);
#pragma GCC unroll 1
    for (std::size_t i = 0; i < n; ++i) {
      VF lx[kPair], ll[kPair], next[kPair];
      MF wants[kPair];
#pragma GCC unroll 4
      for (std::size_t k = 0; k < kPair; ++k) {
        const std::size_t e = k * n + i;
        lx[k] = hn::Sub(sum_lx[k], at(wxc, e));
        ll[k] = hn::Sub(sum_ll[k], at(wcc, e));
        next[k] = code<false>(hn::Div(hn::Mul(at(x, e), ll[k]), lx[k]), -4, 3);
        wants[k] = hn::And(hn::Gt(lx[k], zero), hn::Ne(next[k], at(l, e)));
      }
#pragma GCC unroll 4
      for (std::size_t k = 0; k < kPair; ++k) {
        if (hn::AllFalse(kF, wants[k])) continue;  // soon the most common case
        const std::size_t e = k * n + i;
        const VF v = at(x, e), w = hn::Mul(v, v);
        const VF wxn = hn::Mul(hn::Mul(w, v), next[k]), wnn = hn::Mul(hn::Mul(w, next[k]), next[k]);
        const VF new_lx = hn::Add(lx[k], wxn), new_ll = hn::Add(ll[k], wnn);
        const MF better = hn::Gt(hn::Mul(hn::Mul(new_lx, new_lx), sum_ll[k]),
                                 hn::Mul(hn::Mul(sum_lx[k], sum_lx[k]), new_ll));
        const MF takes = hn::And(wants[k], hn::And(hn::Gt(new_ll, zero), better));
        if (hn::AllFalse(kF, takes)) continue;
        put(pick(takes, next[k], at(l, e)), l, e);
        put(pick(takes, wxn, at(wxc, e)), wxc, e);
        put(pick(takes, wnn, at(wcc, e)), wcc, e);
        sum_lx[k] = pick(takes, new_lx, sum_lx[k]);
        sum_ll[k] = pick(takes, new_ll, sum_ll[k]);
        changed = hn::Or(changed, takes);
      }
    }
    if (hn::AllFalse(kF, changed)) break;
  }
  for (std::size_t k = 0; k < kPair; ++k) {
    for (std::size_t e = k * n; e < k * n + n; ++e)
      put(hn::IfThenZeroElse(empty[k], hn::Add(at(l, e), all(4.0f))), l, e);
    const VF scale = pick(hn::Gt(sum_ll[k], zero), hn::Div(sum_lx[k], sum_ll[k]), zero);
    scales[k] = hn::IfThenZeroElse(empty[k], scale);
  }
}

// The scale of largest magnitude, the first of them, with its sign.
template <std::size_t n>
HWY_INLINE VF largest_of(const VF* scales) {
  VF most = hn::Zero(kF), value = most;
  for (std::size_t j = 0; j < n; ++j) {
    const VF a = hn::Abs(scales[j]);
    const MF larger = hn::Gt(a, most);
    most = pick(larger, a, most);
    value = pick(larger, scales[j], value);
  }
  return value;
}

// ---- q3_k

// What is left of a code after its two low bits went to the nibbles is its bit in the mask.
HWY_INLINE void pack_q3(const VI* scale, const Half& d, const int* q, const Batch& batch) {
  constexpr std::size_t kBytes = 110;
  const auto high = [&](std::size_t l) {  // bit k: element 32 k + l
    VI bits = hn::Zero(kI);
    for (std::size_t k = 8; k-- > 0;)
      bits = hn::Or(hn::Add(bits, bits), hn::ShiftRight<2>(at(q, 32 * k + l)));
    return bits;
  };
  for (std::size_t l = 0; l < 32; l += 4)
    put_word<kBytes>(word_of(high(l), high(l + 1), high(l + 2), high(l + 3)), batch, l);
  const auto two = [&](std::size_t e) { return hn::And(at(q, e), all(3)); };
  const auto low = [&](std::size_t e) {
    return hn::Or(hn::Or(two(e), hn::ShiftLeft<2>(two(e + 32))),
                  hn::Or(hn::ShiftLeft<4>(two(e + 64)), hn::ShiftLeft<6>(two(e + 96))));
  };
  for (std::size_t half = 0; half < 2; ++half)
    for (std::size_t l = 0; l < 32; l += 4) {
      const std::size_t e = half * 128 + l;
      put_word<kBytes>(word_of(low(e), low(e + 1), low(e + 2), low(e + 3)), batch,
                       32 + half * 32 + l);
    }
  const auto nibbles = [&](std::size_t j) {
    return hn::Or(hn::And(scale[j], all(15)), hn::ShiftLeft<4>(hn::And(scale[j + 8], all(15))));
  };
  const auto tops = [&](std::size_t j) {
    VI bits = hn::Zero(kI);
    for (std::size_t k = 4; k-- > 0;)
      bits = hn::Or(hn::ShiftLeft<2>(bits), hn::ShiftRight<4>(scale[j + 4 * k]));
    return bits;
  };
  put_word<kBytes>(word_of(nibbles(0), nibbles(1), nibbles(2), nibbles(3)), batch, 96);
  put_word<kBytes>(word_of(nibbles(4), nibbles(5), nibbles(6), nibbles(7)), batch, 100);
  put_word<kBytes>(word_of(tops(0), tops(1), tops(2), tops(3)), batch, 104);
  put_half<kBytes>(d, batch, 108);
}

// The codes with the scales as stored, where they are not 0; l has the search's.
template <int N>
HWY_INLINE void requantize(const float* x, VF d, const VI* scale, const float* l, int* q) {
  for (std::size_t j = 0; j < 16; ++j) {
    const VF step = hn::Mul(d, hn::ConvertTo(kF, scale[j]));
    const MF none = hn::Eq(step, hn::Zero(kF));
    const bool any = !hn::AllFalse(kF, none);
#pragma GCC unroll 4
    for (std::size_t e = j * 16; e < j * 16 + 16; ++e) {
      VI c = hn::Add(nearest_in(hn::Div(at(x, e), step), -N, N - 1), all(N));
      if (HWY_UNLIKELY(any))
        c = hn::IfThenElse(hn::RebindMask(kI, none), hn::ConvertTo(kI, at(l, e)), c);
      put(c, q, e);
    }
  }
}

template <bool kWeighted>
HWY_INLINE void q3_batch(const Batch& batch) {
  alignas(64) float x[256 * kLanes], l[256 * kLanes];
  alignas(64) int q[256 * kLanes];
  VF scales[16], weights[16];
  VI code_of[16];
  Half d;
  load_values<256>(batch, x);
  if constexpr (kWeighted) {
    load_importance<256>(batch, l);
    const VF sigma2 = hn::Div(hn::Mul(all(2.0f), sum_of_squares(x, 256)), all(256.0f));
    alignas(64) float w[16 * kLanes];
    for (std::size_t j = 0; j < 16; ++j) {
      const std::size_t begin = j * 16 * kLanes;
      prefetch_next<256>(batch, j, 16);
      weights[j] = importance_weights(x + begin, l + begin, sigma2, 16, w);
      const Scaled f = fit_symmetric<16, 4>(x + begin, w);
      scales[j] = f.scale;
      for (std::size_t e = j * 16; e < j * 16 + 16; ++e)
        put(hn::ConvertTo(kF, stored_code<4>(f, at(x, e))), l, e);
    }
    alignas(64) float as_values[16 * kLanes], as_weights[16 * kLanes];
    for (std::size_t j = 0; j < 16; ++j) {
      put(scales[j], as_values, j);
      put(weights[j], as_weights, j);
    }
    const Scaled f = fit_symmetric<16, 32, false>(as_values, as_weights);
    to_half(f.scale, d);
    for (std::size_t j = 0; j < 16; ++j) code_of[j] = stored_code<32>(f, scales[j]);
  } else {
    for (std::size_t j = 0; j < 16; j += kPair) {
      prefetch_next<256>(batch, j / kPair, 16 / kPair);
      fit_q3(x + j * 16 * kLanes, l + j * 16 * kLanes, scales + j);
    }
    const VF top = largest_of<16>(scales);
    const MF none = hn::Eq(top, hn::Zero(kF));
    const VF inv = hn::Div(all(-32.0f), top);
    for (std::size_t j = 0; j < 16; ++j) {
      const VI c = hn::Add(nearest_in(hn::Mul(inv, scales[j]), -32, 31), all(32));
      code_of[j] = hn::IfThenZeroElse(hn::RebindMask(kI, none), c);
    }
    to_half(hn::IfThenZeroElse(none, hn::Div(all(1.0f), inv)), d);
  }
  VI scale[16];
  for (std::size_t j = 0; j < 16; ++j) scale[j] = hn::Sub(code_of[j], all(32));
  requantize<4>(x, d.value, scale, l, q);
  pack_q3(code_of, d, q, batch);
}

template <bool kWeighted>
void q3_k(const BlockRows& rows, std::byte* out) noexcept {
  for_batches<256, 110, 1>(rows, out, [](const Batch* batch) { q3_batch<kWeighted>(*batch); });
}

// ---- q6_k

HWY_INLINE void pack_q6(const VI* scale, const Half& d, const int* q, const Batch& batch) {
  constexpr std::size_t kBytes = 210;
  const auto low = [&](std::size_t e) {
    return hn::Or(hn::And(at(q, e), all(15)), hn::ShiftLeft<4>(hn::And(at(q, e + 64), all(15))));
  };
  const auto high = [&](std::size_t e) {
    const auto top = [&](std::size_t i) { return hn::ShiftRight<4>(at(q, e + 32 * i)); };
    return hn::Or(hn::Or(top(0), hn::ShiftLeft<2>(top(1))),
                  hn::Or(hn::ShiftLeft<4>(top(2)), hn::ShiftLeft<6>(top(3))));
  };
  for (std::size_t half = 0; half < 2; ++half) {
    for (std::size_t l = 0; l < 64; l += 4) {
      const std::size_t e = half * 128 + l;
      put_word<kBytes>(word_of(low(e), low(e + 1), low(e + 2), low(e + 3)), batch, half * 64 + l);
    }
    for (std::size_t l = 0; l < 32; l += 4) {
      const std::size_t e = half * 128 + l;
      put_word<kBytes>(word_of(high(e), high(e + 1), high(e + 2), high(e + 3)), batch,
                       128 + half * 32 + l);
    }
  }
  const auto byte = [&](std::size_t j) { return hn::And(scale[j], all(255)); };
  for (std::size_t j = 0; j < 16; j += 4)
    put_word<kBytes>(word_of(byte(j), byte(j + 1), byte(j + 2), byte(j + 3)), batch, 192 + j);
  put_half<kBytes>(d, batch, 208);
}

template <bool kWeighted>
HWY_INLINE void q6_batch(const Batch& batch) {
  alignas(64) float x[256 * kLanes], w[kWeighted ? 256 * kLanes : 16 * kLanes];
  alignas(64) int q[256 * kLanes];
  VF scales[16];
  Scaled fit[16];
  load_values<256>(batch, x);
  if constexpr (kWeighted) load_importance<256>(batch, w);
  for (std::size_t j = 0; j < 16; ++j) {
    const float* group = x + j * 16 * kLanes;
    prefetch_next<256>(batch, j, 16);
    if constexpr (!kWeighted)
      for (std::size_t e = 0; e < 16; ++e) put(hn::Mul(at(group, e), at(group, e)), w, e);
    fit[j] = fit_symmetric<16, 32>(group, kWeighted ? w + j * 16 * kLanes : w);
    scales[j] = fit[j].scale;
  }
  const VF top = largest_of<16>(scales);
  const MF none = hn::Lt(hn::Abs(top), all(kNothing));  // then all bytes are 0
  const VF inv = hn::Div(all(-128.0f), top);
  Half d;
  to_half(hn::IfThenZeroElse(none, hn::Div(all(1.0f), inv)), d);
  VI scale[16];
  for (std::size_t j = 0; j < 16; ++j)
    scale[j] = hn::IfThenZeroElse(hn::RebindMask(kI, none),
                                  hn::Min(nearest(hn::Mul(inv, scales[j])), all(127)));
  for (std::size_t j = 0; j < 16; ++j) {
    const VF step = hn::Mul(d.value, hn::ConvertTo(kF, scale[j]));
    const MF zero = hn::Eq(step, hn::Zero(kF));
    const bool any = !hn::AllFalse(kF, zero);
#pragma GCC unroll 4
    for (std::size_t e = j * 16; e < j * 16 + 16; ++e) {
      VI c = hn::Add(nearest_in(hn::Div(at(x, e), step), -32, 31), all(32));
      if (HWY_UNLIKELY(any)) {
        c = hn::IfThenElse(hn::RebindMask(kI, zero), stored_code<32>(fit[j], at(x, e)), c);
        c = hn::IfThenZeroElse(hn::RebindMask(kI, none), c);
      }
      put(c, q, e);
    }
  }
  pack_q6(scale, d, q, batch);
}

template <bool kWeighted>
void q6_k(const BlockRows& rows, std::byte* out) noexcept {
  for_batches<256, 210, 1>(rows, out, [](const Batch* batch) { q6_batch<kWeighted>(*batch); });
}

// ---- q4_0 and q5_0 with importance

template <int N>
void weighted_0(const BlockRows& rows, std::byte* out) noexcept {
  constexpr bool kFifth = N == 16;
  constexpr std::size_t kBytes = kFifth ? 22 : 18;
  for_batches<32, kBytes, 1>(rows, out, [](const Batch* batch) {
    alignas(64) float x[32 * kLanes], w[32 * kLanes];
    alignas(64) int q[32 * kLanes];
    load_values<32>(*batch, x);
    load_importance<32>(*batch, w);
    importance_weights(x, w, load_mean_square<32>(*batch), 32, w);
    const Scaled f = fit_symmetric<32, N>(x, w);
    Half d;
    to_half(f.scale, d);
    put_half<kBytes>(d, *batch, 0);
    for (std::size_t e = 0; e < 32; ++e) put(stored_code<N>(f, at(x, e)), q, e);
    pack_block_of_32<kFifth, kBytes>(q, *batch, 2);
  });
}

// ---- iq4_nl and iq4_xs

// The table's value nearest to v, and its index. Those of NaN are the last, as in the reference.
HWY_INLINE VF nearest_value(VF v) {
  VF out = all(kValues[0]);
#pragma GCC unroll 15
  for (std::size_t i = 0; i < 15; ++i)
    out = pick(hn::Lt(v, all(kBorders.at[i])), out, all(kValues[i + 1]));
  return out;
}
HWY_INLINE VI nearest_index(VF v) {
  VI out = hn::Zero(kI);
#pragma GCC unroll 15
  for (std::size_t i = 0; i < 15; ++i)
    out = hn::IfThenElse(hn::RebindMask(kI, hn::Lt(v, all(kBorders.at[i]))), out,
                         all(static_cast<int>(i) + 1));
  return out;
}

// The scale of 32 elements. w: their weights.
HWY_INLINE VF fit_table(const float* x, const float* w) {
  const VF zero = hn::Zero(kF), top = first_largest(x, 32);
  const MF empty = hn::Lt(hn::Abs(top), all(kNothing));
  const VF safe = pick(empty, all(1.0f), top);
  struct {
    VF qx, qq;
  } sum;
  const auto try_inverse = [&](VF inv) {
    VF qx = zero, qq = zero;
#pragma GCC unroll 4
    for (std::size_t e = 0; e < 32; ++e) {
      const VF v = at(x, e), q = nearest_value(hn::Mul(inv, v)), wq = hn::Mul(at(w, e), q);
      qx = hn::Add(qx, hn::Mul(wq, v));
      qq = hn::Add(qq, hn::Mul(wq, q));
    }
    sum = {qx, qq};
  };
  VF d = hn::Div(hn::Neg(safe), all(kValues[0]));
  try_inverse(hn::Div(all(1.0f), d));
  d = pick(hn::Gt(sum.qq, zero), hn::Div(sum.qx, sum.qq), zero);
  VF best = hn::Mul(d, sum.qx);
  for (int t = -7; t <= 7; ++t) {
    try_inverse(hn::Div(all(static_cast<float>(t) + kValues[0]), safe));
    const MF better =
        hn::And(hn::Gt(sum.qq, zero), hn::Gt(hn::Mul(sum.qx, sum.qx), hn::Mul(best, sum.qq)));
    const VF next = hn::Div(sum.qx, sum.qq);
    d = pick(better, next, d);
    best = pick(better, hn::Mul(next, sum.qx), best);
  }
  return hn::IfThenZeroElse(empty, d);
}

HWY_INLINE void square_weights(const float* x, float* w) {
  for (std::size_t e = 0; e < 32; ++e) put(hn::Mul(at(x, e), at(x, e)), w, e);
}

template <bool kWeighted>
void iq4_nl(const BlockRows& rows, std::byte* out) noexcept {
  for_batches<32, 18, 1>(rows, out, [](const Batch* batch) {
    alignas(64) float x[32 * kLanes], w[32 * kLanes];
    alignas(64) int q[32 * kLanes];
    load_values<32>(*batch, x);
    if constexpr (kWeighted) {
      load_importance<32>(*batch, w);
      const VF sigma2 = hn::Mul(sum_of_squares(x, 32), all(2.0f / 32));
      importance_weights(x, w, sigma2, 32, w);
    } else {
      square_weights(x, w);
    }
    const VF scale = fit_table(x, w), inv = inverse(scale);
    Half d;
    to_half(scale, d);
    put_half<18>(d, *batch, 0);
    for (std::size_t e = 0; e < 32; ++e) put(nearest_index(hn::Mul(inv, at(x, e))), q, e);
    pack_block_of_32<false, 18>(q, *batch, 2);
  });
}

template <bool kWeighted>
HWY_INLINE void iq4_xs_batch(const Batch& batch) {
  constexpr std::size_t kBytes = 136;
  alignas(64) float x[256 * kLanes], q[kWeighted ? 256 * kLanes : 1], w[32 * kLanes];
  alignas(64) int codes[32 * kLanes];
  load_values<256>(batch, x);
  VF sigma2 = hn::Zero(kF), scales[8];
  if constexpr (kWeighted) {
    load_importance<256>(batch, q);
    sigma2 = hn::Mul(sum_of_squares(x, 256), all(2.0f / 256));
  }
  for (std::size_t j = 0; j < 8; ++j) {
    const float* group = x + j * 32 * kLanes;
    if constexpr (kWeighted)
      importance_weights(group, q + j * 32 * kLanes, sigma2, 32, w);
    else
      square_weights(group, w);
    scales[j] = fit_table(group, w);
  }
  const VF d = hn::Div(hn::Neg(largest_of<8>(scales)), all(32.0f)), inv = inverse(d);
  Half half;
  to_half(d, half);
  put_half<kBytes>(half, batch, 0);
  VI low = hn::Zero(kI), high = low;
  for (std::size_t j = 8; j-- > 0;) {
    const VI l = nearest_in(hn::Mul(inv, scales[j]), -32, 31), c = hn::Add(l, all(32));
    low = hn::Or(hn::ShiftLeft<4>(low), hn::And(c, all(15)));
    high = hn::Or(hn::ShiftLeft<2>(high), hn::ShiftRight<4>(c));
    const VF step = inverse(hn::Mul(d, hn::ConvertTo(kF, l)));
    const float* group = x + j * 32 * kLanes;
    for (std::size_t e = 0; e < 32; ++e) put(nearest_index(hn::Mul(step, at(group, e))), codes, e);
    pack_block_of_32<false, kBytes>(codes, batch, 8 + 16 * j);
  }
  put_word<kBytes>(low, batch, 4);
  Half top;  // not an f16: two bytes all the same
  alignas(64) int words[kLanes];
  hn::Store(high, kI, words);
  for (std::size_t b = 0; b < kLanes; ++b) top.bits[b] = static_cast<std::uint16_t>(words[b]);
  put_half<kBytes>(top, batch, 2);
}

template <bool kWeighted>
void iq4_xs(const BlockRows& rows, std::byte* out) noexcept {
  for_batches<256, 136, 1>(rows, out, [](const Batch* batch) { iq4_xs_batch<kWeighted>(*batch); });
}

}  // namespace

constexpr SymmetricKernels kSymmetric{
    &q3_k<false>, &q6_k<false>,  &iq4_nl<false>, &iq4_xs<false>, &q3_k<true>,
    &q6_k<true>,  &iq4_nl<true>, &iq4_xs<true>,  &weighted_0<8>, &weighted_0<16>};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {
constexpr SymmetricKernels kScalar{
    &scalar::quantize_q3_k,          &scalar::quantize_q6_k,   &scalar::quantize_iq4_nl,
    &scalar::quantize_iq4_xs,        &scalar::quantize_q3_k,   &scalar::quantize_q6_k,
    &scalar::quantize_iq4_nl,        &scalar::quantize_iq4_xs, &scalar::quantize_weighted_q4_0,
    &scalar::quantize_weighted_q5_0,
};
const SymmetricKernels& kernels() noexcept {
  return WTOOL_CHOOSE(kScalar, kSymmetric);
}

// Without importance, whatever the rows say.
BlockRows plain(const BlockRows& rows) noexcept {
  return {rows.values, rows.rows, rows.columns};
}
}  // namespace

void quantize_q3_k(const BlockRows& rows, std::byte* out) noexcept {
  kernels().q3_k(plain(rows), out);
}
void quantize_q6_k(const BlockRows& rows, std::byte* out) noexcept {
  kernels().q6_k(plain(rows), out);
}
void quantize_iq4_nl(const BlockRows& rows, std::byte* out) noexcept {
  kernels().iq4_nl(plain(rows), out);
}
void quantize_iq4_xs(const BlockRows& rows, std::byte* out) noexcept {
  kernels().iq4_xs(plain(rows), out);
}
void quantize_weighted_q3_k(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_q3_k(rows, out);
}
void quantize_weighted_q6_k(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_q6_k(rows, out);
}
void quantize_weighted_iq4_nl(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_iq4_nl(rows, out);
}
void quantize_weighted_iq4_xs(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_iq4_xs(rows, out);
}
void quantize_weighted_q4_0(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_q4_0(rows, out);
}
void quantize_weighted_q5_0(const BlockRows& rows, std::byte* out) noexcept {
  kernels().weighted_q5_0(rows, out);
}

}  // namespace wtool
#endif
