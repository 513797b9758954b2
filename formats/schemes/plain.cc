// Tensors as they are: one stored tensor, its elements of a plain type. Takes what the other
// schemes leave.

#include "formats/registry.h"
#include "lib/numeric/steps.h"

namespace wtool {
namespace {

TensorPtr open(const Model& model, const LogicalTensor& tensor) {
  return stored(model.catalog, model.part(tensor, 0));
}

bool casts(const Tensor& tensor, const SchemeOptions& options) {
  return options.dtype && *options.dtype != tensor.dtype();
}

std::optional<std::string> refuses(const Tensor& tensor, const SchemeOptions& options) {
  if (!casts(tensor, options)) return std::nullopt;
  return cast_refuses(tensor, *options.dtype);
}

void encode(std::span<const Target> targets, const SchemeOptions& options, Plan& plan) {
  for (const Target& t : targets)
    plan.steps.push_back(casts(*t.values, options) ? cast_step(t.name, t.values, *options.dtype,
                                                               {.saturate = options.saturate})
                                                   : copy_step(t.name, t.values));
}

}  // namespace

const Scheme kPlain{
    .name = "plain",
    .summary = "elements of a plain type, as they are",
    .recognise = nullptr,
    .open = open,
    .refuses = refuses,
    .encode = encode,
    .config = nullptr,  // there is nothing to say
};

}  // namespace wtool
