#!/usr/bin/env python3
"""Restores the original of a compressed file from what `zstd -d` makes of it, with numpy and nothing of wtool's: written
from wtool-compressed(7).

usage: restore_planes.py restore FILE OUTPUT [BASE...]     FILE: of the form 'planes'; BASE: the base's safetensors files
       restore_planes.py test WTOOL SOURCE                 compresses files of every type and restores them
"""
import hashlib
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("no numpy: skipped")
    sys.exit(77)


class Fault(Exception):
    pass


def read_safetensors(raw):
    """(metadata, name -> bytes)"""
    (n,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + n])
    metadata = header.pop("__metadata__", {})
    data = np.frombuffer(raw, np.uint8, offset=8 + n)
    return metadata, {name: data[t["data_offsets"][0] : t["data_offsets"][1]] for name, t in header.items()}


class Stream:
    """The planes of one piece, front to back."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise Fault(f"a plane of {n} bytes at {self.at} of {len(self.data)}")
        self.at += n
        return self.data[self.at - n : self.at]


def exponents(pairs, n, stream):
    """Those of n elements, and stream is behind the escapes."""
    nibbles = np.empty(2 * len(pairs), np.uint8)
    nibbles[0::2], nibbles[1::2] = pairs & 15, pairs >> 4
    nibbles = nibbles[:n]
    (top,) = stream.take(1)
    out = top - nibbles  # modulo 256
    escaped = nibbles == 12
    out[escaped] = stream.take(np.count_nonzero(escaped))
    return out.astype(np.uint32)


def chunk_bf16(stream, n, left, base):
    signs = stream.take(n).astype(np.uint32)
    e = exponents(stream.take((n + 1) // 2), n, stream)
    numbers = (signs >> 7 << 15) | (e << 7) | (signs & 127)
    return numbers.astype("<u2").tobytes() + stream.take(left).tobytes()


def chunk_f32(stream, n, left, base):
    low, middle, signs = (stream.take(n).astype(np.uint32) for _ in range(3))
    e = exponents(stream.take((n + 1) // 2), n, stream)
    numbers = (signs >> 7 << 31) | (e << 23) | ((signs & 127) << 16) | (middle << 8) | low
    return numbers.astype("<u4").tobytes() + stream.take(left).tobytes()


def far(stream, n, left):
    """The upper 16 bits of z, and what is left over."""
    small = stream.take(n).astype(np.uint32)
    is_far = small == 255
    count = np.count_nonzero(is_far)
    low = stream.take(count).astype(np.uint32)
    small[is_far] = low | stream.take(count).astype(np.uint32) << 8
    return small, stream.take(left).tobytes()


def undo(z, base, bits):
    """The numbers, from the differences to the base's."""
    most, sign = np.uint64(2**bits - 1), np.uint64(2 ** (bits - 1))
    z, base = z.astype(np.uint64), base.astype(np.uint64)
    d = np.where(z & np.uint64(1), (z >> np.uint64(1)) ^ most, z >> np.uint64(1))
    ordered = np.where(base & sign, base ^ most, base ^ sign)
    sum_ = (d + ordered) & most
    return np.where(sum_ & sign, sum_ ^ sign, sum_ ^ most)


def chunk_delta16(stream, n, left, base):
    z, rest = far(stream, n, left)
    return undo(z, np.frombuffer(base, "<u2", n), 16).astype("<u2").tobytes() + rest


def chunk_delta32(stream, n, left, base):
    low, middle = stream.take(n).astype(np.uint32), stream.take(n).astype(np.uint32)
    upper, rest = far(stream, n, left)
    return undo(upper << 16 | middle << 8 | low, np.frombuffer(base, "<u4", n), 32).astype("<u4").tobytes() + rest


def chunk_columns(stream, n, left, block, planes):
    out = np.empty((n, block), np.uint8)
    for columns in planes:
        plane = stream.take(n * sum(length for _, length in columns)).reshape(n, -1)
        at = 0
        for offset, length in columns:
            out[:, offset : offset + length] = plane[:, at : at + length]
            at += length
    return out.tobytes() + stream.take(left).tobytes()


CODECS = {"bf16": (2, chunk_bf16), "f32": (4, chunk_f32), "delta16": (2, chunk_delta16), "delta32": (4, chunk_delta32)}


def piece_of(piece, data, most, base):
    stream, out, done = Stream(data), [], 0
    codec = piece["codec"]
    block = 1 if codec == "bytes" else piece["block"] if codec == "columns" else CODECS[codec][0]
    while done < piece["bytes"]:
        size = min(most // block * block, piece["bytes"] - done)
        n, left = size // block, size % block
        if codec == "bytes":
            out.append(stream.take(size).tobytes())
        elif codec == "columns":
            out.append(chunk_columns(stream, n, left, block, piece["planes"]))
        else:
            wanted = b"" if base is None else base[done : done + size]
            out.append(CODECS[codec][1](stream, n, left, wanted + bytes(size - len(wanted))))
        done += size
    if stream.at != len(data):
        raise Fault(f"{len(data) - stream.at} bytes are left over")
    return b"".join(out)


def restore(stream, base_files):
    """`stream`: what zstd gives; `base_files`: their bytes."""
    metadata, tensors = read_safetensors(stream)
    if metadata.get("wtool.compressed") != "1":
        raise Fault("no planes of version 1")
    base = {}
    if "wtool.base" in metadata:
        given = {hashlib.sha256(raw).hexdigest(): raw for raw in base_files}
        for file in json.loads(metadata["wtool.base"]):
            if file["sha256"] not in given:
                raise Fault(f"needs the base {file['name']}")
            base.update({n: t.tobytes() for n, t in read_safetensors(given[file["sha256"]])[1].items()})
    out, by_name = [], {}
    for piece in json.loads(metadata["wtool.pieces"]):
        if "same_as" in piece:
            raw = by_name[piece["same_as"]][: piece["bytes"]]
        elif "base" in piece:
            raw = base[piece["base"]]
        else:
            name = piece["name"].removesuffix("#" + piece["codec"])
            raw = piece_of(piece, tensors[piece["name"]], int(metadata["wtool.chunk"]),
                           base[name] if piece["codec"].startswith("delta") else None)
        if len(raw) != piece["bytes"]:
            raise Fault(f"{len(raw)} bytes, not {piece}")
        if "base" in piece:
            name = piece["base"]
        if "same_as" not in piece:
            by_name[name] = raw
        out.append(raw)
    original = b"".join(out)
    if len(original) != int(metadata["wtool.bytes"]) or hashlib.sha256(original).hexdigest() != metadata["wtool.sha256"]:
        raise Fault("another file than the original")
    return original


# ---- The test


def test(wtool, source):
    sys.path.insert(0, str(pathlib.Path(source) / "tests/cli"))
    from compressed_files import ZSTD, blocks, contents, decoded, gaussian, hard_gguf, hard_npy, hard_safetensors, large_safetensors, sorts
    from weight_files import TYPES, U32, gguf, write_safetensors

    if not ZSTD:
        print("no zstd program: skipped")
        return 77
    wtool = os.path.abspath(wtool)
    seen = set()

    def check(path, *options):
        done = subprocess.run([wtool, "compress", path, "-f", "-o", "x.zst", "-q", *(options or ["--planes"])], capture_output=True, text=True)
        assert done.returncode == 0, (path, done.stderr)
        stream = decoded("x.zst")
        for piece in json.loads(read_safetensors(stream)[0]["wtool.pieces"]):
            seen.add(piece.get("codec") or ("same_as" if "same_as" in piece else "base"))
        base = [pathlib.Path(o).read_bytes() for o in options[1:]]
        assert restore(stream, base) == pathlib.Path(path).read_bytes(), path

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_safetensors("hard.safetensors", hard_safetensors(), {"format": "pt"})
        write_safetensors("large.safetensors", large_safetensors())
        raw = gaussian("BF16", 3000)
        write_safetensors("tied.safetensors", {"a": ("BF16", [3000], raw), "a#b": ("BF16", [30, 100], raw)})
        write_safetensors("none.safetensors", {})
        for path in ("hard.safetensors", "large.safetensors", "tied.safetensors", "none.safetensors"):
            check(path)
        for align in (32, 1024):
            pathlib.Path("m.gguf").write_bytes(gguf(hard_gguf(TYPES), {"general.alignment": (U32, align)}))
            check("m.gguf")
        large = {n: (n, [9000, 256 // e * e if e > 1 else 256], blocks(n, 9000 * (256 // e), size))
                 for n, e, size in TYPES.values() if n in ("q8_0", "q4_0", "q4_k", "q6_k")}
        pathlib.Path("l.gguf").write_bytes(gguf(large, {}))
        check("l.gguf")
        for name, array in hard_npy().items():
            pathlib.Path("a.npy").write_bytes(array)
            if name.split(".")[1] in "12":
                check("a.npy")
        # Files of the reference implementations.
        for path in sorted((pathlib.Path(source) / "testdata").glob("*/*")):
            if path.suffix in (".safetensors", ".gguf", ".npy") and path.stat().st_size < 1 << 20:
                if subprocess.run([wtool, "inspect", "--alone", path], capture_output=True).returncode == 0:
                    check(str(path))
        base, tuned = {}, {}
        for kind in ("BF16", "F16", "F32"):
            for sort in sorts(kind):
                n = 8 * 40_001 if sort == "gaussian" else 8 * 101
                width = 4 if kind == "F32" else 2
                a = np.frombuffer(contents(kind, sort, n), f"<u{width}")
                step = np.random.default_rng(1).integers(-9, 10, len(a)).astype(a.dtype)
                shape = [len(a)]
                base[f"{kind}.{sort}"] = (kind, shape, a.tobytes())
                tuned[f"{kind}.{sort}"] = (kind, shape, (a + step).tobytes())
        base["same"] = tuned["same"] = ("I32", [500], bytes(range(250)) * 8)
        tuned["new"] = ("F32", [999], gaussian("F32", 999))
        write_safetensors("base.safetensors", base)
        write_safetensors("tuned.safetensors", tuned)
        check("tuned.safetensors", "--base", "base.safetensors")
        try:
            restore(decoded("x.zst"), [pathlib.Path("tuned.safetensors").read_bytes()])
            raise AssertionError("another base was taken")
        except Fault as fault:
            assert "base.safetensors" in str(fault), fault
        os.chdir("/")
    missing = {*CODECS, "bytes", "columns", "same_as", "base"} - seen
    assert not missing, f"never met: {missing}"
    return 0


def main():
    if sys.argv[1] == "test":
        return test(*sys.argv[2:4])
    file, output, *base = sys.argv[2:]
    stream = subprocess.run(["zstd", "-dcq", file], capture_output=True, check=True).stdout
    pathlib.Path(output).write_bytes(restore(stream, [pathlib.Path(b).read_bytes() for b in base]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
