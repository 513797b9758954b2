#include "formats/hf/chat_template.h"

#include <algorithm>

#include <fmt/format.h>

#include "formats/hf/tokenizer_json.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/base/utf8.h"
#include "lib/model/folder.h"

namespace wtool {
namespace {

constexpr std::uint64_t kMaxTemplate = std::uint64_t{4} << 20;  // of one file
constexpr std::size_t kMaxTemplates = 64;
constexpr std::string_view kDefault = "default", kMore = "additional_chat_templates",
                           kSuffix = ".jinja";

// The reference reads these files as text, in which every line ends with a line feed.
std::string with_line_feeds(std::string_view s) {
  std::string out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '\r' && i + 1 < s.size() && s[i + 1] == '\n') continue;
    out += s[i] == '\r' ? '\n' : s[i];
  }
  return out;
}

std::string jinja_text(const Source& file) {
  const Buffer bytes = text_of_file(file, kMaxTemplate);
  std::size_t bad = 0;
  if (!is_utf8(as_text(bytes), &bad))
    throw Error(Fault::BadFile, fmt::format("byte {} is not UTF-8", bad)).in(file.name());
  return with_line_feeds(as_text(bytes));
}

std::vector<std::string> more_files(const Model& model) {
  std::vector<std::string> out;
  const std::string folder = joined(model.path, kMore);
  if (!model.is_folder || !exists(folder)) return out;
  for (const FolderEntry& e : list_folder(folder))
    if (e.kind == FolderEntry::Kind::File && e.name.ends_with(kSuffix) &&
        e.name.size() > kSuffix.size())
      out.push_back(joined(folder, e.name));
  if (out.size() > kMaxTemplates)
    throw Error(Fault::BadFile,
                fmt::format("{} templates, wtool's limit is {}", out.size(), kMaxTemplates))
        .in(folder);
  return out;
}

// In a key, of a name only what is a letter or a digit stays.
std::string key_name(std::string_view name) {
  std::string out;
  while (!name.empty()) {
    const char c = name.front();
    const char low = static_cast<char>(c | 0x20);
    const bool plain = (c >= '0' && c <= '9') || (low >= 'a' && low <= 'z');
    out += plain ? c : '_';
    name.remove_prefix(next_code_point(name).length);
  }
  return out;
}

}  // namespace

std::vector<ChatTemplate> chat_templates_in(JsonReader& in) {
  std::vector<ChatTemplate> out;
  if (in.peek() != JsonReader::Kind::Array) {
    if (const auto text = maybe_string(in))
      out.push_back({std::string(kDefault), std::string(*text)});
    return out;
  }
  std::string_view key;
  for (in.begin_array(); in.next_item();) {
    if (in.peek() != JsonReader::Kind::Object) {
      in.skip();
      continue;
    }
    std::optional<std::string_view> name, text;
    for (in.begin_object(); in.next_member(key);)
      if (key == "name")
        name = maybe_string(in);
      else if (key == "template")
        text = maybe_string(in);
      else
        in.skip();
    if (!name || name->empty() || !text) continue;
    if (out.size() == kMaxTemplates)
      throw Error(Fault::BadFile,
                  fmt::format("more than {} chat templates, wtool's limit", kMaxTemplates));
    out.push_back({std::string(*name), std::string(*text)});
  }
  return out;
}

std::vector<ChatTemplate> chat_template_files(const Model& model) {
  std::vector<ChatTemplate> out;
  if (const SideFile* side = model.side_file("chat_template.jinja"))
    out.push_back({std::string(kDefault), jinja_text(*side->content)});
  for (const std::string& path : more_files(model)) {
    std::string name = file_name_of(path);
    name.resize(name.size() - kSuffix.size());
    out.push_back({std::move(name), jinja_text(*open_on_demand(path))});
  }
  if (!out.empty()) return out;
  if (const SideFile* side = model.side_file("chat_template.json")) {
    Buffer text = text_of_file(*side->content, kMaxTemplate);
    read_json_file(*side->content, text, [&](JsonReader& in) {
      std::string_view key;
      for (in.begin_object(); in.next_member(key);)
        if (key == "chat_template")
          out = chat_templates_in(in);
        else
          in.skip();
    });
  }
  return out;
}

void add_chat_templates(const std::vector<ChatTemplate>& templates, Metadata& meta) {
  const ChatTemplate* main = nullptr;
  std::vector<std::string> names;
  for (const ChatTemplate& t : templates) {
    const std::string name = key_name(t.name);
    if (name == kDefault) {
      main = &t;
      continue;
    }
    meta.set("tokenizer.chat_template." + name, t.text);
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  }
  if (!names.empty()) {
    StringList list;
    for (const std::string& name : names) list.add(name);
    meta.set("tokenizer.chat_templates", std::move(list).array());
  }
  if (main) meta.set("tokenizer.chat_template", main->text);
}

}  // namespace wtool
