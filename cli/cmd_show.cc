#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/terminal.h"
#include "cli/values.h"
#include "lib/base/text.h"
#include "lib/engine/execute.h"
#include "lib/numeric/steps.h"

namespace wtool {
namespace {

struct Options {
  InputOptions input;
  std::string tensor, to, dtype;
  OutputOptions output;
  bool full = false;
};

// ---- which tensor, as what

struct Chosen {
  const LogicalTensor* tensor = nullptr;
  std::string_view slice;
  bool sliced = false;
};
Chosen choose(const Model& model, std::string_view text) {
  if (const auto* t = find_tensor(model, text)) return {t, {}, false};
  const Wanted w = split_slice(text);
  if (const auto* t = find_tensor(model, w.name)) return {t, w.slice, w.sliced};
  if (w.name.empty()) {  // of a file that holds but one
    if (model.tensors.size() == 1) return {&model.tensors[0], w.slice, w.sliced};
    throw Error(Fault::Usage, fmt::format("which of the {} tensors?", model.tensors.size()))
        .in(model.path)
        .hint("name one: wtool show FILE 'NAME[0:4,:8]'; 'wtool inspect' lists the names");
  }
  throw no_such_tensor(model, w.name);
}

std::optional<DType> wanted_dtype(const Options& o) {
  if (o.dtype.empty()) return std::nullopt;
  const auto type = parse_dtype(o.dtype);
  if (type == DType::F32 || type == DType::F64) return type;
  throw Error(Fault::Usage, fmt::format("--dtype {}: values are shown as f32 or f64", o.dtype))
      .hint("'wtool convert --dtype' writes other types");
}

// Bytes as they are for raw; blocks become f32 for everything that shows elements.
TensorPtr values_of(const Model& model, const Chosen& chosen, const Options& o) {
  TensorPtr values = model.open(*chosen.tensor);
  if (const auto type = wanted_dtype(o); type && *type != values->dtype())
    values = decoded(values, *type);
  else if (o.to != "raw" && info(values->dtype()).block_elems > 1)
    values = decoded(values, DType::F32);
  if (chosen.sliced) values = slice(values, parse_slice(chosen.slice, values->shape()));
  return values;
}

// ---- text, as numpy prints it

class TextView {
 public:
  TextView(const Tensor& tensor, bool full) : tensor_(tensor), text_(tensor.dtype()) {
    shape_ = tensor.shape();
    if (shape_.size() > kMostDimensions) shape_ = {tensor.whole().rows, tensor.whole().cols};
    elide_ = !full && tensor.elements() > kThreshold;
    if (full && tensor.elements() > kMostFull)
      throw Error(Fault::Usage, fmt::format("--full prints at most {} elements, but there are {}",
                                            kMostFull, tensor.elements()))
          .hint("--to csv has no limit");
  }

  std::string str() {
    if (tensor_.elements() == 0) return "[]\n";
    if (shape_.empty()) {
      std::string one = cells(0, 0, 1)[0];
      return one + "\n";
    }
    collect(0, 0);
    for (const std::string& c : cells_) width_ = std::max(width_, c.size());
    lay_out(0);
    text_out_ += '\n';
    return fit_charset(text_out_);
  }

 private:
  static constexpr std::uint64_t kThreshold = 1000, kEdge = 3, kMostFull = 1'000'000;
  static constexpr std::size_t kMostDimensions = 4;  // 6^4 lines at most

  bool elided(std::size_t d) const { return elide_ && shape_[d] > 2 * kEdge; }
  std::uint64_t shown(std::size_t d) const { return elided(d) ? 2 * kEdge : shape_[d]; }
  std::uint64_t index(std::size_t d, std::uint64_t i) const {
    return elided(d) && i >= kEdge ? shape_[d] - 2 * kEdge + i : i;
  }

  std::vector<std::string> cells(std::uint64_t row, std::uint64_t col, std::uint64_t n) {
    Buffer bytes(checked_size(tensor_.dtype(), n));
    tensor_.read({row, 1, col, n}, bytes, scratch_);
    std::vector<std::string> out(n);
    for (std::size_t i = 0; i < n; ++i) text_.append(out[i], bytes, i);
    return out;
  }

  void collect(std::size_t d, std::uint64_t row) {
    if (d + 1 < shape_.size()) {
      for (std::uint64_t i = 0; i < shown(d); ++i) collect(d + 1, row * shape_[d] + index(d, i));
      return;
    }
    const auto add = [&](std::uint64_t col, std::uint64_t n) {
      for (std::string& c : cells(row, col, n)) cells_.push_back(std::move(c));
    };
    if (!elided(d)) return add(0, shape_[d]);
    add(0, kEdge);
    add(shape_[d] - kEdge, kEdge);
  }

  void lay_out(std::size_t d) {
    text_out_ += '[';
    if (d + 1 == shape_.size()) {
      lay_out_row(d);
    } else {
      const auto next_line = [&] {
        text_out_.append(shape_.size() - d - 1, '\n').append(d + 1, ' ');
      };
      for (std::uint64_t i = 0; i < shown(d); ++i) {
        if (i > 0) next_line();
        if (elided(d) && i == kEdge) {
          text_out_ += "…";
          next_line();
        }
        lay_out(d + 1);
      }
    }
    text_out_ += ']';
  }

  void lay_out_row(std::size_t d) {
    const std::size_t width = std::min<std::size_t>(terminal().width, 100);
    std::size_t column = d + 1;
    const auto put = [&](std::string_view cell, std::size_t blanks, bool first) {
      if (!first && column + 1 + blanks + display_width(cell) > width) {
        text_out_ += '\n';
        text_out_.append(d + 1, ' ');
        column = d + 1;
      } else if (!first) {
        text_out_ += ' ';
        ++column;
      }
      text_out_.append(blanks, ' ') += cell;
      column += blanks + display_width(cell);
    };
    for (std::uint64_t i = 0; i < shown(d); ++i) {
      if (elided(d) && i == kEdge) put("…", 0, false);
      const std::string& cell = cells_[at_++];
      put(cell, width_ - cell.size(), i == 0);
    }
  }

  const Tensor& tensor_;
  ElementText text_;
  Shape shape_;
  bool elide_ = false;
  Scratch scratch_;
  std::vector<std::string> cells_;
  std::size_t at_ = 0, width_ = 0;
  std::string text_out_;
};

std::string as_text(const Tensor& values, const Chosen& chosen, const Model& model,
                    const Options& o) {
  const DType stored = model.open(*chosen.tensor)->dtype();
  std::string type(name_of(values.dtype()));
  if (stored != values.dtype()) type = fmt::format("{} as {}", name_of(stored), type);
  const std::string slice = chosen.sliced ? fmt::format("[{}]", printable(chosen.slice)) : "";
  return fmt::format("{}{}  {}  {}\n", printable(chosen.tensor->name), slice,
                     to_text(values.shape()), type) +
         TextView(values, o.full).str();
}

// ---- what is written in units: csv, raw

// Bytes or text of each unit, appended in order.
class AppendStep final : public Step {
 public:
  using Write = std::function<void(const Box&, Bytes, Buffer&)>;
  AppendStep(TensorPtr values, Write write)
      : values_(std::move(values)), tiling_(Tiling::of(*values_)), write_(std::move(write)) {}
  std::uint64_t units() const override { return tiling_.units(); }
  void run(const Unit& unit) const override {
    const Box box = tiling_.box(unit.index);
    Scratch::Frame frame(unit.scratch);
    const auto bytes = frame.take<std::byte>(checked_size(values_->dtype(), box.elements()));
    values_->read(box, bytes, unit.scratch);
    write_(box, bytes, unit.found);
  }

 private:
  TensorPtr values_;
  Tiling tiling_;
  Write write_;
};

// A line for each row; of a vector, for each element.
std::unique_ptr<Step> csv_step(const TensorPtr& values) {
  constexpr std::uint64_t kMany = 1 << 15;
  auto text = std::make_shared<ElementText>(values->dtype(), values->elements() > kMany, true);
  const bool vector = values->shape().size() < 2;
  const std::uint64_t cols = values->whole().cols;
  return std::make_unique<AppendStep>(
      values, [text, vector, cols](const Box& box, Bytes bytes, Buffer& found) {
        std::string lines;
        for (std::uint64_t i = 0; i < box.elements(); ++i) {
          text->append(lines, bytes, i);
          const bool ends = vector || box.col + i % box.cols + 1 == cols;
          lines += ends ? '\n' : ',';
        }
        append(found, as_bytes(lines));
      });
}

std::unique_ptr<Step> raw_step(const TensorPtr& values) {
  return std::make_unique<AppendStep>(
      values, [](const Box&, Bytes bytes, Buffer& found) { append(found, bytes); });
}

class TextStep final : public Step {
 public:
  explicit TextStep(std::string text) : text_(std::move(text)) {}
  std::uint64_t units() const override { return 1; }
  void run(const Unit& unit) const override { append(unit.found, as_bytes(text_)); }

 private:
  std::string text_;
};

void refuse_npy(const Format& npy, const Tensor& values, const Chosen& chosen) {
  const OutTensor t{
      .name = std::string(chosen.tensor->name), .dtype = values.dtype(), .shape = values.shape()};
  static constexpr std::array kExact{DType::Bool, DType::U8,  DType::I8,  DType::U16, DType::I16,
                                     DType::U32,  DType::I32, DType::U64, DType::I64, DType::F16,
                                     DType::F32,  DType::F64, DType::C64, DType::C128};
  const bool exact = std::ranges::find(kExact, values.dtype()) != kExact.end();
  auto why = npy.refuses(t);
  if (exact && !why) return;
  Error error(Fault::Usage, why.value_or(fmt::format("numpy has no {}", name_of(values.dtype()))));
  error.in(fmt::format("tensor {}", quoted(chosen.tensor->name)));
  throw why ? error : error.hint("--dtype f32 writes the values as f32");
}

Plan plan_of(const TensorPtr& values, const Chosen& chosen, const Model& model, const Options& o,
             const Registry& registry) {
  Plan plan;
  OutFile file{.name = "tensor", .format = nullptr, .meta = {}, .tensors = 0};
  if (o.to == "npy") {
    file.format = &registry.format("npy");
    file.tensors = 1;
    refuse_npy(*file.format, *values, chosen);
    plan.steps.push_back(copy_step(std::string(chosen.tensor->name), values));
  } else if (o.to == "csv") {
    plan.steps.push_back(csv_step(values));
  } else if (o.to == "raw") {
    plan.steps.push_back(raw_step(values));
  } else {
    plan.steps.push_back(std::make_unique<TextStep>(as_text(*values, chosen, model, o)));
  }
  plan.files.push_back(std::move(file));
  return plan;
}

void write_file(const TensorPtr& values, const Chosen& chosen, const Model& model, const Options& o,
                const Context& context) {
  const std::string target = o.output.output.empty() ? "-" : o.output.output;
  const bool to_stdout = target == "-";
  if (to_stdout && (o.to == "npy" || o.to == "raw") && ::isatty(STDOUT_FILENO) == 1)
    throw Error(Fault::Usage, "binary data is not sent to a terminal")
        .hint("say -o FILE, or redirect standard output");
  Plan plan = plan_of(values, chosen, model, o, context.registry);
  if (o.output.dry_run) {
    out(fit_charset(fmt::format("would write {}: {} {} as {}\n", printable(target),
                                to_text(values->shape()), name_of(values->dtype()), o.to)));
    return;
  }
  OutputSet outputs(target, to_stdout ? OutputSet::Kind::Stdout : OutputSet::Kind::File,
                    existing(o.output));
  Progress progress(*context.common, "show");
  RunOptions run = context.run;
  run.progress = progress.callback();
  execute(plan, run, &outputs);
  progress.done();
  for (const SourcePtr& s : model.catalog.sources()) s->check_unchanged();
  outputs.commit();
}

// ---- JSON

void write_json_value(JsonWriter& w, DType type, Bytes bytes, std::size_t i,
                      const ElementText& text) {
  switch (info(type).kind) {
    case Kind::Bool: return w.value(load<std::uint8_t>(bytes, i) != 0);
    case Kind::Complex: {
      w.begin_array();
      for (std::size_t k = 2 * i; k < 2 * i + 2; ++k)
        w.number(type == DType::C64 ? fmt::format("{}", load<float>(bytes, k))
                                    : fmt::format("{}", load<double>(bytes, k)));
      return w.end_array();
    }
    default: break;
  }
  std::string s;
  text.append(s, bytes, i);
  w.number(s);
}

void write_json(const Tensor& values, const Chosen& chosen, const Model& model, const Options& o) {
  const ElementText text(values.dtype(), false, true);
  JsonWriter w(out);
  w.begin_document("wtool.show/1", true, {o.input.path});
  w.key("tensor");
  w.begin_object();
  w.name_member("name", chosen.tensor->name);
  if (chosen.sliced) w.member("slice", chosen.slice);
  w.member("shape", values.shape());
  w.member("dtype", name_of(values.dtype()));
  w.member("stored", name_of(model.open(*chosen.tensor)->dtype()));
  w.end_object();
  w.key("values");  // in C order
  w.begin_array();
  Scratch scratch;
  const Tiling tiling = Tiling::of(values);
  for (std::uint64_t u = 0; u < tiling.units(); ++u) {
    const Box box = tiling.box(u);
    Scratch::Frame frame(scratch);
    const auto bytes = frame.take<std::byte>(checked_size(values.dtype(), box.elements()));
    values.read(box, bytes, scratch);
    for (std::uint64_t i = 0; i < box.elements(); ++i)
      write_json_value(w, values.dtype(), bytes, i, text);
  }
  w.end_array();
  w.member("non_finite", w.refused());
  w.end_object();
}

// ---- the command

constexpr std::array<std::string_view, 4> kTo{"text", "npy", "csv", "raw"};

std::string check_to(const std::string& word) {
  if (std::ranges::find(kTo, word) != kTo.end()) return {};
  const auto near = nearest(word, kTo);
  return fmt::format("{} is none of {}{}", quoted(word), fmt::join(kTo, ", "),
                     near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
}

// By --to, else by the output's suffix.
std::string form(const Options& o) {
  if (!o.to.empty()) return o.to;
  if (o.output.output.empty() || o.output.output == "-") return "text";
  const std::string suffix = lower(std::filesystem::path(o.output.output).extension().string());
  if (suffix == ".npy" || suffix == ".csv" || suffix == ".raw") return suffix.substr(1);
  if (suffix == ".bin") return "raw";
  if (suffix == ".txt" || suffix == ".text") return "text";
  throw Error(Fault::Usage, suffix.empty() ? "the output's name has no suffix"
                                           : fmt::format("unknown suffix {}", quoted(suffix)))
      .in(o.output.output)
      .hint("take .npy, .csv, .raw or .txt, or say --to");
}

ExitCode run(Options o, const Context& context) {
  const bool writes = !o.output.output.empty() || !o.to.empty();
  if (writes && context.common->json)
    throw Error(Fault::Usage, "--json is a form of its own: without -o and --to");
  o.to = form(o);
  const auto model = open_input(o.input, context);
  const Chosen chosen = choose(*model, o.tensor);
  const TensorPtr values = values_of(*model, chosen, o);
  if (context.common->json)
    write_json(*values, chosen, *model, o);
  else if (writes)
    write_file(values, chosen, *model, o, context);
  else
    out(as_text(*values, chosen, *model, o));
  return ExitCode::Ok;
}

Action bind(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("INPUT", options->input.path,
                 "a file, a folder, any one shard of a set; - is stdin")
      ->required();
  app.add_option("TENSOR", options->tensor,
                 "its name, or a slice of it: 'name[0:4,:8]', 'name[-1]', 'name[...,0]'; may be "
                 "left out where there is but one");
  app.add_option("-o,--output", options->output.output,
                 "a .npy, .csv, .raw or .txt file; - is stdout")
      ->option_text("OUTPUT");
  app.add_flag("-f,--force", options->output.force, "replace what is there");
  app.add_flag("-n,--dry-run", options->output.dry_run, "say what would be written, write nothing");
  app.add_option("--to", options->to, "text, npy, csv, or raw (the bytes, little-endian)")
      ->option_text("FORM")
      ->check(check_to);
  app.add_option("--dtype", options->dtype, "the values as f32 or f64")->option_text("TYPE");
  app.add_flag("--full", options->full, "all elements as text, not only those at the edges");
  add_open_options(app, options->input);
  app.footer(
      "examples:\n"
      "  wtool show model.safetensors 'lm_head.weight[0:4,:8]'\n"
      "  wtool show model.gguf blk.0.attn_q.weight -o q.npy\n");
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace

extern const Command kShow;
const Command kShow{"show", "values of a tensor or a slice; to text, .npy, .csv, raw bytes", bind};

}  // namespace wtool
