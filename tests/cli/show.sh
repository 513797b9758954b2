# Values of tensors and slices in every form.
. "$LIB"
make_small m.safetensors

run show m.safetensors a; expect_status 0
expect_equal "$(cat out.txt)" "a  [2, 2]  f32
[[1 2]
 [3 4]]"
run show m.safetensors 'a[1]'; expect_equal "$(sed -n 2p out.txt)" '[3 4]'
run show m.safetensors 'a[...,-1]'; expect_equal "$(sed -n 2p out.txt)" '[2 4]'
run show m.safetensors 'a[0,1]'; expect_equal "$(sed -n 2p out.txt)" '2'
run show m.safetensors b; expect_equal "$(sed -n 2p out.txt)" '[  1  -1 127]'
run show m.safetensors 'a[2]'; expect_status 2; expect_text err.txt 'outside dimension 0 of 2'
run show m.safetensors 'a[::2]'; expect_status 2
run show m.safetensors A; expect_status 2; expect_text err.txt "did you mean 'a'"
run show m.safetensors; expect_status 2; expect_error_line

run show m.safetensors a --to csv; expect_equal "$(cat out.txt)" "1,2
3,4"
run show m.safetensors b --to csv; expect_equal "$(cat out.txt)" "1
-1
127"
run show m.safetensors 'a[1]' --to raw
expect_equal "$(od -An -tx1 out.txt | tr -d ' \n')" 0000404000008040
run show m.safetensors b --dtype f32 --to raw
expect_equal "$(od -An -tx1 out.txt | tr -d ' \n')" 0000803f000080bf0000fe42
run show --json m.safetensors a; expect_text out.txt '"values": [1, 2, 3, 4], "non_finite": 0'

# A file appears whole or not at all, and is not replaced unasked.
run show m.safetensors a -o a.npy; expect_status 0
run inspect a.npy; expect_text out.txt '[2, 2]'
run show a.npy; expect_equal "$(sed -n 2p out.txt)" '[[1 2]'
run show m.safetensors a -o a.npy; expect_status 2; expect_text err.txt 'already exists'
run show m.safetensors b -f -o a.npy; expect_status 0
run show m.safetensors a -o a.xyz; expect_status 2; expect_text err.txt "unknown suffix '.xyz'"
[ ! -e a.xyz ] || fail "a refused output is there"
run show m.safetensors nope -o n.npy; expect_status 2; [ ! -e n.npy ] || fail "n.npy is there"

# An exact name wins over a slice.
make_safetensors s.safetensors \
  '{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"x[0]":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}' \
  '\001\002\003'
run show s.safetensors 'x[0]'; expect_equal "$(sed -n 2p out.txt)" '[3]'
run show s.safetensors 'x[1]'; expect_equal "$(sed -n 2p out.txt)" '2'

# bf16: exact digits, and NPY has no such type.
make_safetensors h.safetensors '{"h":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}' '\315\075\111\100'
run show h.safetensors; expect_equal "$(sed -n 2p out.txt)" '[ 0.1 3.14]'
run show h.safetensors h --to npy; expect_status 2; expect_text err.txt 'dtype f32'
run show h.safetensors h --to npy --dtype f32; expect_status 0
