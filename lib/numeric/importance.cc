#include "lib/numeric/importance.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

// Ours. The largest known matrices have 25,000 experts in all.
constexpr std::uint64_t kMaxCounts = std::uint64_t{1} << 24;
constexpr std::uint64_t kMaxDatasets = 4096;
constexpr float kMaxCount = 0x1p53f;  // the reference counts in int64, we in what f64 holds exactly
constexpr std::size_t kPiece = std::size_t{1} << 16;

void load_f32(const Catalog& catalog, const TensorEntry& tensor, std::uint64_t first,
              std::span<float> out) {
  const Extent all = catalog.extent(tensor);
  all.source->read(all.offset + first * sizeof(float), std::as_writable_bytes(out));
  if (tensor.big_endian)
    for (float& v : out) v = byte_swapped(v);
}

std::uint64_t elements_of(const TensorEntry& t) {
  return element_count(t.shape).value_or(0);
}

Error bad(const Model& model, std::string_view weight, std::string text) {
  return Error(Fault::BadFile, std::move(text))
      .in(fmt::format("importance of {}", quoted(weight)))
      .in(model.path);
}

std::optional<std::uint64_t> whole_number(const Model& model, std::string_view key) {
  const MetaValue* value = model.catalog.meta.find(key);
  if (!value) return std::nullopt;
  if (const auto n = model.catalog.meta.count(key)) return n;
  throw Error(Fault::BadFile, fmt::format("{} is {} {}, not a whole number", key,
                                          name_of(type_of(*value)), to_text(*value)))
      .in(model.path);
}

}  // namespace

Importance Importance::read(std::shared_ptr<const Model> model) {
  Importance out;
  out.model_ = std::move(model);
  out.pair_up();
  std::uint64_t total = 0;
  for (Entry& e : out.entries_) out.read_counts(e, total);
  out.read_metadata();
  for (const Entry& e : out.entries_) out.check_sums(e);
  return out;
}

// Other tensors ('NAME.in_sum') are not ours to judge: newer writers add some.
void Importance::pair_up() {
  const Catalog& catalog = model_->catalog;
  const auto stem = [](std::string_view name, std::string_view suffix) {
    return name.substr(0, name.size() - suffix.size());
  };
  for (const TensorEntry& t : catalog.entries()) {
    if (t.name.ends_with(kCountsSuffix)) {
      const std::string_view weight = stem(t.name, kCountsSuffix);
      if (!catalog.find(fmt::format("{}{}", weight, kSumsSuffix)))
        throw bad(*model_, weight, fmt::format("has '{}' but no '{}'", kCountsSuffix, kSumsSuffix));
    }
    if (!t.name.ends_with(kSumsSuffix)) continue;
    const std::string_view weight = stem(t.name, kSumsSuffix);
    const TensorEntry* counts = catalog.find(fmt::format("{}{}", weight, kCountsSuffix));
    if (!counts)
      throw bad(*model_, weight, fmt::format("has '{}' but no '{}'", kSumsSuffix, kCountsSuffix));
    by_name_.emplace(weight, entries_.size());
    entries_.push_back(
        {weight, elements_of(t), {}, catalog.index_of(t), catalog.index_of(*counts)});
  }
  if (entries_.empty())
    throw Error(Fault::BadFile, fmt::format("is no importance matrix: none of its {} tensors is "
                                            "named '….in_sum2'",
                                            catalog.entries().size()))
        .in(model_->path)
        .hint("'llama-imatrix' makes them");
}

void Importance::read_counts(Entry& entry, std::uint64_t& total) const {
  const Catalog& catalog = model_->catalog;
  const TensorEntry &sums = catalog.entries()[entry.sums],
                    &counts = catalog.entries()[entry.counted];
  if (sums.dtype != DType::F32 || (counts.dtype != DType::F32 && counts.dtype != DType::I32) ||
      sums.column_major)
    throw bad(*model_, entry.name,
              fmt::format("sums are {}, counts {}; f32 is wanted", name_of(sums.dtype),
                          name_of(counts.dtype)));
  const std::uint64_t n = elements_of(counts);
  if (n == 0 || entry.values == 0 || entry.values % n != 0)
    throw bad(*model_, entry.name, fmt::format("{} sums for {} counts", entry.values, n));
  total += n;
  if (total > kMaxCounts)
    throw bad(*model_, entry.name, fmt::format("more than {} counts, wtool's limit", kMaxCounts));
  entry.counts.resize(static_cast<std::size_t>(n));
  load_f32(catalog, counts, 0, entry.counts);
  for (std::size_t i = 0; i < entry.counts.size(); ++i) {
    float& c = entry.counts[i];
    if (counts.dtype == DType::I32)
      c = static_cast<float>(load<std::int32_t>(std::as_bytes(std::span(&c, 1))));
    // Which of them a fraction means differs between versions of llama.cpp: some round, some do
    // not.
    if (!(c >= 0 && c <= kMaxCount) || c != std::trunc(c))
      throw bad(*model_, entry.name, fmt::format("count {} is {}, no whole number", i, c));
  }
}

void Importance::check_sums(const Entry& entry) const {
  std::vector<float> piece;
  for (std::uint64_t at = 0; at < entry.values; at += piece.size()) {
    piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, entry.values - at)));
    read_sums(entry, at, piece);
    const auto wrong = [](float v) { return !(v >= 0 && v <= std::numeric_limits<float>::max()); };
    const auto it = std::ranges::find_if(piece, wrong);
    if (it != piece.end())
      throw bad(
          *model_, entry.name,
          fmt::format("sum {} of {} is {}; finite numbers from 0 are wanted",
                      at + static_cast<std::uint64_t>(it - piece.begin()), entry.values, *it));
  }
}

void Importance::read_metadata() {
  chunk_count_ = whole_number(*model_, kImatrixChunkCount);
  chunk_size_ = whole_number(*model_, kImatrixChunkSize);
  const MetaValue* value = model_->catalog.meta.find(kImatrixDatasets);
  if (!value) return;
  const auto* names = std::get_if<MetaArray>(value);
  if (!names || (names->of != MetaType::String && names->count > 0))
    throw Error(Fault::BadFile, fmt::format("{} is no array of strings", kImatrixDatasets))
        .in(model_->path);
  if (names->count > kMaxDatasets)
    throw Error(Fault::BadFile, fmt::format("{} holds {} names, wtool's limit is {}",
                                            kImatrixDatasets, names->count, kMaxDatasets))
        .in(model_->path);
  for_each(*names, [this](const MetaValue& name) {
    datasets_.push_back(std::get<std::string>(name));
    return true;
  });
}

const Importance::Entry* Importance::find(std::string_view weight) const noexcept {
  const auto it = by_name_.find(weight);
  return it == by_name_.end() ? nullptr : &entries_[it->second];
}

void Importance::read_sums(const Entry& entry, std::uint64_t first, std::span<float> out) const {
  if (first > entry.values || out.size() > entry.values - first)
    throw Error(Fault::Internal, fmt::format("values {} to {} of {} importances of {}", first,
                                             first + out.size(), entry.values, quoted(entry.name)));
  load_f32(model_->catalog, model_->catalog.entries()[entry.sums], first, out);
}

void Importance::read(const Entry& entry, std::uint64_t first, std::span<float> out) const {
  read_sums(entry, first, out);
  const std::uint64_t each = entry.values_per_count();
  for (std::size_t i = 0; i < out.size();) {
    const std::uint64_t which = (first + i) / each;
    const float count = entry.counts[static_cast<std::size_t>(which)];
    const auto end =
        static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), (which + 1) * each - first));
    for (; i < end; ++i) out[i] = count > 0 ? out[i] / count : 1.0f;
  }
}

std::optional<std::string> Importance::mismatch(const Entry& entry, ShapeView weight) {
  const std::uint64_t columns = weight.empty() ? 1 : weight.back();
  const std::uint64_t matrices = weight.size() < 3 ? 1 : weight[weight.size() - 3];
  const auto wanted = checked_mul(columns, matrices);
  if (wanted == entry.values) return std::nullopt;
  return fmt::format("the importance matrix has {} values, but {} wants {} ({} columns x {})",
                     entry.values, to_text(weight),
                     wanted ? fmt::format("{}", *wanted) : "more than 2^64", columns, matrices);
}

}  // namespace wtool
