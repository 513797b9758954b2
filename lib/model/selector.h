#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/model.h"

namespace wtool {

// The selector language, the same for every command: an exact name first; else a glob over the
// whole name or any run of whole dot-separated parts, where * is any characters (dots too), ? any
// one, [0-9] and [!0-9] one of a set, {a,b} either, and \ takes the next one literally; 're:' a
// regular-expression search (RE2); 'dtype:bf16'; 'layer:3', 'layer:3-7', 'layer:3-';
// 'shape:2d', 'shape:>=2d', 'shape:[4096,*]'. One look at each name, whatever the pattern.
//
// One flag per tensor. Throws Usage if the pattern is malformed, or matches nothing and
// `allow_unmatched` is false (naming the nearest tensor name).
std::vector<bool> matching(std::span<const LogicalTensor> tensors, std::string_view pattern,
                           bool allow_unmatched = false);

// The union of `include` (empty: all) minus the union of `exclude`, as indices in file order.
std::vector<std::uint32_t> select(std::span<const LogicalTensor> tensors,
                                  std::span<const std::string> include,
                                  std::span<const std::string> exclude,
                                  bool allow_unmatched = false);

// The layer number in a name: the first run of digits that is a whole dot-separated part.
std::optional<std::uint64_t> layer_of(std::string_view name) noexcept;

// 'PATTERN=TYPE' rules: the value of the last rule that matches each tensor, or npos.
struct TypeRule {
  std::string pattern, type;
};
TypeRule parse_type_rule(std::string_view text);  // splits at the last '='; throws Usage
std::vector<std::size_t> last_matching(std::span<const LogicalTensor> tensors,
                                       std::span<const TypeRule> rules,
                                       bool allow_unmatched = false);

// A new name by 'A=B' rules: A a regular expression searched for, B the replacement with \1.
class Renamer {
 public:
  explicit Renamer(std::span<const std::string> rules);  // throws Usage
  ~Renamer();
  std::string operator()(std::string_view name) const;
  // Rules that changed no name so far: a typing mistake must not pass.
  std::vector<std::string> unused() const;

 private:
  struct Rule;
  std::vector<Rule> rules_;
};

}  // namespace wtool
