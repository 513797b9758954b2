#!/bin/sh
# What reference implementations read from GGUF files that we wrote is what we put in.
#
#   gguf_interop.sh layout|convert WTOOL GGUF_SAMPLE GGML_READER
set -eu
subject=$1 wtool=$2 sample=$3 peer=$4
here=$(cd "$(dirname "$0")" && pwd)

modules=${WTOOL_PEERS:-$here/../../build/peers/node_modules}
libraries=$modules/@node-llama-cpp/linux-x64/bins/linux-x64
if [ ! -d "$libraries" ] || [ ! -d "$modules/@huggingface/gguf" ] || ! command -v node >/dev/null; then
  echo "skipped: no peers in $modules (scripts/peers installs them)"
  exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

ggml() { "$peer" "$libraries" "$1"; }
hf() { node "$here/hf_gguf.mjs" "$modules" "$1"; }
same() { # expected, found, what it is about
  diff -u "$1" "$2" || { echo "FAILED: $3"; exit 1; }
}
without_values() { grep -v '^values ' "$1"; }

layout() {
  "$sample" sample.gguf
  ggml sample.gguf > ggml.txt
  same "$here/gguf_sample.txt" ggml.txt "llama.cpp reads our layout"
  hf sample.gguf > hf.txt
  without_values "$here/gguf_sample.txt" > want.txt
  same want.txt hf.txt "@huggingface/gguf reads our layout"
}

# A safetensors file by hand: header length, header, data.
make_safetensors() {
  header='{"__metadata__":{"format":"pt"},"blk.0.ffn_up.weight":{"dtype":"F32","shape":[2,32],"data_offsets":[0,256]},"half":{"dtype":"F16","shape":[1,4],"data_offsets":[256,264]},"brain":{"dtype":"BF16","shape":[2],"data_offsets":[264,268]}}'
  node - "$header" > x.safetensors <<'JS'
const header = process.argv[2];
const out = Buffer.alloc(8 + header.length + 268);
out.writeBigUInt64LE(BigInt(header.length));
out.write(header, 8);
const at = 8 + header.length;
for (let i = 0; i < 64; ++i) out.writeFloatLE(i < 32 ? i - 16 : (i - 32) / 4, at + 4 * i);
[0x3c00, 0xc000, 0x3800, 0x7bff].forEach((v, i) => out.writeUInt16LE(v, at + 256 + 2 * i));
[0x3f80, 0xc000].forEach((v, i) => out.writeUInt16LE(v, at + 264 + 2 * i));
process.stdout.write(out);
JS
}
tensors() { grep -E '^(tensor|values) ' "$1" | sed 's/ at [0-9]*$//' | sort; }

w=blk.0.ffn_up.weight

convert() {
  "$wtool" convert --help > help.txt || exit 1
  grep -q -e --endian help.txt || { echo "skipped: this wtool does not convert yet"; exit 77; }
  make_safetensors
  {
    echo "tensor $w 0 32 2 1 1"
    echo "tensor half 1 4 1 1 1"
    echo "tensor brain 30 2 1 1 1"
    echo "values $w $(seq -s' ' -16 15) $(seq -f %g -s' ' 0 0.25 7.75)"
    echo "values half 1 -2 0.5 65504"
    echo "values brain 1 -2"
  } | sort > want.txt

  "$wtool" convert x.safetensors -o x.gguf
  ggml x.gguf > ggml.txt
  tensors ggml.txt > found.txt
  same want.txt found.txt "llama.cpp reads a converted safetensors file"
  grep -qx 'key format 8 "pt"' ggml.txt || { echo "FAILED: metadata was lost"; exit 1; }
  hf x.gguf > hf.txt
  without_values ggml.txt > want_hf.txt
  same want_hf.txt hf.txt "@huggingface/gguf reads a converted safetensors file"

  # Another alignment, which llama-quantize itself gets wrong.
  "$wtool" convert x.gguf -o wide.gguf --set general.alignment:u32=4096
  ggml wide.gguf > wide.txt
  tensors wide.txt > found.txt
  same want.txt found.txt "llama.cpp reads a file aligned to 4096"
  [ $(($(wc -c < wide.gguf) % 4096)) = 0 ] || { echo "FAILED: the last tensor is not padded"; exit 1; }

  # Big-endian, which only the JavaScript reader takes on this machine.
  "$wtool" convert x.gguf -o big.gguf --endian big
  hf big.gguf > hf.txt
  same want_hf.txt hf.txt "@huggingface/gguf reads a big-endian file"
  "$wtool" convert big.gguf -o back.gguf --endian little
  cmp x.gguf back.gguf || { echo "FAILED: there and back is not the same"; exit 1; }

  # Q8_0: a row of -16 … 15 has scale 16/127, rounded to f16 (at most 1/4096 of it, so 127/4096 of a
  # step at the largest code); no value may be off by more than that and half a step.
  "$wtool" quantize --int8 x.gguf -o q.gguf > quantize.txt
  ggml q.gguf > q.txt
  grep -qx "tensor $w 8 32 2 1 1 at [0-9]*" q.txt || { echo "FAILED: $w is not q8_0"; exit 1; }
  sed -n "s/^values $w //p" q.txt | tr ' ' '\n' | awk '
    { want = NR <= 32 ? NR - 17 : (NR - 33) / 4; step = (NR <= 32 ? 16 : 7.75) / 127
      d = $1 - want; if (d < 0) d = -d
      if (d > step * (0.5 + 127 / 4096)) { print "FAILED: value " NR " is " $1 ", not " want; exit 1 } }
    END { if (NR != 64) { print "FAILED: " NR " values"; exit 1 } }'
}

case $subject in
  layout) layout ;;
  convert) convert ;;
  *) exit 2 ;;
esac
