#pragma once
#include <cstdint>
#include <span>

#include "lib/base/scratch.h"
#include "lib/model/model.h"
#include "lib/numeric/drift.h"
#include "lib/numeric/kernels/float_codes.h"
#include "lib/numeric/measuring_step.h"

// Small floats of a weight with a scale for each group of columns, or for each block of rows and
// columns.
namespace wtool {

struct FloatCoding {
  SmallFloat type = SmallFloat::E4m3;
  std::uint64_t group = 0;       // columns that share a scale; 0: the whole row
  std::uint64_t group_rows = 1;  // and rows; then the last groups may be short on both sides
  DType scale = DType::F32;      // as stored: F32, BF16, F16, F8_E4M3 or F8_E8M0
  float global = 1;              // what readers divide a stored scale by (NVFP4)
  ScaleMethod method = ScaleMethod::Search;
};

// A box of rows × cols finite values, row by row; of blocks of rows, whole ones but at the tensor's
// ends. `importance` is empty or has `cols` values. `codes` has a byte for each value, or for two,
// the first in the low half; `scales` one for each group, little-endian. Adds to `drift` what is
// lost. Rounding to nearest: scale = amax / 448 or / 6, or its power of two, rounded up from 1.75;
// the type's machine epsilon where that is 0 (a power of two: 1).
void code_floats(const FloatCoding& how, std::uint64_t rows, std::uint64_t cols,
                 std::span<const float> in, std::span<const float> importance, MutableBytes codes,
                 MutableBytes scales, Drift& drift, Scratch& scratch);

// The largest magnitude in several tensors, found before anything is written.
class LargestStep final : public MeasuringStep<Drift> {
 public:
  explicit LargestStep(std::vector<TensorPtr> of);
  float result() const noexcept { return static_cast<float>(total_.worst); }

  std::uint64_t units() const override;
  void run(const Unit& unit) const override;

 private:
  std::vector<TensorPtr> of_;
  std::vector<Tiling> tilings_;
};

}  // namespace wtool
