#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace wtool {

// Patterns of the tables in architectures/: {L} and {X} stand for numbers.
struct NameNumbers {
  std::uint64_t layer = 0, expert = 0;
};
std::optional<NameNumbers> match_numbers(std::string_view pattern, std::string_view name);
std::string filled_layer(std::string_view pattern, std::uint64_t layer);  // every {L}

// '*' stands for anything.
bool matches_star(std::string_view pattern, std::string_view name);

}  // namespace wtool
