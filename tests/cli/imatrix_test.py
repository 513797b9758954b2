#!/usr/bin/env python3
"""Importance matrices from outside: inspect, and convert from one form to the other.

usage: imatrix_test.py WTOOL     (Python's standard library only)

The files are made and read here, from the two forms' descriptions.
"""
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

WTOOL = str(pathlib.Path(sys.argv[1]).resolve())


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def dat(entries, tail=None):
    """entries: [(name, calls, values)]; tail: (chunks, dataset)"""
    out = struct.pack("<i", len(entries))
    for name, calls, values in entries:
        out += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values))
        out += struct.pack(f"<{len(values)}f", *values)
    if tail:
        out += struct.pack("<ii", tail[0], len(tail[1])) + tail[1].encode()
    return out


def read_dat(raw):
    at = 0

    def number():
        nonlocal at
        at += 4
        return struct.unpack_from("<i", raw, at - 4)[0]

    entries = []
    for _ in range(number()):
        n = number()
        at += n
        name = raw[at - n : at].decode()
        calls, values = number(), number()
        at += 4 * values
        entries.append((name, calls, list(struct.unpack_from(f"<{values}f", raw, at - 4 * values))))
    chunks, n = number(), number()
    assert at + n == len(raw)
    return entries, (chunks, raw[at:].decode())


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def gguf(tensors, datasets=("a.txt",), chunks=1, size=512, more=b"", more_keys=0):
    """tensors: [(name, shape innermost first, values)], all f32"""
    keys = text("general.type") + struct.pack("<I", 8) + text("imatrix")
    keys += text("imatrix.datasets") + struct.pack("<IIQ", 9, 8, len(datasets)) + b"".join(map(text, datasets))
    keys += text("imatrix.chunk_count") + struct.pack("<II", 4, chunks)
    keys += text("imatrix.chunk_size") + struct.pack("<II", 4, size)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 4 + more_keys) + keys + more
    data = b""
    for name, shape, values in tensors:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", 0, len(data))
        data += struct.pack(f"<{len(values)}f", *values)
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data


def read_gguf(raw):
    """({key: value}, {name: (type, shape innermost first, bytes)}): what such files hold, no more"""
    at = 4

    def take(code):
        nonlocal at
        value = struct.unpack_from("<" + code, raw, at)[0]
        at += struct.calcsize(code)
        return value

    def string():
        nonlocal at
        n = take("Q")
        at += n
        return raw[at - n : at].decode()

    def value(kind):
        if kind == 9:
            of, n = take("I"), take("Q")
            return [value(of) for _ in range(n)]
        return string() if kind == 8 else take({4: "I"}[kind])

    assert take("I") == 3
    n_tensors, n_keys = take("Q"), take("Q")
    keys = {}
    for _ in range(n_keys):
        key = string()
        keys[key] = value(take("I"))
    infos = [(string(), [take("Q") for _ in range(take("I"))], take("I"), take("Q")) for _ in range(n_tensors)]
    base = -(-at // 32) * 32
    out = {}
    for name, shape, kind, offset in infos:
        n = 4
        for d in shape:
            n *= d
        out[name] = (kind, shape, raw[base + offset : base + offset + n])
    return keys, out


ENTRIES = [("blk.0.attn_q.weight", 4, [8.0, 2.0, 0.0, 1.0]), ("blk.0.ffn_up.weight", 3, [1.0, 6.0])]


class Test(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.dir = pathlib.Path(self.folder.name)

    def put(self, name, raw):
        (self.dir / name).write_bytes(raw)

    def get(self, name):
        return (self.dir / name).read_bytes()

    def wtool(self, *args, status=0):
        env = dict(os.environ, LC_ALL="C.UTF-8", COLUMNS="120")
        done = subprocess.run([WTOOL, *args], cwd=self.dir, capture_output=True, env=env, check=False)
        self.assertEqual(done.returncode, status, done.stderr.decode())
        return done.stdout.decode() + done.stderr.decode()

    def refused(self, *args, says, status=2):
        before = sorted(os.listdir(self.dir))
        self.assertIn(says, self.wtool(*args, status=status))
        self.assertEqual(sorted(os.listdir(self.dir)), before)

    def test_inspect_says_what_a_matrix_was_made_from(self):
        self.put("m.dat", dat(ENTRIES, (7, "wiki.txt")))
        said = self.wtool("inspect", "m.dat")
        self.assertIn("m.dat  imatrix", said)
        self.assertIn("matrix  importance of 2 weights   7 chunks   from [wiki.txt]", said)
        self.put("m.gguf", gguf([("w.in_sum2", [2], [1, 2]), ("w.counts", [1], [512])], ["a", "b"], 9))
        self.assertIn("importance of 1 weight   9 chunks of 512 tokens   from [a, b]", self.wtool("inspect", "m.gguf"))
        seen = json.loads(self.wtool("inspect", "--json", "m.dat"))
        self.assertEqual(seen["model"]["format"], "imatrix")
        self.assertEqual(seen["metadata"]["imatrix.chunk_count"], {"type": "u32", "value": 7})
        self.assertEqual(
            [(t["name"], t["shape"], t["dtype"]) for t in seen["tensors"][:2]],
            [("blk.0.attn_q.weight.in_sum2", [4], "f32"), ("blk.0.attn_q.weight.counts", [1], "i32")],
        )

    def test_dat_to_gguf_and_back(self):
        self.put("m.dat", dat(ENTRIES, (7, "wiki.txt")))
        self.wtool("convert", "m.dat", "-o", "m.gguf")
        keys, tensors = read_gguf(self.get("m.gguf"))
        self.assertEqual(
            keys,
            {
                "general.type": "imatrix",
                "imatrix.datasets": ["wiki.txt"],
                "imatrix.chunk_count": 7,
                "imatrix.chunk_size": 1,
            },
        )
        for name, calls, values in ENTRIES:  # type 0: f32
            self.assertEqual(
                tensors[name + ".in_sum2"], (0, [len(values)], struct.pack(f"<{len(values)}f", *values))
            )
            self.assertEqual(tensors[name + ".counts"], (0, [1], struct.pack("<f", calls)))
        self.wtool("convert", "m.gguf", "-o", "back.dat")
        self.assertEqual(self.get("back.dat"), self.get("m.dat"))

    def test_a_dat_file_without_a_tail_gets_the_keys_that_llama_quantize_asks_for(self):
        self.put("m.dat", dat(ENTRIES))
        self.wtool("convert", "m.dat", "--to", "gguf")
        keys, _ = read_gguf(self.get("m.gguf"))
        self.assertEqual((keys["imatrix.datasets"], keys["imatrix.chunk_count"]), ([], 0))
        self.wtool("convert", "m.dat", "-o", "again.dat")
        self.assertEqual(self.get("again.dat"), dat(ENTRIES, (0, "")))

    def test_gguf_to_dat_counts_in_chunks(self):
        sums, experts = [0.1, 3.7, 1e-3, 12345.0], [5.0, 1.0, 9.0, 9.0, 0.3, 2.0]
        self.put(
            "m.gguf",
            gguf(
                [
                    ("d.in_sum2", [4], sums),
                    ("d.counts", [1], [37 * 512]),
                    ("e.in_sum2", [2, 3], experts),
                    ("e.counts", [1, 3], [600, 0, 1]),
                ],
                ["a.txt", "b.txt"],
                37,
            ),
        )
        said = self.wtool("convert", "m.gguf", "-o", "m.dat")
        self.assertIn("counts are chunks of 512 now", said)
        self.assertIn("of 2 names the last is kept", said)
        self.assertIn("1 entries have experts with different counts", said)
        entries, tail = read_dat(self.get("m.dat"))
        self.assertEqual(tail, (37, "b.txt"))
        (d, d_calls, d_values), (e, e_calls, e_values) = entries
        self.assertEqual((d, d_calls, e, e_calls), ("d", 37, "e", 2))
        # The importance, to the bit: 512 is a power of two; and two calls are.
        self.assertEqual([f32(v / 37) for v in d_values], [f32(f32(v) / (37 * 512)) for v in sums])
        wanted = [f32(f32(v) / c) if c else 1.0 for v, c in zip(experts, [600, 600, 0, 0, 1, 1])]
        self.assertEqual([f32(v / 2) for v in e_values], wanted)

    def test_some_entries_under_other_names(self):
        self.put("m.dat", dat(ENTRIES, (7, "wiki.txt")))
        self.wtool("convert", "m.dat", "-o", "n.dat", "-t", "*ffn_up*", "--rename", r"^blk\.=layer.")
        self.assertEqual(self.get("n.dat"), dat([("layer.0.ffn_up.weight", 3, [1.0, 6.0])], (7, "wiki.txt")))
        self.refused("convert", "m.dat", "-o", "x.dat", "-x", "*.counts", says="sums and counts go together")

    def test_what_the_dat_form_has_no_place_for_is_refused(self):
        self.put("sums.gguf", gguf([("w.in_sum2", [1], [1]), ("w.counts", [1], [1]), ("w.in_sum", [1], [1])]))
        self.refused("convert", "sums.gguf", "-o", "m.dat", says="imatrix cannot hold 1 of 3 tensors: 'w.in_sum'")
        self.wtool("convert", "sums.gguf", "-o", "without.dat", "-x", "*.in_sum")
        name = text("general.name") + struct.pack("<I", 8) + text("x")
        self.put("named.gguf", gguf([("w.in_sum2", [1], [1]), ("w.counts", [1], [1])], more=name, more_keys=1))
        self.refused("convert", "named.gguf", "-o", "m.dat", says="no place for key 'general.name'")
        self.wtool("convert", "named.gguf", "-o", "unnamed.dat", "--unset", "general.name")
        self.refused("convert", "sums.gguf", "-o", "m.dat", "--dtype", "f16", says="f32 and i32, nothing else")
        self.put("plain.gguf", gguf([("w", [1], [1])]))
        self.refused("convert", "plain.gguf", "-o", "m.dat", says="is no importance matrix", status=3)

    def test_damage_is_named(self):
        whole = dat(ENTRIES, (7, "wiki.txt"))
        self.put("cut.dat", whole[:-20])
        self.refused("inspect", "cut.dat", says="entry 'blk.0.ffn_up.weight': 2 values of 4 bytes", status=3)
        self.put("nan.dat", dat([("w", 1, [1.0, float("nan")])]))
        self.refused("convert", "nan.dat", "-o", "m.dat", says="importance of 'w': sum 1 of 2 is nan", status=3)
        self.put("calls.dat", dat([("w", -3, [1.0])]))
        self.refused("convert", "calls.dat", "-o", "m.gguf", says="entry 'w': -3 calls", status=3)

    def test_a_matrix_beside_a_model_is_a_side_file(self):
        self.put("m.dat", dat(ENTRIES))
        (self.dir / "model").mkdir()
        self.put("model/model.gguf", gguf([("w", [1], [1])]))
        self.put("model/imatrix.dat", dat(ENTRIES))
        said = self.wtool("inspect", "model")
        self.assertIn("1 tensor", said)
        self.assertIn("with    imatrix.dat", said)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
