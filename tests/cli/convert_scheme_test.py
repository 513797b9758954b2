"""convert --scheme from the command line: integers repacked from scheme to scheme, checked against the
packing written down here, and what of the folder changes. Usage: convert_scheme_test.py WTOOL SOURCE_DIR"""
import json
import os
import struct
import sys
import unittest

from schemes_test import npy, read_safetensors, values
from weight_files import Command, write_safetensors

ROWS, COLS, GROUP = 40, 256, 128  # of the golden case
CASE = "gptq_4bit_asym_40x256"
AWQ_PLACE = [0, 4, 1, 5, 2, 6, 3, 7]


def floats(values, kind="e"):
    return struct.pack(f"<{len(values)}{kind}", *values)


def words(fields):
    """Nibbles, eight to a word, the first lowest."""
    return struct.pack(f"<{len(fields) // 8}I", *(sum(f << 4 * i for i, f in enumerate(fields[at:at + 8]))
                                                  for at in range(0, len(fields), 8)))


class ConvertScheme(Command):
    def setUp(self):
        super().setUp()
        raw = [w & 0xFFFFFFFF for w in values("I32", npy(CASE, "qweight")[1])]
        self.codes = [[raw[c // 8 * ROWS + r] >> 4 * (c % 8) & 15 for c in range(COLS)] for r in range(ROWS)]
        zeros = values("I32", npy(CASE, "zero_unpacked")[1])
        self.zeros = [list(zeros[r * 2:r * 2 + 2]) for r in range(ROWS)]
        scales = values("F16", npy(CASE, "scales_f16")[1])
        self.scales = [[scales[g * ROWS + r] for g in range(2)] for r in range(ROWS)]

    def folder(self, zeros="qzeros_v1", config=None, more=None, files=None, index=None, name="model"):
        parts = {"a.up_proj." + to: (dtype, *npy(CASE, file)) for to, file, dtype in (
            ("qweight", "qweight", "I32"), ("qzeros", "qzeros_v1", "I32"), ("scales", "scales_f16", "F16"),
            ("g_idx", "g_idx", "I32"))}
        if zeros == "middle":
            parts["a.up_proj.qzeros"] = ("I32", [2, 5], b"\x77" * 40)
        if index:
            parts["a.up_proj.g_idx"] = ("I32", [COLS], struct.pack(f"<{COLS}i", *index))
        parts["norm.weight"] = ("BF16", [4], bytes(8))
        parts["model.embed_tokens.weight"] = ("BF16", [4, 2], bytes(16))
        parts["lm_head.weight"] = ("BF16", [4, 2], bytes(range(16)))
        parts.update(more or {})
        os.mkdir(name)
        with open(name + "/config.json", "w") as f:
            json.dump({"architectures": ["X"], "torch_dtype": "float16", "quantization_config": config or {
                "quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": bool(index), "sym": False}}, f)
        for file, text in (files or {}).items():
            with open(os.path.join(name, file), "w") as f:
                f.write(text)
        write_safetensors(name + "/model.safetensors", parts, {"format": "pt"})

    def config(self, folder):
        with open(folder + "/config.json") as f:
            return json.load(f)

    def values_of(self, path):
        self.wtool("convert", path, "--dtype", "f32", "-o", "values.safetensors", "-f")
        return read_safetensors("values.safetensors")["a.up_proj.weight"]

    def expected(self):
        return floats([(self.codes[r][c] - self.zeros[r][c // GROUP]) * self.scales[r][c // GROUP]
                       for r in range(ROWS) for c in range(COLS)], "f")

    def test_pack_quantized_is_as_its_rules_say(self):
        self.folder()
        self.wtool("convert", "model", "--scheme", "compressed-tensors", "-o", "out/")
        got = read_safetensors("out/model.safetensors")
        self.assertEqual(got["a.up_proj.weight_packed"],
                         ("I32", [ROWS, COLS // 8], b"".join(words(row) for row in self.codes)))
        self.assertEqual(got["a.up_proj.weight_scale"], ("F16", [ROWS, 2], b"".join(floats(r) for r in self.scales)))
        self.assertEqual(got["a.up_proj.weight_shape"], ("I64", [2], struct.pack("<qq", ROWS, COLS)))
        down = [words([self.zeros[r][g] for r in range(ROWS)]) for g in range(2)]
        self.assertEqual(got["a.up_proj.weight_zero_point"],
                         ("I32", [5, 2], b"".join(down[g][w * 4:w * 4 + 4] for w in range(5) for g in range(2))))
        self.assertEqual(got["lm_head.weight"][2], bytes(range(16)))
        config = self.config("out")
        self.assertEqual(config["architectures"], ["X"])
        config = config["quantization_config"]
        self.assertEqual((config["quant_method"], config["format"], config["ignore"]),
                         ("compressed-tensors", "pack-quantized", ["lm_head"]))
        weights = config["config_groups"]["group_0"]["weights"]
        self.assertEqual((weights["num_bits"], weights["group_size"], weights["symmetric"], weights["actorder"]),
                         (4, GROUP, False, None))
        self.assertEqual(self.values_of("out")[2], self.expected())

    def test_awq_is_as_its_rules_say(self):
        self.folder()
        self.wtool("convert", "model", "--scheme", "awq", "-o", "out/")
        got = read_safetensors("out/model.safetensors")

        def down(table):
            return b"".join(struct.pack("<I", sum(table[band * 8 + i][c] << 4 * AWQ_PLACE[i] for i in range(8)))
                            for c in range(len(table[0])) for band in range(ROWS // 8))
        self.assertEqual(got["a.up_proj.qweight"], ("I32", [COLS, ROWS // 8], down(self.codes)))
        self.assertEqual(got["a.up_proj.qzeros"], ("I32", [2, ROWS // 8], down(self.zeros)))
        self.assertNotIn("a.up_proj.g_idx", got)
        self.assertEqual(self.config("out")["quantization_config"],
                         {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True,
                          "version": "gemm", "modules_to_not_convert": ["lm_head"]})
        self.assertEqual(self.values_of("out")[2], self.expected())

    def test_there_and_back(self):
        self.folder(zeros="middle")
        original = read_safetensors("model/model.safetensors")
        for scheme in ("awq", "compressed-tensors", "gptq"):
            self.wtool("convert", "model", "--scheme", scheme, "-o", scheme)
            self.wtool("convert", scheme, "--scheme", "gptq", "-o", scheme + "-back")
            self.assertEqual(read_safetensors(scheme + "-back/model.safetensors"), original)
        config = self.config("awq-back")["quantization_config"]
        self.assertEqual((config["checkpoint_format"], config["sym"]), ("gptq", True))
        self.assertNotIn("a.up_proj.weight_zero_point", read_safetensors("compressed-tensors/model.safetensors"))

    def test_zero_points_make_gptq_version_2(self):
        self.folder()
        self.wtool("convert", "model", "--scheme", "gptq", "-o", "out")
        self.assertEqual(read_safetensors("out/model.safetensors")["a.up_proj.qzeros"][2], npy(CASE, "qzeros_v2")[1])
        config = self.config("out")["quantization_config"]
        self.assertEqual((config["checkpoint_format"], config["sym"]), ("gptq_v2", False))

    def test_act_order(self):
        index = [c % 2 for c in range(COLS)]
        self.folder(index=index)
        self.wtool("convert", "model", "--scheme", "compressed-tensors", "-o", "out")
        got = read_safetensors("out/model.safetensors")["a.up_proj.weight_g_idx"]
        self.assertEqual(values("I32", got[2]), tuple(index))
        config = self.config("out")["quantization_config"]
        self.assertEqual(config["config_groups"]["group_0"]["weights"]["actorder"], "group")
        self.assertEqual(self.values_of("out"), self.values_of("model"))
        error = self.refused("convert", "model", "--scheme", "awq", "-o", "x", code=2)
        self.assertIn("model: cannot be awq: 'a.up_proj.weight': its groups are not in the order of its columns", error)
        self.wtool("convert", "out", "--scheme", "gptq", "-o", "back")
        self.assertTrue(self.config("back")["quantization_config"]["desc_act"])

    def test_old_config_files_are_left_behind(self):
        self.folder(files={"quantize_config.json": "{}", "tokenizer.json": "{}"})
        for n, options in enumerate((["--scheme", "awq"], ["--dtype", "bf16"], ["--scheme", "plain"])):
            done = self.wtool("convert", "model", *options, "-o", f"out{n}")
            self.assertEqual(sorted(os.listdir(f"out{n}")), ["config.json", "model.safetensors", "tokenizer.json"])
            self.assertIn("not copied: quantize_config.json", done.stdout + done.stderr)
        self.wtool("convert", "model", "-o", "copy")
        self.assertIn("quantize_config.json", os.listdir("copy"))

    def test_plain_has_the_models_type(self):
        self.folder()
        self.wtool("convert", "model", "--scheme", "plain", "-o", "out")
        got = read_safetensors("out/model.safetensors")
        self.assertEqual(got["a.up_proj.weight"][:2], ("F16", [ROWS, COLS]))
        self.assertEqual(got["norm.weight"][0], "BF16")
        self.assertNotIn("quantization_config", self.config("out"))

    def test_a_lone_file_says_it_in_its_metadata(self):
        self.folder()
        self.wtool("convert", "model", "--scheme", "awq", "-o", "lone.safetensors")
        with open("lone.safetensors", "rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        self.assertEqual(json.loads(header["__metadata__"]["quantization_config"])["quant_method"], "awq")
        self.wtool("convert", "lone.safetensors", "--scheme", "compressed-tensors", "-o", "again.safetensors")
        self.assertEqual(self.values_of("again.safetensors")[2], self.expected())

    def test_scales_that_would_change_stop_it(self):
        self.folder()
        self.wtool("convert", "model", "--scheme", "compressed-tensors", "-o", "out")
        parts = read_safetensors("out/model.safetensors")
        scales = bytearray(b"\x80\x3f" * (2 * ROWS))
        scales[14:16] = b"\x80\x4f"  # 2^32 in bf16
        parts["a.up_proj.weight_scale"] = ("BF16", [ROWS, 2], bytes(scales))
        write_safetensors("out/model.safetensors", parts, None)
        error = self.refused("convert", "out", "--scheme", "gptq", "-o", "x", code=3)
        self.assertIn("tensor 'a.up_proj.weight': scale [3, 1] is 4294967300 in bf16, which f16 can only hold "
                      "as inf", error)

    def test_an_index_of_groups_there_are_not(self):
        self.folder(index=[0] * 255 + [2])
        error = self.refused("convert", "model", "--scheme", "gptq", "-o", "x", code=3)
        self.assertIn("model/model.safetensors: tensor 'a.up_proj.weight': group index 2 of column 255 is not below "
                      "the 2 groups there are", error)

    def test_floats_are_no_integers(self):
        self.folder(config={"quant_method": "compressed-tensors", "config_groups": {"group_0": {
            "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}})
        write_safetensors("model/model.safetensors", {"b.weight": ("F8_E4M3", [2, 4], bytes(8)),
                                                      "b.weight_scale": ("F32", [2, 1], floats([1, 1], "f"))}, None)
        error = self.refused("convert", "model", "--scheme", "awq", "-o", "x", code=2)
        self.assertIn("'b.weight': it is f8_e4m3 of compressed-tensors, not integers", error)

    def test_activations_are_not_forgotten_in_silence(self):
        self.folder(more={"b.weight": ("I8", [32, 32], bytes(range(128)) * 8),
                          "b.weight_scale": ("F32", [32, 1], floats([0.5] * 32, "f"))})
        with open("model/config.json", "w") as f:
            json.dump({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": {
                "targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "strategy": "channel"},
                "input_activations": {"num_bits": 8}}}}}, f)
        done = self.wtool("convert", "model", "-t", "b.*", "--scheme", "gptq", "-o", "out")
        self.assertIn("quantized activations, which the input's config asks for", done.stdout + done.stderr)
        got = read_safetensors("out/model.safetensors")
        self.assertEqual(got["b.qzeros"][2], b"\x7f" * 32)
        self.assertEqual(got["b.scales"], ("F16", [1, 32], floats([0.5] * 32)))
        self.assertEqual(self.config("out")["quantization_config"]["group_size"], -1)

    def test_what_is_quantized_to_one_scheme_is_the_others_repacked(self):
        os.mkdir("source")
        with open("source/config.json", "w") as f:
            f.write("{}")
        write_safetensors("source/model.safetensors", {"a.up_proj.weight": ("F32", *npy(CASE, "weight_f32"))}, None)
        for more in ([], ["--asym"], ["--asym", "--method", "rtn"]):
            for scheme in ("gptq", "awq"):
                self.wtool("quantize", "source", "--int4", "--scheme", scheme, *more, "-o", scheme, "-f", "--no-lineage")
            for scheme, other in (("gptq", "awq"), ("awq", "gptq")):
                self.wtool("convert", scheme, "--scheme", other, "-o", "out", "-f", "--no-lineage")
                for file in ("config.json", "model.safetensors"):
                    with open("out/" + file, "rb") as got, open(other + "/" + file, "rb") as expected:
                        self.assertEqual(got.read(), expected.read(), (more, scheme, file))

    def test_nf4_is_the_references(self):
        case = "bnb_nf4_6x50"
        write_safetensors("source.safetensors", {"a.up_proj.weight": ("F32", *npy(case, "weight_f32"))}, None)
        self.wtool("quantize", "source.safetensors", "--nf4", "--method", "rtn", "-o", "out.safetensors")
        got = read_safetensors("out.safetensors")
        self.assertEqual(got["a.up_proj.weight"], ("U8", *npy(case, "weight_packed_u8")))
        self.assertEqual(got["a.up_proj.weight.absmax"][2], npy(case, "nested_absmax_code_u8")[1])
        self.assertEqual(got["a.up_proj.weight.quant_map"][2], npy(case, "quant_map")[1])
        self.assertEqual(got["a.up_proj.weight.nested_quant_map"][2], npy(case, "nested_quant_map")[1])
        state = json.loads(got["a.up_proj.weight.quant_state.bitsandbytes__nf4"][2])
        offset = values("F32", npy(case, "nested_offset")[1])[0]
        self.assertAlmostEqual(state.pop("nested_offset"), offset, delta=offset * 2 ** -23)
        self.assertEqual(state, {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [6, 50],
                                 "nested_blocksize": 256, "nested_dtype": "float32"})
        self.assertIn("a.up_proj.weight", self.wtool("inspect", "out.safetensors", "--list").stdout)

    def test_refusals(self):
        eight = {"b.qweight": ("I32", [32, 32], bytes(4096)), "b.qzeros": ("I32", [1, 8], b"\x7f" * 32),
                 "b.scales": ("F16", [1, 32], b"\0\x3c" * 32)}
        mixed = {"quant_method": "gptq", "bits": 4, "group_size": GROUP,
                 "dynamic": {"+:b": {"bits": 8}}}
        self.folder(zeros="middle", more=eight, config=mixed)
        error = self.refused("convert", "model", "--scheme", "awq", "-o", "x", code=2)
        self.assertIn("'b.weight': 8 bits: AWQ has 4", error)
        self.wtool("convert", "model", "--scheme", "compressed-tensors", "-o", "mixed")
        groups = self.config("mixed")["quantization_config"]["config_groups"]
        self.assertEqual(sorted(g["weights"]["num_bits"] for g in groups.values()), [4, 8])
        self.wtool("convert", "mixed", "--scheme", "gptq", "-o", "mixed-back")
        back, original = (read_safetensors(d + "/model.safetensors") for d in ("mixed-back", "model"))
        del back["b.g_idx"]
        self.assertEqual(back, original)
        for arguments, text in ((["--scheme", "gptq", "--dtype", "f16"], "--dtype: repacking changes no value"),
                                (["--scheme", "gptq", "-T", "a=f16"], "-T: repacking changes no value"),
                                (["--scheme", "fp8"], "the integers of other schemes cannot become fp8"),
                                (["--scheme", "gptk"], "did you mean 'gptq'"),
                                (["--scheme", "gptq", "--to", "gguf"], "gguf has no form for gptq")):
            self.assertIn(text, self.refused("convert", "model", *arguments, "-o", "x", code=2))
        write_safetensors("plain.safetensors", {"a.weight": ("BF16", [4, 2], bytes(16))}, None)
        self.assertIn("nothing to repack", self.refused("convert", "plain.safetensors", "--scheme", "awq",
                                                        "-o", "x.safetensors", code=2))
        self.assertIn("nothing to decode", self.refused("convert", "plain.safetensors", "--scheme", "plain",
                                                        "-o", "x.safetensors", code=2))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
