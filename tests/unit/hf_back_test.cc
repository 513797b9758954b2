// The files of a Hugging Face folder from GGUF's metadata: against the folders of testdata/hf2gguf,
// of which the reference converter made that metadata.
#include <cmath>
#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include "formats/hf/back_files.h"
#include "formats/hf/tokenizer.h"
#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/unit/golden.h"

using namespace wtool;
using nlohmann::json;

namespace {

std::string slurp(const std::string& path) {
  return std::string(as_text(bytes_of(path)));
}
std::string folder(const std::string& model) {
  return WTOOL_SOURCE_DIR "/testdata/hf2gguf/" + model;
}
json original(const std::string& model, const std::string& file) {
  return json::parse(slurp(folder(model) + "/hf/" + file));
}

MetaArray array_from(MetaType of, const json& list) {
  std::vector<MetaValue> values;
  for (const json& v : list) switch (of) {
      case MetaType::String: values.emplace_back(v.get<std::string>()); break;
      case MetaType::I32: values.emplace_back(v.get<std::int32_t>()); break;
      case MetaType::F32: values.emplace_back(v.get<float>()); break;
      default: FAIL("an array of another type");
    }
  return array_of(of, values);
}

// The metadata that the reference converter gave the model.
Metadata metadata(const std::string& model) {
  const json expected = json::parse(slurp(folder(model) + "/expected.json"));
  Metadata meta;
  for (const std::string key : expected["kv_order"]) {
    const std::string type = expected["kv"][key]["type"];
    const json& value = expected["kv"][key]["value"];
    if (type == "str")
      meta.append(key, value.get<std::string>());
    else if (type == "bool")
      meta.append(key, value.get<bool>());
    else if (type == "u32")
      meta.append(key, value.get<std::uint32_t>());
    else if (type == "i32")
      meta.append(key, value.get<std::int32_t>());
    else if (type == "f32")
      meta.append(key, value.get<float>());
    else
      meta.append(key, array_from(*parse_meta_type(type.substr(4, type.size() - 5)), value));
  }
  return meta;
}

// What llama.cpp's converter makes of rope_scaling: sections of the formula as published by Meta.
std::vector<float> llama3_factors(double theta, int dim, double factor, double low, double high,
                                  double original) {
  std::vector<float> out;
  for (int i = 0; i < dim; i += 2) {
    const double frequency = 1.0 / std::pow(theta, i / static_cast<double>(dim));
    const double wavelength = 2 * 3.14159265358979323846 / frequency;
    double scaled = 1;
    if (wavelength > original / low) {
      scaled = factor;
    } else if (wavelength >= original / high) {
      const double smooth = (original / wavelength - low) / (high - low);
      scaled = 1 / ((1 - smooth) / factor + smooth);
    }
    out.push_back(static_cast<float>(scaled));
  }
  return out;
}

struct Made {
  std::map<std::string, std::string> files;
  std::vector<std::string> lost;

  json parsed(const std::string& name) const {
    INFO(name);
    REQUIRE(files.count(name) == 1);
    return json::parse(files.at(name));
  }
  bool tells(std::string_view part) const {
    for (const std::string& line : lost)
      if (line.find(part) != line.npos) return true;
    return false;
  }
};

Made made_of(const Metadata& meta, const BackFacts& facts) {
  const BackFiles back = back_files(meta, facts);
  Made made{.files = {}, .lost = back.lost};
  for (const SideFile& f : back.files) {
    CHECK(f.content->name() == f.name);
    made.files[f.name] = std::string(as_text(read_all({f.content, 0, f.content->size()})));
  }
  return made;
}

Made back_of(const std::string& model) {
  const json config = original(model, "config.json");
  const std::string hf_class = config["architectures"][0], model_type = config["model_type"],
                    dtype = config["torch_dtype"];
  std::vector<float> rope;
  if (model == "llama3-tiny") rope = llama3_factors(500000, 16, 8, 1, 4, 64);
  return made_of(metadata(model), {.hf_class = hf_class,
                                   .model_type = model_type,
                                   .tied = config["tie_word_embeddings"],
                                   .dtype = dtype,
                                   .rope_freqs = rope,
                                   .rope_long = {},
                                   .rope_short = {}});
}

std::string refusal(const Metadata& meta, Fault fault, std::string_view model_type = "llama") {
  try {
    back_files(meta, {.hf_class = "X",
                      .model_type = model_type,
                      .dtype = "bfloat16",
                      .rope_freqs = {},
                      .rope_long = {},
                      .rope_short = {}});
  } catch (const Error& e) {
    CHECK(e.fault() == fault);
    return e.what();
  }
  return "";
}

const std::vector<std::string> kByteLevel{"llama3-tiny", "qwen2-tiny", "qwen3-tiny",
                                          "qwen2moe-tiny", "granite-tiny"};
const std::vector<std::string> kSentencePiece{"mistral-tiny", "mixtral-tiny", "gemma2-tiny",
                                              "gemma3-tiny", "phi3-tiny"};

// Protobuf, as far as SentencePiece goes.
struct Field {
  unsigned number;
  std::uint64_t value = 0;
  std::string bytes;
};
std::vector<Field> fields_of(std::string_view s) {
  std::vector<Field> out;
  const auto varint = [&] {
    std::uint64_t n = 0;
    for (int shift = 0;; shift += 7) {
      REQUIRE(!s.empty());
      const auto c = static_cast<unsigned char>(s.front());
      s.remove_prefix(1);
      n |= std::uint64_t{c & 0x7FU} << shift;
      if (c < 0x80) return n;
    }
  };
  while (!s.empty()) {
    const std::uint64_t tag = varint();
    Field f{.number = static_cast<unsigned>(tag >> 3), .bytes = {}};
    if ((tag & 7) == 0) {
      f.value = varint();
    } else {
      const std::uint64_t size = (tag & 7) == 2 ? varint() : 4;
      REQUIRE(size <= s.size());
      f.bytes = s.substr(0, size);
      s.remove_prefix(size);
    }
    out.push_back(std::move(f));
  }
  return out;
}
struct Piece {
  std::string text;
  float score = 0;
  std::uint64_t type = 1;
};
struct SentencePiece {
  std::vector<Piece> pieces;
  std::map<unsigned, Field> trainer, normalizer;
};
SentencePiece sentencepiece(std::string_view bytes) {
  SentencePiece model;
  for (const Field& f : fields_of(bytes)) {
    if (f.number == 1) {
      Piece piece;
      for (const Field& g : fields_of(f.bytes)) {
        if (g.number == 1) piece.text = g.bytes;
        if (g.number == 2) piece.score = load<float>(as_bytes(g.bytes));
        if (g.number == 3) piece.type = g.value;
      }
      model.pieces.push_back(piece);
    } else {
      for (const Field& g : fields_of(f.bytes))
        (f.number == 2 ? model.trainer : model.normalizer)[g.number] = g;
    }
  }
  return model;
}

Metadata small_model(std::vector<MetaValue> tokens, std::vector<MetaValue> types) {
  Metadata meta;
  meta.set("general.architecture", std::string("llama"));
  for (const char* key : {"embedding_length", "feed_forward_length", "block_count",
                          "attention.head_count", "context_length"})
    meta.set("llama." + std::string(key), std::uint32_t{4});
  meta.set("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  meta.set("tokenizer.ggml.model", std::string("gpt2"));
  meta.set("tokenizer.ggml.pre", std::string("gpt-2"));
  meta.set("tokenizer.ggml.merges", array_of(MetaType::String, {}));
  meta.set("tokenizer.ggml.tokens", array_of(MetaType::String, tokens));
  meta.set("tokenizer.ggml.token_type", array_of(MetaType::I32, types));
  return meta;
}
Made small_made(const Metadata& meta) {
  return made_of(meta, {.hf_class = "LlamaForCausalLM",
                        .model_type = "llama",
                        .dtype = "float16",
                        .rope_freqs = {},
                        .rope_long = {},
                        .rope_short = {}});
}
MetaValue str(const char* s) {
  return std::string(s);
}

}  // namespace

TEST_CASE("back to HF: config.json says what the original said, but for what GGUF does not keep",
          "[hf_back]") {
  // Names whose values differ, or that are gone.
  const std::map<std::string, std::set<std::string>> kForgotten{
      {"llama3-tiny", {"eos_token_id"}},  // a list: GGUF keeps that of the tokenizer
      {"mistral-tiny", {}},
      {"mixtral-tiny", {"output_router_logits"}},
      {"qwen2-tiny", {"sliding_window", "max_window_layers"}},  // unused
      {"qwen2moe-tiny", {}},
      {"qwen3-tiny", {}},
      {"gemma2-tiny", {"cache_implementation"}},
      {"gemma3-tiny", {"eos_token_id", "rope_scaling"}},  // null
      {"granite-tiny", {}},
      {"phi3-tiny", {"rope_scaling"}}};  // null
  for (const auto& [model, forgotten] : kForgotten) {
    INFO(model);
    const json was = original(model, "config.json"), is = back_of(model).parsed("config.json");
    std::set<std::string> differ;
    for (const auto& [name, value] : was.items())
      if (!is.contains(name) || is[name] != value) differ.insert(name);
    CHECK(differ == forgotten);
  }
}

TEST_CASE("back to HF: an end of text is the one that GGUF keeps, and the others are told",
          "[hf_back]") {
  const Made llama = back_of("llama3-tiny"), gemma = back_of("gemma3-tiny");
  CHECK(llama.parsed("config.json")["eos_token_id"] == 308);
  CHECK(llama.tells("<|end_of_text|> (305)"));
  CHECK(gemma.parsed("config.json")["eos_token_id"] == 1);
  CHECK(gemma.tells("<end_of_turn> (365)"));
}

TEST_CASE("back to HF: generation_config.json has the values for sampling", "[hf_back]") {
  for (const std::string model : {"llama3-tiny", "qwen2-tiny"}) {
    INFO(model);
    const json was = original(model, "generation_config.json"),
               is = back_of(model).parsed("generation_config.json");
    for (const auto& [name, value] : was.items())
      if (name != "eos_token_id") CHECK(is.value(name, json()) == value);
    CHECK(is["do_sample"] == true);
  }
  CHECK(back_of("qwen3-tiny").files.count("generation_config.json") == 0);
}

TEST_CASE("back to HF: tokenizer.json has the original's tokens, merges and rules", "[hf_back]") {
  for (const std::string& model : kByteLevel) {
    INFO(model);
    const json was = original(model, "tokenizer.json"),
               is = back_of(model).parsed("tokenizer.json");
    CHECK(is["model"]["vocab"] == was["model"]["vocab"]);
    CHECK(is["model"]["ignore_merges"] == was["model"]["ignore_merges"]);
    CHECK(is["pre_tokenizer"] == was["pre_tokenizer"]);
    CHECK(is["normalizer"] == was["normalizer"]);
    CHECK(is["decoder"] == was["decoder"]);
    CHECK(is["added_tokens"] == was["added_tokens"]);
    std::vector<std::string> merges;
    for (const json& m : was["model"]["merges"])
      merges.push_back(m.is_string() ? m.get<std::string>()
                                     : m[0].get<std::string>() + " " + m[1].get<std::string>());
    CHECK(is["model"]["merges"] == json(merges));
  }
  const json was = original("llama3-tiny", "tokenizer.json");
  CHECK(back_of("llama3-tiny").parsed("tokenizer.json")["post_processor"] == was["post_processor"]);
  CHECK(back_of("qwen2-tiny").parsed("tokenizer.json")["post_processor"]["type"] == "ByteLevel");
  CHECK(back_of("qwen2-tiny").tells("NFC"));
}

TEST_CASE("back to HF: splits of all known names are made of steps", "[hf_back]") {
  const auto split = [](const char* name) {
    Metadata meta = small_model({str("a")}, {std::int32_t{1}});
    meta.set("tokenizer.ggml.pre", std::string(name));
    return small_made(meta).parsed("tokenizer.json")["pre_tokenizer"];
  };
  // As Falcon's own file has it: bytes are made once, in the middle.
  const json falcon = split("falcon")["pretokenizers"];
  REQUIRE(falcon.size() == 4);
  CHECK(falcon[0] == json{{"type", "Punctuation"}, {"behavior", "Contiguous"}});
  CHECK(falcon[1]["type"] == "ByteLevel");
  CHECK(falcon[1]["use_regex"] == true);
  CHECK(falcon[2] == json{{"type", "Digits"}, {"individual_digits", false}});
  CHECK(falcon[3]["pattern"]["Regex"] == "[0-9][0-9][0-9]");
  const json deepseek = split("deepseek-v3");
  CHECK(deepseek == original("deepseek2-tiny", "tokenizer.json")["pre_tokenizer"]);
  CHECK(split("phi-2") == original("gpt2-tiny", "tokenizer.json")["pre_tokenizer"]);
  CHECK(split("smaug-bpe") == split("llama-bpe"));
}

TEST_CASE("back to HF: tokenizer.model has the original's pieces, scores and types", "[hf_back]") {
  for (const std::string& model : kSentencePiece) {
    INFO(model);
    const SentencePiece was = sentencepiece(slurp(folder(model) + "/hf/tokenizer.model")),
                        is = sentencepiece(back_of(model).files.at("tokenizer.model"));
    // What follows the original's pieces are the tokens that tokenizer_config.json adds.
    const json added = original(model, "tokenizer_config.json")["added_tokens_decoder"];
    REQUIRE(is.pieces.size() >= was.pieces.size());
    for (std::size_t i = 0; i < is.pieces.size(); ++i) {
      INFO(i);
      const std::string id = std::to_string(i);
      const bool looks_special = is.pieces[i].text == "<mask>" || is.pieces[i].text == "<unused0>";
      if (i >= was.pieces.size()) {
        REQUIRE(added.contains(id));
        CHECK(is.pieces[i].text == added[id]["content"].get<std::string>());
        CHECK(is.pieces[i].type == 3);
        continue;
      }
      CHECK(is.pieces[i].text == was.pieces[i].text);
      CHECK(is.pieces[i].score == was.pieces[i].score);
      CHECK(is.pieces[i].type == (looks_special ? 3 : was.pieces[i].type));
    }
    CHECK(is.trainer.at(3).value == was.trainer.at(3).value);
    CHECK(is.trainer.at(4).value == is.pieces.size());
    CHECK(is.trainer.at(35).value == 1);
    CHECK(is.pieces[is.trainer.at(40).value].type == 2);
    CHECK(is.normalizer.at(3).value == was.normalizer.at(3).value);
    CHECK(is.normalizer.at(4).value == was.normalizer.at(4).value);
    CHECK(is.normalizer.at(5).value == was.normalizer.at(5).value);
  }
  const SentencePiece gemma = sentencepiece(back_of("gemma2-tiny").files.at("tokenizer.model")),
                      mistral = sentencepiece(back_of("mistral-tiny").files.at("tokenizer.model"));
  CHECK(gemma.trainer.at(40).value == 3);
  CHECK(gemma.trainer.at(41).value == 2);
  CHECK(gemma.trainer.at(42).value == 1);
  CHECK(gemma.trainer.at(43).value == 0);
  CHECK(gemma.trainer.at(46).bytes == "<bos>");
  CHECK(mistral.trainer.at(43).value == ~std::uint64_t{0});  // no padding: -1
}

TEST_CASE("back to HF: tokenizer_config.json has tokens, roles and the chat template",
          "[hf_back]") {
  for (const auto& models : {kByteLevel, kSentencePiece})
    for (const std::string& model : models) {
      INFO(model);
      const json was = original(model, "tokenizer_config.json"),
                 is = back_of(model).parsed("tokenizer_config.json");
      // Of phi3-tiny, config.json names another end of text, which GGUF keeps.
      const json kOtherEnd = model == "phi3-tiny" ? json("</s>") : json();
      CHECK(is["tokenizer_class"] == was["tokenizer_class"]);
      for (const char* role : {"eos_token", "unk_token", "pad_token"})
        if (was.contains(role) && !was[role].is_null() && was[role] != kOtherEnd)
          CHECK(is[role] == was[role]);
      json added = was["added_tokens_decoder"];
      for (auto& [id, token] : added.items())  // GGUF types these as control tokens
        if (token["content"] == "<mask>" || token["content"] == "<unused0>")
          token["special"] = true;
      CHECK(is["added_tokens_decoder"] == added);
      json text = was.value("chat_template", json());
      if (model == "qwen3-tiny") text = slurp(folder(model) + "/hf/chat_template.jinja");
      CHECK(is.value("chat_template", json()) == text);
      for (const char* flag : {"add_bos_token", "add_eos_token", "clean_up_tokenization_spaces"})
        if (was.contains(flag)) CHECK(is[flag] == was[flag]);
    }
}

TEST_CASE("back to HF: unused tokens at the end fill the embedding and are no tokens",
          "[hf_back]") {
  const Made qwen = back_of("qwen2-tiny"), phi = back_of("phi3-tiny");
  CHECK(qwen.parsed("config.json")["vocab_size"] == 320);
  CHECK(qwen.files.at("tokenizer.json").find("[PAD") == std::string::npos);
  CHECK(phi.parsed("config.json")["vocab_size"] == 384);
  CHECK(sentencepiece(phi.files.at("tokenizer.model")).pieces.size() == 353);

  // Converters of 2024 typed them unknown.
  Metadata old = small_model({str("a"), str("[PAD1]")}, {std::int32_t{1}, std::int32_t{2}});
  CHECK(small_made(old).parsed("tokenizer.json")["model"]["vocab"] == json{{"a", 0}});
}

TEST_CASE("back to HF: rope_scaling of Llama 3 follows from its factors", "[hf_back]") {
  struct Case {
    double theta;
    int dim;
    double factor, low, high, original;
  };
  for (const Case& c : {Case{500000, 128, 8, 1, 4, 8192}, Case{500000, 64, 32, 1, 4, 8192},
                        Case{1000000, 128, 16, 1, 8, 4096}, Case{10000, 80, 2, 1, 2.5, 2048}}) {
    INFO(c.factor);
    Metadata meta = small_model({str("a")}, {std::int32_t{1}});
    meta.set("llama.attention.key_length", static_cast<std::uint32_t>(c.dim));
    meta.set("llama.rope.freq_base", static_cast<float>(c.theta));
    const auto rope = llama3_factors(c.theta, c.dim, c.factor, c.low, c.high, c.original);
    const Made made = made_of(meta, {.hf_class = "LlamaForCausalLM",
                                     .model_type = "llama",
                                     .dtype = "float16",
                                     .rope_freqs = rope,
                                     .rope_long = {},
                                     .rope_short = {}});
    CHECK(made.parsed("config.json")["rope_scaling"] ==
          json{{"rope_type", "llama3"},
               {"factor", c.factor},
               {"low_freq_factor", c.low},
               {"high_freq_factor", c.high},
               {"original_max_position_embeddings", c.original}});
    CHECK(made.tells("low_freq_factor is taken to be 1"));
  }
}

TEST_CASE("back to HF: factors that no scaling gives are told, not approximated", "[hf_back]") {
  Metadata meta = small_model({str("a")}, {std::int32_t{1}});
  meta.set("llama.attention.key_length", std::uint32_t{16});
  const std::vector<float> wild{1, 1, 5, 2, 8, 3, 8, 8}, none(8, 1.0F);
  BackFacts facts{.hf_class = "LlamaForCausalLM",
                  .model_type = "llama",
                  .dtype = "float16",
                  .rope_freqs = wild,
                  .rope_long = {},
                  .rope_short = {}};
  const Made made = made_of(meta, facts);
  CHECK_FALSE(made.parsed("config.json").contains("rope_scaling"));
  CHECK(made.tells("rope_freqs.weight is not what any scaling"));
  facts.rope_freqs = none;
  CHECK_FALSE(made_of(meta, facts).parsed("config.json").contains("rope_scaling"));
  facts.rope_freqs = std::span(wild).first(4);
  CHECK_THROWS_WITH(back_files(meta, facts),
                    Catch::Contains("has 4 factors for heads of 16 elements"));
}

TEST_CASE("back to HF: linear and yarn scaling, and the two lists of phi3", "[hf_back]") {
  Metadata meta = small_model({str("a")}, {std::int32_t{1}});
  meta.set("llama.rope.scaling.type", std::string("linear"));
  CHECK(refusal(meta, Fault::BadFile).find("'llama.rope.scaling.factor' is missing") !=
        std::string::npos);
  meta.set("llama.rope.scaling.factor", 2.5F);
  CHECK(small_made(meta).parsed("config.json")["rope_scaling"] ==
        json{{"rope_type", "linear"}, {"factor", 2.5}});
  meta.set("llama.rope.scaling.type", std::string("yarn"));
  meta.set("llama.rope.scaling.original_context_length", std::uint32_t{32768});
  meta.set("llama.rope.scaling.yarn_beta_fast", 32.0F);
  CHECK(small_made(meta).parsed("config.json")["rope_scaling"] ==
        json{{"rope_type", "yarn"},
             {"factor", 2.5},
             {"original_max_position_embeddings", 32768},
             {"beta_fast", 32.0}});

  Metadata phi = metadata("phi3-tiny");
  phi.set("phi3.rope.scaling.original_context_length", std::uint32_t{128});
  phi.set("phi3.rope.scaling.attn_factor", 1.1338934F);  // sqrt(1 + ln 4 / ln 128)
  const std::vector<float> longs{1.08F, 1.1F, 1, 1, 1, 1, 1, 2}, shorts(8, 1.05F);
  const Made made = made_of(phi, {.hf_class = "Phi3ForCausalLM",
                                  .model_type = "phi3",
                                  .dtype = "bfloat16",
                                  .rope_freqs = {},
                                  .rope_long = longs,
                                  .rope_short = shorts});
  const json config = made.parsed("config.json");
  CHECK(config["original_max_position_embeddings"] == 128);
  CHECK(config["rope_scaling"] == json{{"type", "longrope"},
                                       {"long_factor", {1.08, 1.1, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0}},
                                       {"short_factor", std::vector<double>(8, 1.05)}});
  CHECK_FALSE(made.tells("attn_factor"));
}

TEST_CASE("back to HF: all keys that are missing are named at once", "[hf_back]") {
  Metadata meta = small_model({str("a")}, {std::int32_t{1}});
  meta.erase("llama.block_count");
  meta.erase("llama.attention.layer_norm_rms_epsilon");
  const std::string text = refusal(meta, Fault::BadFile);
  CHECK(text.find("'llama.block_count'") != std::string::npos);
  CHECK(text.find("'llama.attention.layer_norm_rms_epsilon'") != std::string::npos);
  CHECK(refusal(Metadata(), Fault::BadFile).find("general.architecture") != std::string::npos);
  CHECK(refusal(small_model({}, {}), Fault::Unsupported, "bloom").find("'bloom'") !=
        std::string::npos);
}

TEST_CASE("back to HF: keys that say what the class can't be told are refused", "[hf_back]") {
  const auto with = [](const char* key, std::uint32_t value) {
    Metadata meta = small_model({str("a")}, {std::int32_t{1}});
    meta.set(key, value);
    return meta;
  };
  CHECK(refusal(with("llama.rope.dimension_count", 3), Fault::Unsupported)
            .find("rotates 3 elements of 1") != std::string::npos);
  CHECK(refusal(with("llama.attention.value_length", 7), Fault::Unsupported)
            .find("keys of 1 elements and values of 7") != std::string::npos);
  CHECK(refusal(with("llama.attention.head_count", 3), Fault::BadFile)
            .find("is 4, which 3 heads can't share") != std::string::npos);
  CHECK(refusal(with("llama.attention.head_count", 0), Fault::BadFile) != "");
  Metadata meta = with("llama.vocab_size", 1);
  const std::vector<MetaValue> counts{std::uint32_t{4}, std::uint32_t{8}};
  meta.set("llama.feed_forward_length", array_of(MetaType::U32, counts));
  CHECK(refusal(meta, Fault::Unsupported).find("differs between layers (4 and 8)") !=
        std::string::npos);
}

TEST_CASE("back to HF: keys without a place are told", "[hf_back]") {
  Metadata meta = small_model({str("a")}, {std::int32_t{1}});
  meta.set("llama.attention.clamp_kqv", 8.0F);
  meta.set("tokenizer.ggml.prefix_token_id", std::uint32_t{0});
  meta.set("general.license", std::string("mit"));
  const Made made = small_made(meta);
  CHECK(made.tells("llama.attention.clamp_kqv"));
  CHECK(made.tells("tokenizer.ggml.prefix_token_id"));
  CHECK(made.tells("general.license"));
  CHECK_FALSE(made.tells("block_count"));
}

TEST_CASE("back to HF: tokens of any text are escaped, or refused if no text", "[hf_back]") {
  const std::string odd("a\0\n\"\\\x1b\x7f\xe2\x80\xae", 10);
  Metadata meta = small_model({odd, str("b"), str("<s>\"\n")},
                              {std::int32_t{1}, std::int32_t{1}, std::int32_t{3}});
  meta.set("tokenizer.ggml.bos_token_id", std::uint32_t{2});
  meta.set("tokenizer.ggml.add_bos_token", true);
  const Made made = small_made(meta);
  const json is = made.parsed("tokenizer.json");
  CHECK(is["model"]["vocab"][odd] == 0);
  CHECK(is["added_tokens"][0]["content"] == "<s>\"\n");
  CHECK(is["post_processor"]["processors"][1]["single"][0]["SpecialToken"]["id"] == "<s>\"\n");
  CHECK(made.parsed("tokenizer_config.json")["bos_token"] == "<s>\"\n");
  for (unsigned char c : made.files.at("tokenizer.json")) CHECK((c >= 0x20 || c == '\n'));

  meta = small_model({str("a"), str("\xff"), str("b")},
                     {std::int32_t{1}, std::int32_t{1}, std::int32_t{1}});
  CHECK(refusal(meta, Fault::BadFile).find("token 1") != std::string::npos);
}

TEST_CASE("back to HF: lists that contradict each other are refused", "[hf_back]") {
  const std::vector<MetaValue> two{std::int32_t{1}, std::int32_t{1}}, bad{std::int32_t{7}};
  const std::vector<MetaValue> nan{std::numeric_limits<float>::quiet_NaN()};
  Metadata meta = small_model({str("a")}, two);
  CHECK(refusal(meta, Fault::BadFile).find("has 2 elements for 1 tokens") != std::string::npos);
  CHECK(refusal(small_model({str("a")}, bad), Fault::BadFile).find("type 7") != std::string::npos);
  meta = small_model({str("a")}, {std::int32_t{1}});
  meta.set("tokenizer.ggml.scores", array_of(MetaType::F32, nan));
  CHECK(refusal(meta, Fault::BadFile).find("score of token 0") != std::string::npos);
  meta = small_model({str("a")}, {std::int32_t{1}});
  meta.set("tokenizer.ggml.eos_token_id", std::uint32_t{1});
  CHECK(refusal(meta, Fault::BadFile).find("is 1, of 1 tokens") != std::string::npos);
  meta.set("tokenizer.ggml.eos_token_id", std::uint32_t{0xFFFFFFFF});  // none
  CHECK(refusal(meta, Fault::BadFile) == "");
  meta.set("tokenizer.ggml.tokens", std::string("a"));
  CHECK(refusal(meta, Fault::BadFile).find("of type str, not arr") != std::string::npos);
}

TEST_CASE("back to HF: added tokens stay in the vocabulary where their ids would move",
          "[hf_back]") {
  const auto vocabulary = [](std::vector<MetaValue> tokens, std::vector<MetaValue> types) {
    return small_made(small_model(std::move(tokens), std::move(types)))
        .parsed("tokenizer.json")["model"]["vocab"];
  };
  const MetaValue one = std::int32_t{1}, control = std::int32_t{3}, unused = std::int32_t{5};
  CHECK(vocabulary({str("a"), str("<x>")}, {one, control}) == json{{"a", 0}});
  CHECK(vocabulary({str("<x>"), str("a")}, {control, one}) == json{{"<x>", 0}, {"a", 1}});
  CHECK(vocabulary({str("a"), str("[PAD1]"), str("<x>")}, {one, unused, control}) ==
        json{{"a", 0}, {"<x>", 2}});
  CHECK(vocabulary({str("a"), str("a"), str("<x>")}, {one, one, control}) ==
        json{{"a", 0}, {"<x>", 2}});
}

TEST_CASE("back to HF: of two tokens with one text an added one keeps it, and that is told",
          "[hf_back]") {
  const MetaValue one = std::int32_t{1}, control = std::int32_t{3};
  const Made made =
      small_made(small_model({str("<x>"), str("b"), str("<x>")}, {one, one, control}));
  CHECK(made.parsed("tokenizer.json")["model"]["vocab"] == json{{"b", 1}, {"<x>", 2}});
  CHECK(made.tells("a token is left out, since others have their text: 0 is '<x>'"));
}

TEST_CASE("back to HF: merges that the vocabulary does not bear out are left out, and counted",
          "[hf_back]") {
  const MetaValue one = std::int32_t{1};
  Metadata meta = small_model({str("a"), str("b"), str("ab")}, {one, one, one});
  const std::vector<MetaValue> merges{str("b a"), str("a b"), str("ab"), str("a b c")};
  meta.set("tokenizer.ggml.merges", array_of(MetaType::String, merges));
  const Made made = small_made(meta);
  CHECK(made.parsed("tokenizer.json")["model"]["merges"] == json{"a b"});
  CHECK(made.tells("3 of 4 merges left out"));
  CHECK(made.tells("'b a' of rank 0"));
}

TEST_CASE("back to HF: a tokenizer that can't be rebuilt is told, and the rest is made",
          "[hf_back]") {
  Metadata meta = small_model({str("a")}, {std::int32_t{1}});
  meta.set("tokenizer.ggml.pre", std::string("martian"));
  const Made unknown = small_made(meta);
  CHECK(unknown.files.count("tokenizer.json") == 0);
  CHECK(unknown.files.count("config.json") == 1);
  CHECK(unknown.tells("'martian'"));
  meta.set("tokenizer.ggml.model", std::string("bert"));
  CHECK(small_made(meta).tells("of kind 'bert'"));
  meta.set("tokenizer.ggml.model", std::string("llama"));
  CHECK(small_made(meta).tells("no token is the unknown one"));
  meta.erase("tokenizer.ggml.tokens");
  meta.erase("tokenizer.ggml.token_type");
  meta.erase("tokenizer.ggml.model");
  meta.set("llama.vocab_size", std::uint32_t{77});
  const Made none = small_made(meta);
  CHECK(none.parsed("config.json")["vocab_size"] == 77);
  CHECK(none.files.size() == 1);
}

TEST_CASE("back to HF: chat templates with names become a list, the plain one first", "[hf_back]") {
  Metadata meta = small_model({str("a")}, {std::int32_t{1}});
  const std::vector<MetaValue> names{str("tool_use")};
  meta.set("tokenizer.chat_templates", array_of(MetaType::String, names));
  meta.set("tokenizer.chat_template.tool_use", std::string("{{ tools }}"));
  meta.set("tokenizer.chat_template", std::string("{{ plain }}\x01"));
  const Made made = small_made(meta);
  CHECK(made.parsed("tokenizer_config.json")["chat_template"] ==
        json{{{"name", "default"}, {"template", "{{ plain }}\x01"}},
             {{"name", "tool_use"}, {"template", "{{ tools }}"}}});
  CHECK_FALSE(made.tells("chat_template"));
}

TEST_CASE("back to HF: converted forward once more, the tokenizer has the same keys", "[hf_back]") {
  for (const auto& models : {kByteLevel, kSentencePiece})
    for (const std::string& model : models) {
      INFO(model);
      const Metadata was = metadata(model);
      const Made made = back_of(model);
      Model folder;
      folder.path = model;
      folder.is_folder = true;
      for (const auto& [name, text] : made.files)
        folder.side.push_back({name, from_memory(name, to_buffer(text))});
      const json config = made.parsed("config.json");
      const std::string hf_class = config["architectures"][0];
      Metadata is;
      std::vector<std::string> notes;
      add_tokenizer(folder, config,
                    {.path = made.files.count("tokenizer.model") ? TokenizerPath::SentencePiece
                                                                 : TokenizerPath::Bpe,
                     .architecture = was.text("general.architecture"),
                     .hf_class = hf_class,
                     .vocabulary = config["vocab_size"],
                     .pre = {}},
                    is, notes);
      std::set<std::string> keys;
      for (const MetaEntry& e : was)
        if (e.key.starts_with("tokenizer.")) {
          INFO(e.key);
          keys.insert(e.key);
          REQUIRE(is.find(e.key));
          CHECK(to_text(*is.find(e.key), 1000) == to_text(e.value, 1000));
          CHECK(type_of(*is.find(e.key)) == type_of(e.value));
        }
      for (const MetaEntry& e : is) {
        INFO(e.key);
        CHECK(keys.count(e.key) == 1);
      }
    }
}
