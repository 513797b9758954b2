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

TEST_CASE("compressed: a difference is of as many bytes as its base has", "[compressed]") {
  // The type and the shape are those of the base, of ten bytes.
  const Opened base = opened(safetensors({{"t", "U8", "[10]", noise(10)}}));
  const auto with = [](std::uint64_t size) {
    std::string members = tensor_members("t", 10);
    const std::string was = R"("tensor_bytes":10)";
    members.replace(members.find(was), was.size(), fmt::format(R"("tensor_bytes":{})", size));
    return open_compressed(Frames().file(index_text(
        fmt::format(R"({{"offset":0,"bytes":{},{},"same_as_base":true}})", size, members), size,
        kBase)));
  };
  REQUIRE_NOTHROW(with(10)->set_base(base.catalog));
  CHECK_THROWS_AS(with(9)->set_base(base.catalog), Error);
  CHECK_THROWS_AS(with(11)->set_base(base.catalog), Error);
}

}  // namespace wtool
