# A reader that has gone ends us quietly, by SIGPIPE; a stdout that cannot be written is exit 4.
. "$LIB"
make_many big.safetensors 3000

{ status=0; "$WTOOL" inspect -l big.safetensors 2>err.txt || status=$?; echo $status >status.txt; } |
  head -n 1 >out.txt
expect_equal "$(cat status.txt)" 141
[ ! -s err.txt ] || fail "not quiet: $(cat err.txt)"

if [ -w /dev/full ]; then
  for arguments in '--version' 'help' 'inspect big.safetensors' 'inspect --json big.safetensors'; do
    status=0; "$WTOOL" $arguments >/dev/full 2>err.txt || status=$?
    expect_status 4; expect_text err.txt "standard output"
  done
fi
status=0; "$WTOOL" inspect big.safetensors >&- 2>err.txt || status=$?
expect_status 4
