#include "lib/base/json_reader.h"

#include <bit>
#include <bitset>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::uint64_t kOnes = 0x0101010101010101u, kHighs = kOnes * 0x80;

// The high bit of each byte of `word` that is 0. Bytes above the lowest hit may be wrong.
constexpr std::uint64_t zero_bytes(std::uint64_t word) noexcept {
  return (word - kOnes) & ~word & kHighs;
}

bool is_plain(char c) noexcept {
  return c != '"' && c != '\\' && static_cast<unsigned char>(c) >= 0x20;
}

// The first byte that ends a run of plain string content: a quote, a backslash or a control.
char* end_of_plain(char* at, const char* end) noexcept {
  for (; end - at >= 8; at += 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    const std::uint64_t hits = zero_bytes(word ^ kOnes * '"') | zero_bytes(word ^ kOnes * '\\') |
                               ((word - kOnes * 0x20) & ~word & kHighs);
    if (hits != 0) return at + std::countr_zero(hits) / 8;
  }
  while (at < end && is_plain(*at)) ++at;
  return at;
}

bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

char* append_utf8(char* out, std::uint32_t c) noexcept {
  const auto put = [&](std::uint32_t byte) { *out++ = static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
  return out;
}

}  // namespace

JsonReader::JsonReader(std::span<char> text, std::uint64_t place)
    : begin_(text.data()), at_(text.data()), end_(text.data() + text.size()), place_(place) {
  std::size_t bad = 0;
  if (!is_utf8({text.data(), text.size()}, &bad)) fail(begin_ + bad, "UTF-8");
}

void JsonReader::fail(const char* at, std::string_view expected) const {
  if (at == end_)
    throw JsonFault(place_of(at), fmt::format("the JSON text ends at byte {}: expected {}",
                                              place_of(at), expected));
  throw JsonFault(place_of(at),
                  fmt::format("JSON fault at byte {}: expected {}, found {}", place_of(at),
                              expected, quoted(std::string_view(at, 1))));
}

void JsonReader::skip_space() noexcept {
  while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
}

// NUL stands for the end: as a byte of the text it is no valid start of anything either.
char JsonReader::at_or_end() noexcept {
  if (at_<end_&& * at_> ' ') return *at_;
  skip_space();
  return at_ < end_ ? *at_ : '\0';
}

JsonReader::Kind JsonReader::peek() {
  switch (const char c = at_or_end(); c) {
    case '{': return Kind::Object;
    case '[': return Kind::Array;
    case '"': return Kind::String;
    case 't':
    case 'f': return Kind::Bool;
    case 'n': return Kind::Null;
    default:
      if (c == '-' || is_digit(c)) return Kind::Number;
      fail(at_, "a value");
  }
}

void JsonReader::enter(char open) {
  if (at_or_end() != open) fail(at_, open == '{' ? "'{'" : "'['");
  if (++depth_ > kMaxDepth)
    throw JsonFault(position(), fmt::format("JSON nested more than {} levels deep at byte {}",
                                            kMaxDepth, position()));
  ++at_;
  fresh_ = true;
}
void JsonReader::begin_object() {
  enter('{');
}
void JsonReader::begin_array() {
  enter('[');
}

// Steps over the comma before an element; false and past the container if it has ended.
bool JsonReader::next_element(char close) {
  const char c = at_or_end();
  const bool first = std::exchange(fresh_, false);
  if (c == close) {
    ++at_;
    --depth_;
    return false;
  }
  if (first) return true;
  if (c != ',') fail(at_, close == '}' ? "',' or '}'" : "',' or ']'");
  ++at_;
  return true;
}

bool JsonReader::next_member(std::string_view& key) {
  if (!next_element('}')) return false;
  if (at_or_end() != '"') fail(at_, "a name in double quotes");
  key = string();
  if (at_or_end() != ':') fail(at_, "':'");
  ++at_;
  return true;
}

bool JsonReader::next_item() {
  return next_element(']');
}

std::string_view JsonReader::string() {
  if (at_or_end() != '"') fail(at_, "a string");
  char* const begin = at_ + 1;
  char* const stop = end_of_plain(begin, end_);
  if (stop == end_ || *stop != '"') return unescape(begin, stop);
  at_ = stop + 1;
  return {begin, static_cast<std::size_t>(stop - begin)};
}

// Every escape is longer than what it stands for, so the result fits where it was.
std::string_view JsonReader::unescape(char* begin, char* at) {
  char* out = at;
  for (;;) {
    char* const stop = end_of_plain(at, end_);
    std::memmove(out, at, static_cast<std::size_t>(stop - at));
    out += stop - at;
    at = stop;
    if (at == end_) fail(at, fmt::format("the end of the string from byte {}", place_of(begin)));
    if (*at == '"') break;
    if (*at != '\\') fail(at, "an escape for a control character");
    out = escape(at, out);
  }
  at_ = at + 1;
  return {begin, static_cast<std::size_t>(out - begin)};
}

// `at` points to a backslash; afterwards behind the escape.
char* JsonReader::escape(char*& at, char* out) {
  static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
  const char* const start = at++;
  if (at == end_) fail(at, "an escape");
  const char letter = *at++;
  if (letter != 'u') {
    const std::size_t i = kLetters.find(letter);
    if (i == std::string_view::npos) fail(at - 1, "an escape: one of \"\\/bfnrtu");
    *out = kMeant[i];
    return out + 1;
  }
  std::uint32_t c = four_hex_digits(at);
  if (c >= 0xDC00 && c < 0xE000) fail(start, "no lone second half of a surrogate pair");
  if (c >= 0xD800 && c < 0xDC00) {
    if (end_ - at < 2 || at[0] != '\\' || at[1] != 'u')
      fail(at, "the second half of a surrogate pair");
    at += 2;
    const std::uint32_t low = four_hex_digits(at);
    if (low < 0xDC00 || low >= 0xE000) fail(at - 6, "the second half of a surrogate pair");
    c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
  }
  return append_utf8(out, c);
}

std::uint32_t JsonReader::four_hex_digits(char*& at) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i, ++at) {
    const char c = at < end_ ? *at : '\0';
    const char low = static_cast<char>(c | 0x20);
    if (is_digit(c))
      value = value * 16 + static_cast<std::uint32_t>(c - '0');
    else if (low >= 'a' && low <= 'f')
      value = value * 16 + static_cast<std::uint32_t>(low - 'a' + 10);
    else
      fail(at, "a hexadecimal digit");
  }
  return value;
}

void JsonReader::literal(std::string_view word) {
  if (!std::string_view(at_, static_cast<std::size_t>(end_ - at_)).starts_with(word))
    fail(at_, word);
  at_ += word.size();
}

bool JsonReader::boolean() {
  const bool value = at_or_end() == 't';
  literal(value ? "true" : "false");
  return value;
}

std::string_view JsonReader::number() {
  at_or_end();
  char* p = at_;
  const auto digits = [&] {
    if (p == end_ || !is_digit(*p)) fail(p, "a digit");
    while (p < end_ && is_digit(*p)) ++p;
  };
  if (p < end_ && *p == '-') ++p;
  const char* const first = p;
  digits();
  if (*first == '0' && p - first > 1) fail(first, "a number without leading zeros");
  if (p < end_ && *p == '.') {
    ++p;
    digits();
  }
  if (p < end_ && (*p == 'e' || *p == 'E')) {
    ++p;
    if (p < end_ && (*p == '+' || *p == '-')) ++p;
    digits();
  }
  const std::string_view text(at_, static_cast<std::size_t>(p - at_));
  at_ = p;
  return text;
}

bool JsonReader::unsigned_integer(std::uint64_t& value) {
  at_or_end();
  char* p = at_;
  std::uint64_t n = 0;
  for (; p < end_ && is_digit(*p); ++p) {
    const auto digit = static_cast<std::uint64_t>(*p - '0');
    if (n > (~std::uint64_t{0} - digit) / 10) return false;
    n = n * 10 + digit;
  }
  if (p == at_) {
    if (peek() != Kind::Number) fail(at_, "a number");
    return false;
  }
  if (*at_ == '0' && p - at_ > 1) fail(at_, "a number without leading zeros");
  if (p < end_ && (*p == '.' || *p == 'e' || *p == 'E')) return false;
  at_ = p;
  value = n;
  return true;
}

void JsonReader::skip() {
  std::bitset<kMaxDepth + 1> is_object;
  std::size_t open = 0;
  std::string_view key;
  do {
    if (open > 0 && !(is_object[open] ? next_member(key) : next_item())) {
      --open;
      continue;
    }
    switch (peek()) {
      case Kind::Object:
        begin_object();
        is_object[++open] = true;
        break;
      case Kind::Array:
        begin_array();
        is_object[++open] = false;
        break;
      case Kind::String: string(); break;
      case Kind::Number: number(); break;
      case Kind::Bool: boolean(); break;
      case Kind::Null: literal("null"); break;
    }
  } while (open > 0);
}

void JsonReader::finish() {
  skip_space();
  if (at_ != end_) fail(at_, "nothing but white space after the JSON text");
}

std::string_view name_of(JsonReader::Kind kind) noexcept {
  switch (kind) {
    case JsonReader::Kind::Object: return "an object";
    case JsonReader::Kind::Array: return "an array";
    case JsonReader::Kind::String: return "a string";
    case JsonReader::Kind::Number: return "a number";
    case JsonReader::Kind::Bool: return "a bool";
    case JsonReader::Kind::Null: break;
  }
  return "null";
}

void append_json(std::string& out, std::string_view s) {
  static constexpr std::string_view kShort = "btn?fr";  // from \b = 8 on; there is no 11
  out += '"';
  std::size_t done = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    const char c = s[i];
    if (is_plain(c)) continue;
    out += s.substr(done, i - done);
    done = i + 1;
    out += '\\';
    if (c == '"' || c == '\\')
      out += c;
    else if (c >= 8 && c <= 13 && c != 11)
      out += kShort[static_cast<std::size_t>(c - 8)];
    else
      fmt::format_to(std::back_inserter(out), "u{:04x}", static_cast<unsigned>(c));
  }
  out += s.substr(done);
  out += '"';
}

}  // namespace wtool
