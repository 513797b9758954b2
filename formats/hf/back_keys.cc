#include "formats/hf/back_keys.h"

#include <cmath>
#include <cstdlib>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

[[noreturn]] void no_count(std::string_view key, const MetaValue& found) {
  throw Error(Fault::BadFile,
              fmt::format("metadata key {} is {} of type {}, not a count", quoted(key),
                          quoted(to_text(found)), name_of(type_of(found))));
}
[[noreturn]] void wrong_type(std::string_view key, std::string_view found,
                             std::string_view wanted) {
  throw Error(Fault::BadFile,
              fmt::format("metadata key {} is of type {}, not {}", quoted(key), found, wanted));
}

std::optional<std::uint64_t> as_count(const MetaValue& v) noexcept {
  return std::visit(
      [](const auto& x) -> std::optional<std::uint64_t> {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          if (x >= T{0}) return static_cast<std::uint64_t>(x);
        }
        return std::nullopt;
      },
      v);
}

// 1e-5f is 9.99999974737875e-06; people, and the file it came from, wrote 1e-05.
double shortest(float value) {
  return std::strtod(fmt::format("{}", value).c_str(), nullptr);
}

}  // namespace

BackKeys::BackKeys(const Metadata& meta)
    : meta_(meta), architecture_(meta.text("general.architecture")), read_(meta.size()) {
  if (architecture_.empty())
    throw Error(Fault::BadFile, "metadata key 'general.architecture' is missing");
}

std::string BackKeys::own(std::string_view key) const {
  return fmt::format("{}.{}", architecture_, key);
}

const MetaValue* BackKeys::find(std::string_view key) {
  std::size_t i = 0;
  for (const MetaEntry& e : meta_) {
    if (e.key == key) {
      read_[i] = true;
      return &e.value;
    }
    ++i;
  }
  return nullptr;
}

std::optional<std::uint64_t> BackKeys::count(std::string_view key) {
  const MetaValue* v = find(key);
  if (!v) return std::nullopt;
  const auto* list = std::get_if<MetaArray>(v);
  if (!list) {
    const auto n = as_count(*v);
    if (!n) no_count(key, *v);
    return n;
  }
  std::optional<std::uint64_t> first;
  for_each(*list, [&](const MetaValue& e) {
    const auto n = as_count(e);
    if (!n) no_count(key, e);
    if (first && *first != *n)
      throw Error(Fault::Unsupported,
                  fmt::format("metadata key {} differs between layers ({} and {}): config.json has "
                              "one number",
                              quoted(key), *first, *n));
    first = n;
    return true;
  });
  if (!first) wrong_type(key, "an empty arr", "a count");
  return first;
}

std::optional<double> BackKeys::real(std::string_view key) {
  const MetaValue* v = find(key);
  if (!v) return std::nullopt;
  double x = 0;
  if (const auto* f = std::get_if<float>(v))
    x = shortest(*f);
  else if (const auto* d = std::get_if<double>(v))
    x = *d;
  else if (const auto n = as_count(*v))
    x = static_cast<double>(*n);
  else
    wrong_type(key, name_of(type_of(*v)), "a number");
  if (!std::isfinite(x))
    throw Error(Fault::BadFile, fmt::format("metadata key {} is {}", quoted(key), x));
  return x;
}

std::optional<bool> BackKeys::flag(std::string_view key) {
  const MetaValue* v = find(key);
  if (!v) return std::nullopt;
  const auto* b = std::get_if<bool>(v);
  if (!b) wrong_type(key, name_of(type_of(*v)), "bool");
  return *b;
}

const std::string* BackKeys::text(std::string_view key) {
  const MetaValue* v = find(key);
  if (!v) return nullptr;
  const auto* s = std::get_if<std::string>(v);
  if (!s) wrong_type(key, name_of(type_of(*v)), "str");
  std::size_t bad = 0;
  if (!is_utf8(*s, &bad))
    throw Error(Fault::BadFile,
                fmt::format("metadata key {} is not UTF-8 from byte {} on", quoted(key), bad));
  return s;
}

const MetaArray* BackKeys::array(std::string_view key) {
  const MetaValue* v = find(key);
  if (!v) return nullptr;
  const auto* a = std::get_if<MetaArray>(v);
  if (!a) wrong_type(key, name_of(type_of(*v)), "arr");
  return a;
}

std::vector<std::string> BackKeys::unread(std::string_view prefix) const {
  std::vector<std::string> keys;
  std::size_t i = 0;
  for (const MetaEntry& e : meta_)
    if (!read_[i++] && e.key.starts_with(prefix)) keys.push_back(e.key);
  return keys;
}

}  // namespace wtool
