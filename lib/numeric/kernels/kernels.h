#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>

#include "lib/numeric/drift.h"

// The loops that touch every element. Each has a scalar reference and vector forms that give the
// same bytes (simd.h); none allocates, throws or looks beyond `n`. Pointers to bytes need no
// alignment.
namespace wtool {

// ---- floats.cc

float f16_value(std::uint16_t bits) noexcept;   // exact; NaN becomes quiet, payload kept
std::uint16_t f16_bits(float value) noexcept;   // nearest even; NaN quiet, top of its payload
std::uint16_t bf16_bits(float value) noexcept;  // likewise

void f16_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void bf16_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void f32_to_f16(const float* in, std::byte* out, std::size_t n) noexcept;
void f32_to_bf16(const float* in, std::byte* out, std::size_t n) noexcept;
// True if every magnitude is below the limit (which is above 0); NaN is not.
bool all_below(const float* in, std::size_t n, float limit) noexcept;
inline bool all_finite(const float* in, std::size_t n) noexcept {
  return all_below(in, n, std::numeric_limits<float>::infinity());
}

// Quantisation steps of runs of `group` elements: step[i / group], of either sign, finite. lo and
// hi are the codes at the ends of the range: what is stored there is lo * step and hi * step.
struct Steps {
  const float* step;
  std::size_t group;
  float lo, hi;
};

// Sums over elements in an order that no instruction set changes: element i of a group (or of the
// call, without steps) goes to stripe i mod 16; fold() adds the stripes up one after another.
struct alignas(64) DriftLanes {
  static constexpr std::size_t kStripes = 16;
  double error2[kStripes] = {}, value2[kStripes] = {}, cross[kStripes] = {};
  Drift rest = {};  // everything that is no sum of doubles
  Drift fold() const noexcept;
};
// `stored` is what a reader will decode. With steps, errors are also counted in steps (worst_steps,
// histogram, clipped); a step of 0 counts none. All values finite. Counts the elements.
void add_drift(const float* source, const float* stored, std::size_t n, const Steps* steps,
               DriftLanes& lanes) noexcept;

// ---- blocks.cc: ggml's blocks of 32; n is a multiple of 32

void q8_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q4_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q4_1_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q5_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q5_1_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
// ---- ggml_plain.cc: likewise

// The reference's bytes. steps[b] is the scale of block b as stored, or, where f16 holds only zero
// for it, the scale before it was stored: errors then show as the many steps that they are. NaN
// marks a block with a value that is not finite (its bytes are zeros), infinity a scale beyond f16.
void f32_to_q8_0(const float* in, std::byte* out, std::size_t n, float* steps) noexcept;
void f32_to_q4_0(const float* in, std::byte* out, std::size_t n, float* steps) noexcept;

}  // namespace wtool
