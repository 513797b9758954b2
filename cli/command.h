#pragma once
#include <atomic>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "lib/engine/in_order.h"
#include "lib/model/model.h"

namespace CLI {
class App;  // its header takes three seconds to compile: only files that declare options have it
}

namespace wtool {

// The contract that scripts rely on.
enum class ExitCode : int { Ok = 0, No = 1, Usage = 2, BadFile = 3, Io = 4, Internal = 70 };

ExitCode exit_code_of(Fault fault) noexcept;
ExitCode worst(ExitCode a, ExitCode b) noexcept;  // 70 > 4 > 3 > 2 > 1 > 0

// Options that every command has, parsed before its own action runs (cli/common.cc).
struct Common {
  bool json = false;
  bool quiet = false, verbose = false;
  unsigned threads = 0;           // 0: not given
  std::string color = "auto";     // auto, always, never
  std::string progress = "auto";  // auto, bar, json, off
  std::string max_memory;         // "" : not given
};

struct Context {
  Registry registry;
  RunOptions run;  // threads resolved, signal and progress wired
  const Common* common = nullptr;
};
using Action = std::function<ExitCode(const Context&)>;

struct Command {
  std::string_view name, summary;
  Action (*bind)(CLI::App&);  // declares options; gives what to do once they are parsed
};
std::span<const Command> all_commands() noexcept;  // in help order

}  // namespace wtool
