#!/usr/bin/env python3
"""sign, sign show and verify of signatures: options, messages, exit statuses, what is left behind.

usage: sign_test.py WTOOL
"""
import json
import os
import pathlib
import stat
import subprocess
import sys
import tempfile


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
    t.run("verify", "model", *trust, "--ca", "me.pub.pem", status=2, says="not both")
    t.run("verify", "model", "--key", "sealed.pub.pem", status=1, says="signed with another key")
    t.run("verify", "model", *trust, "--only", "a.bin", says="VERIFIED: 1 file,")
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


def main():
    with tempfile.TemporaryDirectory() as name:
        t = Tester(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(name).resolve())
        keys(t)
        signing(t)
        verifying(t)
        left = [p for p in t.folder.rglob("*") if ".wtool-" in p.name]
        t.expect(not left, f"left behind: {left}")
    print("\n".join(t.faults))
    return 1 if t.faults else 0


if __name__ == "__main__":
    sys.exit(main())
