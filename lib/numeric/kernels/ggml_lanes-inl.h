// For the kernels that quantise one block in each lane of a vector: every block's sums then run in
// the reference's own order, whatever the vector's width. Included by a kernel file inside
// Highway's targets, once for each (no #pragma once).
//
// A batch is kLanes blocks (fewer at the end: the rest repeats the first), its elements transposed:
// element e of all blocks is the vector at x + e * kLanes.
#if defined(WTOOL_GGML_LANES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef WTOOL_GGML_LANES_INL_H
#undef WTOOL_GGML_LANES_INL_H
#else
#define WTOOL_GGML_LANES_INL_H
#endif

#include <algorithm>
#include <cstring>

#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

HWY_INLINE VF at(const float* x, std::size_t e) {
  return hn::Load(kF, x + e * kLanes);
}
HWY_INLINE VI at(const int* x, std::size_t e) {
  return hn::Load(kI, x + e * kLanes);
}
HWY_INLINE void put(VF v, float* x, std::size_t e) {
  hn::Store(v, kF, x + e * kLanes);
}
HWY_INLINE void put(VI v, int* x, std::size_t e) {
  hn::Store(v, kI, x + e * kLanes);
}
HWY_INLINE VF pick(MF mask, VF yes, VF no) {
  return hn::IfThenElse(mask, yes, no);
}

// ggml's nearest_int: adding 1.5 x 2^23 leaves the integer in the low bits of the float. Beyond
// 4194303 the bits are what they are; infinity gives -4194304 and NaN 0.
constexpr float kMagic = 12582912.0f, kTame = 4194303.0f;
HWY_INLINE VI nearest(VF v) {
  const VI bits = hn::BitCast(kI, hn::Add(v, all(kMagic)));
  return hn::Sub(hn::And(bits, all(0x007FFFFF)), all(0x00400000));
}
HWY_INLINE VI nearest_in(VF v, int lo, int hi) {
  return hn::Min(hn::Max(nearest(v), all(lo)), all(hi));
}
// The same as a float. Tame is fewer instructions, for magnitudes up to kTame; it may give -0.
template <bool kIsTame>
HWY_INLINE VF code(VF v, int lo, int hi) {
  if constexpr (!kIsTame) return hn::ConvertTo(kF, nearest_in(v, lo, hi));
  const VF least = all(static_cast<float>(lo)), most = all(static_cast<float>(hi));
  return hn::Min(hn::Max(hn::Round(v), least), most);
}

// The first of the largest magnitude among n elements, with its sign.
HWY_INLINE VF first_largest(const float* x, std::size_t n) {
  VF most = hn::Zero(kF), value = most;
  for (std::size_t e = 0; e < n; ++e) {
    const VF v = at(x, e), a = hn::Abs(v);
    const MF larger = hn::Gt(a, most);
    most = pick(larger, a, most);
    value = pick(larger, v, value);
  }
  return value;
}
HWY_INLINE VF sum_of_squares(const float* x, std::size_t n) {
  VF sum = hn::Zero(kF);
  for (std::size_t e = 0; e < n; ++e) sum = hn::Add(sum, hn::Mul(at(x, e), at(x, e)));
  return sum;
}
// w = q * sqrt(sigma2 + x * x), q the importance; returns their sum. w may be q.
HWY_INLINE VF importance_weights(const float* x, const float* q, VF sigma2, std::size_t n,
                                 float* w) {
  VF sum = hn::Zero(kF);
  for (std::size_t e = 0; e < n; ++e) {
    const VF root = hn::Sqrt(hn::Add(sigma2, hn::Mul(at(x, e), at(x, e))));
    const VF v = hn::Mul(at(q, e), root);
    put(v, w, e);
    sum = hn::Add(sum, v);
  }
  return sum;
}
// 1/v, or 0 where v is 0.
HWY_INLINE VF inverse(VF v) {
  return hn::IfThenZeroElse(hn::Eq(v, hn::Zero(kF)), hn::Div(all(1.0f), v));
}

// What f16 makes of v: its bits, and the value that a reader finds.
struct Half {
  VF value;
  alignas(64) std::uint16_t bits[kLanes];
};
HWY_INLINE void to_half(VF v, Half& out) {
  alignas(64) float values[kLanes];
  if constexpr (kF16C) {
    const hn::Rebind<hwy::float16_t, F> half;
    const auto h = hn::DemoteTo(half, v);
    hn::Store(h, half, reinterpret_cast<hwy::float16_t*>(out.bits));
    out.value = hn::PromoteTo(kF, h);
  } else {
    hn::Store(v, kF, values);
    for (std::size_t b = 0; b < kLanes; ++b) {
      out.bits[b] = f16_bits(values[b]);
      values[b] = f16_value(out.bits[b]);
    }
    out.value = hn::Load(kF, values);
  }
}

// ---- Batches

// Which blocks a batch holds, and where they go.
struct Batch {
  const BlockRows& rows;
  std::size_t first, blocks;  // at most kLanes
  std::byte* out;             // of the first block
};

// kElements of each block from `base + offset[lane]`, transposed.
template <std::size_t kElements>
HWY_INLINE void transpose(const float* base, const std::size_t* offset, float* x) {
  if constexpr (kLanes == 1) {
    std::copy_n(base + offset[0], kElements, x);
  } else {
    // 4 x 4 at a time: elements e .. e+3 of four blocks become four quarters of vectors.
    using F4 = hn::FixedTag<float, 4>;
    constexpr F4 k4;
    const hn::Repartition<double, F4> k2;
    for (std::size_t lane = 0; lane < kLanes; lane += 4) {
      const float *a = base + offset[lane], *b = base + offset[lane + 1],
                  *c = base + offset[lane + 2], *d = base + offset[lane + 3];
      float* to = x + lane;
      for (std::size_t e = 0; e < kElements; e += 4, to += 4 * kLanes) {
        const auto va = hn::LoadU(k4, a + e), vb = hn::LoadU(k4, b + e), vc = hn::LoadU(k4, c + e),
                   vd = hn::LoadU(k4, d + e);
        const auto ab0 = hn::BitCast(k2, hn::InterleaveLower(k4, va, vb)),
                   ab1 = hn::BitCast(k2, hn::InterleaveUpper(k4, va, vb)),
                   cd0 = hn::BitCast(k2, hn::InterleaveLower(k4, vc, vd)),
                   cd1 = hn::BitCast(k2, hn::InterleaveUpper(k4, vc, vd));
        hn::Store(hn::BitCast(k4, hn::InterleaveLower(k2, ab0, cd0)), k4, to);
        hn::Store(hn::BitCast(k4, hn::InterleaveUpper(k2, ab0, cd0)), k4, to + kLanes);
        hn::Store(hn::BitCast(k4, hn::InterleaveLower(k2, ab1, cd1)), k4, to + 2 * kLanes);
        hn::Store(hn::BitCast(k4, hn::InterleaveUpper(k2, ab1, cd1)), k4, to + 3 * kLanes);
      }
    }
  }
}

template <std::size_t kElements>
HWY_INLINE void load_values(const Batch& batch, float* x) {
  std::size_t offset[kLanes];
  for (std::size_t b = 0; b < kLanes; ++b) offset[b] = b < batch.blocks ? b * kElements : 0;
  const float* values = batch.rows.values + batch.first * kElements;
  transpose<kElements>(values, offset, x);
}
// Asks for one of `parts` parts of the next batch, so that it comes while this one is worked on;
// all at once they would stand in each other's way.
template <std::size_t kElements>
HWY_INLINE void prefetch_next(const Batch& batch, std::size_t part, std::size_t parts) {
  constexpr std::size_t kLine = 64 / sizeof(float);
  const std::size_t begin = (batch.first + batch.blocks) * kElements, all = batch.rows.elements();
  const std::size_t size = kLanes * kElements / parts;
  const std::size_t from = std::min(all, begin + part * size), to = std::min(all, from + size);
  for (std::size_t i = from; i < to; i += kLine) __builtin_prefetch(batch.rows.values + i, 0, 2);
}
// The importance of the same elements.
template <std::size_t kElements>
HWY_INLINE void load_importance(const Batch& batch, float* q) {
  const std::size_t in_row = batch.rows.columns / kElements;
  std::size_t offset[kLanes], block = batch.first % in_row;
  for (std::size_t b = 0; b < kLanes; ++b) {
    offset[b] = b == 0 || b < batch.blocks ? block * kElements : offset[0];
    if (++block == in_row) block = 0;
  }
  transpose<kElements>(batch.rows.importance, offset, q);
}
// mean_square of each block's row.
template <std::size_t kElements>
HWY_INLINE VF load_mean_square(const Batch& batch) {
  const std::size_t in_row = batch.rows.columns / kElements;
  alignas(64) float mean[kLanes];
  for (std::size_t b = 0; b < kLanes; ++b)
    mean[b] = batch.rows.mean_square[(batch.first + (b < batch.blocks ? b : 0)) / in_row];
  return hn::Load(kF, mean);
}

// Stores the same 2 or 4 bytes' place of every block.
template <std::size_t kBlockBytes>
HWY_INLINE void put_half(const Half& half, const Batch& batch, std::size_t offset) {
  for (std::size_t b = 0; b < batch.blocks; ++b)
    std::memcpy(batch.out + b * kBlockBytes + offset, &half.bits[b], 2);
}
template <std::size_t kBlockBytes>
HWY_INLINE void put_word(VI word, const Batch& batch, std::size_t offset) {
  alignas(64) int words[kLanes];
  hn::Store(word, kI, words);
  if (HWY_LIKELY(batch.blocks == kLanes)) {
#pragma GCC unroll 16
    for (std::size_t b = 0; b < kLanes; ++b)
      std::memcpy(batch.out + b * kBlockBytes + offset, &words[b], 4);
  } else {
    for (std::size_t b = 0; b < batch.blocks; ++b)
      std::memcpy(batch.out + b * kBlockBytes + offset, &words[b], 4);
  }
}
// Four bytes, the first lowest. Only the low byte of each may be set.
HWY_INLINE VI word_of(VI a, VI b, VI c, VI d) {
  return hn::Or(hn::Or(a, hn::ShiftLeft<8>(b)), hn::Or(hn::ShiftLeft<16>(c), hn::ShiftLeft<24>(d)));
}

// The codes of a block of 32, at `offset` of each block: fifth bits first if there are any, then
// nibbles, byte j of elements j and j + 16.
template <bool kFifth, std::size_t kBlockBytes>
HWY_INLINE void pack_block_of_32(const int* q, const Batch& batch, std::size_t offset) {
  if constexpr (kFifth) {
    VI bits = hn::Zero(kI);
    for (std::size_t e = 32; e-- > 0;)
      bits = hn::Or(hn::Add(bits, bits), hn::And(hn::ShiftRight<4>(at(q, e)), all(1)));
    put_word<kBlockBytes>(bits, batch, offset);
    offset += 4;
  }
  const auto byte = [&](std::size_t e) {
    return hn::Or(hn::And(at(q, e), all(15)), hn::ShiftLeft<4>(hn::And(at(q, e + 16), all(15))));
  };
  for (std::size_t e = 0; e < 16; e += 4)
    put_word<kBlockBytes>(word_of(byte(e), byte(e + 1), byte(e + 2), byte(e + 3)), batch,
                          offset + e);
}

// Calls encode(batches) for all blocks, kTogether batches at a time. Those beyond the end have no
// blocks of their own: they stand for the last one, and nothing is stored.
template <std::size_t kElements, std::size_t kBlockBytes, std::size_t kTogether, class Encode>
HWY_INLINE void for_batches(const BlockRows& rows, std::byte* out, Encode&& encode) {
  const std::size_t blocks = rows.elements() / kElements;
  for (std::size_t b = 0; b < blocks; b += kTogether * kLanes) {
    const auto batch = [&](std::size_t k) {
      const std::size_t first = b + k * kLanes;
      if (first >= blocks) return Batch{rows, blocks - 1, 0, out};
      const Batch own{rows, first, std::min(kLanes, blocks - first), out + first * kBlockBytes};
      for (std::size_t i = 0; i < own.blocks * kBlockBytes; i += 64)
        __builtin_prefetch(own.out + i, 1);  // stored to at the end
      return own;
    };
    if constexpr (kTogether == 1) {
      const Batch one = batch(0);
      encode(&one);
    } else {
      static_assert(kTogether == 2);
      const Batch two[] = {batch(0), batch(1)};
      encode(two);
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#endif
