#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/metadata.h"

namespace wtool {

// GGUF's metadata while files are made of it: remembers which keys were asked for, so that those
// which nobody did can be named. A key of another type throws BadFile.
class BackKeys {
 public:
  explicit BackKeys(const Metadata& meta);

  const std::string& architecture() const noexcept { return architecture_; }
  std::string own(std::string_view key) const;  // "{arch}.key"

  // Absent is nullopt. A list of equal numbers, one a layer, is one number.
  std::optional<std::uint64_t> count(std::string_view key);
  std::optional<double> real(std::string_view key);  // of an f32 the shortest decimal that gives it
  std::optional<bool> flag(std::string_view key);
  const std::string* text(std::string_view key);  // UTF-8
  const MetaArray* array(std::string_view key);
  void skip(std::string_view key) {
    static_cast<void>(find(key));
  }  // it has no place, and needs none

  // The keys that begin so and were not asked for.
  std::vector<std::string> unread(std::string_view prefix) const;

 private:
  const MetaValue* find(std::string_view key);

  const Metadata& meta_;
  std::string architecture_;
  std::vector<bool> read_;
};

}  // namespace wtool
