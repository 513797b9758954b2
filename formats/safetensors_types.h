#pragma once
#include <array>

#include "lib/model/format.h"

// What safetensors' reader, writer and review share. Private to formats/safetensors*.cc.
namespace wtool {

inline constexpr std::uint64_t kSafetensorsMaxHeader =
    100'000'000;  // the reference's limit (tensor.rs)
inline constexpr std::string_view kSafetensorsMetadata = "__metadata__";

// The format's dtypes, the most frequent first.
struct SafetensorsType {
  DType type;
  std::string_view name;
};
inline constexpr std::array kSafetensorsTypes{
    SafetensorsType{DType::BF16, "BF16"},
    SafetensorsType{DType::F16, "F16"},
    SafetensorsType{DType::F32, "F32"},
    SafetensorsType{DType::U8, "U8"},
    SafetensorsType{DType::I8, "I8"},
    SafetensorsType{DType::F8_E4M3, "F8_E4M3"},
    SafetensorsType{DType::I32, "I32"},
    SafetensorsType{DType::I64, "I64"},
    SafetensorsType{DType::U32, "U32"},
    SafetensorsType{DType::Bool, "BOOL"},
    SafetensorsType{DType::F64, "F64"},
    SafetensorsType{DType::U64, "U64"},
    SafetensorsType{DType::I16, "I16"},
    SafetensorsType{DType::U16, "U16"},
    SafetensorsType{DType::C64, "C64"},
    SafetensorsType{DType::F8_E5M2, "F8_E5M2"},
    SafetensorsType{DType::F8_E8M0, "F8_E8M0"},
    SafetensorsType{DType::F8_E4M3FNUZ, "F8_E4M3FNUZ"},
    SafetensorsType{DType::F8_E5M2FNUZ, "F8_E5M2FNUZ"},
    SafetensorsType{DType::F6_E2M3, "F6_E2M3"},
    SafetensorsType{DType::F6_E3M2, "F6_E3M2"},
    SafetensorsType{DType::F4, "F4"},
};

// The writing half of kSafetensors.
std::optional<std::string> safetensors_refuses(const OutTensor& tensor);
Layout safetensors_layout(const Metadata& meta, std::span<const OutTensor> tensors);
std::string safetensors_shard_name(std::string_view stem, std::size_t i, std::size_t count);

// What a checker tells of a sound file (safetensors_review.cc).
void review_safetensors(const Catalog& catalog, bool deep, Diagnostics& faults);
RuleList safetensors_review_rules() noexcept;

}  // namespace wtool
