#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "cli/common.h"
#include "cli/gates.h"
#include "cli/passphrase.h"
#include "formats/hf/model_view.h"
#include "lib/engine/execute.h"
#include "lib/model/plan.h"
#include "lib/model/selector.h"

namespace wtool {

// What convert and quantize share: one streaming pass from a model to files.

// What is left about an output: cli/records.h.
struct RecordOptions {
  bool lineage = false, no_lineage = false, manifest = false, provenance = false, bom = false;
  std::string key;  // --sign
  PassphraseOptions passphrase;
  std::function<std::string(std::string_view format)> recipe;  // cli/recipe.h
};
void add_record_options(CLI::App& app, RecordOptions& options);
struct WrittenRecord {
  std::string kind, path;  // "signature", "manifest", …
};

// Options about names, metadata, shards and byte order.
struct RewriteOptions {
  InputOptions input;
  SelectOptions select;
  OutputOptions output;
  std::string to;                     // format by name; "": -o's suffix, else the input's
  std::string shard_size;             // "5GB"
  bool single = false;                // one file, whatever the input is
  std::vector<std::string> rename;    // A=B
  std::vector<std::string> set;       // KEY[:TYPE]=VALUE
  std::vector<std::string> set_file;  // KEY=FILE
  std::vector<std::string> unset;     // KEY
  bool drop_metadata = false;
  std::string endian;  // little, big
  bool saturate = false;
  // Of a Hugging Face folder that becomes GGUF.
  bool as_is = false;     // tensors keep their names: another container, no other model
  std::string arch, pre;  // the class; the pre-tokenizer
  bool no_vocab = false;
  RecordOptions records;
};
void add_rewrite_options(CLI::App& app, RewriteOptions& options);

// Metadata of safetensors that were quantized: the version and how scales were chosen.
inline constexpr std::string_view kRecipeKey = "wtool.quantize";

inline constexpr std::string_view kWarning = "warning: ";  // begins remarks that went to stderr

inline constexpr std::string_view kImportanceUsed = "used";  // of Fate::importance

// What happens to one logical tensor, or to one stored part of it that is copied.
struct Fate {
  std::string name;             // in the output; of a scheme's tensors, the logical name
  std::string_view source;      // in the input: in the catalog's arena
  Shape shape;                  // of the values
  std::string from, to;         // "bf16", "int8 g128"
  std::string why;              // why it was kept or what it fell back to; "": as asked
  std::string reason = {};      // why it has this type, where something chose it
  std::string instead_of = {};  // the type that was wanted, where another had to be taken
  std::string importance =
      {};                // of blocks, with a matrix: "used", "missing", "mismatch", "ignored"
  bool encoded = false;  // its values were encoded anew
  bool kept = false;     // it stays although the command is about changing it
  std::uint64_t elements = 0, bytes_in = 0, bytes_out = 0;
  std::uint32_t input_file = 0;               // index into the catalog's sources
  std::size_t outputs = 0;                    // how many of the plan's, consecutive
  const ModelView::Origin* origin = nullptr;  // of a tensor that is seen as another
};

// A rewrite in the making: prepare() it, add the steps, finish() it.
struct Job {
  std::shared_ptr<const Model> model;
  std::shared_ptr<const ModelView> view = nullptr;  // what the model is seen through, or null
  std::vector<bool> chosen;                         // by logical tensor
  std::vector<std::uint32_t> owner;                 // the logical tensor of each catalog entry
  Destination to;
  std::shared_ptr<const Renamer> rename;
  Metadata meta;  // of the output, edits done
  Plan plan;
  std::vector<Fate> fates;
  std::vector<SideFile> side;        // of the output folder
  std::vector<std::string> remarks;  // for people: what changed beside the tensors

  const Model& input() const { return view ? *view->from : *model; }  // whose files are read
  // Where the entry's tensor comes from; null: from itself.
  const ModelView::Origin* origin_of(std::uint32_t tensor) const {
    return view ? &view->origins[tensor] : nullptr;
  }
};
// Opens, selects, decides where the result goes and edits the metadata. `prefer`: the format to
// write when neither -o nor --to says one and the input is NPY; null: its own.
Job prepare(const RewriteOptions& options, const Context& context, std::string_view label,
            const Format* prefer = nullptr);
// The same for a model that is open.
Job prepare(std::shared_ptr<const Model> model, const RewriteOptions& options,
            const Context& context, std::string_view label, const Format* prefer = nullptr);

// The stored bytes as they are, under the new name.
void add_copy(Job& job, const TensorEntry& entry, std::string why = {}, bool kept = false);
// What a scheme or a cast has appended to the plan since `steps_before`, as one tensor's fate.
void add_encoded(Job& job, const LogicalTensor& tensor, std::size_t steps_before, std::string to,
                 std::string why = {});

// cli/rewrite_files.cc: cuts what the steps make into files, by the options, and names them. Throws
// Usage if names collide or a format refuses a tensor. After it the plan can be executed.
Placement lay_out(Job& job, const RewriteOptions& options);

struct Finish {
  std::string_view verb;  // the command: names the JSON schema
  std::vector<Gate> gates;
  std::string quantization;       // quantization_config as JSON text, or ""
  bool keep = false;              // what fails a gate is written all the same
  bool incomplete = false;        // something is missing that cannot be had: the answer is no
  FindingsOptions findings = {};  // of the gates
};
// The columns of its reports: what a gate can speak of.
std::span<const std::string_view> rewrite_columns() noexcept;
std::string kept_reasons(const Job& job);  // "65 norm, 1 embedding"
// Checks, cuts into files, then prints the plan (--dry-run), or runs it, judges the report and
// commits.
ExitCode finish(Job& job, const RewriteOptions& options, const Context& context, const Finish& how);

// The folder's config.json: sets one top-level member from JSON text (removes it if the text is
// empty) and keeps the rest as it is. False if there is no config.json, or nothing to remove.
bool set_in_config(Job& job, const std::string& key, const std::string& json_text);
// A config.json as an object; throws BadFile if it is none.
nlohmann::ordered_json read_config(const SideFile& file);
// The input folder's quantization_config as JSON text, or "".
std::string quantization_config_of(const Model& model);
// Follows a cast of the whole model: "torch_dtype" or "dtype" in config.json, if there.
void follow_dtype(Job& job, DType to);

// cli/metadata_edit.cc: applies --unset, --set, --set-file in this order.
void edit_metadata(Metadata& meta, const RewriteOptions& options, bool typed);
// Whether one of them names the key: then what the user says stands.
bool edits_key(const RewriteOptions& options, std::string_view key);

// cli/metadata_file.cc: the metadata of an NPY folder.
inline constexpr std::string_view kMetadataFile = "wtool-metadata.json";
SideFile metadata_file(const Metadata& meta);
Metadata read_metadata_file(const SideFile& file);  // throws BadFile

// cli/rewrite_report.cc
struct Outcome {
  const Job& job;
  const Placement& placement;
  const Report& report;
  const Finish& how;
  bool dry_run;
  std::vector<GateResult> gates;
  std::span<const LogicalTensor> gate_rows = {};
  std::vector<WrittenRecord> records = {};

  bool written() const noexcept { return !dry_run && (how.keep || all_passed(gates)); }
};
void print_outcome(const Outcome& outcome, bool verbose);
void write_outcome_json(const Outcome& outcome, std::function<void(std::string_view)> sink);

}  // namespace wtool
