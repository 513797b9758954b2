#include <algorithm>
#include <filesystem>
#include <memory>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/signature.h"
#include "cli/signer.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/trust/certificate.h"
#include "lib/trust/model_files.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> paths;
  SignerOptions signer;
  std::string new_key, curve, output, method, shard_size;
  std::vector<std::string> ignore;
  bool encrypt = false, force = false, dry_run = false, sign_git = false;
};

// What is going to be signed.
struct Job {
  std::string model, output;
  std::string inside;            // the output's name below the model; "" if it lies elsewhere
  std::vector<ModelFile> files;  // sorted
  Statement statement;           // all but the digests
};

std::string subject_of(const std::string& model) {
  const fs::path path = fs::absolute(model).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().native();
}

// A name must mean the same to everyone who reads the statement.
void check_names(const Job& job) {
  for (const ModelFile& f : job.files) {
    const auto refuse = [&](std::string why) {
      return Error(Fault::Usage, std::move(why)).in((fs::path(job.model) / f.name).native());
    };
    if (f.kind == ModelFile::Kind::Link || f.kind == ModelFile::Kind::FolderLink)
      throw refuse("is a link, which a model signature does not cover")
          .hint("put the file itself there, or leave the link out with --ignore");
    if (f.kind == ModelFile::Kind::Other)
      throw refuse("is no regular file").hint("--ignore leaves it out");
    if (!is_utf8(f.name)) throw refuse("its name is not UTF-8, and a signature can name no other");
    if (const auto why = unfit_name(f.name)) throw refuse("its name " + *why);
  }
  if (job.files.empty()) throw Error(Fault::Usage, "holds no files to sign").in(job.model);
}

std::vector<std::string> ignored_paths(const Options& options, const Job& job, bool folder) {
  std::vector<std::string> out;
  if (!options.sign_git) out = git_paths();
  if (!job.inside.empty()) out.push_back(job.inside);
  for (const std::string& typed : options.ignore) {
    if (!folder) throw Error(Fault::Usage, "--ignore is for a folder").in(job.model);
    out.push_back(name_in_model(job.model, typed));
    std::error_code ignored;
    if (!fs::exists(fs::symlink_status(fs::path(job.model) / out.back(), ignored)))
      throw Error(Fault::Usage, fmt::format("--ignore {}: there is no such file", quoted(typed)))
          .in(job.model);
  }
  std::ranges::sort(out);
  out.erase(std::ranges::unique(out).begin(), out.end());
  return out;
}

std::uint64_t shard_size_of(const Options& options) {
  if (options.shard_size.empty()) return kDefaultShardSize;
  const auto size = parse_size(options.shard_size);
  if (!size || *size == 0)
    throw Error(Fault::Usage,
                fmt::format("--shard-size: {} is no size", quoted(options.shard_size)));
  return *size;
}

Job plan(const Options& options) {
  Job job;
  job.model = options.paths[0];
  std::error_code failed;
  if (!fs::exists(job.model, failed)) throw Error(Fault::Io, "is not there").in(job.model);
  const bool folder = fs::is_directory(job.model, failed);
  if (!folder && !fs::is_regular_file(job.model, failed))
    throw Error(Fault::Usage, "is neither a file nor a folder").in(job.model);
  job.output = options.output.empty() ? default_signature(job.model) : options.output;
  if (folder && job.output != "-") job.inside = name_below(job.model, job.output).value_or("");

  Statement& s = job.statement;
  s.subject = subject_of(job.model);
  s.ignore_paths = ignored_paths(options, job, folder);
  if (options.method == "shards") {
    s.method = Statement::Method::Shards;
    s.shard_size = shard_size_of(options);
  } else if (!options.shard_size.empty()) {
    throw Error(Fault::Usage, "--shard-size goes with --method shards");
  }
  if (folder)
    job.files = files_of_model(job.model, *s.ignore_paths);
  else
    job.files = {{fs::path(job.model).filename().native(), ModelFile::Kind::File,
                  fs::file_size(job.model, failed)}};
  check_names(job);
  for (const ModelFile& f : job.files) {
    if (s.method == Statement::Method::Shards)
      std::ranges::move(shards_of(f.name, f.bytes, s.shard_size), std::back_inserter(s.resources));
    else
      s.resources.push_back({f.name, 0, std::nullopt, {}});
  }
  if (s.resources.empty()) throw Error(Fault::Usage, "holds nothing but empty files").in(job.model);
  return job;
}

void warn_of_empty(const Job& job) {
  if (job.statement.method != Statement::Method::Shards) return;
  std::string empty;
  for (const ModelFile& f : job.files)
    if (f.bytes == 0) empty += (empty.empty() ? "" : ", ") + printable(f.name);
  if (!empty.empty()) warn("shards do not cover empty files: " + empty);
}

void hash(Job& job, const Context& context) {
  std::vector<Resource>& resources = job.statement.resources;
  const bool folder = fs::is_directory(job.model);
  const auto bytes_of = [&](const std::string& name) {
    return std::ranges::lower_bound(job.files, name, {}, &ModelFile::name)->bytes;
  };
  std::vector<SourcePtr> open(resources.size());
  ResourceJob work;
  work.count = resources.size();
  for (const ModelFile& f : job.files) work.total_bytes += f.bytes;
  work.extent = [&](std::size_t i) -> Extent {
    const Resource& r = resources[i];
    const std::string path = folder ? (fs::path(job.model) / r.path).native() : job.model;
    open[i] = open_file(path);
    if (open[i]->size() != bytes_of(r.path))
      throw Error(Fault::Io, "changed while reading").in(path);
    return {open[i], r.begin, r.end.value_or(open[i]->size()) - r.begin};
  };
  work.take = [&](std::size_t i, const std::string* digest, const Error* error) {
    if (error) throw *error;
    open[i]->check_unchanged();
    open[i].reset();
    resources[i].digest = *digest;
  };
  Progress progress(*context.common, "sign", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  hash_each(job.statement.hash, work, run);
}

void write_json(const Options& options, const Job& job, const Bundle& bundle,
                const Certificate* certificate) {
  JsonWriter w(out);
  w.begin_object();
  w.member("schema", "wtool.sign/1");
  w.member("ok", true);
  w.key("inputs");
  w.begin_array();
  w.value(job.model);
  w.end_array();
  w.member("output", job.output);
  w.member("dry_run", options.dry_run);
  w.member("kind", name_of(bundle.kind));
  if (!bundle.hint.empty()) w.member("hint", bundle.hint);
  if (certificate) w.member("subject", certificate->subject());
  w.member("files", std::uint64_t{job.files.size()});
  std::uint64_t bytes = 0;
  for (const ModelFile& f : job.files) bytes += f.bytes;
  w.member("bytes", bytes);
  w.member("resources", std::uint64_t{job.statement.resources.size()});
  w.end_object();
}

void say(const Options& options, const Job& job, const Bundle& bundle) {
  if (options.dry_run)
    for (const ModelFile& f : job.files) out("would sign " + printable(f.name) + "\n");
  std::uint64_t bytes = 0;
  for (const ModelFile& f : job.files) bytes += f.bytes;
  const std::string by =
      bundle.kind == Bundle::Kind::Key
          ? "key " + bundle.hint
          : "certificate " +
                printable(Certificate::from_der(bundle.certificates[0], "it").subject());
  const std::string text =
      fmt::format("{}: {} {} {}, {}, with {}\n", printable(job.output),
                  options.dry_run ? "would sign" : "signed", job.files.size(),
                  job.files.size() == 1 ? "file" : "files", human_bytes(bytes), by);
  if (job.output == "-")
    note(text.substr(0, text.size() - 1));
  else
    out(text);
}

ExitCode sign(const Options& options, const Context& context) {
  if (options.signer.key.empty())
    throw Error(Fault::Usage, "no key to sign with")
        .hint("--key PRIVATE-KEY; 'wtool sign --new-key NAME' makes one");
  if (!options.signer.chain.empty() && options.signer.certificate.empty())
    throw Error(Fault::Usage, "--chain goes with --cert");
  Job job = plan(options);
  if (context.common->json && job.output == "-")
    throw Error(Fault::Usage, "--json and the signature cannot both go to standard output");
  const Signer signer(options.signer);
  const Bundle& bundle = signer.bundle();
  std::optional<Certificate> certificate;
  if (!bundle.certificates.empty())
    certificate = Certificate::from_der(bundle.certificates[0], options.signer.certificate);
  warn_of_empty(job);
  if (!options.dry_run) {
    const auto kind = job.output == "-" ? OutputSet::Kind::Stdout : OutputSet::Kind::File;
    OutputSet output(job.output, kind,
                     options.force ? OutputSet::Existing::Replace : OutputSet::Existing::Refuse);
    const std::size_t file = output.create(job.output, std::nullopt);
    hash(job, context);
    output.append(file, as_bytes(signer.sign(job.statement)));
    output.commit();
  }
  if (context.common->json)
    write_json(options, job, bundle, certificate ? &*certificate : nullptr);
  else
    say(options, job, bundle);
  return ExitCode::Ok;
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
    out(fmt::format("would write {} and {}\n", printable(private_path), printable(public_path)));
  } else {
    out(fmt::format("{}: private {} key, keep it\n{}: public key {}\n", printable(private_path),
                    name_of(*curve), printable(public_path), half.hint()));
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
  app.add_option("--ignore", o.ignore, "a file or folder that is not signed; repeatable")
      ->option_text("FILE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--sign-git-files", o.sign_git, "also .git, .gitattributes, .github and .gitignore");
  app.add_option("--method", o.method, "digests of whole files, or of shards of each")
      ->option_text("files|shards")
      ->check(CLI::IsMember({"files", "shards"}));
  app.add_option("--shard-size", o.shard_size, "bytes in a shard (1 GB)")->option_text("SIZE");
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
