#pragma once
// What the reader and the writer of AWQ share, and what repacking needs; nobody else includes this.
// The layout is described in awq.cc.
#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "formats/schemes/integer_layout.h"

namespace wtool::awq {

inline constexpr std::string_view kCodes = ".qweight", kZeros = ".qzeros", kScales = ".scales",
                                  kWeight = ".weight";
inline constexpr std::uint64_t kPerWord = 8, kBits = 4;
// Which nibble of the word has output 0, 1, … 7.
inline constexpr std::array<unsigned, kPerWord> kPlace{0, 4, 1, 5, 2, 6, 3, 7};

std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options);
void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan);
std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept);

std::optional<std::string> refuses_shape(const IntegerShape& shape);
IntegerLayoutPtr layout(const IntegerShape& shape);

}  // namespace wtool::awq
