#include "formats/hf/model_view.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/model/tensor_source.h"

namespace wtool {

ViewBuilder::ViewBuilder(std::shared_ptr<const Model> from, std::string_view format)
    : from_(std::move(from)) {
  model_->path = from_->path;
  model_->catalog.format = format;
  // Those that tensors lie in as they are, and those whose change would matter.
  for (const SourcePtr& s : from_->catalog.sources()) model_->catalog.add_source(s);
}

void ViewBuilder::add(const std::string& name, const TensorPtr& values, ModelView::Origin origin) {
  Catalog& catalog = model_->catalog;
  if (const TensorEntry* same = catalog.find(name))
    throw Error(Fault::BadFile,
                fmt::format("{} and {} would both be {}", quoted(origin.tensors),
                            quoted(origins_[catalog.index_of(*same)].tensors), quoted(name)))
        .in(from_->path);
  const Extent bytes = canonical_bytes(values, name);
  const auto known = std::ranges::find(from_->catalog.sources(), bytes.source);
  const auto source = known == from_->catalog.sources().end()
                          ? catalog.add_source(bytes.source)
                          : static_cast<std::uint32_t>(known - from_->catalog.sources().begin());
  Diagnostics faults;
  catalog.add({.name = catalog.arena().text(name),
               .shape = catalog.arena().copy(ShapeView(values->shape())),
               .offset = bytes.offset,
               .bytes = bytes.bytes,
               .source = source,
               .dtype = values->dtype()},
              0, faults);
  origins_.push_back(std::move(origin));
}

ModelView ViewBuilder::finish(Metadata meta, const Scheme& plain, std::vector<std::string> notes) {
  Catalog& catalog = model_->catalog;
  catalog.meta = std::move(meta);
  for (const TensorEntry& t : catalog.entries()) {
    const auto i = catalog.index_of(t);
    model_->tensors.push_back({t.name, &plain, t.shape, i, 1, t.dtype});
    model_->parts.push_back(i);
  }
  return {std::move(model_), std::move(from_), std::move(origins_), std::move(notes)};
}

TensorPtr tensor_in_memory(const std::string& name, DType type, const Shape& shape, Buffer bytes) {
  Catalog catalog;
  Diagnostics faults;
  const std::uint64_t size = bytes.size();
  const auto source = catalog.add_source(from_memory(name, std::move(bytes)));
  catalog.add({.name = catalog.arena().text(name),
               .shape = catalog.arena().copy(ShapeView(shape)),
               .bytes = size,
               .source = source,
               .dtype = type},
              0, faults);
  return stored(catalog, catalog.entries().front());
}

}  // namespace wtool
