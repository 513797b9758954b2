#include <algorithm>
#include <numeric>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/diff.h"
#include "cli/terminal.h"
#include "cli/tree.h"
#include "lib/base/text.h"
#include "lib/engine/execute.h"
#include "lib/model/selector.h"

namespace wtool {
namespace {

struct Options {
  InputOptions a;
  std::string b;
  SelectOptions select;
  std::string tolerance, map, by;
  GateOptions gates;
  FindingsOptions findings;

  // Where gates judge the values, nothing else does unless it is asked for.
  std::string tolerance_word() const {
    if (!tolerance.empty()) return tolerance;
    return gates.gates.empty() ? "exact" : "any";
  }
};

// ---- what is compared

// One flag a tensor: whether -t and -x leave it in. A pattern must match in one of the models.
struct Kept {
  std::vector<bool> a, b;
};
std::vector<bool> matching_in(const Model& model, const std::string& pattern, bool required) {
  try {
    return matching(model.tensors, pattern, !required);
  } catch (Error& e) {
    throw e.in(model.path);
  }
}
void mark(const Model& a, const Model& b, const std::vector<std::string>& patterns,
          bool allow_unmatched, Kept& flags) {
  for (const std::string& pattern : patterns) {
    const std::vector<bool> in_b = matching_in(b, pattern, false);
    const bool any = std::ranges::find(in_b, true) != in_b.end();
    const std::vector<bool> in_a = matching_in(a, pattern, !any && !allow_unmatched);
    for (std::size_t i = 0; i < in_a.size(); ++i) flags.a[i] = flags.a[i] || in_a[i];
    for (std::size_t i = 0; i < in_b.size(); ++i) flags.b[i] = flags.b[i] || in_b[i];
  }
}

// A pair stays if either side is selected and neither is excluded.
class Selection {
 public:
  Selection(const Model& a, const Model& b, const SelectOptions& o)
      : all_(o.include.empty()), in_(none(a, b)), out_(none(a, b)) {
    mark(a, b, o.include, o.allow_unmatched, in_);
    mark(a, b, o.exclude, o.allow_unmatched, out_);
  }
  bool keeps(const TensorPair& p) const {
    const auto any = [](const std::vector<std::uint32_t>& of, const std::vector<bool>& flags) {
      return std::ranges::any_of(of, [&](std::uint32_t i) { return flags[i]; });
    };
    return (all_ || any(p.a, in_.a) || any(p.b, in_.b)) && !any(p.a, out_.a) && !any(p.b, out_.b);
  }
  bool keeps_a(std::uint32_t i) const { return (all_ || in_.a[i]) && !out_.a[i]; }
  bool keeps_b(std::uint32_t i) const { return (all_ || in_.b[i]) && !out_.b[i]; }

 private:
  static Kept none(const Model& a, const Model& b) {
    return {std::vector<bool>(a.tensors.size()), std::vector<bool>(b.tensors.size())};
  }
  bool all_;
  Kept in_, out_;
};

// What only the run needs of a line.
struct Work {
  TensorPtr a, b;
  std::shared_ptr<IdentityStep> identity;
  std::shared_ptr<ComparisonStep> comparison;
};

DiffLine line_of(const Diff& diff, const TensorPair& p, Work& work) {
  const MapSide *side_a = p.rule ? &p.rule->a : nullptr, *side_b = p.rule ? &p.rule->b : nullptr;
  const std::string place = p.rule ? p.rule->place : std::string();
  work.a = open_side(*diff.a, p.a, side_a, place);
  work.b = open_side(*diff.b, p.b, side_b, place);
  DiffLine line;
  line.a = side_name(*diff.a, p.a, side_a);
  line.b = side_name(*diff.b, p.b, side_b);
  line.dtype = diff.a->tensors[p.a.front()].dtype;
  line.shape_a = work.a->shape();
  line.shape_b = work.b->shape();
  line.dtype_a = type_label(*diff.a, diff.a->tensors[p.a.front()]);
  line.dtype_b = type_label(*diff.b, diff.b->tensors[p.b.front()]);
  return line;
}

Alone alone(const Model& model, const LogicalTensor& t) {
  return {std::string(t.name), Shape(t.shape.begin(), t.shape.end()),
          std::string(type_label(model, t))};
}

std::vector<MapRule> read_map(const std::string& path) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 22;
  if (path.empty()) return {};
  const SourcePtr file = open_file(path);
  if (file->size() > kMost)
    throw Error(Fault::Usage, fmt::format("{} bytes are too many for a map", file->size()))
        .in(path);
  return parse_map(as_text(read_all({file, 0, file->size()})), path);
}

// ---- values

bool numeric(const Tensor& t) {
  const Kind kind = info(t.dtype()).kind;
  return kind != Kind::Complex && kind != Kind::Opaque;
}

// Values without numbers can only be told to be the same or not.
std::shared_ptr<ComparisonStep> comparison_of(const Diff& diff, const DiffLine& line,
                                              const Work& work) {
  try {
    return std::make_shared<ComparisonStep>(line.a, work.a, work.b, diff.tolerance);
  } catch (Error& e) {
    throw e.in(fmt::format("tensor {}", quoted(line.a)));
  }
}

void execute_all(Plan& plan, std::string_view title, const Context& context) {
  Progress progress(*context.common, std::string(title));
  RunOptions run = context.run;
  run.progress = progress.callback();
  execute(plan, run);
}

// First the bytes: most pairs hold the same, or differ at once. What is left is measured.
// `all`: sums are wanted, so if any pair is not the same, all are measured.
void compare_values(Diff& diff, std::vector<Work>& work, bool all, const Context& context) {
  Plan first, second;
  for (std::size_t i = 0; i < work.size(); ++i) {
    if (!diff.lines[i].same_shape()) continue;
    diff.lines[i].compared = true;
    // Refused before any work, not after half of it.
    if (numeric(*work[i].a) && numeric(*work[i].b))
      work[i].comparison = comparison_of(diff, diff.lines[i], work[i]);
    if (work[i].a->dtype() != work[i].b->dtype()) continue;
    work[i].identity = std::make_shared<IdentityStep>(work[i].a, work[i].b);
    first.measures.push_back(work[i].identity);
  }
  execute_all(first, "diff: bytes", context);
  const bool any = std::ranges::any_of(
      work, [](const Work& w) { return w.comparison && !(w.identity && w.identity->same()); });
  for (std::size_t i = 0; i < work.size(); ++i) {
    DiffLine& line = diff.lines[i];
    if (!line.compared) continue;
    line.values = identical(work[i].a->elements());
    line.in_steps = work[i].comparison && work[i].comparison->in_steps();
    if (work[i].identity && work[i].identity->same() && !(all && any)) {
      work[i].comparison = nullptr;
    } else if (work[i].comparison) {
      second.measures.push_back(work[i].comparison);
    } else if (!work[i].identity || !work[i].identity->same()) {
      line.values.changed = line.values.beyond = line.values.elements;
    }
  }
  execute_all(second, "diff: values", context);
  for (std::size_t i = 0; i < work.size(); ++i)
    if (work[i].comparison) diff.lines[i].values = work[i].comparison->result();
}

std::shared_ptr<const Model> open_one(const Options& o, const std::string& path,
                                      const Context& context) {
  InputOptions input = o.a;
  input.path = path;
  return open_input(input, context);
}

// What gates select from: the tensors compared, by their names in A.
std::vector<LogicalTensor> gate_rows(const Diff& diff) {
  std::vector<LogicalTensor> rows;
  for (const DiffLine& l : diff.lines) {
    if (!l.same_shape()) continue;
    LogicalTensor t;
    t.name = l.a;
    t.shape = l.shape_a;
    t.dtype = l.dtype;
    rows.push_back(t);
  }
  return rows;
}

Diff compare(const Options& o, const Context& context) {
  Diff diff;
  diff.tolerance_text = o.tolerance_word();
  diff.tolerance = *parse_tolerance(diff.tolerance_text);
  diff.gates = read_gates(o.gates, comparison_columns());
  const std::vector<MapRule> rules = read_map(o.map);
  diff.a = open_one(o, o.a.path, context);
  diff.b = open_one(o, o.b, context);
  std::vector<std::string> taken = files_of(*diff.a);
  for (std::string& path : files_of(*diff.b)) taken.push_back(std::move(path));
  check_report_files(o.findings.files(), o.findings.force, taken);
  if (o.map.empty()) see_alike(diff);
  for (const std::string& n : diff.notes) note(printable(n));
  const Selection selection(*diff.a, *diff.b, o.select);
  const Pairing pairing = pair_tensors(*diff.a, *diff.b, rules, o.select.allow_unmatched);
  std::vector<Work> work;
  for (const TensorPair& p : pairing.pairs) {
    if (!selection.keeps(p)) continue;
    diff.lines.push_back(line_of(diff, p, work.emplace_back()));
  }
  for (const std::uint32_t i : pairing.only_a)
    if (selection.keeps_a(i)) diff.only_a.push_back(alone(*diff.a, diff.a->tensors[i]));
  for (const std::uint32_t i : pairing.only_b)
    if (selection.keeps_b(i)) diff.only_b.push_back(alone(*diff.b, diff.b->tensors[i]));
  diff.metadata = diff_metadata(diff.a->catalog.meta, diff.b->catalog.meta);
  if (diff.opened)  // that a file was made of another is no difference from what it would be
    std::erase_if(diff.metadata,
                  [](const KeyDifference& d) { return d.key.starts_with("wtool."); });
  diff.files = diff_side_files(*diff.a, *diff.b);
  const std::vector<LogicalTensor> rows = gate_rows(diff);
  for (const Gate& g : diff.gates) check_gate(g, rows);
  compare_values(diff, work, !o.by.empty(), context);
  for (const Model* m : {diff.a.get(), diff.b.get()})
    for (const SourcePtr& s : m->catalog.sources()) s->check_unchanged();
  diff.judged = judge_gates(diff.gates, report_of(diff), rows);
  return diff;
}

// ---- the command

ExitCode run(const Options& o, const Context& context) {
  if (o.a.path == "-" && o.b == "-")
    throw Error(Fault::Usage, "standard input cannot be both models");
  const Diff diff = compare(o, context);
  const DiffView view{.by_layer = !o.by.empty(), .all = context.common->verbose};
  if (context.common->json)
    write_diff_json(diff, view);
  else
    print_diff(diff, view);
  if (o.findings.any()) write_findings(o.findings, "diff", diff_verdicts(diff));
  return diff.ok() ? ExitCode::Ok : ExitCode::No;
}

Action bind(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("A", options->a.path, "what there was: a file, a folder, any shard; - is stdin")
      ->required();
  app.add_option("B", options->b, "what it became")->required();
  add_open_options(app, options->a);
  add_select_options(app, options->select);
  app.add_option("--tolerance", options->tolerance,
                 "exact (default), step (half a quantization step), ABS[:REL], or any")
      ->option_text("WHAT")
      ->check([](const std::string& s) {
        return parse_tolerance(s)
                   ? std::string()
                   : fmt::format("{} is none of exact, step, any, ABS, ABS:REL", quoted(s));
      });
  app.add_option("--map", options->map,
                 "pair tensors by these rules of names and transforms instead")
      ->option_text("FILE");
  app.add_option("--by", options->by, "a strip and a line per layer")
      ->option_text("WHAT")
      ->check([](const std::string& s) {
        return s == "layer" ? std::string() : fmt::format("{} is not layer", quoted(s));
      });
  add_gate_option(app, options->gates, "exit 1 unless 'max(rel_rmse) <= 0.01'; @FILE has several");
  add_findings_options(app, options->findings);
  add_findings_force_option(app, options->findings);
  app.footer(
      "examples:\n"
      "  wtool diff a.safetensors b.safetensors\n"
      "  wtool diff model/ model-int4/ --tolerance step\n"
      "  wtool diff model/ model.gguf --tolerance 0\n");
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace

extern const Command kDiff;
const Command kDiff{"diff", "what changed between two models: structure and values", bind};

}  // namespace wtool
