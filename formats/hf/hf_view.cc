#include "formats/hf/hf_view.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <ranges>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "formats/hf/architectures.h"
#include "formats/hf/back_files.h"
#include "formats/hf/gguf_view.h"
#include "formats/hf/names.h"
#include "formats/registry.h"
#include "lib/base/listing.h"
#include "lib/base/text.h"
#include "lib/model/transform.h"
#include "lib/numeric/cells.h"
#include "lib/numeric/codec.h"

namespace wtool {
namespace {

// Norms and biases are vectors of one number for each column or row.
constexpr std::uint64_t kMostSmall = std::uint64_t{1} << 24;

std::vector<float> all_values(const Tensor& t) {
  std::vector<float> out(static_cast<std::size_t>(t.elements()));
  Scratch scratch;
  read_f32(t, t.whole(), out, scratch);
  return out;
}

class HfMapper {
 public:
  explicit HfMapper(std::shared_ptr<const Model> gguf)
      : from_(std::move(gguf)), arch_(choose()), view_(from_, "safetensors") {}

  ModelView run(std::vector<SideFile>& side) {
    main_type_ = main_type();
    for (const LogicalTensor& t : from_->tensors) place(t);
    if (!unmapped_.empty())
      throw Error(Fault::Unsupported,
                  fmt::format("{} tensors that {} does not have: {}", unmapped_.size(),
                              arch_.classes.front(), first_few_names(unmapped_, kMostNamed)))
          .in(from_->path);
    side_files(side);
    Metadata meta;
    meta.set("format", std::string("pt"));  // transformers refuses files that do not say so
    return view_.finish(std::move(meta), kPlain, std::move(notes_));
  }

 private:
  const Architecture& choose() const {
    const Metadata& meta = from_->catalog.meta;
    const std::string_view name = meta.text("general.architecture");
    const auto experts = meta.count(fmt::format("{}.expert_count", name)).value_or(0);
    for (const Architecture* a : all_architectures())
      if (a->name == name && a->back && (experts > 0) == a->of_experts) return *a;
    std::vector<std::string_view> known;
    for (const Architecture* a : all_architectures())
      if (a->back && std::ranges::find(known, a->name) == known.end()) known.push_back(a->name);
    throw Error(Fault::Unsupported,
                name.empty() ? std::string("says no general.architecture")
                             : fmt::format("there is no way back from architecture {}{}",
                                           quoted(name), experts > 0 ? " with experts" : ""))
        .in(from_->path)
        .hint(fmt::format("there is one from {}; --to safetensors keeps GGUF's names",
                          fmt::join(known, ", ")));
  }

  // Of the first matrix that is not f32; blocks become f32.
  DType main_type() const {
    for (const LogicalTensor& t : from_->tensors)
      if (t.shape.size() > 1 && !is_f32_only(t.name, t.shape.size()) && t.dtype != DType::F32)
        return t.dtype == DType::F16 || t.dtype == DType::BF16 ? t.dtype : DType::F32;
    return DType::F32;
  }

  void place(const LogicalTensor& t) {
    if (t.name == "rope_freqs.weight") return factors(t, rope_freqs_);
    if (t.name == "rope_factors_long.weight") return factors(t, rope_long_);
    if (t.name == "rope_factors_short.weight") return factors(t, rope_short_);
    std::string_view module = t.name, suffix = ".weight";
    if (module.ends_with(".bias")) suffix = ".bias";
    if (!module.ends_with(suffix)) {
      unmapped_.emplace_back(t.name);
      return;
    }
    module.remove_suffix(suffix.size());
    for (const TensorRow& row : std::views::join(arch_.tensors))
      if (const auto n = row.move == Move::Halves || row.move == Move::SplitKvB
                             ? std::nullopt
                             : match_numbers(row.gguf, module)) {
        try {
          return back(t, row, n->layer, suffix);
        } catch (Error& e) {
          throw e.in(fmt::format("tensor {}", quoted(t.name))).in(from_->path);
        }
      }
    unmapped_.emplace_back(t.name);
  }

  void factors(const LogicalTensor& t, std::vector<float>& out) {
    constexpr std::uint64_t kMost = 65536;
    const TensorPtr values = from_->open(t);
    if (values->elements() > kMost)
      throw Error(Fault::BadFile,
                  fmt::format("{} factors are more than a head has pairs", values->elements()))
          .in(fmt::format("tensor {}", quoted(t.name)))
          .in(from_->path);
    out = all_values(*values);
  }

  void back(const LogicalTensor& t, const TensorRow& row, std::uint64_t layer,
            std::string_view suffix) {
    TensorPtr values = from_->open(t);
    ModelView::Origin origin{std::string(t.name),
                             std::string(name_of(from_->part(t, 0).dtype)),
                             {},
                             from_->stored_bytes(t)};
    const auto kind = info(values->dtype()).kind;
    if (kind == Kind::Block) {
      values = widened(std::move(values));
      origin.how = "decoded";
    }
    const std::string name = fmt::format("{}{}", filled_layer(row.hf, layer), suffix);
    const bool weight = suffix == ".weight";
    const auto told = [&](const std::string& how) {
      origin.how += (origin.how.empty() ? "" : ", ") + how;
    };
    switch (row.move) {
      case Move::PermuteHeads:
      case Move::PermuteKvHeads: {
        const std::uint64_t heads =
            row.move == Move::PermuteHeads ? need("attention.head_count") : kv_heads();
        values = unpermuted(std::move(values), heads);
        told(fmt::format("{} heads permuted back", heads));
        break;
      }
      case Move::Transpose:
        if (weight) values = transposed(std::move(values));
        break;
      case Move::Stack: return unstack(row, layer, values, origin);
      default: break;
    }
    if (is_f32_only(t.name, t.shape.size()) && values->dtype() == DType::F32)
      values = narrowed(std::move(values),
                        arch_.norms_plus_one && weight && name.ends_with("norm.weight"), told);
    view_.add(prefixed(name), values, std::move(origin));
  }

  std::string prefixed(const std::string& name) const {
    return name.starts_with("lm_head") || arch_.prefixes.empty()
               ? name
               : std::string(arch_.prefixes.front()) + name;
  }

  // The experts of a layer, one by one.
  void unstack(const TensorRow& row, std::uint64_t layer, const TensorPtr& values,
               const ModelView::Origin& origin) {
    const Shape& s = values->shape();
    const std::uint64_t experts = need("expert_count");
    if (s.size() != 3 || s[0] != experts)
      throw Error(Fault::BadFile, fmt::format("is {} but expert_count is {}", to_text(s), experts));
    for (std::uint64_t x = 0; x < experts; ++x) {
      std::string name = filled_layer(row.hf, layer);
      name.replace(name.find("{X}"), 3, std::to_string(x));
      ModelView::Origin one = origin;
      one.bytes /= experts;
      one.how += fmt::format("{}expert {}", one.how.empty() ? "" : ", ", x);
      view_.add(prefixed(name) + ".weight", reshaped(rows_of(values, x, x + 1), {s[1], s[2]}),
                std::move(one));
    }
  }

  // What is f32 for llama.cpp's sake becomes the type of the other weights, if each value comes
  // back from it. Weights of norms that were kept plus 1 lose what f32 had no place for; the one of
  // the narrow type that gives the same sum is what they were.
  template <class Told>
  TensorPtr narrowed(TensorPtr values, bool minus_one, const Told& told) {
    if (values->elements() > kMostSmall) return values;
    const std::vector<float> stored = all_values(*values);
    const Shape shape = values->shape();
    const std::array<DType, 2> tries{main_type_ == DType::F16 ? DType::F16 : DType::BF16,
                                     DType::F16};
    const std::size_t count = main_type_ == DType::F32 ? (minus_one ? 2 : 0) : 1;
    if (minus_one) told("minus 1");
    for (std::size_t i = 0; i < count; ++i) {
      Buffer narrow(stored.size() * 2);
      std::vector<float> wide(stored.size());
      for (std::size_t k = 0; k < stored.size(); ++k)
        wide[k] = minus_one ? stored[k] - 1 : stored[k];
      codec(tries[i]).encode(wide.data(), narrow.data(), wide.size());
      codec(tries[i]).decode(narrow.data(), wide.data(), wide.size());
      bool same = true;
      for (std::size_t k = 0; k < stored.size() && same; ++k) {
        const float sum = minus_one ? wide[k] + 1 : wide[k];
        same = std::bit_cast<std::uint32_t>(sum) == std::bit_cast<std::uint32_t>(stored[k]);
      }
      if (!same) continue;
      if (main_type_ != DType::F32) {
        told(fmt::format("{} again", name_of(tries[i])));
        return from_bytes(tries[i], shape, std::move(narrow));
      }
      Buffer bytes(wide.size() * sizeof(float));
      std::memcpy(bytes.data(), wide.data(), bytes.size());
      return from_bytes(DType::F32, shape, std::move(bytes));
    }
    if (main_type_ != DType::F32) ++stays_wide_;
    return minus_one ? added(std::move(values), -1) : values;
  }

  static TensorPtr from_bytes(DType type, const Shape& shape, Buffer bytes) {
    return tensor_in_memory("", type, shape, std::move(bytes));
  }

  std::uint64_t need(std::string_view key) const {
    const std::string full = fmt::format("{}.{}", arch_.name, key);
    const auto n = from_->catalog.meta.count(full);
    if (!n) throw Error(Fault::BadFile, fmt::format("has no {}", full)).in(from_->path);
    return *n;
  }
  std::uint64_t kv_heads() const {
    return from_->catalog.meta.count(fmt::format("{}.attention.head_count_kv", arch_.name))
        .value_or(need("attention.head_count"));
  }

  bool has(std::string_view name) const { return from_->catalog.find(name) != nullptr; }

  void side_files(std::vector<SideFile>& side) {
    const std::string_view dtype = main_type_ == DType::BF16  ? "bfloat16"
                                   : main_type_ == DType::F16 ? "float16"
                                                              : "float32";
    BackFiles files = back_files(from_->catalog.meta, {.hf_class = arch_.classes.front(),
                                                       .model_type = arch_.model_type,
                                                       .tied = !has("output.weight"),
                                                       .dtype = dtype,
                                                       .rope_freqs = rope_freqs_,
                                                       .rope_long = rope_long_,
                                                       .rope_short = rope_short_,
                                                       .attention_bias = has("blk.0.attn_q.bias"),
                                                       .mlp_bias = has("blk.0.ffn_up.bias")});
    side = std::move(files.files);
    for (const std::string& line : files.lost) notes_.push_back("not recovered: " + line);
    if (stays_wide_ > 0)
      notes_.push_back(fmt::format("{} tensors stay f32: {} would change their values", stays_wide_,
                                   name_of(main_type_)));
  }

  static constexpr std::size_t kMostNamed = 20;

  std::shared_ptr<const Model> from_;
  const Architecture& arch_;
  ViewBuilder view_;
  DType main_type_ = DType::F32;
  std::vector<float> rope_freqs_, rope_long_, rope_short_;
  std::size_t stays_wide_ = 0;
  std::vector<std::string> unmapped_, notes_;
};

}  // namespace

ModelView hf_view(std::shared_ptr<const Model> gguf, std::vector<SideFile>& side) {
  return HfMapper(std::move(gguf)).run(side);
}

}  // namespace wtool
