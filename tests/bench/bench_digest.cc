// How near digests come to what the machine can do: against a bare loop of pread and EVP, against
// 'openssl speed', and two files against one. Ratios from the same run; the page cache is warm.
//   bench_digest [MIB]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include "lib/trust/digest.h"

namespace {

using namespace wtool;

constexpr int kRounds = 5;

double seconds(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::string make_file(const std::string& path, std::uint64_t bytes) {
  std::vector<std::uint32_t> piece(1 << 18);
  std::uint32_t x = 1;
  std::FILE* f = std::fopen(path.c_str(), "wb");
  for (std::uint64_t at = 0; f && at < bytes; at += piece.size() * 4) {
    for (auto& v : piece) v = x = x * 1664525u + 1013904223u;
    std::fwrite(piece.data(), 4, piece.size(), f);
  }
  if (!f || std::fclose(f) != 0) std::exit(2);
  return path;
}

void bare_loop(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  std::vector<unsigned char> buffer(std::size_t{256} << 10), digest(EVP_MAX_MD_SIZE);
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  EVP_DigestInit_ex(context, EVP_sha256(), nullptr);
  off_t at = 0;
  for (ssize_t n; (n = ::pread(fd, buffer.data(), buffer.size(), at)) > 0; at += n)
    EVP_DigestUpdate(context, buffer.data(), static_cast<std::size_t>(n));
  EVP_DigestFinal_ex(context, digest.data(), nullptr);
  EVP_MD_CTX_free(context);
  ::close(fd);
}

double openssl_speed() {  // bytes per second, 0 if there is no such program
  std::FILE* p =
      ::popen("openssl speed -mr -seconds 1 -bytes 1048576 -evp sha256 2>/dev/null", "r");
  double rate = 0;
  char line[512];
  while (p && std::fgets(line, sizeof line, p)) {
    const std::string s(line);
    if (s.starts_with("+F:")) rate = std::atof(s.c_str() + s.rfind(':') + 1);
  }
  if (p) ::pclose(p);
  return rate;
}

double ours(const std::vector<std::string>& paths, unsigned threads) {
  std::vector<Extent> extents;
  for (const std::string& p : paths) {
    const SourcePtr source = open_file(p);
    extents.push_back({source, 0, source->size()});
  }
  RunOptions options;
  options.threads = threads;
  return seconds([&] { sha256_of(extents, options); });
}

void row(const char* figure, double value, const char* peer, double limit, double ratio,
         double goal) {
  std::printf("%-34s %8.0f MB/s   %-26s %8.0f MB/s   ratio %.3f   goal %.2f   %s\n", figure,
              value / 1e6, peer, limit / 1e6, ratio, goal, ratio >= goal ? "ok" : "MISSED");
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t bytes = (argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 512) << 20;
  const auto folder = std::filesystem::temp_directory_path();
  const std::string id = std::to_string(::getpid());
  const std::string a = make_file(folder / ("wtool-bench-a-" + id), bytes);
  const std::string b = make_file(folder / ("wtool-bench-b-" + id), bytes);

  // The best of several rounds, side by side: other work on the machine only ever slows down.
  double bare = 1e9, one = 1e9, ahead = 1e9, two = 1e9, speed = 0;
  for (int i = 0; i < kRounds; ++i) {
    bare = std::min(bare, seconds([&] { bare_loop(a); }));
    one = std::min(one, ours({a}, 1));
    speed = std::max(speed, openssl_speed());
    ahead = std::min(ahead, ours({a}, 2));
    two = std::min(two, ours({a, b}, 2));
  }
  const auto n = static_cast<double>(bytes);
  row("digest, one thread", n / one, "pread + EVP loop", n / bare, bare / one, 0.97);
  if (speed > 0)
    row("digest, with a reader thread", n / ahead, "openssl speed -evp sha256", speed,
        n / ahead / speed, 0.95);
  row("digest, two files, two threads", 2 * n / two, "one file, one thread", n / one, 2 * one / two,
      1.9);
  std::filesystem::remove(a);
  std::filesystem::remove(b);
}
