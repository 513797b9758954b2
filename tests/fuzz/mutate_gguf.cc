// Mutations of GGUF: the file is taken apart as far as it can be, one thing in it is changed, and
// it is put together again, in either byte order and any version. Written apart from
// formats/gguf.cc: what that reads wrongly, this must not.
#include <algorithm>
#include <array>

#include "lib/base/bytes.h"
#include "tests/fuzz/mutate.h"

namespace wtool::fuzz {
namespace {

enum Type : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};
constexpr std::array<std::size_t, 13> kSizes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct Value {
  std::uint32_t type = kU32;
  std::uint64_t bits = 0;         // of a number
  std::string text = {};          // of a string
  std::vector<Value> items = {};  // of an array, of this type:
  std::uint32_t of = kU32;
};
struct Key {
  std::string name;
  Value value;
};
struct Tensor {
  std::string name;
  std::vector<std::uint64_t> dims;
  std::uint32_t type = 0;
  std::uint64_t offset = 0;
};
struct File {
  std::uint32_t version = 3;
  bool big = false;
  std::vector<Key> keys;
  std::vector<Tensor> tensors;
  std::string data;  // from the first byte that is not padding's
};

// Where in the bytes a number lies.
struct Field {
  std::size_t at, size;
};

class Parser {
 public:
  explicit Parser(std::string_view bytes) : bytes_(bytes) {}
  std::vector<Field> fields;  // of what could be walked

  // False: it could be walked in part only.
  bool parse(File& out) {
    at_ = 4;
    out.version = static_cast<std::uint32_t>(number(4));
    if (out.version != 0 && (out.version & 0xffff) == 0) {
      big_ = out.big = true;
      out.version = byte_swapped(out.version);
    }
    version_ = out.version;
    const std::uint64_t tensors = length(), keys = length();
    for (std::uint64_t i = 0; i < keys && !bad_; ++i) {
      Key k{text(), {}};
      k.value.type = static_cast<std::uint32_t>(number(4));
      value(k.value, 0);
      if (!bad_) out.keys.push_back(std::move(k));
    }
    for (std::uint64_t i = 0; i < tensors && !bad_; ++i) {
      Tensor t{text(), {}};
      std::uint64_t n = number(4);
      if (n > 8) bad_ = true;
      for (; n > 0 && !bad_; --n) t.dims.push_back(length());
      t.type = static_cast<std::uint32_t>(number(4));
      t.offset = number(8);
      if (!bad_) out.tensors.push_back(std::move(t));
    }
    std::uint64_t align = 32;
    for (const Key& k : out.keys)
      if (k.name == "general.alignment" && k.value.bits > 0 && k.value.bits <= 4096)
        align = k.value.bits;
    out.data = bytes_.substr(std::min<std::size_t>(align_up(at_, align), bytes_.size()));
    return !bad_;
  }

 private:
  std::uint64_t number(std::size_t size) {
    if (bad_ || size > bytes_.size() - at_) {
      bad_ = true;
      return 0;
    }
    fields.push_back({at_, size});
    std::uint64_t out = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const auto byte = static_cast<unsigned char>(bytes_[at_ + (big_ ? size - 1 - i : i)]);
      out |= std::uint64_t{byte} << (8 * i);
    }
    at_ += size;
    return out;
  }
  std::uint64_t length() { return number(version_ == 1 ? 4 : 8); }
  std::string text() {
    const std::uint64_t n = length();
    if (bad_ || n > bytes_.size() - at_) {
      bad_ = true;
      return {};
    }
    at_ += static_cast<std::size_t>(n);
    return std::string(bytes_.substr(at_ - n, static_cast<std::size_t>(n)));
  }
  void value(Value& v, int depth) {
    if (v.type == kString) {
      v.text = text();
    } else if (v.type == kArray && depth < 4) {
      v.of = static_cast<std::uint32_t>(number(4));
      const std::uint64_t n = length();
      if (n > bytes_.size() - std::min(at_, bytes_.size())) bad_ = true;
      for (std::uint64_t i = 0; i < n && !bad_; ++i) {
        v.items.push_back({v.of});
        value(v.items.back(), depth + 1);
      }
    } else if (v.type < kSizes.size() && kSizes[v.type] > 0) {
      v.bits = number(kSizes[v.type]);
    } else {
      bad_ = true;
    }
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
  std::uint32_t version_ = 3;
  bool big_ = false, bad_ = false;
};

class Writer {
 public:
  explicit Writer(const File& file) : file_(file) {}

  std::string write() {
    out_ = "GGUF";
    number(file_.version, 4);
    length(file_.tensors.size());
    length(file_.keys.size());
    std::uint64_t align = 32;
    for (const Key& k : file_.keys) {
      text(k.name);
      number(k.value.type, 4);
      value(k.value);
      if (k.name == "general.alignment" && k.value.bits > 0 && k.value.bits <= 4096)
        align = k.value.bits;
    }
    for (const Tensor& t : file_.tensors) {
      text(t.name);
      number(t.dims.size(), 4);
      for (const std::uint64_t d : t.dims) length(d);
      number(t.type, 4);
      number(t.offset, 8);
    }
    out_.resize(align_up(out_.size(), align));
    return out_ + file_.data;
  }

 private:
  void number(std::uint64_t v, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i)
      out_ += static_cast<char>(v >> (8 * (file_.big ? size - 1 - i : i)));
  }
  void length(std::uint64_t n) { number(n, file_.version == 1 ? 4 : 8); }
  void text(std::string_view s) {
    length(s.size());
    out_ += s;
  }
  void value(const Value& v) {
    if (v.type == kString) return text(v.text);
    if (v.type == kArray) {
      number(v.of, 4);
      length(v.items.size());
      for (const Value& item : v.items) value(item);
      return;
    }
    number(v.bits, v.type < kSizes.size() ? kSizes[v.type] : 0);
  }

  const File& file_;
  std::string out_;
};

constexpr std::array<std::string_view, 14> kKeyNames{
    "general.alignment",     "general.architecture",
    "general.file_type",     "split.no",
    "split.count",           "split.tensors.count",
    "general.type",          "imatrix.datasets",
    "imatrix.chunk_count",   "imatrix.chunk_size",
    "llama.block_count",     "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores", "general.quantization_version"};

struct Block {  // of ggml's types: id, elements, bytes
  std::uint32_t id;
  std::uint64_t elements, bytes;
};
constexpr std::array kBlocks{
    Block{0, 1, 4},      Block{1, 1, 2},      Block{2, 32, 18},    Block{3, 32, 20},
    Block{6, 32, 22},    Block{7, 32, 24},    Block{8, 32, 34},    Block{9, 32, 36},
    Block{10, 256, 84},  Block{11, 256, 110}, Block{12, 256, 144}, Block{13, 256, 176},
    Block{14, 256, 210}, Block{15, 256, 292}, Block{16, 256, 66},  Block{17, 256, 74},
    Block{18, 256, 98},  Block{19, 256, 50},  Block{20, 32, 18},   Block{21, 256, 110},
    Block{22, 256, 82},  Block{23, 256, 136}, Block{24, 1, 1},     Block{25, 1, 2},
    Block{26, 1, 4},     Block{27, 1, 8},     Block{28, 1, 8},     Block{29, 256, 56},
    Block{30, 1, 2},     Block{34, 256, 54},  Block{35, 256, 66},  Block{39, 32, 17},
    Block{40, 64, 36},   Block{41, 128, 18},  Block{42, 64, 18}};

Value some_value(Mutation& how, bool may_nest = true) {
  Value v;
  v.type = static_cast<std::uint32_t>(how.below(13));
  if (v.type == kArray && !may_nest) v.type = kString;
  v.bits = v.type == kBool ? how.below(2) : how.number(how.below(100));
  if (v.type == kString) v.text = how.any(kKeyNames);
  if (v.type != kArray) return v;
  v.of = how.one_in(3) ? std::uint32_t{kString} : static_cast<std::uint32_t>(how.below(13));
  for (std::uint64_t n = how.below(6); n > 0; --n) {
    Value item = some_value(how, false);
    item.type = v.of;
    v.items.push_back(std::move(item));
  }
  return v;
}

// A tensor that fits, its bytes behind the others'.
void add_tensor(File& f, Mutation& how) {
  const Block& b = how.any(kBlocks);
  Tensor t{"t" + std::to_string(how.below(50)),
           {b.elements * (1 + how.below(2)), 1 + how.below(3)},
           b.id,
           0};
  if (how.one_in(3)) t.name = "blk." + std::to_string(how.below(3)) + ".attn_q.weight";
  if (how.one_in(4)) t.name += how.one_in(2) ? ".in_sum2" : ".counts";
  f.data.resize(align_up(f.data.size(), 32));
  t.offset = f.data.size();
  const std::uint64_t bytes = t.dims[0] / b.elements * b.bytes * t.dims[1];
  const char fill = static_cast<char>(how.below(256));
  for (std::uint64_t i = 0; i < bytes; ++i)
    f.data += static_cast<char>(fill + static_cast<char>(i * 7));
  f.data.resize(align_up(f.data.size(), 32));
  f.tensors.insert(f.tensors.end() - static_cast<std::ptrdiff_t>(how.below(f.tensors.size() + 1)),
                   t);
}

void change_key(File& f, Mutation& how) {
  if (f.keys.empty() || how.one_in(4)) {
    f.keys.insert(f.keys.begin() + static_cast<std::ptrdiff_t>(how.below(f.keys.size() + 1)),
                  Key{std::string(how.any(kKeyNames)), some_value(how)});
    return;
  }
  const std::size_t i = how.below(f.keys.size());
  Key& k = f.keys[i];
  switch (how.below(8)) {
    case 0: f.keys.erase(f.keys.begin() + static_cast<std::ptrdiff_t>(i)); break;
    case 1: f.keys.push_back(Key(k)); break;
    case 2: k.name = how.any(kKeyNames); break;
    case 3: how.plain(k.name); break;
    case 4: k.value = some_value(how); break;
    case 5: std::swap(k, f.keys[how.below(f.keys.size())]); break;
    default:
      if (k.value.type == kString)
        how.plain(k.value.text);
      else if (k.value.type == kArray && !k.value.items.empty())
        k.value.items.insert(k.value.items.begin(), Value(how.any(k.value.items)));
      else
        k.value.bits = how.number(k.value.bits);
  }
}

void change_tensor(File& f, Mutation& how) {
  if (f.tensors.empty() || how.one_in(4)) return add_tensor(f, how);
  const std::size_t i = how.below(f.tensors.size());
  Tensor& t = f.tensors[i];
  switch (how.below(10)) {
    case 0: f.tensors.erase(f.tensors.begin() + static_cast<std::ptrdiff_t>(i)); break;
    case 1: f.tensors.push_back(Tensor(t)); break;
    case 2: t.name = how.any(f.tensors).name; break;
    case 3: how.plain(t.name); break;
    case 4: t.type = how.any(kBlocks).id; break;
    case 5: t.offset = how.one_in(2) ? how.any(f.tensors).offset : how.number(t.offset); break;
    case 6: t.dims.push_back(how.number(1)); break;
    case 7:
      if (!t.dims.empty()) t.dims.pop_back();
      break;
    case 8: std::swap(t, f.tensors[how.below(f.tensors.size())]); break;
    default:
      if (!t.dims.empty()) t.dims[how.below(t.dims.size())] = how.number(t.dims[0]);
  }
}

void corrupt(std::string& bytes, const Field& field, bool big, Mutation& how) {
  std::uint64_t old = 0;
  for (std::size_t i = 0; i < field.size; ++i)
    old |=
        std::uint64_t{static_cast<unsigned char>(bytes[field.at + (big ? field.size - 1 - i : i)])}
        << (8 * i);
  const std::uint64_t v = how.number(old);
  for (std::size_t i = 0; i < field.size; ++i)
    bytes[field.at + (big ? field.size - 1 - i : i)] = static_cast<char>(v >> (8 * i));
}

}  // namespace

void mutate_gguf(std::string& bytes, Mutation& how) {
  if (bytes.size() < 24 || !bytes.starts_with("GGUF")) {
    bytes = Writer(File{}).write();
  }
  File file;
  Parser parser(bytes);
  const bool whole = parser.parse(file);
  if (how.one_in(12)) return how.plain(bytes);
  if (!parser.fields.empty() && how.one_in(whole ? 4 : 2))
    return corrupt(bytes, how.any(parser.fields), file.big, how);
  switch (how.below(10)) {
    case 0: file.version = static_cast<std::uint32_t>(1 + how.below(3)); break;
    case 1: file.big = !file.big; break;
    case 2:
      file.data.resize(file.data.size() -
                       std::min<std::size_t>(file.data.size(), 1 + how.below(40)));
      break;
    case 3: file.data.append(1 + how.below(40), '\0'); break;
    case 4: how.plain(file.data); break;
    case 5:
    case 6: change_key(file, how); break;
    default: change_tensor(file, how);
  }
  bytes = Writer(file).write();
}

}  // namespace wtool::fuzz
