#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/error.h"

namespace wtool {

// One thing a reader insists on. Each format file lists its own rules.
struct Rule {
  std::string_view id;      // stable, such as "safetensors.offsets"
  bool forgivable = false;  // the reference implementation accepts the breach too
};

struct Finding {
  const Rule* rule;
  std::string where, text, hint;
  std::uint64_t offset;  // in bytes, in the file `where` begins with
};

// Where readers report faults. The reader is the same in every mode: it reports, and if control
// comes back it leaves the faulty thing out and goes on.
class Diagnostics {
 public:
  enum class Mode : std::uint8_t {
    Throw,    // the first fault ends the reading: the normal run
    Lenient,  // forgivable faults are kept as findings, the others throw
    Collect,  // all faults are kept as findings
  };
  explicit Diagnostics(Mode mode = Mode::Throw) : mode_(mode) {}

  // `where` is "file" or "file: tensor 'name'"; `offset` is the byte position of the fault.
  void report(const Rule& rule, std::string where, std::uint64_t offset, std::string text,
              std::string hint = {}) {
    if (mode_ == Mode::Throw || (mode_ == Mode::Lenient && !rule.forgivable))
      throw Error(Fault::BadFile, std::move(text)).in(where).hint(std::move(hint));
    findings_.push_back({&rule, std::move(where), std::move(text), std::move(hint), offset});
  }
  // Something a person should know that is no fault: never throws.
  void note(std::string where, std::string text) {
    notes_.push_back({std::move(where), std::move(text)});
  }

  Mode mode() const noexcept { return mode_; }
  std::span<const Finding> findings() const noexcept { return findings_; }
  struct Note {
    std::string where, text;
  };
  std::span<const Note> notes() const noexcept { return notes_; }

 private:
  Mode mode_;
  std::vector<Finding> findings_;
  std::vector<Note> notes_;
};

}  // namespace wtool
