// AWQ in its GEMM layout: M.weight [out, in] of 4 bits is
//   M.qweight  i32 [in, out / 8]      eight outputs in a word, in the order of kPlace
//   M.qzeros   i32 [groups, out / 8]  likewise
//   M.scales   f16, bf16 or f32 [groups, out]
// and a value is (code - zero) × scale.
#include "formats/schemes/awq.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "formats/registry.h"
#include "formats/schemes/decoded.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/text.h"

namespace wtool {
namespace awq {
namespace {

constexpr Rule kParts{"awq.parts", "the parts of a quantized weight are all there"},
    kShapes{"awq.shape", "the parts of a quantized weight fit each other"},
    kAgrees{"awq.config", "quantization_config agrees with what is stored"};
constexpr std::array<const Rule*, 3> kRules{&kParts, &kShapes, &kAgrees};
constexpr std::uint64_t kMaxSide = std::uint64_t{1} << 48;

struct Parts {
  std::string module;
  const TensorEntry *codes, *zeros, *scales;
};
std::optional<Parts> parts_at(const Catalog& catalog, const TensorEntry& entry) {
  if (entry.dtype != DType::I32 || !entry.name.ends_with(kCodes)) return std::nullopt;
  const std::string module(without(entry.name, kCodes));
  return Parts{module, &entry, catalog.find(module + std::string(kZeros)),
               catalog.find(module + std::string(kScales))};
}

struct Layout {
  std::uint64_t in = 0, out = 0, groups = 0;
};

// The scales are what tells this layout from GPTQ's, whose tensors have the same names.
bool is_awq_layout(const Parts& p) {
  return p.scales && p.codes->shape.size() == 2 && p.scales->shape.size() == 2 &&
         p.codes->shape[1] <= kMaxSide && p.codes->shape[1] * kPerWord == p.scales->shape[1];
}

Complaint wrong_parts(const Parts& p) {
  if (!p.zeros) return fmt::format("{} is missing", quoted(p.module + std::string(kZeros)));
  if (!p.scales) return fmt::format("{} is missing", quoted(p.module + std::string(kScales)));
  if (p.zeros->dtype != DType::I32)
    return fmt::format("the zero points are {}, not i32", name_of(p.zeros->dtype));
  if (!is_float_scale(*p.scales))
    return fmt::format("the scales are {}, not f32, bf16 or f16", name_of(p.scales->dtype));
  return std::nullopt;
}

Complaint dimensions(const Parts& p, Layout& layout) {
  if (!is_awq_layout(p))
    return fmt::format("codes {} have not an eighth of the columns of scales {}",
                       to_text(p.codes->shape), to_text(p.scales->shape));
  layout = {p.codes->shape[0], p.scales->shape[1], p.scales->shape[0]};
  if (!has_shape(*p.zeros, {layout.groups, p.codes->shape[1]}))
    return fmt::format("zero points {} do not match codes {} and scales {}",
                       to_text(p.zeros->shape), to_text(p.codes->shape), to_text(p.scales->shape));
  if (layout.groups == 0 || layout.in % layout.groups != 0)
    return fmt::format("{} inputs do not divide into the {} groups of scales {}", layout.in,
                       layout.groups, to_text(p.scales->shape));
  return std::nullopt;
}

// ---- what the config says

enum class Whose : std::uint8_t { Nobody, Ours, Foreign };

struct Says {
  Whose whose = Whose::Nobody;
  std::string where;
  std::optional<std::uint64_t> bits, group;
  std::string version;
};

Says says_of(const QuantizationConfig* config) {
  Says out;
  if (!config) return out;
  out.where = config->where;
  const auto either = [&](std::string_view a, std::string_view b) {
    const auto* first = member(config->body, a);
    return first ? first : member(config->body, b);
  };
  out.bits = count_of(either("bits", "w_bit"));
  const auto* group = either("group_size", "q_group_size");
  out.group = count_of(group);
  const bool auto_round = config->method == "auto-round" || config->method == "intel/auto-round";
  const std::string packing = lower(text_of(member(config->body, "packing_format")));
  const bool ours = config->method == "awq" || (auto_round && packing.find("awq") != packing.npos);
  out.whose = ours ? Whose::Ours : Whose::Foreign;
  if (config->method == "awq") out.version = lower(text_of(member(config->body, "version")));
  return out;
}

Complaint agree(const Parts& p, const Says& says, const QuantizationConfig* config,
                const Layout& layout) {
  if (says.whose != Whose::Ours) return std::nullopt;
  if (says.bits && *says.bits != kBits)
    return fmt::format("codes {} and scales {} are of 4 bits, but {} says {}",
                       to_text(p.codes->shape), to_text(p.scales->shape), says.where, *says.bits);
  if (says.group && *says.group != 0 && *says.group * layout.groups != layout.in)
    return fmt::format("scales {} are of groups of {}, but {} says {}", to_text(p.scales->shape),
                       layout.in / layout.groups, says.where, *says.group);
  if (const auto list = config->excluded_by(p.module); !list.empty())
    return fmt::format("{} lists {} in {}, but it is stored quantized", says.where,
                       quoted(p.module), list);
  return std::nullopt;
}

// ---- values

class Values final : public Decoded, public IntegerWeight {
 public:
  Values(std::string where, const Parts& p, const Layout& layout, const Catalog& catalog)
      : Decoded(std::move(where), {layout.out, layout.in}),
        IntegerWeight({.rows = layout.out,
                       .cols = layout.in,
                       .groups = layout.groups,
                       .bits = kBits,
                       .scale = p.scales->dtype,
                       .zero_points = true}),
        groups_{{}, std::max<std::uint64_t>(1, layout.in / layout.groups)},
        codes_(stored(catalog, *p.codes)),
        zeros_(stored(catalog, *p.zeros)),
        scales_(stored(catalog, *p.scales)) {}

  void codes(const Box& box, std::span<std::uint8_t> out, Scratch& scratch) const override {
    unpack(*codes_, box, out, scratch);
  }
  void zero_points(const Box& box, std::span<std::uint8_t> out, Scratch& scratch) const override {
    unpack(*zeros_, box, out, scratch);
  }
  void scales(const Box& box, MutableBytes out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const auto raw = frame.take<std::byte>(out.size());
    scales_->read({box.col, box.cols, box.row, box.rows}, raw, scratch);
    transpose(raw, box.cols, box.rows, info(scales_->dtype()).block_bytes, out);
  }

 private:
  // Codes and zero points are packed alike.
  static void unpack(const Tensor& words, const Box& box, std::span<std::uint8_t> out,
                     Scratch& scratch) {
    Scratch::Frame frame(scratch);
    const std::uint64_t first = box.row / kPerWord,
                        across = ceil_div(box.row + box.rows, kPerWord) - first;
    const auto raw = frame.take<std::uint32_t>(box.cols * across);
    words.read({box.col, box.cols, first, across}, std::as_writable_bytes(raw), scratch);
    for (std::uint64_t r = 0; r < box.rows; ++r) {
      const std::uint64_t row = box.row + r, word = row / kPerWord - first;
      const unsigned shift = 4 * kPlace[row % kPerWord];
      for (std::uint64_t c = 0; c < box.cols; ++c)
        out[r * box.cols + c] = static_cast<std::uint8_t>(raw[c * across + word] >> shift & 15);
    }
  }

  void decode(const Box& box, Edge edge, std::span<float> out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const GroupIndex::Groups groups = groups_.of(box);
    const std::uint64_t first = box.row / kPerWord,
                        words = ceil_div(box.row + box.rows, kPerWord) - first;
    const auto scales = frame.take<float>(groups.count * box.rows);
    const auto zeros = frame.take<std::uint32_t>(groups.count * words);
    const auto codes = frame.take<std::uint32_t>(box.cols * words);
    read_finite(*scales_, "scale", {groups.first, groups.count, box.row, box.rows}, scales,
                scratch);
    zeros_->read({groups.first, groups.count, first, words}, std::as_writable_bytes(zeros),
                 scratch);
    codes_->read({box.col, box.cols, first, words}, std::as_writable_bytes(codes), scratch);
    for (std::uint64_t r = 0; r < box.rows; ++r) {
      const std::uint64_t row = box.row + r, word = row / kPerWord - first;
      const unsigned shift = 4 * kPlace[row % kPerWord];
      for (std::uint64_t c = 0; c < box.cols; ++c) {
        const std::uint64_t g = groups_.at(box.col + c) - groups.first;
        const auto code = static_cast<int>(codes[c * words + word] >> shift & 15);
        const auto zero = static_cast<float>(zeros[g * words + word] >> shift & 15);
        out[r * box.cols + c] = (edge_of(edge, code, 0, 15) - zero) * scales[g * box.rows + r];
      }
    }
  }
  std::uint64_t beside(const Box& box) const override { return 2 * groups_.of(box).count; }

  GroupIndex groups_;
  TensorPtr codes_, zeros_, scales_;
};

// ---- recognising

class Recogniser {
 public:
  Recogniser(const Model& model, Diagnostics& faults)
      : model_(model), faults_(faults), config_(model) {}

  std::vector<Found> all() {
    std::vector<Found> out;
    for (const TensorEntry& entry : model_.catalog.entries())
      if (const auto parts = parts_at(model_.catalog, entry))
        if (const auto layout = layout_of(*parts)) out.push_back(found(*parts, *layout));
    notes_.tell(model_.path, faults_);
    return out;
  }

 private:
  std::optional<Layout> layout_of(const Parts& p) {
    if (!says_) says_ = says_of(config_.get());
    const Says& s = *says_;
    const bool sure = s.whose == Whose::Ours;
    if (s.whose == Whose::Foreign || (!sure && !is_awq_layout(p))) return std::nullopt;
    if (!s.version.empty() && s.version != "gemm")
      return leave(
          kAgrees, p,
          fmt::format("{} says version {}, which is not decoded", s.where, quoted(s.version)),
          false);
    Layout out;
    if (const auto why = wrong_parts(p)) return leave(kParts, p, *why, sure);
    if (const auto why = dimensions(p, out)) return leave(kShapes, p, *why, sure);
    if (const auto why = agree(p, s, config_.get(), out)) return leave(kAgrees, p, *why, true);
    return out;
  }
  std::nullopt_t leave(const Rule& rule, const Parts& p, const std::string& why, bool fault) {
    if (fault)
      faults_.report(rule, place_of(model_.catalog, *p.codes), p.codes->offset, why);
    else
      notes_.add(why, *p.codes);
    return std::nullopt;
  }
  Found found(const Parts& p, const Layout& layout) const {
    Found out{.name = p.module + std::string(kWeight),
              .parts = {},
              .dtype = DType::F32,
              .shape = {layout.out, layout.in}};
    for (const TensorEntry* t : {p.codes, p.zeros, p.scales})
      out.parts.push_back(model_.catalog.index_of(*t));
    return out;
  }

  const Model& model_;
  Diagnostics& faults_;
  LazyConfig config_;
  std::optional<Says> says_;
  Notes notes_;
};

std::vector<Found> recognise(const Model& model, Diagnostics& faults) {
  return Recogniser(model, faults).all();
}

std::shared_ptr<const Values> values(const Model& model, const LogicalTensor& tensor) {
  const TensorEntry& codes = model.part(tensor, 0);
  const auto parts = parts_at(model.catalog, codes);
  Layout layout;
  // All of this held when the tensor was recognised; so it only fails if we are wrong.
  if (!parts || wrong_parts(*parts) || dimensions(*parts, layout))
    throw Error(Fault::Internal, fmt::format("tensor {} has changed", quoted(tensor.name)));
  return std::make_shared<Values>(
      fmt::format("{}: tensor {}", model.catalog.sources()[codes.source]->name(),
                  quoted(tensor.name)),
      *parts, layout, model.catalog);
}

TensorPtr open(const Model& model, const LogicalTensor& tensor) {
  return values(model, tensor);
}
std::shared_ptr<const IntegerWeight> integers(const Model& model, const LogicalTensor& tensor) {
  return values(model, tensor);
}

}  // namespace
}  // namespace awq

const Scheme kAwq{
    .name = "awq",
    .summary = "packed 4-bit integers of AWQ, in its GEMM layout",
    .rules = awq::kRules,
    .recognise = awq::recognise,
    .open = awq::open,
    .refuses = awq::refuses,
    .encode = awq::encode,
    .config = awq::config,
    .measure = nullptr,
    .integers = awq::integers,
};

}  // namespace wtool
