// What surrounds the tensors: metadata, and the files beside a model.
#include <algorithm>
#include <bit>
#include <map>

#include <nlohmann/json.hpp>

#include "cli/diff.h"
#include "lib/trust/digest.h"

namespace wtool {
namespace {

constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;

bool same_bytes(const Extent& a, const Extent& b) {
  if (a.bytes != b.bytes) return false;
  Buffer x(std::min(kPiece, a.bytes)), y(x.size());
  for (std::uint64_t at = 0; at < a.bytes; at += x.size()) {
    const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(x.size(), a.bytes - at));
    a.source->read(a.offset + at, MutableBytes(x).first(n));
    b.source->read(b.offset + at, MutableBytes(y).first(n));
    if (!std::equal(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(n), y.begin())) return false;
  }
  return true;
}

// Of the elements, however they are encoded.
Sha256 digest_of(const MetaArray& array) {
  Sha256Stream stream;
  for_each(array, [&](const MetaValue& v) {
    std::visit(
        [&]<class T>(const T& x) {
          if constexpr (std::is_same_v<T, std::string>) {
            const std::uint64_t n = x.size();
            stream.update(std::as_bytes(std::span(&n, 1)));
            stream.update(as_bytes(x));
          } else if constexpr (!std::is_same_v<T, MetaArray>) {
            stream.update(std::as_bytes(std::span(&x, 1)));
          }
        },
        v);
    return true;
  });
  return stream.finish();
}

bool same_array(const MetaArray& a, const MetaArray& b) {
  if (a.of != b.of || a.count != b.count) return false;
  if (a.big_endian == b.big_endian && a.length_bytes == b.length_bytes)
    return same_bytes(a.data, b.data);
  return digest_of(a) == digest_of(b);
}

// Floats by their bits: NaN is itself.
bool same_value(const MetaValue& a, const MetaValue& b) {
  if (a.index() != b.index()) return false;
  return std::visit(
      [&]<class T>(const T& x) {
        const T& y = std::get<T>(b);
        if constexpr (std::is_same_v<T, MetaArray>)
          return same_array(x, y);
        else if constexpr (std::is_same_v<T, float>)
          return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
        else if constexpr (std::is_same_v<T, double>)
          return std::bit_cast<std::uint64_t>(x) == std::bit_cast<std::uint64_t>(y);
        else
          return x == y;
      },
      a);
}

std::string value_text(const MetaValue& v) {
  constexpr std::size_t kMost = 200;
  std::string text = to_text(v);
  if (text.size() > kMost) text.resize(kMost);
  return std::string(name_of(type_of(v))) + " " + text;
}

using nlohmann::json;

// The keys of two JSON objects; false if either is none.
bool diff_keys(const SideFile& a, const SideFile& b, std::vector<KeyDifference>& out) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 24;
  if (a.content->size() > kMost || b.content->size() > kMost) return false;
  const auto parse = [](const SideFile& f) {
    return json::parse(as_text(read_all({f.content, 0, f.content->size()})), nullptr, false);
  };
  const json x = parse(a), y = parse(b);
  if (!x.is_object() || !y.is_object()) return false;
  const auto dumped = [](const json& v) {
    return v.dump(-1, ' ', false, json::error_handler_t::replace);
  };
  for (const auto& [key, value] : x.items()) {
    const auto there = y.find(key);
    const std::string name = a.name + ": " + key;
    if (there == y.end())
      out.push_back({KeyDifference::Where::OnlyA, name, dumped(value), {}});
    else if (*there != value)
      out.push_back({KeyDifference::Where::Both, name, dumped(value), dumped(*there)});
  }
  for (const auto& [key, value] : y.items())
    if (!x.contains(key))
      out.push_back({KeyDifference::Where::OnlyB, a.name + ": " + key, {}, dumped(value)});
  return true;
}

}  // namespace

std::vector<KeyDifference> diff_metadata(const Metadata& a, const Metadata& b) {
  std::vector<KeyDifference> out;
  for (const MetaEntry& e : a) {
    const MetaValue* there = b.find(e.key);
    if (there == nullptr)
      out.push_back({KeyDifference::Where::OnlyA, e.key, value_text(e.value), {}});
    else if (!same_value(e.value, *there))
      out.push_back({KeyDifference::Where::Both, e.key, value_text(e.value), value_text(*there)});
  }
  for (const MetaEntry& e : b)
    if (a.find(e.key) == nullptr)
      out.push_back({KeyDifference::Where::OnlyB, e.key, {}, value_text(e.value)});
  return out;
}

std::vector<KeyDifference> diff_side_files(const Model& a, const Model& b) {
  std::vector<KeyDifference> out;
  if (!a.is_folder || !b.is_folder) return out;
  std::map<std::string_view, const SideFile*> in_b;
  for (const SideFile& f : b.side) in_b.emplace(f.name, &f);
  for (const SideFile& f : a.side) {
    const auto there = in_b.find(f.name);
    if (there == in_b.end()) {
      out.push_back({KeyDifference::Where::OnlyA, f.name, {}, {}});
      continue;
    }
    const SideFile& g = *there->second;
    in_b.erase(there);
    if (same_bytes({f.content, 0, f.content->size()}, {g.content, 0, g.content->size()})) continue;
    if (f.name == "config.json" && diff_keys(f, g, out)) continue;
    out.push_back({KeyDifference::Where::Both, f.name, {}, {}});
  }
  for (const SideFile& f : b.side)
    if (in_b.contains(f.name)) out.push_back({KeyDifference::Where::OnlyB, f.name, {}, {}});
  return out;
}

}  // namespace wtool
