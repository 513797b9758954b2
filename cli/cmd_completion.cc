#include <algorithm>
#include <array>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/parse.h"
#include "cli/terminal.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

// What a shell needs to know of a command, read from the very options that parse it.
struct Opt {
  std::string short_name, long_name, what;  // with dashes
  bool takes_value = false, takes_tensors = false, takes_file = false;
  std::vector<std::string> words;
};

// The values of options that take one of a few words.
std::vector<std::string> words_of(const CLI::Option& o) {
  const auto& l = o.get_lnames();
  const std::string name = l.empty() ? "" : l.front();
  if (name == "color") return {"auto", "always", "never"};
  if (name == "progress") return {"auto", "bar", "json", "off"};
  if (name == "to" && o.get_option_text() == "FORM") return {"text", "npy", "csv", "raw"};
  if (name == "to") return {"safetensors", "gguf", "npy"};
  if (name == "sort" && o.get_option_text() == "COLUMN")
    return {"name",  "count",      "min",        "max",      "mean",      "std",       "absmax",
            "zeros", "subnormals", "non_finite", "outliers", "overflows", "underflows"};
  if (name == "by" && o.get_option_text() == "WHAT") return {"layer"};
  if (name == "cast") return {"f16", "bf16", "f8_e4m3", "f8_e5m2"};
  if (name == "sort") return {"name", "size", "offset", "dtype", "shape"};
  if (name == "by") return {"dtype", "layer", "scheme", "file"};
  if (name == "scheme") return {"compressed-tensors", "gptq", "awq", "plain"};
  if (name == "dtype") return {"f32", "f16", "bf16", "f64"};
  return {};
}

std::vector<Opt> options_of(const Command& command) {
  Common common;
  const auto app = make_app(command, common, nullptr);
  std::vector<Opt> all;
  for (const CLI::Option* o : app->get_options()) {
    if (o->get_positional() || o->get_group().empty()) continue;
    Opt opt;
    if (!o->get_snames().empty()) opt.short_name = "-" + o->get_snames().front();
    if (!o->get_lnames().empty()) opt.long_name = "--" + o->get_lnames().front();
    opt.what = o->get_description();
    opt.takes_value = o->get_items_expected_min() > 0;
    opt.takes_tensors =
        o->get_option_text().starts_with("PATTERN") || o->get_option_text() == "TENSOR";
    opt.takes_file = opt.takes_value && !opt.takes_tensors;
    opt.words = words_of(*o);
    all.push_back(std::move(opt));
  }
  return all;
}

std::string joined_names(const std::vector<Opt>& options) {
  std::string names;
  for (const Opt& o : options)
    for (const std::string* n : {&o.short_name, &o.long_name})
      if (!n->empty()) names += (names.empty() ? "" : " ") + *n;
  return names;
}

// The argument of a command that is no file.
std::string words_for(const Command& command) {
  if (command.name == "completion") return "bash zsh fish";
  if (command.name != "help") return {};
  std::string names;
  for (const Command& c : all_commands())
    names += fmt::format("{}{}", names.empty() ? "" : " ", c.name);
  return names;
}

std::string bash() {
  std::string commands, tables, values;
  for (const Command& c : all_commands()) {
    commands += fmt::format("{}{}", commands.empty() ? "" : " ", c.name);
    const std::vector<Opt> options = options_of(c);
    tables += fmt::format("    {}) options='{}' words='{}' ;;\n", c.name, joined_names(options),
                          words_for(c));
    for (const Opt& o : options) {
      if (o.words.empty() && !o.takes_tensors) continue;
      const std::string key = fmt::format("{}:{}", c.name, o.long_name);
      const std::string pattern =
          o.short_name.empty() ? key : fmt::format("{}|{}:{}", key, c.name, o.short_name);
      const std::string action =
          o.takes_tensors
              ? "_wtool_tensors"
              : fmt::format("COMPREPLY=($(compgen -W '{}' -- \"$cur\"))", fmt::join(o.words, " "));
      values += fmt::format("    {}) {}; return ;;\n", pattern, action);
    }
  }
  return fmt::format(R"sh(# bash completion for wtool; load it with: source <(wtool completion bash)
# Names come from a file: compgen -W would expand, and so run, what they say.
_wtool_tensors() {{
  local w line
  for w in "${{COMP_WORDS[@]:2}}"; do
    [[ -e $w ]] || continue
    while IFS= read -r line; do
      if [[ $line == "$cur"* ]]; then COMPREPLY+=("$(printf %q "$line")"); fi
    done < <(wtool completion --tensors "$w" 2>/dev/null)
    return
  done
}}
_wtool() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} options='' words=''
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W '{commands} --version --help' -- "$cur")); return
  fi
  case ${{COMP_WORDS[1]}}:$prev in
{values}  esac
  case ${{COMP_WORDS[1]}} in
{tables}  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
  elif [[ -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  else
    compopt -o filenames 2>/dev/null
    local IFS=$'\n'
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}}
complete -F _wtool wtool
)sh",
                     fmt::arg("commands", commands), fmt::arg("values", values),
                     fmt::arg("tables", tables));
}

// Within single quotes, in zsh's 'spec[text]:message:action' form.
std::string zsh_text(std::string_view s) {
  std::string out;
  for (const char c : s) {
    if (c == '\'')
      out += "'\\''";
    else if (c == '[' || c == ']' || c == ':' || c == '\\')
      out += std::string("\\") + c;
    else
      out += c;
  }
  return out;
}

std::string zsh_spec(const Opt& o, std::string_view name) {
  std::string value;
  if (o.takes_tensors)
    value = ":pattern:_wtool_tensors";
  else if (!o.words.empty())
    value = fmt::format(":value:({})", fmt::join(o.words, " "));
  else if (o.takes_value)
    value = ":value:_files";
  return fmt::format("'*{}[{}]{}'", name, zsh_text(o.what), value);
}

std::string zsh() {
  std::string commands, cases;
  for (const Command& c : all_commands()) {
    commands += fmt::format("    '{}:{}'\n", c.name, zsh_text(c.summary));
    cases += fmt::format("    {}) _arguments -s", c.name);
    for (const Opt& o : options_of(c))
      for (const std::string* n : {&o.short_name, &o.long_name})
        if (!n->empty()) cases += " \\\n      " + zsh_spec(o, *n);
    const std::string words = words_for(c);
    cases += words.empty() ? " \\\n      '*:input:_files' ;;\n"
                           : fmt::format(" \\\n      '*:word:({})' ;;\n", words);
  }
  return fmt::format(R"sh(#compdef wtool
# zsh completion for wtool; put it as _wtool into a folder of $fpath
_wtool_tensors() {{
  local w; local -a names
  for w in $words; do
    if [[ -e $w ]]; then names=("${{(@f)$(wtool completion --tensors $w 2>/dev/null)}}"); break; fi
  done
  compadd -a names
}}
_wtool() {{
  local -a commands=(
{commands}  )
  if (( CURRENT == 2 )); then _describe command commands; return; fi
  local command=$words[2]
  shift words; (( CURRENT-- ))
  case $command in
{cases}  esac
}}
if [[ $funcstack[1] == _wtool ]]; then _wtool "$@"; else compdef _wtool wtool; fi
)sh",
                     fmt::arg("commands", commands), fmt::arg("cases", cases));
}

std::string fish_text(std::string_view s) {
  std::string out;
  for (const char c : s) out += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out;
}

std::string fish() {
  std::string lines =
      "# fish completion for wtool; put it as wtool.fish into ~/.config/fish/completions\n"
      "function __wtool_tensors\n"
      "  for w in (commandline -opc)[3..-1]\n"
      "    if test -e $w; wtool completion --tensors $w 2>/dev/null; return; end\n"
      "  end\n"
      "end\n";
  for (const Command& c : all_commands())
    lines += fmt::format("complete -c wtool -n __fish_use_subcommand -f -a {} -d '{}'\n", c.name,
                         fish_text(c.summary));
  for (const Command& c : all_commands()) {
    const std::string when = fmt::format("-n '__fish_seen_subcommand_from {}'", c.name);
    if (const std::string words = words_for(c); !words.empty())
      lines += fmt::format("complete -c wtool {} -f -a '{}'\n", when, words);
    for (const Opt& o : options_of(c)) {
      lines += fmt::format("complete -c wtool {}", when);
      if (!o.short_name.empty()) lines += " -s " + o.short_name.substr(1);
      if (!o.long_name.empty()) lines += " -l " + o.long_name.substr(2);
      if (o.takes_tensors)
        lines += " -x -a '(__wtool_tensors)'";
      else if (!o.words.empty())
        lines += fmt::format(" -x -a '{}'", fmt::join(o.words, " "));
      else if (o.takes_value)
        lines += " -r";
      lines += fmt::format(" -d '{}'\n", fish_text(o.what));
    }
  }
  return lines;
}

struct Options {
  std::string shell, tensors;
};

// One name a line; names that a line cannot hold are left out.
void print_tensors(const std::string& path, const Context& context) {
  Diagnostics faults;
  const auto model = open_model(path, context.registry, {}, faults);
  for (const LogicalTensor& t : model->tensors)
    if (printable(t.name) == t.name) out(std::string(t.name) + "\n");
}

ExitCode run(const Options& o, const Context& context) {
  if (!o.tensors.empty()) {
    print_tensors(o.tensors, context);
  } else if (o.shell == "bash") {
    out(bash());
  } else if (o.shell == "zsh") {
    out(zsh());
  } else if (o.shell == "fish") {
    out(fish());
  } else {
    throw Error(Fault::Usage, o.shell.empty()
                                  ? "SHELL is missing"
                                  : fmt::format("no completion for {}", quoted(o.shell)))
        .hint("there is bash, zsh and fish");
  }
  return ExitCode::Ok;
}

Action bind(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("SHELL", options->shell, "bash, zsh or fish");
  app.add_option("--tensors", options->tensors, "")->group("");  // hidden: the scripts' own
  app.footer("example:\n  source <(wtool completion bash)\n");
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace

extern const Command kCompletion;
const Command kCompletion{"completion", "completion for bash, zsh or fish", bind};

}  // namespace wtool
