#include "cli/quantize_plan.h"

#include <algorithm>
#include <span>
#include <unordered_map>
#include <unordered_set>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/listing.h"
#include "lib/base/text.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/importance_names.h"
#include "lib/numeric/policy.h"
#include "lib/numeric/quantizer.h"
#include "lib/trust/digest.h"

namespace wtool {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::size_t kShown = 20;

std::string_view module_of(std::string_view name) {
  return name.substr(0, name.size() - kWeight.size());
}
bool is_linear(const LogicalTensor& t) {
  return t.name.ends_with(kWeight) && t.shape.size() == 2;
}
bool is_block(DType type) {
  return info(type).kind == Kind::Block;
}

std::vector<std::string> folded_together(const std::vector<std::string>& names) {
  std::vector<std::pair<std::string, std::size_t>> groups;
  std::unordered_map<std::string, std::size_t> at;
  for (const std::string& name : names) {
    const auto [it, fresh] = at.emplace(folded(name), groups.size());
    if (fresh) groups.emplace_back(name, 0);
    auto& [shown, n] = groups[it->second];
    if (++n == 2) shown = it->first;
  }
  std::vector<std::string> out;
  for (const auto& [name, n] : groups) out.push_back(n > 1 ? fmt::format("{} x{}", name, n) : name);
  return out;
}

// All the names while they are few; else those that differ in numbers only as one.
std::string listed(std::vector<std::string> names, std::string_view between = ", ") {
  if (names.size() > kShown) names = folded_together(names);
  return first_few(names, kShown, between);
}

std::shared_ptr<const Model> open_matrix(const std::string& path, const Context& context) {
  return open_input({.path = path, .alone = false, .void_as = {}}, context);
}

}  // namespace

// ---- The importance matrix

ImportanceFile::ImportanceFile(const std::string& path, const Context& context)
    : path_(path), model_(open_matrix(path, context)), matrix_(Importance::read(model_)) {
  std::vector<Extent> files;
  for (const SourcePtr& s : model_->catalog.sources()) files.push_back({s, 0, s->size()});
  sha256_ = sha256_of(files, context.run).front().hex();
}

void ImportanceFile::record(Metadata& meta) const {
  // The types are llama-quantize's: strings and u32.
  meta.set("quantize.imatrix.file", path_);
  if (!matrix_.datasets().empty()) meta.set("quantize.imatrix.dataset", matrix_.datasets().front());
  meta.set("quantize.imatrix.entries_count", static_cast<std::uint32_t>(matrix_.entries().size()));
  if (const auto chunks = matrix_.chunk_count(); chunks && *chunks > 0)
    meta.set("quantize.imatrix.chunks_count", static_cast<std::uint32_t>(*chunks));
  meta.set("wtool.imatrix.sha256", sha256_);
}

// ---- The plan

QuantizePlanner::QuantizePlanner(Job& job, const QuantizeRequest& request, const Scheme& scheme,
                                 NameStyle style)
    : job_(job),
      model_(*job.model),
      request_(request),
      gguf_(job.to.format->name == "gguf"),
      style_(style),
      scheme_(job, scheme) {}

void QuantizePlanner::plan() {
  choose_winners();
  if (request_.all.mix) apply_mix_to_rest();
  share_scales();
  for (const TensorEntry& entry : model_.catalog.entries()) {
    const std::uint32_t i = job_.owner[model_.catalog.index_of(entry)];
    const LogicalTensor& t = model_.tensors[i];
    if (t.count > 1) {
      add_copy(job_, entry, fmt::format("already quantized ({})", t.scheme->name), true);
      already_ += &model_.part(t, 0) == &entry;
      if (winner_[i] != kNoRule) refuse(t, "quantized already");
      continue;
    }
    one(i, t, entry);
  }
  refuse_all();
  if (request_.importance) {
    check_importance();
    remark_importance();
  }
}

void QuantizePlanner::choose_winners() {
  winner_.assign(model_.tensors.size(), kNoRule);
  for (std::size_t r = 0; r < request_.rules.size(); ++r)
    for (std::size_t i = 0; i < winner_.size(); ++i)
      if (request_.rules[r].matches[i]) winner_[i] = r;
}

void QuantizePlanner::apply_mix_to_rest() {
  MixFacts facts = mix_facts(model_, style_);
  facts.importance = request_.importance != nullptr;
  std::vector<MixTensor> tensors;
  tensors.reserve(model_.tensors.size());
  for (std::size_t i = 0; i < model_.tensors.size(); ++i) {
    const LogicalTensor& t = model_.tensors[i];
    const bool decided = winner_[i] != kNoRule || !job_.chosen[i] || t.count > 1;
    tensors.push_back({t.name, t.dtype, t.shape, decided});
  }
  mixed_ = apply_mix(*request_.all.mix, facts, tensors, style_, {.pure = request_.pure});
}

QuantizePlanner::Decision QuantizePlanner::decide(std::uint32_t i) const {
  const auto keep = [](std::string why) { return Decision{std::nullopt, std::move(why)}; };
  if (winner_[i] != kNoRule) {
    const Override& rule = request_.rules[winner_[i]];
    if (rule.choice.what == Choice::What::Keep) return keep(rule.label);
    // Patterns are for weights: norms and biases that they take in as well stay, as in llama.cpp.
    const LogicalTensor& t = model_.tensors[i];
    if (!rule.by_name && rule.choice.what == Choice::What::Cast && is_block(rule.choice.dtype))
      if (const auto why = mix_keep_reason(t.name, t.dtype, t.shape))
        return keep(std::string(*why));
    return {rule.choice, rule.label};
  }
  if (!job_.chosen[i]) return keep("not selected");
  if (request_.all.mix) {
    const MixChoice& c = mixed_[i];
    if (!c.type) return keep(c.reason);
    return {Choice{Choice::What::Cast, *c.type, {}, true}, c.reason};
  }
  if (request_.all.choice.what == Choice::What::Keep) return keep("no rule");
  if (auto why = reason_to_keep(model_.tensors[i])) return keep(std::move(*why));
  return {request_.all.choice, ""};
}

void QuantizePlanner::one(std::uint32_t i, const LogicalTensor& t, const TensorEntry& entry) {
  Decision d = decide(i);
  if (!d.choice) return keep(t, entry, std::move(d.reason));
  if (d.choice->what == Choice::What::Scheme) return quantize_one(t, entry, *d.choice);
  cast_one(t, entry, {d.choice->dtype, std::move(d.reason)});
}

// What engines load as one matrix has one global scale.
void QuantizePlanner::share_scales() {
  std::vector<std::uint32_t> tensors;
  std::optional<SchemeOptions> options;
  for (std::uint32_t i = 0; i < model_.tensors.size(); ++i) {
    if (model_.tensors[i].count > 1) continue;
    const Decision d = decide(i);
    if (!d.choice || d.choice->what != Choice::What::Scheme ||
        d.choice->scheme.levels != Levels::Nvfp4)
      continue;
    options = d.choice->scheme;
    if (!scheme_.scheme().refuses(*model_.open(model_.tensors[i]), *options)) tensors.push_back(i);
  }
  if (options) scheme_.share(tensors, *options);
}

// Halving a safetensors model takes every float with it; all else goes by role.
std::optional<std::string> QuantizePlanner::reason_to_keep(const LogicalTensor& t) const {
  const Choice& all = request_.all.choice;
  const bool halving = all.what == Choice::What::Cast && info(all.dtype).kind == Kind::Float;
  // Blocks are judged as the weights they hold: whether to quantize them again is asked later.
  const DType type = is_block(t.dtype) ? DType::F32 : t.dtype;
  if (!halving || gguf_) {
    const auto why = keep_reason(t.name, type, t.shape, style_);
    return why ? std::optional<std::string>(*why) : std::nullopt;
  }
  if (t.dtype == DType::F64 || t.dtype == DType::F32 || t.dtype == DType::F16 ||
      t.dtype == DType::BF16)
    return std::nullopt;
  return info(t.dtype).kind == Kind::Float ? "already 8 bits or fewer" : "not floating-point";
}

void QuantizePlanner::keep(const LogicalTensor& t, const TensorEntry& entry, std::string why) {
  if (why == "embedding") embedding_ = true;
  if (is_linear(t) && why != "embedding" && why != "norm") ignored_.emplace_back(module_of(t.name));
  add_copy(job_, entry, std::move(why), true);
}

void QuantizePlanner::refuse(const LogicalTensor& t, const std::string& why) {
  auto it = std::ranges::find(refused_, why, &Refusal::why);
  if (it == refused_.end()) it = refused_.insert(refused_.end(), {why, {}});
  it->names.push_back(quoted(t.name));
}

// ---- Plain types and ggml's blocks

void QuantizePlanner::cast_one(const LogicalTensor& t, const TensorEntry& entry, const Goal& goal) {
  if (t.dtype == goal.type) return keep(t, entry, fmt::format("already {}", name_of(goal.type)));
  if (is_block(goal.type)) return block_one(t, entry, goal);
  plain_one(t, entry, goal);
}

void QuantizePlanner::plain_one(const LogicalTensor& t, const TensorEntry& entry,
                                const Goal& goal) {
  const TensorPtr values = model_.open(t);
  if (const auto why = cast_refuses(*values, goal.type)) {
    if (request_.fallback) return keep(t, entry, *why);
    return refuse(t, *why);
  }
  if (is_linear(t)) ignored_.emplace_back(module_of(t.name));
  const std::size_t before = job_.plan.steps.size();
  job_.plan.steps.push_back(cast_step((*job_.rename)(t.name), values, goal.type,
                                      {.saturate = request_.saturate, .measure = true}));
  add_encoded(job_, t, before, std::string(name_of(goal.type)));
  job_.fates.back().reason = goal.reason;
}

void QuantizePlanner::block_one(const LogicalTensor& t, const TensorEntry& entry,
                                const Goal& goal) {
  const Kind kind = info(t.dtype).kind;
  if (kind == Kind::Block && !request_.requantize) {
    again_ = true;
    return refuse(t, fmt::format("{} already; again loses more", name_of(t.dtype)));
  }
  if (!find_codec(t.dtype))
    return refuse(
        t, fmt::format("the values of {} cannot be decoded by this version", name_of(t.dtype)));
  if (kind != Kind::Float && kind != Kind::Block)
    return refuse(t, fmt::format("{} values are no weights to be stored as {}", name_of(t.dtype),
                                 name_of(goal.type)));
  const auto type = fitting(t, goal.type);
  if (!type) return;
  std::string why;
  if (*type != goal.type)
    why = fmt::format("{}, not {}: rows of {} do not fill blocks of {}", name_of(*type),
                      name_of(goal.type), t.shape.back(), info(goal.type).block_elems);
  const std::size_t fates = job_.fates.size();
  if (*type == t.dtype) {
    keep(t, entry, why);
  } else if (!is_block(*type)) {
    plain_one(t, entry, {*type, goal.reason});
  } else {
    any_blocks_ = true;
    std::string importance;
    const QuantizeOptions options = weigh(t, *type, importance);
    const std::size_t before = job_.plan.steps.size();
    job_.plan.steps.push_back(
        quantize_step((*job_.rename)(t.name), model_.open(t), *type, options));
    add_encoded(job_, t, before, std::string(name_of(*type)));
    job_.fates.back().importance = importance;
  }
  if (job_.fates.size() == fates) return;  // refused
  Fate& fate = job_.fates.back();
  fate.reason = goal.reason;
  if (why.empty()) return;
  fate.why = why;
  fate.instead_of = name_of(goal.type);
}

// The type itself, or with --fallback what the reference takes where rows do not fill its blocks.
// Nothing: refused.
std::optional<DType> QuantizePlanner::fitting(const LogicalTensor& t, DType type) {
  const std::uint64_t columns = t.shape.empty() ? 1 : t.shape.back();
  const std::uint64_t block = info(type).block_elems;
  if (element_count(t.shape) == 0 || columns % block == 0) return type;
  const auto other = fallback_type(type, columns);
  if (other && request_.fallback) return other;
  misfit_ = true;
  offered_ |= other.has_value();
  refuse(t, fmt::format("rows of {} are not a multiple of {}, the block of {}{}", columns, block,
                        name_of(type),
                        other ? fmt::format(" (--fallback: {})", name_of(*other))
                              : ", which has no fallback"));
  return std::nullopt;
}

// How much each column counts, if the matrix knows and the type makes use of it.
QuantizeOptions QuantizePlanner::weigh(const LogicalTensor& t, DType type, std::string& state) {
  QuantizeOptions options{.method = request_.method, .importance = nullptr};
  if (!request_.importance) return options;
  if (!find_quantizer(type)->weighted) {
    state = "ignored";
    ++unmoved_;
    return options;
  }
  options.importance = importance_of(t, state);
  return options;
}

// By the tensor's own name, in the output or the input, or by the one that llama.cpp's matrices
// have for a weight of a Hugging Face model.
ColumnImportance QuantizePlanner::importance_of(const LogicalTensor& t, std::string& state) {
  const Importance& matrix = request_.importance->matrix();
  const Importance::Entry* entry = matrix.find((*job_.rename)(t.name));
  if (!entry) entry = matrix.find(t.name);
  std::uint64_t begin = 0;
  Shape shape(t.shape.begin(), t.shape.end());
  if (const auto other = entry ? std::nullopt : importance_name(t.name)) {
    entry = matrix.find(other->name);
    if (entry && other->expert) {
      // One matrix of a stack: as many as the entry has.
      const std::uint64_t columns = shape.back(), experts = columns ? entry->values / columns : 0;
      shape.insert(shape.begin(), std::max(experts, *other->expert + 1));
      begin = *other->expert * columns;
    }
  }
  const Part part = part_of(t.name, style_);
  const bool forgiven = part == Part::Embedding || part == Part::Output;
  const auto misfit = entry ? Importance::mismatch(*entry, shape) : std::nullopt;
  if (!entry || misfit) {
    state = entry ? "mismatch" : "missing";
    // As the reference does: matrices have nothing that fits the embedding.
    if (misfit && part != Part::Embedding)
      misfits_.push_back(fmt::format("{} ({})", quoted(t.name), *misfit));
    else
      unweighted_.push_back(quoted(t.name));
    if (!forgiven) unforgiven_.push_back(misfit ? misfits_.back() : unweighted_.back());
    return nullptr;
  }
  state = kImportanceUsed;
  ++weighted_;
  return [file = request_.importance, entry, begin](std::uint64_t first, std::span<float> out) {
    file->matrix().read(*entry, begin + first, out);
  };
}

void QuantizePlanner::check_importance() const {
  const std::string& path = request_.importance->path();
  const std::size_t entries = request_.importance->matrix().entries().size();
  if (weighted_ == 0 && !misfits_.empty())
    throw Error(Fault::Usage, "no entry fits this model: " + listed(misfits_)).in(path);
  if (entries > 0 && strangers().size() == entries)
    throw Error(Fault::Usage, fmt::format("none of its {} entries belongs to a tensor", entries))
        .in(path)
        .hint("entries go by tensor names, here " +
              listed(unweighted_.empty() ? std::vector{quoted(job_.fates[0].name)} : unweighted_));
  const Mix* mix = request_.all.mix;
  const bool needed = mix && mix->needs_importance;
  if (!unforgiven_.empty() && (request_.require_importance || needed))
    throw Error(Fault::Usage, "nothing that fits " + listed(unforgiven_))
        .in(path)
        .hint(needed ? fmt::format("{} needs it; -T gives these another type", mix->name)
                     : "without --require-imatrix they are quantized unweighted");
}

// Entries that name no tensor: signs of another model's matrix.
std::vector<std::string> QuantizePlanner::strangers() const {
  std::unordered_set<std::string_view> names;
  std::unordered_set<std::string> known;
  for (const Fate& f : job_.fates) {
    names.insert({f.name, f.source});
    if (const auto other = importance_name(f.source)) known.insert(other->name);
  }
  std::vector<std::string> out;
  for (const Importance::Entry& e : request_.importance->matrix().entries())
    if (!names.contains(e.name) && !known.contains(std::string(e.name)))
      out.push_back(quoted(e.name));
  return out;
}

void QuantizePlanner::remark_importance() {
  job_.remarks.push_back(
      fmt::format("importance matrix: {} tensors weighted by it{}", weighted_,
                  unmoved_ ? fmt::format(", {} of types that make no use of one", unmoved_) : ""));
  if (!unweighted_.empty())
    job_.remarks.push_back("importance matrix: no entry for " + listed(unweighted_));
  if (!misfits_.empty())
    job_.remarks.push_back("importance matrix: another shape than " + listed(misfits_));
  if (const auto unknown = strangers(); !unknown.empty())
    job_.remarks.push_back("importance matrix: entries without a tensor: " + listed(unknown));
}

// ---- Integers with scales

void QuantizePlanner::quantize_one(const LogicalTensor& t, const TensorEntry& entry,
                                   const Choice& choice) {
  std::string state;
  ColumnImportance importance;
  const bool weighs = request_.importance && choice.scheme.method != ScaleMethod::Rtn &&
                      choice.scheme.levels != Levels::Nf4;
  if (request_.importance && !weighs) {
    state = "ignored";
    ++unmoved_;
  }
  if (weighs && !scheme_.scheme().refuses(*model_.open(t), choice.scheme))
    importance = importance_of(t, state);
  const auto why = scheme_.add(t, choice, std::move(importance));
  if (!why) {
    job_.fates.back().importance = state;
    return;
  }
  const bool asked = winner_[static_cast<std::size_t>(&t - model_.tensors.data())] != kNoRule;
  if (!asked || request_.fallback) return keep(t, entry, *why);
  refuse(t, *why);
}

std::vector<std::string> QuantizePlanner::ignored() const {
  std::vector<std::string> out = ignored_;
  const auto has = [&](std::string_view m) { return std::ranges::find(out, m) != out.end(); };
  if (embedding_ && !model_.catalog.find("lm_head.weight") && !has("lm_head"))
    out.emplace_back("lm_head");  // tied to the embedding: still a Linear to the engine
  return out;
}

void QuantizePlanner::refuse_all() const {
  if (refused_.empty()) return;
  std::vector<std::string> lines;
  for (const Refusal& r : refused_)
    lines.push_back(fmt::format("{} {}: {}", r.names.size() > 1 ? "tensors" : "tensor",
                                listed(r.names), r.why));
  throw Error(Fault::Usage, listed(lines, "; "))
      .hint(again_     ? "--requantize does it all the same"
            : offered_ ? "--fallback stores the types in brackets; -T 'NAME=TYPE' chooses others"
            : misfit_  ? "-T 'NAME=TYPE' chooses another type, 'NAME=keep' leaves a tensor as it is"
                       : "--fallback keeps them as they are; -T 'NAME=TYPE' chooses another type");
}

}  // namespace wtool
