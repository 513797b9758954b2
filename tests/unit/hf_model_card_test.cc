// Names, sizes, model cards and generation_config.json as general.* keys. The expected values are
// what llama.cpp's converter v0.5.0 makes of the same names, cards and folders.
#include <filesystem>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include "formats/hf/model_card.h"
#include "formats/hf/model_card_name.h"
#include "formats/hf/model_card_yaml.h"
#include "formats/registry.h"
#include "tests/catch.h"

using namespace wtool;
using nlohmann::json;

namespace {

SideFile file(std::string name, std::string_view text) {
  const Bytes bytes = as_bytes(text);
  return {name, from_memory("m/" + name, Buffer(bytes.begin(), bytes.end()))};
}

struct Result {
  Metadata meta;
  std::vector<std::string> notes;

  std::string text(std::string_view key) const { return std::string(meta.text(key)); }
  std::string all(std::string_view key) const {
    const MetaValue* value = meta.find(key);
    return value ? to_text(*value) : "none";
  }
  std::vector<std::string> keys() const {
    std::vector<std::string> out;
    for (const MetaEntry& e : meta) out.push_back(e.key);
    return out;
  }
};

Result general_of(std::vector<SideFile> side, const json& config = json::object(),
                  std::string_view id = "some-model", std::uint64_t parameters = 0) {
  Model model;
  model.side = std::move(side);
  Result out;
  const CardFacts facts{.architecture = "llama", .parameters = parameters};
  add_general_as(id, model, config, facts, out.meta, out.notes);
  return out;
}

Result of_card(const std::string& head) {
  return general_of({file("README.md", "---\n" + head + "---\n# A model\n")});
}

std::string parts(std::string_view id, std::uint64_t parameters) {
  const NameParts p = parts_of_name(id, parameters);
  std::string out;
  for (const std::string& s : {p.name, p.organization, p.basename, p.finetune, p.version})
    out += s + "|";
  return out + p.size_label;
}

const std::filesystem::path kGolden = std::string(WTOOL_SOURCE_DIR) + "/testdata/hf2gguf";

json json_of(const std::filesystem::path& path) {
  std::ifstream in(path);
  return json::parse(in);
}

CardFacts facts_of(const json& expected) {
  CardFacts facts;
  std::uint64_t stacks = 0, experts = 0;
  for (const auto& [name, t] : expected["runs"]["f32"]["tensors"].items()) {
    std::uint64_t elements = 1;
    for (const json& d : t["dims"]) elements *= d.get<std::uint64_t>();
    facts.parameters += elements;
    if (t["dims"].size() == 3 && name.find("_exps.") != name.npos) {
      const auto n = t["dims"][2].get<std::uint64_t>();
      facts.expert_parameters += elements / n;
      experts += n;
      ++stacks;
    } else {
      facts.shared_parameters += elements;
    }
  }
  facts.experts = stacks == 0 ? 0 : experts / stacks;
  return facts;
}

}  // namespace

TEST_CASE("hf: the parts of a model's name are told apart", "[hf]") {
  CHECK(parts("llama3-tiny", 0) == "llama3-tiny|||||");
  CHECK(parts("meta-llama/Meta-Llama-3.1-8B-Instruct", 8030261248) ==
        "Meta-Llama-3.1-8B-Instruct|meta-llama|Meta-Llama-3.1|Instruct||8B");
  CHECK(parts("mistralai/Mixtral-8x7B-Instruct-v0.1", 46702792704) ==
        "Mixtral-8x7B-Instruct-v0.1|mistralai|Mixtral|Instruct|v0.1|8x7B");
  CHECK(parts("Qwen/Qwen1.5-MoE-A2.7B", 14315784192) ==
        "Qwen1.5-MoE-A2.7B|Qwen|Qwen1.5-MoE|||A2.7B");
  CHECK(parts("microsoft/phi-2", 2779683840) == "phi-2|microsoft|phi||2|");
  CHECK(parts("bigscience/bloom-7b1", 7069016064) == "bloom-7b1|bigscience|bloom|||7.1B");
  CHECK(parts("Model-1_5b-small", 1500000000) == "Model-1_5b-small||Model|small||1.5B");
  CHECK(parts("Llama-7b-LoRA-v1.2-v3", 6738415616) ==
        "Llama-7b-LoRA-v1.2-v3||Llama|LoRA|v1.2-v3|7B");
  CHECK(parts("Foo-Q4_K_M-fp16-7B", 7000000000) == "Foo-Q4_K_M-fp16-7B||Foo|||7B");
  CHECK(parts("./checkpoint-500", 1000000) == "checkpoint-500||checkpoint||500|");
  CHECK(parts("my model", 5) == "my model|||||");
  CHECK(parts("--", 7) == "--|||||");
  CHECK(parts("", 7) == "|||||");
}

TEST_CASE("hf: a size in a name that is far from the model's is a context length", "[hf]") {
  CHECK(parts("microsoft/Phi-3-mini-128k-instruct", 3821079552) ==
        "Phi-3-mini-128k-instruct|microsoft|Phi-3|128k-instruct||mini");
  CHECK(parts("Qwen/Qwen2.5-7B-Instruct-1M", 7615616512) ==
        "Qwen2.5-7B-Instruct-1M|Qwen|Qwen2.5|Instruct-1m||7B");
  CHECK(parts("Yi-34B-200K", 34388917248) == "Yi-34B-200K||Yi|200k||34B");
}

TEST_CASE("hf: a name becomes a title but for words with capitals and versions", "[hf]") {
  CHECK(title_of("qwen2moe-tiny") == "Qwen2Moe Tiny");
  CHECK(title_of("TinyLlama-1.1B-Chat-v1.0") == "TinyLlama 1.1B Chat v1.0");
  CHECK(title_of("gemma-3-270m") == "Gemma 3 270m");
  CHECK(title_of("v2-thing") == "v2 Thing");
  CHECK(title_of("--").empty());
}

TEST_CASE("hf: sizes have two digits and a letter", "[hf]") {
  const std::map<std::uint64_t, std::string> kLabels{
      {0, "0.00K"},           {500, "0.50K"},       {1000, "1.0K"},       {99499, "99K"},
      {1000000, "1000K"},     {1000001, "1.0M"},    {9949999, "10M"},     {14500000, "14M"},
      {15500000, "16M"},      {999999999, "1000M"}, {7241732096, "7.2B"}, {46702792704, "47B"},
      {1000000000001, "1.0T"}};
  for (const auto& [n, label] : kLabels) {
    CAPTURE(n);
    CHECK(size_label(n) == label);
  }
}

TEST_CASE("hf: scalars of a model card are read in all their styles", "[hf]") {
  const std::map<std::string, std::string> kDescriptions{
      {"plain text # a comment", "plain text"},
      {"'single ''q'' x'", "single 'q' x"},
      {R"("dbl \"q\" \u00e9\t")", "dbl \"q\" \u00e9\t"},
      {"\"multi\n  line\n\n  text\"", "multi line\ntext"},
      {"plain\n  goes on\n\n  here", "plain goes on\nhere"},
      {"|\n  line one\n  line two\n\n  after", "line one\nline two\n\nafter\n"},
      {"|-\n  keep\n    more\n  x", "keep\n  more\nx"},
      {">-\n  folded text\n  next\n\n  para\n    more\n  end",
       "folded text next\npara\n  more\nend"},
      {">+\n  a\n", "a\n\n"},
      {"\n  next line", "next line"},
      {"C#", "C#"},
      {"1.0", "1.0"},
      {"~", ""}};
  for (const auto& [yaml, text] : kDescriptions) {
    CAPTURE(yaml);
    const Result r = of_card("description: " + yaml + "\nlicense: mit\n");
    CHECK(r.text("general.description") == text);
    CHECK(r.text("general.license") == "mit");
    CHECK(r.notes.empty());
  }
}

TEST_CASE("hf: lists of a model card are read as blocks and in brackets", "[hf]") {
  const std::vector<std::string> kLists{"\n- en\n- 'no'\n", "\n  - en # comment\n\n  - no\n",
                                        " [en, \"no\"]\n", " [\n  en,\n  no,\n]\n"};
  for (const std::string& list : kLists) {
    CAPTURE(list);
    const Result r = of_card("language:" + list + "tags: one\npipeline_tag: two\n");
    CHECK(r.all("general.languages") == "[en, no]");
    CHECK(r.all("general.tags") == "[one, two]");
    CHECK(r.notes.empty());
  }
  CHECK(of_card("license: [mit, other]\n").text("general.license") == "mit,other");
}

TEST_CASE("hf: what a model was made from is written with what its id says", "[hf]") {
  const Result r = of_card(
      "base_model:\n- mistralai/Mistral-7B-v0.1\n- https://huggingface.co/org/m-7B-v2\n"
      "- https://example.org/model\n"
      "datasets:\n- name: A set\n  organization: 'some'\n  repo_url: https://a.b/c\n- plain-set\n");
  CHECK(r.keys() == std::vector<std::string>{
                        "general.architecture", "general.type", "general.name",
                        "general.base_model.count", "general.base_model.0.name",
                        "general.base_model.0.version", "general.base_model.0.organization",
                        "general.base_model.0.repo_url", "general.base_model.1.name",
                        "general.base_model.1.version", "general.base_model.1.organization",
                        "general.base_model.1.repo_url", "general.base_model.2.repo_url",
                        "general.dataset.count", "general.dataset.0.name",
                        "general.dataset.0.organization", "general.dataset.0.repo_url",
                        "general.dataset.1.name"});
  CHECK(r.all("general.base_model.count") == "3");
  CHECK(r.text("general.base_model.0.name") == "Mistral 7B v0.1");
  CHECK(r.text("general.base_model.0.organization") == "Mistralai");
  CHECK(r.text("general.base_model.0.repo_url") ==
        "https://huggingface.co/mistralai/Mistral-7B-v0.1");
  CHECK(r.text("general.base_model.1.version") == "v2");
  CHECK(r.text("general.dataset.0.name") == "A set");
  CHECK(r.text("general.dataset.1.name") == "Plain Set");
}

TEST_CASE("hf: a card wins over the config's name, and that over the folder's", "[hf]") {
  const json config{{"_name_or_path", "meta-llama/Llama-2-7b-hf"}};
  const SideFile card = file("README.md", "---\nmodel_name: My Model\nversion: 3\n---\n");
  const Result both = general_of({card}, config, "x-8B-v9", 6738415616);
  CHECK(both.text("general.name") == "My Model");
  CHECK(both.text("general.version") == "3");
  CHECK(both.text("general.organization") == "Meta Llama");
  CHECK(both.text("general.basename") == "Llama-2");
  CHECK(both.text("general.finetune") == "hf");
  CHECK(both.text("general.size_label") == "7B");
  for (const char* path : {"/home/me/model", "./", "..", ""}) {
    CAPTURE(path);
    const Result r = general_of({}, {{"_name_or_path", path}}, "folder-name", 12345);
    CHECK(r.text("general.name") == "Folder Name");
    CHECK(r.text("general.size_label") == "12K");
  }
}

TEST_CASE("hf: what of a card is not understood is left out with its line", "[hf]") {
  const Result r = of_card(
      "license: mit\nauthor: &anchor x\nmodel-index:\n- name: {deep: [1]}\n  results: *x\n"
      "name:\n- a\n- b\ntags:\n- - nested\n\x01 what\nversion: 'no end\n");
  CHECK(r.text("general.license") == "mit");
  CHECK(r.meta.find("general.author") == nullptr);
  CHECK(r.text("general.name") == "Some Model");
  CHECK(r.notes == std::vector<std::string>{
                       "m/README.md: line 3: 'author': an anchor, a tag or another thing that is "
                       "no plain text is not understood and left out",
                       "m/README.md: line 10: 'tags': a list in a list is not understood and left "
                       "out",
                       "m/README.md: line 12: '\\x01 what' is not understood and left out",
                       "m/README.md: line 13: 'version': a quote that does not end is not "
                       "understood and left out",
                       "m/README.md: 'name' is a list and left out"});
}

TEST_CASE("hf: a card without a head, without its end or not in UTF-8 says nothing", "[hf]") {
  const auto notes_of = [](std::string_view readme) {
    const Result r = general_of({file("README.md", readme)});
    CHECK(r.keys() ==
          std::vector<std::string>{"general.architecture", "general.type", "general.name"});
    return r.notes;
  };
  CHECK(notes_of("# Title\n---\nlicense: mit\n---\n").empty());
  CHECK(notes_of("").empty());
  CHECK(notes_of("---\nlicense: mit\n") ==
        std::vector<std::string>{
            "m/README.md: its head does not end: no second line of 17 bytes is '---'"});
  CHECK(notes_of("---\nlicense: \xff\n---\n") ==
        std::vector<std::string>{"m/README.md: its head is no UTF-8 text"});
  CHECK(general_of({file("README.md", "---\r\nlicense: mit\r\n---\r\n")}).text("general.license") ==
        "mit");
}

TEST_CASE("hf: names that are not UTF-8 or hold NUL are not taken", "[hf]") {
  const Result r = general_of({}, {{"_name_or_path", std::string("a\0b", 3)}}, "caf\xe9");
  CHECK(r.keys() == std::vector<std::string>{"general.architecture", "general.type"});
  CHECK(r.notes ==
        std::vector<std::string>{"'a\\x00b' is no UTF-8 text: no name is taken from it",
                                 "'caf\\xe9' is no UTF-8 text: no name is taken from it"});
}

TEST_CASE("hf: a list of more than a thousand items is left out", "[hf]") {
  std::string head = "license: mit\ntags:\n";
  for (int i = 0; i < 1001; ++i) head += "- a\n";
  const Result r = of_card(head);
  CHECK(r.text("general.license") == "mit");
  CHECK(r.meta.find("general.tags") == nullptr);
  CHECK(r.notes == std::vector<std::string>{"m/README.md: line 3: 'tags': a list of more than 1000 "
                                            "items is not understood and left out"});
}

TEST_CASE("hf: thousands of odd lines give a few notes", "[hf]") {
  std::string head;
  for (int i = 0; i < 5000; ++i) head += "what is this\n";
  const Result r = of_card(head);
  REQUIRE(r.notes.size() == 9);
  CHECK(r.notes.back() == "m/README.md: 4992 more lines are not understood");
}

TEST_CASE("hf: sampling parameters come from generation_config.json in order and type", "[hf]") {
  const Result r =
      general_of({file("generation_config.json",
                       R"({"temperature": 1, "repetition_penalty": 1.1, "top_p": 0.8, "top_k": 20,
                "min_p": null, "mirostat": 2, "do_sample": true, "eos_token_id": [1, 2]})")});
  CHECK(r.notes.empty());
  CHECK(r.keys() == std::vector<std::string>{"general.architecture", "general.type",
                                             "general.sampling.top_k", "general.sampling.top_p",
                                             "general.sampling.temp",
                                             "general.sampling.penalty_repeat",
                                             "general.sampling.mirostat", "general.name"});
  CHECK(r.all("general.sampling.top_k") == "20");
  CHECK(std::get<float>(*r.meta.find("general.sampling.top_p")) == 0.8F);
  CHECK(std::get<float>(*r.meta.find("general.sampling.temp")) == 1.0F);
}

TEST_CASE("hf: sampling parameters of another type are left out with a note", "[hf]") {
  const Result r = general_of({file(
      "generation_config.json",
      R"({"top_k": 2.5, "mirostat": 3000000000, "top_p": "x", "min_p": 1e39, "temperature": 0.5})")});
  CHECK(r.notes ==
        std::vector<std::string>{"m/generation_config.json: 'top_k' is no i32 and left out",
                                 "m/generation_config.json: 'top_p' is no f32 and left out",
                                 "m/generation_config.json: 'min_p' is no f32 and left out",
                                 "m/generation_config.json: 'mirostat' is no i32 and left out"});
  CHECK(r.all("general.sampling.temp") == "0.5");
  for (const char* broken : {"{", "[1]", "{\"top_k\": 1e999}"}) {
    CAPTURE(broken);
    const Result b = general_of({file("generation_config.json", broken)});
    CHECK(b.notes.size() == 1);
    CHECK(b.meta.find("general.sampling.top_k") == nullptr);
  }
}

TEST_CASE("hf: a snapshot in the cache of Hugging Face is known by its repository", "[hf]") {
  CHECK(id_of_folder("/c/hub/models--Qwen--Qwen2-0.5B/snapshots/c540970f9e29") ==
        "Qwen/Qwen2-0.5B");
  CHECK(id_of_folder("/c/hub/models--gpt2/snapshots/607a30d783df/") == "gpt2");
  CHECK(id_of_folder("/models/my-model/") == "my-model");
  CHECK(id_of_folder("/models/x/../my-model/.") == "my-model");
}

TEST_CASE("hf: a file's name has the model's parts and no folder", "[hf]") {
  Metadata meta;
  CHECK(default_file_name(meta, "f16") == "ggml-model-F16.gguf");
  meta.set("general.name", std::string("My Model"));
  meta.set("general.size_label", std::string("7B"));
  CHECK(default_file_name(meta, "q4_k_m") == "My-Model-7B-Q4_K_M.gguf");
  meta.set("general.basename", std::string("../Base"));
  meta.set("general.finetune", std::string("a/b\n\x1b[2J"));
  meta.set("general.version", std::string("v1 "));
  CHECK(default_file_name(meta, "BF16") == "..-Base-7B-a-b--[2J-v1-BF16.gguf");
  meta.set("general.finetune", std::string(1000, 'x'));
  CHECK(default_file_name(meta, "BF16") == "..-Base-7B-v1-BF16.gguf");
}

TEST_CASE("hf: twelve folders have the reference's general keys and file names", "[hf]") {
  std::size_t models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
    const std::string name = entry.path().filename();
    CAPTURE(name);
    const json expected = json_of(entry.path() / "expected.json");
    Diagnostics faults;
    const auto model = open_model(entry.path() / "hf", all_formats(), {}, faults);
    CardFacts facts = facts_of(expected);
    const std::string architecture = expected["kv"]["general.architecture"]["value"];
    facts.architecture = architecture;
    Result r;
    add_general_as(name, *model, json_of(entry.path() / "hf/config.json"), facts, r.meta, r.notes);
    std::vector<std::string> wanted;
    for (const std::string key : expected["kv_order"])
      if (key.starts_with("general.") && key != "general.file_type" &&
          key != "general.quantization_version")
        wanted.push_back(key);
    CHECK(r.keys() == wanted);
    for (const std::string& key : wanted) {
      CAPTURE(key);
      const MetaValue* value = r.meta.find(key);
      REQUIRE(value != nullptr);
      const json& want = expected["kv"][key];
      CHECK(name_of(type_of(*value)) == want["type"].get<std::string>());
      if (want["type"] == "f32")
        CHECK(std::get<float>(*value) == want["value"].get<float>());
      else
        CHECK(to_text(*value) == (want["value"].is_string() ? want["value"].get<std::string>()
                                                            : want["value"].dump()));
    }
    CHECK(r.notes.empty());
    const std::string type = name == "gpt2-tiny" ? "f16" : "bf16";
    CHECK(default_file_name(r.meta, type) == expected["default_file_name"].get<std::string>());
    ++models;
  }
  CHECK(models == 12);
}
