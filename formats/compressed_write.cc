#include "formats/compressed_write.h"

#include <algorithm>
#include <ranges>

#include <fmt/format.h>

#include "formats/compressed_sample.h"
#include "lib/base/error.h"
#include "lib/base/json_reader.h"
#include "lib/base/pool.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"

namespace wtool {

class Packing::Impl {
 public:
  Impl(SourcePtr file, const Catalog& catalog, const Catalog* base,
       std::vector<BaseFile> base_files)
      : input_(cut_into_pieces(std::move(file), catalog, base)),
        base_files_(std::move(base_files)) {}

  class PackStep;

  void choose(PackForm form);
  void check_index() const;
  std::string planes_header(bool final) const;
  Buffer planes_frame(bool final) const;
  // The frames of a piece, once they are written.
  std::span<const FrameSize> frames_of(const Piece& p) const {
    return std::span(frames_).subspan(p.first_frame, p.chunks() * p.codec.planes());
  }

  PackInput input_;
  std::vector<BaseFile> base_files_;
  std::optional<PackSample> sample_;
  std::vector<std::vector<Coder>> coders_;
  PackIndex index_;
  std::vector<FrameSize> frames_;

  struct Worker {
    Packer packer;
    Unpacker unpacker;
  };
  Pool<Worker> workers_;
};

void Packing::Impl::choose(PackForm form) {
  std::vector<Piece>& pieces = input_.pieces;
  coders_ = sample_->choose(form, pieces);
  std::uint64_t frame = form == PackForm::Planes ? 1 : 0;
  for (Piece& p : pieces) {
    if (!p.has_frames()) continue;
    p.first_frame = frame;
    frame += p.chunks() * p.codec.planes();
  }
  index_ = {.form = form, .name = file_name_of(input_.file->name()), .bytes = input_.file->size()};
  if (std::ranges::any_of(pieces, &Piece::needs_base)) index_.base = base_files_;
  index_.pieces = pieces;
  check_index();
}

// Before the work: digests, which it lacks, are all of one length.
void Packing::Impl::check_index() const {
  const std::size_t bytes = kSkippableHead + to_json(index_).size();
  if (bytes > kMostIndexBytes)
    throw Error(Fault::Unsupported,
                fmt::format("{} pieces make an index of {} bytes, of at most {}",
                            index_.pieces.size(), bytes, kMostIndexBytes))
        .in(input_.file->name());
}

class Packing::Impl::PackStep final : public Step {
 public:
  explicit PackStep(Impl& impl) : impl_(impl) {
    if (impl_.index_.form == PackForm::Planes) head_ = 1;
    units_ = head_;
    for (std::size_t i = 0; i < impl_.input_.pieces.size(); ++i) {
      const Piece& p = impl_.input_.pieces[i];
      if (!p.has_frames()) continue;
      starts_.push_back({units_, i});
      units_ += p.chunks();
    }
  }
  std::uint64_t units() const override { return units_; }

  void run(const Unit& unit) const override {
    if (unit.index < head_) {
      unit.found = impl_.planes_frame(false);
      return put_sizes({{static_cast<std::uint32_t>(unit.found.size()), 0, 0}}, unit.found);
    }
    const Start& start = *--std::ranges::upper_bound(starts_, unit.index, {}, &Start::unit);
    const Piece& p = impl_.input_.pieces[start.piece];
    const std::uint64_t chunk = unit.index - start.unit;
    const std::uint64_t at = chunk * p.codec.chunk_bytes();
    Scratch::Frame memory(unit.scratch);
    const auto bytes = memory.take<std::byte>(p.chunk_size(chunk));
    const auto again = memory.take<std::byte>(bytes.size());
    const auto base = memory.take<std::byte>(p.codec.needs_base() ? bytes.size() : 0);
    impl_.input_.file->read(p.offset + at, bytes);
    if (!base.empty()) impl_.input_.read_base(start.piece, at, base);
    std::vector<FrameSize> sizes;
    impl_.workers_.use([&](Worker& worker) {
      worker.packer.encode(p.codec, bytes, base, impl_.coders_[start.piece], unit.found, sizes);
      // Nobody keeps what cannot be restored.
      const auto fault = worker.unpacker.decode(p.codec, unit.found, sizes, base,
                                                FrameReader::Check::Checksum, again);
      if (fault || !std::ranges::equal(again, bytes))
        throw Error(Fault::Internal,
                    fmt::format("bytes from {} on are not restored {}", p.offset + at, fault.text))
            .in(impl_.input_.file->name());
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
  for (const Piece& p : input_.pieces) {
    const std::string name = p.tensor ? *p.tensor : fmt::format("wtool.bytes.{}", p.offset);
    std::string stored = name;
    if (p.tensor) stored += fmt::format("#{}", name_of(p.codec.kind));
    std::string quoted_name, quoted_stored;
    append_json(quoted_name, p.tensor && p.same_as ? *input_.pieces[*p.same_as].tensor : name);
    append_json(quoted_stored, stored);
    list += fmt::format("{}{{\"bytes\":{},", list.size() == 1 ? "" : ",", p.bytes);
    if (!p.has_frames()) {
      list += fmt::format("\"{}\":{}}}", p.same_as ? "same_as" : "base", quoted_name);
      continue;
    }
    list += fmt::format("\"name\":{},{}}}", quoted_stored, codec_members(p.codec));
    std::uint64_t bytes = 0;
    if (final)
      for (const FrameSize& f : frames_of(p)) bytes += f.content;
    else
      bytes = 4 * p.bytes + p.chunks();
    tensors += fmt::format(",{}:{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                           quoted_stored, bytes, at, at + bytes);
    at += bytes;
  }
  std::string out = fmt::format(
      "{{\"__metadata__\":{{\"wtool.compressed\":\"1\",\"wtool.chunk\":\"{}\",\"wtool.bytes\":\"{}"
      "\","
      "\"wtool.sha256\":\"{}\"",
      PackCodec{}.chunk_bytes(), index_.bytes, index_.digest.hex());
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
  impl_->sample_.emplace(impl_->input_, options);
}

std::vector<PackEstimate> Packing::estimates() const {
  std::vector<PackEstimate> out;
  for (std::size_t i = 0; i < pieces().size(); ++i) out.push_back(impl_->sample_->estimate_of(i));
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
  const PackInput& input = impl_->input_;
  const bool based = std::ranges::any_of(input.base, [](const auto& b) { return b.has_value(); });
  return based || e.planes + input.file->size() / 50 < e.plain ? PackForm::Planes : PackForm::Plain;
}
void Packing::choose(PackForm form) {
  impl_->choose(form);
}

const std::vector<Piece>& Packing::pieces() const noexcept {
  return impl_->input_.pieces;
}
std::vector<Extent> Packing::tensors() const {
  std::vector<Extent> out;
  for (std::size_t i = 0; i < pieces().size(); ++i)
    if (const Piece& p = pieces()[i]; p.tensor && !impl_->sample_->digest_of(i))
      out.push_back({impl_->input_.file, p.offset, p.tensor_bytes});
  return out;
}

void Packing::add_to(Plan& plan, std::string name) {
  plan.files.push_back({.name = std::move(name), .format = nullptr, .meta = {}, .tensors = 0});
  plan.steps.push_back(std::make_unique<Impl::PackStep>(*impl_));
}

const PackIndex& Packing::finish(OutputSet& outputs, std::size_t number, const Sha256& original,
                                 std::span<const Sha256> tensors) {
  PackIndex& index = impl_->index_;
  index.digest = original;
  std::size_t next = 0;
  for (std::size_t i = 0; i < index.pieces.size(); ++i)
    if (Piece& p = index.pieces[i]; p.tensor) {
      const std::optional<Sha256>& known = impl_->sample_->digest_of(i);
      p.digest = known ? *known : tensors[next++];
    }
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
  frames.push_back({static_cast<std::uint32_t>(tail.size()), 0, 0});
  append_seek_table(frames, tail);
  outputs.append(number, tail);
  return index;
}

std::uint64_t Packing::stored_bytes(const Piece& piece) const {
  std::uint64_t sum = 0;
  if (piece.has_frames())
    for (const FrameSize& f : impl_->frames_of(piece)) sum += f.stored;
  return sum;
}

}  // namespace wtool
