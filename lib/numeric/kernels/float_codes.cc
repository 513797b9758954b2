// A float of 2^e ≤ |v| < 2^(e+1) has steps of 2^(e-m) with m bits of mantissa, and of the smallest
// exponent's below that: adding 1.5 × 2^(e-m+23) makes them the last bit, so that the addition
// rounds. What is left then has its code in its upper bits, minus a bias, or is a small multiple of
// the smallest step.
#include "lib/numeric/kernels/float_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "lib/numeric/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/numeric/kernels/float_codes.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "lib/numeric/kernels/vectors-inl.h"

#ifndef WTOOL_FLOAT_CODES_TABLE
#define WTOOL_FLOAT_CODES_TABLE
namespace wtool {
namespace {

struct Shape8 {                                        // E4M3
  static constexpr float kLast = 448, kPerStep = 512;  // values below 2^-6 are multiples of 2^-9
  static constexpr int kMantissa = 3, kLowest = 121, kSign = 0x80;
};
struct Shape4 {  // E2M1
  static constexpr float kLast = 6, kPerStep = 2;
  static constexpr int kMantissa = 1, kLowest = 127, kSign = 8;
};
// The exponent field of a code is a float's less this.
template <class S>
constexpr int kBias = S::kLowest - 1;

struct FloatCodeKernels {
  void (*e4m3)(const float* in, std::size_t n, float scale, std::uint8_t* codes,
               float* decoded) noexcept;
  void (*e2m1)(const float* in, std::size_t n, float scale, std::uint8_t* codes,
               float* decoded) noexcept;
};

template <class S>
void codes_scalar(const float* in, std::size_t n, float scale, std::uint8_t* codes,
                  float* decoded) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const float quotient = in[i] / scale;
    const float v = std::min(std::abs(quotient), S::kLast);
    const std::uint32_t exponent =
        std::max(std::bit_cast<std::uint32_t>(v) & 0x7F800000u, std::uint32_t{S::kLowest} << 23);
    const float place = std::bit_cast<float>(exponent + ((23u - S::kMantissa) << 23 | 0x400000u));
    const float level = (v + place) - place;
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(level);
    const std::uint32_t code =
        level * S::kPerStep < (1 << S::kMantissa)
            ? static_cast<std::uint32_t>(level * S::kPerStep)
            : (bits >> (23 - S::kMantissa)) - (std::uint32_t{kBias<S>} << S::kMantissa);
    const bool negative = std::signbit(quotient);
    codes[i] = static_cast<std::uint8_t>(code | (negative ? S::kSign : 0));
    decoded[i] = (negative ? -level : level) * scale;
  }
}

}  // namespace
}  // namespace wtool
#endif  // WTOOL_FLOAT_CODES_TABLE

HWY_BEFORE_NAMESPACE();
namespace wtool {
namespace HWY_NAMESPACE {
namespace {

template <class S>
HWY_INLINE void one_vector(VF in, VF scale, std::uint8_t* codes, float* decoded) {
  const VF quotient = hn::Div(in, scale);
  const VF v = hn::Min(hn::Abs(quotient), all(S::kLast));
  const VI exponent = hn::Max(hn::And(hn::BitCast(kI, v), all(0x7F800000)), all(S::kLowest << 23));
  const VF place = hn::BitCast(kF, hn::Add(exponent, all((23 - S::kMantissa) << 23 | 0x400000)));
  const VF level = hn::Sub(hn::Add(v, place), place);
  const VF steps = hn::Mul(level, all(S::kPerStep));
  const VI high = hn::Sub(hn::ShiftRight<23 - S::kMantissa>(hn::BitCast(kI, level)),
                          all(kBias<S> << S::kMantissa));
  const auto small = hn::Lt(steps, all(static_cast<float>(1 << S::kMantissa)));
  const VI code =
      hn::IfThenElse(hn::RebindMask(kI, small), hn::ConvertTo(kI, hn::Min(steps, all(8.0f))), high);
  const VI sign = hn::ShiftRight<31>(hn::BitCast(kI, quotient));  // all ones if it is negative
  hn::StoreU(hn::DemoteTo(kU8, hn::Or(code, hn::And(sign, all(S::kSign)))), kU8, codes);
  hn::StoreU(hn::Mul(hn::CopySign(level, quotient), scale), kF, decoded);
}

template <class S>
void codes(const float* in, std::size_t n, float scale, std::uint8_t* codes,
           float* decoded) noexcept {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    one_vector<S>(hn::LoadU(kF, in + i), all(scale), codes + i, decoded + i);
  codes_scalar<S>(in + i, n - i, scale, codes + i, decoded + i);
}

constexpr FloatCodeKernels kFloatCodes{&codes<Shape8>, &codes<Shape4>};

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace wtool
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace wtool {
namespace {

constexpr FloatCodeKernels kScalar{&codes_scalar<Shape8>, &codes_scalar<Shape4>};

void run(const FloatCodeKernels& kernels, SmallFloat type, const float* in, std::size_t n,
         float scale, std::uint8_t* codes, float* decoded) noexcept {
  (type == SmallFloat::E4m3 ? kernels.e4m3 : kernels.e2m1)(in, n, scale, codes, decoded);
}

}  // namespace

void f32_to_codes(SmallFloat type, const float* in, std::size_t n, float scale, std::uint8_t* codes,
                  float* decoded) noexcept {
  run(WTOOL_CHOOSE(kScalar, kFloatCodes), type, in, n, scale, codes, decoded);
}
void f32_to_codes_scalar(SmallFloat type, const float* in, std::size_t n, float scale,
                         std::uint8_t* codes, float* decoded) noexcept {
  run(kScalar, type, in, n, scale, codes, decoded);
}

}  // namespace wtool
#endif  // HWY_ONCE
