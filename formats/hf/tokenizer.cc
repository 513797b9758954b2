#include "formats/hf/tokenizer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/hf/chat_template.h"
#include "formats/hf/pretokenizer.h"
#include "formats/hf/sentencepiece.h"
#include "formats/hf/tokenizer_build.h"
#include "formats/hf/tokenizer_config.h"
#include "formats/hf/tokenizer_json.h"
#include "formats/hf/tokenizer_normalizer.h"
#include "formats/hf/tokenizer_special.h"
#include "formats/hf/tokenizer_table.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kModel = "tokenizer.ggml.model", kPre = "tokenizer.ggml.pre",
                           kTokens = "tokenizer.ggml.tokens", kScores = "tokenizer.ggml.scores",
                           kTypes = "tokenizer.ggml.token_type", kMerges = "tokenizer.ggml.merges",
                           kTypeCount = "tokenizer.ggml.token_type_count",
                           kAddBos = "tokenizer.ggml.add_bos_token",
                           kSpacePrefix = "tokenizer.ggml.add_space_prefix";

// What the reference does for some architectures only.
struct Habits {
  std::string_view architecture;
  bool config_space_prefix = false;  // add_prefix_space of tokenizer_config.json, before all else
  bool no_space_prefix = false;      // with pieces: written as false, after all else
  bool type_count = false;           // type_vocab_size of config.json
  bool as_said = false;              // see BuildSources
};
constexpr std::array kHabits{Habits{.architecture = "llama", .config_space_prefix = true},
                             Habits{.architecture = "granite", .config_space_prefix = true},
                             Habits{.architecture = "smollm3", .config_space_prefix = true},
                             Habits{.architecture = "gemma", .no_space_prefix = true},
                             Habits{.architecture = "gemma2", .no_space_prefix = true},
                             Habits{.architecture = "gemma3", .no_space_prefix = true},
                             Habits{.architecture = "phi3", .as_said = true},
                             Habits{.architecture = "bert", .type_count = true},
                             Habits{.architecture = "nomic-bert", .type_count = true},
                             Habits{.architecture = "nomic-bert-moe", .type_count = true}};

// Tokens that an architecture ends a turn with; llama.cpp does not find them by their text.
struct TurnEnd {
  std::string_view architecture;
  std::uint64_t vocabulary;  // 0: any
  std::uint64_t id;
  std::string_view text;  // what it ends with
};
constexpr std::array kTurnEnds{TurnEnd{"llama", 32016, 32010, "<EOT>"},  // Code Llama
                               TurnEnd{"gemma", 0, 107, "<end_of_turn>"}};

const Habits& habits_of(std::string_view architecture) {
  static constexpr Habits kNone{};
  const auto it = std::ranges::find(kHabits, architecture, &Habits::architecture);
  return it == kHabits.end() ? kNone : *it;
}

class Writer {
 public:
  Writer(const Model& model, const Json& config, const TokenizerWish& wish, Metadata& meta,
         std::vector<std::string>& notes)
      : model_(model),
        model_config_(config),
        wish_(wish),
        habits_(habits_of(wish.architecture)),
        meta_(meta),
        notes_(notes) {}

  void write() {
    check_wish();
    config_ = read_tokenizer_config(model_);
    added_file_ = read_added_tokens(model_, added_text_);
    if (habits_.config_space_prefix && config_.add_prefix_space)
      meta_.set(kSpacePrefix, *config_.add_prefix_space);
    const SideFile* pieces = takes_pieces() ? model_.side_file("tokenizer.model") : nullptr;
    read_json(pieces == nullptr);
    if (pieces)
      write_pieces(*pieces->content);
    else if (json_)
      write_json();
    else if (const SideFile* side = model_.side_file("sentencepiece.bpe.model"))
      write_fairseq(*side->content);
    else
      throw nothing_there();
  }

 private:
  void check_wish() const {
    if (wish_.pre.empty()) return;
    const auto names = known_pre_tokenizers();
    if (std::ranges::find(names, wish_.pre) != names.end()) return;
    Error e(Fault::Usage, fmt::format("llama.cpp knows no pre-tokenizer {}", quoted(wish_.pre)));
    const std::string_view near = nearest(wish_.pre, names);
    throw near.empty() ? e : e.hint(fmt::format("did you mean {}?", quoted(near)));
  }

  bool takes_pieces() const {
    if (wish_.path == TokenizerPath::Bpe || wish_.path == TokenizerPath::WordPiece) return false;
    // Phi-4 has the class of Phi-3 and another tokenizer.
    return !(wish_.architecture == "phi3" && config_.tokenizer_class.starts_with("GPT2Tokenizer"));
  }

  void read_json(bool with_tables) {
    if (const SideFile* side = model_.side_file("tokenizer.json")) {
      json_ = read_tokenizer_json(*side->content, with_tables);
      return;
    }
    if (!with_tables) return;
    if (const SideFile* merges = model_.side_file("merges.txt"))
      if (const SideFile* side = model_.side_file("vocab.json")) {
        json_.emplace();
        read_vocab_json(*side->content, *json_);
        read_merges_text(*merges->content, *json_);
        json_->model = "BPE";
        in_parts_ = true;
        return;
      }
    if (const SideFile* side = model_.side_file("vocab.txt")) {
      json_.emplace();
      read_vocab_text(*side->content, *json_);
      json_->model = "WordPiece";
      in_parts_ = true;
    }
  }

  Error nothing_there() const {
    if (model_.side_file("tekken.json"))
      return Error(Fault::Unsupported, "tekken.json without a tokenizer.json")
          .in(model_.path)
          .hint(
              "transformers writes one: AutoTokenizer.from_pretrained(…).save_pretrained(…); "
              "--no-vocab "
              "leaves the tokenizer out");
    return Error(Fault::Usage, wish_.path == TokenizerPath::WordPiece
                                   ? "no tokenizer: neither tokenizer.json nor vocab.txt"
                                   : "no tokenizer: neither tokenizer.json nor tokenizer.model")
        .in(model_.path)
        .hint("--no-vocab leaves it out");
  }

  // Pieces of text with bytes to fall back on, as SentencePiece has them, not an alphabet of bytes.
  bool is_pieces() const {
    const std::vector<std::string> steps = pre_tokenizer_steps(json_->pre_tokenizer);
    return json_->byte_fallback && std::ranges::find(steps, "bytes") == steps.end();
  }

  BuildSources sources() {
    return {config_, added_file_, wish_.vocabulary, habits_.as_said, notes_};
  }

  void write_json() {
    if (json_->model == "BPE" && is_pieces()) return write_ranks();
    if (json_->model == "BPE") return write_words();
    if (json_->model == "WordPiece") return write_word_pieces();
    if (json_->model == "Unigram") return write_unigrams();
    throw Error(Fault::Unsupported,
                fmt::format("llama.cpp has no tokenizer of the kind {}", quoted(json_->model)))
        .in(json_->file)
        .hint("--no-vocab leaves it out");
  }

  void write_pieces(const Source& file) {
    const SentencePieceModel model = read_sentencepiece(file);
    if (model.kind != SentencePieceModel::Kind::Bpe)
      notes_.push_back(fmt::format(
          "{}: is no BPE model, but llama.cpp merges as if it were: some texts are split otherwise",
          file.name()));
    const TokenTable table =
        table_of_pieces(model, file.name(), json_ ? &*json_ : nullptr, sources());
    write_scored(table, "llama", file.name());
    write_rest(table, "llama");
  }

  void write_ranks() {
    const TokenTable table = table_of_ranks(*json_, sources());
    write_scored(table, "llama", json_->file);
    write_rest(table, "llama");
    if (!meta_.find(kSpacePrefix) && !begins_with_space(json_->normalizer) &&
        !begins_with_space(json_->pre_tokenizer))
      meta_.set(kSpacePrefix, false);
  }

  void write_words() {
    if (!json_->continuing_prefix.empty() || !json_->end_of_word.empty())
      throw Error(Fault::Unsupported,
                  fmt::format("subwords are marked with {}, which llama.cpp does not do",
                              quoted(json_->continuing_prefix + json_->end_of_word)))
          .in(json_->file);
    const std::string pre = pre_tokenizer();
    note_normalizer(*json_, notes_);
    const TokenTable table = table_of_words(*json_, sources());
    write_plain(table, "gpt2", pre);
    if (json_->merges.count() == 0)
      if (const SideFile* merges = model_.side_file("merges.txt"))
        read_merges_text(*merges->content, *json_);
    meta_.set(kMerges, std::move(json_->merges).array());
    write_rest(table, "gpt2");
    if (pre_tokenizer_adds_bos(pre) && !meta_.find(kAddBos)) meta_.set(kAddBos, false);
    if (!meta_.find("tokenizer.ggml.eos_token_id"))
      notes_.push_back(
          fmt::format("{}: no end-of-text token is named: llama.cpp takes token 11", json_->file));
    write_type_count();
  }

  std::string pre_tokenizer() {
    if (!wish_.pre.empty()) return wish_.pre;
    if (!in_parts_) return pre_tokenizer_name(*json_, config_.clean_up_spaces, notes_);
    const std::string_view name = pre_tokenizer_of_class(config_.tokenizer_class);
    if (name.empty())
      throw Error(Fault::Unsupported,
                  fmt::format("how words are split is not said: there is no tokenizer.json, and "
                              "tokenizer_class is {}",
                              quoted(config_.tokenizer_class)))
          .in(json_->file)
          .hint("--pre NAME says it");
    return std::string(name);
  }

  void write_word_pieces() {
    if (!json_->continuing_prefix.empty() && json_->continuing_prefix != "##")
      throw Error(Fault::Unsupported,
                  fmt::format("continued words are marked with {}, but in llama.cpp with '##'",
                              quoted(json_->continuing_prefix)))
          .in(json_->file);
    if (const auto steps = pre_tokenizer_steps(json_->pre_tokenizer);
        !steps.empty() && steps != std::vector<std::string>{"BertPreTokenizer"})
      notes_.push_back(fmt::format("{}: splits by {}, but llama.cpp at spaces and punctuation",
                                   json_->file, quoted(steps[0])));
    write_type_count();
    note_pre(json_->file);
    TokenTable table = table_of_words(*json_, sources());
    table.mark_words();
    write_plain(table, "bert", "default");
    write_rest(table, "bert");
  }

  void write_unigrams() {
    const TokenTable table = table_of_unigrams(*json_, sources());
    write_unigram_table(table, json_->file, unigram_habits(*json_));
  }
  void write_fairseq(const Source& file) {
    const SentencePieceModel model = read_sentencepiece(file);
    if (model.kind != SentencePieceModel::Kind::Unigram)
      throw Error(Fault::Unsupported, "is no Unigram model, as XLM-RoBERTa has").in(file.name());
    const TokenTable table = table_of_fairseq(model, file.name(), sources());
    write_unigram_table(table, file.name(), unigram_habits(model, file.name()));
  }
  void write_unigram_table(const TokenTable& table, std::string_view file, UnigramHabits habits) {
    write_scored(table, "t5", file);
    meta_.set(kSpacePrefix, habits.space_prefix);
    write_type_count();
    meta_.set("tokenizer.ggml.remove_extra_whitespaces", habits.remove_extra_spaces);
    if (!habits.charsmap.empty())
      meta_.set("tokenizer.ggml.precompiled_charsmap", byte_array(std::move(habits.charsmap)));
    write_rest(table, "t5");
  }

  void write_plain(const TokenTable& table, std::string_view kind, std::string_view pre) {
    table.check_unique(json_->file);
    meta_.set(kModel, std::string(kind));
    meta_.set(kPre, std::string(pre));
    meta_.set(kTokens, table.texts());
    meta_.set(kTypes, table.types());
  }

  void write_scored(const TokenTable& table, std::string_view kind, std::string_view file) {
    note_pre(file);
    table.check_unique(file);
    meta_.set(kModel, std::string(kind));
    meta_.set(kPre, std::string("default"));
    meta_.set(kTokens, table.texts());
    meta_.set(kScores, table.scores());
    meta_.set(kTypes, table.types());
  }

  void note_pre(std::string_view file) {
    if (!wish_.pre.empty())
      notes_.push_back(fmt::format("{}: --pre is left out: only byte-level BPE has one", file));
  }

  void write_type_count() {
    if (habits_.type_count)
      meta_.set(kTypeCount, static_cast<std::uint32_t>(
                                count_of(member(model_config_, "type_vocab_size")).value_or(1)));
  }

  // Special tokens, templates, flags: the same for all.
  void write_rest(const TokenTable& table, std::string_view kind) {
    add_special_tokens({json_ ? &*json_ : nullptr, config_, model_config_, table, kind, notes_},
                       meta_);
    add_chat_templates(config_.templates.empty() ? chat_template_files(model_) : config_.templates,
                       meta_);
    if (json_) add_normalizer_flags(json_->normalizer, meta_);
    for (const TurnEnd& end : kTurnEnds)
      if (end.architecture == wish_.architecture &&
          (end.vocabulary == 0 || end.vocabulary == table.size()) && table.holds(end.id) &&
          table[end.id].text.ends_with(end.text))
        meta_.set("tokenizer.ggml.eot_token_id", static_cast<std::uint32_t>(end.id));
    // Granite's small models, whose files say otherwise.
    if (habits_.config_space_prefix && table.size() == 49152) meta_.set(kAddBos, false);
    if (habits_.no_space_prefix && kind == "llama") meta_.set(kSpacePrefix, false);
  }

  const Model& model_;
  const Json& model_config_;
  const TokenizerWish& wish_;
  const Habits& habits_;
  Metadata& meta_;
  std::vector<std::string>& notes_;
  TokenizerConfig config_;
  Buffer added_text_;
  std::vector<AddedToken> added_file_;
  std::optional<TokenizerJson> json_;
  bool in_parts_ = false;  // json_ is made of vocab.json and merges.txt, or vocab.txt
};

}  // namespace

void add_tokenizer(const Model& model, const Json& config, const TokenizerWish& wish,
                   Metadata& meta, std::vector<std::string>& notes) {
  Writer(model, config, wish, meta, notes).write();
}

}  // namespace wtool
