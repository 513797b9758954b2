// What is odd about a safetensors file that is sound.
#include <algorithm>
#include <array>
#include <vector>

#include <fmt/format.h>

#include "formats/safetensors_types.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr Rule kFormat{"safetensors.format-key", "metadata has 'format': transformers asks for it",
                       false, Severity::Note},
    kAlignment{"safetensors.alignment", "tensors begin at a multiple of their elements' size",
               false, Severity::Note},
    kPadding{"safetensors.padding", "the header is padded with less than a page", false,
             Severity::Note};
constexpr std::array<const Rule*, 3> kRules{&kFormat, &kAlignment, &kPadding};

// One line for a file: the first tensor, and how many there are.
void alignment(const Catalog& catalog, Diagnostics& faults) {
  struct Found {
    const TensorEntry* first = nullptr;
    std::uint64_t count = 0;
  };
  std::vector<Found> found(catalog.sources().size());
  for (const TensorEntry& t : catalog.entries()) {
    const std::uint64_t size = info(t.dtype).block_bytes;
    if (t.bytes == 0 || t.offset % size == 0) continue;
    Found& f = found[t.source];
    if (f.count++ == 0 || t.offset < f.first->offset) f.first = &t;
  }
  for (std::size_t i = 0; i < found.size(); ++i)
    if (found[i].count > 0)
      faults.report(kAlignment, {catalog.sources()[i]->name(), "tensor", found[i].first->name},
                    found[i].first->offset,
                    fmt::format("begins at {}, no multiple of {} bytes ({} tensors do so): readers "
                                "that map the file may be slow or refuse it",
                                found[i].first->offset, info(found[i].first->dtype).block_bytes,
                                found[i].count));
}

void padding(const Catalog& catalog, Diagnostics& faults) {
  constexpr std::uint64_t kPage = 4096;
  std::vector<std::uint64_t> begin(catalog.sources().size(), kNowhere);
  for (const TensorEntry& t : catalog.entries())
    begin[t.source] = std::min(begin[t.source], t.offset);
  for (std::size_t i = 0; i < begin.size(); ++i) {
    const Source& file = *catalog.sources()[i];
    if (begin[i] == kNowhere || begin[i] < 8 + kPage || begin[i] > file.size()) continue;
    Buffer tail(kPage);
    file.read(begin[i] - kPage, tail);
    if (std::ranges::all_of(tail, [](std::byte b) { return b == std::byte{' '}; }))
      faults.report(kPadding, {file.name(), "header"}, begin[i] - kPage,
                    fmt::format("ends in {} spaces or more", kPage));
  }
}

}  // namespace

void review_safetensors(const Catalog& catalog, bool deep, Diagnostics& faults) {
  if (catalog.sources().empty()) return;
  if (!catalog.meta.find("format") && !catalog.entries().empty())
    faults.report(kFormat, {catalog.sources()[0]->name(), "metadata", "format"}, kNowhere,
                  "is missing: transformers does not load the file",
                  "'wtool convert --set format=pt' adds it");
  alignment(catalog, faults);
  if (deep) padding(catalog, faults);
}

RuleList safetensors_review_rules() noexcept {
  return kRules;
}

}  // namespace wtool
