#pragma once
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace wtool {

// What went wrong, in the terms a caller can act on; cli/ turns it into the exit status.
enum class Fault : std::uint8_t {
  Usage,        // the command line, or what options and headers alone rule out
  BadFile,      // an input breaks its format's rules, or its values forbid the job
  Unsupported,  // a sound input that this version cannot handle
  Io,           // disk, permission, memory, an input that changed meanwhile
  Cancelled,    // a signal asked us to stop
  Internal,     // a bug
};

// The one exception type: built where the fact is known, enriched with in() on the way up, printed
// by print_error() in cli/ alone. Texts may hold bytes from files; whoever prints escapes them.
class Error : public std::exception {
 public:
  Error(Fault fault, std::string text) : fault_(fault), text_(std::move(text)) { compose(); }

  // Outermost place last: in("tensor 'a'").in("m.gguf") reads "m.gguf: tensor 'a': …".
  Error& in(std::string_view where) {
    where_ = where_.empty() ? std::string(where) : std::string(where) + ": " + where_;
    compose();
    return *this;
  }
  Error& hint(std::string advice) {
    hint_ = std::move(advice);
    return *this;
  }

  Fault fault() const noexcept { return fault_; }
  const std::string& where() const noexcept { return where_; }
  const std::string& text() const noexcept { return text_; }
  const std::string& hint() const noexcept { return hint_; }
  const char* what() const noexcept override { return whole_.c_str(); }

 private:
  void compose() { whole_ = where_.empty() ? text_ : where_ + ": " + text_; }

  Fault fault_;
  std::string where_, text_, hint_, whole_;
};

}  // namespace wtool
