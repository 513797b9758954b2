// From frequency factors back to the parameters of Llama 3's scaling. Of a frequency with
// wavelength w, shorter than original / high: 1; longer than original / low: factor; between:
// 1 / ((1 - s) / factor + s) with s = (original / w - low) / (high - low), so that s is a straight
// line over 1 / w, and two of those in between give both of its ends.
#include "formats/hf/back_rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include <fmt/format.h>

namespace wtool {
namespace {

// Factors are f32, computed in f32; parameters are rounded to what people write, so what is left
// of the error decides nothing but whether they are the right ones.
constexpr double kTolerance = 1e-4;

class Curve {
 public:
  Curve(std::span<const float> factors, double theta) : factors_(factors) {
    for (std::size_t i = 0; i < factors.size(); ++i)
      waves_.push_back(
          2 * std::numbers::pi *
          std::pow(theta, static_cast<double>(i) / static_cast<double>(factors.size())));
  }

  bool gives(const Llama3Rope& rope) const {
    for (std::size_t i = 0; i < factors_.size(); ++i) {
      const double expected = factor_at(rope, waves_[i]), found = factors_[i];
      if (!(std::abs(found - expected) <= kTolerance * expected)) return false;
    }
    return true;
  }
  // The places of those that are neither 1 nor the whole factor.
  std::vector<std::size_t> between(double factor) const {
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < factors_.size(); ++i)
      if (factors_[i] > 1 + kTolerance && factors_[i] < factor * (1 - kTolerance))
        places.push_back(i);
    return places;
  }
  double share(std::size_t i, double factor) const {  // s
    return (1 / static_cast<double>(factors_[i]) - 1 / factor) / (1 - 1 / factor);
  }
  double wave(std::size_t i) const { return waves_[i]; }

 private:
  static double factor_at(const Llama3Rope& rope, double wave) {
    const double original = static_cast<double>(rope.original);
    if (wave < original / rope.high) return 1;
    if (wave > original / rope.low) return rope.factor;
    const double s = (original / wave - rope.low) / (rope.high - rope.low);
    return 1 / ((1 - s) / rope.factor + s);
  }
  std::span<const float> factors_;
  std::vector<double> waves_;
};

bool is_length(double x) {
  return x >= 1 && x <= 1e12;
}

}  // namespace

std::optional<Llama3Rope> llama3_rope_of(std::span<const float> factors, double theta) {
  if (factors.empty() || !(theta > 1)) return std::nullopt;
  for (float f : factors)
    if (!(f >= 1 && f <= 1e6F)) return std::nullopt;
  const Curve curve(factors, theta);
  Llama3Rope rope{.factor = *std::ranges::max_element(factors), .assumed = {}};
  const auto between = curve.between(rope.factor);

  if (between.size() >= 2) {  // s = a / w - b
    const std::size_t i = between.front(), k = between.back();
    const double a = (curve.share(i, rope.factor) - curve.share(k, rope.factor)) /
                     (1 / curve.wave(i) - 1 / curve.wave(k));
    const double b = a / curve.wave(i) - curve.share(i, rope.factor);
    if (!(b > 0) || !is_length(a / b)) return std::nullopt;
    rope.high = std::round((1 + 1 / b) * 1000) / 1000;
    rope.original = static_cast<std::uint64_t>(std::llround(a / b));
    rope.assumed = "low_freq_factor is taken to be 1, the others follow from rope_freqs.weight";
    if (curve.gives(rope)) return rope;
    return std::nullopt;
  }
  if (between.size() == 1) {
    const double original = curve.wave(between[0]) *
                            (curve.share(between[0], rope.factor) * (rope.high - rope.low) + 1);
    if (!is_length(original)) return std::nullopt;
    rope.original = static_cast<std::uint64_t>(std::llround(original));
    rope.assumed =
        "low_freq_factor and high_freq_factor are taken to be 1 and 4, as in Llama 3.1, the others "
        "follow from rope_freqs.weight";
    if (curve.gives(rope)) return rope;
    return std::nullopt;
  }
  rope.assumed = fmt::format(
      "low_freq_factor, high_freq_factor and original_max_position_embeddings are taken to be 1, 4 "
      "and {}, since rope_freqs.weight agrees with others, too",
      rope.original);
  if (curve.gives(rope)) return rope;
  return std::nullopt;
}

}  // namespace wtool
