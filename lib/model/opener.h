#pragma once
// How open_model() works: private to lib/model/open_*.cc.
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/model/folder.h"
#include "lib/model/model.h"

namespace wtool::opening {

inline constexpr Rule kMissingShard{"index.missing-shard",
                                    "every file that the index names is there"},
    kLink{"index.link", "no file that the index names is a link out of the folder"},
    kPath{"index.path", "the index names files of its own folder"},
    kMissingTensor{"index.missing-tensor", "every tensor of the index is there"},
    kWrongShard{"index.wrong-shard", "every tensor lies in the file that the index says"},
    kStrayTensor{"index.stray-tensor", "every tensor is in the index", true},
    kTotalSize{"index.total-size", "total_size in the index is the sum of the tensors' bytes",
               true},
    kMissingFile{"set.missing-file", "every file of a numbered set is there"},
    kPart{"set.part", "every file of a set says that it is one of it"},
    kOtherFormat{"set.format", "all files of a model are of one format"},
    kUnreadable{"set.unreadable", "every file of a model is a weight file"},
    kStrayFile{"index.stray-file", "every weight file beside the index is named in it", false,
               Severity::Warning};
inline constexpr std::array<const Rule*, 12> kRules{
    &kMissingShard, &kLink,        &kPath, &kMissingTensor, &kWrongShard, &kStrayTensor,
    &kTotalSize,    &kMissingFile, &kPart, &kOtherFormat,   &kUnreadable, &kStrayFile};

inline constexpr std::string_view kAlone = "--alone and the name of one file read just that file";

// Opens one model, step by step.
class Opener {
 public:
  Opener(const std::string& path, const Registry& registry, const OpenOptions& options,
         Diagnostics& faults)
      : path_(path),
        registry_(registry),
        options_(options),
        faults_(faults),
        most_files_(allow_many_files()) {}

  std::shared_ptr<const Model> open();

 private:
  // What was given, if it is a file.
  void open_path();
  std::string index_naming(const std::string& folder, const std::string& name) const;
  // A folder.
  void open_folder();
  std::string choose_index() const;
  std::vector<std::string> weight_files() const;
  void open_only(const std::vector<std::string>& weights);
  Error no_weights() const;
  void open_arrays();
  std::string there(const std::string& path) const;
  std::string name_there(const std::string& folder, const std::string& file) const;
  bool stands_beside_original(const std::string& name) const;
  void collect_side_files(const std::string& folder, const std::vector<std::string>& used,
                          std::string_view why_unused);
  std::string_view why_left_out(const std::string& folder, const FolderEntry& entry,
                                std::string_view why_unused) const;
  // An index.
  const Format* index_format(const Source& source) const;
  void open_index(const std::string& folder, const std::string& name, const Format& format);
  std::vector<std::string> shards_of(const ShardIndex& index, const std::string& folder);
  void check_index(const ShardIndex& index, const std::string& folder);
  void check_total(const ShardIndex& index, const std::string& folder);
  // A set without an index: by what the files say, or by their numbered names.
  std::vector<std::string> open_set(const SourcePtr& source);
  void close_set(const Format& format, const std::string& first);
  std::optional<SetPlace> place_of(const Format& format, const Catalog& file,
                                   const std::string& path);
  std::vector<std::string> files_of(const Format& format, const std::optional<SetPlace>& place,
                                    const std::string& path) const;
  void check_place(const Format& format, const Catalog& file, const std::string& path,
                   const SetPlace& wanted);
  void take_rest(const Format& format, const std::vector<std::string>& paths,
                 const std::string& taken);

  SourcePtr source_of(const std::string& path, std::size_t of_files) const {
    constexpr std::uint64_t kOthers = 256;  // descriptors for everything else
    return of_files + kOthers < most_files_ ? open_file(path) : open_on_demand(path);
  }
  SourcePtr inside(const SourcePtr& file) const {
    return registry_.unwrap ? registry_.unwrap(file) : file;
  }
  bool named_as_weights(const std::string& name) const {
    const Format* format = registry_.by_suffix(without_compressed_suffix(name));
    return format && !format->companion;
  }
  Catalog read(const SourcePtr& source, const Format** format = nullptr) const {
    return read_catalog(source, registry_, faults_, format);
  }
  std::optional<Catalog> read_part(const std::string& path, std::size_t of_files,
                                   const Format** format) const;
  void take(Catalog&& part);
  void join_meta(const Catalog& part);
  std::unordered_map<std::string, std::size_t> known_meta_;  // positions in the metadata

  void find_tensors();
  void claim(const Scheme& scheme, std::vector<bool>& claimed);
  void retype();

  const std::string& path_;
  const Registry& registry_;
  const OpenOptions& options_;
  Diagnostics& faults_;
  std::uint64_t most_files_;
  std::shared_ptr<Model> model_ = std::make_shared<Model>();
  bool set_broken_ = false;           // a file does not fit its set: reported
  bool compressed_ = false;           // the path given is that of a compressed file
  bool complete_ = true;              // no file of the set is missing
  std::vector<FolderEntry> listing_;  // of the folder that was given
};

}  // namespace wtool::opening
