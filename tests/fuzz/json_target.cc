// The JSON reader against another parser: both must agree on what is JSON and on every string. And
// the editing of one member in a text.
#include <nlohmann/json.hpp>

#include "cli/json_edit.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"
#include "tests/fuzz/target.h"

namespace wtool::fuzz {
namespace {

using Json = nlohmann::json;

void expect_value(JsonReader& in, const Json& json) {
  using Kind = JsonReader::Kind;
  switch (in.peek()) {
    case Kind::Object: {
      expect(json.is_object(), "an object that is none");
      in.begin_object();
      for (std::string_view view; in.next_member(view);) {
        expect(json.contains(std::string(view)), "a key that is not there");
        in.skip();  // of keys that are there twice the other parser keeps one
      }
      break;
    }
    case Kind::Array: {
      expect(json.is_array(), "an array that is none");
      std::size_t n = 0;
      for (in.begin_array(); in.next_item(); ++n) expect_value(in, json.at(n));
      expect(n == json.size(), "an array of another length");
      break;
    }
    case Kind::String: expect(json == std::string(in.string()), "another string"); break;
    case Kind::Number: {
      std::uint64_t n = 0;
      if (in.unsigned_integer(n))
        expect(json == n, "another number");
      else
        expect(json.is_number() && !in.number().empty(), "a number that is none");
      break;
    }
    case Kind::Bool: expect(json == in.boolean(), "another bool"); break;
    case Kind::Null: expect(json.is_null(), "a null that is none"); in.skip();
  }
}

std::size_t depth_of(std::string_view text) {
  std::size_t depth = 0, most = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\') ++i;
    if (c == '"') quoted = !quoted;
    if (!quoted && (c == '{' || c == '[')) most = std::max(most, ++depth);
    if (!quoted && (c == '}' || c == ']') && depth > 0) --depth;
  }
  return most;
}

bool skips(std::string text) {
  try {
    JsonReader in(text);
    in.skip();
    in.finish();
    return true;
  } catch (const JsonFault& e) {
    expect(e.at <= text.size(), "a position behind the end");
    return false;
  }
}

void expect_edits(const std::string& text, const Json& json) {
  const std::string key = json.empty() ? "key" : json.begin().key();
  Json with = json, without = json;
  with[key] = {{"a", 1}};
  without.erase(key);
  expect(Json::parse(with_member(text, key, R"({"a": 1})")) == with, "a member set wrongly");
  expect(Json::parse(without_member(text, key)) == without, "a member removed wrongly");
  std::string again;
  append_json(again, key);
  expect(Json::parse(again) == key, "a key written wrongly");
}

void run(Bytes input) {
  std::string text(as_text(input));
  if (depth_of(text) > JsonReader::kMaxDepth) {
    expect(!skips(text), "deeper than the limit");
    return;
  }
  // The other parser passes over a byte order mark, ends at a zero byte, and has no numbers beyond
  // double precision.
  const bool marked = text.starts_with("\xEF\xBB\xBF");
  const bool ours = skips(text);
  if (text.find('\0') != text.npos) return expect(!ours, "accepted a zero byte");
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::out_of_range&) {
    return;
  } catch (const Json::parse_error&) {
    expect(!ours, "accepted what is no JSON");
    return;
  }
  expect(ours != marked, marked ? "accepted a byte order mark" : "refused what is JSON");
  if (!ours) return;
  std::string copy = text;
  JsonReader in(copy);
  expect_value(in, json);
  in.finish();
  if (json.is_object()) expect_edits(text, json);
}

}  // namespace

extern const Target kJson;
const Target kJson{"json", run, mutate_json};

}  // namespace wtool::fuzz
