#pragma once
#include <cstddef>

// ggml's block types: decoders and quantisers. The arithmetic is that of ggml-quants.c, in float32,
// in the order of the elements, without fused multiply-add; each has a scalar reference
// (ggml_scalar.h) and vector forms that give the same bytes (simd.h). None allocates or throws.
namespace wtool {

// Rows of whole blocks to be quantised. Blocks follow one another row by row.
struct BlockRows {
  const float* values;                 // rows x columns, contiguous, all finite
  std::size_t rows, columns;           // columns: a multiple of the type's block
  const float* importance = nullptr;   // [columns], finite, >= 0: how much a column's errors count
  const float* mean_square = nullptr;  // [rows], with importance and blocks of 32: see below

  std::size_t elements() const noexcept { return rows * columns; }
};

// out[r] = (sum of x * x, in order) / columns of each row. The types of 32 elements weigh errors by
// it when they are given an importance, over the whole row, even if `columns` is only a part of it.
void mean_squares(const float* values, std::size_t rows, std::size_t columns, float* out) noexcept;

using QuantizeRows = void (*)(const BlockRows&, std::byte* out) noexcept;

// ---- ggml_plain.cc: no search; importance is ignored. A scale beyond f16 is stored as infinity.
void quantize_q4_0(const BlockRows&, std::byte* out) noexcept;
void quantize_q4_1(const BlockRows&, std::byte* out) noexcept;
void quantize_q5_0(const BlockRows&, std::byte* out) noexcept;
void quantize_q5_1(const BlockRows&, std::byte* out) noexcept;
void quantize_q8_0(const BlockRows&, std::byte* out) noexcept;
void quantize_q1_0(const BlockRows&, std::byte* out) noexcept;
void quantize_q2_0(const BlockRows&, std::byte* out) noexcept;
void quantize_tq1_0(const BlockRows&, std::byte* out) noexcept;
void quantize_tq2_0(const BlockRows&, std::byte* out) noexcept;
// Differs from the reference below 2^-125, where its exponent wraps: ours stays at 0.
void quantize_mxfp4(const BlockRows&, std::byte* out) noexcept;
void quantize_nvfp4(const BlockRows&, std::byte* out) noexcept;

// ---- ggml_affine.cc, ggml_symmetric.cc: scales found by trial, each block on its own
void quantize_q2_k(const BlockRows&, std::byte* out) noexcept;
void quantize_q3_k(const BlockRows&, std::byte* out) noexcept;
void quantize_q4_k(const BlockRows&, std::byte* out) noexcept;
void quantize_q5_k(const BlockRows&, std::byte* out) noexcept;
void quantize_q6_k(const BlockRows&, std::byte* out) noexcept;
void quantize_iq4_nl(const BlockRows&, std::byte* out) noexcept;
void quantize_iq4_xs(const BlockRows&, std::byte* out) noexcept;
// The same with importance, which must be there (and mean_square for blocks of 32). What they store
// may be infinite where the weighted fit has no finite answer: the caller looks.
void quantize_weighted_q4_0(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q4_1(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q5_0(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q5_1(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q2_k(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q3_k(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q4_k(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q5_k(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q6_k(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_iq4_nl(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_iq4_xs(const BlockRows&, std::byte* out) noexcept;

// ---- ggml_decode.cc, ggml_decode_grids.cc: to f32; n is a multiple of the type's block. Any bytes
// will do. The older types are in kernels.h.
void q1_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q2_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q2_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q3_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q4_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q5_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q6_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
// Types of products, not of files: the library has no decoder of them. The value is d * q.
void q8_1_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void q8_k_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void iq4_nl_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void iq4_xs_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void mxfp4_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void nvfp4_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void tq1_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void tq2_0_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
// The values of these are points of a codebook (ggml_codebooks.h).
void iq1_s_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void iq1_m_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void iq2_xxs_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void iq2_xs_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void iq2_s_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void iq3_xxs_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;
void iq3_s_to_f32(const std::byte* in, float* out, std::size_t n) noexcept;

// ---- ggml_best_scale.cc, ggml_best_k.cc: the same layouts, searched further. Of each block the
// sum of (decoded - x)^2, times the importance if it is given, is never above that of the
// quantisers above (both of them with importance, which must then come with mean_square for blocks
// of 32), and as far below as the search finds; where it finds nothing better the reference's bytes
// stay. Where all of a block's importance is 0, all its elements count alike. What is not finite
// loses to anything that is. Scales and minima of the whole block may be of either sign.
void best_q4_0(const BlockRows&, std::byte* out) noexcept;
void best_q4_1(const BlockRows&, std::byte* out) noexcept;
void best_q5_0(const BlockRows&, std::byte* out) noexcept;
void best_q5_1(const BlockRows&, std::byte* out) noexcept;
void best_q8_0(const BlockRows&, std::byte* out) noexcept;
void best_q1_0(const BlockRows&, std::byte* out) noexcept;
void best_q2_0(const BlockRows&, std::byte* out) noexcept;
void best_q2_k(const BlockRows&, std::byte* out) noexcept;
void best_q3_k(const BlockRows&, std::byte* out) noexcept;
void best_q4_k(const BlockRows&, std::byte* out) noexcept;
void best_q5_k(const BlockRows&, std::byte* out) noexcept;
void best_q6_k(const BlockRows&, std::byte* out) noexcept;
void best_iq4_nl(const BlockRows&, std::byte* out) noexcept;
void best_iq4_xs(const BlockRows&, std::byte* out) noexcept;
void best_tq1_0(const BlockRows&, std::byte* out) noexcept;
void best_tq2_0(const BlockRows&, std::byte* out) noexcept;
void best_mxfp4(const BlockRows&, std::byte* out) noexcept;
void best_nvfp4(const BlockRows&, std::byte* out) noexcept;

}  // namespace wtool
