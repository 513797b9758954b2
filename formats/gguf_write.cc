// The writing half of GGUF: always version 3. The layout is in gguf.cc.
#include <fmt/format.h>

#include "formats/gguf_types.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

// Puts numbers and strings at the end of a head, in the file's byte order.
class Writer {
 public:
  explicit Writer(bool big_endian) : big_(big_endian) {}

  template <class T>
  void number(T v) {
    append(out_, big_ ? byte_swapped(v) : v);
  }
  void text(std::string_view s) {
    number(std::uint64_t{s.size()});
    append(out_, as_bytes(s));
  }
  void value(const MetaValue& v) {
    std::visit(
        [this](const auto& x) {
          using T = std::decay_t<decltype(x)>;
          if constexpr (std::is_same_v<T, std::string>)
            text(x);
          else if constexpr (std::is_same_v<T, MetaArray>)
            array(x);
          else if constexpr (std::is_same_v<T, bool>)
            number(static_cast<std::uint8_t>(x));
          else
            number(x);
        },
        v);
  }
  void pad(std::uint64_t to) { out_.resize(static_cast<std::size_t>(align_up(out_.size(), to))); }
  void magic() { append(out_, as_bytes("GGUF")); }
  Buffer take() { return std::move(out_); }

 private:
  void array(const MetaArray& a) {
    number(static_cast<std::uint32_t>(a.of));
    number(a.count);
    if (a.count == 0) return;
    // As they lie in the source, if that has our byte order and version 3's lengths.
    if (a.big_endian == big_ && (a.of != MetaType::String || a.length_bytes == 8)) {
      const std::size_t at = out_.size();
      out_.resize(at + static_cast<std::size_t>(a.data.bytes));
      a.data.source->read(a.data.offset, MutableBytes(out_).subspan(at));
    } else {
      for_each(a, [this](const MetaValue& v) {
        value(v);
        return true;
      });
    }
  }

  Buffer out_;
  bool big_;
};

std::optional<std::uint32_t> ggml_type(DType dtype) {
  const auto* it = std::ranges::find(kGgmlTypes, dtype, &GgmlType::dtype);
  if (it == kGgmlTypes.end()) return std::nullopt;
  return it->id;
}

std::optional<std::string> refuses_text(std::string_view what, std::string_view s) {
  if (s.empty()) return fmt::format("GGUF has no empty {}s", what);
  if (s.find('\0') != s.npos) return fmt::format("GGUF allows no zero byte in a {}", what);
  if (!is_utf8(s)) return fmt::format("GGUF {}s are UTF-8, this one is not", what);
  return std::nullopt;
}

// GGUF has no room to say it of single tensors.
bool is_big_endian(std::span<const OutTensor> tensors) {
  const auto big = std::ranges::count(tensors, true, &OutTensor::big_endian);
  if (big != 0 && big != std::ssize(tensors))
    throw Error(Fault::Internal,
                fmt::format("{} of {} tensors of a GGUF file are big-endian", big, tensors.size()));
  return big != 0;
}

std::uint64_t alignment_of(const Metadata& meta) {
  const MetaValue* v = meta.find(kGgufAlignmentKey);
  if (!v) return kGgufAlignment;
  if (const auto why = bad_gguf_alignment(*v))
    throw Error(Fault::Usage, fmt::format("{} {}", kGgufAlignmentKey, *why));
  return std::get<std::uint32_t>(*v);
}

void set_part_keys(Metadata& meta, std::size_t i, std::size_t count, std::size_t all_tensors) {
  meta.set(kGgufSplitNo, static_cast<std::uint16_t>(i));
  meta.set(kGgufSplitCount, static_cast<std::uint16_t>(count));
  meta.set(kGgufSplitTensors, static_cast<std::int32_t>(all_tensors));
}

}  // namespace

std::optional<std::string> gguf_refuses(const OutTensor& t) {
  if (auto why = refuses_text("name", t.name)) return why;
  if (t.name.size() > kGgufMaxName)
    return fmt::format("GGUF names have at most {} bytes, this one has {}", kGgufMaxName,
                       t.name.size());
  if (t.shape.size() > kGgufMaxDims)
    return fmt::format("GGUF tensors have at most {} dimensions, {} has {}", kGgufMaxDims,
                       to_text(t.shape), t.shape.size());
  if (std::ranges::find(t.shape, 0u) != t.shape.end())
    return fmt::format("GGUF tensors have no dimension of 0, as {} has", to_text(t.shape));
  const DTypeInfo& type = info(t.dtype);
  if (!ggml_type(t.dtype)) return fmt::format("GGUF has no type for {}", type.name);
  const std::uint64_t row = t.shape.empty() ? 1 : t.shape.back();
  if (row % type.block_elems != 0)
    return fmt::format("a row of {} elements is not a multiple of the block of {} in {}", row,
                       type.block_elems, type.name);
  const auto elements = element_count(t.shape);
  if (!elements || *elements > kGgufMaxElements)
    return fmt::format("GGUF tensors have fewer than 2^63 elements, {} has more", to_text(t.shape));
  return std::nullopt;
}

std::optional<std::string> gguf_refuses_meta(const Metadata& meta) {
  if (meta.size() > kGgufMaxKeys)
    return fmt::format("{} keys, wtool's limit is {}", meta.size(), kGgufMaxKeys);
  for (const auto& [key, value] : meta) {
    if (auto why = refuses_text("key", key))
      return key.empty() ? *why : fmt::format("key {}: {}", quoted(key), *why);
    if (key.size() > kGgufMaxKey)
      return fmt::format("key {}: GGUF keys have at most {} bytes, this one has {}", quoted(key),
                         kGgufMaxKey, key.size());
    if (const auto* s = std::get_if<std::string>(&value); s && s->size() > kGgufMaxString)
      return fmt::format("key {}: GGUF strings have at most {} bytes, this one has {}", quoted(key),
                         kGgufMaxString, s->size());
    if (const auto* a = std::get_if<MetaArray>(&value); a && a->count > kGgufMaxArray)
      return fmt::format("key {}: GGUF arrays have at most {} elements, this one has {}",
                         quoted(key), kGgufMaxArray, a->count);
    if (key == kGgufAlignmentKey)
      if (const auto why = bad_gguf_alignment(value))
        return fmt::format("key {}: {}", quoted(key), *why);
  }
  return std::nullopt;
}

Layout gguf_layout(const Metadata& meta, std::span<const OutTensor> tensors) {
  const std::uint64_t alignment = alignment_of(meta);
  Writer w(is_big_endian(tensors));
  w.magic();
  w.number(kGgufVersion);
  w.number(std::uint64_t{tensors.size()});
  w.number(std::uint64_t{meta.size()});
  for (const auto& [key, value] : meta) {
    w.text(key);
    w.number(static_cast<std::uint32_t>(type_of(value)));
    w.value(value);
  }
  Layout out;
  std::uint64_t at = 0;  // from the start of the data
  for (const OutTensor& t : tensors) {
    w.text(t.name);
    w.number(static_cast<std::uint32_t>(t.shape.size()));
    for (auto d = t.shape.rbegin(); d != t.shape.rend(); ++d) w.number(*d);
    w.number(ggml_type(t.dtype).value());  // place() has asked refuses()
    w.number(at);
    out.offsets.push_back(at);
    at = align_up(at + t.bytes(), alignment);
  }
  w.pad(alignment);
  out.head = w.take();
  for (std::uint64_t& offset : out.offsets) offset += out.head.size();
  out.total_bytes = out.head.size() + at;  // the last tensor is padded too
  return out;
}

std::string gguf_shard_name(std::string_view stem, std::size_t i, std::size_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", stem, i + 1, count);
}

Metadata gguf_shard_meta(const Metadata& meta, std::size_t i, std::size_t count,
                         std::size_t all_tensors) {
  if (count > kGgufMaxParts)
    throw Error(Fault::Usage,
                fmt::format("{} parts, but a GGUF set has at most {}", count, kGgufMaxParts))
        .hint("choose larger parts");
  Metadata out;
  if (i == 0)
    out = meta;
  else if (const MetaValue* alignment = meta.find(kGgufAlignmentKey))
    out.set(kGgufAlignmentKey, *alignment);
  set_part_keys(out, i, count, all_tensors);
  return out;
}

}  // namespace wtool
