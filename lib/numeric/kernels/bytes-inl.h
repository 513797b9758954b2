// What the kernels of compression share: bytes, and vectors of 16- and 32-bit numbers from and to
// them. Included after hwy/foreach_target.h; its second part once for each target (no #pragma
// once).
#ifndef WTOOL_BYTES_INL_SCALAR
#define WTOOL_BYTES_INL_SCALAR

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace wtool {
namespace {

using B = std::byte;

template <class T>
T load_at(const B* p, std::size_t i) noexcept {
  T v;
  std::memcpy(&v, p + i * sizeof v, sizeof v);
  return v;
}
template <class T>
void store_at(B* p, std::size_t i, T v) noexcept {
  std::memcpy(p + i * sizeof v, &v, sizeof v);
}

}  // namespace
}  // namespace wtool
#endif  // WTOOL_BYTES_INL_SCALAR

#if defined(WTOOL_BYTES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WTOOL_BYTES_INL_H
#undef WTOOL_BYTES_INL_H
#else
#define WTOOL_BYTES_INL_H
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using U32 = hn::ScalableTag<std::uint32_t>;
using U16 = hn::ScalableTag<std::uint16_t>;
constexpr U32 kU32;
constexpr U16 kU16;
constexpr hn::Rebind<std::uint8_t, U32> kU32Bytes;  // a byte for each lane
constexpr hn::Rebind<std::uint8_t, U16> kU16Bytes;  // likewise
constexpr std::size_t kLanes32 = hn::MaxLanes(kU32), kLanes16 = hn::MaxLanes(kU16);
using V32 = hn::Vec<U32>;
using V16 = hn::Vec<U16>;

HWY_INLINE std::uint8_t* u8(B* p) {
  return reinterpret_cast<std::uint8_t*>(p);
}
HWY_INLINE const std::uint8_t* u8(const B* p) {
  return reinterpret_cast<const std::uint8_t*>(p);
}
HWY_INLINE V16 load16(const B* p) {
  return hn::LoadU(kU16, reinterpret_cast<const std::uint16_t*>(p));
}
HWY_INLINE V32 load32(const B* p) {
  return hn::LoadU(kU32, reinterpret_cast<const std::uint32_t*>(p));
}
HWY_INLINE void put16(V16 v, B* p) {
  hn::StoreU(v, kU16, reinterpret_cast<std::uint16_t*>(p));
}
HWY_INLINE void put32(V32 v, B* p) {
  hn::StoreU(v, kU32, reinterpret_cast<std::uint32_t*>(p));
}
HWY_INLINE V16 bytes16(const B* p) {  // a byte for each lane
  return hn::PromoteTo(kU16, hn::LoadU(kU16Bytes, u8(p)));
}
HWY_INLINE V32 bytes32(const B* p) {
  return hn::PromoteTo(kU32, hn::LoadU(kU32Bytes, u8(p)));
}
HWY_INLINE void put_bytes(V16 v, B* p) {
  hn::StoreU(hn::TruncateTo(kU16Bytes, v), kU16Bytes, u8(p));
}
HWY_INLINE void put_bytes(V32 v, B* p) {
  hn::StoreU(hn::TruncateTo(kU32Bytes, v), kU32Bytes, u8(p));
}
HWY_INLINE V16 all16(unsigned v) {
  return hn::Set(kU16, static_cast<std::uint16_t>(v));
}
HWY_INLINE V32 all32(std::uint32_t v) {
  return hn::Set(kU32, v);
}

// Those lanes of which the mask is true, a bit each.
template <class D, class M>
HWY_INLINE std::uint64_t lanes_of(D d, M mask) {
  std::uint8_t bits[8] = {};
  hn::StoreMaskBits(d, mask, bits);
  std::uint64_t out;
  std::memcpy(&out, bits, sizeof out);
  return out;
}
HWY_INLINE std::size_t first_of(std::uint64_t lanes) {
  return static_cast<std::size_t>(std::countr_zero(lanes));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#endif
