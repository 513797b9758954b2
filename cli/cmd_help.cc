#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/parse.h"
#include "cli/terminal.h"

namespace wtool {
namespace {

constexpr std::size_t kWidest = 100;  // lines longer than this are hard to read

std::size_t help_width() {
  return std::clamp<std::size_t>(terminal().width, 40, kWidest);
}

// Words at most `width` columns a line; later lines begin with `indent` blanks.
std::string wrapped(std::string_view text, std::size_t column, std::size_t indent,
                    std::size_t width) {
  std::string lines;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (column > indent && column + display_width(word) > width) {
      while (lines.ends_with(' ')) lines.pop_back();
      lines += '\n' + std::string(indent, ' ');
      column = indent;
    }
    lines += word;
    column += display_width(word);
    if (!text.empty()) {
      lines += ' ';
      ++column;
    }
  }
  return lines;
}

std::string value_name(const CLI::Option& o) {
  if (!o.get_option_text().empty()) return o.get_option_text();
  if (o.get_items_expected_max() == 0) return {};
  std::string name = o.get_type_name();
  if (const auto colon = name.find(':'); colon != std::string::npos) name.resize(colon);
  return name;
}

// "-t, --tensors PATTERN", "    --by LIST", "    --sha256[=HEX]"
std::string names_of(const CLI::Option& o) {
  const auto& s = o.get_snames();
  const auto& l = o.get_lnames();
  std::string names = s.empty() ? "    " : fmt::format("-{}", s.front());
  if (!l.empty()) names += fmt::format("{}--{}", s.empty() ? "" : ", ", fmt::join(l, ", --"));
  const std::string value = value_name(o);
  if (value.empty()) return names;
  return names + (value.starts_with('[') ? "" : " ") + value;
}

std::string usage_line(const CLI::App& app) {
  std::string usage = "usage: wtool " + app.get_name();
  for (const CLI::Option* o : app.get_options()) {
    if (!o->get_positional()) continue;
    const bool many = o->get_items_expected_max() > 1;
    const std::string name = o->get_name(true) + (many ? "..." : "");
    usage += o->get_required() ? " " + name : " [" + name + "]";
  }
  return usage + " [options]";
}

// Groups of options that have no lines of their own.
struct FoldedGroup {
  std::string_view name, title;
};
constexpr FoldedGroup kFolded[] = {{"as in convert", "as in convert"},
                                   {"more, in the page", "more, in the page"},
                                   {"common", "as everywhere"}};
bool is_folded(std::string_view group) {
  return std::ranges::find(kFolded, group, &FoldedGroup::name) != std::end(kFolded);
}

void append_options(std::string& text, const CLI::App& app) {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const CLI::Option* o : app.get_options()) {
    if (o->get_group().empty() || is_folded(o->get_group())) continue;
    rows.emplace_back(o->get_positional() ? o->get_name(true) : names_of(*o), o->get_description());
  }
  std::size_t column = 0;
  for (const auto& [names, what] : rows)
    if (const std::size_t w = display_width(names) + 4; w <= 35) column = std::max(column, w);
  for (const auto& [names, what] : rows) {
    const std::size_t w = display_width(names) + 2;
    text += "  " + names;
    text += w + 2 > column ? "\n" + std::string(column, ' ') : std::string(column - w, ' ');
    text += wrapped(what, column, column, help_width()) + "\n";
  }
}

// Options that are only named, in a line or two.
void append_folded(std::string& text, const CLI::App& app, const FoldedGroup& group) {
  const std::string start = fmt::format("{}: ", group.title);
  std::string line = start;
  for (const CLI::Option* o : app.get_options()) {
    if (o->get_group() != group.name) continue;
    const std::string names = names_of(*o);
    line += (line == start ? "" : "; ") + names.substr(names.find_first_not_of(' '));
  }
  if (line != start) text += wrapped(line, 0, 2, help_width()) + "\n";
}

struct Options {
  std::string command;
};

ExitCode run(const Options& options, const Context&) {
  out(options.command.empty() ? overview() : help_of(find_command(options.command)));
  return ExitCode::Ok;
}

Action bind(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("COMMAND", options->command, "the command to explain; without it, a list of all");
  app.footer("example:\n  wtool help inspect\n");
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace

std::string overview() {
  std::string text = fit_charset(
      "wtool looks into, converts, shrinks and checks neural-network weight files\n"
      "(safetensors, GGUF, NPY).\n\n"
      "usage: wtool COMMAND INPUT... [options]\n\n");
  for (const Command& c : all_commands()) text += fmt::format("  {:<12}{}\n", c.name, c.summary);
  text +=
      "\nINPUT is a file, a folder, or any one shard of a set.\n"
      "'wtool help COMMAND' or 'man wtool-COMMAND' explains a command; 'wtool --version [--json]'\n"
      "says what this is.\n\n"
      "example:\n  wtool inspect model.safetensors\n";
  return fit_charset(text);
}

std::string help_of(const Command& command) {
  Common common;
  const auto app = make_app(command, common, nullptr);
  std::string text =
      fmt::format("wtool {}: {}\n\n{}\n\n", command.name, command.summary, usage_line(*app));
  append_options(text, *app);
  text += "\n";
  for (const FoldedGroup& group : kFolded) append_folded(text, *app, group);
  text += fmt::format("more: man wtool-{}\n", command.name);
  std::string footer = app->get_footer();
  while (footer.ends_with('\n')) footer.pop_back();
  if (!footer.empty()) text += "\n" + footer + "\n";
  return fit_charset(text);
}

extern const Command kHelp;
const Command kHelp{"help", "explain a command", bind};

}  // namespace wtool
