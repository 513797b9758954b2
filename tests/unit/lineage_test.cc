#include "lib/model/lineage.h"

#include "tests/catch.h"

using namespace wtool;

namespace {

Lineage example() {
  return {.version = "1.2.3",
          .operation = "quantize",
          .recipe = R"({"int8":true})",
          .sources = {{"a.safetensors", 10, std::string(64, 'a'), 0},
                      {"arrays", 20, std::string(64, 'b'), 7}}};
}

std::string refusal(const Metadata& meta) {
  try {
    lineage_of(meta);
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::BadFile);
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a lineage is read back as it was set, as text or as numbers", "[lineage]") {
  for (const bool typed : {false, true}) {
    Metadata meta;
    meta.set("general.name", std::string("x"));
    set_lineage(meta, example(), typed);
    const auto found = lineage_of(meta);
    REQUIRE(found);
    CHECK(found->version == "1.2.3");
    CHECK(found->operation == "quantize");
    CHECK(found->recipe == R"({"int8":true})");
    REQUIRE(found->sources.size() == 2);
    CHECK(found->sources[0].name == "a.safetensors");
    CHECK(found->sources[0].bytes == 10);
    CHECK(found->sources[0].files == 0);
    CHECK(found->sources[1].sha256 == std::string(64, 'b'));
    CHECK(found->sources[1].files == 7);
    CHECK(type_of(*meta.find("wtool.source.0.size")) == (typed ? MetaType::U64 : MetaType::String));
    CHECK(meta.text("general.name") == "x");
  }
}

TEST_CASE("a lineage replaces the whole one that was there", "[lineage]") {
  Metadata meta;
  set_lineage(meta, example(), true);
  Lineage next = example();
  next.sources.resize(1);
  set_lineage(meta, next, true);
  CHECK(meta.find("wtool.source.1.name") == nullptr);
  CHECK(meta.find("wtool.source.1.files") == nullptr);
  next.sources[0].sha256 = std::string(64, 'c');
  fill_lineage(meta, next);
  CHECK(lineage_of(meta)->sources[0].sha256 == std::string(64, 'c'));
  CHECK(erase_lineage(meta));
  CHECK(meta.empty());
  CHECK_FALSE(erase_lineage(meta));
  CHECK_FALSE(lineage_of(meta));
}

TEST_CASE("other keys of ours are no lineage", "[lineage]") {
  Metadata meta;
  meta.set("wtool.quantize", std::string("wtool 1.0: int8"));
  CHECK_FALSE(lineage_of(meta));
  CHECK_FALSE(erase_lineage(meta));
}

TEST_CASE("a lineage that makes no sense is refused by the key", "[lineage]") {
  const auto with = [](std::string_view key, MetaValue value) {
    Metadata meta;
    set_lineage(meta, example(), false);
    meta.set(key, std::move(value));
    return refusal(meta);
  };
  CHECK(with("wtool.source.count", std::string("x")).find("wtool.source.count") !=
        std::string::npos);
  CHECK(with("wtool.source.count", std::uint64_t{10'001}).find("10001") != std::string::npos);
  CHECK(with("wtool.source.count", std::uint64_t{3}).find("wtool.source.2.name") !=
        std::string::npos);
  CHECK(with("wtool.source.0.name", std::string()).find("wtool.source.0.name") !=
        std::string::npos);
  CHECK(with("wtool.source.1.size", std::string("-1")).find("wtool.source.1.size") !=
        std::string::npos);
  for (const std::string& digest :
       {std::string(63, 'a'), std::string(65, 'a'), std::string(64, 'A'), std::string(64, 'g')})
    CHECK(with("wtool.source.1.sha256", digest).find("wtool.source.1.sha256") != std::string::npos);
  Metadata none;
  none.set("wtool.recipe", std::string("{}"));
  CHECK(refusal(none).find("wtool.source.count") != std::string::npos);
}
