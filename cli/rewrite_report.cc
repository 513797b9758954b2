// What convert and quantize print: the plan, the outcome, as text and as JSON.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "cli/json.h"
#include "cli/rewrite.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/numeric/drift.h"

namespace wtool {
namespace {

struct Totals {
  std::uint64_t elements = 0, bytes_in = 0, bytes_out = 0;
  std::size_t encoded = 0, kept = 0;
};
Totals totals_of(const Job& job) {
  Totals t;
  for (const Fate& f : job.fates) {
    t.elements += f.elements;
    t.bytes_in += f.bytes_in;
    t.bytes_out += f.bytes_out;
    t.encoded += f.encoded;
    t.kept += f.kept;
  }
  return t;
}

double bits_per_weight(const Totals& t) {
  return t.elements == 0 ? 0
                         : 8 * static_cast<double>(t.bytes_out) / static_cast<double>(t.elements);
}

struct Group {
  std::string name, from, to, why, origin;
  Shape shape;
  std::size_t count = 0;
  std::uint64_t bytes_in = 0, bytes_out = 0;
  bool several_shapes = false;
};

// What the tensor was in the input: "model.layers.*.mlp.up_proj.weight, transposed".
std::string origin_text(const Fate& f, bool one_by_one) {
  if (!f.origin) return {};
  const std::string& name = f.origin->tensors;
  return (one_by_one ? name : folded(name)) + (f.origin->how.empty() ? "" : ", " + f.origin->how);
}

// Fates that say the same of tensors whose names differ in numbers only, in order of appearance.
std::vector<Group> grouped(const Job& job, bool one_by_one) {
  std::vector<Group> groups;
  using Key = std::array<std::string, 4>;
  std::map<Key, std::size_t> at;
  for (std::size_t i = 0; i < job.fates.size(); ++i) {
    const Fate& f = job.fates[i];
    const std::string name = one_by_one ? f.name : folded(f.name);
    const std::string& why = f.why.empty() ? f.reason : f.why;
    const auto [it, fresh] = at.emplace(
        one_by_one ? Key{std::to_string(i)} : Key{name, f.from, f.to, why}, groups.size());
    if (fresh) groups.push_back({name, f.from, f.to, why, origin_text(f, one_by_one), f.shape});
    Group& g = groups[it->second];
    if (g.count == 1 && name != f.name) g.name = name;
    if (g.count == 0) g.name = f.name;
    g.several_shapes |= g.shape != f.shape;
    ++g.count;
    g.bytes_in += f.bytes_in;
    g.bytes_out += f.bytes_out;
  }
  return groups;
}

void print_fates(const Job& job, bool verbose) {
  std::vector<Table::Column> columns{{"tensor"},         {"", true, 2}, {"shape", false, 4},
                                     {"from", false, 1}, {"to"},        {"size", true, 3},
                                     {"why", false, 0}};
  if (job.view) columns.push_back({"made of", false, 1});
  Table table(std::move(columns));
  for (const Group& g : grouped(job, verbose)) {
    std::vector<std::string> cells{printable(g.name),
                                   g.count > 1 ? fmt::format("×{}", g.count) : "",
                                   g.several_shapes ? "various" : to_text(g.shape),
                                   g.from,
                                   g.to,
                                   human_bytes(g.bytes_out),
                                   g.why};
    if (job.view) cells.push_back(printable(g.origin));
    table.row(std::move(cells));
  }
  table.print(2);
}

// What did not become what was asked for: what stayed, and what fell back to smaller groups.
void print_kept(const Job& job) {
  Table table({{"kept or fallen back"}, {"", true, 2}, {"type", false, 1}, {"why"}});
  Job only{.model = job.model,
           .chosen = {},
           .owner = {},
           .to = job.to,
           .rename = job.rename,
           .meta = {},
           .plan = {},
           .fates = {},
           .side = {},
           .remarks = {}};
  for (const Fate& f : job.fates)
    if (f.kept || (f.encoded && !f.why.empty())) only.fates.push_back(f);
  if (only.fates.empty()) return;
  for (const Group& g : grouped(only, false))
    table.row({printable(g.name), g.count > 1 ? fmt::format("×{}", g.count) : "", g.to, g.why});
  table.print();
}

double metric(const Row& row, const Column& column) {
  const Cell* cell = row.find(column.name);
  if (!cell) return std::nan("");
  if (const auto* d = std::get_if<double>(cell)) return *d;
  return static_cast<double>(std::get<std::uint64_t>(*cell));
}
std::string bins(const Row& row) {
  const Cell* cell = row.find(kErrorBins.name);
  const auto* h = cell ? std::get_if<Histogram>(cell) : nullptr;
  return h ? histogram_bar(*h) : "";
}

// Columns that only some ways of quantizing fill.
std::vector<const Column*> extra_columns(std::span<const Row* const> rows) {
  std::vector<const Column*> out;
  for (const Column* c : {&kExactRmse, &kWeightedRmse, &kExactWeightedRmse, &kFallbackBlocks})
    if (std::ranges::any_of(rows, [&](const Row* r) { return r->find(c->name) != nullptr; }))
      out.push_back(c);
  return out;
}

// Where the table is too wide, what says least goes first and the names stay whole: no fallback is
// no news, SQNR is the error again in decibels.
int room_for(const Column& extra, std::span<const Row* const> rows) {
  const bool weighted = rows.front()->find(kWeightedRmse.name) != nullptr;
  if (extra.name == kExactRmse.name) return weighted ? 2 : 0;
  if (extra.name != kFallbackBlocks.name) return 0;
  return std::ranges::any_of(rows, [](const Row* r) { return metric(*r, kFallbackBlocks) > 0; })
             ? 1
             : 6;
}

Table error_table(std::span<const Row* const> rows, std::string title) {
  const auto extra = extra_columns(rows);
  std::vector<Table::Column> heads{{std::move(title)}, {"rel_rmse", true}};
  for (const Column* c : extra) heads.push_back({std::string(c->title), true, room_for(*c, rows)});
  heads.insert(heads.end(), {{"SQNR dB", true, 5},
                             {"max|err|/step", true, 3},
                             {"cos", true, 4},
                             {"histogram of error", false, 7}});
  Table table(std::move(heads));
  const auto cell = [](const Row* r, const Column& c, fmt::format_string<double> form) {
    return r->find(c.name) ? fmt::format(form, metric(*r, c)) : "";
  };
  for (const Row* r : rows) {
    std::vector<std::string> cells{printable(r->tensor), cell(r, kRelRmse, "{:.3g}")};
    for (const Column* c : extra) cells.push_back(cell(r, *c, "{:.3g}"));
    cells.push_back(cell(r, kSqnr, "{:.1f}"));
    cells.push_back(cell(r, kMaxSteps, "{:.2f}"));
    cells.push_back(cell(r, kCosine, "{:.6f}"));
    cells.push_back(bins(*r));
    table.row(std::move(cells));
  }
  return table;
}

void print_errors(const Report& report, bool all) {
  std::vector<const Row*> rows;
  for (const Row& r : report.rows)
    if (r.find(kRelRmse.name)) rows.push_back(&r);
  if (rows.empty()) return;
  std::ranges::stable_sort(rows, std::greater<>(),
                           [](const Row* r) { return metric(*r, kRelRmse); });
  constexpr std::size_t kShown = 10;
  const std::size_t n = all ? rows.size() : std::min(kShown, rows.size());
  error_table(std::span(rows).first(n),
              rows.size() > 1 ? "worst by relative error" : "relative error")
      .print();
  if (n < rows.size())
    out(fmt::format("  and {} more with smaller errors (-v lists all)\n", rows.size() - n));
}

// Whether it would be met if these tensors were kept, so had no row.
bool passes_without(const Outcome& o, const GateResult& gate, std::span<const Fate* const> kept) {
  Report rest;
  for (const Row& r : o.report.rows)
    if (std::ranges::find(kept, r.tensor, [](const Fate* f) { return f->name; }) == kept.end())
      rest.rows.push_back(r);
  try {
    return judge(*gate.gate, rest, o.gate_rows).passed;
  } catch (const Error&) {  // nothing is left to judge
    return false;
  }
}

// The tensors that failed, kept as they are.
void print_way_out(const Outcome& o, const GateResult& gate) {
  constexpr std::size_t kShown = 3;
  std::vector<const Fate*> kept;
  bool all = true;
  for (const GateTensor& t : gate.chief().tensors) {
    const auto f = std::ranges::find(o.job.fates, t.name, &Fate::name);
    if (f == o.job.fates.end() || f->bytes_in <= f->bytes_out) continue;
    if (kept.size() == kShown) {
      all = false;
      break;
    }
    kept.push_back(&*f);
  }
  if (kept.empty()) return;
  std::string rules;
  std::uint64_t more = 0;
  for (const Fate* f : kept) {
    rules += fmt::format("{}-T '{}=keep'", rules.empty() ? "" : " ", printable(f->source));
    more += f->bytes_in - f->bytes_out;
  }
  out(fit_charset(fmt::format("hint: {}{} adds {}{}\n", rules, all ? "" : " …", human_bytes(more),
                              passes_without(o, gate, kept) ? " and would pass" : "")));
}

void print_gates(const Outcome& o) {
  if (o.dry_run && !o.how.gates.empty())
    out("gates are judged by what is really stored: not in a dry run\n");
  for (const GateResult& g : o.gates) {
    print_gate(g);
    if (!g.passed) print_way_out(o, g);
  }
}

std::string summary_line(const Outcome& o) {
  const Totals t = totals_of(o.job);
  std::string text;
  std::map<std::string, std::size_t> into;
  for (const Fate& f : o.job.fates)
    if (f.encoded) ++into[f.to];
  for (const auto& [to, n] : into)
    text += fmt::format("{}{} tensor{} to {}", text.empty() ? "" : ", ", n, n == 1 ? "" : "s", to);
  const std::size_t copied = o.job.fates.size() - t.encoded - t.kept;
  if (copied > 0)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", copied,
                        o.job.view ? "of the same type" : "copied");
  if (t.kept > 0)
    text += fmt::format("{}{} kept ({})", text.empty() ? "" : ", ", t.kept, kept_reasons(o.job));
  return text + fmt::format("\n{} → {}   {:.2f} bits/weight", human_bytes(t.bytes_in),
                            human_bytes(t.bytes_out), bits_per_weight(t));
}

void print_files(const Outcome& o) {
  const Job& job = o.job;
  const std::size_t n = job.plan.files.size();
  const bool folder = job.to.kind == OutputSet::Kind::Folder;
  out(fit_charset(fmt::format("{} {}: {}, {} bytes", o.dry_run ? "would write" : "wrote",
                              printable(job.to.path), job.to.format->name,
                              o.placement.total_bytes)));
  if (folder) out(fmt::format(" in {} file{}", n, n == 1 ? "" : "s"));
  if (folder && !job.plan.side.empty()) out(fmt::format(" and {} beside", job.plan.side.size()));
  out("\n");
}

void write_tensors(JsonWriter& w, const Outcome& o) {
  // Rows follow the plan like fates do: walk both side by side.
  std::size_t at = 0;
  w.key("tensors");
  w.begin_array();
  for (const Fate& f : o.job.fates) {
    w.begin_object();
    w.name_member("name", f.name);
    w.member("shape", f.shape);
    w.member("from", std::string_view(f.from));
    w.member("to", std::string_view(f.to));
    if (f.origin) {
      w.name_member("made_of", f.origin->tensors);
      if (!f.origin->how.empty()) w.member("how", std::string_view(f.origin->how));
    }
    w.member("encoded", f.encoded);
    w.member("kept", f.kept);
    if (!f.why.empty() || !f.reason.empty())
      w.member("reason", std::string_view(f.why.empty() ? f.reason : f.why));
    if (!f.instead_of.empty()) w.member("instead_of", std::string_view(f.instead_of));
    if (!f.importance.empty()) w.member("importance", std::string_view(f.importance));
    w.member("bytes_in", f.bytes_in);
    w.member("bytes_out", f.bytes_out);
    const auto rows = std::span(o.report.rows);
    if (at < rows.size() && rows[at].tensor == f.name) {
      for (const auto& [column, cell] : rows[at].cells) w.member(column->name, cell);
      ++at;
    }
    w.end_object();
  }
  w.end_array();
}

void write_files(JsonWriter& w, const Outcome& o) {
  w.key("files");
  w.begin_array();
  for (std::size_t i = 0; i < o.job.plan.files.size(); ++i) {
    w.begin_object();
    w.name_member("name", o.job.to.kind == OutputSet::Kind::Folder
                              ? std::string_view(o.job.plan.files[i].name)
                              : std::string_view(o.job.to.path));
    w.member("bytes", o.placement.files[i].total_bytes);
    w.end_object();
  }
  for (const SideFile& s : o.job.plan.side) {
    w.begin_object();
    w.name_member("name", s.name);
    w.member("bytes", s.content->size());
    w.end_object();
  }
  w.end_array();
}

}  // namespace

std::string kept_reasons(const Job& job) {
  // "2 norm", but "2: 100 columns do not divide".
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  std::vector<std::pair<std::string, std::size_t>> reasons;
  for (const Fate& f : job.fates) {
    if (!f.kept) continue;
    const auto it = std::ranges::find(reasons, f.why, [](const auto& r) { return r.first; });
    if (it == reasons.end())
      reasons.emplace_back(f.why, 1);
    else
      ++it->second;
  }
  std::string text;
  for (const auto& [why, n] : reasons)
    text += fmt::format("{}{}{} {}", text.empty() ? "" : ", ", n,
                        why.empty() || is_letter(why[0]) ? "" : ":", why);
  return text;
}

void print_outcome(const Outcome& o, bool verbose) {
  out(fit_charset(summary_line(o)) + "\n");
  if (o.dry_run)
    print_fates(o.job, verbose);
  else
    print_kept(o.job);
  print_errors(o.report, verbose);
  if (o.job.meta.find("quantization_config") && !o.how.quantization.empty())
    out(fmt::format("quantization_config, in the metadata: {}\n", printable(o.how.quantization)));
  for (const std::string& r : o.job.remarks)
    if (!r.starts_with(kWarning))
      out(fit_charset(printable(r) + "\n"));  // warnings were told before
  print_gates(o);
  if (!o.dry_run && !o.written()) return out("nothing was written\n");
  print_files(o);
  for (const WrittenRecord& r : o.records)
    out(fit_charset(
        fmt::format("{}{}: {}\n", o.dry_run ? "would write " : "", printable(r.path), r.kind)));
  if (!all_passed(o.gates)) out("kept although a gate failed (--keep)\n");
}

void write_outcome_json(const Outcome& o, std::function<void(std::string_view)> sink) {
  const Totals t = totals_of(o.job);
  JsonWriter w(std::move(sink));
  w.begin_document(fmt::format("wtool.{}/1", o.how.verb), all_passed(o.gates) && !o.how.incomplete,
                   {o.job.model->path});
  w.member("dry_run", o.dry_run);
  w.key("output");
  w.begin_object();
  w.name_member("path", o.job.to.path);
  w.member("format", std::string_view(o.job.to.format->name));
  w.member("written", o.written());
  w.member("bytes", o.placement.total_bytes);
  write_files(w, o);
  w.end_object();
  w.key("records");
  w.begin_array();
  for (const WrittenRecord& r : o.records) {
    w.begin_object();
    w.member("kind", r.kind);
    w.name_member("path", r.path);
    w.end_object();
  }
  w.end_array();
  w.key("totals");
  w.begin_object();
  w.member("tensors", std::uint64_t{o.job.fates.size()});
  w.member("encoded", std::uint64_t{t.encoded});
  w.member("kept", std::uint64_t{t.kept});
  w.member("parameters", t.elements);
  w.member("bytes_in", t.bytes_in);
  w.member("bytes_out", t.bytes_out);
  w.member("bits_per_weight", bits_per_weight(t));
  w.end_object();
  write_tensors(w, o);
  write_gates(w, o.gates);
  w.key("remarks");
  w.begin_array();
  for (const std::string& r : o.job.remarks) w.value(std::string_view(r));
  w.end_array();
  if (!o.how.quantization.empty())
    w.member("quantization_config", std::string_view(o.how.quantization));
  w.end_object();
}

}  // namespace wtool
