// Writing AWQ in its GEMM layout, which is described in awq.cc. Symmetric weights have all their
// zero points in the middle.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/schemes/awq.h"
#include "formats/schemes/written.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool::awq {
namespace {

class Packed final : public IntegerLayout {
 public:
  explicit Packed(const IntegerShape& shape) : IntegerLayout(shape) {}

  std::vector<OutTensor> outputs(const std::string& module) const override {
    const IntegerShape& s = shape();
    const auto part = [&](std::string_view suffix) { return module + std::string(suffix); };
    return {{part(kCodes), DType::I32, {s.cols, s.rows / kPerWord}},
            {part(kZeros), DType::I32, {s.groups, s.rows / kPerWord}},
            {part(kScales), s.scale, {s.groups, s.rows}}};
  }

  Span code_span(const Box& box) const override { return words_span(0, box); }
  void pack_codes(const Box& box, std::span<const std::uint8_t> codes, MutableBytes out,
                  Scratch&) const override {
    pack(box, codes, out);
  }

  void group_spans(const Box& box, std::vector<Span>& add_to) const override {
    const std::uint64_t rows = shape().rows, size = scale_bytes();
    add_to.push_back(words_span(1, box));
    add_to.push_back(
        {2, (box.col * rows + box.row) * size, box.rows * size, box.cols, rows * size});
  }
  void pack_groups(const Box& box, std::span<const std::uint8_t> zeros, Bytes scales,
                   std::span<const MutableBytes> out, Scratch&) const override {
    pack(box, zeros, out[0]);
    transpose(scales, box.rows, box.cols, scale_bytes(), out[1]);
  }

 private:
  // Codes and zero points are packed alike: eight rows to a word, the columns down.
  Span words_span(std::uint32_t output, const Box& box) const {
    const std::uint64_t row_bytes = shape().rows / kPerWord * 4;
    return {output, box.col * row_bytes + box.row / kPerWord * 4, box.rows / kPerWord * 4, box.cols,
            row_bytes};
  }
  // Eight columns of eight rows at a time: a byte of each word has two rows, the place of one of
  // them even and of the other the next.
  static void pack(const Box& box, std::span<const std::uint8_t> codes, MutableBytes out) {
    const std::uint64_t bands = box.rows / kPerWord;
    for (std::uint64_t band = 0; band < bands; ++band)
      for (std::uint64_t c = 0; c < box.cols; c += 8) {
        const std::uint64_t cols = std::min<std::uint64_t>(8, box.cols - c);
        std::array<std::uint64_t, kPerWord / 2> bytes{};
        for (std::uint64_t i = 0; i < kPerWord; ++i) {
          std::uint64_t row = 0;
          std::memcpy(&row, codes.data() + (band * kPerWord + i) * box.cols + c, cols);
          bytes[kPlace[i] / 2] |= row << 4 * (kPlace[i] % 2);
        }
        for (std::uint64_t k = 0; k < cols; ++k) {
          std::uint32_t word = 0;
          for (unsigned b = 0; b < bytes.size(); ++b)
            word |= static_cast<std::uint32_t>(bytes[b] >> 8 * k & 0xFF) << 8 * b;
          store(out, word, (c + k) * bands + band);
        }
      }
  }
};

}  // namespace

std::optional<std::string> refuses_shape(const IntegerShape& shape) {
  if (shape.bits != kBits) return fmt::format("{} bits: AWQ has 4", shape.bits);
  if (shape.rows % kPerWord != 0)
    return fmt::format("{} rows do not fill words of {} codes", shape.rows, kPerWord);
  return std::nullopt;
}

IntegerLayoutPtr layout(const IntegerShape& shape) {
  return std::make_shared<Packed>(shape);
}

std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options) {
  if (auto why = refuses_as_integers(tensor, options)) return why;
  return refuses_shape(integer_shape(tensor, options, DType::F16));
}

void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan) {
  encode_as_integers(targets, options, refuses, layout, plan);
}

std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept) {
  using Json = nlohmann::ordered_json;
  if (groups.empty()) throw Error(Fault::Internal, "a quantization_config without groups");
  const std::uint64_t group = groups.front().options.group;
  for (const ConfigGroup& g : groups) {
    if (g.options.group != group)
      throw Error(Fault::Usage, fmt::format("one AWQ model has groups of one size, not {} and {}",
                                            group, g.options.group))
          .hint(
              fmt::format("--group-size {}", std::ranges::min(groups, {}, [](const ConfigGroup& c) {
                                               return c.options.group;
                                             }).options.group));
    // Engines leave out every module whose name contains an entry of the list.
    for (const std::string& module : g.modules)
      for (const std::string& k : kept)
        if (module.find(k) != module.npos)
          throw Error(Fault::Usage,
                      fmt::format("module {} is kept, and engines would then keep {} too: AWQ's "
                                  "list is of parts of names",
                                  quoted(k), quoted(module)))
              .hint("keep or quantize both");
  }
  Json out;
  out["quant_method"] = "awq";
  out["bits"] = kBits;
  out["group_size"] = group == 0 ? Json(-1) : Json(group);
  out["zero_point"] = true;
  out["version"] = "gemm";
  out["modules_to_not_convert"] = std::vector<std::string>(kept.begin(), kept.end());
  return json_text(out);
}

}  // namespace wtool::awq
