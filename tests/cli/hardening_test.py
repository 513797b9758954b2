#!/usr/bin/env python3
"""What the compiler and the linker were asked to add against memory errors (cmake/hardening.cmake), read from the program.

usage: hardening_test.py WTOOL CXX        (and for a static program: hardening_test.py WTOOL)
Each check is proven: a small program built without that one thing fails it, and no other. (readelf, objdump)
"""
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

WTOOL = sys.argv[1]
CXX = sys.argv[2] if len(sys.argv) > 2 else None
X86 = platform.machine() in ("x86_64", "AMD64")


@functools.lru_cache(None)
def read(tool, path):
    env = dict(os.environ, LC_ALL="C")
    return subprocess.run([*tool.split(), path], capture_output=True, text=True, check=True, env=env).stdout


def has_pie(path):
    flags = re.search(r"\(FLAGS_1\).*", read("readelf -dW", path))
    return bool(re.search(r"Type:\s+DYN", read("readelf -hW", path)) and flags and "PIE" in flags[0])


def has_relro(path):
    return "GNU_RELRO" in read("readelf -lW", path)


def binds_now(path):
    return bool(re.search(r"\((FLAGS_1|FLAGS)\).*NOW", read("readelf -dW", path)))


def has_data_stack(path):
    stack = re.search(r"GNU_STACK(?:\s+0x\w+)+\s+([RWE ]+?)\s+0x", read("readelf -lW", path))
    return bool(stack) and "E" not in stack[1]


def symbol(pattern):
    return lambda path: bool(re.search(pattern, read("readelf --dyn-syms -W", path)))


def has_landing_pads(path):  # where jumps may land; `main` is code of ours
    return bool(re.search(r"<main>:\n\s+\w+:.*endbr64", read("objdump -d --disassemble=main", path)))


def probes_stack(path):  # a large frame is touched page by page
    return bool(re.search(r"\bsub +\$0x1000,%rsp\n.*\bor[ql] +\$0x0,(0x\w+)?\(%rsp\)", read("objdump -d", path)))


LAYOUT = {
    "a program at any place (PIE)": (has_pie, "-fno-pie -no-pie"),
    "tables read-only after the start (RELRO)": (has_relro, "-Wl,-z,norelro"),
    "functions bound at the start (NOW)": (binds_now, "-Wl,-z,lazy"),
    "a stack that holds no code": (has_data_stack, "-Wl,-z,execstack"),
}
# A static program has the C library's own of these, so they tell nothing there.
CODE = {
    "guarded return addresses (stack protector)": (symbol(r"\b__stack_chk_fail\b"), "-fno-stack-protector"),
    "checked calls (_FORTIFY_SOURCE)": (symbol(r"\b__(?!stack)\w+_chk\b"), "-U_FORTIFY_SOURCE"),
    "checked indices (_GLIBCXX_ASSERTIONS)": (symbol(r"\b_ZSt21__glibcxx_assert_fail"), "-U_GLIBCXX_ASSERTIONS"),
}
if X86:
    CODE["probed stack (stack clash)"] = (probes_stack, "-fno-stack-clash-protection")
    CODE["marked targets of jumps (CET)"] = (has_landing_pads, "-fcf-protection=none")
ALL = {**LAYOUT, **CODE}

FLAGS = ("-O2 -fPIE -pie -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -fstack-protector-strong -fstack-clash-protection"
         " -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -D_GLIBCXX_ASSERTIONS" + " -fcf-protection=full" * X86)
PROGRAM = r"""
#include <cstdio>
#include <cstring>
#include <vector>
void use(char*);
void use(char* p) { std::puts(p); }
int main(int n, char** arguments) {
  char text[32], large[20000];
  volatile char* touched = large;
  touched[n] = 1;
  std::strcpy(text, arguments[0]);
  use(text);
  std::vector<int> numbers(static_cast<std::size_t>(n));
  return numbers[static_cast<std::size_t>(n) / 2] + large[n];
}
"""


def missing(path, checks):
    return [name for name, (there, _) in checks.items() if not there(path)]


class Hardening(unittest.TestCase):
    def test_the_program_has_them_all(self):
        self.assertEqual(missing(WTOOL, ALL if CXX else LAYOUT), [])

    @unittest.skipUnless(CXX, "no compiler named")
    def test_a_program_without_one_is_noticed(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, without in [("", ""), *((name, without) for name, (_, without) in ALL.items())]:
                program = os.path.join(folder, re.sub(r"\W", "", name) or "all")
                subprocess.run([CXX, "-x", "c++", "-", "-o", program, *FLAGS.split(), *without.split()],
                               input=PROGRAM, text=True, check=True)
                with self.subTest(without=without):
                    self.assertEqual(missing(program, ALL), [name] if name else [])


if __name__ == "__main__":
    if not shutil.which("readelf") or not shutil.which("objdump"):
        print("no binutils here")
        sys.exit(77)
    del sys.argv[1:]
    unittest.main(verbosity=2)
