#include "lib/model/metadata.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "lib/base/error.h"

namespace wtool {
namespace {

struct TypeRow {
  std::string_view name;
  std::size_t size;
};
constexpr std::array<TypeRow, kMetaTypes> kTypes{{{"u8", 1},
                                                  {"i8", 1},
                                                  {"u16", 2},
                                                  {"i16", 2},
                                                  {"u32", 4},
                                                  {"i32", 4},
                                                  {"f32", 4},
                                                  {"bool", 1},
                                                  {"str", 0},
                                                  {"arr", 0},
                                                  {"u64", 8},
                                                  {"i64", 8},
                                                  {"f64", 8}}};

// Reads an extent front to back through a small window.
class Window {
 public:
  explicit Window(const Extent& extent) : extent_(extent), left_(extent.bytes) {}

  Bytes next(std::size_t n) {
    if (n > have_.size()) refill(n);
    const Bytes out = have_.first(n);
    have_ = have_.subspan(n);
    return out;
  }

 private:
  void refill(std::size_t n) {
    constexpr std::size_t kPiece = std::size_t{1} << 18;
    const std::size_t kept = have_.size();
    if (n > kept + left_) throw Error(Fault::Internal, "a metadata array ends outside its bytes");
    const std::size_t more =
        static_cast<std::size_t>(std::min<std::uint64_t>(left_, std::max(n - kept, kPiece)));
    Buffer fresh(kept + more);
    std::ranges::copy(have_, fresh.begin());
    extent_.source->read(extent_.offset + extent_.bytes - left_, MutableBytes(fresh).subspan(kept));
    left_ -= more;
    buffer_ = std::move(fresh);
    have_ = buffer_;
  }
  const Extent& extent_;
  std::uint64_t left_;
  Buffer buffer_;
  Bytes have_;
};

template <class T>
T number(Bytes bytes, bool big_endian) noexcept {
  const T v = load<T>(bytes);
  return big_endian ? byte_swapped(v) : v;
}

MetaValue scalar(MetaType type, Bytes bytes, bool big) {
  switch (type) {
    case MetaType::U8: return load<std::uint8_t>(bytes);
    case MetaType::I8: return load<std::int8_t>(bytes);
    case MetaType::U16: return number<std::uint16_t>(bytes, big);
    case MetaType::I16: return number<std::int16_t>(bytes, big);
    case MetaType::U32: return number<std::uint32_t>(bytes, big);
    case MetaType::I32: return number<std::int32_t>(bytes, big);
    case MetaType::F32: return number<float>(bytes, big);
    case MetaType::Bool: return load<std::uint8_t>(bytes) != 0;
    case MetaType::U64: return number<std::uint64_t>(bytes, big);
    case MetaType::I64: return number<std::int64_t>(bytes, big);
    case MetaType::F64: return number<double>(bytes, big);
    case MetaType::String:
    case MetaType::Array: break;
  }
  throw Error(Fault::Internal, "not a scalar metadata type");
}

}  // namespace

std::string_view name_of(MetaType type) noexcept {
  return kTypes[static_cast<std::size_t>(type)].name;
}
std::optional<MetaType> parse_meta_type(std::string_view name) {
  for (std::size_t i = 0; i < kTypes.size(); ++i)
    if (kTypes[i].name == name) return static_cast<MetaType>(i);
  return std::nullopt;
}
std::size_t size_of(MetaType type) noexcept {
  return kTypes[static_cast<std::size_t>(type)].size;
}

const MetaValue* Metadata::find(std::string_view key) const noexcept {
  const auto it = std::ranges::find(entries_, key, &MetaEntry::key);
  return it == entries_.end() ? nullptr : &it->value;
}
void Metadata::set(std::string_view key, MetaValue value) {
  const auto it = std::ranges::find(entries_, key, &MetaEntry::key);
  if (it == entries_.end())
    entries_.push_back({std::string(key), std::move(value)});
  else
    it->value = std::move(value);
}
bool Metadata::erase(std::string_view key) {
  return std::erase_if(entries_, [&](const MetaEntry& e) { return e.key == key; }) != 0;
}
std::string_view Metadata::text(std::string_view key) const noexcept {
  const MetaValue* v = find(key);
  const auto* s = v ? std::get_if<std::string>(v) : nullptr;
  return s ? std::string_view(*s) : std::string_view();
}
std::optional<std::uint64_t> Metadata::count(std::string_view key) const noexcept {
  const MetaValue* v = find(key);
  if (!v) return std::nullopt;
  return std::visit(
      [](const auto& x) -> std::optional<std::uint64_t> {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          if (x < T{0}) return std::nullopt;
          return static_cast<std::uint64_t>(x);
        } else {
          return std::nullopt;
        }
      },
      *v);
}

void for_each(const MetaArray& array, const std::function<bool(const MetaValue&)>& visit) {
  if (array.count == 0) return;
  Window in(array.data);
  for (std::uint64_t i = 0; i < array.count; ++i) {
    if (array.of != MetaType::String) {
      if (!visit(scalar(array.of, in.next(size_of(array.of)), array.big_endian))) return;
      continue;
    }
    const std::uint64_t length = array.length_bytes == 4
                                     ? number<std::uint32_t>(in.next(4), array.big_endian)
                                     : number<std::uint64_t>(in.next(8), array.big_endian);
    if (length > array.data.bytes)
      throw Error(Fault::Internal, "a metadata string ends outside its array");
    if (!visit(std::string(as_text(in.next(static_cast<std::size_t>(length)))))) return;
  }
}

MetaArray array_of(MetaType of, std::span<const MetaValue> values) {
  Buffer bytes;
  for (const MetaValue& v : values) {
    if (type_of(v) != of || of == MetaType::Array)
      throw Error(Fault::Internal, "elements of one metadata array must have one scalar type");
    std::visit(
        [&](const auto& x) {
          using T = std::decay_t<decltype(x)>;
          if constexpr (std::is_same_v<T, std::string>) {
            append(bytes, std::uint64_t{x.size()});
            append(bytes, as_bytes(x));
          } else if constexpr (std::is_same_v<T, bool>) {
            append(bytes, static_cast<std::uint8_t>(x));
          } else if constexpr (std::is_arithmetic_v<T>) {
            append(bytes, x);
          }
        },
        v);
  }
  const std::uint64_t size = bytes.size();
  return {of, values.size(), {from_memory("metadata", std::move(bytes)), 0, size}};
}

std::string to_text(const MetaValue& value, std::size_t most) {
  return std::visit(
      [&](const auto& x) -> std::string {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return x;
        } else if constexpr (std::is_same_v<T, MetaArray>) {
          std::string out = "[";
          std::size_t n = 0;
          for_each(x, [&](const MetaValue& e) {
            if (n == most) return false;
            if (n++ > 0) out += ", ";
            out += to_text(e);
            return true;
          });
          return out + (x.count > most ? ", …]" : "]");
        } else if constexpr (std::is_same_v<T, std::uint8_t> || std::is_same_v<T, std::int8_t>) {
          return fmt::format("{}", static_cast<int>(x));
        } else {
          return fmt::format("{}", x);
        }
      },
      value);
}

}  // namespace wtool
