#include "formats/hf/gguf_view.h"

#include <algorithm>
#include <map>
#include <ranges>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "formats/hf/config.h"
#include "formats/hf/gguf_keys.h"
#include "formats/hf/gpt_oss.h"
#include "formats/hf/model_card.h"
#include "formats/hf/names.h"
#include "formats/hf/tokenizer.h"
#include "formats/registry.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/listing.h"
#include "lib/base/text.h"
#include "lib/model/transform.h"
#include "lib/numeric/cells.h"

namespace wtool {
namespace {

// The parts of an architecture's names that differ between ways to save the same model.
std::string bare_name(std::string_view name, const Architecture& arch) {
  constexpr std::string_view kInner = "language_model.", kAdapted = "base_model.model.";
  std::string out(name);
  for (std::size_t at; (at = out.find(kInner)) != out.npos;) out.erase(at, kInner.size());
  if (out.starts_with(kAdapted)) out.erase(0, kAdapted.size());
  for (const std::string_view prefix : arch.prefixes)
    while (out.starts_with(prefix)) out.erase(0, prefix.size());
  if (out.ends_with("LayerNorm.gamma")) out.replace(out.size() - 5, 5, "weight");
  if (out.ends_with("LayerNorm.beta")) out.replace(out.size() - 4, 4, "bias");
  return out;
}

// Buffers that are no weights, of any architecture.
bool is_buffer(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attention.masked_bias") ||
         name.ends_with(".attention.bias");
}

bool is_foreign(std::string_view name) {
  return std::ranges::any_of(foreign_starts(),
                             [&](std::string_view s) { return name.starts_with(s); }) ||
         std::ranges::any_of(foreign_parts(),
                             [&](std::string_view s) { return name.find(s) != name.npos; });
}

// ---- the whole

constexpr Formula kLayerCount = "n_layers | num_hidden_layers | n_layer | num_layers",
                  kHeadCount = "num_attention_heads | n_head | n_heads",
                  kKvHeadCount = "num_key_value_heads | n_kv_heads | num_attention_heads",
                  kExpertCount = "num_local_experts | num_experts | n_routed_experts";

class GgufMapper {
 public:
  GgufMapper(std::shared_ptr<const Model> from, const GgufViewOptions& options)
      : from_(std::move(from)),
        options_(options),
        config_(HfConfig::of(*from_, options.arch)),
        arch_(config_.architecture()),
        view_(from_, "gguf") {}

  ModelView run() {
    tokenizer();
    bound_layers();
    add_factors();
    // Blocks that are not decoded come before the others, as in the reference.
    for (const bool blocks : {true, false})
      for (const LogicalTensor* t : in_order())
        if (keeps_blocks(*t) == blocks) place(*t);
    check_experts();
    check_complete();
    check_all();
    Metadata meta = metadata();
    return view_.finish(std::move(meta), kPlain, std::move(notes_));
  }

 private:
  void tokenizer() {
    vocabulary_ = config_.count("vocab_size").value_or(0);
    if (options_.no_vocab) {
      notes_.push_back("without a tokenizer, as asked (--no-vocab): llama.cpp does not run it");
      return;
    }
    if (vocabulary_ == 0)
      throw Error(Fault::BadFile, "does not say vocab_size").in(config_.where());
    add_tokenizer(*from_, config_.root(),
                  {.path = arch_.tokenizer,
                   .architecture = arch_.name,
                   .hf_class = config_.hf_class(),
                   .vocabulary = vocabulary_,
                   .pre = options_.pre},
                  tokens_, notes_);
    if (const MetaValue* list = tokens_.find("tokenizer.ggml.tokens"))
      if (const auto* array = std::get_if<MetaArray>(list)) vocabulary_ = array->count;
  }

  // Every layer has tensors: what config.json claims beyond is not looped over.
  void bound_layers() {
    layers_ = config_.need(kLayerCount);
    if (layers_ > from_->tensors.size())
      throw Error(Fault::BadFile, fmt::format("says {} layers, but there are {} tensors in all",
                                              layers_, from_->tensors.size()))
          .in(config_.where());
  }

  // Tensors that no checkpoint holds come first.
  void add_factors() {
    const auto add = [&](const std::string& name, const std::vector<float>& values,
                         std::string_view key) {
      if (values.empty()) return;
      Buffer bytes(values.size() * sizeof(float));
      std::memcpy(bytes.data(), values.data(), bytes.size());
      emit(name, tensor_in_memory(name, DType::F32, {values.size()}, std::move(bytes)),
           {fmt::format("config.json, {}", key), "f32", "computed", 0});
    };
    add("rope_freqs.weight", llama3_rope_factors(config_), "rope_scaling");
    if (!arch_.rope_factors) return;
    const auto of_long = longrope_factors(config_, "long_factor"),
               of_short = longrope_factors(config_, "short_factor");
    if (of_long.empty() != of_short.empty())
      throw Error(Fault::BadFile, "has one of long_factor and short_factor but not the other")
          .in(config_.where());
    add("rope_factors_long.weight", of_long, "long_factor");
    add("rope_factors_short.weight", of_short, "short_factor");
  }

  bool keeps_blocks(const LogicalTensor& t) const {
    if (!is_mxfp4(t)) return false;
    const auto found = find_row(bare_name(t.name, arch_));
    return found && of_gpt_oss(*found->row);
  }
  static bool of_gpt_oss(const TensorRow& row) {
    return row.move == Move::Interleaved || row.move == Move::TransposeExperts;
  }
  // Experts that are no blocks lie the other way round.
  static bool turned(const LogicalTensor& t, const TensorRow& row) {
    return of_gpt_oss(row) && t.shape.size() == 3 && !is_mxfp4(t);
  }

  // File by file, within a file by name, as the reference goes.
  std::vector<const LogicalTensor*> in_order() const {
    std::vector<const LogicalTensor*> out;
    for (const LogicalTensor& t : from_->tensors) out.push_back(&t);
    std::ranges::stable_sort(out, [&](const LogicalTensor* a, const LogicalTensor* b) {
      const std::uint32_t in_a = from_->part(*a, 0).source, in_b = from_->part(*b, 0).source;
      return in_a != in_b ? in_a < in_b : a->name < b->name;
    });
    return out;
  }

  auto rows() const { return std::views::join(arch_.tensors); }

  struct Found {
    const TensorRow* row;
    NameNumbers numbers;
    std::string suffix;  // ".weight" or ".bias"
  };
  std::optional<Found> find_row(std::string_view bare) const {
    std::string_view module = bare, suffix = ".weight";
    bool named = true;
    if (bare.ends_with(".weight"))
      module.remove_suffix(7);
    else if (bare.ends_with(".bias"))
      module.remove_suffix((suffix = ".bias").size());
    else
      named = false;  // "mlp.experts.gate_up_proj"
    for (const TensorRow& row : rows()) {
      if (suffix != ".bias" || row.bias != Bias::None)
        if (const auto n = match_numbers(row.hf, module))
          return Found{&row, *n, std::string(suffix)};
      if (named)
        if (const auto n = match_numbers(row.hf, bare)) return Found{&row, *n, ".weight"};
    }
    return std::nullopt;
  }

  bool dropped(const LogicalTensor& t, const std::string& bare) {
    if (is_buffer(t.name)) return ++drops_["a buffer, not a weight"], true;
    if (is_foreign(t.name)) return ++drops_["of a module that sees or hears"], true;
    for (const DropRow& d : arch_.drops)
      if (matches_star(d.hf, bare) && (d.when.empty() || config_.number(d.when).value_or(0) != 0))
        return ++drops_[std::string(d.why)], true;
    return false;
  }

  // DeepSeek-V3's layers for predicting several tokens lie behind the others.
  bool is_extra_layer(std::string_view bare) {
    constexpr std::string_view kStart = "layers.";
    if (!bare.starts_with(kStart)) return false;
    bare.remove_prefix(kStart.size());
    const auto layer = parse_u64(bare.substr(0, bare.find('.')));
    const std::uint64_t extra = config_.count("num_nextn_predict_layers").value_or(0);
    if (!layer || *layer < layers_ || *layer - layers_ >= extra) return false;
    ++drops_["of a layer that predicts further tokens"];
    return true;
  }

  void place(const LogicalTensor& t) {
    const std::string bare = bare_name(t.name, arch_);
    if (dropped(t, bare)) return;
    if (is_extra_layer(bare)) return;
    const auto found = find_row(bare);
    if (!found) {
      unmapped_.emplace_back(t.name);
      return;
    }
    try {
      if (found->row->hf.find("{L}") != std::string_view::npos && found->numbers.layer >= layers_)
        throw Error(Fault::BadFile, fmt::format("layer {}, but config.json says {}, counted from 0",
                                                found->numbers.layer, layers_));
      check_shape(t, *found);
      move(t, *found);
    } catch (Error& e) {
      if (e.fault() == Fault::Io || e.fault() == Fault::Internal) throw;
      problems_.push_back(fmt::format("tensor {}: {}", quoted(t.name), e.what()));
    }
  }

  void check_shape(const LogicalTensor& t, const Found& f) const {
    if (f.row->shape.empty()) return;
    std::vector<std::string> wanted;
    std::string_view letters = f.row->shape;
    bool same = true;
    std::vector<std::optional<std::uint64_t>> sizes;
    for (; !letters.empty(); letters.remove_prefix(std::min<std::size_t>(2, letters.size())))
      sizes.push_back(size_of(letters.front()));
    // A bias is as long as there are outputs: rows, or with Conv1D columns.
    if (f.suffix == ".bias" && sizes.size() > 1)
      sizes = {f.row->move == Move::Transpose ? sizes.back() : sizes.front()};
    Shape shape(t.shape.begin(), t.shape.end());
    if (turned(t, *f.row)) std::swap(shape[1], shape[2]);
    same = sizes.size() == shape.size();
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      wanted.push_back(sizes[i] ? std::to_string(*sizes[i]) : "any");
      if (!same || !sizes[i]) continue;
      const bool more_rows = arch_.trims_embedding && f.row->shape.front() == 'V' && i == 0;
      same = more_rows ? shape[i] >= *sizes[i] : shape[i] == *sizes[i];
    }
    if (!same)
      throw Error(Fault::BadFile,
                  fmt::format("is {}{} but config.json makes it [{}]", to_text(shape),
                              turned(t, *f.row) ? " transposed" : "", fmt::join(wanted, ", ")));
  }

  std::optional<std::uint64_t> size_of(char letter) const {
    if (letter == 'V') return vocabulary_ ? std::optional(vocabulary_) : std::nullopt;
    const auto all = all_dimensions();
    const auto it = std::ranges::find(all, letter, &Dimension::letter);
    if (it == all.end()) throw Error(Fault::Internal, fmt::format("no dimension '{}'", letter));
    return config_.count(it->size);
  }

  void move(const LogicalTensor& t, const Found& f) {
    const TensorRow& row = *f.row;
    if (row.move == Move::Stack) return gather(t, f);
    TensorPtr values = keeps_blocks(t) ? mxfp4_blocks(*from_, t) : from_->open(t);
    ModelView::Origin origin{std::string(t.name), type_of(t), {}, from_->stored_bytes(t)};
    if (turned(t, row)) {
      values = experts_transposed(values);
      origin.how = "transposed";
    }
    const std::string name = filled_layer(row.gguf, f.numbers.layer);
    const bool weight = f.suffix == ".weight";
    switch (row.move) {
      case Move::PermuteHeads:
      case Move::PermuteKvHeads: {
        const std::uint64_t heads =
            config_.need(row.move == Move::PermuteHeads ? kHeadCount : kKvHeadCount);
        origin.how = fmt::format("{} heads permuted", heads);
        values = permuted(std::move(values), heads);
        break;
      }
      case Move::Transpose:
        if (weight) {
          values = transposed(std::move(values));
          origin.how = "transposed";
        }
        break;
      case Move::Halves: return halves(name, values, std::move(origin));
      case Move::SplitKvB: return split_kv(name, values, std::move(origin));
      case Move::Interleaved: return in_turn(name, values, std::move(origin));
      case Move::Same:
      case Move::TransposeExperts:
      case Move::Stack: break;
    }
    if (arch_.trims_embedding && row.gguf == "token_embd" && !values->shape().empty() &&
        vocabulary_ != 0 && values->shape()[0] > vocabulary_) {
      origin.how = fmt::format("the first {} of {} rows", vocabulary_, values->shape()[0]);
      values = rows_of(std::move(values), 0, vocabulary_);
    }
    if (arch_.norms_plus_one && weight && t.name.ends_with("norm.weight")) {
      values = added(std::move(values), 1);
      origin.how = "plus 1";
    }
    emit(name.ends_with(".bias") ? name : name + f.suffix, std::move(values), std::move(origin));
  }

  std::string type_of(const LogicalTensor& t) const {
    return t.count == 1 ? std::string(name_of(from_->part(t, 0).dtype))
                        : std::string(t.scheme->name);
  }

  void emit(const std::string& name, TensorPtr values, ModelView::Origin origin) {
    const DType type = values->dtype();
    const bool kept = type == DType::F32 || type == DType::F16 || type == DType::BF16 ||
                      type == DType::MXFP4;  // of gpt-oss, see keeps_blocks()
    if (!kept || is_f32_only(name, values->shape().size())) values = widened(values);
    if (values->shape().size() > 1 && !file_type_ &&
        (values->dtype() == DType::BF16 || values->dtype() == DType::F16))
      file_type_ = values->dtype() == DType::BF16 ? kMostlyBf16 : kMostlyF16;
    count(name, *values);
    view_.add(name, values, std::move(origin));
  }

  void count(const std::string& name, const Tensor& values) {
    const Shape& shape = values.shape();
    const std::uint64_t n = values.elements();
    parameters_ += n;
    if (name.find("_exps.") == name.npos || shape.size() < 3) {
      shared_ += n;
      return;
    }
    per_expert_ += shape.front() == 0 ? 0 : n / shape.front();
    experts_ = shape.front();
  }

  // --- moves that make several of one, or one of several

  void halves(const std::string& names, const TensorPtr& values, ModelView::Origin origin) {
    const Shape& s = values->shape();
    if (s.size() != 3 || s[1] % 2 != 0)
      throw Error(Fault::BadFile, fmt::format("{} is not two halves for each expert", to_text(s)));
    const std::size_t comma = names.find(',');
    origin.bytes /= 2;
    for (const bool second : {false, true}) {
      const Range rows = second ? Range{s[1] / 2, s[1]} : Range{0, s[1] / 2};
      origin.how = second ? "second half of each" : "first half of each";
      emit((second ? names.substr(comma + 1) : names.substr(0, comma)) + ".weight",
           slice(values, {{0, s[0]}, rows, {0, s[2]}}), origin);
    }
  }

  void in_turn(const std::string& names, const TensorPtr& values, ModelView::Origin origin) {
    const std::size_t comma = names.find(',');
    const std::string before = origin.how.empty() ? "" : origin.how + ", ";
    origin.bytes /= 2;
    for (const bool odd : {false, true}) {
      const std::string name = odd ? names.substr(comma + 1) : names.substr(0, comma);
      origin.how = before + (odd ? "odd rows of each" : "even rows of each");
      emit(name.ends_with(".bias") ? name : name + ".weight", every_second(values, odd), origin);
    }
  }

  // conversion/deepseek.py: rows are heads of keys and values; of each the keys are transposed.
  void split_kv(const std::string& names, const TensorPtr& values, ModelView::Origin origin) {
    const std::uint64_t heads = config_.need(kKvHeadCount), keys = config_.need("qk_nope_head_dim"),
                        wide = config_.need("v_head_dim");
    const Shape& s = values->shape();
    if (s.size() != 2 || heads == 0 || s[0] != heads * (keys + wide))
      throw Error(Fault::BadFile,
                  fmt::format("{} is not {} heads of {} + {} rows", to_text(s), heads, keys, wide));
    std::vector<TensorPtr> k, v;
    for (std::uint64_t h = 0; h < heads; ++h) {
      const std::uint64_t first = h * (keys + wide);
      k.push_back(transposed(rows_of(values, first, first + keys)));
      v.push_back(rows_of(values, first + keys, first + keys + wide));
    }
    const std::size_t comma = names.find(',');
    const std::uint64_t both = origin.bytes;
    origin.bytes = both / (keys + wide) * keys;
    origin.how = fmt::format("keys of {} heads, transposed", heads);
    emit(names.substr(0, comma) + ".weight", stacked(std::move(k)), origin);
    origin.bytes = both - origin.bytes;
    origin.how = fmt::format("values of {} heads", heads);
    emit(names.substr(comma + 1) + ".weight", stacked(std::move(v)), origin);
  }

  // A layer's experts are written when the last of them has come, one matrix after the other in the
  // order of the table.
  void gather(const LogicalTensor& t, const Found& f) {
    const std::uint64_t experts = expert_count();
    if (f.numbers.expert >= experts)
      throw Error(Fault::BadFile,
                  fmt::format("expert {}, but config.json says {}", f.numbers.expert, experts));
    if (f.suffix != ".weight") throw Error(Fault::Unsupported, "biases of experts are not known");
    auto& layer = gathered_[f.numbers.layer];
    layer[f.row].emplace(f.numbers.expert, &t);
    std::size_t matrices = 0, have = 0;
    for (const TensorRow& row : rows()) matrices += row.move == Move::Stack;
    for (const auto& [row, members] : layer) have += members.size();
    if (have < matrices * experts) return;
    for (const TensorRow& row : rows()) {
      if (row.move != Move::Stack) continue;
      const auto& members = layer.at(&row);
      std::vector<TensorPtr> all;
      std::uint64_t bytes = 0;
      for (const auto& [x, tensor] : members) {
        all.push_back(from_->open(*tensor));
        bytes += from_->stored_bytes(*tensor);
      }
      const std::string one(members.begin()->second->name);
      std::string names = one;
      if (const std::size_t at = names.find(".experts.0."); at != names.npos)
        names.replace(at + 9, 1, fmt::format("{{0..{}}}", experts - 1));
      emit(filled_layer(row.gguf, f.numbers.layer) + ".weight", stacked(std::move(all)),
           {names, type_of(*members.begin()->second), fmt::format("{} stacked", experts), bytes});
    }
    gathered_.erase(f.numbers.layer);
  }

  std::uint64_t expert_count() const {
    const std::uint64_t n = config_.need(kExpertCount);
    if (n == 0 || n > from_->tensors.size())
      throw Error(Fault::BadFile, fmt::format("config.json says {} experts, but there are {} "
                                              "tensors in all",
                                              n, from_->tensors.size()));
    return n;
  }

  // --- what must be there

  void check_experts() {
    for (const auto& [layer, came] : gathered_)
      for (const TensorRow& row : rows()) {
        if (row.move != Move::Stack) continue;
        const auto have = came.find(&row);
        for (std::uint64_t x = 0, n = expert_count(); x < n; ++x)
          if (have == came.end() || !have->second.contains(x)) {
            std::string name = filled_layer(row.hf, layer);
            name.replace(name.find("{X}"), 3, std::to_string(x));
            missing_.push_back(arch_.prefixes.empty()
                                   ? name + ".weight"
                                   : std::string(arch_.prefixes[0]) + name + ".weight");
          }
      }
  }

  bool have(std::string_view gguf, std::uint64_t layer, std::string_view suffix) {
    const std::string name = filled_layer(gguf.substr(0, gguf.find(',')), layer);
    return view_.model().catalog.find(name.ends_with(".bias") ? name : name + std::string(suffix));
  }

  bool wanted(const TensorRow& row, std::uint64_t layer) {
    const auto any_of = [&](Presence p) {
      for (const TensorRow& r : rows())
        if (r.presence == p && have(r.gguf, layer, ".weight")) return true;
      return gathered_.contains(layer) && p == Presence::Experts;
    };
    switch (row.presence) {
      case Presence::Always: return true;
      case Presence::Optional: return false;
      case Presence::Dense: return !any_of(Presence::Experts);
      case Presence::Experts: return any_of(Presence::Experts);
      case Presence::Direct: return !any_of(Presence::LowRank);
      case Presence::LowRank: return any_of(Presence::LowRank);
    }
    return false;
  }

  void check_complete() {
    std::set<std::string> told;  // rows that make the same tensor are alternatives
    const auto check = [&](const TensorRow& row, std::uint64_t layer) {
      if (!wanted(row, layer)) return;
      for (const std::string_view suffix : {".weight", ".bias"}) {
        if (suffix == ".bias" && row.bias != Bias::Required) continue;
        if (have(row.gguf, layer, suffix)) continue;
        if (row.move == Move::Stack && gathered_.contains(layer)) continue;  // told one by one
        if (!told.insert(filled_layer(row.gguf.substr(0, row.gguf.find(',')), layer) +
                         std::string(suffix))
                 .second)
          continue;
        missing_.push_back((arch_.prefixes.empty() || row.hf == "lm_head"
                                ? std::string()
                                : std::string(arch_.prefixes[0])) +
                           filled_layer(row.hf, layer) + std::string(suffix));
      }
    };
    for (const TensorRow& row : rows())
      if (row.hf.find("{L}") == row.hf.npos) check(row, 0);
    for (std::uint64_t layer = 0; layer < layers_; ++layer)
      for (const TensorRow& row : rows())
        if (row.hf.find("{L}") != row.hf.npos) check(row, layer);
  }

  // Everything that is wrong, at once.
  void check_all() {
    // A tensor that is there and wrong is not missing as well.
    std::erase_if(missing_, [&](const std::string& name) {
      return std::ranges::any_of(
          problems_, [&](const std::string& p) { return p.find(quoted(name)) != p.npos; });
    });
    if (unmapped_.empty() && missing_.empty() && problems_.empty()) return;
    std::vector<std::string> parts;
    constexpr std::size_t kShown = 20;
    const auto list = [&](const std::vector<std::string>& names, std::string_view what) {
      if (names.empty()) return;
      parts.push_back(fmt::format("{} tensor{} {}: {}", names.size(), names.size() == 1 ? "" : "s",
                                  what, first_few_names(names, kShown)));
    };
    if (!problems_.empty()) parts.push_back(first_few(problems_, kShown, "; "));
    list(missing_, "missing");
    list(unmapped_, fmt::format("that {} does not have", config_.hf_class()));
    const bool damaged = !missing_.empty() || !problems_.empty();
    throw Error(damaged ? Fault::BadFile : Fault::Unsupported,
                fmt::format("{}", fmt::join(parts, "; ")))
        .in(from_->path)
        .hint(unmapped_.empty() ? "nothing was written"
                                : "-x leaves tensors out before they are mapped");
  }

  // --- metadata

  Metadata metadata() {
    Metadata meta;
    add_general(*from_, config_.root(),
                {.architecture = arch_.name,
                 .parameters = parameters_,
                 .shared_parameters = shared_,
                 .expert_parameters = per_expert_,
                 .experts = experts_},
                meta, notes_);
    add_architecture_keys(*from_, config_, file_type_.value_or(kAllF32), meta);
    meta.set("general.quantization_version", std::uint32_t{2});
    for (const MetaEntry& e : tokens_) meta.set(e.key, e.value);
    for (const auto& [why, n] : drops_)
      notes_.push_back(fmt::format("left out: {} tensor{}: {}", n, n == 1 ? "" : "s", why));
    for (std::string& text : differences_to_engine(config_)) notes_.push_back(std::move(text));
    warn_of_loader();
    return meta;
  }

  // llama.cpp v0.5.0, src/models/deepseek2.cpp: without a low rank of queries only these sizes.
  void warn_of_loader() {
    if (arch_.name != "deepseek2" || config_.count("q_lora_rank")) return;
    if (layers_ == 26 || layers_ == 27 || (layers_ == 48 && vocabulary_ == 128256)) return;
    notes_.push_back(fmt::format(
        "llama.cpp takes a deepseek2 without q_lora_rank only of 26 or 27 layers, not {}",
        layers_));
  }

  static constexpr std::uint32_t kAllF32 = 0, kMostlyF16 = 1, kMostlyBf16 = 32;  // llama_ftype

  std::shared_ptr<const Model> from_;
  const GgufViewOptions& options_;
  HfConfig config_;
  const Architecture& arch_;
  ViewBuilder view_;
  Metadata tokens_;
  std::uint64_t vocabulary_ = 0, layers_ = 0;
  std::uint64_t parameters_ = 0, shared_ = 0, per_expert_ = 0, experts_ = 0;
  std::optional<std::uint32_t> file_type_;
  std::map<std::uint64_t, std::map<const TensorRow*, std::map<std::uint64_t, const LogicalTensor*>>>
      gathered_;  // of layers whose experts have not all come
  std::map<std::string, std::size_t> drops_;
  std::vector<std::string> unmapped_, missing_, problems_, notes_;
};

}  // namespace

// What the reference and llama.cpp's quantiser keep in f32 (conversion/base.py, prepare_tensors).
bool is_f32_only(std::string_view gguf, std::size_t rank) noexcept {
  constexpr std::string_view kNames[] = {"ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight",
                                         "position_embd.weight", "token_types.weight"};
  return rank <= 1 || gguf.ends_with("_norm.weight") || !gguf.ends_with(".weight") ||
         std::ranges::any_of(kNames, [&](std::string_view s) { return gguf.ends_with(s); });
}

ModelView gguf_view(std::shared_ptr<const Model> folder, const GgufViewOptions& options) {
  return GgufMapper(std::move(folder), options).run();
}

bool is_hf_folder(const Model& model) {
  return model.catalog.format == "safetensors" && model.is_folder;
}

}  // namespace wtool
