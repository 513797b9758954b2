#include "cli/tree.h"

#include "tests/catch.h"

using namespace wtool;

namespace {

std::string merged(std::initializer_list<std::string_view> words) {
  return merged_name(std::vector<std::string_view>(words));
}
std::string ranges(std::initializer_list<std::uint64_t> numbers) {
  return range_list(std::vector<std::uint64_t>(numbers));
}

// A model in memory: every tensor plain f32.
struct Fixture {
  Model model;
  Diagnostics faults;
  std::uint64_t at = 0;

  explicit Fixture(const std::vector<std::pair<std::string, Shape>>& tensors) {
    Buffer bytes(1 << 16);
    model.catalog.add_source(from_memory("m", std::move(bytes)));
    for (const auto& [name, shape] : tensors) {
      TensorEntry e;
      e.name = model.catalog.arena().text(name);
      e.shape = model.catalog.arena().copy(ShapeView(shape));
      e.offset = at;
      e.bytes = 4 * element_count(shape).value();
      at += e.bytes;
      model.catalog.add(e, 0, faults);
      const auto index = static_cast<std::uint32_t>(model.parts.size());
      model.parts.push_back(index);
      model.tensors.push_back(
          {.name = e.name, .scheme = nullptr, .shape = e.shape, .first = index});
    }
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const TreeRow& r : tree_of(model))
      all.push_back(std::string(2 * r.depth, ' ') + (r.is_fold ? "▾ " : "") + r.name);
    return all;
  }
};

}  // namespace

TEST_CASE("names merge where they share whole words", "[tree]") {
  CHECK(merged({"q_proj", "k_proj", "v_proj"}) == "{q,k,v}_proj");
  CHECK(merged({"attn_q", "attn_output"}) == "attn_{q,output}");
  CHECK(merged({"input_layernorm", "post_attention_layernorm"}) ==
        "{input,post_attention}_layernorm");
  CHECK(merged({"lm_head", "embed_tokens"}).empty());
  CHECK(merged({"a_b", "a_c_b"}).empty());  // "a_" and "_b" overlap in the first
}

TEST_CASE("layer numbers read as ranges", "[tree]") {
  CHECK(ranges({0, 1, 2, 3}) == "0-3");
  CHECK(ranges({0, 1, 5, 7, 8, 9}) == "0,1,5,7-9");
  CHECK(ranges({4}) == "4");
}

TEST_CASE("identical layers fold, in natural order", "[tree]") {
  std::vector<std::pair<std::string, Shape>> tensors{{"lm_head.weight", {8, 4}},
                                                     {"model.embed.weight", {8, 4}}};
  for (int i = 0; i < 12; ++i)
    for (const char* w : {"q_proj", "k_proj"})
      tensors.push_back({"model.layers." + std::to_string(i) + ".attn." + w + ".weight", {4, 4}});
  CHECK(Fixture(tensors).names() ==
        std::vector<std::string>{"embed.weight", "▾ layers ×12 (identical)",
                                 "  attn.{k,q}_proj.weight", "lm_head.weight"});
}

TEST_CASE("a layer that differs stands by itself", "[tree]") {
  std::vector<std::pair<std::string, Shape>> tensors;
  for (int i = 0; i < 11; ++i) {
    tensors.push_back({"blk." + std::to_string(i) + ".a.weight", {4}});
    tensors.push_back({"blk." + std::to_string(i) + ".b.weight", {i == 2 ? 5u : 3u}});
  }
  CHECK(Fixture(tensors).names() == std::vector<std::string>{"▾ blk 0,1,3-10 ×10 (identical)",
                                                             "  a.weight", "  b.weight", "▾ blk 2",
                                                             "  a.weight", "  b.weight"});
}

TEST_CASE("experts fold within layers", "[tree]") {
  std::vector<std::pair<std::string, Shape>> tensors;
  for (int i = 0; i < 2; ++i) {
    const std::string layer = "layers." + std::to_string(i) + ".";
    tensors.push_back({layer + "norm.weight", {4}});
    for (int e = 0; e < 4; ++e)
      tensors.push_back({layer + "experts." + std::to_string(e) + ".weight", {4, 4}});
  }
  CHECK(Fixture(tensors).names() == std::vector<std::string>{"▾ layers ×2 (identical)",
                                                             "  experts.{0-3}.weight",
                                                             "  norm.weight"});
}
