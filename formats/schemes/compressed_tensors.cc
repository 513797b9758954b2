#include "formats/registry.h"

namespace wtool {
namespace {

std::optional<std::string> refuses(const Tensor&, const SchemeOptions&) {
  return "compressed-tensors cannot be written yet";
}

}  // namespace

const Scheme kCompressedTensors{
    .name = "compressed-tensors",
    .summary = "packed integers and their scales, as vLLM, SGLang and transformers load them",
    .recognise = nullptr,
    .open = nullptr,
    .refuses = refuses,
    .encode = nullptr,
    .config = nullptr,
};

}  // namespace wtool
