"""Compressed weight files taken apart, from wtool-compressed(7), and originals that are hard to compress or to
restore. Nothing here is wtool's. (Python's standard library only)
"""
import json
import math
import pathlib
import random
import shutil
import struct
import subprocess

ZSTD = shutil.which("zstd")
INDEX_MAGIC, TABLE_MAGIC, END_MAGIC = 0x184D2A57, 0x184D2A5E, 0x8F92EAB1
CHUNK = 1 << 20

# name in safetensors: elements and bytes of the smallest whole number of bytes
SAFETENSORS = {
    "BOOL": (1, 1), "U8": (1, 1), "I8": (1, 1), "U16": (1, 2), "I16": (1, 2), "U32": (1, 4), "I32": (1, 4), "U64": (1, 8),
    "I64": (1, 8), "F16": (1, 2), "BF16": (1, 2), "F32": (1, 4), "F64": (1, 8), "C64": (1, 8), "F8_E4M3": (1, 1),
    "F8_E5M2": (1, 1), "F8_E8M0": (1, 1), "F8_E4M3FNUZ": (1, 1), "F8_E5M2FNUZ": (1, 1), "F6_E2M3": (4, 3), "F6_E3M2": (4, 3),
    "F4": (2, 1),
}


def zstd(*args, **more):
    return subprocess.run([ZSTD, *args], capture_output=True, check=True, **more).stdout


def decoded(path):
    """What `zstd -d` makes of it."""
    return zstd("-dcq", str(path))


# ---- The container

MASK = (1 << 64) - 1
P1, P2, P3, P4, P5 = (11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579,
                      2870177450012600261)


def xxh64(data):
    """XXH64 with seed 0, from its specification."""
    rotl = lambda x, r: ((x << r) | (x >> (64 - r))) & MASK
    step = lambda acc, lane: rotl((acc + lane * P2) & MASK, 31) * P1 & MASK
    at, n = 0, len(data)
    if n >= 32:
        acc = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
        for lanes in struct.iter_unpack("<4Q", data[: n // 32 * 32]):
            acc = [step(a, lane) for a, lane in zip(acc, lanes)]
        at = n // 32 * 32
        h = sum(rotl(a, r) for a, r in zip(acc, (1, 7, 12, 18))) & MASK
        for a in acc:
            h = ((h ^ step(0, a)) * P1 + P4) & MASK
    else:
        h = P5
    h = (h + n) & MASK
    while at + 8 <= n:
        h = (rotl(h ^ step(0, struct.unpack_from("<Q", data, at)[0]), 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= n:
        h = (rotl(h ^ struct.unpack_from("<I", data, at)[0] * P1 & MASK, 23) * P2 + P3) & MASK
        at += 4
    for byte in data[at:]:
        h = rotl(h ^ byte * P5 & MASK, 11) * P1 & MASK
    h = (h ^ h >> 33) * P2 & MASK
    h = (h ^ h >> 29) * P3 & MASK
    return h ^ h >> 32


assert xxh64(b"") == 0xEF46DB3751D8E999 and xxh64(bytes(101)) == xxh64(bytearray(101)) != xxh64(bytes(100))


class Compressed:
    """frames: (where, bytes, bytes of content, checksum), of all frames before the table; index: the JSON document."""

    def __init__(self, path):
        self.raw = raw = pathlib.Path(path).read_bytes()
        count, flags, end = struct.unpack("<IBI", raw[-9:])
        assert flags == 0x80 and end == END_MAGIC, (flags, hex(end))
        self.table_at = len(raw) - 9 - 12 * count - 8
        assert struct.unpack_from("<II", raw, self.table_at) == (TABLE_MAGIC, 12 * count + 9)
        self.frames, at = [], 0
        for stored, content, checksum in struct.iter_unpack("<III", raw[self.table_at + 8 : -9]):
            self.frames.append((at, stored, content, checksum))
            at += stored
        assert at == self.table_at
        self.index_at, size, content, checksum = self.frames[-1]
        assert struct.unpack_from("<II", raw, self.index_at) == (INDEX_MAGIC, size - 8) and content == checksum == 0
        self.index = json.loads(raw[self.index_at + 8 : self.table_at])

    def pieces(self):
        return self.index["pieces"]

    def codecs(self):
        """Of each tensor: its codec, "same_as" or "same_as_base"."""
        how = lambda p: p.get("codec") or ("same_as" if "same_as" in p else "same_as_base")
        return {p["tensor"]: how(p) for p in self.pieces() if "tensor" in p}

    def frames_of(self, tensor):
        """The numbers of its frames."""
        stored = [p for p in self.pieces() if "codec" in p]
        starts = [p["first_frame"] for p in stored] + [len(self.frames) - 1]
        i = [p.get("tensor") for p in stored].index(tensor)
        return range(starts[i], starts[i + 1])

    def with_index(self, change):
        """The file with another index: `change` gets the text and returns one."""
        text = change(self.raw[self.index_at + 8 : self.table_at].decode()).encode()
        frames = self.frames[:-1] + [(self.index_at, len(text) + 8, 0, 0)]
        return self.raw[: self.index_at] + struct.pack("<II", INDEX_MAGIC, len(text)) + text + table(frames)


def table(frames):
    entries = b"".join(struct.pack("<III", *f[1:]) for f in frames)
    return struct.pack("<II", TABLE_MAGIC, len(entries) + 9) + entries + struct.pack("<IBI", len(frames), 0x80, END_MAGIC)


# ---- Originals


def gaussian(kind, count, sigma=0.02, seed=1):
    """Like trained weights, as F32, BF16 or F16."""
    rng = random.Random(seed)
    values = [rng.gauss(0, sigma) for _ in range(min(count, 50_000))]
    values = (values * (count // max(1, len(values)) + 1))[:count]  # the same again is no pattern within 100 kB
    if kind == "F16":
        return struct.pack(f"<{count}e", *values)
    raw = struct.pack(f"<{count}f", *values)
    return raw if kind == "F32" else b"".join(raw[i + 2 : i + 4] for i in range(0, len(raw), 4))


def special(kind, count, pattern, seed=2):
    """Floats of one sort in their bits: NaN with every payload and sign, subnormals, infinities and zeros of both signs."""
    size, mantissa = {"BF16": (2, 7), "F16": (2, 10), "F32": (4, 23), "F64": (8, 52)}[kind]
    exponents = (1 << (8 * size - 1 - mantissa)) - 1
    rng, out = random.Random(seed), []
    for i in range(count):
        sign = rng.getrandbits(1) << (8 * size - 1)
        if pattern == "nan":
            bits = exponents << mantissa | rng.randrange(1, 1 << mantissa)
        elif pattern == "subnormal":
            bits = rng.getrandbits(mantissa)
        else:
            bits = rng.choice((0, exponents << mantissa))
        out.append((sign | bits).to_bytes(size, "little"))
    return b"".join(out)


def sorts(kind):
    """Of contents. `kind`: safetensors' name of the type."""
    floats = ("nan", "subnormal", "extreme") if kind in ("BF16", "F16", "F32", "F64") else ()
    return ("zeros", "equal", "random", "few", "ramp", *floats, *(("gaussian", "mixed") if floats and kind != "F64" else ()))


def contents(kind, sort, size, seed=3):
    """So many bytes."""
    rng = random.Random(seed)
    width = SAFETENSORS[kind][1]
    if sort in ("nan", "subnormal", "extreme"):
        return special(kind, size // width, sort)
    if sort == "gaussian":
        return gaussian(kind, size // width)
    if sort == "mixed":  # with outliers: escapes
        out = bytearray(gaussian(kind, size // width))
        for i in range(0, size // width, 17):
            out[i * width : (i + 1) * width] = rng.randbytes(width)
        return bytes(out)
    return {"zeros": lambda: bytes(size), "equal": lambda: b"\xa5" * size, "random": lambda: rng.randbytes(size),
            "few": lambda: bytes(rng.choices(b"\0\0\0\0\0\0\1\2", k=size)),
            "ramp": lambda: bytes(i * 7 % 251 for i in range(size))}[sort]()


def hard_safetensors():
    """Tensors of every type, of 0, 1 and odd numbers of elements, with every content."""
    out = {}
    for kind, (elements, width) in SAFETENSORS.items():
        out[f"{kind}.none"] = (kind, [0], b"")
        out[f"{kind}.also none"] = (kind, [3, 0, 2], b"")
        for blocks in (1, 2, 3, 33, 2049):
            for name in sorts(kind):
                raw = contents(kind, name, blocks * width, seed=blocks)
                if kind == "BOOL":
                    raw = bytes(b & 1 for b in raw)
                shape = [] if blocks == elements == 1 and name == "zeros" else [blocks * elements]
                out[f"{kind}.{name}.{blocks}"] = (kind, shape, raw)
    return out


def large_safetensors():
    """Tensors of several chunks, the last of them odd."""
    out = {}
    for kind, sort in (("BF16", "gaussian"), ("BF16", "mixed"), ("F32", "mixed"), ("F16", "gaussian"), ("F64", "few"),
                       ("U8", "few"), ("I32", "random")):
        width = SAFETENSORS[kind][1]
        count = (CHUNK + 64 * 1024) // width + 3
        out[f"{kind}.{sort}"] = (kind, [count], contents(kind, sort, count * width))
    return out


def blocks(name, count, size, seed=4):
    """Blocks of ggml's: scales that are f16 of one size, codes that are not uniform."""
    rng = random.Random(f"{name}{seed}")
    scale = lambda: struct.pack("<e", abs(rng.gauss(0.01, 0.002)) + 1e-4)
    codes = lambda n: bytes((min(15, max(0, round(rng.gauss(8, 2.5)))) | min(15, max(0, round(rng.gauss(8, 2.5)))) << 4)
                            for _ in range(n))
    return b"".join((scale() + codes(size))[:size] for _ in range(count))


def hard_gguf(types):
    """`types`: of weight_files. Tensors of one, of three and of many blocks, and random ones."""
    out = {}
    for name, elements, size in types.values():
        for count in (1, 3, 257):
            out[f"{name}.{count}"] = (name, [count, elements], blocks(name, count, size))
        out[f"{name}.random"] = (name, [elements], random.Random(name).randbytes(size))
        out[f"{name}.zeros"] = (name, [5, elements], bytes(5 * size))
    return out


def npy(descr, shape, raw, fortran=False):
    text = repr({"descr": descr, "fortran_order": fortran, "shape": tuple(shape)})
    text += " " * (-(len(text) + 11) % 64) + "\n"
    assert len(raw) == math.prod(shape) * int(descr[2:]), (descr, shape)
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + raw


def hard_npy():
    """name -> file"""
    out = {}
    for code, width in (("b1", 1), ("i1", 1), ("u1", 1), ("i2", 2), ("u2", 2), ("i4", 4), ("u4", 4), ("i8", 8), ("u8", 8),
                        ("f2", 2), ("f4", 4), ("f8", 8), ("c8", 8), ("c16", 16), ("V2", 2), ("V1", 1)):
        for order in "|" if width == 1 or code[0] == "V" else "<>":
            for shape in ([], [0], [1], [33, 3], [2049]):
                raw = random.Random(code).randbytes(math.prod(shape) * width)
                if code == "b1":
                    raw = bytes(b & 1 for b in raw)
                out[f"{code}{'be' if order == '>' else ''}.{len(shape)}.{math.prod(shape)}"] = npy(
                    order + code, shape, raw, fortran=len(shape) == 2 and order == ">")
    return out
