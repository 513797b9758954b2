#include "formats/registry.h"
#include "tests/catch.h"

using namespace wtool;
using namespace std::string_literals;

namespace {

std::string says(const std::string& content) {
  return diagnose(*from_memory("f", to_buffer(content)));
}
bool mentions(const std::string& content, std::string_view words) {
  const std::string text = says(content);
  INFO(text);
  CHECK(text.find('\n') == std::string::npos);
  return text.find(words) != std::string::npos;
}
// Counts the bytes that are asked for.
class Counted final : public Source {
 public:
  explicit Counted(std::uint64_t size) : size_(size) {}
  const std::string& name() const noexcept override { return name_; }
  std::uint64_t size() const noexcept override { return size_; }
  void read(std::uint64_t offset, MutableBytes out) const override {
    REQUIRE(offset + out.size() <= size_);
    asked += out.size();
    std::ranges::fill(out, std::byte{0});
  }
  mutable std::uint64_t asked = 0;

 private:
  std::string name_ = "counted";
  std::uint64_t size_;
};

}  // namespace

TEST_CASE("a Git LFS pointer is named, with the size of the real file", "[wrong_file]") {
  CHECK(says("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4976698672\n") ==
        "is a Git LFS pointer, not the file itself; the real file has 4976698672 bytes: run 'git "
        "lfs pull' to get it");
  CHECK(mentions("version https://git-lfs.github.com/spec/v1\n", "run 'git lfs pull'"));
}

TEST_CASE("pages and error messages in place of a download are named", "[wrong_file]") {
  CHECK(mentions("\n <!DOCTYPE html><html>", "an HTML page"));
  CHECK(mentions("<HTML><head>", "an HTML page"));
  CHECK(mentions("{\"error\": \"Repository not found\"}", "a JSON error message"));
  CHECK(mentions("{\"metadata\": {}, \"weight_map\": {}}", "an index"));
  CHECK(mentions("{\"hidden_size\": 4096}", "JSON text"));
  CHECK(mentions("<?xml version=\"1.0\"?><Error>", "an XML document"));
  CHECK(mentions("Invalid credentials\n", "a text file"));
  CHECK(
      mentions("Gr\xC3\xBC\xC3\x9F"
               "e aus Z\xC3\xBCrich\n",
               "a text file"));
}

TEST_CASE("archives and other tools' files are named", "[wrong_file]") {
  const auto zip = [](const std::string& first) {
    std::string head = "PK\x03\x04" + std::string(22, '\0');
    head += static_cast<char>(first.size());
    head += "\0\0\0"s + first;
    return head;
  };
  CHECK(mentions(zip("archive/data.pkl"), "a PyTorch checkpoint"));
  CHECK(mentions(zip("model/data/0"), "a PyTorch checkpoint"));
  CHECK(mentions(zip("arr_0.npy"), "an NPZ archive"));
  CHECK(mentions(zip("word/document.xml"), "a zip archive"));
  CHECK(mentions("PK\x03\x04", "a zip archive, cut short"));
  CHECK(mentions("\x80\x02}q\x00"s, "a Python pickle"));
  CHECK(
      mentions("\x80\x03"
               "cposix\nsystem\n",
               "a Python pickle"));
  CHECK(mentions("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."s, "a Python pickle"));
  CHECK(mentions(std::string("weights/") + std::string(249, '\0') + "ustar\0", "a tar archive"));
  CHECK(mentions("\x1f\x8b\x08\x00"s, "gzip"));
  CHECK(mentions("\x28\xb5\x2f\xfd\x04", "zstd"));
  CHECK(
      mentions("\xfd"
               "7zXZ\0\0"s,
               "xz"));
  CHECK(
      mentions("\x7f"
               "ELF\x02\x01",
               "ELF"));
  CHECK(mentions("\x89HDF\r\n\x1a\n", "HDF5"));
  CHECK(mentions("lmgg\1\0\0\0"s, "GGML file from before GGUF"));
}

TEST_CASE("an empty, cut or not yet arrived download is named", "[wrong_file]") {
  CHECK(says("") == "is an empty file");
  CHECK(says("GG") == "is cut short: 2 bytes, the beginning of a GGUF file");
  CHECK(says("\x93NUM") == "is cut short: 4 bytes, the beginning of a NPY file");
  CHECK(says(std::string(9000, '\0')) ==
        "holds only zeros (9000 bytes): a download that has not arrived yet?");
  CHECK(says(std::string(9000, '\0') + "x") == "is no safetensors, GGUF, NPY or imatrix file");
  CHECK(says("\x01\x02\x03\xff\xfe\x80") == "is no safetensors, GGUF, NPY or imatrix file");
}

TEST_CASE("no more than a few kilobytes of a huge file are read", "[wrong_file]") {
  const Counted file(std::uint64_t{1} << 40);
  CHECK(diagnose(file).starts_with("holds only zeros"));
  CHECK(file.asked <= 32 * 1024);
}

TEST_CASE("every short file gets some answer", "[wrong_file]") {
  for (unsigned a = 0; a < 256; ++a)
    for (unsigned b = 0; b < 256; b += 5)
      CHECK_FALSE(says({static_cast<char>(a), static_cast<char>(b)}).empty());
}
