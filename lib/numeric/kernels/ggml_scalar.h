#pragma once
#include "lib/numeric/kernels/ggml.h"

// The quantisers of ggml.h written plainly, one block after another: what the vector forms are
// tested against, and what runs where WTOOL_SIMD=scalar. Rules and section numbers: ggml-quants.c.
namespace wtool::scalar {

void mean_squares(const float* values, std::size_t rows, std::size_t columns, float* out) noexcept;

void quantize_q4_0(const BlockRows&, std::byte* out) noexcept;
void quantize_q4_1(const BlockRows&, std::byte* out) noexcept;
void quantize_q5_0(const BlockRows&, std::byte* out) noexcept;
void quantize_q5_1(const BlockRows&, std::byte* out) noexcept;
void quantize_q8_0(const BlockRows&, std::byte* out) noexcept;
void quantize_q1_0(const BlockRows&, std::byte* out) noexcept;
void quantize_q2_0(const BlockRows&, std::byte* out) noexcept;
void quantize_tq1_0(const BlockRows&, std::byte* out) noexcept;
void quantize_tq2_0(const BlockRows&, std::byte* out) noexcept;
void quantize_mxfp4(const BlockRows&, std::byte* out) noexcept;
void quantize_nvfp4(const BlockRows&, std::byte* out) noexcept;

// With or without importance.
void quantize_q2_k(const BlockRows&, std::byte* out) noexcept;
void quantize_q3_k(const BlockRows&, std::byte* out) noexcept;
void quantize_q4_k(const BlockRows&, std::byte* out) noexcept;
void quantize_q5_k(const BlockRows&, std::byte* out) noexcept;
void quantize_q6_k(const BlockRows&, std::byte* out) noexcept;
void quantize_iq4_nl(const BlockRows&, std::byte* out) noexcept;
void quantize_iq4_xs(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q4_0(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q4_1(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q5_0(const BlockRows&, std::byte* out) noexcept;
void quantize_weighted_q5_1(const BlockRows&, std::byte* out) noexcept;

}  // namespace wtool::scalar
