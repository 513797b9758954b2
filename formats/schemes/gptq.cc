// GPTQ, as AutoGPTQ, GPTQModel and AutoRound store it: M.weight [out, in] of 2, 3, 4 or 8 bits is
//   M.qweight  i32 [in × bits / 32, out]     each column a little-endian bit stream of codes
//   M.qzeros   i32 [groups, out × bits / 32] each row such a stream; version 1: minus one
//   M.scales   f16, bf16 or f32 [groups, out]
//   M.g_idx    i32 [in], the group of each input; may be missing if they are in order
// and a value is (code - zero) × scale.
#include "formats/schemes/gptq.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "formats/registry.h"
#include "formats/schemes/decoded.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/text.h"

namespace wtool {
namespace gptq {
namespace {

constexpr Rule kParts{"gptq.parts", "the parts of a quantized weight are all there"},
    kShapes{"gptq.shape", "the parts of a quantized weight fit each other"},
    kAgrees{"gptq.config", "quantization_config agrees with what is stored"};
constexpr std::array<const Rule*, 3> kRules{&kParts, &kShapes, &kAgrees};
// Far above any file, and far below where bits times words overflow.
constexpr std::uint64_t kMaxSide = std::uint64_t{1} << 48;

struct Parts {
  std::string module;
  const TensorEntry *codes, *zeros, *scales, *index;
};
std::optional<Parts> parts_at(const Catalog& catalog, const TensorEntry& entry) {
  if (entry.dtype != DType::I32 || !entry.name.ends_with(kCodes)) return std::nullopt;
  const std::string module(without(entry.name, kCodes));
  const auto part = [&](std::string_view suffix) {
    return catalog.find(module + std::string(suffix));
  };
  Parts out{module, &entry, part(kZeros), part(kScales), part(kIndex)};
  if (out.index && element_count(out.index->shape) == 0) out.index = nullptr;  // left empty
  return out;
}

struct Layout {
  std::uint64_t in = 0, out = 0, groups = 0;
  unsigned bits = 0;
  bool v2 = false;  // zeros as they are
  // Columns in a group where they are in order and fill groups; else 0.
  std::uint64_t group() const { return groups != 0 && in % groups == 0 ? in / groups : 0; }
};

Complaint missing_part(const Parts& p) {
  if (!p.zeros) return fmt::format("{} is missing", quoted(p.module + std::string(kZeros)));
  if (!p.scales) return fmt::format("{} is missing", quoted(p.module + std::string(kScales)));
  return std::nullopt;
}

Complaint wrong_types(const Parts& p) {
  if (p.zeros->dtype != DType::I32)
    return fmt::format("the zero points are {}, not i32", name_of(p.zeros->dtype));
  if (!is_float_scale(*p.scales))
    return fmt::format("the scales are {}, not f32, bf16 or f16", name_of(p.scales->dtype));
  if (p.index && p.index->dtype != DType::I32)
    return fmt::format("the group index is {}, not i32", name_of(p.index->dtype));
  for (const TensorEntry* t : {p.codes, p.zeros, p.scales})
    if (t->shape.size() != 2 || std::ranges::any_of(t->shape, [](auto d) { return d > kMaxSide; }))
      return fmt::format("{} has shape {}, not 2 dimensions", quoted(t->name), to_text(t->shape));
  return std::nullopt;
}

// The width follows from the zero points, which are packed along the outputs.
Complaint dimensions(const Parts& p, Layout& layout) {
  const ShapeView codes = p.codes->shape, zeros = p.zeros->shape, scales = p.scales->shape;
  layout.out = codes[1];
  layout.groups = scales[0];
  if (scales[1] != layout.out)
    return fmt::format("scales {} are not for the {} outputs of codes {}", to_text(scales),
                       layout.out, to_text(codes));
  if (layout.groups == 0 || zeros[0] != layout.groups)
    return fmt::format("zero points {} do not match scales {}", to_text(zeros), to_text(scales));
  const std::uint64_t bits = layout.out == 0 ? 0 : zeros[1] * kWordBits / layout.out;
  if (!is_width(bits) || zeros[1] * kWordBits != layout.out * bits)
    return fmt::format("zero points {} for {} outputs are not of 2, 3, 4 or 8 bits", to_text(zeros),
                       layout.out);
  layout.bits = static_cast<unsigned>(bits);
  layout.in = codes[0] * kWordBits / bits;
  if (layout.in * bits != codes[0] * kWordBits)
    return fmt::format("{} words do not hold whole codes of {} bits", codes[0], bits);
  if (layout.groups > std::max<std::uint64_t>(layout.in, 1))
    return fmt::format("{} groups are more than the {} inputs", layout.groups, layout.in);
  if (p.index && !has_shape(*p.index, {layout.in}))
    return fmt::format("group index {} does not match {} inputs (codes {} of {} bits)",
                       to_text(p.index->shape), layout.in, to_text(codes), bits);
  return std::nullopt;
}

// AWQ has tensors of the same names.
bool is_awq_layout(const Parts& p) {
  return p.scales && p.codes->shape.size() == 2 && p.scales->shape.size() == 2 &&
         p.codes->shape[1] <= kMaxSide && p.codes->shape[1] * 8 == p.scales->shape[1];
}

// ---- what the config says

enum class Whose : std::uint8_t { Nobody, Ours, Awq, Foreign };

struct Says {
  Whose whose = Whose::Nobody;
  std::string where, method;
  std::optional<std::uint64_t> bits, group;  // group 0: the whole row
  bool each_its_own = false;                 // modules have widths and groups of their own
  bool act_order = false, v2 = false;
  std::string unread;  // why its tensors are not decoded
};

// "auto_round:auto_gptq": the packing of AutoRound. Its own, plain 'auto_round', is another.
void auto_round(const nlohmann::json& body, Says& says) {
  const std::string packing = lower(text_of(member(body, "packing_format")));
  if (packing.find("awq") != packing.npos)
    says.whose = Whose::Awq;
  else if (packing != "auto_round:auto_gptq" && packing != "auto_gptq")
    says.unread =
        fmt::format("{} says packing_format {}, which is not decoded", says.where, quoted(packing));
}

Says says_of(const QuantizationConfig* config) {
  Says out;
  if (!config) return out;
  const nlohmann::json& body = config->body;
  out.where = config->where;
  out.method = config->method;
  out.bits = count_of(member(body, "bits"));
  if (const auto* size = member(body, "group_size"); size && size->is_number_integer())
    out.group = size->is_number_unsigned() ? size->get<std::uint64_t>() : 0;
  out.act_order = flag_of(member(body, "desc_act"), false);
  if (const auto* per_module = member(body, "extra_config"))
    out.each_its_own |= !per_module->empty();
  // "-:" only says which modules are left as they are.
  if (const auto* per_module = member(body, "dynamic"); per_module && per_module->is_object())
    for (const auto& [pattern, numbers] : per_module->items())
      out.each_its_own |= !pattern.starts_with("-:");
  if (out.method == "gptq") {
    out.whose = Whose::Ours;
    const std::string format = lower(text_of(member(body, "checkpoint_format")));
    out.v2 = format == "gptq_v2";
    if (!out.v2 && !format.empty() && format != "gptq")
      out.unread = fmt::format("{} says checkpoint_format {}, which is not decoded", out.where,
                               quoted(format));
  } else if (out.method == "auto-round" || out.method == "intel/auto-round") {
    out.whose = Whose::Ours;
    auto_round(body, out);
  } else {
    out.whose = out.method == "awq" ? Whose::Awq : Whose::Foreign;
  }
  if (out.unread.empty() && out.bits && (*out.bits >= 5 && *out.bits <= 7))
    out.unread =
        fmt::format("{} says {} bits, whose bit planes are not decoded", out.where, *out.bits);
  return out;
}

Complaint agree(const Parts& p, const Says& says, const Layout& layout) {
  if (says.whose != Whose::Ours) return std::nullopt;
  if (says.bits && *says.bits != layout.bits && !says.each_its_own)
    return fmt::format("codes {} and zero points {} are of {} bits, but {} says {}",
                       to_text(p.codes->shape), to_text(p.zeros->shape), layout.bits, says.where,
                       *says.bits);
  if (says.act_order && !p.index)
    return fmt::format("{} is missing, and {} says desc_act",
                       quoted(p.module + std::string(kIndex)), says.where);
  if (!says.group || says.each_its_own) return std::nullopt;
  const std::uint64_t group =
      *says.group == 0 ? std::max<std::uint64_t>(layout.in, 1) : *says.group;
  if (ceil_div(layout.in, group) == layout.groups) return std::nullopt;
  return fmt::format("scales {} are of {} groups, but {} inputs in groups of {} ({}) are {}",
                     to_text(p.scales->shape), layout.groups, layout.in, group, says.where,
                     ceil_div(layout.in, group));
}

// Without a config: symmetric zero points are the middle, or one less in version 1.
std::optional<bool> version_2(const Parts& p, const Layout& layout, const Catalog& catalog) {
  constexpr std::uint64_t kLook = 1024;
  const std::uint64_t words = std::min(p.zeros->shape[1], kLook);
  if (words == 0) return std::nullopt;
  std::vector<std::uint32_t> row(words);
  Scratch scratch;
  stored(catalog, *p.zeros)
      ->read({0, 1, 0, words}, std::as_writable_bytes(std::span(row)), scratch);
  const unsigned middle = 1u << (layout.bits - 1);
  const std::uint64_t fields = words * kWordBits / layout.bits;
  const auto all = [&](unsigned zero) {
    for (std::uint64_t i = 0; i < fields; ++i)
      if (field(row.data(), 1, layout.bits, i) != zero) return false;
    return true;
  };
  if (all(middle)) return true;
  if (all(middle - 1)) return false;
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
                       .bits = layout.bits,
                       .scale = p.scales->dtype,
                       .zero_points = true}),
        layout_(layout),
        codes_(stored(catalog, *p.codes)),
        zeros_(stored(catalog, *p.zeros)),
        scales_(stored(catalog, *p.scales)),
        groups_{{}, layout.group()} {
    if (p.index)
      groups_ =
          GroupIndex::from(*stored(catalog, *p.index), layout.in, layout.groups, layout.group());
  }

  std::span<const std::uint32_t> group_index() const noexcept override { return groups_.of_column; }
  void codes(const Box& box, std::span<std::uint8_t> out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const Words words = words_of(box.col, box.cols);
    const auto raw = frame.take<std::uint32_t>(words.count * box.rows);
    codes_->read({words.first, words.count, box.row, box.rows}, std::as_writable_bytes(raw),
                 scratch);
    for (std::uint64_t r = 0; r < box.rows; ++r)
      for (std::uint64_t c = 0; c < box.cols; ++c)
        out[r * box.cols + c] = static_cast<std::uint8_t>(
            field(raw.data() + r, box.rows, layout_.bits, words.skip + c));
  }
  void zero_points(const Box& box, std::span<std::uint8_t> out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const auto zeros = frame.take<std::uint16_t>(out.size());
    read_zeros({box.row, box.rows, 0, 0}, {box.col, box.cols}, zeros, scratch);
    for (std::uint64_t r = 0; r < box.rows; ++r)
      for (std::uint64_t g = 0; g < box.cols; ++g)
        out[r * box.cols + g] = static_cast<std::uint8_t>(zeros[g * box.rows + r]);
  }
  void scales(const Box& box, MutableBytes out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const auto raw = frame.take<std::byte>(out.size());
    scales_->read({box.col, box.cols, box.row, box.rows}, raw, scratch);
    transpose(raw, box.cols, box.rows, info(scales_->dtype()).block_bytes, out);
  }

 private:
  // Words that hold fields [first, first + count) of a stream.
  struct Words {
    std::uint64_t first, count, skip;  // skip: fields before the wanted one
  };
  Words words_of(std::uint64_t first, std::uint64_t count) const {
    // 32 fields fill exactly `bits` words.
    const std::uint64_t word = first / kWordBits * layout_.bits;
    return {word, ceil_div((first + count) * layout_.bits, kWordBits) - word, first % kWordBits};
  }

  void decode(const Box& box, Edge edge, std::span<float> out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const GroupIndex::Groups groups = groups_.of(box);
    const auto scales = frame.take<float>(groups.count * box.rows);
    const auto zeros = frame.take<std::uint16_t>(groups.count * box.rows);
    const Words words = words_of(box.col, box.cols);
    const auto codes = frame.take<std::uint32_t>(words.count * box.rows);
    read_finite(*scales_, "scale", {groups.first, groups.count, box.row, box.rows}, scales,
                scratch);
    read_zeros(box, groups, zeros, scratch);
    codes_->read({words.first, words.count, box.row, box.rows}, std::as_writable_bytes(codes),
                 scratch);
    for (std::uint64_t r = 0; r < box.rows; ++r)
      for (std::uint64_t c = 0; c < box.cols; ++c) {
        const std::uint64_t g = (groups_.at(box.col + c) - groups.first) * box.rows + r;
        const unsigned code = field(codes.data() + r, box.rows, layout_.bits, words.skip + c);
        const float level = edge_of(edge, static_cast<int>(code), 0, (1 << layout_.bits) - 1);
        out[r * box.cols + c] = (level - static_cast<float>(zeros[g])) * scales[g];
      }
  }
  std::uint64_t beside(const Box& box) const override { return 2 * groups_.of(box).count; }

  // Version 1 is version 2 minus one in each field of a word at once, borrows included; the
  // addition undoes just that. Fields of 3 bits straddle words and are taken one by one.
  void read_zeros(const Box& box, GroupIndex::Groups groups, std::span<std::uint16_t> out,
                  Scratch& scratch) const {
    const Words words = words_of(box.row, box.rows);
    Scratch::Frame frame(scratch);
    const auto raw = frame.take<std::uint32_t>(words.count * groups.count);
    zeros_->read({groups.first, groups.count, words.first, words.count},
                 std::as_writable_bytes(raw), scratch);
    const bool by_word = !layout_.v2 && layout_.bits != 3;
    const std::uint32_t ones = 0xFFFFFFFFu / ((1u << layout_.bits) - 1);
    if (by_word)
      for (std::uint32_t& word : raw) word += ones;
    const unsigned plus = layout_.v2 || by_word ? 0 : 1;
    for (std::uint64_t g = 0; g < groups.count; ++g)
      for (std::uint64_t r = 0; r < box.rows; ++r)
        out[g * box.rows + r] = static_cast<std::uint16_t>(
            field(raw.data() + g * words.count, 1, layout_.bits, words.skip + r) + plus);
  }

  Layout layout_;
  TensorPtr codes_, zeros_, scales_;
  GroupIndex groups_;
};

// ---- recognising

constexpr std::uint8_t kV2Hint = 1;

class Recogniser {
 public:
  Recogniser(const Model& model, Diagnostics& faults)
      : model_(model), faults_(faults), config_(model) {}

  std::vector<Found> all() {
    std::vector<Found> out;
    for (const TensorEntry& entry : model_.catalog.entries())
      if (const auto parts = parts_at(model_.catalog, entry)) {
        if (const auto layout = layout_of(*parts)) out.push_back(found(*parts, *layout));
      } else if (entry.name.ends_with(kZeros)) {
        orphan(entry);
      }
    notes_.tell(model_.path, faults_);
    return out;
  }

 private:
  // Zero points whose codes are gone would pass for a tensor of their own.
  void orphan(const TensorEntry& zeros) {
    const std::string codes = std::string(without(zeros.name, kZeros)) + std::string(kCodes);
    if (model_.catalog.find(codes)) return;
    if (const Whose whose = says().whose; whose != Whose::Ours && whose != Whose::Awq) return;
    faults_.report(kParts, place_of(model_.catalog, zeros), zeros.offset,
                   fmt::format("{} is missing", quoted(codes)));
  }

  const Says& says() {
    if (says_) return *says_;
    says_ = says_of(config_.get());
    if (says_->whose == Whose::Ours && says_->unread.empty() && says_->bits &&
        !is_width(*says_->bits)) {
      faults_.report(kAgrees, says_->where, kNowhere,
                     fmt::format("bits is {}, not 2, 3, 4 or 8", *says_->bits));
      says_->bits.reset();
    }
    return *says_;
  }

  std::optional<Layout> layout_of(const Parts& p) {
    const Says& s = says();
    if (s.whose == Whose::Awq) return std::nullopt;
    if (s.whose == Whose::Foreign)
      return leave(kParts, p, fmt::format("{} says {}", s.where, quoted(s.method)), false);
    const bool sure = s.whose == Whose::Ours;
    if (is_awq_layout(p)) {
      if (!sure) return std::nullopt;  // that scheme's
      return leave(
          kAgrees, p,
          fmt::format("codes {} and scales {} are laid out as AWQ's, but {} says {}",
                      to_text(p.codes->shape), to_text(p.scales->shape), s.where, quoted(s.method)),
          true);
    }
    if (!s.unread.empty()) return leave(kAgrees, p, s.unread, false);
    Layout out;
    out.v2 = s.v2;
    if (const auto why = missing_part(p)) return leave(kParts, p, *why, sure);
    if (const auto why = wrong_types(p)) return leave(kParts, p, *why, sure);
    if (const auto why = dimensions(p, out)) return leave(kShapes, p, *why, sure);
    if (const auto why = agree(p, s, out)) return leave(kAgrees, p, *why, true);
    return settled(p, s, out);
  }

  std::optional<Layout> settled(const Parts& p, const Says& s, Layout out) {
    if (const std::string list = excluded_in(p.module); !list.empty())
      return leave(kAgrees, p,
                   fmt::format("{} lists {} in {}, but it is stored quantized", s.where,
                               quoted(p.module), list),
                   true);
    // In order, groups must fill the inputs as the config says: 192 inputs in 2 groups may be 96
    // twice, or 128 and 64.
    const bool fills = out.group() != 0 &&
                       (!s.group || *s.group == 0 || s.each_its_own || *s.group == out.group());
    if (!p.index && !fills)
      return leave(kShapes, p,
                   fmt::format("{} inputs do not divide into {} groups, and there is no group "
                               "index",
                               out.in, out.groups),
                   false);
    if (s.whose == Whose::Nobody) {
      const auto v2 = version_2(p, out, model_.catalog);
      if (!v2)
        return leave(kAgrees, p, "no quantization_config says whether it is GPTQ version 1 or 2",
                     false);
      out.v2 = *v2;
    }
    return out;
  }

  // The list of the config that leaves this module as it is, or "".
  std::string excluded_in(const std::string& module) {
    const QuantizationConfig* config = config_.get();
    if (!config) return "";
    const auto* dynamic = member(config->body, "dynamic");
    if (dynamic && dynamic->is_object() && dynamic->contains("-:" + pattern_of(module)))
      return "dynamic";
    return std::string(config->excluded_by(module));
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
              .shape = {layout.out, layout.in},
              .hint = layout.v2 ? kV2Hint : std::uint8_t{0}};
    for (const TensorEntry* t : {p.codes, p.zeros, p.scales, p.index})
      if (t) out.parts.push_back(model_.catalog.index_of(*t));
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
  layout.v2 = tensor.hint == kV2Hint;
  // All of this held when the tensor was recognised; so it only fails if we are wrong.
  if (!parts || missing_part(*parts) || wrong_types(*parts) || dimensions(*parts, layout))
    throw Error(Fault::Internal, fmt::format("tensor {} has changed", quoted(tensor.name)));
  const std::string where = fmt::format(
      "{}: tensor {}", model.catalog.sources()[codes.source]->name(), quoted(tensor.name));
  try {
    return std::make_shared<Values>(where, *parts, layout, model.catalog);
  } catch (Error& e) {
    throw e.in(where);
  }
}

TensorPtr open(const Model& model, const LogicalTensor& tensor) {
  return values(model, tensor);
}
std::shared_ptr<const IntegerWeight> integers(const Model& model, const LogicalTensor& tensor) {
  return values(model, tensor);
}

}  // namespace
}  // namespace gptq

const Scheme kGptq{
    .name = "gptq",
    .summary = "packed integers of GPTQ and AutoRound, versions 1 and 2",
    .rules = gptq::kRules,
    .recognise = gptq::recognise,
    .open = gptq::open,
    .refuses = gptq::refuses,
    .encode = gptq::encode,
    .config = gptq::config,
    .measure = nullptr,
    .integers = gptq::integers,
};

}  // namespace wtool
