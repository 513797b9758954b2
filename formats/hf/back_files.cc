#include "formats/hf/back_files.h"

#include <fmt/format.h>

#include "formats/hf/back_config.h"
#include "formats/hf/back_tokenizer.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

void add(BackFiles& out, std::string name, const std::string& text) {
  if (text.empty()) return;
  SourcePtr content = from_memory(name, to_buffer(text));
  out.files.push_back({std::move(name), std::move(content)});
}

// What nobody asked for has no place in the files.
void tell_unread(const BackKeys& keys, std::string_view prefix, std::vector<std::string>& lost) {
  constexpr std::size_t kMost = 20;
  std::size_t count = 0;
  for (const std::string& key : keys.unread(prefix)) {
    if (++count > kMost) continue;
    lost.push_back(fmt::format("{}: has no place in the files", printable(key)));
  }
  if (count > kMost) lost.push_back(fmt::format("{}*: {} more keys", prefix, count - kMost));
}

// What the file says of itself as a GGUF file, and what makes the folder's name.
void skip_file_facts(BackKeys& keys) {
  for (std::string_view key :
       {"general.architecture", "general.type", "general.file_type", "general.quantization_version",
        "general.alignment", "general.size_label", "general.name"})
    keys.skip(key);
}

}  // namespace

BackFiles back_files(const Metadata& gguf, const BackFacts& facts) {
  BackKeys keys(gguf);
  BackFiles out;
  const BackVocabulary tokens(keys);
  const std::uint64_t vocabulary =
      tokens.size() > 0 ? tokens.size() : keys.count(keys.own("vocab_size")).value_or(0);
  const SpecialIds special(keys, vocabulary);

  add(out, "config.json", back_config(keys, facts, tokens.size(), special, out.lost));
  add(out, "generation_config.json", back_generation_config(keys, special, out.lost));
  back_tokenizer(keys, facts, tokens, special, out);

  skip_file_facts(keys);
  for (const std::string& prefix :
       {keys.own(""), std::string("general."), std::string("tokenizer.")})
    tell_unread(keys, prefix, out.lost);
  return out;
}

}  // namespace wtool
