#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace wtool {

// One step through text that may not be UTF-8. A faulty sequence gives U+FFFD for its longest
// beginning that could have become a character (Unicode 15, section 3.9, "maximal subparts").
struct CodePoint {
  std::uint32_t value = 0xFFFD;
  std::size_t length = 1;
  bool valid = false;
};

// `s` is not empty.
constexpr CodePoint next_code_point(std::string_view s) noexcept {
  const auto byte = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(s[i]));
  };
  const std::uint32_t a = byte(0);
  if (a < 0x80) return {a, 1, true};
  if (a < 0xC2 || a > 0xF4) return {};
  const std::size_t length = a < 0xE0 ? 2 : a < 0xF0 ? 3 : 4;
  // The second byte's range shuts out overlong forms, surrogates and what lies past U+10FFFF.
  std::uint32_t low = 0x80, high = 0xBF;
  if (a == 0xE0) low = 0xA0;
  if (a == 0xED) high = 0x9F;
  if (a == 0xF0) low = 0x90;
  if (a == 0xF4) high = 0x8F;
  std::uint32_t value = a & (0xFFu >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if (i >= s.size() || byte(i) < low || byte(i) > high) return {0xFFFD, i, false};
    value = value << 6 | (byte(i) & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {value, length, true};
}

}  // namespace wtool
