#!/usr/bin/env python3
"""What 'wtool quantize' writes to safetensors, decoded by rules that were written down elsewhere:
compressed-tensors, GPTQ, AWQ and bitsandbytes in numpy, from the names, shapes and configuration
that their loaders expect. Nothing here is wtool's.

usage: numpy_schemes.py WTOOL         skipped (77) where numpy is not installed
"""
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

FAULTS = []


def check(what, ok):
    if not ok:
        FAULTS.append(what)


def wtool(*args):
    run = subprocess.run([sys.argv[1], *args], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if run.returncode != 0:
        FAULTS.append(f"{args}: exit {run.returncode}: {run.stderr}")
        return None
    return run.stdout


# ---- files

PLAIN = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "U8": "u1", "I32": "<i4", "I64": "<i8", "F8_E4M3": "u1"}


def write_safetensors(path, tensors):
    """tensors: name -> (dtype, shape, bytes)"""
    head, at = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(head).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, raw in tensors.values():
            f.write(raw)


def read_folder(folder):
    """name -> (dtype, array), of all files there."""
    out = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        raw = path.read_bytes()
        (n,) = struct.unpack("<Q", raw[:8])
        for name, t in json.loads(raw[8 : 8 + n]).items():
            if name == "__metadata__":
                continue
            begin, end = t["data_offsets"]
            data = np.frombuffer(raw[8 + n + begin : 8 + n + end], PLAIN[t["dtype"]])
            out[name] = (t["dtype"], data.reshape(t["shape"]))
    return out


def bf16(x):
    bits = np.asarray(x, "<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def floats(tensor):
    dtype, a = tensor
    if dtype == "BF16":
        return (a.astype("<u4") << 16).view("<f4")
    if dtype == "F8_E4M3":
        return E4M3[a]
    return a.astype(np.float32)


# ---- number formats

def e4m3(byte):
    sign, exponent, mantissa = byte >> 7, byte >> 3 & 15, byte & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    value = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -value if sign else value


E4M3 = np.array([e4m3(b) for b in range(256)], np.float32)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def e8m0(a):
    return np.exp2(a.astype(np.float64) - 127).astype(np.float32)


def stream(words, bits, count):
    """The fields of a little-endian bit stream, along the last axis."""
    raw = np.unpackbits(np.ascontiguousarray(words).view("u1"), axis=-1, bitorder="little")
    raw = raw[..., : count * bits].reshape(*raw.shape[:-1], count, bits)
    return (raw * (1 << np.arange(bits))).sum(-1).astype(np.int32)


def low_nibble_first(a):
    return np.stack([a & 15, a >> 4], -1).reshape(*a.shape[:-1], -1)


def spread(scales, cols):
    """A scale for each group of columns: for each column."""
    return np.repeat(scales, cols // scales.shape[1], axis=1)


# ---- schemes: from the parts of a module to f32

def pack_quantized(t, module, weights):
    out, cols = (int(n) for n in t[module + ".weight_shape"][1])
    bits = weights["num_bits"]
    packed = t[module + ".weight_packed"][1]
    check(f"{module}: packed shape", packed.shape == (out, -(-cols * bits // 32)))
    codes = stream(packed, bits, cols) - (1 << bits - 1)
    scales = floats(t[module + ".weight_scale"])
    groups = 1 if weights["strategy"] == "channel" else cols // weights["group_size"]
    check(f"{module}: scale shape", scales.shape == (out, groups))
    zeros = np.zeros((out, groups), np.int32)
    check(f"{module}: zero points exactly if asymmetric", (module + ".weight_zero_point" in t) != weights["symmetric"])
    if not weights["symmetric"]:
        words = t[module + ".weight_zero_point"][1]
        check(f"{module}: zero point shape", words.shape == (-(-out * bits // 32), groups))
        zeros = stream(words.T, bits, out).T - (1 << bits - 1)
    return (codes - spread(zeros, cols)).astype(np.float32) * spread(scales, cols)


def int_quantized(t, module, weights):
    check(f"{module}: codes are I8", t[module + ".weight"][0] == "I8")
    check(f"{module}: scales are F32", t[module + ".weight_scale"][0] == "F32")
    return t[module + ".weight"][1].astype(np.float32) * floats(t[module + ".weight_scale"])


def float_quantized(t, module, weights):
    check(f"{module}: codes are F8_E4M3", t[module + ".weight"][0] == "F8_E4M3")
    codes, scales = floats(t[module + ".weight"]), floats(t[module + ".weight_scale"])
    if weights["strategy"] == "block":
        high, wide = weights["block_structure"]
        check(f"{module}: a scale for each block",
              scales.shape == (-(-codes.shape[0] // high), -(-codes.shape[1] // wide)))
        scales = np.repeat(np.repeat(scales, high, 0), wide, 1)[: codes.shape[0], : codes.shape[1]]
    return codes * scales


def nvfp4(t, module, weights):
    codes = E2M1[low_nibble_first(t[module + ".weight_packed"][1])]
    check(f"{module}: scales are F8_E4M3", t[module + ".weight_scale"][0] == "F8_E4M3")
    scales = floats(t[module + ".weight_scale"]) / t[module + ".weight_global_scale"][1]
    check(f"{module}: 16 share a scale", scales.shape[1] * 16 == codes.shape[1])
    return codes * spread(scales, codes.shape[1])


def mxfp4(t, module, weights):
    codes = E2M1[low_nibble_first(t[module + ".weight_packed"][1])]
    check(f"{module}: scales are U8", t[module + ".weight_scale"][0] == "U8")
    return codes * spread(e8m0(t[module + ".weight_scale"][1]), codes.shape[1])


def mxfp8(t, module, weights):
    codes = floats(t[module + ".weight"])
    return codes * spread(e8m0(t[module + ".weight_scale"][1]), codes.shape[1])


FORMATS = {"pack-quantized": pack_quantized, "int-quantized": int_quantized, "float-quantized": float_quantized,
           "nvfp4-pack-quantized": nvfp4, "mxfp4-pack-quantized": mxfp4, "mxfp8-quantized": mxfp8}
WEIGHT_KEYS = {"num_bits", "type", "symmetric", "strategy", "group_size", "dynamic", "actorder", "block_structure",
               "observer", "observer_kwargs", "scale_dtype", "zp_dtype"}


def compressed_tensors(t, config):
    out = {}
    check("quantization_status", config["quantization_status"] == "compressed")
    for name, group in config["config_groups"].items():
        weights = group["weights"]
        check(f"{name}: no key that loaders refuse", set(weights) <= WEIGHT_KEYS)
        check(f"{name}: only powers of two say scale_dtype",
              ("scale_dtype" in weights) == (weights["group_size"] == 32 and weights["type"] == "float"))
        form = group.get("format", config["format"])
        check(f"{name}: activations exactly where the format needs them",
              (group["input_activations"] is not None) == (form in ("int-quantized", "float-quantized")))
        modules = group["targets"]
        if modules == ["Linear"]:
            suffixes = (".weight_packed", ".weight_scale")
            modules = sorted({n[: n.rindex(".")] for n in t if n.endswith(suffixes)})
        for module in modules:
            check(f"{module}: not ignored as well", module not in config["ignore"])
            out[module] = FORMATS[form](t, module, weights)
    return out


def gptq(t, config):
    bits, out = config["bits"], {}
    for name in t:
        if not name.endswith(".qweight"):
            continue
        module = name[: -len(".qweight")]
        words, scales = t[name][1], floats(t[module + ".scales"])
        check(f"{module}: scales are F16", t[module + ".scales"][0] == "F16")
        groups, outs = scales.shape
        cols = words.shape[0] * 32 // bits
        codes = stream(words.T, bits, cols)
        zeros = stream(t[module + ".qzeros"][1], bits, outs)
        if config.get("checkpoint_format", "gptq") == "gptq":
            zeros = zeros + 1
        index = t[module + ".g_idx"][1]
        check(f"{module}: groups in order", (index == np.arange(cols) // (cols // groups)).all())
        check(f"{module}: group_size", config["group_size"] in (-1, cols // groups) or "dynamic" in config)
        out[module] = (codes - zeros.T[:, index]).astype(np.float32) * scales.T[:, index]
    return out


def awq(t, config):
    place = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    out = {}

    def unpack(words):
        nibbles = (words.view("<u4")[..., None] >> (4 * place).astype("<u4")) & 15
        return nibbles.reshape(words.shape[0], -1).astype(np.int32)

    for name in t:
        if not name.endswith(".qweight"):
            continue
        module = name[: -len(".qweight")]
        codes, zeros = unpack(t[name][1]), unpack(t[module + ".qzeros"][1])
        scales = floats(t[module + ".scales"])
        group = codes.shape[0] // scales.shape[0]
        check(f"{module}: group_size", group == config["group_size"])
        out[module] = ((codes - np.repeat(zeros, group, 0)).astype(np.float32) * np.repeat(scales, group, 0)).T
    return out


def bitsandbytes(t, config):
    out = {}
    for name in t:
        if not name.endswith(".weight.absmax"):
            continue
        base = name[: -len(".absmax")]
        (key,) = [n for n in t if n.startswith(base + ".quant_state.bitsandbytes__")]
        state = json.loads(bytes(t[key][1]))
        absmax = t[name][1]
        if "nested_blocksize" in state:
            nested = t[base + ".nested_absmax"][1]
            levels = t[base + ".nested_quant_map"][1]
            of_block = np.repeat(nested, state["nested_blocksize"])[: absmax.size]
            absmax = levels[absmax] * of_block + np.float32(state["nested_offset"])
        packed = t[base][1].reshape(-1)
        codes = np.stack([packed >> 4, packed & 15], -1).reshape(-1)
        n = int(np.prod(state["shape"]))
        values = t[base + ".quant_map"][1][codes[:n]] * np.repeat(absmax, state["blocksize"])[:n]
        out[base[: -len(".weight")]] = values.reshape(state["shape"]).astype(np.float32)
    return out


def deepseek(t, config):
    check("weight_block_size", config["weight_block_size"] == [128, 128])
    check("both lists", config["ignored_layers"] == config["modules_to_not_convert"])
    out = {}
    for name in t:
        if not name.endswith("_scale_inv"):
            continue
        codes, scales = floats(t[name[: -len("_scale_inv")]]), floats(t[name])
        check(f"{name}: F32", t[name][0] == "F32")
        scales = np.repeat(np.repeat(scales, 128, 0), 128, 1)[: codes.shape[0], : codes.shape[1]]
        out[name[: -len(".weight_scale_inv")]] = codes * scales
    return out


METHODS = {"fp8": deepseek, "compressed-tensors": compressed_tensors, "gptq": gptq, "awq": awq, "bitsandbytes": bitsandbytes}


# ---- a model

LAYER = {"self_attn.q_proj": (128, 256), "self_attn.k_proj": (64, 256), "self_attn.v_proj": (64, 256),
         "self_attn.o_proj": (256, 128), "mlp.gate_proj": (384, 256), "mlp.up_proj": (384, 256),
         "mlp.down_proj": (256, 384)}


def make_model(folder):
    random = np.random.Generator(np.random.PCG64(11))
    weights = {}

    def add(name, shape, values):
        weights[name] = ("BF16", list(shape), bf16(values).tobytes())

    add("model.embed_tokens.weight", (96, 256), random.normal(0, 0.02, 96 * 256))
    for layer in range(2):
        for part, shape in LAYER.items():
            values = random.standard_t(3, int(np.prod(shape))) * 0.02
            if part == "mlp.up_proj":
                values[:256] = 0
            add(f"model.layers.{layer}.{part}.weight", shape, values)
        add(f"model.layers.{layer}.input_layernorm.weight", (256,), np.ones(256))
    add("lm_head.weight", (96, 256), random.normal(0, 0.02, 96 * 256))
    os.makedirs(folder)
    write_safetensors(f"{folder}/model.safetensors", weights)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "rms_norm_eps": 1e-05,
              "torch_dtype": "bfloat16", "unknown_to_all": {"kept": [1, 2.5, None]}, "tie_word_embeddings": False}
    pathlib.Path(f"{folder}/config.json").write_text(json.dumps(config, indent=2) + "\n")
    pathlib.Path(f"{folder}/tokenizer.json").write_text('{"version": "1.0"}\n')
    return config


ALL_INTEGERS = [["--bits", str(b)] for b in range(2, 9)] + [["--bits", str(b), "--asym"] for b in range(2, 8)]
RUNS = [*ALL_INTEGERS, ["--int4", "--group-size", "32"], ["--int4", "--group-size", "channel"],
        ["--int4", "--signed-scales"], ["--int4", "--asym", "--method", "optimal"], ["--int4", "--method", "rtn"],
        ["--int4", "--compat", "compressed-tensors"], ["--w8a8"], ["--fp8"], ["--fp8", "--block"], ["--fp8", "--block", "--scheme", "fp8"],
        ["--fp8", "--method", "rtn"], ["--nvfp4"], ["--nvfp4", "--method", "rtn"], ["--mxfp4"], ["--mxfp8"],
        ["--int4", "-T", "down_proj=int8", "-T", "q_proj=fp8", "-T", "layers.1.mlp.up_proj=keep"],
        ["--int4", "--scheme", "gptq"], ["--int8", "--scheme", "gptq"], ["--bits", "3", "--scheme", "gptq"],
        ["--bits", "2", "--scheme", "gptq", "--group-size", "64"], ["--int4", "--asym", "--scheme", "gptq"],
        ["--int4", "--scheme", "awq", "--asym"], ["--int4", "--scheme", "awq", "--group-size", "64"], ["--nf4"]]


def one_run(options, source, config_before):
    what = " ".join(options)
    text = wtool("quantize", "model", "-o", "out", "-f", "--json", *options)
    if text is None:
        return
    report = json.loads(text)
    config = json.loads(pathlib.Path("out/config.json").read_text())
    quantization = config.pop("quantization_config", None)
    check(f"{what}: the rest of config.json as it was, in its order", list(config.items()) == list(config_before.items()))
    check(f"{what}: side files copied", os.path.exists("out/tokenizer.json"))
    if quantization is None:
        return check(f"{what}: no quantization_config", False)
    stored = read_folder("out")
    decoded = METHODS[quantization["quant_method"]](stored, quantization)
    left_out = quantization.get("ignore", quantization.get("modules_to_not_convert", quantization.get("llm_int8_skip_modules", [])))
    wtool("convert", "out", "--dtype", "f32", "-o", "plain", "-f")
    plain = read_folder("plain")
    rows = {t["name"]: t for t in report["tensors"]}
    for name, tensor in source.items():
        module = name[: -len(".weight")]
        if module not in decoded:
            check(f"{what}: {name} is copied or decoded", name in stored and (stored[name][1] == tensor[1]).all())
            if tensor[1].ndim == 2 and "embed" not in name and quantization["quant_method"] != "gptq":
                check(f"{what}: {module} is listed as left out", module in left_out)
            continue
        ours, theirs, before = floats(plain[name]), decoded[module], floats(tensor)
        check(f"{what}: {name} has its shape", theirs.shape == before.shape)
        check(f"{what}: {name} decodes to the same bits",
              (ours.view("<u4") == theirs.astype("<f4").view("<u4")).all() or (ours == theirs).all())
        error = np.linalg.norm((theirs.astype(np.float64) - before).ravel()) / np.linalg.norm(before.astype(np.float64).ravel())
        row = rows.get(name)
        check(f"{what}: {name}: rel_rmse {row and row.get('rel_rmse')} is {error}",
              row is not None and abs(row["rel_rmse"] - error) < 1e-6 * error)
    check(f"{what}: all linear layers are quantized", len(decoded) >= 13)
    # Every value is stored as the nearest level there is. Arithmetic in bf16 misses it by design.
    if "--compat" not in options:
        wtool("diff", "model", "out", "--tolerance", "step")


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        config = make_model("model")
        source = read_folder("model")
        for options in RUNS:
            try:
                one_run(options, source, config)
            except (KeyError, ValueError, IndexError) as e:
                FAULTS.append(f"{' '.join(options)}: {type(e).__name__}: {e}")
        os.chdir("/")
    for fault in FAULTS[:40]:
        print(fault)
    print(f"{len(RUNS)} ways to quantize, {len(FAULTS)} faults")
    sys.exit(1 if FAULTS else 0)


main()
