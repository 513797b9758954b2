#pragma once
#include <cstddef>
#include <cstdint>

// The loops of lossless compression: they take weights apart into planes of bytes that are alike,
// and put them together again. Every instruction set gives the scalar reference's bytes; none
// allocates, throws or looks beyond the sizes given. Pointers need no alignment; in- and output do
// not overlap.
namespace wtool {

// ---- Exponents apart. A float is its sign, eight bits of exponent and a mantissa. Exponents go to
// nibbles: `top` less the exponent if that is 0 … 11, else kEscape, and the exponent itself to a
// list. Two nibbles make a byte of `pairs` (ceil(n / 2) bytes), the first one in the low half;
// after an odd number the last high half is 0. sign_mantissa: n bytes, the sign in bit 7 and the
// seven upper bits of the mantissa.
inline constexpr unsigned kEscape = 12;

// Returns how many were written to `escapes`, which has room for n.
std::size_t split_bf16(const std::byte* in, std::size_t n, std::uint8_t top, std::byte* pairs,
                       std::byte* sign_mantissa, std::byte* escapes) noexcept;
// f32 has two planes more: bits 15 … 8 and 7 … 0 of the mantissa.
std::size_t split_f32(const std::byte* in, std::size_t n, std::uint8_t top, std::byte* pairs,
                      std::byte* sign_mantissa, std::byte* middle, std::byte* low,
                      std::byte* escapes) noexcept;

// The reverse. Returns how many escapes it wanted: if that is not `count`, the planes are no such
// planes and `out` is not to be used. Nibbles above kEscape count as any others.
std::size_t join_bf16(const std::byte* pairs, const std::byte* sign_mantissa,
                      const std::byte* escapes, std::size_t count, std::size_t n, std::uint8_t top,
                      std::byte* out) noexcept;
std::size_t join_f32(const std::byte* pairs, const std::byte* sign_mantissa,
                     const std::byte* middle, const std::byte* low, const std::byte* escapes,
                     std::size_t count, std::size_t n, std::uint8_t top, std::byte* out) noexcept;

// Adds each exponent of every `step`-th element of `width` 2 (bf16) or 4 (f32) bytes to its
// counter.
void count_exponents(const std::byte* in, std::size_t n, std::size_t width, std::size_t step,
                     std::uint32_t (&counters)[256]) noexcept;

// ---- Columns of bytes: in blocks of `block` bytes, those at [offset, offset + length).
void gather_column(const std::byte* in, std::size_t blocks, std::size_t block, std::size_t offset,
                   std::size_t length, std::byte* out, std::size_t out_stride) noexcept;
void scatter_column(const std::byte* in, std::size_t in_stride, std::size_t blocks,
                    std::size_t block, std::size_t offset, std::size_t length,
                    std::byte* out) noexcept;
// Elements of two or four bytes as planes, the lowest byte first, and the reverse.
void split_bytes2(const std::byte* in, std::size_t n, std::byte* const* planes) noexcept;
void split_bytes4(const std::byte* in, std::size_t n, std::byte* const* planes) noexcept;
void join_bytes2(const std::byte* const* planes, std::size_t n, std::byte* out) noexcept;
void join_bytes4(const std::byte* const* planes, std::size_t n, std::byte* out) noexcept;

// True if all bytes are the first one. n > 0.
bool all_equal(const std::byte* in, std::size_t n) noexcept;

}  // namespace wtool
