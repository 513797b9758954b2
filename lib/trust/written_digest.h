#pragma once
#include <memory>
#include <string>
#include <vector>

#include "lib/engine/execute.h"
#include "lib/trust/digest.h"

namespace wtool {

// The digests of what a run writes, made beside it: each tensor is read back from the page cache
// as soon as its last byte is written, so that there is no second pass over the disk.
class WrittenDigests final : public Follower {
 public:
  struct Wanted {
    bool files = true;    // of the whole files: each from its beginning on, in order
    bool tensors = true;  // of each tensor
  };
  // `outputs` and `tensors` (those of the plan, in order) must outlive this. Reads with as many
  // threads as the run has.
  WrittenDigests(const OutputSet& outputs, std::span<const OutTensor> tensors, Wanted wanted,
                 const RunOptions& options);
  ~WrittenDigests() override;
  WrittenDigests(const WrittenDigests&) = delete;
  WrittenDigests& operator=(const WrittenDigests&) = delete;

  void begin(const Placement& placement, std::span<const std::size_t> files) override;
  void complete(std::size_t tensor) override;

  struct File {
    std::string name;  // in the output set
    std::uint64_t bytes = 0;
    Sha256 digest;  // if wanted
  };
  struct Tensor {
    std::size_t file = 0;  // index into files
    std::uint64_t bytes = 0;
    Sha256 stored;     // of the bytes in the file
    Sha256 canonical;  // of its elements, little-endian
  };
  struct Result {
    std::vector<File> files;  // of the output set, side files too
    std::vector<Tensor> tensors;
  };
  // After execute(): what is left is hashed. Throws what reading did. Once.
  Result finish();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace wtool
