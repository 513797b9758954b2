#!/usr/bin/env python3
"""Every file of testdata/'s corpora gets the verdict of its manifest from 'wtool check'.

usage: verdicts_test.py WTOOL SOURCE_DIR     (Python's standard library only)

No file takes more than 2 seconds or 256 MiB; a sanitizer's build (WTOOL_SANITIZED=1) may take more.
"""
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

SECONDS, MEMORY = 2, 256 << 20
SANITIZED = os.environ.get("WTOOL_SANITIZED") == "1"
GOOD = {"accept": {0}, "reject": {1, 3}, "either": {0, 1, 3}}


def run(wtool, path):
    """(status or 'timeout', output, memory in bytes)"""
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen([wtool, "check", "--json", path], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        late = []
        timer = threading.Timer(SECONDS * (20 if SANITIZED else 1), lambda: (late.append(1), child.kill()))
        timer.start()
        _, status, usage = os.wait4(child.pid, 0)
        timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return "timeout" if late else child.returncode, out.read(), usage.ru_maxrss * 1024


def fault(wtool, root, name, entry):
    status, text, memory = run(wtool, str(root / name))
    good = GOOD[entry["verdict"]]
    if status not in good:
        return f"{name}: {entry['verdict']}, but exit {status} ({entry['rule']}): {text[:300]!r}"
    if memory > MEMORY and not SANITIZED:
        return f"{name}: took {memory >> 20} MiB"
    try:
        json.loads(text)
    except ValueError as e:
        return f"{name}: not one JSON document: {e}: {text[:200]!r}"
    return None


def main():
    wtool, root = sys.argv[1], pathlib.Path(sys.argv[2], "testdata")
    entries = []
    for corpus in ("safetensors", "gguf", "npy", "sharded", "imatrix"):
        files = json.loads((root / corpus / "manifest.json").read_text())["files"]
        entries += [(f"{corpus}/{e['file']}", e) for e in files]
    if SANITIZED:  # where a start takes long; the unit tests read all of them in one process
        entries = entries[::4]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        faults = [f for f in pool.map(lambda e: fault(wtool, root, *e), entries) if f]
    print("\n".join([*faults, f"{len(entries)} entries, {len(faults)} with faults"]))
    return 1 if faults or len(entries) < (150 if SANITIZED else 700) else 0


if __name__ == "__main__":
    sys.exit(main())
