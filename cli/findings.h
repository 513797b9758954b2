#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "cli/report_file.h"

namespace wtool {

// What a command looked at and what came of it, for machines that collect it: a gate, a difference,
// a deviation from a lock.
struct VerdictRule {
  std::string_view id;       // stable: "gate", "lock.dtype"
  std::string_view summary;  // "the report meets the gate"
};
struct Verdict {
  enum class Level : std::uint8_t { Passed, Note, Warning, Error };
  const VerdictRule* rule = nullptr;
  Level level = Level::Error;
  std::string name;                  // of the test case: the gate, the tensor
  std::string file;                  // as the user gave it
  std::vector<std::string> tensors;  // concerned, the worst first
  std::string message;               // what is the case, with the numbers
  std::string fix;                   // what would help, or ""
  std::uint64_t byte = kNowhere;     // the position in the file, if there is one
};

// --junit FILE, --sarif FILE. Reading commands have no other use for -f; writing commands have it.
struct FindingsOptions {
  std::string junit, sarif;
  bool force = false;

  std::vector<ReportFile> files() const { return {{"--junit", junit}, {"--sarif", sarif}}; }
  bool any() const noexcept { return !junit.empty() || !sarif.empty(); }
};
void add_findings_options(CLI::App& app, FindingsOptions& options);       // the two
void add_findings_force_option(CLI::App& app, FindingsOptions& options);  // -f
// check_report_files() comes before the work, this after it. `command`: "quantize".
void write_findings(const FindingsOptions& options, std::string_view command,
                    std::span<const Verdict> verdicts);

// JUnit's XML: a test case each; errors are failures. Notes and warnings pass, with their text in
// system-out.
std::string junit_text(std::string_view command, std::span<const Verdict> verdicts);
// SARIF 2.1.0: a result for each that did not pass.
std::string sarif_text(std::string_view command, std::span<const Verdict> verdicts);

}  // namespace wtool
