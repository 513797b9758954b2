#pragma once
#include <atomic>
#include <optional>
#include <string>

#include "lib/model/plan.h"
#include "lib/numeric/cells.h"
#include "lib/numeric/drift.h"

namespace wtool {

// When two values count as the same.
//   Exact  the same bits where both tensors are of one type, else the same number
//   Step   either lies in the cell (cells.h) of the other, or between: no further apart than half a
//          step of what was quantised, of both if both were. Beyond the last level of a block a
//          value may lie as far as it likes; that is counted in `clipped`. Without steps: Exact,
//          but that 0 and -0 are the same
//   Bound  |b - a| <= absolute + relative * |a|; the word 'any' is for an infinite one
// NaN is the same as NaN (in Exact and one type: with the same bits), infinity as infinity.
struct Tolerance {
  enum class Kind : std::uint8_t { Exact, Step, Bound } kind = Kind::Exact;
  double absolute = 0, relative = 0;
};
// 'exact', 'step', 'any', 'ABS' or 'ABS:REL'; nullopt if it is none.
std::optional<Tolerance> parse_tolerance(std::string_view text);

// What one pass over two tensors finds. Trivially copyable, merged in unit order.
struct Comparison {
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  Drift drift;  // the first is the source, the second what was stored; finite pairs only
  std::uint64_t elements = 0;
  std::uint64_t changed = 0;     // other bits (one type), or another number
  std::uint64_t beyond = 0;      // outside the tolerance
  std::uint64_t clipped = 0;     // beyond a block's last level by more than half a step
  std::uint64_t non_finite = 0;  // NaN or infinite on one side only, or infinite on two sides
  struct Place {
    std::uint64_t index = kNone;
    double a = 0, b = 0;
  };
  Place worst;         // the first of the largest differences of finite values
  Place first_beyond;  // the first outside the tolerance

  Comparison& operator+=(const Comparison& next);
  double changed_share() const;
};

// A measure: whether two tensors of one type and shape hold the same bytes. Stops at the first unit
// that differs.
class IdentityStep final : public Step {
 public:
  IdentityStep(TensorPtr a, TensorPtr b);
  std::uint64_t units() const override;
  void run(const Unit& unit) const override;
  void fold(std::uint64_t unit, Buffer& found) override;
  bool same() const noexcept { return same_; }  // after the last fold

 private:
  static constexpr std::uint64_t kTilesPerUnit = 8;
  TensorPtr a_, b_;
  Tiling tiling_;
  mutable std::atomic<bool> differs_{false};
  bool same_ = true;
};

// A measure: how far two tensors of one shape are apart.
class ComparisonStep final : public Step {
 public:
  // Throws Unsupported where values have no numbers, or, for Step, levels of a codebook.
  ComparisonStep(std::string name, TensorPtr a, TensorPtr b, const Tolerance& tolerance);
  std::uint64_t units() const override;
  void run(const Unit& unit) const override;
  void fold(std::uint64_t unit, Buffer& found) override;
  void report(Report& to) const override;
  const Comparison& result() const noexcept { return result_; }
  bool in_steps() const noexcept { return cells_a_ || cells_b_; }

 private:
  class Tile;
  std::string name_;
  TensorPtr a_, b_;
  Tolerance tolerance_;
  Tiling tiling_;
  bool by_bits_ = false;                    // one type: changed is what has other bits
  bool wide_ = false;                       // needs f64
  bool cells_a_ = false, cells_b_ = false;  // whose steps count
  Comparison result_;
};

// The row of a comparison (in_steps: with what is counted in steps), and of two tensors known to be
// identical.
Row comparison_row(std::string name, const Comparison& found, bool in_steps);
std::vector<std::string_view> comparison_columns();  // all that rows can have
Comparison identical(std::uint64_t elements);

}  // namespace wtool
