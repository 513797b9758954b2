#include <functional>

#include "formats/registry.h"
#include "lib/base/error.h"
#include "tests/catch.h"

using namespace wtool;
using namespace std::string_literals;

namespace {

// A file with this header text, unpadded, and so many bytes of data.
std::string npy(const std::string& header, std::size_t data, int version = 1) {
  std::string out = "\x93NUMPY" + std::string(1, static_cast<char>(version)) + '\0';
  const std::size_t n = header.size();
  out += static_cast<char>(n & 0xFF);
  out += static_cast<char>(n >> 8);
  if (version > 1) out += "\0\0"s;
  out += header;
  for (std::size_t i = 0; i < data; ++i) out += static_cast<char>(i + 1);
  return out;
}
std::string array(const std::string& descr, const std::string& shape, std::size_t data,
                  bool columns = false) {
  return npy("{'descr': " + descr + ", 'fortran_order': " + (columns ? "True" : "False") +
                 ", 'shape': " + shape + ", }\n",
             data);
}
Catalog open(const std::string& bytes, Diagnostics& faults, const std::string& name = "dir/w.npy") {
  const SourcePtr source = from_memory(name, to_buffer(bytes));
  REQUIRE(kNpy.detect(*source));
  Catalog c;
  c.add_source(source);
  kNpy.read(source, c, faults);
  return c;
}
std::string fault(const std::string& bytes) {
  Diagnostics faults;
  try {
    open(bytes, faults);
  } catch (const Error& e) {
    return e.text();
  }
  return "accepted";
}
std::string rule(const std::string& bytes) {
  Diagnostics faults(Diagnostics::Mode::Collect);
  open(bytes, faults);
  return faults.findings().empty() ? "none" : std::string(faults.findings()[0].rule->id);
}
std::string head(DType dtype, const Shape& shape, bool big = false) {
  const OutTensor t{"t", dtype, shape, big};
  const Layout l = kNpy.layout({}, std::span(&t, 1));
  CHECK(l.offsets == std::vector<std::uint64_t>{l.head.size()});
  CHECK(l.total_bytes == l.head.size() + t.bytes());
  return std::string(as_text(l.head));
}

}  // namespace

TEST_CASE("every element type of numpy is read in both byte orders", "[npy]") {
  struct Case {
    const char* code;
    DType dtype;
    std::size_t size;
  };
  for (const Case& c :
       {Case{"b1", DType::Bool, 1}, Case{"i1", DType::I8, 1}, Case{"u1", DType::U8, 1},
        Case{"i2", DType::I16, 2}, Case{"u2", DType::U16, 2}, Case{"i4", DType::I32, 4},
        Case{"u4", DType::U32, 4}, Case{"i8", DType::I64, 8}, Case{"u8", DType::U64, 8},
        Case{"f2", DType::F16, 2}, Case{"f4", DType::F32, 4}, Case{"f8", DType::F64, 8},
        Case{"c8", DType::C64, 8}, Case{"c16", DType::C128, 16}})
    for (const char* order : {"<", ">"}) {
      INFO(order << c.code);
      Diagnostics faults;
      const std::string descr = "'"s + (c.size == 1 ? "|" : order) + c.code + "'";
      const Catalog catalog = open(array(descr, "(2, 3)", 6 * c.size), faults);
      REQUIRE(catalog.entries().size() == 1);
      const TensorEntry& t = catalog.entries()[0];
      CHECK(t.name == "w");
      CHECK(t.dtype == c.dtype);
      CHECK(to_text(t.shape) == "[2, 3]");
      CHECK(t.bytes == 6 * c.size);
      CHECK(t.offset == catalog.sources()[0]->size() - t.bytes);
      CHECK(t.big_endian == (c.size > 1 && *order == '>'));
      CHECK_FALSE(t.column_major);
      CHECK(faults.notes().empty());
    }
}

TEST_CASE("what JAX writes for bf16 and fp8 is taken: opaque bytes and type names", "[npy]") {
  for (const auto& [descr, dtype] :
       std::vector<std::pair<std::string, DType>>{{"'|V2'", DType::V2},
                                                  {"'<V2'", DType::V2},
                                                  {"'|V1'", DType::V1},
                                                  {"'bfloat16'", DType::BF16},
                                                  {"'float8_e4m3fn'", DType::F8_E4M3},
                                                  {"'float8_e5m2'", DType::F8_E5M2},
                                                  {"'<f1'", DType::F8_E5M2}}) {
    INFO(descr);
    Diagnostics faults;
    const Catalog c = open(array(descr, "(4,)", 4u * info(dtype).block_bytes), faults);
    CHECK(c.entries()[0].dtype == dtype);
  }
}

TEST_CASE("Fortran order keeps the shape that numpy shows", "[npy]") {
  Diagnostics faults;
  const Catalog c = open(array("'|u1'", "(2, 3)", 6, true), faults);
  CHECK(c.entries()[0].column_major);
  const TensorPtr t = stored(c, c.entries()[0]);
  Buffer out(6);
  Scratch scratch;
  t->read(t->whole(), out, scratch);
  CHECK(as_text(out) == "\1\3\5\2\4\6");  // numpy: [[1, 3, 5], [2, 4, 6]]
}

TEST_CASE("versions 2 and 3, other spellings and odd paddings are read", "[npy]") {
  const std::string dict = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }";
  for (const std::string& file :
       {npy(dict + "\n", 6, 2), npy(dict + "\n", 6, 3), npy(dict, 6), npy(dict + "   \n", 6),
        npy("{\"shape\":(2,3),\"fortran_order\":False,\"descr\":\"|u1\"}", 6),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 3L), }\n", 6)}) {
    Diagnostics faults;
    CHECK(to_text(open(file, faults).entries()[0].shape) == "[2, 3]");
  }
  Diagnostics faults;
  CHECK(open(array("'<f8'", "()", 8), faults).entries()[0].shape.empty());
  CHECK(open(array("'<f8'", "(0, 3)", 0), faults).entries()[0].bytes == 0);
  CHECK(open(array("'|u1'", "(3,)", 3), faults, "-").entries()[0].name == "array");
  CHECK(open(array("'|u1'", "(3,)", 3), faults, "a.b.npy").entries()[0].name == "a.b");
  CHECK(open(array("'|u1'", "(3,)", 3), faults, ".npy").entries()[0].name == ".npy");
}

TEST_CASE("a missing byte order is taken for little-endian, and said", "[npy]") {
  Diagnostics faults;
  CHECK_FALSE(open(array("'=f4'", "(1,)", 4), faults).entries()[0].big_endian);
  REQUIRE(faults.notes().size() == 1);
  CHECK(faults.notes()[0].text ==
        "element type '=f4' does not say its byte order; little-endian is assumed");
  CHECK(open(array("'u1'", "(1,)", 1), faults).entries().size() == 1);
  CHECK(faults.notes().size() == 1);
}

TEST_CASE("what is no tensor is refused with the reason", "[npy]") {
  const auto reason = [](const std::string& descr) {
    try {
      Diagnostics faults;
      open(array(descr, "(1,)", 16), faults);
    } catch (const Error& e) {
      CHECK(e.fault() == Fault::Unsupported);
      CHECK(e.where() == "dir/w.npy");
      return e.text();
    }
    return "accepted"s;
  };
  CHECK(reason("'|O'") ==
        "'|O': an array of Python objects is a pickle, which can run code when opened");
  CHECK(reason("'O8'").find("a pickle") != std::string::npos);
  CHECK(reason("[('a', '<f4'), ('b', '|O')]").find("a pickle") != std::string::npos);
  CHECK(reason("[('b', '|O', (2,))]").find("a pickle") != std::string::npos);
  CHECK(reason("[('x', '<f4'), ('y', [('z', '|u1', (2,))])]") ==
        "a structured array holds records of several fields, not one tensor");
  CHECK(reason("'|S3'") == "'|S3': an array of strings");
  CHECK(reason("'<U2'") == "'<U2': an array of strings");
  CHECK(reason("'<M8[ns]'") == "'<M8[ns]': an array of dates or times");
  CHECK(reason("'<f16'").find("long double") != std::string::npos);
  CHECK(reason("'<c32'").find("long double") != std::string::npos);
  CHECK(reason("'|V16'") == "'|V16': an array of opaque records");
}

TEST_CASE("headers that are no such dict are refused with the byte", "[npy]") {
  const auto with = [](const std::string& header) { return fault(npy(header, 24)); };
  CHECK(with("['descr']") == "'{' is missing in the header (at byte 10)");
  CHECK(with("{}") == "the header has no 'descr' (at byte 12)");
  CHECK(with("{'descr': '<f4', 'fortran_order': False}") ==
        "the header has no 'shape' (at byte 50)");
  CHECK(with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'x': 1}") ==
        "unknown header key 'x' (at byte 68)");
  CHECK(with("{'descr': '<f4', 'descr': '<f8'}") ==
        "header key 'descr' appears twice (at byte 27)");
  CHECK(with("{'descr': '<f4', 'fortran_order': 1, 'shape': (2, 3)}") ==
        "'fortran_order' is neither True nor False (at byte 44)");
  CHECK(with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}, 1")
            .find("something follows") == 0);
  CHECK(with("{'descr': '\\x3cf4', 'fortran_order': False, 'shape': (2, 3)}").find("escape") !=
        std::string::npos);
  CHECK(with("{'descr': [[[[, 'fortran_order'").find("does not end") != std::string::npos);
  CHECK(with("{'descr': '<f4").find("does not end") != std::string::npos);
  for (const char* shape : {"[2, 3]",
                            "6",
                            "(6)",
                            "(2.0, 3)",
                            "('2', 3)",
                            "None",
                            "((2, 3),)",
                            "(2j, 3)",
                            "(2*1, 3)",
                            "(-2, -3)",
                            "(-1,)",
                            "(02,)",
                            "(2 3)",
                            "(,)",
                            "(True, 3)",
                            "(0x2,)",
                            "(9223372036854775808,)",
                            "(99999999999999999999999999,)",
                            "((((((((((((((((",
                            "(2, 3"})
    CHECK(rule(array("'<f4'", shape, 24)) == "npy.header");
  std::string many = "(";
  for (int i = 0; i < 300; ++i) many += "1, ";
  CHECK(rule(array("'<f4'", many + ")", 4)) == "npy.header");
  for (const char* descr : {"'foo'", "'<f3'", "''", "'?f4'", "' <f4'", "'torch.float32'", "'V1x'"})
    CHECK(rule(array(descr, "(2, 3)", 24)) == "npy.descr");
  for (const char* descr : {"4", "None", "<f4"})
    CHECK(rule(array(descr, "(2, 3)", 24)) == "npy.header");
}

TEST_CASE("every prefix of a file is refused, and none reads past its end", "[npy]") {
  const std::string whole = array("'<f4'", "(2, 3)", 24);
  for (std::size_t n = 6; n < whole.size(); ++n) {
    INFO(n);
    CHECK(fault(whole.substr(0, n)) != "accepted");
  }
  CHECK(fault(whole) == "accepted");
  CHECK(fault(whole.substr(0, whole.size() - 1)).find("the file ends at") != std::string::npos);
}

TEST_CASE("bytes behind the array, wrong versions and huge headers are refused", "[npy]") {
  const std::string good = array("'<f4'", "(2, 3)", 24);
  CHECK(fault(good + "xyz") == "3 bytes follow the array's 24");
  Diagnostics lenient(Diagnostics::Mode::Lenient);
  CHECK(open(good + "xyz", lenient).entries().size() == 1);
  CHECK(lenient.findings().size() == 1);
  for (const auto& [major, minor] : {std::pair(0, 0), {1, 1}, {2, 1}, {4, 0}, {255, 255}}) {
    std::string bad = good;
    bad[6] = static_cast<char>(major);
    bad[7] = static_cast<char>(minor);
    CHECK(rule(bad) == "npy.version");
  }
  CHECK(fault("\x93NUMPY\2\0\xff\xff\xff\xff{}"s) ==
        "the header has 4294967295 bytes, but only 2 follow");
  std::string wide = "\x93NUMPY\2\0\1\0\x10\0"s + std::string(1 << 20, ' ') + " ";
  CHECK(fault(wide) == "the header has 1048577 bytes, wtool's limit is 1048576");
  CHECK(rule(array("'<f8'", "(1099511627776,)", 8)) == "tensor.bounds");
  CHECK(rule(array("'|u1'", "(4294967296, 4294967296)", 8)) == "tensor.overflow");
  CHECK(rule(array("'<f8'", "(2305843009213693952,)", 8)) == "tensor.overflow");
}

TEST_CASE("the head is what numpy 1.24 writes, byte for byte", "[npy]") {
  const auto v1 = [](const std::string& dict, std::size_t size) {
    std::string text = dict + std::string(size - 10 - dict.size() - 1, ' ') + "\n";
    return "\x93NUMPY\1\0"s + static_cast<char>(size - 10) + '\0' + text;
  };
  CHECK(head(DType::F32, {3, 4}) ==
        v1("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }", 128));
  CHECK(head(DType::F64, {}, true) ==
        v1("{'descr': '>f8', 'fortran_order': False, 'shape': (), }", 128));
  CHECK(head(DType::U8, {5}, true) ==
        v1("{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }", 128));
  CHECK(head(DType::Bool, {0, 3}) ==
        v1("{'descr': '|b1', 'fortran_order': False, 'shape': (0, 3), }", 128));
  CHECK(head(DType::C128, {1000000000, 3}).substr(0, 76) ==
        "\x93NUMPY\1\0v\0{'descr': '<c16', 'fortran_order': False, 'shape': (1000000000, 3)"s);
  // Room for the first axis to grow to 21 digits pushes these over the 128 bytes.
  CHECK(head(DType::F64, {10, 10, 10, 10, 10, 10}).size() == 128);
  CHECK(head(DType::F32, Shape(18, 1)).size() == 192);
  CHECK(head(DType::V2, {2}).find("'|V2'") != std::string::npos);
}

TEST_CASE("what was written is read back with dtype, shape and byte order", "[npy]") {
  for (const DTypeInfo& type : all_dtypes())
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{7}, Shape{2, 3, 4}, Shape(32, 1)})
      for (const bool big : {false, true}) {
        const OutTensor t{"w", type.id, shape, big};
        if (kNpy.refuses(t)) continue;
        INFO(type.name << to_text(shape) << big);
        Layout l = kNpy.layout({}, std::span(&t, 1));
        l.head.resize(l.total_bytes);
        Diagnostics faults;
        const Catalog c = open(std::string(as_text(l.head)), faults);
        CHECK(c.entries()[0].dtype == type.id);
        CHECK(std::ranges::equal(c.entries()[0].shape, shape));
        CHECK(c.entries()[0].offset == l.offsets[0]);
        CHECK(c.entries()[0].offset % 64 == 0);
        CHECK(c.entries()[0].big_endian ==
              (big && type.block_bytes > 1 && type.kind != Kind::Opaque));
        CHECK(faults.notes().empty());
      }
}

TEST_CASE("types that numpy lacks are refused with the way out", "[npy]") {
  CHECK(kNpy.refuses({"t", DType::BF16, {2}}) == "NPY has no bf16; --dtype f32 holds it exactly");
  CHECK(kNpy.refuses({"t", DType::F8_E5M2, {2}}).has_value());
  CHECK(kNpy.refuses({"t", DType::F4, {2}}).has_value());
  CHECK(kNpy.refuses({"t", DType::Q4_K, {256}}) ==
        "NPY has no q4_k blocks; --dtype f32 decodes them");
  CHECK(kNpy.refuses({"t", DType::F32, Shape(33, 1)}) == "33 dimensions; numpy takes at most 32");
  CHECK_FALSE(kNpy.refuses({"t", DType::F32, {2}}));
  Metadata meta;
  CHECK_FALSE(kNpy.refuses_meta(meta));
  meta.append("k", true);
  CHECK(kNpy.refuses_meta(meta) == "NPY holds no metadata, and there are 1 keys");
}
