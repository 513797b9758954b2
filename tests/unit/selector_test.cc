#include "lib/model/selector.h"

#include <deque>

#include "lib/base/error.h"
#include "tests/catch.h"

namespace wtool {
namespace {

// A small model's tensors: names as they are in the wild, shapes and types that differ.
struct Names {
  std::deque<std::string> names;
  std::deque<Shape> shapes;
  std::vector<LogicalTensor> tensors;

  void add(std::string name, DType dtype = DType::BF16, Shape shape = {4, 8}) {
    names.push_back(std::move(name));
    shapes.push_back(std::move(shape));
    LogicalTensor t;
    t.name = names.back();
    t.shape = shapes.back();
    t.dtype = dtype;
    tensors.push_back(t);
  }
};

Names llama() {
  Names m;
  m.add("model.embed_tokens.weight", DType::BF16, {32000, 4096});
  for (const char* layer : {"0", "1", "10"}) {
    const std::string l = std::string("model.layers.") + layer + ".";
    m.add(l + "input_layernorm.weight", DType::F32, {4096});
    m.add(l + "self_attn.q_proj.weight", DType::BF16, {4096, 4096});
    m.add(l + "self_attn.k_proj.weight", DType::BF16, {1024, 4096});
    m.add(l + "mlp.down_proj.weight", DType::BF16, {4096, 14336});
  }
  m.add("lm_head.weight", DType::BF16, {32000, 4096});
  m.add("scalar", DType::I64, {});
  return m;
}

std::vector<std::string> chosen(const Names& m, const std::string& pattern) {
  std::vector<std::string> out;
  const auto flags = matching(m.tensors, pattern);
  for (std::size_t i = 0; i < flags.size(); ++i)
    if (flags[i]) out.emplace_back(m.tensors[i].name);
  return out;
}

Error refused(const Names& m, const std::string& pattern) {
  try {
    matching(m.tensors, pattern);
  } catch (const Error& e) {
    return e;
  }
  FAIL("'" << pattern << "' was accepted");
  throw 0;
}

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("selector: an exact name selects only that tensor", "[selector]") {
  Names m = llama();
  m.add("a.lm_head.weight");
  m.add("odd[0-9]*{x}");
  CHECK(chosen(m, "lm_head.weight") == Strings{"lm_head.weight"});
  CHECK(chosen(m, "odd[0-9]*{x}") == Strings{"odd[0-9]*{x}"});
}

TEST_CASE("selector: a glob matches a run of whole parts", "[selector]") {
  const Names m = llama();
  CHECK(chosen(m, "layers.1.mlp.*") == Strings{"model.layers.1.mlp.down_proj.weight"});
  CHECK(chosen(m, "layers.1.mlp") == Strings{"model.layers.1.mlp.down_proj.weight"});
  CHECK(chosen(m, "layers.1.*").size() == 4);
  CHECK(chosen(m, "layers.1").size() == 4);
  CHECK(chosen(m, "{q,k}_proj").size() == 6);
  CHECK(chosen(m, "layers.{0,10}.self_attn.{q,k}_proj.weight").size() == 4);
  CHECK(chosen(m, "layers.[!1]*.{q_proj,down{_proj,}}").size() == 2);
  CHECK(chosen(m, "lm_?ead") == Strings{"lm_head.weight"});
  CHECK(chosen(m, "*norm*").size() == 3);
  CHECK(chosen(m, "*").size() == m.tensors.size());
}

TEST_CASE("selector: part of a part is no match", "[selector]") {
  const Names m = llama();
  CHECK(refused(m, "layer").fault() == Fault::Usage);
  CHECK(refused(m, "head.weight").fault() == Fault::Usage);
  CHECK(refused(m, "ayers.1.mlp.*").fault() == Fault::Usage);
}

TEST_CASE("selector: a star matches names that are not UTF-8", "[selector]") {
  Names m;
  m.add("bad\xff\xfename.weight");
  CHECK(chosen(m, "*.weight").size() == 1);
  CHECK(chosen(m, "bad\xff\xfename.weight").size() == 1);
}

TEST_CASE("selector: re: searches, and a bad expression says what is wrong with it", "[selector]") {
  const Names m = llama();
  CHECK(chosen(m, "re:layers\\.1\\d*\\.").size() == 8);
  CHECK(chosen(m, "re:^lm_").size() == 1);
  const Error e = refused(m, "re:layers.(");
  CHECK(e.fault() == Fault::Usage);
  CHECK(e.text().find("missing )") != std::string::npos);
}

TEST_CASE("selector: dtype, layer and shape select by property", "[selector]") {
  const Names m = llama();
  CHECK(chosen(m, "dtype:float32").size() == 3);
  CHECK(chosen(m, "dtype:I64") == Strings{"scalar"});
  CHECK(chosen(m, "layer:1").size() == 4);
  CHECK(chosen(m, "layer:1-10").size() == 8);
  CHECK(chosen(m, "layer:1-").size() == 8);
  CHECK(chosen(m, "shape:1d").size() == 3);
  CHECK(chosen(m, "shape:>=2d").size() == 11);
  CHECK(chosen(m, "shape:<1d") == Strings{"scalar"});
  CHECK(chosen(m, "shape:[]") == Strings{"scalar"});
  CHECK(chosen(m, "shape:[4096, *]").size() == 6);
  CHECK(chosen(m, "shape:[4096,4096]").size() == 3);
}

TEST_CASE("selector: malformed patterns are refused with the pattern's name", "[selector]") {
  const Names m = llama();
  for (const char* p :
       {"", "{a", "[a", "[z-a]", "layer:x", "layer:7-3", "layer:-", "shape:2", "shape:=>2d",
        "shape:[4096,x]", "dtype:bf17", "trailing\\", "{{{{{{{{{{{{{{{{{a}}}}}}}}}}}}}}}}}"}) {
    INFO(p);
    const Error e = refused(m, p);
    CHECK(e.fault() == Fault::Usage);
    CHECK(e.text().find(std::string("pattern '") + p) == 0);
  }
  CHECK(refused(m, "dtype:bf17").hint() == "did you mean 'bf16'?");
}

TEST_CASE("selector: a pattern without a match suggests the nearest name", "[selector]") {
  const Names m = llama();
  CHECK(refused(m, "lm_haed.weight").hint() == "did you mean 'lm_head.weight'?");
  CHECK(refused(m, "layers.1.mlp.dwn_proj").hint() == "did you mean 'layers.1.mlp.down_proj'?");
  CHECK(refused(m, "layers.2.*").text() == "no tensor matches 'layers.2.*'");
  CHECK(matching(m.tensors, "nothing_like_it", true) == std::vector<bool>(m.tensors.size()));
}

TEST_CASE("selector: select is the union of what is included minus what is excluded",
          "[selector]") {
  const Names m = llama();
  const Strings in{"layer:0", "lm_head.weight"}, ex{"*norm*"};
  CHECK(select(m.tensors, in, ex) == std::vector<std::uint32_t>{2, 3, 4, 13});
  CHECK(select(m.tensors, {}, {}).size() == m.tensors.size());
}

TEST_CASE("selector: the layer is the first number that is a whole part", "[selector]") {
  CHECK(layer_of("model.layers.12.mlp.3.weight") == 12);
  CHECK(layer_of("blk.0.attn") == 0);
  CHECK(layer_of("h2.conv1d.weight") == std::nullopt);
  CHECK(layer_of("7") == 7);
  CHECK(layer_of("") == std::nullopt);
  CHECK(layer_of("a.99999999999999999999999.b") == std::nullopt);
}

TEST_CASE("selector: the last matching type rule wins", "[selector]") {
  const Names m = llama();
  CHECK(parse_type_rule("shape:=2d=q8_0").pattern == "shape:=2d");
  CHECK(parse_type_rule("a=b").type == "b");
  CHECK_THROWS_AS(parse_type_rule("a"), Error);
  CHECK_THROWS_AS(parse_type_rule("=b"), Error);
  CHECK_THROWS_AS(parse_type_rule("a="), Error);
  const std::vector<TypeRule> rules{{"*", "int8"}, {"*norm*", "f32"}, {"layer:10", "bf16"}};
  const auto last = last_matching(m.tensors, rules);
  CHECK(last[0] == 0);
  CHECK(last[1] == 1);
  CHECK(last[9] == 2);
}

TEST_CASE("selector: a renamer searches and replaces, in the order of its rules", "[selector]") {
  const Strings rules{R"(^model\.=)", R"(^layers\.(\d+)\.=blk.\1.)", "never=x"};
  const Renamer rename(rules);
  CHECK(rename("model.layers.12.q") == "blk.12.q");
  CHECK(rename("other") == "other");
  CHECK(rename.unused() == Strings{"never=x"});
  for (const char* bad : {"a", "=a", "(=a", R"(a=\1)"}) {
    const Strings one{bad};
    CHECK_THROWS_AS(Renamer(one), Error);
  }
  const Strings all{".*="};
  CHECK_THROWS_AS(Renamer(all)("gone"), Error);
}

TEST_CASE("selector: a long list of names takes one look each", "[selector]") {
  Names m;
  Strings list;
  for (int i = 0; i < 60'000; ++i) m.add("model.layers." + std::to_string(i) + ".w");
  for (int i = 59'999; i >= 0; i -= 2) list.push_back("model.layers." + std::to_string(i) + ".w");
  const auto got = select(m.tensors, list, {});  // quadratic would be 1.8e9 comparisons
  REQUIRE(got.size() == 30'000);
  CHECK(got.front() == 1);
  CHECK(got.back() == 59'999);
}

}  // namespace wtool
