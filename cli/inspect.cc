#include "cli/inspect.h"

#include <algorithm>
#include <cmath>

#include "cli/tree.h"
#include "lib/model/selector.h"

namespace wtool {
namespace {

bool before(const Model& m, const std::string& by, const LogicalTensor& a, const LogicalTensor& b) {
  if (by == "name") return natural_less(a.name, b.name);
  if (by == "size") return m.stored_bytes(a) > m.stored_bytes(b);
  if (by == "dtype") return type_label(m, a) < type_label(m, b);
  if (by == "shape") return std::ranges::lexicographical_compare(b.shape, a.shape);
  const TensorEntry &x = m.part(a, 0), &y = m.part(b, 0);
  return std::pair(x.source, x.offset) < std::pair(y.source, y.offset);
}

}  // namespace

std::string_view file_label(const Model& model, const Source& source) {
  std::string_view name = source.name();
  std::string_view folder = model.path;
  while (folder.ends_with('/')) folder.remove_suffix(1);
  if (!folder.empty() && name.starts_with(folder) && name.size() > folder.size() &&
      name[folder.size()] == '/') {
    name.remove_prefix(folder.size());
    while (name.starts_with('/')) name.remove_prefix(1);
    return name;
  }
  return name.substr(name.rfind('/') + 1);
}

double Totals::bits_per_weight() const {
  return parameters == 0 ? std::nan("")
                         : 8 * static_cast<double>(bytes) / static_cast<double>(parameters);
}
Totals totals(const Model& model) {
  Totals t;
  for (const LogicalTensor& l : model.tensors) {
    t.bytes += model.stored_bytes(l);
    t.parameters += element_count(l.shape).value_or(0);
  }
  return t;
}

std::vector<std::uint32_t> chosen(const Model& model, const InspectOptions& o) {
  std::vector<std::uint32_t> which = selected(model, o.select);
  if (!o.sort.empty())
    std::ranges::stable_sort(which, [&](std::uint32_t a, std::uint32_t b) {
      return before(model, o.sort, model.tensors[a], model.tensors[b]);
    });
  return which;
}

Sums sums_by(const Model& model, std::span<const std::uint32_t> which, const std::string& by) {
  Sums sums;
  const auto add = [&](std::string_view key, std::uint64_t parameters, std::uint64_t bytes) {
    Sum& s = sums[std::string(key)];
    ++s.tensors;
    s.parameters += parameters;
    s.bytes += bytes;
  };
  for (const std::uint32_t i : which) {
    const LogicalTensor& t = model.tensors[i];
    const std::uint64_t n = element_count(t.shape).value_or(0);
    if (by == "layer") {
      add(layer_label(t.name), n, model.stored_bytes(t));
    } else if (by == "scheme") {
      add(t.scheme ? t.scheme->name : "plain", n, model.stored_bytes(t));
    } else {  // what is stored, part by part
      for (std::size_t p = 0; p < t.count; ++p) {
        const TensorEntry& e = model.part(t, p);
        const std::string_view key = by == "dtype"
                                         ? name_of(e.dtype)
                                         : file_label(model, *model.catalog.sources()[e.source]);
        add(key, element_count(e.shape).value_or(0), e.bytes);
      }
    }
  }
  return sums;
}

std::vector<std::string> split_list(std::string_view list) {
  std::vector<std::string> words;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    words.emplace_back(list.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

ExitCode code_of(const Inspected& opened, const InspectOptions& o) {
  if (opened.error) return exit_code_of(opened.error->fault());
  const bool lacks = !o.get.empty() && !opened.model->catalog.meta.find(o.get);
  return lacks ? ExitCode::No : ExitCode::Ok;
}

}  // namespace wtool
