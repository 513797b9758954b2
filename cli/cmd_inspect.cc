#include <algorithm>
#include <map>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/inspect.h"
#include "cli/terminal.h"
#include "cli/tree.h"
#include "lib/model/lineage.h"
#include "lib/numeric/importance.h"

namespace wtool {
namespace {

std::string percent(std::uint64_t part, std::uint64_t whole) {
  if (whole == 0) return {};
  return fmt::format("{:.1f} %", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

bool flat(const InspectOptions& o) {
  return o.list || !o.sort.empty() || !o.select.include.empty() || !o.select.exclude.empty();
}

// ---- --by

constexpr std::array<std::string_view, 4> kGroupings{"dtype", "layer", "scheme", "file"};
constexpr std::array<std::string_view, 5> kSortings{"name", "size", "offset", "dtype", "shape"};

std::string check_word(std::span<const std::string_view> known, std::string_view word) {
  if (std::ranges::find(known, word) != known.end()) return {};
  const std::string_view near = nearest(word, known);
  return fmt::format("{} is none of {}{}", quoted(word), fmt::join(known, ", "),
                     near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
}

std::string check_groupings(const std::string& list) {
  for (const std::string& word : split_list(list))
    if (std::string fault = check_word(kGroupings, word); !fault.empty()) return fault;
  return {};
}

void print_by(const Model& model, std::span<const std::uint32_t> which, const InspectOptions& o) {
  bool first = true;
  for (const std::string& by : split_list(o.by)) {
    if (!std::exchange(first, false)) out("\n");
    const Sums sums = sums_by(model, which, by);
    std::uint64_t all = 0;
    for (const auto& [key, sum] : sums) all += sum.bytes;
    Table table({{by, false, 0},
                 {"tensors", true, 2},
                 {by == "dtype" || by == "file" ? "elements" : "parameters", true, 1},
                 {"size", true, 0},
                 {"share", true, 3}});
    for (const auto& [key, sum] : sums)
      table.row({printable(key), fmt::format("{}", sum.tensors), human_count(sum.parameters),
                 human_bytes(sum.bytes), percent(sum.bytes, all)});
    table.print();
  }
}

// ---- the summary

// "bf16", or "bf16 97 %, f32 3 %": by bytes.
std::string dtype_mix(const Model& model, std::uint64_t total) {
  std::map<std::string_view, std::uint64_t> bytes;
  for (const LogicalTensor& t : model.tensors) bytes[type_label(model, t)] += model.stored_bytes(t);
  std::vector<std::pair<std::string_view, std::uint64_t>> mix(bytes.begin(), bytes.end());
  std::ranges::stable_sort(mix, std::greater<>(), [](const auto& m) { return m.second; });
  if (mix.size() == 1) return std::string(mix[0].first);
  std::string text;
  constexpr std::size_t kMost = 4;
  for (std::size_t i = 0; i < std::min(mix.size(), kMost); ++i)
    text += fmt::format("{}{} {}", i ? ", " : "", mix[i].first, percent(mix[i].second, total));
  if (mix.size() > kMost) text += fmt::format(", {} more", mix.size() - kMost);
  return text;
}

std::string container(const Model& model) {
  std::string text(model.catalog.format);
  const std::size_t files = model.catalog.sources().size();
  if (files > 1)
    text += fmt::format(", {} {}", files, model.catalog.format == "npy" ? "files" : "shards");
  if (!model.index_name.empty())
    text += std::ranges::any_of(model.notes,
                                [&](const std::string& n) {
                                  return n.find(model.index_name + ": ") != std::string::npos;
                                })
                ? ", index not right"
                : ", index ok";
  return text;
}

// Pieces on one line if they fit, else each line as full as it gets.
void print_pieces(const std::vector<std::string>& pieces, std::size_t indent,
                  std::string_view gap) {
  const std::size_t width = terminal().width;
  std::string line;
  for (const std::string& raw : pieces) {
    const std::string piece = cut_end(fit_charset(raw), width > indent + 1 ? width - indent : 1);
    if (!line.empty() && display_width(line) + gap.size() + display_width(piece) > width) {
      out(line + "\n");
      line.clear();
    }
    if (line.empty())
      line = (&raw == &pieces.front() ? std::string() : std::string(indent, ' ')) + piece;
    else
      line += std::string(gap) + piece;
  }
  if (!line.empty()) out(line + "\n");
}

std::string meta_text(const MetaValue& value) {
  if (const auto* a = std::get_if<MetaArray>(&value))
    return fmt::format("{}[{}]", name_of(a->of), a->count);
  return printable(to_text(value));
}

// A line or a few of what tells most; --meta has all.
void print_meta_summary(const Model& model) {
  const Metadata& meta = model.catalog.meta;
  constexpr std::size_t kMost = 12, kLongest = 40;
  std::vector<std::string> pieces;
  std::size_t all = 0;
  for (const MetaEntry& e : meta) {
    if (is_lineage_key(e.key) || ++all > kMost) continue;
    pieces.push_back(fmt::format("{}={}", cut_middle(printable(e.key), kLongest),
                                 cut_end(meta_text(e.value), kLongest)));
  }
  if (pieces.empty()) return;
  pieces.front() = "meta    " + pieces.front();
  if (all > kMost) pieces.push_back(fmt::format("… {} more (--meta)", all - kMost));
  print_pieces(pieces, 8, "  ");
}

// Of an importance matrix, in either form: what it was made from.
void print_importance(const Model& model) {
  const Metadata& meta = model.catalog.meta;
  if (meta.text("general.type") != kImatrixType) return;
  const auto entries = std::ranges::count_if(
      model.catalog.entries(), [](const TensorEntry& t) { return t.name.ends_with(kSumsSuffix); });
  std::vector<std::string> pieces{
      fmt::format("matrix  importance of {} weight{}", entries, entries == 1 ? "" : "s")};
  if (const auto chunks = meta.count(kImatrixChunkCount)) {
    const auto size = meta.count(kImatrixChunkSize).value_or(1);
    pieces.push_back(fmt::format("{} chunk{}{}", *chunks, *chunks == 1 ? "" : "s",
                                 size > 1 ? fmt::format(" of {} tokens", size) : ""));
  }
  if (const MetaValue* names = meta.find(kImatrixDatasets))
    if (const auto* a = std::get_if<MetaArray>(names); a && a->count > 0)
      pieces.push_back(fmt::format("from {}", printable(to_text(*names, 4))));
  print_pieces(pieces, 8, "   ");
}

void print_head(const Model& model) {
  const Totals t = totals(model);
  std::vector<std::string> pieces{printable(model.path) + "  " + container(model),
                                  human_bytes(t.bytes), human_count(t.parameters) + " parameters"};
  if (t.parameters > 0) pieces.push_back(fmt::format("{:.2f} bits/weight", t.bits_per_weight()));
  if (!model.tensors.empty()) pieces.push_back(dtype_mix(model, t.bytes));
  pieces.push_back(
      fmt::format("{} tensor{}", model.tensors.size(), model.tensors.size() == 1 ? "" : "s"));
  print_pieces(pieces, 8, "   ");
  print_meta_summary(model);
  if (const std::string made = lineage_line(model.catalog.meta); !made.empty())
    out(fit_charset("made    " + made) + "\n");
  print_importance(model);
  std::vector<std::string> side;
  for (const SideFile& s : model.side) side.push_back(printable(s.name));
  if (!side.empty()) {
    side.front() = "with    " + side.front();
    print_pieces(side, 8, "  ");
  }
  for (const std::string& s : model.left_out) out(fit_charset("left    " + printable(s)) + "\n");
}

void print_tree(const Model& model) {
  Table table({{"", false, 0},
               {"", false, 2},
               {"", false, 1},
               {"", true, 0},
               {"", true, 3},
               {"", false, 4}});
  for (TreeRow& r : tree_of(model)) {
    const std::string indent(2 * r.depth, ' ');
    table.row({indent + (r.is_fold ? "▾ " : "  ") + r.name, std::move(r.shape), std::move(r.dtype),
               std::move(r.size), std::move(r.share), std::move(r.remark)},
              r.is_fold ? Style::Bold : Style::Plain);
  }
  table.print();
}

// ---- the flat list

void print_list(const Model& model, std::span<const std::uint32_t> which) {
  const bool many_files = model.catalog.sources().size() > 1;
  Table table({{"name", false, 0},
               {"shape", false, 1},
               {"dtype", false, 1},
               {"bytes", true, 2},
               {"scheme", false, 5},
               {"file", false, 4},
               {"offset", true, 3}});
  const auto file_of = [&](const TensorEntry& e) {
    if (!many_files) return std::string();
    return printable(file_label(model, *model.catalog.sources()[e.source]));
  };
  for (const std::uint32_t i : which) {
    const LogicalTensor& t = model.tensors[i];
    const TensorEntry& e = model.part(t, 0);
    const bool one = t.count == 1;
    table.row({printable(t.name), to_text(t.shape), std::string(name_of(one ? e.dtype : t.dtype)),
               fmt::format("{}", model.stored_bytes(t)),
               t.scheme && t.scheme->name != "plain" ? std::string(t.scheme->name) : "",
               one ? file_of(e) : "", one ? fmt::format("{}", e.offset) : ""});
    for (std::size_t p = 0; !one && p < t.count; ++p) {
      const TensorEntry& part = model.part(t, p);
      table.row({"  " + printable(part.name), to_text(part.shape), std::string(name_of(part.dtype)),
                 fmt::format("{}", part.bytes), "", file_of(part), fmt::format("{}", part.offset)},
                Style::Dim);
    }
  }
  table.print();
}

// ---- metadata

void print_meta(const Model& model) {
  Table table({{"key", false, 0}, {"type", false, 1}, {"value", false, 0}});
  const std::size_t width = terminal().width;
  std::size_t taken = 0;
  for (const MetaEntry& e : model.catalog.meta)
    taken = std::max(taken, std::min<std::size_t>(display_width(printable(e.key)), 48));
  const std::size_t room = width > taken + 30 ? width - taken - 18 : 12;
  for (const MetaEntry& e : model.catalog.meta) {
    const auto* a = std::get_if<MetaArray>(&e.value);
    const std::string type = a ? fmt::format("{}[{}]", name_of(a->of), a->count)
                               : std::string(name_of(type_of(e.value)));
    table.row({printable(e.key), type, cut_end(printable(to_text(e.value)), room)});
  }
  table.print();
}

Error no_such_key(const Model& model, const std::string& key) {
  std::vector<std::string_view> keys;
  for (const MetaEntry& e : model.catalog.meta) keys.push_back(e.key);
  Error error(Fault::Usage, fmt::format("no metadata key {}", quoted(key)));
  error.in(model.path);
  const std::string_view near = nearest(key, keys);
  return error.hint(near.empty() ? "'wtool inspect --meta' lists the keys"
                                 : fmt::format("did you mean {}?", quoted(near)));
}

// The value exactly as it is, for scripts.
ExitCode print_value(const Model& model, const std::string& key) {
  const MetaValue* value = model.catalog.meta.find(key);
  if (!value) {
    print_error(no_such_key(model, key), false);
    return ExitCode::No;
  }
  if (const auto* array = std::get_if<MetaArray>(value)) {
    for_each(*array, [](const MetaValue& element) {
      out(to_text(element) + "\n");
      return true;
    });
  } else {
    out(to_text(*value));
    // Into a pipe or a file a string goes as it is, to the byte; what people look at ends its line.
    if (terminal().out_is_terminal || !std::holds_alternative<std::string>(*value)) out("\n");
  }
  return ExitCode::Ok;
}

// ---- the command

Inspected open_one(const InspectOptions& o, const std::string& path, const Context& context) {
  InputOptions input = o.open;
  input.path = path;
  try {
    return {open_input(input, context), std::nullopt};
  } catch (const Error& e) {
    if (o.inputs.size() == 1) throw;
    return {nullptr, e};
  }
}

ExitCode print_text(const Model& model, const InspectOptions& o) {
  if (!o.get.empty()) return print_value(model, o.get);
  const std::vector<std::uint32_t> which = chosen(model, o);
  if (o.meta) {
    print_meta(model);
  } else if (!o.by.empty()) {
    print_by(model, which, o);
  } else if (flat(o)) {
    print_list(model, which);
  } else {
    print_head(model);
    print_tree(model);
  }
  return ExitCode::Ok;
}

ExitCode run_text(const InspectOptions& o, const Context& context) {
  ExitCode code = ExitCode::Ok;
  for (const std::string& path : o.inputs) {
    if (&path != &o.inputs.front()) out("\n");
    const Inspected opened = open_one(o, path, context);
    if (opened.error) {
      flush_out();
      print_error(*opened.error, false);
      code = worst(code, exit_code_of(opened.error->fault()));
      continue;
    }
    const bool titled = o.inputs.size() > 1 && (o.meta || !o.by.empty() || flat(o));
    if (titled) out(paint(Style::Bold, printable(path)) + "\n");
    code = worst(code, print_text(*opened.model, o));
  }
  return code;
}

ExitCode run_json(const InspectOptions& o, const Context& context) {
  std::vector<Inspected> models;  // opened first: "ok" stands before them
  ExitCode code = ExitCode::Ok;
  for (const std::string& path : o.inputs) {
    models.push_back(open_one(o, path, context));
    if (models.back().error) print_error(*models.back().error, true);
    if (models.back().model) static_cast<void>(chosen(*models.back().model, o));  // may refuse
    code = worst(code, code_of(models.back(), o));
  }
  write_inspect_json(o, models);
  return code;
}

ExitCode run_lineage(const InspectOptions& o, const Context& context) {
  if (o.meta || !o.by.empty() || !o.get.empty() || flat(o))
    throw Error(Fault::Usage, "--lineage does not go with options about tensors and metadata");
  if (o.inputs.size() != 1)
    throw Error(Fault::Usage, fmt::format("--lineage is of one model, not {}", o.inputs.size()));
  return inspect_lineage(o.lineage, *open_one(o, o.inputs[0], context).model, context);
}

ExitCode run(const InspectOptions& o, const Context& context) {
  if (o.lineage.lineage) return run_lineage(o, context);
  if (!o.lineage.folders.empty()) throw Error(Fault::Usage, "--parents goes with --lineage");
  return context.common->json ? run_json(o, context) : run_text(o, context);
}

Action bind(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  app.add_option("INPUT", options->inputs,
                 "files, folders, or any one shard of a set; - is standard input")
      ->required();
  add_select_options(app, options->select);
  app.add_flag("-l,--list", options->list, "a flat list of tensors (so do -t, -x and --sort)");
  app.add_option("--sort", options->sort, "the list by name, size, offset, dtype or shape")
      ->option_text("KEY")
      ->check([](const std::string& s) { return check_word(kSortings, s); });
  app.add_option("--by", options->by, "sums by dtype, layer, scheme, file; a list with commas")
      ->option_text("LIST")
      ->check(check_groupings);
  app.add_flag("--meta", options->meta, "all metadata: key, type, value");
  app.add_option("--get", options->get, "the raw value of one metadata key; exit 1 if it is absent")
      ->option_text("KEY");
  add_lineage_options(app, options->lineage);
  add_open_options(app, options->open);
  app.footer(
      "examples:\n"
      "  wtool inspect model.safetensors\n"
      "  wtool inspect model/ -t 'layer:0-3' --sort size\n"
      "  wtool inspect model.gguf --get tokenizer.chat_template\n");
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace

extern const Command kInspect;
const Command kInspect{"inspect", "what is in it? summary, layers, tensors, metadata", bind};

}  // namespace wtool
