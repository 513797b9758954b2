#include "lib/trust/content.h"

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

namespace wtool {
namespace {

constexpr std::string_view kVersion = "wtool.content/1", kMetaVersion = "wtool.metadata/1";
// No leaf can be taken for a node, nor a node for a root (RFC 6962, 2.1).
enum class Domain : std::uint8_t { Leaf = 0, Node = 1, Root = 2 };

// What is hashed: numbers as 8 bytes, little-endian; texts with their length before them.
class Hasher {
 public:
  explicit Hasher(Domain domain) { bytes(std::array{static_cast<std::byte>(domain)}); }
  explicit Hasher(std::string_view version) { text(version); }

  void number(std::uint64_t n) {
    std::array<std::byte, 8> out;
    for (std::byte& b : out) {
      b = static_cast<std::byte>(n & 0xFF);
      n >>= 8;
    }
    bytes(out);
  }
  void text(std::string_view s) {
    number(s.size());
    bytes(as_bytes(s));
  }
  void bytes(Bytes b) { stream_.update(b); }
  void digest(const Sha256& d) { bytes(d.bytes); }
  Sha256 finish() { return stream_.finish(); }

 private:
  Sha256Stream stream_;
};

// RFC 6962's tree: the left side is the largest power of two below n.
Sha256 tree(std::span<const Sha256> leaves) {
  if (leaves.empty()) return sha256({});
  if (leaves.size() == 1) return leaves[0];
  const std::size_t left = std::bit_ceil(leaves.size()) / 2;
  Hasher h(Domain::Node);
  h.digest(tree(leaves.first(left)));
  h.digest(tree(leaves.subspan(left)));
  return h.finish();
}

template <class T>
void plain(Hasher& h, T v) {
  std::array<std::byte, sizeof v> out;
  store(out, v);
  h.bytes(out);
}

void value(Hasher& h, const MetaValue& v) {
  std::visit(
      [&](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, std::string>) {
          h.text(x);
        } else if constexpr (std::is_same_v<T, MetaArray>) {
          h.text(name_of(x.of));
          h.number(x.count);
          for_each(x, [&](const MetaValue& element) {
            value(h, element);
            return true;
          });
        } else if constexpr (std::is_same_v<T, bool>) {
          plain(h, static_cast<std::uint8_t>(x));
        } else {
          plain(h, x);
        }
      },
      v);
}

}  // namespace

Sha256 content_leaf(const ContentTensor& t) {
  Hasher h(Domain::Leaf);
  h.text(kVersion);
  h.text(t.name);
  h.text(t.dtype);
  h.number(t.shape.size());
  for (const std::uint64_t d : t.shape) h.number(d);
  h.digest(t.data);
  return h.finish();
}

Sha256 content_root(std::span<const ContentTensor> tensors) {
  std::vector<const ContentTensor*> order;
  for (const ContentTensor& t : tensors) order.push_back(&t);
  std::ranges::sort(order, {}, [](const ContentTensor* t) { return t->name; });
  std::vector<Sha256> leaves;
  leaves.reserve(order.size());
  for (const ContentTensor* t : order) leaves.push_back(content_leaf(*t));
  Hasher h(Domain::Root);
  h.text(kVersion);
  h.number(leaves.size());
  h.digest(tree(leaves));
  return h.finish();
}

Sha256 metadata_digest(const Metadata& meta) {
  std::vector<const MetaEntry*> order;
  for (const MetaEntry& e : meta) order.push_back(&e);
  std::ranges::sort(order, {}, [](const MetaEntry* e) { return std::string_view(e->key); });
  Hasher h(kMetaVersion);
  h.number(order.size());
  for (const MetaEntry* e : order) {
    h.text(e->key);
    h.text(name_of(type_of(e->value)));
    value(h, e->value);
  }
  return h.finish();
}

std::string content_text(const Sha256& root) {
  return std::string(kContentPrefix) + root.hex();
}

std::optional<Sha256> parse_content(std::string_view text) noexcept {
  if (text.starts_with(kContentPrefix)) text.remove_prefix(kContentPrefix.size());
  return parse_sha256(text);
}

}  // namespace wtool
