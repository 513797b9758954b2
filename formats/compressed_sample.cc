// Pieces, and what a sample of each says.
#include "formats/compressed_sample.h"

#include <algorithm>
#include <array>
#include <map>
#include <ranges>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/pool.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::size_t kSlices = 4, kSlice = std::size_t{64} << 10;
constexpr std::uint64_t kCompared = std::uint64_t{1} << 20;

// ---- Cutting

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

// How one codec did on the slices: for each plane its content, and what the coders made of it.
struct Trial {
  std::array<std::uint64_t, kMostPlanes> content = {}, huffman = {}, searched = {};
};
struct Choice {
  PackCodec codec;
  std::vector<Coder> coders;
  std::uint64_t bytes = 0;  // of the slices
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

Buffer base_bytes(const PackInput& input, std::size_t piece, std::uint64_t at, std::size_t n) {
  Buffer out(n);
  input.read_base(piece, at, out);
  return out;
}

std::vector<Slice> slices_of(const PackInput& input, std::size_t piece) {
  const Piece& p = input.pieces[piece];
  // Slices of whole elements and blocks of every candidate.
  const std::uint64_t block = std::uint64_t{info(p.dtype).block_bytes} * 8;
  const std::uint64_t bytes =
      std::min<std::uint64_t>(p.bytes, std::max(block, kSlice / block * block));
  const std::size_t n = p.bytes < kSlices * bytes ? std::size_t{1} : kSlices;
  std::vector<Slice> out;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t at = n == 1 ? 0 : (p.bytes - bytes) * i / (n - 1) / block * block;
    out.push_back({read_all({input.file, p.offset + at, bytes}),
                   base_bytes(input, piece, at, static_cast<std::size_t>(bytes))});
  }
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

PackInput cut_into_pieces(SourcePtr file, const Catalog& catalog, const Catalog* base) {
  PackInput out{.file = std::move(file)};
  out.pieces = cut(catalog, out.file->size());
  out.base.resize(out.pieces.size());
  for (std::size_t i = 0; base && i < out.pieces.size(); ++i) {
    const Piece& p = out.pieces[i];
    const TensorEntry* mine = p.tensor ? catalog.find(*p.tensor) : nullptr;
    const TensorEntry* other = mine ? counterpart(*mine, *base) : nullptr;
    if (other) out.base[i] = base->extent(*other);
  }
  return out;
}

void PackInput::read_base(std::size_t piece, std::uint64_t at, MutableBytes out) const {
  const std::optional<Extent>& from = base[piece];
  const std::uint64_t size = from ? from->bytes : 0;
  const auto n =
      static_cast<std::size_t>(at < size ? std::min<std::uint64_t>(out.size(), size - at) : 0);
  if (n > 0) from->source->read(from->offset + at, out.first(n));
  std::ranges::fill(out.subspan(n), std::byte{0});
}

// What looking at one piece found; plain bytes for the fold.
struct PackSample::Found {
  std::uint64_t sampled = 0, plain = 0, planes = 0;
  std::uint8_t which = 0;  // of candidates()
  std::array<Coder, kMostPlanes> coders = {};
  Coder plain_coder = Coder::Raw;
  bool same_as_base = false;
  Sha256 digest = {};  // of the slices
};

class PackSample::Step final : public wtool::Step {
 public:
  explicit Step(PackSample& sample) : sample_(sample) {
    sample_.found_.resize(sample_.input_.pieces.size());
  }
  std::uint64_t units() const override { return sample_.found_.size(); }
  void run(const Unit& unit) const override {
    const Found f = sample_.look(unit.index);
    append(unit.found, std::as_bytes(std::span(&f, 1)));
  }
  void fold(std::uint64_t unit, Buffer& found) override {
    sample_.found_[unit] = load<Found>(found);
    found.clear();
  }

 private:
  PackSample& sample_;
};

PackSample::PackSample(const PackInput& input, const RunOptions& options) : input_(input) {
  Plan plan;
  plan.steps.push_back(std::make_unique<Step>(*this));
  execute(plan, options);
  find_duplicates(options);
}
PackSample::~PackSample() = default;

bool PackSample::equals_base(std::size_t piece) const {
  const Piece& p = input_.pieces[piece];
  for (std::uint64_t at = 0; at < p.tensor_bytes; at += kCompared) {
    const auto n = static_cast<std::size_t>(std::min(kCompared, p.tensor_bytes - at));
    if (read_all({input_.file, p.offset + at, n}) != base_bytes(input_, piece, at, n)) return false;
  }
  return true;
}

PackSample::Found PackSample::look(std::size_t piece) {
  const Piece& p = input_.pieces[piece];
  const bool based = input_.base[piece].has_value();
  const std::vector<Slice> slices = slices_of(input_, piece);
  Found out;
  Sha256Stream digest;
  for (const Slice& s : slices) {
    digest.update(s.bytes);
    out.sampled += s.bytes.size();
  }
  out.digest = digest.finish();
  if (based && p.tensor_bytes == p.bytes &&
      std::ranges::all_of(slices, [](const Slice& s) { return s.bytes == s.base; }) &&
      equals_base(piece))
    out.same_as_base = true;
  const std::vector<PackCodec> codecs = candidates(p, based);
  packers_.use([&](Packer& packer) {
    for (std::size_t i = 0; i < codecs.size(); ++i) {
      const Choice c = try_codec(codecs[i], slices, packer);
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

// Tied tensors that are stored twice. What looks the same on the slices is compared whole.
void PackSample::find_duplicates(const RunOptions& options) {
  const std::vector<Piece>& pieces = input_.pieces;
  same_as_.resize(pieces.size());
  digests_.resize(pieces.size());
  std::map<std::array<std::byte, 32>, std::vector<std::size_t>> alike;
  for (std::size_t i = 0; i < pieces.size(); ++i)
    if (pieces[i].tensor && !found_[i].same_as_base) alike[found_[i].digest.bytes].push_back(i);
  std::vector<std::size_t> suspects;
  std::vector<Extent> extents;
  for (const auto& [_, group] : alike)
    if (group.size() > 1)
      for (const std::size_t i : group) {
        suspects.push_back(i);
        extents.push_back({input_.file, pieces[i].offset, pieces[i].tensor_bytes});
      }
  if (suspects.empty()) return;
  const std::vector<Sha256> digests = sha256_of(extents, options);
  std::map<std::pair<std::array<std::byte, 32>, std::uint64_t>, std::size_t> first;
  std::vector<std::size_t> order(suspects.size());
  for (std::size_t k = 0; k < order.size(); ++k) order[k] = k;
  std::ranges::sort(order, {}, [&](std::size_t k) { return suspects[k]; });
  for (const std::size_t k : order) {
    const Piece& p = pieces[suspects[k]];
    digests_[suspects[k]] = digests[k];
    const auto [it, fresh] = first.try_emplace({digests[k].bytes, p.tensor_bytes}, suspects[k]);
    // Padding behind it would have no place.
    if (!fresh && p.bytes == p.tensor_bytes && pieces[it->second].dtype == p.dtype)
      same_as_[suspects[k]] = it->second;
  }
}

PackEstimate PackSample::estimate_of(std::size_t piece) const {
  const Found& f = found_[piece];
  const auto whole = [&](std::uint64_t sampled) {
    return static_cast<std::uint64_t>(static_cast<double>(sampled) /
                                      static_cast<double>(f.sampled) *
                                      static_cast<double>(input_.pieces[piece].bytes));
  };
  const bool free = f.same_as_base || same_as_[piece];
  return {whole(f.plain), free ? 0 : whole(f.planes)};
}

std::vector<std::vector<Coder>> PackSample::choose(PackForm form,
                                                   std::vector<Piece>& pieces) const {
  std::vector<std::vector<Coder>> coders(pieces.size());
  const bool planes = form == PackForm::Planes;
  std::uint64_t stored = 0, shared = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    Piece& p = pieces[i];
    const Found& f = found_[i];
    p.codec = planes ? candidates(p, input_.base[i].has_value())[f.which] : PackCodec{};
    p.same_as_base = planes && f.same_as_base;
    p.same_as = planes && !p.same_as_base ? same_as_[i] : std::nullopt;
    // No more than readers accept: see kMostShared.
    if (p.same_as && (shared + p.bytes) / kMostShared > stored) p.same_as.reset();
    if (p.same_as) shared += p.bytes;
    if (p.has_frames()) stored += p.bytes;
    if (planes)
      coders[i].assign(f.coders.begin(), f.coders.begin() + static_cast<long>(p.codec.planes()));
    else
      coders[i] = {f.plain_coder};
    if (p.same_as) p.codec = pieces[*p.same_as].codec;
  }
  return coders;
}

}  // namespace wtool
