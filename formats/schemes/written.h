#pragma once
// What the writers of quantisation schemes share; nobody else includes this.
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "lib/model/model.h"
#include "lib/numeric/steps.h"

namespace wtool {

// Rows of `row_bytes` each in an output, of which a box takes [first, first + bytes) of each.
inline Span rows_span(std::uint32_t output, std::uint64_t row, std::uint64_t rows,
                      std::uint64_t row_bytes, std::uint64_t first, std::uint64_t bytes) {
  if (bytes == row_bytes) return {output, row * row_bytes, rows * row_bytes};
  return {output, row * row_bytes + first, bytes, rows, row_bytes};
}

// Why a tensor is no weight to quantise, in any scheme: its type, its dimensions, no elements.
std::optional<std::string> refuses_source(const Tensor& tensor);
std::string module_of(std::string_view weight);  // throws Usage if it does not end in '.weight'
// A configuration as text; throws BadFile at names that are not UTF-8.
std::string json_text(const nlohmann::ordered_json& config);

// The importance of a box's columns, or nothing.
std::span<const float> importance_of(const Target& target, const Box& box, Scratch::Frame& frame);

// Units of whole groups of `wide` columns, and of blocks of `high` rows.
Tiling tiling_for(const Box& whole, std::uint64_t wide, std::uint64_t high);

template <class Weight>
std::unique_ptr<Step> step_of(Weight weight) {
  const auto w = std::make_shared<const Weight>(std::move(weight));
  return encode_step(
      w->target.name, w->target.values,
      {w->outputs(), w->tiling(),
       [w](const Box& box, std::vector<Span>& add_to) { w->spans(box, add_to); },
       [w](const Box& box, std::span<const float> source, std::span<const MutableBytes> out,
           Drift& drift, Scratch& scratch) { w->encode(box, source, out, drift, scratch); }});
}

// ---- weights of small floats

inline constexpr std::uint64_t kFp8Block = 128, kNvfp4Group = 16, kMxGroup = 32;

// How the tensors of one weight are called, and what they share with others of another scheme.
struct FloatNames {
  std::string codes, scale, global = {};  // global: of Nvfp4
  bool wide_scales = false;               // of Fp8: f32 whatever the source
};
// `shared` of the target is the LargestStep of its set, for Nvfp4.
std::unique_ptr<Step> float_step(const Target& target, const SchemeOptions& options,
                                 FloatNames names);

}  // namespace wtool
