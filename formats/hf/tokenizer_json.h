#pragma once
// tokenizer.json (Hugging Face tokenizers), read in one pass: its vocabulary and merges, which may
// be tens of megabytes, as views and packed strings; the rest, which is small, as a tree.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "formats/hf/tokenizer_table.h"
#include "lib/base/json_reader.h"

namespace wtool {

struct AddedToken {
  std::uint64_t id = 0;
  std::string_view text;
  bool special = false;
};

struct TokenizerJson {
  struct Entry {
    std::string_view text;
    std::uint32_t id = 0;
    float score = 0;  // Unigram's
  };

  std::string file;   // for messages
  Buffer text;        // what the views look into
  std::string model;  // "BPE", "WordPiece", "Unigram", …
  bool byte_fallback = false, ignore_merges = false;
  std::optional<std::uint64_t> unknown_id;               // Unigram's
  std::string unknown;                                   // the text of BPE's and WordPiece's
  std::string continuing_prefix = {}, end_of_word = {};  // of subwords; empty: none
  std::vector<Entry> vocabulary;                         // ids differ
  StringList merges;  // "left right", in order of rank; a space within a part is U+0120
  std::vector<AddedToken> added;
  nlohmann::json normalizer, pre_tokenizer, post_processor, decoder;  // null if absent

  std::uint64_t entries() const noexcept;                     // the largest id and one
  const AddedToken* find_added(std::string_view text) const;  // the first; null: none
};

// Throws BadFile. Without `tables`, vocabulary and merges are passed over.
TokenizerJson read_tokenizer_json(const Source& file, bool tables = true);

// The parts of it in files of their own, as older tokenizers have them: {"text": id, …}, a merge or
// a token a line. They add to `out`.
void read_vocab_json(const Source& file, TokenizerJson& out);
void read_merges_text(const Source& file, TokenizerJson& out);
void read_vocab_text(const Source& file, TokenizerJson& out);

// A file's text, at most `most` bytes of it.
Buffer text_of_file(const Source& file, std::uint64_t most);
// A page or a pointer in the place of JSON is called by its name.
Error json_error(const Source& file, const JsonFault& fault);
// Calls read(JsonReader&) for the text, in which strings are unescaped where they lie; faults are
// reported with the file's name.
template <class Read>
void read_json_file(const Source& file, Buffer& text, Read read) try {
  JsonReader in({reinterpret_cast<char*>(text.data()), text.size()});
  read(in);
  in.finish();
} catch (const JsonFault& f) {
  throw json_error(file, f);
} catch (Error& e) {
  if (e.where().empty()) e.in(file.name());
  throw;
}
// One value as a tree of limited size.
nlohmann::json small_tree(JsonReader& in);
// The string there; nullopt if it is another kind of value, which is skipped.
std::optional<std::string_view> maybe_string(JsonReader& in);
std::optional<bool> maybe_flag(JsonReader& in);
std::uint64_t token_id(JsonReader& in);  // throws BadFile if it is none
AddedToken added_token(JsonReader& in);  // an object with id, content, special

}  // namespace wtool
