// What a checker says beside what readers insist on, and how findings are counted.
#include "lib/model/review.h"

#include <set>

#include "formats/config_review.h"
#include "formats/content.h"
#include "formats/magic.h"
#include "formats/registry.h"
#include "tests/catch.h"

using namespace wtool;
using namespace std::string_literals;

TEST_CASE("diagnostics: of each rule a hundred findings are kept and all are counted", "[review]") {
  constexpr Rule kOne{"t.one", "one"}, kTwo{"t.two", "two"};
  Diagnostics faults(Diagnostics::Mode::Collect);
  for (int i = 0; i < 1000; ++i) faults.report(kOne, "f"s, 0, "x");
  faults.report(kTwo, "f"s, 0, "y");
  CHECK(faults.count() == 1001);
  REQUIRE(faults.findings().size() == Diagnostics::kMostOfARule + 1);
  CHECK(faults.findings().back().rule == &kTwo);
  REQUIRE(faults.counts().size() == 2);
  CHECK(faults.counts()[0].count == 1000);
  CHECK(faults.counts()[1].count == 1);
}

TEST_CASE("diagnostics: names of lost tensors are kept up to a limit and all are counted",
          "[review]") {
  Diagnostics faults(Diagnostics::Mode::Collect);
  const std::string long_name(Diagnostics::kMostLostText / 2, 'x');
  for (int i = 0; i < 5; ++i) faults.lose("f", long_name, 4, 1);
  CHECK(faults.lost_count() == 5);
  CHECK(faults.lost().size() == 2);
}

TEST_CASE("diagnostics: a place says what it is in words", "[review]") {
  CHECK(Place("m.gguf").text() == "m.gguf");
  CHECK(Place("m.gguf", "tensor", "a\nb").text() == "m.gguf: tensor 'a\\nb'");
  CHECK(Place("m.gguf", "tensor", "").text() == "m.gguf: tensor ''");
  CHECK(Place("m.gguf", "key 3 of 7").text() == "m.gguf: key 3 of 7");
}

TEST_CASE("review: text that people cannot see as it is", "[review]") {
  const auto odd = [](std::string_view s, bool multiline = false) {
    return odd_text(s, multiline).value_or("");
  };
  CHECK(odd("model.layers.0.weight") == "");
  CHECK(odd("Gewicht-\u00e4\u4e2d") == "");
  CHECK(odd("a\tb\n") != "");
  CHECK(odd("a\tb\r\n", true) == "");
  CHECK(odd("ab\x1b[2J", true).find("control character (\\x1b at position 2)") !=
        std::string::npos);
  CHECK(odd("a\x7f") != "");
  CHECK(odd("a\u0085") != "");                                               // next line, C1
  CHECK(odd("a\u202eb").find("U+202E at position 1") != std::string::npos);  // right to left
  CHECK(odd("a\u200bb").find("invisible") != std::string::npos);             // zero width space
  CHECK(odd("\ufeffx").find("U+FEFF") != std::string::npos);
  CHECK(odd("\U000E0041").find("U+E0041") != std::string::npos);  // a tag character
  CHECK(odd("a\xff").find("not UTF-8: byte 0xff at position 1") != std::string::npos);
  CHECK(odd("a\xc3").find("not UTF-8") != std::string::npos);  // cut within a character
}

TEST_CASE("review: a template that does what chat templates do reaches for nothing", "[review]") {
  const auto rules = [](std::string_view text) {
    Diagnostics faults(Diagnostics::Mode::Collect);
    review_template("m.gguf"s, text, faults);
    std::string out;
    for (const Finding& f : faults.findings()) out += std::string(f.rule->id) + " ";
    return out;
  };
  CHECK(rules("{% for m in messages %}{{ bos_token + m['role'] }}{% if add_generation_prompt %}"
              "{{ '<|im_start|>' ~ strftime_now('%d') }}{% endif %}{% endfor %}") ==
        "metadata.template ");
  for (const char* bad : {"{{ x.__class__ }}", "{{ x|attr('a') }}", "{{ x['\\x5f\\x5fclass'] }}",
                          "{{ x['\\u005f'] }}", "{{ ().__base__ }}", "{{ lipsum() }}"}) {
    CAPTURE(bad);
    CHECK(rules(bad) == "metadata.template metadata.template-code ");
  }
}

TEST_CASE("review: payloads are known by four bytes or more", "[review]") {
  const auto what = [](std::string_view head) {
    const Magic* m = payload_magic_of(head);
    return m ? std::string(m->what) : "";
  };
  CHECK(what("PK\x03\x04rest") == "a zip archive");
  CHECK(what("\x7f"
             "ELF\x02") == "a program or library (ELF)");
  CHECK(what("\x1f\x8b") == "");           // too weak among weights,
  CHECK(magic_of("\x1f\x8b") != nullptr);  // but enough for a whole file
  CHECK(what("MZ") == "");
  CHECK(what("") == "");
  std::string tar(512, '\0');
  tar.replace(257, 5, "ustar");
  CHECK(what(tar) == "a tar archive");
  CHECK(what(std::string_view(tar).substr(0, 260)) == "");
}

TEST_CASE("review: rule ids are unique and every rule has a summary", "[review]") {
  std::set<std::string_view> seen;
  const auto look = [&](RuleList list) {
    for (const Rule* r : list) {
      CAPTURE(r->id);
      CHECK(seen.insert(r->id).second);
      CHECK(!r->summary.empty());
      CHECK(r->id.find('.') != std::string_view::npos);
    }
  };
  const Registry registry = all_formats();
  for (const Format* f : registry.formats)
    for (const RuleList list : {f->rules, f->index_rules, f->review_rules}) look(list);
  for (const Scheme* s : registry.schemes) look(s->rules);
  for (const RuleList list :
       {catalog_rules(), model_rules(), text_rules(), content_rules(), config_rules()})
    look(list);
  CHECK(seen.size() > 90);
}

TEST_CASE("review: whether a config ties the head to the embedding", "[review]") {
  const auto tied = [](std::string text) {
    Model model;
    model.side = {{"config.json", from_memory("config.json", to_buffer(text))}};
    return says_tied(model);
  };
  CHECK(tied("{\"tie_word_embeddings\" :\n true}"));
  CHECK(tied(R"({"vision_config": {"tie_word_embeddings": false}, "tie_word_embeddings": true})"));
  CHECK(tied(R"({"text_config": {"tie_word_embeddings": true}})"));
  CHECK_FALSE(tied(R"({"tie_word_embeddings": false})"));
  CHECK_FALSE(tied(R"({"description": "\"tie_word_embeddings\": true"})"));
  CHECK_FALSE(tied(R"({"vision_config": {"tie_word_embeddings": true}})"));
  CHECK_FALSE(tied(R"({"tie_word_embeddings": true)"));
  CHECK_FALSE(tied(std::string(100'000, '[')));
  CHECK_FALSE(tied("[]"));
  CHECK_FALSE(says_tied(Model()));
}
