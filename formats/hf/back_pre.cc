// Facts from src/llama-vocab.cpp of llama.cpp v0.5.0, which quotes the expressions of each model's
// tokenizer.json, and from the public files of Llama 3, Qwen 2, GPT-2, Granite and DeepSeek V3.
#include "formats/hf/back_pre.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "lib/base/json_reader.h"

namespace wtool {
namespace {

using Names = std::string_view;

constexpr std::string_view kLlama3 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kQwen2 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kQwen35 =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kGpt4o =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kTekken =
    R"re([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";

constexpr std::array kLlama3Splits{kLlama3};
constexpr std::array kQwen2Splits{kQwen2};
constexpr std::array kQwen35Splits{kQwen35};
constexpr std::array kGpt4oSplits{kGpt4o};
constexpr std::array kTekkenSplits{kTekken};
constexpr std::array<std::string_view, 3> kDeepseek3Splits{
    R"re(\p{N}{1,3})re", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    R"re([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re"};

constexpr std::array<Names, 9> kLlama3Names{"llama-bpe", "llama3",    "llama-v3",
                                            "falcon3",   "falcon-h1", "pixtral",
                                            "midm-2.0",  "lfm2",      "jina-v5-nano"};
constexpr std::array<Names, 4> kMergedLlama3Names{"smaug-bpe", "dbrx", "glm4", "chatglm-bpe"};
constexpr std::array<Names, 1> kQwen2Names{"qwen2"};
constexpr std::array<Names, 3> kQwen2LikeNames{"deepseek-r1-qwen", "hunyuan", "solar-open"};
constexpr std::array<Names, 2> kCleanQwen2Names{"stablelm2", "megrez"};
constexpr std::array<Names, 1> kQwen35Names{"qwen35"};
constexpr std::array<Names, 4> kGpt4oNames{"gpt-4o", "llama4", "kanana2", "minimax-m2"};
constexpr std::array<Names, 1> kTekkenNames{"tekken"};
constexpr std::array<Names, 1> kDeepseek3Names{"deepseek-v3"};
constexpr std::array<Names, 7> kGpt2Names{"gpt-2", "phi-2", "jina-es", "jina-de",
                                          "mpt",   "olmo",  "exaone4"};
constexpr std::array<Names, 6> kDigitsNames{"starcoder", "refact",     "codeshell",
                                            "exaone",    "minerva-7b", "mellum2"};
constexpr std::array<Names, 2> kUncleanDigitsNames{"smollm", "command-r"};

constexpr std::array kRows{
    BackPre{
        .names = kLlama3Names, .splits = kLlama3Splits, .ignore_merges = true, .forces_bos = true},
    BackPre{.names = kMergedLlama3Names, .splits = kLlama3Splits},
    BackPre{.names = kQwen2Names, .splits = kQwen2Splits, .cleans_spaces = false, .nfc = true},
    BackPre{.names = kQwen2LikeNames, .splits = kQwen2Splits, .cleans_spaces = false},
    BackPre{.names = kCleanQwen2Names, .splits = kQwen2Splits},
    BackPre{.names = kQwen35Names, .splits = kQwen35Splits, .cleans_spaces = false, .nfc = true},
    BackPre{.names = kGpt4oNames, .splits = kGpt4oSplits, .cleans_spaces = false},
    BackPre{.names = kTekkenNames,
            .splits = kTekkenSplits,
            .ignore_merges = true,
            .forces_bos = true,
            .cleans_spaces = false},
    BackPre{.names = kDeepseek3Names, .splits = kDeepseek3Splits, .cleans_spaces = false},
    BackPre{.names = kGpt2Names, .splits = {}, .byte_level_regex = true},
    BackPre{.names = kDigitsNames, .splits = {}, .digits = true, .byte_level_regex = true},
    BackPre{.names = kUncleanDigitsNames,
            .splits = {},
            .digits = true,
            .byte_level_regex = true,
            .cleans_spaces = false}};

}  // namespace

const BackPre* back_pre(std::string_view name) noexcept {
  for (const BackPre& row : kRows)
    if (std::ranges::find(row.names, name) != row.names.end()) return &row;
  return nullptr;
}

std::string pre_tokenizer_json(const BackPre& pre, bool add_prefix_space) {
  std::string parts;
  if (pre.digits) parts += R"({"type": "Digits", "individual_digits": true}, )";
  for (std::string_view split : pre.splits) {
    parts += R"({"type": "Split", "pattern": {"Regex": )";
    append_json(parts, split);
    parts += R"(}, "behavior": "Isolated", "invert": false}, )";
  }
  const std::string bytes = fmt::format(
      R"({{"type": "ByteLevel", "add_prefix_space": {}, "trim_offsets": true, "use_regex": {}}})",
      add_prefix_space, pre.byte_level_regex);
  if (parts.empty()) return bytes;
  return fmt::format(R"({{"type": "Sequence", "pretokenizers": [{}{}]}})", parts, bytes);
}

}  // namespace wtool
