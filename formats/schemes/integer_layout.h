#pragma once
// What the writers of packed integers share; nobody else includes this.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/model/integers.h"
#include "lib/model/model.h"
#include "lib/numeric/group_codes.h"

namespace wtool {

// How a scheme packs the integers of one weight, in boxes that begin at multiples of kGrain rows
// and columns and end there or with the weight: then no word belongs to two of them. Codes and zero
// points count from 0.
class IntegerLayout {
 public:
  static constexpr std::uint64_t kGrain = 32;

  virtual ~IntegerLayout() = default;
  const IntegerShape& shape() const noexcept { return shape_; }

  virtual std::vector<OutTensor> outputs(const std::string& module) const = 0;  // codes first
  virtual Span code_span(const Box& box) const = 0;                             // of output 0
  virtual void pack_codes(const Box& box, std::span<const std::uint8_t> codes, MutableBytes out,
                          Scratch& scratch) const = 0;
  // Instead of codes, each row's stream of words: where that is quicker.
  virtual bool takes_words() const { return false; }
  virtual void place_words(const Box& /*box*/, Bytes /*words*/, MutableBytes /*out*/) const {}
  // Zero points and scales of a box of rows × groups. Zero points are empty where the scheme does
  // not store them.
  virtual void group_spans(const Box& box, std::vector<Span>& add_to) const = 0;
  virtual void pack_groups(const Box& box, std::span<const std::uint8_t> zeros, Bytes scales,
                           std::span<const MutableBytes> out, Scratch& scratch) const = 0;
  // What there is once. `index` is empty where groups are in order.
  virtual void rest_spans(std::vector<Span>& /*add_to*/) const {}
  virtual void pack_rest(std::span<const std::uint32_t> /*index*/,
                         std::span<const MutableBytes> /*out*/) const {}

 protected:
  explicit IntegerLayout(const IntegerShape& shape) : shape_(shape) {}
  std::uint64_t scale_bytes() const { return info(shape_.scale).block_bytes; }

 private:
  IntegerShape shape_;
};
using IntegerLayoutPtr = std::shared_ptr<const IntegerLayout>;

// Units of whole groups; a group, or a row without groups, is at most kMostTogether wide.
inline constexpr std::uint64_t kMostTogether = std::uint64_t{1} << 16;
Tiling integer_tiling(const IntegerShape& shape);
Tiling box_tiling(const Box& whole, std::uint64_t wide);  // of pieces of `wide` columns

// Quantises a target to a layout's integers. `how` agrees with the layout's shape.
std::unique_ptr<Step> integer_step(const Target& target, const IntegerCoding& how,
                                   IntegerLayoutPtr layout);

// A step for each target, with f16 scales. Throws Usage at one that is refused.
void encode_as_integers(std::span<const Target> targets, const SchemeOptions& options,
                        std::optional<std::string> (*refuses)(const Tensor&, const SchemeOptions&),
                        IntegerLayoutPtr (*layout)(const IntegerShape&), Plan& plan);

// What all such writers ask of a tensor and its groups, or why not.
std::optional<std::string> refuses_as_integers(const Tensor& tensor, const SchemeOptions& options);
IntegerShape integer_shape(const Tensor& tensor, const SchemeOptions& options, DType scale);

// ---- pieces of layouts

// Row r, column c of `size` bytes each to row c, column r.
void transpose(Bytes in, std::uint64_t rows, std::uint64_t cols, std::size_t size,
               MutableBytes out);
// Each column of `codes` [rows, cols], of `bits`, as a stream of words: [cols, words]. `less` is
// taken away from each code first.
void pack_down(std::span<const std::uint8_t> codes, std::uint64_t rows, std::uint64_t cols,
               unsigned bits, unsigned less, MutableBytes out, Scratch& scratch);
inline std::uint64_t packed_words(std::uint64_t codes, unsigned bits) {
  return ceil_div(codes * bits, 32);
}

}  // namespace wtool
