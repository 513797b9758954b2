#include "lib/engine/execute.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <unordered_set>

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr std::size_t kMostNamed = 20;

// Everything that one format refuses, in one error: the tensors by name, each reason once.
class Refusals {
 public:
  void add(std::string_view file, std::string_view tensor, std::string_view why) {
    ++count_;
    if (file_.empty()) file_ = file;
    auto it = std::ranges::find(reasons_, why, &Reason::why);
    if (it == reasons_.end()) {
      if (reasons_.size() == kMostNamed) return;
      it = reasons_.insert(reasons_.end(), {std::string(why), {}, 0});
    }
    if (it->count++ < kMostNamed) it->names += (it->count > 1 ? ", " : "") + quoted(tensor);
  }
  void settle(const Format& format, std::size_t of) const {
    if (count_ == 0) return;
    std::string text;
    for (const Reason& r : reasons_) {
      const std::string more =
          r.count > kMostNamed ? fmt::format(" and {} more", r.count - kMostNamed) : "";
      text += fmt::format("{}{}{}: {}", text.empty() ? "" : "; ", r.names, more, r.why);
    }
    throw Error(Fault::Usage,
                fmt::format("{} cannot hold {} of {} tensors: {}", format.name, count_, of, text))
        .in(file_);
  }

 private:
  struct Reason {
    std::string why, names;
    std::size_t count;
  };
  std::vector<Reason> reasons_;
  std::size_t count_ = 0;
  std::string file_;
};

std::size_t tensors_in(const Plan& plan) {
  std::size_t sum = 0;
  for (const OutFile& f : plan.files) sum += f.tensors;
  return sum;
}

// Each format's refusals, of all files at once. Formats of one run are few: usually one.
void check_refusals(const Plan& plan, std::span<const OutTensor> tensors) {
  std::vector<const Format*> done;
  for (const OutFile& first : plan.files) {
    if (!first.format || std::ranges::find(done, first.format) != done.end()) continue;
    const Format& format = *first.format;
    done.push_back(&format);
    if (!format.layout)
      throw Error(Fault::Unsupported, "can be read but not written").in(format.name);
    Refusals refusals;
    std::size_t at = 0, mine = 0;
    for (const OutFile& f : plan.files) {
      const auto of_file = tensors.subspan(at).first(f.tensors);
      at += f.tensors;
      if (f.format != &format) continue;
      mine += f.tensors;
      for (const OutTensor& t : of_file)
        if (const auto why = format.refuses(t)) refusals.add(f.name, t.name, *why);
      if (format.refuses_meta)
        if (const auto why = format.refuses_meta(f.meta))
          throw Error(Fault::Usage, *why).in(fmt::format("{}: metadata", f.name));
    }
    refusals.settle(format, mine);
  }
}

void check_names(const Plan& plan, std::span<const OutTensor> tensors) {
  std::unordered_set<std::string_view> seen;
  seen.reserve(tensors.size());
  for (const OutTensor& t : tensors)
    if (!seen.insert(t.name).second)
      throw Error(Fault::Usage, fmt::format("two tensors would be named {}", quoted(t.name)));
  seen.clear();
  const auto take = [&](std::string_view name) {
    if (!seen.insert(name).second)
      throw Error(Fault::Usage, fmt::format("two files would be named {}", quoted(name)));
  };
  for (const OutFile& f : plan.files) take(f.name);
  for (const SideFile& s : plan.side) take(s.name);
}

// What a format laid out must hold together before a byte is written by it.
void check_layout(const Layout& layout, std::span<const OutTensor> tensors, const OutFile& file) {
  const auto broken = [&](const std::string& what) {
    return Error(Fault::Internal, fmt::format("the layout {}", what)).in(file.name);
  };
  if (layout.offsets.size() != tensors.size())
    throw broken(fmt::format("places {} of {} tensors", layout.offsets.size(), tensors.size()));
  struct Stretch {
    std::uint64_t offset, bytes;
    std::string_view tensor;  // empty: the format's own
  };
  std::vector<Stretch> order;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    order.push_back({layout.offsets[i], tensors[i].bytes(), tensors[i].name});
  for (const Layout::Piece& p : layout.pieces) order.push_back({p.offset, p.bytes.size(), {}});
  std::ranges::stable_sort(order, {}, &Stretch::offset);
  std::uint64_t end = layout.head.size();
  for (const Stretch& s : order) {
    if (s.bytes == 0) continue;
    const auto next = checked_add(s.offset, s.bytes);
    if (s.offset < end || !next)
      throw broken(fmt::format("puts {} at {}, before byte {}",
                               s.tensor.empty() ? "a piece" : "tensor " + quoted(s.tensor),
                               s.offset, end));
    end = *next;
  }
  if (end > layout.total_bytes)
    throw broken(fmt::format("needs {} bytes but says {}", end, layout.total_bytes));
}

// Steps side by side, so that units can be counted through.
class Sequence {
 public:
  explicit Sequence(const auto& steps) {
    for (const auto& step : steps) {
      const std::uint64_t units = step->units();
      if (units > 0) entries_.push_back({step.get(), units_, outputs_});
      units_ += units;
      outputs_ += step->outputs().size();
    }
  }
  struct Entry {
    Step* step;
    std::uint64_t first_unit;
    std::size_t first_output;
  };
  const Entry& at(std::uint64_t unit) const {
    return *--std::ranges::upper_bound(entries_, unit, {}, &Entry::first_unit);
  }
  std::uint64_t units() const noexcept { return units_; }

 private:
  std::vector<Entry> entries_;
  std::uint64_t units_ = 0;
  std::size_t outputs_ = 0;
};

struct Worker {
  Scratch scratch;
  std::vector<Span> spans;
  std::vector<MutableBytes> out;
};

// Where the units of one step write, and how much has arrived. A step that forgets a stretch would
// leave zeros that look like weights; so bytes are counted.
class Destination {
 public:
  Destination(const Placement& placement, const std::vector<std::size_t>& files, OutputSet* outputs,
              Follower* follower = nullptr)
      : placement_(placement),
        files_(files),
        outputs_(outputs),
        follower_(follower),
        written_(std::make_unique<std::atomic<std::uint64_t>[]>(placement.tensors.size())) {}

  // Throws if the span leaves its tensor. Gives the bytes it holds.
  std::uint64_t check(std::size_t first, std::size_t of, const Span& span) const {
    const auto outside = [](std::string_view what) {
      return Error(Fault::Internal, fmt::format("a span {}", what));
    };
    if (!outputs_ || span.output >= of || first + span.output >= placement_.tensors.size())
      throw outside(fmt::format("is for output {} of {}", span.output, of));
    const std::uint64_t size = placement_.tensors[first + span.output].bytes;
    const auto reach = checked_mul(span.count == 0 ? 0 : span.count - 1, span.stride);
    const auto last = reach ? checked_add(*reach, span.bytes) : std::nullopt;
    const auto end = last ? checked_add(*last, span.offset) : std::nullopt;
    if (span.count == 0 || !end || *end > size)
      throw outside(fmt::format("of {} bytes at {}, {} times every {}, leaves its tensor of {}",
                                span.bytes, span.offset, span.count, span.stride, size));
    if (span.count > 1 && span.stride < span.bytes) throw outside("overlaps itself");
    return span.bytes * span.count;
  }
  void write(std::size_t tensor, const Span& span, Bytes bytes) {
    const Placement::Tensor& to = placement_.tensors[tensor];
    for (std::uint64_t k = 0; k < span.count; ++k)
      outputs_->write_at(files_[to.file], to.offset + span.offset + k * span.stride,
                         bytes.subspan(k * span.bytes, span.bytes));
    arrived(tensor, bytes.size());
  }
  void copy(std::size_t tensor, const Span& span, const Extent& from) {
    const Placement::Tensor& to = placement_.tensors[tensor];
    if (span.count != 1 || span.bytes != from.bytes)
      throw Error(Fault::Internal, fmt::format("{} raw bytes for a span of {} times {}", from.bytes,
                                               span.count, span.bytes));
    outputs_->copy_to(files_[to.file], to.offset + span.offset, from);
    arrived(tensor, from.bytes);
  }
  void check_complete(std::span<const OutTensor> tensors) const {
    for (std::size_t i = 0; i < placement_.tensors.size(); ++i)
      if (written_[i] != placement_.tensors[i].bytes)
        throw Error(Fault::Internal, fmt::format("{} of {} bytes were written", written_[i].load(),
                                                 placement_.tensors[i].bytes))
            .in(fmt::format("tensor {}", quoted(tensors[i].name)));
  }

 private:
  const Placement& placement_;
  const std::vector<std::size_t>& files_;
  // Whoever brings the last bytes has seen to it that all others are in place.
  void arrived(std::size_t tensor, std::uint64_t bytes) {
    const std::uint64_t before = written_[tensor].fetch_add(bytes, std::memory_order_acq_rel);
    if (follower_ && bytes > 0 && before + bytes == placement_.tensors[tensor].bytes)
      follower_->complete(tensor);
  }

  OutputSet* outputs_;
  Follower* follower_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> written_;
};

void run_unit(const Sequence::Entry& entry, std::uint64_t index, Worker& worker, Buffer& found,
              Destination& to) {
  const Step& step = *entry.step;
  const auto outputs = step.outputs();
  worker.spans.clear();
  worker.out.clear();
  step.spans(index, worker.spans);
  if (worker.spans.size() == 1) {
    const Span& span = worker.spans[0];
    to.check(entry.first_output, outputs.size(), span);
    if (!outputs[span.output].big_endian)
      if (const auto extent = step.raw(index))
        return to.copy(entry.first_output + span.output, span, *extent);
  }
  Scratch::Frame frame(worker.scratch);
  for (const Span& s : worker.spans)
    worker.out.push_back(frame.take<std::byte>(to.check(entry.first_output, outputs.size(), s)));
  step.run({index, worker.out, found, worker.scratch});
  for (std::size_t i = 0; i < worker.spans.size(); ++i) {
    const OutTensor& tensor = outputs[worker.spans[i].output];
    if (tensor.big_endian) swap_endian(tensor.dtype, worker.out[i]);
    to.write(entry.first_output + worker.spans[i].output, worker.spans[i], worker.out[i]);
  }
}

void run_all(const auto& steps, const RunOptions& options, Destination& to,
             const std::function<void(Bytes)>& append) {
  const Sequence sequence(steps);
  std::deque<Worker> workers(std::max(1u, options.threads));
  run_in_order(
      sequence.units(), options,
      [&](std::uint64_t unit, unsigned worker, Buffer& found) {
        const Sequence::Entry& entry = sequence.at(unit);
        run_unit(entry, unit - entry.first_unit, workers[worker], found, to);
      },
      [&](std::uint64_t unit, Buffer& found) {
        const Sequence::Entry& entry = sequence.at(unit);
        entry.step->fold(unit - entry.first_unit, found);
        if (append) append(found);
      });
}

// All files, with their heads; the numbers by which the output set knows them.
std::vector<std::size_t> create_files(const Plan& plan, const Placement& placement,
                                      OutputSet& outputs) {
  std::vector<std::string> names;
  names.reserve(plan.files.size() + plan.side.size());
  for (const OutFile& f : plan.files) names.push_back(f.name);
  for (const SideFile& s : plan.side) names.push_back(s.name);
  for (std::size_t i = 0; i < outputs.files(); ++i) names.push_back(outputs.name_of(i));
  outputs.check_replaceable(names);
  outputs.check_space(placement.total_bytes);
  std::vector<std::size_t> files;
  for (std::size_t i = 0; i < plan.files.size(); ++i) {
    const Layout& layout = placement.files[i];
    const bool appended = plan.files[i].format == nullptr;
    files.push_back(outputs.create(plan.files[i].name,
                                   appended ? std::nullopt : std::optional(layout.total_bytes)));
    if (appended) continue;
    outputs.write_at(files.back(), 0, layout.head);
    for (const Layout::Piece& p : layout.pieces) outputs.write_at(files.back(), p.offset, p.bytes);
  }
  return files;
}

void copy_side_files(const Plan& plan, OutputSet& outputs) {
  for (const SideFile& s : plan.side) {
    const std::uint64_t bytes = s.content->size();
    outputs.copy_to(outputs.create(s.name, bytes), 0, {s.content, 0, bytes});
  }
}

}  // namespace

Placement place(const Plan& plan) {
  const std::vector<OutTensor> tensors = outputs_of(plan);
  if (!plan.files.empty() && tensors_in(plan) != tensors.size())
    throw Error(Fault::Internal, fmt::format("{} tensors planned but the files take {}",
                                             tensors.size(), tensors_in(plan)));
  check_refusals(plan, tensors);
  if (!plan.files.empty()) check_names(plan, tensors);
  Placement out;
  for (const OutFile& f : plan.files) {
    Layout& layout = out.files.emplace_back();
    if (!f.format) continue;
    const auto mine = std::span(tensors).subspan(out.tensors.size(), f.tensors);
    layout = f.format->layout(f.meta, mine);
    check_layout(layout, mine, f);
    for (std::size_t i = 0; i < mine.size(); ++i)
      out.tensors.push_back({out.files.size() - 1, layout.offsets[i], mine[i].bytes()});
    out.total_bytes += layout.total_bytes;
  }
  for (const SideFile& s : plan.side) out.total_bytes += s.content->size();
  return out;
}

Report execute(Plan& plan, const RunOptions& options, OutputSet* outputs, Follower* follower) {
  const bool writes = !plan.files.empty() || !plan.side.empty();
  if (writes && !outputs) throw Error(Fault::Internal, "a plan with files has nowhere to write");
  const Placement placement = writes ? place(plan) : Placement{};
  std::vector<std::size_t> files;
  if (writes) files = create_files(plan, placement, *outputs);
  if (writes && follower) follower->begin(placement, files);
  std::function<void(Bytes)> append;
  if (!plan.files.empty() && !plan.files[0].format)
    append = [&](Bytes bytes) { outputs->append(files[0], bytes); };

  const Placement nothing;
  Destination nowhere(nothing, files, nullptr);
  run_all(plan.measures, options, nowhere, {});
  Destination to(placement, files, outputs, follower);
  run_all(plan.steps, options, to, append);
  if (writes) to.check_complete(outputs_of(plan));
  if (writes) copy_side_files(plan, *outputs);
  Report report;
  for (const auto& step : plan.measures) step->report(report);
  for (const auto& step : plan.steps) step->report(report);
  return report;
}

void write_heads(const Plan& plan, std::size_t first, OutputSet& outputs) {
  const std::vector<OutTensor> tensors = outputs_of(plan);
  std::size_t at = 0;
  for (std::size_t i = 0; i < plan.files.size(); ++i) {
    const OutFile& file = plan.files[i];
    const auto mine = std::span(tensors).subspan(at, file.tensors);
    at += file.tensors;
    if (!file.format) continue;
    const Layout layout = file.format->layout(file.meta, mine);
    const std::uint64_t size = outputs.written(first + i)->size();
    if (layout.total_bytes != size || !layout.pieces.empty())
      throw Error(Fault::Internal,
                  fmt::format("{} bytes with the last metadata, not {}", layout.total_bytes, size))
          .in(file.name);
    outputs.write_at(first + i, 0, layout.head);
  }
}

std::uint64_t working_memory(unsigned threads) noexcept {
  return (std::uint64_t{threads} * 16 + 64) << 20;
}

}  // namespace wtool
