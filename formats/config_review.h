#pragma once
#include "lib/model/model.h"

namespace wtool {

// The config.json beside a model against its tensors. `deep`: that the other JSON files are JSON,
// too.
void review_config(const Model& model, bool deep, Diagnostics& faults);
RuleList config_rules() noexcept;

}  // namespace wtool
