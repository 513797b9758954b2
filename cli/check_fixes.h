#pragma once
#include <string_view>

#include "lib/base/diagnostics.h"

namespace wtool {

// What to do about a breach of a rule, where the finding itself does not know better. Never empty.
std::string_view fix_of(const Rule& rule) noexcept;

}  // namespace wtool
