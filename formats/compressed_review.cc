#include "formats/compressed_review.h"

#include <array>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr Rule kFrames{"compressed.frames",
                       "every frame of a compressed file decodes, to the bytes of its checksum"};
constexpr std::array<const Rule*, 1> kRules{&kFrames};

Place place_of(const CompressedFile& file, const Piece& p) {
  return p.tensor ? Place(file.name(), "tensor", *p.tensor)
                  : Place(file.name(), fmt::format("bytes from {} on", p.offset));
}

std::string text_of(const Piece& p, const CompressedFile& file, std::string first,
                    std::size_t chunks) {
  if (chunks > 1) first += fmt::format("; {} of {} chunks are damaged", chunks, p.chunks());
  if (p.same_as)
    first += fmt::format(" (stored as tensor {})", quoted(*file.index().pieces[*p.same_as].tensor));
  return first;
}

}  // namespace

DamageReview::DamageReview(const Model& model) : catalog_(model.catalog) {
  for (const SourcePtr& s : catalog_.sources())
    if (auto file = std::dynamic_pointer_cast<const CompressedFile>(s)) {
      file->keep_damage(true);
      files_.push_back(std::move(file));
    }
}
DamageReview::~DamageReview() {
  for (const auto& file : files_) file->keep_damage(false);
}

std::vector<bool> DamageReview::report(Diagnostics& faults) const {
  std::vector<bool> out(catalog_.entries().size());
  for (const auto& file : files_) {
    const std::vector<CompressedFile::Damage> all = file->damage();
    for (std::size_t i = 0, n = 1; i < all.size(); i += n, n = 1) {
      while (i + n < all.size() && all[i + n].piece == all[i].piece) ++n;
      const Piece& p = file->index().pieces[all[i].piece];
      faults.report(kFrames, place_of(*file, p), file->table().offsets[all[i].frame],
                    text_of(p, *file, all[i].text, n));
      const TensorEntry* entry = p.tensor ? catalog_.find(*p.tensor) : nullptr;
      if (entry) out[catalog_.index_of(*entry)] = true;
    }
  }
  return out;
}

RuleList compressed_rules() noexcept {
  return kRules;
}

}  // namespace wtool
