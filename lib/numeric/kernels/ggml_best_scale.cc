// Better blocks of the types whose blocks have one scale, or a scale and an offset: the squared
// error is minimised over all scales f16 can store, of either sign.
#include "lib/numeric/kernels/ggml_best_block.h"

namespace wtool {
namespace best {
namespace {

// ---- the types

template <std::size_t kCount>
struct OneScale {
  static constexpr bool kOffsets = false;
  static constexpr std::size_t kElements = kCount, kGroup = kCount;
  static float scale_of(const Block& block, std::size_t) { return f16_value(block.d); }
};

template <bool kFifth, bool kMin>
struct Nibbles : OneScale<32> {
  static constexpr bool kOffsets = kMin;
  static constexpr std::size_t kFifthAt = kMin ? 4 : 2, kCodesAt = kFifthAt + (kFifth ? 4 : 0),
                               kBytes = kCodesAt + 16;
  static constexpr int kTop = kFifth ? 31 : 15, kZero = kMin ? 0 : (kTop + 1) / 2;
  static constexpr Levels kLevels{Levels::Kind::Integers, -kZero, kTop - kZero};

  static void unpack(const std::byte* in, Block& block) {
    block.d = u16_at(in);
    if constexpr (kMin) block.m = u16_at(in + 2), block.min[0] = -1;
    std::uint32_t fifth = 0;
    if constexpr (kFifth) std::memcpy(&fifth, in + kFifthAt, 4);
    for (unsigned i = 0; i < 32; ++i) {
      const unsigned both = static_cast<unsigned>(in[kCodesAt + i % 16]);
      block.code[i] =
          static_cast<std::uint8_t>((i < 16 ? both & 15 : both >> 4) | (fifth >> i & 1) << 4);
    }
  }
  static void pack(const Block& block, std::byte* out) {
    put_u16(out, block.d);
    if constexpr (kMin) put_u16(out + 2, block.m);
    std::uint32_t fifth = 0;
    for (unsigned i = 0; i < 32; ++i) fifth |= static_cast<std::uint32_t>(block.code[i] >> 4) << i;
    if constexpr (kFifth) std::memcpy(out + kFifthAt, &fifth, 4);
    for (unsigned i = 0; i < 16; ++i)
      out[kCodesAt + i] =
          static_cast<std::byte>((block.code[i] & 15) | (block.code[i + 16] & 15) << 4);
  }
};
using Q4_0 = Nibbles<false, false>;
using Q4_1 = Nibbles<false, true>;
using Q5_0 = Nibbles<true, false>;
using Q5_1 = Nibbles<true, true>;
struct Iq4Nl : Q4_0 {
  static constexpr Levels kLevels{Levels::Kind::Iq4, -127, 113};
};

struct Q8_0 : OneScale<32> {
  static constexpr std::size_t kBytes = 34;
  static constexpr int kZero = 128;
  // -128 could be stored, but no writer does, and products with it are wrong in some readers.
  static constexpr Levels kLevels{Levels::Kind::Integers, -127, 127};
  static void unpack(const std::byte* in, Block& block) {
    block.d = u16_at(in);
    for (std::size_t i = 0; i < 32; ++i)
      block.code[i] = static_cast<std::uint8_t>(static_cast<std::uint8_t>(in[2 + i]) ^ 0x80);
  }
  static void pack(const Block& block, std::byte* out) {
    put_u16(out, block.d);
    for (std::size_t i = 0; i < 32; ++i) out[2 + i] = static_cast<std::byte>(block.code[i] ^ 0x80);
  }
};

struct Q1_0 : OneScale<128> {
  static constexpr std::size_t kBytes = 18;
  static constexpr int kZero = 1;  // the codes are 0 and 2
  static constexpr Levels kLevels{Levels::Kind::Integers, -1, 1};
  static void unpack(const std::byte* in, Block& block) {
    block.d = u16_at(in);
    for (unsigned i = 0; i < 128; ++i)
      block.code[i] =
          static_cast<std::uint8_t>((static_cast<unsigned>(in[2 + i / 8]) >> i % 8 & 1) * 2);
  }
  static void pack(const Block& block, std::byte* out) {
    std::memset(out, 0, kBytes);
    put_u16(out, block.d);
    for (unsigned i = 0; i < 128; ++i)
      out[2 + i / 8] |= static_cast<std::byte>(block.code[i] / 2 << i % 8);
  }
};

struct Q2_0 : OneScale<64> {
  static constexpr std::size_t kBytes = 18;
  static constexpr int kZero = 1;
  static constexpr Levels kLevels{Levels::Kind::Integers, -1, 2};
  static void unpack(const std::byte* in, Block& block) {
    block.d = u16_at(in);
    for (unsigned i = 0; i < 64; ++i)
      block.code[i] =
          static_cast<std::uint8_t>(static_cast<unsigned>(in[2 + i / 4]) >> i % 4 * 2 & 3);
  }
  static void pack(const Block& block, std::byte* out) {
    std::memset(out, 0, kBytes);
    put_u16(out, block.d);
    for (unsigned i = 0; i < 64; ++i)
      out[2 + i / 4] |= static_cast<std::byte>(block.code[i] << i % 4 * 2);
  }
};

// Ternary: the codes are 0 to 2.
struct Ternary : OneScale<256> {
  static constexpr int kZero = 1;
  static constexpr Levels kLevels{Levels::Kind::Integers, -1, 1};
};
struct Tq2_0 : Ternary {
  static constexpr std::size_t kBytes = 66;
  static void unpack(const std::byte* in, Block& block) {
    for (unsigned i = 0; i < 256; ++i)
      block.code[i] = static_cast<std::uint8_t>(
          static_cast<unsigned>(in[i / 128 * 32 + i % 32]) >> i % 128 / 32 * 2 & 3);
    block.d = u16_at(in + 64);
  }
  static void pack(const Block& block, std::byte* out) {
    std::memset(out, 0, kBytes);
    for (unsigned i = 0; i < 256; ++i)
      out[i / 128 * 32 + i % 32] |= static_cast<std::byte>(block.code[i] << i % 128 / 32 * 2);
    put_u16(out + 64, block.d);
  }
};
struct Tq1_0 : Ternary {
  static constexpr std::size_t kBytes = 54;
  // Bytes of five trits, the last four of four: of the first `count` of each run, byte m has the
  // elements m, m + count, ...
  struct Run {
    unsigned element, byte, count, trits;
  };
  static constexpr Run kRuns[3] = {{0, 0, 32, 5}, {160, 32, 16, 5}, {240, 48, 4, 4}};
  static void unpack(const std::byte* in, Block& block) {
    for (const Run& run : kRuns)
      for (unsigned m = 0; m < run.count; ++m) {
        unsigned byte = static_cast<unsigned>(in[run.byte + m]);
        for (unsigned n = 0; n < run.trits; ++n, byte = byte * 3 & 255)
          block.code[run.element + n * run.count + m] = static_cast<std::uint8_t>(byte * 3 >> 8);
      }
    block.d = u16_at(in + 52);
  }
  static void pack(const Block& block, std::byte* out) {
    for (const Run& run : kRuns)
      for (unsigned m = 0; m < run.count; ++m) {
        unsigned number = 0;
        for (unsigned n = 0; n < 5; ++n)
          number = number * 3 + (n < run.trits ? block.code[run.element + n * run.count + m] : 0u);
        out[run.byte + m] = static_cast<std::byte>((number * 256 + 242) / 243);
      }
    put_u16(out + 52, block.d);
  }
};

// Nibbles of halves of E2M1 values; d is the byte of the scale, an exponent.
struct Mxfp4 : OneScale<32> {
  static constexpr std::size_t kBytes = 17;
  static constexpr int kZero = 0;
  static constexpr Levels kLevels{Levels::Kind::E2m1, -12, 12};
  static constexpr int kGreatest = 254;  // 255 is NaN
  static float scale_of(const Block& block, std::size_t) {
    return block.d > kGreatest ? std::numeric_limits<float>::quiet_NaN()
                               : static_cast<float>(power_of_two(block.d - 128));
  }
  static void unpack(const std::byte* in, Block& block) {
    block.d = static_cast<std::uint8_t>(in[0]);
    for (unsigned i = 0; i < 32; ++i)
      block.code[i] =
          static_cast<std::uint8_t>(static_cast<unsigned>(in[1 + i % 16]) >> i / 16 * 4 & 15);
  }
  static void pack(const Block& block, std::byte* out) {
    out[0] = static_cast<std::byte>(block.d);
    for (unsigned i = 0; i < 16; ++i)
      out[1 + i] = static_cast<std::byte>(block.code[i] | block.code[i + 16] << 4);
  }
};

// Four groups with a scale of their own each, four bits of exponent and three of mantissa.
struct Nvfp4 {
  static constexpr bool kOffsets = false;
  static constexpr std::size_t kElements = 64, kGroup = 16, kBytes = 36;
  static constexpr int kZero = 0;
  static constexpr Levels kLevels{Levels::Kind::E2m1, -12, 12};
  static constexpr int kGreatest = 0x7E;  // 0x7F decodes to 0
  static float scale_of(const Block& block, std::size_t group) {
    return half_value(block.scale[group]);
  }
  static float half_value(int code) {
    if (code == 0x7F) return 0;
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    return static_cast<float>(exponent ? (8 + mantissa) * power_of_two(exponent - 11)
                                       : mantissa * power_of_two(-10));
  }
  static void unpack(const std::byte* in, Block& block) {
    for (unsigned g = 0; g < 4; ++g) {
      block.scale[g] = static_cast<std::int16_t>(in[g]);
      for (unsigned i = 0; i < 16; ++i)
        block.code[16 * g + i] = static_cast<std::uint8_t>(
            static_cast<unsigned>(in[4 + 8 * g + i % 8]) >> i / 8 * 4 & 15);
    }
  }
  static void pack(const Block& block, std::byte* out) {
    for (unsigned g = 0; g < 4; ++g) {
      out[g] = static_cast<std::byte>(block.scale[g]);
      for (unsigned i = 0; i < 8; ++i)
        out[4 + 8 * g + i] =
            static_cast<std::byte>(block.code[16 * g + i] | block.code[16 * g + 8 + i] << 4);
    }
  }
};

// ---- scales without offset

// The best block found so far, in the size of the scaled values.
struct Found {
  double error = kNever;
  Block* block;
};

// Takes the levels that `inverse` gives, the scale that suits them best, the levels that suit that
// scale (as f16 stores it), and so on until nothing changes.
template <class Type>
void settle(const Scaled& s, float inverse, Found& found) {
  int before = -1;
  for (int round = 0; round < 8; ++round) {
    Sums sums;
    for (std::size_t i = 0; i < Type::kElements; ++i)
      sums.add(weight_of(s.values, i), s.x[i], nearest<Type>(s.x[i] * inverse));
    if (!(sums.qq > 0)) return;
    const Half d = half_of(sums.xq / sums.qq, s);
    if (d.bits == before) return;
    before = d.bits;
    inverse = inverse_of(d.value);
    float level[Type::kElements];
    double error = 0;
    for (std::size_t i = 0; i < Type::kElements; ++i) {
      level[i] = nearest<Type>(s.x[i] * inverse);
      const double off = static_cast<double>(level[i]) * static_cast<double>(d.value) -
                         static_cast<double>(s.x[i]);
      error += weight_of(s.values, i) * (off * off);
    }
    if (!(error < found.error)) continue;
    found.error = error;
    found.block->d = d.bits;
    for (std::size_t i = 0; i < Type::kElements; ++i)
      found.block->code[i] = code_of<Type>(level[i]);
  }
}

// Calls then(trial) for those with the greatest gains, each gain once.
template <class Then>
void for_leaders(const float* gain, std::size_t trials, int leaders, Then then) {
  Pick pick{std::numeric_limits<float>::infinity(), 0};
  for (int i = 0; i < leaders; ++i) {
    pick = first_greatest(gain, trials, pick.value);
    if (pick.at < 0) return;
    then(static_cast<std::size_t>(pick.at));
  }
}

// The smallest scale worth a trial: below it, what lies beyond the last level costs more than
// `error` already.
inline float least_scale(const Values& v, float most, float reach, double error) {
  float lo = most / reach / 8, hi = most / reach;
  for (int round = 0; round < 6; ++round) {
    const float d = (lo + hi) / 2;
    double beyond = 0;
    for (std::size_t i = 0; i < v.count; ++i) {
      const double over = static_cast<double>(std::abs(v.x[i]) - reach * d);
      if (over > 0) beyond += weight_of(v, i) * (over * over);
    }
    (beyond > error ? lo : hi) = d;
  }
  return lo;
}

// Trials in even steps of 1 / scale, as the places are where codes change.
template <class Type, int kSteps>
void search_scale(const Scaled& s, Block& block) {
  constexpr std::size_t kLimit = 640;
  constexpr float kReach = std::max(-Type::kLevels.lo, Type::kLevels.hi);
  alignas(64) float inverse[2 * kLimit], gain[2 * kLimit];
  Found found{.block = &block};
  settle<Type>(s, inverse_of(Half(block.d, s).value), found);
  if (!(found.error < kNever)) settle<Type>(s, kReach / s.most, found);
  const float last = 1 / least_scale(s.values, s.most, kReach, found.error);
  const float step = 1 / (s.most * kSteps);
  std::size_t trials = std::min(kLimit, whole_trials(static_cast<std::size_t>(last / step)));
  for (std::size_t t = 0; t < trials; ++t) {
    inverse[t] = static_cast<float>(t + 1) * step;
    inverse[trials + t] = -inverse[t];
  }
  constexpr bool kEven = Type::kLevels.lo == -Type::kLevels.hi;
  if (!kEven) trials *= 2;
  fit_scales(Type::kLevels, s.values, inverse, trials, gain);
  for_leaders(gain, trials, 4, [&](std::size_t t) { settle<Type>(s, inverse[t], found); });
}

// Where codes are many, rounding the scale to f16 matters as much: every f16 in range.
void search_q8_0(const Scaled& s, Block& block) {
  constexpr int kLimit = 1120;  // an octave of f16 has 1024 values; this is a little more
  alignas(64) float scale[kLimit], error[kLimit];
  const int first = half_of(static_cast<double>(s.most) / 129, s).bits;
  const int last =
      std::min<int>(half_of(static_cast<double>(s.most) / 63.9, s).bits, first + kLimit - 1);
  const std::size_t trials = whole_trials(static_cast<std::size_t>(last - first) + 1);
  for (std::size_t t = 0; t < trials; ++t)
    scale[t] =
        Half(static_cast<std::uint16_t>(std::min(first + static_cast<int>(t), last)), s).value;
  scale_errors(Q8_0::kLevels, s.values, scale, trials, error);
  const std::size_t at = first_least(error, trials);
  block.d = static_cast<std::uint16_t>(std::min(first + static_cast<int>(at), last));
  const float inverse = inverse_of(scale[at]);
  for (std::size_t i = 0; i < 32; ++i)
    block.code[i] = code_of<Q8_0>(nearest<Q8_0>(s.x[i] * inverse));
}

// The scale is the mean magnitude, whatever the weights.
void search_q1_0(const Scaled& s, Block& block) {
  double sum = 0, weights = 0;
  for (std::size_t i = 0; i < 128; ++i) {
    sum += weight_of(s.values, i) * static_cast<double>(std::abs(s.x[i]));
    weights += weight_of(s.values, i);
    block.code[i] = s.x[i] >= 0 ? 2 : 0;
  }
  block.d = half_of(sum / weights, s).bits;
}

// With ternary codes, some number of the greatest magnitudes are the ones: all numbers are tried.
template <class Type>
void search_ternary(const Scaled& s, Block& block) {
  std::uint16_t order[256];
  for (std::size_t i = 0; i < 256; ++i) order[i] = static_cast<std::uint16_t>(i);
  std::sort(order, order + 256, [&](std::uint16_t a, std::uint16_t b) {
    const float x = std::abs(s.x[a]), y = std::abs(s.x[b]);
    return x != y ? x > y : a < b;
  });
  Sums sums;
  double most = 0, inverse = 0;
  for (const std::uint16_t i : order) {
    sums.add(weight_of(s.values, i), std::abs(s.x[i]), 1);
    if (sums.xq * sums.xq <= most * sums.qq) continue;
    most = sums.xq * sums.xq / sums.qq;
    inverse = sums.qq / sums.xq;
  }
  Found found{.block = &block};
  settle<Type>(s, static_cast<float>(inverse), found);
}

// ---- a scale and an offset

// As settle(), from a scale and an offset; `fixed`: only the scale may change.
template <class Type>
void settle_offset(const Scaled& s, double d, double m, bool fixed, Found& found) {
  int before[2] = {-1, -1};
  for (int round = 0; round < 8; ++round) {
    const Half scale = half_of(d, s), offset = half_of(m, s);
    if (scale.bits == before[0] && offset.bits == before[1]) return;
    before[0] = scale.bits;
    before[1] = offset.bits;
    const float inverse = inverse_of(scale.value);
    float level[32];
    double error = 0;
    Sums sums;
    for (std::size_t i = 0; i < 32; ++i) {
      level[i] = rounded(within((s.x[i] - offset.value) * inverse, 0, Type::kTop));
      sums.add(weight_of(s.values, i), s.x[i], level[i]);
      const double off = static_cast<double>(level[i]) * static_cast<double>(scale.value) +
                         static_cast<double>(offset.value) - static_cast<double>(s.x[i]);
      error += weight_of(s.values, i) * (off * off);
    }
    if (error < found.error) {
      found.error = error;
      found.block->d = scale.bits;
      found.block->m = offset.bits;
      found.block->min[0] = -1;
      for (std::size_t i = 0; i < 32; ++i) found.block->code[i] = code_of<Type>(level[i]);
    }
    const double det = sums.w * sums.qq - sums.q * sums.q;
    if (!(det > 0)) return;
    if (!fixed) m = (sums.qq * sums.x - sums.q * sums.xq) / det;
    m = static_cast<double>(half_of(m, s).value);
    d = (sums.xq - m * sums.q) / sums.qq;
  }
}

// The same, and where f16 is coarse for the offset also from its neighbours.
template <class Type>
void settle_around(const Scaled& s, double d, double m, Found& found) {
  settle_offset<Type>(s, d, m, false, found);
  const std::uint16_t bits = half_of(m, s).bits;
  if (std::abs(m) < std::abs(d) * 64 || (bits & 0x7FFF) == 0 || (bits & 0x7FFF) >= 0x7BFF) return;
  for (const int next : {bits - 1, bits + 1})
    settle_offset<Type>(s, d, static_cast<double>(Half(static_cast<std::uint16_t>(next), s).value),
                        true, found);
}

template <class Type>
void search_offset(const Scaled& s, Block& block) {
  constexpr std::size_t kInverses = 24, kOffsets = 12, kStarts = kInverses * kOffsets;
  alignas(64) float x[32], inverse[kStarts], offset[kStarts], gain[kStarts], scales[kStarts],
      offsets[kStarts];
  const Range range = range_of(s.values);
  for (std::size_t i = 0; i < 32; ++i) x[i] = s.x[i] - range.lo;
  const float step = (range.hi - range.lo) / Type::kTop;
  const double lo = static_cast<double>(range.lo);
  Found found{.block = &block};
  settle_around<Type>(s, static_cast<double>(Half(block.d, s).value),
                      static_cast<double>(Half(block.m, s).value), found);
  if (!(step > 1e-30f)) return settle_around<Type>(s, 0, lo, found);
  for (std::size_t a = 0; a < kInverses; ++a) {
    for (std::size_t b = 0; b < kOffsets; ++b) {
      const float finer = 0.86f + 0.02f * static_cast<float>(a);
      const float higher = 0.15f * static_cast<float>(b) - 0.6f;
      inverse[a * kOffsets + b] = finer / step;
      offset[a * kOffsets + b] = -higher * step;
    }
  }
  fit_offsets(Type::kTop, 0, {x, s.values.weight, 32}, inverse, offset, kStarts,
              {gain, scales, offsets});
  for_leaders(gain, kStarts, 6, [&](std::size_t t) {
    settle_around<Type>(s, static_cast<double>(scales[t]), lo - static_cast<double>(offsets[t]),
                        found);
  });
}

// ---- scales that are few: all are tried

void search_mxfp4(const Scaled& s, Block& block) {
  alignas(64) float scale[kTrials], error[kTrials];
  const int around =
      128 + exponent_of(s.most) + static_cast<int>(exponent_of(static_cast<float>(s.down)));
  const auto code = [&](std::size_t t) {
    return std::clamp(around - 8 + static_cast<int>(t), 0, Mxfp4::kGreatest);
  };
  for (std::size_t t = 0; t < kTrials; ++t)
    scale[t] = static_cast<float>(power_of_two(code(std::min<std::size_t>(t, 9)) - 128) * s.up);
  scale_errors(Mxfp4::kLevels, s.values, scale, kTrials, error);
  const std::size_t at = first_least(error, kTrials);
  block.d = static_cast<std::uint16_t>(code(at));
  const float inverse = inverse_of(scale[at]);
  for (std::size_t i = 0; i < 32; ++i)
    block.code[i] = code_of<Mxfp4>(nearest<Mxfp4>(s.x[i] * inverse));
}

void search_nvfp4(const Scaled& s, Block& block) {
  constexpr std::size_t kCodes = whole_trials(Nvfp4::kGreatest + 1);
  alignas(64) float scale[kCodes], error[kCodes];
  for (std::size_t t = 0; t < kCodes; ++t)
    scale[t] = static_cast<float>(
        static_cast<double>(Nvfp4::half_value(std::min(static_cast<int>(t), Nvfp4::kGreatest))) *
        s.up);
  for (std::size_t g = 0; g < 4; ++g) {
    const Values v{s.x + 16 * g, s.values.weight ? s.weight + 16 * g : nullptr, 16};
    scale_errors(Nvfp4::kLevels, v, scale, kCodes, error);
    const std::size_t at = first_least(error, kCodes);
    block.scale[g] = static_cast<std::int16_t>(at);
    const float inverse = inverse_of(scale[at]);
    for (std::size_t i = 16 * g; i < 16 * (g + 1); ++i)
      block.code[i] = code_of<Nvfp4>(nearest<Nvfp4>(s.x[i] * inverse));
  }
}

}  // namespace
}  // namespace best

#define WTOOL_BEST(name, Type, weighted, ...)                                               \
  void best_##name(const BlockRows& rows, std::byte* out) noexcept {                        \
    best::best_rows<best::Type>(rows, out, &quantize_##name, weighted, &best::__VA_ARGS__); \
  }
WTOOL_BEST(q4_0, Q4_0, &quantize_weighted_q4_0, search_scale<best::Q4_0, 16>)
WTOOL_BEST(q4_1, Q4_1, &quantize_weighted_q4_1, search_offset<best::Q4_1>)
WTOOL_BEST(q5_0, Q5_0, &quantize_weighted_q5_0, search_scale<best::Q5_0, 16>)
WTOOL_BEST(q5_1, Q5_1, &quantize_weighted_q5_1, search_offset<best::Q5_1>)
WTOOL_BEST(q8_0, Q8_0, nullptr, search_q8_0)
WTOOL_BEST(q1_0, Q1_0, nullptr, search_q1_0)
WTOOL_BEST(q2_0, Q2_0, nullptr, search_scale<best::Q2_0, 64>)
WTOOL_BEST(iq4_nl, Iq4Nl, &quantize_weighted_iq4_nl, search_scale<best::Iq4Nl, 1>)
WTOOL_BEST(tq1_0, Tq1_0, nullptr, search_ternary<best::Tq1_0>)
WTOOL_BEST(tq2_0, Tq2_0, nullptr, search_ternary<best::Tq2_0>)
WTOOL_BEST(mxfp4, Mxfp4, nullptr, search_mxfp4)
WTOOL_BEST(nvfp4, Nvfp4, nullptr, search_nvfp4)
#undef WTOOL_BEST

}  // namespace wtool
