// Importance matrices of both forms, as containers and for what they mean.
#include <array>

#include "formats/imatrix.h"
#include "formats/registry.h"
#include "tests/fuzz/readers.h"

namespace wtool::fuzz {
namespace {

void expect_reads(const Importance& importance) {
  std::vector<float> values;
  for (const Importance::Entry& e : importance.entries()) {
    expect(importance.find(e.name) != nullptr, "an entry that is not found");
    expect(!e.counts.empty() && e.values % e.counts.size() == 0, "counts that do not fit the sums");
    static_cast<void>(Importance::mismatch(e, std::array<std::uint64_t, 2>{3, e.values}));
    const std::uint64_t n = std::min<std::uint64_t>(e.values, 4096);
    for (const std::uint64_t first : {std::uint64_t{0}, e.values - n}) {
      values.assign(n, -1);
      importance.read(e, first, values);
      for (const float v : values) expect(v >= 0, "an importance below zero, or none");
    }
    try {
      static_cast<void>(imatrix_calls(e, importance.chunk_size().value_or(1)));
    } catch (const Error& error) {
      expect_honest(error);
    }
  }
}

void run(Bytes input) {
  const bool gguf = as_text(input).starts_with("GGUF");
  run_reader(gguf ? wtool::kGguf : kImatrixDat, input);
  for (const auto mode : {Diagnostics::Mode::Throw, Diagnostics::Mode::Collect}) {
    Diagnostics faults(mode);
    const auto model = std::make_shared<Model>();
    model->path = "input";
    try {
      model->catalog = read_catalog(from_memory("input", Buffer(input.begin(), input.end())),
                                    all_formats(), faults);
      expect_reads(Importance::read(model));
    } catch (const Error& e) {
      expect_honest(e);
    }
  }
}

}  // namespace

extern const Target kImatrix;
const Target kImatrix{"imatrix", run, mutate_weights};

}  // namespace wtool::fuzz
