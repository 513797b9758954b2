#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "formats/hf/architectures.h"

namespace wtool {

// A folder's config.json as its class reads it: the text model's keys on top, both layouts of
// rotary parameters in one, and the class's defaults where it says nothing.
class HfConfig {
 public:
  static constexpr std::uint64_t kMaxBytes = std::uint64_t{4} << 20;  // real ones: below 100 KiB

  // Throws BadFile: not there, too large, no JSON object, no architecture; Unsupported, with the
  // list, if that is not known. `arch`: the class to take it for ("": what it says).
  static HfConfig of(const Model& model, const std::string& arch);

  const Architecture& architecture() const noexcept { return *architecture_; }
  const std::string& hf_class() const noexcept { return class_; }
  const std::string& where() const noexcept { return where_; }  // the file, for messages
  const nlohmann::json& root() const noexcept { return json_; }

  // What a formula comes to; nothing if each of its alternatives lacks a key. Throws BadFile for
  // what is no number, with the key.
  std::optional<double> number(Formula formula) const;
  // A whole number that is not negative and fits 32 bits, else BadFile with the value.
  std::optional<std::uint64_t> count(Formula formula) const;
  std::uint64_t need(Formula formula) const;                  // throws BadFile, naming the keys
  const nlohmann::json* find(std::string_view dotted) const;  // null: absent, or null

 private:
  HfConfig() = default;
  void settle_rope();
  // The value of one alternative.
  std::optional<double> evaluate(std::string_view alternative) const;
  std::optional<double> operand(std::string_view word) const;

  std::string where_, class_;
  const Architecture* architecture_ = nullptr;
  nlohmann::json json_;
};

}  // namespace wtool
