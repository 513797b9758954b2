#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "cli/rewrite.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/policy.h"
#include "lib/numeric/steps.h"

namespace wtool {
namespace {

struct Options : RewriteOptions {
  bool fp16 = false, bf16 = false, int8 = false, int4 = false, w8a8 = false;
  std::string type;                // ggml type
  std::vector<std::string> types;  // -T PATTERN=TYPE
  std::vector<std::string> gates;
  bool fallback = false, allow_requantize = false;
};

// What a tensor is to become.
struct Choice {
  enum class What : std::uint8_t { Keep, Cast, Int } what = What::Keep;
  DType dtype = DType::F32;  // Cast
  unsigned bits = 0;         // Int
  bool activations = false;  // Int: int8 at run time too
};

constexpr std::string_view kScheme = "compressed-tensors";
constexpr std::array<std::uint64_t, 3> kGroups{128, 64, 32};

Choice cast(DType to) {
  return {Choice::What::Cast, to, 0, false};
}
Choice integer(unsigned bits, bool activations = false) {
  return {Choice::What::Int, DType::F32, bits, activations};
}

// The meaning of a name depends on the container: int8 is Q8_0 in GGUF.
Choice choice_named(const std::string& name, bool gguf) {
  const std::string s = lower(name);
  if (s == "keep") return {};
  if (s == "int8" || s == "int4") {
    if (gguf) return cast(s == "int8" ? DType::Q8_0 : DType::Q4_0);
    return integer(s == "int8" ? 8 : 4);
  }
  if (s == "w8a8" && !gguf) return integer(8, true);
  const auto type = parse_dtype(s);
  const bool plain = type == DType::F16 || type == DType::BF16 || type == DType::F32;
  const bool block = type == DType::Q8_0 || type == DType::Q4_0;
  if (plain || (gguf && block)) return cast(*type);
  static constexpr std::array<std::string_view, 9> kNames{"keep", "int8", "int4", "w8a8", "f16",
                                                          "bf16", "f32",  "q8_0", "q4_0"};
  if (type)
    throw Error(Fault::Usage, fmt::format("cannot quantize to {} in {}", quoted(name),
                                          gguf ? "GGUF" : "safetensors"))
        .hint(gguf ? "keep, int8 (q8_0), int4 (q4_0), f16, bf16, f32; other ggml types come with a "
                     "later version"
                   : "keep, int8, int4, w8a8, f16, bf16, f32");
  // llama.cpp's mixes: q4_k_m, iq3_xs, q3_k_l, …
  const bool mix = (s.starts_with("q") || s.starts_with("iq")) && s.find('_') != s.npos;
  if (mix)
    throw Error(Fault::Usage, fmt::format("{} is not in this version of wtool", quoted(name)))
        .hint("q8_0 (--int8) and q4_0 (--int4) are");
  const auto near = nearest(s, kNames);
  throw Error(Fault::Usage, fmt::format("unknown type {}", quoted(name)))
      .hint(near.empty() ? "keep, int8, int4, f16, bf16, f32; in GGUF also q8_0, q4_0"
                         : fmt::format("did you mean {}?", quoted(near)));
}

struct Asked {
  Choice choice;
  std::string label;  // names the output: "int8"
};
Asked asked_for(const Options& o, bool gguf) {
  std::vector<std::string> names;
  if (o.fp16) names.push_back("f16");
  if (o.bf16) names.push_back("bf16");
  if (o.int8) names.push_back("int8");
  if (o.int4) names.push_back("int4");
  if (o.w8a8) names.push_back("w8a8");
  if (!o.type.empty()) names.push_back(lower(o.type));
  if (names.size() > 1)
    throw Error(Fault::Usage, fmt::format("choose one of {}", fmt::join(names, ", ")))
        .hint("-T PATTERN=TYPE gives some tensors another type");
  if (names.empty()) {
    if (o.types.empty())
      throw Error(Fault::Usage, "no type given").hint("--int8, --int4, --w8a8, --bf16 or --fp16");
    return {{}, "mixed"};
  }
  if (!o.type.empty() && !gguf)
    throw Error(Fault::Usage, "--type is for GGUF output")
        .hint("for safetensors: --int8, --int4, --w8a8; or --to gguf");
  if (o.w8a8 && gguf)
    throw Error(Fault::Usage, "--w8a8 is a safetensors scheme").hint("for GGUF: --int8 (q8_0)");
  return {choice_named(names[0], gguf), names[0]};
}

// Whose names these are; any container may hold either.
NameStyle style_of(const Model& model) {
  const bool ggml = std::ranges::any_of(model.tensors, [](const LogicalTensor& t) {
    return t.name.starts_with("blk.") || t.name == "token_embd.weight";
  });
  return ggml ? NameStyle::Ggml : NameStyle::HuggingFace;
}

// Works through the model: one tensor at a time, in file order.
class Planner {
 public:
  Planner(Job& job, const Options& o, const Context& context, Choice all)
      : job_(job),
        model_(*job.model),
        o_(o),
        scheme_(context.registry.scheme(kScheme)),
        gguf_(job.to.format->name == "gguf"),
        all_(all),
        style_(style_of(model_)) {
    for (const std::string& r : o.types) {
      rules_.push_back(parse_type_rule(r));
      choices_.push_back(choice_named(rules_.back().type, gguf_));
    }
    winner_ = last_matching(model_.tensors, rules_, o.select.allow_unmatched);
  }

  void plan() {
    for (const TensorEntry& entry : model_.catalog.entries()) {
      const std::uint32_t i = job_.owner[model_.catalog.index_of(entry)];
      const LogicalTensor& t = model_.tensors[i];
      if (t.count > 1) {
        add_copy(job_, entry, fmt::format("already quantized ({})", t.scheme->name), true);
        already_ += &model_.part(t, 0) == &entry;
        if (is_ruled(i))
          refused_.push_back(fmt::format("tensor {} is quantized already", quoted(t.name)));
        continue;
      }
      one(i, t, entry);
    }
    refuse_all();
  }

  const std::vector<ConfigGroup>& groups() const { return groups_; }
  std::size_t already() const { return already_; }
  bool any_blocks() const { return any_blocks_; }

  // Modules that stay as they are: whatever an engine would take for a Linear.
  std::vector<std::string> ignored() const {
    std::vector<std::string> out = ignored_;
    const auto has = [&](std::string_view m) { return std::ranges::find(out, m) != out.end(); };
    if (embedding_ && !model_.catalog.find("lm_head.weight") && !has("lm_head"))
      out.emplace_back("lm_head");  // tied to the embedding: still a Linear to the engine
    return out;
  }

 private:
  std::uint32_t index_of(const LogicalTensor& t) const {
    return static_cast<std::uint32_t>(&t - model_.tensors.data());
  }
  bool is_ruled(std::uint32_t i) const { return winner_[i] != std::string::npos; }

  void one(std::uint32_t i, const LogicalTensor& t, const TensorEntry& entry) {
    if (!is_ruled(i)) {
      if (!job_.chosen[i]) return keep(t, entry, "not selected");
      if (all_.what == Choice::What::Keep) return keep(t, entry, "no rule");
      if (const auto why = reason_to_keep(t)) return keep(t, entry, std::string(*why));
    }
    const Choice choice = is_ruled(i) ? choices_[winner_[i]] : all_;
    switch (choice.what) {
      case Choice::What::Keep:
        return keep(t, entry, fmt::format("-T {}=keep", rules_[winner_[i]].pattern));
      case Choice::What::Cast: return cast_one(t, entry, choice.dtype);
      case Choice::What::Int: return quantize_one(t, entry, choice);
    }
  }

  // Halving a safetensors model takes every float with it; all else goes by role.
  std::optional<std::string_view> reason_to_keep(const LogicalTensor& t) const {
    const bool halving = all_.what == Choice::What::Cast && info(all_.dtype).kind == Kind::Float;
    // Blocks are judged as the weights they hold: whether to quantize them again is asked later.
    const DType type = info(t.dtype).kind == Kind::Block ? DType::F32 : t.dtype;
    if (!halving || gguf_) return keep_reason(t.name, type, t.shape, style_);
    if (t.dtype == DType::F64 || t.dtype == DType::F32 || t.dtype == DType::F16 ||
        t.dtype == DType::BF16)
      return std::nullopt;
    return info(t.dtype).kind == Kind::Float ? "already 8 bits or fewer" : "not floating-point";
  }

  void keep(const LogicalTensor& t, const TensorEntry& entry, std::string why) {
    const bool weight = t.name.ends_with(".weight");
    if (why == "embedding") embedding_ = true;
    if (weight && t.shape.size() == 2 && why != "embedding" && why != "norm")
      ignored_.emplace_back(t.name.substr(0, t.name.size() - std::string_view(".weight").size()));
    add_copy(job_, entry, std::move(why), true);
  }

  void cast_one(const LogicalTensor& t, const TensorEntry& entry, DType to) {
    if (t.dtype == to) return keep(t, entry, fmt::format("already {}", name_of(to)));
    const TensorPtr values = model_.open(t);
    const bool blocks = info(to).kind == Kind::Block;
    if (info(t.dtype).kind == Kind::Block && blocks && !o_.allow_requantize) {
      refused_.push_back(fmt::format("tensor {} is {} already; again loses more", quoted(t.name),
                                     name_of(t.dtype)));
      requantize_ = true;
      return;
    }
    if (const auto why = cast_refuses(*values, to)) {
      if (o_.fallback) return keep(t, entry, *why);
      refused_.push_back(fmt::format("tensor {}: {}", quoted(t.name), *why));
      return;
    }
    if (!blocks && t.name.ends_with(".weight") && t.shape.size() == 2)
      ignored_.emplace_back(t.name.substr(0, t.name.size() - std::string_view(".weight").size()));
    any_blocks_ |= blocks;
    const std::size_t before = job_.plan.steps.size();
    job_.plan.steps.push_back(
        cast_step((*job_.rename)(t.name), values, to, {.saturate = o_.saturate, .measure = true}));
    add_encoded(job_, t, before, std::string(name_of(to)));
  }

  void quantize_one(const LogicalTensor& t, const TensorEntry& entry, const Choice& choice) {
    const TensorPtr values = model_.open(t);
    SchemeOptions options{.bits = choice.bits, .group = 0, .activations = choice.activations};
    std::optional<std::string> why, first_why;
    if (choice.activations) {
      why = scheme_.refuses(*values, options);
    } else {
      for (const std::uint64_t group : kGroups) {
        options.group = group;
        why = scheme_.refuses(*values, options);
        if (!first_why) first_why = why;
        if (!why) break;
      }
    }
    if (why) {
      const bool asked = is_ruled(index_of(t));
      if (!asked || o_.fallback) return keep(t, entry, *why);
      refused_.push_back(fmt::format("tensor {}: {}", quoted(t.name), *why));
      return;
    }
    const Target target{(*job_.rename)(t.name), values};
    const std::size_t before = job_.plan.steps.size();
    scheme_.encode(std::span(&target, 1), options, job_.plan);
    add_encoded(job_, t, before, describe(options), first_why.value_or(""));
    add_to_group(options, target.name);
  }

  static std::string describe(const SchemeOptions& options) {
    if (options.activations) return "int8 per channel (w8a8)";
    return fmt::format("int{} (group {})", options.bits, options.group);
  }

  void add_to_group(const SchemeOptions& options, const std::string& name) {
    const auto same = [&](const ConfigGroup& g) {
      return g.options.bits == options.bits && g.options.group == options.group &&
             g.options.activations == options.activations;
    };
    auto it = std::ranges::find_if(groups_, same);
    if (it == groups_.end()) it = groups_.insert(groups_.end(), {options, {}});
    it->modules.push_back(name.substr(0, name.size() - std::string_view(".weight").size()));
  }

  void refuse_all() const {
    if (refused_.empty()) return;
    constexpr std::size_t kShown = 20;
    std::string text;
    for (std::size_t i = 0; i < std::min(kShown, refused_.size()); ++i)
      text += (i ? "; " : "") + refused_[i];
    if (refused_.size() > kShown) text += fmt::format("; and {} more", refused_.size() - kShown);
    throw Error(Fault::Usage, text)
        .hint(requantize_
                  ? "--allow-requantize does it all the same"
                  : "--fallback keeps them as they are; -T 'NAME=TYPE' chooses another type");
  }

  Job& job_;
  const Model& model_;
  const Options& o_;
  const Scheme& scheme_;
  const bool gguf_;
  const Choice all_;
  const NameStyle style_;
  std::vector<TypeRule> rules_;
  std::vector<Choice> choices_;  // of each rule
  std::vector<std::size_t> winner_;
  std::vector<ConfigGroup> groups_;
  std::vector<std::string> ignored_, refused_;
  std::size_t already_ = 0;
  bool embedding_ = false, any_blocks_ = false, requantize_ = false;
};

// What llama-quantize records (llama_ftype): for a type that most tensors have.
void set_gguf_keys(Job& job, const Choice& all, bool any_blocks) {
  std::optional<std::uint32_t> file_type;
  if (all.what == Choice::What::Cast)
    file_type = all.dtype == DType::Q8_0   ? 7u
                : all.dtype == DType::Q4_0 ? 2u
                : all.dtype == DType::F16  ? 1u
                : all.dtype == DType::BF16 ? 32u
                                           : 0u;
  if (file_type) job.meta.set("general.file_type", *file_type);
  if (any_blocks) job.meta.set("general.quantization_version", std::uint32_t{2});
}

// Records the scheme where engines look for it: config.json, or the lone file's metadata.
std::string record_config(Job& job, const Planner& planner, const Scheme& scheme) {
  if (planner.groups().empty()) return {};
  if (planner.already() > 0)
    throw Error(Fault::Usage, fmt::format("{} tensors are quantized already; one model has one "
                                          "quantization_config",
                                          planner.already()))
        .in(job.model->path)
        .hint("'wtool convert --dtype bf16' first gives plain weights");
  const auto ignored = planner.ignored();
  std::string config = scheme.config(planner.groups(), ignored);
  if (set_in_config(job, "quantization_config", config)) {
    job.remarks.push_back(
        fmt::format("config.json: quantization_config added ({} modules ignored)", ignored.size()));
    return config;
  }
  job.meta.set("quantization_config", config);
  if (job.to.kind == OutputSet::Kind::Folder)
    job.remarks.push_back(
        "there is no config.json, where engines look for quantization_config: it is in the files' "
        "metadata");
  return config;
}

ExitCode run(const Options& o, const Context& context) {
  const Format& safetensors = context.registry.format("safetensors");
  // The label names the output and the output's format gives the label its meaning.
  const bool says_gguf = o.to == "gguf" || (o.to.empty() && o.output.output.ends_with(".gguf"));
  Options options = o;
  std::vector<Gate> gates;
  for (const std::string& g : o.gates) gates.push_back(parse_gate(g));
  const Asked label = asked_for(o, says_gguf || !o.type.empty());
  Job job = prepare(options, context, label.label, &safetensors);
  const bool gguf = job.to.format->name == "gguf";
  if (job.to.format->one_tensor)
    throw Error(Fault::Usage, "NPY cannot hold quantized tensors")
        .in(job.to.path)
        .hint("--to safetensors");
  const Asked asked = asked_for(o, gguf);
  Planner planner(job, o, context, asked.choice);
  planner.plan();
  if (!o.output.dry_run && std::ranges::none_of(job.fates, &Fate::encoded))
    throw Error(Fault::Usage,
                fmt::format("nothing to quantize: all {} tensors stay as they are ({})",
                            job.fates.size(), kept_reasons(job)))
        .in(job.model->path)
        .hint("-n lists them; -T 'PATTERN=TYPE' overrides what is kept");
  const std::string config = record_config(job, planner, context.registry.scheme(kScheme));
  if (gguf) set_gguf_keys(job, asked.choice, planner.any_blocks());
  if ((o.fp16 || o.bf16) && !gguf) follow_dtype(job, asked.choice.dtype);
  return finish(job, o, context, {.verb = "quantize", .gates = gates, .quantization = config});
}

Action bind(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_flag("--int8", o->int8, "8 bits: group 128, symmetric (safetensors); q8_0 (GGUF)");
  app.add_flag("--int4", o->int4, "4 bits: group 128, symmetric (safetensors); q4_0 (GGUF)");
  app.add_flag("--w8a8", o->w8a8, "int8 weights per channel, for int8 activations (safetensors)");
  app.add_flag("--bf16", o->bf16, "cast to bf16");
  app.add_flag("--fp16", o->fp16, "cast to f16; values that overflow stop it");
  app.add_option("--type", o->type, "GGUF type: q8_0, q4_0 (q4_k_m and the like come later)")
      ->option_text("TYPE");
  app.add_option("-T,--tensor-type", o->types,
                 "type of the matching tensors, or 'keep'; the last matching rule wins")
      ->option_text("PATTERN=TYPE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--gate", o->gates,
                 "commit only if it holds, else exit 1: 'max(rel_rmse) <= 0.01'")
      ->option_text("GATE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--fallback", o->fallback, "keep tensors whose shape the type does not fit");
  app.add_flag("--allow-requantize", o->allow_requantize, "quantize block types again");
  app.add_flag("--saturate", o->saturate, "values that do not fit become the largest that does");
  add_rewrite_options(app, *o);
  app.get_option("--tensors")->description("quantize only these, keep the others; repeatable");
  app.get_option("--exclude")->description("keep these as they are; repeatable");
  app.footer("example:\n  wtool quantize --int8 model.safetensors");
  return [o](const Context& context) { return run(*o, context); };
}

}  // namespace

extern const Command kQuantize;
const Command kQuantize{"quantize", "fewer bits per weight, with the error measured", bind};

}  // namespace wtool
