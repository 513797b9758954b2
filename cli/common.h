#pragma once
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "lib/engine/output_set.h"

namespace wtool {

// -j, --json, -q, -v, --color, --progress, --max-memory: on every command.
void add_common_options(CLI::App& app, Common& common);
// Threads and signal wired; refuses (Usage) a --max-memory that is too low for one thread, and
// lowers the number of threads to fit.
RunOptions run_options(const Common& common, const std::atomic<int>* signal);

// INPUT and how to open it.
struct InputOptions {
  std::string path;
  bool alone = false;
  std::string void_as;  // --as
};
void add_input_options(CLI::App& app, InputOptions& options);
void add_open_options(CLI::App& app, InputOptions& options);  // all but INPUT
OpenOptions open_options(const InputOptions& options, const Context& context);
// Opens and prints the notes of opening to stderr.
std::shared_ptr<const Model> open_input(const InputOptions& options, const Context& context);

// By its whole name; null if there is none. Then the error that says so, with the nearest name.
const LogicalTensor* find_tensor(const Model& model, std::string_view name);
Error no_such_tensor(const Model& model, std::string_view name);

// -t, -x, --allow-unmatched.
struct SelectOptions {
  std::vector<std::string> include, exclude;
  bool allow_unmatched = false;
};
void add_select_options(CLI::App& app, SelectOptions& options);
std::vector<std::uint32_t> selected(const Model& model, const SelectOptions& options);

// -o, -f, -n, --report, and where the result goes.
struct OutputOptions {
  std::string output;  // "" : named after the input
  bool force = false, dry_run = false;
  std::string report;  // a file for the report as JSON
};
void add_output_options(CLI::App& app, OutputOptions& options);
OutputSet::Existing existing(const OutputOptions& options) noexcept;  // by --force

struct Destination {
  std::string path;  // of the file or folder; "-" for standard output
  OutputSet::Kind kind = OutputSet::Kind::File;
  const Format* format = nullptr;
};
// By the rules of the command line: -o, --to (may be empty), the input's own format; without -o the
// result is named after the input with `label` ("int8": m.safetensors → m.int8.safetensors,
// m/ → m-int8/, m.gguf → m-int8.gguf). Throws Usage: unknown suffix, cache folder or '.' without
// -o, binary to a terminal. `prefer` is the format when the input's own cannot be written or is not
// wanted (NPY to quantise), else null.
Destination destination(const OutputOptions& options, const std::string& to, const Model& model,
                        const Registry& registry, std::string_view label,
                        const Format* prefer = nullptr);

// What Destination goes by. A folder is named by what is one, "m/" and "m/.".
bool is_folder_name(const std::string& path);
// A folder's own name, without the slashes and dots behind it. Throws Usage for "." and "..".
std::string without_dots(std::string_view path);
// A name within a cache is not ours to write beside: Hugging Face's and others' keep their own
// books.
bool in_cache(const std::string& path);
void refuse_terminal(const OutputOptions& options);  // Usage: binary data would go to one

// {"schema": "wtool.error/1", …} or "wtool: error: …" and the hint, on stderr.
void print_error(const Error& error, bool json);
std::string_view version_number() noexcept;  // "0.1.0"
std::string_view revision() noexcept;        // the commit it was built from, or ""
std::string version_text();
std::string version_json();

}  // namespace wtool
