#include "formats/hf/back_pre.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "formats/hf/pretokenizer.h"
#include "lib/base/json_reader.h"

namespace wtool {
namespace {

// Names that llama.cpp v0.5.0 (llama-vocab.cpp) splits at as at another.
struct Alias {
  std::string_view name, like;
};
constexpr std::array kAliases{Alias{"llama3", "llama-bpe"},
                              Alias{"llama-v3", "llama-bpe"},
                              Alias{"falcon3", "llama-bpe"},
                              Alias{"falcon-h1", "llama-bpe"},
                              Alias{"pixtral", "llama-bpe"},
                              Alias{"midm-2.0", "llama-bpe"},
                              Alias{"lfm2", "llama-bpe"},
                              Alias{"jina-v5-nano", "llama-bpe"},
                              Alias{"smaug-bpe", "dbrx"},
                              Alias{"glm4", "dbrx"},
                              Alias{"chatglm-bpe", "dbrx"},
                              Alias{"deepseek-r1-qwen", "qwen2"},
                              Alias{"hunyuan", "qwen2"},
                              Alias{"solar-open", "qwen2"},
                              Alias{"stablelm2", "qwen2"},
                              Alias{"megrez", "qwen2"},
                              Alias{"llama4", "gpt-4o"},
                              Alias{"kanana2", "gpt-4o"},
                              Alias{"minimax-m2", "gpt-4o"},
                              Alias{"phi-2", "gpt-2"},
                              Alias{"jina-es", "gpt-2"},
                              Alias{"jina-de", "gpt-2"},
                              Alias{"mpt", "gpt-2"},
                              Alias{"olmo", "gpt-2"},
                              Alias{"exaone4", "gpt-2"},
                              Alias{"refact", "starcoder"},
                              Alias{"codeshell", "starcoder"},
                              Alias{"exaone", "starcoder"},
                              Alias{"minerva-7b", "starcoder"},
                              Alias{"mellum2", "starcoder"},
                              Alias{"smollm", "starcoder"},
                              Alias{"command-r", "starcoder"}};

constexpr std::array<std::string_view, 17> kLeavesSpaces{
    "deepseek-llm", "deepseek-coder", "deepseek-v3", "qwen2",  "deepseek-r1-qwen", "qwen35",
    "command-r",    "smollm",         "tekken",      "gpt-4o", "llama4",           "kanana2",
    "hunyuan",      "solar-open",     "minimax-m2",  "viking", "poro-chat"};

std::string byte_level(bool add_prefix_space, bool words) {
  return fmt::format(
      R"({{"type": "ByteLevel", "add_prefix_space": {}, "trim_offsets": true, "use_regex": {}}})",
      add_prefix_space, words);
}

// One of the short forms of pre_tokenizer_steps().
std::string step_json(std::string_view step, bool add_prefix_space) {
  constexpr std::string_view kSplit = "split ", kPunctuation = "punctuation ";
  std::string out;
  if (step == "words") return byte_level(add_prefix_space, true);
  if (step == "digit") return R"({"type": "Digits", "individual_digits": true})";
  if (step == "digits") return R"({"type": "Digits", "individual_digits": false})";
  if (step.starts_with(kPunctuation)) {
    append_json(out, step.substr(kPunctuation.size()));
    return fmt::format(R"({{"type": "Punctuation", "behavior": {}}})", out);
  }
  append_json(out, step.substr(kSplit.size()));
  return fmt::format(
      R"({{"type": "Split", "pattern": {{"Regex": {}}}, "behavior": "Isolated", "invert": false}})",
      out);
}

}  // namespace

std::optional<BackPre> back_pre(std::string_view name, bool add_prefix_space) {
  const auto alias = std::ranges::find(kAliases, name, &Alias::name);
  const auto known =
      pre_tokenizer_steps_of(alias == kAliases.end() ? name : std::string_view(alias->like));
  if (!known) return std::nullopt;
  BackPre pre{.ignore_merges = known->ignore_merges,
              .adds_bos = pre_tokenizer_adds_bos(name),
              .cleans_spaces = std::ranges::find(kLeavesSpaces, name) == kLeavesSpaces.end(),
              .nfc = name == "qwen2",
              .pre_tokenizer = {}};
  std::size_t count = 0;
  bool bytes = false;  // the step that splits words by GPT-2's expression also makes bytes of them
  const auto add = [&](const std::string& json) {
    pre.pre_tokenizer += (count++ == 0 ? "" : ", ") + json;
  };
  for (std::string_view step : known->steps) {
    if (step.empty()) continue;
    bytes = bytes || step == "words";
    add(step_json(step, add_prefix_space));
  }
  if (!bytes) add(byte_level(add_prefix_space, false));
  if (count > 1)
    pre.pre_tokenizer =
        fmt::format(R"({{"type": "Sequence", "pretokenizers": [{}]}})", pre.pre_tokenizer);
  return pre;
}

}  // namespace wtool
