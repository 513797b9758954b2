// Reading compressed-tensors: which stored tensors are one weight, and whether they agree.
#include <algorithm>
#include <array>
#include <unordered_set>

#include <fmt/format.h>

#include "formats/schemes/compressed_tensors.h"
#include "lib/base/text.h"

namespace wtool::compressed_tensors {
namespace {

// Far above any file, and far below where bits times words overflow.
constexpr std::uint64_t kMaxWords = std::uint64_t{1} << 48;

std::string_view module_of(std::string_view name, std::string_view suffix) {
  return name.substr(0, name.size() - suffix.size());
}

std::optional<Parts> parts_at(const Catalog& catalog, const TensorEntry& entry) {
  const bool packed = entry.dtype == DType::I32 && entry.name.ends_with(kPacked);
  if (!packed && (entry.dtype != DType::I8 || !entry.name.ends_with(kWeight))) return std::nullopt;
  Parts out{.module = std::string(module_of(entry.name, packed ? kPacked : kWeight)),
            .codes = &entry,
            .packed = packed};
  const auto part = [&](std::string_view suffix) {
    return catalog.find(out.module + std::string(suffix));
  };
  out.scale = part(kScale);
  out.zero = part(kZero);
  if (packed) {
    out.shape = part(kShape);
    out.g_idx = part(kGroupIndex);
  }
  // An i8 tensor without a scale is just one.
  if (!packed && !out.scale) return std::nullopt;
  return out;
}

// ---- each returns what is wrong, or nothing

Complaint missing_part(const Parts& p) {
  if (!p.scale) return fmt::format("{} is missing", quoted(p.module + std::string(kScale)));
  if (p.packed && !p.shape)
    return fmt::format("{} is missing", quoted(p.module + std::string(kShape)));
  return std::nullopt;
}

Complaint wrong_types(const Parts& p, const Catalog& catalog) {
  const DType scale = p.scale->dtype;
  if (scale != DType::F32 && scale != DType::BF16 && scale != DType::F16)
    return fmt::format("the scale is {}, not f32, bf16 or f16", name_of(scale));
  if (p.zero && p.zero->dtype != DType::I8 && !(p.packed && p.zero->dtype == DType::I32))
    return fmt::format("the zero point is {}, not {}", name_of(p.zero->dtype),
                       p.packed ? "i32" : "i8");
  if (p.g_idx && p.g_idx->dtype != DType::I32)
    return fmt::format("the group index is {}, not i32", name_of(p.g_idx->dtype));
  if (p.packed && catalog.find(p.module + std::string(kWeight)))
    return fmt::format("{} is stored too, so which one is meant is not known",
                       quoted(p.module + std::string(kWeight)));
  return std::nullopt;
}

std::vector<unsigned> fitting_bits(std::uint64_t cols, std::uint64_t words) {
  std::vector<unsigned> out;
  if (words > kMaxWords || cols > words * kWordBits) return out;  // so that nothing overflows
  for (unsigned b = 1; b <= kMaxBits; ++b)
    if (ceil_div(cols * b, kWordBits) == words) out.push_back(b);
  return out;
}

// Older releases put 32 / bits codes into a word and left the other bits unused.
bool older_packing(std::uint64_t cols, std::uint64_t words) {
  return std::ranges::any_of(std::array{3u, 5u, 6u, 7u},
                             [&](unsigned b) { return ceil_div(cols, kWordBits / b) == words; });
}

// The rows and columns that the codes decode to. weight_shape comes from the file: after this, it
// agrees with the words there are.
Complaint dimensions(const Parts& p, const Catalog& catalog, Layout& out) {
  const ShapeView codes = p.codes->shape;
  if (codes.size() != 2)
    return fmt::format("{} has {} dimensions, not 2", to_text(codes), codes.size());
  out.packed = p.packed;
  out.rows = codes[0];
  out.cols = codes[1];
  out.bits = {8};
  if (!p.packed) return std::nullopt;

  if (p.shape->dtype != DType::I64 || !has_shape(*p.shape, {2}))
    return fmt::format("the shape is {} {}, not i64 [2]", name_of(p.shape->dtype),
                       to_text(p.shape->shape));
  std::array<std::byte, 16> bytes;
  Scratch scratch;
  stored(catalog, *p.shape)->read({0, 1, 0, 2}, bytes, scratch);
  const auto rows = load<std::int64_t>(bytes, 0), cols = load<std::int64_t>(bytes, 1);
  if (rows < 0 || static_cast<std::uint64_t>(rows) != out.rows || cols < 0)
    return fmt::format("weight_shape says [{}, {}] but there are {} rows of codes", rows, cols,
                       out.rows);
  out.cols = static_cast<std::uint64_t>(cols);
  out.bits = fitting_bits(out.cols, codes[1]);
  if (out.bits.empty() && !older_packing(out.cols, codes[1]))
    return fmt::format("{} columns (by weight_shape) do not take {} words at any 1 to 8 bits",
                       out.cols, codes[1]);
  return std::nullopt;
}

Complaint scales(const Parts& p, Layout& out) {
  const ShapeView scale = p.scale->shape;
  const bool matrix = scale.size() == 2 && scale[0] == out.rows && scale[1] > 0;
  // [1, 1] is a matrix of one row, or one scale: the same values.
  if (!matrix && element_count(scale) == 1 && scale.size() <= 2) {
    out.one_scale = true;
    return std::nullopt;
  }
  if (!matrix || (out.cols > 0 && out.cols % scale[1] != 0))
    return fmt::format("scales {} do not divide codes of shape {}", to_text(scale),
                       to_text(Shape{out.rows, out.cols}));
  out.groups = scale[1];
  return std::nullopt;
}

Complaint zero_points(const Parts& p, Layout& out) {
  if (!p.zero) return std::nullopt;
  out.zero_packed = p.zero->dtype == DType::I32;
  if (!out.zero_packed) {
    if (std::ranges::equal(p.zero->shape, p.scale->shape)) return std::nullopt;
    return fmt::format("zero points {} do not match scales {}", to_text(p.zero->shape),
                       to_text(p.scale->shape));
  }
  std::erase_if(out.bits, [&](unsigned b) {
    return !has_shape(*p.zero, {ceil_div(out.rows * b, kWordBits), out.groups});
  });
  if (!out.one_scale && !out.bits.empty()) return std::nullopt;
  return fmt::format("zero points {} do not match scales {}", to_text(p.zero->shape),
                     to_text(p.scale->shape));
}

Complaint group_index(const Parts& p, const Layout& layout) {
  if (!p.g_idx || (has_shape(*p.g_idx, {layout.cols}) && !layout.one_scale)) return std::nullopt;
  return fmt::format("group index {} does not match {} columns", to_text(p.g_idx->shape),
                     layout.cols);
}

// Settles the bits by what the config says of this module, and holds scales and zero points to it.
Complaint agree(const Parts& p, const Config& config, Layout& layout) {
  const auto fits = [&](const WeightArgs& a) {
    const bool grouped = layout.groups > 1 || a.group != 0;
    return std::ranges::count(layout.bits, a.bits) > 0 &&
           (!grouped || (a.group != 0 && !layout.one_scale && layout.group() == a.group)) &&
           (a.symmetric || p.zero);
  };
  if (std::ranges::count(config.ignore, p.module) > 0)
    return fmt::format("{} lists {} in ignore, but it is stored quantized", config.where,
                       quoted(p.module));
  if (config.groups.empty() && !config.floats.empty())
    return fmt::format("codes {} are integers, but the groups of {} are of floats",
                       to_text(p.codes->shape), config.where);
  std::vector<const WeightArgs*> fitting;
  for (const WeightArgs& a : config.groups)
    if (fits(a)) fitting.push_back(&a);
  if (fitting.empty() && !config.groups.empty()) {
    const WeightArgs& a = config.groups.front();
    return fmt::format(
        "codes {}, scales {}{} do not fit the {} bits{}{} of {}", to_text(p.codes->shape),
        to_text(p.scale->shape), p.zero ? " and zero points" : "", a.bits,
        a.group ? fmt::format(", group {}", a.group) : "", a.symmetric ? "" : ", asymmetric",
        config.groups.size() == 1 ? config.where : fmt::format("any group of {}", config.where));
  }
  for (const WeightArgs* a : fitting)  // one that names the module wins
    if (fitting.size() == 1 || std::ranges::count(a->targets, p.module) > 0)
      layout.bits = {a->bits};
  const auto same = [&](const WeightArgs* a) { return a->bits == fitting.front()->bits; };
  if (!fitting.empty() && std::ranges::all_of(fitting, same)) layout.bits = {fitting.front()->bits};
  return std::nullopt;
}

// ---- recognising

class Recogniser {
 public:
  Recogniser(const Model& model, Diagnostics& faults) : model_(model), faults_(faults) {
    kind_ = read_config(model, faults, config_);
  }

  std::vector<Found> all() {
    std::vector<Found> out;
    if (kind_ == ConfigKind::Foreign) return foreign();
    for (const TensorEntry& entry : model_.catalog.entries()) {
      if (const auto parts = parts_at(model_.catalog, entry)) {
        if (const auto layout = layout_of(*parts)) out.push_back(found(*parts, *layout));
      } else if (kind_ == ConfigKind::Ours) {
        orphan(entry);
      }
    }
    recognise_floats(model_, config_, kind_ == ConfigKind::Ours, notes_, faults_, out);
    notes_.tell(model_.path, faults_);
    check_targets(out);
    return out;
  }

 private:
  std::optional<Layout> layout_of(const Parts& p) {
    // One shard on its own may lack a part that lies in the next; an i8 tensor may be anybody's.
    const bool sure = kind_ == ConfigKind::Ours;
    Layout out;
    if (const auto why = missing_part(p)) return leave(kParts, p, *why, sure);
    if (const auto why = wrong_types(p, model_.catalog))
      return leave(kParts, p, *why, sure || p.packed);
    if (const auto why = dimensions(p, model_.catalog, out))
      return leave(kShapes, p, *why, sure || p.packed);
    if (out.bits.empty())
      return leave(kShapes, p, "packed as by older releases, with bits left over in each word",
                   false);
    if (const auto why = scales(p, out)) return leave(kShapes, p, *why, sure || p.packed);
    if (const auto why = zero_points(p, out)) return leave(kShapes, p, *why, sure || p.packed);
    if (const auto why = group_index(p, out)) return leave(kIndex, p, *why, sure || p.packed);
    if (const auto why = agree(p, config_, out)) return leave(kAgrees, p, *why, true);
    if (out.bits.size() > 1)
      return leave(kAgrees, p, "nothing says how many bits a code has", false);
    return out;
  }
  // Parts that nobody else names so.
  std::vector<Found> foreign() {
    for (const TensorEntry& entry : model_.catalog.entries())
      if (const auto p = parts_at(model_.catalog, entry); p && p->packed && p->scale && p->shape)
        notes_.add(fmt::format("{} says {}", config_.where, quoted(config_.method)), entry);
    notes_.tell(model_.path, faults_);
    return {};
  }
  // A part whose codes are gone would pass for a tensor of its own.
  void orphan(const TensorEntry& entry) {
    for (const std::string_view suffix : {kScale, kShape, kZero, kGroupIndex, kGlobalScale}) {
      if (!entry.name.ends_with(suffix)) continue;
      const std::string module(module_of(entry.name, suffix));
      const auto there = [&](std::string_view codes) {
        return model_.catalog.find(module + std::string(codes)) != nullptr;
      };
      if (there(kPacked) || there(kWeight)) return;
      const Source& file = *model_.catalog.sources()[entry.source];
      faults_.report(
          kParts, {file.name(), "tensor", entry.name}, entry.offset,
          fmt::format("neither {} nor {} is there", quoted(module + std::string(kPacked)),
                      quoted(module + std::string(kWeight))));
    }
  }
  // Targets may be names of modules, of classes ("Linear") or patterns. Where all are modules', at
  // least one must be stored so.
  void check_targets(const std::vector<Found>& found) {
    std::unordered_set<std::string_view> named;
    for (const auto* groups : {&config_.groups, &config_.floats})
      for (const WeightArgs& a : *groups)
        for (const std::string& t : a.targets) {
          if (t.starts_with("re:") || t.find('.') == t.npos) return;
          named.insert(t);
        }
    if (named.empty() || found.empty()) return;
    for (const Found& f : found)
      if (named.contains(without(f.name, kWeight))) return;
    faults_.report(kTargets, config_.where, kNowhere,
                   fmt::format("its groups target {} modules ({}, …), and none of the {} weights "
                               "stored quantized ({}, …) is one of them",
                               named.size(), quoted(*named.begin()), found.size(),
                               quoted(found.front().name)));
  }
  std::nullopt_t leave(const Rule& rule, const Parts& p, const std::string& why, bool fault) {
    if (!fault) {
      notes_.add(why, *p.codes);
      return std::nullopt;
    }
    const Source& file = *model_.catalog.sources()[p.codes->source];
    faults_.report(rule, {file.name(), "tensor", p.codes->name}, p.codes->offset, why);
    return std::nullopt;
  }
  Found found(const Parts& p, const Layout& layout) const {
    Found out{.name = p.module + std::string(kWeight),
              .parts = {},
              .dtype = DType::F32,
              .shape = {layout.rows, layout.cols},
              .hint = static_cast<std::uint8_t>(layout.bits.front())};
    for (const TensorEntry* t : {p.codes, p.scale, p.shape, p.zero, p.g_idx})
      if (t) out.parts.push_back(model_.catalog.index_of(*t));
    return out;
  }

  const Model& model_;
  Diagnostics& faults_;
  Config config_;
  ConfigKind kind_;
  Notes notes_;
};

}  // namespace

std::vector<Found> recognise(const Model& model, Diagnostics& faults) {
  return Recogniser(model, faults).all();
}

TensorPtr open(const Model& model, const LogicalTensor& tensor) {
  if (is_float_weight(model.part(tensor, 0))) return open_floats(model, tensor);
  // All of this held when the tensor was recognised; so it only fails if we are wrong.
  const auto parts = parts_at(model.catalog, model.part(tensor, 0));
  Layout layout;
  if (!parts || missing_part(*parts) || dimensions(*parts, model.catalog, layout) ||
      scales(*parts, layout) || zero_points(*parts, layout))
    throw Error(Fault::Internal, fmt::format("tensor {} has changed", quoted(tensor.name)));
  // Where several widths would fit, the config has said which.
  if (layout.bits.size() != 1) layout.bits = {tensor.hint};
  const Source& file = *model.catalog.sources()[parts->codes->source];
  const std::string where = fmt::format("{}: tensor {}", file.name(), quoted(tensor.name));
  try {
    return decoded(where, *parts, layout, model.catalog);
  } catch (Error& e) {
    throw e.in(where);
  }
}

}  // namespace wtool::compressed_tensors
