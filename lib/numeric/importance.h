#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/model/model.h"

namespace wtool {

// An importance matrix: for each column of a weight's rows the mean of the squared activations that
// met it. Both file forms show it as two tensors for each weight: 'NAME.in_sum2' (sums of squares,
// f32, experts x columns) and 'NAME.counts' (over how many of them, one, or one for each expert;
// f32, in the .dat form i32). Names are those of the weights, to the byte.
//
// Counts are kept, sums are read when they are wanted: those of a model with hundreds of experts
// are a gigabyte. read() may be called from many threads at once.
class Importance {
 public:
  struct Entry {
    std::string_view name;
    std::uint64_t values = 0;   // columns x experts
    std::vector<float> counts;  // whole numbers; `values` is a multiple of their number
    std::uint32_t sums = 0;     // the catalog's entries
    std::uint32_t counted = 0;

    std::uint64_t values_per_count() const noexcept { return values / counts.size(); }
  };

  // Looks at every value once, so that what cannot be an importance is found before any work: NaN,
  // infinite or negative sums, counts that are no whole numbers, sums without counts. Throws
  // BadFile; BadFile too if there is no entry at all.
  static Importance read(std::shared_ptr<const Model> model);

  std::span<const Entry> entries() const noexcept { return entries_; }  // in file order
  const Entry* find(std::string_view weight) const noexcept;
  std::span<const std::string> datasets() const noexcept { return datasets_; }
  std::optional<std::uint64_t> chunk_count() const noexcept { return chunk_count_; }
  std::optional<std::uint64_t> chunk_size() const noexcept { return chunk_size_; }

  // Values [first, first + out.size()) of the entry, expert after expert: in_sum2 / count, or 1
  // where nothing was counted. Expert e of a weight with n columns begins at e * n.
  void read(const Entry& entry, std::uint64_t first, std::span<float> out) const;
  // The sums as stored.
  void read_sums(const Entry& entry, std::uint64_t first, std::span<float> out) const;

  // Why the entry does not belong to a weight of this shape, with both numbers: it must have one
  // value for each column of each matrix (the last and the third dimension from the end).
  // llama.cpp forgives only 'token_embd.weight', which then goes without.
  static std::optional<std::string> mismatch(const Entry& entry, ShapeView weight);

 private:
  void pair_up();
  void read_counts(Entry& entry, std::uint64_t& total) const;
  void check_sums(const Entry& entry) const;
  void read_metadata();

  std::shared_ptr<const Model> model_;
  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, std::size_t> by_name_;
  std::vector<std::string> datasets_;
  std::optional<std::uint64_t> chunk_count_, chunk_size_;
};

inline constexpr std::string_view kSumsSuffix = ".in_sum2", kCountsSuffix = ".counts";
inline constexpr std::string_view kImatrixType = "imatrix";  // of general.type
inline constexpr std::string_view kImatrixDatasets = "imatrix.datasets",
                                  kImatrixChunkCount = "imatrix.chunk_count",
                                  kImatrixChunkSize = "imatrix.chunk_size";

}  // namespace wtool
