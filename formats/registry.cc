#include "formats/registry.h"

#include <array>

namespace wtool {

// Formats: the most specific first, safetensors (no magic) last. Schemes: plain last.
Registry all_formats() noexcept {
  static constexpr std::array kFormats{&kNpy, &kGguf, &kSafetensors};
  static constexpr std::array kSchemes{&kCompressedTensors, &kPlain};
  return {kFormats, kSchemes, diagnose};
}

}  // namespace wtool
