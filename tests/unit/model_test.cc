#include "lib/model/model.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "formats/registry.h"
#include "lib/base/error.h"
#include "tests/catch.h"

// Opening is tested on a toy container: what makes a set, an index or a folder a model does not
// depend on how bytes lie in a file. Its files are text: "TOY name bytes name bytes …\n" and then
// the data of each tensor. "PART n" before the names is the number of files in the set; "TOTAL n"
// the number of tensors. An index is "TOYINDEX tensor file … [SIZE n]".

using namespace wtool;
namespace fs = std::filesystem;

namespace {

std::string text_of(const Source& source) {
  Buffer bytes(source.size());
  source.read(0, bytes);
  return std::string(as_text(bytes));
}
bool starts_with(const Source& source, std::string_view word) {
  return text_of(source).starts_with(word);
}
void read_toy(const SourcePtr& source, Catalog& catalog, Diagnostics& faults) {
  const std::string text = text_of(*source);
  std::istringstream line(text.substr(4, text.find('\n') - 4));
  std::uint64_t at = text.find('\n') + 1;
  std::string name, value;
  while (line >> name >> value) {
    if (name == "PART" || name == "TOTAL" || name.starts_with("@")) {
      if (name.starts_with("@"))
        catalog.meta.append(name, value);
      else
        catalog.meta.append(name, std::uint64_t{std::stoull(value)});
      continue;
    }
    TensorEntry t;
    t.name = catalog.arena().text(name);
    const std::uint64_t n = std::stoull(value);
    t.shape = catalog.arena().copy(ShapeView(&n, 1));
    t.dtype = name.starts_with("v2.") ? DType::V2 : DType::U8;
    t.bytes = t.dtype == DType::V2 ? 2 * n : n;
    t.offset = at;
    at += t.bytes;
    catalog.add(t, 4, faults);
  }
}
ShardIndex read_toy_index(const SourcePtr& source, Diagnostics&) {
  std::istringstream in(text_of(*source).substr(8));
  ShardIndex index;
  for (std::string tensor, file; in >> tensor >> file;)
    if (tensor == "SIZE")
      index.total_bytes = std::stoull(file);
    else
      index.lines.push_back({tensor.substr(tensor.find('"') + 1), file.substr(1, file.size() - 2)});
  return index;
}

constexpr std::array<std::string_view, 1> kToySuffix{".toy"}, kSetSuffix{".set"};
const Format kToy{.name = "toy",
                  .summary = "with an index",
                  .suffixes = kToySuffix,
                  .detect = [](const Source& s) { return starts_with(s, "TOY "); },
                  .read = read_toy,
                  .detect_index = [](const Source& s) { return starts_with(s, "TOYINDEX"); },
                  .read_index = read_toy_index,
                  .refuses = nullptr,
                  .layout = nullptr};
// A set by what its files say: 'a.1.set' with PART 3 belongs to a.1.set … a.3.set.
std::optional<SetPlace> toy_place(const Metadata& meta, std::string_view path) {
  const std::uint64_t count = meta.count("PART").value_or(0);
  if (count == 0) return std::nullopt;
  return SetPlace{std::string(path.substr(0, path.size() - 5)),
                  static_cast<std::size_t>(path[path.size() - 5] - '1'), count};
}
std::string toy_name(std::string_view stem, std::size_t i, std::size_t) {
  return std::string(stem) + std::to_string(i + 1) + ".set";
}
Metadata toy_whole(const Metadata& first, std::size_t tensors, std::string& fault) {
  Metadata out = first;
  if (const auto n = first.count("TOTAL"); n && *n != tensors) fault = "TOTAL is wrong";
  out.erase("PART");
  return out;
}
const Format kSet{.name = "set",
                  .summary = "with parts",
                  .suffixes = kSetSuffix,
                  .detect = [](const Source& s) { return starts_with(s, "SET "); },
                  .read = read_toy,
                  .place = toy_place,
                  .refuses = nullptr,
                  .layout = nullptr,
                  .shard_name = toy_name,
                  .whole_meta = toy_whole};

// 'x_hi' and 'x_lo' are one tensor 'x'.
std::vector<Found> pairs(const Model& model, Diagnostics&) {
  std::vector<Found> out;
  for (const TensorEntry& t : model.catalog.entries()) {
    if (!t.name.ends_with("_hi")) continue;
    const std::string name(t.name.substr(0, t.name.size() - 3));
    if (const TensorEntry* low = model.catalog.find(name + "_lo"))
      out.push_back({name,
                     {model.catalog.index_of(t), model.catalog.index_of(*low)},
                     DType::U16,
                     {t.shape[0]}});
  }
  return out;
}
TensorPtr open_plain(const Model& m, const LogicalTensor& t) {
  return stored(m.catalog, m.part(t, 0));
}
const Scheme kPairs{"pairs", "", {}, pairs, nullptr, nullptr, nullptr, nullptr};
const Scheme kOne{"plain", "", {}, nullptr, open_plain, nullptr, nullptr, nullptr};

Registry registry() {
  static constexpr std::array kFormats{&kNpy, &kToy, &kSet};
  static constexpr std::array kSchemes{&kPairs, &kOne};
  return {kFormats, kSchemes, diagnose};
}

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "wtool-model-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()));
    path_ = fs::canonical(name).string();
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  void write(const std::string& name, const std::string& content) const {
    fs::create_directories(fs::path(*this / name).parent_path());
    std::ofstream(*this / name, std::ios::binary) << content;
  }

 private:
  std::string path_;
};

struct Opened {
  std::shared_ptr<const Model> model;
  std::string error, hint, names, notes;
  Fault fault = Fault::Internal;
};
Opened open(const std::string& path, const OpenOptions& options = {}) {
  Opened out;
  Diagnostics faults;
  try {
    out.model = open_model(path, registry(), options, faults);
    for (const LogicalTensor& t : out.model->tensors) out.names += std::string(t.name) + " ";
  } catch (const Error& e) {
    out.error = e.what();
    out.hint = e.hint();
    out.fault = e.fault();
  }
  for (const auto& n : faults.notes()) out.notes += n.where + ": " + n.text + "\n";
  return out;
}
bool has(std::string_view text, std::string_view part) {
  INFO(text);
  const bool found = text.find(part) != text.npos;
  if (!found) WARN("not in: " << text);
  return found;
}
// Two shards and their index.
void write_indexed(const Folder& f, const std::string& more = "") {
  f.write("m-00001-of-00002.toy", "TOY @k one a 3\nAAA");
  f.write("m-00002-of-00002.toy", "TOY @k one @l two b 2 c 1\nBBC");
  f.write("model.toy.index.json",
          "TOYINDEX a \"m-00001-of-00002.toy\" b \"m-00002-of-00002.toy\" c "
          "\"m-00002-of-00002.toy\" " +
              more);
}
std::string npy_of(int bytes) {
  const std::string header =
      "{'descr': '|u1', 'fortran_order': False, 'shape': (" + std::to_string(bytes) + ",)}\n";
  return std::string("\x93NUMPY\1\0", 8) + static_cast<char>(header.size()) + '\0' + header +
         std::string(static_cast<std::size_t>(bytes), 'x');
}

}  // namespace

TEST_CASE("a single file opens under any name and suffix", "[model]") {
  const Folder f;
  f.write("x.bin", "TOY a 3 b 2\nAAABB");
  const Opened o = open(f / "x.bin");
  REQUIRE(o.model);
  CHECK(o.names == "a b ");
  CHECK(o.model->catalog.format == "toy");
  CHECK_FALSE(o.model->is_folder);
  CHECK(o.model->path == f / "x.bin");
  const TensorPtr b = o.model->open(o.model->tensors[1]);
  Buffer out(2);
  Scratch scratch;
  b->read(b->whole(), out, scratch);
  CHECK(as_text(out) == "BB");
  CHECK(o.model->stored_bytes(o.model->tensors[0]) == 3);
}

TEST_CASE("what is not there and what is no weight file is said in plain words", "[model]") {
  const Folder f;
  f.write("empty.toy", "");
  CHECK(open(f / "none.toy").fault == Fault::Io);
  const Opened o = open(f / "empty.toy");
  CHECK(o.fault == Fault::BadFile);
  CHECK(o.error == f / "empty.toy: is an empty file");
}

TEST_CASE("folder, index and any shard open the same model", "[model]") {
  const Folder f;
  write_indexed(f, "SIZE 6");
  f.write("config.json", "{}");
  for (const std::string& path : {f.path(), f.path() + "/", f / "model.toy.index.json",
                                  f / "m-00001-of-00002.toy", f / "m-00002-of-00002.toy"}) {
    INFO(path);
    const Opened o = open(path);
    INFO(o.error);
    REQUIRE(o.model);
    CHECK(o.names == "a b c ");
    CHECK(o.notes.empty());
    CHECK(o.model->is_folder);
    CHECK(o.model->index_name == "model.toy.index.json");
    CHECK(o.model->catalog.sources().size() == 2);
    REQUIRE(o.model->side.size() == 1);
    CHECK(o.model->side_file("config.json"));
    CHECK_FALSE(o.model->side_file("none"));
    CHECK(o.model->catalog.meta.text("@k") == "one");
    CHECK(o.model->catalog.meta.text("@l") == "two");  // what only the second shard says
    CHECK(fs::equivalent(o.model->path, f.path()));
  }
}

TEST_CASE("--alone reads one shard, and nothing but a file", "[model]") {
  const Folder f;
  write_indexed(f);
  CHECK(open(f / "m-00002-of-00002.toy", {.alone = true}).names == "b c ");
  CHECK(open(f.path(), {.alone = true}).fault == Fault::Usage);
  CHECK(open(f / "model.toy.index.json", {.alone = true}).fault == Fault::Usage);
}

TEST_CASE("an index that does not fit its shards is refused with names", "[model]") {
  const Folder f;
  write_indexed(f, "d \"m-00001-of-00002.toy\"");
  CHECK(
      has(open(f.path()).error,
          "model.toy.index.json: maps tensor 'd' to 'm-00001-of-00002.toy', but no file holds it"));
  f.write("model.toy.index.json",
          "TOYINDEX a \"m-00001-of-00002.toy\" b \"m-00001-of-00002.toy\" "
          "c \"m-00002-of-00002.toy\"");
  CHECK(has(open(f.path()).error,
            "maps tensor 'b' to 'm-00001-of-00002.toy', but it lies in "
            "'m-00002-of-00002.toy'"));
  f.write("model.toy.index.json", "TOYINDEX a \"m-00001-of-00002.toy\" b \"m-00002-of-00002.toy\"");
  CHECK(has(open(f.path()).error,
            "m-00002-of-00002.toy: tensor 'c': 'model.toy.index.json' does not list it"));
  write_indexed(f);
  f.write("m-00001-of-00002.toy", "TOY a 3 b 2\nAAABB");
  CHECK(has(open(f.path()).error, "tensor 'b': name appears twice (first in "));
  fs::remove(f / "m-00001-of-00002.toy");
  const Opened missing = open(f.path());
  CHECK(missing.fault == Fault::BadFile);
  CHECK(has(missing.error,
            "maps tensor 'a' to 'm-00001-of-00002.toy', which is missing (1 of 2 "
            "files are)"));
  CHECK(has(missing.hint, "--alone"));
}

TEST_CASE("a wrong total and files beside the index are notes, and faults for a check", "[model]") {
  const Folder f;
  write_indexed(f, "SIZE 7");
  f.write("extra.toy", "TOY z 1\nZ");
  f.write("pytorch_model.bin", "x");
  f.write("runs/log", "x");
  const Opened o = open(f.path());
  REQUIRE(o.model);
  CHECK(o.names == "a b c ");
  CHECK(has(o.notes, "total_size is 7, but the tensors have 6 bytes"));
  CHECK(has(o.notes, "'extra.toy' is left out: the index does not name it"));
  CHECK(o.model->left_out == std::vector<std::string>{"extra.toy: the index does not name it",
                                                      "pytorch_model.bin: PyTorch weights",
                                                      "runs/: a folder"});
  Diagnostics check(Diagnostics::Mode::Collect);
  open_model(f.path(), registry(), {}, check);
  REQUIRE(check.findings().size() == 2);
  CHECK(check.findings()[0].rule->id == "index.total-size");
  CHECK(check.findings()[1].rule->id == "index.stray-file");
}

TEST_CASE("a check of a folder lists every fault of the index", "[model]") {
  const Folder f;
  write_indexed(f, "d \"m-00001-of-00002.toy\" e \"gone.toy\" g \"../x.toy\"");
  f.write("m-00001-of-00002.toy", "TOY a 3 stray 1\nAAAS");
  Diagnostics check(Diagnostics::Mode::Collect);
  open_model(f.path(), registry(), {}, check);
  std::vector<std::string_view> rules;
  for (const Finding& x : check.findings()) rules.push_back(x.rule->id);
  std::ranges::sort(rules);
  CHECK(rules == std::vector<std::string_view>{"index.missing-shard", "index.missing-tensor",
                                               "index.path", "index.stray-tensor"});
}

TEST_CASE("an index cannot name files outside its folder", "[model]") {
  for (const char* name : {"../m.toy", "/etc/m.toy", "%2e%2e/m.toy", "a/../../m.toy", "a\\\\m.toy",
                           "C:m.toy", "./m.toy", "a//m.toy", "%2Fetc/m.toy", ".."})
    CHECK(unsafe_path(name).has_value());
  CHECK(unsafe_path("").has_value());
  CHECK(unsafe_path(std::string_view("a\0b", 3)).has_value());
  for (const char* name : {"m.toy", "sub/m-1.toy", "a..b", "100%.toy", "%zz", "..a/b"})
    CHECK_FALSE(unsafe_path(name).has_value());
  const Folder f;
  f.write("out.toy", "TOY a 3\nAAA");
  f.write("in/model.toy.index.json", "TOYINDEX a \"link.toy\"");
  fs::create_symlink("../out.toy", f / "in/link.toy");
  CHECK(has(open(f / "in").error,
            "maps tensor 'a' to 'link.toy', a link that leads out of the folder"));
  fs::remove(f / "in/link.toy");
  fs::rename(f / "out.toy", f / "in/real.toy");
  fs::create_symlink("real.toy", f / "in/link.toy");
  CHECK(open(f / "in").names == "a ");
}

TEST_CASE("a cache snapshot may link to its own blobs and to nothing else", "[model]") {
  const Folder f;
  f.write("models--x/blobs/abc", "TOY a 3\nAAA");
  f.write("models--x/blobs/def", "TOYINDEX a \"m.toy\"");
  f.write("models--x/blobs/cfg", "{}");
  f.write("models--y/blobs/abc", "TOY a 3\nBBB");
  const std::string snapshot = f / "models--x/snapshots/0123";
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/abc", snapshot + "/m.toy");
  fs::create_symlink("../../blobs/def", snapshot + "/model.toy.index.json");
  fs::create_symlink("../../blobs/cfg", snapshot + "/config.json");
  for (const std::string& path :
       {snapshot, snapshot + "/m.toy", snapshot + "/model.toy.index.json"}) {
    const Opened o = open(path);
    INFO(o.error);
    REQUIRE(o.model);
    CHECK(o.names == "a ");
    CHECK(o.model->side_file("config.json"));
  }
  fs::remove(snapshot + "/m.toy");
  fs::create_symlink("../../../models--y/blobs/abc", snapshot + "/m.toy");
  CHECK(has(open(snapshot).error, "a link that leads out of the folder"));
}

TEST_CASE("side files that lead out of the folder stay behind, by name", "[model]") {
  const Folder f;
  f.write("secret", "s");
  f.write("m/w.toy", "TOY a 3\nAAA");
  f.write("m/tokenizer.json", "{}");
  f.write("m/SHA256SUMS", "x");
  fs::create_symlink("../secret", f / "m/notes.txt");
  fs::create_symlink("nowhere", f / "m/dangling");
  const Opened o = open(f / "m");
  REQUIRE(o.model);
  REQUIRE(o.model->side.size() == 1);
  CHECK(o.model->side[0].name == "tokenizer.json");
  CHECK(text_of(*o.model->side[0].content) == "{}");
  CHECK(o.model->left_out ==
        std::vector<std::string>{
            "SHA256SUMS: digests of these files, not of what is made from them",
            "dangling: not a regular file", "notes.txt: a link that leads out of the folder"});
}

TEST_CASE("a side file is read when it is needed and not changed meanwhile", "[model]") {
  const Folder f;
  f.write("w.toy", "TOY a 3\nAAA");
  f.write("config.json", "{}");
  const Opened o = open(f.path());
  REQUIRE(o.model);
  const SourcePtr config = o.model->side_file("config.json")->content;
  CHECK(config->size() == 2);
  CHECK(config->descriptor() == -1);
  f.write("config.json", "{\"longer\": 1}");
  Buffer out(2);
  CHECK_THROWS_AS(config->read(0, out), Error);
  CHECK_THROWS_AS(config->check_unchanged(), Error);
}

TEST_CASE("numbered files without an index are a set if complete", "[model]") {
  const Folder f;
  f.write("x-00001-of-00002.toy", "TOY a 3\nAAA");
  const Opened incomplete = open(f.path());
  CHECK(incomplete.fault == Fault::BadFile);
  CHECK(has(incomplete.error,
            "x-00002-of-00002.toy: is missing: 'x-00001-of-00002.toy' is one of a "
            "set of 2 files"));
  CHECK(has(incomplete.hint, "--alone"));
  CHECK(open(f / "x-00001-of-00002.toy").error == incomplete.error);
  CHECK(open(f / "x-00001-of-00002.toy", {.alone = true}).names == "a ");
  f.write("x-00002-of-00002.toy", "TOY b 1\nB");
  for (const std::string& path : {f.path(), f / "x-00002-of-00002.toy"}) {
    const Opened o = open(path);
    CHECK(o.names == "a b ");
    CHECK(has(o.notes, "no index lists the 2 files of this set"));
  }
}

TEST_CASE("a set by what its files say is checked part by part", "[model]") {
  const Folder f;
  f.write("a.1.set", "SET PART 3 TOTAL 3 @k v a 1\nA");
  f.write("a.2.set", "SET PART 3 b 1\nB");
  f.write("a.3.set", "SET PART 3 c 1\nC");
  for (const std::string& path : {f.path(), f / "a.1.set", f / "a.3.set"}) {
    const Opened o = open(path);
    INFO(o.error);
    REQUIRE(o.model);
    CHECK(o.names == "a b c ");
    CHECK(o.model->catalog.meta.find("PART") == nullptr);
    CHECK(o.model->catalog.meta.text("@k") == "v");
  }
  f.write("a.2.set", "SET PART 2 b 1\nB");
  CHECK(has(open(f.path()).error, "a.2.set: does not say that it is one of the 3 files"));
  f.write("a.2.set", "SET PART 3 b 1 d 1\nBD");
  CHECK(has(open(f.path()).error, "TOTAL is wrong"));
  f.write("a.2.set", "SET PART 3 a 1\nB");
  CHECK(has(open(f.path()).error, "tensor 'a': name appears twice"));
  f.write("a.2.set", "TOY b 1\nB");
  CHECK(has(open(f.path()).error, "is toy, but 'a.1.set' of the same set is set"));
  fs::remove(f / "a.2.set");
  CHECK(has(open(f.path()).error, "a.2.set: is missing"));
}

TEST_CASE("unrelated weight files are listed, not chosen from", "[model]") {
  const Folder f;
  f.write("a.toy", "TOY a 1\nA");
  f.write("b.toy", "TOY b 1\nB");
  const Opened o = open(f.path());
  CHECK(o.fault == Fault::Usage);
  CHECK(o.error == f.path() + ": holds 2 weight files that are no set: a.toy, b.toy");
  CHECK(o.hint == "give the file that you mean");
  CHECK(open(f / "b.toy").names == "b ");
}

TEST_CASE("of several indexes the usual name is taken, else none", "[model]") {
  const Folder f;
  f.write("w.toy", "TOY a 1\nA");
  f.write("one.toy.index.json", "TOYINDEX a \"w.toy\"");
  f.write("two.toy.index.json", "TOYINDEX a \"w.toy\"");
  CHECK(open(f.path()).fault == Fault::Usage);
  CHECK(has(open(f.path()).error, "holds 2 indexes: one.toy.index.json, two.toy.index.json"));
  f.write("model.toy.index.json", "TOYINDEX a \"w.toy\"");
  const Opened o = open(f.path());
  REQUIRE(o.model);
  CHECK(o.model->index_name == "model.toy.index.json");
  CHECK(has(o.notes, "holds 3 indexes"));
}

TEST_CASE("a weight file that is not what its name says is not passed over", "[model]") {
  const Folder f;
  f.write("w.toy", "version https://git-lfs.github.com/spec/v1\nsize 12\n");
  CHECK(has(open(f.path()).error, "w.toy: is a Git LFS pointer"));
}

TEST_CASE("a folder of arrays is a model named by relative paths", "[model]") {
  const Folder f;
  f.write("b.npy", npy_of(2));
  f.write("layers/10/w.npy", npy_of(1));
  f.write("layers/2/w.npy", npy_of(3));
  f.write("layers/readme.txt", "x");
  f.write("config.json", "{}");
  for (const std::string& path : {f.path(), f.path() + "/"}) {
    const Opened o = open(path);
    INFO(o.error);
    REQUIRE(o.model);
    CHECK(o.names == "b layers/2/w layers/10/w ");
    CHECK(o.model->catalog.format == "npy");
    CHECK(o.model->catalog.find("layers/2/w")->bytes == 3);
    CHECK(o.model->side.size() == 1);
    CHECK(o.model->left_out == std::vector<std::string>{"layers/readme.txt: below a subfolder"});
  }
  const Folder none;
  none.write("pytorch_model.bin", "x");
  const Opened o = open(none.path());
  CHECK(o.fault == Fault::BadFile);
  CHECK(has(o.error,
            "holds no weight files that wtool reads ('pytorch_model.bin': PyTorch weights)"));
}

TEST_CASE("schemes claim parts, the rest is plain, in file order", "[model]") {
  const Folder f;
  f.write("m.toy", "TOY z 1 x_lo 2 y_hi 1 x_hi 2 a 1\nZLLYHHA");
  const Opened o = open(f / "m.toy");
  REQUIRE(o.model);
  CHECK(o.names == "z x y_hi a ");
  const LogicalTensor& x = o.model->tensors[1];
  CHECK(x.scheme == &kPairs);
  CHECK(x.dtype == DType::U16);
  CHECK(o.model->part(x, 0).name == "x_hi");
  CHECK(o.model->part(x, 1).name == "x_lo");
  CHECK(o.model->stored_bytes(x) == 4);
  CHECK(o.model->parts.size() == 5);
  f.write("m.toy", "TOY x 1 x_lo 2 x_hi 2\nXLLHH");
  const Opened both = open(f / "m.toy");
  CHECK(both.names == "x x_lo x_hi ");
  CHECK(has(both.notes, "'x' is stored plainly and as pairs"));
}

TEST_CASE("opaque elements become what the user says", "[model]") {
  const Folder f;
  f.write("m.toy", "TOY v2.a 2 b 1\nAAAAB");
  const Opened o = open(f / "m.toy", {.void_as = DType::BF16});
  REQUIRE(o.model);
  CHECK(o.model->tensors[0].dtype == DType::BF16);
  CHECK(o.model->tensors[1].dtype == DType::U8);
  CHECK(o.model->open(o.model->tensors[0])->dtype() == DType::BF16);
  CHECK(has(open(f / "m.toy", {.void_as = DType::F32}).error,
            "tensor 'v2.a': elements of 2 bytes cannot be taken for f32"));
  f.write("m.toy", "TOY b 1\nB");
  CHECK(has(open(f / "m.toy", {.void_as = DType::BF16}).error,
            "no tensor has opaque elements to take for bf16"));
}

TEST_CASE("more shards than descriptors are no trouble", "[model]") {
  const Folder f;
  std::string index = "TOYINDEX ";
  for (int i = 0; i < 1500; ++i) {
    const std::string n = std::to_string(i);
    f.write("s" + n + ".toy", "TOY t" + n + " 1\nX");
    index += "t" + n + " \"s" + n + ".toy\" ";
  }
  f.write("model.toy.index.json", index);
  const Opened o = open(f.path());
  INFO(o.error);
  REQUIRE(o.model);
  CHECK(o.model->tensors.size() == 1500);
  CHECK(o.model->tensors[2].name == "t2");  // s2.toy before s10.toy
}

TEST_CASE("names of formats and schemes are looked up with a suggestion", "[model]") {
  const Registry r = registry();
  CHECK(&r.format("TOY") == &kToy);
  CHECK(&r.scheme("plain") == &kOne);
  try {
    r.format("tooy");
    FAIL("found");
  } catch (const Error& e) {
    CHECK(e.fault() == Fault::Usage);
    CHECK(e.text() == "unknown format 'tooy'");
    CHECK(e.hint() == "did you mean 'toy'?");
  }
  try {
    r.format("something else");
    FAIL("found");
  } catch (const Error& e) {
    CHECK(e.hint() == "known are npy, toy, set");
  }
  CHECK(r.by_suffix("dir.set/a.NPY") == &kNpy);
  CHECK(r.by_suffix("a.toy.bak") == nullptr);
  CHECK(r.by_suffix("toy") == nullptr);
}
