#pragma once
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <vector>

// Values for the tests of ggml's quantisers: finite, from the ordinary to the corners of f32.
namespace wtool {

struct RowKind {
  const char* name;
  std::function<float(std::mt19937&, std::size_t index)> value;
};

inline float random_float(std::mt19937& random, int least_exponent, int most_exponent) {
  const auto exponent = static_cast<std::uint32_t>(
      std::uniform_int_distribution<int>(least_exponent, most_exponent)(random) + 127);
  return std::bit_cast<float>((static_cast<std::uint32_t>(random()) & 0x807FFFFF) | exponent << 23);
}

inline const std::vector<RowKind>& row_kinds() {
  static const std::vector<RowKind> kinds = [] {
    const auto normal = [](float deviation) {
      return [deviation](std::mt19937& r, std::size_t) {
        return std::normal_distribution<float>(0, deviation)(r);
      };
    };
    const auto pick = [](std::vector<float> of) {
      return [of](std::mt19937& r, std::size_t) { return of[r() % of.size()]; };
    };
    const auto exponents = [](int least, int most) {
      return [=](std::mt19937& r, std::size_t) { return random_float(r, least, most); };
    };
    const float max = std::numeric_limits<float>::max();
    return std::vector<RowKind>{
        {"normal, deviation 0.02", normal(0.02f)},
        {"normal, deviation 1", normal(1)},
        {"normal, deviation 30", normal(30)},
        {"normal, deviation 1e-4", normal(1e-4f)},
        {"normal, deviation 1e-7", normal(1e-7f)},
        {"heavy tails",
         [](std::mt19937& r, std::size_t) {
           return std::student_t_distribution<float>(2)(r) * 0.05f;
         }},
        {"any finite bits", exponents(-127, 127)},
        {"exponents of f16", exponents(-14, 15)},
        {"exponents around -126", exponents(-127, -120)},
        {"exponents around -100", exponents(-103, -97)},
        {"exponents at the top", exponents(124, 127)},
        {"subnormal", exponents(-127, -127)},
        {"tiny subnormals",
         [](std::mt19937& r, std::size_t) {
           return std::bit_cast<float>(static_cast<std::uint32_t>(r()) & 0x8000001F);
         }},
        {"zero", pick({0.0f})},
        {"zeros of both signs", pick({0.0f, -0.0f})},
        {"ones and zeros of both signs", pick({0.0f, -0.0f, 1.0f, -1.0f})},
        {"constant",
         [](std::mt19937&, std::size_t i) { return i / 512 % 2 == 0 ? 0.37f : -3.25f; }},
        {"65504 of both signs", pick({65504.0f, -65504.0f})},
        {"the largest", pick({max, -max, max / 2, 0.0f})},
        {"multiples of a half",
         [](std::mt19937& r, std::size_t) { return (static_cast<float>(r() % 65) - 32) * 0.5f; }},
        {"quarters of four-bit codes",
         [](std::mt19937& r, std::size_t) { return (static_cast<float>(r() % 129) - 64) * 0.25f; }},
        {"equal magnitudes of both signs",
         [](std::mt19937& r, std::size_t) {
           return (r() & 1 ? 1.0f : -1.0f) * static_cast<float>(r() % 3 + 6);
         }},
        {"positive with zeros",
         [](std::mt19937& r, std::size_t) {
           return std::max(0.0f, std::normal_distribution<float>(0, 1)(r));
         }},
        {"negative",
         [](std::mt19937& r, std::size_t) {
           return -std::uniform_real_distribution<float>(0.1f, 1)(r);
         }},
        {"just below powers of two",
         [](std::mt19937& r, std::size_t i) {
           std::mt19937 of_block(static_cast<unsigned>(i / 32 * 7919 + 1));
           const auto exponent = of_block() % 253 + 2, below = of_block() % 64;
           if (i % 32 == 5)
             return std::bit_cast<float>(static_cast<std::uint32_t>((exponent << 23) - below));
           return std::bit_cast<float>(static_cast<std::uint32_t>((exponent - 1) << 23)) *
                  std::uniform_real_distribution<float>(-1, 1)(r);
         }},
        {"a large offset",
         [](std::mt19937& r, std::size_t) {
           return 10 + std::normal_distribution<float>(0, 0.01f)(r);
         }},
        {"one spike in 32",
         [](std::mt19937& r, std::size_t i) {
           const float x = std::normal_distribution<float>(0, 1)(r);
           return i % 32 == 17 ? x * 1000 : x;
         }},
        {"every second one tiny",
         [](std::mt19937& r, std::size_t i) {
           return i % 2 ? 1e-40f : std::normal_distribution<float>(0, 1)(r);
         }},
        {"every block of its own size",
         [](std::mt19937& r, std::size_t i) {
           std::mt19937 of_block(static_cast<unsigned>(i / 32 + 99));
           const int exponent = static_cast<int>(of_block() % 254) - 127;
           return std::ldexp(std::normal_distribution<float>(0, 0.2f)(r), exponent);
         }},
    };
  }();
  return kinds;
}

inline std::vector<float> make_rows(const RowKind& kind, std::size_t n, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = kind.value(random, i);
    if (!std::isfinite(out[i])) out[i] = 0;
  }
  return out;
}

}  // namespace wtool
