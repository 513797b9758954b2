#pragma once
#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "cli/command.h"

namespace wtool {

// What the command line asks for. The options that `action` reads live in `app`.
struct Invocation {
  std::unique_ptr<CLI::App> app;
  Common common;
  Action action;
};

// Looks for --json before anything is parsed, so that errors of parsing come in the right form.
bool wants_json(int argc, const char* const* argv) noexcept;
// Throws Usage, with "did you mean", in our form. --help and --version become actions.
void parse(int argc, const char* const* argv, Invocation& invocation);

// The name of a command, else Usage with the nearest one.
const Command& find_command(std::string_view name);
// An App with the command's options and the common ones.
std::unique_ptr<CLI::App> make_app(const Command& command, Common& common, Action* action);

std::string overview();                       // `wtool help`
std::string help_of(const Command& command);  // `wtool help inspect`

}  // namespace wtool
