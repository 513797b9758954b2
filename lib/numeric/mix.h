#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/model/metadata.h"
#include "lib/numeric/policy.h"

namespace wtool {

// llama.cpp's mixes: which tensor of a model gets which block type. All of it is data, in mix.cc:
// one row for each mix, with rules that are tried in order.

// What a tensor is, as far as mixes care.
enum class Part : std::uint8_t {
  None,       // ends a list of rules
  Any,        // in a rule: whatever it is
  Output,     // or the token embedding where there is no output
  Embedding,  // of tokens
  Value,      // attention's V, fused Q, K and V, or the K and V of multi-head latent attention
  Key,
  Query,
  AttnOut,
  Up,
  Gate,
  Down,
  Other,
};

// When a rule holds: all of its conditions do. Positions count the tensors of one part as the
// reference visits them: by layer, then by name.
using When = std::uint32_t;
inline constexpr When kAlways = 0,
                      kMore = 1u << 0,  // the first and last eighth and every third between them
    kFirst2 = 1u << 1, kFirst4 = 1u << 2, kFirstEighth = 1u << 3, kFirstSixteenth = 1u << 4,
                      kMiddle = 1u << 5,  // neither the first nor the last eighth
    kGqa4 = 1u << 6,                      // 4 query heads or more share a key and value
    kGqa4OrExperts4 = 1u << 7, kExperts8 = 1u << 8, kNotExperts8 = 1u << 9, kFalcon = 1u << 10,
                      kNotFalcon = 1u << 11, kImatrix = 1u << 12, kNoImatrix = 1u << 13,
                      kStacked = 1u << 14,  // 3-D: the experts of a layer in one tensor
    kNotBailing3 = 1u << 15,                // whose projections are 3-D too
    kRowMisfit = 1u << 16,                  // rows are no multiple of the mix's own block
    kUsual = 1u << 17, kLow = 1u << 18;     // the mix's family

struct MixRule {
  Part part = Part::None;
  When when = kAlways;
  DType type = DType::F32;
};

enum class MixFamily : std::uint8_t {
  Usual,
  Low,      // IQ1 and IQ2: rules of their own for experts
  Experts,  // MXFP4_MOE: nothing but its own rules
  Pure,     // one type for all; those of blocks are ours, llama-quantize has no such
};
struct Mix {
  std::string_view name, alias;  // lower case; alias may be empty
  std::uint32_t file_type;       // general.file_type
  DType base;                    // what no rule says
  MixFamily family;
  std::array<MixRule, 10> rules = {};  // the first that holds
  bool needs_importance = false;       // the reference refuses it without
};
std::span<const Mix> all_mixes() noexcept;
const Mix* find_mix(std::string_view name) noexcept;  // in any case; null: none

// What rules ask about the model as a whole.
struct MixFacts {
  std::string architecture;  // "llama"; "" unknown
  std::uint64_t layers = 0, experts = 0;
  std::uint64_t heads = 0, heads_kv = 0;  // of the first layer; 0: unknown
  bool importance = false;                // there is an importance matrix
};
// From a GGUF file's keys: general.architecture and its own. Others are left as they are.
void read_mix_facts(const Metadata& gguf, MixFacts& facts);

struct MixTensor {
  std::string_view name;
  DType dtype;
  ShapeView shape;
  // Something else has decided. As in the reference such a tensor is not counted where positions
  // are.
  bool decided = false;
};
struct MixChoice {
  std::optional<DType> type;  // nothing: it stays as it is
  std::string reason;         // "q4_k_m: ffn_down, first eighth of the layers"; "norm"
};
struct MixOptions {
  bool pure = false;  // the mix's own type for all that it touches
};
// In the order of `tensors`; what is decided gets nothing.
std::vector<MixChoice> apply_mix(const Mix& mix, const MixFacts& facts,
                                 std::span<const MixTensor> tensors, NameStyle style,
                                 const MixOptions& options = {});

// What a tensor is, from its name.
Part part_of(std::string_view name, NameStyle style) noexcept;

// What the reference writes where rows of `columns` elements are no multiple of the type's block.
// Nothing: it has nothing either.
std::optional<DType> fallback_type(DType type, std::uint64_t columns) noexcept;

}  // namespace wtool
