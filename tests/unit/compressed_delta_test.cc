// Differences to a base.
#include "tests/unit/compressed_files.h"

namespace wtool {

TEST_CASE("compressed: a difference needs its base, and nothing else will do", "[compressed]") {
  const Buffer file = safetensors(a_model());
  const Opened base = opened(safetensors(its_base()));
  const Buffer with = compressed(opened(file), PackForm::Planes, 1, &base.catalog);
  CHECK(with.size() < compressed(opened(file), PackForm::Planes).size() * 3 / 4);
  const auto out = open(with);
  CHECK(out->index().needs_base());
  // The header is its own; tensors are not readable without.
  CHECK(read(*out, 0, 8) == part(file, 0, 8));
  try {
    all_of(*out);
    FAIL("read without its base");
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::Usage);
  }
  out->set_base(base.catalog);
  CHECK(all_of(*out) == file);

  const auto refuses = [&](const std::function<void(std::vector<Part>&)>& change,
                           const std::string& why) {
    std::vector<Part> other = its_base();
    change(other);
    const Opened model = opened(safetensors(other));
    try {
      open(with)->set_base(model.catalog);
      FAIL("accepted, though it should say: " << why);
    } catch (const Error& e) {
      CHECK_THAT(e.what(), Catch::Contains(why));
    }
  };
  refuses([](auto& m) { m[0].name = "z"; }, "tensor 'a': the base has no such tensor");
  refuses([](auto& m) { m[0].dtype = "F16"; }, "the base has f16");
  refuses([](auto& m) { m[0].shape = "[1000,600]"; }, "[1000, 600]");
}

}  // namespace wtool
