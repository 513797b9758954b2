#!/bin/sh
# Installs into a scratch prefix and uses what is there: install_test.sh BUILD_FOLDER SOURCE_FOLDER
set -eu
build=$1
source=$2
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT

cmake --install "$build" --prefix "$prefix" >/dev/null

fail() {
  echo "install_test: $*"
  exit 1
}
there() { [ -s "$prefix/$1" ] || fail "$1 is missing or empty"; }

there bin/wtool
for page in "$source"/man/*.1; do there "share/man/man1/$(basename "$page")"; done
there share/man/man7/wtool-lineage.7
there share/man/man7/wtool-selectors.7
for schema in "$source"/man/schema/*.json; do there "share/wtool/schema/$(basename "$schema")"; done
there share/bash-completion/completions/wtool
there share/zsh/vendor-completions/_wtool
there share/fish/vendor_completions.d/wtool.fish
there share/doc/wtool/copyright
there share/doc/wtool/README.md
there share/doc/wtool/CHANGELOG.md
there share/doc/wtool/SECURITY.md
cmp -s "$prefix/share/doc/wtool/copyright" "$source/LICENSE" || fail "another licence"

# From another folder, with nothing in the environment.
cd "$prefix"
wtool="env -i $prefix/bin/wtool"
$wtool --version | grep -q '^wtool [0-9]' || fail "--version says something else"
$wtool help | grep -q quantize || fail "help does not list quantize"

# A weight file of one tensor, by hand: header length, header, eight zero bytes.
printf '\070\0\0\0\0\0\0\0{"a.b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}\0\0\0\0\0\0\0\0' > one.safetensors
$wtool inspect one.safetensors | grep -q 'a\.b' || fail "inspect does not show the tensor"
$wtool digest one.safetensors > SHA256SUMS
sha256sum -c SHA256SUMS >/dev/null || fail "sha256sum does not agree with digest"
$wtool verify --sha256 one.safetensors >/dev/null || fail "verify does not agree with digest"

bash -n share/bash-completion/completions/wtool || fail "the bash completion does not parse"
for shell in zsh fish; do
  command -v $shell >/dev/null || continue
  $shell -n share/*/vendor*complet*/*wtool* 2>/dev/null || true
done
