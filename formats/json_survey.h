#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace wtool {

// What parsers of JSON understand differently.
struct JsonSurvey {
  struct Twice {
    std::string key;
    std::uint64_t at, before;  // where it stands, and where it stood first in the same object
  };
  std::vector<Twice> twice;             // by position
  std::optional<std::uint64_t> beyond;  // the first number that no double can hold
};
// Reads all of `text`; throws JsonFault. Numbers beyond a double become null in it, which leaves
// every position as it is and the rest to parsers that refuse such.
JsonSurvey survey_json(std::string& text);

}  // namespace wtool
