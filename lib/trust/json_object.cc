#include "lib/trust/json_object.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace wtool {
namespace {

void expect(JsonReader& reader, JsonReader::Kind kind, std::string_view what) {
  if (const auto found = reader.peek(); found != kind)
    throw Error(Fault::BadFile,
                fmt::format("{} is {}, not {}", what, name_of(found), name_of(kind)));
}

}  // namespace

void read_object(JsonReader& reader, std::string_view what,
                 std::initializer_list<JsonMember> members,
                 const std::function<void(std::string_view name)>& other) {
  expect(reader, JsonReader::Kind::Object, what);
  reader.begin_object();
  std::vector<bool> seen(members.size());
  std::vector<std::string> others;
  std::string_view key;
  while (reader.next_member(key)) {
    const auto it = std::ranges::find(members, key, &JsonMember::name);
    if (it != members.end()) {
      if (seen[static_cast<std::size_t>(it - members.begin())])
        throw Error(Fault::BadFile, fmt::format("{} has {} twice", what, quoted(key)));
      seen[static_cast<std::size_t>(it - members.begin())] = true;
      it->read();
      continue;
    }
    if (!other)
      throw Error(Fault::BadFile, fmt::format("{} has an unknown field {}", what, quoted(key)));
    others.emplace_back(key);
    other(others.back());
    reader.skip();
  }
  std::ranges::sort(others);
  if (const auto twice = std::ranges::adjacent_find(others); twice != others.end())
    throw Error(Fault::BadFile, fmt::format("{} has {} twice", what, quoted(*twice)));
  for (std::size_t i = 0; i < members.size(); ++i)
    if (const JsonMember& m = members.begin()[i]; m.required && !seen[i])
      throw Error(Fault::BadFile, fmt::format("{} lacks {}", what, quoted(m.name)));
}

std::string read_text(JsonReader& reader, std::string_view what) {
  expect(reader, JsonReader::Kind::String, what);
  return std::string(reader.string());
}

void read_list(JsonReader& reader, std::string_view what, const std::function<void()>& item) {
  expect(reader, JsonReader::Kind::Array, what);
  reader.begin_array();
  while (reader.next_item()) item();
}

}  // namespace wtool
