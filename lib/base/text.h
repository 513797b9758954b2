#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wtool {

// True if `s` is well-formed UTF-8 (no overlong forms, no surrogates, at most U+10FFFF); if not and
// `bad` is given, *bad is the position of the first byte that is not.
bool is_utf8(std::string_view s, std::size_t* bad = nullptr) noexcept;

// For people: control characters, bidirectional controls and bytes that are not UTF-8 become
// visible escapes (\n, \x1b, \u202e), so that a name from a file cannot drive the terminal.
std::string printable(std::string_view s);
// The same in single quotes, cut to `most` characters with "…" in the middle.
std::string quoted(std::string_view s, std::size_t most = 200);
// Not std::quoted, which argument-dependent lookup finds too.
inline std::string quoted(const std::string& s) {
  return quoted(std::string_view(s));
}
inline std::string quoted(const char* s) {
  return quoted(std::string_view(s));
}
inline std::string quoted(std::string& s) {
  return quoted(std::string_view(s));
}

std::string human_bytes(std::uint64_t bytes);  // "13.49 GiB", "416.0 MiB", "512 B"
std::string human_count(std::uint64_t n);      // "7.24 B", "13.1 M", "512"

// "5GB" is decimal, "5GiB" binary, a bare number bytes; nullopt if it is none of these or too big.
std::optional<std::uint64_t> parse_size(std::string_view text);
std::optional<std::uint64_t> parse_u64(std::string_view text) noexcept;  // digits only

// Orders runs of digits by value: layer 2 before layer 10. A strict weak order.
bool natural_less(std::string_view a, std::string_view b) noexcept;

// The candidate nearest to `word` if it is near enough to be a slip of the finger, else empty.
std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

std::string lower(std::string_view s);  // ASCII only

// A 64-bit hash with a seed drawn once per process: hostile names cannot be made to collide.
std::uint64_t hash_text(std::string_view s) noexcept;

// "model.layers.7.mlp" and "model.layers.8.mlp" are one line of a list: digits become '*'.
std::string folded(std::string_view name);

}  // namespace wtool
