#pragma once
#include "lib/engine/in_order.h"
#include "lib/engine/output_set.h"
#include "lib/model/format.h"

namespace wtool {

// Where everything will lie, from headers alone: what --dry-run prints and execute() fills.
struct Placement {
  struct Tensor {
    std::size_t file;
    std::uint64_t offset, bytes;
  };
  std::vector<Layout> files;      // like Plan::files; empty for an appended one
  std::vector<Tensor> tensors;    // like outputs_of(plan)
  std::uint64_t total_bytes = 0;  // of the files and the side files
};
// Throws Usage if a format refuses a tensor (naming all of them), Unsupported if it cannot write.
Placement place(const Plan& plan);

// Told of what is there while a run still writes.
class Follower {
 public:
  virtual ~Follower() = default;
  // The heads are written, tensors are to come. `files`: the numbers of plan.files in the set.
  virtual void begin(const Placement& placement, std::span<const std::size_t> files) = 0;
  // All bytes of Placement::tensors[tensor] are written. From any thread, once each; not for those
  // without bytes. May wait, to let the follower keep up.
  virtual void complete(std::size_t tensor) = 0;
};

// The one path: lay out, reserve, run the measures, run the steps, add the side files. Never
// commits: the caller judges the report first. A plan without files needs no outputs.
Report execute(Plan& plan, const RunOptions& options, OutputSet* outputs = nullptr,
               Follower* follower = nullptr);

// After execute(): writes the heads again, for metadata that has got other values of the same size.
// The plan's first file has the number `first` in the set, others follow. Throws Internal if a head
// would have another size.
void write_heads(const Plan& plan, std::size_t first, OutputSet& outputs);

// Bytes of working memory a run with so many threads keeps to, beside the headers.
std::uint64_t working_memory(unsigned threads) noexcept;

}  // namespace wtool
