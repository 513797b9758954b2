// compressed-tensors: what can be written, and what the other parts add up to. The layout is
// described in compressed_tensors.h.
#include "formats/schemes/compressed_tensors.h"

#include <fmt/format.h>

#include "formats/registry.h"
#include "lib/base/text.h"
#include "lib/model/integers.h"
#include "lib/numeric/float_codes.h"

namespace wtool {
namespace compressed_tensors {
namespace {

// With one scale for a whole row, a unit of work is at least a row. Far above any model's width.
constexpr std::uint64_t kMaxChannel = std::uint64_t{1} << 18;
// With zero points, which are packed down 32 rows, at least 32 of them.
constexpr std::uint64_t kMaxAffineChannel = std::uint64_t{1} << 16;

std::optional<std::string> refuses_integers(const SchemeOptions& options) {
  if (options.bits < 2 || options.bits > 8)
    return fmt::format("{} bits: integers of 2 to 8 are written", options.bits);
  if (options.activations && (options.bits != 8 || options.asymmetric))
    return "with integer activations engines take symmetric weights of 8 bits only";
  if (options.bits == 8 && options.asymmetric)
    return "engines load 8 bits with zero points, and their kernels fail on them";
  return std::nullopt;
}

std::optional<std::string> refuses_width(std::uint64_t cols, const SchemeOptions& options) {
  const std::uint64_t group = group_of(options);
  const bool affine = options.levels == Levels::Integers && options.asymmetric;
  const std::uint64_t most = affine ? kMaxAffineChannel : kMaxChannel;
  if (group == 0 && cols > most)
    return fmt::format("a row of {} columns with one scale is longer than {}", cols, most);
  if (group > most) return fmt::format("groups of {} are longer than {}", group, most);
  if (options.block) return std::nullopt;
  if (group != 0 && cols % group != 0)
    return fmt::format("{} columns do not divide into groups of {}", cols, group);
  return std::nullopt;
}

std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options) {
  if (options.levels == Levels::Nf4) return "compressed-tensors has no NF4";
  if (options.levels == Levels::Integers)
    if (auto why = refuses_integers(options)) return why;
  if (auto why = refuses_source(tensor)) return why;
  return refuses_width(tensor.shape()[1], options);
}

std::shared_ptr<const Step> measure(std::span<const TensorPtr> tensors,
                                    const SchemeOptions& options, Plan& plan) {
  if (options.levels != Levels::Nvfp4) return nullptr;
  auto step = std::make_shared<LargestStep>(std::vector(tensors.begin(), tensors.end()));
  plan.measures.push_back(step);
  return step;
}

void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan) {
  for (const Target& t : targets) {
    if (const auto why = refuses(*t.values, options))
      throw Error(Fault::Usage, *why).in(fmt::format("tensor {}", quoted(t.name)));
    if (options.levels == Levels::Integers) {
      plan.steps.push_back(integer_step(t, options));
      continue;
    }
    Target target = t;
    if (!target.shared) target.shared = measure(std::span(&t.values, 1), options, plan);
    plan.steps.push_back(float_step(target, options, float_names(target, options)));
  }
}

std::shared_ptr<const IntegerWeight> integers(const Model& model, const LogicalTensor& tensor) {
  return std::dynamic_pointer_cast<const IntegerWeight>(open(model, tensor));
}

}  // namespace

// Weight-only integers must be packed: engines take int-quantized for a promise that activations
// are integers too. Those kernels want one scale for each row.
bool packs(const SchemeOptions& options) {
  return !options.activations;
}

std::uint64_t group_of(const SchemeOptions& options) {
  switch (options.levels) {
    case Levels::Nvfp4: return kNvfp4Group;
    case Levels::Mxfp4:
    case Levels::Mxfp8: return kMxGroup;
    case Levels::Fp8: return options.block ? kFp8Block : 0;
    default: return packs(options) ? options.group : 0;
  }
}

}  // namespace compressed_tensors

const Scheme kCompressedTensors{
    .name = "compressed-tensors",
    .summary = "integers and small floats with scales, as vLLM, SGLang and transformers load them",
    .rules = compressed_tensors::kRules,
    .recognise = compressed_tensors::recognise,
    .open = compressed_tensors::open,
    .refuses = compressed_tensors::refuses,
    .encode = compressed_tensors::encode,
    .config = compressed_tensors::config,
    .measure = compressed_tensors::measure,
    .integers = compressed_tensors::integers,
};

}  // namespace wtool
