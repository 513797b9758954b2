#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace wtool {

struct Column {
  std::string_view name;   // the JSON key and the gate's metric: "rel_rmse"
  std::string_view unit;   // "", "dB", "steps", "values"
  std::string_view title;  // the table's heading
};
// A histogram is counts in equal bins; the column says of what.
using Histogram = std::vector<std::uint64_t>;
using Cell = std::variant<std::uint64_t, double, std::string, Histogram>;

struct Row {
  std::string tensor;
  std::vector<std::pair<const Column*, Cell>> cells;

  const Cell* find(std::string_view column) const noexcept {
    for (const auto& [c, cell] : cells)
      if (c->name == column) return &cell;
    return nullptr;
  }
};

// What a run found out: one table that text, JSON and gates all read. Rows follow the plan.
struct Report {
  std::vector<Row> rows;
};

}  // namespace wtool
