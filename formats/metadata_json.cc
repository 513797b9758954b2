#include "formats/metadata_json.h"

#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <optional>
#include <unordered_map>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/hex.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"
#include "lib/base/text_hash.h"

namespace wtool {
namespace {

// wtool's own limits, far above any vocabulary: "1," in a file may become 8 bytes of an f64 array.
constexpr std::uint64_t kMaxArrayBytes = std::uint64_t{64} << 20;
constexpr std::size_t kMaxEntries = std::size_t{1} << 17;

// --- writing ---

void append_string(std::string& out, std::string_view s) {
  if (is_utf8(s)) return append_json(out, s);
  out += "{\"hex\":\"";
  out += to_hex(s);
  out += "\"}";
}

template <class T>
void append_float(std::string& out, T value) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  if (std::isfinite(value))
    fmt::format_to(std::back_inserter(out), "{}", value);  // the shortest that reads back
  else
    fmt::format_to(std::back_inserter(out), "\"0x{:0{}x}\"", std::bit_cast<Bits>(value),
                   2 * sizeof value);
}

void append_scalar(std::string& out, const MetaValue& value) {
  std::visit(
      [&](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, std::string>)
          append_string(out, x);
        else if constexpr (std::is_same_v<T, bool>)
          out += x ? "true" : "false";
        else if constexpr (std::is_floating_point_v<T>)
          append_float(out, x);
        else if constexpr (std::is_integral_v<T> && sizeof(T) == 8)
          fmt::format_to(std::back_inserter(out), "\"{}\"", x);
        else if constexpr (std::is_integral_v<T>)
          fmt::format_to(std::back_inserter(out), "{}", static_cast<std::int64_t>(x));
        else
          throw Error(Fault::Internal, "an array is no scalar");
      },
      value);
}

void append_array(std::string& out, const MetaArray& array) {
  fmt::format_to(std::back_inserter(out), ",\"{}\",[", name_of(array.of));
  bool first = true;
  for_each(array, [&](const MetaValue& element) {
    if (!std::exchange(first, false)) out += ',';
    append_scalar(out, element);
    return true;
  });
  out += ']';
}

// What the array takes in memory once restored, which has 8-byte lengths of strings.
std::uint64_t restored_bytes(const MetaArray& array) {
  return array.data.bytes +
         (array.of == MetaType::String ? array.count * (8u - array.length_bytes) : 0);
}

// --- reading ---

[[noreturn]] void malformed(const JsonReader& in, std::string_view what) {
  throw JsonFault(in.position(), fmt::format("{} before byte {}", what, in.position()));
}

std::string read_string(JsonReader& in) {
  if (in.peek() != JsonReader::Kind::Object) return std::string(in.string());
  std::string_view key;
  in.begin_object();
  if (!in.next_member(key) || key != "hex") malformed(in, "an object that is not {\"hex\": …}");
  const std::string_view digits = in.string();
  if (digits.size() % 2 != 0) malformed(in, "an odd number of hexadecimal digits");
  auto out = from_hex(digits);
  if (!out) malformed(in, "bad hexadecimal digits");
  if (in.next_member(key)) malformed(in, "an object that is not {\"hex\": …}");
  return *std::move(out);
}

template <class T>
T parsed(const JsonReader& in, std::string_view text, int base = 10) {
  T value{};
  std::from_chars_result end;
  if constexpr (std::is_floating_point_v<T>)
    end = std::from_chars(text.data(), text.data() + text.size(), value);
  else
    end = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size())
    malformed(in, fmt::format("{} is no value of its type", quoted(text, 40)));
  return value;
}

template <class T>
T read_float(JsonReader& in) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  if (in.peek() != JsonReader::Kind::String) return parsed<T>(in, in.number());
  const std::string_view text = in.string();
  if (text.size() != 2 + 2 * sizeof(T) || !text.starts_with("0x"))
    malformed(in, "bits of another length than the float's");
  const auto value = std::bit_cast<T>(parsed<Bits>(in, text.substr(2), 16));
  if (std::isfinite(value)) malformed(in, "bits of a finite float");
  return value;
}

// One element: calls `take` with the value in its own C++ type.
template <class Take>
void read_scalar(JsonReader& in, MetaType type, Take&& take) {
  switch (type) {
    case MetaType::U8: return take(parsed<std::uint8_t>(in, in.number()));
    case MetaType::I8: return take(parsed<std::int8_t>(in, in.number()));
    case MetaType::U16: return take(parsed<std::uint16_t>(in, in.number()));
    case MetaType::I16: return take(parsed<std::int16_t>(in, in.number()));
    case MetaType::U32: return take(parsed<std::uint32_t>(in, in.number()));
    case MetaType::I32: return take(parsed<std::int32_t>(in, in.number()));
    case MetaType::U64: return take(parsed<std::uint64_t>(in, in.string()));
    case MetaType::I64: return take(parsed<std::int64_t>(in, in.string()));
    case MetaType::F32: return take(read_float<float>(in));
    case MetaType::F64: return take(read_float<double>(in));
    case MetaType::Bool: return take(in.boolean());
    case MetaType::String: return take(read_string(in));
    case MetaType::Array: break;
  }
  malformed(in, "an array inside an array");
}

MetaType read_type(JsonReader& in) {
  const std::string_view name = in.string();
  if (const auto type = parse_meta_type(name)) return *type;
  malformed(in, fmt::format("unknown type {}", quoted(name, 40)));
}

MetaArray read_array(JsonReader& in, std::uint64_t& budget) {
  if (!in.next_item()) malformed(in, "an array without a type");
  const MetaType of = read_type(in);
  if (of == MetaType::Array || !in.next_item()) malformed(in, "an array without elements");
  Buffer bytes;
  std::uint64_t count = 0;
  in.begin_array();
  for (; in.next_item(); ++count) {
    const std::size_t before = bytes.size();
    read_scalar(in, of, [&](const auto& x) {
      if constexpr (std::is_same_v<std::decay_t<decltype(x)>, std::string>) {
        append(bytes, std::uint64_t{x.size()});
        append(bytes, as_bytes(x));
      } else if constexpr (std::is_same_v<std::decay_t<decltype(x)>, bool>) {
        append(bytes, static_cast<std::uint8_t>(x));
      } else {
        append(bytes, x);
      }
    });
    if (bytes.size() - before > budget)
      malformed(in, fmt::format("arrays of more than {} bytes", kMaxArrayBytes));
    budget -= bytes.size() - before;
  }
  const std::uint64_t size = bytes.size();
  return {of, count, {from_memory("metadata", std::move(bytes)), 0, size}};
}

// One [key, type, value]; no value: the string lies under its own key.
std::pair<std::string, std::optional<MetaValue>> read_entry(JsonReader& in, std::uint64_t& budget) {
  std::pair<std::string, std::optional<MetaValue>> entry;
  in.begin_array();
  if (!in.next_item()) malformed(in, "an entry without a key");
  entry.first = read_string(in);
  if (!in.next_item()) malformed(in, "an entry without a type");
  const MetaType type = read_type(in);
  if (type == MetaType::Array) {
    entry.second = read_array(in, budget);
  } else if (in.next_item()) {
    read_scalar(in, type,
                [&](auto&& x) { entry.second = MetaValue(std::forward<decltype(x)>(x)); });
  } else if (type == MetaType::String) {
    return entry;
  } else {
    malformed(in, "an entry without a value");
  }
  if (in.next_item()) malformed(in, "an entry of more than key, type and value");
  return entry;
}

}  // namespace

bool is_plain_string(const MetaEntry& entry) noexcept {
  const auto* s = std::get_if<std::string>(&entry.value);
  return s && entry.key != kTypedMetadataKey && is_utf8(entry.key) && is_utf8(*s);
}

std::string typed_metadata_text(const Metadata& meta) {
  std::string out = "[";
  std::uint64_t arrays = 0;
  for (const MetaEntry& entry : meta) {
    if (out.size() > 1) out += ',';
    out += '[';
    append_string(out, entry.key);
    fmt::format_to(std::back_inserter(out), ",\"{}\"", name_of(type_of(entry.value)));
    if (const auto* array = std::get_if<MetaArray>(&entry.value)) {
      arrays += restored_bytes(*array);
      if (arrays > kMaxArrayBytes || meta.size() > kMaxEntries)
        throw Error(Fault::Unsupported,
                    fmt::format("metadata with arrays of more than {} bytes cannot be kept as text",
                                kMaxArrayBytes))
            .in(fmt::format("metadata {}", quoted(entry.key)));
      append_array(out, *array);
    } else if (!is_plain_string(entry)) {
      out += ',';
      append_scalar(out, entry.value);
    }
    out += ']';
  }
  return out + ']';
}

void restore_typed_metadata(std::span<char> text, std::vector<MetaEntry>& plain) {
  std::unordered_map<std::string_view, std::size_t, TextHash> by_key;
  for (std::size_t i = 0; i < plain.size(); ++i) by_key.emplace(plain[i].key, i);

  // Strings are moved only at the end, when nothing can fail any more.
  constexpr std::size_t kOwn = ~std::size_t{0};
  std::vector<MetaEntry> all;
  std::vector<std::size_t> from;  // for each of `all`: its place in `plain`, or kOwn
  std::vector<bool> placed(plain.size());
  std::unordered_map<std::string, bool, TextHash> seen;
  std::uint64_t budget = kMaxArrayBytes;
  JsonReader in(text);
  in.begin_array();
  while (in.next_item()) {
    auto [key, value] = read_entry(in, budget);
    const auto it = by_key.find(key);
    if (!seen.emplace(key, true).second || (value && it != by_key.end()))
      malformed(in, fmt::format("key {} for the second time", quoted(key, 80)));
    if (seen.size() > kMaxEntries) malformed(in, fmt::format("more than {} keys", kMaxEntries));
    if (value) {
      all.push_back({std::move(key), std::move(*value)});
      from.push_back(kOwn);
    } else if (it != by_key.end()) {
      all.push_back({std::move(key), std::string()});
      from.push_back(it->second);
      placed[it->second] = true;
    }
  }
  in.finish();

  for (std::size_t i = 0; i < all.size(); ++i)
    if (from[i] != kOwn) all[i].value = std::move(plain[from[i]].value);
  for (std::size_t i = 0; i < plain.size(); ++i)
    if (!placed[i]) all.push_back(std::move(plain[i]));
  plain = std::move(all);
}

}  // namespace wtool
