# What inspect says of a file whose every byte we wrote.
. "$LIB"
make_small m.safetensors

run inspect m.safetensors; expect_status 0
expect_text out.txt 'm.safetensors  safetensors   19 B   7 parameters   21.71 bits/weight'
expect_text out.txt 'meta    format=pt'
run inspect -l m.safetensors
expect_equal "$(sed -n 2p out.txt | tr -s ' ')" 'a [2, 2] f32 16 152'
run inspect --sort size -t '*' m.safetensors; expect_equal "$(sed -n 2p out.txt | cut -c1)" a
run inspect -x a m.safetensors; expect_equal "$(wc -l <out.txt)" 2
run inspect --by dtype m.safetensors; expect_text out.txt '84.2 %'
run inspect --meta m.safetensors; expect_text out.txt 'format  str   pt'

run inspect --get format m.safetensors; expect_status 0; expect_equal "$(cat out.txt)" pt
run inspect --get formt m.safetensors; expect_status 1; expect_text err.txt "did you mean 'format'"
run inspect --get formt --json m.safetensors; expect_status 1; expect_text out.txt '"ok": false'

run inspect --json m.safetensors; expect_status 0
cat >want.txt <<'END'
{"schema": "wtool.inspect/1", "ok": true, "inputs": ["m.safetensors"], "model": {"format": "safetensors", "files": 1, "bytes": 19, "parameters": 7, "bits_per_weight": 21.714285714285715}, "metadata": {"format": "pt"}, "tensors": [
  {"name": "a", "shape": [2, 2], "dtype": "f32", "bytes": 16, "scheme": "plain", "file": "m.safetensors", "offset": 152},
  {"name": "b", "shape": [3], "dtype": "i8", "bytes": 3, "scheme": "plain", "file": "m.safetensors", "offset": 168}]}
END
cmp out.txt want.txt || fail "other JSON: $(cat out.txt)"

# Several inputs: on after a bad one, with the worst status.
: >bad
run inspect m.safetensors bad missing m.safetensors; expect_status 4
expect_equal "$(grep -c '7 parameters' out.txt)" 2; expect_equal "$(grep -c 'wtool: error' err.txt)" 2
run inspect --json m.safetensors bad; expect_status 3
expect_text out.txt '"ok": false, "inputs": ["m.safetensors", "bad"], "models": ['

# From standard input.
"$WTOOL" inspect - <m.safetensors >out.txt; expect_text out.txt '7 parameters'
