#include "cli/diff_map.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/model/transform.h"
#include "lib/numeric/cells.h"

namespace wtool {
namespace {

bool is_word(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> out;
  for (;;) {
    const std::size_t at = text.find(by);
    out.push_back(text.substr(0, at));
    if (at == text.npos) return out;
    text.remove_prefix(at + 1);
  }
}

NamePattern::Hole parse_hole(std::string_view text) {
  const std::size_t equals = text.find('=');
  NamePattern::Hole hole{std::string(text.substr(0, equals)), {}};
  if (hole.name.empty() || !std::ranges::all_of(hole.name, is_word))
    throw Error(Fault::Usage, fmt::format("{} is no placeholder, such as {{L}} or {{P=gate,up}}",
                                          quoted(fmt::format("{{{}}}", text))));
  if (equals == text.npos) return hole;
  for (const std::string_view word : split(text.substr(equals + 1), ',')) {
    if (word.empty())
      throw Error(Fault::Usage, fmt::format("placeholder '{}' has an empty word", hole.name));
    hole.words.emplace_back(word);
  }
  return hole;
}

}  // namespace

NamePattern::NamePattern(std::string_view text) : text_(text) {
  constexpr std::size_t kMostHoles = 8;
  std::string literal;
  while (!text.empty()) {
    const std::size_t open = text.find('{');
    literal += text.substr(0, open);
    if (open == text.npos) break;
    const std::size_t close = text.find('}', open);
    if (close == text.npos)
      throw Error(Fault::Usage, fmt::format("{}: '{{' without '}}'", quoted(text_)));
    // Between two placeholders something must say where the one ends.
    if (literal.empty() && !holes_.empty())
      throw Error(Fault::Usage, fmt::format("{}: nothing between two placeholders", quoted(text_)));
    holes_.push_back(parse_hole(text.substr(open + 1, close - open - 1)));
    literals_.push_back(std::move(literal));
    literal.clear();
    text.remove_prefix(close + 1);
  }
  literals_.push_back(std::move(literal));
  if (holes_.size() > kMostHoles)
    throw Error(Fault::Usage, fmt::format("{}: {} placeholders are more than {}", quoted(text_),
                                          holes_.size(), kMostHoles));
  for (std::size_t i = 0; i < holes_.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (holes_[i].name == holes_[j].name)
        throw Error(Fault::Usage, fmt::format("{}: placeholder '{}' stands there twice",
                                              quoted(text_), holes_[i].name));
}

bool NamePattern::match(std::string_view name, std::vector<std::string>& values) const {
  values.assign(holes_.size(), {});
  if (!name.starts_with(literals_[0])) return false;
  return match_from(0, name.substr(literals_[0].size()), values);
}

bool NamePattern::match_from(std::size_t hole, std::string_view rest,
                             std::vector<std::string>& values) const {
  if (hole == holes_.size()) return rest.empty();
  const auto tail = [&](std::size_t n) {
    const std::string_view next = rest.substr(n), literal = literals_[hole + 1];
    if (!next.starts_with(literal)) return false;
    values[hole] = rest.substr(0, n);
    return match_from(hole + 1, next.substr(literal.size()), values);
  };
  if (!holes_[hole].words.empty())
    return std::ranges::any_of(holes_[hole].words, [&](const std::string& word) {
      return rest.starts_with(word) && tail(word.size());
    });
  const std::size_t most = std::min(rest.find('.'), rest.size());
  for (std::size_t n = 1; n <= most; ++n)
    if (tail(n)) return true;
  return false;
}

// ---- the file

namespace {

std::uint64_t number_of(std::string_view text, std::string_view what) {
  const auto n = parse_u64(text);
  if (!n) throw Error(Fault::Usage, fmt::format("{}: {} is no number", what, quoted(text)));
  return *n;
}

std::pair<std::uint64_t, std::uint64_t> two_numbers(std::string_view text, char between,
                                                    std::string_view what) {
  const std::size_t at = text.find(between);
  if (at == text.npos)
    throw Error(Fault::Usage, fmt::format("{}: {} has no '{}'", what, quoted(text), between));
  return {number_of(text.substr(0, at), what), number_of(text.substr(at + 1), what)};
}

double addend_of(std::string_view text) {
  double value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    throw Error(Fault::Usage, fmt::format("add: {} is no number", quoted(text)));
  return value;
}

// Takes words from `words` at `at`.
Transform parse_transform(const std::vector<std::string_view>& words, std::size_t& at) {
  const std::string_view name = words[at++];
  if (name == "transpose") return {.kind = Transform::Kind::Transpose, .hole = {}};
  const auto argument = [&](std::string_view example) {
    if (at == words.size())
      throw Error(Fault::Usage, fmt::format("{} needs something: {} {}", name, name, example));
    return words[at++];
  };
  Transform out{.kind = Transform::Kind::Permute, .hole = {}};
  if (name == "permute") {
    out.first = number_of(argument("32"), name);
  } else if (name == "add") {
    out.kind = Transform::Kind::Add;
    out.addend = addend_of(argument("1"));
  } else if (name == "rows") {
    out.kind = Transform::Kind::Rows;
    std::tie(out.first, out.second) = two_numbers(argument("0:4096"), ':', name);
  } else if (name == "split") {
    out.kind = Transform::Kind::Split;
    std::tie(out.first, out.second) = two_numbers(argument("0/3"), '/', name);
    if (out.first >= out.second)
      throw Error(Fault::Usage, fmt::format("split: of {} parts, counted from 0, {} is none",
                                            out.second, out.first));
  } else if (name == "stack") {
    out.kind = Transform::Kind::Stack;
    out.hole = argument("E");
  } else {
    constexpr std::array<std::string_view, 6> kNames{"permute", "transpose", "add",
                                                     "rows",    "split",     "stack"};
    const std::string_view near = nearest(name, kNames);
    Error error(Fault::Usage, fmt::format("unknown transform {}", quoted(name)));
    throw error.hint(near.empty() ? fmt::format("there are {}", fmt::join(kNames, ", "))
                                  : fmt::format("did you mean '{}'?", near));
  }
  return out;
}

MapSide parse_side(const std::vector<std::string_view>& words) {
  if (words.empty()) throw Error(Fault::Usage, "a rule has a name on each side of '->'");
  MapSide side{NamePattern(words[0]), {}, {}};
  for (std::size_t at = 1; at < words.size();) {
    side.transforms.push_back(parse_transform(words, at));
    const Transform& t = side.transforms.back();
    if (t.kind != Transform::Kind::Stack) continue;
    const auto& holes = side.pattern.holes();
    if (std::ranges::find(holes, t.hole, &NamePattern::Hole::name) == holes.end())
      throw Error(Fault::Usage, fmt::format("stack: {} has no placeholder {{{}}}",
                                            quoted(side.pattern.text()), t.hole));
    if (!side.stack.empty()) throw Error(Fault::Usage, "one side is stacked twice");
    side.stack = t.hole;
  }
  return side;
}

// Every placeholder must be known on the other side, but for the one that is stacked.
void check_holes(const MapSide& side, const MapSide& other) {
  for (const NamePattern::Hole& hole : side.pattern.holes()) {
    const auto& there = other.pattern.holes();
    if (hole.name == side.stack) continue;
    if (std::ranges::find(there, hole.name, &NamePattern::Hole::name) == there.end() ||
        hole.name == other.stack)
      throw Error(Fault::Usage,
                  fmt::format("placeholder {{{}}} of {} is missing in {}", hole.name,
                              quoted(side.pattern.text()), quoted(other.pattern.text())))
          .hint("it must be on both sides, unless it is stacked");
  }
}

MapRule parse_rule(std::string_view line, std::string place) {
  std::vector<std::string_view> left, right;
  bool arrow = false;
  for (std::string_view word : split(line, ' ')) {
    if (word.empty()) continue;
    if (word == "->") {
      if (arrow) throw Error(Fault::Usage, "a rule has one '->'");
      arrow = true;
    } else {
      (arrow ? right : left).push_back(word);
    }
  }
  if (!arrow) throw Error(Fault::Usage, "a rule needs '->' between two names");
  MapRule rule{std::move(place), std::string(line), parse_side(left), parse_side(right)};
  check_holes(rule.a, rule.b);
  check_holes(rule.b, rule.a);
  return rule;
}

}  // namespace

std::vector<MapRule> parse_map(std::string_view text, const std::string& file) {
  std::vector<MapRule> rules;
  std::size_t number = 0;
  for (const std::string_view raw : split(text, '\n')) {
    ++number;
    std::string line(raw.substr(0, raw.find('#')));
    std::ranges::replace_if(
        line, [](char c) { return c == '\t' || c == '\r'; }, ' ');
    const std::size_t first = line.find_first_not_of(' ');
    if (first == line.npos) continue;
    line = line.substr(first, line.find_last_not_of(' ') + 1 - first);
    std::string place = fmt::format("{}:{}", file, number);
    try {
      rules.push_back(parse_rule(line, place));
    } catch (Error& e) {
      throw e.in(place);
    }
  }
  if (rules.empty()) throw Error(Fault::Usage, "there is no rule in it").in(file);
  return rules;
}

// ---- pairing

namespace {

// What both sides' placeholders stand for, in the order of their names.
using Key = std::vector<std::pair<std::string, std::string>>;
struct Member {
  std::string number;  // of what is stacked
  std::uint32_t tensor;
};
using Groups = std::map<Key, std::vector<Member>>;

Groups groups_of(const Model& model, const MapSide& side, std::vector<bool>& claimed) {
  Groups out;
  std::vector<std::string> values;
  for (std::uint32_t i = 0; i < model.tensors.size(); ++i) {
    if (!side.pattern.match(model.tensors[i].name, values)) continue;
    claimed[i] = true;
    Key key;
    Member member{{}, i};
    for (std::size_t h = 0; h < values.size(); ++h) {
      const std::string& name = side.pattern.holes()[h].name;
      if (name == side.stack)
        member.number = values[h];
      else
        key.emplace_back(name, values[h]);
    }
    std::ranges::sort(key);
    out[key].push_back(std::move(member));
  }
  return out;
}

// In the order of their numbers, which must be 0, 1, 2, …
std::vector<std::uint32_t> in_order(const std::vector<Member>& members, const Model& model,
                                    const MapRule& rule, const MapSide& side) {
  std::vector<std::uint32_t> out(members.size(), ~0u);
  for (const Member& m : members) {
    const auto n = side.stack.empty() ? std::optional<std::uint64_t>(0) : parse_u64(m.number);
    if (!n || *n >= out.size() || out[*n] != ~0u)
      throw Error(
          Fault::Usage,
          fmt::format("{} tensors are to be stacked by {{{}}}, which is {} in {}", members.size(),
                      side.stack, quoted(m.number), quoted(model.tensors[m.tensor].name)))
          .in(rule.place)
          .hint("what is stacked is numbered 0, 1, 2, …");
    out[*n] = m.tensor;
  }
  return out;
}

std::string why_unpaired(const Groups& a, const Groups& b, const Model& model_a,
                         const Model& model_b) {
  if (a.empty()) return fmt::format("it matches no tensor of {}", model_a.path);
  if (b.empty()) return fmt::format("it matches no tensor of {}", model_b.path);
  return fmt::format("no placeholders agree between the tensors it matches ({} and {}, …)",
                     quoted(model_a.tensors[a.begin()->second[0].tensor].name),
                     quoted(model_b.tensors[b.begin()->second[0].tensor].name));
}

void by_rules(const Model& a, const Model& b, const std::vector<MapRule>& rules,
              bool allow_unmatched, std::vector<bool>& claimed_a, std::vector<bool>& claimed_b,
              Pairing& out) {
  std::optional<Error> first;
  std::size_t unmatched = 0;
  for (const MapRule& rule : rules) {
    const Groups in_a = groups_of(a, rule.a, claimed_a), in_b = groups_of(b, rule.b, claimed_b);
    bool any = false;
    for (const auto& [key, members] : in_a) {
      const auto there = in_b.find(key);
      if (there == in_b.end()) continue;
      any = true;
      out.pairs.push_back(
          {in_order(members, a, rule, rule.a), in_order(there->second, b, rule, rule.b), &rule});
    }
    if (any || allow_unmatched) continue;
    ++unmatched;
    if (!first)
      first = Error(Fault::Usage, fmt::format("{} pairs nothing: {}", quoted(rule.text),
                                              why_unpaired(in_a, in_b, a, b)))
                  .in(rule.place)
                  .hint("--allow-unmatched relaxes it");
  }
  if (!first) return;
  if (unmatched > 1)
    first->hint(
        fmt::format("{} rules more pair nothing; --allow-unmatched relaxes it", unmatched - 1));
  throw *first;
}

}  // namespace

Pairing pair_tensors(const Model& a, const Model& b, const std::vector<MapRule>& rules,
                     bool allow_unmatched) {
  Pairing out;
  std::vector<bool> claimed_a(a.tensors.size()), claimed_b(b.tensors.size());
  by_rules(a, b, rules, allow_unmatched, claimed_a, claimed_b, out);
  std::vector<bool> paired_a(a.tensors.size()), paired_b(b.tensors.size());
  for (const TensorPair& p : out.pairs) {
    for (const std::uint32_t i : p.a) paired_a[i] = true;
    for (const std::uint32_t i : p.b) paired_b[i] = true;
  }
  std::map<std::string_view, std::uint32_t> by_name;
  for (std::uint32_t i = 0; i < b.tensors.size(); ++i)
    if (!claimed_b[i]) by_name.emplace(b.tensors[i].name, i);
  for (std::uint32_t i = 0; i < a.tensors.size(); ++i) {
    if (claimed_a[i]) continue;
    const auto there = by_name.find(a.tensors[i].name);
    if (there == by_name.end()) continue;
    out.pairs.push_back({{i}, {there->second}, nullptr});
    paired_a[i] = paired_b[there->second] = true;
  }
  std::ranges::stable_sort(out.pairs, {}, [](const TensorPair& p) { return p.a.front(); });
  for (std::uint32_t i = 0; i < paired_a.size(); ++i)
    if (!paired_a[i]) out.only_a.push_back(i);
  for (std::uint32_t i = 0; i < paired_b.size(); ++i)
    if (!paired_b[i]) out.only_b.push_back(i);
  return out;
}

// ---- opening

namespace {

TensorPtr transformed(TensorPtr t, const Transform& how) {
  switch (how.kind) {
    case Transform::Kind::Permute: return permuted(std::move(t), how.first);
    case Transform::Kind::Transpose: return transposed(std::move(t));
    case Transform::Kind::Add: return added(std::move(t), static_cast<float>(how.addend));
    case Transform::Kind::Rows: return rows_of(std::move(t), how.first, how.second);
    case Transform::Kind::Split: {
      const std::uint64_t rows = t->shape().empty() ? 0 : t->shape()[0];
      if (t->shape().empty() || rows % how.second != 0)
        throw Error(Fault::Usage, fmt::format("{} does not split into {} equal parts",
                                              to_text(t->shape()), how.second));
      const std::uint64_t each = rows / how.second;
      return rows_of(std::move(t), how.first * each, (how.first + 1) * each);
    }
    case Transform::Kind::Stack: break;
  }
  throw Error(Fault::Internal, "a stack is no transform of one tensor");
}

}  // namespace

TensorPtr open_side(const Model& model, const std::vector<std::uint32_t>& tensors,
                    const MapSide* side, const std::string& place) {
  std::vector<TensorPtr> opened;
  for (const std::uint32_t i : tensors) opened.push_back(model.open(model.tensors[i]));
  if (side == nullptr) return opened.front();
  try {
    for (const Transform& how : side->transforms) {
      if (how.kind == Transform::Kind::Stack)
        opened = {stacked(std::move(opened))};
      else
        for (TensorPtr& t : opened) t = transformed(std::move(t), how);
    }
  } catch (Error& e) {
    throw e.in(fmt::format("{}: tensor {}", place, quoted(model.tensors[tensors.front()].name)));
  }
  return opened.front();
}

std::string side_name(const Model& model, const std::vector<std::uint32_t>& tensors,
                      const MapSide* side) {
  const std::string_view name = model.tensors[tensors.front()].name;
  if (side == nullptr || side->stack.empty()) return std::string(name);
  std::vector<std::string> values;
  if (!side->pattern.match(name, values)) return std::string(name);
  std::string out;
  std::string_view rest = side->pattern.text();
  for (std::size_t h = 0; h < values.size(); ++h) {
    out += rest.substr(0, rest.find('{'));
    out += side->pattern.holes()[h].name == side->stack ? std::string("*") : values[h];
    rest.remove_prefix(rest.find('}') + 1);
  }
  return out.append(rest);
}

}  // namespace wtool
