#!/usr/bin/env python3
"""--max-memory is kept: the peak of each command on a model that is larger than the ceiling.

usage: memory_test.py WTOOL     (Python's standard library only)

wtool maps no files, so what is resident beyond a run that opens nothing is working memory.
"""
import array
import os
import random
import re
import subprocess
import sys
import unittest

from weight_files import Command

MIB = 1 << 20
ROWS, COLUMNS, LAYERS = 4096, 4096, 6  # of bf16: 192 MiB
# The peak of a process counts from the memory of the one that started it: so a small one does.
MEASURE = """
import os, sys
files = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=files), 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""
COMMANDS = {
    "inspect": ["inspect", "m.safetensors"],
    "show": ["show", "m.safetensors", "model.layers.0.mlp.up_proj.weight[0:4,:8]"],
    "convert": ["convert", "m.safetensors", "--dtype", "f16", "-o", "o.safetensors"],
    "shards": ["convert", "m.safetensors", "--dtype", "f32", "--shard-size", "100MB", "-o", "o/"],
    "gguf": ["convert", "m.safetensors", "-o", "o.gguf"],
    "int8": ["quantize", "--int8", "m.safetensors", "-o", "o.safetensors"],
    "int4": ["quantize", "--int4", "--scheme", "gptq", "--method", "rtn", "m.safetensors", "-o", "o.safetensors"],
    "q4_k": ["quantize", "--type", "q4_k", "m.safetensors", "-o", "o.gguf"],
    "stats": ["stats", "m.safetensors"],
    "diff": ["diff", "m.safetensors", "m.safetensors"],
    "digest": ["digest", "m.safetensors"],
    "tensors": ["digest", "--per-tensor", "m.safetensors"],
}


def write_model(path):
    """Rows of noise, the same in each matrix: values do not matter here, but are none that is refused."""
    random.seed(1)
    noise = array.array("f", [random.gauss(0, 0.02) for _ in range(COLUMNS)]).tobytes()
    row = b"".join(noise[i + 2 : i + 4] for i in range(0, len(noise), 4))  # the upper half of an f32 is a bf16
    header, at = [], 0
    for i in range(LAYERS):
        end = at + ROWS * COLUMNS * 2
        header.append(f'"model.layers.{i}.mlp.up_proj.weight":{{"dtype":"BF16","shape":[{ROWS},{COLUMNS}],'
                      f'"data_offsets":[{at},{end}]}}')
        at = end
    text = ("{" + ",".join(header) + "}").encode()
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _ in range(LAYERS * ROWS // 64):
            f.write(row * 64)


class Memory(Command):
    def peak(self, *args):
        """Exit status, peak of resident bytes, what was said."""
        done = subprocess.run([sys.executable, "-I", "-S", "-c", MEASURE, self.program, *args], capture_output=True, text=True,
                              errors="replace")
        code, kib = done.stdout.splitlines()[-1].split()
        return int(code), int(kib) * 1024, done.stderr

    def test_the_ceiling_is_kept_by_every_command(self):
        write_model("m.safetensors")
        nothing = self.peak("--version")[1]
        told = []
        for ceiling in (80, 112):  # one thread's, three threads'
            for name, args in COMMANDS.items():
                code, peak, said = self.peak(*args, "--max-memory", f"{ceiling}MiB", "-j8", *(["-f"] if "-o" in args else []))
                self.assertIn(code, (0, 1) if name == "diff" else (0,), said)
                told.append(f"{name} {(peak - nothing) / MIB:.0f}")
                with self.subTest(command=name, ceiling=ceiling):
                    self.assertLessEqual(peak - nothing, ceiling * MIB, f"{name}: {(peak - nothing) / MIB:.1f} of {ceiling} MiB")
            print(f"of {ceiling} MiB:", ", ".join(told), flush=True)
            told.clear()

    def test_without_the_option_it_grows_with_threads_alone(self):
        write_model("m.safetensors")
        nothing = self.peak("--version")[1]
        for name in ("convert", "stats"):
            code, peak, said = self.peak(*COMMANDS[name], "-j2", *(["-f"] if name == "convert" else []))
            self.assertEqual(code, 0, said)
            self.assertLessEqual(peak - nothing, (64 + 2 * 16) * MIB)

    def test_what_does_not_fit_is_refused_before_any_work(self):
        write_model("m.safetensors")
        for name, args in COMMANDS.items():
            if name in ("inspect", "show"):
                continue
            before = sorted(os.listdir("."))
            code, _, said = self.peak(*args, "--max-memory", "79MiB")
            self.assertEqual(code, 2, said)
            self.assertTrue(re.search("even one thread needs 80.0 MiB", said), said)
            self.assertEqual(sorted(set(os.listdir(".")) - {"said"}), [n for n in before if n != "said"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
