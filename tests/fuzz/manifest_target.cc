// Manifests of digests: what is read can be written, and then is the same; no name that is taken
// leads out of the folder, and every model's content is that of its tensors.
#include "cli/content.h"
#include "tests/fuzz/target.h"

namespace wtool::fuzz {
namespace {

std::string written(const Manifest& m) {
  std::string out;
  write_manifest(m, [&](std::string_view piece) { out += piece; });
  return out;
}

void run(Bytes input) {
  Manifest m;
  try {
    m = parse_manifest(std::string(as_text(input)));
  } catch (const Error& e) {
    return expect(e.fault() == Fault::BadFile || e.fault() == Fault::Unsupported, e.what());
  }
  for (const ManifestFile& f : m.files) expect(!unsafe_path(f.name), "a name that leads out");
  for (const ManifestTensor& t : m.tensors) expect(t.file < m.files.size(), "a tensor of no file");
  // A member of models with nothing in it would be read as a manifest from before there were any.
  const bool older = m.models.empty();
  const std::string once = written(m);
  Manifest again = parse_manifest(once);
  expect(written(again) == once, "written, it is another");
  if (older) return;
  seal(again);
  expect(written(parse_manifest(written(again))) == written(again), "sealed, it is no manifest");
}

}  // namespace

extern const Target kManifest;
const Target kManifest{"manifest", run, mutate_json};

}  // namespace wtool::fuzz
