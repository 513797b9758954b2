#include "lib/base/dtype.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "lib/base/error.h"

namespace wtool {
namespace {

// A run of 16- or 32-bit fields inside a block, for changing byte order.
struct Fields {
  std::uint16_t offset, width, count;
};
struct Row {
  DTypeInfo info;
  std::array<Fields, 2> fields = {};
};

// Block layouts: ggml-common.h. Fields are the f16 scales and the u16 arrays.
constexpr std::array kTypes{
    Row{{DType::Bool, "bool", Kind::Bool, 1, 1}},
    Row{{DType::U8, "u8", Kind::Int, 1, 1}},
    Row{{DType::I8, "i8", Kind::Int, 1, 1}},
    Row{{DType::U16, "u16", Kind::Int, 1, 2}, {{{0, 2, 1}}}},
    Row{{DType::I16, "i16", Kind::Int, 1, 2}, {{{0, 2, 1}}}},
    Row{{DType::U32, "u32", Kind::Int, 1, 4}, {{{0, 4, 1}}}},
    Row{{DType::I32, "i32", Kind::Int, 1, 4}, {{{0, 4, 1}}}},
    Row{{DType::U64, "u64", Kind::Int, 1, 8}, {{{0, 8, 1}}}},
    Row{{DType::I64, "i64", Kind::Int, 1, 8}, {{{0, 8, 1}}}},
    Row{{DType::F16, "f16", Kind::Float, 1, 2}, {{{0, 2, 1}}}},
    Row{{DType::BF16, "bf16", Kind::Float, 1, 2}, {{{0, 2, 1}}}},
    Row{{DType::F32, "f32", Kind::Float, 1, 4}, {{{0, 4, 1}}}},
    Row{{DType::F64, "f64", Kind::Float, 1, 8}, {{{0, 8, 1}}}},
    Row{{DType::C64, "c64", Kind::Complex, 1, 8}, {{{0, 4, 2}}}},
    Row{{DType::C128, "c128", Kind::Complex, 1, 16}, {{{0, 8, 2}}}},
    Row{{DType::F8_E4M3, "f8_e4m3", Kind::Float, 1, 1}},
    Row{{DType::F8_E5M2, "f8_e5m2", Kind::Float, 1, 1}},
    Row{{DType::F8_E8M0, "f8_e8m0", Kind::Float, 1, 1}},
    Row{{DType::F8_E4M3FNUZ, "f8_e4m3fnuz", Kind::Float, 1, 1}},
    Row{{DType::F8_E5M2FNUZ, "f8_e5m2fnuz", Kind::Float, 1, 1}},
    Row{{DType::F6_E2M3, "f6_e2m3", Kind::Float, 4, 3}},
    Row{{DType::F6_E3M2, "f6_e3m2", Kind::Float, 4, 3}},
    Row{{DType::F4, "f4", Kind::Float, 2, 1}},
    Row{{DType::V1, "v1", Kind::Opaque, 1, 1}},
    Row{{DType::V2, "v2", Kind::Opaque, 1, 2}, {{{0, 2, 1}}}},
    Row{{DType::Q4_0, "q4_0", Kind::Block, 32, 18}, {{{0, 2, 1}}}},
    Row{{DType::Q4_1, "q4_1", Kind::Block, 32, 20}, {{{0, 2, 2}}}},
    Row{{DType::Q5_0, "q5_0", Kind::Block, 32, 22}, {{{0, 2, 1}}}},
    Row{{DType::Q5_1, "q5_1", Kind::Block, 32, 24}, {{{0, 2, 2}}}},
    Row{{DType::Q8_0, "q8_0", Kind::Block, 32, 34}, {{{0, 2, 1}}}},
    Row{{DType::Q8_1, "q8_1", Kind::Block, 32, 36}, {{{0, 2, 2}}}},
    Row{{DType::Q2_K, "q2_k", Kind::Block, 256, 84}, {{{80, 2, 2}}}},
    Row{{DType::Q3_K, "q3_k", Kind::Block, 256, 110}, {{{108, 2, 1}}}},
    Row{{DType::Q4_K, "q4_k", Kind::Block, 256, 144}, {{{0, 2, 2}}}},
    Row{{DType::Q5_K, "q5_k", Kind::Block, 256, 176}, {{{0, 2, 2}}}},
    Row{{DType::Q6_K, "q6_k", Kind::Block, 256, 210}, {{{208, 2, 1}}}},
    Row{{DType::Q8_K, "q8_k", Kind::Block, 256, 292}, {{{0, 4, 1}, {260, 2, 16}}}},
    Row{{DType::IQ2_XXS, "iq2_xxs", Kind::Block, 256, 66}, {{{0, 2, 33}}}},
    Row{{DType::IQ2_XS, "iq2_xs", Kind::Block, 256, 74}, {{{0, 2, 33}}}},
    Row{{DType::IQ3_XXS, "iq3_xxs", Kind::Block, 256, 98}, {{{0, 2, 1}}}},
    Row{{DType::IQ1_S, "iq1_s", Kind::Block, 256, 50}, {{{0, 2, 1}, {34, 2, 8}}}},
    Row{{DType::IQ4_NL, "iq4_nl", Kind::Block, 32, 18}, {{{0, 2, 1}}}},
    Row{{DType::IQ3_S, "iq3_s", Kind::Block, 256, 110}, {{{0, 2, 1}}}},
    Row{{DType::IQ2_S, "iq2_s", Kind::Block, 256, 82}, {{{0, 2, 1}}}},
    Row{{DType::IQ4_XS, "iq4_xs", Kind::Block, 256, 136}, {{{0, 2, 2}}}},
    Row{{DType::IQ1_M, "iq1_m", Kind::Block, 256, 56}, {{{48, 2, 4}}}},
    Row{{DType::TQ1_0, "tq1_0", Kind::Block, 256, 54}, {{{52, 2, 1}}}},
    Row{{DType::TQ2_0, "tq2_0", Kind::Block, 256, 66}, {{{64, 2, 1}}}},
    Row{{DType::MXFP4, "mxfp4", Kind::Block, 32, 17}},
    Row{{DType::NVFP4, "nvfp4", Kind::Block, 64, 36}},
    Row{{DType::Q1_0, "q1_0", Kind::Block, 128, 18}, {{{0, 2, 1}}}},
    Row{{DType::Q2_0, "q2_0", Kind::Block, 64, 18}, {{{0, 2, 1}}}},
};

constexpr auto kInfos = [] {
  std::array<DTypeInfo, kTypes.size()> out{};
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = kTypes[i].info;
  return out;
}();

constexpr bool ids_match_positions() {
  for (std::size_t i = 0; i < kTypes.size(); ++i)
    if (static_cast<std::size_t>(kTypes[i].info.id) != i) return false;
  return true;
}
static_assert(ids_match_positions(), "kTypes must follow the order of enum DType");

struct Alias {
  std::string_view alias;
  DType type;
};
constexpr std::array kAliases{
    Alias{"fp16", DType::F16},
    Alias{"float16", DType::F16},
    Alias{"half", DType::F16},
    Alias{"bfloat16", DType::BF16},
    Alias{"fp32", DType::F32},
    Alias{"float32", DType::F32},
    Alias{"float", DType::F32},
    Alias{"fp64", DType::F64},
    Alias{"float64", DType::F64},
    Alias{"double", DType::F64},
    Alias{"int8", DType::I8},
    Alias{"uint8", DType::U8},
    Alias{"int16", DType::I16},
    Alias{"uint16", DType::U16},
    Alias{"int32", DType::I32},
    Alias{"uint32", DType::U32},
    Alias{"int64", DType::I64},
    Alias{"uint64", DType::U64},
    Alias{"complex64", DType::C64},
    Alias{"complex128", DType::C128},
    Alias{"fp8", DType::F8_E4M3},
    Alias{"f8_e4m3fn", DType::F8_E4M3},
    Alias{"float8_e4m3fn", DType::F8_E4M3},
    Alias{"float8_e5m2", DType::F8_E5M2},
    Alias{"fp4", DType::F4},
};

void reverse_field(std::byte* p, std::size_t width) noexcept {
  std::reverse(p, p + width);
}

}  // namespace

const DTypeInfo& info(DType type) noexcept {
  return kInfos[static_cast<std::size_t>(type)];
}
std::span<const DTypeInfo> all_dtypes() noexcept {
  return kInfos;
}

std::optional<DType> parse_dtype(std::string_view name) {
  std::string lower(name);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  for (const DTypeInfo& t : kInfos)
    if (t.name == lower) return t.id;
  for (const Alias& a : kAliases)
    if (a.alias == lower) return a.type;
  return std::nullopt;
}

std::string to_text(ShapeView shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::optional<std::uint64_t> element_count(ShapeView shape) noexcept {
  if (std::ranges::find(shape, 0u) != shape.end()) return 0;
  std::uint64_t n = 1;
  for (const std::uint64_t d : shape) {
    const auto product = checked_mul(n, d);
    if (!product) return std::nullopt;
    n = *product;
  }
  return n;
}

std::optional<std::uint64_t> byte_size(DType type, std::uint64_t elements) noexcept {
  const DTypeInfo& t = info(type);
  if (elements % t.block_elems != 0) return std::nullopt;
  return checked_mul(elements / t.block_elems, t.block_bytes);
}

std::uint64_t checked_size(DType type, std::uint64_t elements) {
  if (const auto bytes = byte_size(type, elements)) return *bytes;
  throw Error(Fault::Internal, fmt::format("{} {} elements have no size", elements, name_of(type)));
}

void swap_endian(DType type, MutableBytes bytes) noexcept {
  const Row& row = kTypes[static_cast<std::size_t>(type)];
  const std::size_t block = row.info.block_bytes;
  if (row.fields[0].count == 0) return;
  if (block == 2) {  // the common widths without the loop over fields
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) std::swap(bytes[i], bytes[i + 1]);
    return;
  }
  for (std::size_t at = 0; at + block <= bytes.size(); at += block)
    for (const Fields& f : row.fields)
      for (std::size_t i = 0; i < f.count; ++i)
        reverse_field(bytes.data() + at + f.offset + i * f.width, f.width);
}

}  // namespace wtool
