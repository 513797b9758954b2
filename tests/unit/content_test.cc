#include "lib/trust/content.h"

#include <algorithm>
#include <fstream>

#include <nlohmann/json.hpp>

#include "lib/model/tensor_source.h"
#include "tests/catch.h"

namespace wtool {
namespace {

// Made by tests/interop/content.py, from the definition.
nlohmann::json vectors() {
  std::ifstream in(WTOOL_SOURCE_DIR "/testdata/content/vectors.json");
  REQUIRE(in);
  return nlohmann::json::parse(in);
}

std::string unhexed(const std::string& hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

struct Owned {
  std::string name, dtype;
  Shape shape;
  Sha256 data;
  operator ContentTensor() const { return {name, dtype, shape, data}; }
};
std::vector<Owned> tensors_of(const nlohmann::json& listed) {
  std::vector<Owned> out;
  for (const auto& t : listed)
    out.push_back({unhexed(t["name_hex"]), t["dtype"], t["shape"].get<Shape>(),
                   sha256(as_bytes(unhexed(t["data_hex"])))});
  return out;
}
Sha256 root_of(const std::vector<Owned>& tensors) {
  const std::vector<ContentTensor> views(tensors.begin(), tensors.end());
  return content_root(views);
}

MetaValue value_of(const std::string& type, const nlohmann::json& v) {
  if (type == "u8") return v.get<std::uint8_t>();
  if (type == "i8") return v.get<std::int8_t>();
  if (type == "u16") return v.get<std::uint16_t>();
  if (type == "i16") return v.get<std::int16_t>();
  if (type == "u32") return v.get<std::uint32_t>();
  if (type == "i32") return v.get<std::int32_t>();
  if (type == "u64") return v.get<std::uint64_t>();
  if (type == "i64") return v.get<std::int64_t>();
  if (type == "f32") return v.get<float>();
  if (type == "f64") return v.get<double>();
  if (type == "bool") return v.is_boolean() ? v.get<bool>() : v.get<int>() != 0;
  if (type == "str") return v.get<std::string>();
  REQUIRE(type == "arr");
  std::vector<MetaValue> values;
  for (const auto& x : v[1]) values.push_back(value_of(v[0], x));
  return array_of(*parse_meta_type(v[0].get<std::string>()), values);
}

// Six f32 of 1 to 6 as [3, 2], in the byte and column order of `entry`.
Catalog catalog_of(const std::vector<float>& stored, bool big_endian, bool column_major,
                   Shape shape = {3, 2}) {
  Buffer bytes;
  for (const float v : stored) append(bytes, v);
  if (big_endian) swap_endian(DType::F32, bytes);
  Catalog catalog;
  const std::uint32_t source = catalog.add_source(from_memory("m", std::move(bytes)));
  Diagnostics faults;
  catalog.add({.name = "t",
               .shape = catalog.arena().copy(ShapeView(shape)),
               .bytes = stored.size() * 4,
               .source = source,
               .big_endian = big_endian,
               .column_major = column_major},
              0, faults);
  return catalog;
}
Extent canonical(const Catalog& catalog) {
  return canonical_bytes(stored(catalog, catalog.entries()[0]), "m");
}

}  // namespace

TEST_CASE("content: leaves and roots are those of the test vectors", "[content]") {
  const auto all = vectors()["content"];
  REQUIRE(all.size() >= 5);
  for (const auto& v : all) {
    std::vector<Owned> tensors = tensors_of(v["tensors"]);
    for (std::size_t i = 0; i < tensors.size(); ++i)
      CHECK(content_leaf(tensors[i]).hex() == v["leaves"][i].get<std::string>());
    CHECK(content_text(root_of(tensors)) == v["root"].get<std::string>());
    std::ranges::reverse(tensors);  // in any order
    CHECK(content_text(root_of(tensors)) == v["root"].get<std::string>());
  }
}

TEST_CASE("content: metadata digests are those of the test vectors", "[content]") {
  const auto all = vectors();
  for (const auto& v : all.at("metadata")) {
    Metadata meta;
    for (const auto& e : v["entries"]) meta.append(e[0], value_of(e[1], e[2]));
    CHECK(metadata_digest(meta).hex() == v["sha256"].get<std::string>());
  }
}

TEST_CASE("content: whatever a tensor is makes another root", "[content]") {
  const Owned good{"t", "f32", {2, 3}, sha256(as_bytes("x"))};
  const Sha256 root = root_of({good});
  for (const Owned& other : std::vector<Owned>{{"u", "f32", {2, 3}, good.data},
                                               {"", "f32", {2, 3}, good.data},
                                               {"t", "i32", {2, 3}, good.data},
                                               {"tf", "32", {2, 3}, good.data},
                                               {"t", "f32", {3, 2}, good.data},
                                               {"t", "f32", {6}, good.data},
                                               {"t", "f32", {1, 2, 3}, good.data},
                                               {"t", "f32", {}, good.data},
                                               {"t", "f32", {2, 3}, sha256(as_bytes("y"))}})
    CHECK(root_of({other}) != root);
  CHECK(root_of({good, {"u", "f32", {}, good.data}}) != root);
  CHECK(root_of({}) != root);
}

TEST_CASE("content: a root is written with its version, and read with or without it", "[content]") {
  const std::string hex(64, 'a');
  CHECK(content_text(*parse_content(hex)) == "content/1:" + hex);
  CHECK(parse_content("content/1:" + hex) == parse_content(hex));
  CHECK(!parse_content("content/2:" + hex));
  CHECK(!parse_content("content/1:" + hex + "a"));
  CHECK(!parse_content(""));
}

TEST_CASE("content: byte and column order make no difference to a tensor's bytes", "[content]") {
  const std::vector<float> rows{1, 2, 3, 4, 5, 6}, columns{1, 3, 5, 2, 4, 6};
  const Catalog plain = catalog_of(rows, false, false);
  const Buffer want = read_all(canonical(plain));
  CHECK(canonical(plain).source == plain.sources()[0]);  // as it lies
  for (const bool big : {false, true})
    for (const bool column_major : {false, true}) {
      const Catalog other = catalog_of(column_major ? columns : rows, big, column_major);
      CHECK(read_all(canonical(other)) == want);
    }
}

TEST_CASE("content: a tensor's bytes are the same in pieces of any size", "[content]") {
  std::vector<float> values(3 * 4 * 5);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const Catalog catalog = catalog_of(values, true, true, {3, 4, 5});
  const Extent all = canonical(catalog);
  const Buffer want = read_all(all);
  REQUIRE(want.size() == all.bytes);
  for (const std::size_t piece : {1u, 3u, 7u, 20u, 33u}) {
    Buffer found(want.size());
    for (std::size_t at = 0; at < found.size(); at += piece)
      all.source->read(at, MutableBytes(found).subspan(at, std::min(piece, found.size() - at)));
    CHECK(found == want);
  }
  Buffer beyond(2);
  CHECK_THROWS_AS(all.source->read(all.bytes - 1, beyond), Error);
}

}  // namespace wtool
