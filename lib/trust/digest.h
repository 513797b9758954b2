#pragma once
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/engine/in_order.h"
#include "lib/model/source.h"

namespace wtool {

struct Sha256 {
  std::array<std::byte, 32> bytes = {};
  std::string hex() const;  // 64 lower-case digits
  bool operator==(const Sha256&) const = default;
};
std::optional<Sha256> parse_sha256(std::string_view hex) noexcept;  // 64 digits, any case

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

// The digests of several extents (whole files, or tensors), in their order. Up to options.threads
// at a time; where threads are left over, a file's bytes are read ahead by a second thread.
// options.progress counts bytes.
std::vector<Sha256> sha256_of(const std::vector<Extent>& extents, const RunOptions& options);

std::string openssl_version();  // for --version

}  // namespace wtool
