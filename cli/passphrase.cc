#include "cli/passphrase.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <system_error>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include "cli/terminal.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::size_t kLongest = 1024;  // OpenSSL's PEM_BUFSIZE

// Whether there is a byte to read; waits, but not through Ctrl-C.
void wait_for(int fd) {
  for (;;) {
    if (stop_signal() != 0) throw Error(Fault::Cancelled, "interrupted");
    pollfd one{fd, POLLIN, 0};
    if (::poll(&one, 1, 200) > 0) return;
  }
}

Error too_long() {
  return Error(Fault::Usage, fmt::format("the passphrase is longer than {} bytes", kLongest));
}

// Up to the end of the line or of the file; byte by byte, for what follows is not ours.
Secret read_line(int fd, const std::string& where) {
  Secret out;
  for (;;) {
    wait_for(fd);
    char c = 0;
    const ssize_t n = ::read(fd, &c, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw Error(Fault::Io, fmt::format("the passphrase cannot be read: {}",
                                         std::generic_category().message(errno)))
          .in(where);
    if (n == 0 || c == '\n') break;
    out.append({&c, 1});
    if (out.view().size() > kLongest) throw too_long().in(where);
  }
  if (out.view().ends_with('\r')) out.pop_back();
  return out;
}

// The terminal itself, whatever standard input is, with its echo off while in scope.
class QuietTerminal {
 public:
  QuietTerminal() : fd_(::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY)) {
    if (fd_ < 0 || ::tcgetattr(fd_, &before_) != 0) {
      if (fd_ >= 0) ::close(fd_);
      throw Error(Fault::Usage, "a passphrase is needed, and there is no terminal to ask at")
          .hint("--passphrase-fd or --passphrase-env");
    }
    termios quiet = before_;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL);
    ::tcsetattr(fd_, TCSAFLUSH, &quiet);
  }
  ~QuietTerminal() {
    ::tcsetattr(fd_, TCSAFLUSH, &before_);
    say("\n");
    ::close(fd_);
  }
  QuietTerminal(const QuietTerminal&) = delete;
  QuietTerminal& operator=(const QuietTerminal&) = delete;

  Secret ask(const std::string& prompt) const {
    say(printable(prompt) + ": ");
    return read_line(fd_, "/dev/tty");
  }
  void say(std::string_view text) const {
    if (::write(fd_, text.data(), text.size()) < 0) return;  // it is asked all the same
  }

 private:
  int fd_;
  termios before_ = {};
};

}  // namespace

void add_passphrase_options(CLI::App& app, PassphraseOptions& options) {
  app.add_option("--passphrase-fd", options.descriptor,
                 "read the passphrase from this file descriptor, up to the end of the line")
      ->option_text("N")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--passphrase-env", options.variable,
                 "take the passphrase from this environment variable")
      ->option_text("NAME");
}

bool is_given(const PassphraseOptions& options) noexcept {
  return options.descriptor >= 0 || !options.variable.empty();
}

Secret passphrase(const PassphraseOptions& options, const std::string& prompt, bool twice) {
  if (options.descriptor >= 0 && !options.variable.empty())
    throw Error(Fault::Usage, "either --passphrase-fd or --passphrase-env, not both");
  Secret out;
  if (!options.variable.empty()) {
    const char* value = std::getenv(options.variable.c_str());
    if (!value)
      throw Error(Fault::Usage, fmt::format("--passphrase-env: there is no variable {}",
                                            quoted(options.variable)));
    out = Secret(value);
    if (out.view().size() > kLongest) throw too_long();  // no key made with it could be read
  } else if (options.descriptor >= 0) {
    out = read_line(options.descriptor, fmt::format("file descriptor {}", options.descriptor));
  } else {
    const QuietTerminal terminal;
    out = terminal.ask(prompt);
    if (twice && !out.empty()) {
      terminal.say("\n");
      if (terminal.ask("once more").view() != out.view())
        throw Error(Fault::Usage, "the two passphrases differ");
    }
  }
  if (out.empty()) throw Error(Fault::Usage, "the passphrase is empty");
  return out;
}

}  // namespace wtool
