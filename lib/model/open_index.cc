// A set whose files an index names, and the index held against what they hold.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/model/opener.h"

namespace wtool::opening {

// By its content, or because its name says that it ought to be one: a broken index must not pass
// for no index.
const Format* Opener::index_format(const Source& source) const {
  for (const Format* f : registry_.formats) {
    if (!f->read_index) continue;
    if (f->detect_index(source)) return f;
    for (const std::string_view suffix : f->suffixes)
      if (source.name().ends_with(fmt::format("{}.index.json", suffix))) return f;
  }
  return nullptr;
}

// Relative to the folder.
std::string Opener::name_there(const std::string& folder, const std::string& file) const {
  return there(joined(folder, file)).substr(joined(folder, "x").size() - 1);
}

void Opener::open_index(const std::string& folder, const std::string& name, const Format& format) {
  const ShardIndex index = format.read_index(open_file(joined(folder, name)), faults_);
  model_->is_folder = true;
  if (folder != path_) model_->path = folder.empty() ? "." : folder;
  model_->index_name = name;
  const std::vector<std::string> shards = shards_of(index, folder);
  for (const std::string& shard : shards) {
    const Format* found = nullptr;
    auto part = read_part(there(joined(folder, shard)), shards.size(), &found);
    if (!part) continue;
    if (found != &format)
      faults_.report(kOtherFormat, joined(folder, shard), kNowhere,
                     fmt::format("is {}, but the index is one of {}", found->name, format.name));
    take(std::move(*part));
  }
  check_index(index, folder);
  check_total(index, folder);
  std::vector<std::string> used;
  for (const std::string& shard : shards) used.push_back(name_there(folder, shard));
  collect_side_files(folder, used, "the index does not name it");
}

// A file that no format knows ends the reading, unless every fault is wanted: then nothing.
std::optional<Catalog> Opener::read_part(const std::string& path, std::size_t of_files,
                                         const Format** format) const {
  const SourcePtr source = source_of(path, of_files);
  try {
    return read(source, format);
  } catch (const Error& e) {
    if (faults_.mode() != Diagnostics::Mode::Collect || e.fault() == Fault::Io) throw;
    faults_.report(kUnreadable, path, kNowhere, e.text(), e.hint());
    return std::nullopt;
  }
}

// The files that the index names and that may be opened, in the order of their numbers.
std::vector<std::string> Opener::shards_of(const ShardIndex& index, const std::string& folder) {
  std::unordered_map<std::string_view, std::size_t> first;  // the line that names it first
  std::vector<std::string> out;
  for (std::size_t i = 0; i < index.lines.size(); ++i)
    if (first.emplace(index.lines[i].file, i).second) out.push_back(index.lines[i].file);
  std::ranges::sort(out, natural_less);
  const std::string where = joined(folder, model_->index_name);
  const auto missing = std::ranges::count_if(out, [&](const std::string& file) {
    return !unsafe_path(file) && !exists(there(joined(folder, file)));
  });
  std::erase_if(out, [&](const std::string& file) {
    const Rule* rule = nullptr;
    std::string what, advice;
    if (auto why = unsafe_path(file)) {
      rule = &kPath;
      what = "which " + *why;
    } else if (leads_out(folder, name_there(folder, file))) {
      rule = &kLink;
      what = "a link that leads out of the folder";
    } else if (!exists(there(joined(folder, file)))) {
      rule = &kMissingShard;
      what = fmt::format("which is missing ({} of {} files are)", missing, out.size());
      advice = kAlone;
    }
    if (rule)
      faults_.report(*rule, where, kNowhere,
                     fmt::format("maps tensor {} to {}, {}",
                                 quoted(index.lines[first.at(file)].tensor), quoted(file), what),
                     advice);
    return rule != nullptr;
  });
  return out;
}

// The index against what the shards really hold.
void Opener::check_index(const ShardIndex& index, const std::string& folder) {
  const Catalog& catalog = model_->catalog;
  const std::string where = joined(folder, model_->index_name);
  std::unordered_map<std::string_view, std::uint32_t> source_of;
  std::vector<std::string> paths;
  for (const SourcePtr& s : catalog.sources()) paths.push_back(s->name());
  for (std::uint32_t i = 0; i < paths.size(); ++i) {
    const auto name = std::string_view(paths[i]).substr(joined(folder, "x").size() - 1);
    source_of.emplace(name, i);
    source_of.emplace(without_compressed_suffix(name), i);
  }
  std::vector<bool> mapped(catalog.entries().size());
  std::unordered_set<std::string> lost;  // in a file that is there: told already
  for (const Diagnostics::Lost& l : faults_.lost()) lost.insert(l.tensor);
  for (const ShardIndex::Line& line : index.lines) {
    const auto file = source_of.find(line.file);
    if (file == source_of.end()) {  // reported as missing
      faults_.lose(joined(folder, line.file), line.tensor, 0, 0);
      continue;
    }
    const TensorEntry* t = catalog.find(line.tensor);
    if (!t) {
      if (!lost.contains(line.tensor)) faults_.lose(joined(folder, line.file), line.tensor, 0, 0);
      faults_.report(kMissingTensor, where, kNowhere,
                     fmt::format("maps tensor {} to {}, but no file holds it", quoted(line.tensor),
                                 quoted(line.file)));
      continue;
    }
    mapped[catalog.index_of(*t)] = true;
    if (t->source != file->second)
      faults_.report(kWrongShard, where, kNowhere,
                     fmt::format("maps tensor {} to {}, but it lies in {}", quoted(line.tensor),
                                 quoted(line.file), quoted(file_name_of(paths[t->source]))));
  }
  for (const TensorEntry& t : catalog.entries())
    if (!mapped[catalog.index_of(t)])
      faults_.report(kStrayTensor, {paths[t.source], "tensor", t.name}, t.offset,
                     fmt::format("{} does not list it", quoted(model_->index_name)));
}

// A wrong sum harms nobody and is common: a note, but for those who ask for every fault.
void Opener::check_total(const ShardIndex& index, const std::string& folder) {
  if (!index.total_bytes) return;
  std::uint64_t tensors = 0, files = 0;
  for (const TensorEntry& t : model_->catalog.entries()) tensors += t.bytes;
  for (const SourcePtr& s : model_->catalog.sources()) files += s->size();
  if (*index.total_bytes == tensors) return;
  std::string text =
      fmt::format("total_size is {}, but the tensors have {} bytes{}", *index.total_bytes, tensors,
                  *index.total_bytes == files ? " (it counts whole files)" : "");
  const std::string where = joined(folder, model_->index_name);
  if (faults_.mode() == Diagnostics::Mode::Collect)
    faults_.report(kTotalSize, where, kNowhere, std::move(text));
  else
    faults_.note(where, std::move(text));
}

}  // namespace wtool::opening
