#include "cli/json_edit.h"

#include <algorithm>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace wtool {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kBlank = " \t\r\n";

// Positions in the text: the quote that opens the key, the value's first byte, the byte after it.
struct Member {
  std::size_t key, value, end;
};

std::size_t after_blanks(std::string_view text, std::size_t at) {
  return std::min(text.find_first_not_of(kBlank, at), text.size());
}

std::size_t after_string(std::string_view text, std::size_t quote) {
  std::size_t at = quote + 1;
  while (text[at] != '"') at += text[at] == '\\' ? 2 : 1;
  return at + 1;
}

std::size_t after_value(std::string_view text, std::size_t at) {
  for (int depth = 0;;) {
    const char c = text[at];
    if (c == '"') {
      at = after_string(text, at);
    } else if (c == '{' || c == '[') {
      ++depth, ++at;
    } else if (c == '}' || c == ']') {
      --depth, ++at;
    } else if (depth > 0) {
      ++at;
      continue;
    } else {
      return std::min(text.find_first_of(",}] \t\r\n", at), text.size());
    }
    if (depth == 0) return at;
  }
}

std::vector<Member> members_of(std::string_view text) {
  std::vector<Member> out;
  std::size_t at = after_blanks(text, text.find('{') + 1);
  while (text[at] != '}') {
    Member m{.key = at, .value = 0, .end = 0};
    m.value = after_blanks(text, after_blanks(text, after_string(text, at)) + 1);
    m.end = after_value(text, m.value);
    out.push_back(m);
    at = after_blanks(text, m.end);
    if (text[at] == ',') at = after_blanks(text, at + 1);
  }
  return out;
}

std::optional<std::size_t> position_of(std::string_view text, const std::vector<Member>& members,
                                       std::string_view key) {
  for (std::size_t i = members.size(); i-- > 0;) {
    const std::size_t from = members[i].key;
    if (Json::parse(text.substr(from, after_string(text, from) - from)) == key) return i;
  }
  return std::nullopt;
}

// What stands between two members, from the brace to the first of them: "\n  ", " " or "".
std::string_view gap_of(std::string_view text, const std::vector<Member>& members) {
  const std::size_t from = text.find('{') + 1;
  return members.empty() ? "\n  " : text.substr(from, members[0].key - from);
}

// On lines of its own where the object has such, indented as deep as its members.
std::string laid_out(std::string_view json_value, std::string_view gap) {
  const Json value = Json::parse(json_value);
  const auto line = gap.rfind('\n');
  if (line == gap.npos) return value.dump();
  const std::string_view indent = gap.substr(line + 1);
  const bool tabs = indent.find('\t') != indent.npos;
  const std::string text =
      value.dump(indent.empty() || tabs ? 1 : static_cast<int>(indent.size()), tabs ? '\t' : ' ');
  std::string out;
  for (const char c : text) {
    out += c;
    if (c == '\n') out += indent;
  }
  return out;
}

}  // namespace

std::string with_member(std::string_view object, std::string_view key,
                        std::string_view json_value) {
  const auto members = members_of(object);
  const std::string_view gap = gap_of(object, members);
  const std::string value = laid_out(json_value, gap);
  std::string out(object);
  if (const auto at = position_of(object, members, key)) {
    const Member& m = members[*at];
    return out.replace(m.value, m.end - m.value, value);
  }
  const std::string added = fmt::format("{}: {}", Json(key).dump(), value);
  if (!members.empty()) {
    // Members of one line are told apart by a blank even where the brace has none.
    const std::string_view between = gap.empty() ? " " : gap;
    return out.insert(members.back().end, fmt::format(",{}{}", between, added));
  }
  const std::size_t from = object.find('{') + 1, to = after_blanks(object, from);
  return out.replace(from, to - from, fmt::format("{}{}\n", gap, added));
}

std::string without_member(std::string_view object, std::string_view key) {
  std::string out(object);
  for (;;) {
    const auto members = members_of(out);
    const auto at = position_of(out, members, key);
    if (!at) return out;
    const std::size_t last = members.size() - 1;
    if (*at < last)
      out.erase(members[*at].key, members[*at + 1].key - members[*at].key);
    else if (*at > 0)
      out.erase(members[*at - 1].end, members[*at].end - members[*at - 1].end);
    else
      out.erase(members[0].key, members[0].end - members[0].key);
  }
}

}  // namespace wtool
