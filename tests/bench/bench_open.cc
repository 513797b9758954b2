// bench_open FILE    best time to open a safetensors or GGUF header in process, and peak memory
// bench_open         the same of a header of 100,000 tensors, beside other ways to read its JSON
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef WTOOL_HAVE_SIMDJSON
#include <simdjson.h>
#endif

#include "formats/config_review.h"
#include "formats/content.h"
#include "formats/registry.h"
#include "lib/base/json_reader.h"
#include "lib/model/review.h"

namespace {

using namespace wtool;

constexpr int kRuns = 15;

// Every other way takes out the same: names, dtypes, dimensions, offsets.
struct Seen {
  std::uint64_t tensors = 0, bytes = 0;
  void name(std::string_view s) {
    ++tensors;
    bytes += s.size();
  }
  void text(std::string_view s) { bytes += s.size(); }
  void number(std::uint64_t n) { bytes += n & 1; }
};

std::string header_of(int tensors) {
  std::string out = "{";
  for (int i = 0, at = 0; i < tensors; ++i, at += 8) {
    const bool norm = i % 128 >= 126;
    const std::string name = norm ? fmt::format("model.layers.{}.norm{}.weight", i / 128, i % 128)
                                  : fmt::format("model.layers.{}.mlp.experts.{}.w{}.weight",
                                                i / 128, i % 128 / 3, i % 3);
    out += fmt::format(R"({}"{}":{{"dtype":"F32","shape":{},"data_offsets":[{},{}]}})",
                       i == 0 ? "" : ",", name, norm ? "[2]" : "[1,2]", at, at + 8);
  }
  out += '}';
  out.resize(align_up(out.size(), 8), ' ');
  return out;
}

void write_file(const std::string& path, std::string_view header, std::size_t data) {
  std::FILE* f = std::fopen(path.c_str(), "wb");
  const std::uint64_t length = header.size();
  const std::string zeros(data, '\0');
  if (!f || std::fwrite(&length, 8, 1, f) != 1 ||
      std::fwrite(header.data(), 1, header.size(), f) != header.size() ||
      std::fwrite(zeros.data(), 1, data, f) != data || std::fclose(f) != 0)
    throw Error(Fault::Io, "cannot write the sample").in(path);
}

void open_whole(const std::string& path) {
  const SourcePtr file = open_file(path);
  const Format& format = kGguf.detect(*file) ? kGguf : kSafetensors;
  Catalog catalog;
  catalog.add_source(file);
  Diagnostics faults;
  format.read(file, catalog, faults);
  catalog.finish(faults);
  if (catalog.format.empty() && catalog.entries().empty())
    throw Error(Fault::Internal, "nothing was read").in(path);
}

// A whole model, schemes and all: what every command does first.
std::shared_ptr<const Model> open_as_model(const std::string& path, Diagnostics& faults) {
  return open_model(path, all_formats(), {}, faults);
}

// What 'check --fast' does.
void check_fast(const std::string& path) {
  Diagnostics faults(Diagnostics::Mode::Collect);
  const auto model = open_as_model(path, faults);
  review_texts(*model, faults);
  review_content(*model, false, faults);
  review_config(*model, false, faults);
  for (const Format* f : all_formats().formats)
    if (f->name == model->catalog.format && f->review) f->review(model->catalog, false, faults);
}

Seen pull(std::string_view header) {
  std::string text(header);  // strings are unescaped in place
  Seen seen;
  JsonReader in(text);
  std::string_view key, member;
  const auto numbers = [&] {
    std::uint64_t n = 0;
    in.begin_array();
    while (in.next_item())
      if (in.unsigned_integer(n)) seen.number(n);
  };
  in.begin_object();
  while (in.next_member(key)) {
    seen.name(key);
    in.begin_object();
    while (in.next_member(member))
      if (member == "dtype")
        seen.text(in.string());
      else
        numbers();
  }
  in.finish();
  return seen;
}

struct Sax : nlohmann::json_sax<nlohmann::json> {
  Seen seen;
  int depth = 0;
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t n) override {
    seen.number(n);
    return true;
  }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t& s) override {
    seen.text(s);
    return true;
  }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    ++depth;
    return true;
  }
  bool end_object() override {
    --depth;
    return true;
  }
  bool start_array(std::size_t) override { return true; }
  bool end_array() override { return true; }
  bool key(string_t& s) override {
    if (depth == 1) seen.name(s);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }
};

Seen sax(std::string_view header) {
  Sax handler;
  nlohmann::json::sax_parse(header.begin(), header.end(), &handler);
  return handler.seen;
}

#ifdef WTOOL_HAVE_SIMDJSON
Seen simd_dom(std::string_view header) {
  simdjson::dom::parser parser;
  Seen seen;
  for (const auto [name, value] : parser.parse(header.data(), header.size()).get_object()) {
    seen.name(name);
    seen.text(value["dtype"].get_string());
    for (const auto n : value["shape"].get_array()) seen.number(n.get_uint64());
    for (const auto n : value["data_offsets"].get_array()) seen.number(n.get_uint64());
  }
  return seen;
}

Seen simd_on_demand(std::string_view header) {
  const simdjson::padded_string text(header);
  simdjson::ondemand::parser parser;
  simdjson::ondemand::document document = parser.iterate(text);
  Seen seen;
  for (auto field : document.get_object()) {
    seen.name(std::string_view(field.unescaped_key()));
    simdjson::ondemand::object value = field.value().get_object();
    seen.text(std::string_view(value["dtype"].get_string()));
    for (auto n : value["shape"].get_array()) seen.number(n.get_uint64());
    for (auto n : value["data_offsets"].get_array()) seen.number(n.get_uint64());
  }
  return seen;
}
#endif

double best_ms(const std::function<void()>& work) {
  double best = 1e300;
  for (int i = 0; i < kRuns; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
  }
  return best;
}

// Peak resident memory of a child process that does only this; what it has at birth included.
double peak_mb(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    ::_exit(0);
  }
  rusage usage{};
  int status = 0;
  if (child < 0 || ::wait4(child, &status, 0, &usage) != child || status != 0)
    throw Error(Fault::Internal, "the measured process failed");
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// 0 if there is no node.
double node_ms(const std::string& path) {
  const std::string command = fmt::format(
      "node -e 'const b=require(\"fs\").readFileSync(process.argv[1]);"
      "const s=b.toString(\"utf8\",8,8+Number(b.readBigUInt64LE(0)));let best=1e9;"
      "for(let i=0;i<{};i++){{const t=process.hrtime.bigint();JSON.parse(s);"
      "best=Math.min(best,Number(process.hrtime.bigint()-t)/1e6)}}console.log(best)' '{}' 2>&1",
      kRuns, path);
  std::FILE* pipe = ::popen(command.c_str(), "r");
  char line[64] = {};
  const bool got = pipe && std::fgets(line, sizeof line, pipe);
  if (pipe) ::pclose(pipe);
  return got ? std::atof(line) : 0;
}

// For tests/bench/bench: a name, a tab, a number.
void measure(const std::string& path) {
  open_whole(path);
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  fmt::print("seconds\t{}\n", best_ms([&] { open_whole(path); }) / 1000);
  fmt::print("peak_rss_kib\t{}\n", usage.ru_maxrss);
  fmt::print("model_seconds\t{}\n", best_ms([&] {
                                      Diagnostics faults;
                                      open_as_model(path, faults);
                                    }) / 1000);
  fmt::print("check_fast_seconds\t{}\n", best_ms([&] { check_fast(path); }) / 1000);
}

void compare() {
  const std::string path = (std::filesystem::temp_directory_path() /
                            fmt::format("bench_open.{}.safetensors", ::getpid()))
                               .string();
  write_file(path, header_of(100'000), 800'000);
  const double mb = peak_mb([&] { open_whole(path); });
  const std::string header = header_of(100'000);
  const double node = node_ms(path);
  const auto row = [&](std::string_view what, double ms) {
    fmt::print("{:<44} {:8.2f} ms", what, ms);
    if (node > 0) fmt::print("  {:6.3f} x JSON.parse", ms / node);
    fmt::print("\n");
  };
  fmt::print("header of 100,000 tensors, {} bytes, best of {}\n", header.size(), kRuns);
  row("wtool: open, validate, catalog", best_ms([&] { open_whole(path); }));
  row("  of this, JSON alone", best_ms([&] { pull(header); }));
#ifdef WTOOL_HAVE_SIMDJSON
  row("simdjson on demand, JSON alone", best_ms([&] { simd_on_demand(header); }));
  row("simdjson DOM, JSON alone", best_ms([&] { simd_dom(header); }));
#endif
  row("nlohmann SAX, JSON alone", best_ms([&] { sax(header); }));
  if (node > 0) row("node: JSON.parse", node);
  fmt::print("peak memory of opening: {:.1f} MB (limit 60)\n", mb);
  std::filesystem::remove(path);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc > 1)
      measure(argv[1]);
    else
      compare();
  } catch (const Error& e) {
    fmt::print(stderr, "bench_open: {}\n", e.what());
    return 1;
  }
}
