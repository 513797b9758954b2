#pragma once
#include <span>

#include "lib/model/tensor.h"

namespace wtool {

// The cell of a value is the interval of source values that its stored level stands for: those to
// which no other level is nearer. It ends half-way to the neighbouring levels, and is infinite
// beyond the last one.

// Floats whose levels are: sign, exponents from `lowest` up, and fractions of so many bits.
struct FloatGrid {
  int fraction, lowest;
  float largest;
};
// Half-way to the next level up (or down); infinite beyond the largest. `value` is a level.
FloatGrid float_grid(DType type);  // of f16, bf16 and the 8-, 6- and 4-bit floats; else Internal
float half_way(const FloatGrid& grid, float value, bool up) noexcept;

// Where the steps of a tensor come from, if it has any.
enum class StepsOf : std::uint8_t {
  Nothing,  // integers, f32, f64: a value stands for itself
  Floats,   // f16 and narrower: neighbouring numbers
  Levels,   // a scheme's or a block's scale
  Unknown,  // codebooks: the levels of one value depend on those of its neighbours
};
StepsOf steps_of(const Tensor& tensor);
// The cells of a box. Throws Internal unless they are Floats or Levels. `slack` is by how much a
// value may miss its cell: ggml's older block types choose codes before their scale is rounded to
// f16, which moves levels.
struct CellSpans {
  std::span<float> low, high, slack;
};
void read_cells(const Tensor& tensor, const Box& box, const CellSpans& out, Scratch& scratch);

// of + addend, in f32; cells move with the values.
TensorPtr added(TensorPtr of, float addend);
// The same values in f32; of f32, the tensor itself.
TensorPtr widened(TensorPtr of);

}  // namespace wtool
