#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace wtool {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;
using Buffer = std::vector<std::byte>;

static_assert(std::endian::native == std::endian::little, "load() and store() need a byte swap");

constexpr std::optional<std::uint64_t> checked_mul(std::uint64_t a, std::uint64_t b) noexcept {
  if (a != 0 && b > std::numeric_limits<std::uint64_t>::max() / a) return std::nullopt;
  return a * b;
}
constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) noexcept {
  if (b > std::numeric_limits<std::uint64_t>::max() - a) return std::nullopt;
  return a + b;
}
constexpr std::uint64_t ceil_div(std::uint64_t n, std::uint64_t by) noexcept {
  return n / by + (n % by != 0);
}
// The caller has bounded `n`: the result must fit.
constexpr std::uint64_t align_up(std::uint64_t n, std::uint64_t to) noexcept {
  return ceil_div(n, to) * to;
}

inline std::string_view as_text(Bytes b) noexcept {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}
inline Bytes as_bytes(std::string_view s) noexcept {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}
inline Buffer to_buffer(std::string_view s) {
  const Bytes b = as_bytes(s);
  return {b.begin(), b.end()};
}

// Plain values to and from bytes, at item `i` of an array that need not be aligned.
template <class T>
T load(Bytes from, std::size_t i = 0) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, from.subspan(i * sizeof value, sizeof value).data(), sizeof value);
  return value;
}
template <class T>
void store(MutableBytes to, const T& value, std::size_t i = 0) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  std::memcpy(to.subspan(i * sizeof value, sizeof value).data(), &value, sizeof value);
}
inline void append(Buffer& to, Bytes bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}
template <class T>
void append(Buffer& to, const T& value) requires std::is_arithmetic_v<T> {
  append(to, std::as_bytes(std::span(&value, 1)));
}

// Reverses the bytes of an arithmetic value.
template <class T>
T byte_swapped(T value) noexcept requires std::is_arithmetic_v<T> {
  std::byte b[sizeof(T)];
  std::memcpy(b, &value, sizeof(T));
  for (std::size_t i = 0; i < sizeof(T) / 2; ++i) {
    const std::byte x = b[i];
    b[i] = b[sizeof(T) - 1 - i];
    b[sizeof(T) - 1 - i] = x;
  }
  std::memcpy(&value, b, sizeof(T));
  return value;
}

}  // namespace wtool
