#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "lib/trust/bundle.h"

namespace wtool {

class JsonWriter;

// What became of one file.
struct FileVerdict {
  enum class Answer : std::uint8_t { Ok, Changed, Missing, Extra, Unread, Error };
  std::string name;
  Answer answer = Answer::Unread;
  std::string detail = {};                // why, for people
  std::string expected = {}, found = {};  // digests that differ
};
std::string_view word(FileVerdict::Answer answer) noexcept;  // "OK", "CHANGED", …

// What became of a model and its signature.
struct SignatureVerdict {
  std::string model, signature;  // paths
  Bundle::Kind kind = Bundle::Kind::Key;
  std::string reason;   // a word for scripts; "" while all is well
  std::string message;  // for people
  std::string signer;
  std::vector<std::pair<std::string, std::string>> facts;  // about the signer, for JSON
  std::vector<std::string> warnings;
  std::size_t signed_files = 0;
  std::vector<FileVerdict> files;
  std::uint64_t bytes = 0;
  ExitCode code = ExitCode::Ok;

  bool fail(std::string why, std::string text);  // the first reason counts; gives false
  std::size_t count(FileVerdict::Answer answer) const;
  void print() const;
  void write_json() const;
  void write_members(JsonWriter& w) const;  // the reason, the signer and the warnings
};

}  // namespace wtool
