#pragma once
// Hugging Face folders in memory, and what add_tokenizer() makes of them.
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "formats/hf/tokenizer.h"

namespace wtool {

using SideTexts = std::vector<std::pair<std::string, std::string>>;

inline Model hf_folder(const SideTexts& files) {
  Model model;
  model.path = "folder";
  model.is_folder = true;
  for (const auto& [name, text] : files)
    model.side.push_back({name, from_memory("folder/" + name, to_buffer(text))});
  return model;
}
// All but the weights, as opening the folder finds them.
inline Model hf_folder(const std::filesystem::path& path) {
  Model model;
  model.path = path;
  model.is_folder = true;
  for (const auto& entry : std::filesystem::directory_iterator(path))
    if (entry.is_regular_file() && entry.path().extension() != ".safetensors")
      model.side.push_back({entry.path().filename(), open_file(entry.path())});
  return model;
}

struct AddedKeys {
  Metadata meta;
  std::vector<std::string> notes;

  nlohmann::json operator[](std::string_view key) const {  // null if absent
    const MetaValue* value = meta.find(
        key.starts_with("tokenizer.") ? std::string(key) : "tokenizer.ggml." + std::string(key));
    return value ? to_json(*value) : nlohmann::json();
  }
  static nlohmann::json to_json(const MetaValue& value) {
    return std::visit(
        [](const auto& x) -> nlohmann::json {
          if constexpr (std::is_same_v<std::decay_t<decltype(x)>, MetaArray>) {
            nlohmann::json out = nlohmann::json::array();
            for_each(x, [&](const MetaValue& e) {
              out.push_back(to_json(e));
              return true;
            });
            return out;
          } else {
            return x;
          }
        },
        value);
  }
};

inline AddedKeys added_keys(const Model& model, const nlohmann::json& config,
                            const TokenizerWish& wish) {
  AddedKeys out;
  add_tokenizer(model, config, wish, out.meta, out.notes);
  return out;
}

}  // namespace wtool
