# No option swallows INPUT, wherever it stands.
. "$LIB"
make_small m.safetensors

for options in '-t a' '--tensors a' '--tensors=a' '-x a' '--exclude=a' '-t a -t b' '-l' '--list' \
  '--allow-unmatched' '--sort size' '--by dtype' '--by dtype,layer' '--meta' '--get format' \
  '--alone' '-j 1' '-j1' '--threads=1' '--json' '-q' '-v' '--color never' \
  '--progress off' '--max-memory 1GiB'; do
  run inspect $options m.safetensors
  expect_status 0
  cp out.txt before.txt
  run inspect m.safetensors $options
  expect_status 0
  cmp -s before.txt out.txt || fail "$options: before and after INPUT differ"
done
for options in '--dtype f64' '--full' '--alone' '--to csv' '--to text' '-o -' '-f' '--json' '-j 1'; do
  run show $options m.safetensors a
  expect_status 0
done
run inspect -t a -- m.safetensors; expect_status 0
cp m.safetensors ./-odd; run inspect -- -odd; expect_status 0
