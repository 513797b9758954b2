#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "lib/base/bytes.h"
#include "lib/pack/xxhash64.h"

// Single Zstandard frames (RFC 8878), each with its content's size and checksum.
namespace wtool {

// How a frame's bytes are coded. Whatever is asked for, a frame that would get longer than Raw is
// Raw, and one of equal bytes is a few bytes that say so.
enum class Coder : std::uint8_t {
  Raw,      // as they are
  Huffman,  // no search for repetitions: in exponents there are only worthless ones, and it is the
            // quickest entropy coder of the format
  Fast,     // zstd's level 1: for planes that are mostly zero
  Strong,   // zstd's level 3
};
std::string_view name_of(Coder coder) noexcept;

inline constexpr std::size_t kMostFrameBytes = std::size_t{4} << 20;  // of content

struct FrameSize {
  std::uint32_t stored = 0, content = 0, checksum = 0;  // the low half of XXH64 of the content
};

// One worker's: keeps zstd's tables from frame to frame. The bytes depend on the input and the
// version of libzstd alone.
class FrameWriter {
 public:
  FrameWriter();
  ~FrameWriter();
  FrameWriter(FrameWriter&&) noexcept;
  FrameWriter& operator=(FrameWriter&&) noexcept;

  // Appends a frame. At most kMostFrameBytes.
  FrameSize append(Coder coder, Bytes content, Buffer& out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A frame of bytes as they are, appended at once and filled piece by piece; what comes after it in
// the buffer can be appended meanwhile.
class RawFrame {
 public:
  RawFrame(std::size_t bytes, Buffer& out);
  std::byte* piece(std::size_t i) noexcept;  // as of a FrameView; until the buffer grows
  void filled(std::size_t i);                // one after another: while the caches hold it
  // If all bytes turn out to be the same, the frame becomes shorter and what is behind it moves.
  FrameSize finish();

 private:
  static constexpr std::size_t kNoMore = ~std::size_t{0};
  std::size_t bytes_, at_, equal_ = 0;  // so many pieces are all of the first byte
  Buffer* out_;
  XxHash64 checksum_;
};

// A frame's content: pieces of 128 KiB, the last one less, `gap` bytes between them.
struct FrameView {
  static constexpr std::size_t kPiece = std::size_t{128} << 10;
  const std::byte* first = nullptr;
  std::size_t gap = 0;
  const std::byte* piece(std::size_t i) const noexcept { return first + i * (kPiece + gap); }
};

class FrameReader {
 public:
  FrameReader();
  ~FrameReader();
  FrameReader(FrameReader&&) noexcept;
  FrameReader& operator=(FrameReader&&) noexcept;

  // Checksums cost as much as a tenth of decoding: left out where a digest of the whole is checked.
  enum class Check : std::uint8_t { Checksum, Trust };
  // Decodes one frame of exactly out.size() bytes. Says what is wrong, if something is: `out` is
  // then in an undefined state. Never writes elsewhere, whatever the frame says.
  std::string decode(Bytes frame, MutableBytes out, Check check);
  // The same without copying what is not coded: `view` is then within the frame, else in `room`.
  std::string decode(Bytes frame, MutableBytes room, Check check, FrameView& view);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A frame of any size without compression, which can be written again with other content of the
// same size (as long as its bytes are not all equal); and what the table says of such a frame.
void append_raw_frame(Bytes content, Buffer& out);
FrameSize raw_frame_size(Bytes frame);

// The checksum that a frame ends with; nothing if it has none.
std::optional<std::uint32_t> stored_checksum(Bytes frame) noexcept;

// A frame that decoders pass over: a magic number, the number of bytes that follow, and these.
// `kind`: 0 … 15, the last digit of the magic number.
inline constexpr std::size_t kSkippableHead = 8;
constexpr std::uint32_t skippable_magic(unsigned kind) noexcept {
  return 0x184D2A50 + kind;
}
void append_skippable(unsigned kind, Bytes content, Buffer& out);

// True of the first bytes of every file of zstd's.
bool begins_as_zstd(Bytes first) noexcept;

std::string zstd_version();  // for --version: other versions may give other bytes

}  // namespace wtool
