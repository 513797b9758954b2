#include <algorithm>
#include <array>
#include <numeric>

#include <fmt/format.h>

#include "cli/check_report.h"
#include "cli/terminal.h"
#include "formats/compressed_review.h"
#include "formats/config_review.h"
#include "formats/content.h"
#include "lib/base/text.h"
#include "lib/engine/execute.h"
#include "lib/model/folder.h"
#include "lib/model/review.h"
#include "lib/model/selector.h"

namespace wtool {
namespace {

using Level = Verdict::Level;

constexpr Rule kNote{"model.note", "opening the model noticed nothing", false, Severity::Note};
constexpr Rule kSuffix{"file.suffix", "the file's suffix is that of its format"};
constexpr std::array<const Rule*, 3> kOwnRules{&kNote, &kSuffix, &kUnreadableRule};

const Format* format_of(const Model& model, const Registry& registry) {
  const auto it = std::ranges::find(registry.formats, model.catalog.format,
                                    [](const Format* f) { return f->name; });
  return it == registry.formats.end() ? nullptr : *it;
}

// Those that this model could have broken: for the tests that passed.
std::vector<RuleList> rules_for(const Model& model, const Registry& registry, bool fast) {
  std::vector<RuleList> out{kOwnRules, catalog_rules(), text_rules(), content_rules()};
  if (const Format* format = format_of(model, registry)) {
    out.push_back(format->rules);
    out.push_back(format->review_rules);
    if (!model.index_name.empty()) out.push_back(format->index_rules);
  }
  if (model.is_folder || model.catalog.sources().size() > 1) out.push_back(model_rules());
  if (!model.side.empty()) out.push_back(config_rules());
  std::vector<const Scheme*> schemes;
  for (const LogicalTensor& t : model.tensors)
    if (t.scheme && std::ranges::find(schemes, t.scheme) == schemes.end())
      schemes.push_back(t.scheme);
  for (const Scheme* s : schemes) out.push_back(s->rules);
  if (!fast) out.push_back(health_rules());
  const auto compressed = [](const SourcePtr& s) {
    return dynamic_cast<const CompressedFile*>(s.get()) != nullptr;
  };
  if (!fast && std::ranges::any_of(model.catalog.sources(), compressed))
    out.push_back(compressed_rules());
  return out;
}

// Without the patterns that name lost tensors only: no typing mistakes, but there is nothing to
// read. Types and shapes of lost tensors are not known.
SelectOptions without_lost(const Model& model, SelectOptions o, const Diagnostics& faults) {
  std::vector<LogicalTensor> lost;
  lost.reserve(faults.lost().size());
  for (const Diagnostics::Lost& l : faults.lost()) lost.emplace_back().name = l.tensor;
  const auto any = [](const std::vector<bool>& flags) {
    return std::ranges::find(flags, true) != flags.end();
  };
  const auto names_lost = [&](const std::string& pattern) {
    if (lost.empty() || pattern.starts_with("dtype:") || pattern.starts_with("shape:") ||
        any(matching(model.tensors, pattern, true)))
      return false;
    const std::vector<bool> hits = matching(lost, pattern, true);
    const auto first = std::ranges::find(hits, true);
    if (first == hits.end()) return false;
    const Diagnostics::Lost& l = faults.lost()[static_cast<std::size_t>(first - hits.begin())];
    const auto more = std::ranges::count(hits, true) - 1;
    note(fmt::format(
        "{}: tensor {}{} is lost: there are no values of it to check", printable(l.file),
        quoted(l.tensor),
        more > 0 ? fmt::format(" (and {} more that {} selects)", more, quoted(pattern)) : ""));
    return true;
  };
  std::erase_if(o.exclude, names_lost);
  std::erase_if(o.include, names_lost);
  return o;
}

// The stored tensors that -t and -x leave.
std::vector<std::uint32_t> chosen_entries(const Model& model, const SelectOptions& o,
                                          const Diagnostics& faults) {
  const SelectOptions those = without_lost(model, o, faults);
  std::vector<std::uint32_t> out;
  if (those.include.empty() && !o.include.empty()) return out;
  for (const std::uint32_t i : selected(model, those)) {
    const auto parts = model.parts_of(model.tensors[i]);
    out.insert(out.end(), parts.begin(), parts.end());
  }
  std::ranges::sort(out);
  return out;
}

void check_values(CheckResult& result, std::span<const std::uint32_t> entries,
                  const Context& context) {
  RunOptions run = context.run;
  Progress progress(*context.common, "check", "units");
  run.progress = progress.callback();
  ValueCheck check(result.model, entries, result.faults, says_tied(*result.model));
  for (Plan plan; check.next(plan); plan = {}) execute(plan, run);
  result.values = check.totals();
}

// Engines choose their reader by the suffix.
void review_suffixes(const Model& model, const Registry& registry, Diagnostics& faults) {
  for (const SourcePtr& s : model.catalog.sources()) {
    const Format* by_name = registry.by_suffix(s->name());
    if (by_name && by_name->name != model.catalog.format)
      faults.report(
          kSuffix, s->name(), 0,
          fmt::format("is {} under the name of a {} file", model.catalog.format, by_name->name),
          "rename it, or ask why it has that name");
  }
}

void look_at(CheckResult& result, std::span<const std::uint32_t> entries, const CheckOptions& o,
             const Context& context) {
  const Model& model = *result.model;
  Diagnostics& faults = result.faults;
  review_suffixes(model, context.registry, faults);
  review_texts(model, faults);
  review_content(model, !o.fast, faults);
  review_config(model, !o.fast, faults);
  if (const Format* format = format_of(model, context.registry); format && format->review)
    format->review(model.catalog, !o.fast, faults);
  if (!o.fast) check_values(result, entries, context);
}

void review(CheckResult& result, const CheckOptions& o, const Context& context) {
  const Model& model = *result.model;
  Diagnostics& faults = result.faults;
  auto entries = chosen_entries(model, o.select, faults);
  const Diagnostics before = faults;
  const DamageReview damage(model);
  look_at(result, entries, o, context);
  for (const SourcePtr& s : model.catalog.sources()) s->check_unchanged();
  Diagnostics found = before;
  result.damaged = damage.report(found);
  if (found.count() > before.count()) {  // once more, without values that are none
    faults = std::move(found);
    std::erase_if(entries, [&](std::uint32_t i) { return result.damaged[i]; });
    look_at(result, entries, o, context);
  }
  for (const Diagnostics::Note& n : faults.notes()) faults.report(kNote, n.where, kNowhere, n.text);
}

void judge_findings(CheckResult& result) {
  for (const Finding& f : result.faults.findings()) {
    const Level level = level_of(*f.rule, result.lenient);
    result.judged.push_back(
        {&f, level, level != Level::Error && f.rule->severity == Severity::Error});
  }
  std::ranges::stable_sort(result.judged, std::greater(), &CheckResult::Judged::level);
  for (const Diagnostics::Count& c : result.faults.counts()) {
    const Level level = level_of(*c.rule, result.lenient);
    CheckResult::Counts& n = result.counts;
    if (level == Level::Error)
      n.errors += c.count;
    else if (c.rule->severity == Severity::Error)
      n.forgiven += c.count;
    else
      (level == Level::Warning ? n.warnings : n.notes) += c.count;
  }
}

// --fail-on: levels, rules, or the part of a rule's id before a dot, with commas between.
struct FailOn {
  Level level = Level::Error;
  std::vector<std::string> rules;

  bool fails(const CheckResult::Judged& j) const {
    return j.level >= level || std::ranges::any_of(rules, [&](const std::string& r) {
             const std::string_view id = j.finding->rule->id;
             return id == r || (id.starts_with(r) && id[r.size()] == '.');
           });
  }
};

FailOn fail_on(const CheckOptions& o, const Registry& registry) {
  FailOn out;
  std::vector<std::string_view> known{"error", "warning", "note"};
  for (const RuleList list : all_check_rules(registry))
    for (const Rule* r : list) {
      known.push_back(r->id);
      known.push_back(r->id.substr(0, r->id.find('.')));
    }
  for (std::string_view rest = o.fail_on; !rest.empty();) {
    const std::string word(rest.substr(0, rest.find(',')));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    if (std::ranges::find(known, word) == known.end()) {
      const auto near = nearest(word, known);
      throw Error(Fault::Usage, fmt::format("--fail-on: unknown level or rule {}", quoted(word)))
          .hint(near.empty() ? "error, warning, note, or one of 'wtool check --rules'"
                             : fmt::format("did you mean '{}'?", near));
    }
    if (word == "note")
      out.level = std::min(out.level, Level::Note);
    else if (word == "warning")
      out.level = std::min(out.level, Level::Warning);
    else if (word != "error")
      out.rules.push_back(word);
  }
  return out;
}

std::shared_ptr<const Model> open(CheckResult& result, const CheckOptions& o,
                                  const Context& context) {
  try {
    return open_model(o.input.path, context.registry, open_options(o.input, context),
                      result.faults);
  } catch (const Error& e) {
    // A disk that fails is no finding; that nothing is there is one.
    if (e.fault() == Fault::BadFile || e.fault() == Fault::Unsupported ||
        (e.fault() == Fault::Io && !exists(o.input.path)))
      write_unreadable(o.input.path, e, o.findings);
    throw;
  }
}

}  // namespace

std::vector<RuleList> all_check_rules(const Registry& registry) {
  std::vector<RuleList> out;
  for (const Format* f : registry.formats)
    for (const RuleList list : {f->rules, f->index_rules, f->review_rules})
      if (!list.empty()) out.push_back(list);
  out.insert(out.end(), {catalog_rules(), model_rules(), config_rules(), text_rules(),
                         content_rules(), compressed_rules(), health_rules(), RuleList(kOwnRules)});
  for (const Scheme* s : registry.schemes)
    if (!s->rules.empty()) out.push_back(s->rules);
  return out;
}

Level level_of(const Rule& rule, bool lenient) noexcept {
  if (rule.severity == Severity::Note) return Level::Note;
  if (rule.severity == Severity::Warning || (lenient && rule.forgivable)) return Level::Warning;
  return Level::Error;
}

ExitCode check_health(const CheckOptions& o, const Context& context) {
  if (o.strict && o.lenient)
    throw Error(Fault::Usage, "--strict and --lenient contradict each other");
  const FailOn failing = fail_on(o, context.registry);
  const std::array<std::string, 1> taken{o.input.path};
  check_report_files(o.findings.files(), o.findings.force, taken);
  CheckResult result;
  result.fast = o.fast;
  result.lenient = o.lenient;
  result.model = open(result, o, context);
  std::vector<std::string> files = files_of(*result.model);
  if (!o.salvage.empty()) files.push_back(check_salvage(*result.model, o, context));
  check_report_files(o.findings.files(), o.findings.force, files);
  review(result, o, context);
  result.rules = rules_for(*result.model, context.registry, o.fast);
  judge_findings(result);
  for (CheckResult::Judged& j : result.judged) j.fails = failing.fails(j);
  result.ok = std::ranges::none_of(result.judged, &CheckResult::Judged::fails);
  std::optional<Error> failed;  // what was found is told all the same
  if (!o.salvage.empty()) try {
      result.salvaged = salvage(result.model, result.faults, result.damaged, o, context);
    } catch (const Error& e) {
      if (e.fault() == Fault::Cancelled) throw;
      failed = e;
    }
  if (context.common->json)
    write_check_json(result);
  else
    print_check(result, context.common->verbose);
  // Where nothing can be written, nothing more is.
  if (!failed || failed->fault() != Fault::Io) write_check_findings(result, o.findings);
  if (failed) throw Error(*failed);
  if (result.counts.errors > 0 && result.model->catalog.entries().empty()) return ExitCode::BadFile;
  return result.ok ? ExitCode::Ok : ExitCode::No;
}

}  // namespace wtool
