#!/usr/bin/env python3
"""Every architecture of the tables without a reference file: a tiny folder with random weights, converted, loads and
runs in llama.cpp's library, and of those in hf_forward.py gives what the modelling file's formulas give.

usage: hf_architectures.py WTOOL SOURCE_FOLDER GGML_QUANTIZE_MODEL     (Python's standard library only)
"""
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cli"))
import hf_forward as forward
from hf_folders import ENCODERS, MODELS
from weight_files import read_gguf

MODULES = pathlib.Path(os.environ.get("WTOOL_PEERS") or HERE / "../../build/peers/node_modules")
LIBRARIES = MODULES / "@node-llama-cpp/linux-x64/bins/linux-x64"
TEXT = "hello world 12"
# Of a probability: the library keeps keys and values in f16 (testdata/hf2gguf found up to 1.5e-4).
TOLERANCE = 1.5e-4
# StarCoder2 has no gate behind its GELU, which the library looks up in a table of f16.
TOLERANCES = {"starcoder2": 5e-4}
# Of a state, which is a layer norm's result: likewise.
STATE_TOLERANCE = 2e-2
# What is left out must change more than this many times the tolerance.
NOTICED = 10

DECODERS = {
    "gpt-oss": (forward.GptOss, "sinks"),
    "gpt-oss without mxfp4": (forward.GptOss, "sinks"),
    "qwen3moe": (forward.Qwen3Moe, "weights of experts"),
    "gemma": (forward.Gemma, "plus one"),
    "smollm3": (forward.Smollm3, "all layers turn"),
    "starcoder2": (forward.Starcoder2, "biases"),
    "llama with biases and linear scaling": (forward.Llama, "biases"),
    "mistral with a window": (forward.Decoder, "pairs"),
    "llama with yarn": (forward.LlamaYarn, "scale"),
    "phi3 with factors for long contexts": (forward.Phi3Long, "long"),
    "deepseek 3": (forward.Deepseek3, "correction"),
}


STATES = {"bert": (forward.Bert, "kinds of tokens"), "nomic-bert": (forward.NomicBert, "base")}
# Of blocks the library computes with activations of 8 bits: too coarse to compare.
OPTIONS = {"gpt-oss": ["-T", "*_exps.weight=f32"]}


class Architectures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.scratch.name)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def run_library(self, what, name, folder):
        """Lines of the library's answer by their first word."""
        source = self.path / name.replace(" ", "_")
        folder.write(source, GOLDEN)
        result = source.with_suffix(".gguf")
        done = subprocess.run([WTOOL, "convert", source, "-o", result, "--dtype", "f32", *OPTIONS.get(name, [])],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.answer(what, result)

    def answer(self, what, result):
        done = subprocess.run([PEER, LIBRARIES, what, result, TEXT], capture_output=True, text=True)
        if done.returncode == 77:
            print(done.stderr)
            sys.exit(77)
        self.assertEqual(done.returncode, 0, done.stderr)
        out = {}
        for line in done.stdout.splitlines():
            word, *values = line.split()
            out.setdefault(word, []).append([float(v) if word in ("next", "state") else int(v) for v in values])
        self.assertGreater(len(out["tokens"][0]), 3)
        return out

    def check_probabilities(self, p, vocabulary):
        self.assertEqual(len(p), vocabulary)
        self.assertTrue(all(math.isfinite(x) for x in p))
        self.assertAlmostEqual(sum(p), 1, delta=1e-4)
        self.assertGreater(max(p), 3 / vocabulary)
        self.assertLess(min(p), 0.5 / vocabulary)

    def test_each_loads_and_predicts_as_its_formulas_do(self):
        for name, make in MODELS.items():
            with self.subTest(name):
                folder = make(GOLDEN)
                answer = self.run_library("predict", name, folder)
                found = answer["next"][0]
                self.check_probabilities(found, folder.config.get("text_config", folder.config)["vocab_size"])
                if name not in DECODERS:
                    continue
                kind, mistake = DECODERS[name]
                tokens = answer["tokens"][0]
                tolerance = TOLERANCES.get(name, TOLERANCE)
                worst = lambda wrong: max(abs(a - b) for a, b in zip(found, forward.softmax(
                    kind(folder.config, folder.tensors, wrong).logits(tokens))))
                self.assertLess(worst(None), tolerance)
                self.assertGreater(worst(mistake), NOTICED * tolerance, mistake)

    def test_blocks_of_mxfp4_run_as_they_are(self):
        folder, source = MODELS["gpt-oss"](GOLDEN), self.path / "blocks"
        folder.write(source, GOLDEN)
        result = source.with_suffix(".gguf")
        subprocess.run([WTOOL, "convert", source, "-o", result], check=True, capture_output=True)
        self.assertEqual(read_gguf(result)[1]["blk.1.ffn_down_exps.weight"][0], "mxfp4")
        self.check_probabilities(self.answer("predict", result)["next"][0], folder.config["vocab_size"])

    def test_each_encoder_loads_and_gives_states_as_its_formulas_do(self):
        for name, make in ENCODERS.items():
            with self.subTest(name):
                folder = make(GOLDEN)
                answer = self.run_library("embed", name, folder)
                found, tokens = answer["state"], answer["tokens"][0]
                self.assertEqual(len(found), len(tokens))
                self.assertTrue(all(math.isfinite(x) for state in found for x in state))
                self.assertGreater(max(map(max, found)) - min(map(min, found)), 0.5)
                if name not in STATES:
                    continue
                kind, mistake = STATES[name]
                self.assertEqual((tokens[0], tokens[-1]), (2, 3))  # [CLS], [SEP]
                worst = lambda wrong: max(abs(a - b) for s, t in zip(found, kind(
                    folder.config, folder.tensors, wrong).states(tokens)) for a, b in zip(s, t))
                self.assertLess(worst(None), STATE_TOLERANCE)
                self.assertGreater(worst(mistake), NOTICED * STATE_TOLERANCE)


if __name__ == "__main__":
    WTOOL, SOURCE, PEER = sys.argv[1:4]
    GOLDEN = pathlib.Path(SOURCE).resolve() / "testdata/hf2gguf"
    if not LIBRARIES.is_dir():
        print(f"skipped: no {LIBRARIES} (scripts/peers installs it)")
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
