#include "formats/json_survey.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "lib/base/json_reader.h"

namespace wtool {
namespace {

// from_chars says the same of a number that is too small, which is zero to everybody.
bool is_beyond_double(std::string_view number) {
  double value = 0;
  const auto end = number.data() + number.size();
  if (std::from_chars(number.data(), end, value).ec != std::errc::result_out_of_range) return false;
  return std::isinf(std::strtod(std::string(number).c_str(), nullptr));
}

class Surveyor {
 public:
  // The reader unescapes where it lies: in a copy.
  explicit Surveyor(std::string& text) : text_(text), copy_(text), in_(copy_) {}

  JsonSurvey all() {
    value();
    in_.finish();
    std::ranges::sort(found_.twice, {}, &JsonSurvey::Twice::at);
    return std::move(found_);
  }

 private:
  // As deep as the reader goes.
  void value() {
    switch (in_.peek()) {
      case JsonReader::Kind::Object: return object();
      case JsonReader::Kind::Array:
        in_.begin_array();
        while (in_.next_item()) value();
        return;
      case JsonReader::Kind::Number: return number();
      default: return in_.skip();
    }
  }

  void object() {
    const std::size_t outer = keys_.size();
    std::string_view key;
    in_.begin_object();
    while (in_.next_member(key)) {
      keys_.push_back(key);
      value();
    }
    tell_twice(outer);
    keys_.resize(outer);
  }

  void tell_twice(std::size_t outer) {
    const auto mine = keys_.begin() + static_cast<std::ptrdiff_t>(outer);
    std::sort(mine, keys_.end(), [](std::string_view a, std::string_view b) {
      const int c = a.compare(b);
      return c != 0 ? c < 0 : a.data() < b.data();
    });
    for (auto first = mine; first != keys_.end();) {
      auto next = first + 1;
      for (; next != keys_.end() && *next == *first; ++next)
        found_.twice.push_back({std::string(*next), place_of(*next) - 1, place_of(*first) - 1});
      first = next;
    }
  }

  void number() {
    const std::string_view n = in_.number();
    if (!is_beyond_double(n)) return;
    const auto at = place_of(n);
    if (!found_.beyond) found_.beyond = at;
    std::string null = "null";  // the shortest such number is 2e308
    null.resize(n.size(), ' ');
    text_.replace(at, n.size(), null);
  }

  std::uint64_t place_of(std::string_view part) const noexcept {
    return static_cast<std::uint64_t>(part.data() - copy_.data());
  }

  std::string& text_;
  std::string copy_;
  JsonReader in_;
  std::vector<std::string_view> keys_;  // of the objects that are open
  JsonSurvey found_;
};

}  // namespace

JsonSurvey survey_json(std::string& text) {
  return Surveyor(text).all();
}

}  // namespace wtool
