// Tokenizers of Hugging Face folders, against what the reference converter made of the same folders
// (testdata/hf2gguf), and by hand where it has nothing to say.
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/hf/tokenizer.h"
#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/unit/temp_folder.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Catch::Matchers::Contains;

const fs::path kGolden = fs::path(WTOOL_SOURCE_DIR) / "testdata/hf2gguf";

Json parsed(const fs::path& path) {
  std::ifstream in(path);
  return Json::parse(in);
}

// All but the weights, as opening the folder finds them.
Model folder(const fs::path& path) {
  Model model;
  model.path = path;
  model.is_folder = true;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_regular_file() && entry.path().extension() != ".safetensors")
      model.side.push_back({entry.path().filename(), open_file(entry.path())});
  return model;
}

struct Golden {
  std::string_view name, architecture, hf_class;
  TokenizerPath path;
};
constexpr std::array kModels{
    Golden{"llama3-tiny", "llama", "LlamaForCausalLM", TokenizerPath::SentencePieceElseBpe},
    Golden{"mistral-tiny", "llama", "MistralForCausalLM", TokenizerPath::SentencePieceElseBpe},
    Golden{"qwen2-tiny", "qwen2", "Qwen2ForCausalLM", TokenizerPath::SentencePieceElseBpe},
    Golden{"qwen3-tiny", "qwen3", "Qwen3ForCausalLM", TokenizerPath::Bpe},
    Golden{"gemma2-tiny", "gemma2", "Gemma2ForCausalLM", TokenizerPath::SentencePiece},
    Golden{"gemma3-tiny", "gemma3", "Gemma3ForCausalLM", TokenizerPath::SentencePieceElseBpe},
    Golden{"mixtral-tiny", "llama", "MixtralForCausalLM", TokenizerPath::SentencePiece},
    Golden{"gpt2-tiny", "gpt2", "GPT2LMHeadModel", TokenizerPath::Bpe},
    Golden{"qwen2moe-tiny", "qwen2moe", "Qwen2MoeForCausalLM", TokenizerPath::Bpe},
    Golden{"granite-tiny", "granite", "GraniteForCausalLM", TokenizerPath::SentencePieceElseBpe},
    Golden{"deepseek2-tiny", "deepseek2", "DeepseekV2ForCausalLM", TokenizerPath::Bpe},
    Golden{"phi3-tiny", "phi3", "Phi3ForCausalLM", TokenizerPath::SentencePiece}};

Json to_json(const MetaValue& value) {
  return std::visit(
      [](const auto& x) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(x)>, MetaArray>) {
          Json out = Json::array();
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
std::string type_name(const MetaValue& value) {
  const auto* array = std::get_if<MetaArray>(&value);
  return array ? fmt::format("arr[{}]", name_of(array->of)) : std::string(name_of(type_of(value)));
}

struct Added {
  Metadata meta;
  std::vector<std::string> notes;
};
Added add(const Model& model, const Json& config, const TokenizerWish& wish) {
  Added out;
  add_tokenizer(model, config, wish, out.meta, out.notes);
  return out;
}

TEST_CASE("Every tokenizer key of the reference converter is reproduced, with type and place",
          "[hf_tokenizer]") {
  for (const Golden& golden : kModels) {
    CAPTURE(golden.name);
    const fs::path root = kGolden / golden.name;
    const Json expected = parsed(root / "expected.json"), config = parsed(root / "hf/config.json");
    const Added got = add(folder(root / "hf"), config,
                          {golden.path,
                           golden.architecture,
                           golden.hf_class,
                           config["vocab_size"].get<std::uint64_t>(),
                           {}});
    std::vector<std::string> keys, wanted;
    for (const MetaEntry& e : got.meta) keys.push_back(e.key);
    for (const Json& key : expected["kv_order"])
      if (key.get<std::string>().starts_with("tokenizer.")) wanted.push_back(key);
    REQUIRE(keys == wanted);
    for (const MetaEntry& e : got.meta) {
      CAPTURE(e.key);
      CHECK(type_name(e.value) == expected["kv"][e.key]["type"]);
      CHECK(to_json(e.value) == expected["kv"][e.key]["value"]);
    }
    CHECK(got.notes == std::vector<std::string>());
  }
}

}  // namespace
}  // namespace wtool
