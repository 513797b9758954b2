#include "lib/model/gate.h"

#include <array>
#include <cmath>
#include <deque>
#include <limits>
#include <optional>

#include "lib/base/error.h"
#include "tests/catch.h"

namespace wtool {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr Column kError{"rel_rmse", "", "rel_rmse"}, kCos{"cos", "", "cos"},
    kZeros{"zeros", "", ""}, kBins{"bins", "", ""};
constexpr std::array<std::string_view, 6> kColumns{"rel_rmse", "cos",   "zeros",
                                                   "max",      "p99.9", "max_error"};

// Rows with an error, a similarity and a count; a name without a figure is a row without cells.
struct Sample {
  Report report;
  std::deque<std::string> names;
  std::vector<LogicalTensor> tensors;

  Sample& add(std::string name, std::optional<double> error, std::uint64_t zeros = 0,
              double cos = 1) {
    Row row{name, {}};
    if (error) {
      row.cells.emplace_back(&kError, *error);
      row.cells.emplace_back(&kCos, cos);
      row.cells.emplace_back(&kZeros, zeros);
      row.cells.emplace_back(&kBins, Histogram{1, 2});
    }
    report.rows.push_back(std::move(row));
    names.push_back(std::move(name));
    LogicalTensor t;
    t.name = names.back();
    t.dtype = error ? DType::BF16 : DType::F32;
    tensors.push_back(t);
    return *this;
  }
};

Sample sample() {
  Sample s;
  s.add("layers.0.up", 0.25, 4, 0.75).add("layers.0.norm", std::nullopt);
  s.add("layers.1.up", 0.5, 2, 0.5).add("layers.1.down", 0.125, 0, 0.875);
  return s;
}

GateResult judged(const Sample& s, const std::string& text) {
  static std::deque<Gate> gates;  // results refer to them
  gates.push_back(parse_gate(text, "--gate", kColumns));
  check_gate(gates.back(), s.tensors);
  return judge(gates.back(), s.report, s.tensors);
}
bool holds(const std::string& text) {
  return judged(sample(), text).passed;
}

Error refused(const std::string& text) {
  try {
    parse_gate(text, "--gate", kColumns);
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::Usage);
    CHECK(e.where() == "--gate");
    return e;
  }
  FAIL("'" << text << "' was accepted");
  throw 0;
}
std::string why(const std::string& text) {
  return refused(text).text();
}

std::vector<std::string> names_of(const GateComparison& c) {
  std::vector<std::string> out;
  for (const GateTensor& t : c.tensors) out.push_back(t.name);
  return out;
}
using Names = std::vector<std::string>;

TEST_CASE("folds are of the rows that have the column", "[gate]") {
  for (const char* text :
       {"max(rel_rmse) == 0.5", "min(rel_rmse) == 0.125", "sum(rel_rmse) == 0.875",
        "mean(zeros) == 2", "count(rel_rmse) == 3", "count(rel_rmse > 0.125) == 2",
        "count(rel_rmse >= 0.125 and cos < 0.8) == 2", "count(not zeros == 0) == 2",
        "max(zeros - 2 * rel_rmse) == 3.5", "percentile(zeros, 0) == 0",
        "percentile(zeros, 33) == 0", "percentile(zeros, 34) == 2", "percentile(zeros, 66.6) == 2",
        "percentile(zeros, 100) == 4"}) {
    INFO(text);
    CHECK(holds(text));
  }
}

TEST_CASE("percentages that binary cannot hold give the rank that people mean", "[gate]") {
  Sample s;
  for (int i = 1; i <= 1000; ++i) s.add("t" + std::to_string(i), i);
  CHECK(judged(s, "percentile(rel_rmse, 99.9) == 999").passed);
  CHECK(judged(s, "percentile(rel_rmse, 16.1) == 161").passed);
  CHECK(judged(s, "percentile(rel_rmse, 0.7) == 7").passed);
  CHECK(judged(s, "percentile(rel_rmse, 0.71) == 8").passed);
}

TEST_CASE("comparisons are those of numbers, without tolerance", "[gate]") {
  CHECK(holds("max(rel_rmse) <= 0.5"));
  CHECK_FALSE(holds("max(rel_rmse) < 0.5"));
  CHECK(holds("max(rel_rmse) >= 0.5"));
  CHECK_FALSE(holds("max(rel_rmse) > 0.5"));
  CHECK(holds("max(rel_rmse) == 0.5"));
  CHECK_FALSE(holds("max(rel_rmse) == 0.5000000000000001"));
  CHECK(holds("max(rel_rmse) != 0.5000000000000001"));
  CHECK(holds("0.5 >= max(rel_rmse)"));
  CHECK(holds("max(rel_rmse) == 50%"));
  CHECK(holds("max(rel_rmse)<=5e-1"));
  CHECK_FALSE(holds("max(rel_rmse) <= -.5"));
  CHECK(holds("-max(rel_rmse) == -0.5"));
  CHECK(holds("max(rel_rmse) - min(rel_rmse) == 3 * 0.125"));
  CHECK(holds("2 + 3 * 4 - 10 / 5 == 12 * count(zeros) / 3"));
  CHECK(holds("-(2 - 5) == count(zeros)"));
}

TEST_CASE("'not' binds closer than 'and', 'and' closer than 'or'", "[gate]") {
  const std::string yes = "count(zeros) == 3", no = "count(zeros) == 4";
  CHECK(holds(yes + " or " + no + " and " + no));
  CHECK_FALSE(holds("(" + yes + " or " + no + ") and " + no));
  CHECK(holds("not " + no + " and " + yes));
  CHECK_FALSE(holds("not (" + no + " or " + yes + ")"));
  CHECK(holds("not not " + yes));
  CHECK(holds("((" + yes + "))"));
}

TEST_CASE("a column may have the name of a fold, and dots", "[gate]") {
  CHECK_NOTHROW(parse_gate("max(max) <= 1", "", kColumns));
  CHECK_NOTHROW(parse_gate("mean(p99.9 - max) > 1", "", kColumns));
}

TEST_CASE("NaN passes nothing, whichever way it is asked", "[gate]") {
  Sample s = sample();
  s.add("layers.2.up", kNaN, 0, 0.5);
  for (const char* text : {"max(rel_rmse) <= 1", "max(rel_rmse) > 1", "not max(rel_rmse) > 1",
                           "min(rel_rmse) >= 0", "max(rel_rmse) == 1", "max(rel_rmse) != 1",
                           "not max(rel_rmse) == 1", "1 != max(rel_rmse)", "not 1 < max(rel_rmse)",
                           "sum(rel_rmse) < 9", "mean(rel_rmse) < 9", "percentile(rel_rmse, 1) < 9",
                           "count(rel_rmse > 0.6) == 0", "not count(rel_rmse > 0.6) > 0",
                           "max(rel_rmse * 0) == 0", "max(cos) <= 1 and max(rel_rmse) <= 1"}) {
    INFO(text);
    const GateResult r = judged(s, text);
    CHECK_FALSE(r.passed);
    CHECK(std::isnan(r.chief().value));
    CHECK(r.chief().would_pass.empty());
  }
  CHECK(names_of(judged(s, "max(rel_rmse) <= 1").chief()) == Names{"layers.2.up"});
  CHECK(names_of(judged(s, "count(rel_rmse > 0.6) == 0").chief()) == Names{"layers.2.up"});
  // What is known all the same.
  CHECK(judged(s, "max(cos) <= 1 or max(rel_rmse) <= 1").passed);
  CHECK(judged(s, "max(rel_rmse in 'layers.{0,1}.*') <= 1").passed);
  CHECK(judged(s, "count(rel_rmse > 0.6 and cos > 0.9) == 0").passed);
}

TEST_CASE("division by zero and overflow are unknown, infinities of the report are not", "[gate]") {
  CHECK_FALSE(holds("max(rel_rmse) <= 1 / 0"));
  CHECK_FALSE(holds("max(rel_rmse) <= 1e308 * 10"));
  CHECK_FALSE(holds("max(rel_rmse) >= -1e308 * 10"));
  CHECK_FALSE(holds("max(1 / zeros) < 9"));
  Sample s = sample();
  s.add("exact", kInf);
  CHECK(judged(s, "max(rel_rmse) > 1e300").passed);
  CHECK(judged(s, "min(rel_rmse) == 0.125").passed);
  CHECK_FALSE(judged(s, "max(rel_rmse) <= 1").passed);
  CHECK_FALSE(judged(s, "max(rel_rmse - rel_rmse) <= 1").passed);
}

TEST_CASE("a selector within a fold is that of every command", "[gate]") {
  CHECK(holds("max(rel_rmse in 'layers.0.*') == 0.25"));
  CHECK(holds("max(rel_rmse in \"layer:1\") == 0.5"));
  CHECK(holds("count(rel_rmse > 0.2 in 'layer:1') == 1"));
  CHECK(holds("percentile(rel_rmse in 'up', 50) == 0.25"));
  CHECK(holds("count(cos in 'dtype:bf16') == 3"));
  CHECK(holds("max(rel_rmse in 're:up$') - max(rel_rmse in 'layers.1.down') == 0.375"));
  const Sample s = sample();
  for (const char* text :
       {"max(rel_rmse in 'layers.0.upp') == 0.25", "max(rel_rmse in '{') == 1"}) {
    const Gate g = parse_gate(text, "--gate X", kColumns);
    try {
      check_gate(g, s.tensors);
      FAIL("accepted");
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::Usage);
      CHECK(e.where() == "--gate X");
    }
  }
}

TEST_CASE("a fold that has nothing to judge is a mistake", "[gate]") {
  const auto fails = [](const char* text, const char* said) {
    INFO(text);
    try {
      judged(sample(), text);
      FAIL("judged");
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::Usage);
      CHECK(e.text() == said);
      CHECK(e.hint() == "there is rel_rmse, cos, zeros");
    }
  };
  fails("max(max_error) <= 1", "no tensor here has a max_error");
  fails("count(max_error > 1) == 0", "no tensor here has a max_error");
  fails("max(rel_rmse in 'layers.0.norm') <= 1",
        "no tensor here that 'layers.0.norm' selects has a rel_rmse");
  fails("max(rel_rmse - max_error) <= 1", "no tensor here has a rel_rmse and a max_error");
  CHECK_THROWS_AS(judge(parse_gate("max(cos) < 1", "", kColumns), {}, {}), Error);
}

TEST_CASE("a gate that failed names the tensors, the worst first, and what would pass", "[gate]") {
  const Sample s = sample();
  GateComparison c = judged(s, "max(rel_rmse) <= 0.2").chief();
  CHECK(c.subject == "max(rel_rmse)");
  CHECK(c.value == 0.5);
  CHECK(c.limit == 0.2);
  CHECK(names_of(c) == Names{"layers.1.up", "layers.0.up"});
  CHECK(c.tensors[1].value == 0.25);
  CHECK(c.would_pass == "<= 0.5");
  CHECK(names_of(judged(s, "0.2 > max(rel_rmse)").chief()) == Names{"layers.1.up", "layers.0.up"});
  CHECK(judged(s, "0.2 > max(rel_rmse)").chief().would_pass == "<= 0.5");
  CHECK(names_of(judged(s, "min(cos) > 0.8").chief()) == Names{"layers.1.up", "layers.0.up"});
  CHECK(judged(s, "min(cos) > 0.8").chief().would_pass == ">= 0.5");
  // No single tensor is to blame for a maximum that is too small but the largest.
  CHECK(names_of(judged(s, "max(rel_rmse) >= 0.6").chief()) == Names{"layers.1.up"});
  CHECK(names_of(judged(s, "min(rel_rmse) <= 0.1").chief()) == Names{"layers.1.down"});
  CHECK(names_of(judged(s, "percentile(rel_rmse, 50) < 0.2").chief()) ==
        Names{"layers.1.up", "layers.0.up"});
  c = judged(s, "count(rel_rmse > 0.2) == 0").chief();
  CHECK(names_of(c) == Names{"layers.1.up", "layers.0.up"});
  CHECK(c.tensors[0].value == 0.5);
  CHECK(c.would_pass == "== 2");
  CHECK(names_of(judged(s, "count(cos < 0.8) <= 1").chief()) ==
        Names{"layers.1.up", "layers.0.up"});
  CHECK(judged(s, "count(cos < 0.8) < 2").chief().would_pass == "<= 2");
  CHECK(judged(s, "count(cos < 0.8) == 3").chief().tensors.empty());
  CHECK(judged(s, "mean(zeros) < 2").chief().tensors.empty());
  CHECK(names_of(judged(s, "max(rel_rmse) - min(rel_rmse) <= 0").chief()) ==
        Names{"layers.1.up", "layers.1.down"});
  CHECK(judged(s, "max(rel_rmse) - min(rel_rmse) <= 0").chief().would_pass == "<= 0.375");
  CHECK(judged(s, "min(zeros) != 0").chief().would_pass.empty());
  CHECK(names_of(judged(s, "max(rel_rmse) <= 1").chief()) == Names{"layers.1.up"});
}

TEST_CASE("the limit that would pass has few digits and really passes", "[gate]") {
  for (const double v : {0.012654, 0.0126412, 0.3, 1.0 / 3, 1e-300, 12345678.0, 0.1 + 0.2}) {
    Sample s;
    s.add("t", v);
    s.add("u", -v);
    for (const std::string& text :
         {std::string("max(rel_rmse) <= 0"), std::string("min(rel_rmse) >= 0"),
          std::string("max(rel_rmse) == 0")}) {
      const GateComparison c = judged(s, text).chief();
      INFO(c.subject << " " << c.would_pass);
      CHECK(judged(s, c.subject + " " + c.would_pass).passed);
    }
  }
  Sample s;
  s.add("t", 0.012654);
  CHECK(judged(s, "max(rel_rmse) <= 0.01").chief().would_pass == "<= 0.0127");
  CHECK(judged(s, "min(rel_rmse) >= 0.02").chief().would_pass == ">= 0.01265");
}

TEST_CASE("only comparisons that have a part in the failure are at fault", "[gate]") {
  const auto faults = [](const char* text) {
    std::vector<bool> out;
    for (const GateComparison& c : judged(sample(), text).comparisons) out.push_back(c.at_fault);
    return out;
  };
  using Faults = std::vector<bool>;
  CHECK(faults("max(cos) < 1 and max(rel_rmse) < 0.1") == Faults{false, true});
  CHECK(faults("max(cos) > 1 or max(rel_rmse) < 0.1") == Faults{true, true});
  CHECK(faults("max(cos) > 1 or max(rel_rmse) < 1") == Faults{false, false});
  CHECK(faults("not (max(cos) < 1 and max(rel_rmse) < 1)") == Faults{true, true});
  CHECK(faults("not (max(cos) < 1 or max(rel_rmse) < 0.1)") == Faults{true, false});
  CHECK(judged(sample(), "not max(cos) < 1").chief().would_pass.empty());
}

TEST_CASE("errors in a gate tell the place and what was wanted", "[gate]") {
  CHECK(why("") == "at character 1: is empty");
  CHECK(why("max(rel_rmse <= 1") == "at character 14: expected ')', not '<='");
  CHECK(why("max(rel_rmse") == "at character 13: expected ')'");
  CHECK(why("max(rel_rmse) 1") == "at character 15: expected the end, not '1'");
  CHECK(why("max(rel_rmse)") == "at character 1: 'max(rel_rmse)' is a number, not a comparison");
  CHECK(why("max(rel_rmes) <= 1") == "at character 5: unknown metric 'rel_rmes'");
  CHECK(refused("max(rel_rmes) <= 1").hint() == "did you mean 'rel_rmse'?");
  CHECK(why("mxa(cos) <= 1") == "at character 1: unknown fold 'mxa'");
  CHECK(refused("mxa(cos) <= 1").hint() == "did you mean 'max'?");
  CHECK(why("max(cos) <= nan") == "at character 13: 'nan' is no number");
  CHECK(why("cos <= 1") == "at character 1: 'cos' is no number");
  CHECK(refused("cos <= 1").hint() == "a column is read by a fold: max(cos)");
  CHECK(why("max(cos) <= 1e999") == "at character 13: a number beyond those of double precision");
  CHECK(why("max(cos) <= 0x1") == "at character 13: is no number");
  CHECK(why("max(cos) = 1") == "at character 10: expected the end, not '='");
  CHECK(refused("max(cos) = 1").hint() == "'==' compares");
  CHECK(why("max(cos) < 1 && 1") == "at character 14: unexpected '&&'");
  CHECK(why("max(cos) < 1 < 2") == "at character 14: comparisons do not chain");
  CHECK(why("max(cos) < 1 and 2") == "at character 18: '2' is a number, not a comparison");
  CHECK(why("1 + (max(cos) < 1) < 2") ==
        "at character 5: '(max(cos) < 1)' is a comparison, not a number");
  CHECK(why("max(max(cos)) < 1") == "at character 5: a fold within a fold");
  CHECK(why("max(3) < 1") == "at character 5: reads no column");
  CHECK(why("1 < 2") == "at character 1: compares nothing of a report");
  CHECK(why("max(cos in blk) < 1") == "at character 12: expected a pattern in quotes, not 'blk'");
  CHECK(why("max(cos in '') < 1") == "at character 12: the pattern is empty");
  CHECK(why("max(cos in 'a) < 1") == "at character 12: a quote is not closed");
  CHECK(why("percentile(cos) < 1") ==
        "at character 15: expected ',' and a percentage: "
        "percentile(rel_rmse, 99), not ')'");
  CHECK(why("percentile(cos, 101) < 1") == "at character 17: 101 is no number from 0 to 100");
  CHECK(why("percentile(cos, 99%) < 1") == "at character 19: a percentile is told as 99, not 99%");
  CHECK(why("max(cos) ≤ 1") == "at character 10: unexpected '≤'");
  CHECK(why("max(cos in 'é') ≤ 1") == "at character 17: unexpected '≤'");
  CHECK(why("max() < 1") == "at character 5: expected a column or a number, not ')'");
  CHECK(why("not") == "at character 4: expected a number or a fold such as max(rel_rmse)");
  CHECK(why(std::string("max(cos)\0 < 1", 13)) == "at character 9: unexpected '\\x00'");
}

TEST_CASE("hostile gates are refused before they cost anything", "[gate]") {
  const auto deep = [](std::string opening, std::size_t n) {
    std::string s;
    while (s.size() < n * opening.size()) s += opening;
    return s;
  };
  CHECK_THAT(why(deep("(", 3000)), Catch::Contains("more than 32 levels deep"));
  CHECK_THAT(why(deep("not ", 1000)), Catch::Contains("more than 32 levels deep"));
  CHECK_THAT(why(deep("-", 3000)), Catch::Contains("more than 32 levels deep"));
  CHECK_THAT(why(deep("max(", 500)), Catch::Contains("fold"));
  CHECK(why(std::string(4097, ' ')) ==
        "a gate of 4097 bytes is longer than the 4096 there is room for");
  // As long as it may be, and as wide: no recursion over operands.
  std::string sum = "count(cos)";
  while (sum.size() < 4000) sum += "+1";
  CHECK(holds(sum + " > 1"));
  std::string many = "count(cos) > 1";
  while (many.size() < 4000) many += " and count(cos) > 1";
  CHECK(holds(many));
}

}  // namespace
}  // namespace wtool
