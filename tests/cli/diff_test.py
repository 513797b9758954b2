#!/usr/bin/env python3
"""diff from outside: what a user types and what it says.

usage: diff_test.py WTOOL SOURCE     (Python's standard library only)

Expected figures come from Python's own arithmetic on the values that the test wrote; what the
reference converter makes of a Hugging Face folder is made here by its published formulas, and
checked against the digests of its tensors where ../shared has them.
"""
import hashlib
import json
import math
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import unittest

import weight_files
from findings_files import junit, sarif
from weight_files import U32, STRING, Command, floats, read_safetensors, write_safetensors

SOURCE = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else pathlib.Path(".")
GOLDEN = SOURCE.parent / "shared/golden/hf2gguf"


def bf16(values):
    """Exact for values that bf16 has."""
    return b"".join(struct.pack("<f", v)[2:] for v in values)


def f32_of(dtype, raw):
    if dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + raw[i : i + 2])[0] for i in range(0, len(raw), 2)]
    return list(struct.unpack(f"<{len(raw) // {'F32': 4, 'F16': 2}[dtype]}{'f' if dtype == 'F32' else 'e'}", raw))


# ---- what the reference converter does, by its formulas (on rows of bytes)


def rows(raw, n):
    size = len(raw) // n
    return [raw[i * size : (i + 1) * size] for i in range(n)]


def halves_to_pairs(raw, shape, heads):
    """out[h D + 2 j + p] = in[h D + p D/2 + j]"""
    n = shape[0]
    each = n // heads
    lines, out = rows(raw, n), [b""] * n
    for h in range(heads):
        for p in range(2):
            for j in range(each // 2):
                out[h * each + 2 * j + p] = lines[h * each + p * (each // 2) + j]
    return b"".join(out)


def transposed(raw, shape, size):
    r, c = shape
    return b"".join(raw[(i * c + j) * size : (i * c + j + 1) * size] for j in range(c) for i in range(r))


LLAMA_NAMES = {
    r"model\.embed_tokens\.weight": "token_embd.weight", r"model\.norm\.weight": "output_norm.weight",
    r"lm_head\.weight": "output.weight",
    r"model\.layers\.(\d+)\.input_layernorm\.weight": r"blk.\1.attn_norm.weight",
    r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.weight": r"blk.\1.attn_\2.weight",
    r"model\.layers\.(\d+)\.self_attn\.o_proj\.weight": r"blk.\1.attn_output.weight",
    r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight": r"blk.\1.ffn_\2.weight",
    r"model\.layers\.(\d+)\.block_sparse_moe\.gate\.weight": r"blk.\1.ffn_gate_inp.weight",
}
NAMES = {
    "llama": {**LLAMA_NAMES,
              r"model\.layers\.(\d+)\.post_attention_layernorm\.weight": r"blk.\1.ffn_norm.weight"},
    "gemma2": {**LLAMA_NAMES,
               r"model\.layers\.(\d+)\.post_attention_layernorm\.weight": r"blk.\1.post_attention_norm.weight",
               r"model\.layers\.(\d+)\.pre_feedforward_layernorm\.weight": r"blk.\1.ffn_norm.weight",
               r"model\.layers\.(\d+)\.post_feedforward_layernorm\.weight": r"blk.\1.post_ffw_norm.weight"},
    "gpt2": {r"(?:transformer\.)?wte\.weight": "token_embd.weight", r"(?:transformer\.)?wpe\.weight": "position_embd.weight",
             r"(?:transformer\.)?ln_f\.(\w+)": r"output_norm.\1",
             r"(?:transformer\.)?h\.(\d+)\.ln_1\.(\w+)": r"blk.\1.attn_norm.\2",
             r"(?:transformer\.)?h\.(\d+)\.ln_2\.(\w+)": r"blk.\1.ffn_norm.\2",
             r"(?:transformer\.)?h\.(\d+)\.attn\.c_attn\.(\w+)": r"blk.\1.attn_qkv.\2",
             r"(?:transformer\.)?h\.(\d+)\.attn\.c_proj\.(\w+)": r"blk.\1.attn_output.\2",
             r"(?:transformer\.)?h\.(\d+)\.mlp\.c_fc\.(\w+)": r"blk.\1.ffn_up.\2",
             r"(?:transformer\.)?h\.(\d+)\.mlp\.c_proj\.(\w+)": r"blk.\1.ffn_down.\2"},
}


def converted(tensors, family, config, kind):
    """HF tensors -> GGUF tensors of type `kind` (f32 where the reference keeps that)."""
    out, experts = {}, {}
    for name, (dtype, shape, raw) in tensors.items():
        size = len(raw) // math.prod(shape)
        if re.search(r"\.attn\.(masked_)?bias$", name) or (family == "gemma2" and name == "lm_head.weight"):
            continue
        moe = re.fullmatch(r"model\.layers\.(\d+)\.block_sparse_moe\.experts\.(\d+)\.(w[123])\.weight", name)
        if moe:
            what = {"w1": "gate", "w2": "down", "w3": "up"}[moe[3]]
            experts.setdefault(f"blk.{moe[1]}.ffn_{what}_exps.weight", {})[int(moe[2])] = (dtype, shape, raw)
            continue
        new = next(re.sub(p, r, name) for p, r in NAMES[family].items() if re.fullmatch(p, name))
        if family == "llama" and re.search(r"attn_[qk]\.weight$", new):
            heads = config["num_attention_heads"] if "attn_q" in new else config["num_key_value_heads"]
            raw = halves_to_pairs(raw, shape, heads)
        if family == "gpt2" and re.search(r"(c_attn|c_proj|c_fc)\.weight$", name):
            raw, shape = transposed(raw, shape, size), shape[::-1]
        if family == "gemma2" and name.endswith("norm.weight"):
            raw = floats([v + 1.0 for v in f32_of(dtype, raw)])
            dtype = "F32"
        out[new] = (dtype, shape, raw)
    for name, members in experts.items():
        dtype, shape, _ = members[0]
        out[name] = (dtype, [len(members), *shape], b"".join(members[i][2] for i in range(len(members))))
    final = {}
    for name, (dtype, shape, raw) in out.items():
        keep = len(shape) == 1 or name.endswith("_norm.weight") or "ffn_gate_inp" in name or "position_embd" in name
        values = f32_of(dtype, raw)
        if keep or kind == "f32":
            final[name] = ("f32", shape, floats(values))
        elif kind == "bf16":
            assert dtype == "BF16"
            final[name] = ("bf16", shape, raw)
        else:
            final[name] = ("f16", shape, struct.pack(f"<{len(values)}e", *values))
    return final


MAPS = {
    "llama": """
# {q} heads, {kv} of keys and values
model.embed_tokens.weight  -> token_embd.weight
model.norm.weight          -> output_norm.weight
lm_head.weight             -> output.weight
model.layers.{{L}}.input_layernorm.weight           -> blk.{{L}}.attn_norm.weight
model.layers.{{L}}.post_attention_layernorm.weight  -> blk.{{L}}.ffn_norm.weight
model.layers.{{L}}.self_attn.q_proj.weight permute {q}   -> blk.{{L}}.attn_q.weight
model.layers.{{L}}.self_attn.k_proj.weight permute {kv}  -> blk.{{L}}.attn_k.weight
model.layers.{{L}}.self_attn.v_proj.weight          -> blk.{{L}}.attn_v.weight
model.layers.{{L}}.self_attn.o_proj.weight          -> blk.{{L}}.attn_output.weight
""",
    "dense": "model.layers.{{L}}.mlp.{{P=gate,up,down}}_proj.weight -> blk.{{L}}.ffn_{{P}}.weight\n",
    "experts": """
model.layers.{{L}}.block_sparse_moe.gate.weight  -> blk.{{L}}.ffn_gate_inp.weight
model.layers.{{L}}.block_sparse_moe.experts.{{E}}.w1.weight stack E -> blk.{{L}}.ffn_gate_exps.weight
model.layers.{{L}}.block_sparse_moe.experts.{{E}}.w2.weight stack E -> blk.{{L}}.ffn_down_exps.weight
model.layers.{{L}}.block_sparse_moe.experts.{{E}}.w3.weight stack E -> blk.{{L}}.ffn_up_exps.weight
""",
    "gemma2": """
model.embed_tokens.weight  -> token_embd.weight
model.norm.weight add 1    -> output_norm.weight
model.layers.{{L}}.input_layernorm.weight add 1             -> blk.{{L}}.attn_norm.weight
model.layers.{{L}}.post_attention_layernorm.weight add 1    -> blk.{{L}}.post_attention_norm.weight
model.layers.{{L}}.pre_feedforward_layernorm.weight add 1   -> blk.{{L}}.ffn_norm.weight
model.layers.{{L}}.post_feedforward_layernorm.weight add 1  -> blk.{{L}}.post_ffw_norm.weight
model.layers.{{L}}.self_attn.{{P=q,k,v}}_proj.weight        -> blk.{{L}}.attn_{{P}}.weight
model.layers.{{L}}.self_attn.o_proj.weight                  -> blk.{{L}}.attn_output.weight
model.layers.{{L}}.mlp.{{P=gate,up,down}}_proj.weight       -> blk.{{L}}.ffn_{{P}}.weight
""",
    "gpt2": """
{t}wte.weight  -> token_embd.weight
{t}wpe.weight  -> position_embd.weight
{t}ln_f.{{W}}  -> output_norm.{{W}}
{t}h.{{L}}.ln_1.{{W}} -> blk.{{L}}.attn_norm.{{W}}
{t}h.{{L}}.ln_2.{{W}} -> blk.{{L}}.ffn_norm.{{W}}
{t}h.{{L}}.attn.c_attn.weight transpose -> blk.{{L}}.attn_qkv.weight
{t}h.{{L}}.attn.c_proj.weight transpose -> blk.{{L}}.attn_output.weight
{t}h.{{L}}.mlp.c_fc.weight transpose    -> blk.{{L}}.ffn_up.weight
{t}h.{{L}}.mlp.c_proj.weight transpose  -> blk.{{L}}.ffn_down.weight
{t}h.{{L}}.attn.c_attn.bias -> blk.{{L}}.attn_qkv.bias
{t}h.{{L}}.attn.c_proj.bias -> blk.{{L}}.attn_output.bias
{t}h.{{L}}.mlp.c_fc.bias    -> blk.{{L}}.ffn_up.bias
{t}h.{{L}}.mlp.c_proj.bias  -> blk.{{L}}.ffn_down.bias
""",
}


class Diff(Command):
    def diff(self, *args, code=0):
        return self.wtool("diff", *args, code=code).stdout

    def document(self, *args, code=0):
        return json.loads(self.wtool("diff", "--json", *args, code=code).stdout)

    def tensor(self, document, name):
        (t,) = (t for t in document["tensors"] if t["name"] == name)
        return t

    def model(self, path="a.safetensors", change=None, metadata=None):
        random.seed(5)
        tensors = {}
        for layer in range(3):
            values = [random.gauss(0, 0.05) for _ in range(8 * 256)]
            if change:
                change(layer, values)
            tensors[f"model.layers.{layer}.mlp.up_proj.weight"] = ("F32", (8, 256), floats(values))
        tensors["model.norm.weight"] = ("F32", (16,), floats([1.0] * 16))
        write_safetensors(path, tensors, metadata or {"format": "pt"})
        return tensors

    # ---- structure and values

    def test_the_same_in_other_shards_and_formats_is_the_same(self):
        self.model()
        shutil.copy("a.safetensors", "b.safetensors")
        self.assertIn("4 tensors compared: the same", self.diff("a.safetensors", "b.safetensors"))
        self.wtool("convert", "a.safetensors", "-o", "c/", "--shard-size", "12kB", "-q")
        self.assertGreater(len([f for f in os.listdir("c") if f.endswith(".safetensors")]), 1)
        self.diff("a.safetensors", "c")
        self.wtool("convert", "a.safetensors", "-o", "d.gguf", "-q")
        self.assertIn("the same", self.diff("a.safetensors", "d.gguf", "--tolerance", "0"))
        self.wtool("convert", "a.safetensors", "-o", "e/", "--to", "npy", "-q")
        self.diff("a.safetensors", "e", "--tolerance", "0")

    def test_figures_are_those_of_the_values(self):
        a = self.model()

        def change(layer, values):
            if layer == 1:
                values[300] += 0.5
                values[7] -= 0.25

        b = self.model("b.safetensors", change)
        document = self.document("a.safetensors", "b.safetensors", code=1)
        self.assertFalse(document["same"])
        name = "model.layers.1.mlp.up_proj.weight"
        t = self.tensor(document, name)
        x, y = (struct.unpack("<2048f", m[name][2]) for m in (a, b))
        self.assertEqual((t["count"], t["changed"], t["beyond"]), (2048, 2, 2))
        error = math.sqrt(sum((p - q) ** 2 for p, q in zip(x, y)) / sum(p * p for p in x))
        self.assertAlmostEqual(t["rel_rmse"], error, places=12)
        self.assertAlmostEqual(t["sqnr_db"], -20 * math.log10(error), places=9)
        cosine = sum(p * q for p, q in zip(x, y)) / math.sqrt(sum(p * p for p in x) * sum(q * q for q in y))
        self.assertAlmostEqual(t["cos"], cosine, places=12)
        self.assertEqual(t["max_error_index"], 300)
        self.assertEqual(t["worst"], {"index": 300, "a": x[300], "b": y[300]})
        self.assertEqual(t["first_beyond"]["index"], 7)
        self.assertEqual([u["same"] for u in document["tensors"]], [True, False, True, True])
        text = self.diff("a.safetensors", "b.safetensors", code=1)
        self.assertIn("[1, 44]", text)
        self.assertIn(f"first: {name} [0, 7]", text)
        self.assertNotIn("layers.0", text)
        self.assertIn("layers.0", self.diff("-v", "a.safetensors", "b.safetensors", code=1))
        self.diff("a.safetensors", "b.safetensors", "--tolerance", "0.5001")
        self.diff("a.safetensors", "b.safetensors", "--tolerance", "0.4", code=1)
        self.diff("a.safetensors", "b.safetensors", "--tolerance", "0:1e4")
        self.diff("a.safetensors", "b.safetensors", "-x", name)
        self.diff("a.safetensors", "b.safetensors", "-t", "layer:1", code=1)

    def test_names_shapes_types_and_metadata_are_compared(self):
        same = floats([1, 2, 3, 4])
        write_safetensors("a.safetensors", {"only.a": ("F32", (4,), same), "s": ("F32", (2, 2), same),
                                            "d": ("F32", (4,), same)}, {"k": "1", "gone": "x"})
        write_safetensors("b.safetensors", {"s": ("F32", (4,), same), "d": ("BF16", (4,), bf16([1, 2, 3, 4])),
                                            "only.b": ("F32", (4,), same)}, {"k": "2", "new": "y"})
        document = self.document("a.safetensors", "b.safetensors", code=1)
        self.assertEqual([t["name"] for t in document["only_in_a"]], ["only.a"])
        self.assertEqual([t["name"] for t in document["only_in_b"]], ["only.b"])
        self.assertEqual(self.tensor(document, "s")["shape_b"], [4])
        d = self.tensor(document, "d")
        self.assertEqual((d["dtype"], d["dtype_b"], d["changed"], d["same"]), ("f32", "bf16", 0, False))
        self.assertEqual([(k["key"], k["in"]) for k in document["metadata"]],
                         [("k", "both"), ("gone", "a"), ("new", "b")])
        # Each of them alone is a difference; but types and metadata only where it is to be exact.
        self.diff("a.safetensors", "b.safetensors", "-t", "d", "--tolerance", "0")
        self.diff("a.safetensors", "b.safetensors", "-t", "d", code=1)
        for name in ("s", "only.a", "only.b"):
            self.diff("a.safetensors", "b.safetensors", "-t", name, "--tolerance", "0", code=1)
        text = self.diff("a.safetensors", "b.safetensors", code=1)
        for line in ("only in a.safetensors: 1 tensor", "shape: s  [2, 2] and [4]", "dtype: f32 → bf16  d",
                     "metadata: gone  only in a.safetensors"):
            self.assertIn(line, text)

    def test_folders_compare_their_side_files(self):
        for folder, config in (("a", {"x": 1, "y": [1]}), ("b", {"x": 2, "z": 0})):
            os.mkdir(folder)
            self.model(f"{folder}/model.safetensors")
            pathlib.Path(folder, "config.json").write_text(json.dumps(config))
            pathlib.Path(folder, "tokenizer.json").write_text("{}" if folder == "a" else "{ }")
        document = self.document("a", "b", code=1)
        self.assertEqual([(k["key"], k["in"]) for k in document["files"]],
                         [("config.json: x", "both"), ("config.json: y", "a"), ("config.json: z", "b"),
                          ("tokenizer.json", "both")])
        self.diff("a", "b", "--tolerance", "0")
        self.diff("a/", "a")

    def test_zeros_of_both_signs_and_nan(self):
        nan = struct.pack("<I", 0x7FC00000)
        write_safetensors("a.safetensors", {"w": ("F32", (3,), floats([0.0, 1]) + nan)})
        write_safetensors("b.safetensors", {"w": ("F32", (3,), floats([-0.0, 1]) + nan)})
        self.assertEqual(self.document("a.safetensors", "b.safetensors", code=1)["tensors"][0]["beyond"], 1)
        self.diff("a.safetensors", "b.safetensors", "--tolerance", "0")
        self.diff("a.safetensors", "b.safetensors", "--tolerance", "step")
        write_safetensors("c.safetensors", {"w": ("F32", (3,), floats([0.0, 1, 5]))})
        (t,) = self.document("a.safetensors", "c.safetensors", "--tolerance", "1e9", code=1)["tensors"]
        self.assertEqual((t["non_finite"], t["beyond"], t["max_error"]), (1, 1, 0))
        self.assertEqual(t["first_beyond"], {"index": 2, "a": None, "b": 5})

    def test_layers_have_a_strip_and_a_line(self):
        self.model()
        self.model("b.safetensors", lambda layer, v: v.__setitem__(0, v[0] + 0.01) if layer == 2 else None)
        text = self.diff("a.safetensors", "b.safetensors", "--by", "layer", code=1)
        self.assertRegex(text, r"layers  ···[▁▂▃▄▅▆▇█]\n")
        layers = self.document("a.safetensors", "b.safetensors", "--by", "layer", code=1)["layers"]
        self.assertEqual([l["layer"] for l in layers], ["(none)"] + [f"model.layers.{i}" for i in range(3)])
        self.assertEqual([l["same"] for l in layers], [True, True, True, False])

    def test_any_number_of_threads_gives_the_same_bytes(self):
        random.seed(2)
        raw = floats([random.gauss(0, 1) for _ in range(3000)]) * 500
        other = bytearray(raw)
        other[5_000_003] ^= 1
        write_safetensors("a.safetensors", {"w": ("F32", (500, 3000), raw)})
        write_safetensors("b.safetensors", {"w": ("F32", (500, 3000), bytes(other))})
        first = self.diff("--json", "-j", "1", "a.safetensors", "b.safetensors", code=1)
        for threads in ("2", "7"):
            self.assertEqual(self.diff("--json", "-j", threads, "a.safetensors", "b.safetensors", code=1), first)

    # ---- steps

    def test_what_quantize_writes_is_within_a_step_and_one_wrong_code_is_not(self):
        random.seed(3)
        os.mkdir("in")
        raw = bf16([struct.unpack("<f", b"\0\0" + struct.pack("<f", random.gauss(0, 0.05))[2:])[0]
                    for _ in range(128 * 512)])
        tensors = {f"model.layers.{i}.mlp.{p}_proj.weight": ("BF16", (128, 512), raw)
                   for i in range(2) for p in ("up", "gate")}
        tensors["model.norm.weight"] = ("BF16", (512,), raw[:1024])
        write_safetensors("in/model.safetensors", tensors, {"format": "pt"})
        pathlib.Path("in/config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        for options in ("--int8", "--int4", "--w8a8", "--bits 3", "--bits 6 --group-size 32", "--int4 --asym",
                        "--int8 --group-size channel", "--fp8", "--fp8 --block", "--nvfp4", "--mxfp4", "--mxfp8", "--nf4",
                        "--scheme gptq --bits 3", "--scheme gptq --int4 --asym", "--scheme awq --int4",
                        "--int4 --signed-scales", "--int4 --method rtn", "--int4 --method optimal", "--fp16"):
            shutil.rmtree("out", ignore_errors=True)
            self.wtool("quantize", "in/", "-o", "out/", "-q", *options.split())
            document = self.document("in/", "out/", "--tolerance", "step")
            self.assertTrue(document["same"], options)
            t = self.tensor(document, "model.layers.0.mlp.up_proj.weight")
            if options != "--fp16":
                self.assertGreater(t["max_steps"], 0.45, options)
                self.assertLessEqual(t["max_steps"], 0.501, options)
            self.diff("in/", "out/", code=1)  # not to the bit
            self.diff("out/", "in/", "--tolerance", "step")  # either side may be the quantised one
        (path,) = pathlib.Path("out").glob("*.safetensors")
        shutil.rmtree("out")
        self.wtool("quantize", "in/", "-o", "out/", "-q", "--int4")
        (path,) = pathlib.Path("out").glob("*.safetensors")
        stored = read_safetensors(path)
        dtype, shape, codes = stored["model.layers.1.mlp.gate_proj.weight_packed"]
        wrong = bytearray(codes)
        wrong[1000] ^= 0x01
        stored["model.layers.1.mlp.gate_proj.weight_packed"] = (dtype, shape, bytes(wrong))
        write_safetensors(path, stored, {"format": "pt"})
        document = self.document("in/", "out/", "--tolerance", "step", code=1)
        bad = [t for t in document["tensors"] if not t["same"]]
        self.assertEqual([(t["name"], t["beyond"]) for t in bad], [("model.layers.1.mlp.gate_proj.weight", 1)])
        self.assertEqual(bad[0]["first_beyond"]["index"], 2000)
        self.assertLess(bad[0]["rel_rmse"], 0.2)  # a mean would have hidden it

    def test_ggml_types_are_within_a_step(self):
        random.seed(4)
        raw = floats([random.gauss(0, 0.05) for _ in range(64 * 512)])
        write_safetensors("a.safetensors", {f"blk.{i}.ffn_up.weight": ("F32", (64, 512), raw) for i in range(2)})
        for kind in ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl",
                     "iq4_xs", "mxfp4", "nvfp4", "tq1_0", "tq2_0", "q1_0", "q2_0"):
            for method in ("exact", "best"):
                self.wtool("quantize", "a.safetensors", "-o", "b.gguf", "-f", "-q", "--type", kind, "--pure",
                           "--method", method)
                with self.subTest(kind=kind, method=method):
                    self.diff("a.safetensors", "b.gguf", "--tolerance", "step")
            keys, stored = weight_files.read_gguf("b.gguf")
            name, shape, codes = stored["blk.1.ffn_up.weight"]
            size = len(codes) // (64 * 512 // {t[0]: t[1] for t in weight_files.TYPES.values()}[name])
            wrong = bytearray(codes)
            at = 40 * size + {"q4_0": 2, "q4_1": 4, "q5_0": 6, "q5_1": 8, "q8_0": 2, "q2_k": 16, "q3_k": 32,
                              "q4_k": 16, "q5_k": 48, "q6_k": 0, "iq4_nl": 2, "iq4_xs": 8, "q1_0": 2, "q2_0": 2,
                              "tq2_0": 0, "mxfp4": 1, "nvfp4": 4, "tq1_0": 0}[kind] + 3
            wrong[at] ^= 0x11
            stored["blk.1.ffn_up.weight"] = (name, shape, bytes(wrong))
            pathlib.Path("c.gguf").write_bytes(weight_files.gguf(stored, {}))
            with self.subTest(kind=kind, wrong=True):
                (t,) = [t for t in self.document("a.safetensors", "c.gguf", "--tolerance", "step", code=1)["tensors"]
                        if not t["same"]]
                self.assertIn(t["beyond"], range(1, 6))

    # ---- gates, and files for machines

    def moved(self):
        """b is a but for layer 1, which is 10 % larger, and layer 2, 1 %."""
        self.model()
        self.model("b.safetensors", lambda layer, v: v.__setitem__(
            slice(None), [x * (1, 1.1, 1.01)[layer] for x in v]))

    def test_gates_judge_values_in_place_of_the_tolerance(self):
        self.moved()
        self.diff("a.safetensors", "b.safetensors", code=1)
        self.diff("a.safetensors", "b.safetensors", "--gate", "max(rel_rmse) <= 0.11")
        text = self.diff("a.safetensors", "b.safetensors", "--gate", "max(rel_rmse) <= 0.05", code=1)
        self.assertIn("FAILED by model.layers.1.mlp.up_proj.weight (0.1)", text)
        self.diff("a.safetensors", "b.safetensors", "--gate", "max(rel_rmse in 'layer:2') <= 0.011")
        self.diff("a.safetensors", "b.safetensors", "--gate", "count(changed > 0) == 2")
        self.diff("a.safetensors", "b.safetensors", "--gate", "max(rel_rmse) <= 0.11", "--tolerance", "step", code=1)
        self.refused("diff", "a.safetensors", "b.safetensors", "--gate", "max(rel_rsme) <= 1", saying=["rel_rsme"])
        self.refused("diff", "a.safetensors", "b.safetensors", "--gate", "max(max_steps) <= 1")
        self.refused("diff", "a.safetensors", "b.safetensors", "--gate", "max(cos in 'modle.*') <= 1")
        document = self.document("a.safetensors", "b.safetensors", "--gate", "max(rel_rmse) <= 0.05", code=1)
        self.assertEqual((document["ok"], document["same"], document["tolerance"]), (False, True, "any"))
        # What is missing is still a difference, and so is NaN.
        write_safetensors("c.safetensors", {"model.norm.weight": ("F32", (16,), floats([1.0] * 15 + [math.nan]))})
        self.diff("a.safetensors", "c.safetensors", "-t", "model.norm.weight", "--gate", "max(rel_rmse) <= 1", code=1)
        self.diff("b.safetensors", "c.safetensors", "-x", "*norm*", "--gate", "1 <= 2", code=2)

    def test_junit_and_sarif_tell_each_difference(self):
        self.moved()
        write_safetensors("b.safetensors", {**read_safetensors("b.safetensors"), "more": ("F32", (1,), floats([1]))},
                          {"format": "np"})
        self.diff("a.safetensors", "b.safetensors", "--junit", "d.xml", "--sarif", "d.sarif", code=1)
        cases = {name: verdict for _, name, verdict, _ in junit("d.xml")}
        self.assertEqual(cases, {"model.layers.0.mlp.up_proj.weight": "passed", "model.norm.weight": "passed",
                                 "model.layers.1.mlp.up_proj.weight": "failed", "more": "failed",
                                 "model.layers.2.mlp.up_proj.weight": "failed", "format": "failed"})
        results = sarif("d.sarif")
        self.assertEqual(sorted(r["ruleId"] for r in results),
                         ["diff.metadata", "diff.missing", "diff.values", "diff.values"])
        self.refused("diff", "a.safetensors", "b.safetensors", "--junit", "d.xml", saying=["d.xml"])
        self.refused("diff", "a.safetensors", "b.safetensors", "-f", "--sarif", "b.safetensors")
        self.diff("a.safetensors", "b.safetensors", "--tolerance", "1", "-f", "--junit", "d.xml", code=1)
        self.assertEqual([name for _, name, verdict, _ in junit("d.xml") if verdict == "failed"], ["more"])

    # ---- maps

    def pair(self, name, hf, family, config, kind):
        """Writes hf/ and model.gguf; the map that makes them the same."""
        tensors = converted(hf, family, config, kind)
        pathlib.Path("model.gguf").write_bytes(
            weight_files.gguf(tensors, {"general.architecture": (STRING, family)}))
        template = MAPS["llama"] + MAPS["experts" if "mixtral" in name else "dense"]
        text = {"llama": template, "gemma2": MAPS["gemma2"], "gpt2": MAPS["gpt2"]}[family].format(
            q=config.get("num_attention_heads"), kv=config.get("num_key_value_heads"),
            t="transformer." if any(n.startswith("transformer.") for n in hf) else "")
        pathlib.Path("names.map").write_text(text)
        return tensors

    def same_with_map(self, family):
        self.diff("hf", "model.gguf", "--map", "names.map", "--tolerance", "0", "-x", "re:\\.attn\\.(masked_)?bias$",
                  "--allow-unmatched")
        # Without the transforms it is not.
        rules = pathlib.Path("names.map").read_text()
        for transform in re.findall(r"permute \d+|transpose|add 1|stack E", rules)[:3]:
            if transform.startswith("stack"):
                continue
            pathlib.Path("less.map").write_text(rules.replace(transform + " ", " "))
            self.diff("hf", "model.gguf", "--map", "less.map", "--tolerance", "0", "--allow-unmatched", code=1)

    def test_maps_make_hugging_face_and_gguf_the_same(self):
        random.seed(6)

        def weight(*shape):
            return ("BF16", list(shape), bf16([random.randint(-128, 127) / 64 for _ in range(math.prod(shape))]))

        config = {"num_attention_heads": 4, "num_key_value_heads": 2}
        hf = {"model.embed_tokens.weight": weight(40, 32), "model.norm.weight": weight(32),
              "lm_head.weight": weight(40, 32)}
        for layer in range(2):
            p = f"model.layers.{layer}."
            hf |= {p + "input_layernorm.weight": weight(32), p + "post_attention_layernorm.weight": weight(32),
                   p + "self_attn.q_proj.weight": weight(32, 32), p + "self_attn.k_proj.weight": weight(16, 32),
                   p + "self_attn.v_proj.weight": weight(16, 32), p + "self_attn.o_proj.weight": weight(32, 32)}
            dense = {p + f"mlp.{w}_proj.weight": weight(48, 32) for w in ("gate", "up", "down")}
            moe = {p + "block_sparse_moe.gate.weight": weight(11, 32)}
            moe |= {p + f"block_sparse_moe.experts.{e}.w{w}.weight": weight(6, 32)
                    for e in range(11) for w in (1, 2, 3)}
            hf |= dense if layer == 0 else moe
        os.mkdir("hf")
        write_safetensors("hf/model.safetensors", hf, {"format": "pt"})
        self.pair("llama", hf, "llama", config, "bf16")
        with open("names.map", "a") as more:
            more.write(MAPS["experts"].format())
        self.same_with_map("llama")
        document = self.document("hf", "model.gguf", "--map", "names.map", "--tolerance", "0")
        t = self.tensor(document, "model.layers.1.block_sparse_moe.experts.*.w1.weight")
        self.assertEqual((t["name_b"], t["shape"]), ("blk.1.ffn_gate_exps.weight", [11, 6, 32]))
        self.assertEqual(document["only_in_a"] + document["only_in_b"], [])
        # Quantised, through the map.
        self.wtool("quantize", "model.gguf", "-o", "q.gguf", "-q", "--type", "q8_0", "--pure")
        self.diff("hf", "q.gguf", "--map", "names.map", "--tolerance", "step")
        self.diff("q.gguf", "model.gguf", "--tolerance", "step")
        # One weight of one expert.
        tensors = dict(hf)
        name = "model.layers.1.block_sparse_moe.experts.10.w2.weight"
        raw = bytearray(tensors[name][2])
        raw[2 * 77 + 1] ^= 0x80
        tensors[name] = ("BF16", tensors[name][1], bytes(raw))
        write_safetensors("hf/model.safetensors", tensors, {"format": "pt"})
        (bad,) = [t for t in self.document("hf", "model.gguf", "--map", "names.map", "--tolerance", "0",
                                           code=1)["tensors"] if not t["same"]]
        self.assertEqual((bad["name_b"], bad["beyond"]), ("blk.1.ffn_down_exps.weight", 1))
        self.assertEqual(bad["worst"]["index"], 10 * 6 * 32 + 77)

    def test_maps_of_golden_models(self):
        if not GOLDEN.exists():
            self.skipTest("no ../shared")
        for name, family, kind in (("llama3-tiny", "llama", "bf16"), ("mistral-tiny", "llama", "bf16"),
                                   ("gemma2-tiny", "gemma2", "bf16"), ("gpt2-tiny", "gpt2", "f16"),
                                   ("mixtral-tiny", "llama", "bf16"), ("granite-tiny", "llama", "bf16")):
            with self.subTest(name):
                shutil.rmtree("hf", ignore_errors=True)
                shutil.copytree(GOLDEN / name / "hf", "hf")
                os.chmod("hf", 0o755)
                config = json.loads(pathlib.Path("hf/config.json").read_text())
                hf = {}
                for file in sorted(pathlib.Path("hf").glob("model*.safetensors")):
                    hf |= read_safetensors(file)
                expected = json.loads((GOLDEN / name / "expected.json").read_text())["runs"]["auto"]["tensors"]
                if kind == "bf16" and "F16" in {t["type"] for t in expected.values()}:
                    kind = "f16"
                made = self.pair(name, hf, family, config, kind)
                # This is what the reference made.
                for tensor, (_, _, raw) in made.items():
                    self.assertEqual(hashlib.sha256(raw).hexdigest(), expected[tensor]["sha256"], tensor)
                self.assertEqual(set(expected) - set(made) - {"rope_freqs.weight"}, set())
                if kind == "f16" and family == "gpt2":
                    self.diff("hf", "model.gguf", "--map", "names.map", "--tolerance", "step", "-x",
                              "re:\\.attn\\.(masked_)?bias$", "--allow-unmatched")
                else:
                    self.same_with_map(family)

    def test_a_folder_and_its_gguf_are_compared_without_a_map(self):
        golden = SOURCE / "testdata" / "hf2gguf"
        for model in ("llama3-tiny", "mixtral-tiny", "gemma2-tiny", "gpt2-tiny"):
            folder, name = str(golden / model / "hf"), f"{model}.gguf"
            subprocess.run([self.program, "convert", folder, "-o", name], check=True, capture_output=True)
            done = self.wtool("diff", folder, name)
            self.assertIn("is compared as the GGUF that it becomes", done.stderr)
            self.assertIn("the same", done.stdout)
            self.assertNotIn("only in", done.stdout)
            self.wtool("diff", name, folder, "-q")  # either may be A
            document = json.loads(self.wtool("diff", "--json", folder, name).stdout)
            self.assertEqual(len(document["notes"]), 1)
            self.assertEqual((document["only_in_a"], document["only_in_b"], document["metadata"]), ([], [], []))
        # One number that is another is found, in the tensor that it became part of.
        shutil.copytree(golden / "mixtral-tiny" / "hf", "m")
        shard = sorted(pathlib.Path("m").glob("*.safetensors"))[0]
        tensors = read_safetensors(shard)
        name = next(n for n in tensors if n.endswith("experts.2.w1.weight"))
        dtype, shape, raw = tensors[name]
        tensors[name] = (dtype, shape, raw[:10] + bytes([raw[10] ^ 64, raw[11] ^ 1]) + raw[12:])
        write_safetensors(str(shard), tensors)
        done = self.wtool("diff", "m", "mixtral-tiny.gguf", "--tolerance", "0", code=1)
        layer = name.split(".layers.")[1].split(".")[0]
        self.assertIn(f"first: blk.{layer}.ffn_gate_exps.weight [2, 0, 5]", done.stdout)

    def test_a_folder_that_is_no_such_gguf_is_compared_by_its_names(self):
        golden = SOURCE / "testdata" / "hf2gguf"
        llama, qwen = (str(golden / m / "hf") for m in ("llama3-tiny", "qwen2-tiny"))
        subprocess.run([self.program, "convert", llama, "-o", "x.gguf"], check=True, capture_output=True)
        done = self.wtool("diff", qwen, "x.gguf", code=1)
        self.assertIn("is a qwen2, the file a llama", done.stderr)
        self.assertIn("model.norm.weight", self.wtool("diff", "-v", qwen, "x.gguf", code=1).stdout)
        # A folder whose tokenizer is gone is still its weights.
        shutil.copytree(llama, "m", ignore=shutil.ignore_patterns("tokenizer.json"))
        done = self.wtool("diff", "m", "x.gguf", "--tolerance", "0")
        self.assertIn("without its tokenizer", done.stderr)
        # A map is for names as they are.
        pathlib.Path("map").write_text("model.norm.weight -> output_norm.weight\n")
        done = self.wtool("diff", llama, "x.gguf", "--map", "map", "-t", "model.norm.weight", "--tolerance", "0")
        self.assertNotIn("compared as", done.stderr)

    def test_rows_and_splits_compare_fused_tensors(self):
        q, k, v = (floats([i + 10 * n for i in range(12)]) for n in range(3))
        write_safetensors("a.safetensors", {f"l.0.{n}.w": ("F32", (4, 3), raw)
                                            for n, raw in zip("qkv", (q, k, v))})
        write_safetensors("b.safetensors", {"l.0.qkv.w": ("F32", (12, 3), q + k + v)})
        pathlib.Path("split.map").write_text("l.{L}.q.w -> l.{L}.qkv.w split 0/3\nl.{L}.k.w -> l.{L}.qkv.w split 1/3\n"
                                             "l.{L}.v.w -> l.{L}.qkv.w rows 8:12 # comment\n")
        self.diff("a.safetensors", "b.safetensors", "--map", "split.map")
        pathlib.Path("stack.map").write_text("l.{L}.qkv.w split 1/3 -> l.{L}.k.w\n")
        document = self.document("b.safetensors", "a.safetensors", "--map", "stack.map", "-x", "*.q.w", "-x", "*.v.w")
        self.assertEqual(len(document["tensors"]), 1)
        pathlib.Path("turn.map").write_text("l.0.q.w transpose transpose -> l.0.q.w\nl.{L}.k.w add 0.5 add -0.5->l\n")
        self.refused("diff", "a.safetensors", "a.safetensors", "--map", "turn.map", saying=["turn.map:2", "'->'"])

    def test_a_map_that_is_wrong_is_named_with_its_line(self):
        self.model()
        name = "model.layers.{L}.mlp.up_proj.weight"
        for rule, words in ((f"{name}", ["'->'"]),
                            (f"{name} ->", ["a name on each side"]),
                            (f"{name} -> x.{{M}}", ["{L}", "missing"]),
                            (f"{name} turn -> x.{{L}}", ["unknown transform 'turn'"]),
                            (f"{name} trnaspose -> x.{{L}}", ["unknown transform"]),
                            (f"{name} permute -> x.{{L}}", ["permute needs"]),
                            (f"{name} permute two -> x.{{L}}", ["'two' is no number"]),
                            (f"{name} rows 5 -> x.{{L}}", ["no ':'"]),
                            (f"{name} split 3/3 -> x.{{L}}", ["of 3 parts"]),
                            (f"{name} split 0/0 -> x.{{L}}", ["of 0 parts"]),
                            (f"{name} add nan -> x.{{L}}", ["'nan' is no number"]),
                            (f"{name} stack E -> x.{{L}}", ["no placeholder {E}"]),
                            ("a.{L}{M} -> b.{L}{M}", ["between two placeholders"]),
                            ("a.{L -> b.{L}", ["without '}'"]),
                            ("a.{L}.{L} -> b.{L}", ["twice"]),
                            ("a.{} -> b", ["no placeholder"]),
                            ("nothing.{L} -> x.{L}", ["matches no tensor of a.safetensors"]),
                            (f"{name} -> nothing.{{L}}", ["pairs nothing"]),
                            (f"{name} permute 3 -> {name}", ["8 rows are not 3 heads", "model.layers.0.mlp"]),
                            (f"{name} rows 0:9 -> {name}", ["0:9", "[8, 256]"]),
                            (f"{name} split 0/3 -> {name}", ["3 equal parts"]),
                            ("model.norm.weight transpose -> model.norm.weight", ["takes a matrix"]),
                            ("# nothing", ["no rule"])):
            pathlib.Path("w.map").write_text("\n" + rule + "\n")
            where = "w.map" if rule.startswith("#") else "w.map:2"
            with self.subTest(rule):
                self.refused("diff", "a.safetensors", "a.safetensors", "--map", "w.map", saying=[where, *words])
        pathlib.Path("w.map").write_text("nothing.{L} -> x.{L}\n")
        self.diff("a.safetensors", "a.safetensors", "--map", "w.map", "--allow-unmatched")
        self.refused("diff", "a.safetensors", "a.safetensors", "--map", "absent.map", code=4)
        # What is stacked must be numbered without a gap.
        raw = floats([1])
        write_safetensors("g.safetensors", {f"e.{i}": ("F32", (1,), raw) for i in (0, 2)})
        write_safetensors("h.safetensors", {"e": ("F32", (2, 1), raw * 2)})
        pathlib.Path("g.map").write_text("e.{E} stack E -> e\n")
        self.refused("diff", "g.safetensors", "h.safetensors", "--map", "g.map", saying=["g.map:1", "'2' in 'e.2'"])

    def test_what_cannot_be_compared_is_said(self):
        self.model()
        self.refused("diff", "a.safetensors", "a.safetensors", "-t", "modle", saying=["modle"])
        self.refused("diff", "a.safetensors", "a.safetensors", "--tolerance", "steps")
        self.refused("diff", "a.safetensors", "a.safetensors", "--by", "moon")
        self.refused("diff", "a.safetensors")
        self.refused("diff", "-", "-", saying=["standard input"])
        self.refused("diff", "a.safetensors", "absent", code=4)
        pathlib.Path("broken").write_bytes(b"\xff" * 64)
        self.refused("diff", "a.safetensors", "broken", code=3)
        # Complex numbers are the same or not.
        write_safetensors("c.safetensors", {"w": ("C64", (2,), floats([1, 2, 3, 4]))})
        write_safetensors("d.safetensors", {"w": ("C64", (2,), floats([1, 2, 3, 5]))})
        self.diff("c.safetensors", "c.safetensors")
        self.diff("c.safetensors", "d.safetensors", "--tolerance", "9", code=1)
        # Nothing in common, and nothing at all.
        write_safetensors("e.safetensors", {})
        self.diff("a.safetensors", "e.safetensors", code=1)
        self.diff("e.safetensors", "e.safetensors")
        write_safetensors("n.safetensors", {"w": ("F32", (0, 4), b"")})
        self.diff("n.safetensors", "n.safetensors", "--tolerance", "step")
        # Every option directly before the models.
        for options in (["--tolerance", "step"], ["--by", "layer"], ["-t", "layer:1"], ["-x", "layer:1"], ["-v"]):
            self.diff(*options, "a.safetensors", "a.safetensors")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
