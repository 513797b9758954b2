#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "lib/base/bytes.h"

namespace wtool {

// RFC 4648, section 4: with padding, no line breaks. One text for each content: what another
// encoder would have written differently (stray bits in the last digit) is not taken.
std::string to_base64(Bytes bytes);
std::optional<Buffer> from_base64(std::string_view text);

}  // namespace wtool
