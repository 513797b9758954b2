#pragma once
#include "lib/model/model.h"

namespace wtool {

// The config.json beside a model against its tensors. `deep`: that the other JSON files are JSON,
// too.
void review_config(const Model& model, bool deep, Diagnostics& faults);
RuleList config_rules() noexcept;

// True if config.json says that the head is the embedding (tie_word_embeddings). What is no JSON
// says nothing.
bool says_tied(const Model& model);

}  // namespace wtool
