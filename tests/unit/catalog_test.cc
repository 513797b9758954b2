#include "lib/model/catalog.h"

#include "tests/catch.h"

using namespace wtool;

namespace {

SourcePtr file(std::uint64_t bytes, std::string name = "f.bin") {
  return from_memory(std::move(name), Buffer(bytes));
}
void add(Catalog& c, std::string_view name, DType dtype, const Shape& shape, std::uint64_t offset,
         std::uint64_t bytes, Diagnostics& faults) {
  TensorEntry t;
  t.name = c.arena().text(name);
  t.shape = c.arena().copy(ShapeView(shape));
  t.offset = offset;
  t.bytes = bytes;
  t.dtype = dtype;
  c.add(t, 7, faults);
}
// The rule and text of the one fault that adding gives.
std::string fault(DType dtype, const Shape& shape, std::uint64_t offset, std::uint64_t bytes) {
  Diagnostics faults(Diagnostics::Mode::Collect);
  Catalog c;
  c.add_source(file(100));
  add(c, "x", dtype, shape, offset, bytes, faults);
  if (faults.findings().empty()) return "none";
  CHECK(c.entries().empty());
  CHECK(faults.findings().size() == 1);
  CHECK(faults.findings()[0].offset == 7);
  CHECK(faults.findings()[0].where.text() == "f.bin: tensor 'x'");
  return std::string(faults.findings()[0].rule->id) + ": " + faults.findings()[0].text;
}

}  // namespace

TEST_CASE("the gate keeps what is sound and says with numbers what is not", "[catalog]") {
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 63;
  CHECK(fault(DType::F32, {5, 5}, 0, 100) == "none");
  CHECK(fault(DType::F32, {}, 96, 4) == "none");
  CHECK(fault(DType::BF16, {4, 8}, 0, 60) ==
        "tensor.size: bf16 [4, 8] needs 64 bytes but the header gives 60");
  CHECK(fault(DType::U8, {4}, 97, 4) == "tensor.bounds: 4 bytes at 97 but the file ends at 100");
  CHECK(fault(DType::U8, {4}, ~std::uint64_t{0}, 4) ==
        "tensor.bounds: 4 bytes at 18446744073709551615 but the file ends at 100");
  CHECK(fault(DType::U8, {kHuge, 2}, 0, 0) ==
        "tensor.overflow: [9223372036854775808, 2] has more than 2^64 elements");
  CHECK(fault(DType::F32, {kHuge}, 0, 0) ==
        "tensor.overflow: f32 [9223372036854775808] needs more than 2^64 bytes");
  CHECK(fault(DType::F4, {3}, 0, 2) ==
        "tensor.size: f4 [3]: 3 elements do not fill whole blocks of 2 in 1 bytes");
  CHECK(fault(DType::Q8_0, {48}, 0, 51) ==
        "tensor.size: q8_0 [48]: 48 elements do not fill whole blocks of 32 in 34 bytes");
  CHECK(fault(DType::U8, Shape(257, 1), 0, 1) ==
        "tensor.rank: 257 dimensions, but wtool takes at most 256");
  CHECK(fault(DType::F32, {0, kHuge, kHuge}, 100, 0) == "none");  // empty, wherever the 0 stands
}

TEST_CASE("a file cut short is told by how many bytes", "[catalog]") {
  Catalog c;
  c.add_source(file(100));
  Diagnostics faults;
  try {
    add(c, "x", DType::U8, {64}, 60, 64, faults);
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::BadFile);
    CHECK(e.hint() == "the file is 24 bytes short: a download cut off?");
  }
}

TEST_CASE("a name may stand once, among very many too", "[catalog]") {
  Catalog c;
  c.add_source(file(1));
  Diagnostics faults(Diagnostics::Mode::Collect);
  for (int i = 0; i < 50'000; ++i) add(c, std::to_string(i), DType::U8, {0}, 0, 0, faults);
  CHECK(faults.findings().empty());
  add(c, "49999", DType::U8, {0}, 0, 0, faults);
  REQUIRE(faults.findings().size() == 1);
  CHECK(faults.findings()[0].rule->id == "tensor.duplicate-name");
  CHECK(faults.findings()[0].rule->forgivable);
  CHECK(c.entries().size() == 50'000);
  REQUIRE(c.find("12345"));
  CHECK(c.index_of(*c.find("12345")) == 12345);
  CHECK(c.find("50000") == nullptr);
  CHECK(Catalog().find("x") == nullptr);
}

TEST_CASE("a shard is absorbed with its names, places and sources", "[catalog]") {
  Diagnostics faults(Diagnostics::Mode::Collect);
  Catalog all, second;
  all.format = "one";
  all.meta.append("k", std::string("first"));
  all.add_source(file(10, "1.bin"));
  second.format = "two";
  second.meta.append("k", std::string("second"));
  second.add_source(file(10, "2.bin"));
  add(all, "a", DType::U8, {4}, 0, 4, faults);
  add(second, "b", DType::U8, {6}, 4, 6, faults);
  add(second, "a", DType::U8, {4}, 0, 4, faults);
  all.absorb(std::move(second), faults);
  REQUIRE(all.entries().size() == 2);
  CHECK(all.meta.text("k") == "first");
  CHECK(all.format == "one");
  CHECK(all.extent(*all.find("b")).source->name() == "2.bin");
  CHECK(all.extent(*all.find("b")).offset == 4);
  CHECK(to_text(all.find("b")->shape) == "[6]");
  REQUIRE(faults.findings().size() == 1);
  CHECK(faults.findings()[0].rule->id == "tensor.two-files");
  CHECK(faults.findings()[0].where.text() == "2.bin: tensor 'a'");
  CHECK(faults.findings()[0].text == "name appears twice (first in 1.bin)");
}

TEST_CASE("overlaps are found between neighbours and across small tensors in between",
          "[catalog]") {
  Diagnostics faults(Diagnostics::Mode::Collect);
  Catalog c;
  c.add_source(file(100));
  add(c, "late", DType::U8, {10}, 50, 10, faults);
  add(c, "long", DType::U8, {60}, 0, 60, faults);
  add(c, "small", DType::U8, {4}, 10, 4, faults);
  add(c, "empty", DType::U8, {0}, 55, 0, faults);
  add(c, "next", DType::U8, {40}, 60, 40, faults);
  c.finish(faults);
  REQUIRE(faults.findings().size() == 2);
  CHECK(faults.findings()[0].where.text() == "f.bin: tensor 'small'");
  CHECK(faults.findings()[0].text == "begins 50 bytes before the end of 'long'");
  CHECK(faults.findings()[1].where.text() == "f.bin: tensor 'late'");
  CHECK(faults.findings()[1].text == "begins 10 bytes before the end of 'long'");
}

TEST_CASE("names from files are shown with their control characters escaped", "[catalog]") {
  Catalog c;
  c.add_source(file(1));
  Diagnostics faults;
  try {
    add(c, "a\x1b[2J", DType::U8, {4}, 0, 4, faults);
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.where() == "f.bin: tensor 'a\\x1b[2J'");
  }
}
