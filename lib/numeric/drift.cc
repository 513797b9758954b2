#include "lib/numeric/drift.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace wtool {

Drift& Drift::operator+=(const Drift& next) {
  error2 += next.error2;
  value2 += next.value2;
  cross += next.cross;
  worst = std::max(worst, next.worst);
  worst_steps = std::max(worst_steps, next.worst_steps);
  elements += next.elements;
  clipped += next.clipped;
  overflows += next.overflows;
  non_finite += next.non_finite;
  first_bad = std::min(first_bad, next.first_bad);
  weighted_error2 += next.weighted_error2;
  weighted_value2 += next.weighted_value2;
  for (std::size_t i = 0; i < kBins; ++i) histogram[i] += next.histogram[i];
  return *this;
}

namespace {

double root_of_ratio(double errors, double values) {
  if (errors == 0) return 0;
  return values == 0 ? std::numeric_limits<double>::infinity() : std::sqrt(errors / values);
}

}  // namespace

double Drift::rel_rmse() const {
  return root_of_ratio(error2, value2);
}

double Drift::sqnr_db() const {
  return -20 * std::log10(rel_rmse());
}

double Drift::cosine() const {
  const double stored2 = value2 + 2 * cross + error2;  // the sum of what was stored, squared
  if (value2 == 0 && error2 == 0) return 1;
  if (value2 <= 0 || stored2 <= 0) return 0;
  return std::clamp((value2 + cross) / (std::sqrt(value2) * std::sqrt(stored2)), -1.0, 1.0);
}

Row Drift::row(std::string tensor) const {
  Row out{std::move(tensor), {}};
  const auto add = [&](const Column& column, auto value) {
    out.cells.emplace_back(&column, std::move(value));
  };
  const bool measured = elements > 0;
  const bool in_steps = std::accumulate(histogram.begin(), histogram.end(), std::uint64_t{0}) > 0;
  if (measured) {
    add(kRelRmse, rel_rmse());
    if (weighted_value2 > 0) add(kWeightedRmse, root_of_ratio(weighted_error2, weighted_value2));
    add(kSqnr, sqnr_db());
    if (in_steps) add(kMaxSteps, worst_steps);
    add(kCosine, cosine());
    if (in_steps) add(kErrorBins, Histogram(histogram.begin(), histogram.end()));
    add(kMaxError, worst);
    if (in_steps) add(kClipped, clipped);
  }
  add(kOverflows, overflows);
  add(kNonFinite, non_finite);
  if (first_bad != ~std::uint64_t{0}) add(kFirstBad, first_bad);
  return out;
}

}  // namespace wtool
