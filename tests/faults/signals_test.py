#!/usr/bin/env python3
"""Killed and interrupted runs: at every call that touches the disk, and at random moments.

usage: signals_test.py WTOOL SHIM     (Python's standard library only)
"""
import collections
import random
import signal
import subprocess
import time

from harness import (CASES, LONG, REMOVING, SEED, STAGING, WRITING, WTOOL, Case, Faults, main, make_large, top,
                     tree)

RANDOM_CASES = [
    Case("convert", "convert in/large.safetensors --dtype bf16 -o out/o.safetensors -j2"),
    Case("int8", "quantize --int8 in/large.safetensors -o out/o.safetensors -j2"),
    Case("q4_k", "quantize --type q4_k in/large.safetensors -o out/o.gguf -j2"),
    Case("shards", "convert in/large.safetensors --dtype f16 -o out/o/ --shard-size 300kB -j2"),
    Case("replace-folder", "convert in/large.safetensors --dtype f16 -f -o out/o/ --shard-size 300kB -j2",
         {"o": None, "o/model-00001-of-00002.safetensors": b"old, one", "o/model.safetensors.index.json": b"{}"}),
    Case("compress", "compress in/large.safetensors --plain -o out/o.zst -j2"),
    Case("planes", "compress in/large.safetensors --planes -f -o out/o.zst -j2", {"o.zst": b"old"}),
    Case("difference", "compress in/large.safetensors --base in/large-base.safetensors -o out/o.zst -j2"),
    Case("decompress", "decompress in/large.zst -o out/o.safetensors -j2"),
    Case("decompress-difference",
         "decompress in/large-difference.zst --base in/large-base.safetensors -o out/o.safetensors -j2"),
]


class Signals(Faults):
    def check_killed(self, case, whole, run, where):
        """Only hidden folders may be left, and the next run removes them."""
        self.assertEqual(run.code, -signal.SIGKILL, f"{where}: {run.error}")
        self.check_names(case, whole, run, where, leftovers=True)
        again = self.run_case(case, fresh=False, args=[] if "-f" in case.args else ["-f"])
        after = again.after
        if "flock=" in case.always:  # without locks nobody knows whether another is still at work there
            after = {path: data for path, data in after.items() if not STAGING.match(path.split("/")[0])}
        self.assertEqual((again.code, sorted(after)), (0, sorted(whole.after)), f"{where}: {again.error}")
        self.assertEqual(after, whole.after, where)

    def check_stopped(self, case, whole, run, number, where):
        """Dead by that signal, or too late for it; nothing is left."""
        self.assertEqual(run.code, -number, f"{where}: {run.error}")
        self.check_names(case, whole, run, where)
        self.assertNotIn("error", run.error, where)

    def at_every_call(self, how):
        tried = 0
        for case in CASES:
            whole = self.undisturbed(case, WRITING + REMOVING)
            for number in range(1, max(c.number for c in whole.log) + 1, 1 if LONG or how == "SIGKILL" else 3):
                run = self.run_case(case, WRITING + REMOVING, log=True, at=number, how=how)
                hit = next(c for c in run.log if c.number == number)
                where = f"{case}, {how} before {hit}"
                with self.subTest(case=case.name, call=repr(hit)):
                    if how != "SIGKILL":
                        self.check_stopped(case, whole, run, getattr(signal, how), where)
                    elif case.always.startswith("renameat2") and case.before and run.after != whole.after:
                        self.check_swap_in_steps(case, whole, run, where)
                    else:
                        self.check_killed(case, whole, run, where)
                tried += 1
            self.check_inputs(case)
        print(f"{how} before each of {tried} calls", flush=True)

    def check_swap_in_steps(self, case, whole, run, where):
        """Where names cannot be exchanged there is a moment without the name: the old content is then beside it, under
        a name that no later run takes for its own."""
        names = top(run.after)
        aside = [name for name in names if name.endswith(".old")]
        if "o" in names and not aside:
            return self.check_killed(case, whole, run, where)
        self.assertEqual(len(aside), 1, where)
        old = {path.replace(aside[0], "o", 1): data for path, data in run.after.items() if path.startswith(aside[0])}
        self.assertEqual(old, case.before, where)
        again = self.run_case(case, fresh=False)
        self.assertEqual(again.code, 0, again.error)
        self.assertIn(aside[0], top(again.after), "the old content is its owner's, not ours to remove")

    def test_killed_before_every_call(self):
        self.at_every_call("SIGKILL")

    def test_terminated_before_every_call(self):
        self.at_every_call("SIGTERM")

    def test_at_random_moments(self):
        make_large()
        self.inputs = tree("in")
        rng = random.Random(SEED)
        done = collections.Counter()
        for case in RANDOM_CASES:
            whole, lengths = self.undisturbed(case), []
            for _ in range(3):
                started = time.monotonic()
                self.run_case(case)
                lengths.append(time.monotonic() - started)
            length = min(lengths)
            for i in range(400 if LONG else 25):
                number = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT][i % 3]
                self.prepare(case)
                with open("stdout", "wb") as out:
                    child = subprocess.Popen([WTOOL, *case.args], stdin=subprocess.DEVNULL, stdout=out,
                                             stderr=subprocess.PIPE, env=self.environment(case))
                moment = rng.uniform(0, 0.6 * length)  # the rest is this script's own time
                time.sleep(moment)
                child.send_signal(number)
                _, error = child.communicate(timeout=60)
                run = self.look(child.returncode, error)
                where = f"{case}, {number.name} after {moment * 1000:.1f} of {length * 1000:.1f} ms (seed {SEED}, run {i})"
                with self.subTest(where=where):
                    if run.code == 0:
                        self.assertEqual(run.after, whole.after, where)
                        done["too late"] += 1
                    elif number == signal.SIGKILL:
                        done["SIGKILL, leaving something" if any(map(STAGING.match, top(run.after))) else "SIGKILL"] += 1
                        self.check_killed(case, whole, run, where)
                    else:
                        done[number.name] += 1
                        self.check_stopped(case, whole, run, number, where)
            self.check_inputs(case)
        print(", ".join(f"{what}: {n}" for what, n in sorted(done.items())), flush=True)


if __name__ == "__main__":
    main()
