#include "lib/numeric/cells.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/ggml_cells.h"

namespace wtool {
namespace {

std::optional<FloatGrid> grid_of(DType type) noexcept {
  switch (type) {
    case DType::F16: return FloatGrid{10, -14, 65504};
    case DType::BF16: return FloatGrid{7, -126, 0x1.FEp127f};
    case DType::F8_E4M3: return FloatGrid{3, -6, 448};
    case DType::F8_E5M2: return FloatGrid{2, -14, 57344};
    case DType::F8_E4M3FNUZ: return FloatGrid{3, -7, 240};
    case DType::F8_E5M2FNUZ: return FloatGrid{2, -15, 57344};
    case DType::F6_E2M3: return FloatGrid{3, 0, 7.5f};
    case DType::F6_E3M2: return FloatGrid{2, -2, 28};
    case DType::F4: return FloatGrid{1, 0, 6};
    default: return std::nullopt;
  }
}

// As f32, each number plus the same one if there is one to add.
class Widened final : public Tensor {
 public:
  explicit Widened(TensorPtr of, std::optional<float> addend = std::nullopt)
      : Tensor(DType::F32, of->shape()), of_(std::move(of)), addend_(addend) {}

  void read(const Box& box, MutableBytes out, Scratch& scratch) const override {
    Scratch::Frame frame(scratch);
    const auto values = frame.take<float>(box.elements());
    read_f32(*of_, box, values, scratch);
    add(values);
    std::ranges::copy(std::as_bytes(values), out.begin());
  }
  bool cells(const Box& box, std::span<float> low, std::span<float> high,
             Scratch& scratch) const override {
    if (steps_of(*of_) != StepsOf::Levels) return false;
    if (box.elements() == 0) return true;
    Scratch::Frame frame(scratch);
    const auto slack = frame.take<float>(box.elements());
    read_cells(*of_, box, {low, high, slack}, scratch);
    add(low);
    add(high);
    return true;
  }

 private:
  // Not of 0 where there is none: -0 + 0 is 0.
  void add(std::span<float> values) const {
    if (addend_)
      for (float& v : values) v += *addend_;
  }

  TensorPtr of_;
  std::optional<float> addend_;
};

}  // namespace

float half_way(const FloatGrid& grid, float value, bool up) noexcept {
  const float size = std::abs(value);
  const bool away = up == (value > 0) && value != 0;  // from zero
  const float sign = value == 0 ? (up ? 1.0f : -1.0f) : (value > 0 ? 1.0f : -1.0f);
  if (away && size >= grid.largest) return sign * std::numeric_limits<float>::infinity();
  const int exponent = size == 0 ? grid.lowest : std::max(std::ilogb(size), grid.lowest);
  double step = std::ldexp(1.0, exponent - grid.fraction);
  // Below a power of two, levels lie twice as close.
  if (!away && size != 0 && exponent > grid.lowest && size == std::ldexp(1.0f, exponent)) step /= 2;
  const double middle = away || size == 0 ? double{size} + step / 2 : double{size} - step / 2;
  return sign * static_cast<float>(middle);
}

FloatGrid float_grid(DType type) {
  if (const auto grid = grid_of(type)) return *grid;
  throw Error(Fault::Internal, fmt::format("{} has no steps", name_of(type)));
}

StepsOf steps_of(const Tensor& tensor) {
  Scratch scratch;
  if (tensor.cells({}, {}, {}, scratch)) return StepsOf::Levels;
  if (info(tensor.dtype()).kind == Kind::Block)
    return ggml_cells(tensor.dtype()) != nullptr ? StepsOf::Levels : StepsOf::Unknown;
  return grid_of(tensor.dtype()) ? StepsOf::Floats : StepsOf::Nothing;
}

void read_cells(const Tensor& tensor, const Box& box, const CellSpans& out, Scratch& scratch) {
  const auto& [low, high, slack] = out;
  std::ranges::fill(slack, 0.0f);
  if (box.elements() == 0 || tensor.cells(box, low, high, scratch)) return;
  Scratch::Frame frame(scratch);
  if (const BlockCells cells = ggml_cells(tensor.dtype())) {
    const auto bytes = frame.take<std::byte>(checked_size(tensor.dtype(), box.elements()));
    tensor.read(box, bytes, scratch);
    return cells(bytes.data(), {low.data(), high.data(), slack.data()}, low.size());
  }
  const FloatGrid grid = float_grid(tensor.dtype());
  const auto values = frame.take<float>(box.elements());
  read_f32(tensor, box, values, scratch);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool finite = std::isfinite(values[i]);
    low[i] = finite ? half_way(grid, values[i], false) : values[i];
    high[i] = finite ? half_way(grid, values[i], true) : values[i];
  }
}

TensorPtr widened(TensorPtr of) {
  if (of->dtype() == DType::F32) return of;
  return std::make_shared<Widened>(std::move(of));
}

TensorPtr added(TensorPtr of, float addend) {
  static_cast<void>(codec(of->dtype()));  // throws Unsupported
  return std::make_shared<Widened>(std::move(of), addend);
}

}  // namespace wtool
