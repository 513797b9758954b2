#pragma once
#include <string>

#include "cli/common.h"
#include "cli/findings.h"

namespace wtool {

// The parts of 'wtool check'.
struct CheckOptions {
  InputOptions input;
  SelectOptions select;
  // Its health.
  bool rules = false;  // list them
  bool fast = false;   // headers only
  bool strict = false, lenient = false;
  std::string fail_on;  // levels or rules with commas; "": error
  std::string salvage;  // where intact tensors go
  // A lock.
  std::string lock, write_lock;
  std::string tolerance;
  bool digests = false;
  FindingsOptions findings;
};

ExitCode list_rules(const CheckOptions& options, const Context& context);    // check_report.cc
ExitCode check_health(const CheckOptions& options, const Context& context);  // check_health.cc
ExitCode write_lock(const CheckOptions& options, const Context& context);    // check_lock.cc
ExitCode check_lock(const CheckOptions& options, const Context& context);

}  // namespace wtool
