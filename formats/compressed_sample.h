#pragma once
#include <optional>
#include <vector>

#include "formats/compressed_write.h"

// What a sample says of how the pieces of a file are to be packed. A part of Packing.
namespace wtool {

// A file in pieces, and what the base has in the place of each.
struct PackInput {
  SourcePtr file;
  std::vector<Piece> pieces = {};
  std::vector<std::optional<Extent>> base = {};

  // Zeros behind the base's tensor: what follows a tensor in its piece is the difference to them.
  void read_base(std::size_t piece, std::uint64_t at, MutableBytes out) const;
};
// Throws BadFile if tensors overlap. `base` may be null.
PackInput cut_into_pieces(SourcePtr file, const Catalog& catalog, const Catalog* base);

class PackSample {
 public:
  // Looks at `input`, which must outlive this.
  PackSample(const PackInput& input, const RunOptions& options);
  ~PackSample();

  PackEstimate estimate_of(std::size_t piece) const;
  // Of a tensor that had to be read as a whole.
  const std::optional<Sha256>& digest_of(std::size_t piece) const { return digests_[piece]; }
  // Says of each piece how it is stored; returns the coders of its planes.
  std::vector<std::vector<Coder>> choose(PackForm form, std::vector<Piece>& pieces) const;

 private:
  struct Found;
  class Step;
  void find_duplicates(const RunOptions& options);
  Found look(std::size_t piece);
  bool equals_base(std::size_t piece) const;

  const PackInput& input_;
  std::vector<Found> found_;
  std::vector<std::optional<std::size_t>> same_as_;
  std::vector<std::optional<Sha256>> digests_;
  Pool<Packer> packers_;
};

}  // namespace wtool
