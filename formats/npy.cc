// NPY: 0x93 'NUMPY', version (1.0, 2.0, 3.0), header length (16 bits, from 2.0 on 32,
// little-endian), a Python dict literal with 'descr', 'fortran_order' and 'shape', padded with
// blanks and a newline to a multiple of 64, then one array's elements. (numpy/lib/format.py)

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "formats/registry.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"

namespace wtool {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kAlign = 64;  // where data begins
constexpr std::size_t kGrowthDigits =
    21;                               // numpy leaves room for the growing axis to get this wide
constexpr std::size_t kMaxRank = 32;  // numpy 1's limit, so that every numpy reads what we write
// Ours. numpy reads 10,000 unless asked; only records with very many fields need more.
constexpr std::uint64_t kMaxHeader = std::uint64_t{1} << 20;

constexpr Rule kShort{"npy.short", "the file's beginning is all there"},
    kVersion{"npy.version", "the version is 1.0, 2.0 or 3.0"},
    kHeaderSize{"npy.header-size", "the header lies in the file and is within wtool's limit"},
    kHeader{"npy.header", "the header is a dict of descr, fortran_order and shape, each once"},
    kDescr{"npy.descr", "the element type is known"},
    kTrailing{"npy.trailing-bytes", "nothing follows the array", true};
constexpr std::array<const Rule*, 6> kRules{&kShort,  &kVersion, &kHeaderSize,
                                            &kHeader, &kDescr,   &kTrailing};

struct Header {
  std::string descr;
  bool is_list = false;  // a structured array; its fields are not kept
  bool column_major = false;
  Shape shape;
};

// Thrown and caught in this file: what is wrong, and at which byte of the header text.
struct Mistake {
  std::size_t at;
  std::string text;
};

// A grammar that covers every real writer. Python's own reader also takes comments, escapes, joined
// strings and other spellings of numbers; those are refused.
class Parser {
 public:
  Parser(std::string_view text, bool python2_longs) : text_(text), longs_(python2_longs) {}

  Header header() {
    expect('{');
    while (!accept('}')) {
      const std::size_t at = skip();
      const std::string key = string();
      expect(':');
      value_of(key, at);
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (skip() != text_.size()) throw Mistake{at_, "something follows the header's dict"};
    for (std::size_t i = 0; i < kKeys.size(); ++i)
      if (!seen_[i]) throw Mistake{at_, fmt::format("the header has no '{}'", kKeys[i])};
    return std::move(out_);
  }

 private:
  static constexpr std::array<std::string_view, 3> kKeys{"descr", "fortran_order", "shape"};

  void value_of(const std::string& key, std::size_t at) {
    const auto i = static_cast<std::size_t>(std::ranges::find(kKeys, key) - kKeys.begin());
    if (i == kKeys.size()) throw Mistake{at, fmt::format("unknown header key {}", quoted(key))};
    if (std::exchange(seen_[i], true))
      throw Mistake{at, fmt::format("header key '{}' appears twice", key)};
    if (i == 0) descr();
    if (i == 1) out_.column_major = boolean();
    if (i == 2) shape();
  }
  void descr() {
    if (peek() != '[') {
      out_.descr = string();
      return;
    }
    // Records are refused whatever they hold: find the end of the list, and see whether there are
    // objects in it.
    out_.is_list = true;
    std::size_t depth = 0;
    do {
      const char c = peek();
      if (c == '\'' || c == '"') {
        const std::string s = string();
        if (s == "O" || s.starts_with("|O") || s.starts_with("O8")) out_.descr = s;
        continue;
      }
      if (c == '\0') throw Mistake{at_, "the list of fields does not end"};
      if (c == '[' || c == '(') ++depth;
      if (c == ']' || c == ')') --depth;
      ++at_;
    } while (depth > 0);
  }
  bool boolean() {
    skip();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (!text_.substr(at_).starts_with(word)) continue;
      at_ += word.size();
      return value;
    }
    throw Mistake{at_, "'fortran_order' is neither True nor False"};
  }
  void shape() {
    if (peek() != '(') throw Mistake{at_, "'shape' is not a tuple"};
    ++at_;
    bool comma = true;
    while (!accept(')')) {
      if (!comma) throw Mistake{at_, "'shape' has no ',' after a dimension"};
      out_.shape.push_back(dimension());
      if (out_.shape.size() > Catalog::kMaxRank)
        throw Mistake{at_, fmt::format("'shape' has more than {} dimensions", Catalog::kMaxRank)};
      comma = accept(',');
    }
    if (out_.shape.size() == 1 && !comma) throw Mistake{at_, "'shape' is a number, not a tuple"};
  }
  std::uint64_t dimension() {
    const std::size_t start = skip();
    if (peek() == '-') throw Mistake{start, "'shape' has a negative dimension"};
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
    const std::string_view digits = text_.substr(start, at_ - start);
    if (digits.empty() || (digits.size() > 1 && digits[0] == '0'))
      throw Mistake{start, "'shape' holds something other than whole numbers"};
    const auto n = parse_u64(digits);
    if (!n || *n >> 63 != 0)
      throw Mistake{start, fmt::format("dimension {} is 2^63 or more", digits.substr(0, 40))};
    if (longs_ && at_ < text_.size() && text_[at_] == 'L') ++at_;
    return *n;
  }
  std::string string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') throw Mistake{at_, "a string is missing"};
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) throw Mistake{at_, "a string does not end"};
    std::string out(text_.substr(at_ + 1, end - at_ - 1));
    if (out.find_first_of("\\\n") != std::string::npos)
      throw Mistake{at_, "a string holds an escape or a line end"};
    at_ = end + 1;
    return out;
  }

  std::size_t skip() {
    at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size());
    return at_;
  }
  char peek() { return skip() < text_.size() ? text_[at_] : '\0'; }
  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) throw Mistake{at_, fmt::format("'{}' is missing in the header", c)};
  }

  std::string_view text_;
  bool longs_;
  std::size_t at_ = 0;
  std::array<bool, 3> seen_{};
  Header out_;
};

struct TypeRow {
  DType dtype;
  std::string_view code;  // kind and width, as numpy writes it
  std::string_view name;  // of the type, as hand-written headers have it
};
// The first row of a dtype is how it is written. V1 and V2 are how bf16 and fp8 arrive from JAX.
constexpr std::array kTypes{
    TypeRow{DType::Bool, "b1", "bool"},
    TypeRow{DType::I8, "i1", "int8"},
    TypeRow{DType::U8, "u1", "uint8"},
    TypeRow{DType::I16, "i2", "int16"},
    TypeRow{DType::U16, "u2", "uint16"},
    TypeRow{DType::I32, "i4", "int32"},
    TypeRow{DType::U32, "u4", "uint32"},
    TypeRow{DType::I64, "i8", "int64"},
    TypeRow{DType::U64, "u8", "uint64"},
    TypeRow{DType::F16, "f2", "float16"},
    TypeRow{DType::F32, "f4", "float32"},
    TypeRow{DType::F64, "f8", "float64"},
    TypeRow{DType::C64, "c8", "complex64"},
    TypeRow{DType::C128, "c16", "complex128"},
    TypeRow{DType::V1, "V1", ""},
    TypeRow{DType::V2, "V2", ""},
    TypeRow{DType::F8_E5M2, "f1", "float8_e5m2"},  // ml_dtypes; numpy cannot load it back
    TypeRow{DType::BF16, "", "bfloat16"},
    TypeRow{DType::F8_E4M3, "", "float8_e4m3fn"},
};

// Sound, but no tensor of a type that wtool knows.
std::optional<std::string> unsupported(const Header& header) {
  const std::string_view descr = header.descr;
  const std::string_view code =
      descr.substr(!descr.empty() && std::string_view("<>|=").find(descr[0]) != descr.npos);
  const char kind = code.empty() ? '\0' : code[0];
  if (kind == 'O') return "an array of Python objects is a pickle, which can run code when opened";
  if (header.is_list) return "a structured array holds records of several fields, not one tensor";
  const std::string_view width = code.substr(code.empty() ? 0 : 1);
  const bool sized = parse_u64(width).has_value();
  if ((kind == 'S' || kind == 'U' || kind == 'a') && sized) return "an array of strings";
  if ((kind == 'M' || kind == 'm') && width.starts_with('8')) return "an array of dates or times";
  if (kind == 'V' && sized) return "an array of opaque records";
  if ((kind == 'f' && (width == "12" || width == "16")) ||
      (kind == 'c' && (width == "24" || width == "32")))
    return "long double, whose format depends on the machine that wrote it";
  return std::nullopt;
}

struct Element {
  DType dtype;
  bool big_endian, order_known;
};
std::optional<Element> element_of(std::string_view descr) {
  const bool marked = !descr.empty() && std::string_view("<>|=").find(descr[0]) != descr.npos;
  const char order = marked ? descr[0] : '=';
  for (const TypeRow& t : kTypes) {
    const bool by_code = !t.code.empty() && descr.substr(marked) == t.code;
    if (!by_code && (t.name.empty() || descr != t.name)) continue;
    const bool wide = info(t.dtype).block_bytes > 1;
    return Element{t.dtype, wide && order == '>',
                   !wide || t.dtype == DType::V2 || order == '<' || order == '>'};
  }
  return std::nullopt;
}

std::string stem_of(const std::string& path) {
  if (path == "-") return "array";
  const std::string name = file_name_of(path);
  const auto dot = name.rfind('.');
  return dot == 0 ? name : name.substr(0, dot);
}

bool detect(const Source& source) {
  if (source.size() < kMagic.size()) return false;
  std::array<std::byte, kMagic.size()> head;
  source.read(0, head);
  return as_text(head) == kMagic;
}

// Where the header's text lies; nothing if that is already wrong.
struct Frame {
  std::uint64_t at, bytes;
  unsigned version;
};
std::optional<Frame> frame_of(const Source& source, Diagnostics& faults) {
  const std::uint64_t size = source.size();
  std::array<std::byte, 12> head{};
  source.read(0, MutableBytes(head).first(std::min<std::uint64_t>(size, head.size())));
  const auto major = static_cast<unsigned>(head[6]), minor = static_cast<unsigned>(head[7]);
  const std::uint64_t at = size > 6 && major == 1 ? 10 : 12;
  if (size < at) {
    faults.report(kShort, source.name(), size,
                  fmt::format("the file ends after {} bytes, inside its first {}", size, at));
    return std::nullopt;
  }
  if (major < 1 || major > 3 || minor != 0) {
    faults.report(kVersion, source.name(), kMagic.size(),
                  fmt::format("NPY version {}.{}; there are 1.0, 2.0 and 3.0", major, minor));
    return std::nullopt;
  }
  const std::uint64_t bytes =
      major == 1 ? load<std::uint16_t>(Bytes(head).subspan(8)) : load<std::uint32_t>(head, 2);
  if (bytes > size - at) {
    faults.report(kHeaderSize, source.name(), 8,
                  fmt::format("the header has {} bytes, but only {} follow", bytes, size - at));
    return std::nullopt;
  }
  if (bytes > kMaxHeader) {
    faults.report(kHeaderSize, source.name(), 8,
                  fmt::format("the header has {} bytes, wtool's limit is {}", bytes, kMaxHeader));
    return std::nullopt;
  }
  return Frame{at, bytes, major};
}

std::optional<Header> header_of(const SourcePtr& source, const Frame& frame, Diagnostics& faults) {
  const Buffer text = read_all({source, frame.at, frame.bytes});
  try {
    return Parser(as_text(text), frame.version < 3).header();
  } catch (const Mistake& m) {
    faults.report(kHeader, source->name(), frame.at + m.at,
                  fmt::format("{} (at byte {})", m.text, frame.at + m.at));
    return std::nullopt;
  }
}

void read(const SourcePtr& source, Catalog& catalog, Diagnostics& faults) {
  const auto frame = frame_of(*source, faults);
  if (!frame) return;
  const auto header = header_of(source, *frame, faults);
  if (!header) return;
  const auto element = element_of(header->descr);
  if (!element) {
    if (const auto why = unsupported(*header))
      throw Error(Fault::Unsupported,
                  header->is_list ? *why : fmt::format("{}: {}", quoted(header->descr), *why))
          .in(source->name());
    return faults.report(kDescr, source->name(), frame->at,
                         fmt::format("unknown element type {}", quoted(header->descr)));
  }
  if (!element->order_known)
    faults.note(source->name(), fmt::format("element type {} does not say its byte order; "
                                            "little-endian is assumed",
                                            quoted(header->descr)));
  TensorEntry t;
  t.name = catalog.arena().text(stem_of(source->name()));
  t.shape = catalog.arena().copy(ShapeView(header->shape));
  t.dtype = element->dtype;
  t.big_endian = element->big_endian;
  t.column_major = header->column_major;
  t.offset = frame->at + frame->bytes;
  t.bytes = byte_size(t.dtype, element_count(t.shape).value_or(0)).value_or(0);
  catalog.add(t, frame->at, faults);  // reports what overflows
  const std::uint64_t room = source->size() - t.offset;
  if (!catalog.entries().empty() && t.bytes < room)
    faults.report(kTrailing, source->name(), t.offset + t.bytes,
                  fmt::format("{} bytes follow the array's {}", room - t.bytes, t.bytes));
}

std::optional<std::string> refuses(const OutTensor& tensor) {
  const DTypeInfo& type = info(tensor.dtype);
  const auto it = std::ranges::find(kTypes, tensor.dtype, &TypeRow::dtype);
  const bool is_float8 = tensor.dtype == DType::F8_E5M2;  // 'f1' is what numpy refuses to load
  if (it == kTypes.end() || it->code.empty() || is_float8)
    return type.kind == Kind::Block
               ? fmt::format("NPY has no {} blocks; --dtype f32 decodes them", type.name)
               : fmt::format("NPY has no {}; --dtype f32 holds it exactly", type.name);
  if (tensor.shape.size() > kMaxRank)
    return fmt::format("{} dimensions; numpy takes at most {}", tensor.shape.size(), kMaxRank);
  for (const std::uint64_t d : tensor.shape)
    if (d > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      return fmt::format("dimension {} of {} is 2^63 or more, which numpy cannot read", d,
                         to_text(tensor.shape));
  return std::nullopt;
}

std::optional<std::string> refuses_meta(const Metadata& meta) {
  if (meta.empty()) return std::nullopt;
  return fmt::format("NPY holds no metadata, and there are {} keys", meta.size());
}

// The same text as numpy writes.
std::string dict_of(const OutTensor& tensor) {
  const auto* type = std::ranges::find(kTypes, tensor.dtype, &TypeRow::dtype);
  const bool ordered =
      info(tensor.dtype).block_bytes > 1 && info(tensor.dtype).kind != Kind::Opaque;
  const char order = !ordered ? '|' : tensor.big_endian ? '>' : '<';
  std::string text =
      fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}{}), }}", order,
                  type->code, fmt::join(tensor.shape, ", "), tensor.shape.size() == 1 ? "," : "");
  if (!tensor.shape.empty())
    text.append(kGrowthDigits - fmt::formatted_size("{}", tensor.shape[0]), ' ');
  return text;
}

Layout layout(const Metadata&, std::span<const OutTensor> tensors) {
  if (tensors.size() != 1) throw Error(Fault::Internal, "an NPY file holds exactly one array");
  if (const auto why = refuses(tensors[0]))
    throw Error(Fault::Usage, *why).in(fmt::format("tensor {}", quoted(tensors[0].name)));
  std::string text = dict_of(tensors[0]);
  // At least one blank before the newline's place, as numpy has it: exact multiples grow by 64.
  const auto padded = [&](std::size_t before) {
    return (before + text.size() + 1) / kAlign * kAlign + kAlign;
  };
  const bool is_long = padded(10) - 10 > 0xFFFF;
  const std::size_t before = is_long ? 12 : 10, total = padded(before);
  text.append(total - before - text.size() - 1, ' ');
  text += '\n';
  Layout out;
  append(out.head, as_bytes(kMagic));
  append(out.head, static_cast<std::uint8_t>(is_long ? 2 : 1));
  append(out.head, std::uint8_t{0});
  if (is_long)
    append(out.head, static_cast<std::uint32_t>(text.size()));
  else
    append(out.head, static_cast<std::uint16_t>(text.size()));
  append(out.head, as_bytes(text));
  out.offsets = {out.head.size()};
  out.total_bytes = out.head.size() + tensors[0].bytes();
  return out;
}

constexpr std::array<std::string_view, 1> kSuffixes{".npy"};

}  // namespace

const Format kNpy{.name = "npy",
                  .summary = "NumPy's array file: one tensor",
                  .suffixes = kSuffixes,
                  .one_tensor = true,
                  .rules = kRules,
                  .detect = detect,
                  .read = read,
                  .refuses = refuses,
                  .refuses_meta = refuses_meta,
                  .layout = layout};

}  // namespace wtool
