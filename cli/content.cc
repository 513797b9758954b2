#include "cli/content.h"

#include "cli/json.h"
#include "cli/terminal.h"
#include "lib/model/tensor_source.h"

namespace wtool {

ContentData content_data(const Catalog& catalog, const TensorEntry& entry,
                         std::optional<DType> void_as) {
  TensorPtr values = stored(catalog, entry);
  if (void_as && info(entry.dtype).kind == Kind::Opaque &&
      info(*void_as).block_bytes == info(entry.dtype).block_bytes &&
      info(*void_as).block_elems == 1)
    values = reinterpreted(std::move(values), *void_as);
  return {values->dtype(), canonical_bytes(values, catalog.sources()[entry.source]->name())};
}

ModelContent content_of(const InputOptions& input, const Context& context) {
  const auto model = open_input(input, context);
  const Catalog& catalog = model->catalog;
  const std::optional<DType> void_as = open_options(input, context).void_as;
  std::vector<ContentTensor> tensors;
  std::vector<Extent> extents;
  for (const TensorEntry& t : catalog.entries()) {
    ContentData c = content_data(catalog, t, void_as);
    tensors.push_back({t.name, name_of(c.dtype), t.shape, {}});
    extents.push_back(std::move(c.data));
  }
  Progress progress(*context.common, "content digest", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  const std::vector<Sha256> digests = sha256_of(extents, run);
  for (std::size_t i = 0; i < digests.size(); ++i) tensors[i].data = digests[i];
  for (const SourcePtr& s : catalog.sources()) s->check_unchanged();
  return {.path = input.path,
          .tensors = tensors.size(),
          .content = content_root(tensors),
          .metadata = metadata_digest(catalog.meta)};
}

namespace {

void write_file(JsonWriter& w, const ManifestFile& f) {
  w.begin_object();
  w.name_member("file", f.name);
  w.member("bytes", f.bytes);
  w.member("sha256", f.digest.hex());
  w.end_object();
}

void write_tensor(JsonWriter& w, const Manifest& m, const ManifestTensor& t) {
  w.begin_object();
  w.name_member("name", t.name);
  w.member("dtype", t.dtype);
  w.member("shape", t.shape);
  w.member("bytes", t.bytes);
  w.name_member("file", m.files[t.file].name);
  w.member("sha256", t.stored.hex());
  if (t.content && *t.content != t.stored) w.member("content_sha256", t.content->hex());
  w.end_object();
}

void write_model(JsonWriter& w, const Manifest& m, const ManifestModel& model) {
  w.begin_object();
  w.name_member("model", model.name);
  w.member("tensors", model.tensors);
  w.member("content", content_text(model.content));
  w.member("metadata_sha256", model.metadata.hex());
  w.key("files");
  w.begin_array();
  for (const std::uint32_t f : model.files) {
    w.begin_object();
    w.name_member("file", m.files[f].name);
    w.end_object();
  }
  w.end_array();
  w.end_object();
}

}  // namespace

void write_manifest(const Manifest& m, const std::function<void(std::string_view)>& sink) {
  JsonWriter w(sink);
  w.begin_object();
  w.member("schema", "wtool.manifest/1");
  w.member("ok", true);
  w.key("models");
  w.begin_array();
  for (const ManifestModel& model : m.models) write_model(w, m, model);
  w.end_array();
  w.key("files");
  w.begin_array();
  for (const ManifestFile& f : m.files) write_file(w, f);
  w.end_array();
  w.key("tensors");
  w.begin_array();
  for (const ManifestTensor& t : m.tensors) write_tensor(w, m, t);
  w.end_array();
  w.end_object();
}

}  // namespace wtool
