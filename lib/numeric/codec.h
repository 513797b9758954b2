#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "lib/model/tensor.h"

namespace wtool {

// Whole blocks to f32, and plain types back (to blocks: quantizer.h). Encoders round to nearest
// even; NaN stays NaN where the type has one; what does not fit becomes infinity, or NaN where
// there is only that (f8_e4m3), or the largest value where there is neither.
struct Codec {
  DType dtype;
  void (*decode)(const std::byte* in, float* out, std::size_t elements) noexcept;
  void (*encode)(const float* in, std::byte* out, std::size_t elements) noexcept = nullptr;
  // Of an encoder to floats: the largest value, and the smallest magnitude that rounds beyond it.
  float largest = 0, too_large = 0;
  bool has_infinity = false, has_nan = false;
};
const Codec* find_codec(DType type) noexcept;  // null: not numeric, or not decoded yet
const Codec& codec(DType type);                // throws Unsupported, naming the type

// The box as f32, whatever the tensor's own type (f64 and integers are rounded to nearest).
// Throws Unsupported if the type has no decoder.
void read_f32(const Tensor& tensor, const Box& box, std::span<float> out, Scratch& scratch);
// As f64, exactly but for integers of more than 53 bits, which are rounded to nearest.
void read_f64(const Tensor& tensor, const Box& box, std::span<double> out, Scratch& scratch);

}  // namespace wtool
