// Compressed files: Error, or a file of which every stretch reads, the same in pieces as whole, or
// says what is wrong with it; and an index that is read can be written, and then says the same.
#include <fmt/format.h>

#include "formats/compressed.h"
#include "formats/registry.h"
#include "tests/fuzz/readers.h"

namespace wtool::fuzz {
namespace {

constexpr std::uint64_t kMost = std::uint64_t{4} << 20;  // of the original, that one input may cost

// Nothing may be thrown but what the file is guilty of, or the want of its base.
void expect_guilty(const Error& e) {
  expect_honest(e);
  expect(
      e.fault() == Fault::BadFile || e.fault() == Fault::Unsupported || e.fault() == Fault::Usage,
      e.what());
}

std::optional<Buffer> read(const CompressedFile& file, std::uint64_t at, std::uint64_t bytes) {
  Buffer out(static_cast<std::size_t>(bytes));
  try {
    file.read(at, out);
  } catch (const Error& e) {
    expect_guilty(e);
    return std::nullopt;
  }
  return out;
}

void expect_same_index(const CompressedFile& file) {
  const std::string once = to_json(file.index());
  PackIndex again;
  try {
    again = parse_pack_index(once, file.table().frames.size() - 1);
  } catch (const Error& e) {
    finding(fmt::format("an index that was written is refused: {}", e.what()));
  }
  expect(to_json(again) == once, "written, it is another index");
}

// Every chunk, with checksums and without: both ways agree where the checksums do.
void expect_chunks(const CompressedFile& file) {
  std::uint64_t left = kMost;
  for (const Piece& p : file.index().pieces)
    for (std::uint64_t chunk = 0; chunk < p.chunks(); ++chunk) {
      const std::uint64_t bytes = p.chunk_size(chunk);
      if (bytes > left) return;
      left -= bytes;
      Buffer checked(static_cast<std::size_t>(bytes)), trusted(checked.size());
      bool sound = true;
      try {
        file.decode(p, chunk, FrameReader::Check::Checksum, checked);
      } catch (const Error& e) {
        expect_guilty(e);
        sound = false;
      }
      try {
        file.decode(p, chunk, FrameReader::Check::Trust, trusted);
      } catch (const Error& e) {
        expect_guilty(e);
        expect(!sound, "a chunk that is sound cannot be read on trust");
      }
      if (sound) expect(trusted == checked, "a chunk reads differently on trust");
    }
}

// Cut at borders of pieces, and at every so many bytes.
void expect_same_in_stretches(const CompressedFile& file) {
  if (file.size() > kMost) return;
  const auto whole = read(file, 0, file.size());
  if (!whole) return;
  std::uint64_t at = 0;
  for (std::uint64_t n = 1; at < whole->size(); n = n * 3 + 1) {
    const std::uint64_t bytes = std::min<std::uint64_t>(n, whole->size() - at);
    const auto stretch = read(file, at, bytes);
    expect(stretch && std::equal(stretch->begin(), stretch->end(),
                                 whole->begin() + static_cast<std::ptrdiff_t>(at)),
           "a file reads differently in stretches");
    at += bytes;
  }
  for (const Piece& p : file.index().pieces)
    expect(read(file, p.offset, p.bytes).has_value(), "a piece does not read alone");
}

// As a model: what is damaged shows when values are read.
void expect_tensors(const SourcePtr& source) {
  Diagnostics faults;
  Catalog catalog;
  try {
    catalog = read_catalog(source, all_formats(), faults);
  } catch (const Error& e) {
    return expect_guilty(e);
  }
  Budget budget;
  for (const TensorEntry& t : catalog.entries())
    expect_reads(*stored(catalog, t), Values::Decoded, budget);
}

void run(Bytes input) {
  const SourcePtr source = from_memory("input", Buffer(input.begin(), input.end()));
  std::shared_ptr<CompressedFile> file;
  try {
    file = open_compressed(source);
  } catch (const Error& e) {
    return expect(e.fault() == Fault::BadFile || e.fault() == Fault::Unsupported, e.what());
  }
  if (!file) return;
  expect_same_index(*file);
  expect_chunks(*file);
  expect_same_in_stretches(*file);
  expect_tensors(source);
}

}  // namespace

extern const Target kCompressed;
const Target kCompressed{"compressed", run, mutate_compressed};

}  // namespace wtool::fuzz
