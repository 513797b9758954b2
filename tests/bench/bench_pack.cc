// Lossless compression in memory: one core, chunks of 1 MiB, as multiples of ZSTD_compress at level
// 3 of the same library on the same bytes, in turns. Rates without checksums of frames are what
// 'decompress' does (it compares the whole file's SHA-256); 'checked' is what reading a tensor
// does.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <zstd.h>

#include "lib/numeric/kernels/kernels.h"
#include "lib/pack/codec.h"

namespace {
using namespace wtool;

constexpr std::size_t kColumns = 4096, kLayers = 16;
std::size_t g_chunks = 32;  // MiB of each set

double seconds(clockid_t clock) {
  std::timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
// Of this thread's processor time: others may be busy.
double once(const std::function<void()>& pass) {
  const double start = seconds(CLOCK_THREAD_CPUTIME_ID);
  pass();
  return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

// Weights as a model has them: layers of different spread, rows of different scale (log-normal),
// one column in a thousand eight times as large.
std::vector<float> weights(std::size_t n) {
  std::mt19937_64 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> out(n);
  const std::size_t rows = n / kColumns;
  for (std::size_t r = 0; r < rows; ++r) {
    const auto layer = static_cast<float>(r * kLayers / rows);
    const float scale = 0.01f * (1 + layer / 5) * std::exp(0.25f * normal(random));
    for (std::size_t c = 0; c < kColumns; ++c)
      out[r * kColumns + c] = normal(random) * scale * (c % 1000 == 17 ? 8 : 1);
  }
  return out;
}

Buffer as_bf16(const std::vector<float>& values) {
  Buffer out(values.size() * 2);
  f32_to_bf16(values.data(), out.data(), values.size());
  return out;
}

struct Set {
  std::string name;
  DType dtype;
  Buffer bytes, base = {};
};

std::vector<Set> sets() {
  const std::size_t bytes = g_chunks << 20;
  const std::vector<float> w = weights(bytes / 2);
  const std::vector<float> half(w.begin(), w.begin() + static_cast<std::ptrdiff_t>(bytes / 4));
  std::vector<Set> out;
  out.push_back({"bf16", DType::BF16, as_bf16(w)});
  Buffer f32(bytes), wide(bytes);
  std::memcpy(f32.data(), half.data(), bytes);
  for (std::size_t i = 0; i < bytes / 4; ++i)
    store(MutableBytes(wide), std::uint32_t{load<std::uint16_t>(out[0].bytes, i)} << 16, i);
  out.push_back({"f32", DType::F32, std::move(f32)});
  out.push_back({"f32-of-bf16", DType::F32, std::move(wide)});
  Buffer f16(bytes);
  f32_to_f16(w.data(), f16.data(), w.size());
  out.push_back({"f16", DType::F16, std::move(f16)});
  std::vector<float> steps(w.size() / 32);
  Buffer q8(w.size() / 32 * 34), q4(w.size() / 32 * 18);
  f32_to_q8_0(w.data(), q8.data(), w.size(), steps.data());
  f32_to_q4_0(w.data(), q4.data(), w.size(), steps.data());
  out.push_back({"q8_0", DType::Q8_0, std::move(q8)});
  out.push_back({"q4_0", DType::Q4_0, std::move(q4)});
  // A fine-tune: updates of a hundredth of the spread of each row's weights.
  std::mt19937_64 random(8);
  std::normal_distribution<float> normal;
  std::vector<float> tuned = w;
  for (std::size_t r = 0; r < w.size() / kColumns; ++r) {
    double sum = 0;
    for (std::size_t c = 0; c < kColumns; ++c)
      sum += double{w[r * kColumns + c]} * w[r * kColumns + c];
    const auto update = static_cast<float>(std::sqrt(sum / kColumns) * 0.01);
    for (std::size_t c = 0; c < kColumns; ++c) tuned[r * kColumns + c] += normal(random) * update;
  }
  out.push_back({"delta", DType::BF16, as_bf16(tuned), out[0].bytes});
  return out;
}

// One chunk after another.
struct Job {
  Job(const Set& from, const PackCodec& with)
      : set(from), codec(with), size(with.chunk_bytes()), chunks(from.bytes.size() / size) {
    coders.assign(codec.planes(), Coder::Huffman);
    std::vector<FrameSize> sizes;
    Buffer out;
    packer.encode(codec, chunk(0), base(0), coders, out, sizes);
    for (std::size_t p = 0; p < coders.size(); ++p)  // as the command chooses
      if (sizes[p].stored * 100 >= sizes[p].content * 98) coders[p] = Coder::Raw;
    stored.resize(chunks);
    frames.resize(chunks);
  }
  Bytes chunk(std::size_t i) const { return Bytes(set.bytes).subspan(i * size, size); }
  Bytes base(std::size_t i) const {
    return set.base.empty() ? Bytes{} : Bytes(set.base).subspan(i * size, size);
  }
  void encode(Packer& with, std::size_t first, std::size_t step) {
    for (std::size_t i = first; i < chunks; i += step) {
      stored[i].clear();
      frames[i].clear();
      with.encode(codec, chunk(i), base(i), coders, stored[i], frames[i]);
    }
  }
  void decode(Unpacker& with, FrameReader::Check check, Buffer& out, std::size_t first,
              std::size_t step) const {
    for (std::size_t i = first; i < chunks; i += step)
      if (const auto fault = with.decode(codec, stored[i], frames[i], base(i), check, out)) {
        std::fprintf(stderr, "%s: %s\n", set.name.c_str(), fault.text.c_str());
        std::exit(1);
      }
  }

  const Set& set;
  PackCodec codec;
  std::size_t size, chunks;
  std::vector<Coder> coders;
  std::vector<Buffer> stored;
  std::vector<std::vector<FrameSize>> frames;
  Packer packer;
  Unpacker unpacker;
};

void check(const Job& job, Unpacker& unpacker) {
  Buffer out(job.size);
  for (std::size_t i = 0; i < job.chunks; ++i) {
    unpacker.decode(job.codec, job.stored[i], job.frames[i], job.base(i),
                    FrameReader::Check::Checksum, out);
    if (!std::ranges::equal(out, job.chunk(i))) {
      std::fprintf(stderr, "%s: not restored\n", job.set.name.c_str());
      std::exit(1);
    }
  }
}

void measure(const Set& set) {
  const PackCodec codec = set.base.empty() ? codec_for(set.dtype) : *delta_for(set.dtype);
  Job job(set, codec);
  const std::size_t bytes = job.chunks * job.size;
  ZSTD_CCtx* const compressor = ZSTD_createCCtx();
  ZSTD_DCtx* const decompressor = ZSTD_createDCtx();
  std::vector<Buffer> peers(job.chunks);
  Buffer room(ZSTD_compressBound(job.size)), out(job.size);
  double ours[3] = {1e9, 1e9, 1e9}, theirs[2] = {1e9, 1e9};
  for (int round = 0; round < 7; ++round) {
    ours[0] = std::min(ours[0], once([&] { job.encode(job.packer, 0, 1); }));
    theirs[0] =
        std::min(theirs[0], once([&] {
                   for (std::size_t i = 0; i < job.chunks; ++i) {
                     const std::size_t n = ZSTD_compressCCtx(compressor, room.data(), room.size(),
                                                             job.chunk(i).data(), job.size, 3);
                     if (round == 0)
                       peers[i].assign(room.begin(), room.begin() + static_cast<std::ptrdiff_t>(n));
                   }
                 }));
    for (const auto check : {FrameReader::Check::Trust, FrameReader::Check::Checksum}) {
      double& best = ours[check == FrameReader::Check::Trust ? 1 : 2];
      best = std::min(best, once([&] { job.decode(job.unpacker, check, out, 0, 1); }));
    }
    theirs[1] =
        std::min(theirs[1], once([&] {
                   for (const Buffer& b : peers)
                     ZSTD_decompressDCtx(decompressor, out.data(), out.size(), b.data(), b.size());
                 }));
  }
  check(job, job.unpacker);
  std::size_t stored = 0, peer = 0;
  for (std::size_t i = 0; i < job.chunks; ++i) {
    stored += job.stored[i].size();
    peer += peers[i].size();
  }
  const auto gigabytes = [&](double t) { return static_cast<double>(bytes) / t * 1e-9; };
  std::printf("%s\t%.4f\t%.4f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\n", set.name.c_str(),
              static_cast<double>(stored) / static_cast<double>(bytes),
              static_cast<double>(peer) / static_cast<double>(bytes), gigabytes(ours[0]),
              gigabytes(theirs[0]), theirs[0] / ours[0], gigabytes(ours[1]), gigabytes(theirs[1]),
              theirs[1] / ours[1], theirs[1] / ours[2]);
  std::fflush(stdout);
  ZSTD_freeCCtx(compressor);
  ZSTD_freeDCtx(decompressor);
}

// Wall time of one and of two threads that share the chunks.
void scaling(const Set& set) {
  Job job(set, codec_for(set.dtype));
  const auto wall = [&](unsigned threads, const std::function<void(unsigned)>& work) {
    double best = 1e9;
    for (int round = 0; round < 7; ++round) {
      const double start = seconds(CLOCK_MONOTONIC);
      {
        std::vector<std::jthread> others;
        for (unsigned t = 1; t < threads; ++t) others.emplace_back([&work, t] { work(t); });
        work(0);
      }
      best = std::min(best, seconds(CLOCK_MONOTONIC) - start);
    }
    return best;
  };
  std::vector<Packer> packers(2);
  std::vector<Unpacker> unpackers(2);
  std::vector<Buffer> out(2, Buffer(job.size));
  double time[2][2];
  for (const unsigned threads : {1u, 2u}) {
    time[0][threads - 1] = wall(threads, [&](unsigned t) { job.encode(packers[t], t, threads); });
    time[1][threads - 1] = wall(threads, [&](unsigned t) {
      job.decode(unpackers[t], FrameReader::Check::Trust, out[t], t, threads);
    });
  }
  std::printf("two-threads\t%.2f\t%.2f\n", time[0][0] / time[0][1], time[1][0] / time[1][1]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) g_chunks = std::max<std::size_t>(4, std::strtoull(argv[1], nullptr, 10));
  const std::vector<Set> all = sets();
  for (const Set& set : all) measure(set);
  scaling(all[0]);
}
