#!/usr/bin/env python3
"""Hugging Face folders to GGUF and back from outside: names of outputs, plans, refusals, round trips.

usage: hf_test.py WTOOL SOURCE_DIR     (Python's standard library only)

That bytes and metadata are the reference converter's is tested in tests/interop. Folders here are
those of testdata/hf2gguf, changed by hand.
"""
import hashlib
import json
import os
import pathlib
import shutil
import struct
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import hf_folders
from weight_files import Command, read_gguf, read_safetensors, write_safetensors

MODELS = pathlib.Path(sys.argv[2]).resolve() / "testdata" / "hf2gguf"
BACK = ("llama3-tiny", "mistral-tiny", "mixtral-tiny", "qwen2-tiny", "qwen3-tiny", "gemma2-tiny", "gemma3-tiny", "phi3-tiny")


def tensors_of(folder):
    out = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        out |= read_safetensors(path)
    return out


class HuggingFace(Command):
    def folder(self, model="llama3-tiny", name="m", config=None, tensors=None, drop=()):
        """A copy of a golden folder as one file. config: members to change, None removes them;
        tensors: a function of the dictionary of tensors; drop: files."""
        shutil.rmtree(name, ignore_errors=True)
        os.mkdir(name)
        for path in (MODELS / model / "hf").iterdir():
            if path.suffix != ".safetensors" and "index" not in path.name and path.name not in drop:
                shutil.copyfile(path, pathlib.Path(name) / path.name)
        if config is not None:
            path = pathlib.Path(name) / "config.json"
            whole = json.loads(path.read_text()) | config
            path.write_text(json.dumps({k: v for k, v in whole.items() if v is not None}))
        own = tensors_of(MODELS / model / "hf")
        if tensors:
            own = tensors(own)
        write_safetensors(f"{name}/model.safetensors", own, {"format": "pt"})
        return own

    def refused_all(self, *args, code, saying=()):
        error = self.refused("convert", *args, code=code)
        for text in saying:
            self.assertIn(text, error)
        return error

    # --- names

    def test_the_output_is_one_file_beside_the_folder(self):
        self.folder()
        self.wtool("convert", "m", "--to", "gguf")
        self.assertTrue(os.path.exists("m.gguf"))
        self.wtool("quantize", "--type", "q8_0", "m/")
        self.assertTrue(os.path.exists("m-q8_0.gguf"))
        keys, tensors = read_gguf("m-q8_0.gguf")
        self.assertEqual(tensors["blk.0.attn_q.weight"][0], "q8_0")
        self.assertEqual(tensors["blk.0.attn_norm.weight"][0], "f32")

    def test_in_a_folder_it_is_named_as_the_reference_names_it(self):
        self.folder(name="qwen2-tiny", model="qwen2-tiny")
        self.wtool("convert", "qwen2-tiny", "-o", "out/", "--to", "gguf")
        # expected.json: default_file_name
        self.assertEqual(os.listdir("out"), ["Qwen2-Tiny-82K-BF16.gguf"])

    def test_shards_are_cut_by_size(self):
        self.folder()
        self.wtool("convert", "m", "-o", "out/", "--to", "gguf", "--shard-size", "80KB", "--no-lineage")
        self.assertGreater(len(os.listdir("out")), 2)
        self.wtool("convert", "m", "-o", "whole.gguf", "--no-lineage")
        self.wtool("convert", "out", "-o", "joined.gguf", "--single")
        self.assertEqual(pathlib.Path("joined.gguf").read_bytes(), pathlib.Path("whole.gguf").read_bytes())

    # --- the plan

    def test_the_plan_says_what_each_tensor_is_made_of(self):
        self.folder("mixtral-tiny")
        done = self.wtool("convert", "m", "-o", "x.gguf", "-n", "--json")
        rows = {t["name"]: t for t in json.loads(done.stdout)["tensors"]}
        row = rows["blk.1.ffn_gate_exps.weight"]
        self.assertEqual(row["made_of"], "model.layers.1.block_sparse_moe.experts.{0..3}.w1.weight")
        self.assertEqual(row["how"], "4 stacked")
        self.assertEqual((row["from"], row["to"], row["shape"]), ("bf16", "bf16", [4, 32, 64]))
        self.assertEqual(rows["blk.0.attn_q.weight"]["how"], "4 heads permuted")
        self.assertEqual(rows["blk.0.attn_k.weight"]["how"], "2 heads permuted")
        self.assertEqual((rows["output_norm.weight"]["from"], rows["output_norm.weight"]["to"]), ("bf16", "f32"))
        self.assertFalse(os.path.exists("x.gguf"))
        self.assertIn("model.layers.*.self_attn.v_proj.weight", self.wtool("convert", "m", "-o", "x.gguf", "-n").stdout)

    # --- types

    def test_one_pass_gives_the_bytes_of_two(self):
        self.folder()
        self.wtool("convert", "m", "-o", "whole.gguf", "--no-lineage")
        for mix in ("q8_0", "q4_0"):
            self.wtool("quantize", "--type", mix, "whole.gguf", "-o", "two.gguf", "-f", "--no-lineage", "--fallback")
            for command in ("convert", "quantize"):
                self.wtool(command, "m", "--type", mix, "-o", "one.gguf", "-f", "--no-lineage", "--fallback")
                self.assertEqual(pathlib.Path("one.gguf").read_bytes(), pathlib.Path("two.gguf").read_bytes(), (mix, command))

    def test_what_llama_cpp_wants_in_f32_stays_so_under_a_cast(self):
        self.folder("qwen2moe-tiny")
        self.wtool("convert", "m", "-o", "x.gguf", "--dtype", "f16")
        keys, tensors = read_gguf("x.gguf")
        self.assertEqual(keys["general.file_type"][1], 1)
        types = {name: t[0] for name, t in tensors.items()}
        for name in ("blk.0.attn_q.bias", "blk.0.ffn_gate_inp.weight", "blk.0.ffn_gate_inp_shexp.weight", "output_norm.weight"):
            self.assertEqual(types[name], "f32", name)
        for name in ("blk.0.attn_q.weight", "blk.1.ffn_up_exps.weight", "token_embd.weight"):
            self.assertEqual(types[name], "f16", name)

    def test_threads_do_not_change_bytes(self):
        self.folder("deepseek2-tiny")
        outputs = set()
        for threads in ("1", "2", "5"):
            self.wtool("convert", "m", "-o", "x.gguf", "-f", "-j", threads)
            outputs.add(pathlib.Path("x.gguf").read_bytes())
        self.assertEqual(len(outputs), 1)

    def test_lineage_names_config_and_tokenizer_too(self):
        self.folder()
        self.wtool("convert", "m", "-o", "x.gguf")
        keys, _ = read_gguf("x.gguf")
        names = {keys[f"wtool.source.{i}.name"][1]: keys[f"wtool.source.{i}.sha256"][1]
                 for i in range(keys["wtool.source.count"][1])}
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            self.assertEqual(names[name], hashlib.sha256(pathlib.Path("m", name).read_bytes()).hexdigest())
        self.wtool("inspect", "--lineage", "x.gguf")
        pathlib.Path("m/config.json").write_text(pathlib.Path("m/config.json").read_text() + " ")
        self.assertIn("config.json", self.wtool("inspect", "--lineage", "x.gguf", code=1).stdout)

    # --- layouts of checkpoints

    def test_rope_parameters_of_transformers_5_mean_the_same(self):
        self.folder()
        self.wtool("convert", "m", "-o", "old.gguf", "--no-lineage")
        old = json.loads(pathlib.Path("m/config.json").read_text())
        self.folder(config={"rope_scaling": None, "rope_theta": None, "torch_dtype": None, "dtype": "bfloat16",
                            "rope_parameters": old["rope_scaling"] | {"rope_theta": old["rope_theta"]}})
        self.wtool("convert", "m", "-o", "new.gguf", "--no-lineage")
        self.assertEqual(pathlib.Path("old.gguf").read_bytes(), pathlib.Path("new.gguf").read_bytes())

    def test_prefixes_do_not_matter(self):
        self.folder()
        self.wtool("convert", "m", "-o", "plain.gguf", "--no-lineage")
        for rename in (lambda n: n.removeprefix("model."), lambda n: "base_model.model." + n,
                       lambda n: "model.language_model." + n.removeprefix("model.") if n.startswith("model.") else n,
                       lambda n: "language_model." + n):
            self.folder(tensors=lambda own: {rename(n): t for n, t in own.items()})
            self.wtool("convert", "m", "-o", "other.gguf", "-f", "--no-lineage")
            keys, tensors = read_gguf("other.gguf")
            self.assertEqual((keys, tensors), read_gguf("plain.gguf"))

    def test_a_text_model_inside_another_is_taken_out(self):
        self.folder("gemma3-tiny")
        self.wtool("convert", "m", "-o", "text.gguf")
        inner = json.loads(pathlib.Path("m/config.json").read_text())
        del inner["architectures"]
        outer = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": inner,
                 "vision_config": {"hidden_size": 1152}}
        self.folder("gemma3-tiny", tensors=lambda own: {
            "language_model." + n: t for n, t in own.items()} | {
            "vision_tower.vision_model.embeddings.patch_embedding.weight": ("F32", [2], bytes(8)),
            "multi_modal_projector.mm_input_projection_weight": ("F32", [2], bytes(8))})
        pathlib.Path("m/config.json").write_text(json.dumps(outer))
        done = self.wtool("convert", "m", "-o", "inner.gguf")
        self.assertIn("left out: 2 tensors: of a module that sees or hears", done.stdout)
        self.assertEqual(read_gguf("inner.gguf")[1], read_gguf("text.gguf")[1])

    def test_experts_of_one_tensor_are_those_of_many(self):
        self.folder("qwen2moe-tiny")
        self.wtool("convert", "m", "-o", "many.gguf")

        def fuse(own):
            out = {n: t for n, t in own.items() if ".experts." not in n}
            for layer in range(2):
                p = f"model.layers.{layer}.mlp.experts"
                part = lambda x, name: own[f"{p}.{x}.{name}.weight"]
                ff, hidden = part(0, "gate_proj")[1]
                out[f"{p}.gate_up_proj"] = ("BF16", [4, 2 * ff, hidden], b"".join(
                    part(x, "gate_proj")[2] + part(x, "up_proj")[2] for x in range(4)))
                out[f"{p}.down_proj"] = ("BF16", [4, hidden, ff], b"".join(part(x, "down_proj")[2] for x in range(4)))
            return out

        self.folder("qwen2moe-tiny", tensors=fuse)
        self.wtool("convert", "m", "-o", "one.gguf")
        self.assertEqual(read_gguf("one.gguf")[1], read_gguf("many.gguf")[1])

    def test_blocks_of_gpt_oss_are_moved_and_never_decoded(self):
        model = hf_folders.gpt_oss(MODELS)
        shutil.rmtree("oss", ignore_errors=True)
        model.write(pathlib.Path("oss"), MODELS)

        def blocks(name, first, step):
            """ggml's: a scale, then elements j and j + 16 in a byte; gpt-oss has neighbours in one."""
            (experts, rows, n, _), codes = model.tensors[name + "_blocks"]
            out = b""
            for b in (b for r in range(first, experts * rows, step) for b in range(r * n, (r + 1) * n)):
                flat = [c for byte in codes[16 * b : 16 * b + 16] for c in (byte & 15, byte >> 4)]
                out += bytes([model.tensors[name + "_scales"][1][b]] + [flat[j] | flat[j + 16] << 4 for j in range(16)])
            return "mxfp4", [experts, rows // step, 32 * n], out

        p = "model.layers.1.mlp.experts."
        for options in ((), ("--outtype", "f16"), ("-j", "1")):
            self.wtool("convert", "oss", "-o", "x.gguf", "-f", *options)
            tensors = read_gguf("x.gguf")[1]
            self.assertEqual(tensors["blk.1.ffn_gate_exps.weight"], blocks(p + "gate_up_proj", 0, 2))
            self.assertEqual(tensors["blk.1.ffn_up_exps.weight"], blocks(p + "gate_up_proj", 1, 2))
            self.assertEqual(tensors["blk.1.ffn_down_exps.weight"], blocks(p + "down_proj", 0, 1))
        both = model.tensors[p + "gate_up_proj_bias"][1]
        for name, part in (("gate", both[0::2]), ("up", both[1::2])):
            self.assertEqual(tensors[f"blk.1.ffn_{name}_exps.bias"], ("f32", [4, len(part) // 4], part.tobytes()))
        # Blocks come first, as the reference writes them.
        self.assertEqual(list(tensors)[:2], ["blk.0.ffn_down_exps.weight", "blk.0.ffn_gate_exps.weight"])

    def test_masks_and_buffers_are_left_out_and_counted(self):
        self.folder("gpt2-tiny")
        done = self.wtool("convert", "m", "-o", "x.gguf")
        self.assertIn("left out: 2 tensors: a causal mask, not a weight", done.stdout)
        self.folder(tensors=lambda own: own | {"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [8], bytes(32))})
        done = self.wtool("convert", "m", "-o", "y.gguf")
        self.assertIn("left out: 1 tensor: a buffer, not a weight", done.stdout)

    def test_layers_that_predict_further_tokens_are_left_out(self):
        more = {"model.layers.2.eh_proj.weight": ("BF16", [2], bytes(4)), "model.layers.2.self_attn.q_a_proj.weight": ("BF16", [2], bytes(4))}
        self.folder("deepseek2-tiny", config={"num_nextn_predict_layers": 1}, tensors=lambda own: own | more)
        self.assertIn("left out: 2 tensors: of a layer that predicts", self.wtool("convert", "m", "-o", "x.gguf").stdout)
        self.folder("deepseek2-tiny", tensors=lambda own: own | more)
        self.refused_all("m", "-o", "y.gguf", code=3, saying=["layers.2.eh_proj.weight", "layer 2, but config.json says 2"])

    def test_defaults_of_the_class_stand_in_for_what_config_leaves_out(self):
        self.folder(config={"max_position_embeddings": None, "rms_norm_eps": None, "head_dim": None})
        self.wtool("convert", "m", "-o", "x.gguf")
        keys, _ = read_gguf("x.gguf")
        # transformers, configuration_llama.py
        self.assertEqual(keys["llama.context_length"][1], 2048)
        self.assertAlmostEqual(keys["llama.attention.layer_norm_rms_epsilon"][1], 1e-6, 12)
        self.assertEqual(keys["llama.rope.dimension_count"][1], 16)

    # --- refusals

    def test_a_folder_without_config_is_refused_and_as_is_keeps_names(self):
        own = self.folder(drop=["config.json"])
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["no config.json", "--as-is"])
        self.wtool("convert", "m", "-o", "x.gguf", "--as-is")
        self.assertEqual(set(read_gguf("x.gguf")[1]), set(own))

    def test_broken_configs(self):
        self.folder()
        for text, saying in (("{", "config.json"), ("[1]", "not a JSON object"), ("{}", "names no class"),
                             ('{"architectures": ["FooForCausalLM"]}', "'FooForCausalLM' is not known"),
                             ("[" * 200 + "]" * 200, "config.json"), ('{"a": "\xff"}', "config.json")):
            pathlib.Path("m/config.json").write_bytes(text.encode("latin-1"))
            error = self.refused_all("m", "-o", "x.gguf", code=3, saying=[saying])
        pathlib.Path("m/config.json").write_bytes(b'{"x": "' + b"a" * (5 << 20) + b'"}')
        self.refused_all("m", "-o", "x.gguf", code=3, saying=[str((5 << 20) + 9), str(4 << 20)])

    def test_unknown_architectures_are_refused_with_the_list(self):
        self.folder(config={"architectures": ["FooForCausalLM"]})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["config.json", "'FooForCausalLM'", "Qwen3ForCausalLM", "--as-is"])
        self.wtool("convert", "m", "-o", "x.gguf", "--arch", "LlamaForCausalLM")
        self.assertEqual(read_gguf("x.gguf")[0]["general.architecture"][1], "llama")

    def test_all_that_is_wrong_is_named_at_once(self):
        def spoil(own):
            del own["model.layers.1.mlp.up_proj.weight"]
            own["model.layers.0.self_attn.strange.weight"] = ("BF16", [2], bytes(4))
            own["model.layers.0.mlp.gate_proj.weight"] = ("BF16", [97, 64], bytes(97 * 64 * 2))
            own["model.norm.weight"] = ("BF16", [63], bytes(126))
            return own

        self.folder(tensors=spoil)
        self.refused_all("m", "-o", "x.gguf", code=3, saying=[
            "'model.layers.1.mlp.up_proj.weight'", "1 tensor missing", "'model.layers.0.self_attn.strange.weight'",
            "'model.layers.0.mlp.gate_proj.weight': is [97, 64] but config.json makes it [96, 64]",
            "'model.norm.weight': is [63] but config.json makes it [64]"])

    def test_tensors_of_another_model_are_named(self):
        self.folder(config={"architectures": ["GPT2LMHeadModel"], "n_layer": 2, "n_embd": 64, "n_head": 4})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["'transformer.h.0.attn.c_attn.weight'", "GPT2LMHeadModel does not have"])

    def test_sizes_that_config_claims_are_bounded(self):
        self.folder(config={"num_hidden_layers": 4000000000})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["4000000000 layers", "tensors"])
        self.folder(config={"num_hidden_layers": -1})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["-1"])
        self.folder(config={"num_hidden_layers": 3})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["'model.layers.2.input_layernorm.weight'", "9 tensors missing"])
        self.folder(config={"num_hidden_layers": 1})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["'model.layers.1.mlp.up_proj.weight': layer 1, but config.json says 1"])
        self.folder("mixtral-tiny", config={"num_local_experts": 100000})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["100000 experts"])
        self.folder("mixtral-tiny", config={"num_local_experts": 3})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["expert 3, but config.json says 3"])
        self.folder("mixtral-tiny", config={"num_local_experts": 5})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["experts.4.w1.weight"])
        self.folder(config={"num_attention_heads": 0})
        self.refused_all("m", "-o", "x.gguf", code=3)
        self.folder(config={"head_dim": "x"})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["'head_dim' is string, not a number"])
        self.folder(config={"vocab_size": 1e300})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["vocab_size"])

    def test_scalings_without_a_form_in_gguf_are_refused(self):
        self.folder(config={"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["'dynamic'"])
        self.folder(config={"rope_scaling": {"rope_type": "linear"}})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["factor"])
        self.folder(config={"rope_scaling": {"type": "linear", "factor": 4}})
        self.wtool("convert", "m", "-o", "x.gguf")
        keys, tensors = read_gguf("x.gguf")
        self.assertEqual((keys["llama.rope.scaling.type"][1], keys["llama.rope.scaling.factor"][1]), ("linear", 4.0))
        self.assertNotIn("rope_freqs.weight", tensors)

    def test_two_names_for_one_tensor_are_refused(self):
        self.folder(tensors=lambda own: own | {"norm.weight": own["model.norm.weight"]})
        self.refused_all("m", "-o", "x.gguf", code=3, saying=["'norm.weight'", "'model.norm.weight'", "'output_norm.weight'"])

    def test_no_tokenizer(self):
        self.folder(drop=["tokenizer.json", "tokenizer_config.json"])
        self.refused_all("m", "-o", "x.gguf", code=2, saying=["--no-vocab"])
        done = self.wtool("convert", "m", "-o", "x.gguf", "--no-vocab")
        self.assertIn("without a tokenizer", done.stdout)
        self.assertFalse([k for k in read_gguf("x.gguf")[0] if k.startswith("tokenizer.")])

    def test_options_that_do_not_fit(self):
        self.folder()
        self.wtool("convert", "m", "-o", "x.gguf")
        for args, saying in ((("x.gguf", "-o", "y.gguf", "--pre", "qwen2"), "--pre"),
                             (("m", "-o", "y.safetensors", "--no-vocab"), "--no-vocab"),
                             (("m", "-o", "y.gguf", "--outtype", "f16", "--dtype", "f16"), "--outtype"),
                             (("m", "-o", "y.gguf", "--type", "q8_0", "--dtype", "f16"), "--type"),
                             (("m", "-o", "y.gguf", "--fallback"), "--fallback"),
                             (("m", "--to", "hf", "-o", "y"), "--to hf"),
                             (("x.gguf", "--to", "hf", "-o", "-"), "--to hf")):
            self.assertIn(saying, self.refused("convert", *args, code=2))

    # --- back

    def test_there_and_back_gives_the_same_tensors(self):
        for model in BACK:
            own = tensors_of(MODELS / model / "hf")
            self.wtool("convert", MODELS / model / "hf", "-o", "x.gguf", "-f")
            shutil.rmtree("back", ignore_errors=True)
            self.wtool("convert", "x.gguf", "--to", "hf", "-o", "back")
            self.assertEqual(tensors_of("back"), own, model)
            config = json.loads(pathlib.Path("back/config.json").read_text())
            for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "torch_dtype"):
                self.assertEqual(config[key], json.loads((MODELS / model / "hf/config.json").read_text())[key], (model, key))
            # By way of f32, too.
            self.wtool("convert", MODELS / model / "hf", "-o", "x.gguf", "-f", "--outtype", "f32")
            shutil.rmtree("back", ignore_errors=True)
            self.wtool("convert", "x.gguf", "--to", "hf", "-o", "back", "--dtype", "bf16")
            self.assertEqual(tensors_of("back"), own, model)

    def test_and_there_again_gives_the_same_file(self):
        for model in BACK:
            self.wtool("convert", MODELS / model / "hf", "-o", "x.gguf", "-f", "--set", "general.name=N")
            shutil.rmtree("back", ignore_errors=True)
            self.wtool("convert", "x.gguf", "--to", "hf", "-o", "back")
            self.wtool("convert", "back", "-o", "y.gguf", "-f", "--set", "general.name=N")
            self.assertEqual(read_gguf("y.gguf")[1], read_gguf("x.gguf")[1], model)

    def test_blocks_are_decoded(self):
        self.folder()
        self.wtool("convert", "m", "--type", "q8_0", "-o", "x.gguf")
        self.wtool("convert", "x.gguf", "--to", "hf", "-o", "back", "--dtype", "bf16")
        back, own = tensors_of("back"), tensors_of("m")
        self.assertEqual({n: t[:2] for n, t in back.items()}, {n: t[:2] for n, t in own.items()})
        worst = 0
        for name, (_, _, raw) in own.items():
            a, b = (struct.unpack(f"<{len(r) // 2}H", r) for r in (raw, back[name][2]))
            value = lambda x: struct.unpack("<f", struct.pack("<I", x << 16))[0]
            top = max(abs(value(x)) for x in a)
            worst = max([worst] + [abs(value(x) - value(y)) / top for x, y in zip(a, b)])
        self.assertGreater(worst, 0)
        self.assertLess(worst, 1 / 127)  # half a step of a block, and what bf16 rounds

    def test_without_a_way_back(self):
        self.folder("gpt2-tiny")
        self.wtool("convert", "m", "-o", "x.gguf")
        self.refused_all("x.gguf", "--to", "hf", "-o", "y", code=3, saying=["'gpt2'", "llama", "--to safetensors"])
        self.assertFalse(os.path.exists("y"))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"] if "-v" in sys.argv else sys.argv[:1])
