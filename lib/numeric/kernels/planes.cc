#include "lib/numeric/kernels/planes.h"

#include <cstring>

#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/planes.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/bytes-inl.h"

#ifndef WTOOL_PLANES_TABLE
#define WTOOL_PLANES_TABLE
namespace wtool {
namespace {

// One float apart: where its exponent goes, and its sign with the upper mantissa.
struct Planes {
  B *pairs, *sign_mantissa, *middle, *low, *escapes;
};
struct ConstPlanes {
  const B *pairs, *sign_mantissa, *middle, *low, *escapes;
  std::size_t count;  // of the escapes
};

// Each takes elements [0, n); `escaped` is how many escapes there have been.
struct PlaneKernels {
  std::size_t (*split_bf16)(const B* in, std::size_t n, unsigned top, const Planes& out) noexcept;
  std::size_t (*split_f32)(const B* in, std::size_t n, unsigned top, const Planes& out) noexcept;
  std::size_t (*join_bf16)(const ConstPlanes& in, std::size_t n, unsigned top, B* out) noexcept;
  std::size_t (*join_f32)(const ConstPlanes& in, std::size_t n, unsigned top, B* out) noexcept;
  void (*split_bytes2)(const B* in, std::size_t n, B* const* planes) noexcept;
  void (*split_bytes4)(const B* in, std::size_t n, B* const* planes) noexcept;
  void (*join_bytes2)(const B* const* planes, std::size_t n, B* out) noexcept;
  void (*join_bytes4)(const B* const* planes, std::size_t n, B* out) noexcept;
};

// ---- The scalar reference; `i` is the first element, for what vectors leave over. It is even.

template <class T>
constexpr unsigned kMantissa = sizeof(T) == 2 ? 7 : 23;  // of bf16 and f32: its bits

template <class T>
B exponent_at(const B* in, std::size_t i) noexcept {
  return static_cast<B>((load_at<T>(in, i) >> kMantissa<T>)&0xFFu);
}
// Element `i` is written but for its exponent, which is the escape number `escaped`.
template <class T>
void put_escape(const ConstPlanes& in, std::size_t escaped, std::size_t i, B* out) noexcept {
  if (escaped >= in.count) return;
  const T mask = static_cast<T>(T{0xFF} << kMantissa<T>);
  const T exponent = static_cast<T>(static_cast<T>(in.escapes[escaped]) << kMantissa<T>);
  store_at(out, i, static_cast<T>((load_at<T>(out, i) & ~mask) | exponent));
}

template <class T>
std::size_t split_from(std::size_t i, std::size_t escaped, const B* in, std::size_t n, unsigned top,
                       const Planes& out) noexcept {
  constexpr unsigned kUpper = kMantissa<T> - 7;
  for (; i < n; ++i) {
    const T v = load_at<T>(in, i);
    const unsigned exponent = (v >> kMantissa<T>)&0xFFu;
    unsigned nibble = top - exponent;
    if (nibble >= kEscape) {  // those above `top` have wrapped around
      nibble = kEscape;
      out.escapes[escaped++] = static_cast<B>(exponent);
    }
    const unsigned sign = static_cast<unsigned>(v >> (8 * sizeof(T) - 1)) << 7;
    out.sign_mantissa[i] = static_cast<B>(sign | ((v >> kUpper) & 0x7Fu));
    if constexpr (sizeof(T) == 4) {
      out.middle[i] = static_cast<B>((v >> 8) & 0xFFu);
      out.low[i] = static_cast<B>(v & 0xFFu);
    }
    if (i % 2 == 0)
      out.pairs[i / 2] = static_cast<B>(nibble);
    else
      out.pairs[i / 2] |= static_cast<B>(nibble << 4);
  }
  return escaped;
}

template <class T>
std::size_t join_from(std::size_t i, std::size_t escaped, const ConstPlanes& in, std::size_t n,
                      unsigned top, B* out) noexcept {
  constexpr unsigned kUpper = kMantissa<T> - 7;
  for (; i < n; ++i) {
    const auto pair = static_cast<unsigned>(in.pairs[i / 2]);
    const unsigned nibble = i % 2 == 0 ? pair & 15 : pair >> 4;
    unsigned exponent = (top - nibble) & 0xFF;
    if (nibble == kEscape) {
      if (escaped < in.count) exponent = static_cast<unsigned>(in.escapes[escaped]);
      ++escaped;
    }
    const auto sm = static_cast<unsigned>(in.sign_mantissa[i]);
    std::uint32_t v = ((sm & 0x80u) << (8 * sizeof(T) - 8)) | (exponent << kMantissa<T>) |
                      ((sm & 0x7Fu) << kUpper);
    if constexpr (sizeof(T) == 4)
      v |= (static_cast<std::uint32_t>(in.middle[i]) << 8) | static_cast<std::uint32_t>(in.low[i]);
    store_at(out, i, static_cast<T>(v));
  }
  return escaped;
}

template <class T>
void split_bytes_from(std::size_t i, const B* in, std::size_t n, B* const* planes) noexcept {
  for (; i < n; ++i)
    for (std::size_t k = 0; k < sizeof(T); ++k) planes[k][i] = in[i * sizeof(T) + k];
}
template <class T>
void join_bytes_from(std::size_t i, const B* const* planes, std::size_t n, B* out) noexcept {
  for (; i < n; ++i)
    for (std::size_t k = 0; k < sizeof(T); ++k) out[i * sizeof(T) + k] = planes[k][i];
}

}  // namespace
}  // namespace wtool
#endif  // WTOOL_PLANES_TABLE

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
constexpr hn::Rebind<std::uint16_t, U32> kU32Halves;                       // 16 bits for each lane
constexpr hn::RepartitionToWide<hn::Rebind<std::uint16_t, U32>> kHalfU32;  // the same, as pairs
constexpr hn::Rebind<std::uint8_t, hn::RepartitionToWide<hn::Rebind<std::uint16_t, U32>>>
    kHalfU32Bytes;

// Neighbouring nibbles, each in 16 bits, to bytes and back.
template <class D, class DBytes>
HWY_INLINE void put_pairs(hn::Vec<D> two, D, DBytes bytes, B* p) {
  const auto joined = hn::Or(two, hn::ShiftRight<12>(two));
  hn::StoreU(hn::TruncateTo(bytes, joined), bytes, u8(p));
}
template <class D, class DBytes>
HWY_INLINE hn::Vec<D> load_pairs(D d, DBytes bytes, const B* p) {
  const auto x = hn::PromoteTo(d, hn::LoadU(bytes, u8(p)));
  return hn::And(hn::Or(x, hn::ShiftLeft<12>(x)), hn::Set(d, 0x000F000Fu));
}

static std::size_t split_bf16(const B* in, std::size_t n, unsigned top,
                              const Planes& out) noexcept {
  std::size_t i = 0, escaped = 0;
  for (; i + kLanes16 <= n; i += kLanes16) {
    const V16 v = load16(in + 2 * i);
    const V16 exponent = hn::And(hn::ShiftRight<7>(v), all16(0xFF));
    const V16 nibble = hn::Min(hn::Sub(all16(top), exponent), all16(kEscape));
    put_bytes(hn::Or(hn::And(hn::ShiftRight<8>(v), all16(0x80)), hn::And(v, all16(0x7F))),
              out.sign_mantissa + i);
    put_pairs(hn::BitCast(kU32, nibble), kU32, kU32Bytes, out.pairs + i / 2);
    for (std::uint64_t lanes = lanes_of(kU16, hn::Eq(nibble, all16(kEscape))); lanes != 0;
         lanes &= lanes - 1)
      out.escapes[escaped++] = exponent_at<std::uint16_t>(in, i + first_of(lanes));
  }
  return split_from<std::uint16_t>(i, escaped, in, n, top, out);
}

static std::size_t split_f32(const B* in, std::size_t n, unsigned top, const Planes& out) noexcept {
  std::size_t i = 0, escaped = 0;
  for (; i + kLanes32 <= n; i += kLanes32) {
    const V32 v = load32(in + 4 * i);
    const V32 exponent = hn::And(hn::ShiftRight<23>(v), all32(0xFF));
    const V32 nibble = hn::Min(hn::Sub(all32(top), exponent), all32(kEscape));
    put_bytes(hn::Or(hn::And(hn::ShiftRight<24>(v), all32(0x80)),
                     hn::And(hn::ShiftRight<16>(v), all32(0x7F))),
              out.sign_mantissa + i);
    put_bytes(hn::And(hn::ShiftRight<8>(v), all32(0xFF)), out.middle + i);
    put_bytes(hn::And(v, all32(0xFF)), out.low + i);
    put_pairs(hn::BitCast(kHalfU32, hn::TruncateTo(kU32Halves, nibble)), kHalfU32, kHalfU32Bytes,
              out.pairs + i / 2);
    for (std::uint64_t lanes = lanes_of(kU32, hn::Eq(nibble, all32(kEscape))); lanes != 0;
         lanes &= lanes - 1)
      out.escapes[escaped++] = exponent_at<std::uint32_t>(in, i + first_of(lanes));
  }
  return split_from<std::uint32_t>(i, escaped, in, n, top, out);
}

static std::size_t join_bf16(const ConstPlanes& in, std::size_t n, unsigned top, B* out) noexcept {
  std::size_t i = 0, escaped = 0;
  for (; i + kLanes16 <= n; i += kLanes16) {
    const V16 nibble = hn::BitCast(kU16, load_pairs(kU32, kU32Bytes, in.pairs + i / 2));
    const V16 sm = bytes16(in.sign_mantissa + i);
    const V16 exponent = hn::And(hn::Sub(all16(top), nibble), all16(0xFF));
    const V16 sign = hn::ShiftLeft<8>(hn::And(sm, all16(0x80)));
    put16(hn::Or(hn::Or(sign, hn::ShiftLeft<7>(exponent)), hn::And(sm, all16(0x7F))), out + 2 * i);
    for (std::uint64_t lanes = lanes_of(kU16, hn::Eq(nibble, all16(kEscape))); lanes != 0;
         lanes &= lanes - 1)
      put_escape<std::uint16_t>(in, escaped++, i + first_of(lanes), out);
  }
  return join_from<std::uint16_t>(i, escaped, in, n, top, out);
}

static std::size_t join_f32(const ConstPlanes& in, std::size_t n, unsigned top, B* out) noexcept {
  std::size_t i = 0, escaped = 0;
  for (; i + kLanes32 <= n; i += kLanes32) {
    const V32 nibble = hn::PromoteTo(
        kU32, hn::BitCast(kU32Halves, load_pairs(kHalfU32, kHalfU32Bytes, in.pairs + i / 2)));
    const V32 sm = bytes32(in.sign_mantissa + i);
    const V32 exponent = hn::And(hn::Sub(all32(top), nibble), all32(0xFF));
    const V32 sign = hn::ShiftLeft<24>(hn::And(sm, all32(0x80)));
    const V32 upper = hn::ShiftLeft<16>(hn::And(sm, all32(0x7F)));
    const V32 lower = hn::Or(hn::ShiftLeft<8>(bytes32(in.middle + i)), bytes32(in.low + i));
    put32(hn::Or(hn::Or(sign, hn::ShiftLeft<23>(exponent)), hn::Or(upper, lower)), out + 4 * i);
    for (std::uint64_t lanes = lanes_of(kU32, hn::Eq(nibble, all32(kEscape))); lanes != 0;
         lanes &= lanes - 1)
      put_escape<std::uint32_t>(in, escaped++, i + first_of(lanes), out);
  }
  return join_from<std::uint32_t>(i, escaped, in, n, top, out);
}

static void split_bytes2(const B* in, std::size_t n, B* const* planes) noexcept {
  std::size_t i = 0;
  for (; i + kLanes16 <= n; i += kLanes16) {
    const V16 v = load16(in + 2 * i);
    put_bytes(hn::And(v, all16(0xFF)), planes[0] + i);
    put_bytes(hn::ShiftRight<8>(v), planes[1] + i);
  }
  split_bytes_from<std::uint16_t>(i, in, n, planes);
}
static void split_bytes4(const B* in, std::size_t n, B* const* planes) noexcept {
  std::size_t i = 0;
  for (; i + kLanes32 <= n; i += kLanes32) {
    const V32 v = load32(in + 4 * i);
    put_bytes(hn::And(v, all32(0xFF)), planes[0] + i);
    put_bytes(hn::And(hn::ShiftRight<8>(v), all32(0xFF)), planes[1] + i);
    put_bytes(hn::And(hn::ShiftRight<16>(v), all32(0xFF)), planes[2] + i);
    put_bytes(hn::ShiftRight<24>(v), planes[3] + i);
  }
  split_bytes_from<std::uint32_t>(i, in, n, planes);
}
static void join_bytes2(const B* const* planes, std::size_t n, B* out) noexcept {
  std::size_t i = 0;
  for (; i + kLanes16 <= n; i += kLanes16)
    put16(hn::Or(bytes16(planes[0] + i), hn::ShiftLeft<8>(bytes16(planes[1] + i))), out + 2 * i);
  join_bytes_from<std::uint16_t>(i, planes, n, out);
}
static void join_bytes4(const B* const* planes, std::size_t n, B* out) noexcept {
  std::size_t i = 0;
  for (; i + kLanes32 <= n; i += kLanes32)
    put32(hn::Or(hn::Or(bytes32(planes[0] + i), hn::ShiftLeft<8>(bytes32(planes[1] + i))),
                 hn::Or(hn::ShiftLeft<16>(bytes32(planes[2] + i)),
                        hn::ShiftLeft<24>(bytes32(planes[3] + i)))),
          out + 4 * i);
  join_bytes_from<std::uint32_t>(i, planes, n, out);
}

constexpr PlaneKernels kPlanes{&split_bf16,   &split_f32,    &join_bf16,   &join_f32,
                               &split_bytes2, &split_bytes4, &join_bytes2, &join_bytes4};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {

constexpr PlaneKernels kScalar{
    [](const B* in, std::size_t n, unsigned top, const Planes& out) noexcept {
      return split_from<std::uint16_t>(0, 0, in, n, top, out);
    },
    [](const B* in, std::size_t n, unsigned top, const Planes& out) noexcept {
      return split_from<std::uint32_t>(0, 0, in, n, top, out);
    },
    [](const ConstPlanes& in, std::size_t n, unsigned top, B* out) noexcept {
      return join_from<std::uint16_t>(0, 0, in, n, top, out);
    },
    [](const ConstPlanes& in, std::size_t n, unsigned top, B* out) noexcept {
      return join_from<std::uint32_t>(0, 0, in, n, top, out);
    },
    [](const B* in, std::size_t n, B* const* planes) noexcept {
      split_bytes_from<std::uint16_t>(0, in, n, planes);
    },
    [](const B* in, std::size_t n, B* const* planes) noexcept {
      split_bytes_from<std::uint32_t>(0, in, n, planes);
    },
    [](const B* const* planes, std::size_t n, B* out) noexcept {
      join_bytes_from<std::uint16_t>(0, planes, n, out);
    },
    [](const B* const* planes, std::size_t n, B* out) noexcept {
      join_bytes_from<std::uint32_t>(0, planes, n, out);
    }};

const PlaneKernels& chosen() noexcept {
  return WTOOL_CHOOSE(kScalar, kPlanes);
}

// Copies of a length that the compiler knows are a few instructions.
template <std::size_t kLength>
void copy_strided(const B* in, std::size_t in_stride, B* out, std::size_t out_stride,
                  std::size_t blocks) noexcept {
  for (std::size_t i = 0; i < blocks; ++i)
    std::memcpy(out + i * out_stride, in + i * in_stride, kLength);
}
void copy_strided(const B* in, std::size_t in_stride, B* out, std::size_t out_stride,
                  std::size_t blocks, std::size_t length) noexcept {
  switch (length) {
    case 1: return copy_strided<1>(in, in_stride, out, out_stride, blocks);
    case 2: return copy_strided<2>(in, in_stride, out, out_stride, blocks);
    case 4: return copy_strided<4>(in, in_stride, out, out_stride, blocks);
    case 12: return copy_strided<12>(in, in_stride, out, out_stride, blocks);
    case 16: return copy_strided<16>(in, in_stride, out, out_stride, blocks);
    case 32: return copy_strided<32>(in, in_stride, out, out_stride, blocks);
    case 64: return copy_strided<64>(in, in_stride, out, out_stride, blocks);
    case 128: return copy_strided<128>(in, in_stride, out, out_stride, blocks);
    default:
      for (std::size_t i = 0; i < blocks; ++i)
        std::memcpy(out + i * out_stride, in + i * in_stride, length);
  }
}

}  // namespace

std::size_t split_bf16(const std::byte* in, std::size_t n, std::uint8_t top, std::byte* pairs,
                       std::byte* sign_mantissa, std::byte* escapes) noexcept {
  return chosen().split_bf16(in, n, top, {pairs, sign_mantissa, nullptr, nullptr, escapes});
}
std::size_t split_f32(const std::byte* in, std::size_t n, std::uint8_t top, std::byte* pairs,
                      std::byte* sign_mantissa, std::byte* middle, std::byte* low,
                      std::byte* escapes) noexcept {
  return chosen().split_f32(in, n, top, {pairs, sign_mantissa, middle, low, escapes});
}
std::size_t join_bf16(const std::byte* pairs, const std::byte* sign_mantissa,
                      const std::byte* escapes, std::size_t count, std::size_t n, std::uint8_t top,
                      std::byte* out) noexcept {
  return chosen().join_bf16({pairs, sign_mantissa, nullptr, nullptr, escapes, count}, n, top, out);
}
std::size_t join_f32(const std::byte* pairs, const std::byte* sign_mantissa,
                     const std::byte* middle, const std::byte* low, const std::byte* escapes,
                     std::size_t count, std::size_t n, std::uint8_t top, std::byte* out) noexcept {
  return chosen().join_f32({pairs, sign_mantissa, middle, low, escapes, count}, n, top, out);
}

void count_exponents(const std::byte* in, std::size_t n, std::size_t width, std::size_t step,
                     std::uint32_t (&counters)[256]) noexcept {
  for (std::size_t i = 0; i < n; i += step) {
    const auto upper = load_at<std::uint16_t>(in + i * width + (width - 2), 0);
    ++counters[(upper >> 7) & 0xFFu];
  }
}

void gather_column(const std::byte* in, std::size_t blocks, std::size_t block, std::size_t offset,
                   std::size_t length, std::byte* out, std::size_t out_stride) noexcept {
  copy_strided(in + offset, block, out, out_stride, blocks, length);
}
void scatter_column(const std::byte* in, std::size_t in_stride, std::size_t blocks,
                    std::size_t block, std::size_t offset, std::size_t length,
                    std::byte* out) noexcept {
  copy_strided(in, in_stride, out + offset, block, blocks, length);
}
void split_bytes2(const std::byte* in, std::size_t n, std::byte* const* planes) noexcept {
  chosen().split_bytes2(in, n, planes);
}
void split_bytes4(const std::byte* in, std::size_t n, std::byte* const* planes) noexcept {
  chosen().split_bytes4(in, n, planes);
}
void join_bytes2(const std::byte* const* planes, std::size_t n, std::byte* out) noexcept {
  chosen().join_bytes2(planes, n, out);
}
void join_bytes4(const std::byte* const* planes, std::size_t n, std::byte* out) noexcept {
  chosen().join_bytes4(planes, n, out);
}
// A string that equals itself moved by one is of one byte; memcmp is as fast as memory.
bool all_equal(const std::byte* in, std::size_t n) noexcept {
  return std::memcmp(in, in + 1, n - 1) == 0;
}

}  // namespace wtool
#endif  // HWY_ONCE
