#include "lib/numeric/kernels/statistics.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/statistics.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/vectors-inl.h"

#ifndef WTOOL_STATISTICS_ONCE
#define WTOOL_STATISTICS_ONCE
namespace wtool {
namespace {

struct StatisticsKernels {
  bool (*add_moments)(const float*, std::size_t, double, std::uint32_t, MomentLanes&) noexcept;
  void (*add_reach)(const float*, std::size_t, Reach&) noexcept;
};

constexpr std::uint32_t kMagnitude = 0x7FFFFFFF, kInfinity = 0x7F800000;

inline bool all_finite(const MomentLanes& lanes) noexcept {
  return lanes.highest < order_of(kInfinity) && lanes.lowest > order_of(~kMagnitude | kInfinity);
}
inline void add_moment(float x, double pivot, std::uint32_t normal, std::size_t stripe,
                       MomentLanes& lanes) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x), a = bits & kMagnitude;
  const double d = double{x} - pivot;
  lanes.sum[stripe] += d;
  lanes.sum2[stripe] += d * d;
  lanes.lowest = std::min(lanes.lowest, order_of(bits));
  lanes.highest = std::max(lanes.highest, order_of(bits));
  lanes.any_bits |= bits;
  lanes.zeros += a == 0;
  lanes.below_normal += a < normal;
}
inline void add_reach_of(float x, Reach& reach) noexcept {
  const std::uint32_t a = std::bit_cast<std::uint32_t>(x) & kMagnitude;
  reach.below += a < reach.small;
  reach.beyond += a >= reach.large && a < kInfinity;
}

}  // namespace
}  // namespace wtool
#endif

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

using D = hn::ScalableTag<double>;
constexpr D kD;
using VD = hn::Vec<D>;
constexpr std::size_t kDoubles = hn::MaxLanes(kD);
constexpr std::size_t kVectors = MomentLanes::kStripes / kLanes;

HWY_INLINE VI signed_of(std::uint32_t bits) {
  return hn::Set(kI, static_cast<std::int32_t>(bits));
}

// The running state of add_moments() in registers: 16 stripes are kVectors vectors of floats.
struct Accumulator {
  VD sum[2 * kVectors], sum2[2 * kVectors];
  VI lowest, highest, zeros, below_normal;  // counts are negative
  VI any_bits;

  HWY_INLINE explicit Accumulator(const MomentLanes& from)
      : lowest(hn::Set(kI, from.lowest)),
        highest(hn::Set(kI, from.highest)),
        zeros(hn::Zero(kI)),
        below_normal(hn::Zero(kI)),
        any_bits(hn::Zero(kI)) {
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 2 * kVectors; ++i) {
      sum[i] = hn::Load(kD, from.sum + i * kDoubles);
      sum2[i] = hn::Load(kD, from.sum2 + i * kDoubles);
    }
  }
  template <std::size_t kAt>
  HWY_INLINE void add(VD x, VD pivot) {
    const VD d = hn::Sub(x, pivot);
    sum[kAt] = hn::Add(sum[kAt], d);
    sum2[kAt] = hn::Add(sum2[kAt], hn::Mul(d, d));
  }
  template <std::size_t kAt>
  HWY_INLINE void vector(const float* in, VD pivot, VI normal) {
    if constexpr (kAt < kVectors) {
      const hn::Half<F> half;
      const VF x = hn::LoadU(kF, in + kAt * kLanes);
      add<2 * kAt>(hn::PromoteTo(kD, hn::LowerHalf(half, x)), pivot);
      add<2 * kAt + 1>(hn::PromoteTo(kD, hn::UpperHalf(half, x)), pivot);
      const VI bits = hn::BitCast(kI, x), a = hn::And(bits, signed_of(kMagnitude));
      const VI order = hn::Xor(bits, hn::And(hn::ShiftRight<31>(bits), signed_of(kMagnitude)));
      lowest = hn::Min(lowest, order);
      highest = hn::Max(highest, order);
      any_bits = hn::Or(any_bits, bits);
      zeros = hn::Add(zeros, hn::VecFromMask(kI, hn::Eq(a, hn::Zero(kI))));
      below_normal = hn::Add(below_normal, hn::VecFromMask(kI, hn::Lt(a, normal)));
      vector<kAt + 1>(in, pivot, normal);
    }
  }
  HWY_INLINE void finish(MomentLanes& to) const {
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 2 * kVectors; ++i) {
      hn::Store(sum[i], kD, to.sum + i * kDoubles);
      hn::Store(sum2[i], kD, to.sum2 + i * kDoubles);
    }
    HWY_ALIGN std::int32_t lanes[5][kLanes];
    hn::Store(lowest, kI, lanes[0]);
    hn::Store(highest, kI, lanes[1]);
    hn::Store(zeros, kI, lanes[2]);
    hn::Store(below_normal, kI, lanes[3]);
    hn::Store(any_bits, kI, lanes[4]);
    for (std::size_t i = 0; i < kLanes; ++i) {
      to.lowest = std::min(to.lowest, lanes[0][i]);
      to.highest = std::max(to.highest, lanes[1][i]);
      to.zeros += static_cast<std::uint32_t>(-lanes[2][i]);
      to.below_normal += static_cast<std::uint32_t>(-lanes[3][i]);
      to.any_bits |= static_cast<std::uint32_t>(lanes[4][i]);
    }
  }
};

bool add_moments(const float* x, std::size_t n, double pivot, std::uint32_t normal,
                 MomentLanes& lanes) noexcept {
  constexpr std::size_t kStripes = MomentLanes::kStripes;
  MomentLanes next = lanes;
  Accumulator all(next);
  const VD p = hn::Set(kD, pivot);
  const VI limit = signed_of(normal);
  std::size_t i = 0;
  for (; i + kStripes <= n; i += kStripes) all.vector<0>(x + i, p, limit);
  all.finish(next);
  for (; i < n; ++i) add_moment(x[i], pivot, normal, i % kStripes, next);
  if (!all_finite(next)) return false;
  lanes = next;
  return true;
}

void add_reach(const float* x, std::size_t n, Reach& reach) noexcept {
  VI below = hn::Zero(kI), beyond = hn::Zero(kI);
  const VI small = signed_of(reach.small), last = signed_of(reach.large - 1);
  const VI infinity = signed_of(kInfinity);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VI a = hn::And(hn::BitCast(kI, hn::LoadU(kF, x + i)), signed_of(kMagnitude));
    below = hn::Add(below, hn::VecFromMask(kI, hn::Lt(a, small)));
    beyond = hn::Add(beyond, hn::VecFromMask(kI, hn::And(hn::Gt(a, last), hn::Lt(a, infinity))));
  }
  HWY_ALIGN std::int32_t counts[2][kLanes];
  hn::Store(below, kI, counts[0]);
  hn::Store(beyond, kI, counts[1]);
  for (std::size_t k = 0; k < kLanes; ++k) {
    reach.below += static_cast<std::uint32_t>(-counts[0][k]);
    reach.beyond += static_cast<std::uint32_t>(-counts[1][k]);
  }
  for (; i < n; ++i) add_reach_of(x[i], reach);
}

constexpr StatisticsKernels kStatistics{&add_moments, &add_reach};

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {
namespace scalar {

bool add_moments(const float* x, std::size_t n, double pivot, std::uint32_t normal,
                 MomentLanes& lanes) noexcept {
  MomentLanes next = lanes;
  for (std::size_t i = 0; i < n; ++i)
    add_moment(x[i], pivot, normal, i % MomentLanes::kStripes, next);
  if (!all_finite(next)) return false;
  lanes = next;
  return true;
}

void add_reach(const float* x, std::size_t n, Reach& reach) noexcept {
  for (std::size_t i = 0; i < n; ++i) add_reach_of(x[i], reach);
}

constexpr StatisticsKernels kStatistics{&add_moments, &add_reach};

}  // namespace scalar

const StatisticsKernels& kernels() noexcept {
  return WTOOL_CHOOSE(scalar::kStatistics, kStatistics);
}

}  // namespace

bool add_moments(const float* x, std::size_t n, double pivot, std::uint32_t normal,
                 MomentLanes& lanes) noexcept {
  return kernels().add_moments(x, n, pivot, normal, lanes);
}
void add_reach(const float* x, std::size_t n, Reach& reach) noexcept {
  kernels().add_reach(x, n, reach);
}

void count_halves(const std::byte* in, std::size_t n, std::uint32_t* counters) noexcept {
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) {  // one load for four elements
    std::uint64_t four;
    std::memcpy(&four, in + 2 * i, sizeof four);
    ++counters[four & 0xFFFF];
    ++counters[four >> 16 & 0xFFFF];
    ++counters[four >> 32 & 0xFFFF];
    ++counters[four >> 48];
  }
  for (; i < n; ++i) {
    std::uint16_t half;
    std::memcpy(&half, in + 2 * i, sizeof half);
    ++counters[half];
  }
}

void count_upper_halves(const float* x, std::size_t n, std::uint32_t* counters) noexcept {
  for (std::size_t i = 0; i < n; ++i) ++counters[std::bit_cast<std::uint32_t>(x[i]) >> 16];
}

}  // namespace wtool
#endif
