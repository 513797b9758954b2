#include "cli/sign_job.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iterator>
#include <numeric>

#include <fmt/format.h>

#include "cli/signature.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/engine/output_set.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

// A name must mean the same to everyone who reads the statement.
void check_names(const SignJob& job) {
  for (const ModelFile& f : job.files) {
    const auto refuse = [&](std::string why) {
      return Error(Fault::Usage, std::move(why)).in(job.path_of(f.name));
    };
    if (f.kind == ModelFile::Kind::Link || f.kind == ModelFile::Kind::FolderLink)
      throw refuse("is a link, which a model signature does not cover")
          .hint("put the file itself there, or leave the link out with --ignore");
    if (f.kind == ModelFile::Kind::Other)
      throw refuse("is no regular file").hint("--ignore leaves it out");
    if (!is_utf8(f.name)) throw refuse("its name is not UTF-8, and a signature can name no other");
    if (const auto why = unfit_name(f.name)) throw refuse("its name " + *why);
  }
  if (job.files.empty()) throw Error(Fault::Usage, "holds no files to sign").in(job.model);
  if (job.statement.subject.empty() || !is_utf8(job.statement.subject))
    throw Error(Fault::Usage, job.statement.subject.empty()
                                  ? "has no name to sign it under"
                                  : "its name is not UTF-8, and a signature can name no other")
        .in(job.model);
}

std::vector<std::string> ignored_paths(const SignScope& scope, const SignJob& job) {
  std::vector<std::string> out;
  if (!scope.sign_git) out = git_paths();
  if (!job.inside.empty()) out.push_back(job.inside);
  for (const std::string& typed : scope.ignore) {
    if (!job.folder) throw Error(Fault::Usage, "--ignore is for a folder").in(job.model);
    out.push_back(name_in_model(job.model, typed));
    std::error_code ignored;
    if (!fs::exists(fs::symlink_status(fs::path(job.model) / out.back(), ignored)))
      throw Error(Fault::Usage, fmt::format("--ignore {}: there is no such file", quoted(typed)))
          .in(job.model);
  }
  std::ranges::sort(out);
  const auto twice = std::ranges::unique(out);
  out.erase(twice.begin(), twice.end());
  return out;
}

std::uint64_t shard_size_of(const std::string& text) {
  if (text.empty()) return kDefaultShardSize;
  const auto size = parse_size(text);
  if (!size || *size == 0)
    throw Error(Fault::Usage, fmt::format("--shard-size: {} is no size", quoted(text)));
  return *size;
}

void add_resources(SignJob& job) {
  Statement& s = job.statement;
  for (const ModelFile& f : job.files) {
    // The reference calls a lone file so, and takes no other name for it.
    const bool dot = !job.folder && job.dialect == Dialect::Reference;
    const std::string name = dot ? "." : f.name;
    if (s.method == Statement::Method::Shards)
      std::ranges::move(shards_of(name, f.bytes, s.shard_size), std::back_inserter(s.resources));
    else
      s.resources.push_back({name, 0, std::nullopt, {}});
  }
  if (s.resources.empty()) throw Error(Fault::Usage, "holds nothing but empty files").in(job.model);
}

std::vector<FileState> states_of(const SignJob& job) {
  std::vector<FileState> out;
  out.reserve(job.files.size());
  for (const ModelFile& f : job.files) {
    const std::string path = job.path_of(f.name);
    const auto state = state_of(path);
    if (!state) throw Error(Fault::Io, "changed while reading: it has gone").in(path);
    out.push_back(*state);
  }
  return out;
}

// What a killed run for the same output may have left in the model; ours removes it before it ends.
void drop_leftovers(SignJob& job) {
  if (job.inside.empty()) return;
  const std::string folder = job.inside.substr(0, job.inside.rfind('/') + 1);
  std::erase_if(job.files, [&](const ModelFile& f) {
    if (!f.name.starts_with(folder)) return false;
    const auto end = f.name.find('/', folder.size());
    const std::string name = f.name.substr(folder.size(), end - folder.size());
    return end != std::string::npos && OutputSet::is_hidden_folder(name, job.inside);
  });
}

// All at one moment, so that the signature is of files that were there together.
void check_unchanged(const SignJob& job) {
  const std::vector<FileState> now = states_of(job);
  for (std::size_t i = 0; i < now.size(); ++i)
    if (!now[i].same_as(job.states[i]))
      throw Error(Fault::Io, "changed while reading").in(job.path_of(job.files[i].name));
}

}  // namespace

std::string SignJob::path_of(const std::string& name) const {
  return folder ? (fs::path(model) / name).native() : model;
}

const ModelFile& SignJob::file(const std::string& name) const {
  return folder ? *std::ranges::lower_bound(files, name, {}, &ModelFile::name) : files[0];
}

std::uint64_t SignJob::bytes() const noexcept {
  return std::accumulate(files.begin(), files.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const ModelFile& f) { return sum + f.bytes; });
}

SignJob plan_signature(std::string model, std::string output, Dialect dialect,
                       const SignScope& scope) {
  SignJob job;
  job.model = std::move(model);
  job.dialect = dialect;
  std::error_code failed;
  if (!fs::exists(job.model, failed)) throw Error(Fault::Io, "is not there").in(job.model);
  job.folder = fs::is_directory(job.model, failed);
  if (!job.folder && !fs::is_regular_file(job.model, failed))
    throw Error(Fault::Usage, "is neither a file nor a folder").in(job.model);
  job.output = output.empty() ? default_signature(job.model) : std::move(output);
  if (job.folder && job.output != "-") job.inside = name_below(job.model, job.output).value_or("");

  Statement& s = job.statement;
  s.subject = own_name(job.model);
  s.ignore_paths = ignored_paths(scope, job);
  if (scope.method == "shards") {
    s.method = Statement::Method::Shards;
    s.shard_size = shard_size_of(scope.shard_size);
  } else if (!scope.shard_size.empty()) {
    throw Error(Fault::Usage, "--shard-size goes with --method shards");
  }
  if (job.folder)
    job.files = files_of_model(job.model, *s.ignore_paths);
  else
    job.files = {{fs::path(job.model).filename().native(), ModelFile::Kind::File,
                  fs::file_size(job.model, failed)}};
  drop_leftovers(job);
  check_names(job);
  job.states = states_of(job);
  add_resources(job);
  return job;
}

void hash_files(SignJob& job, const Context& context) {
  std::vector<Resource*> unknown;
  ResourceJob work;
  for (Resource& r : job.statement.resources)
    if (r.digest.empty()) {
      unknown.push_back(&r);
      work.total_bytes += r.end ? *r.end - r.begin : job.file(r.path).bytes;
    }
  std::vector<SourcePtr> open(unknown.size());
  work.count = unknown.size();
  work.extent = [&](std::size_t i) -> Extent {
    const Resource& r = *unknown[i];
    const std::string path = job.path_of(r.path);
    open[i] = open_file(path);
    if (open[i]->size() != job.file(r.path).bytes)
      throw Error(Fault::Io, "changed while reading").in(path);
    return {open[i], r.begin, r.end.value_or(open[i]->size()) - r.begin};
  };
  work.take = [&](std::size_t i, const std::string* digest, const Error* error) {
    if (error) throw *error;
    open[i]->check_unchanged();
    open[i].reset();
    unknown[i]->digest = *digest;
  };
  Progress progress(*context.common, "sign", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  hash_each(job.statement.hash, work, run);
  check_unchanged(job);
}

}  // namespace wtool
