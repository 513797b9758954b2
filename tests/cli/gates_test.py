#!/usr/bin/env python3
"""Gates from outside, on quantize and stats, and the files for CI systems.

usage: gates_test.py WTOOL     (Python's standard library only)

Expected figures come from values that the test wrote, or from the report that the same run gives.
"""
import json
import math
import os
import pathlib
import random
import re
import shlex
import struct
import sys
import unittest

from findings_files import junit, sarif, tensors_of
from weight_files import Command, floats, write_safetensors

UP = "model.layers.{}.mlp.up_proj.weight"


def heavy(n, outlier):
    """Noise of which the first value of each 128 is so many times larger: costs int4 precision."""
    random.seed(n)
    return [random.uniform(-1, 1) * (outlier if i % 128 == 0 else 1) for i in range(n)]


class Gates(Command):
    def model(self, path="m.safetensors"):
        # Layer 1 loses most, layer 0 least.
        tensors = {UP.format(i): ("F32", [8, 256], floats(heavy(2048, outlier))) for i, outlier in enumerate((1, 8, 3))}
        tensors["model.norm.weight"] = ("F32", [256], floats([1.0] * 256))
        write_safetensors(path, tensors)

    def errors(self):
        """rel_rmse of each tensor by the report."""
        done = self.wtool("quantize", "--int4", "m.safetensors", "--json", "-f", "-o", "other.safetensors")
        return {t["name"]: t["rel_rmse"] for t in json.loads(done.stdout)["tensors"] if "rel_rmse" in t}

    def quantize(self, *gates, code=0, more=()):
        options = [word for g in gates for word in ("--gate", g)]
        return self.wtool("quantize", "--int4", "m.safetensors", *options, *more, code=code)

    # --- quantize ----------------------------------------------------------------------------

    def test_a_gate_names_what_failed_and_what_would_pass(self):
        self.model()
        errors = self.errors()
        worst = sorted(errors, key=errors.get, reverse=True)
        self.assertEqual(worst, [UP.format(1), UP.format(2), UP.format(0)])
        said = self.quantize("max(rel_rmse) <= 0.0001", code=1).stdout
        gate = said[said.index("gate max"):]
        self.assertEqual([gate.index(n) for n in worst], sorted(gate.index(n) for n in worst))
        self.assertIn(f"({errors[worst[0]]:.4g})", gate)
        self.assertIn("nothing was written", said)
        self.assertFalse(os.path.exists("m.int4.safetensors"))
        self.assertIn(f"hint: -T '{worst[0]}=keep' -T '{worst[1]}=keep'", gate)
        self.assertNotIn("and would pass", gate)  # nothing would be left to judge
        limit = gate.split("max(rel_rmse) is ")[1].split("'")[1]  # "<= 0.21"
        self.quantize(f"max(rel_rmse) {limit}")
        self.assertTrue(os.path.exists("m.int4.safetensors"))

    def test_a_way_out_that_is_told_is_one(self):
        self.model()
        errors = sorted(self.errors().values())
        limit = f"max(rel_rmse) <= {(errors[0] + errors[1]) / 2}"
        said = self.quantize(limit, code=1).stdout
        hint = re.search(r"hint: (.*) adds (.*) and would pass", said)
        self.assertEqual(hint[1].split(), ["-T", f"'{UP.format(1)}=keep'", "-T", f"'{UP.format(2)}=keep'"])
        self.quantize(limit, more=shlex.split(hint[1]))

    def test_the_way_out_uses_the_names_of_the_input(self):
        self.model()
        said = self.quantize("max(rel_rmse in 'blk.1.*') <= 0.0001", code=1, more=("--rename", r"model\.layers\.=blk.")).stdout
        self.assertIn("FAILED by blk.1.mlp.up_proj.weight", said)
        self.assertIn(f"-T '{UP.format(1)}=keep'", said)

    def test_selectors_and_arithmetic(self):
        self.model()
        errors = [self.errors()[UP.format(i)] for i in range(3)]
        between = (errors[0] + errors[2]) / 2
        self.quantize(f"max(rel_rmse in 'layer:0') < {between} and min(rel_rmse in 'layer:1-2') > {between}",
                      f"count(rel_rmse > {between}) == 2 and count(rel_rmse) == 3",
                      f"not (percentile(rel_rmse, 34) < {between})",
                      f"mean(rel_rmse) * 300% <= {sum(errors) * 1.000001}")
        self.quantize(f"max(rel_rmse in 'layer:1') < {between}", code=1, more=["-f"])

    def test_keep_writes_and_still_fails(self):
        self.model()
        done = self.quantize("max(rel_rmse) <= 0.0001", code=1, more=["--keep", "--json"])
        document = json.loads(done.stdout)
        self.assertEqual((document["ok"], document["output"]["written"]), (False, True))
        self.assertTrue(os.path.exists("m.int4.safetensors"))
        said = self.quantize("max(rel_rmse) <= 0.0001", code=1, more=["--keep", "-f"]).stdout
        self.assertIn("wrote m.int4.safetensors", said)
        self.assertIn("--keep", said)
        os.remove("m.int4.safetensors")
        self.refused("quantize", "--int4", "m.safetensors", "--keep", saying=["--gate"])

    def test_gates_from_a_file(self):
        self.model()
        pathlib.Path("gates.txt").write_text("# by layer\n\nmax(rel_rmse in 're:layers.0#?') < 1   # at most\r\n"
                                             "  count(rel_rmse) == 3\n")
        document = json.loads(self.quantize("@gates.txt", "max(cos) <= 1.1", more=["--json"]).stdout)
        self.assertEqual([g["gate"] for g in document["gates"]],
                         ["max(rel_rmse in 're:layers.0#?') < 1", "count(rel_rmse) == 3", "max(cos) <= 1.1"])
        self.assertTrue(all(g["passed"] for g in document["gates"]))
        pathlib.Path("bad.txt").write_text("max(cos) <= 1.1\n\n# no\nmax(rel_rmse <= 1\n")
        self.refused("quantize", "--int4", "m.safetensors", "-f", "--gate", "@bad.txt",
                     saying=["bad.txt:4: at character 14: expected ')'"])
        pathlib.Path("none.txt").write_text("# nothing\n")
        self.refused("quantize", "--int4", "m.safetensors", "-f", "--gate", "@none.txt", saying=["none.txt", "no gate"])
        self.refused("quantize", "--int4", "m.safetensors", "-f", "--gate", "@absent.txt", code=4, saying=["absent.txt"])
        pathlib.Path("late.txt").write_text("max(cos) <= 1.1\nmax(rel_rmse in 'laier') < 1\n")
        self.refused("quantize", "--int4", "m.safetensors", "-f", "--gate", "@late.txt", saying=["late.txt:2", "'laier'"])

    def test_mistakes_stop_before_the_work(self):
        self.model()
        for gate, said in {"max(rel_rmse <= 1": "--gate 'max(rel_rmse <= 1': at character 14: expected ')'",
                           "max(rel_rmsee) <= 1": "did you mean 'rel_rmse'?",
                           "max(rel_rmse) <= 1 and": "at character 23",
                           "max(rel_rmse in 'up_prjo') <= 1": "no tensor matches 'up_prjo'",
                           "max(rel_rmse in 'model.norm.weight') <= 1": "no tensor matches 'model.norm.weight'",
                           "max(weighted_rel_rmse) <= 1": "--imatrix",
                           "(" * 99: "32 levels deep",
                           "": "is empty"}.items():
            for more in ([], ["-n"]):
                self.refused("quantize", "--int4", "m.safetensors", *more, "--gate", gate, saying=[said])

    # --- stats -------------------------------------------------------------------------------

    def test_stats_has_gates_too(self):
        write_safetensors("s.safetensors", {"a": ("F32", [4], floats([1, 2, 3, -8])), "b": ("F32", [2], floats([0, 4])),
                                            "a.norm": ("I32", [2], struct.pack("<2i", 5, 7))})
        self.wtool("stats", "s.safetensors", "--gate", "max(absmax) == 8 and min(min) == -8 and sum(zeros) == 1",
                   "--gate", "max(max - min in 'dtype:i32') == 2", "--gate", "sum(count) == 8 and max(p50 in 'a') == 1",
                   "--gate", f"max(std in 'b') == 2 and max(mean in 'a') == {-2 / 4}")
        done = self.wtool("stats", "s.safetensors", "--json", "--gate", "max(absmax) <= 7.5", code=1)
        document = json.loads(done.stdout)
        self.assertIs(document["ok"], False)
        (gate,) = document["gates"]
        self.assertEqual((gate["passed"], gate["value"], gate["tensor"]), (False, 8.0, "a"))
        self.assertEqual(gate["comparisons"][0]["would_pass"], "<= 8")
        self.assertEqual(gate["comparisons"][0]["tensors"], [{"name": "a", "value": 8.0}])
        self.assertIn("FAILED by a (8)", self.wtool("stats", "s.safetensors", "--gate", "max(absmax) <= 7.5", code=1).stdout)
        self.assertNotIn("gates", json.loads(self.wtool("stats", "s.safetensors", "--json").stdout))

    def test_nan_passes_no_gate(self):
        nan = math.nan
        write_safetensors("n.safetensors", {"good": ("F32", [2], floats([1, 2])), "half": ("F32", [2], floats([1, nan])),
                                            "none": ("F32", [2], floats([nan, nan])), "empty": ("F32", [0], b"")})
        said = self.wtool("stats", "n.safetensors", "--gate", "sum(nan + inf) == 0", code=1).stdout
        self.assertIn("sum(nan + inf) is 3", said)
        for gate in ("max(absmax) <= 9", "not max(absmax) > 9", "max(p99) < 9", "mean(mean) != 7"):
            said = self.wtool("stats", "n.safetensors", "--gate", gate, code=1).stdout
            self.assertIn("is nan", said)
        self.assertIn("FAILED by none (nan)", self.wtool("stats", "n.safetensors", "--gate", "max(absmax) <= 9", code=1).stdout)
        self.wtool("stats", "n.safetensors", "-x", "none", "--gate", "max(absmax) == 2 and count(nan > 0) == 1")

    def test_columns_that_were_not_measured_are_refused(self):
        self.model()
        self.refused("stats", "m.safetensors", "--gate", "max(overflows) == 0", saying=["no tensor here has a overflows", "--cast"])
        self.refused("stats", "m.safetensors", "--moments", "--gate", "max(p99) < 9", saying=["--moments"])
        self.refused("stats", "m.safetensors", "--gate", "max(rel_rmse) < 9", saying=["unknown metric 'rel_rmse'"])
        self.refused("stats", "m.safetensors", "--gate", "max(max in 'up_prjo') < 9", saying=["no tensor matches 'up_prjo'"])
        self.refused("stats", "m.safetensors", "--by", "layer", "--gate", "max(std) < 9", saying=["--by"])
        self.refused("stats", "m.safetensors", "--rows", "model.norm.weight", "--gate", "max(std) < 9", saying=["--rows"])
        self.wtool("stats", "m.safetensors", "--cast", "f16", "--gate", "sum(overflows) == 0")

    # --- JUnit and SARIF -----------------------------------------------------------------------

    def test_both_files_tell_the_gates(self):
        self.model()
        self.quantize("max(rel_rmse) <= 0.0001 and count(cos) == 3", "count(cos) == 3", code=1,
                      more=["--junit", "j.xml", "--sarif", "s.sarif"])
        failed, passed = junit("j.xml")
        self.assertEqual(failed[:3], ("gate", "max(rel_rmse) <= 0.0001 and count(cos) == 3", "failed"))
        self.assertEqual(passed[:3], ("gate", "count(cos) == 3", "passed"))
        for word in ("file: m.safetensors", "tensor: " + UP.format(1), "would pass"):
            self.assertIn(word, failed[3])
        (result,) = sarif("s.sarif")
        self.assertEqual((result["ruleId"], result["level"]), ("gate", "error"))
        self.assertEqual(tensors_of(result), [UP.format(1), UP.format(2), UP.format(0)])
        self.assertEqual(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "m.safetensors")

    def test_a_run_that_passes_writes_them_too(self):
        self.model()
        self.wtool("stats", "m.safetensors", "--gate", "sum(nan) == 0", "--junit", "j.xml", "--sarif", "s.sarif")
        self.assertEqual([c[:3] for c in junit("j.xml")], [("gate", "sum(nan) == 0", "passed")])
        self.assertEqual(sarif("s.sarif"), [])

    def test_hostile_names_stay_well_formed(self):
        names = ["<a href=\"x\">&amp;'", "ctrl\x01\x1b[31m\x7f", "line\nbreak\ttab", "]]>", "\ufffe\uffff", "\u202eevil", "é ≤ 𝄞"]
        write_safetensors("odd name%:.safetensors", {n: ("F32", [1], floats([i])) for i, n in enumerate(names)})
        self.wtool("stats", "odd name%:.safetensors", "--gate", "min(max) >= 9", "--gate", "max(max in \"]]>\") < 0", code=1)
        self.wtool("stats", "odd name%:.safetensors", "--gate", "min(max) >= 9", "--gate", "max(max in \"]]>\") < 0",
                   "--junit", "j.xml", "--sarif", "s.sarif", code=1)
        first, second = junit("j.xml")
        self.assertEqual(second[1], "max(max in \"]]>\") < 0")
        for shown in (names[0], "ctrl\\x01\\x1b[31m\\x7f", "line\\nbreak\\ttab", "]]>", "\\u202eevil", "é ≤ 𝄞"):
            self.assertIn("tensor: " + shown + "\n", first[3])
        result, _ = sarif("s.sarif")
        self.assertEqual(tensors_of(result), names)
        self.assertEqual(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "odd%20name%25%3A.safetensors")

    def test_they_replace_only_with_force_and_never_an_input(self):
        self.model()
        gate = ("--gate", "sum(nan) == 0")
        pathlib.Path("there").write_text("x")
        for option in ("--junit", "--sarif"):
            self.refused("stats", "m.safetensors", *gate, option, "there", saying=["there: already exists", "--force"])
            self.refused("stats", "m.safetensors", *gate, option, "./m.safetensors", "-f", saying=["an input"])
            self.refused("stats", "m.safetensors", *gate, option, "no/such", code=4, saying=["no such folder"])
            self.refused("stats", "m.safetensors", *gate, option, "-", saying=["no name for a file"])
            self.refused("stats", "m.safetensors", option, "new", saying=["no --gate"])
            self.refused("quantize", "--int4", "m.safetensors", option, "new", saying=["no --gate"])
            self.refused("quantize", "--int4", "m.safetensors", "-n", "--gate", "max(cos) < 2", option, "new", saying=["dry run"])
            self.refused("quantize", "--int4", "m.safetensors", "--gate", "max(cos) < 2", option, "m.int4.safetensors",
                         saying=["the output"])
        self.refused("stats", "m.safetensors", *gate, "--junit", "a", "--sarif", "./a", saying=["--junit goes to the same file"])
        self.refused("quantize", "--int4", "m.safetensors", "--gate", "max(cos) < 2", "--report", "a", "--junit", "a",
                     saying=["same file"])
        self.assertEqual(pathlib.Path("there").read_text(), "x")
        self.wtool("stats", "m.safetensors", *gate, "--junit", "there", "-f")
        self.assertEqual(len(junit("there")), 1)

    def test_no_file_is_left_when_the_work_fails(self):
        write_safetensors("nan.safetensors", {"mlp.up_proj.weight": ("F32", [2, 128], floats([math.nan] * 256))})
        self.refused("quantize", "--int4", "nan.safetensors", "--gate", "max(cos) < 2", "--junit", "j", "--sarif", "s", code=3)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
