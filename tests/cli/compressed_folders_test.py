#!/usr/bin/env python3
"""Compressed files in folders, beside others, and in lists of digests.

usage: compressed_folders_test.py WTOOL     (Python's standard library only)
"""
import hashlib
import json
import math
import os
import pathlib
import subprocess
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
        os.symlink("../secret", "m/notes.txt")
        self.assertRegex(self.wtool("compress", "m", "-o", "other").stderr, "not copied: notes.txt")
        self.assertEqual(sorted(tree("other")), ["model.safetensors.zst"])
        os.remove("m/notes.txt")
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


    def test_a_file_and_its_compressed_form_do_not_become_one(self):
        self.model("m/model.safetensors")
        self.wtool("compress", "m")
        write("m-zst/model.safetensors", b"other")
        self.refused("decompress", "m-zst", "-o", "again",
                     saying=["m-zst/model.safetensors", "'m-zst/model.safetensors.zst'", "hint: move one"])

    def test_forms_are_told_of_all_files(self):
        # Exponents are worth taking apart; what is all one byte is not.
        names = [f"m/model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        os.mkdir("m")
        write_safetensors(names[0], {"a": ("F32", [4096], floats([math.sin(i * i) for i in range(4096)]))})
        write_safetensors(names[1], {"b": ("U8", [4096], bytes(4096))})
        self.assertRegex(self.wtool("compress", "m", "-n").stdout, r"as planes \(1 file\) and plain \(1\)")
        self.assertRegex(self.wtool("compress", "m", "--plain").stdout, r"as plain \(estimates")

    def test_reports_do_not_replace_files_of_the_folder(self):
        self.model("m/model.safetensors")
        write("m/config.json", b"{}")
        self.refused("compress", "m", "--report", "m/config.json", "-f", saying=["an input"])
        self.wtool("compress", "m")
        for name in ("config.json", "model.safetensors.zst"):
            self.refused("decompress", "m-zst", "-o", "again", "--report", f"m-zst/{name}", "-f", saying=["an input"])


class Names(Command):
    def setUp(self):
        super().setUp()
        write_safetensors("m.safetensors", {"w": ("F32", [64], floats(range(64)))})
        self.original = read("m.safetensors")
        os.mkdir("m")
        write("m/m.safetensors", self.original)

    def test_dots_and_slashes_name_folders(self):
        self.wtool("compress", "m", "-o", "packed/.")
        self.wtool("decompress", "packed/./", "-o", "again/./")
        self.assertEqual(tree("again"), tree("m"))
        self.wtool("compress", "m/.")
        self.wtool("decompress", "m-zst/", "-f")
        self.refused("compress", "m", "-o", "..", saying=["no name of its own"])
        os.mkdir("into")
        self.wtool("compress", "m.safetensors", "-o", "into/.")
        self.wtool("decompress", "into/m.safetensors.zst", "-o", "into/.")
        self.assertEqual(read("into/m.safetensors"), self.original)

    def test_the_folder_one_stands_in_has_no_name(self):
        os.chdir("m")
        for verb in ("compress", "decompress"):
            if verb == "decompress":
                self.wtool("compress", "m.safetensors")
                os.remove("m.safetensors")
            self.refused(verb, ".", saying=["without a name", "-o OUTPUT"])

    def test_standard_input_has_no_name_in_a_folder(self):
        self.wtool("compress", "m.safetensors")
        for verb, path in (("compress", "m.safetensors"), ("decompress", "m.safetensors.zst")):
            for folder in ("m", "m/"):
                done = subprocess.run([self.program, verb, "-", "-o", folder], input=read(path), capture_output=True)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(b"no name for a file", done.stderr)
                self.assertIn(f"hint: say -o {folder.rstrip('/')}/NAME\n".encode(), done.stderr)
        self.assertEqual(os.listdir("m"), ["m.safetensors"])

    def test_nothing_is_written_beside_files_of_a_cache(self):
        write(".cache/m.safetensors", self.original)
        self.refused("compress", ".cache/m.safetensors", saying=["cache folder", "-o OUTPUT"])
        self.wtool("compress", ".cache/m.safetensors", "-o", ".cache/m.safetensors.zst")
        self.refused("decompress", ".cache/m.safetensors.zst", saying=["cache folder", "-o OUTPUT"])

    def test_without_tensors_there_is_no_table(self):
        write_safetensors("none.safetensors", {}, {"a": "b"})
        said = self.wtool("compress", "none.safetensors").stdout
        self.assertEqual(len(said.splitlines()), 2, said)


class Ascii(Command):
    """Where the locale has ASCII alone, names of files and tensors are spelled in it."""

    def test_no_command_prints_anything_else(self):
        name, tensor = "gewicht\u00fc.safetensors", "\u5c42.w"
        write_safetensors(name, {tensor: ("F32", [64], floats(range(64)))})
        self.wtool("sign", "--new-key", "\u00fc")
        digest = hashlib.sha256(read(name)).hexdigest()
        write("list", f"{digest}  {name}\n".encode())
        write("wrong", f"{'0' * 64}  {name}\n".encode())
        self.wtool("digest", "--per-tensor", "-o", "tensors", name)
        for args, code in ((["compress", name], 0), (["decompress", name + ".zst", "-o", "\u00fc.safetensors"], 0),
                           (["verify", "-c", "list"], 0), (["verify", "-c", "wrong"], 1), (["verify", name + ".zst"], 0),
                           (["verify", "-c", "tensors"], 0), (["digest", "-n", name], 0),
                           (["sign", name, "--key", "\u00fc.pem", "-n"], 0), (["sign", name, "--key", "\u00fc.pem"], 0),
                           (["sign", "show", name + ".sig"], 0), (["verify", name, "--key", "\u00fc.pub.pem"], 0),
                           (["convert", name, "-o", "\u00fc.gguf"], 0), (["check", name, "--write-lock", "\u00fc.lock"], 0),
                           (["check", name, "--lock", "\u00fc.lock"], 0), (["show", name, tensor, "-o", "\u00fc.npy", "-n"], 0)):
            done = self.wtool(*args, code=code, locale="C")
            self.assertTrue((done.stdout + done.stderr).isascii(), (args, done.stdout, done.stderr))
            self.assertIn(r"\xc3\xbc", done.stdout + done.stderr, args)


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
