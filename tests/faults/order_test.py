#!/usr/bin/env python3
"""The order in which things reach the disk, from the calls themselves: what a power failure can cost.

usage: order_test.py WTOOL SHIM     (Python's standard library only)
"""
import os
import re

from harness import CASES, REMOVING, WRITING, Faults, final_of, main, top

FILLING = {"pwrite", "write", "copy_file_range", "fallocate", "posix_fallocate", "ftruncate"}
NAMING = {"rename", "renameat", "renameat2", "link", "linkat"}
FLUSHING = {"fsync", "fdatasync"}


class Order(Faults):
    def absolute(self, path):
        """Where a path of the log lies; those given to calls are relative, those of descriptors are not."""
        return re.sub(r"/$", "", os.path.normpath(os.path.join(self.dir, path)))

    def check_before(self, case, log, at):
        """At the call that makes a name visible, all that appears with it has been flushed."""
        source = self.absolute(log[at].first)
        folders = {self.absolute(c.first) for c in log if c.name == "mkdir"}  # opened to be flushed
        dirty = {}
        for call in log[:at]:
            path = self.absolute(call.first)
            if not (path == source or path.startswith(source + "/")) or not call.ok:
                continue
            if call.name in FILLING:
                dirty[path] = call
            elif (call.name == "mkdir" or call.name == "open" and path not in folders) and path != source:
                dirty.setdefault(path, call)
                dirty[os.path.dirname(path)] = call  # a new entry in its folder
            elif call.name in FLUSHING:
                dirty.pop(path, None)
        dirty = {path: call for path, call in dirty.items() if path == source or path.startswith(source + "/")}
        self.assertEqual(dirty, {}, f"{case}: not flushed before {log[at]}")

    def check_after(self, case, log, at):
        """Then the folder is flushed, before anything that was replaced is removed."""
        folder = self.dir + "/out"
        for call in log[at + 1 :]:
            if call.name in FLUSHING and self.absolute(call.first) == folder:
                return
            if call.name in REMOVING and self.absolute(call.first) != self.absolute(log[at].first):
                self.fail(f"{case}: {call} before {folder} was flushed")
        self.fail(f"{case}: {folder} is not flushed after {log[at]}")

    def test_data_is_flushed_before_its_name_and_the_folder_after(self):
        for case in CASES:
            if case.output == "stdout":
                continue
            with self.subTest(case=case.name):
                run = self.run_case(case, WRITING + REMOVING, log=True, nosync=0)
                self.assertEqual(run.code, 0, run.error)
                names = top(run.after)
                for name in names:
                    at = [i for i, c in enumerate(run.log) if c.ok and c.name in NAMING
                          and self.absolute(c.second) == f"{self.dir}/out/{name}"]
                    self.assertEqual(len(at), 1, f"{case}: {name} is made visible {len(at)} times")
                    self.assertEqual(final_of(run.log[at[0]].first), name)
                    self.check_before(case, run.log, at[0])
                    self.check_after(case, run.log, at[0])
                opened = {self.absolute(c.first) for c in run.log if c.name in FILLING and "/out/" in c.first}
                flushed = {self.absolute(c.first) for c in run.log if c.name in FLUSHING}
                self.assertLessEqual(opened, flushed, case)


if __name__ == "__main__":
    main()
