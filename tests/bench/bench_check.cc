// A check of all values, beside a bare loop that reads and sums the same bytes with the same
// threads: what any pass over a file needs at least. Wall time, the best of a few turns that take
// each other's place.
//
// usage: bench_check FILE THREADS [TURNS]
//        bench_check FILE THREADS bare    the loop once, for comparison with a whole process
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "formats/registry.h"
#include "lib/base/scratch.h"
#include "lib/engine/execute.h"
#include "lib/numeric/health.h"

namespace {
using namespace wtool;

constexpr std::size_t kPiece = std::size_t{1} << 18;  // bytes

double seconds(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Of 64-bit words, in vectors whatever the compiler's options: no sum is cheaper.
std::uint64_t sum(std::span<const std::uint64_t> words, std::size_t n) {
  using Vector [[gnu::vector_size(64)]] = std::uint64_t;
  Vector sums[4] = {};
  for (std::size_t i = 0; i + 32 <= n; i += 32)
    for (std::size_t k = 0; k < 4; ++k) {
      Vector v;
      std::memcpy(&v, &words[i + 8 * k], sizeof v);
      sums[k] += v;
    }
  std::uint64_t all[32];
  std::memcpy(all, sums, sizeof all);
  return std::accumulate(std::begin(all), std::end(all), std::uint64_t{0});
}

void bare(const char* path, std::uint64_t size, unsigned threads) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  std::atomic<std::uint64_t> next = 0, total = 0;
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < threads; ++i)
    workers.emplace_back([&] {
      Scratch scratch;  // aligned like ours: pread is the faster for it
      Scratch::Frame frame(scratch);
      const auto piece = frame.take<std::uint64_t>(kPiece / 8);
      std::uint64_t mine = 0;
      for (std::uint64_t at; (at = next.fetch_add(kPiece)) < size;) {
        const ssize_t n = ::pread(fd, piece.data(), kPiece, static_cast<off_t>(at));
        if (n <= 0) break;
        mine += sum(piece, static_cast<std::size_t>(n) / 8);
      }
      total.fetch_add(mine);
    });
  for (std::thread& w : workers) w.join();
  ::close(fd);
  if (total.load() == 1) std::puts("");  // the sum is wanted
}

void ours(const std::shared_ptr<const Model>& model, unsigned threads) {
  std::vector<std::uint32_t> all(model->catalog.entries().size());
  std::iota(all.begin(), all.end(), 0u);
  Diagnostics faults(Diagnostics::Mode::Collect);
  ValueCheck check(model, all, faults);
  for (Plan plan; check.next(plan); plan = {}) execute(plan, {.threads = threads});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const auto threads = static_cast<unsigned>(std::atoi(argv[2]));
  if (argc > 3 && std::string_view(argv[3]) == "bare") {
    bare(argv[1], open_file(argv[1])->size(), threads);
    return 0;
  }
  const int turns = argc > 3 ? std::atoi(argv[3]) : 7;
  Diagnostics faults;
  const auto model = open_model(argv[1], all_formats(), {}, faults);
  std::uint64_t bytes = 0;
  for (const LogicalTensor& t : model->tensors) bytes += model->stored_bytes(t);
  double best[2] = {1e9, 1e9};
  for (int i = 0; i < turns; ++i) {
    best[0] = std::min(best[0], seconds([&] { bare(argv[1], bytes, threads); }));
    best[1] = std::min(best[1], seconds([&] { ours(model, threads); }));
  }
  const auto rate = [&](double s) { return static_cast<double>(bytes) / s / 1e6; };
  const std::string name(name_of(model->part(model->tensors.front(), 0).dtype));
  std::printf("check of %s\t%.0f\t%.0f\t%.3f\t0.5\n", name.c_str(), rate(best[1]), rate(best[0]),
              best[0] / best[1]);
}
