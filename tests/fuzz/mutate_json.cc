// Mutations of JSON texts, and of safetensors, whose header is one: by the text's tokens, so that
// what comes out is mostly JSON again.
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "lib/base/bytes.h"
#include "tests/fuzz/mutate.h"

namespace wtool::fuzz {
namespace {

struct Token {
  enum class Kind : std::uint8_t { String, Number, Word, Mark } kind;
  std::size_t begin, end;
};

std::vector<Token> tokens_of(std::string_view s) {
  std::vector<Token> out;
  const auto part_of_word = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '+' || c == '-';
  };
  for (std::size_t at = 0; at < s.size();) {
    const std::size_t begin = at++;
    if (s[begin] == '"') {
      while (at < s.size() && s[at] != '"') at += s[at] == '\\' ? 2 : 1;
      at = std::min(at + 1, s.size());
      out.push_back({Token::Kind::String, begin, at});
    } else if (part_of_word(s[begin])) {
      while (at < s.size() && part_of_word(s[at])) ++at;
      const bool number = std::isdigit(static_cast<unsigned char>(s[begin])) || s[begin] == '-';
      out.push_back({number ? Token::Kind::Number : Token::Kind::Word, begin, at});
    } else if (std::string_view("{}[],:").find(s[begin]) != std::string_view::npos) {
      out.push_back({Token::Kind::Mark, begin, at});
    }
  }
  return out;
}

std::optional<Token> any_of_kind(const std::vector<Token>& tokens, Token::Kind kind,
                                 Mutation& how) {
  std::vector<Token> some;
  std::ranges::copy_if(tokens, std::back_inserter(some), [&](Token t) { return t.kind == kind; });
  if (some.empty()) return std::nullopt;
  return how.any(some);
}

// Where the value that begins with token `i` ends: behind its last token.
std::size_t end_of_value(std::string_view s, const std::vector<Token>& tokens, std::size_t i) {
  int depth = 0;
  for (; i < tokens.size(); ++i) {
    const char c = s[tokens[i].begin];
    if (tokens[i].kind == Token::Kind::Mark)
      depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
    if (depth <= 0) return tokens[i].end;
  }
  return s.size();
}

struct Member {
  std::size_t begin, end;  // of "key": value
  std::size_t value;       // where the value begins
};
std::vector<Member> members_of(std::string_view s, const std::vector<Token>& tokens) {
  std::vector<Member> out;
  for (std::size_t i = 0; i + 2 < tokens.size(); ++i)
    if (tokens[i].kind == Token::Kind::String && s[tokens[i + 1].begin] == ':')
      out.push_back({tokens[i].begin, end_of_value(s, tokens, i + 2), tokens[i + 2].begin});
  return out;
}

void replace(std::string& s, const Token& t, std::string_view by) {
  s.replace(t.begin, t.end - t.begin, by);
}

void change_number(std::string& s, const std::vector<Token>& tokens, Mutation& how) {
  static constexpr std::array<std::string_view, 10> kOdd{
      "-1", "1.0", "1e3", "01", "18446744073709551616", "-0", "1e400", "0.5", "null", "\"1\""};
  const auto t = any_of_kind(tokens, Token::Kind::Number, how);
  if (!t) return;
  if (how.one_in(8)) return replace(s, *t, how.any(kOdd));
  if (const auto other = any_of_kind(tokens, Token::Kind::Number, how); how.one_in(4))
    return replace(s, *t, s.substr(other->begin, other->end - other->begin));
  std::uint64_t old = 0;
  std::from_chars(s.data() + t->begin, s.data() + t->end, old);
  replace(s, *t, fmt::format("{}", how.number(old)));
}

void swap_numbers(std::string& s, const std::vector<Token>& tokens, Mutation& how) {
  auto a = any_of_kind(tokens, Token::Kind::Number, how),
       b = any_of_kind(tokens, Token::Kind::Number, how);
  if (!a || a->begin == b->begin) return;
  if (a->begin > b->begin) std::swap(a, b);
  const std::string left = s.substr(a->begin, a->end - a->begin),
                    right = s.substr(b->begin, b->end - b->begin);
  replace(s, *b, left);
  replace(s, *a, right);
}

void change_string(std::string& s, const std::vector<Token>& tokens, Mutation& how) {
  static constexpr std::array<std::string_view, 44> kStrings{"F32",
                                                             "F16",
                                                             "BF16",
                                                             "F64",
                                                             "F4",
                                                             "F8_E4M3",
                                                             "F8_E5M2",
                                                             "F8_E8M0",
                                                             "F6_E2M3",
                                                             "F6_E3M2",
                                                             "BOOL",
                                                             "U8",
                                                             "I8",
                                                             "I16",
                                                             "U16",
                                                             "I32",
                                                             "U32",
                                                             "I64",
                                                             "U64",
                                                             "C64",
                                                             "Q4_0",
                                                             "f32",
                                                             "__metadata__",
                                                             "dtype",
                                                             "shape",
                                                             "data_offsets",
                                                             "wtool.gguf_metadata",
                                                             "weight_map",
                                                             "quantization_config",
                                                             "quant_method",
                                                             "bits",
                                                             "group_size",
                                                             "compressed-tensors",
                                                             "gptq",
                                                             "",
                                                             "a",
                                                             "\\u0000",
                                                             "\\ud800",
                                                             "\\ud83d\\ude00",
                                                             "\\n",
                                                             "../x",
                                                             "a.weight_scale",
                                                             "a.weight_packed",
                                                             "a.weight"};
  const auto t = any_of_kind(tokens, Token::Kind::String, how);
  if (!t) return;
  const auto other = any_of_kind(tokens, Token::Kind::String, how);
  if (how.one_in(2)) return replace(s, *t, s.substr(other->begin, other->end - other->begin));
  if (how.one_in(3) && t->end - t->begin >= 2)  // keep the beginning, take the other's end
    return replace(s, *t,
                   s.substr(t->begin, (t->end - t->begin) / 2) +
                       s.substr((other->begin + other->end) / 2,
                                other->end - (other->begin + other->end) / 2));
  replace(s, *t, fmt::format("\"{}\"", how.any(kStrings)));
}

void change_members(std::string& s, const std::vector<Token>& tokens, Mutation& how) {
  const std::vector<Member> members = members_of(s, tokens);
  if (members.empty()) return;
  const Member m = how.any(members), other = how.any(members);
  const std::string text = s.substr(m.begin, m.end - m.begin);
  switch (how.below(4)) {
    case 0: {  // leave it out, with a comma
      std::size_t end = m.end, begin = m.begin;
      if (end < s.size() && s[end] == ',')
        ++end;
      else if (begin > 0 && s[begin - 1] == ',')
        --begin;
      s.erase(begin, end - begin);
      break;
    }
    case 1: s.insert(m.begin, text + ","); break;
    case 2: s.insert(other.begin, text + ","); break;
    default: {
      const std::string value = s.substr(other.value, other.end - other.value);
      s.replace(m.value, m.end - m.value, value);
    }
  }
}

void nest(std::string& s, const std::vector<Token>& tokens, Mutation& how) {
  static constexpr std::array<std::string_view, 10> kValues{
      "{}", "[]", "null", "true", "0", "\"\"", "[[]]", "{\"a\":1}", "[1,2]", "1e-5"};
  const std::vector<Member> members = members_of(s, tokens);
  if (members.empty()) return;
  const Member m = how.any(members);
  s.replace(m.value, m.end - m.value, how.any(kValues));
}

}  // namespace

void mutate_json(std::string& s, Mutation& how) {
  for (std::uint64_t rounds = 1 + how.below(3); rounds > 0; --rounds) {
    const std::vector<Token> tokens = tokens_of(s);
    switch (how.below(8)) {
      case 0:
      case 1: change_number(s, tokens, how); break;
      case 2: swap_numbers(s, tokens, how); break;
      case 3: change_string(s, tokens, how); break;
      case 4:
      case 5: change_members(s, tokens, how); break;
      case 6: nest(s, tokens, how); break;
      default: how.plain(s);
    }
  }
}

namespace {

std::uint64_t length_of(std::string_view file) {
  return load<std::uint64_t>(as_bytes(file));
}
void set_length(std::string& file, std::uint64_t n) {
  store(std::as_writable_bytes(std::span(file)), n);
}

// A tensor that fits: its bytes behind the others', its entry behind the first brace.
void insert_tensor(std::string& header, std::string& data, Mutation& how) {
  struct Type {
    std::string_view name;
    std::uint64_t bits;
  };
  static constexpr std::array kTypes{Type{"F32", 32}, Type{"BF16", 16},   Type{"I8", 8},
                                     Type{"F64", 64}, Type{"F8_E4M3", 8}, Type{"F4", 4},
                                     Type{"F16", 16}, Type{"I64", 64},    Type{"F6_E2M3", 6},
                                     Type{"U8", 8},   Type{"BOOL", 8},    Type{"C64", 64}};
  const Type& type = how.any(kTypes);
  const std::uint64_t rows = how.below(5), cols = how.below(17);
  const std::uint64_t bytes = (rows * cols * type.bits + 7) / 8;
  const std::string entry =
      fmt::format(R"("{}":{{"dtype":"{}","shape":[{},{}],"data_offsets":[{},{}]}})", how.below(100),
                  type.name, rows, cols, data.size(), data.size() + bytes);
  const std::size_t brace = header.find('{');
  if (brace == header.npos) {
    header = "{" + entry + "}";
  } else {
    const std::size_t next = header.find_first_not_of(" \n\t", brace + 1);
    const bool empty = next == header.npos || header[next] == '}';
    header.insert(brace + 1, empty ? entry : entry + ",");
  }
  for (std::uint64_t i = 0; i < bytes; ++i) data += static_cast<char>(how.below(256));
}

}  // namespace

// The header's length is kept right most of the time: else nothing behind it would ever be tried.
void mutate_safetensors(std::string& file, Mutation& how) {
  if (file.size() < 10) {
    file = std::string(8, '\0') + "{}";
    set_length(file, 2);
  }
  const std::uint64_t length = std::min<std::uint64_t>(length_of(file), file.size() - 8);
  std::string header = file.substr(8, length), data = file.substr(8 + length);
  switch (how.below(8)) {
    case 0: insert_tensor(header, data, how); break;
    case 1: data.resize(data.size() - std::min<std::size_t>(data.size(), 1 + how.below(32))); break;
    case 2: data.append(1 + how.below(32), static_cast<char>(how.below(256))); break;
    case 3: how.plain(data); break;
    case 4: header.append(how.below(9), ' '); break;
    default: mutate_json(header, how);
  }
  file.resize(8);
  set_length(file, how.one_in(24) ? how.number(header.size()) : header.size());
  file += header;
  file += data;
}

}  // namespace wtool::fuzz
