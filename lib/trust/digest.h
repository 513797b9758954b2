#pragma once
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/error.h"
#include "lib/engine/in_order.h"
#include "lib/model/source.h"

namespace wtool {

struct Sha256 {
  std::array<std::byte, 32> bytes = {};
  std::string hex() const;  // 64 lower-case digits
  bool operator==(const Sha256&) const = default;
};
std::optional<Sha256> parse_sha256(std::string_view hex);  // 64 digits, any case

// Running SHA-256 (OpenSSL's EVP).
class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();
  Sha256Stream(Sha256Stream&&) noexcept;
  Sha256Stream& operator=(Sha256Stream&&) noexcept;
  void update(Bytes bytes);
  Sha256 finish();  // once
 private:
  struct State;
  std::unique_ptr<State> state_;
};

Sha256 sha256(Bytes bytes);
// Over digests, as bytes. Of a model's files, sorted by name, it is the root digest that OpenSSF
// Model Signing names.
Sha256 root_digest(std::span<const Sha256> digests);

// The digests of several extents (whole files, or tensors), in their order. Up to options.threads
// at a time; where threads are left over, a file's bytes are read ahead by a second thread.
// options.progress counts bytes.
std::vector<Sha256> sha256_of(const std::vector<Extent>& extents, const RunOptions& options);

// The same for those who want each result as soon as its turn comes, and go on after a fault.
struct DigestJob {
  std::size_t count = 0;
  std::function<Extent(std::size_t)> extent;  // from any thread, just before it is read
  std::uint64_t total_bytes = 0;              // of all, for options.progress
  // In order, one at a time: the digest, or why there is none. Null is whichever it is not.
  std::function<void(std::size_t, const Sha256*, const Error*)> take;
};
void sha256_each(const DigestJob& job, const RunOptions& options);  // throws only Cancelled

// One line of sha256sum's form, with its escapes: a name with a backslash or a line break in it is
// escaped, and the line begins with a backslash.
std::string checksum_line(std::string_view name, const Sha256& digest);

struct Checksum {
  std::string name;  // empty: a digest alone, as some put beside a file
  Sha256 digest;
  std::size_t line = 0;
};
// A list in sha256sum's form, or its --tag form; empty lines and those that begin with '#' are
// passed over. A digest alone is taken if it is all there is. Throws BadFile with the line's
// number.
std::vector<Checksum> parse_checksums(std::string_view text, std::string_view where);

std::string openssl_version();  // for --version

}  // namespace wtool
