#include "cli/records.h"

#include <algorithm>
#include <map>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/content.h"
#include "cli/recipe.h"
#include "cli/signature.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"
#include "lib/trust/build_record.h"
#include "lib/trust/manifest.h"
#include "lib/trust/model_files.h"

namespace wtool {
namespace {

bool beside_anything(const RecordOptions& o) {
  return o.manifest || o.provenance || o.bom || !o.key.empty();
}

// Whether there is a place for lineage in what is written.
bool has_place(const Job& job) {
  const bool folder = job.to.kind == OutputSet::Kind::Folder;
  return job.to.format->one_tensor ? folder : job.to.format->name != "imatrix";
}

std::string name_in(const Model& model, const std::string& path) {
  const std::string prefix = model.path.ends_with('/') ? model.path : model.path + "/";
  return model.is_folder && path.starts_with(prefix) ? path.substr(prefix.size()) : own_name(path);
}

std::string text_in(const nlohmann::ordered_json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

// As the folder's config.json has it; "" if that cannot be told.
std::string model_type(const Model& model) {
  const SideFile* config = model.side_file("config.json");
  if (!config) return {};
  try {
    return text_in(read_config(*config), "model_type");
  } catch (const Error&) {
    return {};
  }
}

// The files that the output is made of, sorted by name. Where a model is seen as another, what lies
// beside the weights (config.json, the tokenizer) makes it, too.
std::vector<std::pair<std::string, SourcePtr>> files_by_name(const Job& job) {
  const Model& model = job.input();
  std::vector<std::pair<std::string, SourcePtr>> out;
  for (const SourcePtr& s : model.catalog.sources()) out.emplace_back(name_in(model, s->name()), s);
  if (job.view)
    for (const SideFile& s : model.side) out.emplace_back(s.name, s.content);
  std::ranges::sort(out, {}, [](const auto& f) { return std::string_view(f.first); });
  return out;
}

// A file for each tensor would be too many to name.
bool is_one_source(const Model& model) {
  return model.catalog.format == "npy" && model.is_folder;
}

// With their digests, or where there are none yet, with others of the same length.
std::vector<Lineage::Source> sources_of(const Job& job, std::vector<Sha256> digests = {}) {
  const Model& model = job.input();
  std::vector<Lineage::Source> out;
  std::uint64_t bytes = 0;
  const auto files = files_by_name(job);
  digests.resize(files.size());
  for (std::size_t i = 0; i < files.size(); ++i) {
    out.push_back({files[i].first, files[i].second->size(), digests[i].hex()});
    bytes += out.back().bytes;
  }
  if (!is_one_source(model)) return out;
  return {{own_name(model.path), bytes, root_digest(digests).hex(), files.size()}};
}

}  // namespace

void add_record_options(CLI::App& app, RecordOptions& o) {
  app.add_flag("--lineage", o.lineage,
               "record what it was made from, where only its form is new too");
  app.add_flag("--no-lineage", o.no_lineage, "record nothing of it");
  app.add_option("--sign", o.key, "sign the output, beside the work, with this private key")
      ->option_text("KEY");
  add_passphrase_options(app, o.passphrase);
  app.add_flag("--manifest", o.manifest, "digests of its files and tensors: OUTPUT.manifest.json");
  app.add_flag("--provenance", o.provenance, "in-toto, SLSA v1: OUTPUT.provenance.json");
  app.add_flag("--bom", o.bom, "CycloneDX: OUTPUT.cdx.json");
  o.recipe = [&app](std::string_view format) { return recipe_of(app, format); };
}

Records::Records(const RecordOptions& options, Job& job, const Finish& how, const Context& context)
    : options_(options), job_(job), how_(how), context_(context) {
  if (options.lineage && options.no_lineage)
    throw Error(Fault::Usage, "either --lineage or --no-lineage, not both");
  if (options.lineage && !has_place(job))
    throw Error(Fault::Usage, "has no place for --lineage").in(job.to.path);
  if (is_given(options.passphrase) && options.key.empty())
    throw Error(Fault::Usage, "a passphrase is for --sign KEY");
  if (beside_anything(options) && job.to.kind == OutputSet::Kind::Stdout)
    throw Error(Fault::Usage,
                "--sign, --manifest, --provenance and --bom need an output with a name")
        .in("-");
  const bool signs = !options.key.empty();
  const auto add = [&](std::string kind, std::string_view suffix) {
    beside_.push_back({std::move(kind), job.to.path + std::string(suffix)});
  };
  if (signs && job.to.kind == OutputSet::Kind::File) add("signature", ".sig");
  if (options.manifest) add("manifest", ".manifest.json");
  if (options.manifest && signs) add("manifest-signature", ".manifest.json.sig");
  if (options.provenance)
    add("provenance", signs ? ".provenance.sigstore.json" : ".provenance.json");
  if (options.bom) add("bom", ".cdx.json");
  if (!wants_lineage()) return;
  lineage_ = {.version = std::string(version_number()),
              .operation = std::string(how_.verb),
              .recipe = options.recipe(job.to.format->name),
              .sources = sources_of(job)};
  set_lineage(job.meta, *lineage_, job.to.format->name != "safetensors");
}

// What only packs the same tensors anew keeps the bytes that it had; seen as another model's they
// are not the same.
bool Records::wants_lineage() const {
  if (options_.lineage) return true;
  return !options_.no_lineage && has_place(job_) && job_.input().catalog.format != "imatrix" &&
         (job_.view || std::ranges::any_of(job_.fates, &Fate::encoded));
}

std::vector<std::string> Records::beside() const {
  std::vector<std::string> out;
  for (const Beside& b : beside_) out.push_back(b.path);
  return out;
}

void Records::begin(OutputSet& outputs, OutputSet::Existing existing) {
  for (Beside& b : beside_) {
    b.output = std::make_unique<OutputSet>(b.path, OutputSet::Kind::File, existing);
    b.output->create(b.path, std::nullopt);
  }
  if (!options_.key.empty()) {
    signer_.emplace(SignerOptions{
        .key = options_.key, .certificate = {}, .chain = {}, .passphrase = options_.passphrase});
    if (job_.to.kind == OutputSet::Kind::Folder)
      inside_ = outputs.create(std::string(kSignatureInside), std::nullopt);
  }
  first_file_ = outputs.files();
  if (lineage_ || options_.provenance || options_.bom) {
    std::vector<Extent> extents;
    for (const auto& [name, file] : files_by_name(job_)) extents.push_back({file, 0, file->size()});
    source_digests_ = std::make_unique<SourceDigests>(std::move(extents), context_);
  }
  if (!beside_anything(options_)) return;
  // The output's own digests begin with its head, which has those of the sources.
  if (source_digests_) take_source_digests();
  tensors_ = outputs_of(job_.plan);
  digests_ = std::make_unique<WrittenDigests>(
      outputs, tensors_, WrittenDigests::Wanted{.files = true, .tensors = options_.manifest},
      context_.run);
}

void Records::take_source_digests() {
  sources_ = sources_of(job_, source_digests_->get());
  source_digests_.reset();
  if (!lineage_) return;  // they are for the documents
  lineage_->sources = sources_;
  for (OutFile& f : job_.plan.files) fill_lineage(f.meta, *lineage_);
  fill_lineage(job_.meta, *lineage_);
  for (SideFile& s : job_.plan.side)
    if (s.name == kMetadataFile) s = metadata_file(job_.meta);
}

// The output's heads were written with digests to come.
void Records::write_lineage(OutputSet& outputs) {
  take_source_digests();
  write_heads(job_.plan, first_file_, outputs);
  for (std::size_t i = 0; i < job_.plan.side.size(); ++i) {
    const SideFile& s = job_.plan.side[i];
    if (s.name != kMetadataFile) continue;
    const Buffer text = read_all({s.content, 0, s.content->size()});
    outputs.write_at(first_file_ + job_.plan.files.size() + i, 0, text);
  }
}

Statement Records::statement(const WrittenDigests::Result& found) const {
  Statement s;
  s.subject = own_name(job_.to.path);
  s.ignore_paths = git_paths();
  const bool folder = job_.to.kind == OutputSet::Kind::Folder;
  if (folder) s.ignore_paths->push_back(std::string(kSignatureInside));
  for (const WrittenDigests::File& f : found.files)
    if (f.name != kSignatureInside || !folder)
      s.resources.push_back({folder ? f.name : s.subject, 0, std::nullopt, f.digest.hex()});
  return s;
}

// What 'wtool digest --per-tensor' would write of the output.
std::string Records::manifest(const WrittenDigests::Result& found) const {
  Manifest m;
  const std::string own = own_name(job_.to.path);
  const bool folder = job_.to.kind == OutputSet::Kind::Folder;
  std::vector<std::uint32_t> number(found.files.size());
  for (std::size_t i = 0; i < found.files.size(); ++i) {
    const WrittenDigests::File& f = found.files[i];
    if (folder && f.name == kSignatureInside) continue;
    number[i] = static_cast<std::uint32_t>(m.files.size());
    m.files.push_back({folder ? own + "/" + f.name : own, f.bytes, f.digest});
  }
  ManifestModel model{.name = own, .files = {}, .tensors = 0, .content = {}, .metadata = {}};
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const WrittenDigests::Tensor& t = found.tensors[i];
    m.tensors.push_back({tensors_[i].name, std::string(name_of(tensors_[i].dtype)),
                         tensors_[i].shape, t.bytes, number[t.file], t.stored, t.canonical});
    model.files.push_back(number[t.file]);
  }
  std::ranges::sort(model.files);
  model.files.erase(std::unique(model.files.begin(), model.files.end()), model.files.end());
  // NPY files have none; what a folder keeps beside them is a file like others.
  model.metadata = metadata_digest(job_.to.format->one_tensor ? Metadata() : job_.meta);
  m.models.push_back(std::move(model));
  seal(m);
  std::string text;
  write_manifest(m, [&](std::string_view s) { text += s; });
  return text;
}

BuildRecord Records::build_record(const WrittenDigests::Result& found) const {
  BuildRecord r;
  r.operation = how_.verb;
  r.version = version_number();
  r.commit = revision();
  r.openssl = openssl_version();
  r.recipe = options_.recipe(job_.to.format->name);
  for (const Lineage::Source& s : sources_)
    r.sources.push_back({s.name, s.bytes, s.sha256, s.files});
  r.source_format = job_.input().catalog.format;
  r.output = own_name(job_.to.path);
  r.folder = job_.to.kind == OutputSet::Kind::Folder;
  std::vector<WrittenDigests::File> files = found.files;
  if (r.folder) std::erase_if(files, [](const auto& f) { return f.name == kSignatureInside; });
  std::ranges::sort(files, {}, &WrittenDigests::File::name);
  std::vector<Sha256> digests;
  for (const WrittenDigests::File& f : files) {
    r.files.push_back({r.folder ? f.name : r.output, f.bytes, f.digest.hex()});
    digests.push_back(f.digest);
  }
  if (r.folder) r.oms_root = root_digest(digests).hex();
  r.format = job_.to.format->name;
  r.architecture = job_.meta.text("general.architecture");
  if (r.architecture.empty()) r.architecture = model_type(job_.input());
  r.scheme =
      text_in(nlohmann::ordered_json::parse(how_.quantization, nullptr, false), "quant_method");
  r.license = job_.meta.text("general.license");
  r.model_name = job_.meta.text("general.name");
  std::map<std::string, std::uint64_t> dtypes;
  for (const OutTensor& t : tensors_) {
    ++dtypes[std::string(name_of(t.dtype))];
    r.bytes += t.bytes();
  }
  r.dtypes.assign(dtypes.begin(), dtypes.end());
  r.tensors = tensors_.size();
  for (const Fate& f : job_.fates) r.parameters += f.elements;
  return r;
}

void Records::put(std::string_view kind, std::string_view text) {
  const auto it = std::ranges::find(beside_, kind, &Beside::kind);
  if (it != beside_.end()) it->output->append(0, as_bytes(text));
}

void Records::write(OutputSet& outputs) {
  if (source_digests_) write_lineage(outputs);
  if (!digests_) return;
  const WrittenDigests::Result found = digests_->finish();
  std::optional<BuildRecord::File> signature, manifest_file;
  const auto file_of = [](std::string name, std::string_view text) {
    return BuildRecord::File{std::move(name), text.size(), sha256(as_bytes(text)).hex()};
  };
  const std::string own = own_name(job_.to.path);
  if (signer_) {
    const std::string text = signer_->sign(statement(found));
    signature = file_of(inside_ ? own + "/" + std::string(kSignatureInside) : own + ".sig", text);
    if (inside_)
      outputs.append(*inside_, as_bytes(text));
    else
      put("signature", text);
  }
  if (options_.manifest) {
    const std::string text = manifest(found);
    put("manifest", text);
    manifest_file = file_of(own + ".manifest.json", text);
    if (signer_) {
      Statement s;
      s.subject = own + ".manifest.json";
      s.ignore_paths = git_paths();
      s.resources.push_back({s.subject, 0, std::nullopt, sha256(as_bytes(text)).hex()});
      put("manifest-signature", signer_->sign(s));
    }
  }
  if (!options_.provenance && !options_.bom) return;
  BuildRecord record = build_record(found);
  record.signature = signature;
  record.manifest = manifest_file;
  if (options_.provenance) {
    std::string text = write_provenance(record);
    if (signer_) text = signer_->sign_payload(std::move(text));
    put("provenance", text);
  }
  if (options_.bom) put("bom", write_bom(record));
}

void Records::commit() {
  for (Beside& b : beside_) b.output->commit();
}

std::vector<WrittenRecord> Records::paths() const {
  std::vector<WrittenRecord> out;
  if (!options_.key.empty() && job_.to.kind == OutputSet::Kind::Folder)
    out.push_back({"signature", joined(job_.to.path, std::string(kSignatureInside))});
  for (const Beside& b : beside_) out.push_back({b.kind, b.path});
  return out;
}

}  // namespace wtool
