// A GGUF model in several files: what their names and their split keys say.
#include <fmt/format.h>

#include "formats/gguf_types.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

// A part's name: PREFIX-00002-of-00003.gguf.
struct PartName {
  std::string_view prefix;
  std::uint64_t number, count;  // from 1
};
std::optional<PartName> parse_part_name(std::string_view path) {
  constexpr std::string_view kShape = "-#####-of-#####.gguf";
  if (path.size() < kShape.size()) return std::nullopt;
  const std::string_view tail = path.substr(path.size() - kShape.size());
  for (std::size_t i = 0; i < kShape.size(); ++i)
    if (kShape[i] == '#' ? tail[i] < '0' || tail[i] > '9' : tail[i] != kShape[i])
      return std::nullopt;
  return PartName{path.substr(0, path.size() - kShape.size()), *parse_u64(tail.substr(1, 5)),
                  *parse_u64(tail.substr(10, 5))};
}

}  // namespace

std::optional<SetPlace> gguf_place(const Metadata& meta, std::string_view path) {
  const auto no = meta.count(kGgufSplitNo), count = meta.count(kGgufSplitCount);
  const auto name = parse_part_name(path);
  const auto fault = [&](std::string text) {
    return Error(Fault::BadFile, std::move(text))
        .in(path)
        .hint("give the file its own name back, or open it by itself with --alone");
  };
  if (!no || !count) {
    if (name && name->count > 1)
      throw fault(fmt::format("its name says part {} of {}, but it has no keys {} and {}",
                              name->number, name->count, kGgufSplitNo, kGgufSplitCount));
    return std::nullopt;
  }
  if (!name) {
    if (*count <= 1) return SetPlace{{}, 0, 1};
    throw fault(
        fmt::format("is part {} of {} by its keys, but its name does not end in "
                    "'-{:05}-of-{:05}.gguf'",
                    *no + 1, *count, *no + 1, *count));
  }
  if (*count > kGgufMostParts)
    throw fault(
        fmt::format("{} is {}, wtool's limit is {}", kGgufSplitCount, *count, kGgufMostParts));
  if (name->number != *no + 1 || name->count != *count)
    throw fault(fmt::format("its name says part {} of {}, its keys say part {} of {}", name->number,
                            name->count, *no + 1, *count));
  return SetPlace{std::string(name->prefix), static_cast<std::size_t>(*no),
                  static_cast<std::size_t>(*count)};
}

// A model has no part keys of its own.
Metadata gguf_whole_meta(const Metadata& first, std::size_t all_tensors, std::string& fault) {
  const auto total = first.count(kGgufSplitTensors);
  if (total && *total != all_tensors)
    fault = fmt::format("{} is {} but the parts hold {} tensors", kGgufSplitTensors, *total,
                        all_tensors);
  Metadata out = first;
  for (const std::string_view key : {kGgufSplitNo, kGgufSplitCount, kGgufSplitTensors})
    out.erase(key);
  return out;
}

}  // namespace wtool
