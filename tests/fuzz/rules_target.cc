// Files of rules: those of 'diff --map'.
#include <fmt/format.h>

#include "cli/diff_map.h"
#include "tests/fuzz/readers.h"
#include "tests/fuzz/sample.h"

namespace wtool::fuzz {
namespace {

void run(Bytes input) {
  static const Sample sample;
  static const Model model = sample.model();
  try {
    const std::vector<MapRule> rules = parse_map(as_text(input), "rules");
    for (const MapRule& r : rules)
      for (const MapSide* side : {&r.a, &r.b}) {
        std::vector<std::string> values;
        expect(!side->pattern.match(sample.names[0], values) ||
                   values.size() == side->pattern.holes().size(),
               "a value for each placeholder");
      }
    const Pairing pairs = pair_tensors(model, model, rules, true);
    for (const TensorPair& p : pairs.pairs)
      expect(!p.a.empty() && !p.b.empty(), "a pair with an empty side");
  } catch (const Error& e) {
    expect(e.fault() == Fault::Usage, e.what());
  }
}

}  // namespace

extern const Target kRules;
const Target kRules{"rules", run};

}  // namespace wtool::fuzz
