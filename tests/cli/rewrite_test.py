#!/usr/bin/env python3
"""convert and quantize from outside: what a user types, what lies on the disk afterwards.

usage: rewrite_test.py WTOOL SOURCE_DIR     (Python's standard library only)

Expected bytes come from the formats' rules, from struct's own rounding, or from the reference implementations' files in
testdata.
"""
import hashlib
import json
import math
import os
import pathlib
import random
import resource
import signal
import struct
import subprocess
import sys
import time
import unittest

from weight_files import Command, floats, read_gguf, write_safetensors

WTOOL = str(pathlib.Path(sys.argv[1]).resolve())
SOURCE = pathlib.Path(sys.argv[2]).resolve()


def read_safetensors(path):
    raw = pathlib.Path(path).read_bytes()
    (n,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + n])
    meta = header.pop("__metadata__", {})
    data = raw[8 + n :]
    return {k: (v["dtype"], v["shape"], data[v["data_offsets"][0] : v["data_offsets"][1]]) for k, v in header.items()}, meta


def read_npy(path):
    raw = pathlib.Path(path).read_bytes()
    n = struct.unpack_from("<H", raw, 8)[0]
    return raw[10 + n :]


def bf16_bits(value):
    """Round to nearest even, from the definition: the nearer neighbour, the even one on a tie."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    low, high = bits >> 16, (bits >> 16) + 1
    rest = bits & 0xFFFF
    if rest > 0x8000 or (rest == 0x8000 and low & 1):
        return high
    return low


def noise(n, seed=1, scale=0.02):
    rng = random.Random(seed)
    return [struct.unpack("<f", struct.pack("<f", rng.gauss(0, scale)))[0] for _ in range(n)]


class Rewrite(Command):
    def run_wtool(self, *args, code=0, **options):
        done = subprocess.run([WTOOL, *args], capture_output=True, **options)
        self.assertEqual(done.returncode, code, f"{args}: {done.stdout[:2000]}{done.stderr.decode()}")
        return done

    def model(self, path="m.safetensors", dtype="F32", rows=64, cols=256, metadata=None):
        pack = floats if dtype == "F32" else lambda v: struct.pack(f"<{len(v)}H", *map(bf16_bits, v))
        tensors = {
            "model.embed_tokens.weight": (dtype, [32, cols], pack(noise(32 * cols, 2))),
            "model.layers.0.mlp.up_proj.weight": (dtype, [rows, cols], pack(noise(rows * cols, 3))),
            "model.layers.0.input_layernorm.weight": (dtype, [cols], pack([1.0] * cols)),
            "lm_head.weight": (dtype, [32, cols], pack(noise(32 * cols, 4))),
        }
        write_safetensors(path, tensors, {"format": "pt"} if metadata is None else metadata)
        return tensors

    # --- convert -------------------------------------------------------------------------------

    def test_copy_is_byte_identical(self):
        self.model()
        self.run_wtool("convert", "m.safetensors", "-o", "copy.safetensors")
        self.assertEqual(pathlib.Path("copy.safetensors").read_bytes(), pathlib.Path("m.safetensors").read_bytes())

    def test_through_gguf_and_back_is_byte_identical(self):
        tensors = self.model()
        self.run_wtool("convert", "m.safetensors", "-o", "m.gguf")
        keys, inside = read_gguf("m.gguf")
        self.assertEqual(keys, {"format": (8, "pt")})
        self.assertEqual({k: ("f32", v[1], v[2]) for k, v in tensors.items()}, inside)
        self.run_wtool("convert", "m.gguf", "-o", "back.safetensors")
        self.assertEqual(pathlib.Path("back.safetensors").read_bytes(), pathlib.Path("m.safetensors").read_bytes())

    def test_typed_metadata_survives_safetensors(self):
        self.model()
        edits = ["a.u8:u8=255", "a.i8:i8=-128", "a.f32:f32=0.1", "a.f64:f64=0.1", "a.bool:bool=true", "a.i64:i64=-9223372036854775808",
                 "a.u64:u64=18446744073709551615", "a.list:str[]=[\"x\",\"y \\n\"]", "a.nums:i32[]=[1,-2,3]", "a.text=plain"]
        self.run_wtool("convert", "m.safetensors", "-o", "m.gguf", *[x for e in edits for x in ("--set", e)])
        self.run_wtool("convert", "m.gguf", "-o", "t.safetensors")
        self.run_wtool("convert", "t.safetensors", "-o", "again.gguf")
        self.assertEqual(pathlib.Path("again.gguf").read_bytes(), pathlib.Path("m.gguf").read_bytes())
        keys, _ = read_gguf("again.gguf")
        self.assertEqual(keys["a.u64"], (10, 2**64 - 1))
        self.assertEqual(keys["a.i64"], (11, -(2**63)))
        self.assertEqual(keys["a.f64"], (12, 0.1))
        self.assertEqual(keys["a.list"], (9, ["x", "y \n"]))
        self.assertEqual(keys["a.bool"], (7, 1))

    def test_metadata_edits(self):
        self.model(metadata={"format": "pt", "old": "x"})
        template = "{% for m in messages %}" * 2000
        pathlib.Path("t.jinja").write_text(template)
        self.run_wtool("convert", "m.safetensors", "-o", "e.safetensors", "--unset", "old", "--set", "who=me=you", "--set-file", "chat=t.jinja")
        self.assertEqual(read_safetensors("e.safetensors")[1], {"format": "pt", "who": "me=you", "chat": template})
        self.refused("convert", "m.safetensors", "-o", "x.safetensors", "--unset", "od", code=2, saying=["'od'", "did you mean 'old'"])
        self.refused("convert", "m.safetensors", "-o", "x.gguf", "--set", "n:u8=256", code=2, saying=["256", "u8"])
        self.refused("convert", "m.safetensors", "-o", "x.safetensors", "--set", "n:u8=1", code=2, saying=["strings"])

    def test_cast_rounds_to_nearest_even(self):
        values = noise(4096, 7, 1.0) + [0.0, -0.0, 1.00390625, 1.01171875, 3.4e38 / 2, 1e-40, math.inf, -math.inf]
        write_safetensors("v.safetensors", {"v": ("F32", [len(values)], floats(values))})
        self.run_wtool("convert", "v.safetensors", "--dtype", "bf16", "-o", "b.safetensors")
        got = struct.unpack(f"<{len(values)}H", read_safetensors("b.safetensors")[0]["v"][2])
        self.assertEqual(list(got), [bf16_bits(v) for v in values])
        finite = values[:-2]
        finite[4100] = 1.0
        write_safetensors("w.safetensors", {"v": ("F32", [len(finite)], floats(finite))})
        self.run_wtool("convert", "w.safetensors", "--dtype", "f16", "-o", "h.safetensors")
        self.assertEqual(read_safetensors("h.safetensors")[0]["v"][2], struct.pack(f"<{len(finite)}e", *finite))

    def test_overflow_commits_nothing(self):
        values = [0.5] * 300
        values[77] = 70000.0
        values[200] = -1e30
        write_safetensors("v.safetensors", {"v": ("F32", [3, 100], floats(values))})
        self.refused("convert", "v.safetensors", "--dtype", "f16", "-o", "h.safetensors", code=3,
                     saying=["'v'", "2 of 300", "[0, 77]", "element 77", "--saturate"])
        said = self.run_wtool("convert", "v.safetensors", "--dtype", "f16", "-o", "h.safetensors", "--saturate").stdout.decode()
        self.assertIn("2 values", said)
        got = struct.unpack("<300e", read_safetensors("h.safetensors")[0]["v"][2])
        self.assertEqual((got[77], got[200], got[0]), (65504.0, -65504.0, 0.5))

    def test_nan_stays_nan(self):
        write_safetensors("v.safetensors", {"v": ("F32", [4], struct.pack("<4I", 0x7FC00000, 0xFFC00001, 0x7F800001, 0x3F800000))})
        self.run_wtool("convert", "v.safetensors", "--dtype", "f16", "-o", "h.safetensors")
        got = struct.unpack("<4e", read_safetensors("h.safetensors")[0]["v"][2])
        self.assertTrue(all(math.isnan(v) for v in got[:3]) and got[3] == 1.0)

    def test_rename(self):
        self.model()
        self.run_wtool("convert", "m.safetensors", "-o", "r.safetensors", "--rename", r"^model\.layers\.(\d+)\.=blk.\1.")
        self.assertIn("blk.0.mlp.up_proj.weight", read_safetensors("r.safetensors")[0])
        self.refused("convert", "m.safetensors", "-o", "x.safetensors", "--rename", "^.*$=same", code=2, saying=["'same'"])
        self.refused("convert", "m.safetensors", "-o", "x.safetensors", "--rename", "nothing=x", code=2, saying=["nothing"])

    def test_selection(self):
        self.model()
        self.run_wtool("convert", "m.safetensors", "-t", "layers.0.*", "-x", "*norm*", "-o", "s.safetensors")
        self.assertEqual(list(read_safetensors("s.safetensors")[0]), ["model.layers.0.mlp.up_proj.weight"])
        self.refused("convert", "m.safetensors", "-t", "nope*", "-o", "x.safetensors", code=2, saying=["nope*"])

    def test_shards_and_back(self):
        tensors = self.model()
        self.run_wtool("convert", "m.safetensors", "-o", "sh/", "--shard-size", "70000")
        index = json.loads(pathlib.Path("sh/model.safetensors.index.json").read_text())
        self.assertEqual(index["metadata"]["total_size"], sum(len(t[2]) for t in tensors.values()))
        self.assertEqual(sorted(index["weight_map"]), sorted(tensors))
        for name, file in index["weight_map"].items():
            self.assertEqual(read_safetensors(f"sh/{file}")[0][name][2], tensors[name][2])
        self.assertGreater(len(set(index["weight_map"].values())), 1)
        for file in set(index["weight_map"].values()):
            n = len(read_safetensors(f"sh/{file}")[0])
            self.assertTrue(os.path.getsize(f"sh/{file}") <= 70000 or n == 1)
        self.run_wtool("convert", "sh/", "-o", "one.safetensors")
        self.assertEqual(pathlib.Path("one.safetensors").read_bytes(), pathlib.Path("m.safetensors").read_bytes())
        shard = sorted(set(index["weight_map"].values()))[0]
        self.run_wtool("convert", f"sh/{shard}", "-o", "two.safetensors")
        self.assertEqual(pathlib.Path("two.safetensors").read_bytes(), pathlib.Path("m.safetensors").read_bytes())

    def test_a_tensor_larger_than_a_shard_is_told(self):
        tensors = self.model()
        name, (_, _, raw) = max(tensors.items(), key=lambda t: len(t[1][2]))
        said = self.run_wtool("convert", "m.safetensors", "-o", "sh/", "--shard-size", str(len(raw) - 1))
        self.assertIn(f"'{name}' ({len(raw)} bytes)", (said.stdout + said.stderr).decode())
        said = self.run_wtool("convert", "m.safetensors", "-f", "-o", "sh/", "--shard-size", str(len(raw)))
        self.assertNotIn("larger than --shard-size", (said.stdout + said.stderr).decode())

    def test_gguf_shards(self):
        self.model()
        self.run_wtool("convert", "m.safetensors", "-o", "one.gguf", "--set", "general.name=x")
        self.run_wtool("convert", "one.gguf", "-o", "sh/", "--shard-size", "40000")
        files = sorted(os.listdir("sh"))
        self.assertEqual(files[0], f"one-00001-of-{len(files):05}.gguf")
        keys, _ = read_gguf(f"sh/{files[0]}")
        self.assertEqual((keys["split.no"], keys["split.count"], keys["split.tensors.count"]), ((2, 0), (2, len(files)), (5, 4)))
        self.run_wtool("convert", f"sh/{files[1]}", "-o", "back.gguf")
        self.assertEqual(pathlib.Path("back.gguf").read_bytes(), pathlib.Path("one.gguf").read_bytes())

    def test_big_endian_and_back(self):
        self.model()
        self.run_wtool("convert", "m.safetensors", "-o", "m.gguf", "--set", "n:u32=7")
        self.run_wtool("convert", "m.gguf", "-o", "big.gguf", "--endian", "big")
        keys, big = read_gguf("big.gguf")
        _, little = read_gguf("m.gguf")
        self.assertEqual(keys["n"], (4, 7))
        for name, (kind, shape, raw) in little.items():
            values = struct.unpack(f"<{len(raw) // 4}f", raw)
            self.assertEqual(big[name], (kind, shape, struct.pack(f">{len(values)}f", *values)))
        self.run_wtool("convert", "big.gguf", "-o", "back.gguf", "--endian", "little")
        self.assertEqual(pathlib.Path("back.gguf").read_bytes(), pathlib.Path("m.gguf").read_bytes())

    def test_npy_folder_and_back(self):
        tensors = self.model()
        self.run_wtool("convert", "m.safetensors", "--to", "npy", "-o", "n/")
        for name, (_, _, raw) in tensors.items():
            self.assertEqual(read_npy(f"n/{name}.npy"), raw)
        self.run_wtool("convert", "n/", "--to", "safetensors", "-o", "back.safetensors")
        back, meta = read_safetensors("back.safetensors")
        self.assertEqual(back, {k: (d, s, r) for k, (d, s, r) in tensors.items()})
        self.assertEqual(meta, {"format": "pt"})
        self.refused("convert", "m.safetensors", "-o", "x.npy", code=2, saying=["one tensor", "4"])
        write_safetensors("none.safetensors", {}, {"format": "pt"})  # a folder that nothing could open
        for place in ("none/", "none.npy"):
            self.refused("convert", "none.safetensors", "--to", "npy", "-o", place, code=2, saying=["is a tensor, but there is none"])
            self.refused("convert", "m.safetensors", "-x", "*", "--to", "npy", "-o", place, code=2)

    def test_names_that_lead_elsewhere_become_no_files(self):
        write_safetensors("v.safetensors", {"../../evil": ("F32", [1], floats([1]))})
        self.refused("convert", "v.safetensors", "--to", "npy", "-o", "n/", code=2, saying=["evil"])

    def test_refusals_name_every_tensor(self):
        write_safetensors("v.safetensors", {"a" * 70: ("F32", [1], floats([1])), "b": ("U8", [1], b"x"), "c": ("F32", [1], floats([1]))})
        self.refused("convert", "v.safetensors", "-o", "v.gguf", code=2, saying=["a" * 70, "63", "'b'", "2 of 3"])

    def test_existing_output(self):
        self.model()
        pathlib.Path("out.gguf").write_text("precious")
        self.refused("convert", "m.safetensors", "-o", "out.gguf", code=2, saying=["already exists", "--force"])
        self.assertEqual(pathlib.Path("out.gguf").read_text(), "precious")
        self.run_wtool("convert", "m.safetensors", "-f", "-o", "out.gguf")
        self.assertEqual(pathlib.Path("out.gguf").read_bytes()[:4], b"GGUF")

    def test_input_is_output(self):
        tensors = self.model()
        self.refused("convert", "m.safetensors", "--dtype", "bf16", "-o", "m.safetensors", code=2)
        self.run_wtool("convert", "m.safetensors", "--dtype", "bf16", "-f", "-o", "m.safetensors")
        got, _ = read_safetensors("m.safetensors")
        values = struct.unpack("<16384f", tensors["model.layers.0.mlp.up_proj.weight"][2])
        self.assertEqual(got["model.layers.0.mlp.up_proj.weight"][2], struct.pack("<16384H", *map(bf16_bits, values)))

    def test_folder_keeps_its_side_files(self):
        os.mkdir("hf")
        self.model("hf/model.safetensors")
        pathlib.Path("hf/config.json").write_text('{"torch_dtype": "float32", "rms_norm_eps": 1e-05}')
        pathlib.Path("hf/tokenizer.json").write_text("{}")
        self.run_wtool("convert", "hf", "--dtype", "bf16")
        self.assertEqual(sorted(os.listdir("hf-bf16")), ["config.json", "model.safetensors", "tokenizer.json"])
        config = json.loads(pathlib.Path("hf-bf16/config.json").read_text())
        self.assertEqual(config, {"torch_dtype": "bfloat16", "rms_norm_eps": 1e-05})
        pathlib.Path("hf-bf16/notes.txt").write_text("mine")
        self.refused("convert", "hf", "--dtype", "bf16", "-f", code=2, saying=["notes.txt"])
        os.remove("hf-bf16/notes.txt")
        self.run_wtool("convert", "hf", "--dtype", "bf16", "-f")

    def test_stdin_and_stdout(self):
        self.model()
        raw = pathlib.Path("m.safetensors").read_bytes()
        done = self.run_wtool("convert", "-", "-o", "-", input=raw)
        self.assertEqual(done.stdout, raw)

    def test_odd_names(self):
        odd = {"a b": ("F32", [1], floats([1])), "new\nline": ("F32", [1], floats([2])), "esc\x1b[31m": ("F32", [1], floats([3])), "ünï": ("F32", [1], floats([4]))}
        write_safetensors("odd name\n.safetensors", odd)
        said = self.run_wtool("convert", "odd name\n.safetensors", "-v", "-n", "-o", "o.gguf")
        self.assertNotIn(b"\x1b", said.stdout + said.stderr)
        self.run_wtool("convert", "odd name\n.safetensors", "-o", "o.gguf")
        self.run_wtool("convert", "o.gguf", "-o", "back.safetensors")
        self.assertEqual(read_safetensors("back.safetensors")[0], odd)

    # --- faults --------------------------------------------------------------------------------

    def sparse(self, mib):
        """A file of zeros that takes no disk: f32 [mib * 256, 1024]."""
        n = mib << 20
        header = json.dumps({"m.weight": {"dtype": "F32", "shape": [mib * 256, 1024], "data_offsets": [0, n]}}).encode()
        header += b" " * (-len(header) % 8)
        with open("big.safetensors", "wb") as f:
            f.write(struct.pack("<Q", len(header)) + header)
            f.truncate(8 + len(header) + n)

    def test_interrupt_leaves_nothing(self):
        self.sparse(4096)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background, by what we start, too
        for number in (signal.SIGINT, signal.SIGTERM):
            run = subprocess.Popen([WTOOL, "convert", "big.safetensors", "--dtype", "bf16", "-o", "out.safetensors", "-j", "1"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.time() + 10
            while len(os.listdir(".")) == 1 and time.time() < deadline and run.poll() is None:
                time.sleep(0.005)
            time.sleep(0.05)
            run.send_signal(number)
            self.assertEqual(run.wait(timeout=20), -number)
            self.assertEqual(os.listdir("."), ["big.safetensors"])

    def test_killed_run_is_cleared_away_by_the_next(self):
        self.sparse(4096)
        run = subprocess.Popen([WTOOL, "convert", "big.safetensors", "--dtype", "bf16", "-o", "out.safetensors", "-j", "1"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 10
        while len(os.listdir(".")) == 1 and time.time() < deadline and run.poll() is None:
            time.sleep(0.005)
        run.kill()
        run.wait()
        self.assertNotIn("out.safetensors", os.listdir("."))
        self.assertEqual(len(os.listdir(".")), 2)
        self.model()
        self.run_wtool("convert", "m.safetensors", "-o", "out.safetensors")
        self.assertEqual(sorted(os.listdir(".")), ["big.safetensors", "m.safetensors", "out.safetensors"])

    def test_file_size_limit(self):
        self.model()
        before = sorted(os.listdir("."))
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))
        done = self.run_wtool("convert", "m.safetensors", "-o", "x.safetensors", code=4, preexec_fn=limit)
        self.assertIn(b"x.safetensors", done.stderr)
        self.assertEqual(sorted(os.listdir(".")), before)

    def test_full_disk(self):
        os.mkdir("small")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", "small"], capture_output=True).returncode:
            self.skipTest("needs the right to mount a tmpfs")
        try:
            self.model()
            done = self.run_wtool("convert", "m.safetensors", "-o", "small/x.safetensors", code=4)
            self.assertIn(b"free", done.stderr)
            self.assertEqual(os.listdir("small"), [])
        finally:
            subprocess.run(["umount", "small"], check=True)

    def test_no_such_folder(self):
        self.model()
        self.refused("convert", "m.safetensors", "-o", "no/such/x.safetensors", code=4, saying=["no/such/x.safetensors"])

    def test_full_standard_output(self):
        self.model()
        with open("/dev/full", "wb") as full:
            done = subprocess.run([WTOOL, "convert", "m.safetensors", "-o", "-"], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 4)

    # --- quantize ------------------------------------------------------------------------------

    def test_int8_and_int4_equal_the_reference(self):
        for bits, case, rows, columns in ((8, "ct_int8_packed_g128_f32_5x128", 5, 128),
                                          (4, "ct_int4_g128_sym_f32_16x256", 16, 256)):
            golden = SOURCE / "testdata/compressed_tensors" / case
            name = f"g{bits}.safetensors"
            write_safetensors(name, {"q.weight": ("F32", [rows, columns], read_npy(golden / "weight_f32.npy"))})
            self.run_wtool("quantize", f"--int{bits}", "--method", "rtn", name, "-o", f"o{bits}.safetensors")
            got, meta = read_safetensors(f"o{bits}.safetensors")
            self.assertEqual(got["q.weight_packed"], ("I32", [rows, columns * bits // 32], read_npy(golden / "weight_packed.npy")))
            self.assertEqual(got["q.weight_scale"], ("F32", [rows, columns // 128], read_npy(golden / "weight_scale.npy")))
            self.assertEqual(got["q.weight_shape"], ("I64", [2], struct.pack("<2q", rows, columns)))
            config = json.loads(meta["quantization_config"])
            self.assertEqual((config["quant_method"], config["format"]), ("compressed-tensors", "pack-quantized"))
            self.assertEqual(config["config_groups"]["group_0"]["weights"]["num_bits"], bits)

    def test_w8a8_equals_the_reference(self):
        golden = SOURCE / "testdata/compressed_tensors/ct_int8_channel_f32_33x100"
        write_safetensors("g.safetensors", {"q.weight": ("F32", [33, 100], read_npy(golden / "weight_f32.npy"))})
        self.run_wtool("quantize", "--w8a8", "--method", "rtn", "g.safetensors", "-o", "o.safetensors")
        got, _ = read_safetensors("o.safetensors")
        self.assertEqual(got["q.weight"], ("I8", [33, 100], read_npy(golden / "weight.npy")))
        self.assertEqual(got["q.weight_scale"], ("F32", [33, 1], read_npy(golden / "weight_scale.npy")))

    def test_gguf_blocks_equal_the_reference(self):
        data = SOURCE / "testdata/ggml"
        write_safetensors("i.safetensors", {"blk.0.ffn_up.weight": ("F32", [64, 512], (data / "input.f32").read_bytes())})
        self.run_wtool("convert", "i.safetensors", "-o", "i.gguf")
        for flag, kind, golden in (("--int8", "q8_0", "q8_0.bin"), ("--int4", "q4_0", "q4_0.bin")):
            self.run_wtool("quantize", flag, "i.gguf", "-o", "o.gguf", "-f")
            keys, tensors = read_gguf("o.gguf")
            self.assertEqual(tensors["blk.0.ffn_up.weight"], (kind, [64, 512], (data / golden).read_bytes()))
            self.assertEqual(keys["general.quantization_version"], (4, 2))

    def test_kept_tensors_are_listed_with_reasons(self):
        tensors = self.model(dtype="BF16")
        done = self.run_wtool("quantize", "--int8", "m.safetensors", "--json")
        report = json.loads(done.stdout)
        fate = {t["name"]: t for t in report["tensors"]}
        self.assertEqual({n: t.get("reason") for n, t in fate.items() if t["kept"]},
                         {"model.embed_tokens.weight": "embedding", "model.layers.0.input_layernorm.weight": "norm", "lm_head.weight": "head"})
        got, meta = read_safetensors("m.int8.safetensors")
        self.assertEqual(got["lm_head.weight"][2], tensors["lm_head.weight"][2])
        self.assertEqual(got["model.layers.0.mlp.up_proj.weight_scale"][0], "BF16")
        self.assertEqual(json.loads(meta["quantization_config"])["ignore"], ["lm_head"])
        row = fate["model.layers.0.mlp.up_proj.weight"]
        self.assertLess(row["rel_rmse"], 0.01)
        self.assertGreater(row["rel_rmse"], 0.003)
        self.assertAlmostEqual(row["sqnr_db"], -20 * math.log10(row["rel_rmse"]), 6)

    def test_the_error_table_tells_the_truth(self):
        """Decodes what was stored and measures again, in exact arithmetic of the test's own."""
        self.model()
        report = json.loads(self.run_wtool("quantize", "--int8", "m.safetensors", "--json").stdout)
        row = next(t for t in report["tensors"] if t["name"].endswith("up_proj.weight"))
        got, _ = read_safetensors("m.int8.safetensors")
        source = struct.unpack("<16384f", read_safetensors("m.safetensors")[0]["model.layers.0.mlp.up_proj.weight"][2])
        words = got["model.layers.0.mlp.up_proj.weight_packed"][2]
        scales = struct.unpack("<128f", got["model.layers.0.mlp.up_proj.weight_scale"][2])
        single = lambda v: struct.unpack("<f", struct.pack("<f", v))[0]
        stored = [single((words[i] - 128) * scales[i // 128]) for i in range(16384)]
        error2 = math.fsum((s - x) ** 2 for s, x in zip(stored, source))
        value2 = math.fsum(x * x for x in source)
        self.assertAlmostEqual(row["rel_rmse"] / math.sqrt(error2 / value2), 1, 6)
        dot = math.fsum(s * x for s, x in zip(stored, source))
        cos = dot / math.sqrt(value2 * math.fsum(s * s for s in stored))
        self.assertAlmostEqual(row["cos"], cos, 9)
        steps = max(abs(s - x) / scales[i // 128] for i, (s, x) in enumerate(zip(stored, source)))
        self.assertAlmostEqual(row["max_steps"], steps, 4)

    def test_folder_gets_its_config(self):
        os.mkdir("hf")
        self.model("hf/model.safetensors", dtype="BF16", cols=192)
        pathlib.Path("hf/config.json").write_text('{"architectures": ["X"], "hidden_size": 192}')
        said = self.run_wtool("quantize", "--int4", "hf/").stdout.decode()
        self.assertIn("192 columns do not divide into groups of 128", said)
        config = json.loads(pathlib.Path("hf-int4/config.json").read_text())
        self.assertEqual(list(config)[:2], ["architectures", "hidden_size"])
        q = config["quantization_config"]
        self.assertEqual(q["config_groups"]["group_0"]["weights"]["group_size"], 64)
        self.assertEqual(q["ignore"], ["lm_head"])

    def test_config_keeps_every_byte_that_is_not_asked_for(self):
        os.mkdir("hf")
        self.model("hf/model.safetensors", dtype="BF16")
        typed = '{\n    "eps": 1e-05, "x": 1.50,\n    "torch_dtype" : "bfloat16",\n    "l": [1,2,  3], "big": 12345678901234567890123, "u": "\\u00e9"'
        pathlib.Path("hf/config.json").write_text(typed + "\n}\n")
        self.run_wtool("quantize", "--int4", "hf/", "-o", "out/")
        config = pathlib.Path("out/config.json").read_text()
        self.assertTrue(config.startswith(typed + ',\n    "quantization_config": {\n        "quant_method"'), config)
        json.loads(config)
        self.run_wtool("convert", "out/", "--dtype", "f32", "-o", "back/")
        self.assertEqual(pathlib.Path("back/config.json").read_text(), typed.replace("bfloat16", "float32") + "\n}\n")

    def test_nf4_has_no_optimum(self):
        self.model()
        self.refused("quantize", "--nf4", "--method", "optimal", "m.safetensors", code=2, saying=["--method optimal is not for NF4", "--method search"])

    def test_options_that_would_do_nothing_are_refused(self):
        self.model()
        self.refused("quantize", "--fp8", "--asym", "m.safetensors", code=2, saying=["--asym is for integers"])
        self.refused("quantize", "--nvfp4", "--group-size", "64", "m.safetensors", code=2, saying=["--group-size is for integers"])
        self.refused("quantize", "--w8a8", "--signed-scales", "m.safetensors", code=2, saying=["--signed-scales is not for --w8a8"])
        self.refused("quantize", "--int8", "--asym", "m.safetensors", code=2, saying=["8 bits with zero points", "--scheme gptq"])
        self.assertIn("int8", self.run_wtool("quantize", "--fp8", "--group-size", "64", "-T", "up_proj=int8", "m.safetensors", "-n").stdout.decode())

    def test_a_plan_of_nothing_is_refused_too(self):
        self.model()
        for dry in ([], ["-n"]):
            self.refused("quantize", "--int4", "-T", "*=keep", "m.safetensors", *dry, code=2, saying=["nothing to quantize"])
        self.run_wtool("quantize", "--int4", "m.safetensors", "-o", "q.safetensors")
        self.refused("quantize", "--int4", "q.safetensors", code=2, saying=["already quantized", "wtool convert --dtype bf16"])

    def test_nan_commits_nothing(self):
        values = noise(256 * 64)
        values[300] = math.nan
        values[301] = math.inf
        write_safetensors("v.safetensors", {"q.weight": ("F32", [64, 256], floats(values))})
        self.refused("quantize", "--int8", "v.safetensors", code=3, saying=["'q.weight'", "2 NaN or infinite", "[1, 44]", "element 300"])
        self.run_wtool("convert", "v.safetensors", "-o", "v.gguf")
        self.refused("quantize", "--int8", "v.gguf", code=3, saying=["'q.weight'", "2 NaN or infinite", "element 300"])

    def test_rules_and_gates(self):
        self.model()
        report = json.loads(self.run_wtool("quantize", "--int4", "m.safetensors", "-T", "*=keep", "-T", "up_proj=int8", "--json", "-n").stdout)
        self.assertEqual([t["name"] for t in report["tensors"] if t["encoded"]], ["model.layers.0.mlp.up_proj.weight"])
        self.assertIn("int8", next(t["to"] for t in report["tensors"] if t["encoded"]))
        self.refused("quantize", "--int8", "m.safetensors", "-T", "up_prjo=keep", code=2, saying=["up_prjo"])
        before = sorted(os.listdir("."))
        said = self.run_wtool("quantize", "--int4", "m.safetensors", "--gate", "max(rel_rmse) <= 0.01", code=1).stdout.decode()
        self.assertIn("FAILED", said)
        self.assertIn("up_proj", said)
        self.assertEqual(sorted(os.listdir(".")), before)
        self.run_wtool("quantize", "--int4", "m.safetensors", "--gate", "max(rel_rmse) <= 0.2")

    def test_dry_run_says_the_exact_size_and_writes_nothing(self):
        self.model()
        for flags in (["--int8"], ["--int4"], ["--bf16"], ["--w8a8"]):
            before = sorted(os.listdir("."))
            plan = json.loads(self.run_wtool("quantize", *flags, "m.safetensors", "-n", "--json").stdout)
            self.assertEqual(sorted(os.listdir(".")), before)
            self.run_wtool("quantize", *flags, "m.safetensors")
            self.assertEqual(plan["output"]["bytes"], os.path.getsize(plan["output"]["path"]))

    def test_same_bytes_whatever_the_threads_and_instructions(self):
        self.model(rows=700, cols=1024)
        self.run_wtool("convert", "m.safetensors", "-o", "m.gguf")
        for source, flag in (("m.safetensors", "--int8"), ("m.safetensors", "--int4"), ("m.safetensors", "--bf16"), ("m.gguf", "--int8"), ("m.gguf", "--int4")):
            seen = set()
            for threads in ("1", "2", "7"):
                for simd in ("scalar", "sse4", "avx2", "avx512"):
                    done = self.run_wtool("quantize", flag, source, "-f", "-j", threads, "-o", "o" + source[1:], "--json",
                                          env={**os.environ, "WTOOL_SIMD": simd})
                    seen.add((hashlib.sha256(pathlib.Path("o" + source[1:]).read_bytes()).hexdigest(), done.stdout))
            self.assertEqual(len(seen), 1, (source, flag))

    def test_quantized_again_is_refused(self):
        self.model()
        self.run_wtool("quantize", "--int8", "m.safetensors")
        self.refused("quantize", "--int4", "m.int8.safetensors", code=2, saying=["nothing to quantize"])
        self.run_wtool("convert", "m.safetensors", "-o", "blk.gguf", "--rename", "^model.layers=blk")
        self.run_wtool("quantize", "--int8", "blk.gguf")
        self.refused("quantize", "--int4", "blk-int8.gguf", code=2, saying=["q8_0 already", "--requantize"])

    def test_back_to_plain(self):
        self.model()
        self.run_wtool("quantize", "--int8", "m.safetensors")
        self.run_wtool("convert", "m.int8.safetensors", "--dtype", "f32", "-o", "p.safetensors")
        got, meta = read_safetensors("p.safetensors")
        self.assertEqual(got["model.layers.0.mlp.up_proj.weight"][:2], ("F32", [64, 256]))
        self.assertNotIn("quantization_config", meta)

    def test_report_file(self):
        self.model()
        self.run_wtool("quantize", "--int8", "m.safetensors", "--report", "r.json")
        report = json.loads(pathlib.Path("r.json").read_text())
        self.assertEqual(report["schema"], "wtool.quantize/1")

    def test_a_report_replaces_nothing_unasked(self):
        self.model()
        pathlib.Path("notes.txt").write_text("mine")
        before = pathlib.Path("m.safetensors").read_bytes()
        for taken in ("m.safetensors", "./o.safetensors", "notes.txt"):
            self.refused("convert", "m.safetensors", "-o", "o.safetensors", "--report", taken, code=2)
        self.refused("convert", "m.safetensors", "-o", "o.safetensors", "-f", "--report", "m.safetensors", code=2)
        self.assertEqual(pathlib.Path("m.safetensors").read_bytes(), before)
        self.assertEqual(pathlib.Path("notes.txt").read_text(), "mine")

    def test_a_rule_that_cannot_be_kept_is_refused(self):
        write_safetensors("m.safetensors", {"odd.weight": ("F32", [4, 33], floats(noise(132))), "ok.weight": ("F32", [4, 128], floats(noise(512)))})
        self.refused("quantize", "--int8", "m.safetensors", "-T", "odd.weight=int8", code=2, saying=["'odd.weight'", "33", "--fallback"])
        self.run_wtool("quantize", "--int8", "m.safetensors", "-T", "odd.weight=int8", "--fallback")

    def test_a_link_is_replaced_and_its_target_left_alone(self):
        self.model()
        pathlib.Path("blob").write_text("another's")
        os.symlink("blob", "out.safetensors")
        self.refused("convert", "m.safetensors", "-o", "out.safetensors", code=2)
        self.run_wtool("convert", "m.safetensors", "-f", "-o", "out.safetensors")
        self.assertEqual(pathlib.Path("blob").read_text(), "another's")
        self.assertEqual(pathlib.Path("out.safetensors").read_bytes(), pathlib.Path("m.safetensors").read_bytes())

    def quantized_folder(self):
        os.mkdir("hf")
        self.model("hf/model.safetensors", dtype="BF16")
        pathlib.Path("hf/config.json").write_text("{}")
        self.run_wtool("quantize", "--int8", "hf")

    def test_a_quantized_folder_keeps_its_config_in_one_file(self):
        self.quantized_folder()
        said = self.run_wtool("convert", "hf-int8", "-o", "one.safetensors").stdout.decode()
        self.assertIn("config.json", said)
        config = json.loads(read_safetensors("one.safetensors")[1]["quantization_config"])
        self.assertEqual(config, json.loads(pathlib.Path("hf-int8/config.json").read_text())["quantization_config"])
        report = json.loads(self.run_wtool("convert", "hf-int8", "-o", "x.safetensors", "-n", "--json").stdout)
        self.assertEqual(report["totals"]["parameters"], 64 * 256 + 2 * 32 * 256 + 256)

    def test_what_would_break_a_quantized_model_is_refused(self):
        self.quantized_folder()
        self.refused("convert", "hf-int8", "--rename", "layers=blk", "-o", "r/", code=2, saying=["quantization_config"])
        self.refused("convert", "hf-int8", "--as-is", "-o", "r.gguf", code=2, saying=["compressed-tensors", "--dtype"])
        self.run_wtool("convert", "hf-int8", "--as-is", "--dtype", "f16", "--rename", "layers=blk", "-o", "r.gguf")

    def test_rename_collisions_are_all_named(self):
        write_safetensors("m.safetensors", {k: ("F32", [1], floats([1])) for k in ("a", "b", "c", "d")})
        error = self.refused("convert", "m.safetensors", "-o", "x.safetensors", "--rename", "^[ab]$=x", "--rename", "^[cd]$=y", code=2)
        for name in ("'a'", "'b'", "'c'", "'d'", "'x'", "'y'"):
            self.assertIn(name, error)

    def test_a_slip_in_a_type_is_no_key(self):
        self.model()
        self.refused("convert", "m.safetensors", "-o", "x.gguf", "--set", "n:u33=5", code=2, saying=["u33"])
        self.run_wtool("convert", "m.safetensors", "-o", "x.gguf", "--set", "n:u33:str=5")
        self.assertEqual(read_gguf("x.gguf")[0]["n:u33"], (8, "5"))

    def test_file_type_follows_a_cast(self):
        self.model()
        self.run_wtool("convert", "m.safetensors", "-o", "m.gguf", "--set", "general.file_type:u32=0")
        self.run_wtool("convert", "m.gguf", "--dtype", "f16", "-o", "h.gguf")
        self.assertEqual(read_gguf("h.gguf")[0]["general.file_type"], (4, 1))

    def test_only_names_of_norms_are_norms(self):
        tensors = {n: ("F32", [128, 128], floats(noise(128 * 128))) for n in ("normal.weight", "renormalize.weight", "embedder_down.weight", "q_norm.weight", "tok_embeddings.weight")}
        write_safetensors("m.safetensors", tensors)
        report = json.loads(self.run_wtool("quantize", "--int8", "m.safetensors", "-n", "--json").stdout)
        self.assertEqual({t["name"]: t.get("reason") for t in report["tensors"] if t["kept"]}, {"q_norm.weight": "norm", "tok_embeddings.weight": "embedding"})

    def test_read_only_file_system(self):
        os.mkdir("ro")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", "ro"], capture_output=True).returncode:
            self.skipTest("needs the right to mount a tmpfs")
        try:
            self.model()
            self.refused("convert", "m.safetensors", "-o", "ro/x.safetensors", code=4, saying=["ro/x.safetensors"])
        finally:
            subprocess.run(["umount", "ro"], check=True)

    def test_memory_stays_bounded(self):
        if b"__asan_init" in pathlib.Path(WTOOL).read_bytes():
            self.skipTest("a sanitizer keeps freed memory")
        self.sparse(512)
        # Resident pages of a process that has ended include file pages it mapped; wtool maps none.
        code = ("import resource,subprocess,sys;"
                "subprocess.run(sys.argv[1:],check=True,stdout=subprocess.DEVNULL);"
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
        for job in (["convert", "big.safetensors", "--dtype", "bf16", "-o", "o.safetensors", "-f"],
                    ["quantize", "--int8", "big.safetensors", "-o", "o.safetensors", "-f"]):
            done = subprocess.run([sys.executable, "-c", code, WTOOL, *job, "-j", "2"], capture_output=True, check=True)
            self.assertLess(int(done.stdout), (2 * 16 + 64) * 1024)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
