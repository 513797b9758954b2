#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/json.h"
#include "cli/terminal.h"
#include "cli/verify.h"
#include "formats/compressed.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBeside = "beside";  // --sha256 without a value

using Options = VerifyOptions;

// What one file is compared with, and how that went.
struct Promise {
  std::string path, name;  // to open; to print
  std::string source;      // the list the digest is from; "" if it was typed
  Sha256 expected;
  std::optional<std::uint64_t> bytes = {};
  std::vector<ManifestTensor> tensors = {};
  bool original = false;  // of a compressed file, what it restores to

  enum class Answer : std::uint8_t { Ok, Failed, Missing, Error } answer = Answer::Ok;
  Sha256 found = {};
  std::uint64_t found_bytes = 0;
  std::string fault = {}, tensor = {}, difference = {};
};
using Answer = Promise::Answer;

std::string beside(const std::string& file, const std::string& name) {
  return (fs::path(file).parent_path() / name).native();
}

std::vector<Promise> promises_of(DigestList&& list) {
  std::vector<Promise> out;
  for (const Checksum& c : list.checksums) {
    if (c.name.empty())
      throw Error(Fault::BadFile, "is a digest without a name")
          .in(list.path)
          .hint("'--sha256' takes it for the file it stands beside");
    out.push_back({list.place(c.name), c.name, list.path, c.digest});
  }
  if (!list.manifest) return out;
  for (const ManifestFile& f : list.manifest->files)
    out.push_back({list.place(f.name), f.name, list.path, f.digest, f.bytes});
  for (ManifestTensor& t : list.manifest->tensors) out[t.file].tensors.push_back(std::move(t));
  return out;
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The same name, or another way to the same file.
bool same(const Promise& p, const std::string& path) {
  return fs::path(p.path).lexically_normal() == fs::path(path).lexically_normal() ||
         real_path(p.path) == real_path(path);
}

// "m.safetensors" of "m.safetensors.zst"; empty if the name is no such name.
std::string without_suffix(const std::string& path) {
  const std::string_view original = without_compressed_suffix(path);
  return original == path ? std::string() : std::string(original);
}

// FILE.sha256: the digest alone, or a list with the file's name, from wherever it was made.
std::optional<Promise> from_sidecar(const std::string& path) {
  const std::string list = path + ".sha256";
  if (!exists(list)) return std::nullopt;
  const std::string base = fs::path(path).filename();
  for (const Checksum& c : read_digest_list(list).checksums)
    if (c.name.empty() || fs::path(c.name).filename() == base)
      return Promise{path, path, list, c.digest};
  throw nothing_to_compare(path, fmt::format("{} does not list it", wtool::quoted(list)));
}

// A compressed file as its original; null if it is none.
std::shared_ptr<const CompressedFile> compressed(const std::string& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) ? open_compressed(open_file(path)) : nullptr;
}

// What the file itself says of its original. Damage shows; whoever made the file is not known.
std::optional<Promise> from_index(const std::string& path) {
  const auto file = compressed(path);
  if (!file) return std::nullopt;
  Promise out{path, path, "its own index", file->index().digest, file->index().bytes};
  out.original = true;
  return out;
}

// What lies beside a file, or in a folder.
std::vector<Promise> find_beside(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    const std::string list = fs::path(path) / "SHA256SUMS";
    if (!exists(list)) throw nothing_to_compare(path, "there is no SHA256SUMS in it");
    return promises_of(read_digest_list(list));
  }
  if (auto one = from_sidecar(path)) return {std::move(*one)};
  if (const std::string original = without_suffix(path); !original.empty())
    if (auto one = from_sidecar(original)) {
      one->path = one->name = path;
      one->original = true;
      return {std::move(*one)};
    }
  const std::string list = beside(path, "SHA256SUMS");
  if (!exists(list))
    throw nothing_to_compare(
        path, fmt::format("neither {} nor {} is there", wtool::quoted(path + ".sha256"),
                          wtool::quoted(list)))
        .hint("give the digest itself: --sha256=HEX");
  const std::string original = without_suffix(path);
  for (Promise& p : promises_of(read_digest_list(list)))
    if (same(p, path) || (!original.empty() && same(p, original))) {
      p.original = !same(p, path);
      p.path = p.name = path;
      return {std::move(p)};
    }
  throw nothing_to_compare(path, fmt::format("{} does not list it", wtool::quoted(list)));
}

std::vector<Promise> from_digest(const Options& options) {
  std::string_view hex = options.sha256;
  if (hex.starts_with("sha256:")) hex.remove_prefix(7);
  const auto digest = parse_sha256(hex);
  if (!digest)
    throw Error(Fault::Usage, fmt::format("--sha256: {} is not 64 hexadecimal digits",
                                          wtool::quoted(options.sha256)));
  if (options.paths.size() != 1)
    throw Error(Fault::Usage,
                fmt::format("--sha256=HEX is for one file, not {}", options.paths.size()));
  return {{options.paths[0], options.paths[0], "", *digest}};
}

std::vector<Promise> from_list(const Options& options, DigestList&& list) {
  std::vector<Promise> all = promises_of(std::move(list));
  if (options.paths.empty()) return all;
  std::vector<Promise> out;
  for (const std::string& path : options.paths) {
    const auto it = std::ranges::find_if(all, [&](const Promise& p) { return same(p, path); });
    if (it == all.end())
      throw nothing_to_compare(path,
                               fmt::format("{} does not list it", wtool::quoted(options.check)));
    out.push_back(*it);
    out.back().path = out.back().name = path;
  }
  return out;
}

// Of several paths, those that have nothing beside them are told, and the others go on.
std::vector<Promise> find_beside_all(const Options& options, const Context& context,
                                     ExitCode& code) {
  if (options.paths.size() == 1) return find_beside(options.paths[0]);
  std::vector<Promise> out;
  for (const std::string& path : options.paths) try {
      for (Promise& p : find_beside(path)) out.push_back(std::move(p));
    } catch (const Error& e) {
      print_error(e, context.common->json);
      code = worst(code, exit_code_of(e.fault()));
    }
  return out;
}

std::vector<Promise> promises(const Options& options, const Context& context, ExitCode& code) {
  if (options.paths.empty())
    throw Error(Fault::Usage, "no file is named").hint("'wtool help verify' shows the options");
  if (options.sha256.empty()) {
    std::vector<Promise> own;
    for (const std::string& path : options.paths) {
      auto one = from_index(path);
      if (!one)
        throw nothing_to_compare(path, "no digest is given")
            .hint(
                "--sha256=HEX, --sha256 for the digest beside the file, -c LIST, or --key for a "
                "signature");
      own.push_back(std::move(*one));
    }
    return own;
  }
  if (options.sha256 != kBeside) return from_digest(options);
  std::vector<Promise> out = find_beside_all(options, context, code);
  if (out.empty() && code == ExitCode::Ok)
    throw nothing_to_compare(options.paths[0], "the list is empty");
  return out;
}

// Why the tensor in the file is not the one that was promised; empty if it is.
std::string difference(const ManifestTensor& want, const Catalog& catalog, const RunOptions& run) {
  const TensorEntry* entry = catalog.find(want.name);
  if (!entry) return "is not there any more";
  if (name_of(entry->dtype) != want.dtype || !std::ranges::equal(entry->shape, want.shape))
    return fmt::format("is {} {}, but was {} {}", name_of(entry->dtype), to_text(entry->shape),
                       want.dtype, to_text(want.shape));
  const Sha256 found = sha256_of({catalog.extent(*entry)}, run).at(0);
  if (found == want.stored) return {};
  return fmt::format("differs: expected {}, found {}", want.stored.hex(), found.hex());
}

// The first tensor that differs, or that none does.
void find_difference(Promise& p, const Context& context) {
  if (p.tensors.empty()) return;
  try {
    Diagnostics faults;
    const auto model = open_model(p.path, context.registry, {.alone = true, .void_as = {}}, faults);
    RunOptions run = context.run;
    run.progress = {};
    for (const ManifestTensor& want : p.tensors) {
      p.difference = difference(want, model->catalog, run);
      p.tensor = want.name;
      if (!p.difference.empty()) return;
    }
    p.tensor.clear();
    const std::size_t there = model->catalog.entries().size();
    const std::size_t more = there - std::min(there, p.tensors.size());
    p.difference = more > 0 ? fmt::format("all {} tensors are as promised, but {} were added",
                                          p.tensors.size(), more)
                            : fmt::format(
                                  "all {} tensors are as promised: only the header or the "
                                  "metadata differs",
                                  p.tensors.size());
  } catch (const Error& e) {
    if (e.fault() == Fault::Cancelled) throw;
    p.difference = fmt::format("cannot be opened any more: {}", e.what());
  }
}

std::string_view word(Answer answer) {
  switch (answer) {
    case Answer::Ok: return "OK";
    case Answer::Failed: return "FAILED";
    case Answer::Missing: return "MISSING";
    case Answer::Error: break;
  }
  return "ERROR";
}

void print(const Promise& p) {
  const Style style = p.answer == Answer::Ok ? Style::Green : Style::Red;
  std::string text = fmt::format("{}: {}", printable(p.name), paint(style, word(p.answer)));
  if (p.original) text += " (the original in it)";
  if (!p.source.empty()) text += fmt::format(" ({})", printable(p.source));
  text += "\n";
  if (p.answer == Answer::Failed) {
    text += fmt::format("  expected {}\n  found    {}\n", p.expected.hex(), p.found.hex());
    if (p.bytes && *p.bytes != p.found_bytes)
      text += fmt::format("  {} bytes instead of {}\n", p.found_bytes, *p.bytes);
    if (!p.tensor.empty())
      text += fmt::format("  tensor {} {}\n", wtool::quoted(p.tensor), printable(p.difference));
    else if (!p.difference.empty())
      text += fmt::format("  {}\n", printable(p.difference));
  }
  out(fit_charset(text));
}

// What is compared, and what came of it.
struct Comparison {
  std::vector<Promise> all;
  const DigestList* list = nullptr;     // of --check
  std::vector<std::string> extra = {};  // files that a signed manifest does not list
  ExitCode code = ExitCode::Ok;
};

void write_json(const Options& options, const Comparison& c) {
  JsonWriter w(out);
  w.begin_document("wtool.verify/1", c.code == ExitCode::Ok, options.paths);
  if (c.list) write_signature(w, *c.list);
  w.key("files");
  w.begin_array();
  for (const Promise& p : c.all) {
    w.begin_object();
    w.name_member("file", p.name);
    w.member("result", lower(word(p.answer)));
    w.name_member("source", p.source);
    if (p.original) w.member("original", true);
    w.member("expected", p.expected.hex());
    if (p.answer == Answer::Ok || p.answer == Answer::Failed) w.member("found", p.found.hex());
    if (p.answer == Answer::Error) w.member("error", p.fault);
    if (!p.tensor.empty()) w.name_member("tensor", p.tensor);
    if (!p.difference.empty()) w.member("difference", p.difference);
    w.end_object();
  }
  w.end_array();
  if (!c.extra.empty()) {
    w.key("extra");
    w.begin_array();
    for (const std::string& name : c.extra) {
      w.begin_object();
      w.name_member("file", name);
      w.end_object();
    }
    w.end_array();
  }
  w.end_object();
}

// A digest that is not the compressed file's may be its original's; but of what cannot be restored
// it is nobody's.
void look_inside(Promise& p, const Context& context) {
  try {
    const auto file = compressed(p.path);
    if (!file || file->index().digest != p.expected) return;
    RunOptions run = context.run;
    run.progress = {};
    p.found = sha256_of({{file, 0, file->size()}}, run)[0];
    p.found_bytes = file->size();
    p.original = true;
  } catch (const Error& e) {
    if (e.fault() == Fault::Cancelled) throw;
    p.difference = e.what();
  }
}

// Reads the files; tells each result in order.
ExitCode compare(std::vector<Promise>& all, const Context& context) {
  ExitCode code = ExitCode::Ok;
  std::vector<SourcePtr> open(all.size());
  DigestJob job;
  job.count = all.size();
  std::error_code ignored;
  for (const Promise& p : all)
    if (fs::is_regular_file(p.path, ignored)) job.total_bytes += fs::file_size(p.path, ignored);
  job.extent = [&](std::size_t i) -> Extent {
    Promise& p = all[i];
    open[i] = p.path == "-" ? from_stdin(&stop_signal()) : open_file(p.path);
    if (p.original) open[i] = unwrap_compressed(open[i]);
    return {open[i], 0, p.found_bytes = open[i]->size()};
  };
  job.take = [&](std::size_t i, const Sha256* digest, const Error* error) {
    Promise& p = all[i];
    if (digest) {
      p.found = *digest;
      if (p.found != p.expected && !p.original) look_inside(p, context);
      p.answer = p.found == p.expected ? Answer::Ok : Answer::Failed;
      if (p.answer == Answer::Failed) find_difference(p, context);
      code = worst(code, p.answer == Answer::Ok ? ExitCode::Ok : ExitCode::No);
    } else if (error->fault() == Fault::Io && !p.source.empty() && !exists(p.path)) {
      p.answer = Answer::Missing;
      code = worst(code, ExitCode::No);
    } else {
      p.answer = Answer::Error;
      p.fault = error->what();
      print_error(*error, context.common->json);
      code = worst(code, exit_code_of(error->fault()));
    }
    open[i].reset();
    if (!context.common->json) print(p);
  };
  Progress progress(*context.common, "verify", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  sha256_each(job, run);
  return code;
}

// A signed manifest of a folder is of all that lies in it.
void find_extra(const Options& options, const Context& context, Comparison& c) {
  if (!options.paths.empty()) {
    if (!options.signature.ignore.empty() || options.signature.ignore_unsigned)
      throw Error(Fault::Usage, "--ignore and --ignore-unsigned are about all files, not PATH");
    return;
  }
  c.extra = unlisted_files(*c.list, options.signature);
  if (!c.extra.empty()) c.code = worst(c.code, ExitCode::No);
  if (context.common->json) return;
  for (const std::string& name : c.extra)
    out(fit_charset(fmt::format("{}: {} ({} does not list it)\n", printable(name),
                                paint(Style::Red, "EXTRA"), printable(c.list->path))));
}

ExitCode run_list(const Options& options, const Context& context) {
  DigestList list = read_digest_list(options.check, options.signature, context);
  Comparison c;
  c.list = &list;
  if (list.usable()) {
    find_extra(options, context, c);
    c.all = from_list(options, std::move(list));
    if (c.all.empty()) throw nothing_to_compare(options.check, "the list is empty");
    c.code = worst(c.code, compare(c.all, context));
  } else {
    c.code = list.verdict->code;
  }
  if (context.common->json) write_json(options, c);
  return c.code;
}

ExitCode run_signature(const Options& options, const Context& context) {
  if (options.paths.size() != 1)
    throw Error(Fault::Usage,
                fmt::format("a signature is of one model, not {}", options.paths.size()));
  return verify_signature(options.signature, options.paths[0], context);
}

// A model with a signature and nothing said: it can tell what it wants to be verified with.
bool is_signed(const Options& options) {
  return options.paths.size() == 1 && options.sha256.empty() &&
         exists(default_signature(options.paths[0]));
}

ExitCode run(const Options& options, const Context& context) {
  const bool of_model = !options.tensors.empty() || !options.content.empty();
  if (!of_model && (options.open.alone || !options.open.void_as.empty()))
    throw Error(Fault::Usage, "--alone and --as go with --content and --tensors");
  if (!options.check.empty() && !options.sha256.empty())
    throw Error(Fault::Usage, "either --sha256 or --check, not both");
  if (is_given(options.signature) && !options.sha256.empty())
    throw Error(Fault::Usage,
                "either a signature or a digest: --key and the like do not go with "
                "--sha256");
  if (!options.content.empty() && !options.tensors.empty())
    throw Error(Fault::Usage, "either --content or --tensors, not both");
  if (!options.content.empty()) return verify_content(options, context);
  if (!options.tensors.empty()) return verify_tensors(options, context);
  if (!options.check.empty()) return run_list(options, context);
  if (is_given(options.signature) || is_signed(options)) return run_signature(options, context);
  Comparison c;
  c.all = promises(options, context, c.code);
  c.code = worst(c.code, compare(c.all, context));
  if (context.common->json) write_json(options, c);
  return c.code;
}

Action bind(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  app.add_option("PATH", options->paths, "what to verify; with -c: all that is listed");
  // A flag, because a flag takes a value only after '=' and so never swallows PATH.
  app.add_flag(fmt::format("--sha256{{{}}}", kBeside), options->sha256,
               "compare with =HEX; without it, with PATH.sha256 or SHA256SUMS beside it")
      ->option_text("[=HEX]");
  app.add_option("-c,--check", options->check,
                 "a list: sha256sum's, or a manifest of 'wtool digest --per-tensor'; with --key "
                 "and the like, a signed one")
      ->option_text("LIST");
  // Exactly one value each time: a repeatable option must not swallow PATH.
  app.add_option("-t,--tensors", options->tensors,
                 "with -c MANIFEST: only these tensors, and nothing else is read; repeatable")
      ->option_text("PATTERN")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--content", options->content,
                 "the model's tensors, in whatever container: 'wtool digest --content'")
      ->option_text("ROOT");
  add_open_options(app, options->open);
  add_signature_options(app, options->signature);
  app.footer("example:\n  wtool verify --sha256 model.safetensors\n");
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace

extern const Command kVerify;
const Command kVerify{"verify", "is it the file I was promised?", bind};

}  // namespace wtool
