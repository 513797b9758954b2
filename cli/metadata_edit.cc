// --set, --set-file and --unset: typed metadata from the command line.
#include <array>
#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/rewrite.h"
#include "cli/terminal.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

using Json = nlohmann::json;

struct Assignment {
  std::string key, value;
  std::optional<MetaType> type;  // KEY:u32=5
  bool array = false;            // KEY:u32[]=[1, 2]
  std::string suffix;            // what follows the last ':' and is no type
};

// KEY may hold ':'; only a known type name after the last one counts as a type.
Assignment parse_assignment(const std::string& text, std::string_view option) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    throw Error(Fault::Usage, fmt::format("{} takes KEY=VALUE, not {}", option, quoted(text)))
        .hint(
            "KEY:TYPE=VALUE gives the type: u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 bool str, or "
            "one of them with [] and a JSON list");
  Assignment a{text.substr(0, equals), text.substr(equals + 1), {}, false, {}};
  const auto colon = a.key.rfind(':');
  if (colon == std::string::npos) return a;
  std::string name = a.key.substr(colon + 1);
  const bool array = name.ends_with("[]");
  if (array) name.resize(name.size() - 2);
  const auto type = parse_meta_type(name);
  if (!type || *type == MetaType::Array) {
    a.suffix = name;
    return a;
  }
  a.type = type;
  a.array = array;
  a.key.resize(colon);
  return a;
}

[[noreturn]] void misfit(const std::string& key, std::string_view value, std::string_view type) {
  throw Error(Fault::Usage, fmt::format("{} is not a {} value", quoted(value), type))
      .in(fmt::format("metadata key {}", quoted(key)))
      .hint("KEY:TYPE=VALUE changes the type");
}

template <class T>
T number(const std::string& key, std::string_view text, MetaType type) {
  T v{};
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (code != std::errc() || end != text.data() + text.size()) misfit(key, text, name_of(type));
  return v;
}

MetaValue scalar(const std::string& key, const std::string& text, MetaType type) {
  switch (type) {
    case MetaType::U8: return number<std::uint8_t>(key, text, type);
    case MetaType::I8: return number<std::int8_t>(key, text, type);
    case MetaType::U16: return number<std::uint16_t>(key, text, type);
    case MetaType::I16: return number<std::int16_t>(key, text, type);
    case MetaType::U32: return number<std::uint32_t>(key, text, type);
    case MetaType::I32: return number<std::int32_t>(key, text, type);
    case MetaType::F32: return number<float>(key, text, type);
    case MetaType::U64: return number<std::uint64_t>(key, text, type);
    case MetaType::I64: return number<std::int64_t>(key, text, type);
    case MetaType::F64: return number<double>(key, text, type);
    case MetaType::Bool:
      if (text == "true") return true;
      if (text == "false") return false;
      misfit(key, text, "bool (true or false)");
    case MetaType::String: return text;
    case MetaType::Array: break;
  }
  throw Error(Fault::Internal, "an array is no scalar");
}

MetaValue list(const std::string& key, const std::string& text, MetaType of) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_array()) misfit(key, text, fmt::format("JSON list of {}", name_of(of)));
  std::vector<MetaValue> values;
  for (const Json& e : json) {
    if (!e.is_primitive() || e.is_null() || e.is_string() != (of == MetaType::String))
      misfit(key, e.dump(), name_of(of));
    values.push_back(scalar(key, e.is_string() ? e.get<std::string>() : e.dump(), of));
  }
  return array_of(of, values);
}

std::string nearest_key(const Metadata& meta, std::string_view key) {
  std::vector<std::string_view> keys;
  for (const MetaEntry& e : meta) keys.push_back(e.key);
  const std::string_view near = nearest(key, keys);
  return near.empty() ? "'wtool inspect --meta' lists the keys"
                      : fmt::format("did you mean {}?", quoted(near));
}

// An existing key keeps its type unless one is given; a new one is a string.
void set(Metadata& meta, const Assignment& a, bool typed) {
  // "n:u33=5" is a slip, not a string key of that name; a key that is there may be called so.
  const bool word =
      !a.suffix.empty() && a.suffix.size() <= 8 &&
      a.suffix.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == a.suffix.npos;
  if (word && !meta.find(a.key))
    throw Error(Fault::Usage, fmt::format("{} is no metadata type", quoted(a.suffix)))
        .in(fmt::format("--set {}", quoted(a.key)))
        .hint(
            "u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 bool str, or one of them with []; "
            "KEY:str=VALUE for a key with ':' in it");
  MetaType type = MetaType::String;
  bool array = a.array;
  if (a.type) {
    type = *a.type;
  } else if (const MetaValue* old = meta.find(a.key)) {
    type = type_of(*old);
    if (const auto* was = std::get_if<MetaArray>(old)) {
      type = was->of;
      array = true;
    }
  }
  if (!typed && (array || type != MetaType::String))
    throw Error(Fault::Usage, fmt::format("safetensors metadata are strings, not {}{}",
                                          name_of(type), array ? "[]" : ""))
        .in(fmt::format("metadata key {}", quoted(a.key)));
  meta.set(a.key, array ? list(a.key, a.value, type) : scalar(a.key, a.value, type));
}

std::string contents(const std::string& path) {
  const SourcePtr file = path == "-" ? from_stdin(&stop_signal()) : open_file(path);
  constexpr std::uint64_t kMost = std::uint64_t{1} << 30;  // the longest string llama.cpp reads
  if (file->size() > kMost)
    throw Error(Fault::Usage,
                fmt::format("{} bytes are too many for one metadata value, at most {}",
                            file->size(), kMost))
        .in(path);
  return std::string(as_text(read_all({file, 0, file->size()})));
}

}  // namespace

bool edits_key(const RewriteOptions& o, std::string_view key) {
  const auto names = [&](const std::string& text, const char* option) {
    return parse_assignment(text, option).key == key;
  };
  return std::ranges::find(o.unset, key) != o.unset.end() ||
         std::ranges::any_of(o.set, [&](const std::string& t) { return names(t, "--set"); }) ||
         std::ranges::any_of(o.set_file,
                             [&](const std::string& t) { return names(t, "--set-file"); });
}

void edit_metadata(Metadata& meta, const RewriteOptions& o, bool typed) {
  for (const std::string& key : o.unset)
    if (!meta.erase(key))
      throw Error(Fault::Usage, fmt::format("--unset: no metadata key {}", quoted(key)))
          .hint(nearest_key(meta, key));
  for (const std::string& text : o.set) set(meta, parse_assignment(text, "--set"), typed);
  for (const std::string& text : o.set_file) {
    Assignment a = parse_assignment(text, "--set-file");
    a.value = contents(a.value);
    a.type = MetaType::String;
    set(meta, a, typed);
  }
}

}  // namespace wtool
