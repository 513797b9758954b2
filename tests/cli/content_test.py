#!/usr/bin/env python3
"""digest --content and --per-tensor, verify --content and of single tensors: whatever the container.

usage: content_test.py WTOOL
"""
import hashlib
import json
import os
import pathlib
import struct
import sys
import unittest

from weight_files import Command, gguf, write_safetensors

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "interop"))
import content

MODEL = {"s": ("f32", [], b"1234"), "a.b": ("f32", [3, 2], bytes(range(24))), "c": ("i8", [4], b"\0\1\xff\x80"),
         "h": ("f16", [1, 3], b"abcdef"), "layers.10": ("i32", [1], b"\1\0\0\0"), "layers.9": ("f64", [2], bytes(16))}
ROOT = content.content({name.encode(): t for name, t in MODEL.items()})


def sha(raw):
    return hashlib.sha256(raw).hexdigest()


def upper(names):
    types = {"f32": "F32", "i8": "I8", "f16": "F16", "i32": "I32", "f64": "F64"}
    return {n: (types[MODEL[n][0]], *MODEL[n][1:]) for n in names}


def npy(path, descr, shape, raw, fortran=False):
    head = repr({"descr": descr, "fortran_order": fortran, "shape": tuple(shape)}).encode()
    pathlib.Path(path).write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + raw)


def write_all(case):
    """The model in every way, and the paths."""
    write_safetensors("m.safetensors", upper(MODEL), {"format": "pt"})
    os.mkdir("shards")
    for i, names in enumerate((["h", "c", "layers.9"], ["s", "layers.10", "a.b"]), 1):
        write_safetensors(f"shards/m-0000{i}-of-00002.safetensors", upper(names))
    pathlib.Path("m.gguf").write_bytes(gguf({n: MODEL[n] for n in sorted(MODEL)}, {}))
    case.wtool("convert", "m.gguf", "--endian", "big", "-o", "big.gguf")
    os.mkdir("npy")
    npy("npy/s.npy", ">f4", [], b"4321")
    elements = [MODEL["a.b"][2][i : i + 4] for i in range(0, 24, 4)]
    columns = [elements[r * 2 + c] for c in range(2) for r in range(3)]
    npy("npy/a.b.npy", ">f4", [3, 2], b"".join(e[::-1] for e in columns), fortran=True)
    npy("npy/c.npy", "|i1", [4], MODEL["c"][2])
    npy("npy/h.npy", "<f2", [1, 3], MODEL["h"][2], fortran=True)
    npy("npy/layers.9.npy", "<f8", [2], MODEL["layers.9"][2])
    npy("npy/layers.10.npy", ">i4", [1], b"\0\0\0\1")
    return ["m.safetensors", "shards", "shards/m-00002-of-00002.safetensors", "m.gguf", "big.gguf", "npy"]


class Content(Command):
    def test_is_the_same_in_every_container(self):
        paths = write_all(self)
        done = self.wtool("digest", "--content", *paths)
        self.assertEqual(done.stdout, "".join(f"{ROOT}  {p}\n" for p in paths))
        for path in paths:
            self.wtool("verify", path, "--content", ROOT)
            self.wtool("verify", path, "--content", ROOT.partition(":")[2])

    def test_is_another_for_another_model(self):
        for other in ({**MODEL, "c": ("i8", [4], b"\0\1\xff\x81")}, {**MODEL, "c": ("i8", [2, 2], MODEL["c"][2])},
                      {n: t for n, t in MODEL.items() if n != "c"}, {**MODEL, "d": MODEL["c"]},
                      {("C" if n == "c" else n): t for n, t in MODEL.items()}):
            pathlib.Path("other.gguf").write_bytes(gguf({n: other[n] for n in sorted(other)}, {}))
            done = self.wtool("verify", "other.gguf", "--content", ROOT, code=1)
            self.assertIn("FAILED", done.stdout)
            self.assertIn(ROOT, done.stdout)

    def test_of_one_shard_alone(self):
        write_all(self)
        shard = "shards/m-00001-of-00002.safetensors"
        want = content.content({n.encode(): MODEL[n] for n in ("h", "c", "layers.9")})
        self.assertEqual(self.wtool("digest", "--content", "--alone", shard).stdout.split()[0], want)
        self.wtool("verify", "--alone", shard, "--content", want)
        self.wtool("verify", shard, "--content", want, code=1)

    def test_of_opaque_elements(self):
        npy("w.npy", "|V2", [2], b"abcd")
        found = lambda *more: self.wtool("digest", "--content", *more, "w.npy").stdout.split()[0]
        self.assertEqual(found(), content.content({b"w": ("v2", [2], b"abcd")}))
        self.assertEqual(found("--as", "bf16"), content.content({b"w": ("bf16", [2], b"abcd")}))
        self.wtool("verify", "--as", "bf16", "w.npy", "--content", found("--as", "bf16"))

    def test_metadata_has_a_digest_of_its_own(self):
        write_safetensors("m.safetensors", upper(MODEL), {"format": "pt", "a": "ü"})
        found = json.loads(self.wtool("digest", "--content", "--json", "m.safetensors").stdout)["models"][0]
        self.assertEqual(found["content"], ROOT)
        self.assertEqual(found["tensors"], len(MODEL))
        self.assertEqual(found["metadata_sha256"],
                         content.metadata({b"format": ("str", "pt"), "a".encode(): ("str", "ü")}))

    def test_goes_on_after_a_fault(self):
        write_all(self)
        pathlib.Path("bad").write_bytes(b"no model")
        done = self.wtool("digest", "--content", "bad", "m.gguf", code=3)
        self.assertIn(ROOT, done.stdout)
        self.assertIn("bad", done.stderr)

    def test_options_that_do_not_go_together(self):
        write_all(self)
        for words in (["digest", "--content", "--per-tensor", "m.gguf"], ["digest", "--alone", "m.gguf"],
                      ["verify", "--content", "nothing", "m.gguf"], ["verify", "--content", ROOT],
                      ["verify", "--content", ROOT, "m.gguf", "npy"], ["verify", "--content", ROOT, "--sha256", "m.gguf"],
                      ["verify", "--content", ROOT, "-c", "x", "m.gguf"]):
            self.refused(*words)


class Manifest(Command):
    def test_binds_files_tensors_and_content(self):
        write_all(self)
        self.wtool("digest", "--per-tensor", "shards", "m.gguf", "big.gguf", "-o", "all.json")
        found = json.loads(pathlib.Path("all.json").read_text())
        names = ["big.gguf", "m.gguf", "shards/m-00001-of-00002.safetensors", "shards/m-00002-of-00002.safetensors"]
        self.assertEqual([f["file"] for f in found["files"]], names)
        for f in found["files"]:
            self.assertEqual(f["sha256"], sha(pathlib.Path(f["file"]).read_bytes()))
        self.assertEqual([(m["model"], m["content"], m["tensors"], [f["file"] for f in m["files"]]) for m in found["models"]],
                         [("big.gguf", ROOT, 6, names[:1]), ("m.gguf", ROOT, 6, names[1:2]), ("shards", ROOT, 6, names[2:])])
        self.assertEqual([t["name"] for t in found["tensors"]], sorted([*MODEL] * 3))
        for t in found["tensors"]:
            raw = MODEL[t["name"]][2]
            self.assertEqual(t.get("content_sha256", t["sha256"]), sha(raw))
            size = {"f32": 4, "f16": 2, "i32": 4, "f64": 8, "i8": 1}[t["dtype"]]
            swapped = b"".join(raw[i : i + size][::-1] for i in range(0, len(raw), size))
            self.assertEqual(t["sha256"], sha(swapped if t["file"] == "big.gguf" else raw))
        self.wtool("verify", "-c", "all.json")

    def test_of_a_folder_is_seen_from_within(self):
        write_all(self)
        self.wtool("digest", "--per-tensor", "npy/", "-o", "npy/manifest.json")
        found = json.loads(pathlib.Path("npy/manifest.json").read_text())
        self.assertEqual(found["models"][0]["model"], ".")
        self.assertEqual(found["models"][0]["content"], ROOT)
        os.rename("npy", "moved")
        self.wtool("verify", "-c", "moved/manifest.json")

    def test_takes_no_file_twice(self):
        write_all(self)
        self.refused("digest", "--per-tensor", "m.gguf", "./m.gguf", saying=["twice"])
        self.refused("digest", "--per-tensor", "shards", "shards/m-00001-of-00002.safetensors", saying=["twice"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
