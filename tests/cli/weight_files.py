"""Files of weights for the tests, written and read from the formats' descriptions: nothing here is
wtool's. And Command, a test case in a folder of its own. (Python's standard library only)
"""
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

# ---- GGUF

# type id: (name, elements, bytes of a block), from ggml's table
TYPES = {
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 10: ("q2_k", 256, 84), 11: ("q3_k", 256, 110), 12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210), 20: ("iq4_nl", 32, 18), 23: ("iq4_xs", 256, 136), 24: ("i8", 1, 1),
    26: ("i32", 1, 4), 28: ("f64", 1, 8), 30: ("bf16", 1, 2), 34: ("tq1_0", 256, 54), 35: ("tq2_0", 256, 66), 39: ("mxfp4", 32, 17),
    40: ("nvfp4", 64, 36), 41: ("q1_0", 128, 18), 42: ("q2_0", 64, 18), 16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74),
    18: ("iq3_xxs", 256, 98), 19: ("iq1_s", 256, 50), 21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82), 25: ("i16", 1, 2),
    27: ("i64", 1, 8), 29: ("iq1_m", 256, 56),
}
IDS = {name: i for i, (name, _, _) in TYPES.items()}
# What keys hold: numbers by struct's letters, and these.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
U16, U32, I32, F32, STRING, ARRAY = 2, 4, 5, 6, 8, 9


def string(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def key(name, kind, value):
    """An array's value is (kind of its elements, [value, …])."""

    def pack(kind, value):
        return string(value) if kind == STRING else struct.pack("<" + NUMBERS[kind], value)

    out = string(name) + struct.pack("<I", kind)
    if kind != ARRAY:
        return out + pack(kind, value)
    of, values = value
    return out + struct.pack("<IQ", of, len(values)) + b"".join(pack(of, v) for v in values)


def tensor_info(name, kind, shape, offset):
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], IDS[kind], offset)


def gguf(tensors, keys):
    """tensors: name -> (type, shape outermost first, bytes); keys: name -> (kind, value)"""
    align = keys.get("general.alignment", (U32, 32))[1]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
    head += b"".join(key(name, *value) for name, value in keys.items())
    data = b""
    for name, (kind, shape, raw) in tensors.items():
        head += tensor_info(name, kind, shape, len(data))
        data += raw + bytes(-len(raw) % align)
    return head + bytes(-len(head) % align) + data


def read_gguf(path):
    """What gguf() takes, of either byte order: (keys, tensors). An array is a list here."""
    raw, at = pathlib.Path(path).read_bytes(), 4
    order = "<" if struct.unpack_from("<I", raw, at)[0] == 3 else ">"

    def take(form):
        nonlocal at
        (value,) = struct.unpack_from(order + form, raw, at)
        at += struct.calcsize(order + form)
        return value

    def text():
        nonlocal at
        n = take("Q")
        at += n
        return raw[at - n : at].decode()

    def value(kind):
        if kind == ARRAY:
            of, n = take("I"), take("Q")
            return [value(of) for _ in range(n)]
        return text() if kind == STRING else take(NUMBERS[kind])

    assert raw[:4] == b"GGUF" and take("I") == 3
    n_tensors, n_keys = take("Q"), take("Q")
    keys = {}
    for _ in range(n_keys):
        name, kind = text(), take("I")
        keys[name] = (kind, value(kind))
    infos = [(text(), [take("Q") for _ in range(take("I"))], take("I"), take("Q")) for _ in range(n_tensors)]
    align = keys.get("general.alignment", (U32, 32))[1]
    base = -(-at // align) * align
    tensors = {}
    for name, dims, kind, offset in infos:
        type_name, elements, size = TYPES[kind]
        assert offset % align == 0, f"{name} is not aligned to {align}"
        end = base + offset + math.prod(dims) // elements * size
        assert end <= len(raw), f"{name} ends behind the file"
        tensors[name] = (type_name, dims[::-1], raw[base + offset : end])
    return keys, tensors


# ---- Importance matrices


def dat(entries, tail=None):
    """llama.cpp's older form. entries: [(name, calls, sums of squares)]; tail: (chunks, dataset)"""
    out = struct.pack("<i", len(entries))
    for name, calls, values in entries:
        out += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values)) + floats(values)
    if tail:
        out += struct.pack("<ii", tail[0], len(tail[1])) + tail[1].encode()
    return out


# ---- safetensors


def write_safetensors(path, tensors, metadata=None):
    """tensors: name -> (dtype, shape, bytes)"""
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_safetensors(source):
    """Of a path or of bytes: name -> (dtype, shape, bytes)"""
    raw = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
    (n,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + n])
    header.pop("__metadata__", None)
    data = memoryview(raw)[8 + n :]
    return {name: (t["dtype"], t["shape"], bytes(data[t["data_offsets"][0] : t["data_offsets"][1]]))
            for name, t in header.items()}


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


# ---- Tests


class Command(unittest.TestCase):
    """Runs the program that the script's first argument names, in a fresh folder."""

    program = None

    @classmethod
    def setUpClass(cls):
        cls.program = str(pathlib.Path(sys.argv[1]).resolve())

    def setUp(self):
        self.old = os.getcwd()
        self.dir = tempfile.mkdtemp(prefix="wtool-test-")
        os.chdir(self.dir)

    def tearDown(self):
        os.chdir(self.old)
        shutil.rmtree(self.dir)

    def wtool(self, *args, code=0, locale="C.UTF-8"):
        env = dict(os.environ, LC_ALL=locale, COLUMNS="120")
        done = subprocess.run([self.program, *args], capture_output=True, text=True, env=env)
        self.assertEqual(done.returncode, code, f"{args}: {done.stdout[:2000]}{done.stderr}")
        return done

    def refused(self, *args, saying=(), code=2):
        """Fails with the status, says so in one error line, leaves the folder as it was."""
        before = sorted(os.listdir("."))
        error = self.wtool(*args, code=code).stderr
        self.assertRegex(error, "(?m)^wtool: error: ")
        for word in saying:
            self.assertIn(word, error)
        self.assertEqual(sorted(os.listdir(".")), before)
        return error
