#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/check.h"
#include "lib/base/error.h"

namespace wtool {
namespace {

using Options = CheckOptions;

// Options that only one of the three jobs takes.
void check_together(const Options& o) {
  const auto only = [](bool given, std::string_view what, std::string_view with) {
    if (given) throw Error(Fault::Usage, fmt::format("{} is for {}", what, with));
  };
  const bool locks = !o.lock.empty() || !o.write_lock.empty();
  if (!o.lock.empty() && !o.write_lock.empty())
    throw Error(Fault::Usage, "--lock and --write-lock do not go together");
  if (locks && (o.fast || o.strict || o.lenient || !o.fail_on.empty() || !o.salvage.empty()))
    throw Error(Fault::Usage,
                "--fast, --strict, --lenient, --fail-on and --salvage are about a model's health, "
                "not about a lock")
        .hint("run 'wtool check' twice");
  only(o.write_lock.empty() && o.digests, "--digests", "--write-lock");
  only(o.write_lock.empty() && !o.tolerance.empty(), "--envelope-tolerance", "--write-lock");
  only(!o.write_lock.empty() && o.findings.any(), "--junit or --sarif",
       "a check, with or without --lock");
}

ExitCode run(const Options& o, const Context& context) {
  if (o.rules) return list_rules(o, context);
  if (o.input.path.empty())
    throw Error(Fault::Usage, "INPUT is missing").hint("wtool check MODEL, or wtool check --rules");
  check_together(o);
  if (!o.write_lock.empty()) return write_lock(o, context);
  return o.lock.empty() ? check_health(o, context) : check_lock(o, context);
}

// An empty value is a variable that was not set: nothing would be checked, or written.
std::string not_empty(const std::string& value) {
  return value.empty() ? "is empty" : "";
}

Action bind(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("INPUT", o->input.path, "a file, a folder, any one shard of a set; - is stdin");
  add_open_options(app, o->input);
  add_select_options(app, o->select);
  app.add_flag("--fast", o->fast, "headers only: values are not read");
  app.add_flag("--strict", o->strict, "every broken rule is an error (the default)");
  app.add_flag("--lenient", o->lenient, "what the reference implementations accept is a warning");
  app.add_option("--fail-on", o->fail_on,
                 "exit 1 on: error (the default), warning, note, or a rule")
      ->option_text("LEVEL")
      ->check(not_empty);
  app.add_option("--salvage", o->salvage, "write the intact tensors of a damaged model")
      ->option_text("OUT")
      ->check(not_empty);
  app.add_flag("--rules", o->rules, "list all rules");
  app.add_option("--lock", o->lock, "is it as it was locked? else exit 1")
      ->option_text("FILE")
      ->check(not_empty);
  app.add_option("--write-lock", o->write_lock, "lock names, types, shapes and ranges of values")
      ->option_text("FILE")
      ->check(not_empty);
  app.add_flag("--digests", o->digests, "lock the SHA-256 of every tensor too");
  app.add_option("--envelope-tolerance", o->tolerance,
                 "how far values may leave their range: a share, default 0.1")
      ->option_text("SHARE");
  add_findings_options(app, o->findings);
  app.add_flag("-f,--force", o->findings.force, "replace what is written: OUT, lock, reports");
  app.footer(
      "examples:\n"
      "  wtool check model/\n"
      "  wtool check --fast --sarif model.sarif model.gguf\n"
      "  wtool check --salvage rescued.safetensors cut.safetensors\n"
      "  wtool check --lock weights.lock model/\n");
  return [o](const Context& context) { return run(*o, context); };
}

}  // namespace

extern const Command kCheck;
const Command kCheck{"check", "is it healthy? structure, values, hostile content; is it as locked?",
                     bind};

}  // namespace wtool
