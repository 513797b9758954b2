#include <algorithm>
#include <filesystem>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/sign_job.h"
#include "cli/signature.h"
#include "cli/signer.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/trust/certificate.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> paths;
  SignerOptions signer;
  std::string new_key, curve, output, reuse, digests, compat;
  SignScope scope;
  bool encrypt = false, force = false, dry_run = false;
};

void warn_of_empty(const SignJob& job) {
  if (job.statement.method != Statement::Method::Shards) return;
  std::string empty;
  for (const ModelFile& f : job.files)
    if (f.bytes == 0) empty += (empty.empty() ? "" : ", ") + printable(f.name);
  if (!empty.empty()) warn("shards do not cover empty files: " + empty);
}

// An older signature is a file like any other once the new one goes elsewhere.
void warn_of_older(const SignJob& job) {
  const std::string name = "model.sig";
  if (job.folder && std::ranges::binary_search(job.files, name, {}, &ModelFile::name))
    warn(fmt::format("{} is signed like the other files; --ignore leaves it out",
                     printable(job.path_of(name))));
}

void write_known(JsonWriter& w, const Options& options, const KnownDigests& known) {
  w.key("known");
  w.begin_object();
  w.member("by", options.reuse.empty() ? "digests" : "reuse");
  w.member("source", known.source);
  w.key("files");
  w.begin_array();
  for (const std::string& file : known.files) w.value(file);
  w.end_array();
  w.key("read");
  w.begin_array();
  for (const auto& [file, why] : known.others) {
    w.begin_object();
    w.member("file", file);
    w.member("why", why);
    w.end_object();
  }
  w.end_array();
  w.end_object();
}

void write_json(const Options& options, const SignJob& job, const Bundle& bundle,
                const Certificate* certificate, const std::optional<KnownDigests>& known) {
  JsonWriter w(out);
  w.begin_document("wtool.sign/1", true, {job.model});
  w.member("output", job.output);
  w.member("dry_run", options.dry_run);
  w.member("kind", name_of(bundle.kind));
  if (!bundle.hint.empty()) w.member("hint", bundle.hint);
  if (certificate) w.member("subject", certificate->subject());
  w.member("files", std::uint64_t{job.files.size()});
  w.member("files_read", std::uint64_t{job.files.size() - (known ? known->files.size() : 0)});
  w.member("bytes", job.bytes());
  w.member("resources", std::uint64_t{job.statement.resources.size()});
  if (!job.statement.root.empty()) w.member("root", job.statement.root);
  if (known) write_known(w, options, *known);
  w.end_object();
}

// Whatever is signed without having been read is named.
std::string how_known(const Options& options, const KnownDigests& known) {
  std::string text;
  if (options.reuse.empty()) return text;
  for (const std::string& file : known.files)
    text += fmt::format("{}: not read, digest of {}\n", printable(file), printable(known.source));
  for (const auto& [file, why] : known.others)
    text += fmt::format("{}: {} ({})\n", printable(file),
                        options.dry_run ? "would be read" : "read", why);
  return text;
}

std::string summary(const Options& options, const SignJob& job, const Bundle& bundle,
                    const std::optional<KnownDigests>& known) {
  const std::string by =
      bundle.kind == Bundle::Kind::Key
          ? "key " + bundle.hint
          : "certificate " +
                printable(Certificate::from_der(bundle.certificates[0], "it").subject());
  std::string text = fmt::format(
      "{}: {} {} {}, {}, with {}", printable(job.output), options.dry_run ? "would sign" : "signed",
      job.files.size(), job.files.size() == 1 ? "file" : "files", human_bytes(job.bytes()), by);
  if (known && !options.digests.empty())
    text +=
        fmt::format("; nothing was read: the digests are those in {}", printable(known->source));
  else if (known)
    text += fmt::format("; {} of them not read", known->files.size());
  return text;
}

void say(const Options& options, const SignJob& job, const Bundle& bundle,
         const std::optional<KnownDigests>& known) {
  std::string text;
  if (options.dry_run && options.reuse.empty())
    for (const ModelFile& f : job.files) text += "would sign " + printable(f.name) + "\n";
  if (known) text += how_known(options, *known);
  text += summary(options, job, bundle, known);
  if (job.output == "-")
    note(text);
  else
    out(fit_charset(text) + "\n");
}

Dialect dialect_of(const Options& options) {
  return options.compat.empty() ? Dialect::Standard : Dialect::Reference;
}

void check_options(const Options& options) {
  if (options.signer.key.empty())
    throw Error(Fault::Usage, "no key to sign with")
        .hint("--key PRIVATE-KEY; 'wtool sign --new-key NAME' makes one");
  if (!options.signer.chain.empty() && options.signer.certificate.empty())
    throw Error(Fault::Usage, "--chain goes with --cert");
  if (!options.reuse.empty() && !options.digests.empty())
    throw Error(Fault::Usage, "either --reuse or --digests, not both");
}

std::optional<KnownDigests> known_digests(const Options& options, SignJob& job,
                                          const PublicKey& key) {
  if (!options.reuse.empty()) return reuse_digests(job, options.reuse, key);
  if (!options.digests.empty()) return take_digests(job, options.digests);
  return std::nullopt;
}

// What is written is read again: nothing leaves that we would not accept.
std::string sealed(SignJob& job, const Signer& signer) {
  std::string payload = write_statement(job.statement, job.dialect);
  job.statement.root = parse_statement(payload).root;
  return signer.sign_payload(std::move(payload));
}

// The signature's place. It is made before anything is read: --reuse will go by its time.
std::unique_ptr<OutputSet> open_output(const Options& options, const SignJob& job) try {
  if (options.dry_run) return nullptr;
  const auto kind = job.output == "-" ? OutputSet::Kind::Stdout : OutputSet::Kind::File;
  auto output = std::make_unique<OutputSet>(
      job.output, kind, options.force ? OutputSet::Existing::Replace : OutputSet::Existing::Refuse);
  output->create(job.output, std::nullopt);
  return output;
} catch (Error& e) {
  if (e.fault() == Fault::Io && e.hint().empty() && options.output.empty())
    e.hint("-o OUTPUT puts the signature elsewhere");
  throw;
}

ExitCode sign(const Options& options, const Context& context) {
  check_options(options);
  SignJob job =
      plan_signature(options.paths[0], options.output, dialect_of(options), options.scope);
  if (context.common->json && job.output == "-")
    throw Error(Fault::Usage, "--json and the signature cannot both go to standard output");
  const auto output = open_output(options, job);  // before a passphrase is asked for
  const Signer signer(options.signer);
  const Bundle& bundle = signer.bundle();
  std::optional<Certificate> certificate;
  if (!bundle.certificates.empty())
    certificate = Certificate::from_der(bundle.certificates[0], options.signer.certificate);
  const std::optional<KnownDigests> known = known_digests(options, job, signer.public_key());
  warn_of_empty(job);
  warn_of_older(job);
  if (output) {
    hash_files(job, context);
    output->append(0, as_bytes(sealed(job, signer)));
    output->commit();
  }
  if (context.common->json)
    write_json(options, job, bundle, certificate ? &*certificate : nullptr, known);
  else
    say(options, job, bundle, known);
  return ExitCode::Ok;
}

// Before a passphrase is asked for; write_key_files() makes sure.
void check_new(const std::string& path) {
  std::error_code failed;
  if (fs::exists(fs::symlink_status(path, failed)))
    throw Error(Fault::Usage, "already exists")
        .in(path)
        .hint("a key is never replaced: choose another name, or move the old one away");
}

ExitCode make_key(const Options& options, const Context& context) {
  if (!options.paths.empty() || !options.signer.key.empty())
    throw Error(Fault::Usage,
                "--new-key makes a key and signs nothing: it takes no MODEL or --key");
  const auto curve = parse_curve(options.curve.empty() ? "P-256" : options.curve);
  if (!curve)
    throw Error(Fault::Usage,
                fmt::format("--curve: {} is not P-256, P-384 or P-521", quoted(options.curve)));
  const std::string private_path = options.new_key + ".pem";
  const std::string public_path = options.new_key + ".pub.pem";
  check_new(private_path);
  check_new(public_path);
  const PrivateKey key = PrivateKey::make(*curve);
  const PublicKey half = key.public_key();
  if (!options.dry_run) {
    const bool encrypt = options.encrypt || is_given(options.signer.passphrase);
    const Secret pem =
        encrypt
            ? key.encrypted_pem(
                  passphrase(options.signer.passphrase, "passphrase of the new key", true).view())
            : key.pem();
    write_key_files(private_path, pem, public_path, half.pem());
  }
  if (context.common->json) {
    JsonWriter w(out);
    w.begin_object();
    w.member("schema", "wtool.key/1");
    w.member("ok", true);
    w.member("private", private_path);
    w.member("public", public_path);
    w.member("curve", name_of(*curve));
    if (!options.dry_run) w.member("hint", half.hint());
    w.end_object();
  } else if (options.dry_run) {
    out(fit_charset(
        fmt::format("would write {} and {}\n", printable(private_path), printable(public_path))));
  } else {
    out(fit_charset(fmt::format("{}: private {} key, keep it\n{}: public key {}\n",
                                printable(private_path), name_of(*curve), printable(public_path),
                                half.hint())));
  }
  return ExitCode::Ok;
}

ExitCode run(const Options& options, const Context& context) {
  if (!options.new_key.empty()) return make_key(options, context);
  if (options.encrypt || !options.curve.empty())
    throw Error(Fault::Usage, "--encrypt and --curve go with --new-key");
  if (options.paths.size() == 2 && options.paths[0] == "show")
    return show_bundle(options.paths[1], context);
  if (options.paths.size() > 1)
    throw Error(Fault::Usage, fmt::format("one model at a time, not {}", options.paths.size()))
        .hint("'wtool sign show BUNDLE' prints what a signature says");
  if (options.paths.size() == 1 && options.paths[0] == "show" && options.signer.key.empty())
    throw Error(Fault::Usage, "no bundle is named").hint("wtool sign show BUNDLE");
  if (options.paths.empty())
    throw Error(Fault::Usage, "no model is named").hint("'wtool help sign' shows the options");
  return sign(options, context);
}

Action bind(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  app.add_option("MODEL", o.paths, "a file or a folder to sign; or: show BUNDLE");
  app.add_option("--key", o.signer.key, "the private key: PEM, P-256, P-384 or P-521")
      ->option_text("FILE");
  add_passphrase_options(app, o.signer.passphrase);
  app.add_option("--cert", o.signer.certificate,
                 "sign as the holder of this certificate, not as a key")
      ->option_text("FILE");
  app.add_option("--chain", o.signer.chain, "certificates between --cert and its root; repeatable")
      ->option_text("FILE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("-o,--output", o.output, "the signature; else MODEL/model.sig or MODEL.sig")
      ->option_text("OUTPUT");
  app.add_flag("-f,--force", o.force, "replace what is there");
  app.add_flag("-n,--dry-run", o.dry_run, "say what would be signed, sign nothing");
  app.add_option("--ignore", o.scope.ignore, "a file or folder that is not signed; repeatable")
      ->option_text("FILE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--sign-git-files", o.scope.sign_git,
               "also .git, .gitattributes, .github and .gitignore");
  app.add_option("--method", o.scope.method, "digests of whole files, or of shards of each")
      ->option_text("files|shards")
      ->check(CLI::IsMember({"files", "shards"}));
  app.add_option("--shard-size", o.scope.shard_size, "bytes in a shard (1 GB)")
      ->option_text("SIZE");
  app.add_option("--reuse", o.reuse, "read only what has changed since this older signature")
      ->option_text("BUNDLE");
  app.add_option("--digests", o.digests, "read nothing: sign the digests in this list")
      ->option_text("LIST");
  app.add_option("--compat", o.compat, "names and order as another tool has them: model-signing")
      ->option_text("TOOL")
      ->check(CLI::IsMember({"model-signing"}));
  app.add_option("--new-key", o.new_key, "make a key: BASE.pem and BASE.pub.pem")
      ->option_text("BASE");
  app.add_option("--curve", o.curve, "of the new key: P-256 (default), P-384 or P-521")
      ->option_text("NAME");
  app.add_flag("--encrypt", o.encrypt, "ask for a passphrase for the new key");
  app.footer("example:\n  wtool sign model/ --key me.pem\n");
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace

extern const Command kSign;
const Command kSign{"sign", "sign a model; verify --key checks it", bind};

}  // namespace wtool
