#!/usr/bin/env python3
"""quantize to ggml's types and mixes from outside: options, rules, refusals, keys.

usage: mixes_test.py WTOOL     (Python's standard library only)

That the bytes are the reference's is tested in tests/interop; types here were worked out by hand
from llama.cpp's rules.
"""
import hashlib
import json
import math
import os
import pathlib
import random
import struct
import subprocess
import sys
import unittest

from weight_files import Command, dat, floats, gguf, read_gguf, write_safetensors


def write_imatrix(path, entries):
    """name -> one sum of squares for each column, after two calls"""
    pathlib.Path(path).write_bytes(dat([(name, 2, sums) for name, sums in entries.items()], (7, "wiki.txt")))


def noise(n, seed=1):
    r = random.Random(seed)
    return floats([r.gauss(0, 0.02) for _ in range(n)])


def weights(*shape, seed=1):
    return ("f32", list(shape), noise(math.prod(shape), seed))


KEYS = {"general.architecture": (8, "llama"), "llama.block_count": (4, 2), "llama.attention.head_count": (4, 4),
        "llama.attention.head_count_kv": (4, 4), "general.file_type": (4, 0)}


class Mixes(Command):
    def model(self, path="m.gguf", extra={}, keys={}, tied=False, dtype=None):
        """Two layers; the second one first in the file."""
        tensors = {"token_embd.weight": weights(8, 256)}
        if not tied:
            tensors["output.weight"] = weights(8, 256, seed=2)
        for layer in (1, 0):
            for part in ("attn_q", "attn_v", "ffn_up", "ffn_down"):
                tensors[f"blk.{layer}.{part}.weight"] = weights(8, 256, seed=layer)
            tensors[f"blk.{layer}.attn_norm.weight"] = ("f32", [256], noise(256))
        tensors |= extra
        pathlib.Path(path).write_bytes(gguf(tensors, KEYS | keys))
        return tensors

    def types(self, *args, code=0):
        """name -> (type, reason), from the dry run"""
        done = self.wtool("quantize", *args, "-n", "--json", code=code)
        report = json.loads(done.stdout)
        return {t["name"]: (t["to"], t.get("reason", "")) for t in report["tensors"]}

    # --- mixes -------------------------------------------------------------------------------

    def test_a_mix_gives_types_and_reasons(self):
        self.model()
        types = self.types("--type", "Q4_K_M", "m.gguf")
        self.assertEqual(types["token_embd.weight"], ("q4_k", "q4_k_m"))
        self.assertEqual(types["output.weight"], ("q6_k", "q4_k_m: output"))
        self.assertEqual(types["blk.0.attn_norm.weight"], ("f32", "norm"))
        # Of two, 7 * 2 / 8 = 1: the second one is among the last eighth.
        self.assertEqual(types["blk.0.ffn_down.weight"], ("q4_k", "q4_k_m"))
        self.assertEqual(types["blk.1.ffn_down.weight"][0], "q6_k")
        self.assertEqual(types["blk.1.attn_v.weight"], ("q6_k", "q4_k_m: attn_v, one of the layers with more bits"))
        self.assertEqual(self.types("--type", "q4_k", "m.gguf"), types)

    def test_the_file_says_what_the_plan_said_in_the_same_order(self):
        source = self.model()
        plan = self.types("--type", "q4_k_m", "m.gguf")
        size = json.loads(self.wtool("quantize", "--type", "q4_k_m", "m.gguf", "-n", "--json").stdout)["output"]["bytes"]
        self.wtool("quantize", "--type", "q4_k_m", "m.gguf")
        keys, tensors = read_gguf("m-q4_k_m.gguf")
        self.assertEqual(list(tensors), list(source))
        self.assertEqual({n: t[0] for n, t in tensors.items()}, {n: t for n, (t, _) in plan.items()})
        self.assertEqual(os.path.getsize("m-q4_k_m.gguf"), size)
        self.assertEqual(list(keys)[: len(KEYS)], list(KEYS))
        self.assertEqual(keys["general.file_type"], (4, 15))
        self.assertEqual(keys["general.quantization_version"], (4, 2))
        self.assertEqual(tensors["blk.0.attn_norm.weight"], source["blk.0.attn_norm.weight"])

    def test_tied_embeddings_have_the_type_of_the_output(self):
        self.model(tied=True)
        self.assertEqual(self.types("--type", "q4_0", "m.gguf")["token_embd.weight"],
                         ("q6_k", "q4_0: token embedding, used as output too"))
        self.refused("quantize", "--type", "q4_0", "--leave-output-tensor", "m.gguf", saying=["no output tensor"])

    def test_pure_is_one_type(self):
        self.model()
        types = self.types("--type", "q5_k_m", "--pure", "m.gguf")
        self.assertEqual({t for n, (t, _) in types.items() if "norm" not in n}, {"q5_k"})
        self.refused("quantize", "--int8", "--pure", "m.gguf", saying=["--pure is for --type"])

    def test_a_type_that_is_no_mix_is_for_everything(self):
        self.model()
        self.wtool("quantize", "--type", "mxfp4", "m.gguf")
        keys, tensors = read_gguf("m-mxfp4.gguf")
        self.assertEqual({t for n, (t, _, _) in tensors.items() if "norm" not in n}, {"mxfp4"})
        self.assertEqual(keys["general.file_type"], (4, 38))

    def test_options_for_output_and_embedding_are_rules(self):
        self.model()
        types = self.types("--type", "q4_k_m", "--leave-output-tensor", "--token-embedding-type", "Q8_0", "m.gguf")
        self.assertEqual(types["output.weight"], ("f32", "--leave-output-tensor"))
        self.assertEqual(types["token_embd.weight"], ("q8_0", "--token-embedding-type q8_0"))
        types = self.types("--type", "q4_k_m", "-T", "*=q5_1", "--output-tensor-type", "f16", "m.gguf")
        self.assertEqual(types["output.weight"], ("f16", "--output-tensor-type f16"))
        self.assertEqual(types["token_embd.weight"], ("q5_1", "-T *=q5_1"))

    def test_int8_still_keeps_what_the_policy_keeps(self):
        self.model()
        types = self.types("--int8", "m.gguf")
        self.assertEqual(types["output.weight"], ("f32", "head"))
        self.assertEqual(types["blk.0.attn_q.weight"][0], "q8_0")

    # --- rules -------------------------------------------------------------------------------

    def test_the_last_matching_rule_wins(self):
        self.model()
        types = self.types("--type", "q4_0", "-T", "attn_*=q5_0", "-T", "layer:1=q4_1", "-T", "blk.1.attn_v=keep", "m.gguf")
        self.assertEqual(types["blk.0.attn_q.weight"], ("q5_0", "-T attn_*=q5_0"))
        self.assertEqual(types["blk.1.attn_q.weight"][0], "q4_1")
        self.assertEqual(types["blk.1.attn_v.weight"], ("f32", "-T blk.1.attn_v=keep"))
        # A pattern is for weights; a name means what it says.
        self.assertEqual(types["blk.1.attn_norm.weight"], ("f32", "norm"))
        types = self.types("--type", "q4_0", "-T", "blk.1.attn_norm.weight=q4_1", "m.gguf")
        self.assertEqual(types["blk.1.attn_norm.weight"][0], "q4_1")

    def test_a_recipe_is_rules_in_a_file(self):
        self.model()
        pathlib.Path("r.txt").write_text("# for the small one\r\n\n  attn_*.weight = q5_0   # all of it\nblk.1.*=q4_1\nre:output=f16")
        types = self.types("--type", "q4_0", "--recipe", "r.txt", "-T", "blk.1.ffn_up=q8_0", "m.gguf")
        self.assertEqual(types["blk.0.attn_q.weight"], ("q5_0", "r.txt:3 attn_*.weight=q5_0"))
        self.assertEqual(types["blk.1.attn_q.weight"][0], "q4_1")
        self.assertEqual(types["blk.1.ffn_up.weight"][0], "q8_0")
        self.assertEqual(types["output.weight"][0], "f16")
        # A recipe alone: what it does not name stays.
        self.assertEqual(self.types("--recipe", "r.txt", "m.gguf")["token_embd.weight"], ("f32", "no rule"))

    def test_recipe_errors_have_a_line(self):
        self.model()
        for line, saying in (("attn_q", ["r.txt:2"]), ("attn_q=q4_q", ["r.txt:2", "'q4_q'", "did you mean"]),
                             ("attn_x=q4_0", ["r.txt:2", "attn_x"]), ("attn_q=q4_k_m", ["r.txt:2", "mix", "q4_k"]),
                             ("attn_q=iq2_xs", ["r.txt:2", "iq2_xs", "cannot write"])):
            pathlib.Path("r.txt").write_text(f"# first\n{line}\n")
            self.refused("quantize", "--type", "q4_0", "--recipe", "r.txt", "m.gguf", saying=saying)
        self.refused("quantize", "--type", "q4_0", "--recipe", "none.txt", "m.gguf", saying=["none.txt"], code=4)

    def test_unselected_tensors_stay(self):
        self.model()
        types = self.types("--type", "q4_0", "-t", "layer:0", "m.gguf")
        self.assertEqual(types["blk.1.attn_q.weight"], ("f32", "not selected"))
        self.assertEqual(types["blk.0.attn_q.weight"][0], "q4_0")

    def test_two_wishes_for_the_output_are_refused(self):
        self.model()
        self.refused("quantize", "--type", "q4_0", "--leave-output-tensor", "--output-tensor-type", "q8_0", "m.gguf",
                     saying=["choose one of --leave-output-tensor, --output-tensor-type"])

    # --- refusals ----------------------------------------------------------------------------

    def test_unknown_and_unwritable_types(self):
        self.model()
        self.refused("quantize", "--type", "q4_kk", "m.gguf", saying=["'q4_kk'", "did you mean 'q4_k"])
        self.refused("quantize", "--type", "qwerty", "m.gguf", saying=["'qwerty'", "q4_k_m"])
        self.refused("quantize", "--type", "iq2_xxs", "m.gguf", saying=["iq2_xxs", "cannot write", "iq4_xs"])
        self.refused("quantize", "--type", "IQ3_M", "m.gguf", saying=["iq3_m needs iq3_s", "iq4_xs"])
        self.refused("quantize", "--type", "q8_k", "m.gguf", saying=["q8_k", "cannot write"])
        self.refused("quantize", "--type", "q2_k_s", "m.gguf", saying=["q2_k_s needs an importance matrix", "q2_k"])
        self.refused("quantize", "--type", "i8", "m.gguf", saying=["'i8'", "GGUF"])
        self.refused("quantize", "--type", "q4_0", "--int8", "m.gguf", saying=["choose one of"])
        self.refused("quantize", "--type", "q4_0", "--method", "good", "m.gguf", saying=["'good'", "exact or best"])

    def test_rows_that_fit_no_block(self):
        self.model(extra={"blk.0.odd.weight": weights(4, 96), "blk.1.odd.weight": weights(4, 96),
                          "blk.1.odder.weight": weights(4, 40)})
        said = self.refused("quantize", "--type", "q4_k_m", "m.gguf",
                            saying=["tensors 'blk.0.odd.weight', 'blk.1.odd.weight': rows of 96", "256", "q4_k", "--fallback: q5_0",
                                    "--fallback: f16"])
        self.assertIn("hint: --fallback", said)
        report = json.loads(self.wtool("quantize", "--type", "q4_k_m", "--fallback", "m.gguf", "--json").stdout)
        odd = {t["name"]: t for t in report["tensors"]}
        self.assertEqual((odd["blk.0.odd.weight"]["to"], odd["blk.0.odd.weight"]["instead_of"]), ("q5_0", "q4_k"))
        self.assertIn("rows of 96", odd["blk.0.odd.weight"]["reason"])
        self.assertEqual(odd["blk.1.odder.weight"]["to"], "f16")
        self.assertNotIn("instead_of", odd["blk.0.attn_q.weight"])
        _, tensors = read_gguf("m-q4_k_m.gguf")
        self.assertEqual(tensors["blk.0.odd.weight"][0], "q5_0")
        self.assertEqual(tensors["blk.1.odder.weight"][0], "f16")
        self.refused("quantize", "-T", "odder=nvfp4", "--fallback", "m.gguf", saying=["rows of 40", "no fallback"])
        self.assertIn("q5_0, not q4_k", self.wtool("quantize", "--type", "q4_k_m", "--fallback", "m.gguf", "-f").stdout)

    def test_many_misfits_are_all_named_and_hints_help(self):
        self.model(extra={f"blk.{i}.odd.weight": weights(2, 40) for i in range(30)})
        said = self.refused("quantize", "--type", "q4_k_m", "m.gguf", saying=["'blk.*.odd.weight' x30", "--fallback: f16"])
        self.assertNotIn("more", said)
        said = self.refused("quantize", "--type", "nvfp4", "--fallback", "m.gguf", saying=["no fallback", "-T 'NAME=TYPE'"])
        self.assertNotIn("brackets", said)

    def test_again_needs_requantize(self):
        self.model()
        self.wtool("quantize", "--type", "q8_0", "m.gguf", "-o", "q.gguf")
        self.refused("quantize", "--type", "q4_0", "q.gguf", saying=["q8_0 already", "'output.weight'", "--requantize"])
        for option in ("--requantize", "--allow-requantize"):
            self.wtool("quantize", "--type", "q4_0", option, "q.gguf", "-f")
        _, tensors = read_gguf("q-q4_0.gguf")
        self.assertEqual(tensors["blk.0.attn_q.weight"][0], "q4_0")
        # What has the type already is copied, with or without.
        types = self.types("--type", "q8_0", "-T", "output=f16", "q.gguf")
        self.assertEqual(types["blk.0.attn_q.weight"], ("q8_0", "already q8_0"))

    def test_nan_writes_nothing(self):
        bad = bytearray(noise(8 * 256))
        struct.pack_into("<f", bad, 4 * 300, math.nan)
        self.model(extra={"blk.0.bad.weight": ("f32", [8, 256], bytes(bad))})
        self.refused("quantize", "--type", "q4_k_m", "m.gguf", saying=["'blk.0.bad.weight'", "300"], code=3)

    def test_gates(self):
        self.model()
        said = self.wtool("quantize", "--type", "q4_k_m", "m.gguf", "--gate", "max(rel_rmse) <= 0.001", code=1).stdout
        self.assertIn("FAILED", said)
        self.assertFalse(os.path.exists("m-q4_k_m.gguf"))

    def test_a_gate_without_anything_to_judge_is_an_error(self):
        tensors = self.model()
        quantize = ("quantize", "--type", "q4_k_m", "m.gguf")
        self.refused(*quantize, "--gate", "max(max_steps) <= 1", saying=["no tensor here has a max_steps", "rel_rmse, sqnr_db", "cos"])
        for metric in ("weighted_rel_rmse", "fallback_blocks"):  # known from headers
            for more in ((), ("-n",)):
                self.refused(*quantize, *more, "--gate", f"max({metric}) <= 1", saying=[f"has a {metric}", "--imatrix"])
        self.refused(*quantize, "--gate", "max(rel_rmse) <= nan", saying=["no number"])
        self.matrix(tensors)
        self.wtool(*quantize, "--imatrix", "i.dat", "--gate", "max(fallback_blocks) <= 0", "--gate", "max(weighted_rel_rmse) <= 1")
        self.wtool("quantize", "--type", "q8_0", "m.gguf", "--gate", "max(max_steps) <= 1")

    def test_the_table_fits_narrow_terminals_with_whole_names(self):
        self.matrix(self.model())
        for columns in ("60", "80"):
            done = subprocess.run([self.program, "quantize", "--type", "q4_k_m", "m.gguf", "-f", "--imatrix", "i.dat"],
                                  capture_output=True, text=True, env=os.environ | {"COLUMNS": columns, "LC_ALL": "C.UTF-8"})
            table = done.stdout.split("worst by relative error")[1].split("importance matrix")[0]
            self.assertIn("\nblk.0.attn_q.weight ", table)
            self.assertIn("weighted", table)
            self.assertLessEqual(max(len(line) for line in table.split("\n")), int(columns))

    # --- formats -----------------------------------------------------------------------------

    def test_from_safetensors_type_means_gguf(self):
        layer = "model.layers.{}.self_attn.v_proj.weight"
        source = {"model.embed_tokens.weight": ("F32", [8, 256], noise(2048)), "lm_head.weight": ("F32", [8, 256], noise(2048))}
        source |= {layer.format(i): ("F32", [8, 256], noise(2048)) for i in (0, 1, 10, 2)}
        source["model.norm.weight"] = ("F32", [256], noise(256))
        write_safetensors("m.safetensors", source)
        self.wtool("quantize", "--type", "q4_k_m", "m.safetensors")
        keys, tensors = read_gguf("m-q4_k_m.gguf")
        self.assertEqual(keys["general.file_type"], (4, 15))
        self.assertEqual(list(tensors), list(source))
        self.assertEqual(tensors["lm_head.weight"][0], "q6_k")
        # 4 of them: the last (7 * 4 / 8 = 3) and the one that is 2 after the first eighth (0).
        self.assertEqual([tensors[layer.format(i)][0] for i in (0, 1, 2, 10)], ["q4_k", "q4_k", "q6_k", "q6_k"])
        self.refused("quantize", "--type", "q4_k_m", "m.safetensors", "-o", "o.safetensors", saying=["--type is for GGUF"])
        self.refused("quantize", "-T", "v_proj=q4_k", "m.safetensors", saying=["q4_k", "safetensors", "--to gguf"])
        self.refused("quantize", "--int8", "--imatrix", "x.dat", "--method", "rtn", "m.safetensors", saying=["--imatrix", "nearest"])
        self.wtool("quantize", "-T", "v_proj=q4_k", "m.safetensors", "--to", "gguf", "-o", "t.gguf")
        self.assertEqual(read_gguf("t.gguf")[1][layer.format(0)][0], "q4_k")

    def test_from_npy(self):
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (8, 256), }"
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        os.mkdir("n")
        pathlib.Path("n/blk.0.attn_q.weight.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + noise(2048))
        self.wtool("quantize", "--type", "q4_k_m", "n", "-o", "o.gguf")
        _, tensors = read_gguf("o.gguf")
        self.assertEqual(tensors["blk.0.attn_q.weight"][:2], ("q4_k", [8, 256]))

    def test_from_a_folder_config_tells_heads_and_layers(self):
        os.mkdir("hf")
        source = {f"model.layers.{i}.self_attn.{p}_proj.weight": ("F32", [8, 256], noise(2048)) for i in range(2) for p in "qv"}
        write_safetensors("hf/model.safetensors", source | {"lm_head.weight": ("F32", [8, 256], noise(2048))})
        config = {"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 8}
        for heads, want in ((8, "q4_k"), (16, "q3_k")):
            pathlib.Path("hf/config.json").write_text(json.dumps(config | {"num_key_value_heads": heads}))
            self.assertEqual(self.types("--type", "q2_k", "--as-is", "hf", "-o", "o.gguf")["model.layers.0.self_attn.v_proj.weight"][0], want)

    def test_long_names_are_refused_with_a_way_out(self):
        name = "model." + "x" * 60 + ".weight"
        write_safetensors("m.safetensors", {name: ("F32", [8, 256], noise(2048))})
        self.refused("quantize", "--type", "q4_0", "m.safetensors", saying=["63", "--rename"])
        self.wtool("quantize", "--type", "q4_0", "m.safetensors", "--rename", "x+=x")

    def test_alignment_is_kept(self):
        for align in (64, 4096):
            source = self.model(keys={"general.alignment": (4, align)})
            self.wtool("quantize", "--type", "q4_k_m", "m.gguf", "-f")
            keys, tensors = read_gguf("m-q4_k_m.gguf")  # checks the offsets
            self.assertEqual(keys["general.alignment"], (4, align))
            self.assertEqual(tensors["blk.0.attn_norm.weight"], source["blk.0.attn_norm.weight"])

    def test_shards_have_their_keys_and_names(self):
        source = self.model()
        self.wtool("quantize", "--type", "q8_0", "m.gguf", "-o", "parts/", "--shard-size", "8KB")
        names = sorted(os.listdir("parts"))
        n = len(names)
        self.assertGreater(n, 1)
        self.assertEqual(names, [f"m-{i + 1:05d}-of-{n:05d}.gguf" for i in range(n)])
        all_tensors = []
        for i, name in enumerate(names):
            keys, tensors = read_gguf("parts/" + name)
            self.assertEqual(keys["split.no"], (2, i))
            self.assertEqual(keys["split.count"], (2, n))
            self.assertEqual(keys["split.tensors.count"], (5, len(source)))
            self.assertEqual("general.file_type" in keys, i == 0)
            all_tensors += list(tensors)
        self.assertEqual(all_tensors, list(source))

    def test_what_set_and_unset_say_stands(self):
        self.matrix(self.model())
        self.wtool("quantize", "--type", "q4_k_m", "m.gguf", "--imatrix", "i.dat", "-o", "o.gguf", "--set",
                   "quantize.imatrix.file=mine", "--unset", "general.file_type")
        keys, _ = read_gguf("o.gguf")
        self.assertEqual(keys["quantize.imatrix.file"], (8, "mine"))
        self.assertNotIn("general.file_type", keys)
        self.assertIn("wtool.imatrix.sha256", keys)

    # --- importance matrices -----------------------------------------------------------------

    def matrix(self, tensors, path="i.dat", **changes):
        entries = {n: [1.0 + i % 7 for i in range(t[1][-1])] for n, t in tensors.items() if n.startswith("blk") and len(t[1]) > 1}
        write_imatrix(path, entries | changes)
        return entries

    def test_an_importance_matrix_changes_the_bytes_and_is_recorded(self):
        entries = self.matrix(self.model())
        self.wtool("quantize", "--type", "q4_k_m", "m.gguf", "-o", "plain.gguf")
        said = self.wtool("quantize", "--type", "q4_k_m", "m.gguf", "--imatrix", "i.dat", "-o", "o.gguf", "--json").stdout
        keys, tensors = read_gguf("o.gguf")
        self.assertEqual(keys["quantize.imatrix.file"], (8, "i.dat"))
        self.assertEqual(keys["quantize.imatrix.dataset"], (8, "wiki.txt"))
        self.assertEqual(keys["quantize.imatrix.entries_count"], (4, len(entries)))
        self.assertEqual(keys["quantize.imatrix.chunks_count"], (4, 7))
        digest = hashlib.sha256(pathlib.Path("i.dat").read_bytes()).hexdigest()
        self.assertEqual(keys["wtool.imatrix.sha256"], (8, digest))
        report = {t["name"]: t for t in json.loads(said)["tensors"]}
        self.assertEqual(report["blk.0.attn_q.weight"]["importance"], "used")
        self.assertEqual(report["output.weight"]["importance"], "missing")
        self.assertNotIn("importance", report["blk.0.attn_norm.weight"])
        _, plain = read_gguf("plain.gguf")
        self.assertNotEqual(plain["blk.0.attn_q.weight"], tensors["blk.0.attn_q.weight"])
        self.assertEqual(plain["token_embd.weight"], tensors["token_embd.weight"])
        self.assertEqual(self.types("--type", "q8_0", "--imatrix", "i.dat", "m.gguf")["output.weight"][0], "q8_0")

    def test_entries_that_lack_or_misfit_are_listed(self):
        tensors = self.model()
        entries = self.matrix(tensors)
        del entries["blk.0.attn_q.weight"]
        entries["blk.1.attn_v.weight"] = [1.0] * 128
        entries["token_embd.weight"] = [1.0] * 128
        write_imatrix("i.dat", entries)
        said = self.wtool("quantize", "--type", "q4_k_m", "m.gguf", "--imatrix", "i.dat").stdout
        self.assertIn("no entry for", said)
        self.assertIn("blk.0.attn_q.weight", said)
        self.assertRegex(said, r"blk\.1\.attn_v\.weight.*128")
        os.remove("m-q4_k_m.gguf")
        error = self.refused("quantize", "--type", "q4_k_m", "m.gguf", "--imatrix", "i.dat", "--require-imatrix",
                             saying=["'blk.0.attn_q.weight'", "'blk.1.attn_v.weight'", "128"])
        for never in ("token_embd", "output.weight"):  # no matrix has them
            self.assertNotIn(never, error)
        self.refused("quantize", "--type", "q2_k_s", "m.gguf", "--imatrix", "i.dat", saying=["'blk.0.attn_q.weight'", "q2_k_s needs it"])
        self.matrix(tensors)
        self.wtool("quantize", "--type", "q2_k_s", "m.gguf", "--imatrix", "i.dat", "--require-imatrix")

    def test_blocks_without_a_finite_weighted_fit_are_counted_and_named(self):
        golden = pathlib.Path(__file__).resolve().parents[2] / "testdata" / "ggml"  # row 53: one block
        row = (golden / "input.f32").read_bytes()[53 * 512 * 4 : 54 * 512 * 4]
        sums = struct.unpack("<512f", (golden / "imatrix.f32").read_bytes())
        tensors = self.model(extra={"blk.0.huge.weight": ("f32", [2, 512], row + noise(512))})
        write_imatrix("i.dat", self.matrix(tensors) | {"blk.0.huge.weight": [2 * s for s in sums]})
        done = self.wtool("quantize", "--type", "q4_1", "m.gguf", "--imatrix", "i.dat", "--json")
        report = json.loads(done.stdout)
        blocks = {t["name"]: t.get("fallback_blocks") for t in report["tensors"]}
        self.assertEqual(blocks["blk.0.huge.weight"], 1)
        self.assertEqual(blocks["blk.0.attn_q.weight"], 0)
        self.assertTrue(any("not finite" in r and "in 'blk.0.huge.weight'" in r for r in report["remarks"]), report["remarks"])

    def test_types_that_ignore_a_matrix_take_one(self):
        self.matrix(self.model())
        for kind in ("tq2_0", "q8_0"):
            said = self.wtool("quantize", "--type", kind, "m.gguf", "--imatrix", "i.dat").stdout
            self.assertIn("make no use of one", said)

    def test_entries_without_a_tensor_are_listed(self):
        entries = self.matrix(self.model())
        write_imatrix("i.dat", entries | {"blk.7.attn_q.weight": [1.0] * 256})
        said = self.wtool("quantize", "--type", "q4_k_m", "m.gguf", "--imatrix", "i.dat").stdout
        self.assertIn("entries without a tensor: 'blk.7.attn_q.weight'", said)

    def test_a_matrix_of_another_model_is_refused(self):
        self.model()
        write_imatrix("i.dat", {"blk.0.nothing.weight": [1.0] * 256})
        self.refused("quantize", "--type", "q4_k_m", "m.gguf", "--imatrix", "i.dat", saying=["i.dat: none of its 1 entries"])
        write_imatrix("i.dat", {"blk.0.attn_q.weight": [1.0] * 512})
        self.refused("quantize", "--type", "q4_k_m", "m.gguf", "--imatrix", "i.dat", saying=["i.dat: no entry fits", "blk.0.attn_q.weight", "512", "256"])
        self.refused("quantize", "--type", "q4_k_m", "m.gguf", "--imatrix", "none.dat", saying=["none.dat"], code=4)
        self.refused("quantize", "--type", "q4_k_m", "m.gguf", "--require-imatrix", saying=["--imatrix FILE"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
