#include <map>

#include <zstd.h>

#include "tests/unit/compressed_files.h"

namespace wtool {
namespace {

// All frames one after another, by the library alone.
Buffer zstd_d(Bytes file) {
  Buffer out(std::size_t{32} << 20);
  const std::size_t n = ZSTD_decompress(out.data(), out.size(), file.data(), file.size());
  INFO(ZSTD_getErrorName(n));
  REQUIRE_FALSE(ZSTD_isError(n));
  out.resize(n);
  return out;
}

}  // namespace

TEST_CASE("compressed: a model in either form is read as the original", "[compressed]") {
  const Buffer file = safetensors(a_model());
  for (const PackForm form : {PackForm::Plain, PackForm::Planes}) {
    const Buffer out = compressed(opened(file), form);
    CHECK(out.size() < file.size() * 9 / 10);
    const auto read_as = open(out);
    REQUIRE(read_as->size() == file.size());
    REQUIRE(all_of(*read_as) == file);
    CHECK(read_as->index().form == form);
    CHECK(read_as->index().name == "m.safetensors");
    CHECK(read_as->index().digest.hex() == digest_of(file));
    // And as a model: the same tensors.
    const Opened model = opened(unwrap_compressed(from_memory("m.zst", out)));
    CHECK(model.catalog.format == "safetensors");
    REQUIRE(model.catalog.entries().size() == 7);
    for (const Part& p : a_model())
      CHECK(read_all(model.catalog.extent(*model.catalog.find(p.name))) == p.bytes);
  }
}

TEST_CASE("compressed: what zstd makes of it is the original, or a safetensors file of planes",
          "[compressed]") {
  const Buffer file = safetensors(a_model());
  CHECK(zstd_d(compressed(opened(file), PackForm::Plain)) == file);

  const Opened planes = opened(zstd_d(compressed(opened(file), PackForm::Planes)));
  std::vector<std::string> names;
  for (const TensorEntry& t : planes.catalog.entries()) {
    names.emplace_back(t.name);
    CHECK(t.dtype == DType::U8);
    CHECK(t.shape.size() == 1);
  }
  CHECK(std::ranges::find(names, "a#bf16") != names.end());
  CHECK(std::ranges::find(names, "b#f32") != names.end());
  CHECK(std::ranges::find(names, "d#bytes") != names.end());
  CHECK(std::ranges::find(names, "wtool.bytes.0") != names.end());
  CHECK(names.size() == 6);  // none of what has no bytes, or is there twice
  CHECK(to_text(*planes.catalog.meta.find("wtool.bytes")) == std::to_string(file.size()));
  CHECK(to_text(*planes.catalog.meta.find("wtool.sha256")) == digest_of(file));
  // Signs and upper mantissas come first: of the first weight, by hand.
  const Buffer first = weights(1, 2, 1);
  const Buffer stored = read_all(planes.catalog.extent(*planes.catalog.find("a#bf16")));
  CHECK(stored[0] == ((first[1] & std::byte{0x80}) | (first[0] & std::byte{0x7F})));
}

TEST_CASE("compressed: the bytes do not depend on threads", "[compressed]") {
  const Opened model = opened(safetensors(a_model())), base = opened(safetensors(its_base()));
  // In parentheses: megabytes that differ are not for printing.
  for (const PackForm form : {PackForm::Plain, PackForm::Planes}) {
    const Buffer one = compressed(model, form);
    CHECK((compressed(model, form, 2) == one));
    CHECK((compressed(model, form, 7) == one));
  }
  const Buffer one = compressed(model, PackForm::Planes, 1, &base.catalog);
  CHECK((compressed(model, PackForm::Planes, 2, &base.catalog) == one));
  CHECK((compressed(model, PackForm::Planes, 7, &base.catalog) == one));
}

TEST_CASE("compressed: tensors that are there twice are stored once", "[compressed]") {
  const Buffer file = safetensors(a_model());
  const auto out = open(compressed(opened(file), PackForm::Planes));
  std::map<std::string, const Piece*> pieces;
  for (const Piece& p : out->index().pieces) pieces[p.tensor.value_or("")] = &p;
  REQUIRE(pieces["e"]->same_as);
  CHECK(out->index().pieces[*pieces["e"]->same_as].tensor == "a");
  CHECK_FALSE(pieces["e"]->has_frames());
}

TEST_CASE("compressed: not more is shared than readers accept", "[compressed]") {
  // Equal tensors beyond what readers take for honest are stored again.
  std::vector<Part> parts;
  for (int i = 0; i < 70; ++i)
    parts.push_back({fmt::format("t{}", i), "U8", "[262144]", Buffer(262'144)});
  const Buffer same = safetensors(parts);
  const auto once = open(compressed(opened(same), PackForm::Planes));
  CHECK(all_of(*once) == same);
  CHECK(std::ranges::count_if(once->index().pieces, &Piece::has_frames) == 3);  // the header, two
}

TEST_CASE("compressed: every stretch of it reads as that of the original", "[compressed]") {
  // Small pieces of all kinds, and every offset and length there is.
  const Buffer plain = noise(10), third = noise(5, 3);
  // 1, -2, 0 and a byte, as bf16 (tests of pack_codec); blocks of three: two columns and one.
  const Buffer floats = bytes({0x80, 0x3F, 0x00, 0xC0, 0, 0, 0xAB});
  const Buffer blocks = bytes({1, 2, 3, 11, 12, 13, 21});
  Frames frames;
  frames.add(plain);
  frames.add(bytes({0x00, 0x80, 0x00})).add(bytes({0x01, 0x0C})).add(bytes({128, 0, 0xAB}));
  frames.add(bytes({1, 2, 11, 12})).add(bytes({3, 13, 21})).add(third);
  const std::string pieces = fmt::format(
      R"({{"offset":0,"bytes":10,"codec":"bytes","first_frame":0}},)"
      R"({{"offset":10,"bytes":7,{},"codec":"bf16","first_frame":1}},)"
      R"({{"offset":17,"bytes":7,{},"codec":"columns","block":3,"planes":[[[0,2]],[[2,1]]],)"
      R"("first_frame":4}},)"
      R"({{"offset":24,"bytes":6,{},"same_as":"floats"}},)"
      R"({{"offset":30,"bytes":5,"codec":"bytes","first_frame":6}})",
      tensor_members("floats", 6), tensor_members("blocks", 7), tensor_members("again", 6));
  Buffer original = plain;
  append(original, Bytes(floats));
  append(original, Bytes(blocks));
  append(original, Bytes(floats).first(6));
  append(original, Bytes(third));
  const auto file = open_compressed(frames.file(index_text(pieces, 35)));
  REQUIRE(file);
  REQUIRE(file->size() == 35);
  for (std::size_t at = 0; at <= 35; ++at)
    for (std::size_t n = 0; at + n <= 35; ++n) REQUIRE(read(*file, at, n) == part(original, at, n));
  for (const auto& [at, n] : {std::pair{0ull, 36ull},
                              {35ull, 1ull},
                              {36ull, 0ull},
                              {~0ull, 1ull},
                              {~0ull, 0ull},
                              {1ull << 63, 1ull}})
    CHECK_THROWS_AS(read(*file, at, n), Error);
}

TEST_CASE("compressed: stretches across chunks read as those of the original", "[compressed]") {
  const Buffer file = safetensors(a_model());
  for (const PackForm form : {PackForm::Plain, PackForm::Planes}) {
    const auto out = open(compressed(opened(file), form));
    std::mt19937 random(7);
    std::vector<std::uint64_t> places{0, file.size()};
    for (const Piece& p : out->index().pieces)
      for (std::uint64_t chunk = 0; chunk < p.chunks(); ++chunk)
        places.push_back(p.offset + chunk * p.codec.chunk_bytes());
    for (const std::uint64_t place : places)
      for (int i = 0; i < 12; ++i) {
        const std::uint64_t before = random() % 100, behind = random() % (i < 10 ? 100 : 1500000);
        const std::uint64_t at = place - std::min(place, before);
        const std::uint64_t n = std::min(file.size() - at, before + behind);
        REQUIRE(read(*out, at, n) == part(file, at, n));
      }
  }
}

TEST_CASE("compressed: a hundred thousand pieces of a byte are opened and read", "[compressed]") {
  Frames frames;
  std::string pieces;
  const Buffer original = noise(100'000);
  for (std::size_t i = 0; i < original.size(); ++i) {
    frames.add(Bytes(original).subspan(i, 1));
    pieces += fmt::format(R"({}{{"offset":{},"bytes":1,"codec":"bytes","first_frame":{}}})",
                          i == 0 ? "" : ",", i, i);
  }
  const auto file = open_compressed(frames.file(index_text(pieces, original.size())));
  REQUIRE(file);
  CHECK(all_of(*file) == original);
  CHECK(read(*file, 54321, 10) == part(original, 54321, 10));
}

TEST_CASE("compressed: an original without bytes is one too", "[compressed]") {
  const auto file = open_compressed(Frames().file(index_text("", 0)));
  REQUIRE(file);
  CHECK(file->size() == 0);
  CHECK(all_of(*file).empty());
  CHECK_THROWS_AS(read(*file, 0, 1), Error);
}

}  // namespace wtool
