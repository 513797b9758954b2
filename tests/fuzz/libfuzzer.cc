// The fuzzer: one program for all targets, so that a change is linked once.
//   fuzz --target=NAME [libFuzzer's options] CORPUS…
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/fuzz/target.h"

namespace {
const wtool::fuzz::Target* g_target = nullptr;
}

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  constexpr std::string_view kOption = "--target=";
  for (int i = 1; i < *argc; ++i)
    if (std::string_view((*argv)[i]).starts_with(kOption))
      g_target = wtool::fuzz::find_target((*argv)[i] + kOption.size());
  if (!g_target) {
    std::fputs("--target=NAME, with NAME one of", stderr);
    for (const wtool::fuzz::Target* t : wtool::fuzz::all_targets())
      std::fprintf(stderr, " %s", t->name.data());
    std::fputs("\n", stderr);
    std::exit(2);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  g_target->run(std::as_bytes(std::span(data, size)));
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  if (!g_target->mutate) return LLVMFuzzerMutate(data, size, most);
  std::string text(reinterpret_cast<const char*>(data), size);
  wtool::fuzz::Mutation how(seed, most, LLVMFuzzerMutate);
  g_target->mutate(text, how);
  if (text.size() > most || text.empty()) return LLVMFuzzerMutate(data, size, most);
  std::memcpy(data, text.data(), text.size());
  return text.size();
}
