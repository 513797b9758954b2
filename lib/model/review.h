#pragma once
#include "lib/model/model.h"

namespace wtool {

// What no format forbids in names and metadata, and yet may harm: a terminal, a folder of files
// named after tensors, an engine that runs a template. From what is in memory alone.
void review_texts(const Model& model, Diagnostics& faults);
RuleList text_rules() noexcept;
// One entry, of a file whose metadata does not count; a template, wherever it stands.
void review_metadata(const std::string& file, const MetaEntry& entry, Diagnostics& faults);
void review_template(const Place& where, std::string_view text, Diagnostics& faults);

// Of a text that people will see: what is odd about it ("holds a control character (\x1b at
// position 3)"); nullopt if nothing. `multiline`: line ends and tabs are nothing odd.
std::optional<std::string> odd_text(std::string_view text, bool multiline);

}  // namespace wtool
