#include "lib/model/lock.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace wtool {
namespace {

using What = LockChange::What;

// Figures and tolerance are decimal: 0.55 is within a tenth of 0.5, whatever their binary says.
constexpr double kDecimal = 1 + 1e-9;

// What one tensor has become.
class Comparison {
 public:
  Comparison(const LockedTensor& was, const LockedTensor& now, double tolerance,
             std::vector<LockChange>& to)
      : was_(was), now_(now), tolerance_(tolerance * kDecimal), to_(to) {}

  void run() {
    const std::size_t before = to_.size();
    compare("dtype", What::OtherDtype, was_.dtype, now_.dtype);
    compare("scheme", What::OtherScheme, was_.scheme, now_.scheme);
    compare("shape", What::OtherShape, to_text(was_.shape), to_text(now_.shape));
    if (to_.size() == before && was_.bytes != now_.bytes)
      add(What::OtherBytes, fmt::format("{} bytes, locked with {}", now_.bytes, was_.bytes));
    if (to_.size() != before) return;
    if (was_.counted && !now_.counted) {
      add(What::Values, "values are no numbers any more");
    } else {
      if (was_.counted) counts();
      if (was_.envelope) values();
    }
    digests();
  }

 private:
  void add(What what, std::string message) { to_.push_back({what, was_.name, std::move(message)}); }
  void compare(std::string_view of, What what, const std::string& was, const std::string& now) {
    if (was != now) add(what, fmt::format("{} {}, locked as {}", of, now, was));
  }

  void counts() {
    if (now_.nan > was_.nan || now_.inf > was_.inf)
      add(What::NonFinite, fmt::format("{} NaN and {} infinities, locked with {} and {}", now_.nan,
                                       now_.inf, was_.nan, was_.inf));
    const auto elements = element_count(was_.shape);  // the same now
    const double moved =
        std::abs(static_cast<double>(now_.zeros) - static_cast<double>(was_.zeros));
    if (elements && moved > tolerance_ * static_cast<double>(*elements))
      add(What::Values, fmt::format("{} of {} values are zero, locked with {}", now_.zeros,
                                    *elements, was_.zeros));
  }

  void values() {
    const Envelope& was = *was_.envelope;
    if (!now_.envelope) return add(What::Values, "nothing is finite any more");
    const Envelope& now = *now_.envelope;
    const double room = tolerance_ * was.absmax;
    // Negated, so that NaN, which an overflow may give, is no pass.
    if (!(now.min >= was.min - room))
      add(What::Values, fmt::format("min {}, locked as {}: outside by {:.3g}", now.min, was.min,
                                    was.min - now.min));
    if (!(now.max <= was.max + room))
      add(What::Values, fmt::format("max {}, locked as {}: outside by {:.3g}", now.max, was.max,
                                    now.max - was.max));
    if (!(std::abs(now.rms - was.rms) <= tolerance_ * was.rms))
      add(What::Values, fmt::format("rms {}, locked as {}: {}", now.rms, was.rms, ratio(now, was)));
  }
  static std::string ratio(const Envelope& now, const Envelope& was) {
    if (was.rms == 0) return "it was zero";
    return fmt::format("{:+.3g} %", 100 * (now.rms / was.rms - 1));
  }

  void digests() {
    if (was_.sha256.empty() || was_.sha256 == now_.sha256) return;
    const auto shown = [](const LockedTensor& t, std::size_t i) {
      return i < t.sha256.size() ? t.sha256[i].substr(0, 12) + "…" : std::string("none");
    };
    const auto first = std::ranges::mismatch(was_.sha256, now_.sha256).in1 - was_.sha256.begin();
    const auto i = static_cast<std::size_t>(first);
    std::string part;
    if (was_.sha256.size() > 1) part = fmt::format(" of part {}", i + 1);
    add(What::Digest,
        fmt::format("sha256{} {}, locked as {}", part, shown(now_, i), shown(was_, i)));
  }

  const LockedTensor &was_, &now_;
  double tolerance_;
  std::vector<LockChange>& to_;
};

std::string described(const LockedTensor& t) {
  return fmt::format("{} {}", t.dtype, to_text(t.shape));
}

}  // namespace

double lock_rounded(double v) {
  const std::string digits = fmt::format("{:.{}g}", v, kLockDigits);
  double rounded = v;  // and stays so where the digits are beyond the largest double
  std::from_chars(digits.data(), digits.data() + digits.size(), rounded);
  return rounded;
}

bool lock_less(const LockedTensor& a, const LockedTensor& b) noexcept {
  return natural_less(a.name, b.name);
}

std::vector<LockChange> changes(const Lock& locked, std::span<const LockedTensor> now) {
  std::vector<LockChange> out;
  auto was = locked.tensors.begin();
  const auto removed = [&] {
    out.push_back({What::Removed, was->name, "is gone, locked as " + described(*was)});
    ++was;
  };
  for (const LockedTensor& t : now) {
    while (was != locked.tensors.end() && lock_less(*was, t)) removed();
    if (was == locked.tensors.end() || was->name != t.name) {
      out.push_back({What::Added, t.name, "is new: " + described(t)});
      continue;
    }
    Comparison(*was, t, locked.tolerance, out).run();
    ++was;
  }
  while (was != locked.tensors.end()) removed();
  return out;
}

}  // namespace wtool
