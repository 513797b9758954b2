#include "lib/numeric/quantizer.h"

#include <algorithm>
#include <array>

namespace wtool {
namespace {

constexpr std::array kQuantizers{
    Quantizer{DType::Q4_0, quantize_q4_0, quantize_weighted_q4_0, best_q4_0},
    Quantizer{DType::Q4_1, quantize_q4_1, quantize_weighted_q4_1, best_q4_1},
    Quantizer{DType::Q5_0, quantize_q5_0, quantize_weighted_q5_0, best_q5_0},
    Quantizer{DType::Q5_1, quantize_q5_1, quantize_weighted_q5_1, best_q5_1},
    Quantizer{DType::Q8_0, quantize_q8_0, nullptr, best_q8_0},
    Quantizer{DType::Q1_0, quantize_q1_0, nullptr, best_q1_0},
    Quantizer{DType::Q2_0, quantize_q2_0, nullptr, best_q2_0},
    Quantizer{DType::Q2_K, quantize_q2_k, quantize_weighted_q2_k, best_q2_k},
    Quantizer{DType::Q3_K, quantize_q3_k, quantize_weighted_q3_k, best_q3_k},
    Quantizer{DType::Q4_K, quantize_q4_k, quantize_weighted_q4_k, best_q4_k},
    Quantizer{DType::Q5_K, quantize_q5_k, quantize_weighted_q5_k, best_q5_k},
    Quantizer{DType::Q6_K, quantize_q6_k, quantize_weighted_q6_k, best_q6_k},
    Quantizer{DType::IQ4_NL, quantize_iq4_nl, quantize_weighted_iq4_nl, best_iq4_nl},
    Quantizer{DType::IQ4_XS, quantize_iq4_xs, quantize_weighted_iq4_xs, best_iq4_xs},
    Quantizer{DType::TQ1_0, quantize_tq1_0, nullptr, best_tq1_0},
    Quantizer{DType::TQ2_0, quantize_tq2_0, nullptr, best_tq2_0},
    Quantizer{DType::MXFP4, quantize_mxfp4, nullptr, best_mxfp4},
    Quantizer{DType::NVFP4, quantize_nvfp4, nullptr, best_nvfp4},
};

}  // namespace

std::span<const Quantizer> all_quantizers() noexcept {
  return kQuantizers;
}

const Quantizer* find_quantizer(DType type) noexcept {
  const auto it = std::ranges::find(kQuantizers, type, &Quantizer::dtype);
  return it == kQuantizers.end() ? nullptr : &*it;
}

}  // namespace wtool
