#include "cli/salvage.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/rewrite.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/engine/execute.h"

namespace wtool {
namespace {

OutTensor as_output(const TensorEntry& t) {
  return {.name = std::string(t.name),
          .dtype = t.dtype,
          .shape = Shape(t.shape.begin(), t.shape.end()),
          .big_endian = t.big_endian};
}

// Keys that the reader let pass and the format does not hold.
void drop_bad_metadata(Job& job, std::vector<std::string>& left_out) {
  const Format& format = *job.to.format;
  if (!format.refuses_meta || !format.refuses_meta(job.meta)) return;
  Metadata kept;
  for (const MetaEntry& e : job.meta) {
    Metadata one;
    one.append(e.key, e.value);
    if (const auto why = format.refuses_meta(one))
      left_out.push_back(fmt::format("metadata {}: {}", quoted(e.key), *why));
    else
      kept.append(e.key, e.value);
  }
  job.meta = std::move(kept);
}

void add_tensors(Job& job, std::vector<std::string>& left_out) {
  for (const TensorEntry& t : job.model->catalog.entries()) {
    if (!job.chosen[job.owner[job.model->catalog.index_of(t)]]) continue;
    if (const auto why = job.to.format->refuses(as_output(t)))
      left_out.push_back(fmt::format("tensor {}: {}", quoted(t.name), *why));
    else
      add_copy(job, t);
  }
}

}  // namespace

Salvaged salvage(std::shared_ptr<const Model> model, const CheckOptions& o,
                 const Context& context) {
  RewriteOptions rewrite;
  rewrite.input = o.input;
  rewrite.select = o.select;
  rewrite.output.output = o.salvage;
  rewrite.output.force = o.findings.force;
  if (model->catalog.entries().empty())
    throw Error(Fault::BadFile, "holds no intact tensor: there is nothing to salvage")
        .in(model->path);
  Job job = prepare(std::move(model), rewrite, context, "salvaged");
  if (job.to.kind == OutputSet::Kind::Stdout)
    throw Error(Fault::Usage, "--salvage wants a file or a folder, not standard output");
  Salvaged out{.path = job.to.path, .left_out = {}};
  drop_bad_metadata(job, out.left_out);
  add_tensors(job, out.left_out);
  const Placement placement = lay_out(job, rewrite);
  out.tensors = placement.tensors.size();
  out.bytes = placement.total_bytes;
  OutputSet outputs(job.to.path, job.to.kind,
                    o.findings.force ? OutputSet::Existing::Replace : OutputSet::Existing::Refuse);
  RunOptions run = context.run;
  Progress progress(*context.common, "salvage", "units");
  run.progress = progress.callback();
  execute(job.plan, run, &outputs);
  for (const SourcePtr& s : job.model->catalog.sources()) s->check_unchanged();
  outputs.commit();
  return out;
}

}  // namespace wtool
