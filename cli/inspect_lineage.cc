#include "cli/inspect_lineage.h"

#include <filesystem>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/json.h"
#include "cli/lineage_walk.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/model/folder.h"

namespace wtool {
namespace {

using Answer = Parent::Answer;

// ---- text

std::string made_by(const Lineage& l) {
  std::string text = l.operation.empty() ? "an operation without a name" : printable(l.operation);
  if (!l.version.empty()) text += ", wtool " + printable(l.version);
  return text;
}

std::string remark(const Parent& p) {
  std::string text = printable(p.detail);
  const auto add = [&](const std::string& more) { text += (text.empty() ? "" : "; ") + more; };
  if (p.answer == Answer::Ok || p.answer == Answer::Changed)
    if (file_name_of(p.path) != p.path) add(printable(p.path));
  if (!p.signature.empty()) add("signature beside it");
  return text;
}

Style style_of(Answer answer) {
  switch (answer) {
    case Answer::Ok: return Style::Plain;
    case Answer::NotHere: return Style::Dim;
    case Answer::Changed:
    case Answer::Error: break;
  }
  return Style::Red;
}

void add_rows(Table& table, const Ancestry& a, std::size_t depth) {
  const std::string indent(2 * depth, ' ');
  if (!a.cut.empty()) table.row({indent + printable(a.cut)}, Style::Dim);
  for (const Parent& p : a.parents) {
    const std::string files =
        p.recorded.files > 0 ? fmt::format("/  {} files", p.recorded.files) : "";
    table.row({fmt::format("{}{}{}", indent, printable(p.recorded.name), files),
               human_bytes(p.recorded.bytes), std::string(word(p.answer)), remark(p)},
              style_of(p.answer));
  }
  for (const Parent& p : a.parents) {
    if (!p.own) continue;
    table.row(
        {fmt::format("{}▾ {}  by {}", indent, printable(p.recorded.name), made_by(p.own->lineage)),
         "", "", printable(p.own->lineage.recipe)},
        Style::Bold);
    add_rows(table, *p.own, depth + 1);
  }
}

void print_changes(const Ancestry& a) {
  for (const Parent& p : a.parents) {
    if (p.answer == Answer::Changed) {
      out(fmt::format("{}: {}\n", fit_charset(printable(p.path)), paint(Style::Red, "CHANGED")));
      if (p.found_sha256.empty())
        out(fmt::format("  {}\n", fit_charset(printable(p.detail))));
      else
        out(fmt::format("  expected {}\n  found    {}\n", p.recorded.sha256, p.found_sha256));
    }
    if (p.own) print_changes(*p.own);
  }
}

void print_text(const LineageWalk& walk, const Model& model) {
  const Lineage& l = walk.root.lineage;
  out(fit_charset(fmt::format("{}  by {}\n", printable(model.path), made_by(l))));
  if (!l.recipe.empty())
    out(fmt::format("recipe  {}\n", cut_end(fit_charset(printable(l.recipe)),
                                            std::max<std::size_t>(terminal().width, 20) - 8)));
  Table table({{"", false, 0}, {"", true, 2}, {"", false, 0}, {"", false, 1}});
  add_rows(table, walk.root, 1);
  table.print();
  print_changes(walk.root);
  const auto files = [](std::size_t n) {
    return fmt::format("{} {}", n, n == 1 ? "source" : "sources");
  };
  if (walk.ok + walk.changed == 0)
    out(fmt::format("nothing to compare with: {} not here\n", files(walk.not_here)));
  else
    out(fmt::format("{} as recorded, {} changed, {} not here\n", files(walk.ok), walk.changed,
                    walk.not_here));
  if (walk.not_here > 0) note("hint: --parents FOLDER says where else to look");
}

// ---- JSON

std::string_view id_of(Answer answer) {
  switch (answer) {
    case Answer::Ok: return "ok";
    case Answer::Changed: return "changed";
    case Answer::NotHere: return "not-here";
    case Answer::Error: break;
  }
  return "error";
}

void write_ancestry(JsonWriter& w, const Ancestry& a);

void write_parent(JsonWriter& w, const Parent& p) {
  w.begin_object();
  w.name_member("name", p.recorded.name);
  w.member("bytes", p.recorded.bytes);
  w.member("sha256", p.recorded.sha256);
  if (p.recorded.files > 0) w.member("files", p.recorded.files);
  w.member("result", id_of(p.answer));
  if (!p.path.empty()) w.name_member("path", p.path);
  if (p.answer == Answer::Changed) {
    w.member("found_bytes", p.found_bytes);
    if (!p.found_sha256.empty()) w.member("found_sha256", p.found_sha256);
  }
  if (!p.detail.empty()) w.member("detail", p.detail);
  if (!p.signature.empty()) w.name_member("signature", p.signature);
  if (!p.same_as.empty()) w.name_member("lineage_of", p.same_as);
  if (p.own) {
    w.key("lineage");
    write_ancestry(w, *p.own);
  }
  w.end_object();
}

void write_ancestry(JsonWriter& w, const Ancestry& a) {
  w.begin_object();
  w.member("version", a.lineage.version);
  w.member("operation", a.lineage.operation);
  w.member("recipe", a.lineage.recipe);
  if (!a.cut.empty()) w.member("not_followed", a.cut);
  w.key("sources");
  w.begin_array();
  for (const Parent& p : a.parents) write_parent(w, p);
  w.end_array();
  w.end_object();
}

void write_json(const std::optional<LineageWalk>& walk, const Model& model) {
  JsonWriter w(out);
  w.begin_document("wtool.lineage/1", walk && walk->code == ExitCode::Ok, {model.path});
  w.key("counts");
  w.begin_object();
  w.member("ok", walk ? walk->ok : 0);
  w.member("changed", walk ? walk->changed : 0);
  w.member("not_here", walk ? walk->not_here : 0);
  w.end_object();
  w.key("lineage");
  if (walk)
    write_ancestry(w, walk->root);
  else
    w.null();
  w.end_object();
}

}  // namespace

std::string lineage_line(const Metadata& meta) {
  constexpr std::size_t kLongest = 40, kDigits = 12;
  std::optional<Lineage> found;
  try {
    found = lineage_of(meta);
  } catch (const Error& e) {
    return "from what its metadata does not say soundly: " + printable(e.what());
  }
  if (!found) return {};
  std::string text = "by " + cut_end(made_by(*found), kLongest);
  if (found->sources.empty()) return text;
  const Lineage::Source& first = found->sources[0];
  text += fmt::format(" from {} ({}…)", cut_middle(printable(first.name), kLongest),
                      first.sha256.substr(0, kDigits));
  if (found->sources.size() > 1) text += fmt::format(" and {} more", found->sources.size() - 1);
  return text + "; --lineage follows it";
}

void add_lineage_options(CLI::App& app, LineageOptions& options) {
  app.add_flag("--lineage", options.lineage,
               "what it was made from, and whether what is here of that is the same");
  app.add_option("--parents", options.folders, "another folder to look for it in; repeatable")
      ->option_text("FOLDER")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

ExitCode inspect_lineage(const LineageOptions& options, const Model& model,
                         const Context& context) {
  for (const std::string& folder : options.folders)
    if (std::error_code failed; !std::filesystem::is_directory(folder, failed))
      throw Error(Fault::Io, failed ? failed.message() : "is no folder").in("--parents: " + folder);
  const std::optional<LineageWalk> walk = walk_lineage(model, options.folders, context);
  if (context.common->json)
    write_json(walk, model);
  else if (walk)
    print_text(*walk, model);
  else
    out(fmt::format("{}: no lineage is recorded in it\n", fit_charset(printable(model.path))));
  return walk ? walk->code : ExitCode::No;
}

}  // namespace wtool
