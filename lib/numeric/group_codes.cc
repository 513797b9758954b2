#include "lib/numeric/group_codes.h"

#include <algorithm>
#include <cmath>

#include "lib/numeric/kernels/group_search.h"
#include "lib/numeric/kernels/groups.h"

namespace wtool {
namespace {

// What the columns' importance makes of the errors: in double, one element after another.
void add_weighted(const IntegerCoding& how, std::uint64_t rows, std::uint64_t cols,
                  std::span<const float> in, std::span<const float> importance,
                  const GroupChoices& choice, Drift& drift) {
  const std::uint64_t group = how.group == 0 ? cols : how.group;
  const auto half = static_cast<float>(1u << (how.bits - 1));
  for (std::uint64_t r = 0, g = 0; r < rows; ++r)
    for (std::uint64_t c = 0; c < cols; c += group, ++g) {
      const float scale = choice.scales[g];
      const float zero = choice.zeros.empty() ? 0 : choice.zeros[g];
      for (std::uint64_t i = c; i < c + group; ++i) {
        const float x = in[r * cols + i];
        const float code = std::nearbyint(std::clamp(x / scale + zero, -half, half - 1));
        const double error = (code - zero) * scale - x, value = x, weight = importance[i];
        drift.weighted_error2 += weight * error * error;
        drift.weighted_value2 += weight * value * value;
      }
    }
}

}  // namespace

IntegerCoding integer_coding(const SchemeOptions& options, DType scale, DType source) {
  const bool exact = options.method == ScaleMethod::Rtn && options.source_arithmetic &&
                     (source == DType::BF16 || source == DType::F16);
  return {.bits = options.bits,
          .group = options.group,
          .scale = scale,
          .zero_points = options.asymmetric,
          .either_sign = options.signed_scales && !options.asymmetric,
          .method = options.method,
          .arithmetic = exact ? source : DType::F32};
}

void code_integers(const IntegerCoding& how, std::uint64_t rows, std::uint64_t cols,
                   std::span<const float> in, std::span<const float> importance,
                   const IntegerCodes& out, Drift& drift, Scratch& scratch) {
  const IntGroups groups{.bits = how.bits,
                         .group = how.group,
                         .scale = how.scale,
                         .packed = how.packed,
                         .zero_points = how.zero_points,
                         .arithmetic = how.arithmetic};
  const GroupOutputs to{out.codes, out.scales, out.zeros};
  if (cols == 0 || how.method == ScaleMethod::Rtn)
    return quantize_groups(groups, rows, cols, in, to, drift);
  const GroupSearch search{.bits = how.bits,
                           .zero_points = how.zero_points,
                           .either_sign = how.either_sign,
                           .group = how.group,
                           .scale = how.scale,
                           .optimal = how.method == ScaleMethod::Optimal};
  Scratch::Frame frame(scratch);
  const std::uint64_t n = rows * (how.group == 0 ? 1 : cols / how.group);
  const auto scales = frame.take<float>(n);
  const auto zeros = frame.take<std::int8_t>(how.zero_points ? n : 0);
  choose_scales(search, rows, cols, in, importance, scales, zeros);
  const GroupChoices choice{scales, zeros};
  quantize_groups(groups, rows, cols, in, to, drift, &choice);
  if (!importance.empty()) add_weighted(how, rows, cols, in, importance, choice, drift);
}

}  // namespace wtool
