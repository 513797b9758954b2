#!/usr/bin/env python3
"""sign, sign show and verify of signatures: options, messages, exit statuses, what is left behind.

usage: sign_test.py WTOOL
"""
import hashlib
import json
import os
import pathlib
import pty
import select
import signal
import stat
import subprocess
import sys
import tempfile
import time


class Tester:
    def __init__(self, wtool, folder):
        self.wtool, self.folder, self.faults = wtool, folder, []

    def run(self, *arguments, status=0, says="", **more):
        done = subprocess.run([self.wtool, *map(str, arguments)], capture_output=True, text=True,
                              cwd=self.folder, stdin=subprocess.DEVNULL, **more)
        text = done.stdout + done.stderr
        if done.returncode != status or says not in text:
            self.faults.append(f"wtool {' '.join(map(str, arguments))}: exit {done.returncode}, not "
                               f"{status}, or it does not say {says!r}: {text}")
        return done

    def expect(self, holds, what):
        if not holds:
            self.faults.append(what)


def keys(t):
    t.run("sign", "--new-key", "me", says="private P-256 key")
    mode = stat.S_IMODE((t.folder / "me.pem").stat().st_mode)
    t.expect(mode == 0o600, f"the private key has mode {mode:o}")
    before = (t.folder / "me.pem").read_bytes()
    t.run("sign", "--new-key", "me", status=2, says="already exists")
    t.expect((t.folder / "me.pem").read_bytes() == before, "a key was replaced")
    t.run("sign", "--new-key", "no", "--curve", "P-192", status=2, says="P-384")
    t.run("sign", "--new-key", "no/where", status=4)
    secret = {**os.environ, "PASS": "open sesame"}
    t.run("sign", "--new-key", "sealed", "--curve", "p521", "--passphrase-env", "PASS", env=secret)
    t.expect(b"ENCRYPTED" in (t.folder / "sealed.pem").read_bytes(), "the key is not encrypted")
    t.expect(b"sesame" not in (t.folder / "sealed.pem").read_bytes(), "the passphrase is in it")


def signing(t):
    model = t.folder / "model"
    (model / "sub").mkdir(parents=True)
    (model / "a.bin").write_bytes(b"weights")
    (model / "sub/b.bin").write_bytes(b"more")
    t.run("sign", "model", status=2, says="--new-key")
    t.run("sign", "model", "--key", "me.pem", "--curve", "P-384", status=2, says="--new-key")
    t.run("sign", "model", "--key", "me.pub.pem", status=2, says="chmod 600")
    os.chmod(t.folder / "me.pub.pem", 0o600)
    t.run("sign", "model", "--key", "me.pub.pem", status=3, says="it is a public key")
    t.run("sign", "model", "--key", "me.pem", "-n", says="would sign sub/b.bin")
    t.expect(not (model / "model.sig").exists(), "-n wrote a signature")
    t.run("sign", "model", "--key", "me.pem", says="signed 2 files")
    t.run("verify", "model", "--key", "me.pub.pem", says="VERIFIED: 2 files")
    t.run("sign", "model", "--key", "me.pem", status=2, says="already exists")
    t.run("sign", "model", "--key", "me.pem", "-f")
    t.run("sign", "show", "model/model.sig", says="nothing of it is verified")
    t.run("sign", "show", status=2, says="no bundle is named")
    t.run("sign", "show", "me.pub.pem", status=3, says="is no Sigstore bundle")
    shown = json.loads(t.run("sign", "show", "model/model.sig", "--json").stdout)
    t.expect(shown["ignore_paths"] == [".git", ".gitattributes", ".github", ".gitignore", "model.sig"],
             f"ignored: {shown['ignore_paths']}")
    for name, value in (("PASS", "open sesame"), ("PASS", "Open sesame")):
        good = value[0] == "o"
        t.run("sign", "model", "--key", "sealed.pem", "-o", "sealed.sig", "-f", "--passphrase-env", name,
              env={**os.environ, name: value}, status=0 if good else 2,
              says="signed" if good else "passphrase is another one")
    t.run("verify", "model", "--signature", "sealed.sig", "--key", "sealed.pub.pem", says="P-521")
    read, write = os.pipe()
    os.write(write, b"open sesame\nnot this")
    os.close(write)
    t.run("sign", "model", "--key", "sealed.pem", "-o", "fd.sig", "--passphrase-fd", read, pass_fds=[read])
    os.close(read)

    key = (t.folder / "me.pem").read_bytes()
    done = subprocess.run([t.wtool, "sign", "model", "--key", "-", "-o", "stdin.sig"], cwd=t.folder, input=key,
                          capture_output=True)
    t.expect(done.returncode == 0, f"a key from standard input: {done.stderr}")
    for i, damaged in enumerate((key[:150], key.replace(b"M", b"N", 1), key[:60] + b"!" + key[61:])):
        name = t.folder / f"damaged{i}.pem"
        name.write_bytes(damaged)
        name.chmod(0o600)
        done = t.run("sign", "model", "--key", name, "-o", "no.sig", status=3)
        body = key.split(b"\n")[1].decode()
        t.expect(body[:12] not in done.stderr and body[-12:] not in done.stderr, f"key material: {done.stderr}")

    (model / "link").symlink_to("a.bin")
    t.run("sign", "model", "--key", "me.pem", "-f", status=2, says="is a link")
    t.run("sign", "model", "--key", "me.pem", "-o", "less.sig", "--ignore", "link")
    t.run("sign", "model", "--key", "me.pem", "-f", "--ignore", "lnk", status=2, says="no such file")
    (model / "link").unlink()
    (t.folder / "empty").mkdir()
    t.run("sign", "empty", "--key", "me.pem", status=2, says="no files")
    t.expect(not list((t.folder / "empty").iterdir()), "something is left behind")
    t.run("sign", "model/a.bin", "--key", "me.pem")
    t.run("verify", "model/a.bin", "--key", "me.pub.pem", says="VERIFIED: 1 file,")
    (model / "a.bin.sig").unlink()


def verifying(t):
    model = t.folder / "model"
    trust = ["--key", "me.pub.pem"]
    t.run("verify", "model", "--signature", "model/model.sig", status=2, says="--key PUBLIC-KEY")
    t.run("verify", "model", status=2, says="--key PUBLIC-KEY")
    t.run("verify", "model", *trust, "--ca", "me.pub.pem", status=2, says="not both")
    t.run("verify", "model", "--key", "sealed.pub.pem", status=1, says="signed with another key")
    t.run("verify", "model", *trust, "--only", "a.bin", says="VERIFIED: 1 of 2 files")
    t.run("verify", "model", *trust, "--only", "sub", says="VERIFIED: 1 of 2 files")
    t.run("verify", "model", *trust, "--only", "model/sub/", "--only", "a.bin", says="VERIFIED: 2 files")
    t.run("verify", "model", *trust, "--only", "su", status=2, says="no such file is signed")
    t.run("verify", "model/a.bin", *trust, "--signature", "model/model.sig", status=1, says="--only a.bin")
    t.run("verify", "model", *trust, "--only", "c.bin", status=2, says="no such file is signed")
    t.run("verify", "model", *trust, "--ignore", "sub", status=2, says="it is signed")
    (model / "new").write_bytes(b"")
    t.run("verify", "model", *trust, status=1, says="new: EXTRA")
    t.run("verify", "model", *trust, "--ignore", "new")
    t.run("verify", "model", *trust, "--ignore", "model/new")
    t.run("verify", "model", *trust, "--ignore-unsigned")
    t.run("verify", "model", *trust, status=1, says="a.bin: UNREAD")
    t.run("verify", "model", *trust, "--keep-going", status=1, says="a.bin: OK")
    (model / "new").unlink()
    (model / "a.bin").write_bytes(b"Weights")
    done = t.run("verify", "model", *trust, status=1, says="NOT VERIFIED")
    t.expect("a.bin: CHANGED" in done.stdout and "sub/b.bin: OK" in done.stdout, done.stdout)
    t.run("verify", "model", *trust, "--only", "sub/b.bin")
    (model / "a.bin").write_bytes(b"weights")
    (t.folder / "cut.sig").write_bytes((model / "model.sig").read_bytes()[:-20])
    t.run("verify", "model", *trust, "--signature", "cut.sig", status=3, says="cut.sig")
    t.run("verify", "model", *trust, "--signature", "none.sig", status=4, says="none.sig")


def oddities(t):
    """What users do: folders and names that are not as in the manual."""
    me, trust = ["--key", "me.pem"], ["--key", "me.pub.pem"]
    odd = t.folder / "odd"
    odd.mkdir()
    for name in ("new\nline", "co:lon:1:2", "bl ank ", "é", "-dash", "quote'\""):
        (odd / name).write_bytes(name.encode())
    for more in ([], ["--method", "shards", "--shard-size", "3"]):
        done = t.run("sign", "odd", *me, "-f", *more, says="signed 6 files")
        done = t.run("verify", "odd", *trust, says="VERIFIED: 6 files")
        t.expect("new\\nline: OK" in done.stdout, f"a line break in a name: {done.stdout}")
    (odd / os.fsdecode(b"by\xffte")).write_bytes(b"x")
    t.run("sign", "odd", *me, "-f", status=2, says="is not UTF-8")
    t.run("verify", "odd", *trust, status=1, says="EXTRA")
    (odd / os.fsdecode(b"by\xffte")).unlink()
    (odd / "back\\slash").write_bytes(b"")
    t.run("sign", "odd", *me, "-f", status=2, says="backslash")
    (odd / "back\\slash").unlink()
    bytes_name = t.folder / os.fsdecode(b"fol\xffder")
    odd.rename(bytes_name)
    t.run("sign", os.fsdecode(b"fol\xffder"), *me, "-f", status=2, says="is not UTF-8")
    bytes_name.rename(odd)

    # The same folder by any path, from anywhere.
    (t.folder / "way").symlink_to("odd")
    for path, cwd in (("odd/", t.folder), ("way", t.folder), ("way/", t.folder), (".", odd), ("./", odd),
                      ("../odd//", odd), (odd, odd)):
        for command in (["sign", path, "--key", t.folder / "me.pem", "-f"],
                        ["verify", path, "--key", t.folder / "me.pub.pem"]):
            done = subprocess.run([t.wtool, *map(str, command)], cwd=cwd, capture_output=True, text=True)
            t.expect(done.returncode == 0 and "6 files" in done.stdout, f"{command}: {done.stdout}{done.stderr}")
    subject = json.loads(t.run("sign", "show", "odd/model.sig", "--json").stdout)["model"]
    t.expect(subject == "odd", f"subject {subject!r}")

    # What a killed run has left is no part of the model; another's signature is.
    left = odd / ".model.sig.wtool-4194303"
    left.mkdir()
    (left / "model.sig").write_bytes(b"{")
    t.run("sign", "odd", *me, "-f", says="signed 6 files")
    t.expect(not left.exists(), "what a killed run has left is still there")
    t.run("verify", "odd", *trust)
    long = 246 * "n" + ".sig"  # with more behind it, too long for a name
    left = odd / f".{long[:237]}.wtool-4194303"
    left.mkdir()
    (left / "output").write_bytes(b"{")
    t.run("sign", "odd", *me, "-o", f"odd/{long}", "--ignore", "model.sig", says="signed 6 files")
    t.expect(not left.exists(), "what a killed run has left under a long name is still there")
    (odd / long).unlink(missing_ok=True)
    t.run("sign", "odd", *me, "-o", "elsewhere.sig", says="model.sig is signed like the other files")
    t.run("verify", "odd", *trust, "--signature", "elsewhere.sig", says="VERIFIED: 7 files")

    # A folder that cannot be written, a key that exists already, a signature that exists already.
    if os.geteuid() != 0:
        odd.chmod(0o555)
        t.run("sign", "odd", *me, "-f", status=4)
        t.run("sign", "odd", *me, "-f", "-o", "elsewhere.sig", "--ignore", "model.sig")
        odd.chmod(0o755)
    read, write = os.pipe()
    os.close(write)
    for arguments in (["sign", "--new-key", "me"], ["sign", "odd", "--key", "sealed.pem"]):
        t.run(*arguments, "--passphrase-fd", read, pass_fds=[read], status=2, says="already exists")
    os.close(read)
    t.run("sign", "--new-key", "no", "--passphrase-env", "PASS", status=2, says="1024",
          env={**os.environ, "PASS": "x" * 1025})


def terminal(t):
    """A passphrase typed at a terminal: not shown, asked for twice when it is new."""
    def type_at(arguments, lines, status, says):
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(t.folder)
            # A shell starts what runs in the background with it ignored, and wtool leaves it so: Ctrl-C would do nothing.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execv(t.wtool, [t.wtool, *arguments])
        shown, lines = b"", list(lines)
        while True:
            if not select.select([terminal], [], [], 60)[0]:  # it waits for what was typed long ago
                os.kill(pid, signal.SIGKILL)
                shown += b"[nothing more for a minute]"
                break
            try:
                piece = os.read(terminal, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
            if lines and shown.endswith(b": "):
                shown += b"<"
                os.write(terminal, lines.pop(0))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
        t.expect(code == status and says in shown and b"tr0ub" not in shown, f"{arguments}: exit {code}: {shown}")
    type_at(["sign", "--new-key", "typed", "--encrypt"], [b"tr0ub4dor\n", b"tr0ub4dor\n"], 0, b"once more: <")
    type_at(["sign", "--new-key", "typed2", "--encrypt"], [b"tr0ub4dor\n", b"tr0ub\n"], 2, b"differ")
    type_at(["sign", "--new-key", "typed2", "--encrypt"], [b"\n"], 2, b"is empty")
    type_at(["sign", "odd", "--key", "typed.pem", "-o", "typed.sig"], [b"tr0ub4dor\n"], 0, b"passphrase of typed.pem: <")
    type_at(["sign", "odd", "--key", "typed.pem", "-o", "typed2.sig"], [b"tr0ub\n"], 2, b"another one")
    type_at(["sign", "odd", "--key", "typed.pem", "-o", "typed2.sig"], [b"\x03"], -2, b"passphrase")
    t.expect((t.folder / "typed.sig").exists() and not (t.folder / "typed2.sig").exists(), "typed.sig")
    t.expect(not (t.folder / "typed2.pem").exists(), "a key without its passphrase was written")


def compat(t):
    model = t.folder / "weights.gguf"
    model.write_bytes(b"lone")
    t.run("sign", "weights.gguf", "--key", "me.pem", "--compat", "model-signing")
    shown = json.loads(t.run("sign", "show", "weights.gguf.sig", "--json").stdout)
    t.expect([r["name"] for r in shown["resources"]] == ["."], f"{shown['resources']}")
    t.run("verify", "weights.gguf", "--key", "me.pub.pem")
    t.run("sign", "weights.gguf", "--key", "me.pem", "--compat", "cosign", status=2, says="model-signing")


def signed(t, *arguments, **more):
    return json.loads(t.run("sign", *arguments, "--key", "me.pem", "--json", **more).stdout or "{}")


def reuse(t):
    """Times are the file system's, so this waits until they are told apart."""
    model = t.folder / "llama"
    (model / "sub").mkdir(parents=True)
    for name in ("a.bin", "b.bin", "c.bin", "sub/d.bin", "sub/e.bin"):
        (model / name).write_bytes(name.encode())
    trust = ["--key", "me.pub.pem"]
    time.sleep(2.1)
    t.run("sign", "llama", "--key", "me.pem")
    first = json.loads(t.run("sign", "show", "llama/model.sig", "--json").stdout)
    again = ["llama", "-f", "--reuse", "llama/model.sig"]
    if "may not record" in t.run("sign", *again, "--key", "me.pem", "-n").stdout:
        return print("note: this file system may not record changes; --reuse was not tried")
    done = signed(t, *again, "-n")
    t.expect(done["files_read"] == 0 and len(done["known"]["files"]) == 5, f"nothing changed: {done}")
    t.run("sign", *again, "--key", "me.pem", says="5 of them not read")
    t.expect(json.loads(t.run("sign", "show", "llama/model.sig", "--json").stdout)["root"] == first["root"],
             "the same files, another root")
    t.run("verify", "llama", *trust)

    # Each way to change a file, its old times put back where that can be.
    times = (model / "a.bin").stat()
    (model / "a.bin").write_bytes(b"A.bin")
    os.utime(model / "a.bin", ns=(times.st_atime_ns, times.st_mtime_ns))
    (t.folder / "other").write_bytes(b"B.bin")
    os.utime(t.folder / "other", ns=(times.st_atime_ns, times.st_mtime_ns))
    (t.folder / "other").rename(model / "b.bin")
    (model / "sub/e.bin").rename(model / "sub/f.bin")
    (model / "g.bin").write_bytes(b"new")
    done = signed(t, *again, "-n")
    read = {r["file"]: r["why"] for r in done["known"]["read"]}
    t.expect(done["known"]["files"] == ["c.bin", "sub/d.bin"], f"taken over: {done}")
    t.expect(read == {"a.bin": "changed since", "b.bin": "changed since", "g.bin": "not in it",
                      "sub/f.bin": "not in it"}, f"read: {read}")
    t.expect(done["known"]["by"] == "reuse" and done["files_read"] == 4, f"{done}")
    text = t.run("sign", *again, "--key", "me.pem", says="c.bin: not read, digest of llama/model.sig").stdout
    t.expect("a.bin: read (changed since)" in text and "2 of them not read" in text, text)
    t.run("verify", "llama", *trust)

    # Another folder of the same names, older than the signature, in the model's place.
    (t.folder / "old/sub").mkdir(parents=True)
    for name in ("a.bin", "b.bin", "c.bin", "g.bin", "sub/d.bin", "sub/f.bin"):
        (t.folder / "old" / name).write_bytes(b"x" + name.encode())
    time.sleep(2.1)
    t.run("sign", "llama", "--key", "me.pem", "-o", "aside.sig")
    (t.folder / "llama").rename(t.folder / "llama2")
    (t.folder / "old").rename(t.folder / "llama")
    done = signed(t, "llama", "--reuse", "aside.sig", "-o", "new.sig")
    t.expect(done["files_read"] == 6, f"a folder was exchanged: {done}")
    t.run("verify", "llama", "--signature", "new.sig", *trust)

    refuse = lambda says, *more, status=2: t.run("sign", *more, "-o", "refused.sig", status=status, says=says)
    me = ["--key", "me.pem"]
    refuse("is of 'llama', not of 'llama2'", "llama2", *me, "--reuse", "aside.sig")
    t.run("sign", "--new-key", "you")
    refuse("another key", "llama", "--key", "you.pem", "--reuse", "aside.sig")
    refuse("--method files", "llama", *me, "--reuse", "aside.sig", "--method", "shards")
    refuse("is not there", "llama", *me, "--reuse", "none.sig", status=4)
    (t.folder / "link.sig").symlink_to("aside.sig")
    refuse("is no regular file", "llama", *me, "--reuse", "link.sig")
    text = (t.folder / "aside.sig").read_bytes()
    at = text.index(b'"payload":"') + 40
    (t.folder / "bad.sig").write_bytes(text[:at] + (b"A" if text[at:at + 1] != b"A" else b"B") + text[at + 1:])
    refuse("bad signature", "llama", *me, "--reuse", "bad.sig", status=3)
    refuse("not both", "llama", *me, "--reuse", "aside.sig", "--digests", "list")
    t.expect(not (t.folder / "refused.sig").exists(), "a refused signature was written")

    # What a wrong time can do: the old digest stays, and then the signature does not hold.
    (t.folder / "llama/c.bin").write_bytes(b"y")
    time.sleep(2.1)
    (t.folder / "copy.sig").write_bytes((t.folder / "new.sig").read_bytes())
    done = signed(t, "llama", "--reuse", "copy.sig", "-o", "stale.sig")
    t.run("verify", "llama", "--signature", "stale.sig", *trust, status=1, says="c.bin: CHANGED")


def digests(t):
    model = t.folder / "listed"
    (model / "sub").mkdir(parents=True)
    (model / "a.bin").write_bytes(b"weights")
    (model / "sub/b.bin").write_bytes(b"more")
    (model / ".gitignore").write_bytes(b"x")
    t.run("digest", "listed", "-o", "SUMS")
    me = ["--key", "me.pem"]
    trust = ["--key", "me.pub.pem"]
    t.run("sign", "listed", *me, "--digests", "SUMS", says="nothing was read: the digests are those in SUMS")
    t.run("verify", "listed", *trust, says="VERIFIED: 2 files")
    one = {"file": "listed/a.bin", "bytes": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    two = {"file": "listed/sub/b.bin", "bytes": 4, "sha256": hashlib.sha256(b"more").hexdigest()}
    manifest = {"schema": "wtool.manifest/1", "ok": True, "files": [one, two], "tensors": []}
    (t.folder / "listed.json").write_text(json.dumps(manifest))
    t.run("digest", "listed", "-o", "listed/SHA256SUMS")
    t.run("sign", "listed", *me, "-f", "--digests", "listed/SHA256SUMS", status=2, says="--ignore SHA256SUMS")
    done = signed(t, "listed", "-f", "--digests", "listed/SHA256SUMS", "--ignore", "SHA256SUMS")
    t.expect(done["files_read"] == 0 and done["known"] == {
        "by": "digests", "source": "listed/SHA256SUMS", "files": ["a.bin", "sub/b.bin"], "read": []}, f"{done}")
    t.run("verify", "listed", *trust, says="VERIFIED: 2 files")
    (model / "SHA256SUMS").unlink()
    t.run("sign", "listed", *me, "-f", "--digests", "listed.json")
    t.run("verify", "listed", *trust, says="VERIFIED: 2 files")

    refuse = lambda says, text, status=2, name="bad", more=(): (
        (t.folder / name).write_text(text),
        t.run("sign", "listed", *me, "-f", "--digests", name, *more, status=status, says=says))
    sums = (t.folder / "SUMS").read_text()
    lines = sums.splitlines(keepends=True)
    before = (model / "model.sig").read_bytes()
    refuse("does not list 'sub/b.bin'", "".join(l for l in lines if "b.bin" not in l))
    refuse("lists what is not in 'listed': 'listed/c.bin'", sums + lines[1].replace("a.bin", "c.bin"))
    refuse("lists what is not in 'listed': 'other'", sums + "0" * 64 + "  other\n")
    refuse("listed twice", sums + lines[1], status=3)
    refuse("line 2", lines[0] + "what\n", status=3)
    document = json.loads((t.folder / "listed.json").read_text())
    document["files"][-1]["bytes"] += 1
    refuse("has 5 bytes, but it has 4", json.dumps(document))
    refuse("shards", sums, more=("--method", "shards"))
    refuse("schema", json.dumps({**document, "schema": "wtool.check/1"}), status=3)
    (model / "empty").write_bytes(b"")
    refuse("'empty' is empty, but", sums + lines[1].replace("a.bin", "empty"))
    (model / "empty").unlink()
    t.expect((model / "model.sig").read_bytes() == before, "a refused signature was written")

    # A digest that is wrong is signed as it is, and found out.
    (model / "a.bin").write_bytes(b"Weights")
    os.utime(model / "a.bin", (0, 0))
    done = t.run("sign", "listed", *me, "-f", "--digests", "SUMS")
    t.run("verify", "listed", *trust, status=1, says="a.bin: CHANGED")
    os.utime(model / "a.bin")
    t.run("sign", "listed", *me, "-f", "--digests", "SUMS", says="SUMS is older than 'a.bin'")
    (model / "a.bin").write_bytes(b"weights")

    # A lone file, from any folder.
    t.run("digest", "listed/a.bin", "-o", "sub.sums")
    t.run("sign", "listed/a.bin", *me, "--digests", "sub.sums", "-o", "a.sig")
    t.run("verify", "listed/a.bin", "--signature", "a.sig", *trust)


def main():
    with tempfile.TemporaryDirectory() as name:
        t = Tester(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(name).resolve())
        keys(t)
        signing(t)
        verifying(t)
        oddities(t)
        terminal(t)
        compat(t)
        digests(t)
        reuse(t)
        left = [p for p in t.folder.rglob("*") if ".wtool-" in p.name]
        t.expect(not left, f"left behind: {left}")
    print("\n".join(t.faults))
    return 1 if t.faults else 0


if __name__ == "__main__":
    sys.exit(main())
