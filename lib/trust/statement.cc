#include "lib/trust/statement.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "lib/base/hex.h"
#include "lib/base/text.h"
#include "lib/trust/json_object.h"

namespace wtool {
namespace {

constexpr std::string_view kStatementType = "https://in-toto.io/Statement/v1";
constexpr std::string_view kPredicateV1 = "https://model_signing/signature/v1.";

Error bad(std::string text) {
  return Error(Fault::BadFile, std::move(text));
}

std::size_t digest_bytes(HashType type) noexcept {
  return type == HashType::Sha256 ? 32 : 64;
}

// root_digest(), of digests that may be longer.
Sha256 root_of(const std::vector<Resource>& resources) {
  Sha256Stream stream;
  for (const Resource& r : resources) stream.update(as_bytes(from_hex(r.digest).value_or("")));
  return stream.finish();
}

// Python writes 1000.0: protobuf's numbers are floating-point.
std::uint64_t whole_number(JsonReader& in, std::string_view what) {
  if (in.peek() != JsonReader::Kind::Number) throw bad(fmt::format("{} is no number", what));
  std::uint64_t value = 0;
  if (in.unsigned_integer(value)) return value;
  std::string_view text = in.number();
  const std::string_view written = text;
  if (const auto dot = text.find('.'); dot != text.npos)
    if (text.find_first_not_of('0', dot + 1) == text.npos) text = text.substr(0, dot);
  const auto n = parse_u64(text);
  if (!n) throw bad(fmt::format("{} is {}, not a whole number", what, written));
  return *n;
}

// "path:begin:end", read from the right: a path may have colons.
void split_range(Resource& r) {
  const auto number = [&]() -> std::uint64_t {
    const auto colon = r.path.rfind(':');
    const auto n = colon == std::string::npos
                       ? std::nullopt
                       : parse_u64(std::string_view(r.path).substr(colon + 1));
    if (!n || (r.path[colon + 1] == '0' && colon + 2 != r.path.size()))
      throw bad(fmt::format("resource {} is no 'path:begin:end'", quoted(r.path)));
    r.path.resize(colon);
    return *n;
  };
  r.end = number();
  r.begin = number();
}

class StatementReader {
 public:
  explicit StatementReader(std::string& text) : in_(text), whole_(text) {}

  Statement read() {
    find_predicate_type();
    const auto pass_over = [&](std::string_view name) { out_.ignored_fields.emplace_back(name); };
    read_object(in_, "the statement",
                {{"_type", true, [&] { type(); }},
                 {"subject", true, [&] { read_list(in_, "'subject'", [&] { subject(); }); }},
                 {"predicateType", true, [&] { read_text(in_, "'predicateType'"); }},
                 {"predicate", true,
                  [&] {
                    if (out_.from_v02())
                      in_.skip();
                    else
                      predicate();
                  }}},
                pass_over);
    in_.finish();
    if (!out_.from_v02()) check_root();
    if (out_.resources.empty()) throw bad("the statement lists no files");
    settle_names();
    check_twice();
    check_ignored();
    return std::move(out_);
  }

 private:
  // First of all, because it decides what the rest means. A reader of its own: ours has not begun.
  void find_predicate_type() {
    std::string copy(whole_);
    JsonReader ahead(copy);
    read_object(ahead, "the statement",
                {{"predicateType", true,
                  [&] { out_.predicate_type = read_text(ahead, "'predicateType'"); }}},
                [](std::string_view) {});
    const std::string_view type = out_.predicate_type;
    const bool v1 = type.starts_with(kPredicateV1) && parse_u64(type.substr(kPredicateV1.size()));
    if (!v1 && type != kPredicateV02)
      throw Error(
          Fault::Unsupported,
          fmt::format("the statement's predicate is {}, not a model signature's", quoted(type)));
  }

  void type() {
    if (const std::string type = read_text(in_, "'_type'"); type != kStatementType)
      throw Error(Fault::Unsupported, fmt::format("the statement's type is {}, not '{}'",
                                                  quoted(type), kStatementType));
  }

  void subject() {
    Resource r;
    std::string algorithm;
    const auto ignore = [](std::string_view) {};
    read_object(in_, "a subject",
                {{"name", true, [&] { r.path = read_text(in_, "a subject's name"); }},
                 {"digest", true,
                  [&] {
                    read_object(in_, "a subject's digest",
                                {{"sha256", true,
                                  [&] { r.digest = read_text(in_, "a subject's 'sha256'"); }}},
                                ignore);
                  }},
                 {"annotations", false,
                  [&] {
                    read_object(in_, "a subject's annotations",
                                {{"actual_hash_algorithm", false,
                                  [&] { algorithm = read_text(in_, "'actual_hash_algorithm'"); }}},
                                ignore);
                  }}},
                ignore);
    if (r.path.empty()) throw bad("a subject's name is empty");
    if (!is_hex(r.digest, 32))
      throw bad(fmt::format("subject {}: its 'sha256' is {}, not 64 hexadecimal digits",
                            quoted(r.path), quoted(r.digest)));
    if (!out_.from_v02()) {
      if (!out_.subject.empty()) throw bad("the statement has more than one subject");
      out_.subject = std::move(r.path);
      out_.root = std::move(r.digest);
      return;
    }
    if (algorithm != "file-sha256")
      throw Error(Fault::Unsupported, fmt::format("unsupported hash algorithm {} (of {})",
                                                  quoted(algorithm), quoted(r.path)));
    out_.resources.push_back(std::move(r));
  }

  void predicate() {
    read_object(in_, "the predicate",
                {{"resources", true, [&] { read_list(in_, "'resources'", [&] { resource(); }); }},
                 {"serialization", true, [&] { serialization(); }}},
                [&](std::string_view name) {
                  out_.ignored_fields.push_back("predicate." + std::string(name));
                });
  }

  // What the fields mean, 'serialization' says, which may come later.
  void resource() {
    Resource r;
    std::string algorithm;
    read_object(
        in_, "a resource",
        {{"name", true, [&] { r.path = read_text(in_, "a resource's name"); }},
         {"digest", true, [&] { r.digest = read_text(in_, "a resource's digest"); }},
         {"algorithm", true, [&] { algorithm = read_text(in_, "a resource's algorithm"); }}},
        [](std::string_view) {});
    out_.resources.push_back(std::move(r));
    if (algorithms_.empty() || algorithms_.back().first != algorithm)
      algorithms_.emplace_back(std::move(algorithm), out_.resources.size() - 1);
  }

  void serialization() {
    std::string method, hash;
    std::optional<std::uint64_t> shard_size;
    read_object(in_, "'serialization'",
                {{"method", true, [&] { method = read_text(in_, "'method'"); }},
                 {"hash_type", true, [&] { hash = read_text(in_, "'hash_type'"); }},
                 {"allow_symlinks", true, [&] { out_.allow_symlinks = in_.boolean(); }},
                 {"shard_size", false, [&] { shard_size = whole_number(in_, "'shard_size'"); }},
                 {"ignore_paths", false, [&] { ignore_paths(); }}},
                [&](std::string_view name) {
                  out_.ignored_fields.push_back("serialization." + std::string(name));
                });
    if (method != "files" && method != "shards")
      throw Error(Fault::Unsupported, fmt::format("unsupported method {}", quoted(method)));
    out_.method = method == "shards" ? Statement::Method::Shards : Statement::Method::Files;
    if (hash == "blake2b" || hash == "blake2")
      out_.hash = HashType::Blake2b;
    else if (hash != "sha256")
      throw Error(Fault::Unsupported, fmt::format("unsupported hash algorithm {}", quoted(hash)))
          .hint("wtool has sha256 and blake2b");
    if (shard_size.has_value() != (out_.method == Statement::Method::Shards))
      throw bad(fmt::format("method '{}' {} 'shard_size'", method,
                            shard_size ? "does not go with" : "lacks"));
    if (shard_size == std::uint64_t{0}) throw bad("'shard_size' is 0");
    out_.shard_size = shard_size.value_or(0);
  }

  void ignore_paths() {
    out_.ignore_paths.emplace();
    read_list(in_, "'ignore_paths'", [&] {
      std::string path = read_text(in_, "an ignored path");
      if (path.size() > 1 && path.ends_with('/')) path.pop_back();
      if (const auto why = unfit_name(path))
        throw bad(fmt::format("ignored path {} {}", quoted(path), *why));
      out_.ignore_paths->push_back(std::move(path));
    });
  }

  void check_root() {
    if (out_.subject.empty()) throw bad("the statement has no subject");
    for (const Resource& r : out_.resources)
      if (!is_hex(r.digest, digest_bytes(out_.hash)))
        throw bad(fmt::format("resource {}: {} is no {} digest", quoted(r.path), quoted(r.digest),
                              name_of(out_.hash)));
    if (const std::string found = root_of(out_.resources).hex(); found != out_.root)
      throw bad(
          fmt::format("the root digest is {}, but that of the resources is {}", out_.root, found));
  }

  // Python names the algorithm of shards after their size, too.
  bool fits(std::string_view algorithm) const {
    if (algorithm == name_of(out_.hash)) return true;
    if (out_.hash == HashType::Blake2b && algorithm == "blake2") return true;
    if (out_.method != Statement::Method::Shards) return false;
    return algorithm == fmt::format("{}-sharded-{}", name_of(out_.hash), out_.shard_size) ||
           (out_.hash == HashType::Blake2b &&
            algorithm == fmt::format("blake2-sharded-{}", out_.shard_size));
  }

  void settle_names() {
    for (const auto& [algorithm, first] : algorithms_)
      if (!fits(algorithm))
        throw bad(fmt::format("resource {} has algorithm {}, but the statement's is '{}'",
                              quoted(out_.resources[first].path), quoted(algorithm),
                              name_of(out_.hash)));
    for (Resource& r : out_.resources) {
      if (out_.method == Statement::Method::Shards) split_range(r);
      if (r.path == ".") {
        lone_ = true;
        continue;
      }
      if (const auto why = unfit_name(r.path))
        throw bad(fmt::format("resource {} {}", quoted(r.path), *why));
    }
  }

  // Sorted by path and place, each must begin where the one before ended.
  void check_twice() {
    std::vector<const Resource*> sorted;
    for (const Resource& r : out_.resources) sorted.push_back(&r);
    std::ranges::sort(sorted, {}, [](const Resource* r) { return std::tie(r->path, r->begin); });
    const Resource* before = nullptr;
    for (const Resource* r : sorted) {
      const bool same = before && before->path == r->path;
      if (lone_ && before && !same)
        throw bad(fmt::format("the statement lists '.', a lone file, beside {}",
                              quoted(r->path == "." ? before->path : r->path)));
      if (r->end)
        check_range(*r, same ? before : nullptr);
      else if (same)
        throw bad(fmt::format("resource {} is listed twice", quoted(r->path)));
      before = r;
    }
  }

  // `before` is the range of the same file in front of it.
  void check_range(const Resource& r, const Resource* before) const {
    const std::uint64_t from = before ? *before->end : 0;
    if (r.begin != from)
      throw bad(fmt::format("file {}: a range begins at byte {}, where {} was to be",
                            quoted(r.path), r.begin, from));
    if (*r.end <= r.begin || *r.end - r.begin > out_.shard_size)
      throw bad(fmt::format("file {}: the range {} to {} is no shard of {} bytes", quoted(r.path),
                            r.begin, *r.end, out_.shard_size));
    if (before && *before->end - before->begin != out_.shard_size)
      throw bad(
          fmt::format("file {}: the range {} to {} is shorter than a shard of {} bytes, but "
                      "not the last",
                      quoted(r.path), before->begin, *before->end, out_.shard_size));
  }

  void check_ignored() const {
    if (!out_.ignore_paths) return;
    for (const std::string& ignored : *out_.ignore_paths)
      for (const Resource& r : out_.resources)
        if (lies_in(r.path, ignored))
          throw bad(fmt::format("file {} is signed, but {} is to be ignored", quoted(r.path),
                                quoted(ignored)));
  }

  JsonReader in_;
  const std::string whole_;
  Statement out_;
  bool lone_ = false;
  std::vector<std::pair<std::string, std::size_t>> algorithms_;  // each run of equal ones
};

// As the resource's name is written, which is what the order goes by.
std::string written_name(const Resource& r) {
  return r.end ? fmt::format("{}:{}:{}", r.path, r.begin, *r.end) : r.path;
}

// Paths part by part: "a/x" before "a-b", which as bytes comes first.
bool parts_less(std::string_view a, std::string_view b) noexcept {
  const auto rank = [](char c) { return c == '/' ? 0u : 1u + static_cast<unsigned char>(c); };
  return std::ranges::lexicographical_compare(a, b, {}, rank, rank);
}

void sort_resources(std::vector<Resource>& resources, Dialect dialect) {
  const auto in_parts = [](const Resource& x, const Resource& y) {
    return x.path == y.path ? x.begin < y.begin : parts_less(x.path, y.path);
  };
  if (dialect == Dialect::Reference)
    std::ranges::sort(resources, in_parts);
  else if (std::ranges::none_of(resources, [](const Resource& r) { return r.end.has_value(); }))
    std::ranges::sort(resources, {}, &Resource::path);
  else  // byte 1000 before byte 200: it is a text
    std::ranges::sort(resources, {}, written_name);
}

void append_resources(std::string& out, const Statement& s, Dialect dialect) {
  const bool sharded = s.method == Statement::Method::Shards && dialect == Dialect::Reference;
  const std::string algorithm = sharded
                                    ? fmt::format("{}-sharded-{}", name_of(s.hash), s.shard_size)
                                    : std::string(name_of(s.hash));
  for (std::size_t i = 0; i < s.resources.size(); ++i) {
    const Resource& r = s.resources[i];
    out += i > 0 ? R"(,{"name":)" : R"({"name":)";
    append_json(out, written_name(r));
    out += fmt::format(R"(,"digest":"{}","algorithm":"{}"}})", r.digest, algorithm);
  }
}

}  // namespace

std::string_view name_of(HashType type) noexcept {
  return type == HashType::Sha256 ? "sha256" : "blake2b";
}

bool Statement::from_v02() const noexcept {
  return predicate_type == kPredicateV02;
}

std::optional<std::string> unfit_name(std::string_view path) {
  if (path.empty()) return "is empty";
  if (path.starts_with('/')) return "is absolute";
  if (path.find('\0') != path.npos) return "holds a NUL byte";
  // Elsewhere it stands between folders: what is harmless here may lead out there.
  if (path.find('\\') != path.npos) return "holds a backslash";
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    if (part.empty()) return "has an empty part";
    if (part == "." || part == "..") return fmt::format("has the part '{}'", part);
    at = end + 1;
  }
  return std::nullopt;
}

bool lies_in(std::string_view path, std::string_view ignored) noexcept {
  return path.starts_with(ignored) &&
         (path.size() == ignored.size() || path[ignored.size()] == '/');
}

Statement parse_statement(std::string text) {
  return StatementReader(text).read();
}

std::string write_statement(Statement s, Dialect dialect) {
  const bool shards = s.method == Statement::Method::Shards;
  sort_resources(s.resources, dialect);
  std::string out = fmt::format(R"({{"_type":"{}","subject":[{{"name":)", kStatementType);
  append_json(out, s.subject);
  out += fmt::format(R"(,"digest":{{"sha256":"{}"}}}}],"predicateType":"{}",)",
                     root_of(s.resources).hex(), kPredicateType);
  out += R"("predicate":{"resources":[)";
  append_resources(out, s, dialect);
  out += fmt::format(R"(],"serialization":{{"method":"{}","hash_type":"{}",)",
                     shards ? "shards" : "files", name_of(s.hash));
  if (shards) out += fmt::format(R"("shard_size":{},)", s.shard_size);
  out += fmt::format(R"("allow_symlinks":{},"ignore_paths":[)", s.allow_symlinks);
  if (s.ignore_paths) std::ranges::sort(*s.ignore_paths);
  const std::vector<std::string> none, &ignored = s.ignore_paths ? *s.ignore_paths : none;
  for (std::size_t i = 0; i < ignored.size(); ++i) {
    if (i > 0) out += ',';
    append_json(out, ignored[i]);
  }
  return out + "]}}}";
}

}  // namespace wtool
