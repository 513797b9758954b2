// Quantisers and decoders of ggml's types against those of llama.cpp's prebuilt library, on one
// core: 4 M normal values in rows of 4096, the best of several turns each. Prints a line a figure:
// name, our million weights a second, the library's, the ratio, the ratio to reach.
//
//   bench_ggml [WORD]     only figures whose name has the word in it
//
// Exit status 77 without the library.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/simd.h"
#include "lib/numeric/quantizer.h"
#include "tests/interop/ggml_library.h"

namespace {
using namespace wtool;

constexpr std::size_t kRows = 1024, kColumns = 4096, kElements = kRows * kColumns;

double seconds(const std::function<void()>& work) {  // of this thread's processor time
  const auto now = [] {
    std::timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  };
  const double begin = now();
  work();
  return now() - begin;
}

// What must be reached on AVX-512: half of it on AVX2, nothing below.
struct Goal {
  DType type;
  double plain, weighted;
};
constexpr Goal kGoals[] = {
    {DType::Q4_0, 4, 8},  {DType::Q4_1, 2, 8},  {DType::Q5_0, 4, 8},    {DType::Q5_1, 2, 8},
    {DType::Q8_0, 4, 0},  {DType::Q2_K, 10, 8}, {DType::Q3_K, 5, 8},    {DType::Q4_K, 10, 8},
    {DType::Q5_K, 10, 8}, {DType::Q6_K, 10, 8}, {DType::IQ4_NL, 12, 8}, {DType::IQ4_XS, 12, 8},
    {DType::TQ1_0, 2, 0}, {DType::TQ2_0, 2, 0}, {DType::MXFP4, 2, 0},   {DType::NVFP4, 1, 0},
    {DType::Q1_0, 1, 0},  {DType::Q2_0, 1, 0},
};

class Bench {
 public:
  Bench(const GgmlLibrary& library, std::string word)
      : library_(library),
        word_(std::move(word)),
        values_(kElements),
        decoded_(kElements),
        importance_(kColumns),
        means_(kRows),
        bytes_(kElements * 4) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.02f);
    for (float& v : values_) v = normal(random);
    for (float& v : importance_) v = std::exp(normal(random) * 50);
    mean_squares(values_.data(), kRows, kColumns, means_.data());
  }

  void quantize(const Goal& goal, bool weighted) {
    const double wanted = weighted ? goal.weighted : goal.plain;
    const Quantizer& q = *find_quantizer(goal.type);
    const int number = library_.number_of(goal.type);
    const float* importance = weighted ? importance_.data() : nullptr;
    const auto theirs = [&] {
      library_.quantize(number, values_.data(), bytes_.data(), 0, kRows, kColumns, importance);
    };
    const auto ours = [&] {
      const BlockRows rows{values_.data(), kRows, kColumns, importance, means_.data()};
      (weighted ? q.weighted : q.plain)(rows, bytes_.data());
    };
    compare(std::string(name_of(goal.type)) + (weighted ? " with importance" : ""), ours, theirs,
            kElements, wanted);
  }

  // In pieces that stay in the nearest cache, as casts take them.
  void decode(DType type) {
    constexpr std::size_t kPiece = 4096;
    const int number = library_.number_of(type);
    if (number < 0 || library_.traits(number)->to_float == nullptr) return;
    fill(type);
    const Codec& codec = *find_codec(type);
    const std::size_t step = checked_size(type, kPiece);
    const auto pieces = [&](auto&& f) {
      for (std::size_t i = 0; i < kElements / kPiece; ++i) f(bytes_.data() + i * step);
    };
    float* out = decoded_.data();
    const double goal = type == DType::BF16 ? 1 : 2;  // of bf16 both only wait for their stores
    compare(
        "decode " + std::string(name_of(type)),
        [&] { pieces([&](const std::byte* in) { codec.decode(in, out, kPiece); }); },
        [&] {
          pieces([&](const std::byte* in) {
            library_.traits(number)->to_float(in, out, static_cast<std::int64_t>(kPiece));
          });
        },
        kElements, goal);
  }

 private:
  // Blocks of the type: what the library makes of the values, or, where that takes minutes, a few
  // of those again and again.
  void fill(DType type) {
    const int number = library_.number_of(type);
    if (type == DType::F32) return;
    constexpr std::size_t kSome = 16;  // rows
    library_.quantize(number, values_.data(), bytes_.data(), 0, kSome, kColumns,
                      importance_.data());
    const std::size_t size = checked_size(type, kSome * kColumns);
    for (std::size_t i = 1; i < kRows / kSome; ++i)
      std::copy_n(bytes_.begin(), size, bytes_.begin() + static_cast<std::ptrdiff_t>(i * size));
  }

  void compare(const std::string& name, const std::function<void()>& ours,
               const std::function<void()>& theirs, std::size_t elements, double wanted) {
    if (name.find(word_) == name.npos) return;
    double peer = 1e30;
    const auto rate = [&](double s) { return static_cast<double>(elements) / s / 1e6; };
    struct Level {
      Simd simd;
      double best;
    };
    std::vector<Level> levels;
    for (const Simd s : {Simd::Avx2, Simd::Avx512})
      if (s <= simd_hardware()) levels.push_back({s, 1e30});
    for (int turn = 0; turn < 3; ++turn) {  // they take turns: a slow moment hits all
      peer = std::min(peer, seconds(theirs));
      for (Level& l : levels) {
        set_simd_for_test(l.simd);
        for (int i = 0; i < 2; ++i) l.best = std::min(l.best, seconds(ours));
      }
    }
    for (const Level& l : levels)
      std::printf("%s, %s\t%.1f\t%.1f\t%.2f\t%.2f\n", name.c_str(),
                  std::string(name_of(l.simd)).c_str(), rate(l.best), rate(peer), peer / l.best,
                  l.simd == Simd::Avx2 ? wanted / 2 : wanted);
    std::fflush(stdout);
  }

  const GgmlLibrary& library_;
  std::string word_;
  std::vector<float> values_, decoded_, importance_, means_;
  Buffer bytes_;
};

}  // namespace

int main(int argc, char** argv) {
  GgmlLibrary library;
  if (!library.open()) {
    std::puts("skipped: no llama.cpp library (scripts/peers installs it)");
    return 77;
  }
  Bench bench(library, argc > 1 ? argv[1] : "");
  for (const Goal& goal : kGoals) {
    bench.quantize(goal, false);
    if (find_quantizer(goal.type)->weighted != nullptr) bench.quantize(goal, true);
  }
  for (const DTypeInfo& type : all_dtypes())
    if (type.kind == Kind::Block || type.id == DType::F16 || type.id == DType::BF16)
      bench.decode(type.id);
}
