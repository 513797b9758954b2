#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "lib/model/plan.h"
#include "lib/numeric/drift.h"
#include "lib/numeric/quantizer.h"

namespace wtool {

// How a scheme stores one tensor, box by box.
struct Encoder {
  std::vector<OutTensor> outputs;
  Tiling tiling;
  std::function<void(const Box&, std::vector<Span>& add_to)> spans;
  // Fills `out`, one for each span, and adds to `drift` how far what a reader will decode is from
  // `source` (DriftLanes in kernels.h helps). Only called with finite values; what it adds to
  // first_bad is an index into the box.
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
// Another element type. Reports `overflows` (finite values that do not fit, integers that the type
// cannot hold exactly; with `saturate` they become the nearest value that fits, and are still
// counted), and with `measure` the drift too. NaN stays NaN and infinities stay; to a type that has
// none of them, or to blocks, they are counted in `non_finite`. Blocks whose scale does not fit f16
// are counted whole in `overflows`, whatever `saturate` says.
struct CastOptions {
  bool saturate = false;
  bool measure = false;
};
std::unique_ptr<Step> cast_step(std::string name, TensorPtr from, DType to,
                                const CastOptions& options = {});
// Whole blocks of a ggml type, from anything that read_f32 can read. NaN and infinities in the
// source are counted in `non_finite`, blocks whose scale is beyond f16 whole in `overflows`.
enum class Method : std::uint8_t {
  Exact,  // the reference's bytes
  Best,   // no block is further from its source than the reference's, most are nearer
};
struct QuantizeOptions {
  Method method = Method::Exact;
  bool measure = true;
  // Gives elements [first, first + out.size()) of the tensor's importance: one for each column of
  // each of its matrices (experts: the third dimension from the end). Finite, >= 0. Null: all
  // columns count the same. A block whose weighted fit is not finite is quantised without it and
  // counted in `fallback_blocks`.
  std::function<void(std::uint64_t first, std::span<float> out)> importance;
};
std::unique_ptr<Step> quantize_step(const std::string& name, TensorPtr from, DType to,
                                    const QuantizeOptions& options = {});
// Why `from` cannot become `to` by cast_step, from the types and the shape alone.
std::optional<std::string> cast_refuses(const Tensor& from, DType to);

}  // namespace wtool
