#pragma once
#include <cstddef>
#include <string_view>

#include "lib/base/text.h"

namespace wtool {

// For unordered containers whose keys come from files.
struct TextHash {
  std::size_t operator()(std::string_view s) const noexcept {
    return static_cast<std::size_t>(hash_text(s));
  }
};

}  // namespace wtool
