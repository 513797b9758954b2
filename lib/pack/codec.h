#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/base/scratch.h"
#include "lib/pack/frame.h"

// How a stretch of a file is taken apart into planes of bytes that are alike, each of which becomes
// one frame. A stretch is cut into chunks; each stands for itself.
namespace wtool {

// Bytes [offset, offset + length) of each block.
struct ByteColumn {
  std::uint16_t offset = 0, length = 0;
  bool operator==(const ByteColumn&) const = default;
};

struct PackCodec {
  // Planes with a byte for each element come first: most of them are stored uncoded.
  enum class Kind : std::uint8_t {
    Plain,    // one plane: the bytes as they are
    Bf16,     // sign and mantissa; pairs of exponents; 'rest'
    F32,      // the low, the middle byte; sign and mantissa; pairs of exponents; 'rest'
    Columns,  // one plane for each set of columns
    Delta16,  // differences to a base (kernels/planes.h): small; the far ones' low, high bytes
    Delta32,  // likewise: low; middle; small; the far ones' low, high bytes
  };
  // 'rest' is a byte, the largest exponent that nibbles stand for, then the exponents that they do
  // not, then what is no whole element. Of all other kinds, what is no whole element or block is at
  // the end of the last plane.
  Kind kind = Kind::Plain;
  std::uint16_t block = 1;  // bytes of an element; for Columns, of a block
  std::vector<std::vector<ByteColumn>> columns = {};  // for Columns: each byte of a block once

  bool operator==(const PackCodec&) const = default;
  std::size_t planes() const noexcept;  // 1 … kMostPlanes
  bool needs_base() const noexcept { return kind == Kind::Delta16 || kind == Kind::Delta32; }
  // The original's bytes in every chunk but the last: about a MiB, whole blocks.
  std::uint64_t chunk_bytes() const noexcept;
};
inline constexpr std::size_t kMostPlanes = 8;
inline constexpr std::uint16_t kMostBlock = 1024;

std::string_view name_of(PackCodec::Kind kind) noexcept;  // "bytes", "bf16", …
std::uint16_t block_of(
    PackCodec::Kind kind) noexcept;  // bytes of an element; 1 for Plain and Columns
std::optional<PackCodec::Kind> parse_codec_kind(std::string_view name) noexcept;
// Why this is no codec: columns that leave their block, overlap, or forget a byte. From a file.
std::optional<std::string> fault_in(const PackCodec& codec);

// The planes worth trying for a type; Plain if there are none.
PackCodec codec_for(DType dtype);
// Its difference to a base; nullopt if there is none for this type.
std::optional<PackCodec> delta_for(DType dtype);

// One worker's.
class Packer {
 public:
  // Appends codec.planes() frames to `out`, and their sizes. `base`: as many bytes as `chunk`, for
  // codecs that need one. `coders`: one for each plane.
  void encode(const PackCodec& codec, Bytes chunk, Bytes base, const std::vector<Coder>& coders,
              Buffer& out, std::vector<FrameSize>& sizes);

 private:
  void encode_flat(const PackCodec& codec, Bytes chunk, Bytes base,
                   const std::vector<Coder>& coders, Buffer& out, std::vector<FrameSize>& sizes);
  FrameWriter frames_;
  Scratch scratch_;
};

class Unpacker {
 public:
  // What is wrong, and with which of the frames; empty text if nothing is.
  struct Fault {
    std::size_t frame = 0;
    std::string text = {};
    explicit operator bool() const noexcept { return !text.empty(); }
  };
  // `frames` lie one after another in `stored`, with the sizes given. Fills `chunk`.
  Fault decode(const PackCodec& codec, Bytes stored, std::span<const FrameSize> frames, Bytes base,
               FrameReader::Check check, MutableBytes chunk);

 private:
  Fault decode_flat(const PackCodec& codec, Bytes stored, std::span<const FrameSize> frames,
                    Bytes base, FrameReader::Check check, MutableBytes chunk);
  FrameReader frames_;
  Scratch scratch_;
};

}  // namespace wtool
