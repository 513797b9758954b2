#pragma once
#include <cstddef>
#include <cstdint>

#include "lib/numeric/drift.h"

// The loops that touch every element. Each has a scalar reference and vector forms that give the
// same bytes (simd.h); none allocates, throws or looks beyond `n`. Pointers to f16, bf16 and blocks
// need no alignment; pointers to float are those of floats.
namespace wtool {

// ---- floats.cc

float f16_value(std::uint16_t bits) noexcept;   // exact; NaN becomes quiet, payload kept
std::uint16_t f16_bits(float value) noexcept;   // nearest even; NaN quiet, top of its payload
constexpr std::uint16_t kF16Largest = 0x7BFF;   // 65504
std::uint16_t bf16_bits(float value) noexcept;  // likewise

void f16_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void bf16_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
// True if a finite value became infinite.
bool f32_to_f16(const float* in, std::byte* out, std::size_t n) noexcept;
bool f32_to_bf16(const float* in, std::byte* out, std::size_t n) noexcept;
// True if all are finite.
bool all_finite(const float* in, std::size_t n) noexcept;
std::uint64_t count_non_finite(const float* in, std::size_t n, std::uint64_t* first) noexcept;

// Sums over elements in an order that no instruction set changes: element i of a call goes to
// stripe i mod 16; fold() adds the stripes one after another. One of these per unit.
struct alignas(64) DriftLanes {
  static constexpr std::size_t kStripes = 16;
  double error2[kStripes] = {}, value2[kStripes] = {}, cross[kStripes] = {};
  Drift rest = {};  // everything that is no sum of doubles
  Drift fold() const noexcept;
};
// `stored` is what a reader will decode. With a step above 0 (the scale of this group) errors are
// also counted in steps: worst_steps and the histogram. All values finite. Counts the elements;
// clipped codes are the caller's to count (lanes.rest.clipped).
void add_drift(const float* source, const float* stored, std::size_t n, float step,
               DriftLanes& lanes) noexcept;

// ---- blocks.cc: ggml's blocks of 32; n is a multiple of 32

void q8_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q4_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q4_1_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q5_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q5_1_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
// The reference's bytes. A block with NaN or infinity becomes zeros and is counted in
// lanes->rest.non_finite; one whose scale does not fit f16 is counted whole in overflows;
// first_bad is relative to `in`. Neither is in the sums. Null: the bytes alone.
void f32_to_q8_0(const float* in, std::byte* out, std::size_t n, DriftLanes* lanes) noexcept;
void f32_to_q4_0(const float* in, std::byte* out, std::size_t n, DriftLanes* lanes) noexcept;

}  // namespace wtool
