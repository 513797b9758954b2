#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "cli/findings.h"
#include "cli/json.h"
#include "lib/model/gate.h"

namespace wtool {

// --gate, for every command that makes a report:
//   add_gate_option; read_gates before opening the input; check_gate (lib/model/gate.h) once the
//   tensors are known, before the work; judge_gates after it; then print_gate, write_gates and
//   verdicts_of tell what came out.
struct GateOptions {
  std::vector<std::string> gates;  // as typed: a gate, or @FILE
};
void add_gate_option(CLI::App& app, GateOptions& options, std::string description);

// `columns`: what reports of this command can have. Throws Usage, or Io for a file.
std::vector<Gate> read_gates(const GateOptions& options, std::span<const std::string_view> columns);
std::vector<GateResult> judge_gates(std::span<const Gate> gates, const Report& report,
                                    std::span<const LogicalTensor> rows);
bool all_passed(std::span<const GateResult> results) noexcept;

// "gate G: FAILED by T (0.0127)" and what would pass.
void print_gate(const GateResult& result);
void write_gates(JsonWriter& w, std::span<const GateResult> results);  // the member "gates"
// Of tensors in `file`, the input as given.
std::vector<Verdict> verdicts_of(std::span<const GateResult> results, std::string_view file);

}  // namespace wtool
