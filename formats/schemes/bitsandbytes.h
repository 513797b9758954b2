#pragma once
// What the reader and the writer of bitsandbytes share; nobody else includes this. The layout is
// described in bitsandbytes.cc.
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lib/model/model.h"

namespace wtool::bitsandbytes {

inline constexpr std::string_view kWeight = ".weight", kAbsmax = ".absmax", kMap = ".quant_map",
                                  kNestedAbsmax = ".nested_absmax",
                                  kNestedMap = ".nested_quant_map",
                                  kStateMark = ".quant_state.bitsandbytes__";

// NF4, the one type that is written.
std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options);
void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan);
std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept);

}  // namespace wtool::bitsandbytes
