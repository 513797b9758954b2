"""What the tests of faults share: commands to disturb, runs of them under shim.c, and what must hold afterwards.

A command runs in a folder with 'in/' (its inputs, which nothing may change) and 'out/' (all it writes). Its undisturbed
run gives the bytes that count as complete; expected values of the contents are other tests' business.
(Python's standard library only)
"""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
from weight_files import floats, write_safetensors

WTOOL = str(pathlib.Path(sys.argv[1]).resolve())
SHIM = str(pathlib.Path(sys.argv[2]).resolve())
# The long form: every point where the usual run takes a sample.
LONG = os.environ.get("WTOOL_FAULTS_LONG", "") not in ("", "0")
SEED = int(os.environ.get("WTOOL_FAULTS_SEED", "1"))
STAGING = re.compile(r"^\.(?P<name>.+)\.wtool-\d+$")

WRITING = ("write pwrite fsync fdatasync fallocate posix_fallocate ftruncate mkdir open mkostemp copy_file_range"
           " sync_file_range rename renameat renameat2 link linkat fchmod chmod flock close pthread_create").split()
READING = ["read", "pread"]
REMOVING = ["unlink", "unlinkat"]


def tree(folder):
    """All there is in it: relative path -> bytes of a file, None of a folder."""
    out = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        out[str(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
    return out


def part(whole, name):
    """What of a tree is `name` or lies in it."""
    return {path: data for path, data in whole.items() if path == name or path.startswith(name + "/")}


def top(whole):
    return {path.split("/")[0] for path in whole}


class Case:
    """A command: its arguments, the names in out/ that it makes, what lies there before."""

    def __init__(self, name, args, before=None, always="", output=None, varies=()):
        self.name, self.args, self.before, self.always = name, args.split(), before or {}, always
        self.output = output  # where its standard output goes, if that is looked at
        self.varies = varies  # calls whose number differs from run to run

    def __str__(self):
        return self.name


OLD_FOLDER = {"o": None, "o/model-00001-of-00004.safetensors": b"old, one", "o/model.safetensors.index.json": b"{}"}
SHARDS = "convert in/m.safetensors -o out/o/ --shard-size 40kB -j1"
CASES = [
    Case("convert", "convert in/m.safetensors --dtype bf16 -o out/o.safetensors -j1"),
    Case("copy", "convert in/m.safetensors -o out/o.safetensors -j1"),
    Case("shards", "convert in/model --dtype f16 -o out/o/ --shard-size 20kB -j1"),
    Case("npy", "convert in/m.safetensors --rename model.layers.=layers/ -o out/o/ --to npy -j1"),
    Case("int8", "quantize --int8 in/m.safetensors -o out/o.safetensors -j1 --report out/r.json --junit out/j.xml"
                 " --sarif out/s.sarif --gate max(rel_rmse)<=1"),
    Case("records", "quantize --int8 in/m.safetensors -o out/o.safetensors -j1 --manifest --provenance --bom",
         varies=READING),  # hashing beside the writer takes as much at once as is there
    Case("q4_0", "quantize --type q4_0 -T lm_head.weight=q8_0 in/m.safetensors -o out/o.gguf -j1"),
    Case("replace", "convert in/m.safetensors --dtype bf16 -f -o out/o.safetensors -j1", {"o.safetensors": b"old"}),
    Case("replace-folder", SHARDS + " -f", OLD_FOLDER),
    Case("stdout", "convert in/m.safetensors --dtype bf16 -o - -j1", output="stdout"),
    Case("digest", "digest in/m.safetensors in/model -o out/SHA256SUMS"),
    Case("show", "show in/m.safetensors lm_head.weight -o out/o.npy"),
    Case("lock", "check in/m.safetensors --write-lock out/o.lock -j1"),
    # Digests are made beside the work here, too.
    Case("compress", "compress in/small.safetensors --plain -o out/o.zst -j1", varies=READING),
    Case("planes", "compress in/small.safetensors --planes -o out/o.zst -j1", varies=READING),
    Case("difference", "compress in/small.safetensors --base in/base.safetensors -o out/o.zst -j1", varies=READING),
    Case("compress-folder", "compress in/pair -o out/o/ -j1", varies=READING),
    Case("compress-stdout", "compress in/small.safetensors --planes -o - -j1", output="stdout", varies=READING),
    Case("decompress", "decompress in/small.zst -o out/o.safetensors -j1", varies=READING),
    Case("decompress-plain", "decompress in/plain.zst -f -o out/o.safetensors -j1", {"o.safetensors": b"old"}, varies=READING),
    Case("decompress-difference", "decompress in/difference.zst --base in/base.safetensors -o out/o.safetensors -j1", varies=READING),
    Case("decompress-folder", "decompress in/pair-zst -o out/o/ -j1", varies=READING),
    Case("decompress-tensor", "decompress in/small.zst --tensor lm_head.weight -o out/o.npy -j1", varies=READING),
    Case("decompress-salvage", "decompress in/small.zst --salvage out/o.safetensors -j1", varies=READING),
    Case("salvage", "check in/model --salvage out/o/ --sarif out/s.sarif -j1"),
    # As on a file system that has less to offer.
    Case("plain-file", "convert in/m.safetensors -o out/o.safetensors -j1",
         always="renameat2=EINVAL,fallocate=EOPNOTSUPP,copy_file_range=ENOSYS"),
    Case("no-links", "convert in/m.safetensors -o out/o.safetensors -j1", always="renameat2=EINVAL,link=EPERM"),
    Case("plain-folder", SHARDS, always="renameat2=EINVAL,fallocate=EOPNOTSUPP,flock=ENOLCK"),
    Case("plain-replace-folder", SHARDS + " -f", OLD_FOLDER, always="renameat2=EINVAL"),
]
BY_NAME = {c.name: c for c in CASES}


class Call:
    """A line of the shim's log."""

    def __init__(self, line):
        number, self.name, self.result, self.first, self.second = line.split("\t")
        self.number, self.ok = int(number), not self.result.startswith("!")

    def __repr__(self):
        return f"{self.number} {self.name} {self.first} {self.second} = {self.result}"


def read_log(path):
    text = pathlib.Path(path).read_text(errors="surrogateescape") if os.path.exists(path) else ""
    return [Call(line) for line in text.split("\n") if line]


class Run:
    def __init__(self, code, out, error, after, log):
        self.code, self.out, self.error, self.after, self.log = code, out, error, after, log


class Faults(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which arms the shim; a job in the background ignores it
        self.home = os.getcwd()
        self.dir = tempfile.mkdtemp(prefix="wtool-faults-")
        os.chdir(self.dir)
        make_inputs()
        self.inputs = tree("in")
        self.tried = 0

    def tearDown(self):
        os.chdir(self.home)
        shutil.rmtree(self.dir)

    def environment(self, case, calls=None, log=False, **more):
        env = dict(os.environ, LC_ALL="C.UTF-8", COLUMNS="200", LD_PRELOAD=SHIM, FAULT_NOSYNC="1",
                   TMPDIR=self.dir + "/out")
        if case.always:
            env["FAULT_ALWAYS"] = case.always
        if calls:
            env["FAULT_CALLS"] = ",".join(calls)
        if log:
            env["FAULT_LOG"] = self.dir + "/log"
            if os.path.exists("log"):
                os.remove("log")
        env.update({f"FAULT_{key.upper()}": str(value) for key, value in more.items()})
        return env

    def prepare(self, case):
        shutil.rmtree("out", ignore_errors=True)
        os.mkdir("out")
        for path, data in case.before.items():
            if data is None:
                os.mkdir("out/" + path)
            else:
                pathlib.Path("out/" + path).write_bytes(data)

    def run_case(self, case, calls=None, log=False, fresh=True, args=(), **more):
        if fresh:
            self.prepare(case)
        with open("stdout", "wb") as out:
            done = subprocess.run([WTOOL, *case.args, *args], stdin=subprocess.DEVNULL, stdout=out,
                                  stderr=subprocess.PIPE, env=self.environment(case, calls, log, **more), timeout=120)
        return self.look(done.returncode, done.stderr, log)

    def look(self, code, error, log=False):
        return Run(code, pathlib.Path("stdout").read_bytes(), error.decode(errors="replace"), tree("out"),
                   read_log("log") if log else [])

    def undisturbed(self, case, calls=None):
        run = self.run_case(case, calls, log=True)
        self.assertEqual(run.code, 0, f"{case}: {run.error}")
        self.assertFalse([name for name in top(run.after) if STAGING.match(name)], case)
        if case.output is None:
            self.assertNotEqual(run.after, tree_of(case.before), case)
        return run

    # --- What must hold

    def check_names(self, case, whole, run, where, leftovers=False):
        """Each name in out/ as it was or complete, nothing else there. Which names are new."""
        before, new = tree_of(case.before), set()
        for name in top(run.after) | top(before) | top(whole.after):
            now, old, complete = (part(t, name) for t in (run.after, before, whole.after))
            if now == complete and complete != old:
                new.add(name)
            elif now != old and not (leftovers and STAGING.match(name)):
                self.fail(f"{where}: out/{name} is neither old nor complete: {brief(now)}\n{run.code} {run.error}")
        return new

    def check_inputs(self, where):
        self.assertEqual(tree("in"), self.inputs, f"{where}: the inputs changed")


def brief(whole):
    return {path: data if data is None else f"{len(data)} bytes" for path, data in whole.items()}


def tree_of(before):
    return dict(sorted(before.items()))


def final_of(path):
    """The name in out/ that a path within it or within a temporary folder belongs to, or ''."""
    parts = re.sub(r"^.*?\bout/?", "", path, count=1).split("/")
    match = STAGING.match(re.sub(r"\.old$", "", parts[0]))
    return match["name"] if match else parts[0]


def noise(rng, n):
    return floats([rng.gauss(0, 0.02) for _ in range(n)])


def tensors(rng, layers, rows, columns):
    out = {"model.embed_tokens.weight": ("F32", [16, columns], noise(rng, 16 * columns))}
    for i in range(layers):
        out[f"model.layers.{i}.mlp.up_proj.weight"] = ("F32", [rows, columns], noise(rng, rows * columns))
        out[f"model.layers.{i}.input_layernorm.weight"] = ("F32", [columns], noise(rng, columns))
    out["lm_head.weight"] = ("F32", [16, columns], noise(rng, 16 * columns))
    return out


def make_inputs():
    rng = random.Random(5)
    os.mkdir("in")
    write_safetensors("in/m.safetensors", tensors(rng, 2, 64, 128), {"format": "pt"})
    os.mkdir("in/model")
    write_safetensors("in/model/model.safetensors", tensors(rng, 2, 64, 128), {"format": "pt"})
    pathlib.Path("in/model/config.json").write_text(json.dumps({"model_type": "none", "torch_dtype": "float32"}))
    pathlib.Path("in/model/tokenizer.json").write_text("{}" * 700)
    small = tensors(rng, 1, 16, 32)
    write_safetensors("in/small.safetensors", small)
    small["lm_head.weight"] = ("F32", [16, 32], noise(rng, 16 * 32))  # as if trained on
    write_safetensors("in/base.safetensors", small)
    for name, options in (("small", ["--planes"]), ("plain", ["--plain"]), ("difference", ["--base", "in/base.safetensors"])):
        compress("in/small.safetensors", *options, "-o", f"in/{name}.zst")
    os.mkdir("in/pair")
    shutil.copy("in/small.safetensors", "in/pair/model.safetensors")
    pathlib.Path("in/pair/config.json").write_text('{"model_type": "none"}')
    compress("in/pair", "--planes", "-o", "in/pair-zst/")


def compress(*args):
    subprocess.run([WTOOL, "compress", *args], check=True, stdout=subprocess.DEVNULL)


def make_large():
    """Long enough in the making to be met at work."""
    rng = random.Random(6)
    model = tensors(rng, 4, 256, 256)
    write_safetensors("in/large.safetensors", model, {"format": "pt"})
    for name, (kind, shape, raw) in model.items():  # as if trained on: some numbers are others
        other = noise(rng, 64)
        model[name] = (kind, shape, other + raw[len(other) :])
    write_safetensors("in/large-base.safetensors", model, {"format": "pt"})
    for name, options in (("large", ["--planes"]), ("large-difference", ["--base", "in/large-base.safetensors"])):
        compress("in/large.safetensors", *options, "-o", f"in/{name}.zst")


def main():
    del sys.argv[1:3]
    unittest.main(verbosity=2)
