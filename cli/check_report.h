#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/check.h"
#include "cli/salvage.h"
#include "lib/numeric/health.h"

namespace wtool {

// What came out of a check.
struct CheckResult {
  using Level = Verdict::Level;
  // A finding as it counts under the options.
  struct Judged {
    const Finding* finding;
    Level level;
    bool forgiven;       // an error, if --lenient did not let it pass
    bool fails = false;  // by --fail-on
  };
  struct Counts {
    std::uint64_t errors = 0, warnings = 0, notes = 0, forgiven = 0;  // with those not kept
  };

  std::shared_ptr<const Model> model;
  Diagnostics faults{Diagnostics::Mode::Collect};
  bool fast = false, lenient = false;
  std::vector<RuleList> rules;  // that were looked at
  std::vector<Judged> judged;   // the gravest first, else as found
  Counts counts;
  HealthTotals values;        // unless fast
  std::vector<bool> damaged;  // entries of the catalog that cannot be decompressed
  bool ok = true;             // by --fail-on
  std::optional<Salvaged> salvaged;
};

// Of what is no weight file at all.
inline constexpr Rule kUnreadableRule{"file.unreadable", "the input is a weight file"};

std::vector<RuleList> all_check_rules(const Registry& registry);
Verdict::Level level_of(const Rule& rule, bool lenient) noexcept;

void print_check(const CheckResult& result, bool all);
void write_check_json(const CheckResult& result);
// For --junit and --sarif: every finding, and a passed case for each rule that was kept.
void write_check_findings(const CheckResult& result, const FindingsOptions& options);
// The same for what could not be opened at all.
void write_unreadable(const std::string& path, const Error& error, const FindingsOptions& options);

}  // namespace wtool
