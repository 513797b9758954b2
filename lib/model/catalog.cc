#include "lib/model/catalog.h"

#include <algorithm>
#include <array>
#include <bit>
#include <tuple>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr Rule kSize{"tensor.size", "a tensor has as many bytes as its type and shape need"},
    kBounds{"tensor.bounds", "a tensor lies within its file"},
    kName{"tensor.duplicate-name", "no name appears twice in a file", true},
    kTwoFiles{"tensor.two-files", "no name appears in two files", true},
    kOverlap{"tensor.overlap", "no two tensors share bytes"},
    kOverflow{"tensor.overflow", "elements and bytes of a tensor can be counted in 64 bits"},
    kRank{"tensor.rank", "a tensor has at most as many dimensions as wtool takes"},
    kCount{"catalog.count", "a model has at most as many tensors as wtool takes"};

std::uint64_t present_bytes(const Source& file, const TensorEntry& t) noexcept {
  return t.offset < file.size() ? std::min(t.bytes, file.size() - t.offset) : 0;
}

}  // namespace

RuleList catalog_rules() noexcept {
  static constexpr std::array<const Rule*, 8> kAll{&kSize,    &kBounds,   &kName, &kTwoFiles,
                                                   &kOverlap, &kOverflow, &kRank, &kCount};
  return kAll;
}

std::uint32_t Catalog::add_source(SourcePtr source) {
  sources_.push_back(std::move(source));
  return static_cast<std::uint32_t>(sources_.size() - 1);
}

void Catalog::add(const TensorEntry& entry, std::uint64_t place, Diagnostics& faults) {
  const Source& file = *sources_[entry.source];
  const auto fault = [&](const Rule& rule, std::string text, std::string hint = {}) {
    faults.report(rule, {file.name(), "tensor", entry.name}, place, std::move(text),
                  std::move(hint));
    faults.lose(file.name(), entry.name, entry.bytes, present_bytes(file, entry));
  };
  if (entry.shape.size() > kMaxRank)
    return fault(kRank, fmt::format("{} dimensions, but wtool takes at most {}", entry.shape.size(),
                                    kMaxRank));
  const DTypeInfo& type = info(entry.dtype);
  const auto elements = element_count(entry.shape);
  if (!elements)
    return fault(kOverflow, fmt::format("{} has more than 2^64 elements", to_text(entry.shape)));
  if (*elements % type.block_elems != 0)
    return fault(kSize, fmt::format("{} {}: {} elements do not fill whole blocks of {} in {} bytes",
                                    type.name, to_text(entry.shape), *elements, type.block_elems,
                                    type.block_bytes));
  const auto needed = byte_size(entry.dtype, *elements);
  if (!needed)
    return fault(kOverflow,
                 fmt::format("{} {} needs more than 2^64 bytes", type.name, to_text(entry.shape)));
  if (*needed != entry.bytes)
    return fault(kSize, fmt::format("{} {} needs {} bytes but the header gives {}", type.name,
                                    to_text(entry.shape), *needed, entry.bytes));
  const auto end = checked_add(entry.offset, entry.bytes);
  if (!end || *end > file.size())
    return fault(
        kBounds,
        fmt::format("{} bytes at {} but the file ends at {}", entry.bytes, entry.offset,
                    file.size()),
        end ? fmt::format("the file is {} bytes short: a download cut off?", *end - file.size())
            : "");
  if (entries_.size() == kMaxTensors)
    return fault(kCount, fmt::format("more than {} tensors, wtool's limit", kMaxTensors));

  if (slots_.size() < 2 * (entries_.size() + 1)) grow(slots_.size() * 2);
  const auto hash = static_cast<std::uint32_t>(hash_text(entry.name));
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash & mask;
  for (; slots_[at].index != 0; at = (at + 1) & mask) {
    if (slots_[at].hash != hash) continue;
    const TensorEntry& other = entries_[slots_[at].index - 1];
    if (other.name == entry.name)
      return other.source == entry.source
                 ? fault(kName, "name appears twice")
                 : fault(kTwoFiles, fmt::format("name appears twice (first in {})",
                                                sources_[other.source]->name()));
  }
  entries_.push_back(entry);
  slots_[at] = {hash, static_cast<std::uint32_t>(entries_.size())};
}

void Catalog::reserve(std::size_t tensors) {
  tensors = std::min(tensors, kMaxTensors);
  entries_.reserve(tensors);
  if (slots_.size() < 2 * tensors) grow(std::bit_ceil(2 * tensors));
}

void Catalog::grow(std::size_t slots) {
  std::vector<Slot> old = std::move(slots_);
  slots_.assign(std::max<std::size_t>(64, slots), Slot{});
  const std::size_t mask = slots_.size() - 1;
  for (const Slot& s : old) {
    if (s.index == 0) continue;
    std::size_t at = s.hash & mask;
    while (slots_[at].index != 0) at = (at + 1) & mask;
    slots_[at] = s;
  }
}

void Catalog::absorb(Catalog&& shard, Diagnostics& faults) {
  const auto first = static_cast<std::uint32_t>(sources_.size());
  for (SourcePtr& s : shard.sources_) sources_.push_back(std::move(s));
  arena_.absorb(std::move(shard.arena_));
  for (TensorEntry t : shard.entries_) {
    t.source += first;
    add(t, t.offset, faults);
  }
  if (format.empty()) {
    format = shard.format;
    meta = std::move(shard.meta);
  }
}

void Catalog::finish(Diagnostics& faults) const {
  const auto key = [this](std::uint32_t i) {
    const TensorEntry& t = entries_[i];
    return std::tuple(t.source, t.offset, t.bytes);
  };
  std::vector<std::uint32_t> sorted;
  sorted.reserve(entries_.size());
  for (std::uint32_t i = 0; i < entries_.size(); ++i)
    if (entries_[i].bytes != 0) sorted.push_back(i);
  if (!std::ranges::is_sorted(sorted, {}, key)) std::ranges::stable_sort(sorted, {}, key);
  const TensorEntry* last = nullptr;  // the one that reaches furthest so far
  for (const std::uint32_t i : sorted) {
    const TensorEntry& t = entries_[i];
    if (last && last->source == t.source && last->offset + last->bytes > t.offset)
      faults.report(kOverlap, {sources_[t.source]->name(), "tensor", t.name}, t.offset,
                    fmt::format("begins {} bytes before the end of {}",
                                last->offset + last->bytes - t.offset, quoted(last->name)));
    if (!last || last->source != t.source || last->offset + last->bytes < t.offset + t.bytes)
      last = &t;
  }
}

const TensorEntry* Catalog::find(std::string_view name) const noexcept {
  if (slots_.empty()) return nullptr;
  const auto hash = static_cast<std::uint32_t>(hash_text(name));
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash & mask; slots_[at].index != 0; at = (at + 1) & mask)
    if (slots_[at].hash == hash && entries_[slots_[at].index - 1].name == name)
      return &entries_[slots_[at].index - 1];
  return nullptr;
}

}  // namespace wtool
