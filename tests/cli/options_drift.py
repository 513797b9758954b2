#!/usr/bin/env python3
"""Every option of `wtool COMMAND --help` is in wtool-COMMAND.1, and the reverse.

usage: options_drift.py WTOOL MAN_FOLDER
"""
import pathlib
import re
import subprocess
import sys


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True,
                          env={"LC_ALL": "C.UTF-8", "COLUMNS": "200"}).stdout


def in_help(text):
    """The names in the column of options and in the line of common ones."""
    found = set()
    for line in text.splitlines():
        # Names end where two blanks begin the description.
        row = re.match(r"^ {2,6}(-\S(?:.*?))(?: {2,}|$)", line)
        if row:
            found |= set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*|-[A-Za-z])(?![\w])", row[1]))
    for line in re.findall(r"^(?:as everywhere|as in convert|more, in the page): (.*(?:\n  .*)*)", text, re.M):
        found |= set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*|-[A-Za-z])(?![\w])", line))
    return found


def in_page(text):
    """The arguments of Fl, outside the examples. '-x' is -x, '--x' is --x."""
    text = text.split(".Sh EXAMPLES")[0]
    found = set()
    for line in text.splitlines():
        if not line.startswith("."):
            continue
        words = line.split()
        for i, word in enumerate(words):
            after_fl = i > 0 and words[i - 1] in ("Fl", ".Fl")
            alternative = i > 0 and words[i - 1] == "|"
            if (after_fl or alternative) and re.fullmatch(r"-?[A-Za-z][\w-]*", word):
                found.add("-" + word)
    return found


def self_test():
    assert in_help("  -t, --tensors PATTERN  only -x\n      --by LIST  by\n"
                   "as everywhere: -q, --quiet; --json\nmore: x\n") == \
        {"-t", "--tensors", "--by", "-q", "--quiet", "--json"}
    assert in_page(".It Fl t , Fl -tensors Ar P\n.Fl -a | -b\ntext Fl x\n.Sh EXAMPLES\n.Fl z") == \
        {"-t", "--tensors", "--a", "--b"}


def main():
    self_test()
    wtool, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    commands = re.findall(r"^  ([a-z]+) {2,}\S", run(wtool, "help"), re.M)
    assert len(commands) >= 8, f"'wtool help' lists only {commands}"
    pages = {p.stem.removeprefix("wtool-") for p in folder.glob("wtool-*.1")}
    faults = [f"no page for {c}" for c in commands if c not in pages]
    faults += [f"page without a command: {p}" for p in sorted(pages - set(commands))]

    for command in commands:
        page = folder / f"wtool-{command}.1"
        if not page.exists():
            continue
        said, written = in_help(run(wtool, command, "--help")), in_page(page.read_text())
        assert len(said) > 3, f"{command}: found only {said} in --help"
        ignored = {"-h", "--help"}
        faults += [f"{page.name}: {o} of --help is not in the page"
                   for o in sorted(said - written - ignored)]
        faults += [f"{page.name}: {o} is not in --help" for o in sorted(written - said - ignored)]

    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
