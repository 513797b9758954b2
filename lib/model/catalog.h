#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/arena.h"
#include "lib/base/diagnostics.h"
#include "lib/base/dtype.h"
#include "lib/model/metadata.h"
#include "lib/model/source.h"

namespace wtool {

// One stored tensor. Name and shape point into the catalog's arena, so that a header of 100,000
// tensors costs 64 bytes each and no allocation.
struct TensorEntry {
  std::string_view name;
  ShapeView shape;           // outermost dimension first, in every format
  std::uint64_t offset = 0;  // of its bytes, absolute in the source
  std::uint64_t bytes = 0;
  std::uint32_t source = 0;  // index into Catalog::sources()
  DType dtype = DType::F32;
  bool big_endian = false, column_major = false;
};

// What is stored, in one file or in many shards, and the metadata. Holds no tensor data.
class Catalog {
 public:
  // wtool's own limits, far above any real model (the largest index known has 497,000 tensors):
  // they keep the memory that a hostile header can ask for below twice the header's size.
  static constexpr std::size_t kMaxTensors = std::size_t{1} << 20;
  static constexpr std::size_t kMaxRank = 256;

  Metadata meta;
  std::string_view format;  // the container's name: "safetensors", "gguf", "npy"

  Catalog() = default;
  Catalog(Catalog&&) noexcept = default;
  Catalog& operator=(Catalog&&) noexcept = default;

  std::uint32_t add_source(SourcePtr source);
  void reserve(std::size_t tensors);          // a hint, from what is known to be there
  Arena& arena() noexcept { return arena_; }  // where readers put names and shapes

  // The customs gate: size against dtype and shape, bounds against the file, unique names. Keeps
  // what is sound, reports the rest; `place` is the byte position of its description. Name and
  // shape must lie in arena().
  void add(const TensorEntry& entry, std::uint64_t place, Diagnostics& faults);
  void absorb(Catalog&& shard, Diagnostics& faults);  // metadata: the first one's stays
  void finish(Diagnostics& faults) const;             // what only shows when all are in: overlaps

  std::span<const SourcePtr> sources() const noexcept { return sources_; }
  std::span<const TensorEntry> entries() const noexcept { return entries_; }
  const TensorEntry* find(std::string_view name) const noexcept;
  std::uint32_t index_of(const TensorEntry& entry) const {
    return static_cast<std::uint32_t>(&entry - entries_.data());
  }
  Extent extent(const TensorEntry& t) const { return {sources_[t.source], t.offset, t.bytes}; }

 private:
  void grow(std::size_t slots);

  Arena arena_;
  std::vector<SourcePtr> sources_;
  std::vector<TensorEntry> entries_;
  struct Slot {
    std::uint32_t hash = 0, index = 0;  // index + 1; 0 is free
  };
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
};

RuleList catalog_rules() noexcept;  // what it reports

}  // namespace wtool
