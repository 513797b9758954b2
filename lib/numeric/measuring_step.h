#pragma once
#include <string>
#include <utility>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/model/plan.h"
#include "lib/model/tensor.h"

namespace wtool {

// What the steps that encode have in common: each unit gives a `Found` (trivially copyable, with
// +=), folded in unit order into total_.
template <class Found>
class MeasuringStep : public Step {
 public:
  void fold(std::uint64_t, Buffer& found) override {
    total_ += load<Found>(found);
    found.clear();
  }

 protected:
  MeasuringStep(std::vector<OutTensor> outputs, std::string name)
      : Step(std::move(outputs)), name_(std::move(name)) {}
  static void give(Buffer& to, const Found& found) {
    append(to, std::as_bytes(std::span(&found, 1)));
  }
  std::string name_;
  Found total_;
};

// Element `i` of a box, counted through the whole tensor.
inline std::uint64_t flat_index(const Tensor& tensor, const Box& box, std::uint64_t i) {
  return (box.row + i / box.cols) * tensor.whole().cols + box.col + i % box.cols;
}

// Where the elements of a box lie that is whole rows, or a piece of one row.
inline Span span_of(const Tensor& tensor, DType type, const Box& box) {
  return {.output = 0,
          .offset = checked_size(type, box.row * tensor.whole().cols + box.col),
          .bytes = checked_size(type, box.elements())};
}

// Steps from one tensor to one of another type.
template <class Found>
class TypeStep : public MeasuringStep<Found> {
 public:
  std::uint64_t units() const override { return tiling_.units(); }
  void spans(std::uint64_t unit, std::vector<Span>& add_to) const override {
    add_to.push_back(span_of(*from_, to_, tiling_.box(unit)));
  }

 protected:
  TypeStep(const std::string& name, TensorPtr from, DType to)
      : MeasuringStep<Found>({{name, to, from->shape()}}, name),
        from_(std::move(from)),
        to_(to),
        tiling_(Tiling::of(*from_, info(to).block_elems)) {}
  TensorPtr from_;
  DType to_;
  Tiling tiling_;
};

}  // namespace wtool
