// Writing NF4, with scales that are quantised too ("double quantisation") or as they are. The
// layout is described in bitsandbytes.cc.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/schemes/bitsandbytes.h"
#include "formats/schemes/written.h"
#include "lib/numeric/codec.h"
#include "lib/numeric/kernels/kernels.h"
#include "lib/numeric/kernels/nf4.h"
#include "lib/numeric/measuring_step.h"
#include "lib/numeric/steps.h"

namespace wtool::bitsandbytes {
namespace {

constexpr std::uint64_t kNestedBlock = 256;
// Units of work hold whole blocks of scales.
constexpr std::uint64_t kGrain = kNf4Block * kNestedBlock;

// What the codes of scales stand for: 8 bits whose exponent is the place of their first set bit.
// The positive half; then there are zero, one, and the negative half.
constexpr std::array kPositive{
    5.5000004e-07f, 3.2500002e-06f, 7.75e-06f,      2.1249998e-05f, 4.375e-05f,     6.625e-05f,
    8.875e-05f,     0.00015625001f, 0.00026875004f, 0.00038125002f, 0.00049375003f, 0.0006062501f,
    0.00071875006f, 0.00083125f,    0.0009437501f,  0.0012812499f,  0.00184375f,    0.00240625f,
    0.00296875f,    0.0035312497f,  0.00409375f,    0.0046562497f,  0.0052187503f,  0.00578125f,
    0.00634375f,    0.00690625f,    0.00746875f,    0.00803125f,    0.00859375f,    0.009156249f,
    0.00971875f,    0.01140625f,    0.01421875f,    0.01703125f,    0.01984375f,    0.02265625f,
    0.02546875f,    0.028281247f,   0.03109375f,    0.033906247f,   0.036718752f,   0.03953125f,
    0.042343747f,   0.04515625f,    0.04796875f,    0.05078125f,    0.05359375f,    0.05640625f,
    0.059218753f,   0.062031247f,   0.06484375f,    0.067656256f,   0.070468746f,   0.07328125f,
    0.07609375f,    0.07890625f,    0.08171874f,    0.08453125f,    0.08734375f,    0.09015625f,
    0.092968754f,   0.095781244f,   0.09859375f,    0.107031256f,   0.12109375f,    0.13515624f,
    0.14921875f,    0.16328125f,    0.17734374f,    0.19140625f,    0.20546874f,    0.21953125f,
    0.23359376f,    0.24765626f,    0.26171875f,    0.27578127f,    0.28984374f,    0.30390626f,
    0.31796873f,    0.33203125f,    0.3460937f,     0.36015624f,    0.37421876f,    0.38828123f,
    0.40234375f,    0.4164062f,     0.43046874f,    0.44453126f,    0.45859373f,    0.47265625f,
    0.48671877f,    0.50078124f,    0.51484376f,    0.5289062f,     0.54296875f,    0.5570313f,
    0.5710938f,     0.58515626f,    0.5992187f,     0.61328125f,    0.6273438f,     0.64140624f,
    0.65546876f,    0.6695313f,     0.68359375f,    0.6976563f,     0.7117188f,     0.72578126f,
    0.7398438f,     0.75390625f,    0.7679688f,     0.78203124f,    0.7960937f,     0.8101562f,
    0.82421875f,    0.8382812f,     0.85234374f,    0.8664062f,     0.8804687f,     0.89453125f,
    0.9085938f,     0.92265624f,    0.9367187f,     0.9507812f,     0.96484375f,    0.9789062f,
    0.99296874f};
constexpr std::size_t kMapSize = 256;
constexpr std::array<float, kMapSize> kScaleMap = [] {
  static_assert(2 * kPositive.size() + 2 == kMapSize);
  std::array<float, kMapSize> out{};
  for (std::size_t i = 0; i < kPositive.size(); ++i) {
    out[kPositive.size() - 1 - i] = -kPositive[i];
    out[kPositive.size() + 1 + i] = kPositive[i];
  }
  out.back() = 1;
  return out;
}();
constexpr std::array<float, kMapSize - 1> kScaleMiddles = [] {
  std::array<float, kMapSize - 1> out{};
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = (kScaleMap[i] + kScaleMap[i + 1]) * 0.5f;
  return out;
}();

// A tensor's elements as one long row: blocks take no notice of rows.
class Flat final : public Tensor {
 public:
  explicit Flat(TensorPtr of) : Tensor(of->dtype(), {of->elements()}), of_(std::move(of)) {}

  void read(const Box& box, MutableBytes out, Scratch& scratch) const override {
    const std::uint64_t cols = of_->whole().cols, size = info(dtype()).block_bytes;
    std::uint64_t at = box.col;
    const std::uint64_t end = box.col + box.cols;
    const auto take = [&](const Box& part) {
      of_->read(part, out.subspan((at - box.col) * size, part.elements() * size), scratch);
      at += part.elements();
    };
    while (at < end) {
      if (const std::uint64_t rows = (end - at) / cols; at % cols == 0 && rows > 0)
        take({at / cols, rows, 0, cols});
      else
        take({at / cols, 1, at % cols, std::min(end - at, cols - at % cols)});
    }
  }

 private:
  TensorPtr of_;
};

// The mean of the blocks' largest magnitudes: what quantised scales are counted from. Values that
// are not finite count as zero: the step that encodes them says so.
struct Sum {
  double sum = 0;
  std::uint64_t blocks = 0;
  Sum& operator+=(const Sum& next) {
    sum += next.sum;
    blocks += next.blocks;
    return *this;
  }
};
class MeanScale final : public MeasuringStep<Sum> {
 public:
  explicit MeanScale(TensorPtr of)
      : MeasuringStep({}, ""), of_(std::move(of)), tiling_(Tiling::of(*of_, kGrain)) {}

  std::uint64_t units() const override { return tiling_.units(); }
  void run(const Unit& unit) const override {
    const Box box = tiling_.box(unit.index);
    Scratch::Frame frame(unit.scratch);
    const auto values = frame.take<float>(box.elements());
    const auto scales = frame.take<float>(ceil_div(values.size(), kNf4Block));
    read_f32(*of_, box, values, unit.scratch);
    Sum sum{0, scales.size()};
    if (all_finite(values.data(), values.size())) {
      nf4_absmax(values.data(), values.size(), scales.data());
      for (const float s : scales) sum.sum += static_cast<double>(s);
    }
    give(unit.found, sum);
  }
  float mean() const {
    return total_.blocks == 0 ? 0
                              : static_cast<float>(total_.sum / static_cast<double>(total_.blocks));
  }

 private:
  TensorPtr of_;
  Tiling tiling_;
};

// ---- scales

// A block's values, and how much each of them counts (null: all alike).
struct Block {
  std::span<const float> values;
  const float* weights;
  Nf4Fit fit(float scale) const { return nf4_fit(values.data(), values.size(), scale, weights); }
};

// A scale that loses less than the largest magnitude does: trials near it, then least squares.
float searched(const Block& block, float absmax) {
  // Of the tensors measured, none lost more than 0.4 % above the best of all scales.
  constexpr std::array kTrials{1.05f, 1.0f, 0.95f, 0.9f, 0.85f, 0.8f, 0.75f};
  constexpr int kPasses = 2;
  if (absmax == 0) return 0;
  // All of them first, so that no trial waits for the verdict on the one before.
  std::array<Nf4Fit, kTrials.size()> fits;
  for (std::size_t i = 0; i < fits.size(); ++i) fits[i] = block.fit(absmax * kTrials[i]);
  float best = absmax;
  double most = -1;
  const auto judge = [&](const Nf4Fit& f) {  // by the scale that fits the trial's codes
    const double c = f.cross, s = f.square;
    const float fitted = f.square > 0 ? f.cross / f.square : 0;
    const double gain = f.square > 0 ? c * c / s : -1;
    const bool better = gain > most && fitted > 0 && std::isfinite(fitted);
    most = better ? gain : most;
    best = better ? fitted : best;
  };
  for (const Nf4Fit& f : fits) judge(f);
  for (int i = 0; i < kPasses; ++i) judge(block.fit(best));
  return best;
}

// What a block's squared error is, but for what no scale changes.
double loss(const Block& block, float scale) {
  const Nf4Fit f = block.fit(scale);
  const double a = scale;
  return a * a * static_cast<double>(f.square) - 2 * a * static_cast<double>(f.cross);
}

// Quantises the scales of up to 256 blocks, with one scale for all of them.
class ScaleCoder {
 public:
  ScaleCoder(std::span<const float> scales, float offset) : offset_(offset) {
    for (const float s : scales) most_ = std::max(most_, std::abs(s - offset));
    factor_ = 1 / most_;
  }
  float common() const { return most_; }
  float value(std::size_t code) const { return kScaleMap[code] * most_ + offset_; }
  std::size_t nearest(float scale) const {
    if (most_ == 0) return kPositive.size();  // zero
    const float d = scale - offset_, x = std::isfinite(factor_) ? d * factor_ : d / most_;
    return static_cast<std::size_t>(std::ranges::lower_bound(kScaleMiddles, x) -
                                    kScaleMiddles.begin());
  }
  // Or a neighbouring code, where the block loses less with it.
  std::size_t best(float scale, const Block& block) const {
    const std::size_t middle = nearest(scale), below = middle == 0 ? 0 : middle - 1,
                      above = std::min(middle + 1, kMapSize - 1);
    const double here = loss(block, value(middle)), lower = loss(block, value(below)),
                 higher = loss(block, value(above));
    const std::size_t out = lower < here ? below : middle;
    return higher < std::min(here, lower) ? above : out;
  }

 private:
  float offset_, most_ = 0, factor_ = 0;
};

// Two codes to a byte, the first one high; eight at a time.
void pack_nibbles(std::span<const std::uint8_t> codes, std::size_t n, MutableBytes out) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    std::uint64_t x = 0;
    std::memcpy(&x, &codes[i], 8);
    x = (x << 4 | x >> 8) & 0x00FF00FF00FF00FF;
    x = (x | x >> 8) & 0x0000FFFF0000FFFF;
    store(out, static_cast<std::uint32_t>(x | x >> 16), i / 8);
  }
  for (; i < n; i += 2) out[i / 2] = static_cast<std::byte>(codes[i] << 4 | codes[i + 1]);
}

// ---- quant_state

std::string_view torch_name(DType type) {
  return type == DType::BF16 ? "bfloat16" : type == DType::F16 ? "float16" : "float32";
}

// Its length is known before the offset is: spaces fill the place of the longest.
std::string state_text(const Tensor& values, bool nested, float offset) {
  constexpr std::size_t kLongest = 24;  // "-1.2345678901234567e-308"
  std::string text =
      fmt::format(R"({{"quant_type": "nf4", "blocksize": {}, "dtype": "{}", "shape": [{}])",
                  kNf4Block, torch_name(values.dtype()), fmt::join(values.shape(), ", "));
  if (!nested) return text + "}";
  // As the double that readers of JSON make of it.
  const std::string number = fmt::format("{}", static_cast<double>(offset));
  text +=
      fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {}}})",
                  kNestedBlock, number);
  text.append(kLongest - std::min(kLongest, number.size()), ' ');
  return text;
}

// ---- one tensor

class Writer {
 public:
  Writer(const Target& t, const SchemeOptions& options, std::shared_ptr<const MeanScale> mean)
      : values_(t.values),
        importance_(t.importance),
        name_(t.name),
        nested_(options.nested),
        search_(options.method != ScaleMethod::Rtn),
        mean_(std::move(mean)) {}

  std::vector<OutTensor> outputs() const {
    const std::uint64_t n = values_->elements(), blocks = ceil_div(n, kNf4Block);
    const std::uint64_t state = state_text(*values_, nested_, 0).size();
    const auto part = [&](std::string_view suffix) { return name_ + std::string(suffix); };
    std::vector<OutTensor> out{{name_, DType::U8, {ceil_div(n, 2), 1}},
                               {part(kAbsmax), nested_ ? DType::U8 : DType::F32, {blocks}},
                               {part(kMap), DType::F32, {kNf4Levels.size()}},
                               {part(kStateMark) + "nf4", DType::U8, {state}}};
    if (nested_) {
      out.push_back({part(kNestedAbsmax), DType::F32, {ceil_div(blocks, kNestedBlock)}});
      out.push_back({part(kNestedMap), DType::F32, {kMapSize}});
    }
    return out;
  }

  void spans(const Box& box, std::vector<Span>& add_to) const {
    const std::uint64_t block = box.col / kNf4Block, blocks = ceil_div(box.cols, kNf4Block);
    const std::uint64_t size = nested_ ? 1 : sizeof(float);
    add_to.push_back({0, box.col / 2, ceil_div(box.cols, 2)});
    add_to.push_back({1, block * size, blocks * size});
    if (nested_)
      add_to.push_back({4, block / kNestedBlock * sizeof(float),
                        ceil_div(blocks, kNestedBlock) * sizeof(float)});
    if (box.col != 0) return;
    add_to.push_back({2, 0, sizeof kNf4Levels});
    add_to.push_back({3, 0, state_text(*values_, nested_, 0).size()});
    if (nested_) add_to.push_back({5, 0, sizeof kScaleMap});
  }

  void encode(const Box& box, std::span<const float> source, std::span<const MutableBytes> out,
              Drift& drift, Scratch& scratch) const {
    const std::size_t n = source.size(), blocks = ceil_div(n, kNf4Block);
    Scratch::Frame frame(scratch);
    const auto scales = frame.take<float>(blocks), kept = frame.take<float>(blocks);
    const auto weights = frame.take<float>(importance_ ? n : 0);
    if (importance_) spread_importance(box.col, weights, scratch);
    find_scales(source, weights, scales);
    // Round-to-nearest chooses codes by the scales as they were, as bitsandbytes does.
    if (nested_) {
      nest(source, weights, scales, out[1], out[2], kept);
    } else {
      std::ranges::copy(scales, kept.begin());
      std::memcpy(out[1].data(), scales.data(), out[1].size());
    }
    const auto codes = frame.take<std::uint8_t>(n + 1);  // the last byte's other half is 0
    nf4_codes(source.data(), n, (search_ ? kept : scales).data(), codes.data());
    codes[n] = 0;
    pack_nibbles(codes, n, out[0]);
    add_losses(source, weights, codes, kept, drift, scratch);
    if (box.col == 0) write_constants(out);
  }

 private:
  // That of the columns, for elements [first, first + out.size()) of the long row.
  void spread_importance(std::uint64_t first, std::span<float> out, Scratch& scratch) const {
    Scratch::Frame frame(scratch);
    const std::uint64_t cols = values_->shape()[1];
    const auto of_columns = frame.take<float>(cols);
    importance_(0, of_columns);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = of_columns[(first + i) % cols];
  }
  static Block block(std::span<const float> all, std::span<const float> weights, std::size_t b) {
    const std::size_t at = b * kNf4Block;
    return {all.subspan(at, std::min(kNf4Block, all.size() - at)),
            weights.empty() ? nullptr : weights.data() + at};
  }
  void find_scales(std::span<const float> source, std::span<const float> weights,
                   std::span<float> scales) const {
    nf4_absmax(source.data(), source.size(), scales.data());
    if (!search_) return;
    for (std::size_t b = 0; b < scales.size(); ++b)
      scales[b] = searched(block(source, weights, b), scales[b]);
  }
  void nest(std::span<const float> source, std::span<const float> weights,
            std::span<const float> scales, MutableBytes codes, MutableBytes common,
            std::span<float> kept) const {
    for (std::size_t first = 0; first < scales.size(); first += kNestedBlock) {
      const std::size_t count = std::min<std::size_t>(kNestedBlock, scales.size() - first);
      const ScaleCoder coder(scales.subspan(first, count), mean_->mean());
      for (std::size_t b = first; b < first + count; ++b) {
        const std::size_t code =
            search_ ? coder.best(scales[b], block(source, weights, b)) : coder.nearest(scales[b]);
        codes[b] = static_cast<std::byte>(code);
        kept[b] = coder.value(code);
      }
      store(common, coder.common(), first / kNestedBlock);
    }
  }
  static void add_losses(std::span<const float> source, std::span<const float> weights,
                         std::span<const std::uint8_t> codes, std::span<const float> scales,
                         Drift& drift, Scratch& scratch) {
    Scratch::Frame frame(scratch);
    const auto stored = frame.take<float>(source.size());
    for (std::size_t at = 0; at < source.size(); at += kNf4Block) {
      std::array<float, 16> values;
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = kNf4Levels[i] * scales[at / kNf4Block];
      const std::size_t end = std::min(at + kNf4Block, source.size());
      for (std::size_t i = at; i < end; ++i) stored[i] = values[codes[i]];
    }
    DriftLanes lanes;
    add_drift(source.data(), stored.data(), source.size(), nullptr, lanes);
    drift += lanes.fold();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const double value = source[i], error = stored[i] - source[i], weight = weights[i];
      drift.weighted_error2 += weight * error * error;
      drift.weighted_value2 += weight * value * value;
    }
  }
  void write_constants(std::span<const MutableBytes> out) const {
    std::size_t at = nested_ ? 3 : 2;
    const auto put = [&](Bytes bytes) { std::ranges::copy(bytes, out[at++].begin()); };
    put(std::as_bytes(std::span(kNf4Levels)));
    put(as_bytes(state_text(*values_, nested_, nested_ ? mean_->mean() : 0)));
    if (nested_) put(std::as_bytes(std::span(kScaleMap)));
  }

  TensorPtr values_;
  ColumnImportance importance_;
  std::string name_;
  bool nested_, search_;
  std::shared_ptr<const MeanScale> mean_;
};

}  // namespace

std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options) {
  if (options.levels != Levels::Nf4) return "only NF4 is written as bitsandbytes";
  if (options.method == ScaleMethod::Optimal)
    return "the best of all scales is not looked for: NF4 has --method search and rtn";
  return refuses_source(tensor);
}

void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan) {
  for (const Target& t : targets) {
    if (const auto why = refuses(*t.values, options))
      throw Error(Fault::Usage, *why).in(fmt::format("tensor '{}'", t.name));
    const auto flat = std::make_shared<Flat>(t.values);
    std::shared_ptr<MeanScale> mean;
    if (options.nested) plan.measures.push_back(mean = std::make_shared<MeanScale>(flat));
    const auto writer = std::make_shared<const Writer>(t, options, mean);
    plan.steps.push_back(encode_step(
        t.name, flat,
        {writer->outputs(), Tiling::of(*flat, kGrain),
         [writer](const Box& box, std::vector<Span>& add_to) { writer->spans(box, add_to); },
         [writer](const Box& box, std::span<const float> source, std::span<const MutableBytes> out,
                  Drift& drift,
                  Scratch& scratch) { writer->encode(box, source, out, drift, scratch); }}));
  }
}

std::string config(std::span<const ConfigGroup> groups, std::span<const std::string> kept) {
  using Json = nlohmann::ordered_json;
  if (groups.empty()) throw Error(Fault::Internal, "a quantization_config without groups");
  for (const ConfigGroup& g : groups)
    if (g.options.nested != groups.front().options.nested)
      throw Error(Fault::Usage,
                  "one quantization_config cannot say that some scales are "
                  "quantized and others are not");
  Json out;
  out["quant_method"] = "bitsandbytes";
  out["load_in_8bit"] = false;
  out["load_in_4bit"] = true;
  out["llm_int8_threshold"] = 6.0;
  out["llm_int8_skip_modules"] = std::vector<std::string>(kept.begin(), kept.end());
  out["llm_int8_enable_fp32_cpu_offload"] = false;
  out["llm_int8_has_fp16_weight"] = false;
  out["bnb_4bit_quant_type"] = "nf4";
  out["bnb_4bit_use_double_quant"] = groups.front().options.nested;
  out["bnb_4bit_compute_dtype"] = "bfloat16";
  out["bnb_4bit_quant_storage"] = "uint8";
  return json_text(out);
}

}  // namespace wtool::bitsandbytes
