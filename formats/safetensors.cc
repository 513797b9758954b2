// safetensors: the 64-bit length of a JSON header, the header {"name": {"dtype", "shape",
// "data_offsets"}, …, "__metadata__": {…}}, then the tensors' bytes without holes.
#include <algorithm>
#include <array>
#include <memory>
#include <unordered_set>

#include <fmt/format.h>

#include "formats/compressed.h"
#include "formats/metadata_json.h"
#include "formats/registry.h"
#include "formats/safetensors_index.h"
#include "formats/safetensors_types.h"
#include "lib/base/error.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"
#include "lib/base/text_hash.h"

namespace wtool {
namespace {

// wtool's own limits, which bound the memory that a hostile header can ask for.
constexpr std::size_t kMaxDimensions = 3 * Catalog::kMaxTensors;
constexpr std::size_t kMaxMetadata = std::size_t{1} << 17;
constexpr std::size_t kMaxFindings = 1000;

constexpr Rule kLength{
    "safetensors.length",
    "the file begins with the length of a header that fits it, of at most 100,000,000 bytes"},
    kJson{"safetensors.json", "the header is one JSON object in UTF-8"},
    kEntry{"safetensors.entry",
           "a tensor is described by dtype, shape and data_offsets, each once"},
    kUnknownMember{"safetensors.unknown-member", "a tensor's description has no other members",
                   true},
    kDtype{"safetensors.dtype", "dtypes are those of the format"},
    kShape{"safetensors.shape", "a shape is an array of unsigned 64-bit integers"},
    kOffsets{"safetensors.offsets",
             "data_offsets are two unsigned 64-bit integers, the end not before the begin"},
    kOverlap{"safetensors.overlap", "no two tensors share bytes"},
    kHole{"safetensors.hole", "tensors follow each other without holes"},
    kTruncated{"safetensors.truncated", "all the data that the header describes is there"},
    kTrailing{"safetensors.trailing", "nothing follows the last tensor"},
    kMetadata{"safetensors.metadata",
              "'__metadata__' is there at most once, a map from strings to strings"},
    kMetadataNull{"safetensors.metadata-null", "'__metadata__' is not null", true},
    kMetadataTwice{"safetensors.metadata-duplicate", "no metadata key appears twice", true},
    kTypedMetadata{"safetensors.gguf-metadata",
                   "typed metadata kept from GGUF is as wtool writes it", true},
    kLimit{"safetensors.limit", "tensors, dimensions and metadata keys stay within wtool's limits"};
constexpr std::array<const Rule*, 16> kRules{
    &kLength,       &kJson,          &kEntry,         &kUnknownMember, &kDtype,    &kShape,
    &kOffsets,      &kOverlap,       &kHole,          &kTruncated,     &kTrailing, &kMetadata,
    &kMetadataNull, &kMetadataTwice, &kTypedMetadata, &kLimit};

std::string dtype_hint(std::string_view unknown) {
  if (const auto type = parse_dtype(unknown))
    if (const auto* known = std::ranges::find(kSafetensorsTypes, *type, &SafetensorsType::type);
        known != kSafetensorsTypes.end())
      return fmt::format("did you mean '{}'?", known->name);
  return {};
}

// --- detecting ---

// The reference refuses more than kSafetensorsMaxHeader: bytes 4 to 7 of a length are 0, byte 3 is
// at most 5.
std::uint64_t little_endian(Bytes bytes) noexcept {
  std::uint64_t n = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(bytes.size(), 8); ++i)
    n |= std::to_integer<std::uint64_t>(bytes[i]) << 8 * i;
  return n;
}

bool is_space(char c) noexcept {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

std::string_view without_space(std::string_view s) noexcept {
  while (!s.empty() && is_space(s.front())) s.remove_prefix(1);
  return s;
}

// Also claims what is damaged but plainly was meant to be safetensors, so that read() can say what
// is wrong with it. What other files may look like is left alone: all zeros, any text, other
// headers.
bool detect(const Source& source) {
  Buffer buffer(static_cast<std::size_t>(std::min<std::uint64_t>(end_of_head(source), 512)));
  source.read(0, buffer);
  const std::string_view start = as_text(buffer);
  const bool plausible = start.size() > 4 && little_endian(buffer) <= kSafetensorsMaxHeader;
  if (start.size() < 8) return plausible && start.find_first_not_of('\0') != start.npos;
  if (start.size() == 8) return plausible;

  const std::string_view text = without_space(start.substr(8));
  if (plausible && start.substr(0, 8).find_first_not_of('\0') == start.npos)
    return !text.starts_with('\0');  // it may be empty: nothing but blanks
  if (plausible)
    return text.empty() || static_cast<unsigned char>(text[0]) >= 0x80 ||
           std::string_view("{[\"ntf").find(text[0]) != std::string_view::npos;

  const auto opens_object = [](std::string_view s) {
    if (!s.starts_with('{')) return false;
    s = without_space(s.substr(1));
    return s.starts_with('"') || s.starts_with('}');
  };
  const auto is_text = [](char c) { return (c >= ' ' && c <= '~') || is_space(c); };
  if (opens_object(text)) return !std::ranges::all_of(start.substr(0, 8), is_text);
  return opens_object(start.substr(4)) &&
         little_endian(Bytes(buffer).first(4)) <= kSafetensorsMaxHeader;
}

// --- reading ---

// Why a length that cannot be is what it is, if that shows.
std::string length_hint(std::uint64_t length, std::uint64_t file_size) {
  const std::uint64_t swapped = byte_swapped(length);
  if (swapped <= kSafetensorsMaxHeader && swapped <= file_size)
    return fmt::format("read as big-endian it would be {}: the format is little-endian", swapped);
  if ((length >> 32 & 0xFF) == '{') return "the length seems to be given in 4 bytes: it takes 8";
  return {};
}

// Where the header's text lies: {8, length}. None: reported.
std::optional<std::uint64_t> header_length(const Source& file, Diagnostics& faults) {
  const auto fault = [&](std::string text, std::string hint) {
    faults.report(kLength, file.name(), 0, std::move(text), std::move(hint));
    return std::nullopt;
  };
  constexpr std::string_view kCut = "a download cut short? fetch the file again";
  if (file.size() < 8)
    return fault(fmt::format("has {} bytes, but the header's length alone takes 8", file.size()),
                 std::string(kCut));
  std::array<std::byte, 8> bytes;
  file.read(0, bytes);
  const auto length = load<std::uint64_t>(bytes);
  if (length > kSafetensorsMaxHeader)
    return fault(fmt::format("header length {} is above the format's limit of {} bytes", length,
                             kSafetensorsMaxHeader),
                 length_hint(length, file.size()));
  if (length < 2)
    return fault(fmt::format("header length {} is below the 2 bytes of '{{}}'", length), {});
  if (length > file.size() - 8)
    return fault(
        fmt::format("is at least {} bytes short: the header takes {} bytes after the first "
                    "8, the file has {}",
                    length - (file.size() - 8), length, file.size() - 8),
        std::string(kCut));
  return length;
}

// Reads one header. Entries are collected first, since only their order by data shows overlaps and
// holes, and then go through the catalog's gate in that order.
class HeaderReader {
 public:
  HeaderReader(const Source& file, std::span<char> text, Catalog& catalog, Diagnostics& faults)
      : file_(file),
        text_(text),
        data_at_(8 + text.size()),
        data_bytes_(file.size() - data_at_),
        catalog_(catalog),
        faults_(faults),
        in_(text, 8) {
    constexpr std::size_t kLeast = 50;  // bytes of the shortest entry; pages not used cost nothing
    found_.reserve(std::min(text.size() / kLeast + 1, Catalog::kMaxTensors));
  }

  void read();

 private:
  // 40 bytes, so that the most tensors there can be take 40 MB beside their header.
  struct Found {
    std::uint64_t begin, end;
    const std::uint64_t* dims;
    std::uint32_t name_at, name_size;  // in the header's text
    std::uint16_t rank;
    DType dtype;
  };

  void read_entries();
  void metadata();
  void metadata_values();
  void restore_metadata(std::span<char> typed);
  void tensor(std::string_view name);
  bool dtype(Found& to);
  bool shape(Found& to);
  bool offsets(Found& to);
  bool plain_count(std::uint64_t& value, std::string& instead);
  void collect(const Found& f);
  void place_all();
  void place(const Found& f, const Found* before);
  void lose(const Found& f);
  void check_coverage(std::uint64_t past_end);

  std::string_view name_of(const Found& f) const { return {text_.data() + f.name_at, f.name_size}; }
  // The position in the file of a name's opening quote.
  std::uint64_t place_of(std::string_view name) const {
    return 7 + static_cast<std::uint64_t>(name.data() - text_.data());
  }
  bool fault(const Rule& rule, Place where, std::uint64_t at, std::string text,
             std::string hint = {});
  bool fault_in_tensor(const Rule& rule, std::string text, std::string hint = {});

  const Source& file_;
  const std::span<char> text_;
  const std::uint64_t data_at_, data_bytes_;
  Catalog& catalog_;
  Diagnostics& faults_;
  JsonReader in_;
  std::vector<Found> found_;
  std::vector<std::uint64_t> dims_;
  std::vector<MetaEntry> meta_;
  std::string_view tensor_;      // the one being read
  std::size_t dimensions_ = 0;   // of all tensors
  std::uint64_t total_ = 0;      // sum of sizes so far
  std::uint64_t described_ = 0;  // where the last one ends
  bool metadata_seen_ = false;
  bool complete_ = true;  // no entry was left out
  bool stopped_ = false;
};

// Always false, for `return fault(…)`. In a file with very many faults the rest is left unread.
bool HeaderReader::fault(const Rule& rule, Place where, std::uint64_t at, std::string text,
                         std::string hint) {
  faults_.report(rule, std::move(where), at, std::move(text), std::move(hint));
  if (faults_.count() >= kMaxFindings && !std::exchange(stopped_, true))
    faults_.note(file_.name(),
                 fmt::format("more than {} faults: the rest was not read", kMaxFindings));
  return false;
}

bool HeaderReader::fault_in_tensor(const Rule& rule, std::string text, std::string hint) {
  return fault(rule, {file_.name(), "tensor", tensor_}, place_of(tensor_), std::move(text),
               std::move(hint));
}

void HeaderReader::read() {
  try {
    read_entries();
  } catch (const JsonFault& f) {
    faults_.report(kJson, {file_.name(), "header"}, f.at, f.text());
    complete_ = false;  // what came before is as good as it was
  }
  if (!stopped_) place_all();
  for (MetaEntry& entry : meta_) catalog_.meta.append(std::move(entry.key), std::move(entry.value));
}

void HeaderReader::read_entries() {
  std::string_view name;
  in_.begin_object();
  while (!stopped_ && in_.next_member(name)) {
    if (name == kSafetensorsMetadata)
      metadata();
    else
      tensor(name);
  }
  if (!stopped_) in_.finish();
}

void HeaderReader::metadata() {
  const std::uint64_t at = in_.position();
  const JsonReader::Kind kind = in_.peek();
  if (std::exchange(metadata_seen_, true)) {
    fault(kMetadata, file_.name(), at, "'__metadata__' appears twice");
  } else if (kind == JsonReader::Kind::Null) {
    fault(kMetadataNull, file_.name(), at, "'__metadata__' is null, not a map of strings");
  } else if (kind != JsonReader::Kind::Object) {
    fault(kMetadata, file_.name(), at,
          fmt::format("'__metadata__' is {}, not a map of strings", wtool::name_of(kind)));
  } else {
    return metadata_values();
  }
  in_.skip();
}

void HeaderReader::metadata_values() {
  std::unordered_set<std::string_view, TextHash> keys;
  std::span<char> typed;
  std::string_view key;
  in_.begin_object();
  while (in_.next_member(key)) {
    const auto bad = [&](const Rule& rule, std::string text) {
      fault(rule, {file_.name(), "metadata", key}, place_of(key), std::move(text));
      in_.skip();
    };
    if (const auto kind = in_.peek(); kind != JsonReader::Kind::String) {
      bad(kMetadata, fmt::format("must be a string, not {}", wtool::name_of(kind)));
    } else if (!keys.insert(key).second) {
      bad(kMetadataTwice, "key appears twice");
    } else if (keys.size() > kMaxMetadata) {
      bad(kLimit, fmt::format("more than {} keys, wtool's limit", kMaxMetadata));
      stopped_ = true;
    } else if (const std::string_view value = in_.string(); key == kTypedMetadataKey) {
      typed = text_.subspan(static_cast<std::size_t>(value.data() - text_.data()), value.size());
    } else {
      meta_.push_back({std::string(key), std::string(value)});
    }
    if (stopped_) return;
  }
  if (typed.data()) restore_metadata(typed);
}

void HeaderReader::restore_metadata(std::span<char> typed) {
  try {
    restore_typed_metadata(typed, meta_);
  } catch (const JsonFault& f) {
    fault(kTypedMetadata, {file_.name(), "metadata", kTypedMetadataKey},
          place_of({typed.data(), typed.size()}),
          fmt::format("is not as wtool writes it: within its text, {}", f.text()));
  }
}

void HeaderReader::tensor(std::string_view name) {
  tensor_ = name;
  if (const auto kind = in_.peek(); kind != JsonReader::Kind::Object) {
    complete_ =
        fault_in_tensor(kEntry, fmt::format("must be an object with dtype, shape and data_offsets, "
                                            "not {}",
                                            wtool::name_of(kind)));
    faults_.lose(file_.name(), name, 0, 0);
    return in_.skip();
  }
  static constexpr std::array<std::string_view, 3> kMembers{"dtype", "shape", "data_offsets"};
  static constexpr std::array kReaders{&HeaderReader::dtype, &HeaderReader::shape,
                                       &HeaderReader::offsets};
  Found f{};
  f.name_at = static_cast<std::uint32_t>(name.data() - text_.data());
  f.name_size = static_cast<std::uint32_t>(name.size());
  std::array<bool, 3> seen{};
  bool sound = true;
  std::string_view key;
  in_.begin_object();
  while (in_.next_member(key)) {
    const auto i = static_cast<std::size_t>(std::ranges::find(kMembers, key) - kMembers.begin());
    if (i == kMembers.size()) {
      fault_in_tensor(kUnknownMember, fmt::format("unknown member {}", quoted(key)));
      in_.skip();
    } else if (std::exchange(seen[i], true)) {
      sound = fault_in_tensor(kEntry, fmt::format("'{}' appears twice", key));
      in_.skip();
    } else {
      sound &= (this->*kReaders[i])(f);
    }
  }
  for (std::size_t i = 0; i < kMembers.size(); ++i)
    if (!seen[i]) sound = fault_in_tensor(kEntry, fmt::format("has no '{}'", kMembers[i]));
  if (sound) return collect(f);
  complete_ = false;
  faults_.lose(file_.name(), name, 0, 0);
}

bool HeaderReader::dtype(Found& to) {
  if (const auto kind = in_.peek(); kind != JsonReader::Kind::String) {
    in_.skip();
    return fault_in_tensor(kDtype,
                           fmt::format("dtype must be a string, not {}", wtool::name_of(kind)));
  }
  const std::string_view text = in_.string();
  const auto* known = std::ranges::find(kSafetensorsTypes, text, &SafetensorsType::name);
  if (known == kSafetensorsTypes.end())
    return fault_in_tensor(kDtype, fmt::format("unknown dtype {}", quoted(text, 80)),
                           dtype_hint(text));
  to.dtype = known->type;
  return true;
}

// Takes one item. If it is not a plain unsigned integer of 64 bits, says what it is instead.
bool HeaderReader::plain_count(std::uint64_t& value, std::string& instead) {
  const JsonReader::Kind kind = in_.peek();
  if (kind == JsonReader::Kind::Number) {
    if (in_.unsigned_integer(value)) return true;
    instead = quoted(in_.number(), 40);
  } else {
    instead = wtool::name_of(kind);
    in_.skip();
  }
  return false;
}

bool HeaderReader::shape(Found& to) {
  if (const auto kind = in_.peek(); kind != JsonReader::Kind::Array) {
    in_.skip();
    return fault_in_tensor(
        kShape, fmt::format("shape must be an array of integers, not {}", wtool::name_of(kind)));
  }
  dims_.clear();
  std::uint64_t value = 0, rank = 0;
  std::string instead;
  in_.begin_array();
  for (; in_.next_item(); ++rank)
    if (plain_count(value, instead) && rank < Catalog::kMaxRank) dims_.push_back(value);
  if (!instead.empty())
    return fault_in_tensor(
        kShape, fmt::format("shape holds {}: a dimension is an unsigned 64-bit integer", instead));
  if (rank > Catalog::kMaxRank)
    return fault_in_tensor(kShape,
                           fmt::format("shape has {} dimensions, but wtool takes at most {}", rank,
                                       Catalog::kMaxRank));
  dimensions_ += dims_.size();
  if (dimensions_ > kMaxDimensions) {
    stopped_ = true;
    return fault_in_tensor(
        kLimit, fmt::format("more than {} dimensions in all, wtool's limit", kMaxDimensions));
  }
  to.dims = catalog_.arena().copy(std::span<const std::uint64_t>(dims_)).data();
  to.rank = static_cast<std::uint16_t>(rank);
  return true;
}

bool HeaderReader::offsets(Found& to) {
  if (const auto kind = in_.peek(); kind != JsonReader::Kind::Array) {
    in_.skip();
    return fault_in_tensor(
        kOffsets, fmt::format("data_offsets must be [begin, end], not {}", wtool::name_of(kind)));
  }
  std::array<std::uint64_t, 2> range{};
  std::uint64_t value = 0, count = 0;
  std::string instead;
  in_.begin_array();
  for (; in_.next_item(); ++count)
    if (plain_count(value, instead) && count < 2) range[count] = value;
  if (!instead.empty())
    return fault_in_tensor(
        kOffsets,
        fmt::format("data_offsets hold {}: an offset is an unsigned 64-bit integer", instead));
  if (count != 2)
    return fault_in_tensor(kOffsets,
                           fmt::format("data_offsets hold {} numbers, not begin and end", count));
  to.begin = range[0];
  to.end = range[1];
  if (to.end < to.begin)
    return fault_in_tensor(
        kOffsets, fmt::format("data_offsets [{}, {}] end before they begin", to.begin, to.end));
  return true;
}

void HeaderReader::collect(const Found& f) {
  if (found_.size() == Catalog::kMaxTensors) {
    fault_in_tensor(kLimit,
                    fmt::format("more than {} tensors, wtool's limit", Catalog::kMaxTensors));
    stopped_ = true;
    return;
  }
  found_.push_back(f);
  described_ = std::max(described_, f.end);
  const auto total = checked_add(total_, f.end - f.begin);
  total_ = total.value_or(~std::uint64_t{0});
  // More bytes than there is room up to the last end: some overlap, whatever follows. A hostile
  // header is not read to its end.
  if (total_ > described_ && faults_.mode() == Diagnostics::Mode::Throw) place_all();
}

// In the order of the data; equal ones as the header has them.
void HeaderReader::place_all() {
  const auto key = [](const Found& f) { return std::tuple(f.begin, f.end, f.name_at); };
  if (!std::ranges::is_sorted(found_, {}, key)) std::ranges::sort(found_, {}, key);
  catalog_.reserve(found_.size());

  const Found* before = nullptr;  // the one that reaches furthest so far
  std::uint64_t past_end = 0;
  for (const Found& f : found_) {
    tensor_ = name_of(f);
    place(f, before);
    if (stopped_) return;
    past_end += f.end > data_bytes_;
    if (!before || f.end >= before->end) before = &f;
  }
  if (complete_) check_coverage(past_end);
}

void HeaderReader::place(const Found& f, const Found* before) {
  const std::uint64_t reached = before ? before->end : 0;
  const ShapeView shape(f.dims, f.rank);
  const TensorEntry entry{.name = tensor_,
                          .shape = shape,
                          .offset = data_at_ + f.begin,
                          .bytes = f.end - f.begin,
                          .source = 0,
                          .dtype = f.dtype};
  if (f.begin < reached && !catalog_.find(tensor_)) {
    fault_in_tensor(kOverlap, fmt::format("data_offsets [{}, {}] begin inside {}, which has [{}, "
                                          "{}]",
                                          f.begin, f.end, quoted(name_of(*before)), before->begin,
                                          before->end));
    return lose(f);
  }
  if (f.begin > reached && complete_)
    fault_in_tensor(kHole,
                    fmt::format("data_offsets [{}, {}] leave a hole: the {} bytes from {} on "
                                "belong to no tensor",
                                f.begin, f.end, f.begin - reached, reached));
  if (f.end > data_bytes_) {
    // One fault of the whole file (check_coverage), unless the entry is wrong in itself; then the
    // catalog's gate says so before it looks at the offset, which may have wrapped.
    const auto elements = element_count(shape);
    if (elements && byte_size(f.dtype, *elements) == entry.bytes) return lose(f);
  }
  catalog_.add(entry, place_of(tensor_), faults_);
}

void HeaderReader::lose(const Found& f) {
  const std::uint64_t present = f.begin < data_bytes_ ? std::min(f.end, data_bytes_) - f.begin : 0;
  faults_.lose(file_.name(), name_of(f), f.end - f.begin, present);
}

void HeaderReader::check_coverage(std::uint64_t past_end) {
  if (described_ > data_bytes_)
    fault(
        kTruncated, file_.name(), file_.size(),
        fmt::format("is {} bytes short: the header describes {} bytes of data, the file has {} ({} "
                    "of {} tensors reach past its end)",
                    described_ - data_bytes_, described_, data_bytes_, past_end, found_.size()),
        "a download cut short? fetch the file again");
  if (described_ < data_bytes_)
    fault(kTrailing, file_.name(), data_at_ + described_,
          fmt::format("has {} bytes that belong to no tensor: the header describes {} bytes of "
                      "data, the file has {}",
                      data_bytes_ - described_, described_, data_bytes_));
}

void read(const SourcePtr& file, Catalog& catalog, Diagnostics& faults) {
  catalog.format = kSafetensors.name;
  const auto length = header_length(*file, faults);
  if (!length) return;
  const auto size = static_cast<std::size_t>(*length);
  const std::span<char> text =
      catalog.arena().keep(std::make_unique_for_overwrite<char[]>(size), size);
  file->read(8, std::as_writable_bytes(text));
  try {
    HeaderReader(*file, text, catalog, faults).read();
  } catch (const JsonFault& f) {  // not UTF-8: nothing of it can be read
    faults.report(kJson, {file->name(), "header"}, f.at, f.text());
  }
}

Metadata shard_meta(const Metadata& meta, std::size_t, std::size_t, std::size_t) {
  return meta;
}

constexpr std::array<std::string_view, 1> kSuffixes{".safetensors"};

}  // namespace

const Format kSafetensors{
    .name = "safetensors",
    .summary = "a JSON header and the tensors' bytes: Hugging Face, PyTorch, MLX, …",
    .suffixes = kSuffixes,
    .rules = kRules,
    .detect = detect,
    .read = read,
    .place = nullptr,
    .detect_index = detect_safetensors_index,
    .read_index = read_safetensors_index,
    .index_rules = safetensors_index_rules(),
    .review = review_safetensors,
    .review_rules = safetensors_review_rules(),
    .refuses = safetensors_refuses,
    .refuses_meta = nullptr,
    .layout = safetensors_layout,
    .shard_name = safetensors_shard_name,
    .shard_meta = shard_meta,
    .index = safetensors_index,
};

}  // namespace wtool
