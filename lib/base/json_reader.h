#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "lib/base/error.h"

namespace wtool {

// A text that is not JSON, or deeper than JsonReader goes. `at` is a byte position in the file.
class JsonFault : public Error {
 public:
  JsonFault(std::uint64_t where, std::string text)
      : Error(Fault::BadFile, std::move(text)), at(where) {}
  std::uint64_t at;
};

// A pull parser for RFC 8259 over a whole text in memory: no tree, no recursion, no allocation.
// Strings are views into the text; one with escapes is unescaped where it lies, so the text must
// be ours to change and must outlive the views. Every method throws JsonFault.
//
//   reader.begin_object();
//   while (reader.next_member(key)) …one value: string(), skip(), begin_array()…
class JsonReader {
 public:
  enum class Kind : std::uint8_t { Object, Array, String, Number, Bool, Null };
  static constexpr unsigned kMaxDepth = 128;  // as serde_json, which the reference reads with

  // `place` is the position of the text in its file. Checks that all of it is UTF-8.
  explicit JsonReader(std::span<char> text, std::uint64_t place = 0);

  Kind peek();  // of the next value, which begins at position()
  std::uint64_t position() const noexcept { return place_of(at_); }

  void begin_object();
  bool next_member(std::string_view& key);  // false: the object has ended
  void begin_array();
  bool next_item();  // false: the array has ended

  std::string_view string();
  bool boolean();
  std::string_view number();  // as it is written; the grammar is checked
  // A plain unsigned integer of 64 bits: digits only. False if the number is any other (1.0, -0,
  // 2^64), which is then left for number() or skip(). Grammar faults (01, +1) throw.
  bool unsigned_integer(std::uint64_t& value);
  void skip();    // one value of any kind
  void finish();  // nothing but white space may be left

 private:
  void skip_space() noexcept;
  char at_or_end() noexcept;  // the next byte that is no white space, or NUL at the end
  bool next_element(char close);
  void enter(char open);
  std::string_view unescape(char* begin, char* at);
  char* escape(char*& at, char* out);
  std::uint32_t four_hex_digits(char*& at);
  void literal(std::string_view word);

  std::uint64_t place_of(const char* at) const noexcept {
    return place_ + static_cast<std::uint64_t>(at - begin_);
  }
  [[noreturn]] void fail(const char* at, std::string_view expected) const;

  char *begin_, *at_, *end_;
  std::uint64_t place_;
  unsigned depth_ = 0;
  bool fresh_ = false;  // just inside a container: no comma before what follows
};

std::string_view name_of(JsonReader::Kind kind) noexcept;  // "an object", "a number", …

// Appends `s`, which is UTF-8, as a JSON string with no more escapes than needed.
void append_json(std::string& out, std::string_view s);

}  // namespace wtool
