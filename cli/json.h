#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/model/metadata.h"
#include "lib/model/report.h"

namespace wtool {

// Writes one JSON document piece by piece, keys in the order of the calls. Bytes that are not UTF-8
// become U+FFFD; NaN and infinities become null. Objects in a document's outer arrays stand on
// lines of their own, so that line tools see one tensor a line.
class JsonWriter {
 public:
  using Sink = std::function<void(std::string_view)>;
  explicit JsonWriter(Sink sink);  // such as `out`
  ~JsonWriter();                   // ends the line; everything begun must be ended

  // What every document begins with: {"schema": …, "ok": …, "inputs": […], and more to come.
  void begin_document(std::string_view schema, bool ok, std::span<const std::string> inputs);
  void begin_document(std::string_view schema, bool ok,
                      std::initializer_list<std::string_view> inputs);
  void begin_object();
  void end_object();
  void begin_array();
  void end_array();
  void key(std::string_view name);

  void value(std::string_view text);
  void value(const char* text) { value(std::string_view(text)); }
  void value(const std::string& text) { value(std::string_view(text)); }
  void value(bool v);
  void value(std::uint64_t v);
  void value(std::int64_t v);
  void value(std::uint32_t v) { value(std::uint64_t{v}); }
  void value(int v) { value(std::int64_t{v}); }
  void value(double v);  // shortest that reads back
  void null();
  // A number's own text ("0.1", from a narrow type); "nan" and "inf" become null.
  void number(std::string_view text);
  std::uint64_t refused() const noexcept { return refused_; }  // numbers that became null
  // {"type": T, "value": V} or {"type": "arr", "of": T, "value": […]}: 64-bit integers as strings;
  // strings that are not UTF-8 as {"hex": …}; floats JSON cannot hold as "NaN", "Infinity",
  // "-Infinity". Plain strings (safetensors) as they are when `typed` is false.
  void value(const MetaValue& v, bool typed);
  void value(const Cell& cell);
  void value(ShapeView shape);
  void value(const Shape& shape) { value(ShapeView(shape)); }

  template <class T>
  void member(std::string_view name, T&& v) {
    key(name);
    value(std::forward<T>(v));
  }
  // A name from a file: "name", and "name_hex" beside it when it is not UTF-8.
  void name_member(std::string_view key, std::string_view name);

 private:
  void separate(bool object = false);
  void text(std::string_view utf8);
  void scalar(const MetaValue& v);
  Sink sink_;
  std::vector<char> stack_;  // '{' or '['
  bool first_ = true, after_key_ = false;
  std::uint64_t refused_ = 0;
};

}  // namespace wtool
