// What is odd about a GGUF file that is sound: keys that say other things than the tensors, and
// bytes between tensors that nobody reads.
#include <algorithm>
#include <array>
#include <map>
#include <set>

#include <fmt/format.h>

#include "formats/gguf_types.h"
#include "lib/base/text.h"
#include "lib/numeric/mix.h"

namespace wtool {
namespace {

constexpr Rule kFileType{"gguf.file-type", "general.file_type is what most weights are", false,
                         Severity::Warning},
    kPadding{"gguf.padding", "bytes between tensors are zero", false, Severity::Warning},
    kVersion{"gguf.quantization-version", "files with quantized tensors say which version", false,
             Severity::Note},
    kArchitecture{"gguf.architecture", "general.architecture is there: engines need it", false,
                  Severity::Note},
    kBlocks{"gguf.block-count", "block_count is the number of layers", false, Severity::Warning},
    kVocabulary{"gguf.vocabulary", "lists of the tokenizer fit each other and the embedding", false,
                Severity::Warning};
constexpr std::array<const Rule*, 6> kRules{&kFileType,     &kPadding, &kVersion,
                                            &kArchitecture, &kBlocks,  &kVocabulary};

constexpr std::string_view kFileTypeKey = "general.file_type", kTokens = "tokenizer.ggml.tokens";

class Review {
 public:
  Review(const Catalog& catalog, Diagnostics& faults)
      : catalog_(catalog), meta_(catalog.meta), faults_(faults) {}

  void keys() {
    if (catalog_.entries().empty() || meta_.count(kGgufSplitCount).value_or(0) > 1)
      return;  // a part alone is not the whole
    const std::string_view type = meta_.text("general.type");
    if (meta_.text("general.architecture").empty() && type != "imatrix")
      report(kArchitecture, "general.architecture", "is missing: llama.cpp does not load the file");
    file_type();
    quantization_version();
    block_count();
    vocabulary();
  }
  void padding();

 private:
  void file_type();
  void quantization_version();
  void block_count();
  void vocabulary();
  void gap(const Source& file, std::uint64_t begin, std::uint64_t end);

  void report(const Rule& rule, std::string_view key, std::string text, std::string fix = {}) {
    faults_.report(rule, {catalog_.sources()[0]->name(), "key", key}, kNowhere, std::move(text),
                   std::move(fix));
  }

  const Catalog& catalog_;
  const Metadata& meta_;
  Diagnostics& faults_;
};

// Of the matrices of layers; the embedding and the head have types of their own in most mixes.
std::map<DType, std::uint64_t> elements_by_type(const Catalog& catalog) {
  std::map<DType, std::uint64_t> out;
  for (const TensorEntry& t : catalog.entries())
    if (t.shape.size() >= 2 && t.name.starts_with("blk."))
      out[t.dtype] += element_count(t.shape).value_or(0);
  return out;
}

void Review::file_type() {
  constexpr std::uint64_t kGuessed = 1024;  // LLAMA_FTYPE_GUESSED
  const auto said = meta_.count(kFileTypeKey);
  const auto counts = elements_by_type(catalog_);
  if (!said || counts.empty()) return;
  const auto mix = std::ranges::find_if(
      all_mixes(), [&](const Mix& m) { return m.file_type == (*said & ~kGuessed); });
  if (mix == all_mixes().end()) return;  // a newer engine's, or a fork's
  const auto most = std::ranges::max_element(counts, {}, [](const auto& c) { return c.second; });
  const auto own = counts.find(mix->base);
  if (own != counts.end() && own->second == most->second) return;
  const bool experts = std::ranges::any_of(all_mixes(), [&](const Mix& m) {
    return m.file_type == mix->file_type && m.family == MixFamily::Experts;
  });
  if (experts && own != counts.end()) return;  // only the experts have the type
  report(
      kFileType, kFileTypeKey,
      fmt::format("is {} ({}), but most weights are {}{}", *said, mix->name, name_of(most->first),
                  own == counts.end() ? fmt::format(" and none {}", name_of(mix->base)) : ""),
      "'wtool convert --set general.file_type:u32=N' mends it, if the tensors are right");
}

void Review::quantization_version() {
  if (meta_.find("general.quantization_version")) return;
  const auto block = std::ranges::find_if(
      catalog_.entries(), [](const TensorEntry& t) { return info(t.dtype).kind == Kind::Block; });
  if (block != catalog_.entries().end())
    report(
        kVersion, "general.quantization_version",
        fmt::format("is missing, but tensor {} is {}", quoted(block->name), name_of(block->dtype)));
}

void Review::block_count() {
  const std::string key = fmt::format("{}.block_count", meta_.text("general.architecture"));
  const auto said = meta_.count(key);
  if (!said) return;
  std::set<std::uint64_t> layers;
  for (const TensorEntry& t : catalog_.entries()) {
    if (!t.name.starts_with("blk.")) continue;
    const std::string_view rest = t.name.substr(4);
    if (const auto n = parse_u64(rest.substr(0, rest.find('.')))) layers.insert(*n);
  }
  if (layers.empty() || layers.size() == *said) return;
  report(kBlocks, key,
         fmt::format("is {}, but the layers that there are tensors of are {} (the last is blk.{})",
                     *said, layers.size(), *layers.rbegin()));
}

void Review::vocabulary() {
  const auto length = [&](std::string_view key) -> std::optional<std::uint64_t> {
    const MetaValue* v = meta_.find(key);
    const auto* array = v ? std::get_if<MetaArray>(v) : nullptr;
    return array ? std::optional(array->count) : std::nullopt;
  };
  const auto tokens = length(kTokens);
  if (!tokens) return;
  for (const std::string_view key : {"tokenizer.ggml.scores", "tokenizer.ggml.token_type"})
    if (const auto n = length(key); n && *n != *tokens)
      report(kVocabulary, key, fmt::format("has {} elements for {} tokens", *n, *tokens));
  const TensorEntry* embedding = catalog_.find("token_embd.weight");
  if (embedding && embedding->shape.size() == 2 && embedding->shape[0] < *tokens)
    report(kVocabulary, kTokens,
           fmt::format("has {} tokens, but token_embd.weight has {} rows", *tokens,
                       embedding->shape[0]));
}

// Between the end of a tensor and the begin of the next one.
void Review::padding() {
  std::vector<const TensorEntry*> order;
  for (const TensorEntry& t : catalog_.entries()) order.push_back(&t);
  std::ranges::stable_sort(order, {},
                           [](const TensorEntry* t) { return std::pair(t->source, t->offset); });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const TensorEntry &a = *order[i - 1], &b = *order[i];
    if (a.source == b.source && a.offset + a.bytes < b.offset)
      gap(*catalog_.sources()[a.source], a.offset + a.bytes, b.offset);
  }
}

void Review::gap(const Source& file, std::uint64_t begin, std::uint64_t end) {
  if (end - begin >= kGgufMaxAlignment) return;  // a tensor that was left out lay there
  Buffer bytes(static_cast<std::size_t>(end - begin));
  file.read(begin, bytes);
  const auto bad = std::ranges::find_if(bytes, [](std::byte b) { return b != std::byte{0}; });
  if (bad == bytes.end()) return;
  const auto at = begin + static_cast<std::uint64_t>(bad - bytes.begin());
  faults_.report(kPadding, file.name(), at,
                 fmt::format("the {} bytes between two tensors are not all zero", end - begin),
                 "'wtool convert' writes the tensors alone");
}

}  // namespace

void review_gguf(const Catalog& catalog, bool deep, Diagnostics& faults) {
  Review review(catalog, faults);
  review.keys();
  if (deep) review.padding();
}

RuleList gguf_review_rules() noexcept {
  return kRules;
}

}  // namespace wtool
