#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/rewrite.h"
#include "cli/signer.h"
#include "cli/source_digests.h"
#include "lib/model/lineage.h"
#include "lib/trust/build_record.h"
#include "lib/trust/written_digest.h"

namespace wtool {

// What convert and quantize leave about their output: the lineage in its metadata, and beside it a
// signature, a manifest, a provenance statement and a bill of materials. All digests are made while
// the output is being written.
class Records {
 public:
  // Looks at the options; puts the lineage into job.meta, without the digests. Throws Usage.
  Records(const RecordOptions& options, Job& job, const Finish& how, const Context& context);

  std::vector<std::string> beside() const;  // paths of what will lie beside the output

  // Before the work: takes the places, reads the key, begins to hash the sources.
  void begin(OutputSet& outputs, OutputSet::Existing existing);
  Follower* follower() noexcept { return digests_ ? digests_.get() : nullptr; }
  // After it, before outputs.commit(): writes everything but gives nothing its name.
  void write(OutputSet& outputs);
  void commit();  // after outputs.commit()

  std::vector<WrittenRecord> paths() const;  // of all that is written, or will be

 private:
  struct Beside {
    std::string kind, path;
    std::unique_ptr<OutputSet> output = {};
  };

  bool wants_lineage() const;
  void take_source_digests();
  void write_lineage(OutputSet& outputs);
  BuildRecord build_record(const WrittenDigests::Result& found) const;
  Statement statement(const WrittenDigests::Result& found) const;
  std::string manifest(const WrittenDigests::Result& found) const;
  void put(std::string_view kind, std::string_view text);

  const RecordOptions& options_;
  Job& job_;
  const Finish& how_;
  const Context& context_;
  std::optional<Lineage> lineage_;
  std::vector<Beside> beside_;
  std::optional<std::size_t> inside_;  // the signature's number in an output folder
  std::size_t first_file_ = 0;         // the first number of the plan's files there
  std::unique_ptr<SourceDigests> source_digests_;
  std::vector<Lineage::Source> sources_;
  std::vector<OutTensor> tensors_;
  std::optional<Signer> signer_;
  std::unique_ptr<WrittenDigests> digests_;
};

}  // namespace wtool
