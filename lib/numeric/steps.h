#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "lib/model/plan.h"
#include "lib/numeric/drift.h"

namespace wtool {

// How a scheme stores one tensor, box by box.
struct Encoder {
  std::vector<OutTensor> outputs;
  Tiling tiling;
  std::function<void(const Box&, std::vector<Span>& add_to)> spans;
  // Fills `out`, one for each span, and adds to `drift` how far what a reader will decode is from
  // `source`. Only called with finite values.
  std::function<void(const Box&, std::span<const float> source, std::span<const MutableBytes> out,
                     Drift& drift, Scratch&)>
      encode;
};

// The steps there are.
// The bytes as they are, in large units: the kernel copies them where it can.
std::unique_ptr<Step> copy_step(std::string name, TensorPtr from);
// An encoder's work. NaN and infinities in the source are counted, with the first one's index; a
// unit that has any is not encoded. The report has a row named `name`.
std::unique_ptr<Step> encode_step(std::string name, TensorPtr from, Encoder how);
// Another element type. Reports `overflows` (finite values that do not fit; with `saturate` they
// become the largest finite value), and with `measure` the drift too.
struct CastOptions {
  bool saturate = false;
  bool measure = false;
};
std::unique_ptr<Step> cast_step(std::string name, TensorPtr from, DType to,
                                const CastOptions& options = {});
// Why `from` cannot become `to` by cast_step, from the types and the shape alone.
std::optional<std::string> cast_refuses(const Tensor& from, DType to);

}  // namespace wtool
