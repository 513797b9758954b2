// The differences as test cases and findings.
#include <algorithm>

#include <fmt/format.h>

#include "cli/diff.h"
#include "lib/base/text.h"

namespace wtool {
namespace {

constexpr VerdictRule kValues{"diff.values", "the values are the same within the tolerance"},
    kAlone{"diff.missing", "both models have the tensor"},
    kShape{"diff.shape", "the shapes are the same"}, kType{"diff.dtype", "the types are the same"},
    kMetadata{"diff.metadata", "the metadata are the same"},
    kFiles{"diff.file", "the files beside the weights are the same"};

using Level = Verdict::Level;

Verdict of_line(const Diff& diff, const DiffLine& l) {
  Verdict v{&kValues, Level::Passed, l.a, diff.b->path, {l.a}, {}, {}};
  const Comparison& c = l.values;
  if (!l.same_shape()) {
    v.rule = &kShape;
    v.level = Level::Error;
    v.message = fmt::format("{} and {}", to_text(l.shape_a), to_text(l.shape_b));
  } else if (c.beyond > 0) {
    v.level = Level::Error;
    v.message =
        fmt::format("{} of {} values are beyond {}; rel_rmse {:.4g}, largest error {:.4g}",
                    c.beyond, c.elements, diff.tolerance_text, c.drift.rel_rmse(), c.drift.worst);
    if (c.first_beyond.index != Comparison::kNone)
      v.message += fmt::format(", first at {}: {} and {}", c.first_beyond.index, c.first_beyond.a,
                               c.first_beyond.b);
  } else if (!l.same_type()) {
    v.rule = &kType;
    v.level = diff.strict() ? Level::Error : Level::Passed;
    v.message = fmt::format("{} and {}", l.dtype_a, l.dtype_b);
  }
  return v;
}

void of_alone(const Diff& diff, const std::vector<Alone>& list, const std::string& path,
              std::vector<Verdict>& out) {
  for (const Alone& t : list)
    out.push_back({&kAlone,
                   Level::Error,
                   t.name,
                   diff.b->path,
                   {t.name},
                   fmt::format("only in {}", path),
                   {}});
}

void of_keys(const Diff& diff, const VerdictRule& rule, const std::vector<KeyDifference>& list,
             std::vector<Verdict>& out) {
  for (const KeyDifference& d : list) {
    std::string message = "differs";
    if (d.where == KeyDifference::Where::OnlyA) message = "only in " + diff.a->path;
    if (d.where == KeyDifference::Where::OnlyB) message = "only in " + diff.b->path;
    if (d.where == KeyDifference::Where::Both && !d.a.empty())
      message = fmt::format("{} and {}", d.a, d.b);
    out.push_back({&rule,
                   diff.strict() ? Level::Error : Level::Note,
                   d.key,
                   diff.b->path,
                   {},
                   std::move(message),
                   {}});
  }
}

}  // namespace

std::vector<Verdict> diff_verdicts(const Diff& diff) {
  std::vector<Verdict> out;
  for (const DiffLine& l : diff.lines) out.push_back(of_line(diff, l));
  of_alone(diff, diff.only_a, diff.a->path, out);
  of_alone(diff, diff.only_b, diff.b->path, out);
  of_keys(diff, kMetadata, diff.metadata, out);
  of_keys(diff, kFiles, diff.files, out);
  std::ranges::copy(verdicts_of(diff.judged, diff.b->path), std::back_inserter(out));
  return out;
}

}  // namespace wtool
