#include "lib/numeric/kernels/differences.h"

#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/differences.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/bytes-inl.h"

#ifndef WTOOL_DIFFERENCES_TABLE
#define WTOOL_DIFFERENCES_TABLE
namespace wtool {
namespace {

// A difference apart.
struct Far {
  B *low, *middle, *small, *far_low, *far_high;
};
struct ConstFar {
  const B *low, *middle, *small, *far_low, *far_high;
  std::size_t count;  // of the two lists
};

struct DifferenceKernels {
  std::size_t (*split_delta16)(const B* in, const B* base, std::size_t n, const Far& out) noexcept;
  std::size_t (*split_delta32)(const B* in, const B* base, std::size_t n, const Far& out) noexcept;
  std::size_t (*join_delta16)(const ConstFar& in, const B* base, std::size_t n, B* out) noexcept;
  std::size_t (*join_delta32)(const ConstFar& in, const B* base, std::size_t n, B* out) noexcept;
};

// ---- The scalar reference; `i` is the first element, for what vectors leave over, and `escaped`
// how many far ones there have been.

template <class T>
constexpr T kSign = static_cast<T>(T{1} << (8 * sizeof(T) - 1));
// Integers in the order of the floats: all bits of negative ones flipped, of others the sign.
template <class T>
T ordered(T v) noexcept {
  return static_cast<T>(v ^ ((v & kSign<T>) != 0 ? static_cast<T>(~T{0}) : kSign<T>));
}
template <class T>
T unordered(T v) noexcept {
  return static_cast<T>(v ^ ((v & kSign<T>) != 0 ? kSign<T> : static_cast<T>(~T{0})));
}
template <class T>
T difference_at(const B* in, const B* base, std::size_t i) noexcept {
  const auto d = static_cast<T>(ordered(load_at<T>(in, i)) - ordered(load_at<T>(base, i)));
  const T sign = (d & kSign<T>) != 0 ? static_cast<T>(~T{0}) : T{0};
  return static_cast<T>((d << 1) ^ sign);
}
template <class T>
T restored(T z, const B* base, std::size_t i) noexcept {
  const auto d = static_cast<T>((z >> 1) ^ ((z & 1) != 0 ? static_cast<T>(~T{0}) : T{0}));
  return unordered(static_cast<T>(d + ordered(load_at<T>(base, i))));
}
template <class T>
constexpr unsigned kBelowUpper = 8 * sizeof(T) - 16;

template <class T>
void put_far(unsigned upper, std::size_t escaped, const Far& out) noexcept {
  out.far_low[escaped] = static_cast<B>(upper & 0xFFu);
  out.far_high[escaped] = static_cast<B>(upper >> 8);
}
template <class T>
unsigned upper_of(T z) noexcept {
  return static_cast<unsigned>(z >> kBelowUpper<T>);
}
// The whole z of an element whose upper half is number `escaped` of the lists.
template <class T>
T far_at(const ConstFar& in, std::size_t escaped, std::size_t i) noexcept {
  std::uint32_t upper = kFarAway;
  if (escaped < in.count)
    upper = static_cast<std::uint32_t>(in.far_low[escaped]) |
            (static_cast<std::uint32_t>(in.far_high[escaped]) << 8);
  if constexpr (sizeof(T) == 2) return static_cast<T>(upper);
  return static_cast<T>((upper << 16) | (static_cast<std::uint32_t>(in.middle[i]) << 8) |
                        static_cast<std::uint32_t>(in.low[i]));
}

template <class T>
std::size_t split_delta_from(std::size_t i, std::size_t escaped, const B* in, const B* base,
                             std::size_t n, const Far& out) noexcept {
  for (; i < n; ++i) {
    const T z = difference_at<T>(in, base, i);
    if constexpr (sizeof(T) == 4) {
      out.low[i] = static_cast<B>(z & 0xFFu);
      out.middle[i] = static_cast<B>((z >> 8) & 0xFFu);
    }
    const unsigned upper = upper_of(z);
    out.small[i] = static_cast<B>(upper < kFarAway ? upper : kFarAway);
    if (upper >= kFarAway) put_far<T>(upper, escaped++, out);
  }
  return escaped;
}
template <class T>
std::size_t join_delta_from(std::size_t i, std::size_t escaped, const ConstFar& in, const B* base,
                            std::size_t n, B* out) noexcept {
  for (; i < n; ++i) {
    const auto small = static_cast<std::uint32_t>(in.small[i]);
    std::uint32_t z = small;
    if constexpr (sizeof(T) == 4)
      z = (small << 16) | (static_cast<std::uint32_t>(in.middle[i]) << 8) |
          static_cast<std::uint32_t>(in.low[i]);
    if (small == kFarAway) z = far_at<T>(in, escaped++, i);
    store_at(out, i, restored(static_cast<T>(z), base, i));
  }
  return escaped;
}

}  // namespace
}  // namespace wtool
#endif  // WTOOL_DIFFERENCES_TABLE

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {

// All bits set where the sign is.
template <class D, class V>
HWY_INLINE V sign_mask(D d, V v) {
  const hn::RebindToSigned<D> s;
  return hn::BitCast(d, hn::BroadcastSignBit(hn::BitCast(s, v)));
}
template <class D, class V>
HWY_INLINE V ordered_vec(D d, V v) {
  return hn::Xor(v, hn::Or(sign_mask(d, v), hn::Set(d, kSign<hn::TFromD<D>>)));
}
template <class D>
HWY_INLINE hn::Vec<D> difference_vec(D d, const B* in, const B* base, std::size_t i) {
  using T = hn::TFromD<D>;
  const auto a = ordered_vec(d, hn::LoadU(d, reinterpret_cast<const T*>(in) + i));
  const auto b = ordered_vec(d, hn::LoadU(d, reinterpret_cast<const T*>(base) + i));
  const auto difference = hn::Sub(a, b);
  return hn::Xor(hn::Add(difference, difference), sign_mask(d, difference));
}
template <class D, class V>
HWY_INLINE void restore_vec(D d, V z, const B* base, std::size_t i, B* out) {
  using T = hn::TFromD<D>;
  const auto minus = hn::Sub(hn::Zero(d), hn::And(z, hn::Set(d, T{1})));
  const auto b = ordered_vec(d, hn::LoadU(d, reinterpret_cast<const T*>(base) + i));
  const auto sum = hn::Add(hn::Xor(hn::ShiftRight<1>(z), minus), b);
  const auto flip = hn::Or(hn::Not(sign_mask(d, sum)), hn::Set(d, kSign<T>));
  hn::StoreU(hn::Xor(sum, flip), d, reinterpret_cast<T*>(out) + i);
}

static std::size_t split_delta16(const B* in, const B* base, std::size_t n,
                                 const Far& out) noexcept {
  std::size_t i = 0, escaped = 0;
  for (; i + kLanes16 <= n; i += kLanes16) {
    const V16 small = hn::Min(difference_vec(kU16, in, base, i), all16(kFarAway));
    put_bytes(small, out.small + i);
    for (std::uint64_t lanes = lanes_of(kU16, hn::Eq(small, all16(kFarAway))); lanes != 0;
         lanes &= lanes - 1)
      put_far<std::uint16_t>(difference_at<std::uint16_t>(in, base, i + first_of(lanes)), escaped++,
                             out);
  }
  return split_delta_from<std::uint16_t>(i, escaped, in, base, n, out);
}
static std::size_t split_delta32(const B* in, const B* base, std::size_t n,
                                 const Far& out) noexcept {
  std::size_t i = 0, escaped = 0;
  for (; i + kLanes32 <= n; i += kLanes32) {
    const V32 z = difference_vec(kU32, in, base, i);
    put_bytes(hn::And(z, all32(0xFF)), out.low + i);
    put_bytes(hn::And(hn::ShiftRight<8>(z), all32(0xFF)), out.middle + i);
    const V32 small = hn::Min(hn::ShiftRight<16>(z), all32(kFarAway));
    put_bytes(small, out.small + i);
    for (std::uint64_t lanes = lanes_of(kU32, hn::Eq(small, all32(kFarAway))); lanes != 0;
         lanes &= lanes - 1)
      put_far<std::uint32_t>(upper_of(difference_at<std::uint32_t>(in, base, i + first_of(lanes))),
                             escaped++, out);
  }
  return split_delta_from<std::uint32_t>(i, escaped, in, base, n, out);
}
static std::size_t join_delta16(const ConstFar& in, const B* base, std::size_t n, B* out) noexcept {
  using T = std::uint16_t;
  std::size_t i = 0, escaped = 0;
  for (; i + kLanes16 <= n; i += kLanes16) {
    const V16 z = bytes16(in.small + i);
    restore_vec(kU16, z, base, i, out);
    for (std::uint64_t lanes = lanes_of(kU16, hn::Eq(z, all16(kFarAway))); lanes != 0;
         lanes &= lanes - 1) {
      const std::size_t k = i + first_of(lanes);
      store_at(out, k, restored(far_at<T>(in, escaped++, k), base, k));
    }
  }
  return join_delta_from<T>(i, escaped, in, base, n, out);
}
static std::size_t join_delta32(const ConstFar& in, const B* base, std::size_t n, B* out) noexcept {
  using T = std::uint32_t;
  std::size_t i = 0, escaped = 0;
  for (; i + kLanes32 <= n; i += kLanes32) {
    const V32 small = bytes32(in.small + i);
    const V32 lower = hn::Or(hn::ShiftLeft<8>(bytes32(in.middle + i)), bytes32(in.low + i));
    restore_vec(kU32, hn::Or(hn::ShiftLeft<16>(small), lower), base, i, out);
    for (std::uint64_t lanes = lanes_of(kU32, hn::Eq(small, all32(kFarAway))); lanes != 0;
         lanes &= lanes - 1) {
      const std::size_t k = i + first_of(lanes);
      store_at(out, k, restored(far_at<T>(in, escaped++, k), base, k));
    }
  }
  return join_delta_from<T>(i, escaped, in, base, n, out);
}

constexpr DifferenceKernels kDifferences{&split_delta16, &split_delta32, &join_delta16,
                                         &join_delta32};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {

constexpr DifferenceKernels kScalar{
    [](const B* in, const B* base, std::size_t n, const Far& out) noexcept {
      return split_delta_from<std::uint16_t>(0, 0, in, base, n, out);
    },
    [](const B* in, const B* base, std::size_t n, const Far& out) noexcept {
      return split_delta_from<std::uint32_t>(0, 0, in, base, n, out);
    },
    [](const ConstFar& in, const B* base, std::size_t n, B* out) noexcept {
      return join_delta_from<std::uint16_t>(0, 0, in, base, n, out);
    },
    [](const ConstFar& in, const B* base, std::size_t n, B* out) noexcept {
      return join_delta_from<std::uint32_t>(0, 0, in, base, n, out);
    }};

const DifferenceKernels& chosen() noexcept {
  return WTOOL_CHOOSE(kScalar, kDifferences);
}

}  // namespace

std::size_t split_delta16(const std::byte* in, const std::byte* base, std::size_t n,
                          std::byte* small, std::byte* far_low, std::byte* far_high) noexcept {
  return chosen().split_delta16(in, base, n, {nullptr, nullptr, small, far_low, far_high});
}
std::size_t split_delta32(const std::byte* in, const std::byte* base, std::size_t n, std::byte* low,
                          std::byte* middle, std::byte* small, std::byte* far_low,
                          std::byte* far_high) noexcept {
  return chosen().split_delta32(in, base, n, {low, middle, small, far_low, far_high});
}
std::size_t join_delta16(const std::byte* small, const std::byte* far_low,
                         const std::byte* far_high, std::size_t count, const std::byte* base,
                         std::size_t n, std::byte* out) noexcept {
  return chosen().join_delta16({nullptr, nullptr, small, far_low, far_high, count}, base, n, out);
}
std::size_t join_delta32(const std::byte* low, const std::byte* middle, const std::byte* small,
                         const std::byte* far_low, const std::byte* far_high, std::size_t count,
                         const std::byte* base, std::size_t n, std::byte* out) noexcept {
  return chosen().join_delta32({low, middle, small, far_low, far_high, count}, base, n, out);
}

}  // namespace wtool
#endif  // HWY_ONCE
