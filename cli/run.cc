#include "cli/run.h"

#include <csignal>
#include <new>
#include <system_error>

#include "cli/common.h"
#include "cli/parse.h"
#include "cli/terminal.h"
#include "formats/registry.h"

namespace wtool {
namespace {

ExitCode run(int argc, const char* const* argv, Invocation& invocation) {
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

}  // namespace

ExitCode run_wtool(int argc, const char* const* argv) {
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

}  // namespace wtool
