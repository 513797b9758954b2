// What indexes of compressed files may say.
#include "tests/unit/compressed_files.h"

namespace wtool {

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
  // A tensor that is less than its piece, as padding makes it.
  std::string less = refers("b", 5, 5, "a");
  less.replace(less.find(R"("tensor_bytes":5)"), 16, R"("tensor_bytes":4)");
  check_pieces(coded("a", 0, 5, 0) + "," + less, "5 bytes, but the same as 'a' of 5");
  check_pieces(coded("a", 0, 5, 0) + "," + coded("a", 5, 5, 1), "is in two pieces");
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

TEST_CASE("compressed: an index that would be too large is refused before the work",
          "[compressed]") {
  // Names of a MiB each: 127 of them fit, 128 do not.
  const Shape one{1};
  const auto each_another = [](std::size_t bytes) {
    Buffer out;
    for (std::size_t i = 0; i < bytes; ++i) out.push_back(static_cast<std::byte>(i));
    return out;
  };
  for (const std::size_t n : {127u, 128u}) {
    Catalog catalog;
    const SourcePtr file = from_memory("m", each_another(n));
    catalog.add_source(file);
    Diagnostics faults;
    for (std::size_t i = 0; i < n; ++i) {
      TensorEntry t;
      t.name = catalog.arena().text(fmt::format("{:01048576}", i));
      t.dtype = DType::U8;
      t.shape = catalog.arena().copy(ShapeView(one));
      t.offset = i;
      t.bytes = 1;
      catalog.add(t, 0, faults);
    }
    Packing packing(file, catalog, nullptr, {});
    packing.sample({});
    for (const PackForm form : {PackForm::Plain, PackForm::Planes}) {
      if (n == 127)
        CHECK_NOTHROW(packing.choose(form));
      else
        CHECK_THROWS_WITH(packing.choose(form),
                          Catch::Contains("128 pieces make an index of 134") &&
                              Catch::Contains("of at most 134217728"));
    }
  }
}

}  // namespace wtool
