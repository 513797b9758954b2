#include "lib/trust/digest.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "lib/base/hex.h"
#include "lib/base/text.h"
#include "lib/trust/openssl.h"
#include "lib/trust/openssl_memory.h"

namespace wtool {
namespace {

// Measured: smaller pieces stay in a core's own cache between read and hash; with a reader thread
// larger ones make fewer handovers.
constexpr std::size_t kPiece = std::size_t{256} << 10, kReadAhead = std::size_t{1} << 20;
constexpr std::size_t kBuffers = 3;
constexpr std::uint64_t kWorthAReader = std::uint64_t{8} << 20;
constexpr auto kProgressEvery = std::chrono::milliseconds(50);

const EVP_MD* sha256_md() {
  static const std::unique_ptr<EVP_MD, Free<EVP_MD_free>> kMd(
      (start_openssl(), EVP_MD_fetch(nullptr, "SHA256", nullptr)));
  if (!kMd) throw cannot("find its SHA-256");
  return kMd.get();
}

void check_signal(const RunOptions& options) {
  if (options.stop_signal && options.stop_signal->load(std::memory_order_relaxed) != 0)
    throw Error(Fault::Cancelled, "interrupted");
}

// Bytes hashed by all threads, passed on now and then.
class Counter {
 public:
  Counter(const RunOptions& options, std::uint64_t total) : options_(options), total_(total) {}
  void add(std::uint64_t bytes) {
    if (!options_.progress) return;
    done_.fetch_add(bytes, std::memory_order_relaxed);
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - told_ < kProgressEvery) return;
    told_ = now;
    tell();
  }
  void finish() {
    if (options_.progress) tell();
  }

 private:
  // Never past the end, even if a file has grown.
  void tell() { options_.progress(std::min(done_.load(), total_), total_); }
  const RunOptions& options_;
  const std::uint64_t total_;
  std::atomic<std::uint64_t> done_{0};
  std::mutex mutex_;
  std::chrono::steady_clock::time_point told_ = std::chrono::steady_clock::now();
};

// Reads an extent in pieces on a thread of its own, a few pieces ahead.
class ReadAhead {
 public:
  explicit ReadAhead(const Extent& extent) : extent_(extent) {
    for (Buffer& b : buffers_) b.resize(kReadAhead);
    thread_ = std::jthread([this](const std::stop_token& stop) { read(stop); });
  }

  // The next piece, valid until the call after; empty at the end.
  Bytes next() {
    std::unique_lock lock(mutex_);
    if (taken_ > given_back_) given_back_ = taken_;
    change_.notify_all();
    change_.wait(lock, [&] { return filled_ > taken_ || ended_; });
    if (filled_ == taken_) {
      if (failure_) std::rethrow_exception(failure_);
      return {};
    }
    const std::uint64_t at = taken_++ * kReadAhead;
    return Bytes(buffers_[(taken_ - 1) % kBuffers])
        .first(static_cast<std::size_t>(std::min<std::uint64_t>(kReadAhead, extent_.bytes - at)));
  }

 private:
  void read(const std::stop_token& stop) {
    std::exception_ptr failure;
    try {
      for (std::uint64_t piece = 0; piece * kReadAhead < extent_.bytes; ++piece) {
        {
          std::unique_lock lock(mutex_);
          if (!change_.wait(lock, stop, [&] { return piece < given_back_ + kBuffers; })) break;
        }
        const std::uint64_t at = piece * kReadAhead;
        const std::uint64_t bytes = std::min<std::uint64_t>(kReadAhead, extent_.bytes - at);
        extent_.source->read(
            extent_.offset + at,
            MutableBytes(buffers_[piece % kBuffers]).first(static_cast<std::size_t>(bytes)));
        const std::scoped_lock lock(mutex_);
        filled_ = piece + 1;
        change_.notify_all();
      }
    } catch (...) {
      failure = std::current_exception();
    }
    const std::scoped_lock lock(mutex_);
    failure_ = failure;
    ended_ = true;
    change_.notify_all();
  }

  const Extent extent_;
  std::array<Buffer, kBuffers> buffers_;
  std::mutex mutex_;
  std::condition_variable_any change_;
  std::uint64_t filled_ = 0, taken_ = 0, given_back_ = 0;  // pieces
  bool ended_ = false;
  std::exception_ptr failure_;
  std::jthread thread_;  // last: it uses all of the above
};

// A thread to spare, held while in scope.
class Spare {
 public:
  explicit Spare(std::atomic<int>& left) : left_(left), got_(left.fetch_sub(1) > 0) {
    if (!got_) left_.fetch_add(1);
  }
  ~Spare() {
    if (got_) left_.fetch_add(1);
  }
  Spare(const Spare&) = delete;
  Spare& operator=(const Spare&) = delete;
  explicit operator bool() const noexcept { return got_; }

 private:
  std::atomic<int>& left_;
  bool got_;
};

Sha256 digest_of(const Extent& extent, const RunOptions& options, Counter& counter,
                 std::atomic<int>& spare_threads) {
  Sha256Stream stream;
  const auto take = [&](Bytes piece) {
    check_signal(options);
    stream.update(piece);
    counter.add(piece.size());
  };
  if (extent.bytes >= kWorthAReader) {
    if (const Spare spare(spare_threads); spare) {
      ReadAhead reader(extent);
      for (Bytes piece; !(piece = reader.next()).empty();) take(piece);
      return stream.finish();
    }
  }
  Buffer buffer(static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, extent.bytes)));
  for (std::uint64_t at = 0; at < extent.bytes; at += buffer.size()) {
    buffer.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, extent.bytes - at)));
    extent.source->read(extent.offset + at, buffer);
    take(buffer);
  }
  return stream.finish();
}

}  // namespace

std::string Sha256::hex() const {
  return to_hex(bytes);
}

std::optional<Sha256> parse_sha256(std::string_view hex) {
  Sha256 out;
  if (hex.size() != 2 * out.bytes.size()) return std::nullopt;
  const auto bytes = from_hex(lower(hex));
  if (!bytes) return std::nullopt;
  std::ranges::copy(as_bytes(*bytes), out.bytes.begin());
  return out;
}

struct Sha256Stream::State {
  const EVP_MD* md = sha256_md();  // first: it sets OpenSSL up
  std::unique_ptr<EVP_MD_CTX, Free<EVP_MD_CTX_free>> context{EVP_MD_CTX_new()};
};

Sha256Stream::Sha256Stream() : state_(std::make_unique<State>()) {
  if (!state_->context || EVP_DigestInit_ex2(state_->context.get(), state_->md, nullptr) != 1)
    throw cannot("begin a SHA-256");
  check_openssl_memory();
}
Sha256Stream::~Sha256Stream() = default;
Sha256Stream::Sha256Stream(Sha256Stream&&) noexcept = default;
Sha256Stream& Sha256Stream::operator=(Sha256Stream&&) noexcept = default;

void Sha256Stream::update(Bytes bytes) {
  if (EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()) != 1)
    throw cannot("go on with a SHA-256");
}
Sha256 Sha256Stream::finish() {
  Sha256 out;
  unsigned size = 0;
  if (EVP_DigestFinal_ex(state_->context.get(), reinterpret_cast<unsigned char*>(out.bytes.data()),
                         &size) != 1 ||
      size != out.bytes.size())
    throw cannot("end a SHA-256");
  check_openssl_memory();
  return out;
}

Sha256 sha256(Bytes bytes) {
  Sha256Stream stream;
  stream.update(bytes);
  return stream.finish();
}

Sha256 root_digest(std::span<const Sha256> digests) {
  Sha256Stream stream;
  for (const Sha256& d : digests) stream.update(d.bytes);
  return stream.finish();
}

void sha256_each(const DigestJob& job, const RunOptions& options) {
  Counter counter(options, job.total_bytes);
  const unsigned threads = std::max(1u, options.threads);
  std::atomic<int> spare{static_cast<int>(threads - std::min<std::uint64_t>(threads, job.count))};
  std::vector<std::optional<Error>> errors(job.count);
  RunOptions units = options;
  units.progress = {};  // ours counts bytes
  run_in_order(
      job.count, units,
      [&](std::uint64_t unit, unsigned, Buffer& found) {
        try {
          const auto& digest =
              digest_of(job.extent(static_cast<std::size_t>(unit)), options, counter, spare);
          found.assign(digest.bytes.begin(), digest.bytes.end());
        } catch (const Error& e) {
          if (e.fault() == Fault::Cancelled) throw;
          errors[unit] = e;
        }
      },
      [&](std::uint64_t unit, Buffer& found) {
        if (errors[unit]) return job.take(unit, nullptr, &*errors[unit]);
        Sha256 digest;
        std::ranges::copy(found, digest.bytes.begin());
        job.take(unit, &digest, nullptr);
      });
  counter.finish();
}

std::vector<Sha256> sha256_of(const std::vector<Extent>& extents, const RunOptions& options) {
  std::vector<Sha256> out(extents.size());
  DigestJob job;
  job.count = extents.size();
  job.extent = [&](std::size_t i) { return extents[i]; };
  for (const Extent& e : extents) job.total_bytes += e.bytes;
  job.take = [&](std::size_t i, const Sha256* digest, const Error* error) {
    if (error) throw *error;
    out[i] = *digest;
  };
  sha256_each(job, options);
  return out;
}

std::string checksum_line(std::string_view name, const Sha256& digest) {
  std::string escaped;
  for (const char c : name) {
    if (c == '\\')
      escaped += "\\\\";
    else if (c == '\n')
      escaped += "\\n";
    else if (c == '\r')
      escaped += "\\r";
    else
      escaped += c;
  }
  return (escaped.size() == name.size() ? "" : "\\") + digest.hex() + "  " + escaped + "\n";
}

namespace {

// Undoes the escapes of a line that began with a backslash; nullopt if there is an unknown one.
std::optional<std::string> unescaped(std::string_view name) {
  std::string out;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] != '\\') {
      out += name[i];
      continue;
    }
    if (++i == name.size()) return std::nullopt;
    if (name[i] == '\\')
      out += '\\';
    else if (name[i] == 'n')
      out += '\n';
    else if (name[i] == 'r')
      out += '\r';
    else
      return std::nullopt;
  }
  return out;
}

// "HEX  name", "HEX *name", "SHA256 (name) = HEX", or "HEX" with an empty name.
std::optional<Checksum> parse_line(std::string_view line) {
  constexpr std::size_t kHex = 64;
  const bool escapes = line.starts_with('\\');
  if (escapes) line.remove_prefix(1);
  std::string_view name, hex;
  if (line.starts_with("SHA256 (")) {
    const auto end = line.rfind(") = ");
    if (end == std::string_view::npos || end <= 8) return std::nullopt;
    name = line.substr(8, end - 8);
    hex = line.substr(end + 4);
  } else {
    hex = line.substr(0, kHex);
    name = line.substr(hex.size());
    const bool named = name.starts_with("  ") || name.starts_with(" *");
    if ((named && name.size() == 2) || (!named && !name.empty())) return std::nullopt;
    if (named) name.remove_prefix(2);
  }
  const auto digest = parse_sha256(hex);
  const auto plain = escapes ? unescaped(name) : std::string(name);
  if (!digest || !plain) return std::nullopt;
  return Checksum{*plain, *digest, 0};
}

}  // namespace

std::vector<Checksum> parse_checksums(std::string_view text, std::string_view where) {
  std::vector<Checksum> out;
  const auto malformed = [&](std::size_t line) {
    return Error(Fault::BadFile, "is no checksum: 64 hexadecimal digits, two blanks, a name")
        .in(fmt::format("line {}", line))
        .in(where);
  };
  std::size_t nameless = 0;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with('#')) continue;
    auto one = parse_line(line);
    if (!one) throw malformed(number);
    one->line = number;
    if (one->name.empty()) nameless = number;
    out.push_back(std::move(*one));
  }
  if (nameless != 0 && out.size() > 1) throw malformed(nameless);
  return out;
}

std::string openssl_version() {
  return OpenSSL_version(OPENSSL_VERSION_STRING);
}

}  // namespace wtool
