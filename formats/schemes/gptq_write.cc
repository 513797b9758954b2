// Writing GPTQ. The layout is described in gptq.cc. Symmetric weights are written as version 1,
// which every engine reads. It cannot hold a zero point of 0, and loaders distrust its zero points
// if they are not in the middle; so weights with zero points are written as version 2.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/schemes/gptq.h"
#include "formats/schemes/written.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/numeric/kernels/groups.h"

namespace wtool::gptq {
namespace {

// How many codes end on the border of a word together.
std::uint64_t per_word(unsigned bits) {
  return bits == 3 ? kWordBits : kWordBits / bits;
}

class Packed final : public IntegerLayout {
 public:
  explicit Packed(const IntegerShape& shape) : IntegerLayout(shape) {}

  std::vector<OutTensor> outputs(const std::string& module) const override {
    const IntegerShape& s = shape();
    const auto part = [&](std::string_view suffix) { return module + std::string(suffix); };
    return {{part(kCodes), DType::I32, {words(s.cols), s.rows}},
            {part(kZeros), DType::I32, {s.groups, words(s.rows)}},
            {part(kScales), s.scale, {s.groups, s.rows}},
            {part(kIndex), DType::I32, {s.cols}}};
  }

  Span code_span(const Box& box) const override {
    return {0, (words(box.col) * shape().rows + box.row) * 4, box.rows * 4, words(box.cols),
            shape().rows * 4};
  }
  void pack_codes(const Box& box, std::span<const std::uint8_t> codes, MutableBytes out,
                  Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const std::uint64_t row_bytes = words(box.cols) * 4;
    const auto streams = frame.take<std::byte>(box.rows * row_bytes);
    for (std::uint64_t r = 0; r < box.rows; ++r)
      wtool::pack_codes(codes.subspan(r * box.cols, box.cols), shape().bits,
                        streams.data() + r * row_bytes);
    place_words(box, streams, out);
  }
  bool takes_words() const override { return true; }
  void place_words(const Box& box, Bytes streams, MutableBytes out) const override {
    transpose(streams, box.rows, words(box.cols), 4, out);
  }

  void group_spans(const Box& box, std::vector<Span>& add_to) const override {
    const std::uint64_t rows = shape().rows, size = scale_bytes();
    add_to.push_back({1, (box.col * words(rows) + words(box.row)) * 4, words(box.rows) * 4,
                      box.cols, words(rows) * 4});
    add_to.push_back(
        {2, (box.col * rows + box.row) * size, box.rows * size, box.cols, rows * size});
  }
  void pack_groups(const Box& box, std::span<const std::uint8_t> zeros, Bytes scales,
                   std::span<const MutableBytes> out, Scratch& scratch) const override {
    pack_down(zeros, box.rows, box.cols, shape().bits, shape().zero_points ? 0 : 1, out[0],
              scratch);
    transpose(scales, box.rows, box.cols, scale_bytes(), out[1]);
  }

  void rest_spans(std::vector<Span>& add_to) const override {
    add_to.push_back({3, 0, shape().cols * 4});
  }
  void pack_rest(std::span<const std::uint32_t> index,
                 std::span<const MutableBytes> out) const override {
    for (std::uint64_t c = 0; c < shape().cols; ++c)
      store(out[0], index.empty() ? static_cast<std::uint32_t>(c / shape().group()) : index[c], c);
  }

 private:
  std::uint64_t words(std::uint64_t codes) const { return packed_words(codes, shape().bits); }
};

}  // namespace

std::string pattern_of(std::string_view module) {
  std::string out = "^";
  for (const char c : module) {
    if (std::string_view(R"(\.+*?^$|()[]{})").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out + '$';
}

std::optional<std::string> refuses_shape(const IntegerShape& shape) {
  if (!is_width(shape.bits)) return fmt::format("{} bits: GPTQ has 2, 3, 4 and 8", shape.bits);
  const std::uint64_t n = per_word(shape.bits);
  for (const auto& [count, what] : {std::pair{shape.cols, "columns"}, {shape.rows, "rows"}})
    if (count % n != 0)
      return fmt::format("{} {} do not fill words, which hold {} codes of {} bits{}", count, what,
                         n, shape.bits, shape.bits == 3 ? " in 3" : "");
  return std::nullopt;
}

IntegerLayoutPtr layout(const IntegerShape& shape) {
  return std::make_shared<Packed>(shape);
}

std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options) {
  if (auto why = refuses_as_integers(tensor, options)) return why;
  const IntegerShape shape = integer_shape(tensor, options, DType::F16);
  if (auto why = refuses_shape(shape)) return why;
  if (shape.group() % per_word(shape.bits) != 0)
    return fmt::format("groups of {} do not fill words, which hold {} codes of {} bits",
                       shape.group(), per_word(shape.bits), shape.bits);
  return std::nullopt;
}

void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan) {
  encode_as_integers(targets, options, refuses, layout, plan);
}

// The first group's numbers are everybody's; modules of the others have theirs in 'dynamic'.
std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept) {
  using Json = nlohmann::ordered_json;
  if (groups.empty()) throw Error(Fault::Internal, "a quantization_config without groups");
  const SchemeOptions& all = groups.front().options;
  for (const ConfigGroup& g : groups)
    if (g.options.asymmetric != all.asymmetric)
      throw Error(Fault::Usage, "one GPTQ model is either symmetric or has zero points, not both");
  const auto group_size = [](const SchemeOptions& o) {
    return o.group == 0 ? Json(-1) : Json(o.group);
  };
  Json dynamic = Json::object();
  for (const std::string& module : kept) dynamic["-:" + pattern_of(module)] = Json::object();
  for (const ConfigGroup& g : groups.subspan(1))
    for (const std::string& module : g.modules)
      dynamic["+:" + pattern_of(module)] = {{"bits", g.options.bits},
                                            {"group_size", group_size(g.options)}};
  Json out;
  out["quant_method"] = "gptq";
  out["bits"] = all.bits;
  out["group_size"] = group_size(all);
  out["desc_act"] = false;
  out["sym"] = !all.asymmetric;
  out["lm_head"] = false;
  out["checkpoint_format"] = all.asymmetric ? "gptq_v2" : "gptq";
  out["pack_dtype"] = "int32";
  out["damp_percent"] = 0.05;
  out["true_sequential"] = true;
  out["dynamic"] = std::move(dynamic);
  for (const ConfigGroup& g : groups)
    for (const std::string& module : g.modules)
      if (module == "lm_head") out["lm_head"] = true;
  return json_text(out);
}

}  // namespace wtool::gptq
