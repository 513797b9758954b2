#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "lib/base/bytes.h"

namespace wtool {

// Two digits a byte, lower case.
std::string to_hex(Bytes bytes);
std::string to_hex(std::string_view bytes);

// The value of a digit in either case; -1 if it is none.
constexpr int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// What to_hex() writes of so many bytes: upper case is not taken.
bool is_hex(std::string_view text, std::size_t bytes) noexcept;
// to_hex() undone; nothing for what it does not write.
std::optional<std::string> from_hex(std::string_view text);

}  // namespace wtool
