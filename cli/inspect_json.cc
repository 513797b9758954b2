#include "cli/inspect.h"
#include "cli/json.h"
#include "cli/terminal.h"

namespace wtool {
namespace {

void write_model(JsonWriter& w, const Model& model) {
  const Totals t = totals(model);
  w.key("model");
  w.begin_object();
  w.member("format", model.catalog.format);
  w.member("files", model.catalog.sources().size());
  w.member("bytes", t.bytes);
  w.member("parameters", t.parameters);
  w.member("bits_per_weight", t.bits_per_weight());
  if (!model.notes.empty()) {
    w.key("notes");
    w.begin_array();
    for (const std::string& n : model.notes) w.value(n);
    w.end_array();
  }
  w.end_object();
}

void write_metadata(JsonWriter& w, const Model& model, const std::string& only) {
  w.key("metadata");
  w.begin_object();
  const bool typed = model.catalog.format != "safetensors";
  for (const MetaEntry& e : model.catalog.meta) {
    if (!only.empty() && e.key != only) continue;
    w.key(e.key);
    w.value(e.value, typed);
  }
  w.end_object();
}

void write_tensor(JsonWriter& w, const Model& model, const LogicalTensor& t) {
  const TensorEntry& e = model.part(t, 0);
  w.begin_object();
  w.name_member("name", t.name);
  w.member("shape", t.shape);
  w.member("dtype", name_of(t.count == 1 ? e.dtype : t.dtype));
  w.member("bytes", model.stored_bytes(t));
  w.member("scheme", t.scheme ? t.scheme->name : std::string_view("plain"));
  w.member("file", file_label(model, *model.catalog.sources()[e.source]));
  w.member("offset", e.offset);
  if (t.count > 1) {
    w.key("parts");
    w.begin_array();
    for (std::size_t p = 0; p < t.count; ++p) w.value(model.part(t, p).name);
    w.end_array();
  }
  w.end_object();
}

void write_by(JsonWriter& w, const Model& model, std::span<const std::uint32_t> which,
              const InspectOptions& o) {
  w.key("by");
  w.begin_object();
  for (const std::string& by : split_list(o.by)) {
    w.key(by);
    w.begin_array();
    for (const auto& [key, sum] : sums_by(model, which, by)) {
      w.begin_object();
      w.member(by, key);
      w.member("tensors", sum.tensors);
      w.member("elements", sum.parameters);
      w.member("bytes", sum.bytes);
      w.end_object();
    }
    w.end_array();
  }
  w.end_object();
}

void write_body(JsonWriter& w, const Model& model, const InspectOptions& o) {
  const std::vector<std::uint32_t> which = chosen(model, o);
  write_model(w, model);
  write_metadata(w, model, o.get);
  if (!o.get.empty()) return;
  if (!o.by.empty()) write_by(w, model, which, o);
  w.key("tensors");
  w.begin_array();
  for (const std::uint32_t i : which) write_tensor(w, model, model.tensors[i]);
  w.end_array();
}

}  // namespace

void write_inspect_json(const InspectOptions& o, const std::vector<Inspected>& inspected) {
  ExitCode code = ExitCode::Ok;
  for (const Inspected& i : inspected) code = worst(code, code_of(i, o));
  JsonWriter w(out);
  w.begin_document("wtool.inspect/1", code == ExitCode::Ok, o.inputs);
  if (inspected.size() == 1) {
    write_body(w, *inspected[0].model, o);
  } else {
    w.key("models");
    w.begin_array();
    for (std::size_t i = 0; i < inspected.size(); ++i) {
      w.begin_object();
      w.member("input", o.inputs[i]);
      w.member("ok", code_of(inspected[i], o) == ExitCode::Ok);
      if (inspected[i].model) write_body(w, *inspected[i].model, o);
      w.end_object();
    }
    w.end_array();
  }
  w.end_object();
}

}  // namespace wtool
