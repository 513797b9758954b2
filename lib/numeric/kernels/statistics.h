#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>

// The loops under statistics.h. Every instruction set gives the scalar reference's numbers.
namespace wtool {

// Floats as integers of the same order, -0 before +0; NaN and infinities at both ends.
constexpr std::int32_t order_of(std::uint32_t bits) noexcept {
  return static_cast<std::int32_t>((bits >> 31) != 0 ? bits ^ 0x7FFFFFFF : bits);
}
constexpr std::uint32_t bits_of_order(std::int32_t order) noexcept {
  const auto bits = static_cast<std::uint32_t>(order);
  return order < 0 ? bits ^ 0x7FFFFFFF : bits;
}

// Sums over elements in an order that no instruction set changes: element i of a call goes to
// stripe i mod 16; whoever reads them adds the stripes up one after another.
struct alignas(64) MomentLanes {
  static constexpr std::size_t kStripes = 16;
  double sum[kStripes] = {}, sum2[kStripes] = {};  // of x - pivot, and of its square
  std::int32_t lowest = std::numeric_limits<std::int32_t>::max();  // order_of()
  std::int32_t highest = std::numeric_limits<std::int32_t>::min();
  std::uint32_t any_bits = 0;      // all patterns, or-ed
  std::uint64_t zeros = 0;         // of either sign
  std::uint64_t below_normal = 0;  // magnitudes, as bits, below `normal`; zeros too
};
// False, and nothing added, if a value is not finite. n < 2^31.
bool add_moments(const float* x, std::size_t n, double pivot, std::uint32_t normal,
                 MomentLanes& lanes) noexcept;

// Magnitudes, as bits, below `small`, and from `large` up to the largest finite one. n < 2^31.
struct Reach {
  std::uint32_t small, large;
  std::uint64_t below = 0, beyond = 0;
};
void add_reach(const float* x, std::size_t n, Reach& reach) noexcept;

// 65,536 counters, of 16-bit patterns or of the upper halves of floats.
inline constexpr std::size_t kCounters = 65536;
void count_halves(const std::byte* in, std::size_t n, std::uint32_t* counters) noexcept;
void count_upper_halves(const float* x, std::size_t n, std::uint32_t* counters) noexcept;

}  // namespace wtool
