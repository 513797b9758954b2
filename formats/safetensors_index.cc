#include "formats/safetensors_index.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "formats/registry.h"
#include "lib/base/error.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"
#include "lib/model/model.h"

namespace wtool {
namespace {

// wtool's own limit; the largest index known takes about 60 MB (497,000 tensors).
constexpr std::uint64_t kMaxIndex = 80'000'000;

constexpr Rule kJson{"safetensors.index", "the index is one JSON object in UTF-8"},
    kSize{"safetensors.index-size", "the index is within wtool's limit"},
    kMap{"safetensors.index-map", "'weight_map' is there once, a map from tensors to file names"},
    kPath{"safetensors.index-path", "the index names files of its own folder"},
    kTwice{"safetensors.index-duplicate", "the index lists no tensor twice", true},
    kKey{"safetensors.index-key", "the index has no other key twice", true},
    kTotal{"safetensors.index-total", "total_size in the index is an unsigned 64-bit integer",
           true};
constexpr std::array<const Rule*, 7> kRules{&kJson, &kSize, &kMap, &kPath, &kTwice, &kKey, &kTotal};

// A page or a pointer in its place is called by its name.
std::string what_it_is(const Source& file, const JsonFault& f) {
  Buffer start(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), 64)));
  file.read(0, start);
  const std::string_view text = as_text(start);
  const auto first = text.find_first_not_of(" \t\r\n");
  return first != text.npos && text[first] == '{' ? f.text() : diagnose(file);
}

class IndexReader {
 public:
  IndexReader(const Source& file, std::span<char> text, Diagnostics& faults)
      : file_(file), faults_(faults), in_(text) {}

  // What stands before a fault is kept.
  ShardIndex read() {
    try {
      members();
    } catch (const JsonFault& f) {
      faults_.report(kJson, file_.name(), f.at, what_it_is(file_, f));
    }
    report_duplicates();
    return std::move(index_);
  }

 private:
  void members() {
    std::string_view key;
    bool map_seen = false, metadata_seen = false;
    in_.begin_object();
    while (in_.next_member(key)) {
      if (key == "weight_map") {
        if (std::exchange(map_seen, true)) {
          fault(kMap, "'weight_map' appears twice");
          in_.skip();
        } else {
          weight_map();
        }
      } else if (key == "metadata" && in_.peek() == JsonReader::Kind::Object) {
        if (std::exchange(metadata_seen, true)) fault(kKey, "'metadata' appears twice");
        metadata();
      } else {
        in_.skip();
      }
    }
    in_.finish();
    if (!map_seen) fault(kMap, "has no 'weight_map'");
  }

  void metadata() {
    std::string_view key;
    bool total_seen = false;
    in_.begin_object();
    while (in_.next_member(key)) {
      std::uint64_t value = 0;
      if (key == "total_size" && std::exchange(total_seen, true))
        fault(kKey, "'total_size' appears twice");
      if (key != "total_size") {
        in_.skip();
      } else if (in_.peek() == JsonReader::Kind::Number && in_.unsigned_integer(value)) {
        index_.total_bytes = value;
      } else {
        fault(kTotal, "total_size is no unsigned 64-bit integer");
        in_.skip();
      }
    }
  }

  void weight_map() {
    if (const auto kind = in_.peek(); kind != JsonReader::Kind::Object) {
      fault(kMap,
            fmt::format("'weight_map' must be a map from tensors to files, not {}", name_of(kind)));
      return in_.skip();
    }
    std::string_view tensor;
    in_.begin_object();
    while (in_.next_member(tensor)) line(tensor);
  }

  void line(std::string_view tensor) {
    if (const auto kind = in_.peek(); kind != JsonReader::Kind::String) {
      fault(kMap, fmt::format("must be mapped to a file name, not to {}", name_of(kind)), tensor);
      return in_.skip();
    }
    const std::uint64_t at = in_.position();
    const std::string_view file = in_.string();
    if (index_.lines.size() == Catalog::kMaxTensors)
      throw JsonFault(at, fmt::format("more than {} tensors, wtool's limit", Catalog::kMaxTensors));
    // Shards of one file usually follow each other.
    if (file != last_file_) {
      if (const auto why = unsafe_path(file))
        return fault(kPath, fmt::format("is mapped to {}, which {}", quoted(file), *why), tensor);
      last_file_ = file;
    }
    index_.lines.push_back({std::string(tensor), std::string(file)});
  }

  // By sorting, not by hashing: once, after the fact, without memory for a table of names.
  void report_duplicates() {
    auto& lines = index_.lines;
    std::vector<std::uint32_t> order(lines.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::sort(order, [&](std::uint32_t a, std::uint32_t b) {
      const int c = lines[a].tensor.compare(lines[b].tensor);
      return c != 0 ? c < 0 : a < b;
    });
    std::vector<bool> extra(lines.size());
    for (std::size_t i = 1; i < order.size(); ++i) {
      const auto &a = lines[order[i - 1]], &b = lines[order[i]];
      if (a.tensor != b.tensor) continue;
      fault(kTwice, fmt::format("is mapped twice, to {} and {}", quoted(a.file), quoted(b.file)),
            a.tensor);
      extra[order[i]] = true;
    }
    std::erase_if(lines, [&, i = std::size_t{0}](const auto&) mutable { return extra[i++]; });
  }

  void fault(const Rule& rule, std::string text) { report(rule, {file_.name()}, std::move(text)); }
  void fault(const Rule& rule, std::string text, std::string_view tensor) {
    report(rule, {file_.name(), "tensor", tensor}, std::move(text));
  }
  void report(const Rule& rule, Place where, std::string text) {
    faults_.report(rule, std::move(where), in_.position(), std::move(text));
  }

  const Source& file_;
  Diagnostics& faults_;
  JsonReader in_;
  ShardIndex index_;
  std::string_view last_file_;
};

}  // namespace

RuleList safetensors_index_rules() noexcept {
  return kRules;
}

// The member comes within the first bytes in every index known: metadata before it is small.
bool detect_safetensors_index(const Source& source) {
  Buffer start(static_cast<std::size_t>(std::min<std::uint64_t>(source.size(), 64)));
  const auto opens_object = [&] {
    std::string_view text = as_text(start);
    for (const char* token : {"{", "\""}) {
      text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
      if (!text.starts_with(token)) return false;
      text.remove_prefix(1);
    }
    return true;
  };
  source.read(0, start);
  if (!opens_object()) return false;
  start.resize(static_cast<std::size_t>(std::min<std::uint64_t>(source.size(), 1u << 20)));
  source.read(0, start);
  return as_text(start).find("\"weight_map\"") != std::string_view::npos;
}

ShardIndex read_safetensors_index(const SourcePtr& file, Diagnostics& faults) {
  if (file->size() > kMaxIndex) {
    faults.report(kSize, file->name(), 0,
                  fmt::format("has {} bytes, but wtool takes an index of at most {}", file->size(),
                              kMaxIndex));
    return {};
  }
  const auto size = static_cast<std::size_t>(file->size());
  const auto buffer = std::make_unique_for_overwrite<char[]>(size);
  const std::span<char> text(buffer.get(), size);
  file->read(0, std::as_writable_bytes(text));
  try {
    return IndexReader(*file, text, faults).read();
  } catch (const JsonFault& f) {
    faults.report(kJson, file->name(), f.at, what_it_is(*file, f));
    return {};
  }
}

// As transformers writes it: sorted by name, indented by two spaces, a newline at the end.
std::optional<SideFile> safetensors_index(std::string_view stem, std::span<const OutFile> files,
                                          std::span<const OutTensor> tensors) {
  struct Line {
    std::string_view tensor, file;
  };
  std::vector<Line> lines;
  std::uint64_t total = 0;
  std::size_t next = 0;
  for (const OutFile& file : files)
    for (std::size_t i = 0; i < file.tensors; ++i, ++next) {
      lines.push_back({tensors[next].name, file.name});
      total += tensors[next].bytes();
    }
  std::ranges::sort(lines, {}, &Line::tensor);

  std::string text = fmt::format(
      "{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n  \"weight_map\": {{", total);
  for (const Line& line : lines) {
    text += text.back() == '{' ? "\n    " : ",\n    ";
    append_json(text, line.tensor);
    text += ": ";
    append_json(text, line.file);
  }
  text += lines.empty() ? "}\n}\n" : "\n  }\n}\n";
  const std::string name = fmt::format("{}.safetensors.index.json", stem);
  return SideFile{name, from_memory(name, to_buffer(text))};
}

}  // namespace wtool
