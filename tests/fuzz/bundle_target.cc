// Model signatures: bundles and the statements in them. What is read can be written, and then is
// the same; no name that is taken leads out of a model.
#include <algorithm>

#include "lib/trust/bundle.h"
#include "lib/trust/statement.h"
#include "tests/fuzz/target.h"

namespace wtool::fuzz {
namespace {

void expect_refused(const Error& e) {
  expect(e.fault() == Fault::BadFile || e.fault() == Fault::Unsupported, e.what());
}

void run_statement(const std::string& text) {
  try {
    const Statement statement = parse_statement(text);
    expect(!statement.resources.empty(), "a statement of nothing");
    for (const Resource& r : statement.resources)
      expect(r.path == "." || !unfit_name(r.path), "a name that leads out");
    if (statement.from_v02()) return;  // is written in today's form
    const std::string written = write_statement(statement);
    expect(write_statement(parse_statement(written)) == written, "written, it is another");
  } catch (const Error& e) {
    expect_refused(e);
  }
}

void run(Bytes input) {
  const std::string text(as_text(input));
  run_statement(text);
  try {
    const Bundle bundle = parse_bundle(text);
    run_statement(bundle.payload);
    static_cast<void>(signed_text_v02(bundle.payload_type, bundle.payload));
    if (bundle.kind == Bundle::Kind::Keyless ||
        (bundle.hint.empty() && bundle.certificates.empty()))
      return;  // such ones are not written
    const std::string written = write_bundle(bundle);
    expect(write_bundle(parse_bundle(written)) == written, "written, it is another bundle");
  } catch (const Error& e) {
    expect_refused(e);
  }
}

}  // namespace

extern const Target kBundle;
const Target kBundle{"bundle", run, mutate_json};

}  // namespace wtool::fuzz
