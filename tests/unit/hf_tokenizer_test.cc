// Tokenizers of Hugging Face folders, against what the reference converter made of the same folders
// (testdata/hf2gguf), and by hand where it has nothing to say.
#include <fstream>

#include <fmt/format.h>

#include "formats/hf/pretokenizer.h"
#include "lib/base/error.h"
#include "lib/trust/base64.h"
#include "tests/catch.h"
#include "tests/unit/hf_folder.h"
#include "tests/unit/temp_folder.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;

const fs::path kGolden = fs::path(WTOOL_SOURCE_DIR) / "testdata/hf2gguf";

Json parsed(const fs::path& path) {
  std::ifstream in(path);
  return Json::parse(in);
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

std::string type_name(const MetaValue& value) {
  const auto* array = std::get_if<MetaArray>(&value);
  return array ? fmt::format("arr[{}]", name_of(array->of)) : std::string(name_of(type_of(value)));
}

TEST_CASE("Every tokenizer key of the reference converter is reproduced, with type and place",
          "[hf_tokenizer]") {
  for (const Golden& golden : kModels) {
    CAPTURE(golden.name);
    const fs::path root = kGolden / golden.name;
    const Json expected = parsed(root / "expected.json"), config = parsed(root / "hf/config.json");
    const AddedKeys got = added_keys(hf_folder(root / "hf"), config,
                                     {golden.path,
                                      golden.architecture,
                                      golden.hf_class,
                                      config["vocab_size"].get<std::uint64_t>(),
                                      {}});
    Strings keys, wanted;
    for (const MetaEntry& e : got.meta) keys.push_back(e.key);
    for (const Json& key : expected["kv_order"])
      if (key.get<std::string>().starts_with("tokenizer.")) wanted.push_back(key);
    REQUIRE(keys == wanted);
    for (const MetaEntry& e : got.meta) {
      CAPTURE(e.key);
      CHECK(type_name(e.value) == expected["kv"][e.key]["type"].get<std::string>());
      CHECK(got[e.key] == expected["kv"][e.key]["value"]);
    }
    CHECK(got.notes == Strings());
  }
}

// A tokenizer.json to change things in.
Json byte_level() {
  return Json::parse(R"({
    "added_tokens": [{"id": 5, "content": "<s>", "special": true},
                     {"id": 6, "content": "</s>", "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": null,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4},
              "merges": ["a b", "Ġ ab"]}
  })");
}
constexpr const char* kConfig = R"({"bos_token": "<s>", "eos_token": "</s>"})";

AddedKeys bpe(const Json& tokenizer, const std::string& tokenizer_config = kConfig,
              std::uint64_t vocabulary = 7, const std::string& pre = "",
              std::string_view architecture = "qwen3") {
  return added_keys(hf_folder({{"tokenizer.json", tokenizer.dump()},
                               {"tokenizer_config.json", tokenizer_config}}),
                    Json::object(), {TokenizerPath::Bpe, architecture, "", vocabulary, pre});
}

TEST_CASE("Ids that no token has are unused padding, whatever their number", "[hf_tokenizer]") {
  Json tokenizer = byte_level();
  tokenizer["added_tokens"][1]["id"] = 8;
  const AddedKeys got = bpe(tokenizer, kConfig, 10);
  CHECK(got["tokens"] ==
        Json({"a", "b", "Ġ", "ab", "Ġab", "<s>", "[PAD6]", "[PAD7]", "</s>", "[PAD9]"}));
  CHECK(got["token_type"] == Json({1, 1, 1, 1, 1, 3, 5, 5, 3, 5}));
  CHECK(got["eos_token_id"] == 8);
  CHECK(bpe(tokenizer, kConfig, 0)["tokens"].size() == 9);  // config.json does not say how many
}

TEST_CASE("Added tokens may stand in any order, and say what kind they are", "[hf_tokenizer]") {
  Json tokenizer = byte_level();
  tokenizer["added_tokens"] = Json::parse(R"([
    {"id": 8, "content": "▁▁", "special": false}, {"id": 7, "content": "<|x|>", "special": false},
    {"id": 6, "content": "</s>", "special": true}, {"id": 5, "content": "plain", "special": false},
    {"id": 3, "content": "ab", "special": true}])");
  const AddedKeys got = bpe(tokenizer, R"({"eos_token": {"content": "</s>"}, "unk_token": "b",
    "added_tokens_decoder": {"5": {"content": "plain", "special": true}}})",
                            9);
  CHECK(got["tokens"] == Json({"a", "b", "Ġ", "ab", "Ġab", "plain", "</s>", "<|x|>", "  "}));
  // "b" is named as a special token, tokenizer_config.json says that "plain" is one
  CHECK(got["token_type"] == Json({1, 3, 1, 3, 1, 3, 3, 3, 4}));
  CHECK(got["eos_token_id"] == 6);
}

TEST_CASE("Merges are pairs, lines, or lines of merges.txt", "[hf_tokenizer]") {
  Json tokenizer = byte_level();
  const Json lines{"a b", "Ġ ab"};
  CHECK(bpe(tokenizer)["merges"] == lines);
  tokenizer["model"]["merges"] = Json::parse(R"([["a", "b"], ["Ġ", "ab"]])");
  CHECK(bpe(tokenizer)["merges"] == lines);
  tokenizer["model"]["merges"] = Json::parse(R"([["a ", "b"]])");
  CHECK(bpe(tokenizer)["merges"] == Json({"aĠ b"}));
  tokenizer["model"]["merges"] = Json::array();
  const AddedKeys got = added_keys(hf_folder({{"tokenizer.json", tokenizer.dump()},
                                              {"merges.txt", "#version: 0.2\na b\r\n\nĠ ab\n"}}),
                                   Json::object(), {TokenizerPath::Bpe, "gpt2", "", 7, ""});
  CHECK(got["merges"] == lines);
  tokenizer["model"]["merges"] = Json::parse(R"(["a b c"])");
  CHECK_THROWS_WITH(bpe(tokenizer), Contains("merge 0 is 'a b c', not two parts"));
  tokenizer["model"]["merges"] = Json::parse(R"([["a", "b", "c"]])");
  CHECK_THROWS_WITH(bpe(tokenizer), Contains("merge 0 has more than two parts"));
  tokenizer["model"]["merges"] = Json::parse(R"([["a"]])");
  CHECK_THROWS_WITH(bpe(tokenizer), Contains("merge 0 lacks a part"));
}

TEST_CASE("vocab.json and merges.txt are taken where there is no tokenizer.json",
          "[hf_tokenizer]") {
  const auto add = [](const std::string& tokenizer_class, const std::string& pre = "") {
    return added_keys(
        hf_folder({{"vocab.json", R"({"a": 0, "b": 1, "ab": 2})"},
                   {"merges.txt", "#version: 0.2\na b\n"},
                   {"added_tokens.json", R"({"<|x|>": 4, "y": 3})"},
                   {"tokenizer_config.json", Json{{"tokenizer_class", tokenizer_class}}.dump()}}),
        Json::parse(R"({"eos_token_id": 4})"), {TokenizerPath::Bpe, "qwen2", "", 5, pre});
  };
  const AddedKeys got = add("Qwen2Tokenizer");
  CHECK(got["pre"] == "qwen2");
  CHECK(got["tokens"] == Json({"a", "b", "ab", "y", "<|x|>"}));
  CHECK(got["token_type"] == Json({1, 1, 1, 4, 3}));
  CHECK(got["merges"] == Json({"a b"}));
  CHECK(add("Other", "falcon")["pre"] == "falcon");
  CHECK_THROWS_WITH(add("Other"), Contains("tokenizer_class is 'Other'"));
}

TEST_CASE("What contradicts itself or config.json is refused with both sides", "[hf_tokenizer]") {
  const auto said = [](const Json& tokenizer, const std::string& config = kConfig,
                       std::uint64_t vocabulary = 7) -> std::string {
    try {
      bpe(tokenizer, config, vocabulary);
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::BadFile);
      return e.what();
    }
    return "";
  };
  CHECK(said(byte_level(), kConfig, 6) ==
        "folder/tokenizer.json: has 7 tokens, but vocab_size in config.json is 6");
  CHECK(said(byte_level(), kConfig, std::uint64_t{1} << 40) ==
        "config.json: vocab_size: a vocabulary of 1099511627776 tokens, wtool's limit is 4194304");
  Json tokenizer = byte_level();
  tokenizer["model"]["vocab"]["c"] = 1;
  CHECK(said(tokenizer) == "folder/tokenizer.json: token id 1 is given to 'b' and to 'c'");
  tokenizer = byte_level();
  tokenizer["added_tokens"][0]["id"] = 1;
  CHECK(said(tokenizer) == "folder/tokenizer.json: token 1 is '<s>', but it is 'b' already");
  tokenizer = byte_level();
  tokenizer["added_tokens"][0]["content"] = "ab";
  CHECK(said(tokenizer) ==
        "folder/tokenizer.json: token 'ab' has two ids, 3 and 5: llama.cpp would abort");
  CHECK(said(byte_level(), R"({"added_tokens_decoder": {"5": {"content": "<x>"}}})") ==
        "folder/tokenizer_config.json: token 5 is '<x>', but it is '<s>' already");
  tokenizer = byte_level();
  tokenizer["added_tokens"][0].erase("id");
  CHECK_THAT(said(tokenizer), Contains("an added token without 'id'"));
  tokenizer = byte_level();
  tokenizer["model"]["vocab"]["c"] = -1;
  CHECK_THAT(said(tokenizer), Contains("a token's id is no unsigned integer"));
  tokenizer["model"]["vocab"]["c"] = 4194304;
  CHECK_THAT(said(tokenizer), Contains("token id 4194304, wtool's limit is 4194303"));
  tokenizer = byte_level();
  tokenizer["model"]["vocab"][std::string(65537, 'x')] = 9;
  CHECK_THAT(said(tokenizer), Contains("a token of 65537 bytes, wtool's limit is 65536"));
  tokenizer = byte_level();
  tokenizer.erase("model");
  CHECK(said(tokenizer) == "folder/tokenizer.json: has no 'model' with a vocabulary");
}

TEST_CASE("Files that are no JSON, too deep or too wide are refused", "[hf_tokenizer]") {
  const auto said = [](const std::string& text) -> std::string {
    try {
      added_keys(hf_folder({{"tokenizer.json", text}}), Json::object(),
                 {TokenizerPath::Bpe, "gpt2", "", 7, ""});
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::BadFile);
      return e.what();
    }
    return "";
  };
  CHECK_THAT(said(""), Contains("is an empty file"));
  CHECK_THAT(said("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
             Contains("Git"));
  CHECK_THAT(said(" {,"), Contains("JSON fault at byte 2"));
  CHECK_THAT(said("{\"a\": \"\xFF\"}"), Contains("UTF-8"));
  CHECK_THAT(said(R"({"pre_tokenizer": )" + std::string(200, '[')), Contains("levels deep"));
  CHECK_THAT(said(R"({"x": )" + std::string(200, '[')), Contains("levels deep"));
  std::string wide = R"({"post_processor": [0)";
  for (int i = 0; i < 70000; ++i) wide += ",0";
  CHECK_THAT(said(wide + "]}"), Contains("more than 65536 values"));
  const std::string whole = byte_level().dump();
  for (std::size_t n = 0; n < whole.size(); ++n) CHECK(!said(whole.substr(0, n)).empty());
}

// Says it has as many bytes as it likes.
class Huge : public Source {
 public:
  explicit Huge(std::uint64_t size) : size_(size) {}
  const std::string& name() const noexcept override { return name_; }
  std::uint64_t size() const noexcept override { return size_; }
  void read(std::uint64_t, MutableBytes) const override { FAIL("read"); }

 private:
  std::string name_ = "huge";
  std::uint64_t size_;
};

TEST_CASE("Files beyond the limits are refused unread", "[hf_tokenizer]") {
  const auto said = [](const std::string& name, std::uint64_t size) -> std::string {
    Model model = hf_folder(SideTexts{{"tokenizer.json", byte_level().dump()}});
    if (name == "tokenizer.json") model.side.clear();
    model.side.push_back({name, std::make_shared<Huge>(size)});
    try {
      added_keys(model, Json::object(), {TokenizerPath::SentencePiece, "llama", "", 7, ""});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const std::uint64_t mib = 1 << 20;
  CHECK(said("tokenizer.json", 128 * mib + 1) ==
        "huge: has 134217729 bytes, wtool's limit is 134217728");
  CHECK(said("tokenizer.model", 128 * mib + 1) ==
        "huge: has 134217729 bytes, wtool's limit is 134217728");
  CHECK(said("tokenizer_config.json", 16 * mib + 1) ==
        "huge: has 16777217 bytes, wtool's limit is 16777216");
  CHECK(said("added_tokens.json", 16 * mib + 1) ==
        "huge: has 16777217 bytes, wtool's limit is 16777216");
  CHECK(said("chat_template.jinja", 4 * mib + 1) ==
        "huge: has 4194305 bytes, wtool's limit is 4194304");
}

// The pre_tokenizer of public tokenizer.json files, as they are written there.
struct Split {
  std::string_view name;
  bool ignore_merges;
  const char* json;
};
const std::array kSplits{
    Split{"gpt-2", false,
          R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true})"},
    Split{"llama-bpe", true,
          R"x({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex":
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
      "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false,
      "trim_offsets": true, "use_regex": false}]})x"},
    Split{"dbrx", false,
          R"x({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex":
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
      "behavior": "Removed", "invert": true}, {"type": "ByteLevel", "add_prefix_space": false,
      "trim_offsets": true, "use_regex": false}]})x"},
    Split{"qwen35", false,
          R"x({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex":
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
      "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})x"},
    Split{"gpt-4o", false,
          R"x({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex":
      "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
      "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})x"},
    Split{"tekken", true,
          R"x({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex":
      "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
      "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})x"},
    Split{"deepseek-v3", false, R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "[一-龥぀-ゟ゠-ヿ]+"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex":
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"},
        "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})x"},
    Split{"deepseek-coder", false, R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "[\r\n]"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "\\s?\\p{L}+"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "\\s?\\p{P}+"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "[一-龥ࠀ-一가-퟿]+"}, "behavior": "Isolated", "invert": false},
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})x"},
    Split{"falcon", false, R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Punctuation", "behavior": "Contiguous"},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
      {"type": "Digits", "individual_digits": false},
      {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": false}]})x"},
    Split{"starcoder", false, R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]})x"},
    Split{"minicpm5", true, R"x({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex":
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}+| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
        "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "use_regex": false}]})x"},
    Split{"bailingmoe", false,
          R"x({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex":
      "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},
      "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "use_regex": false}]})x"},
    Split{"bloom", false, R"x({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern":
      {"Regex": " ?[^(\\s|[.,!?…。，、।۔،])]+"}, "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})x"}};

TEST_CASE("A pre-tokenizer is known by its steps, not by the vocabulary", "[hf_tokenizer]") {
  for (const Split& split : kSplits) {
    CAPTURE(split.name);
    Json tokenizer = byte_level();
    tokenizer["pre_tokenizer"] = Json::parse(split.json);
    tokenizer["model"]["ignore_merges"] = split.ignore_merges;
    const AddedKeys got = bpe(tokenizer);
    CHECK(got["pre"] == split.name);
    CHECK(got.notes == Strings());
    // llama.cpp would add the token for these
    CHECK(got["add_bos_token"] ==
          (split.name == "llama-bpe" || split.name == "tekken" ? Json(false) : Json()));
  }
}

TEST_CASE("What changes along with a pre-tokenizer's name is said", "[hf_tokenizer]") {
  Json tokenizer = byte_level();
  tokenizer["model"]["ignore_merges"] = true;
  CHECK_THAT(bpe(tokenizer).notes.at(0),
             Contains("ignore_merges is true, but llama.cpp's 'gpt-2' always merges"));
  tokenizer = byte_level();
  tokenizer["pre_tokenizer"]["add_prefix_space"] = true;
  CHECK_THAT(bpe(tokenizer).notes.at(0), Contains("add_prefix_space"));
  tokenizer = byte_level();
  tokenizer["normalizer"] = {{"type", "NFKC"}};
  CHECK_THAT(bpe(tokenizer).notes.at(0), Contains("the normalizer 'NFKC' is left out"));
  tokenizer["normalizer"] = Json::parse(
      R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]})");
  CHECK(bpe(tokenizer).notes == Strings());
  CHECK(bpe(tokenizer)["normalizer.lowercase"] == true);
  tokenizer["pre_tokenizer"] = Json::parse(kSplits[9].json);
  CHECK(bpe(tokenizer, R"({"eos_token": "</s>", "clean_up_tokenization_spaces": false})")["pre"] ==
        "smollm");
}

TEST_CASE("An unknown pre-tokenizer is refused by its regex, and --pre is the way out",
          "[hf_tokenizer]") {
  Json tokenizer = byte_level();
  tokenizer["pre_tokenizer"] = Json::parse(R"({"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "\\w+|x"}, "behavior": "Isolated"},
    {"type": "ByteLevel", "use_regex": false}]})");
  try {
    bpe(tokenizer);
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::Unsupported);
    CHECK(
        e.what() ==
        std::string(
            R"(folder/tokenizer.json: llama.cpp has no name for the pre-tokenizer 'split \w+|x', 'bytes')"));
    CHECK_THAT(e.hint(), Contains("--pre"));
  }
  CHECK(bpe(tokenizer, kConfig, 7, "qwen2")["pre"] == "qwen2");
  try {
    bpe(tokenizer, kConfig, 7, "quen2");
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::Usage);
    CHECK(e.hint() == "did you mean 'qwen2'?");
  }
  tokenizer["pre_tokenizer"] = nullptr;
  CHECK_THROWS_WITH(bpe(tokenizer), Contains("has no pre_tokenizer"));
  CHECK(std::ranges::is_sorted(known_pre_tokenizers()));
  for (const Split& split : kSplits)
    CHECK(std::ranges::find(known_pre_tokenizers(), split.name) != known_pre_tokenizers().end());
}

}  // namespace
}  // namespace wtool
