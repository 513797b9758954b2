#include "lib/trust/written_digest.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <random>
#include <thread>

#include "tests/catch.h"

using namespace wtool;
namespace fs = std::filesystem;

namespace {

// A folder of two files: heads, tensors out of order with gaps between, one without bytes, a tail.
struct Example {
  fs::path folder = fs::temp_directory_path() / "wtool-written-digest";
  std::vector<OutTensor> tensors;
  Placement placement;
  std::vector<Buffer> files;  // as they shall be

  Example() {
    fs::remove_all(folder);
    files = {Buffer(3'000'000), Buffer(1'000)};
    placement.files.resize(2);
    add(0, 1'200'000, 400'000);
    add(0, 64, 1'000'000);
    add(0, 1'700'000, 0);
    add(0, 1'700'032, 1'299'000);
    add(1, 8, 900);
    std::mt19937 random(7);
    for (std::size_t i = 0; i < tensors.size(); ++i)
      std::ranges::generate(bytes_of(i), [&] { return static_cast<std::byte>(random()); });
    std::ranges::fill(std::span(files[0]).first(64), std::byte{1});
    std::ranges::fill(std::span(files[0]).last(100), std::byte{2});
    std::ranges::fill(std::span(files[1]).first(8), std::byte{3});
  }
  ~Example() { fs::remove_all(folder); }
  Example(const Example&) = delete;
  Example& operator=(const Example&) = delete;

  void add(std::size_t file, std::uint64_t offset, std::uint64_t bytes) {
    tensors.push_back({"t" + std::to_string(tensors.size()), DType::I16, {bytes / 2}});
    placement.tensors.push_back({file, offset, bytes});
  }
  std::span<std::byte> bytes_of(std::size_t i) {
    const Placement::Tensor& t = placement.tensors[i];
    return std::span(files[t.file])
        .subspan(static_cast<std::size_t>(t.offset), static_cast<std::size_t>(t.bytes));
  }

  // Writes in the given order of tensors, on two threads, and hashes beside.
  WrittenDigests::Result run(const std::vector<std::size_t>& order, unsigned threads) {
    OutputSet outputs(folder, OutputSet::Kind::Folder, OutputSet::Existing::Refuse);
    WrittenDigests digests(outputs, tensors, {}, {.threads = threads});
    std::vector<std::size_t> numbers;
    for (std::size_t f = 0; f < files.size(); ++f) {
      numbers.push_back(outputs.create("f" + std::to_string(f), files[f].size()));
      outputs.write_at(numbers[f], 0, Bytes(files[f]).first(f == 0 ? 64 : 8));
    }
    outputs.write_at(numbers[0], files[0].size() - 100, Bytes(files[0]).last(100));
    digests.begin(placement, numbers);
    const auto write = [&](std::size_t from) {
      for (std::size_t i = from; i < order.size(); i += 2) {
        const std::size_t t = order[i];
        const Placement::Tensor& place = placement.tensors[t];
        if (place.bytes == 0) continue;
        outputs.write_at(numbers[place.file], place.offset, bytes_of(t));
        digests.complete(t);
      }
    };
    {
      const std::jthread other(write, 1);
      write(0);
    }
    const Buffer side = to_buffer("beside");
    outputs.write_at(outputs.create("side", side.size()), 0, side);
    return digests.finish();
  }
};

}  // namespace

TEST_CASE("digests made beside the writing are those of what was written", "[written_digest]") {
  Example example;
  std::vector<std::size_t> order(example.tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  unsigned tries = 0;
  do {
    if (tries % 7 != 0) continue;  // 18 of 120 orders
    const auto found = example.run(order, 1 + tries % 3);
    REQUIRE(found.files.size() == 3);
    for (std::size_t f = 0; f < 2; ++f) {
      CHECK(found.files[f].digest == sha256(example.files[f]));
      CHECK(found.files[f].bytes == example.files[f].size());
    }
    CHECK(found.files[2].name == "side");
    CHECK(found.files[2].digest == sha256(as_bytes("beside")));
    for (std::size_t t = 0; t < example.tensors.size(); ++t) {
      CHECK(found.tensors[t].stored == sha256(example.bytes_of(t)));
      CHECK(found.tensors[t].canonical == found.tensors[t].stored);
      CHECK(found.tensors[t].file == example.placement.tensors[t].file);
    }
  } while (++tries, std::ranges::next_permutation(order).found);
}

TEST_CASE("of big-endian outputs both digests are made", "[written_digest]") {
  Example example;
  for (OutTensor& t : example.tensors) t.big_endian = true;
  const auto found = example.run({0, 1, 2, 3, 4}, 2);
  Buffer swapped(example.bytes_of(1).begin(), example.bytes_of(1).end());
  for (std::size_t i = 0; i + 1 < swapped.size(); i += 2) std::swap(swapped[i], swapped[i + 1]);
  CHECK(found.tensors[1].stored == sha256(example.bytes_of(1)));
  CHECK(found.tensors[1].canonical == sha256(swapped));
}

TEST_CASE("what is given up leaves no thread behind", "[written_digest]") {
  Example example;
  OutputSet outputs(example.folder, OutputSet::Kind::Folder, OutputSet::Existing::Refuse);
  WrittenDigests digests(outputs, example.tensors, {}, {.threads = 2});
  const std::vector<std::size_t> numbers{outputs.create("f0", example.files[0].size()),
                                         outputs.create("f1", example.files[1].size())};
  digests.begin(example.placement, numbers);
  digests.complete(1);  // and no finish()
}
