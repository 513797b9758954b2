#include "lib/trust/digest.h"

#include <algorithm>
#include <atomic>

#include "lib/base/error.h"
#include "tests/catch.h"

namespace wtool {
namespace {

// FIPS 180-4's examples (NIST's SHA256.pdf), and its long message: a million times 'a'.
constexpr std::string_view kEmpty =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr std::string_view kAbc =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr std::string_view kTwoBlocks =
    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
constexpr std::string_view kMillion =
    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

// Gives bytes without holding them, and fails where it is told to.
class Endless final : public Source {
 public:
  Endless(std::uint64_t size, std::uint64_t bad_at) : size_(size), bad_at_(bad_at) {}
  const std::string& name() const noexcept override { return name_; }
  std::uint64_t size() const noexcept override { return size_; }
  void read(std::uint64_t offset, MutableBytes out) const override {
    if (offset + out.size() > bad_at_) throw Error(Fault::Io, "bad sector").in(name_);
    std::ranges::fill(out, std::byte{'a'});
  }

 private:
  std::string name_ = "endless";
  std::uint64_t size_, bad_at_;
};
constexpr std::uint64_t kNever = ~std::uint64_t{0};

Extent whole(std::uint64_t size, std::uint64_t bad_at = kNever) {
  return {std::make_shared<Endless>(size, bad_at), 0, size};
}

}  // namespace

TEST_CASE("digest: FIPS 180-4's examples", "[digest]") {
  CHECK(sha256({}).hex() == kEmpty);
  CHECK(sha256(as_bytes("abc")).hex() == kAbc);
  CHECK(sha256(as_bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")).hex() ==
        kTwoBlocks);
  Sha256Stream stream;
  for (int i = 0; i < 1000; ++i) stream.update(as_bytes(std::string(1000, 'a')));
  CHECK(stream.finish().hex() == kMillion);
}

TEST_CASE("digest: 64 digits in any case are a digest, nothing else is", "[digest]") {
  CHECK(parse_sha256(kAbc) == sha256(as_bytes("abc")));
  std::string upper(kAbc);
  std::ranges::transform(upper, upper.begin(), [](char c) { return c >= 'a' ? c - 32 : c; });
  CHECK(parse_sha256(upper) == sha256(as_bytes("abc")));
  CHECK(!parse_sha256(kAbc.substr(1)));
  CHECK(!parse_sha256(std::string(kAbc) + "0"));
  CHECK(!parse_sha256(std::string(kAbc.substr(1)) + "g"));
  CHECK(!parse_sha256(""));
}

TEST_CASE("digest: any number of threads gives the same digests, in order", "[digest]") {
  const std::vector<Extent> extents{
      whole(1'000'000), {from_memory("m", to_buffer("xabcx")), 1, 3}, whole(0), whole(30'000'000)};
  const Sha256 long_one = [] {
    Sha256Stream stream;
    for (int i = 0; i < 30; ++i) stream.update(as_bytes(std::string(1'000'000, 'a')));
    return stream.finish();
  }();
  for (const unsigned threads : {1u, 2u, 4u, 9u}) {
    std::uint64_t last = 0, total = 0;
    RunOptions options;
    options.threads = threads;
    options.progress = [&](std::uint64_t done, std::uint64_t of) {
      CHECK(done >= last);
      last = done;
      total = of;
    };
    const auto digests = sha256_of(extents, options);
    REQUIRE(digests.size() == 4);
    CHECK(digests[0].hex() == kMillion);
    CHECK(digests[1].hex() == kAbc);
    CHECK(digests[2].hex() == kEmpty);
    CHECK(digests[3] == long_one);
    CHECK(last == 31'000'003);
    CHECK(total == 31'000'003);
  }
}

TEST_CASE("digest: a read error is thrown, with and without a reader thread", "[digest]") {
  for (const unsigned threads : {1u, 2u, 8u}) {
    RunOptions options;
    options.threads = threads;
    try {
      sha256_of({whole(40'000'000, 20'000'000)}, options);
      FAIL("no error");
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::Io);
      CHECK(e.text() == "bad sector");
    }
  }
}

TEST_CASE("digest: sha256_each goes on after a fault", "[digest]") {
  std::string told;
  DigestJob job;
  job.count = 3;
  job.extent = [](std::size_t i) {
    if (i == 1) throw Error(Fault::Io, "not there");
    return whole(i == 0 ? 0 : 1'000'000);
  };
  job.take = [&](std::size_t i, const Sha256* digest, const Error* error) {
    told += std::to_string(i) + (digest ? digest->hex() : error->text()) + "\n";
  };
  RunOptions options;
  options.threads = 2;
  sha256_each(job, options);
  CHECK(told == "0" + std::string(kEmpty) + "\n1not there\n2" + std::string(kMillion) + "\n");
}

TEST_CASE("digest: a signal cancels in the middle of a file", "[digest]") {
  for (const unsigned threads : {1u, 2u}) {
    std::atomic<int> signal{0};
    RunOptions options;
    options.threads = threads;
    options.stop_signal = &signal;
    std::uint64_t seen = 0;
    options.progress = [&](std::uint64_t done, std::uint64_t) {
      seen = done;
      signal = 2;
    };
    try {
      sha256_of({whole(std::uint64_t{1} << 40)}, options);  // ten minutes if it were not stopped
      FAIL("not cancelled");
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::Cancelled);
    }
    CHECK(seen > 0);
  }
}

TEST_CASE("digest: names are escaped as sha256sum does it", "[digest]") {
  // What GNU coreutils 9.1 prints for an empty file of each name.
  const Sha256 empty = sha256({});
  const std::string hex(kEmpty);
  CHECK(checksum_line("plain name", empty) == hex + "  plain name\n");
  CHECK(checksum_line("a\nb", empty) == "\\" + hex + "  a\\nb\n");
  CHECK(checksum_line("a\\b", empty) == "\\" + hex + "  a\\\\b\n");
  for (const char* name : {"plain", "a\nb", "a\\b", "\\", "a\\nb", " x", "*x", "a\rb"}) {
    const auto back = parse_checksums(checksum_line(name, empty), "list");
    REQUIRE(back.size() == 1);
    CHECK(back[0].name == name);
    CHECK(back[0].digest == empty);
  }
}

TEST_CASE("digest: lists in all of sha256sum's forms are read", "[digest]") {
  const std::string hex(kAbc);
  const auto list = parse_checksums("# made by hand\n" + hex + "  a\r\n\n" + hex +
                                        " *b\nSHA256 (c) d) = " + hex + "\n" + hex + "  last",
                                    "list");
  REQUIRE(list.size() == 4);
  CHECK(list[0].name == "a");
  CHECK(list[1].name == "b");
  CHECK(list[2].name == "c) d");
  CHECK(list[3].name == "last");
  CHECK(list[3].line == 6);
  CHECK(parse_checksums(hex + "\n", "x").at(0).name.empty());
  CHECK(parse_checksums("", "x").empty());
}

TEST_CASE("digest: a malformed line is named by its number", "[digest]") {
  const std::string hex(kAbc);
  for (const std::string& bad :
       {hex.substr(1) + "  a", hex + " a", hex + "  ", hex + "a", "x" + hex.substr(1) + "  a",
        "\\" + hex + "  a\\x", "\\" + hex + "  a\\", std::string("SHA256 (a) = 12"),
        std::string("<html>"), hex}) {
    INFO(bad);
    try {
      parse_checksums(hex + "  good\n" + bad + "\n", "SHA256SUMS");
      FAIL("accepted");
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::BadFile);
      CHECK(e.where() == "SHA256SUMS: line 2");
    }
  }
}

}  // namespace wtool
