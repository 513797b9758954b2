# Colours, width and character set.
. "$LIB"
make_many many.safetensors 12
make_small m.safetensors
escape=$(printf '\033')

run inspect many.safetensors; expect_no_text out.txt "$escape"; expect_text out.txt '×12'
run inspect --color always many.safetensors; expect_text out.txt "$escape[1m"
NO_COLOR=1 run inspect --color auto many.safetensors; expect_no_text out.txt "$escape"
TERM=dumb run inspect many.safetensors; expect_no_text out.txt "$escape"

LC_ALL=C run inspect many.safetensors; expect_text out.txt 'x12'
if LC_ALL=C grep -q '[^ -~]' out.txt; then fail "not ASCII: $(cat out.txt)"; fi

for columns in 40 60 80 120; do
  COLUMNS=$columns run inspect m.safetensors; expect_status 0
  COLUMNS=$columns run inspect -l m.safetensors
  widest=$(awk '{ if (length($0) > w) w = length($0) } END { print w }' out.txt)
  [ "$widest" -le "$columns" ] || fail "$widest columns instead of $columns"
done
for command in inspect show stats diff convert quantize compress decompress digest verify sign check completion help; do
  run help "$command"; expect_status 0
  cp out.txt help.txt
  run "$command" --help; expect_status 0
  cmp -s help.txt out.txt || fail "help $command and $command --help differ"
  grep -qi '^example' out.txt || fail "the help of $command has no example"
  expect_text out.txt "man wtool-$command"
  [ "$(wc -l <out.txt)" -le 50 ] || fail "the help of $command is $(wc -l <out.txt) lines long"
done
run --version; expect_status 0; expect_text out.txt simd; expect_text out.txt re2
run --version --json; expect_status 0; expect_text out.txt '"schema": "wtool.version/1"'
for shell in bash zsh fish; do
  run completion $shell; expect_status 0; expect_text out.txt allow-unmatched
done
run completion tcsh; expect_status 2
