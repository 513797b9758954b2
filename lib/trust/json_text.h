#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace wtool {

// Writes one JSON text, members in the order of the calls: on one line without blanks, or indented
// for people. Bytes that are not UTF-8 become U+FFFD.
class JsonText {
 public:
  enum class Form : std::uint8_t { Compact, Indented };
  explicit JsonText(Form form) : indented_(form == Form::Indented) {}

  // `fill` gives the members or items.
  template <class Fill>
  void object(const Fill& fill) {
    enclose('{', fill);
  }
  template <class Fill>
  void object(std::string_view name, const Fill& fill) {
    key(name);
    enclose('{', fill);
  }
  template <class Fill>
  void array(std::string_view name, const Fill& fill) {
    key(name);
    enclose('[', fill);
  }
  void key(std::string_view name);
  void value(std::string_view text);
  void value(std::uint64_t number);
  void json(std::string_view text);  // a value that is JSON already

  template <class T>
  void member(std::string_view name, const T& v) {
    key(name);
    value(v);
  }
  // What is unknown is left out.
  void known(std::string_view name, std::string_view v) {
    if (!v.empty()) member(name, v);
  }
  std::string take() { return std::move(out_); }

 private:
  template <class Fill>
  void enclose(char open, const Fill& fill) {
    begin(open);
    fill();
    end();
  }
  void begin(char open);
  void end();
  void separate();
  void break_line();
  std::string out_;
  std::string open_;  // '{' or '[' of each that has not ended
  bool indented_, first_ = true, after_key_ = false;
};

}  // namespace wtool
