#include "tests/fuzz/readers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include <fmt/format.h>

#include "formats/registry.h"
#include "lib/base/text.h"
#include "lib/numeric/codec.h"
#include "tests/fuzz/work_folder.h"

namespace wtool::fuzz {
namespace {

constexpr std::array kModes{Diagnostics::Mode::Throw, Diagnostics::Mode::Lenient,
                            Diagnostics::Mode::Collect};
constexpr std::uint64_t kUnit = 4096;  // elements: several boxes even of small tensors

bool take(Budget& budget, std::uint64_t bytes) {
  if (bytes > budget.bytes) return false;
  budget.bytes -= bytes;
  return true;
}

void expect_decodes(const Tensor& tensor, const Box& box, Scratch& scratch) {
  if (!find_codec(tensor.dtype())) return;
  std::vector<float> narrow(box.elements());
  read_f32(tensor, box, narrow, scratch);
  std::vector<double> wide(box.elements());
  read_f64(tensor, box, wide, scratch);
}

void read_boxes(const Tensor& tensor, const Tiling& tiling, Budget& budget, Buffer* into) {
  Scratch scratch;
  Buffer bytes;
  for (std::uint64_t i = 0; i < tiling.units(); ++i) {
    const Box box = tiling.box(i);
    const std::uint64_t size = checked_size(tensor.dtype(), box.elements());
    const bool last = !take(budget, size + box.elements() * 12);
    bytes.resize(size);
    tensor.read(box, bytes, scratch);
    expect_decodes(tensor, box, scratch);
    if (into) append(*into, Bytes(bytes));
    if (last) break;
  }
}

// Boxes of whole rows lie one after another, so what they give is the whole.
void expect_same_in_pieces(const Tensor& tensor, Budget& budget) {
  constexpr std::uint64_t kMost = 1 << 16;
  const Box whole = tensor.whole();
  if (whole.elements() == 0 || tensor.bytes() > kMost || !take(budget, 2 * tensor.bytes())) return;
  Scratch scratch;
  Buffer all(tensor.bytes()), pieces;
  tensor.read(whole, all, scratch);
  const std::uint64_t rows = ceil_div(whole.rows, 3);
  for (std::uint64_t r = 0; r < whole.rows; r += rows) {
    const Box box{r, std::min(rows, whole.rows - r), 0, whole.cols};
    Buffer piece(checked_size(tensor.dtype(), box.elements()));
    tensor.read(box, piece, scratch);
    append(pieces, Bytes(piece));
  }
  expect(pieces == all, "a tensor reads differently in pieces");
}

void read_metadata(const Metadata& meta) {
  for (const MetaEntry& e : meta) {
    static_cast<void>(to_text(e.value));
    const auto* array = std::get_if<MetaArray>(&e.value);
    std::uint64_t elements = 0;
    if (array) for_each(*array, [&](const MetaValue&) { return ++elements < 10'000; });
    if (array)
      expect(elements == std::min<std::uint64_t>(array->count, 10'000), "an array is short");
  }
}

std::vector<OutTensor> outputs_for(const Catalog& catalog) {
  std::vector<OutTensor> out;
  for (const TensorEntry& t : catalog.entries())
    out.push_back({std::string(t.name), t.dtype, Shape(t.shape.begin(), t.shape.end())});
  return out;
}

// The file that the layout describes, with the tensors' bytes in it.
Buffer written(const Layout& layout, const Catalog& catalog) {
  Buffer file(layout.total_bytes);
  std::ranges::copy(layout.head, file.begin());
  for (const Layout::Piece& p : layout.pieces)
    std::ranges::copy(p.bytes, MutableBytes(file).subspan(p.offset, p.bytes.size()).begin());
  Scratch scratch;
  for (std::size_t i = 0; i < catalog.entries().size(); ++i) {
    const TensorPtr t = stored(catalog, catalog.entries()[i]);
    t->read(t->whole(), MutableBytes(file).subspan(layout.offsets[i], t->bytes()), scratch);
  }
  return file;
}

void expect_same_catalog(const Catalog& a, const Catalog& b) {
  expect(a.entries().size() == b.entries().size(), "written: another number of tensors");
  Scratch scratch;
  for (const TensorEntry& t : a.entries()) {
    // NPY has no names.
    const TensorEntry* same = a.entries().size() == 1 ? &b.entries()[0] : b.find(t.name);
    expect(same && same->dtype == t.dtype && std::ranges::equal(same->shape, t.shape),
           "written: another tensor");
    const TensorPtr x = stored(a, t), y = stored(b, *same);
    Buffer left(x->bytes()), right(y->bytes());
    x->read(x->whole(), left, scratch);
    y->read(y->whole(), right, scratch);
    expect(left == right, "written: other values");
  }
  expect(a.meta.size() == b.meta.size(), "written: another number of metadata");
  for (const MetaEntry& e : a.meta) {
    const MetaValue* same = b.meta.find(e.key);
    expect(same && same->index() == e.value.index() && to_text(*same) == to_text(e.value),
           "written: other metadata");
  }
}

// What was accepted can be written, and then says the same.
void expect_writes(const Format& format, const Catalog& catalog, const Registry& registry) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 20;
  const std::vector<OutTensor> out = outputs_for(catalog);
  if (!format.layout || (format.refuses_meta && format.refuses_meta(catalog.meta))) return;
  for (const OutTensor& t : out)
    if (format.refuses(t)) return;
  Layout layout;
  try {
    layout = format.layout(catalog.meta, out);
  } catch (const Error& e) {
    expect(e.fault() == Fault::Usage || e.fault() == Fault::Unsupported, e.what());
    return;
  }
  if (layout.total_bytes > kMost) return;
  Diagnostics faults;
  Catalog again;
  try {
    again = read_catalog(from_memory("written", written(layout, catalog)), registry, faults);
  } catch (const Error& e) {
    finding(fmt::format("what was written is refused: {}", e.what()));
  }
  expect_same_catalog(catalog, again);
}

void read_in_mode(Diagnostics::Mode mode, const Registry& registry, const SourcePtr& file) {
  Diagnostics faults(mode);
  Catalog catalog;
  try {
    catalog = read_catalog(file, registry, faults);
  } catch (const Error& e) {
    return expect_honest(e);
  }
  try {
    Budget budget;
    read_metadata(catalog.meta);
    for (const TensorEntry& t : catalog.entries())
      expect_reads(*stored(catalog, t), Values::Stored, budget);
  } catch (const Error& e) {
    finding(fmt::format("accepted, but does not read: {}", e.what()));
  }
  if (mode == Diagnostics::Mode::Throw) expect_writes(*registry.formats[0], catalog, registry);
}

void open_in_mode(Diagnostics::Mode mode, const std::string& path) {
  const Registry registry = all_formats();
  Diagnostics faults(mode);
  try {
    const auto model = open_model(path, registry, {}, faults);
    Budget budget;
    read_metadata(model->catalog.meta);
    for (const LogicalTensor& t : model->tensors) {
      TensorPtr values;
      try {
        values = model->open(t);
      } catch (const Error& e) {
        expect_honest(e);
        expect(t.count > 1 || t.scheme != registry.schemes.back(), "a plain tensor does not open");
        continue;
      }
      expect(values->dtype() == t.dtype, "opened as another type than it was announced");
      expect(std::ranges::equal(values->shape(), t.shape), "opened in another shape");
      expect_reads(*values, t.scheme == registry.schemes.back() ? Values::Stored : Values::Decoded,
                   budget);
    }
  } catch (const Error& e) {
    expect_honest(e);
  }
}

}  // namespace

void expect_honest(const Error& error) {
  expect(error.fault() != Fault::Internal, error.what());
  expect(!error.text().empty(), "an error without a text");
}

void expect_reads(const Tensor& tensor, Values values, Budget& budget) {
  try {
    expect_same_in_pieces(tensor, budget);
    read_boxes(tensor, Tiling::of(tensor, 1, kUnit), budget, nullptr);
  } catch (const Error& e) {
    if (values == Values::Stored) finding(fmt::format("a tensor does not read: {}", e.what()));
    expect_honest(e);
  }
}

void run_reader(const Format& format, Bytes input) {
  Registry registry = all_formats();
  const std::array one{&format};
  registry.formats = one;
  const SourcePtr file = from_memory("input", Buffer(input.begin(), input.end()));
  for (const Diagnostics::Mode mode : kModes) read_in_mode(mode, registry, file);
}

void run_folder(const std::vector<FolderFile>& files) {
  WorkFolder folder("model");
  for (const FolderFile& f : files) folder.write(f.name, f.content);
  for (const Diagnostics::Mode mode : kModes) open_in_mode(mode, folder.path());
}

}  // namespace wtool::fuzz
