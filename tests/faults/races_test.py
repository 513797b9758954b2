#!/usr/bin/env python3
"""Others at work in the same place, at every call: inputs that change, folders that go, names that are taken.

A run is stopped before its n-th call, something is done, and it goes on.

usage: races_test.py WTOOL SHIM     (Python's standard library only)
"""
import os
import pathlib
import shutil
import signal
import subprocess

from harness import (BY_NAME, LONG, OLD_FOLDER, READING, REMOVING, STAGING, WRITING, WTOOL, Case, Faults, brief, main, tree)

EVERY = 1 if LONG else 2


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def overwrite(path):
    with open(path, "r+b") as f:
        f.seek(-1, os.SEEK_END)
        last = f.read(1)[0]
        f.seek(-1, os.SEEK_END)
        f.write(bytes([last ^ 1]))


def grow(path):
    with open(path, "ab") as f:
        f.write(b" ")


def exchange(path):
    pathlib.Path(path + ".new").write_bytes(pathlib.Path(path).read_bytes())
    os.replace(path + ".new", path)


class Races(Faults):
    def stopped(self, case, number, calls, act):
        """The run, or None if it has fewer calls than that."""
        self.prepare(case)
        with open("stdout", "wb") as out:
            child = subprocess.Popen([WTOOL, *case.args], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE,
                                     env=self.environment(case, calls, log=True, at=number, how="SIGSTOP"))
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            child.returncode = os.waitstatus_to_exitcode(status)
            child.communicate()
            return None
        try:
            act()
        finally:
            child.send_signal(signal.SIGCONT)
            _, error = child.communicate(timeout=60)
        return self.look(child.returncode, error, log=True)

    def put_back_inputs(self):
        shutil.rmtree("in")
        for path, data in {"": None, **self.inputs}.items():
            if data is None:
                os.mkdir("in/" + path)
            else:
                pathlib.Path("in/" + path).write_bytes(data)

    def at_every_call(self, case, calls, act, check, first=1, step=EVERY):
        whole = self.undisturbed(case, calls)
        number, tried = first, 0
        while run := self.stopped(case, number, calls, act):
            hit = next(c for c in run.log if c.number == number)
            where = f"{case}, {getattr(act, '__name__', 'act')} before {hit}"
            with self.subTest(where=where):
                check(whole, run, where)
            number, tried = number + step, tried + 1
        self.assertGreater(tried, 3)
        return tried

    def test_inputs_that_change_are_noticed(self):
        tried = 0
        for name, path in (("convert", "in/m.safetensors"), ("copy", "in/m.safetensors"), ("q4_0", "in/m.safetensors"),
                           ("shards", "in/model/model.safetensors"), ("shards", "in/model/tokenizer.json"),
                           ("planes", "in/small.safetensors"), ("difference", "in/base.safetensors"),
                           ("compress-folder", "in/pair/config.json"), ("decompress", "in/small.zst"),
                           ("decompress-difference", "in/base.safetensors"),
                           ("decompress-difference", "in/difference.zst"),
                           ("decompress-folder", "in/pair-zst/config.json"), ("decompress-tensor", "in/small.zst"),
                           ("decompress-salvage", "in/small.zst")):
            case, noticed = BY_NAME[name], 0
            for change in (cut, overwrite, grow, exchange, os.remove):
                def act():
                    change(path)

                def check(whole, run, where):
                    nonlocal noticed
                    self.put_back_inputs()
                    if run.code == 0:  # after the last look at it: what was read before is what counts
                        self.assertEqual(run.after, whole.after, where)
                        at = next(i for i, c in enumerate(run.log) if c.second == "signal")
                        self.assertFalse([c for c in run.log[at:] if c.name == "pread" and path in c.first], where)
                        return
                    noticed += 1
                    self.assertEqual(run.code, 4, f"{where}: {run.error}")
                    self.assertEqual(run.after, {}, where)
                    self.assertRegex(run.error, f"wtool: error: {path}: ")

                act.__name__ = change.__name__
                # From when its header is read: an input that changes before is another input.
                calls = READING + ["copy_file_range", "fsync"]
                # The bytes that one read gets, and of which file. What lies beside is copied once: that call is met.
                log = self.undisturbed(case, calls).log
                step = EVERY
                begin, whose = (("8192", ".safetensors") if "tokenizer" in path else
                                ("9" if path.endswith(".zst") else "8", path))
                if "pair" in path:
                    log = log[next(i for i, c in enumerate(log) if c.name == "mkdir") :]
                    # How many calls come after differs, and they are few: each of them.
                    first, step = next(c.number for c in log if c.number and "config.json" in c.first) - 4, 1
                else:
                    first = next(c.number for c in log if c.result == begin and c.first.endswith(whose))
                tried += self.at_every_call(case, calls, act, check, first, step)
            self.assertGreater(noticed, 10, name)
        print(f"{tried} moments", flush=True)

    def test_the_folder_of_the_output_is_removed(self):
        def act():
            shutil.rmtree("out")

        def check(whole, run, where):
            self.assertIn(run.code, (0, 4), f"{where}: {run.error}")
            self.assertFalse(os.path.exists("out"), where)
            if run.code == 4:
                self.assertRegex(run.error, "wtool: error: out")

        cases = ("convert", "shards", "int8", "replace-folder")
        print(sum(self.at_every_call(BY_NAME[n], WRITING, act, check) for n in cases), "moments", flush=True)

    def test_the_temporary_folder_is_removed(self):
        def act():
            for name in os.listdir("out"):
                if STAGING.match(name):
                    shutil.rmtree("out/" + name)

        def check(whole, run, where):
            self.assertIn(run.code, (0, 4), f"{where}: {run.error}")
            self.check_names(BY_NAME[name], whole, run, where)

        for name in ("convert", "shards", "replace", "replace-folder"):
            self.at_every_call(BY_NAME[name], WRITING, act, check)

    def test_a_name_that_was_taken_meanwhile_is_kept(self):
        for name, target in (("convert", "o.safetensors"), ("shards", "o"), ("plain-file", "o.safetensors"),
                             ("no-links", "o.safetensors"), ("plain-folder", "o"), ("digest", "SHA256SUMS")):
            def act():
                nonlocal ours
                ours = os.path.exists("out/" + target)
                if ours:
                    return
                if target == "o":
                    os.mkdir("out/o")
                    pathlib.Path("out/o/theirs").write_bytes(b"theirs")
                else:
                    pathlib.Path("out/" + target).write_bytes(b"theirs")

            def check(whole, run, where):
                if ours:
                    return self.assertEqual(run.code, 0, where)
                # Between looking and renaming on a file system that can do neither in one: nothing helps there.
                if name == "no-links" and run.code == 0:
                    return
                self.assertEqual(run.code, 2, f"{where}: {run.error}")
                self.assertIn("already exists", run.error)
                theirs = {"o": None, "o/theirs": b"theirs"} if target == "o" else {target: b"theirs"}
                self.assertEqual(run.after, theirs, where)

            ours = False
            self.at_every_call(BY_NAME[name], WRITING, act, check)

    def test_what_comes_into_a_folder_that_is_replaced_is_not_lost(self):
        for name in ("replace-folder", "plain-replace-folder"):
            def act():
                nonlocal put
                put = os.path.exists("out/o")
                if put:
                    pathlib.Path("out/o/precious").write_bytes(b"precious")

            def check(whole, run, where):
                kept = [path for path, data in run.after.items() if data == b"precious"]
                if put and not kept:
                    self.fail(f"{where}: lost, with exit {run.code} {run.error}: {brief(run.after)}")
                self.assertIn(run.code, (0, 2), run.error)

            put = False
            self.at_every_call(BY_NAME[name], WRITING + REMOVING, act, check)

    def two(self, first, second):
        """The second runs while the first is stopped."""
        alone = {}
        for case in (first, second):
            alone[case.args[-1]] = self.undisturbed(case).after
        tried, number = 0, 1

        def act():
            nonlocal other
            env = self.environment(second)
            other = subprocess.run([WTOOL, *second.args], capture_output=True, env=env, timeout=60)

        other = None
        while run := self.stopped(first, number, WRITING + REMOVING, act):
            hit = next(c for c in run.log if c.number == number)
            where = f"{second} while {first} is before {hit}"
            with self.subTest(where=where):
                codes = (run.code, other.returncode)
                force = "-f" in first.args
                self.assertIn(codes, [(0, 0), (0, 2), (2, 0)] if force else [(0, 2), (2, 0)],
                              f"{where}: {run.error} {other.stderr}")
                self.assertIn(run.after, list(alone.values()), f"{where} {codes}: {brief(run.after)}")
            number, tried = number + EVERY, tried + 1
        return tried

    def test_two_of_one_name(self):
        tried = 0
        for before, force in (({}, ""), ({"o.safetensors": b"old"}, "-f ")):
            cases = [Case(f"file {force}{t}", f"convert in/m.safetensors {force}-o out/o.safetensors -j1 --dtype {t}",
                          before) for t in ("f16", "bf16")]
            tried += self.two(*cases)
        for before, force in (({}, ""), (OLD_FOLDER, "-f ")):
            cases = [Case(f"folder {force}{t}",
                          f"convert in/m.safetensors {force}-o out/o/ --shard-size 20kB -j1 --dtype {t}",
                          before) for t in ("f16", "bf16")]
            tried += self.two(*cases)
        print(f"{tried} moments", flush=True)

    def test_many_of_one_name_at_once(self):
        for force in ("", "-f "):
            types = ("f16", "bf16", "f32", "f64")
            cases = [Case(t, f"convert in/m.safetensors {force}-o out/o/ --shard-size 20kB -j1 --dtype {t}") for t in types]
            alone = [self.undisturbed(c).after for c in cases]
            for i in range(60 if LONG else 12):
                self.prepare(cases[0])
                children = [subprocess.Popen([WTOOL, *c.args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                             env=self.environment(c)) for c in cases]
                errors = [c.communicate()[1] for c in children]
                codes = [c.returncode for c in children]
                self.assertIn(tree("out"), alone, f"{codes} {errors}")
                self.assertIn(0, codes, errors)
                self.assertLessEqual(set(codes), {0, 2}, errors)
                if not force:
                    self.assertEqual(codes.count(0), 1, errors)


if __name__ == "__main__":
    main()
