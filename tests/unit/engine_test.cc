#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <thread>

#include "lib/base/error.h"
#include "lib/engine/execute.h"
#include "tests/catch.h"
#include "tests/unit/temp_folder.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

std::string get(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
template <class F>
Error thrown(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  FAIL("nothing was thrown");
  throw 0;
}

RunOptions threads(unsigned n) {
  RunOptions options;
  options.threads = n;
  return options;
}

// A container for tests: "HEAD" and the tensors on multiples of 8.
Layout layout_of(const Metadata&, std::span<const OutTensor> tensors) {
  Layout out{.head = to_buffer("HEAD"), .offsets = {}, .total_bytes = 4};
  for (const OutTensor& t : tensors) {
    out.offsets.push_back(align_up(out.total_bytes, 8));
    out.total_bytes = out.offsets.back() + t.bytes();
  }
  return out;
}
std::optional<std::string> refuses_f64(const OutTensor& t) {
  return t.dtype == DType::F64 ? std::optional<std::string>("f64 is too fine") : std::nullopt;
}
Layout overlapping(const Metadata&, std::span<const OutTensor> tensors) {
  return {.head = {}, .offsets = std::vector<std::uint64_t>(tensors.size(), 0), .total_bytes = 99};
}
// The same with marks of its own: between the tensors, and at the end.
Layout marked(const Metadata& meta, std::span<const OutTensor> tensors) {
  Layout out = layout_of(meta, tensors);
  out.pieces = {{out.total_bytes, to_buffer("END")}, {out.offsets.back() - 2, to_buffer("<")}};
  out.total_bytes += 3;
  return out;
}
Layout marked_wrongly(const Metadata& meta, std::span<const OutTensor> tensors) {
  Layout out = layout_of(meta, tensors);
  out.pieces = {{out.offsets.back() - 1, to_buffer("<<")}};
  return out;
}
const Format kTest{.name = "test",
                   .summary = "for tests",
                   .suffixes = {},
                   .detect = nullptr,
                   .read = nullptr,
                   .refuses = refuses_f64,
                   .layout = layout_of};

// A step made of functions.
struct Made : Step {
  explicit Made(std::vector<OutTensor> outputs = {}) : Step(std::move(outputs)) {}
  std::uint64_t n = 1;
  std::function<void(std::uint64_t, std::vector<Span>&)> where;
  std::function<std::optional<Extent>(std::uint64_t)> ready;
  std::function<void(const Unit&)> work;
  std::function<void(std::uint64_t, Buffer&)> take;
  std::uint64_t units() const override { return n; }
  void spans(std::uint64_t unit, std::vector<Span>& add_to) const override {
    if (where) where(unit, add_to);
  }
  std::optional<Extent> raw(std::uint64_t unit) const override {
    return ready ? ready(unit) : std::nullopt;
  }
  void run(const Unit& unit) const override {
    if (work) work(unit);
  }
  void fold(std::uint64_t unit, Buffer& found) override {
    if (take) take(unit, found);
  }
};

std::unique_ptr<Made> bytes_step(std::string name, std::string_view text) {
  auto step =
      std::make_unique<Made>(std::vector<OutTensor>{{std::move(name), DType::U8, {text.size()}}});
  step->where = [text](std::uint64_t, std::vector<Span>& s) { s.push_back({0, 0, text.size()}); };
  step->work = [text](const Unit& u) { std::ranges::copy(as_bytes(text), u.out[0].begin()); };
  return step;
}
std::string run_to_file(Plan& plan, unsigned n = 2) {
  const TempFolder dir;
  OutputSet out(dir / "out", OutputSet::Kind::File, OutputSet::Existing::Refuse);
  execute(plan, threads(n), &out);
  out.commit();
  return get(dir / "out");
}
OutFile test_file(std::string name, std::size_t tensors) {
  return {std::move(name), &kTest, {}, tensors};
}

}  // namespace

TEST_CASE("engine: units run once each and are folded in order", "[engine]") {
  for (const unsigned n : {1u, 2u, 3u, 8u}) {
    std::mutex mutex;
    std::set<std::uint64_t> seen;
    std::vector<std::uint64_t> folded;
    std::atomic<unsigned> most_worker{0};
    std::atomic<bool> twice{false};  // Catch's own checks are for one thread at a time
    run_in_order(
        500, threads(n),
        [&](std::uint64_t unit, unsigned worker, Buffer& found) {
          if (unit % 7 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
          append(found, unit);
          most_worker = std::max(most_worker.load(), worker);
          const std::scoped_lock lock(mutex);
          if (!seen.insert(unit).second) twice = true;
        },
        [&](std::uint64_t unit, Buffer& found) {
          folded.push_back(load<std::uint64_t>(found) == unit ? unit : ~std::uint64_t{0});
        });
    CHECK(seen.size() == 500);
    REQUIRE(folded.size() == 500);
    CHECK(std::ranges::is_sorted(folded));
    CHECK(most_worker < n);
    CHECK(!twice);
  }
}

TEST_CASE("engine: no unit starts far ahead of the oldest unfolded one", "[engine]") {
  std::atomic<std::uint64_t> folded{0}, furthest{0};
  run_in_order(
      2000, threads(4),
      [&](std::uint64_t unit, unsigned, Buffer&) {
        if (unit == 100) std::this_thread::sleep_for(std::chrono::milliseconds(30));
        furthest = std::max(furthest.load(), unit - std::min(unit, folded.load()));
      },
      [&](std::uint64_t, Buffer&) { ++folded; });
  CHECK(folded == 2000);
  CHECK(furthest < 64);
}

TEST_CASE("engine: the lowest failing unit's error is thrown, whichever failed first", "[engine]") {
  for (int round = 0; round < 20; ++round) {
    const Error e = thrown([&] {
      run_in_order(
          100, threads(8),
          [&](std::uint64_t unit, unsigned, Buffer&) {
            if (unit == 11) std::this_thread::sleep_for(std::chrono::milliseconds(3));
            if (unit >= 11) throw Error(Fault::BadFile, std::to_string(unit));
          },
          [&](std::uint64_t unit, Buffer&) {
            if (unit >= 11) std::abort();
          });
    });
    CHECK(e.text() == "11");
  }
}

TEST_CASE("engine: an error in a fold is thrown and nothing is folded after it", "[engine]") {
  std::atomic<int> after{0};
  const Error e = thrown([&] {
    run_in_order(
        100, threads(3), [](std::uint64_t, unsigned, Buffer&) {},
        [&](std::uint64_t unit, Buffer&) {
          if (unit == 20) throw Error(Fault::Io, "fold");
          if (unit > 20) ++after;
        });
  });
  CHECK(e.text() == "fold");
  CHECK(after == 0);
}

TEST_CASE("engine: a signal cancels at the next unit", "[engine]") {
  std::atomic<int> signal{0}, ran{0};
  RunOptions options = threads(2);
  options.stop_signal = &signal;
  const Error e = thrown([&] {
    run_in_order(
        100'000, options,
        [&](std::uint64_t unit, unsigned, Buffer&) {
          ++ran;
          if (unit == 50) signal = 2;
        },
        [](std::uint64_t, Buffer&) {});
  });
  CHECK(e.fault() == Fault::Cancelled);
  CHECK(ran < 100);
}

TEST_CASE("engine: progress is told in order, seldom, and to the end", "[engine]") {
  std::uint64_t last = 0, calls = 0;
  RunOptions options = threads(4);
  options.progress = [&](std::uint64_t done, std::uint64_t of) {
    CHECK(done > last);  // one thread at a time, as folds are
    CHECK(of == 20'000);
    last = done;
    ++calls;
  };
  run_in_order(
      20'000, options, [](std::uint64_t, unsigned, Buffer&) {}, [](std::uint64_t, Buffer&) {});
  CHECK(last == 20'000);
  CHECK(calls < 2000);
  run_in_order(0, options, {}, {});  // nothing to do is no error
}

TEST_CASE("engine: heads, tensors and gaps lie where the layout says", "[engine]") {
  Plan plan;
  plan.files.push_back(test_file("f", 2));
  plan.steps.push_back(bytes_step("a", "abc"));
  plan.steps.push_back(bytes_step("b", "de"));
  CHECK(run_to_file(plan) == std::string("HEAD\0\0\0\0abc\0\0\0\0\0de", 18));
}

TEST_CASE("engine: a format's own bytes lie among and after the tensors", "[engine]") {
  Format format = kTest;
  format.layout = marked;
  Plan plan;
  plan.files.push_back({"f", &format, {}, 2});
  plan.steps.push_back(bytes_step("a", "abc"));
  plan.steps.push_back(bytes_step("b", "de"));
  CHECK(run_to_file(plan) == std::string("HEAD\0\0\0\0abc\0\0\0<\0deEND", 21));
  format.layout = marked_wrongly;
  CHECK(thrown([&] { place(plan); }).fault() == Fault::Internal);
}

TEST_CASE("engine: strips are closed up for the step and spread in the file", "[engine]") {
  Plan plan;
  plan.files.push_back(test_file("f", 1));
  auto step = std::make_unique<Made>(std::vector<OutTensor>{{"t", DType::U8, {3, 4}}});
  step->n = 2;
  step->where = [](std::uint64_t unit, std::vector<Span>& s) {
    s.push_back({0, 2 * unit, 2, 3, 4});
  };
  step->work = [](const Unit& u) {
    if (u.out[0].size() != 6) throw std::logic_error("not closed up");
    std::ranges::copy(as_bytes(u.index == 0 ? "abcdef" : "ABCDEF"), u.out[0].begin());
  };
  plan.steps.push_back(std::move(step));
  CHECK(run_to_file(plan).substr(8) == "abABcdCDefEF");
}

TEST_CASE("engine: big-endian outputs are swapped after the step", "[engine]") {
  Plan plan;
  plan.files.push_back(test_file("f", 1));
  auto step = std::make_unique<Made>(std::vector<OutTensor>{{"t", DType::U16, {2}}});
  step->where = [](std::uint64_t, std::vector<Span>& s) { s.push_back({0, 0, 4}); };
  step->ready = [](std::uint64_t) -> std::optional<Extent> { throw std::logic_error("asked"); };
  step->work = [](const Unit& u) { std::ranges::copy(as_bytes("abcd"), u.out[0].begin()); };
  step->set_big_endian();
  plan.steps.push_back(std::move(step));
  CHECK(run_to_file(plan).substr(8) == "badc");
}

TEST_CASE("engine: what lies ready is copied, and run() is left out", "[engine]") {
  Plan plan;
  plan.files.push_back(test_file("f", 1));
  auto step = std::make_unique<Made>(std::vector<OutTensor>{{"t", DType::U8, {3}}});
  step->where = [](std::uint64_t, std::vector<Span>& s) { s.push_back({0, 0, 3}); };
  step->ready = [](std::uint64_t) {
    return std::optional<Extent>({from_memory("m", to_buffer("xabcx")), 1, 3});
  };
  step->work = [](const Unit&) { throw std::logic_error("run"); };
  plan.steps.push_back(std::move(step));
  CHECK(run_to_file(plan).substr(8) == "abc");
}

TEST_CASE("engine: measures come first, and all steps report in order", "[engine]") {
  struct Reporting : Made {
    using Made::Made;
    std::string name;
    void report(Report& to) const override { to.rows.push_back({name, {}}); }
  };
  Plan plan;
  auto measure = std::make_shared<Made>();
  std::uint64_t sum = 0;
  std::atomic<bool> too_early{false};
  measure->n = 10;
  measure->work = [](const Unit& u) { append(u.found, u.index); };
  measure->take = [&sum](std::uint64_t, Buffer& found) { sum += load<std::uint64_t>(found); };
  plan.measures.push_back(measure);
  for (const char* name : {"one", "two"}) {
    auto step = std::make_unique<Reporting>();
    step->name = name;
    step->work = [&sum, &too_early](const Unit&) { too_early = too_early || sum != 45; };
    plan.steps.push_back(std::move(step));
  }
  const Report report = execute(plan, threads(3));  // no files, no outputs
  CHECK(!too_early);
  REQUIRE(report.rows.size() == 2);
  CHECK(report.rows[0].tensor == "one");
  CHECK(report.rows[1].tensor == "two");
}

TEST_CASE("engine: an appended file takes what fold leaves, in order", "[engine]") {
  for (const unsigned n : {1u, 4u}) {
    Plan plan;
    plan.files.push_back({"f", nullptr, {}, 0});
    auto step = std::make_unique<Made>();
    step->n = 30;
    step->work = [](const Unit& u) {
      append(u.found, as_bytes(std::to_string(u.index * u.index) + ","));
    };
    step->take = [](std::uint64_t unit, Buffer& found) {
      if (unit == 2) found = to_buffer("(two)");
    };
    plan.steps.push_back(std::move(step));
    const std::string got = run_to_file(plan, n);
    CHECK(got.substr(0, 14) == "0,1,(two)9,16,");
    CHECK(got.ends_with(",841,"));
  }
}

TEST_CASE("engine: several files and side files make a folder", "[engine]") {
  const TempFolder dir;
  Plan plan;
  plan.files.push_back(test_file("one", 1));
  plan.files.push_back(test_file("sub/two", 1));
  plan.side.push_back({"config.json", from_memory("config.json", to_buffer("{}"))});
  plan.steps.push_back(bytes_step("a", "abc"));
  plan.steps.push_back(bytes_step("b", "de"));
  OutputSet out(dir / "model", OutputSet::Kind::Folder, OutputSet::Existing::Refuse);
  CHECK(place(plan).total_bytes == 11 + 10 + 2);
  execute(plan, threads(2), &out);
  CHECK(out.total_bytes() == 11 + 10 + 2);
  out.commit();
  CHECK(get(dir / "model/one").substr(8) == "abc");
  CHECK(get(dir / "model/sub/two").substr(8) == "de");
  CHECK(get(dir / "model/config.json") == "{}");
}

TEST_CASE("engine: every tensor that a format refuses is named at once", "[engine]") {
  Plan plan;
  plan.files.push_back(test_file("f", 30));
  for (int i = 0; i < 30; ++i) {
    const DType type = i < 25 ? DType::F64 : DType::U8;
    plan.steps.push_back(
        std::make_unique<Made>(std::vector<OutTensor>{{"t" + std::to_string(i), type, {1}}}));
  }
  const Error e = thrown([&] { place(plan); });
  CHECK(e.fault() == Fault::Usage);
  CHECK(e.where() == "f");
  CHECK(e.text().find("test cannot hold 25 of 30 tensors: 't0', 't1', 't2'") == 0);
  CHECK(e.text().find("'t19'") != std::string::npos);
  CHECK(e.text().find("'t20'") == std::string::npos);
  CHECK(e.text().ends_with("'t19' and 5 more: f64 is too fine"));
}

TEST_CASE("engine: names that meet are refused before any work", "[engine]") {
  Plan plan;
  plan.files.push_back(test_file("f", 2));
  plan.steps.push_back(bytes_step("a", "x"));
  plan.steps.push_back(bytes_step("a", "y"));
  CHECK(thrown([&] { place(plan); }).text() == "two tensors would be named 'a'");
  Plan files;
  files.files.push_back(test_file("f", 0));
  files.side.push_back({"f", from_memory("f", {})});
  CHECK(thrown([&] { place(files); }).text() == "two files would be named 'f'");
}

TEST_CASE("engine: bugs in formats and steps do not reach the file", "[engine]") {
  Format broken = kTest;
  broken.layout = overlapping;
  Plan plan;
  plan.files.push_back({"f", &broken, {}, 2});
  plan.steps.push_back(bytes_step("a", "x"));
  plan.steps.push_back(bytes_step("b", "y"));
  CHECK(thrown([&] { place(plan); }).fault() == Fault::Internal);

  const std::vector<Span> wrong{{0, 2, 2},
                                {0, 0, 4},
                                {1, 0, 1},
                                {0, 0, 1, 0, 0},
                                {0, 0, 1, 2, 3},
                                {0, 0, 2, 2, 1},
                                {0, 0, 1, ~std::uint64_t{0}, ~std::uint64_t{0}},
                                {0, 0, 2}};
  for (const Span& span : wrong) {
    INFO(span.output << " " << span.offset << " " << span.bytes << " " << span.count);
    Plan bad;
    bad.files.push_back(test_file("f", 1));
    auto step = bytes_step("a", "xyz");
    step->where = [&span](std::uint64_t, std::vector<Span>& s) { s.push_back(span); };
    step->work = {};
    bad.steps.push_back(std::move(step));
    CHECK(thrown([&] { run_to_file(bad); }).fault() == Fault::Internal);
  }
}

TEST_CASE("engine: working memory is sixteen mebibytes a thread and 64", "[engine]") {
  CHECK(working_memory(1) == std::uint64_t{80} << 20);
  CHECK(working_memory(8) == std::uint64_t{192} << 20);
}

}  // namespace wtool
