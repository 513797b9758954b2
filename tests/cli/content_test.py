#!/usr/bin/env python3
"""digest --content and --per-tensor, verify --content, signed manifests, and single tensors.

usage: content_test.py WTOOL
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

from weight_files import Command, floats, gguf, write_safetensors

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


def edit(path, change):
    document = json.loads(pathlib.Path(path).read_text())
    change(document)
    pathlib.Path(path).write_text(json.dumps(document))


class SignedModel(Command):
    """A folder with a signed manifest in it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.keys = tempfile.mkdtemp(prefix="wtool-keys-")
        cls.key = f"{cls.keys}/me.pem"
        cls.trust = ("--key", f"{cls.keys}/me.pub.pem")
        for name in ("me", "you"):
            subprocess.run([cls.program, "sign", "-q", "--new-key", f"{cls.keys}/{name}"], check=True, capture_output=True)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.keys)

    def setUp(self):
        super().setUp()
        os.makedirs("m/sub")
        names = sorted(MODEL)
        for i, part in enumerate((names[:3], names[3:]), 1):
            write_safetensors(f"m/m-0000{i}-of-00002.safetensors", upper(part), {"format": "pt"})
        pathlib.Path("m/sub/note").write_text("a note")
        self.wtool("digest", "--per-tensor", "m", "-o", "m/list.json")
        self.sign()

    def sign(self, *more):
        self.wtool("sign", "m/list.json", "--key", self.key, "-f", *more)


class Signed(SignedModel):
    def check(self, code, *more):
        return self.wtool("verify", "-c", "m/list.json", *self.trust, *more, code=code).stdout

    def test_is_verified_and_then_what_it_lists(self):
        said = self.check(0)
        self.assertIn("m/list.json.sig: VERIFIED", said)
        self.assertEqual(said.count(": OK (m/list.json)"), 3)
        self.check(0, "m/sub/note")
        os.rename("m/list.json.sig", "elsewhere.sig")
        self.check(4)
        self.check(0, "--signature", "elsewhere.sig", "--ignore", "list.json.sig")
        self.wtool("verify", "-c", "m/list.json", "--signature", "elsewhere.sig", code=2)
        self.wtool("verify", "-c", "m/list.json")  # without a key as ever

    def test_nothing_is_used_before_it_is_verified(self):
        for bad in (["--key", f"{self.keys}/you.pub.pem"], ["--ca", f"{self.keys}/me.pub.pem"]):
            done = subprocess.run([self.program, "verify", "-c", "m/list.json", *bad], capture_output=True, text=True)
            self.assertIn(done.returncode, (1, 3))
            self.assertNotIn("m-0000", done.stdout)
        edit("m/list.json", lambda d: d.update(new=1))
        said = self.check(1)
        self.assertIn("NOT VERIFIED", said)
        self.assertNotIn("m-0000", said)
        found = json.loads(self.check(1, "--json"))
        self.assertEqual((found["ok"], found["files"]), (False, []))
        self.assertEqual((found["signature"]["ok"], found["signature"]["reason"]), (False, "contents"))
        self.wtool("verify", "m", "-t", "c", "-c", "m/list.json", *self.trust, code=1)
        pathlib.Path("m/list.json").write_text("{")
        self.check(1)
        self.wtool("verify", "-c", "m/list.json", code=3)

    def test_a_signature_of_something_else(self):
        self.wtool("sign", "m/sub/note", "--key", self.key, "-o", "note.sig")
        self.wtool("sign", "m", "--key", self.key, "-o", "m.sig")
        shutil.copy("m/list.json", "m/other.json")
        for bad in ("note.sig", "m.sig"):
            self.check(1, "--signature", bad)
        self.wtool("verify", "-c", "m/other.json", *self.trust, "--signature", "m/list.json.sig", code=1)

    def test_every_file_counts(self):
        for name in ("m-00001-of-00002.safetensors", "sub/note"):
            path = pathlib.Path("m", name)
            good = path.read_bytes()
            path.write_bytes(good[:-1] + b"\x55")
            self.assertIn(f"{name}: FAILED", self.check(1))
            path.unlink()
            self.assertIn(f"{name}: MISSING", self.check(1))
            path.write_bytes(good)
        for name in ("new", "sub/new", "sub/.git"):
            pathlib.Path("m", name).write_text("")
            self.assertIn(f"{name}: EXTRA", self.check(1))
            self.check(0, "--ignore", name)
            self.check(0, "--ignore-unsigned")
            self.assertEqual(json.loads(self.check(1, "--json"))["extra"], [{"file": name}])
            os.unlink(f"m/{name}")
        self.assertIn("it is listed", self.wtool("verify", "-c", "m/list.json", *self.trust, "--ignore", "sub", code=2).stderr)
        os.symlink("sub", "m/link")
        self.assertIn("link: EXTRA", self.check(1))

    def test_signed_as_a_folder_too(self):
        self.wtool("sign", "m", "--key", self.key)
        self.check(0)
        self.wtool("verify", "m", *self.trust)

    def test_that_convert_writes(self):
        """Manifest and signatures of an output, a folder and a file."""
        self.wtool("convert", "m", "--manifest", "--sign", self.key, "-o", "out/", "--to", "safetensors")
        self.wtool("verify", "out", *self.trust)
        said = self.wtool("verify", "-c", "out.manifest.json", *self.trust).stdout
        self.assertNotIn("EXTRA", said)
        pathlib.Path("out/new").touch()
        self.wtool("verify", "-c", "out.manifest.json", *self.trust, code=1)
        self.wtool("convert", "m", "--as-is", "--manifest", "--sign", self.key, "-o", "out.gguf")
        self.wtool("verify", "-c", "out.gguf.manifest.json", *self.trust)
        self.wtool("verify", "m", "-t", "*", "-c", "out.gguf.manifest.json", *self.trust)
        root = self.wtool("digest", "--content", "m").stdout.split()[0]
        self.wtool("verify", "out.gguf", "--content", root)
        self.assertIn(root, pathlib.Path("out.gguf.manifest.json").read_text())

    def test_of_sha256sum(self):
        self.wtool("digest", "m/sub", "-o", "SHA256SUMS")
        self.wtool("sign", "SHA256SUMS", "--key", self.key)
        self.wtool("verify", "-c", "SHA256SUMS", *self.trust)
        lines = pathlib.Path("SHA256SUMS").read_text()
        pathlib.Path("SHA256SUMS").write_text(lines + "\n")
        self.wtool("verify", "-c", "SHA256SUMS", *self.trust, code=1)

    def test_options_that_do_not_go_together(self):
        for more in (["--only", "sub/note"], ["--keep-going"], ["--sha256"], ["m/sub/note", "--ignore", "x"],
                     ["m", "-t", "c", "--ignore-unsigned"]):
            self.refused("verify", "-c", "m/list.json", *self.trust, *more)
        self.refused("verify", "m/sub/note", "--sha256", *self.trust)
        self.refused("verify", "m", "--content", ROOT, *self.trust)
        self.refused("verify", "-c", "m/list.json", "--alone", saying=["--content"])


class Tensors(SignedModel):
    """Of the same folder, one at a time."""

    def tensors(self, code, model, *patterns, manifest="m/list.json", more=()):
        words = [w for p in patterns for w in ("-t", p)]
        done = self.wtool("verify", model, *words, "-c", manifest, "--json", *more, code=code)
        return {t["name"]: t["result"] for t in json.loads(done.stdout)["tensors"]}

    def test_are_found_by_name_and_pattern(self):
        self.assertEqual(self.tensors(0, "m", "a.b"), {"a.b": "ok"})
        self.assertEqual(self.tensors(0, "m", "layers.*", "s", more=self.trust),
                         {"layers.9": "ok", "layers.10": "ok", "s": "ok"})
        self.assertEqual(len(self.tensors(0, "m", "*")), len(MODEL))
        self.assertEqual(self.tensors(0, "m", "dtype:f32"), {"a.b": "ok", "s": "ok"})
        self.assertEqual(len(self.tensors(0, "m/m-00001-of-00002.safetensors", "*", more=["--alone"])), 3)
        self.wtool("verify", "m", "-t", "nothing", "-c", "m/list.json", code=2)
        self.wtool("verify", "m", "-t", "c", code=2)
        self.wtool("verify", "-t", "c", "-c", "m/list.json", code=2)
        self.wtool("digest", "m", "-o", "SHA256SUMS")
        self.wtool("verify", "m", "-t", "c", "-c", "SHA256SUMS", code=2)

    def test_are_the_same_in_every_container(self):
        for path in write_all(self):
            self.assertEqual(self.tensors(0, path, "*", more=self.trust), {n: "ok" for n in MODEL})
        self.wtool("digest", "--per-tensor", "big.gguf", "-o", "big.json")
        self.assertEqual(self.tensors(0, "m", "*", manifest="big.json"), {n: "ok" for n in MODEL})

    def test_must_match_in_everything(self):
        for name, other, says in (("c", ("i8", [4], b"\0\1\xff\x81"), "values differ"), ("c", ("i8", [2, 2], MODEL["c"][2]), "[2, 2]"),
                                  ("h", ("f16", [3], MODEL["h"][2]), "[3]"), ("s", ("i32", [], b"1234"), "i32")):
            changed = {**MODEL, name: other}
            pathlib.Path("changed.gguf").write_bytes(gguf({n: changed[n] for n in sorted(changed)}, {}))
            done = self.wtool("verify", "changed.gguf", "-t", name, "-c", "m/list.json", "--json", code=1)
            (found,) = json.loads(done.stdout)["tensors"]
            self.assertEqual(found["result"], "failed")
            self.assertIn(says, found["difference"])
            self.assertEqual(self.tensors(1, "changed.gguf", "*")[name], "failed")
            was = f"shape:[{','.join(map(str, MODEL[name][1]))}]"  # it does not slip out of a selection
            self.assertEqual(self.tensors(1, "changed.gguf", "dtype:" + MODEL[name][0])[name], "failed")
            self.assertEqual(self.tensors(1, "changed.gguf", was)[name], "failed")
            self.tensors(0, "changed.gguf", "a.b")
        changed = {("C" if n == "c" else n): t for n, t in MODEL.items()}
        pathlib.Path("changed.gguf").write_bytes(gguf({n: changed[n] for n in sorted(changed)}, {}))
        self.assertEqual(self.tensors(1, "changed.gguf", "c"), {"c": "missing"})
        self.assertEqual(self.tensors(1, "changed.gguf", "C"), {"C": "unlisted"})
        self.assertEqual({*self.tensors(1, "changed.gguf", "*").values()}, {"ok", "missing", "unlisted"})

    def test_must_be_what_the_manifest_says(self):
        """Without a signature: what contradicts itself is damaged, the rest is another tensor."""
        good = pathlib.Path("m/list.json").read_text()
        for key, value in (("name", "C"), ("dtype", "u8"), ("shape", [2, 2]), ("bytes", 5), ("sha256", "0" * 64),
                           ("content_sha256", "0" * 64), ("file", "sub/note")):
            edit("m/list.json", lambda d: [t.update({key: value}) for t in d["tensors"] if t["name"] == "c"])
            self.wtool("verify", "m", "-t", "c", "-c", "m/list.json", code=3)
            if key not in ("bytes", "file"):  # nothing binds them any more
                edit("m/list.json", lambda d: d.pop("models"))
                self.tensors(1, "m", "*")
            pathlib.Path("m/list.json").write_text(good)

    def test_against_a_manifest_from_before_there_was_content(self):
        write_all(self)
        def older(d):
            del d["models"]
            for t in d["tensors"]:
                t.pop("content_sha256", None)
        self.wtool("digest", "--per-tensor", "big.gguf", "-o", "big.json")
        edit("big.json", older)
        self.wtool("verify", "-c", "big.json")
        self.assertEqual(self.tensors(0, "big.gguf", "*", manifest="big.json"), {n: "ok" for n in MODEL})
        self.assertEqual(self.tensors(1, "m.gguf", "a.b", manifest="big.json"), {"a.b": "failed"})

    def test_a_part_that_is_gone_is_missed(self):
        os.unlink("m/m-00002-of-00002.safetensors")
        os.rename("m/m-00001-of-00002.safetensors", "m/model.safetensors")
        self.assertEqual({*self.tensors(1, "m", "*").values()}, {"ok", "missing"})
        self.assertEqual(self.tensors(1, "m", "s"), {"s": "missing"})

    def test_of_two_models_its_place_tells_which(self):
        for name, raw in (("one", b"12345678"), ("two", b"abcdefgh")):
            write_safetensors(f"{name}.safetensors", {"w": ("F32", [2], raw)})
        self.wtool("digest", "--per-tensor", "one.safetensors", "two.safetensors", "-o", "both.json")
        self.tensors(0, "two.safetensors", "w", manifest="both.json")
        shutil.copy("one.safetensors", "two.safetensors")
        self.assertEqual(self.tensors(1, "two.safetensors", "w", manifest="both.json"), {"w": "failed"})
        os.rename("two.safetensors", "three.safetensors")
        self.wtool("verify", "three.safetensors", "-t", "w", "-c", "both.json", code=2)

    def test_a_logical_tensor_stands_for_its_parts(self):
        write_safetensors("w.safetensors", {"mlp.up_proj.weight": ("F32", [4, 128], floats([i % 7 for i in range(512)]))})
        self.wtool("quantize", "-q", "--int4", "w.safetensors", "-o", "q.safetensors")
        self.wtool("digest", "--per-tensor", "q.safetensors", "-o", "q.json")
        parts = self.tensors(0, "q.safetensors", "mlp.up_proj.weight", manifest="q.json")
        self.assertEqual(sorted(parts), [f"mlp.up_proj.weight_{p}" for p in ("packed", "scale", "shape")])
        self.tensors(0, "q.safetensors", "mlp.up_proj.weight_scale", manifest="q.json")
        # Whole where parts were listed, and the reverse.
        self.assertEqual({*self.tensors(1, "w.safetensors", "*", manifest="q.json").values()}, {"missing", "unlisted"})
        self.wtool("digest", "--per-tensor", "w.safetensors", "-o", "w.json")
        self.assertEqual(self.tensors(1, "q.safetensors", "mlp.up_proj.weight", manifest="w.json"),
                         {**{p: "unlisted" for p in parts}, "mlp.up_proj.weight": "missing"})

    def test_only_the_header_and_the_tensor_are_read(self):
        big, raw = 10_000_000_000, b"the last tensor."
        head = {"big": {"dtype": "U8", "shape": [big], "data_offsets": [0, big]},
                "last": {"dtype": "U8", "shape": [16], "data_offsets": [big, big + 16]}}
        text = json.dumps(head).encode()
        with open("big.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.seek(big, 1)  # a hole: nobody ever had these zeros hashed
            file.write(raw)
        wrong = "0" * 64
        digest = {"big": wrong, "last": sha(raw)}
        tensors = [{"name": n, "dtype": "u8", "shape": head[n]["shape"], "file": "big.safetensors", "sha256": digest[n]} for n in head]
        files = [{"file": "big.safetensors", "bytes": os.path.getsize("big.safetensors"), "sha256": wrong}]
        pathlib.Path("big.json").write_text(json.dumps({"schema": "wtool.manifest/1", "files": files, "tensors": tensors}))
        self.wtool("sign", "big.json", "--key", self.key)
        child = subprocess.Popen([self.program, "verify", "big.safetensors", "-t", "last", "-c", "big.json", *self.trust],
                                 stdout=subprocess.DEVNULL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        counts = dict(line.split(": ") for line in pathlib.Path(f"/proc/{child.pid}/io").read_text().splitlines())
        self.assertEqual(child.wait(), 0)
        self.assertLess(int(counts["rchar"]), 1_000_000)  # with the program's own libraries


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
