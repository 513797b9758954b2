#pragma once
#include <vector>

#include "lib/numeric/kernels/simd.h"

// Walks through what this processor can do.
namespace wtool {

inline std::vector<Simd> levels() {
  std::vector<Simd> out;
  for (const Simd level : {Simd::Scalar, Simd::Baseline, Simd::Avx2, Simd::Avx512})
    if (level <= simd_hardware()) out.push_back(level);
  return out;
}

// Kernels use `level` as long as it lives.
class AtLevel {
 public:
  explicit AtLevel(Simd level) { set_simd_for_test(level); }
  ~AtLevel() { set_simd_for_test(before_); }
  AtLevel(const AtLevel&) = delete;
  AtLevel& operator=(const AtLevel&) = delete;

 private:
  Simd before_ = simd_level();
};

}  // namespace wtool
