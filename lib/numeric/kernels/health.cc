#include "lib/numeric/kernels/health.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/health.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef WTOOL_HEALTH_ONCE
#define WTOOL_HEALTH_ONCE
namespace wtool {
namespace {

struct HealthKernels {
  void (*count_patterns)(const std::byte*, std::size_t, const Patterns&, std::uint64_t,
                         PatternCounts&) noexcept;
};

constexpr std::uint8_t kMinusZero = 0x80;  // of 8 bits

// A pattern's magnitude. `kNan`: 0x80 is NaN, beyond all others.
template <class T, bool kNan>
inline T magnitude_of(T pattern, T mask) noexcept {
  if constexpr (kNan)
    if (pattern == kMinusZero) return 0xFF;
  return pattern & mask;
}

template <class T, bool kNan>
void count_plainly(const std::byte* in, std::size_t n, const Patterns& how, std::uint64_t first,
                   PatternCounts& counts) noexcept {
  const auto mask = static_cast<T>(how.magnitude);
  const auto normal = static_cast<T>(how.normal);
  for (std::size_t i = 0; i < n; ++i) {
    T pattern;
    std::memcpy(&pattern, in + i * sizeof(T), sizeof(T));
    const T a = magnitude_of<T, kNan>(pattern, mask);
    counts.zeros += a == 0;
    counts.below_normal += a < normal;
    counts.largest = std::max<std::uint64_t>(counts.largest, a);
    counts.differing |= static_cast<T>(pattern ^ static_cast<T>(first));
  }
}

// Calls f.template operator()<T, kNan>() for the type of the patterns.
template <class F>
void with_type(const Patterns& how, F&& f) noexcept {
  switch (how.bytes) {
    case 1:
      return how.nan_for_minus_zero ? f.template operator()<std::uint8_t, true>()
                                    : f.template operator()<std::uint8_t, false>();
    case 2: return f.template operator()<std::uint16_t, false>();
    case 4: return f.template operator()<std::uint32_t, false>();
    default: return f.template operator()<std::uint64_t, false>();
  }
}

}  // namespace
}  // namespace wtool
#endif

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Up to as many vectors as counters of a lane's width can count.
template <class T, bool kNan>
void count_some(const T* in, std::size_t vectors, const Patterns& how, T first,
                PatternCounts& counts) noexcept {
  using D = hn::ScalableTag<T>;
  constexpr D d;
  constexpr std::size_t kWide = hn::MaxLanes(d);
  using V = hn::Vec<D>;
  const V zero = hn::Zero(d), mask = hn::Set(d, static_cast<T>(how.magnitude));
  const V below = hn::Set(d, static_cast<T>(how.normal - 1)), same = hn::Set(d, first);
  V zeros = zero, below_normal = zero, largest = zero, differing = zero;  // counts are negative
  for (std::size_t i = 0; i < vectors; ++i) {
    const V x = hn::LoadU(d, in + i * kWide);
    V a = hn::And(x, mask);
    if constexpr (kNan)
      a = hn::Or(a, hn::VecFromMask(d, hn::Eq(x, hn::Set(d, static_cast<T>(kMinusZero)))));
    zeros = hn::Add(zeros, hn::VecFromMask(d, hn::Eq(a, zero)));
    below_normal = hn::Add(below_normal, hn::VecFromMask(d, hn::Eq(hn::Min(a, below), a)));
    largest = hn::Max(largest, a);
    differing = hn::Or(differing, hn::Xor(x, same));
  }
  HWY_ALIGN T lanes[4][kWide];
  hn::Store(zeros, d, lanes[0]);
  hn::Store(below_normal, d, lanes[1]);
  hn::Store(largest, d, lanes[2]);
  hn::Store(differing, d, lanes[3]);
  for (std::size_t k = 0; k < kWide; ++k) {
    counts.zeros += static_cast<T>(-lanes[0][k]);
    counts.below_normal += static_cast<T>(-lanes[1][k]);
    counts.largest = std::max<std::uint64_t>(counts.largest, lanes[2][k]);
    counts.differing |= lanes[3][k];
  }
}

template <class T, bool kNan>
void count_of(const std::byte* in, std::size_t n, const Patterns& how, std::uint64_t first,
              PatternCounts& counts) noexcept {
  constexpr std::size_t kWide = hn::MaxLanes(hn::ScalableTag<T>());
  constexpr std::size_t kMost = sizeof(T) == 1 ? 0xFF : 0xFFFF;
  for (std::size_t vectors = n / kWide; vectors > 0;) {
    const std::size_t some = std::min(vectors, kMost);
    count_some<T, kNan>(reinterpret_cast<const T*>(in), some, how, static_cast<T>(first), counts);
    in += some * kWide * sizeof(T);
    vectors -= some;
  }
  count_plainly<T, kNan>(in, n % kWide, how, first, counts);
}

void count_patterns(const std::byte* in, std::size_t n, const Patterns& how, std::uint64_t first,
                    PatternCounts& counts) noexcept {
  with_type(how, [&]<class T, bool kNan>() { count_of<T, kNan>(in, n, how, first, counts); });
}

constexpr HealthKernels kHealth{&count_patterns};

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {
namespace scalar {

void count_patterns(const std::byte* in, std::size_t n, const Patterns& how, std::uint64_t first,
                    PatternCounts& counts) noexcept {
  with_type(how, [&]<class T, bool kNan>() { count_plainly<T, kNan>(in, n, how, first, counts); });
}

constexpr HealthKernels kHealth{&count_patterns};

}  // namespace scalar
}  // namespace

void count_patterns(const std::byte* in, std::size_t n, const Patterns& how, std::uint64_t first,
                    PatternCounts& counts) noexcept {
  (WTOOL_CHOOSE(scalar::kHealth, kHealth)).count_patterns(in, n, how, first, counts);
}

}  // namespace wtool
#endif
