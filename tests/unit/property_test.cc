#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <sys/resource.h>

#include "lib/base/error.h"
#include "lib/engine/execute.h"
#include "tests/catch.h"
#include "tests/unit/temp_folder.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kTensor = 300'007, kUnit = 4099;  // primes: borders fall anywhere
constexpr std::uint64_t kUnits = ceil_div(kTensor, kUnit);

std::byte noise(std::uint64_t seed, std::uint64_t i) {
  std::uint64_t x = (seed << 40) ^ i;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return static_cast<std::byte>(x >> 56);
}

// Fills a tensor with what looks like chance; fails, or asks to stop, at a unit if told to.
struct Noise : Step {
  Noise(std::string name, std::uint64_t seed)
      : Step({{std::move(name), DType::U8, {kTensor}}}), seed_(seed) {}
  std::uint64_t units() const override { return kUnits; }
  void spans(std::uint64_t unit, std::vector<Span>& add_to) const override {
    add_to.push_back({0, unit * kUnit, std::min(kUnit, kTensor - unit * kUnit)});
  }
  void run(const Unit& unit) const override {
    if (unit.index >= fails_from) throw Error(Fault::BadFile, fmt_unit(unit.index));
    if (unit.index == stops_at) *signal = SIGINT;
    for (std::size_t i = 0; i < unit.out[0].size(); ++i)
      unit.out[0][i] = noise(seed_, unit.index * kUnit + i);
  }
  static std::string fmt_unit(std::uint64_t i) { return "unit " + std::to_string(i); }
  std::uint64_t fails_from = ~std::uint64_t{0}, stops_at = ~std::uint64_t{0};
  std::atomic<int>* signal = nullptr;

 private:
  std::uint64_t seed_;
};

Layout layout_of(const Metadata&, std::span<const OutTensor> tensors) {
  Layout out{.head = Buffer(100, std::byte{'h'}), .offsets = {}, .total_bytes = 100};
  for (const OutTensor& t : tensors) {
    out.offsets.push_back(align_up(out.total_bytes, 64));
    out.total_bytes = out.offsets.back() + t.bytes();
  }
  return out;
}
const Format kTest{.name = "test",
                   .summary = "for tests",
                   .suffixes = {},
                   .detect = nullptr,
                   .read = nullptr,
                   .refuses = [](const OutTensor&) { return std::optional<std::string>(); },
                   .layout = layout_of};

struct Made {
  Plan plan;
  std::vector<Noise*> steps;
};
Made noise_plan() {
  Made made;
  made.plan.files = {{"one", &kTest, {}, 2}, {"two", &kTest, {}, 1}};
  for (const char* name : {"a", "b", "c"}) {
    auto step = std::make_unique<Noise>(name, made.steps.size());
    made.steps.push_back(step.get());
    made.plan.steps.push_back(std::move(step));
  }
  return made;
}

// Runs and commits; the error if there is one.
std::optional<Error> run(Made& made, const fs::path& target, unsigned threads,
                         const std::atomic<int>* signal = nullptr) {
  try {
    OutputSet out(target, OutputSet::Kind::Folder, OutputSet::Existing::Refuse);
    RunOptions options;
    options.threads = threads;
    options.stop_signal = signal;
    execute(made.plan, options, &out);
    out.commit();
  } catch (const Error& e) {
    return e;
  }
  return std::nullopt;
}

std::string get(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("property: any number of threads writes the same bytes", "[property]") {
  std::string one(align_up(100, 64), '\0'), two = one;
  std::fill_n(one.begin(), 100, 'h');
  std::fill_n(two.begin(), 100, 'h');
  const auto add = [](std::string& to, std::uint64_t seed) {
    to.resize(align_up(to.size(), 64));
    for (std::uint64_t i = 0; i < kTensor; ++i) to += static_cast<char>(noise(seed, i));
  };
  add(one, 0);
  add(one, 1);
  add(two, 2);
  for (const unsigned threads : {1u, 2u, 3u, 8u}) {
    const TempFolder dir;
    Made made = noise_plan();
    const auto error = run(made, dir.path / "out", threads);
    REQUIRE(!error);
    CHECK((get(dir.path / "out/one") == one));
    CHECK((get(dir.path / "out/two") == two));
  }
}

TEST_CASE("property: of failing units the lowest one's error is reported and nothing is left",
          "[property]") {
  for (const unsigned threads : {1u, 2u, 3u, 8u}) {
    const TempFolder dir;
    Made made = noise_plan();
    made.steps[1]->fails_from = 5;
    made.steps[2]->fails_from = 0;
    const auto error = run(made, dir.path / "out", threads);
    REQUIRE(error);
    CHECK(error->text() == "unit 5");
    CHECK(fs::is_empty(dir.path));
  }
}

TEST_CASE("property: a signal in the middle leaves nothing", "[property]") {
  for (const unsigned threads : {1u, 3u}) {
    const TempFolder dir;
    std::atomic<int> signal{0};
    Made made = noise_plan();
    made.steps[1]->stops_at = 30;
    made.steps[1]->signal = &signal;
    const auto error = run(made, dir.path / "out", threads, &signal);
    REQUIRE(error);
    CHECK(error->fault() == Fault::Cancelled);
    CHECK(fs::is_empty(dir.path));
  }
}

TEST_CASE("property: a run that is not committed leaves nothing", "[property]") {
  const TempFolder dir;
  {
    Made made = noise_plan();
    OutputSet out((dir.path / "out").native(), OutputSet::Kind::Folder,
                  OutputSet::Existing::Refuse);
    execute(made.plan, {}, &out);
    CHECK(!fs::exists(dir.path / "out"));
  }
  CHECK(fs::is_empty(dir.path));
}

TEST_CASE("property: a file larger than is allowed is an I/O error and leaves nothing",
          "[property]") {
  const TempFolder dir;
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = kTensor + kTensor / 2;  // the second file fits, the first does not
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  Made made = noise_plan();
  const auto error = run(made, dir.path / "out", 2);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  REQUIRE(error);
  CHECK(error->fault() == Fault::Io);
  CHECK(fs::is_empty(dir.path));
}

}  // namespace wtool
