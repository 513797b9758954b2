#include <fstream>

#include <fcntl.h>
#include <unistd.h>

#include "cli/run.h"
#include "tests/catch.h"
#include "tests/unit/temp_folder.h"

namespace wtool {
namespace {

std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}
void spill(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << bytes;
  REQUIRE(out.flush());
}

// What commands say goes nowhere as long as it lives.
class Silence {
 public:
  Silence() {
    const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (const int fd : {1, 2}) {
      kept_[fd - 1] = ::dup(fd);
      ::dup2(nowhere, fd);
    }
    ::close(nowhere);
  }
  ~Silence() {
    for (const int fd : {1, 2}) {
      ::dup2(kept_[fd - 1], fd);
      ::close(kept_[fd - 1]);
    }
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  int kept_[2] = {};
};

int run(std::vector<std::string> words) {
  const Silence silence;
  std::vector<const char*> argv{"wtool"};
  for (const std::string& w : words) argv.push_back(w.c_str());
  return static_cast<int>(run_wtool(static_cast<int>(argv.size()), argv.data()));
}

// A model of two tensors with its signed manifest.
struct Signed {
  TempFolder folder;
  std::string model = folder / "m.safetensors", list = folder / "m.json", signature = list + ".sig";
  std::vector<std::string> files{"verify", "-c", list, "--key", folder / "me.pub.pem", "-j1"};
  std::vector<std::string> tensors{
      "verify", model, "-t", "*", "-c", list, "--key", folder / "me.pub.pem", "-j1"};
  std::size_t data = 0;  // where the model's begins

  Signed() {
    const std::string header = R"({"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                               R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}} )";
    std::string bytes(8, '\0');
    bytes[0] = static_cast<char>(header.size());
    data = 8 + header.size();
    spill(model, bytes + header + "12345678abc");
    REQUIRE(run({"digest", "--per-tensor", model, "-o", list}) == 0);
    REQUIRE(run({"sign", "--new-key", folder / "me"}) == 0);
    REQUIRE(run({"sign", list, "--key", folder / "me.pem"}) == 0);
    REQUIRE(run(files) == 0);
    REQUIRE(run(tensors) == 0);
  }

  // The bytes whose change, one at a time, is answered with something else than a no.
  std::vector<std::size_t> unnoticed(const std::string& path, std::size_t from, std::size_t step,
                                     const std::vector<std::string>& command) const {
    const std::string good = slurp(path);
    std::vector<std::size_t> out;
    for (std::size_t i = from; i < good.size(); i += step)
      for (const int change : {1 << (i % 8), 0x20}) {  // the second: another case, if a letter
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ change);
        spill(path, bad);
        if (const int code = run(command); code != 1 && code != 3) out.push_back(i);
      }
    spill(path, good);
    return out;
  }
};
using None = std::vector<std::size_t>;

}  // namespace

TEST_CASE("signed manifest: no byte of it can change unnoticed", "[signed_manifest]") {
  const Signed s;
  CHECK(s.unnoticed(s.list, 0, 1, s.files) == None{});
  CHECK(s.unnoticed(s.list, 0, 5, s.tensors) == None{});
}

TEST_CASE("signed manifest: no byte of its signature can change unnoticed", "[signed_manifest]") {
  const Signed s;
  CHECK(s.unnoticed(s.signature, 0, 1, s.files) == None{});
  CHECK(s.unnoticed(s.signature, 0, 5, s.tensors) == None{});
}

TEST_CASE("signed manifest: no byte of a file or of a tensor can change unnoticed",
          "[signed_manifest]") {
  const Signed s;
  CHECK(s.unnoticed(s.model, 0, 1, s.files) == None{});
  CHECK(s.unnoticed(s.model, s.data, 1, s.tensors) == None{});
}

TEST_CASE("signed manifest: cut short, grown or empty, it is refused", "[signed_manifest]") {
  const Signed s;
  for (const std::string& path : {s.list, s.signature}) {
    const std::string good = slurp(path);
    std::vector<std::string> all{"",         good.substr(1),        good.substr(0, good.size() - 1),
                                 good + "x", "\xEF\xBB\xBF" + good, good + good};
    if (path == s.list) all.insert(all.end(), {good + "\n", " " + good});
    for (const std::string& bad : all) {
      spill(path, bad);
      const int code = run(s.files);
      CHECK((code == 1 || code == 3));
    }
    spill(path, good);
  }
  CHECK(run(s.files) == 0);
}

}  // namespace wtool
