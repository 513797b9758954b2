#!/usr/bin/env python3
"""Runs wtool over the conformance corpora and compares verdicts, catalogs, metadata and manners.

usage: corpus.py WTOOL SOURCE_DIR [PART]       PART: only files whose path holds it

The corpora are generated into a temporary folder by SOURCE_DIR/../shared/corpus/make_*.py; without
them the test is skipped (77). Every file goes through 'inspect' and 'check', with --json and without;
a set of files also by its first part. What the reference implementations accept, 'check --lenient'
accepts.
"""
import concurrent.futures
import hashlib
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import threading

SKIP = 77
SECONDS, MEMORY, ADDRESS_SPACE = 2, 256 << 20, 1 << 30
SANITIZED = os.environ.get("WTOOL_SANITIZED") == "1"  # needs more of everything

VALUES = "only the values show it, and 'inspect' reads headers only"
CONTENT = "a sound file of another format: 'inspect' finds formats by content, never by suffix"
# Entries whose answer differs from the verdict, and why. One that no longer differs is a fault.
KNOWN = {
    "safetensors/wrong_gguf.safetensors": CONTENT,
    "safetensors/wrong_npy.safetensors": CONTENT,
    **{f"gguf/{name}.gguf": VALUES for name in (
        "q8_scale_nan", "q8_scale_inf_second_block", "q4_0_scale_neg_inf", "q4_1_min_nan",
        "q4_k_dmin_nan", "q2_k_scale_at_end_inf", "q6_k_scale_nan", "q8_k_scale_nan",
        "iq1_m_scale_nan", "mxfp4_e_255")},
}

NUMPY_TYPES = {"b1": "bool", "V1": "v1", "V2": "v2", "f1": "f8_e5m2", "c8": "c64", "c16": "c128"}
NUMPY_NAMES = {"bfloat16": "bf16", "float8_e4m3fn": "f8_e4m3", "float32": "f32"}


def our_dtype(name, form):
    if form != "npy":
        return name.lower()
    if name in NUMPY_NAMES:
        return NUMPY_NAMES[name]
    code = name.lstrip("<>|=")
    return NUMPY_TYPES.get(code) or code[0] + str(8 * int(code[1:]))


def limits():
    if not SANITIZED:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


class Run:
    """One run of wtool: status ('timeout' when killed), output, peak memory in bytes."""

    def __init__(self, wtool, *args):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = subprocess.Popen([wtool, *args], stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=err, preexec_fn=limits)
            killed = []
            timer = threading.Timer(SECONDS * (20 if SANITIZED else 1),
                                    lambda: (killed.append(1), child.kill()))
            timer.start()
            _, status, usage = os.wait4(child.pid, 0)
            timer.cancel()
            child.returncode = os.waitstatus_to_exitcode(status)
            self.status = "timeout" if killed else child.returncode
            self.memory = usage.ru_maxrss * 1024
            out.seek(0)
            err.seek(0)
            self.out, self.err = out.read(), err.read()


# C0 but for the newline, DEL, C1 and bidirectional controls; in text from any file.
RAW_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def raw_control(data):
    text = data.decode("utf-8", errors="surrogateescape")
    found = RAW_CONTROL.search(text) or re.search("[\udc80-\udcff]", text)
    return f"raw {found.group()!r} in the text output" if found else None


def same_value(ours, theirs, kind):
    """A metadata value as our JSON and as the manifest has it."""
    if isinstance(theirs, list):
        return (isinstance(ours, list) and len(ours) == len(theirs)
                and all(same_value(a, b, kind) for a, b in zip(ours, theirs)))
    if kind == "f32" and isinstance(ours, (int, float)) and not isinstance(theirs, str):
        return struct.pack("<f", ours) == struct.pack("<f", theirs)
    if kind in ("f64",) and not isinstance(theirs, str):
        return struct.pack("<d", ours) == struct.pack("<d", theirs)
    if kind in ("u64", "i64"):
        return isinstance(ours, str) and ours == str(theirs)
    return type(ours) is type(theirs) and ours == theirs


def metadata_fault(ours, entry):
    expected = dict(entry["metadata"])
    if os.path.isdir(entry["path"]):  # what only concerns the parts is no part of the whole
        expected = {k: v for k, v in expected.items() if not k.startswith("split.")}
    if list(ours) != list(expected):
        return f"metadata keys {list(ours)} instead of {list(expected)}"
    for key, value in expected.items():
        got = ours[key]
        if isinstance(value, str):
            if got != value:
                return f"metadata {key!r} is {got!r} instead of {value!r}"
            continue
        if (got["type"], got.get("of")) != (value["type"], value.get("of")) or not same_value(
                got["value"], value["value"], value.get("of", value["type"])):
            return f"metadata {key!r} is {str(got)[:200]} instead of {str(value)[:200]}"
    return None


def bytes_of(entry, tensor):
    path = entry["path"]
    if os.path.isdir(path):
        path = os.path.join(path, os.path.basename(tensor["file"]))
    with open(path, "rb") as f:
        f.seek(tensor["offset"])
        return f.read(tensor["bytes"])


def tensors_fault(ours, entry):
    expected, form = entry["tensors"], entry["format"]
    if len(ours) != len(expected):
        return f"{len(ours)} tensors instead of {len(expected)}"
    for got, want in zip(ours, expected):
        facts = [("dtype", got["dtype"], our_dtype(want["dtype"], form)),
                 ("shape", got["shape"], want["shape"]), ("bytes", got["bytes"], want["nbytes"])]
        if form != "npy":  # whose tensors take their name from the file
            facts.append(("name", got["name"], want["name"]))
        if "shard" in want:
            facts.append(("file", os.path.basename(got["file"]), want["shard"]))
        for what, a, b in facts:
            if a != b:
                return f"tensor {want['name']!r}: {what} is {a!r} instead of {b!r}"
        # The digest of the stored bytes pins the offset, which the manifest has relative to the data.
        if hashlib.sha256(bytes_of(entry, got)).hexdigest() != want["sha256"]:
            return f"tensor {want['name']!r}: other bytes lie at {got['offset']}"
    return None


def verdict_of(entry):
    if entry["format"] == "npz":
        return [3]  # not read yet; the text is looked at elsewhere
    return {"accept": [0], "reject": [3], "either": [0, 3]}[entry["verdict"]]


def json_faults(run, entry):
    try:
        if run.status == 0:
            document = json.loads(run.out)
        else:
            document = json.loads(run.err)
            if run.out or not document["error"]["message"]:
                yield "an error must be one JSON document on stderr and nothing on stdout"
            return
    except (ValueError, KeyError) as e:
        yield f"not one JSON document: {e}: {(run.out or run.err)[:200]!r}"
        return
    listed = entry.get("tensors")
    if listed is not None and not (listed == [] and entry["verdict"] == "either"):
        fault = tensors_fault(document["tensors"], entry)
        if fault:
            yield fault
    if "metadata" in entry:
        fault = metadata_fault(document["metadata"], entry)
        if fault:
            yield fault


def paths_of(entry):
    paths = [entry["path"]]
    if os.path.isdir(entry["path"]):
        parts = sorted(p for p in os.listdir(entry["path"])
                       if p.endswith((".safetensors", ".gguf")) and p != "extra.safetensors")
        paths.append(os.path.join(entry["path"], parts[0]))
    return paths


def check_document_faults(run, rules):
    """One document on stdout, or for what cannot be opened at all one error on stderr."""
    try:
        if not run.out:
            if run.status != 3 or not json.loads(run.err)["error"]["message"]:
                yield "check: neither a document nor an error"
            return
        document = json.loads(run.out)
    except (ValueError, KeyError) as e:
        yield f"check: not one JSON document: {e}: {(run.out or run.err)[:200]!r}"
        return
    errors = [f for f in document["findings"] if f["level"] == "error"]
    if bool(errors) != (run.status != 0) or document["ok"] != (run.status == 0):
        yield f"check: {len(errors)} errors, but exit {run.status}"
    for f in document["findings"]:
        if f["rule"] not in rules:
            yield f"check: rule {f['rule']} is not listed by --rules"
        if not f["message"]:
            yield f"check: a finding of {f['rule']} says nothing"


def check_faults(wtool, entry, rules):
    """What is wrong with the answers of 'check' for one corpus entry."""
    good = {"accept": [0], "reject": [1, 3], "either": [0, 1, 3]}[entry["verdict"]]
    if entry["format"] in ("npz", "pt"):
        good = [3]
    for path in paths_of(entry):
        where = "" if path == entry["path"] else f"{os.path.basename(path)}: "
        run = Run(wtool, "check", "--json", path)
        if run.status not in good:
            yield (f"{where}check: {entry['verdict']}, but exit {run.status} ({entry['rule']}): "
                   f"{(run.err or run.out)[:300].decode(errors='replace')}")
            continue
        if run.memory > MEMORY and not SANITIZED:
            yield f"{where}check: took {run.memory >> 20} MiB"
        for fault in check_document_faults(run, rules):
            yield where + fault
        if SANITIZED:
            continue
        again = Run(wtool, "check", "--json", "-j1", path)
        if (again.status, again.out, again.err) != (run.status, run.out, run.err):
            yield f"{where}check: another run says something else"
        text = Run(wtool, "check", path)
        control = raw_control(text.out) or raw_control(text.err)
        if control or text.status != run.status:
            yield f"{where}check: {control or 'another status without --json'}"


def reference_accepts(entry, peers):
    """True, False, or None where no reference was asked about the whole of it."""
    said = peers.get(entry["file"], {})
    if entry["format"] in ("safetensors", "npy"):
        said = said.get("rust_safetensors" if entry["format"] == "safetensors" else "numpy")
        return said and said.startswith("accept")
    # Values are looked at too where they can be: the header's reader does not see what is missing.
    header, values, load = said.get("llama_gguf"), said.get("ggml_values"), said.get("llama_load")
    if not isinstance(header, str) or entry["class"] in ("data", "values"):
        return None
    if isinstance(load, str) and not load.startswith("accept"):
        return False
    return header.startswith("accept") and (values is None or values.startswith("accept"))


# What a reference accepts and --lenient does not, and why.
NO_TENSOR, SPELLING = "an array that is no tensor", "a spelling that only the reference's own parser takes"
WRAPS = "a product that wraps in the reference"
UNFORGIVEN = {
    "safetensors/entry_as_array.safetensors": SPELLING,
    "safetensors/dtype_object.safetensors": SPELLING,
    "safetensors/dup_name_bad_first.safetensors": "of two descriptions of a tensor the last would count",
    **{f"npy/ok_{name}.npy": NO_TENSOR for name in
       ("bytes_S3", "unicode_U2", "datetime", "structured", "longdouble")},
    "npy/descr_empty_list.npy": NO_TENSOR,
    **{f"npy/dict_{name}.npy": SPELLING for name in
       ("dup_key", "comment", "concat_strings", "escapes", "underscore_number")},
    "npy/shape_negative.npy": "a negative dimension",
    **{f"gguf/{name}.gguf": WRAPS for name in
       ("dim_product_wraps_0", "dim_product_wraps_0_three", "dim_product_wraps_0_quantised",
        "dim_bytes_wrap_block")},
}


def lenient_faults(wtool, entry, peers):
    if not reference_accepts(entry, peers):
        return
    run = Run(wtool, "check", "--lenient", "--json", entry["path"])
    reason = UNFORGIVEN.get(entry["file"])
    if reason and run.status == 0:
        yield f"listed as not forgiven ({reason}), but is"
    elif not reason and run.status != 0:
        yield f"the reference accepts it, check --lenient says {run.status}: {(run.err or run.out)[:400]!r}"


def faults_of(wtool, entry):
    """What is wrong with the answers of 'inspect' for one corpus entry."""
    for path in paths_of(entry):
        run = Run(wtool, "inspect", "--json", path)
        where = "" if path == entry["path"] else f"{os.path.basename(path)}: "
        if run.status not in verdict_of(entry):
            yield (f"{where}{entry['verdict']}, but exit {run.status} ({entry['rule']}): "
                   f"{run.err[:300].decode(errors='replace')}")
            continue
        if run.memory > MEMORY and not SANITIZED:
            yield f"{where}took {run.memory >> 20} MiB"
        for fault in json_faults(run, entry):
            yield where + fault
        if SANITIZED:
            continue
        text = Run(wtool, "inspect", path)
        if text.status != run.status:
            yield f"{where}exit {text.status} without --json, {run.status} with it"
        control = raw_control(text.out) or raw_control(text.err)
        if control:
            yield where + control


def diagnosed(wtool, entry):
    """An NPZ or what is left of one, or a PyTorch file, is called by its name."""
    run = Run(wtool, "inspect", entry["path"])
    words = [b"NPZ", b"zip"] if entry["format"] == "npz" else [b"PyTorch"]
    if (entry["verdict"] == "accept" or entry["format"] == "pt") and not any(w in run.err for w in words):
        yield f"not diagnosed: {run.err!r}"


def corpus(source, folder):
    shared = os.path.join(source, "..", "shared", "corpus")
    for maker in ("make_corpus.py", "make_gguf_corpus.py"):
        script, out = os.path.join(shared, maker), os.path.join(folder, maker[:-3])
        if not os.path.exists(script):
            print(f"no {script}: skipped")
            sys.exit(SKIP)
        subprocess.run([sys.executable, script, out], check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(out, "manifest.json")) as f:
            for entry in json.load(f)["files"]:
                entry["path"] = os.path.join(out, entry["file"])
                yield entry
    # PyTorch's files are not read, only known for what they are.
    with open(os.path.join(shared, "pt", "catalog.json")) as f:
        for entry in json.load(f)["files"]:
            yield {"file": "pt/" + entry["file"], "path": os.path.join(shared, "pt", entry["file"]),
                   "format": "pt", "verdict": "reject", "rule": "a pickle", "class": "pt"}


def main():
    wtool, source = sys.argv[1:3]
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    with tempfile.TemporaryDirectory(prefix="wtool-corpus-") as folder:
        entries = [e for e in corpus(source, folder) if only in e["file"]]
        rules = {r["id"] for r in json.loads(Run(wtool, "check", "--rules", "--json").out)["rules"]}
        peers = {}
        for name in ("peer_verdicts.json", "gguf_peer_verdicts.json"):
            with open(os.path.join(source, "..", "shared", "corpus", name)) as f:
                peers.update(json.load(f)["files"])

        def judge(entry):
            if entry["format"] == "imatrix":  # 'inspect' shows containers
                return []
            return list(faults_of(wtool, entry)) + (
                list(diagnosed(wtool, entry)) if entry["format"] in ("npz", "pt") else [])

        def judge_check(entry):
            return list(check_faults(wtool, entry, rules)) + list(
                lenient_faults(wtool, entry, peers))

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(judge, entries))
            checked = list(pool.map(judge_check, entries))
    bad = 0
    for entry, faults in zip(entries, checked):
        bad += bool(faults)
        for fault in faults:
            print(f"{entry['file']}: {fault}")
    for entry, faults in zip(entries, results):
        reason = KNOWN.get(entry["file"])
        if reason and not faults:
            faults = [f"listed as an exception ({reason}), but is as it should be"]
        elif reason and all("but exit 0" in fault for fault in faults):
            continue
        bad += bool(faults)
        for fault in faults:
            print(f"{entry['file']}: {fault}")
    print(f"{len(entries)} entries, {bad} with faults, "
          f"{len(KNOWN)} exceptions listed")
    return 1 if bad else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
