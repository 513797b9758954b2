#include "lib/model/tensor.h"

#include <numeric>

#include "lib/base/error.h"
#include "tests/catch.h"

using namespace wtool;

namespace {

// A catalog of one tensor over the given bytes.
Catalog one(DType dtype, const Shape& shape, Buffer bytes, bool big = false, bool columns = false) {
  Catalog c;
  Diagnostics faults;
  TensorEntry t;
  t.name = "t";
  t.shape = c.arena().copy(ShapeView(shape));
  t.bytes = bytes.size();
  t.dtype = dtype;
  t.big_endian = big;
  t.column_major = columns;
  t.source = c.add_source(from_memory("mem", std::move(bytes)));
  c.add(t, 0, faults);
  return c;
}
TensorPtr tensor(DType dtype, const Shape& shape, Buffer bytes, bool big = false,
                 bool columns = false) {
  const Catalog c = one(dtype, shape, std::move(bytes), big, columns);
  return stored(c, c.entries()[0]);
}
Buffer counting(std::size_t n) {
  Buffer b(n);
  for (std::size_t i = 0; i < n; ++i) b[i] = static_cast<std::byte>(i * 7 + i / 256);
  return b;
}
Buffer read_box(const Tensor& t, const Box& box) {
  Scratch scratch;
  Buffer out(checked_size(t.dtype(), box.elements()));
  t.read(box, out, scratch);
  return out;
}
Buffer read_tiles(const Tensor& t, const Tiling& tiling) {
  Buffer out(t.bytes());
  const std::uint64_t cols = t.whole().cols;
  for (std::uint64_t u = 0; u < tiling.units(); ++u) {
    const Box box = tiling.box(u);
    const Buffer piece = read_box(t, box);
    const std::uint64_t width = checked_size(t.dtype(), box.cols);
    for (std::uint64_t r = 0; r < box.rows; ++r) {
      const std::uint64_t at = checked_size(t.dtype(), (box.row + r) * cols + box.col);
      std::copy_n(piece.begin() + static_cast<std::ptrdiff_t>(r * width), width,
                  out.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  return out;
}
std::string fault_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("a stored tensor of every type gives its bytes whole and in pieces", "[tensor]") {
  for (const DTypeInfo& type : all_dtypes()) {
    INFO(type.name);
    const Shape shape{3, 4u * type.block_elems};
    const Buffer bytes = counting(12u * type.block_bytes);
    const TensorPtr t = tensor(type.id, shape, bytes);
    CHECK(t->elements() == 12u * type.block_elems);
    CHECK(read_box(*t, t->whole()) == bytes);
    CHECK(read_tiles(*t, Tiling(t->whole(), 2, 3u * type.block_elems)) == bytes);
    // One block in the middle: row 1, block 2.
    const Buffer middle =
        read_box(*t, {1, 1, 2u * type.block_elems, std::uint64_t{type.block_elems}});
    const auto at = bytes.begin() + 6 * type.block_bytes;
    CHECK(middle == Buffer(at, at + type.block_bytes));
    const auto raw = t->raw({1, 1, 2u * type.block_elems, std::uint64_t{type.block_elems}});
    REQUIRE(raw);
    CHECK(raw->offset == 6u * type.block_bytes);
    CHECK(raw->bytes == type.block_bytes);
  }
}

TEST_CASE("big-endian elements arrive little-endian and are never copied raw", "[tensor]") {
  for (const DTypeInfo& type : all_dtypes()) {
    INFO(type.name);
    const Buffer little = counting(6u * type.block_bytes);
    Buffer big = little;
    swap_endian(type.id, big);
    const TensorPtr t = tensor(type.id, {2, 3u * type.block_elems}, big, true);
    CHECK(read_box(*t, t->whole()) == little);
    if (type.block_bytes > 1) CHECK_FALSE(t->raw(t->whole()).has_value());
  }
}

TEST_CASE("byte order swaps each half of a complex number, not the pair", "[tensor]") {
  const Buffer big{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4},
                   std::byte{5}, std::byte{6}, std::byte{7}, std::byte{8}};
  const TensorPtr t = tensor(DType::C64, {1}, big, true);
  CHECK(read_box(*t, t->whole()) == Buffer{std::byte{4}, std::byte{3}, std::byte{2}, std::byte{1},
                                           std::byte{8}, std::byte{7}, std::byte{6}, std::byte{5}});
}

TEST_CASE("column order gives the rows that numpy shows", "[tensor]") {
  // numpy: arange(6).reshape(2, 3).flatten('F'), arange(24).reshape(2, 3, 4).flatten('F')
  const std::vector<int> matrix{0, 3, 1, 4, 2, 5};
  const std::vector<int> cube{0, 12, 4, 16, 8,  20, 1, 13, 5, 17, 9,  21,
                              2, 14, 6, 18, 10, 22, 3, 15, 7, 19, 11, 23};
  const auto bytes = [](const std::vector<int>& values) {
    Buffer b;
    for (const int v : values) b.push_back(static_cast<std::byte>(v));
    return b;
  };
  std::vector<int> expected(24);
  std::iota(expected.begin(), expected.end(), 0);
  const TensorPtr m = tensor(DType::U8, {2, 3}, bytes(matrix), false, true);
  CHECK(read_box(*m, m->whole()) == bytes({0, 1, 2, 3, 4, 5}));
  const TensorPtr c = tensor(DType::U8, {2, 3, 4}, bytes(cube), false, true);
  CHECK(read_box(*c, c->whole()) == bytes(expected));
  CHECK(read_box(*c, {2, 2, 1, 2}) == bytes({9, 10, 13, 14}));
  CHECK_FALSE(c->raw(c->whole()).has_value());
}

TEST_CASE("column order is right for every shape, box and byte order", "[tensor]") {
  // The plain definition: element (i0, i1, …) lies at i0 + d0 * (i1 + d1 * …).
  for (const Shape& shape :
       {Shape{5, 7}, Shape{1, 9, 4}, Shape{12, 3, 5}, Shape{2, 6, 8}, Shape{3, 4, 2, 5},
        Shape{40, 2, 3}, Shape{2, 30, 1, 3}, Shape{7, 1}, Shape{1, 7}, Shape{11}, Shape{}})
    for (const DType dtype : {DType::U8, DType::I32, DType::C64}) {
      const std::uint64_t n = *element_count(shape), size = info(dtype).block_bytes;
      const Buffer rows = counting(n * size);
      Buffer columns(rows.size());
      for (std::uint64_t i = 0; i < n; ++i) {
        std::uint64_t rest = i, at = 0;
        std::vector<std::uint64_t> index(shape.size());
        for (std::size_t d = shape.size(); d-- > 0; rest /= shape[d]) index[d] = rest % shape[d];
        for (std::size_t d = shape.size(); d-- > 0;) at = at * shape[d] + index[d];
        std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(i * size), size,
                    columns.begin() + static_cast<std::ptrdiff_t>(at * size));
      }
      for (const bool big : {false, true}) {
        Buffer file = columns;
        if (big) swap_endian(dtype, file);
        const TensorPtr t = tensor(dtype, shape, file, big, true);
        INFO(to_text(shape) << " " << name_of(dtype) << (big ? " big" : " little"));
        CHECK(read_box(*t, t->whole()) == rows);
        CHECK(read_tiles(*t, Tiling(t->whole(), 3, 2)) == rows);
        CHECK(read_tiles(*t, Tiling(t->whole(), 1, 1)) == rows);
      }
    }
}

TEST_CASE("a slice holds what plain loops pick", "[tensor]") {
  const Shape shape{3, 4, 5};
  const Buffer bytes = counting(60);
  const TensorPtr t = tensor(DType::U8, shape, bytes);
  const std::vector<std::vector<Range>> cases{{{0, 3}, {0, 4}, {0, 5}},
                                              {{1, 3}, {2, 3}, {1, 4}},
                                              {{2, 3, true}, {0, 4}, {0, 5}},
                                              {{0, 3}, {1, 2, true}, {0, 5}},
                                              {{0, 3}, {0, 4}, {4, 5, true}},
                                              {{1, 2, true}, {1, 2, true}, {1, 2, true}},
                                              {{0, 3}, {3, 4, true}, {2, 3, true}},
                                              {{0, 3}, {2, 2}, {0, 5}}};
  for (const auto& r : cases) {
    Buffer expected;
    for (std::uint64_t i = r[0].begin; i < r[0].end; ++i)
      for (std::uint64_t j = r[1].begin; j < r[1].end; ++j)
        for (std::uint64_t k = r[2].begin; k < r[2].end; ++k)
          expected.push_back(bytes[(i * 4 + j) * 5 + k]);
    Shape kept;
    for (const Range& x : r)
      if (!x.single) kept.push_back(x.end - x.begin);
    const TensorPtr s = slice(t, r);
    INFO(to_text(kept));
    CHECK(s->shape() == kept);
    REQUIRE(s->bytes() == expected.size());
    if (expected.empty()) continue;
    CHECK(read_box(*s, s->whole()) == expected);
    CHECK(read_tiles(*s, Tiling(s->whole(), 2, 2)) == expected);
  }
}

TEST_CASE("a slice of column order and a slice of a slice agree with the loops", "[tensor]") {
  const TensorPtr t =
      tensor(DType::U8, {2, 3},
             {std::byte{0}, std::byte{3}, std::byte{1}, std::byte{4}, std::byte{2}, std::byte{5}},
             false, true);
  const TensorPtr s = slice(slice(t, {{0, 2}, {1, 3}}), {{1, 2, true}, {0, 2}});
  CHECK(read_box(*s, s->whole()) == Buffer{std::byte{4}, std::byte{5}});
}

TEST_CASE("slices outside the shape or through a block are refused", "[tensor]") {
  const TensorPtr t = tensor(DType::U8, {4, 6}, counting(24));
  CHECK(fault_of([&] {
          slice(t, {{0, 5}, {0, 6}});
        }) == "slice 0:5 is outside dimension 0 of [4, 6]");
  CHECK(fault_of([&] {
          slice(t, {{3, 2}, {0, 6}});
        }) == "slice 3:2 is outside dimension 0 of [4, 6]");
  const TensorPtr q = tensor(DType::Q8_0, {2, 64}, counting(4 * 34));
  CHECK(fault_of([&] {
          slice(q, {{0, 2}, {0, 33}});
        }) == "slice 0:33 of the last dimension cuts q8_0 blocks of 32");
  const TensorPtr right = slice(q, {{1, 2}, {32, 64}});
  const Buffer all = counting(4 * 34);
  CHECK(read_box(*right, right->whole()) == Buffer(all.begin() + 102, all.end()));
}

TEST_CASE("f4 with odd rows is one long row, and cannot be sliced", "[tensor]") {
  const Buffer bytes = counting(3);
  const TensorPtr t = tensor(DType::F4, {2, 3}, bytes);
  CHECK(t->whole().rows == 1);
  CHECK(t->whole().cols == 6);
  CHECK(read_tiles(*t, Tiling(t->whole(), 1, 2)) == bytes);
  CHECK(fault_of([&] {
          slice(t, {{0, 1}, {0, 2}});
        }) == "rows of f4 [2, 3] do not begin on whole bytes, so it cannot be sliced");
  const TensorPtr even = tensor(DType::F4, {3, 4}, counting(6));
  CHECK(even->whole().rows == 3);
}

TEST_CASE("an opaque tensor read as another type keeps its bytes; sizes must agree", "[tensor]") {
  const Buffer bytes = counting(8);
  const TensorPtr v = tensor(DType::V2, {4}, bytes);
  const TensorPtr b = reinterpreted(v, DType::BF16);
  CHECK(b->dtype() == DType::BF16);
  CHECK(read_box(*b, b->whole()) == bytes);
  CHECK(b->raw(b->whole()).has_value());
  CHECK(fault_of([&] { reinterpreted(v, DType::F32); }) ==
        "v2 elements cannot be taken for f32: 2 and 4 bytes");
}

TEST_CASE("empty and scalar tensors have no rows and one element", "[tensor]") {
  const TensorPtr none = tensor(DType::F32, {0, 3}, {});
  CHECK(none->elements() == 0);
  CHECK(Tiling::of(*none).units() == 0);
  const TensorPtr scalar = tensor(DType::F32, {}, counting(4));
  CHECK(scalar->elements() == 1);
  CHECK(Tiling::of(*scalar).units() == 1);
}

TEST_CASE("a tiling covers each element exactly once and cuts no block", "[tensor]") {
  struct Case {
    DType dtype;
    Shape shape;
    std::uint64_t block, elements;
  };
  for (const Case& c : {Case{DType::U8, {7, 10}, 1, 4}, Case{DType::U8, {7, 10}, 1, 1000},
                        Case{DType::U8, {1, 1000}, 128, 300}, Case{DType::Q8_0, {5, 96}, 1, 40},
                        Case{DType::F4, {3, 3, 6}, 32, 33}, Case{DType::U8, {3, 100}, 32, 7},
                        Case{DType::F32, {2, 3, 5}, 1, 11}}) {
    const std::uint64_t n = *element_count(c.shape);
    const TensorPtr t = tensor(c.dtype, c.shape, Buffer(*byte_size(c.dtype, n)));
    const Tiling tiling = Tiling::of(*t, c.block, c.elements);
    std::vector<int> seen(n);
    for (std::uint64_t u = 0; u < tiling.units(); ++u) {
      const Box b = tiling.box(u);
      CHECK(b.col % std::lcm(c.block, std::uint64_t{info(c.dtype).block_elems}) == 0);
      for (std::uint64_t r = b.row; r < b.row + b.rows; ++r)
        for (std::uint64_t k = b.col; k < b.col + b.cols; ++k) ++seen[r * t->whole().cols + k];
    }
    CHECK(std::ranges::all_of(seen, [](int times) { return times == 1; }));
  }
}
