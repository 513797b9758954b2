#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "lib/model/tensor.h"

namespace wtool {

// Whole blocks to and from f32. Encoders round to nearest even; overflow becomes infinity (or the
// largest value where a type has none), NaN stays NaN where the type has one.
struct Codec {
  DType dtype;
  void (*decode)(const std::byte* in, float* out, std::size_t elements) noexcept;
  void (*encode)(const float* in, std::byte* out, std::size_t elements) noexcept;  // may be null
};
const Codec* find_codec(DType type) noexcept;  // null: not numeric, or not decoded yet
const Codec& codec(DType type);                // throws Unsupported, naming the type

// The box as f32, whatever the tensor's own type (f64 and integers are rounded to nearest).
// Throws Unsupported if the type has no decoder.
void read_f32(const Tensor& tensor, const Box& box, std::span<float> out, Scratch& scratch);
// Exactly, for types that f32 cannot hold: f64 and all integers up to 53 bits as f64 …
void read_f64(const Tensor& tensor, const Box& box, std::span<double> out, Scratch& scratch);

}  // namespace wtool
