// Files, folders and sets become one model.
#include <algorithm>
#include <filesystem>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/model/opener.h"
#include "lib/model/review.h"

namespace wtool {
namespace opening {
namespace {

// Weights of other tools and what would be wrong beside rewritten weights.
struct LeftOut {
  std::string_view suffix, why;
};
constexpr std::array kLeftOut{
    LeftOut{".bin", "PyTorch weights"},
    LeftOut{".pt", "PyTorch weights"},
    LeftOut{".pth", "PyTorch weights"},
    LeftOut{".ckpt", "PyTorch weights"},
    LeftOut{".npz", "NPZ weights"},
    LeftOut{".h5", "Keras weights"},
    LeftOut{".msgpack", "Flax weights"},
    LeftOut{".ot", "Rust weights"},
    LeftOut{".onnx", "ONNX weights"},
    LeftOut{".onnx_data", "ONNX weights"},
    LeftOut{".tflite", "TensorFlow Lite weights"},
    LeftOut{".sha256", "digests of these files, not of what is made from them"},
    LeftOut{"sha256sums", "digests of these files, not of what is made from them"},
    LeftOut{".sig", "a signature of these files, not of what is made from them"},
    LeftOut{".manifest.json", "digests of these files, not of what is made from them"},
    LeftOut{".provenance.json", "the provenance of these files, not of what is made from them"},
    LeftOut{".sigstore.json", "a signature of these files, not of what is made from them"},
    LeftOut{".cdx.json", "a bill of these files, not of what is made from them"},
};

// What such a file is; empty if the name says nothing.
std::string_view other_weights(std::string_view file_name) {
  const std::string name = lower(file_name);
  for (const LeftOut& l : kLeftOut)
    if (name.ends_with(l.suffix)) return l.why;
  return {};
}

bool is_index_name(std::string_view name) {
  return name.ends_with(".json") && name.find(".index.") != std::string_view::npos;
}

// Null if it cannot be read: a folder may hold files that do not concern us.
SourcePtr open_if_readable(const std::string& path) {
  try {
    return open_file(path);
  } catch (const Error&) {
    return nullptr;
  }
}

// Whether a file holds `text`, without holding the file.
bool holds(const Source& source, std::string_view text) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  Buffer piece;
  for (std::uint64_t at = 0; at < source.size(); at += kPiece) {
    piece.resize(std::min<std::uint64_t>(kPiece + text.size(), source.size() - at));
    source.read(at, piece);
    if (as_text(piece).find(text) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

std::shared_ptr<const Model> Opener::open() {
  model_->path = path_;
  std::error_code code;
  if (path_ == "-")
    take(read(from_stdin(options_.stop_signal)));
  else if (std::filesystem::is_directory(path_, code))
    open_folder();
  else
    open_path();
  find_tensors();
  retype();
  for (const Diagnostics::Note& n : faults_.notes())
    model_->notes.push_back(n.where.empty() ? n.text : n.where + ": " + n.text);
  return std::move(model_);
}

void Opener::open_path() {
  const SourcePtr source = inside(open_file(path_));
  const std::string folder = folder_of(path_), name = file_name_of(path_);
  const std::string own(without_compressed_suffix(name));
  compressed_ = own != name;
  if (const Format* format = index_format(*source)) {
    if (options_.alone)
      throw Error(Fault::Usage, "--alone wants a weight file, but this is an index").in(path_);
    return open_index(folder, name, *format);
  }
  if (options_.alone) return take(read(source));
  const bool may_have_index = std::ranges::any_of(
      registry_.formats, [&](auto* f) { return f->read_index && f->detect(*source); });
  const std::string index = may_have_index ? index_naming(folder, own) : "";
  if (index.empty())
    open_set(source);
  else
    open_index(folder, index, *index_format(*open_file(joined(folder, index))));
}

// The index that lists this file, if one lies beside it. What cannot be looked at is none. Beside a
// numbered file a broken index counts, too.
std::string Opener::index_naming(const std::string& folder, const std::string& name) const {
  std::vector<FolderEntry> beside;
  try {
    beside = list_folder(folder.empty() ? "." : folder);
  } catch (const Error&) {
    return {};  // a folder may be closed to listing and its files open
  }
  for (const FolderEntry& e : beside) {
    if (e.kind != FolderEntry::Kind::File || !is_index_name(e.name)) continue;
    const SourcePtr source = open_if_readable(joined(folder, e.name));
    const Format* format = source ? index_format(*source) : nullptr;
    if (!format) continue;
    if (holds(*source, fmt::format("\"{}\"", name))) return e.name;
    if (!format->detect_index(*source) && !numbered_set(name).empty()) return e.name;
  }
  return {};
}

void Opener::open_folder() {
  if (options_.alone)
    throw Error(Fault::Usage, "--alone wants one file, but this is a folder").in(path_);
  model_->is_folder = true;
  listing_ = list_folder(path_);
  if (const std::string index = choose_index(); !index.empty()) {
    open_index(path_, index, *index_format(*open_file(joined(path_, index))));
    // Of an index that says nothing any more, which has been reported, the files are left.
    if (!model_->catalog.sources().empty() || faults_.count() == 0) return;
    model_->index_name.clear();
    model_->side.clear();
    model_->left_out.clear();
    set_broken_ = true;
  }
  const std::vector<std::string> weights = weight_files();
  const auto is_array = [this](const std::string& name) {
    const SourcePtr source = inside(open_file(joined(path_, name)));
    return std::ranges::any_of(registry_.formats,
                               [&](auto* f) { return f->one_tensor && f->detect(*source); });
  };
  if (std::ranges::all_of(weights, is_array)) return open_arrays();
  open_only(weights);
}

// The name of the folder's index, empty if there is none.
std::string Opener::choose_index() const {
  std::vector<std::string> found;
  for (const FolderEntry& e : listing_)
    if (e.kind == FolderEntry::Kind::File && is_index_name(e.name))
      if (const SourcePtr s = open_if_readable(joined(path_, e.name)); s && index_format(*s))
        found.push_back(e.name);
  if (found.size() < 2) return found.empty() ? "" : found[0];
  for (const std::string_view usual : {"model", "diffusion_pytorch_model"})
    for (const Format* f : registry_.formats)
      for (const std::string_view suffix : f->suffixes)
        if (auto name = fmt::format("{}{}.index.json", usual, suffix);
            std::ranges::find(found, name) != found.end()) {
          faults_.note(path_, fmt::format("holds {} indexes; {} is taken", found.size(), name));
          return name;
        }
  throw Error(Fault::Usage,
              fmt::format("holds {} indexes: {}", found.size(), fmt::join(found, ", ")))
      .in(path_)
      .hint("give the index that you mean");
}

// The file, or its compressed form. Where both are there the original counts, unless the path given
// is that of a compressed file.
std::string Opener::there(const std::string& path) const {
  std::string compressed = path + std::string(kCompressedSuffix);
  return compressed_ && exists(compressed) ? compressed : present(path);
}

// A compressed file whose original is there too.
bool Opener::stands_beside_original(const std::string& name) const {
  const std::string_view original = without_compressed_suffix(name);
  return original != name && named_as_weights(name) &&
         std::ranges::find(listing_, original, &FolderEntry::name) != listing_.end();
}

// Files that are weights by their content, or ought to be by their name.
std::vector<std::string> Opener::weight_files() const {
  std::vector<std::string> out;
  for (const FolderEntry& e : listing_) {
    if (e.kind != FolderEntry::Kind::File) continue;
    if (stands_beside_original(e.name)) continue;
    bool is_weights = named_as_weights(e.name);
    if (!is_weights) {
      const SourcePtr source = open_if_readable(joined(path_, e.name));
      is_weights = source && std::ranges::any_of(registry_.formats, [&](auto* f) {
                     return f->read && !f->companion && f->detect(*source);
                   });
    }
    if (is_weights) out.push_back(e.name);
  }
  return out;
}

void Opener::open_only(const std::vector<std::string>& weights) {
  const auto used = open_set(source_of(joined(path_, weights[0]), 1));
  std::vector<std::string> names;
  names.reserve(used.size());
  for (const std::string& path : used) names.push_back(file_name_of(path));
  // What is wrong with the set has been said: then that, too, is a finding.
  if (names.size() < weights.size() && !set_broken_)
    throw Error(Fault::Usage, fmt::format("holds {} weight files that are no set: {}",
                                          weights.size(), fmt::join(weights, ", ")))
        .in(path_)
        .hint("give the file that you mean");
  collect_side_files(path_, names, set_broken_ ? "no part of the set" : "");
}

Error Opener::no_weights() const {
  std::vector<std::string_view> names;
  for (const Format* f : registry_.formats) names.push_back(f->name);
  std::string text = "holds no weight files";
  for (const FolderEntry& e : listing_)
    if (const auto what = other_weights(e.name); what.find("weights") != what.npos) {
      text += fmt::format(" that wtool reads ({}: {})", quoted(e.name), what);
      break;
    }
  return Error(Fault::BadFile, std::move(text))
      .in(path_)
      .hint(fmt::format("known formats are {}", fmt::join(names, ", ")));
}

// A folder of one-tensor files: their relative paths are the names.
void Opener::open_arrays() {
  std::vector<std::string_view> suffixes;
  for (const Format* f : registry_.formats)
    if (f->one_tensor) suffixes.insert(suffixes.end(), f->suffixes.begin(), f->suffixes.end());
  std::vector<std::string> compressed;
  compressed.reserve(suffixes.size());
  for (const std::string_view s : suffixes)
    compressed.push_back(std::string(s) + std::string(kCompressedSuffix));
  suffixes.insert(suffixes.end(), compressed.begin(), compressed.end());
  std::vector<std::string> others;
  std::vector<std::string> files = files_below(path_, suffixes, others);
  const std::unordered_set<std::string> there_are(files.begin(), files.end());
  std::erase_if(files, [&](const std::string& file) {  // the original counts
    const std::string original(without_compressed_suffix(file));
    return original != file && there_are.contains(original);
  });
  if (files.empty()) throw no_weights();
  Catalog& all = model_->catalog;
  for (const std::string& file : files) {
    const Catalog one = read(source_of(joined(path_, file), files.size()));
    all.format = one.format;
    const std::uint32_t source = all.add_source(one.sources()[0]);
    for (TensorEntry t : one.entries()) {
      const std::string_view original = without_compressed_suffix(file);
      t.name = all.arena().text(original.substr(0, original.rfind('.')));
      t.shape = all.arena().copy(t.shape);
      t.source = source;
      all.add(t, 0, faults_);
    }
  }
  collect_side_files(path_, files, "");
  for (const std::string& o : others) model_->left_out.push_back(o + ": below a subfolder");
}

void Opener::collect_side_files(const std::string& folder, const std::vector<std::string>& used,
                                std::string_view why_unused) {
  std::unordered_set<std::string_view> weights;  // and the subfolders that hold some
  for (const std::string_view path : used) weights.insert(path.substr(0, path.find('/')));
  if (listing_.empty()) listing_ = list_folder(folder.empty() ? "." : folder);
  for (const FolderEntry& e : listing_) {
    if (weights.contains(e.name) || e.name == model_->index_name) continue;
    std::string why(why_left_out(folder, e, why_unused));
    if (why.empty()) try {
        model_->side.push_back({e.name, open_on_demand(joined(folder, e.name))});
      } catch (const Error& error) {
        why = error.text();
      }
    if (why.empty()) continue;
    const bool is_folder = e.kind == FolderEntry::Kind::Folder;
    model_->left_out.push_back(fmt::format("{}{}: {}", e.name, is_folder ? "/" : "", why));
    if (is_folder || !named_as_weights(e.name)) continue;
    // Harms nobody here: a note, but for those who ask for every fault.
    if (faults_.mode() == Diagnostics::Mode::Collect)
      faults_.report(kStrayFile, joined(folder, e.name), kNowhere, "is left out: " + why);
    else
      faults_.note(folder, fmt::format("{} is left out: {}", quoted(e.name), why));
  }
}

// Empty if it is a side file.
std::string_view Opener::why_left_out(const std::string& folder, const FolderEntry& e,
                                      std::string_view why_unused) const {
  if (e.kind == FolderEntry::Kind::Folder) return "a folder";
  if (e.kind == FolderEntry::Kind::Other) return "not a regular file";
  if (leads_out(folder, e.name)) return "a link that leads out of the folder";
  if (stands_beside_original(e.name)) return "the compressed form of a file beside it";
  if (compressed_ && named_as_weights(e.name) &&
      there(joined(folder, e.name)) != joined(folder, e.name))
    return "its compressed form beside it is taken";
  if (named_as_weights(e.name)) return why_unused;
  if (const auto why = other_weights(e.name); !why.empty()) return why;
  return is_index_name(e.name) ? "an index of other weights" : "";
}

// Takes the file and the rest of its set; returns the paths taken.
std::vector<std::string> Opener::open_set(const SourcePtr& source) {
  const Format* format = nullptr;
  std::optional<Catalog> first = read(source, &format);
  const std::optional<SetPlace> place = place_of(*format, *first, source->name());
  std::vector<std::string> paths = files_of(*format, place, source->name());
  if (paths.size() <= 1) {
    const bool is_set = !paths.empty();
    take(std::move(*first));
    if (is_set) close_set(*format, source->name());
    return {source->name()};
  }
  if (!format->place)
    faults_.note(source->name(), fmt::format("no index lists the {} files of this set; they are "
                                             "taken by their names",
                                             paths.size()));
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const std::string& path = paths[i];
    if (!exists(path)) {
      complete_ = false;
      faults_.report(kMissingFile, path, kNowhere,
                     fmt::format("is missing: {} is one of a set of {} files",
                                 quoted(file_name_of(source->name())), paths.size()),
                     std::string(kAlone));
      continue;
    }
    const Format* found = format;
    std::optional<Catalog> part;
    if (path == source->name())
      part = std::exchange(first, std::nullopt);
    else
      part = read_part(path, paths.size(), &found);
    if (!part) continue;
    if (found != format)
      faults_.report(kOtherFormat, path, kNowhere,
                     fmt::format("is {}, but {} of the same set is {}", found->name,
                                 quoted(file_name_of(source->name())), format->name));
    else if (place && path != source->name())
      check_place(*format, *part, path, {place->stem, i, place->count});
    take(std::move(*part));
  }
  close_set(*format, paths.front());
  return paths;
}

void Opener::close_set(const Format& format, const std::string& first) {
  if (!format.whole_meta) return;
  std::string fault;
  model_->catalog.meta =
      format.whole_meta(model_->catalog.meta, model_->catalog.entries().size(), fault);
  if (!fault.empty() && faults_.lost_count() == 0 && complete_)  // else it has been told
    faults_.report(kPart, first, kNowhere, std::move(fault));
}

// Nothing: the file stands alone, or does not fit its set, which is reported.
std::optional<SetPlace> Opener::place_of(const Format& format, const Catalog& file,
                                         const std::string& path) {
  if (!format.place) return std::nullopt;
  try {
    return format.place(file.meta, without_compressed_suffix(path));
  } catch (const Error& e) {
    faults_.report(kPart, path, kNowhere, e.text(), e.hint());
    set_broken_ = true;
    return std::nullopt;
  }
}

// Empty: the file stands alone.
std::vector<std::string> Opener::files_of(const Format& format,
                                          const std::optional<SetPlace>& place,
                                          const std::string& path) const {
  const std::string own(without_compressed_suffix(path));
  std::vector<std::string> out;
  if (place && place->count == 1) {
    out.push_back(own);
  } else if (place) {
    for (std::size_t i = 0; i < place->count; ++i)
      out.push_back(format.shard_name(place->stem, i, place->count));
  } else if (!format.place && format.read_index) {
    for (const std::string& name : numbered_set(file_name_of(own)))
      out.push_back(joined(folder_of(path), name));
  }
  for (std::string& file : out) file = there(file);
  return out;
}

// A file that bears a name of the set says so itself.
void Opener::check_place(const Format& format, const Catalog& file, const std::string& path,
                         const SetPlace& wanted) {
  const std::uint64_t before = faults_.count();
  const std::optional<SetPlace> place = place_of(format, file, path);
  if (place == wanted || faults_.count() > before) return;
  faults_.report(
      kPart, path, kNowhere,
      fmt::format("does not say that it is one of the {} files of this set", wanted.count));
}

void Opener::take(Catalog&& part) {
  if (model_->catalog.sources().empty()) {
    model_->catalog = std::move(part);
    return;
  }
  join_meta(part);
  model_->catalog.absorb(std::move(part), faults_);
}

// Shards usually repeat the same few keys. What only a later one says is kept; where two disagree,
// the first one's counts, and the reader is told.
void Opener::join_meta(const Catalog& part) {
  if (part.meta.empty()) return;
  Metadata& all = model_->catalog.meta;
  if (known_meta_.empty())
    for (const MetaEntry& e : all) known_meta_.emplace(e.key, known_meta_.size());
  for (const MetaEntry& e : part.meta) {
    const auto* mine = std::get_if<std::string>(&e.value);
    if (!mine) continue;  // only text can be compared; typed metadata lies in the first file
    const auto [it, fresh] = known_meta_.emplace(e.key, all.size());
    if (fresh) {
      all.append(e.key, e.value);
      continue;
    }
    const auto* theirs =
        std::get_if<std::string>(&(all.begin() + static_cast<std::ptrdiff_t>(it->second))->value);
    if (theirs && *theirs == *mine) continue;
    if (faults_.mode() == Diagnostics::Mode::Collect)
      review_metadata(part.sources()[0]->name(), e, faults_);
    faults_.note(
        part.sources()[0]->name(),
        fmt::format("metadata {} differs from the first file's, which counts", quoted(e.key)));
  }
}

// Every stored tensor becomes part of one logical tensor: schemes choose first, the rest is plain.
void Opener::find_tensors() {
  const Catalog& catalog = model_->catalog;
  std::vector<bool> claimed(catalog.entries().size());
  model_->parts.reserve(claimed.size());
  model_->tensors.reserve(claimed.size());
  for (const Scheme* s : registry_.schemes)
    if (s->recognise) claim(*s, claimed);
  const Scheme* plain = registry_.schemes.empty() ? nullptr : registry_.schemes.back();
  for (const TensorEntry& t : catalog.entries()) {
    const std::uint32_t i = catalog.index_of(t);
    if (claimed[i]) continue;
    const auto first = static_cast<std::uint32_t>(model_->parts.size());
    model_->tensors.push_back({t.name, plain, t.shape, first, 1, t.dtype});
    model_->parts.push_back(i);
  }
  const auto place = [this](const LogicalTensor& t) {
    return std::ranges::min(model_->parts_of(t));
  };
  if (!std::ranges::is_sorted(model_->tensors, {}, place))
    std::ranges::stable_sort(model_->tensors, {}, place);
}

void Opener::claim(const Scheme& scheme, std::vector<bool>& claimed) {
  Catalog& catalog = model_->catalog;
  for (const Found& f : scheme.recognise(*model_, faults_)) {
    const auto taken = [&](std::uint32_t i) { return i >= claimed.size() || claimed[i]; };
    if (f.parts.empty() || std::ranges::any_of(f.parts, taken))
      throw Error(Fault::Internal,
                  fmt::format("{} claims the parts of {} wrongly", scheme.name, quoted(f.name)));
    const TensorEntry* same = catalog.find(f.name);
    if (same && std::ranges::find(f.parts, catalog.index_of(*same)) == f.parts.end()) {
      faults_.note(path_, fmt::format("{} is stored plainly and as {}: its parts are shown as they "
                                      "are",
                                      quoted(f.name), scheme.name));
      continue;
    }
    const auto first = static_cast<std::uint32_t>(model_->parts.size());
    model_->parts.insert(model_->parts.end(), f.parts.begin(), f.parts.end());
    for (const std::uint32_t i : f.parts) claimed[i] = true;
    model_->tensors.push_back({catalog.arena().text(f.name), &scheme,
                               catalog.arena().copy(ShapeView(f.shape)), first,
                               static_cast<std::uint32_t>(f.parts.size()), f.dtype, f.hint});
  }
}

// Opaque elements become what the user says they are; Model::open() does the rest.
void Opener::retype() {
  if (!options_.void_as) return;
  const DTypeInfo& as = info(*options_.void_as);
  const LogicalTensor* opaque = nullptr;
  bool any = false;
  for (LogicalTensor& t : model_->tensors) {
    if (info(t.dtype).kind != Kind::Opaque) continue;
    opaque = &t;
    if (info(t.dtype).block_bytes != as.block_bytes || as.block_elems != 1) continue;
    t.dtype = as.id;
    any = true;
  }
  if (any) return;
  if (!opaque)
    throw Error(Fault::Usage, fmt::format("no tensor has opaque elements to take for {}", as.name))
        .in(path_);
  throw Error(Fault::Usage,
              fmt::format("tensor {}: elements of {} bytes cannot be taken for {}",
                          quoted(opaque->name), info(opaque->dtype).block_bytes, as.name))
      .in(path_);
}

}  // namespace opening

std::shared_ptr<const Model> open_model(const std::string& path, const Registry& registry,
                                        const OpenOptions& options, Diagnostics& faults) {
  return opening::Opener(path, registry, options, faults).open();
}

RuleList model_rules() noexcept {
  return opening::kRules;
}

}  // namespace wtool
