#pragma once
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/common.h"
#include "cli/inspect_lineage.h"
#include "lib/base/text.h"

namespace wtool {

// What 'inspect' tells as text and as JSON.

struct InspectOptions {
  std::vector<std::string> inputs;
  InputOptions open;  // the path is each of `inputs`
  SelectOptions select;
  bool list = false, meta = false;
  std::string by, sort, get;
  LineageOptions lineage;
};

// One of the inputs: a model, or why there is none.
struct Inspected {
  std::shared_ptr<const Model> model;
  std::optional<Error> error;
};
ExitCode code_of(const Inspected& inspected, const InspectOptions& options);

// The tensors that are asked for, as they are to be sorted.
std::vector<std::uint32_t> chosen(const Model& model, const InspectOptions& options);

// The file's name within its model.
std::string_view file_label(const Model& model, const Source& source);

struct Totals {
  std::uint64_t bytes = 0, parameters = 0;
  double bits_per_weight() const;
};
Totals totals(const Model& model);

// --by
struct Sum {
  std::uint64_t tensors = 0, parameters = 0, bytes = 0;
};
// Natural order by way of the map's comparison.
struct Natural {
  bool operator()(const std::string& a, const std::string& b) const { return natural_less(a, b); }
};
using Sums = std::map<std::string, Sum, Natural>;
std::vector<std::string> split_list(std::string_view list);
Sums sums_by(const Model& model, std::span<const std::uint32_t> which, const std::string& by);

// The document, of all inputs.
void write_inspect_json(const InspectOptions& options, const std::vector<Inspected>& inspected);

}  // namespace wtool
