#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/base/scratch.h"
#include "lib/model/metadata.h"
#include "lib/model/report.h"
#include "lib/model/tensor.h"

namespace wtool {

struct Format;

struct OutTensor {
  std::string name;
  DType dtype = DType::F32;
  Shape shape;
  bool big_endian = false;  // steps give little-endian; execute() swaps

  std::uint64_t bytes() const {  // throws Internal if the shape does not fit the dtype
    const auto n = element_count(shape);
    return checked_size(dtype, n ? *n : ~std::uint64_t{0});
  }
};

// Bytes [offset, offset + bytes) of a step's output, or a strip of `count` such ranges. In an
// output with big_endian, every range holds whole blocks.
struct Span {
  std::uint32_t output = 0;  // index into the step's outputs()
  std::uint64_t offset = 0, bytes = 0;
  std::uint64_t count = 1, stride = 0;
};

// One unit of a step in the hands of one worker.
struct Unit {
  std::uint64_t index;
  std::span<const MutableBytes> out;  // one for each of spans(), strips closed up
  Buffer& found;                      // for fold(); empty
  Scratch& scratch;
};

// A piece of work: declares the output tensors it fills and fills them in independent units. With
// no outputs it only finds something out: a measure for later steps, statistics, a comparison.
class Step {
 public:
  virtual ~Step() = default;
  std::span<const OutTensor> outputs() const noexcept { return outputs_; }
  void set_big_endian() noexcept {
    for (OutTensor& t : outputs_) t.big_endian = true;
  }

  virtual std::uint64_t units() const = 0;
  virtual void spans(std::uint64_t /*unit*/, std::vector<Span>& /*add_to*/) const {}

  // The unit as it lies ready in a source: copied by the kernel to its one span, run() left out.
  // Not asked for outputs with big_endian.
  virtual std::optional<Extent> raw(std::uint64_t /*unit*/) const { return std::nullopt; }

  // On any thread, in any order. Pure: the same unit gives the same bytes.
  virtual void run(const Unit& unit) const = 0;

  // Takes what run() found: in unit order, one at a time. In an appended file, what is left in
  // `found` is what gets appended.
  virtual void fold(std::uint64_t /*unit*/, Buffer& /*found*/) {}
  virtual void report(Report&) const {}  // after the last fold

 protected:
  explicit Step(std::vector<OutTensor> outputs = {}) : outputs_(std::move(outputs)) {}

 private:
  std::vector<OutTensor> outputs_;
};

struct OutFile {
  std::string name;  // relative, within the output folder; for a single file, anything
  const Format* format = nullptr;  // null: appended, sizes unknown beforehand; then the only file
  Metadata meta;
  std::size_t tensors = 0;  // it holds the next so many outputs of the plan's steps
};
struct SideFile {
  std::string name;   // relative, within the folder
  SourcePtr content;  // copied from the input, or from_memory()
};

// All that a run will do. No files: a reading command.
struct Plan {
  std::vector<OutFile> files;
  std::vector<SideFile> side;
  std::vector<std::shared_ptr<Step>> measures;  // run first; steps share those they depend on
  std::vector<std::unique_ptr<Step>> steps;
};

std::vector<OutTensor> outputs_of(const Plan& plan);  // in the order in which files take them

}  // namespace wtool
