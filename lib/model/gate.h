#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/model.h"
#include "lib/model/report.h"

namespace wtool {

// A gate: a condition that a report has to meet, such as
//   max(rel_rmse in 'layers.*.mlp.*') <= 0.01 and count(cos < 0.99) == 0
// Words: comparisons <= < >= > == != of numbers, joined by and, or, not; numbers with + - * / and
// %; folds min, max, mean, sum, count, percentile over the rows that have the columns they read.
// Parsed into nodes of which operands come first, so that nothing that walks them recurses.
struct GateNode {
  enum class Op : std::uint8_t {
    Number,
    Column,
    Negate,
    Add,
    Subtract,
    Multiply,
    Divide,
    LessEqual,  // from here to Not: true, false, or unknown
    Less,
    GreaterEqual,
    Greater,
    Equal,
    NotEqual,
    And,
    Or,
    Not,
    Min,  // from here: folds of what [first, this) gives for each row
    Max,
    Mean,
    Sum,
    Count,
    Percentile
  };
  Op op = Op::Number;
  std::uint32_t a = 0, b = 0;        // operands
  std::uint32_t first = 0;           // the nodes [first, this] are its own and those below
  std::uint32_t begin = 0, end = 0;  // in the text
  bool per_row = false;              // within a fold
  double number = 0;                 // its value; of a percentile, how many percent
  std::string word = {};             // a column's name; a fold's pattern, or ""
};
struct Gate {
  std::string text;    // as written
  std::string origin;  // for errors: "--gate 'max(rel_rmse) <= 1'" or "gates.txt:3"
  std::vector<GateNode> nodes;

  std::string_view text_of(const GateNode& n) const {
    return std::string_view(text).substr(n.begin, n.end - n.begin);
  }
};

// `columns` are those that reports of this command can have. Throws Usage with the position in the
// text. Bounded in length and depth.
Gate parse_gate(std::string text, std::string origin, std::span<const std::string_view> columns);
bool reads(const Gate& gate, std::string_view column) noexcept;

// Before the work: throws Usage if a pattern is malformed or selects none of `rows`. A row of the
// report is selected as the tensor of its name; others are not.
void check_gate(const Gate& gate, std::span<const LogicalTensor> rows);

// Three answers: NaN makes a comparison unknown, also under 'not', and only what is true passes.
struct GateTensor {
  std::string name;
  double value;
};
struct GateComparison {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  std::string text;                 // "max(rel_rmse) <= 0.01"
  std::string subject;              // the side with the fold: "max(rel_rmse)"
  double value = kNone;             // of the subject
  double limit = kNone;             // of the other side
  bool holds = false;               // false, too, where it is unknown
  bool at_fault = false;            // the gate failed, and this has a part in it
  std::vector<GateTensor> tensors;  // what made it fail, the worst first; of one that holds the
                                    // tensor that came nearest to failing; none for sum and mean
  std::string would_pass;           // "<= 0.0127": the least change; "" where none is as simple
};
struct GateResult {
  const Gate* gate = nullptr;
  bool passed = false;
  std::vector<GateComparison> comparisons;  // in the order of the text; at least one

  // The one to speak of: the first that is at fault, or the first.
  const GateComparison& chief() const;
};
// Throws Usage if a fold has nothing to judge: no row that it selects has the columns.
GateResult judge(const Gate& gate, const Report& report, std::span<const LogicalTensor> rows);

}  // namespace wtool
