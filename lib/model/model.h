#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/model/format.h"

namespace wtool {

struct Scheme;
class IntegerWeight;  // lib/model/integers.h

// What stored tensors mean: 'weight_packed', 'weight_scale' and 'weight_shape' are one 'weight'.
// Each stored tensor belongs to exactly one logical tensor; what no scheme claims is plain.
struct LogicalTensor {
  std::string_view name;  // in the catalog's arena
  const Scheme* scheme = nullptr;
  ShapeView shape;
  std::uint32_t first = 0, count = 1;  // its parts: Model::parts_of()
  DType dtype = DType::F32;            // of the values as opened
  std::uint8_t hint = 0;  // what the scheme settled on recognising it and wants back on opening
};

struct Model {
  std::string path;        // as given by the user; of an index or an indexed shard, the folder
  bool is_folder = false;  // its parts lie in a folder of its own
  Catalog catalog;
  std::string index_name;             // "model.safetensors.index.json" if there was one
  std::vector<SideFile> side;         // config.json, tokenizer, …: only for folders
  std::vector<std::string> left_out;  // what lies in the folder and is neither, with a reason
  std::vector<std::string> notes;  // what opening noticed and is no fault: "m/…: total_size is …"
  std::vector<LogicalTensor> tensors;  // by first part, so in file order
  std::vector<std::uint32_t> parts;    // catalog entries

  std::span<const std::uint32_t> parts_of(const LogicalTensor& t) const {
    return std::span(parts).subspan(t.first, t.count);
  }
  const TensorEntry& part(const LogicalTensor& t, std::size_t i) const {
    return catalog.entries()[parts[t.first + i]];
  }
  std::uint64_t stored_bytes(const LogicalTensor& t) const;
  TensorPtr open(const LogicalTensor& tensor) const;  // its values; made on demand, cheap
  const SideFile* side_file(std::string_view name) const noexcept;
};

// What the codes of a quantised tensor stand for.
enum class Levels : std::uint8_t {
  Integers,  // evenly spaced, `bits` wide
  Fp8,       // E4M3
  Nvfp4,     // E2M1, an E4M3 scale for each 16 of them, one f32 scale for all
  Mxfp4,     // E2M1, a power of two for each 32
  Mxfp8,     // E4M3, likewise
  Nf4,       // 16 quantiles of the normal distribution
};
enum class ScaleMethod : std::uint8_t {
  Rtn,      // from the extremes of a group alone: what the common tools write
  Search,   // a few trials, a least-squares fit, the storable scales around it
  Optimal,  // the best of all storable scales and zero points
};
// How tensors are to be written; each scheme looks at what concerns it.
struct SchemeOptions {
  Levels levels = Levels::Integers;
  unsigned bits = 8;          // of integers, 2 … 8
  std::uint64_t group = 128;  // elements along the input dimension; 0: the whole row
  bool asymmetric = false;    // integers: with zero points
  bool block = false;         // Fp8: one scale for each 128 × 128
  bool activations = false;   // 8-bit activations at run time (W8A8)
  ScaleMethod method = ScaleMethod::Search;
  bool signed_scales = false;       // scales of symmetric integers may be negative
  bool nested = true;               // Nf4: the scales are quantised too
  bool source_arithmetic = false;   // rtn in the arithmetic of the tensor's own type
  std::optional<DType> dtype = {};  // plain: the type to cast to. none: as it is
  bool saturate = false;            // plain: overflow becomes the largest value
};
// How much each column of a weight counts: elements [first, first + out.size()) of its importance,
// finite and not negative. Null: all alike.
using ColumnImportance = std::function<void(std::uint64_t first, std::span<float> out)>;
struct Target {
  std::string name;  // the source tensor's: "model.layers.0.mlp.up_proj.weight"
  TensorPtr values;
  ColumnImportance importance = nullptr;
  std::shared_ptr<const Step> shared = nullptr;  // of Scheme::measure; null: it makes its own
};
// What a scheme found: the logical name and its parts, in the order the scheme lays down.
struct Found {
  std::string name;
  std::vector<std::uint32_t> parts;
  DType dtype;
  Shape shape;
  std::uint8_t hint = 0;
};

// One group of modules that a config describes alike.
struct ConfigGroup {
  SchemeOptions options;
  std::vector<std::string> modules;  // "model.layers.0.mlp.up_proj"
};

// A quantisation convention, or 'plain'. Facts and functions, like Format.
struct Scheme {
  std::string_view name, summary;
  RuleList rules = {};  // all that recognise() may report
  // What it finds in the model's catalog and config, from headers and tiny parts only. Null:
  // nothing (write-only, or plain, which takes what the others leave).
  std::vector<Found> (*recognise)(const Model&, Diagnostics&);
  TensorPtr (*open)(const Model&, const LogicalTensor&);
  // Why this tensor can't be stored so; from its dtype and shape alone. The caller falls back or
  // keeps it.
  std::optional<std::string> (*refuses)(const Tensor&, const SchemeOptions&);
  // Adds measures and one step per tensor, in order. Null: read-only.
  void (*encode)(std::span<const Target>, const SchemeOptions&, Plan&);
  // The quantization_config as JSON text; `kept` are the modules left as they were.
  std::string (*config)(std::span<const ConfigGroup>, std::span<const std::string> kept);
  // What tensors that an engine fuses (q, k, v) must share, measured over all of them and added to
  // the plan; nothing if the options need no such thing. Null: never.
  std::shared_ptr<const Step> (*measure)(std::span<const TensorPtr>, const SchemeOptions&,
                                         Plan&) = nullptr;
  // The integers that a tensor it found is made of, to be packed another way; null if it is made of
  // something else. Null: always.
  std::shared_ptr<const IntegerWeight> (*integers)(const Model&, const LogicalTensor&) = nullptr;
};

// The tables a command passes down.
struct Registry {
  std::span<const Format* const> formats;
  std::span<const Scheme* const> schemes;  // 'plain' last
  // What a file that no format detects seems to be: "a Git-LFS pointer: …"; for the error.
  std::string (*diagnose)(const Source&);
  // The source inside one that is compressed; any other as it is. Throws if it is broken. Null: none
  // is compressed.
  SourcePtr (*unwrap)(const SourcePtr&) = nullptr;

  const Format& format(std::string_view name) const;  // throws Usage, with the names as hint
  const Scheme& scheme(std::string_view name) const;
  const Format* by_suffix(std::string_view path) const noexcept;
};

struct OpenOptions {
  bool alone = false;                             // just the named file, not its set
  std::optional<DType> void_as = {};              // opaque elements (NPY V1, V2) are this type
  const std::atomic<int>* stop_signal = nullptr;  // looked at while standard input is spooled
};

// A file, a folder, any one shard of a set, an index, or "-" for standard input: the whole model.
// Reads headers only.
std::shared_ptr<const Model> open_model(const std::string& path, const Registry& registry,
                                        const OpenOptions& options, Diagnostics& faults);
// One file's header, as a catalog. Throws with a diagnosis if no format detects it.
Catalog read_catalog(const SourcePtr& source, const Registry& registry, Diagnostics& faults,
                     const Format** found = nullptr);

// A relative path taken from a file: nullopt if it is safe to use below a folder, else why not.
std::optional<std::string> unsafe_path(std::string_view relative);

RuleList model_rules() noexcept;  // what opening a set or a folder reports

}  // namespace wtool
