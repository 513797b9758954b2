#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "formats/compressed.h"
#include "lib/engine/execute.h"

namespace wtool {

// What a sample says of one piece, in bytes of the whole.
struct PackEstimate {
  std::uint64_t plain = 0, planes = 0;
};

// The tensor of the base that differences are to: of the same name, type, shape and order of bytes.
// Null if there is none.
const TensorEntry* counterpart(const TensorEntry& tensor, const Catalog& base);

// One weight file on its way to become a compressed one:
//
//   Packing packing(file, catalog, base);
//   packing.sample(options);          // looks at a part of each tensor
//   packing.choose(form);             // or packing.better()
//   packing.add_to(plan, name); execute(plan, …);
//   packing.finish(outputs, number, digest, digests);
class Packing {
 public:
  // `catalog` describes `file` and nothing else; `base`, which may be null, is any model, and
  // `base_files` its files. The catalogs must outlive this.
  Packing(SourcePtr file, const Catalog& catalog, const Catalog* base,
          std::vector<BaseFile> base_files);
  ~Packing();
  Packing(const Packing&) = delete;
  Packing& operator=(const Packing&) = delete;

  // Reads at most 256 KiB of each piece, and all of those that seem to be the same as others.
  void sample(const RunOptions& options);
  std::vector<PackEstimate> estimates() const;  // of each piece
  PackEstimate estimate() const;                // of the file
  // Planes if they are smaller by more than two hundredths of the file, or differences to a base.
  PackForm better() const;
  void choose(PackForm form);

  const std::vector<Piece>& pieces() const noexcept;
  std::vector<Extent> tensors() const;  // whose digests finish() wants, in order; after sample()

  void add_to(Plan& plan, std::string name);
  // After execute(): appends the index and the table. `number`: of the file in the set. Returns
  // what was written.
  const PackIndex& finish(OutputSet& outputs, std::size_t number, const Sha256& original,
                          std::span<const Sha256> tensors);
  std::uint64_t stored_bytes(const Piece& piece) const;  // after execute()

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace wtool
