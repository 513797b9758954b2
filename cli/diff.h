#pragma once
// What the files of `wtool diff` share.
#include <memory>
#include <string>
#include <vector>

#include "cli/diff_map.h"
#include "cli/gates.h"
#include "lib/model/report.h"
#include "lib/numeric/comparison.h"

namespace wtool {

// One pair of tensors and what was found.
struct DiffLine {
  std::string a, b;  // names
  Shape shape_a, shape_b;
  std::string dtype_a, dtype_b;  // or schemes
  DType dtype = DType::F32;      // of A's values
  bool compared = false;         // the shapes are the same
  bool in_steps = false;
  Comparison values;

  bool same_shape() const { return shape_a == shape_b; }
  bool same_type() const { return dtype_a == dtype_b; }
};

// A tensor that only one side has.
struct Alone {
  std::string name;
  Shape shape;
  std::string dtype;
};

// A key or a side file that is not the same on both sides; of one that only one side has, the other
// text is empty.
struct KeyDifference {
  enum class Where : std::uint8_t { OnlyA, OnlyB, Both } where;
  std::string key, a, b;
};
std::vector<KeyDifference> diff_metadata(const Metadata& a, const Metadata& b);
// By name; of config.json by its keys. Only where both models lie in folders.
std::vector<KeyDifference> diff_side_files(const Model& a, const Model& b);

struct Diff {
  std::shared_ptr<const Model> a, b;
  std::shared_ptr<const Model> opened;  // the one of them that is seen otherwise than it is, or null
  std::vector<std::string> notes;       // how, for people
  Tolerance tolerance;
  std::string tolerance_text;
  std::vector<DiffLine> lines;  // in the order of A
  std::vector<Alone> only_a, only_b;
  std::vector<KeyDifference> metadata, files;
  std::vector<Gate> gates;
  std::vector<GateResult> judged;  // of `gates`

  // Types, metadata and side files only count where the tolerance is 'exact'.
  bool strict() const { return tolerance.kind == Tolerance::Kind::Exact; }
  bool differs(const DiffLine& line) const;
  bool differs() const;
  bool ok() const { return !differs() && all_passed(judged); }
};

// Of a GGUF file of a known architecture and a Hugging Face folder of the same one, sees the folder
// as the GGUF that it becomes; says so, or why not, in the notes.
void see_alike(Diff& diff);

// A row for each tensor compared, and what stands for layers.
Report report_of(const Diff& diff);
struct DiffLayer {
  std::string label;
  std::vector<const DiffLine*> lines;
  Comparison values;
  bool in_steps = false, differs = false;
};
std::vector<DiffLayer> layers_of(const Diff& diff);

struct DiffView {
  bool by_layer = false, all = false;
};
void print_diff(const Diff& diff, const DiffView& view);
void write_diff_json(const Diff& diff, const DiffView& view);
// For --junit and --sarif: a test case for each tensor, each other difference and each gate.
std::vector<Verdict> diff_verdicts(const Diff& diff);

}  // namespace wtool
