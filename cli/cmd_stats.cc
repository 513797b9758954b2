#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <numeric>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/gates.h"
#include "cli/json.h"
#include "cli/terminal.h"
#include "cli/tree.h"
#include "lib/base/text.h"
#include "lib/engine/execute.h"
#include "lib/numeric/statistics.h"

namespace wtool {
namespace {

struct Options {
  InputOptions input;
  SelectOptions select;
  bool moments = false;
  std::string sort, by, cast;
  std::string hist, rows, columns;  // names of tensors
  GateOptions gates;
  FindingsOptions findings;

  bool one_tensor() const { return !hist.empty() || !rows.empty() || !columns.empty(); }
};

// What is measured in one line of the table: a tensor, or a layer.
struct Line {
  std::string name;
  const LogicalTensor* tensor = nullptr;  // null: a layer
  std::vector<const LogicalTensor*> of;
  std::shared_ptr<StatisticsStep> step;

  const Statistics& result() const { return step->result(); }
  const Moments& moments() const { return step->result().moments; }
};
struct LeftOut {
  std::string_view name;
  std::string why;
};
struct Found {
  std::shared_ptr<const Model> model;
  std::vector<Line> lines;
  std::vector<LeftOut> left_out;
  const LogicalTensor *rows_of = nullptr, *columns_of = nullptr;
  std::shared_ptr<ExtremesStep> rows, columns;
  std::vector<Gate> gates;
  std::vector<GateResult> judged;
};

// ---- what to measure

const LogicalTensor& named(const Model& model, const std::string& name) {
  const LogicalTensor* t = find_tensor(model, name);
  if (t == nullptr) throw no_such_tensor(model, name);
  return *t;
}

std::optional<DType> cast_of(const Options& o) {
  if (o.cast.empty()) return std::nullopt;
  const auto type = parse_dtype(o.cast);
  if (!type)
    throw Error(Fault::Usage, fmt::format("--cast: unknown type {}", quoted(o.cast)))
        .hint("such as f16, bf16, f8_e4m3");
  return type;
}

struct Natural {
  bool operator()(const std::string& a, const std::string& b) const { return natural_less(a, b); }
};

// The lines without their steps: the selected tensors, layers of them, or the one of --hist.
std::vector<Line> lines_of(Found& found, const Options& o) {
  const Model& model = *found.model;
  std::vector<Line> lines;
  if (!o.hist.empty()) {
    const LogicalTensor& t = named(model, o.hist);
    lines.push_back({std::string(t.name), &t, {&t}, nullptr});
  }
  if (o.one_tensor()) return lines;
  std::map<std::string, std::vector<const LogicalTensor*>, Natural> layers;
  for (const std::uint32_t i : selected(model, o.select)) {
    const LogicalTensor& t = model.tensors[i];
    if (const auto why = statistics_refuses(*model.open(t)))
      found.left_out.push_back({t.name, *why});
    else if (o.by.empty())
      lines.push_back({std::string(t.name), &t, {&t}, nullptr});
    else
      layers[layer_label(t.name)].push_back(&t);
  }
  for (auto& [label, of] : layers) lines.push_back({label, nullptr, std::move(of), nullptr});
  if (lines.empty() && !found.left_out.empty())
    throw Error(Fault::Unsupported, found.left_out[0].why)
        .in(fmt::format("{}: tensor {}", model.path, quoted(found.left_out[0].name)));
  return lines;
}

std::shared_ptr<ExtremesStep> extremes(const Model& model, const LogicalTensor& t,
                                       ExtremesStep::Along along) {
  try {
    return std::make_shared<ExtremesStep>(model.open(t), along);
  } catch (Error& e) {
    throw Error(e).in(fmt::format("{}: tensor {}", model.path, quoted(t.name)));
  }
}

// A gate's columns are those of all ways to call the command, so that the error can say which.
std::vector<Gate> gates_of(const Options& o, const StatisticsOptions& how) {
  std::vector<std::string_view> all = statistics_columns({.cast = DType::F16});
  std::vector<Gate> gates = read_gates(o.gates, all);
  for (const std::string_view there : statistics_columns(how)) std::erase(all, there);
  for (const Gate& g : gates)
    for (const std::string_view column : all)
      if (reads(g, column))
        throw Error(Fault::Usage, fmt::format("no tensor here has a {}", column))
            .in(g.origin)
            .hint(column.ends_with("flows") ? "--cast TYPE counts it" : "--moments leaves it out");
  return gates;
}

std::vector<LogicalTensor> gate_rows(const Found& found) {
  std::vector<LogicalTensor> rows;
  for (const Line& l : found.lines)
    if (l.tensor != nullptr) rows.push_back(*l.tensor);
  return rows;
}

Found measure(const Options& o, const Context& context) {
  const StatisticsOptions how{
      .distribution = !o.moments, .keep_distribution = !o.hist.empty(), .cast = cast_of(o)};
  Found found;
  found.gates = gates_of(o, how);
  found.model = open_input(o.input, context);
  const Model& model = *found.model;
  check_report_files(o.findings.files(), o.findings.force, files_of(model));
  Plan plan;
  found.lines = lines_of(found, o);
  for (Line& line : found.lines) {
    std::vector<TensorPtr> values;
    for (const LogicalTensor* t : line.of) values.push_back(model.open(*t));
    line.step = std::make_shared<StatisticsStep>(line.name, std::move(values), how);
    plan.measures.push_back(line.step);
  }
  if (!o.rows.empty()) {
    found.rows_of = &named(model, o.rows);
    found.rows = extremes(model, *found.rows_of, ExtremesStep::Along::Rows);
    plan.measures.push_back(found.rows);
  }
  if (!o.columns.empty()) {
    found.columns_of = &named(model, o.columns);
    found.columns = extremes(model, *found.columns_of, ExtremesStep::Along::Columns);
    plan.measures.push_back(found.columns);
  }
  const std::vector<LogicalTensor> rows = gate_rows(found);
  for (const Gate& g : found.gates) check_gate(g, rows);
  Progress progress(*context.common, "stats");
  RunOptions run = context.run;
  run.progress = progress.callback();
  const Report report = execute(plan, run);
  for (const SourcePtr& s : model.catalog.sources()) s->check_unchanged();
  found.judged = judge_gates(found.gates, report, rows);
  return found;
}

// ---- sorting

double share(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

struct Sorting {
  std::string_view name;
  double (*of)(const Line&);  // largest first; NaN last
};
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
double of_finite(const Line& l, double (*f)(const Moments&)) {
  return l.moments().finite == 0 ? kNone : f(l.moments());
}
constexpr std::array kSortings{
    Sorting{"name", nullptr},
    Sorting{"count", [](const Line& l) { return static_cast<double>(l.moments().elements); }},
    Sorting{"min",
            [](const Line& l) {
              return of_finite(l, [](const Moments& m) { return to_double(m.min()); });
            }},
    Sorting{"max",
            [](const Line& l) {
              return of_finite(l, [](const Moments& m) { return to_double(m.max()); });
            }},
    Sorting{"mean",
            [](const Line& l) { return of_finite(l, [](const Moments& m) { return m.mean; }); }},
    Sorting{"std",
            [](const Line& l) { return of_finite(l, [](const Moments& m) { return m.std(); }); }},
    Sorting{
        "absmax",
        [](const Line& l) { return of_finite(l, [](const Moments& m) { return m.abs_max(); }); }},
    Sorting{"zeros", [](const Line& l) { return share(l.moments().zeros, l.moments().finite); }},
    Sorting{"subnormals",
            [](const Line& l) { return share(l.moments().subnormals, l.moments().finite); }},
    Sorting{"non_finite",
            [](const Line& l) { return static_cast<double>(l.moments().non_finite()); }},
    Sorting{"outliers",
            [](const Line& l) { return share(l.result().outliers, l.moments().finite); }},
    Sorting{"overflows", [](const Line& l) { return static_cast<double>(l.moments().overflows); }},
    Sorting{"underflows",
            [](const Line& l) { return share(l.moments().underflows, l.moments().finite); }},
};

std::string check_sorting(const std::string& word) {
  std::vector<std::string_view> names;
  for (const Sorting& s : kSortings) names.push_back(s.name);
  if (std::ranges::find(names, word) != names.end()) return {};
  const std::string_view near = nearest(word, names);
  return fmt::format("{} is none of {}{}", quoted(word), fmt::join(names, ", "),
                     near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
}

void sort_lines(std::vector<Line>& lines, const std::string& by) {
  const auto* how = std::ranges::find(kSortings, by, &Sorting::name);
  if (how == kSortings.end()) return;
  std::ranges::stable_sort(lines, [&](const Line& a, const Line& b) {
    if (how->of == nullptr) return natural_less(a.name, b.name);
    const double x = how->of(a), y = how->of(b);
    return std::isnan(y) ? !std::isnan(x) : x > y;
  });
}

// ---- text

std::string number_text(double v) {
  return fmt::format("{:.4g}", v);
}
std::string number_text(const Number& n) {
  return std::visit(
      []<class T>(T v) {
        if constexpr (std::is_same_v<T, double>)
          return number_text(v);
        else
          return fmt::format("{}", v);
      },
      n);
}

std::string share_text(std::uint64_t part, std::uint64_t whole) {
  if (part == 0) return {};
  const double percent = 100 * share(part, whole);
  return percent < 0.01 ? "<0.01 %" : fmt::format("{:.2f} %", percent);
}
std::string count_text(std::uint64_t n) {
  return n == 0 ? "" : fmt::format("{}", n);
}

// "[3, 17]" of a flat index.
std::string index_text(ShapeView shape, std::uint64_t flat) {
  Shape at(shape.begin(), shape.end());
  for (std::size_t i = at.size(); i-- > 0;) {
    const std::uint64_t size = at[i];
    at[i] = flat % size;
    flat /= size;
  }
  return to_text(at);
}

const LogicalTensor& bad_tensor(const Line& l) {
  return *l.of[l.result().first_bad_tensor];
}
// As many digits as the stored element has; blocks are what they decode to.
std::string bits_text(const Line& l) {
  const DTypeInfo& t = info(bad_tensor(l).dtype);
  return fmt::format("0x{:0{}x}", l.moments().first_bits,
                     2 * (t.block_elems == 1 ? t.block_bytes : 4));
}

std::string non_finite_text(const Line& l) {
  const Moments& m = l.moments();
  if (m.non_finite() == 0) return {};
  std::string text;
  if (m.nan > 0) text += fmt::format("{} NaN", m.nan);
  if (m.infinite > 0) text += fmt::format("{}{} Inf", text.empty() ? "" : ", ", m.infinite);
  const LogicalTensor& t = bad_tensor(l);
  const std::string where = l.tensor == nullptr ? printable(t.name) + " " : std::string();
  return fmt::format("{}, first at {}{}: {}", text, where, index_text(t.shape, m.first_bad),
                     bits_text(l));
}

// Bars of the logarithm: a bell and the few values in its tails show together.
std::string log_bars(const std::vector<std::uint64_t>& counts) {
  std::vector<std::uint64_t> heights;
  for (const std::uint64_t n : counts)
    heights.push_back(static_cast<std::uint64_t>(1000 * std::log2(1 + static_cast<double>(n))));
  return histogram_bar(heights);
}

// A column of the table: its text for a line, and when it gives way to others.
struct Field {
  std::string title;
  bool right;
  int priority;
  std::function<std::string(const Line&)> text;
};

std::function<std::string(const Line&)> finite(std::function<std::string(const Line&)> text) {
  return [text = std::move(text)](const Line& l) {
    return l.moments().finite == 0 ? std::string() : text(l);
  };
}

void add_percentile(std::vector<Field>& fields, std::string title, std::size_t i, int priority) {
  fields.push_back({std::move(title), true, priority,
                    finite([i](const Line& l) { return number_text(l.result().percentiles[i]); })});
}

std::vector<Field> fields_of(const Model& model, const Options& o) {
  const bool all = !o.moments;
  std::vector<Field> f;
  f.push_back(
      {o.by.empty() ? "name" : "layer", false, 0, [](const Line& l) { return printable(l.name); }});
  f.push_back({"shape", false, 8,
               [](const Line& l) { return l.tensor == nullptr ? "" : to_text(l.tensor->shape); }});
  f.push_back({"dtype", false, 5, [&model](const Line& l) {
                 return l.tensor == nullptr ? "" : std::string(type_label(model, *l.tensor));
               }});
  f.push_back({"count", true, 9, [](const Line& l) { return human_count(l.moments().elements); }});
  f.push_back(
      {"min", true, 0, finite([](const Line& l) { return number_text(l.moments().min()); })});
  if (all) {
    add_percentile(f, "p0.1", 0, 10);
    add_percentile(f, "p1", 1, 11);
    add_percentile(f, "p50", 2, 7);
    add_percentile(f, "p99", 3, 11);
    add_percentile(f, "p99.9", 4, 10);
  }
  f.push_back(
      {"max", true, 0, finite([](const Line& l) { return number_text(l.moments().max()); })});
  f.push_back({"absmax", true, 12,
               finite([](const Line& l) { return number_text(l.moments().abs_max()); })});
  f.push_back(
      {"mean", true, 4, finite([](const Line& l) { return number_text(l.moments().mean); })});
  f.push_back(
      {"std", true, 1, finite([](const Line& l) { return number_text(l.moments().std()); })});
  f.push_back({"zeros", true, 6,
               [](const Line& l) { return share_text(l.moments().zeros, l.moments().finite); }});
  f.push_back({"subnormal", true, 6, [](const Line& l) {
                 return share_text(l.moments().subnormals, l.moments().finite);
               }});
  if (all)
    f.push_back({"outliers", true, 3, [](const Line& l) {
                   return share_text(l.result().outliers, l.moments().finite);
                 }});
  if (!o.cast.empty()) {
    f.push_back({fmt::format("beyond {}", o.cast), true, 0,
                 [](const Line& l) { return count_text(l.moments().overflows); }});
    f.push_back({fmt::format("0 in {}", o.cast), true, 0,
                 [](const Line& l) { return count_text(l.moments().underflows); }});
  }
  if (all)
    f.push_back(
        {"histogram", false, 2, [](const Line& l) { return log_bars(l.result().histogram); }});
  f.push_back({"NaN/Inf", false, 0, non_finite_text});
  return f;
}

void print_left_out(const Found& found) {
  for (const LeftOut& l : found.left_out)
    out(fit_charset(fmt::format("left out: {}: {}\n", quoted(l.name), l.why)));
}

void print_table(const Found& found, const Options& o) {
  const std::vector<Field> fields = fields_of(*found.model, o);
  std::vector<Table::Column> columns;
  for (const Field& f : fields) columns.push_back({f.title, f.right, f.priority});
  Table table(std::move(columns));
  for (const Line& l : found.lines) {
    std::vector<std::string> cells;
    for (const Field& f : fields) cells.push_back(f.text(l));
    table.row(std::move(cells), l.moments().non_finite() > 0 ? Style::Yellow : Style::Plain);
  }
  table.print();
  print_left_out(found);
  const auto coarse =
      std::ranges::count_if(found.lines, [](const Line& l) { return !l.result().exact; });
  if (!o.moments && coarse > 0)
    out(
        fit_charset(fmt::format("percentiles, outliers and histograms of {} of {} lines are from "
                                "counts by bf16 values: within 0.4 %\n",
                                coarse, found.lines.size())));
}

// ---- --hist

constexpr std::size_t kHistogramBins = 32, kBarWidth = 40;

struct Magnitude {
  int exponent;  // 2^exponent <= |x| < 2^(exponent + 1)
  std::uint64_t count;
};
std::vector<Magnitude> magnitudes(const Distribution& d) {
  std::map<int, std::uint64_t> counts;
  for (const Distribution::Bin& b : d.bins)
    if (b.middle() != 0) counts[std::ilogb(b.middle())] += b.count;
  std::vector<Magnitude> all;
  for (const auto& [exponent, n] : counts) all.push_back({exponent, n});
  return all;
}

std::string bar_of(std::uint64_t n, std::uint64_t most) {
  if (n == 0) return {};
  const double part =
      std::log2(1 + static_cast<double>(n)) / std::log2(1 + static_cast<double>(most));
  std::string bar;
  for (int i = 0; i < std::max(1, static_cast<int>(part * kBarWidth)); ++i) bar += "█";
  return terminal().utf8 ? bar : std::string(display_width(bar), '#');
}

void print_histogram(const Line& l) {
  const Moments& m = l.moments();
  out(fmt::format("{}  {}  {}, {} values\n", printable(l.name), to_text(l.tensor->shape),
                  name_of(l.tensor->dtype), m.elements));
  if (m.non_finite() > 0) out(non_finite_text(l) + "\n");
  if (m.finite == 0) return;
  const Distribution& d = l.result().distribution;
  const double min = to_double(m.min()), max = to_double(m.max());
  const std::vector<std::uint64_t> counts = d.histogram(min, max, kHistogramBins);
  const std::uint64_t most = *std::ranges::max_element(counts);
  const double step = (max / kHistogramBins) - (min / kHistogramBins);
  Table values({{"from", true, 0}, {"values", true, 0}, {"bars are logarithms", false, 1}});
  for (std::size_t i = 0; i < counts.size(); ++i)
    values.row({number_text(min + static_cast<double>(i) * step), fmt::format("{}", counts[i]),
                bar_of(counts[i], most)});
  values.print();
  out("\n");
  Table sizes({{"|x| from", true, 0}, {"values", true, 0}, {"", false, 1}});
  if (m.zeros > 0) sizes.row({"0", fmt::format("{}", m.zeros), bar_of(m.zeros, m.elements)});
  for (const Magnitude& g : magnitudes(d))
    sizes.row(
        {fmt::format("2^{}", g.exponent), fmt::format("{}", g.count), bar_of(g.count, m.elements)});
  sizes.print();
  if (!l.result().exact)
    out("counted by bf16 values: a value may stand one line off at a border\n");
}

// ---- --rows, --columns

double abs_max(const Extremes& e) {
  return e.min > e.max ? 0 : std::max(std::abs(e.min), std::abs(e.max));
}

// The ten largest and the ten smallest.
void print_extremes(const ExtremesStep& step, const LogicalTensor& t, std::string_view what) {
  constexpr std::size_t kEach = 10;
  const std::vector<Extremes>& all = step.result();
  std::vector<std::uint32_t> order(all.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::stable_sort(order, std::greater<>(),
                           [&](std::uint32_t i) { return abs_max(all[i]); });
  out(fmt::format("{}  {}  {}: {} {}s, the largest first\n", printable(t.name), to_text(t.shape),
                  name_of(t.dtype), all.size(), what));
  Table table({{std::string(what), true, 0},
               {"min", true, 0},
               {"max", true, 0},
               {"absmax", true, 1},
               {"NaN/Inf", true, 0}});
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (order.size() > 2 * kEach && i == kEach) {
      table.row({"…", "", "", "", ""}, Style::Dim);
      i = order.size() - kEach;
    }
    const Extremes& e = all[order[i]];
    const bool any = e.min <= e.max;
    table.row({fmt::format("{}", order[i]), any ? number_text(e.min) : "",
               any ? number_text(e.max) : "", any ? number_text(abs_max(e)) : "",
               count_text(e.non_finite)});
  }
  table.print();
}

void print_text(const Found& found, const Options& o) {
  if (!o.one_tensor()) print_table(found, o);
  for (const GateResult& g : found.judged) print_gate(g);
  if (!o.one_tensor()) return;
  for (const Line& l : found.lines) print_histogram(l);
  if (found.rows) print_extremes(*found.rows, *found.rows_of, "row");
  if (found.columns) print_extremes(*found.columns, *found.columns_of, "column");
}

// ---- JSON

// Integers that a double cannot hold are decimal text.
void write_number(JsonWriter& w, std::string_view key, const Number& n) {
  constexpr std::int64_t kMost = std::int64_t{1} << 53;
  w.key(key);
  if (const auto* i = std::get_if<std::int64_t>(&n)) {
    *i >= -kMost&&* i <= kMost ? w.value(*i) : w.value(fmt::format("{}", *i));
  } else if (const auto* u = std::get_if<std::uint64_t>(&n)) {
    *u <= std::uint64_t{kMost} ? w.value(*u) : w.value(fmt::format("{}", *u));
  } else {
    w.value(std::get<double>(n));
  }
}

void write_counts(JsonWriter& w, const std::vector<std::uint64_t>& counts) {
  w.key("counts");
  w.begin_array();
  for (const std::uint64_t n : counts) w.value(n);
  w.end_array();
}

void write_distribution(JsonWriter& w, const Line& l) {
  constexpr std::array<std::string_view, 5> kNames{"p0.1", "p1", "p50", "p99", "p99.9"};
  const Statistics& s = l.result();
  w.key("percentiles");
  w.begin_object();
  for (std::size_t i = 0; i < kNames.size(); ++i) w.member(kNames[i], s.percentiles[i]);
  w.end_object();
  w.member("percentiles_from", s.exact ? "values" : "bf16 bins");
  w.member("outliers", s.outliers);
  w.member("outlier_share", share(s.outliers, s.moments.finite));
  w.key("histogram");
  w.begin_object();
  write_number(w, "from", s.moments.min());
  write_number(w, "to", s.moments.max());
  write_counts(w, s.distribution.bins.empty()
                      ? s.histogram
                      : s.distribution.histogram(to_double(s.moments.min()),
                                                 to_double(s.moments.max()), kHistogramBins));
  w.end_object();
  if (s.distribution.bins.empty()) return;
  w.key("magnitudes");
  w.begin_array();
  for (const Magnitude& g : magnitudes(s.distribution)) {
    w.begin_object();
    w.member("exponent", g.exponent);
    w.member("count", g.count);
    w.end_object();
  }
  w.end_array();
}

void write_non_finite(JsonWriter& w, const Line& l) {
  const Moments& m = l.moments();
  w.member("nan", m.nan);
  w.member("inf", m.infinite);
  if (m.non_finite() == 0) return;
  w.key("first_non_finite");
  w.begin_object();
  if (l.tensor == nullptr) w.name_member("tensor", bad_tensor(l).name);
  w.member("index", m.first_bad);
  w.member("bits", bits_text(l));
  w.end_object();
}

void write_line(JsonWriter& w, const Found& found, const Line& l, const Options& o) {
  const Moments& m = l.moments();
  w.begin_object();
  w.name_member(l.tensor == nullptr ? "layer" : "name", l.name);
  if (l.tensor == nullptr) {
    w.member("tensors", std::uint64_t{l.of.size()});
  } else {
    w.member("shape", l.tensor->shape);
    w.member("dtype", type_label(*found.model, *l.tensor));
  }
  w.member("count", m.elements);
  if (m.finite > 0) {
    write_number(w, "min", m.min());
    write_number(w, "max", m.max());
    w.member("mean", m.mean);
    w.member("std", m.std());
    w.member("absmax", m.abs_max());
  }
  w.member("zeros", m.zeros);
  w.member("subnormals", m.subnormals);
  write_non_finite(w, l);
  if (!o.moments && m.finite > 0) write_distribution(w, l);
  if (!o.cast.empty()) {
    w.key("cast");
    w.begin_object();
    w.member("dtype", name_of(*parse_dtype(o.cast)));
    w.member("overflows", m.overflows);
    w.member("underflows", m.underflows);
    w.end_object();
  }
  w.end_object();
}

void write_extremes(JsonWriter& w, std::string_view key, const ExtremesStep& step,
                    const LogicalTensor& t) {
  w.key(key);
  w.begin_object();
  w.name_member("name", t.name);
  w.member("shape", t.shape);
  const auto list = [&](std::string_view name, auto&& value) {
    w.key(name);
    w.begin_array();
    for (const Extremes& e : step.result()) value(e);
    w.end_array();
  };
  list("min", [&](const Extremes& e) { w.value(e.min); });
  list("max", [&](const Extremes& e) { w.value(e.max); });
  list("non_finite", [&](const Extremes& e) { w.value(e.non_finite); });
  w.end_object();
}

void write_json(const Found& found, const Options& o) {
  JsonWriter w(out);
  w.begin_document("wtool.stats/1", all_passed(found.judged), {found.model->path});
  w.key(o.by.empty() ? "tensors" : "layers");
  w.begin_array();
  for (const Line& l : found.lines) write_line(w, found, l, o);
  w.end_array();
  if (found.rows) write_extremes(w, "rows", *found.rows, *found.rows_of);
  if (found.columns) write_extremes(w, "columns", *found.columns, *found.columns_of);
  w.key("left_out");
  w.begin_array();
  for (const LeftOut& l : found.left_out) {
    w.begin_object();
    w.name_member("name", l.name);
    w.member("why", l.why);
    w.end_object();
  }
  w.end_array();
  if (!found.judged.empty()) write_gates(w, found.judged);
  w.end_object();
}

// ---- the command

void check_together(const Options& o) {
  const auto refuse = [](std::string_view a, std::string_view b) {
    throw Error(Fault::Usage, fmt::format("{} and {} do not go together", a, b));
  };
  if (!o.hist.empty() && o.moments) refuse("--hist", "--moments");
  if (o.one_tensor()) {
    const std::string_view which = !o.hist.empty()   ? "--hist"
                                   : !o.rows.empty() ? "--rows"
                                                     : "--columns";
    if (!o.select.include.empty() || !o.select.exclude.empty()) refuse(which, "-t or -x");
    if (!o.by.empty()) refuse(which, "--by");
    if (!o.sort.empty()) refuse(which, "--sort");
  }
  const bool gates = !o.gates.gates.empty();
  if (gates && o.one_tensor()) refuse("--gate", "--hist, --rows or --columns");
  if (gates && !o.by.empty()) refuse("--gate", "--by");
  if (!gates && o.findings.any())
    throw Error(Fault::Usage, "--junit and --sarif tell of gates, and there is no --gate");
  if ((o.sort == "overflows" || o.sort == "underflows") && o.cast.empty())
    throw Error(Fault::Usage, fmt::format("--sort {} needs --cast TYPE", o.sort));
  if (o.sort == "outliers" && o.moments) refuse("--sort outliers", "--moments");
}

ExitCode run(const Options& o, const Context& context) {
  check_together(o);
  Found found = measure(o, context);
  sort_lines(found.lines, o.sort);
  if (context.common->json)
    write_json(found, o);
  else
    print_text(found, o);
  write_findings(o.findings, "stats", verdicts_of(found.judged, found.model->path));
  return all_passed(found.judged) ? ExitCode::Ok : ExitCode::No;
}

Action bind(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_input_options(app, options->input);
  add_select_options(app, options->select);
  app.add_flag("--moments", options->moments, "no percentiles, outliers and histograms: faster");
  app.add_option("--by", options->by, "one line per layer")
      ->option_text("WHAT")
      ->check([](const std::string& s) {
        return s == "layer" ? std::string() : fmt::format("{} is not layer", quoted(s));
      });
  app.add_option("--sort", options->sort, "by a column, largest first; zeros, … by their share")
      ->option_text("COLUMN")
      ->check(check_sorting);
  app.add_option("--cast", options->cast,
                 "count what would overflow and what would become zero in this type")
      ->option_text("TYPE");
  app.add_option("--hist", options->hist, "the whole histogram of one tensor")
      ->option_text("TENSOR");
  app.add_option("--rows", options->rows, "the extremes of each row of one tensor")
      ->option_text("TENSOR");
  app.add_option("--columns", options->columns, "the extremes of each column of one tensor")
      ->option_text("TENSOR");
  add_gate_option(app, options->gates, "exit 1 unless 'sum(nan) == 0'; or @FILE");
  add_findings_options(app, options->findings);
  add_findings_force_option(app, options->findings);
  app.footer(
      "examples:\n"
      "  wtool stats model.safetensors --sort outliers\n"
      "  wtool stats model/ --cast f16 --sort overflows\n");
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace

extern const Command kStats;
const Command kStats{"stats", "numbers about the values: ranges, percentiles, NaN, outliers", bind};

}  // namespace wtool
