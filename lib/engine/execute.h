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

// The one path: lay out, reserve, run the measures, run the steps, add the side files. Never
// commits: the caller judges the report first. A plan without files needs no outputs.
Report execute(Plan& plan, const RunOptions& options, OutputSet* outputs = nullptr);

// Bytes of working memory a run with so many threads keeps to, beside the headers.
std::uint64_t working_memory(unsigned threads) noexcept;

}  // namespace wtool
