#!/usr/bin/env python3
"""Every call of every command fails once: nothing half-done is seen, and the error says what happened where.

usage: calls_test.py WTOOL SHIM     (Python's standard library only)
"""
import collections
import os

from harness import CASES, LONG, READING, REMOVING, STAGING, WRITING, Faults, final_of, main, top

REASONS = {"ENOSPC": "No space left on device", "EIO": "Input/output error", "EDQUOT": "Disk quota exceeded",
           "EINTR": "Interrupted system call"}
# After an interruption these are made again. The others either cannot be interrupted or leave it open
# whether they have done it.
AGAIN = {"write", "pwrite", "read", "pread", "fsync", "fallocate", "ftruncate", "open", "flock"}
# Done without, or what follows says it: closing after fsync, writing back early, copying in the kernel,
# another thread.
DISPENSABLE = {"close", "sync_file_range", "copy_file_range", "pthread_create"}
# Where the number of calls varies, a run may end before the one that is to fail: so many are made.
TRIES = 20


def expected(case, call, how):
    """The exit codes that are right if this call goes wrong."""
    if how == "short" or call.name in DISPENSABLE:
        return {0}
    if case.output and call.name == "open":  # no O_TMPFILE: then a file that is unlinked at once
        return {0}
    if call.name == "flock" and not STAGING.match(os.path.basename(call.first)):  # what is replaced: best effort
        return {0}
    if how == "EINTR":
        return {0} if call.name in AGAIN else {0, 4}
    return {4}


def position(log, wanted):
    """Of the last call that `wanted` is true of, or None."""
    return max((i for i, call in enumerate(log) if wanted(call)), default=None)


class Calls(Faults):
    def check_message(self, call, how, run, where):
        self.assertRegex(run.error, r"(?m)^wtool: error: ", where)
        self.assertIn(REASONS[how], run.error, where)
        if "/stdout" in call.first:
            named = "standard output" if "standard output" in run.error else "-"
        elif "/in/" in call.first:
            named = os.path.basename(call.first)
        else:
            named = final_of(call.first) or "out"
        if not STAGING.match(named) and "(deleted)" not in call.first:
            self.assertIn(named, run.error, where)

    def check(self, case, whole, number, how, run):
        hit = position(run.log, lambda c: c.number == number)
        self.assertIsNotNone(hit, f"{case}: there is no call {number} with {how}")
        call = run.log[hit]
        where = f"{case}, call {call} with {how}"
        self.assertIn(run.code, expected(case, call, how), f"{where}: {run.error}")
        new = self.check_names(case, whole, run, where)
        if run.code == 0:
            self.assertEqual(run.after, whole.after, where)
            self.assertEqual(run.out, whole.out, where)
            return
        self.check_message(call, how, run, where)
        for name in new:  # what was in place before the fault stays; nothing is put in place after it
            seen = position(run.log, lambda c: c.ok and c.second.rstrip("/") == "out/" + name)
            self.assertLess(seen, hit, f"{where}: out/{name} appeared after it. {run.error}")

    def disturbed(self, case, whole, calls, number, how):
        """A run in which call `number` fails, or None if no run had so many."""
        for _ in range(TRIES if case.varies else 1):
            run = self.run_case(case, calls, log=True, at=number, how=how)
            if not set(case.varies) & set(calls) or any(call.number == number for call in run.log):
                return run
            # Nothing failed.
            self.assertEqual((run.code, run.after, run.out), (0, whole.after, whole.out), f"{case}: {run.error}")
        return None

    def sweep(self, calls, hows):
        count = collections.Counter()
        for case in CASES:
            whole = self.undisturbed(case, calls)
            points = {c.number: c for c in whole.log if c.number}
            absent = 0
            for number, call in sorted(points.items()):
                # In the short form each call fails with one of the reasons that make no difference.
                reasons = [how for how in hows if how in REASONS and how != "EINTR"]
                for how in hows:
                    if not LONG and how in reasons and how != reasons[number % len(reasons)]:
                        continue
                    if how == "short" and call.name not in ("write", "pwrite", "read", "pread", "copy_file_range"):
                        continue
                    run = self.disturbed(case, whole, calls, number, how)
                    if run is None:
                        absent += 1
                        continue
                    with self.subTest(case=case.name, call=repr(call), how=how):
                        self.check(case, whole, number, how, run)
                    count[case.name] += 1
            self.assertLess(absent, count[case.name] / 4, case)
            self.check_inputs(case)
        print(", ".join(f"{name} {n}" for name, n in count.items()), "=", sum(count.values()), flush=True)

    def test_every_call_that_writes_fails_once(self):
        self.sweep(WRITING, ["ENOSPC", "EIO", "EDQUOT", "EINTR", "short"])

    def test_every_call_that_reads_fails_once(self):
        self.sweep(READING, ["EIO", "EINTR", "short"])

    def test_a_disk_that_is_full_stays_full(self):
        for case in CASES:
            if case.output:  # its first file is made in another way if it has to be
                continue
            calls = ["write", "pwrite", "fallocate", "mkdir", "open", "fsync", "copy_file_range"]
            whole = self.undisturbed(case, calls)
            points = {c.number: c for c in whole.log if c.number}
            for number, call in sorted(points.items()):
                run = self.run_case(case, calls, at=number, how="ENOSPC", sticky=1)
                with self.subTest(case=case.name, call=repr(call)):
                    where = f"{case}, full from {call} on"
                    self.assertEqual(run.code, 4, f"{where}: {run.error}")
                    self.assertIn(REASONS["ENOSPC"], run.error, where)
                    self.check_names(case, whole, run, where)

    def test_what_cannot_be_removed_is_told_and_goes_with_the_next_run(self):
        for case in CASES:
            whole = self.undisturbed(case, REMOVING)
            for call in [c for c in whole.log if c.number]:
                run = self.run_case(case, REMOVING, at=call.number, how="EIO")
                with self.subTest(case=case.name, call=repr(call)):
                    new = self.check_names(case, whole, run, str(case), leftovers=True)
                    self.assertTrue(new or case.output, case)
                    left = [name for name in top(run.after) if STAGING.match(name)]
                    if left:
                        self.assertEqual(run.code, 4, run.error)
                        self.assertIn(left[0], run.error)
                    again = self.run_case(case, fresh=False, args=[] if "-f" in case.args else ["-f"])
                    self.assertEqual((again.code, again.after), (0, whole.after), again.error)


if __name__ == "__main__":
    main()
