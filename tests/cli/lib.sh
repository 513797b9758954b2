# Sourced by the scripts of this folder: `. "$LIB"`. $WTOOL is the program; the current folder is
# empty and the test's own. A script that skips itself leaves with 77.

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# run ARGS…: wtool, its output in out.txt and err.txt, its status in $status.
run() {
  status=0
  "$WTOOL" "$@" >out.txt 2>err.txt || status=$?
}
expect_status() {
  [ "$status" = "$1" ] || fail "status $status instead of $1; stderr: $(cat err.txt)"
}
# expect_text FILE TEXT: the file holds this text somewhere.
expect_text() {
  grep -qF -- "$2" "$1" || fail "'$2' is not in $1: $(cat "$1")"
}
expect_no_text() {
  if grep -qF -- "$2" "$1"; then fail "'$2' is in $1: $(cat "$1")"; fi
}
expect_equal() {
  [ "$1" = "$2" ] || fail "'$1' instead of '$2'"
}
# The error is one line in the right form, whatever hint follows.
expect_error_line() {
  [ "$(grep -c '^wtool: error: ' err.txt)" = 1 ] || fail "no error line, or several: $(cat err.txt)"
  [ "$(grep -vc '^wtool: error: \|^hint: ' err.txt)" = 0 ] || fail "more than that: $(cat err.txt)"
}

# le64 N: eight bytes, little-endian.
le64() {
  n=$1
  for _ in 1 2 3 4 5 6 7 8; do
    printf "\\$(printf %03o $((n & 255)))"
    n=$((n >> 8))
  done
}
# make_safetensors FILE HEADER DATA: DATA as printf understands it. Blanks align the header.
make_safetensors() {
  header=$2
  length=$(printf %s "$header" | wc -c)
  pad=$(((8 - length % 8) % 8))
  {
    le64 $((length + pad))
    printf %s "$header"
    printf "%${pad}s" ''
    printf "$3"
  } >"$1"
}
# Two tensors: 'a' f32 [2, 2] = 1 2 3 4 and 'b' i8 [3] = 1 -1 127.
make_small() {
  make_safetensors "$1" \
    '{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"I8","shape":[3],"data_offsets":[16,19]}}' \
    '\000\000\200\077\000\000\000\100\000\000\100\100\000\000\200\100\001\377\177'
}
# make_many FILE N: N layers of two tensors without elements.
make_many() {
  i=0
  separator='{'
  while [ "$i" -lt "$2" ]; do
    for part in weight bias; do
      printf '%s"layer.%d.%s":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' \
        "$separator" "$i" "$part"
      separator=,
    done
    i=$((i + 1))
  done >header.txt
  make_safetensors "$1" "$(cat header.txt)}" ''
}
