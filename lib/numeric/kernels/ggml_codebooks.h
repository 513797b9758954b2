#pragma once
#include <array>
#include <cstdint>

// The published codebooks of ggml's IQ types (ggml-common.h): magnitudes of eight or four
// neighbouring elements, one a byte, the first lowest. The file stores an index into them.
namespace wtool {

extern const std::array<std::uint64_t, 256> kIq2XxsGrid;  // bytes 8, 25 and 43
extern const std::array<std::uint64_t, 512> kIq2XsGrid;
extern const std::array<std::uint64_t, 1024> kIq2SGrid;
extern const std::array<std::uint32_t, 256> kIq3XxsGrid;  // 4, 12, 20, …, 52, 62
extern const std::array<std::uint32_t, 512> kIq3SGrid;    // 1, 3, 5, …, 15
extern const std::array<std::uint64_t, 2048> kIq1SGrid;   // -1, 0 and 1, as signed bytes

// Values of a 4-bit code.
inline constexpr std::array<std::int8_t, 16> kIq4Values{-127, -104, -83, -65, -49, -35, -22, -10,
                                                        1,    13,   25,  38,  53,  69,  89,  113};
// FP4 e2m1, twice its value; code 8 is no -0.
inline constexpr std::array<std::int8_t, 16> kFp4Values{0, 1,  2,  3,  4,  6,  8,  12,
                                                        0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace wtool
