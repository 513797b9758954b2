#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/plan.h"

namespace wtool {

struct Layout {
  Buffer head;                         // the bytes at offset 0
  std::vector<std::uint64_t> offsets;  // of each tensor, absolute; gaps are zero
  std::uint64_t total_bytes = 0;
  struct Piece {
    std::uint64_t offset;
    Buffer bytes;
  };
  std::vector<Piece> pieces = {};  // more bytes of the format's own: names among data, a tail
};

// The table that joins shards: model.safetensors.index.json.
struct ShardIndex {
  struct Line {
    std::string tensor, file;  // file: relative to the index, checked to stay in its folder
  };
  std::vector<Line> lines;                   // in file order, tensor names unique
  std::optional<std::uint64_t> total_bytes;  // what it claims: the sum of tensor bytes
};

// Which file of a set one is, of `count` from 0: its path is shard_name(stem, number, count), but
// for a set of one file, which may have any name.
struct SetPlace {
  std::string stem;
  std::size_t number = 0, count = 0;
  bool operator==(const SetPlace&) const = default;
};

// A container: facts and pure functions. It never opens, writes or renames anything.
struct Format {
  std::string_view name, summary;
  std::span<const std::string_view> suffixes;  // with the dot; the first one is written
  bool one_tensor = false;  // a file holds exactly one (NPY): a model is a folder
  // Lies beside models and is none (importance matrices): of a folder it is a side file.
  bool companion = false;

  RuleList rules = {};            // all that read() may report
  bool (*detect)(const Source&);  // by content, never by file name
  // Reads the header into the catalog (whose source 0 is the file, already added). Null:
  // write-only.
  void (*read)(const SourcePtr&, Catalog&, Diagnostics&);
  // Where in a set the file is, by its metadata; nothing if that says that it stands alone. Throws
  // BadFile if the path does not fit. Null: sets need an index.
  std::optional<SetPlace> (*place)(const Metadata&, std::string_view path) = nullptr;
  // True if the content is this format's shard index; then read_index() reads it.
  bool (*detect_index)(const Source&) = nullptr;
  ShardIndex (*read_index)(const SourcePtr&, Diagnostics&) = nullptr;
  RuleList index_rules = {};
  // What no reader insists on and a checker tells, of a whole model in this format. `deep`: what
  // lies between the tensors is looked at too.
  void (*review)(const Catalog&, bool deep, Diagnostics&) = nullptr;
  RuleList review_rules = {};

  // Why a tensor can't be stored: dtype, name length, dimensions. From headers alone.
  std::optional<std::string> (*refuses)(const OutTensor&);
  // Why metadata can't be kept; null: everything can.
  std::optional<std::string> (*refuses_meta)(const Metadata&) = nullptr;
  Layout (*layout)(const Metadata&, std::span<const OutTensor>);  // null: read-only

  // Writing a set of `count` files: the name of number `i` (from 0), what its metadata is, and the
  // index file if the format has one. Null: can't be split.
  std::string (*shard_name)(std::string_view stem, std::size_t i, std::size_t count) = nullptr;
  Metadata (*shard_meta)(const Metadata&, std::size_t i, std::size_t count,
                         std::size_t all_tensors) = nullptr;
  std::optional<SideFile> (*index)(std::string_view stem, std::span<const OutFile>,
                                   std::span<const OutTensor>) = nullptr;
  // The reverse of shard_meta: what the whole set's metadata is, from its first file's. `fault` is
  // filled if it claims another number of tensors than all files hold. Null: as it is.
  Metadata (*whole_meta)(const Metadata& first, std::size_t all_tensors,
                         std::string& fault) = nullptr;
};

}  // namespace wtool
