#include "formats/compressed.h"

#include <map>
#include <random>

#include <fmt/format.h>
#include <zstd.h>

#include "formats/compressed_write.h"
#include "formats/registry.h"
#include "lib/base/error.h"
#include "lib/engine/execute.h"
#include "tests/catch.h"
#include "tests/unit/temp_folder.h"

namespace wtool {
namespace {

// ---- Files by hand

const std::string kHash(64, '0');

std::string index_text(std::string_view pieces, std::uint64_t bytes,
                       std::string_view members = {}) {
  return fmt::format(R"({{"schema":"wtool.compressed/1","form":"plain",)"
                     R"("source":{{"name":"m","bytes":{},"sha256":"{}"}}{},"pieces":[{}]}})",
                     bytes, kHash, members, pieces);
}
std::string tensor_members(std::string_view name, std::uint64_t bytes) {
  return fmt::format(R"("tensor":"{}","dtype":"u8","shape":[{}],"tensor_bytes":{},"sha256":"{}")",
                     name, bytes, bytes, kHash);
}
const std::string kBase = fmt::format(R"(,"base":[{{"name":"b","bytes":9,"sha256":"{}"}}])", kHash);

class Frames {
 public:
  Frames& add(Bytes content, Coder coder = Coder::Raw) {
    sizes_.push_back(writer_.append(coder, content, file_));
    return *this;
  }
  Frames& raw(Bytes stored, FrameSize size) {
    append(file_, stored);
    sizes_.push_back(size);
    return *this;
  }
  SourcePtr file(std::string_view index) const {
    Buffer out = file_;
    append_skippable(7, as_bytes(index), out);
    std::vector<FrameSize> sizes = sizes_;
    sizes.push_back({static_cast<std::uint32_t>(out.size() - file_.size()), 0, 0});
    append_seek_table(sizes, out);
    return from_memory("file.zst", std::move(out));
  }

 private:
  FrameWriter writer_;
  Buffer file_;
  std::vector<FrameSize> sizes_;
};

Buffer bytes(std::initializer_list<unsigned> values) {
  Buffer out;
  for (const unsigned v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}
Buffer noise(std::size_t n, unsigned seed = 1) {
  std::mt19937 random(seed);
  Buffer out(n);
  for (std::byte& b : out) b = static_cast<std::byte>(random() & 0xFF);
  return out;
}
Buffer read(const Source& file, std::uint64_t at, std::uint64_t n) {
  Buffer out(static_cast<std::size_t>(n));
  file.read(at, out);
  return out;
}
Buffer all_of(const Source& file) {
  return read(file, 0, file.size());
}
Buffer part(const Buffer& of, std::size_t at, std::size_t n) {
  return {of.begin() + static_cast<std::ptrdiff_t>(at),
          of.begin() + static_cast<std::ptrdiff_t>(at + n)};
}

void check_index(const std::string& text, std::size_t frames, const std::string& why,
                 Fault fault = Fault::BadFile) {
  INFO(text.substr(0, 300));
  try {
    parse_pack_index(text, frames);
    FAIL("accepted, though it should say: " << why);
  } catch (const Error& e) {
    CHECK(e.fault() == fault);
    CHECK_THAT(e.what(), Catch::Contains(why));
  }
}
void check_pieces(const std::string& pieces, const std::string& why, std::uint64_t bytes = 10,
                  std::string_view members = {}) {
  check_index(index_text(pieces, bytes, members), 3, why);
}
void check_file(const SourcePtr& file, const std::string& why, Fault fault = Fault::BadFile) {
  try {
    open_compressed(file);
    FAIL("accepted, though it should say: " << why);
  } catch (const Error& e) {
    CHECK(e.fault() == fault);
    CHECK_THAT(e.what(), Catch::Contains(why));
  }
}
void check_read(const SourcePtr& file, const std::string& why, Fault fault = Fault::BadFile) {
  const auto opened = open_compressed(file);
  REQUIRE(opened);
  try {
    all_of(*opened);
    FAIL("read, though it should say: " << why);
  } catch (const Error& e) {
    CHECK(e.fault() == fault);
    CHECK_THAT(e.what(), Catch::Contains(why));
  }
}

// ---- A model, and what becomes of it

Buffer weights(std::size_t n, std::size_t width, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02F);
  Buffer out;
  for (std::size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(normal(random));
    if (width == 2)
      append(out, static_cast<std::uint16_t>(bits >> 16));
    else
      append(out, bits);
  }
  return out;
}
struct Part {
  std::string name, dtype, shape;
  Buffer bytes;
};
Buffer safetensors(const std::vector<Part>& parts) {
  std::string header = "{";
  Buffer data;
  for (const Part& p : parts) {
    header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})",
                          header.size() == 1 ? "" : ",", p.name, p.dtype, p.shape, data.size(),
                          data.size() + p.bytes.size());
    append(data, Bytes(p.bytes));
  }
  header += '}';
  Buffer out;
  append(out, std::uint64_t{header.size()});
  append(out, as_bytes(header));
  append(out, Bytes(data));
  return out;
}
// Several chunks, types, a tensor that is there twice, one without bytes.
const std::vector<Part>& a_model() {
  static const std::vector<Part> model{{"a", "BF16", "[600000]", weights(600000, 2, 1)},
                                       {"b", "F32", "[300001]", weights(300001, 4, 2)},
                                       {"c", "F16", "[1000]", noise(2000, 3)},
                                       {"none", "F32", "[0]", {}},
                                       {"d", "I8", "[77]", noise(77, 4)},
                                       {"e", "BF16", "[600000]", weights(600000, 2, 1)},
                                       {"f", "U8", "[5000]", Buffer(5000, std::byte{9})}};
  return model;
}
// Near the model, as what was trained further.
std::vector<Part> its_base() {
  std::vector<Part> out = a_model();
  for (std::size_t i = 0; i + 1 < out[0].bytes.size(); i += 8) out[0].bytes[i] ^= std::byte{1};
  out.erase(out.begin() + 2);
  return out;
}

std::string digest_of(const Buffer& file) {
  Sha256Stream digest;
  digest.update(file);
  return digest.finish().hex();
}
struct Opened {
  SourcePtr file;
  Catalog catalog;
};
Opened opened(SourcePtr file) {
  Diagnostics faults;
  const Registry registry = all_formats();
  Catalog catalog = read_catalog(file, registry, faults);
  return {std::move(file), std::move(catalog)};
}
Opened opened(const Buffer& file, const std::string& name = "m.safetensors") {
  return opened(from_memory(name, file));
}
// As the command does it, but for the name.
Buffer compressed(const Opened& model, PackForm form, unsigned threads = 1,
                  const Catalog* base = nullptr) {
  const TempFolder folder;
  RunOptions options;
  options.threads = threads;
  std::vector<BaseFile> files;
  if (base) files.push_back({"base", 1, sha256({})});
  Packing packing(model.file, model.catalog, base, std::move(files));
  packing.sample(options);
  packing.choose(form);
  const std::string path = folder / "out";
  OutputSet outputs(path, OutputSet::Kind::File, OutputSet::Existing::Refuse);
  Plan plan;
  packing.add_to(plan, path);
  execute(plan, options, &outputs);
  std::vector<Extent> extents = packing.tensors();
  extents.push_back({model.file, 0, model.file->size()});
  std::vector<Sha256> digests = sha256_of(extents, options);
  const Sha256 whole = digests.back();
  digests.pop_back();
  packing.finish(outputs, 0, whole, digests);
  return all_of(*outputs.written(0));  // no flush to the disk: that is what takes time
}
std::shared_ptr<CompressedFile> open(const Buffer& file) {
  auto out = open_compressed(from_memory("m.zst", file));
  REQUIRE(out);
  return out;
}
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

// ---- Written and read

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
  for (const PackForm form : {PackForm::Plain, PackForm::Planes}) {
    const Buffer one = compressed(model, form);
    CHECK(compressed(model, form, 2) == one);
    CHECK(compressed(model, form, 7) == one);
  }
  const Buffer one = compressed(model, PackForm::Planes, 1, &base.catalog);
  CHECK(compressed(model, PackForm::Planes, 2, &base.catalog) == one);
  CHECK(compressed(model, PackForm::Planes, 7, &base.catalog) == one);
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

TEST_CASE("compressed: a difference needs its base, and nothing else will do", "[compressed]") {
  const Buffer file = safetensors(a_model());
  const Opened base = opened(safetensors(its_base()));
  const Buffer with = compressed(opened(file), PackForm::Planes, 1, &base.catalog);
  CHECK(with.size() < compressed(opened(file), PackForm::Planes).size() * 3 / 4);
  const auto out = open(with);
  CHECK(out->index().needs_base());
  // The header is its own; tensors are not readable without.
  CHECK(read(*out, 0, 8) == part(file, 0, 8));
  try {
    all_of(*out);
    FAIL("read without its base");
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::Usage);
  }
  out->set_base(base.catalog);
  CHECK(all_of(*out) == file);

  const auto refuses = [&](const std::function<void(std::vector<Part>&)>& change,
                           const std::string& why) {
    std::vector<Part> other = its_base();
    change(other);
    const Opened model = opened(safetensors(other));
    try {
      open(with)->set_base(model.catalog);
      FAIL("accepted, though it should say: " << why);
    } catch (const Error& e) {
      CHECK_THAT(e.what(), Catch::Contains(why));
    }
  };
  refuses([](auto& m) { m[0].name = "z"; }, "tensor 'a': the base has no such tensor");
  refuses([](auto& m) { m[0].dtype = "F16"; }, "the base has f16");
  refuses([](auto& m) { m[0].shape = "[1000,600]"; }, "[1000, 600]");
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

// ---- Indexes

TEST_CASE("compressed: an index says what it said when it was written", "[compressed]") {
  PackIndex index;
  index.form = PackForm::Planes;
  index.name = "a \"name\"\n";
  index.bytes = 30;
  index.digest = *parse_sha256(std::string(64, 'a'));
  index.base = {{"b", 9, *parse_sha256(std::string(64, 'b'))}};
  Piece tensor;
  tensor.bytes = 20;
  tensor.codec = {PackCodec::Kind::Columns, 3, {{{2, 1}, {0, 1}}, {{1, 1}}}};
  tensor.first_frame = 1;
  tensor.tensor = "t\xc3\xa9";
  tensor.dtype = DType::Q4_0;
  tensor.shape = {2, 32};
  tensor.tensor_bytes = 5;
  tensor.digest = *parse_sha256(std::string(64, 'c'));
  Piece same = tensor;
  same.offset = 20;
  same.bytes = 5;
  same.tensor = "same";
  same.same_as = 0;
  Piece base = same;
  base.offset = 25;
  base.tensor = "base";
  base.same_as = {};
  base.same_as_base = true;
  index.pieces = {tensor, same, base};
  const PackIndex again = parse_pack_index(to_json(index), 3);
  CHECK(again.form == index.form);
  CHECK((again.name == index.name && again.bytes == 30 && again.digest == index.digest));
  REQUIRE(again.base.size() == 1);
  CHECK((again.base[0].name == "b" && again.base[0].bytes == 9 &&
         again.base[0].digest == index.base[0].digest));
  REQUIRE(again.pieces.size() == 3);
  const Piece& t = again.pieces[0];
  CHECK((t.offset == 0 && t.bytes == 20 && t.codec == tensor.codec && t.first_frame == 1));
  CHECK((t.tensor == tensor.tensor && t.dtype == DType::Q4_0 && t.shape == tensor.shape));
  CHECK((t.tensor_bytes == 5 && t.digest == tensor.digest && !t.same_as && !t.same_as_base));
  CHECK(again.pieces[1].same_as == std::size_t{0});
  CHECK((again.pieces[2].same_as_base && !again.pieces[2].same_as));
}

TEST_CASE("compressed: members come in any order, unknown ones are passed over", "[compressed]") {
  const std::string text = fmt::format(
      R"({{"later":[{{"x":1}}],"pieces":[{{"later":{{}},"first_frame":0,"codec":"bytes","bytes":10,)"
      R"("offset":0}}],"source":{{"sha256":"{}","bytes":10,"more":null,"name":"m"}},)"
      R"("schema":"wtool.compressed/1","form":"plain"}})",
      kHash);
  CHECK(parse_pack_index(text, 1).pieces.size() == 1);
}

TEST_CASE("compressed: an index of another kind or version is refused as such", "[compressed]") {
  const std::string good =
      index_text(R"({"offset":0,"bytes":10,"codec":"bytes","first_frame":0})", 10);
  REQUIRE_NOTHROW(parse_pack_index(good, 1));
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string out = good;
    REQUIRE(out.find(from) != std::string::npos);
    return out.replace(out.find(from), from.size(), to);
  };
  check_index(with("compressed/1", "compressed/2"), 1, "is of version", Fault::Unsupported);
  check_index(with("wtool.compressed/1", "other"), 1, "has schema 'other'");
  check_index(with(R"("schema":"wtool.compressed/1",)", ""), 1, "has schema ''");
  check_index(with("plain", "plane"), 1, "unknown form 'plane'", Fault::Unsupported);
  check_index(with("\"bytes\",", "\"ans\","), 1, "unknown codec 'ans'", Fault::Unsupported);
  check_index(with("source", "origin"), 1, "does not say what it is made from");
  check_index(with(kHash, kHash.substr(1)), 1, "is no SHA-256");
  check_index(with(kHash, "g" + kHash.substr(1)), 1, "is no SHA-256");
  for (const char* number : {"-10", "10.0", "1e1", "\"10\"", "18446744073709551616", "true"})
    check_index(with("\"bytes\":10", fmt::format("\"bytes\":{}", number)), 1, "");
}

TEST_CASE("compressed: what is no JSON is refused, however deep", "[compressed]") {
  const std::string good =
      index_text(R"({"offset":0,"bytes":10,"codec":"bytes","first_frame":0})", 10);
  for (std::size_t n = 0; n < good.size(); ++n)
    REQUIRE_THROWS_AS(parse_pack_index(good.substr(0, n), 1), Error);
  check_index(good + "x", 1, "");
  check_index("[]", 1, "");
  check_index("\xff", 1, "");
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep = good.substr(0, good.size() - 1) + ",\"deep\":";
    for (int i = 0; i < 100'000; ++i) deep += open;
    check_index(deep, 1, "deep");
  }
  std::string shapes = "[";
  for (int i = 0; i < 100'000; ++i) shapes += "1,";
  check_pieces(fmt::format(R"({{"offset":0,"bytes":10,"shape":{}1]}})", shapes), "dimensions");
}

TEST_CASE("compressed: pieces that leave gaps, overlap or are empty are refused", "[compressed]") {
  const auto piece = [](std::string_view offset, std::string_view size, int frame) {
    return fmt::format(R"({{"offset":{},"bytes":{},"codec":"bytes","first_frame":{}}})", offset,
                       size, frame);
  };
  check_pieces(piece("1", "9", 0), "begins at 1, but what is before it ends at 0");
  check_pieces(piece("0", "4", 0) + "," + piece("5", "5", 1), "begins at 5");
  check_pieces(piece("0", "6", 0) + "," + piece("5", "5", 1), "begins at 5");
  check_pieces(piece("0", "5", 0) + "," + piece("0", "5", 1), "begins at 0");
  check_pieces(piece("0", "0", 0), "0 bytes at 0");
  check_pieces(piece("0", "9", 0), "pieces of 9 bytes, but the original has 10");
  check_pieces(piece("0", "11", 0), "pieces of 11 bytes, but the original has 10");
  check_pieces("", "pieces of 0 bytes");
  check_pieces(piece("0", "5", 0) + "," + piece("5", "18446744073709551615", 1),
               "18446744073709551615 bytes at 5");
  check_pieces(R"({"codec":"bytes","first_frame":0})", "0 bytes at 0");
}

TEST_CASE("compressed: pieces say in one way where their bytes are", "[compressed]") {
  const std::string head = R"({"offset":0,"bytes":10)", t = "," + tensor_members("t", 10);
  const std::string one = "needs one of";
  check_pieces(head + "}", one);
  check_pieces(head + t + "}", one);
  check_pieces(head + t + R"(,"codec":"bytes","first_frame":0,"same_as":"t"})", one);
  check_pieces(head + t + R"(,"codec":"bytes","first_frame":0,"same_as_base":true})", one, 10,
               kBase);
  check_pieces(head + t + R"(,"same_as":"t","same_as_base":true})", one, 10, kBase);
  check_pieces(head + t + R"(,"same_as_base":false})", one, 10, kBase);
  check_pieces(head + R"(,"same_as_base":true})", "is no tensor and has no codec", 10, kBase);
  check_pieces(head + t + R"(,"same_as_base":true})", "to a base that is not named");
  check_pieces(head + t + R"(,"codec":"delta16","first_frame":0})", "to a base that is not named");
  check_pieces(head + "," + tensor_members("t", 9) + R"(,"same_as_base":true})",
               "has more bytes than its tensor", 10, kBase);
  check_pieces(head + "," + tensor_members("t", 0) + R"(,"codec":"bytes","first_frame":0})",
               "a tensor of 0 bytes in a piece of 10");
  check_pieces(head + "," + tensor_members("t", 11) + R"(,"codec":"bytes","first_frame":0})",
               "a tensor of 11 bytes in a piece of 10");
  check_index(index_text(head + R"(,"tensor":"t","dtype":"u9"})", 10), 3, "unknown dtype 'u9'",
              Fault::Unsupported);
  check_index(index_text(head + R"(,"tensor":"t","dtype":"BF16"})", 10), 3, "unknown dtype 'BF16'",
              Fault::Unsupported);
}

TEST_CASE("compressed: references lead back, to as many bytes, and never in circles",
          "[compressed]") {
  const auto coded = [](std::string_view name, int offset, int size, int frame) {
    return fmt::format(R"({{"offset":{},"bytes":{},{},"codec":"bytes","first_frame":{}}})", offset,
                       size, tensor_members(name, static_cast<std::uint64_t>(size)), frame);
  };
  const auto refers = [](std::string_view name, int offset, int size, std::string_view to) {
    return fmt::format(R"({{"offset":{},"bytes":{},{},"same_as":"{}"}})", offset, size,
                       tensor_members(name, static_cast<std::uint64_t>(size)), to);
  };
  REQUIRE_NOTHROW(
      parse_pack_index(index_text(coded("a", 0, 5, 0) + "," + refers("b", 5, 5, "a"), 10), 1));
  const std::string no = "does not come before it";
  check_pieces(refers("a", 0, 10, "a"), no);
  check_pieces(refers("a", 0, 5, "b") + "," + coded("b", 5, 5, 0), no);
  check_pieces(refers("a", 0, 5, "b") + "," + refers("b", 5, 5, "a"), no);
  check_pieces(coded("a", 0, 5, 0) + "," + refers("b", 5, 5, "z"), no);
  check_pieces(coded("a", 0, 5, 0) + "," + refers("b", 5, 4, "a") + "," + coded("c", 9, 1, 1),
               "4 bytes, but the same as 'a' of 5");
  check_pieces(coded("a", 0, 4, 0) + "," + refers("b", 4, 6, "a"), "6 bytes, but the same as");
  std::string other = refers("b", 5, 5, "a");
  other.replace(other.find(kHash), 1, "1");
  check_pieces(coded("a", 0, 5, 0) + "," + other, "but is the same as 'a' with 0000");
  // One reference to another is none to bytes.
  check_pieces(coded("a", 0, 4, 0) + "," + refers("b", 4, 4, "a") + "," + refers("c", 8, 4, "b"),
               "which is itself the same", 12);
  // Bytes in front of a header are no tensor, and so nobody's name.
  check_pieces(R"({"offset":0,"bytes":5,"codec":"bytes","first_frame":0},)" + refers("b", 5, 5, ""),
               no);
}

TEST_CASE("compressed: frames follow each other and are there", "[compressed]") {
  const auto piece = [](int offset, int size, const std::string& more) {
    return fmt::format(R"({{"offset":{},"bytes":{},{}}})", offset, size, more);
  };
  const std::string codec = R"("codec":"bytes","first_frame":)";
  check_pieces(piece(0, 10, R"("codec":"bytes")"), "begins with frame 0");
  check_pieces(piece(0, 10, codec + "3"), "frames from 3 on, 1 chunks of 1, but the file has 3");
  check_pieces(piece(0, 10, codec + "18446744073709551615"), "but the file has 3");
  check_pieces(piece(0, 5, codec + "0") + "," + piece(5, 5, codec + "0"), "begins with frame 0");
  check_pieces(piece(0, 5, codec + "1") + "," + piece(5, 5, codec + "0"), "begins with frame 0");
  check_pieces(piece(0, 5, codec + "0") + "," + piece(5, 5, codec + "2"), "begins with frame 2");
  check_pieces(piece(0, 5, R"("codec":"bf16","first_frame":0)") + "," + piece(5, 5, codec + "2"),
               "begins with frame 2");
  check_pieces(piece(0, 10, R"("codec":"f32","first_frame":0)"), "1 chunks of 5");
  // As many chunks as 2^63 bytes have, and eight planes of each.
  const std::string huge =
      R"({"offset":0,"bytes":9223372036854775808,"codec":"columns","block":8,"planes":)"
      R"([[[0,1]],[[1,1]],[[2,1]],[[3,1]],[[4,1]],[[5,1]],[[6,1]],[[7,1]]],"first_frame":0})";
  check_pieces(huge, "8796093022208 chunks of 8", std::uint64_t{1} << 63);
  check_pieces(
      R"({"offset":0,"bytes":18446744073709551615,"codec":"columns","block":1,"planes":[[[0,1]]],)"
      R"("first_frame":18446744073709551615})",
      "but the file has 3", ~std::uint64_t{0});
}

TEST_CASE("compressed: frames that no piece has are refused", "[compressed]") {
  const auto piece = [](int first) {
    return fmt::format(R"({{"offset":0,"bytes":10,"codec":"bf16","first_frame":{}}})", first);
  };
  const auto planes = [](std::string text) {
    const auto at = text.find("plain");
    return text.replace(at, 5, "planes");
  };
  const std::string from_0 = index_text(piece(0), 10), from_1 = index_text(piece(1), 10);
  REQUIRE_NOTHROW(parse_pack_index(from_0, 3));
  check_index(from_0, 4, "no piece has frames 3 to 3");
  check_index(from_0, 6, "no piece has frames 3 to 5");
  check_index(from_1, 4, "no piece has frames 0 to 0");
  check_index(index_text(piece(2), 10), 6, "no piece has frames 0 to 1");
  // Planes have a header of their own in front.
  REQUIRE_NOTHROW(parse_pack_index(planes(from_1), 4));
  check_index(planes(from_0), 3, "a piece begins with frame 0");
  check_index(planes(from_1), 5, "no piece has frames 4 to 4");
  check_index(planes(index_text(piece(2), 10)), 5, "no piece has frames 1 to 1");
  // Where nothing is stored.
  const std::string none =
      fmt::format(R"({{"offset":0,"bytes":10,{},"same_as_base":true}})", tensor_members("t", 10));
  REQUIRE_NOTHROW(parse_pack_index(index_text(none, 10, kBase), 0));
  REQUIRE_NOTHROW(parse_pack_index(planes(index_text(none, 10, kBase)), 1));
  check_index(planes(index_text(none, 10, kBase)), 0, "no frame for the header");
  check_index(planes(index_text(none, 10, kBase)), 2, "no piece has frames 1 to 1");
  check_index(index_text(none, 10, kBase), 1, "no piece has frames 0 to 0");
}

TEST_CASE("compressed: a base that nothing is a difference to is refused by name", "[compressed]") {
  check_index(index_text(R"({"offset":0,"bytes":10,"codec":"bytes","first_frame":0})", 10, kBase),
              1, "names the base 'b', but nothing is a difference to it");
}

TEST_CASE("compressed: columns that are none are refused", "[compressed]") {
  const auto with = [](std::string_view block, std::string_view planes) {
    return fmt::format(
        R"({{"offset":0,"bytes":10,"codec":"columns","block":{},"planes":{},"first_frame":0}})",
        block, planes);
  };
  REQUIRE_NOTHROW(parse_pack_index(index_text(with("2", "[[[1,1]],[[0,1]]]"), 10), 2));
  check_pieces(with("0", "[[[0,1]]]"), "blocks of 0 bytes");
  check_pieces(with("1025", "[[[0,1025]]]"), "blocks of 1025 bytes");
  check_pieces(with("65538", "[[[0,2]]]"), "blocks of 65535 bytes");  // not taken modulo 2^16
  check_pieces(with("2", "[[[65536,2]]]"), "a column of 2 bytes at 65535");
  check_pieces(with("2", "[]"), "0 planes");
  check_pieces(with("2", "[[]]"), "a plane without columns");
  check_pieces(with("2", "[[[0,1]]]"), "columns of 1 bytes");
  check_pieces(with("2", "[[[0,2]],[[1,1]]]"), "in two columns");
  check_pieces(with("2", "[[[0,2,3]]]"), "more than offset and length");
  check_pieces(with("2", "[[[0]]]"), "less than offset and length");
  check_pieces(with("2", "[[[0,-1]]]"), "no plain number");
  check_pieces(
      with("9", "[[[0,1]],[[1,1]],[[2,1]],[[3,1]],[[4,1]],[[5,1]],[[6,1]],[[7,1]],[[8,1]]]"),
      "more than 8 planes");
  std::string many = "[[";
  for (int i = 0; i < 2000; ++i) many += "[0,1],";
  check_pieces(with("2", many + "[1,1]]]"), "too many columns");
  check_pieces(R"({"offset":0,"bytes":10,"codec":"columns","first_frame":0})", "0 planes");
  // Blocks of other codecs are their own.
  const PackIndex fixed = parse_pack_index(
      index_text(
          R"({"offset":0,"bytes":10,"codec":"bf16","block":7,"planes":[[[0,1]]],"first_frame":0})",
          10),
      3);
  CHECK(fixed.pieces[0].codec == PackCodec{PackCodec::Kind::Bf16, 2});
}

TEST_CASE("compressed: a block of no bytes where there is no codec divides nothing",
          "[compressed]") {
  const std::string piece = fmt::format(
      R"({{"offset":0,"bytes":10,{},"block":0,"planes":[[[0,9]]],"same_as_base":true}})",
      tensor_members("t", 10));
  const PackIndex index = parse_pack_index(index_text(piece, 10, kBase), 0);
  CHECK(index.pieces[0].codec == PackCodec{});
  CHECK(index.pieces[0].chunks() == 1);
}

// ---- Files that lie

TEST_CASE("compressed: what is no such file is left to others", "[compressed]") {
  CHECK_FALSE(open_compressed(from_memory("empty", {})));
  CHECK_FALSE(open_compressed(from_memory("short", bytes({0x28, 0xB5, 0x2F}))));
  CHECK_FALSE(open_compressed(from_memory("m", safetensors(a_model()))));
  const SourcePtr gguf = from_memory("m.gguf", to_buffer("GGUF and more"));
  CHECK(unwrap_compressed(gguf) == gguf);
}

TEST_CASE("compressed: zstd's own files are refused with a way out", "[compressed]") {
  Buffer one;
  FrameWriter().append(Coder::Strong, to_buffer(std::string(500, 'a') + "b"), one);
  check_file(from_memory("m.zst", one), "without a table of frames", Fault::Unsupported);
  Buffer with_table = one;
  append_seek_table({{static_cast<std::uint32_t>(one.size()), 501, 0}}, with_table);
  check_file(from_memory("m.zst", with_table), "no index", Fault::Unsupported);
  Buffer skippable;
  append_skippable(6, as_bytes("{}"), skippable);
  append_seek_table({{10, 0, 0}}, skippable);
  check_file(from_memory("m.zst", skippable), "no index", Fault::Unsupported);
  Buffer nothing;
  append_seek_table({}, nothing);
  check_file(from_memory("m.zst", nothing), "has no frames");
}

TEST_CASE("compressed: an index frame that is not as long as the table has it is refused",
          "[compressed]") {
  const std::string text = index_text("", 0);
  REQUIRE(open_compressed(Frames().file(text)));
  Buffer stretched;
  append_skippable(7, as_bytes(text), stretched);
  stretched.push_back(std::byte{' '});
  append_seek_table({{static_cast<std::uint32_t>(stretched.size()), 0, 0}}, stretched);
  check_file(from_memory("m.zst", stretched), "an index of");
  // Entries without checksums: whoever reads could not tell damage.
  Buffer unchecked;
  append_skippable(7, as_bytes(text), unchecked);
  const auto size = static_cast<std::uint32_t>(unchecked.size());
  for (const std::uint32_t v : {0x184D2A5Eu, 17u, size, 0u, 1u}) append(unchecked, v);
  unchecked.push_back(std::byte{0});
  append(unchecked, std::uint32_t{0x8F92EAB1});
  check_file(from_memory("m.zst", unchecked), "no checksums");
}

TEST_CASE("compressed: cut off anywhere it is refused or nothing of ours", "[compressed]") {
  const Buffer sevens(3000, std::byte{7});
  Frames frames;
  const Buffer whole = all_of(*frames.add(sevens).file(
      index_text(R"({"offset":0,"bytes":3000,"codec":"bytes","first_frame":0})", 3000)));
  REQUIRE(open(whole));
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const SourcePtr cut = from_memory("cut", part(whole, 0, n));
    if (n < 4)
      CHECK_FALSE(open_compressed(cut));
    else
      REQUIRE_THROWS_AS(open_compressed(cut), Error);
  }
  for (std::size_t n = 1; n < whole.size(); ++n) {  // the beginning is missing
    std::shared_ptr<CompressedFile> rest;
    try {
      rest = open_compressed(from_memory("cut", part(whole, n, whole.size() - n)));
    } catch (const Error& e) {
      CHECK((e.fault() == Fault::BadFile || e.fault() == Fault::Unsupported));
    }
    REQUIRE_FALSE(rest);
  }
}

TEST_CASE("compressed: a byte changed anywhere is an error or changes no values", "[compressed]") {
  // Names are short, so that no change makes a reference lead elsewhere.
  const Buffer file = safetensors({{"a", "BF16", "[40]", weights(40, 2, 1)},
                                   {"b", "F32", "[9]", weights(9, 4, 2)},
                                   {"c", "I8", "[7]", noise(7)}});
  for (const PackForm form : {PackForm::Plain, PackForm::Planes}) {
    Buffer out = compressed(opened(file), form);
    std::size_t refused = 0;
    for (std::size_t i = 0; i < out.size(); ++i)
      for (const std::byte flip : {std::byte{0x01}, std::byte{0x80}, std::byte{0xFF}}) {
        out[i] ^= flip;
        std::optional<Buffer> values;
        try {
          if (const auto damaged = open_compressed(from_memory("m.zst", out)))
            values = all_of(*damaged);
        } catch (const Error& e) {
          CHECK((e.fault() == Fault::BadFile || e.fault() == Fault::Unsupported));
          ++refused;
        }
        out[i] ^= flip;
        INFO("byte " << i);
        if (values) REQUIRE(*values == file);
      }
    CHECK(refused > out.size());
  }
}

TEST_CASE("compressed: frames that are not what the index says are named", "[compressed]") {
  const std::string ten = R"({"offset":0,"bytes":10,"codec":"bytes","first_frame":0})";
  const Buffer good = noise(10);
  const auto with = [&](const Buffer& content) {
    return Frames().add(content).file(index_text(ten, 10));
  };
  REQUIRE(all_of(*open_compressed(with(good))) == good);
  check_read(with(noise(9)), "frame 0 at byte 0 is damaged: holds 9 bytes, not 10");
  check_read(with(noise(11)), "holds 11 bytes, not 10");
  // The table says ten where the frame has other ideas: nine, and a repetition of 4 GiB.
  Buffer nine;
  FrameSize size = FrameWriter().append(Coder::Raw, noise(9), nine);
  size.content = 10;
  check_read(Frames().raw(nine, size).file(index_text(ten, 10)), "holds 9 bytes, not 10");
  const Buffer bomb = bytes({0x28, 0xB5, 0x2F, 0xFD, 0xA4, 0xFF, 0xFF, 0xFF, 0xFF, 0x03, 0x00, 0x10,
                             'a', 0x99, 0x09, 0x77, 0xAD});
  const auto long_ = static_cast<std::uint32_t>(bomb.size());
  check_read(Frames().raw(bomb, {long_, 10, 0}).file(index_text(ten, 10)), "frame 0");
  // A skippable frame, and two frames, where one is wanted.
  Buffer skippable;
  append_skippable(3, good, skippable);
  check_read(Frames().raw(skippable, {18, 10, 0}).file(index_text(ten, 10)), "frame 0");
  Buffer two;
  FrameWriter writer;
  writer.append(Coder::Raw, Bytes(good).first(5), two);
  writer.append(Coder::Raw, Bytes(good).last(5), two);
  check_read(
      Frames().raw(two, {static_cast<std::uint32_t>(two.size()), 10, 0}).file(index_text(ten, 10)),
      "frame 0");
  // Much more stored than there is to store: nobody reads it.
  Buffer much;
  FrameSize stored = writer.append(Coder::Raw, noise(10'000), much);
  stored.content = 10;
  check_read(Frames().raw(much, stored).file(index_text(ten, 10)),
             "frames 0 to 0 take 10016 bytes for 10");
}

TEST_CASE("compressed: claims far beyond what files can hold are refused", "[compressed]") {
  // A tensor of 2^40 bytes, "as in the base", by a thousand names.
  const std::uint64_t huge = std::uint64_t{1} << 40;
  const auto piece = [&](std::uint64_t offset, const std::string& name, std::string_view how) {
    return fmt::format(R"({{"offset":{},"bytes":{},{},{}}})", offset, huge,
                       tensor_members(name, huge), how);
  };
  std::string many = piece(0, "t", R"("same_as_base":true)");
  // A base of that size is there or not, whatever this file claims.
  CHECK(open_compressed(Frames().file(index_text(many, huge, kBase)))->size() == huge);
  for (std::uint64_t i = 1; i < 1000; ++i)
    many += "," + piece(i * huge, fmt::format("t{}", i), R"("same_as":"t")");
  check_file(Frames().file(index_text(many, 1000 * huge, kBase)), "more than 65536 times");
  // 2^64 bytes and more.
  std::string all = piece(0, "t", R"("same_as_base":true)");
  const std::uint64_t half = std::uint64_t{1} << 63;
  const std::string twice = fmt::format(
      R"({{"offset":0,"bytes":{0},{1},"same_as_base":true}},{{"offset":{0},"bytes":{0},{2},"same_as":"t"}})",
      half, tensor_members("t", half), tensor_members("u", half));
  check_file(Frames().file(index_text(twice, 0, kBase)), "bytes at 9223372036854775808");
}

TEST_CASE("compressed: an original without bytes is one too", "[compressed]") {
  const auto file = open_compressed(Frames().file(index_text("", 0)));
  REQUIRE(file);
  CHECK(file->size() == 0);
  CHECK(all_of(*file).empty());
  CHECK_THROWS_AS(read(*file, 0, 1), Error);
}

}  // namespace wtool
