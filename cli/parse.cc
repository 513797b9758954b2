#include "cli/parse.h"

#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/terminal.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

std::string did_you_mean(std::string_view word, std::span<const std::string_view> known,
                         std::string otherwise) {
  const std::string_view near = nearest(word, known);
  return near.empty() ? std::move(otherwise) : fmt::format("did you mean '{}'?", near);
}

std::string see_help(const std::string& command) {
  return fmt::format("'wtool help {}' shows the options", command);
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* o : app.get_options()) {
    for (const std::string& n : o->get_lnames()) names.push_back("--" + n);
    for (const std::string& n : o->get_snames()) names.push_back("-" + n);
  }
  return names;
}

[[noreturn]] void refuse_extra(const CLI::App& app, std::string extra) {
  if (!extra.starts_with('-') || extra == "-")
    throw Error(Fault::Usage, fmt::format("unexpected argument {}", wtool::quoted(extra)))
        .hint(see_help(app.get_name()));
  extra.resize(std::min(extra.find('='), extra.size()));
  const std::vector<std::string> names = option_names(app);
  const std::vector<std::string_view> views(names.begin(), names.end());
  throw Error(Fault::Usage, fmt::format("unknown option {}", wtool::quoted(extra)))
      .hint(did_you_mean(extra, views, see_help(app.get_name())));
}

// CLI11's sentences, in our words where it has only a few.
std::string reworded(std::string text) {
  const auto after = [&](std::string_view front) -> std::optional<std::string> {
    return text.starts_with(front) ? std::optional(text.substr(front.size())) : std::nullopt;
  };
  if (const auto rest = after("Could not convert: ")) {
    const auto equals = rest->find(" = ");
    if (equals != std::string::npos)
      return fmt::format("{}: '{}' is no number", rest->substr(0, equals),
                         rest->substr(equals + 3));
  }
  if (const auto at = text.find(": 1 required"); at != std::string::npos)
    return fmt::format("{} needs a value", text.substr(0, at));
  if (const auto at = text.find(" is required"); at != std::string::npos && at + 12 == text.size())
    return fmt::format("{} is missing", text.substr(0, at));
  if (!text.empty() && text[0] >= 'A' && text[0] <= 'Z' && (text.size() < 2 || text[1] >= 'a'))
    text[0] = static_cast<char>(text[0] - 'A' + 'a');
  return printable(text);
}

[[noreturn]] void refuse(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> extras = app.remaining();
  for (const std::string& extra : extras)
    if (extra.starts_with('-') && extra != "-" && extra != "--") refuse_extra(app, extra);
  if (dynamic_cast<const CLI::ExtrasError*>(&error) && !extras.empty())
    refuse_extra(app, extras.front());
  throw Error(Fault::Usage, reworded(error.what())).hint(see_help(app.get_name()));
}

Action print_action(std::string (*text)()) {
  return [text](const Context&) {
    out(text());
    return ExitCode::Ok;
  };
}

// "--sha256=$HEX" with an empty HEX must not pass for "--sha256".
void refuse_empty_values(int argc, const char* const* argv) {
  for (int i = 2; i < argc && std::string_view(argv[i]) != "--"; ++i) {
    const std::string_view arg = argv[i];
    if (arg.starts_with("--") && arg.find('=') == arg.size() - 1)
      throw Error(Fault::Usage, fmt::format("{} has no value after '='", wtool::quoted(arg)));
  }
}

// `wtool --version --json`: the options that need no command.
void parse_without_command(int argc, const char* const* argv, Invocation& invocation) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg == "--json")
      invocation.common.json = true;
    else if (arg == "-V" || arg == "--version")
      invocation.action = [](const Context& context) {
        out(context.common->json ? version_json() : version_text());
        return ExitCode::Ok;
      };
    else if (arg == "-h" || arg == "--help")
      invocation.action = print_action(overview);
    else if (arg.starts_with('-'))
      throw Error(Fault::Usage, fmt::format("unknown option {}", wtool::quoted(arg)))
          .hint("options come after the command: wtool inspect [options] INPUT");
    else
      throw Error(Fault::Usage, fmt::format("unexpected argument {}", wtool::quoted(arg)))
          .hint("'wtool help' lists the commands");
    if (invocation.action && !invocation.common.json)
      invocation.common.json = wants_json(argc, argv);
  }
  if (!invocation.action)
    throw Error(Fault::Usage, "no command given").hint("'wtool help' lists the commands");
}

}  // namespace

bool wants_json(int argc, const char* const* argv) noexcept {
  for (int i = 1; i < argc && std::string_view(argv[i]) != "--"; ++i)
    if (std::string_view(argv[i]) == "--json") return true;
  return false;
}

const Command& find_command(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Command& c : all_commands()) {
    if (c.name == name) return c;
    names.push_back(c.name);
  }
  throw Error(Fault::Usage, fmt::format("unknown command {}", wtool::quoted(name)))
      .hint(did_you_mean(name, names, "'wtool help' lists the commands"));
}

std::unique_ptr<CLI::App> make_app(const Command& command, Common& common, Action* action) {
  auto app = std::make_unique<CLI::App>(std::string(command.summary), std::string(command.name));
  app->set_help_flag();  // ours, with our text
  Action bound = command.bind(*app);
  if (action) *action = std::move(bound);
  app->set_help_flag("-h,--help", "this text")->group("common");
  add_common_options(*app, common);
  return app;
}

void parse(int argc, const char* const* argv, Invocation& invocation) {
  if (argc < 2 || argv[1][0] == '-') return parse_without_command(argc, argv, invocation);
  const Command& command = find_command(argv[1]);
  refuse_empty_values(argc, argv);
  invocation.app = make_app(command, invocation.common, &invocation.action);
  try {
    invocation.app->parse(argc - 1, argv + 1);
  } catch (const CLI::CallForHelp&) {
    invocation.action = [&command](const Context&) {
      out(help_of(command));
      return ExitCode::Ok;
    };
  } catch (const CLI::ParseError& e) {
    refuse(*invocation.app, e);
  }
}

}  // namespace wtool
