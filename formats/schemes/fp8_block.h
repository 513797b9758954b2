#pragma once
// What reading and writing of DeepSeek's fp8 have in common; nobody else includes this.
#include <optional>
#include <span>
#include <string>

#include "lib/model/model.h"

namespace wtool::fp8 {

std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options);
void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan);
std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept);

}  // namespace wtool::fp8
