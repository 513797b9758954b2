// The whole command line, in-process, on one file in memory: the first byte chooses the command. It
// ends with an exit code of the contract, says what it says in a sound form, changes neither the
// input nor anything beside the output, and what it writes can be read.
#include <array>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/run.h"
#include "formats/registry.h"
#include "lib/base/text.h"
#include "tests/fuzz/readers.h"
#include "tests/fuzz/work_folder.h"

namespace fs = std::filesystem;

namespace wtool::fuzz {
namespace {

// Words of a command line; IN is the input, OUT the output, NAME the name of a tensor in it.
struct Case {
  std::string_view line;
  enum class Form : std::uint8_t { Text, Json, Bytes } form = Form::Text;
};
constexpr auto kJsonForm = Case::Form::Json;
constexpr std::array kCases{
    Case{"inspect IN"},
    Case{"inspect --json IN", kJsonForm},
    Case{"inspect -l --meta IN"},
    Case{"inspect --by dtype,layer,scheme,file IN"},
    Case{"inspect --sort size --json IN", kJsonForm},
    Case{"show IN -- NAME"},
    Case{"show --json IN -- NAME", kJsonForm},
    Case{"show --full --dtype f32 IN -- NAME"},
    Case{"show --to raw IN -- NAME", Case::Form::Bytes},
    Case{"show --to csv -o OUT.csv IN -- NAME"},
    Case{"show -o OUT.npy IN -- NAME"},
    Case{"show IN -- NAME[0]"},
    Case{"show IN -- NAME[...,-1:]"},
    Case{"stats IN"},
    Case{"stats --json IN", kJsonForm},
    Case{"stats --by layer --sort absmax IN"},
    Case{"stats --cast f16 IN"},
    Case{"stats IN --hist NAME"},
    Case{"stats IN --rows NAME"},
    Case{"digest IN"},
    Case{"digest --per-tensor IN", kJsonForm},
    Case{"check IN"},
    Case{"check --json IN", kJsonForm},
    Case{"check --write-lock OUT.lock --digests IN"},
    Case{"check --fast --json IN", kJsonForm},
    Case{"check --lenient --fail-on note IN"},
    Case{"check --salvage OUT.safetensors IN"},
    Case{"check --fast --salvage OUT.gguf IN"},
    Case{"diff IN IN"},
    Case{"diff --json IN IN", kJsonForm},
    Case{"convert IN -o OUT.safetensors"},
    Case{"convert --json IN -o OUT.safetensors", kJsonForm},
    Case{"convert IN -o OUT.gguf"},
    Case{"convert IN --endian big -o OUT.gguf"},
    Case{"convert IN --to npy -o OUT/"},
    Case{"convert IN --to imatrix -o OUT.dat"},
    Case{"convert IN --dtype bf16 -o OUT.safetensors"},
    Case{"convert IN --dtype f16 --saturate -o OUT.gguf"},
    Case{"convert IN --shard-size 256 -o OUT/ --to safetensors"},
    Case{"convert IN --shard-size 256 -o OUT/ --to gguf"},
    Case{"convert IN --scheme plain -o OUT.safetensors"},
    Case{"convert -n IN -o OUT.gguf"},
    Case{"quantize --int8 IN -o OUT.safetensors"},
    Case{"quantize --int4 --fallback IN -o OUT.safetensors"},
    Case{"quantize --nf4 --json IN -o OUT.safetensors", kJsonForm},
    Case{"quantize --fp8 --block IN -o OUT.safetensors"},
    Case{"quantize --nvfp4 IN -o OUT.safetensors"},
    Case{"quantize --mxfp4 IN -o OUT.safetensors"},
    Case{"quantize --int4 --scheme gptq IN -o OUT.safetensors"},
    Case{"quantize --int4 --scheme awq IN -o OUT.safetensors"},
    Case{"quantize --type q4_k_m --fallback --requantize IN -o OUT.gguf"},
    Case{"quantize --type q8_0 --pure --fallback IN -o OUT.gguf"},
    Case{"quantize --type iq4_xs --imatrix IN --fallback IN -o OUT.gguf"},
};

// The two streams in memory while a command runs; put back before anything is said about it.
class Streams {
 public:
  Streams() {
    for (const int i : {0, 1}) {
      kept(i) = ::dup(i + 1);
      expect(kept(i) >= 0 && ::ftruncate(file(i), 0) == 0 && ::lseek(file(i), 0, SEEK_SET) == 0 &&
                 ::dup2(file(i), i + 1) == i + 1,
             "no stream to write to");
    }
  }
  ~Streams() {
    for (const int i : {0, 1}) {
      ::dup2(kept(i), i + 1);
      ::close(kept(i));
    }
  }
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;

  static std::string text(int i) {
    std::string out(static_cast<std::size_t>(::lseek(file(i), 0, SEEK_END)), '\0');
    expect(::pread(file(i), out.data(), out.size(), 0) == static_cast<ssize_t>(out.size()),
           "a stream that does not read");
    return out;
  }

 private:
  static int file(int i) {
    static const std::array files{::memfd_create("stdout", MFD_CLOEXEC),
                                  ::memfd_create("stderr", MFD_CLOEXEC)};
    return files[static_cast<std::size_t>(i)];
  }
  int& kept(int i) { return kept_[static_cast<std::size_t>(i)]; }
  std::array<int, 2> kept_ = {-1, -1};
};

struct Result {
  ExitCode code;
  std::string out, err;
};
Result run_line(const std::vector<std::string>& words) {
  std::vector<const char*> argv{"wtool"};
  for (const std::string& w : words) argv.push_back(w.c_str());
  argv.insert(argv.begin() + 2, "-j1");
  ExitCode code = ExitCode::Internal;
  {
    const Streams streams;
    code = run_wtool(static_cast<int>(argv.size()), argv.data());
  }
  return {code, Streams::text(0), Streams::text(1)};
}

std::string said(const std::vector<std::string>& words, const Result& r) {
  return fmt::format("wtool {}: exit {}: {}", fmt::join(words, " "), static_cast<int>(r.code),
                     r.err.substr(0, 1000));
}

// Names and values from files must not reach the terminal as they are.
bool is_clean(std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f) return false;
  }
  return is_utf8(text);
}

void expect_sound(const Case& which, const std::vector<std::string>& words, const Result& r) {
  expect(r.code != ExitCode::Internal, said(words, r));
  expect(r.code != ExitCode::Usage || !r.err.empty(), said(words, r));
  expect(is_clean(r.err), "raw bytes on stderr: " + said(words, r));
  const bool done = r.code == ExitCode::Ok || r.code == ExitCode::No;
  if (which.form == Case::Form::Text)
    expect(is_clean(r.out), "raw bytes on stdout: " + said(words, r));
  else if (which.form == kJsonForm && (done || !r.out.empty()))
    expect(nlohmann::json::accept(r.out), "stdout is no JSON: " + said(words, r));
}

std::string first_tensor(const std::string& path) {
  try {
    Diagnostics faults;
    const auto model = open_model(path, all_formats(), {}, faults);
    if (model->tensors.empty()) return "none";
    const std::string_view name = model->tensors[model->tensors.size() / 2].name;
    if (!name.empty() && name.find('\0') == name.npos) return std::string(name);
  } catch (const Error&) {
    return "none";
  }
  return "none";
}

std::vector<std::string> words_of(std::string_view line, const WorkFolder& folder) {
  std::vector<std::string> out;
  const auto replace = [](std::string& word, std::string_view what, const std::string& by) {
    if (const auto at = word.find(what); at != word.npos) word.replace(at, what.size(), by);
  };
  while (!line.empty()) {
    const std::size_t end = std::min(line.find(' '), line.size());
    std::string word(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
    if (word == "IN") word = folder / "in";
    if (word.starts_with("OUT")) replace(word, "OUT", folder / "out");
    if (word.starts_with("NAME")) replace(word, "NAME", first_tensor(folder / "in"));
    out.push_back(std::move(word));
  }
  return out;
}

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The one thing beside the input; "" if there is none.
std::string output_in(const WorkFolder& folder) {
  std::string out;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    const std::string name = entry.path().filename();
    if (name == "in") continue;
    expect(name.starts_with("out") && out.empty(), "left behind: " + name);
    out = entry.path();
  }
  return out;
}

bool holds_weights(const std::string& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() != ".json") return true;
  return false;
}

void expect_output(const std::vector<std::string>& words, const Result& r,
                   const WorkFolder& folder) {
  const std::string out = output_in(folder);
  const bool failed = r.code != ExitCode::Ok && r.code != ExitCode::No;
  expect(out.empty() || !failed, "an output in spite of: " + said(words, r));
  if (out.empty() || words[0] == "show" || out.ends_with(".lock")) return;
  // A model without tensors, as NPY, is a folder without files.
  if (fs::is_directory(out) && !holds_weights(out)) return;
  const Result again = run_line({"inspect", "--json", out});
  expect(again.code == ExitCode::Ok, said(words, r) + "what it wrote: " + again.err);
}

void run(Bytes input) {
  if (input.empty()) return;
  const Case& which = kCases[static_cast<std::size_t>(input[0]) % kCases.size()];
  const std::string_view file = as_text(input.subspan(1));
  const WorkFolder folder("cli");
  folder.write("in", file);
  const std::vector<std::string> words = words_of(which.line, folder);
  const Result result = run_line(words);
  expect_sound(which, words, result);
  expect(content(folder / "in") == file, "changed its input: " + said(words, result));
  expect_output(words, result, folder);
}

void mutate(std::string& data, Mutation& how) {
  if (data.empty() || how.one_in(6)) {
    data = static_cast<char>(how.below(kCases.size())) +
           data.substr(std::min<std::size_t>(data.size(), 1));
    return;
  }
  std::string file = data.substr(1);
  mutate_weights(file, how);
  data.replace(1, data.npos, file);
}

}  // namespace

extern const Target kCli;
const Target kCli{"cli", run, mutate};

}  // namespace wtool::fuzz
