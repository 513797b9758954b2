#pragma once
#include <array>
#include <cstdint>

#include "lib/base/bytes.h"

namespace wtool {

// Running XXH64 with seed 0, the checksum of zstd's frames and tables (xxhash_spec.md, section
// "XXH64 algorithm description"). zstd's library keeps its own to itself.
class XxHash64 {
 public:
  void update(Bytes bytes) noexcept;
  std::uint64_t digest() const noexcept;
  // What zstd stores of it.
  std::uint32_t low() const noexcept { return static_cast<std::uint32_t>(digest()); }

 private:
  std::array<std::uint64_t, 4> lanes_ = {kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
  std::array<std::byte, 32> kept_ = {};  // what is no whole stripe yet
  std::uint64_t total_ = 0;

  static constexpr std::uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F,
                                 kPrime3 = 0x165667B19E3779F9, kPrime4 = 0x85EBCA77C2B2AE63,
                                 kPrime5 = 0x27D4EB2F165667C5;
  static std::uint64_t round(std::uint64_t lane, std::uint64_t input) noexcept;
  static void stripes(std::array<std::uint64_t, 4>& lanes, const std::byte* p,
                      std::size_t n) noexcept;
};

inline std::uint32_t checksum_of(Bytes bytes) noexcept {
  XxHash64 c;
  c.update(bytes);
  return c.low();
}

}  // namespace wtool
