// The other kinds of tokenizers than byte-level BPE, special tokens, and chat templates.
#include <bit>
#include <filesystem>
#include <fstream>

#include "formats/hf/sentencepiece.h"
#include "lib/base/error.h"
#include "lib/trust/base64.h"
#include "tests/catch.h"
#include "tests/unit/hf_folder.h"
#include "tests/unit/temp_folder.h"

namespace wtool {
namespace {

using Json = nlohmann::json;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;

// Protobuf, written by hand.
std::string varint(std::uint64_t n) {
  std::string out;
  for (; n > 127; n >>= 7) out += static_cast<char>(n | 128);
  return out + static_cast<char>(n);
}
std::string field(unsigned number, std::string_view bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}
std::string field(unsigned number, std::uint64_t value) {
  return varint(number << 3) + varint(value);
}
std::string field(unsigned number, float value) {
  const auto bits = std::bit_cast<std::array<char, 4>>(value);
  return varint(number << 3 | 5) + std::string(bits.data(), 4);
}
std::string piece(std::string_view text, float score, unsigned type = 1) {
  return field(1,
               field(1, text) + field(2, score) + (type == 1 ? "" : field(3, std::uint64_t{type})));
}
const std::string kTrainerBpe = field(2, field(3, std::uint64_t{2}));
const std::string kPieces = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) +
                            piece("<0x41>", 0, 6) + piece("\u2581a", -1.5f) + piece("[X]", 0, 4) +
                            piece("old", 0, 5);

AddedKeys pieces(SideTexts files, std::uint64_t vocabulary = 9,
                 std::string_view architecture = "llama", const Json& config = Json::object()) {
  return added_keys(hf_folder(std::move(files)), config,
                    {TokenizerPath::SentencePieceElseBpe, architecture, "", vocabulary, ""});
}

TEST_CASE("A SentencePiece model is copied piece by piece", "[hf_tokenizer]") {
  const AddedKeys got = pieces({{"tokenizer.model", kPieces + kTrainerBpe}});
  CHECK(got["model"] == "llama");
  CHECK(got["pre"] == "default");
  CHECK(got["tokens"] ==
        Json({"<unk>", "<s>", "</s>", "<0x41>", "\u2581a", "[X]", "old", "[PAD7]", "[PAD8]"}));
  CHECK(got["scores"] == Json({0.0, 0.0, 0.0, 0.0, -1.5, 0.0, 0.0, -10000.0, -10000.0}));
  CHECK(got["token_type"] == Json({2, 3, 3, 6, 1, 1, 5, 5, 5}));
  CHECK(got.notes == Strings());
  CHECK_THAT(pieces({{"tokenizer.model", kPieces}}).notes.at(0), Contains("is no BPE model"));
}

TEST_CASE("Added tokens replace pieces, in the order of the files", "[hf_tokenizer]") {
  const std::string decoder = R"({"added_tokens_decoder": {
    "1": {"content": "<s>", "special": true}, "5": {"content": "\u2581\u2581", "special": false},
    "7": {"content": "<|y|>", "special": false}, "9": {"content": "<far>", "special": true}}})";
  const SideTexts files{{"tokenizer.model", kPieces + kTrainerBpe},
                        {"added_tokens.json", R"({"<z>": 8, "<y>": 7})"},
                        {"tokenizer_config.json", decoder}};
  const AddedKeys got = pieces(files);
  CHECK(got["tokens"] ==
        Json({"<unk>", "<s>", "</s>", "<0x41>", "\u2581a", "  ", "old", "<|y|>", "<z>"}));
  CHECK(got["scores"] == Json({0.0, -1000.0, 0.0, 0.0, -1.5, -1000.0, 0.0, -1000.0, -1000.0}));
  CHECK(got["token_type"] == Json({2, 3, 3, 6, 1, 4, 5, 3, 4}));
  CHECK_THAT(
      got.notes.at(0),
      Contains("1 of the added tokens (9 is '<far>') left out: vocab_size in config.json is 9"));
  // Phi-3's are what the file says
  const AddedKeys phi = pieces(files, 9, "phi3");
  CHECK(phi["tokens"][5] == "\u2581\u2581");
  CHECK(phi["token_type"] == Json({2, 3, 3, 6, 1, 4, 5, 4, 4}));
  // of no other file than tokenizer.json
  const AddedKeys late = pieces(
      {{"tokenizer.model", kPieces + kTrainerBpe},
       {"tokenizer.json",
        R"({"added_tokens": [{"id": 7, "content": "<late>", "special": true}], "model": {"type": "BPE"}})"}});
  CHECK(late["tokens"][7] == "<late>");
  CHECK(late["token_type"][7] == 3);
}

TEST_CASE("More pieces than config.json has tokens are refused with both numbers",
          "[hf_tokenizer]") {
  CHECK_THROWS_WITH(pieces({{"tokenizer.model", kPieces}}, 6),
                    "folder/tokenizer.model: has 7 tokens, but vocab_size in config.json is 6");
  CHECK_THROWS_WITH(
      pieces({{"tokenizer.model", kPieces + piece("</s>", 0)}}),
      "folder/tokenizer.model: token '</s>' has two ids, 2 and 7: llama.cpp would abort");
}

TEST_CASE("A damaged SentencePiece model is refused at the byte", "[hf_tokenizer]") {
  const auto said = [](const std::string& bytes) -> std::string {
    try {
      read_sentencepiece(*from_memory("m", to_buffer(bytes)));
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::BadFile);
      return e.what();
    }
    return "";
  };
  CHECK(said(kPieces) == "");
  CHECK(said("") == "m: is an empty file");
  CHECK_THAT(said("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
             Contains("Git"));
  CHECK(said("\x08\x01") == "m: is no SentencePiece model");
  CHECK(said("\x0A\x7F") == "m: byte 2: what a length announces needs 127 bytes, but 0 are left");
  CHECK_THAT(said("\x0A" + std::string(12, '\xFF')), Contains("a number of more than 64 bits"));
  CHECK(said(piece("a", 0) + "\x0B") == "m: byte 10: wire type 3 is none of protobuf's");
  CHECK(said(piece("a\xFF", 0)) == "m: piece 0: its text is not UTF-8");
  CHECK(said(kPieces + piece("a", std::numeric_limits<float>::quiet_NaN())) ==
        "m: piece 7: its score is not finite");
  CHECK(said(piece("a", 0, 9)) == "m: piece 0: type 9 is none of 1 … 6");
  CHECK(said(piece("a", 0) + field(2, field(3, std::uint64_t{7}))) ==
        "m: model type 7 is none of 1 … 4");
  CHECK(said(piece(std::string(65537, 'a'), 0)) ==
        "m: piece 0: a text of 65537 bytes, wtool's limit is 65536");
  // Cut anywhere it is a shorter list of pieces, or an error.
  for (std::size_t n = 1; n < kPieces.size(); ++n)
    if (said(kPieces.substr(0, n)).empty())
      CHECK(read_sentencepiece(*from_memory("m", to_buffer(kPieces.substr(0, n)))).pieces.size() <
            7);
}

// "abab" could be merged as a+b first or b+a first: ranks decide, and with equal scores they are
// lost.
constexpr const char* kRanked = R"({
  "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
  "pre_tokenizer": null, "decoder": {"type": "Sequence"},
  "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
    "vocab": {"<unk>": 0, "<s>": 1, "<0x41>": 2, "a": 3, "b": 4, "ab": 5, "ba": 6, "aba": 7, "▁": 8, "far": 9},
    "merges": ["b a", "a b", "ab a", "a ba"]}})";

TEST_CASE("Without tokenizer.model a token's score is the rank of the first merge that makes it",
          "[hf_tokenizer]") {
  const AddedKeys got = pieces({{"tokenizer.json", kRanked}}, 10);
  CHECK(got["model"] == "llama");
  CHECK(got["scores"] == Json({-1000.0, -1000.0, 0.0, 0.0, 0.0, -1.0, 0.0, -2.0, 0.0, -5.0}));
  CHECK(got["token_type"] == Json({3, 3, 6, 1, 1, 1, 1, 1, 1, 1}));
  CHECK_THAT(got.notes.at(0), Contains("scores from merge ranks"));
  CHECK_THAT(got.notes.at(1), Contains("no merge makes 1 of the tokens"));
  CHECK(got["add_space_prefix"].is_null());
  Json bare = Json::parse(kRanked);
  bare["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  CHECK(pieces({{"tokenizer.json", bare.dump()}}, 10)["add_space_prefix"] == false);
  bare["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}};
  CHECK(pieces({{"tokenizer.json", bare.dump()}}, 10)["add_space_prefix"].is_null());
  bare["pre_tokenizer"]["prepend_scheme"] = "never";
  CHECK(pieces({{"tokenizer.json", bare.dump()}}, 10)["add_space_prefix"] == false);
  // An alphabet of bytes is none of this, whatever it falls back on.
  bare["pre_tokenizer"] = {{"type", "ByteLevel"}};
  CHECK(pieces({{"tokenizer.json", bare.dump()}}, 10)["model"] == "gpt2");
}

TEST_CASE("Architectures have their habits", "[hf_tokenizer]") {
  const std::string turn = "<end_of_turn>";
  std::string many = kPieces;
  for (int i = 7; i < 107; ++i) many += piece("p" + std::to_string(i), 0);
  many += piece(turn, 0, 3) + kTrainerBpe;
  const AddedKeys gemma = pieces({{"tokenizer.model", many}}, 108, "gemma");
  CHECK(gemma["eot_token_id"] == 107);
  CHECK(gemma["add_space_prefix"] == false);
  CHECK(pieces({{"tokenizer.model", many}}, 108, "llama")["eot_token_id"].is_null());
  CHECK(pieces({{"tokenizer.model", kPieces}}, 49152)["add_bos_token"] == false);
  const SideTexts prefixed{{"tokenizer.model", kPieces},
                           {"tokenizer_config.json", R"({"add_prefix_space": true})"}};
  CHECK(pieces(prefixed)["add_space_prefix"] == true);
  CHECK(pieces(prefixed).meta.begin()->key == "tokenizer.ggml.add_space_prefix");
  CHECK(pieces(prefixed, 9, "qwen2")["add_space_prefix"].is_null());
  // Phi-4 has Phi-3's class and bytes.
  const SideTexts phi4{
      {"tokenizer.model", kPieces},
      {"tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer", "eos_token": "b"})"},
      {"tokenizer.json",
       R"({"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})"}};
  CHECK(pieces(phi4, 2, "phi3")["model"] == "gpt2");
}

TEST_CASE("Ends of texts that the reference leaves to a default are looked for", "[hf_tokenizer]") {
  const Json lists = Json::parse(
      R"({"eos_token_id": [4, 2], "bos_token_id": 1, "pad_token_id": -1, "unk_token_id": 99})");
  AddedKeys got = pieces({{"tokenizer.model", kPieces + kTrainerBpe}}, 9, "gemma2", lists);
  CHECK(got["eos_token_id"] == 4);
  CHECK(got["bos_token_id"] == 1);
  CHECK(got["padding_token_id"].is_null());
  CHECK(got["unknown_token_id"].is_null());
  CHECK_THAT(got.notes.at(0), Contains("unk_token_id: 99 is left out: there are 9 tokens"));
  CHECK_THAT(got.notes.at(1), Contains("eos_token_id: token 4"));
  got = pieces({{"tokenizer.model", kPieces + kTrainerBpe},
                {"tokenizer_config.json", R"({"eos_token": "</s>"})"}},
               9, "gemma2", lists);
  CHECK(got["eos_token_id"] == 2);
}

AddedKeys with_processor(const Json& processor, const std::string& config) {
  Json tokenizer = Json::parse(R"({"pre_tokenizer": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
  for (int i = 3; const char* text : {"<s>", "</s>", "<end>", "<sep>"})
    tokenizer["added_tokens"].push_back({{"id", i++}, {"content", text}, {"special", true}});
  tokenizer["post_processor"] = processor;
  return added_keys(
      hf_folder(SideTexts{{"tokenizer.json", tokenizer.dump()}, {"tokenizer_config.json", config}}),
      Json::object(), {TokenizerPath::Bpe, "gpt2", "", 7, ""});
}
Json special(const char* id) {
  return {{"SpecialToken", {{"id", id}}}};
}
Json sequence(const char* id) {
  return {{"Sequence", {{"id", id}}}};
}

TEST_CASE("What is put around a text follows from the template, then from what is said",
          "[hf_tokenizer]") {
  const std::string both =
      R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "sep_token": "<sep>"})";
  const auto of = [](Json single, Json pair) {
    return Json{
        {"type", "TemplateProcessing"}, {"single", std::move(single)}, {"pair", std::move(pair)}};
  };
  const Json a = sequence("A"), b = sequence("B"), s = special("<s>"), e = special("</s>"),
             x = special("<sep>");
  AddedKeys got = with_processor(of({s, a, e}, {s, a, e, b, e}), both);
  CHECK(got["add_bos_token"] == true);
  CHECK(got["add_eos_token"] == true);
  CHECK(got["add_sep_token"] == false);
  CHECK(got["eot_token_id"].is_null());
  CHECK(with_processor(of({s, a, e}, {s, a, e, x, b, e}), both)["add_sep_token"] == true);
  CHECK(with_processor(of({s, a}, {s, a, x, b}), both)["add_sep_token"] == true);
  CHECK(with_processor(of({s, a}, {s, a, s, b}), both)["add_sep_token"] == false);
  CHECK(with_processor(of({s, a}, {s, a, b}), both)["add_sep_token"].is_null());
  // what the template ends with ends a text; what was said to ends a turn
  got = with_processor(of({s, a, special("<end>")}, Json::array()), both);
  CHECK(got["eos_token_id"] == 5);
  CHECK(got["eot_token_id"] == 4);
  // the file has the last word
  got = with_processor(of({s, a, e}, Json::array()), R"({"bos_token": "<s>", "eos_token": "</s>",
                                                         "add_bos_token": false, "add_eos_token": false})");
  CHECK(got["add_bos_token"] == false);
  CHECK(got["add_eos_token"] == false);
  // one within a sequence of processors
  got = with_processor(
      {{"type", "Sequence"}, {"processors", {{{"type", "ByteLevel"}}, of({s, a}, Json::array())}}},
      "{}");
  CHECK(got["add_bos_token"] == true);
  CHECK(got["bos_token_id"] == 3);
  got = with_processor({{"type", "RobertaProcessing"}}, both);
  for (const char* key : {"add_bos_token", "add_eos_token", "add_sep_token"})
    CHECK(got[key] == true);
  CHECK(got["pre"] == "roberta-bpe");
  // without a token nothing is put anywhere
  got = with_processor(nullptr, R"({"add_bos_token": true, "eos_token": "</s>"})");
  CHECK(got["add_bos_token"] == false);
  CHECK_THAT(got.notes.at(0), Contains("there is no such token"));
  CHECK_THAT(with_processor(nullptr, "{}").notes.at(0), Contains("no end-of-text token"));
}

TEST_CASE("Words of WordPiece begin with a mark instead of going on with one", "[hf_tokenizer]") {
  const std::string words = R"({"added_tokens": [{"id": 0, "content": "[CLS]", "special": true},
    {"id": 1, "content": "[SEP]", "special": true}],
    "normalizer": {"type": "BertNormalizer", "lowercase": false, "strip_accents": null},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "model": {"type": "WordPiece", "continuing_subword_prefix": "##",
              "vocab": {"[CLS]": 0, "[SEP]": 1, "go": 2, "##ing": 3, "##": 4}}})";
  const auto add = [](SideTexts files) {
    files.emplace_back("tokenizer_config.json", R"({"cls_token": "[CLS]", "sep_token": "[SEP]"})");
    return added_keys(hf_folder(files), Json::parse(R"({"type_vocab_size": 2})"),
                      {TokenizerPath::WordPiece, "bert", "BertModel", 6, ""});
  };
  const AddedKeys got = add({{"tokenizer.json", words}});
  CHECK(got.meta.begin()->key == "tokenizer.ggml.token_type_count");
  CHECK(got["token_type_count"] == 2);
  CHECK(got["model"] == "bert");
  CHECK(got["tokens"] == Json({"[CLS]", "[SEP]", "\u2581go", "ing", "", "\u2581[PAD5]"}));
  CHECK(got["token_type"] == Json({3, 3, 1, 1, 1, 5}));
  CHECK(got["bos_token_id"] == 0);
  CHECK(got["eos_token_id"] == 1);
  CHECK(got["seperator_token_id"] == 1);
  CHECK(got["normalizer.lowercase"] == false);
  CHECK(got["normalizer.strip_accents"].is_null());
  CHECK(got.notes == Strings());
  CHECK(add({{"vocab.txt", "[CLS]\n[SEP]\ngo\n##ing\n##\n"}})["tokens"] == got["tokens"]);
  Json other = Json::parse(words);
  other["model"]["continuing_subword_prefix"] = "@@";
  CHECK_THROWS_WITH(add({{"tokenizer.json", other.dump()}}),
                    Contains("'@@', but in llama.cpp with '##'"));
}

TEST_CASE("Unigram comes with its scores and its table of characters", "[hf_tokenizer]") {
  const Buffer table{std::byte{2}, std::byte{0}, std::byte{0}, std::byte{0},
                     std::byte{1}, std::byte{1}, std::byte{7}};
  Json tokenizer = Json::parse(R"({"added_tokens": [{"id": 0, "content": "<s>", "special": true},
    {"id": 3, "content": "<mask>", "special": true}],
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"},
                      {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true}]},
    "model": {"type": "Unigram", "unk_id": 1, "vocab": [["<s>", 0.0], ["<unk>", 0.0], ["▁a", -2.5]]}})");
  tokenizer["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(table)}};
  const auto add = [](const Json& json) {
    return added_keys(hf_folder(SideTexts{{"tokenizer.json", json.dump()}}), Json::object(),
                      {TokenizerPath::WordPiece, "bert", "XLMRobertaModel", 5, ""});
  };
  const AddedKeys got = add(tokenizer);
  CHECK(got["model"] == "t5");
  CHECK(got["tokens"] == Json({"<s>", "<unk>", "\u2581a", "<mask>", "[PAD4]"}));
  CHECK(got["scores"] == Json({0.0, 0.0, -2.5, 0.0, -10000.0}));
  CHECK(got["token_type"] == Json({3, 2, 1, 3, 5}));
  CHECK(got["add_space_prefix"] == true);
  CHECK(got["remove_extra_whitespaces"] == true);
  CHECK(got["precompiled_charsmap"] == Json({2, 0, 0, 0, 1, 1, 7}));
  tokenizer["normalizer"]["precompiled_charsmap"] = "!";
  CHECK_THROWS_WITH(add(tokenizer), Contains("is not base64"));
  tokenizer["normalizer"]["precompiled_charsmap"] = to_base64(as_bytes("\x7F\1\1\1\1"));
  CHECK_THROWS_WITH(add(tokenizer), Contains("has 5 bytes, but announces a table of 16843135"));
  tokenizer["normalizer"] = nullptr;
  tokenizer["model"]["vocab"][2][1] = 1e99;
  CHECK_THROWS_WITH(add(tokenizer), Contains("is no f32"));
  tokenizer["model"]["vocab"][2] = {"x"};
  CHECK_THROWS_WITH(add(tokenizer), Contains("a token without a score"));
}

TEST_CASE("XLM-RoBERTa's model file is put into the order of its own", "[hf_tokenizer]") {
  const std::string file =
      kPieces + field(3, field(3, std::uint64_t{0}) + field(4, std::uint64_t{1}));
  const auto add = [](const std::string& bytes) {
    return added_keys(hf_folder(SideTexts{{"sentencepiece.bpe.model", bytes}}), Json::object(),
                      {TokenizerPath::WordPiece, "bert", "XLMRobertaModel", 9, ""});
  };
  const AddedKeys got = add(file);
  CHECK(got["tokens"] ==
        Json({"<s>", "<pad>", "</s>", "<unk>", "<0x41>", "\u2581a", "[X]", "old", "<mask>"}));
  CHECK(got["token_type"] == Json({3, 3, 3, 2, 6, 1, 1, 5, 3}));
  CHECK(got["add_space_prefix"] == false);
  CHECK(got["remove_extra_whitespaces"] == true);
  CHECK(got["precompiled_charsmap"].is_null());
  CHECK_THROWS_WITH(add(kPieces + kTrainerBpe), Contains("is no Unigram model"));
  CHECK_THROWS_WITH(add(piece("a", 0)), Contains("has 1 pieces, fewer than the 3"));
}

TEST_CASE("A folder without a tokenizer is a matter of options", "[hf_tokenizer]") {
  const auto said = [](const SideTexts& files) -> std::pair<Fault, std::string> {
    try {
      pieces(files);
    } catch (const Error& e) {
      return {e.fault(), e.what() + std::string("|") + e.hint()};
    }
    return {Fault::Internal, ""};
  };
  CHECK(said({}) ==
        std::pair(Fault::Usage, std::string("folder: no tokenizer: neither tokenizer.json nor "
                                            "tokenizer.model|--no-vocab leaves it out")));
  CHECK(said({{"tekken.json", "{}"}}).first == Fault::Unsupported);
  const auto other =
      said({{"tokenizer.json", R"({"model": {"type": "WordLevel", "vocab": {"a": 0}}})"}});
  CHECK(other.first == Fault::Unsupported);
  CHECK_THAT(other.second, Contains("of the kind 'WordLevel'"));
}

AddedKeys with_templates(SideTexts files) {
  files.emplace_back("tokenizer.model", kPieces);
  return pieces(std::move(files));
}

TEST_CASE("A chat template is found in each of its places", "[hf_tokenizer]") {
  constexpr const char* kKey = "tokenizer.chat_template";
  const auto config = [](const Json& value) {
    return std::pair<std::string, std::string>("tokenizer_config.json",
                                               Json{{"chat_template", value}}.dump());
  };
  const std::pair<std::string, std::string> jinja("chat_template.jinja", "file\r\nline\r"),
      json("chat_template.json", R"({"chat_template": "json"})");
  CHECK(with_templates({config("said")})[kKey] == "said");
  CHECK(with_templates({config("said"), jinja, json})[kKey] == "said");
  CHECK(with_templates({config(nullptr), jinja, json})[kKey] == "file\nline\n");
  CHECK(with_templates({jinja})[kKey] == "file\nline\n");
  CHECK(with_templates({json})[kKey] == "json");
  CHECK(with_templates({})[kKey].is_null());
  CHECK_THROWS_WITH(with_templates({{"chat_template.jinja", "\xFF"}}),
                    Contains("byte 0 is not UTF-8"));

  const AddedKeys several = with_templates({config(Json::parse(R"([
    {"name": "tool use", "template": "t"}, {"name": "default", "template": "d"}, {"name": "rägé", "template": "r"},
    {"name": "", "template": "x"}, {"name": "none"}])"))});
  CHECK(several[kKey] == "d");
  CHECK(several["tokenizer.chat_template.tool_use"] == "t");
  CHECK(several["tokenizer.chat_template.r_g_"] == "r");
  CHECK(several["tokenizer.chat_templates"] == Json({"tool_use", "r_g_"}));

  const TempFolder folder;
  std::filesystem::create_directory(folder.path / "additional_chat_templates");
  std::ofstream(folder / "additional_chat_templates/tool_use.jinja") << "tools";
  std::ofstream(folder / "additional_chat_templates/readme.md") << "no";
  std::ofstream(folder / "chat_template.jinja") << "main";
  std::ofstream(folder / "tokenizer.model", std::ios::binary) << kPieces;
  const AddedKeys files = added_keys(hf_folder(folder.path), Json::object(),
                                     {TokenizerPath::SentencePiece, "llama", "", 9, ""});
  CHECK(files[kKey] == "main");
  CHECK(files["tokenizer.chat_template.tool_use"] == "tools");
  CHECK(files["tokenizer.chat_templates"] == Json({"tool_use"}));
}

}  // namespace
}  // namespace wtool
