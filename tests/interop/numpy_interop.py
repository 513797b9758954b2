#!/usr/bin/env python3
"""numpy writes, wtool reads, and the reverse: every dtype, byte order, memory order and odd shape.

usage: numpy_interop.py WTOOL         skipped (77) where numpy is not installed
"""
import itertools
import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("no numpy: skipped")
    sys.exit(77)

DTYPES = ["b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
OURS = {"b1": "bool", "c8": "c64", "c16": "c128"}
SHAPES = [(), (1,), (7,), (0,), (0, 3), (3, 4), (5, 1), (2, 3, 4), (9, 2, 5), (2, 3, 1, 4)]
FAULTS = []


def wtool(*args, status=0):
    run = subprocess.run([sys.argv[1], *args], capture_output=True, stdin=subprocess.DEVNULL)
    if run.returncode != status:
        FAULTS.append(f"{args}: exit {run.returncode} instead of {status}: {run.stderr.decode()}")
    return run


def check(what, ok):
    if not ok:
        FAULTS.append(what)


def values(code, shape):
    """Every bit pattern is as good as another; the same in each run."""
    kind, size = code[0], int(code[1:])
    n = int(np.prod(shape, dtype=np.int64))
    if kind == "b":
        return (np.arange(n) % 3 == 0).reshape(shape)
    raw = (np.arange(n * size, dtype=np.uint64) * 2654435761 >> 7).astype(np.uint8)
    return raw.view(f"<{code}").reshape(shape) if n else np.zeros(shape, f"<{code}")


def same(a, b):
    """Equal to the bit, in the shape and order that numpy shows; NaNs included."""
    a, b = np.asarray(a), np.asarray(b)
    little = [np.ascontiguousarray(x.astype(x.dtype.newbyteorder("<"), copy=False)) for x in (a, b)]
    return a.shape == b.shape and little[0].dtype == little[1].dtype and \
        little[0].tobytes() == little[1].tobytes()


def arrays():
    for code, shape in itertools.product(DTYPES, SHAPES):
        for order, memory in itertools.product("<>", "CF"):
            if order == ">" and int(code[1:]) == 1:
                continue
            a = np.asarray(values(code, shape))
            yield code, np.array(a.astype(a.dtype.newbyteorder(order)), order=memory)


def numpy_bytes(array):
    """The file that numpy itself writes for this array in C order, little-endian."""
    path = os.path.join(FOLDER, "expected.npy")
    array = np.asarray(array)
    little = array.astype(array.dtype.newbyteorder("<"))
    np.save(path, little.copy(order="C").reshape(array.shape))
    with open(path, "rb") as f:
        return f.read()


def numpy_writes_wtool_reads():
    model = os.path.join(FOLDER, "model")
    written = {}
    for i, (code, array) in enumerate(arrays()):
        name = f"group{i % 3}/a{i}"
        path = os.path.join(model, name + ".npy")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        np.save(path, array)
        written[name] = (code, array)
    document = json.loads(wtool("inspect", "--json", model).stdout)
    listed = {t["name"]: t for t in document["tensors"]}
    check(f"{len(listed)} of {len(written)} arrays listed", listed.keys() == written.keys())
    for name, (code, array) in written.items():
        dtype = OURS.get(code) or code[0] + str(8 * int(code[1:]))
        got = listed.get(name, {})
        check(f"{name}: {got} for {array.dtype} {array.shape}",
              (got.get("dtype"), got.get("shape"), got.get("bytes")) ==
              (dtype, list(array.shape), array.nbytes))
    return model, written


def converted_to_npy(model, written):
    out = os.path.join(FOLDER, "again")
    wtool("convert", model, "-o", out + "/", "--to", "npy")
    for name, (_, array) in written.items():
        path = os.path.join(out, name + ".npy")
        if not os.path.exists(path):
            FAULTS.append(f"{name}: not converted")
            continue
        check(f"{name}: {array.dtype} {array.shape} came back as {np.load(path).dtype}",
              same(np.load(path), array))
        with open(path, "rb") as f:
            check(f"{name}: not the bytes that numpy writes", f.read() == numpy_bytes(array))


def through_safetensors(model, written):
    """There and back: all dtypes but c128, which safetensors does not have."""
    middle, out = os.path.join(FOLDER, "m.safetensors"), os.path.join(FOLDER, "back")
    wtool("convert", model, "-o", middle, "-x", "dtype:c128")
    wtool("convert", middle, "-o", out + "/", "--to", "npy")
    for name, (code, array) in written.items():
        path = os.path.join(out, name + ".npy")
        if code != "c16":
            check(f"{name}: {array.dtype} {array.shape} changed on the way",
                  os.path.exists(path) and same(np.load(path), array))


def shown(model, written):
    for i, (name, (code, array)) in enumerate(written.items()):
        if i % 7 or code == "b1":
            continue
        out = os.path.join(FOLDER, "shown.npy")
        wtool("show", model, name, "-f", "-o", out)
        check(f"{name}: shown otherwise", same(np.load(out), array))
        if array.ndim == 2 and array.size:
            wtool("show", model, f"{name}[1:,:1]", "-f", "-o", out)
            check(f"{name}: slice differs", same(np.load(out), array[1:, :1]))


def big_endian_out():
    single = os.path.join(FOLDER, "single.npy")
    array = values("f4", (3, 4))
    np.save(single, array)
    out = os.path.join(FOLDER, "big.npy")
    wtool("convert", single, "-o", out, "--endian", "big")
    if os.path.exists(out):
        check("big-endian output", np.load(out).dtype == np.dtype(">f4") and
              same(np.load(out), array))


def opaque():
    """bfloat16 as JAX saves it: raw voids of two bytes."""
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], "<u2")
    path, out = os.path.join(FOLDER, "bf16.npy"), os.path.join(FOLDER, "f32.npy")
    np.save(path, bits.view("V2"))
    check("void is listed as v2",
          json.loads(wtool("inspect", "--json", path).stdout)["tensors"][0]["dtype"] == "v2")
    wtool("convert", path, "--as", "bf16", "--dtype", "f32", "-o", out)
    if os.path.exists(out):
        check("bf16 values", np.load(out).view("<u4").tolist() == [b << 16 for b in bits.tolist()])


def refused():
    for array in (np.array([{}], object), np.zeros(2, [("a", "f4"), ("b", "i2")]),
                  np.array(["x"]), np.array([b"x"]), np.zeros(1, "M8[ns]"), np.zeros(1, "g")):
        path = os.path.join(FOLDER, "no.npy")
        np.save(path, array)
        wtool("inspect", path, status=3)


with tempfile.TemporaryDirectory(prefix="wtool-numpy-") as FOLDER:
    MODEL, WRITTEN = numpy_writes_wtool_reads()
    converted_to_npy(MODEL, WRITTEN)
    through_safetensors(MODEL, WRITTEN)
    shown(MODEL, WRITTEN)
    big_endian_out()
    opaque()
    refused()
    print(f"{len(WRITTEN)} arrays, {len(FAULTS)} faults")
    for FAULT in FAULTS[:40]:
        print(FAULT)
    sys.exit(1 if FAULTS else 0)
