#include "cli/last_words.h"

#include <atomic>
#include <cerrno>
#include <exception>
#include <initializer_list>
#include <new>
#include <string_view>
#include <system_error>

#include <unistd.h>

#include "cli/command.h"
#include "lib/engine/unfinished.h"

namespace wtool {
namespace {

std::atomic<bool> g_json{false}, g_begun{false};

void say(std::initializer_list<std::string_view> texts) noexcept {
  for (std::string_view text : texts)
    while (!text.empty()) {
      const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
      if (n <= 0 && errno != EINTR) return;
      if (n > 0) text.remove_prefix(static_cast<std::size_t>(n));
    }
}

// Takes no memory. Whoever comes second waits for the end.
[[noreturn]] void end(ExitCode code, std::string_view fault, std::string_view what,
                      std::string_view hint) noexcept {
  while (g_begun.exchange(true)) ::pause();
  undo_unfinished();
  if (g_json)
    say({R"({"schema": "wtool.error/1", "ok": false, "error": {"fault": ")", fault,
         R"(", "where": "", "message": ")", what, R"(", "hint": ")", hint, "\"}}\n"});
  else
    say({"wtool: error: ", what, hint.empty() ? "" : "\nhint: ", hint, "\n"});
  undo_unfinished();  // another thread may have made a file meanwhile
  ::_exit(static_cast<int>(code));
}

[[noreturn]] void no_memory() noexcept {
  end(ExitCode::Io, "io", "out of memory", "");
}

[[noreturn]] void terminated() noexcept {
  try {
    if (const std::exception_ptr current = std::current_exception())
      std::rethrow_exception(current);
  } catch (const std::bad_alloc&) {
    no_memory();
  } catch (const std::system_error& e) {
    if (e.code().value() == ENOMEM) no_memory();
  } catch (...) {
    // A bug, as below.
  }
  end(ExitCode::Internal, "internal", "terminated", "this is a bug in wtool");
}

}  // namespace

void prepare_last_words(bool json) noexcept {
  g_json = json;
  std::set_new_handler(no_memory);
  std::set_terminate(terminated);
}

}  // namespace wtool
