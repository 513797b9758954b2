#include "lib/numeric/codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/numeric/kernels/ggml.h"
#include "lib/numeric/kernels/kernels.h"

namespace wtool {
namespace {

template <class T>
T item(const std::byte* in, std::size_t i) noexcept {
  T value;
  std::memcpy(&value, in + i * sizeof value, sizeof value);
  return value;
}

template <class T, class To>
void decode_plain(const std::byte* in, To* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<To>(item<T>(in, i));
}
template <class To>
void decode_bool(const std::byte* in, To* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) out[i] = in[i] != std::byte{0} ? To{1} : To{0};
}
template <class T>
void encode_plain(const float* in, std::byte* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const T value = in[i];
    std::memcpy(out + i * sizeof value, &value, sizeof value);
  }
}

// ---- Floats of at most 8 bits: sign, exponent, mantissa.

enum class Special : std::uint8_t {
  Ieee,  // infinities and NaN, as always
  Nan,   // only the code of all ones is NaN (OCP's e4m3, "fn")
  Fnuz,  // only the code of -0 is NaN; the bias is one more
  None,  // neither (OCP's 4- and 6-bit types)
};
struct Mini {
  unsigned exponent, mantissa;
  int bias;
  Special special;

  constexpr unsigned sign() const { return 1u << (exponent + mantissa); }
  constexpr unsigned infinity() const { return ((1u << exponent) - 1) << mantissa; }  // Ieee
  constexpr unsigned nan() const {
    if (special == Special::Fnuz) return sign();
    return special == Special::Nan ? sign() - 1 : infinity() | 1u << (mantissa - 1);
  }
  constexpr unsigned largest() const {
    if (special == Special::Ieee) return infinity() - 1;
    return sign() - (special == Special::Nan ? 2 : 1);
  }
  // What a value beyond the largest becomes.
  constexpr unsigned beyond() const {
    if (special == Special::Ieee) return infinity();
    return special == Special::None ? largest() : nan();
  }
};
constexpr Mini kE4M3{4, 3, 7, Special::Nan}, kE5M2{5, 2, 15, Special::Ieee},
    kE4M3FNUZ{4, 3, 8, Special::Fnuz}, kE5M2FNUZ{5, 2, 16, Special::Fnuz},
    kE2M3{2, 3, 1, Special::None}, kE3M2{3, 2, 3, Special::None}, kE2M1{2, 1, 1, Special::None};

constexpr float power_of_two(int exponent) {  // of a normal f32
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

constexpr float value_of(const Mini& t, unsigned code) {
  const unsigned a = code & (t.sign() - 1);
  const float sign = (code & t.sign()) != 0 ? -1.0f : 1.0f;
  const bool is_nan = t.special == Special::Ieee   ? a > t.infinity()
                      : t.special == Special::Nan  ? a == t.nan()
                      : t.special == Special::Fnuz ? code == t.nan()
                                                   : false;
  if (is_nan) return std::numeric_limits<float>::quiet_NaN();
  if (t.special == Special::Ieee && a == t.infinity())
    return sign * std::numeric_limits<float>::infinity();
  const unsigned exponent = a >> t.mantissa, fraction = a & ((1u << t.mantissa) - 1);
  const unsigned whole = exponent == 0 ? fraction : fraction | 1u << t.mantissa;
  const int scale = static_cast<int>(exponent == 0 ? 1 : exponent) - t.bias;
  return sign * static_cast<float>(whole) * power_of_two(scale - static_cast<int>(t.mantissa));
}

constexpr unsigned code_of(const Mini& t, float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), a = bits & 0x7FFFFFFF;
  const unsigned sign = bits >> 31 != 0 ? t.sign() : 0;
  const bool fnuz = t.special == Special::Fnuz;
  if (a > 0x7F800000) return fnuz || t.special == Special::None ? t.beyond() : t.nan() | sign;
  // The magnitude in units of the last place that the type has there, rounded to nearest even.
  const int exponent = static_cast<int>(a >> 23) - 127;
  const int lowest = 1 - t.bias;  // all below is subnormal in every type here, so is f32's own
  const int kept = std::max(exponent, lowest);
  const unsigned shift = 23 - t.mantissa + static_cast<unsigned>(kept - exponent);
  unsigned code = 0;
  if (shift < 26 && a >= 0x00800000) {
    const std::uint32_t whole = (a & 0x7FFFFF) | 0x800000;
    const std::uint32_t rounded = (whole + (1u << (shift - 1)) - 1 + (whole >> shift & 1)) >> shift;
    code = (static_cast<unsigned>(kept - lowest) << t.mantissa) + rounded;
  }
  if (code > t.largest()) return fnuz ? t.beyond() : t.beyond() | sign;
  return fnuz && code == 0 ? 0 : code | sign;
}

// The smallest magnitude that rounds beyond the largest: half-way to what would come next, or just
// above where a tie goes down to the even code.
constexpr float too_large(const Mini& t) {
  const unsigned top = t.largest();
  const float last = value_of(t, top), ulp = last - value_of(t, top - 1);
  const float tie = last + ulp / 2;
  return top % 2 != 0 ? tie : std::bit_cast<float>(std::bit_cast<std::uint32_t>(tie) + 1);
}

template <const Mini& kType>
constexpr auto kValues = [] {
  std::array<float, 2 * kType.sign()> out{};
  for (unsigned i = 0; i < out.size(); ++i) out[i] = value_of(kType, i);
  return out;
}();

template <const Mini& kType>
void decode_8(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) out[i] = kValues<kType>[static_cast<std::size_t>(in[i])];
}
template <const Mini& kType>
void encode_8(const float* in, std::byte* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(code_of(kType, in[i]));
}

// A little-endian stream of bits: four elements in three bytes.
template <const Mini& kType>
void decode_6(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i + 4 <= n; i += 4, in += 3) {
    const unsigned bits = static_cast<unsigned>(in[0]) | static_cast<unsigned>(in[1]) << 8 |
                          static_cast<unsigned>(in[2]) << 16;
    for (unsigned j = 0; j < 4; ++j) out[i + j] = kValues<kType>[bits >> (6 * j) & 63];
  }
}
template <const Mini& kType>
void encode_6(const float* in, std::byte* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i + 4 <= n; i += 4, out += 3) {
    unsigned bits = 0;
    for (unsigned j = 0; j < 4; ++j) bits |= code_of(kType, in[i + j]) << (6 * j);
    for (unsigned j = 0; j < 3; ++j) out[j] = static_cast<std::byte>(bits >> (8 * j) & 0xFF);
  }
}
// The first element in the low nibble.
template <const Mini& kType>
void decode_4(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const unsigned both = static_cast<unsigned>(in[i / 2]);
    out[i] = kValues<kType>[i % 2 == 0 ? both & 15 : both >> 4];
  }
}
template <const Mini& kType>
void encode_4(const float* in, std::byte* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i + 2 <= n; i += 2)
    out[i / 2] = static_cast<std::byte>(code_of(kType, in[i]) | code_of(kType, in[i + 1]) << 4);
}

void decode_e8m0(const std::byte* in, float* out, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const auto e = static_cast<std::uint32_t>(in[i]);
    out[i] = e == 255 ? std::numeric_limits<float>::quiet_NaN()
                      : std::bit_cast<float>(e == 0 ? 0x00400000u : e << 23);  // 0 is 2^-127
  }
}

template <const Mini& kType>
constexpr Codec mini(DType type, decltype(Codec::decode) decode, decltype(Codec::encode) encode) {
  return {type,
          decode,
          encode,
          value_of(kType, kType.largest()),
          too_large(kType),
          kType.special == Special::Ieee,
          kType.special != Special::None};
}
constexpr float kMostF32 = std::numeric_limits<float>::max();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr std::array kCodecs{
    Codec{DType::F32, decode_plain<float>, encode_plain<float>, kMostF32, kInfinity, true, true},
    Codec{DType::F16, f16_to_f32, f32_to_f16, 65504, 65520, true, true},
    Codec{DType::BF16, bf16_to_f32, f32_to_bf16, 0x1.FEp127f, 0x1.FFp127f, true, true},
    Codec{DType::F64, decode_plain<double>, encode_plain<double>, kMostF32, kInfinity, true, true},
    mini<kE4M3>(DType::F8_E4M3, decode_8<kE4M3>, encode_8<kE4M3>),
    mini<kE5M2>(DType::F8_E5M2, decode_8<kE5M2>, encode_8<kE5M2>),
    mini<kE4M3FNUZ>(DType::F8_E4M3FNUZ, decode_8<kE4M3FNUZ>, encode_8<kE4M3FNUZ>),
    mini<kE5M2FNUZ>(DType::F8_E5M2FNUZ, decode_8<kE5M2FNUZ>, encode_8<kE5M2FNUZ>),
    mini<kE2M3>(DType::F6_E2M3, decode_6<kE2M3>, encode_6<kE2M3>),
    mini<kE3M2>(DType::F6_E3M2, decode_6<kE3M2>, encode_6<kE3M2>),
    mini<kE2M1>(DType::F4, decode_4<kE2M1>, encode_4<kE2M1>),
    Codec{DType::F8_E8M0, decode_e8m0},
    Codec{DType::Bool, decode_bool<float>},
    Codec{DType::U8, decode_plain<std::uint8_t>},
    Codec{DType::I8, decode_plain<std::int8_t>},
    Codec{DType::U16, decode_plain<std::uint16_t>},
    Codec{DType::I16, decode_plain<std::int16_t>},
    Codec{DType::U32, decode_plain<std::uint32_t>},
    Codec{DType::I32, decode_plain<std::int32_t>},
    Codec{DType::U64, decode_plain<std::uint64_t>},
    Codec{DType::I64, decode_plain<std::int64_t>},
    Codec{DType::Q8_0, q8_0_to_f32},
    Codec{DType::Q4_0, q4_0_to_f32},
    Codec{DType::Q4_1, q4_1_to_f32},
    Codec{DType::Q5_0, q5_0_to_f32},
    Codec{DType::Q5_1, q5_1_to_f32},
    Codec{DType::Q8_1, q8_1_to_f32},
    Codec{DType::Q2_K, q2_k_to_f32},
    Codec{DType::Q3_K, q3_k_to_f32},
    Codec{DType::Q4_K, q4_k_to_f32},
    Codec{DType::Q5_K, q5_k_to_f32},
    Codec{DType::Q6_K, q6_k_to_f32},
    Codec{DType::Q8_K, q8_k_to_f32},
    Codec{DType::IQ1_S, iq1_s_to_f32},
    Codec{DType::IQ1_M, iq1_m_to_f32},
    Codec{DType::IQ2_XXS, iq2_xxs_to_f32},
    Codec{DType::IQ2_XS, iq2_xs_to_f32},
    Codec{DType::IQ2_S, iq2_s_to_f32},
    Codec{DType::IQ3_XXS, iq3_xxs_to_f32},
    Codec{DType::IQ3_S, iq3_s_to_f32},
    Codec{DType::IQ4_NL, iq4_nl_to_f32},
    Codec{DType::IQ4_XS, iq4_xs_to_f32},
    Codec{DType::TQ1_0, tq1_0_to_f32},
    Codec{DType::TQ2_0, tq2_0_to_f32},
    Codec{DType::MXFP4, mxfp4_to_f32},
    Codec{DType::NVFP4, nvfp4_to_f32},
    Codec{DType::Q1_0, q1_0_to_f32},
    Codec{DType::Q2_0, q2_0_to_f32},
};

// What f32 cannot hold, as f64.
using Decode64 = void (*)(const std::byte*, double*, std::size_t) noexcept;
Decode64 find_decode64(DType type) noexcept {
  switch (type) {
    case DType::F64: return decode_plain<double>;
    case DType::U32: return decode_plain<std::uint32_t>;
    case DType::I32: return decode_plain<std::int32_t>;
    case DType::U64: return decode_plain<std::uint64_t>;
    case DType::I64: return decode_plain<std::int64_t>;
    default: return nullptr;
  }
}

void check_room(const Box& box, std::size_t room) {
  if (box.elements() != room)
    throw Error(Fault::Internal,
                fmt::format("{} elements to be read into room for {}", box.elements(), room));
}

}  // namespace

const Codec* find_codec(DType type) noexcept {
  for (const Codec& c : kCodecs)
    if (c.dtype == type) return &c;
  return nullptr;
}

const Codec& codec(DType type) {
  if (const Codec* c = find_codec(type)) return *c;
  throw Error(Fault::Unsupported,
              fmt::format("the values of {} cannot be decoded by this version", name_of(type)));
}

void read_f32(const Tensor& tensor, const Box& box, std::span<float> out, Scratch& scratch) {
  check_room(box, out.size());
  if (tensor.dtype() == DType::F32) return tensor.read(box, std::as_writable_bytes(out), scratch);
  const Codec& how = codec(tensor.dtype());
  Scratch::Frame frame(scratch);
  const auto bytes = frame.take<std::byte>(checked_size(tensor.dtype(), box.elements()));
  tensor.read(box, bytes, scratch);
  how.decode(bytes.data(), out.data(), out.size());
}

void read_f64(const Tensor& tensor, const Box& box, std::span<double> out, Scratch& scratch) {
  check_room(box, out.size());
  if (tensor.dtype() == DType::F64) return tensor.read(box, std::as_writable_bytes(out), scratch);
  Scratch::Frame frame(scratch);
  if (const Decode64 decode = find_decode64(tensor.dtype())) {
    const auto bytes = frame.take<std::byte>(checked_size(tensor.dtype(), box.elements()));
    tensor.read(box, bytes, scratch);
    return decode(bytes.data(), out.data(), out.size());
  }
  const auto values = frame.take<float>(box.elements());
  read_f32(tensor, box, values, scratch);
  std::copy(values.begin(), values.end(), out.begin());
}

}  // namespace wtool
