// Recipes of 'quantize': rules in a file.
#include <algorithm>

#include "cli/recipe_rules.h"
#include "tests/fuzz/readers.h"
#include "tests/fuzz/sample.h"

namespace wtool::fuzz {
namespace {

void try_recipe(std::string_view text, const Model& model, bool gguf, bool allow_unmatched) {
  TypeOptions options;
  options.recipe = "recipe";
  try {
    for (const Override& r : recipe_rules(text, options, model, gguf, allow_unmatched)) {
      expect(r.matches.size() == model.tensors.size(), "an answer for each tensor");
      expect(r.label.starts_with("recipe:"), "a rule that does not say its line");
      const bool any = std::ranges::find(r.matches, true) != r.matches.end();
      expect(any || allow_unmatched, "a rule that matches nothing");
      expect(any || !r.by_name, "a name that no tensor has");
    }
  } catch (const Error& e) {
    expect(e.fault() == Fault::Usage, e.what());
    expect(e.where().find("recipe:") != std::string::npos, "an error without its line");
  }
}

void run(Bytes input) {
  static const Sample sample;
  static const Model model = sample.model();
  for (const bool gguf : {false, true})
    for (const bool allow_unmatched : {false, true})
      try_recipe(as_text(input), model, gguf, allow_unmatched);
}

}  // namespace

extern const Target kRecipe;
const Target kRecipe{"recipe", run};

}  // namespace wtool::fuzz
