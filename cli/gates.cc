#include "cli/gates.h"

#include <algorithm>
#include <set>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/terminal.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr VerdictRule kGateRule{"gate", "the report meets the gate"};

// One gate a line; '#' begins a comment, but within quotes belongs to a pattern.
std::string_view without_comment(std::string_view line) {
  char quote = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quote != 0)
      quote = c == quote ? '\0' : quote;
    else if (c == '\'' || c == '"')
      quote = c;
    else if (c == '#')
      return line.substr(0, i);
  }
  return line;
}

std::string_view trimmed(std::string_view s) {
  const auto first = s.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return s.substr(first, s.find_last_not_of(" \t\r") - first + 1);
}

void read_file(const std::string& path, std::span<const std::string_view> columns,
               std::vector<Gate>& gates) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 20;
  const SourcePtr source = open_file(path);
  if (source->size() > kMost)
    throw Error(Fault::Usage, fmt::format("{} bytes are too many for a file of gates (at most {})",
                                          source->size(), kMost))
        .in("--gate @" + path);
  const Buffer bytes = read_all({source, 0, source->size()});
  std::string_view rest = as_text(bytes);
  const std::size_t before = gates.size();
  for (std::size_t line = 1; !rest.empty(); ++line) {
    const auto end = std::min(rest.find('\n'), rest.size());
    const std::string_view text = trimmed(without_comment(rest.substr(0, end)));
    if (!text.empty())
      gates.push_back(parse_gate(std::string(text), fmt::format("{}:{}", path, line), columns));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (gates.size() == before) throw Error(Fault::Usage, "holds no gate").in("--gate @" + path);
}

// "layers.1.mlp.down_proj (0.0127), … and 3 more"
std::string tensors_text(const GateComparison& c, std::size_t most) {
  std::string text;
  const std::size_t n = std::min(most, c.tensors.size());
  for (std::size_t i = 0; i < n; ++i)
    text += fmt::format("{}{} ({:.4g})", i == 0 ? "" : ", ", printable(c.tensors[i].name),
                        c.tensors[i].value);
  if (n < c.tensors.size()) text += fmt::format(" and {} more", c.tensors.size() - n);
  return text;
}

// Why a comparison does not hold: its figures, and what would.
std::string figures(const GateComparison& c) {
  std::string text = fmt::format("{} is {:.4g}", c.subject, c.value);
  if (c.would_pass.empty()) return text;
  return text + fmt::format(": '{}' would pass", c.would_pass);
}

}  // namespace

void add_gate_option(CLI::App& app, GateOptions& o, std::string description) {
  app.add_option("--gate", o.gates, std::move(description))
      ->option_text("GATE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

std::vector<Gate> read_gates(const GateOptions& o, std::span<const std::string_view> columns) {
  std::vector<Gate> gates;
  for (const std::string& g : o.gates) {
    if (g.starts_with('@'))
      read_file(g.substr(1), columns, gates);
    else
      gates.push_back(parse_gate(g, "--gate " + quoted(g), columns));
  }
  return gates;
}

std::vector<GateResult> judge_gates(std::span<const Gate> gates, const Report& report,
                                    std::span<const LogicalTensor> rows) {
  std::vector<GateResult> results;
  for (const Gate& g : gates) results.push_back(judge(g, report, rows));
  return results;
}

bool all_passed(std::span<const GateResult> results) noexcept {
  return std::ranges::all_of(results, &GateResult::passed);
}

void print_gate(const GateResult& r) {
  constexpr std::size_t kShown = 3;
  const GateComparison& chief = r.chief();
  std::string line =
      fmt::format("gate {}: {}", printable(r.gate->text),
                  r.passed ? paint(Style::Green, "passed") : paint(Style::Red, "FAILED"));
  if (chief.tensors.empty())
    line += fmt::format(" ({:.4g})", chief.value);
  else
    line += fmt::format(" {} {}", r.passed ? "at worst" : "by", tensors_text(chief, kShown));
  out(fit_charset(line + "\n"));
  if (r.passed) return;
  for (const GateComparison& c : r.comparisons)
    if (c.at_fault) out(fit_charset(fmt::format("  {}\n", printable(figures(c)))));
}

void write_gates(JsonWriter& w, std::span<const GateResult> results) {
  w.key("gates");
  w.begin_array();
  for (const GateResult& r : results) {
    const GateComparison& chief = r.chief();
    w.begin_object();
    w.member("gate", r.gate->text);
    w.member("passed", r.passed);
    w.member("value", chief.value);
    if (!chief.tensors.empty()) w.name_member("tensor", chief.tensors[0].name);
    w.key("comparisons");
    w.begin_array();
    for (const GateComparison& c : r.comparisons) {
      w.begin_object();
      w.member("comparison", c.text);
      w.member("holds", c.holds);
      w.member("at_fault", c.at_fault);
      w.member("value", c.value);
      w.member("limit", c.limit);
      w.key("tensors");
      w.begin_array();
      for (const GateTensor& t : c.tensors) {
        w.begin_object();
        w.name_member("name", t.name);
        w.member("value", t.value);
        w.end_object();
      }
      w.end_array();
      if (!c.would_pass.empty()) w.member("would_pass", c.would_pass);
      w.end_object();
    }
    w.end_array();
    w.end_object();
  }
  w.end_array();
}

std::vector<Verdict> verdicts_of(std::span<const GateResult> results, std::string_view file) {
  std::vector<Verdict> verdicts;
  for (const GateResult& r : results) {
    Verdict v{.rule = &kGateRule,
              .level = r.passed ? Verdict::Level::Passed : Verdict::Level::Error,
              .name = r.gate->text,
              .file = std::string(file),
              .tensors = {},
              .message = {},
              .fix = {}};
    std::set<std::string_view> named;
    for (const GateComparison& c : r.comparisons) {
      if (!c.at_fault && !(r.passed && &c == &r.chief())) continue;
      v.message +=
          (v.message.empty() ? "" : "; ") + fmt::format("{} is {:.4g}", c.subject, c.value);
      if (r.passed) continue;
      if (!c.tensors.empty()) v.message += ": " + tensors_text(c, 3);
      if (!c.would_pass.empty())
        v.fix +=
            fmt::format("{}{} {} would pass", v.fix.empty() ? "" : "; ", c.subject, c.would_pass);
      for (const GateTensor& t : c.tensors)
        if (named.insert(t.name).second) v.tensors.push_back(t.name);
    }
    if (!r.passed) v.message = fmt::format("{} does not hold: {}", r.gate->text, v.message);
    verdicts.push_back(std::move(v));
  }
  return verdicts;
}

}  // namespace wtool
