#pragma once
#include <cstdint>
#include <string_view>

namespace wtool {

// The instruction sets that kernels are compiled for, in rising order. All of them give the bytes
// of Scalar, the reference in plain C++ beside each kernel.
enum class Simd : std::uint8_t {
  Scalar,
  Baseline,  // SSE4 on x86-64; elsewhere what Highway finds in the compiler's target (NEON)
  Avx2,      // with FMA, BMI and F16C, as Highway's target of this name assumes
  Avx512,    // F, VL, DQ, BW
};

// What kernels use now: the best this processor has, or less when the environment variable
// WTOOL_SIMD asks for it (scalar, sse4, avx2, avx512). Cheap.
Simd simd_level() noexcept;
Simd simd_hardware() noexcept;          // the best there is, whatever the environment says
std::string_view simd_name() noexcept;  // of simd_level(): "avx512"
std::string_view name_of(Simd level) noexcept;

// Tests and benchmarks walk through the levels. Never above simd_hardware().
void set_simd_for_test(Simd level) noexcept;

}  // namespace wtool
