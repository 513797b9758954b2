// Slices of tensors of a few shapes: 'name[0:4,:8]'. What they select is read and compared with the
// elements' numbers, which are their values.
#include <array>
#include <vector>

#include "cli/values.h"
#include "tests/fuzz/readers.h"

namespace wtool::fuzz {
namespace {

TensorPtr counting(Shape shape) {
  auto catalog = std::make_shared<Catalog>();
  const std::uint64_t n = *element_count(shape);
  Buffer bytes;
  for (std::uint32_t i = 0; i < n; ++i) append(bytes, i);
  TensorEntry t;
  t.shape = catalog->arena().copy(ShapeView(shape));
  t.bytes = bytes.size();
  t.dtype = DType::U32;
  t.source = catalog->add_source(from_memory("counting", bytes));
  return stored(*catalog, t);
}

// The elements, counted off dimension by dimension.
std::vector<std::uint32_t> expected(const Shape& shape, const std::vector<Range>& ranges) {
  std::vector<std::uint32_t> out{0};
  for (std::size_t d = 0; d < shape.size(); ++d) {
    std::vector<std::uint32_t> next;
    for (const std::uint32_t base : out)
      for (std::uint64_t i = ranges[d].begin; i < ranges[d].end; ++i)
        next.push_back(static_cast<std::uint32_t>(base * shape[d] + i));
    out = std::move(next);
  }
  return out;
}

void expect_slices(const TensorPtr& tensor, std::string_view text) {
  std::vector<Range> ranges;
  try {
    ranges = parse_slice(text, tensor->shape());
  } catch (const Error& e) {
    expect(e.fault() == Fault::Usage, e.what());
    return;
  }
  expect(ranges.size() == tensor->shape().size(), "a range for each dimension");
  for (std::size_t d = 0; d < ranges.size(); ++d)
    expect(ranges[d].begin <= ranges[d].end && ranges[d].end <= tensor->shape()[d],
           "a range beyond the shape");
  const TensorPtr part = slice(tensor, ranges);
  Buffer bytes(part->bytes());
  Scratch scratch;
  if (part->elements() > 0) part->read(part->whole(), bytes, scratch);
  const std::vector<std::uint32_t> want = expected(tensor->shape(), ranges);
  expect(part->elements() == want.size(), "another number of elements");
  for (std::size_t i = 0; i < want.size(); ++i)
    expect(load<std::uint32_t>(bytes, i) == want[i], "other elements");
}

void run(Bytes input) {
  static const std::array kTensors{counting({}),     counting({7}),       counting({3, 4}),
                                   counting({0, 5}), counting({2, 3, 4}), counting({1, 1, 2, 3})};
  const std::string_view text = as_text(input);
  const Wanted wanted = split_slice(text);
  expect(wanted.name.size() + wanted.slice.size() + (wanted.sliced ? 2 : 0) == text.size(),
         "a name and a slice that are not the text");
  for (const TensorPtr& t : kTensors) {
    expect_slices(t, text);
    if (wanted.sliced) expect_slices(t, wanted.slice);
  }
}

}  // namespace

extern const Target kSlice;
const Target kSlice{"slice", run};

}  // namespace wtool::fuzz
