// The importance matrix of llama-imatrix before it wrote GGUF, "imatrix.dat": number of entries;
// for each its name's length, name, calls, number of values, values (f32, the mean square of a
// column's activations times the calls); then, not always, the number of chunks, the length of the
// dataset's name and that name. All numbers are i32, little-endian. There is no magic number.
//
// An entry is shown as the GGUF form has it, 'NAME.in_sum2' and 'NAME.counts'; a count is a call,
// so the chunk size is 1. The count keeps its own type, i32: it is what the file holds.
#include "formats/imatrix.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <unordered_map>

#include <fmt/format.h>

#include "formats/cursor.h"
#include "formats/registry.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/codec.h"

namespace wtool {
namespace {

constexpr Rule kEntries{"imatrix.entries", "so many entries can lie in the file"},
    kCut{"imatrix.truncated", "the file is all there"},
    kName{"imatrix.name", "names of entries lie in the file"},
    kNameText{"imatrix.name-text", "names of entries are text", true},
    kCalls{"imatrix.calls", "entries count their calls", true},
    kValues{"imatrix.values", "values of entries lie in the file"},
    kChunks{"imatrix.chunks", "the number of chunks is not negative", true},
    kDataset{"imatrix.dataset", "the name of the data lies in the file"},
    kTrailing{"imatrix.trailing-bytes", "nothing follows the name of the data", true};
constexpr Rule kFinite{"imatrix.finite", "importance values are finite and not negative"};
constexpr std::array<const Rule*, 1> kReviewRules{&kFinite};
constexpr std::array<const Rule*, 9> kRules{&kEntries, &kCut,    &kName,    &kNameText, &kCalls,
                                            &kValues,  &kChunks, &kDataset, &kTrailing};

constexpr std::uint64_t kNumber = 4, kEntryHead = 3 * kNumber;  // length, calls, values
constexpr std::uint64_t kLeastEntry = kEntryHead + 1 + sizeof(float);
constexpr std::uint64_t kMaxEntries = Catalog::kMaxTensors / 2;
constexpr std::uint64_t kMaxName = 1024;  // ours; llama.cpp's own names have at most 63 bytes
constexpr std::uint64_t kMaxDataset = std::uint64_t{1} << 16;  // ours; it is a path
constexpr std::uint64_t kMaxI32 = std::numeric_limits<std::int32_t>::max();

// ---- reading

constexpr std::size_t kWindow = 4096;  // any entry's head; the sums are skipped

std::optional<std::string> bad_text(std::string_view s) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == '\x7f'; };
  if (const auto it = std::ranges::find_if(s, control); it != s.end())
    return fmt::format("holds the control character {:#04x} at position {}",
                       static_cast<unsigned>(*it), it - s.begin());
  if (std::size_t bad = 0; !is_utf8(s, &bad))
    return fmt::format("is not UTF-8: byte {:#04x} at position {}",
                       static_cast<unsigned char>(s[bad]), bad);
  return std::nullopt;
}

bool in_range(std::int64_t n, std::uint64_t most) noexcept {
  return n >= 1 && static_cast<std::uint64_t>(n) <= most;
}

// Without a magic number only the structure can tell: so the first entries must be whole and have
// names of printable text. A safetensors header of less than 4 GiB reads as an empty name.
bool detect(const Source& source) {
  constexpr std::int32_t kLooked = 4;
  Cursor in(source, kWindow);
  if (in.left() < kNumber + kLeastEntry) return false;
  const std::int32_t entries = in.number<std::int32_t>();
  if (!in_range(entries, std::min(kMaxEntries, in.left() / kLeastEntry))) return false;
  for (std::int32_t i = 0; i < std::min(entries, kLooked); ++i) {
    if (i > 0 && in.left() < kEntryHead) return true;  // cut short; read() says so
    const std::int64_t length = in.number<std::int32_t>();
    if (!in_range(length, kMaxName)) return false;
    if (static_cast<std::uint64_t>(length) + 2 * kNumber > in.left()) return i > 0;
    if (bad_text(in.text(static_cast<std::uint64_t>(length)))) return false;
    in.skip(kNumber);
    const std::int64_t values = in.number<std::int32_t>();
    if (!in_range(values, kMaxI32)) return false;
    if (static_cast<std::uint64_t>(values) > in.left() / sizeof(float)) return i > 0;
    in.skip(static_cast<std::uint64_t>(values) * sizeof(float));
  }
  return true;
}

// Functions that return bool give false when what follows cannot be made sense of.
class Reader {
 public:
  Reader(const SourcePtr& source, Catalog& catalog, Diagnostics& faults)
      : name_(source->name()), in_(*source, kWindow), catalog_(catalog), faults_(faults) {}

  void run() {
    catalog_.format = "imatrix";
    catalog_.meta.set("general.type", std::string(kImatrixType));
    std::int64_t entries = 0;
    if (!get(entries, "the number of entries")) return;
    if (!in_range(entries, std::min(kMaxEntries, in_.left() / kLeastEntry)))
      return report(kEntries, 0,
                    entries > 0 && static_cast<std::uint64_t>(entries) > kMaxEntries
                        ? fmt::format("{} entries, wtool's limit is {}", entries, kMaxEntries)
                        : fmt::format("{} entries in {} bytes", entries, in_.left()));
    for (number_ = 1; number_ <= entries; ++number_)
      if (!entry()) return;
    number_ = 0;
    tail();
  }

 private:
  bool entry();
  void add(std::string_view weight, std::int64_t calls, std::uint64_t calls_place,
           std::uint64_t values);
  void tail();
  std::optional<std::string> dataset();

  void report(const Rule& rule, std::uint64_t place, std::string text) {
    Place where(name_);
    if (!weight_.empty())
      where = {name_, "entry", weight_};
    else if (number_ != 0)
      where = {name_, fmt::format("entry {}", number_)};
    faults_.report(rule, std::move(where), place, std::move(text));
  }
  bool get(std::int64_t& out, std::string_view what) {
    if (in_.left() < kNumber) {
      report(kCut, in_.at(),
             fmt::format("the file ends inside {}: {} bytes wanted at {}, {} left", what, kNumber,
                         in_.at(), in_.left()));
      return false;
    }
    out = in_.number<std::int32_t>();
    return true;
  }

  const std::string& name_;
  Cursor in_;
  Catalog& catalog_;
  Diagnostics& faults_;
  std::int64_t number_ = 0;  // of the entry at hand, from 1
  std::string weight_;
};

bool Reader::entry() {
  weight_.clear();
  const std::uint64_t place = in_.at();
  std::int64_t length = 0, calls = 0, values = 0;
  if (!get(length, "the length of a name")) return false;
  if (!in_range(length, std::min(kMaxName, in_.left()))) {
    report(kName, place,
           fmt::format("the name has {} bytes; {} are left, wtool's limit is {}", length,
                       in_.left(), kMaxName));
    return false;
  }
  weight_ = in_.text(static_cast<std::uint64_t>(length));
  if (const auto why = bad_text(weight_)) report(kNameText, place, "the name " + *why);
  const std::uint64_t calls_place = in_.at();
  if (!get(calls, "the number of calls") || !get(values, "the number of values")) return false;
  if (!in_range(values, in_.left() / sizeof(float))) {
    report(kValues, in_.at() - kNumber,
           fmt::format("{} values of {} bytes, but {} bytes are left", values, sizeof(float),
                       in_.left()));
    return false;
  }
  add(weight_, calls, calls_place, static_cast<std::uint64_t>(values));
  in_.skip(static_cast<std::uint64_t>(values) * sizeof(float));
  return true;
}

// llama.cpp takes the values of an entry without calls as they are; no writer makes such entries.
void Reader::add(std::string_view weight, std::int64_t calls, std::uint64_t calls_place,
                 std::uint64_t values) {
  if (calls < 1)
    return report(kCalls, calls_place, fmt::format("{} calls, but there must be one", calls));
  Arena& arena = catalog_.arena();
  const std::uint64_t one = 1;
  catalog_.add({.name = arena.text(std::string(weight).append(kSumsSuffix)),
                .shape = arena.copy(ShapeView(&values, 1)),
                .offset = in_.at(),
                .bytes = values * sizeof(float),
                .source = 0,
                .dtype = DType::F32},
               in_.at(), faults_);
  catalog_.add({.name = arena.text(std::string(weight).append(kCountsSuffix)),
                .shape = arena.copy(ShapeView(&one, 1)),
                .offset = calls_place,
                .bytes = kNumber,
                .source = 0,
                .dtype = DType::I32},
               calls_place, faults_);
}

// Old files end with the entries. Without these keys llama-quantize refuses the GGUF form, so they
// are always there; 0 chunks is what it takes their absence for.
void Reader::tail() {
  weight_.clear();
  std::int64_t chunks = 0;
  const std::uint64_t place = in_.at();
  if (in_.left() > 0 && !get(chunks, "the number of chunks")) return;
  if (chunks < 0) {
    report(kChunks, place, fmt::format("{} chunks", chunks));
    chunks = 0;
  }
  std::vector<MetaValue> names;
  if (auto name = dataset()) names.emplace_back(std::move(*name));
  catalog_.meta.set(kImatrixDatasets, array_of(MetaType::String, names));
  catalog_.meta.set(kImatrixChunkCount, static_cast<std::uint32_t>(chunks));
  catalog_.meta.set(kImatrixChunkSize, std::uint32_t{1});
  if (in_.left() > 0)
    report(kTrailing, in_.at(), fmt::format("{} bytes follow the end", in_.left()));
}

std::optional<std::string> Reader::dataset() {
  if (in_.left() == 0) return std::nullopt;
  std::int64_t length = 0;
  const std::uint64_t place = in_.at();
  if (!get(length, "the length of the dataset's name") || length == 0) return std::nullopt;
  if (!in_range(length, std::min(in_.left(), kMaxDataset))) {
    report(kDataset, place,
           fmt::format("the dataset's name has {} bytes; {} are left, wtool's limit is {}", length,
                       in_.left(), kMaxDataset));
    in_.skip(in_.left());
    return std::nullopt;
  }
  return in_.text(static_cast<std::uint64_t>(length));
}

void read(const SourcePtr& source, Catalog& catalog, Diagnostics& faults) {
  Reader(source, catalog, faults).run();
}

// ---- writing

std::optional<std::string_view> weight_of(std::string_view name, std::string_view suffix) {
  if (name.size() <= suffix.size() || !name.ends_with(suffix)) return std::nullopt;
  return name.substr(0, name.size() - suffix.size());
}

std::optional<std::string> refuses(const OutTensor& t) {
  const auto sums = weight_of(t.name, kSumsSuffix), counts = weight_of(t.name, kCountsSuffix);
  if (!sums && !counts)
    return fmt::format("an importance matrix in .dat form has only '{}' and '{}'", kSumsSuffix,
                       kCountsSuffix);
  const std::string_view weight = sums ? *sums : *counts;
  if (weight.size() > kMaxName)
    return fmt::format("the name has {} bytes, at most {} are read", weight.size(), kMaxName);
  if (const auto why = bad_text(weight)) return "the name " + *why;
  const DType wanted = sums ? DType::F32 : DType::I32;
  const auto n = element_count(t.shape);
  if (t.dtype != wanted || t.big_endian || (counts && n != 1))
    return fmt::format("{} {} is not {}, little-endian", name_of(t.dtype), to_text(t.shape),
                       sums ? "f32" : "one i32");
  if (!n || *n == 0 || *n > kMaxI32)
    return fmt::format("{} has not 1 to {} values", to_text(t.shape), kMaxI32);
  return std::nullopt;
}

// The last one, as llama-imatrix keeps it.
std::string dataset_of(const Metadata& meta) {
  const MetaValue* value = meta.find(kImatrixDatasets);
  const auto* names = value ? std::get_if<MetaArray>(value) : nullptr;
  std::string last;
  if (names && names->of == MetaType::String)
    for_each(*names, [&](const MetaValue& name) {
      last = std::get<std::string>(name);
      return true;
    });
  return last;
}

std::optional<std::string> refuses_meta(const Metadata& meta) {
  for (const auto& [key, value] : meta) {
    if (key == kImatrixChunkSize || key == kImatrixDatasets) continue;
    if (key == "general.type" && to_text(value) == kImatrixType) continue;
    if (key == kImatrixChunkCount) {
      const auto n = meta.count(key);
      if (n && *n <= kMaxI32) continue;
      return fmt::format("{} is {}, not 0 to {}", key, to_text(value), kMaxI32);
    }
    return fmt::format("the .dat form has no place for key {}", quoted(key));
  }
  if (const std::string name = dataset_of(meta); name.size() > kMaxDataset)
    return fmt::format("the dataset's name has {} bytes, at most {} are read", name.size(),
                       kMaxDataset);
  return std::nullopt;
}

void append_i32(Buffer& to, std::uint64_t n) {
  append(to, static_cast<std::int32_t>(n));
}

// The entries in the order of their sums; what names and numbers lie among the data are pieces.
Layout layout(const Metadata& meta, std::span<const OutTensor> tensors) {
  std::unordered_map<std::string_view, std::size_t> counts;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (const auto weight = weight_of(tensors[i].name, kCountsSuffix)) counts.emplace(*weight, i);
  const auto unpaired = [](std::string_view name) {
    return Error(Fault::Usage,
                 fmt::format("an entry has one '{}' and one '{}'", kSumsSuffix, kCountsSuffix))
        .in(fmt::format("tensor {}", quoted(name)));
  };
  if (tensors.size() != 2 * counts.size() || counts.empty() || counts.size() > kMaxEntries)
    throw Error(Fault::Usage, fmt::format("{} tensors with {} counts are no importance matrix of 1 "
                                          "to {} entries",
                                          tensors.size(), counts.size(), kMaxEntries));
  Layout out;
  append_i32(out.head, counts.size());
  out.offsets.resize(tensors.size());
  out.total_bytes = out.head.size();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto weight = weight_of(tensors[i].name, kSumsSuffix);
    if (!weight) continue;
    const auto its = counts.find(*weight);
    if (its == counts.end()) throw unpaired(tensors[i].name);
    Layout::Piece name{out.total_bytes, {}}, values;
    append_i32(name.bytes, weight->size());
    append(name.bytes, as_bytes(*weight));
    out.offsets[its->second] = name.offset + name.bytes.size();
    values.offset = out.offsets[its->second] + kNumber;
    append_i32(values.bytes, tensors[i].bytes() / sizeof(float));
    out.offsets[i] = values.offset + kNumber;
    out.total_bytes = out.offsets[i] + tensors[i].bytes();
    out.pieces.push_back(std::move(name));
    out.pieces.push_back(std::move(values));
  }
  Layout::Piece tail{out.total_bytes, {}};
  append_i32(tail.bytes, meta.count(kImatrixChunkCount).value_or(0));
  const std::string dataset = dataset_of(meta);
  append_i32(tail.bytes, dataset.size());
  append(tail.bytes, as_bytes(dataset));
  out.total_bytes += tail.bytes.size();
  out.pieces.push_back(std::move(tail));
  return out;
}

// The float x nearest to q * calls for which x / calls is q again, else just the nearest. With more
// than one call every q of half a binade may have none; then x / calls is q's neighbour.
float times_calls(float q, float calls) {
  const auto x = static_cast<float>(static_cast<double>(q) * static_cast<double>(calls));
  if (x / calls == q) return x;
  for (const float towards : {0.0f, std::numeric_limits<float>::infinity()})
    if (const float y = std::nextafter(x, towards); y / calls == q) return y;
  return x;
}

class SumsStep final : public Step {
 public:
  SumsStep(std::string name, std::shared_ptr<const Importance> from, const Importance::Entry& entry,
           std::int32_t calls)
      : Step({{std::move(name), DType::F32, {entry.values}}}),
        from_(std::move(from)),
        entry_(entry),
        calls_(static_cast<float>(calls)),
        as_they_are_(entry.counts.size() == 1 && entry.counts[0] == calls_) {}

  std::uint64_t units() const override { return ceil_div(entry_.values, kUnit); }
  void spans(std::uint64_t unit, std::vector<Span>& add_to) const override {
    add_to.push_back({0, unit * kUnit * sizeof(float), values_in(unit) * sizeof(float)});
  }
  void run(const Unit& unit) const override {
    const std::uint64_t first = unit.index * kUnit;
    Scratch::Frame frame(unit.scratch);
    const auto values = frame.take<float>(static_cast<std::size_t>(values_in(unit.index)));
    if (as_they_are_) {
      from_->read_sums(entry_, first, values);
    } else {
      from_->read(entry_, first, values);
      for (float& v : values) v = times_calls(v, calls_);
      const auto it = std::ranges::find_if(values, [](float v) { return !std::isfinite(v); });
      if (it != values.end())
        throw Error(Fault::BadFile,
                    fmt::format("value {} times {} calls does not fit f32",
                                first + static_cast<std::uint64_t>(it - values.begin()), calls_))
            .in(fmt::format("importance of {}", quoted(entry_.name)));
    }
    std::ranges::copy(std::as_bytes(values), unit.out[0].begin());
  }

 private:
  static constexpr std::uint64_t kUnit = std::uint64_t{1} << 18;
  std::uint64_t values_in(std::uint64_t unit) const {
    return std::min(kUnit, entry_.values - unit * kUnit);
  }

  std::shared_ptr<const Importance> from_;
  const Importance::Entry& entry_;  // of from_
  float calls_;
  bool as_they_are_;
};

class CountsStep final : public Step {
 public:
  CountsStep(std::string name, std::int32_t calls)
      : Step({{std::move(name), DType::I32, {1}}}), calls_(calls) {}

  std::uint64_t units() const override { return 1; }
  void spans(std::uint64_t, std::vector<Span>& add_to) const override {
    add_to.push_back({0, 0, kNumber});
  }
  void run(const Unit& unit) const override { store(unit.out[0], calls_); }

 private:
  std::int32_t calls_;
};

// The first of each tensor's values that cannot be an importance.
void review(const Catalog& catalog, bool deep, Diagnostics& faults) {
  constexpr std::uint64_t kPiece = 1u << 18;
  Buffer piece;
  for (const TensorEntry& t : catalog.entries()) {
    if (!deep || t.dtype != DType::F32) continue;
    const SourcePtr& file = catalog.sources()[t.source];
    for (std::uint64_t at = 0; at < t.bytes; at += piece.size()) {
      piece.resize(static_cast<std::size_t>(std::min(kPiece, t.bytes - at)));
      file->read(t.offset + at, piece);
      std::size_t i = 0;
      const std::size_t n = piece.size() / sizeof(float);
      while (i < n && load<float>(piece, i) >= 0 && std::isfinite(load<float>(piece, i))) ++i;
      if (i == n) continue;
      const std::uint64_t bad = at + i * sizeof(float);
      faults.report(kFinite, {file->name(), "tensor", t.name}, t.offset + bad,
                    fmt::format("value {} is {}", bad / sizeof(float), load<float>(piece, i)),
                    "make the matrix again: such values spoil what is quantized with them");
      break;
    }
  }
}

constexpr std::array<std::string_view, 2> kSuffixes{".dat", ".imatrix"};

}  // namespace

std::int32_t imatrix_calls(const Importance::Entry& entry, std::uint64_t chunk_size) {
  const auto most = static_cast<std::uint64_t>(std::ranges::max(entry.counts));
  const std::uint64_t calls =
      std::max<std::uint64_t>(1, ceil_div(most, std::max<std::uint64_t>(1, chunk_size)));
  if (calls <= kMaxI32) return static_cast<std::int32_t>(calls);
  throw Error(Fault::BadFile, fmt::format("{} calls; the .dat form counts to {}", calls, kMaxI32))
      .in(fmt::format("importance of {}", quoted(entry.name)));
}

std::unique_ptr<Step> imatrix_sums_step(std::string name, std::shared_ptr<const Importance> from,
                                        const Importance::Entry& entry, std::int32_t calls) {
  return std::make_unique<SumsStep>(std::move(name), std::move(from), entry, calls);
}
std::unique_ptr<Step> imatrix_counts_step(std::string name, std::int32_t calls) {
  return std::make_unique<CountsStep>(std::move(name), calls);
}

const Format kImatrixDat{.name = "imatrix",
                         .summary = "llama.cpp's importance matrix in its older form, imatrix.dat",
                         .suffixes = kSuffixes,
                         .companion = true,
                         .rules = kRules,
                         .detect = detect,
                         .read = read,
                         .review = review,
                         .review_rules = kReviewRules,
                         .refuses = refuses,
                         .refuses_meta = refuses_meta,
                         .layout = layout};

}  // namespace wtool
