// What kernel files call vectors of 32-bit numbers, as long as the target's are. Included after
// hwy/foreach_target.h, once for each target (no #pragma once).
#if defined(WTOOL_VECTORS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WTOOL_VECTORS_INL_H
#undef WTOOL_VECTORS_INL_H
#else
#define WTOOL_VECTORS_INL_H
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using I = hn::RebindToSigned<F>;
using U = hn::RebindToUnsigned<F>;
using I8 = hn::Rebind<std::int8_t, F>;  // bytes for as many lanes
using U8 = hn::Rebind<std::uint8_t, F>;
constexpr F kF;
constexpr I kI;
constexpr U kU;
constexpr I8 kI8;
constexpr U8 kU8;
using VF = hn::Vec<F>;
using VI = hn::Vec<I>;
using VU = hn::Vec<U>;
using MF = hn::Mask<F>;

constexpr std::size_t kLanes = hn::MaxLanes(kF);
// Does the target convert to and from f16?
constexpr bool kF16C = HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3;

HWY_INLINE VF all(float v) {
  return hn::Set(kF, v);
}
HWY_INLINE VI all(int v) {
  return hn::Set(kI, v);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#endif
