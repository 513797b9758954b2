// ggml's block types to f32, but for those of codebooks (ggml_decode_grids.cc) and the oldest
// (blocks.cc). ggml-quants.c gives the arithmetic, ggml-common.h the layouts; ggml_decode_scalar.cc
// says both plainly. Here a block's codes are first unpacked to signed bytes.
#include <cstddef>
#include <utility>

#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/ggml_decode.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/ggml_codebooks.h"
#include "lib/numeric/kernels/ggml_decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

HWY_INLINE VB bytes(unsigned value) {
  return hn::Set(kB, static_cast<std::uint8_t>(value));
}
// To the right by kBy, or to the left by -kBy, and only the bits of the mask.
template <int kBy, class V>
HWY_INLINE V bits(V v, V mask) {
  if constexpr (kBy > 0) return hn::And(hn::ShiftRight<kBy>(v), mask);
  if constexpr (kBy < 0) return hn::And(hn::ShiftLeft<-kBy>(v), mask);
  return hn::And(v, mask);
}
HWY_INLINE VB load_bytes(const std::uint8_t* p) {
  return hn::LoadU(kB, p);
}

// Each type: what a block is, and `decode` for one.
template <std::size_t kElementsOf, std::size_t kBytesOf>
struct Block {
  static constexpr std::size_t kElements = kElementsOf, kBytes = kBytesOf;
};

// Two bits a code: four runs of 32 codes share 32 bytes.
template <class Put>
HWY_INLINE void two_bits(const std::uint8_t* in, std::uint8_t* codes, const Put& put) {
#pragma GCC unroll 2
  for (std::size_t l = 0; l < 32; l += kByteLanes) {
    const VB v = load_bytes(in + l);
    for_each<4>([&](auto run) {
      hn::Store(put(bits<2 * run()>(v, bytes(3))), kB, codes + 32 * run() + l);
    });
  }
}

struct Q2_K : Block<256, 84> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) std::uint8_t codes[256], low[16], high[16];
    alignas(64) float scale[16], minimum[16];
    const VB16 both = hn::LoadU(kB16, in);
    hn::Store(hn::And(both, hn::Set(kB16, 15)), kB16, low);
    hn::Store(hn::ShiftRight<4>(both), kB16, high);
    scales<16>(half_at(in + 80), low, scale);
    scales<16>(half_at(in + 82), high, minimum);
    for (std::size_t h = 0; h < 2; ++h)
      two_bits(in + 16 + 32 * h, codes + 128 * h, [](VB v) { return v; });
    spread<256, 16>(codes, scale, minimum, out);
  }
};

struct Q3_K : Block<256, 110> {
  // Words 0 to 2 are the 12 bytes of scales.
  static HWY_INLINE void unpack_scales(const std::uint8_t* in, std::int8_t* out) {
    const hn::Repartition<std::uint32_t, B16> u32;
    const hn::Repartition<std::uint64_t, B16> u64;
    const auto words = hn::BitCast(u32, hn::ShiftRightBytes<2>(kB16, hn::LoadU(kB16, in + 94)));
    const auto low = hn::InterleaveLower(u64, hn::BitCast(u64, words),
                                         hn::BitCast(u64, hn::ShiftRight<4>(words)));
    const auto pair = hn::InterleaveUpper(u32, words, hn::ShiftRight<2>(words));
    const auto high =
        hn::InterleaveLower(u64, hn::BitCast(u64, pair), hn::BitCast(u64, hn::ShiftRight<4>(pair)));
    const VB16 code = hn::Or(bits<0>(hn::BitCast(kB16, low), hn::Set(kB16, 15)),
                             hn::ShiftLeft<4>(bits<0>(hn::BitCast(kB16, high), hn::Set(kB16, 3))));
    const hn::RebindToSigned<B16> i8;
    hn::Store(hn::BitCast(i8, hn::Sub(code, hn::Set(kB16, 32))), i8, out);
  }
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) std::uint8_t codes[256];
    alignas(64) std::int8_t code[16];
    alignas(64) float scale[16];
    unpack_scales(in, code);
    scales<16>(half_at(in + 108), code, scale);
#pragma GCC unroll 2
    for (std::size_t l = 0; l < 32; l += kByteLanes) {
      const VB masks = load_bytes(in + l);
      const VB low[2] = {load_bytes(in + 32 + l), load_bytes(in + 64 + l)};
      for_each<8>([&](auto run) {
        const VB q = hn::Or(bits<2 * (run() % 4)>(low[run() / 4], bytes(3)),
                            bits<run() - 2>(masks, bytes(4)));
        hn::Store(hn::Sub(q, bytes(4)), kB, codes + 32 * run() + l);
      });
    }
    spread<256, 16>(codes, scale, out);
  }
};

// The scales and minima of q4_k and q5_k: eight of six bits each in 12 bytes.
HWY_NOINLINE void k_scales(const std::uint8_t* in, float* scale, float* minimum) {
  const auto a = load<std::uint32_t>(in + 4), b = load<std::uint32_t>(in + 8),
             c = load<std::uint32_t>(in + 12);
  const std::uint32_t a_high = (c & 0x0F0F0F0F) | (a >> 2 & 0x30303030),
                      b_high = (c >> 4 & 0x0F0F0F0F) | (b >> 2 & 0x30303030);
  const std::uint64_t words[2] = {(a & 0x3F3F3F3F) | std::uint64_t{a_high} << 32,
                                  (b & 0x3F3F3F3F) | std::uint64_t{b_high} << 32};
  std::uint8_t codes[16];
  std::memcpy(codes, words, 16);
  scales<8>(half_at(in), codes, scale);
  scales<8>(half_at(in + 2), codes + 8, minimum);
}
struct Q4_K : Block<256, 144> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) float scale[8], minimum[8];
    k_scales(in, scale, minimum);
    if constexpr (kLanes == 16)
      look_up(in + 16, scale, minimum, out);
    else
      compute(in + 16, scale, minimum, out);
  }
  // The sixteen values that a group can have are one vector.
  static HWY_INLINE void look_up(const std::uint8_t* in, const float* scale, const float* minimum,
                                 float* out) {
    const VF code = hn::Iota(kF, 0);
#pragma GCC unroll 4
    for (std::size_t g = 0; g < 8; g += 2, in += 32, out += 64) {
      const VF low = hn::Sub(hn::Mul(code, hn::Set(kF, scale[g])), hn::Set(kF, minimum[g])),
               high =
                   hn::Sub(hn::Mul(code, hn::Set(kF, scale[g + 1])), hn::Set(kF, minimum[g + 1]));
      for (std::size_t l = 0; l < 32; l += 16) {
        const auto both = hn::PromoteTo(kU, hn::LoadU(kU8, in + l));
        const auto at = hn::IndicesFromVec(kF, hn::And(both, hn::Set(kU, 15)));
        const auto at_high = hn::IndicesFromVec(kF, hn::ShiftRight<4>(both));
        hn::StoreU(hn::TableLookupLanes(low, at), kF, out + l);
        hn::StoreU(hn::TableLookupLanes(high, at_high), kF, out + 32 + l);
      }
    }
  }
  static HWY_INLINE void compute(const std::uint8_t* in, const float* scale, const float* minimum,
                                 float* out) {
    alignas(64) std::uint8_t codes[256];
    for (std::size_t l = 0; l < 128; l += kByteLanes) {
      const VB v = load_bytes(in + l);
      std::uint8_t* to = codes + l / 32 * 64 + l % 32;
      hn::Store(bits<0>(v, bytes(15)), kB, to);
      hn::Store(hn::ShiftRight<4>(v), kB, to + 32);
    }
    spread<256, 32>(codes, scale, minimum, out);
  }
};
struct Q5_K : Block<256, 176> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) std::uint8_t codes[256];
    alignas(64) float scale[8], minimum[8];
    k_scales(in, scale, minimum);
#pragma GCC unroll 2
    for (std::size_t l = 0; l < 32; l += kByteLanes) {
      const VB fifth = load_bytes(in + 16 + l);
      for_each<4>([&](auto c) {
        const VB v = load_bytes(in + 48 + 32 * c() + l);
        const VB low = hn::Or(bits<0>(v, bytes(15)), bits<2 * c() - 4>(fifth, bytes(16)));
        const VB high = hn::Or(hn::ShiftRight<4>(v), bits<2 * c() - 3>(fifth, bytes(16)));
        hn::Store(low, kB, codes + 64 * c() + l);
        hn::Store(high, kB, codes + 64 * c() + 32 + l);
      });
    }
    spread<256, 32>(codes, scale, minimum, out);
  }
};
struct Q6_K : Block<256, 210> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) std::uint8_t codes[256];
    alignas(64) float scale[16];
    scales<16>(half_at(in + 208), reinterpret_cast<const std::int8_t*>(in + 192), scale);
    for (std::size_t h = 0; h < 2; ++h) {
#pragma GCC unroll 2
      for (std::size_t l = 0; l < 32; l += kByteLanes) {
        const VB high = load_bytes(in + 128 + 32 * h + l);
        for_each<4>([&](auto run) {
          const VB v = load_bytes(in + 64 * h + 32 * (run() % 2) + l);
          const VB q =
              hn::Or(bits<run() / 2 * 4>(v, bytes(15)), bits<2 * run() - 4>(high, bytes(0x30)));
          hn::Store(hn::Sub(q, bytes(32)), kB, codes + 128 * h + 32 * run() + l);
        });
      }
    }
    spread<256, 16>(codes, scale, out);
  }
};
struct Q8_1 : Block<32, 36> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    const float d = half_at(in);
    spread<32, 32>(in + 4, &d, out);
  }
};
struct Q8_K : Block<256, 292> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    const float d = load<float>(in);
    spread<256, 256>(in + 4, &d, out);
  }
};

// Sixteen bytes of two codes each, which stand for values.
HWY_INLINE void nibbles(const std::array<std::int8_t, 16>& values, const std::uint8_t* in, float d,
                        float* out) {
  const VB16 table = hn::LoadU(kB16, reinterpret_cast<const std::uint8_t*>(values.data()));
  const VB16 v = hn::LoadU(kB16, in);
  const VF scale = hn::Set(kF, d);
  scale_16(hn::TableLookupBytes(table, hn::And(v, hn::Set(kB16, 15))), scale, out);
  scale_16(hn::TableLookupBytes(table, hn::ShiftRight<4>(v)), scale, out + 16);
}
struct Iq4Nl : Block<32, 18> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    nibbles(kIq4Values, in + 2, half_at(in), out);
  }
};
struct Iq4Xs : Block<256, 136> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) float scale[8];
    std::int8_t codes[8];
    const std::uint32_t high = load<std::uint16_t>(in + 2), low = load<std::uint32_t>(in + 4);
    for (unsigned g = 0; g < 8; ++g)
      codes[g] = static_cast<std::int8_t>(
          static_cast<int>((low >> 4 * g & 15) | (high >> 2 * g & 3) << 4) - 32);
    scales<8>(half_at(in), codes, scale);
#pragma GCC unroll 8
    for (std::size_t g = 0; g < 8; ++g)
      nibbles(kIq4Values, in + 8 + 16 * g, scale[g], out + 32 * g);
  }
};
struct Mxfp4 : Block<32, 17> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    nibbles(kFp4Values, in + 1, half_e8m0(in[0]), out);
  }
};
struct Nvfp4 : Block<64, 36> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    const hn::Repartition<std::uint64_t, B16> u64;
    const VB16 table = hn::LoadU(kB16, reinterpret_cast<const std::uint8_t*>(kFp4Values.data()));
#pragma GCC unroll 2
    for (std::size_t g = 0; g < 4; g += 2) {
      const VB16 v = hn::LoadU(kB16, in + 4 + 8 * g);
      const auto low = hn::BitCast(u64, hn::TableLookupBytes(table, hn::And(v, hn::Set(kB16, 15))));
      const auto high = hn::BitCast(u64, hn::TableLookupBytes(table, hn::ShiftRight<4>(v)));
      scale_16(hn::BitCast(kB16, hn::InterleaveLower(u64, low, high)),
               hn::Set(kF, half_ue4m3(in[g])), out + 16 * g);
      scale_16(hn::BitCast(kB16, hn::InterleaveUpper(u64, low, high)),
               hn::Set(kF, half_ue4m3(in[g + 1])), out + 16 * g + 16);
    }
  }
};

// A bit an element: the sign is flipped where it is 0.
struct Q1_0 : Block<128, 18> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    const VF d = hn::Set(kF, half_at(in)), minus = hn::Neg(d);
    const hn::Vec<U> bit = hn::Shl(hn::Set(kU, 1u), hn::Iota(kU, 0));
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 128; i += 32) {
      const auto word = load<std::uint32_t>(in + 2 + i / 8);
#pragma GCC unroll 8
      for (std::size_t j = 0; j < 32; j += kLanes) {
        const auto set = hn::RebindMask(kF, hn::TestBit(hn::Set(kU, word >> j), bit));
        hn::StoreU(hn::IfThenElse(set, d, minus), kF, out + i + j);
      }
    }
  }
};
struct Q2_0 : Block<64, 18> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    const VF d = hn::Set(kF, half_at(in));
    const hn::Repartition<std::uint16_t, B16> u16;
    const VB16 v = hn::LoadU(kB16, in + 2), mask = hn::Set(kB16, 3), one = hn::Set(kB16, 1);
    const auto code = [&](auto shift) { return hn::Sub(bits<2 * shift()>(v, mask), one); };
    const VB16 a = code(std::integral_constant<int, 0>{}),
               b = code(std::integral_constant<int, 1>{}),
               c = code(std::integral_constant<int, 2>{}),
               e = code(std::integral_constant<int, 3>{});
    const auto ab = hn::BitCast(u16, hn::InterleaveLower(a, b)),
               ce = hn::BitCast(u16, hn::InterleaveLower(c, e)),
               ab_up = hn::BitCast(u16, hn::InterleaveUpper(kB16, a, b)),
               ce_up = hn::BitCast(u16, hn::InterleaveUpper(kB16, c, e));
    scale_16(hn::BitCast(kB16, hn::InterleaveLower(ab, ce)), d, out);
    scale_16(hn::BitCast(kB16, hn::InterleaveUpper(u16, ab, ce)), d, out + 16);
    scale_16(hn::BitCast(kB16, hn::InterleaveLower(ab_up, ce_up)), d, out + 32);
    scale_16(hn::BitCast(kB16, hn::InterleaveUpper(u16, ab_up, ce_up)), d, out + 48);
  }
};

struct Tq1_0 : Block<256, 54> {
  // The next digit of each fraction f is 2, 1 or 0: is 3 f >= 512, >= 256, or less?
  template <class D>
  static HWY_INLINE hn::Vec<D> digit(D d, hn::Vec<D> fraction) {
    const hn::RebindToSigned<D> i;
    const auto f = hn::BitCast(i, hn::Xor(fraction, hn::Set(d, 128)));
    const auto one = hn::VecFromMask(i, hn::Gt(f, hn::Set(i, 85 - 128)));
    const auto two = hn::VecFromMask(i, hn::Gt(f, hn::Set(i, 170 - 128)));
    return hn::BitCast(d, hn::Sub(hn::Sub(hn::Set(i, -1), one), two));
  }
  template <std::size_t kRun, std::size_t kDigits>
  static HWY_INLINE void run(const std::uint8_t* in, std::uint8_t* codes) {
    const hn::CappedTag<std::uint8_t, kRun> d;
#pragma GCC unroll 2
    for (std::size_t l = 0; l < kRun; l += hn::MaxLanes(d)) {
      auto fraction = hn::LoadU(d, in + l);
#pragma GCC unroll 5
      for (std::size_t k = 0; k < kDigits; ++k) {
        hn::StoreU(digit(d, fraction), d, codes + kRun * k + l);
        fraction = hn::Add(fraction, hn::Add(fraction, fraction));
      }
    }
  }
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) std::uint8_t codes[256];
    const float d = half_at(in + 52);
    run<32, 5>(in, codes);
    run<16, 5>(in + 32, codes + 160);
    run<4, 4>(in + 48, codes + 240);
    spread<256, 256>(codes, &d, out);
  }
};
struct Tq2_0 : Block<256, 66> {
  static HWY_INLINE void decode(const std::uint8_t* in, float* out) {
    alignas(64) std::uint8_t codes[256];
    const float d = half_at(in + 64);
    for (std::size_t h = 0; h < 2; ++h)
      two_bits(in + 32 * h, codes + 128 * h, [](VB v) { return hn::Sub(v, bytes(1)); });
    spread<256, 256>(codes, &d, out);
  }
};

template <class Type>
void each(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; i += Type::kElements, in += Type::kBytes)
    Type::decode(reinterpret_cast<const std::uint8_t*>(in), out + i);
}

}  // namespace

constexpr GgmlDecoders kGgmlDecoders{each<Q1_0>,  each<Q2_0>,  each<Q2_K>,  each<Q3_K>,
                                     each<Q4_K>,  each<Q5_K>,  each<Q6_K>,  each<Q8_1>,
                                     each<Q8_K>,  each<Iq4Nl>, each<Iq4Xs>, each<Mxfp4>,
                                     each<Nvfp4>, each<Tq1_0>, each<Tq2_0>};

}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {
const GgmlDecoders& kernels() noexcept {
  return WTOOL_CHOOSE(scalar::kGgmlDecoders, kGgmlDecoders);
}
}  // namespace

void q1_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q1_0(in, out, n);
}
void q2_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q2_0(in, out, n);
}
void q2_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q2_k(in, out, n);
}
void q3_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q3_k(in, out, n);
}
void q4_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q4_k(in, out, n);
}
void q5_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q5_k(in, out, n);
}
void q6_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q6_k(in, out, n);
}
void q8_1_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q8_1(in, out, n);
}
void q8_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().q8_k(in, out, n);
}
void iq4_nl_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().iq4_nl(in, out, n);
}
void iq4_xs_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().iq4_xs(in, out, n);
}
void mxfp4_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().mxfp4(in, out, n);
}
void nvfp4_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().nvfp4(in, out, n);
}
void tq1_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().tq1_0(in, out, n);
}
void tq2_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept {
  kernels().tq2_0(in, out, n);
}

}  // namespace wtool
#endif
