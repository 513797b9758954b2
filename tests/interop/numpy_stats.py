#!/usr/bin/env python3
"""The figures of `wtool stats` against numpy's, for every type, order and odd shape.

usage: numpy_stats.py WTOOL         skipped (77) where numpy is not installed
"""
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

SHAPES = [(), (1,), (0, 3), (7,), (3, 4), (300, 257), (2, 3, 40)]
TYPES = ["b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
PERCENTILES = {"p0.1": 0.1, "p1": 1, "p50": 50, "p99": 99, "p99.9": 99.9}
FAULTS = []


def check(what, ok):
    if not ok:
        FAULTS.append(what)


def values(code, shape, seed):
    """Gaussian floats with zeros, subnormals, NaN and infinities; integers of any size."""
    random = np.random.default_rng(seed)
    if code == "b1":
        return random.integers(0, 2, shape).astype(bool)
    if code[0] in "iu":
        limits = np.iinfo(code)
        return random.integers(limits.min, limits.max, shape, dtype=code, endpoint=True)
    array = np.asarray(random.normal(0.3, 1, shape)).astype(code)
    flat = array.reshape(-1)
    if flat.size > 50:
        flat[::11] = 0
        flat[5::97] = np.finfo(code).tiny / 4
        flat[7::89] = [np.nan, np.inf, -np.inf][seed % 3]
    return array


def near(a, b, relative=1e-9):
    return abs(a - b) <= relative * max(abs(a), abs(b), 1e-300)


def number(v):
    return int(v) if isinstance(v, str) else v


def compare(name, array, t):
    flat = np.asarray(array).reshape(-1)
    finite = flat[np.isfinite(flat)] if flat.dtype.kind == "f" else flat
    check(f"{name}: count {t['count']}", t["count"] == flat.size)
    check(f"{name}: NaN {t['nan']}", t["nan"] == int(np.isnan(flat).sum()))
    check(f"{name}: Inf {t['inf']}", t["inf"] == int(np.isinf(flat).sum()))
    check(f"{name}: zeros {t['zeros']}", t["zeros"] == int((flat == 0).sum()))
    if flat.size > finite.size:
        check(f"{name}: first", t["first_non_finite"]["index"] == int(np.argmin(np.isfinite(flat))))
    if finite.size == 0:
        return check(f"{name}: min of nothing", "min" not in t)
    check(f"{name}: min {t['min']}", number(t["min"]) == finite.min().item())
    check(f"{name}: max {t['max']}", number(t["max"]) == finite.max().item())
    wide = finite.astype(np.longdouble)
    mean, std = wide.mean(), wide.std()
    check(f"{name}: mean {t['mean']} for {mean}", abs(t["mean"] - mean) <= 1e-12 * np.abs(wide).max())
    check(f"{name}: std {t['std']} for {std}", near(t["std"], float(std)))
    if flat.dtype.kind == "f":
        small = int(((finite != 0) & (np.abs(finite) < np.finfo(flat.dtype).tiny)).sum())
        check(f"{name}: subnormals {t['subnormals']} for {small}", t["subnormals"] == small)
    exact = t["percentiles_from"] == "values"
    check(f"{name}: not exact", exact or flat.dtype.itemsize > 2)
    for key, share in PERCENTILES.items():
        wanted = float(np.percentile(wide, share, method="inverted_cdf"))
        got = t["percentiles"][key]
        check(f"{name}: {key} {got} for {wanted}", got == wanted if exact else near(got, wanted, 1 / 255))
    outliers = int((np.abs(wide - mean) > 6 * std).sum())
    check(f"{name}: outliers", t["outliers"] == outliers if exact else t["outliers"] <= outliers)
    if exact and finite.size > 1 and finite.min() < finite.max() and flat.dtype.itemsize <= 2:
        counts, _ = np.histogram(wide.astype(float), 16)
        # A value on a border may fall to either side.
        off = np.abs(counts - np.array(t["histogram"]["counts"])).sum()
        check(f"{name}: histogram {t['histogram']['counts']} for {counts}", off <= counts.sum() // 50 + 2)


def main():
    with tempfile.TemporaryDirectory(prefix="wtool-numpy-") as folder:
        written = {}
        for i, (code, shape) in enumerate((c, s) for c in TYPES for s in SHAPES):
            array = values(code, shape, i)
            if i % 4 == 1 and array.dtype.itemsize > 1:
                array = array.astype(array.dtype.newbyteorder(">"))
            written[f"{code}-{i}"] = np.array(array, order="F" if i % 3 == 2 else "C")
            np.save(os.path.join(folder, f"{code}-{i}.npy"), written[f"{code}-{i}"])
        run = subprocess.run([sys.argv[1], "stats", "--json", folder], capture_output=True)
        if run.returncode != 0:
            sys.exit(f"exit {run.returncode}: {run.stderr.decode()}")
        tensors = {t["name"]: t for t in json.loads(run.stdout)["tensors"]}
        check(f"{len(tensors)} of {len(written)} tensors", tensors.keys() == written.keys())
        for name, array in written.items():
            compare(name, array, tensors[name])
    print(f"{len(written)} arrays, {len(FAULTS)} faults")
    print("\n".join(FAULTS[:40]))
    return 1 if FAULTS else 0


if __name__ == "__main__":
    sys.exit(main())
