#pragma once
#include <optional>
#include <span>
#include <string_view>

#include "lib/model/format.h"

namespace wtool {

// The table that joins safetensors shards: {"metadata": {"total_size": N}, "weight_map": {"name":
// "file", …}}, in model.safetensors.index.json. Members of kSafetensors.
bool detect_safetensors_index(const Source& source);
ShardIndex read_safetensors_index(const SourcePtr& file, Diagnostics& faults);
std::optional<SideFile> safetensors_index(std::string_view stem, std::span<const OutFile> files,
                                          std::span<const OutTensor> tensors);

RuleList safetensors_index_rules() noexcept;

}  // namespace wtool
