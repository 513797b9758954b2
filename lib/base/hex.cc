#include "lib/base/hex.h"

namespace wtool {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

}  // namespace

std::string to_hex(Bytes bytes) {
  std::string out;
  out.reserve(2 * bytes.size());
  for (const std::byte b : bytes) {
    out += kDigits[std::to_integer<unsigned>(b) >> 4];
    out += kDigits[std::to_integer<unsigned>(b) & 15];
  }
  return out;
}
std::string to_hex(std::string_view bytes) {
  return to_hex(as_bytes(bytes));
}

bool is_hex(std::string_view text, std::size_t bytes) noexcept {
  return text.size() == 2 * bytes && text.find_first_not_of(kDigits) == text.npos;
}

std::optional<std::string> from_hex(std::string_view text) {
  if (!is_hex(text, text.size() / 2)) return std::nullopt;
  std::string out(text.size() / 2, '\0');
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<char>(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
  return out;
}

}  // namespace wtool
