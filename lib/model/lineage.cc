#include "lib/model/lineage.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/hex.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::string_view kVersion = "wtool.version", kOperation = "wtool.operation",
                           kRecipe = "wtool.recipe", kCount = "wtool.source.count",
                           kSource = "wtool.source.";

std::string key_of(std::size_t source, std::string_view what) {
  return fmt::format("{}{}.{}", kSource, source, what);
}

Error broken(std::string_view key, std::string_view what) {
  return Error(Fault::BadFile, std::string(what)).in(fmt::format("metadata key {}", quoted(key)));
}

// An integer, or the text of one.
std::uint64_t number(const Metadata& meta, const std::string& key) {
  if (const auto n = meta.count(key)) return *n;
  if (const auto n = parse_u64(meta.text(key))) return *n;
  throw broken(key, meta.find(key) ? "is no number" : "is missing");
}

std::string digest(const Metadata& meta, const std::string& key) {
  const std::string_view text = meta.text(key);
  if (!is_hex(text, 32)) throw broken(key, "is no SHA-256 of 64 lower-case hexadecimal digits");
  return std::string(text);
}

}  // namespace

bool is_lineage_key(std::string_view key) noexcept {
  return key == kVersion || key == kOperation || key == kRecipe || key.starts_with(kSource);
}

void set_lineage(Metadata& meta, const Lineage& lineage, bool typed) {
  erase_lineage(meta);
  const auto count = [&](const std::string& key, std::uint64_t n) {
    meta.append(key, typed ? MetaValue(n) : MetaValue(std::to_string(n)));
  };
  meta.append(std::string(kVersion), lineage.version);
  meta.append(std::string(kOperation), lineage.operation);
  meta.append(std::string(kRecipe), lineage.recipe);
  count(std::string(kCount), lineage.sources.size());
  for (std::size_t i = 0; i < lineage.sources.size(); ++i) {
    const Lineage::Source& s = lineage.sources[i];
    meta.append(key_of(i, "name"), s.name);
    count(key_of(i, "size"), s.bytes);
    meta.append(key_of(i, "sha256"), s.sha256);
    if (s.files > 0) count(key_of(i, "files"), s.files);
  }
}

void fill_lineage(Metadata& meta, const Lineage& lineage) {
  for (std::size_t i = 0; i < lineage.sources.size(); ++i) {
    const std::string key = key_of(i, "sha256");
    if (meta.find(key)) meta.set(key, lineage.sources[i].sha256);
  }
}

bool erase_lineage(Metadata& meta) {
  std::vector<std::string> keys;
  for (const MetaEntry& e : meta)
    if (is_lineage_key(e.key)) keys.push_back(e.key);
  for (const std::string& key : keys) meta.erase(key);
  return !keys.empty();
}

std::optional<Lineage> lineage_of(const Metadata& meta) {
  if (std::ranges::none_of(meta, [](const MetaEntry& e) { return is_lineage_key(e.key); }))
    return std::nullopt;
  Lineage out;
  out.version = meta.text(kVersion);
  out.operation = meta.text(kOperation);
  out.recipe = meta.text(kRecipe);
  const std::uint64_t sources = number(meta, std::string(kCount));
  if (sources > kMostSources)
    throw broken(kCount, fmt::format("{} sources are more than {}", sources, kMostSources));
  for (std::size_t i = 0; i < sources; ++i) {
    Lineage::Source& s = out.sources.emplace_back();
    const std::string name = key_of(i, "name"), files = key_of(i, "files");
    s.name = meta.text(name);
    if (s.name.empty()) throw broken(name, "is missing or empty");
    s.bytes = number(meta, key_of(i, "size"));
    s.sha256 = digest(meta, key_of(i, "sha256"));
    if (meta.find(files)) s.files = number(meta, files);
  }
  return out;
}

}  // namespace wtool
