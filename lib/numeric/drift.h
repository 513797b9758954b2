#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "lib/model/report.h"

namespace wtool {

// How far what was stored is from what was there. Trivially copyable: units give one each, folded
// in unit order, so that a report is the same for every thread count and instruction set.
struct Drift {
  static constexpr std::size_t kBins = 8;

  double error2 = 0;       // sum of (stored - source)²
  double value2 = 0;       // sum of source²
  double cross = 0;        // sum of source × (stored - source)
  double worst = 0;        // largest |stored - source|
  double worst_steps = 0;  // the same in quantisation steps (scales)
  std::uint64_t elements = 0;
  std::uint64_t clipped = 0;     // values beyond the last code by more than half a step
  std::uint64_t overflows = 0;   // finite values that became infinite, or were saturated
  std::uint64_t non_finite = 0;  // NaN and infinities in the source
  std::uint64_t first_bad = ~std::uint64_t{0};  // flat index of the first overflow or non-finite
  // With an importance of columns: the squares, each times its column's.
  double weighted_error2 = 0, weighted_value2 = 0;
  // |error| in steps, where there are steps: bins of 1/16 step each from 0 to 1/2; the last takes
  // what lies beyond.
  std::array<std::uint64_t, kBins> histogram = {};

  Drift& operator+=(const Drift& next);
  double rel_rmse() const;  // sqrt(error2 / value2), 0 for a zero tensor stored as zeros
  double sqnr_db() const;   // -20 log10(rel_rmse); infinite where nothing was lost
  double cosine() const;    // 1 between two zero tensors
  void add_bad(std::uint64_t index) { first_bad = index < first_bad ? index : first_bad; }
  // In the order of the columns below; steps, histogram and clipped only where errors were counted
  // in steps, the first four of the sums only where something was measured.
  Row row(std::string tensor) const;
};

inline constexpr Column kRelRmse{"rel_rmse", "", "rel_rmse"}, kSqnr{"sqnr_db", "dB", "SQNR dB"},
    kMaxSteps{"max_steps", "steps", "max|err|/step"}, kCosine{"cos", "", "cos"},
    kErrorBins{"error_histogram", "counts per 1/16 step", "histogram of error"},
    kMaxError{"max_error", "", "max|err|"}, kClipped{"clipped", "values", "clipped"},
    kOverflows{"overflows", "values", "overflows"}, kNonFinite{"non_finite", "values", "NaN/Inf"},
    kFirstBad{"first_bad_index", "", "first at"};
// Of blocks quantised with an importance of their columns, or searched further than the reference.
inline constexpr Column kWeightedRmse{"weighted_rel_rmse", "", "weighted"},
    kExactRmse{"exact_rel_rmse", "", "reference's"},
    kExactWeightedRmse{"exact_weighted_rel_rmse", "", "reference's weighted"},
    kFallbackBlocks{"fallback_blocks", "blocks", "fallback"};

}  // namespace wtool
