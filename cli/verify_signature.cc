#include <algorithm>
#include <filesystem>
#include <map>
#include <unordered_map>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/signature.h"
#include "cli/signature_verdict.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/trust/certificate.h"
#include "lib/trust/model_files.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kLargestPem = std::uint64_t{16} << 20;

using Answer = FileVerdict::Answer;

// A signed file: its whole digest, or those of its shards in order.
struct SignedFile {
  std::string name;
  std::vector<const Resource*> parts;
  std::string path = {};  // to open
  std::uint64_t bytes = 0;
  std::size_t verdict = 0;  // its index among them
};

// The signature over the payload, in today's form or in that of version 0.2, whose statements alone
// may be signed that way.
bool signature_holds(const PublicKey& key, const Bundle& b, const Statement* v02 = nullptr) {
  if (!v02) return key.verifies(as_bytes(signed_text(b.payload_type, b.payload)), b.signature);
  return v02->from_v02() && key.verifies(as_bytes(signed_text_v02(b.payload_type, b.payload)),
                                         b.signature, PublicKey::Digest::Sha256);
}

bool signed_by(const PublicKey& key, const Bundle& b) {
  if (signature_holds(key, b)) return true;
  if (b.payload.find(kPredicateV02) == std::string::npos) return false;
  try {
    const Statement statement = parse_statement(b.payload);
    return signature_holds(key, b, &statement);
  } catch (const Error&) {
    return false;  // not even signed, so its faults do not matter
  }
}

class SignatureCheck {
 public:
  // Of a file whose bytes are in hand, `content` is these.
  SignatureCheck(const SignatureOptions& options, std::string model, const Context& context,
                 SourcePtr content = {})
      : options_(options),
        model_(std::move(model)),
        context_(context),
        content_(std::move(content)) {
    path_ = options.signature.empty() ? default_signature(model_) : options.signature;
  }

  SignatureVerdict run() && {
    check_options();
    bundle_ = read_bundle(path_);
    verdict_.model = model_;
    verdict_.signature = path_;
    verdict_.kind = bundle_.kind;
    if (check_signer()) check_contents();
    if (verdict_.reason.empty() && bundle_.kind == Bundle::Kind::Keyless && !options_.allow_keyless)
      verdict_.fail("keyless",
                    "unverified: keyless: the files are those in the bundle, but who "
                    "signed it was not verified");
    return std::move(verdict_);
  }

 private:
  void check_options() const {
    if (!options_.key.empty() && !options_.ca.empty())
      throw Error(Fault::Usage, "either --key or --ca, not both");
    if (options_.ca.empty() && !(options_.subject.empty() && options_.fingerprint.empty()))
      throw Error(Fault::Usage, "--subject and --fingerprint go with --ca");
    std::error_code failed;
    if (!fs::exists(model_, failed)) throw Error(Fault::Io, "is not there").in(model_);
  }

  // The key or certificate is the expected one, and its signature holds.
  bool check_signer() {
    if (bundle_.kind == Bundle::Kind::Keyless) return check_keyless();
    if (options_.key.empty() && options_.ca.empty())
      throw Error(Fault::Usage, fmt::format("nothing to verify with: it is signed with a {}",
                                            name_of(bundle_.kind)))
          .in(path_)
          .hint(bundle_.kind == Bundle::Kind::Key ? "--key PUBLIC-KEY" : "--ca ROOT-CERTIFICATE");
    if (!options_.key.empty()) return check_key();
    return check_certificate();
  }

  bool check_key() {
    const PublicKey key =
        PublicKey::from_pem(read_small_file(options_.key, kLargestPem, "a key"), options_.key);
    const std::string hint = key.hint();
    verdict_.signer = fmt::format("key {} ({})", hint, name_of(key.curve()));
    verdict_.facts = {{"key", hint}, {"curve", std::string(name_of(key.curve()))}};
    if (bundle_.kind != Bundle::Kind::Key)
      return verdict_.fail("wrong-key", "signed with a certificate, not with a bare key: --ca");
    if (!bundle_.hint.empty() && !key.has_hint(bundle_.hint))
      return verdict_.fail("wrong-key", fmt::format("signed with another key: {}, not {}",
                                                    printable(bundle_.hint), hint));
    if (!signed_by(key, bundle_))
      return verdict_.fail("bad-signature",
                           bundle_.hint.empty()
                               ? "bad signature: changed since it was signed, or by another key"
                               : "bad signature: changed since it was signed");
    if (bundle_.hint.empty())
      verdict_.warnings.push_back(fmt::format(
          "{}: written before version 1.1; it does not name its key", printable(path_)));
    return true;
  }

  std::vector<Certificate> certificates() const {
    std::vector<Certificate> out;
    for (const Buffer& der : bundle_.certificates)
      out.push_back(
          Certificate::from_der(der, fmt::format("{}: certificate {}", path_, out.size() + 1)));
    return out;
  }

  // Some certificates, such as Sigstore's, have no subject but alternative names.
  static std::string holder(const Certificate& leaf) {
    const auto names = leaf.names();
    return leaf.subject().empty() && !names.empty() ? names[0] : leaf.subject();
  }

  void describe(const Certificate& leaf) {
    verdict_.signer = fmt::format("certificate {} (issued by {})", printable(holder(leaf)),
                                  printable(leaf.issuer()));
    verdict_.facts = {{"name", holder(leaf)},          {"subject", leaf.subject()},
                      {"issuer", leaf.issuer()},       {"not_before", leaf.not_before()},
                      {"not_after", leaf.not_after()}, {"fingerprint", leaf.fingerprint()}};
  }

  bool check_certificate() {
    std::vector<Certificate> anchors;
    for (const std::string& file : options_.ca)
      std::ranges::move(
          Certificate::from_pem(read_small_file(file, kLargestPem, "certificates"), file),
          std::back_inserter(anchors));
    if (bundle_.kind != Bundle::Kind::Certificate)
      return verdict_.fail("wrong-key", "signed with a bare key, not with a certificate: --key");
    const std::vector<Certificate> chain = certificates();
    describe(chain[0]);
    if (!signed_by(chain[0].key(), bundle_))
      return verdict_.fail("bad-signature", "bad signature: changed since it was signed");
    if (const auto why = chain_fault(chain, anchors, options_.allow_expired))
      return verdict_.fail("untrusted", "its certificate cannot be trusted: " + printable(*why));
    return check_identity(chain[0]);
  }

  bool check_identity(const Certificate& leaf) {
    if (!options_.subject.empty()) {
      auto names = leaf.names();
      names.push_back(leaf.subject());
      if (std::ranges::find(names, options_.subject) == names.end())
        return verdict_.fail(
            "wrong-identity",
            fmt::format("signed by {}, not by {}", quoted(holder(leaf)), quoted(options_.subject)));
    }
    if (!options_.fingerprint.empty()) {
      std::string wanted = lower(options_.fingerprint);
      std::erase(wanted, ':');
      if (wanted.starts_with("sha256")) wanted.erase(0, 6);
      if (!parse_sha256(wanted))
        throw Error(Fault::Usage, fmt::format("--fingerprint: {} is not 64 hexadecimal digits",
                                              quoted(options_.fingerprint)));
      if (wanted != leaf.fingerprint())
        return verdict_.fail("wrong-identity", fmt::format("signed by the certificate {}, not {}",
                                                           leaf.fingerprint(), wanted));
    }
    if (options_.subject.empty() && options_.fingerprint.empty())
      verdict_.warnings.push_back(
          "any certificate that the root vouches for is taken: --subject "
          "or --fingerprint say whose it must be");
    return true;
  }

  // Who signed it, only Sigstore's logs could tell. That the bundle is whole, its own certificate
  // does.
  bool check_keyless() {
    const std::vector<Certificate> chain = certificates();
    describe(chain[0]);
    if (!options_.key.empty() || !options_.ca.empty())
      return verdict_.fail("wrong-key", fmt::format("signed keyless, with Sigstore, not with a {}",
                                                    options_.key.empty() ? "certificate" : "key"));
    if (!signed_by(chain[0].key(), bundle_))
      return verdict_.fail("bad-signature", "bad signature: changed since it was signed");
    return true;
  }

  void check_contents() {
    try {
      statement_ = parse_statement(bundle_.payload);
    } catch (Error& e) {
      throw e.in(path_);
    }
    for (const std::string& field : statement_.ignored_fields)
      verdict_.warnings.push_back(fmt::format("{}: unknown field {} has been passed over",
                                              printable(path_), quoted(field)));
    group();
    warn_of_ignored();
    std::error_code ignored;
    if (!content_ && fs::is_directory(model_, ignored))
      match_folder();
    else
      match_file();
    keep_only();
    const bool names_and_sizes_match = std::ranges::all_of(
        verdict_.files, [](const FileVerdict& f) { return f.answer == Answer::Unread; });
    if (names_and_sizes_match || options_.keep_going) hash();
    judge();
  }

  // The signer has decided what may change; whoever trusts the signature should know.
  void warn_of_ignored() {
    std::string all;
    std::error_code failed;
    for (const std::string& path : statement_.ignore_paths.value_or(std::vector<std::string>()))
      if (std::ranges::find(git_paths(), path) == git_paths().end() &&
          name_below(model_, path_) != path &&
          fs::exists(fs::symlink_status(fs::path(model_) / path, failed)))
        all += (all.empty() ? "" : ", ") + printable(path);
    if (!all.empty()) verdict_.warnings.push_back("the signature leaves out: " + all);
  }

  void group() {
    std::map<std::string, std::vector<const Resource*>> by_name;
    for (const Resource& r : statement_.resources) by_name[r.path].push_back(&r);
    for (auto& [name, parts] : by_name) {
      std::ranges::sort(parts, {}, &Resource::begin);
      files_.push_back({name, std::move(parts)});
    }
    verdict_.signed_files = files_.size();
  }

  FileVerdict& add(std::string name, Answer answer, std::string detail) {
    return verdict_.files.emplace_back(FileVerdict{std::move(name), answer, std::move(detail)});
  }

  // A lone file, under the name "." (the Python reference) or its own (the specification).
  void match_file() {
    const std::string own = fs::path(model_).filename().native();
    if (files_.size() > 1) {
      verdict_.fail("contents",
                    fmt::format("the signature is of {} files: give their folder, and --only {} "
                                "for this one",
                                files_.size(), printable(own)));
      return files_.clear();
    }
    const bool fits = files_[0].name == "." || files_[0].name == own;
    if (!fits) {
      for (const SignedFile& f : files_) add(f.name, Answer::Missing, "is not there");
      if (!options_.ignore_unsigned) add(own, Answer::Extra, "is not signed");
      files_.clear();
      return;
    }
    std::error_code failed;
    ModelFile found{own, ModelFile::Kind::File,
                    content_ ? content_->size() : fs::file_size(model_, failed)};
    if (failed) found.kind = ModelFile::Kind::Other;
    match(files_[0], found, model_);
  }

  void match_folder() {
    if (files_.size() == 1 && files_[0].name == ".")
      throw Error(Fault::Usage, "is a folder, but the signature is of a single file")
          .in(model_)
          .hint("give the file itself");
    const std::vector<ModelFile> found = files_of_model(model_, ignored_paths());
    std::unordered_map<std::string_view, const ModelFile*> by_name;
    for (const ModelFile& f : found) by_name.emplace(f.name, &f);
    for (SignedFile& f : files_) {
      const auto it = by_name.find(f.name);
      if (it == by_name.end()) {
        add(f.name, Answer::Missing, "is not there");
        f.parts.clear();
        continue;
      }
      match(f, *it->second, (fs::path(model_) / f.name).native());
      by_name.erase(it);
    }
    std::string empty;
    for (const ModelFile& f : found) {
      if (!by_name.contains(f.name)) continue;
      const bool zero = f.kind == ModelFile::Kind::File && f.bytes == 0 &&
                        statement_.method == Statement::Method::Shards;
      if (zero)
        empty += (empty.empty() ? "" : ", ") + printable(f.name);
      else if (!options_.ignore_unsigned)
        add(f.name, Answer::Extra,
            f.kind == ModelFile::Kind::FolderLink ? "is a link to a folder: nothing behind it is "
                                                    "signed"
                                                  : "is not signed");
    }
    if (!empty.empty())
      verdict_.warnings.push_back(
          "shards do not cover empty files; nobody can tell whether these "
          "were signed: " +
          empty);
  }

  std::vector<std::string> ignored_paths() const {
    const auto covers = [&](const std::string& path) {
      return std::ranges::any_of(files_,
                                 [&](const SignedFile& f) { return lies_in(f.name, path); });
    };
    std::vector<std::string> out;
    if (statement_.ignore_paths) {
      out = *statement_.ignore_paths;
    } else {
      for (const std::string& path : git_paths())
        if (!covers(path)) out.push_back(path);
    }
    for (const std::string& typed : options_.ignore) {
      out.push_back(name_in_model(model_, typed));
      if (covers(out.back()))
        throw Error(Fault::Usage, fmt::format("--ignore {}: it is signed", quoted(typed)))
            .hint("--only FILE verifies some of the files");
    }
    if (const auto own = name_below(model_, path_)) out.push_back(*own);
    return out;
  }

  // Everything but the content.
  void match(SignedFile& f, const ModelFile& found, std::string path) {
    f.verdict = verdict_.files.size();
    f.path = std::move(path);
    f.bytes = found.bytes;
    const auto refuse = [&](std::string why) {
      add(f.name, Answer::Changed, std::move(why));
      f.parts.clear();
    };
    using Kind = ModelFile::Kind;
    if (found.kind == Kind::Other || found.kind == Kind::FolderLink)
      return refuse("is no regular file");
    if (found.kind == Kind::Link && !statement_.allow_symlinks)
      return refuse("is a link now, and the signature allows none");
    if (const auto end = f.parts.back()->end; end && *end != found.bytes)
      return refuse(fmt::format("{} bytes instead of {}", found.bytes, *end));
    add(f.name, Answer::Unread, "");
  }

  // --only: those files or folders, and nothing is said about the others.
  void keep_only() {
    if (options_.only.empty()) return;
    std::vector<std::string> wanted;
    for (const std::string& typed : options_.only) {
      wanted.push_back(name_in_model(model_, typed));
      if (std::ranges::none_of(files_,
                               [&](const SignedFile& f) { return lies_in(f.name, wanted.back()); }))
        throw Error(Fault::Usage, fmt::format("--only {}: no such file is signed", quoted(typed)))
            .in(path_)
            .hint("'wtool sign show' lists those that are");
    }
    const auto unwanted = [&](const auto& f) {
      return std::ranges::none_of(wanted, [&](const std::string& w) { return lies_in(f.name, w); });
    };
    std::erase_if(files_, unwanted);
    verdict_.warnings.push_back(fmt::format("only {} of {} signed files are looked at",
                                            files_.size(), verdict_.signed_files));
    std::erase_if(verdict_.files, unwanted);
    for (SignedFile& f : files_)
      f.verdict = static_cast<std::size_t>(
          std::ranges::find(verdict_.files, f.name, &FileVerdict::name) - verdict_.files.begin());
  }

  void hash() {
    struct Part {
      const SignedFile* file;
      const Resource* resource;
    };
    std::vector<Part> parts;
    ResourceJob job;
    for (const SignedFile& f : files_) {
      if (!f.parts.empty()) job.total_bytes += f.bytes;
      for (const Resource* r : f.parts) parts.push_back({&f, r});
    }
    job.count = parts.size();
    std::vector<SourcePtr> open(parts.size());
    job.extent = [&](std::size_t i) -> Extent {
      const auto& [file, resource] = parts[i];
      open[i] = content_ ? content_ : open_file(file->path);
      if (open[i]->size() != file->bytes)
        throw Error(Fault::Io, "changed while reading").in(file->path);
      if (!resource->end) return {open[i], 0, file->bytes};
      return {open[i], resource->begin, *resource->end - resource->begin};
    };
    job.take = [&](std::size_t i, const std::string* digest, const Error* error) {
      const auto& [file, resource] = parts[i];
      FileVerdict& v = verdict_.files[file->verdict];
      std::optional<Error> fault;
      if (error) fault = *error;
      try {
        if (digest) open[i]->check_unchanged();
      } catch (const Error& e) {
        fault = e;
      }
      open[i].reset();
      if (fault)
        take_error(v, *fault);
      else
        take_digest(v, *resource, *digest);
    };
    Progress progress(*context_.common, "verify", "bytes");
    RunOptions run = context_.run;
    run.progress = progress.callback();
    hash_each(statement_.hash, job, run);
    for (const SignedFile& f : files_)
      if (!f.parts.empty()) verdict_.bytes += f.bytes;
  }

  void take_error(FileVerdict& v, const Error& error) {
    v.answer = Answer::Error;
    v.detail = error.what();
    verdict_.code = worst(verdict_.code, exit_code_of(error.fault()));
  }

  static void take_digest(FileVerdict& v, const Resource& r, const std::string& digest) {
    if (v.answer == Answer::Error || v.answer == Answer::Changed) return;
    v.answer = digest == r.digest ? Answer::Ok : Answer::Changed;
    if (v.answer == Answer::Ok) return;
    v.detail = r.end ? fmt::format("bytes {} to {} differ", r.begin, *r.end) : "its bytes differ";
    v.expected = r.digest;
    v.found = digest;
  }

  void judge() {
    std::ranges::stable_sort(verdict_.files, {}, &FileVerdict::name);
    std::string all;
    for (const Answer a : {Answer::Changed, Answer::Missing, Answer::Extra, Answer::Error})
      if (const std::size_t n = verdict_.count(a))
        all += fmt::format("{}{} {}", all.empty() ? "" : ", ", n, lower(word(a)));
    if (all.empty()) return;
    if (const std::size_t n = verdict_.count(Answer::Unread))
      all += fmt::format(", {} not read", n);
    // What could not be read may still be what was signed.
    const bool unread = verdict_.count(Answer::Error) > 0 &&
                        verdict_.count(Answer::Changed) + verdict_.count(Answer::Missing) +
                                verdict_.count(Answer::Extra) ==
                            0;
    if (unread) verdict_.fail("unreadable", "not all files can be read: " + all);
    verdict_.fail("contents", "the files are not those that were signed: " + all);
  }

  const SignatureOptions& options_;
  const std::string model_;
  const Context& context_;
  const SourcePtr content_;
  std::string path_;
  Bundle bundle_;
  Statement statement_;
  std::vector<SignedFile> files_;
  SignatureVerdict verdict_;
};

}  // namespace

ExitCode verify_signature(const SignatureOptions& options, const std::string& model,
                          const Context& context) {
  const SignatureVerdict verdict = SignatureCheck(options, model, context).run();
  for (const std::string& w : verdict.warnings) warn(w);
  if (context.common->json)
    verdict.write_json();
  else
    verdict.print();
  return verdict.code;
}

SignatureVerdict signature_of(const SignatureOptions& options, const std::string& path,
                              const SourcePtr& content, const Context& context) {
  return SignatureCheck(options, path, context, content).run();
}

}  // namespace wtool
