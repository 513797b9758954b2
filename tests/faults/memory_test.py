#!/usr/bin/env python3
"""No memory: any allocation that fails, a limit on the address space; and a disk that is really full.

usage: memory_test.py WTOOL SHIM     (Python's standard library only)
"""
import json
import pathlib
import resource
import shutil
import subprocess

from harness import BY_NAME, CASES, LONG, WRITING, WTOOL, Case, Faults, main, make_large, tree, tree_of

# Of those that write nothing, memory is the only thing that can fail them half-way.
READING_CASES = [
    Case("inspect", "inspect in/m.safetensors in/model", output="stdout"),
    Case("stats", "stats in/m.safetensors -j2", output="stdout"),
    Case("diff", "diff in/m.safetensors in/m.safetensors -j2", output="stdout"),
    Case("gguf", "convert in/m.safetensors -o out/o.gguf -j2"),
]

# The same work for two threads, on more.
LARGE = {"-j1": "-j2", "in/m.safetensors": "in/large.safetensors", "in/small.safetensors": "in/large.safetensors",
         "in/base.safetensors": "in/large-base.safetensors", "in/small.zst": "in/large.zst",
         "in/difference.zst": "in/large-difference.zst"}

FULL = """
mount -t tmpfs -o size="$1" tmpfs out || exit 77
shift
test -z "$OLD" || printf %s "$OLD" > out/o.safetensors
"$@"
code=$?
cp -a out/. seen/
exit "$code"
"""


class Memory(Faults):
    def check(self, case, whole, run, where):
        self.assertIn(run.code, (0, 4), f"{where}: {run.error[-3000:]}")
        self.check_names(case, whole, run, where)
        if run.code == 0:
            self.assertEqual(run.after, whole.after, where)
            if case.output:
                self.assertEqual(run.out, whole.out, where)
        else:
            self.assertRegex(run.error, r"(?m)^wtool: error: .*([Mm]emory|allocate)", where)

    def allocations(self, case):
        run = self.run_case(case, memory_count=self.dir + "/count")
        self.assertEqual(run.code, 0, run.error)
        n = int(pathlib.Path("count").read_text())
        self.assertGreater(n, 100, case)
        return run, n

    def test_any_allocation_may_fail(self):
        tried = []
        for case in [*CASES, *READING_CASES]:
            whole, n = self.allocations(case)
            points = range(1, n + 1) if LONG else sorted({1 + i * n // 24 for i in range(24)} | set(range(n - 12, n + 1)))
            for i in points:
                run = self.run_case(case, WRITING, log=True, memory=i)
                with self.subTest(case=case.name, allocation=i):
                    self.check(case, whole, run, f"{case}, allocation {i} of {n}")
            tried.append(f"{case} {len(points)} of {n}")
        print(", ".join(tried), flush=True)

    def test_the_last_words_are_json_where_json_was_asked_for(self):
        """Options are parsed by functions that say they throw nothing, so some of these end without unwinding."""
        case = Case("inspect", "inspect in/m.safetensors --json", output="stdout")
        _, n = self.allocations(case)
        for i in range(1, n + 1, 1 if LONG else max(1, n // 100)):
            run = self.run_case(case, memory=i)
            with self.subTest(allocation=i):
                self.assertIn(run.code, (0, 4))
                if run.code == 4:
                    error = json.loads(run.error)
                    self.assertEqual((error["schema"], error["error"]["fault"]), ("wtool.error/1", "io"))
                    self.assertEqual(sorted(error["error"]), ["fault", "hint", "message", "where"])

    def test_no_large_allocation_any_more(self):
        for case in CASES:
            whole, _ = self.allocations(case)
            run = self.run_case(case, memory_count=self.dir + "/count", memory_over=4000)
            n = int(pathlib.Path("count").read_text())
            for i in range(1, n + 1, 1 if LONG else max(1, n // 10)):
                run = self.run_case(case, WRITING, log=True, memory=i, memory_over=4000, sticky=1)
                with self.subTest(case=case.name, allocation=i):
                    self.check(case, whole, run, f"{case}, no more than 4000 bytes from large allocation {i} of {n} on")

    def limited(self, args, limit):
        with open("stdout", "wb") as out:
            done = subprocess.run([WTOOL, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE,
                                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)), timeout=120)
        return self.look(done.returncode, done.stderr)

    def test_a_limit_on_the_address_space(self):
        make_large()
        step = 1 << (16 if LONG else 18)
        least = next(n for n in range(step, 1 << 30, step) if self.limited(["--version"], n).code == 0)
        outcomes = {0: 0, 4: 0}
        for name in ("convert", "shards", "int8", "q4_0", "compress", "planes", "difference", "decompress",
                     "decompress-difference", "decompress-tensor"):
            case = BY_NAME[name]
            args = [LARGE.get(a, a) for a in case.args]
            self.prepare(case)
            whole = self.limited(args, resource.RLIM_INFINITY)
            self.assertEqual(whole.code, 0, whole.error)
            enough, limit = 0, least
            while enough < 3 and limit < least + (1 << 29):
                self.prepare(case)
                run = self.limited(args, limit)
                with self.subTest(case=case.name, limit=limit):
                    self.check(case, whole, run, f"{case}, ulimit -v {limit >> 10}")
                outcomes[run.code] = outcomes.get(run.code, 0) + 1
                enough = enough + 1 if run.code == 0 else 0
                limit += step
        print(f"from {least >> 20} MiB on: {outcomes[4]} refused, {outcomes[0]} went through", flush=True)
        self.assertGreater(outcomes[4], 0)
        self.assertGreater(outcomes[0], 0)

    def test_a_full_disk(self):
        probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none out"]
        self.prepare(BY_NAME["convert"])
        if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode != 0:
            self.skipTest("mounting a tmpfs in a namespace of our own is not permitted")
        refused = passed = 0
        for name in ("convert", "copy", "replace", "shards", "npy", "q4_0", "plain-folder", "planes", "difference",
                     "compress-folder", "decompress", "decompress-plain", "decompress-folder"):
            case = BY_NAME[name]
            whole = self.undisturbed(case)
            need = sum(-(-len(data) // 4096) * 4096 + 4096 for data in whole.after.values() if data)
            for size in range(4096, need + 65536, 4096 if LONG else 12288):
                shutil.rmtree("seen", ignore_errors=True)
                pathlib.Path("seen").mkdir()
                self.prepare(BY_NAME["convert"])
                env = dict(self.environment(case), OLD="old" if case.before else "")
                env.pop("FAULT_AT", None)
                done = subprocess.run(["unshare", "-rm", "sh", "-c", FULL, "sh", str(size), WTOOL, *case.args],
                                      stdin=subprocess.DEVNULL, capture_output=True, env=env)
                after, error = tree("seen"), done.stderr.decode()
                where = f"{case}, disk of {size} bytes: {error}"
                with self.subTest(case=case.name, size=size):
                    self.assertIn(done.returncode, (0, 4), where)
                    if done.returncode == 0:
                        passed += 1
                        self.assertEqual(after, whole.after, where)
                    else:
                        refused += 1
                        self.assertEqual(after, tree_of(case.before), where)
                        self.assertRegex(error, r"wtool: error: out/o\S*: .*(free|No space left)")
        print(f"{refused} refused, {passed} went through", flush=True)
        self.assertGreater(refused, 20)
        self.assertGreater(passed, 5)


if __name__ == "__main__":
    main()
