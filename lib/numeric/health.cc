#include "lib/numeric/health.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "lib/base/text.h"

namespace wtool {
namespace {

static_assert(std::is_trivially_copyable_v<Health>);

constexpr std::uint64_t ones(unsigned bytes) noexcept {
  return ~std::uint64_t{0} >> (64 - 8 * bytes);
}

// A plain type: its patterns, and the magnitudes that are no ordinary numbers. Where there are none
// (integers have all patterns), `special` is false.
struct Plain {
  Patterns patterns;
  bool special = false;
  std::uint64_t limit = 0;                 // magnitudes from here on are looked at one by one
  std::uint64_t infinity = Health::kNone;  // this one
  std::uint64_t nan = Health::kNone;       // from this one on
  bool zero = true;                        // has one
};

Plain ieee(std::uint8_t bytes, std::uint64_t normal, std::uint64_t infinity) noexcept {
  return {{bytes, ones(bytes) >> 1, normal}, true, infinity, infinity, infinity + 1};
}
// Of 8 bits, with a NaN and no infinity.
Plain finite(std::uint64_t magnitude, std::uint64_t normal, std::uint64_t nan) noexcept {
  return {{1, magnitude, normal, nan > magnitude}, true, nan, Health::kNone, nan};
}

Plain plain(DType type) noexcept {
  switch (type) {
    case DType::F16: {
      Plain p = ieee(2, 0x0400, 0x7C00);
      p.limit = 0x7800;  // 2^15: the double of it and of all above is beyond 65504
      return p;
    }
    case DType::BF16: return ieee(2, 0x0080, 0x7F80);
    case DType::F32:
    case DType::C64: return ieee(4, 0x0080'0000, 0x7F80'0000);
    case DType::F64:
    case DType::C128: return ieee(8, std::uint64_t{1} << 52, std::uint64_t{0x7FF} << 52);
    case DType::F8_E5M2: return ieee(1, 4, 0x7C);
    case DType::F8_E4M3: return finite(0x7F, 8, 0x7F);
    case DType::F8_E4M3FNUZ: return finite(0x7F, 8, 0xFF);
    case DType::F8_E5M2FNUZ: return finite(0x7F, 4, 0xFF);
    case DType::F8_E8M0: {
      Plain p = finite(0xFF, 1, 0xFF);
      p.zero = false;
      return p;
    }
    case DType::Bool: return {{1, 0xFF}, true, 2};
    case DType::F4: return {{1, 0x77}};  // a byte is ±0 twice
    default: {
      const auto bytes = static_cast<std::uint8_t>(info(type).block_bytes);
      return {{bytes, ones(bytes)}};
    }
  }
}

std::uint64_t pattern_at(Bytes bytes, std::uint64_t item, std::size_t width) noexcept {
  std::uint64_t bits = 0;
  std::memcpy(&bits, bytes.subspan(item * width, width).data(), width);
  return bits;
}

void add(Health::Some& to, std::uint64_t item, std::uint64_t bits) noexcept {
  if (to.count++ == 0) to.first = {item, bits};
}

// What the fast loop only saw the largest of.
void look_closer(DType type, const Plain& how, Bytes bytes, std::uint64_t first, Health& out) {
  const std::size_t width = how.patterns.bytes;
  for (std::size_t i = 0; i < bytes.size() / width; ++i) {
    const std::uint64_t bits = pattern_at(bytes, i, width);
    std::uint64_t a = bits & how.patterns.magnitude;
    if (how.patterns.nan_for_minus_zero && bits == 0x80) a = 0xFF;
    if (a >= how.nan) {
      add(out.nan, first + i, bits);
    } else if (a == how.infinity) {
      add(out.infinite, first + i, bits);
    } else {
      out.largest = std::max(out.largest, a);
      if (a >= how.limit)
        add(type == DType::Bool ? out.not_bool : out.near_overflow, first + i, bits);
    }
  }
}

void look_at_plain(DType type, Bytes bytes, std::uint64_t first, Health& out) {
  constexpr std::size_t kPiece = std::size_t{1} << 14;  // bytes that are looked at again
  const Plain how = plain(type);
  PatternCounts counts;
  out.items = bytes.size() / how.patterns.bytes;
  out.pattern = pattern_at(bytes, 0, how.patterns.bytes);
  for (std::size_t at = 0; at < bytes.size(); at += kPiece) {
    const Bytes piece = bytes.subspan(at, std::min(kPiece, bytes.size() - at));
    counts.largest = 0;
    count_patterns(piece.data(), piece.size() / how.patterns.bytes, how.patterns, out.pattern,
                   counts);
    if (how.special && counts.largest >= how.limit)
      look_closer(type, how, piece, first + at / how.patterns.bytes, out);
    else
      out.largest = std::max(out.largest, counts.largest);
  }
  out.constant = counts.differing == 0;
  out.zeros = how.zero ? counts.zeros : 0;
  if (how.patterns.normal > 1) out.subnormals = counts.below_normal - counts.zeros;
}

// Four elements of f6 in three bytes, their signs at bits 5, 11, 17 and 23.
std::uint64_t zeros_of_f6(Bytes bytes) noexcept {
  std::uint64_t zeros = 0;
  for (std::size_t i = 0; i + 3 <= bytes.size(); i += 3)
    zeros += (pattern_at(bytes, i / 3, 3) & 0x7DF7DF) == 0;
  return zeros;
}

void look_at_blocks(DType type, Bytes bytes, std::uint64_t first, Health& out) {
  const std::size_t size = info(type).block_bytes;
  out.items = bytes.size() / size;
  out.constant = std::memcmp(bytes.data(), bytes.data() + size, bytes.size() - size) == 0;
  out.pattern = hash_text(as_text(bytes.first(size)));
  const BlockScales* how = find_block_scales(type);
  if (how == nullptr) {
    out.zeros = zeros_of_f6(bytes);
    return;
  }
  count_scales(bytes.data(), static_cast<std::size_t>(out.items), *how, out.scales);
  out.zeros = out.scales.zeros;
  for (ScaleCounts::First* f : {&out.scales.first_bad, &out.scales.first_large})
    if (f->block != ScaleCounts::kNone) f->block += first;
}

}  // namespace

Health health_of(DType type, Bytes bytes, std::uint64_t first) {
  Health out;
  if (bytes.empty()) return out;
  const Kind kind = info(type).kind;
  if (kind == Kind::Block || type == DType::F6_E2M3 || type == DType::F6_E3M2)
    look_at_blocks(type, bytes, first, out);
  else
    look_at_plain(type, bytes, first, out);
  constexpr std::size_t kSample = 256;
  out.sample = hash_text(as_text(bytes.first(std::min(kSample, bytes.size()))));
  return out;
}

void Health::append(const Health& next) {
  if (next.items == 0) return;
  if (items == 0) {
    *this = next;
    return;
  }
  const auto add_some = [](Some& to, const Some& more) {
    if (to.count == 0) to.first = more.first;
    to.count += more.count;
  };
  const auto add_first = [](ScaleCounts::First& to, const ScaleCounts::First& more) {
    if (to.block == ScaleCounts::kNone) to = more;
  };
  constant = constant && next.constant && pattern == next.pattern;
  items += next.items;
  zeros += next.zeros;
  subnormals += next.subnormals;
  add_some(nan, next.nan);
  add_some(infinite, next.infinite);
  add_some(near_overflow, next.near_overflow);
  add_some(not_bool, next.not_bool);
  largest = std::max(largest, next.largest);
  scales.not_finite += next.scales.not_finite;
  scales.too_large += next.scales.too_large;
  scales.zeros += next.scales.zeros;
  add_first(scales.first_bad, next.scales.first_bad);
  add_first(scales.first_large, next.scales.first_large);
  sample = sample * 0x9E3779B97F4A7C15 ^ next.sample;
}

}  // namespace wtool
