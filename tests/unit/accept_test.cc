// Zero false accept: the whole command line, in-process, on a small signed folder of which one
// thing at a time is not as it was signed.
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "cli/run.h"
#include "tests/catch.h"
#include "tests/unit/temp_folder.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;
const fs::path kKeys = fs::path(WTOOL_SOURCE_DIR) / "testdata/oms/generated/keys";

// Standard output and error lead nowhere while in scope.
class Silence {
 public:
  Silence() {
    std::cout.flush();
    const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (int i = 0; i < 2; ++i) {
      kept_.at(static_cast<std::size_t>(i)) = ::dup(i + 1);
      ::dup2(nowhere, i + 1);
    }
    ::close(nowhere);
  }
  ~Silence() {
    for (int i = 0; i < 2; ++i) {
      ::dup2(kept_.at(static_cast<std::size_t>(i)), i + 1);
      ::close(kept_.at(static_cast<std::size_t>(i)));
    }
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  std::array<int, 2> kept_ = {};
};

int wtool(std::vector<std::string> words) {
  words.insert(words.begin(), "wtool");
  std::vector<const char*> argv;
  for (const std::string& w : words) argv.push_back(w.c_str());
  const Silence silence;
  return static_cast<int>(run_wtool(static_cast<int>(argv.size()), argv.data()));
}

std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
// In place: ext4 flushes a file that is emptied and written again, which takes milliseconds.
void write(const fs::path& path, const std::string& text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  REQUIRE(file >= 0);
  const auto size = static_cast<ssize_t>(text.size());
  const bool written = ::pwrite(file, text.data(), text.size(), 0) == size;
  const bool cut = ::ftruncate(file, size) == 0;
  ::close(file);
  if (!written || !cut) FAIL("cannot write " << path);
}

struct Signed {
  TempFolder temp;
  fs::path model = temp.path / "model", signature = temp.path / "model.sig";
  std::vector<std::string> files{".hidden", "a.bin", "b.bin", "sub/c.json", "sub/deep/dd"};

  std::vector<std::string> trust{"--key", temp / "me.pub.pem"};

  explicit Signed(const std::vector<std::string>& how = {}) {
    REQUIRE(wtool({"sign", "--new-key", temp / "me"}) == 0);
    sign(how);
  }
  // As the holder of a certificate, to whoever trusts another.
  Signed(const std::vector<std::string>& chain, const std::string& root)
      : trust{"--ca", kKeys / root} {
    fs::copy(kKeys / "p256.pem", temp / "me.pem");
    fs::permissions(temp / "me.pem", fs::perms::owner_read | fs::perms::owner_write);
    std::vector<std::string> how{"--cert", kKeys / chain.at(0)};
    for (std::size_t i = 1; i < chain.size(); ++i) {
      how.emplace_back("--chain");
      how.push_back(kKeys / chain[i]);
    }
    sign(how);
  }
  void sign(const std::vector<std::string>& how) const {
    fs::create_directories(model / "sub/deep");
    for (const std::string& f : files) write(model / f, "the content of " + f);
    std::vector<std::string> words{"sign", model, "--key", temp / "me.pem", "-o", signature};
    words.insert(words.end(), how.begin(), how.end());
    REQUIRE(wtool(words) == 0);
  }
  int verify() const {
    std::vector<std::string> words{"verify", model, "--signature", signature, "-j1"};
    words.insert(words.end(), trust.begin(), trust.end());
    return wtool(words);
  }
  // Exit 1 or 3, and 0 again once it is undone.
  void expect_no(const std::string& what, const std::function<void()>& act,
                 const std::function<void()>& undo) const {
    act();
    const int code = verify();
    undo();
    if (code != 1 && code != 3) FAIL_CHECK(what << ": exit " << code);
    const int again = verify();
    if (again != 0) FAIL(what << ", undone: exit " << again);
  }
  // Every byte, with one of its bits turned over and left out altogether.
  void flip_all(const fs::path& path, const std::string& what) const {
    const std::string good = slurp(path);
    REQUIRE(!good.empty());
    for (std::size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
      write(path, bad);
      const int code = verify();
      if (code != 1 && code != 3) FAIL_CHECK(what << ", byte " << i << ": exit " << code);
      write(path, std::string(good).erase(i, 1));
      const int without = verify();
      if (without != 1 && without != 3)
        FAIL_CHECK(what << ", without byte " << i << ": exit " << without);
    }
    write(path, good);
    CHECK(verify() == 0);
  }
};

void tamper(const Signed& s) {
  for (const std::string& f : s.files) {
    const fs::path path = s.model / f, aside = s.temp / "aside";
    const std::string good = slurp(path);
    const auto back = [&] { write(path, good); };
    s.expect_no(
        f + " removed", [&] { fs::remove(path); }, back);
    s.expect_no(
        f + " emptied", [&] { write(path, ""); }, back);
    s.expect_no(
        f + " cut", [&] { write(path, good.substr(1)); }, back);
    s.expect_no(
        f + " longer", [&] { write(path, good + '\0'); }, back);
    const auto restore = [&] {
      fs::remove_all(path);
      back();
    };
    s.expect_no(
        f + " a folder now",
        [&] {
          fs::remove(path);
          fs::create_directory(path);
        },
        restore);
    s.expect_no(
        f + " a link to the same bytes",
        [&] {
          fs::rename(path, aside);
          fs::create_symlink(aside, path);
        },
        restore);
    for (const std::string& name : {f + "2", f.substr(0, f.size() - 1), "sub/" + f})
      s.expect_no(
          f + " renamed to " + name,
          [&] {
            fs::create_directories((s.model / name).parent_path());
            fs::rename(path, s.model / name);
          },
          [&] { fs::rename(s.model / name, path); });
    for (const std::string& g : s.files) {
      if (g <= f) continue;
      const auto swap = [&] {
        fs::rename(path, aside);
        fs::rename(s.model / g, path);
        fs::rename(aside, s.model / g);
      };
      s.expect_no(f + " and " + g + " swapped", swap, swap);
      s.expect_no(
          f + " has the bytes of " + g, [&] { write(path, slurp(s.model / g)); }, back);
    }
  }
}

void add(const Signed& s) {
  for (const char* name : {"new", ".new", "A.bin", "a.bin ", "sub/new", "sub/deep/new", "model.sig",
                           "sub/.git", "sub/.gitignore", ".gitmodules"})
    s.expect_no(
        std::string(name) + " added", [&] { write(s.model / name, "new"); },
        [&] { fs::remove(s.model / name); });
  s.expect_no(
      "a link to a folder added", [&] { fs::create_symlink("sub", s.model / "link"); },
      [&] { fs::remove(s.model / "link"); });
  const auto swap = [&] {
    fs::rename(s.model / "sub/deep", s.temp / "aside");
    fs::create_symlink(s.temp / "aside", s.model / "sub/deep");
  };
  s.expect_no("a folder exchanged for a link to it", swap, [&] {
    fs::remove(s.model / "sub/deep");
    fs::rename(s.temp / "aside", s.model / "sub/deep");
  });
}

}  // namespace

TEST_CASE("accept: no byte of a signed file can change", "[accept]") {
  for (const auto& how : std::vector<std::vector<std::string>>{
           {}, {"--method", "shards", "--shard-size", "7"}, {"--compat", "model-signing"}}) {
    const Signed s(how);
    REQUIRE(s.verify() == 0);
    for (const std::string& f : s.files) s.flip_all(s.model / f, f);
  }
}

TEST_CASE("accept: no byte of a signature can change", "[accept]") {
  const Signed s;
  REQUIRE(s.verify() == 0);
  s.flip_all(s.signature, "model.sig");
}

TEST_CASE("accept: no byte of the certificates in a signature can change", "[accept]") {
  const Signed chained({"leaf.crt.pem", "int.crt.pem"}, "root.crt.pem");
  REQUIRE(chained.verify() == 0);
  chained.flip_all(chained.signature, "signed with a chain");
  const Signed alone({"self.crt.pem"}, "self.crt.pem");
  REQUIRE(alone.verify() == 0);
  alone.flip_all(alone.signature, "signed with a certificate of its own");
}

TEST_CASE("accept: no file can be removed, renamed, swapped or of another kind", "[accept]") {
  for (const auto& how :
       std::vector<std::vector<std::string>>{{}, {"--method", "shards", "--shard-size", "7"}}) {
    const Signed s(how);
    REQUIRE(s.verify() == 0);
    tamper(s);
  }
}

TEST_CASE("accept: nothing can be added", "[accept]") {
  const Signed s;
  REQUIRE(s.verify() == 0);
  add(s);
}

}  // namespace wtool
