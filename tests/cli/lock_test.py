#!/usr/bin/env python3
"""check --write-lock and --lock from outside.

usage: lock_test.py WTOOL     (Python's standard library only)

Expected figures and digests come from the values that the test wrote.
"""
import hashlib
import json
import math
import os
import pathlib
import random
import struct
import sys
import unittest

from findings_files import junit, sarif, tensors_of
from weight_files import Command, floats, write_safetensors

UP = "model.layers.{}.mlp.up_proj.weight"


def noise(seed, n, size=1.0, drift=0.0):
    """Gauss, and a second one on top of it, as training further gives."""
    base, more = random.Random(seed), random.Random(-seed - 1)
    return [size * (base.gauss(0, 0.1) + drift * more.gauss(0, 0.1)) for _ in range(n)]


class Lock(Command):
    def model(self, path="m.safetensors", drift=0.0, seeds=(1, 2, 3), **changes):
        """Three layers and a norm; `changes` replace or (None) remove tensors by name."""
        tensors = {UP.format(layer): ("F32", [8, 256], floats(noise(seed, 2048, 1 + layer / 2, drift)))
                   for layer, seed in zip((0, 2, 10), seeds)}
        tensors["norm.weight"] = ("F32", [4], floats([1, 0, 1.5, -0.25]))
        tensors.update(changes)
        write_safetensors(path, {k: v for k, v in tensors.items() if v})

    def findings(self, path="m.safetensors", lock="w.lock", more=(), code=1):
        document = json.loads(self.wtool("check", "--lock", lock, path, "--json", *more, code=code).stdout)
        self.assertEqual(document["schema"], "wtool.check/1")
        self.assertIs(document["ok"], code == 0)
        return [(f["rule"], f["tensor"], f["message"]) for f in document["findings"]]

    def rules(self, **how):
        return [f[:2] for f in self.findings(**how)]

    # --- the lock ----------------------------------------------------------------------------

    def test_a_lock_is_made_for_review(self):
        self.model()
        self.assertIn("wrote w.lock: 4 tensors", self.wtool("check", "--write-lock", "w.lock", "m.safetensors").stdout)
        text = pathlib.Path("w.lock").read_text()
        lock = json.loads(text)
        self.assertEqual((lock["schema"], lock["envelope_tolerance"]), ("wtool.lock/1", 0.1))
        # Layer 2 before layer 10, a tensor a line.
        names = [UP.format(0), UP.format(2), UP.format(10), "norm.weight"]
        self.assertEqual([t["name"] for t in lock["tensors"]], names)
        lines = text.splitlines()
        self.assertEqual((len(lines), lines[-1]), (6, "]}"))
        self.assertEqual([json.loads(line.rstrip(","))["name"] for line in lines[1:-1]], names)
        norm = lock["tensors"][3]
        self.assertEqual(norm, {"name": "norm.weight", "dtype": "f32", "shape": [4], "scheme": "plain", "min": -0.25, "max": 1.5,
                                "absmax": 1.5, "rms": round(math.sqrt((1 + 2.25 + 0.0625) / 4), 4), "zeros": 1, "nan": 0, "inf": 0})
        values = struct.unpack("<2048f", floats(noise(1, 2048)))
        for key, exact in {"min": min(values), "max": max(values), "absmax": max(map(abs, values)),
                           "rms": math.sqrt(sum(v * v for v in values) / 2048)}.items():
            self.assertEqual(lock["tensors"][0][key], float(f"{exact:.4g}"), key)

    def test_the_same_model_gives_the_same_lock_for_any_number_of_threads(self):
        self.model()
        for n in ("1", "3"):
            self.wtool("check", "--write-lock", f"{n}.lock", "--digests", "-j", n, "m.safetensors")
        self.assertEqual(pathlib.Path("1.lock").read_text(), pathlib.Path("3.lock").read_text())

    def test_an_existing_lock_is_replaced_only_with_force(self):
        self.model()
        self.wtool("check", "--write-lock", "w.lock", "m.safetensors")
        self.refused("check", "--write-lock", "w.lock", "m.safetensors", saying=["w.lock: already exists", "--force"])
        self.wtool("check", "--write-lock", "w.lock", "m.safetensors", "-f")
        self.refused("check", "--write-lock", "m.safetensors", "m.safetensors", "-f", saying=["an input"])
        os.mkdir("model")
        os.rename("m.safetensors", "model/model.safetensors")
        for force in ([], ["-f"]):  # it may lie in the model's own folder
            self.wtool("check", "--write-lock", "model/w.lock", "model", *force)
        self.assertEqual(self.findings(path="model", lock="model/w.lock", code=0), [])

    # --- comparing ---------------------------------------------------------------------------

    def test_a_model_as_locked_passes(self):
        self.model()
        for more in ([], ["--digests"], ["--envelope-tolerance", "0"]):
            self.wtool("check", "--write-lock", "w.lock", "-f", *more, "m.safetensors")
            self.assertEqual(self.findings(code=0), [])
            self.assertIn("4 tensors are as locked in w.lock", self.wtool("check", "--lock", "w.lock", "m.safetensors").stdout)

    def test_training_further_stays_within_the_envelope_and_other_weights_do_not(self):
        self.model()
        self.wtool("check", "--write-lock", "w.lock", "m.safetensors")
        self.model("tuned.safetensors", drift=0.05)
        self.assertEqual(self.findings(path="tuned.safetensors", code=0), [])
        # The same shapes, other sizes: what was layer 10 is layer 0.
        self.model("other.safetensors", **{UP.format(0): ("F32", [8, 256], floats(noise(9, 2048, 2)))})
        self.assertEqual(set(self.rules(path="other.safetensors")), {("lock.values", UP.format(0))})
        # Nothing but the spread: half as large is within the extremes, and not the same.
        self.model("half.safetensors", **{UP.format(0): ("F32", [8, 256], floats(noise(1, 2048, 0.5)))})
        (found,) = self.findings(path="half.safetensors")
        self.assertEqual(found[:2], ("lock.values", UP.format(0)))
        self.assertRegex(found[2], r"^rms 0\.0\d+, locked as 0\.\d+: -50 %$")

    def test_a_lock_with_digests_takes_not_one_other_bit(self):
        self.model()
        self.wtool("check", "--write-lock", "w.lock", "--digests", "m.safetensors")
        raw = floats([1, 0, 1.5, -0.25])
        self.assertEqual(json.loads(pathlib.Path("w.lock").read_text())["tensors"][3]["sha256"], [hashlib.sha256(raw).hexdigest()])
        near = bytes([raw[0] ^ 1]) + raw[1:]
        self.model("near.safetensors", **{"norm.weight": ("F32", [4], near)})
        (found,) = self.findings(path="near.safetensors")
        self.assertEqual(found, ("lock.digest", "norm.weight", f"sha256 {hashlib.sha256(near).hexdigest()[:12]}…, "
                                 f"locked as {hashlib.sha256(raw).hexdigest()[:12]}…"))

    def test_every_kind_of_change_is_named(self):
        self.model()
        self.wtool("check", "--write-lock", "w.lock", "m.safetensors")
        half = struct.pack("<2048e", *noise(2, 2048, 2))
        self.model("n.safetensors", **{UP.format(0): None, UP.format(2): ("F16", [8, 256], half),
                                       UP.format(10): ("F32", [256, 8], floats(noise(3, 2048, 6))),
                                       "norm.weight": ("F32", [4], floats([1, math.nan, 1.5, math.inf])),
                                       "new.weight": ("F32", [1], floats([1]))})
        found = self.findings(path="n.safetensors")
        self.assertEqual([f[:2] for f in found],
                         [("lock.removed", UP.format(0)), ("lock.dtype", UP.format(2)), ("lock.shape", UP.format(10)),
                          ("lock.added", "new.weight"), ("lock.non_finite", "norm.weight"), ("lock.values", "norm.weight"),
                          ("lock.values", "norm.weight")])
        self.assertIn("dtype f16, locked as f32", found[1][2])
        self.assertIn("shape [256, 8], locked as [8, 256]", found[2][2])
        self.assertIn("1 NaN and 1 infinities, locked with 0 and 0", found[4][2])
        said = self.wtool("check", "--lock", "w.lock", "n.safetensors", code=1).stdout
        self.assertIn("5 tensors are not as locked in w.lock", said)
        self.assertIn("--write-lock w.lock -f", said)

    def test_quantized_tensors_are_one_line_and_what_they_decode_to(self):
        self.model()
        for bits in ("int8", "int4"):
            self.wtool("quantize", f"--{bits}", "m.safetensors", "-o", f"{bits}.safetensors")
        self.wtool("check", "--write-lock", "w.lock", "--digests", "int8.safetensors")
        lock = json.loads(pathlib.Path("w.lock").read_text())
        self.assertEqual([t["name"] for t in lock["tensors"]], [UP.format(0), UP.format(2), UP.format(10), "norm.weight"])
        self.assertEqual([t["scheme"] for t in lock["tensors"]], ["compressed-tensors"] * 3 + ["plain"])
        self.assertGreater(len(lock["tensors"][0]["sha256"]), 1)
        self.assertEqual(self.findings(path="int8.safetensors", code=0), [])
        self.assertEqual({f[0] for f in self.findings(path="int4.safetensors")}, {"lock.bytes"})
        self.assertEqual({f[0] for f in self.findings(path="m.safetensors")}, {"lock.scheme"})

    def test_patterns_select_in_the_model_and_in_the_lock(self):
        self.model()
        self.wtool("check", "--write-lock", "w.lock", "m.safetensors")
        self.model("n.safetensors", **{UP.format(0): None, "norm.weight": ("F32", [4], floats([9, 9, 9, 9]))})
        self.assertEqual(self.rules(path="n.safetensors", more=["-t", "layer:0"]), [("lock.removed", UP.format(0))])
        self.assertEqual(self.findings(path="n.safetensors", more=["-t", "layer:2-"], code=0), [])
        self.assertEqual(self.rules(path="n.safetensors", more=["-x", "norm*"]), [("lock.removed", UP.format(0))])
        self.refused("check", "--lock", "w.lock", "n.safetensors", "-t", "layer:7", saying=["layer:7"])
        self.wtool("check", "--write-lock", "norm.lock", "-t", "norm*", "m.safetensors")
        self.assertEqual(self.findings(lock="norm.lock", more=["-t", "norm*"], code=0), [])
        self.assertEqual({f[0] for f in self.findings(lock="norm.lock")}, {"lock.added"})

    def test_the_tolerance_is_the_locks(self):
        self.model()
        self.wtool("check", "--write-lock", "w.lock", "--envelope-tolerance", "60%", "m.safetensors")
        self.assertEqual(json.loads(pathlib.Path("w.lock").read_text())["envelope_tolerance"], 0.6)
        self.model("half.safetensors", **{UP.format(0): ("F32", [8, 256], floats(noise(1, 2048, 0.5)))})
        self.assertEqual(self.findings(path="half.safetensors", code=0), [])
        for bad in ("-1", "nan", "inf", "x", "1e999", ""):
            self.refused("check", "--write-lock", "v.lock", f"--envelope-tolerance={bad}", "m.safetensors")

    def test_findings_as_junit_and_sarif(self):
        self.model()
        self.wtool("check", "--write-lock", "w.lock", "m.safetensors")
        self.wtool("check", "--lock", "w.lock", "m.safetensors", "--junit", "j.xml", "--sarif", "s.sarif")
        self.assertEqual([c[:3] for c in junit("j.xml")],
                         [("lock.tensor", n, "passed") for n in (UP.format(0), UP.format(2), UP.format(10), "norm.weight")])
        self.assertEqual(sarif("s.sarif"), [])
        self.model(**{UP.format(2): None})
        self.refused("check", "--lock", "w.lock", "m.safetensors", "--junit", "j.xml", saying=["already exists"])
        for option in ("--junit", "--sarif"):
            self.refused("check", "--lock", "w.lock", "m.safetensors", option, "w.lock", "-f", saying=["an input"])
        self.wtool("check", "--lock", "w.lock", "m.safetensors", "--junit", "j.xml", "--sarif", "s.sarif", "-f", code=1)
        cases = junit("j.xml")
        self.assertEqual([c[2] for c in cases], ["failed", "passed", "passed", "passed"])
        self.assertEqual(cases[0][:2], ("lock.removed", UP.format(2)))
        (result,) = sarif("s.sarif")
        self.assertEqual((result["ruleId"], tensors_of(result)), ("lock.removed", [UP.format(2)]))
        self.assertIn("is gone, locked as f32 [8, 256]", result["message"]["text"])

    def test_names_that_are_no_text_go_through_a_lock(self):
        names = ["a\nb", "\x1b[31m", "\"q\\", "é𝄞"]
        write_safetensors("m.safetensors", {n: ("F32", [1], floats([1])) for n in names})
        self.wtool("check", "--write-lock", "w.lock", "m.safetensors")
        self.assertEqual(self.findings(code=0), [])
        self.assertEqual({t["name"] for t in json.loads(pathlib.Path("w.lock").read_text())["tensors"]}, set(names))

    # --- the command's edges -------------------------------------------------------------------

    def test_what_is_asked_for_must_make_sense(self):
        self.model()
        self.refused("check", "--lock", "a", "--write-lock", "b", "m.safetensors", saying=["do not go together"])
        self.wtool("check", "--write-lock", "w.lock", "m.safetensors")
        self.refused("check", "--lock", "w.lock", "--digests", "m.safetensors", saying=["--write-lock"])
        self.refused("check", "--lock", "w.lock", "--envelope-tolerance", "1", "m.safetensors", saying=["--write-lock"])
        self.refused("check", "--write-lock", "v.lock", "--junit", "j", "m.safetensors", saying=["--lock"])
        self.refused("check", "--lock", "absent", "m.safetensors", code=4, saying=["absent"])
        self.refused("check", "--lock", "w.lock", "absent", code=4, saying=["absent"])
        write_safetensors("empty.safetensors", {})
        self.refused("check", "--write-lock", "v.lock", "empty.safetensors", saying=["no tensor"])
        pathlib.Path("v.lock").write_text('{"schema": "wtool.lock/1", "tensors": []}')
        self.refused("check", "--lock", "v.lock", "empty.safetensors", saying=["nothing to compare"])

    def test_a_damaged_lock_is_an_error_that_says_where(self):
        self.model()
        tensor = '{"name": "a", "dtype": "f32", "shape": [1], "scheme": "plain"}'

        def lock(tensors, head='"schema": "wtool.lock/1", '):
            return "{" + head + '"tensors": [' + tensors + "]}"

        for text, said in [
                ("", "ends at byte 0"),
                ("[]", "the lock is an array"),
                ("[" * 100_000, "is an array"),
                ('{"schema": "wtool.lock/1", "x": ' + "[" * 100_000, "nested more than 128"),
                ('{"schema": "wtool.lock/1", "x": ' + '{"a":' * 100_000, "nested more than 128"),
                ("{}", "no 'schema'"),
                ('{"schema": "wtool.stats/1", "tensors": []}', "schema 'wtool.stats/1'"),
                ('{"schema": "wtool.lock/2", "tensors": []}', "'wtool.lock/2'; this version reads"),
                ('{"schema": 1}', "schema is a number"),
                ('{"schema": "wtool.lock/1"}', "no 'tensors'"),
                ('{"tensors": [], "schema": "wtool.lock/1"}', "does not come first"),
                ('{"schema": "wtool.lock/1", "tensors": {}}', "tensors is an object"),
                (lock("")[:-1], "ends at byte"),
                (lock("") + "x", "JSON fault"),
                (lock("", '"schema": "wtool.lock/1", "schema": "wtool.lock/1", '), "'schema' is there twice"),
                (lock("", '"schema": "wtool.lock/1", "envelope_tolerance": -1, '), "negative"),
                (lock("", '"schema": "wtool.lock/1", "envelope_tolerance": 1e999, '), "beyond double"),
                (lock("", '"schema": "wtool.lock/1", "envelope_tolerance": "1", '), "is a string"),
                (lock("7"), "a tensor is a number"),
                (lock("{}"), "needs name"),
                (lock(tensor + "," + tensor), "tensor 'a' is there twice"),
                (lock(tensor.replace('"a"', '"a", "name": "b"')), "'name' is there twice"),
                (lock(tensor.replace("[1]", '"1"')), "tensor 'a': shape is a string"),
                (lock(tensor.replace("[1]", "[-1]")), "tensor 'a': shape is '-1', not a count"),
                (lock(tensor.replace("[1]", "[1.5]")), "not a count"),
                (lock(tensor.replace("[1]", "[18446744073709551616]")), "not a count"),
                (lock(tensor.replace("[1]", "[null]")), "shape is null"),
                (lock(tensor.replace("}", ', "min": 1}')), "all of min, max, absmax and rms"),
                (lock(tensor.replace("}", ', "min": 1, "max": 0, "absmax": 1, "rms": 1}')), "min 1 is above max 0"),
                (lock(tensor.replace("}", ', "min": 1, "max": 1, "absmax": 1, "rms": -1}')), "negative"),
                (lock(tensor.replace("}", ', "min": null}')), "min is null"),
                (lock(tensor.replace("}", ', "zeros": 1}')), "all of zeros, nan and inf"),
                (lock(tensor.replace("}", ', "sha256": ["00"]}')), "'00' is no SHA-256"),
                (lock(tensor.replace("}", ', "sha256": "00"}')), "sha256 is a string"),
                (lock(tensor.replace("}", ', "name_hex": "0g"}')), "name_hex"),
                (b"\xff" + lock("").encode(), "JSON fault"),
        ]:
            raw = text if isinstance(text, bytes) else text.encode()
            pathlib.Path("bad.lock").write_bytes(raw)
            error = self.refused("check", "--lock", "bad.lock", "m.safetensors", code=3, saying=["bad.lock: ", said])
            self.assertLess(len(error), 1000)
        with open("bad.lock", "wb") as f:
            f.truncate(300 << 20)
        self.refused("check", "--lock", "bad.lock", "m.safetensors", code=3, saying=["314572800 bytes are too many"])

    def test_a_lock_edited_by_hand_is_read(self):
        self.model()
        self.wtool("check", "--write-lock", "w.lock", "m.safetensors")
        lock = json.loads(pathlib.Path("w.lock").read_text())
        lock["tensors"].reverse()
        for key in ("min", "max", "absmax", "rms", "zeros", "nan", "inf"):
            del lock["tensors"][0][key]  # the norm's: whatever they are
        lock["comment"] = {"by": ["us", None, {"of": True}]}
        pathlib.Path("w.lock").write_text(json.dumps(lock, indent=1))
        self.model(**{"norm.weight": ("F32", [4], floats([math.nan, 99, 0, 0]))})
        self.assertEqual(self.findings(code=0), [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
