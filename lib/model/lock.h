#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/tensor.h"

namespace wtool {

// What a model was when it was reviewed: names, types, shapes, and an envelope of the values that
// training a little further stays within and other weights do not.

// Of the finite values, to kLockDigits significant digits, so that a lock reads well and its lines
// stay the same where nothing of note changed.
inline constexpr int kLockDigits = 4;
double lock_rounded(double v);  // to the nearest of so many digits

struct Envelope {
  double min = 0, max = 0, absmax = 0, rms = 0;
};
struct LockedTensor {
  std::string name;
  std::string dtype, scheme;  // "bf16", "plain"
  Shape shape;
  std::uint64_t bytes = 0;                // of all stored parts; 0: dtype and shape tell
  std::optional<Envelope> envelope = {};  // none: nothing finite, or no numbers at all
  bool counted = false;                   // the three below are known
  std::uint64_t zeros = 0, nan = 0, inf = 0;
  std::vector<std::string> sha256 = {};  // of each stored part, as hex; none: not locked
};
struct Lock {
  static constexpr double kTolerance = 0.1;

  // How far values may leave the envelope: extremes by this share of absmax, rms by this share of
  // itself, zeros by this share of all elements.
  double tolerance = kTolerance;
  std::vector<LockedTensor> tensors;  // sorted by lock_less
};
// Layer 2 before layer 10.
bool lock_less(const LockedTensor& a, const LockedTensor& b) noexcept;

// One thing that is not as it was locked.
struct LockChange {
  enum class What : std::uint8_t {
    Added,
    Removed,
    OtherDtype,
    OtherScheme,
    OtherShape,
    OtherBytes,
    NonFinite,
    Values,
    Digest
  };
  What what;
  std::string tensor, message;  // "dtype f32, locked as bf16"
};
// In the order of the names. Where dtype, shape or size differ, values and digests are not
// compared: they cannot be the same.
std::vector<LockChange> changes(const Lock& locked, std::span<const LockedTensor> now);

}  // namespace wtool
