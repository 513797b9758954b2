#!/usr/bin/env python3
"""Importance matrices from outside: inspect, and convert from one form to the other.

usage: imatrix_test.py WTOOL     (Python's standard library only)

The files are made and read here, from the two forms' descriptions.
"""
import json
import pathlib
import struct
import sys
import unittest

from weight_files import ARRAY, STRING, U32, Command, dat, floats, gguf, read_gguf


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


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


def matrix(tensors, datasets=("a.txt",), chunks=1, size=512, more={}):
    """The GGUF form. tensors: [(name, shape outermost first, values)]"""
    keys = {
        "general.type": (STRING, "imatrix"),
        "imatrix.datasets": (ARRAY, (STRING, datasets)),
        "imatrix.chunk_count": (U32, chunks),
        "imatrix.chunk_size": (U32, size),
    }
    return gguf({name: ("f32", shape, floats(values)) for name, shape, values in tensors}, keys | more)


ENTRIES = [("blk.0.attn_q.weight", 4, [8.0, 2.0, 0.0, 1.0]), ("blk.0.ffn_up.weight", 3, [1.0, 6.0])]


class Imatrix(Command):
    def put(self, name, raw):
        pathlib.Path(name).write_bytes(raw)

    def get(self, name):
        return pathlib.Path(name).read_bytes()

    def said(self, *args):
        done = self.wtool(*args)
        return done.stdout + done.stderr

    def test_inspect_says_what_a_matrix_was_made_from(self):
        self.put("m.dat", dat(ENTRIES, (7, "wiki.txt")))
        said = self.said("inspect", "m.dat")
        self.assertIn("m.dat  imatrix", said)
        self.assertIn("matrix  importance of 2 weights   7 chunks   from [wiki.txt]", said)
        self.put("m.gguf", matrix([("w.in_sum2", [2], [1, 2]), ("w.counts", [1], [512])], ["a", "b"], 9))
        self.assertIn("importance of 1 weight   9 chunks of 512 tokens   from [a, b]", self.said("inspect", "m.gguf"))
        seen = json.loads(self.wtool("inspect", "--json", "m.dat").stdout)
        self.assertEqual(seen["model"]["format"], "imatrix")
        self.assertEqual(seen["metadata"]["imatrix.chunk_count"], {"type": "u32", "value": 7})
        self.assertEqual(
            [(t["name"], t["shape"], t["dtype"]) for t in seen["tensors"][:2]],
            [("blk.0.attn_q.weight.in_sum2", [4], "f32"), ("blk.0.attn_q.weight.counts", [1], "i32")],
        )

    def test_dat_to_gguf_and_back(self):
        self.put("m.dat", dat(ENTRIES, (7, "wiki.txt")))
        self.wtool("convert", "m.dat", "-o", "m.gguf")
        keys, tensors = read_gguf("m.gguf")
        self.assertEqual(
            {name: value for name, (_, value) in keys.items()},
            {
                "general.type": "imatrix",
                "imatrix.datasets": ["wiki.txt"],
                "imatrix.chunk_count": 7,
                "imatrix.chunk_size": 1,
            },
        )
        for name, calls, values in ENTRIES:
            self.assertEqual(tensors[name + ".in_sum2"], ("f32", [len(values)], floats(values)))
            self.assertEqual(tensors[name + ".counts"], ("f32", [1], floats([calls])))
        self.wtool("convert", "m.gguf", "-o", "back.dat")
        self.assertEqual(self.get("back.dat"), self.get("m.dat"))

    def test_a_dat_file_without_a_tail_gets_the_keys_that_llama_quantize_asks_for(self):
        self.put("m.dat", dat(ENTRIES))
        self.wtool("convert", "m.dat", "--to", "gguf")
        keys, _ = read_gguf("m.gguf")
        self.assertEqual((keys["imatrix.datasets"], keys["imatrix.chunk_count"]), ((ARRAY, []), (U32, 0)))
        self.wtool("convert", "m.dat", "-o", "again.dat")
        self.assertEqual(self.get("again.dat"), dat(ENTRIES, (0, "")))

    def test_gguf_to_dat_counts_in_chunks(self):
        sums, experts = [0.1, 3.7, 1e-3, 12345.0], [5.0, 1.0, 9.0, 9.0, 0.3, 2.0]
        self.put(
            "m.gguf",
            matrix(
                [
                    ("d.in_sum2", [4], sums),
                    ("d.counts", [1], [37 * 512]),
                    ("e.in_sum2", [3, 2], experts),
                    ("e.counts", [3, 1], [600, 0, 1]),
                ],
                ["a.txt", "b.txt"],
                37,
            ),
        )
        said = self.said("convert", "m.gguf", "-o", "m.dat")
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
        self.refused("convert", "m.dat", "-o", "x.dat", "-x", "*.counts", saying=["sums and counts go together"])

    def test_what_the_dat_form_has_no_place_for_is_refused(self):
        self.put("sums.gguf", matrix([("w.in_sum2", [1], [1]), ("w.counts", [1], [1]), ("w.in_sum", [1], [1])]))
        self.refused("convert", "sums.gguf", "-o", "m.dat", saying=["imatrix cannot hold 1 of 3 tensors: 'w.in_sum'"])
        self.wtool("convert", "sums.gguf", "-o", "without.dat", "-x", "*.in_sum")
        self.put("named.gguf", matrix([("w.in_sum2", [1], [1]), ("w.counts", [1], [1])], more={"general.name": (STRING, "x")}))
        self.refused("convert", "named.gguf", "-o", "m.dat", saying=["no place for key 'general.name'"])
        self.wtool("convert", "named.gguf", "-o", "unnamed.dat", "--unset", "general.name")
        self.refused("convert", "sums.gguf", "-o", "m.dat", "--dtype", "f16", saying=["f32 and i32, nothing else"])
        self.put("plain.gguf", matrix([("w", [1], [1])]))
        self.refused("convert", "plain.gguf", "-o", "m.dat", saying=["is no importance matrix"], code=3)

    def test_damage_is_named(self):
        whole = dat(ENTRIES, (7, "wiki.txt"))
        self.put("cut.dat", whole[:-20])
        self.refused("inspect", "cut.dat", saying=["entry 'blk.0.ffn_up.weight': 2 values of 4 bytes"], code=3)
        self.put("nan.dat", dat([("w", 1, [1.0, float("nan")])]))
        self.refused("convert", "nan.dat", "-o", "m.dat", saying=["importance of 'w': sum 1 of 2 is nan"], code=3)
        self.put("calls.dat", dat([("w", -3, [1.0])]))
        self.refused("convert", "calls.dat", "-o", "m.gguf", saying=["entry 'w': -3 calls"], code=3)

    def test_a_matrix_beside_a_model_is_a_side_file(self):
        self.put("m.dat", dat(ENTRIES))
        pathlib.Path("model").mkdir()
        self.put("model/model.gguf", matrix([("w", [1], [1])]))
        self.put("model/imatrix.dat", dat(ENTRIES))
        said = self.said("inspect", "model")
        self.assertIn("1 tensor", said)
        self.assertIn("with    imatrix.dat", said)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
