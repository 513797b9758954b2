#include "lib/model/model.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

template <class Table>
std::vector<std::string_view> names_in(const Table& table) {
  std::vector<std::string_view> out;
  for (const auto* row : table) out.push_back(row->name);
  return out;
}

template <class Table>
const auto& by_name(const Table& table, std::string_view what, std::string_view name) {
  const auto it = std::ranges::find(table, lower(name), [](auto* row) { return row->name; });
  if (it != table.end()) return **it;
  const std::vector<std::string_view> names = names_in(table);
  const std::string_view near = nearest(name, names);
  throw Error(Fault::Usage, fmt::format("unknown {} {}", what, quoted(name)))
      .hint(near.empty() ? fmt::format("known are {}", fmt::join(names, ", "))
                         : fmt::format("did you mean '{}'?", near));
}

}  // namespace

const Format& Registry::format(std::string_view name) const {
  return by_name(formats, "format", name);
}
const Scheme& Registry::scheme(std::string_view name) const {
  return by_name(schemes, "scheme", name);
}
const Format* Registry::by_suffix(std::string_view path) const noexcept {
  for (const Format* f : formats)
    for (const std::string_view suffix : f->suffixes)
      if (path.size() > suffix.size() && lower(path.substr(path.size() - suffix.size())) == suffix)
        return f;
  return nullptr;
}

std::uint64_t Model::stored_bytes(const LogicalTensor& t) const {
  std::uint64_t sum = 0;
  for (const std::uint32_t i : parts_of(t)) sum += catalog.entries()[i].bytes;
  return sum;
}
TensorPtr Model::open(const LogicalTensor& tensor) const {
  TensorPtr values = tensor.scheme->open(*this, tensor);
  if (values->dtype() != tensor.dtype && info(values->dtype()).kind == Kind::Opaque)
    values = reinterpreted(std::move(values), tensor.dtype);
  return values;
}
const SideFile* Model::side_file(std::string_view name) const noexcept {
  const auto it = std::ranges::find(side, name, &SideFile::name);
  return it == side.end() ? nullptr : &*it;
}

Catalog read_catalog(const SourcePtr& file, const Registry& registry, Diagnostics& faults,
                     const Format** found) {
  const SourcePtr source = registry.unwrap ? registry.unwrap(file) : file;
  for (const Format* f : registry.formats) {
    if (!f->read || !f->detect(*source)) continue;
    Catalog catalog;
    catalog.format = f->name;
    catalog.add_source(source);
    f->read(source, catalog, faults);
    catalog.finish(faults);
    if (found) *found = f;
    return catalog;
  }
  throw Error(Fault::BadFile, registry.diagnose(*source)).in(source->name());
}

std::vector<OutTensor> outputs_of(const Plan& plan) {
  std::vector<OutTensor> out;
  for (const auto& step : plan.steps)
    out.insert(out.end(), step->outputs().begin(), step->outputs().end());
  return out;
}

}  // namespace wtool
