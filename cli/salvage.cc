#include "cli/salvage.h"

#include <algorithm>
#include <filesystem>
#include <unordered_set>

#include <fmt/format.h>

#include "cli/report_file.h"
#include "cli/rewrite.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/engine/execute.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

RewriteOptions rewrite_options(const CheckOptions& o) {
  RewriteOptions out;
  out.input = o.input;
  out.select = o.select;
  out.output.output = o.salvage;
  out.output.force = o.findings.force;
  return out;
}

OutputSet::Existing existing(const CheckOptions& o) {
  return o.findings.force ? OutputSet::Existing::Replace : OutputSet::Existing::Refuse;
}

fs::path resolved(const std::string& path) {
  std::error_code code;
  fs::path out = fs::weakly_canonical(path, code);
  if (code) {
    Error e(Fault::Io, code.message());
    throw e.in(path);
  }
  return out;
}

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

std::string_view module_of(std::string_view tensor) {
  const auto dot = tensor.rfind('.');
  return tensor.substr(0, dot == tensor.npos ? 0 : dot);
}

// Parts of a quantized weight of which others are lost mean nothing, and no reader takes them. The
// modules that the schemes complained of.
std::unordered_set<std::string_view> broken_modules(const Diagnostics& faults) {
  std::unordered_set<std::string_view> out;
  for (const Finding& f : faults.findings())
    if (f.where.is_tensor() && f.rule->id.ends_with(".parts")) out.insert(module_of(f.where.name));
  return out;
}

// Logical tensors of which a part is damaged.
std::vector<bool> broken_tensors(const Job& job, const std::vector<bool>& damaged) {
  std::vector<bool> out(job.model->tensors.size());
  for (std::size_t i = 0; i < damaged.size(); ++i)
    if (damaged[i]) out[job.owner[i]] = true;
  return out;
}

void add_tensors(Job& job, const Diagnostics& faults, const std::vector<bool>& damaged,
                 std::vector<std::string>& left_out) {
  const auto broken = broken_modules(faults);
  const std::vector<bool> lost = broken_tensors(job, damaged);
  for (const TensorEntry& t : job.model->catalog.entries()) {
    const std::uint32_t i = job.model->catalog.index_of(t);
    if (!job.chosen[job.owner[i]]) continue;
    if (lost[job.owner[i]])
      left_out.push_back(fmt::format("tensor {}: {}", quoted(t.name),
                                     damaged[i] ? "is damaged" : "another part is damaged"));
    else if (broken.contains(module_of(t.name)) && !t.name.ends_with(".bias"))
      left_out.push_back(
          fmt::format("tensor {}: the other parts of the weight are lost", quoted(t.name)));
    else if (const auto why = job.to.format->refuses(as_output(t)))
      left_out.push_back(fmt::format("tensor {}: {}", quoted(t.name), *why));
    else
      add_copy(job, t);
  }
}

}  // namespace

std::string check_salvage(const Model& model, const CheckOptions& o, const Context& context) {
  const auto refuse = [&](std::string why, std::string hint = {}) {
    return Error(Fault::Usage, std::move(why)).in(o.salvage).hint(std::move(hint));
  };
  Destination to;
  try {
    to = destination(rewrite_options(o).output, "", model, context.registry, "salvaged");
  } catch (const Error& e) {
    Error told(e.fault(), e.text());
    throw told.in(o.salvage).hint(
        "OUT is a name with the format's suffix, or a folder that ends in '/'");
  }
  if (to.kind == OutputSet::Kind::Stdout)
    throw refuse("--salvage wants a file or a folder, not standard output");
  if (to.format->name != model.catalog.format)
    throw refuse(fmt::format("is {} by its name, but what is salvaged stays {}", to.format->name,
                             model.catalog.format),
                 "'wtool convert' changes the format afterwards");
  std::error_code ignored;
  const fs::path out = resolved(to.path);
  for (const std::string& file : files_of(model))
    if (fs::equivalent(file, to.path, ignored)) throw refuse("is the input, which stays as it is");
  if (model.is_folder) {
    const fs::path home = resolved(model.path);
    if (std::ranges::mismatch(home, out).in1 == home.end())
      throw refuse(
          "is the input's folder or lies in it: what is rescued would become a part of "
          "the model");
  }
  const OutputSet refused_now(to.path, to.kind, existing(o));  // rather than after the work
  return to.path;
}

Salvaged salvage(std::shared_ptr<const Model> model, const Diagnostics& faults,
                 const std::vector<bool>& damaged, const CheckOptions& o, const Context& context) {
  const RewriteOptions rewrite = rewrite_options(o);
  const Error nothing =
      Error(Fault::BadFile, "holds no intact tensor: there is nothing to salvage").in(model->path);
  if (model->catalog.entries().empty()) throw Error(nothing);
  Job job = prepare(std::move(model), rewrite, context, "salvaged");
  std::string ignored;  // keys of a part, whose others may be lost
  if (job.to.format->whole_meta) job.meta = job.to.format->whole_meta(job.meta, 0, ignored);
  Salvaged out{.path = job.to.path, .left_out = {}};
  drop_bad_metadata(job, out.left_out);
  add_tensors(job, faults, damaged, out.left_out);
  if (job.plan.steps.empty() && std::ranges::find(damaged, true) != damaged.end())
    throw Error(nothing);
  const Placement placement = lay_out(job, rewrite);
  out.tensors = placement.tensors.size();
  out.bytes = placement.total_bytes;
  OutputSet outputs(job.to.path, job.to.kind, existing(o));
  RunOptions run = context.run;
  Progress progress(*context.common, "salvage", "units");
  run.progress = progress.callback();
  execute(job.plan, run, &outputs);
  for (const SourcePtr& s : job.model->catalog.sources()) s->check_unchanged();
  outputs.commit();
  return out;
}

}  // namespace wtool
