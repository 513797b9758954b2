#pragma once
#include <memory>
#include <vector>

#include "formats/compressed.h"
#include "lib/model/model.h"

namespace wtool {

// What 'check' finds in compressed files whose index is sound. While this lives damaged chunks of
// the model read as zeros, so that one damaged tensor hides no other.
class DamageReview {
 public:
  explicit DamageReview(const Model& model);
  ~DamageReview();
  DamageReview(const DamageReview&) = delete;
  DamageReview& operator=(const DamageReview&) = delete;

  // Of what has been read so far: a finding for each tensor, and which entries of the catalog.
  std::vector<bool> report(Diagnostics& faults) const;

 private:
  const Catalog& catalog_;
  std::vector<std::shared_ptr<const CompressedFile>> files_;
};
RuleList compressed_rules() noexcept;

}  // namespace wtool
