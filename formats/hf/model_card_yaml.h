#pragma once
// The head of a model card: README.md begins with "---", keys and values in YAML, "---".
//
// Read is the part of YAML that cards are written in: scalars of all five styles, lists of scalars
// or of flat maps, as blocks or in brackets. No anchors, tags, nested lists or maps. Scalars are
// text: `version: 1.0` is "1.0", `language: no` is "no".
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace wtool {

using CardMap = std::vector<std::pair<std::string, std::string>>;
using CardItem = std::variant<std::string, CardMap>;

struct CardEntry {
  std::string key;
  bool is_list = false;
  std::vector<CardItem> items;  // of a scalar one; of null none
};

// Null is left out of a list and of a map.
class Card {
 public:
  // `readme` is the file's text, or as much of it as may hold the head. Keys that are not `wanted`
  // are passed over, whatever they hold. What of the others is not understood is left out, with a
  // note that names the line. No head: empty.
  static Card read(std::string_view readme, const std::function<bool(std::string_view)>& wanted,
                   std::vector<std::string>& notes);

  const CardEntry* find(std::string_view key) const noexcept;

 private:
  std::vector<CardEntry> entries_;
};

}  // namespace wtool
