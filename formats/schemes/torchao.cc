// torchao's safetensors: the metadata's 'tensor_names' lists the tensors, one JSON text for each
// says of which Python class they are, and M._weight_qdata, M._weight_scale, … hold their parts.
// The layouts are those classes' business and change with torchao's version: named, not decoded.
#include <fmt/format.h>

#include "formats/registry.h"
#include "formats/schemes/decoded.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::string_view kList = "tensor_names", kData = "_weight_qdata";
constexpr std::size_t kMaxText = 1 << 14;

// "Int8Tensor" of such a text, or empty.
std::string class_of(const std::string& text) {
  if (text.size() > kMaxText) return {};
  try {
    std::string copy = text;  // first without a tree: nesting is bounded there
    JsonReader reader(copy);
    reader.skip();
    reader.finish();
    const auto json = nlohmann::json::parse(text);
    return std::string(text_of(member(json, "_type")));
  } catch (const JsonFault&) {
    return {};
  } catch (const nlohmann::json::exception&) {
    return {};
  }
}

std::vector<Found> recognise(const Model& model, Diagnostics& faults) {
  if (model.catalog.meta.text(kList).empty()) return {};
  std::unordered_map<std::string, std::string> classes;
  for (const MetaEntry& e : model.catalog.meta)
    if (const auto* text = std::get_if<std::string>(&e.value); text && e.key != kList)
      if (auto name = class_of(*text); !name.empty()) classes.emplace(e.key, std::move(name));
  Notes notes;
  for (const TensorEntry& t : model.catalog.entries()) {
    if (!t.name.ends_with(kData)) continue;
    const auto of = classes.find(std::string(without(t.name, kData)) + "weight");
    notes.add(of == classes.end()
                  ? std::string("a part of a torchao tensor, which is not decoded")
                  : fmt::format("a part of torchao's {}, which is not decoded", quoted(of->second)),
              t);
  }
  notes.tell(model.path, faults);
  return {};
}

}  // namespace

const Scheme kTorchao{
    .name = "torchao",
    .summary = "tensors of torchao: recognised, not decoded",
    .recognise = recognise,
    .open = nullptr,
    .refuses = nullptr,
    .encode = nullptr,
    .config = nullptr,
};

}  // namespace wtool
