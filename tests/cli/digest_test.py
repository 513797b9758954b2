#!/usr/bin/env python3
"""digest and verify from outside; digests are checked against hashlib and coreutils' sha256sum.

usage: digest_test.py WTOOL      (Python's standard library only)
"""
import hashlib
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

WTOOL = str(pathlib.Path(sys.argv[1]).resolve())


def sha(raw):
    return hashlib.sha256(raw).hexdigest()


def safetensors(tensors, metadata=None):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, raw in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(raw)], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


class Digest(unittest.TestCase):
    def setUp(self):
        self.old = os.getcwd()
        self.dir = tempfile.mkdtemp(prefix="wtool-test-")
        os.chdir(self.dir)
        self.raw = safetensors({"a": b"first tensor", "b": b"second"})
        pathlib.Path("m.safetensors").write_bytes(self.raw)

    def tearDown(self):
        os.chdir(self.old)
        shutil.rmtree(self.dir)

    def wtool(self, *args, code=0):
        done = subprocess.run([WTOOL, *args], capture_output=True, text=True)
        self.assertEqual(done.returncode, code, f"{args}: {done.stdout}{done.stderr}")
        return done

    def test_lines_are_sha256sums(self):
        pathlib.Path("empty").write_bytes(b"")
        pathlib.Path("odd\\name\n").write_bytes(b"x" * 3_000_000)
        pathlib.Path("with space").write_bytes(b"y")
        names = ["m.safetensors", "odd\\name\n", "empty", "with space"]
        ours = self.wtool("digest", *names).stdout
        theirs = subprocess.run(["sha256sum", *names], capture_output=True, text=True, check=True).stdout
        self.assertEqual(ours, theirs)

    def test_folder(self):
        os.makedirs("d/sub")
        for name in ("d/b", "d/a", "d/sub/c"):
            pathlib.Path(name).write_text(name)
        self.wtool("digest", "d", "-o", "d/SHA256SUMS")
        lines = pathlib.Path("d/SHA256SUMS").read_text()
        self.assertEqual(lines, "".join(f"{sha(('d/' + n).encode())}  {n}\n" for n in ("a", "b", "sub/c")))
        subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd="d", capture_output=True, check=True)
        self.wtool("verify", "-c", "d/SHA256SUMS")

    def test_several_inputs_one_missing(self):
        done = self.wtool("digest", "m.safetensors", "nope", code=4)
        self.assertIn(sha(self.raw), done.stdout)
        self.assertIn("nope", done.stderr)

    def test_verify_with_a_digest(self):
        good, bad = sha(self.raw), "0" * 64
        self.assertIn("OK", self.wtool("verify", f"--sha256={good}", "m.safetensors").stdout)
        self.wtool("verify", "m.safetensors", f"--sha256={good.upper()}")
        done = self.wtool("verify", f"--sha256={bad}", "m.safetensors", code=1)
        self.assertIn(good, done.stdout + done.stderr)
        self.assertIn(bad, done.stdout + done.stderr)
        self.wtool("verify", "--sha256=123", "m.safetensors", code=2)
        self.wtool("verify", "--sha256=", "m.safetensors", code=2)

    def test_verify_finds_what_lies_beside_and_says_which(self):
        self.wtool("verify", "--sha256", "m.safetensors", code=2)
        pathlib.Path("SHA256SUMS").write_text(f"{sha(self.raw)}  m.safetensors\n{'1' * 64}  other\n")
        self.assertIn("SHA256SUMS", self.wtool("verify", "--sha256", "m.safetensors").stdout)
        pathlib.Path("m.safetensors.sha256").write_text(f"{'2' * 64}  m.safetensors\n")
        self.assertIn("m.safetensors.sha256", self.wtool("verify", "m.safetensors", "--sha256", code=1).stdout)
        os.remove("m.safetensors.sha256")
        pathlib.Path("SHA256SUMS").write_text(f"{'1' * 64}  other\n")
        self.wtool("verify", "--sha256", "m.safetensors", code=2)

    def test_nothing_to_compare_with(self):
        self.wtool("verify", "m.safetensors", code=2)
        pathlib.Path("none").write_text("")
        self.wtool("verify", "-c", "none", code=2)

    def test_lists(self):
        pathlib.Path("list").write_text(f"{sha(self.raw)} *m.safetensors\n{'1' * 64}  gone\n")
        done = self.wtool("verify", "-c", "list", code=1)
        self.assertIn("gone", done.stdout + done.stderr)
        pathlib.Path("list").write_text(f"{sha(self.raw)}  m.safetensors\nthis is no line\n")
        self.assertIn("2", self.wtool("verify", "-c", "list", code=3).stderr)

    def test_manifest_names_the_first_tensor_that_differs(self):
        self.wtool("digest", "--per-tensor", "m.safetensors", "-o", "m.json")
        manifest = json.loads(pathlib.Path("m.json").read_text())
        self.assertEqual(manifest["schema"], "wtool.manifest/1")
        self.assertIn(sha(b"second"), json.dumps(manifest))
        self.assertIn(sha(self.raw), json.dumps(manifest))
        self.wtool("verify", "-c", "m.json")
        pathlib.Path("m.safetensors").write_bytes(safetensors({"a": b"first tensor", "b": b"sEcond"}))
        done = self.wtool("verify", "-c", "m.json", code=1)
        self.assertIn("'b'", done.stdout + done.stderr)
        self.assertNotIn("'a'", done.stdout + done.stderr)
        pathlib.Path("m.safetensors").write_bytes(safetensors({"a": b"first tensor", "b": b"second"}, {"k": "v"}))
        done = self.wtool("verify", "-c", "m.json", code=1)
        self.assertIn("header", done.stdout + done.stderr)

    def test_a_manifest_s_names_do_not_lead_out_of_its_folder(self):
        os.mkdir("in")
        pathlib.Path("in/m.safetensors").write_bytes(self.raw)
        self.wtool("digest", "--per-tensor", "in/m.safetensors", "-o", "in/m.json")
        self.wtool("verify", "-c", "in/m.json")
        manifest = json.loads(pathlib.Path("in/m.json").read_text())
        for name in ("../m.safetensors", "x/../../m.safetensors", os.path.abspath("m.safetensors")):
            for part in (*manifest["files"], *manifest["tensors"]):
                part["file"] = name
            pathlib.Path("in/m.json").write_text(json.dumps(manifest))
            self.assertIn("path" if name[0] == "/" else "leads out", self.wtool("verify", "-c", "in/m.json", code=3).stderr)

    def test_json(self):
        got = json.loads(self.wtool("digest", "--json", "m.safetensors").stdout)
        self.assertEqual(got["schema"], "wtool.digest/1")
        self.assertIn(sha(self.raw), json.dumps(got))
        got = json.loads(self.wtool("verify", "--json", f"--sha256={'0' * 64}", "m.safetensors", code=1).stdout)
        self.assertEqual((got["schema"], got["ok"]), ("wtool.verify/1", False))

    def test_same_for_any_threads(self):
        pathlib.Path("big").write_bytes(os.urandom(1 << 20) * 24)
        want = sha(pathlib.Path("big").read_bytes())
        for threads in "1", "2", "5":
            self.assertEqual(self.wtool("digest", "-j", threads, "big", "m.safetensors").stdout.split()[0], want)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
