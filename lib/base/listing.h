#pragma once
#include <span>
#include <string>
#include <string_view>

namespace wtool {

// What of a long list people are shown: "a, b and 3 more". With a semicolon: "a; b; and 3 more".
std::string first_few(std::span<const std::string> items, std::size_t most,
                      std::string_view between = ", ");
// The same of names, each as quoted() has it.
std::string first_few_names(std::span<const std::string> names, std::size_t most);

}  // namespace wtool
