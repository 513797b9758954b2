#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/diagnostics.h"
#include "lib/base/pool.h"
#include "lib/model/catalog.h"
#include "lib/model/format.h"
#include "lib/pack/codec.h"
#include "lib/pack/seek_table.h"
#include "lib/trust/digest.h"

// Compressed weight files: seekable Zstandard with an index in a skippable frame. Their layout is
// in wtool-compressed(7).
namespace wtool {

// A stretch of the original: a tensor and the padding behind it, or what is no tensor (a header, a
// tail). Pieces follow each other without gaps.
struct Piece {
  std::uint64_t offset = 0, bytes = 0;  // in the original
  PackCodec codec = {};
  std::uint64_t first_frame =
      0;  // its frames follow each other: the planes of a chunk, chunk by chunk
  // Of a tensor:
  std::optional<std::string> tensor = {};
  DType dtype = DType::U8;
  Shape shape = {};
  std::uint64_t tensor_bytes = 0;  // at most `bytes`
  Sha256 digest = {};              // of the tensor's bytes as stored
  // No frames: the bytes are those of an earlier piece, or of the base's tensor of this name.
  std::optional<std::size_t> same_as = {};
  bool same_as_base = false;

  bool has_frames() const noexcept { return !same_as && !same_as_base; }
  bool needs_base() const noexcept { return same_as_base || (has_frames() && codec.needs_base()); }
  std::uint64_t chunks() const noexcept { return ceil_div(bytes, codec.chunk_bytes()); }
  std::uint64_t chunk_size(std::uint64_t chunk) const noexcept {
    return std::min(codec.chunk_bytes(), bytes - chunk * codec.chunk_bytes());
  }
};

enum class PackForm : std::uint8_t {
  Plain,   // 'zstd -d' gives the original
  Planes,  // 'zstd -d' gives a safetensors file of planes
};
std::string_view name_of(PackForm form) noexcept;

struct BaseFile {
  std::string name;  // without folders
  std::uint64_t bytes = 0;
  Sha256 digest = {};
};

// What the index frame says.
struct PackIndex {
  PackForm form = PackForm::Plain;
  std::string name;  // of the original, without folders
  std::uint64_t bytes = 0;
  Sha256 digest = {};
  std::vector<BaseFile> base = {};
  std::vector<Piece> pieces = {};
  bool needs_base() const noexcept { return !base.empty(); }
};
// The JSON text of an index, and what such a text says. Throws BadFile: no index, or not of
// `frames` frames.
std::string to_json(const PackIndex& index);
PackIndex parse_pack_index(std::string text, std::size_t frames);
std::string to_json(std::span<const BaseFile> base);  // the list of them alone
// The codec alone, as the index and the safetensors file of planes give it: members of an object.
std::string codec_members(const PackCodec& codec);

inline constexpr unsigned kIndexKind = 7;                                   // 0x184D2A57
inline constexpr std::uint64_t kMostIndexBytes = std::uint64_t{128} << 20;  // 250 bytes a tensor
// Bytes of an original for each of the file: more than any file of zeros needs, less than what
// names the same gigabyte thousands of times. What is the base's is not counted, and references to
// other pieces only if they are of more than kMostShared times as many bytes as pieces have that
// are stored: tied tensors can be large.
inline constexpr std::uint64_t kMostExpansion = std::uint64_t{1} << 16;
inline constexpr std::uint64_t kMostShared = 64;

// A compressed file seen as the original. Reads decode the chunks they touch, whose checksums are
// checked, and keep the last few.
class CompressedFile final : public Source {
 public:
  // Throws BadFile, Unsupported. `file` has a seek table.
  explicit CompressedFile(SourcePtr file);

  const std::string& name() const noexcept override { return file_->name(); }
  std::uint64_t size() const noexcept override { return index_.bytes; }
  void read(std::uint64_t offset, MutableBytes out) const override;
  void check_unchanged() const override { file_->check_unchanged(); }

  const PackIndex& index() const noexcept { return index_; }
  const SeekTable& table() const noexcept { return table_; }
  const SourcePtr& file() const noexcept { return file_; }

  // The model that differences are to, which must outlive this. Checks that it has the tensors;
  // digests are the caller's business. Before reading: what is read is the same for everybody.
  void set_base(const Catalog& base) const;

  // What is wrong with a chunk: the first of its frames that is.
  struct Damage {
    std::size_t piece = 0;
    std::uint64_t chunk = 0, frame = 0;
    std::string text = {};
  };
  // From now on damaged chunks read as zeros and are kept, or, which they are at first, are errors.
  // Not while others read.
  void keep_damage(bool keep) const;
  std::vector<Damage> damage() const;  // that was met, in the order of the original

  // One chunk of one of index().pieces, with frames or without, into `out` of its size. Throws
  // BadFile with the frame's number and the tensor.
  void decode(const Piece& piece, std::uint64_t chunk, FrameReader::Check check,
              MutableBytes out) const;

 private:
  struct Worker {
    Unpacker unpacker;
    Buffer stored, base;
  };
  struct Cached {
    std::size_t piece;
    std::uint64_t chunk;
    std::shared_ptr<const Buffer> bytes;
  };
  std::shared_ptr<const Buffer> chunk_of(std::size_t piece, std::uint64_t chunk) const;
  Extent base_of(const Piece& piece) const;
  std::size_t number_of(const Piece& piece) const noexcept {
    return static_cast<std::size_t>(&piece - index_.pieces.data());
  }
  // Of a piece that is no reference to another. Errors lack the file's name.
  std::optional<Damage> decode_stored(const Piece& piece, std::uint64_t chunk,
                                      FrameReader::Check check, MutableBytes out) const;

  SourcePtr file_;
  SeekTable table_;
  PackIndex index_;
  mutable std::vector<std::optional<Extent>> base_ =
      {};  // of each piece; empty: none has been given
  Pool<Worker> workers_;
  mutable bool keeps_damage_ = false;
  mutable std::mutex mutex_;           // of what follows
  mutable std::vector<Cached> cache_;  // the latest last
  mutable std::map<std::pair<std::size_t, std::uint64_t>, Damage> damage_ = {};
};

// Up to where it is free to read more than is needed, for want of knowing where a header ends: from
// a compressed file just to its first tensor, which may be damaged, or need a base.
std::uint64_t end_of_head(const Source& source) noexcept;

// Adds a file and the step that fills it with the original's bytes. Whoever runs the plan compares
// the digest of what was written with index().digest: nothing else is checked.
void add_restore(Plan& plan, std::shared_ptr<const CompressedFile> file, std::string name);

// Null if it is none. Throws if it is one and broken; Unsupported if it is compressed in a way
// that gives no access to single tensors.
std::shared_ptr<CompressedFile> open_compressed(const SourcePtr& file);
SourcePtr unwrap_compressed(const SourcePtr& file);  // for Registry: itself if it is none

}  // namespace wtool
