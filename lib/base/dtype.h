#pragma once
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/bytes.h"

namespace wtool {

// Every element type of every format, in one list. Plain types first, then ggml's block types.
enum class DType : std::uint8_t {
  Bool,
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  U64,
  I64,
  F16,
  BF16,
  F32,
  F64,
  C64,
  C128,
  F8_E4M3,
  F8_E5M2,
  F8_E8M0,
  F8_E4M3FNUZ,
  F8_E5M2FNUZ,
  F6_E2M3,
  F6_E3M2,
  F4,
  V1,
  V2,  // opaque bytes of an NPY void: listed and copied, never decoded
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q8_0,
  Q8_1,
  Q2_K,
  Q3_K,
  Q4_K,
  Q5_K,
  Q6_K,
  Q8_K,
  IQ2_XXS,
  IQ2_XS,
  IQ3_XXS,
  IQ1_S,
  IQ4_NL,
  IQ3_S,
  IQ2_S,
  IQ4_XS,
  IQ1_M,
  TQ1_0,
  TQ2_0,
  MXFP4,
  NVFP4,
  Q1_0,
  Q2_0,
};
enum class Kind : std::uint8_t { Bool, Int, Float, Complex, Opaque, Block };

// Every element type is "so many elements in so many bytes": f32 {1,4}, f4 {2,1}, q8_0 {32,34}.
// Sources: safetensors' Dtype (tensor.rs), ggml's type table (ggml.c), numpy's scalar kinds.
struct DTypeInfo {
  DType id;
  std::string_view name;  // lower case: "bf16", "f8_e4m3", "q4_k"
  Kind kind;
  std::uint16_t block_elems, block_bytes;
};

const DTypeInfo& info(DType type) noexcept;
inline std::string_view name_of(DType type) noexcept {
  return info(type).name;
}
std::span<const DTypeInfo> all_dtypes() noexcept;

// By our name or one that users know (fp16, float16, half, …), in any case.
std::optional<DType> parse_dtype(std::string_view name);

using Shape = std::vector<std::uint64_t>;  // outermost dimension first, C order
using ShapeView = std::span<const std::uint64_t>;

std::string to_text(ShapeView shape);  // "[4, 8]"; "[]" is a scalar

// nullopt on overflow of 64 bits. A dimension of 0 gives 0 wherever it stands.
std::optional<std::uint64_t> element_count(ShapeView shape) noexcept;
// nullopt on overflow or when the elements do not fill whole blocks (whole bytes).
std::optional<std::uint64_t> byte_size(DType type, std::uint64_t elements) noexcept;
// The size of what has been through the catalog's gate: throws Internal if it does not hold.
std::uint64_t checked_size(DType type, std::uint64_t elements);

// Turns big-endian elements into little-endian ones and back. `bytes` holds whole blocks. Blocks
// swap each 16- or 32-bit field inside, not the packed codes (gguf_convert_endian.py).
void swap_endian(DType type, MutableBytes bytes) noexcept;

}  // namespace wtool
