"""What a Hugging Face model predicts, from its modelling file's formulas, in plain Python's double precision.

Names and order of elements are the checkpoint's: nothing of GGUF is known here. (Standard library only)
"""
import math


class Model:
    """Tensors as rows; config.json's numbers. `mistake` leaves one thing out: what a test must notice."""

    def __init__(self, config, tensors, mistake=None):
        self.config, self.tensors, self.mistake = config, tensors, mistake

    def rows(self, name):
        shape, values = self.tensors[name]
        return [values[i : i + shape[-1]] for i in range(0, len(values), shape[-1])]

    def vector(self, name):
        return self.tensors[name][1]

    def linear(self, name, x):
        rows = self.rows(name + ".weight")
        out = [[math.fsum(map(float.__mul__, row, t)) for row in rows] for t in x]
        if name + ".bias" not in self.tensors or self.mistake == "biases":
            return out
        return add(out, [self.vector(name + ".bias")] * len(x))

    def rms(self, name, x, plus=0.0):
        eps, weight = self.config.get("rms_norm_eps", 1e-6), self.vector(name + ".weight")
        plus = 0.0 if self.mistake == "plus one" else plus
        return [[v * (plus + g) / math.sqrt(math.fsum(a * a for a in t) / len(t) + eps) for v, g in zip(t, weight)]
                for t in x]

    def layer_norm(self, name, x, eps):
        out = []
        for t in x:
            mean = math.fsum(t) / len(t)
            scale = 1 / math.sqrt(math.fsum((v - mean) ** 2 for v in t) / len(t) + eps)
            out.append([(v - mean) * scale * g + b for v, g, b in
                        zip(t, self.vector(name + ".weight"), self.vector(name + ".bias"))])
        return out


def add(x, y, scale=1.0):
    return [[a + scale * b for a, b in zip(s, t)] for s, t in zip(x, y)]


def softmax(x):
    most = max(x)
    e = [math.exp(v - most) for v in x]
    return [v / math.fsum(e) for v in e]


def silu(v):
    return v / (1 + math.exp(-v))


def gelu_tanh(v):
    return 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))


def gelu(v):
    return 0.5 * v * (1 + math.erf(v / math.sqrt(2)))


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


def turned(head, position, frequencies, pairs=False, scale=1.0):
    """The rotary embedding: the first half of a head with the second, or neighbours with each other."""
    n, out = len(frequencies), list(head)
    for i, f in enumerate(frequencies):
        a, b = (2 * i, 2 * i + 1) if pairs else (i, i + n)
        c, s = math.cos(position * f) * scale, math.sin(position * f) * scale
        out[a], out[b] = head[a] * c - head[b] * s, head[b] * c + head[a] * s
    return out


def frequencies(config, size):
    theta = config.get("rope_theta", 10000.0)
    return [theta ** (-2 * i / size) for i in range(size // 2)]


def attend(q, k, v, scale, causal=True, window=None, sinks=None):
    """q, k, v: [token][head][element]; keys and values may have fewer heads; a sink takes part of the weight."""
    group, out = len(q[0]) // len(k[0]), []
    for i, heads in enumerate(q):
        row = []
        for h, query in enumerate(heads):
            seen = range(max(0, i + 1 - window) if window else 0, i + 1 if causal else len(k))
            p = softmax([scale * math.fsum(a * b for a, b in zip(query, k[j][h // group])) for j in seen]
                        + ([sinks[h]] if sinks else []))
            row += [math.fsum(w * v[j][h // group][e] for w, j in zip(p, seen)) for e in range(len(v[0][0]))]
        out.append(row)
    return out


def split(x, size):
    return [[t[i : i + size] for i in range(0, len(t), size)] for t in x]


# --- decoders


class Decoder(Model):
    """norm: how; act: of the feed-forward part; turns: which layers have a rotary embedding."""
    plus, act, prefix, embedding_scale = 0.0, staticmethod(silu), "model.", 1.0

    def norm(self, name, x):
        return self.rms(name, x, self.plus)

    def frequencies(self, size):
        return frequencies(self.config, size)

    def turns(self, layer):
        return True

    def turn_scale(self):
        return 1.0

    def projections(self, name, x):
        return [self.linear(f"{name}{n}_proj", x) for n in "qkv"]

    def attention(self, l, layer, x):
        c = self.config
        size = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
        q, k, v = (split(t, size) for t in self.projections(l + "self_attn.", x))
        if l + "self_attn.q_norm.weight" in self.tensors:
            q = [self.norm(l + "self_attn.q_norm", t) for t in q]
            k = [self.norm(l + "self_attn.k_norm", t) for t in k]
        if self.turns(layer):
            f, pairs = self.frequencies(size), self.mistake == "pairs"
            q, k = ([[turned(h, i, f, pairs, self.turn_scale()) for h in t] for i, t in enumerate(x)] for x in (q, k))
        return self.linear(l + "self_attn.o_proj", attend(q, k, v, 1 / math.sqrt(size), **self.limits(l, layer)))

    def limits(self, l, layer):
        return {}

    def gated(self, name, x):
        gate, up = self.linear(name + "gate_proj", x), self.linear(name + "up_proj", x)
        return self.linear(name + "down_proj", [[self.act(a) * b for a, b in zip(s, t)] for s, t in zip(gate, up)])

    def mlp(self, l, layer, x):
        return self.gated(l + "mlp.", x)

    def logits(self, tokens):
        embedding = self.rows(self.prefix + "embed_tokens.weight")
        x = [[v * self.embedding_scale for v in embedding[t]] for t in tokens]
        for i in range(self.config["num_hidden_layers"]):
            l = f"{self.prefix}layers.{i}."
            x = add(x, self.attention(l, i, self.norm(l + "input_layernorm", x)))
            x = add(x, self.mlp(l, i, self.norm(l + "post_attention_layernorm", x)))
        last = self.norm(self.prefix + "norm", x[-1:])[0]
        head = self.rows("lm_head.weight") if "lm_head.weight" in self.tensors else embedding
        return [math.fsum(a * b for a, b in zip(row, last)) for row in head]


class Llama(Decoder):
    def frequencies(self, size):
        factor = 1.0 if self.mistake == "scaling" else self.config["rope_scaling"]["factor"]
        return [f / factor for f in frequencies(self.config, size)]


def yarn(config, size):
    """Frequencies between both ways by a ramp."""
    s, theta = config["rope_scaling"], config["rope_theta"]
    old, factor = s["original_max_position_embeddings"], s["factor"]
    at = lambda turns: size * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(theta))
    low, high = max(math.floor(at(s.get("beta_fast", 32))), 0), min(math.ceil(at(s.get("beta_slow", 1))), size - 1)
    ramps = [min(max((i - low) / ((high - low) or 0.001), 0), 1) for i in range(size // 2)]
    return [f / factor * ramp + f * (1 - ramp) for f, ramp in zip(frequencies(config, size), ramps)]


class LlamaYarn(Decoder):
    def frequencies(self, size):
        return yarn(self.config, size)

    def turn_scale(self):
        return 1.0 if self.mistake == "scale" else 0.1 * math.log(self.config["rope_scaling"]["factor"]) + 1


class Phi3Long(Decoder):
    """One matrix for queries, keys and values, one for gate and up; a part of each head turns."""

    def projections(self, name, x):
        both = self.linear(name + "qkv_proj", x)
        return zip(*([t[: len(t) // 3], t[len(t) // 3 : len(t) // 3 * 2], t[len(t) // 3 * 2 :]] for t in both))

    def frequencies(self, size):
        factors = self.config["rope_scaling"]["long_factor" if self.mistake == "long" else "short_factor"]
        return [f / by for f, by in zip(frequencies(self.config, int(size * self.config["partial_rotary_factor"])), factors)]

    def turn_scale(self):
        old = self.config["original_max_position_embeddings"]
        return math.sqrt(1 + math.log(self.config["max_position_embeddings"] / old) / math.log(old))

    def mlp(self, l, layer, x):
        both = self.linear(l + "mlp.gate_up_proj", x)
        wide = [[silu(a) * b for a, b in zip(t, t[len(t) // 2 :])] for t in both]
        return self.linear(l + "mlp.down_proj", wide)


class Gemma(Decoder):
    plus, act = 1.0, staticmethod(gelu_tanh)

    @property
    def embedding_scale(self):
        return math.sqrt(self.config["hidden_size"])


class Smollm3(Decoder):
    def turns(self, layer):
        return bool(self.config["no_rope_layers"][layer]) or self.mistake == "all layers turn"


class Starcoder2(Decoder):
    def norm(self, name, x):
        return self.layer_norm(name, x, self.config["norm_epsilon"])

    def mlp(self, l, layer, x):
        x = self.linear(l + "mlp.c_fc", x)
        return self.linear(l + "mlp.c_proj", [[gelu_tanh(v) for v in t] for t in x])


class Qwen3Moe(Decoder):
    def mlp(self, l, layer, x):
        out = []
        for t, scores in zip(x, self.linear(l + "mlp.gate", x)):
            p = softmax(scores)
            best = sorted(range(len(p)), key=lambda e: -p[e])[: self.config["num_experts_per_tok"]]
            total = 1.0 if self.mistake == "weights of experts" else math.fsum(p[e] for e in best)
            y = [0.0] * len(t)
            for e in best:
                y = [a + p[e] / total * b for a, b in zip(y, self.gated(f"{l}mlp.experts.{e}.", [t])[0])]
            out.append(y)
        return out


class Deepseek3(Decoder):
    """DeepSeek-V3's own modelling file: latent attention, yarn, experts of the best groups."""

    def attention(self, l, layer, x):
        c, a = self.config, l + "self_attn."
        nope, rope, wide, rank = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"], c["kv_lora_rank"]
        q = self.linear(a + "q_b_proj", self.rms(a + "q_a_layernorm", self.linear(a + "q_a_proj", x)))
        both = self.linear(a + "kv_a_proj_with_mqa", x)
        kv = split(self.linear(a + "kv_b_proj", self.rms(a + "kv_a_layernorm", [t[:rank] for t in both])), nope + wide)
        f = yarn(c, rope)
        place = lambda part, i: turned(part, i, f, pairs=self.mistake != "halves")
        q = [[h[:nope] + place(h[nope:], i) for h in t] for i, t in enumerate(split(q, nope + rope))]
        k = [[h[:nope] + place(both[i][rank:], i) for h in t] for i, t in enumerate(kv)]
        mscale = 0.1 * c["rope_scaling"]["mscale_all_dim"] * math.log(c["rope_scaling"]["factor"]) + 1
        if self.mistake == "mscale":
            mscale = 1.0
        out = attend(q, k, [[h[nope:] for h in t] for t in kv], mscale**2 / math.sqrt(nope + rope))
        return self.linear(a + "o_proj", out)

    def mlp(self, l, layer, x):
        c, m = self.config, l + "mlp."
        if layer < c["first_k_dense_replace"]:
            return self.gated(m, x)
        bias = self.vector(m + "gate.e_score_correction_bias")
        groups, size = c["n_group"], c["n_routed_experts"] // c["n_group"]
        out = self.gated(m + "shared_experts.", x)
        for t, y, scores in zip(x, out, self.linear(m + "gate", x)):
            p = [sigmoid(v) for v in scores]
            chosen = p if self.mistake == "correction" else [a + b for a, b in zip(p, bias)]
            worth = [sum(sorted(chosen[g * size : (g + 1) * size])[-2:]) for g in range(groups)]
            kept = sorted(range(groups), key=lambda g: -worth[g])[: c["topk_group"]]
            best = sorted((e for e in range(len(p)) if e // size in kept), key=lambda e: -chosen[e])
            best = best[: c["num_experts_per_tok"]]
            total = math.fsum(p[e] for e in best)
            for e in best:
                one = self.gated(f"{m}experts.{e}.", [t])[0]
                for i, v in enumerate(one):
                    y[i] += c["routed_scaling_factor"] * p[e] / total * v
        return out


class GptOss(Decoder):
    """Sinks, every other layer with a window, experts that are clamped."""

    def limits(self, l, layer):
        window = self.config["sliding_window"] if self.config["layer_types"][layer] == "sliding_attention" else None
        return {"window": window, "sinks": None if self.mistake == "sinks" else self.vector(l + "self_attn.sinks")}

    def expert(self, name, x):
        """One expert's matrix as rows of what it gives."""
        blocks = self.tensors.get(name + "_blocks")
        if not blocks:
            (_, rows, columns), values = self.tensors[name]
            return [values[(x * rows + i) * columns : (x * rows + i + 1) * columns] for i in range(rows)], True
        (_, rows, n, _), codes = blocks
        levels = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
        value = lambda code: -levels[code & 7] if code & 8 else levels[code]
        scales, out = self.tensors[name + "_scales"][1], []
        for r in range(x * rows, (x + 1) * rows):
            out.append([value(code) * 2.0 ** (scales[r * n + b] - 127) for b in range(n)
                        for byte in codes[(r * n + b) * 16 : (r * n + b + 1) * 16] for code in (byte & 15, byte >> 4)])
        return out, False

    def through(self, name, x, t):
        matrix, transposed = self.expert(name, x)
        if transposed:
            matrix = list(zip(*matrix))
        bias = self.vector(name + "_bias")[x * len(matrix) : (x + 1) * len(matrix)]
        return [math.fsum(a * b for a, b in zip(row, t)) + c for row, c in zip(matrix, bias)]

    def mlp(self, l, layer, x):
        out, limit, m = [], self.config["swiglu_limit"], l + "mlp.experts."
        for t, scores in zip(x, self.linear(l + "mlp.router", x)):
            best = sorted(range(len(scores)), key=lambda e: -scores[e])[: self.config["num_experts_per_tok"]]
            y = [0.0] * len(t)
            for e, p in zip(best, softmax([scores[e] for e in best])):
                both = self.through(m + "gate_up_proj", e, t)
                gate, up = both[0::2], both[1::2]
                gate = [min(g, limit) for g in gate]
                wide = [(max(min(u, limit), -limit) + 1) * g * sigmoid(1.702 * g) for g, u in zip(gate, up)]
                y = [a + p * b for a, b in zip(y, self.through(m + "down_proj", e, wide))]
            out.append(y)
        return out


# --- encoders


class Bert(Model):
    def states(self, tokens):
        c, e = self.config, "embeddings."
        words, places = self.rows(e + "word_embeddings.weight"), self.rows(e + "position_embeddings.weight")
        first = self.rows(e + "token_type_embeddings.weight")[0]
        if self.mistake == "kinds of tokens":
            first = [0.0] * len(first)
        x = [[a + b + s for a, b, s in zip(words[t], places[i], first)] for i, t in enumerate(tokens)]
        eps, size = c["layer_norm_eps"], c["hidden_size"] // c["num_attention_heads"]
        x = self.layer_norm(e + "LayerNorm", x, eps)
        for i in range(c["num_hidden_layers"]):
            l = f"encoder.layer.{i}."
            q, k, v = (split(self.linear(l + "attention.self." + n, x), size) for n in ("query", "key", "value"))
            out = self.linear(l + "attention.output.dense", attend(q, k, v, 1 / math.sqrt(size), causal=False))
            x = self.layer_norm(l + "attention.output.LayerNorm", add(x, out), eps)
            wide = [[gelu(v) for v in t] for t in self.linear(l + "intermediate.dense", x)]
            x = self.layer_norm(l + "output.LayerNorm", add(x, self.linear(l + "output.dense", wide)), eps)
        return x


class NomicBert(Model):
    """No table of positions but a rotary embedding, no biases, a gate."""

    def states(self, tokens):
        c, words = self.config, self.rows("embeddings.word_embeddings.weight")
        first = self.rows("embeddings.token_type_embeddings.weight")[0]
        eps, size = c["layer_norm_epsilon"], c["n_embd"] // c["n_head"]
        x = self.layer_norm("emb_ln", add([words[t] for t in tokens], [first] * len(tokens)), eps)
        theta = 10000 if self.mistake == "base" else c["rotary_emb_base"]
        f = frequencies({"rope_theta": theta}, size)
        for i in range(c["n_layer"]):
            l, n = f"encoder.layers.{i}.", c["n_embd"]
            both = self.linear(l + "attn.Wqkv", x)
            q, k, v = (split([t[j * n : (j + 1) * n] for t in both], size) for j in range(3))
            q, k = ([[turned(h, j, f) for h in t] for j, t in enumerate(part)] for part in (q, k))
            out = self.linear(l + "attn.out_proj", attend(q, k, v, 1 / math.sqrt(size), causal=False))
            x = self.layer_norm(l + "norm1", add(x, out), eps)
            up, gate = self.linear(l + "mlp.fc11", x), self.linear(l + "mlp.fc12", x)
            wide = [[a * silu(b) for a, b in zip(s, t)] for s, t in zip(up, gate)]
            x = self.layer_norm(l + "norm2", add(x, self.linear(l + "mlp.fc2", wide)), eps)
        return x
