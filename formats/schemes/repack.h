#pragma once
// The integers of one scheme in the packing of another: no value changes.
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "formats/schemes/integer_layout.h"

namespace wtool {

using IntegerWeightPtr = std::shared_ptr<const IntegerWeight>;

// What a scheme takes.
struct Repacking {
  std::optional<DType> scale;  // none: scales keep their type
  bool act_order;              // groups need not be in order
  // Why it has no place for a weight of this shape.
  std::optional<std::string> (*refuses)(const IntegerShape&);
  IntegerLayoutPtr (*layout)(const IntegerShape&, bool indexed);
};
const Repacking* repacking_to(std::string_view scheme) noexcept;  // null: it takes no integers

// Why a weight cannot be stored so, from its headers and the order of its groups.
std::optional<std::string> refuses_integers(const Repacking& to, const IntegerWeight& weight);

// The zero points that a weight has: all of them are looked at, a few values for each row.
struct ZeroPoints {
  unsigned least = ~0u, most = 0;
  bool all_are(unsigned value) const { return least == value && most == value; }
};
ZeroPoints zero_points_of(const IntegerWeight& weight);

// Without `zero_points`, all of them are in the middle. Throws BadFile at a scale that the target's
// type would change.
std::unique_ptr<Step> repack_step(const Repacking& to, std::string name, IntegerWeightPtr weight,
                                  bool zero_points);

}  // namespace wtool
