# What bad command lines and bad files get: one line, a hint, the right status.
. "$LIB"
make_small m.safetensors

run; expect_status 2; expect_error_line
run insepct m.safetensors; expect_status 2; expect_error_line
expect_text err.txt "unknown command 'insepct'"; expect_text err.txt "did you mean 'inspect'"
run inspect --tensrs a m.safetensors; expect_status 2; expect_error_line
expect_text err.txt "did you mean '--tensors'"
run inspect; expect_status 2; expect_error_line; expect_text err.txt "wtool help inspect"
run inspect --color purple m.safetensors; expect_status 2; expect_error_line
run inspect -j 0 m.safetensors; expect_status 2; expect_error_line
run inspect -j x m.safetensors; expect_status 2; expect_error_line
run inspect --sort siez m.safetensors; expect_status 2; expect_text err.txt "did you mean 'size'"
run inspect --max-memory 1KB m.safetensors; expect_status 2; expect_error_line
run inspect -t 'nothing.*' m.safetensors; expect_status 2; expect_error_line
run inspect -t 'nothing.*' --allow-unmatched m.safetensors; expect_status 0
run help insepct; expect_status 2
run --verison; expect_status 2; expect_error_line

run inspect missing.safetensors; expect_status 4; expect_error_line
: >empty; run inspect empty; expect_status 3; expect_error_line
head -c 100 m.safetensors >cut.safetensors
run inspect cut.safetensors; expect_status 3; expect_error_line; expect_text err.txt cut.safetensors

# As JSON: one object on stderr, nothing on stdout.
run inspect --json cut.safetensors; expect_status 3
expect_equal "$(wc -l <err.txt)" 1; [ ! -s out.txt ] || fail "stdout is not empty"
expect_text err.txt '{"schema": "wtool.error/1", "ok": false, "error": {"fault": "bad-file", "where": "cut.safetensors"'
run inspect --jsno; expect_status 2
run inspect --json --tensrs; expect_status 2; expect_text err.txt '"fault": "usage"'
