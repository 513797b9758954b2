#include "lib/numeric/engine_limits.h"

#include "lib/numeric/importance_names.h"
#include "tests/catch.h"

namespace wtool {
namespace {

const SchemeOptions kInt4{.bits = 4, .group = 128};

std::vector<std::string> warnings(const std::vector<EngineModule>& modules,
                                  const std::vector<std::string>& kept = {},
                                  std::string_view scheme = "compressed-tensors") {
  return engine_warnings(scheme, modules, kept);
}

TEST_CASE("engines: shapes that Marlin does not take are named with the number", "[engines]") {
  CHECK(warnings({{"model.layers.0.mlp.down_proj", 128, 256, kInt4}}).empty());
  CHECK(warnings({{"a.down_proj", 100, 256, kInt4}}) ==
        std::vector<std::string>{
            "vLLM and SGLang (Marlin) want outputs in multiples of 64, not 100: 'a.down_proj'"});
  CHECK(warnings({{"a.down_proj", 128, 160, {.bits = 4, .group = 32}}}) ==
        std::vector<std::string>{
            "vLLM and SGLang (Marlin) want inputs in multiples of 128, not 160: 'a.down_proj'"});
  CHECK(warnings({{"a.down_proj", 128, 256, {.bits = 4, .group = 256}}}) ==
        std::vector<std::string>{"vLLM and SGLang (Marlin) take groups of 32, 64, 128 or a whole "
                                 "row, not 256: 'a.down_proj'"});
  CHECK(warnings({{"a.down_proj", 128, 256, {.bits = 3, .group = 128}}}) ==
        std::vector<std::string>{"vLLM and SGLang have kernels for 4 and 8 bits, not 3; "
                                 "transformers unpacks such weights: 'a.down_proj'"});
  CHECK(warnings({{"a.down_proj", 128, 256, {.bits = 4, .group = 128, .signed_scales = true}}}) ==
        std::vector<std::string>{"vLLM run with int8 activations gives wrong results with negative "
                                 "scales and does not tell: 'a.down_proj'"});
  // Other kernels: no such limits.
  CHECK(warnings({{"a.down_proj", 100, 256, {.bits = 8, .activations = true}}}).empty());
}

TEST_CASE("engines: GPTQ that only gptq_gemm runs is named, with no limits of Marlin's",
          "[engines]") {
  const auto gptq = [](SchemeOptions options) {
    return warnings({{"a.down_proj", 100, 160, options}}, {}, "gptq");
  };
  CHECK(gptq({.bits = 3, .group = 32}) ==
        std::vector<std::string>{"vLLM runs GPTQ of 3 bits on gptq_gemm only: slower than Marlin, "
                                 "in f16, and not in its versions since mid-2026: 'a.down_proj'"});
  CHECK(gptq({.bits = 4, .group = 32, .asymmetric = true}) ==
        std::vector<std::string>{"vLLM runs GPTQ with zero points on gptq_gemm only: slower than "
                                 "Marlin, in f16, and not in its versions since mid-2026: "
                                 "'a.down_proj'"});
  CHECK(gptq({.bits = 4, .group = 32}).size() == 2);  // outputs and inputs of Marlin's
}

TEST_CASE("engines: one line for modules that differ in numbers only", "[engines]") {
  std::vector<EngineModule> modules;
  for (int i = 0; i < 28; ++i)
    modules.push_back({"model.layers." + std::to_string(i) + ".down_proj", 100, 256, kInt4});
  CHECK(warnings(modules) ==
        std::vector<std::string>{"vLLM and SGLang (Marlin) want outputs in multiples of 64, not "
                                 "100: 'model.layers.*.down_proj' x28"});
}

TEST_CASE("engines: what is loaded as one matrix must be quantized alike", "[engines]") {
  const EngineModule q{"l.0.q_proj", 128, 256, kInt4}, k{"l.0.k_proj", 128, 256, kInt4},
      v8{"l.0.v_proj", 128, 256, {.bits = 8, .group = 128}};
  CHECK(warnings({q, k}, {"l.0.o_proj", "l.1.v_proj"}).empty());
  CHECK(warnings({q, k, v8}) ==
        std::vector<std::string>{"vLLM and SGLang load these as one matrix, but they are quantized "
                                 "in different ways: 'l.0.{q,k,v}_proj'"});
  CHECK(warnings({q, k}, {"l.0.v_proj"}) ==
        std::vector<std::string>{"vLLM and SGLang load these as one matrix, but only some are "
                                 "quantized: 'l.0.{q,k,v}_proj'"});
}

TEST_CASE("engines: blocks of fp8 that fusing would cut are named", "[engines]") {
  const SchemeOptions block{.levels = Levels::Fp8, .block = true, .activations = true};
  CHECK(warnings({{"l.o_proj", 256, 256, block}}).empty());
  CHECK(warnings({{"l.o_proj", 200, 256, block}}).size() == 1);
}

TEST_CASE("engines: routers and heads that are quantized are named", "[engines]") {
  CHECK(warnings({{"model.layers.0.mlp.gate", 64, 256, kInt4}}) ==
        std::vector<std::string>{
            "vLLM and SGLang load a router unquantized: 'model.layers.0.mlp.gate'"});
  CHECK(warnings({{"lm_head", 128, 256, kInt4}}) ==
        std::vector<std::string>{"vLLM and SGLang load a head unquantized: 'lm_head'"});
}

TEST_CASE("engines: fused sets go by the last part of a name", "[engines]") {
  CHECK(fused_set("model.layers.3.self_attn.k_proj")->name ==
        "model.layers.3.self_attn.{q,k,v}_proj");
  CHECK(fused_set("model.layers.3.mlp.experts.7.w3")->name ==
        "model.layers.3.mlp.experts.7.w{1,3}");
  CHECK(fused_set("q_proj")->name == "{q,k,v}_proj");
  CHECK(!fused_set("model.layers.3.self_attn.o_proj"));
  CHECK(!fused_set("model.layers.3.my_q_proj"));
}

TEST_CASE("importance: weights of Hugging Face models by the names that matrices have",
          "[importance]") {
  const auto name = [](std::string_view s) {
    const auto found = importance_name(s);
    return found ? found->name + (found->expert ? " " + std::to_string(*found->expert) : "") : "";
  };
  CHECK(name("model.layers.12.self_attn.o_proj.weight") == "blk.12.attn_output.weight");
  CHECK(name("model.layers.0.mlp.down_proj.weight") == "blk.0.ffn_down.weight");
  CHECK(name("model.layers.1.block_sparse_moe.experts.3.w2.weight") ==
        "blk.1.ffn_down_exps.weight 3");
  CHECK(name("model.layers.1.mlp.experts.60.up_proj.weight") == "blk.1.ffn_up_exps.weight 60");
  CHECK(name("lm_head.weight") == "output.weight");
  CHECK(name("model.layers.x.mlp.down_proj.weight").empty());
  CHECK(name("model.layers.1.mlp.experts.60.up_proj.bias").empty());
  CHECK(name("model.layers.99999999999999999999999.mlp.down_proj.weight").empty());
  CHECK(name("blk.0.ffn_down.weight").empty());
}

}  // namespace
}  // namespace wtool
