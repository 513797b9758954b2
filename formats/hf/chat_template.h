#pragma once
// Chat templates: Jinja texts that turn a conversation into a prompt. They are copied, never run.
#include <string>
#include <vector>

#include "lib/base/json_reader.h"
#include "lib/model/metadata.h"
#include "lib/model/model.h"

namespace wtool {

struct ChatTemplate {
  std::string name;  // "default", "tool_use"
  std::string text;
};

// The value of "chat_template" in a JSON file: a text, or a list of {"name": …, "template": …}.
// Empty if it is neither.
std::vector<ChatTemplate> chat_templates_in(JsonReader& in);

// Those in files of their own: chat_template.jinja and additional_chat_templates/*.jinja, else
// chat_template.json. Throws BadFile.
std::vector<ChatTemplate> chat_template_files(const Model& model);

// tokenizer.chat_template, and tokenizer.chat_template.NAME with their list for the others.
void add_chat_templates(const std::vector<ChatTemplate>& templates, Metadata& meta);

}  // namespace wtool
