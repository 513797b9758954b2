#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "lib/numeric/kernels/group_search.h"
#include "lib/numeric/kernels/kernels.h"

// What group_search.cc and group_optimal.cc share: the storable scales as a ladder.
namespace wtool::groups {

// The positive, finite scales of a type in rising order: rung r holds value(r).
class Ladder {
 public:
  Ladder(DType type, float global) : type_(type), global_(global) {
    switch (type) {
      case DType::BF16: set(1, 0x7F7F, 1, 0x1p-7f); break;
      case DType::F16: set(1, 0x7BFF, 4, 0x1p-10f); break;
      case DType::F8_E4M3: set(1, 0x7E, 1, 0.125f); break;
      case DType::F8_E8M0: set(1, 0xFE, 1, 1); break;
      default: set(1, 0x7F7FFFFF, 1 << 15, 0x1p-23f); break;
    }
  }
  std::int32_t lowest() const noexcept { return lowest_; }
  std::int32_t highest() const noexcept { return highest_; }
  std::int32_t stride() const noexcept { return stride_; }  // about half a percent, if it can be
  float epsilon() const noexcept { return epsilon_; }
  bool divides() const noexcept { return global_ != 1; }

  // As stored, and as it scales the levels.
  float stored(std::int32_t rung) const noexcept {
    const auto bits = static_cast<std::uint32_t>(rung);
    switch (type_) {
      case DType::BF16: return std::bit_cast<float>(bits << 16);
      case DType::F16: return f16_value(static_cast<std::uint16_t>(bits));
      case DType::F8_E4M3:
        return rung < 8 ? static_cast<float>(rung) * 0x1p-9f
                        : std::bit_cast<float>((bits << 20) + (120u << 23));
      case DType::F8_E8M0: return std::bit_cast<float>(bits << 23);
      default: return std::bit_cast<float>(bits);
    }
  }
  float effective(float stored) const noexcept { return divides() ? stored / global_ : stored; }
  float value(std::int32_t rung) const noexcept { return effective(stored(rung)); }
  // The rung nearest to a scale of this effect; the ends for what lies beyond.
  std::int32_t nearest(float effect) const noexcept {
    const std::int32_t below = floor(effect);
    if (below >= highest_) return highest_;
    const float low = value(below), high = value(below + 1);
    return effect - low > high - effect || (effect - low == high - effect && below % 2 != 0)
               ? below + 1
               : below;
  }
  // The highest rung not above; the lowest for what lies below.
  std::int32_t floor(float effect) const noexcept {
    float at = effect;
    if (divides()) at *= global_;
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(at);
    std::int32_t rung = 0;
    switch (type_) {
      case DType::BF16: rung = static_cast<std::int32_t>(bits >> 16); break;
      case DType::F16:
        rung = at >= 0x1p-14f ? static_cast<std::int32_t>((bits >> 13) - (112u << 10))
                              : static_cast<std::int32_t>(at * 0x1p24f);
        break;
      case DType::F8_E4M3:
        rung = at >= 0x1p-6f ? static_cast<std::int32_t>((bits >> 20) - (120u << 3))
                             : static_cast<std::int32_t>(at * 0x1p9f);
        break;
      case DType::F8_E8M0: rung = static_cast<std::int32_t>(bits >> 23); break;
      default: rung = static_cast<std::int32_t>(bits); break;
    }
    rung = clamp(rung);
    if (divides()) {  // the product was rounded
      while (rung > lowest_ && value(rung) > effect) --rung;
      while (rung < highest_ && value(rung + 1) <= effect) ++rung;
    }
    return rung;
  }
  std::int32_t clamp(std::int32_t rung) const noexcept {
    return std::clamp(rung, lowest_, highest_);
  }

 private:
  void set(std::int32_t lowest, std::int32_t highest, std::int32_t stride, float epsilon) {
    lowest_ = lowest, highest_ = highest, stride_ = stride, epsilon_ = epsilon;
  }

  DType type_;
  float global_;
  std::int32_t lowest_ = 1, highest_ = 1, stride_ = 1;
  float epsilon_ = 1;
};

struct Choice {
  std::int32_t rung;
  int z;
  bool negative;
};
struct Group {
  const float *x, *weight;  // weight: null where all count alike
  std::size_t n;
};

inline int half_of(const GroupSearch& how) noexcept {
  return 1 << (how.bits - 1);
}
inline int top_of(const GroupSearch& how) noexcept {
  return (1 << how.bits) - 1;
}

// The least measure of all for integers (group_optimal.cc). The values are not all zero; `rtn` is
// a choice to start from, positive.
Choice optimal_integers(const GroupSearch& how, const Ladder& ladder, const Group& group,
                        const Choice& rtn);

}  // namespace wtool::groups
