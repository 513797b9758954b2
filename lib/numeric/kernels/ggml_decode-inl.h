// Included by the files of vector decoders after hwy/highway.h, once for each target.
#if defined(WTOOL_GGML_DECODE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WTOOL_GGML_DECODE_INL_H
#undef WTOOL_GGML_DECODE_INL_H
#else
#define WTOOL_GGML_DECODE_INL_H
#endif

#include "lib/numeric/kernels/ggml_decode.h"
#include "lib/numeric/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

using B16 = hn::CappedTag<std::uint8_t, 16>;  // bytes of codes
using B = hn::CappedTag<std::uint8_t, 32>;
constexpr B16 kB16;
constexpr B kB;
constexpr std::size_t kByteLanes = hn::MaxLanes(kB);
using VB = hn::Vec<B>;
using VB16 = hn::Vec<B16>;

// Calls f with the constants 0, 1, … kCount - 1: shifts want constants.
template <class Function, std::size_t... kAt>
HWY_INLINE void for_each_of(std::index_sequence<kAt...>, const Function& f) {
  (f(std::integral_constant<int, static_cast<int>(kAt)>{}), ...);
}
template <std::size_t kCount, class Function>
HWY_INLINE void for_each(const Function& f) {
  for_each_of(std::make_index_sequence<kCount>{}, f);
}

HWY_INLINE float half(std::uint16_t bits) {
  if constexpr (kF16C) {
    const hn::CappedTag<float, 4> f;
    const hn::Rebind<std::uint16_t, decltype(f)> u;
    const hn::Rebind<hwy::float16_t, decltype(f)> h;
    return hn::GetLane(hn::PromoteTo(f, hn::BitCast(h, hn::Set(u, bits))));
  } else {
    return f16_inline(bits);
  }
}
HWY_INLINE float half_at(const std::uint8_t* p) {
  return half(load<std::uint16_t>(p));
}

// Signed codes, sixteen or a part of them, times a scale.
template <class D>
HWY_INLINE void scale_codes(D d, hn::Vec<D> codes, VF scale, float* out) {
  if constexpr (hn::MaxLanes(d) == kLanes) {
    hn::StoreU(hn::Mul(hn::ConvertTo(kF, hn::PromoteTo(kI, codes)), scale), kF, out);
  } else {
    const hn::Half<D> half;
    scale_codes(half, hn::LowerHalf(half, codes), scale, out);
    scale_codes(half, hn::UpperHalf(half, codes), scale, out + hn::MaxLanes(half));
  }
}
HWY_INLINE void scale_16(VB16 codes, VF scale, float* out) {
  const hn::RebindToSigned<B16> d;
  scale_codes(d, hn::BitCast(d, codes), scale, out);
}

// A scale (or minimum) for each group: d times its code.
template <std::size_t kGroups, class Code>
HWY_INLINE void scales(float d, const Code* codes, float* out) {
  const hn::CappedTag<float, kGroups> f;
  const hn::RebindToSigned<decltype(f)> i;
  const hn::Rebind<Code, decltype(f)> c;
#pragma GCC unroll 4
  for (std::size_t k = 0; k < kGroups; k += hn::MaxLanes(f)) {
    const auto q = hn::ConvertTo(f, hn::PromoteTo(i, hn::LoadU(c, codes + k)));
    hn::StoreU(hn::Mul(hn::Set(f, d), q), f, out + k);
  }
}

// Codes that wait in memory.
template <std::size_t kElements, std::size_t kGroup>
HWY_INLINE void spread(const std::uint8_t* codes, const float* scale, float* out) {
  for (std::size_t i = 0; i < kElements; i += kGroup) {
    const VF d = hn::Set(kF, scale[i / kGroup]);
#pragma GCC unroll 8
    for (std::size_t j = i; j < i + kGroup; j += kLanes) {
      const auto q =
          hn::PromoteTo(kI, hn::LoadU(kI8, reinterpret_cast<const std::int8_t*>(codes) + j));
      hn::StoreU(hn::Mul(hn::ConvertTo(kF, q), d), kF, out + j);
    }
  }
}
template <std::size_t kElements, std::size_t kGroup>
HWY_INLINE void spread(const std::uint8_t* codes, const float* scale, const float* minimum,
                       float* out) {
  for (std::size_t i = 0; i < kElements; i += kGroup) {
    const VF d = hn::Set(kF, scale[i / kGroup]), m = hn::Set(kF, minimum[i / kGroup]);
#pragma GCC unroll 8
    for (std::size_t j = i; j < i + kGroup; j += kLanes) {
      const auto q =
          hn::PromoteTo(kI, hn::LoadU(kI8, reinterpret_cast<const std::int8_t*>(codes) + j));
      hn::StoreU(hn::Sub(hn::Mul(hn::ConvertTo(kF, q), d), m), kF, out + j);
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#endif  // per target
