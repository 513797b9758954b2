#pragma once
// What the reader and the writer of GPTQ share, and what repacking needs; nobody else includes
// this. The layout is described in gptq.cc.
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "formats/schemes/integer_layout.h"

namespace wtool::gptq {

inline constexpr std::string_view kCodes = ".qweight", kZeros = ".qzeros", kScales = ".scales",
                                  kIndex = ".g_idx", kWeight = ".weight";
inline constexpr std::uint64_t kWordBits = 32;

inline bool is_width(std::uint64_t bits) {
  return bits == 2 || bits == 3 || bits == 4 || bits == 8;
}

// A module's name as the regular expression that matches it alone: the keys of 'dynamic', after
// "-:" where the module is left as it is, "+:" where it has numbers of its own.
std::string pattern_of(std::string_view module);

std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options);
void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan);
std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept);

// Zero points are stored as they are (version 2) where there are any; else, all of them in the
// middle, minus one (version 1).
std::optional<std::string> refuses_shape(const IntegerShape& shape);
IntegerLayoutPtr layout(const IntegerShape& shape);

}  // namespace wtool::gptq
