#!/usr/bin/env python3
"""compress and decompress: every type, both forms, differences, damage; and other commands on compressed files.

usage: compress_test.py WTOOL     (Python's standard library only; parts are left out where there is no zstd program)
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import unittest

from compressed_files import (CHUNK, ZSTD, Compressed, blocks, contents, decoded, gaussian, hard_gguf, hard_npy,
                              hard_safetensors, large_safetensors, npy, special, xxh64, zstd)
from weight_files import TYPES, U32, Command, floats, gguf, read_safetensors, write_safetensors

FORMS = ("--plain", "--planes")
needs_zstd = unittest.skipUnless(ZSTD, "no zstd program")


def sha(raw):
    return hashlib.sha256(raw).hexdigest()


def read(path):
    return pathlib.Path(path).read_bytes()


def write(path, raw):
    pathlib.Path(path).write_bytes(raw)


MODEL = {"layers.0.up.weight": ("BF16", [64, 96], gaussian("BF16", 64 * 96, seed=5)),
         "layers.0.norm.weight": ("F32", [65], gaussian("F32", 65, seed=6)),
         "layers.1.up.weight": ("F16", [64, 96], gaussian("F16", 64 * 96, seed=7)),
         "ids": ("I64", [130], struct.pack("<130q", *range(130))),
         "head.weight": ("F32", [300, 7], gaussian("F32", 2100, seed=8))}


def tuned(kind, raw, every=3):
    """The numbers with some of them a few steps away: what training a little more does."""
    width = {"BF16": 2, "F16": 2, "F32": 4}[kind]
    out, rng = bytearray(raw), random.Random(9)
    for i in range(0, len(raw) // width, every):
        at = slice(i * width, (i + 1) * width)
        number = int.from_bytes(out[at], "little")
        out[at] = ((number + rng.randrange(-2, 3)) % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(out)


class Compress(Command):
    def packed(self, path, *options, to="packed.zst"):
        self.wtool("compress", path, "-o", to, "-f", *options)
        return Compressed(to)

    def round_trip(self, path, *options):
        """Both forms of a file, and what they are to zstd."""
        original = read(path)
        for form in FORMS:
            file = self.packed(path, form, *options)
            self.assertEqual(file.index["form"], form[2:])
            self.assertEqual(file.index["source"], {"name": os.path.basename(path), "bytes": len(original), "sha256": sha(original)})
            self.wtool("decompress", "packed.zst", "-o", "again", "-f")
            self.assertEqual(read("again"), original, f"{path} {form}")
            if ZSTD:
                zstd("-tq", "packed.zst")
                stream = decoded("packed.zst")
                if form == "--plain":
                    self.assertEqual(stream, original, path)
                else:  # all of it: a sound safetensors file of bytes under other names
                    self.assertEqual(sum(content for _, _, content, _ in file.frames), len(stream))
                    write("planes.safetensors", stream)
                    self.assertEqual({kind for kind, _, _ in read_safetensors(stream).values()}, {"U8"})
                    self.wtool("inspect", "planes.safetensors")


class RoundTrip(Compress):
    def test_every_type_of_safetensors_and_every_content(self):
        write_safetensors("m.safetensors", hard_safetensors(), {"format": "pt"})
        self.round_trip("m.safetensors")

    def test_each_type_alone_with_its_own_codec(self):
        # In one large model tensors that are the same are stored once; here nothing hides behind another.
        for kind in ("BF16", "F32", "F16", "F64", "I32", "U8", "C64"):
            for sort in ("mixed", "nan", "subnormal", "extreme", "random", "equal"):
                if kind not in ("BF16", "F32", "F16", "F64") and sort not in ("random", "equal"):
                    continue
                if kind == "F64" and sort == "mixed":
                    continue
                raw = contents(kind, sort, 8 * 1001)
                write_safetensors("m.safetensors", {"t": (kind, [len(raw) // {"C64": 8, "F64": 8, "U8": 1, "BF16": 2, "F16": 2}.get(kind, 4)], raw)})
                self.round_trip("m.safetensors")

    def test_tensors_of_several_chunks(self):
        write_safetensors("m.safetensors", large_safetensors())
        self.round_trip("m.safetensors")

    def test_chunks_of_exactly_their_size_and_one_more(self):
        raw = gaussian("BF16", CHUNK // 2 + 1)
        for elements in (CHUNK // 2 - 1, CHUNK // 2, CHUNK // 2 + 1):
            write_safetensors("m.safetensors", {"t": ("BF16", [elements], raw[: 2 * elements])})
            self.round_trip("m.safetensors")
            frames = self.packed("m.safetensors", "--planes").frames_of("t")
            self.assertEqual(len(frames), 3 * (1 + (elements > CHUNK // 2)))

    def test_every_type_of_gguf(self):
        for align in (32, 64, 1):
            write("m.gguf", gguf(hard_gguf(TYPES), {"general.alignment": (U32, align)}))
            self.round_trip("m.gguf")

    def test_a_tail_that_no_block_divides(self):
        # Padding is packed with the tensor in front of it.
        for kind, (_, elements, size) in ((n, t) for n, t in ((t[0], t) for t in TYPES.values())):
            write("m.gguf", gguf({"a": (kind, [3, elements], blocks(kind, 3, size)), "b": ("f32", [3], b"123456789012")},
                                 {"general.alignment": (U32, 1024)}))
            self.round_trip("m.gguf")

    def test_every_type_of_npy(self):
        os.mkdir("arrays")
        for name, raw in hard_npy().items():
            write(f"arrays/{name}.npy", raw)
        for form in FORMS:
            self.wtool("compress", "arrays", form, "-f")
            self.wtool("decompress", "arrays-zst", "-o", "again", "-f")
            for name, raw in hard_npy().items():
                self.assertEqual(read(f"again/{name}.npy"), raw, name)
            packed = sorted(os.listdir("arrays-zst"))
            self.assertEqual(packed, sorted(f"{name}.npy.zst" for name in hard_npy()))
            if ZSTD:
                zstd("-tq", *(f"arrays-zst/{name}" for name in packed))

    def test_files_without_tensors_or_data(self):
        write_safetensors("none.safetensors", {}, {"a": "b"})
        write_safetensors("empty.safetensors", {"a": ("F32", [0, 4], b""), "b": ("BF16", [0], b"")})
        write("none.gguf", gguf({}, {"k": (U32, 7)}))
        for path in ("none.safetensors", "empty.safetensors", "none.gguf"):
            self.round_trip(path)

    def test_names_of_every_kind(self):
        names = ["a#b", "a", "a#bf16", "wtool.bytes.0", "ü/../\t\n\"\\", "__meta__", "x" * 5000, "日本語"]
        write_safetensors("m.safetensors", {n: ("BF16", [50], gaussian("BF16", 50, seed=i)) for i, n in enumerate(names)})
        self.round_trip("m.safetensors")
        # A name that is no text: it is the file's, so the index has a piece without one.
        path = os.fsdecode(b"bad\xff.npy")
        write(path, hard_npy()["f4.1.2049"])
        for form in FORMS:
            self.wtool("compress", path, form, "-f")
            packed = Compressed(path + ".zst")
            self.assertEqual([p.get("tensor") for p in packed.pieces()], [None, None])
            self.assertEqual(packed.index["source"]["name"], "bad\ufffd.npy")
            self.wtool("decompress", path + ".zst", "-f")
            self.assertEqual(read(path), hard_npy()["f4.1.2049"])

    def test_the_checksums_are_those_of_the_contents(self):
        write_safetensors("m.safetensors", MODEL)
        for form in FORMS:
            file = self.packed("m.safetensors", form)
            for at, stored, content, checksum in file.frames[:-1]:
                frame = file.raw[at : at + stored]
                self.assertEqual(struct.unpack("<I", frame[-4:])[0], checksum)
                if ZSTD:
                    out = zstd("-dcq", input=frame)
                    self.assertEqual((len(out), xxh64(out) & 0xFFFFFFFF), (content, checksum))

    def test_the_index_says_what_is_in_the_file(self):
        write_safetensors("m.safetensors", MODEL)
        original = read("m.safetensors")
        for form in FORMS:
            file = self.packed("m.safetensors", form)
            at = 0
            for piece in file.pieces():
                self.assertEqual(piece["offset"], at)
                at += piece["bytes"]
                if "tensor" in piece:
                    kind, shape, raw = MODEL[piece["tensor"]]
                    self.assertEqual((piece["dtype"], piece["shape"], piece["sha256"], piece["tensor_bytes"]),
                                     (kind.lower(), shape, sha(raw), len(raw)))
                    self.assertEqual(original[piece["offset"] :][: len(raw)], raw)
            self.assertEqual(at, len(original))


class Choices(Compress):
    def test_the_sizes_that_weights_allow(self):
        # Of a normal distribution: reference values from its entropy, with room for headers and samples.
        for kind, most in (("BF16", 0.67), ("F32", 0.84), ("F16", 0.86)):
            write_safetensors("m.safetensors", {"t": (kind, [CHUNK], gaussian(kind, CHUNK))})
            done = json.loads(self.wtool("compress", "m.safetensors", "--json", "-f").stdout)
            self.assertEqual(done["files"][0]["form"], "planes")
            self.assertEqual(done["packed_bytes"], os.path.getsize("m.safetensors.zst"))
            self.assertLess(done["packed_bytes"], most * os.path.getsize("m.safetensors"))

    def test_repetitions_are_found_where_there_are_some(self):
        write_safetensors("m.safetensors", {"t": ("U8", [90_000], b"weights, " * 10_000)})
        for form in FORMS:
            self.assertLess(len(self.packed("m.safetensors", form).raw), 3000)

    def test_what_cannot_be_smaller_hardly_grows(self):
        write_safetensors("m.safetensors", {"t": ("BF16", [CHUNK], random.Random(1).randbytes(2 * CHUNK))})
        for form in FORMS:
            file = self.packed("m.safetensors", form)
            self.assertLess(len(file.raw), 1.001 * os.path.getsize("m.safetensors") + 2000)
            self.assertEqual(file.codecs(), {"t": "bytes"})

    def test_the_form_follows_the_sample(self):
        write_safetensors("b.safetensors", {"t": ("BF16", [9000], gaussian("BF16", 9000))})
        self.assertEqual(self.packed("b.safetensors").index["form"], "planes")
        write_safetensors("u.safetensors", {"t": ("U8", [9000], contents("U8", "few", 9000))})
        self.assertEqual(self.packed("u.safetensors").index["form"], "plain")

    def test_a_dry_run_estimates_and_writes_nothing(self):
        write_safetensors("m.safetensors", large_safetensors())
        before = sorted(os.listdir("."))
        for form in FORMS:
            said = json.loads(self.wtool("compress", "-n", form, "--json", "m.safetensors").stdout)
            self.assertTrue(said["dry_run"])
            self.assertEqual(sorted(os.listdir(".")), before)
            real = len(self.packed("m.safetensors", form, to="p.zst").raw)
            self.assertAlmostEqual(said["packed_bytes"] / real, 1, delta=0.02)
            self.assertEqual(said["packed_bytes"], said["files"][0]["estimates"][form[2:]])
            os.remove("p.zst")

    def test_tied_tensors_are_stored_once(self):
        raw = gaussian("BF16", 40_000)
        write_safetensors("one.safetensors", {"embed": ("BF16", [400, 100], raw)})
        write_safetensors("two.safetensors", {"embed": ("BF16", [400, 100], raw), "near": ("BF16", [400, 100], b"\0" + raw[1:]),
                                              "other type": ("I16", [40_000], raw), "head": ("BF16", [100, 400], raw)})
        file = self.packed("two.safetensors", "--planes")
        how = file.codecs()
        self.assertEqual((how["embed"], how["near"], how["head"]), ("bf16", "bf16", "same_as"))
        self.assertEqual([p["same_as"] for p in file.pieces() if "same_as" in p], ["embed"])
        self.wtool("decompress", "packed.zst", "-o", "again")
        self.assertEqual(read("again"), read("two.safetensors"))
        one = len(self.packed("one.safetensors", "--planes").raw)
        self.assertLess(len(file.raw), 3.7 * one)  # of four tensors three are stored, one of them less well

    def test_what_differs_between_the_samples_is_seen(self):
        # Samples are 64 KiB at the start, at the end and twice between them.
        raw = gaussian("BF16", CHUNK)
        other = raw[:300_000] + bytes([raw[300_000] ^ 1]) + raw[300_001:]
        write_safetensors("m.safetensors", {"a": ("BF16", [CHUNK], raw), "b": ("BF16", [CHUNK], other), "c": ("BF16", [CHUNK], raw)})
        how = self.packed("m.safetensors", "--planes").codecs()
        self.assertEqual(how, {"a": "bf16", "b": "bf16", "c": "same_as"})
        self.wtool("decompress", "packed.zst", "-o", "again", "-f")
        self.assertEqual(read("again"), read("m.safetensors"))
        write_safetensors("base.safetensors", {"a": ("BF16", [CHUNK], other), "b": ("BF16", [CHUNK], other)})
        how = self.packed("m.safetensors", "--base", "base.safetensors").codecs()
        self.assertEqual((how["a"], how["b"]), ("delta16", "same_as_base"))
        self.wtool("decompress", "packed.zst", "--base", "base.safetensors", "-o", "again", "-f")
        self.assertEqual(read("again"), read("m.safetensors"))

    def test_planes_are_worth_two_points(self):
        seen = set()
        for floats_of_it in range(0, 30_000, 3000):
            rest = random.Random(1).randbytes(2 * (30_000 - floats_of_it))
            write_safetensors("m.safetensors", {"f": ("BF16", [floats_of_it], gaussian("BF16", floats_of_it)), "r": ("U8", [len(rest)], rest)})
            said = json.loads(self.wtool("compress", "-n", "--json", "m.safetensors").stdout)["files"][0]
            points = 100 * (said["estimates"]["plain"] - said["estimates"]["planes"]) / said["bytes"]
            self.assertEqual(said["form"], "planes" if points > 2 else "plain", points)
            seen.add((points > 1, points > 2))
        self.assertEqual(seen, {(False, False), (True, False), (True, True)})

    def test_what_is_not_stored_is_not_estimated(self):
        raw = gaussian("BF16", 200_000)
        write_safetensors("m.safetensors", {n: ("BF16", [len(raw) // 2], raw) for n in "abcd"})
        write_safetensors("base.safetensors", {"d": ("BF16", [len(raw) // 2], raw)})
        for options, stored in ((["--planes"], 1), (["--base", "base.safetensors"], 1)):
            said = json.loads(self.wtool("compress", "-n", "--json", "m.safetensors", *options).stdout)
            self.assertAlmostEqual(said["packed_bytes"] / len(raw), 0.67 * stored, delta=0.03)

    def test_tied_tensors_with_padding_behind_them(self):
        # The last of them lies in front of padding, the first not, and the reverse.
        raw = gaussian("F32", 1003)
        write("m.gguf", gguf({"a": ("f32", [1003], raw), "b": ("f32", [17, 59], raw), "c": ("f32", [1003], raw)},
                             {"general.alignment": (U32, 4)}))
        for align in (4, 64):
            write("m.gguf", gguf({"a": ("f32", [1003], raw), "b": ("f32", [17, 59], raw), "c": ("f32", [1003], raw)},
                                 {"general.alignment": (U32, align)}))
            self.round_trip("m.gguf")
        raw = gaussian("F32", 1008)
        write("m.gguf", gguf({"a": ("f32", [1008], raw), "b": ("i8", [3], b"123"), "c": ("f32", [1008], raw)}, {}))
        self.round_trip("m.gguf")
        self.assertEqual(Compressed("packed.zst").codecs()["c"], "same_as")

    def test_tied_blocks_of_several_chunks(self):
        # Chunks are whole blocks, so a little less than a MiB.
        raw = blocks("q8_0", 1000, 34) * 40
        write("m.gguf", gguf({"a": ("q8_0", [40, 32_000], raw), "b": ("q8_0", [40, 32_000], raw), "c": ("q8_0", [1, 32], raw[-34:])}, {}))
        file = self.packed("m.gguf", "--planes")
        self.assertEqual(file.codecs(), {"a": "columns", "b": "same_as", "c": file.codecs()["c"]})
        self.wtool("decompress", "packed.zst", "-o", "again")
        self.assertEqual(read("again"), read("m.gguf"))
        self.wtool("diff", "packed.zst", "m.gguf")

    def test_every_number_of_threads_gives_the_same_bytes(self):
        tensors = large_safetensors()
        write_safetensors("m.safetensors", tensors)
        write_safetensors("base.safetensors", {n: (k, s, tuned(k, raw) if k in ("BF16", "F16", "F32") else raw)
                                               for n, (k, s, raw) in tensors.items()})
        for options in (["--plain"], ["--planes"], ["--base", "base.safetensors"]):
            files = {self.packed("m.safetensors", *options, f"-j{j}").raw for j in (1, 2, 7)}
            self.assertEqual(len(files), 1, options)
        for j in (1, 2, 7):
            self.wtool("decompress", "packed.zst", "--base", "base.safetensors", f"-j{j}", "-o", "again", "-f")
            self.assertEqual(read("again"), read("m.safetensors"))

    def test_instruction_sets_give_the_same_bytes(self):
        write_safetensors("m.safetensors", large_safetensors())
        files = set()
        for simd in ("scalar", "sse4", "avx2", "avx512"):
            os.environ["WTOOL_SIMD"] = simd
            try:
                files.add(self.packed("m.safetensors", "--planes").raw)
                self.wtool("decompress", "packed.zst", "-o", "again", "-f")
            finally:
                del os.environ["WTOOL_SIMD"]
            self.assertEqual(read("again"), read("m.safetensors"))
        self.assertEqual(len(files), 1)


class Differences(Compress):
    def setUp(self):
        super().setUp()
        write_safetensors("base.safetensors", MODEL, {"format": "pt"})
        self.model = dict(MODEL)
        for name in ("layers.0.up.weight", "layers.1.up.weight", "head.weight"):
            kind, shape, raw = MODEL[name]
            self.model[name] = (kind, shape, tuned(kind, raw))
        write_safetensors("tuned.safetensors", self.model, {"format": "pt", "tuned": "yes"})

    def restored(self, base, path="tuned.safetensors"):
        self.wtool("decompress", "packed.zst", "--base", base, "-o", "again", "-f")
        self.assertEqual(read("again"), read(path))
        if ZSTD:
            zstd("-tq", "packed.zst")

    def test_changed_tensors_are_differences_and_others_nothing(self):
        file = self.packed("tuned.safetensors", "--base", "base.safetensors")
        self.assertEqual(file.codecs(), {"layers.0.up.weight": "delta16", "layers.0.norm.weight": "same_as_base",
                                         "layers.1.up.weight": "delta16", "ids": "same_as_base", "head.weight": "delta32"})
        raw = read("base.safetensors")
        self.assertEqual(file.index["base"], [{"name": "base.safetensors", "bytes": len(raw), "sha256": sha(raw)}])
        self.assertLess(len(file.raw), len(self.packed("tuned.safetensors", to="alone.zst").raw) / 2)
        self.packed("tuned.safetensors", "--base", "base.safetensors")
        self.restored("base.safetensors")
        rows = json.loads(self.wtool("compress", "tuned.safetensors", "--base", "base.safetensors", "--json").stdout)["files"][0]["pieces"]
        self.assertEqual({r["tensor"] for r in rows if r["packed_bytes"] == 0}, {"layers.0.norm.weight", "ids"})

    def test_a_model_that_is_its_base_takes_no_more_than_its_header(self):
        file = self.packed("base.safetensors", "--base", "base.safetensors")
        self.assertEqual(set(file.codecs().values()), {"same_as_base"})
        self.restored("base.safetensors", "base.safetensors")

    def test_a_base_is_used_however_little_it_saves(self):
        noise = random.Random(1).randbytes(100_000)
        write_safetensors("mostly.safetensors", {"new": ("U8", [len(noise)], noise), "ids": MODEL["ids"]})
        file = self.packed("mostly.safetensors", "--base", "base.safetensors")
        self.assertEqual(file.codecs(), {"new": "bytes", "ids": "same_as_base"})
        self.restored("base.safetensors", "mostly.safetensors")

    def test_of_large_tensors_that_equal_the_base_nothing_is_too_many(self):
        size = 400 << 20  # 65536 times as much as the file, and more
        head = json.dumps({"t": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        with open("large.safetensors", "wb") as f:
            f.write(struct.pack("<Q", len(head)) + head)
            f.truncate(8 + len(head) + size)
        self.wtool("compress", "large.safetensors", "--base", "large.safetensors")
        self.wtool("decompress", "large.safetensors.zst", "--base", "large.safetensors", "-n", "-o", "back.safetensors")
        self.wtool("inspect", "large.safetensors.zst")

    def test_tied_tensors_of_any_size_can_be_read_again(self):
        size, n = 48 << 20, 40
        head = json.dumps({f"t{i}": {"dtype": "U8", "shape": [size], "data_offsets": [i * size, (i + 1) * size]} for i in range(n)}).encode()
        with open("large.safetensors", "wb") as f:
            f.write(struct.pack("<Q", len(head)) + head)
            f.truncate(8 + len(head) + n * size)
        self.wtool("compress", "--planes", "large.safetensors")
        self.wtool("inspect", "large.safetensors.zst")

    def test_what_does_not_match_is_stored_alone(self):
        other = dict(self.model)
        other["head.weight"] = ("F32", [7, 300], self.model["head.weight"][2])
        other["layers.1.up.weight"] = ("BF16", [64, 96], gaussian("BF16", 64 * 96, seed=11))
        other["layers.0.norm.weight"] = ("I32", [65], self.model["layers.0.norm.weight"][2])
        other["new"] = ("F32", [500], gaussian("F32", 500, seed=12))
        other["ids"] = ("I64", [130], struct.pack("<130q", *range(1, 131)))
        write_safetensors("other.safetensors", other)
        how = self.packed("other.safetensors", "--base", "base.safetensors").codecs()
        for name in ("head.weight", "layers.1.up.weight", "layers.0.norm.weight", "new", "ids"):
            self.assertNotIn(how[name], ("delta16", "delta32", "same_as_base"), name)
        self.restored("base.safetensors", "other.safetensors")

    def test_a_base_without_a_single_match_is_no_base(self):
        write_safetensors("strange.safetensors", {"x": ("F32", [2], b"12345678")})
        error = self.refused("compress", "tuned.safetensors", "--base", "strange.safetensors", saying=["strange.safetensors"])
        self.assertIn("no tensor", error)

    def test_bits_of_every_sort_have_differences(self):
        n = 3001
        base, model = {}, {}
        for kind in ("BF16", "F16", "F32"):
            for a in ("random", "nan", "subnormal", "extreme", "gaussian", "zeros"):
                for b in ("random", "nan", "extreme", "gaussian"):
                    width = 4 if kind == "F32" else 2
                    base[f"{kind} {a} {b}"] = (kind, [n], contents(kind, a, n * width, seed=20))
                    model[f"{kind} {a} {b}"] = (kind, [n], contents(kind, b, n * width, seed=21)[: n * width - 2] + b"\x80\x7f")
            # All 16-bit numbers against all of them, moved by one and by half of them.
            if kind != "F32":
                every = struct.pack("<65536H", *range(65536))
                for by in (1, 2, 32768, 65535):
                    base[f"{kind} {by}"] = (kind, [65536], every)
                    model[f"{kind} {by}"] = (kind, [65536], struct.pack("<65536H", *((i + by) % 65536 for i in range(65536))))
        write_safetensors("b.safetensors", base)
        write_safetensors("m.safetensors", model)
        how = self.packed("m.safetensors", "--base", "b.safetensors").codecs()
        self.assertEqual({how[f"{k} {by}"] for k in ("BF16", "F16") for by in (1, 2)}, {"delta16"})
        self.restored("b.safetensors", "m.safetensors")

    def test_padding_behind_a_difference(self):
        for align in (32, 128, 8192):
            keys = {"general.alignment": (U32, align)}
            lower = lambda model: {n: (k.lower(), s, raw) for n, (k, s, raw) in model.items()}
            write("base.gguf", gguf(lower(MODEL), keys))
            write("tuned.gguf", gguf(lower(self.model), keys))
            # From its own container and from another one.
            for base in ("base.gguf", "base.safetensors"):
                how = self.packed("tuned.gguf", "--base", base).codecs()
                self.assertEqual((how["layers.0.up.weight"], how["head.weight"]), ("delta16", "delta32"))
                self.restored(base, "tuned.gguf")

    def test_numbers_in_another_order_have_no_counterpart(self):
        raw = gaussian("F32", 33 * 3)
        arrays = {"little": npy("<f4", [33, 3], raw), "big": npy(">f4", [33, 3], raw), "columns": npy("<f4", [33, 3], raw, fortran=True)}
        for name, array in arrays.items():
            os.mkdir(name)
            write(f"{name}/x.npy", array)
        self.wtool("compress", "little/x.npy", "--base", "little/x.npy", "-o", "packed.zst")
        for name in ("big", "columns"):
            self.refused("compress", "little/x.npy", "--base", f"{name}/x.npy", "-o", "x", saying=["no tensor"])
            self.refused("compress", f"{name}/x.npy", "--base", "little/x.npy", "-o", "x", saying=["no tensor"])

    def shards(self):
        os.mkdir("shards")
        names, where = list(MODEL), {}
        for i, part in enumerate((names[:2], names[2:]), 1):
            file = f"model-0000{i}-of-00002.safetensors"
            write_safetensors(f"shards/{file}", {n: MODEL[n] for n in part})
            where.update({n: file for n in part})
        write("shards/model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": where}).encode())
        return [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]

    def test_a_base_of_shards(self):
        files = self.shards()
        for base in ("shards", f"shards/{files[1]}"):
            file = self.packed("tuned.safetensors", "--base", base)
            self.assertEqual({b["name"]: b["sha256"] for b in file.index["base"]}, {f: sha(read(f"shards/{f}")) for f in files})
            self.restored("shards")
            self.restored(f"shards/{files[0]}")
        # The same model in one file is not the same files.
        self.refused("decompress", "packed.zst", "--base", "base.safetensors", "-o", "x", saying=["another base"], code=3)
        # One shard changed where nothing is read from.
        raw = bytearray(read(f"shards/{files[0]}"))
        raw[-1] ^= 1
        write(f"shards/{files[0]}", raw)
        self.refused("decompress", "packed.zst", "--base", "shards", "-o", "x",
                     saying=["another base", files[0], file.index["base"][0]["sha256"], sha(raw)], code=3)

    def test_a_compressed_base(self):
        self.wtool("compress", "base.safetensors", "-o", "base.zst")
        file = self.packed("tuned.safetensors", "--base", "base.zst")
        self.assertEqual(file.index["base"][0]["sha256"], sha(read("base.safetensors")))
        self.restored("base.zst")
        self.restored("base.safetensors")

    def test_another_base_is_refused_by_name_and_digests(self):
        self.packed("tuned.safetensors", "--base", "base.safetensors")
        wanted = sha(read("base.safetensors"))
        write_safetensors("changed.safetensors", self.model, {"format": "pt"})
        for options in ([], ["--tensor", "ids"], ["-n"]):
            self.refused("decompress", "packed.zst", "--base", "changed.safetensors", "-o", "x.safetensors", *options,
                         saying=["base.safetensors", "changed.safetensors", wanted, sha(read("changed.safetensors"))], code=3)
        self.refused("decompress", "packed.zst", "--base", "absent.safetensors", "-o", "x", saying=["absent"], code=4)
        self.refused("decompress", "packed.zst", "-o", "x", saying=["base.safetensors", wanted, "--base"], code=2)
        self.refused("stats", "packed.zst", saying=["base.safetensors", "--base"], code=2)
        self.packed("tuned.safetensors")
        self.refused("decompress", "packed.zst", "--base", "base.safetensors", "-o", "x", saying=["no difference"], code=2)

    def test_headers_can_be_read_without_the_base(self):
        self.packed("tuned.safetensors", "--base", "base.safetensors")
        self.assertIn("[300, 7]", self.wtool("inspect", "-l", "packed.zst").stdout)

    def test_one_tensor_of_a_difference(self):
        self.packed("tuned.safetensors", "--base", "base.safetensors")
        for name in self.model:
            self.wtool("decompress", "packed.zst", "--base", "base.safetensors", "--tensor", name, "-o", "t.safetensors", "-f")
            self.assertEqual(read_safetensors("t.safetensors"), {name: self.model[name]})


class CommandLine(Compress):
    def setUp(self):
        super().setUp()
        write_safetensors("m.safetensors", MODEL, {"format": "pt"})
        self.original = read("m.safetensors")

    def test_names_follow_the_input(self):
        self.assertIn("m.safetensors.zst", self.wtool("compress", "m.safetensors").stdout)
        packed = read("m.safetensors.zst")
        self.refused("compress", "m.safetensors", saying=["m.safetensors.zst", "already exists", "--force"])
        self.refused("decompress", "m.safetensors.zst", saying=["m.safetensors", "already exists"])
        os.remove("m.safetensors")
        self.wtool("decompress", "m.safetensors.zst")
        self.assertEqual(read("m.safetensors"), self.original)
        write("m.safetensors", b"other")
        self.wtool("decompress", "m.safetensors.zst", "--force")
        self.assertEqual(read("m.safetensors"), self.original)
        write("m.safetensors.zst", b"other")
        self.wtool("compress", "m.safetensors", "-f")
        self.assertEqual(read("m.safetensors.zst"), packed)
        for name in ("m.packed", ".zst"):
            os.rename("m.safetensors.zst", name)
            self.refused("decompress", name, saying=["-o"])
            self.wtool("decompress", name, "-o", "x", "-f")
            os.rename(name, "m.safetensors.zst")

    def test_standard_input_and_output(self):
        run = lambda *args, data: subprocess.run([self.program, *args], input=data, capture_output=True)
        for form in FORMS:
            done = run("compress", "-", "-o", "-", form, data=self.original)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(b"estimates: planes", done.stderr)
            if ZSTD:
                zstd("-tq", input=done.stdout)
            back = run("decompress", "-", "-o", "-", data=done.stdout)
            self.assertEqual((back.returncode, back.stdout), (0, self.original), back.stderr)
            write("in.zst", done.stdout)
            self.assertEqual(Compressed("in.zst").index["source"]["name"], "-")
            done = run("compress", "-", "-o", "out.zst", "-f", form, data=self.original)
            self.assertEqual(read("out.zst"), read("in.zst"))
        for verb, data in (("compress", self.original), ("decompress", read("in.zst"))):
            done = run(verb, "-", data=data)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(b"-o", done.stderr)

    def test_a_dry_run_of_decompress_writes_nothing(self):
        self.wtool("compress", "m.safetensors", "-o", "x.zst")
        before = sorted(os.listdir("."))
        said = json.loads(self.wtool("decompress", "-n", "x.zst", "--json").stdout)
        self.assertEqual(sorted(os.listdir(".")), before)
        self.assertEqual((said["output"], said["bytes"], said["sha256"]), ("x", len(self.original), [sha(self.original)]))

    def test_reports_are_written_and_never_over_what_is_needed(self):
        self.wtool("compress", "m.safetensors", "--report", "c.json")
        self.wtool("decompress", "m.safetensors.zst", "-o", "again", "--report", "d.json")
        for path, title in (("c.json", "compress"), ("d.json", "decompress")):
            said = json.loads(read(path))
            self.assertEqual((said["schema"], said["bytes"], said["packed_bytes"]),
                             (f"wtool.{title}/1", len(self.original), os.path.getsize("m.safetensors.zst")))
            self.assertEqual(said["sha256"] if title == "decompress" else [f["sha256"] for f in said["files"]], [sha(self.original)])
        for report in ("m.safetensors", "x.zst", "c.json"):
            force = [] if report == "c.json" else ["-f"]
            self.refused("compress", "m.safetensors", "-o", "x.zst", "--report", report, *force, saying=[report])
            self.refused("decompress", "m.safetensors.zst", "-o", "x.zst", "--report",
                         report.replace("m.safetensors", "m.safetensors.zst"), *force, saying=[report])
        self.assertEqual(read("m.safetensors"), self.original)

    def test_options_that_exclude_each_other(self):
        self.wtool("compress", "m.safetensors")
        for args in (["compress", "m.safetensors", "-o", "x", "--plain", "--planes"],
                     ["compress", "m.safetensors", "-o", "x", "--plain", "--base", "m.safetensors"],
                     ["decompress", "m.safetensors.zst", "--salvage", "s.safetensors", "-o", "x"],
                     ["decompress", "m.safetensors.zst", "--salvage", "s.safetensors", "--tensor", "ids"],
                     ["decompress", "m.safetensors.zst", "--tensor", "ids"]):
            self.refused(*args)

    def test_folders(self):
        os.mkdir("model")
        names = list(MODEL)
        write("model/config.json", b'{"a": 1}')
        for i, part in enumerate((names[:2], names[2:]), 1):
            write_safetensors(f"model/model-0000{i}-of-00002.safetensors", {n: MODEL[n] for n in part})
        where = {n: f"model-0000{1 + (n in names[2:])}-of-00002.safetensors" for n in names}
        write("model/model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": where}).encode())
        content = lambda path: self.wtool("digest", "--content", path).stdout.split()[0]
        for form in FORMS:
            self.wtool("compress", "model/", form, "-f")
            self.assertEqual(sorted(os.listdir("model-zst")), sorted(
                n + ".zst" * n.endswith(".safetensors") for n in os.listdir("model")))
            self.assertEqual(read("model-zst/config.json"), b'{"a": 1}')
            self.assertEqual(content("model-zst"), content("model"))
            self.assertEqual(content("model-zst/model-00002-of-00002.safetensors.zst"), content("model"))
            self.wtool("decompress", "model-zst", "-o", "again", "-f")
            self.assertEqual({n: read(f"again/{n}") for n in os.listdir("again")}, {n: read(f"model/{n}") for n in os.listdir("model")})
        self.refused("compress", "model", saying=["already exists"])
        self.refused("decompress", "model-zst", saying=["already exists"])
        write("model-zst/mine", b"")
        self.refused("compress", "model", "-f", saying=["mine"])
        self.refused("compress", "model", "-o", "-", saying=["standard output"])
        os.mkdir("into")
        self.wtool("compress", "m.safetensors", "-o", "into")
        self.wtool("decompress", "into/m.safetensors.zst", "-o", "into/")
        self.assertEqual(read("into/m.safetensors"), self.original)

    def test_an_index_that_no_reader_takes_is_not_written(self):
        # Each of the tensors that are the same names the one that is stored.
        name = "x" * 60_000
        write_safetensors("long.safetensors", {n: ("U8", [8], b"12345678") for n in (name, *map(str, range(2300)))})
        self.refused("compress", "long.safetensors", "--planes", saying=["an index of 13", "of at most 134217728"], code=3)
        self.wtool("compress", "long.safetensors", "--plain")

    def test_verify_compares_what_is_in_it(self):
        self.wtool("compress", "m.safetensors")
        os.remove("m.safetensors")
        self.assertIn("OK", self.wtool("verify", "m.safetensors.zst").stdout)
        for digest in (sha(self.original), sha(read("m.safetensors.zst"))):
            self.wtool("verify", f"--sha256={digest}", "m.safetensors.zst")
            write("m.safetensors.zst.sha256", digest.encode())
            self.wtool("verify", "--sha256", "m.safetensors.zst")
        os.remove("m.safetensors.zst.sha256")
        write("m.safetensors.sha256", sha(self.original).encode())
        self.wtool("verify", "--sha256", "m.safetensors.zst")
        self.wtool("verify", f"--sha256={'0' * 64}", "m.safetensors.zst", code=1)
        file = Compressed("m.safetensors.zst")
        raw = bytearray(file.raw)
        raw[file.frames[3][0] + 20] ^= 1
        write("m.safetensors.zst", raw)
        said = self.wtool("verify", "m.safetensors.zst", code=3)
        self.assertIn("frame 3 ", said.stderr)

    def test_what_is_no_weight_file(self):
        self.wtool("compress", "m.safetensors")
        self.refused("compress", "m.safetensors.zst", saying=["compressed already"])
        write("text", b"hello, world\n" * 20)
        self.refused("compress", "text", code=3)
        write("nothing", b"")
        self.refused("compress", "nothing", code=3)
        write("cut.safetensors", self.original[:-1])
        self.refused("compress", "cut.safetensors", code=3)
        self.refused("compress", "absent", code=4)
        self.refused("decompress", "m.safetensors", "-o", "x", saying=["safetensors"], code=3)
        self.refused("decompress", "text", "-o", "x", code=3)
        self.refused("decompress", "nothing", "-o", "x", code=3)

    @needs_zstd
    def test_what_zstd_itself_compressed(self):
        zstd("-q", "m.safetensors", "-o", "z.safetensors.zst")
        for args in (["decompress", "z.safetensors.zst", "-o", "x"], ["inspect", "z.safetensors.zst"], ["compress", "z.safetensors.zst"]):
            self.refused(*args, saying=["zstd -d"], code=3)

    def test_one_tensor(self):
        self.wtool("compress", "m.safetensors")
        for name, (kind, shape, raw) in MODEL.items():
            self.wtool("decompress", "m.safetensors.zst", "--tensor", name, "-o", "t.safetensors", "-f")
            self.assertEqual(read_safetensors("t.safetensors"), {name: (kind, shape, raw)})
            if kind == "BF16":
                self.refused("decompress", "m.safetensors.zst", "--tensor", name, "-o", "t.npy", saying=["bf16", "--dtype f32"])
                self.wtool("decompress", "m.safetensors.zst", "--tensor", name, "-o", "t.npy", "--dtype", "f32", "-f")
                wide = b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2))
                self.assertEqual(read("t.npy")[-len(wide) :], wide)
                os.remove("t.npy")
                continue
            self.wtool("decompress", "m.safetensors.zst", "--tensor", name, "-o", "t.npy", "-f")
            array = read("t.npy")
            self.assertEqual(array[-len(raw) :], raw)
            head = array[: -len(raw)].decode("latin1")
            self.assertIn(str(tuple(shape)), head)
            self.assertIn({"F32": "'<f4'", "F16": "'<f2'", "I64": "'<i8'"}[kind], head)
        self.refused("decompress", "m.safetensors.zst", "--tensor", "head.wieght", "-o", "x.npy", saying=["head.weight"])
        self.refused("decompress", "m.safetensors.zst", "--tensor", "ids", "-o", "t.npy", saying=["already exists"])

    def test_one_tensor_of_a_large_file_reads_little_of_it(self):
        raw = gaussian("BF16", 4 << 20)
        tensors = {f"t{i}": ("BF16", [4 << 20], raw[2 * i :] + raw[: 2 * i]) for i in range(4)}
        tensors["small"] = ("F32", [1000], gaussian("F32", 1000))
        write_safetensors("l.safetensors", tensors)
        self.wtool("compress", "l.safetensors")
        child = subprocess.Popen([self.program, "decompress", "l.safetensors.zst", "-q", "--tensor", "small", "-o", "s.npy"],
                                 stdout=subprocess.DEVNULL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        counts = dict(line.split(": ") for line in read(f"/proc/{child.pid}/io").decode().splitlines())
        self.assertEqual(child.wait(), 0)
        self.assertLess(int(counts["rchar"]), 3_000_000)  # with the program's own libraries
        self.assertGreater(os.path.getsize("l.safetensors.zst"), 20_000_000)


class OtherCommands(Compress):
    """The same file in two folders, compressed in one of them: whatever is asked, the answer is the same."""

    def both(self, *args, code=0):
        said = []
        for folder in ("original", "compressed"):
            os.chdir(folder)
            try:
                said.append(self.wtool(*args, code=code).stdout)
            finally:
                os.chdir("..")
        self.assertEqual(said[0], said[1], args)
        return said[0]

    def prepare(self, name, raw, form):
        os.makedirs("original", exist_ok=True)
        os.makedirs("compressed", exist_ok=True)
        write(f"original/{name}", raw)
        self.wtool("compress", f"original/{name}", form, "-o", f"compressed/{name}", "-f")
        self.assertNotEqual(read(f"compressed/{name}"), raw)

    def test_read_it_like_the_original(self):
        write_safetensors("m.safetensors", {**MODEL, **{n: t for n, t in large_safetensors().items() if n == "BF16.mixed"}}, {"format": "pt"})
        write_safetensors("other.safetensors", {**MODEL, "ids": ("I64", [130], bytes(1040))})
        for form in FORMS:
            self.prepare("m.safetensors", read("m.safetensors"), form)
            self.both("inspect", "m.safetensors")
            self.assertIn("layers.0.up.weight", self.both("inspect", "-l", "m.safetensors"))
            self.both("inspect", "--json", "m.safetensors")
            self.assertEqual(self.both("inspect", "--get", "format", "m.safetensors"), "pt")
            self.both("show", "m.safetensors", "head.weight[100:103,:]")
            self.both("show", "m.safetensors", "BF16.mixed[524280:524290]")  # across the border of two chunks
            self.both("stats", "m.safetensors")
            self.both("stats", "--json", "m.safetensors")
            self.both("diff", "m.safetensors", "../other.safetensors", code=1)
            self.wtool("diff", "original/m.safetensors", "compressed/m.safetensors")
            self.assertIn("content/1:", self.both("digest", "--content", "m.safetensors"))
            tensors = [json.loads(self.wtool("digest", "--per-tensor", f"{folder}/m.safetensors").stdout)["tensors"]
                       for folder in ("original", "compressed")]
            self.assertEqual([t["sha256"] for t in tensors[0]], [t["sha256"] for t in tensors[1]])
            self.both("check", "m.safetensors")
            for args in (["convert", "m.safetensors", "-o", "out.safetensors"], ["convert", "m.safetensors", "-o", "out.gguf"],
                         ["convert", "m.safetensors", "-o", "out.safetensors", "--dtype", "f32", "--no-lineage"],
                         ["quantize", "--int8", "m.safetensors", "-o", "out.safetensors", "--no-lineage"]):
                self.both(*args, "-f")
                out = args[args.index("-o") + 1]
                self.assertEqual(read(f"original/{out}"), read(f"compressed/{out}"), args)

    def test_read_blocks_like_the_original(self):
        tensors = {f"{n}.weight": (n, [7, e], blocks(n, 7, size)) for n, e, size in TYPES.values() if e > 1 and not n.startswith(("iq1", "iq2", "iq3"))}
        for form in FORMS:
            self.prepare("m.gguf", gguf(tensors, {"general.architecture": (8, "llama")}), form)
            self.both("inspect", "-l", "m.gguf")
            self.both("stats", "--json", "m.gguf")
            self.both("digest", "--content", "m.gguf")
            self.both("convert", "m.gguf", "-o", "out.gguf", "-f")
            self.assertEqual(read("original/out.gguf"), read("compressed/out.gguf"))

    def test_read_arrays_like_the_original(self):
        for name, raw in (("be", hard_npy()["f4be.2.99"]), ("le", hard_npy()["f8.1.2049"])):
            for form in FORMS:
                self.prepare(f"{name}.npy", raw, form)
                self.both("inspect", "-l", f"{name}.npy")
                self.both("stats", f"{name}.npy")
                self.both("digest", "--content", f"{name}.npy")


class Damage(Compress):
    TENSORS = {"a.weight": ("BF16", [300], gaussian("BF16", 300, seed=30)), "b.weight": ("F32", [200], gaussian("F32", 200, seed=31)),
               "c": ("U8", [64], contents("U8", "few", 64)), "d.weight": ("BF16", [300], gaussian("BF16", 300, seed=30)),
               "e": ("F16", [150], gaussian("F16", 150, seed=32))}

    def setUp(self):
        super().setUp()
        write_safetensors("m.safetensors", self.TENSORS, {"format": "pt"})
        self.original = read("m.safetensors")

    def try_all(self, files, judge):
        """Restores each of [(what, bytes)] in a folder of its own; judge(what, code, error, restored or None)."""

        def one(number, raw):
            folder = pathlib.Path(self.dir, f"try{number}")
            folder.mkdir()
            (folder / "x.zst").write_bytes(raw)
            done = subprocess.run([self.program, "decompress", "x.zst", "-j1"], cwd=folder, capture_output=True, text=True)
            left = sorted(os.listdir(folder))
            out = (folder / "x").read_bytes() if "x" in left else None
            for name in left:
                (folder / name).unlink()
            folder.rmdir()
            return done.returncode, done.stderr, left, out

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            jobs = [(what, pool.submit(one, i, raw)) for i, (what, raw) in enumerate(files)]
            for what, job in jobs:
                code, error, left, out = job.result()
                self.assertIn(code, (0, 3), f"{what}: {error}")
                self.assertEqual(left, ["x.zst"] if code else ["x", "x.zst"], what)
                if code:
                    self.assertRegex(error, r"(?m)\Awtool: error: x\.zst: ", what)
                else:
                    self.assertEqual(out, self.original, f"{what}: restored something else")
                judge(what, code, error)

    def test_no_flipped_byte_of_data_goes_unnoticed(self):
        for form in FORMS:
            file = self.packed("m.safetensors", form)
            tensor_of = {f: p.get("tensor") for p in file.pieces() if "codec" in p for f in file.frames_of(p.get("tensor"))}
            self.assertEqual(sorted(tensor_of), list(range(form == "--planes", len(file.frames) - 1)))
            files = []
            for number in tensor_of:
                at, stored, _, _ = file.frames[number]
                for i in [*range(at, at + stored)[:12], *range(at + 12, at + stored - 8, 5), *range(at, at + stored)[-8:]]:
                    for bit in {i % 8, (i + 3) % 8} if i < at + 12 else {i % 8}:
                        raw = bytearray(file.raw)
                        raw[i] ^= 1 << bit
                        files.append(((form, number, i - at, bit), bytes(raw)))

            def judge(what, code, error):
                _, number, i, bit = what
                if number == 0 and i < 4:  # then it is no file of zstd's
                    self.assertIn("is no safetensors, GGUF", error)
                    return
                if code == 0:  # a head can say one thing in two ways, and has a bit that decoders ignore
                    self.assertLess(i, 12, what)
                    return
                self.assertIn(f"frame {number} at byte {file.frames[number][0]} ", error)
                name = tensor_of[number]
                self.assertIn(f"tensor '{name}'" if name else "bytes from 0 on", error)

            self.try_all(files, judge)

    def test_a_flipped_byte_of_index_or_table_never_restores_another_file(self):
        for form in FORMS:
            file = self.packed("m.safetensors", form)
            files, harmless = [], []
            for i in [*range(file.index_at, file.table_at, 3), *range(file.table_at, len(file.raw))]:
                raw = bytearray(file.raw)
                raw[i] ^= 1 << i % 7
                files.append((i, bytes(raw)))
            self.try_all(files, lambda i, code, error: harmless.append(i) if code == 0 else None)
            # What restoring does not need: names, types, shapes, digests of tensors; of frames that are not read, sizes of content.
            spare = lambda i: i < file.table_at or i < file.table_at + 20 or i >= len(file.raw) - 9 - 12
            self.assertEqual([i for i in harmless if not spare(i)], [])

    def test_no_truncated_file_is_taken(self):
        for form in FORMS:
            file = self.packed("m.safetensors", form)
            ends = [*range(0, 40), *range(40, len(file.raw) - 200, 97), *range(len(file.raw) - 200, len(file.raw))]
            codes = []
            self.try_all([(n, file.raw[:n]) for n in ends], lambda n, code, error: codes.append(code))
            self.assertEqual(set(codes), {3})
            longer = []
            self.try_all([("longer", file.raw + b"\0"), ("twice", file.raw + file.raw)], lambda n, code, error: longer.append(code))
            self.assertEqual(longer, [3, 3])

    def test_other_commands_see_damage_too(self):
        file = self.packed("m.safetensors", "--planes")
        at, stored, _, _ = file.frames[file.frames_of("b.weight")[2]]
        raw = bytearray(file.raw)
        raw[at + stored // 2] ^= 1
        write("bad.zst", raw)
        for args in (["show", "bad.zst", "b.weight"], ["stats", "bad.zst"], ["digest", "--content", "bad.zst"],
                     ["convert", "bad.zst", "-o", "x.safetensors"], ["decompress", "bad.zst", "--tensor", "b.weight", "-o", "x.npy"]):
            done = self.wtool(*args, code=3)
            self.assertIn("tensor 'b.weight'", done.stderr, args)
            self.assertIn(f"frame {file.frames_of('b.weight')[2]} ", done.stderr, args)
        self.assertNotIn("x.npy", os.listdir("."))
        self.wtool("show", "bad.zst", "a.weight")
        self.wtool("decompress", "bad.zst", "--tensor", "a.weight", "-o", "a.safetensors")
        self.assertEqual(read_safetensors("a.safetensors"), {"a.weight": self.TENSORS["a.weight"]})

    def test_a_tensor_must_have_its_own_digest(self):
        file = self.packed("m.safetensors", "--planes")
        digest = sha(self.TENSORS["e"][2])
        write("bad.zst", file.with_index(lambda text: text.replace(digest, "0" * 64)))
        self.refused("decompress", "bad.zst", "--tensor", "e", "-o", "x.npy", saying=["tensor 'e'", digest, "0" * 64], code=3)
        self.wtool("decompress", "bad.zst", "-o", "whole")
        self.assertEqual(read("whole"), self.original)
        write("bad.zst", file.with_index(lambda text: text.replace(sha(self.original), "0" * 64)))
        self.refused("decompress", "bad.zst", "-o", "x", saying=[sha(self.original), "0" * 64], code=3)

    def test_salvage_keeps_what_is_whole_and_names_what_is_not(self):
        for form in FORMS:
            file = self.packed("m.safetensors", form)
            for lost in ("b.weight", "a.weight", "e"):
                at, stored, _, _ = file.frames[file.frames_of(lost)[0]]
                raw = bytearray(file.raw)
                raw[at + stored - 6] ^= 1
                write("bad.zst", raw)
                gone = {lost} | ({"d.weight"} if lost == "a.weight" and form == "--planes" else set())  # it was stored once
                done = self.wtool("decompress", "bad.zst", "--salvage", "s.safetensors", "--json", "-f", code=1)
                self.assertEqual(read_safetensors("s.safetensors"),
                                 {n: t for n, t in self.TENSORS.items() if n not in gone})
                self.assertEqual(self.wtool("inspect", "--get", "format", "s.safetensors").stdout, "pt")
                said = json.loads(done.stdout)
                self.assertFalse(said["ok"])
                for name in gone:
                    self.assertRegex(done.stderr, f"(?m)^wtool: warning: lost: .*'{name}'")
                    self.assertTrue(any("lost: " in r and name in r for r in said["remarks"]), said["remarks"])
                self.assertEqual(done.stderr.count("lost: "), len(gone))

    def test_check_finds_each_damaged_tensor_and_looks_at_the_others(self):
        # A NaN in a sound tensor, and values of damaged ones that nobody may judge.
        tensors = {**self.TENSORS, "nan.weight": ("F32", [3], struct.pack("<3f", 1, float("nan"), 2))}
        write_safetensors("m.safetensors", tensors, {"format": "pt"})
        for form in FORMS:
            file = self.packed("m.safetensors", form)
            sound = json.loads(self.wtool("check", "packed.zst", "--json", code=1).stdout)
            self.assertEqual({f["rule"] for f in sound["findings"] if f["level"] == "error"}, {"values.weight"})
            raw, frames = bytearray(file.raw), {}
            for name in ("a.weight", "e"):
                frames[name] = file.frames_of(name)[-1]
                at, stored, _, _ = file.frames[frames[name]]
                raw[at + stored - 6] ^= 1
            write("bad.zst", raw)
            done = self.wtool("check", "bad.zst", "--json", "--sarif", "s.json", "-f", code=1)
            found = [f for f in json.loads(done.stdout)["findings"] if f["level"] == "error"]
            gone = {"a.weight", "e"} | ({"d.weight"} if form == "--planes" else set())  # stored as a.weight
            self.assertEqual([f["rule"] for f in found], ["compressed.frames"] * len(gone) + ["values.weight"])
            self.assertEqual({f["tensor"] for f in found[:-1]}, gone)
            for f in found[:-1]:
                number = frames.get(f["tensor"], frames["a.weight"])
                self.assertIn(f"frame {number} at byte {file.frames[number][0]} is damaged", f["message"])
                self.assertEqual(f["offset"], file.frames[number][0])
                self.assertEqual("stored as tensor 'a.weight'" in f["message"], f["tensor"] == "d.weight")
            self.assertEqual(found[-1]["tensor"], "nan.weight")
            said = self.wtool("check", "bad.zst", "--salvage", "rescued.safetensors", "-f", code=1).stdout
            self.assertEqual(read_safetensors("rescued.safetensors"), {n: t for n, t in tensors.items() if n not in gone})
            for name in gone:
                self.assertIn(f"left out: tensor '{name}': is damaged", said)
            self.wtool("check", "bad.zst", "--fail-on", "compressed", code=1)
            self.wtool("check", "bad.zst", "-t", "nan.weight", code=1)
            # Nothing is left, or not even the index.
            for number in range(min(file.frames_of("a.weight")), len(file.frames) - 1):
                raw[file.frames[number][0]] ^= 1
            write("bad.zst", raw)
            self.refused("check", "bad.zst", "--salvage", "x.safetensors", saying=["no intact tensor"], code=3)
            write("cut.zst", file.raw[:-1])
            self.refused("check", "cut.zst", code=3)

    def test_salvage_of_a_sound_file_and_of_one_without_hope(self):
        file = self.packed("m.safetensors", "--planes")
        self.wtool("decompress", "packed.zst", "--salvage", "s.safetensors")
        self.assertEqual(read_safetensors("s.safetensors"), self.TENSORS)
        self.refused("decompress", "packed.zst", "--salvage", "s.safetensors", saying=["already exists"])
        raw = bytearray(file.raw)
        for number in range(2, len(file.frames) - 1):
            raw[file.frames[number][0]] ^= 1
        write("bad.zst", raw)
        self.refused("decompress", "bad.zst", "--salvage", "x.safetensors", saying=["no intact tensor"], code=3)
        write("cut.zst", file.raw[:-1])
        self.refused("decompress", "cut.zst", "--salvage", "x.safetensors", code=3)

    def test_an_unknown_codec_form_type_or_version_is_not_supported(self):
        file = self.packed("m.safetensors", "--planes")
        for old, new, says in (('"codec":"bf16"', '"codec":"bf17"', "bf17"), ('"form":"planes"', '"form":"plains"', "plains"),
                               ('"dtype":"bf16"', '"dtype":"bf17"', "bf17"), ("wtool.compressed/1", "wtool.compressed/2", "compressed/2")):
            write("new.zst", file.with_index(lambda text: text.replace(old, new)))
            self.refused("decompress", "new.zst", "-o", "x", saying=[says], code=3)
        write("more.zst", file.with_index(lambda text: text.replace('"form"', '"later":{"a":[1]},"form"').replace('"offset"', '"new":null,"offset"')))
        self.wtool("decompress", "more.zst", "-o", "x")
        self.assertEqual(read("x"), self.original)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
