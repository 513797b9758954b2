#pragma once
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "lib/model/plan.h"
#include "lib/model/report.h"
#include "lib/model/tensor.h"
#include "tests/catch.h"

// Tensors in memory, and steps run by hand.
namespace wtool {

class Memory final : public Tensor {
 public:
  Memory(DType type, Shape shape, Buffer bytes)
      : Tensor(type, std::move(shape)), bytes_(std::move(bytes)) {}
  void read(const Box& box, MutableBytes out, Scratch&) const override {
    for (std::uint64_t r = 0; r < box.rows; ++r) {
      const std::uint64_t at = checked_size(dtype(), (box.row + r) * whole().cols + box.col);
      const std::uint64_t piece = checked_size(dtype(), box.cols);
      std::memcpy(out.data() + r * piece, bytes_.data() + at, piece);
    }
  }

 private:
  Buffer bytes_;
};
template <class T>
Buffer packed(const std::vector<T>& values) {
  Buffer out(values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(out.data(), values.data(), out.size());
  return out;
}
template <class T>
TensorPtr tensor(DType type, Shape shape, const std::vector<T>& values) {
  return std::make_shared<Memory>(type, std::move(shape), packed(values));
}
template <class T>
std::vector<T> as(const Buffer& bytes) {
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

struct Done {
  std::vector<Buffer> outputs;
  Row row;
  template <class T>
  T cell(std::string_view name) const {
    const Cell* c = row.find(name);
    REQUIRE(c != nullptr);
    return std::get<T>(*c);
  }
  std::uint64_t count(std::string_view name) const { return cell<std::uint64_t>(name); }
};

// All units, run in the order of `first`, folded in their own.
inline Done run(Step& step, bool backwards = false) {
  Done done;
  for (const OutTensor& out : step.outputs())
    done.outputs.emplace_back(out.bytes(), std::byte{0xEE});
  std::vector<Buffer> found(step.units());
  Scratch scratch;
  for (std::uint64_t i = 0; i < step.units(); ++i) {
    const std::uint64_t unit = backwards ? step.units() - 1 - i : i;
    std::vector<Span> spans;
    step.spans(unit, spans);
    std::vector<Buffer> strips;  // closed up, as execute() hands them out
    std::vector<MutableBytes> parts;
    for (const Span& s : spans) strips.emplace_back(s.bytes * s.count, std::byte{0xDD});
    for (Buffer& s : strips) parts.emplace_back(s);
    step.run({unit, parts, found[unit], scratch});
    for (std::size_t p = 0; p < spans.size(); ++p)
      for (std::uint64_t k = 0; k < spans[p].count; ++k) {
        const MutableBytes to(done.outputs[spans[p].output]);
        std::memcpy(to.subspan(spans[p].offset + k * spans[p].stride, spans[p].bytes).data(),
                    strips[p].data() + k * spans[p].bytes, spans[p].bytes);
      }
  }
  for (std::uint64_t i = 0; i < step.units(); ++i) step.fold(i, found[i]);
  Report report;
  step.report(report);
  if (!report.rows.empty()) done.row = report.rows[0];
  return done;
}

}  // namespace wtool
