#include "cli/json.h"

#include <cmath>

#include <fmt/format.h>

#include "lib/base/hex.h"
#include "lib/base/text.h"
#include "lib/base/utf8.h"

namespace wtool {
namespace {

bool is_plain(char c) noexcept {
  return c >= 0x20 && c < 0x7F && c != '"' && c != '\\';
}

void append_escaped(std::string& out, std::string_view s) {
  while (!s.empty()) {
    std::size_t n = 0;
    while (n < s.size() && is_plain(s[n])) ++n;
    out += s.substr(0, n);
    s.remove_prefix(n);
    if (s.empty()) return;
    const CodePoint c = next_code_point(s);
    switch (c.value) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        // Controls above ASCII are legal in JSON but would drive a terminal.
        if (c.value < 0x20 || (c.value >= 0x7F && c.value < 0xA0))
          fmt::format_to(std::back_inserter(out), "\\u{:04x}", c.value);
        else if (c.valid)
          out += s.substr(0, c.length);
        else
          out += "\xEF\xBF\xBD";
    }
    s.remove_prefix(c.length);
  }
}

// Shortest that reads back, and always recognisable as no integer.
template <class T>
std::string float_text(T v) {
  std::string s = fmt::format("{}", v);
  if (s.find_first_of(".en") == std::string::npos) s += ".0";
  return s;
}

}  // namespace

JsonWriter::JsonWriter(Sink sink) : sink_(std::move(sink)) {}
JsonWriter::~JsonWriter() {
  try {
    if (stack_.empty() && !first_) sink_("\n");
  } catch (...) {  // a sink that fails here failed before, or will when it is flushed
  }
}

void JsonWriter::separate(bool object) {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  const bool own_line = object && stack_.size() == 2 && stack_.back() == '[';
  if (own_line)
    sink_(first_ ? "\n  " : ",\n  ");
  else if (!first_)
    sink_(", ");
  first_ = false;
}

void JsonWriter::begin_document(std::string_view schema, bool ok,
                                std::span<const std::string> inputs) {
  begin_object();
  member("schema", schema);
  member("ok", ok);
  key("inputs");
  begin_array();
  for (const std::string& input : inputs) value(input);
  end_array();
}
void JsonWriter::begin_document(std::string_view schema, bool ok,
                                std::initializer_list<std::string_view> inputs) {
  begin_document(schema, ok, std::vector<std::string>(inputs.begin(), inputs.end()));
}

void JsonWriter::begin_object() {
  separate(true);
  sink_("{");
  stack_.push_back('{');
  first_ = true;
}
void JsonWriter::end_object() {
  stack_.pop_back();
  sink_("}");
  first_ = false;
}
void JsonWriter::begin_array() {
  separate();
  sink_("[");
  stack_.push_back('[');
  first_ = true;
}
void JsonWriter::end_array() {
  stack_.pop_back();
  sink_("]");
  first_ = false;
}

void JsonWriter::key(std::string_view name) {
  separate();
  text(name);
  sink_(": ");
  after_key_ = true;
}

void JsonWriter::text(std::string_view utf8) {
  std::string s = "\"";
  append_escaped(s, utf8);
  s += '"';
  sink_(s);
}

void JsonWriter::value(std::string_view utf8) {
  separate();
  text(utf8);
}
void JsonWriter::value(bool v) {
  separate();
  sink_(v ? "true" : "false");
}
void JsonWriter::value(std::uint64_t v) {
  separate();
  sink_(fmt::format_int(v).c_str());
}
void JsonWriter::value(std::int64_t v) {
  separate();
  sink_(fmt::format_int(v).c_str());
}
void JsonWriter::value(double v) {
  if (!std::isfinite(v)) return ++refused_, null();
  separate();
  sink_(float_text(v));
}
void JsonWriter::value(ShapeView shape) {
  begin_array();
  for (const std::uint64_t d : shape) value(d);
  end_array();
}
void JsonWriter::null() {
  separate();
  sink_("null");
}
void JsonWriter::number(std::string_view digits) {
  if (digits.find_first_of("nN") != std::string_view::npos) return ++refused_, null();
  separate();
  sink_(digits);
}

// A metadata value that is no array. Readers in other languages hold numbers as doubles, so 64-bit
// integers are text.
void JsonWriter::scalar(const MetaValue& v) {
  std::visit(
      [&](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, bool>) {
          value(x);
        } else if constexpr (std::is_floating_point_v<T>) {
          if (std::isnan(x))
            value("NaN");
          else if (std::isinf(x))
            value(x < 0 ? "-Infinity" : "Infinity");
          else
            separate(), sink_(float_text(x));
        } else if constexpr (std::is_integral_v<T>) {
          if constexpr (sizeof(T) == 8)
            value(std::string_view(fmt::format("{}", x)));
          else
            value(std::int64_t{x});
        } else if constexpr (std::is_same_v<T, std::string>) {
          if (is_utf8(x)) return value(std::string_view(x));
          begin_object();
          member("hex", to_hex(x));
          end_object();
        }
      },
      v);
}

void JsonWriter::value(const MetaValue& v, bool typed) {
  const auto* array = std::get_if<MetaArray>(&v);
  if (!typed && !array) return scalar(v);
  begin_object();
  member("type", name_of(type_of(v)));
  if (array) member("of", name_of(array->of));
  key("value");
  if (array) {
    begin_array();
    for_each(*array, [&](const MetaValue& element) {
      scalar(element);
      return true;
    });
    end_array();
  } else {
    scalar(v);
  }
  end_object();
}

void JsonWriter::value(const Cell& cell) {
  std::visit(
      [&](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, Histogram>) {
          begin_array();
          for (const std::uint64_t n : x) value(n);
          end_array();
        } else if constexpr (std::is_same_v<T, std::string>) {
          value(std::string_view(x));
        } else {
          value(x);
        }
      },
      cell);
}

void JsonWriter::name_member(std::string_view name_key, std::string_view name) {
  member(name_key, name);
  if (!is_utf8(name)) member(std::string(name_key) + "_hex", to_hex(name));
}

}  // namespace wtool
