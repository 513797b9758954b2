#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lib/base/diagnostics.h"
#include "lib/model/model.h"
#include "lib/model/plan.h"
#include "lib/numeric/kernels/health.h"

namespace wtool {

// What the stored bytes of one tensor are like. Items are elements; of complex types their halves,
// of types with several elements in a block (f4 has two in a byte) the blocks. Trivially copyable.
struct Health {
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  struct First {
    std::uint64_t item = kNone;  // as stored
    std::uint64_t bits = 0;
  };
  struct Some {
    std::uint64_t count = 0;
    First first;
  };

  std::uint64_t items = 0;
  std::uint64_t zeros = 0;       // of either sign; blocks: all of whose values are
  std::uint64_t subnormals = 0;  // of plain floats
  Some nan, infinite;            // of plain floats
  Some near_overflow;            // f16: finite, but its double is not
  Some not_bool;                 // bytes of bools other than 0 and 1
  std::uint64_t largest = 0;     // magnitude, as bits, of what is finite; plain types
  bool constant = true;          // all items have the same bits
  std::uint64_t pattern = 0;     // of the first item; of a block, a digest
  ScaleCounts scales;            // of ggml's blocks
  std::uint64_t sample = 0;      // a digest of a little of it here and there

  void append(const Health& next);  // of the items that follow
};
// `bytes` holds whole items, little-endian, from item `first` of the tensor on.
Health health_of(DType type, Bytes bytes, std::uint64_t first = 0);

// What a stored tensor is to its model; decides what is a finding.
enum class Role : std::uint8_t { Values, Scales, ZeroPoints, Codes };
std::vector<Role> roles_of(const Model& model);  // of the catalog's entries

// Reports what is wrong with the values of `entry`.
void judge(const Catalog& catalog, const TensorEntry& entry, Role role, const Health& health,
           Diagnostics& faults);
RuleList health_rules();

struct HealthTotals {
  std::uint64_t tensors = 0, bytes = 0;
  std::uint64_t nan = 0, infinite = 0, bad_scales = 0;
  std::uint64_t duplicates = 0, duplicate_bytes = 0;  // what the second ones take
};

// Checks the values of stored tensors in one pass; then compares those that look alike.
//
//   ValueCheck check(model, entries, faults);
//   for (Plan plan; check.next(plan); plan = {}) execute(plan, options);
//
// Findings come in the order of the files, whatever the number of threads.
class ValueCheck {
 public:
  // `entries` of the catalog. `faults` is used until next() has said false; nobody else may use it
  // while a plan runs. `tied`: the config says that the head is the embedding; only the advice
  // depends on it.
  ValueCheck(std::shared_ptr<const Model> model, std::span<const std::uint32_t> entries,
             Diagnostics& faults, bool tied = false);
  ~ValueCheck();
  bool next(Plan& plan);  // the next round of work; false: done
  const HealthTotals& totals() const noexcept;

 private:
  class Scan;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace wtool
