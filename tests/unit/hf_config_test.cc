// What formulas over config.json come to, and which keys follow; names of tensors by pattern.
// Expected values are worked out by hand from transformers' configuration classes.
#include <cstring>
#include <ranges>
#include <set>

#include "formats/hf/config.h"
#include "formats/hf/gguf_keys.h"
#include "formats/hf/names.h"
#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/unit/refusal.h"

namespace wtool {
namespace {

using Catch::Matchers::Contains;

Model folder(std::string_view text) {
  Buffer bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  Model model;
  model.path = "m";
  model.is_folder = true;
  model.side.push_back({"config.json", from_memory("config.json", std::move(bytes))});
  return model;
}
// Of a Llama, with more members.
std::string llama(const std::string& members) {
  return R"({"architectures": ["LlamaForCausalLM"])" + (members.empty() ? "" : ", " + members) +
         "}";
}
HfConfig config(const std::string& members) {
  return HfConfig::of(folder(llama(members)), "");
}

// Keys of a whole model, which each test changes in its own way.
constexpr const char* kWhole =
    R"("num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96,
       "num_attention_heads": 4)";
Metadata keys_of(const std::string& text) {
  const Model model = folder(text);
  Metadata meta;
  add_architecture_keys(model, HfConfig::of(model, ""), 0, meta);
  return meta;
}
Metadata llama_keys(const std::string& members) {
  return keys_of(llama(std::string(kWhole) + (members.empty() ? "" : ", " + members)));
}
float f32_of(const Metadata& meta, std::string_view key) {
  const MetaValue* value = meta.find(key);
  REQUIRE(value);
  REQUIRE(std::holds_alternative<float>(*value));
  return std::get<float>(*value);
}

TEST_CASE("of a formula's alternatives the first counts that has all its parts", "[hf]") {
  const HfConfig c = config(R"("hidden_size": 64, "num_attention_heads": 4, "n": null)");
  CHECK(c.number("head_dim | hidden_size / num_attention_heads") == 16);
  CHECK(c.number("hidden_size | 7") == 64);
  CHECK(c.number("absent | 7") == 7);
  CHECK(c.number("n | 7") == 7);  // null is absent
  CHECK(c.number("absent * 2 | also.absent") == std::nullopt);
  CHECK(c.count("absent") == std::nullopt);
  CHECK_THAT(refusal([&] { c.need("absent | absent / 2"); }),
             Contains("does not say absent | absent / 2"));
}

TEST_CASE("a formula runs from left to right, and division rounds down", "[hf]") {
  const HfConfig c = config(R"("a": 7, "b": 2, "h": 0.75, "yes": true, "in": {"side": 5})");
  CHECK(c.number("a + b * b") == 18);
  CHECK(c.number("a - b - b") == 3);
  CHECK(c.number("a / b") == 3);
  CHECK(c.number("a / b * b") == 6);
  CHECK(c.number("b - a / b") == -3);  // -5 / 2
  // As Python's int(0.75 * 7) // 2: what is divided is a whole number first.
  CHECK(c.number("h * a / b") == 2);
  CHECK(c.number("h * a") == 5.25);
  CHECK(c.number("in.side * 2") == 10);
  CHECK(c.number("a.side | 1") == 1);  // a is no object
  CHECK(c.number("yes + 1") == 2);
  CHECK(c.number("0.1 * 5") == 0.5);
}

TEST_CASE("what is no number, or none that counts, is refused with the key and the value", "[hf]") {
  const HfConfig c = config(
      R"("text": "x", "list": [1], "zero": 0, "half": 0.5, "less": -1, "big": 4294967296,
         "most": 4294967295, "huge": 1e300)");
  CHECK_THAT(refusal([&] { c.number("text"); }), Contains("'text' is string, not a number"));
  CHECK_THAT(refusal([&] { c.number("absent | list"); }), Contains("'list' is array"));
  CHECK_THAT(refusal([&] { c.number("big / zero"); }), Contains("'zero' is 0"));
  CHECK_THAT(refusal([&] { c.count("half"); }), Contains("half is 0.5"));
  CHECK_THAT(refusal([&] { c.count("less"); }), Contains("less is -1"));
  CHECK_THAT(refusal([&] { c.count("big"); }), Contains("4294967296"));
  CHECK_THAT(refusal([&] { c.count("huge"); }), Contains("1e+300"));
  CHECK_THAT(refusal([&] { c.number("huge * huge"); }) + refusal([&] { c.count("huge * huge"); }),
             Contains("huge * huge is inf"));
  CHECK(c.count("most") == 4294967295);
  // JSON has no NaN, and a number too large for a double is refused with the file.
  CHECK_THAT(refusal([] { config(R"("a": NaN)"); }), Contains("config.json"));
  CHECK_THAT(refusal([] { config(R"("a": 1e999)").number("a"); }), Contains("config.json"));
}

TEST_CASE("a text model inside another is lifted over the outer keys", "[hf]") {
  const char* text = R"({"architectures": ["Gemma3ForConditionalGeneration"], "hidden_size": 1,
      "text_config": {"hidden_size": 640, "num_hidden_layers": 3}, "vision_config": {"x": 1}})";
  const HfConfig c = HfConfig::of(folder(text), "");
  CHECK(c.hf_class() == "Gemma3ForConditionalGeneration");
  CHECK(c.need("hidden_size") == 640);
  CHECK(c.need("num_hidden_layers") == 3);
  CHECK(c.need("head_dim") == 256);  // of Gemma3TextConfig
  // The inner class wins, and an alias may have one level more.
  const char* deep = R"({"architectures": ["Outer"], "thinker_config": {"architectures": ["Middle"],
      "text_config": {"architectures": ["Qwen3ForCausalLM"], "hidden_size": 5}}})";
  const HfConfig d = HfConfig::of(folder(deep), "");
  CHECK(d.architecture().name == "qwen3");
  CHECK(d.need("hidden_size") == 5);
  CHECK(HfConfig::of(folder(deep), "GPT2LMHeadModel").architecture().name == "gpt2");
}

TEST_CASE("rotary parameters of both layouts mean the same", "[hf]") {
  const HfConfig old = config(R"("rope_theta": 5e5, "partial_rotary_factor": 0.5, "rope_scaling":
      {"type": "yarn", "factor": 4}, "original_max_position_embeddings": 128)");
  const HfConfig now = config(R"("rope_parameters": {"rope_type": "yarn", "factor": 4,
      "rope_theta": 5e5, "partial_rotary_factor": 0.5,
      "original_max_position_embeddings": 128})");
  for (const HfConfig* c : {&old, &now}) {
    CHECK(*c->find("rope.rope_type") == "yarn");
    CHECK(c->number("rope.factor") == 4);
    CHECK(c->number("rope.rope_theta") == 5e5);
    CHECK(c->number("rope.partial_rotary_factor") == 0.5);
    CHECK(c->number("rope.original_max_position_embeddings") == 128);
  }
  CHECK(config("").number("rope.rope_theta") == 10000);  // the class's default
  const HfConfig both = config(R"("rope_theta": 1, "rope_parameters": {
      "full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}})");
  CHECK(both.number("rope.rope_theta") == 1e6);
  CHECK(both.number("rope_local.rope_theta") == 1e4);
  const HfConfig local = config(R"("rope_theta": 1e6, "rope_local_base_freq": 1e4)");
  CHECK(local.number("rope.rope_theta") == 1e6);
  CHECK(local.number("rope_local.rope_theta") == 1e4);
}

TEST_CASE("defaults of the class stand in, and what config.json says is not touched", "[hf]") {
  CHECK(config("").need("max_position_embeddings") == 2048);
  CHECK(config(R"("max_position_embeddings": 5)").need("max_position_embeddings") == 5);
  const auto of = [](const char* name) {
    return HfConfig::of(folder(std::string(R"({"architectures": [")") + name + "\"]}"), "");
  };
  // Classes of one GGUF name have their own.
  CHECK(of("MixtralForCausalLM").number("rms_norm_eps") == 1e-5);
  CHECK(of("MistralForCausalLM").number("rms_norm_eps") == 1e-6);
  CHECK(of("Qwen3ForCausalLM").count("head_dim") == 128);
  CHECK(of("Qwen3MoeForCausalLM").count("head_dim") == std::nullopt);
  CHECK(*of("DeepseekV3ForCausalLM").find("scoring_func") == "sigmoid");
  CHECK(of("DeepseekV2ForCausalLM").find("scoring_func") == nullptr);
  // What the reference ignores is not there.
  CHECK(HfConfig::of(folder(R"({"architectures": ["GraniteForCausalLM"], "head_dim": 3})"), "")
            .find("head_dim") == nullptr);
}

TEST_CASE("every architecture has classes, keys and tensors, and no class twice", "[hf]") {
  std::set<std::string_view> classes;
  for (const Architecture* a : all_architectures()) {
    INFO(a->name);
    CHECK_FALSE(a->classes.empty());
    for (const std::string_view one : a->classes) {
      CHECK(classes.insert(one).second);
      CHECK(architecture_of_class(one) == a);
    }
    CHECK_FALSE(a->keys.empty());
    for (const TensorRow& row : std::views::join(a->tensors))
      for (const char letter : row.shape) {
        INFO(row.hf);
        CHECK((letter == ',' || letter == '*' ||
               std::ranges::find(all_dimensions(), letter, &Dimension::letter) !=
                   all_dimensions().end()));
      }
  }
  CHECK(architecture_of_class("FooForCausalLM") == nullptr);
}

// ---- keys

TEST_CASE("each kind of rotary scaling has its keys, or is refused", "[hf]") {
  Metadata meta = llama_keys(R"("rope_scaling": {"type": "linear", "factor": 4})");
  CHECK(meta.text("llama.rope.scaling.type") == "linear");
  CHECK(f32_of(meta, "llama.rope.scaling.factor") == 4);
  meta = llama_keys(R"("max_position_embeddings": 512, "rope_scaling": {"rope_type": "yarn",
      "factor": 4, "beta_fast": 32, "beta_slow": 1, "attention_factor": 1.5})");
  CHECK(meta.count("llama.rope.scaling.original_context_length") == 512);  // as transformers
  CHECK(f32_of(meta, "llama.rope.scaling.yarn_beta_fast") == 32);
  CHECK(f32_of(meta, "llama.rope.scaling.yarn_attn_factor") == 1.5f);
  CHECK(llama_keys(R"("rope_scaling": {"rope_type": "default"})").find("llama.rope.scaling.type") ==
        nullptr);
  CHECK_THAT(refusal([] { llama_keys(R"("rope_scaling": {"type": "longrope"})"); }),
             Contains("longrope is not known of llama"));
  CHECK_THAT(refusal([] { llama_keys(R"("rope_scaling": {"type": "yarn"})"); }),
             Contains("factor (of kind yarn)"));
}

TEST_CASE("Phi-3's attention is scaled by the ratio of its contexts", "[hf]") {
  const auto phi3 = [](const std::string& type, int context) {
    return keys_of(R"({"architectures": ["Phi3ForCausalLM"], )" + std::string(kWhole) +
                   R"(, "max_position_embeddings": )" + std::to_string(context) +
                   R"(, "original_max_position_embeddings": 4096, "rope_scaling": {"type": ")" +
                   type + R"(", "long_factor": [1,1,1,1,1,1,1,1], "short_factor":
                   [1,1,1,1,1,1,1,1]}})");
  };
  // 131072 / 4096 = 2^5, 4096 = 2^12: sqrt(1 + 5/12).
  CHECK(f32_of(phi3("longrope", 131072), "phi3.rope.scaling.attn_factor") == Approx(1.1902381));
  CHECK(f32_of(phi3("su", 4096), "phi3.rope.scaling.attn_factor") == 1);
  CHECK(f32_of(phi3("yarn", 131072), "phi3.rope.scaling.attn_factor") == Approx(1.3465736));
}

TEST_CASE("experts that would end llama.cpp's process are refused with the numbers", "[hf]") {
  const auto moe = [](const std::string& members) {
    return refusal([&] {
      keys_of(R"({"architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 8,
          "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4,
          "moe_intermediate_size": 8, "vocab_size": 9, )" +
              std::string(kWhole) + ", " + members + "}");
    });
  };
  CHECK(moe(R"("n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2)") ==
        "nothing");
  CHECK(moe(R"("n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1)") ==
        "nothing");
  CHECK_THAT(moe(R"("n_routed_experts": 8, "num_experts_per_tok": 9)"), Contains("9 of 8 experts"));
  CHECK_THAT(moe(R"("n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 3)"),
             Contains("8 experts are in 3 groups"));
  CHECK_THAT(
      moe(R"("n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 4)"),
      Contains("4 of 4 groups"));
  CHECK_THAT(moe(R"("n_routed_experts": 1025, "num_experts_per_tok": 2)"),
             Contains("1025 experts") && Contains("1024"));
  CHECK_THAT(refusal([] { llama_keys(R"("num_experts_per_tok": 2)"); }),
             Contains("2 of 0 experts"));
}

TEST_CASE("where llama.cpp computes otherwise than config.json says, it is told", "[hf]") {
  const auto told = [](const std::string& text) {
    return differences_to_engine(HfConfig::of(folder(text), ""));
  };
  CHECK(told(llama("")).empty());
  CHECK(told(llama(R"("partial_rotary_factor": 1.0)")).empty());
  REQUIRE(told(llama(R"("partial_rotary_factor": 0.5)")).size() == 1);
  CHECK_THAT(told(R"({"architectures": ["MistralForCausalLM"], "sliding_window": 4096})").at(0),
             Contains("sliding_window 4096"));
  CHECK(told(R"({"architectures": ["MistralForCausalLM"], "sliding_window": null})").empty());
  CHECK(told(R"({"architectures": ["Qwen3MoeForCausalLM"], "norm_topk_prob": true})").empty());
  CHECK(told(R"({"architectures": ["Qwen3MoeForCausalLM"]})").size() == 1);
  CHECK(told(R"({"architectures": ["Qwen2MoeForCausalLM"]})").empty());
  CHECK(told(R"({"architectures": ["SmolLM3ForCausalLM"], "no_rope_layer_interval": 3})").size() ==
        1);
}

// ---- names

TEST_CASE("a pattern finds the numbers of a layer and of an expert", "[hf]") {
  const auto n = match_numbers("layers.{L}.mlp.experts.{X}.up", "layers.12.mlp.experts.3.up");
  REQUIRE(n);
  CHECK(n->layer == 12);
  CHECK(n->expert == 3);
  CHECK(match_numbers("norm", "norm"));
  CHECK(match_numbers("h.{L}", "h.0")->layer == 0);
  for (const char* name :
       {"layers.x.up", "layers..up", "layers.01.up", "layers.1.upper", "layers.1", "layer.1.up",
        "layers.-1.up", "layers.+1.up", "", "layers.99999999999999999999999.up"}) {
    INFO(name);
    CHECK_FALSE(match_numbers("layers.{L}.up", name));
  }
  CHECK_FALSE(match_numbers("norm", "norm.weight"));
  CHECK(filled_layer("blk.{L}.k,blk.{L}.v", 7) == "blk.7.k,blk.7.v");
  CHECK(filled_layer("output", 7) == "output");
}

TEST_CASE("a star stands for anything, dots and nothing too", "[hf]") {
  CHECK(matches_star("lm_head*", "lm_head.weight"));
  CHECK(matches_star("lm_head*", "lm_head"));
  CHECK(matches_star("h.*.attn.bias", "h.10.attn.bias"));
  CHECK(matches_star("*.a.*.b", "x.a.y.a.z.b"));
  CHECK_FALSE(matches_star("h.*.attn.bias", "h.1.attn.bias_k"));
  CHECK_FALSE(matches_star("lm_head*", "model.lm_head"));
  CHECK_FALSE(matches_star("pooler.*", "pooler"));
}

}  // namespace
}  // namespace wtool
