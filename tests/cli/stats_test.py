#!/usr/bin/env python3
"""stats from outside: what a user types and what it says.

usage: stats_test.py WTOOL     (Python's standard library only)

Expected figures come from Python's own arithmetic on the values that the test wrote.
"""
import json
import math
import os
import pathlib
import random
import statistics
import struct
import subprocess
import sys
import unittest

from weight_files import Command, floats, write_safetensors


def f16(values):
    return struct.pack(f"<{len(values)}e", *values)


def percentile(values, share):
    """The smallest value that so many do not exceed."""
    return sorted(values)[max(1, math.ceil(share * len(values) - 1e-9)) - 1]


class Stats(Command):
    def run_wtool(self, *args, status=0, env=None):
        done = subprocess.run([self.program, *args], capture_output=True, stdin=subprocess.DEVNULL,
                              env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})})
        self.assertEqual(done.returncode, status, (args, done.stderr.decode()))
        return done.stdout.decode(), done.stderr.decode()

    def document(self, *args, status=0):
        return json.loads(self.run_wtool("stats", "--json", *args, status=status)[0])

    def model(self):
        """Two layers of f16 and a norm of f32."""
        random.seed(1)
        self.values = {}
        tensors = {}
        for layer in range(2):
            raw = f16([random.gauss(0, 0.1 * (layer + 1)) for _ in range(1024)])
            name = f"model.layers.{layer}.mlp.up_proj.weight"
            self.values[name] = struct.unpack("<1024e", raw)
            tensors[name] = ("F16", (4, 256), raw)
        raw = floats([1 + random.gauss(0, 0.01) for _ in range(64)])
        self.values["model.norm.weight"] = struct.unpack("<64f", raw)
        tensors["model.norm.weight"] = ("F32", (64,), raw)
        write_safetensors("m.safetensors", tensors)

    def test_the_figures_are_those_of_the_values(self):
        self.model()
        document = self.document("m.safetensors")
        self.assertEqual(document["inputs"], ["m.safetensors"])
        self.assertEqual([t["name"] for t in document["tensors"]], list(self.values))
        for t in document["tensors"]:
            values = self.values[t["name"]]
            self.assertEqual(t["count"], len(values))
            self.assertEqual((t["min"], t["max"]), (min(values), max(values)))
            self.assertAlmostEqual(t["mean"], statistics.fmean(values), places=12)
            self.assertAlmostEqual(t["std"], statistics.pstdev(values), places=12)
            self.assertEqual(t["absmax"], max(map(abs, values)))
            self.assertEqual(sum(t["histogram"]["counts"]), len(values))
            exact = t["dtype"] == "f16"
            self.assertEqual(t["percentiles_from"], "values" if exact else "bf16 bins")
            for name, share in (("p0.1", 0.001), ("p1", 0.01), ("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
                wanted, got = percentile(values, share), t["percentiles"][name]
                self.assertTrue(got == wanted if exact else abs(got - wanted) <= wanted / 256, (name, got, wanted))

    def test_any_number_of_threads_and_instruction_set_gives_the_same_bytes(self):
        random.seed(2)
        raw = floats([random.gauss(0, 1) for _ in range(3000)]) * 1000
        write_safetensors("big.safetensors", {"a": ("F32", (1000, 3000), raw), "b": ("F32", (3000,), raw[:12000])})
        first = self.run_wtool("stats", "--json", "-j", "1", "big.safetensors")
        for threads in ("2", "7"):
            self.assertEqual(self.run_wtool("stats", "--json", "-j", threads, "big.safetensors"), first)
        for simd in ("scalar", "sse4", "avx2"):
            self.assertEqual(self.run_wtool("stats", "--json", "big.safetensors", env={"WTOOL_SIMD": simd}), first)

    def test_nan_and_infinities_are_shown_and_no_error(self):
        bits = struct.pack("<4I", 0x3F800000, 0x7FC00123, 0xFF800000, 0x40000000)
        write_safetensors("nan.safetensors", {"layers.3.w": ("F32", (2, 2), bits)})
        text, _ = self.run_wtool("stats", "nan.safetensors")
        self.assertIn("1 NaN, 1 Inf, first at [0, 1]: 0x7fc00123", text)
        (t,) = self.document("nan.safetensors")["tensors"]
        self.assertEqual((t["nan"], t["inf"], t["min"], t["max"]), (1, 1, 1, 2))
        self.assertEqual(t["first_non_finite"], {"index": 1, "bits": "0x7fc00123"})
        (layer,) = self.document("nan.safetensors", "--by", "layer")["layers"]
        self.assertEqual(layer["first_non_finite"]["tensor"], "layers.3.w")

    def test_a_cast_is_told_beforehand(self):
        values = [65504, 65519.99, 65520, -1e6, 2.0**-25, 2.0**-24, 0, 1]
        write_safetensors("c.safetensors", {"w": ("F32", (8,), floats(values)), "ok": ("F32", (1,), floats([1]))})
        document = self.document("c.safetensors", "--cast", "f16", "--sort", "overflows")
        self.assertEqual(document["tensors"][0]["cast"], {"dtype": "f16", "overflows": 2, "underflows": 1})
        self.assertEqual(document["tensors"][1]["cast"], {"dtype": "f16", "overflows": 0, "underflows": 0})
        text, _ = self.run_wtool("stats", "c.safetensors", "--cast", "fp16", "--moments")
        self.assertRegex(text, r"beyond fp16 +0 in fp16")
        # convert agrees.
        _, error = self.run_wtool("convert", "c.safetensors", "--dtype", "f16", "-o", "h.safetensors", status=3)
        self.assertIn("2", error)
        self.run_wtool("stats", "c.safetensors", "--cast", "q4_0", status=2)
        self.run_wtool("stats", "c.safetensors", "--cast", "i8", status=2)
        self.run_wtool("stats", "c.safetensors", "--cast", "f17", status=2)

    def test_layers_are_their_tensors_together(self):
        self.model()
        layers = self.document("m.safetensors", "--by", "layer")["layers"]
        self.assertEqual([l["layer"] for l in layers], ["(none)", "model.layers.0", "model.layers.1"])
        self.assertEqual([l["tensors"] for l in layers], [1, 1, 1])
        values = self.values["model.layers.1.mlp.up_proj.weight"]
        self.assertAlmostEqual(layers[2]["std"], statistics.pstdev(values), places=12)

    def test_selecting_and_sorting(self):
        self.model()
        names = lambda *args: [t["name"] for t in self.document("m.safetensors", *args)["tensors"]]
        self.assertEqual(names("-t", "layer:0"), ["model.layers.0.mlp.up_proj.weight"])
        self.assertEqual(names("-x", "layer:0-9"), ["model.norm.weight"])
        self.assertEqual(names("--sort", "absmax"), sorted(
            self.values, key=lambda n: -max(map(abs, self.values[n]))))
        self.run_wtool("stats", "-t", "modle", "m.safetensors", status=2)
        _, error = self.run_wtool("stats", "m.safetensors", "--sort", "outlier", status=2)
        self.assertIn("outliers", error)
        self.run_wtool("stats", "m.safetensors", "--sort", "overflows", status=2)
        self.run_wtool("stats", "m.safetensors", "--by", "moon", status=2)
        # Every option directly before INPUT.
        for options in (["--moments"], ["--sort", "std"], ["--by", "layer"], ["--cast", "bf16"], ["-t", "layer:1"],
                        ["--hist", "model.norm.weight"], ["--rows", "model.norm.weight"],
                        ["--columns", "model.norm.weight"]):
            self.run_wtool("stats", *options, "m.safetensors")

    def test_quantised_tensors_are_decoded(self):
        self.model()
        self.run_wtool("quantize", "--int8", "m.safetensors", "-o", "q.safetensors", "-q")
        for t in self.document("q.safetensors", "-t", "layer:0-1")["tensors"]:
            values = self.values[t["name"]]
            self.assertEqual(t["count"], 1024)
            self.assertAlmostEqual(t["absmax"], max(map(abs, values)), delta=max(map(abs, values)) / 100)
            self.assertAlmostEqual(t["std"], statistics.pstdev(values), places=3)

    def test_integers_are_exact(self):
        big = (1 << 63) - 1
        write_safetensors("i.safetensors", {"w": ("I64", (2,), struct.pack("<2q", -big - 1, big)),
                                            "b": ("U8", (3,), bytes([0, 255, 7]))})
        w, b = self.document("i.safetensors")["tensors"]
        self.assertEqual((w["min"], w["max"]), (str(-big - 1), str(big)))
        self.assertEqual((b["min"], b["max"], b["zeros"], b["percentiles"]["p50"]), (0, 255, 1, 7))

    def test_empty_tensors_and_what_holds_no_numbers(self):
        write_safetensors("e.safetensors", {"empty": ("F32", (0, 4), b""), "one": ("F32", (), floats([3]))})
        empty, one = self.document("e.safetensors")["tensors"]
        self.assertEqual(empty["count"], 0)
        self.assertNotIn("min", empty)
        self.assertEqual((one["min"], one["std"]), (3, 0))
        self.run_wtool("stats", "e.safetensors")
        self.run_wtool("stats", "e.safetensors", "--hist", "empty")
        self.run_wtool("stats", "e.safetensors", "--rows", "empty")
        write_safetensors("c.safetensors", {"c": ("C64", (1,), floats([1, 2])), "one": ("F32", (1,), floats([3]))})
        document = self.document("c.safetensors")
        self.assertEqual([l["name"] for l in document["left_out"]], ["c"])
        self.assertIn("left out: 'c'", self.run_wtool("stats", "c.safetensors")[0])
        _, error = self.run_wtool("stats", "c.safetensors", "-t", "c", status=3)
        self.assertIn("c64", error)

    def test_one_tensors_histogram_rows_and_columns(self):
        values = [1, 2, 3, -40, 5, 6]
        write_safetensors("h.safetensors", {"w": ("F32", (2, 3), floats(values))})
        document = self.document("h.safetensors", "--hist", "w", "--rows", "w", "--columns", "w")
        (t,) = document["tensors"]
        self.assertEqual(len(t["histogram"]["counts"]), 32)
        self.assertEqual(t["magnitudes"], [{"exponent": 0, "count": 1}, {"exponent": 1, "count": 2},
                                           {"exponent": 2, "count": 2}, {"exponent": 5, "count": 1}])
        self.assertEqual((document["rows"]["min"], document["rows"]["max"]), ([1, -40], [3, 6]))
        self.assertEqual((document["columns"]["min"], document["columns"]["max"]), ([-40, 2, 3], [1, 5, 6]))
        text, _ = self.run_wtool("stats", "h.safetensors", "--rows", "w")
        self.assertEqual([line.split()[:3] for line in text.splitlines()[2:]], [["1", "-40", "6"], ["0", "1", "3"]])
        _, error = self.run_wtool("stats", "h.safetensors", "--hist", "ww", status=2)
        self.assertIn("did you mean 'w'", error)
        self.run_wtool("stats", "h.safetensors", "--hist", "w", "--moments", status=2)
        self.run_wtool("stats", "h.safetensors", "--rows", "w", "-t", "w", status=2)

    def test_the_table_fits_the_terminal(self):
        self.model()
        for width in (60, 80, 120, 200):
            for options in ([], ["--by", "layer"], ["--cast", "f16"]):
                text, _ = self.run_wtool("stats", "m.safetensors", *options, env={"COLUMNS": str(width)})
                table = text.splitlines()[:4]
                self.assertLessEqual(max(map(len, table)), width, text)
        plain, _ = self.run_wtool("stats", "m.safetensors", env={"LC_ALL": "C"})
        self.assertTrue(plain.isascii())

    def test_damaged_and_absent_input(self):
        pathlib.Path("broken").write_bytes(b"\xff" * 64)
        self.run_wtool("stats", "broken", status=3)
        self.run_wtool("stats", "absent", status=4)
        self.run_wtool("stats", status=2)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
