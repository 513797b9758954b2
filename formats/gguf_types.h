#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lib/model/format.h"

// What GGUF's reader and writer share. Private to formats/gguf*.cc.
namespace wtool {

// enum ggml_type (ggml.h). The numbers in between were types once: kRemovedGgmlTypes.
struct GgmlType {
  std::uint32_t id;
  DType dtype;
};
inline constexpr std::array kGgmlTypes{
    GgmlType{0, DType::F32},     GgmlType{1, DType::F16},      GgmlType{2, DType::Q4_0},
    GgmlType{3, DType::Q4_1},    GgmlType{6, DType::Q5_0},     GgmlType{7, DType::Q5_1},
    GgmlType{8, DType::Q8_0},    GgmlType{9, DType::Q8_1},     GgmlType{10, DType::Q2_K},
    GgmlType{11, DType::Q3_K},   GgmlType{12, DType::Q4_K},    GgmlType{13, DType::Q5_K},
    GgmlType{14, DType::Q6_K},   GgmlType{15, DType::Q8_K},    GgmlType{16, DType::IQ2_XXS},
    GgmlType{17, DType::IQ2_XS}, GgmlType{18, DType::IQ3_XXS}, GgmlType{19, DType::IQ1_S},
    GgmlType{20, DType::IQ4_NL}, GgmlType{21, DType::IQ3_S},   GgmlType{22, DType::IQ2_S},
    GgmlType{23, DType::IQ4_XS}, GgmlType{24, DType::I8},      GgmlType{25, DType::I16},
    GgmlType{26, DType::I32},    GgmlType{27, DType::I64},     GgmlType{28, DType::F64},
    GgmlType{29, DType::IQ1_M},  GgmlType{30, DType::BF16},    GgmlType{34, DType::TQ1_0},
    GgmlType{35, DType::TQ2_0},  GgmlType{39, DType::MXFP4},   GgmlType{40, DType::NVFP4},
    GgmlType{41, DType::Q1_0},   GgmlType{42, DType::Q2_0},
};
struct RemovedGgmlType {
  std::uint32_t id;
  std::string_view name, instead;
};
inline constexpr std::array kRemovedGgmlTypes{
    RemovedGgmlType{4, "Q4_2", ""},
    RemovedGgmlType{5, "Q4_3", ""},
    RemovedGgmlType{31, "Q4_0_4_4", "Q4_0"},
    RemovedGgmlType{32, "Q4_0_4_8", "Q4_0"},
    RemovedGgmlType{33, "Q4_0_8_8", "Q4_0"},
    RemovedGgmlType{36, "IQ4_NL_4_4", "IQ4_NL"},
    RemovedGgmlType{37, "IQ4_NL_4_8", "IQ4_NL"},
    RemovedGgmlType{38, "IQ4_NL_8_8", "IQ4_NL"},
};

// Limits of llama.cpp's reader (gguf.cpp, ggml.h) and of the written specification.
inline constexpr std::uint32_t kGgufVersion = 3;
inline constexpr std::size_t kGgufMaxName = 63;            // GGML_MAX_NAME with its terminator
inline constexpr std::size_t kGgufMaxDims = 4;             // GGML_MAX_DIMS
inline constexpr std::size_t kGgufMaxKey = 65535;          // the specification's
inline constexpr std::uint64_t kGgufMaxString = 1u << 30;  // bytes
inline constexpr std::uint64_t kGgufMaxArray = 1u << 30;   // elements
inline constexpr std::uint64_t kGgufMaxElements = ~std::uint64_t{0} >> 1;  // int64_t there
inline constexpr std::uint64_t kGgufMaxParts = 65535;                      // split.count is a u16
// Our own, as for other numbered sets: each name costs memory.
inline constexpr std::uint64_t kGgufMostParts = 10'000;
// Our own: far above any real file, they bound the memory that a hostile header can ask for, and
// the padding that its alignment can make us write.
inline constexpr std::uint64_t kGgufMaxKeys = 1u << 20;
inline constexpr std::uint32_t kGgufMaxAlignment = 1u << 26;

inline constexpr std::uint32_t kGgufAlignment = 32;  // unless the key says otherwise
inline constexpr std::string_view kGgufAlignmentKey = "general.alignment";
inline constexpr std::string_view kGgufSplitNo = "split.no", kGgufSplitCount = "split.count",
                                  kGgufSplitTensors = "split.tensors.count";

// Why this cannot be the value of general.alignment.
std::optional<std::string> bad_gguf_alignment(const MetaValue& value);

// The writing half of kGguf.
std::optional<std::string> gguf_refuses(const OutTensor& tensor);
std::optional<std::string> gguf_refuses_meta(const Metadata& meta);
Layout gguf_layout(const Metadata& meta, std::span<const OutTensor> tensors);
std::string gguf_shard_name(std::string_view stem, std::size_t i, std::size_t count);
Metadata gguf_shard_meta(const Metadata& meta, std::size_t i, std::size_t count,
                         std::size_t all_tensors);

// Format::place and ::whole_meta (gguf_set.cc).
std::optional<SetPlace> gguf_place(const Metadata& meta, std::string_view path);
Metadata gguf_whole_meta(const Metadata& first, std::size_t all_tensors, std::string& fault);

// What a checker tells of a sound file (gguf_review.cc).
void review_gguf(const Catalog& catalog, bool deep, Diagnostics& faults);
RuleList gguf_review_rules() noexcept;

}  // namespace wtool
