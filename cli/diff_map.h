#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/model.h"

namespace wtool {

// A name with placeholders: "blk.{L}.ffn_{P=gate,up}.weight". {L} stands for one or more characters
// that are no dot, {P=gate,up} for one of these words.
class NamePattern {
 public:
  struct Hole {
    std::string name;
    std::vector<std::string> words;  // empty: anything without a dot
  };
  explicit NamePattern(std::string_view text);  // throws Usage
  // What the placeholders stand for, in their order.
  bool match(std::string_view name, std::vector<std::string>& values) const;
  const std::vector<Hole>& holes() const noexcept { return holes_; }
  const std::string& text() const noexcept { return text_; }

 private:
  bool match_from(std::size_t hole, std::string_view rest, std::vector<std::string>& values) const;
  std::string text_;
  std::vector<std::string> literals_;  // one more than holes: before, between and behind them
  std::vector<Hole> holes_;
};

// What is done to tensors of one side before they are compared.
struct Transform {
  enum class Kind : std::uint8_t { Permute, Transpose, Add, Rows, Split, Stack } kind;
  std::uint64_t first = 0, second = 0;  // heads; begin and end; number and count
  double addend = 0;
  std::string hole;  // stack: the placeholder that counts
};

struct MapSide {
  NamePattern pattern;
  std::vector<Transform> transforms;
  std::string stack;  // the placeholder that counts what is stacked; empty: nothing is
};
struct MapRule {
  std::string place;  // "llama.map:3"
  std::string text;
  MapSide a, b;
};

// The file of --map: a rule a line, 'A-NAME [TRANSFORM …] -> B-NAME [TRANSFORM …]', # begins a
// comment. Throws Usage, naming file and line.
std::vector<MapRule> parse_map(std::string_view text, const std::string& file);

// Tensors to be compared. More than one on a side are stacked.
struct TensorPair {
  std::vector<std::uint32_t> a, b;  // indices into the models' tensors; not empty
  const MapRule* rule = nullptr;    // null: they have the same name
};
struct Pairing {
  std::vector<TensorPair> pairs;  // in the order of A
  std::vector<std::uint32_t> only_a, only_b;
};
// Pairs by the rules, and what no rule mentions by name. Throws Usage naming every rule that pairs
// nothing, unless that is allowed.
Pairing pair_tensors(const Model& a, const Model& b, const std::vector<MapRule>& rules,
                     bool allow_unmatched);
// One side of a pair, transformed. Throws with the rule's and the tensors' place.
TensorPtr open_side(const Model& model, const std::vector<std::uint32_t>& tensors,
                    const MapSide* side, const std::string& place);
// The tensor's name; of stacked ones, with * for the number: "blk.0.experts.*.w1.weight".
std::string side_name(const Model& model, const std::vector<std::uint32_t>& tensors,
                      const MapSide* side);

}  // namespace wtool
