#include <fmt/format.h>

#include "lib/base/hex.h"
#include "lib/base/text.h"
#include "lib/trust/build_record.h"
#include "lib/trust/json_text.h"

namespace wtool {
namespace {

using File = BuildRecord::File;

constexpr std::string_view kStatement = "https://in-toto.io/Statement/v1";
constexpr std::string_view kPredicate = "https://slsa.dev/provenance/v1";
constexpr std::string_view kBuilder = "urn:wtool:builder:v1";
constexpr std::string_view kBundleType = "application/vnd.dev.sigstore.bundle.v0.3+json";

// A resource descriptor of in-toto's. Its annotations are named as SLSA asks: vendor_fieldName.
void write_file(JsonText& out, const File& file, std::string_view media_type = {}) {
  out.object([&] {
    out.member("name", file.name);
    out.object("digest", [&] { out.member("sha256", file.sha256); });
    out.known("mediaType", media_type);
    out.object("annotations", [&] {
      out.member("wtool_bytes", file.bytes);
      if (file.files > 0) {
        out.member("wtool_digest", "oms-root");  // and no file's
        out.member("wtool_files", file.files);
      }
      if (!is_utf8(file.name)) out.member("wtool_nameHex", to_hex(file.name));
    });
  });
}

void write_subjects(JsonText& out, const BuildRecord& r) {
  out.array("subject", [&] {
    // The slash keeps it apart from a file of the same name in it: names have to be unique.
    if (r.folder && !r.oms_root.empty())
      write_file(out, {r.output + "/", r.file_bytes(), r.oms_root, r.files.size()});
    for (const File& f : r.files) write_file(out, f);
  });
}

void write_definition(JsonText& out, const BuildRecord& r) {
  out.member("buildType", fmt::format("urn:wtool:build:{}:v1", r.operation));
  out.object("externalParameters", [&] {
    out.known("format", r.format);
    if (!r.recipe.empty()) {
      out.key("recipe");
      out.json(r.recipe);
    }
  });
  if (!r.commit.empty()) out.object("internalParameters", [&] { out.member("commit", r.commit); });
  out.array("resolvedDependencies", [&] {
    for (const File& f : r.sources) write_file(out, f);
  });
}

void write_run(JsonText& out, const BuildRecord& r) {
  out.object("builder", [&] {
    out.member("id", kBuilder);
    out.object("version", [&] {
      out.known("openssl", r.openssl);
      out.known("wtool", r.version);
    });
  });
  if (r.manifest || r.signature)
    out.array("byproducts", [&] {
      if (r.manifest) write_file(out, *r.manifest, "application/json");
      if (r.signature) write_file(out, *r.signature, kBundleType);
    });
}

}  // namespace

std::uint64_t BuildRecord::file_bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const File& f : files) sum += f.bytes;
  return sum;
}

std::string write_provenance(const BuildRecord& record) {
  JsonText out(JsonText::Form::Compact);
  out.object([&] {
    out.member("_type", kStatement);
    write_subjects(out, record);
    out.member("predicateType", kPredicate);
    out.object("predicate", [&] {
      out.object("buildDefinition", [&] { write_definition(out, record); });
      out.object("runDetails", [&] { write_run(out, record); });
    });
  });
  return out.take();
}

}  // namespace wtool
