#pragma once
// One member of a JSON object set or removed in its text, so that all else stays as it was typed:
// 1e-05, 1.50, numbers beyond 64 bits, escapes, and which lists stand on one line.
#include <string>
#include <string_view>

namespace wtool {

// Both take the text of a valid JSON object. Where a key is there twice, the last one counts, as
// for parsers. A new member is the last one, laid out as its neighbours are.
std::string with_member(std::string_view object, std::string_view key, std::string_view json_value);
std::string without_member(std::string_view object, std::string_view key);

}  // namespace wtool
