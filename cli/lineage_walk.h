#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "lib/model/lineage.h"

namespace wtool {

struct Ancestry;

// One source that a model's lineage names, and what was found of it.
struct Parent {
  enum class Answer : std::uint8_t {
    Ok,       // here, with the digest that is recorded
    Changed,  // a file of its name is here, and is another
    NotHere,
    Error,  // it cannot be read
  };
  Lineage::Source recorded;
  Answer answer = Answer::NotHere;
  std::string path = {};          // where it was found, or its other
  std::uint64_t found_bytes = 0;  // of its other
  std::string found_sha256 = {};  // likewise; empty if the size told enough
  std::string detail = {};        // for people
  std::string signature = {};  // a file beside it that is named like its signature; not looked at
  std::string same_as = {};    // its own lineage is that of this source
  std::shared_ptr<Ancestry> own = {};  // what it says that it was made from itself
};
std::string_view word(Parent::Answer answer) noexcept;  // "OK", "CHANGED", "NOT HERE", "ERROR"

// What a model says that it was made from.
struct Ancestry {
  Lineage lineage;
  std::vector<Parent> parents = {};
  std::string cut = {};  // why the parents were not looked for, if they were not
};

inline constexpr unsigned kMostGenerations = 32;
inline constexpr std::size_t kMostParents = 100'000;  // in one walk
inline constexpr std::size_t kMostFolders = 256;      // looked into beside a model
inline constexpr std::size_t kMostTries = 16;         // files of a source's name and size

struct LineageWalk {
  Ancestry root;
  std::size_t ok = 0, changed = 0, not_here = 0;
  ExitCode code = ExitCode::Ok;
};

// Looks for the sources beside the model (in its folder, in the folder around it if the model is a
// folder, and one level down), in `folders` and one level down there. A file counts as a source
// only by its digest, and its own lineage is followed only then. None if the model has no lineage.
// Throws BadFile if it makes no sense.
std::optional<LineageWalk> walk_lineage(const Model& model, const std::vector<std::string>& folders,
                                        const Context& context);

}  // namespace wtool
