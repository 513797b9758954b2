#!/usr/bin/env python3
"""Hugging Face folders become the GGUF files that llama.cpp's converter makes of them, and run as they do.

usage: hf2gguf.py files WTOOL SOURCE_FOLDER                         the bytes, against testdata/hf2gguf
       hf2gguf.py runs  WTOOL SOURCE_FOLDER GGML_QUANTIZE_MODEL     what llama.cpp's library predicts with them
(Python's standard library only)
"""
import hashlib
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cli"))
from weight_files import ARRAY, NUMBERS, STRING, TYPES

MODULES = pathlib.Path(os.environ.get("WTOOL_PEERS") or HERE / "../../build/peers/node_modules")
LIBRARIES = MODULES / "@node-llama-cpp/linux-x64/bins/linux-x64"
KINDS = {0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", STRING: "str", ARRAY: "arr",
         10: "u64", 11: "i64", 12: "f64"}
OUTPUT_TYPES = ("auto", "f32", "f16", "q8_0")


class Gguf:
    """A file as it lies there, in order: keys {name: {type, value}}, tensors {name: {type, dims, offset, …}}."""

    def __init__(self, path):
        self.raw, self.at = pathlib.Path(path).read_bytes(), 4
        assert self.raw[:4] == b"GGUF" and self.take("I") == 3
        n_tensors, n_keys = self.take("Q"), self.take("Q")
        self.keys = {}
        for _ in range(n_keys):
            name = self.text()
            assert name not in self.keys, f"{name} is there twice"
            self.keys[name] = self.entry()
        infos = [(self.text(), [self.take("Q") for _ in range(self.take("I"))], self.take("I"), self.take("Q"))
                 for _ in range(n_tensors)]
        self.data_offset = -(-self.at // 32) * 32
        self.tensors = {}
        for name, dims, kind, offset in infos:
            type_name, elements, size = TYPES[kind]
            nbytes = math.prod(dims) // elements * size
            data = self.raw[self.data_offset + offset :][:nbytes]
            assert len(data) == nbytes, f"{name} ends behind the file"
            self.tensors[name] = {"type": type_name.upper(), "dims": dims, "offset": offset, "nbytes": nbytes,
                                  "sha256": hashlib.sha256(data).hexdigest()}

    def take(self, form):
        (value,) = struct.unpack_from("<" + form, self.raw, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self):
        n = self.take("Q")
        self.at += n
        return self.raw[self.at - n : self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.text()
        return bool(self.take("B")) if KINDS[kind] == "bool" else self.take(NUMBERS[kind])

    def entry(self):
        kind = self.take("I")
        if kind != ARRAY:
            return {"type": KINDS[kind], "value": self.value(kind)}
        of, n = self.take("I"), self.take("Q")
        return {"type": f"arr[{KINDS[of]}]", "value": [self.value(of) for _ in range(n)]}

    def data(self, name):
        t = self.tensors[name]
        return self.raw[self.data_offset + t["offset"] :][: t["nbytes"]]


def floats(data):
    return struct.unpack(f"<{len(data) // 4}f", data)


class Models(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.scratch.name)
        cls.expected = {p.parent.name: json.loads(p.read_text()) for p in sorted(GOLDEN.glob("*/expected.json"))}

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def each(self, check):
        """check(model, output type, what is expected of all types, of this one)"""
        self.assertEqual(len(self.expected), 12)
        for model, expected in self.expected.items():
            for kind in OUTPUT_TYPES:
                with self.subTest(model=model, outtype=kind):
                    check(model, kind, expected, expected["runs"][kind])

    def convert(self, model, kind):
        """The folder is known by its name, so it gets the one that the reference saw."""
        source, result = self.folder / model, self.folder / f"{model}-{kind}.gguf"
        if not source.exists():
            source.symlink_to(GOLDEN / model / "hf")
        if result.exists():
            return result
        fallback = ["--fallback"] if kind == "q8_0" else []
        done = subprocess.run([WTOOL, "convert", source, "-o", result, "--outtype", kind, "--no-lineage", *fallback],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return result


class Files(Models):
    def test_keys_have_the_same_order_types_and_values(self):
        def check(model, kind, expected, run):
            found = Gguf(self.convert(model, kind)).keys
            wanted = dict(expected["kv"])
            wanted["general.file_type"] = {"type": "u32", "value": run["general.file_type"]}
            for key in wanted:
                self.assertEqual(found.get(key), wanted[key], key)
            self.assertEqual(list(found), expected["kv_order"])
        self.each(check)

    def test_tensors_have_the_same_order_types_dimensions_and_bytes(self):
        def check(model, kind, expected, run):
            file = Gguf(self.convert(model, kind))
            self.assertEqual(list(file.tensors), expected["tensor_order"])
            for name, wanted in run["tensors"].items():
                found = dict(file.tensors[name])
                if name == "rope_freqs.weight":  # computed, in floats of another library
                    self.near_ones(floats(file.data(name)))
                    found["sha256"] = wanted["sha256"]
                self.assertEqual(found, wanted, name)
        self.each(check)

    def near_ones(self, found):
        """Llama 3's factors by their definition, to 1e-6."""
        config = json.loads((GOLDEN / "llama3-tiny/hf/config.json").read_text())
        scaling = config.get("rope_scaling") or config["rope_parameters"]
        theta = config.get("rope_theta") or scaling["rope_theta"]
        size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        old, factor = scaling["original_max_position_embeddings"], scaling["factor"]
        self.assertEqual(len(found), size // 2)
        for i, value in enumerate(found):
            wave = 2 * math.pi * theta ** (2 * i / size)
            smooth = (old / wave - low) / (high - low)
            wanted = 1 if wave < old / high else factor if wave > old / low else 1 / ((1 - smooth) / factor + smooth)
            self.assertAlmostEqual(value / wanted, 1, delta=1e-6)

    def test_whole_files_are_the_same(self):
        def check(model, kind, expected, run):
            raw = self.convert(model, kind).read_bytes()
            self.assertEqual(len(raw), run["file_size"])
            if "rope_freqs.weight" not in expected["tensor_order"]:
                self.assertEqual(hashlib.sha256(raw).hexdigest(), run["file_sha256"])
        self.each(check)


# What the files may differ by from the reference's own, in a token's probability: rounding of the
# library's arithmetic, which is another on every kind of processor.
TOLERANCE = {"F32": 1.5e-4, "F16": 3e-4, "BF16": 2e-3, "Q8_0": 8e-3}
FILE_TYPES = {0: "F32", 1: "F16", 7: "Q8_0", 32: "BF16"}


class Runs(Models):
    def predict(self, path, text):
        done = subprocess.run([PEER, LIBRARIES, "predict", path, text], capture_output=True, text=True)
        if done.returncode == 77:
            print(done.stderr)
            sys.exit(77)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [line.split() for line in done.stdout.splitlines()]
        return {line[0]: [float(x) if line[0] == "next" else int(x) for x in line[1:]] for line in lines}

    def worst(self, found, run):
        """Largest difference of a probability among the eight likeliest tokens."""
        self.assertEqual(len(run["probe_top"]), 8)
        return max(abs(found[token] - p) for token, p in run["probe_top"])

    def tolerance(self, model, run):
        kind = FILE_TYPES[run["general.file_type"]]
        # Its router meets a near-tie, which bf16's rounding decides.
        return 7e-3 if model == "qwen2moe-tiny" and kind == "BF16" else TOLERANCE[kind]

    def test_the_library_predicts_what_it_does_with_the_reference_file(self):
        def check(model, kind, expected, run):
            path, probe = self.convert(model, kind), expected["probe"]
            found = self.predict(path, probe["text"])
            self.assertEqual(found["tokens"], probe["tokens"])
            self.assertEqual(found["special"], [probe["bos"], probe["eos"], int(probe["adds_bos"])])
            self.assertLessEqual(self.worst(found["next"], run), self.tolerance(model, run))
        self.each(check)

    # The probe must see these, or it proves nothing.

    def changed(self, model, change):
        """By how much a file differs of which `change` rewrites tensors: (name, dims, floats) -> floats or None."""
        path, expected = self.convert(model, "f32"), self.expected[model]
        file = Gguf(path)
        raw, changed = bytearray(file.raw), 0
        for name, t in file.tensors.items():
            values = change(name, t["dims"], floats(file.data(name))) if t["type"] == "F32" else None
            if values is not None:
                at = file.data_offset + t["offset"]
                raw[at : at + t["nbytes"]] = struct.pack(f"<{len(values)}f", *values)
                changed += 1
        self.assertGreater(changed, 0)
        wrong = self.folder / "wrong.gguf"
        wrong.write_bytes(raw)
        found = self.predict(wrong, expected["probe"]["text"])["next"]
        return self.worst(found, expected["runs"]["f32"])

    def test_rows_of_q_and_k_in_the_order_of_transformers_are_noticed(self):
        def unpermuted(name, dims, values):
            if not name.endswith(("attn_q.weight", "attn_k.weight")):
                return None
            columns, rows = dims
            half = rows // HEADS[name.split(".")[2]] // 2
            row = lambda i: values[i * columns : (i + 1) * columns]
            order = [h * 2 * half + 2 * j + p for h in range(rows // (2 * half)) for p in (0, 1) for j in range(half)]
            return [x for i in order for x in row(i)]
        keys = {k: v["value"] for k, v in self.expected["llama3-tiny"]["kv"].items()}
        HEADS = {"attn_q": keys["llama.attention.head_count"], "attn_k": keys["llama.attention.head_count_kv"]}
        self.assertGreater(self.changed("llama3-tiny", unpermuted), 10 * TOLERANCE["F32"])

    def test_norms_without_the_one_that_gemma_adds_are_noticed(self):
        def less(name, dims, values):
            return [x - 1 for x in values] if name.endswith("norm.weight") else None
        self.assertGreater(self.changed("gemma2-tiny", less), 10 * TOLERANCE["F32"])


if __name__ == "__main__":
    SUBJECT, WTOOL, SOURCE, *PEER = sys.argv[1:]
    GOLDEN = pathlib.Path(SOURCE).resolve() / "testdata/hf2gguf"
    if SUBJECT == "runs" and not LIBRARIES.is_dir():
        print(f"skipped: no {LIBRARIES} (scripts/peers installs it)")
        sys.exit(77)
    PEER = PEER[0] if PEER else None
    unittest.main(argv=[sys.argv[0], {"files": "Files", "runs": "Runs"}[SUBJECT]])
