# Manifests and configs from strangers: refused in one line, soon, and without driving the terminal.
. "$LIB"
make_small m.safetensors

printf '%s' '{"schema":"wtool.manifest/1","files":[],"x":1e999}' > inf.json
run verify -c inf.json; expect_status 2; expect_error_line  # an unknown field; but nothing is listed
i=0; while [ $i -lt 3000 ]; do printf '[[[[[[[[['; i=$((i + 1)); done > deep.json
printf '{"a":' | cat - deep.json > nested.json
run verify -c nested.json; expect_status 3; expect_text err.txt 'nested'

# A tensor listed twice would be hashed twice: a list may not make us work without end.
"$WTOOL" digest --per-tensor m.safetensors -o good.json
run verify -c good.json; expect_status 0
zeros=0000000000000000000000000000000000000000000000000000000000000000
sed -e 's/"name": "b"/"name": "a"/' -e "0,/\"sha256\": \"[0-9a-f]*\"/s//\"sha256\": \"$zeros\"/" \
  good.json > twice.json
run verify -c twice.json; expect_status 3; expect_text err.txt "lists tensor 'a' twice"

# A quantization_config of many objects: parsed in quadratic time it would take minutes.
mkdir folder
make_small folder/model.safetensors
{ printf '{"quantization_config":{"quant_method":"compressed-tensors","config_groups":{'
  i=0; while [ $i -lt 150000 ]; do printf '"g%d":{},' $i; i=$((i + 1)); done
  printf '"last":{}}}}'; } > folder/config.json
timeout 20 "$WTOOL" inspect folder >out.txt 2>err.txt || fail "status $?: $(cat err.txt)"

# A report may not take the place of an input.
make_small r.safetensors
run convert r.safetensors -o o.gguf --report r.safetensors; expect_status 2
[ ! -e o.gguf ] || fail "o.gguf is there"
