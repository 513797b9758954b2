#!/usr/bin/env python3
"""OpenSSF Model Signing: every golden case and sample gets its verdict, what we sign is the golden
text byte for byte and fits the specification's schemas, and no byte can change unnoticed.

usage: oms.py WTOOL SOURCE_FOLDER
"""
import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# What a script is told; for the rest the exit status says it: 3, malformed or unsupported.
REASONS = {
    "shards-tampered": "contents", "shards-truncated-file": "contents",
    "shards-appended-file": "contents", "single-file-tampered": "contents",
    "cert-leaf-nousage": "untrusted", "cert-leaf-expired": "untrusted",
    "cert-no-intermediate": "untrusted", "cert-wrong-root": "untrusted",
    "cert-root-in-bundle-untrusted": "untrusted", "cert-bundle-as-key": "wrong-key",
    "key-bundle-as-cert": "wrong-key", "wrong-key": "wrong-key", "wrong-curve-key": "wrong-key",
    "key-ed25519": "unsupported", "key-rsa": "unsupported", "key-secp256k1": "unsupported",
    "file-flip": "contents", "file-missing": "contents", "file-extra": "contents",
    "file-missing-allowed": "contents", "file-renamed": "contents", "files-swapped": "contents",
    "empty-file-extra": "contents", "symlink-extra": "contents",
    "symlink-replaces-file": "contents", "nested-git-extra": "contents",
    "gitmodules-extra": "contents", "legacy-rawbytes-wrongkey": "bad-signature",
    "hint-forged": "bad-signature", "root-mismatch": "bad-file", "no-subject": "bad-file",
    "two-subjects": "bad-file", "no-resources": "bad-file", "dup-resource": "bad-file",
    "path-traversal": "bad-file", "path-absolute": "bad-file",
    "bad-predicate-type": "unsupported", "bad-statement-type": "unsupported",
    "bad-payload-type": "unsupported", "payload-type-swapped": "bad-signature",
    "two-signatures": "bad-file", "no-signatures": "bad-file", "sig-p1363": "bad-signature",
    "sig-bitflip": "bad-signature", "payload-changed": "bad-signature",
    "no-verification-material": "bad-file", "no-envelope": "bad-file", "not-base64": "bad-file",
    "truncated": "bad-file", "trailing-garbage": "bad-file", "empty-bundle": "bad-file",
    "unknown-hash": "unsupported", "unknown-method": "unsupported", "shard-gap": "bad-file",
    "shard-zero": "bad-file", "files-blake3": "unsupported",
    "bad-media-type": ("bad-file", "unsupported"),
}


class Tester:
    def __init__(self, wtool, oms, folder):
        self.wtool, self.oms, self.folder, self.faults = wtool, oms, folder, []
        self.checked = 0

    def run(self, *arguments, **more):
        return subprocess.run([self.wtool, *map(str, arguments)], capture_output=True, text=True,
                              cwd=self.folder, stdin=subprocess.DEVNULL, **more)

    def verify(self, *arguments):
        """The exit status, and in a word why."""
        done = self.run("verify", *arguments, "--json")
        if done.stdout:
            document = json.loads(done.stdout)
            assert document["ok"] == (done.returncode == 0), document
            return done.returncode, document["reason"], done.stdout
        document = json.loads(done.stderr.splitlines()[-1])
        return done.returncode, document["error"]["fault"], done.stderr

    def expect(self, what, found, reasons):
        self.checked += 1
        status, reason, text = found
        reasons = (reasons,) if isinstance(reasons, str) else reasons
        wanted = {"ok": 0, "bad-file": 3, "unsupported": 3}.get(reason, 1)
        if reason not in reasons or status != wanted:
            self.faults.append(f"{what}: exit {status}, {reason}; expected {reasons}: {text[:600]}")

    def fresh(self, name="case"):
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


def modify(model, original, steps):
    """What a case does to its copy of the model."""
    steps = dict(steps)
    at = lambda name: model / name if name else model
    for name, text in steps.pop("outside", {}).items():
        (model.parent / name).write_text(text)
    for name in steps.pop("delete", []):
        at(name).unlink()
    for name, text in steps.pop("write", {}).items():
        at(name).parent.mkdir(parents=True, exist_ok=True)
        at(name).write_text(text)
    for name, offset in steps.pop("flip", {}).items():
        data = bytearray(at(name).read_bytes())
        data[offset] ^= 1
        at(name).write_bytes(data)
    for name, count in steps.pop("truncate", {}).items():
        at(name).write_bytes(at(name).read_bytes()[:-count])
    for name, text in steps.pop("append", {}).items():
        with at(name).open("a") as file:
            file.write(text)
    for old, new in steps.pop("rename", {}).items():
        at(old).rename(at(new))
    if "swap" in steps:
        a, b = map(at, steps.pop("swap"))
        x, y = a.read_bytes(), b.read_bytes()
        a.write_bytes(y)
        b.write_bytes(x)
    for name in steps.pop("mkdir", []):
        at(name).mkdir()
    for name, target in steps.pop("symlink", {}).items():
        at(name).symlink_to(target)
    for name, source in steps.pop("symlink_to_copy", {}).items():
        shutil.copy(original / source, model.parent / "copy")
        at(name).symlink_to(model.parent / "copy")
    assert not steps, f"steps not understood: {steps}"


def copy_model(original, target):
    """A copy that may be changed, with what is ignored by default."""
    if not original.is_dir():
        shutil.copyfile(original, target)
        return target
    shutil.copytree(original, target, copy_function=shutil.copyfile)
    if original.name == "model":
        subprocess.run(["sh", original.parent / "prepare.sh", target], check=True)
    return target


def run_cases(t):
    generated = t.oms / "generated"
    cases = json.loads((generated / "cases.json").read_text())["cases"]
    assert len(cases) == 88, len(cases)
    for case in cases:
        original = generated / case["model"]
        model = copy_model(original, t.fresh() / original.name)
        modify(model, original, case["modify"])
        arguments = [model, "--signature", generated / case["bundle"]]
        arguments += ["--key", generated / case["public_key"]] if "public_key" in case else \
            ["--ca", generated / case["ca"]]
        options = dict(case["options"])
        if options.pop("ignore_unsigned_files", False):
            arguments.append("--ignore-unsigned")
        assert not options, options
        found = t.verify(*arguments)
        passes = case["expect"] == "pass" and case["id"] != "files-blake3"
        t.expect(f"case {case['id']} ({case['why']})", found,
                 "ok" if passes else REASONS[case["id"]])
        if case["id"] == "files-blake3" and "unsupported hash algorithm" not in found[2]:
            t.faults.append(f"files-blake3: {found[2]}")


def run_samples(t):
    samples = t.oms / "model-transparency"
    key, ca = samples / "keys/signing-key-pub.pem", samples / "keys/ca-cert.pem"
    wrong = t.oms / "generated/keys"
    for sample in sorted(p for p in samples.glob("v*") if p.is_dir()):
        model = sample
        more = ["--ignore", "ignore-me"] if "v1.0.1" in sample.name else []
        if sample.name in ("v0.3.1-elliptic-key", "v1.0.0-elliptic-key"):
            model = sample / "signme-1"
        arguments = [model, "--signature", sample / "model.sig", *more]
        if sample.name.endswith("key"):
            t.expect(sample.name, t.verify(*arguments, "--key", key), "ok")
            t.expect(sample.name + ", wrong key",
                     t.verify(*arguments, "--key", wrong / "wrong-p256.pub.pem"),
                     ("wrong-key", "bad-signature"))
        elif sample.name.endswith("certificate"):
            t.expect(sample.name, t.verify(*arguments, "--ca", ca), "ok")
            t.expect(sample.name + ", wrong root",
                     t.verify(*arguments, "--ca", wrong / "other-root.crt.pem"), "untrusted")
        else:
            found = t.verify(*arguments)
            t.expect(sample.name, found, "keyless")
            if not json.loads(found[2])["signer"]["name"]:
                t.faults.append(f"{sample.name}: its signer has no name: {found[2][:400]}")
            t.expect(sample.name + ", its signature beside it", t.verify(model),
                     "contents" if more else "keyless")
            t.expect(sample.name + ", allowed",
                     t.verify(*arguments, "--allow-keyless-unverified"), "ok")
            t.expect(sample.name + ", as key", t.verify(*arguments, "--key", key), "wrong-key")
            changed = t.fresh() / "model"
            copy_model(sample, changed)
            (changed / "signme-1").write_text("changed")
            t.expect(sample.name + ", changed",
                     t.verify(changed, *arguments[1:], "--allow-keyless-unverified"), "contents")


def run_vectors(t):
    vectors = t.oms / "spec-vectors"
    samples = t.oms / "model-transparency"
    key, ca = samples / "keys/signing-key-pub.pem", samples / "keys/ca-cert.pem"
    model = t.fresh() / "model"
    model.mkdir()
    for name in ("signme-1", "signme-2"):
        shutil.copyfile(samples / "v1.1.0-elliptic-key" / name, model / name)
    verify = lambda name, *more: t.verify(model, "--signature", vectors / f"{name}.bundle.json", *more)
    t.expect("vector key", verify("valid/key", "--key", key), "ok")
    t.expect("vector certificate", verify("valid/certificate", "--ca", ca), "ok")
    for path in sorted((vectors / "invalid").glob("*.json")):
        name = f"invalid/{path.name.removesuffix('.bundle.json')}"
        t.expect(f"vector {name}", verify(name, "--key", key), "bad-file")
    t.expect("vector wrong-predicate", verify("invalid-payload/wrong-predicate", "--key", key),
             ("unsupported", "bad-signature"))


def payload_of(path):
    return base64.b64decode(json.loads(path.read_text())["dsseEnvelope"]["payload"])


def schema_check(t, path):
    """True if there was something to check with."""
    try:
        import jsonschema
        import referencing
    except ImportError:
        return False
    schemas = {n: json.loads((t.oms / f"spec-schemas/{n}.schema.json").read_text())
               for n in ("bundle", "envelope", "statement", "predicate")}
    registry = referencing.Registry().with_resources(
        (s["$id"], referencing.Resource.from_contents(s)) for s in schemas.values())
    for schema, document in (("bundle", json.loads(path.read_text())),
                             ("statement", json.loads(payload_of(path)))):
        for e in jsonschema.Draft202012Validator(schemas[schema], registry=registry).iter_errors(document):
            t.faults.append(f"{path.name} against {schema}.schema.json: {e.message[:200]}")
    return True


def run_signing(t):
    generated = t.oms / "generated"
    keys = t.fresh("keys")
    for name in ("p256", "p384", "p521", "p256-sec1", "p256-encrypted"):
        shutil.copyfile(generated / f"keys/{name}.pem", keys / f"{name}.pem")
        (keys / f"{name}.pem").chmod(0o600)
    work = t.fresh()
    model = copy_model(generated / "model", work / "model")
    single = copy_model(generated / "single/weights.gguf", work / "weights.gguf")
    validated = True
    for golden, path, more in (
            ("spec-order", model, []),
            ("spec-shards-int", model, ["--method", "shards", "--shard-size", "1000"]),
            ("spec-shards-default", model, ["--method", "shards"]),
            ("spec-single-basename", single, [])):
        for key in ("p256", "p384", "p521", "p256-sec1", "p256-encrypted"):
            t.checked += 1
            sig = work / "out.sig"
            done = t.run("sign", path, "--key", keys / f"{key}.pem", "-f", "-o", sig, *more,
                         "--passphrase-env", "PASS", env={**os.environ, "PASS": "test-password"})
            if done.returncode != 0:
                t.faults.append(f"sign {golden} with {key}: {done.stderr}")
                continue
            if payload_of(sig) != payload_of(generated / f"bundles/{golden}.sig"):
                t.faults.append(f"sign {golden}: {payload_of(sig)[:400]}")
            public = generated / f"keys/{key.split('-')[0]}.pub.pem"
            t.expect(f"our {golden} by {key}", t.verify(path, "--signature", sig, "--key", public),
                     "ok")
            validated = schema_check(t, sig) and validated
    run_dialect(t, keys, work, model, single)
    hint = lambda p: json.loads(p.read_text())["verificationMaterial"]["publicKey"]["hint"]
    t.run("sign", model, "--key", keys / "p256.pem", "-o", work / "hint.sig")
    if hint(work / "hint.sig") != hint(generated / "bundles/files-sha256-p256.sig"):
        t.faults.append("our key hint is not the reference's")

    sig = work / "cert.sig"
    done = t.run("sign", model, "--key", keys / "p256.pem", "--cert", generated / "keys/leaf.crt.pem",
                 "--chain", generated / "keys/int.crt.pem", "--chain", generated / "keys/root.crt.pem",
                 "-o", sig)
    if done.returncode != 0:
        t.faults.append(f"sign with a certificate: {done.stderr}")
    else:
        ca = ["--ca", generated / "keys/root.crt.pem"]
        verify = lambda *more: t.verify(model, "--signature", sig, *ca, *more)
        t.expect("our certificate", verify(), "ok")
        t.expect("its subject", verify("--subject", "Test Signer"), "ok")
        t.expect("another subject", verify("--subject", "Test Signe"), "wrong-identity")
        t.expect("another fingerprint", verify("--fingerprint", "0" * 64), "wrong-identity")
        validated = schema_check(t, sig) and validated
        flips(t, model, sig, ca, step=7)
    return validated


def run_dialect(t, keys, work, model, single):
    """--compat model-signing: root, names, order and algorithms are those the reference wrote."""
    for golden, path, more in (("files-sha256-p256", model, []), ("single-dot", single, []),
                               ("shards-1000-peer", model, ["--method", "shards", "--shard-size", "1000"])):
        t.checked += 1
        sig = work / "dialect.sig"
        done = t.run("sign", path, "--key", keys / "p256.pem", "-f", "-o", sig, "--compat", "model-signing", *more)
        if done.returncode != 0:
            t.faults.append(f"sign as {golden}: {done.stderr}")
            continue
        ours, theirs = (json.loads(payload_of(p)) for p in (sig, t.oms / f"generated/bundles/{golden}.sig"))
        for d in (ours, theirs):  # a set in Python
            d["predicate"]["serialization"]["ignore_paths"].sort()
        if ours != theirs:
            t.faults.append(f"sign as {golden}: {json.dumps(ours)[:400]}\n  not {json.dumps(theirs)[:400]}")
        t.expect(f"ours as {golden}",
                 t.verify(path, "--signature", sig, "--key", t.oms / "generated/keys/p256.pub.pem"), "ok")


def flips(t, model, sig, trust, step=1):
    """Every byte of the bundle, one at a time."""
    good = sig.read_bytes()
    bad = sig.with_suffix(".bad")
    for i in range(0, len(good), step):
        data = bytearray(good)
        data[i] ^= 1 << (i % 8)
        bad.write_bytes(data)
        done = t.run("verify", model, "--signature", bad, *trust)
        t.checked += 1
        if done.returncode not in (1, 3):
            t.faults.append(f"{sig.name}: byte {i} changed, exit {done.returncode}: {done.stderr}")


def run_tampering(t):
    work = t.fresh()
    t.run("sign", "--new-key", work / "me")
    model = work / "model"
    (model / "sub").mkdir(parents=True)
    contents = {"a.bin": b"first", "b.bin": b"other", "sub/c.json": b"{}"}
    for name, data in contents.items():
        (model / name).write_bytes(data)
    done = t.run("sign", model, "--key", work / "me.pem")
    assert done.returncode == 0, done.stderr
    trust = ["--key", work / "me.pub.pem"]
    sig = model / "model.sig"

    def expect(what, status):
        t.checked += 1
        done = t.run("verify", model, *trust)
        if (done.returncode == 0) != (status == 0) or done.returncode not in (0, 1, 3):
            t.faults.append(f"{what}: exit {done.returncode}: {done.stdout}{done.stderr}")

    expect("untouched", 0)
    for name, data in contents.items():
        path = model / name
        for i in range(len(data)):
            for bit in range(8):
                changed = bytearray(data)
                changed[i] ^= 1 << bit
                path.write_bytes(changed)
                expect(f"{name}: bit {bit} of byte {i}", 1)
        for changed in (data + b"\0", data[:-1], b""):
            path.write_bytes(changed)
            expect(f"{name}: another length", 1)
        path.unlink()
        expect(f"{name} removed", 1)
        path.write_bytes(data)
        moved = path.with_name("moved")
        path.rename(moved)
        expect(f"{name} renamed", 1)
        moved.rename(path)
        for other in contents:
            if other != name:
                (model / name).write_bytes(contents[other])
                (model / other).write_bytes(data)
                expect(f"{name} and {other} swapped", 1)
                (model / name).write_bytes(data)
                (model / other).write_bytes(contents[other])
    for extra in ("new", ".hidden", "sub/new", "sub/.git"):
        (model / extra).write_bytes(b"")
        expect(f"{extra} added", 1)
        (model / extra).unlink()
    (model / ".gitignore").write_bytes(b"x")
    (model / "empty").mkdir()
    expect("what git and empty folders add", 0)
    aside = work / "model.sig"
    shutil.move(sig, aside)
    flips(t, model, aside, trust, step=5)  # every bit: the unit test of bundles


def main():
    wtool, source = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    folders = [source / "testdata/oms"]
    shared = source.parent / "shared/golden/oms"
    if (shared / "generated/cases.json").exists():
        folders.append(shared)
    with tempfile.TemporaryDirectory(prefix="wtool-oms-") as folder:
        t = Tester(wtool, folders[0], pathlib.Path(folder).resolve())
        for t.oms in folders:
            run_cases(t)
            run_samples(t)
            run_vectors(t)
        t.oms = folders[0]
        validated = run_signing(t)
        run_tampering(t)
    for fault in t.faults:
        print(fault)
    if not validated:
        print("note: without Python's jsonschema, our bundles were not held against the schemas")
    print(f"{t.checked} checks, {len(t.faults)} faults")
    return 1 if t.faults else 0


if __name__ == "__main__":
    sys.exit(main())
