#include <array>
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/engine/files_posix.h"
#include "lib/trust/key.h"

namespace wtool {
namespace {

constexpr std::size_t kLongest = std::size_t{1} << 20;

Error io(const std::string& path, std::string_view doing) {
  return Error(Fault::Io,
               fmt::format("cannot {}: {}", doing, std::generic_category().message(errno)))
      .in(path);
}

void write_new(const std::string& path, std::string_view text, mode_t mode) {
  const Descriptor file(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (file.get() < 0 && errno == EEXIST)
    throw Error(Fault::Usage, "already exists")
        .in(path)
        .hint("a key is never replaced: choose another name, or move the old one away");
  if (file.get() < 0) throw io(path, "be made");
  const auto fail = [&](std::string_view doing) {
    Error error = io(path, doing);
    ::unlink(path.c_str());
    return error;
  };
  while (!text.empty()) {
    const ssize_t n = again([&] { return ::write(file.get(), text.data(), text.size()); });
    if (n < 0) throw fail("be written");
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  if (::fsync(file.get()) != 0 && errno != EINVAL) throw fail("be flushed");
}

}  // namespace

Secret read_private_file(const std::string& path) {
  // Not blocking: a pipe that nobody writes to would hold us up before the checks.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) throw io(path, "be opened");
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) throw io(path, "be looked at");
  if (!S_ISREG(status.st_mode) && !S_ISFIFO(status.st_mode))
    throw Error(Fault::Usage, "is no file").in(path);
  if ((status.st_mode & 077) != 0)
    throw Error(Fault::Usage,
                fmt::format("is to be a private key, but others may use it: its mode is "
                            "{:04o}",
                            static_cast<unsigned>(status.st_mode & 07777)))
        .in(path)
        .hint(fmt::format("chmod 600 {}", path));
  if (::fcntl(file.get(), F_SETFL, O_RDONLY) != 0) throw io(path, "be read");
  Secret out;
  std::array<char, 4096> piece;
  for (;;) {
    const ssize_t n = again([&] { return ::read(file.get(), piece.data(), piece.size()); });
    if (n < 0) throw io(path, "be read");
    if (n == 0) break;
    out.append({piece.data(), static_cast<std::size_t>(n)});
    OPENSSL_cleanse(piece.data(), piece.size());
    if (out.view().size() > kLongest)
      throw Error(Fault::BadFile, fmt::format("is longer than {} bytes: no key is", kLongest))
          .in(path);
  }
  return out;
}

void write_key_files(const std::string& private_path, const Secret& private_pem,
                     const std::string& public_path, const std::string& public_pem) {
  write_new(private_path, private_pem.view(), 0600);
  try {
    write_new(public_path, public_pem, 0644);
  } catch (...) {
    ::unlink(private_path.c_str());
    throw;
  }
}

}  // namespace wtool
