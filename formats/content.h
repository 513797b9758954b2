#pragma once
#include "lib/model/model.h"

namespace wtool {

// Looks for other things in a model than weights: archives, programs and pickles in tensors,
// metadata and the folder, and files that are two things at once. `deep`: reads the first bytes of
// every tensor; else only metadata and the end of each file.
void review_content(const Model& model, bool deep, Diagnostics& faults);
RuleList content_rules() noexcept;

}  // namespace wtool
