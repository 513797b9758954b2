#pragma once
// What the files of the compressed-tensors scheme share; nobody else includes this.
//
// pack-quantized: X.weight [out, in] of 1 … 8 bits is stored as
//   X.weight_packed      i32 [out, ceil(in × bits / 32)]  each row a little-endian bit stream of
//                                                         codes plus 2^(bits-1)
//   X.weight_scale       [out, 1], [out, in / group] or [1]
//   X.weight_shape       i64 [2], out and in
//   X.weight_zero_point  i32 [ceil(out × bits / 32), groups], packed down the rows; if asymmetric
//   X.weight_g_idx       i32 [in], the group of each column; if groups are not in order
// int-quantized, naive-quantized: X.weight i8 [out, in], X.weight_scale as above,
//   X.weight_zero_point  i8, shaped as the scale; if asymmetric
// Weights of floats are described in compressed_tensors_float.cc.
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/schemes/decoded.h"
#include "formats/schemes/written.h"

namespace wtool::compressed_tensors {

inline constexpr std::string_view kWeight = ".weight", kPacked = ".weight_packed",
                                  kScale = ".weight_scale", kShape = ".weight_shape",
                                  kZero = ".weight_zero_point", kGroupIndex = ".weight_g_idx";
inline constexpr unsigned kMaxBits = 8;
inline constexpr std::uint64_t kWordBits = 32;

inline constexpr Rule kParts{"compressed-tensors.parts",
                             "the parts of a quantized weight are all there"},
    kShapes{"compressed-tensors.shape", "the parts of a quantized weight fit each other"},
    kAgrees{"compressed-tensors.config", "quantization_config agrees with what is stored"},
    kIndex{"compressed-tensors.g_idx", "g_idx names groups that there are"},
    kTargets{"compressed-tensors.targets", "quantization_config targets modules that there are",
             true};
inline constexpr std::array<const Rule*, 5> kRules{&kParts, &kShapes, &kAgrees, &kIndex, &kTargets};

// One entry of config_groups: how the weights of the modules it targets are quantised.
struct WeightArgs {
  unsigned bits = 0;  // 1 … 8
  bool symmetric = true;
  std::uint64_t group = 0;                       // 0: one scale for a row, or for all
  std::uint64_t block_rows = 0, block_cols = 0;  // 0: not in blocks of rows and columns
  std::vector<std::string> targets;
};
// A quantization_config.
struct Config {
  std::string where, method;               // the file it comes from, and quant_method, for messages
  std::vector<WeightArgs> groups, floats;  // of integers, of floats
  std::vector<std::string> ignore;
};

enum class ConfigKind : std::uint8_t { None, Ours, Foreign };
// Reads the model's quantization_config: from config.json beside it, or from a lone file's
// metadata. Foreign: there is one, of another method.
ConfigKind read_config(const Model& model, Diagnostics& faults, Config& config);

// The stored tensors that make up one weight; null where there is none.
struct Parts {
  std::string module;
  const TensorEntry *codes = nullptr, *scale = nullptr, *shape = nullptr, *zero = nullptr,
                    *g_idx = nullptr;
  bool packed = false;
};

// What headers and the two numbers of weight_shape say about a weight.
struct Layout {
  std::uint64_t rows = 0, cols = 0;
  std::uint64_t groups = 1;  // scales in a row
  bool one_scale = false;    // for the whole tensor
  bool packed = false, zero_packed = false;
  std::vector<unsigned> bits;  // all that fit; one once it is settled
  std::uint64_t group() const { return cols / groups; }
};

// The weight's values, in f32. Throws BadFile if the group index names groups there are not.
TensorPtr decoded(const std::string& where, const Parts& parts, const Layout& layout,
                  const Catalog& catalog);

// The weights of floats: adds to `found`. `sure`: there is a config of this method.
void recognise_floats(const Model& model, const Config& config, bool sure, Notes& notes,
                      Diagnostics& faults, std::vector<Found>& found);
bool is_float_weight(const TensorEntry& codes);
TensorPtr open_floats(const Model& model, const LogicalTensor& tensor);

std::vector<Found> recognise(const Model& model, Diagnostics& faults);
TensorPtr open(const Model& model, const LogicalTensor& tensor);

// ---- writing

inline constexpr std::string_view kGlobalScale = ".weight_global_scale";

bool packs(const SchemeOptions& options);              // integers: into words
std::uint64_t group_of(const SchemeOptions& options);  // 0: one scale for a row

std::unique_ptr<Step> integer_step(const Target& target, const SchemeOptions& options);
FloatNames float_names(const Target& target, const SchemeOptions& options);
std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept);

}  // namespace wtool::compressed_tensors
