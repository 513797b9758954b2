#include "formats/hf/tokenizer_special.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "formats/schemes/quantization_config.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

using Json = nlohmann::json;

// The item of a template, if it is a token rather than the text itself: {"SpecialToken": {"id":
// …}}.
std::string_view token_at(const Json& list, std::size_t i) {
  const Json* token = member(list[i], "SpecialToken");
  return token ? text_of(member(*token, "id")) : std::string_view();
}
std::string_view sequence_at(const Json& list, std::size_t i) {
  const Json* sequence = member(list[i], "Sequence");
  return sequence ? text_of(member(*sequence, "id")) : std::string_view();
}
const Json& list_of(const Json& of, std::string_view key) {
  static const Json kNone = Json::array();
  const Json* list = member(of, key);
  return list && list->is_array() ? *list : kNone;
}

// Runs over the post_processor as the reference does: once found, a flag may only be changed.
class Specials {
 public:
  explicit Specials(SpecialSources from) : from_(std::move(from)) {}

  void add_to(Metadata& meta) {
    if (from_.json) {
      inherit();
      process(from_.json->post_processor);
    }
    by_config();
    by_model();
    by_text(Role::Bos);
    by_text(Role::Eos);
    drop_flags_without_token();
    for (const auto& [role, id] : ids_)
      if (!row_of(role).id_key.empty())
        meta.set(row_of(role).id_key, static_cast<std::uint32_t>(id));
    for (const auto& [role, on] : flags_)
      if (!row_of(role).add_key.empty()) meta.set(row_of(role).add_key, on);
  }

 private:
  std::string& text(Role r) { return from_.config.text_of(r); }

  void flag(Role role, bool on) {
    const auto it = std::ranges::find(flags_, role, &std::pair<Role, bool>::first);
    if (it == flags_.end())
      flags_.emplace_back(role, on);
    else
      it->second = on;
  }

  // BERT and its like: what begins and ends a text has other names.
  void inherit() {
    if (text(Role::Bos).empty()) text(Role::Bos) = text(Role::Class);
    if (text(Role::Eos).empty()) text(Role::Eos) = text(Role::Separator);
  }

  void process(const Json& part) {
    const std::string_view type = text_of(member(part, "type"));
    if (type == "RobertaProcessing") {
      for (const Role r : {Role::Bos, Role::Eos, Role::Separator}) flag(r, true);
    } else if (type == "TemplateProcessing") {
      template_of(part);
    } else {
      for (const Json& p : list_of(part, "processors")) process(p);
    }
  }

  void template_of(const Json& part) {
    const Json &single = list_of(part, "single"), &pair = list_of(part, "pair");
    std::string_view first, last;
    if (single.size() > 1) {
      first = token_at(single, 0);
      last = token_at(single, single.size() - 1);
      if (!first.empty()) leading(first);
      if (!last.empty()) trailing(last);
    }
    if (!pair.empty()) between(pair, first, last);
  }

  void leading(std::string_view token) {
    if (text(Role::Bos).empty()) text(Role::Bos) = token;
    if (text(Role::Class).empty() && token != text(Role::Bos)) text(Role::Class) = token;
    flag(Role::Bos, token == text(Role::Bos) || token == text(Role::Class));
  }

  // What the template puts at the end ends a text; the token said to do so then ends a turn.
  void trailing(std::string_view token) {
    if (token != text(Role::Eos)) {
      if (const Role turn = text(Role::Eot).empty() ? Role::Eot : Role::Eom; text(turn).empty())
        text(turn) = text(Role::Eos);
      text(Role::Eos) = token;
    }
    flag(Role::Eos, true);
  }

  // [CLS] A [SEP] B [SEP]: one or two tokens between the two texts separate them.
  void between(const Json& pair, std::string_view first, std::string_view last) {
    std::size_t begin = 0, end = pair.size();
    if (!first.empty() && token_at(pair, 0) == first) ++begin;
    if (!last.empty() && end > begin && token_at(pair, end - 1) == last) --end;
    if (end - begin < 3 || sequence_at(pair, begin) != "A" || sequence_at(pair, end - 1) != "B")
      return;
    const auto separates = [&](std::size_t i) {
      const std::string_view token = token_at(pair, i);
      return !token.empty() && (token == text(Role::Separator) || token == text(Role::Eos));
    };
    ++begin;
    --end;
    const bool on =
        (separates(begin) && last.empty()) || (end - begin == 2 && separates(begin + 1));
    flag(Role::Separator, on);
    if (on && text(Role::Separator).empty()) text(Role::Separator) = text(Role::Eos);
  }

  template <class Visit>
  static void each_role(Visit visit) {
    for (std::size_t i = 0; i < kRoles; ++i) visit(static_cast<Role>(i));
  }

  void by_config() {
    each_role([&](Role r) {
      if (const auto on = from_.config.adds[static_cast<std::size_t>(r)]) flag(r, *on);
      if (text(r).empty() || !from_.json) return;
      if (const AddedToken* token = from_.json->find_added(text(r))) take(r, token->id);
    });
  }

  void by_model() {
    each_role([&](Role r) {
      const std::string key = fmt::format("{}_token_id", row_of(r).name);
      if (const auto id = count_of(member(from_.model, key))) take(r, *id);
    });
  }

  // The reference leaves these to llama.cpp's defaults, which are right for few models.
  void by_text(Role role) {
    if (has(role)) return;
    std::optional<std::uint64_t> id;
    if (!text(role).empty()) id = from_.table.find(text(role));
    const std::string key = fmt::format("{}_token_id", row_of(role).name);
    const Json& several = list_of(from_.model, key);
    if ((!id || *id >= from_.table.size()) && !several.empty()) id = count_of(&several[0]);
    if (!id || *id >= from_.table.size()) return;
    take(role, *id);
    from_.notes.push_back(fmt::format("{}: token {} ({}), {}", key, *id,
                                      quoted(from_.table[*id].text),
                                      several.empty() ? "which tokenizer_config.json names"
                                                      : "the first that config.json lists"));
  }

  // llama.cpp takes some token of its own choice then, or aborts.
  void drop_flags_without_token() {
    if (from_.kind == "llama") return;
    for (auto& [role, on] : flags_)
      if (on && (role == Role::Bos || role == Role::Eos) && !has(role)) {
        on = false;
        from_.notes.push_back(fmt::format(
            "add_{}_token: written as false, since there is no such token", row_of(role).name));
      }
  }

  bool has(Role role) const {
    return std::ranges::find(ids_, role, &std::pair<Role, std::uint64_t>::first) != ids_.end();
  }
  void take(Role role, std::uint64_t id) {
    if (has(role)) return;
    if (id < from_.table.size()) {
      ids_.emplace_back(role, id);
      return;
    }
    from_.notes.push_back(fmt::format("{}_token_id: {} is left out: there are {} tokens",
                                      row_of(role).name, id, from_.table.size()));
  }

  SpecialSources from_;
  std::vector<std::pair<Role, std::uint64_t>> ids_;
  std::vector<std::pair<Role, bool>> flags_;
};

}  // namespace

void add_special_tokens(SpecialSources from, Metadata& meta) {
  Specials(std::move(from)).add_to(meta);
}

}  // namespace wtool
