#pragma once
// What the readers of quantisation schemes share; nobody else includes this.
#include <array>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/model/model.h"

namespace wtool {

// What is wrong with the parts of a tensor, or nothing.
using Complaint = std::optional<std::string>;

// "m.safetensors: tensor 'a.qweight'"
Place place_of(const Catalog& catalog, const TensorEntry& entry);
bool has_shape(const TensorEntry& t, std::initializer_list<std::uint64_t> shape);
bool is_float_scale(const TensorEntry& t);  // f32, bf16, f16
// 'a.b.qweight' without '.qweight'; the name ends so.
std::string_view without(std::string_view name, std::string_view suffix);

// Reasons to leave tensors plain without calling the file wrong: said once, with a count.
class Notes {
 public:
  void add(std::string_view reason, const TensorEntry& entry);
  void tell(const std::string& where, Diagnostics& faults) const;

 private:
  struct Line {
    std::string reason, first;
    std::size_t count;
  };
  std::vector<Line> lines_;
  std::unordered_map<std::string, std::size_t> by_reason_;
};

// What of an element is decoded: its level, or half-way from it to the level of the next smaller or
// larger code (of a negative scale they change sides), infinite beyond the last one.
enum class Edge : std::uint8_t { Level, Below, Above };
// Of the integers lo … hi.
inline float edge_of(Edge edge, int code, int lo, int hi) noexcept {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto value = static_cast<float>(code);
  if (edge == Edge::Below) return code <= lo ? -kInfinity : value - 0.5f;
  if (edge == Edge::Above) return code >= hi ? kInfinity : value + 0.5f;
  return value;
}

// Values in f32 computed from several stored tensors. A box is decoded in pieces, so that memory
// does not follow its size.
class Decoded : public Tensor {
 public:
  void read(const Box& box, MutableBytes out, Scratch& scratch) const final;
  bool cells(const Box& box, std::span<float> low, std::span<float> high,
             Scratch& scratch) const final;

 protected:
  // `where` names file and tensor in what decode() throws.
  Decoded(std::string where, Shape shape)
      : Tensor(DType::F32, std::move(shape)), where_(std::move(where)) {}

  // A box of at most Tiling::kUnitElements, none of them zero.
  virtual void decode(const Box& piece, Edge edge, std::span<float> out,
                      Scratch& scratch) const = 0;
  // Values that decode() holds for each row of such a box besides its columns.
  virtual std::uint64_t beside(const Box&) const { return 0; }

  // A box of a part as f32. Throws BadFile at what is NaN or infinite: "scale [3, 0] is nan".
  void read_finite(const Tensor& part, std::string_view what, const Box& box, std::span<float> out,
                   Scratch& scratch) const;
  Error bad(std::string text) const;

 private:
  void decode_all(const Box& box, Edge edge, MutableBytes out, Scratch& scratch) const;
  std::string where_;
};

// The eight magnitudes of a 4-bit float (sign, 2 bits of exponent, 1 of mantissa), then negated.
inline constexpr std::array<float, 16> kE2M1{0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,
                                             4.0f,  6.0f,  -0.0f, -0.5f, -1.0f, -1.5f,
                                             -2.0f, -3.0f, -4.0f, -6.0f};

// The group of each column, where it is not just its place divided by the group's size.
struct GroupIndex {
  std::vector<std::uint32_t> of_column;  // empty: in order
  std::uint64_t group = 1;               // columns in a group, if they are in order

  std::uint64_t at(std::uint64_t col) const {
    return of_column.empty() ? col / group : of_column[col];
  }
  struct Groups {
    std::uint64_t first, count;
  };
  Groups of(const Box& box) const;  // that its columns use, or nearly

  // Reads an i32 index [cols]. Throws BadFile at a group that is not below `groups`. -1
  // everywhere is what loaders take for "in order".
  static GroupIndex from(const Tensor& index, std::uint64_t cols, std::uint64_t groups,
                         std::uint64_t group);
};

// Field `index` of `bits` (at most 8) of a little-endian stream of words that lie `stride` apart.
inline unsigned field(const std::uint32_t* words, std::uint64_t stride, unsigned bits,
                      std::uint64_t index) {
  const std::uint64_t bit = index * bits, word = bit / 32;
  const unsigned shift = bit % 32;
  std::uint32_t value = words[word * stride] >> shift;
  if (shift + bits > 32) value |= words[(word + 1) * stride] << (32 - shift);
  return value & ((1u << bits) - 1);
}

}  // namespace wtool
