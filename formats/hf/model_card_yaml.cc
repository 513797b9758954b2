#include "formats/hf/model_card_yaml.h"

#include <algorithm>
#include <optional>
#include <span>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace wtool {
namespace {

using Text = std::string_view;
using Lines = std::span<const Text>;

constexpr std::size_t kMostNotes = 8, kMostItems = 1000;

struct NotUnderstood {
  Text what;
};

bool is_space(char c) noexcept {
  return c == ' ' || c == '\t';
}
Text trimmed(Text s) noexcept {
  while (!s.empty() && is_space(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_space(s.back())) s.remove_suffix(1);
  return s;
}
std::size_t indent_of(Text line) noexcept {
  return std::min(line.find_first_not_of(' '), line.size());
}
bool is_blank(Text line) noexcept {
  return trimmed(line).empty();
}
bool is_comment(Text line) noexcept {
  return trimmed(line).starts_with('#');
}
bool begins_item(Text line) noexcept {  // of a block list
  line.remove_prefix(indent_of(line));
  return line == "-" || line.starts_with("- ");
}

Text without_comment(Text s) noexcept {  // of a plain scalar
  for (std::size_t i = 0; i < s.size(); ++i)
    if (s[i] == '#' && (i == 0 || is_space(s[i - 1]))) return trimmed(s.substr(0, i));
  return trimmed(s);
}

// A line break and blank lines in a scalar of several lines: a space, or a break for each blank
// one.
void fold(std::string& out, std::size_t blank_lines) {
  out.append(blank_lines == 0 ? 1 : blank_lines, blank_lines == 0 ? ' ' : '\n');
}

void append_utf8(std::string& out, std::uint32_t c) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      put(0xe0 | c >> 12);
    } else {
      put(0xf0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3f));
    }
    put(0x80 | (c >> 6 & 0x3f));
  }
  put(0x80 | (c & 0x3f));
}

void add_item(std::vector<CardItem>& list, CardItem item) {
  if (list.size() == kMostItems) throw NotUnderstood{"a list of more than 1000 items"};
  list.push_back(std::move(item));
}

// Scalars in quotes and lists in brackets, which may go on over lines.
class Flow {
 public:
  explicit Flow(Text in) : in_(in) {}

  std::string quoted_scalar() {
    const char quote = in_[at_++];
    std::string out;
    while (true) {
      if (at_ == in_.size()) throw NotUnderstood{"a quote that does not end"};
      const char c = in_[at_++];
      if (c == quote && quote == '\'' && at_ < in_.size() && in_[at_] == quote) {
        out += quote;
        ++at_;
      } else if (c == quote) {
        return out;
      } else if (c == '\\' && quote == '"') {
        escape(out);
      } else if (c == '\n') {
        while (!out.empty() && is_space(out.back())) out.pop_back();
        fold(out, blank_lines());
      } else {
        out += c;
      }
    }
  }

  std::vector<CardItem> list() {
    std::vector<CardItem> out;
    ++at_;
    while (true) {
      skip();
      if (at_ == in_.size()) throw NotUnderstood{"a list that does not end"};
      if (in_[at_] == ']') break;
      if (auto item = element()) add_item(out, std::move(*item));
      skip();
      if (at_ < in_.size() && in_[at_] == ',')
        ++at_;
      else if (at_ == in_.size() || in_[at_] != ']')
        throw NotUnderstood{"a list without a comma between two items"};
    }
    ++at_;
    return out;
  }

  void finish() {
    skip();
    if (at_ != in_.size()) throw NotUnderstood{"text behind the value"};
  }

 private:
  void skip() {  // white space, breaks and comments
    for (; at_ < in_.size(); ++at_) {
      if (in_[at_] == '#' && (at_ == 0 || is_space(in_[at_ - 1]) || in_[at_ - 1] == '\n'))
        at_ = std::min(in_.find('\n', at_), in_.size() - 1);
      else if (!is_space(in_[at_]) && in_[at_] != '\n')
        return;
    }
  }

  std::size_t blank_lines() {  // from the start of a line to the next text
    std::size_t n = 0;
    for (; at_ < in_.size() && (is_space(in_[at_]) || in_[at_] == '\n'); ++at_)
      n += in_[at_] == '\n';
    return n;
  }

  std::optional<std::string> element();

  void escape(std::string& out) {
    constexpr Text kLetters = "abefnrtv\"/\\ ", kMeaning = "\a\b\x1b\f\n\r\t\v\"/\\ ";
    const char c = at_ < in_.size() ? in_[at_++] : '\0';
    if (const std::size_t i = kLetters.find(c); i != kLetters.npos && c != '\0') {
      out += kMeaning[i];
    } else if (c == '\n') {
      blank_lines();
    } else if (const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0) {
      append_utf8(out, code_point(digits));
    } else {
      throw NotUnderstood{"an escape in quotes"};
    }
  }

  std::uint32_t code_point(std::size_t digits) {
    const Text s = in_.substr(at_, digits);
    std::uint32_t value = 0;
    for (const char c : s) {
      const std::size_t digit = Text("0123456789abcdef").find(lower({&c, 1}));
      if (digit == Text::npos || value >= 1U << 24) throw NotUnderstood{"an escape in quotes"};
      value = value << 4 | static_cast<std::uint32_t>(digit);
    }
    if (s.size() != digits || value == 0 || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
      throw NotUnderstood{"an escape in quotes"};
    at_ += digits;
    return value;
  }

  Text in_;
  std::size_t at_ = 0;
};

// No value at all, or the word for none.
bool is_null(Text plain) noexcept {
  return plain.empty() || plain == "~" || plain == "null" || plain == "Null" || plain == "NULL";
}

// A scalar without quotes and on one line; nothing if it is null.
std::optional<std::string> plain(Text s) {
  s = without_comment(s);
  if (is_null(s)) return std::nullopt;
  if (Text("[]{}&*!|>%@`,?\"'").find(s.front()) != Text::npos && s.front() != '?')
    throw NotUnderstood{"an anchor, a tag or another thing that is no plain text"};
  if (s.starts_with("- ") || s.starts_with("? ")) throw NotUnderstood{"a list in a list"};
  if (s.find(": ") != s.npos || s.ends_with(':')) throw NotUnderstood{"a map"};
  return std::string(s);
}

std::optional<std::string> Flow::element() {
  if (in_[at_] == '"' || in_[at_] == '\'') return quoted_scalar();
  if (in_[at_] == '[' || in_[at_] == '{') throw NotUnderstood{"a list or map in a list"};
  std::string text;  // may go on over lines
  while (at_ < in_.size() && Text(",[]{}").find(in_[at_]) == Text::npos) {
    const std::size_t end = std::min(in_.find_first_of(",[]{}\n", at_), in_.size());
    const Text piece = in_.substr(at_, end - at_), kept = without_comment(piece);
    if (kept.size() < trimmed(piece).size())
      at_ = std::min(in_.find('\n', at_), in_.size());
    else
      at_ = end;
    if (!text.empty() && !kept.empty()) text += ' ';
    text += kept;
    skip();
  }
  return plain(text);
}

// `|` or `>` and the lines below it.
std::string block_scalar(Text header, Lines below) {
  header = without_comment(header);
  const bool folded = header.starts_with('>');
  header.remove_prefix(1);
  if (header.size() > 1 || (!header.empty() && header != "+" && header != "-"))
    throw NotUnderstood{"a block's number of columns"};
  const auto first = std::ranges::find_if_not(below, is_blank);
  const std::size_t columns = first == below.end() ? 0 : indent_of(*first);
  std::string out;
  std::size_t breaks = 0;
  bool begun = false, was_more = false;
  for (const Text line : below) {
    if (is_blank(line) && line.size() <= columns) {
      ++breaks;
      continue;
    }
    if (indent_of(line) < columns) {
      if (is_comment(line)) break;
      throw NotUnderstood{"a block whose lines do not align"};
    }
    const Text text = line.substr(columns);
    const bool more = is_space(text.front());  // lines further in are kept as they are
    if (begun && folded && !more && !was_more)
      fold(out, breaks - 1);
    else
      out.append(breaks, '\n');
    out += text;
    begun = true;
    was_more = more;
    breaks = 1;
  }
  if (begun && header != "-") out.append(header == "+" ? breaks : 1, '\n');
  return out;
}

// The first line's text and what continues it, with the breaks between.
std::string with_below(Text first, Lines below) {
  std::string all(first);
  for (const Text line : below) (all += '\n') += line;
  return all;
}

// A scalar that begins with `first` and goes on in the lines below.
std::optional<std::string> scalar(Text first, Lines below) {
  first = trimmed(first);
  if (first.starts_with('|') || first.starts_with('>')) return block_scalar(first, below);
  if (first.starts_with('"') || first.starts_with('\'')) {
    const std::string all = with_below(first, below);
    Flow flow(all);
    std::string out = flow.quoted_scalar();
    flow.finish();
    return out;
  }
  std::string all(without_comment(first));
  bool ended = all.size() < first.size();  // a comment ends it
  std::size_t blank = 0;
  for (const Text line : below) {
    if (is_blank(line) || is_comment(line)) {
      ended |= is_comment(line);
      blank += is_blank(line);
      continue;
    }
    if (ended && !all.empty()) throw NotUnderstood{"text behind the value"};
    if (!all.empty()) fold(all, blank);
    const Text text = without_comment(line);
    ended = text.size() < trimmed(line).size();
    all += text;
    blank = 0;
  }
  if (all.find('\n') != all.npos) {  // plain() looks at one line
    std::string flat = all;
    std::ranges::replace(flat, '\n', ' ');
    static_cast<void>(plain(flat));
    return all;
  }
  return plain(all);
}

// "key: value" or "key:"; nothing if the line is no such thing.
std::optional<std::pair<std::string, Text>> pair_in(Text line) {
  if (line.empty()) return std::nullopt;
  if (line.front() == '"' || line.front() == '\'') {
    const std::size_t end = line.find(line.front(), 1);
    if (end == line.npos || line.substr(1, end - 1).find('\\') != Text::npos) return std::nullopt;
    const Text rest = trimmed(line.substr(end + 1));
    if (rest != ":" && !rest.starts_with(": ")) return std::nullopt;
    return std::pair(std::string(line.substr(1, end - 1)), rest.substr(1));
  }
  const Text text = without_comment(line);
  std::size_t colon = text.find(": ");
  if (colon == text.npos && text.ends_with(':')) colon = text.size() - 1;
  if (colon == text.npos || colon == 0) return std::nullopt;
  if (Text("[]{}#&*!|>%@`,-?").find(text.front()) != Text::npos) return std::nullopt;
  return std::pair(std::string(trimmed(line.substr(0, colon))), line.substr(colon + 1));
}

// The lines after the first that are indented by more than `columns`, or blank.
Lines deeper(Lines lines, std::size_t columns) {
  std::size_t n = 1;
  while (n < lines.size() && (is_blank(lines[n]) || indent_of(lines[n]) > columns)) ++n;
  return lines.subspan(1, n - 1);
}

// A map of scalars; `first` is its first pair, which stands behind a dash.
CardMap flat_map(Text first, std::size_t columns, Lines below) {
  CardMap out;
  Text line = first;
  while (true) {
    auto pair = pair_in(line);
    if (!pair) throw NotUnderstood{"a map's line that is no 'key: value'"};
    std::size_t n = 0;
    while (n < below.size() && (is_blank(below[n]) || indent_of(below[n]) > columns)) ++n;
    if (auto value = scalar(pair->second, below.first(n)))
      out.emplace_back(std::move(pair->first), std::move(*value));
    below = below.subspan(n);
    if (below.empty()) return out;
    if (indent_of(below[0]) != columns) throw NotUnderstood{"a map whose lines do not align"};
    line = below[0].substr(columns);
    below = below.subspan(1);
  }
}

std::vector<CardItem> block_list(Lines lines) {
  std::vector<CardItem> out;
  const std::size_t columns = indent_of(lines[0]);
  while (!lines.empty()) {
    if (is_blank(lines[0]) || is_comment(lines[0])) {
      lines = lines.subspan(1);
      continue;
    }
    if (indent_of(lines[0]) != columns || !begins_item(lines[0]))
      throw NotUnderstood{"a list whose items do not align"};
    const Lines below = deeper(lines, columns);
    const Text behind = lines[0].substr(columns + 1), item = trimmed(behind);
    if (item.starts_with('[') || item.starts_with('{'))
      throw NotUnderstood{"a list or map in a list"};
    if (pair_in(item)) {
      const std::size_t inner = columns + 1 + indent_of(behind);
      add_item(out, flat_map(item, inner, below));
    } else if (auto value = scalar(item, below)) {
      add_item(out, std::move(*value));
    }
    lines = lines.subspan(below.size() + 1);
  }
  return out;
}

CardEntry value_of(std::string key, Text rest, Lines below) {
  CardEntry out{.key = std::move(key), .is_list = false, .items = {}};
  rest = trimmed(rest);
  const auto first =
      std::ranges::find_if_not(below, [](Text line) { return is_blank(line) || is_comment(line); });
  if (rest.starts_with('[')) {
    const std::string all = with_below(rest, below);
    Flow flow(all);
    out.is_list = true;
    out.items = flow.list();
    flow.finish();
  } else if (without_comment(rest).empty() && first != below.end() && begins_item(*first)) {
    out.is_list = true;
    out.items = block_list(below.subspan(static_cast<std::size_t>(first - below.begin())));
  } else if (auto value = scalar(rest, below)) {
    out.items.emplace_back(std::move(*value));
  }
  return out;
}

// What stands between the two marks; nothing if there is no head, and no `ended` if it has no end.
std::string head_of(Text readme, bool& ended) {
  std::string out;
  ended = false;
  if (readme.starts_with("\xef\xbb\xbf")) readme.remove_prefix(3);
  for (bool first = true; !readme.empty(); first = false) {
    const std::size_t end = std::min(readme.find('\n'), readme.size());
    Text line = readme.substr(0, end);
    readme.remove_prefix(std::min(end + 1, readme.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (first && line != "---") return {};
    if (!first && line == "---") {
      ended = true;
      return out;
    }
    if (first) continue;
    for (const char c : line) c == '\t' ? out += "  " : out += c;  // some cards have tabs
    out += '\n';
  }
  return out;
}

std::vector<Text> lines_of(Text text) {
  std::vector<Text> out;
  for (std::size_t end = 0; (end = text.find('\n')) != text.npos; text.remove_prefix(end + 1))
    out.push_back(text.substr(0, end));
  return out;
}

// How many lines the value of the key in lines[0] takes: those further in; a block list may stand
// below its key; brackets may end at the margin.
std::size_t length_of(Lines lines, Text rest) {
  rest = without_comment(rest);
  std::size_t n = 1;
  const auto goes_on = [&](Text line) {
    return is_blank(line) || is_comment(line) || indent_of(line) > 0 ||
           (rest.empty() && begins_item(line)) ||
           (rest.starts_with('[') && line.starts_with(']')) ||
           (rest.starts_with('{') && line.starts_with('}'));
  };
  while (n < lines.size() && goes_on(lines[n])) ++n;
  return n;
}

}  // namespace

Card Card::read(Text readme, const std::function<bool(Text)>& wanted,
                std::vector<std::string>& notes) {
  Card card;
  bool ended = false;
  const std::string head = head_of(readme, ended);
  if (!head.empty() && !ended)
    notes.push_back(
        fmt::format("its head does not end: no second line of {} bytes is '---'", readme.size()));
  if (!ended) return card;
  if (!is_utf8(head) || head.find('\0') != head.npos) {
    notes.emplace_back("its head is no UTF-8 text");
    return card;
  }
  const std::vector<Text> all = lines_of(head);
  std::size_t told = 0;
  for (std::size_t at = 0, n = 1; at < all.size(); at += n) {
    n = 1;
    if (is_blank(all[at]) || is_comment(all[at])) continue;
    const auto note = [&](Text what) {
      if (++told <= kMostNotes)
        notes.push_back(fmt::format("line {}: {} is not understood and left out", at + 2, what));
    };
    auto pair = indent_of(all[at]) == 0 ? pair_in(all[at]) : std::nullopt;
    if (!pair) {
      note(quoted(all[at], 60));
      continue;
    }
    const Lines lines = Lines(all).subspan(at);
    n = length_of(lines, pair->second);
    if (!wanted(pair->first)) continue;
    const std::string key = pair->first;
    try {
      CardEntry entry = value_of(key, pair->second, lines.subspan(1, n - 1));
      std::erase_if(card.entries_, [&](const CardEntry& e) { return e.key == key; });
      card.entries_.push_back(std::move(entry));
    } catch (const NotUnderstood& fault) {
      note(fmt::format("{}: {}", quoted(key), fault.what));
    }
  }
  if (told > kMostNotes)
    notes.push_back(fmt::format("{} more lines are not understood", told - kMostNotes));
  return card;
}

const CardEntry* Card::find(Text key) const noexcept {
  const auto it = std::ranges::find(entries_, key, &CardEntry::key);
  return it == entries_.end() ? nullptr : &*it;
}

}  // namespace wtool
