#include "cli/tree.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::size_t kDeepest = 6;  // folds within folds; deeper numbers are part of a name
constexpr std::size_t kMostMerged = 8;
constexpr std::size_t kMostLines = 5'000;  // of one kind side by side; more nobody reads, and
                                           // memory must not follow a hostile header

// A tensor on its way down the tree, and what is left of its name.
struct Item {
  const LogicalTensor* tensor;
  std::string_view name;
};

// "layers.3.mlp.up.weight" → "layers", 3, "mlp.up.weight".
struct Numbered {
  std::string_view prefix, digits, rest;
  std::uint64_t number = 0;
};
std::optional<Numbered> numbered(std::string_view name) {
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('.', at), name.size());
    const std::string_view part = name.substr(at, end - at);
    if (!part.empty() && part[0] >= '0' && part[0] <= '9')
      if (const auto n = parse_u64(part))
        return Numbered{.prefix = name.substr(0, at == 0 ? 0 : at - 1),
                        .digits = part,
                        .rest = end == name.size() ? std::string_view() : name.substr(end + 1),
                        .number = *n};
    at = end + 1;
  }
  return std::nullopt;
}

struct Layer {
  std::uint64_t number = 0;
  std::vector<Item> items;
  std::uint64_t signature = 0;
};
// Layers that are the same but for their number.
struct Group {
  std::vector<std::uint64_t> numbers;
  const Layer* first = nullptr;
  std::uint64_t bytes = 0;  // of all of them
};

struct Node {
  std::string label;  // what it is sorted by
  std::vector<TreeRow> rows;
};

class Builder {
 public:
  explicit Builder(const Model& model) : model_(model) {
    for (const LogicalTensor& t : model.tensors) total_ += model.stored_bytes(t);
  }

  std::vector<TreeRow> build() const {
    const std::string_view root = common_root();
    std::vector<Item> items;
    items.reserve(model_.tensors.size());
    for (const LogicalTensor& t : model_.tensors) {
      std::string_view name = t.name;
      if (name.starts_with(root)) name.remove_prefix(root.size());
      items.push_back({&t, name});
    }
    return level(items, 0);
  }

 private:
  std::string_view common_root() const;
  std::vector<TreeRow> level(const std::vector<Item>& items, std::size_t depth) const;
  void add_leaves(std::vector<Item> items, std::size_t depth, std::vector<Node>& nodes) const;
  void add_family(std::string_view prefix, std::vector<Item>& items, std::size_t depth,
                  std::vector<Node>& nodes) const;
  Node fold(std::string_view prefix, const Group& group, bool whole, std::size_t depth) const;
  Node leaf(std::span<const Item> same, std::string name, std::size_t depth) const;
  Node left_out(std::uint64_t count, std::uint64_t bytes, std::size_t depth) const;
  std::vector<Group> groups_of(std::vector<Layer>& layers) const;
  bool same(const LogicalTensor& a, const LogicalTensor& b) const;
  std::uint64_t signature(const Layer& layer) const;
  std::string share(std::uint64_t bytes) const {
    if (total_ == 0) return {};
    return fmt::format("{:.1f} %",
                       100.0 * static_cast<double>(bytes) / static_cast<double>(total_));
  }

  const Model& model_;
  std::uint64_t total_ = 0;
};

// "model." where every numbered name begins with it: it tells nothing then.
std::string_view Builder::common_root() const {
  std::optional<std::string_view> root;
  for (const LogicalTensor& t : model_.tensors) {
    const auto n = numbered(t.name);
    if (!n) continue;
    const auto dot = n->prefix.rfind('.');
    const std::string_view mine =
        dot == std::string_view::npos ? std::string_view() : n->prefix.substr(0, dot + 1);
    if (!root) root = mine;
    while (!mine.starts_with(*root)) {
      const auto cut =
          root->size() < 2 ? std::string_view::npos : root->rfind('.', root->size() - 2);
      root = cut == std::string_view::npos ? std::string_view() : root->substr(0, cut + 1);
    }
  }
  return root.value_or(std::string_view());
}

bool Builder::same(const LogicalTensor& a, const LogicalTensor& b) const {
  return a.scheme == b.scheme && a.dtype == b.dtype && a.count == b.count &&
         std::ranges::equal(a.shape, b.shape) && type_label(model_, a) == type_label(model_, b) &&
         model_.stored_bytes(a) == model_.stored_bytes(b);
}

std::uint64_t Builder::signature(const Layer& layer) const {
  std::uint64_t h = layer.items.size();
  for (const Item& i : layer.items)
    h = h * 0x9E3779B97F4A7C15u + (hash_text(i.name) ^ model_.stored_bytes(*i.tensor));
  return h;
}

std::vector<Group> Builder::groups_of(std::vector<Layer>& layers) const {
  std::ranges::sort(layers, {}, &Layer::number);
  std::vector<Group> groups;
  std::unordered_map<std::uint64_t, std::vector<std::size_t>> by_signature;
  for (Layer& layer : layers) {
    std::ranges::sort(layer.items, {}, &Item::name);
    layer.signature = signature(layer);
    const auto equals = [&](std::size_t g) {
      return std::ranges::equal(groups[g].first->items, layer.items,
                                [&](const Item& a, const Item& b) {
                                  return a.name == b.name && same(*a.tensor, *b.tensor);
                                });
    };
    auto& candidates = by_signature[layer.signature];
    auto found = std::ranges::find_if(candidates, equals);
    if (found == candidates.end()) {
      candidates.push_back(groups.size());
      groups.push_back({.numbers = {}, .first = &layer});
      found = candidates.end() - 1;
    }
    Group& group = groups[*found];
    group.numbers.push_back(layer.number);
    for (const Item& i : layer.items) group.bytes += model_.stored_bytes(*i.tensor);
  }
  return groups;
}

Node Builder::leaf(std::span<const Item> alike, std::string name, std::size_t depth) const {
  const LogicalTensor& t = *alike.front().tensor;
  const std::uint64_t each = model_.stored_bytes(t);
  const std::uint64_t all = each * alike.size();
  TreeRow row{.depth = depth,
              .is_fold = false,
              .name = std::move(name),
              .shape = to_text(t.shape),
              .dtype = std::string(type_label(model_, t)),
              .size = human_bytes(depth == 0 ? all : each),
              .share = depth == 0         ? share(all)
                       : alike.size() > 1 ? "each"
                                          : "",
              .remark = depth == 0 && alike.size() > 1 ? human_bytes(each) + " each" : ""};
  if (t.count > 1)
    if (const auto n = element_count(t.shape); n && *n > 0) {
      if (!row.remark.empty()) row.remark += ", ";
      row.remark += fmt::format("{:.2f} bits/weight",
                                8 * static_cast<double>(each) / static_cast<double>(*n));
    }
  return {std::string(alike.front().name), {std::move(row)}};
}

Node Builder::left_out(std::uint64_t count, std::uint64_t bytes, std::size_t depth) const {
  TreeRow row;
  row.depth = depth;
  row.name = fmt::format("… {} more (--list names them)", count);
  row.size = human_bytes(bytes);
  if (depth == 0) row.share = share(bytes);
  return {"\xFF", {std::move(row)}};  // sorts last
}

// The name with one part taken out, to find names that differ in it alone.
struct Hole {
  std::string_view before, part, after;
};
std::vector<Hole> holes(std::string_view name) {
  std::vector<Hole> all;
  constexpr std::size_t kMostParts = 8;  // the work is the product of parts and length
  for (std::size_t end = name.size(); all.size() < kMostParts;) {
    const auto dot = end == 0 ? std::string_view::npos : name.rfind('.', end - 1);
    const std::size_t begin = dot == std::string_view::npos ? 0 : dot + 1;
    all.push_back({name.substr(0, begin), name.substr(begin, end - begin), name.substr(end)});
    if (begin == 0) break;
    end = begin - 1;
  }
  return all;
}

void Builder::add_leaves(std::vector<Item> items, std::size_t depth,
                         std::vector<Node>& nodes) const {
  const auto middle =
      items.begin() + static_cast<std::ptrdiff_t>(std::min(items.size(), kMostLines));
  std::ranges::partial_sort(items, middle, natural_less, &Item::name);
  std::uint64_t bytes = 0;
  for (auto i = middle; i != items.end(); ++i) bytes += model_.stored_bytes(*i->tensor);
  if (middle != items.end())
    nodes.push_back(left_out(static_cast<std::uint64_t>(items.end() - middle), bytes, depth));
  items.resize(std::min(items.size(), kMostLines));
  // Names by what is around one part of them, for every part.
  std::unordered_map<std::uint64_t, std::vector<std::uint32_t>> around;
  const auto key = [](const Hole& h) { return hash_text(h.before) * 31 + hash_text(h.after); };
  for (std::uint32_t i = 0; i < items.size(); ++i)
    for (const Hole& h : holes(items[i].name)) {
      auto& list = around[key(h)];
      if (list.size() < 4 * kMostMerged) list.push_back(i);
    }

  std::vector<bool> used(items.size());
  for (std::uint32_t i = 0; i < items.size(); ++i) {
    if (used[i]) continue;
    std::vector<Item> best{items[i]};
    std::vector<std::uint32_t> best_ids{i};
    std::string best_name = printable(items[i].name);
    for (const Hole& h : holes(items[i].name)) {
      std::vector<Item> alike{items[i]};
      std::vector<std::uint32_t> ids{i};
      std::vector<std::string_view> words{h.part};
      for (const std::uint32_t k : around[key(h)]) {
        const std::string_view other = items[k].name;
        if (k <= i || used[k] || alike.size() == kMostMerged) continue;
        if (other.size() < h.before.size() + h.after.size() || !other.starts_with(h.before) ||
            !other.ends_with(h.after) || !same(*items[i].tensor, *items[k].tensor))
          continue;
        const std::string_view word =
            other.substr(h.before.size(), other.size() - h.before.size() - h.after.size());
        words.push_back(word);
        const bool last = h.after.empty() && !h.before.empty();  // a.{bias,weight}
        if (last || !merged_name(words).empty()) {
          alike.push_back(items[k]);
          ids.push_back(k);
        } else {
          words.pop_back();
        }
      }
      if (alike.size() <= best.size()) continue;
      std::string merged = merged_name(words);
      if (merged.empty()) merged = fmt::format("{{{}}}", fmt::join(words, ","));
      best_name = printable(fmt::format("{}{}{}", h.before, merged, h.after));
      best = std::move(alike);
      best_ids = std::move(ids);
    }
    for (const std::uint32_t k : best_ids) used[k] = true;
    nodes.push_back(leaf(best, std::move(best_name), depth));
  }
}

Node Builder::fold(std::string_view prefix, const Group& group, bool whole,
                   std::size_t depth) const {
  const std::size_t n = group.numbers.size();
  const std::string which = range_list(group.numbers);
  const std::string dotted = prefix.empty() ? "" : printable(prefix) + ".";
  if (group.first->items.size() == 1) {  // "experts.{0-7}.weight" in one line
    const Item& only = group.first->items.front();
    const std::string rest = only.name.empty() ? "" : "." + printable(only.name);
    const std::vector<Item> alike(n, only);
    Node node = leaf(alike, dotted + (n > 1 ? "{" + which + "}" : which) + rest, depth);
    node.label = fmt::format("{}.{}", prefix, group.numbers.front());
    return node;
  }
  TreeRow row;
  row.depth = depth;
  row.is_fold = true;
  row.size = human_bytes(group.bytes);
  const std::string label = prefix.empty() ? "" : printable(prefix);
  row.name = label;
  if (!whole || n == 1) row.name += (label.empty() ? "" : " ") + which;
  if (n > 1) row.name += fmt::format("{}×{} (identical)", row.name.empty() ? "" : " ", n);
  if (depth == 0) row.share = share(group.bytes);
  if (n > 1) {
    std::string one(prefix.substr(prefix.rfind('.') + 1));
    const bool plural = one.size() > 2 && one.ends_with('s');
    if (plural) one.pop_back();
    row.remark = human_bytes(group.bytes / n) + (plural ? " per " + printable(one) : " each");
  }
  Node node{fmt::format("{}.{}", prefix, group.numbers.front()), {std::move(row)}};
  for (TreeRow& child : level(group.first->items, depth + 1)) node.rows.push_back(std::move(child));
  return node;
}

void Builder::add_family(std::string_view prefix, std::vector<Item>& items, std::size_t depth,
                         std::vector<Node>& nodes) const {
  std::unordered_map<std::string_view, std::size_t> index;
  std::vector<Layer> layers;
  for (const Item& i : items) {
    const Numbered n = *numbered(i.name);
    const auto [at, is_new] = index.try_emplace(n.digits, layers.size());
    if (is_new) layers.push_back({.number = n.number, .items = {}});
    layers[at->second].items.push_back({i.tensor, n.rest});
  }
  items.clear();
  items.shrink_to_fit();
  const std::vector<Group> groups = groups_of(layers);
  const bool whole =
      groups.size() == 1 && layers.front().number == 0 && layers.back().number == layers.size() - 1;
  for (const Group& g : std::span(groups).first(std::min(groups.size(), kMostLines)))
    nodes.push_back(fold(prefix, g, whole, depth));
  std::uint64_t count = 0, bytes = 0;
  for (const Group& g : std::span(groups).subspan(std::min(groups.size(), kMostLines))) {
    count += g.numbers.size() * g.first->items.size();
    bytes += g.bytes;
  }
  if (count > 0) nodes.push_back(left_out(count, bytes, depth));
}

std::vector<TreeRow> Builder::level(const std::vector<Item>& items, std::size_t depth) const {
  std::unordered_map<std::string_view, std::size_t> index;
  std::vector<std::pair<std::string_view, std::vector<Item>>> families;
  std::vector<Item> plain;
  for (const Item& i : items) {
    const auto n = depth < kDeepest ? numbered(i.name) : std::nullopt;
    if (!n) {
      plain.push_back(i);
      continue;
    }
    const auto [at, is_new] = index.try_emplace(n->prefix, families.size());
    if (is_new) families.push_back({n->prefix, {}});
    families[at->second].second.push_back(i);
  }
  std::vector<Node> nodes;
  add_leaves(std::move(plain), depth, nodes);
  for (auto& [prefix, members] : families) add_family(prefix, members, depth, nodes);
  std::ranges::stable_sort(nodes, natural_less, &Node::label);
  std::vector<TreeRow> rows;
  for (Node& n : nodes)
    for (TreeRow& r : n.rows) rows.push_back(std::move(r));
  return rows;
}

// A border between words: the end of the text or an underscore, dash or digit edge.
bool is_border(char c) noexcept {
  return c == '_' || c == '-';
}

}  // namespace

std::string merged_name(std::span<const std::string_view> words) {
  std::string_view front = words.front(), back = words.front();
  for (const std::string_view w : words) {
    while (!w.starts_with(front)) front.remove_suffix(1);
    while (!w.ends_with(back)) back.remove_prefix(1);
  }
  while (!front.empty() && !is_border(front.back())) front.remove_suffix(1);
  while (!back.empty() && !is_border(back.front())) back.remove_prefix(1);
  if (front.empty() && back.empty()) return {};
  std::string inside;
  for (const std::string_view w : words) {
    if (w.size() < front.size() + back.size() + 1) return {};  // 'a_b' and 'a_c_b' overlap
    if (!inside.empty()) inside += ',';
    inside += w.substr(front.size(), w.size() - front.size() - back.size());
  }
  return fmt::format("{}{{{}}}{}", front, inside, back);
}

std::string layer_label(std::string_view name) {
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('.', at), name.size());
    if (parse_u64(name.substr(at, end - at))) return std::string(name.substr(0, end));
    at = end + 1;
  }
  return "(none)";
}

std::string range_list(std::span<const std::uint64_t> sorted) {
  std::string text;
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t end = i;
    while (end + 1 < sorted.size() && sorted[end + 1] == sorted[end] + 1) ++end;
    if (!text.empty()) text += ',';
    text += fmt::format("{}", sorted[i]);
    if (end > i) text += fmt::format("{}{}", end == i + 1 ? "," : "-", sorted[end]);
    i = end + 1;
  }
  return text;
}

std::string_view type_label(const Model& model, const LogicalTensor& tensor) {
  if (tensor.count > 1 && tensor.scheme) return tensor.scheme->name;
  return name_of(model.part(tensor, 0).dtype);
}

std::vector<TreeRow> tree_of(const Model& model) {
  return Builder(model).build();
}

}  // namespace wtool
