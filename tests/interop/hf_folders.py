"""Tiny Hugging Face folders with random weights, one for each architecture that has no reference file.

Shapes and names are those of transformers' modelling files; tokenizers are those of testdata/hf2gguf, and
a WordPiece made here. (Python's standard library only)
"""
import array
import json
import math
import pathlib
import random
import shutil

from weight_files import write_safetensors

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json")


class Weights:
    """name -> (shape, values): normal, the same for the same seed, exact in f32."""

    def __init__(self, seed):
        self.random, self.tensors = random.Random(seed), {}

    def add(self, name, *shape, spread=0.15, mean=0.0):
        values = array.array("f", (self.random.gauss(mean, spread) for _ in range(math.prod(shape))))
        self.tensors[name] = (shape, values)

    def linear(self, name, rows, columns, bias=False):
        self.add(name + ".weight", rows, columns)
        if bias:
            self.add(name + ".bias", rows)

    def norm(self, name, size, mean=1.0, bias=False):
        self.add(name + ".weight", size, mean=mean, spread=0.2)
        if bias:
            self.add(name + ".bias", size, spread=0.2)


class Folder:
    """What a test knows of a model: its config.json, its tensors, whose tokenizer it has."""

    def __init__(self, config, tensors, tokenizer):
        self.config, self.tensors, self.tokenizer = config, tensors, tokenizer

    def write(self, path, golden):
        path.mkdir()
        if self.tokenizer == "wordpiece":
            write_wordpiece(path)
        else:
            for file in (golden / self.tokenizer / "hf").iterdir():
                if file.name not in WEIGHTS and file.suffix != ".safetensors":
                    shutil.copyfile(file, path / file.name)
        (path / "config.json").write_text(json.dumps(self.config))
        write_safetensors(path / "model.safetensors",
                          {n: ("U8", shape, values) if isinstance(values, bytes) else ("F32", shape, values.tobytes())
                           for n, (shape, values) in self.tensors.items()})


def decoder(golden, tokenizer, config, seed=1, *, prefix="model.", norm_mean=1.0, layer_norm=False, head_norms=False,
            attention_bias=(), mlp=None, head=True, layer=None):
    """A decoder of the usual build. config: changes to the golden model's; attention_bias: of which of q, k, v, o;
    mlp, layer: (weights, name of a layer, its number, config) -> None, instead of the usual gated one."""
    c = {k: v for k, v in (json.loads((golden / tokenizer / "hf/config.json").read_text()) | config).items()
         if v is not None}
    w, hidden = Weights(seed), c["hidden_size"]
    size = c.get("head_dim", hidden // c["num_attention_heads"])
    q, kv = c["num_attention_heads"] * size, c["num_key_value_heads"] * size
    w.add(prefix + "embed_tokens.weight", c["vocab_size"], hidden, spread=0.5)
    for i in range(c["num_hidden_layers"]):
        l = f"{prefix}layers.{i}."
        w.norm(l + "input_layernorm", hidden, norm_mean, layer_norm)
        if layer:
            layer(w, l, i, c)
        else:
            for name, rows, columns in (("q", q, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, q)):
                w.linear(l + f"self_attn.{name}_proj", rows, columns, name in attention_bias)
        if head_norms:
            w.norm(l + "self_attn.q_norm", size, norm_mean)
            w.norm(l + "self_attn.k_norm", size, norm_mean)
        w.norm(l + "post_attention_layernorm", hidden, norm_mean, layer_norm)
        (mlp or gated)(w, l + "mlp.", i, c)
    w.norm(prefix + "norm", hidden, norm_mean, layer_norm)
    if head:
        w.linear("lm_head", c["vocab_size"], hidden)
    return Folder(c, w.tensors, tokenizer)


def gated(w, name, i, c, size=None):
    size, bias = size or c["intermediate_size"], c.get("mlp_bias", False)
    w.linear(name + "gate_proj", size, c["hidden_size"], bias)
    w.linear(name + "up_proj", size, c["hidden_size"], bias)
    w.linear(name + "down_proj", c["hidden_size"], size, bias)


def experts(w, name, i, c):
    w.linear(name + "gate", c.get("num_experts") or c["n_routed_experts"], c["hidden_size"])
    for x in range(c.get("num_experts") or c["n_routed_experts"]):
        gated(w, f"{name}experts.{x}.", i, c, c["moe_intermediate_size"])


def fused_experts(w, name, i, c):
    """As transformers 5 keeps them: all in one tensor."""
    w.linear(name + "gate", c["num_experts"], c["hidden_size"])
    w.add(name + "experts.gate_up_proj", c["num_experts"], 2 * c["moe_intermediate_size"], c["hidden_size"])
    w.add(name + "experts.down_proj", c["num_experts"], c["hidden_size"], c["moe_intermediate_size"])


def fused_and_shared(w, name, i, c):
    fused_experts(w, name, i, c)
    gated(w, name + "shared_expert.", i, c, c["shared_expert_intermediate_size"])
    w.linear(name + "shared_expert_gate", 1, c["hidden_size"])


def wide_and_narrow(w, name, i, c):
    w.linear(name + "c_fc", c["intermediate_size"], c["hidden_size"], True)
    w.linear(name + "c_proj", c["hidden_size"], c["intermediate_size"], True)


def fused_gate(w, name, i, c):
    w.linear(name + "gate_up_proj", 2 * c["intermediate_size"], c["hidden_size"])
    w.linear(name + "down_proj", c["hidden_size"], c["intermediate_size"])


def fused_attention(w, name, i, c):
    w.linear(name + "self_attn.qkv_proj", 3 * c["hidden_size"], c["hidden_size"])
    w.linear(name + "self_attn.o_proj", c["hidden_size"], c["hidden_size"])


def latent_attention(w, name, i, c):
    a, heads, rope = name + "self_attn.", c["num_attention_heads"], c["qk_rope_head_dim"]
    q = heads * (c["qk_nope_head_dim"] + rope)
    if "q_lora_rank" in c:
        w.linear(a + "q_a_proj", c["q_lora_rank"], c["hidden_size"])
        w.norm(a + "q_a_layernorm", c["q_lora_rank"])
        w.linear(a + "q_b_proj", q, c["q_lora_rank"])
    else:
        w.linear(a + "q_proj", q, c["hidden_size"])
    w.linear(a + "kv_a_proj_with_mqa", c["kv_lora_rank"] + rope, c["hidden_size"])
    w.norm(a + "kv_a_layernorm", c["kv_lora_rank"])
    w.linear(a + "kv_b_proj", heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), c["kv_lora_rank"])
    w.linear(a + "o_proj", c["hidden_size"], heads * c["v_head_dim"])


def deepseek_mlp(w, name, i, c):
    if i < c["first_k_dense_replace"]:
        return gated(w, name, i, c)
    experts(w, name, i, c)
    if c["topk_method"] == "noaux_tc":
        w.add(name + "gate.e_score_correction_bias", c["n_routed_experts"], spread=0.3)
    gated(w, name + "shared_experts.", i, c, c["n_shared_experts"] * c["moe_intermediate_size"])


def gemma3_layer(w, name, i, c):
    size, hidden = c["head_dim"], c["hidden_size"]
    q, kv = c["num_attention_heads"] * size, c["num_key_value_heads"] * size
    for part, rows, columns in (("q", q, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, q)):
        w.linear(name + f"self_attn.{part}_proj", rows, columns)
    w.norm(name + "pre_feedforward_layernorm", hidden, 0)
    w.norm(name + "post_feedforward_layernorm", hidden, 0)


def mxfp4(w, name, *shape):
    """Random codes of 4 bits and scales about 2**-3, as gpt-oss stores them."""
    *rows, columns = shape
    blocks = [*rows, columns // 32]
    w.tensors[name + "_blocks"] = ((*blocks, 16), bytes(w.random.randrange(256) for _ in range(math.prod(shape) // 2)))
    w.tensors[name + "_scales"] = (tuple(blocks), bytes(w.random.choice((123, 124, 125)) for _ in range(math.prod(blocks))))


def gpt_oss_experts(w, name, i, c):
    x, size, hidden = c["num_local_experts"], c["intermediate_size"], c["hidden_size"]
    w.linear(name + "router", x, hidden, True)
    if "quantization_config" in c:
        mxfp4(w, name + "experts.gate_up_proj", x, 2 * size, hidden)
        mxfp4(w, name + "experts.down_proj", x, hidden, size)
    else:
        w.add(name + "experts.gate_up_proj", x, hidden, 2 * size)
        w.add(name + "experts.down_proj", x, size, hidden)
    w.add(name + "experts.gate_up_proj_bias", x, 2 * size)
    w.add(name + "experts.down_proj_bias", x, hidden)


# --- encoders

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"


def write_wordpiece(path):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special + list(LETTERS) + ["##" + x for x in LETTERS] + ["the", "he", "##llo", "wor", "##ld", "##in", "##er"]
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, t in enumerate(special)]
    one = lambda kind, name: {kind: {"id": name, "type_id": 0}}
    template = [one("SpecialToken", "[CLS]"), one("Sequence", "A"), one("SpecialToken", "[SEP]")]
    (path / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": template,
                           "pair": template + [{"Sequence": {"id": "B", "type_id": 1}},
                                               {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
                           "special_tokens": {t: {"id": t, "ids": [words.index(t)], "tokens": [t]} for t in special}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {t: i for i, t in enumerate(words)}}}))
    (path / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "cls_token": "[CLS]", "sep_token": "[SEP]",
        "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}))
    return len(words)


VOCABULARY = 5 + 2 * len(LETTERS) + 7


def bert(prefix=""):
    c = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 64, "intermediate_size": 96,
         "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "type_vocab_size": 2,
         "layer_norm_eps": 1e-12, "hidden_act": "gelu", "vocab_size": VOCABULARY, "pad_token_id": 0}
    w = Weights("bert")
    for name, rows in (("word", VOCABULARY), ("position", 64), ("token_type", 2)):
        w.add(f"{prefix}embeddings.{name}_embeddings.weight", rows, 64, spread=0.5)
    w.norm(prefix + "embeddings.LayerNorm", 64, bias=True)
    for i in range(2):
        l = f"{prefix}encoder.layer.{i}."
        for part in ("query", "key", "value"):
            w.linear(l + "attention.self." + part, 64, 64, True)
        w.linear(l + "attention.output.dense", 64, 64, True)
        w.norm(l + "attention.output.LayerNorm", 64, bias=True)
        w.linear(l + "intermediate.dense", 96, 64, True)
        w.linear(l + "output.dense", 64, 96, True)
        w.norm(l + "output.LayerNorm", 64, bias=True)
    w.linear(prefix + "pooler.dense", 64, 64, True)
    return Folder(c, w.tensors, "wordpiece")


def nomic_bert():
    c = {"architectures": ["NomicBertModel"], "model_type": "nomic_bert", "n_embd": 64, "n_inner": 96, "n_layer": 2,
         "n_head": 4, "n_positions": 8192, "max_trained_positions": 2048, "type_vocab_size": 2,
         "layer_norm_epsilon": 1e-12, "vocab_size": VOCABULARY + 3, "activation_function": "swiglu", "causal": False,
         "prenorm": False, "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False,
         "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
         "rotary_emb_scale_base": None}
    w = Weights("nomic")
    w.add("embeddings.word_embeddings.weight", VOCABULARY + 3, 64, spread=0.5)
    w.add("embeddings.token_type_embeddings.weight", 2, 64, spread=0.5)
    w.norm("emb_ln", 64, bias=True)
    for i in range(2):
        l = f"encoder.layers.{i}."
        w.linear(l + "attn.Wqkv", 3 * 64, 64)
        w.linear(l + "attn.out_proj", 64, 64)
        w.norm(l + "norm1", 64, bias=True)
        w.linear(l + "mlp.fc11", 96, 64)
        w.linear(l + "mlp.fc12", 96, 64)
        w.linear(l + "mlp.fc2", 64, 96)
        w.norm(l + "norm2", 64, bias=True)
    return Folder(c, w.tensors, "wordpiece")


# --- all of them


def qwen3moe(golden, mlp=experts):
    return decoder(golden, "qwen3-tiny", {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
        head_norms=True, mlp=mlp)


def qwen2moe(golden):
    return decoder(golden, "qwen2moe-tiny", {}, attention_bias="qkv", mlp=fused_and_shared)


def gemma(golden):
    return decoder(golden, "gemma2-tiny", {
        "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "sliding_window": None, "query_pre_attn_scalar": None, "head_dim": 32},
        norm_mean=0.0, head=False)


def gemma3(golden):
    """The text model of one that sees: what config.json leaves out is the class's default, so sizes are given."""
    inner = decoder(golden, "gemma3-tiny", {}, prefix="language_model.model.", norm_mean=0.0, head_norms=True,
                    head=False, layer=gemma3_layer)
    text = dict(inner.config)
    del text["architectures"], text["rms_norm_eps"], text["rope_theta"], text["rope_local_base_freq"]
    text["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
    w = Weights("vision")
    w.linear("vision_tower.vision_model.encoder.layers.0.mlp.fc1", 8, 8, True)
    w.add("multi_modal_projector.mm_input_projection_weight", 8, 64)
    return Folder({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text,
                   "vision_config": {"hidden_size": 8, "num_hidden_layers": 1}}, inner.tensors | w.tensors, "gemma3-tiny")


def smollm3(golden):
    return decoder(golden, "llama3-tiny", {  # the fourth layer has no rotary embedding
        "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "rope_scaling": None, "rope_theta": 2e6,
        "num_hidden_layers": 4, "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0], "use_sliding_window": False,
        "tie_word_embeddings": True, "head_dim": None}, head=False)


def starcoder2(golden):
    return decoder(golden, "granite-tiny", {
        "architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2", "norm_epsilon": 1e-5, "use_bias": True,
        "rms_norm_eps": None, "embedding_multiplier": None, "attention_multiplier": None, "residual_multiplier": None,
        "logits_scaling": None, "attention_bias": None, "rope_theta": 1e5, "hidden_act": "gelu_pytorch_tanh"},
        attention_bias="qkvo", layer_norm=True, mlp=wide_and_narrow, head=False)


def llama_with_biases(golden):
    return decoder(golden, "llama3-tiny", {"attention_bias": True, "mlp_bias": True, "rope_scaling": {
        "rope_type": "linear", "factor": 4.0}}, attention_bias="qkvo")


def llama_yarn(golden):
    return decoder(golden, "llama3-tiny", {"rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}})


def mistral_window(golden):
    return decoder(golden, "mistral-tiny", {"sliding_window": 64, "head_dim": 24})


def granite(golden):
    return decoder(golden, "granite-tiny", {"head_dim": 16, "attention_bias": True, "mlp_bias": True},
                   attention_bias="qkvo", head=False)


def phi3_long(golden):
    return decoder(golden, "phi3-tiny", {
        "max_position_embeddings": 4096, "sliding_window": None, "partial_rotary_factor": 0.75, "rope_scaling": {
            "type": "longrope", "short_factor": [1 + 0.1 * i for i in range(6)],
            "long_factor": [2 + 0.5 * i for i in range(6)]}}, layer=fused_attention, mlp=fused_gate)


DEEPSEEK3 = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "n_routed_experts": 8,
             "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "scoring_func": "sigmoid",
             "topk_method": "noaux_tc", "norm_topk_prob": True, "routed_scaling_factor": 2.5,
             "num_nextn_predict_layers": 1, "rope_scaling": {
                 "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32,
                 "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}}


def deepseek3(golden):
    folder = decoder(golden, "deepseek2-tiny", DEEPSEEK3, layer=latent_attention, mlp=deepseek_mlp)
    more = decoder(golden, "deepseek2-tiny", DEEPSEEK3 | {"num_hidden_layers": 3}, seed=2, layer=latent_attention,
                   mlp=deepseek_mlp).tensors
    last = {n: t for n, t in more.items() if n.startswith("model.layers.2.")}  # for predicting further tokens
    w = Weights("mtp")
    w.linear("model.layers.2.eh_proj", 64, 128)
    w.norm("model.layers.2.enorm", 64)
    w.norm("model.layers.2.hnorm", 64)
    w.norm("model.layers.2.shared_head.norm", 64)
    w.linear("model.layers.2.shared_head.head", 304, 64)
    w.add("model.layers.2.embed_tokens.weight", 304, 64)
    folder.tensors |= last | w.tensors
    return folder


def deepseek_lite(golden):
    return decoder(golden, "deepseek2-tiny", {"q_lora_rank": None, "num_hidden_layers": 27}, layer=latent_attention,
                   mlp=deepseek_mlp)


def gpt_oss(golden, quantized=True):
    folder = decoder(golden, "llama3-tiny", {
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "rope_scaling": None, "rope_theta": 150000.0,
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4, "attention_bias": True,
        "swiglu_limit": 7.0, "layer_types": ["sliding_attention", "full_attention"],
        "quantization_config": {"quant_method": "mxfp4"} if quantized else None},
        attention_bias="qkvo", mlp=gpt_oss_experts)
    w = Weights("sinks")
    for i in range(2):
        w.add(f"model.layers.{i}.self_attn.sinks", 4, spread=1.0)
    folder.tensors |= w.tensors
    return folder


MODELS = {
    "gpt-oss": gpt_oss,
    "gpt-oss without mxfp4": lambda golden: gpt_oss(golden, False),
    "qwen3moe": qwen3moe,
    "qwen3moe of transformers 5": lambda golden: qwen3moe(golden, fused_experts),
    "qwen2moe of transformers 5": qwen2moe,
    "gemma": gemma,
    "gemma3 that sees": gemma3,
    "smollm3": smollm3,
    "starcoder2": starcoder2,
    "llama with biases and linear scaling": llama_with_biases,
    "llama with yarn": llama_yarn,
    "mistral with a window": mistral_window,
    "granite with head_dim and biases": granite,
    "phi3 with factors for long contexts": phi3_long,
    "deepseek 3": deepseek3,
    "deepseek 2 lite": deepseek_lite,
}
ENCODERS = {"bert": lambda golden: bert(), "bert under a head": lambda golden: bert("bert."),
            "nomic-bert": lambda golden: nomic_bert()}
