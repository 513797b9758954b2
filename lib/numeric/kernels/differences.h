#pragma once
#include <cstddef>
#include <cstdint>

// The loops of compression against a base; as those of planes.h.
namespace wtool {

// Differences of floats of 2 or 4 bytes to a base, by their bits: as integers of the same
// order, modulo 2^16 or 2^32, with the sign in the lowest bit, so that small changes are small
// numbers z. The upper 16 bits of z (all there are of two-byte floats) become a byte of `small`; if
// they are 255 or more, that is 255, and their halves go to two lists, which have room for n.
// Returns how many were written there.
inline constexpr unsigned kFarAway = 255;
std::size_t split_delta16(const std::byte* in, const std::byte* base, std::size_t n,
                          std::byte* small, std::byte* far_low, std::byte* far_high) noexcept;
// Of four-byte floats bits 7 … 0 and 15 … 8 of z are two planes more.
std::size_t split_delta32(const std::byte* in, const std::byte* base, std::size_t n, std::byte* low,
                          std::byte* middle, std::byte* small, std::byte* far_low,
                          std::byte* far_high) noexcept;
// The reverse. Returns how many were wanted of the lists, which have `count`: as for join_bf16().
std::size_t join_delta16(const std::byte* small, const std::byte* far_low,
                         const std::byte* far_high, std::size_t count, const std::byte* base,
                         std::size_t n, std::byte* out) noexcept;
std::size_t join_delta32(const std::byte* low, const std::byte* middle, const std::byte* small,
                         const std::byte* far_low, const std::byte* far_high, std::size_t count,
                         const std::byte* base, std::size_t n, std::byte* out) noexcept;

}  // namespace wtool
