#include "formats/hf/tokenizer_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "formats/registry.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

using nlohmann::json;
using Kind = JsonReader::Kind;

constexpr std::size_t kMaxSmall = 65536;  // values in a part that is read as a tree

Error fault_at(const JsonReader& in, std::string_view what) {
  return Error(Fault::BadFile, fmt::format("byte {}: {}", in.position(), what));
}

json tree(JsonReader& in, std::size_t& left) {
  if (left-- == 0)
    throw fault_at(in, fmt::format("more than {} values in one part, wtool's limit", kMaxSmall));
  std::string_view key;
  switch (in.peek()) {
    case Kind::Object: {
      json out = json::object();
      for (in.begin_object(); in.next_member(key);) {
        std::string name(key);
        out[std::move(name)] = tree(in, left);
      }
      return out;
    }
    case Kind::Array: {
      json out = json::array();
      for (in.begin_array(); in.next_item();) out.push_back(tree(in, left));
      return out;
    }
    case Kind::String: return std::string(in.string());
    case Kind::Bool: return in.boolean();
    case Kind::Number: {
      std::uint64_t n = 0;
      if (in.unsigned_integer(n)) return n;
      in.number();
      return 0.5;  // no part that is looked at has any other number
    }
    case Kind::Null: break;
  }
  in.skip();
  return nullptr;
}

std::string_view token_text(const JsonReader& in, std::string_view text) {
  if (text.size() > kMaxTokenBytes)
    throw fault_at(
        in, fmt::format("a token of {} bytes, wtool's limit is {}", text.size(), kMaxTokenBytes));
  return text;
}

float score(JsonReader& in) {
  const std::string_view text = in.number();
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  const auto narrow = static_cast<float>(value);
  if (code != std::errc() || !std::isfinite(narrow))
    throw fault_at(in, fmt::format("the score {} is no f32", text));
  return narrow;
}

class Reader {
 public:
  Reader(JsonReader& in, TokenizerJson& out, bool tables = true)
      : in_(in), out_(out), tables_(tables) {}

  void whole() {
    std::string_view key;
    for (in_.begin_object(); in_.next_member(key);)
      if (key == "added_tokens")
        added_tokens();
      else if (key == "model")
        model();
      else if (key == "normalizer")
        out_.normalizer = small_tree(in_);
      else if (key == "pre_tokenizer")
        out_.pre_tokenizer = small_tree(in_);
      else if (key == "post_processor")
        out_.post_processor = small_tree(in_);
      else if (key == "decoder")
        out_.decoder = small_tree(in_);
      else
        in_.skip();
    if (out_.model.empty()) out_.model = guessed_model();
  }

  void vocabulary_object() {
    std::string_view key;
    for (in_.begin_object(); in_.next_member(key);) {
      const std::string_view text = token_text(in_, key);
      add({text, static_cast<std::uint32_t>(token_id(in_)), 0});
    }
  }

  void add(TokenizerJson::Entry entry) {
    if (out_.vocabulary.size() == kMaxTokens)
      throw fault_at(in_, fmt::format("more than {} tokens, wtool's limit", kMaxTokens));
    out_.vocabulary.push_back(entry);
  }

 private:
  void added_tokens() {
    if (in_.peek() == Kind::Null) return in_.skip();
    for (in_.begin_array(); in_.next_item();) {
      if (out_.added.size() == kMaxTokens)
        throw fault_at(in_, fmt::format("more than {} added tokens, wtool's limit", kMaxTokens));
      out_.added.push_back(added_token(in_));
    }
  }

  void model() {
    std::string_view key;
    for (in_.begin_object(); in_.next_member(key);)
      if (key == "type")
        out_.model = in_.string();
      else if (key == "vocab" && tables_)
        in_.peek() == Kind::Array ? vocabulary_array() : vocabulary_object();
      else if (key == "merges" && tables_)
        merges();
      else if (key == "byte_fallback")
        out_.byte_fallback = maybe_flag(in_).value_or(false);
      else if (key == "ignore_merges")
        out_.ignore_merges = maybe_flag(in_).value_or(false);
      else if (key == "unk_id" && in_.peek() == Kind::Number)
        out_.unknown_id = token_id(in_);
      else if (key == "unk_token")
        out_.unknown = maybe_string(in_).value_or("");
      else if (key == "continuing_subword_prefix")
        out_.continuing_prefix = maybe_string(in_).value_or("");
      else if (key == "end_of_word_suffix")
        out_.end_of_word = maybe_string(in_).value_or("");
      else
        in_.skip();
  }

  // Files of early versions do not say it.
  std::string guessed_model() const {
    if (out_.vocabulary.empty()) return {};
    if (out_.merges.count() > 0) return "BPE";
    return scored_ ? "Unigram" : "WordPiece";
  }

  void vocabulary_array() {  // [["text", score], …]: the position is the id
    scored_ = true;
    for (in_.begin_array(); in_.next_item();) {
      in_.begin_array();
      if (!in_.next_item()) throw fault_at(in_, "a token without a text");
      const std::string_view text = token_text(in_, in_.string());
      if (!in_.next_item()) throw fault_at(in_, "a token without a score");
      const float value = score(in_);
      if (in_.next_item()) throw fault_at(in_, "a token with more than a text and a score");
      add({text, static_cast<std::uint32_t>(out_.vocabulary.size()), value});
    }
  }

  void merges() {
    if (in_.peek() == Kind::Null) return in_.skip();
    for (in_.begin_array(); in_.next_item();)
      if (in_.peek() == Kind::String)
        merge_line();
      else
        merge_pair();
  }

  void merge_line() {
    const std::string_view text = token_text(in_, in_.string());
    if (text.starts_with("#version")) return;
    const std::size_t space = text.find(' ');
    if (space == 0 || space == text.npos || space + 1 == text.size() ||
        text.find(' ', space + 1) != text.npos)
      throw fault_at(in_, fmt::format("merge {} is {}, not two parts with a space between them",
                                      out_.merges.count(), quoted(text)));
    out_.merges.add(text);
  }

  void merge_pair() {
    in_.begin_array();
    std::string merged = merge_part();
    merged += ' ';
    merged += merge_part();
    if (in_.next_item())
      throw fault_at(in_, fmt::format("merge {} has more than two parts", out_.merges.count()));
    out_.merges.add(merged);
  }
  std::string merge_part() {
    const bool there = in_.next_item();
    const std::string_view part = there ? token_text(in_, in_.string()) : "";
    if (part.empty())
      throw fault_at(in_, fmt::format("merge {} lacks a part", out_.merges.count()));
    std::string out;
    for (const char c : part)
      if (c == ' ')
        out += "\u0120";
      else
        out += c;
    return out;
  }

  JsonReader& in_;
  TokenizerJson& out_;
  bool tables_, scored_ = false;
};

// Lines without their ends; a carriage return before one belongs to it.
template <class Visit>
void each_line(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    visit(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

std::string_view lines_of(const Source& file, Buffer& text) {
  text = text_of_file(file, kMaxTokenizerFile);
  std::size_t bad = 0;
  if (!is_utf8(as_text(text), &bad))
    throw Error(Fault::BadFile, fmt::format("byte {} is not UTF-8", bad)).in(file.name());
  return as_text(text);
}

}  // namespace

json small_tree(JsonReader& in) {
  std::size_t left = kMaxSmall;
  return tree(in, left);
}

std::optional<std::string_view> maybe_string(JsonReader& in) {
  if (in.peek() == JsonReader::Kind::String) return in.string();
  in.skip();
  return std::nullopt;
}
std::optional<bool> maybe_flag(JsonReader& in) {
  if (in.peek() == JsonReader::Kind::Bool) return in.boolean();
  in.skip();
  return std::nullopt;
}

std::uint64_t token_id(JsonReader& in) {
  std::uint64_t id = 0;
  if (!in.unsigned_integer(id)) throw fault_at(in, "a token's id is no unsigned integer");
  if (id >= kMaxTokens)
    throw fault_at(in, fmt::format("token id {}, wtool's limit is {}", id, kMaxTokens - 1));
  return id;
}

AddedToken added_token(JsonReader& in) {
  AddedToken out;
  bool has_id = false, has_text = false;
  std::string_view key;
  for (in.begin_object(); in.next_member(key);)
    if (key == "id") {
      out.id = token_id(in);
      has_id = true;
    } else if (key == "content") {
      out.text = token_text(in, in.string());
      has_text = true;
    } else if (key == "special") {
      out.special = maybe_flag(in).value_or(false);
    } else {
      in.skip();
    }
  if (!has_id || !has_text)
    throw fault_at(in, fmt::format("an added token without {}", has_text ? "'id'" : "'content'"));
  return out;
}

std::uint64_t TokenizerJson::entries() const noexcept {
  std::uint64_t n = 0;
  for (const Entry& e : vocabulary) n = std::max<std::uint64_t>(n, e.id + std::uint64_t{1});
  for (const AddedToken& a : added) n = std::max(n, a.id + 1);
  return n;
}
const AddedToken* TokenizerJson::find_added(std::string_view wanted) const {
  const auto it = std::ranges::find(added, wanted, &AddedToken::text);
  return it == added.end() ? nullptr : &*it;
}

Buffer text_of_file(const Source& file, std::uint64_t most) {
  if (file.size() > most)
    throw Error(Fault::BadFile, fmt::format("has {} bytes, wtool's limit is {}", file.size(), most))
        .in(file.name());
  Buffer out(static_cast<std::size_t>(file.size()));
  file.read(0, out);
  return out;
}

Error json_error(const Source& file, const JsonFault& fault) {
  Buffer start(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), 64)));
  file.read(0, start);
  const std::string_view text = as_text(start);
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const bool other = first == text.npos || text[first] != '{';
  Error e(Fault::BadFile, other ? diagnose(file) : fault.text());
  e.in(file.name());
  return e;
}

TokenizerJson read_tokenizer_json(const Source& file, bool tables) {
  TokenizerJson out;
  out.file = file.name();
  out.text = text_of_file(file, kMaxTokenizerFile);
  read_json_file(file, out.text, [&](JsonReader& in) { Reader(in, out, tables).whole(); });
  if (out.model.empty() && tables)
    throw Error(Fault::BadFile, "has no 'model' with a vocabulary").in(file.name());
  return out;
}

void read_vocab_json(const Source& file, TokenizerJson& out) {
  out.file = file.name();
  out.text = text_of_file(file, kMaxTokenizerFile);
  read_json_file(file, out.text, [&](JsonReader& in) { Reader(in, out).vocabulary_object(); });
}

void read_merges_text(const Source& file, TokenizerJson& out) {
  Buffer text;
  std::size_t number = 0;
  each_line(lines_of(file, text), [&](std::string_view line) {
    if (++number == 1 && line.starts_with('#')) return;
    if (line.find_first_not_of(' ') == line.npos) return;
    const std::size_t space = line.find(' ');
    if (space == 0 || space == line.npos || space + 1 == line.size() ||
        line.find(' ', space + 1) != line.npos)
      throw Error(Fault::BadFile,
                  fmt::format("line {} is {}, not two parts with a space between them", number,
                              quoted(line)))
          .in(file.name());
    out.merges.add(line);
  });
}

void read_vocab_text(const Source& file, TokenizerJson& out) {
  out.file = file.name();
  std::uint32_t id = 0;
  each_line(lines_of(file, out.text), [&](std::string_view line) {
    if (id == kMaxTokens || line.size() > kMaxTokenBytes)
      throw Error(Fault::BadFile, fmt::format("line {}: wtool's limits are {} tokens of {} bytes",
                                              id + 1, kMaxTokens, kMaxTokenBytes))
          .in(file.name());
    out.vocabulary.push_back({line, id++, 0});
  });
}

}  // namespace wtool
