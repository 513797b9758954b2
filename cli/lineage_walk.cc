#include "cli/lineage_walk.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/rewrite.h"
#include "cli/signature.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"
#include "lib/trust/digest.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;
using Answer = Parent::Answer;

// Where a model lies: a folder that is the model, or one that its files lie in beside others.
struct Home {
  std::string folder;
  bool is_model = false;
};

// Something that has a source's name.
struct Candidate {
  std::string path, folder;
  // In a folder that was given, or beside the model, where nothing else should have this name.
  bool near = false;
  std::size_t parent = 0;               // whose
  std::string real = {};                // its path without links
  std::vector<std::string> files = {};  // of one that is a folder: below it, sorted as bytes
  std::uint64_t bytes = 0;
  std::string sha256 = {};          // none: not read
  bool link = false;                // that leads out of where it lies
  std::optional<Error> error = {};  // why it cannot be read

  bool fits(const Lineage::Source& s) const {
    return !link && !error && bytes == s.bytes && files.size() == s.files;
  }
};

std::string around(const std::string& folder) {
  const std::string name = file_name_of(folder);
  if (name.empty() || name == "." || name == "..")
    return joined(folder.empty() ? "." : folder, "..");
  return folder_of(folder);
}

std::string canonical(const std::string& path) {
  std::error_code failed;
  return fs::canonical(path.empty() ? "." : path, failed).native();
}

// Two files with the same text are made from the same things.
std::string key_of(const Lineage& l) {
  std::string key;
  for (const std::string* text : {&l.version, &l.operation, &l.recipe})
    key += fmt::format("{}:{}", text->size(), *text);
  for (const Lineage::Source& s : l.sources)
    key += fmt::format("{} {} {} {}:{}", s.bytes, s.files, s.sha256, s.name.size(), s.name);
  return key;
}

// Its names come from a file: none may lead anywhere.
std::optional<Lineage> lineage_in(const Metadata& meta, const std::string& path) {
  try {
    auto lineage = lineage_of(meta);
    if (lineage)
      for (const Lineage::Source& s : lineage->sources)
        if (const auto why = unsafe_path(s.name))
          throw Error(Fault::BadFile,
                      fmt::format("its lineage names {}, which {}", quoted(s.name), *why));
    return lineage;
  } catch (Error& e) {
    e.in(path);
    throw;
  }
}

// Finds what has the names of a model's sources.
class Search {
 public:
  Search(const Model& model, const std::vector<std::string>& folders, const Registry& registry)
      : folders_(folders) {
    for (const SourcePtr& s : model.catalog.sources()) own_.insert(canonical(s->name()));
    for (const Format* f : registry.formats)
      if (f->one_tensor) suffixes_.insert(suffixes_.end(), f->suffixes.begin(), f->suffixes.end());
  }

  // Without a home (standard input) only in the folders that were given.
  std::vector<Candidate> candidates(const Lineage::Source& s, const std::optional<Home>& home) {
    std::vector<Candidate> out;
    if (home && home->is_model) look(home->folder, s, true, home->folder, out);
    if (home) look_below(home->is_model ? around(home->folder) : home->folder, s, out);
    for (const std::string& folder : folders_) look_below(folder, s, out);
    return out;
  }
  const std::string& left_out() const { return left_out_; }  // what was not looked into, if any

 private:
  void look_below(const std::string& folder, const Lineage::Source& s,
                  std::vector<Candidate>& out) {
    look(folder, s, true, folder, out);
    std::size_t tries = 0;
    for (const std::string& name : folders_in(folder)) {
      if (tries == kMostTries) {
        left_out_ = fmt::format("read {} of this name only", kMostTries);
        return;
      }
      if (look(joined(folder, name), s, false, folder, out)) ++tries;
    }
  }

  // True if what is there has the size, too. It must not lead out of `base`.
  bool look(const std::string& folder, const Lineage::Source& s, bool near, const std::string& base,
            std::vector<Candidate>& out) const {
    Candidate c{.path = joined(folder, s.name), .folder = folder, .near = near};
    std::error_code failed;
    const fs::file_status status = fs::status(c.path, failed);
    if (s.files > 0 ? !fs::is_directory(status) : !fs::is_regular_file(status)) return false;
    c.real = canonical(c.path);
    if (own_.contains(c.real)) return false;
    if (std::ranges::find(out, c.real, &Candidate::real) != out.end()) return false;
    c.link = leads_out(base, c.path.substr(base.empty() ? 0 : joined(base, "").size()));
    if (!c.link) measure(c, s.files > 0);
    out.push_back(std::move(c));
    return out.back().fits(s);
  }

  void measure(Candidate& c, bool folder) const {
    std::error_code failed;  // whoever opens it says so
    if (!folder) {
      c.bytes = fs::file_size(c.path, failed);
      return;
    }
    std::vector<std::string> others;
    c.files = files_below(c.path, suffixes_, others);
    std::ranges::sort(c.files);
    for (const std::string& name : c.files) c.bytes += fs::file_size(joined(c.path, name), failed);
  }

  const std::vector<std::string>& folders_in(const std::string& folder) {
    const auto [it, fresh] = listed_.try_emplace(folder);
    std::vector<std::string>& names = it->second;
    if (!fresh) return names;
    try {
      for (const FolderEntry& e : list_folder(folder.empty() ? "." : folder))
        if (e.kind == FolderEntry::Kind::Folder) names.push_back(e.name);
    } catch (const Error& e) {
      left_out_ = e.what();
    }
    if (names.size() > kMostFolders) {
      left_out_ = fmt::format("looked into {} of {} folders only", kMostFolders, names.size());
      names.resize(kMostFolders);
    }
    return names;
  }

  const std::vector<std::string>& folders_;
  std::set<std::string> own_;               // the model's files: none of them is its source
  std::vector<std::string_view> suffixes_;  // of formats with a file for each tensor
  std::map<std::string, std::vector<std::string>> listed_;
  std::string left_out_;
};

class Walk {
 public:
  Walk(const Model& model, const std::vector<std::string>& folders, const Context& context,
       LineageWalk& out)
      : context_(context), search_(model, folders, context.registry), out_(out) {}

  void follow(Ancestry& child, const std::optional<Home>& home, unsigned generation) {
    const std::vector<Lineage::Source>& sources = child.lineage.sources;
    sources_ += sources.size();
    if (generation > kMostGenerations)
      child.cut = fmt::format("not followed: more than {} generations", kMostGenerations);
    else if (sources_ > kMostParents)
      child.cut = fmt::format("not followed: more than {} sources in all", kMostParents);
    else if (!seen_.insert(key_of(child.lineage)).second)
      child.cut = "as above";
    if (!child.cut.empty()) return;
    for (const Lineage::Source& s : sources) child.parents.push_back({.recorded = s});
    find(child, home);
    for (const Parent& p : child.parents) count(p);
    for (const Parent& p : child.parents)
      if (p.own) follow(*p.own, home_of_[p.path], generation + 1);
  }

 private:
  void count(const Parent& p) {
    if (p.answer == Answer::Ok) ++out_.ok;
    if (p.answer == Answer::Changed) ++out_.changed;
    if (p.answer == Answer::NotHere) ++out_.not_here;
    if (p.answer == Answer::Changed) out_.code = worst(out_.code, ExitCode::No);
    if (p.answer == Answer::Error) out_.code = worst(out_.code, ExitCode::Io);
  }

  void find(Ancestry& child, const std::optional<Home>& home) {
    std::vector<Candidate> all;
    for (std::size_t i = 0; i < child.parents.size(); ++i) {
      if (stop_signal() != 0) throw Error(Fault::Cancelled, "interrupted");
      for (Candidate& c : search_.candidates(child.parents[i].recorded, home)) {
        all.push_back(std::move(c));
        all.back().parent = i;
      }
    }
    for (std::vector<Candidate*> now; now = next_to_read(child, all), !now.empty();)
      read(child, now);
    settle(child, all);
    share(child);
  }

  // Of each source that is not found yet the first candidate that has its size.
  static std::vector<Candidate*> next_to_read(const Ancestry& child, std::vector<Candidate>& all) {
    std::vector<Candidate*> out;
    for (Candidate& c : all) {
      const Parent& p = child.parents[c.parent];
      if (p.answer == Answer::NotHere && c.sha256.empty() && c.fits(p.recorded) &&
          (out.empty() || out.back()->parent != c.parent))
        out.push_back(&c);
    }
    return out;
  }

  void read(Ancestry& child, const std::vector<Candidate*>& now) {
    std::vector<std::pair<Candidate*, std::string>> files;
    DigestJob job;
    for (Candidate* c : now) {
      job.total_bytes += c->bytes;
      if (c->files.empty()) files.emplace_back(c, c->path);
      for (const std::string& name : c->files) files.emplace_back(c, joined(c->path, name));
    }
    std::vector<SourcePtr> open(files.size());
    std::vector<Sha256> digests;  // of the folder whose turn it is
    job.count = files.size();
    job.extent = [&](std::size_t i) -> Extent {
      open[i] = open_file(files[i].second);
      return {open[i], 0, open[i]->size()};
    };
    job.take = [&](std::size_t i, const Sha256* digest, const Error* error) {
      Candidate& c = *files[i].first;
      if (digest)
        digests.push_back(*digest);
      else
        c.error = *error;
      if (i + 1 == files.size() || files[i + 1].first != &c) {
        if (!c.error) c.sha256 = (c.files.empty() ? digests.back() : root_digest(digests)).hex();
        digests.clear();
        Parent& p = child.parents[c.parent];
        if (c.sha256 == p.recorded.sha256) accept(p, c, open[i]);
      }
      open[i].reset();
    };
    Progress progress(*context_.common, "lineage", "bytes");
    RunOptions run = context_.run;
    run.progress = progress.callback();
    sha256_each(job, run);
  }

  // Its bytes are those that were recorded, so its own metadata can be believed as much.
  void accept(Parent& p, const Candidate& c, const SourcePtr& file) {
    p.answer = Answer::Ok;
    p.path = c.path;
    home_of_[p.path] = Home{c.folder, !c.near};
    if (std::string signature = default_signature(c.path); exists(signature))
      p.signature = std::move(signature);
    if (!c.files.empty()) return;  // the file with its metadata is not among those of the digest
    try {
      const Registry& registry = context_.registry;
      const SourcePtr inside = registry.unwrap ? registry.unwrap(file) : file;
      const bool weights = std::ranges::any_of(registry.formats, [&](const Format* f) {
        return f->read && f->detect && f->detect(*inside);
      });
      if (!weights) return;  // a config or a tokenizer: made of nothing
      Diagnostics faults;
      const Catalog catalog = read_catalog(file, context_.registry, faults);
      file->check_unchanged();
      if (auto lineage = lineage_in(catalog.meta, c.path))
        p.own = std::make_shared<Ancestry>(Ancestry{.lineage = std::move(*lineage)});
    } catch (const Error& e) {
      p.detail = e.what();
      out_.code = worst(out_.code, exit_code_of(e.fault()));
      print_error(e, context_.common->json);
    }
  }

  // What was not found may be contradicted. A file of its name in a folder beside may well be of
  // another model, unless other sources were found in that folder.
  void settle(Ancestry& child, const std::vector<Candidate>& all) {
    std::set<std::string> proven;
    for (const Candidate& c : all)
      if (child.parents[c.parent].path == c.path) proven.insert(c.folder);
    std::map<Parent*, std::size_t> others;
    for (const Candidate& c : all) {
      Parent& p = child.parents[c.parent];
      if (p.answer == Answer::NotHere && (c.near || proven.contains(c.folder)))
        contradict(p, c);
      else if (p.answer == Answer::NotHere)
        ++others[&p];
    }
    for (Parent& p : child.parents) {
      if (p.answer != Answer::NotHere || !p.detail.empty()) continue;
      if (others[&p] > 0)
        p.detail = fmt::format("{} of this name in folders beside", others[&p]);
      else
        p.detail = search_.left_out();
    }
  }

  void contradict(Parent& p, const Candidate& c) const {
    if (c.link) {
      p.detail = fmt::format("{} is a link that leads out of its folder", quoted(c.path));
      return;
    }
    p.path = c.path;
    p.answer = c.error ? Answer::Error : Answer::Changed;
    if (c.error) {
      p.detail = c.error->what();
      print_error(*c.error, context_.common->json);
      return;
    }
    p.found_bytes = c.bytes;
    p.found_sha256 = c.sha256;
    if (c.files.size() != p.recorded.files)
      p.detail = fmt::format("{} files instead of {}", c.files.size(), p.recorded.files);
    else if (c.bytes != p.recorded.bytes)
      p.detail = fmt::format("{} bytes instead of {}", c.bytes, p.recorded.bytes);
  }

  // The shards of a model all say the same of it.
  static void share(Ancestry& child) {
    std::map<std::string, std::string> first;
    for (Parent& p : child.parents) {
      if (!p.own) continue;
      const auto [it, fresh] = first.try_emplace(key_of(p.own->lineage), p.recorded.name);
      if (fresh) continue;
      p.own.reset();
      p.same_as = it->second;
    }
  }

  const Context& context_;
  Search search_;
  LineageWalk& out_;
  std::size_t sources_ = 0;
  std::set<std::string> seen_;
  std::map<std::string, Home> home_of_;  // of the sources that were found, by path
};

}  // namespace

std::string_view word(Answer answer) noexcept {
  switch (answer) {
    case Answer::Ok: return "OK";
    case Answer::Changed: return "CHANGED";
    case Answer::NotHere: return "NOT HERE";
    case Answer::Error: break;
  }
  return "ERROR";
}

std::optional<LineageWalk> walk_lineage(const Model& model, const std::vector<std::string>& folders,
                                        const Context& context) {
  const SideFile* kept = model.catalog.format == "npy" ? model.side_file(kMetadataFile) : nullptr;
  auto lineage = lineage_in(kept ? read_metadata_file(*kept) : model.catalog.meta, model.path);
  if (!lineage) return std::nullopt;
  LineageWalk out;
  out.root.lineage = std::move(*lineage);
  std::optional<Home> home;
  std::error_code ignored;
  if (fs::is_directory(model.path, ignored)) {
    home = Home{model.path, true};
    while (home->folder.size() > 1 && home->folder.ends_with('/')) home->folder.pop_back();
  } else if (model.path != "-") {
    home = Home{folder_of(model.path), false};
  }
  Walk(model, folders, context, out).follow(out.root, home, 1);
  return out;
}

}  // namespace wtool
