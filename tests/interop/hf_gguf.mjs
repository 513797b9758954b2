// Reads a GGUF file with @huggingface/gguf and prints what it found in the form of
// gguf_sample.txt (without values: it does not decode any).
//
//   node hf_gguf.mjs NODE_MODULES FILE
import { createRequire } from "node:module";

const [folder, file] = process.argv.slice(2);
const { gguf } = createRequire(folder + "/")("@huggingface/gguf");

const kString = 8, kArray = 9, kF32 = 6, kF64 = 12;

function text(s) {
  let out = '"';
  for (const c of Buffer.from(s, "utf8"))
    out += c < 0x20 || c >= 0x7f || c === 0x22 || c === 0x5c
      ? "\\x" + c.toString(16).padStart(2, "0") : String.fromCharCode(c);
  return out + '"';
}

function bits(value, bytes) {
  const b = Buffer.alloc(bytes);
  bytes === 4 ? b.writeFloatBE(value) : b.writeDoubleBE(value);
  return "0x" + b.toString("hex");
}

function show(type, value) {
  if (type === kString) return text(value);
  if (type === kF32) return bits(value, 4);
  if (type === kF64) return bits(value, 8);
  return String(value);
}

const { typedMetadata, tensorInfos, tensorDataOffset } =
  await gguf(file, { typedMetadata: true, allowLocalFile: true });

console.log(`version ${typedMetadata.version.value}`);
for (const [key, { type, subType, value }] of Object.entries(typedMetadata)) {
  if (["version", "tensor_count", "kv_count"].includes(key)) continue;
  console.log(type === kArray
    ? `key ${key} 9 of ${subType}:${value.map((v) => " " + show(subType, v)).join("")}`
    : `key ${key} ${type} ${show(type, value)}`);
}
for (const { name, shape, dtype, offset } of tensorInfos) {
  const dims = [...shape, 1n, 1n, 1n, 1n].slice(0, Math.max(4, shape.length));
  console.log(`tensor ${name} ${dtype} ${dims.join(" ")} at ${tensorDataOffset + offset}`);
}
