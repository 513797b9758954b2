#!/usr/bin/env python3
"""Each limit of SECURITY.md's table: one more is refused with the number, at once and without its memory.

usage: limits_test.py WTOOL SOURCE     (Python's standard library only)

Files are sparse where only their size matters. A run has 256 MiB of address space and twenty seconds, so that a limit
that comes too late shows.
"""
import json
import os
import pathlib
import re
import resource
import shutil
import struct
import subprocess
import sys
import unittest

from compressed_files import INDEX_MAGIC, Compressed, table
from weight_files import ARRAY, F32, STRING, U16, U32, Command, dat, floats, gguf, write_safetensors

SOURCE = pathlib.Path(sys.argv[2])
TABLE = (SOURCE / "SECURITY.md").read_text()
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MEMORY = 256 * MIB


def sparse(path, size, head=b""):
    with open(path, "wb") as f:
        f.write(head)
        f.truncate(size)


def header(text, path="m.safetensors", data=b""):
    raw = text if isinstance(text, bytes) else text.encode()
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def npy(path, dimensions):
    text = "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1, " * dimensions + "), }\n"
    pathlib.Path(path).write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + b"\0")


class Limits(Command):
    ceiling = MEMORY

    def setUp(self):
        super().setUp()
        write_safetensors("m.safetensors", {"a.weight": ("F32", [2, 32], floats([1.0] * 64))})

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if cls.limited("--version").returncode != 0:  # with sanitizers, which take an address space of terabytes
            cls.ceiling = resource.RLIM_INFINITY

    @classmethod
    def limited(cls, *args):
        limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (cls.ceiling, cls.ceiling))
        return subprocess.run([cls.program, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
                              preexec_fn=limit)

    def told(self, *args, code, says, documented):
        """`documented`: the words of the table's row, with the number in them."""
        done = self.limited(*args)
        self.assertEqual(done.returncode, code, done.stderr[:1000])
        self.assertRegex(done.stdout + done.stderr if code == 0 else done.stderr, says)
        self.assertRegex(TABLE, re.compile(r"^\|[^\n]*" + documented, re.M), "not in SECURITY.md")

    # --- Headers

    def test_a_safetensors_header(self):
        sparse("m.safetensors", 200_000_000, struct.pack("<Q", 100_000_001) + b'{"')
        self.told("inspect", "m.safetensors", code=3, says=r"100,?000,?000", documented=r"100,000,000 bytes")

    def test_objects_in_objects(self):
        header('{"__metadata__":' + '{"a":' * 200 + "1" + "}" * 200 + "}")
        self.told("inspect", "m.safetensors", code=3, says="depth|deep|nest|string", documented=r"\b128\b")

    def test_metadata_entries(self):
        entries = ",".join(f'"k{i}":""' for i in range((1 << 17) + 1))
        header('{"__metadata__":{' + entries + "}}")
        self.told("inspect", "m.safetensors", code=3, says="131,?072", documented="131,072")

    def test_dimensions(self):
        shape = ",".join(["1"] * 257)
        header('{"a":{"dtype":"U8","shape":[' + shape + '],"data_offsets":[0,1]}}', data=b"\0")
        self.told("inspect", "m.safetensors", code=3, says="256", documented=r"\b256\b")

    def test_dimensions_of_all_tensors(self):
        one = '"%d":{"dtype":"U8","shape":[' + "1," * 255 + '0],"data_offsets":[0,0]}'
        header("{" + ",".join(one % i for i in range((3 << 20) // 256 + 1)) + "}")
        self.told("inspect", "m.safetensors", code=3, says="3,?145,?728", documented="3,145,728")

    def test_tensors(self):
        entry = '"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
        header("{" + ",".join(entry % i for i in range((1 << 20) + 1)) + "}")
        self.told("inspect", "m.safetensors", code=3, says="1,?048,?576", documented="1,048,576")

    def test_tensors_of_gguf(self):
        sparse("m.gguf", GIB, struct.pack("<4sIQQ", b"GGUF", 3, (1 << 20) + 1, 0))
        self.told("inspect", "m.gguf", code=3, says="1,?048,?576", documented="1,048,576")

    def test_what_a_gguf_header_holds(self):
        sparse("m.gguf", GIB, struct.pack("<4sIQQ", b"GGUF", 3, 0, (1 << 20) + 1))
        self.told("inspect", "m.gguf", code=3, says="1,?048,?576", documented="1,048,576")
        key = lambda align: {"general.alignment": (U32, align)}
        for tensors, keys, says, documented in [
            ({}, key(1 << 27), "134217728.*67108864", "67,108,864"),
            ({"a": ("f32", [1] * 5, floats([1]))}, {}, r"\b5 dimensions.* 4\b", "in GGUF 4"),
            ({"a" * 64: ("f32", [1], floats([1]))}, {}, r"\b63\b", "63 bytes"),
            ({}, {"k" * 65536: (U32, 1)}, "65536 bytes.*65535", "65,535 bytes"),
        ]:
            pathlib.Path("m.gguf").write_bytes(gguf(tensors, keys))
            self.told("inspect", "m.gguf", code=3, says=says, documented=documented)

    def test_an_npy_header(self):
        sparse("m.npy", 4 * MIB, b"\x93NUMPY\2\0" + struct.pack("<I", MIB + 1) + b"{'descr': '<f4', ")
        self.told("inspect", "m.npy", code=3, says="1,?048,?576", documented="1 MiB")

    def test_dimensions_of_npy(self):
        npy("m.npy", 257)
        self.told("inspect", "m.npy", code=3, says=r"\b256\b", documented=r"\b256\b")
        npy("m.npy", 33)  # numpy's own limit: such a file is read, but none is written
        self.told("convert", "m.npy", "-o", "n.npy", code=2, says=r"\b32\b", documented=r"\b32\b")

    # --- Beside the weights

    def folder(self):
        os.mkdir("f")
        os.rename("m.safetensors", "f/model.safetensors")

    def test_an_index(self):
        self.folder()
        sparse("f/model.safetensors.index.json", 80_000_001, b"{")
        self.told("inspect", "f", code=3, says="80,?000,?000", documented="80,000,000 bytes")

    def test_shards_of_a_set(self):
        # A number beyond the limit is none of a shard: the file stands alone.
        os.rename("m.safetensors", "m-00001-of-10001.gguf")
        done = self.wtool("inspect", "m-00001-of-10001.gguf")
        self.assertIn("a.weight", done.stdout)
        self.assertRegex(TABLE, r"\n\|[^\n]*10,000")

    def test_parts_of_a_split_gguf(self):
        # All of them are opened, in a time that grows with their number alone.
        os.mkdir("s")
        for i in range(10_000):
            keys = {"split.no": (U16, i), "split.count": (U16, 10_000)}
            pathlib.Path(f"s/m-{i + 1:05}-of-10000.gguf").write_bytes(gguf({f"t{i}": ("f32", [1], floats([1.0]))}, keys))
        done = self.limited("check", "--fast", "--json", "s")
        self.assertEqual(done.returncode, 0, done.stderr[:1000])
        self.assertEqual(json.loads(done.stdout)["model"]["tensors"], 10_000)
        pathlib.Path("m-00001-of-20000.gguf").write_bytes(gguf({}, {"split.no": (U16, 0), "split.count": (U16, 20_000)}))
        self.told("inspect", "m-00001-of-20000.gguf", code=3, says=r"20000.* 10000", documented=r"split GGUF \| 10,000")

    def test_a_config(self):
        self.folder()
        sparse("f/config.json", 4 * MIB + 1, b'{"quantization_config": {')
        # The model itself is sound: what its values mean is left open, and said.
        self.told("inspect", "f", code=0, says="4194305 bytes are too many", documented="4 MiB")

    def test_a_config_of_a_folder_that_becomes_gguf(self):
        self.folder()
        sparse("f/config.json", 4 * MIB + 1, b'{"architectures": ["LlamaForCausalLM"],')
        self.told("convert", "f", "-o", "o.gguf", code=3, says="4194305 bytes are too many", documented="4 MiB; 4 MiB")
        config = {"architectures": ["MixtralForCausalLM"], "num_hidden_layers": 1, "hidden_size": 2**31, "num_attention_heads": 1,
                  "vocab_size": 1}
        for more, says in (({"num_hidden_layers": 2**32 - 1}, "4294967295 layers"),
                           ({"num_hidden_layers": 2**32}, "not a count of 32 bits"),
                           ({"rope_scaling": {"rope_type": "llama3"}}, "heads of 2147483648 dimensions")):
            pathlib.Path("f/config.json").write_text(json.dumps(config | more))
            self.told("convert", "f", "-o", "o.gguf", "--no-vocab", code=3, says=says, documented="65,536")

    def test_experts_in_one_tensor(self):
        os.mkdir("e")
        for experts in (1025, 1024):
            write_safetensors("e/model.safetensors", {"model.layers.0.mlp.experts.down_proj": ("F32", (experts, 1, 1), bytes(4 * experts))})
            pathlib.Path("e/config.json").write_text(json.dumps({
                "architectures": ["GptOssForCausalLM"], "num_hidden_layers": 1, "hidden_size": 1, "intermediate_size": 1,
                "num_attention_heads": 1, "num_local_experts": experts, "vocab_size": 1}))
            says = "1025 experts are too many" if experts > 1024 else "tensors missing: 'model.embed_tokens.weight', 'model.norm.weight', 'lm_head.weight'"
            self.told("convert", "e", "-o", "o.gguf", "--no-vocab", code=3, says=says, documented="1,024; 65,536")

    def test_a_tokenizer(self):
        def folder(name, content=b"", size=None):
            shutil.rmtree("t", ignore_errors=True)
            shutil.copytree(SOURCE / "testdata/hf2gguf/qwen3-tiny/hf", "t")
            sparse(f"t/{name}", size or len(content), content)

        for name, most in (("tokenizer.json", 128 * MIB), ("tokenizer_config.json", 16 * MIB), ("chat_template.jinja", 4 * MIB)):
            folder(name, size=most + 1)
            self.told("convert", "t", "-o", "o.gguf", code=3, says=f"{name}: has {most + 1} bytes, wtool's limit is {most}",
                      documented="128 MiB; 16 MiB; 4 MiB; 64")
        for content, says, documented in (
                ({"added_tokens": [{"id": 2**22, "content": "x"}]}, "token id 4194304, wtool's limit is 4194303", "4,194,304"),
                ({"model": {"vocab": {"x" * 65537: 1}}}, "a token of 65537 bytes, wtool's limit is 65536", "65,536 bytes"),
                ({"post_processor": [0] * 65536}, "more than 65536 values in one part, wtool's limit", "bytes; 65,536")):
            folder("tokenizer.json", json.dumps(content).encode())
            self.told("convert", "t", "-o", "o.gguf", code=3, says=says, documented=documented)

    def test_a_model_card(self):
        shutil.copytree(SOURCE / "testdata/hf2gguf/qwen2-tiny/hf", "t")
        documented = "2 MiB; 1,000; 8; 4 MiB"
        for card, says in (
                (b"---\nlicense: mit\n" + b"#" * (2 * MIB) + b"\n---\n", "its head does not end: no second line of 2097152 bytes"),
                (b"---\ntags:\n" + b"- a\n" * 1001 + b"---\n", "line 2: 'tags': a list of more than 1000 items"),
                (b"---\n" + b"odd\n" * 10 + b"---\n", "README.md: 2 more lines are not understood")):
            pathlib.Path("t/README.md").write_bytes(card)
            self.told("convert", "t", "-o", "o.gguf", "-f", code=0, says=says, documented=documented)
        sparse("t/generation_config.json", 4 * MIB + 1, b"{}")
        self.told("convert", "t", "-o", "o.gguf", "-f", code=0, says="has 4194305 bytes, more than 4194304", documented=documented)

    def test_metadata_beside_npy_files(self):
        os.mkdir("n")
        npy("n/a.npy", 1)
        sparse("n/wtool-metadata.json", 100 * MIB + 1, b"{")
        self.told("convert", "n", "-o", "o.safetensors", code=3, says="bytes are too many", documented="100 MiB")

    def test_an_importance_matrix(self):
        args = ("quantize", "--type", "q4_0", "m.safetensors", "-o", "o.gguf", "--imatrix", "i.dat")
        sparse("i.dat", 64 * MIB, struct.pack("<i", (1 << 19) + 1))
        self.told(*args, code=3, says="no .*imatrix", documented="524,288")
        pathlib.Path("i.dat").write_bytes(dat([("a" * 1025, 1, [1.0] * 32)]))
        self.told(*args, code=3, says="no .*imatrix|1,?024", documented="1,024 bytes")

    def test_sources_of_a_model(self):
        write_safetensors("l.safetensors", {"a.weight": ("F32", [1], floats([1.0]))},
                          {"wtool.operation": "convert", "wtool.source.count": "10001"})
        self.told("inspect", "--lineage", "l.safetensors", code=3, says="10,?001.* 10,?000", documented="10,000; 100,000")

    # --- What the user names

    def test_a_lock(self):
        sparse("l.lock", 256 * MIB + 1, b"{")
        self.told("check", "m.safetensors", "--lock", "l.lock", code=3, says="bytes are too many|at most", documented="256 MiB")

    def test_a_recipe(self):
        sparse("r", 16 * MIB + 1, b"#")
        self.told("quantize", "--type", "q4_0", "--recipe", "r", "m.safetensors", "-o", "o.gguf", code=2,
                     says="too many for a recipe", documented="16 MiB")

    def test_gates(self):
        sparse("g", MIB + 1, b"#")
        quantize = ("quantize", "--int8", "m.safetensors", "-o", "o.safetensors")
        self.told(*quantize, "--gate", "@g", code=2, says="too many for a file of gates", documented="1 MiB")
        self.told(*quantize, "--gate", "max(rel_rmse) <= 0." + "0" * 4100, code=2, says="4,?096", documented="4,096 bytes")
        self.told(*quantize, "--gate", "(" * 40 + "max(rel_rmse)" + ")" * 40 + " <= 1", code=2, says="32|deep",
                     documented=r"\b32\b")

    def test_a_map(self):
        sparse("map", 4 * MIB + 1, b"#")
        self.told("diff", "m.safetensors", "m.safetensors", "--map", "map", code=2, says="too many", documented="4 MiB")

    def test_a_metadata_value(self):
        sparse("v", GIB + 1)
        self.told("convert", "m.safetensors", "-o", "o.safetensors", "--set-file", "k=v", code=2, says="1073741824",
                     documented="1 GiB")

    def test_signatures(self):
        def told(*args, **what):
            self.told(*args, code=what.pop("code", 3), **what)
        self.assertEqual(self.limited("sign", "--new-key", "me").returncode, 0)
        self.assertEqual(self.limited("sign", "m.safetensors", "--key", "me.pem").returncode, 0)
        key, public = ("--key", "me.pem"), ("--key", "me.pub.pem")
        sparse("large", 256 * MIB + 1)
        told("verify", "m.safetensors", *public, "--signature", "large", says="268435456", documented="signature.*256 MiB")
        told("sign", "m.safetensors", *key, "-o", "o", "--digests", "large", says="268435456",
             documented="digests.*256 MiB")
        bundle = pathlib.Path("m.safetensors.sig").read_text()
        chain = '"x509CertificateChain":{"certificates":[' + ",".join(['{"rawBytes":"AAAA"}'] * 33) + "]}"
        pathlib.Path("chain.sig").write_text(re.sub(r'"publicKey":{[^}]*}', lambda _: chain, bundle))
        told("verify", "m.safetensors", *public, "--signature", "chain.sig", says="32 cert", documented="certificates.*\\b32\\b")
        sparse("large.pem", MIB + 1)
        os.chmod("large.pem", 0o600)
        told("sign", "m.safetensors", "--key", "large.pem", "-o", "o", says="1048576", documented="key.*\\b1 MiB")
        told("verify", "m.safetensors", "--key", "large.pem", says="1048576", documented="key.*\\b1 MiB")
        sparse("large.crt", 16 * MIB + 1)
        told("verify", "m.safetensors", "--ca", "large.crt", says="16777216", documented="16 MiB")
        os.environ["LONG"] = "x" * 1025
        told("sign", "--new-key", "no", "--passphrase-env", "LONG", code=2, says="1024", documented="1,024 bytes")
        self.assertFalse(os.path.exists("no.pem") or os.path.exists("o"))

    def test_a_compressed_file(self):
        self.assertEqual(self.limited("compress", "--planes", "m.safetensors").returncode, 0)
        file = Compressed("m.safetensors.zst")
        original = 'source":{"name":"m.safetensors","bytes":%d' % os.path.getsize("m.safetensors")

        def told(raw, says, documented):
            pathlib.Path("x.zst").write_bytes(raw)
            self.told("decompress", "x.zst", "-o", "x", code=3, says=says, documented=documented)

        size = 128 * MIB + 1
        with open("large.zst", "wb") as f:
            f.write(file.raw[: file.index_at] + struct.pack("<II", INDEX_MAGIC, size - 8) + b"{")
            f.seek(file.index_at + size)
            f.write(table(file.frames[:-1] + [(file.index_at, size, 0, 0)]))
        self.told("inspect", "large.zst", code=3, says="134217729, of at most 134217728", documented="128 MiB; 65,536")
        # Frames as small as they can be, and three hundred names for what is in them.
        size, n = 100 * MIB, 300
        tensor = '"tensor":"t%%d","dtype":"u8","shape":[%d],"tensor_bytes":%d,"sha256":"%s"' % (size, size, "0" * 64)
        pieces = ",".join('{"offset":%d,"bytes":%d,%s,%s}' % (
            i * size, size, tensor % i, '"same_as":"t0"' if i else '"codec":"bytes","first_frame":0') for i in range(n))
        index = ('{"schema":"wtool.compressed/1","form":"plain","source":{"name":"x","bytes":%d,"sha256":"%s"},"pieces":[%s]}'
                 % (n * size, "0" * 64, pieces)).encode()
        frame = struct.pack("<II", INDEX_MAGIC, len(index)) + index
        small = [(8 * i, 8, MIB, 0) for i in range(100)]
        told(b"\x50\x2a\x4d\x18\0\0\0\0" * 100 + frame + table(small + [(800, len(frame), 0, 0)]),
             "31457280000 bytes.* 65536 times", "65,536 times")
        codec = lambda text: file.with_index(lambda old: re.sub(r'"codec":"[a-z0-9]*"(,"first_frame":2)', '"codec":"columns",' + text + r"\1", old))
        told(codec('"block":4,"planes":[%s]' % ",".join(["[[0,1]]"] * 9)), "more than 8 planes", r"; 8; 1,024")
        told(codec('"block":1025,"planes":[[[0,1025]]]'), "1025 bytes, not 1 to 1024", r"; 8; 1,024")
        # A frame that claims more than its chunk, or takes more.
        for content, stored, says in ((2**32 - 1, 0, "holds 4294967295 bytes"), (0, 200 * MIB, "frames? .*take 2097")):
            frames = list(file.frames)
            at, old, was, checksum = frames[1]
            frames[1] = (at, stored or old, content or was, checksum)
            raw = file.raw[: file.table_at] if not stored else file.raw[: at] + bytes(stored) + file.raw[at + old : file.table_at]
            told(raw + table(frames), says, "1 MiB; 9/8")
        self.assertIn(original, file.raw[file.index_at :].decode("latin1"))
        self.assertFalse(os.path.exists("x"))

    def test_a_tokenizer_on_its_way_back(self):
        def refused(says, documented, **keys):
            model = {"general.architecture": (STRING, "llama"), "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5)}
            for name in ("embedding_length", "feed_forward_length", "block_count", "context_length", "attention.head_count"):
                model["llama." + name] = (U32, 4)
            for name, value in {"ggml.model": (STRING, "gpt2"), "ggml.pre": (STRING, "gpt-2"),
                                "ggml.tokens": (ARRAY, (STRING, ["a"])), "ggml.merges": (ARRAY, (STRING, [])), **keys}.items():
                model["tokenizer." + name] = value
            pathlib.Path("m.gguf").write_bytes(gguf({"output_norm.weight": ("f32", [4], bytes(16))}, model))
            self.told("convert", "m.gguf", "--to", "hf", "-o", "back", "-n", code=3, says=says, documented=documented)

        row = "tokenizer on its way[^\n]*"
        refused("1048577 tokens, at most 1048576", row + "1,048,576", **{"ggml.tokens": (ARRAY, (STRING, [""] * 1048577))})
        refused("more than 33554432 bytes", row + "32 MiB", **{"ggml.tokens": (ARRAY, (STRING, ["a" * (32 * MIB), "b"]))})
        refused("2097153 merges, at most 2097152", row + "2,097,152", **{"ggml.merges": (ARRAY, (STRING, [""] * 2097153))})
        refused("have 16777217 bytes, at most 16777216", row + "16 MiB", chat_template=(STRING, "a" * (16 * MIB + 1)))

    def test_what_is_shown_of_one_tensor(self):
        header('{"a":{"dtype":"F32","shape":[1001,1000],"data_offsets":[0,4004000]}}', data=bytes(4004000))
        self.told("show", "m.safetensors", "a", "--full", code=2, says="at most 1000000 elements", documented="1,000,000")
        header('{"a":{"dtype":"U8","shape":[1048577,1],"data_offsets":[0,1048577]}}', data=bytes(1048577))
        for along in ("--rows", "--columns"):
            if along == "--columns":
                header('{"a":{"dtype":"U8","shape":[1,1048577],"data_offsets":[0,1048577]}}', data=bytes(1048577))
            self.told("stats", "m.safetensors", along, "a", code=2, says="1048577 .* 1048576", documented="1,048,576")

    def test_threads(self):
        self.told("inspect", "m.safetensors", "-j", "1025", code=2, says="1 to 1024", documented="1,024")

    def test_braces_of_a_selector(self):
        self.told("inspect", "m.safetensors", "-t", "{" * 17 + "a" + "}" * 17, code=2, says="nested too deeply",
                     documented=r"\b16\b")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
