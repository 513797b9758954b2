#include "lib/pack/xxhash64.h"

#include <algorithm>
#include <bit>

namespace wtool {
namespace {

constexpr std::size_t kStripe = 32;

std::uint64_t word(const std::byte* p) noexcept {
  std::uint64_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

}  // namespace

inline std::uint64_t XxHash64::round(std::uint64_t lane, std::uint64_t input) noexcept {
  return std::rotl(lane + input * kPrime2, 31) * kPrime1;
}

// `n` whole stripes.
void XxHash64::stripes(std::array<std::uint64_t, 4>& lanes, const std::byte* p,
                       std::size_t n) noexcept {
  std::uint64_t v0 = lanes[0], v1 = lanes[1], v2 = lanes[2], v3 = lanes[3];
  for (; n > 0; --n, p += kStripe) {
    v0 = round(v0, word(p));
    v1 = round(v1, word(p + 8));
    v2 = round(v2, word(p + 16));
    v3 = round(v3, word(p + 24));
  }
  lanes = {v0, v1, v2, v3};
}

void XxHash64::update(Bytes bytes) noexcept {
  const std::size_t held = total_ % kStripe;
  total_ += bytes.size();
  if (held > 0) {
    const std::size_t n = std::min(kStripe - held, bytes.size());
    std::ranges::copy(bytes.first(n), kept_.begin() + static_cast<std::ptrdiff_t>(held));
    bytes = bytes.subspan(n);
    if (held + n < kStripe) return;
    stripes(lanes_, kept_.data(), 1);
  }
  const std::size_t whole = bytes.size() / kStripe;
  stripes(lanes_, bytes.data(), whole);
  std::ranges::copy(bytes.subspan(whole * kStripe), kept_.begin());
}

std::uint64_t XxHash64::digest() const noexcept {
  std::uint64_t h = kPrime5;
  if (total_ >= kStripe) {
    h = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) +
        std::rotl(lanes_[3], 18);
    for (const std::uint64_t lane : lanes_) h = (h ^ round(0, lane)) * kPrime1 + kPrime4;
  }
  h += total_;
  const std::byte* p = kept_.data();
  std::size_t left = total_ % kStripe;
  for (; left >= 8; left -= 8, p += 8) h = std::rotl(h ^ round(0, word(p)), 27) * kPrime1 + kPrime4;
  if (left >= 4) {
    std::uint32_t v;
    std::memcpy(&v, p, sizeof v);
    h = std::rotl(h ^ (v * kPrime1), 23) * kPrime2 + kPrime3;
    left -= 4;
    p += 4;
  }
  for (; left > 0; --left, ++p)
    h = std::rotl(h ^ (static_cast<std::uint64_t>(*p) * kPrime5), 11) * kPrime1;
  h = (h ^ (h >> 33)) * kPrime2;
  h = (h ^ (h >> 29)) * kPrime3;
  return h ^ (h >> 32);
}

}  // namespace wtool
