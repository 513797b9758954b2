#!/usr/bin/env python3
"""Mixes give every tensor what llama.cpp's own quantiser gives it.

usage: mixes_interop.py types MIX_TYPES GGML_QUANTIZE_MODEL     the types, of all mixes and many models
       mixes_interop.py bytes WTOOL GGML_QUANTIZE_MODEL         the bytes; the library loads the file
(Python's standard library only)
"""
import math
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

SUBJECT, OURS, PEER = sys.argv[1:4]
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cli"))
from weight_files import ARRAY, F32, I32, STRING, U32, dat, floats, key, read_gguf, tensor_info

MODULES = pathlib.Path(os.environ.get("WTOOL_PEERS") or HERE / "../../build/peers/node_modules")
LIBRARIES = MODULES / "@node-llama-cpp/linux-x64/bins/linux-x64"

# llama.h's file types, by the names llama-quantize takes.
FILE_TYPES = {
    "F32": 0, "F16": 1, "BF16": 32, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11,
    "Q3_K_M": 12, "Q3_K": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q4_K": 15, "Q5_K_S": 16, "Q5_K_M": 17,
    "Q5_K": 17, "Q6_K": 18, "IQ2_XXS": 19, "IQ2_XS": 20, "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ1_S": 24,
    "IQ4_NL": 25, "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29, "IQ4_XS": 30, "IQ1_M": 31, "TQ1_0": 36,
    "TQ2_0": 37, "MXFP4_MOE": 38, "Q1_0": 40, "Q2_0": 41,
}
def write_model(path, arch="llama", layers=32, heads=8, kv_heads=2, embd=256, ffn=256, experts=0, tied=False, fused=False,
                falcon=False, values=False, extra=()):
    """A model of few and small tensors; their order in the file is not that of the layers. Data: zeros,
    or with `values` some that look like weights, and a vocabulary, so that the library loads it."""
    meta = [key("general.architecture", STRING, arch)]
    numbers = {"block_count": layers, "context_length": 64, "embedding_length": embd, "feed_forward_length": ffn,
               "attention.head_count": heads, "attention.head_count_kv": kv_heads,
               "rope.dimension_count": embd // heads}
    if experts:
        numbers |= {"expert_count": experts, "expert_used_count": 2}
    meta += [key(f"{arch}.{k}", U32, v) for k, v in numbers.items()]
    epsilon = "layer_norm_epsilon" if falcon or arch in ("falcon",) else "layer_norm_rms_epsilon"
    meta += [key(f"{arch}.attention.{epsilon}", F32, 1e-5)]
    meta += [key(f"{arch}.{k}", kind, v) for k, kind, v in extra]
    vocabulary = 259 if values else 64
    if values:
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
        meta += [key("tokenizer.ggml.model", STRING, "llama"), key("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
                 key("tokenizer.ggml.scores", ARRAY, (F32, [0.0] * 259)),
                 key("tokenizer.ggml.token_type", ARRAY, (I32, [2, 3, 3] + [6] * 256))]
    kv = embd // heads * kv_heads
    tensors = [("token_embd.weight", (embd, vocabulary)), ("output_norm.weight", (embd,))]
    if not tied:
        tensors.append(("output.weight", (embd, vocabulary)))
    for i in sorted(range(layers), key=str):  # 0, 1, 10, 11, …
        b = f"blk.{i}."
        if fused:
            tensors.append((b + "attn_qkv.weight", (embd, embd + 2 * kv)))
        else:
            tensors += [(b + "attn_q.weight", (embd, embd)), (b + "attn_k.weight", (embd, kv)),
                        (b + "attn_v.weight", (embd, kv))]
        tensors += [(b + "attn_norm.weight", (embd,)), (b + "attn_output.weight", (embd, embd)),
                    (b + "ffn_norm.weight", (embd,))]
        if experts:
            tensors += [(b + "ffn_gate_inp.weight", (embd, experts)), (b + "ffn_gate_exps.weight", (embd, ffn, experts)),
                        (b + "ffn_up_exps.weight", (embd, ffn, experts)),
                        (b + "ffn_down_exps.weight", (ffn, embd, experts))]
        else:
            tensors += [(b + "ffn_gate.weight", (embd, ffn)), (b + "ffn_up.weight", (embd, ffn)),
                        (b + "ffn_down.weight", (ffn, embd))]
    head, at = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(meta)) + b"".join(meta), 0
    for name, dims in tensors:
        kind = 0 if len(dims) == 1 or "gate_inp" in name else 1
        head += tensor_info(name, "f16" if kind else "f32", dims[::-1], at)
        size = (2 if kind else 4)
        for d in dims:
            size *= d
        at += (size + 31) // 32 * 32
    head += b"\0" * (-len(head) % 32)
    with open(path, "wb") as f:
        f.write(head)
        for name, dims in tensors if values else ():
            f.write(weights(name, dims))
        f.truncate(len(head) + at)


def weights(name, dims):
    """As many half floats (or floats) as the tensor takes, padded: sums of uniforms, columns of their own size."""
    random_numbers = random.Random(name)
    if len(dims) == 1:
        return floats([1 + random_numbers.gauss(0, 0.1) for _ in range(dims[0])])
    row = [random_numbers.gauss(0, 0.02) for _ in range(4 * dims[0] + 11)]
    scale = [10 if random_numbers.random() < 0.01 else 1 for _ in range(dims[0])]
    kind = "f" if "gate_inp" in name else "e"
    out, at = b"", 0
    for _ in range(math.prod(dims[1:])):
        at = (at * 5 + 1) % (3 * dims[0] + 11)
        sign = random_numbers.choice((-1, 1))
        out += struct.pack(f"<{dims[0]}{kind}", *(sign * x * c for x, c in zip(row[at:], scale)))
    return out + b"\0" * (-len(out) % 32)


MODELS = {
    "32 layers, 4 heads share": {},
    "heads alone": {"kv_heads": 8, "layers": 17},
    "two share": {"kv_heads": 4, "layers": 8},
    "tied": {"tied": True, "layers": 9},
    "8 experts": {"experts": 8, "layers": 16, "kv_heads": 8, "ffn": 32 * 8},
    "8 experts, 4 heads share": {"experts": 8, "layers": 12},
    "4 experts": {"experts": 4, "layers": 8, "kv_heads": 8},
    "2 experts": {"experts": 2, "layers": 33, "kv_heads": 4},
    "tied, 8 experts": {"experts": 8, "layers": 8, "tied": True},
    "70B": {"layers": 80},
    "65B": {"layers": 80, "kv_heads": 8},
    "rows of 288": {"ffn": 288, "layers": 16},
    "rows of 96, tied": {"embd": 96, "heads": 3, "kv_heads": 3, "ffn": 96, "layers": 3, "tied": True},
    "rows of 40": {"embd": 240, "heads": 6, "kv_heads": 3, "ffn": 40, "layers": 3},
    "one layer": {"layers": 1},
    "falcon": {"arch": "falcon", "layers": 32, "fused": True, "kv_heads": 1},
    "falcon, tied": {"arch": "falcon", "layers": 60, "fused": True, "tied": True},
    "qwen2 of 80 layers": {"arch": "qwen2", "layers": 80},
    "deci of 80 layers": {"arch": "deci", "layers": 80},
    "olmo of 80 layers": {"arch": "olmo", "layers": 80, "falcon": True},
    "olmoe of 80 layers": {"arch": "olmoe", "layers": 80},
    "qwen2vl of 80 layers": {"arch": "qwen2vl", "layers": 80, "extra": [("rope.dimension_sections", ARRAY, (U32, [16, 24, 24, 0]))]},
    "mistral3 of 80 layers": {"arch": "mistral3", "layers": 80},
    "internlm2 of 80 layers": {"arch": "internlm2", "layers": 80},
    "phi3, fused": {"arch": "phi3", "layers": 32, "fused": True},
}


def lines(command):
    run = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if run.returncode == 77:
        print(run.stderr)
        sys.exit(77)
    return sorted(run.stdout.splitlines()) if run.returncode == 0 else f"refused ({run.returncode})"


LARGE = ["Q2_K", "Q3_K_M", "Q4_K_M", "IQ3_M"]  # where a 70B model's values would get more bits
PURE = ["heads alone", "tied", "rows of 288", "rows of 96, tied", "rows of 40", "2 experts"]


def cases():
    for title, shape in MODELS.items():
        for name in FILE_TYPES if "of 80" not in title else LARGE:
            yield title, shape, name, []
            if name not in ("F32", "F16", "BF16") and "of 80" not in title:
                yield title, shape, name, ["imatrix"]
            if title in PURE:
                yield title, shape, name, ["pure"]


def compare(folder, title, shape, name, options):
    model = folder / f"{title}.gguf"
    if not model.exists():
        write_model(model, **shape)
    want = lines([PEER, LIBRARIES, "types", model, "none", FILE_TYPES[name], *options])
    got = lines([OURS, model, name, *options])
    if want == got:
        return True
    print(f"FAILED: {name} {options} of '{title}'")
    if isinstance(want, str) or isinstance(got, str):
        print("  want", want if isinstance(want, str) else "types", "got", got if isinstance(got, str) else "types")
    else:
        for w, g in [(w, g) for w, g in zip(want, got) if w != g][:4]:
            print(f"  want {w}, got {g}")
    return False


def tensors_of(path):
    return read_gguf(path)[1]


def write_matrix(path, model):
    """An importance matrix in its .dat form, with an entry for all but embedding and output."""
    entries = []
    for name, (_, shape, _) in tensors_of(model).items():
        if name.startswith("blk.") and len(shape) > 1 and "gate_inp" not in name:
            r = random.Random(name)
            n = shape[-1] * (shape[0] if len(shape) > 2 else 1)
            entries.append((name, 4, [r.expovariate(1) * 4 for _ in range(n)]))
    path.write_bytes(dat(entries))


# What neither needs a matrix nor has types that only others write.
WRITTEN = [n for n in FILE_TYPES if not n.startswith(("IQ1", "IQ2", "IQ3")) and n not in ("F16", "Q2_K_S", "Q3_K", "Q4_K", "Q5_K")]
WEIGHED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q2_K_S", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS"]
SMALL = {"layers": 8, "embd": 256, "heads": 8, "kv_heads": 4, "ffn": 256, "values": True}


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode == 77:
        print(done.stderr)
        sys.exit(77)
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


def same_bytes(folder, model, name, options=(), ours=()):
    mine, theirs = folder / "mine.gguf", folder / "theirs.gguf"
    said = run(OURS, "quantize", "--type", name, model, "-o", mine, "-f", "-q", *ours)
    said += run(PEER, LIBRARIES, "write", model, theirs, FILE_TYPES[name], *options)
    if said:
        print(f"FAILED: {name} {ours}: {said}")
        return False
    got, want = tensors_of(mine), tensors_of(theirs)
    differ = [n for n in want if got.get(n) != want[n]]
    if differ or got.keys() != want.keys() or list(got) != list(tensors_of(model)):
        print(f"FAILED: {name} {ours}: {len(differ)} of {len(want)} tensors differ: {differ[:4]}")
        return False
    said = run(PEER, LIBRARIES, "load", mine)
    if said:
        print(f"FAILED: {name} {ours}: the library does not load it: {said}")
    return not said


def compare_bytes(folder):
    dense, experts = folder / "dense.gguf", folder / "experts.gguf"
    write_model(dense, **SMALL)
    write_model(experts, **SMALL | {"experts": 4, "layers": 2})
    for model in (dense, experts):
        write_matrix(model.with_suffix(".dat"), model)
    for name in WRITTEN:
        yield same_bytes(folder, dense, name)
    yield same_bytes(folder, experts, "MXFP4_MOE")
    yield same_bytes(folder, dense, "Q4_K_M", ["pure"], ["--pure"])
    odd = folder / "odd.gguf"
    write_model(odd, **SMALL | {"ffn": 288, "layers": 2})
    yield same_bytes(folder, odd, "Q4_K_M", [], ["--fallback"])
    yield same_bytes(folder, dense, "Q4_K_M", ["leave-output"], ["--leave-output-tensor"])
    for name in WEIGHED:
        matrix = dense.with_suffix(".dat")
        yield same_bytes(folder, dense, name, ["importance", matrix], ["--imatrix", matrix])
    matrix = experts.with_suffix(".dat")
    yield same_bytes(folder, experts, "Q4_K_M", ["importance", matrix], ["--imatrix", matrix])
    run(OURS, "quantize", "--type", "q8_0", dense, "-o", folder / "q8.gguf")
    yield same_bytes(folder, folder / "q8.gguf", "Q4_K_M", ["requantize"], ["--requantize"])
    # In parts: the library starts from the first and finds the others.
    said = run(OURS, "quantize", "--type", "q4_k_m", dense, "-o", str(folder / "parts") + "/", "--shard-size", "500KB")
    first = sorted((folder / "parts").glob("*-00001-of-0000[2-9].gguf"))
    yield not said and len(first) == 1 and not run(PEER, LIBRARIES, "load", first[0])


def main():
    if not LIBRARIES.is_dir():
        print(f"skipped: no {LIBRARIES} (scripts/peers installs it)")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # What a sanitizer may find, a seventh of them shows; 7 shares no factor with the lists.
        chosen = list(cases())[::7 if os.environ.get("WTOOL_SANITIZED") == "1" else 1]
        results = list(compare_bytes(folder)) if SUBJECT == "bytes" else [compare(folder, *case) for case in chosen]
    print(f"{len(results)} compared, {results.count(False)} differ")
    sys.exit(not results or not all(results))


main()
