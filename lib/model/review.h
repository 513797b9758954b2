#pragma once
#include "lib/model/model.h"

namespace wtool {

// What no format forbids in names and metadata, and yet may harm: a terminal, a folder of files
// named after tensors, an engine that runs a template. From what is in memory alone.
void review_texts(const Model& model, Diagnostics& faults);
RuleList text_rules() noexcept;

// Of a text that people will see: what is odd about it ("holds a control character (\x1b at
// position 3)"); nullopt if nothing. `multiline`: line ends and tabs are nothing odd.
std::optional<std::string> odd_text(std::string_view text, bool multiline);

}  // namespace wtool
