#include "lib/numeric/mix.h"

#include <set>

#include "tests/catch.h"

namespace wtool {
namespace {

// Expected types: worked out by hand from the rules that llama.cpp's quantiser documents in its
// source. tests/interop compares all mixes on many models with the library itself.

struct Named {
  std::string name;
  Shape shape;
  DType dtype = DType::F16;
};
std::vector<MixChoice> choices(std::string_view mix, const MixFacts& facts,
                               const std::vector<Named>& tensors, NameStyle style = NameStyle::Ggml,
                               bool pure = false) {
  std::vector<MixTensor> in;
  for (const Named& t : tensors) in.push_back({t.name, t.dtype, t.shape});
  return apply_mix(*find_mix(mix), facts, in, style, {.pure = pure});
}
DType only(std::string_view mix, const MixFacts& facts, const Named& t,
           NameStyle style = NameStyle::Ggml) {
  // With an output of its own, so that the token embedding is none.
  const bool hf = style == NameStyle::HuggingFace;
  return choices(mix, facts, {t, {hf ? "lm_head.weight" : "output.weight", {64, 256}}}, style)[0]
      .type.value_or(DType::V1);
}

const MixFacts kDense{.architecture = "llama", .layers = 32, .heads = 32, .heads_kv = 32};

TEST_CASE("mix: names are found in any case, and llama.cpp's short ones too", "[mix]") {
  REQUIRE(find_mix("Q4_K_M"));
  CHECK(find_mix("Q4_K_M")->file_type == 15);
  CHECK(find_mix("q4_k") == find_mix("q4_k_m"));
  CHECK(find_mix("Q5_K") == find_mix("q5_k_m"));
  CHECK(find_mix("q3_k")->file_type == 12);
  CHECK(find_mix("MXFP4_MOE")->file_type == 38);
  CHECK_FALSE(find_mix("q4"));
  CHECK_FALSE(find_mix(""));
}

TEST_CASE("mix: no two rows share a name, and one-type rows have no rules", "[mix]") {
  std::set<std::string_view> names;
  for (const Mix& m : all_mixes()) {
    CHECK(names.insert(m.name).second);
    if (!m.alias.empty()) CHECK(names.insert(m.alias).second);
    if (m.family == MixFamily::Pure) CHECK(m.rules[0].part == Part::None);
  }
}

TEST_CASE("mix: q4_k_m gives more bits to the outer eighths and every third between", "[mix]") {
  std::vector<Named> tensors;
  for (int i = 0; i < 32; ++i)
    tensors.push_back({"blk." + std::to_string(i) + ".ffn_down.weight", {256, 256}});
  std::string more;
  for (const MixChoice& c : choices("q4_k_m", kDense, tensors))
    more += c.type == DType::Q6_K ? '1' : c.type == DType::Q4_K ? '0' : '?';
  //            0       8       16      24
  CHECK(more == "11110010010010010010010010011111");
}

// "q5_k 4, q4_k 28": the types that a part has in 32 layers.
std::string over_layers(std::string_view mix, const MixFacts& facts, const std::string& part) {
  std::vector<Named> tensors;
  for (int i = 0; i < 32; ++i)
    tensors.push_back({"blk." + std::to_string(i) + "." + part + ".weight", {256, 256}});
  std::string text;
  const auto all = choices(mix, facts, tensors);
  for (std::size_t i = 0, begin = 0; i < all.size(); ++i) {
    if (i + 1 < all.size() && all[i + 1].type == all[i].type) continue;
    text += (text.empty() ? "" : ", ") + std::string(name_of(all[i].type.value())) + " " +
            std::to_string(i + 1 - begin);
    begin = i + 1;
  }
  return text;
}

TEST_CASE("mix: of 32 layers some have more bits", "[mix]") {
  const struct {
    const char *mix, *value, *down, *attn_output;
  } kExpected[] = {
      {"q2_k", "q3_k 32", "q3_k 32", "q3_k 32"},
      {"q2_k_s", "q2_k 32", "q4_k 4, q2_k 28", "q2_k 32"},
      {"q3_k_s", "q3_k 32", "q3_k 32", "q3_k 32"},
      {"q3_k_m", "q5_k 2, q4_k 30", "q5_k 2, q4_k 30", "q4_k 32"},
      {"q3_k_l", "q5_k 32", "q5_k 32", "q5_k 32"},
      {"q4_k_s", "q5_k 4, q4_k 28", "q5_k 4, q4_k 28", "q4_k 32"},
      {"q5_k_s", "q5_k 32", "q5_k 32", "q5_k 32"},
      {"q6_k", "q6_k 32", "q6_k 32", "q6_k 32"},
      {"q4_0", "q4_0 32", "q4_0 32", "q4_0 32"},
      {"iq4_xs", "iq4_xs 32", "q5_k 4, iq4_xs 28", "iq4_xs 32"},
      {"iq3_m", "q4_k 32", "q4_k 4, iq3_s 28", "q4_k 32"},
      {"iq3_xxs", "iq3_s 32", "q4_k 4, q3_k 28", "iq3_s 32"},
      {"iq2_m", "iq3_s 32", "iq3_s 4, iq2_s 28", "iq3_s 32"},
      {"iq2_xxs", "q2_k 32", "q2_k 4, iq2_xxs 28", "iq2_xxs 32"},
      {"iq1_s", "q2_k 32", "q2_k 4, iq1_s 28", "iq2_xxs 32"},
  };
  for (const auto& e : kExpected) {
    INFO(e.mix);
    CHECK(over_layers(e.mix, kDense, "attn_v") == e.value);
    CHECK(over_layers(e.mix, kDense, "ffn_down") == e.down);
    CHECK(over_layers(e.mix, kDense, "attn_output") == e.attn_output);
  }
  CHECK(over_layers("q5_k_m", kDense, "ffn_down") == over_layers("q5_k_m", kDense, "attn_v"));
  CHECK(over_layers("q5_k_m", kDense, "ffn_down").starts_with("q6_k 4, q5_k 2, q6_k 1, q5_k 2, "));
  MixFacts facts = kDense;
  facts.importance = true;
  CHECK(over_layers("q4_0", facts, "ffn_down") == "q4_1 4, q4_0 28");
  CHECK(over_layers("q5_0", facts, "ffn_down") == "q5_1 4, q5_0 28");
}

TEST_CASE("mix: positions are counted by layer and name, or taken from the name", "[mix]") {
  MixFacts facts = kDense;
  facts.layers = 8;  // the first eighth is the first tensor
  const auto types = [&](const std::vector<Named>& tensors) {
    std::vector<DType> out;
    for (const MixChoice& c : choices("q4_k_s", facts, tensors)) out.push_back(c.type.value());
    return out;
  };
  const Named experts{"blk.0.ffn_down_exps.weight", {256, 256}},
      shared{"blk.0.ffn_down_shexp.weight", {256, 256}},
      second{"blk.1.ffn_down.weight", {256, 256}};
  using Types = std::vector<DType>;
  CHECK(types({second, shared, experts}) == Types{DType::Q4_K, DType::Q4_K, DType::Q5_K});
  CHECK(types({second}) == Types{DType::Q5_K});
  facts.experts = 4;  // then layers come in any order, and their numbers count
  CHECK(types({second}) == Types{DType::Q4_K});
  CHECK(types({second, shared, experts}) == Types{DType::Q4_K, DType::Q5_K, DType::Q5_K});

  facts.experts = 0;  // what something else decides is not counted
  const Shape shape{256, 256};
  const MixTensor in[] = {{"blk.0.ffn_down.weight", DType::F16, shape, true},
                          {"blk.1.ffn_down.weight", DType::F16, shape}};
  const auto c = apply_mix(*find_mix("q4_k_s"), facts, in, NameStyle::Ggml);
  CHECK_FALSE(c[0].type);
  CHECK(c[1].type == DType::Q5_K);
}

TEST_CASE("mix: layers count by number, whatever their order in the file", "[mix]") {
  // In the file 0, 1, 10, 11, 2, …; of 12 layers, the first eighth is layer 0.
  std::vector<Named> tensors;
  for (const int i : {0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9})
    tensors.push_back({"blk." + std::to_string(i) + ".ffn_down.weight", {256, 256}});
  MixFacts facts = kDense;
  facts.layers = 12;
  const auto c = choices("q4_k_m", facts, tensors);
  std::string more;
  for (const MixChoice& x : c) more += x.type == DType::Q6_K ? '1' : '0';
  // More: 0; 3, 6, 9 (every third after the first); from 10 on.
  CHECK(more == "101101001001");
}

TEST_CASE("mix: the output has 6 bits, the embedding the mix's own type, unless tied", "[mix]") {
  const Named embedding{"token_embd.weight", {64, 256}}, output{"output.weight", {64, 256}};
  const auto apart = choices("q4_k_m", kDense, {embedding, output});
  CHECK(apart[0].type == DType::Q4_K);
  CHECK(apart[1].type == DType::Q6_K);
  CHECK(apart[1].reason == "q4_k_m: output");
  const auto tied = choices("q4_k_m", kDense, {embedding});
  CHECK(tied[0].type == DType::Q6_K);
  CHECK(tied[0].reason == "q4_k_m: token embedding, used as output too");
  CHECK(choices("q8_0", kDense, {embedding})[0].type == DType::Q8_0);
  // A row of 288 does not fill blocks of 256.
  CHECK(choices("q4_k_m", kDense, {{"output.weight", {64, 288}}})[0].type == DType::Q8_0);
  CHECK(choices("q4_0", kDense, {{"output.weight", {64, 288}}})[0].type == DType::Q6_K);
}

TEST_CASE("mix: shared values, experts, falcon and 70B models have rules of their own", "[mix]") {
  const Named v{"blk.0.attn_v.weight", {64, 256}}, k{"blk.0.attn_k.weight", {64, 256}},
      o{"blk.0.attn_output.weight", {256, 256}}, down{"blk.0.ffn_down.weight", {256, 256}};
  MixFacts facts = kDense;
  CHECK(only("q2_k", facts, v) == DType::Q3_K);
  facts.heads_kv = 8;
  CHECK(only("q2_k", facts, v) == DType::Q4_K);
  facts.layers = 80;
  CHECK(only("q2_k", facts, v) == DType::Q5_K);
  facts.heads_kv = facts.heads;  // LLaMA 65B
  CHECK(only("q2_k", facts, v) == DType::Q3_K);
  facts.architecture = "olmo";
  CHECK(only("q2_k", facts, v) == DType::Q5_K);

  facts = kDense;
  facts.experts = 8;
  CHECK(only("q4_k_m", facts, v) == DType::Q8_0);
  CHECK(only("q4_k_m", facts, k) == DType::Q8_0);
  CHECK(only("q4_k_m", facts, o) == DType::Q5_K);
  CHECK(only("q3_k_l", facts, o) == DType::Q3_K);
  CHECK(only("mxfp4_moe", facts, {"blk.0.ffn_up_exps.weight", {8, 32, 256}}) == DType::MXFP4);
  CHECK(only("mxfp4_moe", facts, k) == DType::Q8_0);
  const Named stacked{"blk.0.attn_q.weight", {8, 32, 256}};
  CHECK(only("mxfp4_moe", facts, stacked) == DType::MXFP4);
  facts.architecture = "bailingmoe3";
  CHECK(only("mxfp4_moe", facts, stacked) == DType::Q8_0);

  facts = kDense;
  facts.architecture = "falcon";
  CHECK(choices("q4_k_m", facts, {{"output.weight", {64, 256}}})[0].type == DType::Q8_0);
  CHECK(only("q4_k_m", facts, down) == DType::Q6_K);
  CHECK(only("q4_k_m", facts, {"blk.0.ffn_up.weight", {256, 256}}) == DType::Q4_K);
}

TEST_CASE("mix: an importance matrix changes what the mixes of 4 bits choose", "[mix]") {
  const Named down{"blk.0.ffn_down.weight", {256, 256}};
  MixFacts facts = kDense;
  CHECK(only("q4_0", facts, down) == DType::Q4_0);
  CHECK(only("iq4_xs", facts, down) == DType::Q5_K);
  facts.importance = true;
  CHECK(only("q4_0", facts, down) == DType::Q4_1);
  CHECK(only("iq4_xs", facts, down) == DType::IQ4_XS);
}

TEST_CASE("mix: what llama.cpp leaves alone stays, and says why", "[mix]") {
  const auto why = [&](const std::string& name, Shape shape, DType type = DType::F16) {
    const auto c = choices("q4_k_m", kDense, {{name, std::move(shape), type}});
    return c[0].type ? "" : c[0].reason;
  };
  CHECK(why("blk.0.attn_norm.weight", {256}) == "norm");
  CHECK(why("blk.0.ffn_gate_inp.weight", {8, 256}) == "router");
  CHECK(why("blk.0.attn_q_norm.weight", {8, 256}) == "norm");
  CHECK(why("blk.0.attn_q.bias", {8, 256}) == "bias");
  CHECK(why("blk.0.ssm_a", {8, 256}) == "not a weight");
  CHECK(why("blk.0.ssm_conv1d.weight", {8, 256}) == "conv");
  CHECK(why("position_embd.weight", {8, 256}) == "embedding");
  CHECK(why("blk.0.ffn_gate_inp_shexp.weight", {1, 256}) == "1-D");
  CHECK(why("blk.0.attn_q.weight", {8, 256}, DType::I32) == "integer");
  CHECK(why("blk.0.attn_q.weight", {8, 256}, DType::Q8_0).empty());
}

TEST_CASE("mix: --pure is the mix's own type, output and embedding too", "[mix]") {
  for (const MixChoice& c : choices("q4_k_m", kDense,
                                    {{"token_embd.weight", {8, 256}},
                                     {"output.weight", {8, 256}},
                                     {"blk.0.attn_v.weight", {8, 256}}},
                                    NameStyle::Ggml, true))
    CHECK(c.type == DType::Q4_K);
}

TEST_CASE("mix: Hugging Face's names get what ggml's would", "[mix]") {
  const struct {
    std::string ggml, hf;
  } kPairs[] = {
      {"token_embd.weight", "model.embed_tokens.weight"},
      {"output.weight", "lm_head.weight"},
      {"blk.7.attn_q.weight", "model.layers.7.self_attn.q_proj.weight"},
      {"blk.7.attn_k.weight", "model.layers.7.self_attn.k_proj.weight"},
      {"blk.7.attn_v.weight", "model.layers.7.self_attn.v_proj.weight"},
      {"blk.7.attn_output.weight", "model.layers.7.self_attn.o_proj.weight"},
      {"blk.7.ffn_gate.weight", "model.layers.7.mlp.gate_proj.weight"},
      {"blk.7.ffn_up.weight", "model.layers.7.mlp.up_proj.weight"},
      {"blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight"},
      {"blk.7.ffn_down_exps.weight", "model.layers.7.block_sparse_moe.experts.3.w2.weight"},
      {"blk.7.attn_norm.weight", "model.layers.7.input_layernorm.weight"},
  };
  std::vector<Named> ggml, hf;
  for (const auto& p : kPairs) {
    CHECK(part_of(p.ggml, NameStyle::Ggml) == part_of(p.hf, NameStyle::HuggingFace));
    ggml.push_back({p.ggml, {256, 256}});
    hf.push_back({p.hf, {256, 256}});
  }
  const std::string_view metas[] = {"wq", "wk", "wv", "wo"};
  const Part parts[] = {Part::Query, Part::Key, Part::Value, Part::AttnOut};
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(part_of("layers.7.attention." + std::string(metas[i]) + ".weight",
                  NameStyle::HuggingFace) == parts[i]);
  CHECK(part_of("transformer.h.7.self_attention.query_key_value.weight", NameStyle::HuggingFace) ==
        Part::Value);
  MixFacts facts = kDense;
  facts.heads_kv = 8;
  for (const Mix& m : all_mixes()) {
    const auto a = choices(m.name, facts, ggml),
               b = choices(m.name, facts, hf, NameStyle::HuggingFace);
    for (std::size_t i = 0; i < a.size(); ++i) {
      INFO(m.name << " " << hf[i].name);
      CHECK(a[i].type == b[i].type);
    }
  }
}

TEST_CASE("mix: facts come from the architecture's own keys", "[mix]") {
  Metadata meta;
  meta.append("general.architecture", std::string("qwen3moe"));
  meta.append("qwen3moe.block_count", std::uint32_t{48});
  meta.append("qwen3moe.expert_count", std::uint32_t{128});
  const MetaValue heads[] = {std::int32_t{32}, std::int32_t{16}};
  meta.append("qwen3moe.attention.head_count", array_of(MetaType::I32, heads));
  MixFacts facts;
  read_mix_facts(meta, facts);
  CHECK(facts.architecture == "qwen3moe");
  CHECK(facts.layers == 48);
  CHECK(facts.experts == 128);
  CHECK(facts.heads == 32);
  CHECK(facts.heads_kv == 32);  // as many as there are heads, where the key is missing
}

TEST_CASE("mix: a file may claim any number of layers", "[mix]") {
  MixFacts facts = kDense;
  facts.layers = ~std::uint64_t{0};
  CHECK(only("q4_k_s", facts, {"blk.0.ffn_down.weight", {256, 256}}) == DType::Q5_K);
  CHECK(only("iq3_xs", facts, {"blk.0.ffn_up.weight", {256, 256}}) == DType::IQ3_S);
  facts.layers = 0;
  CHECK(only("q4_k_s", facts, {"blk.0.ffn_down.weight", {256, 256}}) == DType::Q4_K);
}

TEST_CASE("mix: rows that no block fits fall back as in llama.cpp", "[mix]") {
  CHECK(fallback_type(DType::Q4_K, 480) == DType::Q5_0);
  CHECK(fallback_type(DType::Q5_K, 480) == DType::Q5_1);
  CHECK(fallback_type(DType::Q6_K, 480) == DType::Q8_0);
  CHECK(fallback_type(DType::Q2_K, 480) == DType::Q4_0);
  CHECK(fallback_type(DType::IQ4_XS, 480) == DType::IQ4_NL);
  CHECK(fallback_type(DType::Q4_K, 500) == DType::F16);
  CHECK(fallback_type(DType::Q8_0, 500) == DType::F16);
  CHECK_FALSE(fallback_type(DType::Q1_0, 480));
  CHECK_FALSE(fallback_type(DType::NVFP4, 480));
}

}  // namespace
}  // namespace wtool
