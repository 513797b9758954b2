#!/usr/bin/env python3
"""inspect --lineage: what is looked for where, what counts as a source, what the answers are.

usage: lineage_test.py WTOOL SOURCE     (Python's standard library only)

The records are written here, from wtool-lineage(7).
"""
import hashlib
import json
import os
import pathlib
import struct
import subprocess
import sys
import unittest

import validate_schema
from weight_files import STRING, Command, floats, gguf, write_safetensors

SCHEMA = json.loads((pathlib.Path(sys.argv[2]) / "man/schema/wtool.lineage.1.json").read_text())
WORDS = {"ok": "OK", "changed": "CHANGED", "not-here": "NOT HERE"}


def sha256(raw):
    return hashlib.sha256(raw).hexdigest()


def source(path, name=None):
    raw = pathlib.Path(path).read_bytes()
    return {"name": name or os.path.basename(path), "size": str(len(raw)), "sha256": sha256(raw)}


def record(*sources, operation="quantize"):
    keys = {"wtool.version": "0.2.0", "wtool.operation": operation, "wtool.recipe": '{"bits":8}',
            "wtool.source.count": str(len(sources))}
    for i, s in enumerate(sources):
        keys |= {f"wtool.source.{i}.{key}": value for key, value in s.items()}
    return keys


def model(path, value=1.0, metadata=None):
    """Another value is another file of the same size."""
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    write_safetensors(path, {"a.weight": ("F32", [4], floats([value] * 4))}, metadata)
    return path


class Lineage(Command):
    def asked(self, *args, code=0):
        """The document; the text must say the same."""
        doc = json.loads(self.wtool("inspect", "--json", "--lineage", *args, code=code).stdout)
        self.assertEqual(validate_schema.faults(doc, SCHEMA), [])
        self.assertEqual(doc["ok"], code == 0)
        text = self.wtool("inspect", "--lineage", *args, code=code).stdout
        for s in doc["lineage"]["sources"] if doc["lineage"] else []:
            self.assertRegex(text, rf"{s['name']}.*{WORDS[s['result']]}")
        return doc

    def results(self, *args, code=0):
        return [s["result"] for s in self.asked(*args, code=code)["lineage"]["sources"]]

    # --- Answers

    def test_a_model_without_a_record(self):
        model("m.safetensors")
        self.assertIsNone(self.asked("m.safetensors", code=1)["lineage"])
        self.assertIn("no lineage is recorded", self.wtool("inspect", "--lineage", "m.safetensors", code=1).stdout)

    def test_a_chain_is_followed_to_its_end(self):
        model("a.safetensors")
        model("b.safetensors", metadata=record(source("a.safetensors"), operation="convert"))
        model("c.safetensors", metadata=record(source("b.safetensors")))
        doc = self.asked("c.safetensors")
        self.assertEqual(doc["counts"], {"ok": 2, "changed": 0, "not_here": 0})
        self.assertEqual((doc["lineage"]["operation"], doc["lineage"]["recipe"]), ("quantize", '{"bits":8}'))
        b = doc["lineage"]["sources"][0]
        self.assertEqual((b["name"], b["sha256"]), ("b.safetensors", source("b.safetensors")["sha256"]))
        self.assertEqual(b["lineage"]["operation"], "convert")
        self.assertEqual(b["lineage"]["sources"][0]["result"], "ok")
        self.assertNotIn("lineage", b["lineage"]["sources"][0])

    def test_a_terminal_that_shows_ascii_only(self):
        model("größe.safetensors")
        model("b.safetensors", metadata=record(source("größe.safetensors"), operation="Größe"))
        os.mkdir("Maß")
        model("Maß/c.safetensors", metadata=record(source("b.safetensors")))
        name = r"gr\xc3\xb6\xc3\x9fe.safetensors"
        for args, words in ((["b.safetensors"], [name, "Gr\\xc3\\xb6\\xc3\\x9fe", "..."]),
                            (["--lineage", "Maß/c.safetensors", "--parents", "."], [name, "v b.safetensors", "Ma\\xc3\\x9f/c"])):
            said = self.wtool("inspect", *args, locale="C").stdout
            self.assertTrue(said.isascii(), said)
            for word in words:
                self.assertIn(word, said)
        write_safetensors("größe.safetensors", {"a.weight": ("F32", [4], floats([2.0] * 4))})
        for args in (["--lineage", "b.safetensors"], ["--lineage", "größe.safetensors"]):
            self.assertTrue(self.wtool("inspect", *args, code=1, locale="C").stdout.isascii())
        self.assertIn("▾ b.safetensors", self.wtool("inspect", "--lineage", "Maß/c.safetensors", "--parents", ".", code=1).stdout)

    def test_a_source_with_other_bytes(self):
        was = source(model("a.safetensors"))
        model("b.safetensors", metadata=record(was))
        model("a.safetensors", value=2.0)
        found = self.asked("b.safetensors", code=1)["lineage"]["sources"][0]
        self.assertEqual(found["result"], "changed")
        self.assertEqual((found["sha256"], found["found_sha256"]), (was["sha256"], source("a.safetensors")["sha256"]))
        text = self.wtool("inspect", "--lineage", "b.safetensors", code=1).stdout
        self.assertIn("expected " + was["sha256"], text)
        self.assertIn("found    " + found["found_sha256"], text)

    def test_a_source_of_another_size_is_not_read(self):
        model("b.safetensors", metadata=record(source(model("a.safetensors"))))
        with open("a.safetensors", "ab") as f:
            f.write(b" ")
        found = self.asked("b.safetensors", code=1)["lineage"]["sources"][0]
        self.assertEqual(found["result"], "changed")
        self.assertNotIn("found_sha256", found)
        self.assertRegex(found["detail"], rf"{found['found_bytes']} bytes instead of {found['bytes']}")

    def test_a_changed_source_is_not_followed(self):
        model("a.safetensors")
        model("b.safetensors", metadata=record(source("a.safetensors")))
        model("c.safetensors", metadata=record(source("b.safetensors")))
        model("b.safetensors", value=2.0, metadata=record(source("a.safetensors")))
        self.assertNotIn("lineage", self.asked("c.safetensors", code=1)["lineage"]["sources"][0])

    def test_a_source_that_is_not_here(self):
        model("b.safetensors", metadata=record(source(model("a.safetensors"))))
        os.remove("a.safetensors")
        self.assertEqual(self.results("b.safetensors"), ["not-here"])
        done = self.wtool("inspect", "--lineage", "b.safetensors")
        self.assertIn("nothing to compare with", done.stdout)
        self.assertIn("--parents", done.stderr)

    def test_a_source_in_gguf(self):
        pathlib.Path("a.gguf").write_bytes(gguf({"w": ("f32", [4], floats([1.0] * 4))}, {}))
        keys = {k: (10, int(v)) if k.endswith(("count", "size")) else (STRING, v)
                for k, v in record(source("a.gguf")).items()}
        pathlib.Path("b.gguf").write_bytes(gguf({"w": ("f32", [4], floats([1.0] * 4))}, keys))
        model("c.safetensors", metadata=record(source("b.gguf")))
        self.assertEqual(self.asked("c.safetensors")["counts"]["ok"], 2)

    def test_a_signature_beside_a_source(self):
        model("b.safetensors", metadata=record(source(model("a.safetensors"))))
        pathlib.Path("a.safetensors.sig").write_text("{}")
        self.assertEqual(self.asked("b.safetensors")["lineage"]["sources"][0]["signature"], "a.safetensors.sig")

    # --- Where it looks

    def test_folders_that_are_given_and_those_in_them(self):
        model("there/a.safetensors")
        model("there/deep/b.safetensors", value=2.0)
        model("here/c.safetensors", metadata=record(source("there/a.safetensors"),
                                                    source("there/deep/b.safetensors")))
        self.assertEqual(self.results("here/c.safetensors"), ["not-here"] * 2)
        self.assertEqual(self.results("here/c.safetensors", "--parents", "there"), ["ok"] * 2)
        self.assertEqual(self.results("--parents", "here", "--parents", "there", "here/c.safetensors"), ["ok"] * 2)

    def test_a_folder_s_sources_lie_in_the_folder_beside_it(self):
        """Output and source have the same name: it must not find itself."""
        model("model/model.safetensors")
        model("model-int8/model.safetensors", metadata=record(source("model/model.safetensors")))
        for path in ("model-int8", "model-int8/", "./model-int8"):
            self.assertEqual(self.results(path), ["ok"])
        os.chdir("model-int8")
        self.assertEqual(self.results("."), ["ok"])

    def test_a_file_s_sources_lie_in_a_folder_beside_it(self):
        model("model/model.safetensors")
        model("out.safetensors", metadata=record(source("model/model.safetensors")))
        self.assertEqual(self.results("out.safetensors"), ["ok"])

    def test_another_model_s_file_of_the_same_name_contradicts_nothing(self):
        model("out/model.safetensors", metadata=record(source(model("gone/model.safetensors"))))
        os.remove("gone/model.safetensors")
        model("other/model.safetensors", value=2.0)
        found = self.asked("out")["lineage"]["sources"][0]
        self.assertEqual(found["result"], "not-here")
        self.assertIn("1 of this name", found["detail"])

    def test_a_folder_with_one_source_should_have_the_others(self):
        model("model/one.safetensors")
        model("model/two.safetensors", value=2.0)
        model("out/model.safetensors", metadata=record(source("model/one.safetensors"),
                                                       source("model/two.safetensors")))
        self.assertEqual(self.results("out"), ["ok", "ok"])
        model("model/two.safetensors", value=3.0)
        self.assertEqual(self.results("out", code=1), ["ok", "changed"])

    def test_the_right_one_of_several(self):
        for i in range(5):
            model(f"m{i}/model.safetensors", value=float(i))
        model("out/model.safetensors", metadata=record(source("m3/model.safetensors")))
        found = self.asked("out")["lineage"]["sources"][0]
        self.assertEqual((found["result"], found["path"]), ("ok", "m3/model.safetensors"))

    def test_a_folder_of_arrays_is_one_source(self):
        os.makedirs("arrays/sub")
        digests = []
        for name in ("a.npy", "sub/b.npy"):
            head = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"
            raw = b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + floats([1.0, len(name)])
            pathlib.Path("arrays", name).write_bytes(raw)
            digests.append(hashlib.sha256(raw).digest())
        whole = {"name": "arrays", "size": str(2 * len(raw)), "sha256": sha256(b"".join(digests)), "files": "2"}
        pathlib.Path("arrays/notes.txt").write_text("not one of them")
        model("m.safetensors", metadata=record(whole))
        self.assertEqual(self.results("m.safetensors"), ["ok"])
        pathlib.Path("arrays/c.npy").write_bytes(raw)
        found = self.asked("m.safetensors", code=1)["lineage"]["sources"][0]
        self.assertIn("3 files instead of 2", found["detail"])

    def test_standard_input_has_no_folder(self):
        model("b.safetensors", metadata=record(source(model("a.safetensors"))))
        for more, result in (((), "not-here"), (("--parents", "."), "ok")):
            with open("b.safetensors", "rb") as f:
                done = subprocess.run([self.program, "inspect", "--json", "--lineage", "-", *more], stdin=f,
                                      capture_output=True)
            doc = json.loads(done.stdout)
            self.assertEqual(doc["lineage"]["sources"][0]["result"], result)

    # --- Records that wtool wrote

    def test_what_convert_and_quantize_record_is_found(self):
        os.mkdir("model")
        for i in (1, 2):
            write_safetensors(f"model/model-0000{i}-of-00002.safetensors",
                              {f"layers.{i}.weight": ("F32", [4, 128], floats([0.5] * 512))})
        self.wtool("convert", "model", "--dtype", "bf16", "-o", "half/")
        self.wtool("quantize", "--int8", "half", "-o", "q/")
        self.wtool("convert", "q", "--dtype", "f32", "-o", "arrays/", "--to", "npy", "--lineage")
        self.wtool("convert", "arrays", "-o", "end.safetensors", "--lineage")
        self.assertEqual(self.asked("q")["counts"], {"ok": 4, "changed": 0, "not_here": 0})
        self.assertEqual(self.results("arrays"), ["ok", "ok"])
        self.assertEqual(self.results("end.safetensors"), ["ok"])
        with open("model/model-00002-of-00002.safetensors", "r+b") as f:
            f.seek(-1, os.SEEK_END)
            f.write(b"\x7f")
        self.assertEqual(self.asked("q", code=1)["counts"], {"ok": 3, "changed": 1, "not_here": 0})

    # --- Long and hostile records

    def test_shards_that_say_the_same_are_followed_once(self):
        model("a.safetensors")
        for i in (1, 2):
            model(f"b/{i}.safetensors", value=float(i), metadata=record(source("a.safetensors")))
        model("c.safetensors", metadata=record(source("b/1.safetensors"), source("b/2.safetensors")))
        doc = self.asked("c.safetensors", "--parents", ".")
        one, two = doc["lineage"]["sources"]
        self.assertIn("lineage", one)
        self.assertNotIn("lineage", two)
        self.assertEqual(two["lineage_of"], "1.safetensors")

    def test_a_record_that_came_before_is_not_followed_again(self):
        model("a.safetensors")
        model("b.safetensors", metadata=record(source("a.safetensors")))
        model("x.safetensors", metadata=record(source("b.safetensors")))
        model("c.safetensors", metadata=record(source("b.safetensors"), source("x.safetensors")))
        b, x = self.asked("c.safetensors")["lineage"]["sources"]
        again = x["lineage"]["sources"][0]
        self.assertEqual((b["lineage"]["sources"][0]["result"], again["result"]), ("ok", "ok"))
        self.assertEqual((again["lineage"]["not_followed"], again["lineage"]["sources"]), ("as above", []))

    def test_more_generations_than_are_followed(self):
        model("m0.safetensors")
        for i in range(1, 36):
            model(f"m{i}.safetensors", metadata=record(source(f"m{i - 1}.safetensors")))
        self.assertEqual(self.asked("m32.safetensors")["counts"]["ok"], 32)
        doc = self.asked("m33.safetensors")
        self.assertEqual(doc["counts"]["ok"], 32)
        self.assertIn("more than 32 generations", json.dumps(doc))
        self.assertIn("more than 32 generations", self.wtool("inspect", "--lineage", "m33.safetensors").stdout)

    def test_names_that_lead_out(self):
        model("outside.safetensors")
        for name in ("../outside.safetensors", os.path.abspath("outside.safetensors"), "a/../../x", "a\\b", "%2e%2e/x", "."):
            model("in/m.safetensors", metadata=record(source("outside.safetensors", name)))
            self.refused("inspect", "--lineage", "in/m.safetensors", code=3, saying=["names"])

    def test_names_that_lead_out_in_a_source(self):
        bad = model("bad.safetensors", metadata=record(source(model("a.safetensors"), "../a.safetensors")))
        model("m.safetensors", metadata=record(source(bad), source("a.safetensors")))
        doc = self.asked("m.safetensors", code=3)
        self.assertEqual([s["result"] for s in doc["lineage"]["sources"]], ["ok", "ok"])
        self.assertIn("leads out", doc["lineage"]["sources"][0]["detail"])

    def test_links_that_lead_out(self):
        model("outside/a.safetensors")
        model("in/m.safetensors", metadata=record(source("outside/a.safetensors")))
        os.symlink("../outside/a.safetensors", "in/a.safetensors")
        found = self.asked("in/m.safetensors")["lineage"]["sources"][0]
        self.assertEqual(found["result"], "not-here")
        self.assertIn("link", found["detail"])
        os.rename("outside", "in/outside")
        os.remove("in/a.safetensors")
        os.symlink("outside/a.safetensors", "in/a.safetensors")
        self.assertEqual(self.results("in/m.safetensors"), ["ok"])

    def test_records_that_make_no_sense(self):
        whole = record({"name": "a", "size": "1", "sha256": "0" * 64})
        for key, value in (("wtool.source.count", "x"), ("wtool.source.count", "2"), ("wtool.source.0.size", "-1"),
                           ("wtool.source.0.sha256", "0" * 63), ("wtool.source.0.name", "")):
            model("m.safetensors", metadata=whole | {key: value})
            self.refused("inspect", "--lineage", "m.safetensors", code=3, saying=["wtool.source"])

    # --- Usage

    def test_options(self):
        model("m.safetensors")
        self.refused("inspect", "m.safetensors", "--parents", ".", saying=["--lineage"])
        self.refused("inspect", "--lineage", "m.safetensors", "m.safetensors", saying=["one model"])
        for more in (["--meta"], ["-l"], ["--by", "dtype"], ["--get", "x"], ["-t", "a.weight"]):
            self.refused("inspect", "--lineage", "m.safetensors", *more, saying=["does not go with"])
        self.refused("inspect", "--lineage", "m.safetensors", "--parents", "nowhere", code=4, saying=["nowhere"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
