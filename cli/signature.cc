#include "cli/signature.h"

#include <filesystem>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/json.h"
#include "cli/terminal.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"
#include "lib/trust/certificate.h"
#include "lib/trust/statement.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kLargestBundle = std::uint64_t{256} << 20;

std::string text_of(const Resource& r) {
  return r.end ? fmt::format("{}:{}:{}", r.path, r.begin, *r.end) : r.path;
}

void write_certificate(JsonWriter& w, const Certificate& c) {
  w.begin_object();
  w.member("subject", c.subject());
  w.member("issuer", c.issuer());
  w.key("names");
  w.begin_array();
  for (const std::string& name : c.names()) w.value(name);
  w.end_array();
  w.member("not_before", c.not_before());
  w.member("not_after", c.not_after());
  w.member("fingerprint", c.fingerprint());
  w.end_object();
}

void write_json(const std::string& path, const Bundle& b, const Statement& s,
                const std::vector<Certificate>& certificates) {
  JsonWriter w(out);
  w.begin_document("wtool.bundle/1", true, {path});
  w.member("verified", false);
  w.member("kind", name_of(b.kind));
  w.member("media_type", b.media_type);
  if (!b.hint.empty()) w.member("hint", b.hint);
  w.key("certificates");
  w.begin_array();
  for (const Certificate& c : certificates) write_certificate(w, c);
  w.end_array();
  w.member("log_entries", b.log_entries);
  w.member("timestamps", b.timestamps);
  w.member("predicate_type", s.predicate_type);
  w.member("model", s.subject);
  w.member("method", s.method == Statement::Method::Shards ? "shards" : "files");
  w.member("hash", name_of(s.hash));
  if (s.shard_size > 0) w.member("shard_size", s.shard_size);
  w.member("allow_symlinks", s.allow_symlinks);
  w.key("ignore_paths");
  w.begin_array();
  if (s.ignore_paths)
    for (const std::string& p : *s.ignore_paths) w.value(p);
  w.end_array();
  if (!s.root.empty()) w.member("root", s.root);
  w.key("resources");
  w.begin_array();
  for (const Resource& r : s.resources) {
    w.begin_object();
    w.member("name", text_of(r));
    w.member("digest", r.digest);
    w.end_object();
  }
  w.end_array();
  w.end_object();
}

std::string shown(std::string_view text) {
  return fit_charset(printable(text));
}

void print_signer(const Bundle& b, const std::vector<Certificate>& certificates) {
  if (b.kind == Bundle::Kind::Key)
    return out(b.hint.empty() ? "signer   a key, not named (written before version 1.1)\n"
                              : fmt::format("signer   key {}\n", shown(b.hint)));
  for (std::size_t i = 0; i < certificates.size(); ++i) {
    const Certificate& c = certificates[i];
    out(fmt::format("{}{}\n", i == 0 ? "signer   " : "  by     ", shown(c.subject())));
    if (i > 0) continue;
    for (const std::string& name : c.names()) out(fmt::format("         {}\n", shown(name)));
    out(fmt::format("         issued by {}\n", shown(c.issuer())));
    out(fmt::format("         valid from {} to {}\n", c.not_before(), c.not_after()));
    out(fmt::format("         fingerprint {}\n", c.fingerprint()));
  }
  if (b.kind == Bundle::Kind::Keyless)
    out(fmt::format("logs     {} entries, {} timestamps (keyless, by Sigstore)\n", b.log_entries,
                    b.timestamps));
}

void print(const std::string& path, const Bundle& b, const Statement& s,
           const std::vector<Certificate>& certificates) {
  out(fmt::format("{}: what it says; {}\n", shown(path),
                  paint(Style::Yellow, "nothing of it is verified")));
  print_signer(b, certificates);
  if (!s.subject.empty()) out(fmt::format("model    {}\n", shown(s.subject)));
  out(fmt::format("digests  {}, {}\n", name_of(s.hash),
                  s.shard_size > 0 ? fmt::format("of shards of {} bytes", s.shard_size)
                                   : std::string("of whole files")));
  if (s.ignore_paths) {
    std::string all;
    for (const std::string& p : *s.ignore_paths) all += (all.empty() ? "" : ", ") + shown(p);
    out(fmt::format("ignored  {}\n", all.empty() ? "nothing" : all));
  } else {
    out("ignored  not recorded\n");
  }
  if (!s.root.empty()) out(fmt::format("root     {}\n", s.root));
  for (const std::string& field : s.ignored_fields)
    out(fmt::format("unknown  field {}\n", shown(field)));
  for (const Resource& r : s.resources) out(fmt::format("  {}  {}\n", r.digest, shown(text_of(r))));
}

}  // namespace

std::string read_small_file(const std::string& path, std::uint64_t most, std::string_view what) {
  const SourcePtr file = open_file(path);
  if (file->size() > most)
    throw Error(Fault::BadFile, fmt::format("{} bytes are too many for {}; wtool takes {}",
                                            file->size(), what, most))
        .in(path);
  const Buffer bytes = read_all({file, 0, file->size()});
  return std::string(as_text(bytes));
}

Bundle read_bundle(const std::string& path) {
  std::string text = read_small_file(path, kLargestBundle, "a signature");
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || text[first] != '{')
    throw Error(Fault::BadFile, "is no Sigstore bundle: it does not begin with '{'").in(path);
  try {
    return parse_bundle(std::move(text));
  } catch (const JsonFault& e) {
    throw Error(Fault::BadFile, "is no Sigstore bundle: " + e.text()).in(path);
  } catch (Error& e) {
    throw e.in(path);
  }
}

std::string own_name(const std::string& path) {
  const fs::path full = fs::absolute(path).lexically_normal();
  return (full.has_filename() ? full : full.parent_path()).filename().native();
}

std::string default_signature(const std::string& model) {
  std::error_code ignored;
  return fs::is_directory(model, ignored) ? joined(model, std::string(kSignatureInside))
                                          : model + ".sig";
}

std::optional<std::string> name_below(const std::string& model, const std::string& path) {
  std::error_code failed;
  const fs::path root = fs::canonical(model, failed);
  if (failed) return std::nullopt;
  // The last part stays: a link is ignored by its own name.
  fs::path full = fs::absolute(path, failed).lexically_normal();
  if (!full.has_filename()) full = full.parent_path();
  const fs::path folder = fs::weakly_canonical(full.parent_path(), failed);
  if (failed) return std::nullopt;
  const fs::path name = (folder / full.filename()).lexically_relative(root);
  if (name.empty() || name == "." || *name.begin() == "..") return std::nullopt;
  return name.generic_string();
}

std::string name_in_model(const std::string& model, const std::string& typed) {
  if (auto name = name_below(model, typed)) return *name;
  std::string name = fs::path(typed).lexically_normal().generic_string();
  if (name.size() > 1 && name.ends_with('/')) name.pop_back();
  if (const auto why = unfit_name(name))
    throw Error(Fault::Usage,
                fmt::format("{} is no path below {}: it {}", quoted(typed), quoted(model), *why));
  return name;
}

ExitCode show_bundle(const std::string& path, const Context& context) {
  const Bundle bundle = read_bundle(path);
  Statement statement;
  std::vector<Certificate> certificates;
  try {
    statement = parse_statement(bundle.payload);
    for (const Buffer& der : bundle.certificates)
      certificates.push_back(Certificate::from_der(der, "a certificate"));
  } catch (Error& e) {
    throw e.in(path);
  }
  if (context.common->json)
    write_json(path, bundle, statement, certificates);
  else
    print(path, bundle, statement, certificates);
  return ExitCode::Ok;
}

void add_signature_options(CLI::App& app, SignatureOptions& o) {
  app.add_option("--signature", o.signature,
                 "the signature's bundle; else PATH/model.sig or PATH.sig")
      ->option_text("BUNDLE");
  app.add_option("--key", o.key, "the signer's public key")->option_text("FILE");
  app.add_option("--ca", o.ca, "root certificates that may vouch for the signer; repeatable")
      ->option_text("FILE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--subject", o.subject, "the name the signer's certificate must have")
      ->option_text("NAME");
  app.add_option("--fingerprint", o.fingerprint, "the SHA-256 it must have")->option_text("HEX");
  app.add_flag("--allow-expired", o.allow_expired,
               "a certificate may have expired since it was issued");
  app.add_flag("--allow-keyless-unverified", o.allow_keyless,
               "take a keyless bundle's word for who signed it");
  app.add_option("--ignore", o.ignore, "a file or folder that need not be signed; repeatable")
      ->option_text("FILE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--ignore-unsigned", o.ignore_unsigned, "files may be there that are not signed");
  app.add_option("--only", o.only, "look at this signed file or folder only; repeatable")
      ->option_text("FILE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--keep-going", o.keep_going,
               "read the files even if names or sizes are wrong already");
}

bool is_given(const SignatureOptions& o) noexcept {
  return !o.signature.empty() || !o.key.empty() || !o.ca.empty() || !o.subject.empty() ||
         !o.fingerprint.empty() || !o.ignore.empty() || !o.only.empty() || o.ignore_unsigned ||
         o.allow_keyless || o.allow_expired || o.keep_going;
}

}  // namespace wtool
