// Statistics of a file, beside a bare loop that reads and sums it with the same threads: what any
// one pass over the values needs at least. Processor time would hide the waiting; this is wall
// time, the best of a few turns that take each other's place.
//
// usage: bench_stats FILE THREADS [TURNS]
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "formats/registry.h"
#include "lib/engine/execute.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/statistics.h"

namespace {
using namespace wtool;

constexpr std::size_t kPiece = std::size_t{1} << 18;  // bytes
constexpr std::size_t kStripes = 16;

double seconds(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Sixteen stripes, so that the compiler may use vectors.
void add(const float* x, std::size_t n, std::array<double, kStripes>& sums) {
  for (std::size_t i = 0; i + kStripes <= n; i += kStripes)
    for (std::size_t k = 0; k < kStripes; ++k) sums[k] += x[i + k];
}

double sum_piece(const std::vector<std::byte>& bytes, std::size_t n, DType type,
                 std::vector<float>& values) {
  std::array<double, kStripes> sums = {};
  if (type == DType::F32) {
    add(reinterpret_cast<const float*>(bytes.data()), n / 4, sums);
  } else {
    constexpr std::size_t kValues = 4096;
    for (std::size_t at = 0; at + kValues <= n / 2; at += kValues) {
      (type == DType::F16 ? f16_to_f32 : bf16_to_f32)(bytes.data() + 2 * at, values.data(),
                                                      kValues);
      add(values.data(), kValues, sums);
    }
  }
  double all = 0;
  for (const double s : sums) all += s;
  return all;
}

void bare(const char* path, std::uint64_t size, DType type, unsigned threads) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  std::atomic<std::uint64_t> next = 0;
  std::atomic<double> total = 0;
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < threads; ++i)
    workers.emplace_back([&] {
      std::vector<std::byte> piece(kPiece);
      std::vector<float> values(4096);
      double mine = 0;
      for (std::uint64_t at; (at = next.fetch_add(kPiece)) < size;) {
        const ssize_t n = ::pread(fd, piece.data(), kPiece, static_cast<off_t>(at));
        if (n <= 0) break;
        mine += sum_piece(piece, static_cast<std::size_t>(n), type, values);
      }
      total.fetch_add(mine);
    });
  for (std::thread& w : workers) w.join();
  ::close(fd);
  if (total.load() == 1.25) std::puts("");  // the sum is wanted
}

void ours(const Model& model, unsigned threads, bool distribution) {
  Plan plan;
  for (const LogicalTensor& t : model.tensors)
    plan.measures.push_back(
        std::make_shared<StatisticsStep>(std::string(t.name), std::vector{model.open(t)},
                                         StatisticsOptions{.distribution = distribution}));
  execute(plan, {.threads = threads});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const auto threads = static_cast<unsigned>(std::atoi(argv[2]));
  const int turns = argc > 3 ? std::atoi(argv[3]) : 5;
  Diagnostics faults;
  const auto model = open_model(argv[1], all_formats(), {}, faults);
  std::uint64_t bytes = 0;
  for (const LogicalTensor& t : model->tensors) bytes += model->stored_bytes(t);
  const DType type = model->tensors.front().dtype;
  double best[3] = {1e9, 1e9, 1e9};
  for (int i = 0; i < turns; ++i) {
    best[0] = std::min(best[0], seconds([&] { bare(argv[1], bytes, type, threads); }));
    best[1] = std::min(best[1], seconds([&] { ours(*model, threads, false); }));
    best[2] = std::min(best[2], seconds([&] { ours(*model, threads, true); }));
  }
  const auto rate = [&](double s) { return static_cast<double>(bytes) / s / 1e6; };
  const std::string name(name_of(type));
  std::printf("stats of %s, moments\t%.0f\t%.0f\t%.3f\t0.6\n", name.c_str(), rate(best[1]),
              rate(best[0]), best[0] / best[1]);
  std::printf("stats of %s, percentiles\t%.0f\t%.0f\t%.3f\t0.2\n", name.c_str(), rate(best[2]),
              rate(best[0]), best[0] / best[2]);
}
