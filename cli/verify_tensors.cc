#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include <fmt/format.h>

#include "cli/content.h"
#include "cli/json.h"
#include "cli/terminal.h"
#include "cli/verify.h"
#include "lib/base/text.h"
#include "lib/base/text_hash.h"
#include "lib/model/selector.h"

namespace wtool {
namespace {

// What became of one tensor.
struct TensorVerdict {
  enum class Answer : std::uint8_t { Ok, Failed, Missing, Unlisted };
  std::string_view name;
  const TensorEntry* entry = nullptr;      // in the model
  const ManifestTensor* listed = nullptr;  // in the manifest
  Answer answer = Answer::Ok;
  std::string difference = {};
  Sha256 found = {};
  bool hashed = false;

  const Sha256& expected() const { return listed->content ? *listed->content : listed->stored; }
};
using Answer = TensorVerdict::Answer;

std::string_view word(Answer answer) {
  switch (answer) {
    case Answer::Ok: return "OK";
    case Answer::Failed: return "FAILED";
    case Answer::Missing: return "MISSING";
    case Answer::Unlisted: break;
  }
  return "UNLISTED";
}

using Listed = std::unordered_map<std::string_view, const ManifestTensor*, TextHash>;

// The manifest's tensors that this model's are to be. Which model it is, its files' places tell, or
// else there is only one that it can be.
class Expected {
 public:
  Expected(const DigestList& list, const Model& model, bool alone) : list_(list) {
    std::unordered_set<std::string> places;
    for (const SourcePtr& s : model.catalog.sources()) places.insert(real_path(s->name()));
    const Manifest& m = *list.manifest;
    std::vector<bool> wanted(m.files.size());
    for (std::size_t f = 0; f < wanted.size(); ++f)
      wanted[f] = places.contains(real_path(list.place(m.files[f].name)));
    const bool known = std::ranges::find(wanted, true) != wanted.end();
    if (!alone) widen(wanted);
    for (const ManifestTensor& t : m.tensors)
      if (!known || wanted[t.file]) add(t, model);
  }
  const Listed& tensors() const noexcept { return tensors_; }

 private:
  // To all files of the models: what is missing is missed.
  void widen(std::vector<bool>& wanted) const {
    if (list_.manifest->models.empty()) wanted.assign(wanted.size(), true);
    for (const ManifestModel& m : list_.manifest->models)
      if (std::ranges::any_of(m.files, [&](std::uint32_t f) { return wanted[f]; }))
        for (const std::uint32_t f : m.files) wanted[f] = true;
  }
  void add(const ManifestTensor& t, const Model& model) {
    if (tensors_.emplace(t.name, &t).second) return;
    throw Error(Fault::Usage, fmt::format("tensor {} is that of several models in {}",
                                          quoted(t.name), quoted(list_.path)))
        .in(model.path)
        .hint("a model that lies where the manifest says is known by its place");
  }

  const DigestList& list_;
  Listed tensors_;
};

// The tensors that the patterns select from all that are stored or listed. A logical tensor stands
// for its parts.
class Selection {
 public:
  Selection(const Model& model, const Listed& listed) : model_(model), listed_(listed) {
    for (const LogicalTensor& t : model.tensors) {
      Names names;
      for (std::size_t i = 0; i < t.count; ++i) names.push_back(model.part(t, i).name);
      add(t, std::move(names));
    }
    for (const TensorEntry& e : model.catalog.entries())
      add({.name = e.name, .shape = e.shape, .dtype = e.dtype}, {e.name});
    // Also by what they were: a tensor must not slip out of a selection by another type or shape.
    std::vector<const ManifestTensor*> all;
    for (const auto& [name, t] : listed) all.push_back(t);
    std::ranges::sort(all, {}, &ManifestTensor::name);
    for (const ManifestTensor* t : all)
      add({.name = t->name, .shape = t->shape, .dtype = parse_dtype(t->dtype).value_or(DType::V1)},
          {t->name});
  }

  // Once each, in the order of the file.
  std::vector<TensorVerdict> verdicts(const std::vector<std::string>& patterns) const {
    std::vector<TensorVerdict> out;
    std::unordered_set<std::string_view, TextHash> seen;
    const auto take = [&](std::string_view name, const ManifestTensor* listed) {
      if (seen.insert(name).second) out.push_back({name, model_.catalog.find(name), listed});
    };
    for (const std::uint32_t i : select(candidates_, patterns, {})) {
      for (const std::string_view name : names_[i]) take(name, find(name));
      // Listed as one tensor, but stored in parts by now.
      if (const ManifestTensor* listed = find(candidates_[i].name)) take(listed->name, listed);
    }
    return out;
  }

 private:
  using Names = std::vector<std::string_view>;

  const ManifestTensor* find(std::string_view name) const {
    const auto it = listed_.find(name);
    return it == listed_.end() ? nullptr : it->second;
  }
  void add(const LogicalTensor& t, Names names) {
    candidates_.push_back(t);
    names_.push_back(std::move(names));
  }

  const Model& model_;
  const Listed& listed_;
  std::vector<LogicalTensor> candidates_;
  std::vector<Names> names_;
};

// Names, types and shapes; gives what is to be hashed for the rest, and of which.
std::vector<Extent> compare_headers(const Catalog& catalog, std::optional<DType> void_as,
                                    std::vector<TensorVerdict>& all,
                                    std::vector<TensorVerdict*>& of) {
  std::vector<Extent> out;
  for (TensorVerdict& v : all) {
    if (!v.entry || !v.listed) {
      v.answer = v.entry ? Answer::Unlisted : Answer::Missing;
      continue;
    }
    ContentData c = content_data(catalog, *v.entry, void_as);
    if (name_of(c.dtype) != v.listed->dtype ||
        !std::ranges::equal(v.entry->shape, v.listed->shape)) {
      v.answer = Answer::Failed;
      v.difference =
          fmt::format("is {} {}, but {} {} is listed", name_of(c.dtype), to_text(v.entry->shape),
                      v.listed->dtype, to_text(v.listed->shape));
      continue;
    }
    // An older manifest knows the bytes as they lie in the file only.
    out.push_back(v.listed->content ? std::move(c.data) : catalog.extent(*v.entry));
    of.push_back(&v);
  }
  return out;
}

void compare(const Catalog& catalog, std::optional<DType> void_as, std::vector<TensorVerdict>& all,
             const Context& context) {
  std::vector<TensorVerdict*> of;
  const std::vector<Extent> extents = compare_headers(catalog, void_as, all, of);
  Progress progress(*context.common, "verify", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  const std::vector<Sha256> digests = sha256_of(extents, run);
  for (std::size_t i = 0; i < of.size(); ++i) {
    of[i]->found = digests[i];
    of[i]->hashed = true;
    if (digests[i] == of[i]->expected()) continue;
    of[i]->answer = Answer::Failed;
    of[i]->difference = "its values differ";
  }
  for (const SourcePtr& s : catalog.sources()) s->check_unchanged();
}

void print(const std::vector<TensorVerdict>& all, const std::string& source) {
  for (const TensorVerdict& v : all) {
    const Style style = v.answer == Answer::Ok ? Style::Green : Style::Red;
    out(fit_charset(fmt::format("{}: {} ({})\n", printable(v.name), paint(style, word(v.answer)),
                                printable(source))));
    if (v.answer != Answer::Failed) continue;
    if (v.hashed)
      out(fmt::format("  expected {}\n  found    {}\n", v.expected().hex(), v.found.hex()));
    else
      out(fit_charset(fmt::format("  {}\n", printable(v.difference))));
  }
}

void write_json(const VerifyOptions& options, const DigestList& list,
                const std::vector<TensorVerdict>& all, ExitCode code) {
  JsonWriter w(out);
  w.begin_document("wtool.verify/1", code == ExitCode::Ok, options.paths);
  write_signature(w, list);
  w.key("files");
  w.begin_array();
  w.end_array();
  w.key("tensors");
  w.begin_array();
  for (const TensorVerdict& v : all) {
    w.begin_object();
    w.name_member("name", v.name);
    w.member("result", lower(word(v.answer)));
    w.name_member("source", list.path);
    if (v.listed) w.member("expected", v.expected().hex());
    if (v.hashed) w.member("found", v.found.hex());
    if (!v.difference.empty()) w.member("difference", v.difference);
    w.end_object();
  }
  w.end_array();
  w.end_object();
}

void check_options(const VerifyOptions& options) {
  if (options.check.empty())
    throw Error(Fault::Usage, "--tensors needs a manifest to compare with")
        .hint("-c MANIFEST, as 'wtool digest --per-tensor' writes it");
  if (!options.sha256.empty())
    throw Error(Fault::Usage, "--sha256 is of a file, not of a tensor: either it or --tensors");
  if (options.paths.size() != 1)
    throw Error(Fault::Usage,
                fmt::format("--tensors is for one model, not {}", options.paths.size()));
  if (!options.signature.ignore.empty() || options.signature.ignore_unsigned)
    throw Error(Fault::Usage, "--ignore and --ignore-unsigned are about files, not tensors");
}

}  // namespace

ExitCode verify_tensors(const VerifyOptions& options, const Context& context) {
  check_options(options);
  const DigestList list = read_digest_list(options.check, options.signature, context);
  if (list.usable() && !list.manifest)
    throw Error(Fault::Usage, "lists files, not tensors")
        .in(list.path)
        .hint("'wtool digest --per-tensor' writes a manifest of both");
  ExitCode code = list.usable() ? ExitCode::Ok : list.verdict->code;
  std::vector<TensorVerdict> all;
  std::shared_ptr<const Model> model;
  if (list.usable()) {
    InputOptions input = options.open;
    input.path = options.paths[0];
    model = open_input(input, context);
    const Expected expected(list, *model, input.alone);
    try {
      all = Selection(*model, expected.tensors()).verdicts(options.tensors);
    } catch (Error& e) {
      throw e.in(model->path);
    }
    compare(model->catalog, open_options(input, context).void_as, all, context);
    const bool ok =
        std::ranges::all_of(all, [](const TensorVerdict& v) { return v.answer == Answer::Ok; });
    code = ok ? ExitCode::Ok : ExitCode::No;
  }
  if (context.common->json)
    write_json(options, list, all, code);
  else
    print(all, list.path);
  return code;
}

ExitCode verify_content(const VerifyOptions& options, const Context& context) {
  if (!options.check.empty() || !options.sha256.empty() || is_given(options.signature))
    throw Error(Fault::Usage, "--content stands alone: no --sha256, no --check, no signature")
        .hint("--tensors '*' -c MANIFEST compares all tensors with a signed manifest");
  const auto expected = parse_content(options.content);
  if (!expected)
    throw Error(Fault::Usage,
                fmt::format("--content: {} is no content digest", quoted(options.content)))
        .hint("content/1: and 64 hexadecimal digits, as 'wtool digest --content' prints them");
  if (options.paths.size() != 1)
    throw Error(Fault::Usage,
                fmt::format("--content is for one model, not {}", options.paths.size()));
  InputOptions input = options.open;
  input.path = options.paths[0];
  const ModelContent found = content_of(input, context);
  const bool ok = found.content == *expected;
  if (context.common->json) {
    JsonWriter w(out);
    w.begin_document("wtool.verify/1", ok, {found.path});
    w.key("content");
    w.begin_object();
    w.member("expected", content_text(*expected));
    w.member("found", content_text(found.content));
    w.member("tensors", found.tensors);
    w.end_object();
    w.key("files");
    w.begin_array();
    w.end_array();
    w.end_object();
  } else if (ok) {
    out(fit_charset(fmt::format("{}: {} ({} tensors)\n", printable(found.path),
                                paint(Style::Green, "OK"), found.tensors)));
  } else {
    out(fit_charset(fmt::format("{}: {}\n  expected {}\n  found    {}\n", printable(found.path),
                                paint(Style::Red, "FAILED"), content_text(*expected),
                                content_text(found.content))));
  }
  return ok ? ExitCode::Ok : ExitCode::No;
}

}  // namespace wtool
