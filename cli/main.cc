#include <csignal>
#include <new>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "cli/common.h"
#include "cli/parse.h"
#include "cli/terminal.h"
#include "formats/registry.h"

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

ExitCode run(int argc, char** argv, Invocation& invocation) {
  parse(argc, argv, invocation);
  set_up_terminal(invocation.common);
  const Context context{.registry = all_formats(),
                        .run = run_options(invocation.common, &stop_signal()),
                        .common = &invocation.common};
  const ExitCode code = invocation.action(context);
  flush_out();
  return code;
}

ExitCode report(const Error& error, bool json) {
  if (error.fault() == Fault::Cancelled && stop_signal() != 0) return ExitCode::Io;
  try {
    flush_out();  // what was found out before
  } catch (const Error&) {
    if (stop_signal() == SIGPIPE) return ExitCode::Io;
  }
  print_error(error, json);
  return exit_code_of(error.fault());
}

ExitCode guarded(int argc, char** argv) {
  const bool json = wants_json(argc, argv);
  Invocation invocation;
  set_up_terminal(invocation.common);
  try {
    return run(argc, argv, invocation);
  } catch (const Error& e) {
    return report(e, json);
  } catch (const std::bad_alloc&) {
    return report(Error(Fault::Io, "out of memory"), json);
  } catch (const std::system_error& e) {  // also of std::filesystem
    return report(Error(Fault::Io, e.what()), json);
  } catch (const std::exception& e) {
    return report(Error(Fault::Internal, e.what()).hint("this is a bug in wtool"), json);
  }
}

}  // namespace
}  // namespace wtool

int main(int argc, char** argv) {
  wtool::occupy_standard_files();
  wtool::handle_signals();
  const wtool::ExitCode code = wtool::guarded(argc, argv);
  if (const int number = wtool::stop_signal()) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
  return static_cast<int>(code);
}
