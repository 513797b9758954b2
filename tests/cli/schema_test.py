#!/usr/bin/env python3
"""Every JSON document that wtool writes fits its schema in man/schema.

usage: schema_test.py WTOOL SCHEMA_FOLDER
"""
import hashlib
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import validate_schema


def safetensors(path, tensors, metadata=None):
    """By hand: tensors are name -> (dtype, shape, bytes)."""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def floats(n):
    return struct.pack(f"<{n}f", *(((i * 37) % 101 - 50) / 500 for i in range(n)))


class Tester:
    def __init__(self, wtool, schemas, folder):
        self.wtool, self.folder, self.faults, self.seen = wtool, folder, [], set()
        self.schemas = {}
        for path in sorted(schemas.glob("*.json")):
            schema = json.loads(path.read_text())
            self.schemas[schema["title"]] = schema
            assert path.name == schema["title"].replace("/", ".") + ".json", path

    def check(self, title, text, what):
        try:
            document = json.loads(text)
        except ValueError as error:
            self.faults.append(f"{what}: no JSON: {error}: {text[:80]!r}")
            return
        if document.get("schema") != title:
            self.faults.append(f"{what}: schema is {document.get('schema')!r}, not {title!r}")
            return
        if list(document)[:2] != ["schema", "ok"]:
            self.faults.append(f"{what}: begins with {list(document)[:2]}")
        self.seen.add(title)
        self.faults += [f"{what}: {f}" for f in validate_schema.faults(document, self.schemas[title])]

    def run(self, title, *arguments, status=0):
        """Runs it and checks its one document: on stdout, or, for an error, on stderr."""
        what = "wtool " + " ".join(arguments)
        done = subprocess.run([self.wtool, *arguments], capture_output=True, text=True,
                              cwd=self.folder, stdin=subprocess.DEVNULL)
        if done.returncode != status:
            self.faults.append(f"{what}: exit {done.returncode}, not {status}: {done.stderr}")
            return
        self.check(title, done.stderr if title == "wtool.error/1" else done.stdout, what)


def models(folder):
    weights = {f"model.layers.{i}.mlp.up_proj.weight": ("F32", [4, 256], floats(1024))
               for i in range(3)}
    weights["model.norm.weight"] = ("F32", [8], floats(8))
    safetensors(folder / "m.safetensors", weights, {"format": "pt"})
    nan = struct.pack("<f", float("nan"))
    safetensors(folder / "nan.safetensors",
                {"mlp.up_proj.weight": ("F32", [4, 256], floats(1023) + nan)})
    (folder / "broken.safetensors").write_bytes(b"\xff" * 64)
    pair = {"model.layers.0.mlp.up_proj.weight": ("F32", [4, 256], floats(1024))}
    (folder / "model").mkdir()
    safetensors(folder / "model/model.safetensors", pair)
    (folder / "model/config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')


def run_all(t):
    t.run("wtool.version/1", "--version", "--json")
    t.run("wtool.inspect/1", "inspect", "--json", "m.safetensors")
    t.run("wtool.inspect/1", "inspect", "--json", "m.safetensors", "model")
    t.run("wtool.inspect/1", "inspect", "--json", "--by", "dtype,layer,scheme,file", "m.safetensors")
    t.run("wtool.inspect/1", "inspect", "--json", "--get", "format", "m.safetensors")
    t.run("wtool.lineage/1", "inspect", "--json", "--lineage", "m.safetensors", status=1)  # others: lineage_test.py
    t.run("wtool.inspect/1", "inspect", "--json", "--get", "nothing", "m.safetensors", status=1)
    t.run("wtool.error/1", "inspect", "--json", "broken.safetensors", status=3)
    t.run("wtool.error/1", "inspect", "--json", "absent.safetensors", status=4)
    t.run("wtool.error/1", "inspect", "--json", "m.safetensors", "-t", "modle", status=2)

    t.run("wtool.convert/1", "convert", "--json", "m.safetensors", "-o", "m.gguf",
          "--set", "a.list:u64[]=[1, 2]", "--set", "a.number:f32=0.5", "--set", "a.flag:bool=true")
    t.run("wtool.inspect/1", "inspect", "--json", "m.gguf")
    t.run("wtool.convert/1", "convert", "--json", "m.safetensors", "-o", "h.safetensors",
          "--dtype", "f16", "-n")
    t.run("wtool.quantize/1", "quantize", "--json", "--int8", "m.safetensors")
    t.run("wtool.quantize/1", "quantize", "--json", "--int8", "model")
    t.run("wtool.quantize/1", "quantize", "--json", "--int4", "-n", "m.safetensors")
    t.run("wtool.quantize/1", "quantize", "--json", "--int4", "m.safetensors", "--gate",
          "max(rel_rmse) <= 0.00001", status=1)
    t.run("wtool.quantize/1", "quantize", "--json", "--int8", "m.gguf", "-o", "q.gguf")
    t.run("wtool.quantize/1", "quantize", "--json", "--type", "q4_k_m", "--fallback", "m.gguf", "-o", "k.gguf")
    t.run("wtool.inspect/1", "inspect", "--json", "m.int8.safetensors")
    t.run("wtool.convert/1", "convert", "--json", "m.int8.safetensors", "--scheme", "plain", "-o", "p.safetensors")
    t.run("wtool.convert/1", "convert", "--json", "m.int8.safetensors", "--scheme", "compressed-tensors", "-o",
          "r.safetensors")
    t.run("wtool.error/1", "quantize", "--json", "--int8", "nan.safetensors", status=3)
    t.run("wtool.error/1", "quantize", "--json", "--int8", "m.safetensors", status=2)  # exists

    t.run("wtool.show/1", "show", "--json", "m.safetensors", "model.norm.weight")
    t.run("wtool.show/1", "show", "--json", "nan.safetensors", "mlp.up_proj.weight[3,250:]")

    t.run("wtool.stats/1", "stats", "--json", "m.safetensors")
    t.run("wtool.stats/1", "stats", "--json", "nan.safetensors", "--cast", "f16")
    t.run("wtool.stats/1", "stats", "--json", "m.gguf", "--by", "layer", "--moments")
    t.run("wtool.stats/1", "stats", "--json", "m.int8.safetensors", "--hist", "model.norm.weight",
          "--rows", "model.layers.0.mlp.up_proj.weight", "--columns", "model.norm.weight")

    t.run("wtool.compress/1", "compress", "--json", "-n", "m.safetensors")
    t.run("wtool.compress/1", "compress", "--json", "--plain", "m.safetensors")
    t.run("wtool.compress/1", "compress", "--json", "m.safetensors", "--base", "m.safetensors", "-o", "same.zst")
    t.run("wtool.error/1", "compress", "--json", "m.safetensors.zst", status=2)
    t.run("wtool.compress/1", "compress", "--json", "model")
    t.run("wtool.decompress/1", "decompress", "--json", "model-zst", "-o", "model-again")
    t.run("wtool.verify/1", "verify", "--json", "m.safetensors.zst")
    t.run("wtool.decompress/1", "decompress", "--json", "-n", "m.safetensors.zst")
    t.run("wtool.decompress/1", "decompress", "--json", "m.safetensors.zst", "-o", "again.safetensors")
    t.run("wtool.convert/1", "decompress", "--json", "m.safetensors.zst", "-o", "n.npy", "--tensor", "model.norm.weight")
    t.run("wtool.convert/1", "decompress", "--json", "m.safetensors.zst", "--salvage", "whole.safetensors")

    t.run("wtool.diff/1", "diff", "--json", "m.safetensors", "m.int8.safetensors", status=1)
    t.run("wtool.diff/1", "diff", "--json", "m.safetensors", "m.int8.safetensors", "--tolerance", "step",
          "--by", "layer")
    t.run("wtool.diff/1", "diff", "--json", "model", "model-int8", status=1)
    t.run("wtool.diff/1", "diff", "--json", "m.safetensors", "nan.safetensors", status=1)

    t.run("wtool.digest/1", "digest", "--json", "m.safetensors", "model")
    t.run("wtool.digest/1", "digest", "--json", "m.safetensors", "absent", status=4)
    t.run("wtool.manifest/1", "digest", "--per-tensor", "m.safetensors", "model")
    t.run("wtool.digest/1", "digest", "--content", "--json", "m.safetensors", "model")
    t.run("wtool.digest/1", "digest", "--content", "--json", "m.safetensors", "absent", status=4)
    t.run("wtool.verify/1", "verify", "--json", "--content", "0" * 64, "m.safetensors", status=1)
    t.run("wtool.error/1", "verify", "--json", "--sha256", "m.safetensors", status=2)
    subprocess.run([t.wtool, "digest", "--per-tensor", "m.safetensors", "-o", "manifest.json"],
                   cwd=t.folder, check=True)
    t.run("wtool.verify/1", "verify", "--json", "-c", "manifest.json")
    t.run("wtool.verify/1", "verify", "--json", "--sha256=" + "0" * 64, "m.safetensors", status=1)
    weights = (t.folder / "m.safetensors").read_bytes()
    (t.folder / "m.safetensors").write_bytes(weights[:-1] + b"\x7f")
    t.run("wtool.verify/1", "verify", "--json", "-c", "manifest.json", status=1)
    (t.folder / "m.safetensors").rename(t.folder / "moved")
    t.run("wtool.verify/1", "verify", "--json", "-c", "manifest.json", status=1)
    (t.folder / "m.safetensors").write_bytes(weights)

    signatures(t)
    t.run("wtool.stats/1", "stats", "--json", "nan.safetensors", "--gate", "max(mean) <= 1 and sum(nan) == 0",
          status=1)
    t.run("wtool.check/1", "check", "--json", "m.safetensors")
    t.run("wtool.check/1", "check", "--json", "--fast", "--lenient", "model")
    t.run("wtool.check/1", "check", "--json", "--rules")
    (t.folder / "cut.safetensors").write_bytes(weights[:-100])
    t.run("wtool.check/1", "check", "--json", "cut.safetensors", "--salvage", "saved.safetensors", status=1)
    t.run("wtool.error/1", "check", "--json", "report.txt", status=4)
    t.run("wtool.check/1", "check", "--json", "--write-lock", "m.lock", "m.safetensors")
    t.run("wtool.check/1", "check", "--json", "--lock", "m.lock", "m.safetensors")
    t.run("wtool.check/1", "check", "--json", "--lock", "m.lock", "m.int8.safetensors", status=1)
    for name, more in (("m.lock", []), ("q.lock", ["--digests"])):  # no answer of a command: has no "ok"
        subprocess.run([t.wtool, "check", "-f", "--write-lock", name, *more, "m.int8.safetensors"],
                       cwd=t.folder, check=True, stdout=subprocess.DEVNULL)
        t.seen.add("wtool.lock/1")
        t.faults += [f"{name}: {f}" for f in validate_schema.faults(json.loads((t.folder / name).read_text()),
                                                                    t.schemas["wtool.lock/1"])]

    report = t.folder / "report.json"
    subprocess.run([t.wtool, "quantize", "--int8", "m.safetensors", "-f", "-q", "--report", report],
                   cwd=t.folder, check=True, stdout=subprocess.DEVNULL)
    t.check("wtool.quantize/1", report.read_text(), "--report")


def signatures(t):
    t.run("wtool.key/1", "sign", "--json", "--new-key", "dry", "-n")
    t.run("wtool.key/1", "sign", "--json", "--new-key", "me")
    t.run("wtool.key/1", "sign", "--json", "--new-key", "you", "--curve", "P-384")
    t.run("wtool.sign/1", "sign", "--json", "m.safetensors", "--key", "me.pem", "-n")
    t.run("wtool.sign/1", "sign", "--json", "m.safetensors", "--key", "me.pem")
    t.run("wtool.sign/1", "sign", "--json", "m.safetensors", "--key", "me.pem", "-n", "--reuse", "m.safetensors.sig")
    (t.folder / "SUMS").write_text(hashlib.sha256((t.folder / "m.safetensors").read_bytes()).hexdigest()
                                   + "  m.safetensors\n")
    t.run("wtool.sign/1", "sign", "--json", "m.safetensors", "--key", "me.pem", "-f", "--digests", "SUMS")
    t.run("wtool.bundle/1", "sign", "--json", "show", "m.safetensors.sig")
    t.run("wtool.verify-signature/1", "verify", "--json", "m.safetensors", "--key", "me.pub.pem")
    t.run("wtool.verify-signature/1", "verify", "--json", "m.safetensors", "--key", "you.pub.pem", status=1)
    t.run("wtool.verify-signature/1", "verify", "--json", "nan.safetensors", "--key", "me.pub.pem",
          "--signature", "m.safetensors.sig", "--keep-going", status=1)
    t.run("wtool.error/1", "verify", "--json", "nan.safetensors", "--key", "me.pub.pem", status=4)
    manifest = ["--json", "-c", "list.json", "--key"]
    subprocess.run([t.wtool, "digest", "--per-tensor", "model", "-o", "list.json"], cwd=t.folder, check=True)
    t.run("wtool.sign/1", "sign", "--json", "list.json", "--key", "me.pem")
    t.run("wtool.verify/1", "verify", *manifest, "me.pub.pem")
    t.run("wtool.verify/1", "verify", *manifest, "you.pub.pem", status=1)
    t.run("wtool.verify/1", "verify", "model", "-t", "*", *manifest, "me.pub.pem")
    t.run("wtool.verify/1", "verify", "m.safetensors", "-t", "*", *manifest, "me.pub.pem", status=1)
    (t.folder / "model/extra").touch()
    t.run("wtool.verify/1", "verify", *manifest, "me.pub.pem", status=1)


def main():
    validate_schema.self_test()
    wtool, schemas = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        tester = Tester(wtool, schemas, pathlib.Path(name))
        models(tester.folder)
        run_all(tester)
    tester.faults += [f"no document of {title} was tried" for title in tester.schemas
                      if title not in tester.seen]
    print("\n".join(tester.faults))
    return 1 if tester.faults else 0


if __name__ == "__main__":
    sys.exit(main())
