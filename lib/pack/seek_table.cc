#include "lib/pack/seek_table.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/error.h"

namespace wtool {
namespace {

constexpr unsigned kTableKind = 0xE;
constexpr std::uint32_t kEndMagic = 0x8F92EAB1;
constexpr std::size_t kFooter = 9, kHeader = kSkippableHead;
constexpr std::uint64_t kLeastFrame = kSkippableHead;       // with nothing in it
constexpr std::uint32_t kAtOnce = 1u << 16;                 // entries that are read together
constexpr unsigned kHasChecksums = 0x80, kReserved = 0x7C;  // bits 6 … 2 of the descriptor

Error damaged(std::string text) {
  return Error(Fault::BadFile, "the table of frames at the end " + std::move(text));
}

}  // namespace

void append_seek_table(const std::vector<FrameSize>& frames, Buffer& out) {
  Buffer table;
  table.reserve(frames.size() * 12 + kFooter);
  for (const FrameSize& f : frames) {
    append(table, f.stored);
    append(table, f.content);
    append(table, f.checksum);
  }
  append(table, static_cast<std::uint32_t>(frames.size()));
  table.push_back(static_cast<std::byte>(kHasChecksums));
  append(table, kEndMagic);
  append_skippable(kTableKind, table, out);
}

bool has_seek_table(const Source& file) {
  if (file.size() < kHeader + kFooter) return false;
  std::byte last[4];
  file.read(file.size() - 4, last);
  return load<std::uint32_t>(last) == kEndMagic;
}

SeekTable read_seek_table(const Source& file) {
  Buffer footer(kFooter);
  file.read(file.size() - kFooter, footer);
  const auto count = load<std::uint32_t>(footer);
  const auto descriptor = static_cast<unsigned>(footer[4]);
  if ((descriptor & kReserved) != 0)
    throw damaged(fmt::format("has reserved bits set: 0x{:02x}", descriptor));
  SeekTable out;
  out.checksums = (descriptor & kHasChecksums) != 0;
  const std::uint64_t entry = out.checksums ? 12 : 8;
  const std::uint64_t bytes = kHeader + count * entry + kFooter;
  if (bytes > file.size())
    throw damaged(fmt::format("claims {} frames, {} bytes of table, but the file has {}", count,
                              bytes, file.size()));
  out.at = file.size() - bytes;
  // Before its memory is asked for: a file with holes is long for nothing.
  Buffer head(kHeader);
  file.read(out.at, head);
  if (load<std::uint32_t>(head) != skippable_magic(kTableKind) ||
      load<std::uint32_t>(head, 1) != bytes - kHeader)
    throw damaged(
        fmt::format("does not begin {} bytes before it, as {} frames make it", bytes, count));
  if (count > out.at / kLeastFrame)
    throw damaged(fmt::format("names {} frames, but {} bytes lie before it", count, out.at));
  Buffer lines;
  out.frames.reserve(count);
  out.offsets.reserve(count);
  std::uint64_t at = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (i % kAtOnce == 0) {
      lines.resize(std::min(kAtOnce, count - i) * entry);
      file.read(out.at + kHeader + i * entry, lines);
    }
    const Bytes line = Bytes(lines).subspan(i % kAtOnce * entry, entry);
    const FrameSize f{load<std::uint32_t>(line), load<std::uint32_t>(line, 1),
                      out.checksums ? load<std::uint32_t>(line, 2) : 0};
    if (f.stored < kLeastFrame)  // a hole in the file, maybe
      throw damaged(fmt::format("names a frame of {} bytes: number {} of {}", f.stored, i, count));
    out.frames.push_back(f);
    out.offsets.push_back(at);
    at += f.stored;  // 2^32 frames below 2^32 bytes: no overflow
  }
  if (at != out.at)
    throw damaged(fmt::format("names frames of {} bytes, but {} lie before it", at, out.at));
  return out;
}

}  // namespace wtool
