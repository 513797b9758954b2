#pragma once
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/quantize_types.h"
#include "cli/rewrite.h"

namespace wtool {

// What of a model goes into a quantisation scheme: the options that each weight ends up with, what
// fused weights share, and the quantization_config of it all.
class SchemePlan {
 public:
  SchemePlan(Job& job, const Scheme& scheme) : job_(job), scheme_(scheme) {}

  // Weights that become Nvfp4 and the like: those that an engine fuses share a measure.
  void share(std::span<const std::uint32_t> tensors, const SchemeOptions& options);
  // Adds the step and the fate. With groups of any size, smaller ones where the width demands it.
  // Why not, where it can't be.
  std::optional<std::string> add(const LogicalTensor& tensor, const Choice& choice,
                                 ColumnImportance importance);

  const Scheme& scheme() const noexcept { return scheme_; }
  const std::vector<ConfigGroup>& groups() const noexcept { return groups_; }
  // "int4 (group 128) by search, int8 (group 128) by search": kept in the output's metadata.
  std::string recipe() const;
  // What engines will not do with the result, or only slowly. `kept`: modules left as they were.
  std::vector<std::string> warnings(std::span<const std::string> kept) const;

 private:
  struct Planned {
    const LogicalTensor* tensor;
    std::string module;  // in the output
    SchemeOptions options;
  };
  void add_to_group(const SchemeOptions& options, std::string module);

  Job& job_;
  const Scheme& scheme_;
  std::vector<ConfigGroup> groups_;
  std::vector<Planned> planned_;
  std::map<std::uint32_t, std::shared_ptr<const Step>> shared_;  // by logical tensor
};

std::string text_of(const SchemeOptions& options);  // "int4 (group 128)"

}  // namespace wtool
