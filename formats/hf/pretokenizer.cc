#include "formats/hf/pretokenizer.h"

#include <algorithm>
#include <array>
#include <ranges>

#include <fmt/format.h>

#include "formats/hf/tokenizer.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

using Json = nlohmann::json;

// What llama.cpp v0.5.0 takes (llama-vocab.cpp), sorted.
constexpr std::array<std::string_view, 90> kNames{"a.x-4.0",
                                                  "afmoe",
                                                  "bailingmoe",
                                                  "bailingmoe2",
                                                  "bloom",
                                                  "chameleon",
                                                  "chatglm-bpe",
                                                  "codeshell",
                                                  "cohere2moe",
                                                  "command-r",
                                                  "dbrx",
                                                  "deepseek-coder",
                                                  "deepseek-llm",
                                                  "deepseek-r1-qwen",
                                                  "deepseek-v3",
                                                  "default",
                                                  "exaone",
                                                  "exaone-moe",
                                                  "exaone4",
                                                  "f2llmv2",
                                                  "falcon",
                                                  "falcon-h1",
                                                  "falcon3",
                                                  "gemma4",
                                                  "gigachat",
                                                  "glm4",
                                                  "gpt-2",
                                                  "gpt-4o",
                                                  "gpt3-finnish",
                                                  "granite-docling",
                                                  "granite-embed-multi-311m",
                                                  "granite-embed-multi-97m",
                                                  "grok-2",
                                                  "hunyuan",
                                                  "hunyuan-dense",
                                                  "hy_v4",
                                                  "jais",
                                                  "jais-2",
                                                  "jina-de",
                                                  "jina-es",
                                                  "jina-v1-en",
                                                  "jina-v2-code",
                                                  "jina-v2-de",
                                                  "jina-v2-es",
                                                  "jina-v5-nano",
                                                  "joyai-llm",
                                                  "kanana2",
                                                  "kimi-k2",
                                                  "kormo",
                                                  "laguna",
                                                  "lfm2",
                                                  "llada-moe",
                                                  "llama-bpe",
                                                  "llama-v3",
                                                  "llama3",
                                                  "llama4",
                                                  "megrez",
                                                  "mellum",
                                                  "mellum2",
                                                  "midm-2.0",
                                                  "minerva-7b",
                                                  "minicpm5",
                                                  "minimax-m2",
                                                  "modern-bert",
                                                  "mpt",
                                                  "olmo",
                                                  "phi-2",
                                                  "pixtral",
                                                  "poro-chat",
                                                  "qwen2",
                                                  "qwen35",
                                                  "refact",
                                                  "roberta-bpe",
                                                  "sarvam-moe",
                                                  "seed-coder",
                                                  "smaug-bpe",
                                                  "smollm",
                                                  "solar-open",
                                                  "spark2_5",
                                                  "stablelm2",
                                                  "starcoder",
                                                  "superbpe",
                                                  "talkie",
                                                  "tekken",
                                                  "tiny_aya",
                                                  "trillion",
                                                  "ufakzeka",
                                                  "viking",
                                                  "whitespace",
                                                  "youtu"};

// The regular expressions of the table below. Line ends in them are written as escapes here,
// whichever way a file has them.
constexpr std::string_view kWords3 =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kWords1 =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kWordsWithMarks =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
    R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// The same as kWords3: what is possessive could not have given anything back.
constexpr std::string_view kTiktoken100k =
    R"(split '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kTiktoken100kDigit =
    R"(split '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kWordsOfDigits =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+)"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedWords =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1})"
    R"(| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTurkishWords =
    R"(split [^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kJaisWords =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S))"
    R"(|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})";
constexpr std::string_view kExaoneWords =
    R"(split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kKimiWords =
    R"(split [\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTiktoken200k =
    R"(split [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"(split [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeekWords =
    R"(split [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
    R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kSparkWords =
    R"(split [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
    R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kThreeDigits = R"(split \p{N}{1,3})";
constexpr std::string_view kIdeographsAndKana = "split [一-龥\u3040-ゟ゠-ヿ]+",
                           kEastAsian = "split [一-龥ࠀ-一가-\uD7FF]+";
constexpr std::string_view kBloomWords = "split  ?[^(\\s|[.,!?…。，、।۔،])]+";
constexpr std::string_view kLetterTable =
    "split "
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-"
    "ᏽᲐ-"
    "ᲺᲽ-"
    "Ჿᴀ-"
    "ᴫᵫ-ᵷᵹ-ᶚḀ-"
    "ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-"
    "ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-"
    "𐳲𑢠-"
    "𑣟𞤀-"
    "𞥃]"
    "+";
constexpr std::string_view kBytes = "bytes", kGptWords = "words", kDigit = "digit";

// Which steps llama.cpp has a name for. Its own regular expressions are adaptations of those that
// the models' tokenizer.json spell out. The steps here are those of public files, word for word:
// Llama 3, dolma2 and Granite 4 (the first), Qwen2 and Qwen3, Qwen3.5, gpt-oss and MiniMax-M2
// (gpt-4o), Nemotron 3 and Voxtral (tekken), GPT-2, SmolLM2, StarCoder2, Refact and Command-R,
// DeepSeek V3/V4, Coder and V2, Falcon, BLOOM, Kimi, MiniCPM5, LLaDA (bailingmoe), Spark,
// Seed-Coder, Laguna, Cohere2. Those of jais-2, exaone-moe and ufakzeka are what llama.cpp quotes
// of them, and viking's, of which no file was at hand, what it does.
struct Known {
  std::string_view name;
  bool ignore_merges;  // a word that is a token is taken whole, as "ignore_merges": true has it
  std::array<std::string_view, 7> steps;  // as pre_tokenizer_steps() says them, less "bytes"
};
constexpr std::array kRows{
    Known{"llama-bpe", true, {kWords3}},
    Known{"dbrx", false, {kWords3}},
    Known{"llama-bpe", true, {kTiktoken100k}},
    Known{"dbrx", false, {kTiktoken100k}},
    Known{"qwen2", false, {kWords1}},
    Known{"qwen35", false, {kWordsWithMarks}},
    Known{"bailingmoe", false, {kTiktoken100kDigit}},
    Known{"seed-coder", false, {kSeedWords}},
    Known{"ufakzeka", false, {kTurkishWords}},
    Known{"jais-2", false, {kJaisWords}},
    Known{"exaone-moe", false, {kExaoneWords}},
    Known{"gpt-4o", false, {kTiktoken200k}},
    Known{"tiny_aya", false, {R"(split \d{1,3}(?=(?:\d{3})*\b))", kTiktoken200k}},
    Known{"tekken", true, {kTekken}},
    Known{"kimi-k2", false, {kKimiWords}},
    Known{"minicpm5", true, {kThreeDigits, kWordsOfDigits}},
    Known{"laguna", false, {R"(Split (?:\r?\n)+(?!\r?\n) MergedWithNext)", kWords1}},
    Known{"gpt-2", false, {kGptWords}},
    Known{"starcoder", false, {kDigit, kGptWords}},
    Known{"deepseek-v3", false, {kThreeDigits, kIdeographsAndKana, kDeepSeekWords}},
    Known{"spark2_5", false, {kThreeDigits, kIdeographsAndKana, kSparkWords, kDigit}},
    Known{"deepseek-coder",
          false,
          {R"(split [\r\n])", R"(split \s?\p{L}+)", R"(split \s?\p{P}+)", kEastAsian, kDigit}},
    Known{"deepseek-llm",
          false,
          {R"(split [\r\n])", kLetterTable, "split \\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
           R"(split \s+$)", kEastAsian, kDigit}},
    Known{
        "falcon", false, {"punctuation Contiguous", kGptWords, "digits", "split [0-9][0-9][0-9]"}},
    Known{"bloom", false, {kBloomWords}},
    Known{"viking", false, {kBloomWords, kDigit}}};

// Tokenizers of transformers that are made from vocab.json and merges.txt, and what they split by.
struct ClassRow {
  std::string_view tokenizer_class, name;
};
constexpr std::array kClasses{
    ClassRow{"GPT2Tokenizer", "gpt-2"},          ClassRow{"GPT2TokenizerFast", "gpt-2"},
    ClassRow{"RobertaTokenizer", "roberta-bpe"}, ClassRow{"RobertaTokenizerFast", "roberta-bpe"},
    ClassRow{"Qwen2Tokenizer", "qwen2"},         ClassRow{"Qwen2TokenizerFast", "qwen2"}};

// Those for which llama.cpp adds the beginning-of-text token without being told.
constexpr std::array<std::string_view, 13> kAddBos{"llama3",
                                                   "llama-v3",
                                                   "llama-bpe",
                                                   "falcon3",
                                                   "falcon-h1",
                                                   "pixtral",
                                                   "midm-2.0",
                                                   "lfm2",
                                                   "jina-v5-nano",
                                                   "tekken",
                                                   "chameleon",
                                                   "gemma4",
                                                   "granite-embed-multi-311m"};

std::string with_escapes(std::string_view regex) {
  std::string out;
  for (const char c : regex)
    if (c == '\r')
      out += "\\r";
    else if (c == '\n')
      out += "\\n";
    else
      out += c;
  return out;
}

std::string split_step(const Json& step) {
  const Json* pattern = member(step, "pattern");
  const std::string_view regex = pattern ? text_of(member(*pattern, "Regex")) : "";
  const std::string_view behavior = text_of(member(step, "behavior"));
  const bool invert = flag_of(member(step, "invert"), false);
  // With 'invert' what does not match is removed, and these expressions match everything.
  if (!regex.empty() && (behavior == "Isolated" || (behavior == "Removed" && invert)))
    return "split " + with_escapes(regex);
  const std::string_view text = pattern ? text_of(member(*pattern, "String")) : "";
  return fmt::format("Split {} {}{}", regex.empty() ? text : regex, behavior,
                     invert ? " inverted" : "");
}

void add_steps(const Json& part, std::vector<std::string>& out) {
  const std::string_view type = text_of(member(part, "type"));
  if (type == "Sequence") {
    if (const Json* list = member(part, "pretokenizers"); list && list->is_array())
      for (const Json& p : *list) add_steps(p, out);
  } else if (type == "ByteLevel") {
    if (flag_of(member(part, "use_regex"), true)) out.emplace_back(kGptWords);
    out.emplace_back(kBytes);
  } else if (type == "Digits") {
    out.emplace_back(flag_of(member(part, "individual_digits"), false) ? kDigit : "digits");
  } else if (type == "Punctuation") {
    const std::string_view behavior = text_of(member(part, "behavior"));
    out.push_back(fmt::format("punctuation {}", behavior.empty() ? "Isolated" : behavior));
  } else if (type == "Split") {
    out.push_back(split_step(part));
  } else {
    out.emplace_back(type.empty() ? "a pre-tokenizer without a type" : type);
  }
}

bool prefixes_space(const Json& part) {
  if (const Json* list = member(part, "pretokenizers"); list && list->is_array())
    return std::ranges::any_of(*list, prefixes_space);
  return text_of(member(part, "type")) == "ByteLevel" &&
         flag_of(member(part, "add_prefix_space"), false);
}

bool same_steps(const Known& row, const std::vector<std::string>& steps) {
  return std::ranges::equal(steps,
                            row.steps | std::views::filter([](auto s) { return !s.empty(); }));
}

Error unknown(const TokenizerJson& json, const std::vector<std::string>& steps) {
  std::string list;
  for (const std::string& s : steps)
    list += fmt::format("{}{}", list.empty() ? "" : ", ", quoted(s));
  Error e(Fault::Unsupported,
          steps.empty() ? std::string("has no pre_tokenizer, and llama.cpp always splits by one")
                        : fmt::format("llama.cpp has no name for the pre-tokenizer {}", list));
  e.in(json.file).hint("--pre NAME takes one that is near enough: see the manual for the names");
  return e;
}

bool is_roberta(const Json& post) {
  if (const Json* list = member(post, "processors"); list && list->is_array())
    return std::ranges::any_of(*list, is_roberta);
  return text_of(member(post, "type")) == "RobertaProcessing";
}

// Names of the same split differ in what else they turn on.
std::string_view variant(std::string_view name, const TokenizerJson& json,
                         std::optional<bool> clean_up) {
  if (name == "gpt-2" && is_roberta(json.post_processor)) return "roberta-bpe";
  if (name == "starcoder" && clean_up == false) return "smollm";
  return name;
}

}  // namespace

std::span<const std::string_view> known_pre_tokenizers() noexcept {
  return kNames;
}

std::vector<std::string> pre_tokenizer_steps(const Json& pre_tokenizer) {
  std::vector<std::string> out;
  if (!pre_tokenizer.is_null()) add_steps(pre_tokenizer, out);
  return out;
}

std::string pre_tokenizer_name(const TokenizerJson& json, std::optional<bool> clean_up,
                               std::vector<std::string>& notes) {
  std::vector<std::string> steps = pre_tokenizer_steps(json.pre_tokenizer), split = steps;
  if (std::erase(split, kBytes) == 0) throw unknown(json, steps);
  const Known* found = nullptr;
  for (const Known& row : kRows)
    if (same_steps(row, split) && (!found || row.ignore_merges == json.ignore_merges)) found = &row;
  if (!found) throw unknown(json, steps);
  if (found->ignore_merges != json.ignore_merges)
    notes.push_back(fmt::format(
        "{}: ignore_merges is {}, but llama.cpp's {} {}: a few words may be split otherwise",
        json.file, json.ignore_merges, quoted(found->name),
        found->ignore_merges ? "takes words that are tokens whole" : "always merges"));
  if (prefixes_space(json.pre_tokenizer))
    notes.push_back(fmt::format(
        "{}: puts a space before a text (add_prefix_space), which llama.cpp does not", json.file));
  return std::string(variant(found->name, json, clean_up));
}

std::optional<PreTokenizerSteps> pre_tokenizer_steps_of(std::string_view name) noexcept {
  const auto row = std::ranges::find(kRows, name, &Known::name);
  if (row == kRows.end()) return std::nullopt;
  return PreTokenizerSteps{row->ignore_merges, row->steps};
}

std::string_view pre_tokenizer_of_class(std::string_view tokenizer_class) noexcept {
  const auto it = std::ranges::find(kClasses, tokenizer_class, &ClassRow::tokenizer_class);
  return it == kClasses.end() ? std::string_view() : it->name;
}

bool pre_tokenizer_adds_bos(std::string_view name) noexcept {
  return std::ranges::find(kAddBos, name) != kAddBos.end();
}

}  // namespace wtool
