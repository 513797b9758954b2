#include "lib/trust/model_files.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <optional>

#include <openssl/evp.h>

#include "lib/base/hex.h"
#include "lib/trust/openssl.h"
#include "lib/trust/openssl_memory.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPiece = std::size_t{256} << 10;

Buffer blake2b_of(const Extent& extent, const RunOptions& options) {
  static const std::unique_ptr<EVP_MD, Free<EVP_MD_free>> kMd(
      (start_openssl(), EVP_MD_fetch(nullptr, "BLAKE2B-512", nullptr)));
  const std::unique_ptr<EVP_MD_CTX, Free<EVP_MD_CTX_free>> context(EVP_MD_CTX_new());
  if (!kMd || !context || EVP_DigestInit_ex2(context.get(), kMd.get(), nullptr) != 1)
    throw cannot("begin a BLAKE2b");
  Buffer piece;
  for (std::uint64_t at = 0; at < extent.bytes; at += piece.size()) {
    if (options.stop_signal && options.stop_signal->load(std::memory_order_relaxed) != 0)
      throw Error(Fault::Cancelled, "interrupted");
    piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, extent.bytes - at)));
    extent.source->read(extent.offset + at, piece);
    if (EVP_DigestUpdate(context.get(), piece.data(), piece.size()) != 1)
      throw cannot("go on with a BLAKE2b");
  }
  Buffer out(64);
  unsigned size = 0;
  if (EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(out.data()), &size) != 1 ||
      size != out.size())
    throw cannot("end a BLAKE2b");
  check_openssl_memory();
  return out;
}

// Counts resources, not bytes: this algorithm is rare.
void blake2b_each(const ResourceJob& job, const RunOptions& options) {
  std::vector<std::optional<Error>> errors(job.count);
  run_in_order(
      job.count, options,
      [&](std::uint64_t unit, unsigned, Buffer& found) {
        try {
          found = blake2b_of(job.extent(static_cast<std::size_t>(unit)), options);
        } catch (const Error& e) {
          if (e.fault() == Fault::Cancelled) throw;
          errors[unit] = e;
        }
      },
      [&](std::uint64_t unit, Buffer& found) {
        const auto i = static_cast<std::size_t>(unit);
        if (errors[i]) return job.take(i, nullptr, &*errors[i]);
        const std::string digest = to_hex(found);
        job.take(i, &digest, nullptr);
      });
}

class Walk {
 public:
  Walk(const std::vector<std::string>& ignored, std::vector<ModelFile>& out)
      : ignored_(ignored), out_(out) {}

  void folder(const fs::path& path, const std::string& prefix) {
    for (const fs::directory_entry& e : fs::directory_iterator(path)) {
      const std::string name = prefix + e.path().filename().native();
      if (std::ranges::any_of(ignored_, [&](const std::string& i) { return lies_in(name, i); }))
        continue;
      if (e.is_directory() && !e.is_symlink())
        folder(e.path(), name + "/");
      else
        out_.push_back(file(e, name));
    }
  }

 private:
  static ModelFile file(const fs::directory_entry& e, const std::string& name) {
    using Kind = ModelFile::Kind;
    std::error_code dangling;
    const bool link = e.is_symlink();
    if (e.is_regular_file(dangling)) return {name, link ? Kind::Link : Kind::File, e.file_size()};
    if (link) return {name, e.is_directory(dangling) ? Kind::FolderLink : Kind::Link, 0};
    return {name, Kind::Other, 0};
  }

  const std::vector<std::string>& ignored_;
  std::vector<ModelFile>& out_;
};

}  // namespace

std::vector<ModelFile> files_of_model(const std::string& folder,
                                      const std::vector<std::string>& ignored) {
  std::vector<ModelFile> out;
  try {
    Walk(ignored, out).folder(folder, "");
  } catch (const fs::filesystem_error& e) {
    throw Error(Fault::Io, "cannot be looked into: " + e.code().message())
        .in(e.path1().empty() ? folder : e.path1().native());
  }
  std::ranges::sort(out, {}, &ModelFile::name);
  return out;
}

const std::vector<std::string>& git_paths() {
  static const std::vector<std::string> kPaths{".git", ".gitattributes", ".github", ".gitignore"};
  return kPaths;
}

void hash_each(HashType type, const ResourceJob& job, const RunOptions& options) {
  if (type == HashType::Blake2b) return blake2b_each(job, options);
  DigestJob sha;
  sha.count = job.count;
  sha.extent = job.extent;
  sha.total_bytes = job.total_bytes;
  sha.take = [&](std::size_t i, const Sha256* digest, const Error* error) {
    if (error) return job.take(i, nullptr, error);
    const std::string hex = digest->hex();
    job.take(i, &hex, nullptr);
  };
  sha256_each(sha, options);
}

std::vector<Resource> shards_of(const std::string& name, std::uint64_t bytes,
                                std::uint64_t shard_size) {
  std::vector<Resource> out;
  for (std::uint64_t at = 0; at < bytes;) {
    const std::uint64_t n = std::min(shard_size, bytes - at);
    out.push_back({name, at, at + n, {}});
    at += n;
  }
  return out;
}

}  // namespace wtool
