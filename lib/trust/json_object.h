#pragma once
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/json_reader.h"

namespace wtool {

// One member that an object may have, and what reads its value.
struct JsonMember {
  std::string_view name;
  bool required;
  std::function<void()> read;
};

// Reads an object whose members are known: none twice, none missing. `other` gets the names of
// unknown ones, whose values are skipped; without it they are refused. `what` is for messages.
void read_object(JsonReader& reader, std::string_view what,
                 std::initializer_list<JsonMember> members,
                 const std::function<void(std::string_view name)>& other = {});

// The next value, which must be a string. Copied: the reader's view is not ours to keep.
std::string read_text(JsonReader& reader, std::string_view what);
// Calls `item` at each item of an array.
void read_list(JsonReader& reader, std::string_view what, const std::function<void()>& item);

}  // namespace wtool
