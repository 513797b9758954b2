#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "cli/diff.h"
#include "cli/json.h"
#include "cli/terminal.h"
#include "cli/tree.h"
#include "lib/base/text.h"

namespace wtool {

bool Diff::differs(const DiffLine& line) const {
  return !line.same_shape() || line.values.beyond > 0 || (strict() && !line.same_type());
}

bool Diff::differs() const {
  if (!only_a.empty() || !only_b.empty()) return true;
  if (strict() && (!metadata.empty() || !files.empty())) return true;
  return std::ranges::any_of(lines, [&](const DiffLine& l) { return differs(l); });
}

Report report_of(const Diff& diff) {
  Report report;
  for (const DiffLine& l : diff.lines)
    if (l.compared) report.rows.push_back(comparison_row(l.a, l.values, l.in_steps));
  return report;
}

std::vector<DiffLayer> layers_of(const Diff& diff) {
  struct Natural {
    bool operator()(const std::string& a, const std::string& b) const { return natural_less(a, b); }
  };
  std::map<std::string, DiffLayer, Natural> layers;
  for (const DiffLine& l : diff.lines) {
    DiffLayer& layer = layers[layer_label(l.a)];
    layer.lines.push_back(&l);
    layer.values += l.values;
    layer.in_steps = layer.in_steps || l.in_steps;
    layer.differs = layer.differs || diff.differs(l);
  }
  std::vector<DiffLayer> out;
  for (auto& [label, layer] : layers) {
    layer.label = label;
    out.push_back(std::move(layer));
  }
  return out;
}

namespace {

// ---- text

constexpr std::size_t kShown = 20;

std::string number(double v) {
  return v == 0 ? "0" : fmt::format("{:.4g}", v);
}
std::string count(std::uint64_t n) {
  return n == 0 ? "" : fmt::format("{}", n);
}
std::string share(const Comparison& c) {
  if (c.changed == 0) return {};
  const double percent = 100 * c.changed_share();
  return percent < 0.01 ? "<0.01 %" : fmt::format("{:.2f} %", percent);
}

// "[3, 17]" of a flat index.
std::string index_text(const Shape& shape, std::uint64_t flat) {
  Shape at = shape;
  for (std::size_t i = at.size(); i-- > 0;) {
    const std::uint64_t size = at[i];
    at[i] = flat % size;
    flat /= size;
  }
  return to_text(at);
}

void say(const std::string& line) {
  out(fit_charset(line) + "\n");
}

void print_alone(const std::string& path, const std::vector<Alone>& list, bool all) {
  if (list.empty()) return;
  say(fmt::format("only in {}: {} {}", printable(path), list.size(),
                  list.size() == 1 ? "tensor" : "tensors"));
  const std::size_t shown = all ? list.size() : std::min(list.size(), kShown);
  for (std::size_t i = 0; i < shown; ++i)
    say(fmt::format("  {}  {} {}", printable(list[i].name), list[i].dtype, to_text(list[i].shape)));
  if (shown < list.size()) say(fmt::format("  … and {} more (-v)", list.size() - shown));
}

void print_shapes(const Diff& diff) {
  for (const DiffLine& l : diff.lines)
    if (!l.same_shape())
      say(fmt::format("shape: {}  {} and {}", printable(l.a), to_text(l.shape_a),
                      to_text(l.shape_b)));
}

// "dtype: 12 tensors bf16 → q4_k".
void print_types(const Diff& diff) {
  std::map<std::pair<std::string, std::string>, std::vector<const DiffLine*>> changes;
  for (const DiffLine& l : diff.lines)
    if (!l.same_type()) changes[{l.dtype_a, l.dtype_b}].push_back(&l);
  for (const auto& [types, lines] : changes)
    say(fmt::format(
        "dtype: {} → {}  {}", types.first, types.second,
        lines.size() == 1 ? printable(lines.front()->a) : fmt::format("{} tensors", lines.size())));
}

void print_keys(const std::string& what, const std::vector<KeyDifference>& list, const Diff& diff,
                bool all) {
  constexpr std::size_t kFew = 8, kWidth = 48;
  const std::size_t shown = all ? list.size() : std::min(list.size(), kFew);
  for (std::size_t i = 0; i < shown; ++i) {
    const KeyDifference& d = list[i];
    std::string text = fmt::format("{}: {}", what, printable(d.key));
    const auto cut = [&](const std::string& s) {
      return all ? printable(s) : cut_end(printable(s), kWidth);
    };
    if (d.where == KeyDifference::Where::Both)
      text += d.a.empty() ? "  differs" : fmt::format("  {} and {}", cut(d.a), cut(d.b));
    else
      text += fmt::format(
          "  only in {}",
          printable(d.where == KeyDifference::Where::OnlyA ? diff.a->path : diff.b->path));
    say(text);
  }
  if (shown < list.size())
    say(fmt::format("{}: … and {} differences more (-v)", what, list.size() - shown));
}

// Those that differ first, then those furthest apart.
std::vector<const DiffLine*> worst_first(const Diff& diff) {
  std::vector<const DiffLine*> out;
  for (const DiffLine& l : diff.lines)
    if (l.compared) out.push_back(&l);
  std::ranges::stable_sort(out, [&](const DiffLine* a, const DiffLine* b) {
    const auto rank = [&](const DiffLine* l) {
      return std::tuple(l->values.beyond > 0, l->values.drift.rel_rmse(), l->values.changed > 0);
    };
    return rank(a) > rank(b);
  });
  return out;
}

std::vector<Table::Column> columns(std::string first) {
  return {{std::move(first), false, 0},
          {"shape", false, 8},
          {"rel_rmse", true, 0},
          {"SQNR dB", true, 5},
          {"cos", true, 6},
          {"max|err|", true, 1},
          {"at", false, 4},
          {"A", true, 7},
          {"B", true, 7},
          {"changed", true, 3},
          {"max step", true, 2},
          {"clipped", true, 2},
          {"beyond", true, 0},
          {"NaN/Inf", true, 0}};
}

std::vector<std::string> cells(std::string name, std::string shape, const Comparison& c,
                               bool in_steps, const std::string& at) {
  const Drift& d = c.drift;
  const bool any = c.worst.index != Comparison::kNone && !at.empty();
  return {std::move(name),
          std::move(shape),
          number(d.rel_rmse()),
          d.error2 == 0 ? "" : fmt::format("{:.1f}", d.sqnr_db()),
          d.error2 == 0 ? "" : fmt::format("{:.6f}", d.cosine()),
          number(d.worst),
          at,
          any ? number(c.worst.a) : "",
          any ? number(c.worst.b) : "",
          share(c),
          in_steps && d.worst_steps > 0 ? fmt::format("{:.3f}", d.worst_steps) : "",
          count(c.clipped),
          count(c.beyond),
          count(c.non_finite)};
}

std::string place(const DiffLine& l) {
  const std::uint64_t at = l.values.worst.index;
  return at == Comparison::kNone ? std::string() : index_text(l.shape_a, at);
}

void print_tensors(const Diff& diff, bool all) {
  std::vector<const DiffLine*> lines = worst_first(diff);
  if (!all) std::erase_if(lines, [](const DiffLine* l) { return l->values.changed == 0; });
  if (lines.empty()) return;
  Table table(columns("name"));
  const std::size_t shown = all ? lines.size() : std::min(lines.size(), kShown);
  for (std::size_t i = 0; i < shown; ++i) {
    const DiffLine& l = *lines[i];
    table.row(cells(printable(l.a), to_text(l.shape_a), l.values, l.in_steps, place(l)),
              l.values.beyond > 0 ? Style::Red : Style::Plain);
  }
  table.print();
  if (shown < lines.size())
    say(fmt::format("… and {} tensors more that changed (-v)", lines.size() - shown));
}

// How far apart, from 0 (the same) to 8, by the logarithm of the relative error.
std::size_t heat(const DiffLayer& layer) {
  const double error = layer.values.drift.rel_rmse();
  if (error == 0) return layer.values.changed > 0 ? 1 : 0;
  if (!std::isfinite(error)) return 8;
  return static_cast<std::size_t>(std::clamp(8 + std::floor(2 * std::log10(error)), 1.0, 8.0));
}

void print_layers(const Diff& diff) {
  constexpr std::array<std::string_view, 9> kBlocks{"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  constexpr std::string_view kAscii = ".12345678";
  const std::vector<DiffLayer> layers = layers_of(diff);
  std::string strip;
  for (const DiffLayer& l : layers)
    strip += paint(l.differs      ? Style::Red
                   : heat(l) == 0 ? Style::Dim
                                  : Style::Plain,
                   terminal().utf8 ? kBlocks[heat(l)] : kAscii.substr(heat(l), 1));
  if (!layers.empty()) out(fit_charset("layers  ") + strip + "\n");
  Table table(columns("layer"));
  for (const DiffLayer& l : layers)
    table.row(cells(printable(l.label), {}, l.values, l.in_steps, {}),
              l.differs ? Style::Red : Style::Plain);
  table.print();
}

// The one line that says it all.
void print_verdict(const Diff& diff) {
  std::size_t compared = 0, changed = 0, beyond = 0;
  std::uint64_t clipped = 0;
  const DiffLine* first = nullptr;
  for (const DiffLine& l : diff.lines) {
    compared += l.compared;
    changed += l.values.changed > 0;
    clipped += l.values.clipped;
    if (l.values.beyond == 0) continue;
    ++beyond;
    if (first == nullptr) first = &l;
  }
  std::string text = fmt::format("{} tensors compared: ", compared);
  if (diff.differs()) {
    text += "different";
    if (beyond > 0) text += fmt::format("; {} beyond {}", beyond, diff.tolerance_text);
  } else {
    text += changed == 0 ? "the same" : fmt::format("the same within {}", diff.tolerance_text);
  }
  if (changed > 0 && changed != beyond) text += fmt::format("; {} changed", changed);
  if (clipped > 0) text += fmt::format("; {} values clipped", clipped);
  say(text);
  if (first == nullptr || first->values.first_beyond.index == Comparison::kNone) return;
  const Comparison::Place& at = first->values.first_beyond;
  say(fmt::format("first: {} {}: {} and {}", printable(first->a),
                  index_text(first->shape_a, at.index), at.a, at.b));
}

}  // namespace

void print_diff(const Diff& diff, const DiffView& view) {
  print_alone(diff.a->path, diff.only_a, view.all);
  print_alone(diff.b->path, diff.only_b, view.all);
  print_shapes(diff);
  print_types(diff);
  print_keys("metadata", diff.metadata, diff, view.all);
  print_keys("file", diff.files, diff, view.all);
  if (view.by_layer)
    print_layers(diff);
  else
    print_tensors(diff, view.all);
  for (const GateResult& g : diff.judged) print_gate(g);
  print_verdict(diff);
}

// ---- JSON

namespace {

void write_alone(JsonWriter& w, std::string_view key, const std::vector<Alone>& list) {
  w.key(key);
  w.begin_array();
  for (const Alone& t : list) {
    w.begin_object();
    w.name_member("name", t.name);
    w.member("shape", t.shape);
    w.member("dtype", t.dtype);
    w.end_object();
  }
  w.end_array();
}

void write_keys(JsonWriter& w, std::string_view key, const std::vector<KeyDifference>& list) {
  w.key(key);
  w.begin_array();
  for (const KeyDifference& d : list) {
    w.begin_object();
    w.name_member("key", d.key);
    w.member("in", d.where == KeyDifference::Where::OnlyA   ? "a"
                   : d.where == KeyDifference::Where::OnlyB ? "b"
                                                            : "both");
    if (!d.a.empty()) w.member("a", d.a);
    if (!d.b.empty()) w.member("b", d.b);
    w.end_object();
  }
  w.end_array();
}

void write_place(JsonWriter& w, std::string_view key, const Comparison::Place& place) {
  if (place.index == Comparison::kNone) return;
  w.key(key);
  w.begin_object();
  w.member("index", place.index);
  w.member("a", place.a);
  w.member("b", place.b);
  w.end_object();
}

void write_values(JsonWriter& w, const Comparison& c, bool in_steps) {
  for (const auto& [column, cell] : comparison_row({}, c, in_steps).cells)
    w.member(column->name, cell);
  write_place(w, "worst", c.worst);
  write_place(w, "first_beyond", c.first_beyond);
}

void write_line(JsonWriter& w, const Diff& diff, const DiffLine& l) {
  w.begin_object();
  w.name_member("name", l.a);
  if (l.b != l.a) w.name_member("name_b", l.b);
  w.member("same", !diff.differs(l));
  w.member("shape", l.shape_a);
  if (!l.same_shape()) w.member("shape_b", l.shape_b);
  w.member("dtype", l.dtype_a);
  if (!l.same_type()) w.member("dtype_b", l.dtype_b);
  if (l.compared) write_values(w, l.values, l.in_steps);
  w.end_object();
}

}  // namespace

void write_diff_json(const Diff& diff, const DiffView& view) {
  JsonWriter w(out);
  w.begin_document("wtool.diff/1", diff.ok(), {diff.a->path, diff.b->path});
  w.member("tolerance", diff.tolerance_text);
  w.member("same", !diff.differs());
  if (!diff.notes.empty()) {
    w.key("notes");
    w.begin_array();
    for (const std::string& n : diff.notes) w.value(n);
    w.end_array();
  }
  write_alone(w, "only_in_a", diff.only_a);
  write_alone(w, "only_in_b", diff.only_b);
  write_keys(w, "metadata", diff.metadata);
  write_keys(w, "files", diff.files);
  if (view.by_layer) {
    w.key("layers");
    w.begin_array();
    for (const DiffLayer& l : layers_of(diff)) {
      w.begin_object();
      w.name_member("layer", l.label);
      w.member("tensors", std::uint64_t{l.lines.size()});
      w.member("same", !l.differs);
      Comparison sums = l.values;  // an index says nothing here
      sums.worst = sums.first_beyond = {};
      write_values(w, sums, l.in_steps);
      w.end_object();
    }
    w.end_array();
  }
  w.key("tensors");
  w.begin_array();
  for (const DiffLine& l : diff.lines) write_line(w, diff, l);
  w.end_array();
  if (!diff.judged.empty()) write_gates(w, diff.judged);
  w.end_object();
}

}  // namespace wtool
