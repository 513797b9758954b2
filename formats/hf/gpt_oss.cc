#include "formats/hf/gpt_oss.h"

#include <fmt/format.h>

#include "formats/hf/gguf_keys.h"
#include "formats/registry.h"
#include "lib/base/error.h"
#include "lib/model/transform.h"

namespace wtool {
namespace {

// A block of both: a scale and 32 codes of 4 bits. gpt-oss has neighbours in a byte, the lower half
// first; ggml the elements j and j + 16 (block_mxfp4 in ggml-common.h).
constexpr std::size_t kCodes = 32, kCodeBytes = kCodes / 2, kBlockBytes = 1 + kCodeBytes;

void move_block(std::byte scale, const std::byte* codes, std::byte* out) {
  const auto code = [&](std::size_t i) {
    return i % 2 == 0 ? codes[i / 2] & std::byte{0x0f} : codes[i / 2] >> 4;
  };
  out[0] = scale;
  for (std::size_t j = 0; j < kCodeBytes; ++j) out[1 + j] = code(j) | code(j + kCodeBytes) << 4;
}

class Blocks final : public Tensor {
 public:
  Blocks(Shape shape, TensorPtr codes, TensorPtr scales)
      : Tensor(DType::MXFP4, std::move(shape)),
        codes_(std::move(codes)),
        scales_(std::move(scales)) {}

  void read(const Box& box, MutableBytes out, Scratch& scratch) const override {
    const std::uint64_t in_row = whole().cols / kCodes, first = box.col / kCodes,
                        n = box.cols / kCodes;
    if (n == 0) return;
    Scratch::Frame frame(scratch);
    const auto codes = frame.take<std::byte>(n * kCodeBytes), scales = frame.take<std::byte>(n);
    std::byte* to = out.data();
    for (std::uint64_t row = box.row; row < box.row + box.rows; ++row) {
      codes_->read({row * in_row + first, n, 0, kCodeBytes}, codes, scratch);
      scales_->read({row, 1, first, n}, scales, scratch);
      for (std::size_t b = 0; b < n; ++b, to += kBlockBytes)
        move_block(scales[b], &codes[b * kCodeBytes], to);
    }
  }

 private:
  TensorPtr codes_, scales_;  // [experts, rows, blocks, 16] and [experts, rows, blocks] bytes
};

}  // namespace

bool is_mxfp4(const LogicalTensor& t) {
  return t.scheme == &kGptOss;
}

// The scheme has seen to it that both parts fit the shape.
TensorPtr mxfp4_blocks(const Model& model, const LogicalTensor& t) {
  return std::make_shared<Blocks>(Shape(t.shape.begin(), t.shape.end()),
                                  stored(model.catalog, model.part(t, 0)),
                                  stored(model.catalog, model.part(t, 1)));
}

TensorPtr experts_transposed(const TensorPtr& of) {
  const Shape& s = of->shape();
  if (s.size() != 3 || of->elements() == 0)
    throw Error(Fault::BadFile, fmt::format("{} is not one matrix for each expert", to_text(s)));
  if (s[0] > kMaxExperts)
    throw Error(Fault::BadFile, fmt::format("{} experts are too many for llama.cpp (at most {})",
                                            s[0], kMaxExperts));
  std::vector<TensorPtr> all;
  for (std::uint64_t x = 0; x < s[0]; ++x)
    all.push_back(transposed(slice(of, {{x, x + 1, true}, {0, s[1]}, {0, s[2]}})));
  return stacked(std::move(all));
}

// Two rows side by side are one of twice the width: the left or the right half of each.
TensorPtr every_second(const TensorPtr& of, bool odd) {
  Shape s = of->shape();
  if (s.size() < 2 || s.size() > 3 || s[1] % 2 != 0)
    throw Error(Fault::BadFile, fmt::format("{} is not pairs for each expert", to_text(s)));
  const std::uint64_t wide = s.size() == 3 ? s[2] : 1, first = odd ? wide : 0;
  const TensorPtr pairs = reshaped(of, {s[0], s[1] / 2, 2 * wide});
  const TensorPtr half = slice(pairs, {{0, s[0]}, {0, s[1] / 2}, {first, first + wide}});
  s[1] /= 2;
  return s.size() == 3 ? half : reshaped(half, s);
}

}  // namespace wtool
