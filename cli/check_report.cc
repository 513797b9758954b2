#include "cli/check_report.h"

#include <algorithm>
#include <deque>

#include <fmt/format.h>

#include "cli/check_fixes.h"
#include "cli/json.h"
#include "cli/terminal.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

using Level = Verdict::Level;

constexpr std::size_t kShownOfARule = 10, kShownLost = 20;

std::string_view level_name(Level level) noexcept {
  return level == Level::Error ? "error" : level == Level::Warning ? "warning" : "note";
}
Style style_of(Level level) noexcept {
  return level == Level::Error ? Style::Red : level == Level::Warning ? Style::Yellow : Style::Dim;
}

std::string times(std::uint64_t n, std::string_view what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

std::string_view fix_for(const Finding& f) noexcept {
  return f.hint.empty() ? fix_of(*f.rule) : std::string_view(f.hint);
}

// ---- text

void print_finding(const CheckResult::Judged& j, bool show_fix) {
  const Finding& f = *j.finding;
  std::string place(f.rule->id);
  if (f.offset != kNowhere) place += fmt::format(", byte {}", f.offset);
  if (j.forgiven) place += ", forgiven";
  out(fmt::format("{} {}: {} {}\n",
                  paint(style_of(j.level), fmt::format("{}:", level_name(j.level))),
                  fit_charset(printable(f.where.text())), fit_charset(printable(f.text)),
                  paint(Style::Dim, fmt::format("[{}]", place))));
  if (show_fix) out(fmt::format("  fix: {}\n", fit_charset(printable(fix_for(f)))));
}

void print_findings(const CheckResult& r, bool all) {
  std::vector<std::pair<const Rule*, std::size_t>> shown;
  std::string_view last_fix;
  for (const CheckResult::Judged& j : r.judged) {
    auto known = std::ranges::find(shown, j.finding->rule, [](const auto& s) { return s.first; });
    if (known == shown.end()) known = shown.insert(shown.end(), {j.finding->rule, 0});
    if (all || known->second < kShownOfARule) {
      // The same advice once in a row.
      const std::string_view fix = fix_for(*j.finding);
      print_finding(j, fix != last_fix);
      last_fix = fix;
      ++known->second;
    }
  }
  for (const Diagnostics::Count& c : r.faults.counts()) {
    const auto it = std::ranges::find(shown, c.rule, [](const auto& s) { return s.first; });
    const std::size_t n = it == shown.end() ? 0 : it->second;
    if (n < c.count)
      out(fmt::format("and {} more of {}{}\n", c.count - n, c.rule->id,
                      !all && n < Diagnostics::kMostOfARule ? " (-v shows more)" : ""));
  }
}

void print_lost(const CheckResult& r, bool all) {
  const Diagnostics& d = r.faults;
  if (d.lost_count() == 0) return;
  const std::uint64_t left = r.model->catalog.entries().size();
  out(fmt::format("lost: {} of {}\n", times(d.lost_count(), "tensor"), d.lost_count() + left));
  Table table({{"  tensor"}, {"bytes", true}, {"of them there", true}});
  const std::size_t n = all ? d.lost().size() : std::min(kShownLost, d.lost().size());
  for (const Diagnostics::Lost& l : d.lost().first(n))
    table.row({"  " + printable(l.tensor), l.bytes ? human_bytes(l.bytes) : "?",
               l.bytes ? human_bytes(l.present) : "?"});
  table.print();
  if (n < d.lost_count())
    out(fmt::format("  and {} more{}\n", d.lost_count() - n, all ? "" : " (-v lists more)"));
}

void print_salvaged(const CheckResult& r) {
  if (!r.salvaged) return;
  const Salvaged& s = *r.salvaged;
  for (const std::string& line : s.left_out)
    out(fmt::format("left out: {}\n", fit_charset(printable(line))));
  out(fmt::format("wrote {}: {}, {}\n", fit_charset(printable(s.path)), times(s.tensors, "tensor"),
                  human_bytes(s.bytes)));
}

std::string summary(const CheckResult& r) {
  std::vector<std::string> parts;
  const auto add = [&](std::uint64_t n, std::string_view what) {
    if (n > 0) parts.push_back(times(n, what));
  };
  add(r.counts.errors, "error");
  add(r.counts.warnings, "warning");
  add(r.counts.notes, "note");
  if (r.counts.forgiven > 0) parts.push_back(fmt::format("{} forgiven", r.counts.forgiven));
  return parts.empty() ? "nothing found" : fmt::format("{}", fmt::join(parts, ", "));
}

std::uint64_t bytes_of(const Model& model) {
  std::uint64_t sum = 0;
  for (const SourcePtr& s : model.catalog.sources()) sum += s->size();
  return sum;
}

// ---- JSON

void write_model(JsonWriter& w, const CheckResult& r) {
  const Catalog& catalog = r.model->catalog;
  w.key("model");
  w.begin_object();
  w.member("format", catalog.format);
  w.member("files", std::uint64_t{catalog.sources().size()});
  w.member("bytes", bytes_of(*r.model));
  w.member("tensors", std::uint64_t{catalog.entries().size()});
  w.end_object();
  w.member("mode", r.lenient ? "lenient" : "strict");
  w.member("fast", r.fast);
  w.key("counts");
  w.begin_object();
  w.member("errors", r.counts.errors);
  w.member("warnings", r.counts.warnings);
  w.member("notes", r.counts.notes);
  w.member("forgiven", r.counts.forgiven);
  w.end_object();
}

void write_finding(JsonWriter& w, const CheckResult::Judged& j) {
  const Finding& f = *j.finding;
  w.begin_object();
  w.member("rule", f.rule->id);
  w.member("level", level_name(j.level));
  if (j.forgiven) w.member("forgiven", true);
  w.name_member("file", f.where.file);
  if (f.where.is_tensor())
    w.name_member("tensor", f.where.name);
  else if (!f.where.kind.empty())
    w.member("place", f.where.text().substr(f.where.file.size() + 2));
  if (f.offset != kNowhere) w.member("offset", f.offset);
  w.member("message", f.text);
  w.member("fix", fix_for(f));
  w.end_object();
}

void write_lost(JsonWriter& w, const Diagnostics& d) {
  w.key("lost");
  w.begin_array();
  for (const Diagnostics::Lost& l : d.lost()) {
    w.begin_object();
    w.name_member("tensor", l.tensor);
    w.name_member("file", l.file);
    w.key("bytes");
    l.bytes > 0 ? w.value(l.bytes) : w.null();
    w.member("present", l.present);
    w.end_object();
  }
  w.end_array();
  w.member("lost_count", d.lost_count());
}

void write_unlisted(JsonWriter& w, const Diagnostics& d) {
  w.key("unlisted");
  w.begin_array();
  for (const Diagnostics::Count& c : d.counts()) {
    if (c.count <= Diagnostics::kMostOfARule) continue;
    w.begin_object();
    w.member("rule", c.rule->id);
    w.member("count", c.count - Diagnostics::kMostOfARule);
    w.end_object();
  }
  w.end_array();
}

void write_values(JsonWriter& w, const HealthTotals& v) {
  w.key("values");
  w.begin_object();
  w.member("tensors", v.tensors);
  w.member("bytes", v.bytes);
  w.member("nan", v.nan);
  w.member("inf", v.infinite);
  w.member("bad_scales", v.bad_scales);
  w.member("duplicates", v.duplicates);
  w.member("duplicate_bytes", v.duplicate_bytes);
  w.end_object();
}

void write_salvaged(JsonWriter& w, const Salvaged& s) {
  w.key("salvaged");
  w.begin_object();
  w.name_member("path", s.path);
  w.member("tensors", s.tensors);
  w.member("bytes", s.bytes);
  w.key("left_out");
  w.begin_array();
  for (const std::string& line : s.left_out) w.value(line);
  w.end_array();
  w.end_object();
}

// ---- JUnit and SARIF

Verdict verdict_of(const CheckResult::Judged& j, const VerdictRule& rule) {
  const Finding& f = *j.finding;
  return {.rule = &rule,
          .level = j.fails ? Level::Error : j.level,
          .name = f.where.text(),
          .file = f.where.file,
          .tensors = f.where.is_tensor() ? std::vector{f.where.name} : std::vector<std::string>(),
          .message = f.where.text() + ": " + f.text,
          .fix = std::string(fix_for(f)),
          .byte = f.offset};
}

}  // namespace

void print_check(const CheckResult& r, bool all) {
  print_findings(r, all);
  print_lost(r, all);
  print_salvaged(r);
  const Catalog& catalog = r.model->catalog;
  const bool healthy = r.counts.errors == 0;
  const std::string_view verdict = !healthy                                         ? "DAMAGED"
                                   : !r.ok                                          ? "FAILED"
                                   : r.counts.warnings > 0 || r.counts.forgiven > 0 ? "no errors"
                                                                                    : "healthy";
  out(fmt::format("{}: {}: {} ({}, {}, {}{})\n", printable(r.model->path),
                  paint(r.ok ? Style::Green : Style::Red, verdict), summary(r),
                  catalog.format.empty() ? "of no format" : catalog.format,
                  times(catalog.entries().size(), "tensor"), human_bytes(bytes_of(*r.model)),
                  r.fast ? "; values were not read" : ""));
  if (!healthy && !r.salvaged && r.faults.lost_count() > 0 && !catalog.entries().empty())
    out("hint: --salvage OUT writes the tensors that are intact\n");
}

void write_check_json(const CheckResult& r) {
  JsonWriter w(out);
  w.begin_document("wtool.check/1", r.ok, {r.model->path});
  write_model(w, r);
  w.key("findings");
  w.begin_array();
  for (const CheckResult::Judged& j : r.judged) write_finding(w, j);
  w.end_array();
  write_unlisted(w, r.faults);
  write_lost(w, r.faults);
  if (!r.fast) write_values(w, r.values);
  if (r.salvaged) write_salvaged(w, *r.salvaged);
  w.end_object();
}

void write_check_findings(const CheckResult& r, const FindingsOptions& o) {
  if (!o.any()) return;
  std::deque<VerdictRule> rules;
  std::vector<Verdict> verdicts;
  const auto broken = [&](const Rule* rule) {
    return std::ranges::any_of(r.judged, [&](const auto& j) { return j.finding->rule == rule; });
  };
  for (const CheckResult::Judged& j : r.judged) {
    const Rule& rule = *j.finding->rule;
    if (rules.empty() || rules.back().id != rule.id) rules.push_back({rule.id, rule.summary});
    verdicts.push_back(verdict_of(j, rules.back()));
  }
  for (const Diagnostics::Count& c : r.faults.counts()) {
    if (c.count <= Diagnostics::kMostOfARule) continue;
    rules.push_back({c.rule->id, c.rule->summary});
    const auto first =
        std::ranges::find_if(r.judged, [&](const auto& j) { return j.finding->rule == c.rule; });
    Verdict more = verdict_of(*first, rules.back());
    more.message = fmt::format("and {} more findings, which are not listed",
                               c.count - Diagnostics::kMostOfARule);
    more.name = r.model->path;
    more.tensors.clear();
    more.byte = kNowhere;
    verdicts.push_back(std::move(more));
  }
  for (const RuleList list : r.rules)
    for (const Rule* rule : list) {
      if (broken(rule)) continue;
      rules.push_back({rule->id, rule->summary});
      verdicts.push_back({.rule = &rules.back(),
                          .level = Level::Passed,
                          .name = std::string(rule->summary),
                          .file = r.model->path,
                          .tensors = {},
                          .message = {},
                          .fix = {}});
    }
  write_findings(o, "check", verdicts);
}

void write_unreadable(const std::string& path, const Error& error, const FindingsOptions& o) {
  if (!o.any()) return;
  static constexpr VerdictRule kUnreadable{kUnreadableRule.id, kUnreadableRule.summary};
  const Verdict verdict{.rule = &kUnreadable,
                        .level = Level::Error,
                        .name = path,
                        .file = path,
                        .tensors = {},
                        .message = error.what(),
                        .fix = error.hint()};
  write_findings(o, "check", std::span(&verdict, 1));
}

ExitCode list_rules(const CheckOptions& o, const Context& context) {
  const auto lists = all_check_rules(context.registry);
  if (!context.common->json) {
    // No table: a summary cut in its middle says nothing.
    for (const RuleList list : lists)
      for (const Rule* r : list)
        out(fmt::format(
            "{}  {}{}\n    {}\n", paint(Style::Bold, r->id), level_name(level_of(*r, false)),
            r->forgivable && r->severity == Severity::Error ? ", forgivable" : "", r->summary));
    return ExitCode::Ok;
  }
  JsonWriter w(out);
  w.begin_object();
  w.member("schema", "wtool.check/1");
  w.member("ok", true);
  w.key("inputs");
  w.begin_array();
  if (!o.input.path.empty()) w.value(o.input.path);
  w.end_array();
  w.key("findings");
  w.begin_array();
  w.end_array();
  w.key("rules");
  w.begin_array();
  for (const RuleList list : lists)
    for (const Rule* r : list) {
      w.begin_object();
      w.member("id", r->id);
      w.member("level", level_name(level_of(*r, false)));
      w.member("forgivable", r->forgivable);
      w.member("summary", r->summary);
      w.member("fix", fix_of(*r));
      w.end_object();
    }
  w.end_array();
  w.end_object();
  return ExitCode::Ok;
}

}  // namespace wtool
