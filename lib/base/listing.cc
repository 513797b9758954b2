#include "lib/base/listing.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lib/base/text.h"

namespace wtool {

std::string first_few(std::span<const std::string> items, std::size_t most,
                      std::string_view between) {
  const auto shown = items.first(std::min(most, items.size()));
  std::string text = fmt::format("{}", fmt::join(shown, between));
  if (items.size() > most)
    text += fmt::format("{}and {} more", between == ", " ? " " : between, items.size() - most);
  return text;
}

std::string first_few_names(std::span<const std::string> names, std::size_t most) {
  std::vector<std::string> quotes;
  for (const std::string& name : names.first(std::min(most, names.size())))
    quotes.push_back(quoted(name));
  quotes.resize(names.size());
  return first_few(quotes, most);
}

}  // namespace wtool
