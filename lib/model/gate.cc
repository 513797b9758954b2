#include "lib/model/gate.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <unordered_map>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/base/text_hash.h"
#include "lib/model/selector.h"

namespace wtool {
namespace {

using Op = GateNode::Op;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Truths are numbers: 1, 0, and NaN for unknown.
double truth(bool known) noexcept {
  return known ? 1 : 0;
}
double both(double a, double b) noexcept {
  return a == 0 || b == 0 ? 0 : a == 1 && b == 1 ? 1 : kNaN;
}

double compare(Op op, double a, double b) noexcept {
  if (std::isnan(a) || std::isnan(b)) return kNaN;
  switch (op) {
    case Op::LessEqual: return truth(a <= b);
    case Op::Less: return truth(a < b);
    case Op::GreaterEqual: return truth(a >= b);
    case Op::Greater: return truth(a > b);
    case Op::Equal: return truth(a == b);
    default: return truth(a != b);
  }
}

// What overflows, or is divided by zero, is no infinity that any limit is below: it is NaN.
double arithmetic(Op op, double a, double b) noexcept {
  const double r = op == Op::Add        ? a + b
                   : op == Op::Subtract ? a - b
                   : op == Op::Multiply ? a * b
                                        : a / b;
  const bool made = std::isinf(r) && (std::isfinite(a) && std::isfinite(b));
  return made || (op == Op::Divide && b == 0) ? kNaN : r;
}

bool is_comparison(Op op) noexcept {
  return op >= Op::LessEqual && op <= Op::NotEqual;
}
bool is_less(Op op) noexcept {
  return op == Op::LessEqual || op == Op::Less;
}
bool is_more(Op op) noexcept {
  return op == Op::GreaterEqual || op == Op::Greater;
}
bool is_fold(Op op) noexcept {
  return op >= Op::Min;
}

std::optional<double> number_in(const Row& row, std::string_view column) noexcept {
  const Cell* cell = row.find(column);
  if (!cell) return std::nullopt;
  if (const auto* d = std::get_if<double>(cell)) return *d;
  if (const auto* u = std::get_if<std::uint64_t>(cell)) return static_cast<double>(*u);
  return std::nullopt;
}

// A row as one fold sees it: what its body gives, and a figure to name the tensor with.
struct Seen {
  const Row* row;
  double value;  // of a count: 1, 0 or NaN
  double shown;  // of a count: its first column
};

class Judge {
 public:
  Judge(const Gate& gate, const Report& report, std::span<const LogicalTensor> rows)
      : gate_(gate),
        report_(report),
        rows_(rows),
        values_(gate.nodes.size()),
        seen_(gate.nodes.size()) {}

  GateResult judge() {
    for (std::uint32_t i = 0; i < gate_.nodes.size(); ++i) {
      const GateNode& n = gate_.nodes[i];
      if (n.per_row) continue;
      values_[i] = is_fold(n.op) ? fold(i) : value_of(n);
    }
    GateResult result{.gate = &gate_, .passed = values_.back() == 1, .comparisons = {}};
    const std::vector<Fault> faults = find_faults(result.passed);
    for (std::uint32_t i = 0; i < gate_.nodes.size(); ++i)
      if (!gate_.nodes[i].per_row && is_comparison(gate_.nodes[i].op))
        result.comparisons.push_back(told(i, faults[i]));
    return result;
  }

 private:
  enum class Fault : std::uint8_t { None, ShouldHold, ShouldNotHold };

  double value_of(const GateNode& n) const {
    const double a = values_[n.a], b = values_[n.b];
    switch (n.op) {
      case Op::Number: return n.number;
      case Op::Negate: return -a;
      case Op::And: return both(a, b);
      case Op::Or: return 1 - both(1 - a, 1 - b);
      case Op::Not: return 1 - a;
      case Op::Add:
      case Op::Subtract:
      case Op::Multiply:
      case Op::Divide: return arithmetic(n.op, a, b);
      default: return compare(n.op, a, b);
    }
  }

  // --- Folds

  // Null: every row.
  const std::vector<bool>* selection(const std::string& pattern) {
    if (pattern.empty()) return nullptr;
    auto [it, fresh] = selections_.try_emplace(pattern);
    if (!fresh) return &it->second;
    if (index_.empty())
      for (std::size_t i = 0; i < rows_.size(); ++i) index_.emplace(rows_[i].name, i);
    const std::vector<bool> picked = matching(rows_, pattern, true);
    for (const Row& row : report_.rows) {
      const auto at = index_.find(row.tensor);
      it->second.push_back(at != index_.end() && picked[at->second]);
    }
    return &it->second;
  }

  // The body of a fold for one row; nullopt if the row lacks a column.
  std::optional<double> body(const GateNode& fold_node, const Row& row) {
    for (std::uint32_t i = fold_node.first; i <= fold_node.a; ++i) {
      const GateNode& n = gate_.nodes[i];
      if (n.op != Op::Column) {
        values_[i] = value_of(n);
        continue;
      }
      const auto v = number_in(row, n.word);
      if (!v) return std::nullopt;
      values_[i] = *v;
    }
    // A bare column is counted where it is.
    const GateNode& top = gate_.nodes[fold_node.a];
    const bool counts_rows =
        fold_node.op == Op::Count && !(top.op >= Op::LessEqual && top.op <= Op::Not);
    return counts_rows ? 1 : values_[fold_node.a];
  }

  std::uint32_t first_column(const GateNode& fold_node) const {
    std::uint32_t i = fold_node.first;
    while (gate_.nodes[i].op != Op::Column) ++i;
    return i;
  }

  double fold(std::uint32_t at) {
    const GateNode& n = gate_.nodes[at];
    const std::vector<bool>* chosen = selection(n.word);
    const std::uint32_t shown = n.op == Op::Count ? first_column(n) : n.a;
    std::vector<Seen>& seen = seen_[at];
    for (std::size_t r = 0; r < report_.rows.size(); ++r) {
      if (chosen && !(*chosen)[r]) continue;
      const Row& row = report_.rows[r];
      if (const auto v = body(n, row)) seen.push_back({&row, *v, values_[shown]});
    }
    if (seen.empty()) throw nothing_to_judge(n);
    return folded(n, seen);
  }

  // NaN in any row makes the whole NaN: it neither passes nor hides.
  static double folded(const GateNode& n, const std::vector<Seen>& seen) {
    if (std::ranges::any_of(seen, [](const Seen& s) { return std::isnan(s.value); })) return kNaN;
    if (n.op == Op::Min) return std::ranges::min(seen, {}, &Seen::value).value;
    if (n.op == Op::Max) return std::ranges::max(seen, {}, &Seen::value).value;
    if (n.op == Op::Percentile) return percentile(n.number, seen);
    double sum = 0;
    for (const Seen& s : seen) sum = arithmetic(Op::Add, sum, s.value);
    return n.op == Op::Mean ? sum / static_cast<double>(seen.size()) : sum;
  }

  // The smallest value that so many percent do not exceed; no interpolation.
  static double percentile(double percent, const std::vector<Seen>& seen) {
    std::vector<double> values;
    values.reserve(seen.size());
    for (const Seen& s : seen) values.push_back(s.value);
    std::ranges::sort(values);
    // A percentage such as 99.9 is not quite itself in binary.
    const double rank = std::ceil(percent * static_cast<double>(values.size()) / 100 * (1 - 1e-12));
    const auto most = static_cast<double>(values.size());
    return values[static_cast<std::size_t>(std::clamp(rank, 1.0, most)) - 1];
  }

  Error nothing_to_judge(const GateNode& n) const {
    std::vector<std::string_view> wanted, there;
    for (std::uint32_t i = n.first; i <= n.a; ++i)
      if (gate_.nodes[i].op == Op::Column &&
          std::ranges::find(wanted, gate_.nodes[i].word) == wanted.end())
        wanted.push_back(gate_.nodes[i].word);
    for (const Row& row : report_.rows)
      for (const auto& [column, cell] : row.cells)
        if (number_in(row, column->name) && std::ranges::find(there, column->name) == there.end())
          there.push_back(column->name);
    const std::string which = n.word.empty() ? "" : fmt::format(" that {} selects", quoted(n.word));
    Error e(wtool::Fault::Usage,
            fmt::format("no tensor here{} has a {}", which, fmt::join(wanted, " and a ")));
    if (!there.empty()) e.hint(fmt::format("there is {}", fmt::join(there, ", ")));
    return e.in(gate_.origin);
  }

  // --- What failed

  // From the whole down: which comparisons would have to turn for the gate to pass.
  std::vector<Fault> find_faults(bool passed) const {
    std::vector<Fault> faults(gate_.nodes.size(), Fault::None);
    if (passed) return faults;
    faults.back() = Fault::ShouldHold;
    for (std::size_t i = gate_.nodes.size(); i-- > 0;) {
      const GateNode& n = gate_.nodes[i];
      if (faults[i] == Fault::None || n.per_row) continue;
      if (n.op == Op::Not)
        faults[n.a] = faults[i] == Fault::ShouldHold ? Fault::ShouldNotHold : Fault::ShouldHold;
      if (n.op != Op::And && n.op != Op::Or) continue;
      const double right = faults[i] == Fault::ShouldHold ? 1 : 0;
      for (const std::uint32_t side : {n.a, n.b})
        if (values_[side] != right) faults[side] = faults[i];
    }
    return faults;
  }

  bool has_fold(std::uint32_t n) const {
    for (std::uint32_t i = gate_.nodes[n].first; i <= n; ++i)
      if (is_fold(gate_.nodes[i].op)) return true;
    return false;
  }
  static Op mirrored(Op op) noexcept {
    switch (op) {
      case Op::LessEqual: return Op::GreaterEqual;
      case Op::Less: return Op::Greater;
      case Op::GreaterEqual: return Op::LessEqual;
      case Op::Greater: return Op::Less;
      default: return op;
    }
  }

  GateComparison told(std::uint32_t at, Fault fault) const {
    const GateNode& n = gate_.nodes[at];
    const bool on_left = has_fold(n.a);
    const std::uint32_t subject = on_left ? n.a : n.b, other = on_left ? n.b : n.a;
    const Op op = on_left ? n.op : mirrored(n.op);
    GateComparison c{.text = std::string(gate_.text_of(n)),
                     .subject = std::string(gate_.text_of(gate_.nodes[subject])),
                     .value = values_[subject],
                     .limit = values_[other],
                     .holds = values_[at] == 1,
                     .at_fault = fault != Fault::None,
                     .tensors = {},
                     .would_pass = {}};
    if (is_fold(gate_.nodes[subject].op) && !has_fold(other))
      c.tensors = offenders(gate_.nodes[subject], seen_[subject], op, c);
    else
      for (std::uint32_t i = n.first; i < at; ++i)
        if (is_fold(gate_.nodes[i].op)) add_extreme(gate_.nodes[i], i, c.tensors);
    if (fault == Fault::ShouldHold && !has_fold(other)) c.would_pass = advice(op, c.value);
    return c;
  }

  static void add(std::vector<GateTensor>& to, const Seen& s) {
    to.push_back({s.row->tensor, s.shown});
  }
  // The tensor that a minimum, a maximum or a percentile comes from.
  void add_extreme(const GateNode& n, std::uint32_t at, std::vector<GateTensor>& to) const {
    if (n.op != Op::Min && n.op != Op::Max && n.op != Op::Percentile) return;
    const bool unknown = std::isnan(values_[at]);
    for (const Seen& s : seen_[at])
      if (unknown ? std::isnan(s.value) : s.value == values_[at]) return add(to, s);
  }

  // Of a fold against a limit: the tensors that alone break it, the worst first.
  std::vector<GateTensor> offenders(const GateNode& n, const std::vector<Seen>& seen, Op op,
                                    const GateComparison& c) const {
    const bool count = n.op == Op::Count;
    std::vector<const Seen*> bad;
    for (const Seen& s : seen) {
      const bool alone = count ? s.value == 1 && c.value > c.limit : breaks(n.op, op, s.value, c);
      if (std::isnan(s.value) || (!c.holds && !std::isnan(c.value) && alone)) bad.push_back(&s);
    }
    // Of a count, what it counts is what is wrong.
    const Op wrong = count ? gate_.nodes[n.a].op : mirrored(op);
    const bool large = is_more(wrong), small = is_less(wrong);
    std::ranges::stable_sort(bad, [&](const Seen* a, const Seen* b) {
      if (std::isnan(a->value) || std::isnan(b->value))
        return std::isnan(a->value) && !std::isnan(b->value);
      return large ? a->shown > b->shown : small && a->shown < b->shown;
    });
    std::vector<GateTensor> out;
    for (const Seen* s : bad) add(out, *s);
    if (out.empty()) add_extreme(n, static_cast<std::uint32_t>(&n - gate_.nodes.data()), out);
    return out;
  }
  // Whether one value keeps the fold from meeting the limit: a maximum is held down by every value.
  static bool breaks(Op fold, Op op, double v, const GateComparison& c) noexcept {
    const bool each = (is_less(op) && fold != Op::Min) || (is_more(op) && fold != Op::Max);
    if (!each || fold == Op::Sum || fold == Op::Mean) return false;
    return compare(op, v, c.limit) != 1;
  }

  // The fewest digits of a limit that the value would meet: 0.012654 passes '<= 0.0127'.
  static std::string advice(Op op, double value) {
    if (!std::isfinite(value) || op == Op::NotEqual) return {};
    if (is_less(op)) op = Op::LessEqual;
    if (is_more(op)) op = Op::GreaterEqual;
    const std::string_view sign = is_less(op) ? "<=" : is_more(op) ? ">=" : "==";
    std::string digits;
    for (int precision = 3; precision <= 17; ++precision) {
      digits = fmt::format("{:.{}g}", value, precision);
      double limit = 0;
      std::from_chars(digits.data(), digits.data() + digits.size(), limit);
      if (compare(op, value, limit) == 1) break;
    }
    return fmt::format("{} {}", sign, digits);
  }

  const Gate& gate_;
  const Report& report_;
  std::span<const LogicalTensor> rows_;
  std::vector<double> values_;           // by node; those within a fold: of the row last looked at
  std::vector<std::vector<Seen>> seen_;  // by node; only of folds
  std::unordered_map<std::string, std::vector<bool>> selections_;  // by pattern: the report's rows
  std::unordered_map<std::string_view, std::size_t, TextHash> index_;  // by name: rows_
};

}  // namespace

const GateComparison& GateResult::chief() const {
  const auto it = std::ranges::find_if(comparisons, &GateComparison::at_fault);
  return it == comparisons.end() ? comparisons.front() : *it;
}

void check_gate(const Gate& gate, std::span<const LogicalTensor> rows) {
  for (const GateNode& n : gate.nodes) {
    if (n.word.empty() || !is_fold(n.op)) continue;
    try {
      static_cast<void>(matching(rows, n.word));
    } catch (Error& e) {
      throw e.in(gate.origin);
    }
  }
}

GateResult judge(const Gate& gate, const Report& report, std::span<const LogicalTensor> rows) {
  return Judge(gate, report, rows).judge();
}

}  // namespace wtool
