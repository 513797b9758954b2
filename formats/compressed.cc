#include "formats/compressed.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

// Units of work read half a MiB: neighbours share a chunk of one.
constexpr std::size_t kCached = 8;

void check_expansion(const PackIndex& index, std::uint64_t size) {
  std::uint64_t stored = 0, shared = 0;  // at most index.bytes, which are a number
  for (const Piece& p : index.pieces) {
    if (p.has_frames()) stored += p.bytes;
    if (p.same_as) shared += p.bytes;
  }
  const std::uint64_t claimed = shared / kMostShared > stored ? stored + shared : stored;
  if (claimed / kMostExpansion > size)
    throw Error(Fault::BadFile, fmt::format("claims {} bytes from {}: more than {} times as many",
                                            claimed, size, kMostExpansion));
}

std::string place_of(const Piece& p) {
  return p.tensor ? "tensor " + quoted(*p.tensor) : fmt::format("bytes from {} on", p.offset);
}

// Frames have checksums, and the table says the same of them.
Unpacker::Fault check_checksums(Bytes stored, std::span<const FrameSize> frames) {
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const Bytes frame = stored.first(frames[i].stored);
    stored = stored.subspan(frame.size());
    const auto own = stored_checksum(frame);
    if (!own) return {i, "has no checksum"};
    if (*own != frames[i].checksum)
      return {i, fmt::format("its checksum is {:08x}, but the table says {:08x}", *own,
                             frames[i].checksum)};
  }
  return {};
}

}  // namespace

CompressedFile::CompressedFile(SourcePtr file) : file_(std::move(file)) {
  try {
    table_ = read_seek_table(*file_);
    if (table_.frames.empty()) throw Error(Fault::BadFile, "has no frames");
    const std::uint64_t at = table_.offsets.back(), size = table_.frames.back().stored;
    std::byte head[kSkippableHead] = {};
    if (size >= kSkippableHead) file_->read(at, head);
    if (load<std::uint32_t>(head) != skippable_magic(kIndexKind))
      throw Error(Fault::Unsupported, "is compressed, but has no index of wtool's")
          .hint("'zstd -d' restores it whole");
    if (load<std::uint32_t>(head, 1) != size - kSkippableHead || size > kMostIndexBytes)
      throw Error(Fault::BadFile,
                  fmt::format("an index of {} bytes in a frame of {}, of at most {}",
                              load<std::uint32_t>(head, 1), size, kMostIndexBytes));
    if (!table_.checksums) throw Error(Fault::BadFile, "the table of frames has no checksums");
    std::string text(size - kSkippableHead, '\0');
    file_->read(at + kSkippableHead, std::as_writable_bytes(std::span(text)));
    index_ = parse_pack_index(std::move(text), table_.frames.size() - 1);
    check_expansion(index_, file_->size());
  } catch (Error& e) {
    e.in(file_->name());
    throw;
  }
}

void CompressedFile::set_base(const Catalog& base) const {
  base_.resize(index_.pieces.size());
  for (std::size_t i = 0; i < index_.pieces.size(); ++i) {
    const Piece& p = index_.pieces[i];
    if (!p.needs_base()) continue;
    const TensorEntry* t = p.tensor ? base.find(*p.tensor) : nullptr;
    if (!t || t->dtype != p.dtype || !std::ranges::equal(t->shape, p.shape) ||
        t->bytes != p.tensor_bytes)
      throw Error(Fault::BadFile,
                  t ? fmt::format("the base has {} {}, not {} {}", name_of(t->dtype),
                                  to_text(t->shape), name_of(p.dtype), to_text(p.shape))
                    : "the base has no such tensor")
          .in(place_of(p))
          .in(name());
    base_[i] = base.extent(*t);
  }
}

Extent CompressedFile::base_of(const Piece& piece) const {
  const std::size_t i = number_of(piece);
  if (base_.empty() || !base_[i])
    throw Error(Fault::Usage,
                fmt::format("is the difference to {}: its values need that file",
                            index_.base.empty() ? "a base" : quoted(index_.base[0].name)))
        .in(place_of(piece))
        .hint("'wtool decompress --base FILE' restores the model");
  return *base_[i];
}

void CompressedFile::decode(const Piece& piece, std::uint64_t chunk, FrameReader::Check check,
                            MutableBytes out) const {
  const Piece& stored = piece.same_as ? index_.pieces[*piece.same_as] : piece;
  try {
    Buffer padded(stored.chunk_size(chunk) == out.size() ? 0 : stored.chunk_size(chunk));
    auto damage = decode_stored(stored, chunk, check, padded.empty() ? out : MutableBytes(padded));
    if (damage && keeps_damage_) {
      std::ranges::fill(out, std::byte{0});
      damage->piece = number_of(piece);
      const std::scoped_lock lock(mutex_);
      damage_.try_emplace({damage->piece, chunk}, std::move(*damage));
      return;
    }
    if (damage)
      throw Error(Fault::BadFile, std::move(damage->text))
          .in(place_of(stored))
          .hint("'wtool decompress --salvage' keeps the tensors that are whole");
    if (!padded.empty()) std::ranges::copy(Bytes(padded).first(out.size()), out.begin());
  } catch (Error& e) {
    if (e.fault() == Fault::Io) throw;  // it names its file, which may be the base
    if (piece.same_as) e.in(place_of(piece) + " is stored as another");
    e.in(name());
    throw;
  }
}

void CompressedFile::keep_damage(bool keep) const {
  const std::scoped_lock lock(mutex_);
  keeps_damage_ = keep;
  cache_.clear();  // of zeros, maybe
}

std::vector<CompressedFile::Damage> CompressedFile::damage() const {
  const std::scoped_lock lock(mutex_);
  std::vector<Damage> out;
  for (const auto& [_, damage] : damage_) out.push_back(damage);
  return out;
}

std::optional<CompressedFile::Damage> CompressedFile::decode_stored(const Piece& piece,
                                                                    std::uint64_t chunk,
                                                                    FrameReader::Check check,
                                                                    MutableBytes out) const {
  const std::uint64_t at = chunk * piece.codec.chunk_bytes();
  if (piece.same_as_base) {
    const Extent base = base_of(piece);
    base.source->read(base.offset + at, out);
    return std::nullopt;
  }
  const std::size_t planes = piece.codec.planes();
  const std::uint64_t first = piece.first_frame + chunk * planes;
  const auto frames = std::span(table_.frames).subspan(first, planes);
  std::uint64_t stored = 0;
  for (const FrameSize& f : frames) stored += f.stored;
  // What zstd itself would make of a chunk without hope, and a little more.
  if (stored > out.size() + out.size() / 8 + planes * 1024)
    return Damage{0, chunk, first,
                  fmt::format("frames {} to {} take {} bytes for {}", first, first + planes - 1,
                              stored, out.size())};
  const Unpacker::Fault fault = workers_.use([&](Worker& worker) {
    worker.stored.resize(stored);
    file_->read(table_.offsets[first], worker.stored);
    Bytes base;
    if (piece.codec.needs_base()) {
      const Extent from = base_of(piece);
      // What follows a tensor in its piece is the difference to zeros.
      worker.base.assign(out.size(), std::byte{0});
      const std::uint64_t n =
          at < from.bytes ? std::min<std::uint64_t>(out.size(), from.bytes - at) : 0;
      from.source->read(from.offset + at, MutableBytes(worker.base).first(n));
      base = worker.base;
    }
    const auto unpack = [&](FrameReader::Check how) {
      return worker.unpacker.decode(piece.codec, worker.stored, frames, base, how, out);
    };
    auto wrong = check_checksums(worker.stored, frames);
    if (!wrong) wrong = unpack(check);
    if (wrong && check == FrameReader::Check::Trust)  // which frame is it really?
      if (auto checked = unpack(FrameReader::Check::Checksum)) wrong = std::move(checked);
    return wrong;
  });
  if (!fault) return std::nullopt;
  const std::uint64_t frame = first + fault.frame;
  return Damage{
      0, chunk, frame,
      fmt::format("frame {} at byte {} is damaged: {}", frame, table_.offsets[frame], fault.text)};
}

std::shared_ptr<const Buffer> CompressedFile::chunk_of(std::size_t piece,
                                                       std::uint64_t chunk) const {
  const auto is_it = [&](const Cached& c) { return c.piece == piece && c.chunk == chunk; };
  {
    const std::scoped_lock lock(mutex_);
    const auto it = std::ranges::find_if(cache_, is_it);
    if (it != cache_.end()) {
      std::rotate(it, it + 1, cache_.end());
      return cache_.back().bytes;
    }
  }
  const Piece& p = index_.pieces[piece];
  auto bytes = std::make_shared<Buffer>(p.chunk_size(chunk));
  decode(p, chunk, FrameReader::Check::Checksum, *bytes);
  const std::scoped_lock lock(mutex_);
  if (std::ranges::none_of(cache_, is_it)) {
    if (cache_.size() == kCached) cache_.erase(cache_.begin());
    cache_.push_back({piece, chunk, bytes});
  }
  return bytes;
}

void CompressedFile::read(std::uint64_t offset, MutableBytes out) const {
  if (offset > size() || out.size() > size() - offset)
    throw Error(Fault::BadFile, fmt::format("{} bytes wanted at {} but the file ends at {}",
                                            out.size(), offset, size()))
        .in(name());
  auto it = std::ranges::upper_bound(index_.pieces, offset, {}, &Piece::offset);
  while (!out.empty()) {
    const auto i = static_cast<std::size_t>(it - index_.pieces.begin()) - 1;
    const Piece& p = index_.pieces[i];
    const std::uint64_t within = offset - p.offset, chunk = within / p.codec.chunk_bytes();
    const std::uint64_t start = within - chunk * p.codec.chunk_bytes();
    const std::uint64_t whole = p.chunk_size(chunk);
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), whole - start));
    if (n == whole) {
      decode(p, chunk, FrameReader::Check::Checksum, out.first(n));
    } else {
      const auto bytes = chunk_of(i, chunk);
      std::ranges::copy(Bytes(*bytes).subspan(start, n), out.begin());
    }
    out = out.subspan(n);
    offset += n;
    if (offset == p.offset + p.bytes) ++it;
  }
}

std::uint64_t end_of_head(const Source& source) noexcept {
  const auto* const file = dynamic_cast<const CompressedFile*>(&source);
  if (!file) return source.size();
  const std::vector<Piece>& pieces = file->index().pieces;
  return pieces.empty() || pieces[0].tensor ? source.size() : pieces[0].bytes;
}

std::shared_ptr<CompressedFile> open_compressed(const SourcePtr& file) {
  std::byte first[4] = {};
  if (file->size() < sizeof first) return nullptr;
  file->read(0, first);
  if (!begins_as_zstd(first)) return nullptr;
  if (!has_seek_table(*file))
    throw Error(Fault::Unsupported, "is compressed by zstd without a table of frames, or cut off")
        .in(file->name())
        .hint("'zstd -d' restores what 'zstd' made; 'wtool compress' makes files that wtool reads");
  return std::make_shared<CompressedFile>(file);
}

SourcePtr unwrap_compressed(const SourcePtr& file) {
  if (auto inner = open_compressed(file)) return inner;
  return file;
}

}  // namespace wtool
