// The files that describe a tokenizer. The first part chooses, by a byte each, where the table is
// looked for, the architecture, how many entries it has, and what the parts from the fifth on are;
// the others are config.json, tokenizer_config.json, tokenizer.json, a SentencePiece model, and two
// small files.
#include <array>

#include <nlohmann/json.hpp>

#include "formats/hf/tokenizer.h"
#include "formats/registry.h"
#include "tests/fuzz/readers.h"

namespace wtool::fuzz {
namespace {

constexpr std::array<std::string_view, 6> kArchitectures{"llama", "gemma", "phi3",
                                                         "bert",  "gpt2",  "granite"};
constexpr std::array<std::string_view, 2> kModels{"tokenizer.model", "sentencepiece.bpe.model"};
constexpr std::array<std::string_view, 6> kSmall{"added_tokens.json", "merges.txt",
                                                 "vocab.json",        "chat_template.json",
                                                 "vocab.txt",         "chat_template.jinja"};

std::uint64_t count_of(const Metadata& meta, std::string_view key) {
  const MetaValue* value = meta.find(key);
  const auto* array = value ? std::get_if<MetaArray>(value) : nullptr;
  if (!array) return 0;
  std::uint64_t n = 0;
  for_each(*array, [&](const MetaValue& v) {
    if (const auto* type = std::get_if<std::int32_t>(&v))
      expect(*type >= 1 && *type <= 6, "a token type that is none");
    ++n;
    return true;
  });
  expect(n == array->count, "an array of another length");
  return n;
}

// Tables of one length, ids within them, keys that a GGUF file takes and gives back.
void expect_whole(const Metadata& meta) {
  const std::uint64_t tokens = count_of(meta, "tokenizer.ggml.tokens");
  expect(count_of(meta, "tokenizer.ggml.token_type") == tokens, "not a type for each token");
  if (meta.find("tokenizer.ggml.scores"))
    expect(count_of(meta, "tokenizer.ggml.scores") == tokens, "not a score for each token");
  for (const MetaEntry& e : meta)
    if (e.key.ends_with("_token_id")) expect(*meta.count(e.key) < tokens, "an id of no token");
  const Format& gguf = all_formats().format("gguf");
  const Layout layout = gguf.layout(meta, {});
  Diagnostics faults;
  const Catalog again =
      read_catalog(from_memory("tokenizer.gguf", Buffer(layout.head)), all_formats(), faults);
  expect(again.meta.size() >= meta.size(), "keys that were lost");
}

void run(Bytes input) {
  const std::vector<std::string> parts = split_parts(as_text(input), 7);
  const auto choice = [&](std::size_t i) -> std::size_t {
    return parts.empty() || parts[0].size() <= i ? 0 : static_cast<unsigned char>(parts[0][i]);
  };
  Model model;
  model.path = "model";
  const auto add = [&](std::size_t part, std::string_view name) {
    if (part < parts.size() && !parts[part].empty())
      model.side.push_back(
          {std::string(name), from_memory("model/" + std::string(name), to_buffer(parts[part]))});
  };
  add(2, "tokenizer_config.json");
  add(3, "tokenizer.json");
  add(4, kModels[choice(3) % kModels.size()]);
  add(5, kSmall[choice(4) % kSmall.size()]);
  add(6, kSmall[choice(5) % kSmall.size()]);
  const auto config =
      nlohmann::json::parse(parts.size() > 1 ? parts[1] : std::string(), nullptr, false);
  Metadata meta;
  std::vector<std::string> notes;
  try {
    add_tokenizer(model, config,
                  {static_cast<TokenizerPath>(choice(0) % 4),
                   kArchitectures[choice(1) % kArchitectures.size()],
                   {},
                   choice(2) * 8,
                   {}},
                  meta, notes);
  } catch (const Error& e) {
    return expect_honest(e);
  }
  expect_whole(meta);
}

}  // namespace

extern const Target kTokenizer;
const Target kTokenizer{"tokenizer", run, mutate_folder};

}  // namespace wtool::fuzz
