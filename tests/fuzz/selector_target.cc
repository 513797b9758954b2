// Selectors, rules of types and of names: lines of text against a few names.
#include <algorithm>

#include "lib/model/selector.h"
#include "tests/fuzz/readers.h"
#include "tests/fuzz/sample.h"

namespace wtool::fuzz {
namespace {

template <class F>
void usage_or(F f) {
  try {
    f();
  } catch (const Error& e) {
    expect(e.fault() == Fault::Usage, e.what());
  }
}

void run(Bytes input) {
  static const Sample sample;
  const std::string text(as_text(input));
  usage_or([&] {
    const std::vector<bool> all = matching(sample.tensors, text, true);
    expect(all.size() == sample.tensors.size(), "a flag for each tensor");
    // What it selects and what it leaves are all there is.
    const std::vector<std::string> one{text};
    const auto with = select(sample.tensors, one, {}, true),
               without = select(sample.tensors, {}, one, true);
    expect(with.size() + without.size() == all.size(), "selected twice, or never");
    for (const std::uint32_t i : with) expect(all[i], "selected, but does not match");
  });
  usage_or([&] { matching(sample.tensors, text); });
  usage_or([&] {
    const std::vector<TypeRule> rules{parse_type_rule(text)};
    last_matching(sample.tensors, rules, true);
  });
  usage_or([&] {
    const std::vector<std::string> rules{text};
    const Renamer rename(rules);
    for (const LogicalTensor& t : sample.tensors) static_cast<void>(rename(t.name));
    expect(rename.unused().size() <= 1, "more unused rules than rules");
  });
  static_cast<void>(layer_of(text));
}

}  // namespace

extern const Target kSelector;
const Target kSelector{"selector", run};

}  // namespace wtool::fuzz
