#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <memory>
#include <set>

#include <fmt/format.h>

#include "cli/check.h"
#include "cli/json.h"
#include "cli/lock_file.h"
#include "cli/terminal.h"
#include "lib/base/text.h"
#include "lib/engine/execute.h"
#include "lib/model/lock.h"
#include "lib/model/selector.h"
#include "lib/numeric/statistics.h"
#include "lib/trust/digest.h"

namespace wtool {
namespace {

// ---- what a model is, in a lock's terms

struct Wanted {
  const LogicalTensor* tensor;
  bool values, digests;
};

double clamped(double v) {  // of finite values, but computed: no lock holds an infinity
  constexpr double kMost = std::numeric_limits<double>::max();
  return lock_rounded(std::min(v, kMost));
}

void set_values(LockedTensor& t, const Moments& m) {
  t.counted = true;
  t.zeros = m.zeros;
  t.nan = m.nan;
  t.inf = m.infinite;
  if (m.finite == 0) return;
  t.envelope = Envelope{.min = lock_rounded(to_double(m.min())),
                        .max = lock_rounded(to_double(m.max())),
                        .absmax = lock_rounded(m.abs_max()),
                        .rms = clamped(std::hypot(m.mean, m.std()))};
}

LockedTensor described(const Model& model, const LogicalTensor& t) {
  LockedTensor out;
  out.name = t.name;
  out.dtype = name_of(t.count == 1 ? model.part(t, 0).dtype : t.dtype);
  out.scheme = t.scheme ? t.scheme->name : "plain";
  out.shape.assign(t.shape.begin(), t.shape.end());
  if (t.count > 1) out.bytes = model.stored_bytes(t);
  return out;
}

void measure(const Model& model, std::span<const Wanted> wanted, std::span<LockedTensor> out,
             const Context& context) {
  std::vector<std::shared_ptr<StatisticsStep>> steps(wanted.size());
  Plan plan;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const TensorPtr values = model.open(*wanted[i].tensor);
    if (!wanted[i].values || statistics_refuses(*values)) continue;
    steps[i] = std::make_shared<StatisticsStep>(out[i].name, std::vector{values},
                                                StatisticsOptions{.distribution = false});
    plan.measures.push_back(steps[i]);
  }
  Progress progress(*context.common, "check");
  RunOptions run = context.run;
  run.progress = progress.callback();
  execute(plan, run);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (steps[i]) set_values(out[i], steps[i]->result().moments);
}

void digest(const Model& model, std::span<const Wanted> wanted, std::span<LockedTensor> out,
            const Context& context) {
  std::vector<Extent> extents;
  std::vector<std::size_t> of;  // the tensor of each
  for (std::size_t i = 0; i < wanted.size(); ++i)
    for (std::size_t p = 0; wanted[i].digests && p < wanted[i].tensor->count; ++p) {
      extents.push_back(model.catalog.extent(model.part(*wanted[i].tensor, p)));
      of.push_back(i);
    }
  if (extents.empty()) return;
  Progress progress(*context.common, "digests", "bytes");
  RunOptions run = context.run;
  run.progress = progress.callback();
  const std::vector<Sha256> digests = sha256_of(extents, run);
  for (std::size_t e = 0; e < extents.size(); ++e) out[of[e]].sha256.push_back(digests[e].hex());
}

// Sorted, as a lock has them.
std::vector<LockedTensor> locked(const Model& model, std::span<const Wanted> wanted,
                                 const Context& context) {
  std::vector<LockedTensor> out;
  for (const Wanted& w : wanted) out.push_back(described(model, *w.tensor));
  measure(model, wanted, out, context);
  digest(model, wanted, out, context);
  for (const SourcePtr& s : model.catalog.sources()) s->check_unchanged();
  std::ranges::sort(out, lock_less);
  return out;
}

// ---- --write-lock

double tolerance_of(const CheckOptions& o) {
  if (o.tolerance.empty()) return Lock::kTolerance;
  std::string_view digits = o.tolerance;
  const bool percent = digits.ends_with('%');
  if (percent) digits.remove_suffix(1);
  double v = 0;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), v);
  if (code != std::errc() || end != digits.data() + digits.size() || !std::isfinite(v) || v < 0)
    throw Error(Fault::Usage,
                fmt::format("--envelope-tolerance {} is no share", quoted(o.tolerance)))
        .hint("such as 0.1 or 10%");
  return percent ? v / 100 : v;
}

void write_written(const CheckOptions& o, const Model& model, const Lock& lock) {
  JsonWriter w(out);
  w.begin_document("wtool.check/1", true, {model.path});
  w.key("lock");
  w.begin_object();
  w.name_member("path", o.write_lock);
  w.member("written", true);
  w.member("tensors", std::uint64_t{lock.tensors.size()});
  w.member("envelope_tolerance", lock.tolerance);
  w.end_object();
  w.key("findings");
  w.begin_array();
  w.end_array();
  w.end_object();
}

// ---- --lock

constexpr VerdictRule kAsLocked{"lock.tensor", "the tensor is as it was locked"};

const VerdictRule& rule_of(LockChange::What what) noexcept {
  using What = LockChange::What;
  static constexpr VerdictRule kAdded{"lock.added", "no tensor is there that was not locked"},
      kRemoved{"lock.removed", "every locked tensor is there"},
      kDtype{"lock.dtype", "types are as locked"}, kScheme{"lock.scheme", "schemes are as locked"},
      kShape{"lock.shape", "shapes are as locked"},
      kBytes{"lock.bytes", "quantized tensors are as large as locked"},
      kNonFinite{"lock.non_finite", "there are no more NaN and infinities than locked"},
      kValues{"lock.values", "values stay within the locked envelope"},
      kDigest{"lock.digest", "stored bytes are as locked"};
  switch (what) {
    case What::Added: return kAdded;
    case What::Removed: return kRemoved;
    case What::OtherDtype: return kDtype;
    case What::OtherScheme: return kScheme;
    case What::OtherShape: return kShape;
    case What::OtherBytes: return kBytes;
    case What::NonFinite: return kNonFinite;
    case What::Values: return kValues;
    case What::Digest: break;
  }
  return kDigest;
}

struct Checked {
  std::shared_ptr<const Model> model;
  Lock lock;            // what is selected of it
  std::size_t present;  // the model's tensors that are selected
  std::vector<LockChange> changes;
};

// Patterns select among the model's tensors and the locked ones that are gone.
std::vector<Wanted> select_both(const Model& model, Lock& lock, const SelectOptions& o) {
  std::set<std::string_view> there;
  for (const LogicalTensor& t : model.tensors) there.insert(t.name);
  std::vector<LogicalTensor> all = model.tensors;
  for (const LockedTensor& t : lock.tensors) {
    if (there.contains(t.name)) continue;
    LogicalTensor gone;
    gone.name = t.name;
    gone.shape = t.shape;
    gone.dtype = parse_dtype(t.dtype).value_or(DType::F32);
    all.push_back(gone);
  }
  std::vector<std::uint32_t> picked;
  try {
    picked = select(all, o.include, o.exclude, o.allow_unmatched);
  } catch (Error& e) {
    throw e.in(model.path);
  }
  std::set<std::string, std::less<>> names;
  for (const std::uint32_t i : picked) names.emplace(all[i].name);
  std::erase_if(lock.tensors, [&](const LockedTensor& t) { return !names.contains(t.name); });
  std::vector<Wanted> wanted;
  for (const std::uint32_t i : picked) {
    if (i >= model.tensors.size()) continue;
    LockedTensor key;
    key.name = all[i].name;
    const auto was = std::ranges::lower_bound(lock.tensors, key, lock_less);
    const bool known = was != lock.tensors.end() && was->name == key.name;
    wanted.push_back({&model.tensors[i], known && was->counted, known && !was->sha256.empty()});
  }
  return wanted;
}

Checked compare(const CheckOptions& o, const Context& context) {
  Checked c;
  c.lock = read_lock(o.lock);
  c.model = open_input(o.input, context);
  std::vector<std::string> taken = files_of(*c.model);
  taken.push_back(o.lock);
  check_report_files(o.findings.files(), o.findings.force, taken);
  const std::vector<Wanted> wanted = select_both(*c.model, c.lock, o.select);
  if (wanted.empty() && c.lock.tensors.empty())
    throw Error(Fault::Usage, "there is nothing to compare").in(o.lock);
  c.present = wanted.size();
  c.changes = changes(c.lock, locked(*c.model, wanted, context));
  return c;
}

std::vector<Verdict> verdicts_of(const Checked& c) {
  const auto verdict = [&](const VerdictRule& rule, Verdict::Level level, const std::string& tensor,
                           std::string message) {
    return Verdict{.rule = &rule,
                   .level = level,
                   .name = tensor,
                   .file = c.model->path,
                   .tensors = {tensor},
                   .message = std::move(message),
                   .fix = {}};
  };
  std::vector<Verdict> all;
  std::set<std::string_view> changed;
  for (const LockChange& change : c.changes) {
    changed.insert(change.tensor);
    all.push_back(verdict(rule_of(change.what), Verdict::Level::Error, change.tensor,
                          fmt::format("tensor {}: {}", quoted(change.tensor), change.message)));
  }
  for (const LockedTensor& t : c.lock.tensors)
    if (!changed.contains(t.name))
      all.push_back(verdict(kAsLocked, Verdict::Level::Passed, t.name, {}));
  return all;
}

void write_json(const CheckOptions& o, const Checked& c) {
  JsonWriter w(out);
  w.begin_document("wtool.check/1", c.changes.empty(), {c.model->path});
  w.key("lock");
  w.begin_object();
  w.name_member("path", o.lock);
  w.member("written", false);
  w.member("tensors", std::uint64_t{c.lock.tensors.size()});
  w.member("envelope_tolerance", c.lock.tolerance);
  w.end_object();
  w.key("findings");
  w.begin_array();
  for (const LockChange& change : c.changes) {
    w.begin_object();
    w.member("rule", rule_of(change.what).id);
    w.member("level", "error");
    w.name_member("tensor", change.tensor);
    w.member("message", change.message);
    w.end_object();
  }
  w.end_array();
  w.end_object();
}

void print_text(const CheckOptions& o, const Checked& c, bool all) {
  const std::string lock = fit_charset(printable(o.lock)),
                    path = fit_charset(printable(c.model->path));
  if (c.changes.empty())
    return out(fmt::format("{}: {} tensors are as locked in {}\n", path, c.present, lock));
  constexpr std::size_t kShown = 20;
  const std::size_t n = all ? c.changes.size() : std::min(kShown, c.changes.size());
  Table table({{"not as locked"}, {""}});
  for (std::size_t i = 0; i < n; ++i)
    table.row({printable(c.changes[i].tensor), printable(c.changes[i].message)}, Style::Red);
  table.print();
  if (n < c.changes.size())
    out(fmt::format("  and {} changes more (-v lists all)\n", c.changes.size() - n));
  std::set<std::string_view> tensors;
  for (const LockChange& change : c.changes) tensors.insert(change.tensor);
  out(fmt::format("{}: {} tensors are not as locked in {}\n", path, tensors.size(), lock));
  out(fmt::format("hint: if this is meant, --write-lock {} -f locks what is there now\n", lock));
}

}  // namespace

ExitCode write_lock(const CheckOptions& o, const Context& context) {
  Lock lock{.tolerance = tolerance_of(o), .tensors = {}};
  const auto model = open_input(o.input, context);
  std::vector<std::string> taken;  // a lock in the model's own folder is replaced like any other
  for (const SourcePtr& s : model->catalog.sources()) taken.push_back(s->name());
  const std::array<ReportFile, 1> files{{{"--write-lock", o.write_lock}}};
  check_report_files(files, o.findings.force, taken);
  std::vector<Wanted> wanted;
  for (const std::uint32_t i : selected(*model, o.select))
    wanted.push_back({&model->tensors[i], true, o.digests});
  if (wanted.empty()) throw Error(Fault::Usage, "there is no tensor to lock").in(model->path);
  lock.tensors = locked(*model, wanted, context);
  write_report_file(o.write_lock, lock_text(lock));
  if (context.common->json)
    write_written(o, *model, lock);
  else
    out(fit_charset(
        fmt::format("wrote {}: {} tensors\n", printable(o.write_lock), lock.tensors.size())));
  return ExitCode::Ok;
}

ExitCode check_lock(const CheckOptions& o, const Context& context) {
  const Checked c = compare(o, context);
  if (context.common->json)
    write_json(o, c);
  else
    print_text(o, c, context.common->verbose);
  if (o.findings.any()) write_findings(o.findings, "check", verdicts_of(c));
  return c.changes.empty() ? ExitCode::Ok : ExitCode::No;
}

}  // namespace wtool
