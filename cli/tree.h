#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/model.h"

namespace wtool {

// One line of the tree that `inspect` prints.
struct TreeRow {
  std::size_t depth = 0;
  bool is_fold = false;  // "▾ layers ×32 (identical)": what follows deeper is one of them
  std::string name, shape, dtype, size, share, remark;
};

// The tensors as a tree with identical layers folded (also where they are not neighbours) and
// siblings of one shape and type merged, in natural order. Names are made printable; all of them
// are selectors of what they stand for.
std::vector<TreeRow> tree_of(const Model& model);

// "bf16"; of a scheme with several parts, its name.
std::string_view type_label(const Model& model, const LogicalTensor& tensor);

// {q_proj, o_proj} → "{q,o}_proj": what they share at word borders stands outside the braces. Empty
// if they share nothing.
std::string merged_name(std::span<const std::string_view> words);
// "model.layers.3" of "model.layers.3.mlp.up.weight"; "(none)" of what is in no layer.
std::string layer_label(std::string_view name);
// {0, 1, 2, 5} → "0-2,5".
std::string range_list(std::span<const std::uint64_t> sorted);

}  // namespace wtool
