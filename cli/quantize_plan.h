#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/quantize_types.h"
#include "cli/rewrite.h"
#include "cli/scheme_plan.h"
#include "lib/numeric/importance.h"
#include "lib/numeric/steps.h"

namespace wtool {

// An importance matrix as 'quantize' uses it.
class ImportanceFile {
 public:
  // Opens and looks at all of it; throws BadFile if it is none.
  ImportanceFile(const std::string& path, const Context& context);

  const std::string& path() const noexcept { return path_; }
  const Importance& matrix() const noexcept { return matrix_; }
  const std::string& sha256() const noexcept { return sha256_; }
  // llama-quantize's keys, and the digest of the file.
  void record(Metadata& meta) const;

 private:
  std::string path_;
  std::shared_ptr<const Model> model_;
  Importance matrix_;
  std::string sha256_;
};

struct QuantizeRequest {
  Asked all;
  std::vector<Override> rules;
  Method method = Method::Exact;
  bool pure = false, fallback = false, requantize = false, saturate = false;
  bool require_importance = false;
  std::shared_ptr<const ImportanceFile> importance;  // or null
};

// Works through the model: one tensor at a time, in file order. Adds the steps and fates to the
// job.
class QuantizePlanner {
 public:
  QuantizePlanner(Job& job, const QuantizeRequest& request, const Scheme& scheme, NameStyle style);

  // Throws Usage, naming every tensor that cannot become what it should.
  void plan();

  const SchemePlan& scheme() const { return scheme_; }
  std::size_t already() const { return already_; }  // tensors quantised in the input
  bool any_blocks() const { return any_blocks_; }
  // Modules that stay as they are: whatever an engine would take for a Linear.
  std::vector<std::string> ignored() const;

 private:
  static constexpr std::size_t kNoRule = ~std::size_t{0};
  struct Goal {  // of a tensor that is to be cast or quantised to a ggml type
    DType type;
    std::string reason;
  };

  void choose_winners();
  void apply_mix_to_rest();
  // What a tensor is to become: a choice, or nothing, and why.
  struct Decision {
    std::optional<Choice> choice;
    std::string reason;
  };
  Decision decide(std::uint32_t i) const;
  void share_scales();
  void one(std::uint32_t i, const LogicalTensor& t, const TensorEntry& entry);
  std::optional<std::string> reason_to_keep(const LogicalTensor& t) const;
  void keep(const LogicalTensor& t, const TensorEntry& entry, std::string why);
  void cast_one(const LogicalTensor& t, const TensorEntry& entry, const Goal& goal);
  void plain_one(const LogicalTensor& t, const TensorEntry& entry, const Goal& goal);
  void block_one(const LogicalTensor& t, const TensorEntry& entry, const Goal& goal);
  std::optional<DType> fitting(const LogicalTensor& t, DType type);
  QuantizeOptions weigh(const LogicalTensor& t, DType type, std::string& state);
  ColumnImportance importance_of(const LogicalTensor& t, std::string& state);
  void quantize_one(const LogicalTensor& t, const TensorEntry& entry, const Choice& choice);
  void refuse(const LogicalTensor& t, const std::string& why);
  void refuse_all() const;
  void check_importance() const;
  std::vector<std::string> strangers() const;
  void remark_importance();

  Job& job_;
  const Model& model_;
  const QuantizeRequest& request_;
  const bool gguf_;
  const NameStyle style_;
  std::vector<std::size_t> winner_;  // of each tensor, a rule or kNoRule
  std::vector<MixChoice> mixed_;     // with a mix: of each tensor that no rule has
  SchemePlan scheme_;
  std::vector<std::string> ignored_;
  struct Refusal {
    std::string why;
    std::vector<std::string> names;
  };
  std::vector<Refusal> refused_;                          // by reason
  std::vector<std::string> unweighted_, misfits_;         // names; misfits with both numbers
  std::vector<std::string> unforgiven_;                   // of both, what --require-imatrix wants
  std::size_t weighted_ = 0, unmoved_ = 0, already_ = 0;  // unmoved: of types without weights
  bool embedding_ = false, any_blocks_ = false, again_ = false, misfit_ = false, offered_ = false;
};

}  // namespace wtool
