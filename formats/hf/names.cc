#include "formats/hf/names.h"

#include <algorithm>

#include "lib/base/text.h"

namespace wtool {

std::optional<NameNumbers> match_numbers(std::string_view pattern, std::string_view name) {
  NameNumbers out;
  for (;;) {
    const std::size_t open = pattern.find('{');
    if (open == pattern.npos) return pattern == name ? std::optional(out) : std::nullopt;
    if (!name.starts_with(pattern.substr(0, open))) return std::nullopt;
    name.remove_prefix(open);
    const std::size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
    const auto number = parse_u64(name.substr(0, digits));
    // "01" is another name than "1", which it would stand for.
    if (!number || (digits > 1 && name.front() == '0')) return std::nullopt;
    (pattern[open + 1] == 'L' ? out.layer : out.expert) = *number;
    name.remove_prefix(digits);
    pattern.remove_prefix(open + 3);
  }
}

std::string filled_layer(std::string_view pattern, std::uint64_t layer) {
  std::string out(pattern);
  for (std::size_t at; (at = out.find("{L}")) != out.npos;)
    out.replace(at, 3, std::to_string(layer));
  return out;
}

bool matches_star(std::string_view pattern, std::string_view name) {
  const std::size_t star = pattern.find('*');
  if (star == pattern.npos) return pattern == name;
  if (!name.starts_with(pattern.substr(0, star))) return false;
  for (std::size_t at = star; at <= name.size(); ++at)
    if (matches_star(pattern.substr(star + 1), name.substr(at))) return true;
  return false;
}

}  // namespace wtool
