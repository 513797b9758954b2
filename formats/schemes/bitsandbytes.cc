// bitsandbytes. 8 bits: M.weight i8 [out, in] and M.SCB f32 [out], the largest magnitude of each
// row, which 127 stands for; M.weight_format u8 0 says that rows are rows. 4 bits, a tensor X of n
// elements cut into blocks without regard to rows:
//   X                    u8 [⌈n / 2⌉, 1] (or another type of as many bytes), first code in the high
//   half X.absmax             f32 [blocks]; nested: u8, indices of X.nested_quant_map f32 [256]
//   X.quant_map          f32 [16], what the codes stand for
//   X.nested_absmax      f32 [⌈blocks / 256⌉], the scales of the scales
//   X.quant_state.bitsandbytes__nf4 (__fp4)  u8, a JSON text with the shape and the sizes of blocks
#include "formats/schemes/bitsandbytes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <unordered_set>

#include <fmt/format.h>

#include "formats/registry.h"
#include "formats/schemes/decoded.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"
#include "lib/numeric/codec.h"

namespace wtool {
namespace bitsandbytes {
namespace {

constexpr Rule kParts{"bitsandbytes.parts", "the parts of a quantized weight are all there"},
    kShapes{"bitsandbytes.shape", "the parts of a quantized weight fit each other"},
    kState{"bitsandbytes.quant_state", "quant_state is JSON that says how the weight is stored"},
    kAgrees{"bitsandbytes.config", "quantization_config agrees with what is stored"};
constexpr std::array<const Rule*, 4> kRules{&kParts, &kShapes, &kState, &kAgrees};
constexpr std::string_view kRowMax = ".SCB", kFormat = ".weight_format";
constexpr std::uint64_t kMaxStateBytes = 1 << 16;
constexpr std::uint64_t kMaxBlock = 1 << 20;
constexpr std::uint8_t kInt8Hint = 8, kFourHint = 4;

using nlohmann::json;

// ---- 8 bits

class Int8 final : public Decoded {
 public:
  Int8(std::string where, const Model& model, const LogicalTensor& t)
      : Decoded(std::move(where), Shape(t.shape.begin(), t.shape.end())),
        codes_(stored(model.catalog, model.part(t, 0))),
        most_(stored(model.catalog, model.part(t, 1))) {}

 private:
  void decode(const Box& box, Edge edge, std::span<float> out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const auto most = frame.take<float>(box.rows);
    read_finite(*most_, "SCB", {0, 1, box.row, box.rows}, most, scratch);
    read_f32(*codes_, box, out, scratch);
    if (edge != Edge::Level)
      for (float& v : out) v = edge_of(edge, static_cast<int>(v), -127, 127);
    for (std::uint64_t i = 0; i < out.size(); ++i) out[i] = out[i] * most[i / box.cols] / 127.0f;
  }
  TensorPtr codes_, most_;
};

// ---- 4 bits

struct State {
  Shape shape;
  std::uint64_t elements = 0, block = 0, nested_block = 0;  // nested_block 0: not nested
  float nested_offset = 0;
  std::string type;
};

// Why the JSON text of a quant_state is not one.
Complaint parse_state(const Catalog& catalog, const TensorEntry& entry, State& out) {
  if (entry.dtype != DType::U8 || entry.bytes > kMaxStateBytes)
    return fmt::format("the quant_state is {} of {} bytes, not u8 of at most {}",
                       name_of(entry.dtype), entry.bytes, kMaxStateBytes);
  std::string text(as_text(read_all(catalog.extent(entry))));
  json state;
  try {
    std::string copy = text;  // first without a tree: nesting is bounded there
    JsonReader reader(copy);
    reader.skip();
    reader.finish();
    state = json::parse(text);
  } catch (const JsonFault&) {
    return "the quant_state is not JSON";
  } catch (const json::exception&) {
    return "the quant_state is not JSON";
  }
  out.type = text_of(member(state, "quant_type"));
  const auto block = count_of(member(state, "blocksize"));
  if (!block || *block == 0 || *block > kMaxBlock)
    return fmt::format("the quant_state has a blocksize of {}, not 1 to {}",
                       block ? std::to_string(*block) : "nothing", kMaxBlock);
  out.block = *block;
  const json* shape = member(state, "shape");
  if (!shape || !shape->is_array() || shape->empty() || shape->size() > 8)
    return "the quant_state has no shape of 1 to 8 dimensions";
  for (const json& d : *shape) {
    const auto n = count_of(&d);
    if (!n) return "the quant_state's shape has a dimension that is no count";
    out.shape.push_back(*n);
  }
  const auto n = element_count(out.shape);
  if (!n || !byte_size(DType::F32, *n))
    return fmt::format("the quant_state's shape {} is too large", to_text(out.shape));
  out.elements = *n;
  if (!member(state, "nested_blocksize")) return std::nullopt;
  const auto nested = count_of(member(state, "nested_blocksize"));
  const json* offset = member(state, "nested_offset");
  if (!nested || *nested == 0 || *nested > kMaxBlock || !offset || !offset->is_number() ||
      !std::isfinite(static_cast<float>(offset->get<double>())))
    return "the quant_state's nested_blocksize or nested_offset is no number it can be";
  if (const auto type = text_of(member(state, "nested_dtype")); !type.empty() && type != "float32")
    return fmt::format("the quant_state has a nested_dtype of {}, not 'float32'", quoted(type));
  out.nested_block = *nested;
  out.nested_offset = static_cast<float>(offset->get<double>());
  return std::nullopt;
}

struct Four {
  std::string name;
  const TensorEntry *codes, *absmax, *map, *state, *nested_absmax, *nested_map;
  std::string_view type;  // by the state's name
};

Complaint wrong_parts(const Four& p, const State& s) {
  struct Need {
    const TensorEntry* part;
    std::string_view suffix;
    DType dtype;
    std::uint64_t elements;
  };
  const std::uint64_t blocks = ceil_div(s.elements, s.block);
  std::vector<Need> needs{{p.absmax, kAbsmax, s.nested_block ? DType::U8 : DType::F32, blocks},
                          {p.map, kMap, DType::F32, 16}};
  if (s.nested_block != 0) {
    needs.push_back({p.nested_absmax, kNestedAbsmax, DType::F32, ceil_div(blocks, s.nested_block)});
    needs.push_back({p.nested_map, kNestedMap, DType::F32, 256});
  }
  for (const Need& n : needs) {
    if (!n.part) return fmt::format("{} is missing", quoted(p.name + std::string(n.suffix)));
    if (n.part->dtype != n.dtype || element_count(n.part->shape) != n.elements)
      return fmt::format("{} is {} {}, not {} of {} elements", quoted(n.part->name),
                         name_of(n.part->dtype), to_text(n.part->shape), name_of(n.dtype),
                         n.elements);
  }
  if (p.codes->bytes != ceil_div(s.elements, 2))
    return fmt::format("{} values of 4 bits are {} bytes, but {} has {}", s.elements,
                       ceil_div(s.elements, 2), quoted(p.name), p.codes->bytes);
  if (s.type != p.type)
    return fmt::format("{} says quant_type {}", quoted(p.state->name), quoted(s.type));
  return std::nullopt;
}

class FourBits final : public Decoded {
 public:
  FourBits(std::string where, const Catalog& catalog, const Four& p, const State& s)
      : Decoded(std::move(where), s.shape),
        state_(s),
        codes_(catalog.extent(*p.codes)),
        absmax_(stored(catalog, *p.absmax)) {
    Scratch scratch;
    read_finite(*stored(catalog, *p.map), "quant_map", {0, 1, 0, map_.size()}, map_, scratch);
    find_edges();
    if (s.nested_block == 0) return;
    nested_absmax_ = stored(catalog, *p.nested_absmax);
    read_finite(*stored(catalog, *p.nested_map), "nested_quant_map", {0, 1, 0, nested_map_.size()},
                nested_map_, scratch);
  }

 private:
  void decode(const Box& box, Edge edge, std::span<float> out, Scratch& scratch) const override {
    const auto& map = edge == Edge::Level ? map_ : edge == Edge::Below ? below_ : above_;
    for (std::uint64_t r = 0; r < box.rows; ++r)
      stretch((box.row + r) * whole().cols + box.col, map, out.subspan(r * box.cols, box.cols),
              scratch);
  }
  // Elements [first, first + out.size()) of the tensor as one long row.
  void stretch(std::uint64_t first, const std::array<float, 16>& map, std::span<float> out,
               Scratch& scratch) const {
    Scratch::Frame frame(scratch);
    const std::uint64_t end = first + out.size(), block = first / state_.block;
    const auto raw = frame.take<std::byte>(ceil_div(end, 2) - first / 2);
    const auto most = frame.take<float>((end - 1) / state_.block + 1 - block);
    codes_.source->read(codes_.offset + first / 2, raw);
    read_absmax(block, most, scratch);
    for (std::uint64_t i = first; i < end; ++i) {
      const auto byte = std::to_integer<unsigned>(raw[i / 2 - first / 2]);
      out[i - first] = map[i % 2 == 0 ? byte >> 4 : byte & 15] * most[i / state_.block - block];
    }
  }
  void find_edges() {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    below_.fill(-kInfinity);
    above_.fill(kInfinity);
    for (std::size_t i = 0; i < map_.size(); ++i)
      for (const float other : map_) {
        const float middle = map_[i] / 2 + other / 2;
        if (other < map_[i]) below_[i] = std::max(below_[i], middle);
        if (other > map_[i]) above_[i] = std::min(above_[i], middle);
      }
  }
  void read_absmax(std::uint64_t first, std::span<float> out, Scratch& scratch) const {
    if (state_.nested_block == 0) return flat_finite(*absmax_, "absmax", first, out, scratch);
    Scratch::Frame frame(scratch);
    const std::uint64_t from = first / state_.nested_block;
    const auto codes = frame.take<float>(out.size());
    const auto scales =
        frame.take<float>((first + out.size() - 1) / state_.nested_block + 1 - from);
    flat_finite(*absmax_, "absmax", first, codes, scratch);
    flat_finite(*nested_absmax_, "nested_absmax", from, scales, scratch);
    for (std::uint64_t i = 0; i < out.size(); ++i)
      out[i] = nested_map_[static_cast<std::size_t>(codes[i])] *
                   scales[(first + i) / state_.nested_block - from] +
               state_.nested_offset;
  }
  // Stretches of a part in one dimension, or in one column.
  void flat_finite(const Tensor& part, std::string_view what, std::uint64_t first,
                   std::span<float> out, Scratch& scratch) const {
    const bool column = part.whole().cols == 1;
    read_finite(part, what, column ? Box{first, out.size(), 0, 1} : Box{0, 1, first, out.size()},
                out, scratch);
  }

  State state_;
  Extent codes_;
  TensorPtr absmax_, nested_absmax_;
  std::array<float, 16> map_{}, below_{}, above_{};  // levels, and half-way to the next
  std::array<float, 256> nested_map_{};
};

// ---- recognising

std::optional<Four> four_at(const Catalog& catalog, const TensorEntry& state) {
  const std::size_t at = state.name.rfind(kStateMark);
  if (at == state.name.npos || at == 0) return std::nullopt;
  const std::string name(state.name.substr(0, at));
  const auto part = [&](std::string_view suffix) {
    return catalog.find(name + std::string(suffix));
  };
  return Four{
      name,   catalog.find(name),  part(kAbsmax),    part(kMap),
      &state, part(kNestedAbsmax), part(kNestedMap), state.name.substr(at + kStateMark.size())};
}

class Recogniser {
 public:
  Recogniser(const Model& model, Diagnostics& faults)
      : model_(model), faults_(faults), config_(model) {}

  std::vector<Found> all() {
    for (const TensorEntry& t : model_.catalog.entries()) {
      if (t.dtype == DType::I8 && t.name.ends_with(kWeight)) eight(t);
      if (t.name.find(kStateMark) != t.name.npos) four(t);
      if (t.name.ends_with(kMap) && !t.name.ends_with(kNestedMap)) orphan(t);
    }
    notes_.tell(model_.path, faults_);
    return std::move(found_);
  }

 private:
  const TensorEntry* part(std::string_view module, std::string_view suffix) const {
    return model_.catalog.find(std::string(module) + std::string(suffix));
  }
  // Says it if the config is another's, or speaks of the other width, or excludes the module.
  bool disagrees(std::string_view module, const TensorEntry& codes, std::string_view load,
                 std::string_view other) {
    const QuantizationConfig* c = config_.get();
    if (!c) return false;
    if (c->method != "bitsandbytes" && !c->method.empty()) {
      notes_.add(fmt::format("{} says {}", c->where, quoted(c->method)), codes);
      return true;
    }
    if (flag_of(member(c->body, other), false) && !flag_of(member(c->body, load), false)) {
      fault(kAgrees, codes,
            fmt::format("{} says {}, but the parts of {} are those of {}", c->where, other,
                        quoted(codes.name), load));
      return true;
    }
    const auto list = c->excluded_by(module);
    if (list.empty()) return false;
    fault(kAgrees, codes,
          fmt::format("{} lists {} in {}, but it is stored quantized", c->where, quoted(module),
                      list));
    return true;
  }

  void eight(const TensorEntry& codes) {
    const std::string_view module = without(codes.name, kWeight);
    const TensorEntry *most = part(module, kRowMax), *format = part(module, kFormat);
    const QuantizationConfig* c = most ? nullptr : config_.get();
    if (!most && (!c || c->method != "bitsandbytes")) return;
    if (!most)
      return fault(kParts, codes,
                   fmt::format("{} is missing", quoted(fmt::format("{}{}", module, kRowMax))));
    if (disagrees(module, codes, "load_in_8bit", "load_in_4bit")) return;
    if (codes.shape.size() != 2 || most->dtype != DType::F32 || !has_shape(*most, {codes.shape[0]}))
      return fault(kShapes, codes,
                   fmt::format("SCB is {} {}, not one f32 for each row of {}", name_of(most->dtype),
                               to_text(most->shape), to_text(codes.shape)));
    std::vector<const TensorEntry*> parts{&codes, most};
    if (format) {
      if (format->dtype != DType::U8 || element_count(format->shape) != 1)
        return fault(kShapes, codes,
                     fmt::format("weight_format is {} {}, not one u8", name_of(format->dtype),
                                 to_text(format->shape)));
      const auto layout = std::to_integer<unsigned>(read_all(model_.catalog.extent(*format))[0]);
      if (layout != 0)
        return notes_.add(fmt::format("weight_format {}, where only rows (0) are decoded", layout),
                          codes);
      parts.push_back(format);
    }
    add(std::string(codes.name), parts, Shape(codes.shape.begin(), codes.shape.end()), kInt8Hint);
  }

  void four(const TensorEntry& entry) {
    const auto p = four_at(model_.catalog, entry);
    if (!p || !p->codes) return;  // a state without a tensor says nothing about one
    const std::string_view module =
        p->name.ends_with(kWeight) ? without(p->name, kWeight) : std::string_view(p->name);
    if (disagrees(module, *p->codes, "load_in_4bit", "load_in_8bit")) return;
    State state;
    if (p->type != "nf4" && p->type != "fp4")
      return notes_.add(fmt::format("a bitsandbytes type {}", quoted(p->type)), *p->codes);
    if (const auto why = parse_state(model_.catalog, entry, state))
      return fault(kState, *p->codes, *why);
    if (const auto why = wrong_parts(*p, state)) return fault(kParts, *p->codes, *why);
    std::vector<const TensorEntry*> parts{p->codes, p->state, p->absmax, p->map};
    if (state.nested_block != 0) {
      parts.push_back(p->nested_absmax);
      parts.push_back(p->nested_map);
    }
    // Two states of one tensor: the second may not claim it again.
    if (!claimed_.insert(p->codes).second)
      return fault(kParts, *p->codes, "there are two quant_states of it");
    add(p->name, parts, state.shape, kFourHint);
  }

  // A map of codes, but nothing that says what shape they have.
  void orphan(const TensorEntry& map) {
    const std::string name(without(map.name, kMap));
    const TensorEntry* codes = model_.catalog.find(name);
    if (!codes || !model_.catalog.find(name + std::string(kAbsmax))) return;
    for (const std::string_view type : {"nf4", "fp4"})
      if (part(name, fmt::format("{}{}", kStateMark, type))) return;
    const QuantizationConfig* c = config_.get();
    const std::string why =
        fmt::format("{} is missing", quoted(name + std::string(kStateMark) + "nf4"));
    if (c && c->method == "bitsandbytes")
      fault(kParts, *codes, why);
    else
      notes_.add(why, *codes);
  }

  void fault(const Rule& rule, const TensorEntry& codes, std::string why) {
    faults_.report(rule, place_of(model_.catalog, codes), codes.offset, std::move(why));
  }
  void add(std::string name, const std::vector<const TensorEntry*>& parts, Shape shape,
           std::uint8_t hint) {
    Found out{std::move(name), {}, DType::F32, std::move(shape), hint};
    for (const TensorEntry* t : parts) out.parts.push_back(model_.catalog.index_of(*t));
    found_.push_back(std::move(out));
  }

  const Model& model_;
  Diagnostics& faults_;
  LazyConfig config_;
  Notes notes_;
  std::vector<Found> found_;
  std::unordered_set<const TensorEntry*> claimed_;
};

std::vector<Found> recognise(const Model& model, Diagnostics& faults) {
  return Recogniser(model, faults).all();
}

TensorPtr open(const Model& model, const LogicalTensor& tensor) {
  const TensorEntry& codes = model.part(tensor, 0);
  const std::string where = fmt::format(
      "{}: tensor {}", model.catalog.sources()[codes.source]->name(), quoted(tensor.name));
  if (tensor.hint == kInt8Hint) return std::make_shared<Int8>(where, model, tensor);
  const auto parts = four_at(model.catalog, model.part(tensor, 1));
  State state;
  // All of this held when the tensor was recognised; so it only fails if we are wrong.
  if (!parts || parse_state(model.catalog, model.part(tensor, 1), state) ||
      wrong_parts(*parts, state))
    throw Error(Fault::Internal, fmt::format("tensor {} has changed", quoted(tensor.name)));
  return std::make_shared<FourBits>(where, model.catalog, *parts, state);
}

}  // namespace
}  // namespace bitsandbytes

const Scheme kBitsAndBytes{
    .name = "bitsandbytes",
    .summary = "int8, NF4 and FP4 of bitsandbytes",
    .rules = bitsandbytes::kRules,
    .recognise = bitsandbytes::recognise,
    .open = bitsandbytes::open,
    .refuses = bitsandbytes::refuses,
    .encode = bitsandbytes::encode,
    .config = bitsandbytes::config,
};

}  // namespace wtool
