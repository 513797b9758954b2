#include "lib/model/review.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/base/utf8.h"

namespace wtool {
namespace {

constexpr std::size_t kLongName = 255;                      // bytes: no file system takes more
constexpr std::size_t kLargeValue = std::size_t{1} << 20;   // bytes
constexpr std::string_view kTemplateKey = "chat_template";  // also "tokenizer.chat_template.tool"

constexpr Rule kNameText{"name.control", "names hold no control or invisible characters", false,
                         Severity::Warning},
    kNamePath{"name.path", "no name leads out of a folder when a file is named after it", false,
              Severity::Warning},
    kNameLong{"name.long", "names have at most 255 bytes", false, Severity::Note},
    kNameEmpty{"name.empty", "no tensor's name is empty", false, Severity::Warning},
    kMetaText{"metadata.control", "metadata holds no control or invisible characters", false,
              Severity::Warning},
    kMetaLarge{"metadata.large", "no metadata value has more than 1 MiB", false, Severity::Note},
    kTemplate{"metadata.template", "there is no template that an engine would run", false,
              Severity::Note},
    kTemplateCode{"metadata.template-code", "templates do not reach for Python's internals", false,
                  Severity::Warning};
constexpr std::array<const Rule*, 8> kRules{&kNameText, &kNamePath,  &kNameLong, &kNameEmpty,
                                            &kMetaText, &kMetaLarge, &kTemplate, &kTemplateCode};

// What people cannot see, or what changes how they see the rest (Default_Ignorable_Code_Point, and
// blank letters).
bool is_invisible(std::uint32_t c) noexcept {
  if (c < 0xAD) return false;
  struct Run {
    std::uint32_t first, last;
  };
  static constexpr std::array<Run, 17> kRuns{{{0x00AD, 0x00AD},
                                              {0x034F, 0x034F},
                                              {0x061C, 0x061C},
                                              {0x115F, 0x1160},
                                              {0x17B4, 0x17B5},
                                              {0x180B, 0x180F},
                                              {0x200B, 0x200F},
                                              {0x2028, 0x202E},
                                              {0x2060, 0x206F},
                                              {0x2800, 0x2800},
                                              {0x3164, 0x3164},
                                              {0xFE00, 0xFE0F},
                                              {0xFEFF, 0xFEFF},
                                              {0xFFA0, 0xFFA0},
                                              {0xFFF0, 0xFFFB},
                                              {0x1D173, 0x1D17A},
                                              {0xE0000, 0xE0FFF}}};
  return std::ranges::any_of(kRuns, [c](Run r) { return c >= r.first && c <= r.last; });
}

bool is_plain(unsigned char c) noexcept {
  return c >= 0x20 && c < 0x7F;
}

// Reasons for which a template can be meant to leave Jinja's sandbox.
constexpr std::array<std::string_view, 18> kEscapes{
    "__class__",  "__mro__",      "__base",    "__subclasses__", "__globals__", "__init__",
    "__import__", "__builtins__", "__getattr", "__dict__",       "attr(",       "\\x5f",
    "\\u005f",    "func_globals", "lipsum",    "popen",          "importlib",   "eval("};

class Review {
 public:
  Review(const Model& model, Diagnostics& faults) : model_(model), faults_(faults) {}

  void run() {
    for (const TensorEntry& t : model_.catalog.entries()) name(t);
    for (const MetaEntry& e : model_.catalog.meta) review_metadata(first_file(), e, faults_);
  }

 private:
  const std::string& first_file() const { return model_.catalog.sources()[0]->name(); }

  void name(const TensorEntry& t) {
    const auto report = [&](const Rule& rule, std::string text, std::string fix) {
      faults_.report(rule, {model_.catalog.sources()[t.source]->name(), "tensor", t.name}, kNowhere,
                     std::move(text), std::move(fix));
    };
    if (t.name.empty())
      report(kNameEmpty, "the name is empty", "--rename of 'wtool convert' gives it one");
    if (t.name.size() > kLongName)
      report(kNameLong, fmt::format("the name has {} bytes", t.name.size()),
             "'wtool convert --rename' shortens it");
    bool odd = false, separators = false;
    for (const char c : t.name) {
      odd |= !is_plain(static_cast<unsigned char>(c));
      separators |= c == '/' || c == '\\' || c == ':' || c == '%';
    }
    if (odd)
      if (const auto what = odd_text(t.name, false))
        report(kNameText, "the name " + *what,
               "do not paste it; 'wtool convert --rename' changes it");
    if (separators || t.name.starts_with(".."))
      if (const auto why = unsafe_path(t.name))
        report(kNamePath, fmt::format("as a file name it {}", *why),
               "tools that write a file for each tensor must not take it as it is");
  }

  const Model& model_;
  Diagnostics& faults_;
};

}  // namespace

void review_template(const Place& where, std::string_view text, Diagnostics& faults) {
  faults.report(
      kTemplate, where, kNowhere,
      fmt::format("a template of {} bytes: untrusted text that chat engines run", text.size()),
      "read it before you use it: 'wtool inspect --get KEY' prints one of the metadata");
  if (const auto what = odd_text(text, true))
    faults.report(kMetaText, where, kNowhere, "the template " + *what);
  for (const std::string_view escape : kEscapes)
    if (const auto at = text.find(escape); at != std::string_view::npos) {
      faults.report(kTemplateCode, where, kNowhere,
                    fmt::format("holds {} at position {}: templates have no honest use for it",
                                quoted(escape), at),
                    "do not run it in an engine that renders templates with Python");
      return;
    }
}

void review_metadata(const std::string& file, const MetaEntry& e, Diagnostics& faults) {
  const Place where(file, "metadata", e.key);
  if (const auto what = odd_text(e.key, false))
    faults.report(kMetaText, where, kNowhere, "the key " + *what);
  const bool is_template = e.key.find(kTemplateKey) != std::string::npos;
  const auto* text = std::get_if<std::string>(&e.value);
  if (const auto* array = std::get_if<MetaArray>(&e.value); array && is_template)
    for_each(*array, [&](const MetaValue& v) {
      if (const auto* one = std::get_if<std::string>(&v)) review_template(where, *one, faults);
      return true;
    });
  if (!text) return;
  if (is_template) return review_template(where, *text, faults);
  if (const auto what = odd_text(*text, true))
    faults.report(kMetaText, where, kNowhere, "its value " + *what);
  if (text->size() > kLargeValue)
    faults.report(kMetaLarge, where, kNowhere, fmt::format("its value has {} bytes", text->size()));
}

std::optional<std::string> odd_text(std::string_view text, bool multiline) {
  if (std::size_t bad = 0; !is_utf8(text, &bad))
    return fmt::format("is not UTF-8: byte {:#04x} at position {}",
                       static_cast<unsigned char>(text[bad]), bad);
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = next_code_point(text.substr(at));
    const bool blank = c.value == '\n' || c.value == '\r' || c.value == '\t';
    if (!(multiline && blank) && (c.value < 0x20 || (c.value >= 0x7F && c.value < 0xA0)))
      return fmt::format("holds a control character ({} at position {})",
                         printable(text.substr(at, c.length)), at);
    if (is_invisible(c.value))
      return fmt::format("holds an invisible character (U+{:04X} at position {})", c.value, at);
    at += c.length;
  }
  return std::nullopt;
}

void review_texts(const Model& model, Diagnostics& faults) {
  if (!model.catalog.sources().empty()) Review(model, faults).run();
}

RuleList text_rules() noexcept {
  return kRules;
}

}  // namespace wtool
