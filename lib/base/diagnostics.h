#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {

enum class Severity : std::uint8_t { Note, Warning, Error };

// One thing that is insisted on, or worth telling. Whoever reports lists its own.
struct Rule {
  std::string_view id;       // stable, such as "safetensors.offsets"
  std::string_view summary;  // what is the case in a sound file
  bool forgivable = false;   // the reference implementation accepts the breach too
  Severity severity = Severity::Error;
};
using RuleList = std::span<const Rule* const>;

// Where in a model: a file, and in it a tensor, a key or the header.
struct Place {
  std::string file;
  std::string kind = {};  // "tensor", "key", "metadata", "header"; empty: the file
  std::string name = {};  // of the tensor or key

  Place(std::string file_name) : file(std::move(file_name)) {}  // NOLINT: a file is a place
  Place(std::string file_name, std::string what)
      : file(std::move(file_name)), kind(std::move(what)) {}
  Place(std::string file_name, std::string what, std::string_view name_of_it)
      : file(std::move(file_name)), kind(std::move(what)), name(name_of_it), named_(true) {}

  bool is_tensor() const noexcept { return kind == "tensor"; }
  std::string text() const {  // "m.gguf: tensor 'a'"
    if (kind.empty()) return file;
    const std::string out = file + ": " + kind;
    return named_ ? out + ' ' + quoted(name) : out;
  }

 private:
  bool named_ = false;  // names may be empty
};

// Of a finding that is no byte of a file.
inline constexpr std::uint64_t kNowhere = ~std::uint64_t{0};

struct Finding {
  const Rule* rule;
  Place where;
  std::string text, hint;
  std::uint64_t offset;  // in bytes, in the file; or kNowhere
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
  // A hostile file has a million faults: of each rule so many are kept, the others counted.
  static constexpr std::size_t kMostOfARule = 100, kMostNotes = 1000;
  // Of the names of tensors that were left out, likewise.
  static constexpr std::size_t kMostLost = 100'000, kMostLostText = std::size_t{16} << 20;

  explicit Diagnostics(Mode mode = Mode::Throw) : mode_(mode) {}

  // `offset` is the byte position of the fault, or kNowhere.
  void report(const Rule& rule, Place where, std::uint64_t offset, std::string text,
              std::string hint = {}) {
    if (mode_ == Mode::Throw || (mode_ == Mode::Lenient && !rule.forgivable))
      throw Error(Fault::BadFile, std::move(text)).in(where.text()).hint(std::move(hint));
    ++count_;
    if (++counts_of(rule).count <= kMostOfARule)
      findings_.push_back({&rule, std::move(where), std::move(text), std::move(hint), offset});
  }
  // Something a person should know that is no fault: never throws.
  void note(std::string where, std::string text) {
    if (notes_.size() < kMostNotes) notes_.push_back({std::move(where), std::move(text)});
    if (notes_.size() == kMostNotes && !std::exchange(notes_full_, true))
      notes_.push_back({"", "more is not told"});
  }
  // A tensor is left out: of `bytes`, so many lie in the file. Once for each tensor, whatever is
  // wrong with it; a reader that does not know its size says 0.
  void lose(std::string_view file, std::string_view tensor, std::uint64_t bytes,
            std::uint64_t present) {
    ++lost_count_;
    lost_text_ += tensor.size();
    if (lost_.size() < kMostLost && lost_text_ <= kMostLostText)
      lost_.push_back({std::string(file), std::string(tensor), bytes, present});
  }

  Mode mode() const noexcept { return mode_; }
  std::span<const Finding> findings() const noexcept { return findings_; }
  std::uint64_t count() const noexcept { return count_; }  // with those that were not kept
  struct Count {
    const Rule* rule;
    std::uint64_t count;
  };
  std::span<const Count> counts() const noexcept { return counts_; }  // in order of appearance
  struct Note {
    std::string where, text;
  };
  std::span<const Note> notes() const noexcept { return notes_; }
  struct Lost {
    std::string file, tensor;
    std::uint64_t bytes, present;
  };
  std::span<const Lost> lost() const noexcept { return lost_; }
  std::uint64_t lost_count() const noexcept { return lost_count_; }

 private:
  Count& counts_of(const Rule& rule) {
    const auto known = std::ranges::find(counts_, &rule, &Count::rule);
    return known != counts_.end() ? *known : counts_.emplace_back(Count{&rule, 0});
  }

  Mode mode_;
  std::vector<Finding> findings_;
  std::vector<Count> counts_;
  std::vector<Note> notes_;
  std::vector<Lost> lost_;
  std::uint64_t count_ = 0, lost_count_ = 0, lost_text_ = 0;
  bool notes_full_ = false;
};

}  // namespace wtool
