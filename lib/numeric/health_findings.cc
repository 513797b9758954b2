// What is a finding, and its words.
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/health.h"
#include "lib/numeric/health_rules.h"

namespace wtool {
namespace {

// A NaN is a legal value, and in data may mean "none"; a weight that is one makes all results NaN.
constexpr Rule kWeight{"values.weight", "no weight is NaN or infinite", false, Severity::Error};
constexpr Rule kNan{"values.nan", "no value is NaN", true, Severity::Warning};
constexpr Rule kInf{"values.inf", "no value is infinite", true, Severity::Warning};
constexpr Rule kScale{"values.scale", "scales of quantized values are finite", false,
                      Severity::Error};
constexpr Rule kScaleRange{"values.scale-range",
                           "no block can decode to more than f16 holds: 65504", true,
                           Severity::Warning};
constexpr Rule kZero{"values.zero", "no weight is zero throughout", true, Severity::Warning};
constexpr Rule kConstant{"values.constant", "no matrix has one value throughout", true,
                         Severity::Note};
constexpr Rule kSubnormal{"values.subnormal", "less than a tenth of the values is subnormal", true,
                          Severity::Note};
constexpr Rule kNearOverflow{"values.near-overflow", "the double of each f16 value is finite", true,
                             Severity::Warning};
constexpr Rule kBool{"values.bool", "bools are 0 or 1", true, Severity::Warning};

constexpr std::array kRules{&kWeight,   &kNan,       &kInf,          &kScale, &kScaleRange, &kZero,
                            &kConstant, &kSubnormal, &kNearOverflow, &kBool,  &kDuplicate};

// One share of subnormals that means the type is wrong for the values, not that a few are tiny: a
// normal distribution whose deviation is f16's smallest normal number has most of them there, one
// of 8 times that 10 %.
constexpr std::uint64_t kOneOf = 10;

bool ends_with_any(std::string_view s, std::span<const std::string_view> ends) {
  return std::ranges::any_of(ends, [&](std::string_view e) { return s.ends_with(e); });
}

// One tensor on its way to its findings.
class Judge {
 public:
  Judge(const Catalog& catalog, const TensorEntry& entry, Role role, const Health& health,
        Diagnostics& faults)
      : entry_(entry),
        role_(role),
        health_(health),
        faults_(faults),
        where_(catalog.sources()[entry.source]->name(), "tensor", entry.name),
        type_(info(entry.dtype)),
        complex_(type_.kind == Kind::Complex),
        item_bytes_(complex_ ? type_.block_bytes / 2 : type_.block_bytes) {}

  void all() const {
    not_finite();
    scales();
    near_overflow();
    bools();
    uniform();
    subnormals();
  }

 private:
  void report(const Rule& rule, std::uint64_t offset, std::string text,
              std::string hint = {}) const {
    faults_.report(rule, where_, offset, std::move(text), std::move(hint));
  }
  std::uint64_t position(const Health::First& f) const {
    return entry_.offset + f.item * item_bytes_;
  }
  std::string hex(std::uint64_t bits, std::size_t bytes) const {
    return fmt::format("0x{:0{}x}", bits, 2 * bytes);
  }
  // "[2, 7]: bits 0x7fc0"
  std::string place(const Health::First& f) const {
    std::uint64_t i = complex_ ? f.item / 2 : f.item;
    Shape index(entry_.shape.size());
    const std::size_t rank = index.size();
    for (std::size_t k = 0; k < rank; ++k) {
      const std::size_t at = entry_.column_major ? k : rank - 1 - k;
      index[at] = i % entry_.shape[at];
      i /= entry_.shape[at];
    }
    std::uint64_t flat = 0;
    for (std::size_t k = 0; k < rank; ++k) flat = flat * entry_.shape[k] + index[k];
    const std::string_view half = !complex_ ? "" : f.item % 2 == 0 ? ", real" : ", imaginary";
    return fmt::format("{} (element {}{}): bits {}", to_text(index), flat, half,
                       hex(f.bits, item_bytes_));
  }
  std::string some(const Health::Some& s, std::string_view values, std::string_view are) const {
    return fmt::format("{} of {} {} {} {}, the first at {}", s.count, health_.items, values,
                       s.count == 1 ? "is" : "are", are, place(s.first));
  }

  void not_finite() const;
  void scales() const;
  void near_overflow() const;
  void bools() const;
  void uniform() const;
  void subnormals() const;

  const TensorEntry& entry_;
  Role role_;
  const Health& health_;
  Diagnostics& faults_;
  Place where_;
  const DTypeInfo& type_;
  bool complex_;
  std::size_t item_bytes_;
};

void Judge::not_finite() const {
  static constexpr std::array<std::string_view, 3> kWeights{"weight", "kernel", "embedding"};
  const bool weight = ends_with_any(entry_.name, kWeights);
  const std::string_view plural = role_ == Role::Scales ? "scales" : "values";
  const auto tell = [&](const Rule& rule, const Health::Some& s, std::string_view what,
                        std::string hint) {
    if (s.count > 0)
      report(role_ == Role::Scales ? kScale : rule, position(s.first), some(s, plural, what),
             std::move(hint));
  };
  tell(weight || entry_.name.ends_with("bias") ? kWeight : kNan, health_.nan, "NaN",
       "get the file again, or make it again from its source");
  tell(weight ? kWeight : kInf, health_.infinite, "infinite",
       weight || role_ == Role::Scales
           ? "a cast that overflowed gives such: make the file again from its source"
           : "masks and their biases may hold -inf");
}

void Judge::scales() const {
  const ScaleCounts& s = health_.scales;
  const auto tell = [&](const Rule& rule, std::uint64_t count, const ScaleCounts::First& f,
                        std::string_view what, std::string hint) {
    if (count == 0) return;
    report(rule, entry_.offset + f.block * type_.block_bytes + f.at,
           fmt::format("{} of {} {} blocks {}, the first is block {}: bits {} at its byte {}",
                       count, health_.items, type_.name, what, f.block, hex(f.bits, f.bytes), f.at),
           std::move(hint));
  };
  tell(
      kScale, s.not_finite, s.first_bad,
      s.not_finite == 1 ? "has a scale that is not finite" : "have scales that are not finite",
      "all values of such a block are NaN or infinite; quantize again, and leave out an importance "
      "matrix that has zeros");
  tell(kScaleRange, s.too_large, s.first_large, "can decode to more than 65504",
       "engines that compute in f16 overflow there");
}

void Judge::near_overflow() const {
  const Health::Some& s = health_.near_overflow;
  if (s.count == 0) return;
  report(kNearOverflow, position(s.first),
         some(s, "values", "beyond 32752") +
             fmt::format("; the largest has bits {}", hex(health_.largest, 2)),
         "f16 ends at 65504: a sum or a scale of two overflows; bf16 and f32 have room");
}

void Judge::bools() const {
  if (health_.not_bool.count == 0) return;
  report(kBool, position(health_.not_bool.first),
         some(health_.not_bool, "values", "neither 0 nor 1"),
         "a reader that takes them for true or false may not agree with the next");
}

// Zero throughout is damage in what is multiplied: weights and scales. Biases start as zeros and
// may stay so, the zero points of a symmetric scheme are, the second matrix of a fresh adapter is,
// the types of tokens are where there is only one, and what is stored as integers or bools beside
// the weights (masks, positions, counters) means something else. One value throughout is only odd
// in a matrix: norms are ones, and a scale or a zero point may well be the same everywhere.
void Judge::uniform() const {
  static constexpr std::array<std::string_view, 3> kZeroEndings{"bias", ".beta", "running_mean"};
  static constexpr std::array<std::string_view, 3> kZeroParts{"lora_b", "lora_up", "token_type"};
  const bool number = type_.kind == Kind::Float || type_.kind == Kind::Complex ||
                      type_.kind == Kind::Block || role_ == Role::Codes;
  const auto elements = element_count(entry_.shape).value_or(0);
  if (!number || role_ == Role::ZeroPoints || elements < 2) return;
  if (health_.zeros == health_.items) {
    const std::string name = lower(entry_.name);
    if (!ends_with_any(name, kZeroEndings) &&
        std::ranges::none_of(kZeroParts, [&](auto part) { return name.find(part) != name.npos; }))
      report(kZero, entry_.offset, fmt::format("all {} values are zero", elements),
             "a part of a copy that never arrived looks like this");
    return;
  }
  const std::size_t wide = static_cast<std::size_t>(
      std::ranges::count_if(entry_.shape, [](std::uint64_t d) { return d > 1; }));
  if (!health_.constant || role_ == Role::Scales || wide < 2 || health_.items < 2) return;
  if (type_.block_elems == 1)
    report(
        kConstant, entry_.offset,
        fmt::format("all {} values have the bits {}", elements, hex(health_.pattern, item_bytes_)));
  else
    report(kConstant, entry_.offset,
           fmt::format("all {} blocks have the same {} bytes", health_.items, type_.block_bytes));
}

void Judge::subnormals() const {
  if (role_ == Role::Scales || health_.subnormals <= health_.items / kOneOf) return;
  report(kSubnormal, entry_.offset,
         fmt::format("{} of {} values {} subnormal in {}", health_.subnormals, health_.items,
                     health_.subnormals == 1 ? "is" : "are", type_.name),
         "they have fewer digits, and some processors read them as zero");
}

}  // namespace

RuleList health_rules() {
  return kRules;
}

std::vector<Role> roles_of(const Model& model) {
  static constexpr std::array<std::string_view, 6> kScales{"scale",   "scales", "scale_inv",
                                                           "scale_2", "absmax", "SCB"};
  static constexpr std::array<std::string_view, 3> kZeroPoints{"zero_point", "qzeros", "zeros"};
  std::vector<Role> out(model.catalog.entries().size(), Role::Values);
  for (const LogicalTensor& t : model.tensors) {
    if (t.count < 2) continue;
    for (const std::uint32_t part : model.parts_of(t)) {
      const TensorEntry& e = model.catalog.entries()[part];
      if (ends_with_any(e.name, kScales))
        out[part] = Role::Scales;
      else if (ends_with_any(e.name, kZeroPoints))
        out[part] = Role::ZeroPoints;
      else if (part == model.parts_of(t)[0])
        out[part] = Role::Codes;
    }
  }
  return out;
}

void judge(const Catalog& catalog, const TensorEntry& entry, Role role, const Health& health,
           Diagnostics& faults) {
  if (health.items > 0) Judge(catalog, entry, role, health, faults).all();
}

}  // namespace wtool
