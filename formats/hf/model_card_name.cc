#include "formats/hf/model_card_name.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace wtool {
namespace {

bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}
bool is_upper(char c) noexcept {
  return c >= 'A' && c <= 'Z';
}
bool is_lower(char c) noexcept {
  return c >= 'a' && c <= 'z';
}
// Bytes of other alphabets count as letters without capitals.
bool is_letter(char c) noexcept {
  return is_upper(c) || is_lower(c) || static_cast<unsigned char>(c) >= 0x80;
}
char upper(char c) noexcept {
  return is_lower(c) ? static_cast<char>(c - 'a' + 'A') : c;
}
void make_upper(std::string& s) noexcept {
  std::ranges::transform(s, s.begin(), upper);
}

// Looks at a part from its start, without regard to capitals.
class Form {
 public:
  explicit Form(std::string_view part) : text_(lower(part)), left_(text_) {}
  Form(const Form&) = delete;

  bool ended() const noexcept { return left_.empty(); }
  bool take(std::string_view word) noexcept {
    if (!left_.starts_with(word)) return false;
    left_.remove_prefix(word.size());
    return true;
  }
  bool take_one_of(std::string_view letters) noexcept {
    if (ended() || letters.find(left_.front()) == letters.npos) return false;
    left_.remove_prefix(1);
    return true;
  }
  bool digits() noexcept {
    const std::size_t before = left_.size();
    while (take_one_of("0123456789")) {
    }
    return left_.size() < before;
  }

 private:
  std::string text_;
  std::string_view left_;
};

bool is_version(std::string_view part) {  // "2", "v0.1", "iter1200"
  Form f(part);
  if (!f.take("v")) f.take("iter");
  if (!f.digits()) return false;
  while (f.take("."))
    if (!f.digits()) return false;
  return f.ended();
}

bool is_type(std::string_view part) {  // "Q4_K_M", "iq2_s", "bf16", "fp32"
  constexpr std::string_view kWord = "abcdefghijklmnopqrstuvwxyz0123456789_";
  Form q(part);
  q.take("i");
  if (q.take("q")) {
    if (!q.take_one_of("0123456789")) return false;
    while (q.take("_"))
      if (!q.take_one_of(kWord)) return false;
    return q.ended();
  }
  Form f(part);
  f.take("b");
  if (!f.take("f")) return false;
  f.take("p");
  return (f.take("16") || f.take("32")) && f.ended();
}

bool is_one_of(std::string_view part, std::initializer_list<std::string_view> words) {
  return std::ranges::find(words, lower(part)) != words.end();
}

bool is_size(std::string_view part) {  // "7B", "1_5b", "8x7B", "A3B", "7b1", "small"
  if (is_one_of(part, {"small", "mini", "medium", "large", "xl", "xxl"})) return true;
  Form f(part);
  const bool active = f.take("a");
  if (!f.digits()) return false;
  if (!active && f.take("x") && !f.digits()) return false;
  if (f.take_one_of("._") && !f.digits()) return false;
  if (!f.take_one_of("kmbt")) return false;
  f.take_one_of("0123456789");
  return f.ended();
}

constexpr unsigned kBase = 1, kSize = 2, kFinetune = 4, kVersion = 8, kType = 16;

struct Part {
  std::string text;
  unsigned is = 0;
};

std::vector<Part> split(std::string_view name) {
  std::vector<Part> out;
  while (!name.empty()) {
    const std::size_t end = std::min(name.find('-'), name.size());
    if (end != 0) out.push_back({std::string(name.substr(0, end))});
    name.remove_prefix(std::min(end + 1, name.size()));
  }
  return out;
}

// "7B" is 7e9; nothing for words and for "8x7B", "A3B".
std::optional<double> elements_of(std::string_view label) {
  double number = 0;
  const char* end = label.data() + label.size() - 1;
  const auto [at, fault] = std::from_chars(label.data(), end, number);
  if (fault != std::errc{} || at != end) return std::nullopt;
  const std::size_t power = std::string_view(" KMBT").find(label.back());
  return power == std::string_view::npos ? std::nullopt
                                         : std::optional(number * std::pow(1000.0, power));
}

// Within a factor: not below an eighth of the number, and not above it by more than seven eighths.
bool near(double label, std::uint64_t parameters) {
  const std::uint64_t most = parameters / 8 * 7 + parameters % 8 * 7 / 8;
  return std::abs(label - static_cast<double>(parameters)) <= static_cast<double>(most);
}

void annotate_size(Part& part, std::uint64_t parameters) {
  std::string& s = part.text;
  std::ranges::replace(s, '_', '.');
  if (is_digit(s.back()))  // "7b1" is 7.1 billion
    s = fmt::format("{}.{}{}", s.substr(0, s.size() - 2), s.back(), s[s.size() - 2]);
  if (s.size() > 1 && is_digit(s[s.size() - 2])) s.back() = upper(s.back());
  const auto label = parameters != 0 ? elements_of(s) : std::nullopt;
  if (label && !near(*label, parameters)) {
    part.is |= kFinetune;
    if (is_upper(s.back())) s.back() = static_cast<char>(s.back() - 'A' + 'a');
  } else {
    part.is |= kSize;
  }
}

void annotate(std::vector<Part>& parts, std::uint64_t parameters) {
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Part& part = parts[i];
    if (is_version(part.text)) {
      part.is |= kVersion;
    } else if (is_type(part.text)) {
      part.is |= kType;
      make_upper(part.text);
    } else if (i > 0 && is_size(part.text)) {
      annotate_size(part, parameters);
    } else if (i > 0 && is_one_of(part.text, {"chat", "instruct", "vision", "lora"})) {
      part.is |= kFinetune;
    }
  }
}

// "small" says nothing of the size where there is "7B", too.
void prefer_numbers(std::vector<Part>& parts) {
  const auto is_label = [](const Part& p) { return (p.is & kSize) != 0; };
  const auto has_digit = [](const Part& p) { return std::ranges::any_of(p.text, is_digit); };
  if (std::ranges::none_of(parts, [&](const Part& p) { return is_label(p) && has_digit(p); }))
    return;
  for (Part& p : parts)
    if (is_label(p) && std::ranges::all_of(p.text, is_letter)) p.is &= ~kSize;
}

// The base name is what the name begins with, versions within and all, but none that follow it.
void find_base(std::vector<Part>& parts) {
  bool at_start = true;
  for (Part& p : parts) {
    at_start = at_start && ((p.is == 0 && is_letter(p.text.front())) || (p.is & kVersion) != 0);
    if (at_start)
      p.is |= kBase;
    else if (p.is == 0)
      p.is |= kFinetune;
  }
  for (auto p = parts.rbegin(); p != parts.rend() && (p->is & kBase) && p->is != kBase; ++p)
    p->is &= ~kBase;
}

std::string joined_parts(const std::vector<Part>& parts, unsigned with, unsigned without = 0,
                         bool once = false) {
  std::vector<std::string_view> texts;
  for (const Part& p : parts)
    if ((p.is & with) && !(p.is & without) &&
        !(once && std::ranges::find(texts, p.text) != texts.end()))
      texts.push_back(p.text);
  return fmt::format("{}", fmt::join(texts, "-"));
}

}  // namespace

NameParts parts_of_name(std::string_view id, std::uint64_t parameters) {
  NameParts out;
  if (id.find(' ') != id.npos) {  // a sentence, by no convention
    out.name = id;
    return out;
  }
  if (const std::size_t slash = id.find('/'); slash != id.npos) {
    if (id.front() != '.') out.organization = id.substr(0, slash);  // "./name" is a path
    id.remove_prefix(slash + 1);
  }
  out.name = id;
  std::vector<Part> parts = split(id);
  annotate(parts, parameters);
  prefer_numbers(parts);
  find_base(parts);
  out.size_label = joined_parts(parts, kSize, 0, true);
  out.finetune = joined_parts(parts, kFinetune);
  out.version = joined_parts(parts, kVersion, kBase);
  // A base name alone tells no more than the name.
  if (!out.size_label.empty() || !out.finetune.empty() || !out.version.empty())
    out.basename = joined_parts(parts, kBase);
  return out;
}

std::string title_of(std::string_view name) {
  std::string out;
  while (true) {
    const std::size_t begin = name.find_first_not_of(" -\t\n\r\f\v");
    if (begin == name.npos) return out;
    name.remove_prefix(begin);
    std::string word(name.substr(0, name.find_first_of(" -\t\n\r\f\v")));
    name.remove_prefix(word.size());
    if (std::ranges::any_of(word, is_lower) && std::ranges::none_of(word, is_upper) &&
        !is_digit(word.front()) && !(word.front() == 'v' && is_version(word)))
      for (std::size_t i = 0; i < word.size(); ++i)
        if (i == 0 || !is_letter(word[i - 1])) word[i] = upper(word[i]);
    if (!out.empty()) out += ' ';
    out += word;
  }
}

}  // namespace wtool
