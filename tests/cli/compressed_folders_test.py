#!/usr/bin/env python3
"""Compressed files in folders, beside others, and in lists of digests.

usage: compressed_folders_test.py WTOOL     (Python's standard library only)
"""
import hashlib
import json
import math
import os
import pathlib
import unittest

from weight_files import Command, floats, write_safetensors

# A whole frame of zstd's own, without content's size or checksum: one raw block, "hello".
FOREIGN = bytes.fromhex("28b52ffd0000290000") + b"hello"


def read(path):
    return pathlib.Path(path).read_bytes()


def write(path, raw):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_bytes(raw)


def npy(numbers):
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % len(numbers)
    head += b" " * (117 - len(head)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + floats(numbers)


def tree(folder):
    """path -> bytes, of all below"""
    base = pathlib.Path(folder)
    return {str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*") if p.is_file()}


class Folders(Command):
    def model(self, path, start=0):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(path, {f"w{start}": ("F32", [64, 8], floats([0.25 * i + start for i in range(512)]))})

    def test_weights_in_subfolders_come_back(self):
        self.model("m/parts/a.safetensors")
        write("m/model.safetensors.index.json", json.dumps({"weight_map": {"w0": "parts/a.safetensors"}}).encode())
        self.wtool("compress", "m")
        self.wtool("decompress", "m-zst", "-o", "again")
        self.assertEqual(tree("again"), tree("m"))

    def test_a_folder_of_arrays_is_one_model_compressed_or_not(self):
        write("m/a.npy", npy([1, 2, 3]))
        write("m/deep/b.npy", npy([4, 5]))
        self.wtool("compress", "m")
        self.assertEqual(sorted(tree("m-zst")), ["a.npy.zst", "deep/b.npy.zst"])
        self.wtool("diff", "m", "m-zst")
        self.wtool("decompress", "m-zst", "-o", "again")
        self.assertEqual(tree("again"), tree("m"))

    def test_other_compressed_files_are_copied_but_no_broken_weights(self):
        self.model("m/model.safetensors")
        write("m/corpus.txt.zst", FOREIGN)
        self.wtool("compress", "m")
        self.wtool("decompress", "m-zst", "-o", "again")
        self.assertEqual(tree("again"), tree("m"))
        write("m-zst/more.safetensors.zst", FOREIGN)
        self.refused("decompress", "m-zst", "-o", "third", saying=["more.safetensors.zst", "without a table"], code=3)

    def test_links_that_lead_out_are_not_copied(self):
        self.model("m/model.safetensors")
        self.wtool("compress", "m")
        write("secret", b"secret")
        os.symlink("../secret", "m-zst/notes.txt")
        self.assertIn("notes.txt", self.wtool("decompress", "m-zst", "-o", "again").stderr)
        self.assertEqual(tree("again"), tree("m"))

    def test_a_base_that_nothing_wants_is_refused(self):
        self.model("m/model.safetensors")
        self.wtool("compress", "m")
        self.refused("decompress", "m-zst", "--base", "m", "-o", "again", saying=["no difference"])

    def test_parts_are_of_a_file(self):
        self.model("m/model.safetensors")
        self.wtool("compress", "m")
        self.refused("decompress", "m-zst", "--tensor", "w0", "-o", "t.npy", saying=["this is a folder"])


class Beside(Command):
    def test_the_compressed_shard_is_read_if_it_is_the_one_named(self):
        names = [f"m-0000{i}-of-00002.safetensors" for i in (1, 2)]
        for i, name in enumerate(names):
            write_safetensors(name, {f"w{i}": ("F32", [512], floats([0.5 * k for k in range(512)]))})
        self.wtool("compress", names[0])
        write_safetensors(names[0], {"other": ("F32", [2], floats([1, 2]))})
        for index in (False, True):
            if index:
                write("model.safetensors.index.json",
                      json.dumps({"weight_map": {"w0": names[0], "w1": names[1]}}).encode())
            self.assertIn("w0", self.wtool("inspect", "-l", names[0] + ".zst").stdout)

    def test_what_the_output_needs_is_never_replaced(self):
        for name, last in (("base", 1), ("tuned", 2)):
            numbers = [math.sin(i * i) for i in range(4095)] + [last]
            write_safetensors(f"{name}.safetensors", {"w": ("F32", [4096], floats(numbers))})
        base = read("base.safetensors")
        os.link("base.safetensors", "link.safetensors")
        for output in ("base.safetensors", "./base.safetensors", "link.safetensors"):
            self.refused("compress", "tuned.safetensors", "--base", "base.safetensors", "-o", output, "-f", saying=["the base"])
        self.wtool("compress", "tuned.safetensors", "--base", "base.safetensors")
        self.refused("decompress", "tuned.safetensors.zst", "--base", "base.safetensors", "-o", "base.safetensors", "-f",
                     saying=["the base"])
        self.assertEqual(read("base.safetensors"), base)
        self.wtool("compress", "base.safetensors", "-o", "packed.safetensors")
        self.refused("decompress", "packed.safetensors", "--salvage", "packed.safetensors", "-f", saying=["the input"])

    def test_a_wrong_digest_fails_whatever_is_inside(self):
        write("foreign.zst", FOREIGN)
        write("fine", b"fine")
        zeros = "0" * 64
        write("list", f"{zeros}  foreign.zst\n{hashlib.sha256(b'fine').hexdigest()}  fine\n".encode())
        said = self.wtool("verify", "-c", "list", code=1).stdout
        self.assertRegex(said, "foreign.zst: FAILED")
        self.assertRegex(said, "fine: OK")


if __name__ == "__main__":
    unittest.main(argv=["compressed_folders_test"])
