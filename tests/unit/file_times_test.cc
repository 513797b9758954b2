#include "lib/trust/file_times.h"

#include <fstream>

#include "tests/catch.h"
#include "tests/unit/temp_folder.h"

namespace wtool {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

FileState file(std::int64_t modified, std::int64_t changed) {
  FileState out;
  out.kind = FileState::Kind::File;
  out.device = 1;
  out.modified = modified;
  out.changed = changed;
  return out;
}
FileState folder(std::int64_t modified, std::int64_t changed) {
  FileState out = file(modified, changed);
  out.kind = FileState::Kind::Folder;
  return out;
}
// Made at 100 s, written until 200 s.
FileState signature() {
  FileState out = file(200 * kSecond, 200 * kSecond);
  out.born = 100 * kSecond;
  return out;
}

}  // namespace

TEST_CASE("file times: a file is taken over only if all its times lie before the signature's",
          "[file_times]") {
  const auto why = [](std::int64_t modified, std::int64_t changed) {
    return why_changed(file(modified * kSecond, changed * kSecond), signature()).value_or("kept");
  };
  CHECK(why(10, 10) == "kept");
  CHECK(why(97, 97) == "kept");
  CHECK(why(10, 98) == "changed less than 2 seconds before");
  CHECK(why(98, 10) == "changed less than 2 seconds before");
  CHECK(why(99, 99) == "changed less than 2 seconds before");
  CHECK(why(100, 100) == "changed since");
  CHECK(why(10, 150) == "changed since");  // while the signature was being made
  CHECK(why(10, 300) == "changed since");  // its time was set back by hand
  CHECK(why(300, 10) == "changed since");
}

TEST_CASE("file times: what is no file, or counts by another clock, is not taken over",
          "[file_times]") {
  FileState elsewhere = file(0, 0);
  elsewhere.device = 2;
  CHECK(why_changed(elsewhere, signature()));
  CHECK(why_changed(folder(0, 0), signature()));
}

TEST_CASE("file times: a copied signature that has kept its time counts from that time",
          "[file_times]") {
  FileState copied = signature();
  copied.born = 500 * kSecond;
  CHECK(begun(copied) == 200 * kSecond);
  FileState unborn = signature();
  unborn.born.reset();
  CHECK(begun(unborn) == 200 * kSecond);
  CHECK(begun(signature()) == 100 * kSecond);
}

TEST_CASE("file times: a folder that was moved is told from one in which something was made",
          "[file_times]") {
  const auto moved = [](std::int64_t modified, std::int64_t changed) {
    return may_have_moved(folder(modified * kSecond, changed * kSecond), signature());
  };
  CHECK(!moved(10, 10));
  CHECK(!moved(10, 50));    // it was moved, but before
  CHECK(!moved(300, 300));  // the signature itself was put into it
  CHECK(moved(10, 300));
  CHECK(moved(10, 99));
}

TEST_CASE("file times: the file system's own are read, and links are not followed",
          "[file_times]") {
  const TempFolder temp;
  CHECK(!state_of(temp / "none"));
  CHECK(state_of(temp.path)->kind == FileState::Kind::Folder);
  std::ofstream(temp / "a") << "five!";
  std::filesystem::create_symlink("a", temp / "link");
  const auto before = state_of(temp / "a");
  REQUIRE(before);
  CHECK(before->kind == FileState::Kind::File);
  CHECK(before->bytes == 5);
  CHECK(before->same_as(*state_of(temp / "a")));
  CHECK(state_of(temp / "link")->kind == FileState::Kind::Other);
  // Coarse clocks may be a tick behind the precise one.
  CHECK(before->changed < now_ns() + kSecond);
  CHECK(before->changed > now_ns() - 3600 * kSecond);
  std::filesystem::last_write_time(
      temp / "a", std::filesystem::file_time_type::clock::now() - std::chrono::hours(48));
  const auto after = state_of(temp / "a");
  CHECK(!before->same_as(*after));
  CHECK(after->modified < before->modified - 3600 * kSecond);
  CHECK(after->changed >= before->changed);
}

}  // namespace wtool
