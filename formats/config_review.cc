#include "formats/config_review.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include <fmt/format.h>

#include "formats/json_survey.h"
#include "formats/registry.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"
#include "lib/model/review.h"

namespace wtool {
namespace {

using nlohmann::json;

constexpr Rule kJson{"config.json", "JSON files beside the weights are JSON", false,
                     Severity::Warning},
    kTwice{"config.duplicate-key", "JSON files beside the weights have no key twice", false,
           Severity::Warning},
    kDtype{"config.dtype", "config.json names the type that most weights have", false,
           Severity::Note},
    kLayers{"config.layers", "config.json counts the layers that there are", false,
            Severity::Warning},
    kVocabulary{"config.vocabulary", "the embedding has a row for each token of config.json", false,
                Severity::Warning},
    kCode{"config.code", "config.json names no code to run", false, Severity::Warning},
    kTied{"config.tied", "no head is stored that config.json ties to the embedding", false,
          Severity::Note};
constexpr std::array<const Rule*, 7> kRules{&kJson,       &kTwice, &kDtype, &kLayers,
                                            &kVocabulary, &kCode,  &kTied};

constexpr std::string_view kConfig = "config.json";
constexpr std::string_view kInner = "text_config";  // of a model that also sees or hears
// Of one file; tokenizers have some 30 MB.
constexpr std::uint64_t kMaxJson = std::uint64_t{64} << 20, kMaxConfig = std::uint64_t{4} << 20;

// Throws JsonFault; bounds the depth, too.
void check_json(std::string text) {
  JsonReader reader(text);
  reader.skip();
  reader.finish();
}

bool ties(const json& config) {
  return flag_of(member(config, "tie_word_embeddings"), false);
}

class Review {
 public:
  Review(const Model& model, Diagnostics& faults) : model_(model), faults_(faults) {}

  void files() {
    for (const SideFile& s : model_.side)
      if (s.name != kConfig && s.name != "tokenizer_config.json" &&
          s.name != "chat_template.json" && lower(s.name).ends_with(".json"))
        static_cast<void>(text_of_file(s, kMaxJson));
  }

  void config() {
    const SideFile* side = model_.side_file(kConfig);
    if (!side) return;
    const std::string text = text_of_file(*side, kMaxConfig);
    if (text.empty()) return;
    const json root = json::parse(text, nullptr, false);
    if (!root.is_object())
      return faults_.report(kJson, side->content->name(), 0, "is not a JSON object");
    code(side->content->name(), root);
    const json* inner = member(root, kInner);
    dtype(root);
    for (const json* part : {&root, inner})
      if (part) against_tensors(*part);
  }

  // Templates and code beside the weights are what engines run, whatever the weights' metadata say.
  void templates() {
    for (const SideFile& s : model_.side) {
      if (s.name == "chat_template.jinja" && s.content->size() <= kMaxConfig)
        review_template(s.content->name(),
                        std::string(as_text(read_all({s.content, 0, s.content->size()}))), faults_);
      if (s.name != "tokenizer_config.json" && s.name != "chat_template.json") continue;
      const std::string text = text_of_file(s, kMaxConfig);
      const json root = text.empty() ? json() : json::parse(text, nullptr, false);
      code(s.content->name(), root);
      const json* value = member(root, "chat_template");
      if (value && value->is_array())
        for (const json& one : *value) a_template(s, member(one, "template"));
      else
        a_template(s, value);
    }
  }

 private:
  // Empty if it is no JSON, which has been reported, or too large to look at.
  std::string text_of_file(const SideFile& side, std::uint64_t most) {
    if (side.content->size() > most) return {};
    const Buffer bytes = read_all({side.content, 0, side.content->size()});
    std::string text(as_text(bytes));
    try {
      if (text.size() > kMaxConfig)  // of vocabularies
        check_json(text);
      else
        survey(side.content->name(), text);
      return text;
    } catch (const JsonFault& f) {
      const auto first = text.find_first_not_of(" \t\r\n");
      const bool other = first == text.npos || (text[first] != '{' && text[first] != '[');
      faults_.report(kJson, side.content->name(), f.at, other ? diagnose(*side.content) : f.text());
      return {};
    }
  }

  void survey(const std::string& file, std::string& text) {
    const JsonSurvey found = survey_json(text);
    if (found.beyond)
      faults_.report(kJson, file, *found.beyond,
                     "holds a number beyond all types: not all parsers take it");
    for (const JsonSurvey::Twice& t : found.twice)
      faults_.report(
          kTwice, {file, "key", t.key}, t.at,
          fmt::format("is there already at byte {}: parsers differ in which they take", t.before));
  }

  void report(const Rule& rule, std::string_view key, std::string text) {
    faults_.report(rule, {model_.side_file(kConfig)->content->name(), "key", key}, kNowhere,
                   std::move(text));
  }

  void a_template(const SideFile& s, const json* value) {
    if (value && value->is_string())
      review_template({s.content->name(), "key", "chat_template"}, text_of(value), faults_);
  }

  void code(const std::string& file, const json& root) {
    if (member(root, "auto_map"))
      faults_.report(kCode, {file, "key", "auto_map"}, kNowhere,
                     "names code that engines run when they are told to trust the model",
                     "read that code before you load the model with trust_remote_code");
  }

  void dtype(const json& root) {
    std::string_view key = "torch_dtype", said = text_of(member(root, key));
    if (said.empty()) said = text_of(member(root, key = "dtype"));
    const auto type = parse_dtype(said);
    std::map<DType, std::uint64_t> counts;
    for (const LogicalTensor& t : model_.tensors)
      if (t.count > 1)
        return;  // quantized: it is the type that values have once they are decoded
      else if (info(t.dtype).kind == Kind::Float)
        counts[t.dtype] += element_count(t.shape).value_or(0);
    if (!type || counts.empty()) return;
    const auto most = std::ranges::max_element(counts, {}, [](const auto& c) { return c.second; });
    if (most->first != *type)
      report(kDtype, key,
             fmt::format("is {}, but most weights are {}", quoted(said), name_of(most->first)));
  }

  void against_tensors(const json& config) {
    if (const auto layers = count_of(member(config, "num_hidden_layers"))) {
      const std::uint64_t there = layers_there();
      if (there != 0 && there < *layers)
        report(
            kLayers, "num_hidden_layers",
            fmt::format("is {}, but the layers that there are tensors of are {}", *layers, there));
    }
    const LogicalTensor* embedding = ending("embed_tokens.weight");
    const auto vocabulary = count_of(member(config, "vocab_size"));
    if (embedding && vocabulary && embedding->shape.size() == 2 &&
        embedding->shape[0] < *vocabulary)
      report(kVocabulary, "vocab_size",
             fmt::format("is {}, but {} has {} rows", *vocabulary, quoted(embedding->name),
                         embedding->shape[0]));
    const LogicalTensor* head = ending("lm_head.weight");
    if (head && embedding && ties(config))
      report(kTied, "tie_word_embeddings",
             fmt::format("is true, but {} is stored, too ({} bytes): engines take the embedding",
                         quoted(head->name), model_.stored_bytes(*head)));
  }

  const LogicalTensor* ending(std::string_view suffix) const {
    const auto it = std::ranges::find_if(
        model_.tensors, [&](const LogicalTensor& t) { return t.name.ends_with(suffix); });
    return it == model_.tensors.end() ? nullptr : &*it;
  }

  // Different numbers after "layers." or "h.", as the decoders of transformers have it. More than
  // the config says are no fault: layers that predict further tokens lie behind.
  std::uint64_t layers_there() const {
    std::set<std::uint64_t> numbers;
    for (const LogicalTensor& t : model_.tensors)
      for (const std::string_view mark : {".layers.", ".h."})
        if (const auto at = t.name.find(mark); at != std::string_view::npos) {
          const std::string_view rest = t.name.substr(at + mark.size());
          if (const auto n = parse_u64(rest.substr(0, rest.find('.')))) numbers.insert(*n);
        }
    return numbers.size();
  }

  const Model& model_;
  Diagnostics& faults_;
};

}  // namespace

void review_config(const Model& model, bool deep, Diagnostics& faults) {
  Review review(model, faults);
  review.config();
  review.templates();
  if (deep) review.files();
}

bool says_tied(const Model& model) {
  const SideFile* side = model.side_file(kConfig);
  if (!side || side->content->size() > kMaxConfig) return false;
  std::string text(as_text(read_all({side->content, 0, side->content->size()})));
  try {
    survey_json(text);
  } catch (const JsonFault&) {
    return false;
  }
  const json root = json::parse(text, nullptr, false);
  const json* inner = member(root, kInner);
  return ties(root) || (inner && ties(*inner));
}

RuleList config_rules() noexcept {
  return kRules;
}

}  // namespace wtool
