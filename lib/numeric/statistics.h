#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lib/model/plan.h"
#include "lib/model/tensor.h"

namespace wtool {

// An element's exact value.
using Number = std::variant<double, std::int64_t, std::uint64_t>;
double to_double(const Number& n) noexcept;

// What one pass adds up. Trivially copyable; units give one each, merged in unit order, so that the
// figures are the same for every thread count and instruction set. NaN and infinities are counted,
// and left out of everything else.
struct Moments {
  enum class Kind : std::uint8_t { Float, Signed, Unsigned };

  std::uint64_t elements = 0, finite = 0;
  double mean = 0, m2 = 0;  // m2: sum of (x - mean)²
  // Of the extremes: 64-bit integers in the order of the values (-0 before +0).
  std::uint64_t lowest = ~std::uint64_t{0}, highest = 0;
  Kind kind = Kind::Float;
  std::uint64_t zeros = 0, subnormals = 0, nan = 0, infinite = 0;
  std::uint64_t first_bad = ~std::uint64_t{0};  // flat index of the first NaN or infinity
  std::uint64_t first_bits = 0;                 // its pattern, as stored
  std::uint64_t overflows = 0, underflows = 0;  // of the cast that was asked about
  std::uint32_t any_bits = 0;                   // patterns as f32, or-ed; ~0 if f32 was not enough

  Moments& operator+=(const Moments& next);
  Number min() const;  // where finite > 0
  Number max() const;
  double abs_max() const;
  double std() const;  // of the population: divided by n
  std::uint64_t non_finite() const noexcept { return nan + infinite; }
};

// How often which values occur, in rising order. An inexact bin is a bf16 pattern of a wider type:
// its values lie between `from` and `to`, which differ by less than 1 %.
struct Distribution {
  struct Bin {
    double from, to;
    std::uint64_t count;
    double middle() const noexcept { return from == to ? from : from / 2 + to / 2; }
  };
  std::vector<Bin> bins;
  bool exact = true;

  void merge(const Distribution& other);
  void clamp(double least, double most);
  // The smallest value that at least `thousandths` of all do not exceed (no interpolation).
  double percentile(std::uint64_t thousandths) const;
  // Counts in `n` equal parts of [from, to]; a bin belongs where its middle does.
  std::vector<std::uint64_t> histogram(double from, double to, std::size_t n) const;
};

struct Statistics {
  static constexpr std::array<std::uint64_t, 5> kThousandths{1, 10, 500, 990, 999};
  static constexpr std::size_t kBars = 16;
  static constexpr double kOutlier = 6;  // standard deviations from the mean

  std::string name;
  Moments moments;
  std::size_t first_bad_tensor = 0;  // of those the step was given
  // The rest only where a distribution was asked for.
  bool exact = true;
  std::array<double, kThousandths.size()> percentiles = {};
  std::uint64_t outliers = 0;            // of inexact bins those that lie wholly beyond
  std::vector<std::uint64_t> histogram;  // from min to max; empty where nothing is finite
  Distribution distribution;             // if it was to be kept
};

struct StatisticsOptions {
  bool distribution = true;        // percentiles, outliers, histogram
  bool keep_distribution = false;  // in the result
  std::optional<DType> cast = {};  // count what would overflow and what would become zero
};

// A measure: the statistics of one tensor, or of several together.
class StatisticsStep final : public Step {
 public:
  // Throws Unsupported if values cannot be decoded, Usage for a cast that is none to floats.
  StatisticsStep(std::string name, std::vector<TensorPtr> tensors,
                 const StatisticsOptions& options = {});
  ~StatisticsStep() override;
  std::uint64_t units() const override;
  void run(const Unit& unit) const override;
  void fold(std::uint64_t unit, Buffer& found) override;
  void report(Report& to) const override;
  const Statistics& result() const noexcept { return result_; }  // after the last fold

 private:
  struct Part;
  const Part& part_of(std::uint64_t unit) const;
  void finish_part(const Part& part);
  void finish();

  StatisticsOptions options_;
  std::vector<Part> parts_;
  Moments moments_;                                // of the part that is being folded
  std::vector<std::vector<std::uint64_t>> pages_;  // of its counters; likewise
  Distribution all_;
  Statistics result_;
};

// The columns of StatisticsStep's rows.
std::vector<std::string_view> statistics_columns(const StatisticsOptions& options);

// Why a tensor has no statistics; nullopt if it has.
std::optional<std::string> statistics_refuses(const Tensor& tensor);

// The extremes of each row (the last dimension) or each column of a tensor, in double precision.
struct Extremes {
  double min, max;  // min > max: nothing finite
  std::uint64_t non_finite;
};
class ExtremesStep final : public Step {
 public:
  enum class Along : std::uint8_t { Rows, Columns };
  static constexpr std::uint64_t kMost = std::uint64_t{1} << 20;  // memory: 24 bytes each

  ExtremesStep(TensorPtr tensor, Along along);  // throws Usage if there are more than kMost
  std::uint64_t units() const override { return tiling_.units(); }
  void run(const Unit& unit) const override;
  void fold(std::uint64_t unit, Buffer& found) override;
  const std::vector<Extremes>& result() const noexcept { return result_; }

 private:
  std::uint64_t first_of(const Box& box) const noexcept {
    return along_ == Along::Rows ? box.row : box.col;
  }
  TensorPtr tensor_;
  Along along_;
  Tiling tiling_;
  std::vector<Extremes> result_;
};

}  // namespace wtool
