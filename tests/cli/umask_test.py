#!/usr/bin/env python3
"""The modes of what is written: the umask's, and never more than that while it is being made.

usage: umask_test.py WTOOL     (Python's standard library only)
"""
import os
import pathlib
import stat
import subprocess
import sys
import time
import unittest

from weight_files import Command, floats, write_safetensors

MASKS = (0o077, 0o027, 0o022, 0o000)
# Arguments, and what they make in out/: nothing they make has an x bit, but folders.
CASES = [
    ("convert", "m.safetensors", "--dtype", "bf16", "-o", "out/o.safetensors", "--report", "out/r.json"),
    ("convert", "m.safetensors", "-o", "out/shards/", "--shard-size", "2kB"),
    ("convert", "m.safetensors", "--rename", "a.=a/", "-o", "out/npy/", "--to", "npy"),
    ("quantize", "--int8", "m.safetensors", "-o", "out/q.safetensors", "--junit", "out/j.xml", "--sarif", "out/s.sarif",
     "--gate", "max(rel_rmse)<=1"),
    ("digest", "m.safetensors", "-o", "out/SHA256SUMS"),
    ("show", "m.safetensors", "a.0.weight", "-o", "out/o.npy"),
    ("check", "m.safetensors", "--write-lock", "out/o.lock"),
]


def modes(folder):
    """path -> mode, of all below."""
    return {str(p): stat.S_IMODE(p.lstat().st_mode) for p in sorted(pathlib.Path(folder).rglob("*"))}


class Umask(Command):
    def setUp(self):
        super().setUp()
        write_safetensors("m.safetensors", {f"a.{i}.weight": ("F32", [4, 128], floats([0.5 * i] * 512)) for i in range(4)})
        os.mkdir("out")

    def run_with(self, mask, args):
        return subprocess.run([self.program, *args], umask=mask, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def test_new_files_and_folders_have_the_umask_s_modes(self):
        for mask in MASKS:
            for args in CASES:
                done = self.run_with(mask, args)
                self.assertEqual(done.returncode, 0, done.stderr)
            made = modes("out")
            self.assertGreater(len(made), 15)
            for path, mode in made.items():
                self.assertEqual(oct(mode), oct((0o777 if os.path.isdir(path) else 0o666) & ~mask), f"{path}, umask {mask:o}")
            subprocess.run(["rm", "-rf", "out"], check=True)
            os.mkdir("out")

    def test_what_replaces_keeps_the_mode(self):
        for mode, mask in ((0o600, 0o022), (0o644, 0o077), (0o640, 0o000)):
            pathlib.Path("out/o.safetensors").write_bytes(b"old")
            os.chmod("out/o.safetensors", mode)
            self.assertEqual(self.run_with(mask, (*CASES[0], "-f")).returncode, 0)
            self.assertEqual(oct(modes("out")["out/o.safetensors"]), oct(mode))

    def test_what_is_not_finished_is_closed_to_others(self):
        # Long enough in the making to be looked at.
        tensors = {f"a.{i}": ("F32", [512, 1024], bytes(2 << 20)) for i in range(16)}
        write_safetensors("large.safetensors", tensors)
        for output, options in (("out/o.safetensors", []), ("out/folder/", ["--shard-size", "8MB"])):
            args = ("convert", "large.safetensors", "-o", output, "--dtype", "f16", "-j1", *options)
            child = subprocess.Popen([self.program, *args], umask=0, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            seen = set()
            while child.poll() is None:
                for name in os.listdir("out"):
                    if name.startswith("."):
                        try:
                            seen.add(oct(stat.S_IMODE(os.lstat("out/" + name).st_mode)))
                        except FileNotFoundError:
                            pass
                time.sleep(0.0005)
            self.assertEqual(child.returncode, 0, child.communicate()[1])
            # A folder is made with the umask's mode, empty, and gets it back just before its name.
            self.assertIn("0o700", seen)
            if not options:
                self.assertEqual(seen, {"0o700"})


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
