# Names with blanks, newlines and escapes do not reach the terminal as they are.
. "$LIB"
make_safetensors n.safetensors \
  '{"__metadata__":{"k\u001b[31m":"v\nw"},"a b\nc\u001b[2J":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u202etxt":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}' \
  '\001\002'
escape=$(printf '\033')
for options in '' '-l' '--meta'; do
  run inspect $options n.safetensors; expect_status 0; expect_no_text out.txt "$escape"
done
run inspect -l n.safetensors
expect_text out.txt 'a b\nc\x1b[2J'; expect_text out.txt '\u202etxt'
run inspect --json n.safetensors; expect_status 0; expect_no_text out.txt "$escape"
expect_text out.txt '"name": "a b\nc\u001b[2J"'
run show n.safetensors "a b
c${escape}[2J"; expect_status 0; expect_no_text out.txt "$escape"; expect_text out.txt '[1]'
run show n.safetensors "${escape}x"; expect_status 2; expect_no_text err.txt "$escape"

# The same for names of files, and of metadata values the raw bytes only by --get.
odd="o d
d$escape.safetensors"
cp n.safetensors "$odd"
run inspect "$odd"; expect_status 0; expect_no_text out.txt "$escape"
run inspect "$odd.no"; expect_status 4; expect_error_line; expect_no_text err.txt "$escape"
run inspect --get "k$escape[31m" n.safetensors; expect_status 0
expect_equal "$(cat out.txt)" "v
w"

# Completion must not run what a name says.
make_safetensors evil.safetensors \
  '{"$(touch ran)`touch ran`":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}' '\001'
if command -v bash >/dev/null; then
  PATH="$(dirname "$WTOOL"):$PATH" bash -c '
    source <(wtool completion bash)
    COMP_WORDS=(wtool inspect evil.safetensors -t ""); COMP_CWORD=4; _wtool
    [[ ${#COMPREPLY[@]} == 1 ]]' || fail "the name was not completed"
  [ ! -e ran ] || fail "completion ran a tensor name"
fi
