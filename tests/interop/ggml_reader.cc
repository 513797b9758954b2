// Reads a GGUF file with llama.cpp's own library (libggml-base.so, loaded by path) and prints what
// it found, one line each: see gguf_sample.txt. Exit status 1 if the library refuses the file.
//
//   ggml_reader LIBRARY-FOLDER FILE
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <dlfcn.h>

namespace {

// As gguf.h and ggml.h of llama.cpp declare them.
struct Gguf;
struct Context;
struct TensorHandle;
struct InitParams {
  bool no_alloc;
  Context** context;
};
struct TypeTraits {
  const char* name;
  std::int64_t block_elems, interleave;
  std::size_t block_bytes;
  bool quantized;
  void (*to_float)(const void*, float*, std::int64_t);
  void (*from_float)(const float*, void*, std::int64_t);
};
enum : int { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

[[noreturn]] void die(const std::string& text) {
  std::fprintf(stderr, "ggml_reader: %s\n", text.c_str());
  std::exit(2);
}

void* open_library(const std::filesystem::path& folder) {
  for (const auto& e : std::filesystem::directory_iterator(folder))
    if (e.path().filename().string().rfind("libggml-base", 0) == 0)
      if (void* handle = ::dlopen(e.path().c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
  die("no libggml-base that loads in " + folder.string());
}

struct Library {
  void* handle;

  template <class F>
  F* get(const char* name) const {
    void* p = ::dlsym(handle, name);
    if (!p) die(std::string("the library has no ") + name);
    return reinterpret_cast<F*>(p);
  }
  // A function of a file and an item's number.
  template <class R>
  R ask(const char* name, const Gguf* g, std::int64_t i) const {
    return get<R(const Gguf*, std::int64_t)>(name)(g, i);
  }
};

void print_text(const char* s) {
  std::putchar('"');
  for (; *s; ++s) {
    const auto c = static_cast<unsigned char>(*s);
    if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
      std::printf("\\x%02x", c);
    else
      std::putchar(c);
  }
  std::putchar('"');
}

template <class T>
T item(const void* data, std::size_t i) {
  T v;
  std::memcpy(&v, static_cast<const char*>(data) + i * sizeof v, sizeof v);
  return v;
}

// Floats as their bits: exact, and the same in every language.
void print_number(int type, const void* data, std::size_t i) {
  switch (type) {
    case kU8: std::printf("%u", item<std::uint8_t>(data, i)); return;
    case kI8: std::printf("%d", item<std::int8_t>(data, i)); return;
    case kU16: std::printf("%u", item<std::uint16_t>(data, i)); return;
    case kI16: std::printf("%d", item<std::int16_t>(data, i)); return;
    case kU32: std::printf("%" PRIu32, item<std::uint32_t>(data, i)); return;
    case kI32: std::printf("%" PRId32, item<std::int32_t>(data, i)); return;
    case kF32: std::printf("0x%08" PRIx32, item<std::uint32_t>(data, i)); return;
    case kBool: std::fputs(item<std::uint8_t>(data, i) ? "true" : "false", stdout); return;
    case kU64: std::printf("%" PRIu64, item<std::uint64_t>(data, i)); return;
    case kI64: std::printf("%" PRId64, item<std::int64_t>(data, i)); return;
    case kF64: std::printf("0x%016" PRIx64, item<std::uint64_t>(data, i)); return;
    default: die("unknown value type");
  }
}

void print_array(const Library& lib, const Gguf* g, std::int64_t i) {
  const int of = lib.ask<int>("gguf_get_arr_type", g, i);
  const auto n = lib.ask<std::size_t>("gguf_get_arr_n", g, i);
  std::printf("of %d:", of);
  for (std::size_t j = 0; j < n; ++j) {
    std::putchar(' ');
    if (of == kString)
      print_text(lib.get<const char*(const Gguf*, std::int64_t, std::size_t)>("gguf_get_arr_str")(
          g, i, j));
    else
      print_number(of, lib.ask<const void*>("gguf_get_arr_data", g, i), j);
  }
}

void print_keys(const Library& lib, const Gguf* g) {
  const auto n = lib.get<std::int64_t(const Gguf*)>("gguf_get_n_kv")(g);
  for (std::int64_t i = 0; i < n; ++i) {
    const int type = lib.ask<int>("gguf_get_kv_type", g, i);
    std::printf("key %s %d ", lib.ask<const char*>("gguf_get_key", g, i), type);
    if (type == kString)
      print_text(lib.ask<const char*>("gguf_get_val_str", g, i));
    else if (type == kArray)
      print_array(lib, g, i);
    else
      print_number(type, lib.ask<const void*>("gguf_get_val_data", g, i), 0);
    std::putchar('\n');
  }
}

// The values as the library decodes them.
void print_values(const TypeTraits& type, int id, const void* data, std::int64_t n) {
  constexpr int kIds[] = {24, 25, 26, 27, 28}, kAs[] = {kI8, kI16, kI32, kI64, kF64};
  std::vector<float> decoded(static_cast<std::size_t>(n));
  if (id == 0)
    std::memcpy(decoded.data(), data, decoded.size() * sizeof(float));
  else if (type.to_float)
    type.to_float(data, decoded.data(), n);
  for (std::size_t i = 0; i < decoded.size(); ++i) {
    std::putchar(' ');
    int as = -1;
    for (std::size_t k = 0; k < std::size(kIds); ++k)
      if (id == kIds[k]) as = kAs[k];
    if (as == kF64)
      std::printf("%.17g", item<double>(data, i));
    else if (as >= 0)
      print_number(as, data, i);
    else
      std::printf("%.9g", static_cast<double>(decoded[i]));
  }
  std::putchar('\n');
}

void print_tensors(const Library& lib, const Gguf* g, Context* context) {
  const auto n = lib.get<std::int64_t(const Gguf*)>("gguf_get_n_tensors")(g);
  const auto begin = lib.get<std::size_t(const Gguf*)>("gguf_get_data_offset")(g);
  for (std::int64_t i = 0; i < n; ++i) {
    const char* name = lib.ask<const char*>("gguf_get_tensor_name", g, i);
    const int type = lib.ask<int>("gguf_get_tensor_type", g, i);
    const auto* dims = lib.ask<const std::int64_t*>("gguf_get_tensor_ne", g, i);
    std::printf("tensor %s %d", name, type);
    std::int64_t elements = 1;
    for (int d = 0; d < 4; ++d) {
      std::printf(" %" PRId64, dims[d]);
      elements *= dims[d];
    }
    std::printf(" at %zu\n", begin + lib.ask<std::size_t>("gguf_get_tensor_offset", g, i));
    auto* handle = lib.get<TensorHandle*(Context*, const char*)>("ggml_get_tensor")(context, name);
    if (!handle) die(std::string("the library lost tensor ") + name);
    std::printf("values %s", name);
    print_values(*lib.get<const TypeTraits*(int)>("ggml_get_type_traits")(type), type,
                 lib.get<void*(const TensorHandle*)>("ggml_get_data")(handle), elements);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) die("usage: ggml_reader LIBRARY-FOLDER FILE");
  const Library lib{open_library(argv[1])};
  Context* context = nullptr;
  // With its data: that reader is the stricter one.
  const Gguf* g = lib.get<Gguf*(const char*, InitParams)>("gguf_init_from_file")(
      argv[2], InitParams{false, &context});
  if (!g) {
    std::fprintf(stderr, "ggml_reader: the library refuses %s\n", argv[2]);
    return 1;
  }
  std::printf("version %" PRIu32 "\n", lib.get<std::uint32_t(const Gguf*)>("gguf_get_version")(g));
  print_keys(lib, g);
  print_tensors(lib, g, context);
  return 0;
}
