#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lib/model/source.h"

namespace wtool {

// GGUF's value types, by their ids in a file (gguf.h). safetensors metadata is String only.
enum class MetaType : std::uint8_t {
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  F32,
  Bool,
  String,
  Array,
  U64,
  I64,
  F64,
};
inline constexpr std::uint8_t kMetaTypes = 13;

// An array as it lies in a file or in memory: elements one after another; a string is its length
// (of `length_bytes` bytes) and then its bytes. Validated when it was read, decoded on demand.
struct MetaArray {
  MetaType of = MetaType::U8;  // never Array
  std::uint64_t count = 0;
  Extent data = {};
  bool big_endian = false;
  std::uint8_t length_bytes = 8;  // 4 in GGUF version 1
};

// The variant's index is the MetaType.
using MetaValue = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t,
                               std::uint32_t, std::int32_t, float, bool, std::string, MetaArray,
                               std::uint64_t, std::int64_t, double>;
static_assert(std::variant_size_v<MetaValue> == kMetaTypes);

inline MetaType type_of(const MetaValue& v) noexcept {
  return static_cast<MetaType>(v.index());
}
std::string_view name_of(MetaType type) noexcept;  // "u8" … "str", "arr": as the corpus spells them
std::optional<MetaType> parse_meta_type(std::string_view name);
std::size_t size_of(MetaType type) noexcept;  // of one value; 0 for String and Array

struct MetaEntry {
  std::string key;
  MetaValue value;
};

// In file order, keys unique.
class Metadata {
 public:
  const MetaValue* find(std::string_view key) const noexcept;
  void set(std::string_view key, MetaValue value);  // replaces in place, or appends
  void append(std::string key, MetaValue value) {
    entries_.push_back({std::move(key), std::move(value)});
  }
  bool erase(std::string_view key);                            // false if it was not there
  std::string_view text(std::string_view key) const noexcept;  // empty if absent or no string
  // Any integer type that fits; nullopt if absent, no integer, or negative.
  std::optional<std::uint64_t> count(std::string_view key) const noexcept;

  bool empty() const noexcept { return entries_.empty(); }
  std::size_t size() const noexcept { return entries_.size(); }
  auto begin() const noexcept { return entries_.begin(); }
  auto end() const noexcept { return entries_.end(); }

 private:
  std::vector<MetaEntry> entries_;
};

// Calls `visit` with each element in order; elements are never Array. Reads in pieces, so memory
// does not follow the array's size. Stops early when `visit` returns false.
void for_each(const MetaArray& array, const std::function<bool(const MetaValue&)>& visit);

// An array held in memory, little-endian, as GGUF version 3 stores it.
MetaArray array_of(MetaType of, std::span<const MetaValue> values);

// The element's or scalar's text: integers and bools plain, strings as they are, floats shortest
// that reads back. Arrays: "[a, b, …]" with at most `most` elements.
std::string to_text(const MetaValue& value, std::size_t most = 8);

}  // namespace wtool
