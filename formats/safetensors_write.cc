#include <algorithm>

#include <fmt/format.h>

#include "formats/metadata_json.h"
#include "formats/safetensors_types.h"
#include "lib/base/error.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

void append_metadata(std::string& out, const Metadata& meta) {
  bool first = true;
  const auto member = [&](std::string_view key, std::string_view value) {
    if (!std::exchange(first, false)) out += ',';
    append_json(out, key);
    out += ':';
    append_json(out, value);
  };
  fmt::format_to(std::back_inserter(out), "\"{}\":{{", kSafetensorsMetadata);
  for (const MetaEntry& entry : meta)
    if (is_plain_string(entry)) member(entry.key, std::get<std::string>(entry.value));
  if (!std::ranges::all_of(meta, is_plain_string))
    member(kTypedMetadataKey, typed_metadata_text(meta));
  out += '}';
}

}  // namespace

std::optional<std::string> safetensors_refuses(const OutTensor& t) {
  const auto* known = std::ranges::find(kSafetensorsTypes, t.dtype, &SafetensorsType::type);
  if (known == kSafetensorsTypes.end())
    return fmt::format("safetensors has no dtype {}", wtool::name_of(t.dtype));
  if (t.big_endian) return "safetensors is little-endian";
  if (t.name == kSafetensorsMetadata) return "safetensors keeps this name for its metadata";
  if (!is_utf8(t.name)) return "safetensors names are UTF-8";
  const auto elements = element_count(t.shape);
  if (!elements || !byte_size(t.dtype, *elements)) {
    const DTypeInfo& type = info(t.dtype);
    if (elements && *elements % type.block_elems != 0)
      return fmt::format("{} {}: {} elements are no whole number of bytes", type.name,
                         to_text(t.shape), *elements);
    return fmt::format("{} {} needs more than 2^64 bytes", type.name, to_text(t.shape));
  }
  return std::nullopt;
}

// In the reference writer's form: compact, metadata first, members in this order, padded with
// spaces so that the data begins at a multiple of 8.
Layout safetensors_layout(const Metadata& meta, std::span<const OutTensor> tensors) {
  Layout out;
  std::string text(8, '\0');  // the length
  text += '{';
  if (!meta.empty()) append_metadata(text, meta);
  std::uint64_t at = 0;
  for (const OutTensor& t : tensors) {
    if (const auto why = safetensors_refuses(t))
      throw Error(Fault::Internal, *why).in(quoted(t.name));
    if (text.size() > 9) text += ',';
    append_json(text, t.name);
    const auto end = checked_add(at, t.bytes());
    if (!end) throw Error(Fault::Usage, "the tensors together need more than 2^64 bytes");
    fmt::format_to(std::back_inserter(text),
                   R"(:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                   std::ranges::find(kSafetensorsTypes, t.dtype, &SafetensorsType::type)->name,
                   fmt::join(t.shape, ","), at, *end);
    out.offsets.push_back(at);
    at = *end;
  }
  text += '}';
  text.resize(align_up(text.size(), 8), ' ');
  const std::uint64_t length = text.size() - 8;
  if (length > kSafetensorsMaxHeader)
    throw Error(Fault::Usage,
                fmt::format("the header would take {} bytes, the format's limit is {}", length,
                            kSafetensorsMaxHeader))
        .hint("write it in shards with --shard-size");
  out.head = to_buffer(text);
  store(out.head, length);
  for (std::uint64_t& offset : out.offsets) offset += text.size();
  out.total_bytes = text.size() + at;
  return out;
}

std::string safetensors_shard_name(std::string_view stem, std::size_t i, std::size_t count) {
  if (count == 1) return fmt::format("{}.safetensors", stem);
  return fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, count);
}

}  // namespace wtool
