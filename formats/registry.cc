#include "formats/registry.h"

#include <array>

#include "formats/compressed.h"

namespace wtool {

// Formats: the most specific first, those without a magic number last. Schemes: plain last.
Registry all_formats() noexcept {
  static constexpr std::array kFormats{&kNpy, &kGguf, &kSafetensors, &kImatrixDat};
  static constexpr std::array kSchemes{
      &kCompressedTensors, &kGptq,         &kAwq,     &kFp8,  &kGptOss,
      &kModelOpt,          &kBitsAndBytes, &kTorchao, &kPlain};
  return {kFormats, kSchemes, diagnose, unwrap_compressed};
}

}  // namespace wtool
