#!/usr/bin/env python3
"""What convert and quantize leave about their output: lineage in it; signature, manifest, provenance
and bill of materials beside it.

usage: records_test.py WTOOL

Digests are held against hashlib's, manifests and signatures against those that 'wtool digest' and
'wtool sign' make of the finished output, and the provenance's signature against the openssl tool.
"""
import base64
import hashlib
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import unittest

from weight_files import Command, floats, read_gguf, write_safetensors

WTOOL = str(pathlib.Path(sys.argv[1]).resolve())


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def metadata(path):
    raw = pathlib.Path(path).read_bytes()
    (n,) = struct.unpack_from("<Q", raw)
    return json.loads(raw[8 : 8 + n]).get("__metadata__", {})


def payload(path):
    return base64.b64decode(json.loads(pathlib.Path(path).read_text())["dsseEnvelope"]["payload"])


def noise(n, seed):
    out, x = [], seed * 2654435761 % 2**32
    for _ in range(n):
        x = (x * 1664525 + 1013904223) % 2**32
        out.append((x / 2**32 - 0.5) / 16)
    return out


class Records(Command):
    def wtool(self, *args, code=0, **options):
        done = subprocess.run([WTOOL, *args], capture_output=True, stdin=subprocess.DEVNULL,
                              env={**os.environ, "LC_ALL": "C.UTF-8"}, **options)
        self.assertEqual(done.returncode, code, f"{args}: {done.stdout[:2000]}{done.stderr.decode()}")
        return done

    def model(self, path="m.safetensors", names=("a", "b"), seed=1):
        tensors = {}
        for i, name in enumerate(names):
            tensors[f"model.layers.{i}.{name}_proj.weight"] = ("F32", [64, 256], floats(noise(64 * 256, seed + i)))
        tensors["model.norm.weight"] = ("F32", [256], floats([1.0] * 256))
        tensors["empty"] = ("F32", [0, 4], b"")
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(path, tensors, {"format": "pt"})

    def folder(self, path="model"):
        self.model(f"{path}/model.safetensors")
        pathlib.Path(path, "config.json").write_text('{"model_type": "llama", "torch_dtype": "float32"}\n')
        self.wtool("convert", path, "-o", "sharded/", "--shard-size", "100KB")
        shutil.rmtree(path)
        os.rename("sharded", path)

    def key(self):
        self.wtool("sign", "--new-key", "me")

    # --- lineage -------------------------------------------------------------------------------

    def test_quantize_records_what_it_was_made_from(self):
        self.model()
        self.wtool("quantize", "--int8", "m.safetensors", "-T", "*b_proj.weight=keep", "-j1")
        meta = metadata("m.int8.safetensors")
        self.assertEqual(meta["wtool.operation"], "quantize")
        self.assertEqual(meta["wtool.source.count"], "1")
        self.assertEqual(meta["wtool.source.0.name"], "m.safetensors")
        self.assertEqual(meta["wtool.source.0.size"], str(os.path.getsize("m.safetensors")))
        self.assertEqual(meta["wtool.source.0.sha256"], digest("m.safetensors"))
        self.assertEqual(json.loads(meta["wtool.recipe"]),
                         {"int8": True, "tensor-type": ["*b_proj.weight=keep"], "to": "safetensors"})
        self.assertRegex(meta["wtool.version"], r"^\d+\.\d+\.\d+$")

    def test_the_record_does_not_depend_on_place_or_threads(self):
        self.model("one/m.safetensors")
        self.model("two/deep/m.safetensors")
        self.wtool("quantize", "--int4", "one/m.safetensors", "-o", "a.safetensors", "-j1")
        self.wtool("quantize", "--int4", os.path.abspath("two/deep/m.safetensors"), "-o", "b.safetensors", "-j8")
        self.assertEqual(digest("a.safetensors"), digest("b.safetensors"))
        self.assertNotIn(os.getcwd().encode(), pathlib.Path("b.safetensors").read_bytes())

    def test_gguf_keeps_numbers_as_numbers(self):
        self.folder()
        self.wtool("convert", "model", "-x", "empty", "--dtype", "f16", "--as-is", "-o", "m.gguf")
        keys, _ = read_gguf("m.gguf")
        shards = sorted(p for p in os.listdir("model") if p.endswith(".safetensors"))
        self.assertGreater(len(shards), 1)
        self.assertEqual(keys["wtool.source.count"], (10, len(shards)))
        for i, shard in enumerate(shards):
            self.assertEqual(keys[f"wtool.source.{i}.name"], (8, shard))
            self.assertEqual(keys[f"wtool.source.{i}.size"], (10, os.path.getsize(f"model/{shard}")))
            self.assertEqual(keys[f"wtool.source.{i}.sha256"], (8, digest(f"model/{shard}")))

    def test_a_folder_of_arrays_is_one_source_with_its_root_digest(self):
        self.model()
        self.wtool("convert", "m.safetensors", "-o", "arrays/", "--to", "npy")
        self.wtool("convert", "arrays", "--dtype", "bf16", "-o", "b.safetensors")
        meta = metadata("b.safetensors")
        files = sorted(p for p in os.listdir("arrays") if p.endswith(".npy"))
        root = hashlib.sha256(b"".join(hashlib.sha256(pathlib.Path("arrays", p).read_bytes()).digest() for p in files))
        self.assertEqual(meta["wtool.source.0.sha256"], root.hexdigest())
        self.assertEqual((meta["wtool.source.count"], meta["wtool.source.0.name"]), ("1", "arrays"))
        self.assertEqual(meta["wtool.source.0.files"], str(len(files)))

    def test_a_folder_with_a_dot_behind_it_has_its_own_name(self):
        self.folder()
        self.key()
        self.wtool("convert", "model/.", "-o", "out/.", "--sign", "me.pem", "--manifest", "--provenance")
        self.assertFalse([p for p in os.listdir("out") if p.startswith(".")])
        self.wtool("verify", "-c", "out.manifest.json", "--key", "me.pub.pem")
        self.assertEqual([m["model"] for m in json.loads(pathlib.Path("out.manifest.json").read_text())["models"]], ["out"])
        self.assertEqual(json.loads(payload("out/model.sig"))["subject"][0]["name"], "out")
        self.assertEqual(json.loads(payload("out.provenance.sigstore.json"))["subject"][0]["name"], "out/")
        self.wtool("convert", "model", "-o", "out//.//", "-f", "--sign", "me.pem", "--manifest", "--provenance")

        self.wtool("convert", "model", "-o", "arrays/.", "--to", "npy")
        self.wtool("convert", "arrays/.", "--dtype", "bf16", "-o", "b.safetensors")
        self.assertEqual(metadata("b.safetensors")["wtool.source.0.name"], "arrays")

        os.mkdir("empty")
        for place in (".", "./", "..", "x/.."):
            said = self.wtool("convert", "../model", "-o", place, "-f", code=2, cwd="empty").stderr.decode()
            self.assertIn("no name of its own", said)
        self.assertEqual(os.listdir("empty"), [])

    def test_what_only_packs_anew_is_left_as_it_was(self):
        self.model()
        self.wtool("convert", "m.safetensors", "-o", "c.safetensors")
        self.assertEqual(digest("c.safetensors"), digest("m.safetensors"))
        self.wtool("convert", "m.safetensors", "-o", "d.safetensors", "--lineage")
        self.assertEqual(metadata("d.safetensors")["wtool.source.0.sha256"], digest("m.safetensors"))
        self.wtool("convert", "m.safetensors", "-o", "e.safetensors", "--dtype", "bf16", "--no-lineage")
        self.assertEqual(metadata("e.safetensors"), {"format": "pt"})

    def test_a_new_step_replaces_the_record_of_the_last(self):
        self.model()
        self.wtool("convert", "m.safetensors", "--dtype", "bf16", "-o", "b.safetensors")
        self.wtool("quantize", "--int8", "b.safetensors", "-o", "q.safetensors")
        meta = metadata("q.safetensors")
        self.assertEqual((meta["wtool.source.count"], meta["wtool.source.0.name"]), ("1", "b.safetensors"))
        self.assertEqual(meta["wtool.source.0.sha256"], digest("b.safetensors"))
        self.assertNotIn("wtool.source.1.name", meta)

    def test_inspect_says_it_in_a_line(self):
        self.model()
        self.wtool("quantize", "--int8", "m.safetensors", "-o", "q.safetensors")
        text = self.wtool("inspect", "q.safetensors").stdout.decode()
        self.assertRegex(text, r"(?m)^made    by quantize, wtool \S+ from m\.safetensors \(%s…\); --lineage" % digest("m.safetensors")[:12])
        self.assertNotIn("wtool.source", text)
        self.assertIn("wtool.source.0.sha256", self.wtool("inspect", "--meta", "q.safetensors").stdout.decode())
        self.wtool("convert", "q.safetensors", "--set", "wtool.source.0.sha256=x", "-o", "bad.safetensors")
        self.assertIn("does not say soundly", self.wtool("inspect", "bad.safetensors").stdout.decode())

    def test_files_named_by_options_are_recorded_by_digest(self):
        self.model()
        os.mkdir("secret-place")
        pathlib.Path("secret-place/t.jinja").write_text("{{ x }}")
        self.wtool("convert", "m.safetensors", "--dtype", "f16", "-o", "o.safetensors",
                   "--set-file", "t=secret-place/t.jinja")
        recipe = json.loads(metadata("o.safetensors")["wtool.recipe"])
        self.assertEqual(recipe["set-file"], [{"key": "t", "name": "t.jinja", "sha256": digest("secret-place/t.jinja")}])
        self.assertNotIn(b"secret-place", pathlib.Path("o.safetensors").read_bytes())

    def test_lineage_where_there_is_no_place_for_it(self):
        self.model()
        self.wtool("convert", "m.safetensors", "-t", "model.norm.weight", "--dtype", "f16", "--drop-metadata", "-o", "n.npy")
        self.assertIn(b"no place", self.wtool("convert", "m.safetensors", "-t", "model.norm.weight", "--drop-metadata",
                                              "-o", "o.npy", "--lineage", code=2).stderr)
        self.assertIn(b"not both", self.wtool("convert", "m.safetensors", "-o", "x.safetensors", "--lineage",
                                              "--no-lineage", code=2).stderr)

    # --- beside the output ---------------------------------------------------------------------

    def same_as_afterwards(self, output, sig):
        """The same words as 'sign' and 'digest' have for the output once it is there."""
        self.wtool("verify", output, "--key", "me.pub.pem")
        self.wtool("sign", output, "--key", "me.pem", "-o", "later.sig")
        self.assertEqual(payload(sig), payload("later.sig"))
        self.wtool("digest", "--per-tensor", output, "-o", "later.json", "-f")
        self.assertEqual(json.loads(pathlib.Path(f"{output}.manifest.json").read_text()),
                         json.loads(pathlib.Path("later.json").read_text()))
        self.wtool("verify", "-c", f"{output}.manifest.json")
        self.wtool("verify", f"{output}.manifest.json", "--key", "me.pub.pem")

    def test_a_signed_file_with_a_manifest(self):
        self.key()
        self.model()
        for threads in ("-j1", "-j4"):
            done = self.wtool("quantize", "--int8", "m.safetensors", "-o", "q.safetensors", "--sign", "me.pem",
                              "--manifest", "-f", threads)
            self.assertIn(b"q.safetensors.sig", done.stdout)
            self.same_as_afterwards("q.safetensors", "q.safetensors.sig")
            os.unlink("later.sig")

    def test_a_signed_folder_of_shards(self):
        self.key()
        self.folder()
        self.wtool("convert", "model", "-o", "out/", "--dtype", "bf16", "--shard-size", "50KB", "--sign", "me.pem", "--manifest")
        self.wtool("verify", "out", "--key", "me.pub.pem")
        os.rename("out/model.sig", "first.sig")
        self.wtool("digest", "--per-tensor", "out", "-o", "later.json")
        self.assertEqual(json.loads(pathlib.Path("out.manifest.json").read_text()),
                         json.loads(pathlib.Path("later.json").read_text()))
        self.wtool("sign", "out", "--key", "me.pem")
        self.assertEqual(payload("first.sig"), payload("out/model.sig"))
        # What is replaced holds a signature: ours replaces it, and nothing else does.
        self.wtool("convert", "model", "-o", "out/", "--dtype", "f16", "--shard-size", "50KB", "-f", code=2)
        self.wtool("convert", "model", "-o", "out/", "--dtype", "f16", "--shard-size", "50KB", "-f", "--sign", "me.pem")
        self.wtool("verify", "out", "--key", "me.pub.pem")

    def test_big_endian_outputs_and_arrays_agree_with_digests_made_later(self):
        self.model()
        self.wtool("convert", "m.safetensors", "-x", "empty", "-o", "big.gguf", "--endian", "big", "--manifest")
        self.wtool("convert", "m.safetensors", "-o", "arrays/", "--to", "npy", "--manifest")
        for output in ("big.gguf", "arrays"):
            self.wtool("digest", "--per-tensor", output, "-o", "later.json", "-f")
            self.assertEqual(json.loads(pathlib.Path(f"{output}.manifest.json").read_text()),
                             json.loads(pathlib.Path("later.json").read_text()), output)

    def test_nothing_is_left_when_the_place_is_taken(self):
        self.key()
        self.model()
        pathlib.Path("q.safetensors.manifest.json").write_text("mine")
        before = sorted(os.listdir())
        self.wtool("quantize", "--int8", "m.safetensors", "-o", "q.safetensors", "--sign", "me.pem", "--manifest", code=2)
        self.assertEqual(sorted(os.listdir()), before)
        self.assertEqual(pathlib.Path("q.safetensors.manifest.json").read_text(), "mine")

    def test_a_failed_gate_leaves_no_records(self):
        self.key()
        self.model()
        before = sorted(os.listdir())
        self.wtool("quantize", "--int4", "m.safetensors", "-o", "q.safetensors", "--sign", "me.pem", "--manifest", "--bom",
                   "--provenance", "--gate", "max(rel_rmse) < 0.0001", code=1)
        self.assertEqual(sorted(os.listdir()), before)

    def test_refused(self):
        self.key()
        self.model()
        for option in (["--sign", "me.pem"], ["--manifest"], ["--bom"], ["--provenance"]):
            self.wtool("convert", "m.safetensors", "-o", "-", *option, code=2)
        self.wtool("convert", "m.safetensors", "-o", "o.safetensors", "--sign", "nowhere.pem", code=4)
        self.wtool("convert", "m.safetensors", "-o", "o.safetensors", "--passphrase-env", "X", code=2)
        self.assertFalse(os.path.exists("o.safetensors"))

    def test_a_dry_run_tells_and_does_nothing(self):
        self.key()
        self.model()
        before = sorted(os.listdir())
        done = self.wtool("quantize", "--int8", "m.safetensors", "-o", "q.safetensors", "--sign", "me.pem", "--manifest", "-n")
        self.assertIn(b"would write q.safetensors.sig", done.stdout)
        self.assertEqual(sorted(os.listdir()), before)
        wanted = json.loads(self.wtool("quantize", "--int8", "m.safetensors", "-o", "q.safetensors", "-n", "--json").stdout)
        self.wtool("quantize", "--int8", "m.safetensors", "-o", "q.safetensors")
        self.assertEqual(wanted["output"]["bytes"], os.path.getsize("q.safetensors"))

    # --- documents -----------------------------------------------------------------------------

    def test_provenance_names_inputs_and_outputs(self):
        self.folder()
        self.wtool("quantize", "--int8", "model", "-o", "out/", "--provenance", "--bom")
        statement = json.loads(pathlib.Path("out.provenance.json").read_text())
        self.assertEqual(statement["_type"], "https://in-toto.io/Statement/v1")
        self.assertEqual(statement["predicateType"], "https://slsa.dev/provenance/v1")
        made = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}
        for name in os.listdir("out"):
            self.assertEqual(made[name], digest(f"out/{name}"))
        root = hashlib.sha256(b"".join(bytes.fromhex(digest(f"out/{n}")) for n in sorted(os.listdir("out"))))
        self.assertEqual(made["out/"], root.hexdigest())
        used = {d["name"]: d["digest"]["sha256"] for d in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
        for name in os.listdir("model"):
            if name.endswith(".safetensors"):
                self.assertEqual(used[name], digest(f"model/{name}"))
        bom = json.loads(pathlib.Path("out.cdx.json").read_text())
        self.assertEqual((bom["bomFormat"], bom["specVersion"]), ("CycloneDX", "1.6"))
        self.assertEqual(bom["metadata"]["component"]["type"] if "component" in bom.get("metadata", {}) else
                         bom["components"][0]["type"], "machine-learning-model")
        self.assertNotIn(os.getcwd(), json.dumps(statement) + json.dumps(bom))
        said = json.dumps(bom)
        self.assertIn("compressed-tensors", said)
        self.assertIn('"llama"', said)

    @unittest.skipUnless(shutil.which("openssl"), "needs the openssl tool")
    def test_signed_provenance_verifies_elsewhere(self):
        self.key()
        self.model()
        self.wtool("quantize", "--int8", "m.safetensors", "-o", "q.safetensors", "--provenance", "--sign", "me.pem")
        self.assertFalse(os.path.exists("q.safetensors.provenance.json"))
        bundle = json.loads(pathlib.Path("q.safetensors.provenance.sigstore.json").read_text())
        envelope = bundle["dsseEnvelope"]
        body, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
        pathlib.Path("pae").write_bytes(f"DSSEv1 {len(kind)} {kind} {len(body)} ".encode() + body)
        pathlib.Path("sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
        verify = ["openssl", "dgst", "-sha256", "-verify", "me.pub.pem", "-signature", "sig", "pae"]
        self.assertEqual(subprocess.run(verify, capture_output=True).returncode, 0)
        pathlib.Path("pae").write_bytes(pathlib.Path("pae").read_bytes() + b" ")
        self.assertNotEqual(subprocess.run(verify, capture_output=True).returncode, 0)
        self.assertEqual(json.loads(body)["subject"][0]["digest"]["sha256"], digest("q.safetensors"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
