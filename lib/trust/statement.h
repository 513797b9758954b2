#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/trust/digest.h"

namespace wtool {

enum class HashType : std::uint8_t { Sha256, Blake2b };
std::string_view name_of(HashType type) noexcept;  // "sha256", "blake2b"

// One file, or a range of its bytes, and the digest it has.
struct Resource {
  std::string path;         // below the model's folder, '/' between parts; "." is a lone file
  std::uint64_t begin = 0;  // of shards only
  std::optional<std::uint64_t> end = {};  // none: the whole file, whatever its size
  std::string digest;                     // lower-case hexadecimal
};

// What a model signature says (in-toto Statement v1 with the predicate of OpenSSF Model Signing,
// 1.x, or of the reference's version 0.2).
struct Statement {
  enum class Method : std::uint8_t { Files, Shards };
  std::string predicate_type;
  std::string subject;  // the model's name when it was signed: for people
  Method method = Method::Files;
  HashType hash = HashType::Sha256;
  std::uint64_t shard_size = 0;  // Shards
  bool allow_symlinks = false;
  std::optional<std::vector<std::string>> ignore_paths;  // none: not recorded, before 1.1
  std::vector<Resource> resources;
  std::string root;  // the digest over all of theirs; write_statement() finds it
  std::vector<std::string> ignored_fields;  // names of fields that were passed over

  bool from_v02() const noexcept;
};

inline constexpr std::string_view kPredicateType = "https://model_signing/signature/v1.0";
inline constexpr std::string_view kPredicateV02 = "https://model_signing/Digests/v0.1";
inline constexpr std::uint64_t kDefaultShardSize = 1'000'000'000;

// Why a path cannot be one of a signed model: leads out of it, or is written in a second way.
std::optional<std::string> unfit_name(std::string_view path);
// True if `path` is `ignored` or lies below it.
bool lies_in(std::string_view path, std::string_view ignored) noexcept;

// Throws BadFile for what breaks the rules: names that lead out of the model, a resource twice,
// ranges with a gap, a root digest that is not that of the resources. Throws Unsupported for other
// predicates, methods and hash algorithms.
Statement parse_statement(std::string text);

// Where the reference implementation (model-signing, in Python) departs from the specification.
// Verifiers take both.
enum class Dialect : std::uint8_t {
  Standard,   // resources sorted by name, as bytes; a shard's algorithm is "sha256"
  Reference,  // by the parts of paths, then by place; "sha256-sharded-1000"
};

// As the specification's own examples are: compact, resources and ignored paths sorted. The same
// model gives the same text.
std::string write_statement(Statement statement, Dialect dialect = Dialect::Standard);

}  // namespace wtool
