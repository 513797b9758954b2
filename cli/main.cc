#include <csignal>

#include <fcntl.h>
#include <unistd.h>

#include "cli/last_words.h"
#include "cli/parse.h"
#include "cli/run.h"
#include "cli/terminal.h"

namespace wtool {
namespace {

// A closed standard stream would be taken by the next file we open. Opened the wrong way round, so
// that using it is still an error.
void occupy_standard_files() noexcept {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(fd, F_GETFD) < 0)
      static_cast<void>(::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY));
}

extern "C" void store_signal(int number) {
  wtool::stop_signal().store(number);
}

void handle_signals() noexcept {
  stop_signal() = 0;
  struct sigaction action = {};
  action.sa_handler = store_signal;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction old = {};
    ::sigaction(number, nullptr, &old);
    if (old.sa_handler != SIG_IGN) ::sigaction(number, &action, nullptr);  // nohup stays nohup
  }
  std::signal(SIGPIPE, SIG_IGN);  // EPIPE and EFBIG come back as errors instead
  std::signal(SIGXFSZ, SIG_IGN);
}

}  // namespace
}  // namespace wtool

int main(int argc, char** argv) {
  wtool::occupy_standard_files();
  wtool::handle_signals();
  wtool::prepare_last_words(wtool::wants_json(argc, argv));
  const wtool::ExitCode code = wtool::run_wtool(argc, argv);
  if (const int number = wtool::stop_signal()) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
  return static_cast<int>(code);
}
