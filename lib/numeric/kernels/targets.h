// Included by a kernel file before hwy/foreach_target.h (in a block of includes of its own: they
// are sorted): which of Highway's targets there are, and how the file chooses among them. Highway's
// own dispatch needs its library; ours does not, so that nothing links to it.
//
//   #include "lib/numeric/kernels/targets.h"
//
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "lib/numeric/kernels/foo.cc"
//   #include "hwy/foreach_target.h"
//   #include "hwy/highway.h"
//   #ifndef WTOOL_FOO_TABLE  // once for all targets
//   #define WTOOL_FOO_TABLE
//   namespace wtool { namespace { struct Foo { void (*this_one)(…) noexcept; … }; } }
//   #endif
//   HWY_BEFORE_NAMESPACE();
//   namespace wtool {
//   namespace HWY_NAMESPACE {
//   … the vector code, ending in a table of pointers: constexpr Foo kFoo{&this_one, &that};
//   }
//   }
//   HWY_AFTER_NAMESPACE();
//   #if HWY_ONCE
//   … the scalar code and its table kScalar, and: (WTOOL_CHOOSE(kScalar, kFoo)).that(x);
//   #endif
//
// The static target comes last. Vectors have a size known to the compiler: no SVE, no RISC-V.
#ifndef WTOOL_KERNELS_TARGETS_H
#define WTOOL_KERNELS_TARGETS_H

#ifdef HWY_TARGETS
#error "targets.h comes too late: Highway has made its choice"
#endif

#include "lib/numeric/kernels/simd.h"

// Its assertions would pull in Abort() from the library.
#undef HWY_IS_DEBUG_BUILD
#define HWY_IS_DEBUG_BUILD 0

#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_SSE4
#if defined(WTOOL_FEWER_TARGETS)  // for sanitizers: less to compile
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3 | HWY_AVX3_DL)
#define WTOOL_WIDEST N_AVX2
#else
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#define WTOOL_WIDEST N_AVX3
#endif
// The table of simd_level()'s target. `kernels` has static storage in each target's namespace.
#define WTOOL_CHOOSE(scalar, kernels)                                                  \
  (::wtool::simd_level() == ::wtool::Simd::Avx512     ? ::wtool::WTOOL_WIDEST::kernels \
   : ::wtool::simd_level() == ::wtool::Simd::Avx2     ? ::wtool::N_AVX2::kernels       \
   : ::wtool::simd_level() == ::wtool::Simd::Baseline ? ::wtool::N_SSE4::kernels       \
                                                      : (scalar))
#else
#define HWY_COMPILE_ONLY_STATIC
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#define WTOOL_CHOOSE(scalar, kernels)                        \
  (::wtool::simd_level() == ::wtool::Simd::Scalar ? (scalar) \
                                                  : ::wtool::HWY_STATIC_DISPATCH(kernels))
#endif

#endif  // WTOOL_KERNELS_TARGETS_H
