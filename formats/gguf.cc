// GGUF: magic, version, counts; metadata as key, type, value; the table of tensors; padding; then
// each tensor's bytes, padded to the alignment. Where llama.cpp's reader (gguf.cpp) accepts what is
// refused here, the rule is forgivable.
#include <array>
#include <cstring>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

#include "formats/cursor.h"
#include "formats/gguf_types.h"
#include "formats/registry.h"
#include "lib/base/text.h"
#include "lib/base/text_hash.h"

namespace wtool {
namespace {

constexpr Rule kMagic{"gguf.magic", "the file begins with 'GGUF'"},
    kVersion{"gguf.version", "the version is 1, 2 or 3, and 3 in big-endian files"},
    kCount{"gguf.count", "so many keys and tensors can lie in the file"},
    kCut{"gguf.truncated", "the header is all there"},
    kString{"gguf.string", "strings lie in the file and have at most 2^30 bytes"},
    kKey{"gguf.key", "keys are not empty"},
    kKeyText{"gguf.key-text", "keys are UTF-8 without zero bytes, of at most 65,535 bytes", true},
    kKeyTwice{"gguf.kv-duplicate", "no key appears twice"},
    kValueType{"gguf.value-type", "value types are 0 to 12"},
    kBool{"gguf.bool", "a bool is 0 or 1", true},
    kArray{"gguf.array",
           "arrays have a known type, lie in the file and have at most 2^30 elements"},
    kNested{"gguf.array-nested", "no array holds arrays"},
    kAlignment{"gguf.alignment", "general.alignment is a power of two of type u32"},
    kName{"gguf.name", "tensor names have at most 63 bytes"},
    kNameText{"gguf.name-text", "tensor names are UTF-8, not empty, without zero bytes", true},
    kDims{"gguf.dims", "a tensor has at most 4 dimensions, each below 2^63"},
    kEmpty{"gguf.dim-zero", "no dimension is 0", true},
    kOverflow{"gguf.overflow", "elements and bytes of a tensor can be counted in 64 bits"},
    kType{"gguf.type", "tensor types are those of ggml"},
    kRow{"gguf.row", "rows are a multiple of the type's block"},
    kOffset{"gguf.offset", "each tensor begins at the padded end of the one before it"},
    kData{"gguf.data-truncated", "all the data that the header describes is there"},
    kTrailing{"gguf.trailing", "nothing but padding follows the last tensor", true},
    kSplit{"gguf.split", "the numbers of a split file are possible"};
constexpr std::array<const Rule*, 24> kRules{
    &kMagic,     &kVersion,  &kCount, &kCut,    &kString,    &kKey,  &kKeyText,  &kKeyTwice,
    &kValueType, &kBool,     &kArray, &kNested, &kAlignment, &kName, &kNameText, &kDims,
    &kEmpty,     &kOverflow, &kType,  &kRow,    &kOffset,    &kData, &kTrailing, &kSplit};

// A vocabulary of megabytes costs neither a read for each word nor memory.
constexpr std::size_t kWindow = std::size_t{1} << 20;

constexpr std::string_view kShortHint = "a download cut short? fetch the file again";

// One row of the table of tensors.
struct Info {
  std::string_view name;
  std::array<std::uint64_t, kGgufMaxDims> dims = {};  // innermost first, as in the file
  std::uint32_t n_dims = 0, type = 0;
  std::uint64_t offset = 0;
  std::uint64_t place = 0, dims_place = 0, type_place = 0, offset_place = 0;
  bool keep = true;

  std::uint64_t row() const noexcept { return n_dims == 0 ? 1 : dims[0]; }
};

std::optional<std::string> bad_text(std::string_view s) {
  if (const std::size_t nul = s.find('\0'); nul != s.npos)
    return fmt::format("holds a zero byte at position {}", nul);
  if (std::size_t bad = 0; !is_utf8(s, &bad))
    return fmt::format("is not UTF-8: byte {:#04x} at position {}",
                       static_cast<unsigned char>(s[bad]), bad);
  return std::nullopt;
}

// Reads in the order of the file. Functions that return bool give false when a fault was reported
// after which nothing that follows can be made sense of.
class Reader {
 public:
  Reader(const SourcePtr& source, Catalog& catalog, Diagnostics& faults)
      : source_(*source),
        in_(*source, kWindow),
        source_ptr_(source),
        catalog_(catalog),
        faults_(faults) {}

  void run() {
    catalog_.format = "gguf";
    if (!header() || !metadata() || !table()) return;
    subject_ = {};
    data();
  }

 private:
  // header
  bool header();
  bool version();
  bool counts();
  // metadata
  bool metadata();
  bool entry();
  bool value(std::uint32_t type, MetaValue& out);
  bool array(MetaValue& out);
  bool strings(std::uint64_t count);
  void bools(std::uint64_t count);
  bool alignment();
  void split();
  // tensors
  bool table();
  bool info(Info& out);
  bool name(Info& out);
  bool dims(Info& out);
  void judge(const Info& i);
  std::optional<DType> type_of_tensor(const Info& i);
  std::optional<std::uint64_t> bytes_of(const Info& i, DType type, ShapeView shape);
  bool offset_fits(const Info& i, std::optional<std::uint64_t> bytes);
  void data();
  void trailing(std::uint64_t end);

  // fields
  template <class T>
  bool get(T& out, std::string_view what) {
    if (!there(sizeof(T), what)) return false;
    out = in_.number<T>(big_);
    return true;
  }
  bool there(std::uint64_t n, std::string_view what);
  bool get_length(std::uint64_t& out, std::string_view what);  // u32 in version 1, else u64
  bool get_string_length(std::uint64_t& out, std::string_view what);
  template <class T>
  bool scalar(MetaValue& out) {
    T v{};
    if (!get(v, "its value")) return false;
    out = v;
    return true;
  }
  std::uint64_t length_bytes() const noexcept { return version_ == 1 ? 4 : 8; }

  void report(const Rule& rule, std::uint64_t place, std::string text, std::string hint = {}) {
    faults_.report(rule, where(), place, std::move(text), std::move(hint));
  }
  Place where() const;

  const Source& source_;
  Cursor in_;
  SourcePtr source_ptr_;
  Catalog& catalog_;
  Diagnostics& faults_;

  std::uint32_t version_ = 0;
  bool big_ = false;
  std::uint64_t n_tensors_ = 0, n_keys_ = 0;
  std::uint64_t alignment_ = kGgufAlignment, alignment_place_ = 0, split_place_ = 0;
  Arena key_texts_;
  std::unordered_set<std::string_view, TextHash> keys_;

  struct Pending {
    TensorEntry entry;  // offset still from the start of the data
    std::uint64_t place;
  };
  std::vector<Pending> pending_;
  // Where the next tensor must begin; unknown after one whose size is. The same as llama-quantize
  // counts it, which pads to 32 whatever general.alignment says.
  std::optional<std::uint64_t> next_ = 0;
  std::uint64_t next_by_32_ = 0;

  struct Subject {
    std::string_view kind;  // "key", "tensor"; empty: the file
    std::uint64_t number = 0, of = 0;
    std::string_view name;
  } subject_;
};

Place Reader::where() const {
  const Subject& s = subject_;
  if (s.kind.empty()) return source_.name();
  if (!s.name.empty()) return {source_.name(), std::string(s.kind), s.name};
  return {source_.name(), fmt::format("{} {} of {}", s.kind, s.number, s.of)};
}

bool Reader::there(std::uint64_t n, std::string_view what) {
  if (n <= in_.left()) return true;
  report(kCut, in_.at(),
         fmt::format("the file ends inside {}: {} bytes wanted at {}, {} left", what, n, in_.at(),
                     in_.left()),
         std::string(kShortHint));
  return false;
}

bool Reader::get_length(std::uint64_t& out, std::string_view what) {
  if (version_ > 1) return get(out, what);
  std::uint32_t narrow = 0;
  if (!get(narrow, what)) return false;
  out = narrow;
  return true;
}

bool Reader::get_string_length(std::uint64_t& out, std::string_view what) {
  const std::uint64_t place = in_.at();
  if (!get_length(out, fmt::format("{}'s length", what))) return false;
  if (out <= in_.left() && out <= kGgufMaxString) return true;
  report(kString, place,
         out > in_.left()
             ? fmt::format("{} has {} bytes but the file ends after {}", what, out, in_.left())
             : fmt::format("{} has {} bytes, the format allows {}", what, out, kGgufMaxString),
         out > in_.left() ? std::string(kShortHint) : "");
  return false;
}

// ---- header

bool Reader::header() {
  if (!there(4, "the magic number")) return false;
  if (const std::string magic(as_text(in_.take(4))); magic != "GGUF") {
    report(kMagic, 0, fmt::format("begins with {}, not with 'GGUF'", quoted(magic)));
    return false;
  }
  return version() && counts();
}

bool Reader::version() {
  std::uint32_t raw = 0;
  if (!get(raw, "the version")) return false;
  const std::uint32_t swapped = byte_swapped(raw);
  big_ = raw > 0xFFFF && swapped <= 0xFFFF;
  version_ = big_ ? swapped : raw;
  if (version_ >= (big_ ? 3u : 1u) && version_ <= kGgufVersion) return true;
  if (big_)
    report(kVersion, 4,
           fmt::format("big-endian version {}, but only version 3 may be big-endian", version_));
  else
    report(kVersion, 4, fmt::format("version {}, but versions 1 to 3 are known", version_));
  return false;
}

bool Reader::counts() {
  if (!get_length(n_tensors_, "the number of tensors")) return false;
  const std::uint64_t keys_place = in_.at();
  if (!get_length(n_keys_, "the number of keys")) return false;
  // The least that a row takes: a name's length, dimensions, type, offset; a key's length, type,
  // one byte of value.
  const std::uint64_t tensor_row = length_bytes() + 16, key_row = length_bytes() + 5;
  const auto too_many = [&](std::string_view what, std::uint64_t n, std::uint64_t each,
                            std::uint64_t limit, std::uint64_t place) {
    if (n > in_.left() / each)
      report(kCount, place,
             fmt::format("{} {} take at least {} bytes each, but {} are left", n, what, each,
                         in_.left()));
    else if (n > limit)
      report(kCount, place, fmt::format("{} {}, wtool's limit is {}", n, what, limit));
    else
      return false;
    return true;
  };
  return !too_many("tensors", n_tensors_, tensor_row, Catalog::kMaxTensors, 8) &&
         !too_many("keys", n_keys_, key_row, kGgufMaxKeys, keys_place);
}

// ---- metadata

bool Reader::metadata() {
  for (std::uint64_t i = 0; i < n_keys_; ++i) {
    subject_ = {"key", i + 1, n_keys_, {}};
    if (!entry()) return false;
  }
  subject_ = {};
  split();
  return alignment();
}

bool Reader::entry() {
  const std::uint64_t place = in_.at();
  std::uint64_t size = 0;
  if (!get_string_length(size, "the key")) return false;
  std::string key = in_.text(size);
  if (key.empty()) report(kKey, place, "the key is empty");
  if (key.size() > kGgufMaxKey)
    report(kKeyText, place,
           fmt::format("the key has {} bytes, the format allows {}", key.size(), kGgufMaxKey));
  subject_.name = key;
  if (const auto why = bad_text(key)) report(kKeyText, place, "the key " + *why);
  bool keep = !key.empty();
  if (keep && !keys_.insert(key_texts_.text(key)).second) {
    report(kKeyTwice, place, "the key appears twice");
    keep = false;
  }
  std::uint32_t type = 0;
  if (!get(type, "its type")) return false;
  if (key == kGgufAlignmentKey) alignment_place_ = in_.at();
  if (key == kGgufSplitNo) split_place_ = in_.at();
  MetaValue v;
  if (!value(type, v)) return false;
  if (keep) catalog_.meta.append(std::move(key), std::move(v));
  return true;
}

bool Reader::value(std::uint32_t type, MetaValue& out) {
  if (type >= kMetaTypes) {
    report(kValueType, in_.at() - 4, fmt::format("value type {}, but types 0 to 12 exist", type));
    return false;
  }
  switch (static_cast<MetaType>(type)) {
    case MetaType::U8: return scalar<std::uint8_t>(out);
    case MetaType::I8: return scalar<std::int8_t>(out);
    case MetaType::U16: return scalar<std::uint16_t>(out);
    case MetaType::I16: return scalar<std::int16_t>(out);
    case MetaType::U32: return scalar<std::uint32_t>(out);
    case MetaType::I32: return scalar<std::int32_t>(out);
    case MetaType::F32: return scalar<float>(out);
    case MetaType::U64: return scalar<std::uint64_t>(out);
    case MetaType::I64: return scalar<std::int64_t>(out);
    case MetaType::F64: return scalar<double>(out);
    case MetaType::Array: return array(out);
    case MetaType::Bool: {
      std::uint8_t v = 0;
      if (!get(v, "its value")) return false;
      if (v > 1) report(kBool, in_.at() - 1, fmt::format("a bool is {}, not 0 or 1", v));
      out = v != 0;
      return true;
    }
    case MetaType::String: {
      std::uint64_t size = 0;
      if (!get_string_length(size, "its value")) return false;
      out = in_.text(size);
      return true;
    }
  }
  return false;
}

bool Reader::array(MetaValue& out) {
  const std::uint64_t place = in_.at();
  std::uint32_t of = 0;
  if (!get(of, "the array's type")) return false;
  if (of >= kMetaTypes) {
    report(kArray, place, fmt::format("array of type {}, but types 0 to 12 exist", of));
    return false;
  }
  MetaArray a{static_cast<MetaType>(of),
              0,
              {source_ptr_, 0, 0},
              big_,
              static_cast<std::uint8_t>(length_bytes())};
  if (a.of == MetaType::Array) {
    report(kNested, place, "an array of arrays, which llama.cpp does not read either");
    return false;
  }
  if (!get_length(a.count, "the array's length")) return false;
  const std::uint64_t each = a.of == MetaType::String ? length_bytes() : size_of(a.of);
  if (a.count > in_.left() / each || a.count > kGgufMaxArray) {
    const bool cut = a.count > in_.left() / each;
    report(kArray, place + 4,
           cut ? fmt::format("{} elements take at least {} bytes each, but {} are left", a.count,
                             each, in_.left())
               : fmt::format("{} elements, the format allows {}", a.count, kGgufMaxArray));
    return false;
  }
  a.data.offset = in_.at();
  if (a.of == MetaType::String) {
    if (!strings(a.count)) return false;
  } else if (a.of == MetaType::Bool) {
    bools(a.count);
  } else {
    in_.skip(a.count * each);
  }
  a.data.bytes = in_.at() - a.data.offset;
  out = std::move(a);
  return true;
}

// Walks over them without keeping any: whoever wants one later finds it in bounds.
bool Reader::strings(std::uint64_t count) {
  const std::uint64_t each = length_bytes();
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t size = 0;
    if (each <= in_.left()) {
      size = each == 4 ? in_.number<std::uint32_t>(big_) : in_.number<std::uint64_t>(big_);
      if (size <= in_.left() && size <= kGgufMaxString) {
        in_.skip(size);
        continue;
      }
    }
    if (!there(each, fmt::format("element {} of {}", i, count))) return false;
    report(kString, in_.at() - each,
           fmt::format("element {} of {} has {} bytes but the file ends after {}", i, count, size,
                       in_.left()));
    return false;
  }
  return true;
}

void Reader::bools(std::uint64_t count) {
  bool told = false;
  while (count > 0) {
    const std::uint64_t place = in_.at();
    const Bytes piece = in_.take(static_cast<std::size_t>(std::min<std::uint64_t>(count, kWindow)));
    count -= piece.size();
    const auto bad = std::ranges::find_if(piece, [](std::byte b) { return b > std::byte{1}; });
    if (told || bad == piece.end()) continue;
    told = true;
    report(kBool, place + static_cast<std::uint64_t>(bad - piece.begin()),
           fmt::format("a bool in the array is {}, not 0 or 1", static_cast<unsigned>(*bad)));
  }
}

bool Reader::alignment() {
  const MetaValue* v = catalog_.meta.find(kGgufAlignmentKey);
  if (!v) return true;
  if (const auto why = bad_gguf_alignment(*v)) {
    subject_ = {"key", 0, 0, kGgufAlignmentKey};
    report(kAlignment, alignment_place_, *why);
    return false;
  }
  alignment_ = std::get<std::uint32_t>(*v);
  return true;
}

// What one part of a set can show; place() and whole_meta() see to the rest.
void Reader::split() {
  const auto no = catalog_.meta.count(kGgufSplitNo), count = catalog_.meta.count(kGgufSplitCount);
  if (no && count && *no >= *count)
    report(kSplit, split_place_,
           fmt::format("{} is {} (counted from 0) but {} is {}", kGgufSplitNo, *no, kGgufSplitCount,
                       *count));
  const MetaValue* total = catalog_.meta.find(kGgufSplitTensors);
  if (total && !catalog_.meta.count(kGgufSplitTensors))
    report(kSplit, split_place_,
           fmt::format("{} is {}, not a number of tensors", kGgufSplitTensors, to_text(*total)));
}

// ---- tensors

bool Reader::table() {
  pending_.reserve(static_cast<std::size_t>(n_tensors_));
  for (std::uint64_t i = 0; i < n_tensors_; ++i) {
    subject_ = {"tensor", i + 1, n_tensors_, {}};
    Info row;
    if (!info(row)) return false;
    judge(row);
  }
  return true;
}

bool Reader::info(Info& out) {
  out.place = in_.at();
  if (!name(out) || !dims(out)) return false;
  out.type_place = in_.at();
  if (!get(out.type, "its type")) return false;
  out.offset_place = in_.at();
  return get(out.offset, "its offset");
}

bool Reader::name(Info& out) {
  std::uint64_t size = 0;
  if (!get_string_length(size, "the name")) return false;
  if (size > kGgufMaxName) {
    const std::string start = in_.text(std::min<std::uint64_t>(size, 4 * kGgufMaxName));
    in_.skip(size - start.size());
    report(kName, out.place,
           fmt::format("the name {} has {} bytes, the format allows {}", quoted(start), size,
                       kGgufMaxName));
    out.keep = false;
    return true;
  }
  out.name = catalog_.arena().text(as_text(in_.take(static_cast<std::size_t>(size))));
  subject_.name = out.name;
  if (out.name.empty()) report(kNameText, out.place, "the name is empty");
  if (const auto why = bad_text(out.name)) report(kNameText, out.place, "the name " + *why);
  return true;
}

bool Reader::dims(Info& out) {
  out.dims_place = in_.at();
  if (!get(out.n_dims, "its number of dimensions")) return false;
  if (out.n_dims > kGgufMaxDims) {
    report(kDims, out.dims_place,
           fmt::format("{} dimensions, the format allows {}", out.n_dims, kGgufMaxDims));
    const std::uint64_t size = out.n_dims * length_bytes();
    if (!there(size, "its dimensions")) return false;
    in_.skip(size);
    out.keep = false;
    return true;
  }
  for (std::uint32_t d = 0; d < out.n_dims; ++d)
    if (!get_length(out.dims[d], "its dimensions")) return false;
  return true;
}

// Puts a row that is sound into the catalog's waiting line.
void Reader::judge(const Info& i) {
  std::optional<DType> type;
  std::optional<std::uint64_t> bytes;
  std::span<std::uint64_t> shape;
  if (i.keep) {
    shape = catalog_.arena().take<std::uint64_t>(i.n_dims);
    std::reverse_copy(i.dims.begin(), i.dims.begin() + i.n_dims, shape.begin());
    type = type_of_tensor(i);
    if (type) bytes = bytes_of(i, *type, shape);
  }
  if (!offset_fits(i, bytes) || !bytes)
    return faults_.lose(source_.name(), i.name, bytes.value_or(0), 0);
  TensorEntry t;
  t.name = i.name;
  t.shape = shape;
  t.offset = i.offset;
  t.bytes = *bytes;
  t.dtype = *type;
  t.big_endian = big_;
  pending_.push_back({t, i.place});
}

std::optional<DType> Reader::type_of_tensor(const Info& i) {
  const auto* known = std::ranges::find(kGgmlTypes, i.type, &GgmlType::id);
  if (known != kGgmlTypes.end()) return known->dtype;
  const auto* removed = std::ranges::find(kRemovedGgmlTypes, i.type, &RemovedGgmlType::id);
  if (removed != kRemovedGgmlTypes.end())
    report(kType, i.type_place,
           fmt::format("type {} ({}) was removed from ggml", i.type, removed->name),
           removed->instead.empty()
               ? "make the file again from the original weights"
               : fmt::format("take a {} file: llama.cpp rearranges it when it loads",
                             removed->instead));
  else
    report(
        kType, i.type_place,
        fmt::format("type {} is unknown, the last known one is {}", i.type, kGgmlTypes.back().id));
  return std::nullopt;
}

std::optional<std::uint64_t> Reader::bytes_of(const Info& i, DType type, ShapeView shape) {
  const DTypeInfo& t = wtool::info(type);
  if (std::ranges::find(shape, 0u) != shape.end())
    report(kEmpty, i.dims_place, fmt::format("{} has a dimension of 0", to_text(shape)));
  if (std::ranges::any_of(shape, [](std::uint64_t d) { return d > kGgufMaxElements; })) {
    report(kDims, i.dims_place, fmt::format("{} has a dimension of 2^63 or more", to_text(shape)));
    return std::nullopt;
  }
  if (i.row() % t.block_elems != 0) {
    report(kRow, i.dims_place,
           fmt::format("{} {}: a row of {} elements is not a multiple of the block of {}", t.name,
                       to_text(shape), i.row(), t.block_elems));
    return std::nullopt;
  }
  const auto elements = element_count(shape);
  const auto bytes =
      elements && *elements <= kGgufMaxElements ? byte_size(type, *elements) : std::nullopt;
  if (!bytes)
    report(kOverflow, i.dims_place,
           fmt::format("{} {} has 2^63 elements or 2^64 bytes or more", t.name, to_text(shape)));
  return bytes;
}

// The format has no choice here: each tensor begins at the padded end of the one before.
bool Reader::offset_fits(const Info& i, std::optional<std::uint64_t> bytes) {
  const bool fits = next_ ? i.offset == *next_ : i.offset % alignment_ == 0;
  if (!fits) {
    report(
        kOffset, i.offset_place,
        next_ ? fmt::format("its offset is {}, but the tensors before it end at {} (padded to "
                            "{})",
                            i.offset, *next_, alignment_)
              : fmt::format("its offset {} is not a multiple of {}", i.offset, alignment_),
        alignment_ != kGgufAlignment && next_ && i.offset == next_by_32_
            ? fmt::format("the writer padded to 32 although {} is {}: old llama-quantize does so",
                          kGgufAlignmentKey, alignment_)
            : "");
  }
  const std::uint64_t begin = next_.value_or(i.offset);
  next_.reset();
  if (!bytes) return fits;
  const auto end = checked_add(begin, *bytes);
  const auto padded = end ? checked_add(*end, alignment_ - 1) : std::nullopt;
  if (!padded) {
    report(kOverflow, i.dims_place,
           fmt::format("{} bytes after {} reach past 2^64", *bytes, begin));
    return false;
  }
  next_ = *padded - *padded % alignment_;
  next_by_32_ += align_up(std::min(*bytes, kGgufMaxElements), kGgufAlignment);
  return fits;
}

void Reader::data() {
  const std::uint64_t begin = align_up(in_.at(), alignment_);
  std::uint64_t needed = 0;  // up to here there must be a file
  for (const Pending& p : pending_) {
    const auto end = checked_add(p.entry.offset, p.entry.bytes);
    needed = std::max(
        needed, checked_add(begin, end.value_or(~std::uint64_t{0})).value_or(~std::uint64_t{0}));
  }
  if (needed > source_.size())
    report(kData, source_.size(),
           fmt::format("the tensors end at byte {} but the file at {}: {} bytes are missing",
                       needed, source_.size(), needed - source_.size()),
           std::string(kShortHint));
  for (Pending& p : pending_) {
    TensorEntry& t = p.entry;
    t.offset = checked_add(t.offset, begin).value_or(~std::uint64_t{0});
    if (checked_add(t.offset, t.bytes).value_or(~std::uint64_t{0}) <= source_.size())
      catalog_.add(t, p.place, faults_);
    else  // part of the one fault above
      faults_.lose(source_.name(), t.name, t.bytes,
                   t.offset < source_.size() ? source_.size() - t.offset : 0);
  }
  if (next_)
    if (const auto end = checked_add(begin, *next_)) trailing(*end);
}

// Nothing may follow but zeros up to some page size, which writers leave that map their output.
void Reader::trailing(std::uint64_t end) {
  constexpr std::uint64_t kPage = 1u << 16;
  if (source_.size() <= end) return;
  const std::uint64_t more = source_.size() - end;
  Buffer rest(static_cast<std::size_t>(std::min(more, kPage)));
  source_.read(end, rest);
  const auto first = std::ranges::find_if(rest, [](std::byte b) { return b != std::byte{0}; });
  if (more <= kPage && first == rest.end()) return;
  report(kTrailing, end, fmt::format("{} bytes follow the last tensor, at {}", more, end));
}

// ---- the format

bool detect(const Source& source) {
  std::array<std::byte, 4> magic{};
  if (source.size() < magic.size()) return false;
  source.read(0, magic);
  return as_text(magic) == "GGUF";
}

void read(const SourcePtr& source, Catalog& catalog, Diagnostics& faults) {
  Reader(source, catalog, faults).run();
}

constexpr std::array<std::string_view, 1> kSuffixes{".gguf"};

}  // namespace

std::optional<std::string> bad_gguf_alignment(const MetaValue& value) {
  const auto* n = std::get_if<std::uint32_t>(&value);
  if (!n) return fmt::format("is {} of type {}, not u32", to_text(value), name_of(type_of(value)));
  if (!std::has_single_bit(*n)) return fmt::format("{} is not a power of two", *n);
  if (*n > kGgufMaxAlignment)
    return fmt::format("{} bytes, wtool's limit is {}", *n, kGgufMaxAlignment);
  return std::nullopt;
}

const Format kGguf{
    .name = "gguf",
    .summary = "llama.cpp's format: weights, typed metadata, block types",
    .suffixes = kSuffixes,
    .rules = kRules,
    .detect = detect,
    .read = read,
    .place = gguf_place,
    .review = review_gguf,
    .review_rules = gguf_review_rules(),
    .refuses = gguf_refuses,
    .refuses_meta = gguf_refuses_meta,
    .layout = gguf_layout,
    .shard_name = gguf_shard_name,
    .shard_meta = gguf_shard_meta,
    .whole_meta = gguf_whole_meta,
};

}  // namespace wtool
