// What a folder says of a model in general: its name in the first line, generation_config.json in
// the second, then README.md.
#include <nlohmann/json.hpp>

#include "formats/hf/model_card.h"
#include "lib/base/text.h"
#include "tests/fuzz/target.h"

namespace wtool::fuzz {
namespace {

std::string_view line_of(std::string_view& rest) {
  const std::size_t end = std::min(rest.find('\n'), rest.size());
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return line;
}

void expect_text(std::string_view s) {
  expect(is_utf8(s), "a string that is not UTF-8");
  expect(s.find('\0') == s.npos, "a string that holds NUL");
}

// Whatever it is, it stops nothing.
void run(Bytes input) {
  std::string_view rest = as_text(input);
  const std::string_view id = line_of(rest), generation = line_of(rest);
  Model model;
  for (const auto& [name, text] :
       {std::pair("generation_config.json", generation), std::pair("README.md", rest)}) {
    const Bytes bytes = as_bytes(text);
    model.side.push_back({name, from_memory(name, Buffer(bytes.begin(), bytes.end()))});
  }
  Metadata meta;
  std::vector<std::string> notes;
  add_general_as(id, model, nlohmann::json::object(),
                 {.architecture = "llama", .parameters = 7'000'000'000}, meta, notes);
  expect(notes.size() < 100, "more than a hundred notes");
  for (const MetaEntry& e : meta) {
    expect(meta.find(e.key) == &e.value, "a key that is there twice");
    expect_text(e.key);
    if (const auto* text = std::get_if<std::string>(&e.value)) expect_text(*text);
    if (const auto* array = std::get_if<MetaArray>(&e.value))
      for_each(*array, [](const MetaValue& s) {
        expect_text(std::get<std::string>(s));
        return true;
      });
  }
  const std::string file = default_file_name(meta, "Q4_K_M");
  expect(file.find('/') == file.npos && file.size() <= 255, "a name that no file may have");
}

}  // namespace

extern const Target kCard;
const Target kCard{"card", run};

}  // namespace wtool::fuzz
