#!/usr/bin/env python3
"""Content and metadata digests from their definition in wtool-content(7), and held against wtool's.

usage: content.py WTOOL SOURCE_FOLDER; content.py --fill < inputs > testdata/content/vectors.json
"""
import hashlib, json, pathlib, struct, subprocess, sys

NUMBERS = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q",
           "f32": "f", "f64": "d", "bool": "?"}
sha = lambda *parts: hashlib.sha256(b"".join(parts)).digest()
number = lambda n: struct.pack("<Q", n)
text = lambda s: number(len(s)) + s

def leaf(name, dtype, shape, data):
    return sha(b"\0", text(b"wtool.content/1"), text(name), text(dtype.encode()), number(len(shape)),
               *map(number, shape), sha(data))
def tree(nodes):
    if len(nodes) < 2:
        return nodes[0] if nodes else sha()
    left = 1 << (len(nodes) - 1).bit_length() - 1
    return sha(b"\1", tree(nodes[:left]), tree(nodes[left:]))
def content(tensors):  # name -> (dtype, shape, bytes)
    leaves = [leaf(name, *tensors[name]) for name in sorted(tensors)]
    return "content/1:" + sha(b"\2", text(b"wtool.content/1"), number(len(leaves)), tree(leaves)).hex()
def value(kind, v):
    if kind == "arr":
        return text(v[0].encode()) + number(len(v[1])) + b"".join(value(v[0], x) for x in v[1])
    return text(v.encode()) if kind == "str" else struct.pack("<" + NUMBERS[kind], v)
def metadata(entries):  # key -> (type, value)
    return sha(text(b"wtool.metadata/1"), number(len(entries)),
               *(text(k) + text(t.encode()) + value(t, v) for k, (t, v) in sorted(entries.items()))).hex()

def filled(vectors):  # the inputs, with what follows from them
    for v in vectors["content"]:
        m = {bytes.fromhex(t["name_hex"]): (t["dtype"], t["shape"], bytes.fromhex(t["data_hex"])) for t in v["tensors"]}
        v.update(leaves=[leaf(n, *m[n]).hex() for n in m], root=content(m))
    for v in vectors["metadata"]:
        v["sha256"] = metadata({k.encode(): tv for k, *tv in v["entries"]})
    return vectors
def safetensors(path):
    raw = path.read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    return {n.encode(): (t["dtype"].lower(), t["shape"], raw[start:][slice(*t["data_offsets"])])
            for n, t in json.loads(raw[8:start]).items() if n != "__metadata__"}

def main(wtool, data):
    vectors, found = (data / "content/vectors.json").read_text(), []
    assert json.loads(vectors) == filled(json.loads(vectors))
    for path in sorted((data / "safetensors").glob("[!w]*.safetensors")):  # w: wrong kinds of file
        done = subprocess.run([wtool, "digest", "--content", path], capture_output=True, text=True)
        if done.returncode == 0:
            found.append((path.name, done.stdout.split()[0], content(safetensors(path))))
    wrong = [f for f in found if f[1] != f[2]]
    print(f"{len(found)} files, {len(wrong)} faults", *wrong, sep="\n")
    return 1 if wrong or len(found) < 20 else 0

if __name__ == "__main__":
    if sys.argv[1] == "--fill":
        sys.exit(print(json.dumps(filled(json.load(sys.stdin)), indent=1)))
    sys.exit(main(sys.argv[1], pathlib.Path(sys.argv[2]) / "testdata"))
