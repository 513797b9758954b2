#include "cli/common.h"

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <thread>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "cli/json.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/engine/execute.h"
#include "lib/model/selector.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

// A CLI11 check: the value is one of a few words.
auto one_of(std::initializer_list<std::string_view> words) {
  return [known = std::vector<std::string_view>(words)](const std::string& value) {
    if (std::ranges::find(known, value) != known.end()) return std::string();
    return fmt::format("{} is none of {}", wtool::quoted(value), fmt::join(known, ", "));
  };
}

std::string check_threads(const std::string& value) {
  const auto n = parse_u64(value);
  if (n && *n >= 1 && *n <= 1024) return {};
  return fmt::format("{} is no number from 1 to 1024", wtool::quoted(value));
}

std::string check_size(const std::string& value) {
  if (parse_size(value)) return {};
  return fmt::format("{} is no size; write it like 5GB (decimal) or 5GiB (binary)",
                     wtool::quoted(value));
}

}  // namespace

ExitCode exit_code_of(Fault fault) noexcept {
  switch (fault) {
    case Fault::Usage: return ExitCode::Usage;
    case Fault::BadFile:
    case Fault::Unsupported: return ExitCode::BadFile;
    case Fault::Io:
    case Fault::Cancelled: return ExitCode::Io;  // Cancelled: main dies by the signal instead
    case Fault::Internal: break;
  }
  return ExitCode::Internal;
}

ExitCode worst(ExitCode a, ExitCode b) noexcept {
  return std::max(a, b);
}

void add_common_options(CLI::App& app, Common& common) {
  const auto add = [&](CLI::Option* o) { o->group("common"); };
  add(app.add_option("-j,--threads", common.threads, "threads to use")
          ->option_text("N")
          ->check(check_threads));
  add(app.add_flag("--json", common.json, "one JSON document on stdout"));
  add(app.add_flag("-q,--quiet", common.quiet, "no notes, no progress"));
  add(app.add_flag("-v,--verbose", common.verbose, "more detail"));
  add(app.add_option("--color", common.color, "auto, always, never")
          ->option_text("WHEN")
          ->check(one_of({"auto", "always", "never"})));
  add(app.add_option("--progress", common.progress, "auto, bar, json, off")
          ->option_text("HOW")
          ->check(one_of({"auto", "bar", "json", "off"})));
  add(app.add_option("--max-memory", common.max_memory, "a ceiling for working memory")
          ->option_text("SIZE")
          ->check(check_size));
}

RunOptions run_options(const Common& common, const std::atomic<int>* signal) {
  RunOptions run;
  run.threads = common.threads ? common.threads : std::max(1u, std::thread::hardware_concurrency());
  run.stop_signal = signal;
  if (common.max_memory.empty()) return run;
  const std::uint64_t most = parse_size(common.max_memory).value_or(0);
  while (run.threads > 1 && working_memory(run.threads) > most) --run.threads;
  if (const std::uint64_t least = working_memory(run.threads); least > most)
    throw Error(Fault::Usage, fmt::format("--max-memory {}: even one thread needs {}",
                                          common.max_memory, human_bytes(least)));
  return run;
}

void add_input_options(CLI::App& app, InputOptions& options) {
  app.add_option("INPUT", options.path, "a file, a folder, any one shard of a set; - is stdin")
      ->required();
  add_open_options(app, options);
}

void add_open_options(CLI::App& app, InputOptions& options) {
  app.add_flag("--alone", options.alone, "just the named file, not the rest of its set");
  app.add_option("--as", options.void_as, "what the opaque elements of an NPY file are: bf16")
      ->option_text("TYPE");
}

const LogicalTensor* find_tensor(const Model& model, std::string_view name) {
  const auto it = std::ranges::find(model.tensors, name, &LogicalTensor::name);
  return it == model.tensors.end() ? nullptr : &*it;
}

Error no_such_tensor(const Model& model, std::string_view name) {
  std::vector<std::string_view> names;
  names.reserve(model.tensors.size());
  for (const LogicalTensor& t : model.tensors) names.push_back(t.name);
  Error error(Fault::Usage, fmt::format("no tensor named {}", quoted(name)));
  error.in(model.path);
  const std::string_view near = nearest(name, names);
  return error.hint(near.empty() ? "'wtool inspect' lists the names"
                                 : fmt::format("did you mean {}?", quoted(near)));
}

OpenOptions open_options(const InputOptions& options, const Context& context) {
  OpenOptions open{.alone = options.alone, .void_as = {}, .stop_signal = context.run.stop_signal};
  if (!options.void_as.empty()) {
    open.void_as = parse_dtype(options.void_as);
    if (!open.void_as) {
      std::vector<std::string_view> names;
      for (const DTypeInfo& t : all_dtypes()) names.push_back(t.name);
      Error error(Fault::Usage, fmt::format("--as: unknown type {}", quoted(options.void_as)));
      const auto near = nearest(options.void_as, names);
      throw near.empty() ? error : error.hint(fmt::format("did you mean '{}'?", near));
    }
  }
  return open;
}

std::shared_ptr<const Model> open_input(const InputOptions& options, const Context& context) {
  Diagnostics faults;
  auto model = open_model(options.path, context.registry, open_options(options, context), faults);
  constexpr std::size_t kShown = 20;
  for (const Diagnostics::Note& n : faults.notes().first(std::min(kShown, faults.notes().size())))
    note(printable(n.where.empty() ? n.text : n.where + ": " + n.text));
  if (faults.notes().size() > kShown)
    note(fmt::format("and {} notes more", faults.notes().size() - kShown));
  return model;
}

void add_select_options(CLI::App& app, SelectOptions& options) {
  // Exactly one value each time: a repeatable option must not swallow INPUT.
  app.add_option("-t,--tensors", options.include,
                 "only these: a name, a glob ('layers.1.mlp.*'), re:REGEX, dtype:bf16, layer:3-7, "
                 "shape:>=2d; repeatable")
      ->option_text("PATTERN")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("-x,--exclude", options.exclude, "all but these; repeatable")
      ->option_text("PATTERN")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--allow-unmatched", options.allow_unmatched,
               "a pattern that matches nothing is no error");
}

std::vector<std::uint32_t> selected(const Model& model, const SelectOptions& options) {
  try {
    return select(model.tensors, options.include, options.exclude, options.allow_unmatched);
  } catch (Error& e) {
    throw e.in(model.path);
  }
}

void add_output_options(CLI::App& app, OutputOptions& options) {
  app.add_option("-o,--output", options.output, "a file, a folder (with '/'), or - for stdout")
      ->option_text("OUTPUT");
  app.add_flag("-f,--force", options.force, "replace what is there");
  app.add_flag("-n,--dry-run", options.dry_run, "say what would be done, write nothing");
  app.add_option("--report", options.report, "the report as JSON, to a file")->option_text("FILE");
}
OutputSet::Existing existing(const OutputOptions& options) noexcept {
  return options.force ? OutputSet::Existing::Replace : OutputSet::Existing::Refuse;
}

namespace {

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

// "m-00001-of-00003" is one of a set named "m".
std::string without_shard_number(std::string stem) {
  const auto of = stem.rfind("-of-");
  if (of == std::string::npos) return stem;
  const auto dash = stem.rfind('-', of - (of > 0));
  if (dash == std::string::npos || dash >= of) return stem;
  const bool numbers = parse_u64(std::string_view(stem).substr(of + 4)) &&
                       parse_u64(std::string_view(stem).substr(dash + 1, of - dash - 1));
  if (numbers) stem.resize(dash);
  return stem;
}

const Format& output_format(const OutputOptions& options, const std::string& to, const Model& model,
                            const Registry& registry, const Format* prefer, bool folder) {
  if (!to.empty()) return registry.format(to);
  const Format& own = prefer ? *prefer : registry.format(model.catalog.format);
  if (options.output.empty() || options.output == "-" || folder) return own;
  if (const Format* by_name = registry.by_suffix(options.output)) return *by_name;
  const std::string suffix = fs::path(options.output).extension();
  if (suffix.empty())
    throw Error(Fault::Usage, "the output's name has no suffix, so its format is not clear")
        .in(options.output)
        .hint("add a suffix, say --to FORMAT, or end the name in '/' for a folder");
  throw Error(Fault::Usage, fmt::format("unknown suffix {}", wtool::quoted(suffix)))
      .in(options.output)
      .hint("say --to FORMAT, or end the name in '/' for a folder");
}

// The name beside the input: m.safetensors → m.int8.safetensors, m/ → m-int8/, m.gguf →
// m-int8.gguf.
Destination beside(const Model& model, const Format& format, std::string_view label) {
  fs::path from = model.path;
  if (from.extension() == ".zst") from.replace_extension();  // as its original
  const auto need_name = [&](std::string_view why) {
    return Error(Fault::Usage, fmt::format("{}, so the output needs a name", why))
        .in(model.path)
        .hint("say -o OUTPUT");
  };
  if (model.path == "-") throw need_name("the input is standard input");
  const bool folder = model.is_folder;
  if (folder && !is_folder(model.path)) from = from.parent_path();
  if (!from.has_filename()) from = from.parent_path();  // "m/"
  const std::string name = from.filename();
  if (name.empty() || name == "." || name == "..")
    throw need_name("the input is a folder without a name");
  if (in_cache(from)) throw need_name("the input lies in a cache folder");
  Destination to{.path = {}, .kind = OutputSet::Kind::File, .format = &format};
  if (folder || (format.one_tensor && model.tensors.size() != 1)) {
    const std::string stem = folder ? name : without_shard_number(from.stem());
    const std::string tail = label.empty() ? std::string(format.name) : std::string(label);
    to.path = (from.parent_path() / (stem + "-" + tail)).string();
    to.kind = OutputSet::Kind::Folder;
    return to;
  }
  const bool dash = format.name == "gguf";  // as GGUF files are named everywhere
  const std::string suffix(format.suffixes.front());
  std::string stem = without_shard_number(from.stem());
  if (!label.empty()) stem += (dash ? "-" : ".") + std::string(label);
  to.path = (from.parent_path() / (stem + suffix)).string();
  if (fs::path(to.path) == from) throw need_name("the result would take the input's own name");
  return to;
}

}  // namespace

bool is_folder_name(const std::string& path) {
  return is_folder(path) || path.ends_with('/') || path.ends_with("/.");
}
std::string without_dots(std::string_view path) {
  const std::string typed(path);
  while ((path.size() > 1 && path.ends_with('/')) || path.ends_with("/.")) path.remove_suffix(1);
  const auto last = path.substr(path.rfind('/') + 1);
  if (last == "." || last == "..")
    throw Error(Fault::Usage, "the output has no name of its own")
        .in(typed)
        .hint("name the folder, as seen from the one above it: ../NAME");
  return std::string(path);
}
bool in_cache(const std::string& path) {
  std::error_code failed;
  const fs::path whole = fs::absolute(path, failed);
  if (failed) return false;
  return std::ranges::any_of(whole, [](const fs::path& part) {
    const std::string name = part.string();
    return name == ".cache" || name.starts_with("models--") || name == "blobs";
  });
}
void refuse_terminal(const OutputOptions& options) {
  if (!options.dry_run && ::isatty(STDOUT_FILENO) == 1)
    throw Error(Fault::Usage, "binary data is not sent to a terminal")
        .hint("say -o FILE, or redirect standard output");
}

Destination destination(const OutputOptions& options, const std::string& to, const Model& model,
                        const Registry& registry, std::string_view label, const Format* prefer) {
  const std::string& path = options.output;
  const bool folder =
      !path.empty() && path != "-" &&
      (is_folder_name(path) || (model.is_folder && fs::path(path).extension().empty()));
  const Format& format = output_format(options, to, model, registry, prefer, folder);
  if (!format.layout)
    throw Error(Fault::Unsupported, fmt::format("{} can be read but not written", format.name));
  if (path.empty()) return beside(model, format, label);
  Destination result{.path = path, .kind = OutputSet::Kind::File, .format = &format};
  if (path == "-") {
    refuse_terminal(options);
    result.kind = OutputSet::Kind::Stdout;
  } else if (folder) {
    result.path = without_dots(path);
    result.kind = OutputSet::Kind::Folder;
  }
  return result;
}

namespace {

std::string_view name_of(Fault fault) noexcept {
  switch (fault) {
    case Fault::Usage: return "usage";
    case Fault::BadFile: return "bad-file";
    case Fault::Unsupported: return "unsupported";
    case Fault::Io: return "io";
    case Fault::Cancelled: return "cancelled";
    case Fault::Internal: break;
  }
  return "internal";
}

void to_stderr(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
    if (n <= 0) return;  // nobody is left to tell
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

std::string error_as_json(const Error& error) {
  std::string text;
  JsonWriter w([&text](std::string_view s) { text += s; });  // lives shorter than the text
  w.begin_object();
  w.member("schema", "wtool.error/1");
  w.member("ok", false);
  w.key("error");
  w.begin_object();
  w.member("fault", name_of(error.fault()));
  w.member("where", error.where());
  w.member("message", error.text());
  w.member("hint", error.hint());
  w.end_object();
  w.end_object();
  return text + "\n";
}

}  // namespace

void print_error(const Error& error, bool json) {
  if (json) return to_stderr(error_as_json(error));
  const bool color = terminal().color_err;
  std::string text = fmt::format("wtool: {}error:{} {}\n", color ? "\x1b[1;31m" : "",
                                 color ? "\x1b[0m" : "", fit_charset(printable(error.what())));
  if (!error.hint().empty())
    text += fmt::format("hint: {}\n", fit_charset(printable(error.hint())));
  to_stderr(text);
}

}  // namespace wtool
