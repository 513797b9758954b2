#!/usr/bin/env python3
"""Signatures while calls and allocations fail: what is not as it was signed is never taken, what is
as it was signed is never called changed, and a signature that is written holds.

usage: verdict_test.py WTOOL SHIM     (Python's standard library only)
"""
import json
import os
import pathlib
import shutil
import subprocess

from harness import LONG, READING, WTOOL, Case, Faults, main, tree

VERIFY = "verify in/{} --signature in/{} --key in/me.pub.pem -j2"
GOOD = Case("good", VERIFY.format("model", "m.sig"), output="stdout")
# Exit 1 each.
BAD = [
    Case("changed", VERIFY.format("changed", "m.sig"), output="stdout"),
    Case("extra", VERIFY.format("extra", "m.sig"), output="stdout"),
    Case("forged", VERIFY.format("changed", "forged.sig"), output="stdout"),
    Case("stranger", VERIFY.format("changed", "stranger.sig"), output="stdout"),
]
SIGN = Case("sign", "sign in/model --key in/me.pem -o out/m.sig -j1")


class Verdicts(Faults):
    def setUp(self):
        super().setUp()
        wtool = lambda *args: subprocess.run([WTOOL, *args], check=True, capture_output=True)
        shutil.copytree("in/model", "in/changed")
        with open("in/changed/model.safetensors", "r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
        shutil.copytree("in/model", "in/extra")
        pathlib.Path("in/extra/more").write_text("")
        for name in ("me", "stranger"):
            wtool("sign", "--new-key", "in/" + name)
        wtool("sign", "in/model", "--key", "in/me.pem", "-o", "in/m.sig")
        wtool("sign", "in/changed", "--key", "in/stranger.pem", "-o", "in/stranger.sig")
        # All of it fits together but who made it.
        forged = json.loads(pathlib.Path("in/stranger.sig").read_text())
        forged["verificationMaterial"] = json.loads(pathlib.Path("in/m.sig").read_text())["verificationMaterial"]
        pathlib.Path("in/forged.sig").write_text(json.dumps(forged))
        self.inputs = tree("in")
        self.assertEqual(self.run_case(GOOD).code, 0)
        for case in BAD:
            self.assertEqual(self.run_case(case).code, 1, case)

    def allocations(self, case):
        """Those to fail: in the short form some of all, and all of the last, when the verdict is near."""
        self.run_case(case, memory_count=self.dir + "/count")
        n = int(pathlib.Path("count").read_text())
        step = 1 if LONG else max(1, n // 60)
        return sorted({*range(1, n + 1, step), *range(max(1, n - 60), n + 1)})

    def calls(self, case, calls):
        self.run_case(case, calls, log=True)
        return [c.number for c in self.look(0, b"", True).log if c.number]

    def each_fault(self, case):
        """Runs with one fault each, and what was wrong."""
        for i in self.allocations(case):
            yield f"{case}, allocation {i}", self.run_case(case, memory=i)
            if LONG:
                yield f"{case}, from allocation {i} on", self.run_case(case, memory=i, sticky=1)
        calls = READING + ["open", "close", "pthread_create"]
        for i in self.calls(case, calls):
            for how in ("EIO", "short"):
                yield f"{case}, call {i} with {how}", self.run_case(case, calls, at=i, how=how)

    def test_what_was_not_signed_is_never_taken(self):
        for case in BAD:
            tried = 0
            for where, run in self.each_fault(case):
                tried += 1
                self.assertIn(run.code, (1, 4), f"{where}: {run.out} {run.error}")
                self.assertNotIn(b": VERIFIED", run.out, where)
            self.assertGreater(tried, 80, case)

    def test_what_was_signed_is_never_called_changed(self):
        for where, run in self.each_fault(GOOD):
            self.assertIn(run.code, (0, 4), f"{where}: {run.out} {run.error}")
            if run.code == 0:
                self.assertIn(b": VERIFIED", run.out, where)

    def test_a_signature_that_is_written_holds(self):
        def check(where, run):
            self.assertIn(run.code, (0, 4), f"{where}: {run.error}")
            self.assertIn(set(run.after), ({"m.sig"}, set()), where)  # or it failed when all was done
            self.assertTrue(run.code != 0 or run.after, where)
            if run.after:
                done = subprocess.run([WTOOL, "verify", "in/model", "--signature", "out/m.sig", "--key",
                                       "in/me.pub.pem"], capture_output=True)
                self.assertEqual(done.returncode, 0, f"{where}: {done.stderr}")
        for i in self.allocations(SIGN):
            check(f"allocation {i}", self.run_case(SIGN, memory=i))
        for calls, hows in ((READING, ("EIO", "short")), (["write", "pwrite", "open", "mkdir"], ("ENOSPC",))):
            for i in self.calls(SIGN, calls):
                for how in hows:
                    check(f"call {i} of {calls} with {how}", self.run_case(SIGN, calls, at=i, how=how))


if __name__ == "__main__":
    main()
