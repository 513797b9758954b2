// Gates: the text is parsed, and judges a small report.
#include <array>
#include <limits>

#include "lib/model/gate.h"
#include "tests/fuzz/sample.h"
#include "tests/fuzz/target.h"

namespace wtool::fuzz {
namespace {

constexpr Column kError{"rel_rmse", "", ""}, kCos{"cos", "", ""}, kZeros{"zeros", "", ""},
    kBins{"bins", "", ""};
constexpr std::array<std::string_view, 6> kColumns{"rel_rmse", "cos",   "zeros",
                                                   "max",      "p99.9", "bins"};

Report report_of(const Sample& sample) {
  Report report;
  double error = -0.25;
  for (const std::string& name : sample.names) {
    Row row{name, {}};
    row.cells.emplace_back(&kError, error);
    row.cells.emplace_back(&kCos, error > 1 ? std::numeric_limits<double>::quiet_NaN() : 1 / error);
    if (error != 0.5) row.cells.emplace_back(&kZeros, static_cast<std::uint64_t>(error * 8 + 2));
    row.cells.emplace_back(&kBins, Histogram{1, 2});
    report.rows.push_back(std::move(row));
    error += 0.25;
  }
  return report;
}

void expect_sound(const Gate& gate) {
  for (std::uint32_t i = 0; i < gate.nodes.size(); ++i) {
    const GateNode& n = gate.nodes[i];
    expect(n.first <= i, "a node that begins behind itself");
    expect(n.begin <= n.end && n.end <= gate.text.size(), "a node beyond the text");
  }
}

void run(Bytes input) {
  static const Sample sample;
  static const Report report = report_of(sample);
  try {
    const Gate gate = parse_gate(std::string(as_text(input)), "--gate", kColumns);
    expect_sound(gate);
    check_gate(gate, sample.tensors);
    const GateResult result = judge(gate, report, sample.tensors);
    expect(!result.comparisons.empty(), "a gate without comparisons");
    static_cast<void>(result.chief());
  } catch (const Error& e) {
    expect(e.fault() == Fault::Usage, e.what());
  }
}

}  // namespace

extern const Target kGate;
const Target kGate{"gate", run};

}  // namespace wtool::fuzz
