#include "lib/trust/json_text.h"

#include "lib/base/json_reader.h"
#include "lib/base/utf8.h"

namespace wtool {
namespace {

std::string as_utf8(std::string_view s) {
  std::string out;
  while (!s.empty()) {
    const CodePoint c = next_code_point(s);
    out += c.valid ? s.substr(0, c.length) : std::string_view("\xEF\xBF\xBD");
    s.remove_prefix(c.length);
  }
  return out;
}

}  // namespace

void JsonText::break_line() {
  if (!indented_) return;
  out_ += '\n';
  out_.append(2 * open_.size(), ' ');
}

void JsonText::separate() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (!first_) out_ += ',';
  if (!open_.empty()) break_line();
  first_ = false;
}

void JsonText::begin(char open) {
  separate();
  out_ += open;
  open_ += open;
  first_ = true;
}

void JsonText::end() {
  const char close = open_.back() == '{' ? '}' : ']';
  open_.pop_back();
  if (!first_) break_line();
  out_ += close;
  first_ = false;
}

void JsonText::key(std::string_view name) {
  value(name);
  out_ += indented_ ? ": " : ":";
  after_key_ = true;
}

void JsonText::value(std::string_view text) {
  separate();
  append_json(out_, as_utf8(text));
}

void JsonText::value(std::uint64_t number) {
  separate();
  out_ += std::to_string(number);
}

void JsonText::json(std::string_view text) {
  separate();
  out_ += text;
}

}  // namespace wtool
