#include "lib/numeric/kernels/simd.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace wtool {
namespace {

#if defined(__x86_64__)
// Clang 16 has no name for it. That the system keeps the registers, avx2 has shown.
bool has_f16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

// Everything that the pragmas of Highway's SSE4, AVX2 and AVX3 targets let the compiler use.
Simd detect() noexcept {
  __builtin_cpu_init();
  const auto sse4 = [] {
    return __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1") &&
           __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") &&
           __builtin_cpu_supports("aes");
  };
  const auto avx2 = [] {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && has_f16c();
  };
  const auto avx512 = [] {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  };
  if (!sse4()) return Simd::Scalar;
  if (!avx2()) return Simd::Baseline;
  return avx512() ? Simd::Avx512 : Simd::Avx2;
}
#else
Simd detect() noexcept {
  return Simd::Baseline;
}
#endif

Simd wished(Simd most) noexcept {
  const char* value = std::getenv("WTOOL_SIMD");
  if (value == nullptr) return most;
  for (const Simd level : {Simd::Scalar, Simd::Baseline, Simd::Avx2, Simd::Avx512})
    if (value == name_of(level)) return std::min(level, most);
  return most;
}

std::atomic<Simd>& current() noexcept {
  static std::atomic<Simd> level{wished(simd_hardware())};
  return level;
}

}  // namespace

Simd simd_hardware() noexcept {
  static const Simd level = detect();
  return level;
}
Simd simd_level() noexcept {
  return current().load(std::memory_order_relaxed);
}
std::string_view simd_name() noexcept {
  return name_of(simd_level());
}

std::string_view name_of(Simd level) noexcept {
  switch (level) {
#if defined(__x86_64__)
    case Simd::Baseline: return "sse4";
#else
    case Simd::Baseline: return "baseline";
#endif
    case Simd::Avx2: return "avx2";
    case Simd::Avx512: return "avx512";
    case Simd::Scalar: break;
  }
  return "scalar";
}

void set_simd_for_test(Simd level) noexcept {
  current().store(std::min(level, simd_hardware()), std::memory_order_relaxed);
}

}  // namespace wtool
