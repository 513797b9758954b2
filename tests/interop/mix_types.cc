// Prints the type that a mix gives to each tensor of a GGUF file, one line each: "name type".
//
//   mix_types FILE MIX [pure] [imatrix]
#include <cstdio>
#include <string>
#include <vector>

#include "formats/registry.h"
#include "lib/base/error.h"
#include "lib/model/model.h"
#include "lib/numeric/mix.h"

int main(int argc, char** argv) {
  using namespace wtool;
  if (argc < 3) return 2;
  const Mix* mix = find_mix(argv[2]);
  if (!mix) return 2;
  MixOptions options;
  MixFacts facts;
  for (int i = 3; i < argc; ++i) {
    if (argv[i] == std::string("pure")) options.pure = true;
    if (argv[i] == std::string("imatrix")) facts.importance = true;
  }
  try {
    Diagnostics faults;
    const auto model = open_model(argv[1], all_formats(), {}, faults);
    read_mix_facts(model->catalog.meta, facts);
    std::vector<MixTensor> tensors;
    for (const LogicalTensor& t : model->tensors) tensors.push_back({t.name, t.dtype, t.shape});
    const auto choices = apply_mix(*mix, facts, tensors, NameStyle::Ggml, options);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      DType type = choices[i].type.value_or(tensors[i].dtype);
      const std::uint64_t columns = tensors[i].shape.back();
      if (choices[i].type && columns % info(type).block_elems != 0) {
        const auto other = fallback_type(type, columns);
        if (!other) return 1;
        type = *other;
      }
      std::printf("%s %s\n", std::string(tensors[i].name).c_str(),
                  std::string(name_of(type)).c_str());
    }
  } catch (const Error& e) {
    std::fprintf(stderr, "mix_types: %s\n", e.what());
    return 2;
  }
}
