// The original, from a compressed file: one output of bytes for each piece.
#include <algorithm>

#include <fmt/format.h>

#include "formats/compressed.h"

namespace wtool {
namespace {

// Pieces one after another, as they lay in the original.
Layout in_a_row(const Metadata&, std::span<const OutTensor> pieces) {
  Layout out;
  for (const OutTensor& p : pieces) {
    out.offsets.push_back(out.total_bytes);
    out.total_bytes += p.bytes();
  }
  return out;
}
constexpr Format kPieces{
    .name = "original",
    .summary = "the bytes of another file",
    .suffixes = {},
    .detect = nullptr,
    .read = nullptr,
    .refuses = [](const OutTensor&) -> std::optional<std::string> { return std::nullopt; },
    .layout = &in_a_row};

class RestoreStep final : public Step {
 public:
  RestoreStep(std::shared_ptr<const CompressedFile> file, std::vector<OutTensor> outputs)
      : Step(std::move(outputs)), file_(std::move(file)) {
    for (const Piece& p : file_->index().pieces) {
      starts_.push_back(units_);
      units_ += p.chunks();
    }
  }
  std::uint64_t units() const override { return units_; }
  void spans(std::uint64_t unit, std::vector<Span>& add_to) const override {
    const auto [piece, chunk] = place_of(unit);
    const Piece& p = file_->index().pieces[piece];
    add_to.push_back(
        {.output = piece, .offset = chunk * p.codec.chunk_bytes(), .bytes = p.chunk_size(chunk)});
  }
  // The whole file's digest is compared in the end, so checksums of frames are not.
  void run(const Unit& unit) const override {
    const auto [piece, chunk] = place_of(unit.index);
    file_->decode(file_->index().pieces[piece], chunk, FrameReader::Check::Trust, unit.out[0]);
  }

 private:
  struct Where {
    std::uint32_t piece;
    std::uint64_t chunk;
  };
  Where place_of(std::uint64_t unit) const {
    const auto it = --std::ranges::upper_bound(starts_, unit);
    return {static_cast<std::uint32_t>(it - starts_.begin()), unit - *it};
  }
  std::shared_ptr<const CompressedFile> file_;
  std::vector<std::uint64_t> starts_;
  std::uint64_t units_ = 0;
};

}  // namespace

void add_restore(Plan& plan, std::shared_ptr<const CompressedFile> file, std::string name) {
  std::vector<OutTensor> outputs;
  for (const Piece& p : file->index().pieces)
    outputs.push_back({.name = fmt::format("{}: bytes from {} on", name, p.offset),
                       .dtype = DType::U8,
                       .shape = {p.bytes}});
  plan.files.push_back({std::move(name), &kPieces, {}, outputs.size()});
  plan.steps.push_back(std::make_unique<RestoreStep>(std::move(file), std::move(outputs)));
}

}  // namespace wtool
