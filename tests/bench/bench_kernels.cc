// Gigabytes a second of each kernel on each instruction set, beside memcpy of the same bytes: what
// is read and written together, from a working set that fits the last-level cache of few machines.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/group_search.h"
#include "lib/numeric/kernels/groups.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/kernels/simd.h"
#include "lib/numeric/steps.h"

namespace {
using namespace wtool;

// The best of several passes over all pieces: (read, written) bytes of one pass a nanosecond.
double rate(std::uint64_t bytes, const std::function<void()>& pass) {
  const auto now = [] {  // of this thread's processor time: others may be busy
    std::timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
  };
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const double start = now();
    pass();
    best = std::max(best, static_cast<double>(bytes) / (now() - start));
  }
  return best;
}

constexpr std::size_t kElements = std::size_t{1} << 24, kPiece = std::size_t{1} << 18;

class Memory final : public Tensor {
 public:
  Memory(DType dtype, const Buffer& bytes)
      : Tensor(dtype, {kElements / 4096, 4096}), bytes_(bytes) {}
  void read(const Box& box, MutableBytes out, Scratch&) const override {
    std::memcpy(out.data(), bytes_.data() + checked_size(dtype(), box.row * 4096 + box.col),
                out.size());
  }

 private:
  const Buffer& bytes_;
};

void print(const std::string& name, Simd level, double rate_of, double copy) {
  std::printf("%s.%s\t%.2f\t%.2f\n", name.c_str(), std::string(name_of(level)).c_str(), rate_of,
              rate_of / copy);
}

// A whole cast_step from and to memory, unit by unit, as a worker runs it.
void cast(const std::string& name, DType from, const Buffer& in, DType to, bool measure,
          Simd level) {
  const auto tensor = std::make_shared<Memory>(from, in);
  const auto step = cast_step("t", tensor, to, {.saturate = false, .measure = measure});
  Buffer out(checked_size(to, kElements)), found;
  Scratch scratch;
  const auto all = [&] {
    for (std::uint64_t unit = 0; unit < step->units(); ++unit) {
      std::vector<Span> spans;
      step->spans(unit, spans);
      const MutableBytes part =
          MutableBytes(out).subspan(spans[0].offset, static_cast<std::size_t>(spans[0].bytes));
      step->run({unit, std::span(&part, 1), found, scratch});
      step->fold(unit, found);
    }
  };
  const std::uint64_t bytes = in.size() + out.size();
  Buffer copied(bytes / 2), to_copy(bytes / 2, std::byte{1});
  const double copy = rate(bytes, [&] { std::memcpy(copied.data(), to_copy.data(), bytes / 2); });
  print("cast " + name, level, rate(bytes, all), copy);
}

void kernels(const std::vector<float>& values, Simd level) {
  std::vector<float> decoded(kPiece), steps(kPiece / 32);
  Buffer packed(kPiece * 4);
  const auto pieces = [&](auto&& f) {
    return [&values, f] {
      for (std::size_t at = 0; at < kElements; at += kPiece) f(values.data() + at);
    };
  };
  const auto each = [&](const char* name, std::size_t bytes, auto&& f) {
    print(name, level, rate(bytes * (kElements / kPiece), pieces(f)), 1);
  };
  std::byte* to = packed.data();
  each("f32_to_f16", kPiece * 6, [&](const float* x) { f32_to_f16(x, to, kPiece); });
  each("f16_to_f32", kPiece * 6, [&](const float*) { f16_to_f32(to, decoded.data(), kPiece); });
  each("f32_to_bf16", kPiece * 6, [&](const float* x) { f32_to_bf16(x, to, kPiece); });
  each("bf16_to_f32", kPiece * 6, [&](const float*) { bf16_to_f32(to, decoded.data(), kPiece); });
  each("all_finite", kPiece * 4, [&](const float* x) { all_finite(x, kPiece); });
  each("f32_to_q4_0", kPiece * 4, [&](const float* x) { f32_to_q4_0(x, to, kPiece, &steps[0]); });
  each("q4_0_to_f32", kPiece * 4, [&](const float*) { q4_0_to_f32(to, decoded.data(), kPiece); });
  each("f32_to_q8_0", kPiece * 4, [&](const float* x) { f32_to_q8_0(x, to, kPiece, &steps[0]); });
  each("q8_0_to_f32", kPiece * 4, [&](const float*) { q8_0_to_f32(to, decoded.data(), kPiece); });
  DriftLanes lanes;
  const Steps how{steps.data(), 32, -127, 127};
  each("add_drift", kPiece * 8,
       [&](const float* x) { add_drift(x, decoded.data(), kPiece, nullptr, lanes); });
  each("add_drift_steps", kPiece * 8,
       [&](const float* x) { add_drift(x, decoded.data(), kPiece, &how, lanes); });
}

// Integers in groups: bytes read (four for each weight).
void groups(const std::vector<float>& values, Simd level) {
  Buffer codes(kPiece), stored(kPiece / 32 * 2);
  std::vector<float> scales(kPiece / 32);
  const auto each = [&](const std::string& name, auto&& f) {
    const auto pass = [&] {
      for (std::size_t at = 0; at < kElements; at += kPiece) f({values.data() + at, kPiece});
    };
    print(name, level, rate(4 * kElements, pass), 1);
  };
  using In = std::span<const float>;
  for (const std::uint64_t group : {32, 128}) {
    const std::string of = " int4 g" + std::to_string(group);
    const IntGroups plain{.bits = 4, .group = group, .scale = DType::BF16, .packed = true};
    Drift drift;
    each("rtn" + of, [&](In x) { quantize_groups(plain, 1, kPiece, x, {codes, stored}, drift); });
    GroupSearch how{.group = group};
    each("search" + of, [&](In x) { choose_scales(how, 1, kPiece, x, {}, scales); });
    how.either_sign = true;
    each("search signed" + of, [&](In x) { choose_scales(how, 1, kPiece, x, {}, scales); });
  }
}

}  // namespace

int main() {
  std::vector<float> values(kElements);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  for (float& v : values) v = normal(random);
  Buffer f32(kElements * 4), f16(kElements * 2);
  std::memcpy(f32.data(), values.data(), f32.size());
  f32_to_f16(values.data(), f16.data(), kElements);
  std::puts("kernel.level\tGB/s\tof memcpy");
  for (const Simd level : {Simd::Scalar, Simd::Baseline, Simd::Avx2, Simd::Avx512}) {
    if (level > simd_hardware()) break;
    set_simd_for_test(level);
    kernels(values, level);
    groups(values, level);
    cast("f32->bf16", DType::F32, f32, DType::BF16, false, level);
    cast("f32->bf16 measured", DType::F32, f32, DType::BF16, true, level);
    cast("f16->q8_0", DType::F16, f16, DType::Q8_0, false, level);
    cast("f16->q8_0 measured", DType::F16, f16, DType::Q8_0, true, level);
    cast("f16->q4_0 measured", DType::F16, f16, DType::Q4_0, true, level);
  }
}
