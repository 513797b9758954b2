"""Quantization schemes from the command line: a folder as its tool lays it down is one tensor to
inspect, show and convert, and converts to the values worked out here from the written rules.
Usage: schemes_test.py WTOOL SOURCE_DIR"""
import json
import os
import shutil
import struct
import sys
import unittest

from weight_files import Command, read_safetensors, write_safetensors

GOLDEN = os.path.join(sys.argv[2], "testdata", "schemes")
CODES = {"I32": "i", "F16": "e", "F32": "f", "U8": "B", "I8": "b", "I64": "q"}


def npy(case, name):
    """(shape, bytes) of a version 1 file in C order."""
    with open(os.path.join(GOLDEN, case, name + ".npy"), "rb") as f:
        data = f.read()
    size = struct.unpack("<H", data[8:10])[0]
    head = data[10:10 + size].decode()
    shape = [int(x) for x in head.split("'shape': (")[1].split(")")[0].split(",") if x.strip()]
    return shape, data[10 + size:]


def values(dtype, data):
    return struct.unpack("<%d%s" % (len(data) // struct.calcsize(CODES[dtype]), CODES[dtype]), data)


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


class Schemes(Command):
    def folder(self, config, tensors, metadata=None):
        os.mkdir("model")
        with open("model/config.json", "w") as f:
            json.dump({"quantization_config": config}, f)
        write_safetensors("model/model.safetensors", tensors, metadata)

    def check(self, scheme, shape, expected, name="m.weight"):
        """One tensor to inspect, show and convert; `expected` are its values, row by row."""
        done = self.wtool("inspect", "model", "--json")
        self.assertEqual(done.stderr, "")
        mine = [t for t in json.loads(done.stdout)["tensors"] if t["scheme"] == scheme]
        self.assertEqual([(t["name"], t["dtype"], t["shape"]) for t in mine], [(name, "f32", shape)])
        last = ",".join(["1"] * (len(shape) - 1) + [":3"])
        shown = [float(x) for x in self.wtool("show", "model", f"{name}[{last}]", "--to", "csv", "-o", "-").stdout.split()]
        at = 0
        for size in shape[:-1]:
            at = at * size + 1
        at *= shape[-1]
        self.assertEqual([f32(x) for x in shown], list(expected[at:at + 3]))
        for dtype, tag in (("f32", "F32"), ("bf16", "BF16")):
            self.wtool("convert", "model", "--dtype", dtype, "-o", dtype + ".safetensors")
            got = read_safetensors(dtype + ".safetensors")[name]
            self.assertEqual(got[:2], (tag, shape))
            if dtype == "f32":
                self.assertEqual(values("F32", got[2]), tuple(expected))

    def test_gptq(self):
        case = "gptq_4bit_asym_40x256"
        parts = {"m." + to: (dtype, *npy(case, file)) for to, file, dtype in (
            ("qweight", "qweight", "I32"), ("qzeros", "qzeros_v1", "I32"), ("scales", "scales_f16", "F16"),
            ("g_idx", "g_idx", "I32"))}
        self.folder({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}, parts)
        words = [w & 0xFFFFFFFF for w in values("I32", parts["m.qweight"][2])]
        zeros = values("I32", npy(case, "zero_unpacked")[1])
        scales = values("F16", parts["m.scales"][2])
        expected = [((words[c // 8 * 40 + r] >> 4 * (c % 8) & 15) - zeros[r * 2 + c // 128]) * scales[c // 128 * 40 + r]
                    for r in range(40) for c in range(256)]
        self.check("gptq", [40, 256], expected)

    def test_awq(self):
        case = "awq_gemm_64x128"
        self.folder({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
                    {"m.qweight": ("I32", *npy(case, "qweight")), "m.qzeros": ("I32", *npy(case, "qzeros")),
                     "m.scales": ("F16", *npy(case, "scales_f16"))})
        self.check("awq", [64, 128], values("F32", npy(case, "dequantized")[1]))

    def test_bitsandbytes(self):
        case = "bnb_nf4_6x50"
        state = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [6, 50]}).encode()
        codes, absmax, table = (npy(case, n) for n in ("weight_packed_u8", "absmax_f32", "quant_map"))
        self.folder({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
                    {"m.weight": ("U8", *codes), "m.weight.absmax": ("F32", *absmax),
                     "m.weight.quant_map": ("F32", *table),
                     "m.weight.quant_state.bitsandbytes__nf4": ("U8", [len(state)], state)})
        nibbles = [n for b in codes[1] for n in (b >> 4, b & 15)]
        self.check("bitsandbytes", [6, 50], [f32(values("F32", table[1])[n] * values("F32", absmax[1])[i // 64])
                                             for i, n in enumerate(nibbles)])

    def test_fp8(self):
        case = "ct_fp8_channel_f32_7x13"
        self.folder({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {
            "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}},
            {"m.weight": ("F8_E4M3", *npy(case, "weight_e4m3_bytes")), "m.weight_scale": ("F32", *npy(case, "weight_scale"))})
        self.check("compressed-tensors", [7, 13], values("F32", npy(case, "dequantized")[1]))

    def test_gpt_oss(self):
        blocks, scales = bytes(range(192)), bytes(range(121, 133))
        self.folder({"quant_method": "mxfp4"}, {"e.down_proj_blocks": ("U8", [2, 3, 2, 16], blocks),
                                                "e.down_proj_scales": ("U8", [2, 3, 2], scales)})
        grid = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
        nibbles = [n for b in blocks for n in (b & 15, b >> 4)]
        self.check("mxfp4", [2, 3, 64], [grid[n & 7] * (-1 if n & 8 else 1) * 2.0 ** (scales[i // 32] - 127)
                                         for i, n in enumerate(nibbles)], "e.down_proj")

    def test_nan_scale_is_an_error_of_the_file(self):
        case = "awq_gemm_64x128"
        shape, scales = npy(case, "scales_f16")
        self.folder({"quant_method": "awq", "bits": 4, "group_size": 128},
                    {"m.qweight": ("I32", *npy(case, "qweight")), "m.qzeros": ("I32", *npy(case, "qzeros")),
                     "m.scales": ("F16", shape, scales[:10] + b"\0\x7e" + scales[12:])})
        error = self.refused("convert", "model", "--dtype", "f32", "-o", "x.safetensors", code=3)
        self.assertEqual(error, "wtool: error: model/model.safetensors: tensor 'm.weight': scale [0, 5] is nan\n")

    def test_parts_without_codes_are_an_error_of_the_file(self):
        ct = {"quant_method": "compressed-tensors", "config_groups": {}}
        gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128}
        for config, name, dtype, shape, saying in (
                (ct, "m.weight_scale", "F32", [2, 1], "neither 'm.weight_packed' nor 'm.weight' is there"),
                (ct, "m.weight_shape", "I64", [1], "neither 'm.weight_packed' nor 'm.weight' is there"),
                (gptq, "m.qzeros", "I32", [2, 1], "'m.qweight' is missing")):
            self.folder(config, {name: (dtype, shape, bytes(8))})
            error = self.refused("convert", "model", "--dtype", "f32", "-o", "x.safetensors", code=3)
            self.assertEqual(error, f"wtool: error: model/model.safetensors: tensor '{name}': {saying}\n")
            shutil.rmtree("model")

    def test_a_config_of_another_method_is_told(self):
        self.folder({"quant_method": "gptq", "bits": 4, "group_size": 128},
                    {"m.weight_packed": ("I32", [2, 4], bytes(32)), "m.weight_scale": ("F32", [2, 1], bytes(8)),
                     "m.weight_shape": ("I64", [2], struct.pack("<2q", 2, 32))})
        self.assertIn("model/config.json says 'gptq'", self.wtool("convert", "model", "--dtype", "f32", "-o", "x.safetensors").stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
