#!/usr/bin/env python3
"""check of a model's health from outside.

usage: check_test.py WTOOL     (Python's standard library only)
"""
import hashlib
import io
import json
import os
import pathlib
import pickle
import struct
import sys
import tarfile
import unittest
import zipfile

from findings_files import junit, sarif
from weight_files import F32, STRING, U32, Command, floats, gguf, read_gguf, write_safetensors

NAN, INF = float("nan"), float("inf")


def halves(values):
    return struct.pack(f"<{len(values)}e", *values)


def ramp(n, start=1):
    return floats([start + i / 8 for i in range(n)])


def zip_of(name, text):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(name, text)
    return out.getvalue()


class Check(Command):
    def check(self, path, *more, code=0):
        return json.loads(self.wtool("check", "--json", path, *more, code=code).stdout)

    def findings(self, path, *more, code=0):
        return [(f["rule"], f["level"]) for f in self.check(path, *more, code=code)["findings"]]

    def one(self, rule, path, *more, code=0):
        """The only finding of a rule."""
        found = [f for f in self.check(path, *more, code=code)["findings"] if f["rule"] == rule]
        self.assertEqual(len(found), 1, found)
        return found[0]

    def model(self, path="m.safetensors", metadata={"format": "pt"}, **more):
        write_safetensors(path, {"a": ("F32", [4, 8], ramp(32)), "b": ("F32", [6], ramp(6, 9)), **more}, metadata)

    # ---- structure

    def test_a_sound_model_is_healthy(self):
        self.model()
        said = self.wtool("check", "m.safetensors").stdout
        self.assertIn("m.safetensors: healthy: nothing found (safetensors, 2 tensors, ", said)
        document = self.check("m.safetensors")
        self.assertEqual((document["ok"], document["findings"], document["lost"]), (True, [], []))
        self.assertEqual((document["values"]["tensors"], document["values"]["bytes"]), (2, 38 * 4))

    def test_what_a_cut_download_lost_is_located(self):
        self.model(c=("F32", [100], ramp(100)), d=("F32", [10], ramp(10)))
        whole = pathlib.Path("m.safetensors").read_bytes()
        start = 8 + struct.unpack_from("<Q", whole)[0]
        cut = whole[: start + 38 * 4 + 100]  # 100 of the 400 bytes of c
        pathlib.Path("cut.safetensors").write_bytes(cut)
        document = self.check("cut.safetensors", code=1)
        found = document["findings"][0]
        self.assertEqual((found["rule"], found["level"], found["offset"]), ("safetensors.truncated", "error", len(cut)))
        self.assertIn("is 340 bytes short", found["message"])
        self.assertIn("fetch the file again", found["fix"])
        self.assertEqual([(x["tensor"], x["bytes"], x["present"]) for x in document["lost"]],
                         [("c", 400, 100), ("d", 40, 0)])
        said = self.wtool("check", "cut.safetensors", code=1).stdout
        self.assertIn("cut.safetensors: DAMAGED: 1 error", said)
        self.assertIn("lost: 2 tensors of 4", said)
        self.assertIn("--salvage", said)

    def test_a_pattern_that_names_a_lost_tensor_says_that_it_is_lost(self):
        self.model(c=("F32", [100], ramp(100)), d=("F32", [10], ramp(10)))
        whole = pathlib.Path("m.safetensors").read_bytes()
        pathlib.Path("m.safetensors").write_bytes(whole[:-60])
        for patterns, values, told in ((["c"], 0, ["tensor 'c' is lost"]), (["c", "b"], 1, ["tensor 'c' is lost"]),
                                       (["c", "d"], 0, ["tensor 'c' is lost", "tensor 'd' is lost"]), (["re:^[cd]$"], 0, ["'c' (and 1 more that"]),
                                       (["*"], 2, [])):
            done = self.wtool("check", "--json", "m.safetensors", *[x for p in patterns for x in ("-t", p)], code=1)
            self.assertEqual(json.loads(done.stdout)["values"]["tensors"], values, patterns)
            for words in told:
                self.assertIn(words, done.stderr)
            self.assertEqual("lost" in done.stderr, bool(told))
        self.assertIn("tensor 'd' is lost", self.wtool("check", "m.safetensors", "-x", "d", code=1).stderr)
        self.refused("check", "m.safetensors", "-t", "e", saying=["no tensor matches 'e'"])
        self.refused("check", "m.safetensors", "-t", "dtype:f16", saying=["no tensor matches"])  # theirs are not known

    def test_every_fault_of_a_file_is_found_in_one_run(self):
        header = {"ok": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                  "size": {"dtype": "F32", "shape": [3], "data_offsets": [8, 16]},
                  "type": {"dtype": "F33", "shape": [1], "data_offsets": [16, 20]},
                  "over": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}
        text = json.dumps(header).encode()
        pathlib.Path("m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(20))
        document = self.check("m.safetensors", "--fast", code=1)
        self.assertEqual({f["rule"] for f in document["findings"] if f["level"] == "error"},
                         {"tensor.size", "safetensors.dtype", "safetensors.overlap"})
        at = {f["rule"]: f["offset"] for f in document["findings"] if f["level"] == "error"}
        raw = pathlib.Path("m.safetensors").read_bytes()
        for rule, name in (("tensor.size", b'"size"'), ("safetensors.dtype", b'"type"'), ("safetensors.overlap", b'"over"')):
            self.assertEqual(raw[at[rule] : at[rule] + len(name)], name, rule)
        self.assertEqual(document["lost_count"], 3)

    def test_an_index_is_held_against_its_files(self):
        os.mkdir("m")
        write_safetensors("m/model-00001-of-00002.safetensors", {"a": ("F32", [4], ramp(4))}, {"format": "pt"})
        write_safetensors("m/model-00002-of-00002.safetensors", {"b": ("F32", [4], ramp(4, 3)), "c": ("F32", [4], ramp(4, 5))}, {"format": "pt"})
        index = {"metadata": {"total_size": 47},
                 "weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
                                "gone": "model-00001-of-00002.safetensors"}}
        pathlib.Path("m/model.safetensors.index.json").write_text(json.dumps(index))
        found = self.findings("m", code=1)
        for rule in ("index.wrong-shard", "index.missing-tensor", "index.stray-tensor", "index.total-size"):
            self.assertIn((rule, "error"), found)
        self.assertIn(("index.total-size", "warning"), self.findings("m", "--lenient", code=1))

    def test_a_file_of_a_set_that_is_none_is_a_finding_and_the_others_are_read(self):
        os.mkdir("m")
        write_safetensors("m/model-00001-of-00002.safetensors", {"a": ("F32", [4], ramp(4))}, {"format": "pt"})
        pathlib.Path("m/model-00002-of-00002.safetensors").write_text("<!DOCTYPE html><html>no</html>")
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
        pathlib.Path("m/model.safetensors.index.json").write_text(json.dumps(index))
        document = self.check("m", code=1)
        self.assertEqual(document["model"]["tensors"], 1)
        found = [f for f in document["findings"] if f["rule"] == "set.unreadable"]
        self.assertIn("HTML page", found[0]["message"])

    def test_lenient_says_what_it_forgives(self):
        text = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}}'
        pathlib.Path("m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + floats([1]))
        self.assertIn(("safetensors.unknown-member", "error"), self.findings("m.safetensors", code=1))
        self.assertIn(("safetensors.unknown-member", "error"), self.findings("m.safetensors", "--strict", code=1))
        found = self.one("safetensors.unknown-member", "m.safetensors", "--lenient")
        self.assertEqual((found["level"], found["forgiven"]), ("warning", True))
        self.assertEqual(self.check("m.safetensors", "--lenient")["counts"]["forgiven"], 1)

    # ---- values

    def test_values_that_are_no_numbers_are_found_with_index_and_bits(self):
        values = [1.0] * 24
        values[17] = NAN
        self.model(x=("F16", [4, 6], halves(values)), y=("F32", [3], floats([1, -INF, 2])))
        found = self.one("values.nan", "m.safetensors")
        self.assertEqual((found["level"], found["tensor"]), ("warning", "x"))
        for word in ("[2, 5]", "7e00"):
            self.assertIn(word, found["message"].lower())
        raw = pathlib.Path("m.safetensors").read_bytes()
        self.assertEqual(raw[found["offset"] : found["offset"] + 2], halves([NAN]))
        inf = self.one("values.inf", "m.safetensors")
        self.assertEqual((inf["level"], inf["tensor"]), ("warning", "y"))
        self.assertIn("ff800000", inf["message"].lower())
        self.assertEqual(self.findings("m.safetensors", "--fast"), [])
        self.assertNotIn("values.nan", [f[0] for f in self.findings("m.safetensors", "-x", "x")])
        # No format forbids them: who does, says so.
        for level, code in (("warning", 1), ("values.nan", 1), ("values", 1), ("values.zero,values.inf", 1),
                            ("error", 0), ("values.zero", 0), ("content", 0)):
            self.wtool("check", "m.safetensors", "--fail-on", level, code=code)
        said = self.wtool("check", "m.safetensors").stdout
        self.assertIn("m.safetensors: no errors: 2 warnings (", said)

    def test_a_scale_that_is_not_finite_is_an_error(self):
        block = struct.pack("<e", 0.5) + bytes(range(32))
        bad = struct.pack("<e", INF) + bytes(32)
        keys = {"general.architecture": (STRING, "llama"), "general.quantization_version": (U32, 2)}
        pathlib.Path("m.gguf").write_bytes(gguf({"w.weight": ("q8_0", [3, 32], block + bad + block)}, keys))
        found = self.one("values.scale", "m.gguf", code=1)
        self.assertEqual((found["level"], found["tensor"]), ("error", "w.weight"))
        raw = pathlib.Path("m.gguf").read_bytes()
        self.assertEqual(found["offset"], raw.index(bad))

    def test_a_scale_of_bytes_is_a_power_of_two_and_255_is_none(self):
        codes, scale = ("U8", [2, 16], bytes(range(1, 33))), bytes([127, 255])
        for names, shape, expected in ((("m.weight_packed", "m.weight_scale"), [2, 1], ["m.weight_scale"]),
                                       (("m.weight_packed", "m.other"), [2, 1], [])):
            write_safetensors("m.safetensors", {names[0]: codes, names[1]: ("U8", shape, scale)}, {"format": "pt"})
            found = [f for f in self.check("m.safetensors", code=1 if expected else 0)["findings"] if f["rule"] == "values.scale"]
            self.assertEqual([f["tensor"] for f in found], expected)
        write_safetensors("m.safetensors", {"e.gate_up_proj_blocks": ("U8", [1, 2, 1, 16], codes[2]),
                                            "e.gate_up_proj_scales": ("U8", [1, 2, 1], scale)}, {"format": "pt"})
        found = self.one("values.scale", "m.safetensors", code=1)
        self.assertEqual((found["tensor"], found["offset"]), ("e.gate_up_proj_scales", len(pathlib.Path("m.safetensors").read_bytes()) - 1))
        self.assertIn("1 of 2 scales is NaN, the first at [0, 1, 0] (element 1): bits 0xff", found["message"])

    def test_tensors_of_zeros_and_tensors_stored_twice_are_told(self):
        table = ramp(4096)
        self.model(zero=("F32", [64, 64], bytes(64 * 64 * 4)), **{"embed.weight": ("F32", [64, 64], table), "head.weight": ("F32", [64, 64], table)})
        found = self.findings("m.safetensors")
        self.assertIn(("values.zero", "warning"), found)
        twice = self.one("values.duplicate", "m.safetensors")
        self.assertEqual(twice["level"], "note")
        self.assertIn("embed.weight", twice["message"] + twice["tensor"])
        self.assertEqual(self.check("m.safetensors")["values"]["duplicate_bytes"], 64 * 64 * 4)

    # ---- content

    def test_names_and_metadata_that_could_harm_are_told_and_shown_harmlessly(self):
        self.model(metadata={"format": "pt", "note": "a\x1b[2J", "chat_template": "{{ ''.__class__.__mro__ }}"},
                   **{"x\x1b]0;y\x07": ("F32", [1], floats([1])), "../../etc/passwd": ("F32", [1], floats([2])),
                      "a\u202eb": ("F32", [1], floats([3])), "c\u200bd": ("F32", [1], floats([4]))})
        found = self.check("m.safetensors", "--fast")["findings"]
        names = [f["tensor"] for f in found if f["rule"] == "name.control"]
        self.assertEqual(names, ["x\x1b]0;y\x07", "a\u202eb", "c\u200bd"])
        self.assertEqual([f["tensor"] for f in found if f["rule"] == "name.path"], ["../../etc/passwd"])
        self.assertIn("metadata.control", [f["rule"] for f in found])
        self.assertIn("metadata.template", [f["rule"] for f in found])
        self.assertIn("metadata.template-code", [f["rule"] for f in found])
        text = self.wtool("check", "m.safetensors").stdout
        self.assertNotIn("\x1b", text)
        self.assertNotIn("\u202e", text)
        self.wtool("check", "m.safetensors", "--fail-on", "warning", code=1)

    def test_archives_programs_and_pickles_inside_are_told(self):
        inner = zip_of("run.sh", "echo gotcha")
        elf = b"\x7fELF\x02\x01\x01" + bytes(57)
        pickled = pickle.dumps({"a": [1, 2, 3], "text": "x" * 20}, protocol=4)
        self.model(elf=("U8", [64], elf), code=("U8", [len(pickled)], pickled), z=("U8", [len(inner)], inner))
        found = self.check("m.safetensors", code=1)["findings"]
        told = {f["tensor"]: f["message"] for f in found if f["rule"] == "content.tensor"}
        self.assertEqual(set(told), {"elf", "code", "z"})
        self.assertIn("ELF", told["elf"])
        self.assertIn("pickle", told["code"])
        # The zip is at the end of the file: other programs open the whole as an archive.
        self.assertEqual(zipfile.ZipFile("m.safetensors").namelist(), ["run.sh"])
        self.assertIn(("content.polyglot", "error"), [(f["rule"], f["level"]) for f in found])

    def test_zips_that_other_programs_open_are_found(self):
        inner = zip_of("evil.txt", "gotcha")
        for tail in (inner + b"x", inner + bytes(27), inner):
            self.model(z=("U8", [len(tail)], tail))
            self.assertEqual(zipfile.ZipFile("m.safetensors").namelist(), ["evil.txt"])
            self.one("content.polyglot", "m.safetensors", code=1)
        self.model(z=("U8", [64], b"PK\x05\x06" + bytes(60)))  # a mark alone is none
        self.assertNotIn("content.polyglot", [f[0] for f in self.findings("m.safetensors")])

    def test_later_shards_and_files_beside_are_looked_at_too(self):
        os.mkdir("m")
        for i, text in ((1, "ok"), (2, "{{ ''.__class__ }}\x1b[2J")):
            write_safetensors(f"m/model-0000{i}-of-00002.safetensors", {f"t{i}": ("F32", [4], ramp(4, i))}, {"format": "pt", "chat_template": text})
        index = {"weight_map": {f"t{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}}
        pathlib.Path("m/model.safetensors.index.json").write_text(json.dumps(index))
        found = [(f["rule"], f["file"][-26:]) for f in self.check("m")["findings"]]
        self.assertIn(("metadata.template-code", "00002-of-00002.safetensors"), found)
        self.assertIn(("metadata.control", "00002-of-00002.safetensors"), found)
        os.mkdir("n")
        self.model("n/model.safetensors")
        pathlib.Path("n/chat_template.jinja").write_text("{{ x|attr('y') }}")
        pathlib.Path("n/tokenizer_config.json").write_text(json.dumps({"chat_template": [{"name": "a", "template": "{{ ().__base__ }}"}]}))
        pathlib.Path("n/config.json").write_text(json.dumps({"auto_map": {"AutoModel": "evil/repo--modeling.M"}}))
        os.symlink("/etc/hostname", "n/notes.txt")
        found = self.check("n")["findings"]
        self.assertEqual(sorted(f["file"] for f in found if f["rule"] == "metadata.template-code"), ["n/chat_template.jinja", "n/tokenizer_config.json"])
        self.assertEqual([f["file"] for f in found if f["rule"] == "config.code"], ["n/config.json"])
        self.assertEqual([f["file"] for f in found if f["rule"] == "content.link"], ["n/notes.txt"])

    def test_a_file_under_the_suffix_of_another_format_is_an_error(self):
        pathlib.Path("m.safetensors").write_bytes(gguf({"a": ("f32", [3], floats([1, 2, 3]))}, {"general.architecture": (STRING, "llama")}))
        self.one("file.suffix", "m.safetensors", code=1)

    def test_a_file_that_is_a_document_too_is_told(self):
        for mark, words in ((b"%%EOF", "PDF"), (b"%%E0F", None)):
            self.model(metadata={"format": "pt", "x": "%PDF-1.4 1 0 obj"}, end=("U8", [64], mark + bytes(59)))
            found = [f["message"] for f in self.check("m.safetensors", code=1 if words else 0)["findings"] if f["rule"] == "content.polyglot"]
            self.assertEqual([words in f for f in found], [True] if words else [])
        for at, mark, words in ((257, b"ustar\x0000", "tar"), (32769, b"CD001", "ISO 9660")):
            data = bytearray(40000)
            write_safetensors("m.safetensors", {"a": ("U8", [40000], bytes(data))}, {"format": "pt"})
            start = len(pathlib.Path("m.safetensors").read_bytes()) - 40000
            data[at - start : at - start + len(mark)] = mark
            write_safetensors("m.safetensors", {"a": ("U8", [40000], bytes(data))}, {"format": "pt"})
            self.assertIn(words, self.one("content.polyglot", "m.safetensors", code=1)["message"])

    def test_pickles_and_code_beside_the_weights_are_told(self):
        os.mkdir("m")
        self.model("m/model.safetensors")
        for name in ("pytorch_model.bin", "modeling_evil.py", "data.pkl", "config.json", "README.md"):
            pathlib.Path("m", name).write_text("{}")
        found = self.check("m")["findings"]
        self.assertEqual(sorted(f["file"] for f in found if f["rule"] == "content.pickle"), ["m/data.pkl", "m/pytorch_model.bin"])
        self.assertEqual([f["file"] for f in found if f["rule"] == "content.code"], ["m/modeling_evil.py"])

    def test_code_is_looked_for_in_subfolders_as_deep_as_documented(self):
        deep = "m/" + "/".join("abcdefgh")
        os.makedirs(deep + "/i")
        os.mkdir("elsewhere")
        self.model("m/model.safetensors")
        for name in ("elsewhere/not_here.py", "m/a/one.PY", "m/a/notes.txt", "m/a/b/two.pkl", deep + "/eight.so", deep + "/i/nine.py"):
            pathlib.Path(name).write_text("{}")
        os.symlink("../../elsewhere", "m/a/link")
        os.symlink("..", "m/a/loop")
        for more in ([], ["--fast"]):
            found = self.check("m", *more)["findings"]
            self.assertEqual([f["file"] for f in found if f["rule"] == "content.code"], ["m/a/one.PY", deep + "/eight.so"])
            self.assertEqual([f["file"] for f in found if f["rule"] == "content.pickle"], ["m/a/b/two.pkl"])
            (left,) = [f for f in found if f["rule"] == "model.note"]
            self.assertEqual((left["file"], left["message"]), (deep + "/i", "is not searched for code: it lies deeper than 8 folders"))
        for i in range(10001):
            pathlib.Path(f"m/a/{i}").touch()
        found = [f["message"] for f in self.check("m")["findings"] if f["rule"] == "model.note"]
        self.assertEqual(found, ["is not searched for code: there are more than 10000 entries"])

    def test_keys_that_are_there_twice_are_told(self):
        os.mkdir("m")
        self.model("m/model.safetensors")
        text = '{"vocab_size": 4, "x": {"a": [{"b": 1, "c": 2, "b": 3}], "a": {"b": 1}},\n "voc\\u0061b_size": 5, "b": 1}'
        pathlib.Path("m/config.json").write_text(text)
        pathlib.Path("m/generation_config.json").write_text('{"a": 1, "b": {"a": 1}}')
        found = [f for f in self.check("m")["findings"] if f["rule"] == "config.duplicate-key"]
        self.assertEqual([(f["place"], f["offset"]) for f in found],
                         [("key 'b'", text.index('"b": 3')), ("key 'a'", text.index('"a": {')), ("key 'vocab_size'", text.index('"voc\\u'))])
        self.assertIn("is there already at byte 1:", found[2]["message"])
        pathlib.Path("m/generation_config.json").write_text('{"a": 1, "b": {}, "a": 1}')
        files = [f["file"] for f in self.check("m")["findings"] if f["rule"] == "config.duplicate-key"]
        self.assertEqual(files.count("m/generation_config.json"), 1)

    def test_an_index_with_a_key_twice_is_told(self):
        os.mkdir("m")
        for i in (1, 2):
            write_safetensors(f"m/model-0000{i}-of-00002.safetensors", {f"t{i}": ("F32", [4], ramp(4, i))}, {"format": "pt"})
        weights = '"weight_map": {' + ", ".join(f'"t{i}": "model-0000{i}-of-00002.safetensors"' for i in (1, 2)) + "}}"
        for head, told in (('{"metadata": {"total_size": 32}, ', []), ('{"metadata": {}, "metadata": {"total_size": 32}, ', ["'metadata'"]),
                           ('{"metadata": {"total_size": 31, "total_size": 32}, ', ["'total_size'"])):
            pathlib.Path("m/model.safetensors.index.json").write_text(head + weights)
            found = [f for f in self.check("m", code=1 if told else 0)["findings"] if f["rule"] == "safetensors.index-key"]
            self.assertEqual([f["message"] for f in found], [f"{name} appears twice" for name in told])
            if told:
                self.assertEqual(self.findings("m", "--lenient"), [("safetensors.index-key", "warning")])

    def test_a_config_with_a_number_beyond_all_types_is_compared_all_the_same(self):
        os.mkdir("m")
        write_safetensors("m/model.safetensors", {"model.embed_tokens.weight": ("F32", [4, 8], ramp(32))}, {"format": "pt"})
        for number, told in (("1e999", 1), ("-2e308", 1), ("1" + "0" * 400, 1), ("1e308", 0), ("1e-999", 0), ("1" * 30, 0)):
            text = '{"x": [1, ' + number + '], "vocab_size": 5}'
            pathlib.Path("m/config.json").write_text(text)
            found = [(f["rule"], f.get("offset")) for f in self.check("m")["findings"] if f["rule"].startswith("config.")]
            self.assertEqual(found, [("config.json", text.index(number))] * told + [("config.vocabulary", None)], number)

    def test_a_config_is_held_against_the_tensors(self):
        os.mkdir("m")
        tensors = {"model.embed_tokens.weight": ("F32", [4, 8], ramp(32)), "lm_head.weight": ("F32", [4, 8], ramp(32, 5)),
                   "model.layers.0.mlp.up_proj.weight": ("F32", [4, 8], ramp(32, 7))}
        write_safetensors("m/model.safetensors", tensors, {"format": "pt"})
        config = {"torch_dtype": "bfloat16", "num_hidden_layers": 2, "vocab_size": 5, "tie_word_embeddings": True}
        pathlib.Path("m/config.json").write_text(json.dumps(config))
        found = {f["rule"]: f["message"] for f in self.check("m", "--fast")["findings"]}
        self.assertEqual(set(found), {"config.dtype", "config.layers", "config.vocabulary", "config.tied"})
        self.assertIn("'bfloat16', but most weights are f32", found["config.dtype"])
        self.assertIn("is 5, but 'model.embed_tokens.weight' has 4 rows", found["config.vocabulary"])
        sound = {"torch_dtype": "float32", "num_hidden_layers": 1, "vocab_size": 4}
        pathlib.Path("m/config.json").write_text(json.dumps(sound))
        pathlib.Path("m/tokenizer.json").write_text('{"a": [1, 2}')
        (found,) = self.check("m")["findings"]
        self.assertEqual((found["rule"], found["file"], found["offset"]), ("config.json", "m/tokenizer.json", 11))
        pathlib.Path("m/config.json").write_text("[" * 100000)
        self.assertIn(("config.json", "warning"), self.findings("m"))

    def test_a_weight_file_that_no_index_names_is_told(self):
        os.mkdir("m")
        for i in (1, 2, 3):
            write_safetensors(f"m/model-0000{i}-of-00002.safetensors", {f"t{i}": ("F32", [4], ramp(4, i))}, {"format": "pt"})
        index = {"weight_map": {f"t{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}}
        pathlib.Path("m/model.safetensors.index.json").write_text(json.dumps(index))
        self.assertEqual(self.findings("m"), [("index.stray-file", "warning")])

    def test_an_importance_matrix_is_checked_too(self):
        entry = struct.pack("<i", 1) + b"w" + struct.pack("<ii", 2, 3)
        pathlib.Path("i.dat").write_bytes(struct.pack("<i", 1) + entry + floats([1, 2, 3]))
        self.assertNotIn("imatrix.finite", [f[0] for f in self.findings("i.dat")])
        pathlib.Path("i.dat").write_bytes(struct.pack("<i", 1) + entry + floats([1, INF, 3]))
        self.assertEqual(self.one("imatrix.finite", "i.dat", code=1)["offset"], 4 + 4 + 1 + 8 + 4)

    def test_keys_of_a_gguf_are_held_against_its_tensors(self):
        block = struct.pack("<e", 0.5) + bytes(range(16))
        keys = {"general.architecture": (STRING, "llama"), "general.file_type": (U32, 7), "llama.block_count": (U32, 3)}
        tensors = {"blk.0.ffn_up.weight": ("q4_0", [2, 32], block * 2), "blk.1.ffn_up.weight": ("q4_0", [2, 32], block * 2)}
        pathlib.Path("m.gguf").write_bytes(gguf(tensors, keys))
        found = {f["rule"]: f["message"] for f in self.check("m.gguf")["findings"]}
        self.assertIn("is 7 (q8_0), but most weights are q4_0", found["gguf.file-type"])
        self.assertIn("is 3, but the layers that there are tensors of are 2", found["gguf.block-count"])
        self.assertIn("gguf.quantization-version", found)

    def test_bytes_that_hide_between_tensors_are_told(self):
        keys = {"general.architecture": (STRING, "llama")}
        raw = bytearray(gguf({"a": ("f32", [3], floats([1, 2, 3])), "b": ("f32", [2], floats([4, 5]))}, keys))
        at = raw.index(floats([1, 2, 3])) + 12
        raw[at + 7] = 0x41
        pathlib.Path("m.gguf").write_bytes(raw)
        found = self.one("gguf.padding", "m.gguf")
        self.assertEqual(found["offset"], at + 7)
        self.assertEqual(self.findings("m.gguf", "--fast"), [])

    # ---- what is no weight file

    def test_wrong_files_are_named_in_plain_words(self):
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as t:
            t.addfile(tarfile.TarInfo("x"))
        torch = io.BytesIO()
        with zipfile.ZipFile(torch, "w") as z:
            z.writestr("archive/data.pkl", "x")
        lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 4976698672\n"
        for content, words in (
            (lfs, ["Git LFS pointer", "4976698672"]),
            (b"<!DOCTYPE html>\n<html><head></head></html>", ["HTML page"]),
            (b'{"error":"Repository not found"}', ["JSON error message"]),
            (zip_of("a.txt", "hello"), ["zip archive"]),
            (torch.getvalue(), ["PyTorch checkpoint"]),
            (pickle.dumps({"a": 1}, protocol=2), ["pickle"]),
            (tar.getvalue(), ["tar archive"]),
            (b"GG", ["cut short", "GGUF"]),
            (bytes(5000), ["only zeros"]),
            (b"", ["empty file"]),
        ):
            pathlib.Path("m.safetensors").write_bytes(content)
            self.refused("check", "m.safetensors", code=3, saying=words)
        self.wtool("check", "m.safetensors", "--sarif", "s.sarif", "--junit", "j.xml", code=3)
        self.assertEqual([r["ruleId"] for r in sarif("s.sarif")], ["file.unreadable"])
        self.assertEqual([c[2] for c in junit("j.xml")], ["failed"])

    def test_a_header_that_cannot_be_read_is_status_3(self):
        pathlib.Path("m.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b'{"a":{}}' + bytes(100))
        document = self.check("m.safetensors", code=3)
        self.assertEqual([f["rule"] for f in document["findings"]], ["safetensors.length"])

    # ---- reports

    def test_reports_for_machines(self):
        self.model(x=("F32", [2], floats([1, NAN])))
        self.wtool("check", "m.safetensors", "--sarif", "s.sarif", "--junit", "j.xml", "--fail-on", "values.nan", code=1)
        (result,) = [r for r in sarif("s.sarif") if r["ruleId"] == "values.nan"]
        place = result["locations"][0]
        self.assertEqual(place["physicalLocation"]["artifactLocation"]["uri"], "m.safetensors")
        self.assertEqual(place["physicalLocation"]["region"]["byteOffset"], len(pathlib.Path("m.safetensors").read_bytes()) - 4)
        self.assertEqual(place["logicalLocations"][0]["fullyQualifiedName"], "x")
        cases = junit("j.xml")
        self.assertEqual([c[0] for c in cases if c[2] == "failed"], ["values.nan"])
        self.assertIn("safetensors.overlap", [c[0] for c in cases if c[2] == "passed"])
        self.assertNotIn("gguf.offset", [c[0] for c in cases])
        self.refused("check", "m.safetensors", "--sarif", "s.sarif", saying=["already exists"])

    def test_what_cannot_be_opened_is_in_the_reports_for_machines(self):
        pathlib.Path("page.safetensors").write_text("<!DOCTYPE html>")
        os.mkdir("empty")
        for path, code, words in (("missing.safetensors", 4, "No such file"), ("page.safetensors", 3, "HTML"), ("empty", 3, "no weight files")):
            done = self.wtool("check", path, "--json", "--sarif", "s.sarif", "--junit", "j.xml", "-f", code=code)
            self.assertFalse(json.loads(done.stderr)["ok"])
            (result,) = sarif("s.sarif")
            self.assertEqual((result["ruleId"], result["level"]), ("file.unreadable", "error"))
            self.assertIn(words, result["message"]["text"])
            self.assertEqual(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], path)
            self.assertEqual([(c[0], c[2]) for c in junit("j.xml")], [("file.unreadable", "failed")])

    def test_rules_are_listed_without_an_input(self):
        rules = json.loads(self.wtool("check", "--rules", "--json").stdout)["rules"]
        ids = [r["id"] for r in rules]
        self.assertEqual(len(ids), len(set(ids)))
        (rule,) = [r for r in rules if r["id"] == "safetensors.unknown-member"]
        self.assertEqual((rule["level"], rule["forgivable"]), ("error", True))
        self.assertEqual([r["id"] for r in rules if not r["fix"] or not r["summary"]], [])
        self.assertIn("values.nan", self.wtool("check", "--rules").stdout)
        self.refused("check", saying=["INPUT"])

    def test_options_that_do_not_go_together_are_refused(self):
        self.model()
        self.refused("check", "m.safetensors", "--strict", "--lenient", saying=["contradict"])
        self.refused("check", "m.safetensors", "--fail-on", "worse", saying=["worse"])
        self.refused("check", "m.safetensors", "--write-lock", "l", "--fast", saying=["--fast"])

    # ---- salvage

    def digest(self, path):
        return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()

    def tensors(self, path):
        document = json.loads(self.wtool("inspect", "--json", path).stdout)
        out = {}
        for t in document["tensors"]:
            file = t["file"] if os.path.exists(t["file"]) else os.path.join(path, t["file"])
            with open(file, "rb") as f:
                f.seek(t["offset"])
                out[t["name"]] = (t["dtype"], t["shape"], f.read(t["bytes"]))
        return out

    def test_what_is_intact_is_salvaged_from_a_cut_file(self):
        self.model(c=("F32", [100], ramp(100)))
        whole = pathlib.Path("m.safetensors").read_bytes()
        pathlib.Path("cut.safetensors").write_bytes(whole[:-10])
        before = self.digest("cut.safetensors")
        said = self.wtool("check", "--salvage", "out.safetensors", "cut.safetensors", code=1).stdout
        self.assertIn("wrote out.safetensors: 2 tensors", said)
        self.assertEqual(self.digest("cut.safetensors"), before)
        self.assertEqual(self.tensors("out.safetensors"), {"a": ("f32", [4, 8], ramp(32)), "b": ("f32", [6], ramp(6, 9))})
        self.assertEqual(json.loads(self.wtool("inspect", "--json", "out.safetensors").stdout)["metadata"], {"format": "pt"})
        self.assertEqual(self.findings("out.safetensors"), [])
        self.refused("check", "--salvage", "out.safetensors", "cut.safetensors", saying=["already exists"])
        document = self.check("cut.safetensors", "--salvage", "out.safetensors", "-f", code=1)
        self.assertEqual((document["salvaged"]["path"], document["salvaged"]["tensors"]), ("out.safetensors", 2))

    def test_a_header_that_breaks_off_gives_what_stood_before(self):
        header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"c":{"dty!!!'
        pathlib.Path("bad.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + floats([1, 2, 3, 4, 5]))
        self.wtool("check", "--salvage", "out.safetensors", "bad.safetensors", code=1)
        self.assertEqual(self.tensors("out.safetensors"), {"a": ("f32", [2], floats([1, 2])), "b": ("f32", [2], floats([3, 4]))})

    def test_a_gguf_is_salvaged_with_its_keys(self):
        keys = {"general.architecture": (STRING, "llama"), "general.name": (STRING, "x"), "llama.epsilon": (F32, 0.5)}
        raw = gguf({"a": ("f32", [3], floats([1, 2, 3])), "b": ("f32", [64], ramp(64))}, keys)
        pathlib.Path("cut.gguf").write_bytes(raw[:-100])
        document = self.check("cut.gguf", "--salvage", "out.gguf", code=1)
        self.assertEqual([f["rule"] for f in document["findings"] if f["level"] == "error"], ["gguf.data-truncated"])
        self.assertEqual(document["lost"], [{"tensor": "b", "file": "cut.gguf", "bytes": 256, "present": 156}])
        got_keys, got = read_gguf("out.gguf")
        self.assertEqual((got_keys, got), (keys, {"a": ("f32", [3], floats([1, 2, 3]))}))

    def test_a_folder_with_a_missing_shard_is_salvaged(self):
        os.mkdir("m")
        for i in (1, 3):
            write_safetensors(f"m/model-0000{i}-of-00003.safetensors", {f"t{i}": ("F32", [4], ramp(4, i))}, {"format": "pt"})
        index = {"weight_map": {f"t{i}": f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)}}
        pathlib.Path("m/model.safetensors.index.json").write_text(json.dumps(index))
        pathlib.Path("m/config.json").write_text("{}")
        self.wtool("check", "--salvage", "out/", "m", code=1)
        self.assertEqual(self.tensors("out"), {"t1": ("f32", [4], ramp(4, 1)), "t3": ("f32", [4], ramp(4, 3))})
        self.assertTrue(os.path.exists("out/config.json"))
        self.assertEqual([f for f in self.findings("out") if f[1] != "note"], [])

    def test_salvage_never_touches_the_input(self):
        self.model()
        whole = pathlib.Path("m.safetensors").read_bytes()
        pathlib.Path("cut.safetensors").write_bytes(whole[:-10])
        os.symlink("cut.safetensors", "link.safetensors")
        os.mkdir("m")
        pathlib.Path("m/model.safetensors").write_bytes(whole[:-10])
        before = {p: self.digest(p) for p in ("cut.safetensors", "m/model.safetensors")}
        for out, path in (("cut.safetensors", "cut.safetensors"), ("./cut.safetensors", "cut.safetensors"), ("cut.safetensors", "link.safetensors"),
                          ("m", "m"), ("m/x/", "m"), ("m/model.safetensors", "m"), ("m/new.safetensors", "m")):
            for force in ((), ("-f",)):
                self.refused("check", "--salvage", out, path, *force)
        self.assertEqual(before, {p: self.digest(p) for p in before})
        self.assertEqual(os.readlink("link.safetensors"), "cut.safetensors")
        self.refused("check", "--salvage", "x.safetensors", "--sarif", "x.safetensors", "cut.safetensors", saying=["x.safetensors"])
        self.refused("check", "--salvage", "x.gguf", "cut.safetensors", saying=["gguf"])
        self.refused("check", "--salvage", "-", "cut.safetensors", saying=["standard output"])

    def test_an_empty_value_is_a_variable_that_was_not_set(self):
        self.model()
        for option in ("--lock", "--write-lock", "--salvage", "--sarif", "--junit", "--fail-on"):
            self.refused("check", option, "", "m.safetensors", saying=[option])

    def test_elements_that_are_opaque_are_checked_as_what_they_are(self):
        header = b"{'descr': '|V2', 'fortran_order': False, 'shape': (4,), }"
        header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
        bits = struct.pack("<4H", 0x3F80, 0x7FC1, 0x4000, 0)  # bf16: 1, NaN, 2, 0
        pathlib.Path("w.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bits)
        self.assertEqual(self.findings("w.npy"), [])
        found = self.one("values.nan", "w.npy", "--as", "bf16")
        self.assertIn("0x7fc1", found["message"])
        self.assertEqual(found["offset"], 10 + len(header) + 2)

    def test_a_set_that_is_not_whole_is_salvaged_as_one(self):
        os.mkdir("g")
        for i in (0, 1, 2):
            keys = {"general.architecture": (STRING, "llama")} if i == 0 else {}
            keys |= {"split.no": (2, i), "split.count": (2, 3), "split.tensors.count": (5, 3)}
            pathlib.Path(f"g/m-0000{i + 1}-of-00003.gguf").write_bytes(gguf({f"t{i}": ("f32", [4], ramp(4, i))}, keys))
        os.remove("g/m-00002-of-00003.gguf")
        self.assertEqual([f["rule"] for f in self.check("g", code=1)["findings"] if f["level"] == "error"], ["set.missing-file"])
        self.wtool("check", "--salvage", "out.gguf", "g", code=1)
        got_keys, got = read_gguf("out.gguf")
        self.assertEqual((set(got_keys), set(got)), ({"general.architecture"}, {"t0", "t2"}))
        self.assertEqual([f for f in self.findings("out.gguf") if f[1] == "error"], [])
        # Two files under each other's name.
        os.rename("g/m-00003-of-00003.gguf", "g/m-00002-of-00003.gguf")
        self.assertEqual([f for f in self.findings("g", code=1) if f[0] == "set.part"], [("set.part", "error")])

    def test_shards_without_their_index_are_salvaged_all_the_same(self):
        os.mkdir("m")
        for i in (1, 2):
            write_safetensors(f"m/model-0000{i}-of-00002.safetensors", {f"t{i}": ("F32", [4], ramp(4, i))}, {"format": "pt"})
        good = json.dumps({"weight_map": {f"t{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}})
        want = {"t1": ("f32", [4], ramp(4, 1)), "t2": ("f32", [4], ramp(4, 2))}
        for n, text in enumerate((good + "x", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n")):
            pathlib.Path("m/model.safetensors.index.json").write_text(text)
            self.wtool("check", "--salvage", f"out{n}/", "m", code=1)
            self.assertEqual(self.tensors(f"out{n}"), want)
        self.assertIn("Git LFS pointer", self.one("safetensors.index", "m", code=1)["message"])

    def test_parts_of_a_weight_whose_others_are_lost_are_left_out(self):
        noise = floats([((i * 37) % 101 - 50) / 500 for i in range(64 * 64)])
        tensors = {f"model.layers.{i}.mlp.up_proj.weight": ("F32", [64, 64], noise) for i in range(2)}
        os.mkdir("m")
        write_safetensors("m/model.safetensors", tensors, {"format": "pt"})
        pathlib.Path("m/config.json").write_text("{}")
        self.wtool("quantize", "--int4", "--group-size", "32", "m", "-o", "q/")
        raw = pathlib.Path("q/model.safetensors").read_bytes()
        pathlib.Path("q/model.safetensors").write_bytes(raw[:-1])
        document = self.check("q", "--salvage", "out/", code=1)
        self.assertTrue(document["salvaged"]["left_out"])
        self.assertEqual([f for f in self.findings("out") if f[1] == "error"], [])

    def test_what_was_found_is_told_when_nothing_can_be_salvaged(self):
        self.model()
        whole = pathlib.Path("m.safetensors").read_bytes()
        pathlib.Path("cut.safetensors").write_bytes(whole[: 8 + struct.unpack_from("<Q", whole)[0]])
        done = self.wtool("check", "--salvage", "out.safetensors", "cut.safetensors", code=3)
        self.assertIn("safetensors.truncated", done.stdout)
        self.assertIn("nothing to salvage", done.stderr)

    def test_nothing_to_salvage_is_said(self):
        self.model()
        whole = pathlib.Path("m.safetensors").read_bytes()
        pathlib.Path("cut.safetensors").write_bytes(whole[: 8 + struct.unpack_from("<Q", whole)[0]])
        self.refused("check", "--salvage", "out.safetensors", "cut.safetensors", code=3, saying=["nothing to salvage"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
