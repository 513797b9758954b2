#include "lib/pack/seek_table.h"

#include <algorithm>
#include <optional>

#include "lib/base/error.h"
#include "tests/catch.h"

namespace wtool {
namespace {

using Catch::Contains;

Buffer bytes(std::initializer_list<unsigned> values) {
  Buffer out;
  for (const unsigned v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}
// A file by hand: what lies before the table, then the table from its fields. Those that a test
// does not name say the truth.
struct Table {
  std::size_t before = 0;
  std::vector<std::uint32_t> fields = {};
  std::uint32_t frames = 0;
  unsigned descriptor = 0x80;
  std::uint32_t magic = 0x184D2A5E, end = 0x8F92EAB1;
  std::optional<std::uint32_t> size = {};

  SourcePtr file() const {
    Buffer out(before, std::byte{0x11});
    append(out, magic);
    append(out, size.value_or(static_cast<std::uint32_t>(4 * fields.size() + 9)));
    for (const std::uint32_t f : fields) append(out, f);
    append(out, frames);
    out.push_back(static_cast<std::byte>(descriptor));
    append(out, end);
    return from_memory("file", out);
  }
};
void check_refused(const Table& table, const std::string& why) {
  try {
    read_seek_table(*table.file());
    FAIL("accepted, though it should say: " << why);
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::BadFile);
    CHECK_THAT(e.text(), Contains(why));
  }
}

}  // namespace

TEST_CASE("seek_table: it is written as the format says, byte by byte", "[seek_table]") {
  Buffer out = bytes({0xEE});
  append_seek_table({{0x10, 0x20, 0xAABBCCDD}, {0x01020304, 0, 0}}, out);
  CHECK(out == bytes({0xEE,                                         //
                      0x5E, 0x2A, 0x4D, 0x18, 33,   0,    0,    0,  // skippable
                      0x10, 0,    0,    0,    0x20, 0,    0,    0,    0xDD, 0xCC, 0xBB, 0xAA,  //
                      4,    3,    2,    1,    0,    0,    0,    0,    0,    0,    0,    0,     //
                      2,    0,    0,    0,    0x80, 0xB1, 0xEA, 0x92, 0x8F}));
  Buffer none;
  append_seek_table({}, none);
  CHECK(none ==
        bytes({0x5E, 0x2A, 0x4D, 0x18, 9, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xB1, 0xEA, 0x92, 0x8F}));
}

TEST_CASE("seek_table: it is read with checksums and without", "[seek_table]") {
  const SeekTable with =
      read_seek_table(*Table{.before = 60, .fields = {50, 7, 99, 10, 0, 0}, .frames = 2}.file());
  CHECK(with.checksums);
  CHECK(with.at == 60);
  REQUIRE(with.frames.size() == 2);
  CHECK((with.frames[0].stored == 50 && with.frames[0].content == 7 &&
         with.frames[0].checksum == 99));
  CHECK((with.frames[1].stored == 10 && with.frames[1].content == 0));
  CHECK(with.offsets == std::vector<std::uint64_t>{0, 50});

  const SeekTable without = read_seek_table(
      *Table{.before = 60, .fields = {50, 7, 10, 0}, .frames = 2, .descriptor = 0}.file());
  CHECK_FALSE(without.checksums);
  REQUIRE(without.frames.size() == 2);
  CHECK((without.frames[1].stored == 10 && without.frames[0].checksum == 0));

  CHECK(read_seek_table(*Table{}.file()).frames.empty());
  // Bits 1 and 0 of the descriptor mean nothing.
  CHECK(read_seek_table(*Table{.descriptor = 0x83}.file()).checksums);
}

TEST_CASE("seek_table: a file has one if it ends as one", "[seek_table]") {
  CHECK(has_seek_table(*Table{}.file()));
  CHECK(has_seek_table(*Table{.before = 5, .fields = {5, 1, 1}, .frames = 1}.file()));
  CHECK_FALSE(has_seek_table(*Table{.end = 0x8F92EAB0}.file()));
  CHECK_FALSE(has_seek_table(*from_memory("none", {})));
  const Buffer end = bytes({0, 0, 0, 0, 0x80, 0xB1, 0xEA, 0x92, 0x8F});
  CHECK_FALSE(has_seek_table(*from_memory("footer alone", end)));
}

TEST_CASE("seek_table: reserved bits are refused", "[seek_table]") {
  for (const unsigned bit : {0x04u, 0x08u, 0x10u, 0x20u, 0x40u})
    check_refused({.descriptor = 0x80 | bit}, "reserved bits");
}

TEST_CASE("seek_table: a count that is not the table's is refused", "[seek_table]") {
  const std::vector<std::uint32_t> two{50, 7, 99, 10, 0, 0};
  // More than the file has room for, at most 2^32 - 1: with checksums that is 48 GiB.
  for (const std::uint32_t count : {9u, 1000u, 0x7FFFFFFFu, 0xFFFFFFFFu})
    check_refused({.before = 60, .fields = two, .frames = count}, "frames");
  // Room there is, but no table begins there.
  for (const std::uint32_t count : {0u, 1u, 3u, 7u})
    check_refused({.before = 60, .fields = two, .frames = count}, "does not begin");
  // The flag makes entries longer than they are, and the reverse.
  check_refused({.before = 60, .fields = two, .frames = 2, .descriptor = 0}, "does not begin");
  check_refused({.before = 60, .fields = {50, 7, 10, 0}, .frames = 2}, "does not begin");
  check_refused({.magic = 0x184D2A5D}, "does not begin");
  check_refused({.magic = 0xFD2FB528}, "does not begin");
  for (const std::uint32_t size : {0u, 8u, 10u, 21u, 0xFFFFFFFFu})
    check_refused({.size = size}, "does not begin");
}

TEST_CASE("seek_table: frames that are not all there is before it are refused", "[seek_table]") {
  check_refused({.before = 60, .fields = {50, 7, 99, 9, 0, 0}, .frames = 2}, "59 bytes, but 60");
  check_refused({.before = 60, .fields = {50, 7, 99, 11, 0, 0}, .frames = 2}, "61 bytes, but 60");
  check_refused({.before = 1}, "0 bytes, but 1");
  // Sums beyond 2^32 do not come round to what is there.
  check_refused({.before = 16, .fields = {0xFFFFFFFF, 0, 0, 17, 0, 0}, .frames = 2},
                "4294967312 bytes, but 16");
  // No frame is that short.
  check_refused({.before = 60, .fields = {53, 7, 99, 7, 0, 0}, .frames = 2},
                "a frame of 7 bytes: number 1 of 2");
  check_refused({.before = 15, .fields = {15, 0, 0, 0, 0, 0}, .frames = 2},
                "2 frames, but 15 bytes");
}

TEST_CASE("seek_table: one longer than its own frame can say is refused unread", "[seek_table]") {
  // A file with holes costs nothing to make: 48 GiB of table, of which the footer is there.
  class Holes final : public Source {
   public:
    const std::string& name() const noexcept override { return name_; }
    std::uint64_t size() const noexcept override { return std::uint64_t{60} << 30; }
    void read(std::uint64_t offset, MutableBytes out) const override {
      REQUIRE(out.size() < 100);  // and certainly not 48 GiB
      std::ranges::fill(out, std::byte{0});
      const Buffer footer = bytes({0xFF, 0xFF, 0xFF, 0xFF, 0x80, 0xB1, 0xEA, 0x92, 0x8F});
      for (std::size_t i = 0; i < out.size(); ++i)
        if (offset + i >= size() - 9) out[i] = footer[offset + i - (size() - 9)];
    }

   private:
    std::string name_ = "holes";
  };
  const Holes file;
  REQUIRE(has_seek_table(file));
  CHECK_THROWS_AS(read_seek_table(file), Error);
}

}  // namespace wtool
