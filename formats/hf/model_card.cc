#include "formats/hf/model_card.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/hf/model_card_name.h"
#include "formats/hf/model_card_yaml.h"
#include "formats/schemes/quantization_config.h"
#include "lib/base/json_reader.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

using nlohmann::json;
using Text = std::string_view;
using Notes = std::vector<std::string>;

constexpr std::uint64_t kMaxHead = std::uint64_t{2} << 20;  // long tables of results have 1 MB
constexpr std::uint64_t kMaxJson = std::uint64_t{4} << 20;
constexpr Text kReadme = "README.md", kGeneration = "generation_config.json";

// In the order of the file: a key, where a card has it, and what part of a name it is otherwise.
struct Field {
  Text key;
  std::array<Text, 3> card;  // the first that is there
  std::string NameParts::*part = nullptr;
  bool title = false;  // the part is a name to be written as a title
};
constexpr std::array<Field, 15> kFields{{
    {"general.name", {"name", "model_name"}, &NameParts::name, true},
    {"general.author", {"author", "model_author", "model_creator"}},
    {"general.version", {"version", "model_version"}, &NameParts::version},
    {"general.organization",
     {"organization", "model_organization"},
     &NameParts::organization,
     true},
    {"general.finetune", {"finetune", "model_finetune"}, &NameParts::finetune},
    {"general.basename", {"basename", "model_basename", "model_type"}, &NameParts::basename},
    {"general.description", {"description", "model_description"}},
    {"general.size_label", {"size_label", "model_size_label"}, &NameParts::size_label},
    {"general.license", {"license"}},
    {"general.license.name", {"license_name"}},
    {"general.license.link", {"license_link"}},
    {"general.source.url", {"url", "model_url"}},
    {"general.source.doi", {"doi", "model_doi"}},
    {"general.source.uuid", {"uuid", "model_uuid"}},
    {"general.source.repo_url", {"repo_url", "model_repo_url"}},
}};

// Models or data sets that this one was made from: "general.base_model.0.name".
struct Origin {
  Text key;
  std::array<Text, 3> card;
};
constexpr std::array<Origin, 2> kOrigins{{
    {"general.base_model", {"base_model", "base_models", "base_model_sources"}},
    {"general.dataset", {"datasets", "dataset", "dataset_sources"}},
}};
constexpr std::array<Text, 9> kOriginKeys{
    "name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"};

struct List {
  Text key;
  std::array<Text, 2> card;  // one after the other
};
constexpr std::array<List, 2> kLists{
    {{"general.tags", {"tags", "pipeline_tag"}}, {"general.languages", {"languages", "language"}}}};

struct Sampling {
  Text key;
  std::array<Text, 2> config;  // of generation_config.json: the first that is there
  MetaType type;
};
constexpr std::array<Sampling, 12> kSampling{{
    {"general.sampling.sequence", {"sequence"}, MetaType::String},
    {"general.sampling.top_k", {"top_k"}, MetaType::I32},
    {"general.sampling.top_p", {"top_p"}, MetaType::F32},
    {"general.sampling.min_p", {"min_p"}, MetaType::F32},
    {"general.sampling.xtc_probability", {"xtc_probability"}, MetaType::F32},
    {"general.sampling.xtc_threshold", {"xtc_threshold"}, MetaType::F32},
    {"general.sampling.temp", {"temperature"}, MetaType::F32},
    {"general.sampling.penalty_last_n", {"penalty_last_n"}, MetaType::I32},
    {"general.sampling.penalty_repeat", {"penalty_repeat", "repetition_penalty"}, MetaType::F32},
    {"general.sampling.mirostat", {"mirostat"}, MetaType::I32},
    {"general.sampling.mirostat_tau", {"mirostat_tau"}, MetaType::F32},
    {"general.sampling.mirostat_eta", {"mirostat_eta"}, MetaType::F32},
}};

bool wanted(Text key) {
  const auto names = [&](const auto& row) {
    return !key.empty() && std::ranges::find(row.card, key) != row.card.end();
  };
  return std::ranges::any_of(kFields, names) || std::ranges::any_of(kOrigins, names) ||
         std::ranges::any_of(kLists, names);
}

// Readers take a string for one of C, in UTF-8.
bool is_storable(Text s) noexcept {
  return is_utf8(s) && s.find('\0') == s.npos;
}

void set_text(Metadata& meta, Text key, std::string value) {
  if (!value.empty()) meta.set(key, std::move(value));
}

// generation_config.json.

std::optional<MetaValue> sampling_value(const json& value, MetaType type) {
  if (type == MetaType::String)
    return value.is_string() && is_storable(text_of(&value))
               ? std::optional<MetaValue>(value.get<std::string>())
               : std::nullopt;
  if (!value.is_number()) return std::nullopt;
  const double number = value.get<double>();
  if (type == MetaType::F32)
    return std::abs(number) <= static_cast<double>(std::numeric_limits<float>::max())
               ? std::optional<MetaValue>(static_cast<float>(number))
               : std::nullopt;
  constexpr double kLeast = std::numeric_limits<std::int32_t>::min(),
                   kMost = std::numeric_limits<std::int32_t>::max();
  if (!(number >= kLeast && number <= kMost) || number != std::trunc(number)) return std::nullopt;
  return static_cast<std::int32_t>(number);
}

json generation_config(const SideFile& side, Notes& notes) {
  const auto left_out = [&](std::string why) {
    notes.push_back(
        fmt::format("{}: {}: no sampling parameters are taken from it", side.content->name(), why));
    return json::object();
  };
  if (side.content->size() > kMaxJson)
    return left_out(fmt::format("has {} bytes, more than {}", side.content->size(), kMaxJson));
  const Buffer bytes = read_all({side.content, 0, side.content->size()});
  std::string checked(as_text(bytes));  // bounds the depth, too
  try {
    JsonReader reader(checked);
    reader.skip();
    reader.finish();
  } catch (const JsonFault& fault) {
    return left_out(fmt::format("byte {}: {}", fault.at, fault.text()));
  }
  json out = json::parse(as_text(bytes), nullptr, false);
  return out.is_object() ? out : left_out("is not a JSON object");
}

void add_sampling(const Model& model, Metadata& meta, Notes& notes) {
  const SideFile* side = model.side_file(kGeneration);
  if (!side) return;
  const json config = generation_config(*side, notes);
  for (const Sampling& s : kSampling) {
    const Text key = config.contains(s.config[0]) ? s.config[0] : s.config[1];
    const json* value = key.empty() ? nullptr : member(config, key);
    if (!value) continue;
    if (auto stored = sampling_value(*value, s.type))
      meta.set(s.key, std::move(*stored));
    else
      notes.push_back(fmt::format("{}: {} is no {} and left out", side->content->name(),
                                  quoted(key), name_of(s.type)));
  }
}

// README.md and names.

// "org/name" of an address on the hub; empty if it is another.
std::string_view repository_in(std::string_view address) {
  for (const std::string_view begin : {"http://huggingface.co/", "https://huggingface.co/"})
    if (address.starts_with(begin)) {
      const std::string_view id = address.substr(begin.size());
      const std::size_t slash = id.find('/');
      if (slash != 0 && slash < id.size() - 1 && id.find('/', slash + 1) == id.npos) return id;
    }
  return {};
}

class General {
 public:
  General(Text id, const Model& model, const json& config, const CardFacts& facts, Notes& notes)
      : facts_(facts), notes_(notes) {
    if (const SideFile* readme = model.side_file(kReadme)) read(*readme);
    // With more than one slash it is a path on somebody's computer.
    const Text path = text_of(member(config, "_name_or_path"));
    if (std::ranges::count(path, '/') <= 1 && path.find_first_not_of("./") != path.npos)
      add_name(path);
    add_name(id);
  }

  void write(Metadata& meta) {
    for (const Field& f : kFields) set_text(meta, f.key, value_of(f));
    for (const Origin& o : kOrigins) origins(o, meta);
    for (const List& l : kLists) list(l, meta);
  }

 private:
  void add_name(Text name) {
    if (is_storable(name))
      names_.push_back(parts_of_name(name, facts_.parameters));
    else
      notes_.push_back(fmt::format("{} is no UTF-8 text: no name is taken from it", quoted(name)));
  }

  void read(const SideFile& readme) {
    file_ = readme.content->name();
    const std::uint64_t size = std::min(readme.content->size(), kMaxHead);
    Notes found;
    card_ = Card::read(as_text(read_all({readme.content, 0, size})), wanted, found);
    for (const std::string& note : found) notes_.push_back(fmt::format("{}: {}", file_, note));
  }

  void left_out(Text key, Text why) {
    notes_.push_back(fmt::format("{}: {} {} and left out", file_, quoted(key), why));
  }

  // The scalar items of an entry.
  std::vector<std::string> texts(const CardEntry& entry) {
    std::vector<std::string> out;
    for (const CardItem& item : entry.items) {
      const auto* text = std::get_if<std::string>(&item);
      if (!text) {
        left_out(entry.key, "is a list of maps");
        return {};
      }
      out.push_back(*text);
    }
    return out;
  }

  std::string value_of(const Field& f) {
    for (const Text key : f.card)
      if (const CardEntry* e = key.empty() ? nullptr : card_.find(key)) {
        const std::vector<std::string> values = texts(*e);
        if (values.size() > 1 && f.key != "general.license")
          left_out(key, "is a list");
        else if (std::string value = fmt::format("{}", fmt::join(values, ",")); !value.empty())
          return value;
      }
    for (const NameParts& name : names_)
      if (f.part && !(name.*f.part).empty()) return f.title ? title_of(name.*f.part) : name.*f.part;
    return f.part == &NameParts::size_label ? computed_size() : std::string();
  }

  std::string computed_size() const {
    if (facts_.parameters == 0) return {};
    if (facts_.experts == 0) return size_label(facts_.parameters);
    return fmt::format("{}x{}", facts_.experts,
                       size_label(facts_.shared_parameters + facts_.expert_parameters));
  }

  // What an id or address says of a model.
  CardMap origin(const std::string& id) const {
    CardMap out;
    std::string_view inner = id;
    const bool address =
        id.starts_with("http://") || id.starts_with("https://") || id.starts_with("ssh://");
    if (address) {
      out.emplace_back("repo_url", id);
      inner = repository_in(id);
      if (inner.empty()) return out;
    }
    const NameParts parts = parts_of_name(inner, facts_.parameters);
    out.emplace_back("name", title_of(parts.name));
    out.emplace_back("version", parts.version);
    out.emplace_back("organization", title_of(parts.organization));
    if (!address && !parts.organization.empty() && !parts.name.empty())
      out.emplace_back("repo_url",
                       fmt::format("https://huggingface.co/{}/{}", parts.organization, parts.name));
    return out;
  }

  void origins(const Origin& o, Metadata& meta) {
    const CardEntry* entry = nullptr;
    for (const Text key : o.card)
      if (!entry) entry = card_.find(key);
    if (!entry) return;
    meta.set(fmt::format("{}.count", o.key), static_cast<std::uint32_t>(entry->items.size()));
    for (std::size_t i = 0; i < entry->items.size(); ++i) {
      const CardItem& item = entry->items[i];
      const auto* id = std::get_if<std::string>(&item);
      const CardMap said = id ? origin(*id) : std::get<CardMap>(item);
      for (const Text key : kOriginKeys) {
        const auto it = std::ranges::find(said, key, &CardMap::value_type::first);
        if (it != said.end()) set_text(meta, fmt::format("{}.{}.{}", o.key, i, key), it->second);
      }
    }
  }

  void list(const List& l, Metadata& meta) {
    std::vector<MetaValue> values;
    for (const Text key : l.card)
      if (const CardEntry* e = card_.find(key))
        for (std::string& s : texts(*e)) values.emplace_back(std::move(s));
    if (!values.empty()) meta.set(l.key, array_of(MetaType::String, values));
  }

  const CardFacts& facts_;
  Notes& notes_;
  std::string file_;
  Card card_;
  std::vector<NameParts> names_;  // the first that has a part decides
};

// Part of a file's name: no folder, no surprises.
std::string file_part(Text s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\n')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\n')) s.remove_suffix(1);
  std::string out(s);
  for (char& c : out)
    if (c == ' ' || c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      c = '-';
  return out;
}

}  // namespace

std::string id_of_folder(const std::string& path) {
  namespace fs = std::filesystem;
  fs::path full = fs::absolute(path).lexically_normal();
  if (!full.has_filename()) full = full.parent_path();
  constexpr Text kCached = "models--";
  const std::string repository = full.parent_path().parent_path().filename().native();
  if (full.parent_path().filename() == "snapshots" && repository.starts_with(kCached)) {
    std::string id = repository.substr(kCached.size());
    if (const std::size_t at = id.find("--"); at != id.npos) id.replace(at, 2, "/");
    return id;
  }
  return full.filename().native();
}

void add_general_as(std::string_view id, const Model& model, const json& config,
                    const CardFacts& facts, Metadata& meta, std::vector<std::string>& notes) {
  set_text(meta, "general.architecture", std::string(facts.architecture));
  meta.set("general.type", std::string("model"));
  add_sampling(model, meta, notes);
  General(id, model, config, facts, notes).write(meta);
}

void add_general(const Model& model, const json& config, const CardFacts& facts, Metadata& meta,
                 std::vector<std::string>& notes) {
  add_general_as(id_of_folder(model.path), model, config, facts, meta, notes);
}

std::string default_file_name(const Metadata& meta, std::string_view type_label) {
  constexpr std::size_t kMostBytes = 200;  // a card may say anything; systems allow 255
  std::string out;
  const auto add = [&](std::string_view text) {
    const std::string part = file_part(text);
    if (part.empty() || out.size() + part.size() > kMostBytes) return;
    if (!out.empty()) out += '-';
    out += part;
  };
  const std::string_view base = meta.text("general.basename");
  add(base.empty() ? meta.text("general.name") : base);
  if (out.empty()) out = "ggml-model";
  for (const std::string_view key : {"general.size_label", "general.finetune", "general.version"})
    add(meta.text(key));
  std::string type = file_part(type_label);
  std::ranges::transform(type, type.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  add(type);
  return out + ".gguf";
}

std::string size_label(std::uint64_t parameters) {
  struct Scale {
    double least, scale;
    char letter;
  };
  constexpr std::array<Scale, 4> kScales{
      {{1e12, 1e-12, 'T'}, {1e9, 1e-9, 'B'}, {1e6, 1e-6, 'M'}, {-1, 1e-3, 'K'}}};
  const auto number = static_cast<double>(parameters);
  const Scale unit =
      *std::ranges::find_if(kScales, [&](const Scale& u) { return number > u.least; });
  const double scaled = number * unit.scale, rounded = std::nearbyint(scaled);
  // At least two digits; a zero before the point is none.
  const int decimals = rounded >= 10 ? 0 : rounded >= 1 ? 1 : 2;
  return fmt::format("{:.{}f}{}", scaled, decimals, unit.letter);
}

}  // namespace wtool
