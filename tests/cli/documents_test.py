#!/usr/bin/env python3
"""Provenance statements and bills of materials, held against the standards' own rules: those that unit.build_record
compares ours with, and those of real runs.

usage: documents_test.py WTOOL SOURCE     (Python's standard library only)
"""
import copy
import hashlib
import json
import os
import pathlib
import sys
import unittest

import validate_schema
from documents import Documents
from weight_files import Command, floats, gguf, write_safetensors

SOURCE = pathlib.Path(sys.argv[2])
OPEN = ("externalParameters", "internalParameters")  # the standard lets a tool fill them


class Expected(unittest.TestCase):
    rules = Documents(SOURCE)

    def load(self, name):
        return json.loads((SOURCE / "testdata/documents" / name).read_text())

    def test_statements_have_what_in_toto_and_slsa_ask_for(self):
        for name in ("file", "folder"):
            self.assertEqual(self.rules.provenance_faults(self.load(f"{name}.provenance.json")), [])

    def test_bills_have_what_cyclonedx_asks_for(self):
        for name in ("file", "folder"):
            self.assertEqual(self.rules.bom_faults(self.load(f"{name}.bom.json")), [])

    def test_a_fault_is_found_wherever_it_is(self):
        """Each value replaced by one of another type, one at a time."""
        for name, schema in (("file.provenance.json", self.rules.provenance_schema),
                             ("file.bom.json", self.rules.bom_schema), ("folder.bom.json", self.rules.bom_schema)):
            whole = self.load(name)
            for path in self.paths(whole):
                if any(key in OPEN for key in path[:-1]) or path[-1] == "annotations":
                    continue
                broken = copy.deepcopy(whole)
                at = broken
                for key in path[:-1]:
                    at = at[key]
                at[path[-1]] = ["no"] if isinstance(at[path[-1]], dict) else {"no": 1}
                with self.subTest(document=name, path=path):
                    self.assertTrue(validate_schema.faults(broken, schema))

    def paths(self, value, here=()):
        if here:
            yield here
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            yield from self.paths(item, here + (key,))

    def test_references_in_a_bill_are_looked_up(self):
        bom = self.load("file.bom.json")
        bom["formulation"][0]["workflows"][0]["outputs"][0]["resource"]["ref"] = "modell"
        self.assertEqual(self.rules.bom_faults(bom), ["nothing has the bom-ref 'modell'"])
        bom = self.load("folder.bom.json")
        bom["metadata"]["component"]["components"][1]["bom-ref"] = "file:0"
        self.assertEqual(self.rules.bom_faults(bom), ["bom-ref 'file:0' is there twice"])


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


class Written(Command):
    rules = Documents(SOURCE)

    def written(self, *args, output):
        self.wtool(*args, "-o", output, "--provenance", "--bom")
        name = output.rstrip("/")
        statement, bom = (json.loads(pathlib.Path(name + end).read_text()) for end in (".provenance.json", ".cdx.json"))
        self.assertEqual(self.rules.provenance_faults(statement), [])
        self.assertEqual(self.rules.bom_faults(bom), [])
        return statement, bom["metadata"]["component"]

    def test_a_file(self):
        write_safetensors("m.safetensors", {"a.weight": ("F32", [4, 128], floats([0.5] * 512)),
                                            "norm.weight": ("F32", [4], floats([1.0] * 4))})
        statement, model = self.written("quantize", "--int8", "m.safetensors", output="q.safetensors")
        self.assertEqual([(s["name"], s["digest"]["sha256"]) for s in statement["subject"]],
                         [("q.safetensors", digest("q.safetensors"))])
        definition = statement["predicate"]["buildDefinition"]
        self.assertEqual(definition["buildType"], "urn:wtool:build:quantize:v1")
        self.assertTrue(definition["externalParameters"]["recipe"]["int8"])
        self.assertEqual(definition["resolvedDependencies"][0]["digest"]["sha256"], digest("m.safetensors"))
        self.assertEqual(model["hashes"], [{"alg": "SHA-256", "content": digest("q.safetensors")}])
        self.assertEqual(model["pedigree"]["ancestors"][0]["hashes"][0]["content"], digest("m.safetensors"))
        card = {p["name"]: p["value"] for p in model["modelCard"]["properties"]}
        self.assertEqual(card["wtool:parameters"], "516")

    def test_a_file_whose_metadata_is_odd(self):
        """What comes from a file may be any bytes: the documents are UTF-8 all the same."""
        keys = {"general.architecture": (8, "llama\n"), "general.license": (8, "x" * 5), "general.name": (8, '"\x00')}
        raw = gguf({"a.weight": ("f32", [4], floats([1.0] * 4))}, keys).replace(b"xxxxx", b"\xff\xfe\xc3(x")
        pathlib.Path("m.gguf").write_bytes(raw)
        _, model = self.written("convert", "m.gguf", "--dtype", "f16", output="q.gguf")
        self.assertEqual(model["modelCard"]["modelParameters"]["modelArchitecture"], "llama\n")
        self.assertEqual(model["licenses"][0]["license"]["name"], "\ufffd\ufffd\ufffd(x")

    def test_a_folder(self):
        os.mkdir("model")
        for i in (1, 2):
            write_safetensors(f"model/model-0000{i}-of-00002.safetensors",
                              {f"layers.{i}.weight": ("F32", [4, 128], floats([0.5] * 512))})
        pathlib.Path("model/config.json").write_text("{}")
        statement, model = self.written("convert", "model", "--dtype", "bf16", output="out/")
        names = sorted(os.listdir("out"))
        self.assertEqual([(s["name"], s["digest"]["sha256"]) for s in statement["subject"][1:]],
                         [(n, digest(f"out/{n}")) for n in names])
        self.assertEqual([c["name"] for c in model["components"]], names)
        self.assertEqual([a["name"] for a in model["pedigree"]["ancestors"]],
                         [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)])

    def test_a_folder_of_arrays_is_not_a_file_with_a_digest(self):
        write_safetensors("m.safetensors", {n: ("F32", [4], floats([1.0] * 4)) for n in "ab"})
        self.wtool("convert", "m.safetensors", "-o", "arrays/", "--to", "npy")
        statement, model = self.written("convert", "arrays", "--dtype", "f16", output="o.safetensors")
        source = statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]
        self.assertEqual((source["name"], source["annotations"]["wtool_files"]), ("arrays", 2))
        self.assertEqual(source["annotations"]["wtool_digest"], "oms-root")
        self.assertNotIn("hashes", model["pedigree"]["ancestors"][0])

    def test_signature_and_manifest_are_named(self):
        write_safetensors("m.safetensors", {"a.weight": ("F32", [4], floats([1.0] * 4))})
        self.wtool("sign", "--new-key", "me")
        self.wtool("convert", "m.safetensors", "--dtype", "f16", "-o", "o.safetensors", "--bom", "--manifest", "--sign",
                   "me.pem")
        bom = json.loads(pathlib.Path("o.safetensors.cdx.json").read_text())
        self.assertEqual(self.rules.bom_faults(bom), [])
        self.assertEqual({(r["url"], r["hashes"][0]["content"]) for r in bom["metadata"]["component"]["externalReferences"]},
                         {(n, digest(n)) for n in ("o.safetensors.manifest.json", "o.safetensors.sig")})


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
