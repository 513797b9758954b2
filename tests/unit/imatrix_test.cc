// Importance matrices in both forms. The files are put together here, number by number; what their
// importances are is worked out by hand: value / calls, in_sum2 / count.
#include "formats/imatrix.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <random>

#include <unistd.h>

#include "formats/registry.h"
#include "lib/base/error.h"
#include "lib/engine/execute.h"
#include "tests/catch.h"
#include "tests/unit/temp_folder.h"

using namespace wtool;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

struct DatEntry {
  std::string name;
  std::int32_t calls;
  std::vector<float> values;
};
Buffer dat(std::span<const DatEntry> entries) {
  Buffer out;
  append(out, static_cast<std::int32_t>(entries.size()));
  for (const DatEntry& e : entries) {
    append(out, static_cast<std::int32_t>(e.name.size()));
    append(out, as_bytes(e.name));
    append(out, e.calls);
    append(out, static_cast<std::int32_t>(e.values.size()));
    append(out, std::as_bytes(std::span(e.values)));
  }
  return out;
}
Buffer with_tail(Buffer out, std::int32_t chunks, std::string_view dataset) {
  append(out, chunks);
  append(out, static_cast<std::int32_t>(dataset.size()));
  append(out, as_bytes(dataset));
  return out;
}
const std::vector<DatEntry> kEntries{{"blk.0.attn_q.weight", 4, {8, 2, 0, 1}},
                                     {"blk.0.ffn_up.weight", 3, {1, 6}}};
Buffer sample() {
  return with_tail(dat(kEntries), 7, "wiki.txt");
}

// Tensors for a GGUF file, and their values.
struct Given {
  std::string name;
  Shape shape;
  std::vector<float> values;
};
struct Values final : Step {
  explicit Values(const Given& g) : Step({{g.name, DType::F32, g.shape}}), values_(g.values) {}
  std::uint64_t units() const override { return 1; }
  void spans(std::uint64_t, std::vector<Span>& add_to) const override {
    add_to.push_back({0, 0, values_.size() * sizeof(float)});
  }
  void run(const Unit& unit) const override {
    std::ranges::copy(std::as_bytes(std::span(values_)), unit.out[0].begin());
  }
  std::vector<float> values_;
};
Metadata meta_of(std::vector<std::string> datasets, std::uint32_t chunks, std::uint32_t size) {
  Metadata meta;
  meta.set("general.type", std::string("imatrix"));
  const std::vector<MetaValue> names(datasets.begin(), datasets.end());
  meta.set("imatrix.datasets", array_of(MetaType::String, names));
  meta.set("imatrix.chunk_count", chunks);
  meta.set("imatrix.chunk_size", size);
  return meta;
}

class Folder {
 public:
  std::string path(const std::string& name) const { return folder_ / name; }
  std::string put(const std::string& name, const Buffer& bytes) const {
    std::ofstream(path(name), std::ios::binary) << as_text(bytes);
    return path(name);
  }
  Buffer get(const std::string& name) const {
    return read_all({open_file(path(name)), 0, std::filesystem::file_size(path(name))});
  }
  std::string write(const std::string& name, const Format& format, Metadata meta,
                    std::vector<std::unique_ptr<Step>> steps) const {
    Plan plan;
    plan.files.push_back({name, &format, std::move(meta), steps.size()});
    plan.steps = std::move(steps);
    OutputSet out(path(name), OutputSet::Kind::File, OutputSet::Existing::Refuse);
    execute(plan, {}, &out);
    out.commit();
    return path(name);
  }
  std::string put_gguf(const std::string& name, Metadata meta,
                       const std::vector<Given>& tensors) const {
    std::vector<std::unique_ptr<Step>> steps;
    for (const Given& g : tensors) steps.push_back(std::make_unique<Values>(g));
    return write(name, kGguf, std::move(meta), std::move(steps));
  }

 private:
  TempFolder folder_;
};

std::shared_ptr<const Model> open(const std::string& path) {
  Diagnostics faults;
  return open_model(path, all_formats(), {}, faults);
}
std::vector<float> values_of(const Importance& matrix, std::string_view weight) {
  const auto* e = matrix.find(weight);
  REQUIRE(e);
  std::vector<float> out(e->values);
  matrix.read(*e, 0, out);
  return out;
}
std::string why_not(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    CHECK(e.fault() != Fault::Internal);
    return e.what();
  }
  return "accepted";
}
// Read as the format alone does, whatever detect() says.
Catalog catalog_of(const Buffer& bytes, Diagnostics& faults) {
  const SourcePtr source = from_memory("m.dat", bytes);
  Catalog c;
  c.add_source(source);
  kImatrixDat.read(source, c, faults);
  return c;
}
std::string fault(const Buffer& bytes) {
  return why_not([&] {
    Diagnostics faults;
    catalog_of(bytes, faults);
  });
}
bool detected(const Buffer& bytes) {
  return kImatrixDat.detect(*from_memory("m.dat", bytes));
}
bool has(const std::string& text, std::string_view part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("imatrix: the .dat form shows the tensors and keys of the GGUF form", "[imatrix]") {
  const Folder dir;
  const auto model = open(dir.put("m.dat", sample()));
  CHECK(model->catalog.format == "imatrix");
  REQUIRE(model->tensors.size() == 4);
  const TensorEntry* sums = model->catalog.find("blk.0.ffn_up.weight.in_sum2");
  const TensorEntry* counts = model->catalog.find("blk.0.ffn_up.weight.counts");
  REQUIRE((sums && counts));
  CHECK(sums->dtype == DType::F32);
  CHECK(to_text(sums->shape) == "[2]");
  CHECK(to_text(counts->shape) == "[1]");
  const Buffer stored = read_all(model->catalog.extent(*sums));
  CHECK(load<float>(stored, 0) == 1);
  CHECK(load<float>(stored, 1) == 6);
  CHECK(load<std::int32_t>(read_all(model->catalog.extent(*counts))) == 3);
  const Metadata& meta = model->catalog.meta;
  CHECK(meta.text("general.type") == "imatrix");
  CHECK(meta.count("imatrix.chunk_count") == 7);
  CHECK(meta.count("imatrix.chunk_size") == 1);
  REQUIRE(meta.find("imatrix.datasets"));
  CHECK(to_text(*meta.find("imatrix.datasets")) == "[wiki.txt]");
}

TEST_CASE("imatrix: a .dat entry's importance is value / calls", "[imatrix]") {
  const Folder dir;
  const auto matrix = Importance::read(open(dir.put("m.dat", sample())));
  CHECK(matrix.entries().size() == 2);
  CHECK(values_of(matrix, "blk.0.attn_q.weight") == std::vector<float>{2, 0.5f, 0, 0.25f});
  CHECK(values_of(matrix, "blk.0.ffn_up.weight") == std::vector<float>{1.0f / 3.0f, 2});
  CHECK(matrix.find("blk.0.ffn_up") == nullptr);
  CHECK(matrix.chunk_count() == 7);
  REQUIRE(matrix.datasets().size() == 1);
  CHECK(matrix.datasets()[0] == "wiki.txt");
}

TEST_CASE("imatrix: a GGUF entry's importance is in_sum2 / count, 1 where the count is 0",
          "[imatrix]") {
  const Folder dir;
  // Three experts of two columns, the second never asked.
  const auto path = dir.put_gguf("m.gguf", meta_of({"a.txt", "b.txt"}, 12, 512),
                                 {{"e.in_sum2", {3, 2}, {8, 4, 9, 9, 3, 1}},
                                  {"e.counts", {3, 1}, {4, 0, 2}},
                                  {"e.in_sum", {3, 2}, {-1, -1, -1, -1, -1, -1}},
                                  {"d.in_sum2", {4}, {10, 20, 30, 40}},
                                  {"d.counts", {1}, {10}}});
  const auto matrix = Importance::read(open(path));
  REQUIRE(matrix.entries().size() == 2);
  CHECK(values_of(matrix, "e") == std::vector<float>{2, 1, 1, 1, 1.5f, 0.5f});
  CHECK(values_of(matrix, "d") == std::vector<float>{1, 2, 3, 4});
  CHECK(matrix.find("e")->counts.size() == 3);
  CHECK(matrix.chunk_count() == 12);
  CHECK(matrix.chunk_size() == 512);
  CHECK(matrix.datasets().size() == 2);
  std::vector<float> middle(3);  // across the borders of experts
  matrix.read(*matrix.find("e"), 1, middle);
  CHECK(middle == std::vector<float>{1, 1, 1});
  matrix.read(*matrix.find("e"), 3, middle);
  CHECK(middle == std::vector<float>{1, 1.5f, 0.5f});
  CHECK_THROWS_AS(matrix.read(*matrix.find("e"), 4, middle), Error);
}

TEST_CASE("imatrix: an entry fits a weight by its columns times its matrices", "[imatrix]") {
  const Importance::Entry entry{"w", 12, {1}, 0, 0};
  const auto says = [&](const Shape& shape) { return Importance::mismatch(entry, shape); };
  CHECK(!says({5, 12}));
  CHECK(!says({12}));
  CHECK(!says({3, 7, 4}));
  CHECK(!says({2, 3, 7, 4}));
  CHECK(says({7, 4}) == "the importance matrix has 12 values, but [7, 4] wants 4 (4 columns x 1)");
  CHECK(says({2, 7, 4}) ==
        "the importance matrix has 12 values, but [2, 7, 4] wants 8 (4 columns x 2)");
  const std::uint64_t huge = std::uint64_t{1} << 40;
  CHECK(has(*says({huge, 1, huge}), "more than 2^64"));
}

TEST_CASE("imatrix: values that cannot be an importance are named with their place", "[imatrix]") {
  const Folder dir;
  int n = 0;
  const auto says = [&](const std::vector<Given>& tensors) {
    const auto path = dir.put_gguf(std::to_string(++n) + ".gguf", meta_of({}, 1, 1), tensors);
    return why_not([&] { Importance::read(open(path)); });
  };
  const Given counts{"w.counts", {1}, {2}};
  for (const float v : {kNan, kInf, -kInf, -1.0f}) {
    const auto text = says({{"w.in_sum2", {3}, {1, v, 1}}, counts});
    CHECK(has(text, "importance of 'w': sum 1 of 3 is "));
  }
  CHECK(says({{"w.in_sum2", {2}, {0, -0.0f}}, counts}) == "accepted");
  for (const float c : {kNan, kInf, -1.0f, 2.5f})
    CHECK(has(says({{"w.in_sum2", {2}, {1, 1}}, {"w.counts", {2, 1}, {1, c}}}), "count 1 is "));
  CHECK(has(says({{"w.in_sum2", {3}, {1, 1, 1}}, {"w.counts", {2, 1}, {1, 1}}}),
            "3 sums for 2 counts"));
  CHECK(has(says({{"w.in_sum2", {1}, {1}}}), "has '.in_sum2' but no '.counts'"));
  CHECK(has(says({counts}), "has '.counts' but no '.in_sum2'"));
  CHECK(has(says({{"w.weight", {1}, {1}}}), "is no importance matrix"));
}

TEST_CASE("imatrix: metadata of another type than the keys have is refused", "[imatrix]") {
  const Folder dir;
  const std::vector<Given> tensors{{"w.in_sum2", {1}, {1}}, {"w.counts", {1}, {1}}};
  Metadata meta = meta_of({}, 1, 1);
  meta.set("imatrix.chunk_count", std::string("many"));
  const auto text = dir.put_gguf("text.gguf", meta, tensors);
  CHECK(has(why_not([&] { Importance::read(open(text)); }),
            "imatrix.chunk_count is str many, not a whole number"));
  meta = meta_of({}, 1, 1);
  meta.set("imatrix.datasets", std::uint32_t{1});
  const auto number = dir.put_gguf("number.gguf", meta, tensors);
  CHECK(has(why_not([&] { Importance::read(open(number)); }), "is no array of strings"));
}

TEST_CASE("imatrix: a .dat file may end with its entries or with the number of chunks",
          "[imatrix]") {
  Diagnostics faults;
  const Catalog bare = catalog_of(dat(kEntries), faults);
  CHECK(bare.entries().size() == 4);
  CHECK(bare.meta.count("imatrix.chunk_count") == 0);
  Buffer chunks = dat(kEntries);
  append(chunks, std::int32_t{9});
  const Catalog counted = catalog_of(chunks, faults);
  CHECK(counted.meta.count("imatrix.chunk_count") == 9);
  CHECK(to_text(*counted.meta.find("imatrix.datasets")) == "[]");
  const Catalog unnamed = catalog_of(with_tail(dat(kEntries), 9, ""), faults);
  CHECK(to_text(*unnamed.meta.find("imatrix.datasets")) == "[]");
}

TEST_CASE("imatrix: a .dat file cut at any byte is refused, or is one of an older kind",
          "[imatrix]") {
  const Buffer whole = sample();
  const std::size_t bare = dat(kEntries).size();
  for (std::size_t n = 0; n < whole.size(); ++n) {
    INFO(n);
    const Buffer cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
    const bool older = n == bare || n == bare + 4;
    CHECK((fault(cut) == "accepted") == older);
  }
}

TEST_CASE("imatrix: lengths that the .dat file does not hold are refused before they are used",
          "[imatrix]") {
  const auto with = [](std::size_t at, std::int32_t value) {
    Buffer b = sample();
    store(MutableBytes(b).subspan(at), value);
    return b;
  };
  constexpr std::size_t kName = 4, kCalls = 8 + 19, kValues = kCalls + 4;
  const std::int32_t huge = std::numeric_limits<std::int32_t>::max();
  for (const std::int32_t bad : {0, -1, huge, std::numeric_limits<std::int32_t>::min()}) {
    INFO(bad);
    CHECK(has(fault(with(0, bad)), "entries"));
    CHECK(has(fault(with(kName, bad)), "the name has "));
    CHECK(has(fault(with(kValues, bad)), " values of 4 bytes, but "));
    CHECK_FALSE(detected(with(0, bad)));
    CHECK_FALSE(detected(with(kName, bad)));
    CHECK_FALSE(detected(with(kValues, bad)));
  }
  CHECK(has(fault(with(kCalls, 0)), "entry 'blk.0.attn_q.weight': 0 calls"));
  CHECK(has(fault(with(kCalls, -5)), "-5 calls"));
  CHECK(detected(with(kCalls, -5)));
  CHECK(has(fault(with_tail(dat(kEntries), -1, "x")), "-1 chunks"));
  Buffer long_name = with_tail(dat(kEntries), 1, "x");
  store(MutableBytes(long_name).subspan(long_name.size() - 5), huge);
  CHECK(has(fault(long_name), "the dataset's name has 2147483647 bytes"));
  Buffer trailing = sample();
  append(trailing, std::uint8_t{0});
  CHECK(has(fault(trailing), "1 bytes follow the end"));
}

TEST_CASE("imatrix: names that are double or no text are refused", "[imatrix]") {
  using namespace std::string_literals;
  const auto named = [](const std::string& a, const std::string& b) {
    const std::vector<DatEntry> entries{{a, 1, {1}}, {b, 1, {1}}};
    return dat(entries);
  };
  CHECK(fault(named("a", "b")) == "accepted");
  CHECK(has(fault(named("a", "a")), "name appears twice"));
  CHECK(has(fault(named("a", "b\0c"s)), "control character 0x00 at position 1"));
  CHECK(has(fault(named("a", "\xff")), "is not UTF-8"));
  CHECK_FALSE(detected(named("\n", "b")));
}

TEST_CASE("imatrix: only its own files are taken for a .dat file", "[imatrix]") {
  CHECK(detected(sample()));
  CHECK(detected(dat(kEntries)));
  const auto says = [](std::string_view text) { return detected(to_buffer(text)); };
  CHECK_FALSE(says(""));
  CHECK_FALSE(says("GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"));
  CHECK_FALSE(says("just some text that is longer than the least entry there can be"));
  CHECK_FALSE(detected(Buffer(4096, std::byte{0})));
  CHECK_FALSE(detected(Buffer(4096, std::byte{1})));
  std::size_t files = 0;
  for (const auto& e : std::filesystem::recursive_directory_iterator(
           std::filesystem::path(WTOOL_SOURCE_DIR) / "testdata")) {
    if (!e.is_regular_file() || e.path().extension() == ".dat") continue;
    INFO(e.path().native());
    CHECK_FALSE(kImatrixDat.detect(*open_file(e.path().native())));
    ++files;
  }
  CHECK(files > 50);
}

TEST_CASE("imatrix: a folder's .dat file is a side file, not weights", "[imatrix]") {
  const Folder dir;
  dir.put_gguf("model.gguf", {}, {{"w", {2}, {1, 2}}});
  dir.put("imatrix.dat", sample());
  dir.put("matrix", sample());
  const auto model = open(dir.path(""));
  CHECK(model->catalog.format == "gguf");
  CHECK(model->side_file("imatrix.dat"));
  CHECK(model->side_file("matrix"));
}

// ---- writing

namespace {

// What convert does: both tensors of each entry.
std::string write_dat(const Folder& dir, const std::string& name, const std::string& from) {
  const auto model = open(from);
  const auto matrix = std::make_shared<const Importance>(Importance::read(model));
  std::vector<std::unique_ptr<Step>> steps;
  for (const auto& e : matrix->entries()) {
    const auto calls = imatrix_calls(e, matrix->chunk_size().value_or(1));
    steps.push_back(imatrix_sums_step(std::string(e.name) + ".in_sum2", matrix, e, calls));
    steps.push_back(imatrix_counts_step(std::string(e.name) + ".counts", calls));
  }
  return dir.write(name, kImatrixDat, model->catalog.meta, std::move(steps));
}

}  // namespace

TEST_CASE("imatrix: a .dat file that is read and written again is the same to the byte",
          "[imatrix]") {
  const Folder dir;
  write_dat(dir, "copy.dat", dir.put("m.dat", sample()));
  CHECK((dir.get("copy.dat") == sample()));
}

TEST_CASE("imatrix: GGUF to .dat rounds counts up to chunks and keeps the importance",
          "[imatrix]") {
  const Folder dir;
  // 1,300 tokens in chunks of 512 are 3 calls; 1,024 are 2.
  const auto path = dir.put_gguf("m.gguf", meta_of({"a", "b"}, 2, 512),
                                 {{"w.in_sum2", {2}, {1024, 512}},
                                  {"w.counts", {1}, {1024}},
                                  {"e.in_sum2", {3, 1}, {1300, 7, 650}},
                                  {"e.counts", {3, 1}, {1300, 0, 650}},
                                  {"z.in_sum2", {1}, {5}},
                                  {"z.counts", {1}, {0}}});
  write_dat(dir, "m.dat", path);
  // By hand: 1024 / 1024 * 2, 512 / 1024 * 2; 1300 / 1300 * 3, 1 * 3, 650 / 650 * 3; 1.
  const std::vector<DatEntry> expected{{"w", 2, {2, 1}}, {"e", 3, {3, 3, 3}}, {"z", 1, {1}}};
  CHECK((dir.get("m.dat") == with_tail(dat(expected), 2, "b")));
}

TEST_CASE("imatrix: GGUF to .dat keeps the importance to the bit where a float allows it",
          "[imatrix]") {
  const Folder dir;
  std::mt19937 random(1);
  const auto draw = [&] { return static_cast<float>(random() >> 8) * 0x1p-10f; };
  std::vector<float> dense(5000), experts(5000);
  for (float& v : dense) v = draw();
  for (float& v : experts) v = draw();
  const auto path = dir.put_gguf("m.gguf", meta_of({}, 37, 512),
                                 {{"dense.in_sum2", {5000}, dense},
                                  {"dense.counts", {1}, {37 * 512}},
                                  {"experts.in_sum2", {2, 2500}, experts},
                                  {"experts.counts", {2, 1}, {37 * 512, 1001}}});
  const auto before = Importance::read(open(path));
  const auto after = Importance::read(open(write_dat(dir, "m.dat", path)));
  // Whole chunks of a power of two: exact. Else at most the neighbouring float.
  CHECK(values_of(after, "dense") == values_of(before, "dense"));
  const auto a = values_of(before, "experts"), b = values_of(after, "experts");
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i] != b[i]) {
      INFO(i);
      CHECK((std::nextafter(a[i], kInf) == b[i] || std::nextafter(a[i], 0.0f) == b[i]));
    }
}

TEST_CASE("imatrix: what the .dat form has no place for is refused", "[imatrix]") {
  const auto says = [](const OutTensor& t) { return kImatrixDat.refuses(t).value_or("taken"); };
  CHECK(says({"w.in_sum2", DType::F32, {2, 3}}) == "taken");
  CHECK(says({"w.counts", DType::I32, {1}}) == "taken");
  CHECK(says({"w.counts", DType::F32, {1}}) != "taken");
  CHECK(says({"w.counts", DType::I32, {2}}) != "taken");
  CHECK(says({"w.in_sum2", DType::F16, {2}}) != "taken");
  CHECK(says({"w.in_sum2", DType::F32, {0}}) != "taken");
  CHECK(says({"w.in_sum2", DType::F32, {2}, true}) != "taken");
  CHECK(says({"w.in_sum2", DType::F32, {std::uint64_t{1} << 31}}) != "taken");
  CHECK(says({".in_sum2", DType::F32, {2}}) != "taken");
  CHECK(says({"w.in_sum", DType::F32, {2}}) != "taken");
  CHECK(says({std::string(1025, 'w') + ".in_sum2", DType::F32, {2}}) != "taken");
  Metadata meta = meta_of({"a"}, 1, 1);
  CHECK(!kImatrixDat.refuses_meta(meta));
  meta.set("general.name", std::string("x"));
  CHECK(kImatrixDat.refuses_meta(meta) == "the .dat form has no place for key 'general.name'");
  const std::vector<OutTensor> lonely{{"a.in_sum2", DType::F32, {1}},
                                      {"b.counts", DType::I32, {1}}};
  CHECK_THROWS_AS(kImatrixDat.layout({}, lonely), Error);
  CHECK_THROWS_AS(kImatrixDat.layout({}, {}), Error);
}

TEST_CASE("imatrix: an importance times calls that leaves f32 is refused", "[imatrix]") {
  const Folder dir;
  const auto path = dir.put_gguf("m.gguf", meta_of({}, 4, 1),
                                 {{"w.in_sum2", {2, 1}, {1, 3e38f}}, {"w.counts", {2, 1}, {4, 1}}});
  CHECK(has(why_not([&] { write_dat(dir, "m.dat", path); }), "value 1 times 4 calls does not fit"));
}

TEST_CASE("imatrix: whatever bytes a .dat file has, its tensors can be read or it is refused",
          "[imatrix]") {
  const Buffer whole = sample();
  std::mt19937 random(7);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  constexpr std::array<std::int32_t, 8> kTelling{0, 1, -1, 2, 19, 1 << 20, 1 << 30, -(1 << 30)};
  std::size_t accepted = 0;
  for (int round = 0; round < 4000; ++round) {
    Buffer b = whole;
    for (std::size_t k = 1 + below(3); k > 0; --k) {
      if (random() % 2)
        b[below(b.size())] = static_cast<std::byte>(random());
      else
        store(MutableBytes(b).subspan(below(b.size() - 4)), kTelling[below(kTelling.size())]);
    }
    if (random() % 4 == 0) b.resize(4 + below(b.size() - 4));
    static_cast<void>(detected(b));
    for (const auto mode : {Diagnostics::Mode::Throw, Diagnostics::Mode::Collect}) {
      Diagnostics faults(mode);
      try {
        const Catalog c = catalog_of(b, faults);
        c.finish(faults);
        for (const TensorEntry& t : c.entries()) read_all(c.extent(t));
        accepted += mode == Diagnostics::Mode::Throw;
      } catch (const Error& e) {
        REQUIRE(mode == Diagnostics::Mode::Throw);
        REQUIRE(e.fault() == Fault::BadFile);
      }
    }
  }
  CHECK(accepted > 100);  // changed values are values all the same
  CHECK(accepted < 3900);
}
