#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <dlfcn.h>
#include <strings.h>

#include "lib/base/dtype.h"

// llama.cpp's prebuilt library, opened at run time. It is found in $WTOOL_PEERS (a node_modules
// folder), else where scripts/peers puts it.
namespace wtool {

// As ggml.h of release v0.5.0 declares them.
struct GgmlTraits {
  const char* name;
  std::int64_t block_elements, interleave;
  std::size_t block_bytes;
  bool quantized;
  void (*to_float)(const void*, float*, std::int64_t);
  void (*from_float)(const float*, void*, std::int64_t);
};

struct GgmlLibrary {
  const GgmlTraits* (*traits)(int) = nullptr;
  std::size_t (*quantize)(int type, const float* in, void* out, std::int64_t start,
                          std::int64_t rows, std::int64_t columns,
                          const float* importance) = nullptr;

  bool open() {
    namespace fs = std::filesystem;
    const char* peers = std::getenv("WTOOL_PEERS");
    const fs::path folder = fs::path(peers ? peers : WTOOL_SOURCE_DIR "/build/peers/node_modules") /
                            "@node-llama-cpp/linux-x64/bins/linux-x64";
    std::error_code ignored;
    for (const auto& e : fs::directory_iterator(folder, ignored)) {
      if (e.path().filename().string().rfind("libggml-base.", 0) != 0) continue;
      void* handle = ::dlopen(e.path().c_str(), RTLD_NOW | RTLD_GLOBAL);
      if (handle == nullptr) continue;
      traits = reinterpret_cast<decltype(traits)>(::dlsym(handle, "ggml_get_type_traits"));
      quantize = reinterpret_cast<decltype(quantize)>(::dlsym(handle, "ggml_quantize_chunk"));
      return traits != nullptr && quantize != nullptr;
    }
    return false;
  }

  // Its number of a type, whose name there is ours but for capitals; -1: it has none.
  int number_of(DType dtype) const {
    constexpr int kTypes = 43;  // of release v0.5.0
    for (int t = 0; t < kTypes; ++t) {
      const char* name = traits(t)->name;
      if (name != nullptr && ::strcasecmp(name, std::string(info(dtype).name).c_str()) == 0)
        return t;
    }
    return -1;
  }
};

}  // namespace wtool
