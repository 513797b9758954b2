#pragma once
// A model's quantization_config: what it says of itself beside the tensors. Every scheme looks at
// it, together with the tensors there are.
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "lib/model/model.h"

namespace wtool {

struct QuantizationConfig {
  std::string where;    // the file it comes from, for messages
  nlohmann::json body;  // an object
  std::string method;   // quant_method in lower case; empty if it is not said

  // From config.json beside the model, a quantize_config.json or quant_config.json of older tools,
  // hf_quant_config.json of ModelOpt, or a lone file's metadata. nullopt: there is none.
  static std::optional<QuantizationConfig> of(const Model& model, Diagnostics& faults);

  // The list that says that this very module is not quantized ("ignore"), or empty.
  std::string_view excluded_by(std::string_view module) const;
};

// The member, unless it is null or `of` is no object.
const nlohmann::json* member(const nlohmann::json& of, std::string_view key);
std::string_view text_of(const nlohmann::json* value);               // empty if it is no string
std::optional<std::uint64_t> count_of(const nlohmann::json* value);  // an unsigned integer
bool flag_of(const nlohmann::json* value, bool otherwise);

// A config that is looked for once, and only when a tensor makes it worth it.
class LazyConfig {
 public:
  explicit LazyConfig(const Model& model) : model_(model) {}
  const QuantizationConfig* get();  // null: there is none

 private:
  const Model& model_;
  bool read_ = false;
  std::optional<QuantizationConfig> config_;
};

}  // namespace wtool
