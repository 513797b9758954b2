#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/floats.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/vectors-inl.h"

#ifndef WTOOL_FLOATS_ONCE
#define WTOOL_FLOATS_ONCE
namespace wtool {
namespace {

struct FloatKernels {
  void (*f16_to_f32)(const std::byte*, float*, std::size_t) noexcept;
  void (*bf16_to_f32)(const std::byte*, float*, std::size_t) noexcept;
  void (*f32_to_f16)(const float*, std::byte*, std::size_t) noexcept;
  void (*f32_to_bf16)(const float*, std::byte*, std::size_t) noexcept;
  bool (*all_below)(const float*, std::size_t, float) noexcept;
  void (*add_drift)(const float*, const float*, std::size_t, const Steps*, DriftLanes&) noexcept;
};

// Magnitudes as bits: they order like the floats themselves, NaN above infinity.
constexpr std::uint32_t kMagnitude = 0x7FFFFFFF, kInfinity = 0x7F800000, kQuiet = 0x00400000;
constexpr std::uint32_t kF16Overflow = 0x477FF000;  // 65520: half-way from 65504 to 2^16
constexpr std::uint32_t kF16Normal = 0x38800000;    // 2^-14
constexpr float kHalf = 0.5f;          // its last place is f16's smallest subnormal, 2^-24
constexpr float kF16Scale = 0x1p112f;  // from f16's exponent bias to f32's

constexpr int kBinShift = 20;  // of a float from 8 to 16, the three bits below the first

// The reciprocal with which errors are counted in steps; 0 counts none.
inline float inverse_step(float step) noexcept {
  if (step == 0) return 0;
  return std::min(1 / std::abs(step), std::numeric_limits<float>::max());
}

}  // namespace
}  // namespace wtool
#endif

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

using H = hn::Rebind<std::uint16_t, F>;
using D = hn::ScalableTag<double>;
constexpr H kH;
constexpr D kD;
using VD = hn::Vec<D>;

HWY_INLINE VU load_u16(const std::byte* p) {
  return hn::PromoteTo(kU, hn::LoadU(kH, reinterpret_cast<const std::uint16_t*>(p)));
}
HWY_INLINE void store_u16(VU v, std::byte* p) {
  hn::StoreU(hn::DemoteTo(kH, hn::BitCast(kI, v)), kH, reinterpret_cast<std::uint16_t*>(p));
}
HWY_INLINE VU magnitude(VF v) {
  return hn::And(hn::BitCast(kU, v), hn::Set(kU, kMagnitude));
}
// Magnitudes compare as signed numbers, which every target can.
HWY_INLINE hn::Mask<U> above(VU a, std::uint32_t limit) {
  return hn::RebindMask(kU, hn::Gt(hn::BitCast(kI, a), hn::Set(kI, static_cast<int>(limit))));
}

HWY_INLINE VF f32_of_f16(VU h) {
  const VU a = hn::And(h, hn::Set(kU, 0x7FFFu));
  const VU sign = hn::ShiftLeft<16>(hn::Xor(h, a));
  const VF scaled = hn::Mul(hn::BitCast(kF, hn::ShiftLeft<13>(a)), hn::Set(kF, kF16Scale));
  const VU special = hn::IfThenElseZero(above(a, 0x7BFF), hn::Set(kU, kInfinity));
  const VU quiet = hn::IfThenElseZero(above(a, 0x7C00), hn::Set(kU, kQuiet));
  return hn::BitCast(kF, hn::Or(hn::Or(hn::BitCast(kU, scaled), special), hn::Or(sign, quiet)));
}
HWY_INLINE VU f16_of_f32(VF v) {
  const VU a = magnitude(v), u = hn::BitCast(kU, v);
  const VU sign = hn::And(hn::ShiftRight<16>(u), hn::Set(kU, 0x8000u));
  const VU odd = hn::And(hn::ShiftRight<13>(a), hn::Set(kU, 1u));
  const VU rounded = hn::Add(hn::Add(a, odd), hn::Set(kU, 0xFFFu));
  const VU normal = hn::ShiftRight<13>(hn::Sub(rounded, hn::Set(kU, 0x38000000u)));
  const VU small = hn::Sub(hn::BitCast(kU, hn::Add(hn::BitCast(kF, a), hn::Set(kF, kHalf))),
                           hn::BitCast(kU, hn::Set(kF, kHalf)));
  const VU payload = hn::And(hn::ShiftRight<13>(a), hn::Set(kU, 0x3FFu));
  const VU nan = hn::Or(payload, hn::Set(kU, 0x7E00u));
  VU out = hn::IfThenElse(above(a, kF16Normal - 1), normal, small);
  out = hn::IfThenElse(above(a, kF16Overflow - 1), hn::Set(kU, 0x7C00u), out);
  out = hn::IfThenElse(above(a, kInfinity), nan, out);
  return hn::Or(out, sign);
}

void f16_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    if constexpr (kF16C) {
      const hn::Rebind<hwy::float16_t, F> half;
      const auto h = hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(in + 2 * i));
      hn::StoreU(hn::PromoteTo(kF, h), kF, out + i);
    } else {
      hn::StoreU(f32_of_f16(load_u16(in + 2 * i)), kF, out + i);
    }
  }
  for (; i < n; ++i) {
    std::uint16_t h;
    std::memcpy(&h, in + 2 * i, 2);
    out[i] = f16_value(h);
  }
}

void bf16_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    hn::StoreU(hn::BitCast(kF, hn::ShiftLeft<16>(load_u16(in + 2 * i))), kF, out + i);
  for (; i < n; ++i) {
    std::uint16_t h;
    std::memcpy(&h, in + 2 * i, 2);
    out[i] = std::bit_cast<float>(std::uint32_t{h} << 16);
  }
}

template <bool kBF16>
void narrow(const float* in, std::byte* out, std::size_t n) noexcept {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VF v = hn::LoadU(kF, in + i);
    if constexpr (kBF16) {
      const VU u = hn::BitCast(kU, v), top = hn::ShiftRight<16>(u);
      const VU odd = hn::And(top, hn::Set(kU, 1u));
      const VU rounded = hn::ShiftRight<16>(hn::Add(hn::Add(u, odd), hn::Set(kU, 0x7FFFu)));
      const VU nan = hn::Or(top, hn::Set(kU, 0x40u));
      store_u16(hn::IfThenElse(above(magnitude(v), kInfinity), nan, rounded), out + 2 * i);
    } else if constexpr (kF16C) {
      const hn::Rebind<hwy::float16_t, F> half;
      hn::StoreU(hn::DemoteTo(half, v), half, reinterpret_cast<hwy::float16_t*>(out + 2 * i));
    } else {
      store_u16(f16_of_f32(v), out + 2 * i);
    }
  }
  for (; i < n; ++i) {
    const std::uint16_t h = kBF16 ? bf16_bits(in[i]) : f16_bits(in[i]);
    std::memcpy(out + 2 * i, &h, 2);
  }
}

bool all_below(const float* in, std::size_t n, float limit) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(limit);
  VU most = hn::Zero(kU);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) most = hn::Max(most, magnitude(hn::LoadU(kF, in + i)));
  bool below = hn::AllFalse(kU, above(most, bits - 1));
  for (; i < n; ++i) below &= std::abs(in[i]) < limit;
  return below;
}

// The running state of add_drift() in registers: 16 stripes are kVectors vectors of floats.
constexpr std::size_t kVectors = DriftLanes::kStripes / kLanes;

template <bool kSteps>
struct Accumulator {
  VD error2[2 * kVectors], value2[2 * kVectors], cross[2 * kVectors];
  VF worst, worst_steps;
  VU bins;  // eight counters of 4 bits in each lane
  std::size_t counted = 0, clipped = 0;
  DriftLanes& lanes;

  HWY_INLINE explicit Accumulator(DriftLanes& to)
      : worst(hn::Zero(kF)), worst_steps(hn::Zero(kF)), bins(hn::Zero(kU)), lanes(to) {
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 2 * kVectors; ++i) {
      error2[i] = hn::Load(kD, to.error2 + i * hn::MaxLanes(kD));
      value2[i] = hn::Load(kD, to.value2 + i * hn::MaxLanes(kD));
      cross[i] = hn::Load(kD, to.cross + i * hn::MaxLanes(kD));
    }
  }

  template <std::size_t kAt>
  HWY_INLINE void sum(VD x, VD y) {
    const VD e = hn::Sub(y, x);
    error2[kAt] = hn::Add(error2[kAt], hn::Mul(e, e));
    value2[kAt] = hn::Add(value2[kAt], hn::Mul(x, x));
    cross[kAt] = hn::Add(cross[kAt], hn::Mul(x, e));
  }
  template <std::size_t kAt>
  HWY_INLINE void vector(const float* source, const float* stored, VF inverse, VF lo, VF hi) {
    if constexpr (kAt < kVectors) {
      const hn::Half<F> half;
      const VF x = hn::LoadU(kF, source + kAt * kLanes), y = hn::LoadU(kF, stored + kAt * kLanes);
      sum<2 * kAt>(hn::PromoteTo(kD, hn::LowerHalf(half, x)),
                   hn::PromoteTo(kD, hn::LowerHalf(half, y)));
      sum<2 * kAt + 1>(hn::PromoteTo(kD, hn::UpperHalf(half, x)),
                       hn::PromoteTo(kD, hn::UpperHalf(half, y)));
      const VF e = hn::Abs(hn::Sub(y, x));
      worst = hn::Max(worst, e);
      if constexpr (kSteps) steps(hn::Mul(e, inverse), x, y, lo, hi);
      vector<kAt + 1>(source, stored, inverse, lo, hi);
    }
  }
  HWY_INLINE void steps(VF e, VF source, VF stored, VF lo, VF hi) {
    worst_steps = hn::Max(worst_steps, e);
    // kBinShift bits up, the sum with 8 has the number of the bin in the top of its mantissa.
    const VF capped =
        hn::Min(hn::Add(hn::Mul(e, hn::Set(kF, 16.0f)), hn::Set(kF, 8.0f)), hn::Set(kF, 15.0f));
    const VU shift =
        hn::And(hn::ShiftRight<kBinShift - 2>(hn::BitCast(kU, capped)), hn::Set(kU, 7u << 2));
    bins = hn::Add(bins, hn::Shl(hn::Set(kU, 1u), shift));
    const auto end = hn::Or(hn::Eq(stored, lo), hn::Eq(stored, hi));
    const auto beyond =
        hn::And(hn::Gt(e, hn::Set(kF, 0.5f)), hn::Gt(hn::Abs(source), hn::Abs(stored)));
    clipped += hn::CountTrue(kF, hn::And(end, beyond));
  }
  // 16 elements.
  HWY_INLINE void add(const float* source, const float* stored, VF inverse, VF lo, VF hi) {
    vector<0>(source, stored, inverse, lo, hi);
    if constexpr (kSteps) {
      counted += kVectors;
      if (counted + kVectors > 15) flush_bins();
    }
  }
  HWY_INLINE void flush_bins() {
    flush_bins<0>();
    flush_bins<1>();
    flush_bins<2>();
    flush_bins<3>();
    bins = hn::Zero(kU);
    counted = 0;
  }
  // At most 15 in each lane's counter and 16 lanes: the sums of two bins fit beside each other, and
  // stay below 2^31, where GCC's own sum over lanes would overflow.
  template <int kBin>
  HWY_INLINE void flush_bins() {
    const VU two = hn::And(hn::ShiftRight<4 * kBin>(bins), hn::Set(kU, 0x000F000Fu));
    const std::uint32_t sums = hn::GetLane(hn::SumOfLanes(kU, two));
    lanes.rest.histogram[kBin] += sums & 0xFFFF;
    lanes.rest.histogram[kBin + 4] += sums >> 16;
  }
  HWY_INLINE void finish() {
    if constexpr (kSteps) flush_bins();
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 2 * kVectors; ++i) {
      hn::Store(error2[i], kD, lanes.error2 + i * hn::MaxLanes(kD));
      hn::Store(value2[i], kD, lanes.value2 + i * hn::MaxLanes(kD));
      hn::Store(cross[i], kD, lanes.cross + i * hn::MaxLanes(kD));
    }
    Drift& d = lanes.rest;
    d.clipped += clipped;
    d.worst = std::max<double>(d.worst, hn::GetLane(hn::MaxOfLanes(kF, worst)));
    d.worst_steps = std::max<double>(d.worst_steps, hn::GetLane(hn::MaxOfLanes(kF, worst_steps)));
  }
};

template <bool kSteps>
void drift_of(const float* source, const float* stored, std::size_t n, const Steps* steps,
              DriftLanes& lanes) noexcept {
  constexpr std::size_t kStripes = DriftLanes::kStripes;
  Accumulator<kSteps> sums(lanes);
  const std::size_t group = kSteps ? steps->group : n;
  for (std::size_t g = 0, at = 0; at < n; ++g) {
    const float step = kSteps ? steps->step[g] : 0;
    const VF inverse = hn::Set(kF, inverse_step(step));
    const VF lo = hn::Set(kF, kSteps ? steps->lo * step : 0);
    const VF hi = hn::Set(kF, kSteps ? steps->hi * step : 0);
    const std::size_t end = std::min(n, at + group);
    for (; at + kStripes <= end; at += kStripes)
      sums.add(source + at, stored + at, inverse, lo, hi);
    if (at < end) {  // zeros change no sum, only the first bin
      const std::size_t rest = end - at;
      float x[kStripes] = {}, y[kStripes] = {};
      std::copy_n(source + at, rest, x);
      std::copy_n(stored + at, rest, y);
      sums.add(x, y, inverse, lo, hi);
      if constexpr (kSteps) lanes.rest.histogram[0] -= kStripes - rest;
      at = end;
    }
  }
  sums.finish();
  lanes.rest.elements += n;
}

void add_drift(const float* source, const float* stored, std::size_t n, const Steps* steps,
               DriftLanes& lanes) noexcept {
  steps != nullptr ? drift_of<true>(source, stored, n, steps, lanes)
                   : drift_of<false>(source, stored, n, steps, lanes);
}

}  // namespace

constexpr FloatKernels kFloats{&f16_to_f32,   &bf16_to_f32, &narrow<false>,
                               &narrow<true>, &all_below,   &add_drift};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace scalar {
namespace {

void f16_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t h;
    std::memcpy(&h, in + 2 * i, 2);
    out[i] = f16_value(h);
  }
}
void bf16_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    std::uint16_t h;
    std::memcpy(&h, in + 2 * i, 2);
    out[i] = std::bit_cast<float>(std::uint32_t{h} << 16);
  }
}

template <bool kBF16>
void narrow(const float* in, std::byte* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint16_t h = kBF16 ? bf16_bits(in[i]) : f16_bits(in[i]);
    std::memcpy(out + 2 * i, &h, 2);
  }
}

bool all_below(const float* in, std::size_t n, float limit) noexcept {
  return std::all_of(in, in + n, [&](float x) { return std::abs(x) < limit; });
}

void add_steps(float e, float source, float stored, float lo, float hi, Drift& d) noexcept {
  d.worst_steps = std::max<double>(d.worst_steps, e);
  const float capped = std::min(e * 16.0f + 8.0f, 15.0f);
  ++d.histogram[std::bit_cast<std::uint32_t>(capped) >> kBinShift & 7];
  if (e > 0.5f && std::abs(source) > std::abs(stored) && (stored == lo || stored == hi))
    ++d.clipped;
}

void add_drift(const float* source, const float* stored, std::size_t n, const Steps* steps,
               DriftLanes& lanes) noexcept {
  Drift& d = lanes.rest;
  const std::size_t group = steps != nullptr ? steps->group : n;
  for (std::size_t i = 0; i < n; ++i) {
    const double x = source[i], error = double{stored[i]} - x;
    const std::size_t stripe = i % group % DriftLanes::kStripes;
    lanes.error2[stripe] += error * error;
    lanes.value2[stripe] += x * x;
    lanes.cross[stripe] += x * error;
    const float e = std::abs(stored[i] - source[i]);
    d.worst = std::max<double>(d.worst, e);
    if (steps == nullptr) continue;
    const float step = steps->step[i / group];
    add_steps(e * inverse_step(step), source[i], stored[i], steps->lo * step, steps->hi * step, d);
  }
  d.elements += n;
}

constexpr FloatKernels kFloats{&f16_to_f32,   &bf16_to_f32, &narrow<false>,
                               &narrow<true>, &all_below,   &add_drift};

}  // namespace
}  // namespace scalar

float f16_value(std::uint16_t bits) noexcept {
  const std::uint32_t a = bits & 0x7FFFu, sign = (bits ^ a) << 16;
  // An f16 in f32's place is too small by 2^112; the product is exact for subnormals too.
  std::uint32_t u = std::bit_cast<std::uint32_t>(std::bit_cast<float>(a << 13) * kF16Scale);
  if (a >= 0x7C00) u |= kInfinity;
  if (a > 0x7C00) u |= kQuiet;
  return std::bit_cast<float>(u | sign);
}

std::uint16_t f16_bits(float value) noexcept {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value), a = u & kMagnitude;
  const std::uint32_t sign = u >> 16 & 0x8000;
  std::uint32_t out;
  if (a > kInfinity)
    out = 0x7E00 | (a >> 13 & 0x3FF);
  else if (a >= kF16Overflow)
    out = 0x7C00;
  else if (a >= kF16Normal)
    out = (a + 0xFFF + (a >> 13 & 1) - 0x38000000) >> 13;
  else  // the addition rounds to f16's smallest subnormal
    out = std::bit_cast<std::uint32_t>(std::bit_cast<float>(a) + kHalf) -
          std::bit_cast<std::uint32_t>(kHalf);
  return static_cast<std::uint16_t>(out | sign);
}

std::uint16_t bf16_bits(float value) noexcept {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  if ((u & kMagnitude) > kInfinity) return static_cast<std::uint16_t>(u >> 16 | 0x40);
  return static_cast<std::uint16_t>((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

namespace {
const FloatKernels& kernels() noexcept {
  return WTOOL_CHOOSE(scalar::kFloats, kFloats);
}
}  // namespace

void f16_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().f16_to_f32(in, out, n);
}
void bf16_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().bf16_to_f32(in, out, n);
}
void f32_to_f16(const float* in, std::byte* out, std::size_t n) noexcept {
  kernels().f32_to_f16(in, out, n);
}
void f32_to_bf16(const float* in, std::byte* out, std::size_t n) noexcept {
  kernels().f32_to_bf16(in, out, n);
}
bool all_below(const float* in, std::size_t n, float limit) noexcept {
  return kernels().all_below(in, n, limit);
}
void add_drift(const float* source, const float* stored, std::size_t n, const Steps* steps,
               DriftLanes& lanes) noexcept {
  kernels().add_drift(source, stored, n, steps, lanes);
}

Drift DriftLanes::fold() const noexcept {
  Drift out = rest;
  for (std::size_t i = 0; i < kStripes; ++i) {
    out.error2 += error2[i];
    out.value2 += value2[i];
    out.cross += cross[i];
  }
  return out;
}

}  // namespace wtool
#endif
