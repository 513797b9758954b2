#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/model/gate.h"

namespace wtool {
namespace {

using Op = GateNode::Op;

constexpr std::size_t kMostBytes = 4096;
constexpr unsigned kMostDepth = 32;

constexpr std::string_view kExample = "such as 'max(rel_rmse) <= 0.01'";

struct Word {
  std::string_view text;
  Op op;
};
constexpr std::array kFolds{Word{"min", Op::Min},     Word{"max", Op::Max},
                            Word{"mean", Op::Mean},   Word{"sum", Op::Sum},
                            Word{"count", Op::Count}, Word{"percentile", Op::Percentile}};
constexpr std::array kComparisons{Word{"<=", Op::LessEqual}, Word{">=", Op::GreaterEqual},
                                  Word{"==", Op::Equal},     Word{"!=", Op::NotEqual},
                                  Word{"<", Op::Less},       Word{">", Op::Greater}};

template <std::size_t N>
const Word* find(const std::array<Word, N>& words, std::string_view text) {
  const auto it = std::ranges::find(words, text, &Word::text);
  return it == words.end() ? nullptr : &*it;
}

constexpr bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}
constexpr bool is_letter(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
constexpr bool is_truth(Op op) noexcept {
  return op >= Op::LessEqual && op <= Op::Not;
}
constexpr bool is_keyword(std::string_view word) noexcept {
  return word == "and" || word == "or" || word == "not" || word == "in";
}

struct Token {
  enum class Kind : std::uint8_t { End, Number, Word, Pattern, Symbol };
  Kind kind = Kind::End;
  std::string_view text;  // of a pattern: without its quotes
  std::size_t at = 0, end = 0;
  double number = 0;

  bool is(std::string_view s) const noexcept {
    return (kind == Kind::Symbol || kind == Kind::Word) && text == s;
  }
};

class Parser {
 public:
  Parser(Gate& gate, std::span<const std::string_view> columns)
      : gate_(gate), text_(gate.text), columns_(columns) {
    if (text_.size() > kMostBytes)
      throw Error(Fault::Usage, fmt::format("a gate of {} bytes is longer than the {} there is "
                                            "room for",
                                            text_.size(), kMostBytes))
          .in(gate.origin);
    token_ = next();
  }

  void parse() {
    if (token_.kind == Token::Kind::End) throw at(0, "is empty", std::string(kExample));
    const std::uint32_t whole = either();
    if (token_.kind != Token::Kind::End) throw unexpected("the end");
    need_truth(whole);
  }

 private:
  // --- Errors

  Error at(std::size_t byte, std::string_view what, std::string hint = {}) const {
    const auto before = text_.substr(0, byte);
    const auto character = 1 + std::ranges::count_if(before, [](char c) {
                             return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
                           });
    return Error(Fault::Usage, fmt::format("at character {}: {}", character, what))
        .in(gate_.origin)
        .hint(std::move(hint));
  }
  Error unexpected(std::string_view wanted) const {
    std::string hint;
    if (token_.is("=")) hint = "'==' compares";
    const bool end = token_.kind == Token::Kind::End;
    return at(
        token_.at,
        fmt::format("expected {}{}", wanted,
                    end ? "" : ", not " + quoted(text_.substr(token_.at, token_.end - token_.at))),
        std::move(hint));
  }
  Error unknown(const Token& word, std::string_view what, std::span<const std::string_view> known) {
    const auto near = nearest(word.text, known);
    return at(word.at, fmt::format("unknown {} {}", what, quoted(word.text)),
              near.empty() ? fmt::format("{}s are {}", what, fmt::join(known, ", "))
                           : fmt::format("did you mean {}?", quoted(near)));
  }

  // --- Words

  Token next() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
    Token t{.kind = Token::Kind::End, .text = {}, .at = at_, .end = at_, .number = 0};
    if (at_ == text_.size()) return t;
    const char c = text_[at_];
    if (is_digit(c) || c == '.')
      number(t);
    else if (is_letter(c))
      word(t);
    else if (c == '\'' || c == '"')
      pattern(t, c);
    else
      symbol(t);
    at_ = t.end;
    return t;
  }
  void number(Token& t) const {
    t.kind = Token::Kind::Number;
    const char* first = text_.data() + t.at;
    const auto [end, code] = std::from_chars(first, text_.data() + text_.size(), t.number);
    t.end = t.at + static_cast<std::size_t>(end - first);
    if (code == std::errc::result_out_of_range || !std::isfinite(t.number))
      throw at(t.at, "a number beyond those of double precision");
    if (code != std::errc() ||
        (t.end < text_.size() && (is_letter(text_[t.end]) || text_[t.end] == '.')))
      throw at(t.at, "is no number");
    t.text = text_.substr(t.at, t.end - t.at);
  }
  void word(Token& t) const {
    t.kind = Token::Kind::Word;
    while (t.end < text_.size() &&
           (is_letter(text_[t.end]) || is_digit(text_[t.end]) || text_[t.end] == '.'))
      ++t.end;
    t.text = text_.substr(t.at, t.end - t.at);
  }
  void pattern(Token& t, char quote) const {
    t.kind = Token::Kind::Pattern;
    const auto close = text_.find(quote, t.at + 1);
    if (close == std::string_view::npos) throw at(t.at, "a quote is not closed");
    t.text = text_.substr(t.at + 1, close - t.at - 1);
    t.end = close + 1;
  }
  void symbol(Token& t) const {
    t.kind = Token::Kind::Symbol;
    const std::string_view two = text_.substr(t.at, 2);
    if (two == "&&") throw at(t.at, "unexpected '&&'", "write 'and'");
    if (two == "||") throw at(t.at, "unexpected '||'", "write 'or'");
    const bool wide = two == "<=" || two == ">=" || two == "==" || two == "!=";
    t.text = text_.substr(t.at, wide ? 2 : 1);
    if (!wide && std::string_view("<>=()+-*/,%").find(t.text) == std::string_view::npos) {
      std::size_t n = 1;  // a whole character
      while (t.at + n < text_.size() &&
             (static_cast<unsigned char>(text_[t.at + n]) & 0xC0) == 0x80)
        ++n;
      throw at(t.at, "unexpected " + quoted(text_.substr(t.at, n)));
    }
    t.end = t.at + t.text.size();
  }

  Token take() {
    Token t = token_;
    token_ = next();
    end_ = t.end;
    return t;
  }
  bool accept(std::string_view s) {
    if (!token_.is(s)) return false;
    take();
    return true;
  }
  void expect(std::string_view s) {
    if (!accept(s)) throw unexpected(quoted(s));
  }

  // --- Nodes

  struct Deeper {
    explicit Deeper(Parser& p) : parser(p) {
      if (++p.depth_ > kMostDepth)
        throw p.at(p.token_.at, fmt::format("more than {} levels deep", kMostDepth));
    }
    ~Deeper() { --parser.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    Parser& parser;
  };

  std::uint32_t add(GateNode node, std::size_t begin) {
    node.begin = static_cast<std::uint32_t>(begin);
    node.end = static_cast<std::uint32_t>(end_);
    node.per_row = in_fold_;
    gate_.nodes.push_back(std::move(node));
    return static_cast<std::uint32_t>(gate_.nodes.size() - 1);
  }
  std::uint32_t leaf(GateNode node, std::size_t begin) {
    node.first = static_cast<std::uint32_t>(gate_.nodes.size());
    return add(std::move(node), begin);
  }
  std::uint32_t join(Op op, std::uint32_t a, std::uint32_t b) {
    const GateNode& left = gate_.nodes[a];
    return add({.op = op, .a = a, .b = b, .first = left.first}, left.begin);
  }
  bool has_fold(std::uint32_t n) const {
    const std::uint32_t first = gate_.nodes[n].first;
    return std::ranges::any_of(std::span(gate_.nodes).subspan(first, n - first),
                               [](const GateNode& node) { return node.op >= Op::Min; });
  }
  void need_truth(std::uint32_t n) const {
    const GateNode& node = gate_.nodes[n];
    if (!is_truth(node.op))
      throw at(node.begin,
               fmt::format("{} is a number, not a comparison", quoted(gate_.text_of(node))),
               std::string(kExample));
  }
  void need_number(std::uint32_t n) const {
    const GateNode& node = gate_.nodes[n];
    if (is_truth(node.op))
      throw at(node.begin,
               fmt::format("{} is a comparison, not a number", quoted(gate_.text_of(node))));
  }

  // --- Grammar, loosest first

  std::uint32_t either() {
    std::uint32_t left = both();
    while (token_.is("or")) {
      need_truth(left);
      take();
      const std::uint32_t right = both();
      need_truth(right);
      left = join(Op::Or, left, right);
    }
    return left;
  }
  std::uint32_t both() {
    std::uint32_t left = negation();
    while (token_.is("and")) {
      need_truth(left);
      take();
      const std::uint32_t right = negation();
      need_truth(right);
      left = join(Op::And, left, right);
    }
    return left;
  }
  std::uint32_t negation() {
    if (!token_.is("not")) return comparison();
    const Deeper deeper(*this);
    const std::size_t begin = take().at;
    const std::uint32_t of = negation();
    need_truth(of);
    return add({.op = Op::Not, .a = of, .first = gate_.nodes[of].first}, begin);
  }
  const Word* comparing() const {
    return token_.kind == Token::Kind::Symbol ? find(kComparisons, token_.text) : nullptr;
  }
  std::uint32_t comparison() {
    const std::uint32_t left = sum();
    const Word* op = comparing();
    if (!op) return left;
    need_number(left);
    take();
    const std::uint32_t right = sum();
    need_number(right);
    if (comparing()) throw at(token_.at, "comparisons do not chain", "join two with 'and'");
    const std::uint32_t whole = join(op->op, left, right);
    if (!in_fold_ && !has_fold(whole))
      throw at(gate_.nodes[whole].begin, "compares nothing of a report", std::string(kExample));
    return whole;
  }
  std::uint32_t sum() {
    std::uint32_t left = product();
    while (token_.is("+") || token_.is("-")) {
      need_number(left);
      const Op op = take().text == "+" ? Op::Add : Op::Subtract;
      const std::uint32_t right = product();
      need_number(right);
      left = join(op, left, right);
    }
    return left;
  }
  std::uint32_t product() {
    std::uint32_t left = sign();
    while (token_.is("*") || token_.is("/")) {
      need_number(left);
      const Op op = take().text == "*" ? Op::Multiply : Op::Divide;
      const std::uint32_t right = sign();
      need_number(right);
      left = join(op, left, right);
    }
    return left;
  }
  std::uint32_t sign() {
    if (!token_.is("-")) return primary();
    const Deeper deeper(*this);
    const std::size_t begin = take().at;
    const std::uint32_t of = sign();
    need_number(of);
    return add({.op = Op::Negate, .a = of, .first = gate_.nodes[of].first}, begin);
  }
  std::uint32_t primary() {
    if (token_.is("(")) {
      const Deeper deeper(*this);
      const std::size_t begin = take().at;
      const std::uint32_t inner = either();
      expect(")");
      gate_.nodes[inner].begin = static_cast<std::uint32_t>(begin);
      gate_.nodes[inner].end = static_cast<std::uint32_t>(end_);
      return inner;
    }
    if (token_.kind == Token::Kind::Number) {
      const Token t = take();
      const double value = accept("%") ? t.number / 100 : t.number;
      return leaf({.op = Op::Number, .number = value}, t.at);
    }
    if (token_.kind != Token::Kind::Word || is_keyword(token_.text))
      throw unexpected(in_fold_ ? "a column or a number"
                                : "a number or a fold such as max(rel_rmse)");
    const Token word = take();
    return token_.is("(") ? fold(word) : column(word);
  }
  std::uint32_t column(const Token& word) {
    const bool known = std::ranges::find(columns_, word.text) != columns_.end();
    if (!in_fold_)
      throw at(word.at, fmt::format("{} is no number", quoted(word.text)),
               known ? fmt::format("a column is read by a fold: max({})", word.text)
                     : std::string(kExample));
    if (!known) throw unknown(word, "metric", columns_);
    return leaf({.op = Op::Column, .word = std::string(word.text)}, word.at);
  }
  std::uint32_t fold(const Token& word) {
    const Word* kind = find(kFolds, word.text);
    if (!kind) {
      std::vector<std::string_view> names;
      names.reserve(kFolds.size());
      for (const Word& f : kFolds) names.push_back(f.text);
      throw unknown(word, "fold", names);
    }
    if (in_fold_) throw at(word.at, "a fold within a fold");
    const Deeper deeper(*this);
    expect("(");
    in_fold_ = true;
    const auto first = static_cast<std::uint32_t>(gate_.nodes.size());
    const std::uint32_t body = kind->op == Op::Count ? either() : sum();
    if (kind->op != Op::Count) need_number(body);
    const auto nodes = std::span(gate_.nodes).subspan(first);
    if (std::ranges::none_of(nodes, [](const GateNode& n) { return n.op == Op::Column; }))
      throw at(gate_.nodes[body].begin, "reads no column", std::string(kExample));
    GateNode node{.op = kind->op, .a = body, .first = first};
    if (accept("in")) node.word = selector();
    if (kind->op == Op::Percentile) node.number = percentage();
    expect(")");
    in_fold_ = false;
    return add(std::move(node), word.at);
  }
  std::string selector() {
    if (token_.kind != Token::Kind::Pattern) throw unexpected("a pattern in quotes");
    const Token t = take();
    if (t.text.empty()) throw at(t.at, "the pattern is empty");
    return std::string(t.text);
  }
  double percentage() {
    if (!accept(",")) throw unexpected("',' and a percentage: percentile(rel_rmse, 99)");
    if (token_.kind != Token::Kind::Number) throw unexpected("a number from 0 to 100");
    const Token t = take();
    if (token_.is("%")) throw at(token_.at, "a percentile is told as 99, not 99%");
    if (t.number > 100) throw at(t.at, fmt::format("{} is no number from 0 to 100", t.text));
    return t.number;
  }

  Gate& gate_;
  std::string_view text_;
  std::span<const std::string_view> columns_;
  std::size_t at_ = 0, end_ = 0;  // of the next token; of the one taken last
  Token token_;
  unsigned depth_ = 0;
  bool in_fold_ = false;
};

}  // namespace

Gate parse_gate(std::string text, std::string origin, std::span<const std::string_view> columns) {
  Gate gate{.text = std::move(text), .origin = std::move(origin), .nodes = {}};
  Parser(gate, columns).parse();
  return gate;
}

bool reads(const Gate& gate, std::string_view column) noexcept {
  return std::ranges::any_of(
      gate.nodes, [&](const GateNode& n) { return n.op == Op::Column && n.word == column; });
}

}  // namespace wtool
