#include "lib/trust/base64.h"

#include <algorithm>
#include <array>

namespace wtool {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::uint32_t kNone = 64;

constexpr auto kValues = [] {
  std::array<std::uint8_t, 256> values = {};
  values.fill(kNone);
  for (std::size_t i = 0; i < kDigits.size(); ++i)
    values[static_cast<unsigned char>(kDigits[i])] = static_cast<std::uint8_t>(i);
  return values;
}();

}  // namespace

std::string to_base64(Bytes bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - at);
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < 3; ++i)
      word = word << 8 | (i < n ? std::to_integer<std::uint32_t>(bytes[at + i]) : 0);
    for (std::size_t i = 0; i < 4; ++i) out += i <= n ? kDigits[word >> (18 - 6 * i) & 63] : '=';
  }
  return out;
}

std::optional<Buffer> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  Buffer out;
  out.reserve(text.size() / 4 * 3);
  for (std::size_t at = 0; at < text.size(); at += 4) {
    const std::size_t pad = at + 4 == text.size() ? padding : 0;
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      const std::uint32_t value =
          i < 4 - pad ? kValues[static_cast<unsigned char>(text[at + i])] : 0;
      if (value == kNone) return std::nullopt;
      word = word << 6 | value;
    }
    if (pad != 0 && (word & (pad == 2 ? 0xFFFFu : 0xFFu)) != 0) return std::nullopt;
    for (std::size_t i = 0; i < 3 - pad; ++i)
      out.push_back(static_cast<std::byte>(word >> (16 - 8 * i)));
  }
  return out;
}

}  // namespace wtool
