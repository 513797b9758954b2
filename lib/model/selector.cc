#include "lib/model/selector.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include <fmt/format.h>
#include <re2/re2.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/base/text_hash.h"

namespace wtool {
namespace {

using Test = std::function<bool(const LogicalTensor&)>;

constexpr std::size_t kMaxBraces = 16;  // nested in each other: no recursion in RE2 worth a thought
constexpr std::size_t kMaxCandidates = 100'000;  // for "did you mean"

re2::StringPiece piece(std::string_view s) noexcept {
  return {s.data(), s.size()};
}

Error malformed(std::string_view pattern, std::string_view why) {
  return Error(Fault::Usage, fmt::format("pattern {}: {}", quoted(pattern), why));
}

std::unique_ptr<RE2> compiled(std::string_view expression, std::string_view pattern) {
  RE2::Options options;
  options.set_log_errors(false);
  auto re = std::make_unique<RE2>(piece(expression), options);
  if (!re->ok()) throw malformed(pattern, re->error());
  return re;
}

// A glob as a regular expression, anchored at part borders. Braces become alternations, so they
// are never multiplied out.
class Glob {
 public:
  explicit Glob(std::string_view pattern) : in_(pattern) {}

  std::string expression() {
    std::string out = "(?:^|\\.)(?:";
    std::size_t depth = 0;
    while (at_ < in_.size()) {
      const char c = in_[at_++];
      if (c == '*') {
        out += "\\C*";  // any bytes, so that names that are not UTF-8 match too
        while (at_ < in_.size() && in_[at_] == '*') ++at_;
      } else if (c == '?') {
        out += "(?s:.)";
      } else if (c == '[') {
        out += set();
      } else if (c == '{') {
        if (++depth > kMaxBraces) throw malformed(in_, "braces are nested too deeply");
        out += "(?:";
      } else if (c == '}' && depth > 0) {
        --depth;
        out += ')';
      } else if (c == ',' && depth > 0) {
        out += '|';
      } else if (c == '\\') {
        if (at_ == in_.size()) throw malformed(in_, "ends in a backslash");
        literal(out, in_[at_++]);
      } else {
        literal(out, c);
      }
    }
    if (depth > 0) throw malformed(in_, "a brace is not closed");
    return out + ")(?:\\.|$)";
  }

 private:
  static void literal(std::string& out, char c) {
    if (std::string_view("\\.+*?()|[]{}^$").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  std::string set() {
    std::string out = "[";
    if (at_ < in_.size() && (in_[at_] == '!' || in_[at_] == '^')) {
      out += '^';
      ++at_;
    }
    for (bool first = true; at_ < in_.size(); first = false) {
      const char c = in_[at_++];
      if (c == ']' && !first) return out + "]";
      if (c == '\\' || c == '[' || c == ']' || c == '^') out += '\\';
      out += c;
    }
    throw malformed(in_, "a bracket is not closed");
  }

  std::string_view in_;
  std::size_t at_ = 0;
};

Test search(std::shared_ptr<RE2> re) {
  return [re = std::move(re)](const LogicalTensor& t) {
    return RE2::PartialMatch(piece(t.name), *re);
  };
}

Test dtype_test(std::string_view pattern, std::string_view name) {
  if (const auto type = parse_dtype(name))
    return [type](const LogicalTensor& t) { return t.dtype == *type; };
  Error e = malformed(pattern, fmt::format("unknown dtype {}", quoted(name)));
  std::vector<std::string_view> names;
  for (const DTypeInfo& d : all_dtypes()) names.push_back(d.name);
  if (const auto near = nearest(name, names); !near.empty())
    e.hint(fmt::format("did you mean '{}'?", near));
  throw e;
}

// 'layer:3', 'layer:3-7', 'layer:3-', 'layer:-7'
Test layer_test(std::string_view pattern, std::string_view range) {
  const auto dash = range.find('-');
  const std::string_view from = range.substr(0, dash);
  const std::string_view to = dash == std::string_view::npos ? from : range.substr(dash + 1);
  const auto low = from.empty() ? 0 : parse_u64(from);
  const auto high = to.empty() ? ~std::uint64_t{0} : parse_u64(to);
  if (!low || !high || (from.empty() && to.empty()))
    throw malformed(pattern, "a layer is a number or a range such as 3-7");
  if (*low > *high) throw malformed(pattern, fmt::format("layer {} comes after {}", *low, *high));
  return [low = *low, high = *high](const LogicalTensor& t) {
    const auto layer = layer_of(t.name);
    return layer && *layer >= low && *layer <= high;
  };
}

// '[4096,*]'
Test exact_shape_test(std::string_view pattern, std::string_view list) {
  std::vector<std::optional<std::uint64_t>> want;  // nullopt: any
  list = list.substr(1, list.size() - 2);
  for (bool more = !list.empty(); more;) {
    const auto comma = list.find(',');
    std::string_view dim = list.substr(0, comma);
    while (dim.starts_with(' ')) dim.remove_prefix(1);
    while (dim.ends_with(' ')) dim.remove_suffix(1);
    want.push_back(dim == "*" ? std::nullopt : parse_u64(dim));
    if (dim != "*" && !want.back())
      throw malformed(pattern, fmt::format("{} is neither a size nor *", quoted(dim)));
    more = comma != std::string_view::npos;
    if (more) list.remove_prefix(comma + 1);
  }
  return [want = std::move(want)](const LogicalTensor& t) {
    return std::ranges::equal(t.shape, want,
                              [](std::uint64_t dim, const auto& w) { return !w || *w == dim; });
  };
}

// '2d', '>=2d', '<3d' or a list of sizes
Test shape_test(std::string_view pattern, std::string_view rule) {
  if (rule.size() >= 2 && rule.front() == '[' && rule.back() == ']')
    return exact_shape_test(pattern, rule);
  std::string_view op = rule.substr(0, rule.find_first_not_of("<>="));
  std::string_view rank = rule.substr(op.size());
  if (rank.ends_with('d') || rank.ends_with('D')) rank.remove_suffix(1);
  const auto n = parse_u64(rank);
  const bool known =
      op.empty() || op == "=" || op == "==" || op == "<" || op == "<=" || op == ">" || op == ">=";
  if (!n || !known || rank.size() == rule.size() - op.size())
    throw malformed(pattern, "a shape is '2d', '>=2d' or a list such as [4096,*]");
  const bool less = op.starts_with('<'), more = op.starts_with('>');
  const bool equal = op != "<" && op != ">";
  return [less, more, equal, n = *n](const LogicalTensor& t) {
    const std::uint64_t rank_of_t = t.shape.size();
    return (less && rank_of_t < n) || (more && rank_of_t > n) || (equal && rank_of_t == n);
  };
}

Test test_for(std::string_view pattern) {
  const auto after = [&](std::string_view prefix) -> std::optional<std::string_view> {
    if (!pattern.starts_with(prefix)) return std::nullopt;
    return pattern.substr(prefix.size());
  };
  if (pattern.empty()) throw malformed(pattern, "is empty");
  if (const auto re = after("re:")) return search(compiled(*re, pattern));
  if (const auto name = after("dtype:")) return dtype_test(pattern, *name);
  if (const auto range = after("layer:")) return layer_test(pattern, *range);
  if (const auto rule = after("shape:")) return shape_test(pattern, *rule);
  return search(compiled(Glob(pattern).expression(), pattern));
}

// Whole names, and the runs of them that have as many parts as the pattern.
std::string_view nearest_name(std::span<const LogicalTensor> tensors, std::string_view pattern) {
  std::vector<std::string_view> names, runs;
  std::unordered_set<std::string_view> seen;
  const auto parts = static_cast<std::size_t>(std::ranges::count(pattern, '.')) + 1;
  for (const LogicalTensor& t : tensors) {
    if (names.size() + runs.size() >= kMaxCandidates) break;
    names.push_back(t.name);
    std::vector<std::size_t> begins{0};
    for (std::size_t i = 0; i < t.name.size(); ++i)
      if (t.name[i] == '.') begins.push_back(i + 1);
    begins.push_back(t.name.size() + 1);
    for (std::size_t i = 0; i + parts < begins.size() && seen.size() < kMaxCandidates; ++i) {
      const auto run = t.name.substr(begins[i], begins[i + parts] - begins[i] - 1);
      if (seen.insert(run).second) runs.push_back(run);
    }
  }
  const std::string_view whole = nearest(pattern, names);
  return whole.empty() ? nearest(pattern, runs) : whole;
}

Error unmatched(std::span<const LogicalTensor> tensors, std::string_view pattern) {
  Error e(Fault::Usage, fmt::format("no tensor matches {}", quoted(pattern)));
  if (const auto near = nearest_name(tensors, pattern); !near.empty())
    return e.hint(fmt::format("did you mean {}?", quoted(near)));
  return e.hint("'wtool inspect' lists the names");
}

// Answers pattern after pattern about the same tensors.
class Selector {
 public:
  explicit Selector(std::span<const LogicalTensor> tensors) : tensors_(tensors) {}

  // Calls `hit` with the index of each tensor that the pattern selects.
  void each(std::string_view pattern, bool allow_unmatched,
            const std::function<void(std::size_t)>& hit) {
    if (const auto exact = find(pattern)) return hit(*exact);
    const Test test = test_for(pattern);
    bool any = false;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (!test(tensors_[i])) continue;
      any = true;
      hit(i);
    }
    if (!any && !allow_unmatched) throw unmatched(tensors_, pattern);
  }

 private:
  // One look at all names for the first few patterns; for a long list of names, an index.
  std::optional<std::size_t> find(std::string_view name) {
    constexpr std::size_t kFew = 8;
    if (asked_++ < kFew) {
      const auto it = std::ranges::find(tensors_, name, &LogicalTensor::name);
      if (it == tensors_.end()) return std::nullopt;
      return static_cast<std::size_t>(it - tensors_.begin());
    }
    if (index_.empty()) {
      index_.reserve(tensors_.size());
      for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
    }
    const auto it = index_.find(name);
    return it == index_.end() ? std::nullopt : std::optional(it->second);
  }

  std::span<const LogicalTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t, TextHash> index_;
  std::size_t asked_ = 0;
};

}  // namespace

std::vector<bool> matching(std::span<const LogicalTensor> tensors, std::string_view pattern,
                           bool allow_unmatched) {
  std::vector<bool> out(tensors.size());
  Selector(tensors).each(pattern, allow_unmatched, [&](std::size_t i) { out[i] = true; });
  return out;
}

std::vector<std::uint32_t> select(std::span<const LogicalTensor> tensors,
                                  std::span<const std::string> include,
                                  std::span<const std::string> exclude, bool allow_unmatched) {
  Selector selector(tensors);
  std::vector<bool> in(tensors.size(), include.empty());
  for (const std::string& p : include)
    selector.each(p, allow_unmatched, [&](std::size_t i) { in[i] = true; });
  for (const std::string& p : exclude)
    selector.each(p, allow_unmatched, [&](std::size_t i) { in[i] = false; });
  std::vector<std::uint32_t> out;
  for (std::size_t i = 0; i < in.size(); ++i)
    if (in[i]) out.push_back(static_cast<std::uint32_t>(i));
  return out;
}

std::optional<std::uint64_t> layer_of(std::string_view name) noexcept {
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    if (const auto n = parse_u64(name.substr(begin, end - begin))) return n;
    begin = end + 1;
  }
  return std::nullopt;
}

TypeRule parse_type_rule(std::string_view text) {
  const auto equals = text.rfind('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == text.size())
    throw Error(Fault::Usage, fmt::format("{} is not PATTERN=TYPE", quoted(text)))
        .hint("for example 'layers.0.*=bf16'");
  return {std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

std::vector<std::size_t> last_matching(std::span<const LogicalTensor> tensors,
                                       std::span<const TypeRule> rules, bool allow_unmatched) {
  Selector selector(tensors);
  std::vector<std::size_t> out(tensors.size(), std::string::npos);
  for (std::size_t r = 0; r < rules.size(); ++r)
    selector.each(rules[r].pattern, allow_unmatched, [&](std::size_t i) { out[i] = r; });
  return out;
}

struct Renamer::Rule {
  std::string text, rewrite;
  std::unique_ptr<RE2> search;
  mutable bool used = false;
};

Renamer::Renamer(std::span<const std::string> rules) {
  for (const std::string& text : rules) {
    const auto equals = text.rfind('=');
    if (equals == std::string::npos || equals == 0)
      throw Error(Fault::Usage, fmt::format("{} is not A=B", quoted(text)))
          .hint(R"(for example '^model\.=' or 'layers\.(\d+)=blk.\1')");
    Rule& rule = rules_.emplace_back();
    rule.text = text;
    rule.rewrite = text.substr(equals + 1);
    rule.search = compiled(text.substr(0, equals), text);
    std::string why;
    if (!rule.search->CheckRewriteString(rule.rewrite, &why)) throw malformed(text, why);
  }
}
Renamer::~Renamer() = default;

std::string Renamer::operator()(std::string_view name) const {
  std::string out(name);
  for (const Rule& r : rules_) {
    const std::string before = out;
    RE2::GlobalReplace(&out, *r.search, r.rewrite);
    r.used = r.used || out != before;
  }
  if (out.empty() && !name.empty())
    throw Error(Fault::Usage,
                fmt::format("--rename leaves tensor {} without a name", quoted(name)));
  return out;
}

std::vector<std::string> Renamer::unused() const {
  std::vector<std::string> out;
  for (const Rule& r : rules_)
    if (!r.used) out.push_back(r.text);
  return out;
}

}  // namespace wtool
