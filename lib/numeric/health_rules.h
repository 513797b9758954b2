#pragma once
#include "lib/base/diagnostics.h"

namespace wtool {

// Told of two tensors, by ValueCheck; the others by judge().
inline constexpr Rule kDuplicate{"values.duplicate", "no tensor is stored twice", true,
                                 Severity::Note};

}  // namespace wtool
