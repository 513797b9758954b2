#include "lib/engine/output_set.h"

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/error.h"
#include "tests/catch.h"
#include "tests/unit/temp_folder.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;
using Kind = OutputSet::Kind;
using Existing = OutputSet::Existing;

class Folder {
 public:
  std::string operator/(std::string_view name) const { return folder_ / name; }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& e : fs::directory_iterator(folder_.path)) out.push_back(e.path().filename());
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  TempFolder folder_;
};
using Names = std::vector<std::string>;

void put(const std::string& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}
std::string get(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
mode_t mode_of(const std::string& path) {
  struct stat s {};
  REQUIRE(::stat(path.c_str(), &s) == 0);
  return s.st_mode & 0777;
}
template <class F>
Error thrown(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  FAIL("nothing was thrown");
  throw 0;
}
void write_file(const std::string& target, std::string_view text, Existing existing) {
  OutputSet out(target, Kind::File, existing);
  out.write_at(out.create("x", text.size()), 0, as_bytes(text));
  out.commit();
}

}  // namespace

TEST_CASE("output_set: nothing is visible before commit, and only the file after it",
          "[output_set]") {
  const Folder dir;
  {
    OutputSet out(dir / "m.bin", Kind::File, Existing::Refuse);
    const auto file = out.create("m.bin", 6);
    CHECK(out.total_bytes() == 6);
    out.write_at(file, 3, as_bytes("def"));
    out.write_at(file, 0, as_bytes("abc"));
    CHECK(dir.names() == Names{".m.bin.wtool-" + std::to_string(::getpid())});
    out.commit();
    CHECK(dir.names() == Names{"m.bin"});
  }
  CHECK(dir.names() == Names{"m.bin"});
  CHECK(get(dir / "m.bin") == "abcdef");
  const mode_t mask = ::umask(0);
  ::umask(mask);
  CHECK(mode_of(dir / "m.bin") == (0666 & ~mask));
}

TEST_CASE("output_set: without commit nothing is left", "[output_set]") {
  const Folder dir;
  for (const Kind kind : {Kind::File, Kind::Folder}) {
    {
      OutputSet out(dir / "m", kind, Existing::Refuse);
      out.create("a", 3);
    }
    CHECK(dir.names().empty());
  }
}

TEST_CASE("output_set: a known size reads as zeros where nothing was written", "[output_set]") {
  const Folder dir;
  OutputSet out(dir / "m", Kind::File, Existing::Refuse);
  out.write_at(out.create("m", 5), 4, as_bytes("x"));
  out.commit();
  CHECK(get(dir / "m") == std::string("\0\0\0\0x", 5));
}

TEST_CASE("output_set: writing beyond the known size is a bug", "[output_set]") {
  const Folder dir;
  OutputSet out(dir / "m", Kind::File, Existing::Refuse);
  const auto file = out.create("m", 5);
  CHECK(thrown([&] { out.write_at(file, 4, as_bytes("xy")); }).fault() == Fault::Internal);
  const Extent far{from_memory("s", Buffer(9)), 0, 9};
  CHECK(thrown([&] { out.copy_to(file, ~std::uint64_t{0} - 3, far); }).fault() == Fault::Internal);
}

TEST_CASE("output_set: an existing file is refused, or replaced with its mode kept",
          "[output_set]") {
  const Folder dir;
  put(dir / "m", "old");
  ::chmod((dir / "m").c_str(), 0640);
  const Error e = thrown([&] { write_file(dir / "m", "new", Existing::Refuse); });
  CHECK(e.fault() == Fault::Usage);
  CHECK(e.text() == "already exists");
  CHECK(get(dir / "m") == "old");
  write_file(dir / "m", "new", Existing::Replace);
  CHECK(get(dir / "m") == "new");
  CHECK(mode_of(dir / "m") == 0640);
  CHECK(dir.names() == Names{"m"});
  write_file(dir / "n", "first", Existing::Replace);
  CHECK(get(dir / "n") == "first");
}

TEST_CASE("output_set: what is new gets the umask's mode, and while it is made is ours alone",
          "[output_set]") {
  const mode_t before = ::umask(0);
  for (const mode_t mask : {0077, 0027, 0022, 0000}) {
    ::umask(mask);
    const Folder dir;
    for (const Kind kind : {Kind::File, Kind::Folder}) {
      OutputSet out(dir / "m", kind, Existing::Refuse);
      out.create("a/b", 3);
      for (const std::string& hidden : dir.names()) CHECK(mode_of(dir / hidden) == 0700);
      out.commit();
      CHECK(mode_of(dir / "m") == ((kind == Kind::File ? 0666 : 0777) & ~mask));
      if (kind == Kind::Folder) CHECK(mode_of(dir / "m/a") == (0777 & ~mask));
      if (kind == Kind::Folder) CHECK(mode_of(dir / "m/a/b") == (0666 & ~mask));
      fs::remove_all(dir / "m");
    }
  }
  ::umask(before);
}

TEST_CASE("output_set: a folder that is replaced keeps its mode", "[output_set]") {
  const Folder dir;
  fs::create_directory(dir / "m");
  ::chmod((dir / "m").c_str(), 0750);
  OutputSet out(dir / "m", Kind::Folder, Existing::Replace);
  out.create("a", 3);
  out.commit();
  CHECK(mode_of(dir / "m") == 0750);
}

TEST_CASE("output_set: what another removes or exchanges before the end is not committed",
          "[output_set]") {
  for (const Kind kind : {Kind::File, Kind::Folder})
    for (const bool exchange : {false, true}) {
      const Folder dir;
      {
        OutputSet out(dir / "m", kind, Existing::Refuse);
        out.write_at(out.create("a", 3), 0, as_bytes("abc"));
        const std::string hidden = dir / dir.names()[0];
        if (exchange) {
          const std::string file = hidden + (kind == Kind::File ? "/output" : "/a");
          put(file + ".other", "xyz");
          fs::rename(file + ".other", file);
        } else {
          fs::remove_all(hidden);
        }
        const Error e = thrown([&] { out.commit(); });
        CHECK(e.fault() == Fault::Io);
        if (exchange)
          CHECK(e.text() == "what was written beside it was removed or exchanged by another");
      }
      CHECK(dir.names().empty());
    }
}

TEST_CASE("output_set: a hidden folder that another removed is not made a second time",
          "[output_set]") {
  const Folder dir;
  OutputSet out(dir / "m", Kind::Folder, Existing::Refuse);
  out.create("x/a", 3);
  fs::remove_all(dir / dir.names()[0]);
  CHECK(thrown([&] { out.create("x/b", 3); }).fault() == Fault::Io);
  CHECK(dir.names().empty());
}

TEST_CASE("output_set: a process that ends without unwinding removes what is unfinished",
          "[output_set]") {
  const Folder dir;
  put(dir / "old", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    // Never unwound, as by std::terminate.
    auto* one = new OutputSet(dir / "m", Kind::File, Existing::Refuse);
    auto* many = new OutputSet(dir / "n", Kind::Folder, Existing::Refuse);
    auto* done = new OutputSet(dir / "done", Kind::File, Existing::Refuse);
    { const OutputSet unwound(dir / "u", Kind::File, Existing::Refuse); }
    one->create("m", 3);
    many->create("a/b/c", 3);
    many->create("a/d", 3);
    done->create("done", 3);
    done->commit();
    const bool all = dir.names().size() == 4;
    undo_unfinished();
    ::_exit(all ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(dir.names() == Names{"done", "old"});
}

TEST_CASE("output_set: a file that appears meanwhile is not replaced", "[output_set]") {
  const Folder dir;
  OutputSet out(dir / "m", Kind::File, Existing::Refuse);
  out.create("m", 3);
  put(dir / "m", "theirs");
  CHECK(thrown([&] { out.commit(); }).text() == "already exists");
  CHECK(get(dir / "m") == "theirs");
}

TEST_CASE("output_set: a folder appears whole, with folders in it", "[output_set]") {
  const Folder dir;
  {
    OutputSet out(dir / "model/", Kind::Folder, Existing::Refuse);
    out.write_at(out.create("a.npy", 1), 0, as_bytes("a"));
    out.write_at(out.create("sub/deep/b.npy", 1), 0, as_bytes("b"));
    out.commit();
  }
  CHECK(dir.names() == Names{"model"});
  CHECK(get(dir / "model/sub/deep/b.npy") == "b");
  CHECK(thrown([&] { OutputSet(dir / "model", Kind::Folder, Existing::Refuse); }).fault() ==
        Fault::Usage);
}

TEST_CASE("output_set: names may not lead out of the folder", "[output_set]") {
  const Folder dir;
  OutputSet out(dir / "model", Kind::Folder, Existing::Refuse);
  for (const char* bad : {"../x", "/etc/x", "a/../../x", "", "a/", "."}) {
    INFO(bad);
    CHECK(thrown([&] { out.create(bad, 1); }).fault() == Fault::Usage);
  }
}

TEST_CASE("output_set: a folder is replaced only if nothing else is in it", "[output_set]") {
  const Folder dir;
  fs::create_directories(dir / "model/sub");
  put(dir / "model/a", "old");
  put(dir / "model/sub/notes.txt", "precious");
  ::chmod((dir / "model/a").c_str(), 0600);
  ::chmod((dir / "model").c_str(), 0750);
  const auto replace = [&] {
    OutputSet out(dir / "model", Kind::Folder, Existing::Replace);
    const Names names{"a", "sub/b"};
    out.check_replaceable(names);
    for (const std::string& n : names) out.write_at(out.create(n, 3), 0, as_bytes("new"));
    out.commit();
  };
  const Error e = thrown(replace);
  CHECK(e.fault() == Fault::Usage);
  CHECK(e.text().find("'sub/notes.txt'") != std::string::npos);
  CHECK(e.text().find("'a'") == std::string::npos);
  CHECK(get(dir / "model/a") == "old");
  CHECK(dir.names() == Names{"model"});

  fs::remove(dir / "model/sub/notes.txt");
  replace();
  CHECK(get(dir / "model/a") == "new");
  CHECK(get(dir / "model/sub/b") == "new");
  CHECK(mode_of(dir / "model/a") == 0600);
  CHECK(mode_of(dir / "model") == 0750);
  CHECK(dir.names() == Names{"model"});
}

TEST_CASE("output_set: what came into the folder meanwhile keeps it from being replaced",
          "[output_set]") {
  const Folder dir;
  fs::create_directory(dir / "model");
  OutputSet out(dir / "model", Kind::Folder, Existing::Replace);
  out.check_replaceable(Names{"a"});
  out.create("a", 3);
  put(dir / "model/theirs", "x");
  CHECK(thrown([&] { out.commit(); }).text().find("'theirs'") != std::string::npos);
  CHECK(get(dir / "model/theirs") == "x");
}

TEST_CASE("output_set: a file does not replace a folder, nor a folder a file", "[output_set]") {
  const Folder dir;
  fs::create_directory(dir / "d");
  put(dir / "f", "x");
  CHECK(thrown([&] { OutputSet(dir / "d", Kind::File, Existing::Replace); }).fault() ==
        Fault::Usage);
  CHECK(thrown([&] { OutputSet(dir / "f", Kind::Folder, Existing::Replace); }).fault() ==
        Fault::Usage);
  CHECK(thrown([&] { OutputSet("/dev/null", Kind::File, Existing::Replace); }).fault() ==
        Fault::Usage);
}

TEST_CASE("output_set: a link is replaced itself, what it leads to is left alone", "[output_set]") {
  const Folder dir;
  fs::create_directory(dir / "far");
  put(dir / "far/real", "old");
  fs::create_symlink("far/real", dir / "link");
  fs::create_directory_symlink("far", dir / "folder");
  CHECK(thrown([&] { write_file(dir / "link", "new", Existing::Refuse); }).text() ==
        "already exists");
  write_file(dir / "link", "new", Existing::Replace);
  CHECK_FALSE(fs::is_symlink(dir / "link"));
  CHECK(get(dir / "link") == "new");
  CHECK(get(dir / "far/real") == "old");
  CHECK(thrown([&] { OutputSet(dir / "folder", Kind::Folder, Existing::Replace); }).fault() ==
        Fault::Usage);
}

TEST_CASE("output_set: a source may be the very file that is replaced", "[output_set]") {
  const Folder dir;
  put(dir / "m", "0123456789");
  const SourcePtr in = open_file(dir / "m");
  OutputSet out(dir / "m", Kind::File, Existing::Replace);
  const auto file = out.create("m", 8);
  out.copy_to(file, 0, {in, 5, 5});
  CHECK(get(dir / "m") == "0123456789");
  out.copy_to(file, 5, {in, 0, 3});
  out.commit();
  CHECK(get(dir / "m") == "56789012");
  Buffer still(10);
  in->read(0, still);
  CHECK(as_text(still) == "0123456789");
}

TEST_CASE("output_set: copies across file systems and from memory give the same bytes",
          "[output_set]") {
  const Folder dir;
  std::string text(3'500'000, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 2654435761u >> 13);
  std::vector<SourcePtr> sources{from_memory("memory", to_buffer(text))};
  put(dir / "in", text);
  sources.push_back(open_file(dir / "in"));
  const std::string other = "/dev/shm/wtool-test-" + std::to_string(::getpid());
  put(other, text);
  if (fs::exists(other)) sources.push_back(open_file(other));
  for (const SourcePtr& s : sources) {
    OutputSet out(dir / "out", Kind::File, Existing::Replace);
    out.copy_to(out.create("out", text.size()), 7, {s, 1, text.size() - 7});
    out.commit();
    CHECK(get(dir / "out") == std::string(7, '\0') + text.substr(1, text.size() - 7));
  }
  fs::remove(other);
}

TEST_CASE("output_set: a source that was cut short is an I/O error", "[output_set]") {
  const Folder dir;
  put(dir / "in", std::string(100'000, 'x'));
  const SourcePtr in = open_file(dir / "in");
  fs::resize_file(dir / "in", 50'000);
  OutputSet out(dir / "out", Kind::File, Existing::Refuse);
  const auto file = out.create("out", 100'000);
  CHECK(thrown([&] { out.copy_to(file, 0, {in, 0, 100'000}); }).fault() == Fault::Io);
  const Extent beyond{from_memory("s", Buffer(10)), 0, 11};
  CHECK(thrown([&] { out.copy_to(file, 0, beyond); }).fault() == Fault::Io);
}

TEST_CASE("output_set: appended bytes stand in order", "[output_set]") {
  const Folder dir;
  OutputSet out(dir / "m", Kind::File, Existing::Refuse);
  const auto file = out.create("m", std::nullopt);
  for (const char* s : {"one ", "two ", "", "three"}) out.append(file, as_bytes(s));
  CHECK(out.total_bytes() == 13);
  out.commit();
  CHECK(get(dir / "m") == "one two three");
}

TEST_CASE("output_set: what a killed run left is removed, what is in use or looks alike stays",
          "[output_set]") {
  const Folder dir;
  for (const char* name : {".m.wtool-1", ".m.wtool-4194303", ".m.wtool-12x", ".m.wtool-",
                           ".mm.wtool-12", ".m.wtool-77"})
    fs::create_directory(dir / name);
  put(dir / ".m.wtool-1/output", "half");
  put(dir / ".m.wtool-5", "a file, not a folder");
  fs::create_directory_symlink(dir / ".mm.wtool-12", dir / ".m.wtool-6");
  const int busy = ::open((dir / ".m.wtool-77").c_str(), O_RDONLY | O_DIRECTORY);
  REQUIRE(::flock(busy, LOCK_EX) == 0);
  write_file(dir / "m", "x", Existing::Refuse);
  ::close(busy);
  CHECK(dir.names() == Names{".m.wtool-", ".m.wtool-12x", ".m.wtool-5", ".m.wtool-6", ".m.wtool-77",
                             ".mm.wtool-12", "m"});
}

TEST_CASE("output_set: two runs with the same target do not disturb each other", "[output_set]") {
  const Folder dir;
  // In one process the folder's name would be the same: that is refused, not shared.
  OutputSet first(dir / "m", Kind::File, Existing::Refuse);
  CHECK(thrown([&] { OutputSet(dir / "m", Kind::File, Existing::Refuse); }).fault() == Fault::Io);
  first.write_at(first.create("m", 1), 0, as_bytes("1"));
  first.commit();
  CHECK(get(dir / "m") == "1");
}

TEST_CASE("output_set: a place that is not there or read-only is an I/O error that says so",
          "[output_set]") {
  const Folder dir;
  const Error e = thrown([&] { OutputSet(dir / "no/m", Kind::File, Existing::Refuse); });
  CHECK(e.fault() == Fault::Io);
  CHECK(e.hint().find("there is no folder") == 0);
  CHECK(thrown([&] { OutputSet("/proc/m", Kind::File, Existing::Refuse); }).fault() == Fault::Io);
}

TEST_CASE("output_set: a name as long as the file system takes works", "[output_set]") {
  const Folder dir;
  const std::string name(255, 'n');
  write_file(dir / name, "x", Existing::Refuse);
  CHECK(dir.names() == Names{name});
}

TEST_CASE("output_set: more than is free is refused with both numbers", "[output_set]") {
  const Folder dir;
  OutputSet out(dir / "m", Kind::File, Existing::Refuse);
  out.check_space(1);
  const Error e = thrown([&] { out.check_space(std::uint64_t{1} << 60); });
  CHECK(e.fault() == Fault::Io);
  CHECK(e.text().find("needs 1152921504606846976 bytes but only ") == 0);
  CHECK(thrown([&] { out.create("m", ~std::uint64_t{0}); }).fault() == Fault::Io);
}

TEST_CASE("output_set: a limit on file size is an error, and nothing is left", "[output_set]") {
  const Folder dir;
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 4096;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::vector<Error> errors;
  for (const bool known : {true, false}) {
    OutputSet out(dir / "m", Kind::File, Existing::Refuse);
    try {
      const auto file = out.create("m", known ? std::optional<std::uint64_t>(8192) : std::nullopt);
      out.append(file, Buffer(8192));
    } catch (const Error& e) {
      errors.push_back(e);
    }
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  REQUIRE(errors.size() == 2);
  for (const Error& e : errors) {
    CHECK(e.fault() == Fault::Io);
    CHECK(e.text().find("File too large") != std::string::npos);
    CHECK(e.where() == dir / "m");
  }
  CHECK(dir.names().empty());
}

TEST_CASE("output_set: more files than descriptors allowed", "[output_set]") {
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  struct rlimit few = before;
  few.rlim_cur = 64;
  if (before.rlim_max < 400) return;
  const Folder dir;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
  OutputSet out(dir / "model", Kind::Folder, Existing::Refuse);
  for (int i = 0; i < 300; ++i) out.write_at(out.create(std::to_string(i), 4), 0, as_bytes("abcd"));
  out.commit();
  CHECK(get(dir / "model/299") == "abcd");
  ::setrlimit(RLIMIT_NOFILE, &before);
}

TEST_CASE("output_set: standard output gets the bytes at commit", "[output_set]") {
  const Folder dir;
  std::fflush(stdout);
  const int real = ::dup(STDOUT_FILENO);
  const int file = ::open((dir / "captured").c_str(), O_WRONLY | O_CREAT, 0600);
  ::dup2(file, STDOUT_FILENO);
  {
    OutputSet out("-", Kind::Stdout, Existing::Refuse);
    const auto n = out.create("x", 6);
    out.write_at(n, 3, as_bytes("def"));
    out.write_at(n, 0, as_bytes("abc"));
    out.commit();
  }
  ::dup2(real, STDOUT_FILENO);
  ::close(real);
  ::close(file);
  CHECK(get(dir / "captured") == "abcdef");
}

TEST_CASE("output_set: a reader that has gone cancels", "[output_set]") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const auto handler = std::signal(SIGPIPE, SIG_IGN);
  std::fflush(stdout);
  const int real = ::dup(STDOUT_FILENO);
  ::dup2(ends[1], STDOUT_FILENO);
  ::close(ends[0]);
  std::optional<Fault> fault;
  try {
    OutputSet out("-", Kind::Stdout, Existing::Refuse);
    out.append(out.create("x", std::nullopt), as_bytes("abc"));
    out.commit();
  } catch (const Error& e) {
    fault = e.fault();
  }
  ::dup2(real, STDOUT_FILENO);
  ::close(real);
  ::close(ends[1]);
  std::signal(SIGPIPE, handler);
  CHECK(fault == Fault::Cancelled);
}

}  // namespace wtool
