#!/usr/bin/env python3
"""Corpora of the fuzzer: what is kept of one, and what to begin one with.

usage: corpus.py pack FOLDER FILE        the files of a folder as one: for testdata/fuzz/TARGET
       corpus.py unpack FILE FOLDER      the reverse; a file's name is its SHA-256
       corpus.py seed TARGET FOLDER [WTOOL]
                                         from testdata, from ../shared/corpus where it is there, and,
                                         with a wtool to make them, models quantized in each scheme

A pack is, for each input, its length (u32, little-endian) and its bytes; sorted by length, then by
content, so that the same inputs are the same pack.
"""
import base64
import hashlib
import json
import math
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SHARED = ROOT.parent / "shared" / "corpus"


def pack(folder, out):
    inputs = {p.read_bytes() for p in pathlib.Path(folder).iterdir() if p.is_file()}
    with open(out, "wb") as f:
        for one in sorted(inputs, key=lambda b: (len(b), b)):
            f.write(struct.pack("<I", len(one)) + one)


def unpack(file, folder):
    data, at = pathlib.Path(file).read_bytes(), 0
    while at < len(data):
        (n,) = struct.unpack_from("<I", data, at)
        save(folder, data[at + 4:at + 4 + n])
        at += 4 + n


def save(folder, content):
    (pathlib.Path(folder) / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def parts(*all_of_them):
    return b"".join(struct.pack("<I", len(p)) + p for p in all_of_them)


def file(tensors, metadata=None):
    """safetensors: name -> (dtype, shape, bytes)"""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


# ---- what to begin with

TYPED = ['[["general.name","str"],["n","u32",3],["f","f32","0x7fc00000"],["s","arr","str",["a",{"hex":"ff"}]],["l","i64","-5"]]',
         '[["x","arr","f32",[1.5,"0x7f800000"]],["b","bool",true],["e","arr","u8",[]],["h","str",{"hex":"00ff"}],["d","f64",1e300]]']
MOST = 1 << 14  # larger files make slow inputs


def small_files(folder, suffixes):
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.is_file() and path.suffix in suffixes and path.stat().st_size <= MOST:
            yield path.read_bytes()


def generated(script):
    """What a generator of ../shared/corpus makes; None where it is not there."""
    if not (SHARED / script).exists():
        return None
    out = tempfile.mkdtemp(prefix="wtool-seeds-")
    subprocess.run([sys.executable, SHARED / script, out], check=True, stdout=subprocess.DEVNULL)
    return pathlib.Path(out)


def safetensors(_):
    yield from small_files(ROOT / "testdata" / "safetensors", {".safetensors"})
    for text in TYPED:
        yield file({"a": ("F32", [1], bytes(4))}, {"general.name": "n", "wtool.gguf_metadata": text})


def gguf(_):
    yield from small_files(ROOT / "testdata" / "gguf", {".gguf"})


def npy(_):
    yield from small_files(ROOT / "testdata" / "schemes", {".npy"})
    if out := generated("make_corpus.py"):
        yield from small_files(out / "npy", {".npy"})


def imatrix(_):
    for i, data in enumerate(gguf(_)):
        if i % 8 == 0 or b"imatrix" in data:
            yield data
    if out := generated("make_gguf_corpus.py"):
        yield from small_files(out / "imatrix", {".dat", ".gguf", ".imatrix", ""})


def index(_):
    a = file({"a": ("F32", [2], bytes(8)), "b": ("I8", [3], bytes(3))})
    b = file({"c": ("BF16", [1, 2], bytes(4))}, {"format": "pt"})
    name = "model-0000{}-of-00003.safetensors"
    table = {"metadata": {"total_size": 15}, "weight_map": {"a": name.format(1), "b": name.format(1), "c": name.format(2)}}
    yield parts(json.dumps(table).encode(), a, b)
    yield parts(b"", a, b, file({"d": ("F16", [0], b"")}))
    yield parts(b"", file({}))
    out = generated("make_corpus.py")
    for folder in sorted(out.glob("sharded/*")) if out else []:
        files = sorted(p for p in folder.iterdir() if p.suffix == ".safetensors")[:3]
        tables = list(folder.glob("*.index.json"))
        text = tables[0].read_bytes() if tables else b""
        text = text.replace(b"of-00002", b"of-00003")
        yield parts(text, *(p.read_bytes() for p in files))
    for folder in sorted((ROOT / "testdata" / "gguf").rglob("split*")):
        if folder.is_dir():
            yield parts(b"", *(p.read_bytes() for p in sorted(folder.glob("*.gguf"))[:3]))


def a_model(rows=32, cols=128):
    chance = random.Random(1)

    def f32(*shape):
        n = math.prod(shape)
        return ("F32", list(shape), struct.pack(f"<{n}f", *(chance.gauss(0, 1) for _ in range(n))))

    return file({"model.layers.0.mlp.up_proj.weight": f32(rows, cols), "model.norm.weight": f32(8)})


SCHEMES = ["--int8", "--int4", "--int4 --asym", "--bits 3", "--w8a8", "--fp8", "--fp8 --block", "--nvfp4", "--mxfp4", "--mxfp8",
           "--nf4", "--int4 --scheme gptq", "--int8 --scheme gptq", "--int4 --scheme gptq --asym", "--bits 2 --scheme gptq",
           "--int4 --scheme awq", "--bits 3 --scheme gptq", "--int4 --group-size channel"]


def quantized(wtool):
    """(name of the side file, its text, the model)"""
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        (base / "m").mkdir()
        (base / "m" / "model.safetensors").write_bytes(a_model())
        (base / "m" / "config.json").write_text('{"model_type": "llama"}')
        for i, options in enumerate(SCHEMES if wtool else []):
            out = base / str(i)
            done = subprocess.run([wtool, "quantize", *options.split(), str(base / "m"), "-o", f"{out}/"], capture_output=True, text=True)
            if done.returncode != 0:
                print(f"no seed of {options}: {done.stderr.strip()}", file=sys.stderr)
                continue
            yield "config.json", (out / "config.json").read_bytes(), (out / "model.safetensors").read_bytes()
            for own in ("quantize_config.json", "quant_config.json"):
                if (out / own).exists():
                    yield own, (out / own).read_bytes(), (out / "model.safetensors").read_bytes()


def hand_made_schemes():

    def config(**of):
        return json.dumps({"quantization_config": of}).encode()

    # FP8 blocks, modelopt, gpt-oss and bitsandbytes int8 as other tools leave them.
    yield 0, config(quant_method="fp8", weight_block_size=[128, 128]), file({
        "a.weight": ("F8_E4M3", [4, 130], bytes(520)), "a.weight_scale_inv": ("F32", [1, 2], struct.pack("<2f", 1, 2))})
    yield 0, config(quant_method="fp8"), file({
        "a.weight": ("F8_E4M3", [4, 8], bytes(32)), "a.weight_scale": ("F32", [], struct.pack("<f", 2))})
    yield 3, json.dumps({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}).encode(), file({
        "a.weight": ("U8", [4, 16], bytes(64)), "a.weight_scale": ("F8_E4M3", [4, 2], bytes(8)),
        "a.weight_scale_2": ("F32", [], struct.pack("<f", 1)), "a.input_scale": ("F32", [], struct.pack("<f", 1))})
    yield 3, json.dumps({"quantization": {"quant_algo": "FP8"}}).encode(), file({
        "a.weight": ("F8_E4M3", [4, 16], bytes(64)), "a.weight_scale": ("F32", [], struct.pack("<f", 1))})
    yield 0, config(quant_method="mxfp4"), file({
        "a.w_blocks": ("U8", [2, 3, 2, 16], bytes(192)), "a.w_scales": ("U8", [2, 3, 2], bytes(12))})
    yield 0, config(quant_method="bitsandbytes", load_in_8bit=True), file({
        "a.weight": ("I8", [4, 8], bytes(32)), "a.SCB": ("F32", [4], struct.pack("<4f", 1, 2, 3, 4))})
    yield 0, config(quant_method="torchao"), file({
        "a._weight_qdata": ("I8", [4, 8], bytes(32)), "a._weight_scale": ("F32", [4], bytes(16))},
        {"tensor_names": '["a.weight"]', "a.weight": '{"_type": "Int8Tensor"}'})
    yield 0, b"{}", a_model(2, 4)


def schemes(wtool):
    names = ["config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json"]
    for name, text, model in quantized(wtool):
        yield parts(bytes([names.index(name)]), text, model)
    for which, text, model in hand_made_schemes():
        yield parts(bytes([which]), text, model)


def texts(*lines):
    return lambda _: (line.encode() for line in lines)


json_texts = texts('{"a": [1, -0, 1.5e+3, true, false, null, "x\\u00e9\\n\\ud83d\\ude00"], "b": {}}', "[]", '{"a":1,"a":2}',
                   '{\n  "a": 1,\n  "b": [\n    1\n  ]\n}\n', '"\\u0000"', "18446744073709551616", "[[[[]]]]", '{"a b": "\\/"}')
metadata = texts(*TYPED, '{"a": "b", "wtool.gguf_metadata": "[[\\"n\\",\\"u32\\",3],[\\"a\\",\\"str\\"]]"}', '{"format": "pt"}')
selector = texts("*", "layers.0.*", "model.layers.[0-9].mlp.{up,down}_proj.weight", "re:q_proj\\.weight$", "dtype:bf16", "layer:3", "layer:0-3",
                 "layer:3-", "shape:2d", "shape:>=2d", "shape:[64,*]", "lm_head.weight", "re:^model\\.(.*)=\\1", "*.weight=q4_k",
                 "[!a-c]?\\*", "odd name [1,2] {a}*\\", "re:(a|b)*c+=x\\0", "{a,{b,c}}")
gate = texts("max(rel_rmse in 'layers.*.mlp.*') <= 0.01 and count(cos < 0.99) == 0", "min(cos) > 0.9", "not (mean(rel_rmse) >= 1e-3 or sum(zeros) != 2)",
             "percentile(99.9, rel_rmse) < 5%", "p99.9(rel_rmse) < 1", "max(zeros / 2 + -1 * rel_rmse) == 3", "1 < 2", "count(rel_rmse > 0.1 and cos < 1) <= 2",
             "max(rel_rmse in 'dtype:bf16') <= 0.01", "percentile(cos, 50) >= 0.5")
slices = texts("a[0:4,:8]", "a[-1]", "[...,0]", "a[...]", "[::]", "[1:2,3:4,0:1]", "[0]", "a[b][0]", "[:,:]", "[-3:-1]", "[99999999999999999999]", "[]")
rules = texts("model.layers.{L}.mlp.{P=gate,up}_proj.weight -> model.layers.{L}.mlp.{P}_proj.weight  # a comment\n",
              "model.layers.{L}.self_attn.q_proj.weight permute(2, 1) -> model.layers.{L}.self_attn.q_proj.weight\n",
              "a.{N}.w stack(N) -> a.w transpose\n\n# nothing\nx rows(0, 4) -> y split(0, 2) add(-1.5)\n", "lm_head.weight -> lm_head.weight\n")

card = texts("Some-Org/Qwen2.5-7B-Instruct-1M\n{\"temperature\": 0.7, \"top_k\": 20, \"repetition_penalty\": 1.1, \"mirostat\": 2, \"sequence\": \"a;b\"}\n"
             "---\nlicense: apache-2.0\nlanguage:\n- en\n- 'no'\ntags: [a b, \"c\\u00e9\", d]  # e\nbase_model:\n- mistralai/Mistral-7B-v0.1\n"
             "- https://huggingface.co/org/m-7B-v2\ndatasets:\n- name: A set\n  repo_url: https://a.b/c\nmodel-index:\n- name: x\n  results: []\n---\n# T\n",
             "foo-8x7B-chat-v0.1-q4_k_m\n{\"top_p\": \"x\", \"min_p\": 1e39}\n---\r\ndescription: >-\r\n  folded\r\n  text\r\n\r\n    more\r\nauthor: |+\r\n  a\r\n---\r\n",
             "a b\n{\n---\nname: 'it''s\n  two'\nversion: 1.0 # c\ntags:\n  - |\n    x\n  - [y]\nsize_label: &a ~\n\tx: y\n---\n", "./x\n\n---\nname: {a: b}\n",
             "phi-3-mini-128k\n[]\n---\nname: \"\\x41\\\n  \\U0001F600\"\nlicense: [mit,\n  other]\nurl:\n  goes\n\n  on\n# c\n---\n")


def lock(wtool):
    yield (b'{"schema":"wtool.lock/1","envelope_tolerance":0.1,"tensors":[\n{"name":"a","dtype":"f32","shape":[2,3],"scheme":"plain","min":-1,'
           b'"max":1,"absmax":1,"rms":0.5,"zeros":0,"nan":0,"inf":0,"sha256":["' + b"ab" * 32 + b'"]},\n{"name":"b","name_hex":"ff","dtype":'
           b'"q4_k","shape":[],"scheme":"plain","bytes":144}\n]}\n')
    yield b'{"schema":"wtool.lock/1","tensors":[]}'


def manifest(wtool):
    """Of every sound GGUF file, and the same as before there were models."""
    for path in sorted((ROOT / "testdata" / "gguf").glob("*.gguf")) if wtool else ():
        done = subprocess.run([wtool, "digest", "--per-tensor", path], capture_output=True)
        if done.returncode == 0 and len(done.stdout) < 4096:
            yield done.stdout
            document = json.loads(done.stdout)
            del document["models"]
            yield json.dumps(document).encode()


def bundle(wtool):
    for path in sorted((ROOT / "testdata" / "oms").glob("**/*")):
        if path.suffix not in (".sig", ".json") or path.name == "cases.json" or "schema" in path.name:
            continue
        yield path.read_bytes()
        try:
            yield base64.b64decode(json.loads(path.read_text())["dsseEnvelope"]["payload"], validate=True)
        except (ValueError, KeyError, TypeError):
            pass  # broken on purpose


def recipe(wtool):
    yield b"# all of it\n\n  *.q_proj.weight = q5_0   # and no more\nlayer:3-7=q4_1\nre:lm_head=f16\nlm_head.weight=keep\n"
    for line in ("mlp.up_proj=int4", "layer:0=int8", "dtype:bf16=fp8", "shape:2d=nvfp4", "shape:[64,*]=mxfp4", "*=bf16", "lm_head=iq4_xs",
                 "layer:10-=q4_k_m", "*norm*=f32", "{q_proj,up_proj}=q6_k\r", "a=b=q8_0", "up_proj", "=q4_0", "up_proj=", "[0-9]=keep",
                 "\tlm_head.weight\t=\tint8 # x", "#", "\\#=q4_0", "caf\u00e9*=f16", "layer:3=mxfp8", "layer:3=nf4", "layer:3=w8a8"):
        yield line.encode()
        yield (line + "\n*.weight=q8_0\n").encode()


def cli(wtool):
    some = [a_model(4, 64)] + [d for i, d in enumerate(safetensors(wtool)) if i % 10 == 0]
    some += [d for i, d in enumerate(gguf(wtool)) if i % 15 == 0] + [d for i, d in enumerate(npy(wtool)) if i % 15 == 0]
    for i, data in enumerate(some):
        for which in range(64) if i == 0 else range(i % 7, 64, 7):
            yield bytes([which]) + data


def compressed(wtool):
    """Small models of many types in both forms, with tensors that are there twice, and as differences."""
    chance = random.Random(2)

    def bf16(n):
        return b"".join(struct.pack("<f", chance.gauss(0, 0.02))[2:] for _ in range(n))

    def f32(n):
        return struct.pack(f"<{n}f", *(chance.gauss(0, 0.02) for _ in range(n)))

    first = bf16(40)
    base = {"a": ("BF16", [40], first), "b": ("F32", [17], f32(17)), "c": ("F16", [9], bytes(range(18))), "d": ("I8", [5], b"12345"),
            "e": ("BF16", [40], first), "f": ("U8", [100], bytes(100)), "z": ("F32", [0], b"")}
    tuned = dict(base, a=("BF16", [40], bytes(x ^ (i % 10 == 0) for i, x in enumerate(first))), b=("F32", [17], f32(17)))
    models = [file(base), file(tuned), file({"one": ("BF16", [300], bf16(300))}), file({"one": ("F32", [200], f32(200))}), file({})]
    models += [data for i, data in enumerate(gguf(None)) if i % 20 == 0]
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        (at / "base").write_bytes(models[0])
        for i, model in enumerate(models if wtool else []):
            (at / "m").write_bytes(model)
            for options in (["--plain"], ["--planes"], ["--base", at / "base"]):
                done = subprocess.run([wtool, "compress", at / "m", *options, "-f", "-o", at / "out"], capture_output=True)
                if done.returncode == 0:
                    yield (at / "out").read_bytes()


def hf(wtool):
    """The folders of testdata/hf2gguf, every size an eighth, of two layers at most; and their GGUF files."""
    sizes = ("hidden_size", "intermediate_size", "vocab_size", "head_dim", "n_embd", "n_ctx", "n_positions", "max_position_embeddings",
             "moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim",
             "qk_rope_head_dim", "v_head_dim", "sliding_window")
    for folder in sorted((ROOT / "testdata" / "hf2gguf").glob("*/hf")):
        config = json.loads((folder / "config.json").read_text())
        vocabulary = config["vocab_size"]
        small = {k: max(v // 8, 1) if k in sizes and isinstance(v, int) else v for k, v in config.items()}
        tensors = {}
        for path in sorted(folder.glob("*.safetensors")):
            raw = path.read_bytes()
            header = json.loads(raw[8:8 + struct.unpack_from("<Q", raw)[0]])
            for name, t in header.items():
                if name == "__metadata__":
                    continue
                shape = [vocabulary // 8 if d == vocabulary else d // 8 if d >= 16 else d for d in t["shape"]]
                n = math.prod(shape) * (4 if t["dtype"] == "F32" else 2)
                tensors[name] = (t["dtype"], shape, bytes(range(64)) * (n // 64) + bytes(n % 64))
        weights = file(tensors)
        yield parts(json.dumps(small).encode(), weights)
        with tempfile.TemporaryDirectory() as at:
            (pathlib.Path(at) / "config.json").write_text(json.dumps(small))
            (pathlib.Path(at) / "model.safetensors").write_bytes(weights)
            out = pathlib.Path(at) / "x.gguf"
            if wtool and subprocess.run([wtool, "convert", at, "-o", out, "--no-vocab"], capture_output=True).returncode == 0:
                yield parts(b"", out.read_bytes())


def varint(n):
    return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])


def sentencepiece(pieces, kind=2):
    """A model of (text, score, type), of kind 1 (Unigram) or 2 (BPE)."""
    def of(text, score, kind):
        inner = b"\x0a" + varint(len(text)) + text + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind)
        return b"\x0a" + varint(len(inner)) + inner
    return b"".join(of(*p) for p in pieces) + b"\x12\x02\x18" + varint(kind) + b"\x1a\x04\x18\x01\x20\x00"


def tokenizer(wtool):
    """What the folders of testdata/hf2gguf have, cut to few words, and the kinds that none of them is."""
    def text(folder, name):
        path = folder / name
        return json.loads(path.read_text()) if path.exists() else None

    def few(t):
        if t and "vocab" in t["model"]:
            model = t["model"]
            model["vocab"] = {k: i for i, k in enumerate(list(model["vocab"])[-40:])}
            model["merges"] = model["merges"][:8]
            for i, a in enumerate(t["added_tokens"]):
                a["id"] = 40 + i
        return json.dumps(t).encode() if t else b""
    small = sentencepiece([(b"<unk>", 0, 2), (b"<s>", 0, 3), (b"</s>", 0, 3), (b"<0x41>", 0, 6), (b"a", -1, 1), (b"b", -2, 1), (b"ab", -3, 4)])
    for folder in sorted((ROOT / "testdata" / "hf2gguf").glob("*/hf")):
        settings = json.dumps(text(folder, "tokenizer_config.json")).encode()
        yield parts(b"\x01\x00\x08\x00\x00\x00", (folder / "config.json").read_bytes(), settings, few(text(folder, "tokenizer.json")),
                    small if (folder / "tokenizer.model").exists() else b"", b'{"<x>": 60}', b"a b\nab c\n")
    words = {"added_tokens": [{"id": 0, "content": "[CLS]", "special": True}], "normalizer": {"type": "BertNormalizer", "lowercase": True},
             "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": {"type": "RobertaProcessing"},
             "model": {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {"[CLS]": 0, "go": 1, "##ing": 2}}}
    unigram = {"added_tokens": [], "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\2\0\0\0abc").decode()},
               "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "always"},
               "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5]]}}
    ranks = {"added_tokens": [], "model": {"type": "BPE", "byte_fallback": True, "vocab": {"a": 0, "b": 1, "ab": 2, "<0x0A>": 3}, "merges": [["a", "b"]]}}
    for one in words, unigram, ranks:
        yield parts(b"\x03\x03\x00\x00\x00\x03", b'{"type_vocab_size": 2, "eos_token_id": [1, 2]}', b'{"cls_token": "[CLS]", "chat_template": "x"}',
                    json.dumps(one).encode(), b"", b"{}", b'{"chat_template": [{"name": "tool", "template": "t"}]}')
    yield parts(b"\x03\x03\x00\x01\x00\x00", b"{}", b"{}", b"", sentencepiece([(b"<unk>", 0, 2), (b"<s>", 0, 3), (b"</s>", 0, 3), (b"a", -1, 1)], 1))
    yield parts(b"\x00\x04\x01\x00\x02\x01", b"{}", b'{"tokenizer_class": "GPT2Tokenizer"}', b"", b"", b'{"a": 0, "b": 1, "ab": 2}', b"#version\na b\n")
    yield parts(b"\x03\x03\x01\x00\x04\x05", b"{}", b"{}", b"", b"", b"[CLS]\ngo\n##ing\n", b"{{ x }}\r\n")


SEEDS = {"safetensors": safetensors, "gguf": gguf, "npy": npy, "imatrix": imatrix, "index": index, "schemes": schemes, "json": json_texts,
         "metadata": metadata, "selector": selector, "gate": gate, "slice": slices, "lock": lock, "bundle": bundle, "card": card, "compressed": compressed, "hf": hf, "manifest": manifest, "recipe": recipe, "rules": rules, "tokenizer": tokenizer, "cli": cli}


def seed(target, folder, wtool=None):
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    for data in SEEDS[target](wtool):
        save(folder, data)


if __name__ == "__main__":
    commands = {"pack": pack, "unpack": unpack, "seed": seed}
    if len(sys.argv) < 4 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
