#include <fmt/format.h>

#include "lib/trust/build_record.h"
#include "lib/trust/digest.h"
#include "lib/trust/json_text.h"

namespace wtool {
namespace {

using File = BuildRecord::File;

std::string text_of(std::uint64_t n) {
  return fmt::format("{}", n);
}

// A relative reference of RFC 3986. A colon would make what stands before it a scheme.
std::string as_reference(std::string_view path) {
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  std::string out;
  for (const char c : path)
    if (kPlain.find(c) != kPlain.npos)
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  return out;
}

class Bom {
 public:
  explicit Bom(const BuildRecord& record) : r_(record) {}

  std::string write(std::string_view serial) {
    out_.object([&] {
      out_.member("$schema", "http://cyclonedx.org/schema/bom-1.6.schema.json");
      out_.member("bomFormat", "CycloneDX");
      out_.member("specVersion", "1.6");
      out_.known("serialNumber", serial);
      out_.member("version", std::uint64_t{1});
      out_.object("metadata", [&] {
        out_.object("tools", [&] { out_.array("components", [&] { tool(); }); });
        out_.object("component", [&] { model(); });
      });
      // The run: sources and recipe go in, the model comes out.
      out_.array("formulation", [&] {
        out_.object([&] { out_.array("workflows", [&] { out_.object([&] { workflow(); }); }); });
      });
    });
    return out_.take() + "\n";
  }

 private:
  void tool() {
    out_.object([&] {
      out_.member("type", "application");
      out_.member("bom-ref", "tool");
      out_.member("name", "wtool");
      out_.known("version", r_.version);
      if (!r_.commit.empty())
        out_.array("properties", [&] { property("wtool:commit", r_.commit); });
    });
  }

  void model() {
    out_.member("type", "machine-learning-model");
    out_.member("bom-ref", "model");
    out_.member("name", r_.output);
    if (!r_.folder && r_.files.size() == 1) hashes(r_.files[0].sha256);
    license();
    if (!r_.sources.empty())
      out_.object("pedigree", [&] { out_.array("ancestors", [&] { ancestors(); }); });
    references();
    if (r_.folder)
      out_.array("components", [&] {
        for (std::size_t i = 0; i < r_.files.size(); ++i)
          file(r_.files[i], fmt::format("file:{}", i), "file");
      });
    out_.object("modelCard", [&] { card(); });
    out_.array("properties", [&] {
      known_property("wtool:format", r_.format);
      // No digest of bytes, so not among the hashes. A folder has none but this.
      known_property("wtool:oms-root", r_.oms_root);
      property("wtool:bytes", text_of(r_.file_bytes()));
    });
  }

  // By name, not as an SPDX identifier: what the metadata says need not be one.
  void license() {
    if (r_.license.empty()) return;
    out_.array("licenses", [&] {
      out_.object([&] {
        out_.object("license", [&] {
          out_.member("name", r_.license);
          out_.member("acknowledgement", "declared");
        });
      });
    });
  }

  void ancestors() {
    const bool whole = r_.sources.size() == 1;  // else each is a part of a model
    for (std::size_t i = 0; i < r_.sources.size(); ++i)
      file(r_.sources[i], source_ref(i), whole ? "machine-learning-model" : "file");
  }
  static std::string source_ref(std::size_t i) { return fmt::format("source:{}", i); }

  void file(const File& f, const std::string& ref, std::string_view type) {
    out_.object([&] {
      out_.member("type", type);
      out_.member("bom-ref", ref);
      out_.member("name", f.name);
      if (f.files == 0) hashes(f.sha256);
      out_.array("properties", [&] {
        if (f.files > 0) {
          property("wtool:oms-root", f.sha256);
          property("wtool:files", text_of(f.files));
        }
        property("wtool:bytes", text_of(f.bytes));
      });
    });
  }

  void references() {
    if (!r_.manifest && !r_.signature) return;
    out_.array("externalReferences", [&] {
      if (r_.manifest) reference(*r_.manifest, "evidence");
      if (r_.signature) reference(*r_.signature, "digital-signature");
    });
  }
  void reference(const File& f, std::string_view type) {
    out_.object([&] {
      out_.member("url", as_reference(f.name));
      out_.member("type", type);
      hashes(f.sha256);
    });
  }

  void card() {
    if (!r_.architecture.empty())
      out_.object("modelParameters", [&] { out_.member("modelArchitecture", r_.architecture); });
    out_.array("properties", [&] {
      known_property("wtool:name", r_.model_name);
      known_property("wtool:scheme", r_.scheme);
      property("wtool:parameters", text_of(r_.parameters));
      property("wtool:tensors", text_of(r_.tensors));
      if (r_.parameters > 0)
        property("wtool:bits-per-weight",
                 fmt::format("{:.4f}", 8 * static_cast<double>(r_.bytes) /
                                           static_cast<double>(r_.parameters)));
      for (const auto& [dtype, tensors] : r_.dtypes)
        property("wtool:tensors:" + dtype, text_of(tensors));
    });
  }

  void workflow() {
    out_.member("bom-ref", "run");
    out_.member("uid", fmt::format("urn:wtool:build:{}:v1", r_.operation));
    out_.member("name", r_.operation);
    out_.array("taskTypes", [&] { out_.value("build"); });
    if (!r_.sources.empty() || !r_.recipe.empty())
      out_.array("inputs", [&] {
        for (std::size_t i = 0; i < r_.sources.size(); ++i) resource(source_ref(i), {});
        if (!r_.recipe.empty()) recipe();
      });
    out_.array("outputs", [&] { resource("model", "artifact"); });
  }
  void recipe() {
    out_.object([&] {
      out_.array("parameters", [&] {
        out_.object([&] {
          out_.member("name", "recipe");
          out_.member("value", r_.recipe);
        });
      });
    });
  }
  void resource(const std::string& ref, std::string_view type) {
    out_.object([&] {
      out_.known("type", type);
      out_.object("resource", [&] { out_.member("ref", ref); });
    });
  }

  void hashes(const std::string& sha256) {
    out_.array("hashes", [&] {
      out_.object([&] {
        out_.member("alg", "SHA-256");
        out_.member("content", sha256);
      });
    });
  }
  void property(std::string_view name, std::string_view value) {
    out_.object([&] {
      out_.member("name", name);
      out_.member("value", value);
    });
  }
  void known_property(std::string_view name, std::string_view value) {
    if (!value.empty()) property(name, value);
  }

  const BuildRecord& r_;
  JsonText out_{JsonText::Form::Indented};
};

// RFC 9562's version 8, whose bits are for whoever makes it to choose: of a SHA-256 here.
std::string uuid_of(std::string_view text) {
  Sha256 digest = sha256(as_bytes(text));
  digest.bytes[6] = (digest.bytes[6] & std::byte{0x0F}) | std::byte{0x80};
  digest.bytes[8] = (digest.bytes[8] & std::byte{0x3F}) | std::byte{0x80};
  const std::string hex = digest.hex();
  const std::string_view h = hex;
  return fmt::format("{}-{}-{}-{}-{}", h.substr(0, 8), h.substr(8, 4), h.substr(12, 4),
                     h.substr(16, 4), h.substr(20, 12));
}

}  // namespace

std::string write_bom(const BuildRecord& record) {
  return Bom(record).write("urn:uuid:" + uuid_of(Bom(record).write({})));
}

}  // namespace wtool
