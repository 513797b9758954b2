// Digests that a signature gets without reading the files: from an older signature, or from a list.
#include <algorithm>
#include <filesystem>
#include <map>
#include <unordered_map>

#include <fmt/format.h>

#include "cli/digest_list.h"
#include "cli/sign_job.h"
#include "cli/signature.h"
#include "cli/terminal.h"
#include "lib/base/listing.h"
#include "lib/base/text.h"
#include "lib/trust/certificate.h"

namespace wtool {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostNamed = 10;

std::string named(const std::vector<std::string>& names) {
  return first_few_names(names, kMostNamed);
}

// The resources of one file after the other; those of a file stand together.
template <class Act>
void for_each_file(SignJob& job, const Act& act) {
  auto& all = job.statement.resources;
  for (auto first = all.begin(); first != all.end();) {
    const auto last =
        std::find_if(first, all.end(), [&](const Resource& r) { return r.path != first->path; });
    act(job.file(first->path), std::span<Resource>(first, last));
    first = last;
  }
}

// The old signature

void check_signer(const Bundle& b, const PublicKey& key) {
  const auto other = [](const std::string& whose) {
    return Error(Fault::Usage, "is signed " + whose)
        .hint("--reuse takes what the same key has signed, and nothing else");
  };
  if (b.kind == Bundle::Kind::Keyless) throw other("keyless, with Sigstore");
  if (b.kind == Bundle::Kind::Certificate) {
    const Certificate leaf = Certificate::from_der(b.certificates[0], "its certificate");
    if (leaf.key().pem() != key.pem())
      throw other("with another key, that of " + printable(leaf.subject()));
  } else if (!b.hint.empty() && !key.has_hint(b.hint)) {
    throw other(fmt::format("with another key: {}, not {}", printable(b.hint), key.hint()));
  }
  if (!key.verifies(as_bytes(signed_text(b.payload_type, b.payload)), b.signature))
    throw Error(Fault::BadFile, "bad signature: changed since it was signed, or by another key");
}

std::string_view word(Statement::Method method) noexcept {
  return method == Statement::Method::Shards ? "shards" : "files";
}

void check_form(const Statement& old, const Statement& now) {
  const auto refuse = [](std::string why) { return Error(Fault::Usage, std::move(why)); };
  if (old.from_v02()) throw refuse("is of version 0.2, whose digests mean something else");
  if (old.subject != now.subject)
    throw refuse(fmt::format("is of {}, not of {}", quoted(old.subject), quoted(now.subject)))
        .hint("without --reuse all files are read");
  if (old.hash != now.hash)
    throw refuse(fmt::format("its digests are {}, not {}", name_of(old.hash), name_of(now.hash)));
  if (old.method != now.method)
    throw refuse(
        fmt::format("its digests are of {}, not of {}", word(old.method), word(now.method)))
        .hint(fmt::format("--method {}", word(old.method)));
  if (old.shard_size != now.shard_size)
    throw refuse(
        fmt::format("its shards are of {} bytes, not of {}", old.shard_size, now.shard_size))
        .hint(fmt::format("--shard-size {}", old.shard_size));
}

// Whether what lies in a folder may have come there with it: it, or one above it, was moved.
class Folders {
 public:
  Folders(const SignJob& job, const FileState& signature) : signature_(signature) {
    std::error_code failed;
    root_ = fs::canonical(job.model, failed);
    if (!job.folder) root_ = root_.parent_path();
    for (fs::path p = root_; !moved_; p = p.parent_path()) {
      moved_ = look(p);
      if (p == p.parent_path()) break;
    }
  }
  bool moved(const std::string& file) {
    if (moved_) return true;
    for (auto end = file.find('/'); end != std::string::npos; end = file.find('/', end + 1)) {
      const auto [it, fresh] = seen_.try_emplace(file.substr(0, end));
      if (fresh) it->second = look(root_ / it->first);
      if (it->second) return true;
    }
    return false;
  }

 private:
  bool look(const fs::path& folder) const try {
    const auto state = state_of(folder.native());
    return !state || may_have_moved(*state, signature_);
  } catch (const Error&) {
    return true;  // who knows
  }
  const FileState& signature_;
  fs::path root_;
  bool moved_ = false;
  std::map<std::string, bool> seen_;
};

FileState state_of_signature(const std::string& path) {
  const auto state = state_of(path);
  if (!state) throw Error(Fault::Io, "is not there").in(path);
  if (state->kind != FileState::Kind::File)
    throw Error(Fault::Usage, "is no regular file, and its time is what --reuse goes by").in(path);
  if (begun(*state) > now_ns())
    throw Error(Fault::Usage, "is from the future, so its time tells nothing").in(path);
  return *state;
}

Statement old_statement(const std::string& path, const PublicKey& key, const Statement& now) {
  const Bundle bundle = read_bundle(path);
  try {
    check_signer(bundle, key);
    Statement old = parse_statement(bundle.payload);
    check_form(old, now);
    return old;
  } catch (Error& e) {
    throw e.in(path);
  }
}

// The list

struct Listed {
  std::string name;
  Sha256 digest;
  std::optional<std::uint64_t> bytes = {};
};

Error bad(std::string text) {
  return Error(Fault::BadFile, std::move(text));
}

std::vector<Listed> read_digests(const std::string& path) {
  DigestList list = read_digest_list(path);
  std::vector<Listed> out;
  if (list.manifest)
    for (ManifestFile& f : list.manifest->files)
      out.push_back({std::move(f.name), f.digest, f.bytes});
  for (Checksum& c : list.checksums) {
    if (c.name.empty()) throw bad("is a digest without a name").in(path);
    out.push_back({std::move(c.name), c.digest});
  }
  return out;
}

// Names in a list are seen from its own folder; we want them as seen from the model's.
class NamesInModel {
 public:
  NamesInModel(const SignJob& job, const std::string& list)
      : job_(job),
        root_(fs::canonical(job.model, failed_)),
        base_(fs::weakly_canonical(fs::absolute(list), failed_).parent_path()) {}

  std::optional<std::string> operator()(const std::string& name) {
    const fs::path full = (base_ / name).lexically_normal();
    if (auto found = below(full)) return found;
    return below(fs::weakly_canonical(full.parent_path(), failed_) / full.filename());
  }

 private:
  std::optional<std::string> below(const fs::path& path) {
    if (!job_.folder)
      return path == root_ || fs::weakly_canonical(path, failed_) == root_
                 ? std::optional(job_.files[0].name)
                 : std::nullopt;
    const fs::path name = path.lexically_relative(root_);
    if (name.empty() || name == "." || *name.begin() == "..") return std::nullopt;
    return name.generic_string();
  }
  const SignJob& job_;
  std::error_code failed_;
  const fs::path root_, base_;
};

// Both ways: every file of the model in the list, and nothing else in it.
std::unordered_map<std::string, Listed> match_list(const SignJob& job, const std::string& list) {
  std::unordered_map<std::string, Listed> out;
  std::vector<std::string> strangers, ignored;
  const std::vector<std::string> ignored_paths =
      job.statement.ignore_paths.value_or(std::vector<std::string>());
  const auto is_ours = [&](const std::string& name) {
    const auto it = std::ranges::lower_bound(job.files, name, {}, &ModelFile::name);
    return it != job.files.end() && it->name == name;
  };
  NamesInModel name_of_file(job, list);
  for (Listed& one : read_digests(list)) {
    const auto name = name_of_file(one.name);
    if (name && is_ours(*name)) {
      if (!out.emplace(*name, one).second)
        throw bad(fmt::format("file {} is listed twice", quoted(one.name))).in(list);
    } else if (name && std::ranges::any_of(ignored_paths, [&](const std::string& path) {
                 return lies_in(*name, path);
               })) {
      ignored.push_back(*name);
    } else {
      strangers.push_back(one.name);
    }
  }
  if (!strangers.empty())
    throw Error(Fault::Usage,
                fmt::format("lists what is not in {}: {}", quoted(job.model), named(strangers)))
        .in(list)
        .hint("names are seen from the list's own folder");
  if (!ignored.empty()) note("listed, but not signed: " + named(ignored));
  return out;
}

void check_complete(const SignJob& job, const std::unordered_map<std::string, Listed>& digests,
                    const std::string& list) {
  std::vector<std::string> missing;
  for (const ModelFile& f : job.files)
    if (!digests.contains(f.name)) missing.push_back(f.name);
  if (missing.empty()) return;
  Error error(Fault::Usage, "does not list " + named(missing));
  const auto own = job.folder ? name_below(job.model, list) : std::nullopt;
  if (own && std::ranges::find(missing, *own) != missing.end())
    error.hint(fmt::format("no list holds its own digest: --ignore {} leaves it out", *own));
  throw error.in(list);
}

void check_size(const ModelFile& file, const Listed& listed, const std::string& list) {
  if (listed.bytes && *listed.bytes != file.bytes)
    throw Error(Fault::Usage, fmt::format("says that {} has {} bytes, but it has {}",
                                          quoted(file.name), *listed.bytes, file.bytes))
        .in(list);
  if (file.bytes == 0 && listed.digest != sha256({}))
    throw Error(Fault::Usage,
                fmt::format("{} is empty, but the digest listed is another's", quoted(file.name)))
        .in(list);
}

void warn_of_newer(const SignJob& job, const std::string& list) {
  const auto listed = state_of(list);
  std::vector<std::string> newer;
  for (std::size_t i = 0; listed && i < job.files.size(); ++i)
    if (job.states[i].modified > listed->modified) newer.push_back(job.files[i].name);
  if (!newer.empty()) warn(fmt::format("{} is older than {}", printable(list), named(newer)));
}

}  // namespace

KnownDigests reuse_digests(SignJob& job, const std::string& signature, const PublicKey& key) {
  const FileState made = state_of_signature(signature);
  const Statement old = old_statement(signature, key, job.statement);
  std::map<std::string, std::map<std::uint64_t, const Resource*>, std::less<>> digests;
  for (const Resource& r : old.resources) {
    const bool lone = !job.folder && r.path == ".";
    digests[lone ? job.files[0].name : r.path].emplace(r.begin, &r);
  }
  const bool recorded = records_changes(signature);
  Folders folders(job, made);
  KnownDigests out{signature, {}, {}};
  for_each_file(job, [&](const ModelFile& file, std::span<Resource> parts) {
    const auto it = digests.find(file.name);
    const auto why = [&]() -> std::optional<std::string_view> {
      if (it == digests.end()) return "not in it";
      if (it->second.rbegin()->second->end.value_or(file.bytes) != file.bytes)
        return "of another size";
      if (!recorded) return "the file system may not record changes";
      if (folders.moved(file.name)) return "its folder may have been moved";
      return why_changed(job.states[static_cast<std::size_t>(&file - job.files.data())], made);
    }();
    if (why) return out.others.emplace_back(file.name, *why), void();
    for (Resource& part : parts) part.digest = it->second.at(part.begin)->digest;
    out.files.push_back(file.name);
  });
  return out;
}

KnownDigests take_digests(SignJob& job, const std::string& list) {
  if (job.statement.method != Statement::Method::Files)
    throw Error(Fault::Usage, "--digests has those of whole files, not of shards");
  const std::unordered_map<std::string, Listed> digests = match_list(job, list);
  check_complete(job, digests, list);
  warn_of_newer(job, list);
  KnownDigests out{list, {}, {}};
  for_each_file(job, [&](const ModelFile& file, std::span<Resource> parts) {
    const Listed& listed = digests.at(file.name);
    check_size(file, listed, list);
    parts[0].digest = listed.digest.hex();
    out.files.push_back(file.name);
  });
  return out;
}

}  // namespace wtool
