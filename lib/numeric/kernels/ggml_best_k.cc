// Better blocks of the types with small integers for the scales of their groups: those integers,
// the scale of the whole block and the codes are chosen together, so that what one rounds off the
// others make good. The numbers of trials are where more of them stop paying: twice as many lower
// the error of normal weights by another 0.1 %.
#include "lib/numeric/kernels/ggml_best_block.h"

namespace wtool {
namespace best {
namespace {

// ---- the types

// Multiples of what would just reach the greatest magnitude: the scales worth a trial.
struct Span {
  float from, to;
};

struct KBlock {
  static constexpr std::size_t kElements = 256;
  static float scale_of(const Block& block, std::size_t group) {
    return f16_value(block.d) * static_cast<float>(block.scale[group]);
  }
};

// Four codes of two bits a byte, or two of four, over runs of 128 or 64 elements.
template <unsigned kBits>
unsigned packed_at(const std::byte* codes, unsigned i) {
  constexpr unsigned kPer = 8 / kBits, kRun = 32 * kPer;
  return static_cast<unsigned>(codes[i / kRun * 32 + i % 32]) >> (i % kRun / 32 * kBits) &
         ((1u << kBits) - 1);
}
template <unsigned kBits>
void pack_at(std::byte* codes, unsigned i, unsigned code) {
  constexpr unsigned kPer = 8 / kBits, kRun = 32 * kPer;
  codes[i / kRun * 32 + i % 32] |=
      static_cast<std::byte>((code & ((1u << kBits) - 1)) << (i % kRun / 32 * kBits));
}

struct Q2K : KBlock {
  static constexpr bool kOffsets = true;
  static constexpr std::size_t kGroup = 16, kBytes = 84;
  static constexpr int kTop = 3, kZero = 0, kScales = 15, kScaleTries = 5, kMinTries = 4;
  static constexpr Levels kLevels{Levels::Kind::Integers, 0, kTop};
  static void unpack(const std::byte* in, Block& block) {
    for (unsigned g = 0; g < 16; ++g) {
      block.scale[g] = static_cast<std::int16_t>(in[g] & std::byte{15});
      block.min[g] = static_cast<std::int16_t>(in[g] >> 4);
    }
    for (unsigned i = 0; i < 256; ++i)
      block.code[i] = static_cast<std::uint8_t>(packed_at<2>(in + 16, i));
    block.d = u16_at(in + 80);
    block.m = u16_at(in + 82);
  }
  static void pack(const Block& block, std::byte* out) {
    std::memset(out, 0, kBytes);
    for (unsigned g = 0; g < 16; ++g)
      out[g] = static_cast<std::byte>(block.scale[g] | block.min[g] << 4);
    for (unsigned i = 0; i < 256; ++i) pack_at<2>(out + 16, i, block.code[i]);
    put_u16(out + 80, block.d);
    put_u16(out + 82, block.m);
  }
};

template <bool kFifth>
struct Q45K : KBlock {
  static constexpr bool kOffsets = true;
  static constexpr std::size_t kGroup = 32, kBytes = kFifth ? 176 : 144,
                               kCodesAt = kFifth ? 48 : 16;
  static constexpr int kTop = kFifth ? 31 : 15, kZero = 0, kScales = 63;
  static constexpr int kScaleTries = kFifth ? 8 : 6, kMinTries = kFifth ? 5 : 4;
  static constexpr Levels kLevels{Levels::Kind::Integers, 0, kTop};
  static void unpack(const std::byte* in, Block& block) {
    block.d = u16_at(in);
    block.m = u16_at(in + 2);
    const auto at = [&](unsigned i) { return static_cast<unsigned>(in[4 + i]); };
    for (unsigned g = 0; g < 4; ++g) {
      block.scale[g] = static_cast<std::int16_t>(at(g) & 63);
      block.min[g] = static_cast<std::int16_t>(at(g + 4) & 63);
      block.scale[g + 4] = static_cast<std::int16_t>((at(g + 8) & 15) | at(g) >> 6 << 4);
      block.min[g + 4] = static_cast<std::int16_t>(at(g + 8) >> 4 | at(g + 4) >> 6 << 4);
    }
    for (unsigned i = 0; i < 256; ++i) {
      unsigned code = packed_at<4>(in + kCodesAt, i);
      if constexpr (kFifth) code |= (static_cast<unsigned>(in[16 + i % 32]) >> i / 32 & 1) << 4;
      block.code[i] = static_cast<std::uint8_t>(code);
    }
  }
  static void pack(const Block& block, std::byte* out) {
    std::memset(out, 0, kBytes);
    put_u16(out, block.d);
    put_u16(out + 2, block.m);
    for (unsigned g = 0; g < 4; ++g) {
      const int low = block.scale[g], min = block.min[g];
      const int high = block.scale[g + 4], high_min = block.min[g + 4];
      out[4 + g] = static_cast<std::byte>(low | high >> 4 << 6);
      out[8 + g] = static_cast<std::byte>(min | high_min >> 4 << 6);
      out[12 + g] = static_cast<std::byte>((high & 15) | (high_min & 15) << 4);
    }
    for (unsigned i = 0; i < 256; ++i) {
      pack_at<4>(out + kCodesAt, i, block.code[i]);
      if constexpr (kFifth)
        out[16 + i % 32] |= static_cast<std::byte>(block.code[i] >> 4 << i / 32);
    }
  }
};
using Q4K = Q45K<false>;
using Q5K = Q45K<true>;

struct Q3K : KBlock {
  static constexpr bool kOffsets = false;
  static constexpr std::size_t kGroup = 16, kBytes = 110;
  static constexpr int kZero = 4, kLeast = -32, kGreatest = 31, kTries = 12;
  static constexpr Span kBlockSpan{0.8f, 1.4f}, kGroupSpan{0.6f, 1.6f}, kWeightedSpan{0.2f, 1.6f};
  static constexpr Levels kLevels{Levels::Kind::Integers, -4, 3};
  // The scales' codes: four bits in the low and high halves of 8 bytes, two in 4 bytes more.
  static void unpack(const std::byte* in, Block& block) {
    const std::byte* scales = in + 96;
    for (unsigned g = 0; g < 16; ++g) {
      const unsigned low = static_cast<unsigned>(scales[g % 8]) >> (g < 8 ? 0 : 4) & 15;
      const unsigned high = static_cast<unsigned>(scales[8 + g % 4]) >> (g / 4 * 2) & 3;
      block.scale[g] = static_cast<std::int16_t>(static_cast<int>(low | high << 4) - 32);
    }
    for (unsigned i = 0; i < 256; ++i)
      block.code[i] = static_cast<std::uint8_t>(
          packed_at<2>(in + 32, i) | (static_cast<unsigned>(in[i % 32]) >> i / 32 & 1) << 2);
    block.d = u16_at(in + 108);
  }
  static void pack(const Block& block, std::byte* out) {
    std::memset(out, 0, kBytes);
    std::byte* scales = out + 96;
    for (unsigned g = 0; g < 16; ++g) {
      const unsigned code = static_cast<unsigned>(block.scale[g] + 32);
      scales[g % 8] |= static_cast<std::byte>((code & 15) << (g < 8 ? 0 : 4));
      scales[8 + g % 4] |= static_cast<std::byte>(code >> 4 << (g / 4 * 2));
    }
    for (unsigned i = 0; i < 256; ++i) {
      pack_at<2>(out + 32, i, block.code[i]);
      out[i % 32] |= static_cast<std::byte>(block.code[i] >> 2 << i / 32);
    }
    put_u16(out + 108, block.d);
  }
};

struct Q6K : KBlock {
  static constexpr bool kOffsets = false;
  static constexpr std::size_t kGroup = 16, kBytes = 210;
  static constexpr int kZero = 32, kLeast = -128, kGreatest = 127, kTries = 24;
  static constexpr Span kBlockSpan{0.9f, 1.3f}, kGroupSpan{0.93f, 1.25f},
      kWeightedSpan{0.9f, 1.25f};
  static constexpr Levels kLevels{Levels::Kind::Integers, -32, 31};
  // Of each 128 elements, the low four bits are nibbles of 64 bytes, element i % 64 in byte i % 64.
  static unsigned low_byte(unsigned i) { return i / 128 * 64 + i % 64; }
  static unsigned low_shift(unsigned i) { return i % 128 / 64 * 4; }
  static void unpack(const std::byte* in, Block& block) {
    for (unsigned i = 0; i < 256; ++i)
      block.code[i] =
          static_cast<std::uint8_t>((static_cast<unsigned>(in[low_byte(i)]) >> low_shift(i) & 15) |
                                    packed_at<2>(in + 128, i) << 4);
    for (unsigned g = 0; g < 16; ++g) block.scale[g] = static_cast<std::int8_t>(in[192 + g]);
    block.d = u16_at(in + 208);
  }
  static void pack(const Block& block, std::byte* out) {
    std::memset(out, 0, kBytes);
    for (unsigned i = 0; i < 256; ++i) {
      out[low_byte(i)] |= static_cast<std::byte>((block.code[i] & 15) << low_shift(i));
      pack_at<2>(out + 128, i, block.code[i] >> 4);
    }
    for (unsigned g = 0; g < 16; ++g) out[192 + g] = static_cast<std::byte>(block.scale[g]);
    put_u16(out + 208, block.d);
  }
};

struct Iq4Xs : KBlock {
  static constexpr bool kOffsets = false;
  static constexpr std::size_t kGroup = 32, kBytes = 136;
  static constexpr int kZero = 0, kLeast = -32, kGreatest = 31, kTries = 12;
  static constexpr Span kBlockSpan{0.9f, 1.3f}, kGroupSpan{0.85f, 1.5f}, kWeightedSpan{0.4f, 1.5f};
  static constexpr Levels kLevels{Levels::Kind::Iq4, -127, 113};
  static void unpack(const std::byte* in, Block& block) {
    block.d = u16_at(in);
    const unsigned highs = u16_at(in + 2);
    for (unsigned g = 0; g < 8; ++g) {
      const unsigned low = static_cast<unsigned>(in[4 + g / 2]) >> g % 2 * 4 & 15;
      block.scale[g] =
          static_cast<std::int16_t>(static_cast<int>(low | (highs >> 2 * g & 3) << 4) - 32);
    }
    for (unsigned i = 0; i < 256; ++i)
      block.code[i] = static_cast<std::uint8_t>(
          static_cast<unsigned>(in[8 + i / 32 * 16 + i % 16]) >> i % 32 / 16 * 4 & 15);
  }
  static void pack(const Block& block, std::byte* out) {
    std::memset(out, 0, kBytes);
    put_u16(out, block.d);
    unsigned highs = 0;
    for (unsigned g = 0; g < 8; ++g) {
      const unsigned code = static_cast<unsigned>(block.scale[g] + 32);
      out[4 + g / 2] |= static_cast<std::byte>((code & 15) << g % 2 * 4);
      highs |= code >> 4 << 2 * g;
    }
    put_u16(out + 2, static_cast<std::uint16_t>(highs));
    for (unsigned i = 0; i < 256; ++i)
      out[8 + i / 32 * 16 + i % 16] |= static_cast<std::byte>(block.code[i] << i % 32 / 16 * 4);
  }
};

// ---- what both searches do

template <class Type>
constexpr std::size_t kGroups = Type::kElements / Type::kGroup;

Values group_of(const Values& v, std::size_t g, std::size_t size) {
  return {v.x + g * size, v.weight ? v.weight + g * size : nullptr, size};
}

// A block without its codes: they follow from the rest. The error is that of the scaled values.
struct Draft {
  std::uint16_t d = 0, m = 0;
  std::int16_t scale[16] = {}, min[16] = {};
  float error = std::numeric_limits<float>::infinity();
};

// The better drafts, the best first.
template <std::size_t kKept>
struct Shortlist {
  Draft draft[kKept];
  void offer(const Draft& one) {
    if (!(one.error < draft[kKept - 1].error)) return;
    std::size_t i = kKept - 1;
    for (; i > 0 && one.error < draft[i - 1].error; --i) draft[i] = draft[i - 1];
    draft[i] = one;
  }
};

// The levels of a whole draft.
template <class Type>
void levels_of(const Scaled& s, const Draft& draft, float* level) {
  const float d = Half(draft.d, s).value;
  [[maybe_unused]] const float m = Half(draft.m, s).value;
  for (std::size_t g = 0; g < kGroups<Type>; ++g) {
    const float inverse = inverse_of(d * static_cast<float>(draft.scale[g]));
    [[maybe_unused]] const float offset = m * static_cast<float>(draft.min[g]);
    for (std::size_t i = g * Type::kGroup; i < (g + 1) * Type::kGroup; ++i) {
      if constexpr (Type::kOffsets)
        level[i] = rounded(within((s.x[i] + offset) * inverse, 0, Type::kTop));
      else
        level[i] = nearest<Type>(s.x[i] * inverse);
    }
  }
}

template <class Type>
void write(const Scaled& s, const Draft& draft, Block& block) {
  float level[kMost];
  levels_of<Type>(s, draft, level);
  block.d = draft.d;
  block.m = draft.m;
  std::copy_n(draft.scale, 16, block.scale);
  std::copy_n(draft.min, 16, block.min);
  for (std::size_t i = 0; i < kMost; ++i) block.code[i] = code_of<Type>(level[i]);
}

// The scale (and minimum) of the whole block that suit the draft's codes and integers best. False
// if nothing changes.
template <class Type>
bool suit(const Scaled& s, Draft& draft) {
  float level[kMost];
  levels_of<Type>(s, draft, level);
  double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
  for (std::size_t g = 0; g < kGroups<Type>; ++g) {
    Sums sums;
    for (std::size_t i = g * Type::kGroup; i < (g + 1) * Type::kGroup; ++i)
      sums.add(weight_of(s.values, i), s.x[i], level[i]);
    const double scale = draft.scale[g], min = draft.min[g];
    aa += scale * scale * sums.qq;
    ab -= scale * min * sums.q;
    bb += min * min * sums.w;
    ax += scale * sums.xq;
    bx -= min * sums.x;
  }
  const double det = aa * bb - ab * ab;
  double d = aa > 0 ? ax / aa : 0, m = 0;
  if (Type::kOffsets && det > 1e-9 * aa * bb) {
    d = (ax * bb - bx * ab) / det;
    m = (bx * aa - ax * ab) / det;
  }
  const std::uint16_t was[2] = {draft.d, draft.m};
  draft.d = half_of(d, s).bits;
  if constexpr (Type::kOffsets) draft.m = half_of(m, s).bits;
  return draft.d != was[0] || draft.m != was[1];
}

// ---- scales and minima

// What each group would take if nothing were rounded.
struct Wishes {
  float scale[16], offset[16];
  bool bounded = false;  // would one have liked an offset of the other sign?
};

// Offsets of the sign, above 0 or below; an offset moves the values up to where codes begin.
template <class Type>
void wish_group(const Values& v, int sign, Wishes& out, std::size_t g) {
  constexpr std::size_t kInverses = 16, kOffsets = 8, kStarts = kInverses * kOffsets;
  alignas(64) float inverse[kStarts], offset[kStarts], gain[kStarts], scale[kStarts], best[kStarts];
  auto [lo, hi] = range_of(v);
  if (sign > 0 ? lo > 0 : lo < 0) {
    out.bounded = true;
    lo = 0;
  }
  out.scale[g] = 0;
  out.offset[g] = -lo;
  const float step = (hi - lo) / Type::kTop;
  if (!(step > 1e-30f)) return;  // its inverse could be infinite
  // Far from 0 the sums of squares would leave no digits for what differs; the sign is clear there.
  const float away = std::abs(lo) > hi - lo ? lo : 0;
  float x[Type::kGroup];
  for (std::size_t i = 0; i < Type::kGroup; ++i) x[i] = v.x[i] - away;
  for (std::size_t a = 0; a < kInverses; ++a) {
    for (std::size_t b = 0; b < kOffsets; ++b) {
      const float finer = 0.88f + 0.03f * static_cast<float>(a);
      const float higher = 0.2f * static_cast<float>(b) - 0.5f;
      inverse[a * kOffsets + b] = finer / step;
      offset[a * kOffsets + b] = away - lo - higher * step;
    }
  }
  fit_offsets(Type::kTop, away == 0 ? sign : 0, {x, v.weight, Type::kGroup}, inverse, offset,
              kStarts, {gain, scale, best});
  const int at = first_greatest(gain, kStarts, std::numeric_limits<float>::infinity()).at;
  if (at < 0) return;
  out.scale[g] = scale[at];
  out.offset[g] = best[at] - away;
}

// The integers of each group for the scale and minimum that the draft has: of those around the
// wish, five by six, which fills one run of trials.
template <class Type>
void choose(const Scaled& s, const Wishes& wishes, Draft& draft) {
  alignas(64) float scale[kTrials], offset[kTrials], error[kTrials];
  const float d = Half(draft.d, s).value, m = Half(draft.m, s).value;
  const float per_d = inverse_of(d), per_m = inverse_of(m);
  const auto around = [](float wanted) {
    return static_cast<int>(rounded(within(wanted, 0, Type::kScales)));
  };
  draft.error = 0;
  for (std::size_t g = 0; g < kGroups<Type>; ++g) {
    const int s0 = std::max(0, around(wishes.scale[g] * per_d) - 2);
    const int m0 = std::max(0, around(wishes.offset[g] * per_m) - 3);
    const int scales = std::min(Type::kScales - s0 + 1, 5);
    const int mins = std::min(Type::kScales - m0 + 1, 6);
    for (std::size_t t = 0; t < kTrials; ++t) {
      const int trial = std::min(static_cast<int>(t), scales * mins - 1);
      const int row = trial / mins, column = trial % mins;
      scale[t] = d * static_cast<float>(s0 + row);
      offset[t] = m * static_cast<float>(m0 + column);
    }
    offset_errors(Type::kTop, group_of(s.values, g, Type::kGroup), scale, offset, kTrials, error);
    const int at = static_cast<int>(first_least(error, kTrials));
    draft.scale[g] = static_cast<std::int16_t>(s0 + at / mins);
    draft.min[g] = static_cast<std::int16_t>(m0 + at % mins);
    draft.error += error[at];
  }
}

template <class Type, class Choose>
void polish(const Scaled& s, Draft draft, Draft& best, Choose again) {
  for (int round = 0; round < 6; ++round) {
    const float before = draft.error;
    if (!suit<Type>(s, draft)) return;
    again(draft);
    if (draft.error < best.error) best = draft;
    if (!(draft.error < before)) return;
  }
}

// The best of the drafts that differ in the scale and minimum of the whole block.
template <class Type>
void search_sign(const Scaled& s, const Wishes& wishes, int sign, Draft& best) {
  const auto again = [&](Draft& draft) { choose<Type>(s, wishes, draft); };
  double scale = 0, offset = 0;
  for (std::size_t g = 0; g < kGroups<Type>; ++g) {
    scale = std::max(scale, static_cast<double>(wishes.scale[g]));
    offset = std::max(offset, sign * static_cast<double>(wishes.offset[g]));
  }
  Shortlist<3> shortlist;
  for (int a = 0; a < Type::kScaleTries; ++a) {
    for (int b = 0; b < Type::kMinTries; ++b) {
      Draft draft;
      const double top = Type::kScales * (1.01 - 0.15 * a / Type::kScaleTries);
      const double top_min = Type::kScales * (1.01 - 0.14 * b / Type::kMinTries);
      draft.d = half_of(scale / top, s).bits;
      draft.m = half_of(sign * offset / top_min, s).bits;
      again(draft);
      shortlist.offer(draft);
    }
  }
  // What holds a few round multiples of one value may be stored exactly.
  Draft plain;
  plain.d = half_of(static_cast<double>(s.most), s).bits;
  plain.m = half_of(sign * static_cast<double>(s.most), s).bits;
  again(plain);
  shortlist.offer(plain);
  if (shortlist.draft[0].error < best.error) best = shortlist.draft[0];
  for (const Draft& draft : shortlist.draft) polish<Type>(s, draft, best, again);
}

template <class Type>
void search_offsets(const Scaled& s, Block& block) {
  Draft best;
  for (const int sign : {1, -1}) {
    Wishes wishes;
    for (std::size_t g = 0; g < kGroups<Type>; ++g)
      wish_group<Type>(group_of(s.values, g, Type::kGroup), sign, wishes, g);
    search_sign<Type>(s, wishes, sign, best);
    // Minima below 0, so that the smallest value is above: only where there are such groups.
    if (!wishes.bounded) break;
  }
  if (best.error < std::numeric_limits<float>::infinity()) write<Type>(s, best, block);
}

// ---- scales of either sign

template <class Type>
void choose_signed(const Scaled& s, const float* most, Draft& draft) {
  constexpr int kLimit = 32;
  alignas(64) float scale[2 * kLimit], error[2 * kLimit];
  const Span span = s.values.weight ? Type::kWeightedSpan : Type::kGroupSpan;
  const float d = Half(draft.d, s).value;
  const float per_d = inverse_of(d * -Type::kLevels.lo);
  draft.error = 0;
  for (std::size_t g = 0; g < kGroups<Type>; ++g) {
    const float reach = most[g] * per_d;
    const int first = static_cast<int>(within(reach * span.from, 0, -Type::kLeast - 1));
    const int last = static_cast<int>(within(reach * span.to + 1, 0, -Type::kLeast));
    std::int16_t integer[2 * kLimit];
    std::size_t trials = 0;
    for (int k = first; k <= last && k < first + kLimit; ++k) {
      if (k <= Type::kGreatest) integer[trials++] = static_cast<std::int16_t>(k);
      integer[trials++] = static_cast<std::int16_t>(-k);
    }
    for (std::size_t t = 0; t < whole_trials(trials); ++t)
      scale[t] = d * static_cast<float>(integer[t < trials ? t : 0]);
    scale_errors(Type::kLevels, group_of(s.values, g, Type::kGroup), scale, trials, error);
    const std::size_t at = first_least(error, trials);
    draft.scale[g] = integer[at];
    draft.error += error[at];
  }
}

template <class Type>
void search_signed(const Scaled& s, Block& block) {
  float most[16] = {};
  for (std::size_t g = 0; g < kGroups<Type>; ++g) {
    const Range range = range_of(group_of(s.values, g, Type::kGroup));
    most[g] = std::max(-range.lo, range.hi);
  }
  const auto again = [&](Draft& draft) { choose_signed<Type>(s, most, draft); };
  const double reach = static_cast<double>(s.most / (Type::kLevels.lo * Type::kLeast));
  const double from = static_cast<double>(Type::kBlockSpan.from),
               to = static_cast<double>(Type::kBlockSpan.to);
  Shortlist<3> shortlist;
  for (int t = 0; t <= Type::kTries; ++t) {
    Draft draft;
    draft.d = half_of(reach * (from + (to - from) * t / Type::kTries), s).bits;
    // The last: what holds one value of both signs and zeros may be stored exactly.
    if (t == Type::kTries) draft.d = half_of(static_cast<double>(s.most), s).bits;
    again(draft);
    shortlist.offer(draft);
  }
  Draft best = shortlist.draft[0];
  for (const Draft& draft : shortlist.draft) polish<Type>(s, draft, best, again);
  write<Type>(s, best, block);
}

}  // namespace
}  // namespace best

#define WTOOL_BEST(name, Type, search)                                                  \
  void best_##name(const BlockRows& rows, std::byte* out) noexcept {                    \
    best::best_rows<best::Type>(rows, out, &quantize_##name, &quantize_weighted_##name, \
                                &best::search<best::Type>);                             \
  }
WTOOL_BEST(q2_k, Q2K, search_offsets)
WTOOL_BEST(q3_k, Q3K, search_signed)
WTOOL_BEST(q4_k, Q4K, search_offsets)
WTOOL_BEST(q5_k, Q5K, search_offsets)
WTOOL_BEST(q6_k, Q6K, search_signed)
WTOOL_BEST(iq4_xs, Iq4Xs, search_signed)
#undef WTOOL_BEST

}  // namespace wtool
