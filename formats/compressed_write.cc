#include "formats/compressed_write.h"

#include <algorithm>
#include <array>
#include <map>
#include <ranges>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/json_reader.h"
#include "lib/base/pool.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::size_t kSlices = 4, kSlice = std::size_t{64} << 10;
constexpr std::uint64_t kCompared = std::uint64_t{1} << 20;

// ---- Cutting

std::string name_of_file(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

// Tensors with the padding behind them, in the order of the file, and what else there is.
std::vector<Piece> cut(const Catalog& catalog, std::uint64_t size) {
  std::vector<const TensorEntry*> order;
  for (const TensorEntry& t : catalog.entries())
    if (t.bytes > 0) order.push_back(&t);
  std::ranges::sort(order, {}, &TensorEntry::offset);
  std::vector<Piece> out;
  const std::uint64_t first = order.empty() ? size : order[0]->offset;
  if (first > 0) out.push_back({.offset = 0, .bytes = first});
  for (std::size_t i = 0; i < order.size(); ++i) {
    const TensorEntry& t = *order[i];
    const std::uint64_t end = i + 1 < order.size() ? order[i + 1]->offset : size;
    if (end < t.offset + t.bytes)
      throw Error(Fault::BadFile, fmt::format("tensor {} overlaps the next one", quoted(t.name)));
    Piece& p = out.emplace_back(Piece{.offset = t.offset, .bytes = end - t.offset});
    p.dtype = t.dtype;
    p.tensor_bytes = t.bytes;
    // In JSON there is no place for other names; the tensor is packed all the same.
    if (!is_utf8(t.name)) continue;
    p.tensor = t.name;
    p.shape.assign(t.shape.begin(), t.shape.end());
  }
  return out;
}

// ---- Sampling

// How one codec did on the slices: for each plane its content, and what the coders made of it.
struct Trial {
  std::array<std::uint64_t, kMostPlanes> content = {}, huffman = {}, searched = {};
};
struct Choice {
  PackCodec codec;
  std::vector<Coder> coders;
  std::uint64_t bytes = 0;  // of the slices
};

// What looking at one piece found; plain bytes for the fold.
struct Found {
  std::uint64_t sampled = 0, plain = 0, planes = 0;
  std::uint8_t which = 0;  // of candidates()
  std::array<Coder, kMostPlanes> coders = {};
  Coder plain_coder = Coder::Raw;
  bool same_as_base = false;
  Sha256 digest = {};  // of the slices
};

// The coder that pays, for one plane. Searching for repetitions costs most of the speed.
Coder pick(std::uint64_t content, std::uint64_t huffman, std::uint64_t searched, Coder search,
           std::uint64_t& bytes) {
  Coder out = Coder::Raw;
  bytes = content;
  if (huffman * 100 < content * 98) {
    out = Coder::Huffman;
    bytes = huffman;
  }
  if (searched != 0 && searched * 100 < bytes * 95) {
    out = search;
    bytes = searched;
  }
  return out;
}

struct Slice {
  Buffer bytes, base;
};

Choice try_codec(const PackCodec& codec, std::span<const Slice> slices, Packer& packer) {
  const std::size_t planes = codec.planes();
  const Coder search = codec.kind == PackCodec::Kind::Plain ? Coder::Strong : Coder::Fast;
  Trial trial;
  Buffer out;
  std::vector<FrameSize> sizes;
  const auto run = [&](Coder coder, std::array<std::uint64_t, kMostPlanes>& sum) {
    for (const Slice& s : slices) {
      out.clear();
      sizes.clear();
      packer.encode(codec, s.bytes, s.base, std::vector(planes, coder), out, sizes);
      for (std::size_t p = 0; p < planes; ++p) sum[p] += sizes[p].stored;
      if (coder == Coder::Huffman)
        for (std::size_t p = 0; p < planes; ++p) trial.content[p] += sizes[p].content;
    }
  };
  run(Coder::Huffman, trial.huffman);
  // Where Huffman gets little there is nothing to be found, but in text and the like.
  const bool worth = codec.kind == PackCodec::Kind::Plain ||
                     std::ranges::any_of(std::views::iota(std::size_t{0}, planes), [&](auto p) {
                       return trial.huffman[p] * 2 < trial.content[p];
                     });
  if (worth) run(search, trial.searched);
  Choice choice{codec, {}, 0};
  for (std::size_t p = 0; p < planes; ++p) {
    std::uint64_t bytes = 0;
    choice.coders.push_back(
        pick(trial.content[p], trial.huffman[p], trial.searched[p], search, bytes));
    choice.bytes += bytes;
  }
  return choice;
}

// In the order in which they are preferred where they are equally good.
std::vector<PackCodec> candidates(const Piece& piece, bool base) {
  std::vector<PackCodec> out{PackCodec{}};
  if (piece.tensor_bytes == 0) return out;
  if (PackCodec c = codec_for(piece.dtype); c != PackCodec{}) out.push_back(std::move(c));
  if (base)
    if (auto delta = delta_for(piece.dtype)) out.push_back(std::move(*delta));
  return out;
}

}  // namespace

const TensorEntry* counterpart(const TensorEntry& tensor, const Catalog& base) {
  const TensorEntry* const t = base.find(tensor.name);
  return t && t->dtype == tensor.dtype && std::ranges::equal(t->shape, tensor.shape) &&
                 t->bytes == tensor.bytes && t->big_endian == tensor.big_endian &&
                 t->column_major == tensor.column_major
             ? t
             : nullptr;
}

class Packing::Impl {
 public:
  Impl(SourcePtr file, const Catalog& catalog, const Catalog* base,
       std::vector<BaseFile> base_files)
      : file_(std::move(file)),
        pieces_(cut(catalog, file_->size())),
        base_files_(std::move(base_files)) {
    base_.resize(pieces_.size());
    for (std::size_t i = 0; base && i < pieces_.size(); ++i) {
      const TensorEntry* mine = pieces_[i].tensor ? catalog.find(*pieces_[i].tensor) : nullptr;
      const TensorEntry* other = mine ? counterpart(*mine, *base) : nullptr;
      if (other) base_[i] = base->extent(*other);
    }
  }

  class SampleStep;
  class PackStep;

  void sample(const RunOptions& options);
  void find_duplicates(const RunOptions& options);
  PackEstimate estimate_of(std::size_t piece) const;
  Found look(std::size_t piece) const;
  std::vector<Slice> slices_of(std::size_t piece) const;
  bool equals_base(std::size_t piece) const;
  void choose(PackForm form);
  // Zeros behind the base's tensor: what follows a tensor in its piece is the difference to them.
  void read_base(std::size_t piece, std::uint64_t at, MutableBytes out) const {
    const std::uint64_t size = base_[piece] ? base_[piece]->bytes : 0;
    const auto n =
        static_cast<std::size_t>(at < size ? std::min<std::uint64_t>(out.size(), size - at) : 0);
    if (n > 0) base_[piece]->source->read(base_[piece]->offset + at, out.first(n));
    std::ranges::fill(out.subspan(n), std::byte{0});
  }
  Buffer base_chunk(std::size_t piece, std::uint64_t at, std::size_t bytes) const {
    Buffer out(bytes);
    read_base(piece, at, out);
    return out;
  }
  std::string planes_header(bool final) const;
  Buffer planes_frame(bool final) const;

  SourcePtr file_;
  std::vector<Piece> pieces_;
  std::vector<std::optional<Extent>> base_;
  std::vector<BaseFile> base_files_;
  std::vector<Found> found_;
  std::vector<std::optional<std::size_t>> same_as_;
  std::vector<bool> known_;  // the piece has its digest already
  std::vector<std::vector<Coder>> coders_;
  PackIndex index_;
  std::vector<FrameSize> frames_;

  struct Worker {
    Packer packer;
    Unpacker unpacker;
  };
  Pool<Worker> workers_;
};

// ---- Sampling

class Packing::Impl::SampleStep final : public Step {
 public:
  explicit SampleStep(Impl& impl) : impl_(impl) { impl_.found_.resize(impl_.pieces_.size()); }
  std::uint64_t units() const override { return impl_.pieces_.size(); }
  void run(const Unit& unit) const override {
    const Found f = impl_.look(unit.index);
    append(unit.found, std::as_bytes(std::span(&f, 1)));
  }
  void fold(std::uint64_t unit, Buffer& found) override {
    impl_.found_[unit] = load<Found>(found);
    found.clear();
  }

 private:
  Impl& impl_;
};

std::vector<Slice> Packing::Impl::slices_of(std::size_t piece) const {
  const Piece& p = pieces_[piece];
  // Slices of whole elements and blocks of every candidate.
  const std::uint64_t block = std::uint64_t{info(p.dtype).block_bytes} * 8;
  const std::uint64_t bytes =
      std::min<std::uint64_t>(p.bytes, std::max(block, kSlice / block * block));
  const std::size_t n = p.bytes < kSlices * bytes ? std::size_t{1} : kSlices;
  std::vector<Slice> out;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t at = n == 1 ? 0 : (p.bytes - bytes) * i / (n - 1) / block * block;
    out.push_back({read_all({file_, p.offset + at, bytes}), base_chunk(piece, at, bytes)});
  }
  return out;
}

bool Packing::Impl::equals_base(std::size_t piece) const {
  const Piece& p = pieces_[piece];
  for (std::uint64_t at = 0; at < p.tensor_bytes; at += kCompared) {
    const auto n = static_cast<std::size_t>(std::min(kCompared, p.tensor_bytes - at));
    if (read_all({file_, p.offset + at, n}) != base_chunk(piece, at, n)) return false;
  }
  return true;
}

Found Packing::Impl::look(std::size_t piece) const {
  const Piece& p = pieces_[piece];
  const std::vector<Slice> slices = slices_of(piece);
  Found out;
  Sha256Stream digest;
  for (const Slice& s : slices) {
    digest.update(s.bytes);
    out.sampled += s.bytes.size();
  }
  out.digest = digest.finish();
  if (base_[piece] && p.tensor_bytes == p.bytes &&
      std::ranges::all_of(slices, [](const Slice& s) { return s.bytes == s.base; }) &&
      equals_base(piece))
    out.same_as_base = true;
  const std::vector<PackCodec> codecs = candidates(p, base_[piece].has_value());
  workers_.use([&](Worker& worker) {
    for (std::size_t i = 0; i < codecs.size(); ++i) {
      const Choice c = try_codec(codecs[i], slices, worker.packer);
      if (i == 0) {
        out.plain = c.bytes;
        out.plain_coder = c.coders[0];
      } else if (c.bytes * 100 >= out.planes * 99) {
        continue;  // planes, too, have to pay
      }
      out.planes = c.bytes;
      out.which = static_cast<std::uint8_t>(i);
      std::ranges::copy(c.coders, out.coders.begin());
    }
  });
  return out;
}

void Packing::Impl::sample(const RunOptions& options) {
  Plan plan;
  plan.steps.push_back(std::make_unique<SampleStep>(*this));
  execute(plan, options);
  find_duplicates(options);
}

// Tied tensors that are stored twice. What looks the same on the slices is compared whole.
void Packing::Impl::find_duplicates(const RunOptions& options) {
  same_as_.assign(pieces_.size(), std::nullopt);
  known_.assign(pieces_.size(), false);
  std::map<std::array<std::byte, 32>, std::vector<std::size_t>> alike;
  for (std::size_t i = 0; i < pieces_.size(); ++i)
    if (pieces_[i].tensor && !found_[i].same_as_base) alike[found_[i].digest.bytes].push_back(i);
  std::vector<std::size_t> suspects;
  std::vector<Extent> extents;
  for (const auto& [_, group] : alike)
    if (group.size() > 1)
      for (const std::size_t i : group) {
        suspects.push_back(i);
        extents.push_back({file_, pieces_[i].offset, pieces_[i].tensor_bytes});
      }
  if (suspects.empty()) return;
  const std::vector<Sha256> digests = sha256_of(extents, options);
  std::map<std::pair<std::array<std::byte, 32>, std::uint64_t>, std::size_t> first;
  std::vector<std::size_t> order(suspects.size());
  for (std::size_t k = 0; k < order.size(); ++k) order[k] = k;
  std::ranges::sort(order, {}, [&](std::size_t k) { return suspects[k]; });
  for (const std::size_t k : order) {
    Piece& p = pieces_[suspects[k]];
    p.digest = digests[k];
    known_[suspects[k]] = true;
    const auto [it, fresh] = first.try_emplace({digests[k].bytes, p.tensor_bytes}, suspects[k]);
    // Padding behind it would have no place.
    if (!fresh && p.bytes == p.tensor_bytes && pieces_[it->second].dtype == p.dtype)
      same_as_[suspects[k]] = it->second;
  }
}

PackEstimate Packing::Impl::estimate_of(std::size_t piece) const {
  const Found& f = found_[piece];
  const auto whole = [&](std::uint64_t sampled) {
    return static_cast<std::uint64_t>(static_cast<double>(sampled) /
                                      static_cast<double>(f.sampled) *
                                      static_cast<double>(pieces_[piece].bytes));
  };
  const bool free = f.same_as_base || same_as_[piece];
  return {whole(f.plain), free ? 0 : whole(f.planes)};
}

void Packing::Impl::choose(PackForm form) {
  index_.form = form;
  coders_.assign(pieces_.size(), {});
  std::uint64_t stored = 0, shared = 0;
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    Piece& p = pieces_[i];
    const Found& f = found_[i];
    const bool planes = form == PackForm::Planes;
    p.codec = planes ? candidates(p, base_[i].has_value())[f.which] : PackCodec{};
    p.same_as_base = planes && f.same_as_base;
    p.same_as = planes && !p.same_as_base ? same_as_[i] : std::nullopt;
    // No more than readers accept: see kMostShared.
    if (p.same_as && (shared + p.bytes) / kMostShared > stored) p.same_as.reset();
    if (p.same_as) shared += p.bytes;
    if (p.has_frames()) stored += p.bytes;
    if (planes)
      coders_[i].assign(f.coders.begin(), f.coders.begin() + static_cast<long>(p.codec.planes()));
    else
      coders_[i] = {f.plain_coder};
    if (p.same_as) p.codec = pieces_[*p.same_as].codec;
  }
  index_.base.clear();
  if (std::ranges::any_of(pieces_, &Piece::needs_base)) index_.base = base_files_;
}

// ---- Packing

class Packing::Impl::PackStep final : public Step {
 public:
  explicit PackStep(Impl& impl) : impl_(impl) {
    if (impl_.index_.form == PackForm::Planes) head_ = 1;
    std::uint64_t unit = head_, frame = head_;
    for (std::size_t i = 0; i < impl_.pieces_.size(); ++i) {
      Piece& p = impl_.pieces_[i];
      if (!p.has_frames()) continue;
      p.first_frame = frame;
      starts_.push_back({unit, i});
      unit += p.chunks();
      frame += p.chunks() * p.codec.planes();
    }
    units_ = unit;
  }
  std::uint64_t units() const override { return units_; }

  void run(const Unit& unit) const override {
    if (unit.index < head_) {
      unit.found = impl_.planes_frame(false);
      return put_sizes({{static_cast<std::uint32_t>(unit.found.size()), 0, 0}}, unit.found);
    }
    const Start& start = *--std::ranges::upper_bound(starts_, unit.index, {}, &Start::unit);
    const Piece& p = impl_.pieces_[start.piece];
    const std::uint64_t chunk = unit.index - start.unit;
    const std::uint64_t at = chunk * p.codec.chunk_bytes();
    Scratch::Frame memory(unit.scratch);
    const auto bytes = memory.take<std::byte>(p.chunk_size(chunk));
    const auto again = memory.take<std::byte>(bytes.size());
    const auto base = memory.take<std::byte>(p.codec.needs_base() ? bytes.size() : 0);
    impl_.file_->read(p.offset + at, bytes);
    if (!base.empty()) impl_.read_base(start.piece, at, base);
    std::vector<FrameSize> sizes;
    impl_.workers_.use([&](Worker& worker) {
      worker.packer.encode(p.codec, bytes, base, impl_.coders_[start.piece], unit.found, sizes);
      // Nobody keeps what cannot be restored.
      const auto fault = worker.unpacker.decode(p.codec, unit.found, sizes, base,
                                                FrameReader::Check::Checksum, again);
      if (fault || !std::ranges::equal(again, bytes))
        throw Error(Fault::Internal,
                    fmt::format("bytes from {} on are not restored {}", p.offset + at, fault.text))
            .in(impl_.file_->name());
    });
    put_sizes(sizes, unit.found);
  }
  void fold(std::uint64_t, Buffer& found) override {
    const auto n = static_cast<std::size_t>(load<std::uint32_t>(Bytes(found).last(4)));
    const Bytes sizes = Bytes(found).last(4 + n * sizeof(FrameSize));
    for (std::size_t i = 0; i < n; ++i) impl_.frames_.push_back(load<FrameSize>(sizes, i));
    found.resize(found.size() - sizes.size());
  }

 private:
  static void put_sizes(const std::vector<FrameSize>& sizes, Buffer& found) {
    append(found, std::as_bytes(std::span(sizes)));
    append(found, static_cast<std::uint32_t>(sizes.size()));
  }
  struct Start {
    std::uint64_t unit;
    std::size_t piece;
  };
  Impl& impl_;
  std::uint64_t head_ = 0, units_ = 0;
  std::vector<Start> starts_;
};

// ---- The safetensors header of planes

// What 'zstd -d' makes of the planes form: each piece with frames is a tensor of bytes. Before the
// work sizes are the largest possible, so that the text after it is no longer.
std::string Packing::Impl::planes_header(bool final) const {
  std::string list = "[", tensors;
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& p = pieces_[i];
    const std::string name = p.tensor ? *p.tensor : fmt::format("wtool.bytes.{}", p.offset);
    std::string stored = name;
    if (p.tensor) stored += fmt::format("#{}", name_of(p.codec.kind));
    std::string quoted_name, quoted_stored;
    append_json(quoted_name, p.tensor && p.same_as ? *pieces_[*p.same_as].tensor : name);
    append_json(quoted_stored, stored);
    list += fmt::format("{}{{\"bytes\":{},", i == 0 ? "" : ",", p.bytes);
    if (!p.has_frames()) {
      list += fmt::format("\"{}\":{}}}", p.same_as ? "same_as" : "base", quoted_name);
      continue;
    }
    list += fmt::format("\"name\":{},{}}}", quoted_stored, codec_members(p.codec));
    std::uint64_t bytes = 0;
    if (final) {
      const std::uint64_t n = p.chunks() * p.codec.planes();
      for (std::uint64_t f = 0; f < n; ++f) bytes += frames_[p.first_frame + f].content;
    } else {
      bytes = 4 * p.bytes + p.chunks();
    }
    tensors += fmt::format(",{}:{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                           quoted_stored, bytes, at, at + bytes);
    at += bytes;
  }
  std::string out = fmt::format(
      "{{\"__metadata__\":{{\"wtool.compressed\":\"1\",\"wtool.chunk\":\"{}\",\"wtool.bytes\":\"{}"
      "\","
      "\"wtool.sha256\":\"{}\"",
      PackCodec{}.chunk_bytes(), file_->size(), index_.digest.hex());
  if (!index_.base.empty()) {
    out += ",\"wtool.base\":";
    append_json(out, to_json(index_.base));
  }
  out += ",\"wtool.pieces\":";
  append_json(out, list + "]");
  return out + "}" + tensors + "}";
}

Buffer Packing::Impl::planes_frame(bool final) const {
  const std::size_t reserved = align_up(planes_header(false).size(), 8);
  std::string text = planes_header(final);
  if (text.size() > reserved)
    throw Error(Fault::Internal,
                fmt::format("a header of {} bytes in a place of {}", text.size(), reserved));
  text.resize(reserved, ' ');
  Buffer content;
  append(content, std::uint64_t{reserved});
  append(content, as_bytes(text));
  Buffer out;
  append_raw_frame(content, out);
  return out;
}

Packing::Packing(SourcePtr file, const Catalog& catalog, const Catalog* base,
                 std::vector<BaseFile> base_files)
    : impl_(std::make_unique<Impl>(std::move(file), catalog, base, std::move(base_files))) {}
Packing::~Packing() = default;

void Packing::sample(const RunOptions& options) {
  impl_->sample(options);
}

std::vector<PackEstimate> Packing::estimates() const {
  std::vector<PackEstimate> out;
  for (std::size_t i = 0; i < impl_->pieces_.size(); ++i) out.push_back(impl_->estimate_of(i));
  return out;
}
PackEstimate Packing::estimate() const {
  PackEstimate out;
  for (const PackEstimate& e : estimates()) {
    out.plain += e.plain;
    out.planes += e.planes;
  }
  return out;
}
PackForm Packing::better() const {
  const PackEstimate e = estimate();
  const bool based = std::ranges::any_of(impl_->base_, [](const auto& b) { return b.has_value(); });
  return based || e.planes + impl_->file_->size() / 50 < e.plain ? PackForm::Planes
                                                                 : PackForm::Plain;
}
void Packing::choose(PackForm form) {
  impl_->choose(form);
}

const std::vector<Piece>& Packing::pieces() const noexcept {
  return impl_->pieces_;
}
std::vector<Extent> Packing::tensors() const {
  std::vector<Extent> out;
  for (std::size_t i = 0; i < impl_->pieces_.size(); ++i)
    if (const Piece& p = impl_->pieces_[i]; p.tensor && !impl_->known_[i])
      out.push_back({impl_->file_, p.offset, p.tensor_bytes});
  return out;
}

void Packing::add_to(Plan& plan, std::string name) {
  plan.files.push_back({.name = std::move(name), .format = nullptr, .meta = {}, .tensors = 0});
  plan.steps.push_back(std::make_unique<Impl::PackStep>(*impl_));
}

const PackIndex& Packing::finish(OutputSet& outputs, std::size_t number, const Sha256& original,
                                 std::span<const Sha256> tensors) {
  PackIndex& index = impl_->index_;
  index.name = name_of_file(impl_->file_->name());
  index.bytes = impl_->file_->size();
  index.digest = original;
  std::size_t next = 0;
  for (std::size_t i = 0; i < impl_->pieces_.size(); ++i)
    if (Piece& p = impl_->pieces_[i]; p.tensor && !impl_->known_[i]) p.digest = tensors[next++];
  index.pieces = impl_->pieces_;
  std::vector<FrameSize>& frames = impl_->frames_;
  if (index.form == PackForm::Planes) {
    const Buffer head = impl_->planes_frame(true);
    if (head.size() != frames[0].stored)
      throw Error(Fault::Internal, fmt::format("a head of {} bytes in a place of {}", head.size(),
                                               frames[0].stored));
    outputs.write_at(number, 0, head);
    frames[0] = raw_frame_size(head);
  }
  Buffer tail;
  append_skippable(kIndexKind, as_bytes(to_json(index)), tail);
  if (tail.size() > kMostIndexBytes)
    throw Error(Fault::Unsupported,
                fmt::format("{} pieces make an index of {} bytes, of at most {}",
                            index.pieces.size(), tail.size(), kMostIndexBytes))
        .in(impl_->file_->name());
  frames.push_back({static_cast<std::uint32_t>(tail.size()), 0, 0});
  append_seek_table(frames, tail);
  outputs.append(number, tail);
  return index;
}

std::uint64_t Packing::stored_bytes(const Piece& piece) const {
  if (!piece.has_frames()) return 0;
  std::uint64_t sum = 0;
  for (std::uint64_t f = 0; f < piece.chunks() * piece.codec.planes(); ++f)
    sum += impl_->frames_[piece.first_frame + f].stored;
  return sum;
}

}  // namespace wtool
